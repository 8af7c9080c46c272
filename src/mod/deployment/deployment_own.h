// SPDX-License-Identifier: Apache-2.0
// deployment_own.h - private to deployment: its rows' structs, and the parts that decide. plan.c and
// replica.c are pure: what is wished and what is seen go in, what is to be done comes out.
// reconcile.c sees and does.
#ifndef LATHE_MOD_DEPLOYMENT_OWN_H
#define LATHE_MOD_DEPLOYMENT_OWN_H
#include "mod/deployment/deployment.h"
#include "mod/model/model.h"
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

typedef struct Endpoint {
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
} ReplicaRow;
typedef struct Serving { // STATUS: what the wish comes to with this version of the model
    int task;
    str model, version, digest; // "smol:2", its id, its content
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
    str state_reason, node;
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
// Where an attached server is: "http://host:8000/v1" in parts. ERR_INVALID with R_ENDPOINT_FORM.
typedef struct Url {
    str host_header, host, base_path;
    int port;
} Url;
err endpoint_parse(Ctx *c, str url, Url *out);
// The socket of a launched replica, as this node sees it; ERR_INVALID when the path is too long.
err replica_socket(Ctx *c, str replica_id, Addr *out);
str socket_dir(Ctx *c);

// ---- replica.c: one replica
typedef enum { PROBE_NONE, PROBE_LOADING, PROBE_READY, PROBE_FAILED, PROBE_BROKEN } ProbeState;
typedef struct Look { // what is seen of it now
    bool launched, there, ended;
    str end_reason; // with the last lines of its log
    int64_t pid, memory_bytes, started_ms;
    ProbeState probe;
    str probe_text, address;
    int64_t silent_ms, in_flight, model_bytes;
} Look;
typedef struct Policy {
    int64_t backoff_first_ms, backoff_max_ms, window_ms, window_exits, hung_ms, healthy_ms,
        quiet_ms, drain_ms;
} Policy;
Policy policy_now(const Deployment *d);
void replica_step(Arena *mem, ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms);
void replica_exit(Arena *mem, ReplicaRow *r, str reason, const Policy *p, int64_t now_ms);
void replica_to(ReplicaRow *r, ReplicaState state, int64_t now_ms);
bool replica_loops(const ReplicaRow *r, const Policy *p); // it crashes again and again
bool replica_may_end(const ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms);
int64_t backoff_ms(const Policy *p, int64_t failures);

// ---- plan.c: all replicas of a deployment
typedef struct Unit {
    int64_t generation, number;
    ReplicaState state;
    bool due;     // WAITING: its back-off is over
    bool may_end; // DRAINING: nothing is in flight, or its time is over
} Unit;
typedef struct Wish {
    int64_t generation, replicas; // 0 replicas: stop
    int64_t room;                 // how many more the memory allows now
    bool frees;                   // ending one old replica would make room for a new one
} Wish;
typedef enum { DO_START, DO_DRAIN, DO_UNDRAIN, DO_END, DO_DROP } Do;
typedef struct Step {
    Do what;
    size_t unit; // index; DO_START of a new one: PLAN_NEW and its number
    int64_t number;
} Step;
#define PLAN_NEW SIZE_MAX
enum { STEPS_MAX = UNITS_MAX + REPLICAS_MAX };
int64_t plan_limit(int64_t replicas); // live ones at most, those that drain included
size_t plan(const Wish *w, const Unit *units, size_t n, Step steps[STEPS_MAX]);

// ---- admit.c: memory
typedef struct Memory {
    int64_t total, available; // of the machine or its cgroup; 0: unknown
    int64_t held, promised;   // of our replicas: all they need; what starting ones have yet to take
} Memory;
int64_t memory_needed(const VersionInfo *v, const Serving *s, int64_t slots);
int64_t memory_free(const Memory *m, int64_t reserve); // never negative; INT64_MAX when unknown
void memory_add(Memory *m, const ReplicaRow *r);
int64_t memory_room(int64_t free_bytes, int64_t needed, int64_t most);
void serving_of(Ctx *c, const Deployment *d, const VersionInfo *v, Serving *out);

// ---- probe.c: is it there. Any thread; the calls run on loops[0].
typedef struct ProbeSpec {
    str id, host, resolve, base_path, authorization; // resolve: a name to look up, absent: addr
    Addr addr;
    int port;
    const Engine *engine;
    Task task;
    bool trusted; // it has answered a trial request before: health is enough
} ProbeSpec;
typedef struct ProbeView {
    ProbeState state;
    str text, address;
    int64_t silent_ms;
} ProbeView;
void probes_open(App *app, void (*changed)(void));
void probes_close(void);                 // when no loop runs
void probe_start(const ProbeSpec *spec); // nothing when there is one of that id
void probe_view(Arena *mem, str id, ProbeView *out);
void probe_poke(str id);
void probes_keep(bool (*wanted)(void *arg, str id), void *arg); // stops the others

// ---- flight.c: requests in flight
int64_t flight_count(str replica_id, bool watch); // watch: idle() when it falls to zero
void flight_watch(void (*idle)(void));
void flight_forget(str replica_id);
void flight_close(void);

// ---- view.c: what people see of it
void view_update(Ctx *c, Deployment *d, const Policy *p, str blocked);
// ---- reconcile.c
err reconcile(Ctx *c, bool *out_again); // again: something was set going, look at once
void reconcile_close(App *app);

// clang-format off
#define DEPLOYMENT_REASONS(X)                                                                     \
    X(MODEL_REQUIRED, "model_required", "{field} is required with engine {engine}",               \
      "使用引擎 {engine} 时必须提供 {field}")                                                     \
    X(ENDPOINT_REQUIRED, "endpoint_required", "{field} is required with engine {engine}",         \
      "使用引擎 {engine} 时必须提供 {field}")                                                     \
    X(ENDPOINT_UNUSED, "endpoint_unused", "{field} is for engines that are attached, not for {engine}", \
      "{field} 仅用于外接引擎，不适用于 {engine}")                                                \
    X(ENDPOINT_FORM, "bad_endpoint", "{field} must be http://HOST[:PORT][/BASE], {why}",          \
      "{field} 应为 http://主机[:端口][/前缀]：{why}")                                            \
    X(CONTEXT_LARGE, "context_too_large",                                                         \
      "{field} is {got} tokens, {model} was trained for {limit}",                                 \
      "{field} 为 {got} 词元，而 {model} 的训练上下文为 {limit}")                                 \
    X(TASK_UNFIT, "task_unfit", "{field} {task} does not fit {model}, which is an embedding model", \
      "{model} 是向量模型，不支持任务 {task}（{field}）")                                         \
    X(ENGINE_ABSENT, "engine_absent",                                                             \
      "no llama-server was found: run `make setup`, or set deployment.llama_server to its path",  \
      "未找到 llama-server：请运行 `make setup`，或在 deployment.llama_server 中设置其路径")      \
    X(SOCKET_LONG, "socket_path_too_long",                                                        \
      "the data folder's path is too long for a unix socket: {path} has more than {limit} bytes", \
      "数据目录路径过长，无法创建 Unix 套接字：{path} 超过 {limit} 字节")                         \
    X(REPLICA_UNKNOWN, "unknown_replica", "{deployment} has no replica {replica}; it has: {known}", \
      "{deployment} 没有副本 {replica}；现有：{known}")
// clang-format on
REASONS_DECLARE(DEPLOYMENT_REASONS)
extern const Reason *const deployment_reasons[];
#endif
