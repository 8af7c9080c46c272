// SPDX-License-Identifier: Apache-2.0
// cli_resource.c - the derived verbs: list, get, create, set, delete and actions of every resource;
// routes that say their verb; waiting.
#include "os/terminal.h"
#include "res/cli.h"
#include "res/table.h"
#include <assert.h>
#include <stdio.h>

enum { POLL_MS = 150 };

// ---- flags become a JSON document: --limits.concurrency 4, --scopes a,b, --source.type url
typedef struct Doc {
    Cli *cli;
    yyjson_mut_doc *doc;
    yyjson_mut_val *root;
} Doc;

static const Field *find_in_union(const Union *u, str name) {
    for (const UnionCase *k = u->cases; k->tag; k++) {
        const Field *f = field_find(k->rows, name);
        if (f) return f;
    }
    return NULL;
}

// The row that a dotted path ends at; NULL when there is none. "type" of a union is its tag:
// *out_tag.
static const Field *find_path(const Field *rows, str path, bool *out_tag) {
    str part;
    const Field *f = NULL;
    *out_tag = false;
    while (str_cut(&path, '.', &part)) {
        if (f && f->type == T_UNION) {
            *out_tag = str_is(part, ((const Union *)f->of)->tag);
            f = *out_tag ? f : find_in_union(f->of, part);
        } else {
            f = field_find(f ? (f->type == T_OBJECT ? f->of : NULL) : rows, part);
        }
        if (!f) return NULL;
    }
    return f;
}

static yyjson_mut_val *json_value(Doc *d, str text) {
    yyjson_doc *parsed = yyjson_read(text.p, text.n, 0);
    yyjson_mut_val *v = parsed ? yyjson_val_mut_copy(d->doc, yyjson_doc_get_root(parsed)) : NULL;
    yyjson_doc_free(parsed);
    return v;
}

static yyjson_mut_val *list_value(Doc *d, const Field *f, str text) {
    str part;
    bool texts = !*((const Field *)f->of)->name && ((const Field *)f->of)->type != T_INT;
    if (text.n && *text.p == '[') return json_value(d, text);
    yyjson_mut_val *list = yyjson_mut_arr(d->doc);
    while (text.n && str_cut(&text, ',', &part)) {
        part = str_trim(part);
        yyjson_mut_val *v =
            texts ? yyjson_mut_strncpy(d->doc, part.p, part.n) : json_value(d, part);
        if (v) yyjson_mut_arr_append(list, v);
    }
    return list;
}

static yyjson_mut_val *value_of(Doc *d, const Field *f, bool tag, str text) {
    yyjson_mut_val *v = NULL;
    bool flag;
    if (str_is(text, "null")) return yyjson_mut_null(d->doc);
    if (tag) return yyjson_mut_strncpy(d->doc, text.p, text.n);
    switch (f->type) {
    case T_INT:
    case T_REAL:
    case T_OBJECT:
    case T_UNION:
    case T_JSON: v = json_value(d, text); break;
    case T_BOOL:
        if (str_to_bool(text, &flag)) v = yyjson_mut_bool(d->doc, flag);
        break;
    case T_LIST: v = list_value(d, f, text); break;
    default: break;
    }
    return v ? v
             : yyjson_mut_strncpy(d->doc, text.p, text.n); // the server says what is wrong with it
}

static void put(Doc *d, str path, yyjson_mut_val *v) {
    yyjson_mut_val *at = d->root;
    str part, rest = path;
    while (str_cut(&rest, '.', &part)) {
        yyjson_mut_val *key = yyjson_mut_strncpy(d->doc, part.p, part.n);
        if (!rest.p) {
            yyjson_mut_obj_put(at, key, v);
            return;
        }
        yyjson_mut_val *next = yyjson_mut_obj_getn(at, part.p, part.n);
        if (!next) yyjson_mut_obj_put(at, key, next = yyjson_mut_obj(d->doc));
        at = next;
    }
}

// The row whose dotted name is nearest to path.
static void nearest_flag(Ctx *c, const Field *rows, const char *prefix, str path,
                         const char **out) {
    for (const Field *f = rows; f && f->name && *f->name; f++) {
        if (f->flags & (STATUS | HIDDEN)) continue;
        const char *name = say(c, "%s%s", prefix, f->name);
        if (!*out || cli_distance(path, str_z(name)) < cli_distance(path, str_z(*out))) *out = name;
        if (f->type == T_OBJECT) nearest_flag(c, f->of, say(c, "%s.", name), path, out);
    }
}

