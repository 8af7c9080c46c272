// SPDX-License-Identifier: Apache-2.0
// event_test.c - staged events are numbered once each, without gaps and in order, by several nodes,
// through faults of the database; old ones go; a number that is gone is said to be.
#include "res/event_test.h"
#include <stdio.h>

enum { STAGERS = 4, EACH = 60 };
typedef struct Stager {
    EventFix *f;
    int i;
    atomic_int committed;
} Stager;

static void stage_many(void *arg) {
    Stager *s = arg;
    char data[64];
    for (int k = 0; k < EACH; k++) {
        snprintf(data, sizeof data, "{\"i\":%d,\"k\":%d}", s->i, k);
        const char *kind = k % 7 == 3 ? NULL : "gadget.made"; // each seventh is rolled back
        if (!fix_stage(s->f, (size_t)s->i % 2, kind, "p1", data))
            atomic_fetch_add(&s->committed, 1);
    }
}

// Every event is one of ours, numbers have no gap, and each stager's come in its order.
static bool in_order(EventFix *f, const EventPage *p) {
    int64_t last[STAGERS] = { -1, -1, -1, -1 };
    for (size_t n = 0; n < p->n; n++) {
        yyjson_val *v;
        int64_t i, k;
        if (p->at[n].number != (int64_t)n + 1 || json_parse(f->c, p->at[n].data, &v)) return false;
        if (!json_get_i64(v, "i", &i) || !json_get_i64(v, "k", &k) || k <= last[i]) return false;
        last[i] = k;
    }
    return true;
}

EVENT_TEST(event_numbers_without_gaps, "event.poll=20ms") {
    CHECK(node_start(f, 0) && node_start(f, 1));
    Stager s[STAGERS] = { 0 };
    Thread t[STAGERS];
    for (int i = 0; i < STAGERS; i++) {
        s[i].f = f;
        s[i].i = i;
        thread_start(f->c->os, "stage", stage_many, &s[i], &t[i]);
    }
    int total = 0;
    for (int i = 0; i < STAGERS; i++) {
        thread_join(t[i]);
        total += atomic_load(&s[i].committed);
    }
    CHECK_INT(total, STAGERS * (EACH - EACH / 7 - (EACH % 7 > 3)));
    CHECK(wait_numbered(f, total));
    EventPage p;
    CHECK_OK(f->c, fix_read(f, 0, 1000, &p));
    CHECK_INT(p.n, total);
    CHECK_INT(p.newest, total);
    CHECK(in_order(f, &p));
}

EVENT_TEST(event_survives_faults, "event.poll=20ms") {
    db_faults(f->db, &(DbFaults){ .again = 200000, .away = 100000, .unknown = 100000 });
    // event_start reads, which may fail too: as often as it takes
    for (int i = 0; i < 50 && !f->nodes[0].runs; i++)
        if (!node_start(f, 0)) node_stop(f, 0);
    CHECK(f->nodes[0].runs);
    int committed = 0, unknown = 0;
    for (int k = 0; k < 200; k++) {
        err e = fix_stage(f, 0, "gadget.made", "p1", "{}");
        committed += e == ERR_OK;
        unknown += e != ERR_OK;
    }
    CHECK(committed > 100);
    node_stop(f, 0); // faults change while nobody else is there
    db_faults(f->db, &(DbFaults){ 0 });
    CHECK(node_start(f, 0));
    CHECK(wait_numbered(f, committed));
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.last", "p1", "{}"));
    EventPage p = { 0 };
    for (size_t i = 0; i < 100000 && (!p.n || !str_is(p.at[p.n - 1].kind, "gadget.last")); i++)
        CHECK_OK(f->c, fix_read(f, 0, 1000, &p));
    CHECK(p.n > (size_t)committed && p.n <= (size_t)(committed + unknown) + 1);
    for (size_t i = 0; i < p.n; i++) CHECK_INT(p.at[i].number, i + 1);
}

