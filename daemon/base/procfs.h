/* SPDX-License-Identifier: MIT */
#pragma once

/* The little that eqd and its spawner need to know from /proc about processes below them. Never blocks. */

#include <stddef.h>
#include <sys/types.h>

/* A descriptor that procfs_read_children() reads again and again; of the calling thread, so not across a fork. Or
 * negative errno: -ENOENT where the kernel has no such list (CONFIG_PROC_CHILDREN). */
int procfs_open_children(void);

/* Children of that thread, zombies too. At most max of them: call again when those are gone. Number or negative errno. */
int procfs_read_children(int fd, pid_t *ret_pids, size_t max);

/* 1 if `variable` (NAME=VALUE) is in the environment that pid was started with, 0 if not, negative errno if that must
 * not or cannot be known: -EACCES for other users' processes. Looks at the first 256 KiB. */
int procfs_environ_has(pid_t pid, const char *variable);

/* When pid was started, in clock ticks since boot; 0 if that is hidden. */
unsigned long long procfs_start_ticks(pid_t pid);

/* Whether it has executed a program since it was forked; also of one that has ended and is not reaped. 1, 0, or negative
 * errno. */
int procfs_has_executed(pid_t pid);
