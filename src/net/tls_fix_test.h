// SPDX-License-Identifier: Apache-2.0
// tls_fix_test.h - certificates made on the spot, a server with a TLS listener, and a client of
// OpenSSL's own on a plain socket, whose bytes a test may feed and cut as it likes.
// Owner: the test. Threads: the test's.
#ifndef LATHE_NET_TLS_FIX_TEST_H
#define LATHE_NET_TLS_FIX_TEST_H
#include "net/fixture_test.h"
#include "net/tls_impl.h"

typedef struct CertSpec { // all zero: an authority, P-256, good for a day
    const char *name;     // of its files: NAME.pem, NAME.key; also its CN
    const char *san;      // "DNS:localhost,IP:127.0.0.1"; NULL: an authority
    const char *by;       // name of the authority; NULL: itself
    int from_s, to_s;     // from now; both 0: an hour ago to a day ahead
    bool rsa;
} CertSpec;
void cert_make(const CertSpec *spec);              // in test_dir()
str cert_path(const char *name, const char *kind); // "pem" or "key"; lasts as long as the test
TlsIdentity cert_identity(const char *name);       // of a server

Ctx *real_ctx(void); // test_ctx with the machine's os

typedef struct TlsRig {
    Rig *rig;
    TlsServer *tls;
    Addr addr;
} TlsRig;
bool tls_rig_start(TlsRig *r, const RigSpec *spec, const TlsIdentity *id); // false: it has failed
void tls_rig_stop(TlsRig *r);

typedef struct Peer { // memory BIOs: bytes to and from the socket are the test's to move
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out;
} Peer;
void peer_open(Peer *p, const Addr *to, const char *ca); // NULL: trusts all
void peer_certificate(Peer *p, const char *name);        // before the greeting
bool peer_send(Peer *p, size_t most);       // what OpenSSL wants sent; most: of it; false: refused
bool peer_more(Peer *p);                    // what the socket has next; false: its end
bool peer_greet(Peer *p);                   // the whole handshake; false: it failed
bool peer_write(Peer *p, str plain);        // and sends it
int peer_read(Peer *p, char *to, size_t n); // 0: close_notify; -1: anything else
Answer peer_answer(Peer *p, const char *request); // asks, reads until the length is there
void peer_close(Peer *p);
#endif
