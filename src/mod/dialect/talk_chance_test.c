// SPDX-License-Identifier: Apache-2.0
// talk_chance_test.c - makes and prints the Talks and Deltas of talk_test.h. Owner: the test's
// arena. Threads: one.
#include "mod/dialect/talk_test.h"
#include <assert.h>

uint64_t chance(Chance *r, uint64_t n) {
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (r->state >> 33) % n;
}

bool chance_can(const Chance *r, TalkField f) {
    for (const Dialect *const *d = r->among; *d; d++)
        if ((*d)->place[f].kind != PLACE_SAME && (*d)->place[f].kind != PLACE_ALWAYS) return false;
    return true;
}

static bool yes(Chance *r, TalkField f) { return chance_can(r, f) && chance(r, 2); }

static bool by_lines(const Chance *r) { // Ollama among them: one text a message, fewer figures
    for (const Dialect *const *d = r->among; *d; d++)
        if ((*d)->framing == FRAMING_NDJSON) return true;
    return false;
}

static str word(Chance *r) {
    static const char *const words[] = { "a",         "b\n\"c\"",         "天气",    "x y z",
                                         "{\"k\":1}", "\xf0\x9f\x98\x80", "\\u0000", "tail " };
    str parts[3];
    size_t n = 1 + chance(r, 3);
    for (size_t i = 0; i < n; i++) parts[i] = str_z(words[chance(r, countof(words))]);
    return arena_join(r->c->mem, parts, n, S("-"));
}

static yyjson_val *value(Chance *r, const char *text) {
    yyjson_val *v = NULL;
    err e = json_parse(r->c, str_z(text), &v);
    assert(!e);
    return v;
}

static void note(Talk *t, TalkField f) {
    if (!t->said[f]) t->said[f] = talk_field_name(f);
}
#define NOTE(t, f) note((t), TALK_##f)

// ---- requests
static void make_media(Chance *r, Talk *t, TalkPart *p, TalkField urls) {
    bool url = yes(r, urls);
    note(t, p->kind == PART_IMAGE ? TALK_IMAGES : TALK_DOCUMENTS);
    if (url) p->url = S("https://example.test/x?y=1"), note(t, urls);
    else
        p->data = p->kind == PART_IMAGE ? S("/9j/4AAQ") : S("JVBERi0="),
        p->media_type = p->kind == PART_IMAGE ? S("image/jpeg") : S("application/pdf");
    if (p->kind == PART_DOCUMENT) p->name = S("report.pdf");
    if (p->kind == PART_IMAGE && yes(r, TALK_IMAGE_DETAIL))
        p->detail = S("low"), NOTE(t, IMAGE_DETAIL);
}

static void make_user(Chance *r, Talk *t, TalkMessage *m) {
    size_t n = 1 + chance(r, 3);
    *m = (TalkMessage){ .role = ROLE_USER, .parts = new(r->c->mem, TalkPart, n) };
    for (size_t i = 0; i < n; i++) {
        TalkPart *p = &m->parts[m->parts_n++];
        *p = (TalkPart){ .kind = PART_TEXT };
        if (i && yes(r, TALK_IMAGES)) p->kind = PART_IMAGE, make_media(r, t, p, TALK_IMAGE_URLS);
        else if (i && yes(r, TALK_DOCUMENTS))
            p->kind = PART_DOCUMENT, make_media(r, t, p, TALK_DOCUMENT_URLS);
        else if (i && by_lines(r)) m->parts_n--;
        else p->text = word(r);
        if (p->text.p && yes(r, TALK_CACHE_MARKS)) p->cache_mark = true, NOTE(t, CACHE_MARKS);
    }
    if (yes(r, TALK_NAMES)) m->name = S("ada"), NOTE(t, NAMES);
}

