// SPDX-License-Identifier: Apache-2.0
// metric.c - see metric.h. Rows are constants, so what counts lies here: a State for each row in
// use and a Series for each set of label values, both found without a lock and never moved; a
// lock is taken only to add one. Names: the OpenTelemetry specification, "Prometheus and
// OpenMetrics compatibility"; the text: Prometheus exposition format 0.0.4.
#include "res/metric.h"
#include "os/thread.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { STATES_MAX = 1024, TABLE = 256, COLLECTORS_MAX = 64 };

struct Series {
    struct State *of;
    Series *next;  // in its slot of the table
    Series *later; // made after it
    uint64_t hash;
    str values[METRIC_LABELS_MAX];
    str labels;              // as written: a="b",c="d"
    _Atomic int64_t whole;   // counters: what came in whole numbers
    _Atomic uint64_t bits;   // a double: the rest of a counter, a gauge, a histogram's sum
    _Atomic uint64_t hits[]; // histograms: one a bucket, and one above
};

typedef struct State {
    const Metric *row;
    str name;
    size_t labels_n, buckets_n;
    pthread_mutex_t lock; // of what follows, for writers; next and later are read without
    size_t series_n;
    _Atomic(Series *) table[TABLE];
    _Atomic(Series *) first;
    Series *last;
    _Atomic(Series *) other; // set once the cap is reached: nothing is added from then on
} State;

typedef struct Collector {
    void (*fn)(void *arg);
    void *arg;
} Collector;

static _Atomic(State *) states[STATES_MAX]; // open addressing by the row's address
static pthread_mutex_t states_lock = PTHREAD_MUTEX_INITIALIZER;
static State *order[STATES_MAX];
static size_t order_n;
static Collector collectors[COLLECTORS_MAX];
static size_t collectors_n;

// ---- names

static void add_name(Buf *b, const char *name) {
    for (const char *p = name; *p; p++) {
        bool digit = *p >= '0' && *p <= '9', first = p == name;
        bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');
        if (digit && first) buf_add_char(b, '_');
        char ch = letter || digit ? *p : '_';
        if (ch != '_' || !b->n || b->p[b->n - 1] != '_') buf_add_char(b, ch);
    }
}

// NULL: none. Units that Prometheus would call wrong ("ms") have no row here on purpose.
static const char *unit_word(const Metric *m) {
    static const char *const words[][2] = {
        { "s", "seconds" },   { "By", "bytes" }, { "J", "joules" },
        { "Cel", "celsius" }, { "V", "volts" },  { "By/s", "bytes_per_second" },
    };
    const char *u = m->unit ? m->unit : "";
    if (!*u || *u == '{') return NULL;
    if (!strcmp(u, "1")) return m->type == METRIC_GAUGE ? "ratio" : NULL;
    for (size_t i = 0; i < countof(words); i++)
        if (!strcmp(u, words[i][0])) return words[i][1];
    assert(!"a metric's unit is a base unit");
    return NULL;
}

static void add_suffix(Buf *b, const char *word) {
    if (!str_ends(buf_str(b), str_z(word))) buf_printf(b, "_%s", word);
}

str metric_exposed_name(Arena *a, const Metric *m) {
    Buf b;
    buf_init(&b, 300);
    add_name(&b, m->name);
    const char *word = unit_word(m);
    if (word) add_suffix(&b, word);
    if (m->type == METRIC_COUNTER) add_suffix(&b, "total");
    assert(b.n && !b.full);
    str name = arena_str(a, buf_str(&b));
    buf_done(&b);
    return name;
}

// ---- rows in use

static void check_row(const State *st) {
    const Metric *m = st->row;
    assert(m->name && m->en && *m->en);
    assert((m->type == METRIC_HISTOGRAM) == (m->buckets != NULL));
    for (size_t i = 1; i < st->buckets_n; i++) assert(m->buckets[i] > m->buckets[i - 1]);
    for (size_t i = 0; i < st->labels_n; i++)
        assert(strcmp(m->labels[i], "le") && strcmp(m->labels[i], "quantile"));
    for (size_t i = 0; i < order_n; i++) assert(!str_eq(order[i]->name, st->name));
}

