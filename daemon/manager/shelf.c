/* SPDX-License-Identifier: MIT */
/* Chunks of packed items. A queue fills one at a time; a chunk goes when its last item does. An item knows how far it is from the
 * front of its chunk, which can be anywhere. Chunks are mapped, not allocated: what a burst took goes back to the system as a whole,
 * and what was not reached is no memory yet. It is asked for in steps: page by page, as they are touched, costs a third more. */

#include "manager/shelf.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fault.h"
#include "base/util.h"
#include "manager/parts.h"
#include "manager/window.h"

enum { ALIGN = 8, CHUNK = 256 * 1024, STEP = 64 * 1024 };

struct ShelfChunk {
        QueueRecord *queue;
        uint32_t used, n_items;
        uint32_t present; /* up to here there is memory */
};

typedef struct Item {
        Identity *identity;
        SharedOptions *common;
        uint64_t submitted_usec, ordinal;
        uint16_t n_payload, n_options, retries;
        uint16_t at; /* from the front of the chunk, in units of ALIGN */
        char data[];
} Item;
_Static_assert(sizeof(Item) == SHELF_ITEM, "what an item costs is promised");
_Static_assert(CHUNK / ALIGN <= UINT16_MAX + 1, "an item finds its chunk");
_Static_assert(SHELF_BYTES_MAX <= UINT16_MAX, "lengths fit");

static Item *item_of(const void *entry) {
        return (Item *)((uintptr_t)entry - 1);
}

static void *entry_of(Item *i) {
        return (char *)i + 1;
}

/* ---- memory ---- */

static ShelfChunk *chunk_map(void) {
        if (fault_hit(FAULT_ALLOC))
                return NULL;
        void *p = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return p == MAP_FAILED ? NULL : p;
}

static void chunk_unmap(ShelfChunk *c) {
        (void)munmap(c, CHUNK); /* cannot fail for what was mapped */
}

static ShelfChunk *chunk_new(QueueRecord *q) {
        ShelfChunk *c = q->manager->spare_chunk;
        q->manager->spare_chunk = NULL;
        if (!c)
                c = chunk_map();
        if (c)
                *c = (ShelfChunk) { .queue = q, .used = sizeof(*c) };
        return c;
}

/* One is kept for all queues, so that a queue whose shelf is now empty, now not, maps nothing. */
static void chunk_free(ShelfChunk *c) {
        Manager *m = c->queue->manager;
        if (c->queue->shelf == c)
                c->queue->shelf = NULL;
        if (m->spare_chunk)
                chunk_unmap(c);
        else
                m->spare_chunk = c;
}

void shelf_done(Manager *m) {
        if (m->spare_chunk)
                chunk_unmap(m->spare_chunk);
        m->spare_chunk = NULL;
}

/* Without it, as before Linux 5.14, or without memory, pages come when they are touched. */
static void chunk_populate(ShelfChunk *c, uint32_t until) {
        uint32_t from = c->present;
        c->present = MIN((until + STEP - 1) / STEP * STEP, (uint32_t)CHUNK);
        (void)madvise((char *)c + from, c->present - from, MADV_POPULATE_WRITE);
}

static Item *item_new(QueueRecord *q, size_t n_bytes) {
        size_t size = (sizeof(Item) + n_bytes + ALIGN - 1) / ALIGN * ALIGN;
        ShelfChunk *c = q->shelf;
        if (!c || CHUNK - c->used < size) {
                ShelfChunk *fresh = chunk_new(q);
                if (!fresh)
                        return NULL;
                q->shelf = c = fresh; /* the one before has items, which free it */
        }
        Item *i = (Item *)((char *)c + c->used);
        c->used += (uint32_t)size;
        if (c->used > c->present)
                chunk_populate(c, c->used);
        i->at = (uint16_t)(((char *)i - (char *)c) / ALIGN);
        c->n_items++;
        return i;
}

static void item_free(Item *i) {
        identity_unref(i->identity);
        shared_options_unref(i->common);
        ShelfChunk *c = (ShelfChunk *)((char *)i - (size_t)i->at * ALIGN);
        if (--c->n_items == 0)
                chunk_free(c);
}

/* ---- in ---- */

int shelf_put(QueueRecord *q, const ShelfTask *task) {
        Item *i = item_new(q, task->payload.len + task->options.len);
        if (!i)
                return -ENOMEM;
        i->identity = identity_ref(task->identity);
        i->common = task->common;
        if (i->common)
                i->common->n_refs++;
        i->submitted_usec = task->submitted_usec;
        i->ordinal = task->ordinal;
        i->n_payload = (uint16_t)task->payload.len;
        i->n_options = (uint16_t)task->options.len;
        i->retries = task->retries;
        if (i->n_payload > 0)
                memcpy(i->data, task->payload.data, i->n_payload);
        if (i->n_options > 0)
                memcpy(i->data + i->n_payload, task->options.data, i->n_options);
        int r = seq_index_put(&q->tasks, task->seq, entry_of(i));
        if (r < 0)
                item_free(i);
        return r;
}

