/* SPDX-License-Identifier: MIT */
#pragma once

/* What eqd itself may do: nothing, once the spawner runs. And which cgroup it may divide. Main thread. */

#include <stdbool.h>
#include <stddef.h>

/* Gives up every capability in every set, for good, so that even uid 0 gets none back by exec. What the kernel does not let
 * an unprivileged process give up, it does not have. 0 or negative errno. */
int privilege_drop(void);

/* From now on no exec of this process, and of those that it starts, gains anything: set-user-ID and the like are without effect.
 * There is no way back. 0 or negative errno. */
int privilege_forbid_gains(void);

/* The cgroup directory below which slots may be made: `wanted` (a directory), NULL or "auto" (our own, if it is delegated to
 * us), "off" (none). False: none; a wanted directory that does not serve is logged. Moves eqd into a subgroup `daemon` of a
 * delegated one, so that processes are in leaves only. */
bool privilege_find_cgroup(const char *wanted, char *ret, size_t size);
/* The cgroup that this process is in, as a directory. 0 or negative errno. */
int privilege_own_cgroup(char *ret, size_t size);
