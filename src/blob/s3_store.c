// SPDX-License-Identifier: Apache-2.0
// s3_store.c - objects in a bucket: PREFIX/ab/cdef…, and PREFIX/rotten/DIGEST for what was taken
// out of the way. One object is one PUT, or parts sent side by side; S3 checks each by the SHA-256
// that is signed with it. What an upload that failed left is removed at once, or, if its process
// died, by blobs_s3_sweep.
// Owner: calls live within one function. Threads: any.
#include "base/time.h"
#include "blob/blob_own.h"
#include "blob/s3.h"
#include "blob/sigv4.h"
#include "blob/xml.h"
#include <assert.h>

enum {
    PART = 8 << 20,   // S3 allows 5 MiB to 5 GiB, but for the last
    PARTS_MAX = 9000, // S3 allows 10,000
    SLOTS_MAX = 16,
    WINDOW = 2 << 20, // that a reader holds
    LIST_PAGE = 1000,
    COPY_PAGE = 1 << 30, // of a copy within S3 that is over its limit for one
    ABANDONED_MS = 24 * 3600 * 1000,
};
static const int64_t copy_max = (int64_t)5 << 30;

static str object_key(Arena *a, str hex) { return arena_printf(a, "%.2s/%.62s", hex.p, hex.p + 2); }
static str rotten_key(Arena *a, str hex) { return arena_printf(a, "rotten/%.64s", hex.p); }

// A call whose good answer says nothing that is kept.
static err run_call(Ctx *c, S3 *s, S3Call *k) {
    s3_begin(c, s, k);
    err e = s3_end(c, k);
    if (e) s3_drop(k);
    return e;
}
static err ask(Ctx *c, S3 *s, HttpMethod method, str key) {
    S3Call k = { .method = method, .key = key };
    err e = run_call(c, s, &k);
    s3_done(&k);
    return e;
}

// A good status with what cannot be.
static err odd(Ctx *c, S3 *s, str what, const char *why) {
    return fail(c, ERR_UPSTREAM, R_S3_ANSWER, "endpoint", s3_config(s)->endpoint.p, "what",
                say_str(c, what), "status", "200", "code", "", "message", why);
}

// ---- what is there

// "bytes 0-0/123", "bytes */0"
static bool total_of(const S3Call *k, int64_t *out) {
    str text = s3_header(k, "content-range");
    ptrdiff_t slash = text.n ? str_find_char(text, '/') : -1;
    return slash >= 0 && str_to_i64(str_sub(text, (size_t)slash + 1, text.n), out);
}

// One byte is asked for instead of HEAD, whose refusals have no reason.
static err size_of(Ctx *c, S3 *s, str key, int64_t *out_size) {
    char byte;
    S3Call k = {
        .method = HTTP_GET, .key = key, .range = S("bytes=0-0"), .into = &byte, .into_max = 1
    };
    Failure before = c->failure;
    err e = run_call(c, s, &k);
    bool known = total_of(&k, out_size);
    if (!e && !known) *out_size = (int64_t)k.into_n, known = true; // one byte, or none
    if (e == ERR_RANGE) *out_size = 0, e = ERR_OK, c->failure = before;
    s3_done(&k);
    return e;
}

static err s3_find(Ctx *c, Blobs *b, str hex, int64_t *out_size) {
    return size_of(c, b->s3, object_key(c->mem, hex), out_size);
}

// ---- reading

static err s3_open_object(Ctx *c, Blobs *b, str hex, BlobReader *r) {
    return s3_find(c, b, hex, &r->size);
}

static err get_range(Ctx *c, S3 *s, S3Call *k, int64_t at, int64_t n) {
    k->method = HTTP_GET;
    k->range = arena_printf(c->mem, "bytes=%lld-%lld", (long long)at, (long long)(at + n - 1));
    k->into_max = (size_t)n;
    s3_begin(c, s, k);
    return ERR_OK;
}

