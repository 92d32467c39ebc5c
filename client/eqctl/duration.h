/* SPDX-License-Identifier: MIT */
#pragma once

/* Durations and times as people write them. No clock is read here. */

#include <stddef.h>
#include <stdint.h>

/* "10s", "5m", "1h30m", "2d", "500ms", "1.5h", "2 days", "90" (seconds). 0 or -EINVAL; -ERANGE above a hundred years. */
int duration_parse(const char *text, uint64_t *ret_usec);

typedef enum TimeSense {
        TIME_FUTURE, /* HH:MM is the next such time; a bare duration counts from now on */
        TIME_PAST,   /* HH:MM is the last such time; a bare duration means that long ago */
} TimeSense;

/* "HH:MM[:SS]", "noon", "midnight", "tomorrow [HH:MM]", of the past "yesterday [HH:MM]" and "today", "YYYY-MM-DD[ HH:MM[:SS]]"
 * (local time), "now", "now+5m", "now-5m", "@EPOCH", a duration. Both ends in microseconds since the epoch. 0 or -EINVAL. */
int time_parse(const char *text, uint64_t now_usec, TimeSense sense, uint64_t *ret_usec);

/* "0.8s", "12s", "4m12s", "31m", "1h03m", "3d04h". buf has 24 bytes. Returns buf. */
enum { DURATION_SIZE = 24 };
const char *duration_format(uint64_t usec, char *buf);
