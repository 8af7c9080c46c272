// SPDX-License-Identifier: Apache-2.0
// sse.c - see sse.h. A line that lies whole in what is fed is not copied first.
#include "net/sse.h"
#include <assert.h>

typedef struct Feed {
    Sse *s;
    void (*on_event)(void *arg, const SseEvent *ev);
    void *arg;
} Feed;

void sse_init(Sse *s, size_t event_max) {
    *s = (Sse){ .event_max = event_max };
    buf_init(&s->line, event_max);
    buf_init(&s->data, event_max);
    buf_init(&s->event, event_max);
    buf_init(&s->id, event_max);
}

void sse_done(Sse *s) {
    buf_done(&s->line);
    buf_done(&s->data);
    buf_done(&s->event);
    buf_done(&s->id);
}

static void set(Buf *b, str value) {
    buf_clear(b);
    buf_add(b, value);
}

static void dispatch(const Feed *f) {
    Sse *s = f->s;
    if (s->has_data) {
        SseEvent ev = { buf_str(&s->event), buf_str(&s->data), buf_str(&s->id) };
        f->on_event(f->arg, &ev);
    }
    s->has_data = false;
    buf_clear(&s->data);
    buf_clear(&s->event);
}

static void field(Sse *s, str name, str value) {
    if (str_is(name, "data")) {
        if (s->has_data) buf_add_char(&s->data, '\n');
        buf_add(&s->data, value);
        s->has_data = true;
    } else if (str_is(name, "event")) {
        set(&s->event, value);
    } else if (str_is(name, "id") && str_find_char(value, 0) < 0) {
        set(&s->id, value);
    }
    s->broken |= s->data.full || s->event.full || s->id.full;
}

static void line(const Feed *f, str text) {
    Sse *s = f->s;
    if (!s->started && str_starts(text, S("\xef\xbb\xbf"))) text = str_sub(text, 3, text.n);
    s->started = true;
    if (!text.n) {
        dispatch(f);
        return;
    }
    ptrdiff_t colon = str_find_char(text, ':');
    if (colon == 0) return; // a comment
    if (colon < 0) {
        field(s, text, S(""));
        return;
    }
    str value = str_sub(text, (size_t)colon + 1, text.n);
    if (value.n && *value.p == ' ') value = str_sub(value, 1, value.n);
    field(s, str_sub(text, 0, (size_t)colon), value);
}

static size_t line_length(str s) {
    const char *lf = memchr(s.p, '\n', s.n);
    size_t n = lf ? (size_t)(lf - s.p) : s.n;
    const char *cr = memchr(s.p, '\r', n);
    return cr ? (size_t)(cr - s.p) : n;
}

bool sse_feed(Sse *s, str bytes, void (*on_event)(void *arg, const SseEvent *ev), void *arg) {
    Feed f = { s, on_event, arg };
    assert(on_event);
    while (bytes.n && !s->broken) {
        if (s->after_cr && *bytes.p == '\n') bytes = str_sub(bytes, 1, bytes.n);
        s->after_cr = false;
        size_t n = line_length(bytes);
        str part = str_sub(bytes, 0, n);
        if (n == bytes.n || s->line.n) s->broken = !buf_add(&s->line, part);
        if (n == bytes.n || s->broken) break;
        s->after_cr = bytes.p[n] == '\r';
        if (s->line.n) part = buf_str(&s->line);
        s->broken = part.n > s->event_max;
        if (!s->broken) line(&f, part);
        buf_clear(&s->line);
        bytes = str_sub(bytes, n + 1, bytes.n);
    }
    return !s->broken;
}
