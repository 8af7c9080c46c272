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

typedef struct Apply {
    Cli *cli;
    bool diff; // nothing is changed: `lathe diff`, or a dry run
    Applied *all;
    size_t n; // of which so many are done
    Buf out;  // what is told in JSON or YAML, at the end
    Json j;
} Apply;

// ---- telling
typedef enum { DONE_SAME, DONE_MADE, DONE_CHANGED, DONE_GONE } Done;

static void print_change(const char *mark, const Applied *of, yyjson_val *change) {
    size_t i, n;
    yyjson_val *key, *sides;
    printf("%s %s " STR_FMT "\n", mark, of->r->name, STR_ARG(of->name));
    yyjson_obj_foreach(change, i, n, key, sides) {
        bool made = yyjson_is_null(yyjson_arr_get(sides, 0));
        if (made && yyjson_is_null(yyjson_arr_get(sides, 1))) continue; // absent stays absent
        char *old = yyjson_val_write(yyjson_arr_get(sides, 0), 0, NULL),
             *now = yyjson_val_write(yyjson_arr_get(sides, 1), 0, NULL);
        printf("    %s: %s%s%s\n", yyjson_get_str(key), made ? "" : old, made ? "" : " -> ", now);
        mem_free(old), mem_free(now);
    }
}

static void print_once(const Cli *cli, const Resource *r, yyjson_val *made) {
    for (const Field *f = r->fields; f && f->name; f++) {
        str secret = f->flags & ONCE ? json_get_str(made, f->name) : (str){ 0 };
        bool zh = !strcmp(cli->c->lang, "zh");
        if (secret.n)
            printf("    %s: " STR_FMT "%s\n", f->name, STR_ARG(secret),
                   zh ? "（仅显示这一次）" : " (shown this once)");
    }
}

static void put_done(Apply *a, Done done, const Applied *of, yyjson_val *change, yyjson_val *now) {
    static const char *const words[] = { "unchanged", "created", "changed", "deleted" };
    json_obj(&a->j);
    json_kv_z(&a->j, "kind", of->r->name), json_kv_str(&a->j, "name", of->name);
    json_kv_z(&a->j, "done", words[done]);
    if (change) json_key(&a->j, "fields"), json_put_val(&a->j, change);
    if (now) json_key(&a->j, "result"), json_put_val(&a->j, now);
    json_end_obj(&a->j);
}

// now: the row as it was made, or would be; NULL: unchanged or gone.
static void tell(Apply *a, Done done, const Applied *of, yyjson_val *change, yyjson_val *now) {
    static const char *const marks[] = { "=", "+", "~", "-" };
    Cli *cli = a->cli;
    if (cli->show == SHOW_JSON || cli->show == SHOW_YAML) put_done(a, done, of, change, now);
    else if (cli->show == SHOW_NAME) printf("%s/" STR_FMT "\n", of->r->name, STR_ARG(of->name));
    else {
        print_change(marks[done], of, change);
        if (!a->diff) print_once(cli, of->r, now);
    }
    cli_asides(cli, of->r, now);
}

// ---- documents
// What is wished of a row that was shown: what the system says of it beside is left out.
static void put_wish(Json *j, const Field *rows, yyjson_val *shown) {
    size_t i, n;
    yyjson_val *key, *v;
    json_obj(j);
    yyjson_obj_foreach(shown, i, n, key, v) {
        const Field *f = field_find(rows, json_str(key));
        if (f && f->flags & (STATUS | HIDDEN | ONCE)) continue;
        json_key_str(j, json_str(key));
        if (f && f->type == T_OBJECT && yyjson_is_obj(v)) put_wish(j, f->of, v);
        else json_put_val(j, v);
    }
    json_end_obj(j);
}

