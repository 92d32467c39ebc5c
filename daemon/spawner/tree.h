/* SPDX-License-Identifier: MIT */
#pragma once

/* Ends every process below this one. Needs it to be a subreaper, so that orphans come to it and nobody gets away. */

#include <stdint.h>

/* Kills and reaps until no descendant is left, and nothing lives in the slots' cgroups (slots_fd; -1: none). Waits for
 * processes that take their time to die. children_fd: procfs_open_children() of this process. Returns how many there were. */
uint32_t tree_kill_all(int children_fd, int slots_fd);
