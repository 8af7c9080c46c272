// SPDX-License-Identifier: Apache-2.0
// anthropic.c - requests of Anthropic's Messages API (API reference, "Create a Message"): text,
// images, documents, tools, thinking, cache marks, structured output. Tools that Anthropic's
// servers run are refused by name. Owner: everything in the call's arena. Threads: one at a time.
#include "mod/dialect/anthropic.h"

enum { OUTPUT_DEFAULT = 4096, BUDGET_LEAST = 1024 };

// ---- blocks
static err read_cache(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type" }, { "ttl" }, { 0 } };
    TRY(read_members(in, at, v, rows, NULL));
    *(bool *)into = true;
    SAID(in, CACHE_MARKS, at);
    return ERR_OK;
}
#define CACHE_ROW \
    { "cache_control", read_cache, offsetof(TalkPart, cache_mark) }

typedef struct Source {
    str type, media_type, data, url;
} Source;

static err read_source(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_text, offsetof(Source, type) },
                                   { "media_type", read_text, offsetof(Source, media_type) },
                                   { "data", read_text, offsetof(Source, data) },
                                   { "url", read_text, offsetof(Source, url) },
                                   { 0 } };
    TalkPart *p = into;
    bool document = p->kind == PART_DOCUMENT;
    Source s = { 0 };
    At at_type = { at, "type", 0 }, at_url = { at, "url", 0 };
    TRY(read_members(in, at, v, rows, &s));
    if (str_is(s.type, "url") && s.url.n) {
        p->url = s.url;
        if (document) SAID(in, DOCUMENT_URLS, &at_url);
        else SAID(in, IMAGE_URLS, &at_url);
    } else if (str_is(s.type, "base64") && s.data.n) {
        p->data = s.data, p->media_type = s.media_type;
    } else if (str_is(s.type, "text") && document) {
        p->text = s.data;
        SAID(in, TEXT_DOCUMENTS, at);
    } else {
        return at_enum(in, &at_type, document ? "base64, url, text" : "base64, url", s.type);
    }
    return ERR_OK;
}

static err read_citations(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    return json_get_bool(v, "enabled", false) ? at_unknown(in, at) : ERR_OK;
}

static err read_input(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    *(str *)into = json_text(in->c->mem, v);
    return ERR_OK;
}

static err read_signature(In *in, const At *at, yyjson_val *v, void *into) {
    TRY(read_text(in, at, v, into));
    if (!yyjson_get_len(v)) *(str *)into = (str){ 0 };
    else SAID(in, SIGNATURES, at);
    return ERR_OK;
}

static err read_redacted(In *in, const At *at, yyjson_val *v, void *into) {
    str data;
    TRY(read_text(in, at, v, &data));
    *(str *)into = arena_join(in->c->mem, (str[]){ S(REDACTED), data }, 2, S(""));
    SAID(in, SIGNATURES, at);
    return ERR_OK;
}

str redacted_data(str signature) {
    size_t n = sizeof REDACTED - 1;
    return str_starts(signature, S(REDACTED)) ? str_sub(signature, n, signature.n) : (str){ 0 };
}

static err read_result_content(In *in, const At *at, yyjson_val *v, void *into);
static err read_is_error(In *in, const At *at, yyjson_val *v, void *into) {
    int flag = 0;
    TRY(read_bool(in, at, v, &flag));
    *(bool *)into = flag;
    if (flag) SAID(in, TOOL_ERRORS, at);
    return ERR_OK;
}

