// SPDX-License-Identifier: Apache-2.0
// fault.c - calls that fail. This program defines the C library's names itself, so that its own
// code and every shared library in it come here first; what is not to fail goes on to the library.
// Which errors a call can give is Linux's manual; a spurious EAGAIN, or a short read of a socket,
// is none of them, because epoll's edges would not follow.
// What the C library calls within itself (fopen's open, getaddrinfo's socket) fails as a whole.
// Threads: any. Signals: none.
#include "fault.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

Plan *fault_plan;
bool fault_here;

enum { SHORT = 1 << 20, LASTS = 1 << 21, WAYS_MAX = 8, WAY = LASTS - 1 };
typedef struct Ways {
    int errors[WAYS_MAX]; // 0 ends
} Ways;
// clang-format off
static const Ways
    making = { { EMFILE, EMFILE | LASTS, ENOMEM } }, // a descriptor
    opening = { { EMFILE, EMFILE | LASTS, EIO, EINTR } },
    creating = { { EMFILE, EMFILE | LASTS, ENOSPC, ENOSPC | LASTS, EIO } },
    naming = { { EIO, ENOSPC, ENOSPC | LASTS } }, // mkdir, rename
    removing = { { EIO, EROFS | LASTS } },
    looking = { { EIO, ENOMEM } },
    reading = { { EIO, EIO | LASTS, EINTR, SHORT } },
    writing = { { ENOSPC, ENOSPC | LASTS, EIO, EIO | LASTS, EINTR, SHORT } },
    sizing = { { EIO, ENOSPC, ENOSPC | LASTS, EINTR } },
    syncing = { { EIO, EIO | LASTS, ENOSPC, EINTR } },
    locking = { { ENOLCK, EINTR } },
    mapping = { { ENOMEM } },
    receiving = { { ECONNRESET, ETIMEDOUT, EINTR } },
    sending = { { EPIPE, ECONNRESET, EINTR, EAGAIN, SHORT } },
    sending_all = { { EPIPE, ECONNRESET, EINTR } }, // sockets that libraries wait for by poll
    piping = { { EINTR } },
    connecting = { { ECONNREFUSED, ETIMEDOUT, EADDRNOTAVAIL } },
    accepting = { { EMFILE, ECONNABORTED, EINTR, ENOMEM } },
    binding = { { EADDRINUSE, ENOMEM } },
    waiting = { { EINTR } },
    watching = { { ENOMEM, ENOSPC } },
    forking = { { EAGAIN, ENOMEM } },
    starting = { { EACCES, ENOMEM } }, // exec
    threading = { { EAGAIN, EAGAIN | LASTS } },
    naming_hosts = { { EAI_AGAIN, EAI_MEMORY } },
    no_memory = { { ENOMEM, ENOMEM | LASTS } };
// clang-format on

const char *fault_name(int error) {
    if (error == SHORT) return "short";
    const char *name = error < 0 ? "EAI" : strerrorname_np(error & WAY);
    return name ? name : "?";
}

// --- who fails

static bool may(const Ways *w, int error) {
    for (size_t i = 0; i < WAYS_MAX && w->errors[i]; i++)
        if (w->errors[i] == (error | LASTS)) return true;
    return false;
}

static int strike_at(const char *call, const Ways *w) {
    Plan *p = fault_plan;
    bool first = false;
    if (!atomic_compare_exchange_strong(&p->struck, &first, true)) return 0;
    int ways = 0;
    while (ways < WAYS_MAX && w->errors[ways]) ways++;
    int error = w->errors[p->way < ways ? p->way : 0];
    strncpy(p->call, call, sizeof p->call - 1);
    p->ways = ways;
    p->error = error > 0 ? error & ~LASTS : error;
    if (error > 0 && error & LASTS) p->lasting = p->error;
    return p->error;
}

// 0: it does not; SHORT, or the error.
static int strike(FaultWhat what, const char *call, const Ways *w) {
    Plan *p = fault_plan;
    if (!fault_here || !atomic_load_explicit(&p->on, memory_order_relaxed) || p->what != what)
        return 0;
    long n = ++p->seen;
    if (n == p->at) return strike_at(call, w);
    int lasting = p->lasting;
    return lasting && may(w, lasting) ? lasting : 0;
}

// A call's own name here, and the library's function behind it, found before anything can fork.
#define CALL(type, name, ...)                                                     \
    static void *real_##name(void) {                                              \
        static void *at;                                                          \
        if (!at) at = dlsym(RTLD_NEXT, #name);                                    \
        return at;                                                                \
    }                                                                             \
    __attribute__((constructor)) static void find_##name(void) { real_##name(); } \
    type inject_##name(__VA_ARGS__) __asm__(#name);                               \
    type inject_##name(__VA_ARGS__)
