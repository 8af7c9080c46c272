// SPDX-License-Identifier: Apache-2.0
// audit_own.h - private to audit: chains, their rows, checkpoints.
#ifndef LATHE_MOD_AUDIT_OWN_H
#define LATHE_MOD_AUDIT_OWN_H
#include "mod/audit/audit.h"
#include "res/app.h"
#include "res/worker.h"

// A link of a chain: hash = SHA-256(previous hash, newline, text), both hex and UTF-8. text is the
// row's canonical JSON: its members in the order of the columns, without seq's neighbours, hashes
// and the kit's bookkeeping.
enum { HASH_HEX = 64 };
void chain_hash(str previous, str text, char out[HASH_HEX + 1]);

// Kinds of chains: which table holds them, in which columns, and what they are called.
typedef enum { CHAIN_PROJECT, CHAIN_ORG, CHAIN_SYSTEM, CHAIN_INFERENCE, CHAIN__COUNT } ChainId;
typedef struct ChainKind {
    const char *prefix; // of the chain's name: "project/", "inference/" …
    const char *table,
        *scope; // scope: the column that the rest of the name selects; NULL: all rows
    const char *const *columns; // what the hash covers, in order, seq first; NULL ends
    const char *id;             // prefix of its rows' identifiers
} ChainKind;
extern const ChainKind chain_kinds[CHAIN__COUNT + 1]; // the last one has no prefix

enum { ENTRY_VALUES = 12, INFERENCE_VALUES = 18, CHAIN_VALUES_MAX = 18 };
typedef struct ChainRow {
    str id, created_by;      // id absent: one is made
    Val v[CHAIN_VALUES_MAX]; // in the order of the kind's columns; seq is given by chain_add
} ChainRow;
// Adds n > 0 rows to c's chain of this kind (its project's, organisation's, or the system's): takes
// their places first, so that two writers never meet at the same one.
err chain_add(Ctx *c, Tx *tx, ChainId id, ChainRow *rows, size_t n);
// Canonical JSON of a row whose first columns are k's.
err chain_text(Ctx *c, const ChainKind *k, const Rows *row, str *out);

// Checkpoints: DIR/audit/checkpoint.json, signed with Ed25519 (RFC 8032) by DIR/audit/sign.key.
err checkpoint_open(Ctx *c);                // the key, made at the first start
err checkpoint_write(Ctx *c, void *unused); // worker: the heads of all chains, when one has moved
typedef struct Head3 {
    str chain;
    int64_t seq;
    str hash;
} Head3;
err checkpoint_read(Ctx *c, Head3 **out, size_t *out_n); // verified; none yet: 0

typedef struct Fault {
    str chain, what;
    int64_t seq;
} Fault;
typedef struct VerifyReport {
    int64_t chains, rows;
    Fault *faults;
    size_t faults_n;
    int64_t checkpoint_chains;
    bool checkpoint_ok;
} VerifyReport;
err audit_verify(Ctx *c, VerifyReport *out);
err audit_add(Ctx *c, Tx *tx, const AuditEntry *e); // App.audit

// Refusals: denial.c.
void denial_note(Ctx *c, const char *permission, str target); // App.audit_denied
err denial_flush(Ctx *c, bool all);    // writes what is due; all: whatever is counted
err denial_turn(Ctx *c, void *unused); // worker
void denial_writer(Worker *w);         // whom the next one wakes; NULL: nobody
void denial_reset(void);               // at start: nothing is counted
extern const CliVerb audit_verbs[];
extern const Resource audit_entry_resource, org_audit_entry_resource, system_audit_entry_resource,
    inference_audit_resource;
extern const Migration audit_migrations[];
#endif
