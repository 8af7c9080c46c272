// SPDX-License-Identifier: Apache-2.0
// responses.c - requests of OpenAI's responses (platform documentation, "Create a model response").
// An earlier response that is named must have been put before `input` by the caller, who then takes
// back that it was said. An upstream is told to store nothing, and asked for its reasoning in a
// form that can be given back. Owner: everything in the call's arena. Threads: one at a time.
#include "mod/dialect/responses.h"
#include "mod/dialect/chat.h"

// ---- parts
static err read_part_image(In *in, const At *at, yyjson_val *v, TalkPart *p) {
    static const Member rows[] = { { "type" },
                                   { "image_url", read_text, offsetof(TalkPart, url) },
                                   { "detail", read_text, offsetof(TalkPart, detail) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, p));
    return image_at(in, at, "image_url", p);
}

typedef struct FileIn {
    str data, name, url;
} FileIn;

static err read_part_file(In *in, const At *at, yyjson_val *v, TalkPart *p) {
    static const Member rows[] = { { "type" },
                                   { "file_data", read_text, offsetof(FileIn, data) },
                                   { "filename", read_text, offsetof(FileIn, name) },
                                   { "file_url", read_text, offsetof(FileIn, url) },
                                   { 0 } };
    FileIn f = { 0 };
    TRY(read_members(in, at, v, rows, &f));
    p->name = f.name, p->url = f.url;
    return document_at(in, at, f.data, p);
}

static err read_part_text(In *in, const At *at, yyjson_val *v, TalkPart *p) {
    static const Member rows[] = { { "type" },
                                   { "text", read_text, offsetof(TalkPart, text) },
                                   { "annotations" },
                                   { "logprobs" },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, p));
    return p->text.p ? ERR_OK : at_missing(in, at, "text");
}

static err read_part_refusal(In *in, const At *at, yyjson_val *v, TalkPart *p) {
    static const Member rows[] = { { "type" },
                                   { "refusal", read_text, offsetof(TalkPart, text) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, p));
    return p->text.p ? ERR_OK : at_missing(in, at, "refusal");
}

static const struct {
    const char *type;
    PartKind kind;
    err (*read)(In *in, const At *at, yyjson_val *v, TalkPart *p);
} kinds[] = {
    { "input_text", PART_TEXT, read_part_text },     { "output_text", PART_TEXT, read_part_text },
    { "text", PART_TEXT, read_part_text },           { "input_image", PART_IMAGE, read_part_image },
    { "input_file", PART_DOCUMENT, read_part_file }, { "refusal", PART_REFUSAL, read_part_refusal }
};

static err read_part(In *in, const At *at, yyjson_val *v, TalkMessage *m) {
    static const char *const names[] = { "input_text", "input_text, input_image, input_file",
                                         "output_text, refusal", "input_text, input_image" };
    str type = json_get_str(v, "type");
    At at_type = { at, "type", 0 };
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    for (size_t i = 0; i < countof(kinds); i++) {
        if (!str_is(type, kinds[i].type) || !(part_kinds[m->role] >> kinds[i].kind & 1)) continue;
        if (m->role == ROLE_TOOL && kinds[i].kind == PART_IMAGE) SAID(in, RESULT_IMAGES, at);
        return kinds[i].read(in, at, v, add_part(m, kinds[i].kind));
    }
    return at_enum(in, &at_type, names[m->role], type);
}

