// SPDX-License-Identifier: Apache-2.0
// job_sql.c - the table of jobs and how a row is read. '' stands for an absent text, 0 for an
// absent time, so that both databases compare and index them alike; only key and checkpoint may be
// NULL.
#include "base/id.h"
#include "job/job_own.h"
#include <assert.h>

static const Migration migrations[] = {
    { 1,
      "CREATE TABLE job ("
      " id TEXT PRIMARY KEY, kind TEXT NOT NULL, org TEXT NOT NULL, project TEXT NOT NULL,"
      " subject TEXT NOT NULL, created_by TEXT NOT NULL, payload TEXT NOT NULL, key TEXT,"
      " priority INTEGER NOT NULL, state TEXT NOT NULL, next_ms INTEGER NOT NULL,"
      " node TEXT NOT NULL, holder TEXT NOT NULL, epoch INTEGER NOT NULL,"
      " lease_until_ms INTEGER NOT NULL, attempt INTEGER NOT NULL, attempts_max INTEGER NOT NULL,"
      " failures INTEGER NOT NULL, crashes INTEGER NOT NULL, cancel_asked INTEGER NOT NULL,"
      " checkpoint TEXT, progress_done INTEGER NOT NULL, progress_total INTEGER NOT NULL,"
      " unit TEXT NOT NULL, result TEXT NOT NULL, error_slug TEXT NOT NULL,"
      " error_text TEXT NOT NULL, error_zh TEXT NOT NULL, created_ms INTEGER NOT NULL,"
      " started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL) STRICT;"
      "CREATE UNIQUE INDEX job_key ON job (kind, project, key);"
      "CREATE INDEX job_next ON job (state, kind, priority DESC, id);"
      "CREATE INDEX job_due ON job (state, next_ms);"
      "CREATE INDEX job_project ON job (project, id);"
      "CREATE INDEX job_subject ON job (subject, id);"
      "CREATE INDEX job_ended ON job (ended_ms);",
      NULL },
};

err jobs_tables(Ctx *c, Db *db) {
    TRY(lease_migrate(c, db));
    return db_migrate(c, db, "job", migrations, countof(migrations));
}

static str text_at(Rows *r, int col) { // '' is the absent one
    str s = col_str(r, col);
    return s.n ? s : (str){ 0 };
}

static void view_read(Rows *r, JobView *v) {
    str *const texts[] = { &v->id,      &v->kind,       &v->org, &v->project,
                           &v->subject, &v->created_by, &v->node };
    for (size_t i = 0; i < countof(texts); i++) *texts[i] = text_at(r, (int)i);
    bool known = job_state_find(col_str(r, 7), &v->state);
    assert(known);
    v->error_slug = text_at(r, 8);
    v->error_text = text_at(r, 9);
    v->result = text_at(r, 11);
    v->unit = text_at(r, 12);
    int64_t *const numbers[] = { &v->created_ms, &v->started_ms,    &v->ended_ms,
                                 &v->next_ms,    &v->progress_done, &v->progress_total };
    for (size_t i = 0; i < countof(numbers); i++) *numbers[i] = col_int(r, 13 + (int)i);
    v->attempt = (int)col_int(r, 19);
    v->attempts_max = (int)col_int(r, 20);
    v->cancel_asked = col_int(r, 21) != 0;
}

void job_row_read(Rows *r, JobRow *out) {
    *out = (JobRow){ 0 };
    view_read(r, &out->view);
    out->error_zh = text_at(r, 10);
    out->payload = col_str(r, 22);
    out->checkpoint = col_str(r, 23);
    out->holder = col_str(r, 24);
    out->epoch = col_int(r, 25);
    out->lease_until_ms = col_int(r, 26);
    out->failures = col_int(r, 27);
    out->crashes = col_int(r, 28);
}

static SQL(job_by_id, "SELECT " JOB_COLUMNS " FROM job WHERE id = $1");
static SQL(job_by_project, "SELECT " JOB_COLUMNS " FROM job WHERE id = $1 AND project = $2");

static err row_one(Ctx *c, Rows *r, str id, JobRow *out) {
    bool any;
    TRY(rows_next(c, r, &any));
    if (!any) return fail(c, ERR_NOTFOUND, R_JOB_ABSENT, "id", say_str(c, id));
    job_row_read(r, out);
    rows_close(r);
    return ERR_OK;
}

err job_row(Ctx *c, Tx *tx, str id, JobRow *out) {
    Rows *r;
    TRY(db_ask(c, tx, &r, &job_by_id, V(id)));
    return row_one(c, r, id, out);
}

static SQL(job_set,
           "UPDATE job SET state = $4, next_ms = $5, ended_ms = $6, attempt = $7, failures = $8,"
           " crashes = $9, error_slug = $10, error_text = $11, error_zh = $12, result = $13,"
           " progress_done = $14, progress_total = $15, unit = $16, epoch = epoch + 1,"
           " holder = '', lease_until_ms = 0 WHERE id = $1 AND epoch = $2 AND state = $3");

err job_row_set(Ctx *c, Tx *tx, const JobRow *was, const JobRow *now, bool *out_changed) {
    const JobView *v = &now->view;
    int64_t changed;
    Val args[] = { V(was->view.id),
                   V(was->epoch),
                   V(job_state_name(was->view.state)),
                   V(job_state_name(v->state)),
                   V(v->next_ms),
                   V(v->ended_ms),
                   V(v->attempt),
                   V(now->failures),
                   V(now->crashes),
                   val_text(v->error_slug),
                   val_text(v->error_text),
                   val_text(now->error_zh),
                   val_text(v->result),
                   V(v->progress_done),
                   V(v->progress_total),
                   val_text(v->unit) };
    TRY(db_exec(c, tx, &job_set, args, countof(args), &changed));
    *out_changed = changed != 0;
    return ERR_OK;
}

err job_row_of(Ctx *c, Tx *tx, str project, str id, JobRow *out) {
    Rows *r;
    if (!id_valid(id, "job")) // whatever a stranger sent: not for SQL, and not for a file's name
        return fail(c, ERR_NOTFOUND, R_JOB_ABSENT, "id", say_str(c, id));
    TRY(db_ask(c, tx, &r, &job_by_project, V(id), val_text(project)));
    return row_one(c, r, id, out);
}
