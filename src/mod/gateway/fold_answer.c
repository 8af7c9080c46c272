// SPDX-License-Identifier: Apache-2.0
// fold_answer.c - a whole answer out of a stream's chunks. An engine that does not notice that its
// client left is always asked for a stream, so that closing the connection frees its slot; what the
// client asked for in one piece is folded here, member by member as OpenAI's object would have been
// (platform documentation, "The chat completion object" and "The chat completion chunk object").
#include "mod/gateway/flow.h"

enum { TOOLS_MAX = 128, TEXT_MAX_BYTES = 64 << 20 };

typedef struct ToolCall {
    Buf id, name, arguments;
    bool used;
} ToolCall;
typedef struct Choice {
    Buf content, reasoning, text, logprobs; // logprobs: elements of "content", comma separated
    ToolCall *tools;
    size_t tools_n;
    str finish;
    bool used, has_content;
} Choice;
struct Fold {
    Choice *choices;
    size_t choices_n;
    str id, model, object, fingerprint, timings;
    int64_t created;
    bool kept; // of this chunk something was put into the arena
};

static void choice_init(Choice *c) {
    Buf *all[] = { &c->content, &c->reasoning, &c->text, &c->logprobs };
    for (size_t i = 0; i < countof(all); i++) buf_init(all[i], TEXT_MAX_BYTES);
    c->used = true;
}

static void choice_done(Choice *c) {
    Buf *all[] = { &c->content, &c->reasoning, &c->text, &c->logprobs };
    for (size_t i = 0; i < countof(all) && c->used; i++) buf_done(all[i]);
    for (size_t i = 0; i < c->tools_n; i++)
        if (c->tools[i].used)
            buf_done(&c->tools[i].id), buf_done(&c->tools[i].name),
                buf_done(&c->tools[i].arguments);
}

static void fold_done(void *arg) {
    Fold *f = arg;
    for (size_t i = 0; i < f->choices_n; i++) choice_done(&f->choices[i]);
}

Fold *fold_new(Ctx *c) {
    Fold *f = new (c->mem, Fold, 1);
    f->choices = new (c->mem, Choice, CHOICES_MAX);
    arena_defer(c->mem, fold_done, f);
    return f;
}

static Choice *choice_at(Fold *f, int64_t index) {
    if (index < 0 || index >= CHOICES_MAX) return NULL;
    if (!f->choices[index].used) choice_init(&f->choices[index]);
    if ((size_t)index >= f->choices_n) f->choices_n = (size_t)index + 1;
    return &f->choices[index];
}

static void fold_tool(Ctx *c, Fold *f, Choice *to, yyjson_val *call) {
    int64_t index = 0;
    json_get_i64(call, "index", &index);
    if (index < 0 || index >= TOOLS_MAX) return;
    if (!to->tools) to->tools = new (c->mem, ToolCall, TOOLS_MAX), f->kept = true;
    ToolCall *t = &to->tools[index];
    if (!t->used)
        buf_init(&t->id, 4096), buf_init(&t->name, 4096), buf_init(&t->arguments, TEXT_MAX_BYTES),
            t->used = true;
    if ((size_t)index >= to->tools_n) to->tools_n = (size_t)index + 1;
    yyjson_val *function = json_get(call, "function");
    buf_add(&t->id, json_get_str(call, "id"));
    buf_add(&t->name, json_get_str(function, "name"));
    buf_add(&t->arguments, json_get_str(function, "arguments"));
}

static void fold_logprobs(Ctx *c, Choice *to, yyjson_val *logprobs) {
    size_t i, n;
    yyjson_val *one;
    yyjson_arr_foreach(json_get(logprobs, "content"), i, n, one) {
        if (to->logprobs.n) buf_add_char(&to->logprobs, ',');
        buf_add(&to->logprobs, json_text(c->mem, one));
    }
}

