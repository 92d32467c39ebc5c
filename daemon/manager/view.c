/* SPDX-License-Identifier: MIT */
/* Sentences and rows made from records. Nothing here changes anything. */

#include "manager/view.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "engine/barrier.h"
#include "engine/rate.h"
#include "manager/arrays.h"
#include "manager/durable.h"
#include "manager/once.h"
#include "manager/parts.h"
#include "manager/shelf.h"

static const char *const note_texts[_TASK_NOTE_MAX] = {
        [TASK_NOTE_CANCELED] = "canceled on request",
        [TASK_NOTE_DROPPED] = "dropped to make room for newer tasks (on_full=drop-oldest)",
        [TASK_NOTE_DEPS] = "a task that it comes after ended so that this one can never start",
        [TASK_NOTE_REMOVED] = "its queue was removed",
        [TASK_NOTE_SHUTDOWN] = "eqd was stopped",
        [TASK_NOTE_REPLACED] = "replaced by a newer task with the same key (on_dup=replace)",
        [TASK_NOTE_DAMAGED] = "its record in the store is damaged; the journal of eqd says what was kept of it",
        [TASK_NOTE_STDIN] = "eqd was restarted, and the descriptor that was its standard input is gone",
};

/* 90061000000 -> "1d1h"; two units, for sentences. */
static void format_span(uint64_t usec, char *buf, size_t size) {
        static const struct {
                uint64_t usec;
                const char *unit;
        } units[] = { { 86400 * USEC_PER_SEC, "d" },
                      { 3600 * USEC_PER_SEC, "h" },
                      { 60 * USEC_PER_SEC, "m" },
                      { USEC_PER_SEC, "s" } };
        if (usec == USEC_NEVER) {
                snprintf(buf, size, "infinity");
                return;
        }
        if (usec < USEC_PER_SEC) {
                snprintf(buf, size, "%llums", (unsigned long long)(usec / USEC_PER_MSEC));
                return;
        }
        size_t i = 0;
        while (usec < units[i].usec)
                i++;
        uint64_t n = usec / units[i].usec, rest = usec % units[i].usec;
        if (i + 1 < ELEMENTSOF(units) && rest >= units[i + 1].usec)
                snprintf(buf, size, "%llu%s%llu%s", (unsigned long long)n, units[i].unit,
                         (unsigned long long)(rest / units[i + 1].usec), units[i + 1].unit);
        else
                snprintf(buf, size, "%llu%s", (unsigned long long)n, units[i].unit);
}

static void name_of(const TaskRecord *t, char *buf, size_t size) {
        snprintf(buf, size, "%s/%llu", t->queue->queue->name, (unsigned long long)t->task.seq);
}

static void explain_unserved(const Queue *q, char *buf, size_t size) {
        size_t n = worker_executor_n_serving(q);
        if (n > 0)
                snprintf(buf, size,
                         "workers of queue %s have as many tasks as they take, %zu in all; see eqctl worker ls",
                         q->name, n);
        else
                snprintf(buf, size, "no worker serves queue %s; eqctl worker run -q %s -- COMMAND makes COMMAND one",
                         q->name, q->name);
}

/* What is different where a plugin runs the tasks. False: nothing. */
static bool explain_plugin(const Manager *m, const QueueRecord *q, eq_reason reason, char *buf, size_t size) {
        if (!queue_has_plugin(q))
                return false;
        const Pool *pool = q->queue->pool;
        if (reason == EQ_REASON_PLUGIN)
                snprintf(buf, size, "plugin %s: %s", q->library->path, plugin_executor_explain(q->queue));
        else if (reason == EQ_REASON_POOL_FULL)
                snprintf(buf, size,
                         "waits for a thread of pool %s, which has at most %llu; eqctl pool set %s max_workers=N "
                         "allows more",
                         pool->name, (unsigned long long)((const PoolRecord *)pool->owner)->attributes.max_workers,
                         pool->name);
        else if (reason == EQ_REASON_CREATE_FAILURE && pool->create_error != 0)
                snprintf(buf, size, "no %sthread can be created now: %s; eqd tries again each second",
                         plugin_pool_has_none(pool) ? "" : "further ", strerror(-pool->create_error));
        else
                return false;
        return true;
}

