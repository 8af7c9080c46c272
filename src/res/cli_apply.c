// SPDX-License-Identifier: Apache-2.0
// cli_apply.c - declarative YAML: `lathe apply -f FILE [--prune]` makes it so, `lathe diff -f FILE`
// says what that would change. A document is kind: deployment name: chat model: smol with the
// fields of the kind. The server decides what differs (a dry run), so names of references and
// defaults compare as they should.
#include "res/cli.h"
#include "res/table.h"
#include <limits.h>
#include <stdio.h>
#include <yaml.h>

enum { FILE_MAX = 8 << 20, DOCS_MAX = 1000 };

// ---- YAML to JSON (libyaml's events; YAML 1.1 scalars as the core schema of 1.2 reads them)
typedef struct Reader {
    Ctx *c;
    yaml_parser_t parser;
    Json j;
    size_t aliases;
} Reader;

static void put_scalar(Json *j, const yaml_event_t *e) {
    str s = str_n(e->data.scalar.value, e->data.scalar.length);
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    int64_t n;
    double f;
    if (!plain) json_put_str(j, s);
    else if (!s.n || str_is(s, "null") || str_is(s, "~")) json_put_null(j);
    else if (str_is(s, "true") || str_is(s, "false")) json_put_bool(j, str_is(s, "true"));
    else if (str_to_i64(s, &n)) json_put_i64(j, n);
    else if (str_to_f64(s, &f)) json_put_f64(j, f);
    else json_put_str(j, s);
}

static err bad_yaml(Reader *r, const char *why) {
    return fail(r->c, ERR_INVALID, R_CLI_YAML, "line", say(r->c, "%zu", r->parser.mark.line + 1),
                "why", why);
}

static err next(Reader *r, yaml_event_t *e) {
    if (yaml_parser_parse(&r->parser, e)) return ERR_OK;
    return bad_yaml(r, r->parser.problem ? r->parser.problem : "it cannot be read");
}

static err read_node(Reader *r, const yaml_event_t *e, int depth);

static err read_list(Reader *r, int depth) {
    json_arr(&r->j);
    for (;;) {
        yaml_event_t e;
        TRY(next(r, &e));
        bool end = e.type == YAML_SEQUENCE_END_EVENT;
        err failed = end ? ERR_OK : read_node(r, &e, depth + 1);
        yaml_event_delete(&e);
        if (failed) return failed;
        if (end) break;
    }
    json_end_arr(&r->j);
    return ERR_OK;
}

static err read_map(Reader *r, int depth) {
    json_obj(&r->j);
    for (;;) {
        yaml_event_t key, value;
        TRY(next(r, &key));
        bool end = key.type == YAML_MAPPING_END_EVENT, scalar = key.type == YAML_SCALAR_EVENT;
        if (scalar) json_key_str(&r->j, str_n(key.data.scalar.value, key.data.scalar.length));
        yaml_event_delete(&key);
        if (end) break;
        if (!scalar) return bad_yaml(r, "a key must be text");
        TRY(next(r, &value));
        err failed = read_node(r, &value, depth + 1);
        yaml_event_delete(&value);
        if (failed) return failed;
    }
    json_end_obj(&r->j);
    return ERR_OK;
}

static err read_node(Reader *r, const yaml_event_t *e, int depth) {
    if (depth > 32) return bad_yaml(r, "it is nested too deeply");
    switch (e->type) {
    case YAML_SCALAR_EVENT: put_scalar(&r->j, e); return ERR_OK;
    case YAML_SEQUENCE_START_EVENT: return read_list(r, depth);
    case YAML_MAPPING_START_EVENT: return read_map(r, depth);
    case YAML_ALIAS_EVENT: return bad_yaml(r, "aliases are not supported");
    default: return bad_yaml(r, "a value is missing");
    }
}

static err read_docs(Reader *r, Buf *out, str *docs, size_t *n) {
    for (*n = 0;;) {
        yaml_event_t e;
        TRY(next(r, &e));
        yaml_event_type_t type = e.type;
        err failed = ERR_OK;
        bool node = type == YAML_MAPPING_START_EVENT || type == YAML_SCALAR_EVENT
                    || type == YAML_SEQUENCE_START_EVENT;
        if (node && *n == DOCS_MAX) failed = bad_yaml(r, "there are more than 1000 documents");
        else if (node) {
            buf_clear(out), r->j = json_to(out);
            failed = read_node(r, &e, 0);
            if (!failed && !str_is(buf_str(out), "null"))
                docs[(*n)++] = arena_str(r->c->mem, buf_str(out));
        }
        yaml_event_delete(&e);
        if (failed) return failed;
        if (type == YAML_STREAM_END_EVENT) return ERR_OK;
    }
}

