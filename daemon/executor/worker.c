/* SPDX-License-Identifier: MIT */
/* Leases of tasks to clients.
 *
 *      start: sent --> LIVE ------------------------ answer --------------> over: as answered
 *                       | |                                          .----> over: TIMEOUT
 *                       | `-- timeout: notice --> TIMED_OUT -- answer, or grace over
 *                       `---- cancel:  notice --> CANCELED --- answer, or grace over --> over: CANCELED (DONE if it was well)
 *
 *      grace over without an answer: REVOKED. The engine is told and goes on; the lease stays for the worker, who is still
 *      busy with it: its credit is used until it answers, and that answer is refused, and counted.
 *      end of the connection: LIVE goes back to its place, the others are over, REVOKED is forgotten.
 *
 * Which worker gets a task. A queue has two lists of workers that can take one: those that would begin at once (less tasks
 * than they run in parallel), and those with credit left. The first of the first list that is not empty gets it and goes
 * to the end: so nothing waits in one worker while another is idle. A queue where both are empty is `unserved`, and no
 * scheduling class looks at it.
 *
 * Reserved workers stand in a third list: a start in the slot of a rescuer takes the first of it, others never look there.
 *
 * The `parallel` oldest leases of a worker are active: their timeout runs, and when the worker vanishes it was on one of
 * them. The others wait in it, and are not to blame. */

#include "executor/worker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "executor/runanswer.h"

typedef enum LeaseStage { LEASE_LIVE, LEASE_TIMED_OUT, LEASE_CANCELED, LEASE_REVOKED } LeaseStage;

struct Lease {
        List link; /* RemoteWorker::active or waiting */
        RemoteWorker *worker;
        Task *task;        /* NULL once REVOKED */
        HeapItem due_item; /* WorkerExecutor::due */
        eq_task_id id;
        uint64_t sent_usec, timeout_usec, grace_usec;
        uint32_t msgid;
        uint16_t attempt;
        uint8_t stage; /* LeaseStage */
        bool active, unsent;
        bool uncleared; /* not sent, and not to be before worker_go() */
};

/* One worker serves one queue. */
typedef struct Serving {
        List of_worker; /* RemoteWorker::servings */
        List of_queue;  /* QueueServers::servings */
        List ready;     /* QueueServers::ready[worker->level] or reserve */
        RemoteWorker *worker;
        Queue *queue;
} Serving;

enum { LEVEL_NONE = -1, LEVEL_IDLE, LEVEL_CREDIT, _LEVEL_MAX };

/* Queue::executor_data. */
typedef struct QueueServers {
        List servings;
        List ready[_LEVEL_MAX];
        List reserve; /* reserved workers that would begin at once */
        size_t n, n_reserved;
} QueueServers;

/* ---- who can take something ---- */

static int level_of(const RemoteWorker *w) {
        size_t n = remote_worker_in_flight(w);
        if (w->gone || w->leaving || w->clogged || n >= w->credit)
                return LEVEL_NONE;
        return n < w->parallel ? LEVEL_IDLE : LEVEL_CREDIT;
}

static void tell_queue(Queue *q) {
        const QueueServers *qs = q->executor_data;
        bool ready = !list_is_empty(&qs->ready[LEVEL_IDLE]) || !list_is_empty(&qs->ready[LEVEL_CREDIT]);
        queue_set_reserve(q, !list_is_empty(&qs->reserve));
        queue_set_unserved(q, ready ? EQ_REASON_NONE : qs->n > 0 ? EQ_REASON_POOL_FULL : EQ_REASON_NO_WORKER);
}

static void stand_ready(Serving *s) {
        QueueServers *qs = s->queue->executor_data;
        list_remove(&s->ready);
        if (s->worker->reserved && s->worker->level == LEVEL_IDLE)
                list_append(&qs->reserve, &s->ready);
        else if (!s->worker->reserved && s->worker->level != LEVEL_NONE)
                list_append(&qs->ready[s->worker->level], &s->ready);
}

