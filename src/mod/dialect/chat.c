// SPDX-License-Identifier: Apache-2.0
// chat.c - requests of OpenAI's chat completions (platform documentation, "Create chat
// completion"), with what its kin say beside: max_tokens, top_k, min_p, reasoning_content,
// thinking, enable_thinking, reasoning{}. Owner: everything in the call's arena. Threads: one at a
// time.
#include "mod/dialect/dialect_own.h"
#include "mod/dialect/chat.h"

// ---- parts of a message
static err read_image(In *in, const At *at, yyjson_val *v, void *into) {
    TalkPart *p = into;
    static const Member rows[] = { { "url", read_text, offsetof(TalkPart, url) },
                                   { "detail", read_text, offsetof(TalkPart, detail) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, p));
    return image_at(in, at, "url", p);
}

err image_at(In *in, const At *at, const char *member, TalkPart *p) {
    At url = { at, member, 0 }, detail = { at, "detail", 0 };
    if (!p->url.n) return at_missing(in, at, member);
    SAID(in, IMAGES, at);
    if (data_url(p->url, &p->media_type, &p->data)) p->url = (str){ 0 };
    else SAID(in, IMAGE_URLS, &url);
    if (str_is(p->detail, "auto")) p->detail = (str){ 0 };
    if (p->detail.p) SAID(in, IMAGE_DETAIL, &detail);
    return ERR_OK;
}

// In "file_data" too: a data URL, or base64 alone.
err document_at(In *in, const At *at, str file_data, TalkPart *p) {
    At where = { at, p->url.p ? "file_url" : "file_data", 0 };
    SAID(in, DOCUMENTS, at);
    if (p->url.p) SAID(in, DOCUMENT_URLS, &where);
    else if (!file_data.n) return at_missing(in, at, "file_data");
    else if (!data_url(file_data, &p->media_type, &p->data)) p->data = file_data;
    return ERR_OK;
}

typedef struct FileIn {
    str data, name;
} FileIn;

static err read_file(In *in, const At *at, yyjson_val *v, void *into) {
    TalkPart *p = into;
    FileIn f = { 0 };
    static const Member rows[] = { { "file_data", read_text, offsetof(FileIn, data) },
                                   { "filename", read_text, offsetof(FileIn, name) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, &f));
    p->name = f.name;
    return document_at(in, at, f.data, p);
}

// Which kinds of parts each role may say.
const unsigned part_kinds[] = { [ROLE_SYSTEM] = 1 << PART_TEXT,
                                [ROLE_USER] = 1 << PART_TEXT | 1 << PART_IMAGE | 1 << PART_DOCUMENT,
                                [ROLE_ASSISTANT] = 1 << PART_TEXT | 1 << PART_REFUSAL,
                                [ROLE_TOOL] = 1 << PART_TEXT | 1 << PART_IMAGE };

static err read_part(In *in, const At *at, yyjson_val *v, TalkMessage *m) {
    static const Member text[] = { { "type" },
                                   { "text", read_text, offsetof(TalkPart, text) },
                                   { 0 } };
    static const Member refusal[] = { { "type" },
                                      { "refusal", read_text, offsetof(TalkPart, text) },
                                      { 0 } };
    static const Member image[] = { { "type" }, { "image_url", read_image, 0 }, { 0 } };
    static const Member file[] = { { "type" }, { "file", read_file, 0 }, { 0 } };
    static const struct {
        const char *type, *member;
        PartKind kind;
        const Member *rows;
    } kinds[] = { { "text", "text", PART_TEXT, text },
                  { "refusal", "refusal", PART_REFUSAL, refusal },
                  { "image_url", "image_url", PART_IMAGE, image },
                  { "file", "file", PART_DOCUMENT, file } };
    static const char *const names[] = { "text", "text, image_url, file", "text, refusal",
                                         "text, image_url" };
    str type = json_get_str(v, "type");
    At at_type = { at, "type", 0 };
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    for (size_t i = 0; i < countof(kinds); i++) {
        if (!str_is(type, kinds[i].type) || !(part_kinds[m->role] >> kinds[i].kind & 1)) continue;
        if (!json_get(v, kinds[i].member)) return at_missing(in, at, kinds[i].member);
        if (m->role == ROLE_TOOL && kinds[i].kind == PART_IMAGE) SAID(in, RESULT_IMAGES, at);
        return read_members(in, at, v, kinds[i].rows, add_part(m, kinds[i].kind));
    }
    return at_enum(in, &at_type, names[m->role], type);
}

