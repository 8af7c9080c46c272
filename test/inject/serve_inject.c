// SPDX-License-Identifier: Apache-2.0
// serve_inject.c - the whole server, all its modules, while the n-th call of any of its threads
// fails: it answers or refuses with a reason, lives on, and has what it acknowledged; a key that it
// gave works, the audit's chains hold, an import and a backup end as they say.
#include "../conformance_test.h"
#include "fault.h"
#include "inject.h"
#include "mod/backup/backup_own.h"
#include "mod/model/model_test.h"
#include <poll.h>

enum { MADE = 6, KEYS = 3 };

static bool refused_well(const Told *t) {
    if (!t->status) return true;                                 // the connection itself was cut
    str code = json_get_str(json_get(t->json, "error"), "code"); // in OpenAI's form
    return t->status >= 400 && t->status <= 599 && (conf_reason(t).n || code.n);
}

static bool soon(int *tries) {
    poll(NULL, 0, 10);
    return ++*tries < test_longer(3000);
}

static Told get(Conf *f, const char *path, const char *key) {
    Question q = { HTTP_GET, path, key, NULL };
    return conf_ask(f, &q);
}

static void check_back(Conf *f) {
    int tries = 0;
    while (get(f, "/readyz", NULL).status != 200 && soon(&tries)) continue;
    CHECK_INT(get(f, "/readyz", NULL).status, 200);
}

static void check_audit(Conf *f) {
    int tries = 0;
    Told t;
    do t = get(f, "/lathe/v1/audit/verify", f->admin); // the first checkpoint may be a second away
    while (!yyjson_is_true(json_get(t.json, "ok")) && soon(&tries));
    CHECK_INT(t.status, 200);
    CHECK(yyjson_is_true(json_get(t.json, "ok")));
}

static void server_lives(Conf *f) {
    str ids[MADE] = { { 0 } };
    inject_on();
    for (int i = 0; i < MADE; i++) {
        const char *body = say(f->c, "{\"name\":\"at-fault-%d\",\"roles\":[\"viewer\"]}", i);
        Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/service_accounts", body);
        if (t.status == 201) ids[i] = json_get_str(t.json, "id");
        else CHECK(refused_well(&t));
        t = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/service_accounts", NULL);
        if (t.status != 200) CHECK(refused_well(&t));
    }
    inject_off();
    check_back(f);
    for (int i = 0; i < MADE; i++) {
        if (!ids[i].n) continue;
        const char *path = say(f->c, "/lathe/v1/service_accounts/" STR_FMT, STR_ARG(ids[i]));
        CHECK_INT(conf_do(f, &f->a, HTTP_GET, path, NULL).status, 200);
    }
    Told more = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/service_accounts",
                        "{\"name\":\"after\",\"roles\":[\"viewer\"]}");
    CHECK_INT(more.status, 201);
}
INJECT(server_on_sqlite) { conf_run(DB_SQLITE, server_lives); }

// A key that the request path does not know yet is asked for again: it is never a wrong one.
static void check_key(Conf *f, const char *key) {
    int tries = 0;
    Told t = get(f, "/v1/models", key);
    while (t.status == 503 && soon(&tries)) t = get(f, "/v1/models", key);
    if (t.status != 200) COMPLAIN("%d " STR_FMT, t.status, STR_ARG(t.body));
}

