// SPDX-License-Identifier: Apache-2.0
// event_stream_test.c - readers over HTTP: woken at once, resumed, told what is gone, shown only
// what they may see, never losing a number however slow, sent away with a reason.
#include "res/event_test.h"
#include <stdio.h>

static bool seen_is(const EventReader *r, size_t i, int64_t id, const char *kind) {
    return i < r->n && r->seen[i].id == id && !strcmp(r->seen[i].kind, kind);
}

// With an hour between polls, only the wake-up of the commit can bring it.
EVENT_TEST(stream_is_woken, "event.poll=1h") {
    CHECK(node_start(f, 0));
    EventReader *r = reader_open(f, 0, "admin", "/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 0, 1));
    for (int i = 0; i < 3; i++) CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{\"a\":1}"));
    CHECK(wait_seen(r, 3));
    for (int i = 0; i < 3; i++) CHECK(seen_is(r, (size_t)i, i + 1, "gadget.made"));
    yyjson_val *v;
    CHECK_OK(f->c, json_parse(f->c, str_z(r->seen[2].data), &v));
    int64_t n = 0, at = 0;
    CHECK(json_get_i64(v, "number", &n) && n == 3);
    CHECK(json_get_i64(json_get(v, "data"), "a", &at) && at == 1);
    CHECK_STR(json_get_str(v, "project"), "p1");
    CHECK_STR(json_get_str(v, "subject"), "gadget_1");
    reader_close(r);
    CHECK(wait_readers(f, 0, 0));
}

