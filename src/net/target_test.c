// SPDX-License-Identifier: Apache-2.0
// target_test.c - targets taken apart, routes found, queries read.
#include "base/test.h"
#include "net/router.h"
#include "net/target.h"

TEST(net_targets) {
    static const struct {
        const char *target, *path, *query;
        size_t segments; // 0: refused
    } rows[] = {
        { "/", "/", "", 1 },
        { "/a/b", "/a/b", "", 2 },
        { "/a/b/", "/a/b/", "", 3 },
        { "//a", "//a", "", 2 },
        { "/a?x=1?&y#", "", "", 0 },
        { "/a?x=1?/../&y", "/a", "x=1?/../&y", 1 },
        { "/?", "/", "", 1 },
        { "/%41%2f%2F%25", "/A%2F%2F%", "", 1 },
        { "/a/./b", "/a/b", "", 2 },
        { "/a/.", "/a/", "", 2 },
        { "/a/..", "/", "", 1 },
        { "/a/../", "/", "", 1 },
        { "/a/b/../c", "/a/c", "", 2 },
        { "/a/b/../../c", "/c", "", 1 },
        { "/a/%2e%2E/c", "/c", "", 1 },
        { "/a/.%2e/c", "/c", "", 1 },
        { "/...", "/...", "", 1 },
        { "/..a/b..", "/..a/b..", "", 2 },
        { "/..", "", "", 0 },
        { "/a/../..", "", "", 0 },
        { "/%2e%2e", "", "", 0 },
        { "/a/..%2fb", "", "", 0 },
        { "/a%2f..", "", "", 0 },
        { "/a%2f.%2fb", "", "", 0 },
        { "/a%2f%2e%2e%2fb", "", "", 0 },
        { "/%00", "", "", 0 },
        { "/%", "", "", 0 },
        { "/%4", "", "", 0 },
        { "/%4g", "", "", 0 },
        { "/%c3%a9", "/\xc3\xa9", "", 1 },
        { "/%c3", "", "", 0 },
        { "/%ed%a0%80", "", "", 0 },
        { "http://h", "/", "", 1 },
        { "HTTPS://h:1/a?b", "/a", "b", 1 },
        { "http://h?b", "/", "b", 1 },
        { "http:///a", "", "", 0 },
        { "ftp://h/a", "", "", 0 },
        { "a/b", "", "", 0 },
        { "", "", "", 0 },
        { "/a b", "", "", 0 },
        { "/a\tb", "", "", 0 },
        { "/\x7f", "", "", 0 },
        { "/\x80", "", "", 0 },
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(rows); i++) {
        Target t;
        const char *why = target_parse(c->mem, str_z(rows[i].target), &t);
        if (!why != (rows[i].segments > 0))
            test_failed(__FILE__, __LINE__, "%s: %s", rows[i].target, why ? why : "accepted");
        if (why || !rows[i].segments) continue;
        CHECK_STR(t.path, rows[i].path);
        CHECK_STR(t.query, rows[i].query);
        CHECK_INT(t.segments_n, rows[i].segments);
    }
    Target t;
    CHECK(!target_parse(c->mem, S("*"), &t));
    CHECK_INT(t.segments_n, 0); // no route
}

TEST(net_target_segments_have_a_limit) {
    Ctx *c = test_ctx();
    for (size_t n = 62; n < 67; n++) {
        Buf b;
        Target t;
        buf_init(&b, 1000);
        for (size_t i = 0; i < n; i++) buf_add(&b, S("/a"));
        CHECK_INT(target_parse(c->mem, buf_str(&b), &t) == NULL, n <= TARGET_SEGMENTS_MAX);
        buf_done(&b);
    }
}

TEST(net_tokens) {
    for (int i = 0; i < 256; i++) {
        char ch = (char)i;
        bool want = i > 32 && i < 127 && !strchr("\"(),/:;<=>?@[\\]{}", i);
        CHECK_INT(http_is_token(str_n(&ch, 1)), want);
    }
    CHECK(!http_is_token(S("")) && http_is_token(S("X-a")) && !http_is_token(S("a b")));
}

