// SPDX-License-Identifier: Apache-2.0
// list_fuzz.c - any bytes as the query of a list, against a real table of forty rows. The first
// byte chooses the pages' size. What is accepted gives the same rows in the same order, page by
// page by its cursors as in one; a cursor whose inside was changed is refused or stays within the
// table; exports say the same as pages.
// Options: -detect_leaks=0
// Covers: src/res/list.c src/res/crud_list.c
// Threads: one.
#include "fuzz.h"
#include "res/bind.h"
#include "res/toy_test.h"
#include <unistd.h>

enum { TOYS = 40, TEXT_MAX_BYTES = 4096 };
static ToyFix fix;

static void remove_database(void) {
    static const char *const names[] = { "/t.db", "/t.db-wal", "/t.db-shm", "" };
    db_close(fix.app.db);
    for (size_t i = 0; i < countof(names); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s%s", test_dir(), names[i]);
        if (*names[i] ? unlink(path) : rmdir(path)) continue;
    }
}

static void fill(ToyFix *f) { // and keeps it after toy_run
    for (int i = 0; i < TOYS; i++) {
        Toy *t = toy_new(f, say(f->c, "n%02d", (i * 17) % TOYS));
        t->count = 1 + i % 3;
        if (i % 4) t->due = 1000 * (1 + i % 5);
        if (i % 3) t->cost = i % 7;
        if (i % 5) t->ratio = (double)(i % 6) / 4;
        if (i % 2) t->colour = i % 3;
        t->on = i % 2;
        if (i % 6) t->title = str_z(say(f->c, "T%d %s", i % 4, i % 8 ? "x" : "50%_y"));
        err e = toy_create(f, &toy, t);
        assert(!e);
    }
    fix = *f;
    f->app.db = NULL;
    atexit(remove_database);
}

typedef struct Page {
    err e;
    str text, cursor;
    str ids[LIST_MAX];
    size_t n;
} Page;

static void read_ids(Ctx *c, Page *p) {
    yyjson_val *root, *row;
    size_t i, n;
    err e = json_parse(c, p->text, &root);
    assert(!e && yyjson_is_arr(json_get(root, "data")));
    yyjson_arr_foreach(json_get(root, "data"), i, n, row) p->ids[p->n++] = json_get_str(row, "id");
    p->cursor = json_get_str(root, "next_cursor");
}

static Page *ask(Ctx *c, str query) {
    const Binding b = { .kind = BIND_LIST, .table = table_of(&toy) };
    HttpRequest r = { .method = HTTP_GET, .query = query };
    HttpReply out = { 0 };
    Page *p = new (c->mem, Page, 1);
    bool more = true;
    c->failure = (Failure){ 0 };
    buf_init(&out.body, 4 << 20);
    p->e = crud_list(c, &b.net, &r, NULL, &out);
    if (p->e) fuzz_refused(c, p->e, ERR_INVALID);
    while (out.pull && more) {
        err e = out.pull(c, out.pull_arg, &out.body, &more);
        assert(!e);
    }
    bool pulled = out.pull != NULL;
    if (out.pull_done) out.pull_done(out.pull_arg);
    p->text = arena_str(c->mem, buf_str(&out.body));
    buf_done(&out.body);
    if (!p->e && !pulled) read_ids(c, p);
    return p;
}

static str lines_ids(Ctx *c, str text) { // of NDJSON
    Buf b;
    buf_init(&b, 1 << 20);
    for (str line; text.n && str_cut(&text, '\n', &line);) {
        yyjson_val *v;
        if (!line.n) continue;
        err e = json_parse(c, line, &v);
        assert(!e);
        buf_add(&b, json_get_str(v, "id"));
    }
    str out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return out;
}

static str changed_cursor(Ctx *c, str cursor, str id, str sort) {
    Buf json, hex;
    buf_init(&json, 1 << 16), buf_init(&hex, 1 << 17);
    for (size_t i = 0; i + 1 < cursor.n; i += 2) {
        char two[3] = { cursor.p[i], cursor.p[i + 1], 0 };
        buf_add_char(&json, (char)strtoul(two, NULL, 16));
    }
    yyjson_val *v;
    err e = json_parse(c, buf_str(&json), &v);
    assert(!e && json_get_str(v, "id").n);
    str list = json_get_str(v, "list");
    buf_clear(&json);
    Json j = json_to(&json);
    json_obj(&j);
    json_kv_str(&j, "list", list), json_kv_str(&j, "id", id), json_kv_str(&j, "sort", sort);
    json_end_obj(&j);
    buf_add_hex(&hex, json.p, json.n);
    str out = arena_str(c->mem, buf_str(&hex));
    buf_done(&json), buf_done(&hex);
    return out;
}

static str with(Ctx *c, str query, const char *format, size_t limit, str cursor) {
    return arena_printf(c->mem, STR_FMT "&format=%s&limit=%zu&cursor=" STR_FMT, STR_ARG(query),
                        format, limit, STR_ARG(cursor));
}

static void check_pages(Ctx *c, str query, size_t size, const Page *whole, str rest) {
    size_t seen = 0;
    str cursor = S(""), first = { 0 };
    do {
        Page *p = ask(c, with(c, query, "json", size, cursor));
        assert(!p->e && p->n <= size && seen + p->n <= whole->n);
        for (size_t i = 0; i < p->n; i++) assert(str_eq(p->ids[i], whole->ids[seen + i]));
        seen += p->n, cursor = p->cursor.n ? p->cursor : S("");
        if (!first.p) first = cursor;
    } while (cursor.n);
    assert(seen == whole->n);
    if (!first.n) return;
    str id = { 0 };
    str_cut(&rest, '\n', &id);
    Page *odd = ask(c, with(c, query, "json", 100, changed_cursor(c, first, id, rest)));
    assert(odd->e || odd->n <= whole->n);
}

FUZZ(list) {
    if (!fix.c) toy_run(DB_SQLITE, fill);
    size_t size = 10 + fuzz_choice(&bytes) % 60;
    str query = { 0 };
    if (bytes.n > TEXT_MAX_BYTES || !bytes.n) return;
    str_cut(&bytes, '\0', &query); // what follows goes into a cursor
    Ctx c;
    ctx_init(&c, arena_new(), fix.c->os);
    c.app = &fix.app, c.db = fix.app.db, c.who = fix.c->who, c.lang = "en";
    c.org = fix.c->org, c.project = fix.c->project;
    ask(&c, query);
    Page *whole = ask(&c, with(&c, query, "json", LIST_MAX, S("")));
    if (!whole->e) {
        assert(whole->n <= TOYS && !whole->cursor.n);
        check_pages(&c, query, size, whole, bytes);
        str want = lines_ids(&c, ask(&c, with(&c, query, "ndjson", 5, S("")))->text);
        Buf b;
        buf_init(&b, 1 << 20);
        for (size_t i = 0; i < whole->n; i++) buf_add(&b, whole->ids[i]);
        assert(str_eq(buf_str(&b), want));
        buf_done(&b);
        ask(&c, with(&c, query, "csv", 5, S("")));
    }
    arena_free(c.mem);
}
