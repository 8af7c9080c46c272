// SPDX-License-Identifier: Apache-2.0
// children.c - the one thread that forks, and that waits for the children nobody asks about any
// more. PR_SET_PDEATHSIG ends a child when the thread that forked it ends, so children must not be
// started by pool threads that come and go; this one never ends. The fork is followed by exec at
// once: between them only child.c's async-signal-safe calls.
// Owner: the process; started by the first child. Threads: real_ functions any.
#include "os/real.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Request {
    const ProcessSpec *spec;
    const char *const *env;
    int64_t pid; // answer: the pid, or -errno
    int pidfd;
    bool done;
    struct Request *next;
} Request;

typedef struct Forgotten {
    int64_t pid;
    int pidfd;
} Forgotten;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t answered;
    Request *first, **end;
    Forgotten *forgotten; // added under mutex, removed by the thread under mutex
    size_t forgotten_n, forgotten_cap;
    int wake_fd;
} here = { .mutex = PTHREAD_MUTEX_INITIALIZER, .answered = PTHREAD_COND_INITIALIZER };

// What exec's failure writes, and nothing when it succeeds: the pipe closes on exec.
static int exec_errno(int fd) {
    int e = 0;
    ssize_t n;
    do n = read(fd, &e, sizeof e);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof e ? e : 0;
}

static void reap_now(pid_t pid) {
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

static _Noreturn void child(const Request *r, int report, int64_t parent) {
    int e = real_child_exec(r->spec, r->env, parent);
    ssize_t n = write(report, &e, sizeof e);
    _exit(n == (ssize_t)sizeof e ? 127 : 126);
}

static int64_t start(Request *r) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) return -errno;
    int64_t parent = getpid();
    pid_t pid = fork();
    int e = errno;
    if (pid == 0) child(r, report[1], parent);
    close(report[1]);
    if (pid > 0) e = exec_errno(report[0]);
    close(report[0]);
    if (pid < 0) return -e;
    if (!e) {
        r->pidfd = (int)syscall(SYS_pidfd_open, pid, 0); // close-on-exec by itself
        if (r->pidfd >= 0) return pid;
        e = errno;
        kill(pid, SIGKILL);
    }
    reap_now(pid);
    return -e;
}

static void answer_requests(void) {
    pthread_mutex_lock(&here.mutex);
    while (here.first) {
        Request *r = here.first;
        here.first = r->next;
        if (!here.first) here.end = &here.first;
        pthread_mutex_unlock(&here.mutex);
        int64_t pid = start(r);
        pthread_mutex_lock(&here.mutex);
        r->pid = pid;
        r->done = true;
        pthread_cond_broadcast(&here.answered);
    }
    pthread_mutex_unlock(&here.mutex);
}

static void reap_forgotten(void) {
    pthread_mutex_lock(&here.mutex);
    for (size_t i = 0; i < here.forgotten_n;) {
        Forgotten f = here.forgotten[i];
        if (waitpid((pid_t)f.pid, NULL, WNOHANG) == 0) {
            i++;
            continue;
        }
        close(f.pidfd);
        here.forgotten[i] = here.forgotten[--here.forgotten_n];
    }
    pthread_mutex_unlock(&here.mutex);
}

static void wait_for_work(void) {
    pthread_mutex_lock(&here.mutex);
    size_t n = here.forgotten_n + 1;
    struct pollfd *fds = mem_new(n * sizeof *fds);
    fds[0] = (struct pollfd){ here.wake_fd, POLLIN, 0 };
    for (size_t i = 1; i < n; i++)
        fds[i] = (struct pollfd){ here.forgotten[i - 1].pidfd, POLLIN, 0 };
    pthread_mutex_unlock(&here.mutex);
    int rc = poll(fds, n, -1);
    assert(rc > 0 || errno == EINTR);
    uint64_t woken;
    if (rc > 0 && fds[0].revents) rc = (int)read(here.wake_fd, &woken, sizeof woken);
    mem_free(fds);
}

static void serve(void *arg) {
    (void)arg;
    for (;;) {
        answer_requests();
        reap_forgotten();
        wait_for_work();
    }
}

// Under the mutex: 0, or errno, and the next child tries again.
static int ready(void) {
    if (here.end) return 0;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return errno;
    here.wake_fd = fd;
    here.end = &here.first; // the thread waits for the mutex
    Thread t;
    int rc = real_thread_start(os_real(), "lathe-children", serve, NULL, &t);
    if (rc) {
        here.end = NULL;
        close(fd);
        return rc;
    }
    pthread_detach(t);
    return 0;
}

static void wake(void) {
    const uint64_t one = 1;
    ssize_t n;
    do n = write(here.wake_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    assert(n == sizeof one);
}

int64_t real_children_start(const ProcessSpec *spec, const char *const *env, int *out_pidfd) {
    Request r = { .spec = spec, .env = env, .pidfd = -1 };
    pthread_mutex_lock(&here.mutex);
    int e = ready();
    if (e) {
        pthread_mutex_unlock(&here.mutex);
        return -e;
    }
    *here.end = &r;
    here.end = &r.next;
    wake();
    while (!r.done) pthread_cond_wait(&here.answered, &here.mutex);
    pthread_mutex_unlock(&here.mutex);
    *out_pidfd = r.pidfd;
    return r.pid;
}

void real_children_forget(int64_t pid, int pidfd) {
    pthread_mutex_lock(&here.mutex);
    assert(here.end); // it is one that was started
    if (here.forgotten_n == here.forgotten_cap) {
        here.forgotten_cap = here.forgotten_cap ? here.forgotten_cap * 2 : 16;
        here.forgotten = mem_grow(here.forgotten, here.forgotten_cap, sizeof *here.forgotten);
    }
    here.forgotten[here.forgotten_n++] = (Forgotten){ pid, pidfd };
    wake();
    pthread_mutex_unlock(&here.mutex);
}
