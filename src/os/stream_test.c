// SPDX-License-Identifier: Apache-2.0
// stream_test.c - streams and listeners over real sockets: loopback TCP and unix. Every wait is on a
// condition, with a timer that fails the test instead of hanging it.
#include "base/test.h"
#include "os/stream.h"
#include "os/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// --- a pair of ends on one loop: `a` connects, `b` is accepted; each logs what it is told

typedef struct End {
    struct Pair *pair;
    Stream *s;
    size_t got;       // bytes seen by data()
    int opened, drained, ended;
    StreamEnd why;
    bool hold;        // leaves input where it is
    bool echo;
    size_t stop_at;   // stops the loop when `got` reaches it
    bool stop_at_end, stop_at_drained;
} End;

typedef struct Pair {
    Loop *l;
    Timer *limit;
    Listener *listener;
    End a, b;
    bool late;
} Pair;

static void too_late(void *arg) {
    Pair *p = arg;
    p->late = true;
    loop_stop(p->l);
}

static void on_opened(void *arg) { ((End *)arg)->opened++; }

static void on_data(void *arg) {
    End *e = arg;
    e->got = e->got * !e->hold + evbuffer_get_length(stream_in(e->s));
    if (e->echo) {
        evbuffer_add_buffer(stream_out(e->s), stream_in(e->s));
        stream_touch(e->s);
    } else if (!e->hold) {
        evbuffer_drain(stream_in(e->s), SIZE_MAX);
    }
    if (e->stop_at && e->got >= e->stop_at) loop_stop(e->pair->l);
}

static void on_drained(void *arg) {
    End *e = arg;
    e->drained++;
    if (e->stop_at_drained) loop_stop(e->pair->l);
}

static void on_ended(void *arg, StreamEnd why) {
    End *e = arg;
    e->ended++;
    e->why = why;
    if (e->stop_at_end) loop_stop(e->pair->l);
}

static const StreamEvents end_events = { on_opened, on_data, on_drained, on_ended };

static void on_accepted(void *arg, Loop *l, Stream *s) {
    Pair *p = arg;
    (void)l;
    p->b.s = s;
    stream_events(s, &end_events, &p->b);
    if (!p->b.stop_at && !p->b.stop_at_end && !p->a.stop_at && !p->a.stop_at_end) loop_stop(p->l);
}
