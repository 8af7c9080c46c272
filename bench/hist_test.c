// SPDX-License-Identifier: Apache-2.0
// hist_test.c - properties of the histogram against the samples themselves.
#include "base/test.h"
#include "hist.h"
#include <stdlib.h>

static int64_t sample(void) { // of any size: the exponent is random too
    uint64_t r = test_random();
    return (int64_t)(r >> (22 + r % 40));
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

TEST(hist_quantiles_are_within_their_error) {
    enum { N = 5000 };
    static const double quantiles[] = { 0, .001, .1, .25, .5, .75, .9, .95, .99, .999, 1 };
    int64_t *all = new (test_ctx()->mem, int64_t, N);
    Hist *h = new (test_ctx()->mem, Hist, 1);
    for (size_t i = 0; i < N; i++) hist_add(h, all[i] = sample());
    qsort(all, N, sizeof *all, by_size);
    CHECK_INT(h->n, N);
    CHECK_INT(h->least_ns, all[0]);
    CHECK_INT(h->most_ns, all[N - 1]);
    for (size_t i = 0; i < countof(quantiles); i++) {
        size_t rank = (size_t)(quantiles[i] * N + .999999);
        int64_t truth = all[rank ? rank - 1 : 0], told = hist_quantile(h, quantiles[i]);
        if (told < truth || told - truth > truth / HIST_PARTS)
            TEST_FAIL_("q %g: %lld told for %lld", quantiles[i], (long long)told, (long long)truth);
    }
}

TEST(hist_parts_add_up_to_the_whole) {
    Ctx *c = test_ctx();
    Hist *whole = new (c->mem, Hist, 1), *parts = new (c->mem, Hist, 3);
    Hist *sum = new (c->mem, Hist, 1);
    for (size_t i = 0; i < 3000; i++) {
        int64_t ns = sample();
        hist_add(whole, ns);
        hist_add(&parts[i % 2], ns); // the third stays empty
    }
    for (size_t i = 0; i < 3; i++) hist_merge(sum, &parts[2 - i]);
    CHECK(!memcmp(sum, whole, sizeof *sum));
}

TEST(hist_is_read_as_it_was_written) {
    Ctx *c = test_ctx();
    Hist *h = new (c->mem, Hist, 1), *back = new (c->mem, Hist, 1);
    for (size_t i = 0; i < 1000; i++) hist_add(h, sample());
    hist_add(h, INT64_MAX); // longer than the last bucket
    Buf b;
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    hist_write(h, &j);
    yyjson_val *root;
    err failed = json_parse(c, buf_str(&b), &root);
    buf_done(&b);
    CHECK_OK(c, failed);
    CHECK(hist_read(root, back));
    CHECK(!memcmp(h, back, sizeof *h));
    CHECK_INT(hist_quantile(back, 1), (1LL << HIST_TOP) - 1);
}

TEST(hist_refuses_what_does_not_add_up) {
    static const char *const bad[] = {
        "{}",
        "{\"n\":1,\"sum_ns\":1,\"least_ns\":1,\"most_ns\":1,\"parts\":64,\"counts\":[[1,1]]}",
        "{\"n\":2,\"sum_ns\":1,\"least_ns\":1,\"most_ns\":1,\"parts\":128,\"counts\":[[1,1]]}",
        "{\"n\":1,\"sum_ns\":1,\"least_ns\":1,\"most_ns\":1,\"parts\":128,\"counts\":[[1,2]]}",
        "{\"n\":1,\"sum_ns\":1,\"least_ns\":1,\"most_ns\":1,\"parts\":128,\"counts\":[[99999,1]]}",
        "{\"n\":1,\"sum_ns\":1,\"least_ns\":1,\"most_ns\":1,\"parts\":128,\"counts\":[[-1,1]]}",
    };
    Ctx *c = test_ctx();
    Hist *h = new (c->mem, Hist, 1), *empty = new (c->mem, Hist, 1);
    for (size_t i = 0; i < countof(bad); i++) {
        yyjson_val *root;
        CHECK_OK(c, json_parse(c, str_z(bad[i]), &root));
        CHECK(!hist_read(root, h));
        CHECK(!memcmp(h, empty, sizeof *h));
    }
}
