// SPDX-License-Identifier: Apache-2.0
// conformance_field_test.c - every field of every resource that is made over the API: each of its
// limits is enforced, the answer names the field, and nothing is stored; and what is just within
// the limits is not refused for them.
#include "conformance_test.h"
#include "base/time.h"

typedef struct Walk {
    Conf *f;
    const Resource *r;
    const Tenant *p;
    size_t asked;
} Walk;

static Told post(Walk *w, const Poison *poison, bool dry) {
    Conf *f = w->f;
    const char *path = conf_path(f, w->r, NULL), *body = conf_body(f, w->p, w->r, 0, poison);
    w->asked++;
    return conf_do(f, w->p, HTTP_POST, dry ? say(f->c, "%s?dry_run=true", path) : path, body);
}

// Refused for this reason, with the field's name.
static void refuses(Walk *w, const char *path, const char *raw, const char *reason) {
    Poison poison = { path, raw };
    Told t = post(w, &poison, false);
    str field = conf_field(&t);
    if (t.status != 400 || !str_is(conf_reason(&t), reason) || !str_is(field, path))
        COMPLAIN("%s %s = %.60s: %d, not %s of it: " STR_FMT, w->r->name, path,
                 raw ? raw : "(left out)", t.status, reason, STR_ARG(str_sub(t.body, 0, 300)));
}

// Not refused for its size; a module's own check may still object.
static void within(Walk *w, const char *path, const char *raw) {
    Poison poison = { path, raw };
    Told t = post(w, &poison, true);
    str why = conf_reason(&t);
    bool size = str_is(why, "field_range") || str_is(why, "field_length");
    if (t.status >= 500 || (size && str_is(conf_field(&t), path)))
        COMPLAIN("%s %s = %.60s is refused: " STR_FMT, w->r->name, path, raw,
                 STR_ARG(str_sub(t.body, 0, 300)));
}

static const char *text_of(Ctx *c, int64_t n) {
    Buf b;
    buf_init(&b, 2 << 20);
    buf_add_char(&b, '"'), buf_add_repeat(&b, 'x', (size_t)n), buf_add_char(&b, '"');
    const char *z = arena_z(c->mem, buf_str(&b));
    buf_done(&b);
    return z;
}

static const char *list_of(Ctx *c, int64_t n) {
    Buf b;
    buf_init(&b, 1 << 20);
    buf_add_char(&b, '[');
    for (int64_t i = 0; i < n; i++) buf_add(&b, i ? S(",7") : S("7"));
    buf_add_char(&b, ']');
    const char *z = arena_z(c->mem, buf_str(&b));
    buf_done(&b);
    return z;
}

static const char *number(Ctx *c, const Field *f, int64_t n) {
    if (f->type != T_MONEY) return say(c, "%lld", (long long)n);
    str money = money_format(c->mem, n);
    return say(c, "\"" STR_FMT "\"", STR_ARG(money));
}

static void walk_number(Walk *w, const Spot *s) {
    Ctx *c = w->f->c;
    int64_t min = field_min(s->f), max = field_max(s->f);
    if (min > INT64_MIN + 1) refuses(w, s->path, number(c, s->f, min - 1), "field_range");
    if (max < INT64_MAX) refuses(w, s->path, number(c, s->f, max + 1), "field_range");
    within(w, s->path, number(c, s->f, min)), within(w, s->path, number(c, s->f, max));
    if (s->f->type == T_INT) refuses(w, s->path, "1.5", "field_type");
    if (s->f->type == T_INT) refuses(w, s->path, "18446744073709551615", "field_type");
    if (s->f->type == T_MONEY) refuses(w, s->path, "\"0.0000000001\"", "field_type");
}