/* What w has or may have has changed. Only when every queue knows it may the first start something on it. */
static void settle(RemoteWorker *w) {
        int level = level_of(w);
        if (level == w->level)
                return;
        w->level = level;
        LIST_FOREACH (l, &w->servings)
                stand_ready(LIST_ENTRY(l, Serving, of_worker));
        LIST_FOREACH (l, &w->servings)
                tell_queue(LIST_ENTRY(l, Serving, of_worker)->queue);
}

/* ---- leases ---- */

static LeasePlace *place_of(const RemoteWorker *w, uint32_t msgid) {
        uint32_t i = msgid & 0xffff;
        LeasePlace *p = i < w->n_places ? &w->places[i] : NULL;
        return p && p->used && p->lease->msgid == msgid ? p : NULL;
}

static int grow_places(RemoteWorker *w) {
        uint32_t n = w->n_places ? MIN(2 * w->n_places, UINT32_C(65536)) : 4;
        LeasePlace *places = fault_realloc(w->places, n * sizeof(*places));
        if (!places)
                return -ENOMEM;
        for (uint32_t i = w->n_places; i < n; i++)
                places[i] = (LeasePlace) { .next_free = i + 1 };
        w->places = places;
        w->first_free = w->n_places;
        w->n_places = n;
        return 0;
}

/* What its worker has not come to has not begun, as far as the watch is concerned. */
static void show_begin(const Lease *l) {
        if (l->task)
                WATCH_SET(l->task->slot->watch->own_life.begun_usec, engine_now(l->worker->executor->engine));
}

static void list_lease(Lease *l, bool active) {
        RemoteWorker *w = l->worker;
        if (active)
                show_begin(l);
        l->active = active;
        list_append(active ? &w->active : &w->waiting, &l->link);
        *(active ? &w->n_active : &w->n_waiting) += 1;
}

static void unlist_lease(Lease *l) {
        list_remove(&l->link);
        *(l->active ? &l->worker->n_active : &l->worker->n_waiting) -= 1;
}

static void show_lease(WatchSlot *c, pid_t pid) {
        WATCH_SET(c->own_life.begun_usec, 0);
        WATCH_SET(c->own_life.seen_usec, 0);
        WATCH_SET(c->pid, (uint64_t)pid);
        atomic_store_explicit(&c->life, &c->own_life, memory_order_release);
}

static int lease_new(RemoteWorker *w, Task *t, const WorkerOrder *o, Lease **ret) {
        WorkerExecutor *x = w->executor;
        int r = w->first_free == w->n_places ? grow_places(w) : 0;
        if (r >= 0)
                r = heap_reserve(&x->due, x->n_leases + 1);
        if (r < 0)
                return r;
        uint32_t i = w->first_free;
        LeasePlace *p = &w->places[i];
        Lease *l = p->lease ?: fault_malloc(sizeof(*l));
        if (!l)
                return -ENOMEM;
        w->first_free = p->next_free;
        p->generation++;
        p->lease = l;
        p->used = true;
        *l = (Lease) {
                .worker = w,
                .task = t,
                .due_item = HEAP_ITEM_NULL,
                .id = o->id,
                .sent_usec = t->slot->started_usec,
                .timeout_usec = o->timeout_usec,
                .grace_usec = o->grace_usec,
                .msgid = (uint32_t)p->generation << 16 | i,
                .attempt = o->attempt,
        };
        x->n_leases++;
        show_lease(t->slot->watch, w->pid);
        list_lease(l, w->n_active < w->parallel);
        *ret = l;
        return 0;
}

static void lease_free(Lease *l) {
        RemoteWorker *w = l->worker;
        LeasePlace *p = place_of(w, l->msgid);
        p->used = false; /* its memory waits for the next */
        p->next_free = w->first_free;
        w->first_free = (uint32_t)(p - w->places);
        heap_remove(&w->executor->due, &l->due_item);
        w->executor->n_leases--;
        unlist_lease(l);
}

