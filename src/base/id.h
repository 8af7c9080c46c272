// SPDX-License-Identifier: Apache-2.0
// id.h - identifiers: prefix_ + UUIDv7 (RFC 9562) in lower-case Crockford base32, 26 characters.
// Sort order is time order within a prefix. A prefix is [a-z][a-z0-9_]*, of at most
// ID_PREFIX_MAX bytes.
#ifndef LATHE_BASE_ID_H
#define LATHE_BASE_ID_H
#include "arena.h"

enum { ID_BODY = 26, ID_PREFIX_MAX = 12 };
str id_format(Arena *a, const char *prefix, int64_t unix_ms, const uint8_t random[10]);
// With twelve bits more of the clock instead of random's first (§6.2, method 3): what is made one
// after the other sorts so, to a quarter of a microsecond, and lies side by side in an index.
str id_format_ns(Arena *a, const char *prefix, int64_t unix_ns, const uint8_t random[10]);
bool id_valid(str id, const char *prefix); // prefix NULL: any
int64_t id_time_ms(str id);                // -1 when it is no id
// [A-Za-z0-9][A-Za-z0-9._-]*, 1 to 200 bytes: no '/', ':' or '@'.
bool name_valid(str s);
#endif
