// SPDX-License-Identifier: Apache-2.0
// serve.c - `lathe serve`: from an empty folder to a listening server, and back. Start is a list of
// steps; what a failed or ended start has opened is closed in reverse. The main thread runs
// loops[0]: signals, the executor's events, its share of connections.
#include "base/log.h"
#include "net/proxies.h"
#include "os/accept.h"
#include "os/process.h"
#include "os/terminal.h"
#include "res/bind.h"
#include "res/daily.h"
#include "res/database.h"
#include "res/event_relay.h"
#include "res/kit.h"
#include "res/node_claim.h"
#include "res/objects.h"
#include "res/serve.h"
#include "res/serve_tls.h"
#include "res/snapshot.h"
#include "res/upgrade.h"
#include <assert.h>
#include <signal.h>
#include <stdio.h>

struct Serve {
    App app;
    Ctx *c;
    File *lock;
    Proxies proxies;
    Thread threads[APP_LOOPS_MAX];
    size_t threads_n, modules_up; // modules whose start has run
    Addr addr;
    bool addr_tls;
    const char *url;
    Timer *drain;
};

static void write_stderr(void *arg, str line) {
    (void)arg;
    fwrite(line.p, 1, line.n, stderr);
}
static int64_t log_now(void *arg) { return os_wall_ms(arg); }

static err apply_log(Ctx *c) {
    bool json =
        kit_int(KIT_LOG_FORMAT) == 1 || (kit_int(KIT_LOG_FORMAT) == 0 && !os_is_terminal(2));
    log_to((LogSink){ write_stderr, log_now, c->os, json });
    str bad;
    if (log_levels(kit_text(KIT_LOG_LEVEL), &bad)) return ERR_OK;
    return fail(c, ERR_INVALID, R_SETTING_VALUE, "source", "settings", "name", "log.level", "want",
                "info,net=debug", "got", say_str(c, bad));
}

// ---- settings
static err load_settings(Serve *s, int argc, char **argv) {
    Ctx *c = s->c;
    const Setting **tables = new (c->mem, const Setting *, 64);
    size_t n = 0, flags_n = 0;
    for (const Module *const *m = s->app.modules; *m && n < 63; m++)
        if ((*m)->settings) tables[n++] = (*m)->settings;
    str *flags = new (c->mem, str, (size_t)argc + 1), file = str_z(os_env(c->os, "LATHE_CONFIG"));
    for (int i = 0; i < argc; i++) {
        str arg = str_z(argv[i]);
        bool pair = str_starts(arg, S("--")) && str_find_char(arg, '=') < 0 && i + 1 < argc
                    && strncmp(argv[i + 1], "--", 2);
        if (pair) arg = arena_printf(c->mem, "%s=%s", argv[i], argv[i + 1]), i++;
        if (str_starts(arg, S("--config="))) file = str_sub(arg, 9, arg.n);
        else flags[flags_n++] = arg;
    }
    Settings *set;
    TRY(settings_load(c, tables, file, flags, flags_n, &set));
    settings_use(set);
    return apply_log(c);
}

static void reload(Serve *s) {
    Ctx *c = app_ctx_new(&s->app);
    str waiting = { 0 };
    err e = settings_reload(c, &waiting);
    if (!e) e = apply_log(c);
    Buf b;
    buf_init(&b, 4096);
    if (e) failure_format(&c->failure, "en", &b);
    if (e)
        log_at("serve", LOG_ERROR, c, "settings not reloaded, nothing changed", "why", buf_z(&b));
    else
        log_at("serve", LOG_INFO, c, "settings reloaded", "wait_for_restart",
               waiting.n ? say_str(c, waiting) : "none");
    buf_done(&b);
    app_ctx_free(c);
    if (!e) serve_tls_reload();
}

// ---- the data folder
static str in_data(Serve *s, const char *name) {
    return arena_printf(s->c->mem, STR_FMT "/%s", STR_ARG(s->app.data_dir), name);
}

