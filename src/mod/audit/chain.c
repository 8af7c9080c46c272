// SPDX-License-Identifier: Apache-2.0
// chain.c - hash chains in SQL: each row carries the hash of the one before it, so that a changed
// row breaks its own link and a missing one the next. The head of each chain is a row of
// audit_head, written in the same transaction.
#include "mod/audit/audit_own.h"
#include "blob/blob.h"

static SQL(head_get, "SELECT seq, hash FROM audit_head WHERE chain = $1");
static SQL(head_put, "INSERT INTO audit_head (chain, seq, hash) VALUES ($1, $2, $3) ON CONFLICT "
                     "(chain) DO UPDATE SET seq = $2, hash = $3");

void chain_hash(str previous, str text, char out[HASH_HEX + 1]) {
    Buf b;
    buf_init(&b, previous.n + text.n + 1);
    buf_add(&b, previous), buf_add_char(&b, '\n'), buf_add(&b, text);
    sha256_hex(buf_str(&b), out);
    buf_done(&b);
}

err chain_next(Ctx *c, Tx *tx, str chain, Link *out) {
    Rows *rows;
    bool more;
    *out = (Link){ 1, S(""), { 0 } };
    TRY(db_ask(c, tx, &rows, &head_get, V(chain)));
    TRY(rows_next(c, rows, &more));
    if (!more) return ERR_OK;
    *out = (Link){ col_int(rows, 0) + 1, col_str(rows, 1), { 0 } };
    rows_close(rows);
    return ERR_OK;
}

err chain_put(Ctx *c, Tx *tx, str chain, const Link *l) {
    return db_run(c, tx, &head_put, V(chain), V(l->seq), V(l->hash));
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
const ChainKind chain_kinds[] = {
    { "project/", "audit_entries", "project", entry_columns },
    { "org/", "org_audit_entries", "org", entry_columns },
    { "system", "system_audit_entries", NULL, entry_columns },
    { "inference/", "inference_audits", "project", inference_columns },
    { 0 },
};

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
