// SPDX-License-Identifier: Apache-2.0
// ask.c - bodies of requests. What is refused, with which status, type and words, was taken from
// llama-server's answers (llama.cpp of deps/manifest), odd ones included: JSON that does not parse
// is its own 500.
// Owner: all in the exchange's arena. Threads: the loop's.
#include "fake.h"
#include <assert.h>

static const char invalid[] = "invalid_request_error", broken[] = "server_error";

bool refuse_with(Refusal *why, int status, const char *type, const char *message) {
    *why = (Refusal){ .status = status, .type = type, .message = message };
    return false;
}

static const char *type_of(yyjson_val *v) {
    if (yyjson_is_num(v)) return "number";
    if (yyjson_is_bool(v)) return "boolean";
    if (yyjson_is_str(v)) return "string";
    if (yyjson_is_arr(v)) return "array";
    return yyjson_is_obj(v) ? "object" : "null";
}

static bool wrong_type(Ctx *c, Refusal *why, const char *field, const char *want, yyjson_val *v) {
    return refuse_with(why, 400, invalid,
                       say(c,
                           "Field '%s': [json.exception.type_error.302] type must be %s, but "
                           "is %s",
                           field, want, type_of(v)));
}

// ---- fields

static bool field_number(Ctx *c, yyjson_val *root, const char *key, int64_t *out, Refusal *why) {
    yyjson_val *v = json_get(root, key);
    if (!v || yyjson_is_null(v)) return true;
    if (!yyjson_is_num(v)) return wrong_type(c, why, key, "number", v);
    double f = yyjson_get_num(v);
    *out = f > INT32_MAX ? INT32_MAX : f < INT32_MIN ? INT32_MIN : (int64_t)f;
    return true;
}

typedef struct Range {
    const char *key;
    int64_t min, max;
} Range;

static bool field_range(Ctx *c, yyjson_val *root, Range r, int64_t *out, Refusal *why) {
    int64_t n = *out;
    if (!field_number(c, root, r.key, &n, why)) return false;
    if (n != *out && (n < r.min || n > r.max))
        return refuse_with(why, 400, invalid,
                           say(c,
                               "Field '%s': Value must be between %lld <= value <= %lld, but "
                               "got %lld",
                               r.key, (long long)r.min, (long long)r.max, (long long)n));
    *out = n;
    return true;
}

static bool field_bool(Ctx *c, yyjson_val *root, const char *key, bool *out, Refusal *why) {
    yyjson_val *v = json_get(root, key);
    if (!v || yyjson_is_null(v)) return true;
    if (!yyjson_is_bool(v)) return wrong_type(c, why, key, "boolean", v);
    *out = yyjson_get_bool(v);
    return true;
}

static bool common_fields(Ctx *c, const Engine *e, yyjson_val *root, Ask *a, Refusal *why) {
    static const char *const limits[] = { "n_predict", "max_tokens", "max_completion_tokens" };
    static const char *const others[] = { "temperature",       "top_p",           "seed", "top_k",
                                          "frequency_penalty", "presence_penalty" };
    for (size_t i = 0; i < countof(limits); i++)
        if (!field_range(c, root, (Range){ limits[i], -1, INT32_MAX }, &a->max_tokens, why))
            return false;
    for (size_t i = 0; i < countof(others); i++)
        if (!field_number(c, root, others[i], &(int64_t){ 0 }, why)) return false;
    a->n = 1;
    if (!field_range(c, root, (Range){ "n", 1, e->o.slots }, &a->n, why)) return false;
    a->usage = json_get_bool(json_get(root, "stream_options"), "include_usage", false);
    a->timings = json_get_bool(root, "timings_per_token", false);
    a->progress = json_get_bool(root, "return_progress", false);
    return field_bool(c, root, "stream", &a->stream, why)
           && field_bool(c, root, "ignore_eos", &a->ignore_eos, why);
}

static void stops_parse(Ctx *c, yyjson_val *root, Ask *a) {
    yyjson_val *v = json_get(root, "stop"), *item;
    size_t i, n;
    if (json_str(v).n) {
        a->stops = new (c->mem, str, 1);
        a->stops[a->stops_n++] = json_str(v);
    }
    if (!yyjson_is_arr(v)) return;
    a->stops = new (c->mem, str, yyjson_arr_size(v) + 1);
    yyjson_arr_foreach(v, i, n, item) {
        if (json_str(item).n) a->stops[a->stops_n++] = json_str(item);
    }
}

// ---- prompts

static const char bad_prompt[] = "\"prompt\" elements must be a string, a list of tokens, a JSON "
                                 "object containing a prompt string, or a list of mixed strings & "
                                 "tokens.";

static bool is_token_list(yyjson_val *v) {
    return yyjson_is_arr(v) && yyjson_is_int(yyjson_arr_get_first(v));
}

