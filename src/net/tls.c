// SPDX-License-Identifier: Apache-2.0
// tls.c - one connection: OpenSSL reads and writes the wire's evbuffers, the stream's filter calls
// it. Everything is done where the bytes are, on the loop, and nothing waits. Leaves files, trust
// and policy to tls_context.c. Owner and threads: see tls.h.
#include "net/tls_impl.h"
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

enum {
    RECORD_MAX = 16384,      // RFC 8446 §5.1
    PIECES_MAX = 32,         // of output looked at together
    UNTAKEN_MAX = 256 << 10, // answers of ours that the peer does not read: it is attacking
    SUBJECT_MAX = 500,
};

struct Tls {
    SSL *ssl;
    TlsServer *server; // NULL: we are the client
    StreamWire wire;
    bool ready, failed, heard_end;
    TlsWhy why;
    const char *text; // of OpenSSL's, static
    char fingerprint[65], *subject;
};

// ---- OpenSSL's side of the wire

static int wire_write(BIO *b, const char *p, size_t n, size_t *done) {
    Tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *done = n;
    return evbuffer_add(t->wire.out, p, n) == 0;
}

static int wire_read(BIO *b, char *p, size_t n, size_t *done) {
    Tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    int got = evbuffer_remove(t->wire.in, p, n);
    *done = got > 0 ? (size_t)got : 0;
    if (*done) return 1;
    BIO_set_retry_read(b);
    return 0;
}

static long wire_ctrl(BIO *b, int what, long n, void *p) {
    (void)b, (void)n, (void)p;
    return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *wire_method;
static void wire_method_make(void) {
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    if (!m) mem_exhausted(TLS_BYTES);
    BIO_meth_set_write_ex(m, wire_write);
    BIO_meth_set_read_ex(m, wire_read);
    BIO_meth_set_ctrl(m, wire_ctrl);
    wire_method = m;
}

static BIO *wire_bio(Tls *t) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, wire_method_make);
    BIO *b = BIO_new(wire_method);
    if (!b) mem_exhausted(TLS_BYTES);
    BIO_set_data(b, t);
    BIO_set_init(b, 1);
    return b;
}

// ---- ends

static TlsWhy why_of_verify(long v) {
    switch (v) {
    case X509_V_OK: return TLS_GOOD;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return TLS_EXPIRED;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return TLS_WRONG_HOST;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED: return TLS_UNKNOWN_CA;
    default: return TLS_CERT;
    }
}

// The first entry of OpenSSL's queue says what went wrong; an alert of the peer's has a code of
// its own above 1000.
static TlsWhy why_of_queue(const SSL *ssl, unsigned long code) {
    TlsWhy verify = why_of_verify(SSL_get_verify_result(ssl));
    int reason = ERR_GET_REASON(code);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) return TLS_REFUSED;
    if (verify) return verify;
    return reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ? TLS_CERT : TLS_BROKEN;
}

static void count(Tls *t, bool good) {
    TlsServer *s = t->server;
    if (!s) return;
    pthread_mutex_lock(&s->mutex);
    if (!good) s->facts.failed++;
    else if (SSL_session_reused(t->ssl)) s->facts.resumed++;
    else s->facts.full++;
    pthread_mutex_unlock(&s->mutex);
}

static ssize_t broke(Tls *t) {
    unsigned long code = ERR_peek_error();
    const char *text = ERR_reason_error_string(code);
    t->failed = true;
    t->why = why_of_queue(t->ssl, code);
    t->text = text ? text : "it ended in the midst";
    if (!t->ready) count(t, false);
    ERR_clear_error();
    return -EPROTO;
}

// ---- the greeting

static void know_peer(Tls *t) {
    X509 *cert = t->server ? SSL_get1_peer_certificate(t->ssl) : NULL;
    BIO *b = cert ? BIO_new(BIO_s_mem()) : NULL;
    if (b && SSL_get_verify_result(t->ssl) == X509_V_OK && tls_fingerprint(cert, t->fingerprint)) {
        char *p;
        X509_NAME_print_ex(b, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253); // all ASCII
        long n = BIO_get_mem_data(b, &p);
        t->subject = mem_strdup(str_sub(str_n(p, n > 0 ? (size_t)n : 0), 0, SUBJECT_MAX));
    }
    BIO_free(b);
    X509_free(cert);
}

static ssize_t greet(Tls *t) {
    int rc = SSL_do_handshake(t->ssl);
    if (rc != 1) return SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ ? -EAGAIN : broke(t);
    t->ready = true;
    know_peer(t);
    count(t, true);
    return 1;
}

// ---- the filter

static ssize_t take_some(Tls *t, struct evbuffer *in, size_t max) {
    struct evbuffer_iovec room;
    size_t got = 0;
    int n = evbuffer_reserve_space(in, (ev_ssize_t)(max < RECORD_MAX ? max : RECORD_MAX), &room, 1);
    if (n != 1) mem_exhausted(RECORD_MAX);
    int rc = SSL_read_ex(t->ssl, room.iov_base, room.iov_len < max ? room.iov_len : max, &got);
    if (rc == 1) {
        room.iov_len = got;
        rc = evbuffer_commit_space(in, &room, 1);
        assert(rc == 0);
        return (ssize_t)got;
    }
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ: return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN: t->heard_end = true; return 0;
    default: return broke(t);
    }
}

