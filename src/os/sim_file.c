// SPDX-License-Identifier: Apache-2.0
// sim_file.c - files of the simulated machine: handles, locks and faults over sim_disk.c.
// Owner: file_open's caller; sim_free after a death. Threads: one.
#include "os/sim_disk.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>

enum { SYNC_NS_MAX = 4000000 }; // others run meanwhile

typedef struct SimFile {
    File head;
    SimThing thing;
    Link link; // in SimDisk.files
    SimOs *os;
    SimNode *at; // where it lies
    unsigned life;
    Inode *inode;
    unsigned flags;
    int number; // of file_fd; 0: nobody asked
} SimFile;

static str name_of(SimFile *f) { return str_z(f->head.path); }

// Nothing that a dying node does has an effect.
static int no_more(Ctx *c) { return sim_os(c->os)->dying || sim_os(c->os)->gone ? EIO : 0; }
static int unreached(const SimNode *from, const SimNode *to) {
    return from->os.sim->cut[from->id][to->id] ? EIO : 0;
}
static int lost(SimFile *f) {
    return sim_alive(f->os, f->life) ? unreached(f->os->node, f->at) : EIO;
}

SimNode *sim_place(Ctx *c, str path, int *out_errno) {
    SimNode *n = sim_os(c->os)->node;
    str mount = str_z(n->mount ? n->mount : "");
    bool within =
        mount.n && str_starts(path, mount) && (path.n == mount.n || path.p[mount.n] == '/');
    if (within && !*out_errno) *out_errno = unreached(n, n->mounted);
    return within ? n->mounted : n;
}

// The disk that holds path; *e becomes an errno when it is not to be had.
static SimDisk *disk_of(Ctx *c, str path, int *e) { return sim_place(c, path, e)->disk; }

static err answer(Ctx *c, int e, const char *what, str path) {
    return e ? os_fail(c, e, what, path) : ERR_OK;
}

// --- open files

static void close_file(File *head) {
    SimFile *f = (SimFile *)head;
    if (f->inode->locker == f) f->inode->locker = NULL;
    if (f->number) sim_file_sink_close(f->os->sim, f->number);
    if (sim_alive(f->os, f->life)) inode_release(f->at->disk, f->inode);
    link_del(&f->link);
    inode_unref(f->at->disk, f->inode);
    link_del(&f->thing.link);
    mem_free(f->head.path);
    mem_free(f);
}

static void close_thing(SimThing *t) {
    SimFile *f = link_of(t, SimFile, thing);
    link_init(&t->link);
    close_file(&f->head);
}

static err read_at(Ctx *c, File *head, int64_t offset, void *out, size_t n, size_t *out_got) {
    SimFile *f = (SimFile *)head;
    int e = lost(f);
    if (!e && !(f->flags & FILE_READ)) e = EBADF;
    if (!e && sim_chance(f->os->sim, f->at->faults.read_error)) e = EIO;
    if (e) return os_fail(c, e, "read", name_of(f));
    const Bytes *b = &f->inode->now;
    size_t left = (uint64_t)offset < b->n ? b->n - (size_t)offset : 0;
    if (n > left) n = left;
    if (n) bytes_get(b, (size_t)offset, out, n);
    *out_got = n;
    return ERR_OK;
}

// The faults of a write: the device fails, the disk is full, or the node dies, each perhaps after a
// first part was written.
static int write_fault(SimFile *f, size_t *n) {
    Sim *s = f->os->sim;
    const SimFaults *faults = &f->at->faults;
    int e = 0;
    if (sim_chance(s, faults->write_error)) e = EIO;
    if (!e && sim_chance(s, faults->write_full)) e = ENOSPC;
    if (!e && sim_chance(s, f->os->node->faults.crash)) {
        e = EIO;
        sim_die_here(f->os);
    }
    if (e) *n = sim_random(s, *n + 1);
    return e;
}

static err write_at(Ctx *c, File *head, int64_t offset, const void *p, size_t n) {
    SimFile *f = (SimFile *)head;
    int e = lost(f);
    if (!e && !(f->flags & FILE_WRITE)) e = EBADF;
    if (e) return os_fail(c, e, "write", name_of(f));
    e = write_fault(f, &n);
    int full = n ? inode_write(f->at->disk, f->inode, offset, p, n) : 0;
    sim_mix(f->os->sim, (uint64_t)offset);
    sim_mix_bytes(f->os->sim, p, n);
    sim_thread_leave_if_dead();
    return answer(c, e ? e : full, "write", name_of(f));
}

