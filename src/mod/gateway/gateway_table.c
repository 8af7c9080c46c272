// SPDX-License-Identifier: Apache-2.0
// gateway_table.c - the rows: the stages in the order a request passes them, routes, settings,
// metrics.
#include "mod/gateway/chat.h"
#include "mod/gateway/explain.h"
#include "mod/gateway/flow.h"
#include "mod/gateway/stored.h"
#include "mod/gateway/gateway.h"
#include "mod/gateway/models.h"

// clang-format off
const FlowStage gateway_stages[] = {
    { "identify", stage_identify, NULL, false, "Whose key, which project, may it", "识别密钥、项目与权限" },
    { "parse", stage_parse, NULL, false, "Read and check the body", "读取并检查请求体" },
    { "recall", stage_recall, stage_recall_cancel, false,
        "What was said before, where it goes on from a kept answer", "读取所延续的已保存对话" },
    { "resolve", stage_resolve, NULL, false, "From the model's name to a deployment", "由模型名找到部署" },
    { "admit", stage_admit, NULL, false, "Limits; reserve what it may cost", "限额检查与费用预留" },
    { "pick", stage_pick, stage_pick_cancel, false, "A slot of a replica, after a fair queue",
        "经公平排队取得副本槽位" },
    { "attempt", stage_attempt, stage_attempt_cancel, false, "The engine's answer, streamed on",
        "请求引擎并转发应答" },
    { "settle", stage_settle, NULL, true, "What was used and what it cost", "结算用量与费用" },
    { "record", stage_record, NULL, true, "The wide record: trace and audit", "记录追踪与审计" },
    { "keep", stage_keep, stage_keep_cancel, true, "Keep the answer of /v1/responses",
        "保存 /v1/responses 的应答" },
    { "answer", stage_answer, NULL, true, "The end of the answer", "结束应答" },
    { 0 }
};

const Setting gateway_settings[GW_SETTINGS + 1] = {
    [GW_BODY_MAX] = { "gateway.body_max", SET_BYTES, "32MiB", 1024, 1LL << 30, .live = true,
        .en = "Largest request body", .zh = "请求体上限" },
    [GW_ANSWER_MAX] = { "gateway.answer_max", SET_BYTES, "64MiB", 1024, 1LL << 30, .live = true,
        .en = "Largest answer that is not streamed", .zh = "非流式应答上限" },
    [GW_CONNECT] = { "gateway.connect_timeout", SET_SPAN, "5s", 10, 3600000, .live = true,
        .en = "Longest wait for a connection to a replica", .zh = "连接副本的最长等待" },
    [GW_FIRST] = { "gateway.first_token_timeout", SET_SPAN, "10m", 100, 86400000, .live = true,
        .en = "Longest wait for the first byte of an answer", .zh = "首字节最长等待" },
    [GW_IDLE] = { "gateway.idle_timeout", SET_SPAN, "2m", 100, 86400000, .live = true,
        .en = "Longest pause within an answer", .zh = "应答中的最长停顿" },
    [GW_HEARTBEAT] = { "gateway.heartbeat", SET_SPAN, "15s", 0, 3600000, .live = true,
        .en = "A comment is sent in a silent stream after this; 0: never",
            .zh = "流静默多久后发送注释心跳；0 为不发送" },
    [GW_QUEUE_SAY] = { "gateway.queue_report", SET_SPAN, "1s", 10, 3600000, .live = true,
        .en = "How often a waiting stream is told its place", .zh = "排队中的流多久获知一次位置" },
    [GW_STALE] = { "gateway.stale_max", SET_SPAN, "15m", 0, 86400000, .live = true,
        .en = "How long requests are served from the last snapshot while the database is away; 0: "
            "for ever",
        .zh = "数据库不可用时，凭最近快照提供服务的最长时间；0 为不限" },
    [GW_BREAKER] = { "gateway.breaker_failures", SET_INT, "5", 0, 1000000, .live = true,
        .en = "Failures in a row after which a route asks its other targets first; 0: never",
        .zh = "连续失败多少次后路由优先请求其他目标；0 为从不" },
    [GW_BREAKER_OPEN] = { "gateway.breaker_open", SET_SPAN, "10s", 10, 300000, .live = true,
        .en = "How long at first; then one request finds out, and each failure doubles it, up to "
            "16 times",
        .zh = "首次避让的时长；之后放行一个请求试探，每次失败加倍，至多 16 倍" },
    { 0 }
};

const Metric gateway_waiting = { "lathe.gateway.queue.waiting", "", METRIC_GAUGE,
    { "deployment" }, NULL,
    "Requests that wait for a slot", "等待槽位的请求数" };
