// SPDX-License-Identifier: Apache-2.0
// objects.c - see objects.h. Wants: digests that somebody asked for a local file of; a worker
// brings them one after the other, in order. Owner: wants are the heap's, until their file is there
// or nobody asked again for a while. Threads: `wants.lock` guards the list.
#include "res/objects.h"
#include "base/log.h"
#include "base/time.h"
#include "blob/store.h"
#include "res/scrub.h"
#include "res/worker.h"
#include <assert.h>
#include <pthread.h>

enum {
    CHECK_MS = 3000,
    FOLDERS = 256,
    WANTS_MAX = 64,
    LOOK_MS = 60000,
    FORGOTTEN_MS = 600000, // nobody asked for so long
    AGAIN_FIRST_MS = 1000,
    AGAIN_MAX_MS = 60000,
};
static const char *const stores[] = { "files", "s3", NULL };
static const char *const styles[] = { "auto", "path", "host", NULL }; // as S3Address
// clang-format off
const Setting blob_settings[BLOB_SETTINGS + 1] = {
    [BLOB_GRACE] = { "blob.grace", SET_SPAN, "1h", 0, INT64_MAX, .live = true,
        .en = "An object that nothing needs any more is removed after this; longer than backups "
              "are kept",
        .zh = "对象不再被使用后保留的时间；应长于备份的保留时间" },
    [BLOB_SCRUB_EVERY] = { "blob.scrub_every", SET_SPAN, "7d", 0, INT64_MAX, .live = true,
        .en = "All objects are read and compared with their digests this often; 0: only when asked",
        .zh = "校验全部对象的间隔；0 为仅手动" },
    [BLOB_SCRUB_RATE] = { "blob.scrub_rate", SET_BYTES, "32MiB", 1000, INT64_MAX, .live = true,
        .en = "Most that this reads in a second", .zh = "校验时每秒最多读取的字节数" },
    [BLOB_STORE] = { "blob.store", SET_ENUM, "files", .names = stores,
        .en = "Where new objects go: files of the data folder, or a bucket of S3; old ones are "
              "read from both until `lathe object move`",
        .zh = "新对象的存放位置：数据目录的文件，或 S3 存储桶；`lathe object move` 之前两处均可读取" },
    [BLOB_CACHE_MAX] = { "blob.cache_max", SET_BYTES, "50GiB", 0, INT64_MAX, .live = true,
        .en = "Most bytes of local copies of objects in S3, which engines map; the one used "
              "longest ago goes first",
        .zh = "供引擎映射的 S3 对象本地副本的最大总字节数；最久未用的先移除" },
    [S3_ENDPOINT] = { "blob.s3.endpoint", SET_TEXT, "", 0, 300,
        .en = "http:// or https:// address of the S3 service; empty: that of AWS for the region. "
              "Naming it allows it, also where it is a private address",
        .zh = "S3 服务地址（http:// 或 https://）；空则为该区域的 AWS。可为内网地址" },
    [S3_BUCKET] = { "blob.s3.bucket", SET_TEXT, "", 0, 63,
        .en = "The bucket; it must exist", .zh = "存储桶，须已存在" },
    [S3_PREFIX] = { "blob.s3.prefix", SET_TEXT, "lathe", 0, 200,
        .en = "What the keys of this installation begin with; no two installations may share it",
        .zh = "本系统对象键的前缀；不同系统不得共用" },
    [S3_REGION] = { "blob.s3.region", SET_TEXT, "us-east-1", 0, 64,
        .en = "Region of the bucket", .zh = "存储桶所在区域" },
    [S3_ACCESS_KEY] = { "blob.s3.access_key", SET_TEXT, "", 0, 200,
        .en = "Id of the access key; empty: AWS_ACCESS_KEY_ID of the environment",
        .zh = "访问密钥 ID；空则取环境变量 AWS_ACCESS_KEY_ID" },
    [S3_SECRET_KEY] = { "blob.s3.secret_key", SET_SECRET, "", 0, 300,
        .en = "Its secret; empty: blob.s3.secret_file, else AWS_SECRET_ACCESS_KEY of the "
              "environment",
        .zh = "其密钥；空则取 blob.s3.secret_file，再取环境变量 AWS_SECRET_ACCESS_KEY" },
    [S3_SECRET_FILE] = { "blob.s3.secret_file", SET_TEXT, "", 0, 1000,
        .en = "File that holds the secret and nothing else",
        .zh = "仅含密钥的文件" },
    [S3_SESSION_TOKEN] = { "blob.s3.session_token", SET_SECRET, "", 0, 4000,
        .en = "Token of temporary keys; empty: AWS_SESSION_TOKEN when the secret is from the "
              "environment too",
        .zh = "临时密钥的令牌；空则（密钥也取自环境变量时）取 AWS_SESSION_TOKEN" },
    [S3_ADDRESS_STYLE] = { "blob.s3.address", SET_ENUM, "auto", .names = styles,
        .en = "Where requests name the bucket: path, host (bucket.endpoint), or auto: host at AWS, "
              "else path",
        .zh = "请求中存储桶的位置：path 路径、host 主机名（bucket.endpoint）、auto（AWS 用 host，其余 path）" },
    [S3_CA_FILE] = { "blob.s3.ca", SET_TEXT, "", 0, 1000,
        .en = "PEM file of the authorities that its certificate is checked by; empty: the system's",
        .zh = "校验其证书所用 CA 的 PEM 文件；空则使用系统的" },
    [S3_PATIENCE] = { "blob.s3.patience", SET_SPAN, "30s", 0, 3600000,
        .en = "A call that S3 cannot answer just now is tried again for so long",
        .zh = "S3 暂时无法应答时重试的时长" },
    [S3_PARALLEL] = { "blob.s3.parallel", SET_INT, "4", 1, 16,
        .en = "Parts of 8 MiB of one object that are sent or fetched at once",
        .zh = "单个对象同时传输的分片数（每片 8 MiB）" },
    { 0 }
};
const Metric metric_cache = { "lathe.blob.cache", "By", METRIC_GAUGE, { NULL }, NULL,
    "Local copies of objects in S3", "S3 对象本地副本的字节数" };
