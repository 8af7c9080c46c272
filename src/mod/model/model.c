// SPDX-License-Identifier: Apache-2.0
// model.c - the model module: its descriptor, the hooks of models, versions and uploads, and what
// other modules ask of a version. How bytes become a version is model_job.c's.
// Owner: rows live in the caller's arena. Threads: workers with the caller's Tx.
#include "mod/model/model_import.h"
#include "mod/model/model_upload.h"
#include "base/id.h"
#include "res/collect.h"
#include <assert.h>

static err init(Ctx *c);
static void stop(void *app);

static const Resource *const resources[] = { &model_resource, &model_version_resource,
                                             &model_upload_resource, NULL };
static const JobKind *const kinds[] = { &model_import_kind, &model_collect_kind, NULL };
static const Retention retentions[] = {
    { "model_uploads", &model_settings[MODEL_UPLOAD_KEEP], model_uploads_trim,
      "Uploads that nobody finished", "未完成的上传" },
    { 0 },
};

const Module model_module = {
    .name = "model",
    .needs = "",
    .resources = resources,
    .routes = model_routes,
    .settings = model_settings,
    .metrics = model_metrics,
    .jobs = kinds,
    .migrations = model_migrations,
    .migrations_n = 3,
    .reasons = model_reasons,
    .verbs = model_verbs,
    .retentions = retentions,
    .init = init,
    .stop = stop,
    .en = "Names and immutable versions of models, imported, checked and described",
    .zh = "模型名称与不可变版本的导入、校验与描述",
};

MODEL_REASONS(REASON_BODY_)
const Reason *const model_reasons[] = { MODEL_REASONS(REASON_REF_) GGUF_REASONS(REASON_REF_) NULL };

static App *program; // set once, before anything is served

static err init(Ctx *c) {
    program = app_of(c);
    return model_facts_dir_reset(c);
}
static void stop(void *app) {
    (void)app;
    model_sessions_close();
}
App *model_app(void) {
    assert(program);
    return program;
}

int64_t model_import_max_bytes(void) { return setting_int(&model_settings[MODEL_IMPORT_MAX]); }

err model_import_size_check(Ctx *c, const char *what, int64_t bytes) {
    int64_t max = model_import_max_bytes();
    if (bytes <= max) return ERR_OK;
    return fail(c, ERR_TOOLARGE, R_IMPORT_SIZE, "what", what, "bytes",
                say(c, "%lld", (long long)bytes), "setting", model_settings[MODEL_IMPORT_MAX].name,
                "limit", say(c, "%lld", (long long)max));
}

err model_room_check(Ctx *c, str path, int64_t bytes) {
    enum { MARGIN = 64 << 20 }; // the database and the journal go on
    int64_t free_bytes;
    TRY(disk_free(c, model_app()->data_dir, &free_bytes));
    if (bytes <= free_bytes - MARGIN) return ERR_OK;
    return fail(c, ERR_FULL, R_DISK_FULL, "path", say_str(c, path));
}

err model_digest_check(Ctx *c, const char *field, str hex) {
    if (!hex.p || sha256_hex_valid(hex)) return ERR_OK;
    return fail(c, ERR_INVALID, R_IMPORT_DIGEST, "field", field);
}

// ---- models

err model_check(Ctx *c, Tx *tx, const void *old, void *now) {
    (void)c, (void)tx;
    Model *m = now;
    if (!old) m->latest = m->last_number = m->versions = 0;
    return ERR_OK;
}

err model_refresh(Ctx *c, Tx *tx, str model_id) {
    Model *m = new (c->mem, Model, 1);
    VersionCounts n;
    err e = res_get(c, tx, &model_resource, model_id, m);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    TRY(model_sql_version_counts(c, tx, model_id, &n));
    m->versions = n.count, m->latest = n.latest;
    m->architecture = n.architecture.p ? arena_str(c->mem, n.architecture) : (str){ 0 };
    if (n.last > m->last_number) m->last_number = n.last;
    return res_set_status(c, tx, &model_resource, m, NULL);
}

Version *model_version_new(Ctx *c) {
    Version *v = new (c->mem, Version, 1);
    fields_default(c->mem, model_version_rows, v);
    return v;
}

Upload *model_upload_new(Ctx *c) {
    Upload *u = new (c->mem, Upload, 1);
    fields_default(c->mem, model_upload_rows, u);
    return u;
}

err model_import(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    const Model *m = row;
    const ImportInput *in = input;
    if (!in->path.n == !in->url.n) return fail(c, ERR_INVALID, R_IMPORT_SOURCE);
    Version *v = model_version_new(c);
    v->model = m->head.id, v->sha256 = in->sha256;
    v->source = (Source){ in->path.n ? SOURCE_PATH : SOURCE_URL, { 0 }, in->path, in->url };
    TRY(res_create(c, tx, &model_version_resource, v));
    *out_job = v->job;
    return ERR_OK;
}

// ---- versions

