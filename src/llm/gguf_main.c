// SPDX-License-Identifier: Apache-2.0
// gguf_main.c - the verb `gguf-facts`: reads one file that nobody trusts and prints what it says.
// Meant to be a child with no network, no new files, and limits on memory and processor time.
// Owner: nothing outlives the call. Threads: one.
#include "llm/gguf_read.h"
#include <stdio.h>

static err facts_text(Ctx *c, const char *path, Buf *out) {
    File *f;
    TRY(file_open(c, str_z(path), FILE_READ, &f));
    GgufFacts g;
    err e = gguf_facts(c, f, &g);
    file_close(f);
    TRY(e);
    Json j = json_to(out);
    gguf_facts_json(&g, &j);
    return ERR_OK;
}

static void error_text(const Ctx *c, Buf *out) {
    const Failure *f = &c->failure;
    Buf sentence;
    int64_t offset;
    Json j = json_to(out);
    buf_init(&sentence, 4096);
    failure_format(f, "en", &sentence);
    json_obj(&j);
    json_key(&j, "error");
    json_obj(&j);
    json_kv_z(&j, "reason", f->why->slug);
    json_key(&j, "offset");
    if (str_to_i64(failure_param(f, "offset"), &offset)) json_put_i64(&j, offset);
    else json_put_null(&j);
    str why = failure_param(f, "why");
    json_kv_str(&j, "why", f->why == &R_GGUF_BAD ? why : buf_str(&sentence));
    json_end_obj(&j);
    json_end_obj(&j);
    buf_done(&sentence);
}

err gguf_text(const char *path, Buf *out) {
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    err e = facts_text(&c, path, out);
    if (e) buf_clear(out), error_text(&c, out);
    arena_free(c.mem);
    return e;
}

int gguf_main(int argc, char **argv) {
    if (argc < 2) {
        fputs("usage: lathe gguf-facts PATH\n", stderr);
        return err_row(ERR_INVALID)->exit_status;
    }
    Buf out;
    buf_init(&out, GGUF_JSON_MAX);
    err e = gguf_text(argv[argc - 1], &out);
    buf_add_char(&out, '\n');
    bool written = fwrite(out.p, 1, out.n, stdout) == out.n && !fflush(stdout);
    buf_done(&out);
    return e ? err_row(e)->exit_status : written ? 0 : err_row(ERR_INTERNAL)->exit_status;
}
