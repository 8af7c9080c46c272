// SPDX-License-Identifier: Apache-2.0
// advice.c - see advice.h.
#include "res/advice.h"
#include "res/app.h"
#include <assert.h>

void advice_add_(Ctx *c, Advice *to, const Reason *why, const char *const kv[]) {
    if (to->n == ADVICE_MAX) return;
    Failure was = c->failure;
    Buf b;
    buf_init(&b, 8192);
    err said = fail_(c, ERR_INVALID, why, kv); // for its sentence only
    assert(said == ERR_INVALID);
    failure_format(&c->failure, c->lang, &b);
    to->slugs[to->n] = why->slug, to->texts[to->n++] = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    c->failure = was;
}

err advice_of(Ctx *c, Tx *tx, const Resource *r, const void *now, Advice *out) {
    App *app = app_of(c);
    *out = (Advice){ 0 };
    for (const Module *const *m = app ? app->modules : NULL; m && *m; m++)
        if ((*m)->advise) TRY((*m)->advise(c, tx, r, now, out));
    return ERR_OK;
}

str advice_join(Ctx *c, const Advice *a, str object) {
    assert(object.n > 2 && object.p[object.n - 1] == '}');
    if (!a->n) return object;
    Buf b;
    buf_init(&b, object.n + ADVICE_MAX * 65536);
    buf_add(&b, str_sub(object, 0, object.n - 1)), buf_add(&b, S(",\"warnings\":"));
    Json j = json_to(&b);
    json_arr(&j);
    for (size_t i = 0; i < a->n; i++) {
        json_obj(&j);
        json_kv_z(&j, "reason", a->slugs[i]), json_kv_str(&j, "message", a->texts[i]);
        json_end_obj(&j);
    }
    json_end_arr(&j);
    buf_add_char(&b, '}');
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}
