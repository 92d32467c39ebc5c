/* SPDX-License-Identifier: MIT */
#pragma once

/* A child process to look at. */

#include <sys/types.h>
#include <unistd.h>

#include "test.h"

/* Waits until a signal ends it. */
static inline pid_t child_start(void) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                for (;;)
                        pause();
        return pid;
}
