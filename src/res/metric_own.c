// SPDX-License-Identifier: Apache-2.0
// metric_own.c - what the server tells of itself and its machine at /metrics: process, host, disk
// of the data folder, jobs, journal, database, pool. Read when asked for, in one collector; only
// how long jobs took is counted as they end. Names: process_* as Prometheus clients have them, the
// machine's as OpenTelemetry's system conventions. Threads: any.
#include "res/metric_own.h"
#include "os/accept.h"
#include "res/kit.h"

// clang-format off
static const double job_buckets[] = { .1, .5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 0 };
static const Metric
process_cpu = { "process.cpu", "s", METRIC_COUNTER, { 0 }, NULL,
    "Processor time of this process, user and kernel", "本进程的 CPU 时间（用户态与内核态）" },
process_memory = { "process.resident_memory", "By", METRIC_GAUGE, { 0 }, NULL,
    "Resident memory of this process", "本进程的常驻内存" },
process_virtual = { "process.virtual_memory", "By", METRIC_GAUGE, { 0 }, NULL,
    "Mapped memory of this process", "本进程映射的内存" },
process_fds = { "process.open_fds", "", METRIC_GAUGE, { 0 }, NULL,
    "Open files and sockets", "打开的文件与套接字数" },
process_fds_max = { "process.max_fds", "", METRIC_GAUGE, { 0 }, NULL,
    "Most open files and sockets", "可打开的文件与套接字上限" },
process_threads = { "process.threads", "", METRIC_GAUGE, { 0 }, NULL,
    "Threads of this process", "本进程的线程数" },
process_since = { "process.start_time", "s", METRIC_GAUGE, { 0 }, NULL,
    "When this process started, Unix time", "进程启动时间（Unix 秒）" },
host_cpu = { "system.cpu.time", "s", METRIC_COUNTER, { "cpu.mode" }, NULL,
    "Processor time of the machine since its start, all processors", "主机启动以来的 CPU 时间（全部处理器）" },
host_cpus = { "process.cpus", "", METRIC_GAUGE, { 0 }, NULL,
    "Processors that this process may use", "本进程可用的处理器数" },
host_memory = { "system.memory.limit", "By", METRIC_GAUGE, { 0 }, NULL,
    "Memory of the machine or of its cgroup, the smaller", "主机或其 cgroup 的内存（取较小者）" },
host_available = { "system.memory.available", "By", METRIC_GAUGE, { 0 }, NULL,
    "Memory that is available without swapping", "无需换页即可使用的内存" },
disk = { "system.filesystem.limit", "By", METRIC_GAUGE, { "system.filesystem.mountpoint" }, NULL,
    "Size of the file system that holds the data folder", "数据目录所在文件系统的大小" },
disk_used = { "system.filesystem.usage", "By", METRIC_GAUGE,
    { "system.filesystem.mountpoint", "system.filesystem.state" }, NULL,
    "The file system that holds the data folder: free to this process, and used",
    "数据目录所在文件系统：可用与已用空间" },
connections = { "lathe.http.connections", "", METRIC_GAUGE, { 0 }, NULL,
    "Open client connections", "打开的客户端连接数" },
refused = { "lathe.http.connections.refused", "", METRIC_COUNTER, { 0 }, NULL,
    "Connections over serve.connections: told so, or closed at once",
    "超出 serve.connections 的连接数：已告知或直接关闭" },
accept_pauses = { "lathe.http.accept.pauses", "{pause}", METRIC_COUNTER, { 0 }, NULL,
    "Times that no connection could be accepted: descriptors or memory ran out",
    "因描述符或内存耗尽而暂停接受连接的次数" },
accept_paused = { "lathe.http.accept.paused", "", METRIC_GAUGE, { 0 }, NULL,
    "1: no connection can be accepted now", "1：目前无法接受连接" },
requests = { "http.server.active_requests", "{request}", METRIC_GAUGE, { 0 }, NULL,
    "Requests under way", "进行中的请求数" },
in_flight = { "lathe.http.in_flight", "By", METRIC_GAUGE, { 0 }, NULL,
    "Memory of bodies and answers in flight", "在途请求与应答占用的内存" },
pool_tasks = { "lathe.pool.tasks", "", METRIC_GAUGE, { "state" }, NULL,
    "Blocking handlers that run or wait for a thread", "运行中或等待线程的阻塞处理" },
jobs = { "lathe.jobs", "", METRIC_GAUGE, { "kind", "state" }, NULL,
    "Jobs that have not ended, of all nodes", "未结束的作业数（全部节点）" },