// clang-format off
static const Member text_rows[] = {
    { "type" }, { "text", read_text, offsetof(TalkPart, text) }, { "citations" }, CACHE_ROW, { 0 }
};
static const Member image_rows[] = { { "type" }, { "source", read_source, 0 }, CACHE_ROW, { 0 } };
static const Member document_rows[] = {
    { "type" }, { "source", read_source, 0 }, { "title", read_text, offsetof(TalkPart, name) },
    { "citations", read_citations, 0 }, CACHE_ROW, { 0 }
};
static const Member call_rows[] = {
    { "type" }, { "id", read_text, offsetof(TalkPart, id) }, { "name", read_text,
        offsetof(TalkPart, name) },
    { "input", read_input, offsetof(TalkPart, arguments) }, { "caller" }, CACHE_ROW, { 0 }
};
static const Member result_rows[] = {
    { "type" }, { "tool_use_id", read_text, offsetof(TalkPart, id) }, { "content",
        read_result_content, 0 },
    { "is_error", read_is_error, offsetof(TalkPart, is_error) }, CACHE_ROW, { 0 }
};
static const Member thinking_rows[] = {
    { "type" }, { "thinking", read_text, offsetof(TalkPart, text) },
    { "signature", read_signature, offsetof(TalkPart, signature) }, { 0 }
};
static const Member redacted_rows[] = {
    { "type" }, { "data", read_redacted, offsetof(TalkPart, signature) }, { 0 }
};
enum { IN_SYSTEM = 1, IN_USER = 2, IN_MODEL = 4, IN_RESULT = 8 };
static const struct Block {
    const char *type, *member; // that it must have
    PartKind kind;
    unsigned where;
    const Member *rows;
} blocks[] = {
    { "text", "text", PART_TEXT, IN_SYSTEM | IN_USER | IN_MODEL | IN_RESULT, text_rows },
    { "image", "source", PART_IMAGE, IN_USER | IN_RESULT, image_rows },
    { "document", "source", PART_DOCUMENT, IN_USER, document_rows },
    { "tool_use", "id", PART_CALL, IN_MODEL, call_rows },
    { "tool_result", "tool_use_id", PART_RESULT, IN_USER, result_rows },
    { "thinking", "thinking", PART_REASONING, IN_MODEL, thinking_rows },
    { "redacted_thinking", "data", PART_REASONING, IN_MODEL, redacted_rows },
};
// clang-format on

static err find_block(In *in, const At *at, yyjson_val *v, unsigned where,
                      const struct Block **out) {
    static const char *const names[] = { [IN_SYSTEM] = "text",
                                         [IN_USER] = "text, image, document, tool_result",
                                         [IN_MODEL] = "text, tool_use, thinking, redacted_thinking",
                                         [IN_RESULT] = "text, image" };
    At at_type = { at, "type", 0 };
    str type = json_get_str(v, "type");
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    for (size_t i = 0; i < countof(blocks); i++) {
        if (!str_is(type, blocks[i].type) || !(blocks[i].where & where)) continue;
        *out = &blocks[i];
        return json_get(v, blocks[i].member) ? ERR_OK : at_missing(in, at, blocks[i].member);
    }
    return at_enum(in, &at_type, names[where], type);
}

static err read_block(In *in, const At *at, yyjson_val *v, const struct Block *b, TalkMessage *m) {
    TalkPart *p = add_part(m, b->kind);
    TRY(read_members(in, at, v, b->rows, p));
    if (b->kind == PART_IMAGE) SAID(in, IMAGES, at);
    if (b->kind == PART_DOCUMENT) SAID(in, DOCUMENTS, at);
    if (b->kind == PART_REASONING) SAID(in, PAST_REASONING, at);
    if (b->kind != PART_CALL) return ERR_OK;
    if (!p->arguments.p) p->arguments = S("{}");
    return p->name.n ? ERR_OK : at_missing(in, at, "name");
}

// A text, or blocks of one place, into one message.
static err read_blocks(In *in, const At *at, yyjson_val *v, unsigned where, TalkMessage *m) {
    size_t i, n;
    yyjson_val *one;
    if (yyjson_is_str(v)) {
        add_part(m, PART_TEXT)->text = json_str(v);
        return ERR_OK;
    }
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "text or a list of blocks", v);
    yyjson_arr_foreach(v, i, n, one) {
        const struct Block *b;
        At here = { at, NULL, i };
        TRY(find_block(in, &here, one, where, &b));
        TRY(read_block(in, &here, one, b, m));
    }
    return ERR_OK;
}

static err read_result_content(In *in, const At *at, yyjson_val *v, void *into) {
    TalkPart *p = into;
    TalkMessage inner = { .role = ROLE_TOOL,
                          .parts = new (in->c->mem, TalkPart, yyjson_arr_size(v) + 1) };
    TRY(read_blocks(in, at, v, IN_RESULT, &inner));
    p->parts = inner.parts, p->parts_n = inner.parts_n;
    for (size_t i = 0; i < p->parts_n; i++)
        if (p->parts[i].kind == PART_IMAGE) SAID(in, RESULT_IMAGES, at);
    return ERR_OK;
}