const Metric metric_fetched = { "lathe.blob.fetch.io", "By", METRIC_COUNTER, { NULL }, NULL,
    "Bytes brought from S3 for local copies", "为本地副本从 S3 获取的字节数" };
// clang-format on

static int64_t number(int row) { return setting_int(&blob_settings[row]); }
static str text(int row) { return setting_text(&blob_settings[row]); }

// ---- the store that the settings name

static err read_keys(Ctx *c, S3Config *k) {
    const char *id = os_env(c->os, "AWS_ACCESS_KEY_ID"),
               *secret = os_env(c->os, "AWS_SECRET_ACCESS_KEY"),
               *token = os_env(c->os, "AWS_SESSION_TOKEN");
    k->access_key = text(S3_ACCESS_KEY), k->secret_key = text(S3_SECRET_KEY);
    k->token = text(S3_SESSION_TOKEN);
    if (!k->secret_key.n && text(S3_SECRET_FILE).n) {
        TRY(file_read_all(c, text(S3_SECRET_FILE), 1000, &k->secret_key));
        k->secret_key = str_trim(k->secret_key);
    }
    if (k->secret_key.n || k->access_key.n) return ERR_OK;
    k->access_key = str_z(id), k->secret_key = str_z(secret);
    if (!k->token.n) k->token = str_z(token);
    return ERR_OK;
}

static err read_config(Ctx *c, S3Config *k) {
    *k = (S3Config){ .endpoint = text(S3_ENDPOINT),
                     .bucket = text(S3_BUCKET),
                     .prefix = text(S3_PREFIX),
                     .region = text(S3_REGION),
                     .ca = text(S3_CA_FILE),
                     .address = (S3Address)number(S3_ADDRESS_STYLE),
                     .patience_ms = number(S3_PATIENCE),
                     .parallel = (int)number(S3_PARALLEL) };
    return read_keys(c, k);
}

