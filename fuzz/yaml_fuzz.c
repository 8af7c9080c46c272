// SPDX-License-Identifier: Apache-2.0
// yaml_fuzz.c - any bytes as the documents of `lathe apply`: each is JSON, within json_parse's
// limits, and reads as itself when it is given again, as JSON and as YAML, of which JSON is a part.
// Covers: src/res/cli_apply.c
// Threads: one.
#include "fuzz.h"
#include "os/os.h"
#include "res/cli.h"

// Of lines in YAML 1.1 (5.4), but not in JSON.
static bool breaks(str doc) {
    static const char *const marks[] = { "\xC2\x85", "\xE2\x80\xA8", "\xE2\x80\xA9" };
    for (size_t i = 0; i < 3; i++)
        if (str_find(doc, str_z(marks[i])) >= 0) return true;
    return false;
}

// Nearly a part: YAML also refuses characters that JSON holds, and keys over 1024 bytes.
static void check_again(Ctx *c, str doc) {
    str *docs;
    size_t n;
    err e = cli_yaml(c, doc, &docs, &n);
    assert(!e && (!n || (n == 1 && str_eq(docs[0], doc))));
    if (breaks(doc) || cli_yaml(c, arena_printf(c->mem, "--- " STR_FMT, STR_ARG(doc)), &docs, &n))
        return;
    assert(!n || (n == 1 && str_eq(docs[0], doc)));
}

FUZZ(yaml) {
    Ctx c;
    str *docs;
    size_t n;
    yyjson_val *root;
    ctx_init(&c, arena_new(), os_real());
    bool as_it_is = !json_parse(&c, bytes, &root);
    err e = cli_yaml(&c, bytes, &docs, &n);
    if (e) fuzz_refused(&c, e, ERR_INVALID);
    for (size_t i = 0; !e && i < n; i++) {
        err bad = json_parse(&c, docs[i], &root);
        assert(!bad || c.failure.why == &R_JSON_TWICE || c.failure.why == &R_JSON_UTF8);
        if (!bad && !as_it_is) check_again(&c, docs[i]);
    }
    arena_free(c.mem);
}