static bool is_result(yyjson_val *block) {
    return str_is(json_get_str(block, "type"), "tool_result");
}

// From this one on: those that make one message.
static size_t blocks_of_message(yyjson_val *block, size_t left) {
    size_t n = 0;
    for (; n < left && !is_result(block); block = unsafe_yyjson_get_next(block)) n++;
    return n;
}

// A user's blocks: results of tools are messages of their own.
static err read_user(In *in, const At *at, yyjson_val *content) {
    size_t i, n;
    yyjson_val *one;
    TalkMessage *m = NULL;
    At here = { at, "content", 0 };
    if (!yyjson_is_arr(content))
        return read_blocks(in, &here, content, IN_USER, add_message(in, ROLE_USER, at, 1));
    yyjson_arr_foreach(content, i, n, one) {
        const struct Block *b;
        At inner = { &here, NULL, i };
        TRY(find_block(in, &inner, one, IN_USER, &b));
        if (b->kind == PART_RESULT) {
            TRY(read_block(in, &inner, one, b, add_message(in, ROLE_TOOL, &inner, 1)));
            m = NULL;
        } else {
            if (!m) m = add_message(in, ROLE_USER, at, blocks_of_message(one, n - i));
            TRY(read_block(in, &inner, one, b, m));
        }
    }
    return ERR_OK;
}

static err read_message(In *in, const At *at, yyjson_val *v) {
    static const Member rows[] = { { "role" }, { "content" }, { 0 } };
    yyjson_val *content = json_get(v, "content");
    str role = json_get_str(v, "role");
    At at_role = { at, "role", 0 }, here = { at, "content", 0 };
    TRY(read_members(in, at, v, rows, NULL));
    if (!content) return at_missing(in, at, "content");
    if (str_is(role, "user")) return read_user(in, at, content);
    size_t parts = yyjson_arr_size(content) + 1;
    if (str_is(role, "assistant"))
        return read_blocks(in, &here, content, IN_MODEL,
                           add_message(in, ROLE_ASSISTANT, at, parts));
    if (str_is(role, "system"))
        return read_blocks(in, &here, content, IN_SYSTEM, add_message(in, ROLE_SYSTEM, at, parts));
    return at_enum(in, &at_role, "user, assistant", role);
}

static err read_messages(In *in, const At *at, yyjson_val *v, void *into) {
    size_t i, n;
    yyjson_val *one;
    (void)into;
    if (!yyjson_is_arr(v) || !yyjson_arr_size(v))
        return at_wrong(in, at, "a list of at least one message", v);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TRY(read_message(in, &here, one));
    }
    return ERR_OK;
}

// ---- tools
static err read_tool_type(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    return str_is(json_str(v), "custom") ? ERR_OK : at_enum(in, at, "custom", json_str(v));
}

static err read_strict(In *in, const At *at, yyjson_val *v, void *into) {
    TRY(read_bool(in, at, v, into));
    if (yyjson_get_bool(v)) SAID(in, STRICT_TOOLS, at);
    return ERR_OK;
}

static err read_tools(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_tool_type, 0 },
                                   { "name", read_text, offsetof(TalkTool, name) },
                                   { "description", read_text, offsetof(TalkTool, description) },
                                   { "input_schema", read_object, offsetof(TalkTool, schema) },
                                   { "strict", read_strict, offsetof(TalkTool, strict) },
                                   { "cache_control", read_cache, offsetof(TalkTool, cache_mark) },
                                   { 0 } };
    Talk *t = in->t;
    size_t i, n;
    yyjson_val *one;
    (void)into;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list of tools", v);
    t->tools = new (in->c->mem, TalkTool, yyjson_arr_size(v) + 1);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i }, at_type = { &here, "type", 0 };
        yyjson_val *type = json_get(one, "type");
        TalkTool *tool = &t->tools[t->tools_n++];
        tool->strict = -1;
        if (type && !yyjson_is_null(type)) TRY(read_tool_type(in, &at_type, type, NULL));
        TRY(read_members(in, &here, one, rows, tool));
        if (!tool->name.n) return at_missing(in, &here, "name");
    }
    if (t->tools_n) SAID(in, TOOLS, at);
    return ERR_OK;
}

