// SPDX-License-Identifier: Apache-2.0
// cli_show.c - answers for people (a table) and for programs (JSON, YAML, names).
#include "res/cli.h"
#include <stdio.h>

enum { COLUMNS_MAX = 24, CELL_MAX = 60 };

// Columns that a terminal gives to a text: wide East Asian characters take two (Unicode UAX #11,
// the ranges that matter here).
static size_t width_of(str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if ((ch & 0xc0) == 0x80) continue;
        n += ch >= 0xe3 && ch <= 0xef && ch != 0xe2 ? 2 : 1;
    }
    return n;
}

// How many bytes at s.p are one character that a terminal obeys instead of showing; 0: none. C0,
// DEL, C1 (ECMA-48), and the marks that turn text around (Unicode UAX #9).
static size_t obeyed(str s) {
    const unsigned char *p = (const unsigned char *)s.p;
    if (p[0] < 32 || p[0] == 127) return 1;
    if (s.n > 1 && p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) return 2;
    bool turns = s.n > 2 && p[0] == 0xe2
                 && ((p[1] == 0x80 && p[2] >= 0xaa && p[2] <= 0xae)
                     || (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9));
    return turns ? 3 : 0;
}

str cli_visible(Ctx *c, str s, int indent) {
    Buf b;
    size_t skip;
    buf_init(&b, s.n * (size_t)(4 + (indent > 0 ? indent : 0)) + 1);
    for (size_t i = 0; i < s.n; i += skip ? skip : 1) {
        skip = obeyed(str_sub(s, i, s.n));
        bool blank = s.p[i] == '\n' || s.p[i] == '\t';
        if (!skip) buf_add_char(&b, s.p[i]);
        else if (!blank) buf_add(&b, S("\uFFFD"));
        else if (indent < 0) buf_add_char(&b, ' ');
        else buf_add_char(&b, s.p[i]), buf_add_repeat(&b, ' ', s.p[i] == '\n' ? (size_t)indent : 0);
    }
    str out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return out;
}

static str cell_text(Cli *cli, yyjson_val *v) {
    if (!v || yyjson_is_null(v)) return S("-");
    str s = yyjson_is_str(v) ? json_str(v) : json_text(cli->c->mem, v);
    s = cli_visible(cli->c, s, -1);
    if (width_of(s) <= CELL_MAX) return s;
    size_t n = 0;
    for (size_t w = 0; n < s.n && w < CELL_MAX - 1; n++)
        if (((unsigned char)s.p[n] & 0xc0) != 0x80) w += width_of(str_sub(s, n, 3)) > 1 ? 1 : 1;
    while (n < s.n && ((unsigned char)s.p[n] & 0xc0) == 0x80) n++;
    return arena_printf(cli->c->mem, STR_FMT "…", STR_ARG(str_sub(s, 0, n)));
}

static size_t pick_columns(yyjson_val *row, const char *const *columns, const char **out) {
    size_t n = 0, i, max;
    yyjson_val *key, *v;
    for (; columns && columns[n] && n < COLUMNS_MAX; n++) out[n] = columns[n];
    if (columns) return n;
    yyjson_obj_foreach(row, i, max, key, v) if (n < COLUMNS_MAX && !yyjson_is_ctn(v)) out[n++] =
        yyjson_get_str(key);
    return n;
}

static void print_line(Cli *cli, yyjson_val *row, const char **names, size_t n,
                       const size_t *widths) {
    for (size_t i = 0; i < n; i++) {
        str s = row ? cell_text(cli, json_get(row, names[i])) : str_z(names[i]);
        size_t pad = i + 1 < n ? widths[i] - width_of(s) + 2 : 0;
        printf(STR_FMT "%*s", STR_ARG(s), (int)pad, "");
    }
    putchar('\n');
}

