// SPDX-License-Identifier: Apache-2.0
// check_body.c - what of a request's body is refused before an engine sees it: members whose type
// or form OpenAI's reference fixes (platform documentation, "Create chat completion", "Create
// completion", "Create embeddings") and engines answer badly, some with a 500. What engines name
// well themselves (temperature, seed, …) is left to them, and so is every member not known here.
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

err body_check(Ctx *c, Operation op, yyjson_val *root, int64_t *out_prompts) {
    static const char *const fields[] = {
        [OP_CHAT] = "messages", [OP_COMPLETION] = "prompt", [OP_EMBEDDING] = "input"
    };
    yyjson_val *v = json_get(root, fields[op]);
    *out_prompts = 1;
    if (!v) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", fields[op]);
    if (op == OP_CHAT) TRY(check_messages(c, v));
    else TRY(check_texts(c, fields[op], v, op == OP_COMPLETION, out_prompts));
    if (op == OP_EMBEDDING) return check_encoding(c, root);
    TRY(check_stop(c, json_get(root, "stop")));
    if (op == OP_CHAT) TRY(check_tools(c, json_get(root, "tools")));
    return check_objects(c, root);
}