static ssize_t filter_take(void *arg, struct evbuffer *in, size_t max) {
    Tls *t = arg;
    if (t->failed) return -EPROTO;
    if (t->heard_end) return 0;
    ERR_clear_error();
    if (!t->ready) {
        ssize_t n = greet(t);
        if (n < 0) return n;
    }
    if (evbuffer_get_length(t->wire.out) > UNTAKEN_MAX) return broke(t);
    bool some = evbuffer_get_length(t->wire.in) || SSL_has_pending(t->ssl);
    return max && some ? take_some(t, in, max) : -EAGAIN;
}

static bool put_record(Tls *t, const void *p, size_t n) {
    size_t done = 0;
    ERR_clear_error();
    return SSL_write_ex(t->ssl, p, n, &done) == 1 && done == n;
}

// Small pieces travel in one record: each costs its 22 bytes and a seal.
static bool put_pieces(Tls *t, const struct evbuffer_iovec *v, int n) {
    char part[RECORD_MAX];
    size_t have = 0;
    for (int i = 0; i < n; i++) {
        const char *p = v[i].iov_base;
        for (size_t left = v[i].iov_len, some; left; left -= some, p += some) {
            bool whole = !have && (left >= RECORD_MAX || i == n - 1);
            some = left < RECORD_MAX - have ? left : RECORD_MAX - have;
            if (whole) {
                if (!put_record(t, p, some)) return false;
                continue;
            }
            memcpy(part + have, p, some);
            have += some;
            if (have == RECORD_MAX && !put_record(t, part, have)) return false;
            if (have == RECORD_MAX) have = 0;
        }
    }
    return !have || put_record(t, part, have);
}

static ssize_t filter_give(void *arg, struct evbuffer *out, size_t max) {
    Tls *t = arg;
    struct evbuffer_iovec v[PIECES_MAX];
    size_t all = 0;
    assert(t->ready && max);
    if (t->failed) return -EPROTO;
    int n = evbuffer_peek(out, (ev_ssize_t)max, NULL, v, PIECES_MAX);
    if (n > PIECES_MAX) n = PIECES_MAX;
    for (int i = 0; i < n; i++) {
        if (v[i].iov_len > max - all) v[i].iov_len = max - all;
        all += v[i].iov_len;
    }
    return put_pieces(t, v, n) ? (ssize_t)all : broke(t);
}

static bool filter_ready_now(void *arg) { return ((Tls *)arg)->ready; }

static void filter_bye(void *arg) {
    Tls *t = arg;
    ERR_clear_error();
    if (!t->failed) SSL_shutdown(t->ssl); // says close_notify; the peer's is not waited for
}

static void filter_free(void *arg) {
    Tls *t = arg;
    if (!t->ready && !t->failed) count(t, false);
    SSL_free(t->ssl);
    mem_free(t->subject);
    mem_free(t);
}

static Tls *tls_new(SSL_CTX *ctx, TlsServer *server, Os *os) {
    Tls *t = mem_new(sizeof *t);
    t->server = server;
    t->ssl = SSL_new(ctx);
    if (!t->ssl) mem_exhausted(TLS_BYTES);
    BIO *b = wire_bio(t);
    SSL_set_bio(t->ssl, b, b);
    X509_VERIFY_PARAM_set_time(SSL_get0_param(t->ssl), (time_t)(os_wall_ms(os) / 1000));
    return t;
}

static const StreamFilter filter = { filter_take, filter_give, filter_ready_now, filter_bye,
                                     filter_free };

Tls *tls_accept(TlsServer *server, Stream *s) {
    pthread_mutex_lock(&server->mutex);
    SSL_CTX *ctx = server->now;
    SSL_CTX_up_ref(ctx);
    pthread_mutex_unlock(&server->mutex);
    Tls *t = tls_new(ctx, server, server->os);
    SSL_CTX_free(ctx);
    SSL_set_accept_state(t->ssl);
    stream_filter(s, &filter, t, &t->wire);
    return t;
}

Tls *tls_connect(TlsClient *client, Stream *s, str host) {
    char name[256] = { 0 };
    Tls *t = tls_new(client->ctx, NULL, client->os);
    X509_VERIFY_PARAM *p = SSL_get0_param(t->ssl);
    if (!host.n) host = S("."); // matches none, where an empty name would match all
    memcpy(name, host.p, host.n < sizeof name ? host.n : sizeof name - 1);
    bool address = X509_VERIFY_PARAM_set1_ip_asc(p, name) == 1;
    if (!address) {
        bool named = SSL_set_tlsext_host_name(t->ssl, name) == 1
                     && X509_VERIFY_PARAM_set1_host(p, name, 0) == 1;
        if (!named) mem_exhausted(sizeof name); // a text of fewer than 256 bytes without NUL
    }
    X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
                                           | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    ERR_clear_error();
    SSL_set_connect_state(t->ssl);
    stream_filter(s, &filter, t, &t->wire);
    return t;
}

bool tls_ready(const Tls *t) { return t->ready; }
TlsWhy tls_why(const Tls *t) { return t->why; }
const char *tls_why_text(const Tls *t) { return t->text ? t->text : ""; }
TlsPeer tls_peer(const Tls *t) {
    if (!t->subject) return (TlsPeer){ 0 };
    return (TlsPeer){ str_z(t->subject), str_z(t->fingerprint) };
}
