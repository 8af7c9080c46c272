// SPDX-License-Identifier: Apache-2.0
// model_url.c - bytes of a version from an http:// address: resolved here and pinned, private
// addresses refused unless the operator allows them, redirects few and checked again, gone on with
// Range and If-Range (RFC 9110 §13.1.5, §14.2) where an earlier attempt was cut, and begun again
// when the server says that its content is another. From https it is never redirected to http.
// Owner: the Import. Threads: the job's worker, which runs a loop of its own meanwhile.
#include "mod/model/model_import.h"
#include "net/client.h"
#include <assert.h>

enum {
    ADDRESSES_MAX = 8,
    REDIRECTS_MAX = 5,
    BEGUN_MAX = 2, // times that one attempt may drop what it has
    CONNECT_MS = 10000,
    FIRST_BYTE_MS = 60000,
    IDLE_MS = 60000,
    WATCH_MS = 50,
};

// ---- addresses as text

static err bad(Ctx *c, const char *why) {
    return fail(c, ERR_INVALID, R_URL_FORM, "field", "source.url", "why", why);
}

static bool only(str s, const char *also) {
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool alnum =
            (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
        if (!alnum && !(ch && strchr(also, ch))) return false;
    }
    return s.n;
}

static bool printable(str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~') return false;
    return true;
}

static err parse_port(Ctx *c, str text, int *out) {
    int64_t port = *out;
    if (text.n && (!str_to_i64(text, &port) || port < 1 || port > 65535))
        return bad(c, "its port is not a number from 1 to 65535");
    *out = (int)port;
    return ERR_OK;
}

static err parse_authority(Ctx *c, str s, Url *out) {
    if (str_find_char(s, '@') >= 0)
        return bad(c, "it names a user, which would be stored in the open");
    if (s.n && *s.p == '[') {
        ptrdiff_t end = str_find_char(s, ']');
        str port = end < 0 ? S("") : str_sub(s, (size_t)end + 1, s.n);
        if (end < 0 || (port.n && *port.p != ':')) return bad(c, "its host is malformed");
        out->host = str_sub(s, 1, (size_t)end - 1);
        if (!only(out->host, ":.")) return bad(c, "its host is malformed");
        return parse_port(c, str_sub(port, 1, port.n), &out->port);
    }
    ptrdiff_t colon = str_find_char(s, ':');
    out->host = colon < 0 ? s : str_sub(s, 0, (size_t)colon);
    if (out->host.n > 253 || !only(out->host, "-._")) return bad(c, "its host is malformed");
    return parse_port(c, colon < 0 ? S("") : str_sub(s, (size_t)colon + 1, s.n), &out->port);
}

static const char *scheme(const Url *u) { return u->tls ? "https://" : "http://"; }
static bool is_v6(const Url *u) { return str_find_char(u->host, ':') >= 0; }

static str authority(Ctx *c, const Url *u) {
    bool six = is_v6(u);
    str port = u->port == (u->tls ? 443 : 80) ? S("") : arena_printf(c->mem, ":%d", u->port);
    return arena_printf(c->mem, "%s" STR_FMT "%s" STR_FMT, six ? "[" : "", STR_ARG(u->host),
                        six ? "]" : "", STR_ARG(port));
}

static err refuse_private(Ctx *c, str host, const char *address) {
    return fail(c, ERR_DENIED, R_URL_PRIVATE, "host", say_str(c, host), "address", address,
                "setting", model_settings[MODEL_PRIVATE_URLS].name);
}
static bool allowed(const Addr *a) {
    return setting_int(&model_settings[MODEL_PRIVATE_URLS]) || !addr_is_private(a);
}

// A host that is an address already needs no resolver to be refused.
static err check_literal(Ctx *c, const Url *u) {
    Addr addr;
    Failure before = c->failure;
    bool six = is_v6(u);
    str text = arena_printf(c->mem, "%s" STR_FMT "%s:%d", six ? "[" : "", STR_ARG(u->host),
                            six ? "]" : "", u->port);
    err e = addr_parse(c, text, &addr);
    c->failure = before;
    return e || allowed(&addr) ? ERR_OK : refuse_private(c, u->host, addr.text);
}

