// SPDX-License-Identifier: Apache-2.0
// time.h - text of instants, spans, bytes and money. No clock here: os/os.h has it.
#ifndef LATHE_BASE_TIME_H
#define LATHE_BASE_TIME_H
#include "arena.h"

enum { TIME_TEXT = 32 };
// RFC 3339 in UTC with milliseconds: 2026-11-22T16:37:00.123Z. Years 1970 to 9999, else clamped.
str time_format(int64_t unix_ms, char out[TIME_TEXT]);
// Any RFC 3339 offset; fractions cut to ms; a leap second is the second after it. Years as above.
bool time_parse(str s, int64_t *out_unix_ms);
int64_t time_day(int64_t unix_ms);       // days since the epoch, UTC
int64_t time_month(int64_t unix_ms);     // months since year 0, UTC: 12 * year + month - 1
int64_t time_month_begin(int64_t month); // Unix ms
bool span_parse(str s, int64_t *out_ms); // 250ms 30s 5m 2h 7d; a bare number is ms
str span_format(Arena *a, int64_t ms);   // in the largest of these units that is exact
bool bytes_parse(str s, int64_t *out);   // 512 64KiB 20MiB 1GiB 5GB, up to PiB and PB
str bytes_format(Arena *a, int64_t n);   // 412.3 MiB
// Money: int64 nano-units. "1.25" is 1250000000. At most nine decimals, no exponent; range checked.
bool money_parse(str s, int64_t *out_nano);
str money_format(Arena *a, int64_t nano); // shortest exact decimal, no trailing zeros
#endif
