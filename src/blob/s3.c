// SPDX-License-Identifier: Apache-2.0
// s3.c - see s3.h: the connection thread, one attempt, what became of it, and whether it is tried
// again. What the calls mean is s3_store.c's.
// Threads: `s->lock` guards done and left of calls under way, and the addresses; all else of a call
// is the loop's from s3_begin until done, its caller's otherwise.
#include "blob/s3.h"
#include "blob/sigv4.h"
#include "blob/xml.h"
#include "os/thread.h"
#include <assert.h>
#include <time.h>

REASONS_DEFINE(S3_REASONS, s3_reasons)

enum {
    ADDRESSES_MAX = 8,
    RESOLVED_MS = 60000, // then the name is looked up again
    CONNECT_MS = 5000,
    FIRST_BYTE_MS = 30000,
    IDLE_MS = 20000,
    KEEP = 16,
    KEEP_MS = 20000,
    WATCH_MS = 50,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 5000,
};

struct S3 {
    Os *os;
    Arena *mem;
    S3Config config;
    str host, name, root; // Host header; what is looked up; "/bucket" or ""
    int port;
    bool tls;
    TlsClient *trust;
    Loop *loop;
    Client *client;
    Thread thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    Addr addrs[ADDRESSES_MAX];
    size_t addrs_n, addr_at;
    int64_t resolved_ns;
};

const S3Config *s3_config(const S3 *s) { return &s->config; }

// ---- settings

static err setting_bad(Ctx *c, const char *name, const char *want, str got) {
    return fail(c, ERR_INVALID, R_S3_SETTING, "setting", name, "want", want, "got",
                got.n ? say_str(c, got) : "empty");
}

static bool only(str s, const char *also) {
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool alnum =
            (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
        if (!alnum && !(ch && strchr(also, ch))) return false;
    }
    return true;
}

static err check_config(Ctx *c, const S3Config *k) {
    if (k->bucket.n < 3 || k->bucket.n > 63 || !only(k->bucket, ".-_"))
        return setting_bad(c, "blob.s3.bucket", "the name of a bucket", k->bucket);
    bool slash = str_starts(k->prefix, S("/")) || str_ends(k->prefix, S("/"));
    if (slash || k->prefix.n > 200 || !only(k->prefix, "._-/"))
        return setting_bad(c, "blob.s3.prefix", "letters, digits, and . _ - / between them",
                           k->prefix);
    if (!k->region.n || k->region.n > 64 || !only(k->region, "-_"))
        return setting_bad(c, "blob.s3.region", "the name of a region", k->region);
    const char *keys = "set (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment)";
    if (!k->access_key.n || !only(k->access_key, "._-/+="))
        return setting_bad(c, "blob.s3.access_key", keys, k->access_key);
    return k->secret_key.n ? ERR_OK : setting_bad(c, "blob.s3.secret_key", keys, S(""));
}

// "https://HOST[:PORT]"
static err take_endpoint(Ctx *c, S3 *s, str text) {
    static const char want[] = "http://HOST[:PORT] or https://HOST[:PORT]";
    s->tls = str_starts(text, S("https://"));
    if (!s->tls && !str_starts(text, S("http://")))
        return setting_bad(c, "blob.s3.endpoint", want, text);
    str host = str_sub(text, s->tls ? 8 : 7, text.n), name;
    if (str_ends(host, S("/"))) host.n--;
    int64_t port = s->tls ? 443 : 80;
    ptrdiff_t six = str_find_char(host, ']');
    str tail = six < 0 ? host : str_sub(host, (size_t)six, host.n);
    ptrdiff_t colon = str_find_char(tail, ':');
    name = colon < 0 ? host : str_sub(host, 0, host.n - tail.n + (size_t)colon);
    if (colon >= 0 && !str_to_i64(str_sub(tail, (size_t)colon + 1, tail.n), &port)) port = 0;
    if (!name.n || name.n > 253 || port < 1 || port > 65535 || !only(name, ".-_:[]"))
        return setting_bad(c, "blob.s3.endpoint", want, text);
    s->port = (int)port, s->host = arena_str(s->mem, host), s->name = arena_str(s->mem, name);
    return ERR_OK;
}

