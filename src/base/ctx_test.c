// SPDX-License-Identifier: Apache-2.0
// ctx_test.c - failures: codes, reasons in two languages, and parameters that outlive their source.
#include "test.h"
#include <stdio.h>

static const Reason greeting = { "greeting", "{who} says {what}, {who}!", "{what}，{who}说" };
static const Reason odd = { "odd", "a { b {nobody} {who", "{}" };

static str sentence(Ctx *c, const char *lang) {
    Buf b;
    buf_init(&b, 4096);
    failure_format(&c->failure, lang, &b);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

TEST(fail_copies_its_values_and_returns_the_code) {
    Ctx *c = test_ctx();
    char who[] = "Ada";
    CHECK_ERR(fail(c, ERR_CONFLICT, greeting, "who", who, "what", "hello"), ERR_CONFLICT);
    memset(who, 'x', 3);
    CHECK(c->failure.code == ERR_CONFLICT && c->failure.why == &greeting);
    CHECK_STR(sentence(c, "en"), "Ada says hello, Ada!");
    CHECK_STR(sentence(c, "zh"), "hello，Ada说");
    CHECK_STR(sentence(c, NULL), "Ada says hello, Ada!");
    CHECK_STR(failure_param(&c->failure, "what"), "hello");
    CHECK(!failure_param(&c->failure, "else").p);
}

TEST(fail_replaces_the_failure_before_and_may_quote_it) {
    Ctx *c = test_ctx();
    CHECK_ERR(fail(c, ERR_INVALID, greeting, "who", "a", "what", "b"), ERR_INVALID);
    c->failure.retry_after_ms = 5;
    const char *old = c->failure.val[1].p;
    CHECK_ERR(fail(c, ERR_DENIED, odd, "who", old), ERR_DENIED);
    CHECK_STR(failure_param(&c->failure, "who"), "b");
    CHECK(!failure_param(&c->failure, "what").p && !c->failure.retry_after_ms);
    CHECK_STR(sentence(c, "en"), "a { b {nobody} {who");
    CHECK_STR(sentence(c, "zh"), "{}");
    CHECK_ERR(fail(c, ERR_INTERNAL, odd), ERR_INTERNAL);
    CHECK(!c->failure.key[0]);
}

TEST(fail_takes_six_parameters_and_null_values) {
    Ctx *c = test_ctx();
    CHECK_ERR(fail(c, ERR_LOST, odd, "a", "1", "b", NULL, "c", "3", "d", "4", "e", "5", "f", "6"),
              ERR_LOST);
    CHECK_STR(failure_param(&c->failure, "f"), "6");
    CHECK(failure_param(&c->failure, "b").p && !failure_param(&c->failure, "b").n);
}

TEST(err_rows_are_complete_and_distinct) {
    for (int i = 0; i < ERR__COUNT; i++) {
        const ErrRow *row = err_row((err)i);
        CHECK(row->http >= 200 && row->http < 600 && (row->exit_status == 0) == (i == ERR_OK));
        for (int k = 0; k < i; k++) CHECK(strcmp(err_row((err)k)->slug, row->slug));
    }
    CHECK_INT(err_row(ERR__COUNT)->http, 500);
    CHECK_INT(err_row((err)-1)->http, 500);
    CHECK_INT(err_row(ERR_NOTFOUND)->http, 404);
}

// A parameter that one language names and the other does not would be lost on half of the readers.
static bool names_all_of(const char *from, const char *in) {
    for (const char *p = from; (p = strchr(p, '{')); p++) {
        str name = str_n(p, (size_t)(strchr(p, '}') - p + 1));
        if (str_find(str_z(in), name) < 0) return false;
    }
    return true;
}

TEST(base_reasons_say_the_same_in_both_languages) {
    for (size_t i = 0; base_reasons[i]; i++) {
        const Reason *r = base_reasons[i];
        CHECK(names_all_of(r->en, r->zh) && names_all_of(r->zh, r->en));
        CHECK(str_utf8(str_z(r->zh)) && strcmp(r->en, r->zh));
        for (size_t k = 0; k < i; k++) CHECK(strcmp(base_reasons[k]->slug, r->slug));
    }
}

TEST(say_str_cuts_between_characters) {
    Ctx *c = test_ctx();
    CHECK_STR(str_z(say(c, "%d/%s", 3, "x")), "3/x");
    CHECK_STR(str_z(say_str(c, str_n("a\0b", 3))), "a?b");
    CHECK_STR(str_z(say_str(c, (str){ 0 })), "");
    for (size_t lead = 0; lead < 4; lead++) {
        char text[604];
        memset(text, 'a', lead);
        for (size_t i = 0; i < 200; i++) memcpy(text + lead + 3 * i, "中", 3);
        str cut = str_z(say_str(c, str_n(text, lead + 600)));
        CHECK(str_utf8(cut) && str_ends(cut, S("…")) && cut.n > 196 && cut.n <= 203);
    }
    char bytes[300];
    memset(bytes, 0x80, sizeof bytes); // no UTF-8 at all: still cut
    CHECK_INT(strlen(say_str(c, str_n(bytes, sizeof bytes))), 203);
    memset(bytes, 'a', sizeof bytes);
    CHECK_INT(strlen(say_str(c, str_n(bytes, 200))), 200);
}

TEST(ctx_starts_blank_and_can_be_cancelled) {
    Ctx *c = test_ctx();
    CHECK(!ctx_cancelled(c) && !c->deadline_ns && !c->org.p && c->failure.code == ERR_OK);
    ctx_cancel(c);
    CHECK(ctx_cancelled(c));
}
