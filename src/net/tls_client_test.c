// SPDX-License-Identifier: Apache-2.0
// tls_client_test.c - our client over TLS, to our server and to one of OpenSSL's: whom it trusts,
// what it calls a failure, its pool, its cancels; and client certificates at the server.
#include "net/reason.h"
#include "net/talk_test.h"
#include "net/tls_fix_test.h"
#include "os/file.h"
#include <openssl/pem.h>

static const CertSpec authority = { "ca", NULL, NULL, 0, 0, false };
static const CertSpec stranger = { "stranger", NULL, NULL, 0, 0, false };

typedef struct Both {
    TlsRig rig;
    Line line;
    TlsClient *trust;
} Both;

static bool both_start(Both *b, const CertSpec *server) {
    Ctx *c = real_ctx();
    *b = (Both){ 0 };
    cert_make(&authority);
    cert_make(&stranger);
    cert_make(server);
    TlsIdentity id = cert_identity(server->name);
    if (!tls_rig_start(&b->rig, &(RigSpec){ 0 }, &id)) return false;
    if (tls_client_new(c, cert_path("ca", "pem"), TLS_1_2, &b->trust)) return false;
    line_open(&b->line, 4, 5000);
    return true;
}

static void both_stop(Both *b) {
    line_close(&b->line);
    tls_client_free(b->trust);
    tls_rig_stop(&b->rig);
}

static Talk talk_of(const Both *b, const char *target) {
    return (Talk){ .spec = { .to = b->rig.addr,
                             .tls = b->trust,
                             .tls_host = S("localhost"),
                             .target = str_z(target),
                             .connect_ms = 9000 } };
}

static CallEnd ends(Both *b, TlsClient *trust, str host) {
    Talk t = talk_of(b, "/hello");
    t.spec.tls = trust, t.spec.tls_host = host;
    talk_start(&b->line, &t);
    CallEnd why = talk_wait(&t) ? t.why : CALL_TIMEOUT_IDLE;
    talk_done(&t);
    return why;
}

static const CertSpec good = { "server", "DNS:localhost,DNS:*.example.org,IP:127.0.0.1", "ca", 0, 0,
                               false };

TEST(net_tls_client_wants_the_name_it_asked_for) {
    Both b;
    if (!both_start(&b, &good)) return;
    CHECK_INT(ends(&b, b.trust, S("localhost")), CALL_OK);
    CHECK_INT(ends(&b, b.trust, S("a.example.org")), CALL_OK);
    CHECK_INT(ends(&b, b.trust, S("127.0.0.1")), CALL_OK);
    CHECK_INT(ends(&b, b.trust, (str){ 0 }), CALL_OK); // that of the address
    static const char *const others[] = {
        "example.org", "a.b.example.org", "server", "127.0.0.2", "::1", "", "localhost.evil"
    };
    for (size_t i = 0; i < countof(others); i++)
        if (ends(&b, b.trust, str_z(others[i])) != CALL_TLS_WRONG_HOST)
            test_failed(__FILE__, __LINE__, "\"%s\" was trusted", others[i]);
    CHECK_INT(atomic_load(&b.rig.rig->left), 4); // the others sent nothing
    both_stop(&b);
}

TEST(net_tls_client_wants_an_authority_it_trusts) {
    Ctx *c = real_ctx();
    Both b;
    TlsClient *other, *system;
    if (!both_start(&b, &good)) return;
    CHECK_OK(c, tls_client_new(c, cert_path("stranger", "pem"), TLS_1_2, &other));
    CHECK_OK(c, tls_client_new(c, S(""), TLS_1_2, &system));
    CHECK_INT(ends(&b, other, S("localhost")), CALL_TLS_UNKNOWN_CA);
    CHECK_INT(ends(&b, system, S("localhost")), CALL_TLS_UNKNOWN_CA);
    CHECK_INT(ends(&b, b.trust, S("localhost")), CALL_OK);
    // A connection under one trust is not another's.
    CHECK_INT(ends(&b, other, S("localhost")), CALL_TLS_UNKNOWN_CA);
    CHECK_STR(str_z(call_end_name(CALL_TLS_UNKNOWN_CA)), "certificate_authority_unknown");
    CHECK(call_end_unsent(CALL_TLS_UNKNOWN_CA) && !call_end_unsent(CALL_TLS_REFUSED));
    CHECK_INT(atomic_load(&b.rig.rig->left), 1);
    line_close(&b.line);
    line_open(&b.line, 0, 0);
    tls_client_free(other);
    tls_client_free(system);
    both_stop(&b);
}

