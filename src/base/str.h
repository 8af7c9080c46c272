// SPDX-License-Identifier: Apache-2.0
// str.h - text as pointer + length, not owned and not NUL-terminated unless a function says so.
// Owner: the arena, buffer or literal that it points into.
// Threads: values, free to share while the owner lives.
#ifndef LATHE_BASE_STR_H
#define LATHE_BASE_STR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct str {
    const char *p; // NULL only for the absent string; an empty one points somewhere
    size_t n;      // bytes
} str;

#define S(lit) ((str){ "" lit, sizeof(lit) - 1 })
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p
#define countof(a) (sizeof(a) / sizeof *(a))

static inline str str_z(const char *z) { return z ? (str){ z, strlen(z) } : (str){ 0 }; }
static inline str str_n(const void *p, size_t n) { return (str){ p, n }; }
static inline bool str_eq(str a, str b) { return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n)); }
static inline bool str_is(str a, const char *z) { return str_eq(a, str_z(z)); }

int str_cmp(str a, str b);  // byte order, as COLLATE "C"
bool str_ieq(str a, str b); // ASCII letters without case
bool str_starts(str s, str prefix);
bool str_ends(str s, str suffix);
str str_trim(str s);                       // ASCII white space off both ends
str str_sub(str s, size_t from, size_t n); // clipped to s
ptrdiff_t str_find(str s, str needle);     // index, or -1
ptrdiff_t str_find_char(str s, char c);

// Takes the part before `sep` off *rest and returns it; the whole rest when sep is absent. False at
// the end: when *rest is absent. Joining the parts gives the text back, so an empty text is one
// empty part and "a," is "a" and "".
bool str_cut(str *rest, char sep, str *out_part);

uint64_t str_hash(str s);                     // FNV-1a folded: for tables of our own names only
uint64_t str_hash_seed(str s, uint64_t seed); // SipHash-1-3: for keys that strangers choose
unsigned str_distance(str a, str b); // Levenshtein; UINT_MAX when either is longer than 64 bytes

// Strict decimal: the whole of s, no white space, range checked. False leaves *out untouched.
bool str_to_i64(str s, int64_t *out);
bool str_to_u64(str s, uint64_t *out);
enum { STR_I64 = 20 };
str str_i64(int64_t n, char out[STR_I64]); // decimal, within out; printf costs ten times as much
bool str_to_f64(str s, double *out); // finite; exponents are fine, hexadecimal and names are not
bool str_to_bool(str s, bool *out);  // true false 1 0 yes no on off
// Well-formed UTF-8 (Unicode 15, table 3-7): no surrogates, no overlongs.
bool str_utf8(str s);
ptrdiff_t str_utf8_bad(str s);    // index of the first byte that is not well formed, or -1
size_t str_utf8_count(str s);     // code points; s must be well formed
bool str_eq_secret(str a, str b); // constant time in the contents, not in the lengths
#endif
