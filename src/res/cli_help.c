// SPDX-License-Identifier: Apache-2.0
// cli_help.c - help and completion, read off the same rows as everything else.
#include "res/cli.h"
#include "res/table.h"
#include <stdio.h>

static const char *doc(const Cli *cli, const char *en, const char *zh) {
    return strcmp(cli->c->lang, "zh") ? en : zh;
}

static void help_all(Cli *cli) {
    printf(
        "usage: lathe NOUN VERB [NAME] [--field value] [-o table|json|yaml|name] [--wait] "
        "[--dry-run] [--project P]\n"
        "       lathe serve [--data DIR] [--listen HOST:PORT] [--config FILE] [--SETTING VALUE]\n"
        "       lathe apply|diff -f FILE [--prune]   lathe help NOUN   lathe completion bash\n\n");
    for (size_t i = 0; i < tables_count(); i++)
        printf("  %-20s %s\n", table_at(i)->r->name,
               doc(cli, table_at(i)->r->en, table_at(i)->r->zh));
    putchar('\n');
    for (const Module *const *m = cli->modules; *m; m++) {
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) {
            char name[64];
            snprintf(name, sizeof name, "%s%s%s", v->noun, v->verb ? " " : "",
                     v->verb ? v->verb : "");
            printf("  %-20s %s\n", name, doc(cli, v->en, v->zh));
        }
        for (const Route *r = (*m)->routes; r && r->pattern; r++)
            if (r->cli) printf("  %-20s %s\n", r->cli, doc(cli, r->en, r->zh));
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
               f->flags & REQUIRED ? " (required)" : "");
        if (f->fallback) printf(" [%s]", f->fallback);
        if (f->type == T_ENUM)
            for (const char *const *n = f->of; *n; n++)
                printf("%s%s", n == f->of ? ": " : ", ", *n);
        putchar('\n');
    }
}

static void help_resource(Cli *cli, const Resource *r) {
    const char *name = r->flags & RES_UNNAMED ? "" : " NAME";
    printf("%s: %s\n\n", r->name, doc(cli, r->en, r->zh));
    printf("  lathe %s list [--FIELD VALUE] [--q TEXT] [--sort FIELD] [--limit N]\n  lathe %s get "
           "%s\n",
           r->name, r->name, r->flags & RES_UNNAMED ? "ID" : "NAME");
    if (!(r->flags & RES_NO_CREATE)) printf("  lathe %s create%s [--FIELD VALUE]\n", r->name, name);
    if (!(r->flags & RES_NO_UPDATE)) printf("  lathe %s set NAME [--FIELD VALUE]\n", r->name);
    if (!(r->flags & RES_NO_DELETE)) printf("  lathe %s delete NAME\n", r->name);
    for (const Action *a = r->actions; a && a->verb; a++)
        printf("  lathe %s %s NAME%s   %s\n", r->name, a->verb, a->input ? " [--FIELD VALUE]" : "",
               doc(cli, a->en, a->zh));
    putchar('\n');
    if (!(r->flags & RES_NO_CREATE)) help_fields(cli, r->fields, "", 0);
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
            if (!r->cli || !str_starts(str_z(r->cli), noun)) continue;
            printf("  lathe %s\n      %s\n", r->cli, doc(cli, r->en, r->zh));
            help_fields(cli, r->query, "", 0);
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
    const Resource *r = resource_find(say_str(cli->c, noun));
    if (r) help_resource(cli, r);
    if (help_verbs(cli, noun) || r) return 0;
    return cli_fail(cli, fail(cli->c, ERR_INVALID, R_CLI_VERB, "word", say_str(cli->c, noun),
                              "nearest", "help"));
}

// ---- completion: the shell asks `lathe completion words WORD...` for what may come next
static void words_of_fields(const Field *rows) {
    for (const Field *f = rows; f && f->name; f++)
        if (!(f->flags & (STATUS | HIDDEN))) printf("--%s\n", f->name);
}

static void words_of_verbs(Cli *cli, const char *noun) {
    const Resource *r = resource_find(noun);
    if (r) {
        printf("list\nget\n%s%s%s", r->flags & RES_NO_CREATE ? "" : "create\n",
               r->flags & RES_NO_UPDATE ? "" : "set\n", r->flags & RES_NO_DELETE ? "" : "delete\n");
        for (const Action *a = r->actions; a && a->verb; a++) puts(a->verb);
    }
    for (const Module *const *m = cli->modules; *m; m++) {
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++)
            if (v->verb && !strcmp(v->noun, noun)) puts(v->verb);
        for (const Route *t = (*m)->routes; t && t->pattern; t++)
            if (t->cli && strchr(t->cli, ' ') && str_starts(str_z(t->cli), str_z(noun)))
                puts(strchr(t->cli, ' ') + 1);
    }
}

static int words(Cli *cli, int argc, char **argv) {
    if (argc == 0) {
        for (size_t i = 0; i < tables_count(); i++) puts(table_at(i)->r->name);
        for (const Module *const *m = cli->modules; *m; m++) {
            for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) puts(v->noun);
            for (const Route *t = (*m)->routes; t && t->pattern; t++)
                if (t->cli) printf("%.*s\n", (int)strcspn(t->cli, " "), t->cli);
        }
        puts("serve\napply\ndiff\nhelp");
    } else if (argc == 1) {
        words_of_verbs(cli, argv[0]);
    } else {
        const Resource *r = resource_find(argv[0]);
        if (r) words_of_fields(r->fields);
        puts("-o\n--wait\n--dry-run\n--project");
    }
    return 0;
}

int cli_completion(Cli *cli, int argc, char **argv) {
    if (argc && !strcmp(argv[0], "words")) return words(cli, argc - 1, argv + 1);
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
