// SPDX-License-Identifier: Apache-2.0
// blob.h - content-addressed objects as files: DIR/blob/ab/cdef…, named by the SHA-256 of their bytes. A blob is immutable; what refers to
// it is SQL's business. Staging files are invisible until committed; a commit is atomic and durable. Blocking: workers only.
#ifndef LATHE_BLOB_BLOB_H
#define LATHE_BLOB_BLOB_H
#include "os/file.h"

enum { BLOB_DIGEST_HEX = 64 };
typedef struct Blobs Blobs;
err blobs_open(Ctx *c, str dir, Blobs **out);    // makes DIR/blob and DIR/staging; removes staging of unfinished calls older than a day
void blobs_close(Blobs *b);

// Writing: a named staging file can be continued after a restart; an unnamed one is gone when its Ctx ends without commit.
typedef struct BlobWriter BlobWriter;
err blob_stage(Ctx *c, Blobs *b, str name, BlobWriter **out);            // name absent: unnamed; else [a-z0-9_]{1,64}, e.g. an import's id
int64_t blob_staged(const BlobWriter *w);        // bytes already there: where to continue
err blob_append(Ctx *c, BlobWriter *w, str bytes);           // ERR_FULL: the staging file keeps what fitted
err blob_sync(Ctx *c, BlobWriter *w);            // staged bytes survive a power cut
// Makes it a blob. want_hex absent, or the digest it must have (else ERR_INVALID with R_BLOB_DIGEST and the staging file is removed).
err blob_commit(Ctx *c, BlobWriter *w, str want_hex, char out_hex[BLOB_DIGEST_HEX + 1], int64_t *out_size);
void blob_abandon(Ctx *c, BlobWriter *w);        // removes the staging file
void blob_pause(BlobWriter *w);                  // closes; a named staging file stays
// Takes a whole file of the server's own machine: hard link or reflink where possible, else a copy; progress(arg, done, total) may be NULL.
err blob_import(Ctx *c, Blobs *b, str path, void (*progress)(void *arg, int64_t done, int64_t total), void *arg,
                char out_hex[BLOB_DIGEST_HEX + 1], int64_t *out_size);

err blob_open(Ctx *c, Blobs *b, str hex, File **out, int64_t *out_size);             // ERR_NOTFOUND
str blob_path(Ctx *c, Blobs *b, str hex);        // for children that map the file; read-only by mode
err blob_remove(Ctx *c, Blobs *b, str hex);      // the caller has proved that nothing refers to it
err blob_verify(Ctx *c, Blobs *b, str hex);      // reads it all: ERR_INTERNAL with R_BLOB_ROTTEN when the bytes changed
err blob_list(Ctx *c, Blobs *b, str prefix2, str **out_hex, size_t *out_n);          // one of 256 folders at a time
void sha256_hex(str bytes, char out[BLOB_DIGEST_HEX + 1]);

#define BLOB_REASONS(X)                                                                                                  \
    X(BLOB_DIGEST, "digest_mismatch", "the content has SHA-256 {got}, not {want}", "内容的 SHA-256 为 {got}，而非 {want}")    \
    X(BLOB_ROTTEN, "blob_rotten", "object {digest} on disk no longer has its digest", "磁盘上的对象 {digest} 已损坏")           \
    X(BLOB_ABSENT, "blob_absent", "there is no object {digest}", "没有对象 {digest}")
REASONS_DECLARE(BLOB_REASONS)
extern const Reason *const blob_reasons[];
#endif