static err read_content(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    size_t i, n;
    yyjson_val *one;
    if (yyjson_is_str(v)) {
        if (yyjson_get_len(v) || m->role != ROLE_ASSISTANT)
            add_part(m, PART_TEXT)->text = json_str(v);
        return ERR_OK;
    }
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "text or a list of parts", v);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TRY(read_part(in, &here, one, m));
    }
    return ERR_OK;
}

// ---- messages
static err read_past(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    if (!yyjson_is_str(v)) return at_wrong(in, at, "text", v);
    if (!yyjson_get_len(v)) return ERR_OK;
    SAID(in, PAST_REASONING, at);
    for (size_t i = 0; i < m->parts_n; i++) // both names of it at once
        if (m->parts[i].kind == PART_REASONING) return ERR_OK;
    memmove(m->parts + 1, m->parts, m->parts_n++ * sizeof *m->parts);
    m->parts[0] = (TalkPart){ .kind = PART_REASONING, .text = json_str(v) };
    return ERR_OK;
}

static err read_refusal(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_str(v)) return at_wrong(in, at, "text", v);
    if (yyjson_get_len(v)) add_part(into, PART_REFUSAL)->text = json_str(v);
    return ERR_OK;
}

static err read_called(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "name", read_text, offsetof(TalkPart, name) },
                                   { "arguments", read_text, offsetof(TalkPart, arguments) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    TalkPart *p = into;
    if (!str_trim(p->arguments).n) p->arguments = S("{}");
    return p->name.n ? ERR_OK : at_missing(in, at, "name");
}

static err read_function_type(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    return str_is(json_str(v), "function") ? ERR_OK : at_enum(in, at, "function", json_str(v));
}

static err read_calls(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "id", read_text, offsetof(TalkPart, id) },
                                   { "type", read_function_type, 0 },
                                   { "function", read_called, 0 },
                                   { "index" },
                                   { 0 } };
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list", v);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TalkPart *p = add_part(into, PART_CALL);
        TRY(read_members(in, &here, one, rows, p));
        if (!p->id.n) return at_missing(in, &here, "id");
        if (!p->name.n) return at_missing(in, &here, "function");
    }
    return ERR_OK;
}

static err read_name(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    if (m->role == ROLE_TOOL) return read_text(in, at, v, &m->parts[0].name);
    TRY(read_text(in, at, v, &m->name));
    SAID(in, NAMES, at);
    return ERR_OK;
}

static err read_result_id(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    if (m->role != ROLE_TOOL) return at_unknown(in, at);
    return read_text(in, at, v, &m->parts[0].id);
}

static err read_result(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into, inner = { .role = ROLE_TOOL };
    inner.parts = new (in->c->mem, TalkPart, yyjson_arr_size(v) + 1);
    TRY(read_content(in, at, v, &inner));
    m->parts[0].parts = inner.parts, m->parts[0].parts_n = inner.parts_n;
    return ERR_OK;
}

static bool role_of(str name, TalkRole *out) {
    static const struct {
        const char *name;
        TalkRole role;
    } roles[] = { { "user", ROLE_USER },
                  { "assistant", ROLE_ASSISTANT },
                  { "system", ROLE_SYSTEM },
                  { "developer", ROLE_SYSTEM },
                  { "tool", ROLE_TOOL } };
    for (size_t i = 0; i < countof(roles); i++)
        if (str_is(name, roles[i].name)) {
            *out = roles[i].role;
            return true;
        }
    return false;
}

