// SPDX-License-Identifier: Apache-2.0
// err.h - one vocabulary of failure. A code says what kind (and maps to HTTP and exit status); a
// reason says the sentence, in English and Chinese, with named parameters. fail() is called once,
// where the fact is known; callers TRY().
#ifndef LATHE_BASE_ERR_H
#define LATHE_BASE_ERR_H
#include "buf.h"

// clang-format off
//    name             value  slug                   HTTP  exit
#define ERR_MAP(X)                                                 \
    X(OK,                0, "ok",                    200,   0)     \
    X(INTERNAL,          1, "internal",              500,   1)     \
    X(INVALID,           2, "invalid_request",       400,   2)     \
    X(DENIED,            3, "permission_denied",     403,   3)     \
    X(NOTFOUND,          4, "not_found",             404,   4)     \
    X(CONFLICT,          5, "conflict",              409,   5)     \
    X(UNAUTHENTICATED,   6, "unauthenticated",       401,   6)     \
    X(PRECONDITION,      7, "precondition_failed",   412,   7)     \
    X(LIMITED,           8, "rate_limited",          429,   8)     \
    X(UNAVAILABLE,       9, "unavailable",           503,   9)     \
    X(TIMEOUT,          10, "timeout",               504,  10)     \
    X(UPSTREAM,         11, "upstream_failed",       502,  11)     \
    X(FULL,             12, "storage_full",          507,  12)     \
    X(TOOLARGE,         13, "too_large",             413,  13)     \
    X(CANCELLED,        14, "cancelled",             499,  14)     \
    X(GONE,             15, "gone",                  410,  15)     \
    X(METHOD,           16, "method_not_allowed",    405,  16)     \
    X(MEDIA,            17, "unsupported_media",     415,  17)     \
    X(RANGE,            18, "range_not_satisfiable", 416,  18)     \
    X(BUDGET,           19, "budget_exceeded",       402,  19)     \
    X(SLOW,             20, "request_timeout",       408,  20)     \
    X(HEADERS,          21, "headers_too_large",     431,  21)     \
    X(LOST,             22, "lease_lost",            409,  22)
typedef enum [[nodiscard]] err {
#define X(name, value, slug, http, exit_status) ERR_##name = (value),
    ERR_MAP(X)
#undef X
    ERR__COUNT
} err;
// clang-format on

typedef struct ErrRow {
    const char *name, *slug;
    int http, exit_status;
} ErrRow;
const ErrRow *err_row(err e); // never NULL; a value that is no code gives INTERNAL

// A reason: slug for machines (lower case of its name), sentences with {parameters} for people. A
// reason's parameter named "field" is also reported as the error's field.
typedef struct Reason {
    const char *slug, *en, *zh;
} Reason;

// A module lists its reasons once:
//     #define FOO_REASONS(X) X(FOO_BAD, "foo_bad", "{foo} is bad", "{foo} 不对")
// declares them in its private header: REASONS_DECLARE(FOO_REASONS),
// defines them in one .c: REASONS_DEFINE(FOO_REASONS, foo_reasons)
#define REASON_EXTERN_(name, slug, en, zh) extern const Reason R_##name;
#define REASON_BODY_(name, slug, en, zh) const Reason R_##name = { slug, en, zh };
#define REASON_REF_(name, slug, en, zh) &R_##name,
#define REASONS_DECLARE(MAP) MAP(REASON_EXTERN_)
#define REASONS_DEFINE(MAP, array) \
    MAP(REASON_BODY_) const Reason *const array[] = { MAP(REASON_REF_) NULL };

enum { FAILURE_PARAMS = 6 };
typedef struct Failure {
    err code;
    const Reason *why;
    const char *key[FAILURE_PARAMS]; // literals
    str val[FAILURE_PARAMS];         // in the context's arena
    int64_t retry_after_ms;          // 0: not stated
} Failure;

// clang-format off
#define TRY(x) do { err try_err_ = (x); if (try_err_) return try_err_; } while (0)
// clang-format on

// Writes the sentence with its parameters filled in. lang: "zh" or anything else for English.
void failure_format(const Failure *f, const char *lang, Buf *out);
str word_in_chinese(const char *key, str value); // words.c: of a parameter; else the value itself
str failure_param(const Failure *f, const char *key); // absent string when there is none
#endif