// The server began while its certificate was good: for the client it is over.
TEST(net_tls_client_wants_a_certificate_in_date) {
    static const int spans[][2] = { { -7200, -3600 }, { 3600, 7200 } };
    for (size_t i = 0; i < countof(spans); i++) {
        Both b;
        if (!both_start(&b, &good)) return;
        CertSpec old = { "old", "DNS:localhost", "ca", spans[i][0], spans[i][1], false };
        cert_make(&old);
        SSL_CTX *ctx = tls_context_base(TLS_server_method(), TLS_1_2), *before;
        CHECK_INT(SSL_CTX_use_certificate_file(ctx, cert_path("old", "pem").p, SSL_FILETYPE_PEM),
                  1);
        CHECK_INT(SSL_CTX_use_PrivateKey_file(ctx, cert_path("old", "key").p, SSL_FILETYPE_PEM), 1);
        pthread_mutex_lock(&b.rig.tls->mutex);
        before = b.rig.tls->now, b.rig.tls->now = ctx;
        pthread_mutex_unlock(&b.rig.tls->mutex);
        CHECK_INT(ends(&b, b.trust, S("localhost")), CALL_TLS_EXPIRED);
        SSL_CTX_free(before);
        both_stop(&b);
    }
}

TEST(net_tls_client_of_a_plain_server_fails_in_time) {
    Both b;
    if (!both_start(&b, &good)) return;
    b.rig.addr = b.rig.rig->addr;
    CHECK_INT(ends(&b, b.trust, S("localhost")), CALL_TLS_BROKEN);
    // One that accepts and says nothing: the time to connect counts the greeting.
    int up = up_listen(&b.rig.addr, 4);
    Talk t = talk_of(&b, "/");
    t.spec.connect_ms = 200;
    talk_start(&b.line, &t);
    CHECK(talk_wait(&t));
    CHECK_INT(t.why, CALL_TIMEOUT_CONNECT);
    talk_done(&t);
    raw_close(up);
    both_stop(&b);
}

TEST(net_tls_client_reuses_its_connection_and_streams_both_ways) {
    Ctx *c = real_ctx();
    Both b;
    if (!both_start(&b, &good)) return;
    str body = test_bytes(c, 2000000);
    for (int i = 0; i < 6; i++) {
        Talk t = talk_of(&b, "/stream");
        t.spec.method = HTTP_POST;
        t.spec.body_streams = i % 2;
        t.take_most = i % 3 == 2 ? 50000 : 0;
        t.body = body;
        talk_start(&b.line, &t);
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, CALL_OK);
        CHECK_INT(t.reused, i > 0);
        CHECK(str_eq(buf_str(&t.answer), body));
        talk_done(&t);
    }
    CHECK_INT(tls_server_facts(b.rig.tls).full, 1);
    both_stop(&b);
}

static bool someone_left(void *arg) {
    return !server_counts(((TlsRig *)arg)->rig->server).connections;
}

TEST(net_tls_client_that_cancels_is_gone_at_once) {
    Both b;
    if (!both_start(&b, &good)) return;
    Talk t = talk_of(&b, "/hang-begun");
    talk_start(&b.line, &t);
    CHECK(wait_int(&t.heads, 1));
    int64_t from = now_ms();
    talk_cancel(&t);
    CHECK(wait_until(someone_left, &b.rig));
    CHECK(now_ms() - from < test_longer(2000)); // well under 100 ms on a quiet machine
    CHECK(wait_int(&test_app.gone, 1));
    talk_done(&t);
    both_stop(&b);
}

// ---- an upstream of OpenSSL's, which ends as it likes

