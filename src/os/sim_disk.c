// SPDX-License-Identifier: Apache-2.0
// sim_disk.c - the simulated disk: inodes, names, space, and what a power cut leaves of them.
// Faults and handles are sim_file.c.
// Owner: the node. Threads: one.
#include "os/sim_disk.h"
#include <assert.h>
#include <errno.h>

enum { SECTOR = 512, FILE_MAX = 1 << 30 };

// --- inodes

Inode *inode_make(SimDisk *d, bool is_dir, unsigned mode) {
    Inode *i = mem_new(sizeof *i);
    i->is_dir = is_dir;
    i->mode = mode;
    i->modified_ms = d->sim->now_ns / 1000000;
    return i;
}

void inode_ref(Inode *i) { i->refs++; }

int64_t inode_space(const Inode *i) {
    return (int64_t)i->now.n > i->reserved ? (int64_t)i->now.n : i->reserved;
}

void inode_release(SimDisk *d, Inode *i) {
    assert(i->live);
    if (!--i->live) d->used -= inode_space(i);
}

static void drop_changes(Inode *i) {
    for (size_t k = 0; k < i->changes_n; k++) mem_free(i->changes[k].p);
    i->changes_n = 0;
}

static void names_drop(SimDisk *d, Names *n) {
    for (size_t k = 0; k < n->n; k++) {
        mem_free(n->e[k].name);
        inode_unref(d, n->e[k].inode);
    }
    n->n = 0;
}

static void drop_name_changes(SimDisk *d, Inode *dir) {
    for (size_t k = 0; k < dir->name_changes_n; k++) {
        mem_free(dir->name_changes[k].name);
        inode_unref(d, dir->name_changes[k].inode);
    }
    dir->name_changes_n = 0;
}

void inode_unref(SimDisk *d, Inode *i) {
    if (!i) return;
    assert(i->refs);
    if (--i->refs) return;
    drop_changes(i);
    names_drop(d, &i->names);
    names_drop(d, &i->disk_names);
    drop_name_changes(d, i);
    bytes_done(&i->now);
    bytes_done(&i->disk);
    mem_free(i->changes);
    mem_free(i->names.e);
    mem_free(i->disk_names.e);
    mem_free(i->name_changes);
    mem_free(i);
}

// --- contents

static void note_change(Inode *i, int64_t offset, const void *p, size_t n) {
    if (i->changes_n == i->changes_cap) {
        i->changes_cap = i->changes_cap ? i->changes_cap * 2 : 8;
        i->changes = mem_grow(i->changes, i->changes_cap, sizeof *i->changes);
    }
    Change *c = &i->changes[i->changes_n++];
    *c = (Change){ .offset = offset, .n = n };
    if (!p) return;
    c->p = mem_new(n);
    memcpy(c->p, p, n);
}

// Space for the file to become `size` long; ENOSPC when the disk has not so much.
static int take_space(SimDisk *d, Inode *i, int64_t size) {
    if (size > FILE_MAX) return EFBIG;
    int64_t more = size - inode_space(i);
    if (more <= 0) return 0;
    if (d->max && d->used + more > d->max) return ENOSPC;
    d->used += more;
    return 0;
}

int inode_write(SimDisk *d, Inode *i, int64_t offset, const void *p, size_t n) {
    if (n > FILE_MAX || offset > FILE_MAX) return EFBIG;
    int e = take_space(d, i, offset + (int64_t)n);
    if (e) return e;
    bytes_put(&i->now, (size_t)offset, p, n);
    note_change(i, offset, p, n);
    i->modified_ms = d->sim->now_ns / 1000000;
    return 0;
}

int inode_resize(SimDisk *d, Inode *i, int64_t size) {
    int e = take_space(d, i, size);
    if (e) return e;
    int64_t before = inode_space(i);
    if (size < i->reserved) i->reserved = size;
    if (size < (int64_t)i->now.n) {
        bytes_size(&i->now, (size_t)size);
        d->used -= before - inode_space(i);
    } else {
        bytes_size(&i->now, (size_t)size);
    }
    note_change(i, size, NULL, 0);
    return 0;
}

