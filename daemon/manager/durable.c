/* SPDX-License-Identifier: MIT */
#include "manager/durable.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "base/event.h"
#include "base/fault.h"
#include "manager/once.h"
#include "manager/opening.h"
#include "manager/parts.h"
#include "manager/removal.h"
#include "manager/space.h"
#include "manager/window.h"

/* The mark of a run whose end leaves the task pending: it stays until the STATE that says so is on the disk, or the attempt would be
 * given out a second time. */
typedef struct LateMark {
        uint64_t position;
        int mark;
} LateMark;

typedef struct Durable {
        Manager *manager;
        Store *store;
        uv_poll_t poll;
        uv_prepare_t turn; /* hands over what a turn of the loop has appended */
        unsigned n_handles;
        List arriving;  /* of TaskRecord::recent_link: appended, to be pushed; in order */
        List leaving;   /* likewise: ended, to be settled */
        LateMark *late; /* of cap_late, the first n_late in order */
        size_t n_late, cap_late;
        bool has_found;       /* marks of the eqd before, until found_until is on the disk */
        uint64_t found_until; /* what came of those runs */
        EqBuffer scratch;     /* bodies of what is being appended */
        StoreHealth health;   /* as it was told */
        uint64_t n_lost;      /* changes that the store did not take, since it has failed */
        WatchPart *part;      /* the watch's; NULL: it has no room */
} Durable;

bool durable_has_failed(const QueueRecord *q) {
        return durable_queue(q) && store_health(q->manager->durable->store) == STORE_FAILED;
}

Store *durable_store(const Manager *m) {
        return m->durable->store;
}

int manager_wait_for_store(const Manager *m, uint64_t usec) {
        return m->durable ? store_wait(m->durable->store, usec) : 0;
}

bool durable_queue(const QueueRecord *q) {
        return q->manager->durable && q->attributes.durable;
}

/* ---- append ---- */

/* The watch asks no more of the store than everybody does: that what was appended becomes durable. What was lost has a position,
 * too, that nothing comes to: an answer that speaks of it is never sent, whoever has let it pass. */
static void note_written(Durable *d) {
        d->manager->written = *store_written(d->store) + d->n_lost;
        if (d->part)
                WATCH_SET(d->part->n_asked, d->manager->written);
}

/* What must not be lost was not written: memory was out, or the store has failed. Then it has failed. What follows from that
 * comes with on_poll(), when nobody is at work on what it ends. */
static void lose(Durable *d, int error) {
        store_fail(d->store, error);
        d->n_lost++;
        note_written(d);
}

static void append(Durable *d, const StoreItem *items, size_t n) {
        int r = store_append(d->store, items, n);
        if (r < 0)
                lose(d, r);
        else
                note_written(d);
}

static StoreBytes scratch(const Durable *d, size_t from) {
        return (StoreBytes) { d->scratch.data + from, (uint32_t)(d->scratch.len - from) };
}

static StoreItem item(StoreKind kind, const QueueRecord *q, uint64_t seq, StoreBytes body) {
        return (StoreItem) { .kind = kind, .queue = q->queue->id, .seq = seq, .body = body };
}

/* Length of the name, name. */
static void put_name(Durable *d, const QueueRecord *q) {
        uint8_t len = (uint8_t)strlen(q->queue->name);
        d->scratch.len = 0;
        (void)eq_buffer_append(&d->scratch, &len, 1); /* `failed` is looked at, here and below */
        (void)eq_buffer_append(&d->scratch, q->queue->name, len);
}

static void put_scratch(Durable *d, StoreItem i) {
        if (d->scratch.failed)
                lose(d, -ENOMEM);
        else {
                i.body = scratch(d, 0);
                append(d, &i, 1);
        }
        d->scratch.failed = false;
}

/* A task and behind it its end, both or none: a task without its end would be run. */
static void put_both(Durable *d, const QueueRecord *q, uint64_t seq, size_t n_task) {
        if (d->scratch.failed) {
                d->scratch.failed = false;
                lose(d, -ENOMEM);
                return;
        }
        StoreItem items[] = { item(STORE_TASK, q, seq, (StoreBytes) { d->scratch.data, (uint32_t)n_task }),
                              item(STORE_END, q, seq, scratch(d, n_task)) };
        items[0].is_rest = true;
        append(d, items, ELEMENTSOF(items));
}

