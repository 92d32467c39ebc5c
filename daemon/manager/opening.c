/* SPDX-License-Identifier: MIT */
/* Marks of what ran come first, then queues, then the tasks of each. What ran when its eqd died has crashed, or is lost; what was
 * decided of that is written down when the store is open. What cannot be one that eqd has kept is left out, and said. */

#include "manager/opening.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/fault.h"
#include "manager/durable.h"
#include "manager/parts.h"
#include "manager/window.h"

/* A task that ran when its eqd died. */
struct RunningMark {
        uint64_t queue, seq;
        uint32_t attempt;
        bool doubtful; /* it is damaged, and seems to be that task's */
};

/* Kept until the ends of its queue are all there. */
struct EndedTask {
        uint64_t seq, finished_usec;
        TaskLane lane;
        bool crashed; /* its end is not in the store yet */
        char *data;   /* owned: the task, then its end, as they are stored */
        uint32_t task_len, end_len;
};

enum { TOLD_EVERY = 4096 }; /* tasks between two signs that the start goes on */

static EqBytes eq(StoreBytes b) {
        return eq_bytes(b.data, b.len);
}

/* What cannot be one that eqd has kept is left out, and said. */
static int left_out(Opening *o, const char *what, uint64_t number, int r) {
        if (r >= 0 || r == -ENOMEM)
                return r;
        o->restore->n_skipped++;
        log_event(STORE_LEFT_OUT, (.error = strerror(-r)), what, (uint64_t)number, strerror(-r));
        return 0;
}

static int note_changed(Opening *o, uint64_t seq) {
        TaskRecord **p = array_grown(o->changed, &o->cap_changed, o->n_changed, sizeof(*p));
        if (!p)
                return -ENOMEM;
        o->changed = p;
        o->changed[o->n_changed++] = seq_index_get(&o->queue->tasks, seq);
        return 0;
}

static int compare_ends(const void *a, const void *b) {
        const EndedTask *x = a, *y = b;
        if (x->finished_usec != y->finished_usec)
                return x->finished_usec < y->finished_usec ? -1 : 1;
        return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int restore_one_end(Opening *o, const EndedTask *e) {
        StoredTask task;
        StoredEnd end;
        int r = stored_task_unpack(eq_bytes(e->data, e->task_len), &task);
        if (r >= 0)
                r = stored_end_unpack(eq_bytes(e->data + e->task_len, e->end_len), &end);
        if (r >= 0)
                r = restore_end(o->restore, o->queue, e->seq, e->lane, &task, &end);
        if (r >= 0 && e->crashed)
                r = note_changed(o, e->seq);
        if (r >= 0 && e->crashed && o->changed[o->n_changed - 1])
                manager_log_end(o->restore->manager, o->changed[o->n_changed - 1]);
        return left_out(o, "ended task", e->seq, r);
}

/* Histories are in the order of the ends. */
static int restore_ended(Opening *o) {
        int r = 0;
        if (o->n_ended > 0)
                qsort(o->ended, o->n_ended, sizeof(*o->ended), compare_ends);
        for (size_t i = 0; i < o->n_ended; i++) {
                if (r >= 0)
                        r = restore_one_end(o, &o->ended[i]);
                free(o->ended[i].data);
        }
        o->n_ended = 0;
        return r;
}

/* Tasks come by queue. */
static int turn_to(Opening *o, uint64_t id) {
        if (o->queue && id == o->queue_id)
                return 0;
        int r = restore_ended(o);
        const Queue *q = engine_queue(&o->restore->manager->engine, id);
        o->queue_id = id;
        o->queue = q ? queue_record(q) : NULL;
        return r;
}

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        Opening *o = userdata;
        QueueRecord *q;
        StoredQueue stored;
        int r = stored_queue_unpack(eq(definition), &stored);
        if (r >= 0)
                r = restore_queue(o->restore, eq(name), id, last_seq, &stored, &q);
        if (r >= 0)
                q->attributes.durable = true; /* whatever defaults say now: it is here */
        return left_out(o, "queue", id, r);
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        Opening *o = userdata;
        return left_out(o, "removed queue", id, restore_tombstone(o->restore, eq(name), id, last_seq));
}