EVENT_TEST(event_goes_on_where_it_stopped, "event.poll=20ms") {
    CHECK(node_start(f, 0));
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}"));
    CHECK(wait_numbered(f, 1));
    node_stop(f, 0);
    CHECK_OK(f->c, fix_stage(f, 0, "gadget.made", "p1", "{}")); // nobody numbers it
    CHECK(node_start(f, 0));
    CHECK(wait_numbered(f, 2));
    // The other node takes over at once when the holder stops: the lease was dropped.
    CHECK(node_start(f, 1));
    node_stop(f, 0);
    CHECK_OK(f->c, fix_stage(f, 1, "gadget.made", "p1", "{}"));
    CHECK(wait_numbered(f, 3));
}

static err stage_each(Ctx *c, Tx *tx, void *arg) {
    for (int i = 0; i < *(int *)arg; i++)
        TRY(event_stage(c, tx, "gadget.made", S("o1"), S("p1"), S("gadget_1"), S("{}")));
    return ERR_OK;
}

EVENT_TEST(event_keeps_so_many, "event.retain_rows=100", "event.poll=1h") {
    int many = 700;
    CHECK_OK(f->c, db_tx(f->c, f->db, stage_each, &many));
    CHECK(node_start(f, 0));
    EventPage p = { 0 };
    for (size_t i = 0; i < 1000000 && (p.newest < many || p.oldest != many - 99); i++)
        CHECK_OK(f->c, fix_read(f, 0, 0, &p));
    CHECK_INT(p.oldest, many - 99);
    CHECK_OK(f->c, fix_read(f, 600, 1000, &p));
    CHECK(!p.expired);
    CHECK_INT(p.n, 100);
    CHECK_OK(f->c, fix_read(f, 599, 1000, &p));
    CHECK(p.expired);
    CHECK_OK(f->c, fix_read(f, 700, 10, &p));
    CHECK(!p.expired && !p.n);
    CHECK_OK(f->c, fix_read(f, 701, 10, &p));
    CHECK(p.expired && !p.n);
}

static err age(Ctx *c, Tx *tx, void *arg) {
    static SQL(outbox_age, "UPDATE outbox SET at_ms = at_ms - 7200000 WHERE id <= 5");
    (void)arg;
    return db_run(c, tx, &outbox_age);
}

EVENT_TEST(event_keeps_so_long, "event.retain=1h", "event.poll=1h") {
    int many = 8;
    CHECK_OK(f->c, db_tx(f->c, f->db, stage_each, &many));
    CHECK_OK(f->c, db_tx(f->c, f->db, age, NULL));
    CHECK(node_start(f, 0));
    EventPage p = { 0 };
    for (size_t i = 0; i < 1000000 && (p.newest < many || p.oldest != 6); i++)
        CHECK_OK(f->c, fix_read(f, 0, 0, &p));
    CHECK_INT(p.oldest, 6);
    CHECK_INT(p.newest, 8);
}

static err stage_large(Ctx *c, Tx *tx, void *arg) {
    Event e = { .kind = S("gadget.made"), .data = *(str *)arg };
    return event_put(c, tx, &e);
}

EVENT_TEST(event_data_has_a_limit) {
    Buf b;
    buf_init(&b, EVENT_DATA_MAX + 10);
    buf_add(&b, S("{\"a\":\""));
    buf_add_repeat(&b, 'x', EVENT_DATA_MAX - b.n - 2);
    buf_add(&b, S("\"}"));
    str data = buf_str(&b);
    CHECK_INT(data.n, EVENT_DATA_MAX);
    CHECK_OK(f->c, db_tx(f->c, f->db, stage_large, &data));
    buf_add_char(&b, ' ');
    data = buf_str(&b);
    CHECK_ERR(db_tx(f->c, f->db, stage_large, &data), ERR_INVALID);
    CHECK_STR(str_z(f->c->failure.why->slug), "too_long");
    buf_done(&b);
}
