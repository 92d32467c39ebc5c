/* SPDX-License-Identifier: MIT */
#pragma once

/* The back of a long durable queue: tasks that are in the store and nowhere else. What memory has of one is its entry in the index of
 * its queue, eight bytes, and the place of its record in that of the store, twelve.
 *
 * Which ones: tasks that have nothing but their bytes (StoredTask::plain), once they are durable, behind the front of their queue
 * (QUEUE_FRONT); and after a restart all such tasks. What has a time, a key, an edge, a hold, a state, a descriptor, another lane or
 * other queues stays a TaskRecord: the engine has to know of it.
 *
 *      durable -> window_keep ... EngineHooks::refill, or somebody wants it -> store_fetch -> a TaskRecord, which it then stays
 *
 * The store's reader thread reads them before they are needed, hundreds at once. One that cannot be read is FAILED, `lost`.
 *
 * Loop; nothing blocks but window_take_now(). */

#include "manager/manager.h"

static inline bool window_has(const void *entry) { /* of QueueRecord::tasks; such entries are of the shelf, too */
        return ((uintptr_t)entry & 3) == 3;
}
uint32_t window_bytes(const void *entry); /* of payload and options */
User *window_user(const Manager *m, const void *entry);
uint64_t window_ordinal(uint64_t seq, const void *entry);

void window_init(Manager *m);
void window_close(Manager *m);                  /* the store is about to be closed */
void window_done(Manager *m);                   /* ... and is */
void window_forget_queue(QueueRecord *q);       /* it goes; nothing of it is here */
void window_send(Manager *m);                   /* what was wanted in this turn */
void window_watch(Manager *m, WatchPart *part); /* part may be NULL */

/* t, durable and about to be pushed, is left to the store instead: then it was freed. False: it is to be pushed. */
bool window_keep(TaskRecord *t);
/* One that was in the store before a restart, with what is charged for it. 0; 1: it cannot be here; -ENOMEM. */
int window_restore(QueueRecord *q, uint64_t seq, uid_t uid, uint32_t n_bytes);
int window_restored(QueueRecord *q); /* all of its tasks were. 0 or -ENOMEM */

bool window_refill(QueueRecord *q); /* as shelf_refill() */
/* It is to be a record soon: *ret_ticket is up to when, see ManagerHooks::read. 0 or -ENOMEM. */
int window_want(QueueRecord *q, uint64_t seq, uint64_t *ret_ticket);
TaskRecord *window_take_now(QueueRecord *q,
                            uint64_t seq); /* NULL: it cannot be read, or no memory. Blocks: while eqd starts */
/* Cancels the first one here if it is older than `oldest`, the oldest of those that are records, or NULL. True: it did. */
bool window_drop_oldest(QueueRecord *q, const Task *oldest);

/* For those who only look. */
typedef struct WindowPeek WindowPeek;
struct WindowPeek {
        StoreFetch fetch; /* of tasks of one queue, in order of SEQ */
        size_t cap;
        void *owner; /* NULL: nobody is told any more, and it frees itself */
        void (*done)(WindowPeek *p);
};
enum { WINDOW_PEEK_MAX = 256 };
WindowPeek *window_peek_new(QueueRecord *q);       /* NULL: no memory */
bool window_peek_add(WindowPeek *p, uint64_t seq); /* false: it is full */
void window_peek(Manager *m, WindowPeek *p);       /* then `done` is called once, and it is the caller's again */
void window_peek_free(WindowPeek *p);
bool window_peek_has(const WindowPeek *p, const QueueRecord *q,
                     uint64_t seq); /* it was read, or cannot be; p may be NULL */
/* A record to look at, like any that is queued, for task_record_free(). NULL: it is not in p, or cannot be read, or no memory. */
TaskRecord *window_peek_record(const WindowPeek *p, QueueRecord *q, uint64_t seq);
