// SPDX-License-Identifier: Apache-2.0
// time.c - the text of instants, spans, bytes and money, exact or refused.
// Calendar arithmetic is the proleptic Gregorian calendar in years that start in March, so that the
// leap day is the last of its year. Leaves clocks to os/. Threads: pure.
#include "time.h"
#include <assert.h>
#include <stdio.h>

enum { DAY_MS = 86400000 };
static const int64_t time_last_ms = 253402300799999; // 9999-12-31T23:59:59.999Z

static int64_t days_of(int64_t y, int64_t m, int64_t d) {
    y -= m <= 2;
    int64_t era = y / 400, of_era = y % 400; // y is never negative here
    int64_t of_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of(int64_t days, int *y, int *m, int *d) {
    int64_t z = days + 719468, era = z / 146097, of_era = z % 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;
    *d = (int)(of_year - (153 * month + 2) / 5 + 1);
    *m = (int)(month < 10 ? month + 3 : month - 9);
    *y = (int)(year + era * 400 + (*m <= 2));
}

static int month_days(int64_t y, int64_t m) {
    bool leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    return m == 2 ? 28 + leap : 30 + ((m + m / 8) & 1);
}

str time_format(int64_t unix_ms, char out[TIME_TEXT]) {
    if (unix_ms < 0) unix_ms = 0;
    if (unix_ms > time_last_ms) unix_ms = time_last_ms;
    int y, mo, d, ms = (int)(unix_ms % DAY_MS);
    date_of(unix_ms / DAY_MS, &y, &mo, &d);
    int n = snprintf(out, TIME_TEXT, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", y, mo, d, ms / 3600000,
                     ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
    assert(n == 24);
    return str_n(out, (size_t)n);
}

// Takes exactly `digits` digits off s, and `then` after them unless that is 0.
static bool take(str *s, size_t digits, char then, int64_t *out) {
    uint64_t n;
    if (s->n < digits + (then != 0) || !str_to_u64(str_sub(*s, 0, digits), &n)) return false;
    if (then && s->p[digits] != then) return false;
    *s = str_sub(*s, digits + (then != 0), s->n);
    *out = (int64_t)n;
    return true;
}

// The fraction, if there is one, in milliseconds; what is finer is cut.
static bool take_fraction(str *s, int64_t *out_ms) {
    *out_ms = 0;
    if (!s->n || *s->p != '.') return true;
    size_t i = 1;
    int64_t ms = 0;
    for (int64_t unit = 100; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++, unit /= 10)
        ms += unit * (s->p[i] - '0');
    *s = str_sub(*s, i, s->n);
    *out_ms = ms;
    return i > 1;
}

// Z or +hh:mm or -hh:mm, and nothing after it.
static bool take_offset(str s, int64_t *out_ms) {
    *out_ms = 0;
    if (s.n == 1) return *s.p == 'Z' || *s.p == 'z';
    if (!s.n || (*s.p != '+' && *s.p != '-')) return false;
    int64_t sign = *s.p == '-' ? -1 : 1, h, m;
    s = str_sub(s, 1, s.n);
    if (!take(&s, 2, ':', &h) || !take(&s, 2, 0, &m) || s.n || h > 23 || m > 59) return false;
    *out_ms = sign * (h * 60 + m) * 60000;
    return true;
}

bool time_parse(str s, int64_t *out_unix_ms) {
    int64_t y, mo, d, h, m, sec, ms, offset;
    if (!take(&s, 4, '-', &y) || !take(&s, 2, '-', &mo) || !take(&s, 2, 0, &d)) return false;
    if (!s.n || (*s.p != 'T' && *s.p != 't' && *s.p != ' ')) return false;
    s = str_sub(s, 1, s.n);
    if (!take(&s, 2, ':', &h) || !take(&s, 2, ':', &m) || !take(&s, 2, 0, &sec)) return false;
    if (!take_fraction(&s, &ms) || !take_offset(s, &offset)) return false;
    if (y < 1969 || mo < 1 || mo > 12 || d < 1 || d > month_days(y, mo)) return false;
    if (h > 23 || m > 59 || sec > 60) return false;
    int64_t t = days_of(y, mo, d) * DAY_MS + h * 3600000 + m * 60000 + sec * 1000 + ms - offset;
    if (t < 0 || t > time_last_ms) return false;
    *out_unix_ms = t;
    return true;
}

int64_t time_month(int64_t unix_ms) {
    int y, m, d;
    date_of(time_day(unix_ms), &y, &m, &d);
    return 12 * (int64_t)y + m - 1;
}

int64_t time_month_begin(int64_t month) { return days_of(month / 12, month % 12 + 1, 1) * DAY_MS; }

int64_t time_day(int64_t unix_ms) { return unix_ms / DAY_MS - (unix_ms % DAY_MS < 0); }

typedef struct Unit {
    const char *name;
    int64_t size;
} Unit;

// Digits and then a unit's name, nothing else. Rows end with a name of NULL.
static bool unit_parse(str s, const Unit *units, int64_t *out) {
    size_t digits = 0;
    int64_t n;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9') digits++;
    if (!str_to_i64(str_sub(s, 0, digits), &n)) return false;
    for (str name = str_sub(s, digits, s.n); units->name; units++) {
        if (!str_is(name, units->name)) continue;
        return !__builtin_mul_overflow(n, units->size, &n) && (*out = n, true);
    }
    return false;
}

static const Unit spans[] = { { "d", DAY_MS }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 },
                              { "ms", 1 },     { "", 1 },        { 0 } };

bool span_parse(str s, int64_t *out_ms) { return unit_parse(s, spans, out_ms); }

str span_format(Arena *a, int64_t ms) {
    const Unit *u = spans;
    if (!ms) return arena_str(a, S("0s"));
    while (ms % u->size) u++;
    return arena_printf(a, "%lld%s", (long long)(ms / u->size), u->name);
}

static const Unit sizes[] = {
    { "", 1 },
    { "B", 1 },
    { "KiB", (int64_t)1 << 10 },
    { "MiB", (int64_t)1 << 20 },
    { "GiB", (int64_t)1 << 30 },
    { "TiB", (int64_t)1 << 40 },
    { "PiB", (int64_t)1 << 50 },
    { "kB", 1000 },
    { "KB", 1000 },
    { "MB", 1000000 },
    { "GB", 1000000000 },
    { "TB", 1000000000000 },
    { "PB", 1000000000000000 },
    { 0 },
};

bool bytes_parse(str s, int64_t *out) { return unit_parse(s, sizes, out); }

str bytes_format(Arena *a, int64_t n) {
    enum { BINARY = 2, BINARY_END = 7 }; // rows of KiB to PiB
    double size = n < 0 ? -(double)n : (double)n;
    if (size < 1024) return arena_printf(a, "%lld B", (long long)n);
    int i = BINARY;
    while (i + 1 < BINARY_END && size >= 1023.95 * (double)sizes[i].size) i++; // not "1024.0 KiB"
    return arena_printf(a, "%.1f %s", (double)n / (double)sizes[i].size, sizes[i].name);
}

static const int64_t nano = 1000000000;

bool money_parse(str s, int64_t *out_nano) {
    bool negative = s.n && *s.p == '-';
    str fraction = negative ? str_sub(s, 1, s.n) : s, whole;
    uint64_t units, parts = 0;
    if (!str_cut(&fraction, '.', &whole) || !str_to_u64(whole, &units)) return false;
    if (fraction.p && (fraction.n > 9 || !str_to_u64(fraction, &parts))) return false;
    for (size_t i = fraction.n; parts && i < 9; i++) parts *= 10;
    uint64_t n;
    if (__builtin_mul_overflow(units, (uint64_t)nano, &n)) return false;
    if (__builtin_add_overflow(n, parts, &n) || n > (uint64_t)INT64_MAX + negative) return false;
    *out_nano = negative ? (int64_t)-n : (int64_t)n;
    return true;
}

str money_format(Arena *a, int64_t amount_nano) {
    uint64_t n = amount_nano < 0 ? -(uint64_t)amount_nano : (uint64_t)amount_nano;
    uint64_t units = n / (uint64_t)nano, parts = n % (uint64_t)nano;
    char text[32], *end = text + sizeof text, *at = end;
    bool any = false; // a digit behind the point that is not a trailing zero
    for (int i = 0; i < 9; i++, parts /= 10) {
        any |= parts % 10 != 0;
        if (any) *--at = (char)('0' + parts % 10);
    }
    if (any) *--at = '.';
    do *--at = (char)('0' + units % 10);
    while (units /= 10);
    if (amount_nano < 0) *--at = '-';
    return arena_str(a, str_n(at, (size_t)(end - at)));
}
