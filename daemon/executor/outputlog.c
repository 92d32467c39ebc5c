/* SPDX-License-Identifier: MIT */
/* The tail of two streams, the order in which they came, and which attempt wrote what.
 *
 * Each stream has a ring with its last bytes. `order` is a third ring that holds the lengths of runs, a run being what
 * one stream wrote before the other one did, as variable-length numbers of `length * 2 + is_stderr`; the newest run is
 * still growing and stays in last_stream, last_len. Runs speak of positions in the whole stream, counted from its start,
 * so dropping old bytes does not touch them: a walk leaves out what a ring no longer has. Runs that are gone altogether
 * leave at the front.
 *
 *     order:   [out 5][err 2][begin][out 9]... + last run    order_at[s]: where the first run of s starts
 *     rings[out]: ...........xxxxxxx                         n_total[s] - len .. n_total[s]: what is kept
 *
 * A run belongs to one attempt. Between the runs of two attempts stands a mark, in place of a run without length: 0 for the
 * next attempt, 1 and a number where some in between wrote nothing. It is put with the first byte of an attempt, so that
 * silent ones cost nothing. `first` and the marks number the runs. A mark at the front stays as long as the run after
 * it does: what an attempt wrote that is gone altogether is then still known.
 *
 * A stream that floods cannot push out the other one's tail, and a trickle that alternates with a flood costs a few bytes
 * per run and not a block. */

#include "executor/outputlog.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"

enum { RING_MIN = 256, ORDER_MIN = 16, ORDER_MAX = 2 * EQ_LOG_TAIL, VARINT_MAX = 10 };

/* ---- rings ---- */

/* Drops the n oldest. */
static void ring_drop(OutputRing *r, size_t n) {
        assert(n <= r->len);
        r->len -= (uint32_t)n;
        r->head = r->len ? (uint32_t)((r->head + n) % r->cap) : 0;
}

/* Room for `want` bytes in all, at most max. 0 or -ENOMEM: stays as it is. */
static int ring_grow(OutputRing *r, size_t want, size_t min, size_t max) {
        if (want <= r->cap || r->cap == max)
                return 0;
        size_t cap = r->cap ? r->cap : min;
        while (cap < want && cap < max)
                cap *= 2;
        cap = MIN(cap, max);
        char *data = fault_malloc(cap);
        if (!data)
                return -ENOMEM;
        size_t first = MIN(r->len, r->cap - r->head);
        if (first)
                memcpy(data, r->data + r->head, first);
        if (r->len > first)
                memcpy(data + first, r->data, r->len - first);
        free(r->data);
        *r = (OutputRing) { .data = data, .cap = (uint32_t)cap, .len = r->len };
        return 0;
}

/* Appends; there must be room. */
static void ring_put(OutputRing *r, const char *data, size_t n) {
        size_t at = (r->head + r->len) % r->cap, first = MIN(n, r->cap - at);
        memcpy(r->data + at, data, first);
        if (n > first)
                memcpy(r->data, data + first, n - first);
        r->len += (uint32_t)n;
}

/* ---- the order ---- */

static unsigned index_of(uint8_t stream) {
        return stream - EQ_STREAM_STDOUT;
}

static size_t varint_put(char *buf, uint64_t v) {
        size_t n = 0;
        for (; v >= 0x80; v >>= 7)
                buf[n++] = (char)(v | 0x80);
        buf[n++] = (char)v;
        return n;
}

static size_t varint_get(const OutputRing *order, size_t at, uint64_t *ret) {
        uint64_t v = 0;
        unsigned char c;
        unsigned shift = 0;
        do {
                c = (unsigned char)order->data[(order->head + at++) % order->cap];
                v |= (uint64_t)(c & 0x7f) << shift;
                shift += 7;
        } while (c & 0x80);
        *ret = v;
        return at;
}

/* A run, or a mark. */
typedef struct Entry {
        uint16_t n_begun; /* attempts that begin here; 0: it is a run */
        uint8_t stream;
        uint64_t len;
} Entry;

