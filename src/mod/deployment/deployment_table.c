// SPDX-License-Identifier: Apache-2.0
// deployment_table.c - rows only: what a deployment is, what may be done to it, what an operator
// may
// set, what is measured. Behaviour is in deployment.c.
#include "mod/deployment/deployment_own.h"

// clang-format off
const char *const task_names[] = { "chat", "completion", "embedding", NULL };
const char *const replica_states[] = {
    "waiting", "starting", "ready", "unreachable", "hung", "draining", "stopping", NULL };
const char *const deployment_states[] = {
    "pending", "starting", "ready", "updating", "degraded", "crash_loop", "stopping", "stopped",
        "failed", NULL };
static const char *const engine_names[] = { "llama.cpp", "openai", NULL };       // as engines[]
static const char *const cache_names[] = { "auto", "f16", "q8_0", NULL };

#define MANNER_ROWS(flags) \
    ENUM(Manner, dialect, flags, dialect_names, \
        "What it speaks, openai.chat where nothing is said; completions and embeddings are " \
        "OpenAI's alone", "其接口类型，缺省为 openai.chat；文本补全与向量仅限 OpenAI 接口"), \
    ENUM(Manner, auth, flags, auth_names, \
        "Header in which it wants its key; absent: its dialect's. api-key is Azure's", \
        "携带密钥的请求头；缺省按接口类型；api-key 用于 Azure"), \
    TEXT(Manner, api_version, flags, 40, "Azure: the api-version that each request names", \
        "Azure：每个请求所带的 api-version"), \
    ENUM(Manner, accent, flags, accent_names, \
        "How it wants to hear about reasoning: plain is its dialect's own way; thinking.type " \
        "(DeepSeek, GLM, Kimi, Doubao), enable_thinking (Qwen), reasoning (OpenRouter) are of " \
        "openai.chat, adaptive is of anthropic", \
        "推理强度的表达方式：plain 为接口自身的方式；thinking.type（DeepSeek、GLM、Kimi、豆包）、" \
        "enable_thinking（Qwen）、reasoning（OpenRouter）用于 openai.chat，adaptive 用于 anthropic"), \
    BOOL(Manner, past_reasoning, flags, \
        "openai.chat: it wants the reasoning of earlier answers again, as reasoning_content", \
        "openai.chat：需要以 reasoning_content 回传此前的推理内容"), \
    INT(Manner, output_default, flags, 1, 10000000, \
        "Tokens of an answer where its dialect wants a limit (anthropic) and the client gives " \
        "none; absent: 4096, and never more than the context", \
        "接口要求限制输出（anthropic）而客户端未给出时的 token 数；缺省为 4096，且不超过上下文")
