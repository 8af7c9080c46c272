// SPDX-License-Identifier: Apache-2.0
// conformance_value_test.c - valid values made from rows: within the limits, of the names, and with
// references to objects that are made first. What only a module's own check knows is in `hints`.
#include "conformance_test.h"
#include "base/time.h"

// What rows do not say, and why. NULL: the member is left out.
static const struct {
    const char *resource, *path, *raw, *why;
} hints[] = {
    { "role", "permissions", "[\"models.read\"]", "one may give away what one has only" },
    { "api_key", "scopes", "[\"models.read\"]", "permissions that something asks for" },
    { "price", "currency", "\"USD\"", "a code of ISO 4217" },
    { "model_version", "source", "{\"type\":\"url\",\"url\":\"http://127.0.0.1:9/none.gguf\"}",
      "an address where nobody is: the import fails later, and with it no engine is needed" },
    { "model_version", "sha256", NULL, "hex of a content that does not exist" },
    { "deployment", "model", NULL, "an attached engine has none, and llama.cpp needs weights" },
    { "deployment", "engine", "\"openai\"", "attached: nothing is launched" },
    { "deployment", "endpoint.url", "\"http://127.0.0.1:9/v1\"", "an address" },
    { "deployment", "endpoint.dialect", "\"openai.chat\"", "of others it takes not every accent" },
    { "deployment", "task", "\"chat\"", "an attached engine says nothing of itself" },
    { "api_key", "user", NULL, "it is of a service account already, and a key has one owner" },
    { "admin_key", "admin_org", NULL, "a key of the system, as the one that makes it" },
};

static const char *hint(const Resource *r, const char *path, bool *out_known) {
    for (size_t i = 0; i < countof(hints); i++) {
        if (strcmp(hints[i].resource, r->name) || strcmp(hints[i].path, path)) continue;
        *out_known = true;
        return hints[i].raw;
    }
    *out_known = false;
    return NULL;
}

typedef struct Gen {
    Conf *f;
    const Tenant *p;
    const Resource *r;
    int spin;
    const Poison *poison;
} Gen;

static void put(const Gen *g, const Field *f, const char *path, Buf *out);

static const char *under(const Gen *g, const char *up, const char *name) {
    if (!*up) return name;
    return *name ? say(g->f->c, "%s.%s", up, name) : up;
}

static void put_text(const Gen *g, const Field *f, const char *path, Buf *out) {
    int64_t min = field_min(f), max = field_max(f);
    const char *text = strcmp(path, "name") ? say(g->f->c, "text-%d", g->spin)
                                            : say(g->f->c, "conf-%zu", ++g->f->made);
    if (f->type == T_SECRET) text = say(g->f->c, "secret-canary-%d", g->spin);
    size_t n = strlen(text);
    if ((int64_t)n > max) n = (size_t)max;
    buf_add_char(out, '"'), buf_add(out, str_n(text, n));
    if ((int64_t)n < min) buf_add_repeat(out, 'x', (size_t)min - n);
    buf_add_char(out, '"');
}

static void put_number(const Gen *g, const Field *f, Buf *out) {
    int64_t n = field_min(f) > 1 ? field_min(f) : 1;
    if (g->spin && n < field_max(f)) n++;
    if (n > field_max(f)) n = field_max(f);
    str money = money_format(g->f->c->mem, n);
    if (f->type == T_MONEY) buf_printf(out, "\"" STR_FMT "\"", STR_ARG(money));
    else buf_printf(out, "%lld", (long long)n);
}

static void put_reference(const Gen *g, const Field *f, Buf *out) {
    const Resource *target = resource_find(f->of);
    buf_printf(out, "\"%s\"", conf_make(g->f, g->p, target));
}

// The poison is within this member: a hint would hide it.
static bool inside(const Poison *poison, const char *path) {
    size_t n = strlen(path);
    return poison && !strncmp(poison->path, path, n)
           && (poison->path[n] == '.' || poison->path[n] == '[');
}

static void put_rows(const Gen *g, const Field *rows, const char *up, Buf *out) {
    bool first = true;
    for (const Field *f = rows; f && f->name; f++) {
        bool known, hit = g->poison && !strcmp(g->poison->path, under(g, up, f->name));
        const char *raw = hint(g->r, under(g, up, f->name), &known);
        known = known && !inside(g->poison, under(g, up, f->name));
        if (hit && !g->poison->raw) continue;
        if (!hit && (f->flags & (STATUS | HIDDEN | ONCE) || (known && !raw))) continue;
        buf_printf(out, "%s\"%s\":", first ? "" : ",", f->name);
        first = false;
        if (hit) buf_add(out, str_z(g->poison->raw));
        else if (known) buf_add(out, str_z(raw));
        else put(g, f, under(g, up, f->name), out);
    }
    if (!g->poison || !g->poison->raw) return;
    const char *extra = under(g, up, "no_such_field"); // of this very object, unknown to its rows
    if (!strcmp(g->poison->path, extra))
        buf_printf(out, "%s\"no_such_field\":%s", first ? "" : ",", g->poison->raw);
}

