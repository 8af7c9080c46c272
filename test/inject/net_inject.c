// SPDX-License-Identifier: Apache-2.0
// net_inject.c - a request and its answer, the server on its loop and the client on another: each
// call of either side fails. What the client takes for an answer is the answer; what fails says
// why; afterwards the same server answers.
#include "inject.h"
#include "net/client.h"
#include "net/tls_fix_test.h"

enum { BODY = 40000 };

static err ask(Ctx *c, Rig *r, const char *target, bool with_body, FetchResult *got) {
    CallSpec spec = { .to = r->addr, .target = str_z(target), .connect_ms = 2000, .idle_ms = 3000 };
    if (with_body) {
        spec.method = HTTP_POST;
        spec.body = evbuffer_new();
        str bytes = test_bytes(c, BODY);
        evbuffer_add(spec.body, bytes.p, bytes.n);
    }
    *got = (FetchResult){ 0 };
    err e = http_fetch(c, &spec, 1 << 20, NULL, NULL, got);
    if (spec.body) evbuffer_free(spec.body);
    return e;
}

static void judge(Ctx *c, err e, const FetchResult *got, str want) {
    CHECK_TOLERABLE(c, e);
    if (!e && got->status == 200) CHECK(str_eq(got->body, want));
    else if (!e) CHECK(got->status == 400 || got->status >= 500);
}

static void round_trip(const RigSpec *spec) {
    Ctx *c = inject_ctx();
    Rig *r = rig_start(spec);
    CHECK(r);
    FetchResult got;
    inject_on();
    err e = ask(c, r, "/hello", false, &got);
    judge(c, e, &got, S("hello"));
    e = ask(c, r, "/echo", true, &got); // a blocking handler
    judge(c, e, &got, test_bytes(c, BODY));
    e = ask(c, r, "/stream", true, &got);
    judge(c, e, &got, test_bytes(c, BODY));
    inject_off();
    CHECK_OK(c, ask(c, r, "/hello", false, &got));
    CHECK_STR(got.body, "hello");
    CHECK_OK(c, ask(c, r, "/echo", true, &got));
    CHECK(got.status == 200 && str_eq(got.body, test_bytes(c, BODY)));
    rig_stop(r);
}

INJECT(requests_over_tcp) { round_trip(&(RigSpec){ .plain = true }); }
INJECT(requests_over_a_unix_socket) {
    round_trip(&(RigSpec){ .plain = true, .unix_path = say(test_ctx(), "%s/s", inject_dir()) });
}

// --- over TLS: the handshake of both sides, and answers on a connection that is kept

static err ask_sealed(Ctx *c, const TlsRig *r, TlsClient *trust, const char *target,
                      FetchResult *got) {
    CallSpec spec = { .to = r->addr,
                      .tls = trust,
                      .tls_host = S("localhost"),
                      .target = str_z(target),
                      .connect_ms = 2000,
                      .idle_ms = 3000 };
    *got = (FetchResult){ 0 };
    return http_fetch(c, &spec, 1 << 20, NULL, NULL, got);
}

INJECT(tls_both_ways) {
    static const CertSpec ca = { "ca", NULL, NULL, 0, 0, false };
    static const CertSpec server = { "server", "DNS:localhost", "ca", 0, 0, false };
    Ctx *c = inject_ctx();
    cert_make(&ca);
    cert_make(&server);
    TlsIdentity id = cert_identity("server");
    TlsRig r;
    CHECK(tls_rig_start(&r, &(RigSpec){ .plain = true }, &id));
    TlsClient *trust = NULL;
    FetchResult got;
    inject_on();
    err opened = tls_client_new(c, cert_path("ca", "pem"), TLS_1_2, &trust);
    CHECK_TOLERABLE(c, opened);
    for (int i = 0; !opened && i < 2; i++) {
        err e = ask_sealed(c, &r, trust, "/hello", &got);
        judge(c, e, &got, S("hello"));
    }
    inject_off();
    if (opened) CHECK_OK(c, tls_client_new(c, cert_path("ca", "pem"), TLS_1_2, &trust));
    CHECK_OK(c, ask_sealed(c, &r, trust, "/hello", &got));
    CHECK_STR(got.body, "hello");
    tls_client_free(trust);
    tls_rig_stop(&r);
}
