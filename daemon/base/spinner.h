/* SPDX-License-Identifier: MIT */
#pragma once

/* When somebody looks for a message a moment before he sleeps. To wake a process up on an idle virtual CPU takes 40 to 70 us, and
 * between two commands that follow each other messages are about as far apart: when a command has ended, the START of the
 * next comes to the spawner's worker in 20 to 60 us, and when it has closed its output, its end comes to eqd. So he
 * spins, if
 *
 *   - the command before ended at most SPIN_GAP_USEC ago: what happens now and then gains nothing that is worth it
 *   - he may run on more than one CPU: on a single one he would keep it from who sends the message; that is a miss
 *   - it was worth it before: after n misses in a row, the next 2^n - 1 occasions are passed over, at most SPIN_SKIP_MAX
 *
 * It costs at most the bound of his spinning for a command, and where nothing comes that for SPIN_SKIP_MAX + 1 of them. No
 * threads. */

#include <stdbool.h>
#include <stdint.h>

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