// A text, or a list of parts.
static err read_content(In *in, const At *at, yyjson_val *v, TalkMessage *m) {
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

// ---- items
static str item_type(yyjson_val *item) {
    str type = json_get_str(item, "type");
    return type.n ? type : S("message");
}

// Items of one answer of the model stand one after the other: they are one message.
static bool is_models(yyjson_val *item) {
    str type = item_type(item);
    return str_is(type, "function_call") || str_is(type, "reasoning")
           || (str_is(type, "message") && str_is(json_get_str(item, "role"), "assistant"));
}

static size_t parts_of_answer(yyjson_val *item, size_t left) {
    size_t parts = 0;
    for (; left-- && is_models(item); item = unsafe_yyjson_get_next(item))
        parts += 1 + yyjson_arr_size(json_get(item, "content"));
    return parts;
}

static err read_said(In *in, const At *at, yyjson_val *v, TalkMessage *m) {
    static const Member rows[] = { { "type" },   { "role" },  { "content" }, { "id" },
                                   { "status" }, { "phase" }, { 0 } };
    At here = { at, "content", 0 };
    TRY(read_members(in, at, v, rows, NULL));
    yyjson_val *content = json_get(v, "content");
    return content ? read_content(in, &here, content, m) : at_missing(in, at, "content");
}

static err read_message(In *in, const At *at, yyjson_val *v) {
    static const char *const names[] = { "user", "system", "developer" };
    static const TalkRole roles[] = { ROLE_USER, ROLE_SYSTEM, ROLE_SYSTEM };
    str role = json_get_str(v, "role");
    At at_role = { at, "role", 0 };
    for (size_t i = 0; i < countof(names); i++)
        if (str_is(role, names[i]))
            return read_said(
                in, at, v,
                add_message(in, roles[i], at, yyjson_arr_size(json_get(v, "content")) + 1));
    return at_enum(in, &at_role, "user, assistant, system, developer", role);
}

static err read_call(In *in, const At *at, yyjson_val *v, TalkMessage *m) {
    static const Member rows[] = { { "type" },
                                   { "call_id", read_text, offsetof(TalkPart, id) },
                                   { "name", read_text, offsetof(TalkPart, name) },
                                   { "arguments", read_text, offsetof(TalkPart, arguments) },
                                   { "id" },
                                   { "status" },
                                   { 0 } };
    TalkPart *p = add_part(m, PART_CALL);
    TRY(read_members(in, at, v, rows, p));
    if (!str_trim(p->arguments).n) p->arguments = S("{}");
    if (!p->id.n) return at_missing(in, at, "call_id");
    return p->name.n ? ERR_OK : at_missing(in, at, "name");
}

static str texts_of(Ctx *c, yyjson_val *list) {
    size_t i, n = yyjson_arr_size(list), texts_n = 0;
    yyjson_val *one;
    str *texts = new(c->mem, str, n + 1);
    yyjson_arr_foreach(list, i, n, one) if (json_get_str(one, "text").n) texts[texts_n++] =
        json_get_str(one, "text");
    return arena_join(c->mem, texts, texts_n, S("\n\n"));
}

static err read_reasoning_item(In *in, const At *at, yyjson_val *v, TalkMessage *m) {
    static const Member rows[] = {
        { "type" },    { "id" },
        { "summary" }, { "content" },
        { "status" },  { "encrypted_content", read_text, offsetof(TalkPart, signature) },
        { 0 }
    };
    TalkPart part = { .kind = PART_REASONING };
    TRY(read_members(in, at, v, rows, &part));
    part.text = texts_of(in->c, json_get(v, "summary"));
    if (!part.text.n) part.text = texts_of(in->c, json_get(v, "content"));
    if (!part.signature.n) part.signature = (str){ 0 };
    if (part.signature.n) SAID(in, SIGNATURES, at);
    if (!part.text.n && !part.signature.n) return ERR_OK;
    SAID(in, PAST_REASONING, at);
    *add_part(m, PART_REASONING) = part;
    return ERR_OK;
}

static err read_result(In *in, const At *at, yyjson_val *v) {
    static const Member rows[] = { { "type" },   { "call_id", read_text, offsetof(TalkPart, id) },
                                   { "output" }, { "id" },
                                   { "status" }, { 0 } };
    yyjson_val *output = json_get(v, "output");
    At here = { at, "output", 0 };
    TalkPart *p = add_part(add_message(in, ROLE_TOOL, at, 1), PART_RESULT);
    TalkMessage inner = { .role = ROLE_TOOL,
                          .parts = new(in->c->mem, TalkPart, yyjson_arr_size(output) + 1) };
    TRY(read_members(in, at, v, rows, p));
    if (!p->id.n) return at_missing(in, at, "call_id");
    if (!output) return at_missing(in, at, "output");
    TRY(read_content(in, &here, output, &inner));
    p->parts = inner.parts, p->parts_n = inner.parts_n;
    return ERR_OK;
}

static err read_item(In *in, const At *at, yyjson_val *v, TalkMessage *answer) {
    str type = item_type(v);
    At at_type = { at, "type", 0 };
    if (answer && str_is(type, "function_call")) return read_call(in, at, v, answer);
    if (answer && str_is(type, "reasoning")) return read_reasoning_item(in, at, v, answer);
    if (answer) return read_said(in, at, v, answer);
    if (str_is(type, "message")) return read_message(in, at, v);
    if (str_is(type, "function_call_output")) return read_result(in, at, v);
    return at_enum(in, &at_type, "message, function_call, function_call_output, reasoning", type);
}

static err read_input(In *in, const At *at, yyjson_val *v, void *into) {
    size_t i, n;
    yyjson_val *item;
    TalkMessage *answer = NULL;
    (void)into;
    if (yyjson_is_str(v)) return read_content(in, at, v, add_message(in, ROLE_USER, at, 1));
    if (!yyjson_is_arr(v) || !yyjson_arr_size(v))
        return at_wrong(in, at, "text or a list of items", v);
    yyjson_arr_foreach(v, i, n, item) {
        At here = { at, NULL, i };
        if (!yyjson_is_obj(item)) return at_wrong(in, &here, "an object", item);
        if (!is_models(item)) answer = NULL;
        else if (!answer)
            answer = add_message(in, ROLE_ASSISTANT, &here, parts_of_answer(item, n - i));
        TRY(read_item(in, &here, item, answer));
    }
    return ERR_OK;
}

// ---- tools, form, reasoning
static err read_tool_list(In *in, const At *at, yyjson_val *v, void *into) {
    Talk *t = in->t;
    size_t i, n;
    yyjson_val *one;
    (void)into;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list of tools", v);
    t->tools = new(in->c->mem, TalkTool, yyjson_arr_size(v) + 1);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i }, at_type = { &here, "type", 0 };
        TalkTool *tool = &t->tools[t->tools_n++];
        tool->strict = -1;
        if (!yyjson_is_obj(one)) return at_wrong(in, &here, "an object", one);
        if (!str_is(json_get_str(one, "type"), "function"))
            return at_enum(in, &at_type, "function", json_get_str(one, "type"));
        TRY(read_members(in, &here, one, function_rows, tool));
        if (!tool->name.n) return at_missing(in, &here, "name");
    }
    if (t->tools_n) SAID(in, TOOLS, at);
    return ERR_OK;
}

