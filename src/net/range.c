// SPDX-License-Identifier: Apache-2.0
// range.c - see range.h.
#include "net/range.h"

static str opaque(str etag) { return str_starts(etag, S("W/")) ? str_sub(etag, 2, etag.n) : etag; }

// Weak comparison (RFC 9110 §8.8.3.2) with each of a list.
static bool list_has(str list, str etag) {
    str part;
    if (str_is(str_trim(list), "*")) return true;
    while (str_cut(&list, ',', &part))
        if (str_eq(opaque(str_trim(part)), opaque(etag))) return true;
    return false;
}

// "bytes=a-b", "bytes=a-" or "bytes=-n". False: not one range of bytes, so it is ignored (§14.2).
static bool range_parse(str s, int64_t size, int64_t *out_from, int64_t *out_to) {
    if (s.n < 6 || !str_ieq(str_sub(s, 0, 6), S("bytes="))) return false;
    s = str_sub(s, 6, s.n);
    ptrdiff_t dash = str_find_char(s, '-');
    if (dash < 0) return false;
    str first = str_trim(str_sub(s, 0, (size_t)dash));
    str last = str_trim(str_sub(s, (size_t)dash + 1, s.n));
    uint64_t from = 0, to = INT64_MAX;
    if ((first.n && !str_to_u64(first, &from)) || (last.n && !str_to_u64(last, &to))) return false;
    if (!first.n && !last.n) return false;
    if (from > INT64_MAX) from = INT64_MAX;
    if (to > INT64_MAX - 1) to = INT64_MAX - 1;
    if (!first.n) { // the last n bytes
        *out_from = (int64_t)to < size ? size - (int64_t)to : 0;
        *out_to = to ? size : 0;
        return true;
    }
    if (last.n && to < from) return false;
    *out_from = (int64_t)from;
    *out_to = (int64_t)to < size ? (int64_t)to + 1 : size;
    return true;
}

RangePlan range_plan(const HttpRequest *r, str etag, int64_t size) {
    RangePlan whole = { RANGE_WHOLE, 0, size };
    str none = http_header(r, "If-None-Match"), range = http_header(r, "Range");
    if (none.p && etag.p && list_has(none, etag)) return (RangePlan){ .answer = RANGE_SAME };
    if (!range.p || size < 0 || r->method != HTTP_GET) return whole;
    str still = http_header(r, "If-Range"); // strong comparison; a date never matches
    if (still.p && (!etag.p || str_starts(etag, S("W/")) || !str_eq(str_trim(still), etag)))
        return whole;
    int64_t from, to;
    if (!range_parse(range, size, &from, &to)) return whole;
    if (from >= to) return (RangePlan){ .answer = RANGE_BEYOND };
    return (RangePlan){ RANGE_PART, from, to - from };
}
