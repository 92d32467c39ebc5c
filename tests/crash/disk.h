/* SPDX-License-Identifier: MIT */
#pragma once

/* A disk as a loss of power leaves it: files whose content was synced, what was written since and may be there or not, and names,
 * which are there when their directory was synced. Fed with what the recorder has seen.
 *
 * Of what was not synced, each write is there, or not, or page by page there, not, or half. Names: none of what was not
 * synced has happened, or the first of it, or any of it. A sync that failed has made nothing durable, and what it was for is
 * not synced by a later one either. */

#include <stdbool.h>
#include <stddef.h>

#include "trace.h"

typedef struct Disk Disk;

Disk *disk_new(void);
Disk *disk_free(Disk *d);
/* What is in the directory, as synced. */
void disk_load(Disk *d, const char *dir);
void disk_feed(Disk *d, const TraceEvent *e, const char *name, const char *data);
/* Makes `dir`, which must not be there, with what a loss of power now leaves. */
void disk_cut(const Disk *d, uint64_t seed, const char *dir);
/* A segment was removed, and the sync of its directory has failed: it may be there again at any later cut. */
bool disk_lost_a_removal(const Disk *d);

/* What has been seen of the log. */
typedef struct DiskCounts {
        unsigned n_segments, n_healed, n_removed, n_syncs;
} DiskCounts;
const DiskCounts *disk_counts(const Disk *d);
