// SPDX-License-Identifier: Apache-2.0
// journal_file.c - segments as files: names, spares made ahead of need, recovery at open, trimming,
// and the sum of the space that is promised. Owner of the files: the Journal.
#include "job/journal_own.h"
#include <assert.h>
#include <inttypes.h>

// A piece is read at a time; TAIL_PIECE holds more than the largest record.
enum { PAGE = 4096, PIECE = 128 << 10, TAIL_PIECE = 2 << 20 };

str segment_path(Ctx *c, const Journal *j, uint64_t number) {
    return arena_printf(c->mem, "%s/%08" PRIx32 "-%016" PRIx64 ".log", j->dir, j->node, number);
}

// ---- space: what records can certainly still be given

size_t segment_room(const Journal *j, size_t at) {
    size_t end = j->segment_bytes - RECORD_HEADER; // the closing mark always fits
    return at < end ? end - at : 0;
}

// A record that does not fit leaves less than its own size unused, so this much is never wasted.
static size_t room_certain(const Journal *j, size_t at) {
    size_t room = segment_room(j, at), wasted = j->record_max + RECORD_HEADER;
    return room > wasted ? room - wasted : 0;
}

int64_t journal_room(const Journal *j) {
    size_t room = j->spares_n * room_certain(j, SEGMENT_HEADER);
    if (j->current.file) room += room_certain(j, j->at);
    return (int64_t)room - (int64_t)j->reserved - (int64_t)j->committed;
}

// ---- making spares

static err spare_write(Ctx *c, Journal *j, uint64_t number, File *f) {
    char header[SEGMENT_HEADER];
    segment_header_format(j->node, number, header);
    TRY(file_allocate(c, f, (int64_t)j->segment_bytes));
    TRY(file_write_at(c, f, 0, header, sizeof header));
    TRY(file_sync(c, f));
    return dir_sync(c, str_z(j->dir));
}

static err spare_create(Ctx *c, Journal *j, uint64_t number, File **out) {
    str path = segment_path(c, j, number);
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE;
    TRY(file_open(c, path, flags, out));
    err e = spare_write(c, j, number, *out);
    if (!e) return ERR_OK;
    file_close(*out);
    err removed = path_remove(c, path); // else recovery finds it unfinished and removes it
    (void)removed;
    return e;
}

static bool spare_one(Journal *j) {
    Ctx c;
    File *f = NULL;
    ctx_init(&c, arena_new(), j->os);
    pthread_mutex_lock(&j->lock);
    uint64_t number = j->next_number++;
    pthread_mutex_unlock(&j->lock);
    err e = spare_create(&c, j, number, &f);
    arena_free(c.mem);
    pthread_mutex_lock(&j->lock);
    assert(j->spares_n < SPARES_MAX);
    if (!e) j->spares[j->spares_n++] = (Spare){ number, f };
    j->full_ns = e ? os_mono_ns(j->os) : 0;
    pthread_mutex_unlock(&j->lock);
    return !e;
}

// True when `need` bytes more can be promised (need 0: when a spare is there). Tries again on a
// full disk at most ten times a second, so that refused work costs little.
bool spare_make(Journal *j, size_t need) {
    pthread_mutex_lock(&j->prepare);
    bool enough = false, go_on = true;
    while (go_on) {
        pthread_mutex_lock(&j->lock);
        enough = j->spares_n && (!need || journal_room(j) >= (int64_t)need);
        bool just_failed =
            j->full_ns && os_mono_ns(j->os) - j->full_ns < (int64_t)RETRY_MS * 1000000;
        go_on = !enough && !just_failed && j->spares_n < SPARES_MAX;
        pthread_mutex_unlock(&j->lock);
        go_on = go_on && spare_one(j);
    }
    pthread_mutex_unlock(&j->prepare);
    return enough;
}

size_t spare_ahead(const Journal *j) { return room_certain(j, SEGMENT_HEADER) / 2; }

bool spare_wanted(const Journal *j) {
    if (j->spares_n >= SPARES_MAX) return false;
    return !j->spares_n || journal_room(j) < (int64_t)spare_ahead(j);
}

bool spare_take(Journal *j) {
    if (!j->spares_n) return false;
    j->current = j->spares[0];
    j->at = SEGMENT_HEADER;
    j->spares_n--;
    memmove(j->spares, j->spares + 1, j->spares_n * sizeof *j->spares);
    return true;
}

void old_add(Journal *j, uint64_t number) {
    assert(!j->old_n || j->old[j->old_n - 1] < number);
    if (j->old_n == j->old_cap) {
        j->old_cap = j->old_cap ? 2 * j->old_cap : 16;
        j->old = mem_grow(j->old, j->old_cap, sizeof *j->old);
    }
    j->old[j->old_n++] = number;
}

// ---- recovery

static bool name_parse(const Journal *j, str name, uint64_t *out_number) {
    if (name.n != 8 + 1 + 16 + 4 || name.p[8] != '-' || !str_ends(name, S(".log"))) return false;
    uint64_t parts[2] = { 0, 0 };
    for (size_t i = 0; i < 25; i++) {
        if (i == 8) continue;
        char ch = name.p[i];
        int digit = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
        if (digit < 0) return false;
        parts[i > 8] = parts[i > 8] << 4 | (unsigned)digit;
    }
    *out_number = parts[1];
    return parts[0] == j->node && parts[1] != 0;
}

