// SPDX-License-Identifier: Apache-2.0
// deployment_run_test.c - the reconciler with real children: from a wish to an answer, and back
// from each way in which a replica may go wrong.
#include "mod/deployment/deployment_test.h"
#include <signal.h>

#define CHECK_STATE(f, name, want)                                            \
    do {                                                                      \
        if (fix_until_state((f), (name), (want))) break;                      \
        Deployment d_;                                                        \
        CHECK_OK((f)->c, fix_get((f), (name), &d_));                          \
        test_failed(__FILE__, __LINE__, "%s is %s, not %s: " STR_FMT, (name), \
                    deployment_states[d_.state], deployment_states[want],     \
                    STR_ARG(d_.state_reason));                                \
        return;                                                               \
    } while (0)

static Deployment now(Fix *f, const char *name) {
    Deployment d = { 0 };
    if (fix_get(f, name, &d)) test_failed(__FILE__, __LINE__, "there is no %s", name);
    return d;
}

static void suite(DbKind kind, const char *const *settings, void (*fn)(Fix *f)) {
    Fix *f = deployment_fix_open(kind, settings);
    if (f) fn(f);
    fix_blind(false);
    fix_close(f);
}
#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })
#define RUN(name_, ...)                                                    \
    static void suite_##name_(Fix *f);                                     \
    SUITE_TEST_ON(DB_SQLITE, suite, name_, _sqlite, SETTINGS(__VA_ARGS__)) \
    static void suite_##name_(Fix *f)
// What touches the database in other ways than writing a status: on both.
#define RUN_BOTH(name_, ...) SUITE_TEST(Fix, suite, name_, SETTINGS(__VA_ARGS__))

RUN_BOTH(deployment_runs_from_a_wish_to_an_answer) {
    Ctx *c = f->c;
    size_t ready;
    Replica r[8];
    CHECK_OK(c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\",\"slots\":2}"));
    CHECK_STATE(f, "a", DEP_READY);
    Deployment d = now(f, "a");
    CHECK_INT(d.ready_replicas, 1);
    CHECK_STR(d.serves, "m:1");
    CHECK_STR(d.serving.version, arena_z(c->mem, f->version));
    CHECK_INT(d.replicas_status[0].progress, 100);
    CHECK(d.replicas_status[0].pid > 0 && d.memory_needed > 0);
    CHECK_INT(fix_routes(f, "a", &ready, r), 1);
    CHECK_INT(ready, 1);
    CallSpec ask = { .to = r[0].addr, .method = HTTP_GET, .target = S("/health") };
    FetchResult got;
    CHECK_OK(c, http_fetch(c, &ask, 1000, NULL, NULL, &got));
    CHECK_INT(got.status, 200);
    CHECK_OK(c, fix_act(f, "a", "stop"));
    CHECK_STATE(f, "a", DEP_STOPPED);
    CHECK_INT(fix_children(f), 0);
    CHECK_INT(fix_routes(f, "a", &ready, r), 0);
    CHECK_INT(now(f, "a").replicas, 1); // the wish stays
    CHECK_OK(c, fix_act(f, "a", "start"));
    CHECK_STATE(f, "a", DEP_READY);
}

static bool loading(const Deployment *d, void *arg) {
    (void)arg;
    return d->state == DEP_STARTING && d->replicas_status_n == 1 && d->replicas_status[0].pid > 0;
}

RUN(deployment_is_not_ready_before_its_engine_answers) {
    size_t ready;
    Replica r[8];
    fix_engine(f, "a", "load");
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m:1\"}"));
    CHECK(fix_until(f, "a", loading, NULL));
    for (int i = 0; i < 5; i++) CHECK_OK(f->c, deployment_sync(f->c));
    CHECK_INT(now(f, "a").ready_replicas, 0);
    CHECK_INT(fix_routes(f, "a", &ready, r), 1); // known to be on its way, so requests may wait
    CHECK_INT(ready, 0);
    fix_engine(f, "a", "");
    CHECK_STATE(f, "a", DEP_READY);
}

