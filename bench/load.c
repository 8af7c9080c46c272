// SPDX-License-Identifier: Apache-2.0
// load.c - the program lathe-load: makes load by a plan and prints what it measured as one line of
// JSON, or adds up what earlier runs printed. 1: a bad answer; 2: not understood.
//   plan.c     command line and requests
//   arrival.c  when requests are meant to go out
//   drive.c    sends them then; lane.c reads and checks the answers
//   hist.c     what the figures are kept in
// Threads: one.
#include "drive.h"
#include "os/file.h"
#include <stdio.h>

enum { OUT_MAX = 16 << 20 };

static const struct {
    const char *name;
    size_t offset;
} hists[] = {
#define H(field) \
    { #field, offsetof(Tally, field) }
    H(latency), H(service), H(lag), H(first_token), H(gap), H(way), H(added_gap), H(late),
#undef H
}, counts[] = {
#define N(field) \
    { #field, offsetof(Tally, field) }
    N(sent), N(answered), N(bytes), N(tokens), N(stamped), N(held), N(elapsed_ns), N(cpu_ns),
#undef N
};

static void print(const Tally *t) {
    Buf b;
    buf_init(&b, OUT_MAX);
    Json j = json_to(&b);
    json_obj(&j);
    for (size_t i = 0; i < countof(counts); i++)
        json_kv_i64(&j, counts[i].name, *(const int64_t *)((const char *)t + counts[i].offset));
    for (size_t i = 0; i < countof(hists); i++) {
        const Hist *h = (const void *)((const char *)t + hists[i].offset);
        if (!h->n) continue;
        json_key(&j, hists[i].name);
        hist_write(h, &j);
    }
    json_end_obj(&j);
    puts(buf_z(&b));
    buf_done(&b);
}

static int say_failure(Ctx *c) {
    Buf b;
    buf_init(&b, 4096);
    failure_format(&c->failure, "en", &b);
    fprintf(stderr, "lathe-load: %s\n", buf_z(&b));
    buf_done(&b);
    return 2;
}

// ---- merge

static bool add_up(yyjson_val *root, Tally *t) {
    for (size_t i = 0; i < countof(counts); i++) {
        int64_t n;
        if (!json_get_i64(root, counts[i].name, &n)) return false;
        *(int64_t *)((char *)t + counts[i].offset) += n;
    }
    for (size_t i = 0; i < countof(hists); i++) {
        yyjson_val *v = json_get(root, hists[i].name);
        if (v && !hist_read(v, (void *)((char *)t + hists[i].offset))) return false;
    }
    return true;
}

static int merge(Ctx *c, char **paths) {
    Tally *t = new (c->mem, Tally, 1);
    for (; *paths; paths++) {
        str text;
        yyjson_val *root;
        if (file_read_all(c, str_z(*paths), OUT_MAX, &text) || json_parse(c, text, &root))
            return say_failure(c);
        if (add_up(root, t)) continue;
        fprintf(stderr, "lathe-load: %s: not what lathe-load prints\n", *paths);
        return 2;
    }
    print(t);
    return 0;
}

// ---- a run

static int run(Ctx *c, char **argv) {
    Plan *p = new (c->mem, Plan, 1);
    Tally *t = new (c->mem, Tally, 1);
    const char *bad = NULL;
    err failed = plan_parse(c, argv, p, &bad);
    if (failed && c->failure.why) return say_failure(c);
    if (failed) {
        fprintf(stderr, "lathe-load: %s?\n%s", bad, plan_usage);
        return 2;
    }
    Loop *loop = loop_new(c->os);
    Drive *d = drive_new(loop, p, t);
    bool good = drive_run(d);
    if (good) print(t);
    else fprintf(stderr, "lathe-load: %s\n", drive_failure(d));
    drive_free(d);
    loop_free(loop);
    return good ? 0 : 1;
}

int main(int argc, char **argv) {
    Ctx c;
    Arena *mem = arena_new();
    ctx_init(&c, mem, os_real());
    bool merges = argc > 1 && !strcmp(argv[1], "merge");
    int status = merges ? merge(&c, argv + 2) : run(&c, argv + 1);
    arena_free(mem);
    return status;
}
