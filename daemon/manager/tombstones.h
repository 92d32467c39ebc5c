/* SPDX-License-Identifier: MIT */
#pragma once

/* What a removed queue leaves behind: its name and the last SEQ that it gave, so that no id is ever given twice. Loop. */

#include "manager/manager.h"

/* Made with the first queue of its name and kept for good: removing a queue needs no memory. */
typedef struct Tombstone {
        UT_hash_handle hh; /* Manager::tombstones */
        uint64_t last_seq; /* of the last queue that was removed */
        char name[EQ_NAME_MAX + 1];
} Tombstone;

int tombstone_get(Manager *m, const char *name, Tombstone **ret);   /* made if need be; the manager's. 0 or -ENOMEM */
int tombstone_restore(Manager *m, EqBytes name, uint64_t last_seq); /* 0 or -ENOMEM */
/* Calls back for each name that has no queue. Ends at the first that returns not 0, and returns that. */
int tombstones_each(const Manager *m, int (*each)(void *userdata, const char *name, uint64_t last_seq), void *userdata);
void tombstones_free(Manager *m);
