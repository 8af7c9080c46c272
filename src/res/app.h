// SPDX-License-Identifier: Apache-2.0
// app.h - the running program: what every module reaches through c->app, and the interfaces that
// modules fill for the kit.
#ifndef LATHE_RES_APP_H
#define LATHE_RES_APP_H
#include "blob/blob.h"
#include "job/executor.h"
#include "job/journal.h"
#include "net/client.h"
#include "net/tls.h"
#include "res/module.h"

#define LATHE_VERSION "0.1.0"
enum { APP_LOOPS_MAX = 64 };
typedef struct AuditEntry { // one row of the chain: a change, a denial, or a read of content
    const char *verb;       // "create", "update", "delete", "promote", "denied", "read"
    const char *kind;       // resource name
    str id, name, permission;
    str change;  // JSON: {"field": [old, new]}; secrets as "********"
    Scope scope; // whose chain: the system's, the organisation's or the project's
} AuditEntry;

typedef struct App {
    const Module *const *modules; // NULL-terminated, in start order; the kit first
    Os *os;
    Db *db;
    Blobs *blobs;
    Jobs *jobs;
    Journal *journal;
    Executor *executor;
    Loop *loops[APP_LOOPS_MAX]; // loops[0] also takes signals, timers of modules and the executor
    Client *clients[APP_LOOPS_MAX]; // one a loop
    size_t loops_n;
    TlsClient *tls; // whom calls over https trust
    Pool *pool;
    Server *server;
    str data_dir, node; // node: stable name of this process's place, for leases
    atomic_bool draining;

    // Filled by access: who is this request, which project, and may they. Blocking and loop twins;
    // see access.h.
    err (*identify)(Ctx *c, const HttpRequest *r, bool on_loop);
    // Filled by audit.
    err (*audit)(Ctx *c, Tx *tx, const AuditEntry *e);
    void (*audit_denied)(Ctx *c, const char *permission, str target); // aggregated; any thread
    // Filled by revision: what an object with RES_HISTORY is from now on; now NULL: it goes.
    err (*history)(Ctx *c, Tx *tx, const AuditEntry *e, const Resource *r, const void *now);
    // Filled by secret: sealing of SECRET fields. aad binds the text to its row.
    // What it gives starts with SEALED_MARK.
    err (*seal)(Ctx *c, str plain, str aad, str *out);
    err (*unseal)(Ctx *c, str sealed, str aad, str *out);
} App;
static inline App *app_of(const Ctx *c) { return c->app; }
size_t app_loop_index(const App *app, const Loop *l);
const char *res_lang(Os *os); // of this process's user, by LC_ALL, LC_MESSAGES, LANG: "zh" or "en"

// A call of the program itself (reconcilers, start-up, timers): Ctx with its own arena and
// identity_system. Free with app_ctx_free.
Ctx *app_ctx_new(App *app);
void app_ctx_free(Ctx *c);
void app_ctx_of_job(Ctx *c, void *app); // for jobs_on_ctx: the same identity
int serve_main(int argc, char **argv, const Module *const *modules); // `lathe serve`
int cli_main(int argc, char **argv, const Module *const *modules);   // every other verb
#endif