const Field manner_rows[] = { MANNER_ROWS(STATUS), { 0 } };
_Static_assert(offsetof(Endpoint, manner) == 0, "its rows are the endpoint's own");
static const Field endpoint_rows[] = {
    TEXT(Endpoint, url, 0, 1000, "Base address of the server: http://host:8000/v1, or https://, "
        "checked by the authorities of tls.ca; anthropic and ollama.chat: as their clients take "
        "it, https://api.anthropic.com or http://host:11434",
         "服务的基础地址，例如 http://host:8000/v1；https:// 按 tls.ca 校验；anthropic 与 ollama.chat "
         "可写其客户端所用的地址，例如 https://api.anthropic.com、http://host:11434"),
    ROW(Endpoint, api_key, T_SECRET, 0, "Key that it asks for", "访问密钥", .max = 4000),
    TEXT(Endpoint, upstream_model, 0, 500,
        "Name that it knows the model by; absent: the deployment's",
         "对端所用的模型名；缺省为部署名"),
    MANNER_ROWS(0), { 0 }
};
#define NUMBER(m, en, zh) INT(ReplicaRow, m, STATUS, 0, INT64_MAX, en, zh)
#define MOMENT(m, en, zh) ROW(ReplicaRow, m, T_TIME, STATUS, en, zh)
static const Field replica_rows[] = {
    TEXT(ReplicaRow, id, STATUS, 120, "Identifier: deployment, generation and number",
        "标识：部署、代次与序号"),
    ENUM(ReplicaRow, state, STATUS, replica_states, "What it is doing", "当前状态"),
    TEXT(ReplicaRow, reason, STATUS, 2000, "Why it is not ready", "未就绪的原因"),
    TEXT(ReplicaRow, address, STATUS, 200, "Where it listens", "监听地址"),
    NUMBER(generation, "Generation of the wish that it was started from", "启动时所依据的期望代次"),
    NUMBER(number, "Number within its generation, from 0", "在该代次中的序号，从 0 起"),
    NUMBER(progress, "Percent of its weights that are loaded", "权重加载进度（百分比）"),
    NUMBER(pid, "Process id", "进程号"),
    NUMBER(restarts, "Times it was started again", "重启次数"),
    NUMBER(memory_bytes, "Memory that it holds, to about a tenth", "占用内存（约一成精度）"),
    NUMBER(memory_needed, "Memory that was set aside for it", "为其预留的内存"),
    MOMENT(started_at, "Start of its process", "进程启动时间"),
    MOMENT(ready_at, "When it became ready", "就绪时间"),
    MOMENT(next_at, "When it is started again", "下次启动时间"),
    MOMENT(since, "When it came into this state", "进入该状态的时间"),
    NUMBER(context, "Tokens that one request may use", "单个请求可用的 token 数"),
    NUMBER(slots, "Requests at once", "并发请求数"),
    INT(ReplicaRow, failures, STATUS | HIDDEN, 0, INT64_MAX, "Failures in a row", "连续失败次数"),
    ROW(ReplicaRow, window_at, T_TIME, STATUS | HIDDEN, "Start of the count of exits", "退出计数的起始时间"),
    INT(ReplicaRow, window_exits, STATUS | HIDDEN, 0, INT64_MAX, "Exits since then", "此后的退出次数"),
    TEXT(ReplicaRow, host, STATUS | HIDDEN, 300, "Host header", "Host 请求头"),
    TEXT(ReplicaRow, base_path, STATUS | HIDDEN, 1000, "Prefix of its paths", "路径前缀"),
    TEXT(ReplicaRow, sealed_key, STATUS | HIDDEN, 20000, "Its key, sealed", "密封的密钥"),
    OBJECT(ReplicaRow, manner, STATUS | HIDDEN, manner_rows, "How it is spoken to", "接口方式"),
    BOOL(ReplicaRow, attached, STATUS | HIDDEN, "It is a server that was attached", "是否为外接服务"),
    BOOL(ReplicaRow, tls, STATUS | HIDDEN, "It is called over TLS", "是否通过 TLS 调用"),
    BOOL(ReplicaRow, refused, STATUS | HIDDEN, "It could not even be started", "是否根本无法启动"),
    TEXT(ReplicaRow, node, STATUS, 100, "Node that runs it", "所在节点"),
    TEXT(ReplicaRow, serves, STATUS, 300, "Model and version that it serves", "所服务的模型与版本"),
    TEXT(ReplicaRow, model, STATUS | HIDDEN, 300, "Model that it serves", "所服务的模型"),
    ROW(ReplicaRow, version, T_ID, STATUS | HIDDEN, "Version of the model", "模型版本标识"),
    TEXT(ReplicaRow, digest, STATUS | HIDDEN, 64, "SHA-256 of its content", "内容的 SHA-256"),
    TEXT(ReplicaRow, upstream, STATUS | HIDDEN, 500, "Name that it knows the model by", "对端所用的模型名"),
    TEXT(ReplicaRow, engine, STATUS | HIDDEN, 100, "What runs it", "推理引擎"),
    { 0 }
};
static const Field serving_rows[] = {
    ENUM(Serving, task, STATUS, task_names, "Task", "任务"),
    TEXT(Serving, model, STATUS, 300, "Model", "模型"),
    ROW(Serving, version, T_ID, STATUS, "Version of the model", "模型版本标识"),
    TEXT(Serving, digest, STATUS, 64, "SHA-256 of its content", "内容的 SHA-256"),
    INT(Serving, context, STATUS, 0, INT64_MAX, "Tokens that one request may use",
        "单个请求可用的 token 数"),
    INT(Serving, size_bytes, STATUS, 0, INT64_MAX, "Bytes of its content", "内容字节数"),
    INT(Serving, generation, STATUS, 0, INT64_MAX, "Generation of the wish that this comes from",
        "所依据的期望代次"),
    BOOL(Serving, cache_q8, STATUS, "Whether the KV cache is quantised to 8 bits",
        "KV 缓存是否量化为 8 位"),
    BOOL(Serving, pool_mean, STATUS, "Whether an embedding is the mean over all tokens",
        "向量是否取全部 token 的平均"),
    { 0 }
};

