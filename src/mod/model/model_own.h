// SPDX-License-Identifier: Apache-2.0
// model_own.h - what the files of the model module share; nobody else includes it.
//   model.c the descriptor and the hooks · model_table.c rows · model_sql.c migrations, queries
//   model_collect.c removal of what nobody needs · model_import.h the job · model_upload.h uploads
#ifndef LATHE_MOD_MODEL_OWN_H
#define LATHE_MOD_MODEL_OWN_H
#include "mod/model/model.h"
#include "res/app.h"

enum {
    VERSIONS_MAX = 900, // of one model
    UPLOADS_MAX = 64,   // of one model, unfinished
    MEMORY_ROWS = 32,
    URL_MAX = 2000,
    PATH_CHARS_MAX = 1000,
    TEMPLATE_MAX = 64 << 10, // bytes of a chat template that is kept with the facts
};

typedef struct Model {
    Head head;
    str description, licence;
    str *labels;
    size_t labels_n;
    str architecture; // of the newest ready version
    int64_t latest, last_number, versions;
} Model;

typedef enum { SOURCE_UPLOAD, SOURCE_PATH, SOURCE_URL } SourceKind;
typedef struct Source {
    int type;
    str upload, path, url;
} Source;

typedef enum { VERSION_WAITING, VERSION_IMPORTING, VERSION_READY, VERSION_FAILED } VersionState;
typedef struct MemoryNeed {
    int64_t context, bytes;
} MemoryNeed;
typedef struct Version {
    Head head;
    str model;
    int64_t number;
    Source source;
    str sha256; // that the content must have
    int state;
    str state_reason;
    int64_t progress; // percent
    str job;
    str digest; // set before the blob is there: from then on no collector takes it
    int64_t size_bytes;
    int format;
    GgufFacts facts;
    MemoryNeed *memory;
    size_t memory_n;
    str staging; // name of the staging file that this version owns; absent once it is a blob
} Version;

typedef enum { UPLOAD_OPEN, UPLOAD_FINISHED } UploadState;
typedef struct Upload {
    Head head;
    str model;
    int64_t size_bytes; // announced; unset: not said
    str sha256;
    int64_t received_bytes; // durable when the last request ended
    int state;
} Upload;

typedef struct ImportInput { // of the action `import`
    str path, url, sha256;
} ImportInput;
typedef struct UploadInput { // of POST …/uploads and …/finish
    int64_t size_bytes;
    str sha256;
} UploadInput;
typedef struct UploadOutput {
    str id, model;
    int64_t offset, size_bytes;
} UploadOutput;
typedef struct FinishOutput {
    str job, version;
    int64_t number;
} FinishOutput;

extern const Resource model_upload_resource;
extern const Field model_rows[], model_version_rows[], model_upload_rows[], model_facts_rows[];
extern const Field model_import_input[], model_upload_input[], model_upload_output[];
extern const Field model_finish_input[], model_finish_output[];
extern const Action model_actions[];
extern const Route model_routes[];
extern const CliVerb model_verbs[];
extern const Setting model_settings[];
enum { MODEL_IMPORT_MAX, MODEL_PRIVATE_URLS, MODEL_UPLOAD_KEEP, MODEL_SETTINGS };
extern const Metric model_metric_imports, model_metric_import_bytes;
extern const Metric *const model_metrics[];
extern const Migration model_migrations[];
extern const size_t model_migrations_n;

// ---- model.c: hooks and actions that the rows name
err model_check(Ctx *c, Tx *tx, const void *old, void *now);
err model_version_check(Ctx *c, Tx *tx, const void *old, void *now);
err model_version_stage(Ctx *c, Tx *tx, const void *old, const void *now);
err model_version_resolve(Ctx *c, Tx *tx, str text, str *out_id);
err model_upload_stage(Ctx *c, Tx *tx, const void *old, const void *now);
err model_import(Ctx *c, Tx *tx, void *row, const void *input, str *out_job);
// The model's STATUS from its versions; its own absence is no error.
err model_refresh(Ctx *c, Tx *tx, str model_id);
Version *model_version_new(Ctx *c);
Upload *model_upload_new(Ctx *c);
App *model_app(void); // of the running program
int64_t model_import_max_bytes(void);
err model_digest_check(Ctx *c, const char *field, str hex); // absent is fine
err model_import_size_check(Ctx *c, const char *what, int64_t bytes);
err model_room_check(Ctx *c, str what, int64_t bytes); // on the disk, with a margin for the rest
void model_memory_fill(Ctx *c, const GgufFacts *g, Version *v);

// ---- model_sql.c
typedef struct VersionCounts {
    int64_t count, last, latest; // 0: none
    str architecture;
} VersionCounts;
err model_sql_version_counts(Ctx *c, Tx *tx, str model_id, VersionCounts *out);
// Absent when there is none, here and below. Number 0: the newest that is ready.
err model_sql_version_named(Ctx *c, Tx *tx, str model, int64_t number, str *out_id);
err model_sql_version_job(Ctx *c, Tx *tx, str version_id, str job_id);
err model_sql_staging_live(Ctx *c, Tx *tx, str name, bool *out);
err model_sql_same_digest(Ctx *c, Tx *tx, str digest, str but_id, str *out_text); // in the project
err model_sql_uploads(Ctx *c, Tx *tx, str model_id, int64_t *out_count);
typedef struct OldUpload {
    str id, org, project;
} OldUpload;
err model_sql_uploads_before(Ctx *c, Tx *tx, int64_t before_ms, OldUpload **out, size_t *out_n);

// ---- model_collect.c: later removal, in the caller's transaction
extern const JobKind model_collect_kind;
err model_collect_staging(Ctx *c, Tx *tx, str name);
err model_uploads_trim(Ctx *c, int64_t before_ms, int64_t *out_removed);
#endif