static void walk_text(Walk *w, const Spot *s) {
    Ctx *c = w->f->c;
    int64_t min = field_min(s->f), max = field_max(s->f);
    refuses(w, s->path, text_of(c, max + 1), "field_length");
    within(w, s->path, text_of(c, max));
    if (min > 0) refuses(w, s->path, text_of(c, min - 1), "field_length");
    if (min > 0) within(w, s->path, text_of(c, min));
    refuses(w, s->path, "\"a\\u0000b\"", "field_type");
    if (s->f->type == T_SECRET) refuses(w, s->path, "\"\\u0001sealed\"", "field_type");
    if (!strcmp(s->path, "name")) refuses(w, s->path, "\"a/b\"", "field_name");
    if (!strcmp(s->path, "name")) refuses(w, s->path, "\"-a\"", "field_name");
}

static void walk_reference(Walk *w, const Spot *s) {
    Conf *f = w->f;
    const Resource *target = resource_find(s->f->of);
    str gone = os_id(f->c, target->prefix);
    refuses(w, s->path, say(f->c, "\"" STR_FMT "\"", STR_ARG(gone)), "field_reference");
    refuses(w, s->path, "\"no-such-name\"", "field_reference");
    if (target->scope == SCOPE_SYSTEM) return;
    const Tenant *other = target->scope == SCOPE_PROJECT ? &f->b : &f->far;
    refuses(w, s->path, say(f->c, "\"%s\"", conf_make(f, other, target)), "field_reference");
}

static void walk_type(Walk *w, const Spot *s) {
    Conf *f = w->f;
    switch (s->f->type) {
    case T_INT:
    case T_MONEY: walk_number(w, s); break;
    case T_TEXT:
    case T_SECRET: walk_text(w, s); break;
    case T_REF: walk_reference(w, s); break;
    case T_ENUM: refuses(w, s->path, "\"no-such-name\"", "field_enum"); break;
    case T_TIME: refuses(w, s->path, "\"yesterday\"", "field_type"); break;
    case T_BOOL: refuses(w, s->path, "\"true\"", "field_type"); break;
    case T_REAL: refuses(w, s->path, "\"1.5\"", "field_type"); break;
    case T_LIST:
        refuses(w, s->path, list_of(f->c, field_max(s->f) + 1), "field_length");
        refuses(w, s->path, "{}", "field_type");
        break;
    case T_UNION: {
        const Union *u = s->f->of;
        Poison poison = { s->path, say(f->c, "{\"%s\":\"no-such-case\"}", u->tag) };
        Told t = post(w, &poison, false);
        if (t.status != 400 || !str_is(conf_field(&t), say(f->c, "%s.%s", s->path, u->tag)))
            COMPLAIN("%s %s: a case that is none: " STR_FMT, w->r->name, s->path, STR_ARG(t.body));
        break;
    }
    default: break;
    }
}

static void walk_spot(Walk *w, const Spot *s) {
    unsigned flags = s->f->flags;
    bool nested = s->f->type == T_OBJECT || s->f->type == T_UNION || s->f->type == T_LIST;
    if (s->status || flags & HIDDEN) { // what is within it falls with it
        const char *reason = flags & HIDDEN ? "unknown_field" : "field_readonly";
        if (!strpbrk(s->path, ".[")) refuses(w, s->path, "\"x\"", reason);
        return;
    }
    refuses(w, s->path, nested ? "7" : "{\"a\":[]}", "field_type");
    if (flags & REQUIRED) {
        refuses(w, s->path, NULL, "field_required");
        refuses(w, s->path, "null", "field_required");
    }
    if (s->f->type == T_OBJECT || s->f->type == T_UNION)
        refuses(w, say(w->f->c, "%s.no_such_field", s->path), "1", "unknown_field");
    walk_type(w, s);
}

static const char *count_of(Conf *f, const Resource *r) {
    return say(f->c, "SELECT COUNT(*) FROM %s", r->plural);
}

CONF_TEST(conformance_create_enforces_every_limit) {
    size_t asked = 0;
    EACH_TABLE(t) {
        if (t->r->flags & RES_NO_CREATE) continue;
        Spot spots[300];
        size_t n = conf_spots(f, t->rows, "", false, spots, countof(spots));
        Walk w = { f, t->r, &f->a, 0 };
        refuses(&w, "no_such_field", "1", "unknown_field");
        for (size_t i = 0; i < n; i++) walk_spot(&w, &spots[i]);
        asked += w.asked;
    }
    CHECK(asked > 300);
}

