// SPDX-License-Identifier: Apache-2.0
// insert.h - many rows of one table, several with each statement: on SQLite the table's trees are
// then opened and searched from the top once for all of them, on PostgreSQL they cost one round
// trip. Within a transaction's function, on its thread. Owner: an Insert is its caller's; values
// that it was given must live until it ends.
#ifndef LATHE_DB_INSERT_H
#define LATHE_DB_INSERT_H
#include "db/db.h"

// A statement's row: table and columns ("t (a, b)"), how many, and what follows the values ("ON
// CONFLICT …"; NULL: nothing). Static and its own: statements are kept by its address.
typedef struct InsertSql {
    const char *name, *into;
    size_t columns;
    const char *tail;
    Sql one, many; // made from these when first used
} InsertSql;

typedef struct Insert {
    Ctx *c;
    Tx *tx;
    InsertSql *sql;
    Val *values; // of the rows that wait
    size_t n;
    int64_t added;
} Insert;

Insert insert_begin(Ctx *c, Tx *tx, InsertSql *sql);
err insert_row(Insert *i,
               const Val *values); // as many as there are columns; copied, their text not
err insert_end(Insert *i, int64_t *out_added); // how many rows there are more now; may be NULL
#endif
