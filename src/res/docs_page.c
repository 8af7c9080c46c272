// SPDX-License-Identifier: Apache-2.0
// docs_page.c - the pages of the reference: tables of rows in GitHub's Markdown.
// Threads: any; a page is its writer's.
#include "base/time.h"
#include "blob/store.h"
#include "net/reason.h"
#include "res/docs_impl.h"
#include "res/field_impl.h"
#include "res/table.h"
#include <assert.h>
#include <stdio.h>

static const char *word(const Page *p, const char *en, const char *zh) {
    return p->zh && zh && *zh ? zh : en ? en : "";
}

// Text of one cell: bars and line ends would break the table.
static void cell(Page *p, str text) {
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '|') buf_add_char(&p->out, '\\');
        buf_add_char(&p->out, text.p[i] == '\n' ? ' ' : text.p[i]);
    }
    buf_add(&p->out, S(" | "));
}

static void row(Page *p, const char *const *cells) {
    buf_add(&p->out, S("| "));
    for (; *cells; cells++) cell(p, str_z(*cells));
    p->out.n--;
    buf_add_char(&p->out, '\n');
}
#define ROW_(p, ...) row((p), (const char *const[]){ __VA_ARGS__, NULL })

// A head in English and Chinese: pairs.
static void head(Page *p, const char *const (*words)[2]) {
    buf_add(&p->out, S("\n| "));
    for (size_t i = 0; words[i][0]; i++) cell(p, str_z(words[i][p->zh]));
    p->out.n--;
    buf_add(&p->out, S("\n|"));
    for (size_t i = 0; words[i][0]; i++) buf_add(&p->out, S("---|"));
    buf_add_char(&p->out, '\n');
}

static const char *code(Page *p, const char *text) {
    return text && *text ? arena_printf(p->mem, "`%s`", text).p : "";
}

static void title(Page *p, int level, const char *text) {
    buf_add_char(&p->out, '\n');
    buf_add_repeat(&p->out, '#', (size_t)level);
    buf_printf(&p->out, " %s\n", text);
}

static const char *joined(Page *p, const char *const *names, const char *with) {
    str list[64];
    size_t n = 0;
    for (; names && names[n] && n < countof(list); n++) list[n] = str_z(names[n]);
    return arena_z(p->mem, arena_join(p->mem, list, n, str_z(with)));
}

// ---- resources

static const char *type_text(Page *p, const Field *f) {
    const Field *rows = f->of;
    const char *name = type_name(f->type);
    if (f->type == T_REF) return arena_printf(p->mem, "%s: %s", name, (const char *)f->of).p;
    if (f->type == T_ENUM) return arena_printf(p->mem, "`%s`", joined(p, f->of, "` `")).p;
    if (f->type == T_LIST && !*rows->name)
        return arena_printf(p->mem, "%s: %s", name, type_name(rows->type)).p;
    return name;
}

static const char *limits_text(Page *p, const Field *f) {
    long long lo = field_min(f), hi = field_max(f);
    switch (f->type) {
    case T_INT:
        if (lo == INT64_MIN + 1 && hi == INT64_MAX) return "";
        if (hi == INT64_MAX) return arena_printf(p->mem, "≥ %lld", lo).p;
        return arena_printf(p->mem, "%lld … %lld", lo, hi).p;
    case T_MONEY: {
        str min = money_format(p->mem, lo), max = money_format(p->mem, hi);
        if (hi == INT64_MAX) return arena_printf(p->mem, "≥ " STR_FMT, STR_ARG(min)).p;
        return arena_printf(p->mem, STR_FMT " … " STR_FMT, STR_ARG(min), STR_ARG(max)).p;
    }
    case T_TEXT:
    case T_SECRET:
        return arena_printf(p->mem, word(p, "%lld … %lld characters", "%lld … %lld 个字符"), lo, hi)
            .p;
    case T_LIST:
        return arena_printf(p->mem, word(p, "%lld … %lld items", "%lld … %lld 项"), lo, hi).p;
    default: return "";
    }
}

