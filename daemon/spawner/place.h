/* SPDX-License-Identifier: MIT */
#pragma once

/* Children that share the worker's memory until they execute something, as those of vfork() do, while the worker goes on. A
 * fork copies its page tables, the worker then takes a fault for each page that it writes to, and the child takes it all
 * apart at exec; of this nothing is left: 80 us of CPU time for a command (docs/decisions/2026-11-28-shared-memory.md).
 *
 * A place is what a child has for itself there: a stack, a thread pointer (errno, and whatever else the C library keeps per
 * thread), and room for its request. The first two are those of a thread of the worker that never runs again. So a child
 * must not use what is global in the C library: no memory of malloc(), whose lock would be held for ever if the child is
 * killed, and no set*id functions of glibc, which take a lock and go through all threads (child.c).
 *
 * Who may look in: nobody, as the memory is not dumpable, and stays so when a child becomes somebody else, unless
 * fs.suid_dumpable is 1. There is no sharing then. Whoever may signal a child ends that child alone; only the kernel, when
 * it has no memory left, kills all that share it, and the worker is started again. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "spawner/child.h"

enum { PLACES_MAX = 80 }; /* all that may wait, and some that are on their way to exec */

typedef struct Place Place;

typedef struct Places {
        bool possible;
        unsigned n;
        Place *all[PLACES_MAX]; /* never given back */
} Places;

/* Makes none yet. No children share memory where that is not possible: other processors than x86-64, fs.suid_dumpable. */
void places_init(Places *p);

/* A child that runs child_run(config, ..., line) in this memory, with SIGCHLD at its end; line is the caller's to close. The
 * worker's main thread only. cgroup: where it is put, or -1. Its pid, or negative errno; -EAGAIN as well where there is no
 * place, or none can be. Makes one if all are taken, which asks for memory and a thread. */
pid_t places_clone(Places *p, const ChildConfig *config, int cgroup, int line);
