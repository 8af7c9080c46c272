// SPDX-License-Identifier: Apache-2.0
// list_test.c - lists against a plain loop over the same rows: every filter and order, pages of any
// size that neither skip nor repeat, cursors bound to their list, slices,
// search.
#include "res/toy_test.h"

enum { TOYS = 40 };

// Some unset, many equal: that is where pages go wrong.
static bool fill(ToyFix *f) {
    for (int i = 0; i < TOYS; i++) {
        Toy *t = toy_new(f, say(f->c, "n%02d", (i * 17) % TOYS));
        t->count = 1 + i % 3;
        if (i % 4) t->due = 1000 * (1 + i % 5);
        if (i % 3) t->cost = i % 7;
        if (i % 5) t->ratio = (double)(i % 6) / 4;
        if (i % 2) t->colour = i % 3;
        t->on = i % 2;
        if (i % 6) t->title = str_z(say(f->c, "T%d %s", i % 4, i % 8 ? "x" : "50%_y"));
        if (toy_create(f, &toy, t)) return false;
    }
    toy_enter(f, "o1", "p2"); // and some of another project
    for (int i = 0; i < 5; i++)
        if (toy_create(f, &toy, toy_new(f, say(f->c, "other%d", i)))) return false;
    toy_enter(f, "o1", "p1");
    return true;
}

static err all_rows(ToyFix *f, const Toy **out, size_t *n) {
    ListSpec spec = { .limit = LIST_MAX };
    void *rows;
    str next;
    TRY(toy_list(f, &toy, &spec, &rows, n, &next));
    *out = rows;
    return ERR_OK;
}

// ---- pages

// Walks all pages of a size; each row once, in order; says how many there were.
static size_t walk(ToyFix *f, ListSpec *spec, size_t size, const Toy *all, size_t all_n) {
    size_t seen = 0, n;
    bool met[TOYS] = { false };
    str next = { 0 };
    do {
        void *rows;
        spec->limit = size, spec->cursor = next;
        if (toy_list(f, &toy, spec, &rows, &n, &next)) return 0;
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < all_n; k++) {
                if (!str_eq(all[k].head.id, ((Toy *)rows)[i].head.id)) continue;
                if (met[k]) return 0; // twice
                met[k] = true, seen++;
            }
    } while (next.n);
    return seen;
}

TOY_TEST(list_pages_hold_every_row_once) {
    static const char *const sorts[] = { NULL,   "name",  "title", "count",  "due",
                                         "cost", "ratio", "on",    "colour", "created_at" };
    static const size_t sizes[] = { 1, 2, 7, 39, 40, 1000 };
    const Toy *all;
    size_t n;
    CHECK(fill(f));
    CHECK_OK(f->c, all_rows(f, &all, &n));
    CHECK_INT(n, TOYS);
    for (size_t s = 0; s < countof(sorts); s++)
        for (size_t k = 0; k < countof(sizes); k++)
            for (int down = 0; down < 2; down++) {
                ListSpec spec = { .descending = down };
                if (sorts[s]) spec.sort = field_find(table_of(&toy)->rows, str_z(sorts[s]));
                size_t seen = walk(f, &spec, sizes[k], all, n);
                if (seen != TOYS)
                    TEST_FAIL_("by %s, %zu a page: %zu", sorts[s] ? sorts[s] : "id", sizes[k],
                               seen);
            }
}

TOY_TEST(list_order_is_the_fields) {
    ListSpec spec = { .sort = field_find(table_of(&toy)->rows, S("count")), .descending = true };
    void *rows;
    size_t n;
    str next;
    CHECK(fill(f));
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
    CHECK_INT(n, TOYS);
    const Toy *t = rows;
    for (size_t i = 1; i < n; i++) {
        CHECK(t[i - 1].count >= t[i].count);
        if (t[i - 1].count == t[i].count) CHECK(str_cmp(t[i - 1].head.id, t[i].head.id) > 0);
    }
    spec = (ListSpec){ .sort = field_find(table_of(&toy)->rows, S("name")) };
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
    t = rows;
    for (size_t i = 1; i < n; i++) CHECK(str_cmp(t[i - 1].head.name, t[i].head.name) < 0);
}

