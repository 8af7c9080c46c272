// SPDX-License-Identifier: Apache-2.0
// deployment_test.c - what decides: plans from any state, one replica's path, back-off, memory,
// addresses. Pure functions, so properties over random states rather than examples.
#include "base/test.h"
#include "mod/deployment/decide.h"

static const Policy policy = { .backoff_first_ms = 1000,
                               .backoff_max_ms = 300000,
                               .window_ms = 600000,
                               .window_exits = 5,
                               .hung_ms = 30000,
                               .healthy_ms = 30000,
                               .quiet_ms = 1000,
                               .drain_ms = 60000,
                               .slow_ms = 12000 };

// ---- plans: a world that does what it is told, in a random order and time

typedef struct World {
    Unit at[UNITS_MAX];
    size_t n;
    Wish w;
    int64_t memory; // replicas that fit, all generations together; -1: no bound
    bool unruly;    // replicas crash and stop answering
} World;

static int64_t live(const World *w) {
    int64_t n = 0;
    for (size_t i = 0; i < w->n; i++) n += w->at[i].state != AT_WAITING;
    return n;
}
static int64_t ready(const World *w) {
    int64_t n = 0;
    for (size_t i = 0; i < w->n; i++) n += w->at[i].state == AT_READY;
    return n;
}
static bool settled(const World *w) {
    if (w->n != (size_t)w->w.replicas) return false;
    for (size_t i = 0; i < w->n; i++)
        if (w->at[i].state != AT_READY || w->at[i].generation != w->w.generation) return false;
    return true;
}

static void look(World *w) {
    w->w.room = w->memory < 0 ? REPLICAS_MAX : w->memory - live(w);
    if (w->w.room < 0) w->w.room = 0;
    bool old = false;
    for (size_t i = 0; i < w->n; i++)
        old |= w->at[i].generation != w->w.generation || w->at[i].number >= w->w.replicas;
    w->w.frees = !w->w.room && old && live(w) <= w->memory;
}

static bool do_step(World *w, const Step *s) {
    Unit *u = s->unit == PLAN_NEW ? &w->at[w->n] : &w->at[s->unit];
    switch (s->what) {
    case DO_START:
        if (s->unit == PLAN_NEW) w->n++, *u = (Unit){ w->w.generation, s->number, 0, 0, 0 };
        else if (u->state != AT_WAITING || !u->due) return false;
        u->state = AT_STARTING;
        return true;
    case DO_DRAIN:
        if (u->state != AT_READY && u->state != AT_UNREADY) return false;
        u->state = AT_DRAINING, u->may_end = false;
        return true;
    case DO_UNDRAIN:
        if (u->state != AT_DRAINING) return false;
        u->state = AT_READY;
        return true;
    case DO_END:
        if (u->state == AT_READY || u->state == AT_WAITING) return false; // never without draining
        if (u->state == AT_DRAINING && !u->may_end) return false;
        u->state = AT_ENDING;
        return true;
    case DO_DROP:
        if (u->state != AT_WAITING) return false;
        u->state = AT_GONE;
        return true;
    }
    return false;
}

static void remove_gone(World *w) {
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++)
        if (w->at[i].state != AT_GONE) w->at[n++] = w->at[i];
    w->n = n;
}

// Time passes for one replica.
static void live_on(World *w, Unit *u) {
    bool crash = w->unruly && test_random() % 8 == 0;
    switch (u->state) {
    case AT_WAITING: u->due = true; break;
    case AT_STARTING: u->state = crash ? AT_WAITING : AT_READY, u->due = false; break;
    case AT_READY: u->state = crash ? test_random() % 2 ? AT_UNREADY : AT_WAITING : AT_READY; break;
    case AT_UNREADY: u->state = test_random() % 2 ? AT_READY : AT_HUNG; break;
    case AT_HUNG: u->state = AT_WAITING; break;
    case AT_DRAINING: u->may_end = true; break;
    case AT_ENDING: u->state = AT_GONE; break;
    default: break;
    }
}

static void some_world(World *w) {
    static const ReplicaState states[] = { AT_WAITING, AT_STARTING, AT_READY, AT_UNREADY,
                                           AT_HUNG,    AT_DRAINING, AT_ENDING };
    *w =
        (World){ .memory = -1, .w = { .generation = 5, .replicas = (int64_t)(test_random() % 9) } };
    size_t n = test_random() % 20;
    for (size_t i = 0; i < n; i++) {
        Unit u = { 3 + (int64_t)(test_random() % 3), (int64_t)(test_random() % 9),
                   states[test_random() % countof(states)], test_random() % 2, test_random() % 2 };
        bool twice = false;
        for (size_t k = 0; k < w->n; k++)
            twice |= w->at[k].generation == u.generation && w->at[k].number == u.number;
        if (!twice) w->at[w->n++] = u;
    }
}

