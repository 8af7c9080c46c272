// SPDX-License-Identifier: Apache-2.0
// trim.c - see trim.h. A batch asks the index where it ends, and removes up to there: no list of
// rows, and no row is looked at that stays.
#include "res/trim.h"
#include <assert.h>

typedef struct Batch {
    const TrimTable *t;
    const TrimBelow *below;
    int64_t removed;
    bool more;
} Batch;

static const char *where(Ctx *c, const TrimTable *t, const char *is) {
    const char *scope = t->scope ? say(c, "%s = $2 AND ", t->scope) : "";
    return say(c, "FROM %s WHERE %s%s %s $1", t->table, scope, t->column, is);
}

// The value of the batch's last row; none: what is left is less than a batch.
static err find_end(Ctx *c, Tx *tx, Batch *b, Val *io_end) {
    const TrimTable *t = b->t;
    Val args[] = { b->below->before, b->below->scope };
    Rows *rows;
    Sql find = { "trim_end",
                 say(c, "SELECT %s %s ORDER BY %s LIMIT 1 OFFSET %d", t->column, where(c, t, "<"),
                     t->column, TRIM_ROWS - 1),
                 NULL };
    TRY(db_query(c, tx, &find, args, t->scope ? 2 : 1, &rows));
    TRY(rows_next(c, rows, &b->more));
    if (!b->more) return ERR_OK;
    if (io_end->type == VAL_INT) *io_end = val_int(col_int(rows, 0));
    else *io_end = val_str(arena_str(c->mem, col_str(rows, 0)));
    rows_close(rows);
    return ERR_OK;
}

static err batch_tx(Ctx *c, Tx *tx, void *arg) {
    Batch *b = arg;
    Val args[] = { b->below->before, b->below->scope };
    TRY(find_end(c, tx, b, &args[0]));
    Sql drop = { "trim", say(c, "DELETE %s", where(c, b->t, b->more ? "<=" : "<")), NULL };
    return db_exec(c, tx, &drop, args, b->t->scope ? 2 : 1, &b->removed);
}

err trim_some(Ctx *c, Db *db, const TrimTable *t, const TrimBelow *below, int64_t *io_removed,
              bool *out_more) {
    assert(below->before.type == VAL_INT || below->before.type == VAL_TEXT);
    Batch b = { .t = t, .below = below };
    ArenaMark mark = arena_mark(c->mem);
    err e = db_tx(c, db, batch_tx, &b);
    if (e) return e; // its words lie there
    arena_restore(c->mem, mark);
    *io_removed += b.removed, *out_more = b.more;
    return ERR_OK;
}

err trim_rows(Ctx *c, Db *db, const TrimTable *t, const TrimBelow *below, int64_t *io_removed) {
    for (bool more = true; more;) {
        TRY(ctx_check(c));
        TRY(trim_some(c, db, t, below, io_removed, &more));
    }
    return ERR_OK;
}

typedef struct Next {
    const TrimTable *t;
    str after, found;
} Next;

static err next_tx(Ctx *c, Tx *tx, void *arg) {
    Next *n = arg;
    const TrimTable *t = n->t;
    Rows *rows;
    bool more;
    Sql next = { "trim_next",
                 say(c, "SELECT %s FROM %s WHERE %s > $1 ORDER BY %s LIMIT 1", t->scope, t->table,
                     t->scope, t->scope),
                 NULL };
    n->found = (str){ 0 };
    TRY(db_ask(c, tx, &rows, &next, V(n->after)));
    TRY(rows_next(c, rows, &more));
    if (!more) return ERR_OK;
    n->found = arena_str(c->mem, col_str(rows, 0));
    rows_close(rows);
    return ERR_OK;
}

err trim_next(Ctx *c, Db *db, const TrimTable *t, str after, str *out) {
    Next n = { .t = t, .after = after };
    assert(t->scope && after.p);
    TRY(db_read(c, db, next_tx, &n));
    *out = n.found;
    return ERR_OK;
}
