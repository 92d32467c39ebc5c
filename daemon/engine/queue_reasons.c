/* SPDX-License-Identifier: MIT */
/* Why a task of a queue does not run, or the queue as a whole. */

#include "engine/queue_parts.h"

#include "engine/barrier.h"
#include "engine/pool.h"
#include "engine/rate.h"

static eq_reason wait_reason(uint8_t wait) {
        static const struct {
                uint8_t bit;
                eq_reason reason;
        } reasons[] = {
                { TASK_WAIT_HELD, EQ_REASON_HELD },
                { TASK_WAIT_AFTER, EQ_REASON_AFTER },
                { TASK_WAIT_AT, EQ_REASON_AT },
                { TASK_WAIT_BACKOFF, EQ_REASON_BACKOFF },
        };
        for (size_t i = 0; i < ELEMENTSOF(reasons); i++)
                if (wait & reasons[i].bit)
                        return reasons[i].reason;
        return EQ_REASON_NONE;
}

static const Task *first_to_start(const Queue *q) {
        const Task *t = queue_first_handed(q, TASK_LANE_URGENT);
        if (!t)
                t = queue_next_of_lane(q, TASK_LANE_URGENT);
        if (!t)
                t = queue_first_handed(q, TASK_LANE_NORMAL);
        return t ? t : queue_next_of_lane(q, TASK_LANE_NORMAL);
}

/* What keeps the whole queue from starting a task. */
static eq_reason common_reason(const Queue *q, const Task **by) {
        if (q->pauses > 0)
                return EQ_REASON_PAUSED;
        if (q->held) {
                *by = barrier_task(q->held);
                return EQ_REASON_BARRIER;
        }
        if (q->blocked != EQ_REASON_NONE)
                return q->blocked;
        if (pool_is_blocked(q->pool))
                return q->pool->blocked_reason;
        if (q->n_running >= q->params.max_active) {
                if (q->n_running == 1)
                        *by = LIST_ENTRY(q->running.next, Task, link);
                return q->params.max_active == 1 ? EQ_REASON_SERIAL : EQ_REASON_MAX_ACTIVE;
        }
        return EQ_REASON_NONE;
}

eq_reason queue_reason(const Queue *q, const Task *t, const Task **ret_by) {
        const Task *ignored;
        const Task **by = ret_by ? ret_by : &ignored;
        *by = NULL;
        if (!task_is_pending(t))
                return EQ_REASON_NONE;
        if (t->wait != 0)
                return wait_reason(t->wait);
        eq_reason common = common_reason(q, by);
        if (common != EQ_REASON_NONE)
                return common;
        if (t->where != TASK_IN_HANDED && !rate_allows(q))
                return EQ_REASON_RATE;
        const Task *before = queue_backoff_before(q, t);
        if (before) {
                *by = barrier_task(before);
                return EQ_REASON_BACKOFF;
        }
        const Task *next = first_to_start(q);
        if (!next && queue_needs_shelved(q))
                return EQ_REASON_PERSIST;
        if (t != next) {
                *by = next ? barrier_task(next) : NULL;
                return next && next->part != TASK_ALONE ? EQ_REASON_BARRIER : EQ_REASON_PRIO;
        }
        if (t->part == TASK_BARRIER && barrier_waits_for(t, by))
                return EQ_REASON_BARRIER;
        eq_reason short_of = q->pool->short_of;
        if (short_of != EQ_REASON_NONE && (t->where == TASK_IN_HANDED || q->unserved == EQ_REASON_PLUGIN))
                return short_of;
        if (t->where == TASK_IN_HANDED && pool_reason(q->pool) == EQ_REASON_NONE)
                return EQ_REASON_POOL_FULL;
        return q->unserved != EQ_REASON_NONE ? q->unserved : pool_reason(q->pool);
}

/* Where none is eligible: a back-off before others, because it may be what blocks a lane. */
static const Task *next_waiting(const Queue *q) {
        for (QueueLine line = QUEUE_BACKOFF; line < _QUEUE_LINE_MAX; line++)
                for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++) {
                        const Task *t = task_line_first(&q->lines[line][lane]);
                        if (t)
                                return t;
                }
        return NULL;
}

eq_reason queue_head_reason(const Queue *q, const Task **ret_next, const Task **ret_by) {
        const Task *ignored;
        const Task **by = ret_by ? ret_by : &ignored;
        const Task *t = first_to_start(q);
        bool shelved = !t && queue_needs_shelved(q) && queue_ready(q, TASK_LANE_URGENT)->n == 0;
        if (!t && !shelved)
                t = next_waiting(q);
        if (t)
                t = barrier_task(t);
        if (ret_next)
                *ret_next = t;
        if (t)
                return queue_reason(t->queue, t, by);
        *by = NULL;
        eq_reason common = shelved ? common_reason(q, by) : EQ_REASON_NONE;
        return shelved && common == EQ_REASON_NONE ? EQ_REASON_PERSIST : common;
}

uint64_t queue_n_ahead(const Queue *q, const Task *t) {
        uint64_t n = task_line_count_before(queue_ready(q, t->lane), t->seq);
        LIST_FOREACH (link, &q->handed) {
                const Task *h = LIST_ENTRY(link, Task, link);
                n += h->lane < t->lane || (h->lane == t->lane && h->seq < t->seq);
        }
        if (q->params.max_active == 1)
                n += task_line_count_before(&q->lines[QUEUE_BACKOFF][t->lane], t->seq);
        if (t->lane == TASK_LANE_NORMAL)
                n += queue_ready(q, TASK_LANE_URGENT)->n;
        return n;
}
