/* SPDX-License-Identifier: MIT */
/* Hints are made from the files, not from what passes by: so there is one way for segments that were just sealed and for those
 * that were found without. Only headers are looked at; what is dead by now, and durably so, is left out. The newest segment
 * first: the oldest one is compacted soon.
 *
 * Nothing depends on a hint. What goes wrong here leaves a segment without one. A segment with damage gets none, so that each
 * start finds the damage. */

#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

void hints_want(Store *s, uint64_t number) {
        HintMaker *m = &s->hints;
        if (m->n == m->cap) {
                size_t cap = MAX(m->cap * 2, (size_t)16);
                uint64_t *more = fault_realloc(m->numbers, cap * sizeof(*more));
                if (!more)
                        return; /* a start reads that segment */
                m->numbers = more;
                m->cap = cap;
        }
        m->numbers[m->n++] = number;
}

static void leave(HintMaker *m) {
        segment_close(&m->segment);
        segment_window_done(&m->window);
        hint_done(&m->hint);
}

void hints_deinit(HintMaker *m) {
        leave(m);
        free(m->numbers);
        *m = (HintMaker) { .segment = SEGMENT_NULL };
}

void hints_drop(Store *s, uint64_t number) {
        HintMaker *m = &s->hints;
        size_t kept = 0;
        if (m->segment.fd >= 0 && m->segment.number == number)
                leave(m);
        for (size_t i = 0; i < m->n; i++)
                if (m->numbers[i] != number)
                        m->numbers[kept++] = m->numbers[i];
        m->n = kept;
}

bool hints_are_wanted(Store *s) {
        const HintMaker *m = &s->hints;
        return (m->n > 0 || m->segment.fd >= 0) && s->own_health == STORE_GOOD && !s->index_broken &&
               !reader_is_writing(s);
}

/* False: there is nothing to be made. */
static bool begin(Store *s) {
        HintMaker *m = &s->hints;
        while (m->segment.fd < 0) {
                if (m->n == 0)
                        return false;
                uint64_t number = m->numbers[--m->n];
                bool moving = s->victim.fd >= 0 && s->victim.number == number; /* not all of its copies are synced */
                if (!moving && segment_open(s->dir_fd, number, &m->segment) >= 0)
                        m->at = SEGMENT_HEADER;
        }
        return true;
}

static int add(Store *s, const Record *r) {
        HintMaker *m = &s->hints;
        uint64_t ignored;
        StoreBytes begin = { NULL, 0 };
        if (r->kind == STORE_TASK) {
                const char *p;
                begin.len = MIN(r->body.len, (uint32_t)STORE_BEGIN);
                int e = segment_window(&m->window, &m->segment, m->at, RECORD_HEADER + begin.len, &p);
                if (e < 0)
                        return e;
                begin.data = p + RECORD_HEADER;
        }
        return hint_add(&m->hint, r, begin, m->at,
                        index_is_live(&s->index, r, (uint32_t)m->segment.number, m->at, &ignored));
}

/* One record. 1: that was the seal. */
static int step(Store *s) {
        HintMaker *m = &s->hints;
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
                return 1;
        }
        e = add(s, &r);
        m->at += (uint32_t)n;
        return e;
}

void hints_step(Store *s, size_t budget) {
        HintMaker *m = &s->hints;
        char *data;
        size_t size;
        if (!begin(s))
                return;
        uint32_t from = m->at;
        int e = 0;
        while (e == 0 && m->at - from < budget)
                e = step(s);
        if (e > 0 && hint_encode(&m->hint, &m->segment, &data, &size) >= 0)
                reader_write_hint(s, m->segment.number, data, size);
        if (e != 0)
                leave(m);
}

void hints_finish(Store *s, uint64_t number) {
        HintMaker *m = &s->hints;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int e = 0;
        leave(m);
        m->n = 0;
        hints_want(s, number);
        if (s->index_broken || !begin(s))
                return;
        while (e == 0)
                e = step(s);
        if (e > 0 && hint_encode(&m->hint, &m->segment, &data, &size) >= 0)
                (void)hint_write(s->dir_fd, number, data, size); /* if not, a start reads the segment */
        leave(m);
}
