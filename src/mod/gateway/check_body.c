// SPDX-License-Identifier: Apache-2.0
// check_body.c - what of a request's body is refused before an engine sees it: members whose type
// or form OpenAI's reference fixes (platform documentation, "Create chat completion", "Create
// completion", "Create embeddings"). Engines answer what is wrong there badly, some with a 500 or
// in the words of their JSON library. A member not known here is the engine's, but one that is a
// letter away from a known one is a slip, which would change the answer without a word.
// Owner: texts in c->mem. Threads: any.
#include "mod/gateway/flow.h"

static const char *kind_of(yyjson_val *v) {
    return !v                                        ? "nothing"
           : yyjson_is_str(v) && !yyjson_get_len(v)  ? "an empty string"
           : yyjson_is_arr(v) && !yyjson_arr_size(v) ? "an empty list"
                                                     : yyjson_get_type_desc(v);
}

err body_wrong(Ctx *c, const char *field, const char *want, yyjson_val *got) {
    return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", field, "want", want, "got", kind_of(got));
}

static bool is_absent(yyjson_val *v) { return !v || yyjson_is_null(v); }
static bool is_text(yyjson_val *v) { return yyjson_is_str(v) && yyjson_get_len(v); }

// ---- a conversation
static err check_parts(Ctx *c, size_t at, yyjson_val *parts) {
    size_t i, n;
    yyjson_val *part;
    yyjson_arr_foreach(parts, i, n, part) {
        if (is_text(json_get(part, "type"))) continue;
        return body_wrong(c, say(c, "messages[%zu].content[%zu].type", at, i), "the name of a type",
                          json_get(part, "type"));
    }
    return ERR_OK;
}

static err message_wrong(Ctx *c, size_t at, const char *member, const char *want, yyjson_val *got) {
    return body_wrong(c, say(c, "messages[%zu]%s", at, member), want, got);
}

static err check_message(Ctx *c, size_t at, yyjson_val *message) {
    yyjson_val *role = json_get(message, "role"), *content = json_get(message, "content");
    if (!yyjson_is_obj(message)) return message_wrong(c, at, "", "an object", message);
    if (!is_text(role)) return message_wrong(c, at, ".role", "the name of a role", role);
    bool may_lack = str_is(json_str(role), "assistant"); // one that calls tools or refuses
    if (yyjson_is_arr(content)) return check_parts(c, at, content);
    if (yyjson_is_str(content) || (may_lack && is_absent(content))) return ERR_OK;
    return message_wrong(c, at, ".content", "text or a list of parts", content);
}

static err check_messages(Ctx *c, yyjson_val *messages) {
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(messages) || !yyjson_arr_size(messages))
        return body_wrong(c, "messages", "a list of at least one message", messages);
    yyjson_arr_foreach(messages, i, n, one) TRY(check_message(c, i, one));
    return ERR_OK;
}

// ---- texts, or their tokens
static bool are_tokens(yyjson_val *list) {
    size_t i, n;
    yyjson_val *one;
    yyjson_arr_foreach(list, i, n, one) {
        if (!yyjson_is_uint(one)) return false;
    }
    return yyjson_is_arr(list) && n;
}

// "text", ["text", …], [1, 2], [[1, 2], …]; what may be empty: a prompt, not what is embedded.
static err check_texts(Ctx *c, const char *field, yyjson_val *v, bool may_be_empty, int64_t *out) {
    size_t i, n;
    yyjson_val *one;
    *out = 1;
    if (yyjson_is_str(v) && (may_be_empty || yyjson_get_len(v))) return ERR_OK;
    if (!yyjson_is_arr(v) || !yyjson_arr_size(v))
        return body_wrong(c, field, "text, a list of texts, or tokens", v);
    if (are_tokens(v)) return ERR_OK;
    yyjson_arr_foreach(v, i, n, one) {
        if ((yyjson_is_str(one) && (may_be_empty || yyjson_get_len(one))) || are_tokens(one))
            continue;
        return body_wrong(c, say(c, "%s[%zu]", field, i), "text or a list of tokens", one);
    }
    *out = (int64_t)n;
    return ERR_OK;
}

