/* SPDX-License-Identifier: MIT */
#pragma once

/* Which capabilities the spawner has, keeps and takes away, with bare system calls: the one file to read for that.
 * Sets are masks of 1 << CAP_*. */

#include <stdbool.h>
#include <stdint.h>

/* Permitted, of this process. 0 or negative errno. */
int capabilities_get(uint64_t *ret_permitted);

/* Empties the bounding set where CAP_SETPCAP allows it: nothing that this process or a descendant executes, not even as
 * uid 0, gains a capability. 0, or -EPERM: it stays. */
int capabilities_empty_bounding(void);
bool capabilities_bounding_is_empty(void);

/* Permitted and effective become what is permitted of `mask`; inheritable and ambient become empty. 0 or negative errno. */
int capabilities_keep_only(uint64_t mask);
