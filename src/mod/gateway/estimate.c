// SPDX-License-Identifier: Apache-2.0
// estimate.c - what a request may use at most, and what it is taken to have used where its engine
// did not come to say so: a client that leaves, an engine that breaks off or never tells. The
// prompt is then what was reserved for it, so that nobody's budget lasts longer for cutting; the
// answer what came of it. Such rows are not `tokens_exact`.
// Threads: the exchange's loop.
#include "mod/gateway/flow.h"

enum { TEXT_PER_TOKEN = 4 }; // bytes, of what came: an event may hold many tokens

// Engines of our own have the context that we gave them; of an attached one it is somebody's word.
static bool context_holds(const DeploymentEntry *d) {
    bool ours = d->engine->launched;
    for (size_t i = 0; i < d->replicas_n; i++)
        ours &= !d->replicas[i].engine || d->replicas[i].engine->launched;
    return ours;
}

// A token is at least one byte of the body.
int64_t flow_prompt_most(const Flow *f, const DeploymentEntry *d) {
    int64_t prompt = f->in.size, most = d->context * f->in.prompts;
    return context_holds(d) && prompt > most ? most : prompt;
}

// What the client allows, else what the context leaves; of all choices that are made.
int64_t flow_output_most(const Flow *f, const DeploymentEntry *d) {
    int64_t output = f->in.output_max == UNSET_INT ? d->context : f->in.output_max;
    if (context_holds(d) && output > d->context) output = d->context;
    return f->operation == OP_EMBEDDING ? 0 : output * f->in.made;
}

// Its engine has the whole request, and did not refuse it.
static bool at_work(const Flow *f) {
    const Answer *a = &f->out;
    if (a->status == 200) return !a->cut || a->chunks || f->said_bytes;
    return !a->status && f->gone && f->taken;
}

void flow_estimate(Flow *f) {
    RequestRecord *r = &f->r;
    const Answer *a = &f->out;
    if (a->usage_seen) return;
    r->completion_tokens = a->tokens;
    // A prompt's count that comes as the answer goes comes with the answer's so far.
    if (!at_work(f) || (r->prompt_tokens && !a->prompt_told)) return;
    int64_t text = (f->said_bytes + TEXT_PER_TOKEN - 1) / TEXT_PER_TOKEN,
            most = flow_output_most(f, f->deployment);
    if (!a->prompt_told) r->prompt_tokens = flow_prompt_most(f, f->deployment);
    if (f->in.output_max != UNSET_INT && text > most) text = most;
    if (r->completion_tokens < text) r->completion_tokens = text;
}
