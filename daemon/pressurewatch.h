/* SPDX-License-Identifier: MIT */
#pragma once

/* Who tells eqd that memory is short. In this order: what the service manager names (systemd's protocol of
 * $MEMORY_PRESSURE_WATCH: a file of the kernel, a FIFO, or a socket; /dev/null: nobody is to); the memory.pressure of eqd's own
 * cgroup; /proc/pressure/memory; and where the kernel lets eqd only read these, their counters, every 2 s. Loop. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

typedef struct PressureWatch PressureWatch;

typedef enum PressureKind {
        PRESSURE_OFF,     /* nobody tells */
        PRESSURE_TRIGGER, /* the kernel does, by POLLPRI */
        PRESSURE_STREAM,  /* each thing that can be read is one event */
        PRESSURE_COUNTER, /* looked at now and then */
} PressureKind;

typedef struct PressureConfig {
        const char *wanted;        /* "auto", "off", or an absolute path that is taken and none else */
        const char *watch, *write; /* $MEMORY_PRESSURE_WATCH, $MEMORY_PRESSURE_WRITE; NULL: not set */
        const char *cgroup;        /* eqd's own, as a directory; NULL: not known */
        const char *system;        /* /proc/pressure/memory */
        uint64_t threshold_usec;   /* time that tasks lose within a window of 2 s */
        uint64_t interval_usec;    /* of looking at counters */
} PressureConfig;

#define PRESSURE_WINDOW_USEC UINT64_C(2000000) /* what those without rights may have is a multiple of this */

/* *ret never is NULL on success, even if nobody tells: pressure_watch_kind() says so then, and pressure_watch_text() why.
 * pressed: memory is short; again and again while it is. 0 or -ENOMEM. */
int pressure_watch_open(uv_loop_t *loop, const PressureConfig *config, void (*pressed)(void *host), void *host,
                        PressureWatch **ret);
/* It is what these ask for, also if that is nobody; not one that found nobody, who may be there by now. */
bool pressure_watch_fits(const PressureWatch *w, const PressureConfig *config);
PressureWatch *pressure_watch_close(PressureWatch *w); /* run the loop once more after it. NULL is fine */

PressureKind pressure_watch_kind(const PressureWatch *w);
const char *pressure_watch_text(const PressureWatch *w); /* the path, or why there is none; for people */