/* t is over several queues and waits in one of them, or stands behind one that is. other: the name of `by`. */
static void explain_barrier(const TaskRecord *t, const TaskRecord *by, const char *other, char *buf, size_t size) {
        const Task *ignored;
        const TaskRecord *barrier = t->task.part == TASK_BARRIER ? t : by;
        const Queue *at = task_is_pending(&barrier->task) ? barrier_waits_for(&barrier->task, &ignored) : NULL;
        if (barrier != t && at)
                snprintf(buf, size, "%s comes first: it holds several queues at once, and waits for queue %s", other,
                         at->name);
        else if (barrier != t)
                snprintf(buf, size, "%s comes first, and holds this queue until it has ended", other);
        else if (by)
                snprintf(buf, size, "holds several queues at once, and %s is before it in queue %s", other,
                         at ? at->name : t->queue->queue->name);
        else
                snprintf(buf, size, "holds several queues at once, and queue %s %s",
                         at ? at->name : t->queue->queue->name,
                         at && at->pauses == 0 ? "may start nothing yet by its rate" : "is paused");
}

static void explain_rate(const Manager *m, const Queue *q, char *buf, size_t size) {
        char rate[PARAM_PRINT_MAX], span[32];
        uint64_t next = rate_next_usec(q), now = clock_monotonic(m->clock);
        format_span(next > now ? next - now : 0, span, sizeof(span));
        param_print(params_find(&queue_attributes_table, "rate", strlen("rate")), &queue_record(q)->attributes, rate);
        snprintf(buf, size, "queue %s starts %s at most, and the next one in %s", q->name, rate, span);
}

static void explain_persist(const QueueRecord *q, char *buf, size_t size) {
        if (!durable_has_failed(q) && once_waits_for_mark(q)) {
                snprintf(buf, size,
                         "as many tasks of durable queues run as can be marked (%d), and queue %s starts none without "
                         "a mark, since "
                         "it runs a task at most once (at_most_once): it goes on when some have ended",
                         STORE_MARKS, q->queue->name);
                return;
        }
        snprintf(buf, size,
                 durable_has_failed(q)
                         ? "the store has failed, and queue %s is durable: mend the disk and restart eqd"
                         : "the next task of queue %s is being read from the store; if this lasts, look at the disk",
                 q->queue->name);
}

static void explain_array(const TaskRecord *t, char *buf, size_t size) {
        size_t n_turns;
        uint64_t limit;
        if (array_waits(t, &n_turns, &limit))
                snprintf(buf, size,
                         "%zu task%s of its array %s, as many as its limit allows at once (--array ...%%%llu)", n_turns,
                         n_turns == 1 ? "" : "s", n_turns == 1 ? "has its turn" : "have their turn",
                         (unsigned long long)limit);
}

/* What reasons say that keep a whole queue. False: this one says more. */
static bool explain_queue(const Manager *m, const QueueRecord *record, eq_reason reason, char *buf, size_t size) {
        const Queue *q = record->queue;
        switch (reason) {
        case EQ_REASON_MAX_ACTIVE:
                snprintf(buf, size, "%zu task%s running, as many as max_active of %s allows", q->n_running,
                         q->n_running == 1 ? " is" : "s are", q->name);
                return true;
        case EQ_REASON_SLOTS:
                snprintf(buf, size, "all slots of pool %s are taken, %zu in all; eqctl pool set %s slots=N makes more",
                         q->pool->name, q->pool->n_slots_max, q->pool->name);
                return true;
        case EQ_REASON_NO_WORKER:
        case EQ_REASON_POOL_FULL:
                explain_unserved(q, buf, size);
                return true;
        case EQ_REASON_PAUSED:
                snprintf(buf, size, "queue %s is paused; eqctl queue resume %s lets it go on", q->name, q->name);
                return true;
        case EQ_REASON_RATE:
                explain_rate(m, q, buf, size);
                return true;
        case EQ_REASON_PERSIST:
                explain_persist(record, buf, size);
                return true;
        default:
                return false;
        }
}

/* What one reason has to say about t. */
static void explain(const Manager *m, const TaskRecord *t, eq_reason reason, const TaskRecord *by, char *buf,
                    size_t size) {
        const char *queue = t->queue->queue->name;
        uint64_t now = clock_monotonic(m->clock);
        char span[32] = "", other[64] = "another task";
        format_span(t->task.due_usec > now ? t->task.due_usec - now : 0, span, sizeof(span));
        if (by)
                name_of(by, other, sizeof(other));
        if (explain_plugin(m, t->queue, reason, buf, size) || explain_queue(m, t->queue, reason, buf, size))
                return;
        switch (reason) {
        case EQ_REASON_SERIAL:
                snprintf(buf, size, "%s is running, and %s runs one task at a time", other, queue);
                return;
        case EQ_REASON_HELD:
                snprintf(buf, size, "held; eqctl release %s/%llu lets it go", queue, (unsigned long long)t->task.seq);
                return;
        case EQ_REASON_AFTER:
                snprintf(buf, size, "comes after %s, which is %s", other,
                         by ? eq_state_name(task_record_state(by)) : "not finished");
                return;
        case EQ_REASON_ARRAY:
                explain_array(t, buf, size);
                return;
        case EQ_REASON_AT:
                snprintf(buf, size, "starts in %s", span);
                return;
        case EQ_REASON_BACKOFF:
                if (t->task.wait & TASK_WAIT_BACKOFF)
                        snprintf(buf, size, "attempt %u %s; the next one is in %s", (unsigned)t->task.attempt,
                                 t->lost > 0 ? "has ended" : "failed", span); /* it may have been given back */
                else
                        snprintf(buf, size, "%s keeps its place until its next attempt", other);
                return;
        case EQ_REASON_BARRIER:
                explain_barrier(t, by, other, buf, size);
                return;
        case EQ_REASON_PRIO:
                snprintf(buf, size, "%s and others come first", other);
                return;
        case EQ_REASON_CREATE_FAILURE:
                snprintf(buf, size, "no process can be created now; eqd tries again each second");
                return;
        case EQ_REASON_SPAWN_FAILED:
                snprintf(buf, size, "the spawner is not running; eqd restarts it");
                return;
        case EQ_REASON_DRAINING:
                snprintf(buf, size, "eqd is stopping");
                return;
        default:
                snprintf(buf, size, "%s", eq_reason_name(reason));
                return;
        }
}