int inode_reserve(SimDisk *d, Inode *i, int64_t size) {
    int e = take_space(d, i, size);
    if (e) return e;
    if (size > i->reserved) i->reserved = size;
    if (size > (int64_t)i->now.n) {
        bytes_size(&i->now, (size_t)size);
        note_change(i, size, NULL, 0);
    }
    return 0;
}

static void apply(Bytes *b, const Change *c) {
    if (c->p) bytes_put(b, (size_t)c->offset, c->p, c->n);
    else bytes_size(b, (size_t)c->offset);
}

void inode_sync(Inode *i) {
    size_t kept = 0;
    for (size_t k = 0; k < i->changes_n; k++) {
        if (i->changes[k].doomed) {
            i->changes[kept++] = i->changes[k];
            continue;
        }
        apply(&i->disk, &i->changes[k]);
        mem_free(i->changes[k].p);
    }
    i->changes_n = kept;
}

// As after a failed fsync on Linux: the kernel takes the pages for clean, another sync says that
// all is well, and what did not reach the disk never will.
void inode_sync_failed(SimDisk *d, Inode *i) {
    for (size_t k = 0; k < i->changes_n; k++)
        if (sim_random(d->sim, 2)) i->changes[k].doomed = true;
}

// Sectors arrive one by one, in any order; or a first part only.
static void apply_torn(Sim *s, Bytes *b, const Change *c) {
    if (!c->p) return;
    if (sim_random(s, 4) == 0) {
        size_t n = sim_random(s, c->n);
        if (n) bytes_put(b, (size_t)c->offset, c->p, n);
        return;
    }
    for (size_t at = 0; at < c->n;) {
        size_t n = SECTOR - ((size_t)c->offset + at) % SECTOR;
        if (n > c->n - at) n = c->n - at;
        if (sim_random(s, 2)) bytes_put(b, (size_t)c->offset + at, c->p + at, n);
        at += n;
    }
}

static void file_power_cut(SimDisk *d, Inode *i) {
    for (size_t k = 0; k < i->changes_n; k++) {
        const Change *c = &i->changes[k];
        uint64_t fate = c->doomed ? 1 : sim_random(d->sim, 3);
        if (fate == 0) apply(&i->disk, c);
        if (fate == 2) apply_torn(d->sim, &i->disk, c);
    }
    drop_changes(i);
    bytes_copy(&i->now, &i->disk);
    i->reserved = 0;
    sim_mix(d->sim, i->now.n); // its bytes follow from what was written and the dice
}

// --- names

static size_t names_at(const Names *n, str name) { // the first that is not before name
    size_t low = 0, high = n->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (str_cmp(str_z(n->e[mid].name), name) < 0) low = mid + 1;
        else high = mid;
    }
    return low;
}

Inode *names_get(const Names *n, str name) {
    size_t at = names_at(n, name);
    return at < n->n && str_is(name, n->e[at].name) ? n->e[at].inode : NULL;
}

static void names_set(SimDisk *d, Names *n, str name, Inode *inode) {
    size_t at = names_at(n, name);
    bool present = at < n->n && str_is(name, n->e[at].name);
    if (inode) inode_ref(inode);
    if (present) inode_unref(d, n->e[at].inode);
    if (present && inode) {
        n->e[at].inode = inode;
    } else if (present) {
        mem_free(n->e[at].name);
        memmove(&n->e[at], &n->e[at + 1], (--n->n - at) * sizeof *n->e);
    } else if (inode) {
        if (n->n == n->cap) n->e = mem_grow(n->e, n->cap = n->cap ? n->cap * 2 : 8, sizeof *n->e);
        memmove(&n->e[at + 1], &n->e[at], (n->n++ - at) * sizeof *n->e);
        n->e[at] = (Entry){ mem_strdup(name), inode };
    }
}

