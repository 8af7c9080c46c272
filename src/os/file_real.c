// SPDX-License-Identifier: Apache-2.0
// file_real.c - files of the machine. Every call that can be interrupted is retried; every length
// is written or an error. Directories are file_tree.c. Owner: file_open's caller. Threads: file.h.
#include "os/real.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

typedef struct RealFile {
    File head;
    int fd;
} RealFile;

enum { IO_MAX = 1 << 30 }; // the kernel takes at most 2 GiB less a page in one call

static int fd_of(File *f) { return ((RealFile *)f)->fd; }
static str name_of(File *f) { return str_z(f->path); }

static void close_file(File *f) {
    close(fd_of(f)); // EINTR: the descriptor is gone all the same on Linux
    mem_free(f->path);
    mem_free(f);
}

static err read_at(Ctx *c, File *f, int64_t offset, void *out, size_t n, size_t *out_got) {
    size_t done = 0;
    while (done < n) {
        size_t want = n - done < IO_MAX ? n - done : IO_MAX;
        ssize_t got = pread(fd_of(f), (char *)out + done, want, offset + (int64_t)done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return os_fail(c, errno, "read", name_of(f));
        if (got == 0) break;
        done += (size_t)got;
    }
    *out_got = done;
    return ERR_OK;
}

static err write_at(Ctx *c, File *f, int64_t offset, const void *p, size_t n) {
    for (size_t done = 0; done < n;) {
        size_t want = n - done < IO_MAX ? n - done : IO_MAX;
        ssize_t put = pwrite(fd_of(f), (const char *)p + done, want, offset + (int64_t)done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return os_fail(c, put < 0 ? errno : EIO, "write", name_of(f));
        done += (size_t)put;
    }
    return ERR_OK;
}

static err sync_file(Ctx *c, File *f) {
    int rc;
    do rc = fdatasync(fd_of(f));
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? os_fail(c, errno, "sync", name_of(f)) : ERR_OK;
}

static err size_of(Ctx *c, File *f, int64_t *out) {
    struct stat st;
    if (fstat(fd_of(f), &st) < 0) return os_fail(c, errno, "look at", name_of(f));
    *out = st.st_size;
    return ERR_OK;
}

// What the kernel reads ahead counts as data from then on, until it is forgotten: ask it not to.
static int64_t next_data(File *f, int64_t offset) {
    posix_fadvise(fd_of(f), 0, 0, POSIX_FADV_RANDOM);
    off_t at = lseek(fd_of(f), offset, SEEK_DATA); // the position itself is never used: pread
    return at >= 0 ? at : errno == ENXIO ? -1 : offset;
}

// Where the file system cannot reserve, zeros behind the end do it: holes before it stay holes.
static err allocate_by_zeros(Ctx *c, File *f, int64_t size) {
    static const char zeros[65536];
    int64_t at = 0;
    TRY(size_of(c, f, &at));
    while (at < size) {
        size_t n = size - at < (int64_t)sizeof zeros ? (size_t)(size - at) : sizeof zeros;
        TRY(write_at(c, f, at, zeros, n));
        at += (int64_t)n;
    }
    return ERR_OK;
}

static err allocate(Ctx *c, File *f, int64_t size) {
    int rc;
    do rc = fallocate(fd_of(f), 0, 0, size);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) return allocate_by_zeros(c, f, size);
    return rc < 0 ? os_fail(c, errno, "reserve space for", name_of(f)) : ERR_OK;
}

static err truncate_file(Ctx *c, File *f, int64_t size) {
    int rc;
    do rc = ftruncate(fd_of(f), size);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? os_fail(c, errno, "truncate", name_of(f)) : ERR_OK;
}

// flock's holder is known only to /proc/locks: "1: FLOCK  ADVISORY  WRITE 4711 fe:01:123 0 EOF".
static long lock_holder(int fd) {
    struct stat st;
    FILE *locks = fopen("/proc/locks", "re");
    if (!locks) return 0;
    char line[256];
    long holder = 0;
    while (!holder && fstat(fd, &st) == 0 && fgets(line, sizeof line, locks)) {
        long pid;
        unsigned major_id, minor_id;
        unsigned long long inode;
        if (sscanf(line, "%*d: FLOCK %*s WRITE %ld %x:%x:%llu", &pid, &major_id, &minor_id, &inode)
                == 4
            && inode == st.st_ino && major_id == major(st.st_dev) && minor_id == minor(st.st_dev))
            holder = pid;
    }
    fclose(locks);
    return holder;
}

// flock, not fcntl: it belongs to the open file, so a second open in this process is refused too
// and closing another descriptor of the same file does not drop it.
static err lock(Ctx *c, File *f) {
    int rc;
    do rc = flock(fd_of(f), LOCK_EX | LOCK_NB);
    while (rc < 0 && errno == EINTR);
    if (rc == 0) return ERR_OK;
    if (errno != EWOULDBLOCK) return os_fail(c, errno, "lock", name_of(f));
    return fail(c, ERR_CONFLICT, R_LOCKED, "path", say_str(c, name_of(f)), "pid",
                say(c, "%ld", lock_holder(fd_of(f))));
}

static const FileOps file_ops = {
    .close = close_file,
    .read_at = read_at,
    .write_at = write_at,
    .sync = sync_file,
    .allocate = allocate,
    .truncate = truncate_file,
    .size = size_of,
    .next_data = next_data,
    .fd = fd_of,
    .lock = lock,
};

err real_file_open(Ctx *c, str path, unsigned flags, File **out) {
    int how = O_CLOEXEC | O_NOCTTY;
    how |= !(flags & FILE_WRITE) ? O_RDONLY : flags & FILE_READ ? O_RDWR : O_WRONLY;
    if (flags & FILE_CREATE) how |= O_CREAT;
    if (flags & FILE_EXCLUSIVE) how |= O_EXCL;
    if (flags & FILE_TRUNCATE) how |= O_TRUNC;
    int fd;
    do fd = open(arena_z(c->mem, path), how, flags & FILE_PRIVATE ? 0600 : 0644);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return os_fail(c, errno, "open", path);
    RealFile *f = mem_new(sizeof *f);
    *f = (RealFile){ { &file_ops, mem_strdup(path) }, fd };
    *out = &f->head;
    return ERR_OK;
}
