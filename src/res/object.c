// SPDX-License-Identifier: Apache-2.0
// object.c - bytes of an object to whoever may have them: GET /lathe/v1/objects/{digest}, whole or
// a range, so that a large download goes on where it broke off. Only an object that a row of the
// caller's own project names is there for it; another's is not found, whether it exists or not.
// Each reading of content leaves an audit entry. Threads: pool.
#include "res/collect.h"
#include "blob/blob.h"
#include "res/scrub.h"

typedef struct Ask {
    str digest;
    bool named;
} Ask;

static err named_tx(Ctx *c, Tx *tx, void *arg) {
    Ask *a = arg;
    TRY(collect_named(c, tx, a->digest, &a->named));
    if (!a->named)
        return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", "object", "id", say_str(c, a->digest));
    App *app = app_of(c);
    AuditEntry entry = { "read",  "object",     a->digest, { 0 }, S("objects.download"),
                         S("{}"), SCOPE_PROJECT };
    return app->audit ? app->audit(c, tx, &entry) : ERR_OK;
}

static err read_at(Ctx *c, void *arg, int64_t at, void *out, size_t n, size_t *out_got) {
    return blob_read_at(c, arg, at, out, n, out_got);
}
static void read_done(void *arg) { blob_close(arg); }

err object_serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Ask a = { .digest = route_param(r, "/lathe/v1/objects/{digest}", "digest") };
    (void)body;
    if (!sha256_hex_valid(a.digest))
        return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", "object", "id", say_str(c, a.digest));
    TRY(db_tx(c, c->db, named_tx, &a));
    BlobReader *reader;
    TRY(blob_open(c, app_of(c)->blobs, a.digest, &reader, &out->file_size));
    out->read_at = read_at, out->pull_done = read_done, out->pull_arg = reader;
    out->type = "application/octet-stream";
    out->etag = arena_printf(c->mem, "\"" STR_FMT "\"", STR_ARG(a.digest));
    return ERR_OK;
}