static err range_whole(Ctx *c, const S3Call *k, int64_t n) {
    if ((int64_t)k->into_n == n) return ERR_OK;
    return odd(c, k->s, k->key, "another number of bytes than was asked for");
}

static err window_fill(Ctx *c, BlobReader *r, int64_t at) {
    int64_t n = r->size - at < WINDOW ? r->size - at : WINDOW;
    ArenaMark mark = arena_mark(c->mem);
    if (!r->window) r->window = mem_new(WINDOW);
    S3Call k = { .key = object_key(c->mem, str_z(r->hex)), .into = r->window };
    r->window_n = 0;
    err e = get_range(c, r->b->s3, &k, at, n);
    if (!e) e = s3_end(c, &k);
    if (!e) e = range_whole(c, &k, n);
    if (e) s3_drop(&k);
    s3_done(&k);
    if (!e) r->window_at = at, r->window_n = (size_t)n, arena_restore(c->mem, mark);
    return e;
}

static err s3_read(Ctx *c, BlobReader *r, int64_t at, void *out, size_t n, size_t *out_got) {
    size_t got = 0;
    while (got < n && at < r->size) {
        bool in = r->window_n && at >= r->window_at && at < r->window_at + (int64_t)r->window_n;
        if (!in) TRY(window_fill(c, r, at));
        size_t from = (size_t)(at - r->window_at), some = r->window_n - from;
        if (some > n - got) some = n - got;
        memcpy((char *)out + got, r->window + from, some);
        got += some, at += (int64_t)some;
    }
    *out_got = got;
    return ERR_OK;
}

static void s3_close_object(BlobReader *r) { mem_free(r->window); }

// ---- slots: several parts of one object under way

typedef struct Slots {
    S3 *s;
    S3Call at[SLOTS_MAX];
    char *bytes[SLOTS_MAX];
    size_t n;
} Slots;

static Slots *slots_new(Ctx *c, S3 *s, int64_t parts, int64_t part) {
    Slots *l = new (c->mem, Slots, 1);
    int64_t most = 4 * (int64_t)PART / part + 1, wish = s3_config(s)->parallel;
    l->s = s;
    l->n = (size_t)(wish < 1 ? 1 : wish > SLOTS_MAX ? SLOTS_MAX : wish);
    if ((int64_t)l->n > most) l->n = (size_t)most; // large parts: fewer at once
    if ((int64_t)l->n > parts) l->n = (size_t)parts;
    for (size_t i = 0; i < l->n; i++) l->bytes[i] = mem_new((size_t)part);
    return l;
}

static void slots_free(Slots *l) {
    for (size_t i = 0; i < l->n; i++) {
        s3_drop(&l->at[i]);
        s3_done(&l->at[i]);
        mem_free(l->bytes[i]);
    }
}

// ---- storing

typedef struct Upload {
    S3 *s;
    str key, id;
    int64_t size, part, parts;
    str *tags;
} Upload;

static int64_t part_of(int64_t size) {
    enum { MIB = 1 << 20 };
    int64_t least = size / PARTS_MAX / MIB * MIB + MIB;
    return least > PART ? least : PART;
}

static err upload_begin(Ctx *c, Upload *u) {
    S3Call k = { .method = HTTP_POST, .key = u->key, .query = S("uploads=") };
    err e = run_call(c, u->s, &k);
    if (!e) u->id = arena_str(c->mem, xml_find(k.mem, buf_str(&k.answer), "UploadId"));
    s3_done(&k);
    if (e || u->id.n) return e;
    return odd(c, u->s, u->key, "it gave no UploadId");
}

static str upload_query(Arena *a, const Upload *u, int64_t part) {
    str id = uri_encode(a, u->id);
    if (part < 0) return arena_printf(a, "uploadId=" STR_FMT, STR_ARG(id));
    return arena_printf(a, "partNumber=%lld&uploadId=" STR_FMT, (long long)part + 1, STR_ARG(id));
}

