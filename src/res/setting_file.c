// SPDX-License-Identifier: Apache-2.0
// setting_file.c - YAML 1.1 (libyaml's events) as flat names: `serve: {listen: x}` and
// `serve.listen: x` are the same. What the names mean is setting.c's.
// Threads: any; a file is read by its caller.
#include "os/file.h"
#include "res/setting_impl.h"
#include <assert.h>
#include <yaml.h>

typedef struct Reader {
    Ctx *c;
    str path;
    yaml_parser_t parser;
    err (*each)(Ctx *c, const SettingLine *line, void *arg);
    void *arg;
} Reader;

typedef struct Token {
    yaml_event_type_t type;
    str text;   // of a scalar
    bool plain; // without quotes
    int line;
} Token;

err setting_file_fail(Ctx *c, str path, int line, const char *why) {
    return fail(c, ERR_INVALID, R_SETTING_FILE, "path", say_str(c, path), "line",
                say(c, "%d", line), "why", why);
}

static err refuse(const Reader *r, const Token *t, const char *why) {
    return setting_file_fail(r->c, r->path, t->line, why);
}

static err next(Reader *r, Token *out) {
    yaml_event_t ev;
    if (!yaml_parser_parse(&r->parser, &ev)) {
        const char *why = r->parser.problem ? r->parser.problem : "not YAML";
        return setting_file_fail(r->c, r->path, (int)r->parser.problem_mark.line + 1, why);
    }
    *out = (Token){ .type = ev.type, .line = (int)ev.start_mark.line + 1 };
    if (ev.type == YAML_SCALAR_EVENT) {
        out->text = arena_str(r->c->mem, str_n(ev.data.scalar.value, ev.data.scalar.length));
        out->plain = ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    }
    yaml_event_delete(&ev);
    return ERR_OK;
}

static bool is_null(const Token *t) {
    return t->plain && (!t->text.n || str_is(t->text, "~") || str_is(t->text, "null"));
}

static err read_group(Reader *r, str prefix, int depth);

static err read_value(Reader *r, str name, int line, int depth) {
    Token t;
    TRY(next(r, &t));
    SettingLine out = { .name = name, .value = t.text, .line = line };
    switch (t.type) {
    case YAML_SCALAR_EVENT:
        out.kind = is_null(&t) ? SETTING_LINE_NULL : SETTING_LINE_VALUE;
        return r->each(r->c, &out, r->arg);
    case YAML_MAPPING_START_EVENT:
        if (depth == SETTING_DEPTH_MAX) return refuse(r, &t, "nested too deep");
        out.kind = SETTING_LINE_GROUP;
        TRY(r->each(r->c, &out, r->arg));
        return read_group(r, name, depth + 1);
    case YAML_SEQUENCE_START_EVENT: return refuse(r, &t, "a setting is not a list");
    default: return refuse(r, &t, "a value is wanted here, not an alias");
    }
}

// After its start, up to its end.
static err read_group(Reader *r, str prefix, int depth) {
    assert(depth <= SETTING_DEPTH_MAX);
    for (;;) {
        Token key;
        TRY(next(r, &key));
        if (key.type == YAML_MAPPING_END_EVENT) return ERR_OK;
        if (key.type != YAML_SCALAR_EVENT || !key.text.n || key.text.n > 200
            || memchr(key.text.p, 0, key.text.n))
            return refuse(r, &key, "the name of a setting is wanted here");
        str name = key.text;
        if (prefix.n)
            name = arena_printf(r->c->mem, STR_FMT "." STR_FMT, STR_ARG(prefix), STR_ARG(name));
        TRY(read_value(r, name, key.line, depth));
    }
}

static err read_document(Reader *r) {
    Token t;
    TRY(next(r, &t)); // the stream's start
    TRY(next(r, &t));
    if (t.type == YAML_STREAM_END_EVENT) return ERR_OK;
    TRY(next(r, &t));
    if (t.type == YAML_MAPPING_START_EVENT) TRY(read_group(r, S(""), 1));
    else if (t.type != YAML_SCALAR_EVENT || !is_null(&t))
        return refuse(r, &t, "the file is not a map of settings");
    TRY(next(r, &t)); // the document's end
    TRY(next(r, &t));
    return t.type == YAML_STREAM_END_EVENT ? ERR_OK
                                           : refuse(r, &t, "a second document is not read");
}

err setting_file_read(Ctx *c, str path, err (*each)(Ctx *c, const SettingLine *line, void *arg),
                      void *arg) {
    str text;
    TRY(file_read_all(c, path, SETTING_FILE_MAX, &text));
    Reader r = { .c = c, .path = path, .each = each, .arg = arg };
    if (!yaml_parser_initialize(&r.parser)) return setting_file_fail(c, path, 1, "no memory");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
    err e = read_document(&r);
    yaml_parser_delete(&r.parser);
    return e;
}
