/* SPDX-License-Identifier: MIT */
/* What becomes of a task after an attempt: done, again after a while, or over. Pure decisions and the record of them.
 *
 * Failures count against `retries`, crashes (death by a signal, or with the spawner) also against max_crashes; a task that
 * had no retries is FAILED or TIMEOUT, one that has used them up is DEAD. The wait doubles from backoff to backoff_max, and a
 * tenth of it is random, so that tasks that failed together do not come back together; a worker may say another. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "manager/durable.h"
#include "manager/parts.h"

#define PLUGIN_AGAIN_USEC (100 * USEC_PER_MSEC) /* a task that its plugin gave back */

static uint64_t next_random(Manager *m) {
        m->jitter =
                m->jitter * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX constants */
        return m->jitter >> 33;
}

/* Attempts that a retry was or would be for. */
static unsigned n_failures(const TaskRecord *t) {
        return t->task.attempt > t->lost ? t->task.attempt - (unsigned)t->lost : 0;
}

static uint64_t backoff_usec(Manager *m, const TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        uint64_t first = EQ_HAS(&s, Submit, backoff_usec) ? s.backoff_usec : t->queue->attributes.backoff_usec;
        uint64_t longest =
                EQ_HAS(&s, Submit, backoff_max_usec) ? s.backoff_max_usec : t->queue->attributes.backoff_max_usec;
        unsigned failures = n_failures(t), doublings = failures > 0 ? failures - 1 : 0;
        if (first == 0) /* no wait stays none */
                return 0;
        uint64_t wait = doublings < 40 && first <= (longest >> doublings) ? first << doublings : longest;
        wait = MIN(wait, longest);
        if (wait == USEC_NEVER)
                return wait;
        return wait - wait / 10 + (wait >= 10 ? next_random(m) % (wait / 5 + 1) : 0);
}

static TaskFate retry(Manager *m, uint64_t wait) {
        uint64_t now = clock_monotonic(m->clock);
        return (TaskFate) { .event = TASK_EV_RETRY, .due_usec = wait > USEC_NEVER - now ? USEC_NEVER : now + wait };
}

bool attempt_left(const TaskRecord *t) {
        return t->task.attempt < UINT16_MAX || !queue_has_workers(t->queue);
}

static void keep_reason(TaskRecord *t, const TaskResult *result) {
        if (result->reason != EQ_REASON_NONE)
                t->end_reason = (uint8_t)result->reason;
}

/* It was begun, and nobody knows how far it came. */
static bool is_lost(const TaskResult *r) {
        return r->verdict == TASK_LOST || (r->verdict == TASK_RETURNED && r->reason == EQ_REASON_LOST) ||
               (r->verdict == TASK_CRASHED && r->reason == EQ_REASON_SPAWN_FAILED);
}

static TaskFate fail_as_lost(TaskRecord *t) {
        t->end_reason = EQ_REASON_LOST;
        return (TaskFate) { .event = TASK_EV_FAIL };
}

/* Whoever had it is gone, or gives it back: to its place, without a retry, at once unless a worker says when. One that comes
 * back from the dead too often is what kills its workers. */
static TaskFate take_back(Manager *m, TaskRecord *t, const TaskResult *result) {
        t->lost += t->lost < UINT16_MAX;
        if (queue_has_plugin(t->queue)) /* it would come back at once, and be given back again */
                return retry(m, PLUGIN_AGAIN_USEC);
        t->crashes += result->verdict == TASK_LOST && t->crashes < UINT16_MAX;
        bool dead = result->verdict == TASK_LOST && t->crashes >= t->queue->attributes.max_crashes;
        if (result->verdict == TASK_RETURNED && result->says_when)
                return retry(m, result->retry_after_usec);
        return (TaskFate) { .event = dead ? TASK_EV_GIVE_UP : TASK_EV_RETURN };
}

