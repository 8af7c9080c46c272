// SPDX-License-Identifier: Apache-2.0
// read.c - the walk over a request's members: each by its row, none unknown, types checked, the
// place remembered for messages. Owner: everything in the call's arena. Threads: one at a time.
#include "mod/dialect/dialect_own.h"
#include <assert.h>

// ---- where
static void add_at(Buf *b, const At *at) {
    if (!at) return;
    add_at(b, at->up);
    if (!at->key) buf_printf(b, "[%zu]", at->index);
    else if (b->n) buf_add_char(b, '.'), buf_add(b, str_z(at->key));
    else buf_add(b, str_z(at->key));
}

const char *at_text(Ctx *c, const At *at) {
    Buf b;
    buf_init(&b, 4096);
    add_at(&b, at);
    const char *text = say_str(c, buf_str(&b));
    buf_done(&b);
    return text;
}

void said(In *in, TalkField f, const At *at) {
    if (!in->t->said[f]) in->t->said[f] = at_text(in->c, at);
}

// ---- refusals
static const char *kind_of(yyjson_val *v) {
    return !v                                        ? "nothing"
           : yyjson_is_str(v) && !yyjson_get_len(v)  ? "an empty string"
           : yyjson_is_arr(v) && !yyjson_arr_size(v) ? "an empty list"
                                                     : yyjson_get_type_desc(v);
}

err at_wrong(In *in, const At *at, const char *want, yyjson_val *got) {
    return fail(in->c, ERR_INVALID, R_FIELD_TYPE, "field", at_text(in->c, at), "want", want, "got",
                kind_of(got));
}

err at_enum(In *in, const At *at, const char *names, str got) {
    return fail(in->c, ERR_INVALID, R_FIELD_ENUM, "field", at_text(in->c, at), "names", names,
                "got", say_str(in->c, got));
}

err at_unknown(In *in, const At *at) {
    return fail(in->c, ERR_INVALID, R_DIALECT_MEMBER, "field", at_text(in->c, at), "dialect",
                in->d->name);
}

err at_missing(In *in, const At *at, const char *member) {
    At inner = { at, member, 0 };
    return fail(in->c, ERR_INVALID, R_FIELD_REQUIRED, "field", at_text(in->c, &inner));
}

// ---- values
err read_text(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_str(v)) return at_wrong(in, at, "text", v);
    *(str *)into = json_str(v);
    return ERR_OK;
}

err read_bool(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_bool(v)) return at_wrong(in, at, "true or false", v);
    *(int *)into = yyjson_get_bool(v);
    return ERR_OK;
}

err read_i64(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_int(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX))
        return at_wrong(in, at, "a whole number", v);
    *(int64_t *)into = yyjson_get_sint(v);
    return ERR_OK;
}

err read_f64(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_num(v)) return at_wrong(in, at, "a number", v);
    *(double *)into = yyjson_get_num(v);
    return ERR_OK;
}

err read_value(In *in, const At *at, yyjson_val *v, void *into) {
    (void)in, (void)at;
    *(yyjson_val **)into = v;
    return ERR_OK;
}

err read_object(In *in, const At *at, yyjson_val *v, void *into) {
    if (!yyjson_is_obj(v)) return at_wrong(in, at, "an object", v);
    *(yyjson_val **)into = v;
    return ERR_OK;
}

err read_nothing(In *in, const At *at, yyjson_val *v, void *into) {
    (void)in, (void)at, (void)v, (void)into;
    return ERR_OK;
}

err read_stop(In *in, const At *at, yyjson_val *v, void *into) {
    Talk *t = in->t;
    size_t i, n;
    yyjson_val *one;
    (void)into;
    bool list = yyjson_is_arr(v);
    if (!list && !yyjson_is_str(v)) return at_wrong(in, at, "text or a list of texts", v);
    t->stop = new (in->c->mem, str, list ? yyjson_arr_size(v) + 1 : 1);
    if (!list) t->stop[t->stop_n++] = json_str(v);
    yyjson_arr_foreach(v, i, n, one) {
        At here = { at, NULL, i };
        TRY(read_text(in, &here, one, &t->stop[t->stop_n++]));
    }
    if (t->stop_n) SAID(in, STOP, at);
    return ERR_OK;
}