static err open_store(Ctx *c, str dir, Blobs **out) {
    bool home = number(BLOB_STORE) == 1;
    S3Config config;
    TRY(blobs_open(c, dir, out));
    if (!home && !text(S3_BUCKET).n) return ERR_OK;
    err e = read_config(c, &config);
    if (!e) e = blobs_use_s3(c, *out, &config, home);
    if (!e) {
        blobs_cache_max(*out, number(BLOB_CACHE_MAX));
        return ERR_OK;
    }
    blobs_close(*out);
    *out = NULL;
    return e;
}

static const char *why_text(Ctx *c) {
    Buf b;
    buf_init(&b, 2000);
    failure_format(&c->failure, "en", &b);
    const char *why = arena_z(c->mem, buf_str(&b));
    buf_done(&b);
    return why;
}

err objects_open(Ctx *c, str dir, Blobs **out) {
    TRY(open_store(c, dir, out));
    if (!blobs_remote(*out)) return ERR_OK;
    err e = blobs_s3_check(c, *out, CHECK_MS);
    const Reason *why = c->failure.why;
    if (!e) return ERR_OK;
    if (why != &R_S3_FAR && why != &R_S3_BUSY) {
        blobs_close(*out);
        *out = NULL;
        return e;
    }
    log_at("blob", LOG_WARN, c, "S3 does not answer: what needs objects waits for it", "why",
           why_text(c));
    return ERR_OK;
}

err objects_check(Ctx *c, bool *out_named) {
    S3Config config;
    *out_named = number(BLOB_STORE) == 1 || text(S3_BUCKET).n;
    if (!*out_named) return ERR_OK;
    TRY(read_config(c, &config));
    config.patience_ms = CHECK_MS;
    return s3_probe(c, &config);
}

// ---- local files

typedef struct Want {
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t done, total, asked_ns, next_ns, again_ms;
    str why; // the heap's; absent: under way or waiting for its turn
} Want;
static struct {
    pthread_mutex_t lock;
    Want at[WANTS_MAX];
    size_t n;
    Worker *worker;
    App *app;
} wants = { .lock = PTHREAD_MUTEX_INITIALIZER };

static Want *want_find(str hex) {
    for (size_t i = 0; i < wants.n; i++)
        if (str_is(hex, wants.at[i].hex)) return &wants.at[i];
    return NULL;
}

static void want_why(Want *w, str why) {
    mem_free((char *)(uintptr_t)w->why.p);
    w->why = why.n ? str_z(mem_strdup(why)) : (str){ 0 };
}

static void want_drop(Want *w) {
    want_why(w, (str){ 0 });
    memmove(w, w + 1, (size_t)(&wants.at[--wants.n] - w) * sizeof *w);
}

static Want want_note(Ctx *c, str hex) {
    Want seen = { 0 };
    pthread_mutex_lock(&wants.lock);
    Want *w = want_find(hex);
    if (!w && wants.n < WANTS_MAX) {
        w = &wants.at[wants.n++];
        *w = (Want){ .again_ms = AGAIN_FIRST_MS };
        memcpy(w->hex, hex.p, BLOB_DIGEST_HEX);
    }
    if (w) w->asked_ns = os_mono_ns(c->os), seen = *w;
    if (seen.why.n) seen.why = arena_str(c->mem, seen.why);
    pthread_mutex_unlock(&wants.lock);
    return seen;
}

err object_local(Ctx *c, str digest, str *out_path) {
    Blobs *b = wants.app ? wants.app->blobs : app_of(c)->blobs;
    err e = blob_local(c, b, digest, out_path);
    if (e != ERR_NOTFOUND || !blobs_remote(b)) return e;
    Want w = want_note(c, digest);
    worker_wake(wants.worker);
    str total = w.total ? bytes_format(c->mem, w.total) : S("?");
    const char *why = w.why.n ? say(c, "; it is tried again: " STR_FMT, STR_ARG(w.why)) : "";
    return fail(c, ERR_UNAVAILABLE, R_OBJECT_COMING, "done",
                say_str(c, bytes_format(c->mem, w.done)), "total", say_str(c, total), "why", why);
}