/* What durable_has_failed() stopped is paused to the engine only. */
static eq_reason shown_reason(const QueueRecord *q, eq_reason reason) {
        return reason == EQ_REASON_PAUSED && durable_has_failed(q) ? EQ_REASON_PERSIST : reason;
}

/* The reason of a task that has not finished, and the task that it waits for. */
static eq_reason reason_of(const TaskRecord *t, const TaskRecord **ret_by) {
        const Task *by = NULL;
        eq_reason reason = shown_reason(t->queue, queue_reason(t->queue->queue, &t->task, &by));
        *ret_by = by ? task_record(by) : NULL;
        size_t n_turns;
        uint64_t limit;
        if (reason != EQ_REASON_AFTER)
                return reason;
        *ret_by = deps_first(t);
        return array_waits(t, &n_turns, &limit) ? EQ_REASON_ARRAY : reason; /* both are one to the engine */
}

/* That its retries are used up is what DEAD says; that it has some left is not. */
static void explain_dead(const TaskRecord *t, char *buf, size_t size) {
        size_t n = strlen(buf);
        if (t->crashes > 0 && t->task.attempt <= t->retries + t->lost)
                snprintf(buf + n, size - n, "%sit has crashed %u times (max_crashes)", n > 0 ? "; " : "",
                         (unsigned)t->crashes);
        else if (!attempt_left(t))
                snprintf(buf + n, size - n, "%sit has had all %u attempts", n > 0 ? "; " : "",
                         (unsigned)t->task.attempt);
}

static void explain_never(const TaskRecord *t, char *buf, size_t size) {
        const char *option;
        const TaskRecord *by = deps_unmet(t, &option);
        char other[64];
        if (by) {
                name_of(by, other, sizeof(other));
                snprintf(buf, size, "%s, which it comes after (%s), ended as %s: it can never start", other, option,
                         eq_state_name(by->task.state));
        } else
                snprintf(buf, size, "%s", note_texts[TASK_NOTE_DEPS]);
}

static void explain_end(const TaskRecord *t, char *buf, size_t size) {
        const TaskRun *run = t->run;
        if (t->end_note == TASK_NOTE_DEPS)
                explain_never(t, buf, size);
        else if (t->end_note != TASK_NOTE_NONE)
                snprintf(buf, size, "%s", note_texts[t->end_note]);
        else if (t->end_reason == EQ_REASON_LOST && t->task.state == EQ_STATE_FAILED)
                snprintf(buf, size, "it was lost while it ran, and %s runs a task at most once (at_most_once)",
                         t->queue->queue->name);
        else if (run && run->error)
                snprintf(buf, size, "%s", run->error);
        else if (t->task.state == EQ_STATE_EXPIRED)
                snprintf(buf, size, "not started before it expired");
        else if (t->task.state == EQ_STATE_TIMEOUT || t->end_reason == EQ_REASON_TIMEOUT)
                snprintf(buf, size, "ran longer than its timeout");
        else if (run && run->signal)
                snprintf(buf, size, "ended by signal %d (%s)%s", run->signal, strsignal(run->signal),
                         run->signal == SIGKILL ? ", which the kernel sends when memory is short" : "");
        else if (run && run->exit > 0)
                snprintf(buf, size, "exit status %d", run->exit);
        if (t->task.state == EQ_STATE_DEAD)
                explain_dead(t, buf, size);
}

/* What a run by a worker has beside. */
static void view_worker_run(const TaskRun *run, EqTask *row) {
        EQ_SET(row, Task, worker, run->worker);
        if (run->progress >= 0)
                EQ_SET(row, Task, progress, (uint64_t)run->progress);
        if (run->note)
                EQ_SET(row, Task, note, eq_str(run->note));
}