static const Field deployment_rows[] = {
    REF(Deployment, model, INDEXED, "model_version", REF_RESTRICT,
        "Version of a model: smol:2; smol alone is its newest ready version now",
        "模型版本，如 smol:2；只写 smol 表示当前最新的就绪版本"),
    ENUM(Deployment, task, 0, task_names, "What it answers; absent: what the model is for",
         "提供的任务；缺省按模型决定"),
    ENUM(Deployment, engine, INDEXED, engine_names, "What runs it", "推理引擎",
        .fallback = "llama.cpp"),
    INT(Deployment, replicas, COLUMN, 0, REPLICAS_MAX, "Processes that serve it side by side",
        "副本数", .fallback = "1"),
    INT(Deployment, context, 0, 64, 10000000,
        "Tokens that one request may use; absent: the model's, at most 4096",
        "单个请求可用的 token 数；缺省取模型上限，至多 4096"),
    INT(Deployment, slots, 0, 0, SLOTS_MAX,
        "Requests at once on one replica; one that is launched takes 1 to 256, for each has its "
        "own part of the context; 0, attached only: as many as come",
        "每个副本的并发请求数；由 Lathe 启动的副本为 1 到 256（各占一份上下文）；0 仅用于外接服务，表示不限",
        .fallback = "4"),
    INT(Deployment, threads, 0, 0, 1024, "Threads of one replica; 0: one for each processor",
        "每个副本的线程数；0 为每核一个", .fallback = "0"),
    ENUM(Deployment, cache, 0, cache_names,
        "Precision of the KV cache; auto: q8_0 where the model allows it",
         "KV 缓存精度；auto 表示在模型允许时用 q8_0", .fallback = "auto"),
    INT(Deployment, queue_max, 0, 0, 100000, "Requests that may wait for a free slot", "等待队列长度上限",
        .fallback = "100"),
    INT(Deployment, queue_ms, 0, 0, 3600000, "Longest wait for a slot, milliseconds", "排队的最长毫秒数",
        .fallback = "30000"),
    INT(Deployment, drain_ms, 0, 0, 86400000,
        "Longest wait for requests under way before a replica ends, milliseconds",
        "副本结束前等待在途请求的最长毫秒数", .fallback = "60000"),
    OBJECT(Deployment, endpoint, 0, endpoint_rows, "The server to attach to, with engine openai",
        "engine 为 openai 时外接的服务"),
    BOOL(Deployment, stopped, INDEXED, "Keeps no replica running", "停止：不保留任何运行中的副本"),
    ROW(Deployment, restart_at, T_TIME, 0, "Changing it replaces all replicas, one after the other",
        "修改该值会逐个替换全部副本"),
    TEXT(Deployment, serves, STATUS | COLUMN, 300, "Model and version that it serves",
        "所服务的模型与版本"),
    ENUM(Deployment, state, STATUS | INDEXED | COLUMN, deployment_states, "What it is doing",
        "当前状态"),
    TEXT(Deployment, state_reason, STATUS | COLUMN, 2000,
        "Why it is not ready, and what would fix it", "未就绪的原因与处理办法"),
    INT(Deployment, ready_replicas, STATUS | COLUMN, 0, INT64_MAX, "Replicas that answer", "就绪副本数"),
    INT(Deployment, rollout, STATUS, 0, INT64_MAX, "Generation whose replicas should run",
        "应运行的副本代次"),
    INT(Deployment, memory_needed, STATUS, 0, INT64_MAX,
        "Bytes that one replica needs (an estimate)", "单个副本所需字节数（估计）"),
    INT(Deployment, memory_available, STATUS, 0, INT64_MAX,
        "Bytes that were free for replicas when one last had to wait for memory",
        "最近一次因内存等待时可供副本使用的字节数"),
    OBJECT(Deployment, serving, STATUS, serving_rows, "What the wish comes to", "实际生效的配置"),
    TEXT(Deployment, node, STATUS, 100, "Node that looks after it", "负责的节点"),
    LIST(Deployment, replicas_status, ReplicaRow, STATUS, replica_rows, 0, UNITS_MAX,
        "Each replica", "各副本"),
    { 0 }
};

static const Action actions[] = {
    { "start", ACTION_SYNC, deployment_start, .en = "Run its replicas again", .zh = "启动" },
    { "stop", ACTION_SYNC, deployment_stop,
        .en = "Let requests under way finish, then end its replicas; the wish stays",
      .zh = "等待在途请求完成后停止全部副本；配置保留" },
    { "restart", ACTION_SYNC, deployment_restart,
        .en = "Replace its replicas, one after the other; no request is dropped",
      .zh = "逐个替换副本，不中断请求" },
    { 0 }
};
const Resource deployment_resource = {
    .name = "deployment", .plural = "deployments", .prefix = "dep", .scope = SCOPE_PROJECT,
    .flags = RES_RECONCILED | RES_IN_SNAPSHOT | RES_HISTORY, .size = sizeof(Deployment),
        .fields = deployment_rows,
    .actions = actions, .check = deployment_check, .notify = deployment_notify,
    .en = "A model made to answer under a name", .zh = "部署：以某个名称提供服务的模型",
};

