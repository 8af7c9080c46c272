// SPDX-License-Identifier: Apache-2.0
// snapshot_disk.c - the snapshot's copy on disk, for a start while SQL is away:
//   DIR/snapshot.json  {"sum": S, "at_ms": T, "number": N, "parts": {"access": …, …}}, written
//                      whole and atomically
//   DIR/snapshot.log   lines {"sum": S, "at_ms": T, "base": N, "number": M, "parts": {…},
//                      "changes": {"access": …}}, each synced; "parts" are those whose whole text
//                      changed. A line that is torn, or of another base, ends it.
//   DIR/snapshot.true  when SQL last agreed with these, every few seconds; not synced
// S is the CRC-32C of what follows it, eight hex digits; older releases wrote none. So a change
// costs a line, and the whole is written anew when the log is half of it.
// Threads: see snapshot_impl.h.
#include "job/journal.h"
#include "os/file.h"
#include "res/snapshot_impl.h"
#include <assert.h>
#include <stdio.h>

enum { LOG_LEAST = 1 << 20, LINES_MAX = 100000, AGREES_MS = 5000, AGREES_BYTES = 20 };
static const char sum_head[] = "{\"sum\":\"00000000\",";
enum { SUM_AT = 8, SUMMED_AT = sizeof sum_head - 1 };
static struct {
    File *log, *agrees;
    int64_t agrees_ns;                   // when that was written last
    int64_t base, base_bytes, log_bytes; // base 0: none is there
} disk;

static str in_data(Ctx *c, const char *name) {
    return arena_printf(c->mem, STR_FMT "/%s", STR_ARG(app_of(c)->data_dir), name);
}

bool disk_wants_whole(void) {
    int64_t most = disk.base_bytes / 2 > LOG_LEAST ? disk.base_bytes / 2 : LOG_LEAST;
    return !disk.base || disk.log_bytes > most;
}

void disk_close(void) {
    file_close(disk.log), file_close(disk.agrees);
    disk.log = disk.agrees = NULL, disk.agrees_ns = 0;
    disk.base = disk.base_bytes = disk.log_bytes = 0;
}

// ---- sums

static void sum_format(str summed, char out[9]) {
    snprintf(out, 9, "%08x", (unsigned)crc32c(0, summed.p, summed.n));
}

static Json sum_begin(Ctx *c, Buf *out) {
    Json j = json_to(out);
    json_obj(&j), json_kv_z(&j, "sum", "00000000");
    json_kv_i64(&j, "at_ms", os_wall_ms(c->os));
    return j;
}

static void sum_end(Buf *out) {
    char sum[9];
    if (out->full) return;
    assert(str_starts(buf_str(out), str_n(sum_head, SUMMED_AT)));
    sum_format(str_sub(buf_str(out), SUMMED_AT, out->n), sum);
    memcpy(out->p + SUM_AT, sum, 8);
}

static bool sum_holds(str text) {
    char sum[9];
    if (!str_starts(text, str_n(sum_head, SUM_AT))) return true; // an older release's
    sum_format(str_sub(text, SUMMED_AT, text.n), sum);
    return str_eq(str_sub(text, SUM_AT, 8), str_z(sum));
}

// ---- writing

static err log_open(Ctx *c) {
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE;
    return disk.log ? ERR_OK : file_open(c, in_data(c, "snapshot.log"), flags, &disk.log);
}

static err save_base(Ctx *c, const Build *b, int64_t number) {
    Buf out;
    buf_init(&out, SNAPSHOT_BYTES_MAX);
    Json j = sum_begin(c, &out);
    json_kv_i64(&j, "number", number), json_key(&j, "parts"), json_obj(&j);
    for (size_t i = 0; i < b->parts_n; i++) json_kv_raw(&j, b->parts[i]->name, b->text[i]);
    json_end_obj(&j), json_end_obj(&j);
    sum_end(&out);
    err e = out.full ? fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", "snapshot", "limit", "1 GiB")
                     : file_write_all(c, in_data(c, "snapshot.json"), buf_str(&out), FILE_PRIVATE);
    int64_t bytes = (int64_t)out.n;
    buf_done(&out);
    TRY(e);
    disk.base = number, disk.base_bytes = bytes, disk.log_bytes = 0;
    TRY(log_open(c));
    return file_truncate(c, disk.log, 0); // if not: its lines name another base
}

static void write_line(Ctx *c, const Build *b, int64_t number, Buf *out) {
    Json j = sum_begin(c, out);
    json_kv_i64(&j, "base", disk.base), json_kv_i64(&j, "number", number);
    for (int deltas = 0; deltas < 2; deltas++) {
        json_key(&j, deltas ? "changes" : "parts"), json_obj(&j);
        for (size_t i = 0; i < b->parts_n; i++)
            if (part_delta(b, i) == deltas && !b->same[i] && b->text[i].n)
                json_kv_raw(&j, b->parts[i]->name, b->text[i]);
        json_end_obj(&j);
    }
    json_end_obj(&j);
    sum_end(out), buf_add_char(out, '\n');
}

