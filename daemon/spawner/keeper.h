/* SPDX-License-Identifier: MIT */
#pragma once

/* The process that outlives workers: it has the capabilities that a worker needs, and cleans up after one that died. */

#include <stdbool.h>

typedef struct KeeperConfig {
        int line;           /* SOCK_SEQPACKET to eqd; taken over */
        const char *cgroup; /* directory below which slots are made, NULL: process groups */
        bool allow_root;
        unsigned stock; /* processes that wait for a command */
} KeeperConfig;

/* Runs workers until eqd closes its end of the line. Blocks; returns the exit status of the program. */
int keeper_run(const KeeperConfig *config);
