/* SPDX-License-Identifier: MIT */
#include "manager/durable.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "manager/parts.h"

typedef struct Durable {
        Manager *manager;
        Store *store;
        uv_poll_t poll;
        uv_prepare_t turn; /* hands over what a turn of the loop has appended */
        unsigned n_handles;
        List arriving;    /* of TaskRecord::recent_link: appended, to be pushed; in order */
        List leaving;     /* likewise: ended, to be settled */
        EqBuffer scratch; /* bodies of what is being appended */
        StoreHealth health;
} Durable;

bool durable_queue(const QueueRecord *q) {
        return q->manager->durable && q->attributes.durable;
}

/* ---- append ---- */

static void failed(Durable *d);

static void tell_health(Durable *d, StoreHealth health) {
        if (health == d->health || d->health == STORE_FAILED)
                return;
        d->health = health;
        const char *why = strerror(-store_error(d->store));
        if (health == STORE_FAILED)
                failed(d);
        else if (health == STORE_FULL)
                log_error("the store has no space (%s): tasks of durable queues are refused until there is some", why);
        else
                log_notice("the store has space again");
}

/* What must not be lost was not written: memory was out, or the store has failed. Then it has failed. */
static void append(Durable *d, const StoreItem *items, size_t n) {
        int r = store_append(d->store, items, n);
        if (r == -ENOMEM || r == -EMSGSIZE) {
                store_fail(d->store, r);
                tell_health(d, STORE_FAILED);
        }
        d->manager->written = *store_written(d->store);
}

static StoreBytes scratch(const Durable *d, size_t from) {
        return (StoreBytes) { d->scratch.data + from, (uint32_t)(d->scratch.len - from) };
}

static StoreItem item(StoreKind kind, const QueueRecord *q, uint64_t seq, StoreBytes body) {
        return (StoreItem) { .kind = kind, .queue = q->queue->id, .seq = seq, .body = body };
}

int durable_check(const Manager *m, const QueueRecord *q, Refusal *r) {
        const Durable *d = m->durable;
        if (!d || !durable_queue(q))
                return 0;
        switch (store_health(d->store)) {
        case STORE_FULL:
                return refuse(r, EQ_E_STORE, -ENOSPC,
                              "the store has no space for tasks of queue %s, which is durable; try again when there is",
                              q->queue->name);
        case STORE_FAILED:
                return refuse(
                        r, EQ_E_STORE, -EIO,
                        "the store has failed (%s), so nothing of queue %s, which is durable, can be promised; see "
                        "the journal, mend the disk, and restart eqd",
                        strerror(-store_error(d->store)), q->queue->name);
        default:
                return 0;
        }
}

/* Length of the name, name. */
static void put_name(Durable *d, const QueueRecord *q) {
        uint8_t len = (uint8_t)strlen(q->queue->name);
        d->scratch.len = 0;
        (void)eq_buffer_append(&d->scratch, &len, 1); /* `failed` is looked at, here and below */
        (void)eq_buffer_append(&d->scratch, q->queue->name, len);
}

static void put_scratch(Durable *d, StoreItem i) {
        if (d->scratch.failed) {
                store_fail(d->store, -ENOMEM);
                tell_health(d, STORE_FAILED);
        } else {
                i.body = scratch(d, 0);
                append(d, &i, 1);
        }
        d->scratch.failed = false;
}

void durable_put_queue(QueueRecord *q) {
        Durable *d = q->manager->durable;
        if (!durable_queue(q) || q->removing)
                return;
        put_name(d, q);
        restore_pack_queue(q, &d->scratch);
        put_scratch(d, item(STORE_QUEUE, q, q->queue->last_seq, (StoreBytes) { 0 }));
}

void durable_put_gone(QueueRecord *q) {
        Durable *d = q->manager->durable;
        if (!durable_queue(q))
                return;
        put_name(d, q);
        put_scratch(d, item(STORE_GONE, q, q->queue->last_seq, (StoreBytes) { 0 }));
}