err disk_save(Ctx *c, const Build *b, int64_t number) {
    if (b->whole) {
        err e = save_base(c, b, number);
        if (e) disk.base = 0; // nobody knows what lies there now
        return e;
    }
    if (!disk.base) return ERR_OK; // a whole one is asked for
    Buf out;
    buf_init(&out, SNAPSHOT_BYTES_MAX);
    write_line(c, b, number, &out);
    err e = log_open(c);
    if (!e && !out.full) e = file_write_at(c, disk.log, disk.log_bytes, out.p, out.n);
    if (!e) e = file_sync(c, disk.log);
    if (e || out.full) disk.base = 0; // the log lacks a change: nothing more is added to it
    else disk.log_bytes += (int64_t)out.n;
    buf_done(&out);
    return e;
}

void disk_agrees(Ctx *c) {
    char text[AGREES_BYTES + 1];
    int64_t now_ns = os_mono_ns(c->os);
    bool recent = disk.agrees_ns && now_ns - disk.agrees_ns < AGREES_MS * INT64_C(1000000);
    if (!disk.base || recent) return;
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE;
    err e = disk.agrees ? ERR_OK : file_open(c, in_data(c, "snapshot.true"), flags, &disk.agrees);
    snprintf(text, sizeof text, "%019lld\n", (long long)os_wall_ms(c->os));
    if (!e) e = file_write_at(c, disk.agrees, 0, text, AGREES_BYTES);
    if (!e) disk.agrees_ns = now_ns; // else the copy only seems older than it is
}

// ---- reading
static int64_t read_agrees(Ctx *c) {
    str text;
    int64_t ms = 0;
    if (file_read_all(c, in_data(c, "snapshot.true"), AGREES_BYTES, &text)) return 0;
    return str_to_i64(str_trim(text), &ms) && ms > 0 ? ms : 0;
}

static bool read_line(Ctx *c, Build *b, str line, int64_t base, int64_t *number) {
    yyjson_val *v;
    int64_t of = 0, at = 0;
    if (!sum_holds(line) || json_parse(c, line, &v) || !json_get_i64(v, "base", &of) || of != base
        || !json_get_i64(v, "number", &at) || at <= *number)
        return false;
    for (size_t i = 0; i < b->parts_n; i++) {
        yyjson_val *part = json_get(json_get(v, "parts"), b->parts[i]->name);
        if (part && !b->parts[i]->apply) b->text[i] = json_text(c->mem, part);
    }
    b->replay[b->replay_n++] = json_get(v, "changes");
    json_get_i64(v, "at_ms", &b->true_ms);
    *number = at;
    return true;
}

// Of a line that does not prove itself nobody knows what it changed: then the lines before it are
// as old as they are.
static err read_log(Ctx *c, Build *b, int64_t *number) {
    str text, line;
    int64_t base = *number, agreed_ms = read_agrees(c);
    err e = file_read_all(c, in_data(c, "snapshot.log"), SNAPSHOT_BYTES_MAX, &text);
    if (e == ERR_NOTFOUND) text = S(""), e = ERR_OK;
    TRY(e);
    b->replay = new (c->mem, yyjson_val *, LINES_MAX);
    bool good = true;
    while (b->replay_n < LINES_MAX && str_find_char(text, '\n') >= 0
           && str_cut(&text, '\n', &line)) {
        good = sum_holds(line);
        if (!read_line(c, b, line, base, number)) break;
    }
    if (good && agreed_ms > b->true_ms) b->true_ms = agreed_ms;
    return ERR_OK;
}

err disk_load(Ctx *c, Build *b, int64_t *out_number) {
    str text;
    yyjson_val *v;
    b->whole = true;
    TRY(file_read_all(c, in_data(c, "snapshot.json"), SNAPSHOT_BYTES_MAX, &text));
    if (!sum_holds(text))
        return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "the snapshot on disk is damaged");
    TRY(json_parse(c, text, &v));
    json_get_i64(v, "at_ms", &b->true_ms);
    if (!json_get_i64(v, "number", out_number))
        return fail(c, ERR_NOTFOUND, R_INTERNAL, "why", "the snapshot on disk has no number");
    for (size_t i = 0; i < b->parts_n; i++) {
        yyjson_val *part = json_get(json_get(v, "parts"), b->parts[i]->name);
        if (!part)
            return fail(c, ERR_NOTFOUND, R_INTERNAL, "why", "the snapshot on disk lacks a part");
        b->text[i] = json_text(c->mem, part);
    }
    return read_log(c, b, out_number);
}
