// SPDX-License-Identifier: Apache-2.0
// model_fetch.c - brings the bytes of a version's source into its staging file, going on where an
// earlier attempt stopped. A file that changed since then is begun again. HTTP is model_url.c.
// Owner: the Import. Threads: the job's worker.
#include "mod/model/model_import.h"

enum { PIECE = 1 << 20 };

err model_import_restart(Ctx *c, Import *im) {
    job_say(im->job, "begins again: %lld bytes are dropped", (long long)blob_staged(im->w));
    blob_abandon(c, im->w);
    im->w = NULL;
    TRY(blob_stage(c, model_app()->blobs, im->v->staging, &im->w));
    model_digest_restart(c, im);
    return ERR_OK;
}

// ---- a file of the server's own machine

typedef struct Mark { // what the staged bytes were taken from
    int64_t size, modified_ms;
} Mark;

static err mark_load(Ctx *c, const Import *im, Mark *out) {
    yyjson_val *root;
    *out = (Mark){ -1, -1 };
    if (!job_checkpoint(im->job).p) return ERR_OK;
    TRY(json_parse(c, job_checkpoint(im->job), &root));
    json_get_i64(root, "size", &out->size);
    json_get_i64(root, "modified_ms", &out->modified_ms);
    return ERR_OK;
}

static err mark_save(Ctx *c, Import *im, const PathInfo *info) {
    return job_save(c, im->job,
                    arena_printf(c->mem, "{\"size\":%lld,\"modified_ms\":%lld}",
                                 (long long)info->size, (long long)info->modified_ms));
}

static bool same(const Mark *m, const PathInfo *info) {
    return m->size == info->size && m->modified_ms == info->modified_ms;
}

static err changed(Ctx *c, str path) {
    return fail(c, ERR_UNAVAILABLE, R_IMPORT_CHANGED, "what", say_str(c, path));
}

static err copy(Ctx *c, Import *im, File *from, int64_t size) {
    char *piece = arena_alloc_raw(c->mem, PIECE);
    while (blob_staged(im->w) < size) {
        size_t got;
        TRY(file_read_at(c, from, blob_staged(im->w), piece, PIECE, &got));
        if (!got) return changed(c, im->v->source.path); // it became shorter
        TRY(model_import_append(c, im, str_n(piece, got)));
        metric_add(&model_metric_import_bytes, (double)got, S("path"));
        TRY(model_import_step(c, im, blob_staged(im->w), size));
    }
    return ERR_OK;
}

static err fetch_path(Ctx *c, Import *im) {
    str path = im->v->source.path;
    PathInfo info, later;
    Mark mark;
    File *from;
    TRY(path_info(c, path, &info));
    if (!info.is_file) return fail(c, ERR_INVALID, R_PATH_FORM, "field", "source.path");
    TRY(model_import_size_check(c, say_str(c, path), info.size));
    TRY(mark_load(c, im, &mark));
    if (blob_staged(im->w) && !same(&mark, &info)) TRY(model_import_restart(c, im));
    TRY(mark_save(c, im, &info));
    TRY(model_room_check(c, im->v->staging, info.size - blob_staged(im->w)));
    TRY(file_open(c, path, FILE_READ, &from));
    err e = copy(c, im, from, info.size);
    file_close(from);
    TRY(e);
    TRY(path_info(c, path, &later));
    mark = (Mark){ later.size, later.modified_ms };
    return same(&mark, &info) ? ERR_OK : changed(c, path);
}

err model_import_fetch(Ctx *c, Import *im) {
    switch ((SourceKind)im->v->source.type) {
    case SOURCE_UPLOAD: return ERR_OK; // its bytes are staged
    case SOURCE_PATH: return fetch_path(c, im);
    case SOURCE_URL: return model_import_url(c, im);
    }
    return fail(c, ERR_INVALID, R_IMPORT_SOURCE);
}
