/* SPDX-License-Identifier: MIT */
#pragma once

/* What the scenarios of the rescuer note and measure, on a played pool (rescuer-test.c) and on threads (threadrescue-test.c). */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "engine/queue.h"

/* Starts of tasks. */
typedef struct Starts {
        char order[1 << 16]; /* of one queue: "1 2 3" */
        char turns[4096];    /* names of queues, of rescued ones */
} Starts;

static inline void starts_note_order(Starts *s, const Task *t) {
        size_t len = strlen(s->order);
        if (len + 10 < sizeof(s->order))
                snprintf(s->order + len, sizeof(s->order) - len, "%s%lu", len ? " " : "", (unsigned long)t->seq);
}

static inline void starts_note_turn(Starts *s, const Task *t) {
        size_t len = strlen(s->turns);
        if (len + 2 < sizeof(s->turns))
                snprintf(s->turns + len, sizeof(s->turns) - len, "%c", t->queue->name[0]);
}

static inline size_t starts_longest_turn(const Starts *s) {
        size_t longest = 0, n = 0;
        for (const char *c = s->turns; *c; c++) {
                n = c > s->turns && c[-1] == *c ? n + 1 : 1;
                longest = MAX(longest, n);
        }
        return longest;
}

/* Of scenario 1: 100 tasks of 10 ms, the third of which blocks for 5 s. */
enum { S1_TASKS = 100 };

typedef struct Figures {
        uint64_t first, third, p50, last; /* ends; last and p50 without the third */
} Figures;

static inline int figures_compare(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
        return x < y ? -1 : x > y;
}

/* Sorts ends. */
static inline Figures figures_of(uint64_t ends[S1_TASKS]) {
        uint64_t third = ends[2];
        ends[2] = ends[S1_TASKS - 1];
        qsort(ends, S1_TASKS - 1, sizeof(ends[0]), figures_compare);
        return (Figures) { .first = ends[0], .p50 = ends[49], .last = ends[S1_TASKS - 2], .third = third };
}
