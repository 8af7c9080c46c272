// SPDX-License-Identifier: Apache-2.0
// file_tree.c - names and directories of the machine. Removing a tree never leaves it: each level
// is opened relative to its parent and without following links, so a link that appears meanwhile is
// removed, not entered. Threads: any.
#include "os/real.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { DIR_NAMES_MAX = 1000000, TREE_DEPTH_MAX = 512 };

err real_path_rename(Ctx *c, str from, str to) {
    if (rename(arena_z(c->mem, from), arena_z(c->mem, to)) < 0)
        return os_fail(c, errno, "rename", from);
    return ERR_OK;
}

err real_path_remove(Ctx *c, str path) {
    return remove(arena_z(c->mem, path)) < 0 ? os_fail(c, errno, "remove", path) : ERR_OK;
}

static int remove_entry(int dir, const char *name, int depth);

// Empties the directory behind fd, which it closes. 0 or errno.
static int remove_entries(int fd, int depth) {
    DIR *d = fdopendir(fd);
    if (!d) {
        int e = errno;
        close(fd);
        return e;
    }
    int e = 0;
    while (!e) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (!entry) {
            e = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            e = remove_entry(dirfd(d), entry->d_name, depth);
    }
    closedir(d);
    return e;
}

static int remove_entry(int dir, const char *name, int depth) {
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT) return 0;
    if (errno != EISDIR && errno != EPERM) return errno; // Linux says EISDIR, POSIX allows EPERM
    if (depth >= TREE_DEPTH_MAX) return ELOOP;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    int e = remove_entries(fd, depth + 1);
    if (!e && unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT) e = errno;
    return e;
}

err real_path_remove_tree(Ctx *c, str dir) {
    while (dir.n > 1 && dir.p[dir.n - 1] == '/') dir.n--; // "link/" would follow the link
    int e = remove_entry(AT_FDCWD, arena_z(c->mem, dir), 0);
    return e ? os_fail(c, e, "remove", dir) : ERR_OK;
}

err real_path_info(Ctx *c, str path, PathInfo *out) {
    struct stat st;
    if (stat(arena_z(c->mem, path), &st) < 0) return os_fail(c, errno, "look at", path);
    *out = (PathInfo){
        .size = st.st_size,
        .modified_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000,
        .is_dir = S_ISDIR(st.st_mode),
        .is_file = S_ISREG(st.st_mode),
        .mode = st.st_mode & 07777,
    };
    return ERR_OK;
}

static int make_one(const char *path, unsigned mode) {
    if (mkdir(path, mode) == 0) return 0;
    if (errno != EEXIST) return errno;
    struct stat st;
    if (stat(path, &st) < 0) return errno;
    return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

err real_dir_make(Ctx *c, str path, unsigned mode) {
    char *z = (char *)arena_z(c->mem, path);
    int e = make_one(z, mode);
    for (char *at = z + 1; e == ENOENT && *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        int parent = make_one(z, mode);
        *at = '/';
        if (parent) return os_fail(c, parent, "make directory", path);
    }
    if (e == ENOENT) e = make_one(z, mode);
    return e ? os_fail(c, e, "make directory", path) : ERR_OK;
}

err real_dir_list(Ctx *c, str path, str **out_names, size_t *out_n) {
    DIR *d = opendir(arena_z(c->mem, path));
    if (!d) return os_fail(c, errno, "list", path);
    str *names = NULL;
    size_t n = 0, cap = 0;
    int e = 0;
    while (!e) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (!entry) {
            e = errno;
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (n == DIR_NAMES_MAX) e = EFBIG;
        if (n == cap) names = mem_grow(names, cap = cap ? cap * 2 : 64, sizeof *names);
        names[n++] = arena_str(c->mem, str_z(entry->d_name));
    }
    closedir(d);
    if (!e && n) {
        *out_names = new (c->mem, str, n);
        memcpy(*out_names, names, n * sizeof *names);
    }
    *out_n = n;
    mem_free(names);
    return e ? os_fail(c, e, "list", path) : ERR_OK;
}

err real_dir_sync(Ctx *c, str path) {
    int fd = open(arena_z(c->mem, path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return os_fail(c, errno, "sync", path);
    int rc;
    do rc = fsync(fd);
    while (rc < 0 && errno == EINTR);
    int e = errno;
    close(fd);
    return rc < 0 ? os_fail(c, e, "sync", path) : ERR_OK;
}

err real_disk_free(Ctx *c, str path, int64_t *out_bytes) {
    struct statvfs st;
    if (statvfs(arena_z(c->mem, path), &st) < 0) return os_fail(c, errno, "look at", path);
    *out_bytes = (int64_t)st.f_bavail * (int64_t)st.f_frsize;
    return ERR_OK;
}

err real_disk_size(Ctx *c, str path, int64_t *out_bytes) {
    struct statvfs st;
    if (statvfs(arena_z(c->mem, path), &st) < 0) return os_fail(c, errno, "look at", path);
    *out_bytes = (int64_t)st.f_blocks * (int64_t)st.f_frsize;
    return ERR_OK;
}
