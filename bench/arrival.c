// SPDX-License-Identifier: Apache-2.0
// arrival.c - see arrival.h. The k-th constant arrival is computed from k, so errors do not add up.
#include "arrival.h"
#include <assert.h>
#include <math.h>

// SplitMix64 (Steele, Lea and Flood, 2014) as a stream of numbers in (0, 1].
static double chance(uint64_t seed, int64_t i) {
    uint64_t z = seed + 0x9e3779b97f4a7c15u * ((uint64_t)i + 1);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 1) / 9007199254740992.0; // 2^53
}

void arrival_init(Arrival *a, double rate, bool poisson, uint64_t seed, int64_t start_ns) {
    assert(rate > 0 && rate <= 1e9 && start_ns >= 0);
    *a = (Arrival){ .rate = rate, .poisson = poisson, .seed = seed, .start_ns = start_ns };
}

int64_t arrival_next_ns(const Arrival *a) {
    double at_s = a->poisson ? a->at_s : (double)a->n / a->rate;
    return a->start_ns + (int64_t)(at_s * 1e9);
}

void arrival_take(Arrival *a) {
    a->at_s += -log(chance(a->seed, a->n)) / a->rate;
    a->n++;
}
