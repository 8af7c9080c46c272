// SPDX-License-Identifier: Apache-2.0
// fetch_test.c - the blocking twin of the client, against our own server.
#include "net/client.h"
#include "net/fixture_test.h"

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

TEST(net_fetch_posts) {
    Rig *r = rig_start(&(RigSpec){ .routes = routes, .routes_n = countof(routes) });
    CHECK(r);
    Ctx *c = test_ctx();
    c->os = os_real();
    struct evbuffer *body = evbuffer_new();
    evbuffer_add(body, "some bytes", 10);
    CallSpec spec = { .to = r->addr, .method = HTTP_POST, .target = S("/echo"), .body = body };
    FetchResult got;
    CHECK_OK(c, http_fetch(c, &spec, 1000, NULL, NULL, &got));
    CHECK_INT(got.status, 200);
    CHECK_STR(got.body, "some bytes");
    spec.target = S("/nowhere");
    CHECK_OK(c, http_fetch(c, &spec, 1000, NULL, NULL, &got));
    CHECK_INT(got.status, 404);
    CHECK(str_find(got.body, S("no_route")) > 0);
    evbuffer_free(body);
    rig_stop(r);
}
