// SPDX-License-Identifier: Apache-2.0
// sim_disk.h - private to the simulated files: inodes in two states, as programs see them and as
// they are on the disk, with what happened between the two. A sync moves it over; a power cut
// decides for each piece whether it was kept, lost or torn. Contents and names are synced apart
// (file_sync and dir_sync), as POSIX promises no more.
#ifndef LATHE_OS_SIM_DISK_H
#define LATHE_OS_SIM_DISK_H
#include "os/sim_impl.h"

typedef struct Bytes {
    uint8_t **pieces; // NULL: zeros
    size_t n, pieces_n;
} Bytes;

typedef struct Change { // of a file's contents, not yet synced
    int64_t offset;
    uint8_t *p; // NULL: the size becomes offset
    size_t n;
    bool doomed; // a sync of it failed: it will never reach the disk
} Change;

typedef struct Inode Inode;
typedef struct Entry {
    char *name;
    Inode *inode;
} Entry;
typedef struct Names {
    Entry *e; // sorted
    size_t n, cap;
} Names;
typedef struct NameChange { // not yet synced; inode NULL: the name goes
    uint64_t op;            // both halves of a rename share it: kept or lost together
    char *name;
    Inode *inode;
} NameChange;

struct Inode {
    unsigned refs; // of names in both states, changes of names and open files
    unsigned live; // of names that programs see and open files: at 0 its space is free
    bool is_dir;
    unsigned mode;
    int64_t modified_ms, reserved;
    Bytes now, disk;
    Change *changes;
    size_t changes_n, changes_cap;
    Names names, disk_names;
    NameChange *name_changes;
    size_t name_changes_n, name_changes_cap;
    const void *locker; // the open file that holds the lock
    void *shared;       // FileShare.slot
};

struct SimDisk {
    Sim *sim;
    Inode *root;
    Link files;        // open ones, see sim_file.c
    int64_t used, max; // bytes; max 0: no limit
    uint64_t next_op;
};

// sim_bytes.c
void bytes_size(Bytes *b, size_t n); // what is new is zeros
void bytes_put(Bytes *b, size_t at, const uint8_t *p, size_t n);
void bytes_get(const Bytes *b, size_t at, uint8_t *out, size_t n); // within b->n
void bytes_copy(Bytes *to, const Bytes *from);
int64_t bytes_next(const Bytes *b, size_t at); // where there may be other than zeros; -1: nowhere
void bytes_done(Bytes *b);

// 0 or errno. The parent directory and the last name of a path; "/": the root and an empty name.
int disk_walk(SimDisk *d, str path, Inode **out_parent, str *out_name);
int disk_find(SimDisk *d, str path, Inode **out);
Inode *names_get(const Names *n, str name); // NULL: absent
Inode *inode_make(SimDisk *d, bool is_dir, unsigned mode);
void inode_ref(Inode *i);
void inode_unref(SimDisk *d, Inode *i);
void inode_release(SimDisk *d, Inode *i); // one `live` less
int64_t inode_space(const Inode *i);

int inode_write(SimDisk *d, Inode *i, int64_t offset, const void *p, size_t n);
int inode_resize(SimDisk *d, Inode *i, int64_t size);
int inode_reserve(SimDisk *d, Inode *i, int64_t size);
void inode_sync(Inode *i);
void inode_sync_failed(SimDisk *d, Inode *i);
void dir_set(SimDisk *d, Inode *dir, str name, Inode *inode, uint64_t op); // inode NULL: remove
void dir_settle(SimDisk *d, Inode *dir);                                   // dir_sync
#endif