/* Reads the entry at offset `at` of the order; returns the offset of the next one. */
static size_t entry_get(const OutputRing *order, size_t at, Entry *ret) {
        uint64_t v, n = 1;
        at = varint_get(order, at, &v);
        if (v > 1) {
                *ret = (Entry) { .stream = v & 1 ? EQ_STREAM_STDERR : EQ_STREAM_STDOUT, .len = v >> 1 };
                return at;
        }
        if (v == 1)
                at = varint_get(order, at, &n);
        *ret = (Entry) { .n_begun = (uint16_t)n };
        return at;
}

static uint64_t kept_from(const OutputLog *l, unsigned i) {
        return l->n_total[i] - l->rings[i].len;
}

/* The oldest run, which is not in the order, or no more. */
static void forget_run(OutputLog *l, uint8_t stream, uint64_t len) {
        unsigned i = index_of(stream);
        uint64_t from = kept_from(l, i);
        l->order_at[i] += len;
        l->n_gone += len;
        if (l->order_at[i] > from) /* not if it is its bytes that ran out of room */
                ring_drop(&l->rings[i], l->order_at[i] - from);
}

static void order_pop(OutputLog *l) {
        Entry e;
        size_t n = entry_get(&l->order, 0, &e);
        ring_drop(&l->order, n);
        if (e.n_begun > 0) {
                l->first += e.n_begun;
                l->n_gone = 0;
        } else
                forget_run(l, e.stream, e.len);
}

static void order_pop_dead(OutputLog *l) {
        while (l->order.len > 0) {
                Entry e;
                size_t n = entry_get(&l->order, 0, &e);
                bool marked = e.n_begun > 0;
                if (marked && n == l->order.len)
                        return; /* what comes after it is the newest run */
                if (marked)
                        (void)entry_get(&l->order, n, &e);
                unsigned i = index_of(e.stream);
                if (l->order_at[i] + e.len > kept_from(l, i))
                        return;
                order_pop(l);
        }
}

/* Where it cannot grow the oldest entries make room. Without memory for any order it stays empty: the caller sees to that. */
static int order_put(OutputLog *l, const char *entry, size_t n) {
        int r = ring_grow(&l->order, l->order.len + n, ORDER_MIN, ORDER_MAX);

        while (l->order.len > 0 && l->order.len + n > l->order.cap)
                order_pop(l);
        if (l->order.cap > 0)
                ring_put(&l->order, entry, n);
        return r;
}

/* The newest run is over: it goes into the order, or what comes now is all that is kept. */
static int put_run(OutputLog *l) {
        char buf[VARINT_MAX];
        int r = order_put(l, buf, varint_put(buf, l->last_len << 1 | (l->last_stream == EQ_STREAM_STDERR)));

        if (l->order.cap == 0)
                forget_run(l, l->last_stream, l->last_len);
        l->last_len = 0;
        return r;
}

/* The same with the first byte of the newest attempt. */
static int put_mark(OutputLog *l) {
        char buf[1 + VARINT_MAX] = { 0 };
        uint16_t n_begun = l->attempt - l->written;
        size_t n = 1;
        int run = l->last_len > 0 ? put_run(l) : 0;

        if (n_begun > 1) {
                buf[0] = 1;
                n += varint_put(buf + 1, n_begun);
        }
        int r = order_put(l, buf, n);
        if (l->order.cap == 0) {
                l->first = l->attempt;
                l->n_gone = 0;
        }
        l->written = l->attempt;
        return r < 0 ? r : run;
}

/* ---- the log ---- */

void output_log_init(OutputLog *l) {
        *l = (OutputLog) { 0 };
}

void output_log_deinit(OutputLog *l) {
        for (size_t i = 0; i < ELEMENTSOF(l->rings); i++)
                free(l->rings[i].data);
        free(l->order.data);
        output_log_init(l);
}

void output_log_begin(OutputLog *l, uint16_t attempt) {
        bool silent = memcmp(l->begun_at, l->n_total, sizeof(l->begun_at)) == 0;
        if (attempt < l->attempt || (attempt == l->attempt && !silent))
                output_log_deinit(l);
        if (l->attempt == 0)
                l->first = l->written = attempt;
        l->attempt = attempt;
        memcpy(l->begun_at, l->n_total, sizeof(l->begun_at));
}