static err read_message(In *in, const At *at, yyjson_val *v) {
    static const Member said_rows[] = {
        { "role" }, { "content", read_content, 0 }, { "name", read_name, 0 }, { 0 }
    };
    static const Member tool_rows[] = { { "role" },
                                        { "content", read_result, 0 },
                                        { "tool_call_id", read_result_id, 0 },
                                        { "name", read_name, 0 },
                                        { 0 } };
    static const Member made_rows[] = { { "role" },
                                        { "content", read_content, 0 },
                                        { "refusal", read_refusal, 0 },
                                        { "reasoning_content", read_past, 0 },
                                        { "reasoning", read_past, 0 },
                                        { "tool_calls", read_calls, 0 },
                                        { "name", read_name, 0 },
                                        { "annotations" },
                                        { 0 } };
    static const Member *const rows[] = { said_rows, said_rows, made_rows, tool_rows };
    At at_role = { at, "role", 0 };
    TalkRole role;
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    if (!role_of(json_get_str(v, "role"), &role))
        return at_enum(in, &at_role, "system, developer, user, assistant, tool",
                       json_get_str(v, "role"));
    size_t parts =
        yyjson_arr_size(json_get(v, "content")) + yyjson_arr_size(json_get(v, "tool_calls")) + 4;
    TalkMessage *m = add_message(in, role, at, parts);
    if (role == ROLE_TOOL) add_part(m, PART_RESULT);
    else if (role != ROLE_ASSISTANT && !json_get(v, "content"))
        return at_missing(in, at, "content");
    TRY(read_members(in, at, v, rows[role], m));
    if (role == ROLE_TOOL && !m->parts[0].id.n) return at_missing(in, at, "tool_call_id");
    calls_last(in->c, m);
    return ERR_OK;
}

// Members come in any order: reasoning and texts stand before the calls.
void calls_last(Ctx *c, TalkMessage *m) {
    size_t n = 0, first = 0;
    while (first < m->parts_n && m->parts[first].kind != PART_CALL) first++;
    if (first == m->parts_n) return;
    TalkPart *sorted = new (c->mem, TalkPart, m->parts_n);
    for (size_t i = 0; i < m->parts_n; i++)
        if (m->parts[i].kind != PART_CALL) sorted[n++] = m->parts[i];
    for (size_t i = 0; i < m->parts_n; i++)
        if (m->parts[i].kind == PART_CALL) sorted[n++] = m->parts[i];
    m->parts = sorted;
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
static err read_strict(In *in, const At *at, yyjson_val *v, void *into) {
    TRY(read_bool(in, at, v, into));
    if (yyjson_get_bool(v)) SAID(in, STRICT_TOOLS, at);
    return ERR_OK;
}

const Member function_rows[] = { { "type" },
                                 { "name", read_text, offsetof(TalkTool, name) },
                                 { "description", read_text, offsetof(TalkTool, description) },
                                 { "parameters", read_object, offsetof(TalkTool, schema) },
                                 { "strict", read_strict, offsetof(TalkTool, strict) },
                                 { 0 } };

static err read_function(In *in, const At *at, yyjson_val *v, void *into) {
    TalkTool *t = into;
    TRY(read_members(in, at, v, function_rows, t));
    return t->name.n ? ERR_OK : at_missing(in, at, "name");
}

err read_tools(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_function_type, 0 },
                                   { "function", read_function, 0 },
                                   { 0 } };
    Talk *t = in->t;
    size_t i, n;
    yyjson_val *one;
    (void)into;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list of tools", v);
    t->tools = new (in->c->mem, TalkTool, yyjson_arr_size(v) + 1);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TalkTool *tool = &t->tools[t->tools_n++];
        tool->strict = -1;
        TRY(read_members(in, &here, one, rows, tool));
        if (!tool->name.n) return at_missing(in, &here, "function");
    }
    if (t->tools_n) SAID(in, TOOLS, at);
    return ERR_OK;
}

static err read_chosen(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "name", read_text, offsetof(Talk, chosen) }, { 0 } };
    return read_members(in, at, v, rows, into);
}

err read_choice_word(In *in, const At *at, str word) {
    static const char *const words[] = { "auto", "none", "required" };
    for (size_t i = 0; i < countof(words); i++) {
        if (!str_is(word, words[i])) continue;
        in->t->choose = (Choose)i;
        if (i) SAID(in, TOOL_CHOICE, at);
        return ERR_OK;
    }
    return at_enum(in, at, "auto, none, required", word);
}

