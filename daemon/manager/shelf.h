/* SPDX-License-Identifier: MIT */
#pragma once

/* Where the back of a long queue waits: tasks that will not start for a while, packed one behind the other. A task there costs
 * its bytes, SHELF_ITEM bytes and a slot of the index, a third of what a TaskRecord costs; and nothing is allocated for it.
 *
 * Which ones: tasks of volatile queues that are eligible at once, in the normal lane, small, and have no options but those that a
 * packed one can have; behind the QUEUE_FRONT first ones of their queue. The index of the queue says where each is: its entry is a
 * TaskRecord or an item of the shelf. Whoever wants one by its id gets a TaskRecord, which it then stays; lists only look.
 *
 *      submit -> shelf_put -> queue_shelve ... EngineHooks::refill, or somebody wants it -> shelf_take -> queue_unshelve
 *
 * Loop; nothing blocks. */

#include "manager/record.h"

enum {
        SHELF_ITEM = 40,        /* bytes beside those of the task, rounded up to 8 together */
        SHELF_BYTES_MAX = 4096, /* payload and options of one that is shelved */
};

static inline bool shelf_has(const void *entry) { /* of QueueRecord::tasks, or of the window; NULL is fine */
        return (uintptr_t)entry & 1;
}

typedef struct ShelfTask {
        uint64_t seq, ordinal; /* of the push */
        Identity *identity;
        SharedOptions *common;
        EqBytes payload, options;
        uint64_t submitted_usec;
        uint16_t retries;
} ShelfTask;

/* Copies it into memory of the queue, and into its index. Refers to identity and common; the references to the user, and what he
 * is charged, are the caller's. 0 or -ENOMEM. */
int shelf_put(QueueRecord *q, const ShelfTask *task);
/* As if it had not been put. */
void shelf_undo(QueueRecord *q, uint64_t seq);

/* The task with that number, as a record; it leaves the shelf for that. NULL: there is none, or no memory for it, or it is in the store
 * and eqd is not just starting: then shelf_has() is true for its entry still. */
TaskRecord *shelf_find(QueueRecord *q, uint64_t seq);

/* Something to look at, without taking it. */
typedef union ShelfView {
        TaskRecord record;
        char space[sizeof(TaskRecord) + SHELF_BYTES_MAX];
} ShelfView;
/* Not for one of the window. */
const TaskRecord *shelf_look(const QueueRecord *q, uint64_t seq, const void *entry, ShelfView *view);

/* EngineHooks::refill. False: there is no memory now. */
bool shelf_refill(QueueRecord *q);
/* Everything on it is given up; for the end of eqd. */
void shelf_clear(QueueRecord *q);
void shelf_done(Manager *m); /* when no queue is left */
