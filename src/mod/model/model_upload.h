// SPDX-License-Identifier: Apache-2.0
// model_upload.h - what the files of uploads share; nobody else includes it.
//   model_upload.c the routes · model_session.c writers that stay open between requests
#ifndef LATHE_MOD_MODEL_UPLOAD_H
#define LATHE_MOD_MODEL_UPLOAD_H
#include "mod/model/model_own.h"

// ---- model_upload.c
err model_uploads_create(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err model_uploads_show(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err model_uploads_finish(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
void model_uploads_write(Exchange *x);

// ---- model_session.c: a writer by upload id, kept open for the next request; workers only
typedef struct Session Session;
err model_session_take(Ctx *c, str upload_id, Session **out); // ERR_CONFLICT with R_UPLOAD_BUSY
err model_session_append(Ctx *c, Session *s, str bytes);
err model_session_sync(Ctx *c, Session *s);
int64_t model_session_offset(const Session *s);
void model_session_give(Session *s);                                // never blocks
err model_session_peek(Ctx *c, str upload_id, int64_t *out_offset); // also while another writes
// Lets the staging file go; R_UPLOAD_BUSY while it is taken.
err model_session_close(Ctx *c, str upload_id);
void model_sessions_close(void); // at the end of the program
#endif