// The body to send: without what is no field. A document with an id is one that was got.
static str body_of(Cli *cli, const Resource *r, yyjson_val *doc) {
    Buf b, wish;
    buf_init(&b, FILE_MAX), buf_init(&wish, FILE_MAX);
    Json j = json_to(&b), w = json_to(&wish);
    size_t i, n;
    yyjson_val *key, *v;
    json_obj(&j);
    yyjson_obj_foreach(doc, i, n, key, v) {
        if (str_is(json_str(key), "kind") || str_is(json_str(key), "warnings")) continue;
        json_key_str(&j, json_str(key)), json_put_val(&j, v);
    }
    json_end_obj(&j);
    str s = arena_str(cli->c->mem, buf_str(&b));
    if (json_get(doc, "id") && !json_parse(cli->c, s, &v)) {
        put_wish(&w, table_of(r)->rows, v);
        s = arena_str(cli->c->mem, buf_str(&wish));
    }
    buf_done(&b), buf_done(&wish);
    return s;
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
static bool not_yet(Apply *a, const Applied *of) {
    Cli *cli = a->cli;
    bool made = false;
    for (size_t i = 0; i < a->n; i++) made |= a->all[i].made;
    if (!made) return false;
    tell(a, DONE_MADE, of, NULL, NULL);
    Buf b;
    buf_init(&b, 16384);
    failure_format(&cli->c->failure, cli->c->lang, &b);
    if (cli->show == SHOW_TABLE)
        printf("    (cannot be checked before the above is there: %s)\n", buf_z(&b));
    buf_done(&b);
    cli->c->request_id = (str){ 0 };
    return true;
}

// First a dry run, which knows what differs; then, unless that was all, the change itself.
static err send_doc(Apply *a, const Applied *of, yyjson_val *doc, str base, str one) {
    Cli *cli = a->cli;
    CliAnswer dry, done;
    HttpMethod m = of->made ? HTTP_POST : HTTP_PATCH;
    str to = of->made ? base : one, body = body_of(cli, of->r, doc);
    err e = cli_call(cli, m, arena_printf(cli->c->mem, STR_FMT "?dry_run=true", STR_ARG(to)), body,
                     &dry);
    if (e && a->diff && of->made && not_yet(a, of)) return ERR_OK;
    if (e) return e;
    yyjson_val *change = json_get(dry.json, "change");
    if (!of->made && !yyjson_obj_size(change)) {
        tell(a, DONE_SAME, of, NULL, NULL);
        return ERR_OK;
    }
    if (!a->diff) TRY(cli_call(cli, m, to, body, &done));
    tell(a, of->made ? DONE_MADE : DONE_CHANGED, of, change,
         a->diff ? json_get(dry.json, "result") : done.json);
    bool wait = cli->wait && !a->diff && of->r->flags & RES_RECONCILED;
    return wait ? cli_wait_resource(cli, of->r, of->name) : ERR_OK;
}

static err apply_one(Apply *a, yyjson_val *doc) {
    Ctx *c = a->cli->c;
    CliAnswer was;
    Applied *of = &a->all[a->n];
    TRY(read_doc(a->cli, doc, of));
    a->cli->where = say(c, "%s, %s " STR_FMT, a->cli->where, of->r->name, STR_ARG(of->name));
    str base = arena_printf(c->mem, "/lathe/v1/%s", of->r->plural);
    str one = arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(base),
                           STR_ARG(cli_escape(a->cli, of->name)));
    err e = cli_call(a->cli, HTTP_GET, one, (str){ 0 }, &was);
    if (e && e != ERR_NOTFOUND) return e;
    of->made = e == ERR_NOTFOUND;
    TRY(send_doc(a, of, doc, base, one));
    a->n++;
    return ERR_OK;
}

static bool listed(const Applied *all, size_t n, const Resource *r, str name) {
    for (size_t i = 0; i < n; i++)
        if (all[i].r == r && str_eq(all[i].name, name)) return true;
    return false;
}

// Of the kinds that the file speaks of, what it does not name.
static err prune_kind(Apply *a, const Resource *r) {
    Ctx *c = a->cli->c;
    CliAnswer answer, gone;
    size_t i, max;
    yyjson_val *row;
    TRY(cli_call(a->cli, HTTP_GET, arena_printf(c->mem, "/lathe/v1/%s?limit=1000", r->plural),
                 (str){ 0 }, &answer));
    yyjson_arr_foreach(json_get(answer.json, "data"), i, max, row) {
        Applied of = { r, json_get_str(row, "name"), false };
        if (!of.name.n || listed(a->all, a->n, r, of.name)) continue;
        if (!a->diff)
            TRY(cli_call(a->cli, HTTP_DELETE,
                         arena_printf(c->mem, "/lathe/v1/%s/" STR_FMT, r->plural,
                                      STR_ARG(cli_escape(a->cli, of.name))),
                         (str){ 0 }, &gone));
        tell(a, DONE_GONE, &of, NULL, NULL);
    }
    return ERR_OK;
}