static err sync_file(Ctx *c, File *head) {
    SimFile *f = (SimFile *)head;
    if (lost(f)) return os_fail(c, EIO, "sync", name_of(f));
    sim_mix(f->os->sim, 0x5c);
    if (sim_chance(f->os->sim, f->at->faults.sync_error)) {
        inode_sync_failed(f->at->disk, f->inode);
        return os_fail(c, EIO, "sync", name_of(f));
    }
    inode_sync(f->inode);
    if (sim_thread_here()) sim_thread_sleep(sim_between(f->os->sim, 1, SYNC_NS_MAX));
    return ERR_OK;
}

static err allocate(Ctx *c, File *head, int64_t size) {
    SimFile *f = (SimFile *)head;
    int e = lost(f);
    if (!e) e = inode_reserve(f->at->disk, f->inode, size);
    return answer(c, e, "reserve space for", name_of(f));
}

static err truncate_file(Ctx *c, File *head, int64_t size) {
    SimFile *f = (SimFile *)head;
    int e = lost(f);
    if (!e) e = inode_resize(f->at->disk, f->inode, size);
    return answer(c, e, "truncate", name_of(f));
}

static err size_of(Ctx *c, File *head, int64_t *out) {
    SimFile *f = (SimFile *)head;
    if (lost(f)) return os_fail(c, EIO, "look at", name_of(f));
    *out = (int64_t)f->inode->now.n;
    return ERR_OK;
}

static int64_t next_data(File *head, int64_t offset) {
    return bytes_next(&((SimFile *)head)->inode->now, (size_t)offset);
}
static int number_of(File *head) {
    SimFile *f = (SimFile *)head;
    if (!f->number) f->number = sim_file_sink(f->os->sim, head);
    return f->number;
}

static err lock(Ctx *c, File *head) {
    SimFile *f = (SimFile *)head;
    const SimFile *holder = f->inode->locker;
    if (lost(f)) return os_fail(c, EIO, "lock", name_of(f));
    if (holder && holder != f && sim_alive(holder->os, holder->life))
        return fail(c, ERR_CONFLICT, R_LOCKED, "path", say_str(c, name_of(f)), "pid", "1");
    f->inode->locker = f;
    return ERR_OK;
}

static void share(File *head, FileShare *out) {
    SimFile *f = (SimFile *)head;
    *out = (FileShare){ &f->at->os.head, &f->inode->shared, !sim_alive(f->os, f->life) };
}

static void may_stall(File *head) {
    SimFile *f = (SimFile *)head;
    const SimFaults *faults = &f->os->node->faults;
    if (!sim_alive(f->os, f->life) || f->os->node->holds) return;
    if (!faults->stall_ms_max || !sim_chance(f->os->sim, faults->stall)) return;
    sim_thread_sleep(sim_between(f->os->sim, faults->stall_ms_max / 4, faults->stall_ms_max)
                     * 1000000);
    sim_thread_leave_if_dead();
}

static void hold(File *head, bool on) {
    SimFile *f = (SimFile *)head;
    if (sim_alive(f->os, f->life)) f->os->node->holds += on ? 1 : -1;
}

static void forget_live(Inode *i) {
    i->live = 0;
    for (size_t k = 0; k < i->names.n; k++) forget_live(i->names.e[k].inode);
}

static void count_live(SimDisk *d, Inode *i) {
    if (!i->live++) d->used += inode_space(i);
    for (size_t k = 0; k < i->names.n; k++) count_live(d, i->names.e[k].inode);
}

void sim_disk_recount(SimDisk *d) {
    for (Link *at = d->files.next; at != &d->files; at = at->next)
        link_of(at, SimFile, link)->inode->live = 0;
    forget_live(d->root);
    d->used = 0;
    count_live(d, d->root);
    for (Link *at = d->files.next; at != &d->files; at = at->next) {
        SimFile *f = link_of(at, SimFile, link);
        if (sim_alive(f->os, f->life) && !f->inode->live++) d->used += inode_space(f->inode);
    }
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
    .fd = number_of,
    .lock = lock,
    .share = share,
    .hold = hold,
    .may_stall = may_stall,
};

