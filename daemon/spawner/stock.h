/* SPDX-License-Identifier: MIT */
#pragma once

/* Processes forked ahead of time. A start takes a waiting one and gives it the request; the fork that makes up for it
 * happens while the command runs. So a fork costs a start no time, and a command that finds one waiting starts even while
 * no process can be created.
 *
 * With cgroups each waits in a group of its own, which is the command's then: nothing has to be moved at the start. A
 * group outlives its processes and is used again. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "spawner/cgroup.h"
#include "spawner/child.h"

enum { STOCK_SIZE_MAX = 64 };

/* One cgroup, for one process after the other and what it forks. */
typedef struct Group {
        List link; /* Stock::groups while nobody is in it */
        unsigned number;
        SlotCgroup cgroup;
} Group;

typedef struct Stub {
        List link; /* Stock::waiting */
        pid_t pid;
        int line;     /* to it; owned. Readable when it has failed, end of file when it got to exec */
        Group *group; /* owned; NULL without cgroups */
} Stub;

typedef struct Stock {
        const ChildConfig *child; /* borrowed */
        int slots_fd;             /* -1: no cgroups */
        unsigned size;            /* how many are to wait */
        unsigned n_waiting;
        unsigned n_groups;     /* made so far */
        uint64_t refused_usec; /* a fork was refused then; 0: the last one was not */
        List waiting, groups;
} Stock;

void stock_init(Stock *s, const ChildConfig *child, int slots_fd, unsigned size);

/* How long until stock_fill() has something to do: 0: now, UINT64_MAX: not before one is taken. */
uint64_t stock_due_usec(const Stock *s, uint64_t now_usec);
/* Forks one. 0 or negative errno; then it is due again a little later. */
int stock_fill(Stock *s, uint64_t now_usec);

/* A process that has been sent the request: one that waits, else a new one. The caller gets pid, line and group, gives the
 * group back by stock_put_group() when nobody lives in it, and reaps the process. 0, or negative errno and where it failed. */
int stock_start(Stock *s, const Request *q, Stub *ret, SpawnStage *ret_stage);
void stock_put_group(Stock *s, Group *g); /* NULL is fine */

bool stock_has(const Stock *s, pid_t pid);
/* It has ended, and been reaped, while it waited: somebody killed it. */
void stock_forget(Stock *s, pid_t pid);
