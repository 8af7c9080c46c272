// SPDX-License-Identifier: Apache-2.0
// kit.c - the heart's own rows: settings of the server, health, metrics, OpenAPI, the schema that
// the console draws from.
#include "base/log.h"
#include "net/proxies.h"
#include "net/reason.h"
#include "os/accept.h"
#include "res/kit.h"
#include "res/event_relay.h"
#include "res/metric_own.h"
#include "res/openapi.h"
#include "res/retain.h"
#include "res/schema.h"
#include "res/table.h"

static const char *const log_formats[] = { "auto", "json", "text", NULL };

// clang-format off
const Setting kit_settings[KIT_SETTINGS + 1] = {
    [KIT_DATA] = { "serve.data", SET_TEXT, "lathe-data", 1, 1000, .flag = "data",
        .en = "Folder of everything this server keeps", .zh = "服务器数据目录" },
    [KIT_LISTEN] = { "serve.listen", SET_TEXT, "127.0.0.1:8642", 3, 100, .flag = "listen",
        .en = "Address to listen on without TLS, HOST:PORT; none: only tls.listen or the socket",
            .zh = "不加密的监听地址（HOST:PORT）；none 为仅用 tls.listen 或套接字" },
    [KIT_SOCKET] = { "serve.socket", SET_TEXT, "", 0, 100,
        .en = "A unix socket to listen on as well; empty: none", .zh = "另外监听的 Unix 套接字；空为不监听" },
    [KIT_PROXIES] = { "serve.trusted_proxies", SET_TEXT, "", 0, 2000,
        .accepts = proxies_form, .form = "addresses and networks such as 10.0.0.0/8,::1,unix",
        .en = "Proxies before this server, whose X-Forwarded-For says who a client is: addresses, "
            "networks, or unix for the socket; empty: none",
        .zh = "可信的前置代理（地址、网段，或以 unix 表示套接字），以其 X-Forwarded-For 识别客户端；空为无" },
    [KIT_LOOPS] = { "serve.loops", SET_INT, "0", 0, APP_LOOPS_MAX,
        .en = "Event-loop threads; 0: one for each processor, at most 4",
            .zh = "事件循环线程数；0 为每核一个，至多 4 个" },
    [KIT_WORKERS] = { "serve.workers", SET_INT, "8", 1, 256,
        .en = "Threads for blocking handlers", .zh = "阻塞处理线程数" },
    [KIT_JOB_WORKERS] = { "job.workers", SET_INT, "4", 1, 256,
        .en = "Jobs that run at once on this node", .zh = "本节点同时运行的作业数" },
    [KIT_DRAIN] = { "serve.drain", SET_SPAN, "30s", 0, 3600000, .live = true,
        .en = "Longest wait for answers under way at shutdown", .zh = "停机时等待应答完成的最长时间" },
    [KIT_MEMORY] = { "serve.memory", SET_BYTES, "256MiB", 1 << 20, INT64_MAX,
        .en = "Bodies and answers in flight; over it requests get 503",
            .zh = "在途请求与应答的内存上限；超出时返回 503" },
    [KIT_CONNECTIONS] = { "serve.connections", SET_INT, "10000", 1, 1000000,
        .en = "Most connections", .zh = "最大连接数" },
    [KIT_HEAD_TIMEOUT] = { "serve.head_timeout", SET_SPAN, "10s", 100, 3600000,
        .en = "A request's head must be here within this", .zh = "接收请求头的时限" },
    [KIT_IDLE_TIMEOUT] = { "serve.idle_timeout", SET_SPAN, "75s", 100, 3600000,
        .en = "An idle connection is closed after this", .zh = "空闲连接的关闭时限" },
    [KIT_BODY_TIMEOUT] = { "serve.body_timeout", SET_SPAN, "30s", 100, 3600000,
        .en = "Longest pause while a body comes in", .zh = "接收请求体的最长停顿" },
    [KIT_WRITE_TIMEOUT] = { "serve.write_timeout", SET_SPAN, "30s", 100, 3600000,
        .en = "Longest pause of a client that takes an answer", .zh = "客户端接收应答的最长停顿" },
    [KIT_NODE] = { "serve.node", SET_TEXT, "", 0, 60,
        .en = "Name of this node; empty: made once and kept in the data folder",
            .zh = "节点名；空则自动生成并保存" },
    [KIT_DB] = { "db.url", SET_SECRET, "", 0, 2000, // it may hold a password
        .en = "postgres://… ; empty: SQLite in the data folder",
            .zh = "postgres://…；空则使用数据目录中的 SQLite" },
    [KIT_DB_READERS] = { "db.connections", SET_INT, "4", 1, 100,
        .en = "Database connections besides the writer", .zh = "数据库连接数（写连接除外）" },
    [KIT_DB_SNAPSHOTS] = { "db.snapshots", SET_INT, "2", 0, 1000,
        .en = "Copies of SQLite's database from before an upgrade changed its schema, kept in the "
            "data folder's snapshots/; 0: none is taken",
        .zh = "升级更改模式之前的 SQLite 数据库副本保留数（数据目录的 snapshots/）；0 为不保留" },
    [KIT_LOG_LEVEL] = { "log.level", SET_TEXT, "info", 1, 500, .live = true, .flag = "log",
        .accepts = log_levels_good,
        .form = "debug, info, warn, error or off, also per module: info,net=debug",
        .en = "debug, info, warn, error or off; per module: info,net=debug",
            .zh = "日志级别；可按模块：info,net=debug" },
    [KIT_LOG_FORMAT] = { "log.format", SET_ENUM, "auto", .names = log_formats,
        .en = "json, text, or auto: text on a terminal", .zh = "json、text 或 auto（终端上为文本）" },
    [KIT_KEEP_JOBS] = { "retain.jobs", SET_SPAN, "30d", 0, INT64_MAX, .live = true,
        .en = "Ended jobs and their logs", .zh = "已结束作业及其日志的保留时间" },
    [KIT_KEEP_ANSWERS] = { "retain.idempotency", SET_SPAN, "24h", 0, INT64_MAX, .live = true,
        .en = "Answers remembered by Idempotency-Key", .zh = "按幂等键记住的应答的保留时间" },
    { 0 }
};

