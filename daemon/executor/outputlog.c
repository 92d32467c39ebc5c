/* SPDX-License-Identifier: MIT */
/* The tail of two streams, and the order in which they came.
 *
 * Each stream has a ring with its last bytes. `order` is a third ring that holds the lengths of runs, a run being what
 * one stream wrote before the other one did, as variable-length numbers of `length * 2 + is_stderr`; the newest run is
 * still growing and stays in last_stream, last_len. Runs speak of positions in the whole stream, counted from its start,
 * so dropping old bytes does not touch them: a walk leaves out what a ring no longer has. Runs that are gone altogether
 * leave at the front.
 *
 *     order:   [out 5][err 2][out 9]... + last run        order_at[s]: where the first run of s starts
 *     rings[out]: ...........xxxxxxx                      n_total[s] - len .. n_total[s]: what is kept
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

/* ---- runs ---- */

static size_t varint_put(char *buf, uint64_t v) {
        size_t n = 0;
        for (; v >= 0x80; v >>= 7)
                buf[n++] = (char)(v | 0x80);
        buf[n++] = (char)v;
        return n;
}

/* Reads the run at offset `at` of the order; returns the offset of the next one. */
static size_t run_get(const OutputRing *order, size_t at, uint8_t *ret_stream, uint64_t *ret_len) {
        uint64_t v = 0;
        unsigned char c;
        unsigned shift = 0;
        do {
                c = (unsigned char)order->data[(order->head + at++) % order->cap];
                v |= (uint64_t)(c & 0x7f) << shift;
                shift += 7;
        } while (c & 0x80);
        *ret_stream = v & 1 ? EQ_STREAM_STDERR : EQ_STREAM_STDOUT;
        *ret_len = v >> 1;
        return at;
}

static uint64_t kept_from(const OutputLog *l, uint8_t stream) {
        return l->n_total[stream] - l->rings[stream].len;
}

static void drop_before(OutputLog *l, uint8_t stream, uint64_t position) {
        uint64_t from = kept_from(l, stream);
        if (position <= from)
                return;
        ring_drop(&l->rings[stream], position - from);
        l->n_dropped += position - from;
}

static void order_pop(OutputLog *l) {
        uint8_t stream;
        uint64_t len;
        size_t n = run_get(&l->order, 0, &stream, &len);
        l->order_at[stream] += len;
        ring_drop(&l->order, n);
        drop_before(l, stream, l->order_at[stream]); /* nothing, unless the order is what ran out of room */
}

static void order_pop_dead(OutputLog *l) {
        while (l->order.len > 0) {
                uint8_t stream;
                uint64_t len;
                (void)run_get(&l->order, 0, &stream, &len);
                if (l->order_at[stream] + len > kept_from(l, stream))
                        return;
                order_pop(l);
        }
}

/* The newest run is over: it goes into the order. */
static int order_push(OutputLog *l) {
        char buf[VARINT_MAX];
        size_t n = varint_put(buf, l->last_len << 1 | (l->last_stream == EQ_STREAM_STDERR));
        int r = ring_grow(&l->order, l->order.len + n, ORDER_MIN, ORDER_MAX);

        while (l->order.len > 0 && l->order.len + n > l->order.cap)
                order_pop(l);
        if (n <= l->order.cap)
                ring_put(&l->order, buf, n);
        else { /* no memory for any order: only the run that starts now is kept */
                l->order_at[l->last_stream] += l->last_len;
                drop_before(l, l->last_stream, l->order_at[l->last_stream]);
        }
        l->last_len = 0;
        return r;
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

int output_log_append(OutputLog *l, uint8_t stream, const char *data, size_t n) {
        OutputRing *ring = &l->rings[stream];
        int r = 0;

        assert(stream == EQ_STREAM_STDOUT || stream == EQ_STREAM_STDERR);
        if (n == 0)
                return 0;
        if (l->last_len > 0 && l->last_stream != stream)
                r = order_push(l);
        l->last_stream = stream;
        l->last_len += n;

        int grown = ring_grow(ring, MIN(ring->len + n, (size_t)EQ_LOG_TAIL), RING_MIN, EQ_LOG_TAIL);
        size_t keep = MIN(n, ring->cap), room = ring->cap - ring->len;
        size_t old = keep > room ? keep - room : 0;
        ring_drop(ring, old);
        if (keep)
                ring_put(ring, data + n - keep, keep);
        l->n_total[stream] += n;
        l->n_dropped += old + (n - keep);
        if (old + (n - keep) > 0)
                order_pop_dead(l);
        return grown < 0 ? grown : r;
}

typedef struct Walk {
        const OutputLog *log;
        unsigned mask;
        void (*each)(void *userdata, uint8_t stream, const char *data, size_t n);
        void *userdata;
        uint64_t at[3]; /* by stream: where the next run starts */
} Walk;

static void walk_run(Walk *w, uint8_t stream, uint64_t len) {
        const OutputRing *r = &w->log->rings[stream];
        uint64_t end = w->at[stream] + len, start = MAX(w->at[stream], kept_from(w->log, stream));

        w->at[stream] = end;
        if (start >= end || !(w->mask & 1u << stream))
                return;
        size_t n = end - start, at = (r->head + (start - kept_from(w->log, stream))) % r->cap;
        size_t first = MIN(n, r->cap - at);
        w->each(w->userdata, stream, r->data + at, first);
        if (n > first)
                w->each(w->userdata, stream, r->data, n - first);
}

void output_log_foreach(const OutputLog *l, unsigned mask,
                        void (*each)(void *userdata, uint8_t stream, const char *data, size_t n), void *userdata) {
        Walk w = { .log = l, .mask = mask, .each = each, .userdata = userdata };

        memcpy(w.at, l->order_at, sizeof(w.at));
        for (size_t at = 0; at < l->order.len;) {
                uint8_t stream;
                uint64_t len;
                at = run_get(&l->order, at, &stream, &len);
                walk_run(&w, stream, len);
        }
        if (l->last_len > 0)
                walk_run(&w, l->last_stream, l->last_len);
}
