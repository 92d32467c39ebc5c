/* SPDX-License-Identifier: MIT */
#pragma once

/* Processes made ahead of time. A start takes a waiting one and gives it the request; the fork that makes up for it
 * happens while the command runs. So a fork costs a start no time, and a command that finds one waiting starts even while
 * no process can be created.
 *
 * Most share the worker's memory (place.h), in which only plain requests are carried out: what is made next is for one like the last
 * one, if need be in place of one that waits.
 *
 * Some are reserved: each waits for one slot alone. One that has been used is made anew when its command has ended, before
 * anything else.
 *
 * With cgroups each waits in a group of its own, which is the command's then: nothing has to be moved at the start. A
 * group outlives its processes and is used again. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "spawner/cgroup.h"
#include "spawner/child.h"
#include "spawner/place.h"

enum { STOCK_SIZE_MAX = 64 };

/* One cgroup, for one process after the other and what it forks. */
typedef struct Group {
        List link; /* Stock::groups while nobody is in it */
        unsigned number;
        SlotCgroup cgroup;
} Group;

typedef struct Stub {
        List link; /* Stock::waiting, leaving or spare */
        pid_t pid;
        int line;     /* to it; owned. Readable when it has failed, end of file when it got to exec */
        bool shares;  /* the worker's memory: for plain requests only */
        Group *group; /* owned; NULL without cgroups */
} Stub;

typedef struct Reserve {
        List link; /* Stock::reserves */
        uint32_t slot;
        bool in_use; /* its process runs a command */
        Stub *stub;  /* owned; NULL: in use, or still to be made */
} Reserve;

typedef struct Stock {
        const ChildConfig *child; /* borrowed */
        int slots_fd;             /* -1: no cgroups */
        Places places;
        bool was_plain; /* the last request: what is made next is for one like it */
        unsigned size;  /* how many are to wait */
        unsigned n_waiting;
        unsigned n_groups;     /* made so far */
        uint64_t refused_usec; /* a fork was refused then; 0: the last one was not */
        List waiting, groups;
        List reserves; /* of Reserve::link, owned */
        unsigned n_reserves;
        List leaving; /* of Stub::link; were told to end and have not yet */
        List spare;   /* of Stub::link; stand for nothing */
} Stock;

void stock_init(Stock *s, const ChildConfig *child, int slots_fd, unsigned size);

/* So many are to wait from now on. Those that are too many, the oldest first, are told to end. */
void stock_set_size(Stock *s, unsigned size);

/* A process that waits for that slot alone. 0, or negative errno and there is none, but with `later` stock_fill() makes it. Fine
 * for one that has it. */
int stock_reserve(Stock *s, uint32_t slot, bool later);
void stock_unreserve(Stock *s, uint32_t slot); /* fine for one that has none; a command that runs goes on */
void stock_restore(Stock *s, uint32_t slot);   /* its command has ended */

/* How long until stock_fill() has something to do: 0: now, UINT64_MAX: not before one is taken. */
uint64_t stock_due_usec(const Stock *s, uint64_t now_usec);
/* Makes one, first what is reserved. 0 or negative errno; then it is due again a little later. */
int stock_fill(Stock *s, uint64_t now_usec);

/* A process that has been sent the request: the one of the slot, one that waits,
 * else a new one, before which all reserves are made that are missing. The caller gets pid, line and group, gives the
 * group back by stock_put_group() when nobody lives in it, and reaps the process. 0, or negative errno and where it failed. */
int stock_start(Stock *s, const Request *q, Stub *ret, SpawnStage *ret_stage);
void stock_put_group(Stock *s, Group *g); /* NULL is fine */

bool stock_has(const Stock *s, pid_t pid); /* one that waits, or waited and was told to end */
/* It has ended, and been reaped: somebody killed it while it waited, or it was told to. */
void stock_forget(Stock *s, pid_t pid);
