// SPDX-License-Identifier: Apache-2.0
// stage_parse.c - the body: read whole, parsed once, and what the stages need of it checked by
// type. Members that we do not know are passed on, as OpenAI's own servers ignore them.
#include "mod/gateway/flow.h"

static err wrong(Ctx *c, const char *field, const char *want) {
    return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", field, "want", want, "got",
                "something else");
}

static err read_count(Ctx *c, yyjson_val *root, const char *name, int64_t *out) {
    yyjson_val *v = json_get(root, name);
    if (!v || yyjson_is_null(v)) return ERR_OK;
    if (!yyjson_is_int(v) || yyjson_get_sint(v) < 1 || yyjson_get_sint(v) > INT32_MAX)
        return wrong(c, name, "an integer of at least 1");
    *out = yyjson_get_sint(v);
    return ERR_OK;
}

static err read_prompt(Ctx *c, Operation op, yyjson_val *root) {
    static const char *const fields[] = {
        [OP_CHAT] = "messages", [OP_COMPLETION] = "prompt", [OP_EMBEDDING] = "input"
    };
    yyjson_val *v = json_get(root, fields[op]);
    if (!v) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", fields[op]);
    if (op == OP_CHAT ? !yyjson_is_arr(v) || !yyjson_arr_size(v)
                      : !yyjson_is_str(v) && !yyjson_is_arr(v))
        return wrong(c, fields[op],
                     op == OP_CHAT ? "a list of at least one message" : "text or a list");
    return ERR_OK;
}

static err parse(Flow *f, str body) {
    Ctx *c = f->c;
    ParsedBody *in = &f->in;
    in->text = body, in->output_max = UNSET_INT, in->choices = 1;
    TRY(json_parse(c, body, &in->root));
    if (!yyjson_is_obj(in->root)) return wrong(c, "body", "an object");
    in->model = json_get_str(in->root, "model");
    if (!in->model.n) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "model");
    in->user = json_get_str(in->root, "user");
    TRY(read_prompt(c, f->operation, in->root));
    TRY(read_count(c, in->root, "max_tokens", &in->output_max));
    TRY(read_count(c, in->root, "max_completion_tokens", &in->output_max));
    TRY(read_count(c, in->root, "n", &in->choices));
    yyjson_val *stream = json_get(in->root, "stream");
    if (stream && !yyjson_is_bool(stream) && !yyjson_is_null(stream))
        return wrong(c, "stream", "true or false");
    in->stream = f->operation != OP_EMBEDDING && yyjson_is_true(stream);
    in->wants_timings = json_get_bool(in->root, "timings_per_token", false);
    in->wants_progress = json_get_bool(in->root, "return_progress", false);
    in->wants_usage = json_get_bool(json_get(in->root, "stream_options"), "include_usage", false);
    return ERR_OK;
}

static void body_is_here(void *arg, err e, str body) {
    Flow *f = arg;
    if (!e) e = parse(f, body);
    if (e) flow_fail(f);
    else flow_resume(f);
}

Verdict stage_parse(Flow *f) {
    exchange_read_all(f->x, (size_t)setting_int(&gateway_settings[GW_BODY_MAX]), body_is_here, f);
    return VERDICT_WAIT;
}