static err no_flag(Cli *cli, const Field *rows, const char *flag) {
    Ctx *c = cli->c;
    const char *nearest = NULL;
    nearest_flag(c, rows, "", str_z(flag), &nearest);
    if (!nearest)
        return fail(c, ERR_INVALID, R_CLI_WORD, "word", say(c, "--%s", flag), "noun",
                    cli_topic(cli));
    return fail(c, ERR_INVALID, R_CLI_FLAG, "word", say(c, "--%s", flag), "nearest",
                say(c, "--%s", nearest), "noun", cli_topic(cli));
}

static err flags_to_json(Cli *cli, const Field *rows, const char *name, str *out) {
    Ctx *c = cli->c;
    Doc d = { cli, yyjson_mut_doc_new(NULL), NULL };
    err e = ERR_OK;
    yyjson_mut_doc_set_root(d.doc, d.root = yyjson_mut_obj(d.doc));
    if (name) put(&d, S("name"), yyjson_mut_str(d.doc, name));
    while (!e && cli->argc && !strncmp(cli->argv[0], "--", 2)) {
        str flag = str_z(cli->argv[0] + 2), path = flag;
        ptrdiff_t equals = str_find_char(flag, '=');
        if (equals >= 0) path = str_sub(flag, 0, (size_t)equals);
        char *z = (char *)(uintptr_t)arena_z(c->mem, path);
        for (char *p = z; *p; p++)
            if (*p == '-') *p = '_';
        bool tag;
        const Field *f = find_path(rows, str_z(z), &tag);
        str text;
        if (!f) e = no_flag(cli, rows, z);
        else if (f->type == T_BOOL && !tag) text = cli_option(cli, arena_z(c->mem, path));
        else e = cli_value(cli, arena_z(c->mem, path), &text);
        if (!e) put(&d, str_z(z), value_of(&d, f, tag, text));
    }
    size_t n;
    char *json = yyjson_mut_write(d.doc, 0, &n);
    *out = arena_str(c->mem, str_n(json, n));
    mem_free(json);
    yyjson_mut_doc_free(d.doc);
    return e ? e : cli_done(cli);
}

// ---- verbs
static str path_of(Cli *cli, const Resource *r, str id, const char *verb) {
    Ctx *c = cli->c;
    str path = arena_printf(c->mem, "/lathe/v1/%s", r->plural);
    if (id.p)
        path =
            arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(path), STR_ARG(cli_escape(cli, id)));
    if (verb) path = arena_printf(c->mem, STR_FMT "/%s", STR_ARG(path), verb);
    return cli->dry_run ? arena_printf(c->mem, STR_FMT "?dry_run=true", STR_ARG(path)) : path;
}

static const char **columns_of(Cli *cli, const Resource *r) {
    const ResTable *t = table_of(r);
    const char **names = new (cli->c->mem, const char *, t->rows_n + 2);
    size_t n = 0;
    if (r->flags & RES_UNNAMED) names[n++] = "id";
    for (size_t i = 0; i < t->rows_n; i++)
        if (t->rows[i].flags & COLUMN) names[n++] = t->rows[i].name;
    return names;
}

// A row's JSON with its kind in front: what `lathe apply` takes.
static void put_kind(Json *j, const Resource *r, yyjson_val *row) {
    size_t i, n;
    yyjson_val *key, *v;
    json_obj(j), json_kv_z(j, "kind", r->name);
    yyjson_obj_foreach(row, i, n, key, v) json_key_str(j, json_str(key)), json_put_val(j, v);
    json_end_obj(j);
}