static State *state_new(const Metric *m) {
    State *st = mem_new(sizeof *st);
    Arena *a = arena_new();
    st->row = m;
    str name = metric_exposed_name(a, m);
    st->name = str_n(mem_strdup(name), name.n);
    arena_free(a);
    while (st->labels_n < METRIC_LABELS_MAX && m->labels[st->labels_n]) st->labels_n++;
    if (m->buckets)
        while (m->buckets[st->buckets_n] != 0 && st->buckets_n < METRIC_BUCKETS_MAX)
            st->buckets_n++;
    pthread_mutex_init(&st->lock, NULL);
    check_row(st);
    return st;
}

// The slot that holds m, or the free one where it belongs.
static _Atomic(State *) *slot_of(const Metric *m) {
    size_t at = ((uintptr_t)m >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 54;
    for (size_t i = 0; i < STATES_MAX; i++) {
        _Atomic(State *) *slot = &states[(at + i) % STATES_MAX];
        State *st = atomic_load_explicit(slot, memory_order_acquire);
        if (!st || st->row == m) return slot;
    }
    assert(!"too many metrics");
    return NULL;
}

static State *state_of(const Metric *m) {
    State *st = atomic_load_explicit(slot_of(m), memory_order_acquire);
    if (st) return st;
    pthread_mutex_lock(&states_lock);
    _Atomic(State *) *slot = slot_of(m);
    st = atomic_load_explicit(slot, memory_order_relaxed);
    if (!st) {
        assert(order_n < STATES_MAX - 1);
        st = order[order_n] = state_new(m);
        order_n++;
        atomic_store_explicit(slot, st, memory_order_release);
    }
    pthread_mutex_unlock(&states_lock);
    return st;
}

// ---- series

// Values as they are kept: well-formed and not over-long, so that looking them up again finds them.
// Returns `values` itself when there is nothing to mend, else copies in a.
static const str *mend(Arena **a, const str *values, size_t n) {
    str *mended = NULL;
    for (size_t i = 0; i < n; i++) {
        if (values[i].n <= METRIC_VALUE_MAX && str_utf8(values[i])) continue;
        if (!*a) *a = arena_new();
        if (!mended) {
            mended = new (*a, str, METRIC_LABELS_MAX);
            memcpy(mended, values, n * sizeof *values);
        }
        char *copy = arena_alloc_raw(*a, METRIC_VALUE_MAX);
        str v = str_sub(values[i], 0, METRIC_VALUE_MAX);
        memcpy(copy, v.p, v.n);
        v.p = copy;
        for (ptrdiff_t bad; (bad = str_utf8_bad(v)) >= 0;) copy[bad] = '?';
        mended[i] = v;
    }
    return mended ? mended : values;
}

static uint64_t hash_values(const str *values, size_t n) {
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) h = h * 31 + str_hash(values[i]);
    return h ^ h >> 29;
}

static Series *find(State *st, uint64_t hash, const str *values) {
    Series *s = atomic_load_explicit(&st->table[hash % TABLE], memory_order_acquire);
    for (; s; s = s->next) {
        size_t i = 0;
        while (s->hash == hash && i < st->labels_n && str_eq(s->values[i], values[i])) i++;
        if (s->hash == hash && i == st->labels_n) return s;
    }
    return NULL;
}

static void add_escaped(Buf *b, str text, bool quotes) {
    for (size_t i = 0; i < text.n; i++) {
        char ch = text.p[i];
        if (ch == '\\' || (quotes && ch == '"')) buf_add_char(b, '\\');
        if (ch == '\n') buf_add(b, S("\\n"));
        else buf_add_char(b, ch);
    }
}

static str labels_text(const State *st, const str *values) {
    Buf b;
    buf_init(&b, METRIC_LABELS_MAX * (2 * METRIC_VALUE_MAX + 256));
    for (size_t i = 0; i < st->labels_n; i++) {
        if (i) buf_add_char(&b, ',');
        Buf name;
        buf_init(&name, 200);
        add_name(&name, st->row->labels[i]);
        buf_add(&b, buf_str(&name));
        buf_done(&name);
        buf_add(&b, S("=\""));
        add_escaped(&b, values[i], true);
        buf_add_char(&b, '"');
    }
    assert(!b.full);
    str text = str_n(mem_strdup(buf_str(&b)), b.n);
    buf_done(&b);
    return text;
}