static TaskFate decide(Manager *m, TaskRecord *t, const TaskResult *result) {
        run_keep_result(m, t, result);
        if (result->verdict == TASK_STOPPED ||
            result->verdict == TASK_NOT_STARTED) { /* asked only after its stop was */
                bool kept = m->keeping || (m->stopping && durable_queue(t->queue));
                if (kept && t->queue->attributes.at_most_once && result->verdict == TASK_STOPPED &&
                    t->end_note == TASK_NOTE_NONE) {
                        t->end_note = TASK_NOTE_SHUTDOWN;
                        return fail_as_lost(t);
                }
                if (kept && t->end_note == TASK_NOTE_NONE && !t->has_fd)
                        return (TaskFate) { .event = TASK_EV_RETURN }; /* the next eqd runs it again */
                if (m->stopping && t->end_note == TASK_NOTE_NONE) {
                        t->end_note = TASK_NOTE_SHUTDOWN;
                        t->end_reason = EQ_REASON_DRAINING;
                }
                return (TaskFate) { .event = TASK_EV_CANCEL };
        }
        if (t->queue->attributes.at_most_once && is_lost(result)) {
                t->crashes += t->crashes < UINT16_MAX;
                return fail_as_lost(t);
        }
        if (result->verdict == TASK_LOST || result->verdict == TASK_RETURNED)
                return take_back(m, t, result);
        if (result->verdict == TASK_CRASHED)
                t->crashes++;
        keep_reason(t, result);
        if (t->retries == 0 || result->final)
                return (TaskFate) { .event = result->verdict == TASK_TIMED_OUT ? TASK_EV_TIME_OUT : TASK_EV_FAIL };
        if (n_failures(t) > t->retries || t->crashes >= t->queue->attributes.max_crashes) {
                if (result->verdict == TASK_TIMED_OUT)
                        t->end_reason = EQ_REASON_TIMEOUT; /* which DEAD alone does not tell */
                return (TaskFate) { .event = TASK_EV_GIVE_UP };
        }
        t->end_reason = EQ_REASON_NONE;
        if (attempt_left(t))
                manager_event_task(m, EQ_EVENT_TASK_RETRY, t);
        return retry(m,
                     result->says_when && result->verdict == TASK_BAD ? result->retry_after_usec : backoff_usec(m, t));
}

/* Numbers of attempts are what others fence off late workers by: none is given twice. */
static TaskFate bounded(TaskRecord *t, TaskFate fate) {
        if ((fate.event != TASK_EV_RETRY && fate.event != TASK_EV_RETURN) || attempt_left(t))
                return fate;
        t->end_reason = EQ_REASON_NONE;
        return (TaskFate) { .event = TASK_EV_GIVE_UP };
}

TaskFate fate_decide(Manager *m, TaskRecord *t, const TaskResult *result) {
        TaskFate fate = bounded(t, decide(m, t, result));
        if (fate.event == TASK_EV_RETRY || fate.event == TASK_EV_RETURN) {
                followers_end(t, FOLLOWERS_OF_ATTEMPT);
                durable_put_stopped(t, &fate);
        }
        return fate;
}

int run_keep_bytes(TaskRun *run, EqBytes result) {
        char *copy = result.len > 0 ? fault_malloc(result.len) : NULL;
        if (result.len == 0)
                return 0;
        if (!copy)
                return -ENOMEM;
        memcpy(copy, result.data, result.len);
        free(run->result);
        run->result = copy;
        run->n_result = result.len;
        return 0;
}

/* Without memory only the text, or the result, is missing. */
static void keep_worker_result(TaskRun *run, const WorkerResult *w) {
        run->exit = w->exit;
        free(run->error);
        run->error = w->error[0] ? strdup(w->error) : NULL;
        (void)run_keep_bytes(run, w->result);
}

static void keep_plugin_result(TaskRun *run, const PluginResult *p) {
        free(run->error);
        run->error = p->error ? strdup(p->error) : NULL;
        (void)run_keep_bytes(run, p->result);
}

void task_run_deinit(TaskRun *run) {
        output_log_deinit(&run->log);
        free(run->error);
        free(run->result);
        free(run->note);
}

int run_begin(TaskRecord *t, uint64_t started_usec) {
        OutputLog log;
        output_log_init(&log);
        if (t->run) {
                log = t->run->log; /* it goes on in it */
                output_log_init(&t->run->log);
                task_run_deinit(t->run);
        } else if (!(t->run = fault_malloc(sizeof(*t->run))))
                return -ENOMEM;
        *t->run = (TaskRun) {
                .log = log, .started_usec = started_usec, .exit = -1, .progress = -1, .mark = STORE_MARK_NONE
        };
        output_log_begin(&t->run->log, t->task.attempt);
        return 0;
}

int run_prepare(TaskRecord *t) {
        uint64_t now = clock_realtime(t->queue->manager->clock);
        if (!t->run || !t->run->cleared)
                return run_begin(t, now);
        t->run->started_usec = now;
        return 0;
}

void run_keep_result(Manager *m, TaskRecord *t, const TaskResult *result) {
        TaskRun *run = t->run;
        if (!run)
                return; /* it never got as far as prepare */
        run->pid = 0;
        if (!result->details)
                return;
        if (queue_has_workers(t->queue)) {
                keep_worker_result(run, result->details);
                return;
        }
        if (queue_has_plugin(t->queue)) {
                keep_plugin_result(run, result->details);
                return;
        }
        const CommandResult *c = result->details;
        run->exit = c->exit;
        run->signal = c->signal;
        run->utime_usec = c->utime_usec;
        run->stime_usec = c->stime_usec;
        t->queue->cpu_usec += c->utime_usec + c->stime_usec;
        run->maxrss_kib = c->maxrss_kib;
        free(run->error);
        run->error = c->error[0] ? strdup(c->error) : NULL; /* without memory: only the text is missing */
}