static err read_tool_choice(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_function_type, 0 },
                                   { "function", read_chosen, 0 },
                                   { 0 } };
    if (yyjson_is_str(v)) return read_choice_word(in, at, json_str(v));
    TRY(read_members(in, at, v, rows, into));
    if (!in->t->chosen.n) return at_missing(in, at, "function");
    in->t->choose = CHOOSE_ONE;
    SAID(in, TOOL_CHOICE, at);
    return ERR_OK;
}

err read_parallel(In *in, const At *at, yyjson_val *v, void *into) {
    int parallel = 1;
    (void)into;
    TRY(read_bool(in, at, v, &parallel));
    in->t->serial_tools = !parallel;
    if (!parallel) SAID(in, SERIAL_TOOLS, at);
    return ERR_OK;
}

// ---- form of the answer
const Member schema_rows[] = { { "type" },
                               { "name", read_text, offsetof(Talk, format_name) },
                               { "description", read_text, offsetof(Talk, format_description) },
                               { "schema", read_object, offsetof(Talk, schema) },
                               { "strict", read_bool, offsetof(Talk, format_strict) },
                               { 0 } };

err read_schema(In *in, const At *at, yyjson_val *v, void *into) {
    TRY(read_members(in, at, v, schema_rows, into));
    return in->t->schema ? ERR_OK : at_missing(in, at, "schema");
}

err read_format_type(In *in, const At *at, yyjson_val *v, void *into) {
    static const char *const types[] = { "text", "json_object", "json_schema" };
    Talk *t = into;
    for (size_t i = 0; i < countof(types); i++)
        if (str_is(json_str(v), types[i])) {
            t->format = (FormatKind)i;
            if (t->format == FORMAT_JSON) SAID(in, JSON, at->up);
            if (t->format == FORMAT_SCHEMA) SAID(in, SCHEMA, at->up);
            return ERR_OK;
        }
    return at_enum(in, at, "text, json_object, json_schema", json_str(v));
}

static err read_format(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_format_type, 0 },
                                   { "json_schema", read_schema, 0 },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    return in->t->format == FORMAT_SCHEMA && !in->t->schema ? at_missing(in, at, "json_schema")
                                                            : ERR_OK;
}

// ---- reasoning
err read_effort(In *in, const At *at, yyjson_val *v, void *into) {
    Talk *t = into;
    str effort;
    TRY(read_text(in, at, v, &effort));
    SAID(in, REASONING, at);
    t->reasoning.on = !str_is(effort, "none");
    t->reasoning.effort = t->reasoning.on ? effort : (str){ 0 };
    return ERR_OK;
}

static err read_thinking_type(In *in, const At *at, yyjson_val *v, void *into) {
    Talk *t = into;
    str type = json_str(v);
    if (str_is(type, "auto")) return ERR_OK;
    if (!str_is(type, "enabled") && !str_is(type, "disabled"))
        return at_enum(in, at, "enabled, disabled, auto", type);
    SAID(in, REASONING, at->up);
    t->reasoning.on = str_is(type, "enabled");
    return ERR_OK;
}

static err read_thinking(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_thinking_type, 0 },
                                   { "budget_tokens", read_i64, offsetof(Talk, reasoning.tokens) },
                                   { 0 } };
    return read_members(in, at, v, rows, into);
}

static err read_enable(In *in, const At *at, yyjson_val *v, void *into) {
    SAID(in, REASONING, at);
    return read_bool(in, at, v, &((Talk *)into)->reasoning.on);
}

static err read_reasoning(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "effort", read_effort, 0 },
                                   { "max_tokens", read_i64, offsetof(Talk, reasoning.tokens) },
                                   { "enabled", read_bool, offsetof(Talk, reasoning.on) },
                                   { "exclude" },
                                   { 0 } };
    SAID(in, REASONING, at);
    TRY(read_members(in, at, v, rows, into));
    if (in->t->reasoning.on < 0) in->t->reasoning.on = 1;
    return ERR_OK;
}

// ---- the request
static err read_stream_options(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "include_usage", read_bool, offsetof(Talk, stream_usage) },
                                   { "include_obfuscation" },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    if (in->t->stream_usage == 1) SAID(in, STREAM_USAGE, at);
    return ERR_OK;
}

