// SPDX-License-Identifier: Apache-2.0
// model_job.c - the import of a version: bytes into staging, facts in a child, digest, claim,
// object, ready. Each step is found done after a restart:
//   bytes    the staging file knows how many are safe (blob.h); the checkpoint knows of what
//   claim    the row names the digest before the object exists, so no collector takes it
//   object   the staging file is gone and the object is there
//   ready    one transaction under the job's guard
// Until then a version shows nothing but its state. Owner: an Import lives for one attempt.
// Threads: the job's worker.
#include "mod/model/model_import.h"
#include "mod/model/model_upload.h"
#include "res/collect.h"
#include <assert.h>

err (*model_import_point)(Ctx *c, const char *point);

static err run(Ctx *c, Job *j);
static void after(Ctx *c, Tx *tx, Job *j, err e);
const JobKind model_import_kind = {
    .name = "model.import",
    .run = run,
    .after = after,
    .parallel_max = 2,
    .en = "Fetch, check and describe the weights of a model version",
    .zh = "获取、校验并描述模型版本的权重",
};

static err point(Ctx *c, const char *name) {
    return model_import_point ? model_import_point(c, name) : ERR_OK;
}

void model_import_ctx(Ctx *c, const Job *j) {
    c->app = model_app();
    c->who = &identity_system;
    c->org = job_org(j), c->project = job_project(j);
}

// ---- transactions of the attempt

typedef struct Guarded {
    Import *im;
    err (*fn)(Ctx *c, Tx *tx, void *arg);
    void *arg;
} Guarded;
static err guarded(Ctx *c, Tx *tx, void *arg) {
    Guarded *g = arg;
    TRY(job_guard(c, tx, g->im->job));
    return g->fn(c, tx, g->arg);
}
err model_import_tx(Ctx *c, Import *im, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg) {
    Guarded g = { im, fn, arg };
    return db_tx(c, c->db, guarded, &g);
}

static err store(Ctx *c, Tx *tx, void *arg) {
    Import *im = arg;
    return res_set_status(c, tx, &model_version_resource, im->v, NULL);
}

// Not more often than every two seconds: each is a row, an event and a commit.
static err tell_progress(Ctx *c, Import *im, int64_t done, int64_t total) {
    enum { EVERY_MS = 2000 };
    int64_t now_ns = os_mono_ns(c->os);
    if (now_ns - im->told_ns < (int64_t)EVERY_MS * 1000000) return ERR_OK;
    im->told_ns = now_ns;
    int64_t percent =
        total > 0 && done <= total ? (int64_t)((double)done * 100 / (double)total) : 0;
    if (percent == im->v->progress) return ERR_OK;
    im->v->progress = percent;
    ArenaMark m = arena_mark(c->mem);
    TRY(model_import_tx(c, im, store, im));
    arena_restore(c->mem, m); // a slow line may take days
    return ERR_OK;
}

err model_import_step(Ctx *c, Import *im, int64_t done, int64_t total) {
    TRY(ctx_check(c));
    job_progress(im->job, done, total > done ? total : done, "bytes");
    return tell_progress(c, im, done, total);
}

// ---- steps

static err load(Ctx *c, Tx *tx, void *arg) {
    Import *im = arg;
    im->v = model_version_new(c);
    return res_get(c, tx, &model_version_resource, job_subject(im->job), im->v);
}

static err begin(Ctx *c, Import *im) {
    Version *v = im->v;
    bool again = v->source.type != SOURCE_UPLOAD; // a retry after its bytes were given up
    if (!v->staging.p && !again) return fail(c, ERR_INVALID, R_UPLOAD_GONE);
    if (!v->staging.p) v->staging = v->head.id;
    v->state = VERSION_IMPORTING, v->state_reason = (str){ 0 };
    return model_import_tx(c, im, store, im);
}

