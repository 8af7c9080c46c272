// SPDX-License-Identifier: Apache-2.0
// blob_fix_test.c - see blob_test.h.
#include "blob/blob_test.h"

bool store_is_s3;

Ctx *blob_test_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

str noise(Arena *a, size_t n, uint64_t seed) {
    char *p = arena_alloc_raw(a, n + 1);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (char)(seed >> 56);
    }
    return str_n(p, n);
}

err put(Ctx *c, Blobs *b, str bytes, char hex[BLOB_DIGEST_HEX + 1]) {
    BlobWriter *w;
    int64_t size;
    TRY(blob_stage(c, b, (str){ 0 }, &w));
    TRY(blob_append(c, w, bytes));
    TRY(blob_commit(c, w, (str){ 0 }, hex, &size));
    return size == (int64_t)bytes.n ? ERR_OK : ERR_INTERNAL;
}

err get(Ctx *c, Blobs *b, str hex, str *out) {
    BlobReader *r;
    int64_t size;
    size_t got;
    TRY(blob_open(c, b, hex, &r, &size));
    char *p = arena_alloc_raw(c->mem, (size_t)size + 1);
    err e = blob_read_at(c, r, 0, p, (size_t)size + 1, &got);
    blob_close(r);
    *out = str_n(p, got);
    return e;
}

size_t staging_files(Ctx *c) {
    str *names;
    size_t n = 99;
    err e = dir_list(c, arena_printf(c->mem, "%s/staging", test_dir()), &names, &n);
    return e ? 99 : n;
}

bool s3_there(Ctx *c, S3Config *out) {
    str url = str_z(os_env(c->os, "LATHE_TEST_S3")), bucket;
    if (!url.n) return false;
    size_t slash = url.n;
    while (slash && url.p[slash - 1] != '/') slash--;
    bucket = str_sub(url, slash, url.n);
    const char *key = os_env(c->os, "LATHE_TEST_S3_KEY"),
               *secret = os_env(c->os, "LATHE_TEST_S3_SECRET");
    *out = (S3Config){ .endpoint = str_sub(url, 0, slash - 1),
                       .bucket = bucket,
                       .prefix = os_id(c, "t"),
                       .region = S("us-east-1"),
                       .access_key = str_z(key ? key : "test"),
                       .secret_key = str_z(secret ? secret : "test"),
                       .patience_ms = 5000,
                       .parallel = 4 };
    return true;
}

err blob_test_open(Ctx *c, Blobs **out) {
    static const char *dir; // a store that is opened again is the same one
    static str prefix;
    S3Config config;
    TRY(blobs_open(c, str_z(test_dir()), out));
    if (!store_is_s3) return ERR_OK;
    if (!s3_there(c, &config)) return ERR_INVALID;
    if (dir != test_dir()) dir = test_dir(), prefix = str_z(mem_strdup(config.prefix));
    config.prefix = prefix;
    return blobs_use_s3(c, *out, &config, true);
}