RUN(deployment_crash_loop_says_why_and_goes_on_trying, "deployment.backoff_max=20ms") {
    fix_engine(f, "a", "crash");
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_CRASH_LOOP);
    Deployment d = now(f, "a");
    CHECK(str_find(d.state_reason, S("E load: the weights are not weights")) > 0);
    CHECK(str_find(d.state_reason, S("I load")) < 0); // what is no complaint is left out
    CHECK(d.replicas_status[0].restarts >= 5);
    fix_engine(f, "a", "");
    CHECK_STATE(f, "a", DEP_READY);
    CHECK_INT(now(f, "a").state_reason.n, 0);
}

static bool other_pid(const Deployment *d, void *arg) {
    const int64_t *pid = arg;
    return d->state == DEP_READY && d->replicas_status[0].pid != *pid;
}

RUN(deployment_brings_a_killed_engine_back) {
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\",\"replicas\":2}"));
    CHECK_STATE(f, "a", DEP_READY);
    Deployment d = now(f, "a");
    int64_t pid = d.replicas_status[0].pid, other = d.replicas_status[1].pid;
    CHECK(!kill((pid_t)pid, SIGKILL));
    CHECK(fix_until(f, "a", other_pid, &pid));
    d = now(f, "a");
    CHECK_INT(d.replicas_status[0].restarts, 1);
    CHECK_INT(d.replicas_status[1].pid, other); // others are unharmed
    CHECK_INT(d.replicas_status[1].restarts, 0);
}

RUN(deployment_starts_a_hung_engine_again, "deployment.hung_after=3s",
    "deployment.probe_timeout=100ms") {
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    int64_t pid = now(f, "a").replicas_status[0].pid;
    fix_engine(f, "a", "mute");
    int64_t end_ns = os_mono_ns(f->c->os) + test_longer(20) * 1000000000;
    while (now(f, "a").replicas_status[0].restarts == 0) {
        CHECK_OK(f->c, deployment_sync(f->c));
        CHECK(os_mono_ns(f->c->os) < end_ns);
    }
    CHECK(str_find(now(f, "a").replicas_status[0].reason, S("answered no probe")) >= 0);
    fix_engine(f, "a", "");
    CHECK(fix_until(f, "a", other_pid, &pid));
}

static bool hung(const Deployment *d, void *arg) {
    (void)arg;
    return d->replicas_status[0].state == AT_HUNG;
}

static bool restarted(const Deployment *d, void *arg) {
    (void)arg;
    return d->replicas_status[0].restarts == 1;
}

// A stopped process hears no SIGTERM: waiting for it to obey would only lengthen the outage.
RUN(deployment_kills_a_stopped_engine_at_once, "deployment.hung_after=1s",
    "deployment.probe_timeout=100ms") {
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    int64_t pid = now(f, "a").replicas_status[0].pid;
    CHECK(!kill((pid_t)pid, SIGSTOP));
    CHECK(fix_until(f, "a", hung, NULL));
    int64_t from_ns = os_mono_ns(f->c->os);
    CHECK(fix_until(f, "a", restarted, NULL));
    CHECK((os_mono_ns(f->c->os) - from_ns) / 1000000 < test_longer(5000));
    CHECK(fix_until(f, "a", other_pid, &pid));
}

static bool has_unready(const Deployment *d, void *arg) {
    (void)arg;
    return d->replicas_status[0].state == AT_UNREADY;
}

RUN(deployment_shuns_a_replica_that_a_request_could_not_reach, "deployment.hung_after=1h") {
    size_t ready;
    Replica r[8];
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    fix_routes(f, "a", &ready, r);
    CHECK_INT(ready, 1);
    int64_t pid = now(f, "a").replicas_status[0].pid;
    CHECK(!kill((pid_t)pid, SIGSTOP));
    deployment_failed(r[0].id);
    CHECK(fix_until(f, "a", has_unready, NULL));
    fix_routes(f, "a", &ready, r);
    CHECK_INT(ready, 0);
    CHECK(!kill((pid_t)pid, SIGCONT));
    CHECK_STATE(f, "a", DEP_READY);
    CHECK_INT(now(f, "a").replicas_status[0].pid, pid);
    fix_routes(f, "a", &ready, r);
    CHECK_INT(ready, 1);
}

