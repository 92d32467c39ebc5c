/* SPDX-License-Identifier: MIT */
/* Worker clients: who may serve what, what they are sent, and what is told about them. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/event.h"
#include "base/fault.h"
#include "manager/durable.h"
#include "manager/parts.h"
#include "manager/view.h"

/* ---- what is sent ---- */

static int on_prepare(void *host, Task *task, const RemoteWorker *w, WorkerOrder *ret) {
        TaskRecord *t = task_record(task);
        const QueueAttributes *a = &t->queue->attributes;
        EqSubmit s;
        int r = run_prepare(t);
        if (r < 0)
                return r;
        t->run->worker = w->number;
        *ret = (WorkerOrder) {
                .id = task_record_id(t),
                .queue = t->queue->queue->name,
                .attempt = task->attempt,
                .payload = task_spec_payload(&t->spec),
                .uid = t->spec.identity->uid,
                .timeout_usec = a->timeout_usec,
                .grace_usec = a->grace_usec,
        };
        durable_started(t); /* before it can run */
        if (t->spec.options_len == 0 && !t->spec.common)
                return 0;
        task_spec_decode(&t->spec, &s);
        ret->label = s.label;
        ret->mime = s.mime;
        if (EQ_HAS(&s, Submit, timeout_usec))
                ret->timeout_usec = s.timeout_usec;
        if (EQ_HAS(&s, Submit, grace_usec))
                ret->grace_usec = s.grace_usec;
        return 0;
}

static void on_unprepare(void *host, Task *t) {
        durable_stopped(task_record(t));
}

const WorkerHooks manager_worker_hooks = { .prepare = on_prepare, .unprepare = on_unprepare };

/* ---- who may serve ---- */

static bool may_serve(const QueueRecord *q, const Identity *id, bool admin) {
        return admin || param_access_allows(&q->attributes.allow_serve, id->uid, id->gid, id->groups, id->n_groups);
}

static int check_serve(const Caller *caller, const QueueRecord *q, Refusal *r) {
        const char *name = q->queue->name;
        if (q->removing) {
                int e = refuse(r, EQ_E_NO_QUEUE, -ENOENT, "queue %s is being removed", name);
                REFUSAL_NAMES(r, queue, eq_str(name));
                return e;
        }
        if (!queue_has_workers(q))
                return refuse(r, EQ_E_STATE, -EINVAL,
                              "queue %s runs commands; eqctl queue set %s executor=worker has it served by workers",
                              name, name);
        if (!may_serve(q, caller->identity, caller->admin)) {
                int e = refuse(r, EQ_E_DENIED, -EPERM,
                               "you may not serve queue %s; eqctl queue set %s allow_serve=%u would allow it", name,
                               name, (unsigned)caller->identity->uid);
                REFUSAL_NAMES(r, queue, eq_str(name));
                return e;
        }
        return 0;
}

static int find_all(const Manager *m, const Caller *caller, EqArray names, Queue **queues, Refusal *r) {
        EqBytes name;
        for (size_t i = 0; eq_next_bytes(&names, &name) > 0; i++) {
                QueueRecord *q;
                int e = manager_find_queue(m, name, &q, r);
                if (e >= 0)
                        e = check_serve(caller, q, r);
                if (e < 0)
                        return e;
                queues[i] = q->queue;
        }
        return 0;
}

static int check_args(const EqWorkerServe *args, const RemoteWorker *w, Refusal *r) {
        if (args->queues.n == 0 && !w)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "queues", "name at least one queue to serve");
        if (w && w->leaving)
                return refuse(r, EQ_E_STATE, -EBUSY, "this worker is leaving; connect again to serve again");
        if (w && w->n_servings + args->queues.n > EQ_SERVE_MAX) {
                int e = refuse_field(r, EQ_E_TOO_LARGE, -E2BIG, "queues",
                                     "a worker serves at most %d; use another connection", EQ_SERVE_MAX);
                REFUSAL_SAYS(r, limit, EQ_SERVE_MAX);
                return e;
        }
        if (!eq_text_valid(args->name))
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "name",
                                    "not UTF-8, or with control characters; use printable text");
        if (w && EQ_HAS(args, WorkerServe, rescue) && args->rescue != w->reserved)
                return refuse_field(r, EQ_E_STATE, -EBUSY, "rescue",
                                    "this worker is %s already; a connection is either, use another one",
                                    w->reserved ? "a reserve" : "a regular one");
        if (EQ_HAS(args, WorkerServe, parallel) && args->parallel == 0)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "parallel", "a worker runs at least one task at once");
        return 0;
}