/* ---- time ---- */

static void on_timer(uv_timer_t *timer) {
        worker_executor_run_due(timer->data);
}

static void arm(WorkerExecutor *x) {
        const HeapItem *item = heap_peek(&x->due);
        uint64_t due = item ? item->key : USEC_NEVER;
        if (due == x->armed_usec)
                return;
        x->armed_usec = due;
        if (!item) {
                (void)uv_timer_stop(x->timer);
                return;
        }
        uint64_t now = engine_now(x->engine), left = item->key > now ? item->key - now : 0;
        uint64_t ms = left > USEC_NEVER - 999 ? UINT64_MAX / 2 : (left + 999) / 1000;
        uv_update_time(x->timer->loop);
        (void)uv_timer_start(x->timer, on_timer, ms, 0); /* fails for closing handles only */
}

/* usec from now; USEC_NEVER: not at all. */
static void set_due(Lease *l, uint64_t usec) {
        WorkerExecutor *x = l->worker->executor;
        uint64_t now = engine_now(x->engine);
        heap_remove(&x->due, &l->due_item);
        if (usec < USEC_NEVER - now) {
                int r = heap_push(&x->due, &l->due_item, now + usec);
                assert(r == 0); /* room was reserved with the lease */
                (void)r;
        }
        arm(x);
}

static void begin_timeout(Lease *l) {
        if (l->stage == LEASE_LIVE && !l->uncleared && l->timeout_usec != 0 && l->timeout_usec != USEC_NEVER)
                set_due(l, l->timeout_usec);
}

/* The worker may have come to those that waited. */
static void activate(RemoteWorker *w) {
        for (List *link; w->n_active < w->parallel && (link = list_first(&w->waiting));) {
                Lease *l = LIST_ENTRY(link, Lease, link);
                unlist_lease(l);
                list_lease(l, true);
                begin_timeout(l);
        }
}

static void lease_over(Lease *l) {
        RemoteWorker *w = l->worker;
        lease_free(l);
        activate(w);
        settle(w);
}

static void end_attempt(RemoteWorker *w, Task *t, const TaskResult *result) {
        t->slot->executor_data = NULL;
        engine_task_ended(w->executor->engine, t, result);
}

/* The worker had its time. */
static void lease_revoke(Lease *l) {
        RemoteWorker *w = l->worker;
        Task *t = l->task;
        WorkerResult details = { .worker = w->number, .exit = -1 };
        bool timed_out = l->stage == LEASE_TIMED_OUT;
        snprintf(details.error, sizeof(details.error), "worker %llu did not stop in time",
                 (unsigned long long)w->number);
        l->stage = LEASE_REVOKED;
        l->task = NULL;
        set_due(l, USEC_NEVER);
        end_attempt(w, t, &(TaskResult) { .verdict = timed_out ? TASK_TIMED_OUT : TASK_STOPPED, .details = &details });
}

static void give_notice(Lease *l, LeaseStage stage, uint64_t grace_usec) {
        RemoteWorker *w = l->worker;
        l->stage = (uint8_t)stage;
        w->ops->cancel(w->client, l->id, l->attempt, stage == LEASE_TIMED_OUT ? "timeout" : "canceled", grace_usec);
        if (grace_usec == 0)
                lease_revoke(l);
        else
                set_due(l, grace_usec);
}

void worker_executor_run_due(WorkerExecutor *x) {
        for (HeapItem *item; (item = heap_peek(&x->due)) && item->key <= engine_now(x->engine);) {
                Lease *l = HEAP_ENTRY(item, Lease, due_item);
                heap_remove(&x->due, item);
                if (l->stage == LEASE_LIVE)
                        give_notice(l, LEASE_TIMED_OUT, l->grace_usec);
                else
                        lease_revoke(l);
        }
        x->armed_usec = USEC_NEVER;
        arm(x);
}

/* ---- what the engine asks ---- */

