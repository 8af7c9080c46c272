// SPDX-License-Identifier: Apache-2.0
// checkpoint.c - the heads of all chains, signed, in a file outside the database, at most a second
// behind. Who cuts rows off a table and mends audit_head as well would have to forge an Ed25519
// signature (RFC 8032). The public key is written beside it for others to check.
#include "mod/audit/audit_own.h"
#include "base/time.h"
#include <openssl/evp.h>

enum { SEED = 32, SIGNATURE = 64, CHECKPOINT_MAX = 16 << 20 };

static struct {
    EVP_PKEY *key;
    uint64_t last;
    char version[200]; // the database's, when the heads were read last
} state;

#define AUDIT_REASONS(X)                                                  \
    X(CHECKPOINT, "checkpoint_bad", "the audit checkpoint {path}: {why}", \
      "审计检查点 {path}：{why}")
REASONS_DECLARE(AUDIT_REASONS)
extern const Reason *const audit_reasons[];
REASONS_DEFINE(AUDIT_REASONS, audit_reasons)

static str path_of(Ctx *c, const char *name) {
    return arena_printf(c->mem, STR_FMT "/audit/%s", STR_ARG(app_of(c)->data_dir), name);
}

static str hex_of(Ctx *c, const void *p, size_t n) {
    Buf b;
    buf_init(&b, 2 * n + 1);
    buf_add_hex(&b, p, n);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

static err bad(Ctx *c, const char *file, const char *why) {
    return fail(c, ERR_INTERNAL, R_CHECKPOINT, "path", say_str(c, path_of(c, file)), "why", why);
}

static err write_public(Ctx *c) {
    unsigned char public_key[SEED];
    size_t n = sizeof public_key;
    if (EVP_PKEY_get_raw_public_key(state.key, public_key, &n) != 1)
        return bad(c, "sign.key", "it has no public half");
    str hex = hex_of(c, public_key, n), there;
    bool same = !file_read_all(c, path_of(c, "sign.pub"), 2 * SEED, &there) && str_eq(there, hex);
    return same ? ERR_OK : file_write_all(c, path_of(c, "sign.pub"), hex, 0);
}

err checkpoint_open(Ctx *c) {
    str seed;
    unsigned char random[SEED];
    TRY(dir_make(c, path_of(c, ""), 0700));
    err e = file_read_all(c, path_of(c, "sign.key"), SEED, &seed);
    if (e == ERR_NOTFOUND) {
        os_random(c->os, random, sizeof random);
        seed = str_n(random, sizeof random);
        e = file_write_all(c, path_of(c, "sign.key"), seed, FILE_PRIVATE);
    }
    if (e) return e;
    if (seed.n != SEED) return bad(c, "sign.key", "it must have 32 bytes");
    EVP_PKEY_free(state.key);
    state.key =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)seed.p, seed.n);
    state.last = 0, state.version[0] = 0;
    return state.key ? write_public(c) : bad(c, "sign.key", "it is no Ed25519 key");
}

static err heads_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(heads_all, "SELECT chain, seq, hash FROM audit_head ORDER BY chain");
    Buf *out = arg;
    Rows *rows;
    bool more;
    buf_clear(out);
    Json j = json_to(out);
    json_arr(&j);
    TRY(db_query(c, tx, &heads_all, NULL, 0, &rows));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        json_obj(&j);
        json_kv_str(&j, "chain", col_str(rows, 0)), json_kv_i64(&j, "seq", col_int(rows, 1)),
            json_kv_str(&j, "hash", col_str(rows, 2));
        json_end_obj(&j);
    }
    json_end_arr(&j);
    return ERR_OK;
}

static err sign(Ctx *c, str text, str *out_hex) {
    unsigned char signature[SIGNATURE];
    size_t n = sizeof signature;
    EVP_MD_CTX *x = EVP_MD_CTX_new();
    if (!x) mem_exhausted(SIGNATURE);
    int ok = EVP_DigestSignInit(x, NULL, NULL, NULL, state.key) == 1
             && EVP_DigestSign(x, signature, &n, (const unsigned char *)text.p, text.n) == 1;
    EVP_MD_CTX_free(x);
    if (!ok) return bad(c, "sign.key", "it does not sign");
    *out_hex = hex_of(c, signature, n);
    return ERR_OK;
}

