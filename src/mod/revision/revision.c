// SPDX-License-Identifier: Apache-2.0
// revision.c - rows of what objects were, written in the transaction of each change, and the way
// back: a revision restored is a change like any other, so it is checked, audited, told of and a
// revision itself. Secrets lie sealed in what is kept, bound to their object, and are never shown.
// Owner: the call's arena. Threads: workers.
#include "mod/revision/revision.h"
#include "res/app.h"

enum { KEPT_MAX = 200 }; // of one object

typedef struct Revision {
    Head head;
    str kind, subject, subject_name, verb, actor, actor_name, change, wish, kept;
    int64_t number, restored_at;
} Revision;

#define REVISION_REASONS(X)                                                             \
    X(SUBJECT_GONE, "subject_gone",                                                     \
      "{kind} {name} of this revision was deleted: create it anew from the revision's " \
      "`wish`",                                                                         \
      "该修订所属的 {kind} {name} 已删除：请按修订中的 `wish` 重新创建")                \
    X(WISH_OLD, "wish_not_fit", "revision {number} no longer fits: {why}",              \
      "修订 {number} 与当前版本不再兼容：{why}")
REASONS_DECLARE(REVISION_REASONS)
REASONS_DEFINE(REVISION_REASONS, revision_reasons)

// ---- keeping
static str wish_of(Ctx *c, const Resource *r, const void *row, FieldsShow show) {
    Buf b;
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    json_obj(&j);
    for (const Field *f = r->fields; row && f->name; f++) {
        if (f->flags & (STATUS | HIDDEN | ONCE)) continue;
        json_key(&j, f->name), field_write(f, row, &j, show);
    }
    json_end_obj(&j);
    str text = b.full ? (str){ 0 } : arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

static err history(Ctx *c, Tx *tx, const AuditEntry *e, const Resource *r, const void *now) {
    static SQL(add, "INSERT INTO revisions (id, org, project, kind, subject, subject_name, number, "
                    "verb, actor, "
                    "actor_name, change, wish, kept, revision, created_at, updated_at, created_by) "
                    "VALUES ($1, $2, "
                    "$3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1, $14, $14, $9)");
    static SQL(trim, "DELETE FROM revisions WHERE project = $1 AND subject = $2 AND number <= $3");
    const Head *h = now;
    const Identity *who = c->who;
    int64_t number = h ? h->revision : 0;
    TRY(db_run(c, tx, &add, V(os_id(c, "rev")), V(c->org), V(c->project), V(e->kind), V(e->id),
               V(e->name), V(number), V(e->verb), V(who ? who->id : (str){ 0 }),
               V(who ? who->name : (str){ 0 }), V(e->change), V(wish_of(c, r, now, SHOW_CHANGE)),
               V(wish_of(c, r, now, SHOW_STORE)), V(os_wall_ms(c->os))));
    return number > KEPT_MAX ? db_run(c, tx, &trim, V(c->project), V(e->id), V(number - KEPT_MAX))
                             : ERR_OK;
}

// ---- the way back
static err load(Ctx *c, Tx *tx, const Revision *v, const Resource *r, void *old) {
    err e = res_get(c, tx, r, v->subject, old);
    if (e != ERR_NOTFOUND) return e;
    return fail(c, ERR_CONFLICT, R_SUBJECT_GONE, "kind", r->name, "name",
                say_str(c, v->subject_name));
}

static err fill(Ctx *c, const Revision *v, const Resource *r, void *now) {
    yyjson_val *wish;
    if (!v->kept.n)
        return fail(c, ERR_CONFLICT, R_WISH_OLD, "number", say(c, "%lld", (long long)v->number),
                    "why", "it was too large to be kept");
    TRY(json_parse(c, v->kept, &wish));
    if (!fields_read(c, r->fields, now, wish, FIELDS_LOAD)) return ERR_OK;
    Buf why;
    buf_init(&why, 8192);
    failure_format(&c->failure, c->lang, &why);
    const char *text = say_str(c, buf_str(&why));
    buf_done(&why);
    return fail(c, ERR_CONFLICT, R_WISH_OLD, "number", say(c, "%lld", (long long)v->number), "why",
                text);
}

static err restore(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)input, (void)out_job;
    Revision *v = row;
    const Resource *r = resource_find(arena_z(c->mem, v->kind));
    if (!r || !v->number)
        return fail(c, ERR_CONFLICT, R_SUBJECT_GONE, "kind", say_str(c, v->kind), "name",
                    say_str(c, v->subject_name));
    TRY(require(c, resource_permission(c->mem, r, "update").p, v->subject));
    void *old = arena_alloc(c->mem, r->size, _Alignof(max_align_t));
    void *now = arena_alloc(c->mem, r->size, _Alignof(max_align_t));
    TRY(load(c, tx, v, r, old));
    TRY(load(c, tx, v, r, now));
    TRY(fill(c, v, r, now));
    TRY(res_update(c, tx, r, old, now));
    v->restored_at = os_wall_ms(c->os);
    return ERR_OK;
}

