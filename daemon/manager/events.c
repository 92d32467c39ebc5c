/* SPDX-License-Identifier: MIT */
/* What happened, as rows for subscribers. Nothing is built while nobody listens.
 *
 * Of a durable queue is told what is on the disk. Tasks are told of by those who wait for that anyway; of changes of the queue itself the
 * event is kept until then, without memory in what was made with its queue. Only that event: subscribers are told of stalls meanwhile, and of the disk's. */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/event.h"
#include "base/fault.h"
#include "manager/parts.h"
#include "manager/shelf.h"
#include "manager/view.h"

static int refuse_for(Refusal *r, eq_error code, int error, const char *field, const char *fmt, va_list ap) {
        int n = field ? snprintf(r->text, sizeof(r->text), "%s: ", field) : 0;
        r->code = code;
        r->details.present = 0;
        r->n_names = 0;
        vsnprintf(r->text + n, sizeof(r->text) - (size_t)n, fmt, ap);
        return field ? refusal_of_field(r, field, error) : error;
}

int refuse(Refusal *r, eq_error code, int error, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        error = refuse_for(r, code, error, NULL, fmt, ap);
        va_end(ap);
        return error;
}

int refuse_field(Refusal *r, eq_error code, int error, const char *field, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        error = refuse_for(r, code, error, field, fmt, ap);
        va_end(ap);
        return error;
}

EqBytes refusal_keep(Refusal *r, EqBytes name) {
        size_t n = MIN(name.len, sizeof(r->names) - r->n_names);
        char *copy = r->names + r->n_names;
        memcpy(copy, name.data, n);
        r->n_names += n;
        return eq_bytes(copy, n);
}

void manager_event_task(Manager *m, eq_event event, const TaskRecord *t) {
        if (!m->want_events)
                return;
        TaskView v;
        view_task(m, t, &v);
        EqEvent e = { 0 };
        EQ_SET(&e, Event, event, eq_str(eq_event_name(event)));
        EQ_SET(&e, Event, time_usec, clock_realtime(m->clock));
        EQ_SET(&e, Event, queue, v.row.queue);
        EQ_SET(&e, Event, id, v.row.id);
        EQ_SET(&e, Event, state, event == EQ_EVENT_TASK_RETRY ? eq_str(eq_state_name(EQ_STATE_WAITING)) : v.row.state);
        EQ_SET(&e, Event, uid, v.row.uid);
        EQ_SET(&e, Event, attempt, v.row.attempt);
        if (EQ_HAS(&v.row, Task, reason)) {
                EQ_SET(&e, Event, reason, v.row.reason);
                EQ_SET(&e, Event, detail, v.row.detail);
        }
        if (EQ_HAS(&v.row, Task, label))
                EQ_SET(&e, Event, label, v.row.label);
        if (EQ_HAS(&v.row, Task, exit))
                EQ_SET(&e, Event, exit, v.row.exit);
        if (EQ_HAS(&v.row, Task, signal))
                EQ_SET(&e, Event, signal, v.row.signal);
        m->hooks->event(m->host, &e, true, t->spec.identity->uid);
}

static bool has_failed(eq_state s) {
        return s == EQ_STATE_FAILED || s == EQ_STATE_TIMEOUT || s == EQ_STATE_DEAD || s == EQ_STATE_EXPIRED;
}

/* While the store is read no queue has got what its file says. */
static uint64_t ends_to_log(const Manager *m, const QueueRecord *q) {
        const ConfigQueue *file = m->restoring && !q->overridden ? config_queue(m->config, q->queue->name) : NULL;
        return file ? file->attributes.log_ends : q->attributes.log_ends;
}

void manager_log_end(const Manager *m, const TaskRecord *t) {
        uint64_t wanted = ends_to_log(m, t->queue);
        eq_state state = task_record_state(t);
        bool failed = has_failed(state);
        char id[64], label[EQ_LABEL_MAX + 4] = "";
        TaskView v;

        if (wanted == LOG_ENDS_NONE || (wanted == LOG_ENDS_FAILURES && !failed))
                return;
        view_task(m, t, &v);
        (void)snprintf(id, sizeof(id), "%s/%" PRIu64, t->queue->queue->name, t->task.seq);
        if (v.row.label.len > 0)
                (void)snprintf(label, sizeof(label), " (%.*s)", (int)v.row.label.len, v.row.label.data);
        EventFields fields = {
                .queue = t->queue->queue->name,
                .task = id,
                .state = eq_state_name(state),
                .attempt = t->task.attempt,
                .task_usec =
                        t->run && t->finished_usec > t->run->started_usec ? t->finished_usec - t->run->started_usec : 0,
                .error = v.detail[0] ? v.detail : NULL,
        };
        event_write(failed ? EVENT_TASK_FAILED : EVENT_TASK_ENDED, failed ? LOG_WARNING : LOG_INFO, &fields,
                    "task %s%s of uid %u is %s%s%s", id, label, (unsigned)t->spec.identity->uid, fields.state,
                    v.detail[0] ? ": " : "", v.detail);
}

