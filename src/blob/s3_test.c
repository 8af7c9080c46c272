// SPDX-License-Identifier: Apache-2.0
// s3_test.c - what S3 alone can do: signatures and XML by themselves; then, in the bucket that
// LATHE_TEST_S3 names (test/s3-run), parts, ranges, rot, local copies, moves, and settings that
// cannot be good. Failing services are test/client/test_s3.py.
#include "blob/blob_test.h"
#include "blob/sigv4.h"
#include "blob/xml.h"
#include "os/thread.h"

// ---- signatures: the examples of "Signature Calculations for the Authorization Header", S3's API

typedef struct Example {
    const char *method, *path, *query, *range, *extra, *value, *payload, *signature;
} Example;

TEST(s3_signatures_are_those_of_the_published_examples) {
    static const char none[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    static const Example all[] = {
        { "GET", "/test.txt", "", "bytes=0-9", NULL, NULL, none,
          "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
        { "GET", "/", "lifecycle=", NULL, NULL, NULL, none,
          "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
        { "GET", "/", "max-keys=2&prefix=J", NULL, NULL, NULL, none,
          "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
        { "PUT", "/test%24file.text", "", NULL, "x-amz-storage-class", "REDUCED_REDUNDANCY",
          "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
          "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },
    };
    Ctx *c = test_ctx();
    char date[SIGV4_DATE];
    sigv4_date(1369353600000, date);
    CHECK_STR(str_z(date), "20130524T000000Z");
    for (size_t i = 0; i < countof(all); i++) {
        const Example *x = &all[i];
        HttpHeader h[6];
        size_t n = 0;
        if (x->extra) h[n++] = (HttpHeader){ S("date"), S("Fri, 24 May 2013 00:00:00 GMT") };
        h[n++] = (HttpHeader){ S("host"), S("examplebucket.s3.amazonaws.com") };
        if (x->range) h[n++] = (HttpHeader){ S("range"), str_z(x->range) };
        h[n++] = (HttpHeader){ S("x-amz-content-sha256"), str_z(x->payload) };
        h[n++] = (HttpHeader){ S("x-amz-date"), str_z(date) };
        if (x->extra) h[n++] = (HttpHeader){ str_z(x->extra), str_z(x->value) };
        SigV4 s = { .method = x->method,
                    .path = str_z(x->path),
                    .query = str_z(x->query),
                    .headers = h,
                    .headers_n = n,
                    .payload_hex = str_z(x->payload),
                    .region = S("us-east-1"),
                    .access_key = S("AKIAIOSFODNN7EXAMPLE"),
                    .secret_key = S("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
                    .date = date };
        str got = sigv4_authorization(c->mem, &s);
        CHECK(str_ends(got, str_z(x->signature)));
    }
    CHECK_STR(uri_encode(c->mem, S("a/b c~\xe4\xbd\xa0")), "a%2Fb%20c~%E4%BD%A0");
}

// ---- XML

TEST(s3_xml_gives_texts_by_their_path) {
    Ctx *c = test_ctx();
    str text = S("<?xml version=\"1.0\"?>\n<Error a='>'><Code>No &amp; &#x4f60;</Code><E/>"
                 "<Owner><Code>other</Code></Owner></Error> ");
    CHECK_STR(xml_find(c->mem, text, "Code"), "No & \xe4\xbd\xa0");
    CHECK_STR(xml_find(c->mem, text, "Owner/Code"), "other");
    CHECK_STR(xml_find(c->mem, text, "E"), "");
    CHECK(!xml_find(c->mem, text, "Owner/E").p);
    for (size_t n = 0; n + 1 < text.n; n++) // cut anywhere it is bad
        CHECK(!xml_find(c->mem, str_sub(text, 0, n), "Code").p);
}

TEST(s3_xml_refuses_what_is_not_plain) {
    static const char *const bad[] = {
        "",
        "x",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a>x<b/></a>",
        "<!DOCTYPE a><a/>",
        "<a><!-- --></a>",
        "<a><![CDATA[x]]></a>",
        "<a>&x;</a>",
        "<a>&#0;</a>",
        "<a>&#xd800;</a>",
        "<a>&amp</a>",
        "<a b=\"x></a>",
        "<a\xff/>",
        "<a>\xff</a>",
        "< a/>",
        "<a><?php ?></a>",
        "<a/>x",
        "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a></a></a></a></a></a></a></a></a></a>"
        "</a></a></a></a></a></a></a></a>",
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(bad); i++) {
        Xml x = xml_of(c->mem, str_z(bad[i]));
        str name, value;
        XmlKind kind = XML_OPEN;
        for (int n = 0; n < 100 && kind != XML_END && kind != XML_BAD; n++)
            kind = xml_next(&x, &name, &value);
        if (kind != XML_BAD) test_failed(__FILE__, __LINE__, "taken: %s", bad[i]);
    }
}

// ---- settings

TEST(s3_settings_that_cannot_be_good_are_named) {
    static const struct {
        const char *setting, *endpoint, *bucket, *prefix, *region, *key, *secret;
    } all[] = {
        { "blob.s3.bucket", "http://h", "", "p", "r", "k", "s" },
        { "blob.s3.bucket", "http://h", "a/b", "p", "r", "k", "s" },
        { "blob.s3.prefix", "http://h", "bucket", "/p", "r", "k", "s" },
        { "blob.s3.prefix", "http://h", "bucket", "a b", "r", "k", "s" },
        { "blob.s3.region", "http://h", "bucket", "p", "", "k", "s" },
        { "blob.s3.access_key", "http://h", "bucket", "p", "r", "", "s" },
        { "blob.s3.access_key", "http://h", "bucket", "p", "r", "a\r\nb", "s" },
        { "blob.s3.secret_key", "http://h", "bucket", "p", "r", "k", "" },
        { "blob.s3.endpoint", "ftp://h", "bucket", "p", "r", "k", "s" },
        { "blob.s3.endpoint", "http://", "bucket", "p", "r", "k", "s" },
        { "blob.s3.endpoint", "http://h:0", "bucket", "p", "r", "k", "s" },
        { "blob.s3.endpoint", "http://h/base", "bucket", "p", "r", "k", "s" },
        { "blob.s3.endpoint", "http://u:p@h", "bucket", "p", "r", "k", "s" },
    };
    Ctx *c = blob_test_ctx();
    for (size_t i = 0; i < countof(all); i++) {
        S3Config k = { .endpoint = str_z(all[i].endpoint),
                       .bucket = str_z(all[i].bucket),
                       .prefix = str_z(all[i].prefix),
                       .region = str_z(all[i].region),
                       .access_key = str_z(all[i].key),
                       .secret_key = str_z(all[i].secret) };
        CHECK_ERR(s3_probe(c, &k), ERR_INVALID);
        CHECK(c->failure.why == &R_S3_SETTING);
        CHECK_STR(failure_param(&c->failure, "setting"), all[i].setting);
    }
}

// ---- in a bucket

static bool open_bucket(Ctx *c, Blobs **out) {
    S3Config config;
    if (!s3_there(c, &config)) return false;
    store_is_s3 = true;
    err e = blob_test_open(c, out);
    if (e) test_failed(__FILE__, __LINE__, "the bucket does not open");
    return !e;
}

TEST(s3_large_objects_go_in_parts_and_come_in_any_ranges) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    BlobReader *r;
    char hex[BLOB_DIGEST_HEX + 1], piece[70000];
    int64_t size;
    size_t got;
    if (!open_bucket(c, &b)) return;
    str bytes = noise(c->mem, (33 << 20) + 7, 1);
    CHECK_OK(c, put(c, b, bytes, hex));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    CHECK_OK(c, blob_find(c, b, str_z(hex), &size));
    CHECK_INT(size, bytes.n);
    CHECK_OK(c, blob_open(c, b, str_z(hex), &r, &size));
    uint64_t dice = test_random();
    for (int i = 0; i < 40; i++) {
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        int64_t at = (int64_t)((dice >> 33) % bytes.n);
        size_t n = (dice >> 20) % sizeof piece;
        CHECK_OK(c, blob_read_at(c, r, at, piece, n, &got));
        CHECK(str_eq(str_n(piece, got), str_sub(bytes, (size_t)at, n)));
    }
    CHECK_OK(c, blob_read_at(c, r, size, piece, 1, &got));
    CHECK_INT(got, 0);
    blob_close(r);
    int64_t swept;
    CHECK_OK(c, blobs_s3_sweep(c, b, &swept));
    CHECK_INT(swept, 0); // nothing was left, and nothing young is taken
    CHECK_OK(c, blob_remove(c, b, str_z(hex)));
    blobs_close(b);
}

TEST(s3_a_cancelled_upload_leaves_nothing) {
    Ctx *c = blob_test_ctx(), call;
    Blobs *b;
    BlobWriter *w;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    if (!open_bucket(c, &b)) return;
    ctx_init(&call, arena_new(), c->os);
    CHECK_OK(&call, blob_stage(&call, b, S("kept"), &w));
    CHECK_OK(&call, blob_append(&call, w, noise(c->mem, 20 << 20, 2)));
    ctx_cancel(&call);
    CHECK(blob_commit(&call, w, (str){ 0 }, hex, &size) != ERR_OK);
    arena_free(call.mem);
    CHECK_OK(c, blob_stage(c, b, S("kept"), &w));
    CHECK_INT(blob_staged(w), 20 << 20); // nothing that was staged is lost
    CHECK_OK(c, blob_commit(c, w, (str){ 0 }, hex, &size));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    CHECK_OK(c, blob_remove(c, b, str_z(hex)));
    blobs_close(b);
}

TEST(s3_what_is_listed_is_what_was_stored) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    enum { N = 40 };
    char hex[N][BLOB_DIGEST_HEX + 1];
    if (!open_bucket(c, &b)) return;
    for (int i = 0; i < N; i++) CHECK_OK(c, put(c, b, noise(c->mem, (size_t)i, 100), hex[i]));
    size_t total = 0;
    for (int i = 0; i < N; i++) {
        str *list;
        size_t n, found = 0;
        CHECK_OK(c, blob_list(c, b, str_n(hex[i], 2), &list, &n));
        for (size_t k = 0; k < n; k++) {
            CHECK(!k || str_cmp(list[k - 1], list[k]) < 0);
            found += str_is(list[k], hex[i]);
        }
        CHECK_INT(found, 1);
        total += n;
    }
    CHECK(total >= N);
    blobs_close(b);
}

TEST(s3_a_damaged_object_goes_out_of_the_way) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    char hex[BLOB_DIGEST_HEX + 1];
    bool there;
    str bytes = noise(c->mem, 300000, 7);
    if (!open_bucket(c, &b)) return;
    CHECK_OK(c, put(c, b, bytes, hex));
    CHECK_OK(c, blob_rotten(c, b, str_z(hex), &there));
    CHECK(!there);
    CHECK_OK(c, blob_quarantine(c, b, str_z(hex)));
    CHECK_ERR(blob_find(c, b, str_z(hex), NULL), ERR_NOTFOUND);
    CHECK_ERR(blob_quarantine(c, b, str_z(hex)), ERR_NOTFOUND);
    CHECK_OK(c, blob_rotten(c, b, str_z(hex), &there));
    CHECK(there);
    CHECK_OK(c, put(c, b, bytes, hex));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    CHECK_OK(c, blob_rotten_remove(c, b, str_z(hex)));
    CHECK_OK(c, blob_rotten(c, b, str_z(hex), &there));
    CHECK(!there);
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    blobs_close(b);
}

// ---- local copies

static void copies_drop(Ctx *c) {
    str dir = arena_printf(c->mem, "%s/cached", test_dir()), *names;
    size_t n;
    if (dir_list(c, dir, &names, &n)) return;
    for (size_t i = 0; i < n; i++) {
        err e = path_remove(
            c, arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(dir), STR_ARG(names[i])));
        (void)e;
    }
}

TEST(s3_copies_are_bounded_the_oldest_goes_and_pinned_ones_stay) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    enum { N = 4, SIZE = 100000 };
    char hex[N][BLOB_DIGEST_HEX + 1];
    str path, pinned;
    if (!open_bucket(c, &b)) return;
    blobs_cache_max(b, 0);
    for (int i = 0; i < N; i++)
        CHECK_OK(c, put(c, b, noise(c->mem, SIZE, 20 + (uint64_t)i), hex[i]));
    CHECK_INT(blobs_cache_bytes(b), 0);
    CHECK_ERR(blob_fetch(c, b, str_z(hex[0]), NULL, &path), ERR_FULL);
    CHECK(c->failure.why == &R_CACHE_FULL);
    blobs_cache_max(b, 2 * SIZE + 10);
    pinned = str_z(hex[0]);
    blobs_pin(b, S("dep"), &pinned, 1);
    for (int i = 0; i < N; i++) {
        CHECK_ERR(blob_local(c, b, str_z(hex[i]), &path), ERR_NOTFOUND);
        CHECK_OK(c, blob_fetch(c, b, str_z(hex[i]), NULL, &path));
        CHECK_OK(c, blob_local(c, b, str_z(hex[i]), &path));
        CHECK(blobs_cache_bytes(b) <= 2 * SIZE + 10);
        CHECK_OK(c, blob_local(c, b, pinned, &path));
    }
    CHECK_ERR(blob_local(c, b, str_z(hex[2]), &path), ERR_NOTFOUND); // the last two that fit: 0, 3
    str both[2] = { pinned, str_z(hex[3]) };
    blobs_pin(b, S("dep"), both, 2);
    CHECK_ERR(blob_fetch(c, b, str_z(hex[1]), NULL, &path), ERR_FULL);
    blobs_pin(b, S("dep"), NULL, 0);
    CHECK_OK(c, blob_fetch(c, b, str_z(hex[1]), NULL, &path));
    blobs_close(b);
    CHECK_OK(c, blob_test_open(c, &b)); // after a restart they are still known
    CHECK_INT(blobs_cache_bytes(b), 2 * SIZE);
    CHECK_OK(c, blob_local(c, b, str_z(hex[1]), &path));
    copies_drop(c); // somebody tidied up
    CHECK_ERR(blob_local(c, b, str_z(hex[1]), &path), ERR_NOTFOUND);
    CHECK_OK(c, blob_fetch(c, b, str_z(hex[1]), NULL, &path));
    blobs_close(b);
}

typedef struct Asker {
    Blobs *b;
    str hex;
    int64_t steps;
    bool good;
} Asker;
static void asker_step(void *arg, int64_t done, int64_t total) {
    Asker *a = arg;
    a->steps++;
    if (total && done > total) a->steps = -1000000;
}
static void ask_for(void *arg) {
    Asker *a = arg;
    Ctx c;
    str path;
    BlobProgress progress = { asker_step, a };
    ctx_init(&c, arena_new(), os_real());
    a->good = !blob_fetch(&c, a->b, a->hex, &progress, &path);
    arena_free(c.mem);
}

TEST(s3_who_asks_for_the_same_copy_shares_one_reading) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    enum { N = 6 };
    Asker askers[N];
    Thread threads[N];
    char hex[BLOB_DIGEST_HEX + 1];
    if (!open_bucket(c, &b)) return;
    blobs_cache_max(b, 0);
    CHECK_OK(c, put(c, b, noise(c->mem, 20 << 20, 30), hex));
    blobs_cache_max(b, (20 << 20) + 1); // two at a time would not fit
    for (int i = 0; i < N; i++) {
        askers[i] = (Asker){ b, str_z(hex), 0, false };
        thread_start(c->os, "asker", ask_for, &askers[i], &threads[i]);
    }
    for (int i = 0; i < N; i++) thread_join(threads[i]);
    for (int i = 0; i < N; i++) CHECK(askers[i].good && askers[i].steps >= 0);
    CHECK_INT(blobs_cache_bytes(b), 20 << 20);
    CHECK_OK(c, blob_remove(c, b, str_z(hex)));
    CHECK_INT(blobs_cache_bytes(b), 0); // its copy goes with it
    blobs_close(b);
}

