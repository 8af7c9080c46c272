// SPDX-License-Identifier: Apache-2.0
// ollama.c - requests of Ollama's chat and generate (its API documentation, "Generate a chat
// completion", "Generate a completion"). Calls of tools may come without ids there: those made here
// are by place, and a result goes to the first call of its name that has none. Options of how a
// model is loaded ask nothing of the answer. Owner: everything in the call's arena. Threads: one at
// a time.
#include "mod/dialect/ollama.h"
#include "mod/dialect/chat.h"

// ---- messages
// What the first bytes of an image say in base64: others want to be told.
static str media_of(str base64) {
    static const char *const kinds[][2] = { { "iVBORw0KGgo", "image/png" },
                                            { "/9j/", "image/jpeg" },
                                            { "R0lGOD", "image/gif" },
                                            { "UklGR", "image/webp" } };
    for (size_t i = 0; i < countof(kinds); i++)
        if (str_starts(base64, str_z(kinds[i][0]))) return str_z(kinds[i][1]);
    return (str){ 0 };
}

static err read_images(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list", v);
    if (m->role != ROLE_USER && yyjson_arr_size(v)) return at_unknown(in, at);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TalkPart *p = add_part(m, PART_IMAGE);
        TRY(read_text(in, &here, one, &p->data));
        p->media_type = media_of(p->data);
        SAID(in, IMAGES, &here);
    }
    return ERR_OK;
}

static err read_thinking(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    str text;
    TRY(read_text(in, at, v, &text));
    if (!text.n) return ERR_OK;
    if (m->role != ROLE_ASSISTANT) return at_unknown(in, at);
    SAID(in, PAST_REASONING, at);
    memmove(m->parts + 1, m->parts, m->parts_n++ * sizeof *m->parts);
    m->parts[0] = (TalkPart){ .kind = PART_REASONING, .text = text };
    return ERR_OK;
}

static err read_content(In *in, const At *at, yyjson_val *v, void *into) {
    TalkMessage *m = into;
    str text;
    TRY(read_text(in, at, v, &text));
    if (!text.n && m->role == ROLE_ASSISTANT) return ERR_OK;
    memmove(m->parts + 1, m->parts, m->parts_n++ * sizeof *m->parts); // before images
    m->parts[0] = (TalkPart){ .kind = PART_TEXT, .text = text };
    return ERR_OK;
}

static err read_arguments(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    *(str *)into = json_text(in->c->mem, v);
    return ERR_OK;
}

static err read_called(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "name", read_text, offsetof(TalkPart, name) },
                                   { "arguments", read_arguments, offsetof(TalkPart, arguments) },
                                   { "index" },
                                   { "description" },
                                   { 0 } };
    return read_members(in, at, v, rows, into);
}

static err read_calls(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "id", read_text, offsetof(TalkPart, id) },
                                   { "type" },
                                   { "function", read_called, 0 },
                                   { 0 } };
    TalkMessage *m = into;
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(v) || yyjson_arr_size(v) > DIALECT_CALLS_MAX)
        return at_wrong(in, at, "a list of at most 128 calls", v);
    if (m->role != ROLE_ASSISTANT && yyjson_arr_size(v)) return at_unknown(in, at);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TalkPart *p = add_part(m, PART_CALL);
        TRY(read_members(in, &here, one, rows, p));
        if (!p->name.n) return at_missing(in, &here, "function");
        if (!p->arguments.p) p->arguments = S("{}");
        if (!p->id.n) p->id = arena_printf(in->c->mem, "call_%zu_%zu", in->t->messages_n - 1, i);
    }
    return ERR_OK;
}

// Results follow the message of their calls, each to the first that has none.
static err match_result(In *in, const At *at, TalkPart *result) {
    size_t call = 0;
    for (size_t k = 0; k < in->calling_n; k++) {
        const TalkPart *p = &in->calling[k];
        if (p->kind != PART_CALL) continue;
        bool *answered = &in->answered[call++];
        bool is = result->id.n ? str_eq(p->id, result->id)
                               : !*answered && (!result->name.n || str_eq(p->name, result->name));
        if (!is) continue;
        *answered = true, result->id = p->id;
        return ERR_OK;
    }
    return result->id.n ? ERR_OK : at_missing(in, at, "tool_call_id");
}

