/* SPDX-License-Identifier: MIT */
#pragma once

/* Process trees that an eqd before this one has left, because it and its spawner were killed. Each is known by what is on record of
 * its leader: pid and start.
 *
 * A leader has a session of its own. Its tree is all that is below it, and all in the sessions of those. If the leader is gone (it
 * dies with the spawner) and somebody of its session lives, then nobody else can have got its pid, or a session of that number; only
 * whether that was so all the time is not known. So one of the session has to have the task in its environment.
 *
 * Nothing here is of the loop; it blocks, up to a bound. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum LeftoverFate {
        LEFTOVER_NONE,     /* nobody is there */
        LEFTOVER_KILLED,   /* n_killed processes, all of which have ended */
        LEFTOVER_ANOTHER,  /* pid is another process by now: left alone */
        LEFTOVER_UNPROVEN, /* its session lives, and nobody of it can be seen to be of the task: left alone */
        LEFTOVER_ALIVE,    /* some live on: error says why */
} LeftoverFate;

typedef struct Leftover {
        pid_t pid;
        uint64_t start_ticks; /* as in procfs_start_ticks() */
        uint64_t seq;         /* of its task, as EQD_TASK and EQD_ATTEMPT have it */
        uint32_t attempt;

        LeftoverFate fate; /* what has become of it, as the rest */
        unsigned n_killed;
        int error; /* negative errno; -ETIMEDOUT: they did not end in time */
} Leftover;

/* Kills the trees of all, and waits for their ends; bound_usec in all. 0, or negative errno: processes cannot be looked at, and no
 * fate is set. */
int leftovers_kill(Leftover *l, size_t n, uint64_t bound_usec);

/* Waits for a process to end by itself, and kills it when that takes longer than patience_usec. 0: it is gone, or another one by
 * now; negative errno. */
int leftover_wait(pid_t pid, uint64_t start_ticks, uint64_t patience_usec, uint64_t bound_usec);
