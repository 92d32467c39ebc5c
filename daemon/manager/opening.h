/* SPDX-License-Identifier: MIT */
#pragma once

/* What a store tells while it is opened, as queues and tasks again. Loop, before anything else is done there. */

#include "manager/restore.h"
#include "store/store.h"

typedef struct RunningMark RunningMark;
typedef struct EndedTask EndedTask;

typedef struct Opening {
        Restore *restore;
        uint64_t queue_id, n_told; /* tasks */
        QueueRecord *queue;        /* of that id, whose tasks come; NULL: they are left out */
        RunningMark *marks;
        size_t n_marks, cap_marks;
        bool sorted;
        EndedTask *ended; /* of `queue` */
        size_t n_ended, cap_ended;
        TaskRecord **changed; /* to be written down when the store is open */
        size_t n_changed, cap_changed;
} Opening;

extern const StoreReader opening_reader; /* its userdata is an Opening, zero but for `restore` */
void opening_done(Opening *o);           /* the restored ones stay */
