// SPDX-License-Identifier: Apache-2.0
// model.h - names and immutable versions of models, imported, checked and described. A version's
// weights are one blob.
// Owner: texts of VersionInfo live in the caller's c->mem. Threads: workers only.
#ifndef LATHE_MOD_MODEL_H
#define LATHE_MOD_MODEL_H
#include "llm/gguf.h"
#include "res/module.h"

// What a deployment needs of a version. Numbers are 0 where the file does not say.
typedef struct VersionInfo {
    str id, model, model_id, number, digest;
    str path; // the blob's file
    str architecture, quantisation, chat_template;
    int64_t size_bytes, context, parameters, layers, embedding, heads, heads_kv, key_length,
        value_length;
    bool embedder, can_chat, ready, failed; // failed: it is not on its way to be ready
    GgufFacts facts;                        // all of them: the members above are copies
} VersionInfo;
// By "smol:2", by id, or by "smol", which is its newest ready version; in c->project. ERR_NOTFOUND
// with R_NOT_FOUND; ERR_CONFLICT with R_VERSION_NOT_READY: *out is filled all the same, but for a
// bare name without any ready version.
err model_version(Ctx *c, Tx *tx, str text_or_id, VersionInfo *out);
// To serve `slots` requests at a time of up to `context` tokens each: weights, KV cache in f16,
// buffers. An estimate (llm/README.md); INT64_MAX when it overflows.
int64_t model_memory_bytes(const VersionInfo *v, int64_t context, int64_t slots);

extern const Resource model_resource,
    model_version_resource; // references: "model", "model_version"
extern const Module model_module;

// clang-format off
#define MODEL_REASONS(X)                                                                          \
    X(VERSION_NOT_READY, "version_not_ready", "{version} is not ready: {why}",                    \
      "{version} 尚未就绪：{why}")                                                                \
    X(VERSIONS_MANY, "too_many_versions",                                                         \
      "model {model} has {limit} versions; delete some first",                                    \
      "模型 {model} 已有 {limit} 个版本，请先删除一些")                                           \
    X(UPLOADS_MANY, "too_many_uploads",                                                           \
      "model {model} has {limit} unfinished uploads; finish or delete some",                      \
      "模型 {model} 已有 {limit} 个未完成的上传，请先完成或删除一些")                             \
    X(IMPORT_SOURCE, "import_source", "give exactly one of path, url and upload",                 \
      "path、url、upload 必须且只能提供一个")                                                     \
    X(IMPORT_DIGEST, "import_digest", "{field} must be a SHA-256 in lower-case hex",              \
      "{field} 应为小写十六进制的 SHA-256")                                                       \
    X(IMPORT_SIZE, "import_too_large",                                                            \
      "{what} has {bytes} bytes; setting {setting} allows {limit}",                               \
      "{what} 有 {bytes} 字节；设置项 {setting} 只允许 {limit}")                                  \
    X(IMPORT_CHANGED, "import_changed", "{what} changed while it was read",                       \
      "读取过程中 {what} 发生了变化")                                                             \
    X(IMPORT_READER, "import_reader", "the process that reads the file's header ended with {how}", \
      "读取文件头的进程以 {how} 结束")                                                            \
    X(PATH_FORM, "bad_import_path", "{field} must be an absolute path of a file on the server",   \
      "{field} 应为服务器上文件的绝对路径")                                                       \
    X(URL_FORM, "bad_import_url", "{field} is not a usable URL: {why}",                           \
      "{field} 不是可用的 URL：{why}")                                                            \
    X(URL_PRIVATE, "private_address",                                                             \
      "{host} leads to {address}, which is not public; setting {setting} allows it",              \
      "{host} 指向非公网地址 {address}；可用设置项 {setting} 放行")                               \
    X(URL_STATUS, "url_status", "{url} answered {status}", "{url} 应答 {status}")                 \
    X(URL_REDIRECTS, "url_redirects", "{url} redirects more than {limit} times",                  \
      "{url} 的重定向超过 {limit} 次")                                                            \
    X(URL_BROKEN, "url_broken", "{url} broke off after {bytes} bytes: {why}",                     \
      "{url} 在 {bytes} 字节后中断：{why}")                                                       \
    X(UPLOAD_OFFSET, "upload_offset", "the upload stands at byte {offset}, you sent from {sent}", \
      "上传当前位于第 {offset} 字节，而你从 {sent} 开始发送")                                     \
    X(UPLOAD_HEADER, "upload_header", "{field} must say where the bytes begin: {want}",           \
      "{field} 应说明字节的起点：{want}")                                                         \
    X(UPLOAD_BUSY, "upload_busy", "another request is writing to upload {id}",                    \
      "另一个请求正在写入上传 {id}")                                                              \
    X(UPLOAD_SIZE, "upload_size", "the upload has {bytes} of {size} bytes",                       \
      "上传已有 {bytes} / {size} 字节")                                                           \
    X(UPLOAD_EMPTY, "upload_empty", "the file has no bytes", "文件没有内容")                        \
    X(UPLOAD_GONE, "upload_gone", "the uploaded bytes were given up; upload them again",          \
      "上传的数据已被放弃，请重新上传")
// clang-format on
REASONS_DECLARE(MODEL_REASONS)
extern const Reason *const model_reasons[];
#endif
