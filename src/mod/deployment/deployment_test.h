// SPDX-License-Identifier: Apache-2.0
// deployment_test.h - for the tests that run the reconciler: a program of two modules on a
// database, an executor and loops of its own, and an engine that does what a file tells it. The
// engine is this test program again, started as llama-server would be. Owner: the test, from
// deployment_fix_open to fix_close. Threads: the test's.
#ifndef LATHE_MOD_DEPLOYMENT_TEST_H
#define LATHE_MOD_DEPLOYMENT_TEST_H
#include "base/test.h"
#include "job/job_test.h"
#include "mod/deployment/watch.h"
#include "net/server.h"

typedef struct Fix {
    Ctx *c;
    App app;
    Thread loop;
    str data, version, url;
    bool open;
} Fix;
// settings: "name=value", NULL ends. NULL: the test has failed.
Fix *deployment_fix_open(DbKind kind, const char *const *settings);
void fix_close(Fix *f); // ends its children
// As kill -9 and a new start: what is in memory is lost, children and the database stay.
void fix_restart(Fix *f, const char *const *settings);
err fix_settings(Fix *f, const char *const *settings); // as a reload

// What the engine of a deployment does from now on: "" serves, "load" answers 503, "crash" says so
// and exits when it starts, "mute" takes connections and answers nothing.
void fix_engine(Fix *f, const char *deployment, const char *how);
err fix_create(Fix *f, const char *json);                  // a deployment of the version
err fix_patch(Fix *f, const char *name, const char *json); // through the API's own path
err fix_act(Fix *f, const char *name, const char *verb);   // start, stop, restart, delete
err fix_get(Fix *f, const char *name, Deployment *out);
// Turns of the reconciler until it holds; false after 20 s.
bool fix_until(Fix *f, const char *name, bool (*holds)(const Deployment *d, void *arg), void *arg);
bool fix_until_state(Fix *f, const char *name, DeploymentState state);
// The entry as the request path sees it now, copied: replicas ready, draining.
size_t fix_routes(Fix *f, const char *name, size_t *out_ready, Replica out[8]);
size_t fix_children(Fix *f); // of the executor, living
void fix_blind(bool blind);  // no new snapshot can be built
#endif