// One turn. False when a rule was broken: the text says which.
static const char *turn(World *w) {
    static Step steps[STEPS_MAX];
    look(w);
    int64_t live_before = live(w), ready_before = ready(w), limit = plan_limit(w->w.replicas);
    int64_t started = 0;
    size_t n = plan(&w->w, w->at, w->n, steps);
    for (size_t i = 0; i < n; i++) {
        if (!do_step(w, &steps[i])) return "a step that its replica is not in a state for";
        started += steps[i].what == DO_START;
    }
    if (started > w->w.room) return "more started than the memory has room for";
    if (started && live_before + started > limit) return "more started than the limit allows";
    bool cramped = w->w.frees;
    if (ready(w) < ready_before && ready(w) < w->w.replicas && !cramped)
        return "one that answers was let go before another made up for it";
    if (ready(w) + 1 < ready_before && ready(w) < w->w.replicas) return "two at once were let go";
    remove_gone(w);
    return NULL;
}

static const char *run_world(World *w, int turns) {
    for (int i = 0; i < turns; i++) {
        const char *broken = turn(w);
        if (broken) return broken;
        for (size_t k = 0; k < w->n; k++)
            if (test_random() % 2) live_on(w, &w->at[k]);
        remove_gone(w);
    }
    return NULL;
}

static const char *check_world(World *w) {
    w->unruly = true;
    const char *broken = run_world(w, 30);
    if (broken) return broken;
    w->unruly = false;
    broken = run_world(w, 200);
    if (broken) return broken;
    if (!settled(w)) return "it did not come to rest as wished";
    static Step steps[STEPS_MAX];
    look(w);
    return plan(&w->w, w->at, w->n, steps) ? "it does something though all is as wished" : NULL;
}

TEST(deployment_plan_converges_from_anywhere) {
    for (int i = 0; i < 3000; i++) {
        World w;
        some_world(&w);
        const char *broken = check_world(&w);
        if (broken) test_failed(__FILE__, __LINE__, "world %d: %s", i, broken);
        if (broken) return;
    }
}

TEST(deployment_plan_converges_in_little_memory) {
    for (int i = 0; i < 3000; i++) {
        World w;
        some_world(&w);
        w.memory = w.w.replicas; // just what is wished, nothing beside it
        const char *broken = check_world(&w);
        if (broken) test_failed(__FILE__, __LINE__, "world %d: %s", i, broken);
        if (broken) return;
    }
}

static World rolling(int64_t replicas) {
    World w = { .memory = -1, .w = { .generation = 2, .replicas = replicas } };
    for (int64_t i = 0; i < replicas; i++) w.at[w.n++] = (Unit){ 1, i, AT_READY, 0, 0 };
    return w;
}

TEST(deployment_plan_keeps_all_old_until_new_ones_answer) {
    for (int64_t replicas = 1; replicas <= 8; replicas++) {
        World w = rolling(replicas);
        while (!settled(&w)) {
            CHECK(!turn(&w));
            CHECK(ready(&w) >= replicas);
            CHECK(live(&w) <= plan_limit(replicas));
            for (size_t k = 0; k < w.n; k++) live_on(&w, &w.at[k]);
            remove_gone(&w);
        }
    }
}

TEST(deployment_plan_keeps_the_old_when_the_new_never_answer) {
    World w = rolling(2);
    for (int i = 0; i < 50; i++) {
        CHECK(!turn(&w));
        CHECK_INT(ready(&w), 2);
        for (size_t k = 0; k < w.n; k++) // the new ones crash, always
            if (w.at[k].state == AT_STARTING) w.at[k].state = AT_WAITING, w.at[k].due = i % 3 == 0;
    }
}

TEST(deployment_plan_stops_after_draining) {
    World w = rolling(3);
    Step steps[STEPS_MAX];
    w.w.replicas = 0;
    CHECK_INT(plan(&w.w, w.at, w.n, steps), 3);
    for (int i = 0; i < 3; i++) CHECK_INT(steps[i].what, DO_DRAIN);
    CHECK(!turn(&w));
    CHECK_INT(plan(&w.w, w.at, w.n, steps), 0); // requests are still under way
    for (size_t k = 0; k < w.n; k++) w.at[k].may_end = true;
    CHECK_INT(plan(&w.w, w.at, w.n, steps), 3);
    for (int i = 0; i < 3; i++) CHECK_INT(steps[i].what, DO_END);
}