// The gateway shuns a replica that it told of until the snapshot changes: so it must change, also
// when the probe passes before anyone has looked.
RUN(deployment_says_at_least_once_that_a_request_failed) {
    ProbeView v;
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    str id = now(f, "a").replicas_status[0].id;
    deployment_rest();
    deployment_failed(id);
    int64_t end_ns = os_mono_ns(f->c->os) + (int64_t)1000 * 1000000; // the probe passes meanwhile
    while (os_mono_ns(f->c->os) < end_ns) sched_yield();
    probe_view(f->c->mem, id, &v);
    CHECK_INT(v.state, PROBE_FAILED);
    probe_view(f->c->mem, id, &v);
    CHECK_INT(v.state, PROBE_READY);
}

RUN(deployment_without_an_engine_says_what_is_missing, "deployment.llama_server=/nowhere",
    "deployment.backoff_max=20ms") {
    static const char *const none[] = { NULL };
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_FAILED);
    Deployment d = now(f, "a");
    CHECK(str_find(d.state_reason, S("no llama-server was found")) > 0);
    CHECK(str_find(d.state_reason, S("make setup")) > 0);
    CHECK_OK(f->c, fix_settings(f, none)); // it is tried again by itself
    CHECK_STATE(f, "a", DEP_READY);
}

static bool is_draining(const Deployment *d, void *arg) {
    (void)arg;
    for (size_t i = 0; i < d->replicas_status_n; i++)
        if (d->replicas_status[i].state == AT_DRAINING) return true;
    return false;
}

RUN_BOTH(deployment_change_waits_for_requests_on_the_old_replica) {
    size_t ready, n;
    Replica before[8], r[8];
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    fix_routes(f, "a", &ready, before);
    int64_t pid = now(f, "a").replicas_status[0].pid;
    replica_begin(before[0].id);
    CHECK_OK(f->c, fix_patch(f, "a", "{\"slots\":3}"));
    CHECK(fix_until(f, "a", is_draining, NULL));
    int64_t end_ns = os_mono_ns(f->c->os) + (int64_t)1500 * 1000000; // longer than the quiet time
    while (os_mono_ns(f->c->os) < end_ns) CHECK_OK(f->c, deployment_sync(f->c));
    CHECK(!kill((pid_t)pid, 0)); // it lives while its request does
    n = fix_routes(f, "a", &ready, r);
    CHECK_INT(n, 2);
    CHECK_INT(ready, 1);
    for (size_t i = 0; i < n; i++) CHECK(str_eq(r[i].id, before[0].id) == r[i].draining);
    replica_end(before[0].id);
    CHECK_STATE(f, "a", DEP_READY);
    CHECK_INT(fix_children(f), 1);
    CHECK(now(f, "a").replicas_status[0].pid != pid);
    CHECK_INT(now(f, "a").replicas_status[0].slots, 3);
}

RUN(deployment_ends_nothing_while_the_request_path_cannot_be_told) {
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    fix_blind(true);
    CHECK_OK(f->c, fix_act(f, "a", "stop"));
    int64_t end_ns = os_mono_ns(f->c->os) + (int64_t)2500 * 1000000; // longer than the quiet time
    while (os_mono_ns(f->c->os) < end_ns) {
        err e = deployment_sync(f->c);
        (void)e;
    }
    CHECK_INT(now(f, "a").replicas_status_n, 1);
    CHECK_INT(now(f, "a").replicas_status[0].state, AT_DRAINING);
    CHECK_INT(fix_children(f), 1); // for all that the request path knows it is ready
    fix_blind(false);
    CHECK_STATE(f, "a", DEP_STOPPED);
    CHECK_INT(fix_children(f), 0);
}