static int compare_marked(const void *a, const void *b) {
        const RunningMark *x = a, *y = b;
        if (x->queue != y->queue)
                return x->queue < y->queue ? -1 : 1;
        return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int compare_marks(const void *a, const void *b) {
        const RunningMark *x = a, *y = b;
        int r = compare_marked(a, b);
        return r != 0 ? r : x->attempt < y->attempt ? -1 : x->attempt > y->attempt;
}

/* The first one of that task; others may be behind it: a mark stays until what came of its run is on the disk. NULL: none. */
static const RunningMark *mark_of(Opening *o, uint64_t queue, uint64_t seq) {
        RunningMark key = { .queue = queue, .seq = seq };
        if (o->n_marks == 0)
                return NULL;
        if (!o->sorted) /* all marks are told before the first task */
                qsort(o->marks, o->n_marks, sizeof(*o->marks), compare_marks);
        o->sorted = true;
        const RunningMark *m = bsearch(&key, o->marks, o->n_marks, sizeof(*o->marks), compare_marked);
        while (m && m > o->marks && compare_marked(m - 1, m) == 0)
                m--;
        return m;
}

/* How many runs of its task ended with an eqd and are not in its state, which tells of all up to the attempt `since`. What is in
 * doubt counts where a task must not run twice, and else does not: it would be one crash nearer to its end. */
static unsigned crashed_runs(const Opening *o, const RunningMark *first, uint32_t since, uint32_t *ret_latest) {
        unsigned n = 0;
        for (const RunningMark *m = first; m && m < o->marks + o->n_marks && compare_marked(m, first) == 0; m++)
                if (m->attempt > since && (!m->doubtful || o->queue->attributes.at_most_once)) {
                        n++;
                        *ret_latest = m->attempt;
                }
        return n;
}

/* It ran when eqd died, which counts as a crash: what kills eqd must not do so for ever. A worker's task runs elsewhere and is
 * not to blame; its lease is lost, and the next one has another attempt. What the queue's file says, that it has a plugin for
 * example, is applied later; the queue is as one of workers until then. */
static void count_crashes(const QueueRecord *q, unsigned n, uint32_t attempt, StoredState *state, StoredEnd *end) {
        const ConfigQueue *file =
                q->origin == QUEUE_FROM_FILE ? config_queue(q->manager->config, q->queue->name) : NULL;
        bool workers = queue_has_workers(q) && !(file && file->attributes.executor == QUEUE_EXECUTOR_PLUGIN);
        uint64_t max = file && !q->overridden ? file->attributes.max_crashes : q->attributes.max_crashes;
        bool once = q->attributes.at_most_once;
        uint16_t *count = workers ? &state->lost : &state->crashes;
        state->attempt = MAX(state->attempt, (uint16_t)MIN(attempt, (uint32_t)UINT16_MAX));
        *count = (uint16_t)MIN(*count + n, (unsigned)UINT16_MAX);
        if (!once && (workers || state->crashes < max))
                return;
        *end = (StoredEnd) {
                .state = once ? EQ_STATE_FAILED : EQ_STATE_DEAD,
                .reason = EQ_REASON_LOST,
                .attempt = state->attempt,
                .crashes = state->crashes,
                .lost = state->lost,
                .finished_usec = clock_realtime(q->manager->clock),
                .last.exit = -1,
        };
}

static int note_ended(Opening *o, uint64_t seq, TaskLane lane, StoreBytes task, StoreBytes last, bool crashed) {
        StoredEnd end;
        int r = stored_end_unpack(eq(last), &end);
        if (r < 0)
                return r;
        EndedTask *p = array_grown(o->ended, &o->cap_ended, o->n_ended, sizeof(*p));
        if (!p)
                return -ENOMEM;
        o->ended = p;
        char *data = fault_malloc((size_t)task.len + last.len);
        if (!data)
                return -ENOMEM;
        memcpy(data, task.data, task.len);
        memcpy(data + task.len, last.data, last.len);
        o->ended[o->n_ended++] = (EndedTask) { .seq = seq,
                                               .finished_usec = end.finished_usec,
                                               .lane = lane,
                                               .crashed = crashed,
                                               .data = data,
                                               .task_len = task.len,
                                               .end_len = last.len };
        return 0;
}

/* Its end has its turn in the history with those that are stored. */
static int note_crashed(Opening *o, uint64_t seq, TaskLane lane, StoreBytes raw, const StoredEnd *end) {
        EqBuffer b = EQ_BUFFER_NULL;
        stored_end_pack(end, NULL, &b);
        int r = b.failed ? -ENOMEM : note_ended(o, seq, lane, raw, (StoreBytes) { b.data, (uint32_t)b.len }, true);
        eq_buffer_done(&b);
        return r;
}

static int restore_pending(Opening *o, uint64_t seq, TaskLane lane, StoreBytes raw, const StoredTask *task,
                           StoredState *state) {
        const RunningMark *mark = mark_of(o, o->queue->queue->id, seq);
        StoredState fresh = { .wait = task->held ? TASK_WAIT_HELD : 0 };
        StoredEnd end = { 0 };
        bool once = o->queue->attributes.at_most_once, starts = state && state->starts;
        uint32_t latest = 0, since = state && !once ? state->attempt - (state->attempt > 0 && starts) : 0;
        unsigned n = crashed_runs(o, mark, since, &latest);
        if (once && starts && n == 0) /* power was lost, or eqd was killed just before it began */
                n = 1, latest = state->attempt;
        if (n == 0) {
                int e = restore_task(o->restore, o->queue, seq, lane, task, state);
                return e < 0 || !starts ? e : note_changed(o, seq); /* its queue was changed since */
        }
        if (!state)
                state = &fresh;
        state->last = (StoredTry) { 0 }; /* that was an attempt before */
        state->wait &= TASK_WAIT_HELD;   /* it had started, so its times were over */
        count_crashes(o->queue, n, latest, state, &end);
        if (end.state)
                return note_crashed(o, seq, lane, raw, &end);
        int r = restore_task(o->restore, o->queue, seq, lane, task, state);
        return r < 0 ? r : note_changed(o, seq);
}

/* After the files come their tasks, of which there may be millions. */
static void tell_restored(Opening *o) {
        const Manager *m = o->restore->manager;
        if (++o->n_told % TOLD_EVERY == 0 && m->hooks->restoring)
                m->hooks->restoring(m->host, 100, o->n_told);
}

/* Plain ones are left where they are. */
static int on_brief(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes begin, uint32_t len) {
        Opening *o = userdata;
        StoredTaskBegin t;
        if (lane != TASK_LANE_NORMAL || !stored_task_begin(eq(begin), &t) || mark_of(o, queue, seq))
                return 0;
        if (!o->queue || queue != o->queue_id) {
                const Queue *q = engine_queue(&o->restore->manager->engine, queue);
                o->queue_id = queue;
                o->queue = q ? queue_record(q) : NULL;
        }
        if (!o->queue || seq == 0 || seq > o->queue->queue->last_seq)
                return 0; /* as one that is told as a whole */
        int r = window_restore(o->queue, seq, t.uid, t.n_bytes);
        if (r != 0)
                return r < 0 ? r : 0;
        o->restore->n_pending++;
        tell_restored(o);
        return 1;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes raw, StoreKind last,
                   StoreBytes last_raw) {
        Opening *o = userdata;
        StoredTask task;
        StoredState state;
        int r = turn_to(o, queue);
        tell_restored(o);
        if (r < 0 || !o->queue)
                return r;
        r = lane < _TASK_LANE_MAX ? stored_task_unpack(eq(raw), &task) : -EBADMSG;
        if (r >= 0 && last == STORE_END)
                return left_out(o, "ended task", seq, note_ended(o, seq, lane, raw, last_raw, false));
        if (r >= 0 && last == STORE_STATE)
                r = stored_state_unpack(eq(last_raw), &state);
        if (r >= 0)
                r = restore_pending(o, seq, lane, raw, &task, last == STORE_STATE ? &state : NULL);
        return left_out(o, "task", seq, r);
}

static int add_mark(Opening *o, const RunningMark *mark) {
        RunningMark *p = array_grown(o->marks, &o->cap_marks, o->n_marks, sizeof(*p));
        if (!p)
                return -ENOMEM;
        o->marks = p;
        o->marks[o->n_marks++] = *mark;
        return 0;
}

static int on_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        return add_mark(userdata, &(RunningMark) { .queue = queue, .seq = seq, .attempt = attempt });
}

