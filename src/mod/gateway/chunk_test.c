// SPDX-License-Identifier: Apache-2.0
// chunk_test.c - what is read of an event without a parser is what the parser reads.
#include "base/test.h"
#include "mod/gateway/chunk.h"

static const char *pick(const char *const *of, size_t n) { return of[test_random() % n]; }
#define PICK(...)                              \
    pick((const char *const[]){ __VA_ARGS__ }, \
         sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

// Members in any order, each at most twice, with a comma between them.
static void add_members(Buf *b, const char *const *members, size_t n) {
    size_t first = test_random() % n, count = 1 + test_random() % (n + 1);
    buf_add_char(b, '{');
    for (size_t i = 0; i < count; i++) {
        if (i) buf_add(b, test_random() % 9 ? S(",") : S(" , "));
        buf_add(b, str_z(members[(first + i) % n]));
    }
    buf_add_char(b, '}');
}

static const char *some_text(void) {
    return PICK("\"\"", "\" the\"", "\"hello\"", "\"\xe6\xa8\xa1\xe5\x9e\x8b\"", "\"\\n\"", "null",
                "\"a\\u00e9\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\x01\"", "7", "\"\x7f\"");
}

static str random_event(Ctx *c) {
    Buf delta, choice, all;
    buf_init(&delta, 4096), buf_init(&choice, 4096), buf_init(&all, 8192);
    const char *in_delta[] = { say(c, "\"content\":%s", some_text()),
                               PICK("\"role\":\"assistant\"", "\"tool_calls\":[]") };
    add_members(&delta, in_delta, 1 + (test_random() % 4 == 0));
    const char *in_choice[] = {
        say(c, "\"delta\":" STR_FMT, STR_ARG(buf_str(&delta))),
        PICK("\"index\":0", "\"index\": 12", "\"index\":01", "\"index\":-1", "\"index\":1.5"),
        PICK("\"finish_reason\":null", "\"finish_reason\":\"stop\""),
        PICK("\"logprobs\":null", "\"logprobs\":{}"),
        say(c, "\"text\":%s", some_text()),
    };
    add_members(&choice, in_choice, test_random() % 3 ? 3 : 5);
    const char *in_root[] = {
        say(c, PICK("\"choices\":[" STR_FMT "]", "\"choices\": [" STR_FMT ",{}]"),
            STR_ARG(buf_str(&choice))),
        PICK("\"id\":\"chatcmpl-1\"", "\"id\":\"\\u0041\"", "\"id\":null"),
        PICK("\"created\":1767225600", "\"created\":1e9", "\"created\":0"),
        "\"object\":\"chat.completion.chunk\"",
        PICK("\"model\":\"m\"", "\"model\":null"),
        PICK("\"usage\":null", "\"usage\":{\"prompt_tokens\":1}", "\"system_fingerprint\":\"f\"",
             "\"error\":{}", "\"timings\":{}"),
    };
    add_members(&all, in_root, test_random() % 2 ? 5 : 6);
    for (int i = (int)(test_random() % 5); i == 1 && all.n;) { // one byte another, or less
        if (test_random() % 2) all.p[test_random() % all.n] = (char)test_random();
        else all.n = test_random() % all.n;
        break;
    }
    str text = arena_str(c->mem, buf_str(&all));
    buf_done(&delta), buf_done(&choice), buf_done(&all);
    return text;
}

static str text_of(yyjson_val *choice) {
    str in_delta = json_get_str(json_get(choice, "delta"), "content");
    return in_delta.n ? in_delta : json_get_str(choice, "text");
}

static void check_same(Ctx *c, str event, const Chunk *k) {
    static const char *const never[] = { "error", "timings" };
    yyjson_val *v, *choices;
    CHECK_OK(c, json_parse(c, event, &v));
    for (size_t i = 0; i < countof(never); i++) CHECK(!json_get(v, never[i]));
    CHECK(!yyjson_is_obj(json_get(v, "usage")));
    CHECK(str_eq(json_get_str(v, "id"), k->id));
    choices = json_get(v, "choices");
    yyjson_val *first = yyjson_arr_get_first(choices);
    CHECK(yyjson_arr_size(choices) == (first ? 1u : 0u));
    CHECK(str_eq(text_of(first), k->text));
    CHECK(!json_get_str(first, "finish_reason").p
          && !json_get(json_get(first, "delta"), "tool_calls"));
    CHECK(!json_get(json_get(first, "delta"), "reasoning_content"));
}

TEST(chunk_says_what_the_parser_says) {
    Ctx *c = test_ctx();
    int read = 0, left = 0;
    for (int i = 0; i < 30000; i++) {
        ArenaMark mark = arena_mark(c->mem);
        Chunk k;
        str event = random_event(c);
        if (chunk_read(event, &k)) check_same(c, event, &k), read++;
        else left++;
        c->failure = (Failure){ 0 };
        arena_restore(c->mem, mark);
    }
    CHECK(read > 500 && left > 500);
}

TEST(chunk_reads_the_usual_ones) {
    static const char *const usual[] = {
        "{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"x\"}}],"
        "\"created\":1767225600,\"id\":\"i\",\"model\":\"m\",\"system_fingerprint\":\"f\","
        "\"object\":\"chat.completion.chunk\"}",
        "{\"id\":\"i\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"x\"},"
        "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}",
        "{\"choices\": [{\"text\": \"x\", \"index\": 0, \"logprobs\": null, \"finish_reason\": "
        "null}], \"id\": \"i\", \"object\": \"text_completion\"}",
    };
    for (size_t i = 0; i < countof(usual); i++) {
        Chunk k;
        CHECK(chunk_read(str_z(usual[i]), &k));
        CHECK_STR(k.text, "x");
        CHECK_STR(k.id, "i");
    }
    Chunk k;
    CHECK(!chunk_read((str){ 0 }, &k) && !chunk_read(S("null"), &k) && !chunk_read(S("{}"), &k));
}
