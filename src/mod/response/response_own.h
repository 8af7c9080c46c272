// SPDX-License-Identifier: Apache-2.0
// response_own.h - private to response.
#ifndef LATHE_MOD_RESPONSE_OWN_H
#define LATHE_MOD_RESPONSE_OWN_H
#include "mod/response/response.h"

enum { RESPONSE_CHAIN_MAX = 1000 }; // answers of one conversation

extern const Resource response_resource;
extern const Migration response_migrations[];
extern const Route response_routes[];
extern const Setting response_settings[];
extern const Retention response_retentions[];

enum { ITEMS_DESC, ITEMS_ASC };
typedef struct ItemsQuery {
    int order;
    int64_t limit;
    str after;
} ItemsQuery;
extern const Field items_query[];

// items.c: a request's `input` as a list of items that each have an id and content in parts.
void items_write(yyjson_val *input, str response_id, Json *out);
// Those of a kept input or output, one after the other, each after a comma unless it is the first.
err items_add(Ctx *c, str json, const char *member, Buf *to);

err response_row_stage(Ctx *c, Tx *tx, const void *old, const void *now);
err response_trim(Ctx *c, int64_t before_ms, int64_t *out_removed);
err serve_response(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err serve_response_items(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err serve_response_content(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err serve_response_delete(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
#endif
