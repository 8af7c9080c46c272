// SPDX-License-Identifier: Apache-2.0
// model_read.c - what staged bytes say, before they are an object: facts of the header, read by a
// child (a hostile file costs that child only), and the digest.
// Owner: texts of facts live in c->mem. Threads: workers; the job under way.
#include "mod/model/model_import.h"
#include "os/process.h"
#include <assert.h>
#include <openssl/evp.h>
#include <signal.h>

enum {
    READER_MS = 120000,
    READER_CPU_S = 60,
    READER_MEMORY = 1 << 30, // RLIMIT_AS: the program's own libraries count
    LOOK_MS = 50,
    PIECE = 1 << 20,
    TENSOR_COUNT_AT = 8, // in a GGUF's header, behind the magic and the version
};

// ---- places

// Where blob/ keeps a named staging file (blob.h: DIR/blob/ab/…, DIR/staging/NAME).
str model_staging_path(Ctx *c, str name) {
    static const char zero[] = "0000000000000000000000000000000000000000000000000000000000000000";
    static const char tail[] = "/blob/00/";
    str object = blob_path(c, model_app()->blobs, str_z(zero));
    size_t end = sizeof tail - 1 + BLOB_DIGEST_HEX - 2;
    assert(object.n > end && !memcmp(object.p + object.n - end, tail, sizeof tail - 1));
    return arena_printf(c->mem, "%.*s/staging/" STR_FMT, (int)(object.n - end), object.p,
                        STR_ARG(name));
}

static str facts_dir(Ctx *c) {
    return arena_printf(c->mem, STR_FMT "/facts", STR_ARG(model_app()->data_dir));
}

err model_facts_dir_reset(Ctx *c) {
    TRY(path_remove_tree(c, facts_dir(c)));
    return dir_make(c, facts_dir(c), 0700);
}

// ---- the child

static err reader_wait(Ctx *c, Process *p, ProcessExit *out) {
    int64_t until_ns = os_mono_ns(c->os) + (int64_t)READER_MS * 1000000;
    for (;;) {
        err e = process_wait(c, p, LOOK_MS, out);
        if (e != ERR_TIMEOUT) return e;
        e = ctx_check(c);
        if (!e && os_mono_ns(c->os) > until_ns)
            e = fail(c, ERR_INVALID, R_IMPORT_READER, "how", "no answer in time");
        if (!e) continue;
        Failure why = c->failure;
        process_signal(p, SIGKILL);
        err ended = process_wait(c, p, -1, out);
        (void)ended; // it is gone or not ours any more; why it had to go counts
        c->failure = why;
        return e;
    }
}

// The child writes into an open file: it may open none itself.
static err reader_run(Ctx *c, str path, File *answer, ProcessExit *out) {
    const char *argv[] = { arena_z(c->mem, os_program(c)), "gguf-facts", arena_z(c->mem, path),
                           NULL };
    ProcessSpec spec = {
        .argv = argv,
        .in_fd = -1,
        .out_fd = file_fd(answer),
        .err_fd = -1,
        .memory_max_bytes = READER_MEMORY,
        .file_max_bytes = GGUF_JSON_MAX + 1,
        .cpu_max_s = READER_CPU_S,
        .no_network = true,
        .no_new_files = true,
    };
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    // A sanitizer's shadow needs more than any limit, its check for leaks more rights.
    spec.memory_max_bytes = 0;
    spec.env = (const char *const[]){ "ASAN_OPTIONS=detect_leaks=0", NULL };
#endif
    Process *p;
    TRY(process_start(c, &spec, NULL, NULL, NULL, &p));
    err e = reader_wait(c, p, out);
    process_free(p);
    return e;
}

// Text that a column and a form can hold: no NUL, at most max characters' bytes.
static str tidy(Ctx *c, str s, size_t max) {
    if (!s.p || memchr(s.p, 0, s.n)) return (str){ 0 };
    size_t n = s.n < max ? s.n : max;
    while (n && n < s.n && (s.p[n] & 0xc0) == 0x80) n--;
    return arena_str(c->mem, str_sub(s, 0, n));
}

static void facts_tidy(Ctx *c, GgufFacts *g) {
    if (g->chat_template.n > TEMPLATE_MAX) g->chat_template = (str){ 0 };
    for (const Field *f = model_facts_rows; f->name; f++) {
        str *s = field_at(f, g);
        if (f->type == T_TEXT) *s = tidy(c, *s, (size_t)f->max);
    }
}

