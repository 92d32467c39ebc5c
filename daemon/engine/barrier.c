/* SPDX-License-Identifier: MIT */
/* Tokens, found by the task that they stand for. Few tasks are barriers, so those that are stand in a table, and a task is no
 * larger for it. Queues may be gone before a task that ended long ago: they are looked up by their ids. A token whose queue was
 * gone after a restart is nowhere, and the others hold without it. */

#include "engine/barrier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/hash.h"
#include "engine/engine.h"

typedef struct Barrier Barrier;

typedef struct Token {
        Task task; /* first */
        Barrier *barrier;
        uint64_t queue_id;
} Token;

struct Barrier {
        UT_hash_handle hh; /* Engine::barriers, by task */
        Engine *engine;
        Task *task; /* the host's */
        size_t n;
        Token tokens[];
};

static Barrier *find(const Engine *e, const Task *t) {
        Barrier *b;
        HASH_FIND_PTR(e->barriers, &t, b);
        return b;
}

/* t is in its home, or was. */
static Barrier *of_task(const Task *t) {
        Barrier *b = t->part == TASK_BARRIER ? find(t->queue->engine, t) : NULL;
        assert(b || t->part != TASK_BARRIER);
        return b;
}

static Queue *queue_of(const Token *k) {
        return engine_queue(k->barrier->engine, k->queue_id);
}

/* ---- life ---- */

int barrier_make(Engine *e, Task *t, const uint64_t *others, const uint64_t *seqs, size_t n) {
        assert(n > 0 && n < BARRIER_QUEUES_MAX && t->where == TASK_NOWHERE);
        Barrier *b = fault_calloc(1, sizeof(*b) + n * sizeof(Token));
        if (!b)
                return -ENOMEM;
        b->engine = e;
        b->task = t;
        b->n = n;
        HASH_ADD_PTR(e->barriers, task, b);
        if (!b->hh.tbl) {
                free(b);
                return -ENOMEM;
        }
        t->part = TASK_BARRIER;
        for (size_t i = 0; i < n; i++) {
                Token *k = &b->tokens[i];
                if (t->state != EQ_STATE_WAITING) /* ended before a restart */
                        task_init_finished(&k->task, seqs[i], t->lane, 0, EQ_STATE_CANCELED, 0);
                else
                        task_init(&k->task, seqs[i], t->lane, 0);
                k->task.part = TASK_TOKEN;
                k->barrier = b;
                k->queue_id = others[i];
        }
        return 0;
}

void barrier_forget(Engine *e, Task *t) {
        if (t->part != TASK_BARRIER)
                return;
        Barrier *b = find(e, t);
        for (size_t i = 0; i < b->n; i++)
                assert(b->tokens[i].task.where == TASK_NOWHERE);
        HASH_DEL(e->barriers, b);
        free(b);
        t->part = TASK_ALONE;
}

static void unreserve(Barrier *b, size_t n) {
        for (size_t i = 0; i < n; i++)
                queue_unreserve(queue_of(&b->tokens[i]), 1, 0); /* it cannot go while something is reserved in it */
}

void barrier_unreserve(Engine *e, Task *t) {
        if (t->part != TASK_BARRIER)
                return;
        Barrier *b = find(e, t);
        unreserve(b, b->n);
}

int barrier_reserve_again(Task *t) {
        Barrier *b = of_task(t);
        for (size_t i = 0; b && i < b->n; i++) {
                Queue *q = queue_of(&b->tokens[i]);
                int r = q ? queue_reserve_again(q, 0) : -ENOENT;
                if (r != 0) {
                        unreserve(b, i);
                        return r;
                }
        }
        return 0;
}

static bool in_queue(const Token *k) {
        return k->task.where != TASK_NOWHERE;
}

static int restore(Token *k, const Task *t) {
        Queue *q = queue_of(k);
        if (!q)
                return 0;
        queue_seq_given(q, k->task.seq); /* also to what has ended: its place may be asked for again */
        if (!task_is_pending(t))
                return 0;
        k->task.wait = t->wait;
        return queue_restore_task(q, &k->task);
}

int barriers_restore(Engine *e) {
        for (Barrier *b = e->barriers; b; b = b->hh.next)
                for (size_t i = 0; i < b->n; i++) {
                        int r = restore(&b->tokens[i], b->task);
                        if (r < 0)
                                return r;
                }
        return 0;
}

/* ---- questions ---- */

