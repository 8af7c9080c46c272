// SPDX-License-Identifier: Apache-2.0
// objects.h - which store objects lie in, by the settings; local files of those that lie in S3, for
// modules whose children map them; and the job that moves all of them to the store that is chosen.
// Owner: the module `blob` (collect.c). Threads: any, unless said.
#ifndef LATHE_RES_OBJECTS_H
#define LATHE_RES_OBJECTS_H
#include "res/collect.h"

enum {
    BLOB_GRACE,
    BLOB_SCRUB_EVERY,
    BLOB_SCRUB_RATE,
    BLOB_STORE,
    BLOB_CACHE_MAX,
    S3_ENDPOINT,
    S3_BUCKET,
    S3_PREFIX,
    S3_REGION,
    S3_ACCESS_KEY,
    S3_SECRET_KEY,
    S3_SECRET_FILE,
    S3_SESSION_TOKEN,
    S3_ADDRESS_STYLE,
    S3_CA_FILE,
    S3_PATIENCE,
    S3_PARALLEL,
    BLOB_SETTINGS
};
extern const Setting blob_settings[BLOB_SETTINGS + 1];

// At start: the folder's objects, and the bucket that the settings name. What the bucket says that
// only an operator can mend is an error; one that does not answer just now is told in the log.
err objects_open(Ctx *c, str dir, Blobs **out);
// For `lathe doctor`: *out_named false: no bucket is named. Stores and removes a small object.
err objects_check(Ctx *c, bool *out_named);

// The object as a local file. While it is not there: ERR_UNAVAILABLE with R_OBJECT_COMING, how far
// it is or why not, and it is being brought; ask again. ERR_NOTFOUND: no store has it.
err object_local(Ctx *c, str digest, str *out_path);

err objects_start(Ctx *c); // its worker
void objects_stop(void);
extern const JobKind objects_move_kind;
extern const Metric metric_cache, metric_fetched;
err objects_move_serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
extern const Field objects_move_output[];

#define OBJECTS_REASONS(X)                                            \
    X(OBJECT_COMING, "object_coming",                                 \
      "its content is being brought from S3: {done} of {total}{why}", \
      "正在从 S3 获取内容：{done} / {total}{why}")
REASONS_DECLARE(OBJECTS_REASONS)
#endif