// Best effort: what stays is swept.
static void upload_abort(Ctx *c, const Upload *u) {
    enum { ABORT_MS = 3000 };
    Failure why = c->failure;
    Ctx own; // the caller's may have been cancelled
    if (!u->id.n) return;
    ctx_init(&own, arena_new(), c->os);
    S3Call k = { .method = HTTP_DELETE,
                 .key = u->key,
                 .query = upload_query(own.mem, u, -1),
                 .patience_ms = ABORT_MS };
    err e = run_call(&own, u->s, &k);
    (void)e;
    s3_done(&k);
    arena_free(own.mem);
    c->failure = why;
}

static err tag_take(Ctx *c, Upload *u, int64_t part, str tag) {
    bool good = tag.n && tag.n <= 200 && str_find_char(tag, '<') < 0 && str_find_char(tag, '&') < 0;
    u->tags[part] = arena_str(c->mem, tag);
    if (good) return ERR_OK;
    return odd(c, u->s, u->key, "a part has no ETag");
}

static err upload_end(Ctx *c, Upload *u) {
    Buf body;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t there = -1;
    buf_init(&body, S3_ANSWER_MAX);
    buf_add(&body, S("<CompleteMultipartUpload>"));
    for (int64_t i = 0; i < u->parts; i++)
        buf_printf(&body, "<Part><PartNumber>%lld</PartNumber><ETag>" STR_FMT "</ETag></Part>",
                   (long long)i + 1, STR_ARG(u->tags[i]));
    buf_add(&body, S("</CompleteMultipartUpload>"));
    assert(!body.full);
    sha256_hex(buf_str(&body), hex);
    S3Call k = { .method = HTTP_POST,
                 .key = u->key,
                 .query = upload_query(c->mem, u, -1),
                 .body = buf_str(&body),
                 .body_hex = str_z(hex) };
    err e = run_call(c, u->s, &k);
    s3_done(&k);
    buf_done(&body);
    if (e && e != ERR_GONE) return e; // gone: an attempt whose answer was lost may have done it
    err found = size_of(c, u->s, u->key, &there);
    if (!found && there == u->size) return ERR_OK;
    if (e || found) return e ? e : found;
    return odd(c, u->s, u->key,
               say(c, "%lld bytes are there, not %lld", (long long)there, (long long)u->size));
}

static int64_t part_size(const Upload *u, int64_t i) {
    int64_t left = u->size - i * u->part;
    return left < u->part ? left : u->part;
}

typedef struct Sending {
    Upload *u;
    File *from;
    Slots *slots;
    const BlobProgress *progress;
    char (*hex)[BLOB_DIGEST_HEX + 1]; // of each slot
    str *query;
} Sending;

static err part_begin(Ctx *c, Sending *d, int64_t i) {
    size_t slot = (size_t)i % d->slots->n, n = (size_t)part_size(d->u, i), got = 0;
    TRY(file_read_at(c, d->from, i * d->u->part, d->slots->bytes[slot], n, &got));
    if (got < n)
        return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "a file became shorter while it was read");
    str bytes = str_n(d->slots->bytes[slot], n);
    sha256_hex(bytes, d->hex[slot]);
    d->slots->at[slot] = (S3Call){ .method = HTTP_PUT,
                                   .key = d->u->key,
                                   .query = upload_query(c->mem, d->u, i),
                                   .body = bytes,
                                   .body_hex = str_z(d->hex[slot]) };
    s3_begin(c, d->u->s, &d->slots->at[slot]);
    return ERR_OK;
}

static err part_end(Ctx *c, Sending *d, int64_t i) {
    S3Call *k = &d->slots->at[(size_t)i % d->slots->n];
    TRY(s3_end(c, k));
    TRY(tag_take(c, d->u, i, s3_header(k, "etag")));
    s3_done(k);
    int64_t done = (i + 1) * d->u->part;
    if (d->progress)
        d->progress->fn(d->progress->arg, done < d->u->size ? done : d->u->size, d->u->size);
    return ctx_check(c);
}

