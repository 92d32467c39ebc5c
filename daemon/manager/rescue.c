/* SPDX-License-Identifier: MIT */
/* Who has which rescuer. A queue's own goes with the queue; the shared one is made for the first queue that wants it, and goes with
 * the last. A reserve is taken from everybody, so clients must be administrators to ask for one. */

#include <errno.h>
#include <string.h>

#include "base/event.h"
#include "manager/parts.h"

/* Whose reserves a queue with these attributes can have; NULL: nobody's. Of worker clients the reserve is theirs: those that are
 * connected as such. */
static Executor *executor_for(const Manager *m, const QueueRecord *q, const QueueAttributes *a, PoolKind *ret_kind) {
        switch (a->executor) {
        case QUEUE_EXECUTOR_COMMAND:
                *ret_kind = POOL_COMMAND;
                return command_executor(m->commands);
        case QUEUE_EXECUTOR_WORKER:
                *ret_kind = POOL_REMOTE;
                return &m->workers->executor;
        case QUEUE_EXECUTOR_PLUGIN:
                break;
        }
        *ret_kind = POOL_THREAD;
        return q->library ? plugin_executor(m->plugins) : NULL;
}

/* Does it have the one that it is to have? */
static bool is_settled(const Manager *m, const Rescuer *r, const Executor *executor, RescuerMode mode) {
        if (!r || mode == RESCUER_NO)
                return !r && mode == RESCUER_NO;
        return r->executor == executor && (r == m->shared_rescuers[r->kind]) == (mode == RESCUER_SHARED);
}

/* Its last queue frees it. */
static void give(Manager *m, QueueRecord *q, Rescuer *r) {
        Rescuer *before = q->queue->rescuer;
        queue_set_rescuer(q->queue, r);
        if (!before || before->n_queues > 0)
                return;
        if (before == m->shared_rescuers[before->kind])
                m->shared_rescuers[before->kind] = NULL;
        rescuer_free(before);
}

int rescue_check(const Caller *caller, const QueueAttributes *before, const QueueAttributes *a, const char *where,
                 Refusal *r) {
        if (!where)
                where = "";
        if (a->engine.rescuer == RESCUER_NO)
                return 0;
        if (a->executor == QUEUE_EXECUTOR_WORKER)
                return 0; /* takes nothing from anybody */
        if (!caller || caller->admin || (before && before->engine.rescuer == a->engine.rescuer))
                return 0;
        return refuse_field(r, EQ_E_DENIED, -EPERM, "rescuer",
                            "what it keeps ready is taken from everybody; an administrator can set it, or the queue's "
                            "file");
}

int rescue_settle(Manager *m, QueueRecord *q, const QueueAttributes *a) {
        Rescuer *r = NULL;
        PoolKind kind;
        Executor *executor = executor_for(m, q, a, &kind);
        RescuerMode mode = executor && !q->removing ? a->engine.rescuer : RESCUER_NO;
        int e = 0;
        if (is_settled(m, q->queue->rescuer, executor, mode))
                return 0;
        if (mode == RESCUER_YES)
                e = rescuer_new(&m->engine, kind, executor, q->queue->name, &r);
        else if (mode == RESCUER_SHARED) {
                Rescuer **shared = &m->shared_rescuers[kind];
                e = *shared ? 0 : rescuer_new(&m->engine, kind, executor, "shared", shared);
                r = *shared;
        }
        if (e >= 0)
                give(m, q, r);
        return e;
}

