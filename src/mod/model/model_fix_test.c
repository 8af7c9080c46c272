// SPDX-License-Identifier: Apache-2.0
// model_fix_test.c - see model_test.h. The test program itself is the child that reads headers: its
// constructor below answers `gguf-facts PATH`, as the real program's main does.
#include "mod/model/model_test.h"
#include "base/id.h"
#include "res/bind.h"
#include "res/objects.h"
#include "res/table.h"
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void be_the_reader(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "gguf-facts")) exit(gguf_main(argc, argv));
}

// Another module, whose rows name objects within a list.
typedef struct Page {
    str picture;
} Page;
typedef struct Shelf {
    Head head;
    Page *pages;
    size_t pages_n;
} Shelf;
static const Field page_rows[] = { ROW(Page, picture, T_BLOB, 0, "Picture", "图"), { 0 } };
static const Field shelf_rows[] = { LIST(Shelf, pages, Page, 0, page_rows, 0, 9, "Pages", "页"),
                                    { 0 } };
static const Resource shelf_resource = { .name = "shelf",
                                         .plural = "shelves",
                                         .prefix = "shelf",
                                         .size = sizeof(Shelf),
                                         .fields = shelf_rows,
                                         .en = "A shelf",
                                         .zh = "架" };
static const Resource *const shelf_resources[] = { &shelf_resource, NULL };
static const Module shelf_module = {
    .name = "shelf", .needs = "", .resources = shelf_resources, .en = "Shelves", .zh = "架"
};
static const Migration shelf_migrations[] = {
    { 1, "CREATE TABLE shelves (id TEXT PRIMARY KEY, pages TEXT);", NULL }
};
static const Module *const mods[] = { &model_module, &shelf_module, NULL };

// ---- a database

static err migrate(ModelFix *f) {
    Ctx *c = f->c;
    Db *db = f->app.db;
    TRY(db_migrate(c, db, "event", event_migrations, event_migrations_n));
    TRY(db_migrate(c, db, "kit", res_migrations, res_migrations_n));
    TRY(db_migrate(c, db, "shelf", shelf_migrations, 1));
    TRY(db_migrate(c, db, "blob", collect_migrations, COLLECT_MIGRATIONS));
    return db_migrate(c, db, "model", model_migrations, model_migrations_n);
}

// ---- jobs

static err open_jobs(ModelFix *f) {
    static const JobKind *const kinds[] = { &model_import_kind, &model_collect_kind,
                                            &collect_kind };
    JobsConfig config = { .db = f->app.db,
                          .kinds = kinds,
                          .n = countof(kinds),
                          .node = S("node"),
                          .log_dir = str_z(say(f->c, "%s/jobs", test_dir())),
                          .workers = 2 };
    return jobs_open(f->c, &config, &f->app.jobs);
}

void model_fix_work(ModelFix *f) {
    if (f->working) return;
    jobs_start(f->app.jobs);
    f->working = true;
}

void model_fix_rest(ModelFix *f) {
    if (f->working) jobs_stop(f->app.jobs);
    f->working = false;
    jobs_free(f->app.jobs);
    f->app.jobs = NULL;
    model_sessions_close();
    CHECK_OK(f->c, open_jobs(f));
}

// ---- the program

err model_fix_settings(ModelFix *f, const char *a, const char *b) {
    const Setting *const tables[] = { model_settings, blob_settings, NULL };
    const str flags[] = { str_z(a), str_z(b) };
    Settings *set;
    TRY(settings_load(f->c, tables, (str){ 0 }, flags, !!a + !!b, &set));
    settings_use(set);
    return ERR_OK;
}

static err open_all(ModelFix *f) {
    Ctx *c = f->c;
    f->app.os = c->os, f->app.modules = mods;
    f->app.data_dir = f->data = str_z(say(c, "%s/data", test_dir()));
    f->app.node = S("node");
    tables_init(mods);
    TRY(model_fix_settings(f, "blob.grace=0", NULL));
    TRY(suite_database(f->c, f->kind, &f->url));
    TRY(db_open(c, &(DbConfig){ .url = f->url }, &f->app.db));
    c->db = f->app.db;
    TRY(migrate(f));
    TRY(dir_make(c, f->data, 0700));
    TRY(blobs_open(c, f->data, &f->app.blobs));
    TRY(open_jobs(f));
    TRY(blob_module.init(c));
    return model_module.init(c);
}

