/* SPDX-License-Identifier: MIT */
#pragma once

/* futex(2) within one process. The library has no wrapper for it. */

#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* Until *word is not value, a wake, a signal, or so long; 0: for ever. The caller looks at the word again, whatever it was. */
static inline void futex_wait(const void *word, uint32_t value, uint64_t usec) {
        struct timespec ts = { .tv_sec = (time_t)(usec / USEC_PER_SEC), .tv_nsec = (long)(usec % USEC_PER_SEC) * 1000 };
        (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, usec ? &ts : NULL, NULL, 0);
}

/* So many of those that wait at it. */
static inline void futex_wake(const void *word, int n) {
        (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}
