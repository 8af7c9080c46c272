// SPDX-License-Identifier: Apache-2.0
// manner.c - how an attached server is spoken to: by what dialect it speaks, where its paths are
// and what is asked of it to see whether it is there; in which header it wants its key; what its
// kind says otherwise than the dialect's maker. The makers' references are in docs/dialects.md.
// Owner: texts go into the arena given. Threads: any.
#include "mod/deployment/deployment_own.h"
#include "res/resource.h"

// ---- rows
typedef enum { DIALECT_CHAT, DIALECT_RESPONSES, DIALECT_ANTHROPIC, DIALECT_OLLAMA } DialectKind;
typedef enum { AUTH_BEARER, AUTH_X_API_KEY, AUTH_API_KEY } AuthKind;
const char *const dialect_names[] = { "openai.chat", "openai.responses", "anthropic", "ollama.chat",
                                      NULL };
const char *const auth_names[] = { "bearer", "x-api-key", "api-key", NULL };
const char *const accent_names[] = { "plain",     "thinking.type", "enable_thinking",
                                     "reasoning", "adaptive",      NULL };

static const struct Kind {
    const char *base;   // what its paths begin with
    bool below;         // an address without it is what its clients take: it goes behind
    const char *health; // its models
    bool may_lack;      // many speak the dialect and have no list of models
    AuthKind auth;
} kinds[] = {
    [DIALECT_CHAT] = { "/v1", false, "/models", false, AUTH_BEARER },
    [DIALECT_RESPONSES] = { "/v1", false, "/models", false, AUTH_BEARER },
    [DIALECT_ANTHROPIC] = { "/v1", true, "/models", true, AUTH_X_API_KEY },
    [DIALECT_OLLAMA] = { "/api", true, "/tags", false, AUTH_BEARER },
};

static const struct {
    ThinkStyle think;
    int dialect; // alone; -1: any
} accents[] = { { THINK_PLAIN, -1 },
                { THINK_TYPE, DIALECT_CHAT },
                { THINK_ENABLE, DIALECT_CHAT },
                { THINK_OBJECT, DIALECT_CHAT },
                { THINK_ADAPTIVE, DIALECT_ANTHROPIC } };

static DialectKind kind_of(const Manner *m) {
    return m->dialect < 0 || m->dialect >= (int)countof(kinds) ? DIALECT_CHAT
                                                               : (DialectKind)m->dialect;
}

static size_t accent_of(const Manner *m) {
    return m->accent < 0 || m->accent >= (int)countof(accents) ? 0 : (size_t)m->accent;
}

// ---- what may be wished
static err unfit(Ctx *c, const Manner *m, const char *field, const char *value) {
    return fail(c, ERR_INVALID, R_MANNER_UNFIT, "field", field, "value", value, "dialect",
                dialect_names[kind_of(m)]);
}

static bool is_version(str text) {
    for (size_t i = 0; i < text.n; i++) {
        char ch = text.p[i];
        bool fine = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
                    || ch == '-' || ch == '.' || ch == '_';
        if (!fine) return false;
    }
    return true;
}

err manner_check(Ctx *c, const Manner *m, int task) {
    DialectKind kind = kind_of(m);
    size_t accent = accent_of(m);
    bool openai = kind == DIALECT_CHAT || kind == DIALECT_RESPONSES;
    if (task > TASK_CHAT && kind != DIALECT_CHAT) return unfit(c, m, "task", task_names[task]);
    if (accents[accent].dialect >= 0 && accents[accent].dialect != (int)kind)
        return unfit(c, m, "endpoint.accent", accent_names[accent]);
    if (m->past_reasoning && kind != DIALECT_CHAT)
        return unfit(c, m, "endpoint.past_reasoning", "true");
    if (m->api_version.n && !openai)
        return unfit(c, m, "endpoint.api_version", say_str(c, m->api_version));
    if (is_version(m->api_version)) return ERR_OK;
    return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "endpoint.api_version", "want",
                "letters, digits, '.', '_' and '-'", "got", say_str(c, m->api_version));
}

// ---- what follows from it
const Dialect *manner_dialect(const Manner *m) {
    return dialect_find(str_z(dialect_names[kind_of(m)]));
}

Accent manner_accent(const Manner *m) {
    return (Accent){ .output_default = m->output_default > 0 ? m->output_default : 0,
                     .think = accents[accent_of(m)].think,
                     .past_reasoning = m->past_reasoning };
}

str manner_base(Arena *mem, const Manner *m, str path) {
    const struct Kind *k = &kinds[kind_of(m)];
    bool there = k->below ? str_ends(path, str_z(k->base)) : path.n > 0;
    return there ? path : arena_join(mem, (str[]){ path, str_z(k->base) }, 2, S(""));
}

// Azure's list of models is beside its deployments, not below each.
str manner_health(Arena *mem, const Manner *m, str base) {
    ptrdiff_t at = m->api_version.n ? str_find(base, S("/deployments/")) : -1;
    if (at >= 0) base = str_sub(base, 0, (size_t)at);
    str parts[] = { base, str_z(kinds[kind_of(m)].health), manner_query(mem, m) };
    return arena_join(mem, parts, countof(parts), S(""));
}

bool manner_may_lack_health(const Manner *m) { return kinds[kind_of(m)].may_lack; }

str manner_query(Arena *mem, const Manner *m) {
    if (!m->api_version.n) return (str){ 0 };
    return arena_join(mem, (str[]){ S("?api-version="), m->api_version }, 2, S(""));
}

size_t manner_headers(Arena *mem, const Manner *m, str key, HttpHeader out[ENDPOINT_HEADERS]) {
    AuthKind auth = m->auth < 0 ? kinds[kind_of(m)].auth : (AuthKind)m->auth;
    size_t n = 0;
    if (key.n && auth == AUTH_BEARER)
        out[n++] = (HttpHeader){ S("Authorization"),
                                 arena_join(mem, (str[]){ S("Bearer "), key }, 2, S("")) };
    else if (key.n) out[n++] = (HttpHeader){ str_z(auth_names[auth]), arena_str(mem, key) };
    if (kind_of(m) == DIALECT_ANTHROPIC)
        out[n++] = (HttpHeader){ S("anthropic-version"), S("2023-06-01") };
    return n;
}