static err upload_check(Ctx *c, Tx *tx, Version *v) {
    Upload *u = model_upload_new(c);
    err e = res_get(c, tx, &model_upload_resource, v->source.upload, u);
    if (e && e != ERR_NOTFOUND) return e;
    if (e || !str_eq(u->model, v->model) || u->state != UPLOAD_OPEN)
        return fail(c, ERR_INVALID, R_FIELD_REF, "field", "source.upload", "kind",
                    model_upload_resource.name, "id", say_str(c, v->source.upload));
    if (!v->sha256.p) v->sha256 = u->sha256;
    v->size_bytes = u->size_bytes; // what the import holds it to
    v->staging = u->head.id;
    return ERR_OK;
}

// A file of the machine may be anybody's: this acts on the system, where no organisation's or
// project's key may, whatever its permissions.
static err path_permission(Ctx *c, str path) {
    static const char permission[] = "models.import_path";
    if (!c->who || !c->who->org.n) return require(c, permission, path);
    App *app = model_app();
    if (app->audit_denied) app->audit_denied(c, permission, path);
    return fail(c, ERR_DENIED, R_FORBIDDEN, "who", say_str(c, c->who->name), "permission",
                permission);
}

static err path_check(Ctx *c, const Version *v) {
    str p = v->source.path;
    TRY(path_permission(c, p));
    if (!p.n || *p.p != '/' || memchr(p.p, 0, p.n))
        return fail(c, ERR_INVALID, R_PATH_FORM, "field", "source.path");
    return ERR_OK;
}

static err source_check(Ctx *c, Tx *tx, Version *v) {
    Url url;
    v->staging = v->head.id;
    switch ((SourceKind)v->source.type) {
    case SOURCE_UPLOAD: return upload_check(c, tx, v);
    case SOURCE_PATH: return path_check(c, v);
    case SOURCE_URL: return model_url_parse(c, v->source.url, &url);
    }
    return fail(c, ERR_INVALID, R_IMPORT_SOURCE);
}

err model_version_check(Ctx *c, Tx *tx, const void *old, void *now) {
    Version *v = now;
    Model *m = new (c->mem, Model, 1);
    if (old) return ERR_OK; // nothing of a version is a wish that can change
    TRY(res_get(c, tx, &model_resource, v->model, m));
    if (m->versions >= VERSIONS_MAX)
        return fail(c, ERR_CONFLICT, R_VERSIONS_MANY, "model", say_str(c, m->head.name), "limit",
                    say(c, "%d", VERSIONS_MAX));
    TRY(model_digest_check(c, "sha256", v->sha256));
    v->size_bytes = UNSET_INT;
    TRY(source_check(c, tx, v));
    v->number = m->last_number + 1;
    v->state = VERSION_WAITING, v->progress = 0;
    return ERR_OK;
}

// The version has the bytes now; the upload's row goes, its staging file stays.
static err upload_claim(Ctx *c, Tx *tx, const Version *v) {
    Upload *u = model_upload_new(c);
    TRY(res_get(c, tx, &model_upload_resource, v->source.upload, u));
    u->state = UPLOAD_FINISHED;
    TRY(res_set_status(c, tx, &model_upload_resource, u, NULL));
    return res_delete(c, tx, &model_upload_resource, u);
}

static err version_made(Ctx *c, Tx *tx, Version *v) {
    JobSpec spec = { .kind = model_import_kind.name,
                     .org = v->head.org,
                     .project = v->head.project,
                     .created_by = v->head.created_by,
                     .payload = S("{}"),
                     .key = v->head.id,
                     .subject = v->head.id };
    TRY(job_add(c, tx, &spec, &v->job)); // in the answer too
    TRY(model_sql_version_job(c, tx, v->head.id, v->job));
    if (v->source.type == SOURCE_UPLOAD) TRY(upload_claim(c, tx, v));
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return model_refresh(c, tx, v->model);
}

static err version_gone(Ctx *c, Tx *tx, const Version *v) {
    bool live = v->state == VERSION_WAITING || v->state == VERSION_IMPORTING;
    err e = live && v->job.p ? job_cancel(c, tx, c->project, v->job) : ERR_OK;
    if (e && e != ERR_CONFLICT && e != ERR_NOTFOUND) return e; // ended already, or trimmed
    if (v->staging.p) TRY(model_collect_staging(c, tx, v->staging));
    TRY(collect_row(c, tx, &model_version_resource, v));
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return model_refresh(c, tx, v->model);
}

err model_version_stage(Ctx *c, Tx *tx, const void *old, const void *now) {
    if (!old) return version_made(c, tx, (Version *)(uintptr_t)now); // the caller's own row
    return now ? ERR_OK : version_gone(c, tx, old);
}

err model_upload_stage(Ctx *c, Tx *tx, const void *old, const void *now) {
    const Upload *u = old;
    if (!u || now || u->state == UPLOAD_FINISHED) return ERR_OK;
    return model_collect_staging(c, tx, u->head.id);
}