typedef struct Up {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
} Up;
static bool up_open(Up *u, int listener) {
    u->fd = up_accept(listener);
    u->ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate_file(u->ctx, cert_path("server", "pem").p, SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(u->ctx, cert_path("server", "key").p, SSL_FILETYPE_PEM);
    u->ssl = SSL_new(u->ctx);
    SSL_set_fd(u->ssl, u->fd);
    return SSL_accept(u->ssl) == 1;
}
static void up_done(Up *u) {
    SSL_free(u->ssl);
    SSL_CTX_free(u->ctx);
    raw_close(u->fd);
}

// A body that ends with the connection is whole only when the server has said so.
TEST(net_tls_client_takes_no_cut_for_an_end) {
    Both b;
    if (!both_start(&b, &good)) return;
    for (int says = 0; says < 2; says++) {
        char part[4000];
        static const char answer[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf";
        int listener = up_listen(&b.rig.addr, 4);
        Talk t = talk_of(&b, "/");
        Up up;
        talk_start(&b.line, &t);
        CHECK(up_open(&up, listener));
        CHECK(SSL_read(up.ssl, part, sizeof part) > 0);
        CHECK(SSL_write(up.ssl, answer, sizeof answer - 1) > 0);
        CHECK(wait_int(&t.got, 4));
        if (says) SSL_shutdown(up.ssl);
        up_done(&up);
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, says ? CALL_OK : CALL_RESET);
        talk_done(&t);
        raw_close(listener);
    }
    both_stop(&b);
}

// ---- certificates of clients

static err tell_peer(Ctx *c, const NetRoute *route, const HttpRequest *q, const HttpBody *body,
                     HttpReply *out) {
    (void)c, (void)route, (void)body;
    buf_printf(&out->body, "%d " STR_FMT " " STR_FMT, q->tls, STR_ARG(q->tls_subject),
               STR_ARG(q->tls_fingerprint));
    return ERR_OK;
}
static const NetRoute who = { HTTP_GET, "/who", 0, 0, tell_peer, NULL, NULL };
static const NetRoute *const who_routes[] = { &who };

// What a client with this certificate is told; absent: it was not served.
static str ask_who(TlsRig *r, const char *certificate, int version) {
    Peer p;
    peer_open(&p, &r->addr, "ca");
    SSL_set_max_proto_version(p.ssl, version);
    if (certificate) peer_certificate(&p, certificate);
    str said = { 0 };
    if (peer_greet(&p)) {
        Answer a = peer_answer(&p, "GET /who HTTP/1.1\r\nHost: x\r\n\r\n");
        if (a.status == 200) said = a.body;
    }
    peer_close(&p);
    return said;
}

static bool who_start(TlsRig *r, TlsAsk ask) {
    cert_make(&authority);
    cert_make(&stranger);
    cert_make(&good);
    cert_make(&(CertSpec){ "ops", "DNS:ops", "ca", 0, 0, false });
    cert_make(&(CertSpec){ "evil", "DNS:ops", "stranger", 0, 0, false });
    cert_make(&(CertSpec){ "late", "DNS:ops", "ca", -7200, -3600, false });
    TlsIdentity id = cert_identity("server");
    id.ask = ask;
    id.client_ca = cert_path("ca", "pem");
    return tls_rig_start(r, &(RigSpec){ .routes = who_routes, .routes_n = 1 }, &id);
}

TEST(net_tls_server_asks_for_certificates) {
    for (int ask = TLS_ASK_NONE; ask <= TLS_ASK_REQUIRE; ask++) {
        TlsRig r;
        CHECK(who_start(&r, (TlsAsk)ask));
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
            CHECK_INT(!!ask_who(&r, NULL, version).p, ask != TLS_ASK_REQUIRE);
            CHECK_INT(!!ask_who(&r, "evil", version).p, ask == TLS_ASK_NONE);
            CHECK_INT(!!ask_who(&r, "late", version).p, ask == TLS_ASK_NONE);
            str said = ask_who(&r, "ops", version);
            CHECK(ask == TLS_ASK_NONE ? str_is(said, "1  ") : str_starts(said, S("1 CN=ops ")));
            if (ask != TLS_ASK_NONE) CHECK_INT(said.n, strlen("1 CN=ops ") + 64);
        }
        tls_rig_stop(&r);
    }
}

// Our client has no certificate to show: the server's refusal is told as one.
TEST(net_tls_client_tells_of_a_refusal) {
    TlsRig r;
    Both b = { 0 };
    Ctx *c = real_ctx();
    CHECK(who_start(&r, TLS_ASK_REQUIRE));
    CHECK_OK(c, tls_client_new(c, cert_path("ca", "pem"), TLS_1_2, &b.trust));
    line_open(&b.line, 4, 5000);
    b.rig = r;
    CHECK_INT(ends(&b, b.trust, S("localhost")), CALL_TLS_REFUSED);
    both_stop(&b);
}

// ---- keys that must not be used

static void write_encrypted(const char *name) {
    Ctx *c = real_ctx();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *b = BIO_new(BIO_s_mem());
    char *p;
    PEM_write_bio_PKCS8PrivateKey(b, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
    long n = BIO_get_mem_data(b, &p);
    CHECK_OK(c, file_write_all(c, cert_path(name, "key"), str_n(p, (size_t)n), FILE_PRIVATE));
    BIO_free(b);
    EVP_PKEY_free(key);
}

TEST(net_tls_refuses_keys_that_are_open_or_encrypted) {
    Ctx *c = real_ctx();
    TlsFacts f;
    cert_make(&authority);
    cert_make(&good);
    TlsIdentity id = cert_identity("server");
    CHECK_OK(c, tls_identity_check(c, &id, &f));
    CHECK(f.to_ms > os_wall_ms(c->os) && f.from_ms < os_wall_ms(c->os));
    str text;
    CHECK_OK(c, file_read_all(c, id.key, 1 << 20, &text));
    CHECK_OK(c, path_remove(c, id.key));
    CHECK_OK(c, file_write_all(c, id.key, text, 0)); // 0644
    CHECK_ERR(tls_identity_check(c, &id, &f), ERR_INVALID);
    CHECK(c->failure.why == &R_TLS_OPEN_KEY);
    write_encrypted("server");
    CHECK_ERR(tls_identity_check(c, &id, &f), ERR_INVALID);
    CHECK(c->failure.why == &R_TLS_FILE);
    CHECK(str_find(failure_param(&c->failure, "why"), S("encrypted")) >= 0);
}