// What is JSON is taken as it is: libyaml, which reads YAML 1.1, breaks texts at characters that
// JSON has no other meaning for (U+0085, U+2028) and refuses others.
static yyjson_val *as_json(Ctx *c, str text) {
    yyjson_val *root;
    Ctx quiet;
    ctx_init(&quiet, c->mem, c->os);
    return json_parse(&quiet, text, &root) ? NULL : root;
}

err cli_yaml(Ctx *c, str text, str **out_docs, size_t *out_n) {
    Reader r = { .c = c };
    Buf b;
    *out_docs = new (c->mem, str, DOCS_MAX + 1);
    yyjson_val *json = as_json(c, text);
    if (json) {
        (*out_docs)[0] = text, *out_n = !yyjson_is_null(json);
        return ERR_OK;
    }
    if (!yaml_parser_initialize(&r.parser))
        return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "libyaml does not start");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
    buf_init(&b, FILE_MAX);
    err e = read_docs(&r, &b, *out_docs, out_n);
    buf_done(&b);
    yaml_parser_delete(&r.parser);
    return e;
}

// ---- apply
typedef struct Applied {
    const Resource *r;
    str name;
    bool made; // it was not there before
} Applied;

static str without_kind(Cli *cli, yyjson_val *doc) {
    Buf b;
    buf_init(&b, FILE_MAX);
    Json j = json_to(&b);
    size_t i, n;
    yyjson_val *key, *v;
    json_obj(&j);
    yyjson_obj_foreach(doc, i, n, key, v) {
        if (str_is(json_str(key), "kind")) continue;
        json_key_str(&j, json_str(key)), json_put_val(&j, v);
    }
    json_end_obj(&j);
    str s = arena_str(cli->c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

static void print_change(const char *mark, const Resource *r, str name, yyjson_val *change) {
    size_t i, n;
    yyjson_val *key, *sides;
    printf("%s %s " STR_FMT "\n", mark, r->name, STR_ARG(name));
    yyjson_obj_foreach(change, i, n, key, sides) {
        bool made = yyjson_is_null(yyjson_arr_get(sides, 0));
        if (made && yyjson_is_null(yyjson_arr_get(sides, 1))) continue; // absent stays absent
        char *old = yyjson_val_write(yyjson_arr_get(sides, 0), 0, NULL),
             *now = yyjson_val_write(yyjson_arr_get(sides, 1), 0, NULL);
        printf("    %s: %s%s%s\n", yyjson_get_str(key), made ? "" : old, made ? "" : " -> ", now);
        mem_free(old), mem_free(now);
    }
}

static const char *nearest_kind(str kind) {
    const char *best = "";
    unsigned least = UINT_MAX;
    for (size_t i = 0; i < tables_count(); i++) {
        unsigned d = cli_distance(kind, str_z(table_at(i)->r->name));
        if (d < least) least = d, best = table_at(i)->r->name;
    }
    return best;
}

static err read_doc(Cli *cli, yyjson_val *doc, Applied *out) {
    Ctx *c = cli->c;
    str kind = json_get_str(doc, "kind"), name = json_get_str(doc, "name");
    if (!yyjson_is_obj(doc)) return fail(c, ERR_INVALID, R_CLI_DOCUMENT);
    if (!kind.n) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "kind");
    const Resource *r = cli_resource_of(cli, kind);
    if (!r)
        return fail(c, ERR_INVALID, R_CLI_KIND, "word", say_str(c, kind), "nearest",
                    nearest_kind(kind));
    if (!name.n) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "name");
    *out = (Applied){ r, name, false };
    return ERR_OK;
}

// What an earlier document will have made is not there yet: says so instead of failing.
static bool not_yet(Cli *cli, const Applied *all, const Applied *out) {
    bool made = false;
    for (const Applied *a = all; a != out; a++) made |= a->made;
    if (!made) return false;
    Buf b;
    buf_init(&b, 16384);
    failure_format(&cli->c->failure, cli->c->lang, &b);
    printf("+ %s " STR_FMT "\n    (cannot be checked before the above is there: %s)\n",
           out->r->name, STR_ARG(out->name), buf_z(&b));
    buf_done(&b);
    cli->c->request_id = (str){ 0 };
    return true;
}