err model_url_parse(Ctx *c, str text, Url *out) {
    Url u = { .tls = str_starts(text, S("https://")) };
    if (text.n > URL_MAX || !printable(text))
        return bad(c, "it holds what must be percent-encoded");
    if (!u.tls && !str_starts(text, S("http://")))
        return bad(c, "it does not begin with http:// or https://");
    str rest = str_sub(text, u.tls ? 8 : 7, text.n);
    u.port = u.tls ? 443 : 80;
    ptrdiff_t hash = str_find_char(rest, '#');
    if (hash >= 0) rest = str_sub(rest, 0, (size_t)hash);
    size_t end = 0;
    while (end < rest.n && rest.p[end] != '/' && rest.p[end] != '?') end++;
    TRY(parse_authority(c, str_sub(rest, 0, end), &u));
    str target = str_sub(rest, end, rest.n);
    bool rooted = target.n && *target.p == '/';
    u.target = arena_printf(c->mem, "%s" STR_FMT, rooted ? "" : "/", STR_ARG(target));
    str path = u.target;
    ptrdiff_t query = str_find_char(path, '?');
    if (query >= 0) path = str_sub(path, 0, (size_t)query);
    str where = authority(c, &u);
    u.shown = arena_printf(c->mem, "%s" STR_FMT STR_FMT, scheme(&u), STR_ARG(where), STR_ARG(path));
    u.host = arena_str(c->mem, u.host);
    TRY(check_literal(c, &u));
    *out = u;
    return ERR_OK;
}

// RFC 3986 §5.2 without removing dot segments, which is the server's business.
err model_url_join(Ctx *c, const Url *base, str location, Url *out) {
    str where = authority(c, base), path = base->target;
    ptrdiff_t query = str_find_char(path, '?');
    if (query >= 0) path = str_sub(path, 0, (size_t)query);
    if (base->tls && str_starts(location, S("http://")))
        return bad(c, "it redirects from https to http");
    if (str_starts(location, S("http://")) || str_starts(location, S("https://")))
        return model_url_parse(c, location, out);
    if (str_starts(location, S("//"))) {
        const char *by = base->tls ? "https:" : "http:";
        return model_url_parse(c, arena_printf(c->mem, "%s" STR_FMT, by, STR_ARG(location)), out);
    }
    ptrdiff_t colon = str_find_char(location, ':'), slash = str_find_char(location, '/');
    if (colon >= 0 && (slash < 0 || colon < slash)) return bad(c, "it redirects to another scheme");
    if (str_starts(location, S("?")))
        where = arena_printf(c->mem, STR_FMT STR_FMT, STR_ARG(where), STR_ARG(path));
    else if (!str_starts(location, S("/"))) {
        while (path.n && path.p[path.n - 1] != '/') path.n--;
        where = arena_printf(c->mem, STR_FMT STR_FMT, STR_ARG(where), STR_ARG(path));
    }
    str text =
        arena_printf(c->mem, "%s" STR_FMT STR_FMT, scheme(base), STR_ARG(where), STR_ARG(location));
    return model_url_parse(c, text, out);
}

// ---- what an attempt knows of the content from an earlier one

typedef struct Content {
    str tag;       // for If-Range: an ETag or a date; absent: it cannot be gone on with
    int64_t total; // -1: not said
    int64_t at;    // where the last attempt began: one that got further is no failure of the next
} Content;

static err content_load(Ctx *c, const Import *im, Content *out) {
    yyjson_val *root;
    *out = (Content){ { 0 }, -1, 0 };
    if (!job_checkpoint(im->job).p) return ERR_OK;
    TRY(json_parse(c, job_checkpoint(im->job), &root));
    out->tag = json_get_str(root, "tag");
    json_get_i64(root, "total", &out->total);
    return ERR_OK;
}

static err content_save(Ctx *c, Import *im, const Content *of) {
    Buf b;
    buf_init(&b, 4096);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_str(&j, "tag", of->tag);
    json_kv_i64(&j, "total", of->total), json_kv_i64(&j, "at", of->at);
    json_end_obj(&j);
    str text = b.full ? S("{}") : arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return job_save(c, im->job, text);
}

// ---- one call

typedef enum {
    PULL_FAILED,   // nothing came, or not to the end
    PULL_WHOLE,    // all bytes are staged
    PULL_REDIRECT, // to `location`
    PULL_AGAIN,    // the server's content is not what is staged
} PullEnd;
typedef struct Pull {
    Ctx *c;
    Import *im;
    const Url *url;
    Content content;
    int64_t from; // asked for with Range; 0: all
    Loop *loop;
    Call *call; // NULL: over
    Timer *watch;
    PullEnd end;
    str location;
    CallEnd why;
    err failed;
} Pull;

static void stop(Pull *p, PullEnd end, err e) {
    p->end = end, p->failed = e;
    if (p->call) call_cancel(p->call);
    p->call = NULL;
    loop_stop(p->loop);
}

