/* SPDX-License-Identifier: MIT */
#pragma once

/* A waiting process that becomes somebody's command: what it does from the fork on until exec. It may share the worker's memory
 * for that time, see place.h. */

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "spawner/request.h"

/* What comes back on its line if it does not get to exec. The line is closed by exec, and by its end. */
typedef struct ChildError {
        uint32_t stage; /* SpawnStage */
        int32_t error;
} ChildError;

enum { CHILD_EXIT = 127 }; /* exit status of one that did not get to exec; commands may have it, too */

typedef struct ChildConfig {
        int null_fd;  /* /dev/null */
        Inbox *inbox; /* for those that are forked: their copy of it */
        pid_t parent;
        bool any_identity;           /* set*id are permitted */
        bool bounding_is_empty;      /* nothing to gain by exec */
        const struct rlimit *nofile; /* the limit that the spawner was started with */
} ChildConfig;

/* The memory that it takes up. */
typedef struct ChildRoom {
        Inbox *inbox;
        Request request;
        char **vector; /* arguments and environment where they are many; a mapping, owned */
        size_t vector_size;
} ChildRoom;

/* Where a child has left memory that it shared: gives back what it took there. Not its descriptors, which were in a table of its
 * own. Repeatable. */
void child_room_clean(ChildRoom *room);

/* To be called in a fresh child, all signals blocked and with default actions. Does what can be done before the command is
 * known, waits on `line` (SOCK_SEQPACKET) for a request as request_forward() sends it, and becomes the command, or reports a
 * ChildError and ends. Ends as well when the other end of the line is closed, or the parent dies. Descriptors that the
 * parent has are closed before it waits. What ends it before exec is a signal, or exit with CHILD_EXIT. */
_Noreturn void child_run(const ChildConfig *config, ChildRoom *room, int line);
