// SPDX-License-Identifier: Apache-2.0
// journal_life.c - whether the machine ended under a life of this journal. A file beside the
// segments says on which boot of the machine it is open, and goes when it is closed. One of another
// boot was not closed, so what was not synced by then is gone: of class A up to SYNC_MS. That is
// remembered until somebody has written it down. Threads: opening and closing; told by any.
#include "job/journal_own.h"

enum { LIFE_MAX = 256 };

static str life_path(Ctx *c, const Journal *j) {
    return arena_printf(c->mem, "%s/%08x.life", j->dir, (unsigned)j->node);
}

static err life_write(Ctx *c, Journal *j) {
    OsFacts facts;
    os_facts(c->os, &facts);
    str text = arena_printf(c->mem, "%s\n%s", facts.boot, atomic_load(&j->gap) ? "gap\n" : "");
    return file_write_all(c, life_path(c, j), text, FILE_PRIVATE);
}

// On a full disk the file stays as it is: then a gap is told once too often, but none is forgotten.
err life_open(Ctx *c, Journal *j) {
    Failure before = c->failure;
    OsFacts facts;
    str was, boot;
    os_facts(c->os, &facts);
    err e = file_read_all(c, life_path(c, j), LIFE_MAX, &was);
    if (e && e != ERR_NOTFOUND && e != ERR_TOOLARGE) return e;
    if (e != ERR_NOTFOUND) { // what is damaged tells of no life that was closed
        bool same = !e && str_cut(&was, '\n', &boot) && str_is(boot, facts.boot);
        atomic_store(&j->gap, !same || str_starts(was, S("gap")));
    }
    e = life_write(c, j);
    if (e && e != ERR_FULL) return e;
    c->failure = before;
    return ERR_OK;
}

void life_close(Ctx *c, Journal *j) {
    if (atomic_load(&j->gap)) return;
    err e = path_remove(c, life_path(c, j));
    (void)e; // it is as after a death of the process
}

bool journal_gap(const Journal *j) { return atomic_load(&j->gap); }

err journal_gap_told(Ctx *c, Journal *j) {
    atomic_store(&j->gap, false);
    err e = life_write(c, j);
    if (e) atomic_store(&j->gap, true);
    return e;
}