void durable_put_queue(QueueRecord *q) {
        Durable *d = q->manager->durable;
        if (!durable_queue(q))
                return;
        put_name(d, q);
        restore_pack_queue(q, &d->scratch);
        put_scratch(d, item(STORE_QUEUE, q, q->queue->last_seq, (StoreBytes) { 0 }));
        q->stored_at = d->manager->written;
}

void durable_put_gone(QueueRecord *q) {
        Durable *d = q->manager->durable;
        if (!durable_queue(q))
                return;
        put_name(d, q);
        put_scratch(d, item(STORE_GONE, q, q->queue->last_seq, (StoreBytes) { 0 }));
        q->stored_at = d->manager->written;
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
        int e = durable_may_grow(q, r); /* its place may have cost another task, whose end found no memory */
        if (e < 0)
                return e;
        StoreItem one, *items = n > 1 ? fault_calloc(n, sizeof(*items)) : &one;
        e = items ? pack_tasks(d, tasks, n, items) : -ENOMEM;
        if (e >= 0)
                e = store_append(d->store, items, n);
        if (items != &one)
                free(items);
        if (e == -ENOMEM)
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        if (e == -EMSGSIZE)
                return refuse(r, EQ_E_TOO_LARGE, e, "too large for the store: a quarter of segment_size at once");
        if (e < 0)
                return refuse(r, EQ_E_STORE, e, "the store cannot take it: %s", strerror(-e));
        note_written(d);
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

/* What it was to do is not there: all that is known of it takes the place of the damaged record, if there is space for it. */
static void write_damaged(Durable *d, const TaskRecord *t) {
        d->scratch.len = 0;
        restore_pack_task(d->manager, t, &d->scratch);
        size_t n_task = d->scratch.len;
        restore_pack_end(t, &d->scratch);
        put_both(d, t->queue, t->task.seq, n_task);
}

static void write_end(Durable *d, const TaskRecord *t) {
        if (t->end_note == TASK_NOTE_DAMAGED && store_health(d->store) == STORE_GOOD) {
                write_damaged(d, t);
                return;
        }
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
        durable_forget_seq(t->queue, t->task.seq);
}

/* Nobody is promised that it does not come back. */
void durable_forget_seq(const QueueRecord *q, uint64_t seq) {
        StoreItem i = item(STORE_FORGET, q, seq, (StoreBytes) { 0 });
        if (durable_queue(q) && !durable_has_failed(q))
                append(q->manager->durable, &i, 1);
}

void durable_put_key(const QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key, uint64_t finished_usec) {
        Durable *d = q->manager->durable;
        if (!durable_queue(q) || durable_has_failed(q)) /* likewise: then with its task */
                return;
        d->scratch.len = 0;
        restore_pack_key(uid, key, &d->scratch);
        size_t n_task = d->scratch.len;
        restore_pack_key_end(finished_usec, &d->scratch);
        put_both(d, q, seq, n_task);
}

/* ---- running ---- */

void *array_grown(void *array, size_t *cap, size_t n, size_t size) {
        if (n < *cap)
                return array;
        size_t more = MAX(*cap * 2, (size_t)64);
        void *p = fault_realloc(array, more * size);
        if (p)
                *cap = more;
        return p;
}

void durable_put_stopped(TaskRecord *t, const TaskFate *fate) {
        durable_put_state(t, fate);
        if (!t->run || t->run->mark == STORE_MARK_NONE)
                return;
        Durable *d = t->queue->manager->durable;
        LateMark *p = array_grown(d->late, &d->cap_late, d->n_late, sizeof(*p));
        if (!p) { /* only a crash before that would tell */
                durable_stopped(t);
                return;
        }
        d->late = p;
        d->late[d->n_late++] = (LateMark) { .position = d->manager->written, .mark = t->run->mark };
        t->run->mark = STORE_MARK_NONE;
}

/* ---- durable now ---- */

static void unmark_until(Durable *d, uint64_t position) {
        if (d->has_found && position >= d->found_until) {
                store_unmark_found(d->store);
                d->has_found = false;
        }
        size_t n = 0;
        if (d->n_late == 0)
                return;
        while (n < d->n_late && d->late[n].position <= position)
                store_unmark(d->store, d->late[n++].mark);
        d->n_late -= n;
        memmove(d->late, d->late + n, d->n_late * sizeof(*d->late));
}

TaskRecord *durable_first_until(List *list, uint64_t position) {
        List *l = list_first(list);
        TaskRecord *t = l ? LIST_ENTRY(l, TaskRecord, recent_link) : NULL;
        return t && t->stored_at <= position ? t : NULL;
}

static void settle_left(TaskRecord *t) {
        list_remove(&t->recent_link);
        t->unsettled = false;
        QueueRecord *q = t->queue;
        q->n_unsettled--;
        durable_stopped(t);
        record_settle(q->manager, t);
        if (q->ending && q->queue->n_shelved > 0)
                queue_refill(q->queue);
}

/* Pools stand still meanwhile: of what becomes durable together the first in order is the first to start. */
static void advance(Durable *d, uint64_t position) {
        Manager *m = d->manager;
        engine_hold(&m->engine);
        events_advance(m, position); /* before those of its tasks, which had to wait for the queue */
        for (TaskRecord *t; (t = durable_first_until(&d->arriving, position));) {
                list_remove(&t->recent_link);
                record_push(m, t);
        }
        for (TaskRecord *t; (t = durable_first_until(&d->leaving, position));)
                settle_left(t);
        once_advance(m, position);
        unmark_until(d, position);
        engine_unhold(&m->engine);
}

static void drop_arriving(Durable *d) {
        for (List *l; (l = list_first(&d->arriving));) {
                list_remove(l);
                record_drop(d->manager, LIST_ENTRY(l, TaskRecord, recent_link));
        }
}

/* It stands still, and nothing more is told of it. */
static void give_up_queue(QueueRecord *q) {
        queue_pause(q->queue); /* not written down: it ends with this eqd */
        queue_give_up_waits(q->queue);
        removal_give_up(q);
        space_fell_free(q->manager, q); /* who waits for space is refused */
}

/* What has ended since and cannot be written stays as it is shown, running: nobody is told an end that a restart undoes. */
static void failed(Durable *d) {
        Manager *m = d->manager;
        const char *why = strerror(-store_error(d->store));
        log_event(STORE_FAILED, (.error = why), why);
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                if (q->attributes.durable)
                        give_up_queue(q);
        once_clear_none(m);
        events_drop(m);
        task_waits_fail(m);
        drop_arriving(d);
        if (m->hooks->not_durable)
                m->hooks->not_durable(m->host);
}

static void tell_low(const Durable *d) {
        StoreStats s;
        store_stats(d->store, &s);
        log_event(STORE_LOW, (0), s.free_bytes, s.low_water);
}

static void tell_health(Durable *d) {
        StoreHealth health = store_health(d->store);
        if (health == d->health || d->health == STORE_FAILED)
                return;
        d->health = health;
        const char *why = strerror(-store_error(d->store));
        if (health == STORE_FAILED)
                failed(d);
        else if (health == STORE_FULL)
                log_event(STORE_FULL, (.error = why), why);
        else if (health == STORE_LOW)
                tell_low(d);
        else
                log_event(STORE_SPACE, (0));
}

void durable_tell_unread(const char *file, unsigned seconds) {
        log_event(STORE_UNREAD, (0), file, seconds);
}

static void tell_unread(Durable *d) {
        for (StoreUnread u; store_next_unread(d->store, &u);)
                durable_tell_unread(u.file, u.seconds);
}

static void tell_damages(Durable *d) {
        for (StoreDamage s; store_next_damage(d->store, &s);)
                log_event(STORE_DAMAGED, (0), s.n_bytes, s.at, s.file, s.kept);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
        Durable *d = handle->data;
        uint64_t position;
        (void)store_dispatch(d->store, &position);
        if (d->part)
                WATCH_SET(d->part->n_answered, position);
        advance(d, position);
        if (d->manager->hooks->durable)
                d->manager->hooks->durable(d->manager->host, position);
        tell_health(d);
        tell_unread(d);
        tell_damages(d);
        store_flush(d->store);
}

static void on_turn(uv_prepare_t *handle) {
        Durable *d = handle->data;
        once_turn(d->manager);
        window_send(d->manager);
        store_flush(d->store);
}

void durable_follow_settings(Manager *m) {
        if (m->durable)
                store_set_low_water(m->durable->store, m->config->daemon.low_water);
}

/* ---- opening ---- */

/* A copy that root has put back belongs to root. */
static void store_refused(const char *dir, int error, const char *what) {
        char text[PATH_MAX + 512];
        if (error == -EACCES || error == -EPERM)
                (void)snprintf(text, sizeof(text), "%s; all files below %s must belong to uid %u, as which eqd runs",
                               what, dir, (unsigned)geteuid());
        else
                (void)snprintf(text, sizeof(text), "%s", what);
        log_event(START_FAILED, (.error = text), text);
}

static int open_store(Durable *d, const char *dir, Opening *o) {
        Manager *m = d->manager;
        char error[256];
        StoreConfig config = { .dir = dir,
                               .segment_size = (uint32_t)m->config->daemon.segment_size,
                               .keep_marks = true,
                               .low_water = m->config->daemon.low_water };
        int r = store_open(&config, &opening_reader, o, error, sizeof(error), &d->store);
        if (r < 0)
                store_refused(dir, r, error);
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

/* The batch of what has these keys now may have been cut before that. */
static void forget_stale(const Restore *r) {
        for (size_t i = 0; i < r->n_stale; i++)
                durable_forget_seq(r->stale[i].queue, r->stale[i].seq);
}

static int restored(Manager *m) {
        int r = 0;
        for (QueueRecord *q = m->queues; q && r >= 0; q = q->hh.next)
                r = window_restored(q);
        return r;
}

int durable_open(Manager *m, const char *dir, Restore *restore) {
        Opening o = { .restore = restore };
        Durable *d = fault_calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        d->manager = m;
        d->part = watch_part_add(&m->engine.watch, "store", EQ_REASON_PERSIST);
        list_init(&d->arriving);
        list_init(&d->leaving);
        int r = open_store(d, dir, &o);
        if (r >= 0)
                r = watch(d);
        if (r >= 0) {
                m->durable = d;
                once_follow_all(m);
                window_watch(m, watch_part_add(&m->engine.watch, "store reader", EQ_REASON_PERSIST));
                note_written(d);
                write_changed(&o);
                forget_stale(restore);
                d->has_found = true;
                d->found_until = m->written;
                r = restored(m);
                (void)malloc_trim(
                        0); /* what reading took lies among what stays; whether there was any does not matter */
        } else {
                store_close(d->store);
                free(d);
        }
        opening_done(&o);
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
                LIST_FOREACH (l, &q->queue->running)
                        durable_put_stopped(task_record(LIST_ENTRY(l, Task, link)), NULL);
}

void durable_close(Manager *m) {
        Durable *d = m->durable;
        if (!d)
                return;
        engine_hold(&m->engine); /* what is handed over now has no mark */
        durable_take_back(m);
        once_clear_none(m);
        write_running(m);
        if (store_settle(d->store) >= 0) { /* else the marks tell what ran */
                LIST_FOREACH (l, &d->leaving)
                        durable_stopped(LIST_ENTRY(l, TaskRecord, recent_link));
                unmark_until(d, UINT64_MAX);
        }
        window_close(m);
        d->store = store_close(d->store);
        events_drop(m);
        m->durable = NULL; /* from here on nothing is written: what ends now, ends in memory only */
        once_follow_all(m);
        engine_unhold(&m->engine);
        drop_arriving(d);
        for (TaskRecord *t; (t = durable_first_until(&d->leaving, UINT64_MAX));)
                settle_left(t);
        eq_buffer_done(&d->scratch);
        free(d->late);
        uv_close((uv_handle_t *)&d->poll, on_closed);
        uv_close((uv_handle_t *)&d->turn, on_closed);
}
