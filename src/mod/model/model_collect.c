// SPDX-License-Identifier: Apache-2.0
// model_collect.c - removal of what uploads and imports left behind: staging files that were given
// up, uploads nobody finished. It is never done by the transaction that knows of it but by a job
// that it stages, which looks again. Objects of deleted versions are the kit's (res/collect.h).
// Threads: workers.
#include "mod/model/model_import.h"
#include "mod/model/model_upload.h"

static err run(Ctx *c, Job *j);
const JobKind model_collect_kind = {
    .name = "model.collect",
    .run = run,
    .attempts_max = 20,
    .en = "Remove bytes of uploads and imports that were given up",
    .zh = "移除已放弃的上传与导入的数据",
};

err model_collect_staging(Ctx *c, Tx *tx, str name) {
    str id, payload = arena_printf(c->mem, "{\"staging\":\"" STR_FMT "\"}", STR_ARG(name));
    JobSpec spec = { .kind = model_collect_kind.name, .payload = payload };
    TRY(job_add(c, tx, &spec, &id));
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return ERR_OK;
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

static err run(Ctx *c, Job *j) {
    yyjson_val *root;
    model_import_ctx(c, j);
    TRY(json_parse(c, job_payload(j), &root));
    str name = json_get_str(root, "staging");
    return name.n ? remove_staging(c, j, name) : ERR_OK; // of an older release
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
