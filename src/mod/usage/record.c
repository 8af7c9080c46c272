// SPDX-License-Identifier: Apache-2.0
// record.c - the packed form of a RequestRecord, and the writers that loops call. A record is one
// version byte, then its members in the order of the rows below; what a record ends before is
// unset, so later releases may append rows.
#include "mod/usage/usage_own.h"
#include <assert.h>

typedef enum { P_STR, P_INT, P_I64, P_BOOL } PackType;
typedef struct PackRow {
    PackType type;
    size_t offset;
} PackRow;
#define P(type, member) \
    { type, offsetof(RequestRecord, member) }
static const PackRow pack_rows[] = {
    P(P_STR, attempt_id),    P(P_I64, completion_tokens),
    P(P_I64, prompt_tokens), P(P_I64, cached_tokens),
    P(P_STR, request_id),    P(P_STR, org),
    P(P_STR, project),       P(P_STR, key_id),
    P(P_STR, owner),         P(P_STR, model),
    P(P_STR, deployment),    P(P_STR, replica),
    P(P_STR, version),       P(P_STR, model_digest),
    P(P_STR, response_id),   P(P_STR, finish_reason),
    P(P_STR, error_class),   P(P_STR, error_reason),
    P(P_STR, client_ip),     P(P_STR, end_user),
    P(P_INT, operation),     P(P_INT, outcome),
    P(P_INT, status),        P(P_INT, attempt),
    P(P_BOOL, streamed),     P(P_I64, start_ms),
    P(P_I64, end_ms),        P(P_I64, stage_us[0]),
    P(P_I64, stage_us[1]),   P(P_I64, stage_us[2]),
    P(P_I64, stage_us[3]),   P(P_I64, stage_us[4]),
    P(P_I64, ttft_us),       P(P_I64, tbt_mean_us),
    P(P_I64, tbt_max_us),    P(P_I64, reserved_nano),
    P(P_I64, cost_nano),     P(P_I64, machine_us),
    P(P_BOOL, tokens_exact), P(P_BOOL, final),
    P(P_STR, currency),      P(P_STR, price_id),
    P(P_STR, prompt_digest), P(P_STR, answer_digest),
    P(P_STR, prompt),        P(P_STR, answer),
    P(P_BOOL, priced),       P(P_I64, rate_input),
    P(P_I64, rate_cached),   P(P_I64, rate_output),
    P(P_I64, rate_machine),
};
enum {
    RECORD_VERSION = 1,
    TEXT_CLIP = 256,
    CONTENT_CLIP = 256 << 10,
    CONTENT_ROWS = 2,
    RATE_ROWS = 5,
    MARK_ROWS = 4,
    NUMBER_BYTES = 10, // the longest
    STATUS_MAX = 999,
    ROOM_OPEN = 8192,
    ROOM_SETTLE = 8192,
    RECORD_MAX = 2 * CONTENT_CLIP + 16384
};
enum { CONTENT_FIRST = countof(pack_rows) - RATE_ROWS - CONTENT_ROWS };
static const int64_t NUMBER_MAX = 1LL << 53;
static_assert(STAGE__COUNT == 5, "every stage has its row above");

// ---- varints (LEB128 of the zigzag form)
static char *put_number(char *at, int64_t n) {
    uint64_t z = (uint64_t)n << 1 ^ (uint64_t)(n >> 63);
    for (; z > 127; z >>= 7) *at++ = (char)(z | 128);
    *at++ = (char)z;
    return at;
}
static bool take_number(str *in, int64_t *out) {
    uint64_t z = 0;
    for (unsigned shift = 0; in->n && shift < 64; shift += 7) {
        uint8_t byte = (uint8_t)*in->p;
        *in = str_n(in->p + 1, in->n - 1);
        z |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = (int64_t)(z >> 1) ^ -(int64_t)(z & 1);
            return true;
        }
    }
    return false;
}

// An absent text is -1; a long one is cut at a character. No database holds a NUL.
static char *put_text(char *at, str s, size_t most) {
    if (!s.p) return put_number(at, -1);
    size_t n = s.n < most ? s.n : most;
    while (n < s.n && n && ((uint8_t)s.p[n] & 0xc0) == 0x80) n--;
    at = put_number(at, (int64_t)n);
    memcpy(at, s.p, n);
    char *end = at + n;
    while (at < end && (at = memchr(at, 0, (size_t)(end - at)))) *at++ = '?';
    return end;
}
// What a database would refuse ends the text.
static bool take_text(str *in, str *out) {
    int64_t n;
    if (!take_number(in, &n) || n < -1 || n > (int64_t)in->n) return false;
    *out = n < 0 ? (str){ 0 } : str_n(in->p, (size_t)n);
    if (n > 0) *in = str_n(in->p + n, in->n - (size_t)n);
    ptrdiff_t nul = str_find_char(*out, 0), bad;
    if (nul >= 0) *out = str_sub(*out, 0, (size_t)nul);
    if ((bad = str_utf8_bad(*out)) >= 0) *out = str_sub(*out, 0, (size_t)bad);
    return true;
}

// Sums of a batch of such numbers fit into 64 bits.
static int64_t within(int64_t n) { return n < -1 ? -1 : n > NUMBER_MAX ? NUMBER_MAX : n; }

static size_t clip_of(size_t row) {
    bool content = row >= CONTENT_FIRST && row < CONTENT_FIRST + CONTENT_ROWS;
    return content ? CONTENT_CLIP : TEXT_CLIP;
}

