/* SPDX-License-Identifier: MIT */
#pragma once

/* Checks requests before anything is done with them: every count, flag and string. Pure functions. */

#include <stddef.h>

#include "spawner/wire.h"

/* strings: m->n_strings bytes that came inline or from a memfd. n_fds: descriptors that came along. 0, or -EINVAL. */
int request_check_start(const SpawnStart *m, const char *strings, size_t n_strings, unsigned n_fds);

/* Is what is before the strings sane enough to look for them? 0 or -EINVAL. */
int request_check_counts(const SpawnStart *m);

/* The environment string that starts with `prefix`, or NULL. For checked requests. */
const char *request_find_env(const SpawnStart *m, const char *strings, const char *prefix);
