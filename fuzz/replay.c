// SPDX-License-Identifier: Apache-2.0
// replay.c - runs a fuzzer's entry over files, without libFuzzer: so every compiler's build replays
// the corpora as a test.   replay FILE|FOLDER ...
// Threads: one.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    size_t n = 0, room = 1 << 16, got;
    uint8_t *data = malloc(room);
    while (data && (got = fread(data + n, 1, room - n, f)) > 0) {
        n += got;
        if (n == room) data = realloc(data, room *= 2);
    }
    fclose(f);
    if (!data) return 0;
    uint8_t *exact = malloc(n ? n : 1); // its end is the sanitizer's to guard
    if (!exact) return 0;
    memcpy(exact, data, n);
    free(data);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 1;
}

static int replay_folder(const char *path, DIR *d) {
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char name[4096];
        if (*e->d_name == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        n += replay_file(name);
    }
    return n;
}

int main(int argc, char **argv) {
    int n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        n += d ? replay_folder(argv[i], d) : replay_file(argv[i]);
        if (d) closedir(d);
    }
    printf("%d inputs replayed\n", n);
    return n == 0;
}