// The kinds in the file's order turned round: what is named later may refer to what is before it.
static err prune_kinds(Apply *a) {
    for (size_t i = a->n; i-- > 0;) {
        bool first = true;
        for (size_t k = 0; k < i; k++) first &= a->all[k].r != a->all[i].r;
        if (first) TRY(prune_kind(a, a->all[i].r));
    }
    return ERR_OK;
}

// ---- the file
// Its documents; a list of them, or a page as `lathe model list -o yaml` shows it, is as many.
static err gather(Ctx *c, const str *texts, size_t n, yyjson_val **out, size_t *out_n) {
    *out_n = 0;
    for (size_t i = 0; i < n; i++) {
        yyjson_val *doc, *one, *rows;
        size_t k, max;
        TRY(json_parse(c, texts[i], &doc));
        rows = yyjson_is_arr(doc) || json_get(doc, "kind") ? doc : json_get(doc, "data");
        if (!yyjson_is_arr(rows)) {
            if (*out_n < DOCS_MAX) out[*out_n] = doc;
            ++*out_n;
        }
        yyjson_arr_foreach(rows, k, max, one) {
            if (*out_n < DOCS_MAX) out[*out_n] = one;
            ++*out_n;
        }
    }
    if (!*out_n) return fail(c, ERR_INVALID, R_CLI_EMPTY);
    if (*out_n <= DOCS_MAX) return ERR_OK;
    return fail(c, ERR_INVALID, R_CLI_MANY, "max", say(c, "%d", DOCS_MAX));
}

static err apply_all(Apply *a, str file, yyjson_val **docs, size_t n) {
    for (size_t i = 0; i < n; i++) {
        a->cli->where = say(a->cli->c, STR_FMT ", document %zu", STR_ARG(file), i + 1);
        TRY(apply_one(a, docs[i]));
    }
    a->cli->where = NULL;
    return ERR_OK;
}

// What was done is told, whatever became of the rest.
static err apply_docs(Apply *a, str file, bool prune, yyjson_val **docs, size_t n) {
    Cli *cli = a->cli;
    a->all = new (cli->c->mem, Applied, n + 1);
    buf_init(&a->out, 64 << 20);
    a->j = json_to(&a->out);
    json_obj(&a->j), json_key(&a->j, "data"), json_arr(&a->j);
    err e = apply_all(a, file, docs, n);
    if (!e && prune) e = prune_kinds(a);
    json_end_arr(&a->j), json_end_obj(&a->j);
    if (cli->show == SHOW_JSON || cli->show == SHOW_YAML) {
        Failure why = cli->c->failure;
        cli_print(cli, buf_str(&a->out), NULL);
        cli->c->failure = why;
    }
    buf_done(&a->out);
    return e;
}

static err apply(Cli *cli, bool diff) {
    Ctx *c = cli->c;
    str file, text, *texts;
    bool prune = cli_flag(cli, "prune");
    size_t n;
    TRY(cli_value(cli, "f", &file));
    if (!file.p) return fail(c, ERR_INVALID, R_CLI_MISSING, "what", "-f FILE");
    TRY(cli_done(cli));
    TRY(cli_read(cli, file, FILE_MAX, &text));
    cli->where = say_str(c, file);
    yyjson_val **docs = new (c->mem, yyjson_val *, DOCS_MAX);
    TRY(cli_yaml(c, text, &texts, &n));
    TRY(gather(c, texts, n, docs, &n));
    Apply a = { .cli = cli, .diff = diff || cli->dry_run };
    return apply_docs(&a, file, prune, docs, n);
}

int cli_apply(Cli *cli, bool diff) {
    err e = apply(cli, diff);
    return e ? cli_fail(cli, e) : 0;
}