static err send_parts(Ctx *c, Upload *u, File *from, const BlobProgress *progress) {
    Sending d = { .u = u, .from = from, .progress = progress };
    d.slots = slots_new(c, u->s, u->parts, u->part);
    d.hex = (char(*)[BLOB_DIGEST_HEX + 1]) new (c->mem, char, SLOTS_MAX *(BLOB_DIGEST_HEX + 1));
    int64_t ahead = (int64_t)d.slots->n;
    err e = ERR_OK;
    for (int64_t i = 0; !e && i < u->parts + ahead; i++) {
        if (i >= ahead) e = part_end(c, &d, i - ahead);
        if (!e && i < u->parts) e = part_begin(c, &d, i);
    }
    slots_free(d.slots);
    return e;
}

static err put_whole(Ctx *c, S3 *s, str key, str bytes, str hex) {
    S3Call k = { .method = HTTP_PUT, .key = key, .body = bytes, .body_hex = hex };
    err e = run_call(c, s, &k);
    s3_done(&k);
    return e;
}

static err put_small(Ctx *c, S3 *s, str key, File *from, const BlobPut *p) {
    char *bytes = mem_new((size_t)p->size + 1);
    size_t got;
    err e = file_read_at(c, from, 0, bytes, (size_t)p->size, &got);
    if (!e && (int64_t)got < p->size)
        e = fail(c, ERR_INTERNAL, R_INTERNAL, "why", "a file became shorter while it was read");
    if (!e) e = put_whole(c, s, key, str_n(bytes, got), p->hex);
    mem_free(bytes);
    if (!e && p->progress) p->progress->fn(p->progress->arg, p->size, p->size);
    return e;
}

static err put_parts(Ctx *c, Upload *u, File *from, const BlobProgress *progress) {
    u->part = part_of(u->size);
    u->parts = (u->size + u->part - 1) / u->part;
    u->tags = new (c->mem, str, (size_t)u->parts);
    TRY(upload_begin(c, u));
    err e = send_parts(c, u, from, progress);
    if (!e) e = upload_end(c, u);
    if (e) upload_abort(c, u);
    return e;
}

static err s3_put(Ctx *c, Blobs *b, const BlobPut *p) {
    str key = object_key(c->mem, p->hex);
    int64_t there;
    Failure before = c->failure;
    err e = size_of(c, b->s3, key, &there);
    if (!e && there == p->size) return ERR_OK; // the same bytes once
    if (e && e != ERR_NOTFOUND) return e;
    c->failure = before;
    Upload u = { .s = b->s3, .key = key, .size = p->size };
    return p->size <= PART ? put_small(c, b->s3, key, p->from, p)
                           : put_parts(c, &u, p->from, p->progress);
}

// ---- bringing one here, whole and in order

static err pull_begin(Ctx *c, Slots *l, str key, int64_t i, int64_t size) {
    size_t slot = (size_t)i % l->n;
    int64_t left = size - i * PART;
    l->at[slot] = (S3Call){ .key = key, .into = l->bytes[slot] };
    return get_range(c, l->s, &l->at[slot], i * PART, left < PART ? left : PART);
}

static err pull_end(Ctx *c, Slots *l, int64_t i, const BlobSink *to) {
    size_t slot = (size_t)i % l->n;
    S3Call *k = &l->at[slot];
    TRY(s3_end(c, k));
    TRY(range_whole(c, k, (int64_t)k->into_max));
    str bytes = str_n(l->bytes[slot], k->into_n);
    s3_done(k);
    TRY(to->fn(c, to->arg, bytes));
    return ctx_check(c);
}

