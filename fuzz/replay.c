// SPDX-License-Identifier: Apache-2.0
// replay.c - runs the fuzzers over committed inputs, without libFuzzer: so every compiler's build
// replays the corpora as a test.
//   replay CORPORA [NAME [FILE|FOLDER ...]]   every fuzzer over CORPORA/NAME, or one over more
// Ends with `N passed, N failed`, an input each; one that breaks is named before the program dies.
// Threads: one.
#include "fuzz.h"
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static Fuzzer *fuzzers;
static char at[4096]; // the input under way
static int inputs;

void fuzzer_add(Fuzzer *f) {
    Fuzzer **link = &fuzzers;
    while (*link && strcmp((*link)->name, f->name) < 0) link = &(*link)->next;
    f->next = *link;
    *link = f;
}

static void broken(int signal) {
    static const char text[] = "\nFAIL ";
    if (write(2, text, sizeof text - 1) < 0 || write(2, at, strlen(at)) < 0 || write(2, "\n", 1)) {}
    raise(signal); // SA_RESETHAND: it dies of it
}

static void replay_file(const Fuzzer *f, const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) return;
    size_t n = 0, room = 1 << 16, got;
    char *data = malloc(room);
    while (data && (got = fread(data + n, 1, room - n, in)) > 0) {
        n += got;
        if (n == room) data = realloc(data, room *= 2);
    }
    fclose(in);
    char *exact = malloc(n ? n : 1); // its end is the sanitizer's to guard
    if (!data || !exact) abort();
    memcpy(exact, data, n);
    free(data);
    snprintf(at, sizeof at, "%s", path);
    f->run(str_n(exact, n));
    free(exact);
    inputs++;
}

static void replay(const Fuzzer *f, const char *path) {
    DIR *d = opendir(path);
    if (!d) {
        replay_file(f, path);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char name[4096];
        if (*e->d_name == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        replay_file(f, name);
    }
    closedir(d);
}

int main(int argc, char **argv) {
    static const int deaths[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    int total = 0, empty = 0;
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++)
        sigaction(deaths[i], &(struct sigaction){ .sa_handler = broken, .sa_flags = SA_RESETHAND },
                  NULL);
    for (const Fuzzer *f = fuzzers; f && argc > 1; f = f->next) {
        char name[4096];
        if (argc > 2 && strcmp(argv[2], f->name)) continue;
        snprintf(name, sizeof name, "%s/%s", argv[1], f->name);
        inputs = 0;
        replay(f, name);
        for (int i = 3; i < argc; i++) replay(f, argv[i]);
        printf("%-9s %d inputs replayed\n", f->name, inputs);
        total += inputs;
        if (!inputs) empty++; // a fuzzer without a corpus proves nothing here
    }
    printf("%d passed, %d failed\n", total, empty);
    return !total || empty;
}