// ---- filters

static bool holds(const Toy *t, FilterOp op, int64_t with) {
    switch (op) {
    case OP_EQ: return t->count == with;
    case OP_NE: return t->count != with;
    case OP_LT: return t->count < with;
    case OP_LE: return t->count <= with;
    case OP_GT: return t->count > with;
    case OP_GE: return t->count >= with;
    default: return false;
    }
}

TOY_TEST(list_filters_as_a_loop_does) {
    const Toy *all;
    size_t n, got;
    void *rows;
    str next;
    CHECK(fill(f));
    CHECK_OK(f->c, all_rows(f, &all, &n));
    for (FilterOp op = OP_EQ; op <= OP_GE; op++)
        for (int64_t with = 1; with <= 4; with++) {
            ListSpec spec = { .limit = LIST_MAX };
            size_t want = 0;
            for (size_t i = 0; i < n; i++) want += holds(&all[i], op, with);
            str text = str_z(say(f->c, "%lld", (long long)with));
            CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "count", op, text));
            CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &got, &next));
            CHECK_INT(got, want);
        }
}

static size_t matches(ToyFix *f, const char *field, FilterOp op, const char *value) {
    ListSpec spec = { .limit = LIST_MAX };
    void *rows;
    size_t n = 9999;
    str next;
    if (list_filter(f->c, &toy, &spec, field, op, str_z(value))) return 9998;
    if (toy_list(f, &toy, &spec, &rows, &n, &next)) return 9999;
    return n;
}

TOY_TEST(list_filters_every_type) {
    CHECK(fill(f));
    CHECK_INT(matches(f, "name", OP_EQ, "n05"), 1);
    CHECK_INT(matches(f, "name", OP_IN, "n05, n06,nothing"), 2);
    CHECK_INT(matches(f, "name", OP_EQ, "other1"), 0); // another project's
    CHECK_INT(matches(f, "on", OP_EQ, "true"), TOYS / 2);
    CHECK_INT(matches(f, "colour", OP_IN, "red,green,blue"), TOYS / 2);
    CHECK_INT(matches(f, "ratio", OP_EQ, "0.25"), matches(f, "ratio", OP_IN, "0.25"));
    CHECK(matches(f, "ratio", OP_GE, "0.25") < TOYS);
    CHECK_INT(matches(f, "cost", OP_EQ, "0.000000001"), matches(f, "cost", OP_IN, "0.000000001"));
    CHECK_INT(matches(f, "due", OP_GT, "1970-01-01T00:00:00Z"), TOYS - TOYS / 4);
    CHECK_INT(matches(f, "due", OP_EQ, "1970-01-01T00:00:01Z"), 6);
    CHECK_INT(matches(f, "count", OP_EQ, "x"), 9998);
    CHECK(!strcmp(toy_reason(f), "field_type"));
    CHECK_INT(matches(f, "colour", OP_EQ, "pink"), 9998);
    CHECK_INT(matches(f, "shelf", OP_EQ, "a"), 9998); // not indexed
    CHECK(!strcmp(toy_reason(f), "bad_filter"));
    CHECK_INT(matches(f, "hash", OP_EQ, "a"), 9998); // hidden: nobody may guess it bit by bit
    CHECK_INT(matches(f, "size", OP_EQ, "{}"), 9998);
    CHECK_INT(matches(f, "count", OP_IN, "1,2,x"), 9999);
    CHECK_INT(matches(f, "name", OP_IN, say(f->c, "%0200d", 0)), 0);
}