// ---- from one store to the other

TEST(s3_objects_move_there_and_back_and_are_read_meanwhile) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    S3Config config;
    enum { N = 3 };
    static const size_t sizes[N] = { 0, 1000, 20 << 20 };
    char hex[N][BLOB_DIGEST_HEX + 1];
    str bytes[N], back;
    bool moved;
    if (!s3_there(c, &config)) return;
    CHECK_OK(c, blobs_open(c, str_z(test_dir()), &b));
    for (int i = 0; i < N; i++) {
        bytes[i] = noise(c->mem, sizes[i], 40 + (uint64_t)i);
        CHECK_OK(c, put(c, b, bytes[i], hex[i]));
    }
    blobs_close(b);
    for (int to_s3 = 1; to_s3 >= 0; to_s3--) {
        CHECK_OK(c, blobs_open(c, str_z(test_dir()), &b));
        CHECK_OK(c, blobs_use_s3(c, b, &config, to_s3));
        for (int i = 0; i < N; i++) {
            PathInfo info;
            CHECK_OK(c, get(c, b, str_z(hex[i]), &back));
            CHECK(str_eq(back, bytes[i]));
            CHECK_OK(c, blob_move(c, b, str_z(hex[i]), NULL, &moved));
            CHECK(moved);
            CHECK_OK(c, blob_move(c, b, str_z(hex[i]), NULL, &moved));
            CHECK(!moved);
            CHECK(!path_info(c, blob_path(c, b, str_z(hex[i])), &info) == !to_s3);
            CHECK_OK(c, get(c, b, str_z(hex[i]), &back));
            CHECK(str_eq(back, bytes[i]));
        }
        blobs_close(b);
    }
    CHECK_OK(c, blobs_open(c, str_z(test_dir()), &b)); // without the bucket all are here
    for (int i = 0; i < N; i++) CHECK_OK(c, blob_verify(c, b, str_z(hex[i])));
    blobs_close(b);
}