static size_t make_assistant(Chance *r, Talk *t, TalkMessage *m, int *calls) {
    static const char *const arguments[] = { "{}", "{\"city\":\"Oslo\",\"n\":[1,2.5,null]}",
                                             "{\"q\":\"a \\\"b\\\"\"}" };
    size_t n_calls = chance_can(r, TALK_TOOLS) ? chance(r, 4) : 0;
    *m = (TalkMessage){ .role = ROLE_ASSISTANT, .parts = new(r->c->mem, TalkPart, n_calls + 2) };
    if (yes(r, TALK_SIGNATURES)) {
        m->parts[m->parts_n++] =
            (TalkPart){ .kind = PART_REASONING, .text = word(r), .signature = S("c2ln") };
        NOTE(t, PAST_REASONING), NOTE(t, SIGNATURES);
    }
    if (!n_calls || chance(r, 2))
        m->parts[m->parts_n++] = (TalkPart){ .kind = PART_TEXT, .text = word(r) };
    for (size_t i = 0; i < n_calls; i++)
        m->parts[m->parts_n++] =
            (TalkPart){ .kind = PART_CALL,
                        .id = arena_printf(r->c->mem, "call_%d", (*calls)++),
                        .name = chance(r, 2) ? S("weather") : S("search"),
                        .arguments = str_z(arguments[chance(r, countof(arguments))]) };
    return n_calls;
}

static void make_result(Chance *r, Talk *t, TalkMessage *m, const TalkPart *call) {
    *m = (TalkMessage){ .role = ROLE_TOOL, .parts = new(r->c->mem, TalkPart, 1), .parts_n = 1 };
    TalkPart *p = &m->parts[0];
    *p = (TalkPart){
        .kind = PART_RESULT, .id = call->id, .parts = new(r->c->mem, TalkPart, 2), .parts_n = 1
    };
    p->parts[0] = (TalkPart){ .kind = PART_TEXT, .text = word(r) };
    if (yes(r, TALK_TOOL_ERRORS)) p->is_error = true, NOTE(t, TOOL_ERRORS);
    if (!yes(r, TALK_RESULT_IMAGES)) return;
    p->parts[p->parts_n++] =
        (TalkPart){ .kind = PART_IMAGE, .data = S("aGk="), .media_type = S("image/png") };
    NOTE(t, RESULT_IMAGES), NOTE(t, IMAGES);
}

static void make_messages(Chance *r, Talk *t) {
    size_t turns = chance_can(r, TALK_TURNS) ? 1 + chance(r, 4) : 1;
    int calls = 0;
    t->messages = new(r->c->mem, TalkMessage, 8 * turns + 1);
    if (chance(r, 2)) {
        TalkMessage *m = &t->messages[t->messages_n++];
        *m = (TalkMessage){ .role = ROLE_SYSTEM,
                            .parts = new(r->c->mem, TalkPart, 1),
                            .parts_n = 1 };
        m->parts[0] = (TalkPart){ .kind = PART_TEXT, .text = word(r) };
    }
    for (size_t i = 0; i < turns; i++) {
        make_user(r, t, &t->messages[t->messages_n++]);
        if (i + 1 == turns) break;
        NOTE(t, TURNS);
        TalkMessage *made = &t->messages[t->messages_n++];
        make_assistant(r, t, made, &calls);
        for (size_t k = 0; k < made->parts_n; k++)
            if (made->parts[k].kind == PART_CALL)
                make_result(r, t, &t->messages[t->messages_n++], &made->parts[k]);
    }
}

static void make_tools(Chance *r, Talk *t) {
    static const char *const names[] = { "weather", "search" };
    if (!yes(r, TALK_TOOLS)) return;
    NOTE(t, TOOLS);
    t->tools = new(r->c->mem, TalkTool, 2), t->tools_n = 2;
    for (size_t i = 0; i < 2; i++) {
        t->tools[i] = (TalkTool){ .name = str_z(names[i]), .description = word(r), .strict = -1 };
        t->tools[i].schema =
            value(r, "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}");
    }
    if (yes(r, TALK_TOOL_CHOICE)) {
        t->choose = (Choose)(1 + chance(r, 3));
        if (t->choose == CHOOSE_ONE) t->chosen = S("search");
        NOTE(t, TOOL_CHOICE);
    }
    if (yes(r, TALK_SERIAL_TOOLS) && t->choose != CHOOSE_NONE)
        t->serial_tools = 1, NOTE(t, SERIAL_TOOLS);
}

