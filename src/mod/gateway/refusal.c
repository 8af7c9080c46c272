// SPDX-License-Identifier: Apache-2.0
// refusal.c - what an engine's error answer becomes: a refusal of the client's request that names
// what is wrong with it, or a failure of the engine. Read are OpenAI's and llama-server's form,
// {"error": {"message", "type", "n_prompt_tokens", "n_ctx"}}; anything else is shown shortened.
// Owner: texts in the call's arena. Threads: the exchange's loop.
#include "mod/gateway/flow.h"

// llama-server answers some bodies that it does not like with a 500.
static bool is_the_clients(str message) {
    static const char *const known[] = { "Failed to parse ", "image input is not supported",
                                         "audio input is not supported", "Failed to load image" };
    for (size_t i = 0; i < countof(known); i++)
        if (str_find(message, str_z(known[i])) >= 0) return true;
    return false;
}

// The server does not take our key, or wants our money, or does not have what its deployment says
// it has.
static bool is_ours(int status) {
    return status == 401 || status == 402 || status == 403 || status == 404 || status == 405;
}

// "Field 'n': Value must be …": its name, or NULL.
static const char *named_field(Ctx *c, str message) {
    str rest = message, name;
    if (!str_starts(message, S("Field '")) || !str_cut(&rest, '\'', &name)) return NULL;
    if (!str_cut(&rest, '\'', &name) || !rest.p) return NULL;
    return say_str(c, name);
}

// The number right behind a mark: "… (current batch size: 512)".
static bool number_after(str text, const char *mark, int64_t *out) {
    ptrdiff_t at = str_find(text, str_z(mark));
    if (at < 0) return false;
    str rest = str_sub(text, (size_t)at + strlen(mark), text.n);
    size_t n = 0;
    while (n < rest.n && rest.p[n] >= '0' && rest.p[n] <= '9') n++;
    return str_to_i64(str_sub(rest, 0, n), out);
}

static bool is_too_long(yyjson_val *error, str message, int64_t *tokens, int64_t *context) {
    if (json_get_i64(error, "n_prompt_tokens", tokens) && json_get_i64(error, "n_ctx", context))
        return true;
    if (number_after(message, "prompt is too long: ", tokens)) // Anthropic's
        return number_after(message, " tokens > ", context);
    return number_after(message, "input (", tokens)
           && number_after(message, "current batch size: ", context); // of a text to embed
}

err engine_refusal(Flow *f, int status, str body) {
    static const char *const fields[] = {
        [OP_CHAT] = "messages", [OP_COMPLETION] = "prompt", [OP_EMBEDDING] = "input"
    };
    Ctx *c = f->c;
    yyjson_val *root = NULL, *error;
    DialectError said;
    const char *model = say_str(c, f->deployment->name);
    int64_t tokens, context;
    if (json_parse(c, body, &root)) root = NULL;
    error = json_get(root, "error");
    str message = json_get_str(error, "message");
    if (!message.p && dialect_read_error(f->dialect, root, &said)) message = said.message;
    if (!message.p) message = body;
    if (is_too_long(error, message, &tokens, &context))
        return fail(c, ERR_INVALID, R_CONTEXT, "field", fields[f->operation], "tokens",
                    say(c, "%lld", (long long)tokens), "context",
                    say(c, "%lld", (long long)context), "model", model);
    const char *why = say_str(c, message), *field = named_field(c, message);
    if ((status >= 500 && !is_the_clients(message)) || is_ours(status))
        return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", model, "why", why);
    err how = status == 429 ? ERR_LIMITED : ERR_INVALID;
    return field ? fail(c, how, R_ENGINE_REFUSED, "field", field, "why", why)
                 : fail(c, how, R_ENGINE_REFUSED, "why", why);
}