static const char *flags_text(Page *p, const Field *f) {
    static const struct {
        unsigned flag;
        const char *en, *zh;
    } names[] = { { REQUIRED, "required", "必填" },
                  { UNIQUE, "unique", "唯一" },
                  { STATUS, "set by the system", "系统设置" },
                  { IMMUTABLE, "given once", "创建后不可改" },
                  { INDEXED, "filter", "可过滤" },
                  { SEARCHED, "searched", "可检索" } };
    str list[countof(names)];
    size_t n = 0;
    for (size_t i = 0; i < countof(names); i++)
        if (f->flags & names[i].flag) list[n++] = str_z(word(p, names[i].en, names[i].zh));
    return arena_z(p->mem, arena_join(p->mem, list, n, S(", ")));
}

// Nested ones follow with their path: limits.cost, steps[].name, where.host.
static void field_rows(Page *p, const Field *rows, const char *path, int depth) {
    assert(depth < 16);
    for (const Field *f = rows; f && f->name; f++) {
        if (f->flags & HIDDEN || !*f->name) continue;
        const char *name = arena_printf(p->mem, "%s%s", path, f->name).p;
        ROW_(p, code(p, name), type_text(p, f), flags_text(p, f), limits_text(p, f),
             code(p, f->fallback), word(p, f->en, f->zh));
        const char *below = arena_printf(p->mem, "%s%s.", name, f->type == T_LIST ? "[]" : "").p;
        if (f->type == T_OBJECT || f->type == T_LIST) field_rows(p, f->of, below, depth + 1);
        if (f->type != T_UNION) continue;
        const Union *u = f->of;
        for (const UnionCase *one = u->cases; one->tag; one++) {
            const char *tag = arena_printf(p->mem, "%s%s", below, u->tag).p;
            ROW_(p, code(p, tag), code(p, one->tag), "", "", "", "");
            field_rows(p, one->rows, below, depth + 1);
        }
    }
}

static void field_table(Page *p, const Field *rows) {
    static const char *const heads[][2] = {
        { "Field", "字段" },   { "Type", "类型" },    { "", "" },    { "Limits", "限制" },
        { "Default", "默认" }, { "Meaning", "含义" }, { NULL, NULL }
    };
    if (!rows || !rows->name) return;
    head(p, heads);
    field_rows(p, rows, "", 0);
}

static void actions(Page *p, const Resource *r) {
    for (const Action *a = r->actions; a && a->verb; a++) {
        const char *how =
            a->kind == ACTION_JOB ? word(p, "a job", "作业") : word(p, "at once", "立即");
        str permission = resource_permission(p->mem, r, a->verb);
        buf_printf(&p->out, "\n**%s** (%s, `" STR_FMT "`): %s\n", a->verb, how, STR_ARG(permission),
                   word(p, a->en, a->zh));
        field_table(p, a->input);
    }
}

void docs_resources(Page *p) {
    static const char *const scopes[][2] = { { "the system", "系统" },
                                             { "an organisation", "组织" },
                                             { "a project", "项目" } };
    for (const Module *const *m = p->mods; *m; m++)
        for (const Resource *const *one = (*m)->resources; one && *one; one++) {
            const Resource *r = *one;
            title(p, 2, r->name);
            buf_printf(&p->out, "\n%s. %s `%s_…`; %s %s", word(p, r->en, r->zh),
                       word(p, "Ids", "标识"), r->prefix, word(p, "belongs to", "属于"),
                       scopes[r->scope][p->zh]);
            if (r->retain_days)
                buf_printf(&p->out, word(p, "; kept for %d days", "；保留 %d 天"), r->retain_days);
            buf_add(&p->out, S(".\n"));
            field_table(p, table_of(r)->rows);
            actions(p, r);
        }
}

// ---- routes

typedef struct Verb {
    const char *name, *method, *tail;
    unsigned without;
} Verb;
static const Verb verbs[] = { { "list", "GET", "", 0 },
                              { "create", "POST", "", RES_NO_CREATE },
                              { "get", "GET", "/{id}", 0 },
                              { "update", "PATCH", "/{id}", RES_NO_UPDATE },
                              { "delete", "DELETE", "/{id}", RES_NO_DELETE } };

