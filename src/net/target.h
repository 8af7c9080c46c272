// SPDX-License-Identifier: Apache-2.0
// target.h - private to net. Takes a request target (RFC 9112 §3.2) apart: origin, absolute and
// asterisk form; splits the path at '/' before it decodes, so that %2F never splits, and removes
// dot segments (RFC 3986 §5.2.4), so that ".." never leaves the route that it was given to.
// Threads: pure.
#ifndef LATHE_NET_TARGET_H
#define LATHE_NET_TARGET_H
#include "base/arena.h"

enum { TARGET_SEGMENTS_MAX = 64 };
typedef struct Target {
    str path, query; // as in HttpRequest
    str segments[TARGET_SEGMENTS_MAX];
    size_t segments_n; // "/" has one, which is empty
} Target;
// NULL, or why the target is bad. Text points into target or into a.
const char *target_parse(Arena *a, str target, Target *out);
bool http_is_token(str s); // RFC 9110 §5.6.2
int http_hex(char c);      // value of a hex digit, or -1
#endif
