// SPDX-License-Identifier: Apache-2.0
// tls_context.c - who we are and whom we trust: files read, checked and made into OpenSSL contexts.
// A server's context is replaced whole; connections hold the one that they began with.
// Owner and threads: see tls.h; files are read by the caller's thread.
#include "net/reason.h"
#include "net/tls_impl.h"
#include "base/time.h"
#include "os/file.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static const char ciphers_1_2[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

static err bad_file(Ctx *c, const char *setting, str path, const char *why) {
    ERR_clear_error();
    return fail(c, ERR_INVALID, R_TLS_FILE, "setting", setting, "path", say_str(c, path), "why",
                why);
}

static err bad_pem(Ctx *c, const char *setting, str path, const char *otherwise) {
    const char *why = ERR_reason_error_string(ERR_peek_error());
    return bad_file(c, setting, path, why ? why : otherwise);
}

bool tls_fingerprint(X509 *cert, char out[65]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (X509_digest(cert, EVP_sha256(), digest, &n) != 1 || n != 32) return false;
    for (unsigned i = 0; i < n; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[64] = 0;
    return true;
}

SSL_CTX *tls_context_base(const SSL_METHOD *method, TlsVersion least) {
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx) mem_exhausted(TLS_BYTES);
    int version = least == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
    bool good = SSL_CTX_set_min_proto_version(ctx, version) == 1
                && SSL_CTX_set_cipher_list(ctx, ciphers_1_2) == 1;
    if (!good) mem_exhausted(TLS_BYTES); // nothing else is wrong with them
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    return ctx;
}

// ---- files

static err read_pem(Ctx *c, const char *setting, str path, BIO **out) {
    str text;
    if (!path.n) return bad_file(c, setting, S(""), "it is not set");
    err e = file_read_all(c, path, PEM_FILE_MAX, &text);
    if (e) return e;
    *out = BIO_new_mem_buf(text.p, (int)text.n);
    if (!*out) mem_exhausted(text.n);
    return ERR_OK;
}

static int no_passphrase(char *to, int size, int writes, void *asked) {
    (void)to, (void)size, (void)writes;
    *(bool *)asked = true;
    return -1;
}

static err load_key(Ctx *c, SSL_CTX *ctx, str path) {
    PathInfo info;
    BIO *b;
    bool asked = false;
    TRY(read_pem(c, "tls.key", path, &b));
    EVP_PKEY *key = PEM_read_bio_PrivateKey(b, NULL, no_passphrase, &asked);
    BIO_free(b);
    if (asked)
        return bad_file(c, "tls.key", path,
                        "it is encrypted: a key without passphrase, "
                        "readable by its owner only, is needed");
    if (!key) return bad_file(c, "tls.key", path, "there is no key in it");
    bool good = SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    if (!good) return bad_pem(c, "tls.key", path, "it cannot be used");
    TRY(path_info(c, path, &info));
    if (!(info.mode & 077)) return ERR_OK;
    return fail(c, ERR_INVALID, R_TLS_OPEN_KEY, "path", say_str(c, path), "mode",
                say(c, "%03o", info.mode));
}

static int64_t ms_of(const ASN1_TIME *at) {
    struct tm tm = { 0 };
    if (ASN1_TIME_to_tm(at, &tm) != 1) return 0;
    return (int64_t)timegm(&tm) * 1000;
}

static err check_dates(Ctx *c, X509 *cert, str path, TlsFacts *out) {
    char from[TIME_TEXT], to[TIME_TEXT], at[TIME_TEXT];
    int64_t now = os_wall_ms(c->os);
    out->from_ms = ms_of(X509_get0_notBefore(cert));
    out->to_ms = ms_of(X509_get0_notAfter(cert));
    if (now >= out->from_ms && now <= out->to_ms) return ERR_OK;
    time_format(out->from_ms, from), time_format(out->to_ms, to), time_format(now, at);
    return fail(c, ERR_INVALID, R_TLS_DATE, "path", say_str(c, path), "from", from, "to", to, "now",
                at);
}

static err load_chain(Ctx *c, SSL_CTX *ctx, str path, TlsFacts *out) {
    BIO *b;
    TRY(read_pem(c, "tls.cert", path, &b));
    X509 *leaf = PEM_read_bio_X509_AUX(b, NULL, no_passphrase, &(bool){ 0 }), *more;
    bool good =
        leaf && SSL_CTX_use_certificate(ctx, leaf) == 1 && tls_fingerprint(leaf, out->fingerprint);
    while (good && (more = PEM_read_bio_X509(b, NULL, no_passphrase, &(bool){ 0 })))
        if (SSL_CTX_add0_chain_cert(ctx, more) != 1) X509_free(more), good = false;
    BIO_free(b);
    err e = good ? check_dates(c, leaf, path, out)
                 : bad_pem(c, "tls.cert", path, "there is no certificate in it");
    X509_free(leaf);
    ERR_clear_error(); // the end of the file is one
    return e;
}

static err load_authorities(Ctx *c, SSL_CTX *ctx, const char *setting, str path, size_t *out_n) {
    BIO *b;
    size_t n = 0;
    TRY(read_pem(c, setting, path, &b));
    X509_STORE *store = X509_STORE_new();
    if (!store) mem_exhausted(TLS_BYTES);
    for (X509 *ca; n < AUTHORITIES_MAX && (ca = PEM_read_bio_X509(b, NULL, NULL, NULL)); n++) {
        if (SSL_CTX_get_ssl_method(ctx) == TLS_server_method()) SSL_CTX_add_client_CA(ctx, ca);
        if (X509_STORE_add_cert(store, ca) != 1) mem_exhausted(TLS_BYTES);
        X509_free(ca);
    }
    BIO_free(b);
    SSL_CTX_set_cert_store(ctx, store);
    *out_n = n;
    ERR_clear_error();
    return n ? ERR_OK : bad_file(c, setting, path, "there is no certificate in it");
}