static void fold_choice(Ctx *c, Fold *f, yyjson_val *in) {
    int64_t index = 0;
    size_t i, n;
    yyjson_val *delta = json_get(in, "delta"), *call;
    json_get_i64(in, "index", &index);
    Choice *to = choice_at(f, index);
    if (!to) return;
    str content = json_get_str(delta, "content"), finish = json_get_str(in, "finish_reason");
    to->has_content |= content.p != NULL;
    buf_add(&to->content, content),
        buf_add(&to->reasoning, json_get_str(delta, "reasoning_content"));
    buf_add(&to->text, json_get_str(in, "text"));
    yyjson_arr_foreach(json_get(delta, "tool_calls"), i, n, call) fold_tool(c, f, to, call);
    fold_logprobs(c, to, json_get(in, "logprobs"));
    if (finish.n) to->finish = arena_str(c->mem, finish), f->kept = true;
}

bool fold_chunk(Ctx *c, Fold *f, yyjson_val *chunk) {
    size_t i, n;
    yyjson_val *choice;
    f->kept = false;
    if (!yyjson_is_obj(chunk)) return false; // llama-server starts two prompts with `null`
    if (!f->id.p) {
        f->kept = true;
        f->id = arena_str(c->mem, json_get_str(chunk, "id")),
        f->model = arena_str(c->mem, json_get_str(chunk, "model"));
        f->object = arena_str(c->mem, json_get_str(chunk, "object"));
        f->fingerprint = arena_str(c->mem, json_get_str(chunk, "system_fingerprint"));
        json_get_i64(chunk, "created", &f->created);
    }
    yyjson_arr_foreach(json_get(chunk, "choices"), i, n, choice) fold_choice(c, f, choice);
    return f->kept;
}

// ---- the object
static void write_tools(const Choice *c, Json *j) {
    if (!c->tools_n) return;
    json_key(j, "tool_calls"), json_arr(j);
    for (size_t i = 0; i < c->tools_n; i++) {
        if (!c->tools[i].used) continue;
        json_obj(j);
        json_kv_str(j, "id", buf_str(&c->tools[i].id)), json_kv_z(j, "type", "function");
        json_key(j, "function"), json_obj(j);
        json_kv_str(j, "name", buf_str(&c->tools[i].name)),
            json_kv_str(j, "arguments", buf_str(&c->tools[i].arguments));
        json_end_obj(j), json_end_obj(j);
    }
    json_end_arr(j);
}

static void write_choice(const Choice *c, size_t index, bool chat, Json *j) {
    json_obj(j);
    json_kv_i64(j, "index", (int64_t)index);
    if (chat) {
        json_key(j, "message"), json_obj(j);
        json_kv_z(j, "role", "assistant");
        json_kv_str(j, "content",
                    c->content.n || c->has_content || !c->tools_n ? buf_str(&c->content)
                                                                  : (str){ 0 });
        if (c->reasoning.n) json_kv_str(j, "reasoning_content", buf_str(&c->reasoning));
        write_tools(c, j);
        json_end_obj(j);
    } else {
        json_kv_str(j, "text", buf_str(&c->text));
    }
    json_key(j, "logprobs");
    if (c->logprobs.n) {
        json_obj(j), json_key(j, "content"), buf_add_char(j->out, '['),
            buf_add(j->out, buf_str(&c->logprobs)), buf_add_char(j->out, ']');
        json_end_obj(j);
    } else {
        json_put_null(j);
    }
    json_kv_str(j, "finish_reason", c->finish);
    json_end_obj(j);
}

void fold_write(const Fold *f, bool chat, str usage, Buf *out) {
    Json j = json_to(out);
    json_obj(&j);
    json_kv_str(&j, "id", f->id),
        json_kv_z(&j, "object", chat ? "chat.completion" : "text_completion");
    json_kv_i64(&j, "created", f->created), json_kv_str(&j, "model", f->model);
    if (f->fingerprint.n) json_kv_str(&j, "system_fingerprint", f->fingerprint);
    json_key(&j, "choices"), json_arr(&j);
    for (size_t i = 0; i < f->choices_n; i++)
        if (f->choices[i].used) write_choice(&f->choices[i], i, chat, &j);
    json_end_arr(&j);
    json_kv_raw(&j, "usage", usage);
    json_end_obj(&j);
}