static void print_table(Cli *cli, yyjson_val *rows, const char *const *columns) {
    const char *names[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX], i, max,
        n = pick_columns(yyjson_arr_get_first(rows), columns, names);
    yyjson_val *row;
    for (size_t k = 0; k < n; k++) widths[k] = strlen(names[k]);
    yyjson_arr_foreach(rows, i, max, row) for (size_t k = 0; k < n; k++) {
        size_t w = width_of(cell_text(cli, json_get(row, names[k])));
        if (w > widths[k]) widths[k] = w;
    }
    if (yyjson_arr_size(rows)) print_line(cli, NULL, names, n, widths);
    else fprintf(stderr, strcmp(cli->c->lang, "zh") ? "none\n" : "无\n");
    yyjson_arr_foreach(rows, i, max, row) print_line(cli, row, names, n, widths);
}

static bool is_table(yyjson_val *v) { return yyjson_is_obj(yyjson_arr_get_first(v)); }

static bool said_by_any(yyjson_val *rows, const char *name) {
    size_t i, max;
    yyjson_val *row;
    yyjson_arr_foreach(rows, i, max, row) {
        yyjson_val *v = json_get(row, name);
        if (v && !yyjson_is_null(v) && !yyjson_is_ctn(v)) return true;
    }
    return false;
}

// A list of objects within an object: below it, with the columns that say something.
static void print_inner(Cli *cli, const char *name, yyjson_val *rows) {
    const char *columns[COLUMNS_MAX + 1];
    size_t i, max, n = 0;
    yyjson_val *key, *v;
    yyjson_obj_foreach(yyjson_arr_get_first(rows), i, max, key, v) {
        const char *column = yyjson_get_str(key);
        if (n < COLUMNS_MAX && said_by_any(rows, column)) columns[n++] = column;
    }
    columns[n] = NULL;
    printf("\n%s\n", name);
    print_table(cli, rows, columns);
}

static void print_one(Cli *cli, yyjson_val *object) {
    size_t i, max, widest = 0;
    yyjson_val *key, *v;
    yyjson_obj_foreach(object, i, max, key, v) if (yyjson_get_len(key) > widest && !is_table(v))
        widest = yyjson_get_len(key);
    yyjson_obj_foreach(object, i, max, key, v) {
        if (yyjson_is_null(v) || is_table(v)) continue; // `warnings` too: cli_asides
        str text = yyjson_is_str(v) ? json_str(v) : json_text(cli->c->mem, v);
        text = cli_visible(cli->c, text, (int)widest + 2);
        printf("%-*s  " STR_FMT "\n", (int)widest, yyjson_get_str(key), STR_ARG(text));
    }
    yyjson_obj_foreach(object, i, max, key,
                       v) if (is_table(v) && strcmp(yyjson_get_str(key), "warnings") != 0)
        print_inner(cli, yyjson_get_str(key), v);
}

static void print_names(yyjson_val *rows, yyjson_val *one) {
    size_t i, max;
    yyjson_val *row;
    if (!rows) {
        str name = json_get_str(one, "name");
        printf(STR_FMT "\n", STR_ARG(name.p ? name : json_get_str(one, "id")));
    }
    yyjson_arr_foreach(rows, i, max, row) {
        str name = json_get_str(row, "name");
        printf(STR_FMT "\n", STR_ARG(name.p ? name : json_get_str(row, "id")));
    }
}

// ---- YAML: the subset that says everything JSON says (YAML 1.2 §10.2); strings that might be read
// as something else are quoted
static bool plain_text(str s) {
    if (!s.n || s.n > 200) return false;
    double number;
    bool flag;
    if (str_to_f64(s, &number) || str_to_bool(s, &flag) || str_is(s, "null") || str_is(s, "~"))
        return false;
    if (memchr("-?:,[]{}#&*!|>'\"%@` ", s.p[0], 20) || s.p[s.n - 1] == ' ' || s.p[s.n - 1] == ':')
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 32 || (s.p[i] == ':' && i + 1 < s.n && s.p[i + 1] == ' ')
            || (s.p[i] == '#' && s.p[i - 1] == ' '))
            return false;
    return true;
}

static void yaml_value(Buf *out, yyjson_val *v, int depth);

