// SPDX-License-Identifier: Apache-2.0
// model_http_test.c - imports from an http:// address, against a server of net/'s own that cuts,
// holds back, changes its content and redirects; and uploads through the module's own routes, with
// clients that leave, lie and may not.
#include "mod/model/model_test.h"

static bool has(str text, const char *part) { return str_find(text, str_z(part)) >= 0; }

// ---- a web server. Set before an import; what it saw is counted.

static struct {
    str bytes;
    const char *tag;      // ETag; NULL: none
    const char *location; // redirects there
    size_t cut;           // the first answers end after so many bytes; 0: none do
    atomic_int cuts;      // how many answers are still to be cut
    bool hold;            // instead of ending, waits
    int status;           // 0: 200 or 206
    atomic_int asked, ranged, held;
    atomic_llong sent;
} web;

static int64_t asked_from(const HttpRequest *r) {
    int64_t from = 0;
    str range = http_header(r, "range"), tag = http_header(r, "if-range");
    if (!str_starts(range, S("bytes=")) || !web.tag || !str_is(tag, web.tag)) return 0;
    str rest = str_sub(range, 6, range.n), text;
    return str_cut(&rest, '-', &text) && str_to_i64(text, &from) ? from : 0;
}

static void web_redirect(Exchange *x) {
    HttpHeader to = { S("Location"), str_z(web.location) };
    web.location = NULL;
    exchange_begin(x, 302, &to, 1, 0);
    exchange_end(x);
}

static void web_range(Exchange *x, int64_t from, HttpHeader *headers, size_t n) {
    Ctx *c = exchange_ctx(x);
    int64_t size = (int64_t)web.bytes.n;
    atomic_fetch_add(&web.ranged, 1);
    headers[n++] =
        (HttpHeader){ S("Content-Range"),
                      from < size ? arena_printf(c->mem, "bytes %lld-%lld/%lld", (long long)from,
                                                 (long long)size - 1, (long long)size)
                                  : arena_printf(c->mem, "bytes */%lld", (long long)size) };
    exchange_begin(x, from < size ? 206 : 416, headers, n, size - from);
}

static void web_cut(void *x) { // when what was written has left
    if (!exchange_pending(x)) exchange_abort(x);
}

static void web_answer(Exchange *x, const NetRoute *route) {
    (void)route;
    HttpHeader headers[3];
    size_t n = 0;
    atomic_fetch_add(&web.asked, 1);
    if (web.location) {
        web_redirect(x);
        return;
    }
    int64_t from = asked_from(exchange_request(x));
    if (web.tag) headers[n++] = (HttpHeader){ S("ETag"), str_z(web.tag) };
    if (from) web_range(x, from, headers, n);
    else exchange_begin(x, web.status ? web.status : 200, headers, n, (int64_t)web.bytes.n);
    str rest = str_sub(web.bytes, (size_t)from, web.bytes.n);
    bool cut = atomic_load(&web.cuts) > 0 && web.cut < rest.n;
    if (cut) rest.n = web.cut, atomic_fetch_sub(&web.cuts, 1);
    atomic_fetch_add(&web.sent, (long long)rest.n);
    exchange_write(x, rest);
    if (!cut) exchange_end(x);
    else if (web.hold) atomic_fetch_add(&web.held, 1);
    else exchange_events(x, &(ExchangeEvents){ .drained = web_cut }, x);
}
static const NetRoute web_route = { HTTP_GET, "/{path*}", 0, 0, .stream = web_answer };

// Runs a test beside a web server; private addresses are allowed.
static void with_web(ModelFix *f, void (*fn)(ModelFix *f, const char *base)) {
    static const NetRoute *const routes[] = { &web_route };
    memset(&web, 0, sizeof web);
    web.tag = "\"one\"";
    CHECK_OK(f->c, model_fix_settings(f, "model.allow_private_urls=true", "blob.grace=0"));
    Rig *r = rig_start(&(RigSpec){ .routes = routes, .routes_n = 1, .plain = true });
    CHECK(r);
    fn(f, say(f->c, "http://%s", r->addr.text));
    model_fix_rest(f);
    rig_stop(r);
}

static err fetch(ModelFix *f, const char *url, Version *out) {
    TRY(model_fix_import(f, "m", &(ImportInput){ .url = str_z(url) }, out));
    if (!f->working) model_fix_work(f);
    return model_fix_settle(f, out);
}

