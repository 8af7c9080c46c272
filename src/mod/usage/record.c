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
};
enum {
    RECORD_VERSION = 1,
    TEXT_CLIP = 256,
    CONTENT_CLIP = 256 << 10,
    CONTENT_ROWS = 2,
    MARK_ROWS = 4,
    STATUS_MAX = 999,
    ROOM_OPEN = 8192,
    ROOM_SETTLE = 8192,
    RECORD_MAX = 2 * CONTENT_CLIP + 16384
};
static const int64_t NUMBER_MAX = 1LL << 53;
static_assert(STAGE__COUNT == 5, "every stage has its row above");

// ---- varints (LEB128 of the zigzag form)
static void put_number(Buf *out, int64_t n) {
    uint64_t z = (uint64_t)n << 1 ^ (uint64_t)(n >> 63);
    for (; z > 127; z >>= 7) buf_add_char(out, (char)(z | 128));
    buf_add_char(out, (char)z);
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
static void put_text(Buf *out, str s, size_t most) {
    if (!s.p) {
        put_number(out, -1);
        return;
    }
    size_t n = s.n < most ? s.n : most;
    while (n < s.n && n && ((uint8_t)s.p[n] & 0xc0) == 0x80) n--;
    put_number(out, (int64_t)n);
    buf_add(out, str_n(s.p, n));
    char *end = out->p + out->n, *at = out->full || !n ? NULL : end - n;
    while (at && (at = memchr(at, 0, (size_t)(end - at)))) *at = '?';
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

static void pack_rows_to(const RequestRecord *r, size_t n, Buf *out) {
    buf_add_char(out, RECORD_VERSION);
    for (size_t i = 0; i < n; i++) {
        const void *at = (const char *)r + pack_rows[i].offset;
        switch (pack_rows[i].type) {
        case P_STR:
            put_text(out, *(const str *)at,
                     i + CONTENT_ROWS >= countof(pack_rows) ? CONTENT_CLIP : TEXT_CLIP);
            break;
        case P_INT: put_number(out, *(const int *)at); break;
        case P_I64: put_number(out, within(*(const int64_t *)at)); break;
        case P_BOOL: put_number(out, *(const bool *)at); break;
        }
    }
}

bool record_pack(const RequestRecord *r, bool with_content, Buf *out) {
    pack_rows_to(r, countof(pack_rows) - (with_content ? 0 : CONTENT_ROWS), out);
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

bool usage_unpack(str bytes, RequestRecord *out) {
    *out = (RequestRecord){ 0 };
    if (!bytes.n || *bytes.p != RECORD_VERSION) return false;
    str in = str_n(bytes.p + 1, bytes.n - 1);
    for (size_t i = 0; i < countof(pack_rows) && in.n; i++)
        if (!take_row(&pack_rows[i], &in, out)) return false;
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
    bool fits = record_pack(r, false, &b);
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