static err refused(Ctx *c, yyjson_val *error) {
    int64_t offset;
    str why = json_get_str(error, "why");
    if (!json_get_i64(error, "offset", &offset))
        return fail(c, ERR_UNAVAILABLE, R_IMPORT_READER, "how", say_str(c, why));
    return fail(c, ERR_INVALID, R_GGUF_BAD, "offset", say(c, "%lld", (long long)offset), "why",
                say_str(c, why));
}

static err read_answer(Ctx *c, str path, const ProcessExit *how, GgufFacts *out) {
    str text;
    yyjson_val *root;
    bool killed = how->signal == SIGKILL || how->signal == SIGTERM; // not by the file
    if (how->signal)
        return fail(c, killed ? ERR_UNAVAILABLE : ERR_INVALID, R_IMPORT_READER, "how",
                    say(c, "signal %d", how->signal));
    TRY(file_read_all(c, path, GGUF_JSON_MAX + 1, &text));
    if (json_parse(c, str_trim(text), &root))
        return fail(c, ERR_UNAVAILABLE, R_IMPORT_READER, "how", say(c, "status %d", how->code));
    if (how->code && json_get(root, "error")) return refused(c, json_get(root, "error"));
    if (how->code)
        return fail(c, ERR_UNAVAILABLE, R_IMPORT_READER, "how", say(c, "status %d", how->code));
    if (!gguf_facts_parse(root, out))
        return fail(c, ERR_INVALID, R_IMPORT_READER, "how", "facts that make no sense");
    if (!out->tensors || !out->parameters)
        return fail(c, ERR_INVALID, R_GGUF_BAD, "offset", say(c, "%d", TENSOR_COUNT_AT), "why",
                    "it has no tensors: a model without weights cannot be served");
    facts_tidy(c, out);
    return ERR_OK;
}

err model_facts_read(Ctx *c, str path, GgufFacts *out) {
    str to = arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(facts_dir(c)),
                          STR_ARG(os_id(c, "facts")));
    File *answer;
    ProcessExit how;
    TRY(file_open(c, to, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE, &answer));
    err e = reader_run(c, path, answer, &how);
    file_close(answer);
    if (!e) e = read_answer(c, to, &how, out);
    Failure why = c->failure;
    err gone = path_remove(c, to);
    (void)gone; // the next start removes what is left
    c->failure = why;
    return e;
}

// ---- the digest

static void digest_free(void *im) { EVP_MD_CTX_free(((Import *)im)->md); }

void model_digest_restart(Ctx *c, Import *im) {
    if (!im->md) {
        im->md = EVP_MD_CTX_new();
        arena_defer(c->mem, digest_free, im);
    }
    if (!im->md || EVP_DigestInit_ex(im->md, EVP_sha256(), NULL) != 1) mem_exhausted(64);
    im->hashed = 0;
}

static void digest_add(Import *im, str bytes) {
    int ok = EVP_DigestUpdate(im->md, bytes.p, bytes.n);
    assert(ok == 1);
    im->hashed += (int64_t)bytes.n;
}

err model_import_append(Ctx *c, Import *im, str bytes) {
    bool follows = im->hashed == blob_staged(im->w);
    TRY(blob_append(c, im->w, bytes));
    if (follows) digest_add(im, bytes);
    return ERR_OK;
}

static err hash_rest(Ctx *c, Import *im, File *f) {
    int64_t size;
    char *piece = arena_alloc_raw(c->mem, PIECE);
    TRY(file_size(c, f, &size));
    for (size_t got = PIECE; im->hashed < size && got;) {
        TRY(file_read_at(c, f, im->hashed, piece, PIECE, &got));
        digest_add(im, str_n(piece, got));
        TRY(model_import_step(c, im, im->hashed, size));
    }
    return ERR_OK;
}

err model_digest_read(Ctx *c, Import *im, str path, char out_hex[BLOB_DIGEST_HEX + 1]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    File *f;
    TRY(file_open(c, path, FILE_READ, &f));
    err e = hash_rest(c, im, f);
    file_close(f);
    TRY(e);
    int ok = EVP_DigestFinal_ex(im->md, digest, NULL);
    assert(ok == 1);
    Buf hex;
    buf_init(&hex, BLOB_DIGEST_HEX + 1);
    buf_add_hex(&hex, digest, BLOB_DIGEST_HEX / 2);
    memcpy(out_hex, buf_z(&hex), BLOB_DIGEST_HEX + 1);
    buf_done(&hex);
    return ERR_OK;
}