static int pack_tasks(Durable *d, TaskRecord **tasks, size_t n, StoreItem *items) {
        d->scratch.len = 0;
        for (size_t i = 0; i < n; i++) {
                size_t from = d->scratch.len;
                restore_pack_task(d->manager, tasks[i], &d->scratch);
                items[i] = item(STORE_TASK, tasks[i]->queue, tasks[i]->task.seq, scratch(d, from));
                items[i].lane = tasks[i]->task.lane;
        }
        size_t at = 0; /* the buffer may have moved while it grew */
        for (size_t i = 0; i < n; at += items[i++].body.len)
                items[i].body.data = d->scratch.data + at;
        bool no_memory = d->scratch.failed;
        d->scratch.failed = false;
        return no_memory ? -ENOMEM : 0;
}

int durable_accept(QueueRecord *q, TaskRecord **tasks, size_t n, bool *ret_now, Refusal *r) {
        Durable *d = q->manager->durable;
        *ret_now = !durable_queue(q);
        if (*ret_now)
                return 0;
        StoreItem one, *items = n > 1 ? fault_calloc(n, sizeof(*items)) : &one;
        int e = items ? pack_tasks(d, tasks, n, items) : -ENOMEM;
        if (e >= 0)
                e = store_append(d->store, items, n);
        if (items != &one)
                free(items);
        if (e == -ENOMEM)
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        if (e == -EMSGSIZE)
                return refuse(r, EQ_E_TOO_LARGE, e, "too large for the store: a quarter of segment_size at once");
        if (e < 0) {
                int refused = durable_check(q->manager, q, r);
                return refused < 0 ? refused : refuse(r, EQ_E_STORE, e, "the store cannot take it: %s", strerror(-e));
        }
        d->manager->written = *store_written(d->store);
        for (size_t i = 0; i < n; i++) {
                tasks[i]->stored_at = d->manager->written;
                list_append(&d->arriving, &tasks[i]->recent_link);
        }
        return 0;
}

void durable_put_state(TaskRecord *t, const TaskFate *fate) {
        Durable *d = t->queue->manager->durable;
        if (!durable_queue(t->queue))
                return;
        d->scratch.len = 0;
        restore_pack_state(d->manager, t, fate, &d->scratch);
        put_scratch(d, item(STORE_STATE, t->queue, t->task.seq, (StoreBytes) { 0 }));
}

static void write_end(Durable *d, const TaskRecord *t) {
        d->scratch.len = 0;
        restore_pack_end(t, &d->scratch);
        put_scratch(d, item(STORE_END, t->queue, t->task.seq, (StoreBytes) { 0 }));
}

bool durable_put_end(TaskRecord *t) {
        Durable *d = t->queue->manager->durable;
        if (!durable_queue(t->queue))
                return false;
        write_end(d, t);
        t->stored_at = d->manager->written;
        t->unsettled = true;
        t->queue->n_unsettled++;
        list_append(&d->leaving, &t->recent_link);
        return true;
}

void durable_forget(TaskRecord *t) {
        Durable *d = t->queue->manager->durable;
        StoreItem i = item(STORE_FORGET, t->queue, t->task.seq, (StoreBytes) { 0 });
        if (durable_queue(t->queue))
                append(d, &i, 1);
}

/* ---- running ---- */

void durable_started(TaskRecord *t) {
        if (durable_queue(t->queue) && t->run)
                t->run->mark = store_mark(t->queue->manager->durable->store, t->queue->queue->id, t->task.seq,
                                          t->task.attempt);
}

void durable_stopped(TaskRecord *t) {
        if (!t->run || t->run->mark == STORE_MARK_NONE)
                return;
        store_unmark(t->queue->manager->durable->store, t->run->mark);
        t->run->mark = STORE_MARK_NONE;
}

/* ---- durable now ---- */

static TaskRecord *first_until(List *list, uint64_t position) {
        List *l = list_first(list);
        TaskRecord *t = l ? LIST_ENTRY(l, TaskRecord, recent_link) : NULL;
        return t && t->stored_at <= position ? t : NULL;
}

static void settle_left(TaskRecord *t) {
        list_remove(&t->recent_link);
        t->unsettled = false;
        t->queue->n_unsettled--;
        durable_stopped(t);
        record_settle(t->queue->manager, t);
}

