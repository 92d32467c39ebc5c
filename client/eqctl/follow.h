/* SPDX-License-Identifier: MIT */
#pragma once

/* Waits for tasks in the foreground: streams their output, takes ^C, survives a restart of eqd, and gives the exit
 * status that the tasks ask for. */

#include "eqctl/ctl.h"

typedef struct FollowTask {
        char id[64]; /* QUEUE/SEQ */
        bool ended;
        int status; /* exit status for us; valid once ended */
        bool output_ended;
} FollowTask;

typedef struct Follow {
        Ctl *ctl;
        FollowTask *tasks; /* owned */
        size_t n_tasks;
        bool any;              /* the first that ends decides */
        bool output;           /* output is being sent to this connection; print it */
        bool output_failed;    /* it could not be written: said once, none is printed any more, and the end is 125 */
        bool reader_gone;      /* of the pipe that it goes to: nothing is waited for any more */
        bool kill_on_int;      /* the first ^C cancels */
        uint64_t timeout_usec; /* EQ_TIMEOUT_NEVER: none */
        int status_fd;         /* -1: none */
        bool json;             /* statuses are what is printed */
        uint64_t attempt;      /* that the last output was of; 0: none came */
        uint64_t printed;      /* bytes of output of that so far */
        uint64_t output_usec;  /* monotonic; when waiting for the rest of the output ends; 0: not begun */
        uint64_t *early_ends;  /* SEQs of tasks whose output ended before follow_add() knew them; owned */
        size_t n_early_ends;
} Follow;
#define FOLLOW_NULL(ctl_)                                                                                              \
        { .ctl = (ctl_), .timeout_usec = EQ_TIMEOUT_NEVER, .status_fd = -1 }

int follow_add(Follow *f, const char *id); /* 0 or -ENOMEM */
void follow_deinit(Follow *f);
/* Takes --kill-on-int, --status-fd and, when no output is printed, --json. 0, or the exit status. */
int follow_options(Follow *f);
/* Notifications that come before follow_run() must not be lost: call this before the tasks are submitted. */
void follow_begin(Follow *f);
/* Closes the connection at the end. Returns the exit status: that of the task, the highest of several, that of the first with `any`. */
int follow_run(Follow *f);

/* Exit status of `run` and `wait` for a failure of eqctl or eqd: 2 and 66 stay, all else is 125; but a connection that was lost
 * for good is 75. */
static inline int follow_failure(int status) {
        return status == 0 || status == EXIT_USAGE || status == EXIT_NOT_FOUND ? status : EXIT_NOT_RUN;
}
/* The same of `wait`, which puts nothing into a queue: that it is not permitted to is 77, as of other verbs. */
static inline int follow_wait_failure(int status) {
        return status == EXIT_NO_PERMISSION ? status : follow_failure(status);
}
/* What a task's end means as an exit status. */
int task_exit_status(const EqTask *t);
/* The parameters of a notification `output`: writes the bytes to standard output or error. 0 or -errno. */
int output_print(const void *params, size_t n_params, EqIdRef *ret_id, uint64_t *ret_attempt, size_t *ret_n);
