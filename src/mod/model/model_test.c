// SPDX-License-Identifier: Apache-2.0
// model_test.c - models, versions and imports from files, on both databases: numbers, facts,
// hostile files, restarts at every step, shared objects. HTTP both ways is model_http_test.c.
#include "mod/model/model_test.h"
#include "res/collect.h"
#include <stdlib.h>

static str text_of(const Version *v) { return v->state_reason; }
static bool has(str text, const char *part) { return str_find(text, str_z(part)) >= 0; }

// ---- numbers and names

MODEL_TEST(versions_are_numbered_once) {
    Ctx *c = f->c;
    Version v;
    Model m;
    ImportInput in = { .path = S("/nowhere/a.gguf") };
    CHECK_OK(c, model_fix_model(f, "smol", NULL));
    for (int i = 1; i <= 3; i++) {
        CHECK_OK(c, model_fix_import(f, "smol", &in, &v));
        CHECK_INT(v.number, i);
        CHECK_INT(v.state, VERSION_WAITING);
        CHECK(v.job.n);
    }
    CHECK_OK(c, model_fix_delete(f, &model_version_resource, "smol:3"));
    CHECK_OK(c, model_fix_import(f, "smol", &in, &v));
    CHECK_INT(v.number, 4);
    CHECK_OK(c, model_fix_get(f, "smol", &m));
    CHECK_INT(m.last_number, 4);
    CHECK_INT(m.versions, 3);
    CHECK_INT(m.latest, 0);
    CHECK_ERR(model_fix_version(f, "smol:3", &v), ERR_NOTFOUND);
    CHECK_ERR(model_fix_version(f, "smol:0", &v), ERR_NOTFOUND);
    CHECK_ERR(model_fix_version(f, "smol:1x", &v), ERR_NOTFOUND);
    CHECK_ERR(model_fix_version(f, "smol:", &v), ERR_NOTFOUND);
    CHECK_ERR(model_fix_version(f, "other", &v), ERR_NOTFOUND);
    CHECK_ERR(model_fix_version(f, "smol", &v), ERR_CONFLICT); // none is ready
    CHECK(c->failure.why == &R_VERSION_NOT_READY);
    CHECK_OK(c, model_fix_version(f, "smol:4", &v));
    c->project = S("proj_2");
    CHECK_ERR(model_fix_version(f, "smol:4", &v), ERR_NOTFOUND);
    CHECK_ERR(model_fix_version(f, arena_z(c->mem, v.head.id), &v), ERR_NOTFOUND);
}

MODEL_TEST(a_source_is_one_and_well_formed) {
    Ctx *c = f->c;
    Version v;
    str both = S("/a"), bad_urls[] = { S("https://u@example.org/a"),
                                       S("ftp://example.org/a"),
                                       S("http://"),
                                       S("http://u:p@example.org/"),
                                       S("http://example.org:0/"),
                                       S("http://exa mple.org/"),
                                       S("http://[::1/") };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_ERR(model_fix_import(f, "m", &(ImportInput){ 0 }, &v), ERR_INVALID);
    CHECK_ERR(model_fix_import(f, "m", &(ImportInput){ .path = both, .url = S("http://a.b/") }, &v),
              ERR_INVALID);
    CHECK(c->failure.why == &R_IMPORT_SOURCE);
    CHECK_ERR(model_fix_import(f, "m", &(ImportInput){ .path = S("a.gguf") }, &v), ERR_INVALID);
    CHECK(c->failure.why == &R_PATH_FORM);
    CHECK_ERR(model_fix_import(f, "m", &(ImportInput){ .path = both, .sha256 = S("abc") }, &v),
              ERR_INVALID);
    CHECK(c->failure.why == &R_IMPORT_DIGEST);
    for (size_t i = 0; i < countof(bad_urls); i++) {
        CHECK_ERR(model_fix_import(f, "m", &(ImportInput){ .url = bad_urls[i] }, &v), ERR_INVALID);
        CHECK(c->failure.why == &R_URL_FORM);
    }
    static const char *const private[] = { "http://127.0.0.1/a", "http://[::1]:8080/",
                                           "http://10.1.2.3/",
                                           "http://169.254.169.254/latest/meta-data" };
    for (size_t i = 0; i < countof(private); i++) {
        CHECK_ERR(model_fix_import(f, "m", &(ImportInput){ .url = str_z(private[i]) }, &v),
                  ERR_DENIED);
        CHECK(c->failure.why == &R_URL_PRIVATE);
    }
    Model m;
    CHECK_OK(c, model_fix_get(f, "m", &m));
    CHECK_INT(m.versions, 0); // a refusal leaves nothing
    CHECK(model_fix_idle(f));
}