static void derived_routes(Page *p, const Resource *r) {
    for (size_t i = 0; i < countof(verbs); i++) {
        if (r->flags & verbs[i].without) continue;
        const char *path = arena_printf(p->mem, "/lathe/v1/%s%s", r->plural, verbs[i].tail).p;
        ROW_(p, verbs[i].method, code(p, path),
             code(p, resource_permission(p->mem, r, verbs[i].name).p), word(p, r->en, r->zh));
    }
    for (const Action *a = r->actions; a && a->verb; a++) {
        const char *path = arena_printf(p->mem, "/lathe/v1/%s/{id}/%s", r->plural, a->verb).p;
        ROW_(p, "POST", code(p, path), code(p, resource_permission(p->mem, r, a->verb).p),
             word(p, a->en, a->zh));
    }
}

void docs_routes(Page *p) {
    static const char *const heads[][2] = { { "Method", "方法" },
                                            { "Path", "路径" },
                                            { "Permission", "权限" },
                                            { "Meaning", "含义" },
                                            { NULL, NULL } };
    buf_printf(
        &p->out, "\n%s\n",
        word(p,
             "Routes that act in a project are also served below `/p/{project}`. Lists take "
             "`limit`, `cursor`, `sort`, `q`, `format=json|ndjson|csv` and filters on "
             "fields marked so (`field=`, `.ne`, `.lt`, `.le`, `.gt`, `.ge`, `.in`); "
             "changes take `dry_run=true`, `If-Match` and, when they create, "
             "`Idempotency-Key`. `/openapi.json` says the rest.",
             "作用于项目的接口亦可通过 `/p/{project}` 前缀访问。列表支持 `limit`、`cursor`、"
             "`sort`、`q`、`format=json|ndjson|csv`，以及按可过滤字段过滤（`field=`、`.ne`、"
             "`.lt`、`.le`、`.gt`、`.ge`、`.in`）；变更支持 `dry_run=true`、`If-Match`，创建时支持 "
             "`Idempotency-Key`。详见 `/openapi.json`。"));
    for (const Module *const *m = p->mods; *m; m++) {
        const Route *r = (*m)->routes;
        const Resource *const *one = (*m)->resources;
        if (!(r && r->pattern) && !(one && *one)) continue;
        title(p, 2, (*m)->name);
        head(p, heads);
        for (; one && *one; one++) derived_routes(p, *one);
        for (; r && r->pattern; r++) {
            const char *permission = r->permission             ? code(p, r->permission)
                                     : r->flags & ROUTE_PUBLIC ? word(p, "public", "公开")
                                                               : word(p, "any key", "任意密钥");
            ROW_(p, http_method_name(r->method), code(p, r->pattern), permission,
                 word(p, r->en, r->zh));
        }
    }
}

// ---- settings

static const char *setting_range(Page *p, const Setting *s) {
    if (s->type == SET_ENUM) return arena_printf(p->mem, "`%s`", joined(p, s->names, "` `")).p;
    if (!s->min && !s->max) return "";
    str lo, hi;
    switch (s->type) {
    case SET_SPAN: lo = span_format(p->mem, s->min), hi = span_format(p->mem, s->max); break;
    case SET_BYTES: lo = bytes_format(p->mem, s->min), hi = bytes_format(p->mem, s->max); break;
    case SET_MONEY: lo = money_format(p->mem, s->min), hi = money_format(p->mem, s->max); break;
    default:
        lo = arena_printf(p->mem, "%lld", (long long)s->min);
        hi = arena_printf(p->mem, "%lld", (long long)s->max);
    }
    if (s->max == INT64_MAX) return arena_printf(p->mem, "≥ " STR_FMT, STR_ARG(lo)).p;
    return arena_printf(p->mem, STR_FMT " … " STR_FMT, STR_ARG(lo), STR_ARG(hi)).p;
}

void docs_settings(Page *p) {
    static const char *const heads[][2] = { { "Setting", "设置项" }, { "Type", "类型" },
                                            { "Default", "默认" },   { "Limits", "限制" },
                                            { "Live", "即时生效" },  { "Meaning", "含义" },
                                            { NULL, NULL } };
    buf_printf(
        &p->out, "\n%s\n",
        word(p,
             "From the YAML file (`serve: {listen: …}` or `serve.listen: …`), the "
             "environment (`LATHE_SERVE_LISTEN`) or a flag (`--serve.listen=…`, or its short "
             "form); later ones win. Live ones change on SIGHUP.",
             "取自 YAML 文件（`serve: {listen: …}` 或 `serve.listen: …`）、环境变量"
             "（`LATHE_SERVE_LISTEN`）或命令行参数（`--serve.listen=…` 或其短形式），后者优先。"
             "即时生效项在 SIGHUP 时更新。"));
    head(p, heads);
    for (const Module *const *m = p->mods; *m; m++)
        for (const Setting *s = (*m)->settings; s && s->name; s++) {
            const char *name = code(p, s->name);
            if (s->flag) name = arena_printf(p->mem, "%s `--%s`", name, s->flag).p;
            ROW_(p, name, setting_type_name(s->type), code(p, s->fallback), setting_range(p, s),
                 s->live ? "✓" : "", word(p, s->en, s->zh));
        }
}