int output_log_append(OutputLog *l, uint8_t stream, const char *data, size_t n) {
        assert(stream == EQ_STREAM_STDOUT || stream == EQ_STREAM_STDERR);
        OutputRing *ring = &l->rings[index_of(stream)];
        int r = 0;

        if (n == 0)
                return 0;
        if (l->written != l->attempt)
                r = put_mark(l);
        else if (l->last_len > 0 && l->last_stream != stream)
                r = put_run(l);
        l->last_stream = stream;
        l->last_len += n;

        int grown = ring_grow(ring, MIN(ring->len + n, (size_t)EQ_LOG_TAIL), RING_MIN, EQ_LOG_TAIL);
        size_t keep = MIN(n, ring->cap), room = ring->cap - ring->len;
        size_t old = keep > room ? keep - room : 0;
        ring_drop(ring, old);
        if (keep)
                ring_put(ring, data + n - keep, keep);
        l->n_total[index_of(stream)] += n;
        if (old + (n - keep) > 0)
                order_pop_dead(l);
        return grown < 0 ? grown : r;
}

void output_log_set_written(OutputLog *l, uint8_t stream, uint64_t n_total) {
        unsigned i = index_of(stream);
        uint64_t n = n_total > l->n_total[i] ? n_total - l->n_total[i] : 0;
        l->n_total[i] += n;
        l->order_at[i] += n;
        l->n_gone += n;
}

/* ---- looking at it ---- */

typedef struct Walk {
        const OutputLog *log;
        size_t next; /* offset in the order; after it comes the newest run */
        uint16_t attempt;
        uint64_t at[OUTPUT_STREAMS]; /* where the next run starts */
} Walk;

typedef struct Run {
        uint16_t attempt;
        uint8_t stream;
        uint64_t start, kept, end; /* what is kept of it: from `kept` on */
} Run;

static Walk walk_begin(const OutputLog *l) {
        Walk w = { .log = l, .attempt = l->first };
        memcpy(w.at, l->order_at, sizeof(w.at));
        return w;
}

/* False: there are no more. */
static bool walk_next(Walk *w, Run *ret) {
        const OutputLog *l = w->log;
        Entry e = { 0 };

        while (w->next < l->order.len && e.len == 0) {
                w->next = entry_get(&l->order, w->next, &e);
                w->attempt += e.n_begun;
        }
        if (e.len == 0) {
                if (w->next > l->order.len || l->last_len == 0)
                        return false;
                w->next++;
                e = (Entry) { .stream = l->last_stream, .len = l->last_len };
        }
        unsigned i = index_of(e.stream);
        uint64_t start = w->at[i], end = w->at[i] += e.len;
        *ret = (Run) { .attempt = w->attempt,
                       .stream = e.stream,
                       .start = start,
                       .kept = MIN(MAX(start, kept_from(l, i)), end),
                       .end = end };
        return true;
}

uint64_t output_log_dropped(const OutputLog *l, uint16_t attempt) {
        uint64_t n = attempt == l->first ? l->n_gone : 0;
        Walk w = walk_begin(l);
        Run run;
        while (walk_next(&w, &run))
                n += run.attempt == attempt ? run.kept - run.start : 0;
        return n;
}

void output_log_foreach(const OutputLog *l, uint16_t attempt, unsigned mask,
                        void (*each)(void *userdata, uint8_t stream, const char *data, size_t n), void *userdata) {
        Walk w = walk_begin(l);
        Run run;
        while (walk_next(&w, &run)) {
                if (run.attempt != attempt || run.kept == run.end || !(mask & 1u << run.stream))
                        continue;
                unsigned i = index_of(run.stream);
                const OutputRing *r = &l->rings[i];
                size_t n = run.end - run.kept, at = (r->head + (run.kept - kept_from(l, i))) % r->cap;
                size_t first = MIN(n, r->cap - at);
                each(userdata, run.stream, r->data + at, first);
                if (n > first)
                        each(userdata, run.stream, r->data, n - first);
        }
}