static const double http_buckets[] = { .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5,
    10, 30, 60, 0 };
const Metric metric_http_duration = { "http.server.request.duration", "s", METRIC_HISTOGRAM,
    { "http.request.method", "http.route", "http.response.status_code" }, http_buckets,
    "Duration of HTTP requests", "HTTP 请求耗时" };
// clang-format on

// Who asks has a connection; others may wait for one.
static void write_state(const char *status, Buf *out) {
    AcceptState s;
    accept_state(&s);
    Json j = json_to(out);
    json_obj(&j), json_kv_z(&j, "status", status);
    if (s.paused) json_kv_bool(&j, "accepting", false), json_kv_z(&j, "why", strerror(s.error));
    json_end_obj(&j);
}

static err serve_health(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)c, (void)r, (void)body;
    write_state("ok", &out->body);
    return ERR_OK;
}

static err ready_read(Ctx *c, Tx *tx, void *arg) {
    static SQL(ready_one, "SELECT 1");
    (void)arg;
    Rows *rows;
    return db_one(c, tx, &rows, &ready_one, NULL, 0);
}

static err serve_ready(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)r, (void)body;
    if (atomic_load(&app_of(c)->draining))
        return fail(c, ERR_UNAVAILABLE, R_SERVER_BUSY, "what", "this server is stopping");
    TRY(db_read(c, c->db, ready_read, NULL));
    write_state("ready", &out->body);
    return ERR_OK;
}

static err serve_metrics(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)c, (void)r, (void)body;
    out->type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write(&out->body);
    return ERR_OK;
}

static err serve_openapi(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)r, (void)body;
    buf_add(&out->body, openapi_text(app_of(c)->modules));
    return ERR_OK;
}

static err serve_schema(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)r, (void)body;
    Json j = json_to(&out->body);
    schema_write(app_of(c)->modules, &j);
    return ERR_OK;
}