static err read_function_type(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    return str_is(json_str(v), "function") ? ERR_OK : at_enum(in, at, "function", json_str(v));
}

static err read_tool_choice(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_function_type, 0 },
                                   { "name", read_text, offsetof(Talk, chosen) },
                                   { 0 } };
    if (yyjson_is_str(v)) return read_choice_word(in, at, json_str(v));
    TRY(read_members(in, at, v, rows, into));
    if (!in->t->chosen.n) return at_missing(in, at, "name");
    in->t->choose = CHOOSE_ONE;
    SAID(in, TOOL_CHOICE, at);
    return ERR_OK;
}

static err read_format(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "type", read_format_type, 0 },
                                   { "name", read_text, offsetof(Talk, format_name) },
                                   { "description", read_text, offsetof(Talk, format_description) },
                                   { "schema", read_object, offsetof(Talk, schema) },
                                   { "strict", read_bool, offsetof(Talk, format_strict) },
                                   { 0 } };
    TRY(read_members(in, at, v, rows, into));
    return in->t->format == FORMAT_SCHEMA && !in->t->schema ? at_missing(in, at, "schema") : ERR_OK;
}

static err read_verbosity(In *in, const At *at, yyjson_val *v, void *into) {
    TRY(read_text(in, at, v, into));
    if (!str_is(json_str(v), "medium")) SAID(in, VERBOSITY, at);
    return ERR_OK;
}

static err read_text_options(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "format", read_format, 0 },
                                   { "verbosity", read_verbosity, offsetof(Talk, verbosity) },
                                   { 0 } };
    return read_members(in, at, v, rows, into);
}