static err read_result(In *in, const At *at, yyjson_val *v) {
    static const Member rows[] = { { "role" },
                                   { "content", read_text, offsetof(TalkPart, text) },
                                   { "tool_name", read_text, offsetof(TalkPart, name) },
                                   { "name", read_text, offsetof(TalkPart, name) },
                                   { "tool_call_id", read_text, offsetof(TalkPart, id) },
                                   { 0 } };
    TalkPart *p = add_part(add_message(in, ROLE_TOOL, at, 1), PART_RESULT);
    TRY(read_members(in, at, v, rows, p));
    p->parts = new (in->c->mem, TalkPart, 1), p->parts_n = 1;
    p->parts[0] = (TalkPart){ .kind = PART_TEXT, .text = p->text.p ? p->text : S("") };
    p->text = (str){ 0 };
    return match_result(in, at, p);
}

// Members come in any order: a thought stands before what was said.
static void thought_first(TalkMessage *m) {
    for (size_t i = 1; i < m->parts_n; i++) {
        if (m->parts[i].kind != PART_REASONING) continue;
        TalkPart thought = m->parts[i];
        memmove(m->parts + 1, m->parts, i * sizeof thought);
        m->parts[0] = thought;
    }
}

static void expect_results(In *in, const TalkMessage *m) {
    in->calling = m->parts, in->calling_n = m->parts_n;
    memset(in->answered, 0, sizeof in->answered);
}

static err read_message(In *in, const At *at, yyjson_val *v) {
    static const char *const names[] = { "system", "user", "assistant" };
    static const Member rows[] = { { "role" },
                                   { "content", read_content, 0 },
                                   { "images", read_images, 0 },
                                   { "thinking", read_thinking, 0 },
                                   { "tool_calls", read_calls, 0 },
                                   { 0 } };
    str role = json_get_str(v, "role");
    At at_role = { at, "role", 0 };
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    if (str_is(role, "tool")) return read_result(in, at, v);
    size_t parts = !!json_get(v, "content") + !!json_get(v, "thinking")
                   + yyjson_arr_size(json_get(v, "images"))
                   + yyjson_arr_size(json_get(v, "tool_calls"));
    for (size_t i = 0; i < countof(names); i++) {
        if (!str_is(role, names[i])) continue;
        TalkMessage *m = add_message(in, (TalkRole)i, at, parts);
        TRY(read_members(in, at, v, rows, m));
        thought_first(m);
        expect_results(in, m);
        return ERR_OK;
    }
    return at_enum(in, &at_role, "system, user, assistant, tool", role);
}

static err read_messages(In *in, const At *at, yyjson_val *v, void *into) {
    size_t i, n;
    yyjson_val *one;
    (void)into;
    if (!yyjson_is_arr(v)) return at_wrong(in, at, "a list of messages", v);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TRY(read_message(in, &here, one));
    }
    return ERR_OK;
}

// ---- options
static err read_most(In *in, const At *at, yyjson_val *v, void *into) {
    int64_t n;
    TRY(read_i64(in, at, v, &n));
    if (n <= 0) return ERR_OK; // as many as there is room for
    *(int64_t *)into = n;
    SAID(in, OUTPUT_MAX, at);
    return ERR_OK;
}

static err read_options(In *in, const At *at, yyjson_val *v, void *into) {
    static const Member rows[] = { { "num_predict", read_most, offsetof(Talk, output_max) },
                                   { "stop", read_stop, 0 },
                                   { "num_ctx" },
                                   { "num_batch" },
                                   { "num_gpu" },
                                   { "main_gpu" },
                                   { "num_thread" },
                                   { "num_keep" },
                                   { "use_mmap" },
                                   { "use_mlock" },
                                   { "numa" },
                                   { "low_vram" },
                                   { 0 } };
    (void)into;
    return read_scalars(in, at, v, "options.", rows);
}