void view_task_result(const TaskRecord *t, TaskView *v) {
        if (t->run && t->run->n_result > 0)
                EQ_SET(&v->row, Task, result, eq_bytes(t->run->result, t->run->n_result));
}

void view_task_payload(const TaskRecord *t, TaskView *v) {
        if (!t->hollow && t->end_note != TASK_NOTE_DAMAGED)
                EQ_SET(&v->row, Task, payload, task_spec_payload(&t->spec));
}

static void view_run(const TaskRun *run, bool running, EqTask *row) {
        EQ_SET(row, Task, started_usec, run->started_usec);
        if (run->worker)
                view_worker_run(run, row);
        else {
                EQ_SET(row, Task, stdout_bytes, output_log_written(&run->log, EQ_STREAM_STDOUT));
                EQ_SET(row, Task, stderr_bytes, output_log_written(&run->log, EQ_STREAM_STDERR));
        }
        if (running) {
                if (run->pid > 0)
                        EQ_SET(row, Task, pid, (uint64_t)run->pid);
                return;
        }
        if (run->exit >= 0)
                EQ_SET(row, Task, exit, (uint64_t)run->exit);
        if (run->signal)
                EQ_SET(row, Task, signal, (uint64_t)run->signal);
        if (run->error)
                EQ_SET(row, Task, error, eq_str(run->error));
        if (run->worker)
                return;
        EQ_SET(row, Task, utime_usec, run->utime_usec);
        EQ_SET(row, Task, stime_usec, run->stime_usec);
        EQ_SET(row, Task, maxrss_kib, run->maxrss_kib);
}

static void view_spec(const TaskRecord *t, EqTask *row) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        if (EQ_HAS(&s, Submit, argv))
                EQ_SET(row, Task, argv, s.argv);
        if (EQ_HAS(&s, Submit, label))
                EQ_SET(row, Task, label, s.label);
        if (EQ_HAS(&s, Submit, also))
                EQ_SET(row, Task, also, s.also);
        if (EQ_HAS(&s, Submit, cwd))
                EQ_SET(row, Task, cwd, s.cwd);
        if (EQ_HAS(&s, Submit, mime))
                EQ_SET(row, Task, mime, s.mime);
        if (EQ_HAS(&s, Submit, nice))
                EQ_SET(row, Task, nice, s.nice);
        if (EQ_HAS(&s, Submit, ionice))
                EQ_SET(row, Task, ionice, s.ionice);
        if (EQ_HAS(&s, Submit, unique))
                EQ_SET(row, Task, unique, s.unique);
        if (EQ_HAS(&s, Submit, array))
                EQ_SET(row, Task, array, s.array);
        if (EQ_HAS(&s, Submit, array_limit))
                EQ_SET(row, Task, array_limit, s.array_limit);
        uint64_t timeout = EQ_HAS(&s, Submit, timeout_usec) ? s.timeout_usec : t->queue->attributes.timeout_usec;
        if (timeout != USEC_NEVER && timeout != 0)
                EQ_SET(row, Task, timeout_usec, timeout);
        if (s.urgent)
                EQ_SET(row, Task, urgent, true);
}

static void view_identity(const Manager *m, const TaskRecord *t, EqTask *row) {
        const Identity *run_as = t->queue->fixed ? t->queue->fixed : t->spec.identity;
        EQ_SET(row, Task, uid, t->spec.identity->uid);
        EQ_SET(row, Task, gid, t->spec.identity->gid);
        if (!queue_has_commands(t->queue))
                return; /* it runs as whatever its worker is, or as eqd */
        if (run_as->uid != t->spec.identity->uid)
                EQ_SET(row, Task, run_uid, run_as->uid);
        if (run_as->uid == 0)
                EQ_SET(row, Task, reduced, true);
}

/* Its slot and its place are others' by now: what still shows it as it was has to say why. */
static eq_reason explain_unsettled(const TaskRecord *t, char *buf, size_t size) {
        snprintf(buf, size, "it %s; %s", t->run ? "has ended" : "will not run",
                 durable_has_failed(t->queue) ? "the store has failed before that was written"
                                              : "that is being written to the store");
        return EQ_REASON_PERSIST;
}

static void view_reason(const Manager *m, const TaskRecord *t, TaskView *v) {
        EqTask *row = &v->row;
        eq_reason reason = t->end_reason;
        if (t->unsettled)
                reason = explain_unsettled(t, v->detail, sizeof(v->detail));
        else if (task_record_finished(t))
                explain_end(t, v->detail, sizeof(v->detail));
        else if (task_record_state(t) != EQ_STATE_RUNNING) {
                const TaskRecord *by;
                reason = reason_of(t, &by);
                if (reason != EQ_REASON_NONE)
                        explain(m, t, reason, by, v->detail, sizeof(v->detail));
        }
        if (reason != EQ_REASON_NONE)
                EQ_SET(row, Task, reason, eq_str(eq_reason_name(reason)));
        if (v->detail[0])
                EQ_SET(row, Task, detail, eq_str(v->detail));
}