int rescue_refuse(Refusal *r, const QueueRecord *q, const QueueAttributes *a, int error) {
        bool commands = a->executor == QUEUE_EXECUTOR_COMMAND;
        if (error == -ENOTSUP)
                return refuse_field(r, EQ_E_INVALID, error, "rescuer", "this eqd runs no commands; set rescuer=no");
        if (error == -ENOSPC)
                return refuse_field(
                        r, EQ_E_LIMIT, error, "rescuer",
                        "there are %d, more cannot be had; rescuer=shared is one for all queues that say so",
                        commands ? (int)SPAWN_RESERVES_MAX : (int)PLUGIN_RESERVES_MAX);
        if (a->executor == QUEUE_EXECUTOR_WORKER)
                return refuse_field(r, EQ_E_NO_MEMORY, error, "rescuer", "eqd has no memory for one; try again later");
        if (error == -ETIMEDOUT) /* nothing but the spawner is waited for */
                return refuse_field(
                        r, EQ_E_TIMED_OUT, error, "rescuer",
                        "the process that is to wait for queue %s was not made within a second: the machine has too "
                        "much to do, or eqd-spawner stands still, which the journal tells; try again, or set "
                        "rescuer=no",
                        q->queue->name);
        return refuse_field(r, EQ_E_NO_MEMORY, error, "rescuer",
                            "the %s that is to wait for queue %s cannot be made: %s; try again when eqd can create "
                            "%s (TasksMax= of its unit, memory), or set rescuer=no",
                            commands ? "process" : "thread", q->queue->name, strerror(-error),
                            commands ? "processes" : "threads");
}

void rescue_follow(Manager *m, QueueRecord *q) {
        int e = rescue_settle(m, q, &q->attributes);
        if (e < 0)
                log_event(RESCUER_NONE, (.queue = q->queue->name, .error = strerror(-e)), q->queue->name, strerror(-e));
}

void rescue_drop(Manager *m, QueueRecord *q) {
        give(m, q, NULL);
}

void rescue_follow_settings(Manager *m) {
        const DaemonSettings *d = &m->config->daemon;
        m->engine.rescue = (RescueParams) {
                .mayday_initial_usec = d->mayday_initial_timeout_usec,
                .mayday_interval_usec = d->mayday_interval_usec,
                .full_delay_usec = d->rescue_full_delay_usec,
                .create_cooldown_usec = d->create_cooldown_usec,
                .batch = d->rescuer_batch,
        };
        plugin_executor_set_rescuer_nice(m->plugins, (int)d->rescuer_nice - 20); /* the first word is -20 */
}

/* ---- what the engine tells ---- */

static eq_reason reason_of(const Queue *q) {
        if (q->pool->kind == POOL_REMOTE)
                return q->unserved;
        return q->pool->need_is_full ? EQ_REASON_POOL_FULL : EQ_REASON_CREATE_FAILURE;
}

void rescue_on_mayday(void *host, Queue *q) {
        Manager *m = host;
        eq_reason reason = reason_of(q);
        int e = reason == EQ_REASON_CREATE_FAILURE ? q->pool->create_error : 0;
        const char *error = e < 0 ? strerror(-e) : NULL;
        queue_record(q)->rescue_reason = reason;
        list_append(&m->rescued, &queue_record(q)->rescued_link);
        log_event(MAYDAY,
                  (.queue = q->name, .pool = q->pool->name, .reason = eq_reason_name(reason), .error = error,
                   .pending = q->n_queued),
                  q->name, eq_reason_name(reason), error ? ": " : "", error ? error : "");
}

void rescue_on_relieved(void *host, Queue *q, uint64_t lasted_usec, uint64_t n_rescued) {
        list_remove(&queue_record(q)->rescued_link);
        log_event(RESCUE_END, (.queue = q->name, .pool = q->pool->name, .pending = q->n_queued), q->name,
                  (double)lasted_usec / USEC_PER_SEC, (unsigned long long)n_rescued);
}

RescueState manager_rescue(const Manager *m) {
        if (list_is_empty(&m->rescued))
                return (RescueState) { 0 };
        const QueueRecord *q = LIST_ENTRY(m->rescued.next, QueueRecord, rescued_link);
        bool refused = q->rescue_reason == EQ_REASON_CREATE_FAILURE;
        return (RescueState) {
                .queue = q->queue,
                .reason = q->rescue_reason,
                .error = refused ? q->queue->pool->create_error : 0,
        };
}
