/* SPDX-License-Identifier: MIT */
#pragma once

/* The little that eqd and its spawner need to know from /proc about processes below them. Never blocks. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A descriptor that procfs_read_children() reads again and again; of the calling thread, so not across a fork. Or
 * negative errno: -ENOENT where the kernel has no such list (CONFIG_PROC_CHILDREN). */
int procfs_open_children(void);

/* Children of that thread, zombies too. At most max of them: call again when those are gone. Number or negative errno. */
int procfs_read_children(int fd, pid_t *ret_pids, size_t max);

/* 1 if `variable` (NAME=VALUE) is in the environment that pid was started with, 0 if not, negative errno if that must
 * not or cannot be known: -EACCES for other users' processes. Looks at the first 256 KiB. */
int procfs_environ_has(pid_t pid, const char *variable);

/* CPU time that pid and all below it have used so far, those that were waited for included, in steps of a clock tick. Looks
 * at 256 processes at most, and at children of main threads only: for a sign of life, not for a bill. 0: it is gone. */
uint64_t procfs_tree_cpu_usec(pid_t pid);
/* The same for a cgroup2 directory, exactly. 0, or negative errno. */
int procfs_cgroup_cpu_usec(const char *dir, uint64_t *ret);

/* Where a thread is, for people; each only if that may be known. */
typedef struct ProcfsWhere {
        char state;       /* as in proc(5); '\0': it is gone, or hidden */
        char wchan[64];   /* function of the kernel that it waits in */
        int system_call;  /* its number; -1: none, or hidden */
        char stack[1024]; /* of functions of the kernel, a line each, cut. Needs CAP_SYS_ADMIN */
} ProcfsWhere;
/* Thread tid of process pid; tid 0: its main thread. */
void procfs_where(pid_t pid, pid_t tid, ProcfsWhere *ret);
/* "S in futex_do_wait, system call 202", or "?". Returns ret. */
char *procfs_where_text(const ProcfsWhere *w, char *ret, size_t size);

/* What the kernel says of a process: pid, pgrp and session are not given to others as long as any of them is so used. */
typedef struct ProcfsStat {
        pid_t pid, parent, pgrp, session;
        char state; /* as in proc(5) */
        unsigned long long start_ticks;
} ProcfsStat;
int procfs_stat(pid_t pid, ProcfsStat *ret); /* 0; -ESRCH: there is none, or it is hidden */
/* The environment that pid was started with, as strings one after the other, each ended by a NUL; what is longer is cut. Number
 * of bytes, or negative errno: -EACCES for other users' processes. */
int procfs_read_environ(pid_t pid, char *buf, size_t size);

/* When pid was started, in clock ticks since boot; 0 if that is hidden. */
unsigned long long procfs_start_ticks(pid_t pid);

/* Whether it has executed a program since it was forked; also of one that has ended and is not reaped. 1, 0, or negative
 * errno. */
int procfs_has_executed(pid_t pid);