static err no_version(Ctx *c, str text) {
    return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", model_version_resource.name, "id",
                say_str(c, text));
}

err model_version_resolve(Ctx *c, Tx *tx, str text, str *out_id) {
    str rest = text, name, id;
    int64_t number = 0;
    bool bare = str_cut(&rest, ':', &name) && !rest.p;
    if (!bare && (!str_to_i64(rest, &number) || number < 1)) return no_version(c, text);
    TRY(model_sql_version_named(c, tx, name, number, &id));
    if (id.p) {
        *out_id = id;
        return ERR_OK;
    }
    Model *m = new (c->mem, Model, 1);
    if (!bare || id_valid(name, model_resource.prefix)) return no_version(c, text);
    err e = res_get(c, tx, &model_resource, name, m);
    if (e == ERR_NOTFOUND) return no_version(c, text);
    if (e) return e;
    return fail(c, ERR_CONFLICT, R_VERSION_NOT_READY, "version", say_str(c, text), "why",
                c->lang && !strcmp(c->lang, "zh") ? "它没有就绪的版本" : "none of its versions is");
}

// ---- for other modules

static GgufFacts facts_known(const GgufFacts *facts) {
    GgufFacts g = *facts;
    for (const Field *f = model_facts_rows; f->name; f++) {
        int64_t *n = field_at(f, &g);
        if (f->type == T_INT && *n == UNSET_INT) *n = 0;
    }
    return g;
}

static VersionInfo info_of(Ctx *c, const Version *v, const Model *m) {
    GgufFacts g = facts_known(&v->facts);
    bool ready = v->state == VERSION_READY;
    assert(!ready || sha256_hex_valid(v->digest));
    return (VersionInfo){
        .id = v->head.id,
        .model = m->head.name,
        .model_id = v->model,
        .number = str_z(say(c, "%lld", (long long)v->number)),
        .digest = v->digest,
        .path = ready ? blob_path(c, model_app()->blobs, v->digest) : (str){ 0 },
        .architecture = g.architecture,
        .quantisation = g.quantisation,
        .chat_template = g.chat_template,
        .size_bytes = v->size_bytes == UNSET_INT ? 0 : v->size_bytes,
        .context = g.context,
        .parameters = g.parameters,
        .layers = g.layers,
        .embedding = g.embedding,
        .heads = g.heads,
        .heads_kv = g.heads_kv,
        .key_length = g.key_length,
        .value_length = g.value_length,
        .embedder = g.embedder,
        .can_chat = g.can_chat,
        .ready = ready,
        .failed = v->state == VERSION_FAILED,
        .facts = g,
    };
}

static err not_ready(Ctx *c, const Version *v, const VersionInfo *info) {
    static const char *const why[][4] = {
        { "its import waits", "it is being imported", "it is", "its import failed" },
        { "等待导入", "正在导入", "已就绪", "导入失败" },
    };
    bool zh = c->lang && !strcmp(c->lang, "zh");
    const char *text = why[zh][v->state];
    if (v->state == VERSION_FAILED && v->state_reason.n)
        text = say(c, "%s%s" STR_FMT, text, zh ? "：" : ": ", STR_ARG(v->state_reason));
    return fail(c, ERR_CONFLICT, R_VERSION_NOT_READY, "version",
                say(c, STR_FMT ":" STR_FMT, STR_ARG(info->model), STR_ARG(info->number)), "why",
                text);
}

err model_version(Ctx *c, Tx *tx, str text_or_id, VersionInfo *out) {
    str id = text_or_id;
    Version *v = model_version_new(c);
    Model *m = new (c->mem, Model, 1);
    if (!id_valid(id, model_version_resource.prefix))
        TRY(model_version_resolve(c, tx, text_or_id, &id));
    TRY(res_get(c, tx, &model_version_resource, id, v));
    TRY(res_get(c, tx, &model_resource, v->model, m));
    *out = info_of(c, v, m);
    return out->ready ? ERR_OK : not_ready(c, v, out);
}

int64_t model_memory_bytes(const VersionInfo *v, int64_t context, int64_t slots) {
    return gguf_memory_bytes(&v->facts, context, slots, NULL);
}

// 2k, 4k, 8k … and the longest that the model was trained for.
void model_memory_fill(Ctx *c, const GgufFacts *g, Version *v) {
    MemoryNeed *list = new (c->mem, MemoryNeed, MEMORY_ROWS);
    int64_t most = g->context > 0 ? g->context : 8192;
    size_t n = 0;
    for (int64_t context = 2048; context < most && n < MEMORY_ROWS - 1; context *= 2)
        list[n++] = (MemoryNeed){ context, gguf_memory_bytes(g, context, 1, NULL) };
    list[n++] = (MemoryNeed){ most, gguf_memory_bytes(g, most, 1, NULL) };
    v->memory = list, v->memory_n = n;
}
