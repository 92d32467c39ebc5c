/* SPDX-License-Identifier: MIT */
/* The state table of a task. */

#include "engine/task.h"

#include <assert.h>

#include "base/clock.h"

enum { NEVER = 0 }; /* an empty cell; states are stored plus one */
#define TO(STATE) (EQ_STATE_##STATE + 1)

static const uint8_t task_next[_EQ_STATE_MAX][_TASK_EV_MAX] = {
        [EQ_STATE_WAITING] = {
                [TASK_EV_ELIGIBLE] = TO(QUEUED),
                [TASK_EV_CANCEL] = TO(CANCELED),
                [TASK_EV_EXPIRE] = TO(EXPIRED),
        },
        [EQ_STATE_QUEUED] = {
                [TASK_EV_DEFER] = TO(WAITING),
                [TASK_EV_START] = TO(RUNNING),
                [TASK_EV_CANCEL] = TO(CANCELED),
                [TASK_EV_EXPIRE] = TO(EXPIRED),
        },
        [EQ_STATE_RUNNING] = {
                [TASK_EV_RETURN] = TO(QUEUED),
                [TASK_EV_RETRY] = TO(WAITING),
                [TASK_EV_FINISH] = TO(DONE),
                [TASK_EV_FAIL] = TO(FAILED),
                [TASK_EV_TIME_OUT] = TO(TIMEOUT),
                [TASK_EV_GIVE_UP] = TO(DEAD),
                [TASK_EV_CANCEL] = TO(CANCELED),
        },
        [EQ_STATE_DONE] = { [TASK_EV_AGAIN] = TO(WAITING) },
        [EQ_STATE_FAILED] = { [TASK_EV_AGAIN] = TO(WAITING) },
        [EQ_STATE_TIMEOUT] = { [TASK_EV_AGAIN] = TO(WAITING) },
        [EQ_STATE_CANCELED] = { [TASK_EV_AGAIN] = TO(WAITING) },
        [EQ_STATE_EXPIRED] = { [TASK_EV_AGAIN] = TO(WAITING) },
        [EQ_STATE_DEAD] = { [TASK_EV_AGAIN] = TO(WAITING) },
};

static const char *const event_names[_TASK_EV_MAX] = {
        [TASK_EV_ELIGIBLE] = "eligible", [TASK_EV_DEFER] = "defer",       [TASK_EV_START] = "start",
        [TASK_EV_RETURN] = "return",     [TASK_EV_RETRY] = "retry",       [TASK_EV_FINISH] = "finish",
        [TASK_EV_FAIL] = "fail",         [TASK_EV_TIME_OUT] = "time-out", [TASK_EV_GIVE_UP] = "give-up",
        [TASK_EV_CANCEL] = "cancel",     [TASK_EV_EXPIRE] = "expire",     [TASK_EV_AGAIN] = "again",
};

void task_init(Task *t, uint64_t seq, TaskLane lane, uint32_t bytes, void *body) {
        *t = (Task) {
                .order_item = HEAP_ITEM_NULL,
                .due_item = HEAP_ITEM_NULL,
                .seq = seq,
                .lane = (uint8_t)lane,
                .bytes = bytes,
                .state = EQ_STATE_WAITING,
                .body = body,
        };
        list_init(&t->link);
}

eq_state task_set_state(Task *t, TaskEvent ev) {
        uint8_t next = task_next[t->state][ev];
        assert(next != NEVER);
        t->state = next - 1;
        return t->state;
}

const char *task_event_name(TaskEvent ev) {
        return event_names[ev];
}
