// SPDX-License-Identifier: Apache-2.0
// blob_own.h - what blob.c and stage.c share; nobody else includes it.
#ifndef LATHE_BLOB_BLOB_OWN_H
#define LATHE_BLOB_BLOB_OWN_H
#include "base/map.h"
#include "blob/blob.h"
#include "os/thread.h"
#include <openssl/evp.h>

// Staging files: NAME and its NAME.synced, or -ID for an unnamed one; no name may hold '.' or '-'.
#define STAGE_MARK ".synced"
#define STAGE_UNNAMED "-"

struct Blobs {
    Os *os;
    Arena *mem;
    const char *dir, *objects, *staging, *rotten;
    pthread_mutex_t lock; // of busy
    Map busy;             // staging name to its BlobWriter
};

str blob_folder(Ctx *c, Blobs *b, str hex);                     // of the object with this digest
EVP_MD_CTX *digest_new(void);                                   // SHA-256
void digest_end(EVP_MD_CTX *md, char out[BLOB_DIGEST_HEX + 1]); // frees md
void digest_hex(const unsigned char *digest, char out[BLOB_DIGEST_HEX + 1]);
err stage_age(Ctx *c, str mark_path, int64_t *out_wall_ms); // its last sync; 0: there was none
err file_hash(Ctx *c, File *f, int64_t from, int64_t to, EVP_MD_CTX *md);
#endif