void shelf_undo(QueueRecord *q, uint64_t seq) {
        Item *i = item_of(seq_index_get(&q->tasks, seq));
        seq_index_remove(&q->tasks, seq);
        item_free(i);
}

/* ---- out ---- */

static EqBytes item_payload(const Item *i) {
        return eq_bytes(i->data, i->n_payload);
}

static EqBytes item_options(const Item *i) {
        return eq_bytes(i->data + i->n_payload, i->n_options);
}

static void fill(TaskRecord *t, uint64_t seq, const Item *i) {
        t->retries = i->retries;
        task_init(&t->task, seq, TASK_LANE_NORMAL, (uint32_t)i->n_payload + i->n_options);
}

/* The first one behind seq. */
static uint64_t next_on_shelf(const QueueRecord *q, uint64_t seq) {
        for (void *entry; seq++, (entry = seq_index_next(&q->tasks, &seq));)
                if (shelf_has(entry))
                        return seq;
        return UINT64_MAX;
}

/* Its tasks refer to it, so it is there; no new reference. */
static User *user_of(const QueueRecord *q, const Item *i) {
        User *user;
        (void)user_get(&q->manager->users, i->identity->uid, &user);
        user->n_refs--;
        return user;
}

static TaskRecord *take(QueueRecord *q, uint64_t seq, Item *i) {
        Queue *queue = q->queue;
        TaskRecord *t = task_record_new(q, i->identity, i->common, item_payload(i), item_options(i), i->submitted_usec);
        if (!t)
                return NULL;
        fill(t, seq, i);
        t->user = user_of(q, i);                /* with the reference that the item has had */
        (void)seq_index_put(&q->tasks, seq, t); /* replaces an entry, which needs no memory */
        uint64_t first = queue->shelf_first, ordinal = i->ordinal;
        item_free(i);
        queue_unshelve(queue, &t->task, ordinal, seq == first && queue->n_shelved > 1 ? next_on_shelf(q, seq) : first);
        return t;
}

TaskRecord *shelf_find(QueueRecord *q, uint64_t seq) {
        void *entry = seq_index_get(&q->tasks, seq);
        if (!shelf_has(entry))
                return entry;
        if (window_has(entry))
                return q->manager->restoring ? window_take_now(q, seq) : NULL;
        queue_enter(q->queue);
        TaskRecord *t = take(q, seq, item_of(entry));
        queue_leave(q->queue);
        return t;
}

const TaskRecord *shelf_look(const QueueRecord *q, uint64_t seq, const void *entry, ShelfView *view) {
        if (!shelf_has(entry))
                return entry;
        const Item *i = item_of(entry);
        TaskRecord *t = &view->record;
        memset(t, 0, sizeof(*t));
        t->queue = (QueueRecord *)q;
        fill(t, seq, i);
        t->task.queue = q->queue;
        t->task.where = TASK_IN_READY;
        (void)task_set_state(&t->task, TASK_EV_ELIGIBLE);
        t->spec = (TaskSpec) { .identity = i->identity,
                               .common = i->common,
                               .submitted_usec = i->submitted_usec,
                               .payload_len = i->n_payload,
                               .options_len = i->n_options,
                               .stdin_fd = -1 };
        memcpy(t->spec.data, i->data, (size_t)i->n_payload + i->n_options);
        return t;
}

bool shelf_refill(QueueRecord *q) {
        Queue *queue = q->queue;
        while (queue_wants_shelved(queue)) {
                uint64_t seq = queue->shelf_first;
                void *entry = seq_index_get(&q->tasks, seq);
                if (window_has(entry))
                        return window_refill(q);
                TaskRecord *t = take(q, seq, item_of(entry));
                if (!t)
                        return false;
                if (!q->ending)
                        continue;
                t->end_note = TASK_NOTE_REMOVED;
                (void)queue_cancel(queue, &t->task); /* it is pending, so this succeeds */
        }
        return true;
}

void shelf_clear(QueueRecord *q) {
        uint64_t seq = 0;
        for (void *entry; q->queue->n_shelved > 0 && (entry = seq_index_next(&q->tasks, &seq)); seq++) {
                if (!shelf_has(entry))
                        continue;
                Item *i = window_has(entry) ? NULL : item_of(entry);
                uint64_t n_bytes = i ? (uint64_t)i->n_payload + i->n_options : window_bytes(entry);
                User *user = i ? user_of(q, i) : window_user(q->manager, entry);
                user_refund(user, USER_TASKS, 1);
                user_refund(user, USER_TASK_BYTES, n_bytes);
                user_unref(user);
                q->manager->n_pending--;
                queue_drop_shelved(q->queue, n_bytes, i ? i->ordinal : window_ordinal(seq, entry));
                seq_index_remove(&q->tasks, seq);
                if (i)
                        item_free(i);
        }
}
