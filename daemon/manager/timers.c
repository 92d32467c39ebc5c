/* SPDX-License-Identifier: MIT */
/* A heap of due times; uv's timer always stands at or before the earliest, rounded up to its milliseconds. */

#include "manager/timers.h"

static void arm(Timers *ts);

static void on_timer(uv_timer_t *uv) {
        Timers *ts = uv->data;
        ts->armed_usec = USEC_NEVER;
        timers_run(ts);
        arm(ts);
}

static void arm(Timers *ts) {
        const HeapItem *item = heap_peek(&ts->heap);
        if (!item || uv_is_closing((uv_handle_t *)&ts->uv) || item->key >= ts->armed_usec)
                return;
        uint64_t now = clock_monotonic(ts->clock);
        uint64_t ms = item->key > now ? (item->key - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC : 0;
        ts->armed_usec = item->key;
        uv_update_time(ts->uv.loop);                    /* the loop's idea of now may be as old as this turn */
        (void)uv_timer_start(&ts->uv, on_timer, ms, 0); /* fails for closing handles only */
}

int timers_init(Timers *ts, uv_loop_t *loop, const Clock *clock) {
        *ts = (Timers) { .clock = clock, .armed_usec = USEC_NEVER };
        int r = uv_timer_init(loop, &ts->uv);
        ts->uv.data = ts;
        return r;
}

void timers_close(Timers *ts) {
        uv_close((uv_handle_t *)&ts->uv, NULL);
}

void timers_done(Timers *ts) {
        heap_done(&ts->heap);
}

void timers_run(Timers *ts) {
        uint64_t now = clock_monotonic(ts->clock);
        for (HeapItem *item; (item = heap_peek(&ts->heap)) && item->key <= now;) {
                Timer *t = HEAP_ENTRY(item, Timer, item);
                timer_unset(ts, t);
                t->fire(t);
        }
}

int timer_stand(Timers *ts, Timer *t) {
        int r = heap_contains(&t->item) ? 0 : heap_push(&ts->heap, &t->item, USEC_NEVER);
        t->standing = r >= 0;
        return r;
}

void timer_drop(Timers *ts, Timer *t) {
        t->standing = false;
        timer_unset(ts, t);
}

int timer_set(Timers *ts, Timer *t, uint64_t monotonic_usec) {
        if (heap_contains(&t->item))
                heap_update(&ts->heap, &t->item, monotonic_usec);
        else {
                int r = heap_push(&ts->heap, &t->item, monotonic_usec);
                if (r < 0)
                        return r;
        }
        arm(ts);
        return 0;
}

void timer_unset(Timers *ts, Timer *t) {
        if (t->standing)
                heap_update(&ts->heap, &t->item, USEC_NEVER);
        else
                heap_remove(&ts->heap, &t->item);
}

bool timer_is_set(const Timer *t) {
        return heap_contains(&t->item) && t->item.key != USEC_NEVER;
}
