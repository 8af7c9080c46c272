// SPDX-License-Identifier: Apache-2.0
// blob_test.c - objects on real files and in a real bucket: digests, once only, resuming, refusals.
// Power cuts and full disks are blob_sim_test.c, what S3 alone can do s3_test.c.
#include "blob/blob_test.h"
#include <sys/stat.h>
#include <unistd.h>

TEST(blob_sha256_vectors) { // FIPS 180-4 examples
    char hex[BLOB_DIGEST_HEX + 1];
    sha256_hex(S("abc"), hex);
    CHECK_STR(str_z(hex), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex((str){ 0 }, hex);
    CHECK_STR(str_z(hex), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256_hex_valid(str_z(hex)));
    CHECK(!sha256_hex_valid(str_n(hex, 63)));
    hex[5] = 'A';
    CHECK(!sha256_hex_valid(str_z(hex)));
}

STORE_TEST(blob_bytes_come_back_under_their_digest_once) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    CHECK_OK(c, blob_test_open(c, &b));
    for (size_t n = 0; n < 3000000; n = n * 7 + 1) {
        char hex[BLOB_DIGEST_HEX + 1], again[BLOB_DIGEST_HEX + 1], want[BLOB_DIGEST_HEX + 1];
        str bytes = noise(c->mem, n, n), back;
        sha256_hex(bytes, want);
        CHECK(!blob_has(c, b, str_z(want)));
        CHECK_OK(c, put(c, b, bytes, hex));
        CHECK_STR(str_z(hex), want);
        CHECK_OK(c, get(c, b, str_z(hex), &back));
        CHECK(str_eq(back, bytes));
        struct stat before, after;
        CHECK(store_is_s3 || stat(blob_path(c, b, str_z(hex)).p, &before) == 0);
        CHECK_OK(c, put(c, b, bytes, again));
        CHECK(store_is_s3 || stat(blob_path(c, b, str_z(hex)).p, &after) == 0);
        CHECK((store_is_s3 || before.st_ino == after.st_ino) && str_is(str_z(hex), again));
        CHECK_OK(c, blob_verify(c, b, str_z(hex)));
        str *list;
        size_t list_n;
        CHECK_OK(c, blob_list(c, b, str_n(hex, 2), &list, &list_n));
        CHECK(list_n == 1 && str_is(list[0], hex));
        CHECK_OK(c, blob_remove(c, b, str_z(hex)));
        CHECK_ERR(blob_remove(c, b, str_z(hex)), ERR_NOTFOUND);
        CHECK_ERR(blob_verify(c, b, str_z(hex)), ERR_NOTFOUND);
        CHECK(c->failure.why == &R_BLOB_ABSENT);
    }
    CHECK_INT(staging_files(c), 0);
    blobs_close(b);
}

STORE_TEST(blob_pieces_and_resuming_give_the_same_digest) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    str bytes = noise(c->mem, 1000000, 3);
    char want[BLOB_DIGEST_HEX + 1], hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    sha256_hex(bytes, want);
    CHECK_OK(c, blob_test_open(c, &b));
    for (size_t at = 0, step = 1; at < bytes.n; step = step * 3 + 1) {
        BlobWriter *w; // paused, reopened and continued for each piece
        CHECK_OK(c, blob_stage(c, b, S("import_1"), &w));
        CHECK_INT(blob_staged(w), at);
        str piece = str_sub(bytes, at, step);
        CHECK_OK(c, blob_append(c, w, piece));
        at += piece.n;
        blob_pause(w);
        blobs_close(b);
        CHECK_OK(c, blob_test_open(c, &b));
    }
    BlobWriter *w;
    CHECK_OK(c, blob_stage(c, b, S("import_1"), &w));
    CHECK_INT(blob_staged(w), bytes.n);
    CHECK_OK(c, blob_commit(c, w, str_z(want), hex, &size));
    CHECK(size == (int64_t)bytes.n && str_is(str_z(hex), want));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    CHECK_INT(staging_files(c), 0);
    blobs_close(b);
}

STORE_TEST(blob_a_writer_ends_with_its_ctx) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    BlobWriter *w;
    CHECK_OK(c, blob_test_open(c, &b));
    for (int named = 0; named < 2; named++) {
        Ctx call;
        ctx_init(&call, arena_new(), c->os);
        CHECK_OK(&call, blob_stage(&call, b, named ? S("kept") : (str){ 0 }, &w));
        CHECK_OK(&call, blob_append(&call, w, S("12345")));
        CHECK_INT(staging_files(c), named ? 2 : 1);
        arena_free(call.mem);
        CHECK_INT(staging_files(c), named ? 2 : 0);
    }
    CHECK_OK(c, blob_stage(c, b, S("kept"), &w));
    CHECK_INT(blob_staged(w), 5);
    blob_abandon(c, w);
    CHECK_INT(staging_files(c), 0);
    blobs_close(b);
}

STORE_TEST(blob_wrong_digest_and_hostile_names_are_refused) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    BlobWriter *w, *second;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    CHECK_OK(c, blob_test_open(c, &b));
    CHECK_OK(c, blob_stage(c, b, S("a"), &w));
    CHECK_OK(c, blob_append(c, w, S("x")));
    CHECK_ERR(blob_stage(c, b, S("a"), &second), ERR_CONFLICT);
    sha256_hex(S("y"), hex);
    CHECK_ERR(blob_commit(c, w, str_z(hex), hex, &size), ERR_INVALID);
    CHECK(c->failure.why == &R_BLOB_DIGEST);
    CHECK_INT(staging_files(c), 0);
    const char *bad[] = {
        "",         "..",
        "../x",     "a/b",
        "A",        "a.synced",
        "-u",       "a b",
        "\xc3\xa9", "0123456789012345678901234567890123456789012345678901234567890123_"
    };
    for (size_t i = 0; i < countof(bad); i++) {
        CHECK_ERR(blob_stage(c, b, str_z(bad[i]), &w), ERR_INVALID);
        CHECK(c->failure.why == &R_BLOB_NAME);
    }
    CHECK_ERR(blob_stage(c, b, str_n("a\0b", 3), &w), ERR_INVALID);
    BlobReader *f;
    const char *digests[] = { "", "../../etc/passwd", "zz", "ab/../../../../../../../etc/passwd" };
    for (size_t i = 0; i < countof(digests); i++)
        CHECK_ERR(blob_open(c, b, str_z(digests[i]), &f, &size), ERR_NOTFOUND);
    CHECK_INT(staging_files(c), 0);
    blobs_close(b);
}