void view_task(const Manager *m, const TaskRecord *t, TaskView *ret) {
        EqTask *row = &ret->row;
        memset(ret, 0, sizeof(*ret));
        EQ_SET(row, Task, id, (EqIdRef) { .id = task_record_id(t) });
        EQ_SET(row, Task, queue, eq_str(t->queue->queue->name));
        EQ_SET(row, Task, state, eq_str(eq_state_name(task_record_state(t))));
        EQ_SET(row, Task, payload_bytes, t->spec.payload_len);
        EQ_SET(row, Task, attempt, t->task.attempt);
        EQ_SET(row, Task, retries, t->retries);
        EQ_SET(row, Task, submitted_usec, t->spec.submitted_usec);
        if (t->crashes)
                EQ_SET(row, Task, crashes, t->crashes);
        if (t->task.wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF))
                EQ_SET(row, Task, eligible_usec, clock_to_realtime(m->clock, t->task.due_usec));
        if (t->task.expire_usec && t->task.attempt == 0 && !task_record_finished(t))
                EQ_SET(row, Task, expires_usec, clock_to_realtime(m->clock, t->task.expire_usec));
        view_spec(t, row);
        view_identity(m, t, row);
        view_reason(m, t, ret);
        if (t->run)
                view_run(t->run, task_record_state(t) == EQ_STATE_RUNNING, row);
        if (task_record_finished(t))
                EQ_SET(row, Task, finished_usec, t->finished_usec);
}

/* What the stall watch has found, behind the reason that it waits. */
static void add_stall(const Manager *m, const QueueRecord *q, char *buf, size_t size) {
        size_t len = strlen(buf);
        char span[32];
        if (!q->stalled_since_usec)
                return;
        format_span(clock_monotonic(m->clock) - q->stalled_since_usec, span, sizeof(span));
        snprintf(buf + len, size - len, "%sthe queue is stalled for %s, see eqctl dump", len > 0 ? "; " : "", span);
}

static void explain_plugin_run(const Manager *m, const TaskRecord *t, char *buf, size_t size) {
        uint64_t now = clock_monotonic(m->clock), begun, seen;
        char runs[32], silent[32];
        if (!plugin_executor_times(&t->task, &begun, &seen)) {
                snprintf(buf, size, "the plugin is just beginning, or done with it");
                return;
        }
        format_span(now > begun ? now - begun : 0, runs, sizeof(runs));
        format_span(now > seen ? now - seen : 0, silent, sizeof(silent));
        snprintf(buf, size, "the plugin has had it for %s, and last said something %s ago", runs, silent);
}

static void explain_run(const Manager *m, const TaskRecord *t, char *buf, size_t size) {
        const RemoteWorker *w = queue_has_workers(t->queue) ? remote_worker_of(&t->task) : NULL;
        char silent[32];
        if (queue_has_plugin(t->queue)) {
                explain_plugin_run(m, t, buf, size);
                return;
        }
        if (!w && t->run && t->run->pid > 0)
                snprintf(buf, size, "runs as process %d", (int)t->run->pid);
        else if (!w)
                snprintf(buf, size, "its process is being started");
        if (!w)
                return;
        format_span(clock_monotonic(m->clock) - w->seen_usec, silent, sizeof(silent));
        snprintf(buf, size, "worker %llu%s%s (uid %u, pid %d) has it under attempt %u; it last said something %s ago%s",
                 (unsigned long long)w->number, w->name[0] ? " " : "", w->name, (unsigned)w->identity->uid, (int)w->pid,
                 (unsigned)t->task.attempt, silent, w->clogged ? ", and does not read" : "");
}

