// SPDX-License-Identifier: Apache-2.0
// price.c - what things cost: price rows in the snapshot, and the one rounding of a cost.
#include "mod/usage/usage_own.h"
#include "base/map.h"

typedef struct PriceView {
    Map by_name;
} PriceView; // "<project>/<model>"

static err part_query(Ctx *c, Tx *tx, Json *out) {
    static SQL(
        prices_all,
        "SELECT p.id, r.id, r.model, r.currency, r.input, r.cached, r.output, r.machine_second "
        "FROM prices r "
        "JOIN projects p ON p.org = r.org AND (r.price_project IS NULL OR r.price_project = p.id) "
        "ORDER BY p.id, r.model, CASE WHEN r.price_project IS NULL THEN 0 ELSE 1 END, r.id");
    static const char *const names[] = { "project", "id",     "model",  "currency",
                                         "input",   "cached", "output", "machine_second" };
    Rows *rows;
    bool more;
    json_arr(out);
    TRY(db_query(c, tx, &prices_all, NULL, 0, &rows));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        json_obj(out);
        for (int i = 0; i < 4; i++) json_kv_str(out, names[i], col_str(rows, i));
        for (int i = 4; i < 8; i++) json_kv_i64(out, names[i], col_int(rows, i));
        if (col_null(rows, 5)) json_kv_bool(out, "uncached", true);
        json_end_obj(out);
    }
    json_end_arr(out);
    return ERR_OK;
}

static void view_done(void *v) { map_done(&((PriceView *)v)->by_name); }

static str price_key(Arena *mem, str project, str model) {
    return arena_printf(mem, STR_FMT "/" STR_FMT, STR_ARG(project), STR_ARG(model));
}

static err part_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    PriceView *v = new (mem, PriceView, 1);
    size_t i, n;
    yyjson_val *row;
    (void)c;
    map_init(&v->by_name, 0x7072);
    arena_defer(mem, view_done, v);
    yyjson_arr_foreach(in, i, n, row) {
        Price *p = new (mem, Price, 1);
        p->id = json_get_str(row, "id"), p->currency = json_get_str(row, "currency");
        json_get_i64(row, "input", &p->input_nano), json_get_i64(row, "output", &p->output_nano);
        json_get_i64(row, "machine_second", &p->machine_second_nano);
        if (json_get_bool(row, "uncached", false)) p->cached_nano = p->input_nano;
        else json_get_i64(row, "cached", &p->cached_nano);
        map_set(&v->by_name,
                price_key(mem, json_get_str(row, "project"), json_get_str(row, "model")),
                p); // a project's own comes last
    }
    *out = v;
    return ERR_OK;
}
const SnapshotPart usage_part = { "prices", part_query, part_compile };

const Price *usage_price(const Snapshot *s, str project, str model) {
    const PriceView *v = snapshot_get(s, &usage_part);
    char name[512];
    if (!v->by_name.live || project.n + model.n + 1 > sizeof name) return NULL;
    memcpy(name, project.p, project.n);
    name[project.n] = '/';
    memcpy(name + project.n + 1, model.p, model.n);
    return map_get(&v->by_name, str_n(name, project.n + model.n + 1));
}

void usage_priced(RequestRecord *r, const Price *p) {
    static const Price none;
    if (!p) p = &none;
    r->currency = p->currency, r->price_id = p->id, r->priced = true;
    r->rate_input = p->input_nano, r->rate_cached = p->cached_nano;
    r->rate_output = p->output_nano, r->rate_machine = p->machine_second_nano;
}

int64_t usage_cost(const Price *p, int64_t prompt, int64_t cached, int64_t completion,
                   int64_t machine_us) {
    if (cached > prompt) cached = prompt;
    __int128 millionths =
        (__int128)(prompt - cached) * p->input_nano + (__int128)cached * p->cached_nano
        + (__int128)completion * p->output_nano + (__int128)machine_us * p->machine_second_nano;
    __int128 nano = millionths / 1000000, rest = millionths % 1000000;
    if (rest > 500000 || (rest == 500000 && nano & 1)) nano++; // half to even
    return nano > INT64_MAX ? INT64_MAX : (int64_t)nano;
}