static err read_format(In *in, const At *at, yyjson_val *v, void *into) {
    Talk *t = into;
    if (yyjson_is_str(v) && !yyjson_get_len(v)) return ERR_OK;
    if (str_is(json_str(v), "json")) {
        t->format = FORMAT_JSON;
        SAID(in, JSON, at);
        return ERR_OK;
    }
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "\"json\" or a schema", v);
    t->format = FORMAT_SCHEMA, t->schema = v;
    SAID(in, SCHEMA, at);
    return ERR_OK;
}

static err read_think(In *in, const At *at, yyjson_val *v, void *into) {
    Talk *t = into;
    SAID(in, REASONING, at);
    t->reasoning.on = !yyjson_is_false(v);
    if (t->reasoning.on) t->reasoning.summary = S("auto"); // thoughts are shown here
    if (yyjson_is_bool(v)) return ERR_OK;
    if (!yyjson_is_str(v)) return at_wrong(in, at, "true, false or an effort", v);
    t->reasoning.effort = json_str(v);
    return ERR_OK;
}

// Not said means to stream.
static void streams_unless_said(Talk *t) {
    if (t->stream < 0) t->stream = 1;
}

static err chat_read(In *in, yyjson_val *root) {
    static const Member rows[] = { { "messages", read_messages, 0 }, { "tools", read_tools, 0 },
                                   { "options", read_options, 0 },   { "format", read_format, 0 },
                                   { "think", read_think, 0 },       { 0 } };
    TRY(read_scalars(in, NULL, root, "", rows));
    streams_unless_said(in->t);
    return in->t->messages_n ? ERR_OK : at_missing(in, NULL, "messages");
}

// What asks for nothing when it is empty or false, and for something that others lack when it is
// not.
static err read_unless_empty(In *in, const At *at, yyjson_val *v, void *into) {
    bool empty = (yyjson_is_str(v) && !yyjson_get_len(v)) || yyjson_is_false(v)
                 || (yyjson_is_arr(v) && !yyjson_arr_size(v));
    (void)into;
    return empty ? ERR_OK : at_unknown(in, at);
}

static err generate_read(In *in, yyjson_val *root) {
    static const Member rows[] = { { "prompt" },
                                   { "system" },
                                   { "images" },
                                   { "options", read_options, 0 },
                                   { "format", read_format, 0 },
                                   { "think", read_think, 0 },
                                   { "suffix", read_unless_empty, 0 },
                                   { "template", read_unless_empty, 0 },
                                   { "raw", read_unless_empty, 0 },
                                   { "context", read_unless_empty, 0 },
                                   { 0 } };
    At at_prompt = { NULL, "prompt", 0 }, at_system = { NULL, "system", 0 },
       at_images = { NULL, "images", 0 };
    yyjson_val *prompt = json_get(root, "prompt"), *system = json_get(root, "system"),
               *images = json_get(root, "images");
    if (!prompt || yyjson_is_null(prompt)) return at_missing(in, NULL, "prompt");
    if (yyjson_is_str(system) && yyjson_get_len(system))
        add_part(add_message(in, ROLE_SYSTEM, &at_system, 1), PART_TEXT)->text = json_str(system);
    else if (system && !yyjson_is_null(system) && !yyjson_is_str(system))
        return at_wrong(in, &at_system, "text", system);
    TalkMessage *m = add_message(in, ROLE_USER, &at_prompt, yyjson_arr_size(images) + 1);
    TRY(read_text(in, &at_prompt, prompt, &add_part(m, PART_TEXT)->text));
    if (images && !yyjson_is_null(images)) TRY(read_images(in, &at_images, images, m));
    TRY(read_scalars(in, NULL, root, "", rows));
    streams_unless_said(in->t);
    return ERR_OK;
}

// ---- written
static void write_images(const TalkMessage *m, Json *j) {
    bool any = false;
    for (size_t i = 0; i < m->parts_n; i++) {
        if (m->parts[i].kind != PART_IMAGE) continue;
        if (!any) json_key(j, "images"), json_arr(j), any = true;
        json_put_str(j, m->parts[i].data);
    }
    if (any) json_end_arr(j);
}

