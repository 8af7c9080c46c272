// SPDX-License-Identifier: Apache-2.0
// tls_ticket.c - session tickets (RFC 5077, 8446 §4.6.1) under keys of our own that change every
// hour: who gets hold of one opens the sessions of at most three hours. A reload forgets all.
// Owner: the TlsServer. Threads: any, under its mutex.
#include "net/tls_impl.h"
#include <openssl/core_names.h>
#include <openssl/evp.h>

void tls_tickets_renew(TlsServer *s) {
    OPENSSL_cleanse(s->tickets, sizeof s->tickets);
    s->tickets_n = 0;
}

static void rotate(TlsServer *s) {
    int64_t now = os_mono_ns(s->os);
    if (s->tickets_n && now - s->ticket_ns < (int64_t)TICKET_KEY_S * 1000000000) return;
    memmove(s->tickets + 1, s->tickets, sizeof s->tickets - sizeof *s->tickets);
    os_random(s->os, s->tickets, sizeof *s->tickets);
    if (s->tickets_n < TICKET_KEYS) s->tickets_n++;
    s->ticket_ns = now;
}

static bool key_of(TlsServer *s, const unsigned char *name, TicketKey *out, bool *latest) {
    bool found = false;
    pthread_mutex_lock(&s->mutex);
    rotate(s);
    for (size_t i = 0; i < s->tickets_n && !found; i++) {
        found = !name || !memcmp(s->tickets[i].name, name, sizeof s->tickets[i].name);
        *out = s->tickets[i];
        *latest = i == 0;
    }
    pthread_mutex_unlock(&s->mutex);
    return found;
}

static bool mac_set(EVP_MAC_CTX *mac, TicketKey *key) {
    char digest[] = "SHA256";
    OSSL_PARAM with[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, with) == 1;
}

// For OpenSSL: 1 with cipher and mac set; 2: opened, but seal a new one; 0: a key that we do not
// have (the greeting is a full one); -1: broken.
int tls_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
               EVP_MAC_CTX *mac, int seals) {
    TlsServer *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    TicketKey key;
    bool latest, good;
    if (!key_of(s, seals ? NULL : name, &key, &latest)) return 0;
    if (seals) {
        memcpy(name, key.name, sizeof key.name);
        os_random(s->os, iv, 16);
        good = EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.aes, iv) == 1;
    } else {
        good = EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.aes, iv) == 1;
    }
    good = good && mac_set(mac, &key);
    OPENSSL_cleanse(&key, sizeof key);
    return !good ? -1 : seals || latest ? 1 : 2;
}
