// SPDX-License-Identifier: Apache-2.0
// model_sql.c - migrations and named queries of the model module. Rows of its resources go through
// res/; here is what they cannot say. The tenant is in every WHERE, but for those that look after
// what is left of any tenant's.
#include "mod/model/model_own.h"

#define HEAD "id TEXT NOT NULL PRIMARY KEY, org TEXT NOT NULL, project TEXT NOT NULL, "
#define TAIL                                                                               \
    ", revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, " \
    "created_by TEXT)"

const Migration model_migrations[] = {
    { 1,
      "CREATE TABLE models (name TEXT NOT NULL, " HEAD
      "description TEXT, licence TEXT, labels TEXT, architecture TEXT, latest BIGINT, "
      "last_number BIGINT, versions BIGINT" TAIL ";"
      "CREATE UNIQUE INDEX models_name ON models (project, name);"
      "CREATE INDEX models_created ON models (project, created_at);"
      "CREATE TABLE model_versions (" HEAD
      "model TEXT NOT NULL, number BIGINT NOT NULL, source TEXT NOT NULL, sha256 TEXT, "
      "state TEXT NOT NULL, state_reason TEXT, progress BIGINT, job TEXT, digest TEXT, "
      "size_bytes BIGINT, format TEXT, facts TEXT, memory TEXT, staging TEXT" TAIL ";"
      "CREATE UNIQUE INDEX model_versions_number ON model_versions (model, number);"
      "CREATE INDEX model_versions_model ON model_versions (project, model);"
      "CREATE INDEX model_versions_by_number ON model_versions (project, number);"
      "CREATE INDEX model_versions_state ON model_versions (project, state);"
      "CREATE INDEX model_versions_created ON model_versions (project, created_at);"
      "CREATE INDEX model_versions_digest ON model_versions (digest);"
      "CREATE INDEX model_versions_staging ON model_versions (staging);"
      "CREATE TABLE model_uploads (" HEAD
      "model TEXT NOT NULL, size_bytes BIGINT, sha256 TEXT, received_bytes BIGINT, "
      "state TEXT NOT NULL" TAIL ";"
      "CREATE INDEX model_uploads_model ON model_uploads (project, model);"
      "CREATE INDEX model_uploads_created ON model_uploads (created_at);"
      "CREATE TABLE model_condemned (digest TEXT NOT NULL PRIMARY KEY, at_ms BIGINT NOT NULL);",
      NULL },
    { 2, "DROP TABLE model_condemned;", NULL }, // the kit's since: blob_condemned
    { 3,                                        // what lists are sorted and filtered by
      LIST_IDS("models", "project") LIST_INDEX("models", "project", "created_at")            //
      "DROP INDEX models_created;"                                                           //
      "DROP INDEX model_versions_by_number;"                                                 //
      LIST_IDS("model_versions", "project") LIST_INDEX("model_versions", "project", "model") //
      LIST_INDEX_UNSET("model_versions", "project", "number", "0")                           //
      LIST_INDEX_UNSET("model_versions", "project", "state", "''")                           //
      LIST_INDEX("model_versions", "project", "created_at")                                  //
      "DROP INDEX model_versions_model;"                                                     //
      "DROP INDEX model_versions_state; DROP INDEX model_versions_created;"                  //
      LIST_IDS("model_uploads", "project") LIST_INDEX("model_uploads", "project", "model")   //
      LIST_INDEX("model_uploads", "project", "created_at") "DROP INDEX model_uploads_model;",
      NULL },
};
const size_t model_migrations_n = countof(model_migrations);

static SQL(version_counts, "SELECT COUNT(*), COALESCE(MAX(number), 0), "
                           "COALESCE(MAX(CASE WHEN state = 'ready' THEN number END), 0) "
                           "FROM model_versions WHERE project = $1 AND model = $2");
static SQL(version_facts,
           "SELECT facts FROM model_versions WHERE project = $1 AND model = $2 AND number = $3");
static SQL(version_numbered,
           "SELECT v.id FROM model_versions v JOIN models m ON m.id = v.model WHERE m.project = $1 "
           "AND m.name = $2 AND v.project = $1 AND v.number = $3");
static SQL(version_newest,
           "SELECT v.id FROM model_versions v JOIN models m ON m.id = v.model WHERE m.project = $1 "
           "AND m.name = $2 AND v.project = $1 AND v.state = 'ready' "
           "ORDER BY v.number DESC LIMIT 1");
static SQL(version_job, "UPDATE model_versions SET job = $1 WHERE id = $2 AND project = $3");
static SQL(staging_live, "SELECT 1 FROM model_uploads WHERE id = $1 UNION ALL "
                         "SELECT 1 FROM model_versions WHERE staging = $1");