const Metric gateway_running = { "lathe.gateway.requests.running", "", METRIC_GAUGE,
    { "deployment" }, NULL,
    "Requests at an engine", "引擎处理中的请求数" };
const Metric *const gateway_metrics[] = { &gateway_waiting, &gateway_running, NULL };

static void chat(Exchange *x) { flow_start(x, OP_CHAT, "openai.chat"); }
static void completions(Exchange *x) { flow_start(x, OP_COMPLETION, NULL); }
static void embeddings(Exchange *x) { flow_start(x, OP_EMBEDDING, NULL); }
static void responses(Exchange *x) { flow_start(x, OP_CHAT, "openai.responses"); }
static void messages(Exchange *x) { flow_start(x, OP_CHAT, "anthropic"); }
static void ollama_chat(Exchange *x) { flow_start(x, OP_CHAT, "ollama.chat"); }
static void ollama_generate(Exchange *x) { flow_start(x, OP_CHAT, "ollama.generate"); }
static void refuse_anthropic(Ctx *c, Buf *out) { gateway_refuse(c, "anthropic", out); }
static void refuse_ollama(Ctx *c, Buf *out) { gateway_refuse(c, "ollama.chat", out); }

enum { STREAMS = ROUTE_STREAM | ROUTE_FOREIGN, BODY_MAX = 1 << 30 };
const Route gateway_routes[] = {
    { HTTP_GET, "/v1/models", STREAMS, "inference.use", .stream = gateway_models,
      .en = "Models that this project's keys may name", .zh = "本项目密钥可用的模型" },
    { HTTP_GET, "/v1/models/{model}", STREAMS, "inference.use", .stream = gateway_models,
      .en = "One model", .zh = "单个模型" },
    { HTTP_POST, "/v1/chat/completions", STREAMS, "inference.use", .stream = chat,
        .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Answer a conversation (OpenAI)", .zh = "对话补全（OpenAI）" },
    { HTTP_POST, "/v1/completions", STREAMS, "inference.use", .stream = completions,
        .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Complete a text (OpenAI)", .zh = "文本补全（OpenAI）" },
    { HTTP_POST, "/v1/embeddings", STREAMS, "inference.use", .stream = embeddings,
        .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Embed texts (OpenAI)", .zh = "文本向量（OpenAI）" },
    { HTTP_POST, "/v1/responses", STREAMS, "inference.use", .stream = responses,
        .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Answer a conversation, kept on request (OpenAI)", .zh = "对话应答，可保存（OpenAI）" },
    { HTTP_POST, "/v1/messages", STREAMS, "inference.use", .stream = messages,
        .refuse = refuse_anthropic, .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Answer a conversation (Anthropic)", .zh = "对话（Anthropic）" },
    { HTTP_POST, "/ollama/api/chat", STREAMS, "inference.use", .stream = ollama_chat,
        .refuse = refuse_ollama, .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Answer a conversation (Ollama)", .zh = "对话（Ollama）" },
    { HTTP_POST, "/ollama/api/generate", STREAMS, "inference.use", .stream = ollama_generate,
        .refuse = refuse_ollama, .body_max = BODY_MAX, .errors = "413 502 504 507",
      .en = "Answer a prompt (Ollama)", .zh = "文本生成（Ollama）" },
    { HTTP_GET, "/ollama/api/tags", STREAMS, "inference.use", .stream = gateway_tags,
        .refuse = refuse_ollama,
      .en = "Models that this project's keys may name (Ollama)", .zh = "本项目密钥可用的模型（Ollama）" },
    { HTTP_GET, "/ollama/api/ps", STREAMS, "inference.use", .stream = gateway_ps,
        .refuse = refuse_ollama,
      .en = "Of these the ones that answer now (Ollama)", .zh = "其中当前可应答的模型（Ollama）" },
    { HTTP_POST, "/ollama/api/show", STREAMS, "inference.use", .stream = gateway_show,
        .refuse = refuse_ollama, .body_max = 1 << 16, .errors = "413",
      .en = "One model (Ollama)", .zh = "单个模型（Ollama）" },
    { HTTP_GET, "/ollama/api/version", STREAMS | ROUTE_ANYONE, .stream = gateway_version,
        .refuse = refuse_ollama,
      .en = "Version of this program (Ollama)", .zh = "程序版本（Ollama）" },
    { HTTP_GET, EXPLAIN_PATH, 0, "routes.read", gateway_explain, .query = explain_query,
      .output = explain_output, .cli = "route explain",
      .en = "What would happen to a request for this model now, and why",
      .zh = "说明对该模型的请求此刻会如何处理及原因" },
    { 0 }
};
// clang-format on
