// SPDX-License-Identifier: Apache-2.0
// serve.h - the server as an object: `lathe serve` runs one; the conformance tests run one too, on
// a folder of their own. One at a time in a process: modules keep their state in statics.
// Owner: whoever called serve_new. Threads: as said at each call.
#ifndef LATHE_RES_SERVE_H
#define LATHE_RES_SERVE_H
#include "res/app.h"

typedef struct Serve Serve;
Serve *serve_new(const Module *const *mods);
// Reads the settings (argv: "--name=value" or "--name" "value"), opens all stores, starts all
// modules and listens. After an error only serve_ctx and serve_free may follow.
err serve_open(Serve *s, int argc, char **argv);
const Ctx *serve_ctx(const Serve *s); // holds the failure of serve_open
App *serve_app(Serve *s);
Addr serve_addr(const Serve *s); // where it listens; port 0 was replaced by the one given
void serve_run(Serve *s);        // the calling thread runs loops[0] until the server has stopped
// As SIGTERM: no new requests, those under way finish, serve_run returns; a second one does not
// wait. On loops[0] only; serve_quit asks from any thread.
void serve_drain(Serve *s);
void serve_quit(Serve *s);
void serve_free(Serve *s); // after serve_run has returned, or a failed serve_open; NULL is fine
#endif
