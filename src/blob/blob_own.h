// SPDX-License-Identifier: Apache-2.0
// blob_own.h - what the files of blob share; nobody else includes it.
#ifndef LATHE_BLOB_BLOB_OWN_H
#define LATHE_BLOB_BLOB_OWN_H
#include "base/map.h"
#include "blob/store.h"
#include "os/thread.h"
#include <openssl/evp.h>

// Staging files: NAME and its NAME.synced, or -ID for an unnamed one; no name may hold '.' or '-'.
#define STAGE_MARK ".synced"
#define STAGE_UNNAMED "-"

// Where objects lie: place_files (blob.c) and place_s3 (s3_store.c). hex is valid. find, open,
// remove and quarantine: ERR_NOTFOUND when it is not there.
typedef struct BlobPut {
    File *from; // its bytes, known to have the digest
    str hex;
    int64_t size;
    const BlobProgress *progress; // may be NULL
} BlobPut;
typedef struct Place {
    err (*find)(Ctx *c, Blobs *b, str hex, int64_t *out_size);
    err (*open)(Ctx *c, Blobs *b, str hex, BlobReader *r);
    err (*read)(Ctx *c, BlobReader *r, int64_t at, void *out, size_t n, size_t *out_got);
    void (*close)(BlobReader *r);
    err (*put)(Ctx *c, Blobs *b, const BlobPut *p); // NULL: by renaming, stage.c's business
    err (*remove)(Ctx *c, Blobs *b, str hex);
    err (*quarantine)(Ctx *c, Blobs *b, str hex);
    err (*rotten)(Ctx *c, Blobs *b, str hex, bool *out);
    err (*rotten_remove)(Ctx *c, Blobs *b, str hex);
    err (*list)(Ctx *c, Blobs *b, str prefix2, str **out_hex, size_t *out_n); // in any order
} Place;
extern const Place place_files, place_s3;

struct BlobReader {
    Blobs *b;
    const Place *place;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    File *f;      // of a file
    char *window; // of S3: bytes window_at to window_at + window_n
    int64_t window_at;
    size_t window_n;
};

typedef struct Cache Cache;
struct Blobs {
    Os *os;
    Arena *mem;
    const char *dir, *objects, *staging, *rotten;
    pthread_mutex_t lock;          // of busy
    Map busy;                      // staging name to its BlobWriter
    const Place *places[2], *home; // looked into in this order; where new ones go
    size_t places_n;
    struct S3 *s3;
    Cache *cache; // NULL without s3
};

// The bytes of an object in S3, in order, several ranges under way at once.
typedef struct BlobSink {
    err (*fn)(Ctx *c, void *arg, str bytes);
    void *arg;
} BlobSink;
err s3_pull(Ctx *c, Blobs *b, str hex, const BlobSink *to, int64_t *out_size);
err blob_absent(Ctx *c, str hex); // ERR_NOTFOUND with R_BLOB_ABSENT

str blob_folder(Ctx *c, Blobs *b, str hex);                     // of the object with this digest
EVP_MD_CTX *digest_new(void);                                   // SHA-256
void digest_end(EVP_MD_CTX *md, char out[BLOB_DIGEST_HEX + 1]); // frees md
enum { DIGEST_BYTES = 512 }; // about what OpenSSL takes for one: nothing else of it can fail
void digest_hex(const unsigned char *digest, char out[BLOB_DIGEST_HEX + 1]);
err stage_age(Ctx *c, str mark_path, int64_t *out_wall_ms); // its last sync; 0: there was none
err file_hash(Ctx *c, File *f, int64_t from, int64_t to, EVP_MD_CTX *md);
#endif
