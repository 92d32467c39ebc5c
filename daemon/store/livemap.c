/* SPDX-License-Identifier: MIT */
#include "store/livemap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/record.h"

/* No two records begin in the same RECORD_HEADER bytes. */
static uint32_t word_of(uint32_t at) {
        return at / RECORD_HEADER / 64;
}

static uint64_t bit_of(uint32_t at) {
        return UINT64_C(1) << at / RECORD_HEADER % 64;
}

/* Where it is, or belongs. Mostly they are without a gap. */
static size_t place_of(const LiveMap *m, uint32_t segment) {
        size_t low = 0, high = m->n;
        if (m->n > 0 && segment >= m->segments[0].number && segment - m->segments[0].number < m->n &&
            m->segments[segment - m->segments[0].number].number == segment)
                return segment - m->segments[0].number;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (m->segments[middle].number < segment)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static LiveSegment *find(const LiveMap *m, uint32_t segment) {
        size_t i = place_of(m, segment);
        return i < m->n && m->segments[i].number == segment ? &m->segments[i] : NULL;
}

static int add(LiveMap *m, uint32_t segment, LiveSegment **ret) {
        if (m->n == m->cap) {
                size_t cap = MAX(m->cap * 2, (size_t)16);
                LiveSegment *more = fault_realloc(m->segments, cap * sizeof(*more));
                if (!more)
                        return -ENOMEM;
                m->segments = more;
                m->cap = cap;
        }
        size_t i = place_of(m, segment);
        memmove(&m->segments[i + 1], &m->segments[i], (m->n - i) * sizeof(*m->segments));
        m->segments[i] = (LiveSegment) { .number = segment };
        m->n++;
        *ret = &m->segments[i];
        return 0;
}

static int reach(LiveSegment *s, uint32_t word) {
        if (word < s->n_words)
                return 0;
        uint32_t n = MAX(s->n_words * 2, word + 64);
        uint64_t *words = fault_realloc(s->words, n * sizeof(*words));
        if (!words)
                return -ENOMEM;
        memset(words + s->n_words, 0, (n - s->n_words) * sizeof(*words));
        s->words = words;
        s->n_words = n;
        return 0;
}

int live_map_set(LiveMap *m, uint32_t segment, uint32_t at) {
        LiveSegment *s = find(m, segment);
        int e = s ? 0 : add(m, segment, &s);
        if (e >= 0)
                e = reach(s, word_of(at));
        if (e >= 0)
                s->words[word_of(at)] |= bit_of(at);
        return e;
}

void live_map_unset(LiveMap *m, uint32_t segment, uint32_t at) {
        LiveSegment *s = find(m, segment);
        if (s && word_of(at) < s->n_words)
                s->words[word_of(at)] &= ~bit_of(at);
}

bool live_map_get(const LiveMap *m, uint32_t segment, uint32_t at) {
        const LiveSegment *s = find(m, segment);
        return s && word_of(at) < s->n_words && s->words[word_of(at)] & bit_of(at);
}

int live_map_copy(const LiveMap *m, uint32_t segment, LiveMap *ret) {
        const LiveSegment *from = find(m, segment);
        LiveMap copy = { 0 };
        LiveSegment *to;
        int e = from && from->n_words > 0 ? add(&copy, segment, &to) : 0;
        if (e >= 0 && copy.n > 0)
                e = reach(to, from->n_words - 1);
        if (e < 0) {
                live_map_done(&copy);
                return e;
        }
        if (copy.n > 0)
                memcpy(to->words, from->words, from->n_words * sizeof(*to->words));
        *ret = copy;
        return 0;
}

void live_map_drop(LiveMap *m, uint32_t segment) {
        LiveSegment *s = find(m, segment);
        if (!s)
                return;
        free(s->words);
        m->n--;
        memmove(s, s + 1, (m->n - (size_t)(s - m->segments)) * sizeof(*s));
}

void live_map_done(LiveMap *m) {
        for (size_t i = 0; i < m->n; i++)
                free(m->segments[i].words);
        free(m->segments);
        *m = (LiveMap) { 0 };
}
