/* SPDX-License-Identifier: MIT */
#pragma once

/* The units of durations as people write them, to eqctl and in files alike, spelled as systemd.time(7) has them; without months and
 * years, whose length is nobody's agreement, and without M, which many would take for minutes. UNIT(name, microseconds). */
#define EQ_TIME_UNITS(UNIT)                                                                                            \
        UNIT("d", 86400000000)                                                                                         \
        UNIT("h", 3600000000)                                                                                          \
        UNIT("m", 60000000)                                                                                            \
        UNIT("s", 1000000)                                                                                             \
        UNIT("ms", 1000)                                                                                               \
        UNIT("us", 1)                                                                                                  \
        /* Read, never printed: */                                                                                     \
        UNIT("", 1000000)                                                                                              \
        UNIT("usec", 1)                                                                                                \
        UNIT("msec", 1000)                                                                                             \
        UNIT("sec", 1000000)                                                                                           \
        UNIT("second", 1000000)                                                                                        \
        UNIT("seconds", 1000000)                                                                                       \
        UNIT("min", 60000000)                                                                                          \
        UNIT("minute", 60000000)                                                                                       \
        UNIT("minutes", 60000000)                                                                                      \
        UNIT("hr", 3600000000)                                                                                         \
        UNIT("hour", 3600000000)                                                                                       \
        UNIT("hours", 3600000000)                                                                                      \
        UNIT("day", 86400000000)                                                                                       \
        UNIT("days", 86400000000)                                                                                      \
        UNIT("w", 604800000000)                                                                                        \
        UNIT("week", 604800000000)                                                                                     \
        UNIT("weeks", 604800000000)
enum { EQ_TIME_UNITS_PRINTED = 6 };
