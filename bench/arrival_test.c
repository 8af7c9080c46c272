// SPDX-License-Identifier: Apache-2.0
// arrival_test.c - properties of the schedules. Bounds of the random one are five standard errors
// of its own seed's numbers, which are the same in each run.
#include "arrival.h"
#include "base/test.h"
#include <math.h>

enum { START_NS = 1000000007 };

TEST(arrival_constant_does_not_drift) {
    static const double rates[] = { .5, 7, 999.5, 2000, 33333, 1e6 };
    for (size_t i = 0; i < countof(rates); i++) {
        Arrival a;
        arrival_init(&a, rates[i], false, 1, START_NS);
        CHECK_INT(arrival_next_ns(&a), START_NS);
        for (int64_t k = 0; k < 100000; k++) {
            double want_ns = START_NS + (double)k * 1e9 / rates[i];
            CHECK(fabs((double)arrival_next_ns(&a) - want_ns) <= 1 + want_ns * 1e-15);
            arrival_take(&a);
        }
    }
}

TEST(arrival_poisson_has_exponential_gaps) {
    enum { N = 200000 };
    const double rate = 5000;
    Arrival a;
    arrival_init(&a, rate, true, test_random(), START_NS);
    CHECK_INT(arrival_next_ns(&a), START_NS);
    double sum = 0, squares = 0, together = 0, before_s = 0;
    int64_t longer = 0, at = START_NS;
    for (int64_t k = 0; k < N; k++) {
        arrival_take(&a);
        int64_t next = arrival_next_ns(&a);
        CHECK(next >= at);
        double gap_s = (double)(next - at) / 1e9 * rate; // in mean gaps
        sum += gap_s, squares += gap_s * gap_s, together += gap_s * before_s;
        longer += gap_s > 1;
        before_s = gap_s, at = next;
    }
    double error = 5 / sqrt(N);
    CHECK(fabs(sum / N - 1) < error);                       // the rate
    CHECK(fabs(squares / N - 2) < error * sqrt(20));        // of an exponential: variance 20
    CHECK(fabs((double)longer / N - exp(-1)) < error * .5); // e^-1 are longer than the mean
    CHECK(fabs(together / N - 1) < error * 2);              // a gap tells nothing of the next
}

TEST(arrival_poisson_repeats_with_its_seed) {
    uint64_t seed = test_random();
    Arrival a, same, other;
    arrival_init(&a, 100, true, seed, START_NS);
    arrival_init(&same, 100, true, seed, START_NS);
    arrival_init(&other, 100, true, seed + 1, START_NS);
    bool differs = false;
    for (int k = 0; k < 1000; k++) {
        arrival_take(&a), arrival_take(&same), arrival_take(&other);
        CHECK_INT(arrival_next_ns(&a), arrival_next_ns(&same));
        differs |= arrival_next_ns(&a) != arrival_next_ns(&other);
    }
    CHECK(differs);
}