static str texts_of(Ctx *c, const TalkMessage *m, PartKind kind) {
    str *texts = new (c->mem, str, m->parts_n + 1);
    size_t n = 0;
    for (size_t i = 0; i < m->parts_n; i++) {
        PartKind is = m->parts[i].kind == PART_REFUSAL ? PART_TEXT : m->parts[i].kind;
        if (is == kind && m->parts[i].text.n) texts[n++] = m->parts[i].text;
    }
    return arena_join(c->mem, texts, n, S("\n"));
}

static void write_calls(const TalkMessage *m, Json *j) {
    bool any = false;
    for (size_t i = 0; i < m->parts_n; i++) {
        const TalkPart *p = &m->parts[i];
        if (p->kind != PART_CALL) continue;
        if (!any) json_key(j, "tool_calls"), json_arr(j), any = true;
        json_obj(j), json_kv_str(j, "id", p->id), json_key(j, "function"), json_obj(j);
        json_kv_str(j, "name", p->name), json_key(j, "arguments"), put_object(p->arguments, j);
        json_end_obj(j), json_end_obj(j);
    }
    if (any) json_end_arr(j);
}

static void write_message(const To *to, size_t at) {
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    const TalkMessage *m = &to->t->messages[at];
    Json *j = to->j;
    json_obj(j), json_kv_z(j, "role", roles[m->role]);
    if (m->role == ROLE_TOOL) {
        const TalkPart *p = &m->parts[0];
        str name = call_name(to->t, at, p->id);
        json_kv_str(j, "content", result_text(to->c, p));
        json_kv_str(j, "tool_name", name.n ? name : p->name), json_kv_str(j, "tool_call_id", p->id);
    } else {
        str thought = texts_of(to->c, m, PART_REASONING);
        json_kv_str(j, "content", texts_of(to->c, m, PART_TEXT));
        if (thought.n) json_kv_str(j, "thinking", thought);
        write_images(m, j), write_calls(m, j);
    }
    json_end_obj(j);
}

static void write_options(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    size_t before = j->out->n;
    json_key(j, "options"), json_obj(j);
    size_t empty = j->out->n;
    write_scalars(to, "options.", BUT(OUTPUT_MAX));
    if (t->output_max != UNSET_INT) json_kv_i64(j, "num_predict", t->output_max);
    if (t->stop_n) json_key(j, "stop"), write_texts(j, t->stop, t->stop_n);
    json_end_obj(j);
    if (j->out->n == empty + 1 && !j->out->full)
        j->out->n = before; // model stands before it: the comma goes too
}

static void write_common(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    write_scalars(to, "", BUT(STREAM)), json_kv_bool(j, "stream", t->stream == 1);
    write_options(to);
    if (t->format == FORMAT_JSON) json_kv_z(j, "format", "json");
    if (t->format == FORMAT_SCHEMA) json_key(j, "format"), json_put_val(j, t->schema);
    if (!t->said[TALK_REASONING]) return;
    str effort = t->reasoning.on == 0 ? (str){ 0 } : t->reasoning.effort;
    if (str_is(effort, "minimal")) effort = S("low");
    if (str_is(effort, "xhigh") || str_is(effort, "max")) effort = S("high");
    if (effort.p) json_kv_str(j, "think", effort);
    else json_kv_bool(j, "think", t->reasoning.on != 0);
}

static err chat_write(const To *to) {
    const Talk *t = to->t;
    Json *j = to->j;
    bool tools = t->tools_n && t->choose != CHOOSE_NONE;
    json_obj(j), write_common(to);
    if (tools) json_key(j, "tools"), json_arr(j);
    for (size_t i = 0; tools && i < t->tools_n; i++) {
        json_obj(j), json_kv_z(j, "type", "function"), json_key(j, "function"), json_obj(j);
        write_function(&t->tools[i], j);
        if (!t->tools[i].schema)
            json_kv_raw(j, "parameters", S("{\"type\":\"object\",\"properties\":{}}"));
        json_end_obj(j), json_end_obj(j);
    }
    if (tools) json_end_arr(j);
    json_key(j, "messages"), json_arr(j);
    for (size_t i = 0; i < t->messages_n; i++) write_message(to, i);
    json_end_arr(j), json_end_obj(j);
    return ERR_OK;
}

