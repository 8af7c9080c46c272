// SPDX-License-Identifier: Apache-2.0
// daily.c - see daily.h. Open databases are kept by day, the one used longest ago is closed first.
// Files are opened under the set's lock: two databases on one file would each have a writer.
#include "res/daily.h"
#include "base/time.h"
#include "os/file.h"
#include "os/thread.h"
#include <assert.h>

enum { KEPT_MAX = 8, SETS_MAX = 16, READERS = 2, NAME_MAX_BYTES = 40 };
typedef struct Open {
    int64_t day;
    Db *db;
    int users;
    uint64_t used; // when, by the set's count
} Open;
struct DailySet {
    const Daily *row;
    Os *os;
    char *folder;
    pthread_mutex_t lock;
    Open *open; // those in use, and at most KEPT_MAX others
    size_t open_n, open_room;
    uint64_t count;
};

static pthread_mutex_t sets_lock = PTHREAD_MUTEX_INITIALIZER;
static DailySet *sets[SETS_MAX];

// A folder that a power cut takes away would take its databases along.
static err make_folder(Ctx *c, str folder) {
    TRY(dir_make(c, folder, 0700));
    size_t n = folder.n;
    while (n > 1 && folder.p[n - 1] != '/') n--;
    return dir_sync(c, n > 1 ? str_sub(folder, 0, n - 1) : S("/"));
}

err daily_open(Ctx *c, const Daily *row, str folder, DailySet **out) {
    assert(strlen(row->name) <= NAME_MAX_BYTES && str_find_char(folder, '/') >= 0);
    TRY(make_folder(c, folder));
    DailySet *s = mem_new(sizeof *s);
    *s = (DailySet){ .row = row, .os = c->os, .folder = mem_strdup(folder) };
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_lock(&sets_lock);
    size_t i = 0;
    while (i < SETS_MAX && sets[i]) i++;
    assert(i < SETS_MAX);
    sets[i] = *out = s;
    pthread_mutex_unlock(&sets_lock);
    return ERR_OK;
}

static void set_free(DailySet *s) {
    for (size_t i = 0; i < s->open_n; i++) {
        assert(!s->open[i].users);
        db_close(s->open[i].db);
    }
    pthread_mutex_destroy(&s->lock);
    mem_free(s->open), mem_free(s->folder), mem_free(s);
}

void daily_close(DailySet *s) {
    if (!s) return;
    pthread_mutex_lock(&sets_lock);
    for (size_t i = 0; i < SETS_MAX; i++)
        if (sets[i] == s) sets[i] = NULL;
    pthread_mutex_unlock(&sets_lock);
    set_free(s);
}

void daily_close_all(void) {
    for (size_t i = 0; i < SETS_MAX; i++) daily_close(sets[i]);
}

// ---- names

static str path_of(Ctx *c, const DailySet *s, int64_t day, const char *suffix) {
    char text[TIME_TEXT];
    time_format(day * 86400000, text);
    return arena_printf(c->mem, "%s/%s-%.10s.db%s", s->folder, s->row->name, text, suffix);
}

// The day of a file's name; false: it is none of this set's.
static bool day_of(Ctx *c, const DailySet *s, str name, int64_t *out) {
    str start = arena_printf(c->mem, "%s-", s->row->name);
    if (!str_starts(name, start) || !str_ends(name, S(".db")) || name.n != start.n + 10 + 3)
        return false;
    str day = arena_printf(c->mem, STR_FMT "T00:00:00Z", STR_ARG(str_sub(name, start.n, 10)));
    int64_t ms;
    if (!time_parse(day, &ms)) return false;
    *out = time_day(ms);
    return true;
}

err daily_days(Ctx *c, DailySet *s, int64_t **out, size_t *out_n) {
    str *names;
    size_t n, days = 0;
    TRY(dir_list(c, str_z(s->folder), &names, &n));
    int64_t *at = new (c->mem, int64_t, n + 1);
    for (size_t i = 0; i < n; i++)
        if (day_of(c, s, names[i], &at[days])) days++; // names sort as days do
    *out = at, *out_n = days;
    return ERR_OK;
}

// ---- taking and giving back, under the lock

static void forget(DailySet *s, size_t i) {
    db_close(s->open[i].db);
    s->open[i] = s->open[--s->open_n];
}

static void close_unused(DailySet *s) {
    for (;;) {
        size_t idle = 0, oldest = 0;
        for (size_t i = 0; i < s->open_n; i++) {
            if (s->open[i].users) continue;
            if (!idle++ || s->open[i].used < s->open[oldest].used) oldest = i;
        }
        if (idle <= KEPT_MAX) return;
        forget(s, oldest);
    }
}

static Open *find(DailySet *s, int64_t day) {
    for (size_t i = 0; i < s->open_n; i++)
        if (s->open[i].day == day) return &s->open[i];
    return NULL;
}

static err open_day(Ctx *c, DailySet *s, int64_t day, bool make, Open **out) {
    str path = path_of(c, s, day, "");
    PathInfo info;
    if (!make) TRY(path_info(c, path, &info));
    DbConfig config = { .url = arena_printf(c->mem, "sqlite:" STR_FMT, STR_ARG(path)),
                        .readers = READERS };
    Db *db;
    TRY(db_open(c, &config, &db));
    err e = db_migrate(c, db, s->row->name, s->row->migrations, s->row->migrations_n);
    if (e) {
        db_close(db);
        return e;
    }
    if (s->open_n == s->open_room) {
        s->open_room = s->open_room ? s->open_room * 2 : 8;
        s->open = mem_grow(s->open, s->open_room, sizeof *s->open);
    }
    *out = &s->open[s->open_n++];
    **out = (Open){ .day = day, .db = db };
    return ERR_OK;
}

err daily_take(Ctx *c, DailySet *s, int64_t day, bool make, Db **out) {
    assert(c->os == s->os);
    pthread_mutex_lock(&s->lock);
    Open *o = find(s, day);
    err e = o ? ERR_OK : open_day(c, s, day, make, &o);
    if (!e) {
        o->users++, o->used = ++s->count;
        *out = o->db;
        close_unused(s);
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

void daily_give(DailySet *s, Db *db) {
    pthread_mutex_lock(&s->lock);
    size_t i = 0;
    while (i < s->open_n && s->open[i].db != db) i++;
    assert(i < s->open_n && s->open[i].users > 0);
    s->open[i].users--;
    close_unused(s);
    pthread_mutex_unlock(&s->lock);
}

// ---- removing

// The database last: what a crash leaves is found again by its name.
static err remove_day(Ctx *c, DailySet *s, int64_t day) {
    static const char *const suffixes[] = { "-shm", "-wal", "" };
    for (size_t i = 0; i < countof(suffixes); i++) {
        err e = path_remove(c, path_of(c, s, day, suffixes[i]));
        if (e && e != ERR_NOTFOUND) return e;
    }
    return ERR_OK;
}

err daily_drop(Ctx *c, DailySet *s, int64_t before_day, int64_t *out_removed) {
    int64_t *days;
    size_t n;
    *out_removed = 0;
    TRY(daily_days(c, s, &days, &n));
    for (size_t i = 0; i < n && days[i] < before_day; i++) {
        pthread_mutex_lock(&s->lock);
        Open *o = find(s, days[i]);
        bool used = o && o->users;
        if (o && !used) forget(s, (size_t)(o - s->open));
        err e = used ? ERR_OK : remove_day(c, s, days[i]);
        pthread_mutex_unlock(&s->lock);
        TRY(e);
        *out_removed += !used;
    }
    return ERR_OK;
}