static Serving *choose(const Queue *q, bool for_rescue) {
        QueueServers *qs = q->executor_data;
        if (for_rescue)
                return list_is_empty(&qs->reserve) ? NULL : LIST_ENTRY(qs->reserve.next, Serving, ready);
        for (int level = 0; level < _LEVEL_MAX; level++) {
                List *link = list_first(&qs->ready[level]);
                if (link)
                        return LIST_ENTRY(link, Serving, ready);
        }
        return NULL;
}

static int send_lease(Lease *l, const WorkerOrder *order) {
        RemoteWorker *w = l->worker;
        int r = w->ops->run(w->client, l->msgid, order);
        if (r < 0)
                return r;
        l->unsent = r == WORKER_GONE;
        l->uncleared = false;
        w->clogged = w->clogged || r != WORKER_SENT;
        if (l->active)
                begin_timeout(l);
        return 0;
}

static int take(WorkerExecutor *x, Slot *slot, Task *t, bool clear) {
        Serving *s = choose(t->queue, slot->reserve != NULL);
        WorkerOrder order;
        Lease *l;
        assert(s); /* else the queue is unserved or has no reserve, and is not startable */
        RemoteWorker *w = s->worker;
        int r = x->hooks->prepare(x->host, t, w, &order);
        if (r < 0)
                return r;
        r = lease_new(w, t, &order, &l);
        if (r >= 0 && clear)
                l->uncleared = true;
        else if (r >= 0 && (r = send_lease(l, &order)) < 0)
                lease_free(l);
        if (r < 0) {
                x->hooks->unprepare(x->host, t);
                return r;
        }
        slot->executor_data = l;
        stand_ready(s); /* behind the others */
        settle(w);
        return 0;
}

static int worker_start(Executor *executor, Slot *slot, Task *t) {
        return take((WorkerExecutor *)executor, slot, t, false);
}

static int worker_claim(Executor *executor, Slot *slot, Task *t) {
        return take((WorkerExecutor *)executor, slot, t, true);
}

static void worker_unclaim(Executor *executor, Slot *slot, Task *t) {
        WorkerExecutor *x = (WorkerExecutor *)executor;
        Lease *l = slot->executor_data;
        slot->executor_data = NULL;
        x->hooks->unprepare(x->host, t);
        lease_over(l);
}

static int worker_go(Executor *executor, Slot *slot, Task *t) {
        WorkerExecutor *x = (WorkerExecutor *)executor;
        Lease *l = slot->executor_data;
        RemoteWorker *w = l->worker;
        WorkerOrder order;
        int r = x->hooks->prepare(x->host, t, w, &order);
        if (r >= 0)
                r = send_lease(l, &order);
        if (r < 0)
                worker_unclaim(executor, slot, t);
        else
                settle(w); /* it may be clogged now */
        return r;
}

static void worker_cancel(Executor *executor, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
        Lease *l = slot->executor_data;
        give_notice(l, LEASE_CANCELED, signal == SIGKILL ? 0 : grace_usec == USEC_NEVER ? l->grace_usec : grace_usec);
}

static const ExecutorOps worker_ops = {
        .name = "worker",
        .start = worker_start,
        .claim = worker_claim,
        .go = worker_go,
        .unclaim = worker_unclaim,
        .cancel = worker_cancel,
};

/* ---- answers ---- */

static TaskVerdict judge(const Lease *l, TaskVerdict answered) {
        if (l->stage == LEASE_CANCELED && answered != TASK_OK)
                return TASK_STOPPED;
        return l->stage == LEASE_TIMED_OUT ? TASK_TIMED_OUT : answered;
}

static void refuse_answer(const RemoteWorker *w, uint32_t msgid, const Lease *l, RunAnswer *a) {
        EQ_SET(&a->details, ErrorDetails, id, (EqIdRef) { .id = l->id }); /* goes along where the table has it */
        w->ops->refused(w->client, msgid, a->refused, a->why, &a->details);
}