// ---- scalars: of a Talk, each at one member of a dialect
typedef enum { BOOL_, INT_, REAL_, TEXT_, OBJECT_ } ScalarKind;
typedef struct Scalar {
    TalkField field;
    ScalarKind kind;
    size_t offset;
    int64_t least, most; // INT
    double neutral;      // says nothing that is not so anyway; NaN: none
} Scalar;
#define SCALAR(FIELD, kind, member, least, most, neutral) \
    { TALK_##FIELD, kind, offsetof(Talk, member), least, most, neutral }
// clang-format off
static const Scalar scalars[] = {
    SCALAR(MODEL,        TEXT_,   model,        0, 0, NAN),
    SCALAR(STREAM,       BOOL_,   stream,       0, 0, 0),
    SCALAR(OUTPUT_MAX,   INT_,    output_max,   1, INT64_MAX, NAN),
    SCALAR(TEMPERATURE,  REAL_,   temperature,  0, 0, NAN),
    SCALAR(TOP_P,        REAL_,   top_p,        0, 0, 1),
    SCALAR(TOP_K,        INT_,    top_k,        INT64_MIN + 1, INT64_MAX, NAN),
    SCALAR(MIN_P,        REAL_,   min_p,        0, 0, 0),
    SCALAR(SEED,         INT_,    seed,         INT64_MIN + 1, INT64_MAX, NAN),
    SCALAR(CHOICES,      INT_,    choices,      1, DIALECT_CHOICES_MAX, 1),
    SCALAR(LOGPROBS,     BOOL_,   logprobs,     0, 0, 0),
    SCALAR(TOP_LOGPROBS, INT_,    top_logprobs, 0, INT64_MAX, 0),
    SCALAR(PRESENCE,     REAL_,   presence,     0, 0, 0),
    SCALAR(FREQUENCY,    REAL_,   frequency,    0, 0, 0),
    SCALAR(LOGIT_BIAS,   OBJECT_, logit_bias,   0, 0, NAN),
    SCALAR(USER,         TEXT_,   user,         0, 0, NAN),
    SCALAR(METADATA,     OBJECT_, metadata,     0, 0, NAN),
    SCALAR(VERBOSITY,    TEXT_,   verbosity,    0, 0, NAN),
    SCALAR(PREVIOUS,     TEXT_,   previous,     0, 0, NAN),
    SCALAR(STORE,        BOOL_,   store,        0, 0, 0),
};
// clang-format on

// What a place has after the prefix, or NULL when it is elsewhere or lies deeper.
static const char *place_name(const Dialect *d, const Scalar *s, const char *prefix) {
    const DialectPlace *p = &d->place[s->field];
    size_t n = strlen(prefix);
    if (p->kind != PLACE_SAME || strncmp(p->member, prefix, n) != 0) return NULL;
    return p->member[n + strcspn(p->member + n, ".[")] ? NULL : p->member + n;
}

static const Scalar *scalar_find(const Dialect *d, const char *prefix, str name) {
    for (size_t i = 0; i < countof(scalars); i++) {
        const char *place = place_name(d, &scalars[i], prefix);
        if (place && str_is(name, place)) return &scalars[i];
    }
    return NULL;
}

static err read_scalar(In *in, const At *at, yyjson_val *v, const Scalar *s) {
    static ReadMember *const read[] = { [BOOL_] = read_bool,
                                        [INT_] = read_i64,
                                        [REAL_] = read_f64,
                                        [TEXT_] = read_text,
                                        [OBJECT_] = read_object };
    void *into = (char *)in->t + s->offset;
    TRY(read[s->kind](in, at, v, into));
    if (s->kind == INT_) {
        int64_t n = *(int64_t *)into;
        if (n < s->least || n > s->most)
            return fail(in->c, ERR_INVALID, R_FIELD_RANGE, "field", at_text(in->c, at), "min",
                        say(in->c, "%lld", (long long)s->least), "max",
                        say(in->c, "%lld", (long long)s->most), "got",
                        say(in->c, "%lld", (long long)n));
    }
    bool neutral = (s->kind == BOOL_ && *(int *)into == s->neutral)
                   || (yyjson_is_num(v) && yyjson_get_num(v) == s->neutral)
                   || (s->kind == OBJECT_ && !yyjson_obj_size(v));
    if (!neutral) said(in, s->field, at);
    return ERR_OK;
}

// ---- members
static const Member *member_find(const Member *rows, str name) {
    for (; rows && rows->name; rows++)
        if (str_is(name, rows->name)) return rows;
    return NULL;
}

static bool is_moot(const Dialect *d, str name) {
    for (const char *const *m = d->moot; m && *m; m++)
        if (str_is(name, *m)) return true;
    return false;
}

err read_scalars(In *in, const At *at, yyjson_val *obj, const char *prefix, const Member *rows) {
    size_t i, n;
    yyjson_val *key, *v;
    if (!yyjson_is_obj(obj)) return at_wrong(in, at, "an object", obj);
    yyjson_obj_foreach(obj, i, n, key, v) {
        str name = json_str(key);
        At here = { at, yyjson_get_str(key), 0 };
        if (yyjson_is_null(v)) continue;
        const Member *row = member_find(rows, name);
        const Scalar *s = row ? NULL : scalar_find(in->d, prefix, name);
        if (row && row->read) TRY(row->read(in, &here, v, (char *)in->t + row->offset));
        else if (s) TRY(read_scalar(in, &here, v, s));
        else if (!row && (at || !is_moot(in->d, name))) return at_unknown(in, &here);
    }
    return ERR_OK;
}

err read_members(In *in, const At *at, yyjson_val *obj, const Member *rows, void *into) {
    size_t i, n;
    yyjson_val *key, *v;
    if (!yyjson_is_obj(obj)) return at_wrong(in, at, "an object", obj);
    yyjson_obj_foreach(obj, i, n, key, v) {
        At here = { at, yyjson_get_str(key), 0 };
        if (yyjson_is_null(v)) continue;
        const Member *row = member_find(rows, json_str(key));
        if (!row) return at_unknown(in, &here);
        if (row->read) TRY(row->read(in, &here, v, (char *)into + row->offset));
    }
    return ERR_OK;
}

// ---- messages
TalkMessage *add_message(In *in, TalkRole role, const At *at, size_t parts_max) {
    Talk *t = in->t;
    if (t->messages_n == in->room) {
        size_t room = in->room ? 2 * in->room : 8;
        TalkMessage *more = new (in->c->mem, TalkMessage, room);
        if (t->messages_n) memcpy(more, t->messages, t->messages_n * sizeof *more);
        t->messages = more, in->room = room;
    }
    if (role != ROLE_SYSTEM && ++in->turns == 2) SAID(in, TURNS, at);
    TalkMessage *m = &t->messages[t->messages_n++];
    *m = (TalkMessage){ .role = role,
                        .parts = parts_max ? new (in->c->mem, TalkPart, parts_max) : NULL };
    return m;
}

TalkPart *add_part(TalkMessage *m, PartKind kind) {
    TalkPart *p = &m->parts[m->parts_n++];
    p->kind = kind;
    return p;
}

bool data_url(str url, str *out_media_type, str *out_data) {
    str rest = url, head;
    if (!str_starts(url, S("data:")) || !str_cut(&rest, ',', &head) || !rest.p) return false;
    if (!str_ends(head, S(";base64"))) return false;
    str media = str_sub(head, 5, head.n - 5 - 7), first;
    *out_media_type = str_cut(&media, ';', &first) && first.n ? first : (str){ 0 };
    *out_data = rest;
    return true;
}

// How deep a text nests, if it is JSON.
static int depth_of(str json) {
    int depth = 0, most = 0;
    bool quoted = false;
    for (size_t i = 0; i < json.n; i++) {
        char ch = json.p[i];
        if (quoted && ch == '\\') i++;
        else if (ch == '"') quoted = !quoted;
        else if (!quoted && (ch == '{' || ch == '[') && ++depth > most) most = depth;
        else if (!quoted && (ch == '}' || ch == ']')) depth--;
    }
    return most;
}

// One that stands in a document of ours without making it too deep, or two-faced.
static bool is_object(str json) {
    Ctx c;
    yyjson_val *v;
    if (depth_of(json) > JSON_DEPTH_MAX / 2) return false;
    ctx_init(&c, arena_new(), NULL);
    bool is = !json_parse(&c, json, &v) && yyjson_is_obj(v);
    arena_free(c.mem);
    return is;
}

void put_object(str json, Json *j) {
    if (!str_trim(json).n) json_put_raw(j, S("{}"));
    else if (is_object(json)) json_put_raw(j, json);
    else json_obj(j), json_kv_str(j, "INVALID_JSON", json), json_end_obj(j);
}

// ---- how long to reason: a budget of tokens as a share of the output, and back (docs/dialects.md)
static const struct {
    const char *effort;
    int percent;
} shares[] = {
    { "minimal", 10 }, { "low", 20 }, { "medium", 50 }, { "high", 80 }, { "xhigh", 95 }
};

int64_t budget_of_effort(str effort, int64_t output_max) {
    int percent = str_is(effort, "max") ? 95 : 50;
    for (size_t i = 0; i < countof(shares); i++)
        if (str_is(effort, shares[i].effort)) percent = shares[i].percent;
    return output_max / 100 * percent + output_max % 100 * percent / 100;
}

str effort_of_budget(int64_t tokens, int64_t output_max) {
    if (output_max <= 0) return tokens < 2048 ? S("low") : tokens < 8192 ? S("medium") : S("high");
    double percent = (double)tokens / (double)output_max * 100;
    size_t best = 1;
    for (size_t i = 1; i < 4; i++) // what every server knows: low, medium, high
        if (fabs(shares[i].percent - percent) < fabs(shares[best].percent - percent)) best = i;
    return str_z(shares[best].effort);
}

str talk_effort(const Talk *t) {
    if (t->reasoning.on == 0) return S("none");
    if (t->reasoning.effort.p) return t->reasoning.effort;
    if (t->reasoning.tokens == UNSET_INT) return S("medium");
    return effort_of_budget(t->reasoning.tokens, t->output_max == UNSET_INT ? 0 : t->output_max);
}

// ---- written
void write_scalars(const To *to, const char *prefix, uint64_t but) {
    const Talk *t = to->t;
    Json *j = to->j;
    for (size_t i = 0; i < countof(scalars); i++) {
        const Scalar *s = &scalars[i];
        const char *name = place_name(to->d, s, prefix);
        const void *at = (const char *)t + s->offset;
        if (!name || but >> s->field & 1) continue;
        switch (s->kind) {
        case BOOL_:
            if (*(const int *)at >= 0) json_kv_bool(j, name, *(const int *)at);
            break;
        case INT_:
            if (*(const int64_t *)at != UNSET_INT) json_kv_i64(j, name, *(const int64_t *)at);
            break;
        case REAL_:
            if (!isnan(*(const double *)at)) json_kv_f64(j, name, *(const double *)at);
            break;
        case TEXT_:
            if (((const str *)at)->p) json_kv_str(j, name, *(const str *)at);
            break;
        case OBJECT_:
            if (*(yyjson_val *const *)at)
                json_key(j, name), json_put_val(j, *(yyjson_val *const *)at);
        }
    }
}

void write_texts(Json *j, const str *texts, size_t n) {
    json_arr(j);
    for (size_t i = 0; i < n; i++) json_put_str(j, texts[i]);
    json_end_arr(j);
}

str parts_text(Ctx *c, const TalkPart *parts, size_t n) {
    str *texts = new (c->mem, str, n + 1);
    size_t texts_n = 0;
    for (size_t i = 0; i < n; i++)
        if (parts[i].kind == PART_TEXT) texts[texts_n++] = parts[i].text;
    return texts_n == 1 ? texts[0] : arena_join(c->mem, texts, texts_n, S("\n"));
}

str result_text(Ctx *c, const TalkPart *result) {
    str text = parts_text(c, result->parts, result->parts_n);
    if (!result->is_error || str_starts(text, S("Error"))) return text;
    return arena_join(c->mem, (str[]){ S("Error: "), text }, 2, S(""));
}

str call_name(const Talk *t, size_t before, str id) {
    enum { BACK = 256 }; // results follow their calls
    for (size_t i = before; i-- > 0 && before - i <= BACK;) {
        const TalkMessage *m = &t->messages[i];
        if (m->role == ROLE_TOOL) continue;
        for (size_t k = m->parts_n; k-- > 0;)
            if (m->parts[k].kind == PART_CALL && str_eq(m->parts[k].id, id))
                return m->parts[k].name;
        if (m->role == ROLE_ASSISTANT) break;
    }
    return (str){ 0 };
}
