// SPDX-License-Identifier: Apache-2.0
// daily.h - rows that only grow, in one SQLite database for each day (UTC): FOLDER/NAME-DAY.db, so
// that retention removes files. A reader or writer takes a day's database and gives it back; some
// stay open. With PostgreSQL nobody opens a set: everything is in the one database.
// A resource with `daily` is listed and got over its days and the main database together, which may
// hold rows of it too (what was not kept by day before, what a crash left).
// Owner: the App's end closes every set (daily_close_all). Threads: any.
#ifndef LATHE_RES_DAILY_H
#define LATHE_RES_DAILY_H
#include "res/resource.h"

typedef struct DailySet DailySet;
typedef struct Daily {
    const char *name; // of the files: "trace"
    const Migration *migrations;
    size_t migrations_n;
} Daily;

err daily_open(Ctx *c, const Daily *row, str folder, DailySet **out); // makes the folder
// The database of a day (time_day), migrated. make false: ERR_NOTFOUND when there is none. Each
// success is given back. A day that is being removed is ERR_NOTFOUND too.
err daily_take(Ctx *c, DailySet *s, int64_t day, bool make, Db **out);
void daily_give(DailySet *s, Db *db);
err daily_days(Ctx *c, DailySet *s, int64_t **out, size_t *out_n); // rising; in c->mem
// Removes the files of days before `day`; one that is in use stays until the next time.
err daily_drop(Ctx *c, DailySet *s, int64_t before_day, int64_t *out_removed);
// fn in a read of the day of an id's time, and of the main database when it is not there
// (ERR_NOTFOUND): fn may run twice.
err daily_read(Ctx *c, DailySet *s, str id, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg);
// res_list over all of them: the same filters, sorting and cursors. Sorted by id it reads as many
// days as a page needs, else all.
err daily_list(Ctx *c, DailySet *s, const Resource *r, const ListSpec *spec, ListPage *out);
void daily_close(DailySet *s); // nobody uses it any more; NULL is fine
void daily_close_all(void);    // of a program that ends
#endif
