/* SPDX-License-Identifier: MIT */
#pragma once

/* What happens between fork and exec, in the child. */

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "spawner/wire.h"

/* What comes back on the error pipe if it does not get to exec. */
typedef struct ChildError {
        uint32_t stage; /* SpawnStage */
        int32_t error;
} ChildError;

typedef struct ChildPlan {
        const SpawnStart *request; /* checked */
        const char *strings;
        int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null, or a path of the request */
        int null_fd;                        /* /dev/null */
        int error_fd;                       /* close-on-exec */
        pid_t parent;
        bool any_identity;           /* set*id are permitted */
        bool bounding_is_empty;      /* nothing to gain by exec */
        const struct rlimit *nofile; /* the limit that the spawner was started with */
} ChildPlan;

/* Becomes the command, or reports a ChildError and ends. All signals must be blocked and have their default actions. */
_Noreturn void child_run(const ChildPlan *plan);