static void close_all(ModelFix *f) {
    model_import_point = NULL;
    if (f->working) jobs_stop(f->app.jobs);
    if (f->serving) {
        loop_stop(f->app.loops[0]);
        thread_join(f->loop);
    }
    pool_free(f->app.pool);
    server_free(f->app.server);
    loop_free(f->app.loops[0]);
    model_module.stop(&f->app);
    jobs_free(f->app.jobs);
    blobs_close(f->app.blobs);
    db_close(f->app.db);
    settings_use(NULL);
}

static void run(ModelFix *f, void (*fn)(ModelFix *f)) {
    CHECK_OK(f->c, open_all(f));
    fn(f);
}

void model_fix_run(DbKind kind, void (*fn)(ModelFix *f)) {
    ModelFix *f = mem_new(sizeof *f);
    f->kind = kind;
    f->app.os = os_real();
    f->c = app_ctx_new(&f->app);
    f->c->org = S("org_1"), f->c->project = S("proj_1");
    run(f, fn);
    close_all(f);
    app_ctx_free(f->c);
    mem_free(f);
}

// ---- the server

static const str all_permissions[] = { { "*", 1 } };
static const str developer_permissions[] = { { "models.*", 8 },
                                             { "*.read", 6 },
                                             { "model_versions.*", 16 } };
static const str viewer_permissions[] = { { "*.read", 6 } };
static const Identity admin = { WHO_USER, { "user_a", 6 }, { "admin", 5 },  { 0 },
                                { 0 },    { 0 },           all_permissions, 1 };
static const Identity owner = { WHO_USER,       { "user_o", 6 }, { "owner", 5 },  { 0 },
                                { "org_1", 5 }, { 0 },           all_permissions, 1 };
static const Identity developer = { WHO_USER,       { "user_d", 6 }, { "developer", 9 },    { 0 },
                                    { "org_1", 5 }, { "proj_1", 6 }, developer_permissions, 3 };
static const Identity viewer = { WHO_USER,       { "user_v", 6 }, { "viewer", 6 },    { 0 },
                                 { "org_1", 5 }, { "proj_1", 6 }, viewer_permissions, 1 };

static err identify(Ctx *c, const HttpRequest *r, bool on_loop) {
    (void)on_loop;
    str who = http_header(r, "authorization");
    bool other = str_is(who, "Bearer other");
    c->who = str_is(who, "Bearer owner")                ? &owner
             : str_is(who, "Bearer developer") || other ? &developer
             : str_is(who, "Bearer viewer")             ? &viewer
                                                        : &admin;
    c->org = S("org_1"), c->project = other ? S("proj_2") : S("proj_1");
    return ERR_OK;
}

static void run_loop(void *l) { loop_run(l); }

static err serve(ModelFix *f) {
    Ctx *c = f->c;
    App *a = &f->app;
    Addr addr;
    a->identify = identify;
    a->loops[0] = loop_new(a->os), a->loops_n = 1;
    a->pool = pool_new(a->os, "test", 4, 64);
    ServerConfig config = {
        .pool = a->pool, .spool_dir = str_z(test_dir()), .app = a, .db = a->db
    };
    bindings_hooks(&config);
    TRY(bindings_build(c, a->modules, &config.routes, &config.routes_n));
    TRY(server_new(c, a->loops, 1, &config, &a->server));
    TRY(addr_parse(c, S("127.0.0.1:0"), &addr));
    return server_listen(c, a->server, &addr, &f->addr);
}

void model_fix_serve(ModelFix *f) {
    CHECK_OK(f->c, serve(f));
    thread_start(f->app.os, "loop", run_loop, f->app.loops[0], &f->loop);
    f->serving = true;
}

