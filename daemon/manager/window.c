/* SPDX-License-Identifier: MIT */
/* An entry is a number in the place of a pointer:
 *
 *      bits 0-1: both set   2-25: bytes of payload and options   26-41: number of its user   42-63: its ordinal - its SEQ
 *
 * The ordinal of a push is the SEQ but for what was given and not pushed, or pushed again: where that came to more than the bits
 * hold, tasks are pushed as any others.
 *
 * Reading. A queue has one refill on its way at most, begun when half of the front is used, so that what is read is read in large
 * pieces. Single tasks that somebody wants are collected over a turn of the loop. The store answers in the order in which it was asked,
 * so a ticket, which counts what was asked, tells when something is there. In between anything may happen to a task: it is taken
 * only if it is still here. */

#include "manager/window.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "manager/durable.h"
#include "manager/parts.h"

enum { TAG = 3, BYTES_BITS = 24, USER_BITS = 16, DELTA_BITS = 22, BYTES_AT = 2 };
enum { USER_AT = BYTES_AT + BYTES_BITS, DELTA_AT = USER_AT + USER_BITS };
_Static_assert(DELTA_AT + DELTA_BITS == 64 && sizeof(void *) == 8, "an entry has the size of a pointer");
_Static_assert(USER_BITS == 16, "that of User::number");

enum { UNSETTLED_MAX = 1024 }; /* of a queue that goes: canceled, and not on disk as such */

/* ---- entries ---- */

static bool make_entry(uint32_t n_bytes, uint16_t user, int64_t delta, void **ret) {
        const int64_t limit = INT64_C(1) << (DELTA_BITS - 1);
        if (user == 0 || n_bytes >> BYTES_BITS || delta < -limit || delta >= limit)
                return false;
        *ret = (void *)(uintptr_t)((uint64_t)delta << DELTA_AT | (uint64_t)user << USER_AT |
                                   (uint64_t)n_bytes << BYTES_AT | TAG);
        return true;
}

uint32_t window_bytes(const void *entry) {
        return (uint32_t)((uintptr_t)entry >> BYTES_AT) & ((1U << BYTES_BITS) - 1);
}

User *window_user(const Manager *m, const void *entry) {
        return user_numbered(&m->users, (uint16_t)((uintptr_t)entry >> USER_AT));
}

uint64_t window_ordinal(uint64_t seq, const void *entry) {
        return seq + (uint64_t)((int64_t)(uintptr_t)entry >> DELTA_AT);
}

/* ---- in ---- */

static bool is_plain(const TaskRecord *t) {
        const Task *task = &t->task;
        return t->plain && task->lane == TASK_LANE_NORMAL && task->wait == 0 && task->part == TASK_ALONE &&
               t->end_note == TASK_NOTE_NONE && !t->keyed && !t->links && t->n_pins == 0;
}

bool window_keep(TaskRecord *t) {
        QueueRecord *q = t->queue;
        Queue *queue = q->queue;
        uint64_t seq = t->task.seq, n_bytes = t->task.bytes;
        void *entry;
        if (!durable_queue(q) || q->ending || !queue_may_shelve(queue) || !is_plain(t) ||
            !make_entry(t->task.bytes, user_number(t->user), (int64_t)(queue_next_ordinal(queue) - seq), &entry))
                return false;
        (void)seq_index_put(&q->tasks, seq, entry); /* replaces t, which needs no memory */
        t->user->n_refs++;
        task_record_free(t);
        queue_shelve(queue, seq, 1, n_bytes);
        return true;
}

int window_restore(QueueRecord *q, uint64_t seq, uid_t uid, uint32_t n_bytes) {
        Manager *m = q->manager;
        User *user;
        void *entry;
        int r = user_get(&m->users, uid, &user);
        if (r < 0)
                return r;
        if (!make_entry(n_bytes, user_number(user), 0, &entry)) {
                user_unref(user);
                return 1;
        }
        r = seq_index_put(&q->tasks, seq, entry);
        if (r < 0) {
                user_unref(user);
                return r;
        }
        (void)user_charge(user, USER_TASKS, 1); /* limits come with the configuration, later */
        (void)user_charge(user, USER_TASK_BYTES, n_bytes);
        m->n_pending++;
        q->n_restored++;
        q->n_restored_bytes += n_bytes;
        return 0;
}

/* The first one at or behind seq; its number is *seq. NULL: none. */
static void *next_entry(const QueueRecord *q, uint64_t *seq) {
        for (void *entry; (entry = seq_index_next(&q->tasks, seq)); ++*seq)
                if (window_has(entry))
                        return entry;
        return NULL;
}

