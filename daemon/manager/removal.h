/* SPDX-License-Identifier: MIT */
#pragma once

/* The end of a queue, for a client or because its file is gone.
 *
 *   in use --begin--> removing: takes no more --empty, told of all, plugin closed--> gone
 *                        `--rm: what is in it is canceled, or stopped--^
 *
 * Until it has gone it may be changed like others, and that is kept: a crash, or its file that is there again, brings it back.
 * Loop; nothing blocks. */

#include "manager/manager.h"

typedef struct RemoveWaiter RemoveWaiter;
struct RemoveWaiter {
        List link;     /* QueueRecord::removers */
        bool given_up; /* set before done(): the store has failed, and the queue stays */
        void (*done)(RemoveWaiter *w);
};
/* Cancels what is pending, stops what runs, then removes it and calls w. 0, or negative with a refusal. */
int manager_queue_rm(Manager *m, QueueRecord *q, bool yes, RemoveWaiter *w, Refusal *ret_refusal);

void removal_begin(QueueRecord *q); /* it takes no more, and what is in it runs to its end; repeatable */
/* A task ended, or was told of: goes on with a removal. Its own part is done by QueueRecord::remove_timer. */
void removal_settle(Manager *m, QueueRecord *q);
void removal_fire(Timer *timer);      /* QueueRecord::remove_timer */
void removal_give_up(QueueRecord *q); /* the store has failed: it stays, and who waits is told so */
