/* SPDX-License-Identifier: MIT */
/* An array is made with its first task and goes with the last one that has not ended. Its heap has all of them, so that asking needs no
 * memory: those that ask by their place in the queue, urgent ones first, the others behind them. */

#include "manager/arrays.h"

#include <errno.h>

#include "base/fault.h"
#include "base/heap.h"
#include "manager/parts.h"

enum { LANE_AT = 60 };
_Static_assert(EQ_SEQ_MAX < UINT64_C(1) << LANE_AT, "a lane fits above a SEQ");
#define ASKS_NOT UINT64_MAX

typedef struct ArrayKey {
        uint64_t number, uid;
} ArrayKey;

struct Array {
        UT_hash_handle hh; /* QueueRecord::arrays */
        ArrayKey key;
        QueueRecord *queue; /* borrowed: it has its tasks */
        uint64_t limit;
        size_t n_turns;
        Heap tasks;      /* of TaskLinks::array_item */
        bool letting_go; /* what is let go can end at once: whoever is at it goes on, and frees it */
};

static Array *find(const QueueRecord *q, uid_t uid, uint64_t number) {
        ArrayKey key = { .number = number, .uid = uid };
        Array *a;
        HASH_FIND(hh, q->arrays, &key, sizeof(key), a);
        return a;
}

static void free_unused(Array *a) {
        if (a->tasks.n > 0 || a->letting_go)
                return;
        HASH_DELETE(hh, a->queue->arrays, a);
        heap_done(&a->tasks);
        free(a);
}

static Array *array_new(QueueRecord *q, uid_t uid, const EqSubmit *s) {
        Array *a = fault_calloc(1, sizeof(*a));
        if (!a)
                return NULL;
        a->key = (ArrayKey) { .number = s->array, .uid = uid };
        a->queue = q;
        a->limit = s->array_limit;
        HASH_ADD(hh, q->arrays, key, sizeof(a->key), a);
        if (a->hh.tbl)
                return a;
        free(a);
        return NULL;
}

static Array *array_of(const TaskRecord *t) {
        return t->links ? t->links->array : NULL;
}

int array_check(const QueueRecord *q, uid_t uid, const EqSubmit *s, Refusal *r) {
        if (!EQ_HAS(s, Submit, array_limit) || s->array_limit == 0)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "array_limit",
                                    "an array needs one, of 1 or more; to have no limit leave array out, too");
        if (!EQ_HAS(s, Submit, array))
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "array",
                                    "array_limit is that of an array; draw a number for it");
        const Array *a = find(q, uid, s->array);
        if (!a || a->limit == s->array_limit)
                return 0;
        return refuse_field(r, EQ_E_INVALID, -EINVAL, "array_limit",
                            "array %llu of queue %s has %llu, for all of its tasks; draw another number for another "
                            "array",
                            (unsigned long long)s->array, q->queue->name, (unsigned long long)a->limit);
}

int array_add(TaskRecord *t, const EqSubmit *s) {
        uid_t uid = t->spec.identity->uid;
        if (!EQ_HAS(s, Submit, array) || !EQ_HAS(s, Submit, array_limit) || s->array_limit == 0)
                return 0;
        TaskLinks *l = task_links(t);
        Array *a = l ? find(t->queue, uid, s->array) ?: array_new(t->queue, uid, s) : NULL;
        if (!a)
                return -ENOMEM;
        int r = heap_push(&a->tasks, &l->array_item, ASKS_NOT);
        if (r < 0) {
                free_unused(a);
                return r;
        }
        l->array = a;
        t->task.wait |= TASK_WAIT_AFTER;
        return 0;
}

/* ---- turns ---- */

static bool may_ask(const TaskRecord *t) {
        return !(t->task.wait & TASK_WAIT_HELD) && !deps_first(t);
}

static void ask(Array *a, TaskRecord *t) {
        heap_update(&a->tasks, &t->links->array_item, (uint64_t)t->task.lane << LANE_AT | t->task.seq);
}

static void give_turn(Array *a, TaskRecord *t) {
        heap_update(&a->tasks, &t->links->array_item, ASKS_NOT);
        t->links->has_turn = true;
        a->n_turns++;
}

static void take_turn(Array *a, TaskRecord *t) {
        a->n_turns -= t->links->has_turn;
        t->links->has_turn = false;
}

static TaskRecord *first_asking(const Array *a) {
        HeapItem *first = heap_peek(&a->tasks);
        return first && first->key != ASKS_NOT ? HEAP_ENTRY(first, TaskLinks, array_item)->task : NULL;
}

static void let_go(Array *a) {
        TaskRecord *t;
        if (a->letting_go)
                return;
        a->letting_go = true;
        while (a->n_turns < a->limit && (t = first_asking(a))) {
                give_turn(a, t);
                (void)queue_wait_clear(t->task.queue, &t->task, TASK_WAIT_AFTER); /* it asked, so it is pending */
        }
        a->letting_go = false;
        free_unused(a);
}

void array_enter(TaskRecord *t) {
        Array *a = array_of(t);
        if (!a || !may_ask(t))
                return;
        if (a->n_turns >= a->limit) {
                ask(a, t);
                return;
        }
        give_turn(a, t);
        t->task.wait &= ~TASK_WAIT_AFTER;
}

bool array_ask(TaskRecord *t) {
        Array *a = array_of(t);
        if (a && task_is_pending(&t->task) && may_ask(t) && !t->links->has_turn) { /* else array_enter() follows */
                ask(a, t);
                let_go(a);
        }
        return a;
}

void array_hold(TaskRecord *t) {
        Array *a = array_of(t);
        if (!a)
                return;
        if (t->links->has_turn)
                (void)queue_wait_set(t->task.queue, &t->task, TASK_WAIT_AFTER); /* it is pending */
        heap_update(&a->tasks, &t->links->array_item, ASKS_NOT);
        take_turn(a, t);
        let_go(a);
}

/* ---- the end ---- */

static Array *leave(TaskRecord *t) {
        Array *a = array_of(t);
        if (!a)
                return NULL;
        take_turn(a, t);
        heap_remove(&a->tasks, &t->links->array_item);
        t->links->array = NULL;
        return a;
}

void array_end(TaskRecord *t) {
        Array *a = leave(t);
        if (a)
                let_go(a);
}

void array_drop(TaskRecord *t) {
        Array *a = leave(t);
        if (a)
                free_unused(a);
}

bool array_waits(const TaskRecord *t, size_t *ret_n_turns, uint64_t *ret_limit) {
        const Array *a = array_of(t);
        if (!a || t->links->has_turn || !may_ask(t))
                return false;
        *ret_n_turns = a->n_turns;
        *ret_limit = a->limit;
        return true;
}