EVENT_TEST(stream_of_another_node, "event.poll=20ms") {
    CHECK(node_start(f, 0) && node_start(f, 1));
    EventReader *r = reader_open(f, 1, "admin", "/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 1, 1));
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    CHECK_OK(f->c, fix_stage(f, 1, "gadget.made", "p1", "{}"));
    CHECK(wait_seen(r, 2));
    CHECK(seen_is(r, 0, 1, "gadget.made") && seen_is(r, 1, 2, "gadget.made"));
    reader_close(r);
}

EVENT_TEST(stream_resumes, "event.poll=1h") {
    CHECK(node_start(f, 0));
    for (int i = 0; i < 150; i++) CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    CHECK(wait_numbered(f, 150));
    const struct {
        const char *target, *last;
        int64_t first;
    } cases[] = {
        { "/lathe/v1/events?follow=false", NULL, 1 },
        { "/lathe/v1/events?follow=false&after=0", NULL, 1 },
        { "/lathe/v1/events?follow=false&after=149", NULL, 150 },
        { "/lathe/v1/events?follow=false&after=5", "20", 21 },
    };
    for (size_t i = 0; i < countof(cases); i++) {
        EventReader *r = reader_open(f, 0, "admin", cases[i].target, cases[i].last);
        CHECK(wait_ended(r));
        CHECK_INT(r->n, 150 - cases[i].first + 2); // and "closed"
        for (size_t k = 0; k + 1 < r->n; k++)
            CHECK(seen_is(r, k, cases[i].first + (int64_t)k, "gadget.made"));
        CHECK_STR(str_z(r->seen[r->n - 1].data), "{\"reason\":\"end\",\"after\":150}");
        reader_close(r);
    }
    // And one that goes on living after it caught up.
    EventReader *r = reader_open(f, 0, "admin", "/lathe/v1/events?after=148", NULL);
    CHECK(wait_seen(r, 2));
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    CHECK(wait_seen(r, 3));
    CHECK(seen_is(r, 2, 151, "gadget.made"));
    reader_close(r);
}

typedef struct Burst {
    EventFix *f;
    int n;
} Burst;

static void stage_burst(void *arg) {
    const Burst *b = arg;
    for (int i = 0; i < b->n; i++)
        if (fix_stage(b->f, 0, "gadget.made", "p1", "{}")) return;
}

// Readers that come while events do miss none, also when the last of them comes while they read.
EVENT_TEST(stream_catches_up_while_more_comes, "event.poll=1h") {
    CHECK(node_start(f, 0));
    Burst b = { f, 6 };
    for (int round = 0; round < 5; round++) {
        Thread t;
        EventReader *r[6];
        thread_start(f->c->os, "burst", stage_burst, &b, &t);
        for (size_t i = 0; i < countof(r); i++)
            r[i] = reader_open(f, 0, "admin", "/lathe/v1/events?after=0", NULL);
        thread_join(t);
        size_t total = (size_t)(round + 1) * (size_t)b.n;
        for (size_t i = 0; i < countof(r); i++) {
            CHECK(wait_seen(r[i], total));
            for (size_t k = 0; k < total; k++) CHECK_INT(r[i]->seen[k].id, k + 1);
            reader_close(r[i]);
        }
    }
}

EVENT_TEST(stream_says_what_is_gone, "event.retain_rows=100", "event.poll=1h") {
    CHECK(node_start(f, 0));
    for (int i = 0; i < 120; i++) CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    CHECK(wait_numbered(f, 120));
    node_stop(f, 0);
    CHECK(node_start(f, 0)); // trims at its first turn
    EventPage p = { 0 };
    for (size_t i = 0; i < 1000000 && p.oldest != 21; i++) CHECK_OK(f->c, fix_read(f, 0, 0, &p));
    EventReader *r = reader_open(f, 0, "admin", "/lathe/v1/events?follow=false&after=7", NULL);
    CHECK(wait_ended(r));
    CHECK(seen_is(r, 0, 20, "expired"));
    CHECK_STR(str_z(r->seen[0].data), "{\"oldest\":21,\"newest\":120}");
    CHECK(seen_is(r, 1, 21, "gadget.made"));
    CHECK_INT(r->n, 102);
    reader_close(r);
    r = reader_open(f, 0, "admin", "/lathe/v1/events?follow=false&after=121", NULL);
    CHECK(wait_ended(r));
    CHECK(seen_is(r, 0, 120, "expired"));
    reader_close(r);
}

EVENT_TEST(stream_shows_what_one_may_see, "event.poll=1h") {
    CHECK(node_start(f, 0));
    static const struct {
        const char *kind, *project;
    } events[] = { { "gadget.made", "p1" },
                   { "gadget.made", "p2" },
                   { "gadget.gone", "p1" },
                   { "beat.minute", "p1" },
                   { "secret.made", "p1" } };
    for (size_t i = 0; i < countof(events); i++)
        CHECK_OK(f->c, fix_stage(f, 0, events[i].kind, events[i].project, "{}"));
    CHECK(wait_numbered(f, countof(events)));
    static const struct {
        const char *who, *query;
        int64_t ids[6];
    } cases[] = {
        { "admin", "", { 1, 2, 3, 4, 5 } },
        { "alice", "", { 1, 3 } },
        { "bob", "", { 2 } },
        { "cat", "", { 4 } },
        { "alice", "&kind=gadget.gone", { 3 } },
        { "admin", "&kind=gadget.*,%20beat.minute", { 1, 2, 3, 4 } },
        { "admin", "&subject=gadget_2", { 0 } },
        { "admin", "&subject=gadget_1", { 1, 2, 3, 4, 5 } },
    };
    for (size_t i = 0; i < countof(cases); i++) {
        str target = arena_printf(f->c->mem, "/lathe/v1/events?follow=false%s", cases[i].query);
        EventReader *r = reader_open(f, 0, cases[i].who, target.p, NULL);
        CHECK(wait_ended(r));
        size_t n = 0;
        while (cases[i].ids[n]) n++;
        if (r->n != n + 1) TEST_FAIL_("case %zu: %zu events, not %zu", i, r->n - 1, n);
        for (size_t k = 0; k < n; k++) CHECK_INT(r->seen[k].id, cases[i].ids[k]);
        reader_close(r);
    }
}

EVENT_TEST(stream_refuses, "event.readers=1") {
    CHECK(node_start(f, 0));
    static const struct {
        const char *who, *target;
        int status;
        const char *words;
    } cases[] = {
        { "nobody", "/lathe/v1/events", 401, "the key is gone" },
        { "dan", "/lathe/v1/events", 403, "events.read" },
        { "alice", "/lathe/v1/events?after=x", 400, "\"field\":\"after\"" },
        { "alice", "/lathe/v1/events?after=-1", 400, "\"field\":\"after\"" },
        { "alice", "/lathe/v1/events?aftr=1", 400, "\"nearest\":\"after\"" },
    };
    for (size_t i = 0; i < countof(cases); i++) {
        EventReader *r = reader_open(f, 0, cases[i].who, cases[i].target, NULL);
        CHECK(wait_ended(r));
        CHECK_INT(r->status, cases[i].status);
        if (str_find(r->body, str_z(cases[i].words)) < 0)
            TEST_FAIL_("case %zu says " STR_FMT, i, STR_ARG(r->body));
        reader_close(r);
    }
    EventReader *first = reader_open(f, 0, "alice", "/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 0, 1));
    EventReader *second = reader_open(f, 0, "alice", "/lathe/v1/events", NULL);
    CHECK(wait_ended(second));
    CHECK_INT(second->status, 503);
    reader_close(second);
    reader_close(first);
    CHECK(wait_readers(f, 0, 0));
    EventReader *third = reader_open(f, 0, "alice", "/lathe/v1/events", "y");
    CHECK(wait_ended(third));
    CHECK_INT(third->status, 400);
    reader_close(third);
}

// A project that opens stream after stream uses up its own share, and keeps nobody else out.
EVENT_TEST(stream_has_a_share_for_each, "event.readers=9", "event.readers_org=3",
           "event.readers_project=2") {
    static const struct {
        const char *who, *says; // NULL: it is let in
    } calls[] = {
        { "alice", NULL },
        { "cat", NULL },
        { "alice", "this project has its 2 readers" },
        { "cat", "event.readers_project" },
        { "bob", NULL },
        { "bob", "this organisation has its 3 readers" },
        { "alice", "event.readers_project" },
        { "admin", NULL },
        { "admin", NULL },
    };
    EventReader *in[countof(calls)];
    size_t n = 0;
    CHECK(node_start(f, 0));
    for (int round = 0; round < 2; round++) {
        for (size_t i = n = 0; i < countof(calls); i++) {
            EventReader *r = reader_open(f, 0, calls[i].who, "/lathe/v1/events", NULL);
            if (!calls[i].says) {
                in[n++] = r;
                CHECK(wait_readers(f, 0, n));
                continue;
            }
            CHECK(wait_ended(r));
            CHECK_INT(r->status, 503);
            if (str_find(r->body, str_z(calls[i].says)) < 0)
                TEST_FAIL_("call %zu says " STR_FMT, i, STR_ARG(r->body));
            reader_close(r);
        }
        while (n) reader_close(in[--n]);
        CHECK(wait_readers(f, 0, 0));
    }
}

EVENT_TEST(stream_ends_with_its_rights, "event.poll=1h") {
    CHECK(node_start(f, 0));
    EventReader *r = reader_open(f, 0, "alice", "/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 0, 1));
    atomic_store(&f->revoked, true);
    int64_t end = os_mono_ns(f->c->os) + 20000000000, staged = 0;
    while (atomic_load(&f->revoked) && os_mono_ns(f->c->os) < end) {
        CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
        staged++;
        pthread_mutex_lock(&r->lock);
        if (r->n && !strcmp(r->seen[r->n - 1].kind, "closed")) atomic_store(&f->revoked, false);
        pthread_mutex_unlock(&r->lock);
    }
    CHECK(wait_ended(r));
    CHECK(strstr(r->seen[r->n - 1].data, "\"reason\":\"denied\""));
    CHECK(r->n <= (size_t)staged);
    reader_close(r);
}

EVENT_TEST(stream_drains, "event.poll=1h") {
    CHECK(node_start(f, 0));
    EventReader *r[3];
    for (size_t i = 0; i < countof(r); i++)
        r[i] = reader_open(f, 0, "alice", "/p/p1/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 0, countof(r)));
    event_drain(&f->nodes[0].app);
    for (size_t i = 0; i < countof(r); i++) {
        CHECK(wait_ended(r[i]));
        CHECK_STR(str_z(r[i]->seen[0].data), "{\"reason\":\"stopping\",\"after\":0}");
        reader_close(r[i]);
    }
    EventReader *late = reader_open(f, 0, "alice", "/lathe/v1/events", NULL);
    CHECK(wait_ended(late));
    CHECK_INT(late->status, 503);
    reader_close(late);
}

EVENT_TEST(stream_is_cut_short_by_a_stop) {
    CHECK(node_start(f, 0));
    EventReader *r = reader_open(f, 0, "alice", "/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 0, 1));
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    node_stop(f, 0); // leaves nothing behind: the sanitizer looks
    CHECK(wait_ended(r));
    reader_close(r);
}

EVENT_TEST(stream_of_live_events, "event.poll=1h") {
    CHECK(node_start(f, 0));
    App *app = &f->nodes[0].app;
    event_live(app, "beat.minute", S("o1"), S("p1"), S(""), S("{}"));  // nobody is there
    event_live(&app, "beat.minute", S("o1"), S("p1"), S(""), S("{}")); // not a program at all
    EventReader *r = reader_open(f, 0, "cat", "/lathe/v1/events", NULL);
    EventReader *other = reader_open(f, 0, "alice", "/lathe/v1/events", NULL);
    CHECK(wait_readers(f, 0, 2));
    event_live(app, "beat.minute", S("o1"), S("p1"), S(""), S("{\"n\":1}"));
    event_live(app, "beat.minute", S("o1"), S("p2"), S(""), S("{\"n\":2}"));
    event_live(app, "beats.all", S("o1"), S("p1"), S(""), S("{\"n\":3}"));
    CHECK(wait_seen(r, 2));
    CHECK(seen_is(r, 0, 0, "beat.minute") && seen_is(r, 1, 0, "beats.all"));
    CHECK(strstr(r->seen[0].data, "\"number\":null"));
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    CHECK(wait_seen(other, 1));
    CHECK(seen_is(other, 0, 1, "gadget.made"));
    reader_close(r);
    reader_close(other);
}

static err stage_bulk(Ctx *c, Tx *tx, void *arg) {
    for (int i = 0; i < 100; i++)
        TRY(event_stage(c, tx, "gadget.made", S("o1"), S("p1"), S("gadget_1"), *(str *)arg));
    return ERR_OK;
}

// One that takes nothing for a while holds back neither the server nor the others, and gets every
// number when it goes on.
EVENT_TEST(stream_waits_for_the_slow, "event.poll=1h") {
    CHECK(node_start(f, 0));
    EventReader *slow = reader_open(f, 0, "admin", "/lathe/v1/events", NULL);
    EventReader *quick = reader_open(f, 0, "admin", "/lathe/v1/events?kind=gadget.last", NULL);
    CHECK(wait_readers(f, 0, 2));
    reader_hold(slow, true);
    Buf b;
    buf_init(&b, EVENT_DATA_MAX);
    buf_add(&b, S("{\"a\":\""));
    buf_add_repeat(&b, 'x', EVENT_DATA_MAX - 100);
    buf_add(&b, S("\"}"));
    str data = buf_str(&b);
    Ctx *c = app_ctx_new(&f->nodes[0].app);
    int64_t total = 1500; // 24 MiB: more than the sockets hold
    for (int i = 0; i < total / 100; i++) CHECK_OK(c, db_tx(c, f->db, stage_bulk, &data));
    app_ctx_free(c);
    buf_done(&b);
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.last", "p1", "{}"));
    CHECK(wait_seen(quick, 1));
    reader_hold(slow, false);
    CHECK(wait_seen(slow, (size_t)total + 1));
    for (int64_t i = 0; i < total; i++) CHECK_INT(slow->seen[i].id, i + 1);
    CHECK(seen_is(slow, (size_t)total, total + 1, "gadget.last"));
    reader_close(slow);
    reader_close(quick);
}