// ---- metrics, errors, events, jobs

void docs_metrics(Page *p) {
    static const char *const heads[][2] = { { "Prometheus", "Prometheus" },
                                            { "OpenTelemetry", "OpenTelemetry" },
                                            { "Type", "类型" },
                                            { "Labels", "标签" },
                                            { "Meaning", "含义" },
                                            { NULL, NULL } };
    static const char *const types[] = { "counter", "gauge", "histogram" };
    head(p, heads);
    for (const Module *const *mod = p->mods; *mod; mod++)
        for (const Metric *const *one = (*mod)->metrics; one && *one; one++) {
            const Metric *m = *one;
            const char *const *end = m->labels;
            const char *labels[METRIC_LABELS_MAX + 1] = { 0 };
            for (size_t i = 0; i < METRIC_LABELS_MAX && end[i]; i++) labels[i] = end[i];
            const char *unit = *m->unit ? arena_printf(p->mem, " (%s)", m->unit).p : "";
            ROW_(p, code(p, metric_exposed_name(p->mem, m).p),
                 arena_printf(p->mem, "%s%s", m->name, unit).p, types[m->type],
                 joined(p, labels, " "), word(p, m->en, m->zh));
        }
}

static void reasons(Page *p, const Reason *const *list) {
    for (; list && *list; list++)
        ROW_(p, code(p, (*list)->slug), word(p, (*list)->en, (*list)->zh));
}

void docs_errors(Page *p) {
    static const char *const heads[][2] = {
        { "Code", "代码" }, { "HTTP", "HTTP" }, { "Exit status", "退出状态" }, { NULL, NULL }
    };
    static const char *const reason_heads[][2] = { { "Reason", "原因" },
                                                   { "Sentence", "说明" },
                                                   { NULL, NULL } };
    const Reason *const *const kit[] = { base_reasons,    os_reasons,  net_reasons, db_reasons,
                                         blob_reasons,    s3_reasons,  job_reasons, event_reasons,
                                         setting_reasons, docs_reasons };
    head(p, heads);
    for (int e = ERR_OK + 1; e < ERR__COUNT; e++) {
        const ErrRow *one = err_row((err)e);
        ROW_(p, code(p, one->slug), arena_printf(p->mem, "%d", one->http).p,
             arena_printf(p->mem, "%d", one->exit_status).p);
    }
    head(p, reason_heads);
    for (size_t i = 0; i < countof(kit); i++) reasons(p, kit[i]);
    for (const Module *const *m = p->mods; *m; m++) reasons(p, (*m)->reasons);
}

void docs_events(Page *p) {
    static const char *const heads[][2] = { { "Event", "事件" },
                                            { "Meaning", "含义" },
                                            { NULL, NULL } };
    static const struct {
        const char *what, *en, *zh;
        unsigned only, without;
    } derived[] = { { "created", "made", "已创建", 0, 0 },
                    { "updated", "changed by a user", "被用户修改", 0, 0 },
                    { "status", "its status changed", "状态已变化", 0, 0 },
                    { "deleting", "its deletion was asked for", "已请求删除", RES_RECONCILED, 0 },
                    { "deleted", "gone", "已删除", 0, 0 } };
    head(p, heads);
    for (const Module *const *m = p->mods; *m; m++) {
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            for (size_t i = 0; i < countof(derived); i++) {
                if (derived[i].only && !((*r)->flags & derived[i].only)) continue;
                const char *kind = arena_printf(p->mem, "%s.%s", (*r)->name, derived[i].what).p;
                const char *about = word(p, (*r)->en, (*r)->zh);
                const char *what = word(p, derived[i].en, derived[i].zh);
                ROW_(p, code(p, kind), arena_printf(p->mem, "%s: %s", about, what).p);
            }
        for (const EventKind *const *e = (*m)->events; e && *e; e++)
            ROW_(p, code(p, (*e)->name), word(p, (*e)->en, (*e)->zh));
    }
}