static void count_answer(RemoteWorker *w, uint32_t msgid, const Lease *l, RunAnswer *a) {
        if (a->refused) {
                w->n_refused++;
                refuse_answer(w, msgid, l, a);
        }
        *(a->verdict == TASK_OK ? &w->n_done : &w->n_failed) += 1;
        if (a->verdict == TASK_RETURNED && !a->says_when) /* else it is the task's time that has not come */
                w->credit = 0;
}

static void refuse_late(RemoteWorker *w, uint32_t msgid, const LeasePlace *p) {
        if (!p) {
                w->n_refused++;
                w->ops->refused(w->client, msgid, EQ_E_NO_LEASE,
                                "no request of that msgid waits for an answer on this connection", NULL);
                return;
        }
        EqErrorDetails details = { 0 };
        EQ_SET(&details, ErrorDetails, id, (EqIdRef) { .id = p->lease->id });
        EQ_SET(&details, ErrorDetails, attempt, p->lease->attempt);
        w->n_late++;
        w->ops->refused(w->client, msgid, EQ_E_NO_LEASE,
                        "the answer came too late: the lease was revoked when the task was canceled or timed out",
                        &details);
}

bool remote_worker_answer(RemoteWorker *w, uint32_t msgid, EqBytes error, EqBytes result, LeaseName *ret) {
        LeasePlace *p = place_of(w, msgid);
        if (p && p->lease->uncleared)
                p = NULL; /* nobody has asked */
        Lease *l = p ? p->lease : NULL;
        w->seen_usec = engine_now(w->executor->engine);
        if (!l || !l->task) {
                refuse_late(w, msgid, p);
                if (l)
                        lease_over(l);
                return false;
        }
        RunAnswer a;
        run_answer_parse(error, result, l->attempt, &a);
        count_answer(w, msgid, l, &a);
        Task *t = l->task;
        LeaseName name = { .id = l->id, .attempt = l->attempt };
        TaskVerdict verdict = judge(l, a.verdict);
        WorkerResult details = { .worker = w->number, .result = a.result, .exit = a.exit };
        if (a.text.len > 0)
                memcpy(details.error, a.text.data, MIN(a.text.len, (uint32_t)WORKER_TEXT_MAX));
        lease_over(l);
        end_attempt(w, t,
                    &(TaskResult) { .verdict = verdict,
                                    .final = a.final,
                                    .says_when = a.says_when,
                                    .retry_after_usec = a.retry_after_usec,
                                    .details = &details });
        if (!a.refused)
                *ret = name;
        return !a.refused;
}

bool remote_worker_touch(RemoteWorker *w, const Task *t, uint64_t attempt) {
        const Lease *l = t->slot ? t->slot->executor_data : NULL;
        if (!l || l->worker != w || l->attempt != attempt)
                return false;
        w->seen_usec = engine_now(w->executor->engine);
        WATCH_SET(t->slot->watch->own_life.seen_usec, w->seen_usec);
        return true;
}

/* ---- workers ---- */

int remote_worker_new(WorkerExecutor *x, const WorkerSetup *setup, RemoteWorker **ret) {
        RemoteWorker *w = fault_calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->executor = x;
        w->number = setup->number;
        w->identity = identity_ref(setup->identity);
        w->pid = setup->pid;
        w->admin = setup->admin;
        w->ops = setup->ops;
        w->client = setup->client;
        w->level = LEVEL_NONE;
        w->parallel = 1;
        list_init(&w->servings);
        list_init(&w->active);
        list_init(&w->waiting);
        w->connected_usec = w->seen_usec = engine_now(x->engine);
        list_append(&x->workers, &w->link);
        x->n_workers++;
        *ret = w;
        return 0;
}

static void serving_free(Serving *s) {
        QueueServers *qs = s->queue->executor_data;
        list_remove(&s->of_worker);
        list_remove(&s->of_queue);
        list_remove(&s->ready);
        s->worker->n_servings--;
        *(s->worker->reserved ? &qs->n_reserved : &qs->n) -= 1;
        tell_queue(s->queue);
        free(s);
}