static int open_inode(SimDisk *d, str path, unsigned flags, Inode **out) {
    Inode *parent, *i;
    str name;
    int e = disk_walk(d, path, &parent, &name);
    if (e) return e;
    i = name.n ? names_get(&parent->names, name) : parent;
    if (i && (flags & FILE_CREATE) && (flags & FILE_EXCLUSIVE)) return EEXIST;
    if (i && i->is_dir) return EISDIR;
    if (!i && !(flags & FILE_CREATE)) return ENOENT;
    if (!i) {
        i = inode_make(d, false, flags & FILE_PRIVATE ? 0600 : 0644);
        dir_set(d, parent, name, i, d->next_op++);
    } else if (flags & FILE_TRUNCATE) {
        e = inode_resize(d, i, 0);
    }
    *out = i;
    return e;
}

err sim_file_open(Ctx *c, str path, unsigned flags, File **out) {
    Inode *inode = NULL;
    int e = no_more(c);
    SimDisk *d = disk_of(c, path, &e);
    if (!e) e = open_inode(d, path, flags, &inode);
    if (e) return os_fail(c, e, "open", path);
    SimFile *f = mem_new(sizeof *f);
    f->head = (File){ &file_ops, mem_strdup(path) };
    f->os = sim_os(c->os);
    f->at = sim_place(c, path, &e);
    f->life = f->os->life;
    f->inode = inode;
    f->flags = flags;
    inode_ref(inode);
    inode->live++;
    link_add(&f->at->disk->files, &f->link);
    sim_own(f->os->sim, &f->thing, close_thing);
    *out = &f->head;
    return ERR_OK;
}

// --- names

static bool within(Inode *outer, Inode *i) {
    if (outer == i) return true;
    for (size_t k = 0; outer->is_dir && k < outer->names.n; k++)
        if (within(outer->names.e[k].inode, i)) return true;
    return false;
}

static int rename_in(SimDisk *d, str from, str to) {
    Inode *from_dir, *to_dir;
    str from_name, to_name;
    int e = disk_walk(d, from, &from_dir, &from_name);
    if (!e) e = disk_walk(d, to, &to_dir, &to_name);
    if (e) return e;
    Inode *i = names_get(&from_dir->names, from_name), *old = names_get(&to_dir->names, to_name);
    if (!i) return ENOENT;
    if (!to_name.n) return EBUSY;
    if (i == old) return 0;
    if (i->is_dir && within(i, to_dir)) return EINVAL;
    if (old && i->is_dir != old->is_dir) return old->is_dir ? EISDIR : ENOTDIR;
    if (old && old->is_dir && old->names.n) return ENOTEMPTY;
    uint64_t op = d->next_op++;
    dir_set(d, to_dir, to_name, i, op);
    dir_set(d, from_dir, from_name, NULL, op);
    return 0;
}

err sim_path_rename(Ctx *c, str from, str to) {
    int e = no_more(c);
    SimDisk *d = disk_of(c, from, &e);
    if (!e) e = rename_in(d, from, to);
    sim_mix_bytes(sim_os(c->os)->sim, to.p, to.n);
    return answer(c, e, "rename", from);
}

static int remove_in(SimDisk *d, str path) {
    Inode *parent, *i;
    str name;
    int e = disk_walk(d, path, &parent, &name);
    if (e) return e;
    if (!name.n) return EBUSY;
    i = names_get(&parent->names, name);
    if (!i) return ENOENT;
    if (i->is_dir && i->names.n) return ENOTEMPTY;
    dir_set(d, parent, name, NULL, d->next_op++);
    return 0;
}

err sim_path_remove(Ctx *c, str path) {
    int e = no_more(c);
    SimDisk *d = disk_of(c, path, &e);
    if (!e) e = remove_in(d, path);
    return answer(c, e, "remove", path);
}

