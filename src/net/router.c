// SPDX-License-Identifier: Apache-2.0
// router.c - a trie whose edges are segments: literal ones in an array sorted by length, then
// bytes, one for {x}, one for {x*}. A literal goes before {x}, {x} before {x*}; when a branch has
// no row for the method, the next one is tried. Owner and threads: see router.h.
#include "net/router.h"
#include "net/reason.h"
#include <assert.h>
#include <stdlib.h>

typedef struct Node {
    str segment; // the literal that leads here
    struct Node **children;
    size_t children_n;
    struct Node *any;
    const NetRoute *rows[HTTP_METHODS], *rest[HTTP_METHODS];
} Node;
struct Router {
    Node root;
};

typedef enum { SEGMENT_BAD, SEGMENT_LITERAL, SEGMENT_ANY, SEGMENT_REST } SegmentKind;

static SegmentKind segment_kind(str s) {
    bool open = str_find_char(s, '{') >= 0, shut = str_find_char(s, '}') >= 0;
    if (!open && !shut) return s.n && str_utf8(s) ? SEGMENT_LITERAL : SEGMENT_BAD;
    if (s.n < 3 || *s.p != '{' || s.p[s.n - 1] != '}') return SEGMENT_BAD;
    str name = str_sub(s, 1, s.n - 2);
    bool rest = str_ends(name, S("*"));
    if (rest) name.n--;
    if (!name.n || !http_is_token(name)) return SEGMENT_BAD;
    return rest ? SEGMENT_REST : SEGMENT_ANY;
}

static int segment_cmp(str a, str b) {
    if (a.n != b.n) return a.n < b.n ? -1 : 1;
    return memcmp(a.p, b.p, a.n);
}

// The child for a literal; NULL with *out_at where it would stand.
static Node *child_find(const Node *n, str segment, size_t *out_at) {
    size_t low = 0, high = n->children_n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = segment_cmp(n->children[mid]->segment, segment);
        if (!order) return n->children[mid];
        if (order < 0) low = mid + 1;
        else high = mid;
    }
    if (out_at) *out_at = low;
    return NULL;
}

static Node *child_make(Node *n, str segment) {
    size_t at = 0;
    Node *child = child_find(n, segment, &at);
    if (child) return child;
    child = mem_new(sizeof *child);
    child->segment = segment;
    n->children = mem_grow(n->children, n->children_n + 1, sizeof *n->children);
    memmove(n->children + at + 1, n->children + at, (n->children_n - at) * sizeof *n->children);
    n->children[at] = child;
    n->children_n++;
    return child;
}

static err bad(Ctx *c, const NetRoute *row, const char *why) {
    const char *route = say(c, "%s %s", http_method_name(row->method), row->pattern);
    return fail(c, ERR_INVALID, R_BAD_ROUTE, "route", route, "why", why);
}

static err row_add(Ctx *c, Router *r, const NetRoute *row) {
    str pattern = str_z(row->pattern), segment;
    if (!pattern.n || *pattern.p != '/') return bad(c, row, "it does not start with '/'");
    if (!row->serve == !row->stream) return bad(c, row, "it needs one of serve and stream");
    if (row->body_max < 0 || row->timeout_ms < 0) return bad(c, row, "a limit is negative");
    str rest = str_sub(pattern, 1, pattern.n);
    Node *n = &r->root;
    const NetRoute **rows = NULL;
    size_t params = 0, depth = 0;
    while (str_cut(&rest, '/', &segment)) {
        bool root = pattern.n == 1;
        SegmentKind kind = root ? SEGMENT_LITERAL : segment_kind(segment);
        if (kind == SEGMENT_BAD) return bad(c, row, "a segment is empty or not {name}");
        if (++depth > TARGET_SEGMENTS_MAX) return bad(c, row, "it has too many segments");
        if (kind != SEGMENT_LITERAL && ++params > HTTP_PARAMS_MAX)
            return bad(c, row, "it has too many parameters");
        if (kind == SEGMENT_REST && rest.p) return bad(c, row, "{name*} is not its end");
        if (kind == SEGMENT_LITERAL) n = child_make(n, segment);
        else if (kind == SEGMENT_ANY) n = n->any = n->any ? n->any : mem_new(sizeof *n);
        rows = kind == SEGMENT_REST ? n->rest : n->rows;
    }
    assert(rows && (unsigned)row->method < HTTP_METHODS);
    if (rows[row->method])
        return bad(c, row, say(c, "it clashes with %s", rows[row->method]->pattern));
    rows[row->method] = row;
    return ERR_OK;
}

err router_new(Ctx *c, const NetRoute *const rows[], size_t n, Router **out) {
    Router *r = mem_new(sizeof *r);
    err e = ERR_OK;
    for (size_t i = 0; !e && i < n; i++) e = row_add(c, r, rows[i]);
    if (e) router_free(r);
    else *out = r;
    return e;
}

// Depth is bounded by TARGET_SEGMENTS_MAX.
static void node_done(Node *n) {
    for (size_t i = 0; i < n->children_n; i++) {
        node_done(n->children[i]);
        mem_free(n->children[i]);
    }
    mem_free(n->children);
    if (n->any) node_done(n->any);
    mem_free(n->any);
}

Router *router_free(Router *r) {
    if (!r) return NULL;
    node_done(&r->root);
    return mem_free(r);
}

typedef struct Search {
    const Target *t;
    Arena *mem;
    HttpRequest *r;
    unsigned allowed;
} Search;

static const NetRoute *row_pick(Search *s, const NetRoute *const rows[]) {
    HttpMethod m = s->r->method;
    for (unsigned i = 0; i < HTTP_METHODS; i++) s->allowed |= rows[i] ? 1u << i : 0;
    if (rows[HTTP_GET]) s->allowed |= 1u << HTTP_HEAD;
    if (m == HTTP_METHODS) return NULL;
    return m == HTTP_HEAD && !rows[m] ? rows[HTTP_GET] : rows[m];
}

static const NetRoute *visit(Search *s, const Node *n, size_t at) {
    HttpRequest *r = s->r;
    if (at == s->t->segments_n) return row_pick(s, n->rows);
    str segment = s->t->segments[at];
    size_t params = r->params_n;
    const NetRoute *row = NULL;
    const Node *child = child_find(n, segment, NULL);
    if (child && (row = visit(s, child, at + 1))) return row;
    if (n->any && segment.n) {
        r->params[r->params_n++] = segment;
        if ((row = visit(s, n->any, at + 1))) return row;
        r->params_n = params;
    }
    if (segment.n && (row = row_pick(s, n->rest))) {
        size_t rest = s->t->segments_n - at;
        r->params[r->params_n++] = arena_join(s->mem, s->t->segments + at, rest, S("/"));
    }
    return row;
}

const NetRoute *router_find(const Router *router, Arena *a, const Target *t, HttpRequest *r,
                            unsigned *out_allowed) {
    Search s = { .t = t, .mem = a, .r = r };
    r->params_n = 0;
    const NetRoute *row = t->segments_n ? visit(&s, &router->root, 0) : NULL;
    assert(r->params_n <= HTTP_PARAMS_MAX);
    *out_allowed = s.allowed;
    return row;
}