static Serving *serving_of(const RemoteWorker *w, const Queue *q) {
        LIST_FOREACH (l, &w->servings) {
                Serving *s = LIST_ENTRY(l, Serving, of_worker);
                if (s->queue == q)
                        return s;
        }
        return NULL;
}

static void free_servings(Serving **s, size_t n) {
        for (size_t i = 0; i < n; i++)
                free(s[i]);
        free(s);
}

int remote_worker_serve(RemoteWorker *w, Queue *const *queues, size_t n) {
        Serving **made = fault_calloc(n + 1, sizeof(*made));
        if (!made)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (!(made[i] = fault_calloc(1, sizeof(Serving)))) {
                        free_servings(made, i);
                        return -ENOMEM;
                }
        for (size_t i = 0; i < n; i++) {
                QueueServers *qs = queues[i]->executor_data;
                if (serving_of(w, queues[i]))
                        continue;
                Serving *s = TAKE_PTR(made[i]);
                *s = (Serving) { .worker = w, .queue = queues[i] };
                list_init(&s->ready);
                list_append(&w->servings, &s->of_worker);
                list_append(&qs->servings, &s->of_queue);
                w->n_servings++;
                *(w->reserved ? &qs->n_reserved : &qs->n) += 1;
                stand_ready(s);
        }
        free_servings(made, n);
        for (size_t i = 0; i < n; i++)
                tell_queue(queues[i]);
        return 0;
}

void remote_worker_unserve(RemoteWorker *w, Queue *q) {
        Serving *s = serving_of(w, q);
        if (s)
                serving_free(s);
}

void remote_worker_set_credit(RemoteWorker *w, uint32_t credit, uint32_t parallel) {
        w->seen_usec = engine_now(w->executor->engine);
        w->credit = credit;
        w->parallel = parallel;
        activate(w);
        settle(w);
}

void remote_worker_leave(RemoteWorker *w) {
        w->leaving = true;
        settle(w);
        for (List *l; (l = list_first(&w->servings));)
                serving_free(LIST_ENTRY(l, Serving, of_worker));
}

void remote_worker_unclogged(RemoteWorker *w) {
        w->clogged = false;
        settle(w);
}

static TaskVerdict verdict_of_lost(const Lease *l, bool kicked) {
        if (l->uncleared)
                return TASK_NOT_STARTED;
        if (l->stage == LEASE_CANCELED)
                return TASK_STOPPED;
        if (l->stage == LEASE_TIMED_OUT)
                return TASK_TIMED_OUT;
        return l->active && !l->unsent && !kicked ? TASK_LOST : TASK_RETURNED;
}

static void lose(Lease *l, bool kicked) {
        RemoteWorker *w = l->worker;
        Task *t = l->task;
        TaskVerdict verdict = verdict_of_lost(l, kicked);
        eq_reason reason =
                l->active && !l->unsent && !l->uncleared ? EQ_REASON_LOST : EQ_REASON_NONE; /* it may have been begun */
        WorkerResult details = { .worker = w->number, .exit = -1 };
        snprintf(details.error, sizeof(details.error), "worker %llu %s while it had the task",
                 (unsigned long long)w->number, kicked ? "was kicked" : "vanished");
        lease_free(l);
        if (t)
                end_attempt(w, t, &(TaskResult) { .verdict = verdict, .reason = reason, .details = &details });
}

/* All are back at their places before the first is started again. */
static void lose_all(RemoteWorker *w, bool kicked) {
        WorkerExecutor *x = w->executor;
        List *lists[] = { &w->active, &w->waiting };
        engine_hold(x->engine);
        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                for (List *link; (link = list_first(lists[i]));) {
                        Lease *l = LIST_ENTRY(link, Lease, link);
                        lose(l, kicked);
                }
        engine_unhold(x->engine);
}

