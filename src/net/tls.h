// SPDX-License-Identifier: Apache-2.0
// tls.h - TLS 1.2 and 1.3 (RFC 5246, 8446) on streams, with OpenSSL: who we are and whom we trust,
// and the filter that a stream gets. Ciphers with forward secrecy and AEAD only, no compression, no
// renegotiation, no early data; ALPN "http/1.1". A peer that ends without close_notify has not
// ended: what it sent is not whole.
// Owner: whoever called _new frees it, after the last stream that was given it began; connections
// keep what they began with, so a reload cuts none.
// Threads: TlsServer and TlsClient any; a Tls is its stream's, on its loop, as long as the stream.
#ifndef LATHE_NET_TLS_H
#define LATHE_NET_TLS_H
#include "base/ctx.h"
#include "os/stream.h"

typedef enum { TLS_1_2, TLS_1_3 } TlsVersion;
typedef enum {
    TLS_ASK_NONE,    // no certificate is asked for
    TLS_ASK_REQUEST, // one is asked for; whoever shows one must show a good one
    TLS_ASK_REQUIRE, // who has none is not served
} TlsAsk;

typedef struct TlsIdentity { // PEM files; blocking reads
    str cert;                // the certificate, then its intermediates
    str key;                 // without passphrase, readable by its owner only
    str client_ca;           // for TLS_ASK_…; may be absent with TLS_ASK_NONE
    TlsAsk ask;
    TlsVersion least;
} TlsIdentity;
typedef struct TlsServer TlsServer;
// Checks that key and certificate belong together and that it is in date. ERR_INVALID with R_TLS_…
err tls_server_new(Ctx *c, const TlsIdentity *id, TlsServer **out);
err tls_server_reload(Ctx *c, TlsServer *s, const TlsIdentity *id); // an error changes nothing
void tls_server_free(TlsServer *s);                                 // NULL is fine
typedef struct TlsFacts {
    int64_t from_ms, to_ms; // the certificate's dates, wall clock
    int64_t reloads;
    int64_t full, resumed, failed; // greetings that ended so
    char fingerprint[65];          // SHA-256 of the certificate, lower case hex
} TlsFacts;
TlsFacts tls_server_facts(TlsServer *s);
// What a pair of files is, without a server: for `lathe doctor`.
err tls_identity_check(Ctx *c, const TlsIdentity *id, TlsFacts *out);

typedef struct TlsClient TlsClient;
// ca: PEM file of authorities; absent: the system's. Verification cannot be switched off.
err tls_client_new(Ctx *c, str ca, TlsVersion least, TlsClient **out);
void tls_client_free(TlsClient *t); // NULL is fine

typedef enum {
    TLS_GOOD,
    TLS_BROKEN,     // what the peer says is not TLS, or there is nothing that both speak
    TLS_REFUSED,    // the peer has said so in an alert
    TLS_EXPIRED,    // its certificate is not in date
    TLS_WRONG_HOST, // its certificate is for other names
    TLS_UNKNOWN_CA, // nobody whom we trust has signed it
    TLS_CERT,       // another fault of its certificate, or none shown
} TlsWhy;
typedef struct Tls Tls;
// The stream's filter from now on; `opened` comes after the greeting. See stream_filter for when.
Tls *tls_accept(TlsServer *server, Stream *s);
Tls *tls_connect(TlsClient *client, Stream *s, str host); // host: a DNS name or a bare IP address
bool tls_ready(const Tls *t);                             // the greeting is over
TlsWhy tls_why(const Tls *t);                             // after it failed, within `ended`
const char *tls_why_text(const Tls *t);                   // OpenSSL's words, for logs
typedef struct TlsPeer { // a verified client certificate; absent strings when none was shown
    str subject;         // RFC 4514: "CN=ops,O=Example"; at most 500 bytes
    str fingerprint;     // SHA-256, lower case hex
} TlsPeer;
TlsPeer tls_peer(const Tls *t); // as long as the Tls
#endif
