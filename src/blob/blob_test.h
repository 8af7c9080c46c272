// SPDX-License-Identifier: Apache-2.0
// blob_test.h - what the units of blob share: a store of either kind, bytes, put and get. A test
// that is written with STORE_TEST runs on files, and again in a bucket when LATHE_TEST_S3 names
// one: "http://HOST:PORT/BUCKET" (test/s3-run). Threads: the test's.
#ifndef LATHE_BLOB_BLOB_TEST_H
#define LATHE_BLOB_BLOB_TEST_H
#include "base/test.h"
#include "blob/store.h"

Ctx *blob_test_ctx(void);
str noise(Arena *a, size_t n, uint64_t seed);
err put(Ctx *c, Blobs *b, str bytes, char hex[BLOB_DIGEST_HEX + 1]);
err get(Ctx *c, Blobs *b, str hex, str *out);
size_t staging_files(Ctx *c);
bool s3_there(Ctx *c, S3Config *out);    // prefix: of this test's own
err blob_test_open(Ctx *c, Blobs **out); // in test_dir(), of the kind that is tested
extern bool store_is_s3;

#define STORE_TEST(name_)                                \
    static void store_##name_(void);                     \
    TEST(name_) {                                        \
        store_is_s3 = false;                             \
        store_##name_();                                 \
    }                                                    \
    TEST(name_##_in_s3) {                                \
        S3Config there_;                                 \
        if (!s3_there(blob_test_ctx(), &there_)) return; \
        store_is_s3 = true;                              \
        store_##name_();                                 \
    }                                                    \
    static void store_##name_(void)
#endif