/* Pools stand still meanwhile: of what becomes durable together the first in order is the first to start. */
static void advance(Durable *d, uint64_t position) {
        Manager *m = d->manager;
        engine_hold(&m->engine);
        for (TaskRecord *t; (t = first_until(&d->arriving, position));) {
                list_remove(&t->recent_link);
                record_push(m, t);
        }
        for (TaskRecord *t; (t = first_until(&d->leaving, position));)
                settle_left(t);
        engine_unhold(&m->engine);
}

static void drop_arriving(Durable *d) {
        for (List *l; (l = list_first(&d->arriving));) {
                list_remove(l);
                record_drop(d->manager, LIST_ENTRY(l, TaskRecord, recent_link));
        }
}

/* What has ended since and cannot be written stays as it is shown, running: nobody is told an end that a restart undoes. */
static void failed(Durable *d) {
        Manager *m = d->manager;
        log_write(
                LOG_ALERT,
                "the store has failed (%s): durable queues stand still, and what was not on disk is not answered. Mend "
                "the disk and restart eqd",
                strerror(-store_error(d->store)));
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                if (q->attributes.durable)
                        queue_pause(q->queue); /* not written down: it ends with this eqd */
        drop_arriving(d);
        if (m->hooks->not_durable)
                m->hooks->not_durable(m->host);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
        Durable *d = handle->data;
        uint64_t position;
        StoreHealth health = store_dispatch(d->store, &position);
        advance(d, position);
        if (d->manager->hooks->durable)
                d->manager->hooks->durable(d->manager->host, position);
        tell_health(d, health);
        store_flush(d->store);
}

static void on_turn(uv_prepare_t *handle) {
        store_flush(((Durable *)handle->data)->store);
}

/* ---- opening ---- */

/* A task that ran when its eqd died. */
typedef struct RunningMark {
        uint64_t queue, seq;
        uint32_t attempt;
} RunningMark;

typedef struct EndedTask {
        QueueRecord *queue;
        uint64_t seq;
        TaskLane lane;
        StoredTask task;
        StoredEnd end;
} EndedTask;

typedef struct Opening {
        Restore *restore;
        QueueRecord *queue; /* whose tasks come; NULL: they are left out */
        RunningMark *marks;
        size_t n_marks, cap_marks;
        bool sorted;
        EndedTask *ended; /* of `queue` */
        size_t n_ended, cap_ended;
        TaskRecord **changed; /* to be written down when the store is open */
        size_t n_changed, cap_changed;
} Opening;

/* The array with room for one more element after n; NULL: no memory, and it is as it was. */
static void *grown(void *array, size_t *cap, size_t n, size_t size) {
        if (n < *cap)
                return array;
        size_t more = MAX(*cap * 2, (size_t)64);
        void *p = fault_realloc(array, more * size);
        if (p)
                *cap = more;
        return p;
}

static EqBytes eq(StoreBytes b) {
        return eq_bytes(b.data, b.len);
}

/* What cannot be one that eqd has kept is left out, and said. */
static int left_out(Opening *o, const char *what, uint64_t number, int r) {
        if (r >= 0 || r == -ENOMEM)
                return r;
        o->restore->n_skipped++;
        log_error("store: %s %llu is left out: %s", what, (unsigned long long)number, strerror(-r));
        return 0;
}

static int compare_ends(const void *a, const void *b) {
        const EndedTask *x = a, *y = b;
        if (x->end.finished_usec != y->end.finished_usec)
                return x->end.finished_usec < y->end.finished_usec ? -1 : 1;
        return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Histories are in the order of the ends. */
static int restore_ended(Opening *o) {
        int r = 0;
        if (o->n_ended > 0)
                qsort(o->ended, o->n_ended, sizeof(*o->ended), compare_ends);
        for (size_t i = 0; i < o->n_ended && r >= 0; i++) {
                EndedTask *e = &o->ended[i];
                r = left_out(o, "ended task", e->seq,
                             restore_end(o->restore, e->queue, e->seq, e->lane, &e->task, &e->end));
        }
        o->n_ended = 0;
        return r;
}

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        Opening *o = userdata;
        StoredQueue stored;
        int r = restore_ended(o);
        o->queue = NULL;
        if (r >= 0)
                r = stored_queue_unpack(eq(definition), &stored);
        if (r >= 0)
                r = restore_queue(o->restore, eq(name), id, last_seq, &stored, &o->queue);
        if (r >= 0)
                o->queue->attributes.durable = true; /* whatever defaults say now: it is here */
        return left_out(o, "queue", id, r);
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        Opening *o = userdata;
        int r = restore_ended(o);
        o->queue = NULL;
        return r < 0 ? r : left_out(o, "removed queue", id, restore_tombstone(o->restore, eq(name), id, last_seq));
}