RUN(deployment_change_of_what_replicas_do_not_see_starts_none) {
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    int64_t pid = now(f, "a").replicas_status[0].pid;
    CHECK_OK(f->c, fix_patch(f, "a", "{\"queue_max\":7,\"drain_ms\":5,\"replicas\":2}"));
    CHECK_STATE(f, "a", DEP_READY);
    Deployment d = now(f, "a");
    CHECK_INT(d.ready_replicas, 2);
    CHECK_INT(d.replicas_status[0].pid, pid);
    CHECK_INT(d.rollout, 1);
    CHECK_OK(f->c, fix_patch(f, "a", "{\"queue_max\":null}"));
    CHECK_INT(now(f, "a").queue_max, 100);
    CHECK_OK(f->c, fix_act(f, "a", "restart"));
    CHECK_STATE(f, "a", DEP_READY);
    d = now(f, "a");
    CHECK_INT(d.ready_replicas, 2);
    CHECK(d.replicas_status[0].pid != pid && d.rollout > 1);
}

RUN_BOTH(deployment_takes_running_engines_in_after_a_restart) {
    size_t ready;
    Replica r[8];
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\",\"replicas\":2}"));
    CHECK_STATE(f, "a", DEP_READY);
    Deployment before = now(f, "a");
    fix_restart(f, NULL);
    fix_routes(f, "a", &ready, r);
    CHECK_INT(ready, 2); // at once: nothing is loaded again, nobody waits
    CHECK_STATE(f, "a", DEP_READY);
    Deployment d = now(f, "a");
    for (int i = 0; i < 2; i++) CHECK_INT(d.replicas_status[i].pid, before.replicas_status[i].pid);
    int64_t pid = d.replicas_status[0].pid;
    kill((pid_t)pid, SIGKILL); // and it is still looked after
    CHECK(fix_until(f, "a", other_pid, &pid));
}

// Ended behind the reconciler's back, as by a shim whose grace is over.
RUN(deployment_starts_what_ended_while_it_was_away) {
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    int64_t pid = now(f, "a").replicas_status[0].pid;
    deployment_rest();
    CHECK(!kill((pid_t)pid, SIGKILL));
    int64_t end_ns = os_mono_ns(f->c->os) + test_longer(20) * 1000000000;
    while (fix_children(f) && os_mono_ns(f->c->os) < end_ns) sched_yield();
    fix_restart(f, NULL);
    CHECK(fix_until(f, "a", other_pid, &pid));
    CHECK_INT(now(f, "a").replicas_status[0].restarts, 0);
}

static err start_child(Fix *f, const char *key, int64_t *out_pid) {
    Ctx *c = f->c;
    Addr at;
    TRY(replica_socket(c, str_z(key), &at));
    const char *argv[] = { os_program(c).p, "--host", at.text + 5, "--alias", "a", NULL };
    ChildSpec spec = { .key = str_z(key), .argv = argv, .socket_path = str_z(at.text + 5) };
    ChildView v = { 0 };
    str handle;
    TRY(executor_submit(c, f->app.executor, &spec, &handle));
    int64_t end_ns = os_mono_ns(c->os) + test_longer(20) * 1000000000;
    while (!v.pid && os_mono_ns(c->os) < end_ns)
        TRY(executor_observe(c, f->app.executor, handle, &v));
    *out_pid = v.pid;
    return ERR_OK;
}

// As when this program dies between starting a child and saying so.
RUN(deployment_takes_in_children_that_no_row_tells_of) {
    int64_t wanted, old;
    deployment_rest();
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    const char *id = arena_z(f->c->mem, now(f, "a").head.id);
    CHECK_OK(f->c, start_child(f, say(f->c, "%s.1.0", id), &wanted));
    CHECK_OK(f->c, start_child(f, say(f->c, "%s.99.0", id), &old));
    fix_restart(f, NULL);
    CHECK_STATE(f, "a", DEP_READY);
    CHECK_INT(now(f, "a").replicas_status[0].pid, wanted);
    CHECK_INT(fix_children(f), 1); // the one of a generation that nobody wishes for is gone
    CHECK(kill((pid_t)old, 0));
}

RUN(deployment_waits_for_memory_and_says_how_much, "deployment.memory_reserve=1000TiB") {
    static const char *const none[] = { NULL };
    CHECK_OK(f->c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_PENDING);
    Deployment d = now(f, "a");
    CHECK_INT(d.memory_available, 0);
    const char *needs = say(f->c, "needs %lld bytes", (long long)d.memory_needed);
    CHECK(str_find(d.state_reason, str_z(needs)) >= 0);
    CHECK(str_find(d.state_reason, S("0 (0 B) are available")) > 0);
    CHECK_INT(fix_children(f), 0);
    CHECK_OK(f->c, fix_settings(f, none)); // memory frees
    CHECK_STATE(f, "a", DEP_READY);
}

