// SPDX-License-Identifier: Apache-2.0
// range.h - private to net: conditional requests and byte ranges (RFC 9110 §13, §14). Of several
// ranges the whole is sent, as the RFC allows.
// Threads: pure.
#ifndef LATHE_NET_RANGE_H
#define LATHE_NET_RANGE_H
#include "net/request.h"

typedef enum {
    RANGE_WHOLE,
    RANGE_PART,
    RANGE_BEYOND, // 416
    RANGE_SAME    // 304: the client has it
} RangeAnswer;
typedef struct RangePlan {
    RangeAnswer answer;
    int64_t from, n; // of WHOLE and PART
} RangePlan;
// For a GET or HEAD that would be answered with 200. etag absent: nothing to compare.
// size -1: its size is not known, or it has no parts: only If-None-Match is looked at.
RangePlan range_plan(const HttpRequest *r, str etag, int64_t size);
#endif
