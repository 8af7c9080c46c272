// SPDX-License-Identifier: Apache-2.0
// fault.h - between the runner (inject.c) and the calls that fail (fault.c): one plan, in memory
// that all processes of a run share. Threads: the runner writes before a run, the run while it is
// on.
#ifndef LATHE_TEST_FAULT_H
#define LATHE_TEST_FAULT_H
#include <stdatomic.h>
#include <stdbool.h>

enum { PROMISES = 64 };
typedef enum {
    FAULT_CALL,    // a system call
    FAULT_MEMORY,  // an allocation of our own code
    FAULT_LIBRARY, // an allocation within the named library
} FaultWhat;
typedef struct Plan {
    // The runner's.
    FaultWhat what;
    long at;          // which of them, from 1; 0: none, they are only counted
    int way;          // which of its ways to fail
    long files_most;  // descriptors that may be open at its end; 0: any
    char library[32]; // a part of its file's name: "libsqlite3"
    // The run's.
    atomic_bool on;
    atomic_long seen; // those passed while on
    atomic_bool struck;
    char call[32];      // which call failed, when it struck
    int error, ways;    // errno, or what fault.c calls it; ways this call can fail
    atomic_int lasting; // an errno that stays until the faults are off
    atomic_int promised[PROMISES];
    long files; // descriptors open at its end
} Plan;
extern Plan *fault_plan; // NULL before fault_start
extern bool fault_here;  // this process, and those it forks, are under the plan: not the runner
void fault_start(void);  // once, in the runner, before any thread
const char *fault_name(int error); // "EIO", "short", …
#endif
