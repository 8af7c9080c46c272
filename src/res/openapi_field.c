// SPDX-License-Identifier: Apache-2.0
// openapi_field.c - JSON Schema (2020-12) of field rows. Limits are those that field.c enforces:
// lengths of text count characters, as maxLength does.
// Threads: any; rows are constants.
#include "base/time.h"
#include "res/field_impl.h"
#include "res/openapi.h"
#include <assert.h>
#include <stdio.h>

#define NAME_PATTERN "^[A-Za-z0-9][A-Za-z0-9._-]*$"

// Answers never hold null for these; the rest may be unset.
static bool may_be_null(const Field *f, SchemaUse use) {
    if (use == SCHEMA_PARAM || f->type == T_BOOL || f->type == T_OBJECT || f->type == T_LIST)
        return false;
    if (use == SCHEMA_PATCH) return !(f->flags & REQUIRED);
    return use == SCHEMA_SHOW && (f->flags & STATUS || !(f->flags & REQUIRED));
}

static bool is_shown(const Field *f, SchemaUse use) {
    if (f->flags & HIDDEN) return false;
    if (use == SCHEMA_SHOW) return f->type != T_SECRET;
    if (use == SCHEMA_PATCH && f->flags & IMMUTABLE) return false;
    return use == SCHEMA_PARAM || !(f->flags & STATUS);
}

static void type_of(Json *j, const char *type, bool null) {
    json_key(j, "type");
    if (!null) {
        json_put_str(j, str_z(type));
        return;
    }
    json_arr(j);
    json_put_str(j, str_z(type));
    json_put_str(j, S("null"));
    json_end_arr(j);
}

static void text_limits(const Field *f, Json *j) {
    if (field_min(f)) json_kv_i64(j, "minLength", field_min(f));
    json_kv_i64(j, "maxLength", field_max(f));
}

static bool is_name(const Field *f) {
    return f->type == T_TEXT && f->flags & UNIQUE && !strcmp(f->name, "name");
}

static void text_schema(const Field *f, Json *j, bool null) {
    type_of(j, "string", null);
    switch (f->type) {
    case T_TIME: json_kv_z(j, "format", "date-time"); break;
    case T_BLOB: json_kv_z(j, "pattern", "^[0-9a-f]{64}$"); break;
    case T_MONEY:
        json_kv_z(j, "pattern",
                  field_min(f) < 0 ? "^-?[0-9]{1,10}(\\.[0-9]{1,9})?$"
                                   : "^[0-9]{1,10}(\\.[0-9]{1,9})?$");
        break;
    default:
        text_limits(f, j);
        if (is_name(f)) json_kv_z(j, "pattern", NAME_PATTERN);
    }
}

static void money_limits(const Field *f, Json *j) {
    Arena *a = arena_new();
    json_kv_str(j, "x-minimum", money_format(a, field_min(f)));
    json_kv_str(j, "x-maximum", money_format(a, field_max(f)));
    arena_free(a);
}

static void enum_schema(const Field *f, Json *j, bool null) {
    type_of(j, "string", null);
    json_key(j, "enum");
    json_arr(j);
    for (const char *const *z = enum_names(f); *z; z++) json_put_str(j, str_z(*z));
    if (null) json_put_null(j);
    json_end_arr(j);
}

// What the answer to a change may have beside the rows: advice.h.
static const char warnings_schema[] =
    "{\"type\":\"array\",\"readOnly\":true,\"description\":\"What to know about this change; in "
    "its "
    "answer only\",\"x-description-zh\":\"有关本次变更的提示；仅见于其应答\",\"items\":{\"type\":"
    "\"object\",\"properties\":{\"reason\":{\"type\":\"string\"},\"message\":{\"type\":\"string\"}}"
    ","
    "\"required\":[\"reason\",\"message\"],\"additionalProperties\":false}}";

static void members(const Field *rows, Json *j, SchemaUse use, const char *tag, const char *value) {
    type_of(j, "object", false);
    json_key(j, "properties");
    json_obj(j);
    if (use == SCHEMA_CHANGED)
        json_kv_raw(j, "warnings", str_z(warnings_schema)), use = SCHEMA_SHOW;
    if (tag) {
        json_key(j, tag);
        json_obj(j);
        type_of(j, "string", false);
        json_kv_z(j, "const", value);
        json_end_obj(j);
    }
    for (const Field *f = rows; f && f->name; f++) {
        if (!is_shown(f, use)) continue;
        json_key(j, f->name);
        field_schema(f, j, use);
    }
    json_end_obj(j);
    json_key(j, "required");
    json_arr(j);
    if (tag && use != SCHEMA_PATCH) json_put_str(j, str_z(tag));
    for (const Field *f = rows; f && f->name; f++)
        if (is_shown(f, use)
            && (use == SCHEMA_SHOW || (use == SCHEMA_CREATE && f->flags & REQUIRED)))
            json_put_str(j, str_z(f->name));
    json_end_arr(j);
    json_kv_bool(j, "additionalProperties", false);
}

