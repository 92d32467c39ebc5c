/* SPDX-License-Identifier: MIT */
#pragma once

/* Queues and tasks that an eqd before this one had, made again from their stored forms by whoever kept them. Before the
 * configuration is applied, so that queues of files find their former selves. Loop; nothing blocks, nothing is started. */

#include "manager/manager.h"
#include "manager/stored.h"

/* A task of which only the key was left, and that another one has now. */
typedef struct StaleKey {
        const QueueRecord *queue;
        uint64_t seq;
} StaleKey;

typedef struct Restore {
        Manager *manager;
        SharedParts shared;
        size_t n_queues, n_pending, n_finished, n_skipped;
        StaleKey *stale; /* until restore_done() */
        size_t n_stale, cap_stale;
} Restore;

void restore_begin(Restore *r, Manager *m);
/* Ties `after` edges, and lets tasks be started. Always called. 0, or -ENOMEM: some edges are missing, so do not go on. */
int restore_done(Restore *r);

/* 0. -ENOMEM. -EINVAL, -EBADMSG, -EEXIST, -EBUSY: it cannot be one that eqd has kept; nothing was made of it. */
int restore_queue(Restore *r, EqBytes name, uint64_t id, uint64_t last_seq, const StoredQueue *stored,
                  QueueRecord **ret);
/* A name that has no queue any more, and its last id. */
int restore_tombstone(Restore *r, EqBytes name, uint64_t id, uint64_t last_seq);
/* A record of what is stored, charged to nobody and in no index; its `task` is still to be initialised. 0 or -ENOMEM. */
int restore_unpacked(SharedParts *shared, QueueRecord *q, const StoredTask *stored, TaskRecord **ret);
/* state NULL: as it was submitted. It runs again from its own place; what cannot run again is FAILED (lost). */
int restore_task(Restore *r, QueueRecord *q, uint64_t seq, TaskLane lane, const StoredTask *stored,
                 const StoredState *state);
/* One that has ended; of each queue in the order of their ends. */
int restore_end(Restore *r, QueueRecord *q, uint64_t seq, TaskLane lane, const StoredTask *stored,
                const StoredEnd *end);

/* The way there: stored forms of what is. Slices live as long as the record and b, which holds what was put together. */
void restore_pack_queue(const QueueRecord *q, EqBuffer *b);
void restore_pack_task(const Manager *m, const TaskRecord *t, EqBuffer *b);
/* fate: RETRY or RETURN of the attempt that has just ended, which t does not show yet; NULL: as t is. */
void restore_pack_state(const Manager *m, const TaskRecord *t, const TaskFate *fate, EqBuffer *b);
void restore_pack_end(const TaskRecord *t, EqBuffer *b);
/* Of a task of which only the key is kept: as a task, and its end. */
void restore_pack_key(uid_t uid, EqBytes key, EqBuffer *b);
void restore_pack_key_end(uint64_t finished_usec, EqBuffer *b);