jobs_waiting = { "lathe.jobs.waiting", "", METRIC_GAUGE, { "reason" }, NULL,
    "Jobs that wait, by reason", "等待中的作业数（按原因）" },
job_duration = { "lathe.job.duration", "s", METRIC_HISTOGRAM, { "kind", "state" }, job_buckets,
    "How long a job took from its start to its end, with waits between attempts",
    "作业从开始到结束的耗时（含重试等待）" },
journal_size = { "lathe.journal.size", "By", METRIC_GAUGE, { 0 }, NULL,
    "Journal bytes on disk", "磁盘上的日志字节数" },
journal_reserved = { "lathe.journal.reserved", "By", METRIC_GAUGE, { 0 }, NULL,
    "Room promised to requests under way", "为进行中的请求预留的空间" },
journal_records = { "lathe.journal.records", "{record}", METRIC_COUNTER, { 0 }, NULL,
    "Records appended", "已追加的记录数" },
journal_writes = { "lathe.journal.writes", "{write}", METRIC_COUNTER, { 0 }, NULL,
    "Writes to the journal; one holds many records", "日志写入次数；一次可含多条记录" },
journal_syncs = { "lathe.journal.syncs", "{sync}", METRIC_COUNTER, { 0 }, NULL,
    "Syncs of the journal to disk", "日志落盘次数" },
journal_errors = { "lathe.journal.errors", "{error}", METRIC_COUNTER, { "operation" }, NULL,
    "Writes and syncs of the journal that failed", "日志写入与落盘失败次数" },
journal_full = { "lathe.journal.full", "", METRIC_GAUGE, { 0 }, NULL,
    "1: the disk is full and new work is refused", "1：磁盘已满，拒绝新任务" },
db_transactions = { "lathe.db.transactions", "{transaction}", METRIC_COUNTER, { 0 }, NULL,
    "Write transactions", "写事务数" },
db_commits = { "lathe.db.commits", "{commit}", METRIC_COUNTER, { 0 }, NULL,
    "Commits; fewer than transactions where one commits a group", "提交次数；成组提交时少于事务数" },
db_retries = { "lathe.db.retries", "{retry}", METRIC_COUNTER, { 0 }, NULL,
    "Transactions that were run again", "重新执行的事务数" },
db_reads = { "lathe.db.reads", "{read}", METRIC_COUNTER, { 0 }, NULL,
    "Read snapshots", "读快照数" },
db_wait = { "lathe.db.wait", "s", METRIC_COUNTER, { 0 }, NULL,
    "Time spent waiting for the writer or a connection", "等待写线程或连接的时间" };

const Metric *const own_metrics[] = {
    &metric_http_duration, &process_cpu, &process_memory, &process_virtual, &process_fds,
    &process_fds_max, &process_threads, &process_since, &host_cpu, &host_cpus, &host_memory,
    &host_available, &disk, &disk_used, &connections, &refused, &accept_pauses, &accept_paused,
    &requests, &in_flight, &pool_tasks,
    &jobs, &jobs_waiting, &job_duration, &journal_size, &journal_reserved, &journal_records,
    &journal_writes, &journal_syncs, &journal_errors, &journal_full, &db_transactions, &db_commits,
    &db_retries, &db_reads, &db_wait, NULL
};
static const char *const cpu_modes[OS_CPU__COUNT] = {
    [OS_CPU_USER] = "user", [OS_CPU_NICE] = "nice", [OS_CPU_SYSTEM] = "system",
    [OS_CPU_IDLE] = "idle", [OS_CPU_IOWAIT] = "iowait", [OS_CPU_INTERRUPT] = "interrupt",
    [OS_CPU_STEAL] = "steal",
};
// clang-format on

// ---- process and machine

static void set_process(const OsUsage *u, const OsFacts *f) {
    metric_total(&process_cpu, (double)u->cpu_us / 1e6);
    metric_set(&process_memory, (double)u->memory_bytes);
    metric_set(&process_virtual, (double)u->virtual_bytes);
    metric_set(&process_fds, (double)u->open_files);
    metric_set(&process_fds_max, (double)f->open_files_max);
    metric_set(&process_threads, (double)u->threads);
    metric_set(&process_since, (double)u->started_ms / 1000);
}

static void set_machine(Ctx *c, const OsUsage *u, const OsFacts *f) {
    str folder = app_of(c)->data_dir;
    int64_t size = 0, left = 0;
    for (size_t i = 0; i < OS_CPU__COUNT; i++)
        metric_total(&host_cpu, (double)u->host_cpu_ms[i] / 1000, str_z(cpu_modes[i]));
    metric_set(&host_cpus, f->cpus);
    metric_set(&host_memory, (double)f->memory_bytes);
    metric_set(&host_available, (double)f->memory_available_bytes);
    if (disk_size(c, folder, &size) || disk_free(c, folder, &left)) return;
    metric_set(&disk, (double)size, folder);
    metric_set(&disk_used, (double)left, folder, S("free"));
    metric_set(&disk_used, (double)(size > left ? size - left : 0), folder, S("used"));
}

