/* SPDX-License-Identifier: MIT */
#pragma once

/* When the worker looks for work a moment before it sleeps. When a command has ended the START of the next is 20 to 60 us away, and
 * to wake a process up on an idle virtual CPU takes as long again. So it spins, if
 *
 *   - the command before ended at most SPIN_GAP_USEC ago: what happens now and then gains nothing that is worth it
 *   - it may run on more than one CPU: on a single one it would keep from eqd what eqd needs to send START; that
 *     is a miss
 *   - it was worth it before: after n misses in a row, the next 2^n - 1 occasions are passed over, at most SPIN_SKIP_MAX
 *
 * It costs at most SPIN_USEC of CPU time for a command, and where nothing comes SPIN_USEC for SPIN_SKIP_MAX + 1 of them. No
 * threads. */

#include <stdbool.h>
#include <stdint.h>

#define SPIN_USEC UINT64_C(60)
#define SPIN_GAP_USEC UINT64_C(4000)
enum { SPIN_SKIP_MAX = 63 };

typedef struct Spinner {
        uint64_t ended_usec; /* when the last command ended */
        bool due;            /* one has ended since the last spinning, soon after another */
        unsigned n_skip;     /* occasions still to be passed over */
        unsigned backoff;    /* how many after the next miss */
} Spinner;

void spinner_ended(Spinner *s, uint64_t now_usec);
bool spinner_begin(Spinner *s);          /* is it to spin now, before it sleeps, if it has the CPUs? */
void spinner_note(Spinner *s, bool hit); /* how that was */
bool spinner_has_cpus(void);             /* more than one; false as well where there are more than glibc's sets hold */
