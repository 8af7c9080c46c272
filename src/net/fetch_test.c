// SPDX-License-Identifier: Apache-2.0
// fetch_test.c - the blocking twin of the client, against our own server.
#include "net/client.h"
#include "net/talk_test.h"

static err echo(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    (void)route;
    http_reply_header(c, out, "X-Method", str_z(http_method_name(r->method)));
    buf_add(&out->body, body->bytes);
    return ERR_OK;
}
static const NetRoute *const routes[] = {
    &(const NetRoute){ HTTP_POST, "/echo", 1 << 20, 0, echo, NULL, NULL },
};

static FetchResult got;

static err fetch(Ctx *c, const Addr *to, const char *target, size_t max) {
    c->os = os_real();
    CallSpec spec = { .to = *to, .target = str_z(target) };
    got = (FetchResult){ 0 };
    return http_fetch(c, &spec, max, NULL, NULL, &got);
}

TEST(net_fetch_posts) {
    Rig *r = rig_start(&(RigSpec){ .routes = routes, .routes_n = countof(routes) });
    CHECK(r);
    Ctx *c = test_ctx();
    c->os = os_real();
    struct evbuffer *body = evbuffer_new();
    evbuffer_add(body, "some bytes", 10);
    CallSpec spec = { .to = r->addr, .method = HTTP_POST, .target = S("/echo"), .body = body };
    CHECK_OK(c, http_fetch(c, &spec, 1000, NULL, NULL, &got));
    CHECK_INT(got.status, 200);
    CHECK_STR(got.body, "some bytes");
    CHECK_INT(evbuffer_get_length(body), 0); // moved from
    bool found = false;
    for (size_t i = 0; i < got.headers_n; i++)
        found |= str_is(got.headers[i].name, "X-Method") && str_is(got.headers[i].value, "POST");
    CHECK(found);
    CHECK_OK(c, fetch(c, &r->addr, "/nowhere", 1000));
    CHECK_INT(got.status, 404);
    CHECK(str_find(got.body, S("no_route")) > 0);
    evbuffer_free(body);
    rig_stop(r);
}

TEST(net_fetch_over_a_unix_socket) {
    Ctx *c = test_ctx();
    Rig *r = rig_start(&(RigSpec){ .unix_path = say(c, "%s/s", test_dir()) });
    CHECK(r);
    CHECK_OK(c, fetch(c, &r->addr, "/hello", 100)); // with a Host, or it would be refused
    CHECK_STR(got.body, "hello");
    rig_stop(r);
}

TEST(net_fetch_has_a_limit) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    CHECK_OK(c, fetch(c, &r->addr, "/flood/1000000", 1000000));
    CHECK_INT(got.body.n, 1000000);
    CHECK_ERR(fetch(c, &r->addr, "/flood/1000000", 999999), ERR_TOOLARGE);
    CHECK_STR(failure_param(&c->failure, "limit"), "999999");
    CHECK(!got.status); // untouched
    rig_stop(r);
}

typedef struct Sink {
    int64_t bytes;
    int pieces, stop_at;
} Sink;
static bool sink(void *arg, str piece) {
    Sink *s = arg;
    s->bytes += (int64_t)piece.n;
    return ++s->pieces != s->stop_at;
}

TEST(net_fetch_in_pieces) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    c->os = os_real();
    Sink all = { 0 }, some = { .stop_at = 3 }, none = { 0 };
    CallSpec spec = { .to = r->addr, .target = S("/flood/5000000") };
    CHECK_OK(c, http_fetch(c, &spec, 10, sink, &all, &got));
    CHECK(all.bytes == 5000000 && got.status == 200 && !got.body.n);
    CHECK_OK(c, http_fetch(c, &spec, 10, sink, &some, &got)); // stopping is no error
    CHECK(some.pieces == 3 && some.bytes < 5000000);
    spec.target = S("/nowhere"); // an error's body is no piece of the answer
    CHECK_OK(c, http_fetch(c, &spec, 1000, sink, &none, &got));
    CHECK(none.pieces == 0 && got.status == 404 && got.body.n > 0);
    rig_stop(r);
}

static void cancel_soon(void *arg) {
    if (wait_int(&test_app.running, 1)) ctx_cancel(arg);
}

TEST(net_fetch_ends_with_its_context) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    c->os = os_real();
    c->deadline_ns = os_mono_ns(c->os) + 100 * 1000000;
    int64_t from = now_ms();
    CHECK_ERR(fetch(c, &r->addr, "/hang", 10), ERR_TIMEOUT);
    CHECK(now_ms() - from >= 95 && now_ms() - from < test_longer(3000));
    Thread t;
    c = test_ctx();
    atomic_store(&test_app.running, 0);
    thread_start(os_real(), "cancel", cancel_soon, c, &t);
    CHECK_ERR(fetch(c, &r->addr, "/hang", 10), ERR_CANCELLED);
    thread_join(t);
    CHECK_ERR(fetch(c, &r->addr, "/hang", 10), ERR_CANCELLED); // at once
    rig_stop(r);
}

TEST(net_fetch_failures) {
    Addr closed, up;
    Ctx *c = test_ctx();
    raw_close(up_listen(&closed, 1));
    CHECK_ERR(fetch(c, &closed, "/", 10), ERR_UNAVAILABLE);
    CHECK_STR(failure_param(&c->failure, "address"), closed.text);
    CHECK_STR(failure_param(&c->failure, "why"), "refused");
    int listener = up_listen(&up, 4); // takes connections, never answers
    c->os = os_real();
    CallSpec spec = { .to = up, .target = S("/"), .first_byte_ms = 80 };
    CHECK_ERR(http_fetch(c, &spec, 10, NULL, NULL, &got), ERR_TIMEOUT);
    CHECK_STR(failure_param(&c->failure, "why"), "timeout_first");
    raw_close(listener);
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    CHECK_ERR(fetch(c, &r->addr, "/aborting", 100), ERR_UPSTREAM);
    CHECK_STR(failure_param(&c->failure, "why"), "reset");
    rig_stop(r);
}
