// SPDX-License-Identifier: Apache-2.0
// program.c - see sim_run.h. A program is a shared object with `main`; a copy of its file in memory
// makes each start a library of its own, so that statics begin anew as after an exec. Nothing is
// unloaded: threads of a dead life stand still in it until the process ends.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

typedef struct Started {
    int (*main)(int, char **);
    int argc;
    char **argv;
    void (*ended)(void *, int);
    void *arg;
} Started;

static void die(const char *what, const char *why) {
    fprintf(stderr, "lathe-sim: %s: %s\n", what, why);
    exit(2);
}

// Where that part ends which is loaded: symbols of debuggers follow.
static off_t loaded_bytes(int fd) {
    Elf64_Ehdr head;
    Elf64_Phdr part;
    off_t end = sizeof head;
    if (pread(fd, &head, sizeof head, 0) != sizeof head) return 0;
    for (int i = 0; i < head.e_phnum; i++) {
        off_t at = (off_t)(head.e_phoff + (size_t)i * sizeof part);
        if (pread(fd, &part, sizeof part, at) != sizeof part) return 0;
        off_t to = (off_t)(part.p_offset + part.p_filesz);
        if (part.p_type == PT_LOAD && to > end) end = to;
    }
    return end;
}

static void *load(const char *file) {
    char path[64];
    int from = open(file, O_RDONLY | O_CLOEXEC), to = memfd_create("program", MFD_CLOEXEC);
    off_t end = from < 0 ? 0 : loaded_bytes(from);
    if (to < 0 || !end) die("cannot open", file);
    for (off_t at = 0; at < end;)
        if (sendfile(to, from, &at, (size_t)(end - at)) <= 0) die("cannot copy", file);
    snprintf(path, sizeof path, "/proc/self/fd/%d", to);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) die("cannot load", dlerror());
    close(from); // not `to`: the loader knows libraries by their names, and this one stays its own
    return library;
}

static void run(void *arg) {
    Started *s = arg;
    int code = s->main(s->argc, s->argv);
    s->ended(s->arg, code);
}

void *program_symbol(void *library, const char *name) {
    void *at = dlsym(library, name);
    assert(at);
    return at;
}

void *program_start(Os *os, const char *file, const char *const *argv,
                    void (*ended)(void *arg, int code), void *arg) {
    Started *s = mem_new(sizeof *s);
    void *library = load(file), *at = program_symbol(library, "main");
    memcpy(&s->main, &at, sizeof at);
    while (argv[s->argc]) s->argc++;
    s->argv = mem_new((size_t)(s->argc + 1) * sizeof *s->argv);
    for (int i = 0; i < s->argc; i++) s->argv[i] = mem_strdup(str_z(argv[i]));
    s->ended = ended, s->arg = arg;
    sim_thread_start(os, argv[0], run, s, NULL);
    return library;
}