static Series *series_new(State *st, uint64_t hash, const str *values) {
    size_t hits = st->row->buckets ? st->buckets_n + 1 : 0;
    Series *s = mem_new(sizeof *s + hits * sizeof s->hits[0]);
    s->of = st;
    s->hash = hash;
    for (size_t i = 0; i < st->labels_n; i++)
        s->values[i] = str_n(mem_strdup(values[i]), values[i].n);
    s->labels = labels_text(st, values);
    _Atomic(Series *) *slot = &st->table[hash % TABLE];
    s->next = atomic_load_explicit(slot, memory_order_relaxed);
    atomic_store_explicit(slot, s, memory_order_release);
    if (st->last) st->last->later = s;
    else atomic_store_explicit(&st->first, s, memory_order_release);
    st->last = s;
    return s;
}

// Under the lock: past the cap there is one more, for all that came too late.
static Series *series_other(State *st) {
    str values[METRIC_LABELS_MAX];
    for (size_t i = 0; i < st->labels_n; i++) values[i] = S("other");
    uint64_t hash = hash_values(values, st->labels_n);
    Series *s = find(st, hash, values);
    if (!s) s = series_new(st, hash, values);
    atomic_store_explicit(&st->other, s, memory_order_release);
    return s;
}

static Series *series_add_new(State *st, uint64_t hash, const str *values) {
    pthread_mutex_lock(&st->lock);
    Series *s = find(st, hash, values);
    if (!s && st->series_n == METRIC_SERIES_MAX) s = series_other(st);
    if (!s) {
        s = series_new(st, hash, values);
        st->series_n++;
    }
    pthread_mutex_unlock(&st->lock);
    return s;
}

Series *metric_series(const Metric *m, const str *values) {
    State *st = state_of(m);
    Arena *mended = NULL;
    values = mend(&mended, values, st->labels_n);
    uint64_t hash = hash_values(values, st->labels_n);
    Series *s = find(st, hash, values);
    if (!s) s = atomic_load_explicit(&st->other, memory_order_acquire);
    if (!s) s = series_add_new(st, hash, values);
    arena_free(mended);
    return s;
}

// ---- counting

static double from_bits(uint64_t bits) {
    double n;
    memcpy(&n, &bits, sizeof n);
    return n;
}

static uint64_t to_bits(double n) {
    uint64_t bits;
    memcpy(&bits, &n, sizeof bits);
    return bits;
}

static void bits_add(Series *s, double n) {
    uint64_t now = atomic_load_explicit(&s->bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&s->bits, &now, to_bits(from_bits(now) + n),
                                                  memory_order_relaxed, memory_order_relaxed)) {}
}

void series_add(Series *s, double n) {
    assert(s->of->row->type != METRIC_HISTOGRAM);
    if (s->of->row->type == METRIC_GAUGE) {
        bits_add(s, n);
        return;
    }
    assert(n >= 0);
    if (n < 1e15 && n == (double)(int64_t)n)
        atomic_fetch_add_explicit(&s->whole, (int64_t)n, memory_order_relaxed);
    else bits_add(s, n);
}

void series_set(Series *s, double n) {
    assert(s->of->row->type == METRIC_GAUGE);
    atomic_store_explicit(&s->bits, to_bits(n), memory_order_relaxed);
}

// A scrape that read it earlier may come later: the greater one holds.
void series_total(Series *s, double total) {
    assert(s->of->row->type == METRIC_COUNTER);
    uint64_t now = atomic_load_explicit(&s->bits, memory_order_relaxed);
    while (total > from_bits(now)
           && !atomic_compare_exchange_weak_explicit(&s->bits, &now, to_bits(total),
                                                     memory_order_relaxed, memory_order_relaxed)) {}
}

void series_observe(Series *s, double value) {
    const State *st = s->of;
    assert(st->row->type == METRIC_HISTOGRAM);
    if (isnan(value)) return;
    size_t b = 0;
    while (b < st->buckets_n && value > st->row->buckets[b]) b++;
    atomic_fetch_add_explicit(&s->hits[b], 1, memory_order_relaxed);
    bits_add(s, value);
}

// ---- exposition

static void put_number(Buf *out, double n) {
    char text[40];
    if (isnan(n) || isinf(n)) {
        buf_add(out, isnan(n) ? S("NaN") : n > 0 ? S("+Inf") : S("-Inf"));
        return;
    }
    bool whole = fabs(n) < 1e15 && n == (double)(int64_t)n;
    for (int digits = whole ? 17 : 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, n);
        double back;
        if (str_to_f64(str_z(text), &back) && back == n) break;
    }
    buf_add(out, str_z(text));
}