// The most that so many rows take.
static size_t room_for(const RequestRecord *r, size_t n) {
    size_t room = 1;
    for (size_t i = 0; i < n; i++) {
        const str *s = (const void *)((const char *)r + pack_rows[i].offset);
        room += NUMBER_BYTES;
        if (pack_rows[i].type == P_STR) room += s->n < clip_of(i) ? s->n : clip_of(i);
    }
    return room;
}

static void pack_rows_to(const RequestRecord *r, size_t n, Buf *out) {
    size_t room = room_for(r, n);
    char *start = buf_reserve(out, room), *to = start;
    if (!start) return;
    *to++ = RECORD_VERSION;
    for (size_t i = 0; i < n; i++) {
        const void *at = (const char *)r + pack_rows[i].offset;
        switch (pack_rows[i].type) {
        case P_STR: to = put_text(to, *(const str *)at, clip_of(i)); break;
        case P_INT: to = put_number(to, *(const int *)at); break;
        case P_I64: to = put_number(to, within(*(const int64_t *)at)); break;
        case P_BOOL: to = put_number(to, *(const bool *)at); break;
        }
    }
    assert((size_t)(to - start) <= room);
    buf_commit(out, (size_t)(to - start));
}

bool record_pack(const RequestRecord *r, bool with_content, Buf *out) {
    pack_rows_to(r, with_content ? CONTENT_FIRST + CONTENT_ROWS : CONTENT_FIRST, out);
    return !out->full;
}

bool record_pack_open(const RequestRecord *r, Buf *out) {
    RequestRecord o = *r;
    o.prompt = o.answer = (str){ 0 };
    pack_rows_to(&o, countof(pack_rows), out);
    return !out->full;
}

static bool take_row(const PackRow *row, str *in, RequestRecord *out) {
    void *at = (char *)out + row->offset;
    int64_t n;
    if (row->type == P_STR) return take_text(in, at);
    if (!take_number(in, &n)) return false;
    if (row->type == P_I64) *(int64_t *)at = within(n);
    else if (row->type == P_BOOL) *(bool *)at = n;
    else if (n < 0 || n > INT32_MAX) return false;
    else *(int *)at = (int)n;
    return true;
}

static bool unpack_rows(str bytes, size_t n, RequestRecord *out) {
    *out = (RequestRecord){ 0 };
    if (!bytes.n || *bytes.p != RECORD_VERSION) return false;
    str in = str_n(bytes.p + 1, bytes.n - 1);
    for (size_t i = 0; i < n && in.n; i++)
        if (!take_row(&pack_rows[i], &in, out)) return false;
    return true;
}

bool usage_unpack_mark(str bytes, RequestRecord *out) {
    return unpack_rows(bytes, MARK_ROWS, out) && out->attempt_id.n;
}

bool usage_unpack(str bytes, RequestRecord *out) {
    if (!unpack_rows(bytes, countof(pack_rows), out)) return false;
    // What a column needs is never absent: a record that cannot be stored would hold up all after
    // it.
    str *needed[] = { &out->org, &out->project, &out->model };
    for (size_t i = 0; i < countof(needed); i++)
        if (!needed[i]->p) *needed[i] = S("");
    bool known = out->operation <= OP_EMBEDDING && out->outcome <= OUTCOME_INTERRUPTED;
    return known && out->status <= STATUS_MAX && (out->attempt_id.n || out->request_id.n);
}

// ---- writers
bool usage_room(App *app) {
    if (!journal_reserve(app->journal, ROOM_OPEN)) return false;
    if (journal_reserve(app->journal, ROOM_SETTLE)) return true;
    journal_release(app->journal, ROOM_OPEN);
    return false;
}
void usage_room_back(App *app) {
    journal_release(app->journal, ROOM_OPEN);
    journal_release(app->journal, ROOM_SETTLE);
}

static err append(App *app, int kind, str bytes, size_t reserved) {
    JournalEntry e = {
        .cl = JOURNAL_A, .kind = (uint16_t)kind, .bytes = bytes, .reserved = reserved
    };
    return journal_append(app->journal, &e);
}

void usage_open(App *app, const RequestRecord *r) {
    Buf b;
    buf_init(&b, ROOM_OPEN);
    bool fits = record_pack_open(r, &b);
    assert(fits); // every text is clipped: 24 texts of 256 bytes and 21 numbers
    err e = append(app, USAGE_OPEN, buf_str(&b), ROOM_OPEN);
    assert(!e);
    buf_done(&b);
}

void usage_mark(App *app, const RequestRecord *r, int64_t completion_tokens) {
    RequestRecord m = *r;
    Buf b;
    m.completion_tokens = completion_tokens;
    buf_init(&b, 1024);
    pack_rows_to(&m, MARK_ROWS, &b);
    if (append(app, USAGE_MARK, buf_str(&b), 0)) {} // a full disk: the settle to come has its room
    buf_done(&b);
}

static void append_record(App *app, int kind, const RequestRecord *r, size_t reserved) {
    Buf b;
    buf_init(&b, RECORD_MAX);
    bool content = r->prompt.p || r->answer.p;
    bool fits = record_pack(r, content, &b);
    assert(fits);
    err e = append(app, kind, buf_str(&b), content && b.n > reserved ? 0 : reserved);
    if (content && b.n > reserved
        && reserved) { // content has no room of its own: without it there is
        if (!e) journal_release(app->journal, reserved);
        else {
            buf_clear(&b);
            record_pack(r, false, &b);
            e = append(app, kind, buf_str(&b), reserved);
        }
    }
    assert(!e || !reserved);
    buf_done(&b);
}
void usage_settle(App *app, const RequestRecord *r) {
    append_record(app, USAGE_SETTLE, r, ROOM_SETTLE);
}
void usage_refused(App *app, const RequestRecord *r) { append_record(app, USAGE_REFUSED, r, 0); }