err s3_pull(Ctx *c, Blobs *b, str hex, const BlobSink *to, int64_t *out_size) {
    str key = object_key(c->mem, hex);
    int64_t size;
    TRY(size_of(c, b->s3, key, &size));
    int64_t parts = (size + PART - 1) / PART;
    Slots *l = slots_new(c, b->s3, parts, PART);
    int64_t ahead = (int64_t)l->n;
    err e = ERR_OK;
    for (int64_t i = 0; !e && i < parts + ahead; i++) {
        if (i >= ahead) e = pull_end(c, l, i - ahead, to);
        if (!e && i < parts) e = pull_begin(c, l, key, i, size);
    }
    slots_free(l);
    *out_size = size;
    return e;
}

// ---- removing

// A DELETE whose answer was lost may still be carried out, perhaps after the same content was
// stored anew: it is for the caller to keep the object condemned until that cannot be.
static err s3_remove(Ctx *c, Blobs *b, str hex) {
    int64_t size;
    TRY(s3_find(c, b, hex, &size));
    S3Call k = { .method = HTTP_DELETE, .key = object_key(c->mem, hex) };
    err e = run_call(c, b->s3, &k);
    bool unsure = k.unsure;
    s3_done(&k);
    if (unsure)
        return fail(c, ERR_UNAVAILABLE, R_S3_UNSURE, "endpoint", s3_config(b->s3)->endpoint.p,
                    "digest", say_str(c, hex));
    return e;
}

static str copy_source(Arena *a, const S3 *s, str key) {
    str full = s3_key(s, a, key);
    return arena_printf(a, "/" STR_FMT "/" STR_FMT, STR_ARG(s3_config(s)->bucket), STR_ARG(full));
}

static err copy_part(Ctx *c, Upload *u, str source, int64_t i) {
    int64_t at = i * u->part, n = part_size(u, i);
    str range = arena_printf(c->mem, "bytes=%lld-%lld", (long long)at, (long long)(at + n - 1));
    S3Call k = { .method = HTTP_PUT,
                 .key = u->key,
                 .query = upload_query(c->mem, u, i),
                 .headers = { { S("x-amz-copy-source"), source },
                              { S("x-amz-copy-source-range"), range } },
                 .headers_n = 2 };
    err e = run_call(c, u->s, &k);
    if (!e) e = tag_take(c, u, i, xml_find(k.mem, buf_str(&k.answer), "ETag"));
    s3_done(&k);
    return e;
}

static err copy_large(Ctx *c, Upload *u, str source) {
    u->part = COPY_PAGE;
    u->parts = (u->size + u->part - 1) / u->part;
    u->tags = new (c->mem, str, (size_t)u->parts);
    TRY(upload_begin(c, u));
    err e = ERR_OK;
    for (int64_t i = 0; !e && i < u->parts; i++) e = copy_part(c, u, source, i);
    if (!e) e = upload_end(c, u);
    if (e) upload_abort(c, u);
    return e;
}

static err s3_quarantine(Ctx *c, Blobs *b, str hex) {
    str from = object_key(c->mem, hex), to = rotten_key(c->mem, hex);
    str source = copy_source(c->mem, b->s3, from);
    Upload u = { .s = b->s3, .key = to };
    TRY(size_of(c, b->s3, from, &u.size));
    if (u.size > copy_max) TRY(copy_large(c, &u, source));
    else {
        S3Call k = { .method = HTTP_PUT,
                     .key = to,
                     .headers = { { S("x-amz-copy-source"), source } },
                     .headers_n = 1 };
        err e = run_call(c, b->s3, &k);
        s3_done(&k);
        TRY(e);
    }
    return ask(c, b->s3, HTTP_DELETE, from);
}

static err s3_rotten(Ctx *c, Blobs *b, str hex, bool *out) {
    int64_t size;
    Failure before = c->failure;
    err e = size_of(c, b->s3, rotten_key(c->mem, hex), &size);
    *out = !e;
    if (e != ERR_NOTFOUND) return e;
    c->failure = before;
    return ERR_OK;
}