#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type(*)(__VA_ARGS__))real_##name()
// The same under the name that programs with large files use for it.
#define TWICE(type, name, ...) \
    type inject_##name##64(__VA_ARGS__) __asm__(#name "64") __attribute__((alias(#name)));
#define FAIL_IF(call, ways)                          \
    do {                                             \
        int e_ = strike(FAULT_CALL, (call), (ways)); \
        if (e_) {                                    \
            errno = e_;                              \
            return -1;                               \
        }                                            \
    } while (0)

// --- what is behind a descriptor

typedef enum { IS_FILE, IS_SOCKET, IS_PIPE, IS_OTHER } Is;
static Is is(int fd) {
    struct stat st;
    int e = errno;
    if (syscall(SYS_fstat, fd, &st) < 0) st.st_mode = 0;
    errno = e;
    return S_ISREG(st.st_mode)    ? IS_FILE
           : S_ISSOCK(st.st_mode) ? IS_SOCKET
           : S_ISFIFO(st.st_mode) ? IS_PIPE
                                  : IS_OTHER;
}

static const Ways *in_ways(int fd) {
    static const Ways *const of[] = { &reading, &receiving, &piping, &piping };
    return of[is(fd)];
}
static const Ways *out_ways(int fd) {
    static const Ways *const of[] = { &writing, &sending, &piping, &piping };
    return of[is(fd)];
}
// A connection that was reset is gone both ways, for the peer as well.
static int cut(int fd, int e) {
    if (e == ECONNRESET || e == EPIPE || e == ETIMEDOUT) shutdown(fd, SHUT_RDWR);
    return e;
}
static size_t half(size_t n) { return n > 1 ? n / 2 : n; }

// --- bytes