static void make_scalars(Chance *r, Talk *t) {
    if (yes(r, TALK_STREAM)) t->stream = 1, NOTE(t, STREAM);
    if (yes(r, TALK_STREAM_USAGE))
        t->stream = t->stream_usage = 1, NOTE(t, STREAM), NOTE(t, STREAM_USAGE);
    if (chance_can(r, TALK_OUTPUT_MAX))
        t->output_max = 1 + (int64_t)chance(r, 9000), NOTE(t, OUTPUT_MAX);
    if (yes(r, TALK_TEMPERATURE)) t->temperature = 0.25, NOTE(t, TEMPERATURE);
    if (yes(r, TALK_TOP_P)) t->top_p = 0.9, NOTE(t, TOP_P);
    if (yes(r, TALK_TOP_K)) t->top_k = 40, NOTE(t, TOP_K);
    if (yes(r, TALK_MIN_P)) t->min_p = 0.05, NOTE(t, MIN_P);
    if (yes(r, TALK_SEED)) t->seed = -7, NOTE(t, SEED);
    if (yes(r, TALK_CHOICES)) t->choices = 3, NOTE(t, CHOICES);
    if (yes(r, TALK_PRESENCE)) t->presence = -0.5, NOTE(t, PRESENCE);
    if (yes(r, TALK_FREQUENCY)) t->frequency = 1.5, NOTE(t, FREQUENCY);
    if (yes(r, TALK_LOGPROBS))
        t->logprobs = 1, t->top_logprobs = 3, NOTE(t, LOGPROBS), NOTE(t, TOP_LOGPROBS);
    if (yes(r, TALK_LOGIT_BIAS)) t->logit_bias = value(r, "{\"50\":-100}"), NOTE(t, LOGIT_BIAS);
    if (yes(r, TALK_USER)) t->user = S("u-1"), NOTE(t, USER);
    if (yes(r, TALK_METADATA)) t->metadata = value(r, "{\"team\":\"a\"}"), NOTE(t, METADATA);
    if (yes(r, TALK_VERBOSITY)) t->verbosity = S("low"), NOTE(t, VERBOSITY);
    if (yes(r, TALK_STOP)) {
        t->stop = new(r->c->mem, str, 2), t->stop_n = 2;
        t->stop[0] = S("END"), t->stop[1] = S("\n\n"), NOTE(t, STOP);
    }
    if (yes(r, TALK_JSON)) t->format = FORMAT_JSON, NOTE(t, JSON);
    else if (yes(r, TALK_SCHEMA)) {
        t->format = FORMAT_SCHEMA, t->format_name = S("shape"), NOTE(t, SCHEMA);
        t->schema =
            value(r, "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}");
    }
}

