// SPDX-License-Identifier: Apache-2.0
// serve_tls.c - TLS of the running server. A worker reads new files when it is asked to and looks
// at the date of the certificate: a pair that does not do changes nothing and is told in the log
// and as an event; one that ends soon is told once a day. Owner and threads: see serve_tls.h.
#include "res/serve_tls.h"
#include "base/log.h"
#include "base/time.h"
#include "res/worker.h"
#include <assert.h>

enum { LOOK_MS = 3600 * 1000 };
static const int64_t day_ms = 24 * 3600 * 1000, warn_ms = 21 * 24 * 3600 * 1000LL;

static struct {
    TlsServer *server; // NULL: no tls.listen
    TlsClient *client;
    Worker *worker;
    atomic_bool wanted;
    int64_t warned_ms;
} tls;

static const char *const versions[] = { "1.2", "1.3", NULL };             // as TlsVersion
static const char *const asks[] = { "none", "request", "require", NULL }; // as TlsAsk
// clang-format off
const Setting tls_settings[TLS_SETTINGS + 1] = {
    [TLS_LISTEN] = { "tls.listen", SET_TEXT, "", 0, 100,
        .en = "Address to listen on with TLS, HOST:PORT, beside serve.listen; empty: none",
            .zh = "TLS 监听地址（HOST:PORT），与 serve.listen 并存；空为不监听" },
    [TLS_CERT_FILE] = { "tls.cert", SET_TEXT, "", 0, 1000, .live = true,
        .en = "PEM file of the certificate, then its intermediates; read again on SIGHUP",
            .zh = "证书 PEM 文件（其后为中间证书）；SIGHUP 时重新读取" },
    [TLS_KEY_FILE] = { "tls.key", SET_TEXT, "", 0, 1000, .live = true,
        .en = "PEM file of its key: without passphrase, mode 0600; read again on SIGHUP",
            .zh = "私钥 PEM 文件：无口令、权限 0600；SIGHUP 时重新读取" },
    [TLS_LEAST] = { "tls.min_version", SET_ENUM, "1.2", .names = versions, .live = true,
        .en = "Oldest version of TLS that is spoken", .zh = "允许的最低 TLS 版本" },
    [TLS_CLIENT_CA] = { "tls.client_ca", SET_TEXT, "", 0, 1000, .live = true,
        .en = "PEM file of the authorities whose client certificates are good",
            .zh = "签发客户端证书的 CA 的 PEM 文件" },
    [TLS_CLIENT_CERT] = { "tls.client_cert", SET_ENUM, "none", .names = asks, .live = true,
        .en = "Client certificates: none, request (one that is shown must be good), require",
            .zh = "客户端证书：none 不要求，request 出示则须有效，require 必须出示" },
    [TLS_OUT_CA] = { "tls.ca", SET_TEXT, "", 0, 1000,
        .en = "PEM file of the authorities that servers called over https are checked by; "
              "empty: the system's",
            .zh = "校验外呼 https 服务器所用 CA 的 PEM 文件；空则使用系统的" },
    { 0 }
};
static const Metric
greetings = { "lathe.tls.handshakes", "{handshake}", METRIC_COUNTER, { "outcome" }, NULL,
    "TLS handshakes with clients: full, resumed, failed, or dropped as too many at once",
    "与客户端的 TLS 握手：完整、恢复、失败、因同时过多而放弃" },
greetings_now = { "lathe.tls.handshakes.active", "{handshake}", METRIC_GAUGE, { 0 }, NULL,
    "TLS handshakes under way", "进行中的 TLS 握手数" },
certificate_end = { "lathe.tls.certificate.expiry", "s", METRIC_GAUGE, { 0 }, NULL,
    "When the server's certificate ends, Unix time", "服务器证书到期时间（Unix 秒）" },
reloads = { "lathe.tls.reloads", "{reload}", METRIC_COUNTER, { "outcome" }, NULL,
    "Readings of the certificate's files after the start", "启动后重新读取证书文件的次数" };
static const Metric *const tls_metrics[] = { &greetings, &greetings_now, &certificate_end,
    &reloads, NULL };
static const EventKind
reloaded = { "tls.reloaded", "New connections get another certificate", "新连接改用另一证书" },
refused = { "tls.refused", "New files were not taken: the old certificate stays",
    "新证书文件未被采用：沿用原证书" },
expires = { "tls.expires", "The server's certificate ends soon", "服务器证书即将到期" };
static const EventKind *const tls_events[] = { &reloaded, &refused, &expires, NULL };
// clang-format on

static str row(int which) { return setting_text(&tls_settings[which]); }

TlsIdentity serve_tls_identity(void) {
    return (TlsIdentity){ .cert = row(TLS_CERT_FILE),
                          .key = row(TLS_KEY_FILE),
                          .client_ca = row(TLS_CLIENT_CA),
                          .ask = (TlsAsk)setting_int(&tls_settings[TLS_CLIENT_CERT]),
                          .least = (TlsVersion)setting_int(&tls_settings[TLS_LEAST]) };
}