static err read_serial(In *in, const At *at, yyjson_val *v, void *into) {
    TRY(read_bool(in, at, v, into));
    if (yyjson_get_bool(v)) SAID(in, SERIAL_TOOLS, at);
    return ERR_OK;
}

static const char *const chooses[] = { "auto", "none", "any", "tool" };

static err read_choice_type(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    for (size_t i = 0; i < countof(chooses); i++)
        if (str_is(json_str(v), chooses[i])) {
            in->t->choose = (Choose)i;
            if (i) SAID(in, TOOL_CHOICE, at->up);
            return ERR_OK;
        }
    return at_enum(in, at, "auto, none, any, tool", json_str(v));
}

static err read_tool_choice(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_choice_type, 0 },
                                   { "name", read_text, offsetof(Talk, chosen) },
                                   { "disable_parallel_tool_use", read_serial,
                                     offsetof(Talk, serial_tools) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    if (!json_get(v, "type")) return at_missing(in, at, "type");
    return in->t->choose == CHOOSE_ONE && !in->t->chosen.n ? at_missing(in, at, "name") : ERR_OK;
}

// ---- the rest of a request
static err read_thinking_type(In *in, const At *at, yyjson_val *v, void *into) {
    str type = json_str(v);
    Talk *t = into;
    if (!str_is(type, "enabled") && !str_is(type, "disabled") && !str_is(type, "adaptive"))
        return at_enum(in, at, "enabled, disabled, adaptive", type);
    t->reasoning.on = !str_is(type, "disabled");
    if (t->reasoning.on) t->reasoning.summary = S("auto"); // thoughts are shown here
    SAID(in, REASONING, at->up);
    return ERR_OK;
}

static err read_thinking(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_thinking_type, 0 },
                                   { "budget_tokens", read_i64, offsetof(Talk, reasoning.tokens) },
                                   { "display" },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    return json_get(v, "type") ? ERR_OK : at_missing(in, at, "type");
}

static err read_effort(In *in, const At *at, yyjson_val *v, void *into) {
    SAID(in, REASONING, at);
    return read_text(in, at, v, into);
}

static err read_format_type(In *in, const At *at, yyjson_val *v, void *into) {
    ((Talk *)into)->format = FORMAT_SCHEMA;
    SAID(in, SCHEMA, at->up);
    return str_is(json_str(v), "json_schema") ? ERR_OK
                                              : at_enum(in, at, "json_schema", json_str(v));
}

static err read_format(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_format_type, 0 },
                                   { "schema", read_object, offsetof(Talk, schema) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    if (!json_get(v, "type")) return at_missing(in, at, "type");
    return in->t->schema ? ERR_OK : at_missing(in, at, "schema");
}

static err read_output_config(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "effort", read_effort, offsetof(Talk, reasoning.effort) },
                                   { "format", read_format, 0 },
                                   { 0 } };
    return read_members(in, at, v, rows, into);
}

static err read_user_id(In *in, const At *at, yyjson_val *v, void *into) {
    SAID(in, USER, at);
    return read_text(in, at, v, into);
}

static err read_metadata(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "user_id", read_user_id, offsetof(Talk, user) }, { 0 } };
    return read_members(in, at, v, rows, into);
}

static err read_cache_all(In *in, const At *at, yyjson_val *v, void *into) {
    bool mark = false;
    (void)into;
    return read_cache(in, at, v, &mark);
}

static err request_read(In *in, yyjson_val *root) {
    static const Member rows[] = { { "system" },
                                   { "messages", read_messages, 0 },
                                   { "stop_sequences", read_stop, 0 },
                                   { "tools", read_tools, 0 },
                                   { "tool_choice", read_tool_choice, 0 },
                                   { "thinking", read_thinking, 0 },
                                   { "output_config", read_output_config, 0 },
                                   { "output_format", read_format, 0 },
                                   { "metadata", read_metadata, 0 },
                                   { "cache_control", read_cache_all, 0 },
                                   { 0 } };
    yyjson_val *system = json_get(root, "system");
    At at = { NULL, "system", 0 };
    if (system && !yyjson_is_null(system))
        TRY(read_blocks(in, &at, system, IN_SYSTEM,
                        add_message(in, ROLE_SYSTEM, &at, yyjson_arr_size(system) + 1)));
    TRY(read_scalars(in, NULL, root, "", rows));
    return in->t->messages_n ? ERR_OK : at_missing(in, NULL, "messages");
}

