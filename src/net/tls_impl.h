// SPDX-License-Identifier: Apache-2.0
// tls_impl.h - private to net: what tls.c (a connection) and tls_context.c (who we are) share.
#ifndef LATHE_NET_TLS_IMPL_H
#define LATHE_NET_TLS_IMPL_H
#include "net/tls.h"
#include "os/os.h"
#include <openssl/ssl.h>
#include <pthread.h>

enum {
    TICKET_KEYS = 3,         // the first seals, the others still open
    TICKET_KEY_S = 3600,     // until the next takes its place
    TICKET_S = 2 * 3600,     // how long a session may be resumed
    CHAIN_DEPTH_MAX = 8,     // of a client's certificate
    PEM_FILE_MAX = 1 << 20,  // bytes
    AUTHORITIES_MAX = 10000, // of one file
    TLS_BYTES = 4096,        // what OpenSSL wanted, when it has no room for one of its objects
};

typedef struct TicketKey {
    uint8_t name[16], aes[32], mac[32];
} TicketKey;

struct TlsServer {
    Os *os;
    pthread_mutex_t mutex; // for all below
    SSL_CTX *now;
    TlsFacts facts;
    TicketKey tickets[TICKET_KEYS];
    size_t tickets_n;
    int64_t ticket_ns; // when the first was made
};

struct TlsClient {
    Os *os;
    SSL_CTX *ctx;
};

// tls_context.c
SSL_CTX *tls_context_base(const SSL_METHOD *method, TlsVersion least);
int tls_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
               EVP_MAC_CTX *mac, int seals); // tls_ticket.c
void tls_tickets_renew(TlsServer *s);        // forgets all; under the mutex
bool tls_fingerprint(X509 *cert, char out[65]);
#endif
