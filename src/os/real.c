// SPDX-License-Identifier: Apache-2.0
// real.c - the machine: clocks, random, environment and facts, and the table that joins the real
// parts (file_real.c, loop_real.c, …). Owner: one for the program. Threads: any.
#include "os/real.h"
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAPPED_FROM = 4 << 20, KEPT_MAX = 6 << 20 };

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    int rc = clock_gettime(id, &t);
    assert(rc == 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t wall_ns(Os *os) { return (void)os, clock_ns(CLOCK_REALTIME); }
static int64_t mono_ns(Os *os) { return (void)os, clock_ns(CLOCK_MONOTONIC); }
static int64_t cpu_ns(Os *os) { return (void)os, clock_ns(CLOCK_THREAD_CPUTIME_ID); }
static const char *env(Os *os, const char *name) { return (void)os, getenv(name); }
static const char *const *environment(Os *os) {
    static const char *const none[] = { NULL };
    (void)os;
    return environ ? (const char *const *)environ : none;
}

static void kernel_random(void *out, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t got = getrandom((char *)out + done, n - done, 0);
        if (got < 0 && errno == EINTR) continue;
        assert(got > 0); // without random there are no safe ids or keys: nothing may go on
        done += (size_t)got;
    }
}

// What an id or a nonce takes comes from a stock of its thread, a system call for every 256 bytes;
// keys come from the kernel each. What was handed out is wiped; after a fork the stock is the
// parent's alone.
enum { STOCK_BYTES = 256, STOCK_PIECE_MAX = 24 };
static atomic_uint forks;
static void forked(void) { atomic_fetch_add(&forks, 1); }

static void random_bytes(Os *os, void *out, size_t n) {
    static _Thread_local struct {
        uint8_t bytes[STOCK_BYTES];
        size_t left;
        unsigned forks;
    } stock;
    (void)os;
    if (n > STOCK_PIECE_MAX) {
        kernel_random(out, n);
        return;
    }
    unsigned now = atomic_load_explicit(&forks, memory_order_relaxed);
    if (stock.left < n || stock.forks != now) {
        kernel_random(stock.bytes, sizeof stock.bytes);
        stock.left = sizeof stock.bytes;
        stock.forks = now;
    }
    stock.left -= n;
    memcpy(out, stock.bytes + stock.left, n);
    explicit_bzero(stock.bytes + stock.left, n);
}

// An upgrade replaces the file while this program runs: its children are still of its own version,
// by the name that a forked child has for the program it came from.
static str program(Ctx *c) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    assert(n > 0 && (size_t)n < sizeof path);
    str name = str_n(path, (size_t)n);
    return str_ends(name, S(" (deleted)")) ? S("/proc/self/exe") : arena_str(c->mem, name);
}

static struct rlimit first_files; // the limit of open files as it was when we started

void real_files_limit_restore(void) { setrlimit(RLIMIT_NOFILE, &first_files); }

// A body of a megabyte is handled in a few pieces of about its size. By itself glibc gives such
// memory back after each, and the kernel zeroes it again page by page for the next, which costs
// more than all that is done with it.
static void keep_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
    mallopt(M_TRIM_THRESHOLD, KEPT_MAX);
#endif
}

// evbuffers answer a failed allocation by leaving bytes out, and a stream with a hole in it is a
// wrong answer: what they cannot have ends the process as any allocation does.
static void *event_new_bytes(size_t n) { return mem_grow(NULL, n, 1); }
static void *event_more_bytes(void *p, size_t n) { return mem_grow(p, n, 1); }
static void event_no_bytes(void *p) { mem_free(p); }

// A write to a connection whose peer left is an error to handle, not a reason to die. And a server
// needs one file per connection: the soft limit of 1024 is there for programs that use select().
// And a connection must not become standard output because somebody had closed that.
static void once(void) {
    int fd;
    do fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
    signal(SIGPIPE, SIG_IGN);
    event_set_mem_functions(event_new_bytes, event_more_bytes, event_no_bytes);
    int rc = pthread_atfork(NULL, NULL, forked);
    assert(rc == 0);
    rc = getrlimit(RLIMIT_NOFILE, &first_files);
    assert(rc == 0);
    struct rlimit most = first_files;
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    keep_memory();
}

bool os_is_simulated(const Os *os) { return os->ops != &os_real_ops; }

Os *os_real(void) {
    static Os real = { &os_real_ops };
    static pthread_once_t ready = PTHREAD_ONCE_INIT;
    pthread_once(&ready, once);
    return &real;
}

const OsOps os_real_ops = {
    .wall_ns = wall_ns,
    .mono_ns = mono_ns,
    .cpu_ns = cpu_ns,
    .random = random_bytes,
    .env = env,
    .environment = environment,
    .facts = real_facts,
    .usage = real_usage,
    .program = program,

    .file_open = real_file_open,
    .path_rename = real_path_rename,
    .path_remove = real_path_remove,
    .path_remove_tree = real_path_remove_tree,
    .path_info = real_path_info,
    .dir_make = real_dir_make,
    .dir_list = real_dir_list,
    .dir_sync = real_dir_sync,
    .disk_free = real_disk_free,
    .disk_size = real_disk_size,

    .can_start = real_can_start,
    .pause = real_pause,
    .thread_start = real_thread_start,
    .loop_new = real_loop_new,
    .pool_new = real_pool_new,
    .stream_connect = real_stream_connect,
    .stream_adopt = real_stream_adopt,
    .listener_open = real_listener_open,
    .resolve = real_resolve,

    .process_start = real_process_start,
    .sandbox_name = real_sandbox_name,
    .pid_start_ticks = real_pid_start_ticks,
    .pid_ending = real_pid_ending,
    .pid_signal = real_pid_signal,
    .pid_memory_bytes = real_pid_memory_bytes,
    .pid_cpu_ms = real_pid_cpu_ms,
    .pipe_make = real_pipe_make,
    .pipe_close = real_pipe_close,
};
