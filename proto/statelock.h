/* SPDX-License-Identifier: MIT */
#pragma once

/* The file `lock` of a state directory: the eqd that uses it holds it, and others ask whether one does.
 *
 * There are two locks on it. flock(2) decides: it is what every eqd has taken. A write lock of the open file description
 * (F_OFD_SETLK) is beside it, for those who ask: with F_OFD_GETLK that can be done without taking anything, not even for a
 * moment in which an eqd would start and be refused. Both go with the last descriptor. Any thread, nothing blocks. */

#include <stdbool.h>

/* fd: of the file, for reading and writing. 0; -EWOULDBLOCK: another eqd holds it; or negative errno. */
int eq_state_lock_take(int fd);
/* Does an eqd hold it? fd: for reading will do. */
bool eq_state_lock_is_held(int fd);