TEST(deployment_plan_takes_a_draining_one_back) {
    World w = rolling(1);
    w.w.generation = 1, w.at[0].state = AT_DRAINING, w.at[0].may_end = true;
    Step steps[STEPS_MAX];
    CHECK_INT(plan(&w.w, w.at, w.n, steps), 1);
    CHECK_INT(steps[0].what, DO_UNDRAIN);
}

// ---- one replica

TEST(deployment_backoff_doubles_up_to_its_most) {
    static const int64_t want[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300 };
    for (size_t i = 0; i < countof(want); i++)
        CHECK_INT(backoff_ms(&policy, (int64_t)i + 1), want[i] * 1000);
    CHECK_INT(backoff_ms(&policy, INT64_MAX), 300000);
    CHECK_INT(backoff_ms(&policy, 0), 1000);
}

static Look alive(ProbeState probe) {
    return (Look){ .launched = true,
                   .there = true,
                   .pid = 7,
                   .memory_bytes = 50,
                   .model_bytes = 100,
                   .started_ms = 1,
                   .probe = probe,
                   .probe_text = S("refused") };
}
static Look dead(void) {
    return (Look){ .launched = true, .there = true, .ended = true, .end_reason = S("signal 9") };
}

static void see(ReplicaRow *r, Look l, int64_t now_ms) {
    replica_step(test_ctx()->mem, r, &l, &policy, now_ms);
}

TEST(deployment_replica_loads_then_answers) {
    ReplicaRow r = { .state = AT_STARTING };
    see(&r, alive(PROBE_NONE), 10);
    CHECK_INT(r.progress, 50);
    CHECK_INT(r.pid, 7);
    Look less = alive(PROBE_LOADING);
    less.memory_bytes = 40;
    see(&r, less, 20);
    CHECK_INT(r.progress, 50); // never back
    Look more = alive(PROBE_LOADING);
    more.memory_bytes = 500;
    see(&r, more, 30);
    CHECK_INT(r.progress, 99); // 100 is for one that answers
    see(&r, alive(PROBE_READY), 40);
    CHECK_INT(r.state, AT_READY);
    CHECK_INT(r.progress, 100);
    CHECK_INT(r.ready_at, 40);
}

TEST(deployment_replica_that_crashes_waits_longer_each_time_and_is_called_a_loop) {
    ReplicaRow r = { .state = AT_STARTING };
    int64_t now_ms = 1000000;
    for (int i = 1; i <= 4; i++) {
        see(&r, dead(), now_ms);
        CHECK_INT(r.state, AT_WAITING);
        CHECK_INT(r.next_at - now_ms, backoff_ms(&policy, i));
        CHECK_STR(r.reason, "signal 9");
        CHECK(!replica_loops(&r, &policy));
        now_ms = r.next_at;
        replica_to(&r, AT_STARTING, now_ms);
    }
    see(&r, dead(), now_ms);
    CHECK(replica_loops(&r, &policy));
    CHECK_INT(r.next_at - now_ms, 300000); // still tried, at the long interval
    CHECK_INT(r.restarts, 5);
}

TEST(deployment_replica_that_was_healthy_starts_its_backoff_again) {
    ReplicaRow r = { .state = AT_STARTING };
    see(&r, dead(), 1000);
    see(&r, dead(), 1000);
    CHECK_INT(r.failures, 1); // one that waits has been counted
    replica_to(&r, AT_STARTING, 2000);
    see(&r, dead(), 2000);
    CHECK_INT(r.failures, 2);
    replica_to(&r, AT_STARTING, 5000);
    see(&r, alive(PROBE_READY), 6000);
    see(&r, alive(PROBE_READY), 6000 + policy.healthy_ms - 1);
    CHECK_INT(r.failures, 2);
    see(&r, alive(PROBE_READY), 6000 + policy.healthy_ms);
    CHECK_INT(r.failures, 0);
    see(&r, dead(), 50000);
    CHECK_INT(r.next_at, 51000);
    CHECK_INT(r.window_exits, 3); // the window still counts all three
    replica_to(&r, AT_STARTING, 51000);
    see(&r, dead(), 1000 + policy.window_ms + 1);
    CHECK_INT(r.window_exits, 1); // and begins again after its time
}

