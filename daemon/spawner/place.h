/* SPDX-License-Identifier: MIT */
#pragma once

/* Children that share the worker's memory until they execute something, as those of vfork() do, while the worker goes on. A
 * fork copies its page tables, the worker then takes a fault for each page that it writes to, and the child takes it all
 * apart at exec; of this nothing is left: 80 us of CPU time for a command (docs/decisions/2026-11-28-shared-memory.md).
 *
 * A place is what a child has for itself there: a stack, a thread pointer (errno, and whatever else the C library keeps per
 * thread), and an inbox. The first two are those of a thread of the worker that never runs again. What a child must not do there
 * says child.c.
 *
 * Who may look in: nobody, as the memory is not dumpable (keeper.c), and stays so when a child becomes somebody else, while the sysctl
 * fs.suid_dumpable is 0. Who may signal a child ends that child alone. But when the kernel ends one for want of memory, it ends all
 * that share it, and the worker is started again: a limit of memory is nothing that a child may be given before exec. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "spawner/child.h"

enum { PLACES_MAX = 80 }; /* all that may wait, and some that are on their way to exec */

typedef struct Place Place;

typedef struct Places {
        int suid_dumpable; /* the sysctl, owned; -1: nothing is shared */
        unsigned n;
        Place *all[PLACES_MAX]; /* never given back */
} Places;

/* Makes none yet. suid_dumpable: where that sysctl stands; what cannot be read, or not on this processor, means that nothing is shared. */
void places_init(Places *p, const char *suid_dumpable);

/* Whether children may share memory now. To be asked when one is made and again when it is given its request. One system call. */
bool places_may_share(const Places *p);

/* A child that runs child_run() in this memory, with SIGCHLD at its end; line is the caller's to close. The worker's main thread only.
 * cgroup: where it is put, or -1. Its pid, or negative errno; -EAGAIN as well where there is no place, or none can be. Makes one if
 * all are taken, which asks for memory and a thread. */
pid_t places_clone(Places *p, const ChildConfig *config, int cgroup, int line);
