// SPDX-License-Identifier: Apache-2.0
// sandbox.c - a seccomp filter (seccomp(2), BPF of linux/filter.h) for children that read hostile
// files: no network, nothing written but through descriptors they were given. It denies by list, so
// it keeps an honest library from surprises and a broken parser from reaching out; bubblewrap is
// the wall against code that means to break out.
// Threads: real_sandbox_enter in the child stage only: async-signal-safe.
#include "os/real.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define ARCH_HERE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH_HERE AUDIT_ARCH_AARCH64
#endif

const char *real_sandbox_name(Os *os) {
    (void)os;
#ifdef ARCH_HERE
    // With a NULL program a kernel that has filters says EFAULT, one without EINVAL.
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) < 0 && errno == EFAULT) return "seccomp";
#endif
    return "none";
}

#ifdef ARCH_HERE
enum { PROGRAM_MAX = 256 };
typedef struct Program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned short n;
} Program;

static void add(Program *p, struct sock_filter line) { p->code[p->n++] = line; }

static void load(Program *p, size_t offset) {
    add(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

static void answer(Program *p, unsigned what) {
    add(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what));
}

// The accumulator holds the call's number before and after.
static void deny(Program *p, long call, int with) {
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1));
    answer(p, SECCOMP_RET_ERRNO | (unsigned)with);
}

// open's flags are in a register, so they can be looked at: its low half (little endian).
static void deny_writing_open(Program *p, long call, unsigned argument) {
    const unsigned writes = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 4));
    load(p, offsetof(struct seccomp_data, args) + 8 * argument);
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, writes, 0, 1));
    answer(p, SECCOMP_RET_ERRNO | EPERM);
    answer(p, SECCOMP_RET_ALLOW);
}

// io_uring does what the filter denies without making the call; tracing could make others do it.
static const long never[] = { SYS_io_uring_setup, SYS_io_uring_enter,    SYS_io_uring_register,
                              SYS_ptrace,         SYS_process_vm_writev, SYS_pidfd_getfd };
static const long network[] = { SYS_socket, SYS_connect, SYS_bind,
                                SYS_listen, SYS_accept,  SYS_accept4 };
static const long new_files[] = {
#ifdef __x86_64__
    SYS_creat,
    SYS_mkdir,
    SYS_rename,
    SYS_unlink,
    SYS_rmdir,
    SYS_link,
    SYS_symlink,
    SYS_mknod,
    SYS_chmod,
    SYS_chown,
    SYS_lchown,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
#endif
    SYS_mkdirat,
    SYS_renameat,
    SYS_renameat2,
    SYS_unlinkat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_mknodat,
    SYS_truncate,
    SYS_fchmodat,
    SYS_fchownat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_utimensat,
    SYS_mount,
    SYS_open_by_handle_at,
};

static void build(Program *p, bool no_network, bool no_new_files) {
    load(p, offsetof(struct seccomp_data, arch));
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH_HERE, 1, 0));
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1)); // x32
    answer(p, SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < countof(never); i++) deny(p, never[i], EPERM);
    for (size_t i = 0; no_network && i < countof(network); i++) deny(p, network[i], EPERM);
    if (no_new_files) {
        for (size_t i = 0; i < countof(new_files); i++) deny(p, new_files[i], EPERM);
        deny(p, SYS_openat2, ENOSYS); // flags behind a pointer: callers fall back to openat
#ifdef __x86_64__
        deny_writing_open(p, SYS_open, 1);
#endif
        deny_writing_open(p, SYS_openat, 2);
    }
    answer(p, SECCOMP_RET_ALLOW);
}

int real_sandbox_enter(bool no_network, bool no_new_files) {
    if (real_sandbox_name(NULL)[0] != 's') return 0; // said by process_sandbox_name
    Program p;
    p.n = 0;
    build(&p, no_network, no_new_files);
    struct sock_fprog filter = { p.n, p.code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0 ? errno : 0;
}
#else
int real_sandbox_enter(bool no_network, bool no_new_files) {
    (void)no_network, (void)no_new_files;
    return 0;
}
#endif
