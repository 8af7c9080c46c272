// SPDX-License-Identifier: Apache-2.0
// deployment_own.h - private to deployment: the structs behind its rows, and what their hooks are.
// decide.h has the parts that decide, watch.h what is known between turns, reconcile_own.h the
// turn.
#ifndef LATHE_MOD_DEPLOYMENT_OWN_H
#define LATHE_MOD_DEPLOYMENT_OWN_H
#include "mod/deployment/deployment.h"
#include "mod/deployment/reason.h"
#include "res/app.h"
#include "res/worker.h"

enum { REPLICAS_MAX = 64, UNITS_MAX = 256, CONTEXT_DEFAULT = 4096 };

// What becomes of one replica. GONE is never stored.
typedef enum {
    AT_WAITING,  // has no process: for memory, a free place, or its back-off
    AT_STARTING, // told to start; loading
    AT_READY,
    AT_UNREADY,  // was ready; its last probe or a request could not reach it
    AT_HUNG,     // did not answer for too long: it is being killed, then waits
    AT_DRAINING, // gets nothing new; ends when its last request has
    AT_ENDING,   // told to end
    AT_GONE
} ReplicaState;
typedef enum {
    DEP_PENDING,
    DEP_STARTING,
    DEP_READY,
    DEP_UPDATING,
    DEP_DEGRADED,
    DEP_CRASH_LOOP,
    DEP_STOPPING,
    DEP_STOPPED,
    DEP_FAILED
} DeploymentState;
extern const char *const task_names[], *const replica_states[], *const deployment_states[];
typedef enum { CACHE_AUTO, CACHE_F16, CACHE_Q8 } CacheType;

// How an attached server is spoken to; what is not said is its dialect's (manner.c).
typedef struct Manner {
    int dialect, accent, auth;
    str api_version;
    int64_t output_default;
    bool past_reasoning;
} Manner;
typedef struct Endpoint {
    Manner manner; // first: its rows are the endpoint's own
    str url, api_key, upstream_model;
} Endpoint;
typedef struct ReplicaRow { // one of STATUS replicas_status
    str id;                 // "<deployment>.<generation>.<number>", also the executor's key
    int state;              // ReplicaState
    str reason;             // why it is not ready
    str address;            // "unix:…", "10.0.0.7:8000"
    int64_t generation, number, progress, pid, restarts, memory_bytes, memory_needed;
    int64_t started_at, ready_at, next_at, since; // since: in this state
    int64_t context, slots;
    int64_t failures, window_at, window_exits; // in a row; exits since window_at
    str host, base_path, sealed_key, node;     // attached: as they were when it was attached
    str serves, model, version, digest, upstream, engine; // as they were when it was started
    Manner manner;
    bool attached, refused, tls; // refused: it could not even be started
} ReplicaRow;
typedef struct Serving { // STATUS: what the wish comes to with this version of the model
    int task;
    str model, version, digest; // its name, its id, its content
    int64_t context, generation, size_bytes;
    bool cache_q8, pool_mean;
} Serving;
typedef struct Deployment {
    Head head;
    str model;
    int task, engine, cache;
    int64_t replicas, context, slots, threads, queue_max, queue_ms, drain_ms;
    Endpoint endpoint;
    bool stopped;
    int64_t restart_at;
    // STATUS
    int state;
    str serves, state_reason, node; // serves: "smol:2"
    int64_t rollout; // generation whose replicas should run: of the last change that needs new ones
    int64_t ready_replicas, memory_needed, memory_available;
    Serving serving;
    ReplicaRow *replicas_status;
    size_t replicas_status_n;
} Deployment;

// ---- rows
enum {
    SET_LLAMA_SERVER,
    SET_PROBE_EVERY,
    SET_PROBE_TIMEOUT,
    SET_HUNG_AFTER,
    SET_BACKOFF_FIRST,
    SET_BACKOFF_MAX,
    SET_MEMORY_RESERVE,
    SET_PRIVATE_ENDPOINTS,
    DEPLOYMENT_SETTINGS
};
extern const Setting deployment_settings[DEPLOYMENT_SETTINGS + 1];
extern const Resource deployment_resource;
extern const Route deployment_routes[];
extern const CliVerb deployment_verbs[];
extern const Metric *const deployment_metrics[];
extern const Metric metric_replicas, metric_restarts, metric_memory;
extern const Migration deployment_migrations[];
extern const size_t deployment_migrations_n;
err deployment_check(Ctx *c, Tx *tx, const void *old, void *now);
err deployment_start(Ctx *c, Tx *tx, void *row, const void *input, str *out_job);
err deployment_stop(Ctx *c, Tx *tx, void *row, const void *input, str *out_job);
err deployment_restart(Ctx *c, Tx *tx, void *row, const void *input, str *out_job);
err deployment_logs(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
void deployment_notify(void *app);
static inline const Engine *engine_of(const Deployment *d) {
    return &engines[d->engine < 0 ? 0 : d->engine];
}
// The name that its engine knows the model by.
static inline str upstream_of(const Deployment *d) {
    return d->endpoint.upstream_model.n ? d->endpoint.upstream_model : d->head.name;
}
// Where an attached server is: "http://host:8000/v1" in parts. ERR_INVALID with R_ENDPOINT_FORM.
typedef struct Url {
    str host_header, host, base_path;
    int port;
    bool tls; // https
} Url;
err endpoint_parse(Ctx *c, const Endpoint *e, Url *out);
// ---- manner.c
extern const Field manner_rows[];
extern const char *const dialect_names[], *const accent_names[], *const auth_names[];
err manner_check(Ctx *c, const Manner *m, int task); // task: -1 where it is not said
const Dialect *manner_dialect(const Manner *m);      // NULL: of a newer release
Accent manner_accent(const Manner *m);
str manner_base(Arena *mem, const Manner *m, str path);   // of the paths of its dialect
str manner_health(Arena *mem, const Manner *m, str base); // what is asked whether it is there
bool manner_may_lack_health(const Manner *m);             // 404 is then as good an answer
str manner_query(Arena *mem, const Manner *m);
// What it wants to hear with each request; key absent: it asks for none.
size_t manner_headers(Arena *mem, const Manner *m, str key, HttpHeader out[ENDPOINT_HEADERS]);
// The socket of a launched replica, as this node sees it; ERR_INVALID when the path is too long.
err replica_socket(Ctx *c, str replica_id, Addr *out);
str socket_dir(Ctx *c);

// For tests: a whole turn that began after the call; and no more turns.
err deployment_sync(Ctx *c);
void deployment_rest(void);

// ---- reconcile.c
enum { LOOK_MS = 1000 };
typedef struct Pace {
    bool again, busy; // something was set going: look at once; not all is as wished: look soon
    int64_t look_ms;  // at the latest
} Pace;
err reconcile(Ctx *c, Pace *out);
void reconcile_close(App *app);

#endif