static err read_max(In *in, const At *at, yyjson_val *v, void *into) {
    if (yyjson_is_int(v) && !yyjson_is_uint(v) && yyjson_get_sint(v) < 0)
        return at_wrong(in, at, "a positive number", v);
    SAID(in, OUTPUT_MAX, at);
    return read_i64(in, at, v, into);
}

static err read_modalities(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    bool text = yyjson_arr_size(v) == 1 && str_is(json_str(yyjson_arr_get_first(v)), "text");
    return text ? ERR_OK : at_unknown(in, at);
}

static err chat_read(In *in, yyjson_val *root) {
    static const Member rows[] = { { "messages", read_messages, 0 },
                                   { "max_tokens", read_max, offsetof(Talk, output_max) },
                                   { "stop", read_stop, 0 },
                                   { "stream_options", read_stream_options, 0 },
                                   { "tools", read_tools, 0 },
                                   { "tool_choice", read_tool_choice, 0 },
                                   { "parallel_tool_calls", read_parallel, 0 },
                                   { "response_format", read_format, 0 },
                                   { "reasoning_effort", read_effort, 0 },
                                   { "reasoning", read_reasoning, 0 },
                                   { "thinking", read_thinking, 0 },
                                   { "enable_thinking", read_enable, 0 },
                                   { "thinking_budget", read_i64,
                                     offsetof(Talk, reasoning.tokens) },
                                   { "modalities", read_modalities, 0 },
                                   { "metadata", read_object, offsetof(Talk, metadata) },
                                   { 0 } };
    TRY(read_scalars(in, NULL, root, "", rows));
    return in->t->messages_n ? ERR_OK : at_missing(in, NULL, "messages");
}

// ---- written
static void write_data_url(const TalkPart *p, const char *media_type, Json *j, Ctx *c) {
    str media = p->media_type.p ? p->media_type : str_z(media_type);
    str parts[] = { S("data:"), media, S(";base64,"), p->data };
    json_put_str(j, p->url.p ? p->url : arena_join(c->mem, parts, countof(parts), S("")));
}

void write_image_url(const To *to, const char *key, const TalkPart *p) {
    json_key(to->j, key), write_data_url(p, "image/png", to->j, to->c);
    if (p->detail.p) json_kv_str(to->j, "detail", p->detail);
}

void write_file_data(const To *to, const TalkPart *p) {
    json_key(to->j, "file_data"), write_data_url(p, "application/pdf", to->j, to->c);
    json_kv_str(to->j, "filename", p->name.n ? p->name : S("document.pdf"));
}

static void write_part(const To *to, const TalkPart *p) {
    Json *j = to->j;
    json_obj(j);
    switch (p->kind) {
    case PART_IMAGE:
        json_kv_z(j, "type", "image_url"), json_key(j, "image_url"), json_obj(j);
        write_image_url(to, "url", p);
        json_end_obj(j);
        break;
    case PART_DOCUMENT:
        json_kv_z(j, "type", "file"), json_key(j, "file"), json_obj(j);
        write_file_data(to, p);
        json_end_obj(j);
        break;
    default: json_kv_z(j, "type", "text"), json_kv_str(j, "text", p->text);
    }
    json_end_obj(j);
}

static bool is_said(const TalkPart *p) {
    return p->kind == PART_TEXT || p->kind == PART_IMAGE || p->kind == PART_DOCUMENT;
}

static void write_content(const To *to, const TalkMessage *m) {
    size_t n = 0;
    const TalkPart *only = NULL;
    for (size_t i = 0; i < m->parts_n; i++)
        if (is_said(&m->parts[i])) only = &m->parts[i], n++;
    json_key(to->j, "content");
    if (!n && m->role == ROLE_ASSISTANT) json_put_null(to->j);
    else if (!n) json_put_str(to->j, S(""));
    else if (n == 1 && only->kind == PART_TEXT) json_put_str(to->j, only->text);
    else {
        json_arr(to->j);
        for (size_t i = 0; i < m->parts_n; i++)
            if (is_said(&m->parts[i])) write_part(to, &m->parts[i]);
        json_end_arr(to->j);
    }
}

