// SPDX-License-Identifier: Apache-2.0
// audit.h - who changed what, who was refused, and one record for each inference: rows in hash
// chains with signed checkpoints. It fills App.audit and App.audit_denied; the record of inferences
// is written by whoever folds the journal. Threads: workers.
#ifndef LATHE_MOD_AUDIT_H
#define LATHE_MOD_AUDIT_H
#include "res/module.h"

// One inference, as the chain keeps it. Digests, not content.
typedef struct InferenceAudit {
    str org, project, request_id, key_id, owner, model, version, model_digest, deployment,
        prompt_digest, answer_digest, client_ip;
    str operation, outcome, error_reason;
    int64_t at_ms, status, prompt_tokens, completion_tokens;
} InferenceAudit;
// Adds them to their projects' chains, in their order; each chain is taken up once.
err audit_inferences(Ctx *c, Tx *tx, const InferenceAudit *a, size_t n);
// Proves every chain, as GET /lathe/v1/audit/verify says it: {"ok", "faults": [{"chain", …}], …}.
err audit_report(Ctx *c, str *out_json);
extern const Module audit_module;
#endif