// ---- written
static void write_cache(const TalkPart *p, Json *j) {
    if (p->cache_mark) json_kv_raw(j, "cache_control", S("{\"type\":\"ephemeral\"}"));
}

static void write_source(const TalkPart *p, Json *j) {
    json_key(j, "source"), json_obj(j);
    if (p->url.p) {
        json_kv_z(j, "type", "url"), json_kv_str(j, "url", p->url);
    } else if (p->data.p) {
        str fallback = p->kind == PART_IMAGE ? S("image/png") : S("application/pdf");
        json_kv_z(j, "type", "base64"),
            json_kv_str(j, "media_type", p->media_type.p ? p->media_type : fallback);
        json_kv_str(j, "data", p->data);
    } else {
        json_kv_z(j, "type", "text"), json_kv_z(j, "media_type", "text/plain"),
            json_kv_str(j, "data", p->text);
    }
    json_end_obj(j);
}

// Ids here are letters, digits, _ and -; others' may have more (functions.get:0).
static str safe_id(Ctx *c, str id) {
    char *out = arena_alloc_raw(c->mem, id.n + 1);
    for (size_t i = 0; i < id.n; i++) {
        char ch = id.p[i];
        bool fine = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9')
                    || ch == '_' || ch == '-';
        out[i] = fine ? ch : '_';
    }
    return str_n(out, id.n);
}

static void write_thought(const TalkPart *p, Json *j) {
    str data = redacted_data(p->signature);
    json_obj(j);
    if (data.p) {
        json_kv_z(j, "type", "redacted_thinking"), json_kv_str(j, "data", data);
    } else {
        json_kv_z(j, "type", "thinking"), json_kv_str(j, "thinking", p->text.p ? p->text : S(""));
        json_kv_str(j, "signature", p->signature);
    }
    json_end_obj(j);
}

static void write_block(const To *to, const TalkPart *p);
static void write_result(const To *to, const TalkPart *p) {
    Json *j = to->j;
    json_kv_z(j, "type", "tool_result"), json_kv_str(j, "tool_use_id", safe_id(to->c, p->id));
    json_key(j, "content");
    if (p->parts_n == 1 && p->parts[0].kind == PART_TEXT && !p->parts[0].cache_mark) {
        json_put_str(j, p->parts[0].text);
    } else {
        json_arr(j);
        for (size_t i = 0; i < p->parts_n; i++) write_block(to, &p->parts[i]);
        json_end_arr(j);
    }
    if (p->is_error) json_kv_bool(j, "is_error", true);
}

static bool says_something(const TalkPart *p) {
    if (p->kind == PART_TEXT || p->kind == PART_REFUSAL) return p->text.n > 0;
    return p->kind != PART_REASONING
           || p->signature.n; // without its maker's proof it is not taken back
}

static void write_block(const To *to, const TalkPart *p) {
    Json *j = to->j;
    if (!says_something(p)) return;
    if (p->kind == PART_REASONING) {
        write_thought(p, j);
        return;
    }
    json_obj(j);
    switch (p->kind) {
    case PART_IMAGE: json_kv_z(j, "type", "image"), write_source(p, j); break;
    case PART_DOCUMENT:
        json_kv_z(j, "type", "document"), write_source(p, j);
        if (p->name.n) json_kv_str(j, "title", p->name);
        break;
    case PART_CALL:
        json_kv_z(j, "type", "tool_use"), json_kv_str(j, "id", safe_id(to->c, p->id));
        json_kv_str(j, "name", p->name), json_key(j, "input"), put_object(p->arguments, j);
        break;
    case PART_RESULT: write_result(to, p); break;
    default: json_kv_z(j, "type", "text"), json_kv_str(j, "text", p->text);
    }
    write_cache(p, j), json_end_obj(j);
}