static int compare_marks(const void *a, const void *b) {
        const RunningMark *x = a, *y = b;
        if (x->queue != y->queue)
                return x->queue < y->queue ? -1 : 1;
        return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static const RunningMark *mark_of(Opening *o, uint64_t queue, uint64_t seq) {
        RunningMark key = { .queue = queue, .seq = seq };
        if (o->n_marks == 0)
                return NULL;
        if (!o->sorted) /* all marks are told before the first task */
                qsort(o->marks, o->n_marks, sizeof(*o->marks), compare_marks);
        o->sorted = true;
        return bsearch(&key, o->marks, o->n_marks, sizeof(*o->marks), compare_marks);
}

/* It ran when eqd died, which counts as a crash: what kills eqd must not do so for ever. */
static void count_crash(const QueueRecord *q, const RunningMark *mark, StoredState *state, StoredEnd *end) {
        state->attempt = MAX(state->attempt, (uint16_t)MIN(mark->attempt, (uint32_t)UINT16_MAX));
        state->crashes += state->crashes < UINT16_MAX;
        if (state->crashes < q->attributes.max_crashes)
                return;
        *end = (StoredEnd) {
                .state = EQ_STATE_DEAD,
                .reason = EQ_REASON_LOST,
                .attempt = state->attempt,
                .crashes = state->crashes,
                .lost = state->lost,
                .finished_usec = clock_realtime(q->manager->clock),
                .exit = -1,
        };
}

static int note_changed(Opening *o, uint64_t seq) {
        TaskRecord **p = grown(o->changed, &o->cap_changed, o->n_changed, sizeof(*p));
        if (!p)
                return -ENOMEM;
        o->changed = p;
        o->changed[o->n_changed++] = seq_index_get(&o->queue->tasks, seq);
        return 0;
}

static int restore_pending(Opening *o, uint64_t seq, TaskLane lane, const StoredTask *task, StoredState *state) {
        const RunningMark *mark = mark_of(o, o->queue->queue->id, seq);
        StoredState fresh = { .wait = task->held ? TASK_WAIT_HELD : 0 };
        StoredEnd end = { 0 };
        if (!mark)
                return restore_task(o->restore, o->queue, seq, lane, task, state);
        if (!state)
                state = &fresh;
        state->wait &= TASK_WAIT_HELD; /* it had started, so its times were over */
        count_crash(o->queue, mark, state, &end);
        int r = end.state ? restore_end(o->restore, o->queue, seq, lane, task, &end)
                          : restore_task(o->restore, o->queue, seq, lane, task, state);
        return r < 0 ? r : note_changed(o, seq);
}

static int note_ended(Opening *o, uint64_t seq, TaskLane lane, const StoredTask *task, EqBytes raw) {
        EndedTask *p = grown(o->ended, &o->cap_ended, o->n_ended, sizeof(*p));
        if (!p)
                return -ENOMEM;
        o->ended = p;
        EndedTask *e = &o->ended[o->n_ended];
        *e = (EndedTask) { .queue = o->queue, .seq = seq, .lane = lane, .task = *task };
        int r = stored_end_unpack(raw, &e->end);
        o->n_ended += r >= 0;
        return r;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes raw, StoreKind last,
                   StoreBytes last_raw) {
        Opening *o = userdata;
        StoredTask task;
        StoredState state;
        if (!o->queue)
                return 0;
        int r = lane < _TASK_LANE_MAX ? stored_task_unpack(eq(raw), &task) : -EBADMSG;
        if (r >= 0 && last == STORE_END)
                return left_out(o, "ended task", seq, note_ended(o, seq, lane, &task, eq(last_raw)));
        if (r >= 0 && last == STORE_STATE)
                r = stored_state_unpack(eq(last_raw), &state);
        if (r >= 0)
                r = restore_pending(o, seq, lane, &task, last == STORE_STATE ? &state : NULL);
        return left_out(o, "task", seq, r);
}

static int on_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        Opening *o = userdata;
        RunningMark *p = grown(o->marks, &o->cap_marks, o->n_marks, sizeof(*p));
        if (!p)
                return -ENOMEM;
        o->marks = p;
        o->marks[o->n_marks++] = (RunningMark) { queue, seq, attempt };
        return 0;
}