// ---- rows
// clang-format off
static const Field rows[] = {
    TEXT(Revision, kind, STATUS | INDEXED | COLUMN, 100, "Kind of the object", "对象类型"),
    TEXT(Revision, subject, STATUS | INDEXED, 100, "Which object", "对象标识"),
    TEXT(Revision, subject_name, STATUS | COLUMN, 300, "Which object, by name", "对象名称"),
    INT(Revision, number, STATUS | COLUMN, 0, INT64_MAX, "The object's revision; 0: it was deleted",
        "对象的修订号；0 表示被删除"),
    TEXT(Revision, verb, STATUS | COLUMN, 100, "What was done", "操作"),
    TEXT(Revision, actor, STATUS, 100, "Who", "操作者标识"),
    TEXT(Revision, actor_name, STATUS | COLUMN, 300, "Who, by name", "操作者"),
    ROW(Revision, change, T_JSON, STATUS, "Each changed field: before and after", "字段变化：前后值",
        .max = 1 << 20),
    ROW(Revision, wish, T_JSON, STATUS, "What the object was from then on; secrets are masked",
        "自此之后的对象内容；机密已遮盖", .max = 1 << 20),
    ROW(Revision, kept, T_JSON, STATUS | HIDDEN, "The same, with its secrets sealed", "同上，机密为密封形式",
        .max = 1 << 20),
    ROW(Revision, restored_at, T_TIME, STATUS, "When it was last brought back", "最近一次恢复的时间"),
    { 0 }
};
static const Action actions[] = {
    { "restore", ACTION_SYNC, restore,
      .en = "Make the object what it was; asks for the permission to change it",
      .zh = "将对象恢复为该修订的内容；需要修改该对象的权限" },
    { 0 }
};
static const Resource revision_resource = {
    .name = "revision", .plural = "revisions", .prefix = "rev", .scope = SCOPE_PROJECT,
    .flags = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE | RES_NO_DELETE | RES_LOG
             | RES_IN_SNAPSHOT,
    .size = sizeof(Revision), .fields = rows, .actions = actions,
    .en = "What an object was, and the way back to it", .zh = "对象的历史修订，可据此恢复",
};
static const Resource *const resources[] = { &revision_resource, NULL };
static const Migration migrations[] = {
    { 1,
      "CREATE TABLE revisions (id TEXT PRIMARY KEY, org TEXT NOT NULL, project TEXT NOT NULL, "
      "kind TEXT NOT NULL, "
      "subject TEXT NOT NULL, subject_name TEXT, number BIGINT NOT NULL, verb TEXT NOT NULL, "
      "actor TEXT, "
      "actor_name TEXT, change TEXT, wish TEXT, kept TEXT, restored_at BIGINT, revision BIGINT "
      "NOT NULL, "
      "created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, created_by TEXT);"
      LIST_IDS("revisions", "project")
      "CREATE INDEX revisions_subject ON revisions (project, subject, number);", NULL },
};
static err init(Ctx *c) {
    app_of(c)->history = history;
    return ERR_OK;
}
const Module revision_module = {
    .name = "revision", .needs = "", .resources = resources, .migrations = migrations,
    .migrations_n = countof(migrations), .reasons = revision_reasons, .init = init,
    .en = "What objects were, and the way back", .zh = "对象的历史与恢复",
};
// clang-format on
