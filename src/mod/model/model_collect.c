// SPDX-License-Identifier: Apache-2.0
// model_collect.c - removal of what nobody needs any more: staging files of uploads and imports
// that were given up, objects of deleted versions after a grace time, uploads nobody finished.
// It is never done by the transaction that knows of it but by a job that it stages, which looks
// again. An object is condemned in a transaction that has seen no reference; an import claims its
// digest in one that has seen no condemnation (model_job.c). So of two at a time one gives way, and
// no claimed object is removed.
// Threads: workers.
#include "mod/model/model_import.h"
#include "mod/model/model_upload.h"

static err run(Ctx *c, Job *j);
const JobKind model_collect_kind = {
    .name = "model.collect",
    .run = run,
    .attempts_max = 20,
    .en = "Remove bytes that no model version needs any more",
    .zh = "移除不再被任何模型版本使用的数据",
};

// A job of the system's own: an object may belong to versions of several projects.
static err add(Ctx *c, Tx *tx, const char *what, str name, int64_t not_before_ms) {
    str id, payload = arena_printf(c->mem, "{\"%s\":\"" STR_FMT "\"}", what, STR_ARG(name));
    JobSpec spec = { .kind = model_collect_kind.name,
                     .payload = payload,
                     .not_before_ms = not_before_ms };
    TRY(job_add(c, tx, &spec, &id));
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return ERR_OK;
}

err model_collect_staging(Ctx *c, Tx *tx, str name) { return add(c, tx, "staging", name, 0); }

err model_collect_blob(Ctx *c, Tx *tx, str digest) {
    int64_t grace_ms = setting_int(&model_settings[MODEL_BLOB_GRACE]), now_ms = tx_now_ms(tx), at;
    if (__builtin_add_overflow(now_ms, grace_ms, &at)) return ERR_OK; // never
    return add(c, tx, "digest", digest, at);
}

typedef struct Look {
    str name;
    bool live;
} Look;

// ---- staging files. A name is never given twice, so one that nobody owns stays so.

static err look_staging(Ctx *c, Tx *tx, void *arg) {
    Look *l = arg;
    return model_sql_staging_live(c, tx, l->name, &l->live);
}

static err remove_staging(Ctx *c, Job *j, str name) {
    Look l = { name, false };
    BlobWriter *w;
    TRY(db_read(c, c->db, look_staging, &l));
    if (l.live) {
        job_say(j, "staging file " STR_FMT " is in use again: kept", STR_ARG(name));
        return ERR_OK;
    }
    err e = model_session_close(c, name);
    if (!e) e = blob_stage(c, model_app()->blobs, name, &w);
    if (e == ERR_CONFLICT) c->failure.code = e = ERR_UNAVAILABLE; // its last writer still leaves
    TRY(e);
    job_say(j, "staging file " STR_FMT ": %lld bytes removed", STR_ARG(name),
            (long long)blob_staged(w));
    blob_abandon(c, w);
    return ERR_OK;
}

// ---- objects

static err refers(Ctx *c, Tx *tx, const Resource *r, const Field *f, Look *l) {
    str text =
        arena_printf(c->mem, "SELECT 1 FROM %s WHERE \"%s\" = $1 LIMIT 1", r->plural, f->name);
    Sql *sql = new (c->mem, Sql, 1);
    *sql = (Sql){ "blob_refers", text.p, NULL };
    Rows *rows;
    bool more;
    TRY(db_ask(c, tx, &rows, sql, V(l->name)));
    TRY(rows_next(c, rows, &more));
    if (!more) return ERR_OK;
    rows_close(rows);
    l->live = true;
    return ERR_OK;
}

// Every BLOB column of every module: objects are shared by content, whoever stored them.
static err look_everywhere(Ctx *c, Tx *tx, Look *l) {
    for (const Module *const *m = model_app()->modules; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            for (const Field *f = (*r)->fields; f && f->name && !l->live; f++)
                if (f->type == T_BLOB) TRY(refers(c, tx, *r, f, l));
    return ERR_OK;
}

static err condemn(Ctx *c, Tx *tx, void *arg) {
    Look *l = arg;
    l->live = false;
    TRY(look_everywhere(c, tx, l));
    return l->live ? ERR_OK : model_sql_condemn(c, tx, l->name);
}

static err pardon(Ctx *c, Tx *tx, void *arg) {
    return model_sql_pardon(c, tx, ((const Look *)arg)->name);
}

static err remove_blob(Ctx *c, Job *j, str digest) {
    Look l = { digest, false };
    TRY(db_tx(c, c->db, condemn, &l));
    if (l.live) {
        job_say(j, "object " STR_FMT " is still used: kept", STR_ARG(digest));
        return ERR_OK;
    }
    err e = blob_remove(c, model_app()->blobs, digest);
    if (e && e != ERR_NOTFOUND) return e;
    job_say(j, "object " STR_FMT " %s", STR_ARG(digest), e ? "was gone" : "removed");
    return db_tx(c, c->db, pardon, &l);
}

static err run(Ctx *c, Job *j) {
    yyjson_val *root;
    model_import_ctx(c, j);
    TRY(json_parse(c, job_payload(j), &root));
    str staging = json_get_str(root, "staging"), digest = json_get_str(root, "digest");
    return staging.p ? remove_staging(c, j, staging) : remove_blob(c, j, digest);
}

// ---- uploads that nobody finished

typedef struct Trim {
    int64_t before_ms, removed;
    OldUpload *list;
    size_t n;
} Trim;

static err trim_list(Ctx *c, Tx *tx, void *arg) {
    Trim *t = arg;
    return model_sql_uploads_before(c, tx, t->before_ms, &t->list, &t->n);
}

static err trim_one(Ctx *c, Tx *tx, void *arg) {
    Upload *u = model_upload_new(c);
    err e = res_get(c, tx, &model_upload_resource, ((const OldUpload *)arg)->id, u);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    return res_delete(c, tx, &model_upload_resource, u);
}

err model_uploads_trim(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    Trim t = { .before_ms = before_ms };
    str org = c->org, project = c->project;
    err e = ERR_OK;
    do {
        e = db_read(c, c->db, trim_list, &t);
        for (size_t i = 0; !e && i < t.n; i++, t.removed++) {
            c->org = t.list[i].org, c->project = t.list[i].project;
            e = db_tx(c, c->db, trim_one, &t.list[i]);
        }
    } while (!e && t.n);
    c->org = org, c->project = project;
    *out_removed = t.removed;
    return e;
}