static void want_progress(void *arg, int64_t done, int64_t total) {
    pthread_mutex_lock(&wants.lock);
    Want *w = want_find(str_z(arg));
    int64_t before = w ? w->done : done;
    if (w) w->done = done, w->total = total;
    pthread_mutex_unlock(&wants.lock);
    if (done > before) metric_add(&metric_fetched, (double)(done - before));
}

// The one that is due and was asked for first; those that nobody asks for any more go.
static bool want_next(Ctx *c, char hex[BLOB_DIGEST_HEX + 1], int64_t *out_wait_ms) {
    int64_t now_ns = os_mono_ns(c->os);
    bool any = false;
    *out_wait_ms = LOOK_MS;
    pthread_mutex_lock(&wants.lock);
    for (size_t i = 0; i < wants.n && !any;) {
        Want *w = &wants.at[i];
        int64_t left_ms = (w->next_ns - now_ns) / 1000000 + 1;
        if (now_ns - w->asked_ns > (int64_t)FORGOTTEN_MS * 1000000) {
            want_drop(w);
            continue;
        }
        if (w->next_ns <= now_ns) {
            memcpy(hex, w->hex, sizeof w->hex);
            w->done = 0;
            any = true;
        } else if (left_ms < *out_wait_ms) *out_wait_ms = left_ms;
        i++;
    }
    pthread_mutex_unlock(&wants.lock);
    return any;
}

static void want_ended(Ctx *c, str hex, err e) {
    pthread_mutex_lock(&wants.lock);
    Want *w = want_find(hex);
    if (w && !e) want_drop(w);
    else if (w) {
        w->next_ns = os_mono_ns(c->os) + w->again_ms * 1000000;
        w->again_ms = w->again_ms * 2 < AGAIN_MAX_MS ? w->again_ms * 2 : AGAIN_MAX_MS;
        w->done = 0;
        want_why(w, str_z(why_text(c)));
    }
    pthread_mutex_unlock(&wants.lock);
}

static err turn(Ctx *c, void *arg) {
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t wait_ms;
    (void)arg;
    blobs_cache_max(wants.app->blobs, number(BLOB_CACHE_MAX));
    while (want_next(c, hex, &wait_ms)) {
        BlobProgress progress = { want_progress, hex };
        str path;
        err e = blob_fetch(c, wants.app->blobs, str_z(hex), &progress, &path);
        if (e == ERR_CANCELLED) return e;
        if (e)
            log_at("blob", LOG_WARN, c, "an object could not be brought from S3", "object", hex,
                   "why", why_text(c));
        want_ended(c, str_z(hex), e);
        metric_set(&metric_cache, (double)blobs_cache_bytes(wants.app->blobs));
        arena_reset(c->mem);
    }
    worker_pace(wait_ms);
    return ERR_OK;
}

err objects_start(Ctx *c) {
    App *app = app_of(c);
    wants.app = app;
    if (blobs_remote(app->blobs)) wants.worker = worker_start(app, "objects", LOOK_MS, turn, NULL);
    return ERR_OK;
}

void objects_stop(void) {
    worker_free(wants.worker);
    wants.worker = NULL;
    while (wants.n) want_drop(&wants.at[0]);
    wants.app = NULL;
}

// ---- moving all to the store that is chosen

typedef struct Move {
    Ctx *c;
    Job *job;
    int64_t folder, moved, bytes, failed; // the checkpoint
} Move;

static err move_save(Move *m) {
    str s = arena_printf(
        m->c->mem, "{\"folder\":%lld,\"moved\":%lld,\"bytes\":%lld,\"failed\":%lld}",
        (long long)m->folder, (long long)m->moved, (long long)m->bytes, (long long)m->failed);
    return job_save(m->c, m->job, s);
}