static SQL(same_digest,
           "SELECT m.name, v.number FROM model_versions v JOIN models m ON m.id = v.model "
           "WHERE v.project = $1 AND v.digest = $2 AND v.id <> $3 AND v.state = 'ready' "
           "ORDER BY v.id LIMIT 1");
static SQL(uploads_of, "SELECT COUNT(*) FROM model_uploads WHERE project = $1 AND model = $2");
static SQL(uploads_before, "SELECT id, org, project FROM model_uploads WHERE created_at < $1 "
                           "ORDER BY created_at LIMIT 100");

// One row or none.
static err ask_one(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, Rows **out) {
    bool more;
    Rows *rows;
    TRY(db_query(c, tx, sql, args, n, &rows));
    TRY(rows_next(c, rows, &more));
    *out = more ? rows : NULL;
    return ERR_OK;
}
#define ASK(c, tx, out, sql, ...)                           \
    ask_one((c), (tx), (sql), (const Val[]){ __VA_ARGS__ }, \
            countof(((const Val[]){ __VA_ARGS__ })), (out))

err model_sql_version_counts(Ctx *c, Tx *tx, str model_id, VersionCounts *out) {
    Rows *rows;
    *out = (VersionCounts){ 0 };
    TRY(ASK(c, tx, &rows, &version_counts, V(c->project), V(model_id)));
    if (!rows) return ERR_OK;
    *out = (VersionCounts){ col_int(rows, 0), col_int(rows, 1), col_int(rows, 2), { 0 } };
    rows_close(rows);
    if (!out->latest) return ERR_OK;
    TRY(ASK(c, tx, &rows, &version_facts, V(c->project), V(model_id), V(out->latest)));
    if (!rows) return ERR_OK;
    str text = col_str(rows, 0);
    rows_close(rows);
    yyjson_val *facts;
    TRY(json_parse(c, text, &facts));
    out->architecture = json_get_str(facts, "architecture");
    return ERR_OK;
}

static err id_of(Rows *rows, str *out_id) {
    *out_id = rows ? col_str(rows, 0) : (str){ 0 };
    if (rows) rows_close(rows);
    return ERR_OK;
}

err model_sql_version_named(Ctx *c, Tx *tx, str model, int64_t number, str *out_id) {
    Rows *rows;
    if (number) TRY(ASK(c, tx, &rows, &version_numbered, V(c->project), V(model), V(number)));
    else TRY(ASK(c, tx, &rows, &version_newest, V(c->project), V(model)));
    return id_of(rows, out_id);
}

err model_sql_version_job(Ctx *c, Tx *tx, str version_id, str job_id) {
    return db_run(c, tx, &version_job, V(job_id), V(version_id), V(c->project));
}

static err is_there(Rows *rows, bool *out) {
    *out = rows;
    if (rows) rows_close(rows);
    return ERR_OK;
}

err model_sql_staging_live(Ctx *c, Tx *tx, str name, bool *out) {
    Rows *rows;
    TRY(ASK(c, tx, &rows, &staging_live, V(name)));
    return is_there(rows, out);
}

err model_sql_same_digest(Ctx *c, Tx *tx, str digest, str but_id, str *out_text) {
    Rows *rows;
    TRY(ASK(c, tx, &rows, &same_digest, V(c->project), V(digest), V(but_id)));
    *out_text = (str){ 0 };
    if (!rows) return ERR_OK;
    *out_text = arena_printf(c->mem, STR_FMT ":%lld", STR_ARG(col_str(rows, 0)),
                             (long long)col_int(rows, 1));
    rows_close(rows);
    return ERR_OK;
}

err model_sql_uploads(Ctx *c, Tx *tx, str model_id, int64_t *out_count) {
    Rows *rows;
    TRY(ASK(c, tx, &rows, &uploads_of, V(c->project), V(model_id)));
    *out_count = rows ? col_int(rows, 0) : 0;
    if (rows) rows_close(rows);
    return ERR_OK;
}

err model_sql_uploads_before(Ctx *c, Tx *tx, int64_t before_ms, OldUpload **out, size_t *out_n) {
    enum { MOST = 100 }; // as in the statement
    Rows *rows;
    bool more;
    OldUpload *list = new (c->mem, OldUpload, MOST);
    size_t n = 0;
    TRY(db_ask(c, tx, &rows, &uploads_before, V(before_ms)));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more || n == MOST) break;
        list[n++] = (OldUpload){ col_str(rows, 0), col_str(rows, 1), col_str(rows, 2) };
    }
    *out = list, *out_n = n;
    return ERR_OK;
}
