/* SPDX-License-Identifier: MIT */
#pragma once

/* Many timers behind one uv_timer. A Timer is embedded in what it belongs to. Loop; nothing blocks. */

#include <stdbool.h>
#include <uv.h>

#include "base/clock.h"
#include "base/heap.h"

typedef struct Timer Timer;
struct Timer {
        HeapItem item;
        bool standing;          /* keeps its place in the heap while it is not set: setting it cannot fail */
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

/* Fires what is due, earliest first, as uv's timer does when its time has come; for tests with a clock that they move. */
void timers_run(Timers *ts);

/* Gives t its place for good, so that timer_set() cannot fail: for those whose setting nobody could be told about. 0 or
 * -ENOMEM. timer_drop() takes it back. */
int timer_stand(Timers *ts, Timer *t);
void timer_drop(Timers *ts, Timer *t); /* unsets it, too; before what it is embedded in is freed */

int timer_set(Timers *ts, Timer *t, uint64_t monotonic_usec); /* again: moves it. 0, or -ENOMEM (never for a move) */
void timer_unset(Timers *ts, Timer *t);                       /* also when it is not set */
bool timer_is_set(const Timer *t);
