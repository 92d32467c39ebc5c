/* SPDX-License-Identifier: MIT */
#pragma once

/* uthash, where being out of memory is an error and not the end: after HASH_ADD() `hh.tbl` is NULL if it failed. Its
 * memory comes through the allocation fault seam. */

#define HASH_NONFATAL_OOM 1
#define uthash_malloc(n) fault_malloc(n)

#include <uthash.h>

#include "base/fault.h"
