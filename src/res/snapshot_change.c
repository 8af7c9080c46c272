// SPDX-License-Identifier: Apache-2.0
// snapshot_change.c - the log of changed resources, written in each change's own transaction and
// read by every node's builder. SQLite commits one after the other, so a number says what is new.
// With PostgreSQL a lower number may be committed after a higher one was read: a reading begins at
// the oldest transaction that was not over at the reading before (xmin), and may see some twice.
// Threads: writes on any, within a transaction; reads on the builder's.
#include "base/time.h"
#include "res/snapshot_impl.h"

enum { CHANGES_MAX = 2000, KEPT_MS = 3600000 };

static const Sql change_add = {
    "change_add", "INSERT INTO snapshot_change (xact, kind, id, at_ms) VALUES (0, $1, $2, $3)",
    "INSERT INTO snapshot_change (xact, kind, id, at_ms) VALUES "
    "(CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT), $1, $2, $3)"
};
static const Sql change_next = {
    "change_next", "SELECT COALESCE(MAX(number), 0) FROM snapshot_change",
    "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)"
};
static const Sql change_since = {
    "change_since",
    "SELECT DISTINCT kind, id FROM snapshot_change WHERE number > $1 ORDER BY kind, id LIMIT $2",
    "SELECT DISTINCT kind, id FROM snapshot_change WHERE xact >= $1 ORDER BY kind, id LIMIT $2"
};

err snapshot_changed(Ctx *c, Tx *tx, const char *kind, str id) {
    return db_run(c, tx, &change_add, V(kind), V(id), V(os_wall_ms(c->os)));
}

err change_list(Ctx *c, Tx *tx, int64_t cursor, Build *b, SnapshotChange **out, size_t *out_n) {
    Rows *rows;
    *out = NULL, *out_n = 0;
    TRY(db_one(c, tx, &rows, &change_next, NULL, 0));
    b->cursor = col_int(rows, 0);
    rows_close(rows);
    if (b->whole) return ERR_OK;
    if (tx_kind(tx) == DB_SQLITE && b->cursor < cursor) b->cursor = cursor; // old ones were removed
    *out = new (c->mem, SnapshotChange, CHANGES_MAX + 1);
    TRY(db_ask(c, tx, &rows, &change_since, V(cursor), V((int64_t)CHANGES_MAX + 1)));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        (*out)[(*out_n)++] = (SnapshotChange){ col_str(rows, 0), col_str(rows, 1) };
    }
    if (*out_n > CHANGES_MAX) b->whole = true;
    return ERR_OK;
}

static err trim_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(change_old, "DELETE FROM snapshot_change WHERE at_ms < $1");
    return db_run(c, tx, &change_old, V(*(int64_t *)arg));
}

err change_trim(Ctx *c) {
    int64_t before_ms = os_wall_ms(c->os) - KEPT_MS;
    return db_tx(c, c->db, trim_tx, &before_ms);
}