int window_restored(QueueRecord *q) {
        uint64_t n = q->n_restored, n_bytes = q->n_restored_bytes, first = 0;
        q->n_restored = q->n_restored_bytes = 0;
        if (n == 0)
                return 0;
        (void)next_entry(q, &first); /* there is one */
        return queue_restore_shelved(q->queue, first, n, n_bytes);
}

/* ---- out ---- */

/* t takes the place of the entry. */
static void enter(QueueRecord *q, uint64_t seq, void *entry, TaskRecord *t) {
        Queue *queue = q->queue;
        uint64_t next = queue->shelf_first;
        task_init(&t->task, seq, TASK_LANE_NORMAL, window_bytes(entry));
        (void)seq_index_put(&q->tasks, seq, t); /* replaces an entry, which needs no memory */
        t->user->n_refs--;                      /* that of the entry */
        if (seq == next && queue->n_shelved > 1) {
                next++;
                (void)next_entry(q, &next);
        }
        queue_unshelve(queue, &t->task, window_ordinal(seq, entry), next);
}

/* One that is to end at once, unread; it is pending. NULL: no memory. */
static TaskRecord *take_hollow(QueueRecord *q, uint64_t seq) {
        TaskRecord *t;
        void *entry = seq_index_get(&q->tasks, seq);
        StoredTask s = { .uid = window_user(q->manager, entry)->uid, .gid = UINT32_MAX };
        if (restore_unpacked(&q->manager->window.shared, q, &s, &t) < 0)
                return NULL;
        t->hollow = true;
        enter(q, seq, entry, t);
        return t;
}

/* What the store has must be what was put there: it is charged, and shown, by the entry. */
static int unpack(const QueueRecord *q, const void *entry, EqBytes raw, StoredTask *ret) {
        int r = stored_task_unpack(raw, ret);
        bool same = r >= 0 && ret->plain && ret->uid == window_user(q->manager, entry)->uid &&
                    ret->payload.len + ret->options.len == window_bytes(entry);
        return same ? 0 : -EBADMSG;
}

static int take(QueueRecord *q, uint64_t seq, void *entry, EqBytes raw) {
        StoredTask s;
        TaskRecord *t;
        int r = unpack(q, entry, raw, &s);
        if (r >= 0)
                r = restore_unpacked(&q->manager->window.shared, q, &s, &t);
        if (r < 0)
                return r;
        enter(q, seq, entry, t);
        return 0;
}

/* It stands still for nobody, and nobody runs what is not what was submitted. */
static int lose(QueueRecord *q, uint64_t seq) {
        TaskRecord *t = take_hollow(q, seq);
        if (!t)
                return -ENOMEM;
        t->end_reason = EQ_REASON_LOST;
        t->end_note = TASK_NOTE_DAMAGED;
        (void)queue_lose(q->queue, &t->task); /* it is pending */
        return 0;
}

static int take_fetched(QueueRecord *q, const StoreFetch *f, const StoreFetched *task) {
        void *entry = seq_index_get(&q->tasks, task->seq);
        if (!window_has(entry))
                return 0; /* it was taken, or is gone */
        int r = task->result;
        if (r >= 0)
                r = take(q, task->seq, entry, eq_bytes(f->data + task->at, task->len));
        return r == 0 || r == -ENOMEM || r == -ECANCELED ? r : lose(q, task->seq);
}

/* ---- reading ---- */

struct WindowFetch {
        StoreFetch fetch;
        Manager *manager;
        List link;          /* Window::collecting, until it is sent */
        QueueRecord *queue; /* whose `wanted` it is */
        uint64_t ticket;    /* 0: of a refill */
        size_t cap;
};

static void fetch_free(WindowFetch *w) {
        free(w->fetch.tasks);
        free(w->fetch.data);
        free(w);
}

static bool fetch_add(StoreFetch *f, size_t *cap, uint64_t seq) {
        if (f->n == *cap) {
                size_t more = MAX(*cap * 2, (size_t)16);
                StoreFetched *tasks = fault_realloc(f->tasks, more * sizeof(*tasks));
                if (!tasks)
                        return false;
                f->tasks = tasks;
                *cap = more;
        }
        f->tasks[f->n++] = (StoreFetched) { .seq = seq };
        return true;
}

static void note_asked(Window *w, uint64_t n_asked, uint64_t n_answered) {
        w->n_asked += n_asked;
        w->n_answered += n_answered;
        if (w->part) {
                WATCH_SET(w->part->n_asked, w->n_asked);
                WATCH_SET(w->part->n_answered, w->n_answered);
        }
}