// What was refused is not there: counted while one field after the other is wrong.
CONF_TEST(conformance_refused_creates_leave_nothing) {
    EACH_TABLE(t) {
        if (t->r->flags & RES_NO_CREATE) continue;
        Walk w = { f, t->r, &f->a, 0 };
        Poison poison = { "no_such_field", "1" };
        conf_body(f, &f->a, t->r, 0, &poison); // what it refers to is there from now on
        int64_t rows = conf_count(f, count_of(f, t->r), NULL, NULL);
        int64_t audits =
            conf_count(f, "SELECT COUNT(*) FROM audit_entries WHERE kind = $1", t->r->name, NULL);
        Told told = conf_do(f, w.p, HTTP_POST, conf_path(f, t->r, NULL), "{\"no_such_field\":1}");
        CHECK_INT(told.status, 400);
        static const char *const bad[] = {
            "", "{", "[]", "7", "{\"name\":\"a\",\"name\":\"b\"}", "{\"name\":\"\\ud800\"}", "{} {}"
        };
        for (size_t i = 0; i < countof(bad); i++) {
            told = conf_do(f, w.p, HTTP_POST, conf_path(f, t->r, NULL), bad[i]);
            if (told.status != 400) COMPLAIN("%s: %s: %d", t->r->name, bad[i], told.status);
        }
        CHECK_INT(conf_count(f, count_of(f, t->r), NULL, NULL), rows);
        CHECK_INT(
            conf_count(f, "SELECT COUNT(*) FROM audit_entries WHERE kind = $1", t->r->name, NULL),
            audits);
    }
}

// ---- changes

static void patch_refuses(Walk *w, const char *id, const Field *x, const char *reason) {
    Conf *f = w->f;
    const char *value = conf_value(f, w->p, w->r, x, 1);
    if (x->flags & STATUS) value = "\"x\"";
    if (x->flags & STATUS && x->type == T_OBJECT)
        value = say(f->c, "{\"%s\":\"x\"}", ((const Field *)x->of)->name);
    if (!value) return; // there is no other value
    Told t = conf_do(f, w->p, HTTP_PATCH, conf_path(f, w->r, id),
                     say(f->c, "{\"%s\":%s}", x->name, value));
    if (t.status != 400 || !str_is(conf_reason(&t), reason)
        || !str_starts(conf_field(&t), str_z(x->name)))
        COMPLAIN("%s: patch of %s: %d " STR_FMT, w->r->name, x->name, t.status, STR_ARG(t.body));
}

static void patch_walk(Walk *w, const char *id) {
    const ResTable *t = table_of(w->r);
    for (const Field *x = t->rows; x->name; x++) {
        if (x->flags & HIDDEN) patch_refuses(w, id, x, "unknown_field");
        else if (x->flags & STATUS) patch_refuses(w, id, x, "field_readonly");
        else if (x->flags & IMMUTABLE) patch_refuses(w, id, x, "field_immutable");
    }
}

// A document as it was got can be sent back; read-only and immutable fields cannot change.
CONF_TEST(conformance_patch_keeps_what_may_not_change) {
    EACH_TABLE(t) {
        if (t->r->flags & (RES_NO_CREATE | RES_NO_UPDATE)) continue;
        Walk w = { f, t->r, &f->a, 0 };
        const char *id = conf_make(f, w.p, t->r), *path = conf_path(f, t->r, id);
        patch_walk(&w, id);
        Told got = conf_do(f, w.p, HTTP_GET, path, NULL);
        if (t->r->flags & RES_RECONCILED) continue; // its status may have moved on in between
        Told back = conf_do(f, w.p, HTTP_PATCH, path, arena_z(f->c->mem, got.body));
        if (back.status != 200 || !str_eq(back.body, got.body))
            COMPLAIN("%s sent back: %d " STR_FMT, t->r->name, back.status, STR_ARG(back.body));
    }
}
