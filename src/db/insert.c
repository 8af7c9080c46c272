// SPDX-License-Identifier: Apache-2.0
// insert.c - see insert.h. A full statement takes ROWS rows; what is left at the end goes one by
// one, so that two texts are enough. Threads: any; a text is made once, under a lock.
#include "db/insert.h"
#include "db/db_impl.h"
#include <assert.h>

enum { ROWS = 16, TEXT_MAX = 64 << 10 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// OR FAIL: SQLite need not keep, for each statement of many rows, what its pages were before. A
// failure spoils the whole transaction anyway.
static char *text_of(const InsertSql *s, size_t rows, const char *insert) {
    Buf b;
    buf_init(&b, TEXT_MAX);
    buf_add(&b, str_z(insert)), buf_add(&b, S(" INTO ")), buf_add(&b, str_z(s->into));
    buf_add(&b, S(" VALUES"));
    for (size_t i = 0, n = 1; i < rows; i++) {
        buf_add(&b, i ? S(", (") : S(" ("));
        for (size_t k = 0; k < s->columns; k++, n++) buf_printf(&b, "%s$%zu", k ? ", " : "", n);
        buf_add_char(&b, ')');
    }
    if (s->tail) buf_add_char(&b, ' '), buf_add(&b, str_z(s->tail));
    assert(!b.full);
    char *text = mem_strdup(buf_str(&b));
    buf_done(&b);
    return text;
}

static void make(InsertSql *s) {
    pthread_mutex_lock(&lock);
    if (!s->one.text) {
        static const char plain[] = "INSERT", fails[] = "INSERT OR FAIL";
        s->many = (Sql){ s->name, text_of(s, ROWS, fails), text_of(s, ROWS, plain) };
        s->one = (Sql){ s->name, text_of(s, 1, fails), text_of(s, 1, plain) };
    }
    pthread_mutex_unlock(&lock);
}

Insert insert_begin(Ctx *c, Tx *tx, InsertSql *sql) {
    assert(sql->columns && sql->columns * ROWS <= DB_ARGS_MAX);
    make(sql);
    return (Insert){ c, tx, sql, new (c->mem, Val, sql->columns * ROWS), 0, 0 };
}

static err send(Insert *i, const Sql *sql, size_t from, size_t rows) {
    size_t columns = i->sql->columns;
    int64_t added = 0;
    TRY(db_exec(i->c, i->tx, sql, i->values + from * columns, rows * columns, &added));
    i->added += added;
    return ERR_OK;
}

err insert_row(Insert *i, const Val *values) {
    size_t columns = i->sql->columns;
    memcpy(i->values + i->n * columns, values, columns * sizeof *values);
    if (++i->n < ROWS) return ERR_OK;
    i->n = 0;
    return send(i, &i->sql->many, 0, ROWS);
}

err insert_end(Insert *i, int64_t *out_added) {
    size_t n = i->n;
    i->n = 0;
    for (size_t k = 0; k < n; k++) TRY(send(i, &i->sql->one, k, 1));
    if (out_added) *out_added = i->added;
    return ERR_OK;
}