static void ask(Manager *m, StoreFetch *f) {
        note_asked(&m->window, 1, 0);
        store_fetch(durable_store(m), f);
}

static QueueRecord *queue_of(const Manager *m, const StoreFetch *f) {
        Queue *queue = engine_queue(&m->engine, f->queue);
        return queue && !queue_record(queue)->gone ? queue_record(queue) : NULL;
}

static void take_all(QueueRecord *q, const StoreFetch *f) {
        Manager *m = q->manager;
        int r = 0;
        queue_enter(q->queue);
        for (size_t i = 0; i < f->n && !q->ending; i++) { /* if it goes, they are canceled unread */
                int e = take_fetched(q, f, &f->tasks[i]);
                r = e < 0 ? e : r;
        }
        queue_leave(q->queue);
        if (r < 0)
                refill_later(m);
}

static void on_fetched(StoreFetch *f) {
        WindowFetch *w = LIST_ENTRY(f, WindowFetch, fetch);
        Manager *m = w->manager;
        QueueRecord *q = queue_of(m, f);
        note_asked(&m->window, 0, 1);
        if (q && q->refilling == w)
                q->refilling = NULL;
        if (q && !m->window.closed)
                take_all(q, f);
        if (w->ticket && !m->window.closed && m->hooks->read)
                m->hooks->read(m->host, w->ticket);
        fetch_free(w);
}

static WindowFetch *fetch_new(QueueRecord *q) {
        WindowFetch *w = fault_calloc(1, sizeof(*w));
        if (!w)
                return NULL;
        w->manager = q->manager;
        w->fetch.queue = q->queue->id;
        w->fetch.done = on_fetched;
        list_init(&w->link);
        return w;
}

/* As many as the front has room for. Few that are large are let in whatever they have, so that there is something to run. */
static bool collect_refill(QueueRecord *q, WindowFetch *w, size_t n_room, uint64_t n_bytes_room, size_t n_front) {
        uint64_t seq = q->queue->shelf_first, n_bytes = 0;
        for (void *entry; w->fetch.n < n_room && (entry = next_entry(q, &seq)); seq++) {
                n_bytes += window_bytes(entry);
                if (n_bytes > n_bytes_room && n_front + w->fetch.n >= QUEUE_FRONT_MIN)
                        break;
                if (!fetch_add(&w->fetch, &w->cap, seq))
                        return false;
        }
        return w->fetch.n > 0;
}

/* Its queue is removed: what is here is canceled, a few at a time, as fast as that becomes durable. */
static bool cancel_some(QueueRecord *q) {
        while (q->queue->n_shelved > 0 && q->n_unsettled < UNSETTLED_MAX) {
                TaskRecord *t = take_hollow(q, q->queue->shelf_first);
                if (!t)
                        return false;
                t->end_note = TASK_NOTE_REMOVED;
                (void)queue_cancel(q->queue, &t->task); /* it is pending */
        }
        return true;
}

bool window_drop_oldest(QueueRecord *q, const Task *oldest) {
        Queue *queue = q->queue;
        bool older = queue->n_shelved > 0 &&
                     (!oldest || oldest->lane != TASK_LANE_NORMAL || oldest->seq > queue->shelf_first);
        if (!older || !window_has(seq_index_get(&q->tasks, queue->shelf_first)))
                return false;
        queue_enter(queue); /* nobody starts it meanwhile */
        TaskRecord *t = take_hollow(q, queue->shelf_first);
        if (t) {
                t->end_note = TASK_NOTE_DROPPED;
                (void)queue_cancel(queue, &t->task); /* it is pending */
        }
        queue_leave(queue);
        return t;
}

bool window_refill(QueueRecord *q) {
        const Queue *queue = q->queue;
        if (q->manager->window.closed || !q->manager->durable || q->refilling)
                return true;
        if (q->ending)
                return cancel_some(q);
        size_t n = queue->lines[QUEUE_READY][TASK_LANE_NORMAL].n, n_room = QUEUE_FRONT - MIN(n, (size_t)QUEUE_FRONT);
        uint64_t n_bytes = queue->n_bytes - queue->n_shelved_bytes,
                 n_bytes_room = QUEUE_FRONT_BYTES - MIN(n_bytes, (uint64_t)QUEUE_FRONT_BYTES);
        bool low = n < QUEUE_FRONT_MIN || (n_room >= QUEUE_FRONT / 2 && n_bytes_room >= QUEUE_FRONT_BYTES / 2);
        if (!low && !queue_needs_shelved(queue))
                return true;
        WindowFetch *w = fetch_new(q);
        if (!w || !collect_refill(q, w, MAX(n_room, (size_t)QUEUE_FRONT_MIN), n_bytes_room, n)) {
                if (w)
                        fetch_free(w);
                return false;
        }
        q->refilling = w;
        ask(q->manager, &w->fetch);
        return true;
}