Task *barrier_over(const Queue *q) {
        for (Barrier *b = q->engine->barriers; b; b = b->hh.next)
                for (size_t i = 0; i < b->n; i++)
                        if (b->tokens[i].queue_id == q->id && task_is_pending(&b->tokens[i].task))
                                return b->task;
        return NULL;
}

Task *barrier_at(const Queue *q, uint64_t seq) {
        for (Barrier *b = q->engine->barriers; b; b = b->hh.next)
                for (size_t i = 0; i < b->n; i++)
                        if (b->tokens[i].queue_id == q->id && b->tokens[i].task.seq == seq)
                                return b->task;
        return NULL;
}

size_t barrier_n_others(const Engine *e, const Task *t) {
        return t->part == TASK_BARRIER ? find(e, t)->n : 0;
}

Queue *barrier_other(const Engine *e, const Task *t, size_t i, uint64_t *ret_id, uint64_t *ret_seq) {
        const Token *k = &find(e, t)->tokens[i];
        *ret_id = k->queue_id;
        *ret_seq = k->task.seq;
        return queue_of(k);
}

Task *barrier_task(const Task *t) {
        return t->part == TASK_TOKEN ? ((const Token *)t)->barrier->task : (Task *)t;
}

const Queue *barrier_waits_for(const Task *t, const Task **ret_by) {
        const Barrier *b = of_task(t);
        if (!queue_stands_at(t->queue, t, ret_by))
                return t->queue;
        for (size_t i = 0; i < b->n; i++) {
                const Task *token = &b->tokens[i].task;
                if (in_queue(&b->tokens[i]) && !queue_stands_at(token->queue, token, ret_by))
                        return token->queue;
        }
        *ret_by = NULL;
        return NULL;
}

bool barrier_may_start(const Task *t) {
        const Task *by;
        return t->part == TASK_BARRIER && !barrier_waits_for(t, &by);
}

/* ---- as the task moves ---- */

/* Hooks may do anything to the task, as soon as one of its queues is left: so all are entered before the first token moves,
 * and left after the last one has, when nothing of it is looked at any more. */
static size_t enter(Barrier *b, Queue *ret[static BARRIER_QUEUES_MAX]) {
        size_t n = 0;
        for (size_t i = 0; i < b->n; i++)
                if ((ret[n] = queue_of(&b->tokens[i])))
                        queue_enter(ret[n++]);
        return n;
}

static void leave(Queue *const *queues, size_t n) {
        for (size_t i = 0; i < n; i++)
                queue_leave(queues[i]);
}

void barrier_push(Task *t, bool again) {
        Barrier *b = of_task(t);
        Queue *queues[BARRIER_QUEUES_MAX];
        size_t n = enter(b, queues);
        for (size_t i = 0; i < b->n; i++) {
                Token *k = &b->tokens[i];
                if (again)
                        task_set_state(&k->task, TASK_EV_AGAIN);
                k->task.wait = t->wait;
                queue_push_token(queue_of(k), &k->task);
        }
        leave(queues, n);
}

void barrier_shift(Task *t) {
        Barrier *b = of_task(t);
        Queue *queues[BARRIER_QUEUES_MAX];
        size_t n = enter(b, queues);
        for (size_t i = 0; i < b->n; i++)
                if (in_queue(&b->tokens[i]))
                        queue_shift_token(&b->tokens[i].task, t->wait);
        leave(queues, n);
}

void barrier_hold(Task *t) {
        Barrier *b = of_task(t);
        for (size_t i = 0; i < b->n; i++)
                if (in_queue(&b->tokens[i]))
                        queue_hold_token(&b->tokens[i].task);
}

void barrier_not_started(Task *t) {
        Barrier *b = of_task(t);
        for (size_t i = 0; i < b->n; i++)
                if (in_queue(&b->tokens[i]))
                        queue_not_started(b->tokens[i].task.queue, &b->tokens[i].task);
}

void barrier_return(Task *t) {
        Barrier *b = of_task(t);
        Queue *queues[BARRIER_QUEUES_MAX];
        size_t n = enter(b, queues);
        for (size_t i = 0; i < b->n; i++)
                if (in_queue(&b->tokens[i]))
                        queue_return_token(&b->tokens[i].task, t->wait);
        leave(queues, n);
}

size_t barrier_end(Task *t, Queue *ret_others[static BARRIER_QUEUES_MAX]) {
        Barrier *b = of_task(t);
        size_t n = enter(b, ret_others);
        for (size_t i = 0; i < b->n; i++)
                if (in_queue(&b->tokens[i]))
                        queue_end_token(&b->tokens[i].task);
        return n;
}