static err size_check(Ctx *c, Import *im) {
    int64_t staged = blob_staged(im->w), want = im->v->size_bytes;
    bool upload = im->v->source.type == SOURCE_UPLOAD;
    TRY(model_import_size_check(c, "the file", staged));
    if (!staged) return fail(c, ERR_INVALID, R_UPLOAD_EMPTY);
    if (!upload || want == UNSET_INT || want == staged) return ERR_OK;
    return fail(c, ERR_INVALID, R_UPLOAD_SIZE, "bytes", say(c, "%lld", (long long)staged), "size",
                say(c, "%lld", (long long)want));
}

static err describe(Ctx *c, Import *im, str path) {
    const GgufFacts *g = &im->facts;
    TRY(model_facts_read(c, path, &im->facts));
    job_say(im->job,
            "header: %s, %lld parameters, context %lld, %s, tokenizer %s, chat template: %s",
            say_str(c, g->architecture), (long long)g->parameters, (long long)g->context,
            say_str(c, g->quantisation), say_str(c, g->tokenizer), g->can_chat ? "yes" : "no");
    return ERR_OK;
}

// From here on the row holds the digest and the facts. An object that is just being removed is
// waited for.
static err claim(Ctx *c, Tx *tx, void *arg) {
    Import *im = arg;
    TRY(object_claim(c, tx, im->v->digest));
    im->v->facts = im->facts;
    im->v->format = 0; // gguf
    model_memory_fill(c, &im->facts, im->v);
    return store(c, tx, im);
}

static err digest(Ctx *c, Import *im, str path) {
    char hex[BLOB_DIGEST_HEX + 1];
    TRY(model_digest_read(c, im, path, hex));
    if (im->v->sha256.p && !str_is(im->v->sha256, hex))
        return fail(c, ERR_INVALID, R_BLOB_DIGEST, "got", hex, "want", say_str(c, im->v->sha256));
    im->v->digest = arena_str(c->mem, str_z(hex));
    job_say(im->job, "sha256 %s", hex);
    return ERR_OK;
}

static void sent(void *arg, int64_t done, int64_t total) {
    job_progress(((Import *)arg)->job, done, total, "bytes");
}

static err commit(Ctx *c, Import *im) {
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    BlobWriter *w = im->w;
    blob_writer_progress(w, (BlobProgress){ sent, im });
    im->w = NULL;
    TRY(blob_commit(c, w, im->v->digest, hex, &size));
    assert(size == im->v->size_bytes);
    return ERR_OK;
}

typedef struct Ready {
    Import *im;
    str same;
} Ready;
static err ready(Ctx *c, Tx *tx, void *arg) {
    Ready *r = arg;
    Version *v = r->im->v;
    v->state = VERSION_READY, v->progress = 100;
    v->state_reason = v->staging = (str){ 0 };
    TRY(store(c, tx, r->im));
    TRY(model_sql_same_digest(c, tx, v->digest, v->head.id, &r->same));
    return model_refresh(c, tx, v->model);
}

static err finish(Ctx *c, Import *im) {
    Ready r = { im, { 0 } };
    TRY(model_import_tx(c, im, ready, &r));
    if (r.same.p)
        job_say(im->job, "the same content as " STR_FMT ": both share one object", STR_ARG(r.same));
    job_say(im->job, "ready as version %lld, %lld bytes", (long long)im->v->number,
            (long long)im->v->size_bytes);
    job_result(im->job, arena_printf(c->mem, "{\"version\":\"" STR_FMT "\",\"number\":%lld}",
                                     STR_ARG(im->v->head.id), (long long)im->v->number));
    return ERR_OK;
}

// ---- the attempt

// Staging, facts, digest, claim.
static err bring(Ctx *c, Import *im) {
    str path = model_staging_path(c, im->v->staging);
    TRY(model_import_fetch(c, im));
    TRY(blob_sync(c, im->w));
    TRY(point(c, "fetched"));
    TRY(size_check(c, im));
    im->v->size_bytes = blob_staged(im->w);
    TRY(describe(c, im, path));
    TRY(point(c, "described"));
    TRY(digest(c, im, path));
    TRY(point(c, "hashed"));
    TRY(model_import_tx(c, im, claim, im));
    return point(c, "claimed");
}

