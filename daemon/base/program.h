/* SPDX-License-Identifier: MIT */
#pragma once

/* Programs that eqd starts beside it. posix_spawn() copies nothing of eqd's memory however large that is. */

#include <sys/types.h>

/* argv[0] is its path. It has eqd's standard descriptors, and fd, which stays the caller's, under the number `as`. Signals that eqd
 * ignores or blocks are not the program's: one that writes to nobody is ended by SIGPIPE. *ret: a child, to be waited for. 0 or
 * negative errno, that of exec included: then there is none. Any thread; waits for exec. */
int program_start(const char *const argv[], int fd, int as, pid_t *ret);