static void put_list(const Gen *g, const Field *f, const char *path, Buf *out) {
    const Field *rows = f->of;
    int64_t n = field_min(f) > 1 ? field_min(f) : 1;
    buf_add_char(out, '[');
    for (int64_t i = 0; i < n; i++) {
        const char *at = say(g->f->c, "%s[%lld]", path, (long long)i);
        bool hit = g->poison && g->poison->raw && !strcmp(g->poison->path, at);
        if (i) buf_add_char(out, ',');
        if (hit) buf_add(out, str_z(g->poison->raw));
        else if (!*rows->name) put(g, rows, at, out);
        else buf_add_char(out, '{'), put_rows(g, rows, at, out), buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}

static void put_union(const Gen *g, const Union *u, const char *path, Buf *out) {
    buf_printf(out, "{\"%s\":\"%s\"", u->tag, u->cases[0].tag);
    Buf rest;
    buf_init(&rest, 1 << 20);
    put_rows(g, u->cases[0].rows, path, &rest);
    if (rest.n) buf_add_char(out, ','), buf_add(out, buf_str(&rest));
    buf_done(&rest);
    buf_add_char(out, '}');
}

static void put_enum(const Gen *g, const Field *f, Buf *out) {
    const char *const *names = enum_names(f);
    buf_printf(out, "\"%s\"", names[g->spin && names[1] ? 1 : 0]);
}

static void put(const Gen *g, const Field *f, const char *path, Buf *out) {
    switch (f->type) {
    case T_INT:
    case T_MONEY: put_number(g, f, out); break;
    case T_REAL: buf_printf(out, "%d.5", g->spin); break;
    case T_BOOL: buf_add(out, g->spin ? S("true") : S("false")); break;
    case T_TIME: buf_printf(out, "\"209%d-01-02T03:04:05Z\"", g->spin); break;
    case T_ENUM: put_enum(g, f, out); break;
    case T_REF: put_reference(g, f, out); break;
    case T_OBJECT:
        buf_add_char(out, '{'), put_rows(g, f->of, path, out), buf_add_char(out, '}');
        break;
    case T_LIST: put_list(g, f, path, out); break;
    case T_UNION: put_union(g, f->of, path, out); break;
    case T_BLOB:
        buf_add_char(out, '"'), buf_add_repeat(out, g->spin ? 'b' : 'a', 64),
            buf_add_char(out, '"');
        break;
    case T_JSON: buf_printf(out, "{\"a\":%d}", g->spin); break;
    default: put_text(g, f, path, out);
    }
}

const char *conf_value(Conf *f, const Tenant *p, const Resource *r, const Field *field, int spin) {
    Gen g = { f, p, r, spin, NULL };
    Buf b;
    bool known;
    const char *raw = hint(r, field->name, &known);
    if (known) return spin ? NULL : raw;
    buf_init(&b, 1 << 20);
    put(&g, field, field->name, &b);
    const char *text = arena_z(f->c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

const char *conf_body(Conf *f, const Tenant *p, const Resource *r, int spin, const Poison *poison) {
    Gen g = { f, p, r, spin, poison };
    Buf b;
    buf_init(&b, 1 << 20);
    buf_add_char(&b, '{');
    Buf rows;
    buf_init(&rows, 1 << 20);
    put_rows(&g, table_of(r)->rows, "", &rows);
    buf_add(&b, buf_str(&rows));
    buf_done(&rows);
    buf_add_char(&b, '}');
    const char *text = arena_z(f->c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

// ---- objects

const char *conf_path(Conf *f, const Resource *r, const char *id) {
    return id ? say(f->c, "/lathe/v1/%s/%s", r->plural, id) : say(f->c, "/lathe/v1/%s", r->plural);
}

typedef struct Plant {
    const ResTable *t;
    Conf *f;
    const Tenant *p;
    const char *id;
} Plant;

// A row of what nobody creates over the API: every column has some value.
static err plant_tx(Ctx *c, Tx *tx, void *arg) {
    Plant *x = arg;
    const ResTable *t = x->t;
    Val *args = new(c->mem, Val, t->rows_n);
    void *row = row_new(c, t);
    Head *h = row;
    h->id = os_id(c, t->r->prefix), h->name = str_z(say(c, "plant-%zu", ++x->f->made));
    h->org = str_z(x->p->org), h->project = str_z(x->p->project);
    h->revision = h->created_at = h->updated_at = 1000 + (int64_t)x->f->made;
    for (size_t i = 0; i < t->rows_n; i++) {
        const Field *f = &t->rows[i];
        args[i] = row_val(c, f, row);
        if (f->offset < sizeof(Head) || args[i].type != VAL_NULL) continue;
        if (f->type == T_REF) args[i] = V(conf_make(x->f, x->p, resource_find(f->of)));
        else if (f->type == T_ENUM) args[i] = V(enum_names(f)[0]);
        else if (f->type == T_INT || f->type == T_MONEY || f->type == T_TIME)
            args[i] = V((int64_t)x->f->made + 1000);
        else args[i] = V(f->type == T_JSON ? "{}" : "planted");
    }
    x->id = say_str(c, h->id);
    return db_exec(c, tx, &t->insert, args, t->rows_n, NULL);
}

static const char *plant(Conf *f, const Tenant *p, const Resource *r) {
    Plant x = { table_of(r), f, p, "" };
    // What must refer to something is begun over HTTP: no transaction may wait for that.
    for (size_t i = 0; i < x.t->rows_n; i++)
        if (x.t->rows[i].type == T_REF && x.t->rows[i].flags & REQUIRED) {
            const Resource *target = resource_find(x.t->rows[i].of);
            const char *id = conf_make(f, p, target);
            Told t =
                conf_do(f, p, HTTP_POST, say(f->c, "%s/uploads", conf_path(f, target, id)), "{}");
            return say_str(f->c, json_get_str(t.json, "id"));
        }
    if (db_tx(f->c, f->app->db, plant_tx, &x)) COMPLAIN("no %s could be planted", r->name);
    return x.id;
}

const char *conf_make(Conf *f, const Tenant *p, const Resource *r) {
    if (r->flags & RES_NO_CREATE) return plant(f, p, r);
    Told t = conf_do(f, p, HTTP_POST, conf_path(f, r, NULL), conf_body(f, p, r, 0, NULL));
    str id = json_get_str(t.json, "id");
    if (t.status != 201 || !id.n)
        COMPLAIN("%s is not made: %d " STR_FMT, r->name, t.status, STR_ARG(t.body));
    return say_str(f->c, id);
}

const Field *conf_patch(Conf *f, const Tenant *p, const Resource *r, const char **out_body) {
    if (r->flags & RES_NO_UPDATE) return NULL;
    for (const Field *x = r->fields; x->name; x++) {
        if (x->flags & (STATUS | IMMUTABLE | HIDDEN | ONCE)) continue;
        const char *value = conf_value(f, p, r, x, 1);
        if (!value) continue;
        *out_body = say(f->c, "{\"%s\":%s}", x->name, value);
        return x;
    }
    return NULL;
}

size_t conf_spots(Conf *f, const Field *rows, const char *up, bool status, Spot *out, size_t max) {
    size_t n = 0;
    for (const Field *x = rows; x && x->name && n < max; x++) {
        const char *path = *up ? say(f->c, "%s.%s", up, x->name) : x->name;
        bool is_status = status || x->flags & STATUS;
        out[n++] = (Spot){ x, path, is_status };
        const Field *inner = x->type == T_OBJECT  ? x->of
                             : x->type == T_UNION ? ((const Union *)x->of)->cases[0].rows
                                                  : NULL;
        if (inner) n += conf_spots(f, inner, path, is_status, out + n, max - n);
        if (x->type != T_LIST) continue;
        const Field *item = x->of;
        const char *at = say(f->c, "%s[0]", path);
        if (*item->name) n += conf_spots(f, item, at, is_status, out + n, max - n);
        else if (n < max) out[n++] = (Spot){ item, at, is_status };
    }
    return n;
}

// ---- counting

typedef struct Count {
    Sql sql;
    Val args[2];
    size_t n;
    int64_t out;
} Count;

static err count_tx(Ctx *c, Tx *tx, void *arg) {
    Count *x = arg;
    Rows *rows;
    TRY(db_one(c, tx, &rows, &x->sql, x->args, x->n));
    x->out = col_int(rows, 0);
    return ERR_OK;
}

int64_t conf_count(Conf *f, const char *sql, const char *a, const char *b) {
    Count *x = new(f->c->mem, Count, 1); // the statement's address is a key: never used twice
    *x = (Count){ { "conformance", sql, NULL }, { V(a), V(b) }, (size_t)(!!a + !!b), -1 };
    if (db_read(f->c, f->app->db, count_tx, x)) COMPLAIN("not counted: %s", sql);
    return x->out;
}