TEST(deployment_replica_that_is_silent_is_killed_and_says_why) {
    ReplicaRow r = { .state = AT_READY, .ready_at = 1 };
    Look silent = alive(PROBE_READY); // what it said last
    silent.silent_ms = policy.slow_ms;
    see(&r, silent, 100);
    CHECK_INT(r.state, AT_READY); // a machine may be busy
    silent.silent_ms = policy.slow_ms + 1;
    see(&r, silent, 100);
    CHECK_INT(r.state, AT_UNREADY); // nothing new is sent to it
    see(&r, silent, 150);
    CHECK_INT(r.state, AT_UNREADY);
    silent.silent_ms = policy.hung_ms + 1;
    see(&r, silent, 200);
    CHECK_INT(r.state, AT_HUNG);
    Look killed = dead();
    see(&r, killed, 300);
    CHECK_INT(r.state, AT_WAITING);
    CHECK(str_find(r.reason, S("answered no probe for 30s")) >= 0);
}

TEST(deployment_replica_that_is_shunned_comes_back_when_its_probe_passes) {
    ReplicaRow r = { .state = AT_READY, .ready_at = 1 };
    see(&r, alive(PROBE_FAILED), 100);
    CHECK_INT(r.state, AT_UNREADY);
    CHECK_STR(r.reason, "refused");
    see(&r, alive(PROBE_READY), 200);
    CHECK_INT(r.state, AT_READY);
    CHECK_INT(r.reason.n, 0);
}

TEST(deployment_replica_whose_process_nobody_knows_starts_at_once) {
    ReplicaRow r = { .state = AT_READY, .ready_at = 5, .restarts = 2 };
    see(&r, (Look){ .launched = true }, 100);
    CHECK_INT(r.state, AT_WAITING);
    CHECK_INT(r.next_at, 0);
    CHECK_INT(r.failures, 0); // the machine was started again: not its fault
    ReplicaRow away = { .state = AT_READY, .ready_at = 5 };
    Look ended = dead();
    ended.ended_before = true; // it outlived its grace while the server was down
    see(&away, ended, 100);
    CHECK_INT(away.state, AT_WAITING);
    CHECK_INT(away.failures + away.next_at + away.restarts, 0);
    ReplicaRow new = { .state = AT_STARTING };
    see(&new, (Look){ .launched = true }, 100);
    CHECK_INT(new.state, AT_STARTING); // still to be submitted
}

TEST(deployment_replica_whose_node_is_gone_starts_at_once_and_says_so) {
    for (ReplicaState was = AT_STARTING; was <= AT_HUNG; was++) {
        ReplicaRow r = { .state = was, .ready_at = 5, .pid = 7, .since = 3 };
        see(&r, (Look){ .launched = true, .left = S("node_1") }, 1000);
        CHECK_INT(r.state, AT_WAITING);
        CHECK_INT(r.restarts + r.failures + r.next_at + r.pid, 0); // nobody's fault
        CHECK(str_find(r.reason, S("node_1")) > 0);
    }
    ReplicaRow unwanted = { .state = AT_DRAINING };
    see(&unwanted, (Look){ .launched = true, .left = S("node_1") }, 1000);
    CHECK_INT(unwanted.state, AT_GONE);
}
TEST(deployment_replica_found_running_is_taken_in_without_a_start) {
    ReplicaRow r = { .state = AT_WAITING };
    see(&r, alive(PROBE_NONE), 100);
    CHECK_INT(r.state, AT_STARTING);
    ReplicaRow ready = { .state = AT_READY, .ready_at = 5 };
    see(&ready, alive(PROBE_NONE), 100); // after a restart of this program: not asked yet
    CHECK_INT(ready.state, AT_READY);
}

TEST(deployment_replica_that_drains_ends_when_nothing_is_in_flight) {
    ReplicaRow r = { .state = AT_DRAINING, .since = 1000 };
    Look l = alive(PROBE_READY);
    l.in_flight = 1;
    CHECK(!replica_may_end(&r, &l, &policy, 1000 + policy.drain_ms - 1));
    CHECK(replica_may_end(&r, &l, &policy, 1000 + policy.drain_ms));
    l.in_flight = 0;
    CHECK(!replica_may_end(&r, &l, &policy, 1000 + policy.quiet_ms - 1)); // one may be on its way
    CHECK(replica_may_end(&r, &l, &policy, 1000 + policy.quiet_ms));
    r.state = AT_READY;
    CHECK(!replica_may_end(&r, &l, &policy, 1000000));
    r.state = AT_DRAINING;
    see(&r, dead(), 2000);
    CHECK_INT(r.state, AT_GONE); // no restart
}