Talk *chance_talk(Chance *r) {
    Talk *t = new(r->c->mem, Talk, 1);
    yyjson_val *empty =
        value(r, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    err e =
        dialect_read(r->c, &dialect_chat, empty, t); // every member as it is when nothing was said
    assert(!e);
    t->messages_n = 0;
    make_scalars(r, t), make_tools(r, t), make_messages(r, t);
    return t;
}

// ---- their text
static bool kept(const Dialect *const *among, TalkField f) {
    return chance_can(&(Chance){ .among = among }, f);
}

static bool same(const Dialect *const *among, TalkField f) {
    for (const Dialect *const *d = among; *d; d++)
        if ((*d)->place[f].kind != PLACE_SAME) return false;
    return true;
}

static void print_part(Json *j, const TalkPart *p, const Dialect *const *among) {
    if (p->kind == PART_REASONING && !kept(among, TALK_SIGNATURES)) return;
    json_obj(j), json_kv_i64(j, "kind", p->kind), json_kv_str(j, "text", p->text),
        json_kv_str(j, "url", p->url);
    json_kv_str(j, "data", p->data), json_kv_str(j, "media_type", p->media_type),
        json_kv_str(j, "detail", p->detail);
    json_kv_str(j, "id", p->id), json_kv_str(j, "signature", p->signature);
    if (p->kind != PART_RESULT) json_kv_str(j, "name", p->name);
    if (p->kind == PART_CALL) json_kv_raw(j, "arguments", p->arguments);
    if (kept(among, TALK_TOOL_ERRORS)) json_kv_bool(j, "is_error", p->is_error);
    if (kept(among, TALK_CACHE_MARKS)) json_kv_bool(j, "cache_mark", p->cache_mark);
    if (p->parts_n) json_key(j, "parts"), json_arr(j);
    for (size_t i = 0; i < p->parts_n; i++) print_part(j, &p->parts[i], among);
    if (p->parts_n) json_end_arr(j);
    json_end_obj(j);
}

static void print_messages(Json *j, const Talk *t, const Dialect *const *among) {
    json_key(j, "messages"), json_arr(j);
    for (size_t i = 0; i < t->messages_n; i++) {
        const TalkMessage *m = &t->messages[i];
        json_obj(j), json_kv_i64(j, "role", m->role), json_kv_str(j, "name", m->name);
        json_key(j, "parts"), json_arr(j);
        for (size_t k = 0; k < m->parts_n; k++) print_part(j, &m->parts[k], among);
        json_end_arr(j), json_end_obj(j);
    }
    json_end_arr(j);
}

static void print_tools(Json *j, const Talk *t) {
    json_key(j, "tools"), json_arr(j);
    for (size_t i = 0; i < t->tools_n; i++) {
        json_obj(j), json_kv_str(j, "name", t->tools[i].name),
            json_kv_str(j, "description", t->tools[i].description);
        json_key(j, "schema"), json_put_val(j, t->tools[i].schema), json_end_obj(j);
    }
    json_end_arr(j), json_kv_i64(j, "choose", t->choose), json_kv_str(j, "chosen", t->chosen);
    json_kv_bool(j, "serial", t->serial_tools == 1);
}

str talk_text(Ctx *c, const Talk *t, const Dialect *const *among) {
    Buf b;
    buf_init(&b, 16 << 20);
    Json j = json_to(&b);
    json_obj(&j), json_kv_str(&j, "model", t->model), json_kv_bool(&j, "stream", t->stream == 1);
    if (same(among, TALK_STREAM_USAGE)) json_kv_bool(&j, "stream_usage", t->stream_usage == 1);
    if (kept(among, TALK_OUTPUT_MAX) && t->said[TALK_OUTPUT_MAX])
        json_kv_i64(&j, "output_max", t->output_max);
    json_kv_i64(&j, "top_k", t->top_k), json_kv_i64(&j, "seed", t->seed),
        json_kv_i64(&j, "choices", t->choices);
    json_kv_i64(&j, "top_logprobs", t->top_logprobs),
        json_kv_f64(&j, "temperature", t->temperature);
    json_kv_f64(&j, "top_p", t->top_p), json_kv_f64(&j, "min_p", t->min_p),
        json_kv_f64(&j, "presence", t->presence);
    json_kv_f64(&j, "frequency", t->frequency), json_kv_str(&j, "verbosity", t->verbosity);
    if (kept(among, TALK_USER)) json_kv_str(&j, "user", t->user);
    json_key(&j, "stop"), write_texts(&j, t->stop, t->stop_n);
    json_kv_bool(&j, "logprobs", t->logprobs == 1), json_kv_i64(&j, "format", t->format);
    if (t->schema) json_key(&j, "schema"), json_put_val(&j, t->schema);
    if (t->logit_bias) json_key(&j, "logit_bias"), json_put_val(&j, t->logit_bias);
    print_tools(&j, t), print_messages(&j, t, among), json_end_obj(&j);
    assert(!b.full);
    str text = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

// ---- answers
static void put(Deltas *all, Delta d) { all->all[all->n++] = d; }

static void make_text(Chance *r, Deltas *all, DeltaKind kind, int64_t choice, bool logprobs) {
    static const char one[] =
        "[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[]}]";
    size_t n = 1 + chance(r, 4);
    for (size_t i = 0; i < n; i++)
        put(all, (Delta){ .kind = kind,
                          .choice = choice,
                          .text = word(r),
                          .logprobs = logprobs ? value(r, one) : NULL });
}

static void make_calls(Chance *r, Deltas *all, int64_t choice, size_t n) {
    static const char *const pieces[][3] = { { "{\"ci", "ty\":\"O", "slo\"}" },
                                             { "{}", "", "" },
                                             { "{\"n\":", "1", "}" } };
    for (size_t i = 0; i < n; i++) {
        const char *const *text = pieces[chance(r, countof(pieces))];
        str id = arena_printf(r->c->mem, "call_%d_%zu", (int)choice, i);
        put(all, (Delta){ .kind = DELTA_CALL,
                          .choice = choice,
                          .call = (int64_t)i,
                          .id = id,
                          .name = S("weather") });
        for (size_t k = 0; k < 3; k++)
            if (*text[k])
                put(all, (Delta){ .kind = DELTA_ARGUMENTS,
                                  .choice = choice,
                                  .call = (int64_t)i,
                                  .text = str_z(text[k]) });
    }
}

static bool among(const Chance *r, const Dialect *d) {
    for (const Dialect *const *one = r->among; *one; one++)
        if (*one == d) return true;
    return false;
}

static void make_choice(Chance *r, Deltas *all, int64_t choice) {
    bool signs = !among(r, &dialect_chat) && !by_lines(r);
    size_t calls = chance_can(r, TALK_TOOLS) ? chance(r, 3) : 0;
    Finish finish = calls ? FINISH_CALLS : chance(r, 2) ? FINISH_LENGTH : FINISH_STOP;
    if (chance(r, 2)) {
        make_text(r, all, DELTA_REASONING, choice, false);
        if (signs)
            put(all, (Delta){ .kind = DELTA_SIGNATURE, .choice = choice, .text = S("c2lnbmVk") });
    }
    if (!calls || chance(r, 2))
        make_text(r, all, DELTA_TEXT, choice, chance_can(r, TALK_LOGPROBS) && chance(r, 2));
    make_calls(r, all, choice, calls);
    put(all, (Delta){ .kind = DELTA_FINISH, .choice = choice, .finish = finish });
}

Deltas *chance_deltas(Chance *r) {
    Deltas *all = new(r->c->mem, Deltas, 1);
    size_t choices = chance_can(r, TALK_CHOICES) ? 1 + chance(r, 3) : 1;
    bool ollama = by_lines(r);
    TokenUse u = { .prompt = 50 + (int64_t)chance(r, 50),
                   .completion = 20 + (int64_t)chance(r, 50) };
    if (!ollama) u.cached = (int64_t)chance(r, 20);
    if (!ollama && !among(r, &dialect_anthropic)) u.reasoning = (int64_t)chance(r, 20);
    put(all, (Delta){ .kind = DELTA_BEGIN, .id = S("up-1"), .name = S("up") });
    for (size_t i = 0; i < choices; i++) make_choice(r, all, (int64_t)i);
    put(all, (Delta){ .kind = DELTA_USAGE, .usage = u });
    put(all, (Delta){ .kind = DELTA_END });
    return all;
}

str kept_print(Ctx *c, Kept *f) {
    Buf b;
    buf_init(&b, 16 << 20);
    Json j = json_to(&b);
    json_arr(&j);
    for (int64_t choice = 0; choice < f->choices; choice++) {
        json_obj(&j), json_kv_i64(&j, "finish", f->finish[choice]), json_key(&j, "pieces"),
            json_arr(&j);
        for (size_t i = 0; i < f->n; i++) {
            const Piece *p = &f->pieces[i];
            if (p->choice != choice) continue;
            json_obj(&j), json_kv_i64(&j, "kind", p->kind), json_kv_str(&j, "text", kept_text(p));
            json_kv_str(&j, "id", buf_str(&p->id)), json_kv_str(&j, "name", buf_str(&p->name));
            json_kv_str(&j, "signature", buf_str(&p->signature));
            json_kv_str(&j, "logprobs", buf_str(&p->logprobs)), json_end_obj(&j);
        }
        json_end_arr(&j), json_end_obj(&j);
    }
    const TokenUse *u = &f->usage;
    json_put_i64(&j, u->prompt), json_put_i64(&j, u->cached), json_put_i64(&j, u->cache_written);
    json_put_i64(&j, u->completion), json_put_i64(&j, u->reasoning),
        json_put_str(&j, buf_str(&f->stop));
    json_end_arr(&j);
    str text = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}