Answer model_fix_ask(ModelFix *f, const Ask *a) {
    Answer none = { 0 };
    int fd = raw_open(&f->addr);
    const char *head =
        say(f->c,
            "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            "Content-Length: %zu\r\n%s\r\n",
            a->method, a->path, a->who ? a->who : "admin", a->body.n, a->headers ? a->headers : "");
    if (fd < 0 || !raw_sendz(fd, head) || (a->body.n && !raw_send(fd, a->body))) return none;
    Answer got = raw_answer_to(fd, !strcmp(a->method, "HEAD"));
    raw_close(fd);
    return got;
}

str model_fix_member(ModelFix *f, const Answer *a, const char *name) {
    yyjson_val *root, *v;
    if (json_parse(f->c, a->body, &root)) return (str){ 0 };
    v = json_get(root, name);
    if (!v && json_get(root, "error")) v = json_get(json_get(root, "error"), name);
    return yyjson_is_str(v) ? json_str(v) : v ? json_text(f->c->mem, v) : (str){ 0 };
}

// ---- rows

typedef struct Op {
    ModelFix *f;
    const char *name;
    const ImportInput *in;
    const Resource *r;
    Version *v;
    Model *m;
    str id;
} Op;

static err model_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    Model *m = new (c->mem, Model, 1);
    fields_default(c->mem, model_rows, m);
    m->head.name = str_z(op->name);
    TRY(res_create(c, tx, &model_resource, m));
    op->id = m->head.id;
    return ERR_OK;
}
err model_fix_model(ModelFix *f, const char *name, str *out_id) {
    Op op = { .f = f, .name = name };
    TRY(db_tx(f->c, f->c->db, model_tx, &op));
    if (out_id) *out_id = op.id;
    return ERR_OK;
}

static err import_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    Model *m = new (c->mem, Model, 1);
    str job;
    TRY(res_get(c, tx, &model_resource, str_z(op->name), m));
    TRY(model_import(c, tx, m, op->in, &job));
    JobView view;
    TRY(job_view(c, tx, c->project, job, &view));
    op->v = model_version_new(c);
    return res_get(c, tx, &model_version_resource, view.subject, op->v);
}
err model_fix_import(ModelFix *f, const char *model, const ImportInput *in, Version *out) {
    Op op = { .f = f, .name = model, .in = in };
    TRY(db_tx(f->c, f->c->db, import_tx, &op));
    *out = *op.v;
    return ERR_OK;
}

static err id_of(Ctx *c, Tx *tx, const Resource *r, const char *text, str *out) {
    *out = str_z(text);
    if (id_valid(*out, r->prefix) || !r->resolve) return ERR_OK;
    return r->resolve(c, tx, *out, out);
}

static err delete_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    void *row = arena_alloc(c->mem, op->r->size, _Alignof(max_align_t));
    TRY(id_of(c, tx, op->r, op->name, &op->id));
    TRY(res_get(c, tx, op->r, op->id, row));
    return res_delete(c, tx, op->r, row);
}
err model_fix_delete(ModelFix *f, const Resource *r, const char *id_or_text) {
    Op op = { .f = f, .name = id_or_text, .r = r };
    return db_tx(f->c, f->c->db, delete_tx, &op);
}

static err version_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    op->v = model_version_new(c);
    TRY(id_of(c, tx, &model_version_resource, op->name, &op->id));
    return res_get(c, tx, &model_version_resource, op->id, op->v);
}
err model_fix_version(ModelFix *f, const char *text_or_id, Version *out) {
    Op op = { .f = f, .name = text_or_id };
    TRY(db_read(f->c, f->c->db, version_tx, &op));
    *out = *op.v;
    return ERR_OK;
}

static err get_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    op->m = new (c->mem, Model, 1);
    return res_get(c, tx, &model_resource, str_z(op->name), op->m);
}
err model_fix_get(ModelFix *f, const char *model, Model *out) {
    Op op = { .f = f, .name = model };
    TRY(db_read(f->c, f->c->db, get_tx, &op));
    *out = *op.m;
    return ERR_OK;
}

// ---- waiting

