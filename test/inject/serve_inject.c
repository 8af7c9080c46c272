// SPDX-License-Identifier: Apache-2.0
// serve_inject.c - the whole server, all its modules, while the n-th call of any of its threads
// fails: it answers or refuses with a reason, lives on, and has what it acknowledged.
#include "../conformance_test.h"
#include "inject.h"
#include <poll.h>

enum { MADE = 6 };

static bool refused_well(const Told *t) {
    if (!t->status) return true; // the connection itself was cut
    return t->status >= 400 && t->status <= 599 && conf_reason(t).n > 0;
}

static void server_lives(Conf *f) {
    str ids[MADE] = { { 0 } };
    Question ready = { .method = HTTP_GET, .path = "/readyz" };
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
    for (int i = 0; i < 500 && conf_ask(f, &ready).status != 200; i++) poll(NULL, 0, 10);
    CHECK_INT(conf_ask(f, &ready).status, 200);
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
