// SPDX-License-Identifier: Apache-2.0
// blob.h - content-addressed objects, named by the SHA-256 of their bytes: files, DIR/blob/ab/cdef…
// or in a bucket of S3 (blob/store.h), which nobody above has to know. A blob is immutable; what
// refers to it is SQL's business. Staging files are invisible until committed; a commit is atomic
// and durable. Owner: whoever called blobs_open; a BlobWriter ends by commit, abandon or pause, at
// the latest with its Ctx. Threads: Blobs any, a writer or a reader one at a time. Blocking:
// workers only. Other errors are those of os/file.h, and with S3 those of blob/store.h.
#ifndef LATHE_BLOB_BLOB_H
#define LATHE_BLOB_BLOB_H
#include "os/file.h"

enum { BLOB_DIGEST_HEX = 64 };
typedef struct Blobs Blobs;
// Makes DIR/blob and DIR/staging; removes what unnamed writers left there more than a day ago, and
// named staging that nobody continued for 30 days.
err blobs_open(Ctx *c, str dir, Blobs **out);
void blobs_close(Blobs *b); // after its last writer; NULL is fine

typedef struct BlobProgress {
    void (*fn)(void *arg, int64_t done, int64_t total);
    void *arg;
} BlobProgress;

// Writing: a named staging file can be continued after a restart; an unnamed one is gone when its
// Ctx ends without a commit.
typedef struct BlobWriter BlobWriter;
// name absent: unnamed; else [a-z0-9_]{1,64} (ERR_INVALID), e.g. an import's id. ERR_CONFLICT with
// R_BLOB_STAGED while another writer has it.
err blob_stage(Ctx *c, Blobs *b, str name, BlobWriter **out);
// Bytes already there: where to continue. After a restart these are the bytes that were synced: by
// blob_sync, blob_pause, or by the writer itself every 32 MiB.
int64_t blob_staged(const BlobWriter *w);
err blob_append(Ctx *c, BlobWriter *w, str bytes); // ERR_FULL: the staging file keeps what fitted
// Staged bytes survive a power cut. After a failure the writer takes no more (ERR_UNAVAILABLE with
// R_BLOB_BROKEN): pause it and stage the name again.
err blob_sync(Ctx *c, BlobWriter *w);
// Makes it a blob. want_hex absent, or the digest it must have in lower case: else ERR_INVALID with
// R_BLOB_DIGEST, and the staging file is removed. Any other error leaves it as by blob_pause. Ends
// the writer in each case.
err blob_commit(Ctx *c, BlobWriter *w, str want_hex, char out_hex[BLOB_DIGEST_HEX + 1],
                int64_t *out_size);
void blob_writer_progress(BlobWriter *w, BlobProgress progress); // of a commit that is sent away
void blob_abandon(Ctx *c, BlobWriter *w);                        // removes the staging file
void blob_pause(BlobWriter *w); // syncs and closes; a named staging file stays, an unnamed one goes
// Takes a whole file of the server's own machine, as it is while it is read: the bytes are copied,
// never linked, so that a later change of the source cannot change the blob. Looks at ctx_check
// between pieces. progress may be NULL.
err blob_import(Ctx *c, Blobs *b, str path, const BlobProgress *progress,
                char out_hex[BLOB_DIGEST_HEX + 1], int64_t *out_size);

typedef struct BlobReader BlobReader;                                          // of S3: holds 2 MiB
err blob_open(Ctx *c, Blobs *b, str hex, BlobReader **out, int64_t *out_size); // ERR_NOTFOUND
// Short only at the end of the object.
err blob_read_at(Ctx *c, BlobReader *r, int64_t at, void *out, size_t n, size_t *out_got);
void blob_close(BlobReader *r);                              // NULL is fine
err blob_find(Ctx *c, Blobs *b, str hex, int64_t *out_size); // ERR_NOTFOUND; out_size may be NULL
bool blob_has(Ctx *c, Blobs *b, str hex);   // as blob_find: only where files are the only store
str blob_path(Ctx *c, Blobs *b, str hex);   // where its file is, if it is one; hex must be valid
err blob_remove(Ctx *c, Blobs *b, str hex); // the caller has proved that nothing refers to it
// Reads it all: ERR_INTERNAL with R_BLOB_ROTTEN when the bytes changed. progress may be NULL; it is
// called between pieces, and may wait.
err blob_verify(Ctx *c, Blobs *b, str hex);
err blob_verify_slowly(Ctx *c, Blobs *b, str hex, const BlobProgress *progress);
// Takes a damaged object out of the way, to DIR/rotten or PREFIX/rotten: nothing opens it any more,
// and the same content may be stored anew. blob_rotten tells whether it lies there;
// blob_rotten_remove drops it; none is fine.
err blob_quarantine(Ctx *c, Blobs *b, str hex);
err blob_rotten(Ctx *c, Blobs *b, str hex, bool *out);
err blob_rotten_remove(Ctx *c, Blobs *b, str hex);
// The digests that start with the two hex digits, sorted: one of 256 folders at a time.
err blob_list(Ctx *c, Blobs *b, str prefix2, str **out_hex, size_t *out_n);

void sha256_hex(str bytes, char out[BLOB_DIGEST_HEX + 1]);
const struct evp_md_st *sha256_md(void); // for OpenSSL's EVP_DigestInit_ex: found once
bool sha256_hex_valid(str hex);          // 64 lower-case hex digits

// clang-format off
#define BLOB_REASONS(X)                                                                           \
    X(BLOB_DIGEST, "digest_mismatch", "the content has SHA-256 {got}, not {want}",                \
      "内容的 SHA-256 为 {got}，而非 {want}")                                                     \
    X(BLOB_ROTTEN, "blob_rotten", "object {digest} as it is stored no longer has its digest",     \
      "所存对象 {digest} 已损坏")                                                                 \
    X(BLOB_ABSENT, "blob_absent", "there is no object {digest}", "没有对象 {digest}")             \
    X(BLOB_NAME, "bad_staging_name", "{name} is no name for a staging file", "{name} 不是合法的暂存名") \
    X(BLOB_BROKEN, "staging_broken",                                                              \
      "staging file {name} could not be synced; stage it again to go on from the last sync",      \
      "暂存文件 {name} 无法同步；请重新暂存，从上次同步处继续")                                   \
    X(BLOB_STAGED, "staging_in_use", "staging file {name} is being written by another call",      \
      "暂存文件 {name} 正被另一个调用写入")
// clang-format on
REASONS_DECLARE(BLOB_REASONS)
extern const Reason *const blob_reasons[];
#endif