static err status_failed(Pull *p, int status) {
    bool later = status == 408 || status == 425 || status == 429 || status >= 500 || status < 400;
    err e = later ? ERR_UPSTREAM : status == 404 || status == 410 ? ERR_NOTFOUND : ERR_DENIED;
    return fail(p->c, e, R_URL_STATUS, "url", say_str(p->c, p->url->shown), "status",
                say(p->c, "%d", status));
}

// "bytes 5-9/10", "bytes */10". False: not of this form. *out_from -1: the star.
static bool parse_range(str value, int64_t *out_from, int64_t *out_total) {
    str rest = value, unit, range, first;
    *out_from = *out_total = -1;
    if (!str_cut(&rest, ' ', &unit) || !str_is(unit, "bytes")) return false;
    if (!str_cut(&rest, '/', &range) || !rest.p) return false;
    if (!str_is(rest, "*") && !str_to_i64(rest, out_total)) return false;
    if (str_is(range, "*")) return true;
    return str_cut(&range, '-', &first) && str_to_i64(first, out_from);
}

static str validator(Ctx *c, const CallHead *h) {
    str tag = call_header(h, "etag");
    if (tag.p && !str_starts(tag, S("W/"))) return arena_str(c->mem, tag);
    return arena_str(c->mem, call_header(h, "last-modified"));
}

static err body_begins(Pull *p, const CallHead *h, int64_t total) {
    Ctx *c = p->c;
    if (!p->from) p->content = (Content){ validator(c, h), total, 0 };
    p->content.at = p->from;
    if (total >= 0) TRY(model_import_size_check(c, say_str(c, p->url->shown), total));
    if (total >= 0) TRY(model_room_check(c, p->im->v->staging, total - p->from));
    return content_save(c, p->im, &p->content);
}

static void take_head(Pull *p, const CallHead *h) {
    int64_t from, total;
    bool range = parse_range(call_header(h, "content-range"), &from, &total);
    err e = ERR_OK;
    if (h->status == 206 && p->from && range && from == p->from) e = body_begins(p, h, total);
    else if (h->status == 200 && !p->from) e = body_begins(p, h, h->length);
    else if (h->status == 416 && p->from && range && total == p->from) stop(p, PULL_WHOLE, ERR_OK);
    else if (p->from && (h->status == 200 || h->status == 206 || h->status == 416))
        stop(p, PULL_AGAIN, ERR_OK);
    else if (h->status / 100 == 3 && call_header(h, "location").n) {
        p->location = arena_str(p->c->mem, call_header(h, "location"));
        stop(p, PULL_REDIRECT, ERR_OK);
    } else e = status_failed(p, h->status);
    if (e) stop(p, PULL_FAILED, e);
}

static err take_piece(Pull *p, str bytes) {
    int64_t after = blob_staged(p->im->w) + (int64_t)bytes.n;
    if (p->content.total < 0 && after > model_import_max_bytes())
        TRY(model_import_size_check(p->c, say_str(p->c, p->url->shown), after));
    metric_add(&model_metric_import_bytes, (double)bytes.n, S("url"));
    return model_import_append(p->c, p->im, bytes);
}

static void take_data(Pull *p, struct evbuffer *chunk) {
    struct evbuffer_iovec piece;
    err e = ERR_OK;
    while (!e && evbuffer_peek(chunk, -1, NULL, &piece, 1) > 0 && piece.iov_len) {
        e = take_piece(p, str_n(piece.iov_base, piece.iov_len));
        evbuffer_drain(chunk, piece.iov_len);
    }
    if (!e) e = model_import_step(p->c, p->im, blob_staged(p->im->w), p->content.total);
    if (e) stop(p, PULL_FAILED, e);
}

static void on_head(void *p, const CallHead *h) { take_head(p, h); }
static void on_data(void *p, struct evbuffer *chunk) { take_data(p, chunk); }
static void on_end(void *arg, CallEnd why) {
    Pull *p = arg;
    bool whole =
        why == CALL_OK && (p->content.total < 0 || p->content.total == blob_staged(p->im->w));
    p->call = NULL, p->why = why;
    stop(p, whole ? PULL_WHOLE : PULL_FAILED, ERR_OK);
}
static void on_watch(void *arg) {
    Pull *p = arg;
    err e = ctx_check(p->c);
    if (e) stop(p, PULL_FAILED, e);
    else timer_start(p->watch, WATCH_MS);
}