static err read_node(Serve *s) {
    Ctx *c = s->c;
    str name = kit_text(KIT_NODE), path = in_data(s, "node");
    err e = name.n ? ERR_OK : file_read_all(c, path, 100, &name);
    if (e == ERR_NOTFOUND) {
        name = os_id(c, "node");
        e = file_write_all(c, path, name, 0);
    }
    TRY(e);
    s->app.node = arena_str(c->mem, str_trim(name));
    if (s->app.node.n) return ERR_OK;
    return fail(c, ERR_INTERNAL, R_INTERNAL, "why",
                say_str(c, arena_printf(c->mem, STR_FMT " is empty", STR_ARG(path))));
}

// Who was just killed holds the lock until the kernel has taken back all it had; so does, for a
// moment, a child that it was about to start. A server that lives keeps its folder.
static err lock_data(Serve *s) {
    enum { MOMENT_MS = 100, ENDING_MS = 10000 };
    Ctx *c = s->c;
    err e = file_lock_within(c, s->lock, MOMENT_MS);
    if (e != ERR_CONFLICT) return e;
    str pid = failure_param(&c->failure, "pid");
    int64_t number = 0;
    if (str_to_i64(pid, &number) && number && !pid_ending(c->os, number)) return e;
    log_at("serve", LOG_WARN, c, "the data folder is held by a server that is ending: waiting",
           "pid", number ? say_str(c, pid) : "not known any more", "at_most", "10 s");
    return file_lock_within(c, s->lock, ENDING_MS);
}

// A folder that is made here, perhaps with its parents, is a name in another one: without a sync
// there a power cut takes all that was ever acknowledged. At each start, because the one that made
// it may have died before; who may not read a parent did not make a name in it.
static void keep_names(Ctx *c, str dir) {
    str path = os_path_absolute(c, dir);
    Failure before = c->failure;
    for (size_t n = path.n; n-- > 0;)
        if (path.p[n] == '/' && dir_sync(c, n ? str_sub(path, 0, n) : S("/"))) c->failure = before;
}

static err open_data(Serve *s) {
    Ctx *c = s->c;
    s->app.data_dir = arena_str(c->mem, kit_text(KIT_DATA));
    TRY(dir_make(c, s->app.data_dir, 0700));
    keep_names(c, s->app.data_dir);
    TRY(file_open(c, in_data(s, "lathe.lock"), FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE,
                  &s->lock));
    TRY(lock_data(s));
    return read_node(s);
}

// ---- what is asked of the database: database.h
static err migrate(Ctx *c) {
    TRY(jobs_tables(c, c->db));
    TRY(db_migrate(c, c->db, "event", event_migrations, event_migrations_n));
    for (const Module *const *m = app_of(c)->modules; *m; m++)
        if ((*m)->migrations_n)
            TRY(db_migrate(c, c->db, (*m)->name, (*m)->migrations, (*m)->migrations_n));
    return upgrade_end(c);
}

static err ask_modules(Ctx *c) {
    for (const Module *const *m = app_of(c)->modules; *m; m++)
        if ((*m)->database) TRY((*m)->database(c));
    return ERR_OK;
}

static err open_stores(Serve *s) {
    Ctx *c = s->c;
    App *a = &s->app;
    str url = kit_text(KIT_DB);
    if (!url.n) url = arena_printf(c->mem, "sqlite:" STR_FMT "/lathe.db", STR_ARG(a->data_dir));
    DbConfig config = { .url = url, .readers = (int)kit_int(KIT_DB_READERS), .later = true };
    TRY(db_open(c, &config, &a->db));
    c->db = a->db;
    TRY(database_step(c, upgrade_begin));
    TRY(objects_open(c, a->data_dir, &a->blobs));
    uint32_t node = (uint32_t)str_hash(a->node);
    return journal_open(c, a->data_dir, node, &a->journal);
}

