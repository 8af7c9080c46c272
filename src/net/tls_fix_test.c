// SPDX-License-Identifier: Apache-2.0
// tls_fix_test.c - see tls_fix_test.h.
#include "net/tls_fix_test.h"
#include "os/file.h"
#include <assert.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

str cert_path(const char *name, const char *kind) {
    return arena_printf(test_ctx()->mem, "%s/%s.%s", test_dir(), name, kind);
}

Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

TlsIdentity cert_identity(const char *name) {
    return (TlsIdentity){ .cert = cert_path(name, "pem"), .key = cert_path(name, "key") };
}

static void write_pem(const char *name, const char *kind, BIO *b) {
    char *p;
    Ctx *c = real_ctx();
    long n = BIO_get_mem_data(b, &p);
    err e = file_write_all(c, cert_path(name, kind), str_n(p, (size_t)n), FILE_PRIVATE);
    assert(!e);
    BIO_free(b);
}

static void *read_pem(const char *name, bool key) {
    str path = cert_path(name, key ? "key" : "pem");
    FILE *f = fopen(path.p, "r");
    assert(f);
    void *out = key ? (void *)PEM_read_PrivateKey(f, NULL, NULL, NULL)
                    : (void *)PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    assert(out);
    return out;
}

static void extend(X509 *cert, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert(e);
    X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
}

void cert_make(const CertSpec *spec) {
    EVP_PKEY *key = spec->rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *cert = X509_new(), *by = spec->by ? read_pem(spec->by, false) : cert;
    EVP_PKEY *signer = spec->by ? read_pem(spec->by, true) : key;
    X509_NAME *name = X509_get_subject_name(cert);
    bool dated = spec->from_s || spec->to_s;
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set_int64(X509_get_serialNumber(cert), (int64_t)(test_random() >> 2));
    X509_gmtime_adj(X509_getm_notBefore(cert), dated ? spec->from_s : -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), dated ? spec->to_s : 86400);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)spec->name, -1, -1,
                               0);
    X509_set_issuer_name(cert, X509_get_subject_name(by));
    X509_set_pubkey(cert, key);
    extend(cert, by, NID_basic_constraints, spec->san ? "CA:FALSE" : "critical,CA:TRUE");
    if (spec->san) extend(cert, by, NID_subject_alt_name, spec->san);
    int size = X509_sign(cert, signer, EVP_sha256());
    assert(size > 0);
    BIO *b = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(b, cert);
    write_pem(spec->name, "pem", b);
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL);
    write_pem(spec->name, "key", b);
    if (spec->by) X509_free(by), EVP_PKEY_free(signer);
    X509_free(cert);
    EVP_PKEY_free(key);
}

// ---- the server

static void listen_tls(void *arg) {
    TlsRig *r = arg;
    Addr any;
    Ctx *c = test_ctx();
    err e = addr_parse(c, S("127.0.0.1:0"), &any);
    if (!e) e = server_listen_tls(c, r->rig->server, &any, r->tls, &r->addr);
    if (e) test_failed(__FILE__, __LINE__, "no listener");
}

bool tls_rig_start(TlsRig *r, const RigSpec *spec, const TlsIdentity *id) {
    Ctx *c = real_ctx();
    *r = (TlsRig){ 0 };
    err e = tls_server_new(c, id, &r->tls);
    if (e) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&c->failure, "en", &b);
        test_failed(__FILE__, __LINE__, "no TLS: %s", buf_z(&b));
        buf_done(&b);
        return false;
    }
    r->rig = rig_start(spec);
    if (r->rig) rig_do(r->rig, listen_tls, r);
    return r->rig;
}

void tls_rig_stop(TlsRig *r) {
    rig_stop(r->rig);
    tls_server_free(r->tls);
}

// ---- the client

void peer_open(Peer *p, const Addr *to, const char *ca) {
    p->fd = raw_open(to);
    p->ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_default_passwd_cb(p->ctx, NULL);
    if (ca) {
        SSL_CTX_load_verify_file(p->ctx, cert_path(ca, "pem").p);
        SSL_CTX_set_verify(p->ctx, SSL_VERIFY_PEER, NULL);
    }
    p->ssl = SSL_new(p->ctx);
    p->in = BIO_new(BIO_s_mem());
    p->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(p->in, -1);
    SSL_set_bio(p->ssl, p->in, p->out);
    SSL_set_connect_state(p->ssl);
}

void peer_certificate(Peer *p, const char *name) {
    int good = SSL_use_certificate_file(p->ssl, cert_path(name, "pem").p, SSL_FILETYPE_PEM) == 1
               && SSL_use_PrivateKey_file(p->ssl, cert_path(name, "key").p, SSL_FILETYPE_PEM) == 1;
    assert(good);
}

bool peer_send(Peer *p, size_t most) {
    char part[20000];
    for (size_t left = most; left;) {
        int n = BIO_read(p->out, part, (int)(left < sizeof part ? left : sizeof part));
        if (n <= 0) return true;
        if (!raw_send(p->fd, str_n(part, (size_t)n))) return false;
        left -= (size_t)n;
    }
    return true;
}

bool peer_more(Peer *p) {
    char part[20000];
    ssize_t n = recv(p->fd, part, sizeof part, 0);
    if (n <= 0) return false;
    BIO_write(p->in, part, (int)n);
    return true;
}

bool peer_greet(Peer *p) {
    for (;;) {
        int rc = SSL_do_handshake(p->ssl);
        bool sent = peer_send(p, SIZE_MAX);
        if (rc == 1) return sent;
        if (SSL_get_error(p->ssl, rc) != SSL_ERROR_WANT_READ || !peer_more(p)) return false;
    }
}

bool peer_write(Peer *p, str plain) {
    return SSL_write(p->ssl, plain.p, (int)plain.n) == (int)plain.n && peer_send(p, SIZE_MAX);
}

int peer_read(Peer *p, char *to, size_t n) {
    for (;;) {
        int got = SSL_read(p->ssl, to, (int)n);
        if (got > 0) return got;
        int why = SSL_get_error(p->ssl, got);
        if (why == SSL_ERROR_ZERO_RETURN) return 0;
        if (why != SSL_ERROR_WANT_READ || !peer_more(p)) return -1;
    }
}

Answer peer_answer(Peer *p, const char *request) {
    Ctx *c = test_ctx();
    Answer a = { 0 };
    static char all[8 << 20];
    size_t n = 0;
    if (*request && !peer_write(p, str_z(request))) return a;
    while (n < sizeof all) {
        int got = peer_read(p, all + n, sizeof all - n);
        if (got <= 0) return a;
        n += (size_t)got;
        str text = str_n(all, n);
        ptrdiff_t end = str_find(text, S("\r\n\r\n"));
        if (end < 0) continue;
        a.head = str_sub(text, 0, (size_t)end + 2);
        int64_t length = 0;
        str value = answer_header(&a, "content-length");
        if (value.p && !str_to_i64(value, &length)) return a;
        if (n < (size_t)end + 4 + (size_t)length) continue;
        a.body = arena_str(c->mem, str_sub(text, (size_t)end + 4, (size_t)length));
        a.head = arena_str(c->mem, a.head);
        a.status = (int)strtol(a.head.p + 9, NULL, 10);
        return a;
    }
    return a;
}

void peer_close(Peer *p) {
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
    if (p->fd >= 0) raw_close(p->fd);
    *p = (Peer){ .fd = -1 };
}
