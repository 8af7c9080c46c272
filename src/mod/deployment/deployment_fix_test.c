// SPDX-License-Identifier: Apache-2.0
// deployment_fix_test.c - see deployment_test.h. The engine is a blocking server of a few lines on
// a unix socket: one connection at a time, closed after its answer.
#include "mod/deployment/deployment_test.h"
#include "base/log.h"
#include "res/objects.h"
#include "res/bind.h"
#include "res/event_relay.h"
#include "res/table.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// ---- the engine

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name)) return argv[i + 1];
    return "";
}

// DATA/sockets/x.sock → DATA/how-NAME
static void how_to_behave(const char *socket_path, const char *alias, char out[16]) {
    char path[300];
    const char *end = strstr(socket_path, "/sockets/");
    snprintf(path, sizeof path, "%.*s/how-%s", end ? (int)(end - socket_path) : 0, socket_path,
             alias);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, 15, f) : 0;
    out[n] = 0;
    if (f) fclose(f);
}

static void answer(int fd, const char *how) {
    char head[2048];
    const char *ok =
        "HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{\"status\":\"ok\"}";
    const char *loading =
        "HTTP/1.1 503 Loading\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    if (recv(fd, head, sizeof head, 0) <= 0) return;
    const char *text = strcmp(how, "load") ? ok : loading;
    if (write(fd, text, strlen(text)) < 0) return;
    shutdown(fd, SHUT_WR);
    while (recv(fd, head, sizeof head, 0) > 0) {}
}

static _Noreturn void be_engine(const char *path, const char *alias) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    char how[16];
    how_to_behave(path, alias, how);
    if (!strcmp(how, "crash")) {
        fprintf(stderr, "0.00.1 I load: begins\n0.00.2 E load: the weights are not weights\n");
        exit(1);
    }
    signal(SIGPIPE, SIG_IGN);
    int s = socket(AF_UNIX, SOCK_STREAM, 0), mute[64];
    size_t mute_n = 0;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    if (s < 0 || bind(s, (struct sockaddr *)&at, sizeof at) || listen(s, 64)) exit(2);
    for (;;) {
        int fd = accept(s, NULL, NULL);
        if (fd < 0) exit(3);
        how_to_behave(path, alias, how);
        if (!strcmp(how, "mute") && mute_n < countof(mute)) {
            mute[mute_n++] = fd; // taken, never answered
            continue;
        }
        answer(fd, how);
        close(fd);
    }
}

__attribute__((constructor)) static void play_engine(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "--host")) be_engine(argv[2], option(argc, argv, "--alias"));
}

// ---- the program

static const Module *const mods[] = { &blob_module, &model_module, &deployment_module, NULL };

static void run_loop(void *l) { loop_run(l); }

static atomic_bool blind;
void fix_blind(bool is) { atomic_store(&blind, is); }
static err blind_query(Ctx *c, Tx *tx, Json *out) {
    (void)tx;
    json_put_null(out);
    if (!atomic_load(&blind)) return ERR_OK;
    return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "the test wants no snapshot");
}
static err blind_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    (void)c, (void)mem, (void)in;
    *out = NULL;
    return ERR_OK;
}
static const SnapshotPart blind_part = { "blind", blind_query, blind_compile };

err fix_settings(Fix *f, const char *const *settings) {
    const Setting *const tables[] = { model_module.settings, blob_settings, deployment_settings,
                                      NULL };
    str flags[20];
    size_t n = 0;
    Settings *set;
    flags[n++] = str_z(say(f->c, "deployment.llama_server=" STR_FMT, STR_ARG(os_program(f->c))));
    flags[n++] = S("deployment.memory_reserve=0");
    flags[n++] = S("deployment.backoff_first=1ms");
    flags[n++] = S("deployment.probe_every=50ms");
    for (size_t i = 0; settings && settings[i]; i++) flags[n++] = str_z(settings[i]);
    TRY(settings_load(f->c, tables, (str){ 0 }, flags, n, &set));
    settings_use(set);
    return ERR_OK;
}

static str path_in(Fix *f, const char *name) {
    return arena_printf(f->c->mem, STR_FMT "/%s", STR_ARG(f->data), name);
}

static err open_stores(Fix *f) {
    Ctx *c = f->c;
    App *a = &f->app;
    TRY(db_open(c, &(DbConfig){ .url = f->url }, &a->db));
    c->db = a->db;
    TRY(db_migrate(c, a->db, "event", event_migrations, event_migrations_n));
    TRY(db_migrate(c, a->db, "kit", res_migrations, res_migrations_n));
    for (const Module *const *m = mods; *m; m++)
        TRY(db_migrate(c, a->db, (*m)->name, (*m)->migrations, (*m)->migrations_n));
    TRY(blobs_open(c, f->data, &a->blobs));
    a->loops[0] = loop_new(a->os), a->loops_n = 1;
    a->clients[0] = client_new(a->loops[0], 4, 1000);
    a->pool = pool_new(a->os, "test", 2, 64);
    TRY(executor_open(c, path_in(f, "run"), a->loops[0], &a->executor));
    JobsConfig config = { .db = a->db,
                          .kinds = model_module.jobs,
                          .node = S("node"),
                          .log_dir = path_in(f, "jobs"),
                          .workers = 1 };
    while (config.kinds[config.n]) config.n++;
    return jobs_open(c, &config, &a->jobs);
}

