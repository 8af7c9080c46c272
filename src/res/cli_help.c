// SPDX-License-Identifier: Apache-2.0
// cli_help.c - help and completion, read off the same rows as everything else.
#include "res/cli.h"
#include "res/table.h"
#include <limits.h>
#include <stdio.h>

static const char *doc(const Cli *cli, const char *en, const char *in_zh) {
    return strcmp(cli->c->lang, "zh") ? en : in_zh;
}

static bool zh(const Cli *cli) { return !strcmp(cli->c->lang, "zh"); }

// Verbs of the program itself; `lathe shim` and `lathe gguf-facts` are the server's own children.
// clang-format off
static const CliVerb own_verbs[] = {
    { "serve", NULL, "[--data DIR] [--listen HOST:PORT] [--config FILE] [--SETTING VALUE]", NULL,
        "Run a server; an empty folder will do", "运行服务器；空目录即可" },
    { "apply", NULL, "-f FILE [--prune] [--dry-run] [--wait]", NULL,
        "Make it so: YAML documents of `kind:` and `name:`; -f - reads stdin",
        "按 YAML 文档达成所述状态；-f - 读取标准输入" },
    { "diff", NULL, "-f FILE [--prune]", NULL, "Say what apply would change",
        "显示 apply 将作的变化" },
    { "help", NULL, "[NOUN]", NULL, "What there is; of a noun its verbs and fields",
        "命令一览；或某名词的命令与字段" },
    { "completion", NULL, "bash", NULL, "For the shell: source <(lathe completion bash)",
        "供 shell 使用：source <(lathe completion bash)" },
    { "docs", NULL, "DIR", NULL, "Write the reference from the rows", "由表行生成参考文档" },
    { 0 }
};
static const CliVerb options[] = {
    { "-o FORM", NULL, "", NULL, "table, json, yaml or name (names only)",
        "输出格式：table、json、yaml 或 name（仅名称）" },
    { "--wait", NULL, "", NULL, "Until it is done, with progress", "等待完成并显示进度" },
    { "--dry-run", NULL, "", NULL, "Say what would change, and change nothing",
        "只显示变化，不执行" },
    { "--project P", NULL, "", NULL, "Where to act; else LATHE_PROJECT, else the key's own",
        "所在项目；否则取 LATHE_PROJECT 或密钥所属" },
    { "--org O", NULL, "", NULL, "The same, an organisation", "所在组织" },
    { "--server URL", NULL, "", NULL, "Else LATHE_URL, ~/.config/lathe/config.yaml, this machine's",
        "否则取 LATHE_URL、~/.config/lathe/config.yaml 或本机服务器" },
    { "--key KEY", NULL, "", NULL, "Else LATHE_API_KEY, that file, this machine's admin.key",
        "否则取 LATHE_API_KEY、该文件或本机 admin.key" },
    { 0 }
};
// clang-format on

static void help_line(const Cli *cli, const CliVerb *v) {
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", v->noun, v->verb ? " " : "", v->verb ? v->verb : "");
    printf("  %-20s %s\n", name, doc(cli, v->en, v->zh));
}

// Whether a verb of a module says all that this route or action would say.
static bool has_verb(const Cli *cli, str noun, const char *verb) {
    for (const Module *const *m = cli->modules; *m; m++)
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++)
            if (str_is(noun, v->noun) && verb && v->verb && !strcmp(v->verb, verb)) return true;
    return false;
}

static bool route_shown(const Cli *cli, const Route *r) {
    if (!r->cli) return false;
    const char *space = strchr(r->cli, ' ');
    return !space || !has_verb(cli, str_n(r->cli, (size_t)(space - r->cli)), space + 1);
}

static void help_all(Cli *cli) {
    printf(zh(cli) ? "用法：lathe 名词 动词 [名称] [--字段 值] [选项]\n\n"
                   : "usage: lathe NOUN VERB [NAME] [--FIELD VALUE] [OPTION]\n\n");
    for (const CliVerb *v = own_verbs; v->noun; v++) help_line(cli, v);
    printf(zh(cli)
               ? "\n名词（list get create set delete 等；详见 `lathe help 名词`）：\n"
               : "\nNouns, with list, get, create, set, delete and more (`lathe help NOUN`):\n");
    for (size_t i = 0; i < tables_count(); i++)
        printf("  %-20s %s\n", table_at(i)->r->name,
               doc(cli, table_at(i)->r->en, table_at(i)->r->zh));
    printf(zh(cli) ? "\n其他命令：\n" : "\nOther verbs:\n");
    for (const Module *const *m = cli->modules; *m; m++) {
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) help_line(cli, v);
        for (const Route *r = (*m)->routes; r && r->pattern; r++)
            if (route_shown(cli, r)) printf("  %-20s %s\n", r->cli, doc(cli, r->en, r->zh));
    }
    printf(zh(cli) ? "\n选项：\n" : "\nOptions:\n");
    for (const CliVerb *v = options; v->noun; v++) help_line(cli, v);
}

