// SPDX-License-Identifier: Apache-2.0
// store.h - where objects lie: as files below DIR, in a bucket of an S3 service, or, while they are
// moved, in both. New ones go to the store that is chosen; each is read from wherever it is.
// Owner: Blobs; texts of a config are copied. Threads: any.
#ifndef LATHE_BLOB_STORE_H
#define LATHE_BLOB_STORE_H
#include "blob/blob.h"

typedef enum { S3_ADDRESS_AUTO, S3_ADDRESS_PATH, S3_ADDRESS_HOST } S3Address;
typedef struct S3Config {
    str endpoint;       // "https://HOST[:PORT]"; empty: AWS's of the region
    str bucket, prefix; // prefix: [A-Za-z0-9._/-], without slashes at its ends; may be empty
    str region;         // of the signature
    str access_key, secret_key, token; // token: of temporary keys; empty: none
    str ca;                            // PEM file of authorities; empty: the system's
    S3Address address;   // bucket in the path or in the host; auto: host at AWS, else path
    int64_t patience_ms; // a call that fails for a moment is tried again for so long
    int parallel;        // parts of one object under way at once
} S3Config;
// From now on objects are also looked for there. home: new ones go there. Once, before use.
err blobs_use_s3(Ctx *c, Blobs *b, const S3Config *config, bool home);
bool blobs_remote(const Blobs *b);                         // blobs_use_s3 was called
err blobs_s3_check(Ctx *c, Blobs *b, int64_t patience_ms); // whether the bucket answers
// The same without a folder; also stores and removes a small object.
err s3_probe(Ctx *c, const S3Config *config);
// Removes what uploads that died left in the bucket more than a day ago. *out_n: how many.
err blobs_s3_sweep(Ctx *c, Blobs *b, int64_t *out_n);
// Local files of objects that lie in S3, for children that map them: DIR/cached, at most so many
// bytes (beside those that are pinned). blob_local: the file as it is now, or ERR_NOTFOUND.
// blob_fetch brings it, whole and of its digest, in one reading for all who ask at a time;
// ERR_FULL with R_CACHE_FULL: there is no room.
void blobs_cache_max(Blobs *b, int64_t bytes);
int64_t blobs_cache_bytes(Blobs *b);
err blob_local(Ctx *c, Blobs *b, str hex, str *out_path);
err blob_fetch(Ctx *c, Blobs *b, str hex, const BlobProgress *progress, str *out_path);
void blobs_pin(Blobs *b, str owner, const str *hex, size_t n); // these stay; n 0: none of owner's
// Brings an object to the store that is chosen, verified there, and removes it from the other one.
// ERR_NOTFOUND: it is nowhere. *out_moved false: it was there alone already.
err blob_move(Ctx *c, Blobs *b, str hex, const BlobProgress *progress, bool *out_moved);

// clang-format off
#define S3_REASONS(X)                                                                             \
    X(S3_SETTING, "s3_setting", "{setting} must be {want}, not {got}",                            \
      "{setting} 应为 {want}，而不是 {got}")                                                      \
    X(S3_FAR, "s3_unreachable",                                                                   \
      "S3 at {endpoint} cannot be reached ({why}); it was tried for {seconds} s: see whether "    \
      "blob.s3.endpoint is right and that it runs",                                               \
      "无法连接 S3 {endpoint}（{why}），已尝试 {seconds} 秒：请检查 blob.s3.endpoint 及其服务")   \
    X(S3_BUSY, "s3_busy",                                                                         \
      "S3 at {endpoint} answers {status} {code} ({message}); it was tried for {seconds} s",       \
      "S3 {endpoint} 应答 {status} {code}（{message}），已尝试 {seconds} 秒")                     \
    X(S3_DENIED, "s3_denied",                                                                     \
      "S3 at {endpoint} refuses: {code} ({message}); blob.s3.access_key and blob.s3.secret_key "  \
      "must be those of a user who may list, read, write and delete in bucket {bucket}",          \
      "S3 {endpoint} 拒绝访问：{code}（{message}）；blob.s3.access_key 与 blob.s3.secret_key "    \
      "须属于可在存储桶 {bucket} 中列出、读、写、删除的用户")                                     \
    X(S3_CLOCK, "s3_clock",                                                                       \
      "this machine's clock is {seconds} s away from that of S3 at {endpoint}: set it by NTP",    \
      "本机时钟与 S3 {endpoint} 相差 {seconds} 秒：请用 NTP 校时")                                \
    X(S3_BUCKET, "s3_no_bucket",                                                                  \
      "there is no bucket {bucket} at {endpoint}: make it, or set blob.s3.bucket",                \
      "{endpoint} 没有存储桶 {bucket}：请创建，或设置 blob.s3.bucket")                            \
    X(S3_REGION, "s3_region",                                                                     \
      "bucket {bucket} at {endpoint} is in another region than {got}: set blob.s3.region{want}",  \
      "{endpoint} 的存储桶 {bucket} 不在区域 {got}：请设置 blob.s3.region{want}")                 \
    X(S3_FULL, "s3_full", "S3 at {endpoint} has no room left: {code} ({message})",                \
      "S3 {endpoint} 空间已满：{code}（{message}）")                                              \
    X(S3_TLS, "s3_tls",                                                                           \
      "the certificate of S3 at {endpoint} is not good ({why}): see blob.s3.ca",                  \
      "S3 {endpoint} 的证书无效（{why}）：请检查 blob.s3.ca")                                     \
    X(S3_ANSWER, "s3_answer", "S3 at {endpoint} answers {what} with {status} {code} ({message})", \
      "S3 {endpoint} 对 {what} 应答 {status} {code}（{message}）")                                \
    X(S3_UNSURE, "s3_unsure",                                                                     \
      "S3 at {endpoint} did not say whether object {digest} is removed; it is asked again",       \
      "S3 {endpoint} 未确认对象 {digest} 是否已删除，将再次询问")                                 \
    X(CACHE_FULL, "cache_full",                                                                   \
      "a local copy of an object needs {bytes} bytes, and blob.cache_max ({limit}) has no room "  \
      "for it beside what is in use: raise it",                                                   \
      "对象的本地副本需要 {bytes} 字节，而 blob.cache_max（{limit}）除使用中的副本外已无空间：请调大") \
    X(S3_KEY, "s3_no_key", "S3 at {endpoint} has no {key}", "S3 {endpoint} 没有 {key}")
// clang-format on
REASONS_DECLARE(S3_REASONS)
extern const Reason *const s3_reasons[];
#endif
