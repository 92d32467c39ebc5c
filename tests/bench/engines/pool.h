/* SPDX-License-Identifier: MIT */
/*
 * pool.h - the worker pool of the plain-C engines: a FIFO of ready queues under one mutex.
 *
 * A queue is in the FIFO or in the hands of one worker, never both and never twice: the engine calls
 * pool_push() only when it has won the right to schedule the queue. What differs is who is woken up:
 *
 *   POOL_THROTTLE=0  every push wakes a worker while any worker is idle;
 *   POOL_THROTTLE=1  at most one wake-up is in flight; the woken worker wakes the next one, and only
 *                    if it leaves work behind.
 */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#ifndef POOL_THROTTLE
#define POOL_THROTTLE 0
#endif

/* for eng_name() */
#if POOL_THROTTLE
#define POOL_TAG "+thr"
#else
#define POOL_TAG ""
#endif

/* First member of an engine's queue. */
struct PoolEntry {
        struct PoolEntry *next; /* pool_head; under pool_lock */
        int queue;
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pool_cond = PTHREAD_COND_INITIALIZER;
static struct PoolEntry *pool_head, **pool_tail = &pool_head; /* under pool_lock */
static int pool_idle;                                         /* under pool_lock */
static bool pool_waking;                                      /* under pool_lock */

/* Executes what is pending in this queue; provided by the engine, called with no lock held. */
void engine_drain(struct PoolEntry *e);

/* Under pool_lock: shall the caller signal one worker after unlocking? */
static inline bool pool_claim_wakeup(void) {
        if (pool_idle == 0)
                return false;
        if (!POOL_THROTTLE) {
                pool_idle--;
                return true;
        }
        if (pool_waking)
                return false;
        pool_waking = true;
        return true;
}

static inline void pool_push(struct PoolEntry *e) {
        bool wake;

        e->next = NULL;
        pthread_mutex_lock(&pool_lock);
        *pool_tail = e;
        pool_tail = &e->next;
        wake = pool_claim_wakeup();
        pthread_mutex_unlock(&pool_lock);
        if (wake)
                pthread_cond_signal(&pool_cond);
}

static inline void *pool_worker(void *unused) {
        (void)unused;

        for (;;) {
                struct PoolEntry *e;
                bool wake = false;

                pthread_mutex_lock(&pool_lock);
                while (!pool_head) {
                        pool_idle++;
                        pthread_cond_wait(&pool_cond, &pool_lock);
                        if (POOL_THROTTLE) {
                                pool_idle--;
                                pool_waking = false;
                        }
                }
                e = pool_head;
                pool_head = e->next;
                if (!pool_head)
                        pool_tail = &pool_head;
                else if (POOL_THROTTLE)
                        wake = pool_claim_wakeup();
                pthread_mutex_unlock(&pool_lock);

                if (wake)
                        pthread_cond_signal(&pool_cond);
                engine_drain(e);
        }
        return NULL;
}

static inline void pool_start(int n_workers) {
        for (int i = 0; i < n_workers; i++) {
                pthread_t t;

                if (pthread_create(&t, NULL, pool_worker, NULL))
                        abort();
        }
}

#endif
