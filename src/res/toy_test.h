// SPDX-License-Identifier: Apache-2.0
// toy_test.h - a module for the tests of res: one resource with every type of field, nested both
// ways; what it refers to; one with a reconciler. And a database of either kind to keep them in.
// Owner: toy_run, for the time of a test. Threads: the test's.
#ifndef LATHE_RES_TOY_TEST_H
#define LATHE_RES_TOY_TEST_H
#include "db/suite_test.h"
#include "res/field_impl.h"
#include "res/table.h"

typedef struct ToySize {
    int64_t w, h;
    str pin;
} ToySize;
typedef struct ToyPart {
    str label, box;
    int64_t n;
} ToyPart;
typedef struct ToySource {
    int kind;
    str path, url;
    int64_t retries;
} ToySource;
enum { SOURCE_FILE, SOURCE_URL };
typedef struct Toy {
    Head head;
    str title, shelf, box, twin, pass, digest, extra, hash, ticket;
    int64_t count, due, cost, total;
    double ratio;
    bool on;
    int colour;
    ToySize size;
    ToyPart *parts;
    size_t parts_n;
    str *tags;
    size_t tags_n;
    ToySource source;
} Toy;
typedef struct ToyBox { // of an organisation: toys of all its projects may lie in it
    Head head;
    str title;
} ToyBox;
typedef struct Robot {
    Head head;
    int64_t wish, seen;
    str toy;
} Robot;
extern const Resource toy, toy_box, robot;
extern const Field toy_rows[];
extern const Module *const toy_modules[];

typedef struct ToyFix {
    Ctx *c; // identity "u_1", in project "p1" of "o1"
    App app;
    DbKind kind;
} ToyFix;
void toy_run(DbKind kind, void (*fn)(ToyFix *f));
void toy_enter(ToyFix *f, const char *org, const char *project);
Toy *toy_new(ToyFix *f, const char *name); // unset, defaults; not stored
err toy_create(ToyFix *f, const Resource *r, void *row);
err toy_get(ToyFix *f, const Resource *r, str id, void *out);
err toy_update(ToyFix *f, const Resource *r, const void *old, void *now);
err toy_delete(ToyFix *f, const Resource *r, const char *name);
err toy_purge(ToyFix *f, const Resource *r, const char *name);
err toy_list(ToyFix *f, const Resource *r, const ListSpec *spec, void **out, size_t *n, str *next);
int64_t toy_count(ToyFix *f, const char *sql, const char *arg); // one number; arg NULL: none
const char *toy_reason(ToyFix *f);                              // of the failure present
const char *toy_param(ToyFix *f, const char *name);

#define TOY_TEST(name_) SUITE_TEST(ToyFix, toy_run, name_)
#endif
