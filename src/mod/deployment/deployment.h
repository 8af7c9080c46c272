// SPDX-License-Identifier: Apache-2.0
// deployment.h - a model made to answer: desired state, a reconciler, replicas as supervised
// children or attached servers. The gateway reads endpoints from the snapshot and takes slots
// through the functions below.
// Owner: what the snapshot gives lives as long as that snapshot. Threads: loops, unless said
// otherwise.
#ifndef LATHE_MOD_DEPLOYMENT_H
#define LATHE_MOD_DEPLOYMENT_H
#include "mod/dialect/dialect.h"
#include "net/client.h"
#include "res/module.h"
#include "res/snapshot.h"

// Requests at once on a replica: a server such as vLLM takes thousands; without a limit it is
// SLOTS_ANY.
enum { SLOTS_MAX = 100000, SLOTS_ANY = 1 << 30, SLOTS_LAUNCHED_MAX = 256 };
// A chat deployment also answers completions.
typedef enum { TASK_CHAT, TASK_COMPLETION, TASK_EMBEDDING } Task;

typedef struct LaunchSpec {
    str model_path, socket, alias;
    int64_t context, slots, threads; // context: tokens of one slot; threads 0: one a processor
    Task task;
    bool cache_q8;  // keys and values in q8_0 with flash attention, else f16
    bool pool_mean; // embedding with a model whose file names no pooling
    str extra;
} LaunchSpec;
// One row per inference engine: how to launch, probe and speak to it, and what it supports.
// engines[] ends with a zero name.
typedef struct Engine {
    const char *name; // "llama.cpp", "openai"
    bool launched;    // false: attached by URL and secret
    err (*argv)(Ctx *c, const LaunchSpec *spec, const char *const **out); // launched only
    const char *health_path;   // launched only: 200 is ready, 503 is loading
    const char *tokenize_path; // NULL: cannot count
    bool streams_usage, takes_json_schema, takes_tools, embeds;
    const char *en, *zh;
} Engine;
extern const Engine engines[];
const Engine *engine_find(str name); // NULL: there is none

// One endpoint as the request path knows it. Attached: Host header, "/v1" prefix, "?api-version=…"
// behind its paths, the headers that its key and its dialect ask for; launched ones have none.
enum { ENDPOINT_HEADERS = 2 };
typedef struct Replica {
    str id, host, base_path, query;
    HttpHeader headers[ENDPOINT_HEADERS];
    size_t headers_n;
    const Dialect *dialect; // of conversations; with what its kind says otherwise
    Accent accent;
    str model, version, model_digest, upstream_model; // as it was started; absent: as the entry's
    const Engine *engine;                             // NULL: the entry's
    str node; // another node that runs it, whose socket is out of reach; absent: in reach
    Addr addr;
    bool ready, draining, tls; // tls: called with the program's trust (app->tls)
} Replica;
typedef struct DeploymentEntry {
    str id, name, org, project, model, version, model_digest;
    str upstream_model; // the name the engine knows
    const Engine *engine;
    const Dialect *dialect; // as wished; a replica may still have another
    Task task;
    int64_t context, slots;      // tokens one request may use; requests at once on one replica
    int64_t queue_max, queue_ms; // how many may wait, and for how long
    const Replica *replicas;
    size_t replicas_n;
    str state, state_reason; // "ready" or why not, for 503s
} DeploymentEntry;
extern const SnapshotPart deployment_part;
// By the name that clients use, in this project; NULL when there is none.
const DeploymentEntry *deployment_find(const Snapshot *s, str project, str name);
// Any project; NULL when there is none.
const DeploymentEntry *deployment_by_id(const Snapshot *s, str id);
// The node that runs it, when no replica is in reach of this one; absent: one is, or none is yet.
str deployment_elsewhere(const DeploymentEntry *d);
// In order of name.
size_t deployment_list(const Snapshot *s, str project, const DeploymentEntry *const **out);
// A request could not reach it: look now, not at the next probe; until then it gets nothing new.
void deployment_failed(str replica_id);
// Requests in flight on a replica, for draining: the reconciler ends a draining replica when this
// is zero (or at its drain timeout). Any thread.
void replica_begin(str replica_id);
void replica_end(str replica_id);
extern const Module deployment_module;
#endif
