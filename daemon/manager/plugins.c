/* SPDX-License-Identifier: MIT */
/* Queues whose tasks a plugin runs: what it is told of a task, what it submits, and what is said about it. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/event.h"
#include "manager/durable.h"
#include "manager/parts.h"
#include "manager/removal.h"

static int on_prepare(void *host, Task *task, PluginOrder *ret) {
        const TaskRecord *t = task_record(task);
        EqSubmit s = { 0 };
        if (t->spec.options_len > 0 || t->spec.common)
                task_spec_decode(&t->spec, &s);
        *ret = (PluginOrder) {
                .payload = task_spec_payload(&t->spec),
                .label = s.label,
                .uid = t->spec.identity->uid,
                .retries = t->retries > 0,
        };
        ret->mark_slot = durable_mark_ready(t, &ret->mark, &ret->mark_value);
        return 0;
}

static void on_unprepare(void *host, Task *task, int mark_slot) {
        durable_unmark(host, mark_slot);
}

/* Said once a second at most, however many are refused. */
static void log_refused(Manager *m, const TaskRecord *t, EqBytes queue, const char *why) {
        uint64_t now = clock_monotonic(m->clock);
        m->n_submits_refused++;
        if (m->submit_refused_usec != 0 && now - m->submit_refused_usec < USEC_PER_SEC)
                return;
        m->submit_refused_usec = now;
        const char *from = t->queue->queue->name;
        log_event(SUBMIT_REFUSED, (.queue = from, .error = why), from, (int)queue.len, queue.data, why,
                  m->n_submits_refused);
}

/* With the rights, and on the account, of the user whose task it is. */
static void on_submit(void *host, const Task *by, EqBytes queue, EqBytes payload, int error) {
        Manager *m = host;
        TaskRecord *t = task_record(by), *last;
        if (error < 0) {
                log_refused(m, t, queue, strerror(-error));
                return;
        }
        Caller caller = {
                .identity = t->spec.identity,
                .user = t->user,
                .admin = manager_is_admin(m, t->spec.identity),
                .by = by,
        };
        EqSubmit s = { 0 };
        Refusal refusal;
        eq_task_id first;
        EQ_SET(&s, Submit, queue, queue);
        EQ_SET(&s, Submit, payload, payload);
        SubmitArgs args = { .submit = &s, .payload = s.payload, .stdin_fd = -1 };
        int r = manager_submit(m, &caller, queue, &args, 1, &last, &first, &refusal);
        if (r != 0)
                log_refused(m, t, queue, r == MANAGER_E_WAIT ? "it is full" : refusal.text);
}

static void on_opened(void *host, Queue *q, const char *error) {
        const QueueRecord *record = queue_record(q);
        if (error)
                log_event(PLUGIN_REFUSED, (.queue = q->name, .error = error), q->name, record->library->path, error);
        else
                log_info("queue %s: plugin %s (%s) is open", q->name, record->library->path,
                         record->library->entry->name);
}

static void on_ended(void *host, Queue *q) {
        removal_settle(host, queue_record(q)); /* its removal waits for this */
}

static void on_left(void *host, Pool *p) {
        pool_record_settle(host, p); /* likewise */
}

const PluginHooks manager_plugin_hooks = {
        .prepare = on_prepare,
        .unprepare = on_unprepare,
        .submit = on_submit,
        .opened = on_opened,
        .ended = on_ended,
        .left = on_left,
};

PluginSetup plugins_setup(const QueueRecord *q, const QueueAttributes *a) {
        return (PluginSetup) {
                .library = q->library,
                .text = a->plugin_config ? a->plugin_config : "",
                .calls = { .batch_max = (unsigned)a->batch_max,
                           .batch_linger_usec = a->batch_linger_usec,
                           .dedicated = a->dedicated && a->engine.max_active == 1 },
        };
}

void plugins_began(Manager *m, TaskRecord *t) {
        uint64_t begun, seen, started = clock_realtime(m->clock);
        if (plugin_executor_times(&t->task, &begun, &seen)) {
                uint64_t now = clock_monotonic(m->clock);
                started -= now > begun && now - begun < started ? now - begun : 0;
        }
        if (t->run && t->run->cleared) { /* with the mark that it has */
                t->run->started_usec = started;
                return;
        }
        int mark = plugin_executor_mark_slot(&t->task);
        if (run_begin(t, started) >= 0) {
                t->run->mark = mark;
                return;
        }
        plugin_executor_await_begin(m->plugins, &t->task);
        durable_unmark(m, mark); /* it runs, and less is known of it */
}

void plugins_changed(Manager *m, QueueRecord *q) {
        if (!queue_has_plugin(q))
                return;
        PluginSetup setup = plugins_setup(q, &q->attributes);
        if (plugin_executor_change_queue(m->plugins, q->queue, &setup) < 0)
                log_event(PLUGIN_UNCHANGED, (.queue = q->queue->name), q->queue->name);
}