static void check_ready(ModelFix *f, const Version *v) {
    char hex[BLOB_DIGEST_HEX + 1];
    sha256_hex(web.bytes, hex);
    CHECK_STR(v->state_reason, "");
    CHECK_INT(v->state, VERSION_READY);
    CHECK_STR(v->digest, hex);
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}

static void fetch_plain(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "web", 3 << 20);
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, fetch(f, say(c, "%s/m.gguf?token=hidden", base), &v));
    check_ready(f, &v);
    CHECK_INT(atomic_load(&web.asked), 1);
    CHECK_INT(atomic_load(&web.ranged), 0);
    str log = model_fix_log(f, v.job);
    CHECK(has(log, "/m.gguf") && !has(log, "hidden"));
}
MODEL_TEST(a_url_becomes_a_ready_version) { with_web(f, fetch_plain); }

static void fetch_cut(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "web", 3 << 20);
    web.cut = 1 << 20, atomic_store(&web.cuts, 2);
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, fetch(f, say(c, "%s/m.gguf", base), &v));
    check_ready(f, &v);
    CHECK_INT(atomic_load(&web.asked), 3);
    CHECK_INT(atomic_load(&web.ranged), 2);
    CHECK_INT(atomic_load(&web.sent), 3 << 20); // no byte twice
}
MODEL_TEST(a_cut_download_goes_on_where_it_was) { with_web(f, fetch_cut); }

static void fetch_restart(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "web", 3 << 20);
    web.cut = 2 << 20, web.hold = true, atomic_store(&web.cuts, 1);
    ImportInput in = { .url = str_z(say(c, "%s/m.gguf", base)) };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    model_fix_work(f);
    CHECK(wait_int(&web.held, 1));
    model_fix_rest(f);
    CHECK_OK(c, model_fix_version(f, "m:1", &v));
    CHECK_INT(v.state, VERSION_IMPORTING);
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    check_ready(f, &v);
    CHECK_INT(atomic_load(&web.asked), 2);
}
MODEL_TEST(a_download_goes_on_after_a_restart) { with_web(f, fetch_restart); }

static void fetch_changed(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "old", 3 << 20);
    web.cut = 1 << 20, web.hold = true, atomic_store(&web.cuts, 1);
    ImportInput in = { .url = str_z(say(c, "%s/m.gguf", base)) };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    model_fix_work(f);
    CHECK(wait_int(&web.held, 1));
    model_fix_rest(f);
    web.bytes = model_fix_gguf(c, "new", 2 << 20), web.tag = "\"two\"";
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    check_ready(f, &v);
    CHECK_STR(v.facts.name, "new");
}
MODEL_TEST(a_download_whose_content_changed_begins_again) { with_web(f, fetch_changed); }

static void fetch_untagged(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.tag = NULL; // nothing says that the rest belongs to what is here
    web.bytes = model_fix_gguf(c, "web", 1 << 20);
    web.cut = 1 << 19, atomic_store(&web.cuts, 1);
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, fetch(f, say(c, "%s/m.gguf", base), &v));
    check_ready(f, &v);
    CHECK_INT(atomic_load(&web.ranged), 0);
    CHECK_INT(atomic_load(&web.sent), (1 << 20) + (1 << 19));
}
MODEL_TEST(a_download_that_cannot_be_told_apart_begins_again) { with_web(f, fetch_untagged); }

