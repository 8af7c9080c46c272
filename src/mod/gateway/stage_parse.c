// SPDX-License-Identifier: Apache-2.0
// stage_parse.c - the body: read whole, parsed once, and what the stages need of it checked by
// type. Members that we do not know are passed on, as OpenAI's own servers ignore them.
#include "mod/gateway/flow.h"
#include "net/reason.h"

static err read_count(Ctx *c, yyjson_val *root, const char *name, int64_t max, int64_t *out) {
    yyjson_val *v = json_get(root, name);
    if (!v || yyjson_is_null(v)) return ERR_OK;
    if (!yyjson_is_int(v)) return body_wrong(c, name, "an integer of at least 1", v);
    int64_t n =
        yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX ? INT64_MAX : yyjson_get_sint(v);
    if (n < 1 || n > max)
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", name, "min", "1", "max",
                    say(c, "%lld", (long long)max), "got", say(c, "%lld", (long long)n));
    *out = n;
    return ERR_OK;
}

// Engines differ in which of these they go by when there are several, so the most counts. n_predict
// is llama-server's own: less than 0 is no limit but the context.
static err read_limits(Ctx *c, yyjson_val *root, ParsedBody *in) {
    static const char *const names[] = { "max_tokens", "max_completion_tokens", "n_predict" };
    yyjson_val *predict = json_get(root, "n_predict");
    bool endless = yyjson_is_int(predict) && yyjson_get_sint(predict) < 0;
    for (size_t i = 0; i < countof(names) - endless; i++) {
        int64_t n = UNSET_INT;
        TRY(read_count(c, root, names[i], INT32_MAX, &n));
        if (n > in->output_max) in->output_max = n;
    }
    if (endless) in->output_max = UNSET_INT;
    return ERR_OK;
}

// Each choice of each prompt is an answer of its own. n_cmpl is llama-server's other name for n;
// of best_of many that are computed n are shown.
static err read_choices(Ctx *c, yyjson_val *root, int64_t prompts, ParsedBody *in) {
    int64_t other = 1, best = 1;
    in->n = 1, in->prompts = prompts;
    TRY(read_count(c, root, "n_cmpl", CHOICES_MAX, &other));
    TRY(read_count(c, root, "best_of", CHOICES_MAX, &best));
    in->n = other;
    TRY(read_count(c, root, "n", CHOICES_MAX, &in->n));
    if (other > 1 && other != in->n)
        return body_wrong(c, "n_cmpl", "what n is", json_get(root, "n_cmpl"));
    if (prompts > CHOICES_MAX / in->n)
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", "prompt", "min", "1", "max",
                    say(c, "%lld prompts", (long long)(CHOICES_MAX / in->n)), "got",
                    say(c, "%lld", (long long)prompts));
    in->choices = in->n * prompts;
    in->made = (best > in->n ? best : in->n) * prompts;
    return ERR_OK;
}

err flow_read_body(Flow *f, str body) {
    Ctx *c = f->c;
    ParsedBody *in = &f->in;
    int64_t prompts;
    in->text = body, in->size = (int64_t)body.n, in->output_max = UNSET_INT;
    in->made = in->choices = in->n = in->prompts = 1;
    TRY(json_parse(c, body, &in->root));
    if (!yyjson_is_obj(in->root)) return body_wrong(c, "body", "an object", in->root);
    if (f->spoken && !str_is(str_z(f->spoken->name), "openai.chat")) return talk_parse(f);
    yyjson_val *model = json_get(in->root, "model");
    if (!model) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "model");
    in->model = json_str(model);
    if (!in->model.n) return body_wrong(c, "model", "the name of a model", model);
    in->user = json_get_str(in->root, "user");
    TRY(body_check(c, f->operation, in->root, &prompts));
    TRY(read_limits(c, in->root, in));
    if (f->operation == OP_EMBEDDING) in->prompts = prompts;
    else TRY(read_choices(c, in->root, prompts, in));
    yyjson_val *stream = json_get(in->root, "stream");
    if (stream && !yyjson_is_bool(stream) && !yyjson_is_null(stream))
        return body_wrong(c, "stream", "true or false", stream);
    in->stream = f->operation != OP_EMBEDDING && yyjson_is_true(stream);
    in->wants_timings = json_get_bool(in->root, "timings_per_token", false);
    in->wants_progress = json_get_bool(in->root, "return_progress", false);
    in->wants_usage = json_get_bool(json_get(in->root, "stream_options"), "include_usage", false);
    return ERR_OK;
}

static void body_is_here(void *arg, err e, str body) {
    Flow *f = arg;
    if (!e) e = flow_read_body(f, body);
    if (e) flow_fail(f);
    else flow_resume(f);
}

// A body that says itself that it is too large is not asked for (RFC 9110, 10.1.1).
Verdict stage_parse(Flow *f) {
    int64_t most = setting_int(&gateway_settings[GW_BODY_MAX]);
    if (exchange_request(f->x)->length > most)
        return flow_denied(f, fail(f->c, ERR_TOOLARGE, R_BODY_TOO_LARGE, "limit",
                                   say(f->c, "%lld", (long long)most)));
    exchange_read_all(f->x, (size_t)most, body_is_here, f);
    return VERDICT_WAIT;
}