// ---- loops, jobs
static err open_loops(Serve *s) {
    App *a = &s->app;
    OsFacts facts;
    os_facts(a->os, &facts);
    size_t n = (size_t)kit_int(KIT_LOOPS);
    if (!n) n = facts.cpus < 1 ? 1 : facts.cpus > 4 ? 4 : (size_t)facts.cpus;
    for (a->loops_n = 0; a->loops_n < n; a->loops_n++) {
        TRY(loop_open(s->c, &a->loops[a->loops_n]));
        a->clients[a->loops_n] = client_new(a->loops[a->loops_n], 64, 60000);
        journal_attach(a->journal, a->loops[a->loops_n]);
    }
    a->pool = pool_new(a->os, "worker", (int)kit_int(KIT_WORKERS), 1024);
    return executor_open(s->c, in_data(s, "run"), a->loops[0], &a->executor);
}

static err open_jobs(Serve *s) {
    Ctx *c = s->c;
    const JobKind **kinds = new (c->mem, const JobKind *, 256);
    size_t n = 0;
    for (const Module *const *m = s->app.modules; *m; m++)
        for (const JobKind *const *k = (*m)->jobs; k && *k && n < 255; k++) kinds[n++] = *k;
    JobsConfig config = {
        s->app.db, kinds, n, s->app.node, in_data(s, "jobs"), (int)kit_int(KIT_JOB_WORKERS), true
    };
    TRY(jobs_open(c, &config, &s->app.jobs));
    jobs_on_ctx(s->app.jobs, app_ctx_of_job, &s->app);
    return ERR_OK;
}

static err init_modules(Serve *s) {
    for (const Module *const *m = s->app.modules; *m; m++) {
        metrics_declare((*m)->metrics);
        if ((*m)->init) TRY((*m)->init(s->c));
    }
    TRY(database_step(s->c, ask_modules));
    TRY(event_start(s->c, &s->app));
    TRY(snapshot_start(s->c));
    for (; s->app.modules[s->modules_up]; s->modules_up++) {
        const Module *m = s->app.modules[s->modules_up];
        if (m->start) TRY(m->start(s->c));
    }
    jobs_start(s->app.jobs);
    TRY(retain_start(s->c));
    database_start(s->c);
    return ERR_OK;
}

// ---- the server

// The first of: plain, TLS, the socket, is the address that is told.
static err listen_all(Serve *s) {
    Ctx *c = s->c;
    Server *server = s->app.server;
    Addr addr, tls;
    bool on, plain = !str_is(kit_text(KIT_LISTEN), "none"), socket = kit_text(KIT_SOCKET).n;
    if (plain) {
        TRY(addr_parse(c, kit_text(KIT_LISTEN), &addr));
        TRY(server_listen(c, server, &addr, &s->addr));
    }
    TRY(serve_tls_listen(c, &on, &tls));
    if (on)
        log_at("serve", LOG_INFO, c, "listening with TLS", "url", say(c, "https://%s", tls.text));
    if (on && !plain) s->addr = tls, s->addr_tls = true;
    if (socket) {
        str path = arena_printf(c->mem, "unix:" STR_FMT, STR_ARG(kit_text(KIT_SOCKET)));
        TRY(addr_parse(c, path, &addr));
        TRY(server_listen(c, server, &addr, NULL));
    }
    if (socket && !plain && !on) s->addr = addr;
    if (plain || on || socket) return ERR_OK;
    return fail(c, ERR_INVALID, R_SETTING_VALUE, "source", "settings", "name", "serve.listen",
                "want", "HOST:PORT unless tls.listen or serve.socket is set", "got", "none");
}

static const char *url_of(Serve *s) {
    const char *at = s->addr.text;
    if (str_starts(str_z(at), S("unix:"))) return at;
    return say(s->c, "%s://%s", s->addr_tls ? "https" : "http", at);
}

static err open_server(Serve *s) {
    Ctx *c = s->c;
    App *a = &s->app;
    ServerConfig config = {
        .pool = a->pool,
        .spool_dir = in_data(s, "spool"),
        .app = a,
        .db = a->db,
        .proxies = &s->proxies,
        .memory_max_bytes = kit_int(KIT_MEMORY),
        .connections_max = (size_t)kit_int(KIT_CONNECTIONS),
        .head_timeout_ms = kit_int(KIT_HEAD_TIMEOUT),
        .idle_timeout_ms = kit_int(KIT_IDLE_TIMEOUT),
        .body_timeout_ms = kit_int(KIT_BODY_TIMEOUT),
        .write_timeout_ms = kit_int(KIT_WRITE_TIMEOUT),
    };
    bool good = proxies_parse(kit_text(KIT_PROXIES), &s->proxies);
    assert(good); // the setting's row has checked it
    TRY(dir_make(c, config.spool_dir, 0700));
    bindings_hooks(&config);
    TRY(bindings_build(c, a->modules, &config.routes, &config.routes_n));
    TRY(server_new(c, a->loops, a->loops_n, &config, &a->server));
    return listen_all(s);
}

