/* SPDX-License-Identifier: MIT */
#pragma once

/* The process that serves the line: starts commands, watches them, ends their trees. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

typedef struct WorkerConfig {
        int line;     /* SOCK_SEQPACKET, non-blocking; to eqd */
        int slots_fd; /* DIR/slots of the cgroups, -1: process groups */
        const char *cgroup;
        bool allow_root, any_identity, bounding_is_empty;
        unsigned stock;                   /* processes that wait for a command */
        uint32_t restarts, killed, epoch; /* for SPAWN_READY */
        pid_t keeper;
        const struct rlimit *nofile; /* to give back to commands; NULL: they have it */
} WorkerConfig;

/* To be called in a fresh child of the keeper, all signals blocked. Ends when eqd closes its end, or the keeper dies:
 * then every process below it has been killed. */
_Noreturn void worker_run(const WorkerConfig *config);