TOY_TEST(list_takes_so_many_filters_and_no_more) {
    ListSpec spec = { 0 };
    void *rows;
    size_t n;
    str next, many = { 0 };
    Buf b;
    buf_init(&b, 1000);
    for (int i = 0; i < 51; i++) buf_printf(&b, "%s%d", i ? "," : "", 1 + i % 9);
    many = arena_str(f->c->mem, buf_str(&b));
    buf_done(&b);
    for (int i = 0; i < FILTERS_MAX; i++)
        CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "count", OP_GE, S("1")));
    CHECK_ERR(list_filter(f->c, &toy, &spec, "count", OP_GE, S("1")), ERR_INVALID);
    CHECK(!strcmp(toy_reason(f), "field_length"));
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
    spec = (ListSpec){ 0 };
    CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "count", OP_IN, many));
    CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &next), ERR_INVALID);
    spec = (ListSpec){ 0 }; // sixteen of fifty values each
    str fifty = str_sub(many, 0, many.n - 2);
    for (int i = 0; i < FILTERS_MAX; i++)
        CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "count", OP_IN, fifty));
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
}

// ---- cursors

TOY_TEST(list_cursors_belong_to_their_list) {
    ListSpec spec = { .limit = 3 };
    void *rows;
    size_t n;
    str next, other;
    CHECK(fill(f));
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
    CHECK(next.n > 0);
    spec.cursor = next;
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &other));
    spec.descending = true;
    CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &other), ERR_INVALID);
    CHECK(!strcmp(toy_reason(f), "bad_cursor"));
    spec.descending = false, spec.sort = field_find(table_of(&toy)->rows, S("count"));
    CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &other), ERR_INVALID);
    spec.sort = NULL;
    CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "count", OP_GE, S("1")));
    CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &other), ERR_INVALID);
    spec.filters_n = 0, spec.search = S("a");
    CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &other), ERR_INVALID);
    spec.search = (str){ 0 };
    toy_enter(f, "o1", "p2");
    CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &other), ERR_INVALID);
    toy_enter(f, "o1", "p1");
    CHECK_ERR(toy_list(f, &toy_box, &spec, &rows, &n, &other), ERR_INVALID);
}

TOY_TEST(list_cursors_that_were_changed_are_refused) {
    ListSpec spec = { .limit = 3, .sort = field_find(table_of(&toy)->rows, S("count")) };
    void *rows;
    size_t n;
    str next, other;
    CHECK(fill(f));
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
    static const char *const bad[] = { "x", "zz", "+1", "00", "7b7d", "5b5d", "226122" };
    for (size_t i = 0; i < countof(bad); i++) {
        spec.cursor = str_z(bad[i]);
        CHECK_ERR(toy_list(f, &toy, &spec, &rows, &n, &other), ERR_INVALID);
    }
    for (size_t i = 0; i < next.n; i++) { // any digit: refused, or a page; never a fault
        char *p = arena_str(f->c->mem, next).n ? new(f->c->mem, char, next.n + 1) : NULL;
        memcpy(p, next.p, next.n), p[i] = p[i] == '9' ? 'a' : '9';
        spec.cursor = str_n(p, next.n);
        err e = toy_list(f, &toy, &spec, &rows, &n, &other);
        CHECK(e == ERR_OK || e == ERR_INVALID);
    }
}

TOY_TEST(list_pages_hold_while_rows_come_and_go) {
    ListSpec spec = { .limit = 10 };
    void *rows;
    size_t n;
    str next;
    CHECK(fill(f));
    CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
    const Toy *page = rows;
    const char *gone = say_str(f->c, page[9].head.id); // the row that the cursor stands on
    CHECK_OK(f->c, toy_delete(f, &toy, gone));
    CHECK_OK(f->c, toy_create(f, &toy, toy_new(f, "late")));
    size_t seen = n;
    while (next.n) {
        spec.cursor = next;
        CHECK_OK(f->c, toy_list(f, &toy, &spec, &rows, &n, &next));
        seen += n;
    }
    CHECK_INT(seen, TOYS + 1); // the deleted one was seen before it went, the new one at the end
}

// ---- search

static size_t found(ToyFix *f, const char *text) {
    ListSpec spec = { .limit = LIST_MAX, .search = str_z(text) };
    void *rows;
    size_t n;
    str next;
    return toy_list(f, &toy, &spec, &rows, &n, &next) ? 9999 : n;
}

