// SPDX-License-Identifier: Apache-2.0
// terminal.c - see terminal.h.
#include "os/terminal.h"
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

bool os_is_terminal(int fd) { return isatty(fd); }

void os_pause_ms(int64_t ms) {
    struct timespec left = { ms / 1000, ms % 1000 * 1000000 };
    while (nanosleep(&left, &left)) {}
}

str os_path_absolute(Ctx *c, str path) {
    if (path.n && *path.p == '/') return path;
    char *folder = getcwd(NULL, 0);
    str absolute = folder ? arena_printf(c->mem, "%s/" STR_FMT, folder, STR_ARG(path)) : path;
    free(folder);
    return absolute;
}
