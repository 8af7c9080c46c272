// SPDX-License-Identifier: Apache-2.0
// chain.c - hash chains in SQL: each row carries the hash of the one before it, so that a changed
// row breaks its own link and a missing one the next. The head of each chain is a row of
// audit_head, written in the same transaction and before the rows: on PostgreSQL a second writer
// waits there and is run again, instead of meeting the first at the same place.
#include "mod/audit/audit_own.h"
#include "blob/blob.h"
#include "db/insert.h"
#include <assert.h>

// What is hashed begins so; the row's text follows.
static void hash_begin(str previous, Buf *out) {
    buf_clear(out);
    buf_add(out, previous), buf_add_char(out, '\n');
}

void chain_hash(str previous, str text, char out[HASH_HEX + 1]) {
    Buf b;
    buf_init(&b, previous.n + text.n + 1);
    hash_begin(previous, &b), buf_add(&b, text);
    sha256_hex(buf_str(&b), out);
    buf_done(&b);
}

static const char *const entry_columns[] = {
    "seq",     "at",           "actor",      "actor_name", "key_id", "verb", "kind",
    "subject", "subject_name", "permission", "request_id", "change", NULL
};
static const char *const inference_columns[] = { "seq",
                                                 "at",
                                                 "request_id",
                                                 "key_id",
                                                 "owner",
                                                 "model",
                                                 "version",
                                                 "model_digest",
                                                 "deployment",
                                                 "prompt_digest",
                                                 "answer_digest",
                                                 "client_ip",
                                                 "operation",
                                                 "outcome",
                                                 "error_reason",
                                                 "status",
                                                 "prompt_tokens",
                                                 "completion_tokens",
                                                 NULL };
// clang-format off
const ChainKind chain_kinds[] = {
    [CHAIN_PROJECT] = { "project/", "audit_entries", "project", entry_columns, "audit" },
    [CHAIN_ORG] = { "org/", "org_audit_entries", "org", entry_columns, "audit" },
    [CHAIN_SYSTEM] = { "system", "system_audit_entries", NULL, entry_columns, "audit" },
    [CHAIN_INFERENCE] = { "inference/", "inference_audits", "project", inference_columns,
                          "infaudit" },
    [CHAIN__COUNT] = { 0 },
};
// clang-format on

static bool is_number(const char *column) {
    static const char *const numbers[] = { "seq", "at", "status", "prompt_tokens",
                                           "completion_tokens" };
    for (size_t i = 0; i < countof(numbers); i++)
        if (!strcmp(column, numbers[i])) return true;
    return false;
}

err chain_text(Ctx *c, const ChainKind *k, const Rows *row, str *out) {
    Buf b;
    buf_init(&b, 2 << 20);
    Json j = json_to(&b);
    json_obj(&j);
    for (int i = 0; k->columns[i]; i++) {
        json_key(&j, k->columns[i]);
        if (col_null(row, i)) json_put_null(&j);
        else if (is_number(k->columns[i])) json_put_i64(&j, col_int(row, i));
        else json_put_str(&j, col_str(row, i));
    }
    json_end_obj(&j);
    *out = arena_str(c->mem, buf_str(&b));
    bool full = b.full;
    buf_done(&b);
    return full ? fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", "an audit row", "limit", "2 MiB")
                : ERR_OK;
}

// ---- adding
static SQL(head_take,
           "INSERT INTO audit_head (chain, seq, hash) VALUES ($1, $2, '') ON CONFLICT (chain) DO "
           "UPDATE SET seq = audit_head.seq + $2 RETURNING seq, hash");
static SQL(head_put, "UPDATE audit_head SET hash = $2 WHERE chain = $1");
static InsertSql adds[CHAIN__COUNT]; // of rows, from the kinds' columns

static bool has_project(const ChainKind *k) { return k->scope && !strcmp(k->scope, "project"); }

static InsertSql add_of(const ChainKind *k) {
    Buf b;
    buf_init(&b, 4096);
    size_t n = 7 + (k->scope != NULL) + has_project(k);
    buf_printf(&b, "%s (id, %s%screated_by, previous, hash, created_at, updated_at, revision",
               k->table, k->scope ? "org, " : "", has_project(k) ? "project, " : "");
    for (size_t i = 0; k->columns[i]; i++, n++) buf_printf(&b, ", %s", k->columns[i]);
    buf_add_char(&b, ')');
    assert(!b.full);
    InsertSql add = { .name = "audit_add", .into = mem_strdup(buf_str(&b)), .columns = n };
    buf_done(&b);
    return add;
}

static void adds_open(void) {
    for (int i = 0; i < CHAIN__COUNT; i++) adds[i] = add_of(&chain_kinds[i]);
}

// The same text as chain_text reads back.
static void values_text(const ChainKind *k, const Val *v, Buf *out) {
    Json j = json_to(out);
    json_obj(&j);
    for (int i = 0; k->columns[i]; i++) {
        json_key(&j, k->columns[i]);
        if (v[i].type == VAL_INT) json_put_i64(&j, v[i].i);
        else json_put_str(&j, v[i].s); // absent: null
    }
    json_end_obj(&j);
    assert(!out->full);
}

static err add_row(Insert *to, const ChainKind *k, const ChainRow *r, str previous, str hash) {
    Ctx *c = to->c;
    Val args[CHAIN_VALUES_MAX + 9];
    size_t n = 0;
    args[n++] = r->id.n ? V(r->id) : V(os_id(c, k->id));
    if (k->scope) args[n++] = V(c->org);
    if (has_project(k)) args[n++] = V(c->project);
    args[n++] = V(r->created_by), args[n++] = V(previous), args[n++] = V(hash);
    args[n++] = r->v[1], args[n++] = r->v[1], args[n++] = V(1);
    for (size_t i = 0; k->columns[i]; i++) args[n++] = r->v[i];
    assert(n == to->sql->columns);
    return insert_row(to, args);
}

static err take(Ctx *c, Tx *tx, str chain, size_t n, int64_t *out_first, str *out_previous) {
    Rows *rows;
    TRY(db_one(c, tx, &rows, &head_take, (Val[]){ V(chain), V((int64_t)n) }, 2));
    *out_first = col_int(rows, 0) - (int64_t)n + 1;
    *out_previous = col_str(rows, 1);
    return ERR_OK;
}

err chain_add(Ctx *c, Tx *tx, ChainId id, ChainRow *rows, size_t n) {
    const ChainKind *k = &chain_kinds[id];
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    assert(n);
    pthread_once(&once, adds_open);
    str of = has_project(k) ? c->project : k->scope ? c->org : S(""), previous;
    str chain = arena_printf(c->mem, "%s" STR_FMT, k->prefix, STR_ARG(of));
    int64_t first;
    TRY(take(c, tx, chain, n, &first, &previous));
    Buf text;
    buf_init(&text, 2 << 20);
    Insert to = insert_begin(c, tx, &adds[id]);
    err e = ERR_OK;
    for (size_t i = 0; i < n && !e; i++) {
        char hash[HASH_HEX + 1];
        rows[i].v[0] = V(first + (int64_t)i);
        hash_begin(previous, &text), values_text(k, rows[i].v, &text);
        sha256_hex(buf_str(&text), hash);
        str now = arena_str(c->mem, str_z(hash));
        e = add_row(&to, k, &rows[i], previous, now);
        previous = now;
    }
    buf_done(&text);
    if (!e) e = insert_end(&to, NULL);
    return e ? e : db_run(c, tx, &head_put, V(chain), V(previous));
}
