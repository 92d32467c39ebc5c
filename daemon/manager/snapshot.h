/* SPDX-License-Identifier: MIT */
#pragma once

/* All queues and tasks in one file, for an eqd that is about to be replaced by the next: in a memfd, which the service
 * manager holds meanwhile. Loop; blocks no longer than memory takes.
 *
 *   "EQDSNAP1", then frames: length (32 bits, little-endian) of what follows it, kind (a byte), body
 *     G  id of a queue                                     no smaller generation is given again in its slot
 *     X  last SEQ, name                                    a name without a queue
 *     Q  id, last SEQ, length of name (a byte), name, StoredQueue
 *     T  SEQ, lane, length of task, StoredTask, StoredState   of the queue before it, not ended
 *     E  SEQ, lane, length of task, StoredTask, StoredEnd     likewise, ended; in the order of the ends
 *     Z  number of frames before it                        the end: without it something is missing
 *
 * Numbers have 64 bits, lengths 32, all little-endian. Changing it: another digit in the first word, and readers of both. */

#include "manager/restore.h"

int snapshot_save(const Manager *m, int fd); /* appends to fd. 0 or negative errno */
/* Between restore_begin() and restore_done(). What cannot be restored is counted in r->n_skipped, and said in the log. 0;
 * -EBADMSG: no such file, or it ends too early; other errors of reading; -ENOMEM. */
int snapshot_load(Restore *r, int fd);
