// SPDX-License-Identifier: Apache-2.0
// accept.h - a listener that cannot accept, because descriptors or memory ran out, waits a moment
// and tries again: connections stay in the kernel's backlog meanwhile. This says so. Threads: any.
#ifndef LATHE_OS_ACCEPT_H
#define LATHE_OS_ACCEPT_H
#include <stdbool.h>
#include <stdint.h>

typedef struct AcceptState {
    int64_t pauses; // since the process began
    bool paused;    // a listener waits now, or its next try failed too
    int error;      // errno of the last pause; 0: there was none
} AcceptState;
void accept_state(AcceptState *out);
// Called at each pause, on its loop: must not block. NULL: nobody listens.
void accept_on_pause(void (*fn)(void *arg, int error), void *arg);
#endif
