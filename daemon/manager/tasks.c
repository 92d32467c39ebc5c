/* SPDX-License-Identifier: MIT */
/* Single tasks after their admission: found, canceled, held, retried, waited for, followed. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/barrier.h"
#include "manager/arrays.h"
#include "manager/durable.h"
#include "manager/keys.h"
#include "manager/parts.h"
#include "manager/shelf.h"
#include "manager/window.h"

TaskRecord *task_record_new(QueueRecord *q, Identity *identity, SharedOptions *common, EqBytes payload, EqBytes options,
                            uint64_t submitted_usec) {
        TaskRecord *t = spares_malloc(&q->manager->spares, sizeof(*t) + payload.len + options.len);
        if (!t)
                return NULL;
        memset(t, 0, sizeof(*t));
        t->queue = q;
        list_init(&t->history_link);
        list_init(&t->recent_link);
        task_spec_init(&t->spec, identity, common, payload, options, submitted_usec);
        return t;
}

TaskRecord *task_record_free(TaskRecord *t) {
        if (!t)
                return NULL;
        Manager *m = t->queue->manager;
        key_drop(t);
        deps_drop(t);
        array_drop(t);
        followers_end(t, FOLLOWERS_OF_TASK);
        if (t->links)
                list_remove(&t->links->doomed_link);
        free(t->links);
        history_remove(m, t);
        list_remove(&t->recent_link);
        if (t->task.seq != 0 && seq_index_get(&t->queue->tasks, t->task.seq) == t)
                seq_index_remove(&t->queue->tasks, t->task.seq);
        if (t->run) {
                task_run_deinit(t->run);
                free(t->run);
        }
        barrier_forget(&m->engine, &t->task);
        task_spec_deinit(&t->spec);
        user_unref(t->user);
        spares_free(&m->spares, t);
        return NULL;
}

TaskLinks *task_links(TaskRecord *t) {
        if (t->links)
                return t->links;
        TaskLinks *l = fault_malloc(sizeof(*l));
        if (!l)
                return NULL;
        List *lists[] = { &l->deps, &l->dependents, &l->waiters, &l->followers, &l->doomed_link };
        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                list_init(lists[i]);
        l->task = t;
        l->array = NULL;
        l->array_item = (HeapItem)HEAP_ITEM_NULL;
        l->has_turn = false;
        t->links = l;
        return l;
}

/* ---- find ---- */

static int find_by_text(const Manager *m, EqBytes text, QueueRecord **ret_queue, uint64_t *ret_seq, Refusal *r) {
        EqBytes name;
        if (eq_id_parse(text, &name, ret_seq) < 0)
                return refuse(r, EQ_E_INVALID, -EINVAL, "a task id is QUEUE/SEQ, such as encode/42");
        return manager_find_queue(m, name, ret_queue, r);
}

static int find_by_number(const Manager *m, uint64_t queue_id, uint64_t seq, QueueRecord **ret_queue, Refusal *r) {
        Queue *q = engine_queue(&m->engine, queue_id);
        if (!q || queue_record(q)->gone) {
                int e = refuse(r, EQ_E_STALE, -ENOENT, "queue id %llu names no queue any more; the queue was removed",
                               (unsigned long long)queue_id);
                REFUSAL_SAYS(r, id, (EqIdRef) { .id = { queue_id, seq } });
                return e;
        }
        *ret_queue = queue_record(q);
        return 0;
}

static int deny(const QueueRecord *q, uint64_t seq, Refusal *r) {
        return refuse(r, EQ_E_DENIED, -EPERM, "task %s/%llu belongs to another user", q->queue->name,
                      (unsigned long long)seq);
}