static void yaml_scalar(Buf *out, yyjson_val *v) {
    if (yyjson_is_str(v) && plain_text(json_str(v))) {
        buf_add(out, json_str(v));
        return;
    }
    if (yyjson_is_str(v)) {
        buf_add_json(out, json_str(v));
        return;
    }
    Json j = json_to(out);
    json_put_val(&j, v);
}

static bool empty(yyjson_val *v) { return yyjson_is_ctn(v) && !unsafe_yyjson_get_len(v); }

static void yaml_object(Buf *out, yyjson_val *v, int depth, bool inline_first) {
    size_t i, n;
    yyjson_val *key, *each;
    yyjson_obj_foreach(v, i, n, key, each) {
        if (i || !inline_first) buf_add_repeat(out, ' ', (size_t)depth * 2);
        yaml_scalar(out, key), buf_add_char(out, ':');
        yaml_value(out, each, depth);
    }
}

static void yaml_value(Buf *out, yyjson_val *v, int depth) {
    size_t i, n;
    yyjson_val *each;
    if (empty(v)) {
        buf_add(out, yyjson_is_obj(v) ? S(" {}\n") : S(" []\n"));
        return;
    }
    if (yyjson_is_obj(v)) {
        buf_add_char(out, '\n'), yaml_object(out, v, depth + 1, false);
        return;
    }
    if (!yyjson_is_arr(v)) {
        buf_add_char(out, ' '), yaml_scalar(out, v), buf_add_char(out, '\n');
        return;
    }
    buf_add_char(out, '\n');
    yyjson_arr_foreach(v, i, n, each) {
        buf_add_repeat(out, ' ', (size_t)depth * 2), buf_add(out, S("  -"));
        if (yyjson_is_obj(each) && !empty(each))
            buf_add_char(out, ' '), yaml_object(out, each, depth + 2, true);
        else yaml_value(out, each, depth + 1);
    }
}

void cli_print_yaml(Buf *out, yyjson_val *v) {
    if (yyjson_is_obj(v) && !empty(v)) yaml_object(out, v, 0, false);
    else yaml_value(out, v, 0);
}

static void print_yaml(yyjson_val *v) {
    Buf b;
    buf_init(&b, 64 << 20);
    cli_print_yaml(&b, v);
    fwrite(b.p, 1, b.n, stdout);
    buf_done(&b);
}

void cli_print(Cli *cli, str json, const char *const *columns) {
    yyjson_val *v;
    if (!json.n) return;
    if (cli->show == SHOW_JSON || json_parse(cli->c, json, &v)) {
        printf(STR_FMT "\n", STR_ARG(json));
        return;
    }
    yyjson_val *rows = json_get(v, "data");
    if (!yyjson_is_arr(rows)) rows = NULL;
    if (cli->show == SHOW_YAML) print_yaml(v);
    else if (cli->show == SHOW_NAME) print_names(rows, v);
    else if (rows) print_table(cli, rows, columns);
    else print_one(cli, v);
}

// ---- beside the answer
static void aside(Cli *cli, const char *what, str text) {
    text = cli_visible(cli->c, text, -1);
    fprintf(stderr, "lathe: %s" STR_FMT "\n", what, STR_ARG(text));
}

void cli_asides(Cli *cli, const Resource *r, yyjson_val *made) {
    size_t i, n;
    yyjson_val *one;
    bool zh = !strcmp(cli->c->lang, "zh");
    yyjson_arr_foreach(json_get(made, "warnings"), i, n, one)
        aside(cli, zh ? "提示：" : "warning: ", json_get_str(one, "message"));
    for (const Field *f = r->fields; cli->show == SHOW_NAME && f && f->name; f++) {
        str secret = f->flags & ONCE ? json_get_str(made, f->name) : (str){ 0 };
        if (!secret.n) continue;
        str name = json_get_str(made, "name");
        aside(cli,
              say(cli->c, zh ? "%s %s 的 %s（仅显示这一次）：" : "%s %s, its %s, shown this once: ",
                  r->name, say_str(cli->c, name), f->name),
              secret);
    }
}
