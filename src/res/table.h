// SPDX-License-Identifier: Apache-2.0
// table.h - private to res: a resource made ready at start: all its rows in one list (head, own,
// reconciled) and the SQL built from them. Threads: built once before anything is served, read by
// all after.
#ifndef LATHE_RES_TABLE_H
#define LATHE_RES_TABLE_H
#include "res/app.h"

typedef struct ResTable {
    const Resource *r;
    Field *rows;   // all of them, ends with a zero name; stored ones first
    size_t rows_n; // the stored ones: columns
    bool has_once;
    const char *columns; // "id", "name", … quoted, in the order of rows
    Sql by_id, by_name, insert, update, remove;
    Sql status; // STATUS columns only; parameters: status_rows, id, scope
    const Field **status_rows;
    size_t status_n;
} ResTable;

void tables_init(const Module *const mods[]); // every module's resources
const ResTable *table_of(const Resource *r);  // aborts for one that no module lists
size_t tables_count(void);
const ResTable *table_at(size_t i);

// The scope's WHERE: text with the parameter's number, and its value. SYSTEM: "1=1" and no value.
// The tenant is in every statement.
typedef struct ScopeWhere {
    const char *column;
    str value;
} ScopeWhere; // column NULL: system
err scope_where(Ctx *c, const Resource *r, ScopeWhere *out);

bool field_filters(const Field *f);                  // a list may be filtered by it
bool field_sorts(const Resource *r, const Field *f); // and sorted
typedef struct ListSql {
    Sql sql;
    const Val *args;
    size_t n;
} ListSql; // a list's statement and its parameters, in c->mem: what res_list asks
err list_statement(Ctx *c, DbKind kind, const Resource *r, const ListSpec *spec, ListSql *out);

// One column's value out of and into a struct.
Val row_val(Ctx *c, const Field *f, const void *base);
err row_load(Ctx *c, const ResTable *t, const Rows *rows,
             void *out);                  // columns in the order of t->rows
void *row_new(Ctx *c, const ResTable *t); // zeroed, unset, defaults applied

// References (ref table): names become ids on the way in; on the way out the rules hold.
err refs_resolve(Ctx *c, Tx *tx, const ResTable *t, const void *old, void *row); // old NULL: new
err refs_store(Ctx *c, Tx *tx, const ResTable *t,
               const void *row); // replaces what the row referred to before
err refs_release(Ctx *c, Tx *tx, const ResTable *t,
                 const void *row); // RESTRICT refuses, CASCADE deletes the users, SOFT lets go
err secrets_seal(Ctx *c, const ResTable *t, void *row);
// res_update for an action: stored, audited as verb and told of even when nothing changed.
err res_act(Ctx *c, Tx *tx, const Resource *r, const void *old, void *now, const char *verb);
err res_record(Ctx *c, Tx *tx, const ResTable *t, const char *verb, const void *old,
               const void *now); // audit + notify
str audit_change(Ctx *c, const ResTable *t, const void *old,
                 const void *now); // {"field":[old,new]}, secrets masked

extern const Migration res_migrations[];
extern const size_t res_migrations_n;
#endif