static void put_sample(Buf *out, const Series *s, const char *suffix, str le, double value) {
    buf_add(out, s->of->name);
    buf_add(out, str_z(suffix));
    if (s->labels.n || le.n) {
        buf_add_char(out, '{');
        buf_add(out, s->labels);
        if (s->labels.n && le.n) buf_add_char(out, ',');
        if (le.n) buf_printf(out, "le=\"" STR_FMT "\"", STR_ARG(le));
        buf_add_char(out, '}');
    }
    buf_add_char(out, ' ');
    put_number(out, value);
    buf_add_char(out, '\n');
}

// _count is the sum of the buckets that were read, so the two always agree; a scrape in the midst
// of an observation may miss it in _sum, or see it there only.
static void put_histogram(Buf *out, Series *s) {
    const State *st = s->of;
    uint64_t total = 0;
    for (size_t b = 0; b <= st->buckets_n; b++) {
        total += atomic_load_explicit(&s->hits[b], memory_order_relaxed);
        Buf le;
        buf_init(&le, 64);
        put_number(&le, b < st->buckets_n ? st->row->buckets[b] : INFINITY);
        put_sample(out, s, "_bucket", buf_str(&le), (double)total);
        buf_done(&le);
    }
    put_sample(out, s, "_sum", S(""),
               from_bits(atomic_load_explicit(&s->bits, memory_order_relaxed)));
    put_sample(out, s, "_count", S(""), (double)total);
}

static void put_series(Buf *out, Series *s) {
    if (s->of->row->type == METRIC_HISTOGRAM) {
        put_histogram(out, s);
        return;
    }
    double n = from_bits(atomic_load_explicit(&s->bits, memory_order_relaxed));
    n += (double)atomic_load_explicit(&s->whole, memory_order_relaxed);
    put_sample(out, s, "", S(""), n);
}

static void put_metric(Buf *out, State *st) {
    static const char *const types[] = { "counter", "gauge", "histogram" };
    // The lock orders this with `later` of a series that is being added.
    pthread_mutex_lock(&st->lock);
    Series *first = st->first, *last = st->last;
    pthread_mutex_unlock(&st->lock);
    if (!first) return;
    buf_printf(out, "# HELP " STR_FMT " ", STR_ARG(st->name));
    add_escaped(out, str_z(st->row->en), false);
    buf_printf(out, "\n# TYPE " STR_FMT " %s\n", STR_ARG(st->name), types[st->row->type]);
    for (Series *s = first;; s = s->later) {
        put_series(out, s);
        if (s == last) return;
    }
}

static void collect(void) {
    Collector copy[COLLECTORS_MAX];
    pthread_mutex_lock(&states_lock);
    size_t n = collectors_n;
    memcpy(copy, collectors, n * sizeof *copy);
    pthread_mutex_unlock(&states_lock);
    for (size_t i = 0; i < n; i++) copy[i].fn(copy[i].arg);
}

void metric_collector(void (*fn)(void *arg), void *arg) {
    pthread_mutex_lock(&states_lock);
    assert(collectors_n < COLLECTORS_MAX);
    collectors[collectors_n++] = (Collector){ fn, arg };
    pthread_mutex_unlock(&states_lock);
}

void metrics_write(Buf *out) {
    collect();
    State *now[STATES_MAX];
    pthread_mutex_lock(&states_lock);
    size_t n = order_n;
    memcpy(now, order, n * sizeof *now);
    pthread_mutex_unlock(&states_lock);
    for (size_t i = 0; i < n; i++) put_metric(out, now[i]);
}

void metrics_declare(const Metric *const *rows) {
    static const str none[METRIC_LABELS_MAX];
    for (; rows && *rows; rows++) {
        State *st = state_of(*rows);
        if (!st->labels_n) metric_series(*rows, none);
    }
}

static void series_free(const State *st, Series *s) {
    for (size_t i = 0; i < st->labels_n; i++) mem_free((void *)(uintptr_t)s->values[i].p);
    mem_free((void *)(uintptr_t)s->labels.p);
    mem_free(s);
}

void metrics_reset(void) {
    for (size_t i = 0; i < order_n; i++) {
        State *st = order[i];
        for (Series *s = st->first, *later; s; s = later) {
            later = s->later;
            series_free(st, s);
        }
        pthread_mutex_destroy(&st->lock);
        mem_free((void *)(uintptr_t)st->name.p);
        mem_free(st);
        order[i] = NULL;
    }
    order_n = collectors_n = 0;
    for (size_t i = 0; i < STATES_MAX; i++) atomic_store(&states[i], NULL);
}
