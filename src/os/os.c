// SPDX-License-Identifier: Apache-2.0
// os.c - the front of the handle: clock, random, ids, deadlines, and what the kernel said as an
// err. The machine itself is real.c, its twin sim.c. Threads: any.
#include "os/os_impl.h"
#include "base/id.h"
#include <assert.h>
#include <errno.h>

REASONS_DEFINE(OS_REASONS, os_reasons)

int64_t os_wall_ns(Os *os) { return os->ops->wall_ns(os); }
int64_t os_wall_ms(Os *os) { return os_wall_ns(os) / 1000000; }
int64_t os_mono_ns(Os *os) { return os->ops->mono_ns(os); }
int64_t os_cpu_ns(Os *os) { return os->ops->cpu_ns(os); }
void os_random(Os *os, void *out, size_t n) { os->ops->random(os, out, n); }
const char *os_env(Os *os, const char *name) { return os->ops->env(os, name); }
const char *const *os_environment(Os *os) { return os->ops->environment(os); }
str os_program(Ctx *c) { return c->os->ops->program(c); }

void os_facts(Os *os, OsFacts *out) {
    *out = (OsFacts){ 0 };
    os->ops->facts(os, out);
}

void os_usage(Os *os, OsUsage *out) {
    *out = (OsUsage){ 0 };
    os->ops->usage(os, out);
}

str os_id(Ctx *c, const char *prefix) {
    assert(c->os);
    uint8_t random[10];
    os_random(c->os, random, sizeof random);
    return id_format_ns(c->mem, prefix, os_wall_ns(c->os), random);
}

err ctx_check(Ctx *c) {
    if (ctx_cancelled(c)) return fail(c, ERR_CANCELLED, R_CANCELLED);
    if (c->deadline_ns && os_mono_ns(c->os) >= c->deadline_ns)
        return fail(c, ERR_TIMEOUT, R_DEADLINE);
    return ERR_OK;
}

static err errno_code(int e) {
    switch (e) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH: return ERR_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS: return ERR_DENIED;
    case EEXIST:
    case ENOTEMPTY:
    case EBUSY:
    case ETXTBSY:
    case EADDRINUSE:
    case EISDIR: return ERR_CONFLICT;
    case ENOSPC:
    case EDQUOT: return ERR_FULL;
    case EFBIG: return ERR_TOOLARGE;
    case EINVAL:
    case ENAMETOOLONG:
    case ELOOP:
    case E2BIG:
    case ENOEXEC:
    case EADDRNOTAVAIL: return ERR_INVALID;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EAGAIN: return ERR_UNAVAILABLE;
    case ETIMEDOUT: return ERR_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH: return ERR_UPSTREAM;
    default: return ERR_INTERNAL;
    }
}

err os_fail(Ctx *c, int errno_value, const char *what, str path) {
    assert(errno_value > 0);
    err code = errno_code(errno_value);
    const char *where = say_str(c, path);
    if (code == ERR_FULL) return fail(c, code, R_DISK_FULL, "path", where);
    char text[128];
    const char *why = strerror_r(errno_value, text, sizeof text);
    return fail(c, code, R_OS, "what", what, "path", where, "why", why);
}