void view_why(const Manager *m, const TaskRecord *t, WhyView *ret) {
        EqWhy *row = &ret->row;
        memset(ret, 0, sizeof(*ret));
        EQ_SET(row, Why, id, (EqIdRef) { .id = task_record_id(t) });
        EQ_SET(row, Why, queue, eq_str(t->queue->queue->name));
        EQ_SET(row, Why, state, eq_str(eq_state_name(task_record_state(t))));

        const TaskRecord *by = NULL;
        eq_reason reason = t->end_reason;
        if (t->unsettled)
                reason = explain_unsettled(t, ret->detail, sizeof(ret->detail));
        else if (task_record_finished(t))
                explain_end(t, ret->detail, sizeof(ret->detail));
        else if (task_record_state(t) == EQ_STATE_RUNNING)
                explain_run(m, t, ret->detail, sizeof(ret->detail));
        else {
                reason = reason_of(t, &by);
                EQ_SET(row, Why, ahead, queue_n_ahead(t->queue->queue, &t->task));
                if (reason != EQ_REASON_NONE)
                        explain(m, t, reason, by, ret->detail, sizeof(ret->detail));
                add_stall(m, t->queue, ret->detail, sizeof(ret->detail));
                if (t->task.wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF))
                        EQ_SET(row, Why, until_usec, clock_to_realtime(m->clock, t->task.due_usec));
                else if (reason == EQ_REASON_RATE)
                        EQ_SET(row, Why, until_usec, clock_to_realtime(m->clock, rate_next_usec(t->queue->queue)));
        }
        EQ_SET(row, Why, reason, eq_str(eq_reason_name(reason)));
        EQ_SET(row, Why, detail, eq_str(ret->detail));
        if (by)
                EQ_SET(row, Why, by, (EqIdRef) { .id = task_record_id(by) });
}

/* ---- queues ---- */

typedef struct SetWriter {
        msgpack_packer packer;
        uint32_t n;
} SetWriter;

static int add_attribute(void *userdata, const char *key, const char *value, bool set) {
        SetWriter *w = userdata;
        char text[PARAM_PRINT_MAX + 64];
        snprintf(text, sizeof(text), "%s=%s", key, value);
        eq_pack_cstr(&w->packer, text);
        w->n++;
        return 0;
}

static void view_queue_head(const Manager *m, const QueueRecord *q, QueueView *v) {
        const Task *next, *by;
        eq_reason reason = shown_reason(q, queue_head_reason(q->queue, &next, &by));
        if (reason == EQ_REASON_NONE || (!next && reason != EQ_REASON_PERSIST))
                return;
        EQ_SET(&v->row, Queue, reason, eq_str(eq_reason_name(reason)));
        if (!next)
                explain_persist(q, v->detail, sizeof(v->detail));
        else
                explain(m, task_record(next), reason, by ? task_record(by) : NULL, v->detail, sizeof(v->detail));
        EQ_SET(&v->row, Queue, detail, eq_str(v->detail));
}

/* The oldest pending task is the first in the index that has not started: the index is in order of submission. */
static const TaskRecord *oldest_pending(const QueueRecord *q) {
        if (q->queue->n_queued + q->queue->n_waiting == 0)
                return NULL;
        const Task *t = queue_oldest(q->queue);
        return t ? task_record(t) : NULL;
}

int view_queue(const Manager *m, const QueueRecord *q, QueueView *ret) {
        EqQueue *row = &ret->row;
        const Queue *e = q->queue;
        memset(ret, 0, sizeof(*ret));
        queue_look(q->queue);
        EQ_SET(row, Queue, name, eq_str(e->name));
        EQ_SET(row, Queue, id, e->id);
        EQ_SET(row, Queue, state, eq_str(queue_state_name(e)));
        EQ_SET(row, Queue, pauses, e->pauses);
        EQ_SET(row, Queue, origin,
               eq_str(q->origin == QUEUE_FROM_CLIENT ? "runtime"
                      : q->overridden                ? "file+override"
                                                     : "file"));
        EQ_SET(row, Queue, uid, q->creator);
        EQ_SET(row, Queue, running, e->n_running);
        EQ_SET(row, Queue, queued, e->n_queued);
        EQ_SET(row, Queue, waiting, e->n_waiting);
        EQ_SET(row, Queue, finished, q->n_history);
        EQ_SET(row, Queue, bytes, e->n_bytes);
        EQ_SET(row, Queue, last_seq, e->last_seq);
        EQ_SET(row, Queue, accepted, e->n_accepted);
        EQ_SET(row, Queue, done, e->n_done);
        EQ_SET(row, Queue, failed, e->n_failed);
        EQ_SET(row, Queue, refused, e->n_refused);
        EQ_SET(row, Queue, mayday, e->n_mayday);
        EQ_SET(row, Queue, rescued, e->n_rescued);
        EQ_SET(row, Queue, rescue_failed, e->n_rescue_failed);
        PluginCpu plugin = queue_has_plugin(q) ? plugin_executor_cpu(q->queue) : (PluginCpu) { 0 };
        EQ_SET(row, Queue, cpu_usec, q->cpu_usec + plugin.cpu_usec);
        if (queue_has_plugin(q)) {
                EQ_SET(row, Queue, cpu_intensive, plugin.n_hogs);
                EQ_SET(row, Queue, cm_wakeups, plugin.n_woken);
        }
        EQ_SET(row, Queue, stalls, q->n_stalls);
        if (q->stalled_since_usec)
                EQ_SET(row, Queue, stalled_usec, clock_monotonic(m->clock) - q->stalled_since_usec);
        if (queue_has_workers(q))
                EQ_SET(row, Queue, workers, worker_executor_n_serving(e));
        if (worker_executor_n_reserved(e) > 0)
                EQ_SET(row, Queue, reserves, worker_executor_n_reserved(e));
        const TaskRecord *oldest = oldest_pending(q);
        uint64_t now = clock_realtime(m->clock);
        if (oldest)
                EQ_SET(row, Queue, oldest_usec,
                       now > oldest->spec.submitted_usec ? now - oldest->spec.submitted_usec : 0);
        view_queue_head(m, q, ret);

        SetWriter w = { .packer = eq_packer(&ret->set) };
        (void)queue_attributes_each(&q->attributes, add_attribute, &w); /* never ends early */
        EQ_SET(row, Queue, set, (EqArray) { .raw = eq_bytes(ret->set.data, ret->set.len), .n = w.n });
        return ret->set.failed ? -ENOMEM : 0;
}