// ---- logs
typedef struct LogQuery { str replica; int64_t offset, limit; } LogQuery;
typedef struct LogAnswer { str replica, text; int64_t from, next; } LogAnswer;
static const Field log_query[] = {
    TEXT(LogQuery, replica, 0, 120, "Identifier of the replica; absent: the newest",
        "副本标识；缺省为最新的副本"),
    INT(LogQuery, offset, 0, 0, INT64_MAX, "Byte to read from", "起始字节"),
    INT(LogQuery, limit, 0, 1, 1 << 20, "Most bytes", "最多字节数"),
    { 0 }
};
static const Field log_answer[] = {
    TEXT(LogAnswer, replica, STATUS, 120, "Identifier of the replica", "副本标识"),
    INT(LogAnswer, from, STATUS, 0, INT64_MAX, "Offset of the first byte", "首字节的偏移"),
    INT(LogAnswer, next, STATUS, 0, INT64_MAX, "Offset to read on from", "继续读取的偏移"),
    TEXT(LogAnswer, text, STATUS, 1 << 20, "What the engine wrote", "引擎输出"),
    { 0 }
};
const Route deployment_routes[] = {
    { HTTP_GET, "/lathe/v1/deployments/{id}/logs", 0, "deployments.read", deployment_logs,
        .query = log_query,
      .output = log_answer, .en = "What a replica's engine has written", .zh = "副本引擎的输出日志" },
    { 0 }
};

// ---- settings, metrics
const Setting deployment_settings[DEPLOYMENT_SETTINGS + 1] = {
    [SET_LLAMA_SERVER] = { "deployment.llama_server", SET_TEXT, "", 0, 1000, .live = true,
        .en = "Path of llama-server; empty: LATHE_LLAMA_SERVER, PATH, or what `make setup` built",
        .zh = "llama-server 的路径；空则依次查找 LATHE_LLAMA_SERVER、PATH 与 `make setup` 的构建结果" },
    [SET_PROBE_EVERY] = { "deployment.probe_every", SET_SPAN, "2s", 50, 600000, .live = true,
        .en = "How often a ready replica is probed", .zh = "就绪副本的探测间隔" },
    [SET_PROBE_TIMEOUT] = { "deployment.probe_timeout", SET_SPAN, "5s", 50, 600000, .live = true,
        .en = "A probe that takes longer has failed", .zh = "单次探测的超时" },
    [SET_HUNG_AFTER] = { "deployment.hung_after", SET_SPAN, "30s", 100, 86400000, .live = true,
        .en = "A replica that answers no probe for this long is started again",
        .zh = "副本无应答超过此时长即重启" },
    [SET_BACKOFF_FIRST] = { "deployment.backoff_first", SET_SPAN, "1s", 1, 3600000, .live = true,
        .en = "Wait before the first restart; it doubles each time", .zh = "首次重启前的等待；之后逐次加倍" },
    [SET_BACKOFF_MAX] = { "deployment.backoff_max", SET_SPAN, "5m", 1, 86400000, .live = true,
        .en = "Longest wait before a restart", .zh = "重启等待的上限" },
    [SET_MEMORY_RESERVE] = { "deployment.memory_reserve", SET_BYTES, "256MiB", 0, INT64_MAX,
        .live = true,
        .en = "Memory that replicas leave to everything else", .zh = "为其他程序保留、不分给副本的内存" },
    [SET_PRIVATE_ENDPOINTS] = { "deployment.allow_private_endpoints", SET_BOOL, "true",
        .live = true,
        .en = "Let attached engines live at addresses that are not public",
        .zh = "允许外接位于非公网地址的引擎" },
    { 0 }
};
const Metric metric_replicas = { "lathe.deployment.replicas", "", METRIC_GAUGE, { "state" }, NULL,
    "Replicas by state", "各状态的副本数" };
const Metric metric_restarts = { "lathe.deployment.restarts", "", METRIC_COUNTER,
    { "project", "deployment" }, NULL,
    "Replicas that ended or hung and are started again", "副本异常结束后重启的次数" };
const Metric metric_memory = { "lathe.deployment.memory", "By", METRIC_GAUGE, { "kind" }, NULL,
    "Memory of launched replicas: what they hold, and what was set aside", "副本内存：实际占用与预留" };
const Metric *const deployment_metrics[] = { &metric_replicas, &metric_restarts, &metric_memory,
        NULL };
// clang-format on
