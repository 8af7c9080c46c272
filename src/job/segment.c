// SPDX-License-Identifier: Apache-2.0
// segment.c - the bytes of a journal segment: header, records, the closing mark, the checksum.
// Pure: no files. The format is in README.md; everything read here may be hostile.
#include "job/journal_own.h"
#include <assert.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "segments are little endian");

// Castagnoli's polynomial, reflected: 0x82f63b78; four bits a step.
static uint32_t crc_by_table(uint32_t crc, const unsigned char *p, size_t n) {
    static const uint32_t step[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    for (; n; n--, p++) {
        crc ^= *p;
        crc = crc >> 4 ^ step[crc & 15];
        crc = crc >> 4 ^ step[crc & 15];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_sse(uint32_t crc, const unsigned char *p,
                                                             size_t n) {
    uint64_t wide = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; n; n--, p++) crc = _mm_crc32_u8(crc, *p);
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc_by_sse(~crc, p, n);
#endif
    return ~crc_by_table(~crc, p, n);
}

uint32_t crc32c_plain(uint32_t crc, const void *p, size_t n) { return ~crc_by_table(~crc, p, n); }

static const char magic[8] = "LATHEJ1\n";

void segment_header_format(uint32_t node, uint64_t segment, char out[SEGMENT_HEADER]) {
    memset(out, 0, SEGMENT_HEADER);
    memcpy(out, magic, 8);
    memcpy(out + 8, &node, 4);
    memcpy(out + 12, &segment, 8);
    uint32_t crc = crc32c(0, out, 20);
    memcpy(out + 20, &crc, 4);
}

bool segment_header(str bytes, uint32_t *out_node, uint64_t *out_segment) {
    uint32_t crc;
    if (bytes.n < SEGMENT_HEADER || memcmp(bytes.p, magic, 8) != 0) return false;
    memcpy(&crc, bytes.p + 20, 4);
    if (crc != crc32c(0, bytes.p, 20)) return false;
    memcpy(out_node, bytes.p + 8, 4);
    memcpy(out_segment, bytes.p + 12, 8);
    return true;
}

void record_format(uint16_t kind, uint8_t class, str bytes, char out[RECORD_HEADER]) {
    uint32_t length = (uint32_t)bytes.n;
    memcpy(out, &length, 4);
    memcpy(out + 4, &kind, 2);
    out[6] = (char)class;
    out[7] = 0;
    uint32_t crc = crc32c(crc32c(0, out, 8), bytes.p, bytes.n);
    memcpy(out + 8, &crc, 4);
}

static SegmentStep bad(const char **out_why, const char *why) {
    *out_why = why;
    return SEGMENT_BAD;
}

SegmentStep segment_next(str bytes, size_t at, JournalRecord *out, size_t *out_next,
                         const char **out_why) {
    static const char zeros[RECORD_HEADER];
    assert(at <= bytes.n);
    const char *p = bytes.p + at;
    size_t left = bytes.n - at;
    if (left == 0) return SEGMENT_END;
    if (!memcmp(p, zeros, left < RECORD_HEADER ? left : RECORD_HEADER)) return SEGMENT_END;
    if (left < RECORD_HEADER) return bad(out_why, RECORD_CUT);
    uint32_t length, crc;
    memcpy(&length, p, 4);
    memcpy(&crc, p + 8, 4);
    uint8_t class = (uint8_t)p[6];
    bool sealed = class == SEALED_CLASS && length == 0;
    if (length > JOURNAL_RECORD_MAX || p[7] || (class > JOURNAL_B && !sealed))
        return bad(out_why, "a record's header is not possible");
    if (length > left - RECORD_HEADER) return bad(out_why, RECORD_CUT);
    if (crc != crc32c(crc32c(0, p, 8), p + RECORD_HEADER, length))
        return bad(out_why, "a record's checksum is wrong");
    *out_next = at + RECORD_HEADER + length;
    if (sealed) return SEGMENT_SEALED;
    *out = (JournalRecord){ .cl = class, .bytes = str_n(p + RECORD_HEADER, length) };
    memcpy(&out->kind, p + 4, 2);
    return SEGMENT_RECORD;
}