static err read_reasoning(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "effort", read_effort, 0 },
                                   { "summary", read_text, offsetof(Talk, reasoning.summary) },
                                   { "generate_summary", read_text,
                                     offsetof(Talk, reasoning.summary) },
                                   { 0 } };
    return read_members(in, at, v, rows, into);
}

static err read_include(In *in, const At *at, yyjson_val *v, void *into) {
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list", v);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        if (str_is(json_str(one), "reasoning.encrypted_content"))
            continue; // told wherever there is one
        if (!str_is(json_str(one), "message.output_text.logprobs"))
            return at_enum(in, &here, "reasoning.encrypted_content, message.output_text.logprobs",
                           json_str(one));
        ((Talk *)into)->logprobs = 1;
        SAID(in, LOGPROBS, &here);
    }
    return ERR_OK;
}

static err read_truncation(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    return str_is(json_str(v), "disabled") ? ERR_OK : at_enum(in, at, "disabled", json_str(v));
}

static err read_background(In *in, const At *at, yyjson_val *v, void *into) {
    (void)into;
    return yyjson_is_false(v) ? ERR_OK : at_unknown(in, at);
}

static err request_read(In *in, yyjson_val *root) {
    static const Member rows[] = { { "instructions" },
                                   { "input", read_input, 0 },
                                   { "tools", read_tool_list, 0 },
                                   { "tool_choice", read_tool_choice, 0 },
                                   { "parallel_tool_calls", read_parallel, 0 },
                                   { "text", read_text_options, 0 },
                                   { "reasoning", read_reasoning, 0 },
                                   { "include", read_include, 0 },
                                   { "truncation", read_truncation, 0 },
                                   { "background", read_background, 0 },
                                   { "stream_options" },
                                   { 0 } };
    yyjson_val *instructions = json_get(root, "instructions");
    At at = { NULL, "instructions", 0 };
    if (instructions && !yyjson_is_null(instructions)) {
        TalkPart *p = add_part(add_message(in, ROLE_SYSTEM, &at, 1), PART_TEXT);
        TRY(read_text(in, &at, instructions, &p->text));
    }
    TRY(read_scalars(in, NULL, root, "", rows));
    return json_get(root, "input") ? ERR_OK : at_missing(in, NULL, "input");
}

// ---- written
static void write_part(const To *to, const TalkPart *p, bool models) {
    Json *j = to->j;
    json_obj(j);
    switch (p->kind) {
    case PART_IMAGE:
        json_kv_z(j, "type", "input_image"), write_image_url(to, "image_url", p);
        if (!p->detail.p) json_kv_z(j, "detail", "auto"); // it must be there
        break;
    case PART_DOCUMENT:
        json_kv_z(j, "type", "input_file");
        if (!p->url.p) write_file_data(to, p);
        else json_kv_str(j, "file_url", p->url), json_kv_str(j, "filename", p->name);
        break;
    case PART_REFUSAL: json_kv_z(j, "type", "refusal"), json_kv_str(j, "refusal", p->text); break;
    default:
        json_kv_z(j, "type", models ? "output_text" : "input_text"),
            json_kv_str(j, "text", p->text);
    }
    json_end_obj(j);
}

static void write_content(const To *to, const char *key, const TalkPart *parts, size_t n) {
    Json *j = to->j;
    json_key(j, key);
    if (n == 1 && parts->kind == PART_TEXT) {
        json_put_str(j, parts->text);
        return;
    }
    json_arr(j);
    for (size_t i = 0; i < n; i++) write_part(to, &parts[i], false);
    json_end_arr(j);
}

static void write_call(const TalkPart *p, Json *j) {
    json_obj(j), json_kv_z(j, "type", "function_call"), json_kv_str(j, "call_id", p->id);
    json_kv_str(j, "name", p->name), json_kv_str(j, "arguments", p->arguments), json_end_obj(j);
}