// ---- from a file to ready

static err version_info(Ctx *c, Tx *tx, void *arg) {
    VersionInfo *info = arg;
    return model_version(c, tx, info->id, info);
}

static err resolve_tx(Ctx *c, Tx *tx, void *arg) {
    str id;
    return model_version_resolve(c, tx, *(str *)arg, &id);
}

MODEL_TEST(a_file_becomes_a_ready_version) {
    Ctx *c = f->c;
    Version v;
    Model m;
    char hex[BLOB_DIGEST_HEX + 1];
    str bytes = model_fix_gguf(c, "Tiny", 3 << 20);
    sha256_hex(bytes, hex);
    ImportInput in = { .path = model_fix_file(f, "tiny.gguf", bytes), .sha256 = str_z(hex) };
    CHECK_OK(c, model_fix_model(f, "tiny", NULL));
    CHECK_OK(c, model_fix_import(f, "tiny", &in, &v));
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_STR(text_of(&v), "");
    CHECK_INT(v.state, VERSION_READY);
    CHECK_STR(v.digest, hex);
    CHECK_INT(v.size_bytes, bytes.n);
    CHECK_INT(v.progress, 100);
    CHECK(!v.staging.p);
    CHECK_STR(v.facts.architecture, "llama");
    CHECK_STR(v.facts.name, "Tiny");
    CHECK_STR(v.facts.chat_template, "{{ messages }}");
    CHECK_INT(v.facts.context, 5000);
    CHECK(v.facts.can_chat && !v.facts.embedder);
    CHECK_INT(v.memory_n, 3); // 2048, 4096, 5000
    CHECK_INT(v.memory[2].context, 5000);
    CHECK(v.memory[0].bytes > 0 && v.memory[0].bytes < v.memory[1].bytes);
    CHECK_OK(c, model_fix_get(f, "tiny", &m));
    CHECK_INT(m.latest, 1);
    CHECK_STR(m.architecture, "llama");
    VersionInfo info = { .id = S("tiny") };
    CHECK_OK(c, db_read(c, c->db, version_info, &info));
    CHECK_STR(info.number, "1");
    CHECK_INT(model_memory_bytes(&info, 2048, 1), v.memory[0].bytes);
    str bare = S("tiny"), numbered = S("tiny:1"), there;
    CHECK_OK(c, db_read(c, c->db, resolve_tx, &bare));
    c->project = S("proj_2"); // where the name means nothing
    CHECK_ERR(db_read(c, c->db, resolve_tx, &bare), ERR_NOTFOUND);
    CHECK_ERR(db_read(c, c->db, resolve_tx, &numbered), ERR_NOTFOUND);
    c->project = S("proj_1");
    CHECK_OK(c, file_read_all(c, info.path, 64 << 20, &there));
    CHECK(str_eq(there, bytes));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}

// The model that `make setup` has brought, where it is.
MODEL_TEST(smollm2_is_described) {
    Ctx *c = f->c;
    const char *home = getenv("HOME");
    PathInfo info;
    str path =
        str_z(say(c, "%s/.cache/lathe/models/SmolLM2-135M-Instruct.Q4_1.gguf", home ? home : ""));
    if (path_info(c, path, &info)) return;
    Version v;
    CHECK_OK(c, model_fix_model(f, "smol", NULL));
    CHECK_OK(c, model_fix_import(f, "smol", &(ImportInput){ .path = path }, &v));
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_STR(text_of(&v), "");
    CHECK_INT(v.state, VERSION_READY);
    CHECK_INT(v.size_bytes, info.size);
    CHECK_INT(v.facts.parameters, 134515008);
    CHECK_INT(v.facts.context, 8192);
    CHECK_STR(v.facts.quantisation, "Q4_1");
    CHECK_STR(v.facts.architecture, "llama");
    CHECK(v.facts.can_chat);
    CHECK_INT(v.memory[v.memory_n - 1].context, 8192);
}