TEST(deployment_replica_waits_no_longer_than_the_most_when_the_clock_jumps) {
    ReplicaRow r = { .state = AT_WAITING, .next_at = INT64_MAX / 2 };
    see(&r, dead(), 1000);
    CHECK_INT(r.next_at, 1000 + policy.backoff_max_ms);
}

// ---- memory

TEST(deployment_memory_counts_what_is_promised_and_what_is_held) {
    Memory m = { .total = 1000, .available = 800 };
    CHECK_INT(memory_free(&m, 0), 800);
    CHECK_INT(memory_free(&m, 100), 700);
    memory_add(&m,
               &(ReplicaRow){ .state = AT_STARTING, .memory_needed = 300, .memory_bytes = 100 });
    CHECK_INT(memory_free(&m, 0), 600); // 200 are still to be taken
    memory_add(&m, &(ReplicaRow){ .state = AT_READY, .memory_needed = 500, .memory_bytes = 50 });
    CHECK_INT(memory_free(&m, 0), 200); // of all there is, 800 are spoken for
    memory_add(&m, &(ReplicaRow){ .state = AT_WAITING, .memory_needed = 500 });
    CHECK_INT(memory_free(&m, 0), 200); // one that waits holds nothing
    CHECK_INT(memory_free(&m, 5000), 0);
    memory_add(&m, &(ReplicaRow){ .state = AT_STARTING, .memory_needed = INT64_MAX });
    memory_add(&m, &(ReplicaRow){ .state = AT_STARTING, .memory_needed = INT64_MAX });
    CHECK_INT(memory_free(&m, 0), 0);
    CHECK_INT(memory_free(&(Memory){ 0 }, 100), INT64_MAX); // nothing is known: nothing is refused
}

TEST(deployment_memory_room_is_whole_replicas) {
    CHECK_INT(memory_room(999, 100, 64), 9);
    CHECK_INT(memory_room(99, 100, 64), 0);
    CHECK_INT(memory_room(INT64_MAX, 1, 64), 64);
    CHECK_INT(memory_room(5, 0, 64), 64); // attached: it needs none of ours
    CHECK_INT(memory_room(INT64_MAX, INT64_MAX, 64), 1);
}

TEST(deployment_serving_follows_the_model_where_nothing_is_wished) {
    Deployment d = { .task = -1, .context = UNSET_INT, .cache = CACHE_AUTO, .rollout = 3 };
    VersionInfo v = { .context = 2048, .can_chat = true, .key_length = 64, .value_length = 64 };
    Serving s;
    serving_of(&d, &v, &s);
    CHECK_INT(s.task, TASK_CHAT);
    CHECK_INT(s.context, 2048);
    CHECK(s.cache_q8);
    CHECK_INT(s.generation, 3);
    v.context = 131072, v.can_chat = false, v.key_length = 80;
    serving_of(&d, &v, &s);
    CHECK_INT(s.task, TASK_COMPLETION);
    CHECK_INT(s.context, CONTEXT_DEFAULT);
    CHECK(!s.cache_q8); // 80 is no multiple of a block
    v.embedder = true, v.key_length = 64;
    serving_of(&d, &v, &s);
    CHECK_INT(s.task, TASK_EMBEDDING);
    CHECK(!s.cache_q8 && !s.pool_mean); // its file says how it pools
    d.task = TASK_EMBEDDING, d.context = 100000, v.embedder = false;
    serving_of(&d, &v, &s);
    CHECK(s.pool_mean);
    CHECK_INT(s.context, 100000);
}

// ---- addresses