static void write_thought(const TalkPart *p, Json *j) {
    if (!p->signature.n) return; // without its maker's proof it is not taken back
    json_obj(j), json_kv_z(j, "type", "reasoning"), json_key(j, "summary"), json_arr(j);
    if (p->text.n)
        json_obj(j), json_kv_z(j, "type", "summary_text"), json_kv_str(j, "text", p->text),
            json_end_obj(j);
    json_end_arr(j), json_kv_str(j, "encrypted_content", p->signature), json_end_obj(j);
}

static bool is_said(const TalkPart *p) { return p->kind == PART_TEXT || p->kind == PART_REFUSAL; }

// What of an answer is said from here on, up to a call or a thought: the parts of one message.
static size_t write_said(const To *to, const TalkPart *parts, size_t n) {
    Json *j = to->j;
    size_t said = 0;
    while (said < n && is_said(&parts[said])) said++;
    json_obj(j), json_kv_z(j, "role", "assistant");
    if (said > 1 || parts->kind != PART_TEXT) {
        json_kv_z(j, "type", "message"), json_key(j, "content"), json_arr(j);
        for (size_t i = 0; i < said; i++) write_part(to, &parts[i], true);
        json_end_arr(j);
    } else {
        json_kv_str(j, "content", parts->text);
    }
    json_end_obj(j);
    return said;
}

static void write_answer(const To *to, const TalkMessage *m) {
    for (size_t i = 0; i < m->parts_n;) {
        const TalkPart *p = &m->parts[i];
        if (is_said(p)) {
            i += write_said(to, p, m->parts_n - i);
            continue;
        }
        if (p->kind == PART_CALL) write_call(p, to->j);
        if (p->kind == PART_REASONING) write_thought(p, to->j);
        i++;
    }
}

static void write_item(const To *to, const TalkMessage *m) {
    Json *j = to->j;
    if (m->role == ROLE_ASSISTANT) {
        write_answer(to, m);
        return;
    }
    json_obj(j);
    if (m->role == ROLE_TOOL) {
        const TalkPart *p = &m->parts[0];
        json_kv_z(j, "type", "function_call_output"), json_kv_str(j, "call_id", p->id);
        if (p->is_error) json_kv_str(j, "output", result_text(to->c, p));
        else write_content(to, "output", p->parts, p->parts_n);
    } else {
        json_kv_z(j, "role", m->role == ROLE_USER ? "user" : "developer");
        write_content(to, "content", m->parts, m->parts_n);
    }
    json_end_obj(j);
}

void responses_write_tool(const TalkTool *t, Json *j) {
    json_obj(j), json_kv_z(j, "type", "function"), write_function(t, j);
    if (!t->schema) json_key(j, "parameters"), json_put_null(j);
    json_kv_bool(j, "strict", t->strict == 1); // not said is strict here, and nowhere else
    json_end_obj(j);
}

void responses_write_choice(const Talk *t, Json *j) {
    json_key(j, "tool_choice");
    if (t->choose != CHOOSE_ONE) {
        json_put_str(j, choice_word(t->choose));
        return;
    }
    json_obj(j), json_kv_z(j, "type", "function"), json_kv_str(j, "name", t->chosen),
        json_end_obj(j);
}

static void write_text_options(const Talk *t, Json *j) {
    if (t->format == FORMAT_TEXT && !t->verbosity.p) return;
    json_key(j, "text"), json_obj(j);
    if (t->verbosity.p) json_kv_str(j, "verbosity", t->verbosity);
    if (t->format != FORMAT_TEXT) {
        json_key(j, "format"), json_obj(j);
        json_kv_z(j, "type", t->format == FORMAT_JSON ? "json_object" : "json_schema");
        if (t->format == FORMAT_SCHEMA) write_schema(t, j);
        json_end_obj(j);
    }
    json_end_obj(j);
}

static void write_reasoning(const Talk *t, Json *j) {
    bool reasons = t->said[TALK_REASONING], shown = t->reasoning.summary.p && t->reasoning.on != 0;
    if (reasons || shown) json_key(j, "reasoning"), json_obj(j);
    if (reasons) json_kv_str(j, "effort", talk_effort(t));
    if (shown) json_kv_str(j, "summary", t->reasoning.summary);
    if (reasons || shown) json_end_obj(j);
    bool proof = (reasons && t->reasoning.on != 0) || t->said[TALK_SIGNATURES];
    if (!proof && t->logprobs != 1) return;
    json_key(j, "include"), json_arr(j);
    if (proof) json_put_str(j, S("reasoning.encrypted_content"));
    if (t->logprobs == 1) json_put_str(j, S("message.output_text.logprobs"));
    json_end_arr(j);
}

