/* SPDX-License-Identifier: MIT */
#pragma once

/* A waiting process that becomes somebody's command: what it does from the fork on until exec. */

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

/* To be called in a fresh child, all signals blocked and with default actions. inbox: for the request. Another than that of config says
 * that the memory is shared with the worker (place.h): then only plain requests are taken. Does what can be done before the command is
 * known, waits on `line` (SOCK_SEQPACKET) for a request as request_forward() sends it, and becomes the command, or reports a
 * ChildError and ends. Ends as well when the other end of the line is closed, or the parent dies. Descriptors that the
 * parent has are closed before it waits. What ends it before exec is a signal, or exit with CHILD_EXIT. */
_Noreturn void child_run(const ChildConfig *config, Inbox *inbox, int line);