TEST(deployment_endpoint_is_taken_apart) {
    static const struct {
        const char *url, *host, *header, *base;
        int port;
    } good[] = {
        { "http://vllm:8000/v1", "vllm", "vllm:8000", "/v1", 8000 },
        { "http://vllm", "vllm", "vllm", "/v1", 80 },
        { "http://10.0.0.7:81/", "10.0.0.7", "10.0.0.7:81", "/v1", 81 },
        { "http://[::1]:9/x/y//", "::1", "[::1]:9", "/x/y", 9 },
        { "http://[::1]", "::1", "[::1]", "/v1", 80 },
        { "https://vllm", "vllm", "vllm", "/v1", 443 },
        { "https://vllm:8443/x", "vllm", "vllm:8443", "/x", 8443 },
    };
    static const char *const bad[] = { "",
                                       "https:/a/v1",
                                       "ftp://a",
                                       "http://",
                                       "http:///v1",
                                       "http://a:0/",
                                       "http://a:65536",
                                       "http://a:b",
                                       "http://user@a/",
                                       "http://a b/",
                                       "http://a/v1?x=1",
                                       "http://a/v1#x",
                                       "http://a/\r\nX: y" };
    for (size_t i = 0; i < countof(good); i++) {
        Ctx *c = test_ctx();
        Endpoint e = { .manner.dialect = -1, .url = str_z(good[i].url) };
        Url u;
        CHECK_OK(c, endpoint_parse(c, &e, &u));
        CHECK_STR(u.host, good[i].host);
        CHECK_STR(u.host_header, good[i].header);
        CHECK_STR(u.base_path, good[i].base);
        CHECK_INT(u.port, good[i].port);
        CHECK_INT(u.tls, str_starts(str_z(good[i].url), S("https:")));
    }
    for (size_t i = 0; i < countof(bad); i++) {
        Endpoint e = { .manner.dialect = -1, .url = str_z(bad[i]) };
        Url u;
        CHECK_ERR(endpoint_parse(test_ctx(), &e, &u), ERR_INVALID);
    }
}

// As the makers' clients take an address, and as their servers want to be asked (docs/dialects.md).
TEST(deployment_manner_is_its_dialects) {
    static const struct {
        const char *dialect, *url, *base, *health, *query, *name, *value;
        size_t headers;
        int auth;
    } all[] = {
        { NULL, "http://a:1", "/v1", "/v1/models", "", "Authorization", "Bearer k", 1, -1 },
        { "openai.responses", "https://api.openai.com/v1", "/v1", "/v1/models", "", "Authorization",
          "Bearer k", 1, -1 },
        { "anthropic", "https://api.anthropic.com", "/v1", "/v1/models", "", "x-api-key", "k", 2,
          -1 },
        { "anthropic", "http://a/anthropic/v1/", "/anthropic/v1", "/anthropic/v1/models", "",
          "Authorization", "Bearer k", 2, 0 },
        { "anthropic", "http://a/anthropic", "/anthropic/v1", "/anthropic/v1/models", "",
          "x-api-key", "k", 2, -1 },
        { "ollama.chat", "http://a:11434", "/api", "/api/tags", "", "Authorization", "Bearer k", 1,
          -1 },
        { "ollama.chat", "http://a/ollama/api", "/ollama/api", "/ollama/api/tags", "",
          "Authorization", "Bearer k", 1, -1 },
        { "openai.chat", "https://x.openai.azure.com/openai/deployments/gpt",
          "/openai/deployments/gpt", "/openai/models?api-version=2024-10-21",
          "?api-version=2024-10-21", "api-key", "k", 1, 2 },
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(all); i++) {
        Endpoint e = { .url = str_z(all[i].url) };
        Url u;
        HttpHeader h[ENDPOINT_HEADERS];
        fields_default(c->mem, manner_rows, &e.manner);
        for (int k = 0; all[i].dialect && dialect_names[k]; k++)
            if (!strcmp(dialect_names[k], all[i].dialect)) e.manner.dialect = k;
        e.manner.auth = all[i].auth;
        if (*all[i].query) e.manner.api_version = S("2024-10-21");
        CHECK_OK(c, manner_check(c, &e.manner, TASK_CHAT));
        CHECK_OK(c, endpoint_parse(c, &e, &u));
        CHECK_STR(u.base_path, all[i].base);
        CHECK_STR(manner_health(c->mem, &e.manner, u.base_path), all[i].health);
        CHECK_STR(manner_query(c->mem, &e.manner), all[i].query);
        CHECK_INT(manner_headers(c->mem, &e.manner, S("k"), h), all[i].headers);
        CHECK_STR(h[0].name, all[i].name);
        CHECK_STR(h[0].value, all[i].value);
        CHECK_INT(manner_headers(c->mem, &e.manner, (str){ 0 }, h), all[i].headers - 1);
        CHECK_STR(str_z(manner_dialect(&e.manner)->name),
                  all[i].dialect ? all[i].dialect : "openai.chat");
    }
}
