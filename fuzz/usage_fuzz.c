// SPDX-License-Identifier: Apache-2.0
// usage_fuzz.c - any bytes as a packed usage record of the journal: what is taken for one can be
// stored (its texts are texts, its kinds have names), and packed again it reads the same.
// Covers: src/mod/usage/record.c
// Threads: one.
#include "fuzz.h"
#include "mod/usage/usage_own.h"

static void check_same(const RequestRecord *a, const RequestRecord *b) {
    assert(str_eq(a->request_id, b->request_id) && str_eq(a->attempt_id, b->attempt_id));
    assert(str_eq(a->org, b->org) && str_eq(a->project, b->project) && str_eq(a->model, b->model));
    assert(a->operation == b->operation && a->outcome == b->outcome && a->status == b->status);
    assert(a->attempt == b->attempt && a->streamed == b->streamed && a->final == b->final);
    assert(a->start_ms == b->start_ms && a->end_ms == b->end_ms && a->ttft_us == b->ttft_us);
    assert(a->prompt_tokens == b->prompt_tokens && a->cost_nano == b->cost_nano);
    assert(a->completion_tokens == b->completion_tokens && a->machine_us == b->machine_us);
    assert(str_eq(a->prompt, b->prompt) && str_eq(a->answer, b->answer));
}

FUZZ(usage) {
    RequestRecord r, again, third;
    if (!usage_unpack(bytes, &r)) return;
    assert(*outcome_name(r.outcome) && *operation_name(r.operation));
    assert(r.attempt_id.n || r.request_id.n);
    assert(r.org.p && r.project.p && r.model.p);
    Buf b, twice;
    buf_init(&b, 1 << 20), buf_init(&twice, 1 << 20);
    bool good = record_pack(&r, true, &b) && usage_unpack(buf_str(&b), &again);
    assert(good && record_pack(&again, true, &twice) && usage_unpack(buf_str(&twice), &third));
    assert(str_eq(buf_str(&b), buf_str(&twice))); // long texts were cut the first time
    check_same(&again, &third);
    buf_done(&b), buf_done(&twice);
}