// ---- slices
// All of a list, page by page: ids one after the other. "": it went wrong.
static str sequence(ToyFix *f, ListSpec spec, size_t size, size_t slice, size_t *out_pages) {
    Buf ids;
    buf_init(&ids, 65536);
    str next = { 0 };
    spec.limit = size, spec.slice = slice;
    *out_pages = 0;
    do {
        void *rows;
        size_t n;
        spec.cursor = next;
        if (toy_list(f, &toy, &spec, &rows, &n, &next) || n > size || ++*out_pages > TOYS + 1) {
            buf_clear(&ids);
            break;
        }
        for (size_t i = 0; i < n; i++) buf_add(&ids, ((Toy *)rows)[i].head.id);
    } while (next.n);
    str s = arena_str(f->c->mem, buf_str(&ids));
    buf_done(&ids);
    return s;
}

static bool same_in_slices(ToyFix *f, const ListSpec *spec) {
    static const struct {
        size_t size, slice;
    } ways[] = { { 50, 7 }, { 50, 2 }, { 3, 7 }, { 3, 40 }, { 50, 41 } };
    size_t pages;
    str want = sequence(f, *spec, LIST_MAX, 0, &pages);
    for (size_t i = 0; i < countof(ways); i++) {
        str got = sequence(f, *spec, ways[i].size, ways[i].slice, &pages);
        if (!str_eq(got, want)) return false;
        if (!i && want.n && pages != 6) return false;
    }
    return want.n > 0;
}

// A page looks at no more rows than its slice has, and the pages together are the list.
TOY_TEST(list_slices_are_the_list) {
    static const char *const sorts[] = { NULL, "name", "title", "due", "cost" };
    CHECK(fill(f));
    for (size_t i = 0; i < countof(sorts); i++) {
        ListSpec spec = { .descending = i & 1 };
        const char *sort = sorts[i];
        if (sort) spec.sort = field_find(table_of(&toy)->rows, str_z(sort));
        spec.search = S("x");
        CHECK(same_in_slices(f, &spec));
        spec.search = (str){ 0 };
        CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "count", OP_GE, S("2")));
        CHECK(same_in_slices(f, &spec));
        CHECK_OK(f->c, list_filter(f->c, &toy, &spec, "name", OP_NE, S("n05")));
        spec.search = S("n");
        CHECK(same_in_slices(f, &spec));
    }
}

TOY_TEST(list_search_takes_text_as_it_is) {
    CHECK(fill(f));
    CHECK_INT(found(f, "n05"), 1);
    CHECK_INT(found(f, "N05"), 1);
    CHECK_INT(found(f, "other"), 0);
    CHECK(found(f, "50%_") > 0 && found(f, "50%_") < 10);
    CHECK_INT(found(f, "50__"), 0); // no wildcards
    CHECK_INT(found(f, "%%"), 0);
    CHECK_INT(found(f, "\\"), 0);
    Toy *wide = toy_new(f, "wide");
    wide->title = S("\u00c9cole \u6a21\u578b");
    CHECK_OK(f->c, toy_create(f, &toy, wide));
    CHECK_INT(found(f, "\u00c9COLE"), 1); // ASCII letters without case, others as they are
    CHECK_INT(found(f, "\u00e9cole"), 0);
    CHECK_INT(found(f, "\u6a21"), 1);
    CHECK_INT(found(f, "' OR '1'='1"), 0);
    CHECK_INT(found(f, "\xff"), 9999);
    CHECK(!strcmp(toy_reason(f), "field_type"));
    CHECK_INT(found(f, say(f->c, "%0400d", 0)), 0);
    CHECK_INT(found(f, say(f->c, "%0401d", 0)), 9999);
    CHECK(!strcmp(toy_reason(f), "field_length"));
    ListSpec spec = { .search =
                          S("x") }; // a resource where nothing is searched by text but its name
    void *rows;
    size_t n;
    str next;
    CHECK_OK(f->c, toy_list(f, &toy_box, &spec, &rows, &n, &next));
    CHECK_INT(n, 0);
}