// ---- the rest
static err check_stop(Ctx *c, yyjson_val *stop) {
    size_t i, n;
    yyjson_val *one;
    if (is_absent(stop) || yyjson_is_str(stop)) return ERR_OK;
    if (!yyjson_is_arr(stop)) return body_wrong(c, "stop", "text or a list of texts", stop);
    yyjson_arr_foreach(stop, i, n, one) {
        if (!yyjson_is_str(one)) return body_wrong(c, say(c, "stop[%zu]", i), "text", one);
    }
    return ERR_OK;
}

static err check_tools(Ctx *c, yyjson_val *tools) {
    size_t i, n;
    yyjson_val *one;
    if (is_absent(tools)) return ERR_OK;
    if (!yyjson_is_arr(tools)) return body_wrong(c, "tools", "a list of tools", tools);
    yyjson_arr_foreach(tools, i, n, one) {
        yyjson_val *name = json_get(json_get(one, "function"), "name");
        bool is_function = str_is(json_get_str(one, "type"), "function");
        if (!yyjson_is_obj(one)) return body_wrong(c, say(c, "tools[%zu]", i), "an object", one);
        if (is_function && !is_text(name))
            return body_wrong(c, say(c, "tools[%zu].function.name", i), "a name", name);
    }
    return ERR_OK;
}

static err check_objects(Ctx *c, yyjson_val *root) {
    static const char *const names[] = { "stream_options", "response_format", "logit_bias" };
    for (size_t i = 0; i < countof(names); i++) {
        yyjson_val *v = json_get(root, names[i]);
        bool list = i == 2 && yyjson_is_arr(v); // llama-server's own form of logit_bias
        if (!is_absent(v) && !yyjson_is_obj(v) && !list)
            return body_wrong(c, names[i], "an object", v);
    }
    yyjson_val *choice = json_get(root, "tool_choice");
    if (is_absent(choice) || yyjson_is_str(choice) || yyjson_is_obj(choice)) return ERR_OK;
    return body_wrong(c, "tool_choice", "a word or an object", choice);
}

static err check_encoding(Ctx *c, yyjson_val *root) {
    yyjson_val *v = json_get(root, "encoding_format");
    str s = json_str(v);
    if (is_absent(v) || str_is(s, "float") || str_is(s, "base64")) return ERR_OK;
    return fail(c, ERR_INVALID, R_FIELD_ENUM, "field", "encoding_format", "names", "float, base64",
                "got", yyjson_is_str(v) ? say_str(c, s) : kind_of(v));
}

// ---- scalars
typedef enum { A_NUMBER, AN_INTEGER, A_BOOL, A_TEXT, AN_OBJECT } Form;
typedef struct Scalar {
    const char *name, *want; // want: of a number with its range
    Form form;
    double least, most;
} Scalar;

// clang-format off
static const Scalar scalars[] = {
    { "temperature",       "a number from 0 to 2",   A_NUMBER,   0, 2 },
    { "top_p",             "a number from 0 to 1",   A_NUMBER,   0, 1 },
    { "presence_penalty",  "a number from -2 to 2",  A_NUMBER,  -2, 2 },
    { "frequency_penalty", "a number from -2 to 2",  A_NUMBER,  -2, 2 },
    { "seed",              "an integer",             AN_INTEGER, 0, 0 },
    { "top_logprobs",      "an integer from 0 to 20", AN_INTEGER, 0, 20 },
    { "dimensions",        "an integer of at least 1", AN_INTEGER, 1, INT32_MAX },
    { "echo",              "true or false",          A_BOOL,     0, 0 },
    { "store",             "true or false",          A_BOOL,     0, 0 },
    { "parallel_tool_calls", "true or false",        A_BOOL,     0, 0 },
    { "user",              "text",                   A_TEXT,     0, 0 },
    { "suffix",            "text",                   A_TEXT,     0, 0 },
    { "service_tier",      "text",                   A_TEXT,     0, 0 },
    { "reasoning_effort",  "text",                   A_TEXT,     0, 0 },
    { "verbosity",         "text",                   A_TEXT,     0, 0 },
    { "safety_identifier", "text",                   A_TEXT,     0, 0 },
    { "prompt_cache_key",  "text",                   A_TEXT,     0, 0 },
    { "metadata",          "an object",              AN_OBJECT,  0, 0 },
};
// Checked elsewhere, or not at all.
static const char *const others[] = {
    "model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens",
    "max_completion_tokens", "n", "stop", "tools", "tool_choice", "functions", "function_call",
    "logprobs", "logit_bias", "response_format", "encoding_format", "best_of", "modalities",
    "audio", "prediction", "web_search_options",
};
// clang-format on