static void write_system(const To *to) {
    const TalkPart *only = NULL;
    size_t n = 0;
    bool marked = false;
    Json *j = to->j;
    for (size_t i = 0; i < to->t->messages_n; i++) {
        const TalkMessage *m = &to->t->messages[i];
        for (size_t k = 0; m->role == ROLE_SYSTEM && k < m->parts_n; k++)
            if (says_something(&m->parts[k])) only = &m->parts[k], n++, marked |= only->cache_mark;
    }
    if (!n) return;
    json_key(j, "system");
    if (n == 1 && !marked) {
        json_put_str(j, only->text);
        return;
    }
    json_arr(j);
    for (size_t i = 0; i < to->t->messages_n; i++) {
        const TalkMessage *m = &to->t->messages[i];
        for (size_t k = 0; m->role == ROLE_SYSTEM && k < m->parts_n; k++)
            write_block(to, &m->parts[k]);
    }
    json_end_arr(j);
}

static bool message_says(const TalkMessage *m) {
    for (size_t i = 0; i < m->parts_n; i++)
        if (says_something(&m->parts[i])) return true;
    return m->role == ROLE_USER; // an empty one is for the server to refuse
}

// Roles take turns: what neighbours of one role say is one message.
static void write_messages(const To *to) {
    Json *j = to->j;
    int before = -1;
    json_key(j, "messages"), json_arr(j);
    for (size_t i = 0; i < to->t->messages_n; i++) {
        const TalkMessage *m = &to->t->messages[i];
        if (m->role == ROLE_SYSTEM || !message_says(m)) continue;
        int role = m->role == ROLE_ASSISTANT;
        if (role != before) {
            if (before >= 0) json_end_arr(j), json_end_obj(j);
            json_obj(j), json_kv_z(j, "role", role ? "assistant" : "user");
            json_key(j, "content"), json_arr(j);
        }
        before = role;
        for (size_t k = 0; k < m->parts_n; k++) write_block(to, &m->parts[k]);
    }
    if (before >= 0) json_end_arr(j), json_end_obj(j);
    json_end_arr(j);
}

static void write_tools(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    if (!t->tools_n) return;
    json_key(j, "tools"), json_arr(j);
    for (size_t i = 0; i < t->tools_n; i++) {
        const TalkTool *tool = &t->tools[i];
        json_obj(j), json_kv_str(j, "name", tool->name);
        if (tool->description.p) json_kv_str(j, "description", tool->description);
        json_key(j, "input_schema");
        if (tool->schema) json_put_val(j, tool->schema);
        else json_put_raw(j, S("{\"type\":\"object\",\"properties\":{}}"));
        if (tool->strict >= 0) json_kv_bool(j, "strict", tool->strict);
        if (tool->cache_mark) json_kv_raw(j, "cache_control", S("{\"type\":\"ephemeral\"}"));
        json_end_obj(j);
    }
    json_end_arr(j);
    if (t->choose == CHOOSE_AUTO && t->serial_tools != 1) return;
    json_key(j, "tool_choice"), json_obj(j), json_kv_z(j, "type", chooses[t->choose]);
    if (t->choose == CHOOSE_ONE) json_kv_str(j, "name", t->chosen);
    if (t->serial_tools == 1 && t->choose != CHOOSE_NONE)
        json_kv_bool(j, "disable_parallel_tool_use", true);
    json_end_obj(j);
}

static err write_thinking(const To *to, int64_t output_max, str *out_effort) {
    const Talk *t = to->t;
    Json *j = to->j;
    bool on = t->reasoning.on != 0, adaptive = to->a->think == THINK_ADAPTIVE;
    if (!t->said[TALK_REASONING]) return ERR_OK;
    json_key(j, "thinking"), json_obj(j);
    json_kv_z(j, "type", !on ? "disabled" : adaptive ? "adaptive" : "enabled");
    if (on && adaptive) {
        str effort = talk_effort(t);
        *out_effort = str_is(effort, "minimal") ? S("low") : effort;
    } else if (on) {
        int64_t budget = t->reasoning.tokens;
        if (output_max <= BUDGET_LEAST)
            return fail(to->c, ERR_INVALID, R_DIALECT_ROOM, "field", t->said[TALK_REASONING],
                        "least", say(to->c, "%d", BUDGET_LEAST), "most",
                        say(to->c, "%lld", (long long)output_max));
        if (budget == UNSET_INT) budget = budget_of_effort(talk_effort(t), output_max);
        if (budget < BUDGET_LEAST) budget = BUDGET_LEAST;
        if (budget >= output_max) budget = output_max - 1;
        json_kv_i64(j, "budget_tokens", budget);
    }
    json_end_obj(j);
    return ERR_OK;
}