static int on_done(void *userdata) {
        return restore_ended(userdata);
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        ((Opening *)userdata)->restore->n_skipped++;
        log_write(LOG_CRIT, "store: %llu bytes at %llu of %s are damaged and left out; they were copied to %s",
                  (unsigned long long)n, (unsigned long long)at, file, kept);
}

static void on_progress(void *userdata, uint64_t done, uint64_t all) {
        Manager *m = ((Opening *)userdata)->restore->manager;
        if (m->hooks->restoring)
                m->hooks->restoring(m->host, all > 0 ? (unsigned)(done * 100 / all) : 100);
}

static const StoreReader store_reader = {
        .running = on_running,
        .queue = on_queue,
        .gone = on_gone,
        .task = on_task,
        .done = on_done,
        .damaged = on_damaged,
        .progress = on_progress,
};

static int open_store(Durable *d, const char *dir, Opening *o) {
        Manager *m = d->manager;
        char error[256];
        StoreConfig config = { .dir = dir, .segment_size = (uint32_t)m->config->daemon.segment_size };
        int r = store_open(&config, &store_reader, o, error, sizeof(error), &d->store);
        if (r < 0)
                log_error("%s: %s", dir, error);
        return r;
}

static int watch(Durable *d) {
        uv_loop_t *loop = d->manager->loop;
        int r = uv_poll_init(loop, &d->poll, store_fd(d->store));
        if (r < 0)
                return r;
        d->n_handles++;
        d->poll.data = d->turn.data = d;
        (void)uv_prepare_init(loop, &d->turn); /* cannot fail, as the next two */
        d->n_handles++;
        (void)uv_poll_start(&d->poll, UV_READABLE, on_poll);
        (void)uv_prepare_start(&d->turn, on_turn);
        uv_unref((uv_handle_t *)&d->poll); /* the store alone is no reason to go on */
        uv_unref((uv_handle_t *)&d->turn);
        return 0;
}

static void write_changed(const Opening *o) {
        for (size_t i = 0; i < o->n_changed; i++) {
                TaskRecord *t = o->changed[i];
                if (task_record_finished(t))
                        write_end(t->queue->manager->durable, t);
                else
                        durable_put_state(t, NULL);
        }
}

int durable_open(Manager *m, const char *dir, Restore *restore) {
        Opening o = { .restore = restore };
        Durable *d = fault_calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        d->manager = m;
        list_init(&d->arriving);
        list_init(&d->leaving);
        int r = open_store(d, dir, &o);
        if (r >= 0)
                r = watch(d);
        if (r >= 0) {
                m->durable = d;
                m->written = *store_written(d->store);
                write_changed(&o);
        } else {
                store_close(d->store);
                free(d);
        }
        free(o.marks);
        free(o.ended);
        free(o.changed);
        return r;
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle) {
        Durable *d = handle->data;
        if (--d->n_handles == 0)
                free(d);
}

static void write_running(Manager *m) {
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                LIST_FOREACH (l, &q->queue->running) {
                        TaskRecord *t = task_record(LIST_ENTRY(l, Task, link));
                        durable_put_state(t, NULL);
                        durable_stopped(t);
                }
}

void durable_close(Manager *m) {
        Durable *d = m->durable;
        if (!d)
                return;
        write_running(m);
        LIST_FOREACH (l, &d->leaving)
                durable_stopped(LIST_ENTRY(l, TaskRecord, recent_link));
        d->store = store_close(d->store);
        m->durable = NULL; /* from here on nothing is written: what ends now, ends in memory only */
        drop_arriving(d);
        for (TaskRecord *t; (t = first_until(&d->leaving, UINT64_MAX));)
                settle_left(t);
        eq_buffer_done(&d->scratch);
        uv_close((uv_handle_t *)&d->poll, on_closed);
        uv_close((uv_handle_t *)&d->turn, on_closed);
}
