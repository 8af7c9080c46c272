// SPDX-License-Identifier: Apache-2.0
// toy_test.c - the module and the database of toy_test.h. Audit goes to a table of its own, and a
// secret is "sealed" by turning it round, so that a test sees what was stored.
#include "res/toy_test.h"
#include "res/kit.h"

static const char *const colours[] = { "red", "green", "blue", NULL };

// clang-format off
static const Field size_rows[] = {
    INT(ToySize, w, REQUIRED, 1, 100, "Width", "宽"),
    INT(ToySize, h, 0, 1, 100, "Height", "高", .fallback = "2"),
    ROW(ToySize, pin, T_SECRET, 0, "Pin", "密码", .max = 8),
    { 0 }
};
static const Field part_rows[] = {
    TEXT(ToyPart, label, REQUIRED, 10, "Label", "标签"),
    REF(ToyPart, box, 0, "toy_box", REF_RESTRICT, "Where it lies", "所在盒子"),
    INT(ToyPart, n, 0, 1, 9, "How many", "数量", .fallback = "1"),
    { 0 }
};
static const Field file_rows[] = {
    TEXT(ToySource, path, REQUIRED, 20, "Path", "路径"),
    { 0 }
};
static const Field url_rows[] = {
    TEXT(ToySource, url, REQUIRED, 20, "Address", "地址"),
    INT(ToySource, retries, 0, 0, 5, "Retries", "重试", .fallback = "3"),
    { 0 }
};
static const UnionCase source_cases[] = {
    [SOURCE_FILE] = { "file", file_rows }, [SOURCE_URL] = { "url", url_rows }, { 0 }
};
static const Union source_union = { "type", offsetof(ToySource, kind), source_cases };
const Field toy_rows[] = {
    TEXT(Toy, title, SEARCHED | INDEXED | COLUMN, 10, "Title", "标题"),
    TEXT(Toy, shelf, IMMUTABLE, 10, "Shelf", "架子", .min = 2),
    INT(Toy, count, INDEXED, 1, 100, "Count", "数量", .fallback = "5"),
    ROW(Toy, due, T_TIME, INDEXED, "Due", "到期"),
    ROW(Toy, cost, T_MONEY, INDEXED, "Cost", "费用", .max = 10000000000),
    ROW(Toy, ratio, T_REAL, INDEXED, "Ratio", "比例"),
    BOOL(Toy, on, INDEXED, "On", "开"),
    ENUM(Toy, colour, INDEXED, colours, "Colour", "颜色"),
    REF(Toy, box, INDEXED, "toy_box", REF_RESTRICT, "Where it lies", "所在盒子"),
    REF(Toy, twin, 0, "toy", REF_CASCADE, "What it goes with", "所附玩具"),
    OBJECT(Toy, size, 0, size_rows, "Size", "尺寸"),
    LIST(Toy, parts, ToyPart, 0, part_rows, 0, 3, "Parts", "部件"),
    LIST(Toy, tags, str, SORTED_SET, text_item, 0, 4, "Tags", "标签"),
    UNION(Toy, source, 0, &source_union, "Source", "来源"),
    ROW(Toy, pass, T_SECRET, 0, "Pass", "口令", .max = 20),
    ROW(Toy, digest, T_BLOB, 0, "Digest", "摘要"),
    ROW(Toy, extra, T_JSON, 0, "Extra", "附加", .max = 40),
    INT(Toy, total, STATUS, 0, INT64_MAX, "Total", "合计"),
    TEXT(Toy, hash, STATUS | HIDDEN | INDEXED, 64, "Hash", "哈希"),
    TEXT(Toy, ticket, STATUS | ONCE, 20, "Ticket", "票据"),
    { 0 }
};
static const Field box_rows[] = { TEXT(ToyBox, title, COLUMN, 20, "Title", "标题"), { 0 } };
static const Field robot_rows[] = {
    INT(Robot, wish, 0, 0, 9, "Wish", "期望", .fallback = "0"),
    INT(Robot, seen, STATUS, 0, 9, "Seen", "实际"),
    REF(Robot, toy, 0, "toy", REF_SOFT, "What it plays with", "所玩的玩具"),
    { 0 }
};
// clang-format on

static err toy_check(Ctx *c, Tx *tx, const void *old, void *now) {
    Toy *t = now;
    (void)tx;
    if (!t) return ERR_OK;
    if (str_is(t->title, "forbidden")) return fail(c, ERR_CONFLICT, R_INTERNAL, "why", "the hook");
    t->total = t->count * (t->size.w == UNSET_INT ? 1 : t->size.w);
    if (!old) t->ticket = S("one-time");
    return ERR_OK;
}

static err toy_stage(Ctx *c, Tx *tx, const void *old, const void *now) {
    static SQL(note_stage, "INSERT INTO toy_note (verb, subject) VALUES ($1, $2)");
    const Head *h = now ? now : old;
    return db_run(c, tx, &note_stage, V(!old ? "stage+" : now ? "stage=" : "stage-"), V(h->id));
}