static err open_all(Fix *f) {
    Ctx *c = f->c;
    tables_init(mods);
    TRY(open_stores(f));
    for (const Module *const *m = mods; *m; m++)
        if ((*m)->init) TRY((*m)->init(c));
    snapshot_part(&blind_part);
    TRY(snapshot_start(c));
    jobs_start(f->app.jobs);
    thread_start(c->os, "loop", run_loop, f->app.loops[0], &f->loop);
    f->open = true;
    return deployment_module.start(c);
}

// As serve does: loops, then modules, then what they stood on.
static void close_all(Fix *f) {
    App *a = &f->app;
    loop_stop(a->loops[0]);
    thread_join(f->loop);
    jobs_stop(a->jobs);
    deployment_module.stop(a);
    model_module.stop(a);
    snapshot_stop(a);
    pool_free(a->pool);
    server_free(a->server);
    a->server = NULL;
    executor_close(a->executor);
    client_free(a->clients[0]);
    loop_free(a->loops[0]);
    jobs_free(a->jobs);
    blobs_close(a->blobs);
    db_close(a->db);
    f->open = false;
}

void fix_restart(Fix *f, const char *const *settings) {
    close_all(f);
    CHECK_OK(f->c, fix_settings(f, settings));
    CHECK_OK(f->c, open_all(f));
}

// ---- rows through the API's own path, by JSON

typedef struct Change {
    const Resource *r;
    const char *name, *json, *verb;
    str id;
    Deployment out;
} Change;

static err create_tx(Ctx *c, Tx *tx, void *arg) {
    Change *x = arg;
    const ResTable *t = table_of(x->r);
    void *row = row_new(c, t);
    yyjson_val *json;
    TRY(json_parse(c, str_z(x->json), &json));
    TRY(fields_read(c, t->rows, row, json, FIELDS_CREATE));
    TRY(res_create(c, tx, x->r, row));
    x->id = ((Head *)row)->id;
    return ERR_OK;
}

static err create(Fix *f, const Resource *r, const char *json, str *out_id) {
    Change x = { .r = r, .json = json };
    TRY(db_tx(f->c, f->app.db, create_tx, &x));
    if (out_id) *out_id = x.id;
    return ERR_OK;
}

static const Action *action(const Resource *r, const char *verb) {
    const Action *a = r->actions;
    while (a && a->verb && strcmp(a->verb, verb)) a++;
    return a && a->verb ? a : NULL;
}

static err change_tx(Ctx *c, Tx *tx, void *arg) {
    Change *x = arg;
    const ResTable *t = table_of(x->r);
    void *old = row_new(c, t), *now = row_new(c, t);
    yyjson_val *json;
    str job;
    TRY(res_get(c, tx, x->r, str_z(x->name), old));
    fields_copy(c->mem, t->rows, old, now);
    if (x->verb && !strcmp(x->verb, "delete")) return res_delete(c, tx, x->r, old);
    if (x->verb) {
        TRY(action(x->r, x->verb)->run(c, tx, now, NULL, &job));
        return res_act(c, tx, x->r, old, now, x->verb);
    }
    TRY(json_parse(c, str_z(x->json), &json));
    TRY(fields_read(c, t->rows, now, json, FIELDS_PATCH));
    return res_update(c, tx, x->r, old, now);
}

err fix_patch(Fix *f, const char *name, const char *json) {
    Change x = { .r = &deployment_resource, .name = name, .json = json };
    return db_tx(f->c, f->app.db, change_tx, &x);
}
err fix_act(Fix *f, const char *name, const char *verb) {
    Change x = { .r = &deployment_resource, .name = name, .verb = verb };
    return db_tx(f->c, f->app.db, change_tx, &x);
}

static err get_tx(Ctx *c, Tx *tx, void *arg) {
    Change *x = arg;
    return res_get(c, tx, &deployment_resource, str_z(x->name), &x->out);
}
err fix_get(Fix *f, const char *name, Deployment *out) {
    Change *x = new (f->c->mem, Change, 1);
    x->name = name;
    TRY(db_read(f->c, f->app.db, get_tx, x));
    *out = x->out;
    return ERR_OK;
}

err fix_create(Fix *f, const char *json) { return create(f, &deployment_resource, json, NULL); }

// ---- a model: the fuzzer's smallest whole one

static err version_tx(Ctx *c, Tx *tx, void *arg) {
    VersionInfo v = { 0 };
    (void)arg;
    return model_version(c, tx, S("m"), &v);
}