/* A hung task is its owner's business; that something is stalled concerns all who wait. */
void manager_event_stall(Manager *m, eq_event event, const StallReport *r) {
        char detail[160];
        if (!m->want_events)
                return;
        EqEvent e = { 0 };
        EQ_SET(&e, Event, event, eq_str(eq_event_name(event)));
        EQ_SET(&e, Event, time_usec, clock_realtime(m->clock));
        EQ_SET(&e, Event, stall_usec, r->stuck_usec);
        if (*r->queue)
                EQ_SET(&e, Event, queue, eq_str(r->queue));
        if (*r->pool)
                EQ_SET(&e, Event, pool, eq_str(r->pool));
        if (*r->part)
                EQ_SET(&e, Event, part, eq_str(r->part));
        if (r->reason != EQ_REASON_NONE)
                EQ_SET(&e, Event, reason, eq_str(eq_reason_name(r->reason)));
        const Queue *q = r->queue_id ? engine_queue(&m->engine, r->queue_id) : NULL;
        const TaskRecord *t = q && r->seq > 0 ? shelf_find(queue_record(q), r->seq) : NULL;
        if (r->kind == STALL_HUNG) {
                if (!t)
                        return; /* it has ended meanwhile */
                snprintf(detail, sizeof(detail), "it has run for %llus",
                         (unsigned long long)(r->task_usec / USEC_PER_SEC));
        } else
                stall_describe(r, detail, sizeof(detail));
        if (t && r->kind != STALL_POOL)
                EQ_SET(&e, Event, id, (EqIdRef) { .id = task_record_id(t) });
        EQ_SET(&e, Event, detail, eq_str(detail));
        m->hooks->event(m->host, &e, r->kind == STALL_HUNG, t ? t->spec.identity->uid : 0);
}

/* What there is to say of a queue. state and detail last for ever. */
typedef struct QueueNews {
        eq_event event;
        char queue[EQ_NAME_MAX + 1];
        const char *state, *detail; /* detail NULL: none */
} QueueNews;

struct LateEvent {
        List link; /* LateEvents::events, while it waits */
        uint64_t position;
        QueueNews news;
        bool is_spare; /* QueueRecord::spare_event, and stays when it was told */
};

static void tell_queue(Manager *m, const QueueNews *n) {
        EqEvent e = { 0 };
        EQ_SET(&e, Event, event, eq_str(eq_event_name(n->event)));
        EQ_SET(&e, Event, time_usec, clock_realtime(m->clock));
        EQ_SET(&e, Event, queue, eq_str(n->queue));
        EQ_SET(&e, Event, state, eq_str(n->state));
        if (n->detail)
                EQ_SET(&e, Event, detail, eq_str(n->detail));
        m->hooks->event(m->host, &e, false, 0);
}

static LateEvent *first_late(const Manager *m) {
        List *l = list_first(&m->late.events);
        return l ? LIST_ENTRY(l, LateEvent, link) : NULL;
}

static void late_done(LateEvent *l) {
        list_remove(&l->link);
        if (!l->is_spare)
                free(l);
}

int events_reserve(QueueRecord *q) {
        LateEvent *l = fault_calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        list_init(&l->link);
        l->is_spare = true;
        q->spare_event = l;
        return 0;
}

void events_unreserve(QueueRecord *q) {
        if (!q->spare_event)
                return;
        list_remove(&q->spare_event->link);
        free(q->spare_event);
        q->spare_event = NULL;
}

/* What cannot be kept is not told before it is true: it takes the place of an earlier one of its queue, whose creation stays that. */
static void keep_in_spare(LateEvent *l, QueueNews *news) {
        if (!list_is_empty(&l->link) && l->news.event == EQ_EVENT_QUEUE_CREATED &&
            news->event == EQ_EVENT_QUEUE_CHANGED) {
                news->event = EQ_EVENT_QUEUE_CREATED;
                news->detail = NULL;
        }
        list_remove(&l->link);
}

static void keep_late(Manager *m, QueueRecord *q, QueueNews news) {
        bool is_last = news.event == EQ_EVENT_QUEUE_REMOVED; /* it needs no memory, and outlives its queue */
        LateEvent *l = is_last ? NULL : fault_malloc(sizeof(*l));
        bool is_spare = !l && !is_last;
        if (!l) {
                l = q->spare_event;
                keep_in_spare(l, &news);
                q->spare_event = is_last ? NULL : l;
        }
        *l = (LateEvent) { .position = q->stored_at, .news = news, .is_spare = is_spare };
        list_append(&m->late.events, &l->link);
}

void manager_event_queue(Manager *m, eq_event event, QueueRecord *q, const char *detail) {
        if (!m->want_events)
                return;
        QueueNews news = { .event = event, .state = queue_state_name(q->queue), .detail = detail };
        strcpy(news.queue, q->queue->name);
        if (q->stored_at > m->late.durable)
                keep_late(m, q, news);
        else
                tell_queue(m, &news);
}

void events_advance(Manager *m, uint64_t position) {
        m->late.durable = position;
        for (LateEvent *l; (l = first_late(m)) && l->position <= position;) {
                tell_queue(m, &l->news);
                late_done(l);
        }
}

void events_drop(Manager *m) {
        for (LateEvent *l; (l = first_late(m));)
                late_done(l);
}

void manager_event_daemon(Manager *m, eq_event event, const char *detail) {
        if (!m->want_events)
                return;
        EqEvent e = { 0 };
        EQ_SET(&e, Event, event, eq_str(eq_event_name(event)));
        EQ_SET(&e, Event, time_usec, clock_realtime(m->clock));
        if (detail)
                EQ_SET(&e, Event, detail, eq_str(detail));
        m->hooks->event(m->host, &e, false, 0);
}
