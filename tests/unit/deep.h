/* SPDX-License-Identifier: MIT */
#pragma once

/* A queue that is deeper than what stands in its lanes, with the rest on the shelf or in the store: to everybody it is a queue as any
 * other, which the tests of both show in the same way. One per process. */

#include "manager-host.h"
#include "manager/removal.h"

enum { DEEP = 3 * QUEUE_FRONT };

static Host h;
static bool called;
static void (*await_run)(void); /* until a task runs, or none is left; NULL, if the file does not say: at once */

static inline void on_done(QueueWaiter *w) {
        called = true;
}

static inline void on_removed(RemoveWaiter *w) {
        called = true;
}

/* n more plain tasks. */
static inline void submit_plain(const char *name, size_t n) {
        TaskRecord *t; /* NULL if it is not in memory as such */
        for (size_t i = 0; i < n; i++)
                ck_assert_int_eq(host_submit(&h, anna(&h), name, (EqSubmit) { 0 }, &t), 0);
}

static inline void expect_deep(const Queue *q) {
        ck_assert_uint_eq(q->n_shelved, DEEP - QUEUE_FRONT);
        ck_assert_uint_eq(q->n_queued, DEEP);
        ck_assert_uint_eq(h.m->n_pending, DEEP);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], DEEP);
}

/* Ends what runs, as soon as something does; returns its number, 0: nothing is left. */
static inline uint64_t end_as(TaskVerdict verdict) {
        if (await_run)
                await_run();
        if (h.m->commands->n_running == 0)
                return 0;
        ck_assert_uint_eq(h.m->commands->n_running, 1);
        TaskRecord *t = task_record(h.m->commands->running[0]);
        uint64_t seq = t->task.seq;
        host_end(&h, t, verdict);
        return seq;
}

static inline uint64_t end_one(void) {
        return end_as(TASK_OK);
}

static inline void end_all_but(uint64_t first, uint64_t last, uint64_t but) {
        for (uint64_t seq = first; seq <= last; seq++)
                if (seq != but)
                        ck_assert_uint_eq(end_one(), seq);
}

static inline void expect_empty(const Queue *q) {
        ck_assert_uint_eq(q->n_shelved, 0);
        ck_assert_uint_eq(q->n_bytes, 0);
        ck_assert_uint_eq(h.m->n_pending, 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASK_BYTES], 0);
}