static bool fits(const Scalar *s, yyjson_val *v) {
    bool free = s->least >= s->most, number = s->form == A_NUMBER || s->form == AN_INTEGER;
    double n = yyjson_is_num(v) ? yyjson_get_num(v) : 0;
    if (number && !free && (n < s->least || n > s->most)) return false;
    switch (s->form) {
    case A_NUMBER: return yyjson_is_num(v);
    case AN_INTEGER: return yyjson_is_int(v);
    case A_BOOL: return yyjson_is_bool(v);
    case A_TEXT: return yyjson_is_str(v);
    case AN_OBJECT: return yyjson_is_obj(v);
    }
    return false;
}

static err scalar_wrong(Ctx *c, const Scalar *s, yyjson_val *v) {
    const char *got = yyjson_is_num(v) ? json_text(c->mem, v).p : kind_of(v);
    return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", s->name, "want", s->want, "got", got);
}

// Completions ask for a number of log probabilities, conversations whether there are any.
static err check_logprobs(Ctx *c, Operation op, yyjson_val *v) {
    static const Scalar forms[] = {
        [OP_CHAT] = { "logprobs", "true or false", A_BOOL, 0, 0 },
        [OP_COMPLETION] = { "logprobs", "an integer from 0 to 20", AN_INTEGER, 0, 20 },
    };
    if (is_absent(v) || op == OP_EMBEDDING || fits(&forms[op], v)) return ERR_OK;
    return scalar_wrong(c, &forms[op], v);
}

// A known name that the other one is a slip of: not of short ones, which have many neighbours.
static bool slips(str name, const char *known, const char **out) {
    enum { SHORT = 6 };
    size_t n = strlen(known);
    bool near = name.n >= SHORT && n >= SHORT && name.n + 1 >= n && n + 1 >= name.n;
    if (!near || str_distance(name, str_z(known)) > 1) return false;
    *out = known;
    return true;
}

static err check_name(Ctx *c, str name) {
    const char *near = NULL;
    for (size_t i = 0; i < countof(others); i++)
        if (str_is(name, others[i])) return ERR_OK;
    for (size_t i = 0; i < countof(others) && !near; i++)
        if (slips(name, others[i], &near)) break;
    for (size_t i = 0; i < countof(scalars) && !near; i++)
        if (slips(name, scalars[i].name, &near)) break;
    if (!near) return ERR_OK;
    return fail(c, ERR_INVALID, R_FIELD_UNKNOWN, "field", say_str(c, name), "nearest", near);
}

static err check_member(Ctx *c, str name, yyjson_val *v) {
    for (size_t i = 0; i < countof(scalars); i++) {
        if (!str_is(name, scalars[i].name)) continue;
        return is_absent(v) || fits(&scalars[i], v) ? ERR_OK : scalar_wrong(c, &scalars[i], v);
    }
    return check_name(c, name);
}

static err check_members(Ctx *c, Operation op, yyjson_val *root) {
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(root, i, n, key, v) TRY(check_member(c, json_str(key), v));
    return check_logprobs(c, op, json_get(root, "logprobs"));
}

err body_check(Ctx *c, Operation op, yyjson_val *root, int64_t *out_prompts) {
    static const char *const fields[] = {
        [OP_CHAT] = "messages", [OP_COMPLETION] = "prompt", [OP_EMBEDDING] = "input"
    };
    yyjson_val *v = json_get(root, fields[op]);
    *out_prompts = 1;
    TRY(check_members(c, op, root));
    if (!v) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", fields[op]);
    if (op == OP_CHAT) TRY(check_messages(c, v));
    else TRY(check_texts(c, fields[op], v, op == OP_COMPLETION, out_prompts));
    if (op == OP_EMBEDDING) return check_encoding(c, root);
    TRY(check_stop(c, json_get(root, "stop")));
    if (op == OP_CHAT) TRY(check_tools(c, json_get(root, "tools")));
    return check_objects(c, root);
}