static err s3_rotten_remove(Ctx *c, Blobs *b, str hex) {
    return ask(c, b->s3, HTTP_DELETE, rotten_key(c->mem, hex));
}

// ---- listing

typedef struct Listing {
    str *at;
    size_t n, room;
    str token; // of the next page
} Listing;

static void listing_add(Ctx *c, Listing *l, str hex) {
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        str *grown = new (c->mem, str, room);
        if (l->n) memcpy(grown, l->at, l->n * sizeof *grown);
        l->at = grown, l->room = room;
    }
    l->at[l->n++] = hex;
}

// A key that is no object's is somebody else's.
static void listing_key(Ctx *c, S3 *s, Listing *l, str key) {
    str lead = s3_key(s, c->mem, S("")), rest;
    char hex[BLOB_DIGEST_HEX + 1];
    if (!str_starts(key, lead)) return;
    rest = str_sub(key, lead.n, key.n);
    if (rest.n != BLOB_DIGEST_HEX + 1 || rest.p[2] != '/') return;
    memcpy(hex, rest.p, 2), memcpy(hex + 2, rest.p + 3, BLOB_DIGEST_HEX - 2);
    hex[BLOB_DIGEST_HEX] = 0;
    if (sha256_hex_valid(str_z(hex))) listing_add(c, l, arena_str(c->mem, str_z(hex)));
}

static err listing_bad(Ctx *c, S3 *s) { return odd(c, s, S("GET /"), "its listing is malformed"); }

static err listing_read(Ctx *c, S3 *s, Listing *l, S3Call *k) {
    Xml x = xml_of(k->mem, buf_str(&k->answer));
    str name, text;
    bool more = false;
    l->token = (str){ 0 };
    for (;;) {
        switch (xml_next(&x, &name, &text)) {
        case XML_OPEN: break;
        case XML_CLOSE:
            if (x.depth == 2 && str_is(x.open[1], "Contents") && str_is(name, "Key"))
                listing_key(c, s, l, text);
            if (x.depth == 1 && str_is(name, "IsTruncated")) more = str_is(text, "true");
            if (x.depth == 1 && str_is(name, "NextContinuationToken"))
                l->token = arena_str(c->mem, text);
            break;
        case XML_END: return more == (l->token.n > 0) ? ERR_OK : listing_bad(c, s);
        case XML_BAD: return listing_bad(c, s);
        }
    }
}

static str list_query(Ctx *c, S3 *s, const Listing *l, str below, int max) {
    str prefix = uri_encode(c->mem, s3_key(s, c->mem, below)), token = S("");
    if (l->token.n) {
        token = uri_encode(c->mem, l->token);
        token = arena_printf(c->mem, "continuation-token=" STR_FMT "&", STR_ARG(token));
    }
    return arena_printf(c->mem, STR_FMT "list-type=2&max-keys=%d&prefix=" STR_FMT, STR_ARG(token),
                        max, STR_ARG(prefix));
}

static err list_page(Ctx *c, S3 *s, Listing *l, str below, int max) {
    S3Call k = { .method = HTTP_GET, .query = list_query(c, s, l, below, max) };
    err e = run_call(c, s, &k);
    if (!e) e = listing_read(c, s, l, &k);
    s3_done(&k);
    return e;
}

static err s3_list(Ctx *c, Blobs *b, str prefix2, str **out_hex, size_t *out_n) {
    Listing l = { 0 };
    str below = arena_printf(c->mem, STR_FMT "/", STR_ARG(prefix2));
    do {
        TRY(list_page(c, b->s3, &l, below, LIST_PAGE));
        TRY(ctx_check(c));
    } while (l.token.n);
    *out_hex = l.at, *out_n = l.n;
    return ERR_OK;
}

// ---- looking after it