static int64_t live_jobs(ModelFix *f, const char *id) {
    Ctx *c = app_ctx_new(&f->app);
    JobFix jf = { c, f->app.db, f->kind, f->url };
    const char *mine = say(c,
                           "SELECT COUNT(*) FROM job WHERE state IN ('waiting', 'running') "
                           "AND ('%s' = '' OR id = '%s')",
                           id, id);
    int64_t n = job_fix_int(&jf, mine);
    app_ctx_free(c);
    return n;
}
typedef struct Until {
    ModelFix *f;
    const char *job;
} Until;
static bool none_live(void *arg) {
    Until *u = arg;
    return live_jobs(u->f, u->job) == 0;
}
bool model_fix_idle(ModelFix *f) { return job_fix_until(none_live, &(Until){ f, "" }); }
err model_fix_settle(ModelFix *f, Version *v) {
    const char *job = arena_z(f->c->mem, v->job), *id = arena_z(f->c->mem, v->head.id);
    if (!job_fix_until(none_live, &(Until){ f, job }))
        return fail(f->c, ERR_TIMEOUT, R_INTERNAL, "why", "the job does not end");
    return model_fix_version(f, id, v);
}

str model_fix_log(ModelFix *f, str job) {
    JobLog log;
    if (job_log(f->c, f->app.jobs, f->c->project, job, 0, &log)) return S("");
    return log.text;
}

static size_t count_files(ModelFix *f, str dir) {
    str *names;
    size_t n = 0, files = 0;
    if (dir_list(f->c, dir, &names, &n)) return 0;
    for (size_t i = 0; i < n; i++) {
        PathInfo info;
        str path = arena_printf(f->c->mem, STR_FMT "/" STR_FMT, STR_ARG(dir), STR_ARG(names[i]));
        if (path_info(f->c, path, &info)) continue;
        files += info.is_dir ? count_files(f, path) : 1;
    }
    return files;
}
size_t model_fix_staged(ModelFix *f) {
    return count_files(f, str_z(say(f->c, STR_FMT "/staging", STR_ARG(f->data))));
}
size_t model_fix_blobs(ModelFix *f) {
    return count_files(f, str_z(say(f->c, STR_FMT "/blob", STR_ARG(f->data))));
}

// ---- files

static void put(Buf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) buf_add_char(b, (char)(v >> 8 * i));
}
static void put_text(Buf *b, str s) {
    put(b, s.n, 8);
    buf_add(b, s);
}
static void key_text(Buf *b, const char *key, const char *value) {
    put_text(b, str_z(key)), put(b, 8, 4), put_text(b, str_z(value));
}
static void key_u32(Buf *b, const char *key, uint32_t value) {
    put_text(b, str_z(key)), put(b, 4, 4), put(b, value, 4);
}

// Format: ggml's docs/gguf.md. One F32 tensor of 32 × 4; what comes after it nobody looks at.
str model_fix_gguf(Ctx *c, const char *name, size_t size) {
    Buf b;
    buf_init(&b, 64 << 20);
    buf_add(&b, S("GGUF")), put(&b, 3, 4), put(&b, 1, 8), put(&b, 10, 8);
    key_text(&b, "general.architecture", "llama");
    key_text(&b, "general.name", name);
    key_text(&b, "tokenizer.ggml.model", "gpt2");
    key_text(&b, "tokenizer.chat_template", "{{ messages }}");
    key_u32(&b, "llama.context_length", 5000);
    key_u32(&b, "llama.embedding_length", 32);
    key_u32(&b, "llama.block_count", 2);
    key_u32(&b, "llama.attention.head_count", 4);
    key_u32(&b, "llama.feed_forward_length", 64);
    key_u32(&b, "llama.vocab_size", 4);
    put_text(&b, S("token_embd.weight"));
    put(&b, 2, 4), put(&b, 32, 8), put(&b, 4, 8), put(&b, 0, 4), put(&b, 0, 8);
    while (b.n % 32) buf_add_char(&b, 0);
    buf_add_repeat(&b, 'w', 32 * 4 * 4);
    for (uint32_t x = 1; b.n < size; x = x * 1664525u + 1013904223u)
        buf_add_char(&b, (char)(x >> 24));
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

str model_fix_file(ModelFix *f, const char *name, str bytes) {
    str path = str_z(say(f->c, "%s/%s", test_dir(), name));
    if (file_write_all(f->c, path, bytes, 0)) abort();
    return path;
}
