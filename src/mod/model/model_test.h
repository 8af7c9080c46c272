// SPDX-License-Identifier: Apache-2.0
// model_test.h - for the tests of the model module: a program of this module alone, on a database,
// objects, jobs and (when asked for) a server of its own; and files in GGUF made here.
// Owner: model_fix_run, for the time of a test. Threads: the test's.
#ifndef LATHE_MOD_MODEL_TEST_H
#define LATHE_MOD_MODEL_TEST_H
#include "base/test.h"
#include "db/suite_test.h"
#include "job/job_test.h"
#include "mod/model/model_import.h"
#include "mod/model/model_upload.h"
#include "net/fixture_test.h"

typedef struct ModelFix {
    Ctx *c; // the system's, in project "proj_1" of "org_1"
    App app;
    DbKind kind;
    str url, data;
    bool working; // jobs run
    Thread loop;  // with a server
    bool serving;
    Addr addr;
} ModelFix;
void model_fix_run(DbKind kind, void (*fn)(ModelFix *f));
#define MODEL_TEST(name_) SUITE_TEST(ModelFix, model_fix_run, name_)

// ---- the program
err model_fix_settings(ModelFix *f, const char *a, const char *b); // "name=value"; NULL: none
void model_fix_work(ModelFix *f);                                  // jobs run from now on
void model_fix_rest(ModelFix *f); // as at the end of a process: paused; then work again
// A server with the module's routes. The bearer token says who asks: "admin", "developer" (of
// org_1), "viewer", "other" (of project proj_2); x-org and so on are not looked at.
void model_fix_serve(ModelFix *f);

// ---- rows
err model_fix_model(ModelFix *f, const char *name, str *out_id);
err model_fix_import(ModelFix *f, const char *model, const ImportInput *in, Version *out);
err model_fix_delete(ModelFix *f, const Resource *r, const char *id_or_text);
err model_fix_version(ModelFix *f, const char *text_or_id, Version *out); // as it is now
err model_fix_get(ModelFix *f, const char *model, Model *out);
// Waits until its job has ended, and until no job is left to run.
err model_fix_settle(ModelFix *f, Version *v);
bool model_fix_idle(ModelFix *f);
str model_fix_log(ModelFix *f, str job);
size_t model_fix_staged(ModelFix *f); // files in staging
size_t model_fix_blobs(ModelFix *f);

// ---- files
str model_fix_gguf(Ctx *c, const char *name, size_t size); // a whole small GGUF, filled up to size
str model_fix_file(ModelFix *f, const char *name, str bytes); // its path

// ---- HTTP: one request with its body, and the answer
typedef struct Ask {
    const char *method, *path, *who, *headers; // headers: whole lines with CRLF; NULL: none
    str body;
} Ask;
Answer model_fix_ask(ModelFix *f, const Ask *a);
str model_fix_member(ModelFix *f, const Answer *a, const char *name); // of a JSON answer, as text
#endif
