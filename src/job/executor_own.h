// SPDX-License-Identifier: Apache-2.0
// executor_own.h - what the files of the local executor share; nobody else includes it.
// executor.c what callers see, from any thread; executor_link.c the connections to the shims, on
// the loop. Executor.lock guards the list and what is marked so. A posted call holds a reference to
// its child, a child one to its executor: so either may be let go while calls are under way.
#ifndef LATHE_JOB_EXECUTOR_OWN_H
#define LATHE_JOB_EXECUTOR_OWN_H
#include "job/shim_own.h"
#include "os/thread.h"

enum { CHILDREN_MAX = 4096, NEVER_STARTED_MS = 10000, RETRY_MIN_MS = 5, RETRY_MAX_MS = 500 };

typedef struct Child {
    Executor *e;
    struct Child *next;
    int refs;                      // lock
    char *key, *handle, *endpoint; // endpoint NULL: none
    bool adopted;
    // lock:
    ShimState state; // its reason is `reason`
    char *reason;
    int64_t known_ns;            // when we learned of it: for one that never started
    int64_t cancel_grace_ms;     // -1: no cancel asked for
    bool started, ended, linked; // started: a shim was started or found; linked: the loop cares
    bool forgotten;
    // loop only:
    Stream *stream;
    Timer *retry;
    int64_t retry_ms;
    Process *shim; // started in this life
} Child;

struct Executor {
    Os *os;
    Loop *l;
    char *run_dir, *program; // program NULL: this very one
    void (*changed)(void *arg, str handle);
    void *changed_arg;
    pthread_mutex_t lock;
    Child *children; // lock
    size_t children_n;
    int refs;    // lock: one of the owner, one a child
    bool closed; // loop
};

// executor.c
Child *child_new(Executor *e, str key, str handle, str endpoint); // listed, one reference
void child_unlist(Child *ch);                                     // drops the list's reference
void child_ref(Child *ch);
void child_unref(Child *ch);
void child_state_set(Child *ch, const ShimState *s); // any thread; tells changed when on the loop
// executor_link.c; each posts to the loop and returns
void link_begin(Child *ch);  // connects, and goes on until the child has ended
void link_cancel(Child *ch); // tells the shim what cancel_grace_ms says
void link_forget(Child *ch); // ends the link, then unlists
void link_end(Child *ch);    // on the loop: lets everything of the loop's go
void link_shim_exited(void *child, const ProcessExit *how);
// A child without a living shim: ended as its file says, lost, or not started yet (false).
bool child_settle(Ctx *c, Child *ch);
#endif