static err pull_failed(Pull *p) {
    Ctx *c = p->c;
    bool none = call_end_unsent(p->why);
    const char *why = p->why == CALL_OK ? "it was shorter than announced" : call_end_name(p->why);
    if (p->failed) return p->failed;
    return fail(c, none ? ERR_UNAVAILABLE : ERR_UPSTREAM, R_URL_BROKEN, "url",
                say_str(c, p->url->shown), "bytes",
                say(c, "%lld", (long long)blob_staged(p->im->w)), "why", why);
}

static err run_call(Pull *p, const CallSpec *spec) {
    static const CallEvents events = { .head = on_head, .data = on_data, .end = on_end };
    TRY(loop_open(p->c, &p->loop));
    Client *client = client_new(p->loop, 0, 0);
    p->watch = timer_new(p->loop, on_watch, p);
    timer_start(p->watch, WATCH_MS);
    p->call = call_start(client, spec, &events, p);
    loop_run(p->loop);
    timer_free(p->watch);
    client_free(client);
    loop_free(p->loop);
    return ERR_OK;
}

static err pull(Pull *p, const Addr *to) {
    Ctx *c = p->c;
    HttpHeader headers[4] = { { S("Accept-Encoding"), S("identity") },
                              { S("User-Agent"), S("lathe") } };
    size_t n = 2;
    p->from = p->content.tag.n ? blob_staged(p->im->w) : 0;
    p->end = PULL_FAILED, p->failed = ERR_OK, p->why = CALL_OK;
    if (p->from) {
        str range = arena_printf(c->mem, "bytes=%lld-", (long long)p->from);
        headers[n++] = (HttpHeader){ S("Range"), range };
        headers[n++] = (HttpHeader){ S("If-Range"), p->content.tag };
    }
    CallSpec spec = { .to = *to,
                      .method = HTTP_GET,
                      .target = p->url->target,
                      .host = authority(c, p->url),
                      .tls = p->url->tls ? app_of(c)->tls : NULL,
                      .tls_host = p->url->tls ? p->url->host : (str){ 0 },
                      .headers = headers,
                      .headers_n = n,
                      .connect_ms = CONNECT_MS,
                      .first_byte_ms = FIRST_BYTE_MS,
                      .idle_ms = IDLE_MS };
    if (!p->from && blob_staged(p->im->w)) TRY(model_import_restart(c, p->im));
    assert(!p->url->tls || spec.tls); // never in the clear instead
    TRY(run_call(p, &spec));
    return p->end == PULL_FAILED ? pull_failed(p) : ERR_OK;
}

// Each address that may be asked, until one has a connection.
static err pull_any(Pull *p) {
    Ctx *c = p->c;
    Addr to[ADDRESSES_MAX];
    size_t n, tried = 0;
    err e = ERR_OK;
    TRY(addr_resolve(c, p->url->host, p->url->port, to, ADDRESSES_MAX, &n));
    for (size_t i = 0; i < n; i++) {
        if (!allowed(&to[i])) continue;
        tried++;
        e = pull(p, &to[i]);
        if (e != ERR_UNAVAILABLE) return e;
    }
    return tried ? e : refuse_private(c, p->url->host, n ? to[0].text : "no address");
}

static err many_redirects(Ctx *c, const Url *u) {
    return fail(c, ERR_INVALID, R_URL_REDIRECTS, "url", say_str(c, u->shown), "limit",
                say(c, "%d", REDIRECTS_MAX));
}

err model_import_url(Ctx *c, Import *im) {
    Url first, url;
    int hops = 0, begun = 0;
    TRY(model_url_parse(c, im->v->source.url, &first));
    url = first;
    Pull p = { .c = c, .im = im, .url = &url };
    TRY(content_load(c, im, &p.content));
    bool whole = p.content.total > 0 && p.content.total == blob_staged(im->w);
    if (whole) return ERR_OK;
    for (;;) {
        job_say(im->job, "fetching " STR_FMT " from byte %lld", STR_ARG(url.shown),
                (long long)blob_staged(im->w));
        TRY(pull_any(&p));
        if (p.end == PULL_WHOLE) return ERR_OK;
        if (p.end == PULL_REDIRECT) {
            if (++hops > REDIRECTS_MAX) return many_redirects(c, &first);
            Url next;
            TRY(model_url_join(c, &url, p.location, &next));
            url = next;
        } else {
            assert(p.end == PULL_AGAIN);
            if (++begun > BEGUN_MAX)
                return fail(c, ERR_UPSTREAM, R_IMPORT_CHANGED, "what", say_str(c, first.shown));
            TRY(model_import_restart(c, im));
            p.content = (Content){ { 0 }, -1, 0 };
        }
    }
}
