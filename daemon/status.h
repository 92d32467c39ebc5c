/* SPDX-License-Identifier: MIT */
#pragma once

/* Keeps the line that `systemctl status` shows true: the worst stall, if any, a queue that is rescued, if any, then queues,
 * running and pending tasks. After a change it is told anew, at most once a second; while nothing changes the loop is not woken.
 * Without a service manager nothing is done. Loop. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "manager/manager.h"

enum { STATUS_MAX = 384 }; /* room for the line */

typedef struct StatusNumbers {
        size_t n_queues, n_running, n_pending;
        uint64_t stall_episode, stall_usec; /* the worst that lasts, as it was last reported; 0: none */
        uint64_t rescue_queue;              /* as of manager_rescue(); 0: none */
        eq_reason rescue_reason;
        int rescue_error;
        bool lost_others;  /* manager_lost_others() */
        bool pressed;      /* manager_is_pressed() */
        const char *store; /* manager_store_trouble() */
} StatusNumbers;

typedef struct Status {
        uv_check_t check;       /* looks after each turn of the loop, which is when numbers have changed */
        uv_timer_t timer;       /* set while a change waits for its second */
        const Manager *manager; /* borrowed; outlives status_stop() */
        StatusNumbers told;
        uint64_t told_msec;
        bool running;
} Status;

void status_text(const Manager *m, char *buf, size_t size);      /* the line as of now */
void status_start(Status *s, uv_loop_t *loop, const Manager *m); /* READY=1 has just told the first line */
void status_stop(Status *s); /* closes its handles; repeatable, also before status_start() */