// A string, or numbers and strings in a list.
static bool prompt_parse(yyjson_val *v, Prompt *p) {
    yyjson_val *item;
    size_t i, n;
    if (yyjson_is_str(v)) prompt_add(p, json_str(v));
    if (!yyjson_is_arr(v)) return yyjson_is_str(v);
    yyjson_arr_foreach(v, i, n, item) {
        if (yyjson_is_str(item)) prompt_add(p, json_str(item));
        else if (yyjson_is_int(item)) p->tokens++, p->hash = mix(p->hash, yyjson_get_uint(item));
        else return false;
    }
    return true;
}

static bool prompts_parse(Ctx *c, yyjson_val *v, Ask *a, int status, Refusal *why) {
    const char *type = status == 400 ? invalid : broken;
    bool many = yyjson_is_arr(v) && !is_token_list(v);
    if (many && !yyjson_arr_size(v))
        return refuse_with(why, status, type, "\"prompt\" must not be empty");
    a->prompts_n = many ? yyjson_arr_size(v) : 1;
    a->prompts = new (c->mem, Prompt, a->prompts_n);
    for (size_t i = 0; i < a->prompts_n; i++)
        if (!prompt_parse(many ? yyjson_arr_get(v, i) : v, &a->prompts[i]))
            return refuse_with(why, status, type, bad_prompt);
    return true;
}

// ---- messages

typedef struct Page { // the prompt: counted, and written when a text is wanted
    Prompt *p;
    Buf *text;
} Page;

static void page_add(Page *g, str s) {
    prompt_add(g->p, s);
    if (g->text) buf_add(g->text, s);
}

static bool add_parts(Ctx *c, Page *g, yyjson_val *parts, Refusal *why) {
    yyjson_val *part;
    size_t i, n;
    yyjson_arr_foreach(parts, i, n, part) {
        str type = json_get_str(part, "type");
        if (str_is(type, "image_url") || str_is(type, "input_audio"))
            return refuse_with(why, 500, broken,
                               "image input is not supported - hint: if this is unexpected, you "
                               "may need to provide the mmproj");
        if (!str_is(type, "text"))
            return refuse_with(why, 400, invalid, "unsupported content[].type");
        if (i) page_add(g, S("\n"));
        page_add(g, json_get_str(part, "text"));
    }
    (void)c;
    return true;
}

static bool add_content(Ctx *c, Page *g, yyjson_val *message, Refusal *why) {
    yyjson_val *content = json_get(message, "content"), *call;
    size_t i, n;
    if (yyjson_is_str(content)) page_add(g, json_str(content));
    else if (yyjson_is_arr(content)) {
        if (!add_parts(c, g, content, why)) return false;
    } else if (content && !yyjson_is_null(content))
        return refuse_with(why, 400, invalid, "Expected 'content' to be a string or an array");
    yyjson_arr_foreach(json_get(message, "tool_calls"), i, n, call) {
        page_add(g, json_get_str(json_get(call, "function"), "name"));
        page_add(g, json_get_str(json_get(call, "function"), "arguments"));
    }
    return true;
}

static bool add_message(Ctx *c, Page *g, yyjson_val *m, Refusal *why) {
    str role = json_get_str(m, "role");
    bool assistant = str_is(role, "assistant");
    if (!json_get(m, "content") && !(assistant && json_get(m, "tool_calls")))
        return refuse_with(why, 400, invalid,
                           assistant ? "Assistant message must contain either 'content' or "
                                       "'tool_calls'!"
                                     : "All non-assistant messages must contain 'content'");
    if (!role.p)
        return refuse_with(why, 500, broken, "Failed to parse messages: Missing 'role' in message");
    page_add(g, S("<|im_start|>"));
    page_add(g, role);
    page_add(g, S("\n"));
    if (!add_content(c, g, m, why)) return false;
    page_add(g, S("<|im_end|>"));
    page_add(g, S("\n"));
    return true;
}

bool ask_template(Ctx *c, yyjson_val *root, Prompt *p, str *out_text, Refusal *why) {
    enum { PROMPT_MAX = 128 << 20 };
    yyjson_val *messages = json_get(root, "messages"), *m;
    size_t i, n;
    Buf text;
    if (!messages) return refuse_with(why, 400, invalid, "'messages' is required");
    if (!yyjson_is_arr(messages))
        return refuse_with(why, 400, invalid, "Expected 'messages' to be an array");
    buf_init(&text, PROMPT_MAX);
    Page g = { p, out_text ? &text : NULL };
    bool good = true;
    yyjson_arr_foreach(messages, i, n, m) {
        if (good) good = add_message(c, &g, m, why);
    }
    page_add(&g, S("<|im_start|>"));
    page_add(&g, S("assistant"));
    page_add(&g, S("\n"));
    if (good && out_text) *out_text = arena_str(c->mem, buf_str(&text));
    buf_done(&text);
    return good;
}

// ---- chat