static err apply_one(Cli *cli, str text, bool diff, const Applied *all, Applied *out) {
    Ctx *c = cli->c;
    yyjson_val *doc;
    CliAnswer a;
    TRY(json_parse(c, text, &doc));
    TRY(read_doc(cli, doc, out));
    const Resource *r = out->r;
    str name = out->name;
    cli->where = say(c, "%s, %s " STR_FMT, cli->where, r->name, STR_ARG(name));
    str body = without_kind(cli, doc), base = arena_printf(c->mem, "/lathe/v1/%s", r->plural);
    str one =
        arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(base), STR_ARG(cli_escape(cli, name)));
    err e = cli_call(cli, HTTP_GET, one, (str){ 0 }, &a);
    if (e && e != ERR_NOTFOUND) return e;
    HttpMethod m = e ? HTTP_POST : HTTP_PATCH;
    str dry = arena_printf(c->mem, STR_FMT "?dry_run=true", STR_ARG(e ? base : one));
    out->made = m == HTTP_POST;
    e = cli_call(cli, m, dry, body, &a);
    if (e && (diff || cli->dry_run) && out->made && not_yet(cli, all, out)) return ERR_OK;
    if (e) return e;
    yyjson_val *change = json_get(a.json, "change");
    bool same = m == HTTP_PATCH && !yyjson_obj_size(change);
    if (same) {
        printf("= %s " STR_FMT "\n", r->name, STR_ARG(name));
        return ERR_OK;
    }
    print_change(m == HTTP_POST ? "+" : "~", r, name, change);
    if (diff || cli->dry_run) return ERR_OK;
    TRY(cli_call(cli, m, m == HTTP_POST ? base : one, body, &a));
    return cli->wait && r->flags & RES_RECONCILED ? cli_wait_resource(cli, r, name) : ERR_OK;
}

static bool listed(const Applied *all, size_t n, const Resource *r, str name) {
    for (size_t i = 0; i < n; i++)
        if (all[i].r == r && str_eq(all[i].name, name)) return true;
    return false;
}

// Of the kinds that the file speaks of, what it does not name.
static err prune_kind(Cli *cli, const Applied *all, size_t n, const Resource *r, bool diff) {
    Ctx *c = cli->c;
    CliAnswer a, gone;
    size_t i, max;
    yyjson_val *row;
    TRY(cli_call(cli, HTTP_GET, arena_printf(c->mem, "/lathe/v1/%s?limit=1000", r->plural),
                 (str){ 0 }, &a));
    yyjson_arr_foreach(json_get(a.json, "data"), i, max, row) {
        str name = json_get_str(row, "name");
        if (!name.n || listed(all, n, r, name)) continue;
        printf("- %s " STR_FMT "\n", r->name, STR_ARG(name));
        if (diff || cli->dry_run) continue;
        TRY(cli_call(cli, HTTP_DELETE,
                     arena_printf(c->mem, "/lathe/v1/%s/" STR_FMT, r->plural,
                                  STR_ARG(cli_escape(cli, name))),
                     (str){ 0 }, &gone));
    }
    return ERR_OK;
}

// The kinds in the file's order turned round: what is named later may refer to what is before it.
static err prune_kinds(Cli *cli, const Applied *all, size_t n, bool diff) {
    for (size_t i = n; i-- > 0;) {
        bool first = true;
        for (size_t k = 0; k < i; k++) first &= all[k].r != all[i].r;
        if (first) TRY(prune_kind(cli, all, n, all[i].r, diff));
    }
    return ERR_OK;
}

static err apply(Cli *cli, bool diff) {
    Ctx *c = cli->c;
    str file, text, *docs;
    bool prune = cli_flag(cli, "prune");
    size_t n;
    TRY(cli_value(cli, "f", &file));
    if (!file.p) return fail(c, ERR_INVALID, R_CLI_MISSING, "what", "-f FILE");
    TRY(cli_done(cli));
    TRY(cli_read(cli, file, FILE_MAX, &text));
    cli->where = say_str(c, file);
    TRY(cli_yaml(c, text, &docs, &n));
    Applied *all = new (c->mem, Applied, n + 1);
    for (size_t i = 0; i < n; i++) {
        cli->where = say(c, STR_FMT ", document %zu", STR_ARG(file), i + 1);
        TRY(apply_one(cli, docs[i], diff, all, &all[i]));
    }
    cli->where = NULL;
    return prune ? prune_kinds(cli, all, n, diff) : ERR_OK;
}

int cli_apply(Cli *cli, bool diff) {
    err e = apply(cli, diff);
    return e ? cli_fail(cli, e) : 0;
}