typedef struct WindInput {
    int64_t turns;
} WindInput;
static const Field wind_rows[] = { INT(WindInput, turns, REQUIRED, 1, 9, "Turns", "圈数"), { 0 } };

static err toy_wind(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)c, (void)tx, (void)out_job;
    ((Toy *)row)->count += ((const WindInput *)input)->turns;
    return ERR_OK;
}
static err toy_ship(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)c, (void)tx, (void)row, (void)input;
    *out_job = S("job_1");
    return ERR_OK;
}
static const Action toy_actions[] = { { "wind", ACTION_SYNC, toy_wind, wind_rows, sizeof(WindInput),
                                        "Wind", "上发条" },
                                      { "ship", ACTION_JOB, toy_ship, NULL, 0, "Ship", "发货" },
                                      { 0 } };
const Resource toy = { .name = "toy",
                       .plural = "toys",
                       .prefix = "toy",
                       .scope = SCOPE_PROJECT,
                       .size = sizeof(Toy),
                       .fields = toy_rows,
                       .actions = toy_actions,
                       .check = toy_check,
                       .stage = toy_stage,
                       .en = "A toy",
                       .zh = "玩具" };
const Resource toy_box = { .name = "toy_box",
                           .plural = "toy_boxes",
                           .prefix = "box",
                           .scope = SCOPE_ORG,
                           .size = sizeof(ToyBox),
                           .fields = box_rows,
                           .en = "A box",
                           .zh = "盒子" };
const Resource robot = { .name = "robot",
                         .plural = "robots",
                         .prefix = "robot",
                         .scope = SCOPE_PROJECT,
                         .flags = RES_RECONCILED,
                         .size = sizeof(Robot),
                         .fields = robot_rows,
                         .en = "A robot",
                         .zh = "机器人" };
static const Resource *const resources[] = { &toy, &toy_box, &robot, NULL };
static const Module toy_module = {
    .name = "toy", .needs = "", .resources = resources, .en = "Toys", .zh = "玩具"
};
const Module *const toy_modules[] = { &toy_module, NULL };

#define HEAD_END                                                                   \
    "revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT " \
    "NULL, created_by TEXT);"
static const Migration migrations[] = {
    { 1,
      "CREATE TABLE toys (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, project TEXT "
      "NOT NULL, title TEXT, shelf TEXT, count BIGINT, due BIGINT, cost BIGINT, ratio REAL, \"on\" "
      "BIGINT NOT NULL, colour TEXT, box TEXT, twin TEXT, size TEXT, parts TEXT, tags TEXT, source "
      "TEXT, pass TEXT, digest TEXT, extra TEXT, total BIGINT, hash TEXT, " HEAD_END
      "CREATE UNIQUE INDEX toys_name ON toys (project, name);"
      "CREATE TABLE toy_boxes (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, title "
      "TEXT, " HEAD_END "CREATE UNIQUE INDEX toy_boxes_name ON toy_boxes (org, name);"
      "CREATE TABLE robots (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, project "
      "TEXT NOT NULL, wish BIGINT, seen BIGINT, toy TEXT, generation BIGINT NOT NULL, "
      "observed_generation BIGINT, deleting_at BIGINT, conditions TEXT, " HEAD_END
      "CREATE UNIQUE INDEX robots_name ON robots (project, name);"
      "CREATE TABLE toy_note (verb TEXT NOT NULL, subject TEXT NOT NULL);",
      NULL },
};

// ---- the program

static err note_audit(Ctx *c, Tx *tx, const AuditEntry *e) {
    static SQL(note_audit_add, "INSERT INTO toy_note (verb, subject) VALUES ($1, $2)");
    TRY(db_run(c, tx, &note_audit_add, V(e->verb), V(e->id)));
    return db_run(c, tx, &note_audit_add, V(str_n("change", 6)), V(e->change));
}

static str turned(Ctx *c, str s, char first) {
    char *p = new (c->mem, char, s.n + 2);
    size_t n = 0;
    if (first) p[n++] = first;
    for (size_t i = s.n; i--;) p[n++] = s.p[i];
    return str_n(p, n);
}
static err seal(Ctx *c, str plain, str aad, str *out) {
    (void)aad;
    *out = turned(c, plain, SEALED_MARK);
    return ERR_OK;
}
static err unseal(Ctx *c, str sealed, str aad, str *out) {
    (void)aad;
    *out = turned(c, str_sub(sealed, 1, sealed.n), 0);
    return ERR_OK;
}

static err open_database(ToyFix *f) {
    Ctx *c = f->c;
    str url;
    TRY(suite_database(c, f->kind, &url));
    TRY(db_open(c, &(DbConfig){ .url = url }, &f->app.db));
    c->db = f->app.db;
    TRY(lease_migrate(c, c->db));
    TRY(db_migrate(c, c->db, "event", event_migrations, event_migrations_n));
    TRY(db_migrate(c, c->db, "kit", res_migrations, res_migrations_n));
    return db_migrate(c, c->db, "toy", migrations, countof(migrations));
}

