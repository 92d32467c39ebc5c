/* SPDX-License-Identifier: MIT */
#pragma once

/* Wakes the loop up a moment before a command ends. Of one that is over within a moment the loop hears by ENDED alone, and then a
 * CPU has to be woken up while the next command waits. But what it writes to is closed some 20 to 80 us before that:
 * the loop is woken up by it, beside the worker of the spawner, and turns without sleep until ENDED is there. Other
 * events are served meanwhile. Only while commands follow each other one by one, see base/spinner.h: where several run, a
 * CPU that spins is one that a command could have. Loop. */

#include <uv.h>

typedef struct EndWatch EndWatch;

int end_watch_new(uv_loop_t *loop, EndWatch **ret); /* 0 or -ENOMEM */
EndWatch *end_watch_free(EndWatch *w);              /* run the loop once more after it */
/* A command was started, no other runs, and its end is near when all that is at the other end of the pipe fd is closed. fd stays the
 * caller's, who has no poll handle for it before end_watch_leave(). Without memory nothing is watched. */
void end_watch_started(EndWatch *w, int fd);
void end_watch_leave(EndWatch *w); /* it will not end at once, or is not alone, or fd is to be closed */
void end_watch_ended(EndWatch *w); /* ENDED is there; leaves as well */