// Where the command line of this machine finds the server. On the pool: nobody waits for a disk.
static void leave_address(void *arg) {
    Serve *s = arg;
    Ctx *c = app_ctx_new(&s->app);
    str dir = s->app.data_dir, url = str_z(s->url);
    if (file_write_all(c, arena_printf(c->mem, STR_FMT "/url", STR_ARG(dir)), url, 0))
        log_at("serve", LOG_WARN, c, "cannot write the address file");
    const char *home = os_env(c->os, "HOME"); // where the command line of this user looks first
    str state = arena_printf(c->mem, "%s/.local/state/lathe", home ? home : "");
    str both = arena_printf(c->mem, STR_FMT "\n" STR_FMT "\n", STR_ARG(url),
                            STR_ARG(os_path_absolute(c, dir)));
    if (home
        && (dir_make(c, state, 0700)
            || file_write_all(c, arena_printf(c->mem, STR_FMT "/server", STR_ARG(state)), both,
                              FILE_PRIVATE)))
        log_at("serve", LOG_DEBUG, c, "the address was not left for the command line");
    app_ctx_free(c);
}

static void say_ready(Serve *s) {
    Ctx *c = s->c;
    PathInfo info;
    s->url = url_of(s);
    log_at("serve", LOG_INFO, c, "listening", "url", s->url, "data", say_str(c, s->app.data_dir));
    str key = in_data(s, "admin.key");
    if (!path_info(c, key, &info))
        log_at("serve", LOG_WARN, c,
               "the administrator's first key lies in a file: keep it elsewhere, delete the file",
               "file", say_str(c, key));
    bool room = pool_submit(s->app.pool, leave_address, s);
    assert(room); // nobody has used it before
}

static void stop_loops(void *arg) {
    Serve *s = arg;
    for (size_t i = 0; i < s->app.loops_n; i++) loop_stop(s->app.loops[i]);
}

void serve_drain(Serve *s) {
    if (atomic_exchange(&s->app.draining, true)) {
        stop_loops(s);
        return;
    }
    log_at("serve", LOG_INFO, s->c, "draining: no new requests; those under way finish");
    for (const Module *const *m = s->app.modules; *m; m++)
        if ((*m)->drain) (*m)->drain(&s->app);
    event_drain(&s->app);
    server_drain(s->app.server, kit_int(KIT_DRAIN), stop_loops, s);
}

static void drain_now(void *s) { serve_drain(s); }
void serve_quit(Serve *s) { loop_post(s->app.loops[0], drain_now, s); }

// Says at most once a minute that no connection can be accepted; the metric counts them all.
static void say_paused(void *arg, int error) {
    static const int64_t MINUTE_NS = 60000000000;
    static atomic_int_least64_t said_ns;
    Serve *s = arg;
    int64_t now_ns = os_mono_ns(s->app.os), before_ns = atomic_load(&said_ns);
    if (before_ns && now_ns - before_ns < MINUTE_NS) return;
    if (!atomic_compare_exchange_strong(&said_ns, &before_ns, now_ns)) return;
    log_at("serve", LOG_ERROR, NULL,
           "no connection can be accepted: those that come wait in the kernel's queue, what is "
           "established goes on; see lathe.http.accept.pauses",
           "why", strerror(error));
}

static void run_loop(void *l) { loop_run(l); }

