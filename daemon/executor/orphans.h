/* SPDX-License-Identifier: MIT */
#pragma once

/* What tasks had forked, when both processes of the spawner have died at once: without cgroups nobody else knows of it. eqd
 * is a subreaper, so it all becomes eqd's children, and is killed and reaped here. Loop, which is the main thread; nothing
 * blocks. */

#include <sys/types.h>
#include <uv.h>

typedef struct Orphans Orphans;

/* Makes the process a subreaper, for what is forked from now on. 0 or negative errno. */
int orphans_new(uv_loop_t *loop, Orphans **ret);
Orphans *orphans_free(Orphans *o); /* run the loop once more after it */

/* Kills every child but `spare` (0: none), and what these leave, until nobody is there. To be called again when another one is
 * to be spared. */
void orphans_sweep(Orphans *o, pid_t spare);
