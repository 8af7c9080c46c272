// SPDX-License-Identifier: Apache-2.0
// field.h - what a C struct's members mean to everyone else: name, type, limits, documentation.
// From these rows come validation, JSON, SQL columns, OpenAPI, CLI flags, console forms and
// conformance tests. Rows are constants; any thread.
//
// In the struct: TEXT, ID, REF, BLOB, SECRET and JSON are `str` (absent = unset); INT and MONEY
// int64_t (UNSET_INT); REAL double (NaN); BOOL bool; TIME int64_t Unix ms (0); ENUM int, an index
// into its names (-1); OBJECT the struct itself; LIST a pointer and a size_t count beside it; UNION
// a struct that holds its tag (int) and a member for each case. In SQL: scalars have a column of
// the field's name; OBJECT, LIST, UNION and JSON are TEXT that holds JSON. In JSON: TIME is RFC
// 3339, MONEY a decimal string ("0.25"), everything else what one expects. Secrets are never
// written out.
#ifndef LATHE_RES_FIELD_H
#define LATHE_RES_FIELD_H
#include "base/json.h"
#include <math.h>

typedef enum {
    T_TEXT,
    T_ID,
    T_INT,
    T_REAL,
    T_BOOL,
    T_TIME,
    T_MONEY,
    T_ENUM,
    T_REF,
    T_OBJECT,
    T_LIST,
    T_UNION,
    T_BLOB,
    T_SECRET,
    T_JSON,
    T__COUNT
} Type;
const char *type_name(Type t); // "text" …

#define UNSET_INT INT64_MIN
#define SEALED_MARK '\1' // first byte of a SECRET as it is stored
enum {
    REQUIRED = 1u,     // must be given on create
    UNIQUE = 2u,       // within the scope; the table has the index
    INDEXED = 4u,      // may be filtered and sorted by; the table has the index
    STATUS = 8u,       // what is, written by the system; else a wish (spec)
    IMMUTABLE = 16u,   // given once, at create
    SEARCHED = 32u,    // part of the text search
    COLUMN = 64u,      // shown in the CLI's and console's tables
    HIDDEN = 128u,     // stored, never shown (a key's hash)
    ONCE = 512u,       // never stored: set by a hook, shown in that one answer (a new key)
    SORTED_SET = 256u, // LIST of text: duplicates dropped, kept sorted
};
typedef enum {
    REF_RESTRICT,
    REF_CASCADE,
    REF_SOFT
} RefRule; // when what a REF points to is deleted

typedef struct Field {
    const char *name;
    Type type;
    unsigned flags;
    size_t offset;
    const void
        *of; // REF: resource name; ENUM: names, NULL-terminated; OBJECT, LIST: rows; UNION: Union
    int64_t min,
        // INT, MONEY: range; TEXT, SECRET: characters; JSON: bytes; LIST: items. Both 0: defaults
        max;
    const char *fallback; // default as text; NULL: unset
    const char *en, *zh;
    size_t count_offset, item_size; // LIST
    RefRule rule;                   // REF
} Field;
typedef struct UnionCase {
    const char *tag;
    const Field *rows;
} UnionCase;
typedef struct Union {
    const char *tag;
    size_t tag_offset;
    const UnionCase *cases;
} Union; // JSON: {"<tag>": "case", …}

// Row makers. S: the struct; m: its member, which is also the name.
#define ROW(S, m, t, fl, en_, zh_, ...)                                                \
    {                                                                                  \
        .name = #m, .type = (t), .flags = (fl), .offset = offsetof(S, m), .en = (en_), \
        .zh = (zh_), ##__VA_ARGS__                                                     \
    }
#define TEXT(S, m, fl, max_, en_, zh_, ...) \
    ROW(S, m, T_TEXT, fl, en_, zh_, .max = (max_), ##__VA_ARGS__)
#define INT(S, m, fl, lo, hi, en_, zh_, ...) \
    ROW(S, m, T_INT, fl, en_, zh_, .min = (lo), .max = (hi), ##__VA_ARGS__)
#define BOOL(S, m, fl, en_, zh_, ...) ROW(S, m, T_BOOL, fl, en_, zh_, ##__VA_ARGS__)
#define ENUM(S, m, fl, names, en_, zh_, ...) \
    ROW(S, m, T_ENUM, fl, en_, zh_, .of = (names), ##__VA_ARGS__)
#define REF(S, m, fl, target, rule_, en_, zh_, ...) \
    ROW(S, m, T_REF, fl, en_, zh_, .of = (target), .rule = (rule_), ##__VA_ARGS__)
#define OBJECT(S, m, fl, rows_, en_, zh_, ...) \
    ROW(S, m, T_OBJECT, fl, en_, zh_, .of = (rows_), ##__VA_ARGS__)
#define LIST(S, m, Item, fl, rows_, lo, hi, en_, zh_, ...)                   \
    ROW(S, m, T_LIST, fl, en_, zh_, .of = (rows_), .min = (lo), .max = (hi), \
        .count_offset = offsetof(S, m##_n), .item_size = sizeof(Item), ##__VA_ARGS__)
#define UNION(S, m, fl, union_, en_, zh_, ...) \
    ROW(S, m, T_UNION, fl, en_, zh_, .of = (union_), ##__VA_ARGS__)
extern const Field text_item[]; // rows of a LIST of text: items are `str`, at most 1000 bytes

static inline void *field_at(const Field *f, const void *base) {
    return (char *)(uintptr_t)base + f->offset;
}
const Field *field_find(const Field *rows, str name);         // NULL when absent
void fields_default(Arena *a, const Field *rows, void *base); // unset, then each fallback

// What a JSON object may do to a struct.
typedef enum {
    FIELDS_CREATE,
    FIELDS_PATCH,
    FIELDS_LOAD
} FieldsMode; // LOAD: from storage: no rule is enforced
// Reads obj into base by the rows. CREATE: defaults first, required ones checked. PATCH: merge
// patch (RFC 7396) onto what is there: null unsets, objects merge, lists replace. Unknown,
// read-only and immutable fields, wrong types and limits are ERR_INVALID with the field's path
// ("targets[1].weight") and the nearest known name. Text lives in c->mem.
err fields_read(Ctx *c, const Field *rows, void *base, yyjson_val *obj, FieldsMode mode);
err fields_check(Ctx *c, const Field *rows,
                 const void *base); // limits and required, of a struct filled by code
// Writes the members of an open JSON object. Unset ones are null. STORE: everything; API: neither
// secrets nor what is hidden; CHANGE: as API, but a secret that is set is "********".
typedef enum { SHOW_API, SHOW_STORE, SHOW_CHANGE } FieldsShow;
void field_write(const Field *f, const void *base, Json *j, FieldsShow show); // the value alone
void fields_write(const Field *rows, const void *base, Json *j, FieldsShow show);
bool fields_equal(const Field *rows, const void *a, const void *b, bool spec_only);
void fields_copy(Arena *a, const Field *rows, const void *from, void *to); // deep
// One scalar from text (CLI flags, query parameters, settings), with the same limits and words.
err field_from_text(Ctx *c, const Field *f, void *base, str text);
str field_to_text(Arena *a, const Field *f, const void *base); // for tables; absent when unset
// Visits every set value of one type (REF, SECRET, BLOB) inside base, nested ones too, with its
// path; stops at the first error.
err fields_each(Ctx *c, const Field *rows, void *base, Type type,
                err (*visit)(Ctx *c, const Field *f, str path, str *value, void *arg), void *arg);
#endif