static void write_calls(const To *to, const TalkMessage *m) {
    Json *j = to->j;
    bool any = false;
    for (size_t i = 0; i < m->parts_n; i++) {
        const TalkPart *p = &m->parts[i];
        if (p->kind != PART_CALL) continue;
        if (!any) json_key(j, "tool_calls"), json_arr(j), any = true;
        json_obj(j), json_kv_str(j, "id", p->id), json_kv_z(j, "type", "function");
        json_key(j, "function"), json_obj(j), json_kv_str(j, "name", p->name);
        json_kv_str(j, "arguments", p->arguments), json_end_obj(j), json_end_obj(j);
    }
    if (any) json_end_arr(j);
}

static void write_made(const To *to, const TalkMessage *m) {
    write_content(to, m);
    for (size_t i = 0; i < m->parts_n; i++) {
        const TalkPart *p = &m->parts[i];
        if (p->kind == PART_REFUSAL) json_kv_str(to->j, "refusal", p->text);
        if (p->kind == PART_REASONING && p->text.n && to->a->past_reasoning)
            json_kv_str(to->j, "reasoning_content", p->text);
    }
    write_calls(to, m);
}

static void write_message(const To *to, const TalkMessage *m) {
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    Json *j = to->j;
    json_obj(j), json_kv_z(j, "role", roles[m->role]);
    if (m->name.p) json_kv_str(j, "name", m->name);
    if (m->role == ROLE_TOOL) {
        json_kv_str(j, "tool_call_id", m->parts[0].id);
        json_kv_str(j, "content", result_text(to->c, &m->parts[0]));
    } else if (m->role == ROLE_ASSISTANT) {
        write_made(to, m);
    } else {
        write_content(to, m);
    }
    json_end_obj(j);
}

void write_function(const TalkTool *t, Json *j) {
    json_kv_str(j, "name", t->name);
    if (t->description.p) json_kv_str(j, "description", t->description);
    if (t->schema) json_key(j, "parameters"), json_put_val(j, t->schema);
}

static void write_tools(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    if (t->tools_n) json_key(j, "tools"), json_arr(j);
    for (size_t i = 0; i < t->tools_n; i++) {
        json_obj(j), json_kv_z(j, "type", "function"), json_key(j, "function"), json_obj(j);
        write_function(&t->tools[i], j);
        if (t->tools[i].strict >= 0) json_kv_bool(j, "strict", t->tools[i].strict);
        json_end_obj(j), json_end_obj(j);
    }
    if (t->tools_n) json_end_arr(j);
    if (!t->said[TALK_TOOL_CHOICE]) return;
    json_key(j, "tool_choice");
    if (t->choose != CHOOSE_ONE) {
        json_put_str(j, choice_word(t->choose));
        return;
    }
    json_obj(j), json_kv_z(j, "type", "function"), json_key(j, "function"), json_obj(j);
    json_kv_str(j, "name", t->chosen), json_end_obj(j), json_end_obj(j);
}

str choice_word(Choose c) {
    return c == CHOOSE_NONE ? S("none") : c == CHOOSE_ANY ? S("required") : S("auto");
}

void write_schema(const Talk *t, Json *j) {
    json_kv_str(j, "name", t->format_name.n ? t->format_name : S("answer"));
    if (t->format_description.p) json_kv_str(j, "description", t->format_description);
    json_key(j, "schema"), json_put_val(j, t->schema);
    if (t->format_strict >= 0) json_kv_bool(j, "strict", t->format_strict);
}

static void write_format(const Talk *t, Json *j) {
    if (t->format == FORMAT_TEXT) return;
    json_key(j, "response_format"), json_obj(j);
    json_kv_z(j, "type", t->format == FORMAT_JSON ? "json_object" : "json_schema");
    if (t->format == FORMAT_SCHEMA) {
        json_key(j, "json_schema"), json_obj(j);
        write_schema(t, j);
        json_end_obj(j);
    }
    json_end_obj(j);
}