void dir_set(SimDisk *d, Inode *dir, str name, Inode *inode, uint64_t op) {
    if (dir->name_changes_n == dir->name_changes_cap) {
        dir->name_changes_cap = dir->name_changes_cap ? dir->name_changes_cap * 2 : 8;
        dir->name_changes =
            mem_grow(dir->name_changes, dir->name_changes_cap, sizeof *dir->name_changes);
    }
    if (inode) inode_ref(inode);
    dir->name_changes[dir->name_changes_n++] = (NameChange){ op, mem_strdup(name), inode };
    Inode *old = names_get(&dir->names, name);
    if (inode) inode->live++;
    if (old) inode_release(d, old);
    names_set(d, &dir->names, name, inode);
    dir->modified_ms = d->sim->now_ns / 1000000;
}

void dir_settle(SimDisk *d, Inode *dir) {
    for (size_t k = 0; k < dir->name_changes_n; k++)
        names_set(d, &dir->disk_names, str_z(dir->name_changes[k].name),
                  dir->name_changes[k].inode);
    drop_name_changes(d, dir);
}

static bool name_change_kept(uint64_t dice, uint64_t op) {
    uint64_t z = (dice ^ op * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    return (z ^ z >> 31) >> 33 & 1;
}

static void dir_power_cut(SimDisk *d, Inode *dir, uint64_t dice) {
    for (size_t k = 0; k < dir->name_changes_n; k++) {
        const NameChange *c = &dir->name_changes[k];
        if (name_change_kept(dice, c->op)) names_set(d, &dir->disk_names, str_z(c->name), c->inode);
    }
    drop_name_changes(d, dir);
    names_drop(d, &dir->names);
    for (size_t k = 0; k < dir->disk_names.n; k++) {
        Entry *e = &dir->disk_names.e[k];
        names_set(d, &dir->names, str_z(e->name), e->inode);
        sim_mix_bytes(d->sim, e->name, strlen(e->name));
        if (e->inode->is_dir) dir_power_cut(d, e->inode, dice);
        else file_power_cut(d, e->inode);
    }
}

// Who counts the space anew is the caller.
void sim_disk_power_cut(SimDisk *d) { dir_power_cut(d, d->root, sim_draw(d->sim)); }

// --- paths

// Components of `path` one by one; "." and empty ones are skipped, ".." goes to the parent.
static int step(Inode **at, Inode **stack, size_t *depth, str name) {
    if (!(*at)->is_dir) return ENOTDIR;
    if (str_is(name, "..")) {
        if (*depth) *at = stack[--*depth];
        return 0;
    }
    if (*depth == 64) return ENAMETOOLONG;
    Inode *next = names_get(&(*at)->names, name);
    if (!next) return ENOENT;
    stack[(*depth)++] = *at;
    *at = next;
    return 0;
}

int disk_walk(SimDisk *d, str path, Inode **out_parent, str *out_name) {
    Inode *stack[64], *at = d->root;
    size_t depth = 0;
    str part, last = S("");
    while (str_cut(&path, '/', &part)) {
        if (!part.n || str_is(part, ".")) continue;
        if (last.n) {
            int e = step(&at, stack, &depth, last);
            if (e) return e;
        }
        last = part;
    }
    if (str_is(last, "..")) {
        step(&at, stack, &depth, last);
        last = S("");
    }
    if (!at->is_dir) return ENOTDIR;
    *out_parent = at;
    *out_name = last;
    return 0;
}

int disk_find(SimDisk *d, str path, Inode **out) {
    Inode *parent;
    str name;
    int e = disk_walk(d, path, &parent, &name);
    if (e) return e;
    *out = name.n ? names_get(&parent->names, name) : parent;
    return *out ? 0 : ENOENT;
}

// --- the disk

SimDisk *sim_disk_new(Sim *s) {
    SimDisk *d = mem_new(sizeof *d);
    d->sim = s;
    d->root = inode_make(d, true, 0755);
    inode_ref(d->root);
    link_init(&d->files);
    return d;
}

void sim_disk_limit(SimDisk *d, int64_t max_bytes) {
    assert(max_bytes >= 0);
    d->max = max_bytes;
}

void sim_disk_free(SimDisk *d) {
    inode_unref(d, d->root);
    mem_free(d);
}