// ---- the server's parts

static void set_server(const App *app) {
    AcceptState accept;
    accept_state(&accept);
    metric_total(&accept_pauses, (double)accept.pauses);
    metric_set(&accept_paused, accept.paused);
    if (app->server) {
        ServerCounts n = server_counts(app->server);
        metric_set(&connections, (double)n.connections);
        metric_total(&refused, (double)n.connections_refused);
        metric_set(&requests, (double)n.requests_active);
        metric_set(&in_flight, (double)n.bytes_in_flight);
    }
    if (!app->pool) return;
    metric_set(&pool_tasks, (double)pool_running(app->pool), S("running"));
    metric_set(&pool_tasks, (double)pool_waiting(app->pool), S("waiting"));
}

static void set_journal(const App *app) {
    if (!app->journal) return;
    JournalCounts n = journal_counts(app->journal);
    metric_set(&journal_size, (double)n.bytes);
    metric_set(&journal_reserved, (double)n.reserved_bytes);
    metric_set(&journal_full, n.full);
    metric_total(&journal_records, (double)n.records);
    metric_total(&journal_writes, (double)n.writes);
    metric_total(&journal_syncs, (double)n.syncs);
    metric_total(&journal_errors, (double)n.write_errors, S("write"));
    metric_total(&journal_errors, (double)n.sync_errors, S("sync"));
}

static void set_database(const App *app) {
    DbCounts n = db_counts(app->db);
    metric_total(&db_transactions, (double)n.transactions);
    metric_total(&db_commits, (double)n.commits);
    metric_total(&db_retries, (double)n.retries);
    metric_total(&db_reads, (double)n.reads);
    metric_total(&db_wait, (double)n.waits_ns / 1e9);
}

// ---- jobs

static int64_t sum(const JobDepth *d, size_t n, str kind, JobState state) {
    int64_t all = 0;
    for (size_t i = 0; i < n; i++)
        if (str_eq(d[i].kind, kind) && d[i].state == state) all += d[i].n;
    return all;
}

// Every kind and reason has its series from the start, so that one that fell to none says 0.
static void set_jobs(Ctx *c) {
    static const char *const reasons[] = { "not_before", "retry_backoff", "parallel_limit",
                                           "no_worker", "queued" };
    App *app = app_of(c);
    JobDepth *d;
    size_t n;
    if (!app->jobs || jobs_depths(c, app->jobs, &d, &n)) return;
    for (const Module *const *m = app->modules; *m; m++)
        for (const JobKind *const *k = (*m)->jobs; k && *k; k++) {
            str kind = str_z((*k)->name);
            metric_set(&jobs, (double)sum(d, n, kind, JOB_WAITING), kind, S("waiting"));
            metric_set(&jobs, (double)sum(d, n, kind, JOB_RUNNING), kind, S("running"));
        }
    for (size_t r = 0; r < countof(reasons); r++) {
        int64_t waiting = 0;
        for (size_t i = 0; i < n; i++)
            if (str_is(d[i].wait_reason, reasons[r])) waiting += d[i].n;
        metric_set(&jobs_waiting, (double)waiting, str_z(reasons[r]));
    }
}

typedef struct JobEnd {
    str kind, state;
    double seconds;
} JobEnd;

static void count_end(void *arg) {
    const JobEnd *end = arg;
    metric_observe(&job_duration, end->seconds, end->kind, end->state);
}

void metric_job(Ctx *c, Tx *tx, const JobView *v) {
    if (v->state == JOB_WAITING || v->state == JOB_RUNNING || !v->started_ms) return;
    JobEnd *end = new (c->mem, JobEnd, 1);
    *end = (JobEnd){ arena_str(c->mem, v->kind), str_z(job_state_name(v->state)),
                     (double)(v->ended_ms - v->started_ms) / 1000 };
    tx_notify(tx, count_end, end);
}

void metric_own_collect(void *arg) {
    App *app = arg;
    Ctx *c = app_ctx_new(app);
    OsUsage usage;
    OsFacts facts;
    os_usage(app->os, &usage);
    os_facts(app->os, &facts);
    set_process(&usage, &facts);
    set_machine(c, &usage, &facts);
    set_server(app);
    set_journal(app);
    set_database(app);
    set_jobs(c);
    app_ctx_free(c);
}