static void write_reasoning(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    bool on = t->reasoning.on != 0;
    if (!t->said[TALK_REASONING]) return;
    switch (to->a->think) {
    case THINK_TYPE:
        json_key(j, "thinking"), json_obj(j);
        json_kv_z(j, "type", on ? "enabled" : "disabled"), json_end_obj(j);
        break;
    case THINK_ENABLE:
        json_kv_bool(j, "enable_thinking", on);
        if (on && t->reasoning.tokens != UNSET_INT)
            json_kv_i64(j, "thinking_budget", t->reasoning.tokens);
        break;
    case THINK_OBJECT:
        json_key(j, "reasoning"), json_obj(j);
        if (on && t->reasoning.tokens != UNSET_INT)
            json_kv_i64(j, "max_tokens", t->reasoning.tokens);
        else json_kv_str(j, "effort", talk_effort(t));
        json_end_obj(j);
        break;
    case THINK_PLAIN:
    case THINK_ADAPTIVE: json_kv_str(j, "reasoning_effort", talk_effort(t));
    }
}

static err chat_write(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    json_obj(j);
    write_scalars(to, "", BUT(OUTPUT_MAX));
    if (t->output_max != UNSET_INT)
        json_kv_i64(j, to->a->old_max ? "max_tokens" : "max_completion_tokens", t->output_max);
    if (t->stop_n) json_key(j, "stop"), write_texts(j, t->stop, t->stop_n);
    if (t->stream == 1 && t->stream_usage == 1)
        json_kv_raw(j, "stream_options", S("{\"include_usage\":true}"));
    if (t->stream == 1 && to->a->counts) json_kv_bool(j, "timings_per_token", true);
    write_tools(to);
    if (t->serial_tools >= 0) json_kv_bool(j, "parallel_tool_calls", !t->serial_tools);
    write_format(t, j), write_reasoning(to);
    json_key(j, "messages"), json_arr(j);
    for (size_t i = 0; i < t->messages_n; i++) write_message(to, &t->messages[i]);
    json_end_arr(j), json_end_obj(j);
    return ERR_OK;
}

// ---- the row
static const char *const moot[] = { "service_tier",      "store",
                                    "prompt_cache_key",  "prompt_cache_retention",
                                    "safety_identifier", NULL };
static const DialectWays ways = {
    .read_request = chat_read,
    .write_request = chat_write,
    CHAT_ANSWERS,
    .write_error = openai_write_error,
    .read_error = openai_read_error,
};
// clang-format off
const Dialect dialect_chat = {
    .name = "openai.chat", .path = "/chat/completions", .framing = FRAMING_SSE, .moot = moot,
        .ways = &ways,
    .place = {
        SAME(MODEL, "model"), SAME(STREAM, "stream"), SAME(STREAM_USAGE,
            "stream_options.include_usage"),
        SAME(OUTPUT_MAX, "max_completion_tokens"), SAME(TEMPERATURE, "temperature"), SAME(TOP_P,
            "top_p"),
        SAME(TOP_K, "top_k"), SAME(MIN_P, "min_p"), SAME(STOP, "stop"), SAME(SEED, "seed"),
            SAME(CHOICES, "n"),
        SAME(LOGPROBS, "logprobs"), SAME(TOP_LOGPROBS, "top_logprobs"), SAME(PRESENCE,
            "presence_penalty"),
        SAME(FREQUENCY, "frequency_penalty"), SAME(LOGIT_BIAS, "logit_bias"), SAME(USER, "user"),
        MOOT(METADATA), SAME(VERBOSITY, "verbosity"), MOOT(STORE),
            ALWAYS(TURNS),
        SAME(TOOLS, "tools"), SAME(STRICT_TOOLS, "tools[].function.strict"), SAME(TOOL_CHOICE,
            "tool_choice"),
        SAME(SERIAL_TOOLS, "parallel_tool_calls"), SAME(JSON, "response_format"), SAME(SCHEMA,
            "response_format"),
        NEAR(REASONING, "reasoning_effort"), SAME(IMAGES, "messages[].content[].image_url"),
        SAME(IMAGE_URLS, "messages[].content[].image_url.url"),
        SAME(IMAGE_DETAIL, "messages[].content[].image_url.detail"), SAME(DOCUMENTS,
            "messages[].content[].file"),
        SAME(NAMES, "messages[].name"), NEAR(TOOL_ERRORS, "messages[].content"), MOOT(CACHE_MARKS),
        MOOT(PAST_REASONING), MOOT(SIGNATURES),
    },
    .en = "OpenAI chat completions, and what speaks like it", .zh = "OpenAI 对话补全及其兼容接口",
};
// clang-format on
