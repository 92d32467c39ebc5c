/* SPDX-License-Identifier: MIT */
#pragma once

/* Many timers behind one uv_timer. A Timer is embedded in what it belongs to. Loop; nothing blocks. */

#include <uv.h>

#include "base/clock.h"
#include "base/heap.h"

typedef struct Timer Timer;
struct Timer {
        HeapItem item;
        void (*fire)(Timer *t); /* may set or unset any timer and free what it is embedded in */
};
#define TIMER_NULL(f)                                                                                                  \
        { .item = HEAP_ITEM_NULL, .fire = (f) }

typedef struct Timers {
        Heap heap;
        const Clock *clock;
        uv_timer_t uv;
        uint64_t armed_usec; /* what uv is set to; USEC_NEVER: nothing */
} Timers;

int timers_init(Timers *ts, uv_loop_t *loop, const Clock *clock);
void timers_close(Timers *ts); /* run the loop once more afterwards, then timers_done() */
void timers_done(Timers *ts);

int timer_set(Timers *ts, Timer *t, uint64_t monotonic_usec); /* again: moves it. 0, or -ENOMEM (never for a move) */
void timer_unset(Timers *ts, Timer *t);                       /* also when it is not set */