typedef enum { FOUND_UNFINISHED, FOUND_SPARE, FOUND_DATA } Found;

// Where the last byte that is not zero ends, from `at` on (`at`: there is none). any: it is enough
// to know that there is one. What was only reserved is skipped, not read: hence a page at first.
static err data_end(Ctx *c, File *f, int64_t at, bool any, int64_t *out) {
    char *piece = mem_grow(NULL, PIECE, 1);
    size_t want, got;
    err e;
    *out = at;
    do {
        e = file_skip_zeros(c, f, at, &at);
        want = at % PAGE ? PAGE - (size_t)(at % PAGE) : PIECE;
        if (!e) e = file_read_at(c, f, at, piece, want, &got);
        if (e) break;
        size_t end = got;
        while (end && !piece[end - 1]) end--;
        if (end) *out = at + (int64_t)end;
        at += (int64_t)got;
        if (end && any) break;
    } while (got == want);
    mem_free(piece);
    return e;
}

// A segment gets data only after its header was synced: one without both is an unfinished spare.
// The whole of a spare must be zeros: a power cut may have kept the end of a first write only, and
// a later record could lead into it.
static err found_what(Ctx *c, Journal *j, uint64_t number, File *f, Found *out) {
    char head[SEGMENT_HEADER] = { 0 };
    size_t got = 0;
    int64_t size, end;
    TRY(data_end(c, f, SEGMENT_HEADER, true, &end));
    TRY(file_read_at(c, f, 0, head, sizeof head, &got));
    TRY(file_size(c, f, &size));
    uint32_t node;
    uint64_t named;
    bool good = segment_header(str_n(head, got), &node, &named) && node == j->node;
    bool whole = size == (int64_t)j->segment_bytes;
    if (end > SEGMENT_HEADER) *out = FOUND_DATA;
    else *out = good && named == number && whole ? FOUND_SPARE : FOUND_UNFINISHED;
    return ERR_OK;
}

static err file_found(Ctx *c, Journal *j, uint64_t number, Found *out) {
    File *f;
    TRY(file_open(c, segment_path(c, j, number), FILE_READ, &f));
    err e = found_what(c, j, number, f, out);
    file_close(f);
    return e;
}

// Where the records of a file end. What is cut at the end of a piece starts the next one, which is
// larger when it is a record that did not fit.
static err records_end(Ctx *c, File *f, size_t *out_at, SegmentStep *out_step) {
    char *piece = mem_grow(NULL, TAIL_PIECE, 1); // memory is touched only as far as it is needed
    size_t at = SEGMENT_HEADER, want = PIECE, got = PIECE;
    SegmentStep step = SEGMENT_RECORD;
    err e = ERR_OK;
    while (step != SEGMENT_SEALED && got == want && want <= TAIL_PIECE) {
        size_t in = 0, next; // in: how far the piece was understood
        const char *why;
        JournalRecord r;
        e = file_read_at(c, f, (int64_t)at, piece, want, &got);
        if (e) break;
        while ((step = segment_next(str_n(piece, got), in, &r, &next, &why)) == SEGMENT_RECORD)
            in = next;
        at += in;
        if (!in && step == SEGMENT_END) break;
        if (!in) want *= 2, got = want;
    }
    mem_free(piece);
    *out_at = at;
    *out_step = step;
    return e;
}

// A segment is shorter than its fellows only when it was cut behind its mark: no need to read it.
static err was_closed(Ctx *c, const Journal *j, File *f, bool *out) {
    char mark[RECORD_HEADER], last[RECORD_HEADER];
    int64_t size;
    size_t got = 0;
    TRY(file_size(c, f, &size));
    *out = false;
    if (size >= (int64_t)j->segment_bytes || size < SEGMENT_HEADER + RECORD_HEADER) return ERR_OK;
    TRY(file_read_at(c, f, size - RECORD_HEADER, last, sizeof last, &got));
    record_format(0, SEALED_CLASS, S(""), mark);
    *out = got == sizeof last && !memcmp(last, mark, sizeof mark);
    return ERR_OK;
}

static err cut_behind(Ctx *c, File *f, size_t mark_at) {
    TRY(file_truncate(c, f, (int64_t)mark_at + RECORD_HEADER));
    return file_sync(c, f);
}

// The mark comes first, and is synced: in a file that is full of torn bytes it needs no new space.
// The truncation is synced as well: a folder may stand behind the mark, ahead of a power cut, and
// what a later one brought back there would be read again.
err segment_close(Ctx *c, File *f, size_t at) {
    char mark[RECORD_HEADER];
    record_format(0, SEALED_CLASS, S(""), mark);
    TRY(file_write_at(c, f, (int64_t)at, mark, sizeof mark));
    TRY(file_sync(c, f));
    return cut_behind(c, f, at);
}

