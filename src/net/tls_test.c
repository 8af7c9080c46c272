// SPDX-License-Identifier: Apache-2.0
// tls_test.c - the TLS listener: versions, whole answers, ends, slow and cut greetings, floods,
// reloads, tickets, client certificates.
#include "net/reason.h"
#include "net/tls_fix_test.h"
#include "os/file.h"
#include <openssl/x509v3.h>

static const CertSpec authority = { "ca", NULL, NULL, 0, 0, false };
static const CertSpec server = { "server", "DNS:localhost,IP:127.0.0.1", "ca", 0, 0, false };

// A rig with both certificates.
static bool start(TlsRig *r, const RigSpec *spec) {
    cert_make(&authority);
    cert_make(&server);
    TlsIdentity id = cert_identity("server");
    return tls_rig_start(r, spec, &id);
}

static bool says_hello(TlsRig *r) {
    Peer p;
    peer_open(&p, &r->addr, "ca");
    bool good =
        peer_greet(&p) && peer_answer(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status == 200;
    peer_close(&p);
    return good;
}

TEST(net_tls_speaks_1_2_and_1_3_and_nothing_older) {
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    for (int version = TLS1_1_VERSION; version <= TLS1_3_VERSION; version++) {
        Peer p;
        peer_open(&p, &r.addr, "ca");
        SSL_set_security_level(p.ssl, 0);
        SSL_set_min_proto_version(p.ssl, version);
        SSL_set_max_proto_version(p.ssl, version);
        CHECK_INT(peer_greet(&p), version >= TLS1_2_VERSION);
        if (version >= TLS1_2_VERSION) {
            CHECK_INT(SSL_version(p.ssl), version);
            EVP_PKEY *fresh = NULL;
            CHECK_INT(SSL_get_peer_tmp_key(p.ssl, &fresh), 1); // forward secrecy
            EVP_PKEY_free(fresh);
            Answer a = peer_answer(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
            CHECK_INT(a.status, 200);
        }
        peer_close(&p);
    }
    TlsFacts f = tls_server_facts(r.tls);
    CHECK_INT(f.full, 2);
    tls_rig_stop(&r);
}

TEST(net_tls_1_3_alone_refuses_1_2) {
    TlsRig r;
    cert_make(&authority);
    cert_make(&server);
    TlsIdentity id = cert_identity("server");
    id.least = TLS_1_3;
    CHECK(tls_rig_start(&r, &(RigSpec){ 0 }, &id));
    Peer p;
    peer_open(&p, &r.addr, "ca");
    SSL_set_max_proto_version(p.ssl, TLS1_2_VERSION);
    CHECK(!peer_greet(&p));
    peer_close(&p);
    CHECK(says_hello(&r));
    tls_rig_stop(&r);
}

TEST(net_tls_echoes_bodies_larger_than_records_and_marks) {
    static const size_t sizes[] = { 1, 16383, 16384, 16385, 65536, 300000, 3000000 };
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    CHECK(peer_greet(&p));
    for (size_t i = 0; i < countof(sizes); i++) {
        Ctx *c = test_ctx();
        str body = test_bytes(c, sizes[i]);
        const char *head =
            say(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", body.n);
        CHECK(peer_write(&p, str_z(head)));
        for (size_t at = 0; at < body.n; at += 100000)
            CHECK(peer_write(&p, str_sub(body, at, 100000)));
        Answer a = peer_answer(&p, "");
        CHECK_INT(a.status, 200);
        CHECK(str_eq(a.body, body));
    }
    peer_close(&p);
    tls_rig_stop(&r);
}

// Each greeting and request arrives one byte at a time.
TEST(net_tls_takes_single_bytes) {
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    for (int rc = 0; rc != 1;) {
        char part[4000];
        rc = SSL_do_handshake(p.ssl);
        CHECK(rc == 1 || SSL_get_error(p.ssl, rc) == SSL_ERROR_WANT_READ);
        while (BIO_ctrl_pending(p.out)) CHECK(peer_send(&p, 1));
        if (rc == 1) break;
        int64_t n = raw_exactly(p.fd, 1, part);
        CHECK_INT(n, 1);
        BIO_write(p.in, part, 1);
    }
    const char *ask = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    SSL_write(p.ssl, ask, (int)strlen(ask));
    while (BIO_ctrl_pending(p.out)) CHECK(peer_send(&p, 1));
    CHECK_INT(peer_answer(&p, "").status, 200);
    peer_close(&p);
    tls_rig_stop(&r);
}

// Sends the first `at` bytes of a greeting; false: it was over before.
static bool greet_up_to(Peer *p, size_t at) {
    for (size_t left = at;;) {
        int rc = SSL_do_handshake(p->ssl);
        size_t has = BIO_ctrl_pending(p->out), some = has < left ? has : left;
        if (!peer_send(p, some)) return true;
        left -= some;
        if (some < has || !left) return true;
        if (rc == 1) return false;
        if (!peer_more(p)) return true;
    }
}

// Cut at every byte of what the client says in its greeting, by an end and by a reset.
static void cut_everywhere(TlsRig *r, int version) {
    size_t at = 0;
    for (bool within = true; within; at++) {
        Peer p;
        peer_open(&p, &r->addr, "ca");
        SSL_set_max_proto_version(p.ssl, version);
        within = greet_up_to(&p, at);
        if (at % 2) raw_reset(p.fd), p.fd = -1;
        peer_close(&p);
    }
    CHECK(at > 250);
    CHECK(wait_connections(r->rig, 0));
    CHECK_INT(server_counts(r->rig->server).greetings, 0);
    CHECK(says_hello(r));
}

TEST(net_tls_survives_a_greeting_cut_at_every_byte) {
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    cut_everywhere(&r, TLS1_2_VERSION);
    cut_everywhere(&r, TLS1_3_VERSION);
    tls_rig_stop(&r);
}

TEST(net_tls_answers_nonsense_with_its_end) {
    static const str bad[] = { { "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 32 },
                               { "\x16\x03\x01\xff\xff\x01", 6 },             // a record too long
                               { "\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9 }, // a hello of a server
                               { "\x16\x03\x01\x00\x04\x01\xff\xff\xff", 9 }, // of 16 MiB
                               { "\x17\x03\x03\x00\x01x", 6 },                // data before all
                               { "\x15\x03\x03\x00\x02\x02\x28", 7 } };       // a fatal alert
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    for (size_t i = 0; i < countof(bad); i++) {
        int fd = raw_open(&r.addr);
        raw_send(fd, bad[i]);
        if (!raw_ended(fd)) test_failed(__FILE__, __LINE__, "%zu: it stays", i);
        raw_close(fd);
    }
    CHECK_INT(tls_server_facts(r.tls).failed, countof(bad));
    CHECK(says_hello(&r));
    tls_rig_stop(&r);
}

TEST(net_tls_ends_a_slow_greeting) {
    TlsRig r;
    if (!start(&r, &(RigSpec){ .config.head_timeout_ms = 300 })) return;
    Peer p;
    int64_t from = now_ms(); // before the server's time begins
    peer_open(&p, &r.addr, "ca");
    SSL_do_handshake(p.ssl);
    CHECK(peer_send(&p, 100));
    CHECK(raw_ended(p.fd));
    CHECK(now_ms() - from >= 250 && now_ms() - from < test_longer(9000));
    peer_close(&p);
    tls_rig_stop(&r);
}

static bool four_greet(void *rig) { return server_counts(((Rig *)rig)->server).greetings == 4; }

TEST(net_tls_lets_the_oldest_of_too_many_greetings_go) {
    TlsRig r;
    if (!start(&r, &(RigSpec){ .config.greetings_max = 4 })) return;
    int fds[20];
    for (size_t i = 0; i < countof(fds); i++) {
        fds[i] = raw_open(&r.addr);
        raw_send(fds[i], S("\x16\x03\x01"));
    }
    for (size_t i = 0; i < 16; i++) CHECK(raw_ended(fds[i]));
    CHECK(wait_connections(r.rig, 4));
    CHECK(wait_until(four_greet, r.rig));
    CHECK_INT(server_counts(r.rig->server).greetings_dropped, 16);
    CHECK(says_hello(&r)); // and one who greets in earnest is served
    for (size_t i = 0; i < countof(fds); i++) raw_close(fds[i]);
    tls_rig_stop(&r);
}

// ---- ends

TEST(net_tls_says_its_end_after_the_last_answer) {
    char part[100];
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    CHECK(peer_greet(&p));
    CHECK_INT(peer_answer(&p, "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status,
              200);
    CHECK_INT(peer_read(&p, part, sizeof part), 0);
    peer_close(&p);
    tls_rig_stop(&r);
}

TEST(net_tls_says_its_end_when_idle_is_over) {
    char part[100];
    TlsRig r;
    if (!start(&r, &(RigSpec){ .config.idle_timeout_ms = 100 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    CHECK(peer_greet(&p));
    CHECK_INT(peer_answer(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    CHECK_INT(peer_read(&p, part, sizeof part), 0);
    peer_close(&p);
    tls_rig_stop(&r);
}

// HTTP/1.0: the body ends with the connection, so an abort must not look like its end.
TEST(net_tls_an_aborted_answer_has_no_end) {
    char part[4000];
    int got;
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    CHECK(peer_greet(&p));
    CHECK(peer_write(&p, S("GET /aborting HTTP/1.0\r\n\r\n")));
    while ((got = peer_read(&p, part, sizeof part)) > 0) {}
    CHECK_INT(got, -1);
    peer_close(&p);
    tls_rig_stop(&r);
}

// A client that has said its end after its answer was complete here still gets all of it.
TEST(net_tls_serves_the_rest_to_a_half_closed_client) {
    enum { BODY = 4000000 };
    char part[64000];
    int got;
    size_t all = 0;
    Ctx *c = real_ctx();
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    CHECK(peer_greet(&p));
    CHECK(peer_write(
        &p, str_z(say(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", BODY))));
    str body = test_bytes(c, BODY);
    for (size_t at = 0; at < BODY; at += 100000) CHECK(peer_write(&p, str_sub(body, at, 100000)));
    CHECK(peer_read(&p, part, 1) == 1);
    SSL_shutdown(p.ssl);
    CHECK(peer_send(&p, SIZE_MAX));
    while ((got = peer_read(&p, part, sizeof part)) > 0) all += (size_t)got;
    CHECK_INT(got, 0);
    CHECK(all > BODY);
    peer_close(&p);
    tls_rig_stop(&r);
}

TEST(net_tls_a_body_cut_without_an_end_is_not_served) {
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer p;
    peer_open(&p, &r.addr, "ca");
    CHECK(peer_greet(&p));
    CHECK(peer_write(&p, S("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")));
    CHECK(wait_active(r.rig, 1));
    peer_close(&p);
    CHECK(wait_int(&r.rig->left, 1));
    CHECK_INT(atomic_load(&r.rig->left_status), 499);
    tls_rig_stop(&r);
}

// ---- tickets and reloads

static SSL_SESSION *kept;
static int keep_session(SSL *ssl, SSL_SESSION *s) {
    (void)ssl;
    SSL_SESSION_free(kept);
    kept = s;
    return 1;
}

// One greeting that resumes `kept` if there is one; whether it did.
static int resumes(TlsRig *r, int version) {
    Peer p;
    peer_open(&p, &r->addr, "ca");
    SSL_CTX_set_session_cache_mode(p.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(p.ctx, keep_session);
    SSL_set_max_proto_version(p.ssl, version);
    if (kept) SSL_set_session(p.ssl, kept);
    bool good =
        peer_greet(&p) && peer_answer(&p, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status == 200;
    int did = good ? SSL_session_reused(p.ssl) : -1;
    SSL_set_shutdown(p.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); // else it is forgotten
    peer_close(&p);
    return did;
}

TEST(net_tls_resumes_by_ticket_until_a_reload) {
    Ctx *c = real_ctx();
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        TlsIdentity id = cert_identity("server");
        CHECK_INT(resumes(&r, version), 0);
        CHECK_INT(resumes(&r, version), 1);
        CHECK_OK(c, tls_server_reload(c, r.tls, &id));
        CHECK_INT(resumes(&r, version), 0);
        SSL_SESSION_free(kept);
        kept = NULL;
    }
    TlsFacts f = tls_server_facts(r.tls);
    CHECK_INT(f.resumed, 2);
    CHECK_INT(f.full, 4);
    tls_rig_stop(&r);
}

TEST(net_tls_a_reload_cuts_none_and_serves_the_new) {
    Ctx *c = real_ctx();
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    Peer old, next;
    peer_open(&old, &r.addr, "ca");
    CHECK(peer_greet(&old));
    CHECK(peer_write(&old, S("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n")));
    CHECK(wait_active(r.rig, 1));
    cert_make(&(CertSpec){ "other", "DNS:other", "ca", 0, 0, true });
    TlsIdentity id = cert_identity("other");
    TlsFacts before = tls_server_facts(r.tls);
    CHECK_OK(c, tls_server_reload(c, r.tls, &id));
    TlsFacts after = tls_server_facts(r.tls);
    CHECK(strcmp(before.fingerprint, after.fingerprint) && strlen(after.fingerprint) == 64);
    peer_open(&next, &r.addr, "ca");
    CHECK(peer_greet(&next));
    X509 *cert = SSL_get1_peer_certificate(next.ssl);
    CHECK_INT(X509_check_host(cert, "other", 0, 0, NULL), 1);
    X509_free(cert);
    peer_close(&next);
    atomic_store(&test_app.gate, true);
    CHECK_INT(peer_answer(&old, "").status, 200);
    peer_close(&old);
    tls_rig_stop(&r);
}

static void copy_file(const char *from, const char *kind, const char *to, size_t most) {
    Ctx *c = real_ctx();
    str text;
    CHECK_OK(c, file_read_all(c, cert_path(from, kind), 1 << 20, &text));
    CHECK_OK(c, file_write_all(c, cert_path(to, kind), str_sub(text, 0, most), FILE_PRIVATE));
}

TEST(net_tls_refuses_bad_files_and_keeps_the_old) {
    Ctx *c = real_ctx();
    TlsRig r;
    if (!start(&r, &(RigSpec){ 0 })) return;
    TlsIdentity good = cert_identity("server"), id;
    cert_make(&(CertSpec){ "old", "DNS:x", "ca", -7200, -3600, false });
    cert_make(&(CertSpec){ "early", "DNS:x", "ca", 3600, 7200, false });
    cert_make(&(CertSpec){ "rsa", "DNS:x", "ca", 0, 0, true });
    copy_file("server", "pem", "cut", 300);
    copy_file("server", "key", "cut", 100);
    const struct {
        str cert, key;
        const Reason *why;
    } bad[] = {
        { cert_path("old", "pem"), cert_path("old", "key"), &R_TLS_DATE },
        { cert_path("early", "pem"), cert_path("early", "key"), &R_TLS_DATE },
        { good.cert, cert_path("old", "key"), &R_TLS_MATCH },
        { good.cert, cert_path("rsa", "key"), &R_TLS_MATCH },
        { cert_path("cut", "pem"), good.key, &R_TLS_FILE },
        { good.cert, cert_path("cut", "key"), &R_TLS_FILE },
        { good.key, good.key, &R_TLS_FILE },
        { good.cert, good.cert, &R_TLS_FILE },
        { S(""), good.key, &R_TLS_FILE },
    };
    for (size_t i = 0; i < countof(bad); i++) {
        id = (TlsIdentity){ .cert = bad[i].cert, .key = bad[i].key };
        CHECK_ERR(tls_server_reload(c, r.tls, &id), ERR_INVALID);
        if (c->failure.why != bad[i].why)
            test_failed(__FILE__, __LINE__, "%zu: %s", i, c->failure.why->slug);
    }
    id = (TlsIdentity){ .cert = cert_path("none", "pem"), .key = good.key };
    CHECK_ERR(tls_server_reload(c, r.tls, &id), ERR_NOTFOUND);
    CHECK_INT(tls_server_facts(r.tls).reloads, 0);
    CHECK(says_hello(&r));
    tls_rig_stop(&r);
}
