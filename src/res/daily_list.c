// SPDX-License-Identifier: Apache-2.0
// daily_list.c - lists and gets of rows that are kept by day: each day's database answers as if it
// were alone, and the pages are put together. Threads: any.
#include "res/daily.h"
#include "base/id.h"
#include "base/time.h"

typedef struct Part {
    const Resource *r;
    const ListSpec *spec;
    ListPage page;
} Part;

static err list_tx(Ctx *c, Tx *tx, void *arg) {
    Part *p = arg;
    return res_list(c, tx, p->r, p->spec, &p->page);
}

static err day_read(Ctx *c, DailySet *s, int64_t day, err (*fn)(Ctx *, Tx *, void *), void *arg) {
    Db *db;
    TRY(daily_take(c, s, day, false, &db));
    err e = db_read(c, db, fn, arg);
    daily_give(s, db);
    return e;
}

// Days follow each other as ids do: what comes first is in the first days.
static bool enough(const ListSpec *spec, size_t got, const ListPage *last) {
    size_t limit = spec->limit ? spec->limit : LIST_DEFAULT;
    return !spec->sort && (got > limit || (got == limit && last->cursor.n));
}

err daily_list(Ctx *c, DailySet *s, const Resource *r, const ListSpec *spec, ListPage *out) {
    int64_t *days;
    size_t n, parts = 0, got = 0;
    TRY(daily_days(c, s, &days, &n));
    ListPage *pages = new (c->mem, ListPage, n + 1);
    Part p = { .r = r, .spec = spec };
    TRY(db_read(c, c->db, list_tx, &p));
    pages[parts++] = p.page;
    for (size_t i = 0; i < n; i++) {
        err e = day_read(c, s, days[spec->descending ? n - 1 - i : i], list_tx, &p);
        if (e == ERR_NOTFOUND) continue; // removed meanwhile
        TRY(e);
        pages[parts++] = p.page;
        got += p.page.n;
        if (enough(spec, got, &p.page)) break;
    }
    return res_list_merge(c, r, spec, pages, parts, out);
}

err daily_read(Ctx *c, DailySet *s, str id, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg) {
    int64_t ms = id_time_ms(id);
    err e = ms < 0 ? ERR_NOTFOUND : day_read(c, s, time_day(ms), fn, arg);
    return e == ERR_NOTFOUND ? db_read(c, c->db, fn, arg) : e;
}
