// SPDX-License-Identifier: Apache-2.0
// model_import.h - what the files of the import share; nobody else includes it.
//   model_job.c the steps · model_fetch.c bytes into staging · model_url.c the same over HTTP
//   model_read.c facts and digest of staged bytes
// Owner: an Import lives for one attempt, in its arena. Threads: the job's worker.
#ifndef LATHE_MOD_MODEL_IMPORT_H
#define LATHE_MOD_MODEL_IMPORT_H
#include "mod/model/model_own.h"

// ---- model_job.c
extern const JobKind model_import_kind;
typedef struct Import { // one attempt
    Job *job;
    Version *v;
    BlobWriter *w; // NULL: not open
    void *md;      // digest of the first `hashed` staged bytes
    int64_t hashed;
    GgufFacts facts;
    int64_t told_ns; // when progress was last written to the row
} Import;
// Progress of fetching, and the end of a call that was cancelled.
err model_import_step(Ctx *c, Import *im, int64_t done, int64_t total);
err model_import_tx(Ctx *c, Import *im, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg); // guarded
void model_import_ctx(Ctx *c, const Job *j); // the job's project, the system as its actor
// Tests only: called at each named point of an import; an error there ends the attempt.
extern err (*model_import_point)(Ctx *c, const char *point);

// ---- model_fetch.c, model_url.c: bring all bytes of the source into im->w
err model_import_fetch(Ctx *c, Import *im);
err model_import_restart(Ctx *c, Import *im); // forgets what is staged
err model_import_url(Ctx *c, Import *im);
typedef struct Url {
    str shown;        // without its query, which may hold a secret: for logs and failures
    str host, target; // host: without brackets; target: path and query
    int port;
    bool tls; // https: checked by the program's trust (app->tls)
} Url;
// http or https, no user, no fragment; a host that is a private address is refused at once.
err model_url_parse(Ctx *c, str text, Url *out);
err model_url_join(Ctx *c, const Url *base, str location, Url *out);

// ---- model_read.c
str model_staging_path(Ctx *c, str name);
// In a child without network and new files: ERR_INVALID with R_GGUF_BAD (offset, why), or with
// R_IMPORT_READER when the file ended the child.
err model_facts_read(Ctx *c, str path, GgufFacts *out);
// Stages bytes and hashes them on the way; the rest of the digest is read from the file.
err model_import_append(Ctx *c, Import *im, str bytes);
void model_digest_restart(Ctx *c, Import *im);
err model_digest_read(Ctx *c, Import *im, str path, char out_hex[BLOB_DIGEST_HEX + 1]);
err model_facts_dir_reset(Ctx *c); // at start: what an earlier life left
#endif