static int on_mark_damaged(void *userdata, StoreMarkDamage what, int slot, uint64_t queue, uint64_t seq) {
        durable_tell_mark(what, slot);
        RunningMark mark = { .queue = queue, .seq = seq, .attempt = 1, .doubtful = true };
        return what == STORE_MARK_LOST ? add_mark(userdata, &mark) : 0;
}

static int on_done(void *userdata) {
        return restore_ended(userdata);
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        ((Opening *)userdata)->restore->n_skipped++;
        log_event(STORE_DAMAGED, (0), n, at, file, kept);
}

static void on_noticed(void *userdata, const char *file, const char *what) {
        log_event(STORE_NOTICED, (0), file, what);
}

static void on_unread(void *userdata, const char *file, unsigned seconds) {
        durable_tell_unread(file, seconds);
}

static void on_progress(void *userdata, uint64_t done, uint64_t all) {
        Manager *m = ((Opening *)userdata)->restore->manager;
        if (m->hooks->restoring)
                m->hooks->restoring(m->host, all > 0 ? (unsigned)(done * 100 / all) : 100, 0);
}

const StoreReader opening_reader = {
        .running = on_running,
        .mark_damaged = on_mark_damaged,
        .queue = on_queue,
        .gone = on_gone,
        .brief = on_brief,
        .task = on_task,
        .done = on_done,
        .damaged = on_damaged,
        .noticed = on_noticed,
        .unread = on_unread,
        .progress = on_progress,
};

void opening_done(Opening *o) {
        free(o->marks);
        for (size_t i = 0; i < o->n_ended; i++) /* it was not opened */
                free(o->ended[i].data);
        free(o->ended);
        free(o->changed);
}
