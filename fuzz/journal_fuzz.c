// SPDX-License-Identifier: Apache-2.0
// journal_fuzz.c - any bytes as a journal segment: reading ends, stays inside them, and what it
// accepts is the same when it is written again.
#include "job/journal_own.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1); // its end is the sanitizer's to guard
    assert(exact);
    if (size) memcpy(exact, data, size);
    str bytes = str_n(exact, size);
    uint32_t node;
    uint64_t number;
    if (segment_header(bytes, &node, &number)) {
        char again[SEGMENT_HEADER];
        segment_header_format(node, number, again);
        assert(!memcmp(again, exact, 20));
    }
    for (size_t start = 0; start <= size && start <= SEGMENT_HEADER; start += SEGMENT_HEADER) {
        size_t at = start, next = 0;
        const char *why = NULL;
        JournalRecord r;
        SegmentStep step;
        while ((step = segment_next(bytes, at, &r, &next, &why)) == SEGMENT_RECORD) {
            char head[RECORD_HEADER];
            assert(next > at && next <= size && next == at + RECORD_HEADER + r.bytes.n);
            record_format(r.kind, (uint8_t)r.cl, r.bytes, head);
            assert(!memcmp(head, exact + at, RECORD_HEADER));
            at = next;
        }
        assert(step != SEGMENT_BAD || why);
    }
    free(exact);
    return 0;
}
