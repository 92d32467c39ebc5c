/* SPDX-License-Identifier: MIT */
#pragma once

/* What eqd does while memory is short. Somebody (daemon/pressurewatch.h) tells of it again and again while it is; it counts as over
 * when nothing was told for pressure_hold. Loop.
 *
 * Each time: idle threads and waiting processes go, and free memory is given back. Until it is over: no thread more, half as
 * long batches, and queues with on_pressure=reject take no tasks. */

#include <stdbool.h>
#include <stdint.h>

#include "manager/timers.h"

typedef struct Manager Manager;

typedef struct Pressure {
        Timer timer;                                  /* the end, while it lasts */
        uint64_t began_usec;                          /* monotonic; 0: there is none */
        uint64_t told_usec, acted_usec, trimmed_usec; /* last */
        uint64_t n_events, n_episodes;                /* since the start */
} Pressure;

int pressure_init(Manager *m); /* 0 or -ENOMEM */
/* Memory is short. source: who says so, for people. */
void manager_take_pressure(Manager *m, const char *source);
uint64_t pressure_left_usec(const Manager *m); /* until it is over, if nothing more is told */
bool manager_is_pressed(const Manager *m);
/* How many processes are to wait for commands now. */
unsigned pressure_stock(const Manager *m);