// {"signed": "<JSON text of heads and time>", "signature": hex}: the signature covers the bytes of
// the text.
static err save(Ctx *c, str heads) {
    char at[TIME_TEXT];
    str text = arena_printf(c->mem, "{\"at\":\"" STR_FMT "\",\"heads\":" STR_FMT "}",
                            STR_ARG(time_format(os_wall_ms(c->os), at)), STR_ARG(heads)),
        signature;
    TRY(sign(c, text, &signature));
    Buf b;
    buf_init(&b, CHECKPOINT_MAX);
    Json j = json_to(&b);
    json_obj(&j), json_kv_str(&j, "signed", text), json_kv_str(&j, "signature", signature),
        json_end_obj(&j);
    err e = b.full ? bad(c, "checkpoint.json", "it is too large")
                   : file_write_all(c, path_of(c, "checkpoint.json"), buf_str(&b), 0);
    buf_done(&b);
    return e;
}

// A chain that ends before the last checkpoint was cut: signing it anew would hide that.
static err goes_on(Ctx *c, str heads) {
    Head3 *old;
    size_t old_n, i, n;
    yyjson_val *v, *head;
    err e = checkpoint_read(c, &old, &old_n);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    TRY(json_parse(c, heads, &v));
    for (size_t k = 0; k < old_n; k++) {
        int64_t seq = 0;
        yyjson_arr_foreach(v, i, n, head) if (str_eq(json_get_str(head, "chain"), old[k].chain))
            json_get_i64(head, "seq", &seq);
        if (seq < old[k].seq)
            return bad(c, "checkpoint.json", "a chain ends before it: see `lathe audit verify`");
    }
    return ERR_OK;
}

static err write_heads(Ctx *c) {
    Buf heads;
    buf_init(&heads, CHECKPOINT_MAX / 2);
    err e = db_read(c, c->db, heads_tx, &heads);
    if (!e && !state.last) e = goes_on(c, buf_str(&heads)); // the first since the start
    uint64_t now = str_hash(buf_str(&heads)) | 1;
    if (!e && now != state.last) e = save(c, buf_str(&heads));
    if (!e) state.last = now;
    buf_done(&heads);
    return e;
}

// While nothing was committed no chain has moved.
err checkpoint_write(Ctx *c, void *unused) {
    (void)unused;
    str version;
    TRY(db_version(c, c->db, &version));
    if (state.last && str_is(version, state.version)) return ERR_OK;
    state.version[0] = 0;
    TRY(write_heads(c));
    if (version.n < sizeof state.version)
        snprintf(state.version, sizeof state.version, STR_FMT, STR_ARG(version));
    return ERR_OK;
}

static bool unhex(str hex, unsigned char *out, size_t n) {
    static const char digits[] = "0123456789abcdef";
    if (hex.n != 2 * n) return false;
    for (size_t i = 0; i < hex.n; i++) {
        const char *at = memchr(digits, hex.p[i], 16);
        if (!at) return false;
        out[i / 2] = (unsigned char)(i % 2 ? out[i / 2] | (at - digits) : (at - digits) << 4);
    }
    return true;
}

static bool genuine(str text, str signature_hex) {
    unsigned char signature[SIGNATURE];
    if (!unhex(signature_hex, signature, sizeof signature)) return false;
    EVP_MD_CTX *x = EVP_MD_CTX_new();
    if (!x) mem_exhausted(SIGNATURE);
    int ok =
        EVP_DigestVerifyInit(x, NULL, NULL, NULL, state.key) == 1
        && EVP_DigestVerify(x, signature, sizeof signature, (const unsigned char *)text.p, text.n)
               == 1;
    EVP_MD_CTX_free(x);
    return ok;
}

err checkpoint_read(Ctx *c, Head3 **out, size_t *out_n) {
    str file;
    yyjson_val *v, *head;
    size_t i, n;
    *out = NULL, *out_n = 0;
    TRY(file_read_all(c, path_of(c, "checkpoint.json"), CHECKPOINT_MAX, &file));
    if (json_parse(c, file, &v)) return bad(c, "checkpoint.json", "it is not JSON");
    str text = json_get_str(v, "signed");
    if (!text.n || !genuine(text, json_get_str(v, "signature")))
        return bad(c, "checkpoint.json", "its signature is not ours");
    if (json_parse(c, text, &v)) return bad(c, "checkpoint.json", "its text is not JSON");
    yyjson_val *heads = json_get(v, "heads");
    *out = new (c->mem, Head3, yyjson_arr_size(heads) + 1);
    yyjson_arr_foreach(heads, i, n, head) {
        Head3 *h = &(*out)[(*out_n)++];
        h->chain = json_get_str(head, "chain"), h->hash = json_get_str(head, "hash");
        json_get_i64(head, "seq", &h->seq);
    }
    return ERR_OK;
}
