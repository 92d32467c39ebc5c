/* SPDX-License-Identifier: MIT */
/* Hints are made from the files, not from what passes by: so there is one way for segments that were just sealed and for those
 * that were found without. Only headers are looked at; what is dead by now, and durably so, is left out. The newest segment
 * first: the oldest one is compacted soon.
 *
 * The store thread says which one is next, and what lives in it; the rest is the reader thread's, a piece at a time. That has
 * bodies to fetch first, so it may be behind: then the store thread reads one itself between batches, and no more than that one,
 * the reader's and WAITING_MAX are without a hint, however fast the log grows. Only fetches without any pause hold all of it up.
 *
 * Nothing depends on a hint. What goes wrong here leaves a segment without one. A segment with damage gets none, so that each
 * start finds the damage. */

#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

enum {
        STEP = 512 * 1024, /* bytes that a fetch waits for */
        WAITING_MAX = 1,
};

/* ---- which ones: the store thread ---- */

void hints_want(Store *s, uint64_t number) {
        HintsWanted *h = &s->hints;
        if (h->n == h->cap) {
                size_t cap = MAX(h->cap * 2, (size_t)16);
                uint64_t *more = fault_realloc(h->numbers, cap * sizeof(*more));
                if (!more)
                        return; /* a start reads that segment */
                h->numbers = more;
                h->cap = cap;
        }
        h->numbers[h->n++] = number;
}

void hints_deinit(HintsWanted *h) {
        free(h->numbers);
        hint_maker_free(h->own);
        *h = (HintsWanted) { 0 };
}

void hints_drop(Store *s, uint64_t number) {
        HintsWanted *h = &s->hints;
        size_t kept = 0;
        if (h->own && h->own->number == number)
                h->own = hint_maker_free(h->own);
        for (size_t i = 0; i < h->n; i++)
                if (h->numbers[i] != number)
                        h->numbers[kept++] = h->numbers[i];
        h->n = kept;
}

bool hints_are_wanted(Store *s) {
        const HintsWanted *h = &s->hints;
        if (s->own_health != STORE_GOOD || s->index_broken || (h->n == 0 && !h->own))
                return false;
        return !reader_has_hint(s) || (h->own ? !h->own->is_read : h->n > WAITING_MAX);
}

/* NULL: out of memory. */
static HintMaker *maker_new(const Store *s, uint64_t number) {
        HintMaker *m = fault_calloc(1, sizeof(*m));
        if (!m)
                return NULL;
        m->number = number;
        m->segment = (Segment)SEGMENT_NULL;
        if (live_map_copy(&s->index.live, (uint32_t)number, &m->live) < 0)
                return hint_maker_free(m);
        return m;
}

/* NULL: not of that one. */
static HintMaker *take_next(Store *s) {
        uint64_t number = s->hints.numbers[--s->hints.n];
        bool moving = s->victim.fd >= 0 && s->victim.number == number; /* not all of its copies are synced */
        return moving ? NULL : maker_new(s, number);
}

void hints_step(Store *s, size_t budget) {
        HintsWanted *h = &s->hints;
        bool is_behind = reader_has_hint(s);
        if (!h->own && h->n > (is_behind ? WAITING_MAX : 0))
                h->own = take_next(s);
        if (!h->own)
                return;
        if (!is_behind)
                reader_make_hint(s, TAKE_PTR(h->own)); /* which goes on where this thread has ended */
        else if (hint_maker_read(h->own, s->dir_fd, budget) < 0)
                h->own = hint_maker_free(h->own);
}

static void finish(const Store *s, HintMaker *m) {
        int e = m ? 0 : -ENOMEM;
        while (e == 0)
                e = hint_maker_step(m, s->dir_fd); /* if there is none in the end, a start reads the segment */
        hint_maker_free(m);
}

void hints_finish(Store *s, uint64_t number) {
        finish(s, TAKE_PTR(s->making));
        finish(s, TAKE_PTR(s->hints.own));
        if (s->index_broken)
                return;
        if (s->hints.n > 0) /* sealed a moment ago; the others, if there are any, are those that were found without */
                finish(s, maker_new(s, s->hints.numbers[--s->hints.n]));
        finish(s, maker_new(s, number));
}

/* ---- one of them: whose it is ---- */

HintMaker *hint_maker_free(HintMaker *m) {
        if (!m)
                return NULL;
        live_map_done(&m->live);
        segment_close(&m->segment);
        segment_window_done(&m->window);
        hint_done(&m->hint);
        free(m);
        return NULL;
}

static int begin(HintMaker *m, int dir_fd) {
        if (m->segment.fd >= 0)
                return 0;
        m->at = SEGMENT_HEADER;
        return segment_open(dir_fd, m->number, &m->segment);
}

static int add(HintMaker *m, const Record *r) {
        StoreBytes begin = { NULL, 0 };
        if (r->kind == STORE_TASK) {
                const char *p;
                begin.len = MIN(r->body.len, (uint32_t)STORE_BEGIN);
                int e = segment_window(&m->window, &m->segment, m->at, RECORD_HEADER + begin.len, &p);
                if (e < 0)
                        return e;
                begin.data = p + RECORD_HEADER;
        }
        return hint_add(&m->hint, r, begin, m->at, live_map_get(&m->live, (uint32_t)m->number, m->at));
}

/* One record, or the seal. */
static int step(HintMaker *m) {
        const char *p;
        Record r;
        int e = segment_window(&m->window, &m->segment, m->at, RECORD_HEADER, &p);
        if (e < 0)
                return e;
        long n = record_read_header(p, m->segment.salt, &r);
        if (n <= 0 || (size_t)n > m->segment.size - m->at)
                return -EBADMSG;
        if (r.kind == STORE_SEAL) {
                m->hint.end = m->at;
                m->is_read = true;
                return 0;
        }
        e = add(m, &r);
        m->at += (uint32_t)n;
        return e;
}

/* Has the segment gone meanwhile, the hint goes as well. */
static int write_hint(const HintMaker *m, int dir_fd) {
        _cleanup_free_ char *data = NULL;
        size_t size;
        int e = hint_encode(&m->hint, &m->segment, &data, &size);
        if (e >= 0)
                e = hint_write(dir_fd, m->number, data, size);
        return e < 0 ? e : 1;
}

int hint_maker_read(HintMaker *m, int dir_fd, size_t budget) {
        int e = begin(m, dir_fd);
        uint32_t from = m->at;
        while (e == 0 && !m->is_read && m->at - from < budget)
                e = step(m);
        return e;
}

int hint_maker_step(HintMaker *m, int dir_fd) {
        int e = hint_maker_read(m, dir_fd, STEP);
        return e >= 0 && m->is_read ? write_hint(m, dir_fd) : e;
}