// A crash came between object and ready, or another version brought the same object meanwhile.
static err forget_staging(Ctx *c, Import *im) {
    if (!im->v->staging.p) return ERR_OK;
    TRY(blob_stage(c, model_app()->blobs, im->v->staging, &im->w));
    blob_abandon(c, im->w);
    im->w = NULL;
    return ERR_OK;
}

static err stage_and_commit(Ctx *c, Import *im) {
    TRY(blob_stage(c, model_app()->blobs, im->v->staging, &im->w));
    model_digest_restart(c, im);
    job_say(im->job, "attempt %d: %lld bytes are here already", job_attempt(im->job),
            (long long)blob_staged(im->w));
    TRY(bring(c, im));
    TRY(commit(c, im));
    return point(c, "committed");
}

static err import(Ctx *c, Import *im) {
    err e = im->v->digest.p ? blob_find(c, model_app()->blobs, im->v->digest, NULL) : ERR_NOTFOUND;
    bool there = !e;
    if (e && e != ERR_NOTFOUND) return e;
    TRY(model_session_close(c, im->v->staging));
    TRY(there ? forget_staging(c, im) : stage_and_commit(c, im));
    TRY(finish(c, im));
    return point(c, "ready");
}

static const char *outcome(err e) {
    return !e ? "ready" : e == ERR_CANCELLED ? "cancelled" : "failed";
}
static void count(void *outcome) { metric_add(&model_metric_imports, 1, str_z(outcome)); }

static err run(Ctx *c, Job *j) {
    Import *im = new (c->mem, Import, 1);
    im->job = j;
    model_import_ctx(c, j);
    TRY(db_read(c, c->db, load, im));
    if (im->v->state == VERSION_READY) return ERR_OK;
    TRY(begin(c, im));
    err e = import(c, im);
    if (im->w) blob_pause(im->w);
    // Somebody else has the staging file for a moment: a request that ends, a collector.
    bool busy = c->failure.why == &R_BLOB_STAGED || c->failure.why == &R_UPLOAD_BUSY;
    if (e == ERR_CONFLICT && busy) return c->failure.code = ERR_UNAVAILABLE;
    return e;
}

// What the version shows when its job has ended otherwise than ready: the job's row says why.
static err why_failed(Ctx *c, Tx *tx, const Job *j, err why, str *out) {
    enum { CHARS_MAX = 500 };
    JobView view;
    *out = S("it was cancelled");
    if (why == ERR_CANCELLED) return ERR_OK;
    TRY(job_view(c, tx, job_project(j), job_id(j), &view));
    size_t n = view.error_text.n < CHARS_MAX ? view.error_text.n : CHARS_MAX;
    while (n && n < view.error_text.n && (view.error_text.p[n] & 0xc0) == 0x80) n--;
    *out = str_sub(view.error_text, 0, n);
    return ERR_OK;
}

// Bytes that can never become a version go now; those of a broken line stay for a retry.
static bool worth_keeping(err why) {
    return why == ERR_UNAVAILABLE || why == ERR_UPSTREAM || why == ERR_TIMEOUT || why == ERR_FULL
           || why == ERR_INTERNAL;
}

static err end_failed(Ctx *c, Tx *tx, Job *j, err why) {
    str text;
    Version *v = model_version_new(c);
    err e = res_get(c, tx, &model_version_resource, job_subject(j), v);
    if (e == ERR_NOTFOUND) return ERR_OK; // deleted meanwhile
    if (e || v->state == VERSION_READY) return e;
    TRY(why_failed(c, tx, j, why, &text));
    if (!worth_keeping(why)) {
        if (v->staging.p) TRY(model_collect_staging(c, tx, v->staging));
        v->staging = (str){ 0 };
    }
    v->state = VERSION_FAILED, v->state_reason = text;
    TRY(res_set_status(c, tx, &model_version_resource, v, NULL));
    return model_refresh(c, tx, v->model);
}

static void after(Ctx *c, Tx *tx, Job *j, err e) {
    model_import_ctx(c, j);
    tx_notify(tx, count, (void *)(uintptr_t)outcome(e));
    if (!e) return;
    err stored =
        end_failed(c, tx, j, e); // failing, it spoils the transaction, which is tried again
    (void)stored;
}
