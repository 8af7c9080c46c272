// SPDX-License-Identifier: Apache-2.0
// module.h - what a feature brings: rows of every kind, and its start and stop. src/modules.def
// lists the modules in start order.
#ifndef LATHE_RES_MODULE_H
#define LATHE_RES_MODULE_H
#include "job/job.h"
#include "net/http.h"
#include "res/event.h"
#include "res/identity.h"
#include "res/metric.h"
#include "res/resource.h"
#include "res/setting.h"

// A hand-written route is still a row: OpenAPI, permissions, docs and tests read it.
// PUBLIC: no identity asked. FOREIGN: a dialect of others (errors in OpenAI's shape). SYSTEM and
// ORG: acts there, so a project's key may not; else the route acts in a project. ANYONE: any
// identity, whatever it may do; permission NULL.
enum {
    ROUTE_PUBLIC = 1u,
    ROUTE_STREAM = 2u,
    ROUTE_FOREIGN = 4u,
    ROUTE_SYSTEM = 8u,
    ROUTE_ORG = 16u,
    ROUTE_ANYONE = 32u
};
typedef struct Route {
    HttpMethod method;
    const char *pattern; // also served below /p/{project} when it acts in one
    unsigned flags;
    const char *permission; // "models.read"; NULL only with PUBLIC or ANYONE
    err (*serve)(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
    void (*stream)(Exchange *x);      // with STREAM; identification is the stream's own business
    void (*refuse)(Ctx *c, Buf *out); // c->failure as its clients expect it; NULL: by the path
    int64_t body_max, timeout_ms;     // 0 timeout: 60 s for serve, none for stream
    const Field *query, *input,
        *output; // rows of parameters, body and answer; NULL: none, or not JSON
    size_t input_size;
    const char *output_type; // Content-Type when not JSON; "text/event-stream" …
    const char *cli; // "audit verify": the same as a verb: path parameters in order, query as flags
    const char
        *errors; // statuses besides 400 401 403 404 429 500 503 that it may answer: "409 507"
    const char *en, *zh;
} Route;
// Fails with R_FORBIDDEN, and has the denial audited, unless c->who may. Routes are checked by the
// kit; this is for finer rights.
err require(Ctx *c, const char *permission, str target);
void error_write(Ctx *c, str path, Buf *out); // c->failure as this path's dialect says it
str request_project(
    const HttpRequest *r); // /p/{project}, Lathe-Project or OpenAI-Project; absent: not said
// The query into a struct by its rows, which the kit has checked: what is absent has its fallback.
err query_read(Ctx *c, const Field *rows, void *base, const HttpRequest *r);
str route_param(const HttpRequest *r, const char *pattern,
                const char *name); // what {name} matched; knows the /p/{project} form

struct Advice;
struct Cli;
typedef struct CliVerb {     // verbs that rows cannot derive: `lathe chat NAME`, `lathe doctor`
    const char *noun, *verb; // verb NULL: `lathe <noun>`
    const char *usage;       // "NAME [--system TEXT]"
    int (*run)(struct Cli *cli, int argc,
               char **argv); // res/cli.h; after noun and verb; returns the exit status
    const char *en, *zh;
} CliVerb;
typedef struct RoleRow {
    const char *name;
    const char *const *permissions;
    const char *en, *zh;
} RoleRow; // built-in roles

// How long something is kept: the setting says (span; 0: for ever), trim removes what is older. Run
// hourly by one node.
typedef struct Retention {
    const char *name; // "usage"
    const Setting *setting;
    err (*trim)(Ctx *c, int64_t before_ms, int64_t *out_removed);
    const char *en, *zh;
} Retention;

typedef struct Module {
    const char *name, *needs; // needs: other modules whose header it includes, space separated
    const Resource *const *resources;
    const Route *routes; // ends with a zero pattern
    const Setting *settings;
    const Metric *const *metrics;
    const EventKind *const *events;
    const JobKind *const *jobs;
    const Migration *migrations;
    size_t migrations_n;
    const Reason *const *reasons;
    const CliVerb *verbs; // ends with a zero noun
    const RoleRow *roles;
    const Retention *retentions; // ends with a zero name
    err (*init)(
        Ctx *c); // after every module's migrations, before anything is served; c->app is there
    // After every init: what must be asked of the database before it is used. When that is away at
    // the start, only once it is back, on another thread (database.h); may run again.
    err (*database)(Ctx *c);
    // What whoever made or changed this row should know (advice.h). In the same transaction, which
    // may run twice: must not act.
    err (*advise)(Ctx *c, Tx *tx, const Resource *r, const void *now, struct Advice *out);
    err (*start)(Ctx *c);     // after every init: threads, reconcilers
    void (*ready)(Ctx *c);    // listeners are open
    void (*drain)(void *app); // stop taking new work; may return before old work ends
    void (*stop)(void *app);  // joins its threads; reverse order
    const char *en, *zh;
} Module;
extern const Module
    *const lathe_modules[]; // src/modules.c: the kit, then modules.def; NULL-terminated
#endif