static err take_config(Ctx *c, S3 *s, const S3Config *k) {
    TRY(check_config(c, k));
    str *texts[] = { &s->config.endpoint, &s->config.bucket,     &s->config.prefix,
                     &s->config.region,   &s->config.access_key, &s->config.secret_key,
                     &s->config.token,    &s->config.ca };
    s->config = *k;
    if (!k->endpoint.n)
        s->config.endpoint =
            arena_printf(s->mem, "https://s3." STR_FMT ".amazonaws.com", STR_ARG(k->region));
    for (size_t i = 0; i < countof(texts); i++) *texts[i] = arena_str(s->mem, *texts[i]);
    TRY(take_endpoint(c, s, s->config.endpoint));
    bool in_host =
        k->address == S3_ADDRESS_HOST || (k->address == S3_ADDRESS_AUTO && !k->endpoint.n);
    s->root = in_host ? S("") : arena_printf(s->mem, "/" STR_FMT, STR_ARG(k->bucket));
    if (!in_host) return ERR_OK;
    s->host = arena_printf(s->mem, STR_FMT "." STR_FMT, STR_ARG(k->bucket), STR_ARG(s->host));
    s->name = arena_printf(s->mem, STR_FMT "." STR_FMT, STR_ARG(k->bucket), STR_ARG(s->name));
    return ERR_OK;
}

str s3_key(const S3 *s, Arena *a, str key) {
    const char *between = s->config.prefix.n ? "/" : "";
    return arena_printf(a, STR_FMT "%s" STR_FMT, STR_ARG(s->config.prefix), between, STR_ARG(key));
}

// ---- the thread

static void run_loop(void *loop) { loop_run(loop); }

static void s3_free(S3 *s) {
    client_free(s->client);
    loop_free(s->loop);
    tls_client_free(s->trust);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    arena_free(s->mem);
    mem_free(s);
}

