/* SPDX-License-Identifier: MIT */
#pragma once

/* Programs that eqctl starts beside it: eqd-store, getent, ssh. Clients see nothing of the daemon, so this is not that of eqd. */

#include <sys/types.h>

/* argv[0] is its path, or a name that is looked for in PATH. fds: its standard descriptors, which stay the caller's; -1: that of
 * eqctl. Signals are as eqctl has them. *ret: a child, to be waited for. 0 or -errno, that of exec included: then there is none. */
int program_start(const char *const argv[], const int fds[static 3], pid_t *ret);