static err request_write(const To *to) {
    const Talk *t = to->t;
    const TalkMessage *first = t->messages_n ? &t->messages[0] : NULL;
    Json *j = to->j;
    bool leads = first && first->role == ROLE_SYSTEM && first->parts_n == 1;
    json_obj(j);
    write_scalars(to, "", BUT(STORE)), json_kv_bool(j, "store", false);
    if (t->tools_n) json_key(j, "tools"), json_arr(j);
    for (size_t i = 0; i < t->tools_n; i++) responses_write_tool(&t->tools[i], j);
    if (t->tools_n) json_end_arr(j);
    if (t->said[TALK_TOOL_CHOICE]) responses_write_choice(t, j);
    if (t->serial_tools >= 0) json_kv_bool(j, "parallel_tool_calls", !t->serial_tools);
    write_text_options(t, j), write_reasoning(t, j);
    if (leads) json_kv_str(j, "instructions", first->parts[0].text);
    json_key(j, "input"), json_arr(j);
    for (size_t i = leads; i < t->messages_n; i++) write_item(to, &t->messages[i]);
    json_end_arr(j), json_end_obj(j);
    return ERR_OK;
}

// ---- the row
static const char *const moot[] = { "service_tier", "prompt_cache_key", "prompt_cache_retention",
                                    "safety_identifier", NULL };
static const DialectWays ways = {
    .read_request = request_read,
    .write_request = request_write,
    .read_event = responses_read_event,
    .read_whole = responses_read_whole,
    .write_delta = responses_write_delta,
    .write_whole = responses_write_whole,
    .reading_size = sizeof(ResponsesReading),
    .writing_size = sizeof(ResponsesWriting),
    .reading_free = responses_reading_free,
    .write_error = openai_write_error,
    .read_error = responses_read_error,
    .folds = true,
};
// clang-format off
const Dialect dialect_responses = {
    .name = "openai.responses", .path = "/responses", .framing = FRAMING_SSE_NAMED, .moot = moot,
        .ways = &ways,
    .place = {
        SAME(MODEL, "model"), SAME(STREAM, "stream"), ALWAYS(STREAM_USAGE), SAME(OUTPUT_MAX,
            "max_output_tokens"),
        SAME(TEMPERATURE, "temperature"), SAME(TOP_P, "top_p"), SAME(LOGPROBS, "include[]"),
        SAME(TOP_LOGPROBS, "top_logprobs"), SAME(USER, "user"), SAME(METADATA, "metadata"),
        SAME(VERBOSITY, "text.verbosity"), SAME(PREVIOUS, "previous_response_id"), SAME(STORE,
            "store"),
        ALWAYS(TURNS), SAME(TOOLS, "tools"), SAME(STRICT_TOOLS, "tools[].strict"),
            SAME(TOOL_CHOICE, "tool_choice"),
        SAME(SERIAL_TOOLS, "parallel_tool_calls"), SAME(JSON, "text.format"), SAME(SCHEMA,
            "text.format"),
        NEAR(REASONING, "reasoning"), SAME(IMAGES, "input[].content[]"),
        SAME(IMAGE_URLS, "input[].content[].image_url"), SAME(IMAGE_DETAIL,
            "input[].content[].detail"),
        SAME(DOCUMENTS, "input[].content[]"), SAME(DOCUMENT_URLS, "input[].content[].file_url"),
        NEAR(TOOL_ERRORS, "input[].output"), SAME(RESULT_IMAGES, "input[].output[]"),
            MOOT(CACHE_MARKS),
        MOOT(PAST_REASONING), SAME(SIGNATURES, "input[].encrypted_content"),
    },
    .en = "OpenAI responses", .zh = "OpenAI Responses 接口",
};
// clang-format on