void fields_schema(const Field *rows, Json *j, SchemaUse use) {
    json_obj(j);
    members(rows, j, use, NULL, NULL);
    json_end_obj(j);
}

static void list_schema(const Field *f, Json *j, SchemaUse use) {
    const Field *rows = f->of;
    // A patch replaces a list as a whole, so its items are made anew.
    SchemaUse items = use == SCHEMA_PATCH ? SCHEMA_CREATE : use;
    type_of(j, "array", use == SCHEMA_PATCH && !(f->flags & REQUIRED));
    json_key(j, "items");
    if (*rows->name) fields_schema(rows, j, items);
    else field_schema(rows, j, SCHEMA_PARAM);
    if (use != SCHEMA_SHOW && field_min(f)) json_kv_i64(j, "minItems", field_min(f));
    json_kv_i64(j, "maxItems", field_max(f));
    if (f->flags & SORTED_SET && use == SCHEMA_SHOW) json_kv_bool(j, "uniqueItems", true);
}

// The tag stands beside the members of its case: {"kind": "weighted", "weight": 3}.
static void union_schema(const Field *f, Json *j, SchemaUse use) {
    const Union *u = f->of;
    json_key(j, use == SCHEMA_PATCH ? "anyOf" : "oneOf");
    json_arr(j);
    for (const UnionCase *one = u->cases; one->tag; one++) {
        json_obj(j);
        members(one->rows, j, use, u->tag, one->tag);
        json_end_obj(j);
    }
    if (may_be_null(f, use)) {
        json_obj(j);
        type_of(j, "null", false);
        json_end_obj(j);
    }
    json_end_arr(j);
}

static void put_default(const Field *f, Json *j) {
    str text = str_z(f->fallback);
    json_key(j, "default");
    switch (f->type) {
    case T_INT:
    case T_REAL:
    case T_OBJECT:
    case T_LIST:
    case T_UNION:
    case T_JSON: json_put_raw(j, text); break;
    case T_BOOL: {
        bool yes = false;
        bool ok = str_to_bool(text, &yes);
        assert(ok);
        json_put_bool(j, yes);
        break;
    }
    default: json_put_str(j, text);
    }
}

static void about(const Field *f, Json *j, SchemaUse use) {
    if (use != SCHEMA_PARAM) { // a parameter says it itself
        json_kv_z(j, "description", f->en);
        if (f->zh) json_kv_z(j, "x-description-zh", f->zh);
    }
    if (f->fallback && (use == SCHEMA_CREATE || use == SCHEMA_PARAM)) put_default(f, j);
    if (f->flags & STATUS && use == SCHEMA_SHOW) json_kv_bool(j, "readOnly", true);
    if (f->type == T_SECRET && use != SCHEMA_SHOW) json_kv_bool(j, "writeOnly", true);
    if (f->type == T_REF) json_kv_z(j, "x-reference", f->of);
    if (f->type == T_MONEY) money_limits(f, j);
    if (f->flags & IMMUTABLE) json_kv_bool(j, "x-immutable", true);
}

void field_schema(const Field *f, Json *j, SchemaUse use) {
    bool null = may_be_null(f, use);
    json_obj(j);
    switch (f->type) {
    case T_INT:
        type_of(j, "integer", null);
        json_kv_z(j, "format", "int64");
        json_kv_i64(j, "minimum", field_min(f));
        json_kv_i64(j, "maximum", field_max(f));
        break;
    case T_REAL: type_of(j, "number", null); break;
    case T_BOOL: type_of(j, "boolean", use == SCHEMA_PATCH && !(f->flags & REQUIRED)); break;
    case T_ENUM: enum_schema(f, j, null); break;
    case T_OBJECT: members(f->of, j, use, NULL, NULL); break;
    case T_LIST: list_schema(f, j, use); break;
    case T_UNION: union_schema(f, j, use); break;
    case T_JSON: type_of(j, "object", null); break;
    default: text_schema(f, j, null);
    }
    about(f, j, use);
    json_end_obj(j);
}
