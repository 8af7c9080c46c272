// SPDX-License-Identifier: Apache-2.0
// drive_own.h - private to the generator: drive.c sends by the clock, lane.c is one request and its
// answer. Owner: the Drive has all lanes. Threads: the loop's.
#ifndef LATHE_BENCH_DRIVE_OWN_H
#define LATHE_BENCH_DRIVE_OWN_H
#include "arrival.h"
#include "drive.h"
#include "net/sse.h"

typedef struct Lane { // at most one request at a time
    Drive *d;
    struct Lane *next; // among the free
    Call *call;        // NULL: free
    bool recorded, done, begun, settled;
    int status;
    int64_t number, intended_ns, sent_ns;
    int64_t now_ns;             // of the bytes being read
    int64_t token_ns, stamp_ns; // of the latest token: here, and sent there; 0: none yet
    struct evbuffer *tail;      // the end of the answer
    Sse sse;
} Lane;

struct Drive {
    Loop *loop;
    Os *os;
    Client *client;
    const Plan *plan;
    Tally *t;
    Lane *lanes, *free;
    Arrival arrival;
    Stream *clock; // a timerfd: the loop's own timers count in milliseconds
    int clock_fd;
    Timer *limit;     // no answer for so long
    int64_t progress; // answers when it was last looked at
    int64_t start_ns, end_ns;
    int64_t busy, setting_up; // PLAN_HOLD: those whose first event has not come
    bool over;                // no more are sent
    bool failed, stopped;
    char why[512];
};

void lane_start(Lane *l, int64_t intended_ns);
// What a lane tells: it was answered well; or its first event came. drive_fail: once is enough.
void drive_on_answer(Lane *l);
void drive_on_begun(Lane *l);
void drive_fail(Drive *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
