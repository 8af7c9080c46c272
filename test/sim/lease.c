// SPDX-License-Identifier: Apache-2.0
// lease.c - see sim_run.h: a watcher on the shared database's machine. Triggers note within each
// transaction what must never be committed: an epoch of a lease with two holders, one that goes
// back, a lease that is taken before it ran out, a deployment's status by a server that does not
// hold its lease. One second later at most the seed has failed.
#include "sim_run.h"
#include "db/db.h"
#include "os/thread.h"

enum { LOOK_MS = 1000 };

#define NODE_OF(x) "substr(" x ", 1, instr(" x ", ':'))"
static const Sql notes[] = {
    { "wrong_table", "CREATE TABLE IF NOT EXISTS sim_wrong (what TEXT)", NULL },
    { "wrong_epoch",
      "CREATE TRIGGER sim_epoch AFTER UPDATE ON lease WHEN NEW.epoch < OLD.epoch"
      " OR (NEW.epoch = OLD.epoch AND NEW.holder <> OLD.holder AND NEW.holder <> '') BEGIN"
      " INSERT INTO sim_wrong VALUES ('epoch ' || OLD.epoch || ' of ' || OLD.object || ' was '"
      " || OLD.holder || '''s and is epoch ' || NEW.epoch || ' of ' || NEW.holder); END",
      NULL },
    { "wrong_taking",
      "CREATE TRIGGER sim_taken AFTER UPDATE ON lease WHEN NEW.holder <> '' AND OLD.holder <> ''"
      " AND " NODE_OF("NEW.holder") " <> " NODE_OF(
          "OLD.holder") " AND OLD.until_ms > NEW.until_ms - 3000 BEGIN"
                        " INSERT INTO sim_wrong VALUES (OLD.object || ' was taken from ' || "
                        "OLD.holder || ' by '"
                        " || NEW.holder || ' before its time was over'); END",
      NULL },
    { "wrong_writer",
      "CREATE TRIGGER sim_writer AFTER UPDATE ON deployments WHEN NEW.node IS NOT NULL"
      " AND (NEW.state IS NOT OLD.state OR NEW.replicas_status IS NOT OLD.replicas_status"
      " OR NEW.conditions IS NOT OLD.conditions OR NEW.node IS NOT OLD.node)"
      " AND NOT EXISTS (SELECT 1 FROM lease WHERE object = 'deployment/' || NEW.id"
      " AND substr(holder, 1, length(NEW.node) + 1) = NEW.node || ':') BEGIN"
      " INSERT INTO sim_wrong VALUES ('the status of ' || NEW.name || ' was written by '"
      " || NEW.node || ' without its lease'); END",
      NULL },
};

static err make_notes(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    for (size_t i = 0; i < countof(notes); i++) TRY(db_exec(c, tx, &notes[i], NULL, 0, NULL));
    return ERR_OK;
}

static err read_notes(Ctx *c, Tx *tx, void *arg) {
    static SQL(wrong_first, "SELECT what FROM sim_wrong LIMIT 1");
    Rows *r;
    bool any;
    TRY(db_query(c, tx, &wrong_first, NULL, 0, &r));
    TRY(rows_next(c, r, &any));
    if (any) world_fail(arg, STR_FMT, STR_ARG(col_str(r, 0)));
    return ERR_OK;
}

void lease_watch(World *w) {
    Ctx c;
    Db *db;
    DbConfig config = { .url = S("sqlite:/shared/lathe.db") };
    ctx_init(&c, arena_new(), sim_node(w->sim, NODE_DATABASE));
    err e = db_open(&c, &config, &db);
    if (!e) e = db_tx(&c, db, make_notes, NULL);
    if (e) world_fail(w, "leases cannot be watched: %s", err_row(e)->slug);
    w->watched = true;
    while (!w->failed) {
        arena_reset(c.mem);
        thread_pause(c.os, LOOK_MS * INT64_C(1000000));
        e = db_read(&c, db, read_notes, w);
        if (e && e != ERR_UNAVAILABLE) world_fail(w, "leases cannot be read: %s", err_row(e)->slug);
    }
}