// ---- what is refused leaves nothing

// Imports the bytes and checks that they are refused with these words.
static void refuse(ModelFix *f, str bytes, const ImportInput *like, const char *part,
                   const char *also) {
    Ctx *c = f->c;
    Version v;
    VersionInfo info;
    ImportInput in = *like;
    in.path = model_fix_file(f, "bad.gguf", bytes);
    CHECK_OK(c, model_fix_import(f, "bad", &in, &v));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_FAILED);
    if (!has(text_of(&v), part) || !has(text_of(&v), also))
        test_failed(__FILE__, __LINE__, "reason is \"" STR_FMT "\", without \"%s\" or \"%s\"",
                    STR_ARG(text_of(&v)), part, also);
    CHECK(!v.digest.p && !v.facts.architecture.p && !v.memory_n);
    info.id = v.head.id;
    CHECK_ERR(db_read(c, c->db, version_info, &info), ERR_CONFLICT);
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
    CHECK_INT(model_fix_blobs(f), 0);
}

MODEL_TEST(hostile_files_are_refused_with_offset_and_reason) {
    Ctx *c = f->c;
    ImportInput plain = { 0 };
    CHECK_OK(c, model_fix_model(f, "bad", NULL));
    model_fix_work(f);
    str whole = model_fix_gguf(c, "T", 0);
    char *lying = arena_alloc_raw(c->mem, whole.n);
    memcpy(lying, whole.p, whole.n);
    memset(lying + 16, 0xff, 7); // the count of keys
    refuse(f, str_n(lying, whole.n), &plain, "byte 16", "key");
    refuse(f, S("not a model at all, but long enough"), &plain, "byte 0", "not a valid GGUF");
    refuse(f, str_sub(whole, 0, whole.n - 1), &plain, "at byte", "");
    refuse(f, str_sub(whole, 0, 40), &plain, "at byte", "");
    refuse(f, S(""), &plain, "no bytes", "");
}

// Whole by the format, and nothing that could be served: a header with one key and no tensors.
MODEL_TEST(a_file_without_weights_is_refused) {
    static const char header[] = "GGUF\3\0\0\0"
                                 "\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0"
                                 "\24\0\0\0\0\0\0\0general.architecture\10\0\0\0"
                                 "\5\0\0\0\0\0\0\0llama";
    Ctx *c = f->c;
    ImportInput plain = { 0 };
    CHECK_OK(c, model_fix_model(f, "bad", NULL));
    model_fix_work(f);
    refuse(f, str_n(header, sizeof header - 1), &plain, "at byte 8", "no tensors");
}

MODEL_TEST(a_wrong_digest_is_refused) {
    Ctx *c = f->c;
    static const char want[] = "00000000000000000000000000000000000000000000000000000000000000ff";
    CHECK_OK(c, model_fix_model(f, "bad", NULL));
    model_fix_work(f);
    refuse(f, model_fix_gguf(c, "T", 0), &(ImportInput){ .sha256 = str_z(want) }, "SHA-256", want);
}

MODEL_TEST(a_file_over_the_limit_is_refused) {
    Ctx *c = f->c;
    CHECK_OK(c, model_fix_settings(f, "model.import_max=1000", "blob.grace=0"));
    CHECK_OK(c, model_fix_model(f, "bad", NULL));
    model_fix_work(f);
    refuse(f, model_fix_gguf(c, "T", 2000), &(ImportInput){ 0 }, "model.import_max", "2000");
}

MODEL_TEST(a_file_that_is_not_there_fails) {
    Ctx *c = f->c;
    Version v;
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = S("/nowhere/x") }, &v));
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(text_of(&v), "/nowhere/x"));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = str_z(test_dir()) }, &v));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_FAILED); // a directory
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}

// ---- restarts

static struct {
    const char *at;
    atomic_int reached;
} stop_at;

