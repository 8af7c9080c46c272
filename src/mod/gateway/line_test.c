// SPDX-License-Identifier: Apache-2.0
// line_test.c - slots: as many requests hold one as a replica has, thousands too; and nobody waits
// for what this node cannot reach.
#include "base/test.h"
#include "mod/gateway/line.h"
#include <stdio.h>

typedef struct Fix {
    Loop *loop;
    Replica replica;
    DeploymentEntry d;
} Fix;

static void never(void *arg) {
    (void)arg;
    test_failed(__FILE__, __LINE__, "a turn that nobody gave");
}

static Fix fix(const char *name, int64_t slots) {
    Fix f = { .loop = loop_new(os_real()),
              .replica = { .id = str_z(name), .ready = true },
              .d = { .id = str_z(name), .slots = slots, .queue_max = 1, .queue_ms = 1000 } };
    f.d.state = S("ready");
    return f;
}

static LineAnswer join(Fix *f, Ticket **out) {
    LineCall call = { f->loop, never, NULL, S("p"), S("k") };
    f->d.replicas = &f->replica, f->d.replicas_n = 1;
    return line_join(&f->d, &call, out);
}

static void hold_all(Fix *f, size_t n, Ticket **held) {
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(join(f, &held[i]), LINE_GO);
        CHECK_STR(ticket_replica(held[i]), f->replica.id.p);
    }
}

TEST(line_gives_thousands_of_slots) {
    enum { SLOTS = 3000 };
    Fix f = fix("line_thousands", SLOTS);
    Ticket **held = mem_new((SLOTS + 1) * sizeof(Ticket *)), *more;
    hold_all(&f, SLOTS, held);
    CHECK_INT(join(&f, &held[SLOTS]), LINE_WAIT);
    CHECK_INT(ticket_position(held[SLOTS]), 1);
    CHECK_INT(join(&f, &more), LINE_FULL);
    CHECK(line_retry_after_ms(&f.d) >= 1000);
    for (size_t i = SLOTS + 1; i-- > 0;) line_leave(held[i]); // who waits first
    CHECK_INT(join(&f, &more), LINE_GO);
    line_done(more, 5);
    mem_free(held);
    loop_free(f.loop);
}

TEST(line_without_a_limit_lets_all_go) {
    enum { MANY = 5000 };
    Fix f = fix("line_any", SLOTS_ANY);
    Ticket **held = mem_new(MANY * sizeof(Ticket *));
    hold_all(&f, MANY, held);
    CHECK(line_retry_after_ms(&f.d) >= 1000);
    for (size_t i = 0; i < MANY; i++) line_done(held[i], 10);
    mem_free(held);
    loop_free(f.loop);
}

TEST(line_has_no_queue_for_another_nodes_replica) {
    Fix f = fix("line_far", 4);
    Ticket *t;
    f.replica.ready = false, f.replica.node = S("node-b");
    CHECK_INT(join(&f, &t), LINE_NONE);
    CHECK_STR(deployment_elsewhere(&f.d), "node-b");
    f.d.state = S("starting"); // there, too
    CHECK_INT(join(&f, &t), LINE_NONE);
    f.replica.node = (str){ 0 }; // one that loads here is waited for
    CHECK_INT(join(&f, &t), LINE_WAIT);
    CHECK(!deployment_elsewhere(&f.d).n);
    line_leave(t);
    loop_free(f.loop);
}

// More than there are lines: a deployment that is gone makes room for the next one.
TEST(line_serves_deployments_without_end) {
    enum { MANY = 5000 };
    Ticket *first, *t;
    Fix f = fix("line_first", 4);
    CHECK_INT(join(&f, &first), LINE_GO);
    for (int i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "line_of_%d", i);
        Fix g = { .loop = f.loop, .d = f.d };
        g.replica = (Replica){ .id = str_z(name), .ready = true }, g.d.id = str_z(name);
        CHECK_INT(join(&g, &t), LINE_GO);
        CHECK_STR(ticket_replica(t), name);
        line_done(t, 1);
    }
    CHECK_STR(ticket_replica(first), "line_first"); // one in use stays
    line_done(first, 1);
    loop_free(f.loop);
}