static bool tools_parse(Ctx *c, yyjson_val *root, Ask *a, Refusal *why) {
    yyjson_val *tools = json_get(root, "tools"), *choice = json_get(root, "tool_choice"), *tool;
    size_t i, n;
    str kind = json_str(choice), name = json_get_str(json_get(choice, "function"), "name");
    if (tools && !yyjson_is_null(tools) && !yyjson_is_arr(tools))
        return refuse_with(why, 500, broken,
                           say(c, "Failed to parse tools: Expected 'tools' to be an array, got %s",
                               type_of(tools)));
    if (kind.p && !str_is(kind, "auto") && !str_is(kind, "none") && !str_is(kind, "required"))
        return refuse_with(why, 400, invalid, say(c, "Invalid tool_choice: %s", say_str(c, kind)));
    if (!str_is(kind, "required") && !name.p) return true;
    yyjson_arr_foreach(tools, i, n, tool) {
        yyjson_val *function = json_get(tool, "function");
        if (!a->tool || str_eq(json_get_str(function, "name"), name)) a->tool = function;
    }
    return true;
}

static bool format_parse(Ctx *c, yyjson_val *root, Ask *a, Refusal *why) {
    yyjson_val *format = json_get(root, "response_format");
    str type = json_get_str(format, "type");
    if (!type.p || str_is(type, "text")) return true;
    a->json = true;
    a->schema = json_get(json_get(format, "json_schema"), "schema");
    if (!a->schema) a->schema = json_get(format, "schema");
    if (str_is(type, "json_object") || str_is(type, "json_schema")) return true;
    return refuse_with(why, 400, invalid,
                       say(c,
                           "response_format type must be one of \"text\" or \"json_object\", "
                           "but got: %s",
                           say_str(c, type)));
}

static bool chat_parse(Ctx *c, yyjson_val *root, Ask *a, Refusal *why) {
    a->prompts_n = 1;
    a->prompts = new (c->mem, Prompt, 1);
    return ask_template(c, root, a->prompts, NULL, why) && tools_parse(c, root, a, why)
           && format_parse(c, root, a, why);
}

// ---- all kinds

static bool embed_parse(Ctx *c, const Engine *e, yyjson_val *root, Ask *a, Refusal *why) {
    yyjson_val *input = json_get(root, "input");
    if (!input) input = json_get(root, "content");
    if (!input) return refuse_with(why, 400, invalid, "\"input\" or \"content\" must be provided");
    a->base64 = str_is(json_get_str(root, "encoding_format"), "base64");
    if (!prompts_parse(c, input, a, 500, why)) return false;
    for (size_t i = 0; i < a->prompts_n; i++) {
        long long n = a->prompts[i].tokens;
        if (!n) return refuse_with(why, 400, invalid, "Input content cannot be empty");
        if (n > e->o.batch)
            return refuse_with(why, 500, broken,
                               say(c,
                                   "input (%lld tokens) is too large to process. increase the "
                                   "physical batch size (current batch size: %lld)",
                                   n, (long long)e->o.batch));
    }
    return true;
}

static bool fits(Ctx *c, const Engine *e, const Ask *a, Refusal *why) {
    int64_t context = options_context(&e->o);
    for (size_t i = 0; i < a->prompts_n; i++) {
        if (a->prompts[i].tokens < context) continue;
        refuse_with(why, 400, "exceed_context_size_error",
                    say(c,
                        "request (%lld tokens) exceeds the available context size (%lld "
                        "tokens), try increasing it",
                        (long long)a->prompts[i].tokens, (long long)context));
        why->prompt_tokens = a->prompts[i].tokens;
        why->context = context;
        return false;
    }
    return true;
}

static bool text_parse(Ctx *c, yyjson_val *root, Ask *a, Refusal *why) {
    yyjson_val *prompt = json_get(root, "prompt");
    if (!prompt)
        return refuse_with(why, 400, invalid,
                           "[json.exception.out_of_range.403] key 'prompt' not found");
    return prompts_parse(c, prompt, a, 400, why);
}

bool ask_parse(Ctx *c, const Engine *e, str body, Ask *a, Refusal *why) {
    yyjson_val *root;
    a->max_tokens = -1;
    if (json_parse(c, body, &root)) {
        str at = failure_param(&c->failure, "offset");
        return refuse_with(why, 500, broken,
                           say(c, "[json.exception.parse_error.101] parse error at byte %s",
                               at.n ? say_str(c, at) : "0"));
    }
    a->model = json_get_str(root, "model");
    if (a->kind == ASK_EMBED) return embed_parse(c, e, root, a, why);
    bool good = a->kind == ASK_CHAT ? chat_parse(c, root, a, why) : text_parse(c, root, a, why);
    if (!good || !common_fields(c, e, root, a, why)) return false;
    stops_parse(c, root, a);
    return fits(c, e, a, why);
}