static err request_write(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    str effort = { 0 };
    int64_t most = t->output_max != UNSET_INT ? t->output_max : to->a->output_default;
    if (most <= 0) most = OUTPUT_DEFAULT;
    json_obj(j);
    write_scalars(to, "", BUT(OUTPUT_MAX));
    json_kv_i64(j, "max_tokens", most);
    if (t->stop_n) json_key(j, "stop_sequences"), write_texts(j, t->stop, t->stop_n);
    if (t->user.p) {
        json_key(j, "metadata"), json_obj(j), json_kv_str(j, "user_id", t->user), json_end_obj(j);
    }
    write_tools(to);
    TRY(write_thinking(to, most, &effort));
    if (effort.p || t->format == FORMAT_SCHEMA) {
        json_key(j, "output_config"), json_obj(j);
        if (effort.p) json_kv_str(j, "effort", effort);
        if (t->format == FORMAT_SCHEMA) {
            json_key(j, "format"), json_obj(j), json_kv_z(j, "type", "json_schema");
            json_key(j, "schema"), json_put_val(j, t->schema), json_end_obj(j);
        }
        json_end_obj(j);
    }
    write_system(to), write_messages(to);
    json_end_obj(j);
    return ERR_OK;
}

// ---- the row
static const char *const moot[] = { "service_tier", NULL };
static const DialectWays ways = {
    .read_request = request_read,
    .write_request = request_write,
    .read_event = anthropic_read_event,
    .read_whole = anthropic_read_whole,
    .write_delta = anthropic_write_delta,
    .write_whole = anthropic_write_whole,
    .reading_size = sizeof(AnthropicReading),
    .writing_size = sizeof(AnthropicWriting),
    .reading_free = anthropic_reading_free,
    .write_error = anthropic_write_error,
    .read_error = anthropic_read_error,
};
// clang-format off
const Dialect dialect_anthropic = {
    .name = "anthropic", .path = "/messages", .request_id = "request-id",
        .framing = FRAMING_SSE_NAMED, .moot = moot,
        .ways = &ways,
    .place = {
        SAME(MODEL, "model"), SAME(STREAM, "stream"), ALWAYS(STREAM_USAGE), SAME(OUTPUT_MAX,
            "max_tokens"),
        SAME(TEMPERATURE, "temperature"), SAME(TOP_P, "top_p"), SAME(TOP_K, "top_k"), SAME(STOP,
            "stop_sequences"),
        SAME(USER, "metadata.user_id"), MOOT(METADATA), MOOT(STORE), ALWAYS(TURNS), SAME(TOOLS,
            "tools"),
        SAME(STRICT_TOOLS, "tools[].strict"), SAME(TOOL_CHOICE, "tool_choice"),
        SAME(SERIAL_TOOLS, "tool_choice.disable_parallel_tool_use"), NEAR(SCHEMA,
            "output_config.format"),
        NEAR(REASONING, "thinking"), SAME(IMAGES, "messages[].content[]"),
        SAME(IMAGE_URLS, "messages[].content[].source.url"), SAME(DOCUMENTS,
            "messages[].content[]"),
        SAME(DOCUMENT_URLS, "messages[].content[].source.url"), SAME(TEXT_DOCUMENTS,
            "messages[].content[].source"),
        SAME(TOOL_ERRORS, "messages[].content[].is_error"), SAME(RESULT_IMAGES,
            "messages[].content[].content"),
        SAME(CACHE_MARKS, "messages[].content[].cache_control"), MOOT(PAST_REASONING),
        SAME(SIGNATURES, "messages[].content[].signature"),
    },
    .en = "Anthropic messages", .zh = "Anthropic 消息接口",
};
// clang-format on