// Closes the last segment of the life before: what follows its first bad or missing record goes.
static err tail_cut_file(Ctx *c, Journal *j, File *f) {
    char head[SEGMENT_HEADER];
    uint32_t node;
    uint64_t named;
    size_t got, at;
    int64_t end;
    SegmentStep step;
    bool closed;
    TRY(file_read_at(c, f, 0, head, sizeof head, &got));
    if (!segment_header(str_n(head, got), &node, &named)) return ERR_OK; // journal_read reports it
    TRY(was_closed(c, j, f, &closed));
    if (closed) return ERR_OK;
    TRY(records_end(c, f, &at, &step));
    if (step == SEGMENT_SEALED) return cut_behind(c, f, at);
    TRY(data_end(c, f, (int64_t)at, false, &end));
    j->counts.torn_bytes += end - (int64_t)at;
    return segment_close(c, f, at);
}

static err tail_cut(Ctx *c, Journal *j, uint64_t number) {
    File *f;
    TRY(file_open(c, segment_path(c, j, number), FILE_READ | FILE_WRITE, &f));
    err e = tail_cut_file(c, j, f);
    file_close(f);
    return e;
}

static err spare_found(Ctx *c, Journal *j, uint64_t number) {
    if (j->spares_n == SPARES_MAX) return path_remove(c, segment_path(c, j, number));
    File *f;
    TRY(file_open(c, segment_path(c, j, number), FILE_READ | FILE_WRITE, &f));
    j->spares[j->spares_n++] = (Spare){ number, f };
    return ERR_OK;
}

static err segments_find(Ctx *c, Journal *j) {
    str *names;
    size_t n;
    TRY(dir_list(c, str_z(j->dir), &names, &n)); // sorted: our numbers ascend
    for (size_t i = 0; i < n; i++) {
        uint64_t number;
        Found found;
        if (!name_parse(j, names[i], &number)) continue;
        TRY(file_found(c, j, number, &found));
        j->next_number = number + 1;
        if (found == FOUND_UNFINISHED) TRY(path_remove(c, segment_path(c, j, number)));
        if (found == FOUND_SPARE) TRY(spare_found(c, j, number));
        if (found != FOUND_DATA) continue;
        // Spares are used in order: one below a segment with data was passed over, and stays so.
        while (j->spares_n) {
            Spare passed = j->spares[--j->spares_n];
            file_close(passed.file);
            TRY(path_remove(c, segment_path(c, j, passed.number)));
        }
        old_add(j, number);
    }
    return ERR_OK;
}

// The first spare may have been the last life's current segment, of which a power cut took all;
// its positions may have been folded. Under a new number it is a spare again, without new space.
static err spare_renumber(Ctx *c, Journal *j) {
    Spare s = j->spares[0];
    uint64_t number = j->next_number++;
    char header[SEGMENT_HEADER];
    segment_header_format(j->node, number, header);
    TRY(file_write_at(c, s.file, 0, header, sizeof header));
    TRY(file_sync(c, s.file));
    TRY(path_rename(c, segment_path(c, j, s.number), segment_path(c, j, number)));
    TRY(dir_sync(c, str_z(j->dir)));
    memmove(j->spares, j->spares + 1, (j->spares_n - 1) * sizeof *j->spares);
    j->spares[j->spares_n - 1] = (Spare){ number, s.file };
    return ERR_OK;
}

// Should segments be gone, or all of them, with a disk that was replaced: readers keep their
// positions elsewhere. No journal has had a segment for each millisecond since 1970.
static void number_ahead(Ctx *c, Journal *j) {
    int64_t now_ms = os_wall_ms(c->os);
    if (now_ms > 0 && j->next_number < (uint64_t)now_ms) j->next_number = (uint64_t)now_ms;
}

err segments_recover(Ctx *c, Journal *j, str parent) {
    j->next_number = 1;
    TRY(segments_find(c, j));
    if (j->next_number == 1) TRY(dir_sync(c, parent)); // our folder may be new
    number_ahead(c, j);
    if (j->spares_n) TRY(spare_renumber(c, j));
    if (j->old_n) TRY(tail_cut(c, j, j->old[j->old_n - 1]));
    spare_make(j, 0); // on a full disk there is none: counts say so, and it is tried again
    pthread_mutex_lock(&j->lock);
    spare_take(j);
    pthread_mutex_unlock(&j->lock);
    return ERR_OK;
}

// ---- trimming

err journal_trim(Ctx *c, Journal *j, JournalPos folded) {
    for (;;) {
        pthread_mutex_lock(&j->lock);
        // The last file stays, so that its number is not given again after a restart.
        bool last = j->old_n == 1 && !j->current.file && !j->spares_n;
        bool go_on = j->old_n && !last && j->old[0] < folded.segment && folded.node == j->node;
        uint64_t number = go_on ? j->old[0] : 0;
        if (go_on) memmove(j->old, j->old + 1, --j->old_n * sizeof *j->old);
        pthread_mutex_unlock(&j->lock);
        if (!go_on) return ERR_OK;
        err e = path_remove(c, segment_path(c, j, number));
        if (e && e != ERR_NOTFOUND) return e; // found again, and removed, after the next open
    }
}