static bool is_cancelled(void *c) { return ctx_cancelled(c); }
static err stop_point(Ctx *c, const char *point) {
    if (strcmp(point, stop_at.at)) return ERR_OK;
    atomic_fetch_add(&stop_at.reached, 1);
    if (!job_fix_until(is_cancelled, c)) return ERR_OK;
    return ctx_check(c);
}

// The process ends at `point` of an import, and another begins.
static void end_at(ModelFix *f, const char *point, const char *model) {
    Ctx *c = f->c;
    Version v;
    VersionInfo info;
    str bytes = model_fix_gguf(c, point, 2 << 20);
    ImportInput in = { .path = model_fix_file(f, point, bytes) };
    stop_at.at = point, atomic_store(&stop_at.reached, 0);
    model_import_point = stop_point;
    CHECK_OK(c, model_fix_import(f, model, &in, &v));
    model_fix_work(f);
    CHECK(wait_int(&stop_at.reached, 1));
    model_fix_rest(f);
    model_import_point = NULL;
    CHECK_OK(c, model_fix_version(f, arena_z(c->mem, v.head.id), &v));
    bool ready = !strcmp(point, "ready");
    CHECK_INT(v.state, ready ? VERSION_READY : VERSION_IMPORTING);
    info.id = v.head.id;
    CHECK_ERR(db_read(c, c->db, version_info, &info), ready ? ERR_OK : ERR_CONFLICT);
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_STR(text_of(&v), "");
    CHECK_INT(v.state, VERSION_READY);
    CHECK(blob_has(c, f->app.blobs, v.digest));
    CHECK_STR(v.facts.name, point);
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
    model_fix_rest(f);
}

MODEL_TEST(an_import_goes_on_after_a_restart_at_every_step) {
    static const char *const points[] = { "fetched", "described", "hashed",
                                          "claimed", "committed", "ready" };
    CHECK_OK(f->c, model_fix_model(f, "m", NULL));
    for (size_t i = 0; i < countof(points); i++) end_at(f, points[i], "m");
    CHECK_INT(model_fix_blobs(f), countof(points));
}

static err take_over(Ctx *c, const char *point) { // as another node does with a stalled attempt
    JobFix jf = { c, c->db, db_kind(c->db), (str){ 0 } };
    if (strcmp(point, "hashed")) return ERR_OK;
    return job_fix_exec(&jf, "UPDATE job SET epoch = epoch + 1 WHERE kind = 'model.import'");
}
static bool is_lost(void *arg) {
    ModelFix *f = arg;
    JobCounts n;
    Ctx *c = app_ctx_new(&f->app);
    bool lost = !jobs_counts(c, f->app.jobs, &n) && n.lost == 1;
    app_ctx_free(c);
    return lost;
}

MODEL_TEST(an_attempt_that_was_taken_over_changes_nothing) {
    Ctx *c = f->c;
    Version v;
    model_import_point = take_over;
    str path = model_fix_file(f, "x", model_fix_gguf(c, "x", 90000));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = path }, &v));
    model_fix_work(f);
    CHECK(job_fix_until(is_lost, f));
    CHECK_OK(c, model_fix_version(f, "m:1", &v));
    CHECK_INT(v.state, VERSION_IMPORTING);
    CHECK(!v.digest.p);
    CHECK_INT(model_fix_blobs(f), 0);
}

// A kill leaves no moment for tidying up: what it may leave is made here by hand.
static err claim_by_hand(Ctx *c, Tx *tx, void *arg) {
    return res_set_status(c, tx, &model_version_resource, arg, NULL);
}

MODEL_TEST(a_claimed_object_that_is_there_is_taken) {
    Ctx *c = f->c;
    Version v;
    BlobWriter *w;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    str bytes = model_fix_gguf(c, "x", 5000), path = model_fix_file(f, "x", bytes);
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = path }, &v));
    CHECK_OK(c, blob_stage(c, f->app.blobs, v.staging, &w));
    CHECK_OK(c, blob_append(c, w, bytes));
    CHECK_OK(c, blob_commit(c, w, (str){ 0 }, hex, &size));
    v.state = VERSION_IMPORTING, v.digest = str_z(hex), v.size_bytes = size;
    CHECK_OK(c, db_tx(c, c->db, claim_by_hand, &v));
    CHECK_OK(c, path_remove(c, path)); // it cannot begin again
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_STR(text_of(&v), "");
    CHECK_INT(v.state, VERSION_READY);
}