void docs_jobs(Page *p) {
    static const char *const heads[][2] = {
        { "Kind", "类型" }, { "Attempts", "尝试次数" }, { "Meaning", "含义" }, { NULL, NULL }
    };
    head(p, heads);
    for (const Module *const *m = p->mods; *m; m++)
        for (const JobKind *const *j = (*m)->jobs; j && *j; j++) {
            int attempts = (*j)->attempts_max ? (*j)->attempts_max : 5;
            ROW_(p, code(p, (*j)->name), arena_printf(p->mem, "%d", attempts).p,
                 word(p, (*j)->en, (*j)->zh));
        }
}

// ---- commands and roles

static void resource_commands(Page *p, const Resource *r) {
    for (size_t i = 0; i < countof(verbs); i++) {
        if (r->flags & verbs[i].without) continue;
        bool flags = !strcmp(verbs[i].name, "create") || !strcmp(verbs[i].name, "update");
        bool named =
            *verbs[i].tail || (!strcmp(verbs[i].name, "create") && !(r->flags & RES_UNNAMED));
        const char *verb = strcmp(verbs[i].name, "update") ? verbs[i].name : "set";
        const char *line = arena_printf(p->mem, "lathe %s %s%s%s", r->name, verb,
                                        named ? " NAME" : "", flags ? " [--FIELD VALUE]" : "")
                               .p;
        ROW_(p, code(p, line), word(p, r->en, r->zh));
    }
    for (const Action *a = r->actions; a && a->verb; a++) {
        const char *line = arena_printf(p->mem, "lathe %s %s NAME%s", r->name, a->verb,
                                        a->input ? " [--FIELD VALUE]" : "")
                               .p;
        ROW_(p, code(p, line), word(p, a->en, a->zh));
    }
}

// A route that is a command too: what its path leaves open are words, its query is flags.
static void route_command(Page *p, const Route *r) {
    Buf b;
    buf_init(&b, 4096);
    buf_printf(&b, "lathe %s", r->cli);
    for (const char *z = strchr(r->pattern, '{'); z; z = strchr(z + 1, '{')) {
        buf_add_char(&b, ' ');
        for (z++; *z != '}' && *z != '*'; z++)
            buf_add_char(&b, *z >= 'a' && *z <= 'z' ? *z & ~0x20 : *z);
    }
    for (const Field *f = r->query; f && f->name; f++)
        buf_printf(&b, f->flags & REQUIRED ? " --%s %s" : " [--%s %s]", f->name,
                   type_name(f->type));
    ROW_(p, code(p, arena_z(p->mem, buf_str(&b))), word(p, r->en, r->zh));
    buf_done(&b);
}

void docs_commands(Page *p) {
    static const char *const heads[][2] = { { "Command", "命令" },
                                            { "Meaning", "含义" },
                                            { NULL, NULL } };
    head(p, heads);
    for (const Module *const *m = p->mods; *m; m++) {
        for (const Resource *const *r = (*m)->resources; r && *r; r++) resource_commands(p, *r);
        for (const Route *r = (*m)->routes; r && r->pattern; r++)
            if (r->cli) route_command(p, r);
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) {
            const char *line =
                arena_printf(p->mem, "lathe %s%s%s%s%s", v->noun, v->verb ? " " : "",
                             v->verb ? v->verb : "", v->usage && *v->usage ? " " : "",
                             v->usage ? v->usage : "")
                    .p;
            ROW_(p, code(p, line), word(p, v->en, v->zh));
        }
    }
}

void docs_roles(Page *p) {
    static const char *const heads[][2] = {
        { "Role", "角色" }, { "Permissions", "权限" }, { "Meaning", "含义" }, { NULL, NULL }
    };
    head(p, heads);
    for (const Module *const *m = p->mods; *m; m++)
        for (const RoleRow *r = (*m)->roles; r && r->name; r++)
            ROW_(p, code(p, r->name), code(p, joined(p, r->permissions, "` `")),
                 word(p, r->en, r->zh));
}