static void worker_text(const RemoteWorker *w, char *buf, size_t size) {
        (void)snprintf(buf, size, "worker %llu%s%s (uid %u, pid %d)", (unsigned long long)w->number,
                       w->name[0] ? " " : "", w->name, (unsigned)w->identity->uid, (int)w->pid);
}

static void tell(Manager *m, eq_event event, const RemoteWorker *w) {
        char text[160];
        worker_text(w, text, sizeof(text));
        manager_event_daemon(m, event, text);
}

static void set_credit(RemoteWorker *w, const EqWorkerServe *args, bool is_new) {
        bool has_credit = EQ_HAS(args, WorkerServe, credit);
        uint32_t credit = has_credit ? (uint32_t)args->credit : is_new ? 1 : w->credit;
        uint32_t parallel = has_credit || is_new ? MAX(credit, 1U) : w->parallel;
        remote_worker_set_credit(w, credit, EQ_HAS(args, WorkerServe, parallel) ? (uint32_t)args->parallel : parallel);
}

int manager_worker_serve(Manager *m, const Caller *caller, const WorkerSetup *setup, const EqWorkerServe *args,
                         RemoteWorker **worker, Refusal *ret_refusal) {
        RemoteWorker *w = *worker;
        _cleanup_free_ Queue **queues = fault_calloc(args->queues.n + 1, sizeof(Queue *));
        int r = queues ? check_args(args, w, ret_refusal) : -ENOMEM;
        if (r >= 0)
                r = find_all(m, caller, args->queues, queues, ret_refusal);
        if (r < 0)
                return queues ? r : refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        if (!w)
                r = remote_worker_new(m->workers, setup, &w);
        if (r >= 0 && !*worker)
                w->reserved = args->rescue;
        if (r >= 0)
                r = remote_worker_serve(w, queues, args->queues.n);
        if (r < 0) {
                if (!*worker)
                        remote_worker_free(w, true);
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        }
        if (EQ_HAS(args, WorkerServe, name)) {
                memcpy(w->name, args->name.data ? args->name.data : "", args->name.len);
                w->name[args->name.len] = 0;
        }
        bool is_new = !*worker;
        *worker = w;
        if (is_new)
                tell(m, EQ_EVENT_WORKER_JOINED, w);
        set_credit(w, args, is_new);
        return 0;
}

static void drop_if_forbidden(RemoteWorker *w, QueueRecord *q) {
        if (!may_serve(q, w->identity, w->admin))
                remote_worker_unserve(w, q->queue);
}

void workers_recheck(Manager *m, QueueRecord *q) {
        if (!queue_has_workers(q))
                return;
        LIST_FOREACH (l, &m->workers->workers)
                drop_if_forbidden(LIST_ENTRY(l, RemoteWorker, link), q);
}

/* ---- signs of life ---- */

static int refuse_touch(Refusal *r, const char *name, const EqWorkerTouch *args) {
        int e = refuse(r, EQ_E_NO_LEASE, -ESTALE, "this connection does not hold %s under attempt %llu; drop that work",
                       name, (unsigned long long)args->attempt);
        if (args->id.text.len == 0) /* what a text stands for would tell who may not look that there is such a task */
                REFUSAL_SAYS(r, id, args->id);
        REFUSAL_SAYS(r, attempt, args->attempt);
        return e;
}

