/* SPDX-License-Identifier: MIT */
/* Queues that wait for a token.
 *
 * While something that was handed over has not begun, as far as is known, the time of the next token is a guess: that it began at
 * once. When that time comes the executor is asked; if it has not begun, again and again, a token's time apart. */

#include "engine/rate.h"

#include <assert.h>

#include "engine/engine.h"

/* That it has a bucket goes without saying. */
static uint64_t wait_usec(const Queue *q) {
        return bucket_wait_usec(&q->bucket, q->n_handed + 1, engine_now(q->engine));
}

bool rate_has_token(const Queue *q) {
        return bucket_has(&q->bucket, q->n_handed + 1, engine_now(q->engine));
}

void rate_follow(Queue *q) {
        const QueueParams *p = &q->params;
        bucket_set(&q->bucket, p->rate.n, p->rate.per_usec, p->rate_burst, engine_now(q->engine));
}

/* When a task that was handed over began is the executor's to know. */
static uint64_t begun_usec(const Task *t, uint64_t now) {
        const WatchLife *life = t->slot ? WATCH_GET(t->slot->watch->life) : NULL;
        uint64_t begun = life ? WATCH_GET(life->begun_usec) : 0;
        return begun != 0 && begun < now ? begun : now;
}

void rate_take(Queue *q, const Task *t) {
        if (bucket_is_bounded(&q->bucket))
                bucket_take(&q->bucket, begun_usec(t, engine_now(q->engine)));
}

void rate_put_back(Queue *q) {
        if (bucket_is_bounded(&q->bucket))
                bucket_put_back(&q->bucket);
}

static bool waits_for_token(const Queue *q) {
        return bucket_is_bounded(&q->bucket) && q->n_queued > q->n_handed && !rate_has_token(q);
}

void rate_settle(Queue *q) {
        Engine *e = q->engine;
        HeapItem *item = &q->rate_item;
        if (!waits_for_token(q)) {
                heap_remove(&e->throttled, item);
                return;
        }
        uint64_t wait = wait_usec(q);
        if (q->n_handed > 0)
                wait = MAX(wait, BUCKET_GRAIN_USEC / 2);
        uint64_t usec = engine_now(e) + wait;
        if (!heap_contains(item)) {
                int r = heap_push(&e->throttled, item, usec);
                assert(r == 0); /* room was reserved with the queue */
                (void)r;
        } else if (q->n_handed == 0 || usec < item->key) /* a guess is not put off by those that come meanwhile */
                heap_update(&e->throttled, item, usec);
        engine_arm(e, item->key);
}

uint64_t rate_next_usec(const Queue *q) {
        uint64_t now = engine_now(q->engine);
        if (!bucket_is_bounded(&q->bucket))
                return now;
        return heap_contains(&q->rate_item) ? MAX(q->rate_item.key, now) : now + wait_usec(q);
}

int rate_add_queue(Engine *e) {
        return heap_reserve(&e->throttled, e->n_queues + 1);
}

void rate_remove_queue(Queue *q) {
        Engine *e = q->engine;
        heap_remove(&e->throttled, &q->rate_item);
        (void)heap_reserve(&e->throttled, e->n_queues); /* less than before: cannot fail */
}

uint64_t rate_due_usec(const Engine *e) {
        const HeapItem *item = heap_peek(&e->throttled);
        return item ? item->key : USEC_NEVER;
}

void rate_run_due(Engine *e, uint64_t now_usec) {
        for (HeapItem *item; (item = heap_peek(&e->throttled)) && item->key <= now_usec;) {
                Queue *q = HEAP_ENTRY(item, Queue, rate_item);
                heap_remove(&e->throttled, item);
                queue_look(q); /* what is handed over may have begun; and as it is left it may start more */
        }
}