/* It is in the store only. */
static int want(const Manager *m, const Caller *caller, QueueRecord *q, uint64_t seq, Refusal *r) {
        if (!caller->admin && window_user(m, seq_index_get(&q->tasks, seq))->uid != caller->identity->uid)
                return deny(q, seq, r);
        if (window_want(q, seq, &r->ticket) < 0)
                return refuse(r, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        return MANAGER_E_READ;
}

static int have_no_task(const Queue *q, uint64_t seq, const EqIdRef *id, Refusal *r) {
        const Task *home = barrier_at(q, seq);
        int e;

        if (home)
                e = refuse(r, EQ_E_NO_TASK, -ENOENT,
                           "%s/%llu is the place that a task over several queues has in this one; its id is %s/%llu",
                           q->name, (unsigned long long)seq, home->queue->name, (unsigned long long)home->seq);
        else
                e = refuse(
                        r, EQ_E_NO_TASK, -ENOENT, "no task %s/%llu: %s", q->name, (unsigned long long)seq,
                        seq <= q->last_seq && seq > 0
                                ? "it ended and its history is gone; history= and history_age= of the queue keep more"
                                : "the queue has not given that number; eqctl ls -A lists those there are");
        REFUSAL_SAYS(r, id, (EqIdRef) { .id = { q->id, seq } });
        REFUSAL_NAMES(r, queue, eq_str(q->name));
        return e;
}

int manager_find_task(const Manager *m, const Caller *caller, const EqIdRef *id, TaskRecord **ret,
                      Refusal *ret_refusal) {
        QueueRecord *q;
        uint64_t seq = id->id.seq;
        int r = id->text.len > 0 ? find_by_text(m, id->text, &q, &seq, ret_refusal)
                                 : find_by_number(m, id->id.queue, seq, &q, ret_refusal);
        if (r < 0)
                return r;
        TaskRecord *t = shelf_find(q, seq);
        if (!t && window_has(seq_index_get(&q->tasks, seq)))
                return want(m, caller, q, seq, ret_refusal);
        if (!t && shelf_has(seq_index_get(&q->tasks, seq)))
                return refuse(ret_refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        if (!t)
                return have_no_task(q->queue, seq, id, ret_refusal);
        if (!caller->admin && t->spec.identity->uid != caller->identity->uid)
                return deny(q, seq, ret_refusal);
        if (t->task.where == TASK_IN_HANDED)
                queue_look(q->queue); /* it may have begun */
        *ret = t;
        return 0;
}

/* ---- change ---- */

int manager_cancel(Manager *m, TaskRecord *t, bool running, int signal, uint64_t grace_usec) {
        uint8_t before = t->end_note;
        t->end_note = TASK_NOTE_CANCELED;
        int r = queue_cancel(t->task.queue, &t->task);
        if (r == 1 && running)
                (void)engine_task_stop(&m->engine, &t->task, signal, grace_usec); /* it runs */
        else if (r != 0)
                t->end_note = before;
        return r;
}

int manager_kill(Manager *m, TaskRecord *t, int signal) {
        if (t->task.state != EQ_STATE_RUNNING || !queue_has_commands(t->queue))
                return 1;
        return command_executor_signal(m->commands, &t->task, signal) < 0 ? 1 : 0;
}

int manager_hold(Manager *m, TaskRecord *t) {
        int r = queue_wait_set(t->task.queue, &t->task, TASK_WAIT_HELD) == 0 ? 0 : 1;
        if (r == 0) {
                durable_put_state(t, NULL);
                array_hold(t);
        }
        return r;
}

int manager_release(Manager *m, TaskRecord *t) {
        if (!(t->task.wait & TASK_WAIT_HELD) || !task_is_pending(&t->task))
                return 1;
        t->task.wait &= ~TASK_WAIT_HELD; /* as it will be: released it may start, and end, at once */
        durable_put_state(t, NULL);
        t->task.wait |= TASK_WAIT_HELD;
        bool is_last = !(t->task.wait & TASK_WAIT_AFTER); /* of an array it has no turn, and is still there */
        int r = queue_wait_clear(t->task.queue, &t->task, TASK_WAIT_HELD) == 0 ? 0 : 1;
        if (!is_last)
                (void)array_ask(t);
        return r;
}

/* As when it was accepted: all that it costs, or nothing. */
static bool take_places_again(TaskRecord *t) {
        uint64_t n_bytes = t->task.bytes;
        Queue *q = t->queue->queue;
        if (!user_charge(t->user, USER_TASKS, 1))
                return false;
        if (user_charge(t->user, USER_TASK_BYTES, n_bytes)) {
                if (queue_reserve_again(q, n_bytes) == 0) {
                        if (t->task.part != TASK_BARRIER || barrier_reserve_again(&t->task) == 0)
                                return true;
                        queue_unreserve(q, 1, n_bytes);
                }
                user_refund(t->user, USER_TASK_BYTES, n_bytes);
        }
        user_refund(t->user, USER_TASKS, 1);
        return false;
}

/* Into its array, too. */
static bool take_all_again(TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        if (array_add(t, &s) < 0)
                return false;
        if (take_places_again(t))
                return true;
        array_drop(t);
        return false;
}

int manager_retry(Manager *m, TaskRecord *t, bool reset) {
        if (!task_record_finished(t) || t->has_fd || t->hollow || t->end_note == TASK_NOTE_DAMAGED ||
            t->queue->removing || m->stopping || t->lost_in_history || !submit_fits_executor(t) ||
            (!reset && !attempt_left(t)) || !take_all_again(t))
                return 1;
        history_remove(m, t);
        key_revived(t);
        if (reset) {
                t->task.attempt = 0;
                t->crashes = t->lost = 0;
        }
        t->end_reason = EQ_REASON_NONE;
        t->end_note = TASK_NOTE_NONE;
        t->task.wait &= TASK_WAIT_AFTER; /* of its array */
        t->task.due_usec = t->task.expire_usec = 0;
        m->n_pending++;
        durable_put_state(t, NULL);
        manager_event_task(m, EQ_EVENT_TASK_ACCEPTED, t); /* before it can be started */
        array_enter(t);
        queue_push_again(t->queue->queue, &t->task);
        return 0;
}

/* The first one of q from *seq on that failed and that the caller may see; *seq: its own. NULL: none. */
static TaskRecord *next_failed(const Caller *caller, const QueueRecord *q, uint64_t *seq) {
        const unsigned failed = 1U << EQ_STATE_FAILED | 1U << EQ_STATE_TIMEOUT | 1U << EQ_STATE_DEAD;
        for (TaskRecord *t; (t = seq_index_next(&q->tasks, seq)); (*seq)++) {
                if (shelf_has(t))
                        continue;
                bool visible = caller->admin || t->spec.identity->uid == caller->identity->uid;
                if (visible && (failed & (1U << t->task.state)))
                        return t;
        }
        return NULL;
}

/* What is retried can end at once and push others out of the history: every one is looked up anew by its SEQ. */
static size_t retry_failed_of(Manager *m, const Caller *caller, QueueRecord *q, bool reset) {
        size_t n = 0;
        uint64_t seq = 0, last = q->queue->last_seq;
        for (TaskRecord *t; (t = next_failed(caller, q, &seq)) && seq <= last; seq++)
                n += manager_retry(m, t, reset) == 0;
        return n;
}

int manager_retry_failed(Manager *m, const Caller *caller, QueueRecord *only, bool reset, size_t *ret_n, Refusal *r) {
        size_t n = 0;
        for (QueueRecord *q = only ?: m->queues; q; q = only ? NULL : q->hh.next) {
                uint64_t seq = 0;
                int e = next_failed(caller, q, &seq) ? durable_may_change(m, q, r) : 0;
                if (e < 0)
                        return e;
        }
        for (QueueRecord *q = only ?: m->queues; q; q = only ? NULL : q->hh.next)
                n += retry_failed_of(m, caller, q, reset);
        *ret_n = n;
        return 0;
}

void task_record_pin(TaskRecord *t) {
        if (!t)
                return;
        t->n_pins++;
        t->queue->n_pins++;
}

void task_record_unpin(TaskRecord *t) {
        if (!t)
                return;
        QueueRecord *q = t->queue;
        q->n_pins--;
        if (--t->n_pins == 0 && t->lost_in_history)
                task_record_free(t);
        if (q->gone && q->n_pins == 0)
                queue_record_destroy(q);
}

/* ---- wait ---- */

static void wait_answer(TaskWait *w, TaskWaitEnd end) {
        timer_unset(&w->manager->timers, &w->timer);
        list_remove(&w->link);
        for (size_t i = 0; i < w->n; i++)
                list_remove(&w->waiters[i].link);
        w->done(w, end);
}

static void wait_time_over(Timer *timer) {
        wait_answer(HEAP_ENTRY(timer, TaskWait, timer), TASK_WAIT_TIMED_OUT);
}

bool task_wait_has(const TaskWait *w, const TaskRecord *t) {
        return task_record_finished(t) || (w->started && task_record_state(t) == EQ_STATE_RUNNING);
}

/* Those that wait for a start are the first, so it is the first one or none. */
static TaskWaiter *first_that_is_over(const TaskRecord *t) {
        List *first = list_first(&t->links->waiters);
        TaskWaiter *waiter = first ? LIST_ENTRY(first, TaskWaiter, link) : NULL;
        return waiter && task_wait_has(waiter->wait, t) ? waiter : NULL;
}

/* An answer may end others, with their session. */
void task_waits_settle(Manager *m, TaskRecord *t) {
        for (TaskWaiter *waiter; t->links && (waiter = first_that_is_over(t));) {
                TaskWait *w = waiter->wait;
                list_remove(&waiter->link);
                if (--w->n_left == 0 || w->any)
                        wait_answer(w, TASK_WAIT_OVER);
        }
}

bool task_wait_is_lost(const TaskWait *w) {
        size_t n_lost = 0;
        for (size_t i = 0; i < w->n; i++) {
                const TaskRecord *t = w->waiters[i].task;
                n_lost += !list_is_empty(&w->waiters[i].link) && durable_has_failed(t->queue);
        }
        return n_lost > 0 && (!w->any || n_lost == w->n_left);
}

static TaskWait *first_lost(const Manager *m) {
        LIST_FOREACH (l, &m->waits)
                if (task_wait_is_lost(LIST_ENTRY(l, TaskWait, link)))
                        return LIST_ENTRY(l, TaskWait, link);
        return NULL;
}

/* An answer may end others, with their session. */
void task_waits_fail(Manager *m) {
        for (TaskWait *w; (w = first_lost(m));)
                wait_answer(w, TASK_WAIT_LOST);
}

int task_wait_new(Manager *m, TaskRecord *const *tasks, size_t n, TaskWaitFlags flags, uint64_t timeout_usec,
                  void (*done)(TaskWait *w, TaskWaitEnd end), void *userdata, TaskWait **ret, bool *ret_done_now) {
        TaskWait *w = fault_calloc(1, sizeof(*w) + n * sizeof(TaskWaiter));
        if (!w)
                return -ENOMEM;
        *w = (TaskWait) { .manager = m, .timer = TIMER_NULL(wait_time_over), .n = n, .done = done };
        w->any = flags & TASK_WAIT_ANY;
        w->started = flags & TASK_WAIT_STARTED;
        w->userdata = userdata;
        list_init(&w->link);
        for (size_t i = 0; i < n; i++) {
                w->waiters[i] = (TaskWaiter) { .task = tasks[i], .wait = w };
                list_init(&w->waiters[i].link);
                task_record_pin(tasks[i]);
                if (task_wait_has(w, tasks[i]))
                        continue;
                w->n_left++;
                TaskLinks *l = task_links(tasks[i]);
                if (!l) {
                        w->n = i + 1;
                        task_wait_free(w);
                        return -ENOMEM;
                }
                list_insert_before(w->started ? l->waiters.next : &l->waiters, &w->waiters[i].link);
        }
        bool over = w->n_left == 0 || (w->any && w->n_left < n);
        if (over)
                for (size_t i = 0; i < n; i++)
                        list_remove(&w->waiters[i].link);
        uint64_t now = clock_monotonic(m->clock);
        if (!over && timeout_usec < USEC_NEVER - now) {
                int r = timer_set(&m->timers, &w->timer, now + timeout_usec);
                if (r < 0) {
                        task_wait_free(w);
                        return r;
                }
        }
        if (!over)
                list_append(&m->waits, &w->link);
        *ret = w;
        *ret_done_now = over;
        return 0;
}

TaskWait *task_wait_free(TaskWait *w) {
        if (!w)
                return NULL;
        timer_unset(&w->manager->timers, &w->timer);
        list_remove(&w->link);
        for (size_t i = 0; i < w->n; i++) {
                TaskRecord *t = w->waiters[i].task;
                list_remove(&w->waiters[i].link);
                task_record_unpin(t);
        }
        free(w);
        return NULL;
}

/* ---- follow ---- */

int manager_follow(Manager *m, TaskRecord *t, Follower *f) {
        TaskLinks *l = task_links(t);
        if (!l)
                return -ENOMEM;
        f->task = t;
        list_append(&l->followers, &f->link);
        return 0;
}

static void resume_output(Manager *m, TaskRecord *t) {
        if (t && t->task.state == EQ_STATE_RUNNING && queue_has_commands(t->queue))
                command_executor_resume(m->commands, &t->task);
}

void manager_unfollow(Manager *m, Follower *f) {
        TaskRecord *t = f->task;
        list_remove(&f->link);
        f->task = NULL;
        resume_output(m, t); /* it may have been the one that was clogged */
}

void manager_follower_unclogged(Manager *m, Follower *f) {
        resume_output(m, f->task);
}

void followers_end(TaskRecord *t, FollowersOf which) {
        if (!t->links)
                return;
        LIST_FOREACH_SAFE (l, &t->links->followers) {
                Follower *f = LIST_ENTRY(l, Follower, link);
                if (which == FOLLOWERS_OF_ATTEMPT && !f->one_attempt)
                        continue;
                list_remove(l);
                f->task = NULL;
                f->end(f);
        }
}