RUN_BOTH(deployment_delete_ends_its_replicas_first) {
    Ctx *c = f->c;
    Deployment d;
    CHECK_OK(c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\",\"replicas\":2}"));
    CHECK_STATE(f, "a", DEP_READY);
    str id = now(f, "a").replicas_status[0].id;
    replica_begin(id);
    CHECK_OK(c, fix_act(f, "a", "delete"));
    CHECK(fix_until(f, "a", is_draining, NULL));
    CHECK_STR(now(f, "a").head.name, "a");
    replica_end(id);
    int64_t end_ns = os_mono_ns(c->os) + test_longer(20) * 1000000000;
    while (!fix_get(f, "a", &d) && os_mono_ns(c->os) < end_ns) CHECK_OK(c, deployment_sync(c));
    CHECK_ERR(fix_get(f, "a", &d), ERR_NOTFOUND);
    CHECK_INT(fix_children(f), 0);
}

RUN_BOTH(deployment_of_another_holder_is_let_alone) {
    Ctx *c = f->c;
    Lease lease;
    CHECK_OK(c, fix_create(f, "{\"name\":\"a\",\"model\":\"m\"}"));
    CHECK_STATE(f, "a", DEP_READY);
    str object = arena_printf(c->mem, "deployment/" STR_FMT, STR_ARG(now(f, "a").head.id));
    CHECK_ERR(lease_take(c, f->app.db, object, S("thief"), 60000, &lease), ERR_CONFLICT);
    str holder = arena_str(c->mem, failure_param(&c->failure, "holder"));
    CHECK_OK(c, lease_take(c, f->app.db, object, holder, 1, &lease));
    CHECK_OK(c, lease_drop(c, f->app.db, &lease));
    CHECK_OK(c, lease_take(c, f->app.db, object, S("thief"), 60000, &lease));
    CHECK_OK(c, fix_patch(f, "a", "{\"slots\":3}"));
    int64_t end_ns = os_mono_ns(c->os) + test_longer(20) * 1000000000;
    while (fix_children(f) && os_mono_ns(c->os) < end_ns) {
        err e = deployment_sync(c); // the write that is refused is an error of its turn
        CHECK(!e || e == ERR_LOST);
    }
    CHECK_INT(fix_children(f), 0); // what ran here is the other's to run
    Deployment d = now(f, "a");
    CHECK_INT(d.head.observed_generation, 1); // and nothing was written for it
    CHECK_INT(d.replicas_status_n, 1);
}

RUN_BOTH(deployment_refuses_what_cannot_be) {
    static const struct {
        const char *json, *field;
    } bad[] = {
        { "{\"name\":\"x\"}", "model" },
        { "{\"name\":\"x\",\"model\":\"nope\"}", "model" },
        { "{\"name\":\"x\",\"model\":\"m\",\"replicas\":65}", "replicas" },
        { "{\"name\":\"x\",\"model\":\"m\",\"slots\":0}", "slots" },
        { "{\"name\":\"x\",\"model\":\"m\",\"context\":9000000}", "context" },
        { "{\"name\":\"x\",\"model\":\"m\",\"state\":\"ready\"}", "state" },
        { "{\"name\":\"x\",\"model\":\"m\",\"endpoint\":{\"url\":\"http://a\"}}", "endpoint.url" },
        { "{\"name\":\"x\",\"engine\":\"openai\"}", "endpoint.url" },
        { "{\"name\":\"x\",\"engine\":\"openai\",\"endpoint\":{\"url\":\"ftp://a\"}}",
          "endpoint.url" },
        { "{\"name\":\"x\",\"engine\":\"vllm\"}", "engine" },
    };
    for (size_t i = 0; i < countof(bad); i++) {
        err e = fix_create(f, bad[i].json);
        if (e != ERR_INVALID)
            test_failed(__FILE__, __LINE__, "%s: %s", bad[i].json, err_row(e)->name);
        CHECK_STR(failure_param(&f->c->failure, "field"), bad[i].field);
    }
}