static err import(Fix *f) {
    Ctx *c = f->c;
    str bytes, path = path_in(f, "m.gguf");
    TRY(file_read_all(c, S("fuzz/corpus/gguf/ok-llama"), 1 << 20, &bytes));
    TRY(file_write_all(c, path, bytes, 0));
    TRY(create(f, &model_resource, "{\"name\":\"m\"}", NULL));
    const char *json =
        say(c, "{\"model\":\"m\",\"source\":{\"type\":\"path\",\"path\":\"" STR_FMT "\"}}",
            STR_ARG(path));
    TRY(create(f, &model_version_resource, json, &f->version));
    int64_t end_ns = os_mono_ns(c->os) + test_longer(20) * 1000000000;
    err e;
    do {
        ArenaMark mark = arena_mark(c->mem);
        e = db_read(c, f->app.db, version_tx, NULL);
        if (e) arena_restore(c->mem, mark);
        sched_yield();
    } while (e && os_mono_ns(c->os) < end_ns);
    return e;
}

static err begin(Fix *f, DbKind kind, const char *const *settings) {
    TRY(suite_database(f->c, kind, &f->url));
    TRY(dir_make(f->c, f->data, 0700));
    TRY(fix_settings(f, settings));
    TRY(open_all(f));
    return import(f);
}

Fix *deployment_fix_open(DbKind kind, const char *const *settings) {
    Fix *f = mem_new(sizeof *f);
    f->app.os = os_real(), f->app.modules = mods, f->app.node = S("node");
    f->c = app_ctx_new(&f->app);
    f->c->org = S("org_1"), f->c->project = S("project_1");
    f->data = f->app.data_dir = arena_printf(f->c->mem, "%s/d", test_dir());
    err e = begin(f, kind, settings);
    if (!e) return f;
    Buf b;
    buf_init(&b, 2000);
    failure_format(&f->c->failure, "en", &b);
    test_failed(__FILE__, __LINE__, "the fixture: %s", buf_z(&b));
    buf_done(&b);
    if (f->open) close_all(f);
    return NULL;
}

static void end_children(Fix *f) {
    ChildView *all;
    size_t n;
    err e = executor_list(f->c, f->app.executor, &all, &n);
    for (size_t i = 0; !e && i < n; i++)
        e = executor_cancel(f->c, f->app.executor, all[i].handle, 0);
    int64_t end_ns = os_mono_ns(f->c->os) + test_longer(20) * 1000000000;
    while (fix_children(f) && os_mono_ns(f->c->os) < end_ns) sched_yield();
}

void fix_close(Fix *f) {
    if (!f) return;
    deployment_rest();
    end_children(f);
    close_all(f);
    settings_use(NULL);
    app_ctx_free(f->c);
    mem_free(f);
}

// ---- looking

void fix_engine(Fix *f, const char *deployment, const char *how) {
    CHECK_OK(f->c,
             file_write_all(f->c, path_in(f, say(f->c, "how-%s", deployment)), str_z(how), 0));
}

bool fix_until(Fix *f, const char *name, bool (*holds)(const Deployment *d, void *arg), void *arg) {
    int64_t end_ns = os_mono_ns(f->c->os) + test_longer(20) * 1000000000;
    do {
        ArenaMark mark = arena_mark(f->c->mem);
        Deployment d;
        if (deployment_sync(f->c)) sched_yield();
        bool ok = !fix_get(f, name, &d) && holds(&d, arg);
        arena_restore(f->c->mem, mark);
        if (ok) return !snapshot_sync(f->c); // a turn may stand between its write and the snapshot
    } while (os_mono_ns(f->c->os) < end_ns);
    return false;
}

static bool in_state(const Deployment *d, void *arg) {
    return d->state == (int)*(const DeploymentState *)arg
           && d->head.observed_generation == d->head.generation;
}
bool fix_until_state(Fix *f, const char *name, DeploymentState state) {
    return fix_until(f, name, in_state, &state);
}

size_t fix_routes(Fix *f, const char *name, size_t *out_ready, Replica out[8]) {
    const Snapshot *s = snapshot_take();
    const DeploymentEntry *d = deployment_find(s, f->c->project, str_z(name));
    size_t n = d ? d->replicas_n : 0;
    *out_ready = 0;
    for (size_t i = 0; i < n && i < 8; i++) {
        out[i] = d->replicas[i];
        out[i].id = arena_str(f->c->mem, out[i].id);
        for (size_t k = 0; k < out[i].headers_n; k++)
            out[i].headers[k].value = arena_str(f->c->mem, out[i].headers[k].value);
        *out_ready += out[i].ready && !out[i].draining;
    }
    snapshot_give(s);
    return n;
}

size_t fix_children(Fix *f) {
    ArenaMark mark = arena_mark(f->c->mem);
    ChildView *all;
    size_t n = 0, living = 0;
    if (executor_list(f->c, f->app.executor, &all, &n)) n = 0;
    for (size_t i = 0; i < n; i++)
        living += all[i].state == CHILD_RUNNING || all[i].state == CHILD_STARTING;
    arena_restore(f->c->mem, mark);
    return living;
}
