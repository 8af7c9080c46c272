// SPDX-License-Identifier: Apache-2.0
// plan.c - see plan.h. Files are read whole, with a limit.
#include "plan.h"
#include "os/file.h"
#include <math.h>

enum { BODY_MAX = 64 << 20, KEYS_MAX = 16 << 20 };

const char plan_usage[] =
    "lathe-load open   HOST:PORT --rate N --seconds S [--poisson [--seed N]] [OPTION ...]\n"
    "lathe-load closed HOST:PORT --connections N (--seconds S | --requests N) [OPTION ...]\n"
    "lathe-load hold   HOST:PORT --connections N [OPTION ...]\n"
    "lathe-load merge  FILE ...\n"
    "  --path P --body FILE --keys FILE --method GET --status N --stream --expect TEXT\n"
    "  --connections N --fresh --warm S --first N --numbers N --patience S\n"
    "In the body nine letters N stand for the request's number, which goes from --first on and\n"
    "starts anew after --numbers.\n";

typedef enum { AS_TEXT, AS_COUNT, AS_SECONDS, AS_MS, AS_RATE } As;
typedef struct OptionRow {
    const char *name;
    As as;
    size_t offset;
    int64_t most;
} OptionRow;
// clang-format off
#define ROW(name, as, field, most) { name, as, offsetof(Plan, field), most }
static const OptionRow rows[] = {
    ROW("--path",        AS_TEXT,    path,        0),
    ROW("--expect",      AS_TEXT,    expect,      0),
    ROW("--rate",        AS_RATE,    rate,        10000000),
    ROW("--seed",        AS_COUNT,   seed,        INT64_MAX),
    ROW("--connections", AS_COUNT,   connections, 60000),
    ROW("--requests",    AS_COUNT,   requests,    999999999),
    ROW("--first",       AS_COUNT,   first,       999999999),
    ROW("--numbers",     AS_COUNT,   numbers,     999999999),
    ROW("--status",      AS_COUNT,   status,      599),
    ROW("--seconds",     AS_SECONDS, duration_ns, 86400),
    ROW("--warm",        AS_SECONDS, warm_ns,     86400),
    ROW("--patience",    AS_MS,      patience_ms, 3600),
};
// clang-format on

static bool set(const OptionRow *row, str value, Plan *p) {
    void *at = (char *)p + row->offset;
    double f;
    if (row->as == AS_TEXT) {
        *(str *)at = value;
        return true;
    }
    if (row->as == AS_COUNT)
        return str_to_i64(value, (int64_t *)at) && *(int64_t *)at >= 0
               && *(int64_t *)at <= row->most;
    if (!str_to_f64(value, &f) || f < 0 || f > (double)row->most) return false;
    if (row->as == AS_RATE) *(double *)at = f;
    else *(int64_t *)at = llround(f * (row->as == AS_MS ? 1e3 : 1e9));
    return true;
}

static err read_keys(Ctx *c, const char *path, Plan *p) {
    str text, line;
    TRY(file_read_all(c, str_z(path), KEYS_MAX, &text));
    size_t most = 1;
    for (size_t i = 0; i < text.n; i++) most += text.p[i] == '\n';
    p->keys = new (c->mem, str, most);
    while (str_cut(&text, '\n', &line)) {
        line = str_trim(line);
        if (line.n) p->keys[p->keys_n++] = arena_printf(c->mem, "Bearer %.*s", STR_ARG(line));
    }
    return ERR_OK;
}

static err read_body(Ctx *c, const char *path, Plan *p) {
    TRY(file_read_all(c, str_z(path), BODY_MAX, &p->body));
    p->number_at = str_find(p->body, S(PLAN_NUMBER));
    return ERR_OK;
}

// One option; *argv is moved past it. ERR_INVALID without a failure: it is not understood.
static err parse_one(Ctx *c, char ***argv, Plan *p) {
    str name = str_z(**argv), value = str_z((*argv)[1]);
    *argv += 1;
    if (str_is(name, "--poisson")) p->poisson = true;
    else if (str_is(name, "--stream")) p->stream = true;
    else if (str_is(name, "--fresh")) p->fresh = true;
    else {
        if (!value.p) return ERR_INVALID;
        *argv += 1;
        if (str_is(name, "--body")) return read_body(c, value.p, p);
        if (str_is(name, "--keys")) return read_keys(c, value.p, p);
        if (str_is(name, "--method")) {
            p->method = HTTP_GET;
            return str_is(value, "GET") ? ERR_OK : ERR_INVALID;
        }
        for (size_t i = 0; i < countof(rows); i++)
            if (str_is(name, rows[i].name)) return set(&rows[i], value, p) ? ERR_OK : ERR_INVALID;
        return ERR_INVALID;
    }
    return ERR_OK;
}

static const char *missing(const Plan *p) {
    if (p->mode == PLAN_OPEN && !(p->rate > 0)) return "--rate";
    if (p->mode == PLAN_OPEN && !p->duration_ns) return "--seconds";
    if (p->mode == PLAN_CLOSED && !p->duration_ns && !p->requests) return "--seconds";
    return p->connections ? NULL : "--connections";
}

err plan_parse(Ctx *c, char **argv, Plan *out, const char **out_bad) {
    static const char *const modes[] = { "open", "closed", "hold" };
    Plan p = { .method = HTTP_POST,
               .path = S("/v1/chat/completions"),
               .body = S(""),
               .number_at = -1,
               .seed = 1,
               .status = 200,
               .patience_ms = 60000 };
    *out_bad = argv[0] ? argv[0] : "open, closed or hold";
    while (p.mode < countof(modes) && (!argv[0] || strcmp(argv[0], modes[p.mode]))) p.mode++;
    if (p.mode == countof(modes)) return ERR_INVALID;
    *out_bad = argv[1] ? argv[1] : "HOST:PORT";
    if (!argv[1]) return ERR_INVALID;
    TRY(addr_parse(c, str_z(argv[1]), &p.to));
    p.connections = p.mode == PLAN_OPEN ? 1024 : 0;
    p.stream = p.mode == PLAN_HOLD;
    for (char **at = argv + 2; *at;) {
        *out_bad = *at;
        TRY(parse_one(c, &at, &p));
    }
    *out_bad = missing(&p);
    if (*out_bad) return ERR_INVALID;
    *out = p;
    return ERR_OK;
}