// TURNS has no place here: there is one message beside the system's.
static err generate_write(const To *to) {
    Json *j = to->j;
    str system[2] = { 0 };
    json_obj(j), write_common(to);
    for (size_t i = 0; i < to->t->messages_n; i++) {
        const TalkMessage *m = &to->t->messages[i];
        str text = texts_of(to->c, m, PART_TEXT);
        if (m->role == ROLE_SYSTEM) {
            system[1] =
                system[0].p ? arena_join(to->c->mem, (str[]){ system[0], text }, 2, S("\n")) : text;
            system[0] = system[1];
        } else if (m->role == ROLE_TOOL) {
            json_kv_str(j, "prompt", result_text(to->c, &m->parts[0]));
        } else {
            json_kv_str(j, "prompt", text), write_images(m, j);
        }
    }
    if (system[0].p) json_kv_str(j, "system", system[0]);
    json_end_obj(j);
    return ERR_OK;
}

// ---- the rows
static const char *const moot[] = { "keep_alive", "truncate", "shift", NULL };
#define ANSWERS                                                                   \
    .read_event = ollama_read_event, .read_whole = ollama_read_whole,             \
    .write_delta = ollama_write_delta, .write_whole = ollama_write_whole,         \
    .reading_size = sizeof(OllamaReading), .writing_size = sizeof(OllamaWriting), \
    .write_error = ollama_write_error, .read_error = ollama_read_error
static const DialectWays chat_ways = { .read_request = chat_read,
                                       .write_request = chat_write,
                                       ANSWERS };
static const DialectWays generate_ways = { .read_request = generate_read,
                                           .write_request = generate_write,
                                           ANSWERS };
// clang-format off
#define OPTIONS \
    SAME(MODEL, "model"), SAME(STREAM, "stream"), ALWAYS(STREAM_USAGE), SAME(OUTPUT_MAX, \
      "options.num_predict"), \
    SAME(TEMPERATURE, "options.temperature"), SAME(TOP_P, "options.top_p"), SAME(TOP_K, \
      "options.top_k"), \
    SAME(MIN_P, "options.min_p"), SAME(STOP, "options.stop"), SAME(SEED, "options.seed"), \
    SAME(LOGPROBS, "logprobs"), SAME(TOP_LOGPROBS, "top_logprobs"), SAME(PRESENCE, \
      "options.presence_penalty"), \
    SAME(FREQUENCY, "options.frequency_penalty"), MOOT(USER), MOOT(METADATA), MOOT(STORE), \
    SAME(JSON, "format"), SAME(SCHEMA, "format"), NEAR(REASONING, "think"), MOOT(CACHE_MARKS), \
    MOOT(SIGNATURES)
const Dialect dialect_ollama_chat = {
    .name = "ollama.chat", .path = "/chat", .framing = FRAMING_NDJSON, .moot = moot,
        .ways = &chat_ways,
    .place = {
        OPTIONS, ALWAYS(TURNS), SAME(TOOLS, "tools"), SAME(IMAGES, "messages[].images[]"),
        NEAR(TOOL_ERRORS, "messages[].content"), NEAR(PAST_REASONING, "messages[].thinking"),
    },
    .en = "Ollama chat", .zh = "Ollama 对话接口",
};
const Dialect dialect_ollama_generate = {
    .name = "ollama.generate", .path = "/generate", .framing = FRAMING_NDJSON, .moot = moot,
        .ways = &generate_ways,
    .place = { OPTIONS, SAME(IMAGES, "images[]"),
               NEAR(TOOL_ERRORS, "prompt"), MOOT(PAST_REASONING), },
    .en = "Ollama generate", .zh = "Ollama 生成接口",
};
// clang-format on
