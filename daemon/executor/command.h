/* SPDX-License-Identifier: MIT */
#pragma once

/* The executor that runs commands: turns a TaskSpec into a request to the spawner, reads the output pipes, keeps the
 * tail, enforces the time-out with TERM -> grace -> KILL, and answers the engine with the exit status. Loop. */

#include <uv.h>

#include "engine/engine.h"
#include "executor/outputlog.h"
#include "executor/spawner_link.h"
#include "executor/taskspec.h"

typedef struct CommandExecutor CommandExecutor;

/* TaskResult::details of this executor. */
typedef struct CommandResult {
        int exit;   /* -1: none */
        int signal; /* 0: none */
        bool core;
        uint64_t utime_usec, stime_usec, maxrss_kib;
        char error[256]; /* why it could not be started and what to do, for people; empty if it was started */
} CommandResult;

/* Exit statuses of commands that could not be started, as shells have them. */
enum { COMMAND_EXIT_SETUP = 125, COMMAND_EXIT_NOT_EXECUTABLE = 126, COMMAND_EXIT_NOT_FOUND = 127 };

typedef struct CommandSetup {
        const TaskSpec *spec;
        const char *queue; /* name, for EQD_QUEUE and EQD_TASK */
        const Identity *run_as;
        OutputLog *log;                    /* where output goes; borrowed until engine_task_ended() */
        uint64_t timeout_usec, grace_usec; /* 0: no time-out */
        int nice;                          /* where the task asks for none; 0: eqd's own */
} CommandSetup;

/* What the host decides or wants to know. Any may be called from inside executor calls and from the loop. */
typedef struct CommandHooks {
        /* Final values for this start, from the task's options, its queue and the identity it runs as. */
        int (*prepare)(void *host, Task *t, CommandSetup *ret);
        void (*unprepare)(void *host, Task *t); /* it was not started after all */
        /* The process runs: pid, and when it was started, in clock ticks since boot (0: hidden). */
        void (*running)(void *host, Task *t, pid_t pid, uint64_t start_ticks);
        /* Output came in; already in the task's log. Returns true to stop reading this task's pipes until
         * command_executor_resume(), because an attached client does not keep up. */
        bool (*output)(void *host, Task *t, uint8_t stream, const char *data, size_t n);
        /* Identities, cgroups: known, or changed after a restart of the spawner. */
        void (*spawner_ready)(void *host, const SpawnReady *m);
        void (*spawner_lost)(void *host);
} CommandHooks;

/* config NULL: there will be no spawner, and nothing can be started. The host does not let tasks come that far. */
int command_executor_new(uv_loop_t *loop, Engine *engine, const SpawnerConfig *config, const CommandHooks *hooks,
                         void *host, CommandExecutor **ret);
CommandExecutor *command_executor_free(CommandExecutor *x); /* closes its handles; run the loop once more after it */
Executor *command_executor(CommandExecutor *x);
const SpawnReady *command_executor_spawner(const CommandExecutor *x); /* NULL before the first READY */
pid_t command_executor_keeper(const CommandExecutor *x);              /* that of the spawner's other process; 0: none */

/* Asks the spawner for a sign of life, unless it owes one; the watch knows it as a part. Loop, now and then. */
void command_executor_ask(CommandExecutor *x);
/* So many processes are to be forked ahead and wait for a command. Loop. */
void command_executor_set_stock(CommandExecutor *x, unsigned n);
void command_executor_resume(CommandExecutor *x, Task *t); /* reads its output again; also when it was not stopped */
int command_executor_signal(CommandExecutor *x, Task *t, int signal); /* whole tree. 0, or -ESRCH: no process */

/* Are these resource limits (NAME=SOFT[:HARD], as in `rlimits` of submit) well-formed? 0, or -EINVAL with a text that
 * says what is wrong and what is expected. */
int command_rlimits_check(EqArray rlimits, char *ret_error, size_t size);