static void empty_dir(SimDisk *d, Inode *dir) {
    while (dir->names.n) {
        Entry e = dir->names.e[dir->names.n - 1];
        if (e.inode->is_dir) empty_dir(d, e.inode);
        str name = str_z(mem_strdup(str_z(e.name))); // the entry goes
        dir_set(d, dir, name, NULL, d->next_op++);
        mem_free((char *)name.p);
    }
}

err sim_path_remove_tree(Ctx *c, str dir) {
    Inode *i;
    int e = no_more(c);
    SimDisk *d = disk_of(c, dir, &e);
    if (!e) e = disk_find(d, dir, &i);
    if (e == ENOENT) return ERR_OK;
    if (!e && i->is_dir) empty_dir(d, i);
    if (!e) e = remove_in(d, dir);
    return answer(c, e, "remove", dir);
}

err sim_path_info(Ctx *c, str path, PathInfo *out) {
    Inode *i;
    int e = no_more(c);
    SimDisk *d = disk_of(c, path, &e);
    if (!e && sim_is_program(sim_os(c->os)->sim, path)) {
        *out = (PathInfo){ .is_file = true, .mode = 0755 };
        return ERR_OK;
    }
    if (!e) e = disk_find(d, path, &i);
    if (e) return os_fail(c, e, "look at", path);
    *out = (PathInfo){ .size = (int64_t)i->now.n,
                       .modified_ms = i->modified_ms,
                       .is_dir = i->is_dir,
                       .is_file = !i->is_dir,
                       .mode = i->mode };
    return ERR_OK;
}

static int make_dir(SimDisk *d, str path, unsigned mode) {
    Inode *parent, *i;
    str name;
    int e = disk_walk(d, path, &parent, &name);
    if (e) return e;
    i = name.n ? names_get(&parent->names, name) : parent;
    if (i) return i->is_dir ? 0 : ENOTDIR;
    i = inode_make(d, true, mode);
    dir_set(d, parent, name, i, d->next_op++);
    return 0;
}

err sim_dir_make(Ctx *c, str path, unsigned mode) {
    int e = no_more(c);
    SimDisk *d = disk_of(c, path, &e);
    for (size_t n = 1; !e && n <= path.n; n++)
        if (n == path.n || path.p[n] == '/') e = make_dir(d, str_sub(path, 0, n), mode);
    return answer(c, e, "make directory", path);
}

err sim_dir_list(Ctx *c, str path, str **out_names, size_t *out_n) {
    Inode *i;
    int e = no_more(c);
    SimDisk *d = disk_of(c, path, &e);
    if (!e) e = disk_find(d, path, &i);
    if (!e && !i->is_dir) e = ENOTDIR;
    if (e) return os_fail(c, e, "list", path);
    *out_n = i->names.n;
    if (i->names.n) *out_names = new (c->mem, str, i->names.n);
    for (size_t k = 0; k < i->names.n; k++)
        (*out_names)[k] = arena_str(c->mem, str_z(i->names.e[k].name));
    return ERR_OK;
}

err sim_dir_sync(Ctx *c, str path) {
    Inode *i;
    SimOs *os = sim_os(c->os);
    int e = no_more(c);
    SimDisk *d = disk_of(c, path, &e);
    if (!e) e = disk_find(d, path, &i);
    if (!e && !i->is_dir) e = ENOTDIR;
    if (!e && sim_chance(os->sim, os->node->faults.sync_error)) e = EIO;
    if (!e) dir_settle(d, i);
    return answer(c, e, "sync", path);
}

err sim_disk_space(Ctx *c, str path, int64_t *out_bytes) {
    int e = 0;
    SimDisk *d = disk_of(c, path, &e);
    Inode *i;
    if (!e) e = disk_find(d, path, &i);
    if (e) return os_fail(c, e, "look at", path);
    int64_t left = d->max - d->used;
    *out_bytes = !d->max ? (int64_t)1 << 40 : left > 0 ? left : 0;
    return ERR_OK;
}

err sim_disk_size(Ctx *c, str path, int64_t *out_bytes) {
    int e = 0;
    SimDisk *d = disk_of(c, path, &e);
    Inode *i;
    if (!e) e = disk_find(d, path, &i);
    if (e) return os_fail(c, e, "look at", path);
    *out_bytes = d->max ? d->max : (int64_t)1 << 40;
    return ERR_OK;
}
