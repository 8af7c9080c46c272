// SPDX-License-Identifier: Apache-2.0
// terminal.h - what the command line asks of the machine: is a person there, wait a moment, where
// is this folder really. Threads: any.
#ifndef LATHE_OS_TERMINAL_H
#define LATHE_OS_TERMINAL_H
#include "os/os.h"

bool os_is_terminal(int fd);
void os_pause_ms(int64_t ms);           // for a client that polls; never on a loop or in a test
str os_path_absolute(Ctx *c, str path); // from the working folder; as it is when that is gone
#endif