#define MOVE(name, ways, type, bytes, n, ...)           \
    int e = cut(fd, strike(FAULT_CALL, #name, (ways))); \
    if (e == SHORT) n = half(n);                        \
    else if (e) return errno = e, -1;                   \
    return real(__VA_ARGS__)

CALL(ssize_t, read, int fd, void *p, size_t n) {
    REAL(ssize_t, read, int, void *, size_t);
    MOVE(read, in_ways(fd), void *, p, n, fd, p, n);
}
CALL(ssize_t, write, int fd, const void *p, size_t n) {
    REAL(ssize_t, write, int, const void *, size_t);
    MOVE(write, out_ways(fd), const void *, p, n, fd, p, n);
}
CALL(ssize_t, pread, int fd, void *p, size_t n, off_t at) {
    REAL(ssize_t, pread, int, void *, size_t, off_t);
    MOVE(pread, &reading, void *, p, n, fd, p, n, at);
}
TWICE(ssize_t, pread, int fd, void *p, size_t n, off_t at)
CALL(ssize_t, pwrite, int fd, const void *p, size_t n, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    MOVE(pwrite, &writing, const void *, p, n, fd, p, n, at);
}
TWICE(ssize_t, pwrite, int fd, const void *p, size_t n, off_t at)
CALL(ssize_t, readv, int fd, const struct iovec *v, int n) {
    REAL(ssize_t, readv, int, const struct iovec *, int);
    int e = cut(fd, strike(FAULT_CALL, "readv", is(fd) == IS_SOCKET ? &receiving : &piping));
    return e ? (errno = e, -1) : real(fd, v, n);
}
CALL(ssize_t, writev, int fd, const struct iovec *v, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    int e = cut(fd, strike(FAULT_CALL, "writev", out_ways(fd)));
    if (e == SHORT) return n > 1 ? real(fd, v, 1) : write(fd, v->iov_base, half(v->iov_len));
    return e ? (errno = e, -1) : real(fd, v, n);
}
CALL(ssize_t, sendfile, int fd, int from, off_t *at, size_t n) {
    REAL(ssize_t, sendfile, int, int, off_t *, size_t);
    MOVE(sendfile, &sending, off_t *, at, n, fd, from, at, n);
}
TWICE(ssize_t, sendfile, int to, int from, off_t *at, size_t n)
CALL(ssize_t, recv, int fd, void *p, size_t n, int flags) {
    REAL(ssize_t, recv, int, void *, size_t, int);
    int e = cut(fd, strike(FAULT_CALL, "recv", &receiving));
    if (e) return errno = e, -1;
    return real(fd, p, n, flags);
}
CALL(ssize_t, send, int fd, const void *p, size_t n, int flags) {
    REAL(ssize_t, send, int, const void *, size_t, int);
    int e = cut(fd, strike(FAULT_CALL, "send", &sending_all));
    if (e) return errno = e, -1;
    return real(fd, p, n, flags);
}

// --- files

CALL(int, open, const char *path, int how, ...) {
    va_list args;
    va_start(args, how);
    unsigned mode = how & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;
    va_end(args);
    REAL(int, open, const char *, int, ...);
    FAIL_IF("open", how & O_CREAT ? &creating : &opening);
    return real(path, how, mode);
}
TWICE(int, open, const char *path, int how, ...)
CALL(int, openat, int dir, const char *path, int how, ...) {
    va_list args;
    va_start(args, how);
    unsigned mode = how & (O_CREAT | O_TMPFILE) ? va_arg(args, unsigned) : 0;
    va_end(args);
    REAL(int, openat, int, const char *, int, ...);
    FAIL_IF("openat", how & O_CREAT ? &creating : &opening);
    return real(dir, path, how, mode);
}
#define SIMPLE(name, ways, params, ...) \
    CALL(int, name, __VA_ARGS__) {      \
        REAL(int, name, __VA_ARGS__);   \
        FAIL_IF(#name, ways);           \
        return real params;             \
    }
SIMPLE(fsync, &syncing, (fd), int fd)
SIMPLE(fdatasync, &syncing, (fd), int fd)
SIMPLE(ftruncate, &sizing, (fd, n), int fd, off_t n)
TWICE(int, ftruncate, int fd, off_t n)
SIMPLE(fallocate, &sizing, (fd, mode, at, n), int fd, int mode, off_t at, off_t n)
TWICE(int, fallocate, int fd, int mode, off_t at, off_t n)
SIMPLE(mkdir, &naming, (path, mode), const char *path, unsigned mode)
SIMPLE(rename, &naming, (from, to), const char *from, const char *to)
SIMPLE(unlink, &removing, (path), const char *path)
SIMPLE(unlinkat, &removing, (dir, path, how), int dir, const char *path, int how)
SIMPLE(remove, &removing, (path), const char *path)
SIMPLE(stat, &looking, (path, out), const char *path, void *out)
TWICE(int, stat, const char *path, void *out)
SIMPLE(lstat, &looking, (path, out), const char *path, void *out)
TWICE(int, lstat, const char *path, void *out)
SIMPLE(fstat, &looking, (fd, out), int fd, void *out)
TWICE(int, fstat, int fd, void *out)
SIMPLE(statvfs, &looking, (path, out), const char *path, void *out)
SIMPLE(flock, &locking, (fd, how), int fd, int how)

CALL(void *, opendir, const char *path) {
    REAL(void *, opendir, const char *);
    int e = strike(FAULT_CALL, "opendir", &making);
    return e ? (errno = e, NULL) : real(path);
}
CALL(void *, fdopendir, int fd) {
    REAL(void *, fdopendir, int);
    int e = strike(FAULT_CALL, "fdopendir", &mapping);
    return e ? (errno = e, NULL) : real(fd);
}
CALL(void *, readdir, void *dir) {
    REAL(void *, readdir, void *);
    int e = strike(FAULT_CALL, "readdir", &removing);
    return e ? (errno = e, NULL) : real(dir);
}
CALL(void *, fopen, const char *path, const char *how) {
    REAL(void *, fopen, const char *, const char *);
    int e = strike(FAULT_CALL, "fopen", &opening);
    return e ? (errno = e, NULL) : real(path, how);
}
TWICE(void *, fopen, const char *path, const char *how)
// SQLite's shared memory; nobody else asks under this name.
void *inject_mmap64(void *p, size_t n, int prot, int flags, int fd, off_t at) __asm__("mmap64");
void *inject_mmap64(void *p, size_t n, int prot, int flags, int fd, off_t at) {
    int e = strike(FAULT_CALL, "mmap", &mapping);
    return e ? (errno = e, MAP_FAILED) : mmap(p, n, prot, flags, fd, at);
}

// --- sockets and the loop

SIMPLE(socket, &making, (family, type, protocol), int family, int type, int protocol)
SIMPLE(connect, &connecting, (fd, to, n), int fd, const void *to, unsigned n)
SIMPLE(accept4, &accepting, (fd, from, n, how), int fd, void *from, void *n, int how)
SIMPLE(bind, &binding, (fd, at, n), int fd, const void *at, unsigned n)
SIMPLE(listen, &binding, (fd, n), int fd, int n)
SIMPLE(poll, &waiting, (fds, n, ms), void *fds, unsigned long n, int ms)
SIMPLE(epoll_wait, &waiting, (fd, out, n, ms), int fd, void *out, int n, int ms)
SIMPLE(pipe2, &making, (out, how), int *out, int how)
SIMPLE(epoll_create1, &making, (how), int how)
SIMPLE(eventfd, &making, (n, how), unsigned n, int how)
CALL(int, epoll_ctl, int fd, int op, int which, void *event) {
    REAL(int, epoll_ctl, int, int, int, void *);
    if (op == 1) FAIL_IF("epoll_ctl", &watching); // EPOLL_CTL_ADD alone takes memory
    return real(fd, op, which, event);
}
CALL(int, getaddrinfo, const char *host, const char *port, const void *want, void *out) {
    REAL(int, getaddrinfo, const char *, const char *, const void *, void *);
    int e = strike(FAULT_CALL, "getaddrinfo", &naming_hosts);
    return e ? e : real(host, port, want, out);
}

// --- processes

SIMPLE(fork, &forking, (), void)
CALL(int, pthread_create, void *out, const void *how, void *(*fn)(void *), void *arg) {
    REAL(int, pthread_create, void *, const void *, void *(*)(void *), void *);
    int e = strike(FAULT_CALL, "pthread_create", &threading);
    return e ? e : real(out, how, fn, arg);
}
SIMPLE(dup2, &waiting, (from, to), int from, int to)
SIMPLE(execve, &starting, (path, argv, env), const char *path, char *const *argv, char *const *env)
CALL(int, waitpid, int pid, int *out, int how) {
    REAL(int, waitpid, int, int *, int);
    FAIL_IF("waitpid", &waiting);
    return real(pid, out, how);
}
CALL(int, wait4, int pid, int *out, int how, void *used) {
    REAL(int, wait4, int, int *, int, void *);
    FAIL_IF("wait4", &waiting);
    return real(pid, out, how, used);
}
// Of its arguments at most five are ever used.
CALL(long, syscall, long number, ...) {
    long a[5];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 5; i++) a[i] = va_arg(args, long);
    va_end(args);
    REAL(long, syscall, long, ...);
    if (number == SYS_pidfd_open) FAIL_IF("pidfd_open", &making);
    return real(number, a[0], a[1], a[2], a[3], a[4]);
}

// --- memory: who asks is known by the address that it is asked from

enum { SPANS_MAX = 512 };
typedef struct Span {
    uintptr_t from, to;
    bool own;
    char name[64];
} Span;
static Span spans[SPANS_MAX];
static size_t spans_n;

static int note_span(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size, (void)arg;
    const char *name = strrchr(info->dlpi_name, '/');
    for (int i = 0; i < info->dlpi_phnum && spans_n < SPANS_MAX; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || !(h->p_flags & PF_X)) continue;
        Span *s = &spans[spans_n++];
        s->from = info->dlpi_addr + h->p_vaddr;
        s->to = s->from + h->p_memsz;
        s->own = !*info->dlpi_name;
        strncpy(s->name, name ? name + 1 : info->dlpi_name, sizeof s->name - 1);
    }
    return 0;
}

static bool asked_by(uintptr_t at) {
    const Plan *p = fault_plan;
    for (size_t i = 0; i < spans_n; i++)
        if (at >= spans[i].from && at < spans[i].to)
            return p->what == FAULT_MEMORY ? spans[i].own
                                           : !spans[i].own && strstr(spans[i].name, p->library);
    return false;
}

static bool no_room(void *from) {
    Plan *p = fault_plan;
    if (!fault_here || p->what == FAULT_CALL) return false;
    if (!atomic_load_explicit(&p->on, memory_order_relaxed)) return false;
    if (!asked_by((uintptr_t)from) || !strike(p->what, "malloc", &no_memory)) return false;
    errno = ENOMEM;
    return true;
}

#define OWN(type, name, ...)                        \
    type inject_##name(__VA_ARGS__) __asm__(#name); \
    type inject_##name(__VA_ARGS__)
#define HERE __builtin_return_address(0)
#ifdef __SANITIZE_ADDRESS__
void *__interceptor_malloc(size_t n);
void *__interceptor_calloc(size_t n, size_t size);
void *__interceptor_realloc(void *p, size_t n);
#define PLAIN(name) __interceptor_##name
#else
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
#define PLAIN(name) __libc_##name
#endif
OWN(void *, malloc, size_t n) { return no_room(HERE) ? NULL : PLAIN(malloc)(n); }
OWN(void *, calloc, size_t n, size_t size) { return no_room(HERE) ? NULL : PLAIN(calloc)(n, size); }
OWN(void *, realloc, void *p, size_t n) { return no_room(HERE) ? NULL : PLAIN(realloc)(p, n); }
OWN(char *, strdup, const char *z) {
    size_t n = strlen(z) + 1;
    char *copy = no_room(HERE) ? NULL : PLAIN(malloc)(n);
    return copy ? memcpy(copy, z, n) : NULL;
}

void fault_start(void) {
    dl_iterate_phdr(note_span, NULL);
    fault_plan =
        mmap(NULL, sizeof *fault_plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fault_plan == MAP_FAILED) abort();
}