void queue_view_done(QueueView *v) {
        eq_buffer_done(&v->set);
}

/* ---- parameters ---- */

void view_param(const Tunable *t, ParamView *ret) {
        static const char *const types[_PARAM_TYPE_MAX] = {
                [PARAM_UINT] = "number", [PARAM_SIZE] = "size",     [PARAM_USEC] = "duration", [PARAM_BOOL] = "bool",
                [PARAM_ENUM] = "word",   [PARAM_OCTAL] = "mode",    [PARAM_TEXT] = "text",     [PARAM_USER] = "user",
                [PARAM_GROUP] = "group", [PARAM_ACCESS] = "access", [PARAM_RATE] = "rate",
        };
        const Param *p = t->row;
        EqParam *row = &ret->row;
        *row = (EqParam) { 0 };
        snprintf(ret->name, sizeof(ret->name), "%s.%s", p->section, p->name);
        ret->name[0] = (char)tolower((unsigned char)ret->name[0]); /* sections are one word */
        param_print(p, t->object, ret->value);
        param_print_range(p, ret->range, sizeof(ret->range));
        EQ_SET(row, Param, name, eq_str(ret->name));
        EQ_SET(row, Param, value, eq_str(ret->value));
        EQ_SET(row, Param, fallback, eq_str(p->fallback));
        EQ_SET(row, Param, type, eq_str(types[p->type]));
        EQ_SET(row, Param, range, eq_str(ret->range));
        if (p->type != PARAM_ENUM && p->type != PARAM_TEXT && *p->unit)
                EQ_SET(row, Param, unit, eq_str(p->unit));
        EQ_SET(row, Param, settable, p->settable);
        EQ_SET(row, Param, changed, t->changed);
        EQ_SET(row, Param, doc, eq_str(p->doc));
}

/* ---- pools ---- */

static const char *const kind_names[] = {
        [POOL_COMMAND] = "command",
        [POOL_THREAD] = "thread",
        [POOL_REMOTE] = "remote",
};

static const StallReport *pool_stall(const Manager *m, const Pool *p) {
        for (size_t i = 0; i < m->stalls.n; i++) {
                const StallReport *r = &m->stalls.stalls[i];
                if (r->kind == STALL_POOL && strcmp(r->pool, p->name) == 0)
                        return r;
        }
        return NULL;
}

static int view_pool_attributes(const PoolRecord *p, PoolView *ret) {
        EqPool *row = &ret->row;
        SetWriter w = { .packer = eq_packer(&ret->set) };
        EQ_SET(row, Pool, origin, eq_str(pool_record_origin(p)));
        if (p->removing)
                EQ_SET(row, Pool, removing, true);
        (void)attributes_each(&attributes_of_pools, &p->attributes, add_attribute, &w); /* never ends early */
        EQ_SET(row, Pool, set, (EqArray) { .raw = eq_bytes(ret->set.data, ret->set.len), .n = w.n });
        return ret->set.failed ? -ENOMEM : 0;
}

/* Its slots are threads: what they have in hand and not begun takes none. */
static void view_threads(const Pool *p, EqPool *row) {
        PluginPoolStats stats = plugin_pool_stats(p);
        EQ_SET(row, Pool, slots, ((const PoolRecord *)p->owner)->attributes.max_workers);
        EQ_SET(row, Pool, made, stats.n_workers);
        EQ_SET(row, Pool, idle, stats.n_idle);
        EQ_SET(row, Pool, busy, p->n_busy - p->n_handed);
}