static void fetch_elsewhere(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "web", 4000);
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    web.location = "other/place.gguf";
    CHECK_OK(c, fetch(f, say(c, "%s/a/m.gguf", base), &v));
    check_ready(f, &v);
    CHECK(has(model_fix_log(f, v.job), "/a/other/place.gguf"));
    web.location = "ftp://example.org/m.gguf";
    CHECK_OK(c, fetch(f, say(c, "%s/m.gguf", base), &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(v.state_reason, "another scheme"));
    web.status = 404;
    CHECK_OK(c, fetch(f, say(c, "%s/m.gguf", base), &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(v.state_reason, "404"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}

// What was asked for over TLS never goes on in the clear, and only there.
MODEL_TEST(an_https_address_stays_one) {
    Ctx *c = f->c;
    Url base, u;
    CHECK_OK(c, model_url_parse(c, S("https://example.org/a/b?q"), &base));
    CHECK(base.tls && base.port == 443);
    CHECK_STR(base.shown, "https://example.org/a/b");
    static const char *const to[][2] = { { "c", "https://example.org/a/c" },
                                         { "/d", "https://example.org/d" },
                                         { "//other:8443/e", "https://other:8443/e" },
                                         { "https://third/", "https://third/" } };
    for (size_t i = 0; i < countof(to); i++) {
        CHECK_OK(c, model_url_join(c, &base, str_z(to[i][0]), &u));
        CHECK(u.tls);
        CHECK_STR(u.shown, to[i][1]);
    }
    CHECK_ERR(model_url_join(c, &base, S("http://example.org/a"), &u), ERR_INVALID);
    CHECK(has(u.shown, "third")); // untouched
    CHECK_OK(c, model_url_parse(c, S("http://example.org:443/"), &base));
    CHECK(!base.tls && base.port == 443);
    CHECK_OK(c, model_url_join(c, &base, S("https://example.org/"), &u));
    CHECK(u.tls && u.port == 443);
}
MODEL_TEST(redirects_and_refusals_of_a_url) { with_web(f, fetch_elsewhere); }

static void fetch_private(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    str name = str_z(base);
    str port = str_sub(name, (size_t)str_find(name, S("127.0.0.1")) + 9, name.n);
    CHECK_OK(c, model_fix_settings(f, "model.allow_private_urls=false", NULL));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    // A name: what it leads to is known only when it is resolved.
    CHECK_OK(c, fetch(f, say(c, "http://localhost" STR_FMT "/m", STR_ARG(port)), &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(v.state_reason, "model.allow_private_urls"));
    CHECK_INT(atomic_load(&web.asked), 0);
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}
MODEL_TEST(a_name_that_leads_to_a_private_address_is_refused) { with_web(f, fetch_private); }

static void fetch_too_large(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "web", 1 << 20);
    CHECK_OK(c, model_fix_settings(f, "model.allow_private_urls=true", "model.import_max=1000"));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, fetch(f, say(c, "%s/m", base), &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(v.state_reason, "model.import_max"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}
MODEL_TEST(a_url_over_the_limit_is_refused) { with_web(f, fetch_too_large); }

static err cancel_tx(Ctx *c, Tx *tx, void *arg) {
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return job_cancel(c, tx, c->project, *(str *)arg);
}
static void fetch_cancelled(ModelFix *f, const char *base) {
    Ctx *c = f->c;
    Version v;
    web.bytes = model_fix_gguf(c, "web", 1 << 20);
    web.cut = 1 << 19, web.hold = true, atomic_store(&web.cuts, 1);
    ImportInput in = { .url = str_z(say(c, "%s/m.gguf", base)) };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    model_fix_work(f);
    CHECK(wait_int(&web.held, 1));
    CHECK_OK(c, db_tx(c, c->db, cancel_tx, &v.job));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(v.state_reason, "cancelled"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}
MODEL_TEST(a_download_that_hangs_can_be_cancelled) { with_web(f, fetch_cancelled); }

TEST(redirects_are_joined_to_where_they_came_from) {
    static const struct {
        const char *base, *location, *want;
    } rows[] = {
        { "http://a.example/x/y?q=1", "z", "http://a.example/x/z" },
        { "http://a.example/x/y?q=1", "/z", "http://a.example/z" },
        { "http://a.example/x/y?q=1", "?p=2", "http://a.example/x/y" },
        { "http://a.example:81/x", "//b.example/w", "http://b.example/w" },
        { "http://a.example:81/x", "w#part", "http://a.example:81/w" },
        { "http://a.example", "http://[2001:4860:4860::8888]:99/w",
          "http://[2001:4860:4860::8888]:99/w" },
    };
    Ctx *c = test_ctx();
    c->os = os_real();
    Url base, u;
    settings_use(NULL);
    for (size_t i = 0; i < countof(rows); i++) {
        CHECK_OK(c, model_url_parse(c, str_z(rows[i].base), &base));
        CHECK_OK(c, model_url_join(c, &base, str_z(rows[i].location), &u));
        CHECK_STR(u.shown, rows[i].want);
    }
    CHECK_ERR(model_url_join(c, &base, S("ftp://a.example/"), &u), ERR_INVALID);
    CHECK_ERR(model_url_join(c, &base, S("http://192.168.1.1/"), &u), ERR_DENIED);
}

// ---- uploads

static str begin_upload(ModelFix *f, const char *model, const char *body) {
    Ask a = { "POST", say(f->c, "/lathe/v1/models/%s/uploads", model), .body = str_z(body) };
    Answer got = model_fix_ask(f, &a);
    return got.status == 201 ? model_fix_member(f, &got, "id") : (str){ 0 };
}
static const char *upload_path(ModelFix *f, const char *model, str id, const char *tail) {
    return say(f->c, "/lathe/v1/models/%s/uploads/" STR_FMT "%s", model, STR_ARG(id), tail);
}
static const char *offset_header(ModelFix *f, size_t at) {
    return say(f->c, "Upload-Offset: %zu\r\n", at);
}
static Answer send_from(ModelFix *f, const char *path, size_t at, str bytes) {
    return model_fix_ask(f, &(Ask){ "PATCH", path, NULL, offset_header(f, at), bytes });
}
static void check_offset(ModelFix *f, const char *path, size_t want) {
    Answer a = model_fix_ask(f, &(Ask){ .method = "HEAD", .path = path });
    CHECK_INT(a.status, 200);
    CHECK_STR(answer_header(&a, "upload-offset"), say(f->c, "%zu", want));
}

static err finish(ModelFix *f, const char *path, Version *v) {
    Answer a = model_fix_ask(f, &(Ask){ "POST", path, .body = S("{}") });
    if (a.status != 202) return fail(f->c, ERR_CONFLICT, R_INTERNAL, "why", say_str(f->c, a.body));
    TRY(model_fix_version(f, arena_z(f->c->mem, model_fix_member(f, &a, "version")), v));
    if (!f->working) model_fix_work(f);
    return model_fix_settle(f, v);
}

MODEL_TEST(an_upload_in_pieces_becomes_a_version) {
    Ctx *c = f->c;
    Version v;
    char hex[BLOB_DIGEST_HEX + 1];
    str bytes = model_fix_gguf(c, "up", 5 << 20);
    size_t half = 2345678;
    sha256_hex(bytes, hex);
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_serve(f);
    str id = begin_upload(f, "m", say(c, "{\"size_bytes\":%zu,\"sha256\":\"%s\"}", bytes.n, hex));
    CHECK(id.n);
    const char *path = upload_path(f, "m", id, ""), *end = upload_path(f, "m", id, "/finish");
    check_offset(f, path, 0);
    CHECK_INT(model_fix_ask(f, &(Ask){ "POST", end }).status, 409); // nothing is here
    CHECK_INT(send_from(f, path, 0, str_sub(bytes, 0, half)).status, 204);
    check_offset(f, path, half);
    Answer a = send_from(f, path, half + 1, S("x"));
    CHECK_INT(a.status, 409);
    CHECK_STR(model_fix_member(f, &a, "reason"), "upload_offset");
    CHECK(has(a.body, say(c, "\"offset\":\"%zu\"", half)));
    CHECK_INT(model_fix_ask(f, &(Ask){ "POST", end }).status, 409); // not whole
    model_fix_rest(f); // as a restart of the server: what was answered for is there
    check_offset(f, path, half);
    const char *range = say(c, "Content-Range: bytes %zu-%zu/%zu\r\n", half, bytes.n - 1, bytes.n);
    str rest = str_sub(bytes, half, bytes.n);
    a = model_fix_ask(f, &(Ask){ "PUT", path, NULL, range, rest });
    CHECK_INT(a.status, 204);
    CHECK_STR(answer_header(&a, "upload-offset"), say(c, "%zu", bytes.n));
    CHECK_OK(c, finish(f, end, &v));
    CHECK_STR(v.state_reason, "");
    CHECK_INT(v.state, VERSION_READY);
    CHECK_STR(v.digest, hex);
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
    CHECK_INT(model_fix_ask(f, &(Ask){ .method = "GET", .path = path }).status, 404);
}

typedef struct Offset {
    ModelFix *f;
    str id;
    int64_t at;
} Offset;
static bool has_reached(void *arg) {
    Offset *o = arg;
    int64_t now = -1;
    Ctx *c = app_ctx_new(&o->f->app);
    bool there = !model_session_peek(c, o->id, &now) && now == o->at;
    app_ctx_free(c);
    return there;
}

static bool may_write(void *arg) { // nobody else does
    Offset *o = arg;
    Session *s;
    Ctx *c = app_ctx_new(&o->f->app);
    bool mine = !model_session_take(c, o->id, &s);
    if (mine) model_session_give(s);
    app_ctx_free(c);
    return mine;
}

MODEL_TEST(a_client_that_leaves_goes_on_later) {
    Ctx *c = f->c;
    Version v;
    str bytes = model_fix_gguf(c, "up", 3 << 20), id;
    size_t half = 1 << 20;
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_serve(f);
    id = begin_upload(f, "m", "{}");
    const char *path = upload_path(f, "m", id, "");
    int fd = raw_open(&f->addr);
    CHECK(raw_sendz(fd, say(c,
                            "PATCH %s HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\n"
                            "Content-Length: %zu\r\n\r\n",
                            path, bytes.n)));
    CHECK(raw_send(fd, str_sub(bytes, 0, half)));
    CHECK(job_fix_until(has_reached, &(Offset){ f, id, (int64_t)half }));
    CHECK_INT(send_from(f, path, half, S("x")).status, 409); // another writes still
    raw_close(fd);
    CHECK(job_fix_until(may_write, &(Offset){ f, id, 0 }));
    CHECK_INT(send_from(f, path, half, str_sub(bytes, half, bytes.n)).status, 204);
    CHECK_OK(c, finish(f, upload_path(f, "m", id, "/finish"), &v));
    CHECK_STR(v.state_reason, "");
    CHECK_INT(v.state, VERSION_READY);
    CHECK_INT(v.size_bytes, bytes.n);
}

typedef struct Wish {
    ModelFix *f;
    str id;
    int64_t waited_ns;
    bool got;
} Wish;

static void wish(void *arg) {
    Wish *w = arg;
    Session *s;
    Ctx *c = app_ctx_new(&w->f->app);
    int64_t since_ns = os_mono_ns(c->os);
    w->got = !model_session_take(c, w->id, &s);
    w->waited_ns = os_mono_ns(c->os) - since_ns;
    app_ctx_free(c);
}

// Each that waits for an upload that another writes has a worker of the few that there are for all.
MODEL_TEST(few_wait_for_an_upload_that_another_writes) {
    enum { MANY = 8 };
    Ctx *c = f->c;
    Session *s;
    Wish w[MANY];
    Thread t[MANY];
    int patient = 0;
    CHECK_OK(c, model_session_take(c, S("upload_few"), &s));
    for (int i = 0; i < MANY; i++) w[i] = (Wish){ f, S("upload_few"), 0, false };
    for (int i = 0; i < MANY; i++) thread_start(os_real(), "wish", wish, &w[i], &t[i]);
    for (int i = 0; i < MANY; i++) thread_join(t[i]);
    model_session_give(s);
    for (int i = 0; i < MANY; i++) {
        CHECK(!w[i].got);
        patient += w[i].waited_ns > 900000000;
    }
    CHECK(patient >= 1 && patient <= MANY / 2);
}

MODEL_TEST(an_upload_keeps_to_its_rules) {
    Ctx *c = f->c;
    CHECK_OK(c, model_fix_settings(f, "model.import_max=5000", "blob.grace=0"));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_model(f, "n", NULL));
    model_fix_serve(f);
    CHECK(!begin_upload(f, "m", "{\"size_bytes\":5001}").p);
    CHECK(!begin_upload(f, "m", "{\"size_bytes\":-1}").p);
    CHECK(!begin_upload(f, "m", "{\"sha256\":\"no\"}").p);
    CHECK(!begin_upload(f, "m", "{\"surprise\":1}").p);
    CHECK(!begin_upload(f, "absent", "{}").p);
    str id = begin_upload(f, "m", "{\"size_bytes\":100}"),
        more = str_n(model_fix_gguf(c, "x", 9000).p, 200);
    const char *path = upload_path(f, "m", id, "");
    CHECK_INT(send_from(f, path, 0, more).status, 400); // more than announced
    CHECK_INT(send_from(f, upload_path(f, "n", id, ""), 0, S("x")).status, 404);
    CHECK_INT(send_from(f, upload_path(f, "m", S("upload_x"), ""), 0, S("x")).status, 404);
    Answer a = model_fix_ask(f, &(Ask){ "PATCH", path, .body = S("x") });
    CHECK_INT(a.status, 400);
    CHECK_STR(model_fix_member(f, &a, "field"), "Upload-Offset");
    a = model_fix_ask(f, &(Ask){ "PATCH", path, NULL, "Upload-Offset: -1\r\n", S("x") });
    CHECK_INT(a.status, 400);
    a = model_fix_ask(
        f, &(Ask){ "PATCH", path, NULL, "Upload-Offset: 9223372036854775807\r\n", S("x") });
    CHECK_INT(a.status, 413);
    check_offset(f, path, 0);
    str open_id = begin_upload(f, "m", "{}");
    a = send_from(f, upload_path(f, "m", open_id, ""), 0, model_fix_gguf(c, "x", 5001));
    CHECK_INT(a.status, 413);
    for (int i = 2; i < UPLOADS_MAX; i++) CHECK(begin_upload(f, "m", "{}").p);
    CHECK(!begin_upload(f, "m", "{}").p);
    CHECK(begin_upload(f, "n", "{}").p);
    CHECK_OK(c, model_fix_delete(f, &model_resource, "m")); // its uploads go with it
    CHECK_INT(send_from(f, path, 0, S("x")).status, 404);
}

MODEL_TEST(an_upload_asks_who_it_is) {
    Ctx *c = f->c;
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_serve(f);
    str id = begin_upload(f, "m", "{}");
    const char *path = upload_path(f, "m", id, "");
    Ask a = { "PATCH", path, "viewer", "Upload-Offset: 0\r\n", S("x") };
    CHECK_INT(model_fix_ask(f, &a).status, 403);
    a.who = "other"; // of another project
    CHECK_INT(model_fix_ask(f, &a).status, 404);
    a.who = "developer";
    CHECK_INT(model_fix_ask(f, &a).status, 204);
    check_offset(f, path, 1);
}

MODEL_TEST(an_upload_that_is_given_up_leaves_nothing) {
    Ctx *c = f->c;
    int64_t removed = 0;
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_serve(f);
    model_fix_work(f);
    str id = begin_upload(f, "m", "{}"), other = begin_upload(f, "m", "{}");
    CHECK_INT(send_from(f, upload_path(f, "m", id, ""), 0, S("some bytes")).status, 204);
    CHECK_INT(send_from(f, upload_path(f, "m", other, ""), 0, S("some bytes")).status, 204);
    CHECK(model_fix_staged(f) > 0);
    const char *path = say(c, "/lathe/v1/model_uploads/" STR_FMT, STR_ARG(id));
    CHECK_INT(model_fix_ask(f, &(Ask){ .method = "DELETE", .path = path }).status, 204);
    CHECK_OK(c, model_uploads_trim(c, 1, &removed));
    CHECK_INT(removed, 0);
    CHECK_OK(c, model_uploads_trim(c, os_wall_ms(c->os) + 1, &removed));
    CHECK_INT(removed, 1);
    CHECK_STR(c->project, "proj_1");
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}

// ---- the action

MODEL_TEST(a_path_is_for_administrators) {
    Ctx *c = f->c;
    str path = model_fix_file(f, "x", model_fix_gguf(c, "x", 9000));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_serve(f);
    model_fix_work(f);
    Ask a = { "POST", "/lathe/v1/models/m/import",
              .body = str_z(say(c, "{\"path\":\"" STR_FMT "\"}", STR_ARG(path))) };
    static const char *const refused[] = { "owner", "developer", "viewer" };
    for (size_t i = 0; i < countof(refused); i++) {
        a.who = refused[i];
        CHECK_INT(model_fix_ask(f, &a).status, 403);
    }
    a.who = "admin";
    Answer got = model_fix_ask(f, &a);
    CHECK_INT(got.status, 202);
    CHECK(model_fix_member(f, &got, "job").n);
    // The same by making the row itself, which also goes by the rows' own checks.
    Model m;
    CHECK_OK(c, model_fix_get(f, "m", &m));
    Ask row = { "POST", "/lathe/v1/model_versions", "owner", NULL,
                str_z(say(
                    c, "{\"model\":\"m\",\"source\":{\"type\":\"path\",\"path\":\"" STR_FMT "\"}}",
                    STR_ARG(path))) };
    CHECK_INT(model_fix_ask(f, &row).status, 403);
    row.who = "admin";
    got = model_fix_ask(f, &row);
    CHECK_INT(got.status, 201);
    CHECK(model_fix_member(f, &got, "job").n);
    CHECK_STR(model_fix_member(f, &got, "state"), "waiting");
    CHECK_STR(model_fix_member(f, &got, "number"), "2");
    CHECK(!has(got.body, "staging"));
    CHECK(model_fix_idle(f));
    CHECK_OK(c, model_fix_get(f, "m", &m));
    CHECK_INT(m.latest, 2);
}
