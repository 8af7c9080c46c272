// SPDX-License-Identifier: Apache-2.0
// record_test.c - packed records: what reads back is what a database can hold, whatever a client or
// an engine said. One that it could not hold would hold up all that come after it.
#include "base/test.h"
#include "mod/usage/usage_own.h"

static bool storable(str s) { return str_utf8(s) && str_find_char(s, 0) < 0; }

TEST(usage_record_of_hostile_texts_can_be_stored) {
    RequestRecord r = { .request_id = S("req_1"),
                        .attempt_id = S("att_1"),
                        .model = S("gh\0ost\0"),
                        .end_user = S("\0"),
                        .finish_reason = S("sto\xffp"),
                        .answer = S("one\0two") },
                  back;
    Buf b;
    buf_init(&b, 1 << 16);
    CHECK(record_pack(&r, true, &b) && usage_unpack(buf_str(&b), &back));
    CHECK_STR(back.model, "gh?ost?");
    CHECK_STR(back.end_user, "?");
    CHECK_STR(back.finish_reason, "sto"); // not text: it ends there
    CHECK_STR(back.answer, "one?two");
    CHECK_STR(back.attempt_id, "att_1");
    buf_done(&b);
}

// As an earlier release wrote it.
TEST(usage_record_that_holds_a_nul_ends_there) {
    RequestRecord r = { .request_id = S("req_1"), .model = S("ghXost") }, back;
    Buf b;
    buf_init(&b, 1 << 16);
    CHECK(record_pack(&r, false, &b));
    char *x = memchr(b.p, 'X', b.n);
    CHECK(x);
    *x = 0;
    CHECK(usage_unpack(buf_str(&b), &back));
    CHECK_STR(back.model, "gh");
    CHECK_STR(back.request_id, "req_1");
    buf_done(&b);
}

TEST(usage_record_that_cannot_be_is_none) {
    RequestRecord r = { .request_id = S("req_1"), .outcome = OUTCOME_INTERRUPTED, .status = 999 };
    RequestRecord bad[] = { r, r, r, r }, back;
    bad[0].outcome = OUTCOME_INTERRUPTED + 1, bad[1].operation = OP_EMBEDDING + 1;
    bad[2].status = 1000, bad[3].attempt = -1;
    for (size_t i = 0; i <= countof(bad); i++) {
        Buf b;
        buf_init(&b, 1 << 16);
        CHECK(record_pack(i ? &bad[i - 1] : &r, false, &b));
        CHECK_INT(usage_unpack(buf_str(&b), &back), i == 0);
        buf_done(&b);
    }
}

TEST(usage_record_keeps_numbers_within_what_can_be_added_up) {
    RequestRecord r = { .request_id = S("req_1"), .cost_nano = INT64_MAX, .ttft_us = INT64_MIN },
                  back;
    Buf b;
    buf_init(&b, 1 << 16);
    CHECK(record_pack(&r, false, &b) && usage_unpack(buf_str(&b), &back));
    CHECK(back.cost_nano > 1000000000LL * 1000000 && back.cost_nano < INT64_MAX / 512);
    CHECK_INT(back.ttft_us, -1);
    CHECK(storable(back.model) && storable(back.org));
    buf_done(&b);
}

// The journal's first look at an attempt reads no more than what a mark has.
TEST(usage_record_of_any_kind_begins_as_a_mark) {
    RequestRecord r = { .attempt_id = S("att_1"),
                        .completion_tokens = 16,
                        .prompt_tokens = 1LL << 40,
                        .cached_tokens = 3,
                        .model = S("m") },
                  back;
    Buf b;
    buf_init(&b, 1 << 16);
    CHECK(record_pack(&r, false, &b) && usage_unpack_mark(buf_str(&b), &back));
    CHECK_STR(back.attempt_id, "att_1");
    CHECK_INT(back.completion_tokens, 16);
    CHECK_INT(back.prompt_tokens, 1LL << 40);
    CHECK_INT(back.cached_tokens, 3);
    CHECK(!back.model.p && !back.request_id.p);
    for (size_t n = 0; n < 6; n++) CHECK(!usage_unpack_mark(str_sub(buf_str(&b), 0, n), &back));
    r.attempt_id = (str){ 0 };
    buf_clear(&b);
    CHECK(record_pack(&r, false, &b) && !usage_unpack_mark(buf_str(&b), &back));
    buf_done(&b);
}