err s3_open(Ctx *c, const S3Config *config, S3 **out) {
    S3 *s = mem_new(sizeof *s);
    s->os = c->os, s->mem = arena_new();
    err e = take_config(c, s, config);
    if (!e && s->tls) e = tls_client_new(c, s->config.ca, TLS_1_2, &s->trust);
    if (e) {
        arena_free(s->mem);
        mem_free(s);
        return e;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->moved, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    e = loop_open(c, &s->loop);
    if (!e) {
        s->client = client_new(s->loop, KEEP, KEEP_MS);
        e = thread_open(c, "s3", run_loop, s->loop, &s->thread);
    }
    if (e) s3_free(s);
    else *out = s;
    return e;
}

void s3_close(S3 *s) {
    if (!s) return;
    loop_stop(s->loop);
    thread_join(s->thread);
    s3_free(s);
}

// ---- one attempt, on the loop

static void end(S3Call *k, CallEnd why) {
    S3 *s = k->s;
    k->call = NULL;
    pthread_mutex_lock(&s->lock);
    k->why = why, k->done = true;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
}

static void on_head(void *arg, const CallHead *h) {
    S3Call *k = arg;
    k->status = h->status;
    k->got = new (k->mem, HttpHeader, h->headers_n + 1);
    for (k->got_n = 0; k->got_n < h->headers_n; k->got_n++) {
        const HttpHeader *from = &h->headers[k->got_n];
        k->got[k->got_n] =
            (HttpHeader){ arena_str(k->mem, from->name), arena_str(k->mem, from->value) };
    }
}

static void on_data(void *arg, struct evbuffer *chunk) {
    S3Call *k = arg;
    size_t n = evbuffer_get_length(chunk);
    bool good = k->into && k->status / 100 == 2;
    char *at = good                               ? k->into + k->into_n
               : k->answer.n + n <= S3_ANSWER_MAX ? buf_reserve(&k->answer, n)
                                                  : NULL;
    if (!at || (good && n > k->into_max - k->into_n)) {
        k->too_much = true;
        call_cancel(k->call);
        end(k, CALL_PROTOCOL);
        return;
    }
    evbuffer_remove(chunk, at, n);
    if (good) k->into_n += n;
    else buf_commit(&k->answer, n);
}

static void on_end(void *arg, CallEnd why) { end(arg, why); }

static void start(void *arg) {
    static const CallEvents events = { .head = on_head, .data = on_data, .end = on_end };
    S3Call *k = arg;
    S3 *s = k->s;
    if (loop_stopping(s->loop)) {
        end(k, CALL_RESET);
        return;
    }
    if (k->body.n) {
        k->spec.body = evbuffer_new();
        evbuffer_add_reference(k->spec.body, k->body.p, k->body.n, NULL, NULL);
    }
    k->call = call_start(s->client, &k->spec, &events, k);
    if (k->spec.body) evbuffer_free(k->spec.body);
    k->spec.body = NULL;
}

static void give_up(void *arg) {
    S3Call *k = arg;
    if (k->call) {
        call_cancel(k->call);
        end(k, CALL_RESET);
    }
    pthread_mutex_lock(&k->s->lock);
    k->told = true; // from here on k is its caller's
    pthread_cond_broadcast(&k->s->moved);
    pthread_mutex_unlock(&k->s->lock);
}

// ---- one attempt, as its caller sees it

static err address_of(Ctx *c, S3 *s, Addr *out) {
    int64_t now_ns = os_mono_ns(s->os);
    Addr found[ADDRESSES_MAX];
    size_t n = 0;
    pthread_mutex_lock(&s->lock);
    bool known = s->addrs_n && now_ns - s->resolved_ns < (int64_t)RESOLVED_MS * 1000000;
    if (known) *out = s->addrs[s->addr_at % s->addrs_n];
    pthread_mutex_unlock(&s->lock);
    if (known) return ERR_OK;
    str name = s->name;
    if (name.n && *name.p == '[') name = str_sub(name, 1, name.n - 2);
    TRY(addr_resolve(c, name, s->port, found, ADDRESSES_MAX, &n));
    if (!n)
        return fail(c, ERR_UNAVAILABLE, R_CONNECT, "address", say_str(c, name), "why",
                    "no address");
    pthread_mutex_lock(&s->lock);
    memcpy(s->addrs, found, n * sizeof *found);
    s->addrs_n = n, s->addr_at = 0, s->resolved_ns = now_ns;
    pthread_mutex_unlock(&s->lock);
    *out = found[0];
    return ERR_OK;
}

static void address_bad(S3 *s) {
    pthread_mutex_lock(&s->lock);
    s->addr_at++;
    pthread_mutex_unlock(&s->lock);
}

static str path_of(const S3 *s, Arena *a, str key) {
    if (!key.p) return s->root.n ? s->root : S("/");
    str full = s3_key(s, a, key);
    return arena_printf(a, STR_FMT "/" STR_FMT, STR_ARG(s->root), STR_ARG(full));
}

static void add(HttpHeader *h, size_t *n, const char *name, str value) {
    h[(*n)++] = (HttpHeader){ str_z(name), value };
}

// host, the call's own x-amz-… (sorted, from copy to decoded), x-amz-content-sha256, -date, -token.
static void sign(S3Call *k, CallSpec *spec) {
    S3 *s = k->s;
    Arena *a = k->mem;
    HttpHeader *h = new (a, HttpHeader, S3_HEADERS + 8);
    size_t n = 0, own = 0;
    char *date = new (a, char, SIGV4_DATE), empty[BLOB_DIGEST_HEX + 1];
    str hex = k->body_hex;
    sigv4_date(os_wall_ms(s->os), date);
    sha256_hex(S(""), empty);
    if (!k->body.n) hex = arena_str(a, str_z(empty));
    assert(hex.n == BLOB_DIGEST_HEX);
    add(h, &n, "host", s->host);
    add(h, &n, "x-amz-content-sha256", hex);
    for (; own < k->headers_n; own++) h[n++] = k->headers[own]; // x-amz-copy-…
    add(h, &n, "x-amz-date", str_z(date));
    if (s->config.token.n) add(h, &n, "x-amz-security-token", s->config.token);
    SigV4 v = { .method = http_method_name(k->method),
                .path = path_of(s, a, k->key),
                .query = k->query.p ? k->query : S(""),
                .headers = h,
                .headers_n = n,
                .payload_hex = hex,
                .region = s->config.region,
                .access_key = s->config.access_key,
                .secret_key = s->config.secret_key,
                .date = date };
    add(h, &n, "authorization", sigv4_authorization(a, &v));
    add(h, &n, "accept-encoding", S("identity"));
    if (k->range.p) add(h, &n, "range", k->range);
    spec->headers = h, spec->headers_n = n;
    spec->target = v.query.n
                       ? arena_printf(a, STR_FMT "?" STR_FMT, STR_ARG(v.path), STR_ARG(v.query))
                       : v.path;
}

// An attempt that cannot even begin has ended.
static void attempt(Ctx *c, S3Call *k) {
    S3 *s = k->s;
    Failure before = c->failure;
    arena_reset(k->mem);
    buf_clear(&k->answer);
    k->status = 0, k->got = NULL, k->got_n = k->into_n = 0;
    k->done = k->too_much = false;
    k->why = CALL_CONNECT;
    k->attempts++;
    k->spec = (CallSpec){ .method = k->method,
                          .host = s->host,
                          .tls = s->tls ? s->trust : NULL,
                          .tls_host = s->tls ? s->name : (str){ 0 },
                          .repeatable = true, // all of ours give the same twice
                          .connect_ms = CONNECT_MS,
                          .first_byte_ms = FIRST_BYTE_MS,
                          .idle_ms = IDLE_MS };
    if (address_of(c, s, &k->spec.to)) {
        c->failure = before;
        k->done = true;
        return;
    }
    sign(k, &k->spec);
    loop_post(s->loop, start, k);
}

void s3_begin(Ctx *c, S3 *s, S3Call *k) {
    assert(!k->mem && (k->key.p || k->method == HTTP_GET));
    k->s = s, k->mem = arena_new();
    buf_init(&k->answer, S3_ANSWER_MAX);
    if (!k->patience_ms) k->patience_ms = s->config.patience_ms;
    k->began_ns = os_mono_ns(s->os);
    attempt(c, k);
}

static void wait_done(Ctx *c, S3Call *k) {
    S3 *s = k->s;
    pthread_mutex_lock(&s->lock);
    while (!k->done || (k->left && !k->told)) {
        int64_t at_ns = os_mono_ns(s->os) + (int64_t)WATCH_MS * 1000000;
        struct timespec at = { at_ns / 1000000000, at_ns % 1000000000 };
        pthread_cond_clockwait(&s->moved, &s->lock, CLOCK_MONOTONIC, &at);
        if (k->done || k->left || !c) continue;
        bool late = c->deadline_ns && os_mono_ns(s->os) > c->deadline_ns;
        if (!late && !ctx_cancelled(c)) continue;
        k->left = true;
        pthread_mutex_unlock(&s->lock);
        loop_post(s->loop, give_up, k);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

// ---- what became of it

str s3_header(const S3Call *k, const char *name) {
    for (size_t i = 0; i < k->got_n; i++)
        if (str_ieq(k->got[i].name, str_z(name))) return k->got[i].value;
    return (str){ 0 };
}

typedef struct Answer {
    str code, message;
} Answer;

// A copy and the end of an upload may say in a 200 that they failed.
static Answer answer_of(S3Call *k) {
    str text = buf_str(&k->answer);
    bool error = k->status / 100 != 2 || str_find(str_sub(text, 0, 200), S("<Error")) >= 0;
    Answer a = { { 0 }, { 0 } };
    if (!error || !text.n) return a;
    a.code = xml_find(k->mem, text, "Code"), a.message = xml_find(k->mem, text, "Message");
    return a;
}

static bool one_of(str code, const char *const *list) {
    for (; *list; list++)
        if (str_is(code, *list)) return true;
    return false;
}

static bool transient(const S3Call *k, const Answer *a) {
    static const char *const codes[] = { "SlowDown",
                                         "InternalError",
                                         "RequestTimeout",
                                         "ServiceUnavailable",
                                         "BadDigest",
                                         "OperationAborted",
                                         "XAmzContentSHA256Mismatch",
                                         "TooManyRequests",
                                         NULL };
    static const int statuses[] = { 408, 425, 429, 500, 502, 503, 504 };
    if (k->why == CALL_TLS_EXPIRED || k->why == CALL_TLS_WRONG_HOST || k->why == CALL_TLS_UNKNOWN_CA
        || k->why == CALL_TLS_CERT || k->too_much)
        return false;
    if (k->why != CALL_OK) return true;
    for (size_t i = 0; i < countof(statuses); i++)
        if (k->status == statuses[i]) return true;
    return one_of(a->code, codes);
}

static const char *endpoint(const S3Call *k) { return k->s->config.endpoint.p; }
static const char *seconds(Ctx *c, const S3Call *k) {
    int64_t ms = (os_mono_ns(k->s->os) - k->began_ns) / 1000000;
    return say(c, "%lld.%lld", (long long)(ms / 1000), (long long)(ms / 100 % 10));
}

static err connection_failed(Ctx *c, const S3Call *k) {
    const char *why = call_end_name(k->why);
    bool cert = k->why >= CALL_TLS_EXPIRED && k->why <= CALL_TLS_CERT;
    if (cert) return fail(c, ERR_UNAVAILABLE, R_S3_TLS, "endpoint", endpoint(k), "why", why);
    return fail(c, ERR_UNAVAILABLE, R_S3_FAR, "endpoint", endpoint(k), "why", why, "seconds",
                seconds(c, k));
}

// RFC 9110 §5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT"
static int64_t date_of(const S3Call *k) {
    struct tm tm = { 0 };
    str date = s3_header(k, "date");
    if (date.n != 29 || !strptime(date.p, "%a, %d %b %Y %H:%M:%S", &tm)) return 0;
    return (int64_t)timegm(&tm) * 1000;
}

static err clock_wrong(Ctx *c, const S3Call *k) {
    int64_t theirs_ms = date_of(k), off_ms = theirs_ms ? os_wall_ms(c->os) - theirs_ms : 0;
    const char *off = theirs_ms ? say(c, "%lld", (long long)(off_ms / 1000)) : "some";
    return fail(c, ERR_UNAVAILABLE, R_S3_CLOCK, "seconds", off, "endpoint", endpoint(k));
}

static err region_wrong(Ctx *c, S3Call *k) {
    str region = s3_header(k, "x-amz-bucket-region");
    if (!region.n) region = xml_find(k->mem, buf_str(&k->answer), "Region");
    const char *want = region.n ? say(c, " to " STR_FMT, STR_ARG(region)) : "";
    return fail(c, ERR_UNAVAILABLE, R_S3_REGION, "bucket", k->s->config.bucket.p, "endpoint",
                endpoint(k), "got", k->s->config.region.p, "want", want);
}

static const char *what_of(Ctx *c, const S3Call *k) {
    return say(c, "%s " STR_FMT, http_method_name(k->method), STR_ARG(k->key.p ? k->key : S("/")));
}

static err refused(Ctx *c, S3Call *k, const Answer *a) {
    static const char *const denied[] = { "AccessDenied",   "InvalidAccessKeyId",
                                          "ExpiredToken",   "SignatureDoesNotMatch",
                                          "InvalidToken",   "AllAccessDisabled",
                                          "AccountProblem", NULL };
    static const char *const region[] = { "PermanentRedirect", "AuthorizationHeaderMalformed",
                                          "IllegalLocationConstraintException", "TemporaryRedirect",
                                          NULL };
    static const char *const full[] = { "QuotaExceeded", "InsufficientCapacity",
                                        "XMinioStorageFull", "EntityTooLarge", NULL };
    const char *code = say_str(c, a->code.p ? a->code : S("")), *status = say(c, "%d", k->status);
    const char *message = say_str(c, a->message.p ? a->message : S("no reason given"));
    if (str_is(a->code, "RequestTimeTooSkewed")) return clock_wrong(c, k);
    if (str_is(a->code, "NoSuchBucket"))
        return fail(c, ERR_UNAVAILABLE, R_S3_BUCKET, "bucket", k->s->config.bucket.p, "endpoint",
                    endpoint(k));
    if (str_is(a->code, "NoSuchUpload") || str_is(a->code, "NoSuchKey") || k->status == 404)
        return fail(c, str_is(a->code, "NoSuchUpload") ? ERR_GONE : ERR_NOTFOUND, R_S3_KEY,
                    "endpoint", endpoint(k), "key", what_of(c, k));
    if (k->status == 416)
        return fail(c, ERR_RANGE, R_S3_ANSWER, "endpoint", endpoint(k), "what", what_of(c, k),
                    "status", status, "code", code, "message", message);
    if (k->status == 301 || k->status == 307 || one_of(a->code, region)) return region_wrong(c, k);
    if (k->status == 507 || one_of(a->code, full))
        return fail(c, ERR_FULL, R_S3_FULL, "endpoint", endpoint(k), "code", code, "message",
                    message);
    if (k->status == 401 || k->status == 403 || one_of(a->code, denied))
        return fail(c, ERR_UNAVAILABLE, R_S3_DENIED, "endpoint", endpoint(k), "code", code,
                    "message", message, "bucket", k->s->config.bucket.p);
    return fail(c, ERR_UPSTREAM, R_S3_ANSWER, "endpoint", endpoint(k), "what", what_of(c, k),
                "status", status, "code", code, "message", message);
}

static err judge(Ctx *c, S3Call *k, const Answer *a, bool again) {
    if (k->too_much)
        return fail(c, ERR_UPSTREAM, R_S3_ANSWER, "endpoint", endpoint(k), "what", what_of(c, k),
                    "status", say(c, "%d", k->status), "code", "", "message", "it is too long");
    if (k->why != CALL_OK) return connection_failed(c, k);
    if (k->status / 100 == 2 && !a->code.p) return ERR_OK;
    if (!again) return refused(c, k, a);
    return fail(c, ERR_UNAVAILABLE, R_S3_BUSY, "endpoint", endpoint(k), "status",
                say(c, "%d", k->status), "code", say_str(c, a->code.p ? a->code : S("")), "message",
                say_str(c, a->message.p ? a->message : S("no reason given")), "seconds",
                seconds(c, k));
}

// Exponential with half of it random, so that many who were turned away do not come back together.
static int64_t backoff_ms(S3Call *k) {
    int shift = k->attempts < 7 ? k->attempts - 1 : 6;
    int64_t most = (int64_t)BACKOFF_FIRST_MS << shift;
    uint16_t dice;
    os_random(k->s->os, &dice, sizeof dice);
    if (most > BACKOFF_MAX_MS) most = BACKOFF_MAX_MS;
    return most / 2 + (most / 2) * dice / UINT16_MAX;
}

static err pause_for(Ctx *c, S3 *s, int64_t ms) {
    for (; ms > 0; ms -= WATCH_MS) {
        TRY(ctx_check(c));
        thread_pause(s->os, (ms < WATCH_MS ? ms : WATCH_MS) * 1000000);
    }
    return ctx_check(c);
}

err s3_end(Ctx *c, S3Call *k) {
    S3 *s = k->s;
    for (;;) {
        wait_done(c, k);
        if (k->left) k->unsure = true;
        TRY(ctx_check(c));
        Answer a = answer_of(k);
        bool again = transient(k, &a);
        if (k->why != CALL_OK && !call_end_unsent(k->why)) k->unsure = true;
        if (again && k->status >= 500) k->unsure = true;
        if (k->why != CALL_OK) address_bad(s);
        int64_t spent_ms = (os_mono_ns(s->os) - k->began_ns) / 1000000, wait_ms = backoff_ms(k);
        if (!again || spent_ms + wait_ms >= k->patience_ms) return judge(c, k, &a, again);
        TRY(pause_for(c, s, wait_ms));
        attempt(c, k);
    }
}

void s3_drop(S3Call *k) {
    if (!k->mem) return;
    if (!k->left) {
        k->left = true;
        loop_post(k->s->loop, give_up, k);
    }
    wait_done(NULL, k);
}

void s3_done(S3Call *k) {
    if (!k->mem) return;
    assert(k->done);
    buf_done(&k->answer);
    k->mem = arena_free(k->mem);
    k->s = NULL;
}
