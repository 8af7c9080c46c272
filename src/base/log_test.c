// SPDX-License-Identifier: Apache-2.0
// log_test.c - levels change as a whole or not at all; each line is one line, whatever is in it.
#include "test.h"

static Buf lines;
static void keep(void *arg, str line) { (void)arg, buf_add(&lines, line); }
static int64_t noon(void *arg) { return (void)arg, 1795348800000; }

static void start(bool json) {
    buf_init(&lines, 1 << 20);
    log_to((LogSink){ keep, noon, NULL, json });
    (void)log_levels(S("info"), NULL);
}
static void stop(void) {
    log_to((LogSink){ 0 });
    (void)log_levels(S("info"), NULL);
    buf_done(&lines);
}

TEST(log_levels_by_module) {
    start(true);
    CHECK(log_on("net", LOG_INFO) && !log_on("net", LOG_DEBUG));
    CHECK(log_levels(S("warn,net=debug,db=off"), NULL));
    CHECK(log_on("net", LOG_DEBUG) && !log_on("db", LOG_ERROR));
    CHECK(log_on("job", LOG_WARN) && !log_on("job", LOG_INFO) && !log_on("ne", LOG_INFO));
    CHECK(log_levels(S("error"), NULL));
    CHECK(!log_on("net", LOG_WARN) && log_on("db", LOG_ERROR)); // a new spec forgets the old one
    CHECK(!log_on("db", LOG_OFF));
    CHECK(log_levels(S("debug"), NULL) && log_on("net", LOG_DEBUG) && log_on("db", LOG_DEBUG));
    stop();
    CHECK(!log_on("net", LOG_ERROR)); // no sink
}

TEST(log_levels_bad_spec_changes_nothing) {
    static const char *const specs[][2] = { { "", "" },
                                            { "loud", "loud" },
                                            { "debug,net=loud", "net=loud" },
                                            { "debug,=info", "=info" },
                                            { "debug,", "" },
                                            { "debug,net", "net" },
                                            { "Net=info", "Net=info" },
                                            { "debug,a_name_too_long_by_far=info,x",
                                              "a_name_too_long_by_far=info" } };
    start(true);
    for (size_t i = 0; i < countof(specs); i++) {
        str bad = S("?");
        CHECK(!log_levels(str_z(specs[i][0]), &bad));
        CHECK_STR(bad, specs[i][1]);
        CHECK(!log_on("net", LOG_DEBUG) && log_on("net", LOG_INFO));
    }
    stop();
}

TEST(log_levels_names_are_limited) {
    start(true);
    Ctx *c = test_ctx();
    str bad = { 0 };
    int taken = 0;
    while (taken < 200 && log_levels(str_z(say(c, "info,m%d=debug", taken)), &bad)) taken++;
    CHECK(taken > 40 && taken <= 64);
    CHECK_STR(bad, say(c, "m%d=debug", taken));
    CHECK(log_levels(S("info,m0=debug"), NULL)
          && log_on("m0", LOG_DEBUG)); // known names still work
    stop();
}

TEST(log_line_as_json) {
    Ctx *c = test_ctx();
    c->request_id = S("req_1");
    start(true);
    log_at("net", LOG_WARN, c, "odd \"peer\"", "address", "[::1]:80\n", "why", NULL);
    log_at("net", LOG_DEBUG, c, "not wanted");
    log_at("net", LOG_INFO, NULL, "plain");
    CHECK_STR(buf_str(&lines),
              "{\"time\":\"2026-11-22T12:00:00.000Z\",\"level\":\"warn\",\"module\":\"net\","
              "\"message\":\"odd \\\"peer\\\"\",\"request_id\":\"req_1\","
              "\"address\":\"[::1]:80\\n\",\"why\":\"\"}\n"
              "{\"time\":\"2026-11-22T12:00:00.000Z\",\"level\":\"info\",\"module\":\"net\","
              "\"message\":\"plain\"}\n");
    stop();
}

TEST(log_line_as_text) {
    start(false);
    log_at("net", LOG_INFO, NULL, "listening", "address", "127.0.0.1:8080", "note", "a b", "empty",
           "", "forged", "x\n2026 ERROR net k=v");
    CHECK_STR(buf_str(&lines), "2026-11-22T12:00:00.000Z INFO net listening address=127.0.0.1:8080 "
                               "note=\"a b\" empty=\"\" forged=\"x\\n2026 ERROR net k=v\"\n");
    stop();
}

// However long or broken the values: one line, within the limit, that reads as JSON.
TEST(log_line_survives_any_value) {
    Ctx *c = test_ctx();
    char value[12000];
    start(true);
    for (size_t n = 0; n < sizeof value; n += 1 + test_random() % 97) {
        for (size_t i = 0; i < n; i++) value[i] = (char)(1 + test_random() % 255);
        value[n] = 0;
        buf_clear(&lines);
        c->request_id = str_z(n % 3 ? "req_1" : value);
        log_at("net", LOG_ERROR, c, n % 5 ? "message" : value, "before", "1", "value", value,
               "after", "2");
        CHECK(lines.n <= LOG_LINE_MAX
              && str_find_char(buf_str(&lines), '\n') == (int64_t)lines.n - 1);
        yyjson_val *v;
        CHECK_OK(c, json_parse(c, str_sub(buf_str(&lines), 0, lines.n - 1), &v));
        CHECK_STR(json_get_str(v, "before"), "1");
        bool whole = json_get(v, "value") && json_get(v, "after");
        CHECK(whole != !!json_get(v, "truncated"));
        CHECK(whole || n > 600);
    }
    stop();
}