static void progress_note(void *arg, int64_t done, int64_t total) {
    int64_t *last = arg;
    if (done < *last || done > total) test_failed(__FILE__, __LINE__, "progress went back");
    *last = done;
}

STORE_TEST(blob_import_is_not_changed_by_its_source) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    char hex[BLOB_DIGEST_HEX + 1], want[BLOB_DIGEST_HEX + 1];
    int64_t size, last = 0;
    str path = arena_printf(c->mem, "%s/source", test_dir());
    str bytes = noise(c->mem, (1 << 20) + 5, 9), back;
    CHECK_OK(c, blob_test_open(c, &b));
    CHECK_OK(c, file_write_all(c, path, bytes, 0));
    BlobProgress p = { progress_note, &last };
    CHECK_OK(c, blob_import(c, b, path, &p, hex, &size));
    sha256_hex(bytes, want);
    CHECK(str_is(str_z(hex), want) && size == (int64_t)bytes.n && last == size);
    File *f;
    CHECK_OK(c, file_open(c, path, FILE_WRITE, &f));
    CHECK_OK(c, file_write_at(c, f, 100, "changed", 7)); // in place: a hard link would share it
    file_close(f);
    CHECK_OK(c, get(c, b, str_z(hex), &back));
    CHECK(str_eq(back, bytes));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    CHECK_ERR(blob_import(c, b, str_z(test_dir()), NULL, hex, &size), ERR_INVALID);
    CHECK(mkfifo(arena_printf(c->mem, "%s/pipe", test_dir()).p, 0600) == 0);
    CHECK_ERR(blob_import(c, b, arena_printf(c->mem, "%s/pipe", test_dir()), NULL, hex, &size),
              ERR_INVALID);
    CHECK_ERR(blob_import(c, b, S("/no/such/file"), NULL, hex, &size), ERR_NOTFOUND);
    ctx_cancel(c);
    CHECK_ERR(blob_import(c, b, path, NULL, hex, &size), ERR_CANCELLED);
    CHECK_INT(staging_files(c), 0);
    blobs_close(b);
}

TEST(blob_rot_is_found_and_healed_by_new_bytes) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    char hex[BLOB_DIGEST_HEX + 1];
    str bytes = noise(c->mem, 300000, 4);
    CHECK_OK(c, blobs_open(c, str_z(test_dir()), &b));
    CHECK_OK(c, put(c, b, bytes, hex));
    str path = blob_path(c, b, str_z(hex));
    CHECK(chmod(path.p, 0600) == 0);
    File *f;
    CHECK_OK(c, file_open(c, path, FILE_READ | FILE_WRITE, &f));
    CHECK_OK(c, file_write_at(c, f, 299999, "\xee", 1));
    CHECK_ERR(blob_verify(c, b, str_z(hex)), ERR_INTERNAL);
    CHECK(c->failure.why == &R_BLOB_ROTTEN);
    CHECK_OK(c, file_truncate(c, f, 10));
    file_close(f);
    CHECK_ERR(blob_verify(c, b, str_z(hex)), ERR_INTERNAL);
    CHECK_OK(c, put(c, b, bytes, hex)); // of another size: replaced
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    blobs_close(b);
}

static void count_pieces(void *arg, int64_t done, int64_t total) {
    int64_t *last = arg;
    CHECK(done > *last && done <= total);
    *last = done;
}

TEST(blob_a_quarantined_object_is_gone_until_it_is_stored_anew) {
    Ctx *c = blob_test_ctx();
    Blobs *b;
    File *f;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size, seen = 0;
    str bytes = noise(c->mem, 700000, 5);
    CHECK_OK(c, blobs_open(c, str_z(test_dir()), &b));
    CHECK_OK(c, put(c, b, bytes, hex));
    CHECK_OK(c, blob_verify_slowly(c, b, str_z(hex), &(BlobProgress){ count_pieces, &seen }));
    CHECK_INT(seen, 700000);
    CHECK_OK(c, file_open(c, blob_path(c, b, str_z(hex)), FILE_READ | FILE_WRITE, &f));
    CHECK_OK(c, file_write_at(c, f, 0, "\x01", 1)); // the same size: storing it would find it there
    file_close(f);
    CHECK_OK(c, blob_quarantine(c, b, str_z(hex)));
    CHECK(!blob_has(c, b, str_z(hex)));
    BlobReader *r;
    CHECK_ERR(blob_open(c, b, str_z(hex), &r, &size), ERR_NOTFOUND);
    CHECK_ERR(blob_quarantine(c, b, str_z(hex)), ERR_NOTFOUND);
    CHECK_OK(c, put(c, b, bytes, hex));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    CHECK_OK(c, blob_rotten_remove(c, b, str_z(hex)));
    CHECK_OK(c, blob_rotten_remove(c, b, str_z(hex)));
    CHECK_OK(c, blob_verify(c, b, str_z(hex)));
    blobs_close(b);
}
