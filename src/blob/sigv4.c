// SPDX-License-Identifier: Apache-2.0
// sigv4.c - see sigv4.h. Threads: pure.
#include "blob/sigv4.h"
#include "blob/blob.h"
#include <assert.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <time.h>

void sigv4_date(int64_t wall_ms, char out[SIGV4_DATE]) {
    struct tm tm;
    time_t s = (time_t)(wall_ms / 1000);
    gmtime_r(&s, &tm);
    size_t n = strftime(out, SIGV4_DATE, "%Y%m%dT%H%M%SZ", &tm);
    assert(n == SIGV4_DATE - 1);
}

str uri_encode(Arena *a, str text) {
    static const char hex[] = "0123456789ABCDEF", plain[] = "-._~";
    char *out = arena_alloc_raw(a, 3 * text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char ch = (unsigned char)text.p[i];
        bool alnum =
            (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
        if (alnum || (ch && strchr(plain, ch))) {
            out[n++] = (char)ch;
            continue;
        }
        out[n++] = '%', out[n++] = hex[ch >> 4], out[n++] = hex[ch & 15];
    }
    out[n] = 0;
    return str_n(out, n);
}

enum { MAC = 32 };
static void mac(const void *key, size_t key_n, str text, unsigned char out[MAC]) {
    unsigned n = MAC;
    const unsigned char *p =
        HMAC(EVP_sha256(), key, (int)key_n, (const unsigned char *)text.p, text.n, out, &n);
    if (!p || n != MAC) mem_exhausted(MAC);
}

static str signed_names(Arena *a, const SigV4 *s) {
    str *names = new (a, str, s->headers_n + 1);
    for (size_t i = 0; i < s->headers_n; i++) {
        names[i] = s->headers[i].name;
        assert(!i || str_cmp(names[i - 1], names[i]) < 0);
    }
    return arena_join(a, names, s->headers_n, S(";"));
}

static str canonical(Arena *a, const SigV4 *s, str names) {
    str *lines = new (a, str, s->headers_n + 1);
    for (size_t i = 0; i < s->headers_n; i++) {
        str value = str_trim(s->headers[i].value);
        lines[i] =
            arena_printf(a, STR_FMT ":" STR_FMT "\n", STR_ARG(s->headers[i].name), STR_ARG(value));
    }
    str headers = arena_join(a, lines, s->headers_n, S(""));
    return arena_printf(a, "%s\n" STR_FMT "\n" STR_FMT "\n" STR_FMT "\n" STR_FMT "\n" STR_FMT,
                        s->method, STR_ARG(s->path), STR_ARG(s->query), STR_ARG(headers),
                        STR_ARG(names), STR_ARG(s->payload_hex));
}

str sigv4_authorization(Arena *a, const SigV4 *s) {
    char hex[BLOB_DIGEST_HEX + 1];
    unsigned char key[MAC], next[MAC];
    str day = str_n(s->date, 8), names = signed_names(a, s);
    sha256_hex(canonical(a, s, names), hex);
    str scope =
        arena_printf(a, STR_FMT "/" STR_FMT "/s3/aws4_request", STR_ARG(day), STR_ARG(s->region));
    str text =
        arena_printf(a, "AWS4-HMAC-SHA256\n%s\n" STR_FMT "\n%s", s->date, STR_ARG(scope), hex);
    str first = arena_printf(a, "AWS4" STR_FMT, STR_ARG(s->secret_key));
    mac(first.p, first.n, day, key);
    mac(key, MAC, s->region, next);
    mac(next, MAC, S("s3"), key);
    mac(key, MAC, S("aws4_request"), next);
    mac(next, MAC, text, key);
    for (int i = 0; i < MAC; i++) snprintf(hex + 2 * i, 3, "%02x", key[i]);
    return arena_printf(a,
                        "AWS4-HMAC-SHA256 Credential=" STR_FMT "/" STR_FMT ",SignedHeaders=" STR_FMT
                        ",Signature=%s",
                        STR_ARG(s->access_key), STR_ARG(scope), STR_ARG(names), hex);
}
