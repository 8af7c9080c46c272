// SPDX-License-Identifier: Apache-2.0
// main.c - the verbs that are processes of their own; every other one is a client of a running
// server.
#include "llm/gguf.h"
#include "res/app.h"
#include "res/docs.h"
#include <string.h>

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "help";
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return cli_main(argc, argv, lathe_modules);
    if (!strcmp(verb, "serve")) return serve_main(argc - 2, argv + 2, lathe_modules);
    if (!strcmp(verb, "shim")) return shim_main(argc, argv);
    if (!strcmp(verb, "docs")) return docs_main(argc - 2, argv + 2, lathe_modules);
    if (!strcmp(verb, "gguf-facts")) return gguf_main(argc, argv);
    return cli_main(argc, argv, lathe_modules);
}
