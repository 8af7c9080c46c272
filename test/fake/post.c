// SPDX-License-Identifier: Apache-2.0
// post.c - small POSTs: /tokenize and /apply-template as llama-server has them, and /fake/options,
// by which a test changes times and faults while the engine runs.
// Threads: the loop's.
#include "fake.h"

enum { BODY_MAX = 64 << 20 };

typedef struct Posting { // in the exchange's arena
    Exchange *x;
    const Post *post;
} Posting;

static void on_body(void *arg, err failed, str body) {
    Posting *p = arg;
    Ctx *c = exchange_ctx(p->x);
    Engine *e = c->app;
    Refusal why = { 0 };
    yyjson_val *root;
    if (failed) {
        exchange_refuse(p->x);
        return;
    }
    Json j = json_to(&e->text);
    buf_clear(&e->text);
    if (json_parse(c, body, &root))
        refuse_with(&why, 500, "server_error", "[json.exception.parse_error.101] parse error");
    else (void)p->post->answer(p->x, root, &j, &why);
    if (why.status) reply_refusal(p->x, &why);
    else reply_json(p->x, 200, buf_str(&e->text));
}

void post_route(Exchange *x, const NetRoute *route) {
    Ctx *c = exchange_ctx(x);
    if (engine_turns_away(c->app, x)) return;
    Posting *p = new (c->mem, Posting, 1);
    *p = (Posting){ x, route->owner };
    exchange_read_all(x, BODY_MAX, on_body, p);
}

static bool tokenize(Exchange *x, yyjson_val *root, Json *j, Refusal *why) {
    yyjson_val *content = json_get(root, "content");
    bool pieces = json_get_bool(root, "with_pieces", false);
    str text = json_str(content);
    (void)x;
    if (content && !text.p)
        return refuse_with(why, 500, "server_error",
                           "[json.exception.type_error.302] type must be string");
    json_obj(j);
    json_key(j, "tokens");
    json_arr(j);
    for (size_t at = 0, n; (n = token_next(text, at)); at += n) {
        str piece = str_sub(text, at, n);
        if (pieces) {
            json_obj(j);
            json_kv_i64(j, "id", token_id(piece));
            json_kv_str(j, "piece", piece);
            json_end_obj(j);
        } else json_put_i64(j, token_id(piece));
    }
    json_end_arr(j);
    json_end_obj(j);
    return true;
}

static bool apply_template(Exchange *x, yyjson_val *root, Json *j, Refusal *why) {
    Prompt p = { 0 };
    str text;
    if (!ask_template(exchange_ctx(x), root, &p, &text, why)) return false;
    json_obj(j);
    json_kv_str(j, "prompt", text);
    json_end_obj(j);
    return true;
}

static bool count(Exchange *x, yyjson_val *root, Json *j, Refusal *why) {
    Prompt p = { 0 };
    if (!ask_template(exchange_ctx(x), root, &p, NULL, why)) return false;
    json_obj(j);
    json_kv_i64(j, "input_tokens", p.tokens);
    json_kv_z(j, "object", "response.input_tokens");
    json_end_obj(j);
    return true;
}

static bool set_options(Exchange *x, yyjson_val *root, Json *j, Refusal *why) {
    Ctx *c = exchange_ctx(x);
    Engine *e = c->app;
    Behaviour b = e->o.b;
    yyjson_val *key, *value;
    size_t i, n;
    yyjson_obj_foreach(root, i, n, key, value) {
        str row = arena_printf(c->mem, STR_FMT "=" STR_FMT, STR_ARG(json_str(key)),
                               STR_ARG(json_text(c->mem, value)));
        if (!options_text(row, &b))
            return refuse_with(why, 400, "invalid_request_error", say_str(c, row));
    }
    e->o.b = b;
    options_json(&b, j);
    return true;
}

const Post post_tokenize = { tokenize }, post_template = { apply_template }, post_count = { count },
           post_options = { set_options };
