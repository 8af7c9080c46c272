// SPDX-License-Identifier: Apache-2.0
// file.h - files and directories. Blocking: call from a worker or at start-up, except a write to
// the journal, which a loop may make. Durability is explicit: a write is safe from the death of
// this process at once, from a power cut only after file_sync (and, for a new or renamed name,
// dir_sync of its directory). The simulated twin loses or tears exactly what was not synced.
// Errors: os_fail of what the kernel said, with the path. Paths hold no NUL (ERR_INVALID).
// Threads: a File may be read and written at different offsets by several threads.
#ifndef LATHE_OS_FILE_H
#define LATHE_OS_FILE_H
#include "os/os.h"

typedef struct File File;
enum {
    FILE_READ = 1u,
    FILE_WRITE = 2u,
    FILE_CREATE = 4u,
    FILE_EXCLUSIVE = 8u, // with CREATE: ERR_CONFLICT when it exists
    FILE_TRUNCATE = 16u,
    FILE_PRIVATE = 32u, // created with mode 0600, else 0644
};

err file_open(Ctx *c, str path, unsigned flags, File **out);
void file_close(File *f); // NULL is fine
// Short only at the end of the file.
err file_read_at(Ctx *c, File *f, int64_t offset, void *out, size_t n, size_t *out_got);
err file_write_at(Ctx *c, File *f, int64_t offset, const void *p, size_t n); // all or an error
err file_sync(Ctx *c, File *f); // data and size are on the disk when it returns
// Reserves space so that later writes below size cannot meet a full disk; the file becomes at least
// that long, the new part zeros.
err file_allocate(Ctx *c, File *f, int64_t size);
err file_truncate(Ctx *c, File *f, int64_t size);
err file_size(Ctx *c, File *f, int64_t *out);
// The first place from offset on that may hold other than zeros; the file's size (or offset, if
// larger) when there is none. What was reserved and not written is skipped without being read,
// where the file system knows of it; where not, the answer is offset.
err file_skip_zeros(Ctx *c, File *f, int64_t offset, int64_t *out);
int file_fd(File *f); // for sendfile, mmap and children; simulated: for process_start only
// Exclusive, until closed or the process dies; ERR_CONFLICT with R_LOCKED and the holder's pid
// ("0" when the kernel does not tell). Two opens in one process exclude each other as well.
err file_lock(Ctx *c, File *f);
err file_lock_within(Ctx *c, File *f, int64_t timeout_ms); // waits so long for the holder to end

// What a kernel keeps for those who have one file open, as its locks and shared memory; of the
// simulated machine only. False: the machine itself.
typedef struct FileShare {
    Os *where;   // the machine on which it lies: another one than the opener's when it was mounted
    void **slot; // the same for all who have it open; theirs to fill, NULL at first
    bool dead;   // who opened it has died: nothing it holds counts any more
} FileShare;
bool file_share(File *f, FileShare *out);
void file_hold(File *f, bool on); // it keeps others from their work: no time for a stall
void file_may_stall(File *f);     // what is to be held next was decided on: a time for a stall

err path_rename(Ctx *c, str from, str to); // atomic, replaces
err path_remove(Ctx *c, str path);         // a file or an empty directory; absent: ERR_NOTFOUND
err path_remove_tree(Ctx *c, str dir);     // absent is fine; follows no symbolic link
typedef struct PathInfo {
    int64_t size, modified_ms;
    bool is_dir, is_file;
    unsigned mode; // permission bits
} PathInfo;
err path_info(Ctx *c, str path, PathInfo *out);
err dir_make(Ctx *c, str path, unsigned mode);                  // with parents; present is fine
err dir_list(Ctx *c, str path, str **out_names, size_t *out_n); // sorted; without . and ..
err dir_sync(Ctx *c, str path);
err disk_free(Ctx *c, str path, int64_t *out_bytes);
err disk_size(Ctx *c, str path, int64_t *out_bytes); // of the whole file system
// Whole small files. Write is atomic and durable: a temporary name, sync, rename, dir_sync.
err file_read_all(Ctx *c, str path, size_t max, str *out); // larger: ERR_TOOLARGE; ends in NUL
err file_write_all(Ctx *c, str path, str bytes, unsigned flags); // flags: 0 or FILE_PRIVATE
#endif