int manager_worker_touch(Manager *m, const Caller *caller, RemoteWorker *w, const EqWorkerTouch *args,
                         Refusal *ret_refusal) {
        Caller anybody = { .identity = caller->identity, .user = caller->user, .admin = true }; /* the lease decides */
        TaskRecord *t;
        if (!eq_text_valid(args->note))
                return refuse_field(ret_refusal, EQ_E_INVALID, -EINVAL, "note",
                                    "not UTF-8, or with control characters; use printable text");
        int r = manager_find_task(m, &anybody, &args->id, &t, ret_refusal);
        if (r != 0) /* nobody holds what is in the store only */
                return refuse_touch(ret_refusal, "that task", args);
        if (!queue_has_workers(t->queue) || !remote_worker_touch(w, &t->task, args->attempt))
                return refuse_touch(ret_refusal, "that task", args);
        if (EQ_HAS(args, WorkerTouch, progress))
                t->run->progress = (int)args->progress;
        if (EQ_HAS(args, WorkerTouch, note)) {
                free(t->run->note);
                t->run->note = args->note.len ? strndup(args->note.data, args->note.len) : NULL;
        }
        if (EQ_HAS(args, WorkerTouch, progress) || EQ_HAS(args, WorkerTouch, note))
                manager_event_task(m, EQ_EVENT_TASK_PROGRESS, t);
        return 0;
}

/* ---- the end ---- */

void manager_worker_end(Manager *m, RemoteWorker *w, bool kicked) {
        size_t n = remote_worker_in_flight(w);
        char text[160];
        worker_text(w, text, sizeof(text));
        if (n > 0)
                log_event(WORKER_LEFT, (.inflight = n), text, kicked ? "was kicked" : "is gone", n);
        remote_worker_free(w, kicked || m->stopping); /* that eqd stops is no crash of theirs */
        manager_event_daemon(m, EQ_EVENT_WORKER_LEFT, text);
}

RemoteWorker *manager_worker(const Manager *m, uint64_t number) {
        LIST_FOREACH (l, &m->workers->workers) {
                RemoteWorker *w = LIST_ENTRY(l, RemoteWorker, link);
                if (w->number == number)
                        return w;
        }
        return NULL;
}

/* ---- rows ---- */

static void add_queue_name(void *userdata, const Queue *q) {
        WorkerView *v = userdata;
        msgpack_packer pk = eq_packer(&v->queues);
        eq_pack_cstr(&pk, q->name);
}

int view_worker(const Manager *m, const RemoteWorker *w, WorkerView *ret) {
        EqWorker *row = &ret->row;
        uint64_t now = clock_monotonic(m->clock), since;
        eq_task_id oldest;
        *ret = (WorkerView)WORKER_VIEW_NULL;
        EQ_SET(row, Worker, worker, w->number);
        EQ_SET(row, Worker, name, eq_str(w->name));
        EQ_SET(row, Worker, state, eq_str(remote_worker_state(w)));
        EQ_SET(row, Worker, uid, w->identity->uid);
        EQ_SET(row, Worker, pid, (uint64_t)w->pid);
        EQ_SET(row, Worker, credit, w->credit);
        EQ_SET(row, Worker, parallel, w->parallel);
        if (w->reserved)
                EQ_SET(row, Worker, rescue, true);
        EQ_SET(row, Worker, in_flight, remote_worker_in_flight(w));
        if (remote_worker_oldest(w, &oldest, &since)) {
                EQ_SET(row, Worker, oldest, (EqIdRef) { .id = oldest });
                EQ_SET(row, Worker, oldest_usec, now - since);
        }
        EQ_SET(row, Worker, seen_usec, now - w->seen_usec);
        EQ_SET(row, Worker, connected_usec, now - w->connected_usec);
        EQ_SET(row, Worker, done, w->n_done);
        EQ_SET(row, Worker, failed, w->n_failed);
        EQ_SET(row, Worker, late, w->n_late);
        EQ_SET(row, Worker, refused, w->n_refused);
        remote_worker_each_queue(w, add_queue_name, ret);
        EQ_SET(row, Worker, queues,
               (EqArray) { .raw = eq_bytes(ret->queues.data, ret->queues.len), .n = (uint32_t)w->n_servings });
        return ret->queues.failed ? -ENOMEM : 0;
}

void worker_view_done(WorkerView *v) {
        eq_buffer_done(&v->queues);
}