static err serve_settings(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)r, (void)body;
    SettingView *views;
    size_t n;
    TRY(settings_view(c, &views, &n));
    Json j = json_to(&out->body);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    for (size_t i = 0; i < n; i++) {
        json_obj(&j);
        json_kv_z(&j, "name", views[i].row->name), json_kv_str(&j, "value", views[i].value);
        json_kv_str(&j, "source", views[i].source), json_kv_bool(&j, "live", views[i].row->live);
        if (views[i].waiting.p) json_kv_str(&j, "after_restart", views[i].waiting);
        json_kv_z(&j, "doc", strcmp(c->lang, "zh") ? views[i].row->en : views[i].row->zh);
        json_end_obj(&j);
    }
    json_end_arr(&j), json_end_obj(&j);
    return ERR_OK;
}

// clang-format off
static const Route kit_routes[] = {
    { HTTP_GET, "/healthz", ROUTE_PUBLIC, .serve = serve_health,
      .en = "The process answers", .zh = "进程可应答" },
    { HTTP_GET, "/readyz", ROUTE_PUBLIC, .serve = serve_ready,
      .en = "Requests can be served: the database answers and no shutdown is under way",
          .zh = "可处理请求：数据库可用且未在停机" },
    { HTTP_GET, "/metrics", ROUTE_SYSTEM, "metrics.read", serve_metrics, .cli = "metrics",
        .output_type = "text/plain; version=0.0.4; charset=utf-8",
      .en = "Metrics in Prometheus text format", .zh = "Prometheus 文本格式的指标" },
    { HTTP_GET, "/openapi.json", ROUTE_PUBLIC, .serve = serve_openapi,
      .en = "This API as OpenAPI 3.1", .zh = "本接口的 OpenAPI 3.1 描述" },
    { HTTP_GET, "/lathe/v1/schema", ROUTE_ANYONE, .serve = serve_schema,
      .en = "The rows behind this API: what the console draws from", .zh = "接口背后的表行：控制台据此绘制" },
    { HTTP_GET, "/lathe/v1/settings", ROUTE_SYSTEM, "settings.read", serve_settings,
        .cli = "setting list",
      .en = "Settings with value, source and documentation", .zh = "各设置项的值、来源与说明" },
    { HTTP_GET, "/lathe/v1/retentions", ROUTE_SYSTEM, "retentions.read", retain_serve,
        .cli = "retention list",
      .en = "What is kept for how long, how much there is, and what goes with the next run",
      .zh = "各类数据的保留时间、现有数量及下次清理的内容" },
    { 0 }
};
static const EventKind job_changed = { "job.changed",
    "A job started, ended, waits or was asked to cancel", "作业状态变化" };
static const EventKind *const kit_events[] = { &job_changed, NULL };
// clang-format on

static err tell_job(Ctx *c, Tx *tx, const JobView *v, void *arg) {
    (void)arg;
    metric_job(c, tx, v);
    Buf b;
    buf_init(&b, 16384);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_str(&j, "kind", v->kind), json_kv_z(&j, "state", job_state_name(v->state)),
        json_kv_str(&j, "subject", v->subject);
    json_end_obj(&j);
    err e = event_stage(c, tx, job_changed.name, v->org, v->project, v->id, buf_str(&b));
    buf_done(&b);
    return e;
}

static err kit_init(Ctx *c) {
    App *app = app_of(c);
    metric_collector(metric_own_collect, app);
    jobs_on_change(app->jobs, tell_job, app);
    return ERR_OK;
}

const Module kit_module = {
    .name = "kit",
    .needs = "",
    .routes = kit_routes,
    .settings = kit_settings,
    .metrics = own_metrics,
    .events = kit_events,
    .migrations = res_migrations,
    .migrations_n = 2,
    .reasons = res_reasons,
    .verbs = kit_verbs,
    .retentions = kit_retentions,
    .init = kit_init,
    .en = "The server itself: health, settings, metrics, events, jobs",
    .zh = "服务器自身：健康、设置、指标、事件、作业",
};
const Module job_module = {
    .name = "job", .needs = "", .routes = job_routes, .en = "Long work", .zh = "长任务"
};
const Module event_module = {
    .name = "event",
    .needs = "",
    .routes = event_routes,
    .settings = event_settings,
    .metrics = event_metrics,
    .reasons = event_reasons,
    .en = "What happens, live",
    .zh = "实时事件",
};
REASONS_DEFINE(RES_REASONS, res_reasons)