static bool help_own(Cli *cli, str noun) {
    const CliVerb *v = own_verbs;
    while (v->noun && !str_is(noun, v->noun)) v++;
    if (!v->noun) return false;
    printf("  lathe %s %s\n      %s\n", v->noun, v->usage, doc(cli, v->en, v->zh));
    if (!str_is(noun, "serve")) return true;
    printf(zh(cli)
               ? "\n设置可来自 --config "
                 "文件（YAML）、环境变量（LATHE_SERVE_LISTEN）或参数，后者优先；\n"
                 "SIGHUP 重读文件，标 * 者即时生效：\n"
               : "\nA setting comes from the YAML file of --config, the environment\n"
                 "(LATHE_SERVE_LISTEN) or a flag; the later wins. SIGHUP reads the file again:\n"
                 "those marked * change at once, the others at the next start.\n\n");
    for (const Module *const *m = cli->modules; *m; m++)
        for (const Setting *s = (*m)->settings; s && s->name; s++) {
            printf("  --%-30s%s %s", s->name, s->live ? "*" : " ", doc(cli, s->en, s->zh));
            if (s->fallback && *s->fallback) printf(" [%s]", s->fallback);
            if (s->flag) printf(zh(cli) ? "；简写 --%s" : "; short: --%s", s->flag);
            putchar('\n');
        }
    return true;
}

static const Field *rows_within(const Field *f) {
    const Field *rows = f->type == T_LIST ? f->of : NULL;
    return rows && *rows->name ? rows : NULL;
}

// How a list of objects is written: --targets '[{"deployment": …, "weight": …}]', and its members.
static void help_list(const Cli *cli, const Field *rows) {
    const char *sep = "";
    printf("      '[{");
    for (const Field *f = rows; f->name; f++) {
        if (f->flags & (STATUS | HIDDEN)) continue;
        printf("%s\"%s\": …", sep, f->name), sep = ", ";
    }
    puts("}]'");
    for (const Field *f = rows; f->name; f++) {
        if (f->flags & (STATUS | HIDDEN)) continue;
        printf("      %-24s %s", f->name, doc(cli, f->en, f->zh));
        if (f->flags & REQUIRED) printf(zh(cli) ? "（必填）" : " (required)");
        if (f->fallback) printf(" [%s]", f->fallback);
        putchar('\n');
    }
}

static void help_fields(Cli *cli, const Field *rows, const char *prefix, int depth) {
    for (const Field *f = rows; f && f->name; f++) {
        char name[128];
        if (f->flags & (STATUS | HIDDEN)) continue;
        snprintf(name, sizeof name, "%s%s", prefix, f->name);
        if (f->type == T_OBJECT && depth < 3) {
            strncat(name, ".", sizeof name - strlen(name) - 1);
            help_fields(cli, f->of, name, depth + 1);
            continue;
        }
        printf("  --%-28s %s%s", name, doc(cli, f->en, f->zh),
               f->flags & REQUIRED ? zh(cli) ? "（必填）" : " (required)" : "");
        if (f->fallback) printf(" [%s]", f->fallback);
        if (f->type == T_ENUM)
            for (const char *const *n = f->of; *n; n++)
                printf("%s%s", n == f->of ? ": " : ", ", *n);
        putchar('\n');
        if (rows_within(f)) help_list(cli, rows_within(f));
    }
}

