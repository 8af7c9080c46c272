// SPDX-License-Identifier: Apache-2.0
// conformance_test.h - for the tests that come from the rows of all real modules: the whole server
// in this process, on a folder of the test's own, asked over HTTP; places to ask for; and valid
// values made from rows. PostgreSQL's half is there when LATHE_TEST_POSTGRES is set.
// Owner: conf_run, for the time of a test, which is a process of its own. Threads: the test's; the
// server has its own.
#ifndef LATHE_TEST_CONFORMANCE_TEST_H
#define LATHE_TEST_CONFORMANCE_TEST_H
#include "db/suite_test.h"
#include "res/bind.h"
#include "res/field_impl.h"
#include "res/serve.h"

// Where one asks from: a project, or an organisation, with keys.
typedef struct Tenant {
    const char *org, *project; // ids
    const char *owner;         // key of an account that may do everything in the project
    const char *header;        // "lathe-organisation" and so on, for the system's key
} Tenant;
typedef struct Conf {
    Ctx *c; // of the test: texts live as long as it
    Serve *s;
    App *app;
    Thread thread;
    DbKind kind;
    const char *dir, *admin; // data folder; the system's key
    Tenant a, b, far;        // two projects of one organisation, and one of another
    size_t made;             // objects so far: names differ
    pthread_mutex_t lock;    // of log
    Buf log;                 // what the server has logged
} Conf;
void conf_run(DbKind kind, void (*fn)(Conf *f));
#define CONF_TEST(name_) SUITE_TEST(Conf, conf_run, name_)
// Fails the test, and goes on with the walk: every row that breaks a rule is named.
#define COMPLAIN(...) (complaints++, test_failed(__FILE__, __LINE__, __VA_ARGS__))
extern int complaints;
#undef TEST_FAIL_ // each CHECK counts too
#define TEST_FAIL_(...)        \
    do {                       \
        COMPLAIN(__VA_ARGS__); \
        return;                \
    } while (0)

// ---- asking
typedef struct Told {
    int status; // 0: no answer
    str body, etag;
    yyjson_val *json; // NULL: no JSON
} Told;
typedef struct Question {
    HttpMethod method;
    const char *path, *key, *body; // key, body NULL: none
    const char *headers[3][2];     // name and value; a NULL name ends
} Question;
Told conf_ask(Conf *f, const Question *q);
Told conf_do(Conf *f, const Tenant *p, HttpMethod method, const char *path, const char *body);
str conf_reason(const Told *t); // of an error: "field_range"
str conf_field(const Told *t);  // of an error: "limits.concurrency"

// ---- values
// What a value is replaced by, to see it refused: the member at `path` becomes `raw`, or is left
// out when raw is NULL. extra: one more member at that path's end.
typedef struct Poison {
    const char *path, *raw;
} Poison;
// A body that is accepted, apart from its poison (NULL: none). Objects that it refers to are made
// in `p` first. spin: another value where there is one.
const char *conf_body(Conf *f, const Tenant *p, const Resource *r, int spin, const Poison *poison);
// One value of a field, as JSON; NULL when there is none to give.
const char *conf_value(Conf *f, const Tenant *p, const Resource *r, const Field *field, int spin);
// Makes one and gives its id; the test fails and "" is given when it cannot be made. A resource
// that has no create gets a row in its table.
const char *conf_make(Conf *f, const Tenant *p, const Resource *r);
const char *conf_path(Conf *f, const Resource *r, const char *id); // id NULL: the collection
// A field that a patch may change, with another value; NULL: there is none.
const Field *conf_patch(Conf *f, const Tenant *p, const Resource *r, const char **out_body);
int64_t conf_count(Conf *f, const char *sql, const char *a, const char *b); // $1 and $2; b NULL: $1
bool conf_has(str text, const char *part);
// Every field, nested ones too, with its path.
typedef struct Spot {
    const Field *f;
    const char *path;
    bool status; // it, or what holds it, is the system's
} Spot;
size_t conf_spots(Conf *f, const Field *rows, const char *up, bool status, Spot *out, size_t max);

#define EACH_TABLE(t)                              \
    for (size_t i_ = 0; i_ < tables_count(); i_++) \
        for (const ResTable *t = table_at(i_); t; t = NULL)
#endif