// ---- attached

static err serve_models(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                        HttpReply *out) {
    (void)c, (void)n, (void)body;
    bool known = str_is(http_header(r, "authorization"), "Bearer k1");
    out->status = known ? 200 : 401;
    buf_add(&out->body,
            known ? S("{\"data\":[]}") : S("{\"error\":{\"message\":\"who are you\"}}"));
    return ERR_OK;
}
static const NetRoute models_route = {
    .method = HTTP_GET, .pattern = "/base/models", .serve = serve_models, .timeout_ms = 5000
};

static err fake_seal(Ctx *c, str plain, str aad, str *out) {
    *out =
        arena_printf(c->mem, "%c" STR_FMT "#" STR_FMT, SEALED_MARK, STR_ARG(aad), STR_ARG(plain));
    return ERR_OK;
}
static err fake_unseal(Ctx *c, str sealed, str aad, str *out) {
    str head = arena_printf(c->mem, "%c" STR_FMT "#", SEALED_MARK, STR_ARG(aad));
    if (!str_starts(sealed, head)) return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "another row's");
    *out = str_sub(sealed, head.n, sealed.n);
    return ERR_OK;
}

static bool says_401(const Deployment *d, void *arg) {
    (void)arg;
    return str_find(d->state_reason, S("answered 401 who are you")) >= 0;
}

RUN(deployment_attaches_to_a_server_by_address_and_key) {
    static const NetRoute *const routes[] = { &models_route };
    Ctx *c = f->c;
    Server *s;
    Addr any, at;
    size_t ready;
    Replica r[8];
    f->app.seal = fake_seal, f->app.unseal = fake_unseal;
    ServerConfig config = {
        .pool = f->app.pool, .spool_dir = f->data, .app = &f->app, .routes = routes, .routes_n = 1
    };
    CHECK_OK(c, server_new(c, f->app.loops, 1, &config, &s));
    CHECK_OK(c, addr_parse(c, S("127.0.0.1:0"), &any));
    CHECK_OK(c, server_listen(c, s, &any, &at));
    f->app.server = s; // fix_close frees it
    CHECK_OK(c, fix_create(f, say(c,
                                  "{\"name\":\"a\",\"engine\":\"openai\",\"endpoint\":{\"url\":"
                                  "\"http://%s/base\","
                                  "\"api_key\":\"bad\"}}",
                                  at.text)));
    CHECK(fix_until(f, "a", says_401, NULL));
    fix_routes(f, "a", &ready, r);
    CHECK_INT(ready, 0);
    CHECK_OK(c, fix_patch(f, "a", "{\"endpoint\":{\"api_key\":\"k1\"}}"));
    CHECK_STATE(f, "a", DEP_READY);
    CHECK_INT(fix_routes(f, "a", &ready, r), 1);
    CHECK_INT(ready, 1);
    CHECK_INT(r[0].headers_n, 1);
    CHECK_STR(r[0].headers[0].value, "Bearer k1");
    CHECK_STR(str_z(r[0].addr.text), at.text);
    str disk;
    CHECK_OK(c, file_read_all(c, arena_printf(c->mem, STR_FMT "/snapshot.json", STR_ARG(f->data)),
                              1 << 20, &disk));
    CHECK(str_find(disk, S("Bearer")) < 0);
    // Over to an engine of our own: the server stays until that answers.
    fix_engine(f, "a", "load");
    CHECK_OK(c, fix_patch(f, "a",
                          "{\"engine\":\"llama.cpp\",\"model\":\"m\",\"endpoint\":{\"url\":null,"
                          "\"api_key\":null}}"));
    CHECK_STATE(f, "a", DEP_UPDATING);
    for (int i = 0; i < 5; i++) CHECK_OK(c, deployment_sync(c));
    fix_routes(f, "a", &ready, r);
    CHECK_INT(ready, 1);
    fix_engine(f, "a", "");
    CHECK_STATE(f, "a", DEP_READY);
    CHECK_INT(fix_children(f), 1);
    CHECK_OK(c, fix_act(f, "a", "stop"));
    CHECK_STATE(f, "a", DEP_STOPPED);
}