// By what a list is filtered and sorted, and how both are said.
static void help_list_by(const Cli *cli, const Resource *r) {
    const ResTable *t = table_of(r);
    const char *sep = "";
    printf(zh(cli) ? "\nlist 的过滤字段（另有 --字段.ne .lt .le .gt .ge .in）："
                   : "\nA list is filtered by (also --FIELD.ne .lt .le .gt .ge .in): ");
    for (size_t i = 0; i < t->rows_n; i++)
        if (field_filters(&t->rows[i])) printf("%s%s", sep, t->rows[i].name), sep = ", ";
    sep = "";
    printf(zh(cli) ? "\n排序字段（--sort -字段 为降序）："
                   : "\nSorted by (--sort -FIELD: downwards): ");
    for (size_t i = 0; i < t->rows_n; i++)
        if (field_sorts(r, &t->rows[i])) printf("%s%s", sep, t->rows[i].name), sep = ", ";
    if (r->flags & RES_LOG)
        printf(zh(cli) ? "（id 即时间先后；缺省新的在前）"
                       : ", which is by time; the newest first");
    putchar('\n');
}

static void help_resource(Cli *cli, const Resource *r) {
    const char *name = r->flags & RES_UNNAMED ? "" : " NAME";
    printf("%s: %s\n\n", r->name, doc(cli, r->en, r->zh));
    printf("  lathe %s list [--FIELD VALUE] [--q TEXT] [--sort FIELD] [--limit N] [--cursor C]\n"
           "  lathe %s get %s\n",
           r->name, r->name, r->flags & RES_UNNAMED ? "ID" : "NAME");
    if (!(r->flags & RES_NO_CREATE)) printf("  lathe %s create%s [--FIELD VALUE]\n", r->name, name);
    if (!(r->flags & RES_NO_UPDATE)) printf("  lathe %s set NAME [--FIELD VALUE]\n", r->name);
    if (!(r->flags & RES_NO_DELETE)) printf("  lathe %s delete NAME\n", r->name);
    for (const Action *a = r->actions; a && a->verb; a++)
        if (!has_verb(cli, str_z(r->name), a->verb))
            printf("  lathe %s %s NAME%s   %s\n", r->name, a->verb,
                   a->input ? " [--FIELD VALUE]" : "", doc(cli, a->en, a->zh));
    if (!(r->flags & RES_NO_CREATE)) putchar('\n'), help_fields(cli, r->fields, "", 0);
    if (!(r->flags & RES_NO_UPDATE))
        puts(zh(cli) ? "\n`set` 以 null 取消一个值：--字段 null"
                     : "\n`set` takes a value away with null: --FIELD null");
    help_list_by(cli, r);
}

static bool of_noun(const Route *r, str noun) {
    return r->cli && str_eq(str_n(r->cli, strcspn(r->cli, " ")), noun);
}

// What stands in the path, in its order: "/lathe/v1/traces/{id}/content" is ID.
static void help_words(const char *pattern) {
    for (const char *p = pattern; (p = strchr(p, '{')); p++) {
        putchar(' ');
        for (const char *ch = p + 1; *ch && *ch != '}'; ch++)
            putchar(*ch >= 'a' && *ch <= 'z' ? *ch - 'a' + 'A' : *ch);
    }
}

static bool help_verbs(Cli *cli, str noun) {
    bool any = false;
    for (const Module *const *m = cli->modules; *m; m++) {
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) {
            if (!str_is(noun, v->noun)) continue;
            printf("  lathe %s%s%s %s\n      %s\n", v->noun, v->verb ? " " : "",
                   v->verb ? v->verb : "", v->usage, doc(cli, v->en, v->zh));
            any = true;
        }
        for (const Route *r = (*m)->routes; r && r->pattern; r++) {
            if (!route_shown(cli, r) || !of_noun(r, noun)) continue;
            printf("  lathe %s", r->cli), help_words(r->pattern);
            printf("\n      %s\n", doc(cli, r->en, r->zh));
            help_fields(cli, r->query, "", 0);
            if (r->query && field_find(r->query, S("key")))
                puts(zh(cli) ? "  此处 --key 为过滤条件；用于操作的密钥写在最前：lathe --key KEY …"
                             : "  --key is a filter here; the key to act with goes first: lathe "
                               "--key KEY …");
            any = true;
        }
    }
    return any;
}

int cli_help(Cli *cli, str noun) {
    if (!noun.n) {
        help_all(cli);
        return 0;
    }
    const Resource *r = cli_resource_of(cli, noun);
    if (r) help_resource(cli, r);
    bool own = help_own(cli, noun);
    if (help_verbs(cli, r ? str_z(r->name) : noun) || own || r) return 0;
    return cli_fail(cli, fail(cli->c, ERR_INVALID, R_CLI_VERB, "word", say_str(cli->c, noun),
                              "nearest", cli_nearest(cli, (str){ 0 }, noun), "noun", ""));
}