MODEL_TEST(a_file_that_changed_meanwhile_is_read_again) {
    Ctx *c = f->c;
    Version v;
    stop_at.at = "fetched", atomic_store(&stop_at.reached, 0);
    model_import_point = stop_point;
    str path = model_fix_file(f, "x", model_fix_gguf(c, "before", 90000));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = path }, &v));
    model_fix_work(f);
    CHECK(wait_int(&stop_at.reached, 1));
    model_fix_rest(f);
    model_import_point = NULL;
    model_fix_file(f, "x", model_fix_gguf(c, "after", 100000));
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_READY);
    CHECK_STR(v.facts.name, "after");
    CHECK_INT(v.size_bytes, 100000);
}

// ---- cancel, delete, objects that are shared

static err cancel_tx(Ctx *c, Tx *tx, void *arg) {
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return job_cancel(c, tx, c->project, *(str *)arg);
}

MODEL_TEST(a_cancelled_import_leaves_nothing) {
    Ctx *c = f->c;
    Version v;
    stop_at.at = "described", atomic_store(&stop_at.reached, 0);
    model_import_point = stop_point;
    str path = model_fix_file(f, "x", model_fix_gguf(c, "x", 90000));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = path }, &v));
    model_fix_work(f);
    CHECK(wait_int(&stop_at.reached, 1));
    CHECK_OK(c, db_tx(c, c->db, cancel_tx, &v.job));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_FAILED);
    CHECK(has(text_of(&v), "cancelled"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
    CHECK_INT(model_fix_blobs(f), 0);
}

static err retry_tx(Ctx *c, Tx *tx, void *arg) {
    tx_notify(tx, jobs_wake, model_app()->jobs);
    return job_retry(c, tx, c->project, *(str *)arg);
}

MODEL_TEST(a_failed_import_can_be_tried_again) {
    Ctx *c = f->c;
    Version v;
    str path = model_fix_file(f, "x", S("nothing good"));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &(ImportInput){ .path = path }, &v));
    model_fix_work(f);
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_FAILED);
    model_fix_file(f, "x", model_fix_gguf(c, "good", 5000));
    CHECK_OK(c, db_tx(c, c->db, retry_tx, &v.job));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_STR(text_of(&v), "");
    CHECK_INT(v.state, VERSION_READY);
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
}

MODEL_TEST(the_same_content_is_one_object_until_its_last_version_goes) {
    Ctx *c = f->c;
    Version a, b;
    ImportInput in = { .path = model_fix_file(f, "x", model_fix_gguf(c, "x", 9000)) };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_model(f, "n", NULL));
    model_fix_work(f);
    CHECK_OK(c, model_fix_import(f, "m", &in, &a));
    CHECK_OK(c, model_fix_settle(f, &a));
    CHECK_OK(c, model_fix_import(f, "n", &in, &b));
    CHECK_OK(c, model_fix_settle(f, &b));
    CHECK(str_eq(a.digest, b.digest));
    CHECK_INT(b.state, VERSION_READY);
    CHECK(has(model_fix_log(f, b.job), "the same content as m:1"));
    CHECK_INT(model_fix_blobs(f), 1);
    CHECK_OK(c, model_fix_delete(f, &model_version_resource, "m:1"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_blobs(f), 1);
    CHECK_OK(c, model_fix_delete(f, &model_resource, "n")); // its versions go with it
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_blobs(f), 0);
    CHECK_ERR(model_fix_version(f, arena_z(c->mem, b.head.id), &b), ERR_NOTFOUND);
}

static err shelve_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(shelve, "INSERT INTO shelves (id, pages) VALUES ('s', $1)");
    return db_run(c, tx, &shelve, V(*(str *)arg));
}
static err unshelve_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(unshelve, "DELETE FROM shelves");
    TRY(db_run(c, tx, &unshelve));
    return collect_object(c, tx, *(str *)arg);
}

