/* SPDX-License-Identifier: MIT */
#pragma once

/* Memory that children do not get: a fork copies nothing for it, so that writing to it afterwards costs no fault, and giving it
 * up costs the child nothing. For what only the worker looks at: a child that does dies. */

#include <stddef.h>

/* n bytes of zeroes, aligned for anything, that are never given back: keep what is not in use, and use it again. NULL: there is
 * no memory. Never blocks; one thread. */
void *private_alloc(size_t n);