int window_want(QueueRecord *q, uint64_t seq, uint64_t *ret_ticket) {
        Window *all = &q->manager->window;
        WindowFetch *w = q->wanted;
        if (!w) {
                w = fetch_new(q);
                if (!w)
                        return -ENOMEM;
                w->ticket = ++all->n_tickets;
                w->queue = q;
                q->wanted = w;
                list_append(&all->collecting, &w->link);
        }
        if (!fetch_add(&w->fetch, &w->cap, seq))
                return -ENOMEM;
        *ret_ticket = w->ticket;
        return 0;
}

void window_send(Manager *m) {
        for (List *l; (l = list_first(&m->window.collecting));) {
                WindowFetch *w = LIST_ENTRY(l, WindowFetch, link);
                list_remove(l);
                if (w->queue)
                        w->queue->wanted = NULL;
                ask(m, &w->fetch);
        }
}

TaskRecord *window_take_now(QueueRecord *q, uint64_t seq) {
        StoreFetched task = { .seq = seq };
        StoreFetch f = { .queue = q->queue->id, .tasks = &task, .n = 1 };
        store_fetch_now(durable_store(q->manager), &f);
        queue_enter(q->queue);
        (void)take_fetched(q, &f, &task); /* if not, it is not there */
        queue_leave(q->queue);
        free(f.data);
        void *entry = seq_index_get(&q->tasks, seq);
        return window_has(entry) ? NULL : entry;
}

/* ---- looking ---- */

static void on_peeked(StoreFetch *f) {
        WindowPeek *p = LIST_ENTRY(f, WindowPeek, fetch);
        if (p->owner)
                p->done(p);
        else
                window_peek_free(p);
}

WindowPeek *window_peek_new(QueueRecord *q) {
        WindowPeek *p = fault_calloc(1, sizeof(*p));
        if (p) {
                p->fetch.queue = q->queue->id;
                p->fetch.done = on_peeked;
        }
        return p;
}

bool window_peek_add(WindowPeek *p, uint64_t seq) {
        return p->fetch.n < WINDOW_PEEK_MAX && fetch_add(&p->fetch, &p->cap, seq);
}

void window_peek(Manager *m, WindowPeek *p) {
        store_fetch(durable_store(m), &p->fetch);
}

void window_peek_free(WindowPeek *p) {
        if (!p)
                return;
        free(p->fetch.tasks);
        free(p->fetch.data);
        free(p);
}

static int compare_fetched(const void *a, const void *b) {
        const StoreFetched *x = a, *y = b;
        return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static const StoreFetched *peeked(const WindowPeek *p, const QueueRecord *q, uint64_t seq) {
        const StoreFetched key = { .seq = seq };
        if (!p || p->fetch.queue != q->queue->id)
                return NULL;
        return bsearch(&key, p->fetch.tasks, p->fetch.n, sizeof(key), compare_fetched);
}

bool window_peek_has(const WindowPeek *p, const QueueRecord *q, uint64_t seq) {
        return peeked(p, q, seq);
}

TaskRecord *window_peek_record(const WindowPeek *p, QueueRecord *q, uint64_t seq) {
        const void *entry = seq_index_get(&q->tasks, seq);
        const StoreFetched *f = window_has(entry) ? peeked(p, q, seq) : NULL;
        StoredTask s;
        TaskRecord *t;
        if (!f || f->result < 0 || unpack(q, entry, eq_bytes(p->fetch.data + f->at, f->len), &s) < 0 ||
            restore_unpacked(&q->manager->window.shared, q, &s, &t) < 0)
                return NULL;
        task_init(&t->task, seq, TASK_LANE_NORMAL, window_bytes(entry));
        t->task.queue = q->queue;
        t->task.where = TASK_IN_READY;
        (void)task_set_state(&t->task, TASK_EV_ELIGIBLE);
        return t;
}

/* ---- life ---- */

void window_init(Manager *m) {
        list_init(&m->window.collecting);
}

void window_watch(Manager *m, WatchPart *part) {
        m->window.part = part;
}

void window_close(Manager *m) {
        window_send(m);
        m->window.closed = true;
}

void window_done(Manager *m) {
        m->window.shared.identity = identity_unref(m->window.shared.identity);
        m->window.shared.common = shared_options_unref(m->window.shared.common);
}

void window_forget_queue(QueueRecord *q) {
        if (q->wanted)
                q->wanted->queue = NULL;
        q->wanted = q->refilling = NULL;
}