// What is damaged stays for the scrub, what was just removed is gone; all else stops the job.
static err move_one(Move *m, str hex) {
    Ctx *c = m->c;
    Blobs *b = app_of(c)->blobs;
    int64_t size = 0;
    bool moved;
    err e = blob_find(c, b, hex, &size);
    if (!e) e = blob_move(c, b, hex, NULL, &moved);
    if (e == ERR_NOTFOUND) return ERR_OK;
    if (e == ERR_INTERNAL && c->failure.why == &R_BLOB_ROTTEN) {
        job_say(m->job, "object " STR_FMT " is damaged and stays: see `lathe scrub start`",
                STR_ARG(hex));
        m->failed++;
        return ERR_OK;
    }
    if (!e && moved) m->moved++, m->bytes += size;
    return e;
}

static err move_run(Ctx *c, Job *j) {
    Move m = { .c = c, .job = j };
    yyjson_val *v;
    c->app = wants.app, c->who = &identity_system;
    if (job_checkpoint(j).n) {
        TRY(json_parse(c, job_checkpoint(j), &v));
        json_get_i64(v, "folder", &m.folder), json_get_i64(v, "moved", &m.moved);
        json_get_i64(v, "bytes", &m.bytes), json_get_i64(v, "failed", &m.failed);
    }
    for (; m.folder < FOLDERS; m.folder++) {
        ArenaMark mark = arena_mark(c->mem);
        str *names, prefix = arena_printf(c->mem, "%02x", (unsigned)m.folder);
        size_t n;
        TRY(blob_list(c, wants.app->blobs, prefix, &names, &n));
        for (size_t i = 0; i < n; i++) TRY(move_one(&m, names[i]));
        if (n) TRY(move_save(&m));
        job_progress(j, m.folder + 1, FOLDERS, "folders");
        arena_restore(c->mem, mark);
        TRY(ctx_check(c));
    }
    job_say(j, "%lld objects of %lld bytes moved to %s, %lld damaged", (long long)m.moved,
            (long long)m.bytes, stores[number(BLOB_STORE)], (long long)m.failed);
    job_result(j, arena_printf(c->mem, "{\"moved\":%lld,\"bytes\":%lld,\"damaged\":%lld}",
                               (long long)m.moved, (long long)m.bytes, (long long)m.failed));
    return ERR_OK;
}

const JobKind objects_move_kind = {
    .name = "blob.move",
    .run = move_run,
    .attempts_max = 100, // each restart of the server is one
    .parallel_max = 1,
    .en = "Move all objects to the store that blob.store names",
    .zh = "将全部对象移至 blob.store 指定的存储",
};

typedef struct Ask {
    str project, job;
} Ask;
static err ask_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(move_under_way, "SELECT id FROM job WHERE kind = 'blob.move' AND state IN "
                               "('waiting', 'running') ORDER BY id LIMIT 1");
    Ask *a = arg;
    Rows *rows;
    bool more;
    TRY(db_query(c, tx, &move_under_way, NULL, 0, &rows));
    TRY(rows_next(c, rows, &more));
    a->job = more ? arena_str(c->mem, col_str(rows, 0)) : (str){ 0 };
    rows_close(rows);
    if (more) return ERR_OK;
    JobSpec spec = { .kind = objects_move_kind.name,
                     .project = a->project,
                     .payload = S("{}"),
                     .created_by = c->who ? c->who->id : (str){ 0 } };
    TRY(job_add(c, tx, &spec, &a->job));
    tx_notify(tx, jobs_wake, app_of(c)->jobs);
    AuditEntry entry = { "create",          "object_move", a->job,      { 0 },
                         S("objects.move"), S("{}"),       SCOPE_SYSTEM };
    App *app = app_of(c);
    return app->audit ? app->audit(c, tx, &entry) : ERR_OK;
}

// clang-format off
const Field objects_move_output[] = {
    ROW(Ask, job, T_ID, STATUS, "Its job", "作业"),
    { 0 }
};
// clang-format on

err objects_move_serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Ask a = { .project = c->project };
    (void)r, (void)body;
    TRY(db_tx(c, c->db, ask_tx, &a));
    out->status = 202;
    Json j = json_to(&out->body);
    json_obj(&j), json_kv_str(&j, "job", a.job), json_end_obj(&j);
    return ERR_OK;
}
