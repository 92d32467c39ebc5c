/* SPDX-License-Identifier: MIT */
/* The life of a task as a table: rows are states, columns events, a cell is the next state and an empty one a mistake of
 * the caller. Nothing else in the daemon writes Task::state. */

#include "engine/task.h"

#include <assert.h>
#include <stddef.h>

static const struct {
        const char *name;
        uint8_t next[_EQ_STATE_MAX]; /* state + 1; 0: this event cannot happen in that state */
} events[_TASK_EV_MAX] = {
#define TO(from, to) [EQ_STATE_##from] = EQ_STATE_##to + 1
        [TASK_EV_ELIGIBLE] = { "eligible", { TO(WAITING, QUEUED) } },
        [TASK_EV_DEFER] = { "defer", { TO(QUEUED, WAITING) } },
        [TASK_EV_START] = { "start", { TO(QUEUED, RUNNING) } },
        [TASK_EV_RETURN] = { "return", { TO(RUNNING, QUEUED) } },
        [TASK_EV_RETRY] = { "retry", { TO(RUNNING, WAITING) } },
        [TASK_EV_FINISH] = { "finish", { TO(RUNNING, DONE) } },
        [TASK_EV_FAIL] = { "fail", { TO(RUNNING, FAILED) } },
        [TASK_EV_TIME_OUT] = { "time-out", { TO(RUNNING, TIMEOUT) } },
        [TASK_EV_GIVE_UP] = { "give-up", { TO(RUNNING, DEAD) } },
        [TASK_EV_CANCEL] = { "cancel", { TO(WAITING, CANCELED), TO(QUEUED, CANCELED), TO(RUNNING, CANCELED) } },
        [TASK_EV_EXPIRE] = { "expire", { TO(WAITING, EXPIRED), TO(QUEUED, EXPIRED) } },
        [TASK_EV_LOSE] = { "lose", { TO(QUEUED, FAILED) } },
        [TASK_EV_AGAIN] = { "again",
                            { TO(DONE, WAITING), TO(FAILED, WAITING), TO(TIMEOUT, WAITING), TO(CANCELED, WAITING),
                              TO(EXPIRED, WAITING), TO(DEAD, WAITING) } },
#undef TO
};

void task_init(Task *t, uint64_t seq, TaskLane lane, uint32_t bytes) {
        *t = (Task) {
                .order_item = HEAP_ITEM_NULL,
                .due_item = HEAP_ITEM_NULL,
                .seq = seq,
                .bytes = bytes,
                .state = EQ_STATE_WAITING,
                .lane = (uint8_t)lane,
                .where = TASK_NOWHERE,
        };
        list_init(&t->link);
}

void task_init_finished(Task *t, uint64_t seq, TaskLane lane, uint32_t bytes, eq_state state, uint16_t attempt) {
        assert(events[TASK_EV_AGAIN].next[state] != 0);
        task_init(t, seq, lane, bytes);
        t->state = (uint8_t)state;
        t->attempt = attempt;
}

eq_state task_set_state(Task *t, TaskEvent ev) {
        uint8_t next = events[ev].next[t->state];
        assert(next != 0);
        t->state = next - 1;
        return t->state;
}

bool task_is_pending(const Task *t) {
        return t->where == TASK_IN_READY || t->where == TASK_IN_BACKOFF || t->where == TASK_IN_DEFERRED ||
               t->where == TASK_IN_HANDED;
}

const char *task_event_name(TaskEvent ev) {
        return events[ev].name;
}
