// SPDX-License-Identifier: Apache-2.0
// stored.c - conversations of /v1/responses that are kept (mod/response). `recall` puts what was
// said before a request in front of its own input, so that from there on it is a request like
// others; `keep` stores the answer before its end leaves, so that whoever has its id may go on from
// it. Where it could not be stored the answer is given all the same, and says `store` false.
// Threads: the exchange's loop.
#include "mod/gateway/stored.h"
#include "base/log.h"

static const int64_t DAY_MS = 86400000;

static int64_t days_kept(const Flow *f) {
    const PlaceEntry *place = access_place(f->snapshot, f->project);
    return place ? place->responses_days : UNSET_INT;
}

err stored_parse(Flow *f) {
    Ctx *c = f->c;
    Talk *t = f->talk;
    if (!str_is(str_z(f->spoken->name), "openai.responses")) return ERR_OK;
    bool off = days_kept(f) == 0;
    if (off && t->store == 1) {
        const PlaceEntry *place = access_place(f->snapshot, f->project);
        return fail(c, ERR_INVALID, R_RESPONSE_UNKEPT, "field", "store", "project",
                    say_str(c, place ? place->name : f->project));
    }
    f->stored.keeps = t->store != 0 && !off;
    t->store = f->stored.keeps;
    if (!f->stored.id.n) f->stored.id = response_new_id(c);
    if (f->stored.input) { // the second time, with what was said before
        t->previous = f->stored.previous;
        return ERR_OK;
    }
    f->stored.input = json_get(f->in.root, "input");
    f->stored.previous = t->previous;
    return ERR_OK;
}

// ---- what was said before
// The client's body with all of the conversation as its input.
static err go_on(Flow *f, str before) {
    size_t most = (size_t)setting_int(&gateway_settings[GW_BODY_MAX]), i, n;
    yyjson_val *key, *v, *input = f->stored.input, *item;
    Buf b;
    buf_init(&b, before.n + f->in.text.n * 6 + 4096); // an escape takes at most six bytes for one
    Json j = json_to(&b);
    json_obj(&j);
    yyjson_obj_foreach(f->in.root, i, n, key, v) {
        if (str_is(json_str(key), "input") || str_is(json_str(key), "previous_response_id"))
            continue;
        json_key_str(&j, json_str(key)), json_put_val(&j, v);
    }
    json_key(&j, "input"), json_arr(&j);
    if (before.n) json_put_raw(&j, before);
    if (yyjson_is_str(input))
        json_obj(&j), json_kv_z(&j, "role", "user"), json_kv_str(&j, "content", json_str(input)),
            json_end_obj(&j);
    yyjson_arr_foreach(input, i, n, item) json_put_val(&j, item);
    json_end_arr(&j), json_end_obj(&j);
    str body = arena_str(f->c->mem, buf_str(&b));
    buf_done(&b);
    if (body.n > most)
        return fail(f->c, ERR_TOOLARGE, R_RESPONSE_CHAIN, "limit", say(f->c, "%zu bytes", most));
    f->talk = NULL;
    return flow_read_body(f, body);
}

static void recalled(void *arg, err e, const Failure *why, str items) {
    Flow *f = arg;
    f->stored.task = NULL;
    if (e) f->c->failure = failure_copy(f->c->mem, why);
    else e = go_on(f, items);
    if (e) flow_fail(f);
    else flow_resume(f);
}

Verdict stage_recall(Flow *f) {
    if (!f->stored.previous.n) return VERDICT_NEXT;
    ResponseEnd to = { exchange_loop(f->x), recalled, f };
    err e = response_recall(f->c, &to, f->stored.previous,
                            setting_int(&gateway_settings[GW_BODY_MAX]), &f->stored.task);
    return e ? VERDICT_FAIL : VERDICT_WAIT;
}

static void leave(Flow *f) {
    if (f->stored.task) response_leave(f->stored.task);
    f->stored.task = NULL;
}

void stage_recall_cancel(Flow *f) { leave(f); }

// ---- keeping the answer
static void not_kept(Flow *f, const Failure *why) {
    Buf b;
    buf_init(&b, 4096);
    failure_format(why, "en", &b);
    log_at("gateway", LOG_WARN, f->c, "an answer could not be kept", "response",
           say_str(f->c, f->stored.id), "why", say_str(f->c, buf_str(&b)));
    buf_done(&b);
    f->talk->store = 0;
    if (!f->in.stream) translate_again(f, &f->out.whole);
}

static void kept(void *arg, err e, const Failure *why, str items) {
    Flow *f = arg;
    (void)items;
    f->stored.task = NULL;
    if (e) not_kept(f, why);
    flow_resume(f);
}

static ResponseRow row_of(const Flow *f) {
    const RequestRecord *r = &f->r;
    int64_t days = days_kept(f);
    bool cut = str_is(r->finish_reason, "length") || str_is(r->finish_reason, "content_filter");
    return (ResponseRow){ .head = { .id = f->stored.id, .created_at = f->start_ms },
                          .model = f->in.model,
                          .status = cut ? S("incomplete") : S("completed"),
                          .previous = f->stored.previous,
                          .key_id = f->key->id,
                          .owner = f->who.id,
                          .prompt_tokens = r->prompt_tokens,
                          .completion_tokens = r->completion_tokens,
                          .expires_at =
                              days == UNSET_INT ? UNSET_INT : f->start_ms + days * DAY_MS };
}

Verdict stage_keep(Flow *f) {
    if (!f->stored.keeps || f->failed || f->gone) return VERDICT_NEXT;
    ResponseEnd to = { exchange_loop(f->x), kept, f };
    ResponseRow row = row_of(f);
    Buf streamed;
    buf_init(&streamed, (size_t)setting_int(&gateway_settings[GW_ANSWER_MAX]));
    bool whole = f->in.stream ? translate_again(f, &streamed) : true;
    str answer = f->in.stream ? buf_str(&streamed) : buf_str(&f->out.whole);
    err e = whole ? response_keep(f->c, &to, &row, f->stored.input, answer, &f->stored.task)
                  : fail(f->c, ERR_TOOLARGE, R_TOO_LONG, "what", "the answer", "limit",
                         say(f->c, "%zu bytes", streamed.max));
    buf_done(&streamed);
    if (!e) return VERDICT_WAIT;
    Failure why = f->c->failure;
    f->c->failure = (Failure){ 0 };
    not_kept(f, &why);
    return VERDICT_NEXT;
}

void stage_keep_cancel(Flow *f) { leave(f); }
