/* SPDX-License-Identifier: MIT */
#pragma once

/* eqd-store, run for clients who may not read the files themselves: what it finds goes to a descriptor of the client. A process of its
 * own, because reading takes seconds, and memory for a segment. Loop; nothing blocks. */

#include <uv.h>

#include "base/list.h"

enum { STORE_READS_MAX = 4 };

typedef struct StoreRead StoreRead;

typedef struct StoreReads {
        List all; /* of StoreRead::link; those that are being killed included */
        unsigned n;
} StoreReads;

void store_reads_init(StoreReads *rs);
/* Kills those that run, and waits for none of them; then the loop has to turn once more. */
void store_reads_close(StoreReads *rs);

/* Runs argv, whose first word is a path, with out_fd, borrowed, as its standard output. `done` is told its exit status, or negative: it
 * was ended before it was done; *r is gone then. 0; -EUSERS: there are STORE_READS_MAX; or negative errno of why it does not run. */
int store_read_new(StoreReads *rs, uv_loop_t *loop, const char *const argv[], int out_fd,
                   void (*done)(void *userdata, int status), void *userdata, StoreRead **ret);
/* Kills it: `done` is not called any more. NULL-safe. */
StoreRead *store_read_free(StoreRead *r);