TEST(net_queries) {
    Ctx *c = test_ctx();
    HttpRequest r = { .query = S("a=1&b=%41+%2B&a=2&&c&=d&e=%zz%4&f=%ff%c3%a9&%61=3&g=x=y") };
    size_t n;
    CHECK_STR(http_query(c->mem, &r, "a", &n), "1");
    CHECK_INT(n, 3);
    CHECK_STR(http_query(c->mem, &r, "b", NULL), "A +");
    CHECK_STR(http_query(c->mem, &r, "c", &n), "");
    CHECK_INT(n, 1);
    CHECK_STR(http_query(c->mem, &r, "", NULL), "d");
    CHECK_STR(http_query(c->mem, &r, "e", NULL), "%zz%4");
    CHECK_STR(http_query(c->mem, &r, "f", NULL), "\xef\xbf\xbd\xc3\xa9");
    CHECK_STR(http_query(c->mem, &r, "g", NULL), "x=y");
    CHECK(!http_query(c->mem, &r, "z", &n).p && n == 0);
    str rest = S(""), name, value;
    CHECK(!http_query_next(c->mem, &rest, &name, &value));
}

// ---- routes

static void stream(Exchange *x, const NetRoute *route) { (void)x, (void)route; }
static err serve(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                 HttpReply *out) {
    (void)c, (void)route, (void)r, (void)body, (void)out;
    return ERR_OK;
}
#define ROW(m, p) \
    { .method = HTTP_##m, .pattern = p, .stream = stream }

static const char *find(Ctx *c, const Router *router, const char *method, const char *path,
                        unsigned *out_allowed) {
    static HttpRequest r;
    Target t;
    for (r.method = HTTP_GET; strcmp(http_method_name(r.method), method) != 0;) r.method++;
    if (target_parse(c->mem, str_z(path), &t)) return "bad";
    const NetRoute *row = router_find(router, c->mem, &t, &r, out_allowed);
    str text = row ? str_z(row->pattern) : S("none");
    for (size_t i = 0; i < r.params_n && row; i++)
        text = arena_printf(c->mem, STR_FMT " " STR_FMT, STR_ARG(text), STR_ARG(r.params[i]));
    return arena_z(c->mem, text);
}

TEST(net_router_precedence) {
    static const NetRoute rows[] = {
        ROW(GET, "/"),          ROW(GET, "/a"),           ROW(POST, "/a"),
        ROW(GET, "/a/b"),       ROW(GET, "/a/{x}"),       ROW(DELETE, "/a/{x}"),
        ROW(GET, "/a/{x}/c"),   ROW(GET, "/a/b/{rest*}"), ROW(GET, "/a/{x}/{y}/d"),
        ROW(PUT, "/a/{rest*}"), ROW(GET, "/z/{r*}"),      ROW(HEAD, "/z/own"),
        ROW(GET, "/z/own"),
    };
    const NetRoute *list[countof(rows)];
    for (size_t i = 0; i < countof(rows); i++) list[i] = &rows[i];
    static const struct {
        const char *method, *path, *found;
    } asks[] = {
        { "GET", "/", "/" },
        { "GET", "/a", "/a" },
        { "GET", "/a/", "none" },
        { "GET", "/a/b", "/a/b" },
        { "DELETE", "/a/b", "/a/{x} b" },
        { "GET", "/a/q", "/a/{x} q" },
        { "GET", "/a/b/c", "/a/b/{rest*} c" },
        { "GET", "/a/b/c/d", "/a/b/{rest*} c/d" },
        { "GET", "/a/q/c", "/a/{x}/c q" },
        { "GET", "/a/q/w/d", "/a/{x}/{y}/d q w" },
        { "GET", "/a/q/w/e", "none" },
        { "PUT", "/a/q/w/e", "/a/{rest*} q/w/e" },
        { "PUT", "/a/b/c", "/a/{rest*} b/c" },
        { "GET", "/z", "none" },
        { "GET", "/z/", "none" },
        { "GET", "/z//q", "none" },
        { "GET", "/z/q//", "/z/{r*} q//" },
        { "HEAD", "/z/own", "/z/own" },
        { "HEAD", "/a/q", "/a/{x} q" },
        { "OPTIONS", "/a/q", "none" },
        { "GET", "/A", "none" },
        { "GET", "/aa", "none" },
    };
    Ctx *c = test_ctx();
    Router *router;
    unsigned allowed;
    CHECK_OK(c, router_new(c, list, countof(list), &router));
    for (size_t i = 0; i < countof(asks); i++)
        CHECK_STR(str_z(find(c, router, asks[i].method, asks[i].path, &allowed)), asks[i].found);
    find(c, router, "PATCH", "/a/b", &allowed);
    CHECK_INT(allowed, 1u << HTTP_GET | 1u << HTTP_HEAD | 1u << HTTP_DELETE | 1u << HTTP_PUT);
    find(c, router, "PATCH", "/none", &allowed);
    CHECK_INT(allowed, 0);
    router_free(router);
}

TEST(net_router_refuses_bad_rows) {
    static const NetRoute bad[] = {
        ROW(GET, ""),
        ROW(GET, "a"),
        ROW(GET, "/a/"),
        ROW(GET, "//a"),
        ROW(GET, "/{}"),
        ROW(GET, "/{a"),
        ROW(GET, "/a}"),
        ROW(GET, "/x{a}"),
        ROW(GET, "/{a}x"),
        ROW(GET, "/{*}"),
        ROW(GET, "/{a*}/b"),
        ROW(GET, "/{a b}"),
        ROW(GET, "/{a}/{b}/{c}/{d}/{e}/{f}/{g}"),
        { HTTP_GET, "/a", 0, 0, NULL, NULL, NULL },
        { HTTP_GET, "/a", 0, 0, serve, stream, NULL },
        { HTTP_GET, "/a", -1, 0, NULL, stream, NULL },
    };
    static const NetRoute clash[][2] = { { ROW(GET, "/a"), ROW(GET, "/a") },
                                         { ROW(GET, "/{a}"), ROW(GET, "/{b}") },
                                         { ROW(GET, "/{a*}"), ROW(GET, "/{b*}") } };
    Ctx *c = test_ctx();
    Router *router;
    for (size_t i = 0; i < countof(bad); i++) {
        const NetRoute *one = &bad[i];
        CHECK_ERR(router_new(c, &one, 1, &router), ERR_INVALID);
        CHECK_STR(str_z(c->failure.why->slug), "bad_route");
    }
    for (size_t i = 0; i < countof(clash); i++) {
        const NetRoute *two[] = { &clash[i][0], &clash[i][1] };
        CHECK_ERR(router_new(c, two, 2, &router), ERR_INVALID);
    }
}

// A thousand rows: each is found, and only it.
TEST(net_router_finds_each_of_many) {
    enum { ROWS = 1000 };
    Ctx *c = test_ctx();
    NetRoute *rows = new (c->mem, NetRoute, ROWS);
    const NetRoute **list = new (c->mem, const NetRoute *, ROWS);
    for (int i = 0; i < ROWS; i++) {
        rows[i] = (NetRoute)ROW(GET, NULL);
        rows[i].method = (HttpMethod)(i % HTTP_METHODS);
        rows[i].pattern = say(c, i % 3 ? "/v%d/n%d/{id}" : "/v%d/n%d", i % 17, i / HTTP_METHODS);
        list[i] = &rows[i];
    }
    Router *router;
    unsigned allowed;
    CHECK_OK(c, router_new(c, list, ROWS, &router));
    for (int i = 0; i < ROWS; i++) {
        const char *path = say(c, i % 3 ? "/v%d/n%d/77" : "/v%d/n%d", i % 17, i / HTTP_METHODS);
        const char *found = find(c, router, http_method_name(rows[i].method), path, &allowed);
        CHECK(str_starts(str_z(found), str_z(rows[i].pattern)));
    }
    router_free(router);
}