// ---- what is told

typedef struct Told {
    const EventKind *kind;
    str data;
} Told;

static err tell_tx(Ctx *c, Tx *tx, void *arg) {
    const Told *t = arg;
    return event_stage(c, tx, t->kind->name, (str){ 0 }, (str){ 0 }, app_of(c)->node, t->data);
}

static err tell(Ctx *c, const EventKind *kind, const char *why) {
    char to[TIME_TEXT];
    TlsFacts f = tls_server_facts(tls.server);
    Buf b;
    buf_init(&b, EVENT_DATA_MAX);
    Json j = json_to(&b);
    json_obj(&j), json_kv_str(&j, "node", app_of(c)->node);
    json_kv_z(&j, "fingerprint", f.fingerprint), json_kv_str(&j, "ends", time_format(f.to_ms, to));
    if (why) json_kv_z(&j, "why", why);
    json_end_obj(&j);
    Told t = { kind, arena_str(c->mem, buf_str(&b)) };
    buf_done(&b);
    return db_tx(c, c->db, tell_tx, &t);
}

static err reload(Ctx *c) {
    TlsIdentity id = serve_tls_identity();
    err e = tls_server_reload(c, tls.server, &id);
    metric_add(&reloads, 1, e ? S("refused") : S("taken"));
    if (!e) {
        TlsFacts f = tls_server_facts(tls.server);
        log_at("tls", LOG_INFO, c, "new connections get the certificate that was read", "cert",
               say_str(c, id.cert), "sha256", f.fingerprint);
        tls.warned_ms = 0;
        return tell(c, &reloaded, NULL);
    }
    Buf b;
    buf_init(&b, 4096);
    failure_format(&c->failure, "en", &b);
    log_at("tls", LOG_ERROR, c, "the certificate's files were not taken, the old one stays", "why",
           buf_z(&b));
    const char *why = say_str(c, buf_str(&b));
    buf_done(&b);
    return tell(c, &refused, why);
}

static err warn(Ctx *c) {
    char to[TIME_TEXT];
    int64_t now = os_wall_ms(c->os), ends = tls_server_facts(tls.server).to_ms;
    if (ends - now > warn_ms || (tls.warned_ms && now - tls.warned_ms < day_ms)) return ERR_OK;
    tls.warned_ms = now;
    log_at("tls", LOG_WARN, c,
           ends < now ? "the certificate has ended" : "the certificate ends soon", "cert",
           say_str(c, row(TLS_CERT_FILE)), "at", time_format(ends, to).p);
    return tell(c, &expires, NULL);
}

static err turn(Ctx *c, void *arg) {
    (void)arg;
    if (atomic_exchange(&tls.wanted, false)) TRY(reload(c));
    return warn(c);
}

static void collect(void *arg) {
    App *app = arg;
    if (!tls.server) return;
    TlsFacts f = tls_server_facts(tls.server);
    ServerCounts n = app->server ? server_counts(app->server) : (ServerCounts){ 0 };
    metric_total(&greetings, (double)f.full, S("full"));
    metric_total(&greetings, (double)f.resumed, S("resumed"));
    metric_total(&greetings, (double)f.failed, S("failed"));
    metric_total(&greetings, (double)n.greetings_dropped, S("dropped"));
    metric_set(&greetings_now, (double)n.greetings);
    metric_set(&certificate_end, (double)(f.to_ms / 1000));
}

// ---- start to end

static err start(Ctx *c) {
    App *app = app_of(c);
    assert(!tls.server && !tls.client);
    TRY(tls_client_new(c, row(TLS_OUT_CA), TLS_1_2, &tls.client));
    app->tls = tls.client;
    if (!row(TLS_LISTEN).n) return ERR_OK;
    TlsIdentity id = serve_tls_identity();
    TRY(tls_server_new(c, &id, &tls.server));
    metric_collector(collect, app);
    tls.worker = worker_start(app, "tls", LOOK_MS, turn, NULL);
    return ERR_OK;
}

static void stop(void *app) {
    (void)app;
    worker_free(tls.worker);
    tls.worker = NULL;
}

err serve_tls_listen(Ctx *c, bool *out_on, Addr *out_addr) {
    Addr addr;
    *out_on = tls.server;
    if (!tls.server) return ERR_OK;
    TRY(addr_parse(c, row(TLS_LISTEN), &addr));
    return server_listen_tls(c, app_of(c)->server, &addr, tls.server, out_addr);
}

void serve_tls_reload(void) {
    atomic_store(&tls.wanted, true);
    worker_wake(tls.worker);
}

void serve_tls_free(void) {
    tls_server_free(tls.server);
    tls_client_free(tls.client);
    tls.server = NULL, tls.client = NULL;
    tls.warned_ms = 0;
}

const Module tls_module = {
    .name = "tls",
    .needs = "",
    .settings = tls_settings,
    .metrics = tls_metrics,
    .events = tls_events,
    .start = start,
    .stop = stop,
    .en = "TLS of the server and of its calls out",
    .zh = "服务器及其外呼的 TLS",
};
