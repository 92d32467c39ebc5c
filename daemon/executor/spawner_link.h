/* SPDX-License-Identifier: MIT */
#pragma once

/* eqd's end of the line to eqd-spawner: starts the program, sends requests, hands on what comes back. Knows the wire of
 * spawner/wire.h and nothing of tasks. The loop's host watches the descriptor and calls dispatch. Loop; never blocks. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "spawner/wire.h"

typedef struct SpawnerLink SpawnerLink;

typedef struct SpawnerConfig {
        const char *program; /* absolute path of eqd-spawner */
        bool allow_root;     /* uid 0 may be asked for (its commands run without capabilities) */
        const char *cgroup;  /* directory below which the slots' cgroups are made; NULL: process groups */
        unsigned stock;      /* processes that are forked ahead and wait for a command */
} SpawnerConfig;

typedef struct SpawnerEvents {
        void (*ready)(void *userdata, const SpawnReady *m);
        void (*started)(void *userdata, const SpawnStarted *m);
        void (*ended)(void *userdata, const SpawnEnded *m);
        /* The worker process is gone, and with it every run: no STARTED or ENDED comes for them. READY follows when the
         * keeper has cleaned up. */
        void (*lost)(void *userdata);
        /* The keeper is gone too; the link is closed. The host decides whether to spawner_link_restart(). */
        void (*closed)(void *userdata);
        void (*pong)(void *userdata); /* the answer to spawner_link_ping() */
} SpawnerEvents;

/* Starts the program with posix_spawn() (the daemon never forks itself). Must be called while the process still has the
 * capabilities that the spawner is to keep. Strings of config are copied. 0 or negative errno. */
int spawner_link_new(const SpawnerConfig *config, const SpawnerEvents *events, void *userdata, SpawnerLink **ret);
SpawnerLink *spawner_link_free(SpawnerLink *l); /* ends the spawner, which kills what still runs; waits for it */
int spawner_link_restart(SpawnerLink *l);       /* after `closed`: with whatever capabilities are left */

pid_t spawner_link_pid(const SpawnerLink *l); /* of the program; 0: none */
int spawner_link_fd(const SpawnerLink *l);  /* to poll for input; -1 while closed. The number can change in `closed` */
void spawner_link_dispatch(SpawnerLink *l); /* takes all that is there, calls events */

/* fds: in the order of the SPAWN_HAS_* flags, not taken over. 0; -EAGAIN: the line is full or the worker is not ready,
 * try later; other negative errno: cannot be sent. */
int spawner_link_start(SpawnerLink *l, const SpawnStart *m, const char *strings, const int *fds, unsigned n_fds);
int spawner_link_ping(SpawnerLink *l);
/* So many processes are to be forked ahead; also by the workers that come after this one. 0; -EAGAIN as above: it is repeated
 * when the worker says READY, else the host may do it. */
int spawner_link_set_stock(SpawnerLink *l, unsigned n);
/* A process is to wait for commands of that slot alone; it is lost with the worker. Waits for the answer, at most a second. 0;
 * -EAGAIN also: the worker is not there, or no process could be made; -ETIMEDOUT: the spawner stands still; other negative errno. */
int spawner_link_reserve(SpawnerLink *l, uint32_t slot);
/* The same, without waiting: the spawner makes it as soon as it can. */
int spawner_link_reserve_later(SpawnerLink *l, uint32_t slot);
void spawner_link_unreserve(SpawnerLink *l, uint32_t slot);
int spawner_link_signal(SpawnerLink *l, uint32_t slot, uint64_t run, int signal);
