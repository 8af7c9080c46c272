// SPDX-License-Identifier: Apache-2.0
// cache.h - private to blob: local files of objects that lie in S3, DIR/cached/DIGEST. What others
// may do with them is in blob/store.h. Owner: Blobs. Threads: any.
#ifndef LATHE_BLOB_CACHE_H
#define LATHE_BLOB_CACHE_H
#include "blob/blob_own.h"

err cache_open(Ctx *c, Blobs *b, Cache **out);
void cache_close(Cache *k); // NULL is fine
void cache_forget(Ctx *c, Blobs *b, str hex);
// Of a file that is synced and has the digest: it becomes the local copy where it fits, or stays.
void cache_adopt(Ctx *c, Blobs *b, str path, str hex, int64_t size);
#endif
