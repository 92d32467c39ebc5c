/* SPDX-License-Identifier: MIT */
#pragma once

/* Descriptors 0, 1 and 2 of a program that was started without some of them (`eqctl ... >&-`). Left free, such a number is
 * given to the next thing that is opened, and what is meant for standard output goes into a socket or a file of ours. */

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Those that are closed become /dev/null, opened with these flags: where what is written must not get lost unseen, O_RDONLY,
 * so that writing fails as it does to a closed descriptor. 0 or negative errno. First of all in main(): before threads, and
 * before anything is opened. */
static inline int eq_std_fds_fill(int open_flags) {
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
                if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", open_flags) < 0) /* the lowest that is free: fd */
                        return -errno;
        return 0;
}