int view_pool(const Manager *m, const Pool *p, PoolView *ret) {
        uint64_t now = clock_monotonic(m->clock);
        eq_reason reason = pool_reason(p);
        if (reason == EQ_REASON_NONE && p->n_handed > 0)
                reason = p->short_of;
        const StallReport *stall = pool_stall(m, p);
        EqPool *row = &ret->row;
        EQ_SET(row, Pool, name, eq_str(p->name));
        EQ_SET(row, Pool, kind, eq_str(kind_names[p->kind]));
        if (p->kind == POOL_THREAD)
                view_threads(p, row);
        else {
                if (p->n_slots_max != SIZE_MAX) /* else workers are its bound */
                        EQ_SET(row, Pool, slots, p->n_slots_max);
                EQ_SET(row, Pool, made, p->n_slots);
                EQ_SET(row, Pool, busy, p->n_busy);
        }
        EQ_SET(row, Pool, queues, p->n_queues);
        EQ_SET(row, Pool, startable, p->n_runnable);
        EQ_SET(row, Pool, started, p->n_started);
        EQ_SET(row, Pool, create_failures, p->n_create_failures);
        EQ_SET(row, Pool, mayday, p->n_mayday);
        EQ_SET(row, Pool, rescued, p->n_rescued);
        EQ_SET(row, Pool, rescuing, p->n_rescuing);
        if (reason != EQ_REASON_NONE)
                EQ_SET(row, Pool, reason, eq_str(eq_reason_name(reason)));
        if (pool_is_blocked(p) && p->blocked_until_usec != USEC_NEVER)
                EQ_SET(row, Pool, blocked_usec, p->blocked_until_usec - now);
        if (stall)
                EQ_SET(row, Pool, stalled_usec, now - stall_since_usec(stall));
        return p->owner ? view_pool_attributes(p->owner, ret) : 0;
}

void pool_view_done(PoolView *v) {
        eq_buffer_done(&v->set);
}

/* ---- the daemon ---- */

static uint64_t rss_kib(void) {
        unsigned long size = 0, resident = 0;
        FILE *f = fopen("/proc/self/statm", "re");
        if (!f)
                return 0;
        if (fscanf(f, "%lu %lu", &size, &resident) != 2)
                resident = 0;
        fclose(f);
        return resident * (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
}

static uint64_t count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        if (!d)
                return 0;
        uint64_t n = 0;
        for (const struct dirent *e; (e = readdir(d));)
                n += e->d_name[0] != '.';
        closedir(d);
        return n - 1; /* its own */
}

static uint64_t n_slots(const Manager *m) {
        uint64_t n = 0;
        for (const PoolRecord *p = m->pools; p; p = p->hh.next)
                n += p->removing ? 0 : p->pool->n_slots_max;
        return n;
}

void view_stat(const Manager *m, size_t n_clients, EqStat *ret) {
        const SpawnReady *spawner = command_executor_spawner(m->commands);
        *ret = (EqStat) { 0 };
        EQ_SET(ret, Stat, version, eq_str(EQD_VERSION));
        EQ_SET(ret, Stat, pid, (uint64_t)getpid());
        EQ_SET(ret, Stat, uid, geteuid());
        EQ_SET(ret, Stat, started_usec, m->started_usec);
        if (spawner) {
                bool any = spawner->any_identity && m->config->daemon.identity != COMMAND_IDENTITY_OWN;
                EQ_SET(ret, Stat, spawner_pid, (uint64_t)spawner->pid);
                EQ_SET(ret, Stat, identities, eq_str(any ? "any" : manager_lost_others(m) ? "lost" : "own"));
                EQ_SET(ret, Stat, trees, eq_str(spawner->cgroups ? "cgroup" : "process-group"));
        } else if (m->no_commands)
                EQ_SET(ret, Stat, identities, eq_str("none"));
        EQ_SET(ret, Stat, queues, m->engine.n_queues);
        EQ_SET(ret, Stat, clients, n_clients);
        EQ_SET(ret, Stat, running, manager_n_running(m));
        EQ_SET(ret, Stat, pending, m->n_pending - manager_n_running(m));
        EQ_SET(ret, Stat, finished, m->n_finished);
        EQ_SET(ret, Stat, slots, n_slots(m));
        EQ_SET(ret, Stat, workers, m->workers->n_workers);
        EQ_SET(ret, Stat, rss_kib, rss_kib());
        EQ_SET(ret, Stat, fds, count_fds());
        EQ_SET(ret, Stat, stalls, m->stalls.n_begun);
        EQ_SET(ret, Stat, stalled, m->stalls.n);
        EQ_SET(ret, Stat, hung, m->stalls.n_hung);
        EQ_SET(ret, Stat, pressure, manager_is_pressed(m));
        EQ_SET(ret, Stat, pressures, m->pressure.n_episodes);
        EQ_SET(ret, Stat, pressure_events, m->pressure.n_events);
        EQ_SET(ret, Stat, log_dropped, log_dropped());
}
