/* SPDX-License-Identifier: MIT */
#pragma once

/* What an eqd that was killed, and its spawner with it, may have left: the spawner itself, for a moment, and process trees of tasks.
 * They are ended before this eqd has a spawner, and before it gives up the right to kill other users' processes; nothing is looked at
 * but numbers that eqd has written. */

#include "engine/engine.h"

typedef struct Leftovers Leftovers;

/* Blocks: until all have ended, some seconds at most. What fails is logged. NULL: there is nothing to tell. */
Leftovers *leftovers_end(const char *store_dir);
/* Logs what became of each, now that the names of queues are known. */
void leftovers_tell(const Leftovers *l, const Engine *e);
Leftovers *leftovers_free(Leftovers *l); /* returns NULL; NULL is fine */