void serve_run(Serve *s) {
    App *a = &s->app;
    for (s->threads_n = 0; s->threads_n + 1 < a->loops_n; s->threads_n++)
        thread_start(a->os, "loop", run_loop, a->loops[s->threads_n + 1],
                     &s->threads[s->threads_n]);
    accept_on_pause(say_paused, s);
    for (const Module *const *m = a->modules; *m; m++)
        if ((*m)->ready) (*m)->ready(s->c);
    loop_run(a->loops[0]);
}

// What still runs for a request uses the modules, the snapshot and the journal: before any of these
// goes, connections are cut, handlers cancelled and waited for, and the loops hear what these and
// the journal have to say. Loops do not turn any more, so a posted call makes few others.
static void finish_requests(Serve *s) {
    enum { ROUNDS = 8 };
    App *a = &s->app;
    server_cut(a->server);
    pool_stop(a->pool);
    bool more = true;
    for (int round = 0; more && round < ROUNDS; round++) {
        more = false;
        if (a->journal && journal_flush(s->c, a->journal))
            log_at("serve", LOG_ERROR, s->c, "the journal's end could not be written");
        for (size_t i = 0; i < a->loops_n; i++) more = loop_finish(a->loops[i]) || more;
    }
}

static void close_all(Serve *s) {
    App *a = &s->app;
    accept_on_pause(NULL, NULL);
    for (size_t i = 0; i < a->loops_n; i++) loop_stop(a->loops[i]);
    for (size_t i = 0; i < s->threads_n; i++) thread_join(s->threads[i]);
    finish_requests(s);
    database_stop();
    retain_stop(a);
    if (a->jobs) jobs_stop(a->jobs);
    while (s->modules_up--)
        if (a->modules[s->modules_up]->stop) a->modules[s->modules_up]->stop(a);
    snapshot_stop(a), event_stop(a);
    pool_free(a->pool);
    server_free(a->server);
    executor_close(a->executor);
    for (size_t i = 0; i < a->loops_n; i++) client_free(a->clients[i]);
    journal_close(a->journal);
    for (size_t i = 0; i < a->loops_n; i++) loop_free(a->loops[i]);
    serve_tls_free();
    jobs_free(a->jobs);
    blobs_close(a->blobs);
    daily_close_all();
    node_claim_end(a);
    db_close(a->db);
    file_close(s->lock);
}

Serve *serve_new(const Module *const *mods) {
    Serve *s = mem_new(sizeof *s);
    s->app.os = os_real(), s->app.modules = mods;
    s->c = app_ctx_new(&s->app);
    return s;
}
const Ctx *serve_ctx(const Serve *s) { return s->c; }
App *serve_app(Serve *s) { return &s->app; }
Addr serve_addr(const Serve *s) { return s->addr; }

void serve_free(Serve *s) {
    if (!s) return;
    close_all(s);
    app_ctx_free(s->c);
    mem_free(s);
}

err serve_open(Serve *s, int argc, char **argv) {
    TRY(load_settings(s, argc, argv));
    TRY(open_data(s));
    tables_init(s->app.modules);
    TRY(open_stores(s));
    TRY(open_loops(s));
    TRY(open_jobs(s));
    TRY(database_step(s->c, migrate));
    TRY(node_claim(s->c));
    TRY(init_modules(s));
    return open_server(s);
}

// ---- the verb
static void on_signal(void *s, int number) {
    if (number == SIGHUP) reload(s);
    else serve_drain(s);
}

static void say_failure(const Ctx *c) {
    Buf b;
    buf_init(&b, 4096);
    failure_format(&c->failure, res_lang(c->os), &b);
    fprintf(stderr, "lathe serve: %s\n", buf_z(&b));
    buf_done(&b);
}

int serve_main(int argc, char **argv, const Module *const *mods) {
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
    Serve *s = serve_new(mods);
    err e = serve_open(s, argc, argv);
    for (size_t i = 0; !e && i < countof(signals); i++)
        loop_on_signal(s->app.loops[0], signals[i], on_signal, s);
    if (e) {
        say_failure(s->c);
    } else {
        say_ready(s);
        serve_run(s);
        log_at("serve", LOG_INFO, s->c, "stopped");
    }
    serve_free(s);
    return err_row(e)->exit_status;
}