static err check_list(Ctx *c, S3 *s, int64_t patience_ms) {
    Listing l = { 0 };
    S3Call k = { .method = HTTP_GET,
                 .query = list_query(c, s, &l, S(""), 1),
                 .patience_ms = patience_ms };
    err e = run_call(c, s, &k);
    if (!e) e = listing_read(c, s, &l, &k); // what is no S3 may answer 200 too
    s3_done(&k);
    return e;
}

err blobs_s3_check(Ctx *c, Blobs *b, int64_t patience_ms) {
    return check_list(c, b->s3, patience_ms);
}

static err check_write(Ctx *c, S3 *s) {
    char hex[BLOB_DIGEST_HEX + 1];
    str id = os_id(c, "check"), key = arena_printf(c->mem, "check/" STR_FMT, STR_ARG(id));
    sha256_hex(id, hex);
    TRY(put_whole(c, s, key, id, str_z(hex)));
    return ask(c, s, HTTP_DELETE, key);
}

err s3_probe(Ctx *c, const S3Config *config) {
    S3 *s;
    TRY(s3_open(c, config, &s));
    err e = check_list(c, s, config->patience_ms);
    if (!e) e = check_write(c, s);
    s3_close(s);
    return e;
}

typedef struct Left { // an upload that somebody began
    str key, id, since;
} Left;

static err left_abort(Ctx *c, S3 *s, const Left *l, int64_t *io_n) {
    str lead = s3_key(s, c->mem, S(""));
    int64_t since_ms;
    if (!str_starts(l->key, lead) || !l->id.n || !time_parse(l->since, &since_ms)) return ERR_OK;
    if (os_wall_ms(c->os) - since_ms < ABANDONED_MS) return ERR_OK;
    Upload u = { .s = s, .key = str_sub(l->key, lead.n, l->key.n), .id = l->id };
    S3Call k = { .method = HTTP_DELETE, .key = u.key, .query = upload_query(c->mem, &u, -1) };
    err e = run_call(c, s, &k);
    s3_done(&k);
    *io_n += !e;
    return e == ERR_GONE || e == ERR_NOTFOUND ? ERR_OK : e;
}

// The first thousand; those behind them are found once these are gone.
err blobs_s3_sweep(Ctx *c, Blobs *b, int64_t *out_n) {
    S3 *s = b->s3;
    str prefix = uri_encode(c->mem, s3_key(s, c->mem, S(""))), name, text;
    S3Call k = { .method = HTTP_GET,
                 .query = arena_printf(c->mem, "prefix=" STR_FMT "&uploads=", STR_ARG(prefix)) };
    Left left = { 0 };
    *out_n = 0;
    err e = run_call(c, s, &k);
    Xml x = e ? (Xml){ .bad = true } : xml_of(k.mem, buf_str(&k.answer));
    for (XmlKind kind = XML_OPEN; !e && kind != XML_END;) {
        kind = xml_next(&x, &name, &text);
        if (kind == XML_BAD) e = listing_bad(c, s);
        if (kind != XML_CLOSE) continue;
        bool in = x.depth == 2 && str_is(x.open[1], "Upload");
        if (in && str_is(name, "Key")) left.key = text;
        if (in && str_is(name, "UploadId")) left.id = text;
        if (in && str_is(name, "Initiated")) left.since = text;
        if (x.depth != 1 || !str_is(name, "Upload")) continue;
        e = left_abort(c, s, &left, out_n);
        left = (Left){ 0 };
    }
    s3_done(&k);
    return e;
}

const Place place_s3 = { .find = s3_find,
                         .open = s3_open_object,
                         .read = s3_read,
                         .close = s3_close_object,
                         .put = s3_put,
                         .remove = s3_remove,
                         .quarantine = s3_quarantine,
                         .rotten = s3_rotten,
                         .rotten_remove = s3_rotten_remove,
                         .list = s3_list };