// ---- the server

// RFC 7301 §3.2: of what the client offers we speak one; with none of it there is no connection.
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                           const unsigned char *in, unsigned in_n, void *arg) {
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";
    (void)ssl, (void)arg;
    unsigned char *found;
    int rc = SSL_select_next_proto(&found, out_n, ours, sizeof ours - 1, in, in_n);
    *out = found;
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static err ask_clients(Ctx *c, SSL_CTX *ctx, const TlsIdentity *id) {
    size_t n;
    if (id->ask == TLS_ASK_NONE) return ERR_OK;
    TRY(load_authorities(c, ctx, "tls.client_ca", id->client_ca, &n));
    int how = SSL_VERIFY_PEER;
    if (id->ask == TLS_ASK_REQUIRE) how |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(ctx, how, NULL);
    SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH_MAX);
    return ERR_OK;
}

static err fill(Ctx *c, SSL_CTX *ctx, const TlsIdentity *id, TlsFacts *facts) {
    TRY(load_chain(c, ctx, id->cert, facts));
    ERR_clear_error();
    err e = load_key(c, ctx, id->key);
    bool other = e && c->failure.why == &R_TLS_FILE
                 && str_is(failure_param(&c->failure, "why"), "key values mismatch");
    if (other || (!e && SSL_CTX_check_private_key(ctx) != 1)) {
        ERR_clear_error();
        return fail(c, ERR_INVALID, R_TLS_MATCH, "key", say_str(c, id->key), "cert",
                    say_str(c, id->cert));
    }
    TRY(e);
    return ask_clients(c, ctx, id);
}

static err context_new(Ctx *c, const TlsIdentity *id, TlsFacts *facts, SSL_CTX **out) {
    static const unsigned char sessions[] = "lathe";
    SSL_CTX *ctx = tls_context_base(TLS_server_method(), id->least);
    err e = fill(c, ctx, id, facts);
    if (e) {
        SSL_CTX_free(ctx);
        return e;
    }
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    SSL_CTX_set_session_id_context(ctx, sessions, sizeof sessions - 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); // tickets only: nothing is kept here
    SSL_CTX_set_timeout(ctx, TICKET_S);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_options(ctx, SSL_OP_PRIORITIZE_CHACHA | SSL_OP_CIPHER_SERVER_PREFERENCE);
    *out = ctx;
    return ERR_OK;
}

err tls_server_new(Ctx *c, const TlsIdentity *id, TlsServer **out) {
    TlsFacts facts = { 0 };
    SSL_CTX *ctx;
    TRY(context_new(c, id, &facts, &ctx));
    TlsServer *s = mem_new(sizeof *s);
    s->os = c->os;
    s->now = ctx;
    s->facts = facts;
    pthread_mutex_init(&s->mutex, NULL);
    SSL_CTX_set_app_data(ctx, s);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tls_ticket);
    *out = s;
    return ERR_OK;
}

err tls_server_reload(Ctx *c, TlsServer *s, const TlsIdentity *id) {
    TlsFacts facts = { 0 };
    SSL_CTX *ctx;
    TRY(context_new(c, id, &facts, &ctx));
    SSL_CTX_set_app_data(ctx, s);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tls_ticket);
    pthread_mutex_lock(&s->mutex);
    SSL_CTX *old = s->now;
    s->now = ctx;
    s->facts.from_ms = facts.from_ms, s->facts.to_ms = facts.to_ms;
    memcpy(s->facts.fingerprint, facts.fingerprint, sizeof facts.fingerprint);
    s->facts.reloads++;
    tls_tickets_renew(s); // whom an older policy has let in greets again
    pthread_mutex_unlock(&s->mutex);
    SSL_CTX_free(old);
    return ERR_OK;
}

void tls_server_free(TlsServer *s) {
    if (!s) return;
    SSL_CTX_free(s->now);
    OPENSSL_cleanse(s->tickets, sizeof s->tickets);
    pthread_mutex_destroy(&s->mutex);
    mem_free(s);
}

TlsFacts tls_server_facts(TlsServer *s) {
    pthread_mutex_lock(&s->mutex);
    TlsFacts facts = s->facts;
    pthread_mutex_unlock(&s->mutex);
    return facts;
}

err tls_identity_check(Ctx *c, const TlsIdentity *id, TlsFacts *out) {
    SSL_CTX *ctx;
    *out = (TlsFacts){ 0 };
    TRY(context_new(c, id, out, &ctx));
    SSL_CTX_free(ctx);
    return ERR_OK;
}

// ---- the client

err tls_client_new(Ctx *c, str ca, TlsVersion least, TlsClient **out) {
    static const unsigned char ours[] = "\x08http/1.1";
    SSL_CTX *ctx = tls_context_base(TLS_client_method(), least);
    size_t n;
    err e = ERR_OK;
    if (ca.n) e = load_authorities(c, ctx, "tls.ca", ca, &n);
    else SSL_CTX_set_default_verify_paths(ctx);
    if (e) {
        SSL_CTX_free(ctx);
        return e;
    }
    ERR_clear_error();
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_alpn_protos(ctx, ours, sizeof ours - 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    TlsClient *t = mem_new(sizeof *t);
    t->os = c->os;
    t->ctx = ctx;
    *out = t;
    return ERR_OK;
}

void tls_client_free(TlsClient *t) {
    if (!t) return;
    SSL_CTX_free(t->ctx);
    mem_free(t);
}
