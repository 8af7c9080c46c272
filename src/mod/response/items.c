// SPDX-License-Identifier: Apache-2.0
// items.c - what a request said, as a list of items: a text becomes a user's message, content
// becomes parts, and whatever came without an id gets one of its place, so that it can be listed
// page by page. Nothing else is changed. Threads: any.
#include "mod/response/response_own.h"

static str item_type(yyjson_val *item) {
    str type = json_get_str(item, "type");
    return type.n ? type : S("message");
}

static void write_id(yyjson_val *item, str response_id, size_t i, Json *out) {
    static const struct {
        const char *type, *prefix;
    } prefixes[] = { { "message", "msg" },
                     { "function_call", "fc" },
                     { "function_call_output", "fco" },
                     { "reasoning", "rs" } };
    str type = item_type(item), own = json_get_str(item, "id");
    const char *prefix = "item";
    char text[200];
    if (own.n) {
        json_kv_str(out, "id", own);
        return;
    }
    for (size_t k = 0; k < countof(prefixes); k++)
        if (str_is(type, prefixes[k].type)) prefix = prefixes[k].prefix;
    ptrdiff_t bare = str_find_char(response_id, '_') + 1;
    snprintf(text, sizeof text, "%s_" STR_FMT "_%zu", prefix,
             STR_ARG(str_sub(response_id, (size_t)bare, 64)), i);
    json_kv_z(out, "id", text);
}

static void write_text(str text, bool models, Json *out) {
    json_arr(out), json_obj(out);
    json_kv_z(out, "type", models ? "output_text" : "input_text"), json_kv_str(out, "text", text);
    if (models) json_key(out, "annotations"), json_arr(out), json_end_arr(out);
    json_end_obj(out), json_end_arr(out);
}

static void write_item(yyjson_val *item, str response_id, size_t i, Json *out) {
    bool message = str_is(item_type(item), "message");
    size_t k, n;
    yyjson_val *key, *v;
    json_obj(out);
    json_kv_str(out, "type", item_type(item));
    write_id(item, response_id, i, out);
    yyjson_obj_foreach(item, k, n, key, v) {
        str name = json_str(key);
        if (str_is(name, "type") || str_is(name, "id")) continue;
        json_key_str(out, name);
        if (message && str_is(name, "content") && yyjson_is_str(v))
            write_text(json_str(v), str_is(json_get_str(item, "role"), "assistant"), out);
        else json_put_val(out, v);
    }
    if (message && !json_get(item, "status")) json_kv_z(out, "status", "completed");
    json_end_obj(out);
}

void items_write(yyjson_val *input, str response_id, Json *out) {
    size_t i, n;
    yyjson_val *item;
    json_arr(out);
    if (yyjson_is_str(input)) {
        json_obj(out), json_kv_z(out, "type", "message");
        write_id(NULL, response_id, 0, out);
        json_kv_z(out, "role", "user"), json_key(out, "content");
        write_text(json_str(input), false, out);
        json_kv_z(out, "status", "completed"), json_end_obj(out);
    }
    yyjson_arr_foreach(input, i, n, item) write_item(item, response_id, i, out);
    json_end_arr(out);
}

err items_add(Ctx *c, str json, const char *member, Buf *to) {
    size_t i, n;
    yyjson_val *root, *item;
    Json j = json_to(to);
    TRY(json_parse(c, json, &root));
    yyjson_val *list = member ? json_get(root, member) : root;
    yyjson_arr_foreach(list, i, n, item) {
        if (to->n) buf_add_char(to, ',');
        json_put_val(&j, item);
    }
    return ERR_OK;
}