// Objects belong to no module: one that a nested value of another's row names stays.
MODEL_TEST(an_object_stays_while_a_row_of_another_module_names_it) {
    Ctx *c = f->c;
    Version v;
    ImportInput in = { .path = model_fix_file(f, "x", model_fix_gguf(c, "x", 9000)) };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_work(f);
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    CHECK_OK(c, model_fix_settle(f, &v));
    str digest = v.digest,
        pages = arena_printf(c->mem, "[{\"picture\":\"" STR_FMT "\"}]", STR_ARG(digest));
    CHECK_OK(c, db_tx(c, c->db, shelve_tx, &pages));
    CHECK_OK(c, model_fix_delete(f, &model_version_resource, "m:1"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_blobs(f), 1);
    CHECK_OK(c, db_tx(c, c->db, unshelve_tx, &digest));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_blobs(f), 0);
}

MODEL_TEST(an_object_waits_out_its_grace) {
    Ctx *c = f->c;
    Version v;
    ImportInput in = { .path = model_fix_file(f, "x", model_fix_gguf(c, "x", 9000)) };
    CHECK_OK(c, model_fix_settings(f, "blob.grace=1h", NULL));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    model_fix_work(f);
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_OK(c, model_fix_delete(f, &model_version_resource, "m:1"));
    JobFix jf = { c, c->db, f->kind, f->url };
    int64_t now = os_wall_ms(c->os);
    const char *late = say(c,
                           "SELECT COUNT(*) FROM job WHERE kind = 'blob.collect' AND "
                           "state = 'waiting' AND next_ms > %lld",
                           (long long)now + 3500000);
    CHECK_INT(job_fix_int(&jf, late), 1);
    CHECK_INT(model_fix_blobs(f), 1);
}

static err condemn_tx(Ctx *c, Tx *tx, void *arg) { return object_condemn(c, tx, *(str *)arg); }
static err pardon_tx(Ctx *c, Tx *tx, void *arg) { return object_pardon(c, tx, *(str *)arg); }
static bool has_failed_once(void *arg) {
    ModelFix *f = arg;
    Ctx *c = app_ctx_new(&f->app);
    JobFix jf = { c, f->app.db, f->kind, f->url };
    int64_t n = job_fix_int(&jf, "SELECT COUNT(*) FROM job WHERE error_slug = 'blob_leaving'");
    app_ctx_free(c);
    return n == 1;
}

// The collector has decided and not yet removed: the import gives way, and loses nothing by it.
MODEL_TEST(an_import_waits_for_an_object_that_is_leaving) {
    Ctx *c = f->c;
    Version v;
    char hex[BLOB_DIGEST_HEX + 1];
    str bytes = model_fix_gguf(c, "x", 9000), digest = str_n(hex, BLOB_DIGEST_HEX);
    ImportInput in = { .path = model_fix_file(f, "x", bytes) };
    sha256_hex(bytes, hex);
    CHECK_OK(c, db_tx(c, c->db, condemn_tx, &digest));
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    model_fix_work(f);
    CHECK(job_fix_until(has_failed_once, f));
    CHECK_OK(c, model_fix_version(f, "m:1", &v));
    CHECK_INT(v.state, VERSION_IMPORTING);
    CHECK(!v.digest.p);
    CHECK_INT(model_fix_blobs(f), 0);
    CHECK_OK(c, db_tx(c, c->db, pardon_tx, &digest));
    CHECK_OK(c, model_fix_settle(f, &v));
    CHECK_INT(v.state, VERSION_READY);
}

MODEL_TEST(deleting_a_running_import_ends_it) {
    Ctx *c = f->c;
    Version v;
    stop_at.at = "hashed", atomic_store(&stop_at.reached, 0);
    model_import_point = stop_point;
    ImportInput in = { .path = model_fix_file(f, "x", model_fix_gguf(c, "x", 9000)) };
    CHECK_OK(c, model_fix_model(f, "m", NULL));
    CHECK_OK(c, model_fix_import(f, "m", &in, &v));
    model_fix_work(f);
    CHECK(wait_int(&stop_at.reached, 1));
    CHECK_OK(c, model_fix_delete(f, &model_version_resource, "m:1"));
    CHECK(model_fix_idle(f));
    CHECK_INT(model_fix_staged(f), 0);
    CHECK_INT(model_fix_blobs(f), 0);
}