// ---- completion: the shell asks `lathe completion words WORD...` for what may come next
static void words_of_fields(const Field *rows, const char *prefix) {
    for (const Field *f = rows; f && f->name; f++) {
        char name[128];
        if (f->flags & (STATUS | HIDDEN)) continue;
        snprintf(name, sizeof name, "%s%s%s", prefix, f->name, f->type == T_OBJECT ? "." : "");
        if (f->type == T_OBJECT && strlen(prefix) < 64) words_of_fields(f->of, name);
        else printf("--%s\n", name);
    }
}

typedef void (*OnWord)(void *arg, str word);

static void each_noun(const Cli *cli, OnWord fn, void *arg) {
    for (const CliVerb *v = own_verbs; v->noun; v++) fn(arg, str_z(v->noun));
    for (size_t i = 0; i < tables_count(); i++) fn(arg, str_z(table_at(i)->r->name));
    for (const Module *const *m = cli->modules; *m; m++) {
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) fn(arg, str_z(v->noun));
        for (const Route *t = (*m)->routes; t && t->pattern; t++)
            if (t->cli) fn(arg, str_n(t->cli, strcspn(t->cli, " ")));
    }
}

static void each_verb(Cli *cli, str noun, OnWord fn, void *arg) {
    const Resource *r = cli_resource_of(cli, noun);
    if (r) {
        noun = str_z(r->name);
        fn(arg, S("list")), fn(arg, S("get"));
        if (!(r->flags & RES_NO_CREATE)) fn(arg, S("create"));
        if (!(r->flags & RES_NO_UPDATE)) fn(arg, S("set"));
        if (!(r->flags & RES_NO_DELETE)) fn(arg, S("delete"));
        for (const Action *a = r->actions; a && a->verb; a++) fn(arg, str_z(a->verb));
    }
    for (const Module *const *m = cli->modules; *m; m++) {
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++)
            if (v->verb && str_is(noun, v->noun)) fn(arg, str_z(v->verb));
        for (const Route *t = (*m)->routes; t && t->pattern; t++)
            if (of_noun(t, noun) && strchr(t->cli, ' ')) fn(arg, str_z(strchr(t->cli, ' ') + 1));
    }
}

typedef struct Nearest {
    str word, best;
} Nearest;

unsigned cli_distance(str a, str b) {
    unsigned d = str_distance(a, b);
    if (d > UINT_MAX / 2 - 1) return UINT_MAX;
    return 2 * d + (a.n && b.n && *a.p != *b.p);
}

static void nearer(void *arg, str word) {
    Nearest *n = arg;
    if (!n->best.p || cli_distance(n->word, word) < cli_distance(n->word, n->best)) n->best = word;
}

const char *cli_nearest(Cli *cli, str noun, str word) {
    Nearest n = { .word = word };
    if (noun.p) each_verb(cli, noun, nearer, &n);
    else each_noun(cli, nearer, &n);
    return n.best.p ? arena_z(cli->c->mem, n.best) : NULL;
}

static void put_word(void *arg, str word) {
    (void)arg;
    printf(STR_FMT "\n", STR_ARG(word));
}

static int words(Cli *cli, int argc, char **argv) {
    bool help = argc == 1 && !strcmp(argv[0], "help");
    if (argc == 0 || help) {
        each_noun(cli, put_word, NULL);
    } else if (argc == 1) {
        each_verb(cli, str_z(argv[0]), put_word, NULL);
    } else {
        const Resource *r = cli_resource_of(cli, str_z(argv[0]));
        if (r) words_of_fields(r->fields, "");
        puts("-o\n--wait\n--dry-run\n--project");
    }
    return 0;
}

int cli_completion(Cli *cli, int argc, char **argv) {
    if (argc && !strcmp(argv[0], "words")) return words(cli, argc - 1, argv + 1);
    if (argc != 1 || strcmp(argv[0], "bash") != 0)
        return cli_fail(cli, fail(cli->c, ERR_INVALID, R_CLI_MISSING, "what", "bash"));
    puts("# bash: source <(lathe completion bash)\n"
         "_lathe() {\n"
         "    local IFS=$'\\n'\n"
         "    COMPREPLY=($(compgen -W \"$(lathe completion words "
         "\"${COMP_WORDS[@]:1:COMP_CWORD-1}\" 2>/dev/null | sort -u)\" -- "
         "\"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "complete -F _lathe lathe");
    return 0;
}