RemoteWorker *remote_worker_free(RemoteWorker *w, bool kicked) {
        if (!w)
                return NULL;
        w->gone = true;
        remote_worker_leave(w);
        lose_all(w, kicked);
        arm(w->executor);
        list_remove(&w->link);
        w->executor->n_workers--;
        identity_unref(w->identity);
        for (uint32_t i = 0; i < w->n_places; i++)
                free(w->places[i].lease);
        free(w->places);
        free(w);
        return NULL;
}

/* ---- to be looked at ---- */

const RemoteWorker *remote_worker_of(const Task *t) {
        const Lease *l = t->slot ? t->slot->executor_data : NULL;
        return l ? l->worker : NULL;
}

bool remote_worker_oldest(const RemoteWorker *w, eq_task_id *ret_id, uint64_t *ret_since_usec) {
        const List *active = list_first(&w->active), *waiting = list_first(&w->waiting);
        if (!active && !waiting)
                return false;
        const Lease *l = LIST_ENTRY(active ? active : waiting, Lease, link);
        *ret_id = l->id;
        *ret_since_usec = l->sent_usec;
        return true;
}

const char *remote_worker_state(const RemoteWorker *w) {
        size_t n = remote_worker_in_flight(w);
        return w->leaving ? "leaving" : w->clogged ? "blocked" : n >= w->credit ? "full" : n > 0 ? "working" : "idle";
}

void remote_worker_each_queue(const RemoteWorker *w, void (*each)(void *userdata, const Queue *q), void *userdata) {
        LIST_FOREACH (l, &w->servings)
                each(userdata, LIST_ENTRY(l, Serving, of_worker)->queue);
}

/* ---- queues ---- */

int worker_executor_add_queue(WorkerExecutor *x, Queue *q) {
        QueueServers *qs = fault_calloc(1, sizeof(*qs));
        if (!qs)
                return -ENOMEM;
        list_init(&qs->servings);
        for (int level = 0; level < _LEVEL_MAX; level++)
                list_init(&qs->ready[level]);
        list_init(&qs->reserve);
        q->executor_data = qs;
        tell_queue(q);
        return 0;
}

void worker_executor_remove_queue(WorkerExecutor *x, Queue *q) {
        QueueServers *qs = q->executor_data;
        if (!qs)
                return;
        for (List *l; (l = list_first(&qs->servings));)
                serving_free(LIST_ENTRY(l, Serving, of_queue));
        q->executor_data = NULL;
        free(qs);
}

size_t worker_executor_n_serving(const Queue *q) {
        const QueueServers *qs = q->executor_data;
        return qs ? qs->n : 0;
}

size_t worker_executor_n_reserved(const Queue *q) {
        const QueueServers *qs = q->executor_data;
        return qs ? qs->n_reserved : 0;
}

/* ---- life ---- */

static void on_timer_closed(uv_handle_t *handle) {
        free(handle);
}

int worker_executor_new(uv_loop_t *loop, Engine *engine, const WorkerHooks *hooks, void *host, WorkerExecutor **ret) {
        _cleanup_free_ WorkerExecutor *x = fault_calloc(1, sizeof(*x));
        if (!x)
                return -ENOMEM;
        x->timer = fault_malloc(sizeof(*x->timer));
        if (!x->timer)
                return -ENOMEM;
        (void)uv_timer_init(loop, x->timer); /* cannot fail */
        x->timer->data = x;
        x->executor.ops = &worker_ops;
        x->engine = engine;
        x->hooks = hooks;
        x->host = host;
        x->armed_usec = USEC_NEVER;
        list_init(&x->workers);
        *ret = TAKE_PTR(x);
        return 0;
}

WorkerExecutor *worker_executor_free(WorkerExecutor *x) {
        if (!x)
                return NULL;
        assert(x->n_workers == 0 && x->n_leases == 0);
        uv_close((uv_handle_t *)x->timer, on_timer_closed);
        heap_done(&x->due);
        free(x);
        return NULL;
}
