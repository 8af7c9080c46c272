// SPDX-License-Identifier: Apache-2.0
// verify.c - reads every chain from its first row on: a changed row no longer has its hash, a
// missing one leaves a gap in seq, a cut tail ends before the last signed checkpoint. Chains are
// read in pages, so a long one costs time and not memory.
#include "mod/audit/audit_own.h"
#include <stdio.h>

enum { PAGE = 1000, FAULTS_MAX = 100 };

typedef struct Walk {
    const ChainKind *kind;
    str chain, scope, previous;
    int64_t seq;
    bool more;
    VerifyReport *report;
} Walk;

static void fault(Ctx *c, VerifyReport *r, str chain, int64_t seq, const char *what) {
    if (!r->faults) r->faults = new (c->mem, Fault, FAULTS_MAX);
    if (r->faults_n < FAULTS_MAX)
        r->faults[r->faults_n++] = (Fault){ arena_str(c->mem, chain), str_z(what), seq };
}

static const char *columns_of(Ctx *c, const ChainKind *k) {
    size_t n = 0;
    str names[32];
    for (; k->columns[n]; n++) names[n] = str_z(k->columns[n]);
    return arena_join(c->mem, names, n, S(", ")).p;
}

static void check_row(Ctx *c, Walk *w, const Rows *row, int columns) {
    char hash[HASH_HEX + 1];
    str text = S("");
    int64_t seq = col_int(row, 0);
    if (seq != w->seq + 1) fault(c, w->report, w->chain, w->seq + 1, "the row is missing");
    else if (!str_eq(col_str(row, columns), w->previous))
        fault(c, w->report, w->chain, seq, "the row before it was replaced");
    if (chain_text(c, w->kind, row, &text)) text = S("");
    chain_hash(col_str(row, columns), text, hash);
    if (!str_is(col_str(row, columns + 1), hash))
        fault(c, w->report, w->chain, seq, "the row was changed");
    w->seq = seq, w->previous = col_str(row, columns + 1);
    w->report->rows++;
}

static err page_tx(Ctx *c, Tx *tx, void *arg) {
    Walk *w = arg;
    const ChainKind *k = w->kind;
    int columns = 0, n = 0;
    while (k->columns[columns]) columns++;
    Sql sql = { "audit_walk",
                arena_printf(
                    c->mem,
                    "SELECT %s, previous, hash FROM %s WHERE seq > $1%s%s%s ORDER BY seq LIMIT %d",
                    columns_of(c, k), k->table, k->scope ? " AND " : "", k->scope ? k->scope : "",
                    k->scope ? " = $2" : "", PAGE)
                    .p,
                NULL };
    Rows *rows;
    TRY(db_query(c, tx, &sql, (Val[]){ V(w->seq), V(w->scope) }, k->scope ? 2 : 1, &rows));
    for (;; n++) {
        bool more;
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        check_row(c, w, rows, columns);
    }
    w->more = n == PAGE;
    return ERR_OK;
}

static const ChainKind *kind_of(str chain) {
    for (const ChainKind *k = chain_kinds; k->prefix; k++)
        if (str_starts(chain, str_z(k->prefix))) return k;
    return NULL;
}

// The walk keeps its place in memory of its own: pages give theirs back.
static err walk(Ctx *c, str chain, const Head3 *checkpoint, VerifyReport *out) {
    const ChainKind *k = kind_of(chain);
    if (!k) {
        fault(c, out, chain, 0, "no such kind of chain");
        return ERR_OK;
    }
    Walk w = { .kind = k,
               .chain = chain,
               .scope = str_sub(chain, strlen(k->prefix), chain.n),
               .previous = S(""),
               .report = out };
    char last[HASH_HEX + 1] = "", at_checkpoint[HASH_HEX + 1] = "";
    do {
        ArenaMark mark = arena_mark(c->mem);
        size_t faults = out->faults_n;
        TRY(db_read(c, c->db, page_tx, &w));
        snprintf(last, sizeof last, STR_FMT, STR_ARG(w.previous));
        w.previous = str_z(last);
        if (checkpoint && w.seq == checkpoint->seq) memcpy(at_checkpoint, last, sizeof last);
        if (faults == out->faults_n) arena_restore(c->mem, mark);
        TRY(ctx_check(c));
    } while (w.more);
    out->chains++;
    if (checkpoint && w.seq < checkpoint->seq)
        fault(c, out, chain, w.seq + 1, "the tail was cut: the signed checkpoint has more rows");
    else if (checkpoint && w.seq == checkpoint->seq && !str_is(checkpoint->hash, at_checkpoint))
        fault(c, out, chain, w.seq,
              "the chain was written anew: the signed checkpoint has another hash");
    return ERR_OK;
}

typedef struct Chains {
    str *names;
    size_t n;
} Chains;

static err chains_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(chains_all, "SELECT chain FROM audit_head ORDER BY chain");
    Chains *all = arg;
    Rows *rows;
    bool more;
    size_t room = 16;
    all->names = new (c->mem, str, room), all->n = 0;
    TRY(db_query(c, tx, &chains_all, NULL, 0, &rows));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        if (all->n == room) {
            str *grown = new (c->mem, str, room * 2);
            memcpy(grown, all->names, room * sizeof *grown);
            all->names = grown, room *= 2;
        }
        all->names[all->n++] = col_str(rows, 0);
    }
}

static const Head3 *find_head(const Head3 *heads, size_t n, str chain) {
    for (size_t i = 0; i < n; i++)
        if (str_eq(heads[i].chain, chain)) return &heads[i];
    return NULL;
}

err audit_verify(Ctx *c, VerifyReport *out) {
    Head3 *heads = NULL;
    size_t heads_n = 0;
    Chains all;
    *out = (VerifyReport){ .faults = new (c->mem, Fault, FAULTS_MAX) };
    err e = checkpoint_read(c, &heads, &heads_n);
    out->checkpoint_ok = !e, out->checkpoint_chains = (int64_t)heads_n;
    if (e)
        fault(c, out, S("checkpoint"), 0,
              "the signed checkpoint is missing, damaged or not signed by this server's key");
    TRY(db_read(c, c->db, chains_tx, &all));
    for (size_t i = 0; i < all.n; i++)
        TRY(walk(c, all.names[i], find_head(heads, heads_n, all.names[i]), out));
    for (size_t i = 0; i < heads_n; i++) {
        bool there = false;
        for (size_t k = 0; k < all.n; k++) there |= str_eq(all.names[k], heads[i].chain);
        if (!there) fault(c, out, heads[i].chain, 1, "the whole chain is gone");
    }
    return ERR_OK;
}

err audit_report(Ctx *c, str *out_json) {
    VerifyReport v;
    Buf b;
    TRY(audit_verify(c, &v));
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_bool(&j, "ok", v.faults_n == 0), json_kv_i64(&j, "chains", v.chains);
    json_kv_i64(&j, "rows", v.rows), json_kv_bool(&j, "checkpoint_ok", v.checkpoint_ok);
    json_kv_i64(&j, "checkpoint_chains", v.checkpoint_chains);
    json_key(&j, "faults"), json_arr(&j);
    for (size_t i = 0; i < v.faults_n; i++) {
        json_obj(&j);
        json_kv_str(&j, "chain", v.faults[i].chain), json_kv_i64(&j, "seq", v.faults[i].seq);
        json_kv_str(&j, "what", v.faults[i].what);
        json_end_obj(&j);
    }
    json_end_arr(&j), json_end_obj(&j);
    *out_json = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return ERR_OK;
}