static void run(ToyFix *f, void (*fn)(ToyFix *f)) {
    CHECK_OK(f->c, open_database(f));
    fn(f);
}

void toy_run(DbKind kind, void (*fn)(ToyFix *f)) {
    static const Identity somebody = { .kind = WHO_USER, .id = { "u_1", 3 }, .name = { "sam", 3 } };
    ToyFix *f = mem_new(sizeof *f);
    tables_init(toy_modules);
    f->kind = kind, f->app.os = os_real(), f->app.modules = toy_modules;
    f->app.audit = note_audit, f->app.seal = seal, f->app.unseal = unseal;
    f->c = test_ctx();
    f->c->os = os_real(), f->c->app = &f->app, f->c->who = &somebody;
    toy_enter(f, "o1", "p1");
    run(f, fn);
    db_close(f->app.db);
    mem_free(f);
}

void toy_enter(ToyFix *f, const char *org, const char *project) {
    f->c->org = str_z(org), f->c->project = str_z(project);
}

// ---- rows

typedef struct Do {
    const Resource *r;
    const void *old;
    void *row;
    str id;
    const ListSpec *spec;
    void **rows;
    size_t *n;
    str *next;
} Do;

static err create_tx(Ctx *c, Tx *tx, void *arg) {
    Do *d = arg;
    return res_create(c, tx, d->r, d->row);
}
static err get_tx(Ctx *c, Tx *tx, void *arg) {
    Do *d = arg;
    return res_get(c, tx, d->r, d->id, d->row);
}
static err update_tx(Ctx *c, Tx *tx, void *arg) {
    Do *d = arg;
    return res_update(c, tx, d->r, d->old, d->row);
}
static err delete_tx(Ctx *c, Tx *tx, void *arg) {
    Do *d = arg;
    TRY(res_get(c, tx, d->r, d->id, d->row));
    return res_delete(c, tx, d->r, d->row);
}
static err purge_tx(Ctx *c, Tx *tx, void *arg) {
    Do *d = arg;
    TRY(res_get(c, tx, d->r, d->id, d->row));
    return res_purge(c, tx, d->r, d->row);
}
static err list_tx(Ctx *c, Tx *tx, void *arg) {
    Do *d = arg;
    ListPage page;
    TRY(res_list(c, tx, d->r, d->spec, &page));
    *d->rows = page.rows, *d->n = page.n, *d->next = page.cursor;
    return ERR_OK;
}

Toy *toy_new(ToyFix *f, const char *name) {
    Toy *t = row_new(f->c, table_of(&toy));
    t->head.name = str_z(name);
    return t;
}
err toy_create(ToyFix *f, const Resource *r, void *row) {
    return db_tx(f->c, f->app.db, create_tx, &(Do){ .r = r, .row = row });
}
err toy_get(ToyFix *f, const Resource *r, str id, void *out) {
    return db_read(f->c, f->app.db, get_tx, &(Do){ .r = r, .row = out, .id = id });
}
err toy_update(ToyFix *f, const Resource *r, const void *old, void *now) {
    return db_tx(f->c, f->app.db, update_tx, &(Do){ .r = r, .old = old, .row = now });
}
err toy_delete(ToyFix *f, const Resource *r, const char *name) {
    Do d = { .r = r, .id = str_z(name), .row = row_new(f->c, table_of(r)) };
    return db_tx(f->c, f->app.db, delete_tx, &d);
}
err toy_purge(ToyFix *f, const Resource *r, const char *name) {
    Do d = { .r = r, .id = str_z(name), .row = row_new(f->c, table_of(r)) };
    return db_tx(f->c, f->app.db, purge_tx, &d);
}
err toy_list(ToyFix *f, const Resource *r, const ListSpec *spec, void **out, size_t *n, str *next) {
    Do d = { .r = r, .spec = spec, .rows = out, .n = n, .next = next };
    return db_read(f->c, f->app.db, list_tx, &d);
}

typedef struct Count {
    Sql sql;
    Val arg;
    size_t n;
    int64_t out;
} Count;
static err count_tx(Ctx *c, Tx *tx, void *arg) {
    Count *x = arg;
    Rows *rows;
    TRY(db_one(c, tx, &rows, &x->sql, &x->arg, x->n));
    x->out = col_int(rows, 0);
    return ERR_OK;
}
int64_t toy_count(ToyFix *f, const char *sql, const char *arg) {
    Count *x = new (f->c->mem, Count, 1);
    *x = (Count){ { "toy_count", sql, NULL }, V(arg), arg != NULL, -1 };
    if (db_read(f->c, f->app.db, count_tx, x)) test_failed(__FILE__, __LINE__, "%s", sql);
    return x->out;
}

const char *toy_reason(ToyFix *f) { return f->c->failure.why ? f->c->failure.why->slug : ""; }
const char *toy_param(ToyFix *f, const char *name) {
    return say_str(f->c, failure_param(&f->c->failure, name));
}