// As documents: of what can be applied, one row or a page of them.
static str with_kind(Cli *cli, const Resource *r, const CliAnswer *a) {
    bool document = cli->show == SHOW_JSON || cli->show == SHOW_YAML;
    bool rows_in = json_get(a->json, "id") || json_get(a->json, "data");
    if (!document || !rows_in || r->flags & (RES_NO_CREATE | RES_UNNAMED)
        || field_find(r->fields, S("kind")))
        return a->body;
    Buf b;
    buf_init(&b, 2 * a->body.n + LIST_MAX * 256);
    Json j = json_to(&b);
    size_t i, n;
    yyjson_val *row, *rows = json_get(a->json, "data");
    if (!yyjson_is_arr(rows)) put_kind(&j, r, a->json);
    else {
        json_obj(&j), json_key(&j, "data"), json_arr(&j);
        yyjson_arr_foreach(rows, i, n, row) put_kind(&j, r, row);
        json_end_arr(&j), json_kv_str(&j, "next_cursor", json_get_str(a->json, "next_cursor"));
        json_end_obj(&j);
    }
    str s = arena_str(cli->c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

static err verb_list(Cli *cli, const Resource *r) {
    Ctx *c = cli->c;
    str target = path_of(cli, r, (str){ 0 }, NULL);
    char sep = '?';
    bool sorted = false;
    while (cli->argc && !strncmp(cli->argv[0], "--", 2)) {
        str name = str_z(cli->argv[0] + 2);
        ptrdiff_t equals = str_find_char(name, '=');
        if (equals >= 0) name = str_sub(name, 0, (size_t)equals);
        int before = cli->argc;
        sorted |= str_is(name, "sort");
        str value = cli_option(cli, arena_z(c->mem, name));
        assert(cli->argc < before); // it stood there
        target = arena_printf(c->mem, STR_FMT "%c" STR_FMT "=" STR_FMT, STR_ARG(target), sep,
                              STR_ARG(cli_escape(cli, name)), STR_ARG(cli_escape(cli, value)));
        sep = '&';
    }
    CliAnswer a;
    TRY(cli_done(cli));
    if (r->flags & RES_LOG && !sorted) // of what happened, the newest first
        target = arena_printf(c->mem, STR_FMT "%csort=-id", STR_ARG(target), sep);
    TRY(cli_call(cli, HTTP_GET, target, (str){ 0 }, &a));
    cli_print(cli, with_kind(cli, r, &a), columns_of(cli, r));
    if (json_get_str(a.json, "next_cursor").p && cli->show == SHOW_TABLE)
        fprintf(stderr, "%s: --cursor " STR_FMT "\n", strcmp(c->lang, "zh") ? "more" : "更多",
                STR_ARG(json_get_str(a.json, "next_cursor")));
    return ERR_OK;
}

static err need(Cli *cli, str *out, const char *what) {
    *out = cli_word(cli);
    return out->p ? ERR_OK : fail(cli->c, ERR_INVALID, R_CLI_MISSING, "what", what);
}

static err finish(Cli *cli, const Resource *r, const CliAnswer *a, str name) {
    str job = json_get_str(a->json, "job");
    if (cli->wait && job.n) TRY(cli_wait_job(cli, job));
    if (cli->wait && !job.n && r->flags & RES_RECONCILED && !cli->dry_run) {
        str id = json_get_str(a->json, "id");
        TRY(cli_wait_resource(cli, r, id.n ? id : name));
        CliAnswer now;
        TRY(cli_call(cli, HTTP_GET, path_of(cli, r, id.n ? id : name, NULL), (str){ 0 }, &now));
        cli_print(cli, with_kind(cli, r, &now), NULL), cli_asides(cli, r, a->json);
        return ERR_OK;
    }
    yyjson_val *result = json_get(a->json, "result");
    cli_print(cli, with_kind(cli, r, a), NULL), cli_asides(cli, r, cli->dry_run ? result : a->json);
    return ERR_OK;
}

static err verb_create(Cli *cli, const Resource *r) {
    str name = { 0 }, body;
    CliAnswer a;
    if (!(r->flags & RES_UNNAMED)) TRY(need(cli, &name, "NAME"));
    TRY(flags_to_json(cli, r->fields, name.p, &body));
    TRY(cli_call(cli, HTTP_POST, path_of(cli, r, (str){ 0 }, NULL), body, &a));
    return finish(cli, r, &a, name);
}

static err verb_set(Cli *cli, const Resource *r) {
    str name, body;
    CliAnswer a;
    TRY(need(cli, &name, "NAME"));
    TRY(flags_to_json(cli, r->fields, NULL, &body));
    TRY(cli_call(cli, HTTP_PATCH, path_of(cli, r, name, NULL), body, &a));
    return finish(cli, r, &a, name);
}

static err gone(Cli *cli, const Resource *r, str name) {
    CliAnswer a;
    for (;;) {
        err e = cli_call(cli, HTTP_GET, path_of(cli, r, name, NULL), (str){ 0 }, &a);
        if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
        os_pause_ms(POLL_MS);
    }
}

static err verb_delete(Cli *cli, const Resource *r) {
    str name;
    CliAnswer a;
    TRY(need(cli, &name, "NAME"));
    TRY(cli_done(cli));
    TRY(cli_call(cli, HTTP_DELETE, path_of(cli, r, name, NULL), (str){ 0 }, &a));
    str id = json_get_str(a.json, "id");
    if (cli->wait && a.status == 202) TRY(gone(cli, r, id.n ? id : name));
    static const char *const ends[][2] = { { "deleted", "is being deleted" },
                                           { "已删除", "正在删除" } };
    fprintf(stderr, "%s " STR_FMT " %s\n", r->name, STR_ARG(name),
            ends[!strcmp(cli->c->lang, "zh")][a.status == 202 && !cli->wait]);
    return ERR_OK;
}

static err verb_get(Cli *cli, const Resource *r) {
    str name;
    CliAnswer a;
    TRY(need(cli, &name, "NAME"));
    TRY(cli_done(cli));
    TRY(cli_call(cli, HTTP_GET, path_of(cli, r, name, NULL), (str){ 0 }, &a));
    cli_print(cli, with_kind(cli, r, &a), NULL);
    return ERR_OK;
}

static err verb_action(Cli *cli, const Resource *r, const Action *action) {
    str name, body = { 0 };
    CliAnswer a;
    TRY(need(cli, &name, "NAME"));
    if (action->input) TRY(flags_to_json(cli, action->input, NULL, &body));
    TRY(cli_done(cli));
    TRY(cli_call(cli, HTTP_POST, path_of(cli, r, name, action->verb), body, &a));
    return finish(cli, r, &a, name);
}

int cli_resource(Cli *cli, const Resource *r, str verb) {
    err e;
    if (str_is(verb, "list")) e = verb_list(cli, r);
    else if (str_is(verb, "get")) e = verb_get(cli, r);
    else if (str_is(verb, "create") && !(r->flags & RES_NO_CREATE)) e = verb_create(cli, r);
    else if (str_is(verb, "set") && !(r->flags & RES_NO_UPDATE)) e = verb_set(cli, r);
    else if (str_is(verb, "delete") && !(r->flags & RES_NO_DELETE)) e = verb_delete(cli, r);
    else {
        const Action *a = r->actions;
        while (a && a->verb && !str_is(verb, a->verb)) a++;
        if (!a || !a->verb) return cli_unknown_verb(cli, str_z(r->name), verb);
        e = verb_action(cli, r, a);
    }
    return e ? cli_fail(cli, e) : 0;
}

// ---- a route with a verb of its own
static err route_target(Cli *cli, const Route *r, str *out) {
    Ctx *c = cli->c;
    Buf b;
    err e = ERR_OK;
    buf_init(&b, 65536);
    for (const char *p = r->pattern; *p && !e; p++) {
        if (*p != '{') {
            buf_add_char(&b, *p);
            continue;
        }
        const char *end = strchr(p, '}');
        str word;
        e = need(cli, &word, arena_z(c->mem, str_n(p + 1, (size_t)(end - p - 1))));
        if (!e) buf_add(&b, cli_escape(cli, word));
        p = end;
    }
    char sep = '?';
    for (const Field *f = r->query; !e && f && f->name; f++) {
        str value = cli_option(cli, f->name);
        if (!value.p) continue;
        buf_printf(&b, "%c%s=" STR_FMT, sep, f->name, STR_ARG(cli_escape(cli, value)));
        sep = '&';
    }
    *out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return e;
}

static bool print_event(void *arg, const char *event, str data) {
    (void)arg;
    printf("%s " STR_FMT "\n", event, STR_ARG(data));
    fflush(stdout);
    return true;
}

static err route_call(Cli *cli, const Route *r) {
    str target, body = { 0 };
    CliAnswer a;
    TRY(route_target(cli, r, &target));
    if (r->input) TRY(flags_to_json(cli, r->input, NULL, &body));
    TRY(cli_done(cli));
    if (r->output_type && !strcmp(r->output_type, "text/event-stream"))
        return cli_events(cli, r->method, target, body, print_event, NULL);
    TRY(cli_call(cli, r->method, target, body, &a));
    if (a.json) cli_print(cli, a.body, NULL);
    else
        printf(STR_FMT "%s", STR_ARG(a.body),
               a.body.n && a.body.p[a.body.n - 1] != '\n' ? "\n" : "");
    return ERR_OK;
}

int cli_route(Cli *cli, const Route *r) {
    err e = route_call(cli, r);
    return e ? cli_fail(cli, e) : 0;
}

// ---- waiting
static void tell(Cli *cli, str *last, str now) {
    if (str_eq(*last, now)) return;
    *last = now;
    now = cli_visible(cli->c, now, -1);
    fprintf(stderr, "  " STR_FMT "\n", STR_ARG(now));
}

static str replica_progress(Cli *cli, yyjson_val *v) {
    yyjson_val *first = yyjson_arr_get_first(json_get(v, "replicas_status"));
    int64_t percent;
    return json_get_i64(first, "progress", &percent) && percent < 100
               ? arena_printf(cli->c->mem, " %lld %%", (long long)percent)
               : S("");
}

err cli_wait_resource(Cli *cli, const Resource *r, str id) {
    static const char *const good[] = { "ready", "stopped", "done" }, *const bad[] = {
        "failed", "crash_loop"
    };
    str last = { 0 };
    for (;;) {
        CliAnswer a;
        int64_t wanted = 0, seen = 0;
        TRY(cli_call(cli, HTTP_GET, path_of(cli, r, id, NULL), (str){ 0 }, &a));
        str state = json_get_str(a.json, "state"), why = json_get_str(a.json, "state_reason");
        json_get_i64(a.json, "generation", &wanted),
            json_get_i64(a.json, "observed_generation", &seen);
        tell(cli, &last,
             arena_printf(cli->c->mem, "%s " STR_FMT ": " STR_FMT STR_FMT "%s" STR_FMT, r->name,
                          STR_ARG(json_get_str(a.json, "name")), STR_ARG(state),
                          STR_ARG(replica_progress(cli, a.json)), why.n ? ", " : "",
                          STR_ARG(why.n ? why : S(""))));
        for (size_t i = 0; i < countof(good) && seen >= wanted; i++)
            if (str_is(state, good[i])) return ERR_OK;
        for (size_t i = 0; i < countof(bad) && seen >= wanted; i++)
            if (str_is(state, bad[i]))
                return fail(cli->c, ERR_CONFLICT, R_CLI_STATE, "kind", r->name, "name",
                            say_str(cli->c, id), "state", say_str(cli->c, state), "why",
                            say_str(cli->c, why));
        os_pause_ms(POLL_MS);
    }
}

err cli_wait_job(Cli *cli, str id) {
    str last = { 0 };
    Ctx *c = cli->c;
    for (;;) {
        CliAnswer a;
        int64_t done = 0, total = 0;
        TRY(cli_call(cli, HTTP_GET, arena_printf(c->mem, "/lathe/v1/jobs/" STR_FMT, STR_ARG(id)),
                     (str){ 0 }, &a));
        str state = json_get_str(a.json, "state"), why = json_get_str(a.json, "wait_text");
        json_get_i64(a.json, "progress_done", &done),
            json_get_i64(a.json, "progress_total", &total);
        str percent =
            total ? arena_printf(c->mem, " %lld %%", (long long)(done * 100 / total)) : S("");
        tell(cli, &last,
             arena_printf(c->mem, "job " STR_FMT STR_FMT "%s" STR_FMT, STR_ARG(state),
                          STR_ARG(percent), why.n ? ": " : "", STR_ARG(why.n ? why : S(""))));
        if (str_is(state, "done")) return ERR_OK;
        if (str_is(state, "failed") || str_is(state, "cancelled"))
            return fail(c, ERR_CONFLICT, R_CLI_STATE, "kind", "job", "name", say_str(c, id),
                        "state", say_str(c, state), "why",
                        say_str(c, json_get_str(a.json, "error_text")));
        os_pause_ms(POLL_MS);
    }
}