// The snapshot takes a key in before it is given away, or what it has not is told apart from what
// there is not; and the audit has it once.
static void keys_work(Conf *f) {
    str keys[KEYS] = { { 0 } }, ids[KEYS] = { { 0 } };
    inject_on();
    for (int i = 0; i < KEYS; i++) {
        const char *body = say(f->c, "{\"name\":\"k-%d\",\"service_account\":\"place-owner\"}", i);
        Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/api_keys", body);
        if (t.status == 201)
            keys[i] = json_get_str(t.json, "key"), ids[i] = json_get_str(t.json, "id");
        else CHECK(refused_well(&t));
        if (!keys[i].n) continue;
        t = get(f, "/v1/models", say_str(f->c, keys[i]));
        if (t.status != 200 && (t.status == 401 || !refused_well(&t)))
            COMPLAIN("%d " STR_FMT, t.status, STR_ARG(t.body));
    }
    inject_off();
    check_back(f);
    for (int i = 0; i < KEYS; i++) {
        if (!keys[i].n) continue;
        check_key(f, say_str(f->c, keys[i]));
        CHECK_INT(
            conf_count(f,
                       "SELECT COUNT(*) FROM audit_entries WHERE subject = $1 AND verb = 'create'",
                       say_str(f->c, ids[i]), NULL),
            1);
    }
    check_audit(f);
}
INJECT(keys_on_sqlite) { conf_run(DB_SQLITE, keys_work); }

// --- long work

typedef struct LongWork {
    Conf *f;
    const char *job; // NULL: it was not taken on
    str state;
    Told last;
} LongWork;

static bool ended(LongWork *w) {
    w->last = conf_do(w->f, &w->f->a, HTTP_GET, say(w->f->c, "/lathe/v1/jobs/%s", w->job), NULL);
    w->state = json_get_str(w->last.json, "state");
    return str_is(w->state, "done") || str_is(w->state, "failed");
}

static LongWork begin(Conf *f, const char *path, const char *body) {
    Told t = conf_do(f, &f->a, HTTP_POST, path, body);
    LongWork w = { .f = f };
    if (t.status == 202) w.job = say_str(f->c, json_get_str(t.json, "job"));
    else if (!refused_well(&t)) COMPLAIN("%s: %d " STR_FMT, path, t.status, STR_ARG(t.body));
    for (int i = 0; w.job && i < 100 && !ended(&w) && !fault_plan->struck; i++) poll(NULL, 0, 30);
    return w;
}

// To its end, and again where it failed with a reason or was refused.
static void finish(LongWork w, const char *path, const char *body) {
    for (int more = 0; more < 3; more++) {
        int tries = 0;
        if (!w.job) w = begin(w.f, path, body);
        while (w.job && !ended(&w) && soon(&tries)) continue;
        if (str_is(w.state, "done")) return;
        if (str_is(w.state, "failed")) CHECK(json_get_str(w.last.json, "error_text").n > 0);
        w.job = NULL;
    }
    COMPLAIN("%s does not end: " STR_FMT, path, STR_ARG(w.last.body));
}

static void import_and_backup(Conf *f) {
    Ctx *c = f->c;
    const char *file = say(c, "%s/m.gguf", inject_dir()), *to = say(c, "%s/backup", inject_dir());
    const char *import = "/lathe/v1/models/m/import", *backup = "/lathe/v1/backups";
    const char *from = say(c, "{\"path\":\"%s\"}", file), *into = say(c, "{\"folder\":\"%s\"}", to);
    CHECK_OK(c, file_write_all(c, str_z(file), model_fix_gguf(c, "m", 200000), 0));
    CHECK_INT(conf_do(f, &f->a, HTTP_POST, "/lathe/v1/models", "{\"name\":\"m\"}").status, 201);
    inject_on();
    LongWork one = begin(f, import, from), two = begin(f, backup, into);
    inject_off();
    check_back(f);
    finish(one, import, from);
    finish(two, backup, into);
    CHECK_INT(conf_count(f, "SELECT COUNT(*) FROM model_versions WHERE state = 'ready'", NULL, NULL)
                  > 0,
              1);
    Store s;
    Point p;
    Work w = { 0 };
    err e = store_open(c, str_z(to), false, &s);
    if (!e) e = point_at(c, &s, 0, &p);
    if (!e) e = point_check(c, &s, &p, &w);
    CHECK_OK(c, e);
    store_close(&s);
    check_audit(f);
}
INJECT(import_and_backup) { conf_run(DB_SQLITE, import_and_backup); }
