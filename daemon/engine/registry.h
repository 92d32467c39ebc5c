/* SPDX-License-Identifier: MIT */
#pragma once

/* Numbers for things that threads refer to and that may go away: weak ids. An id is a slot and the generation of that slot;
 * slots are used again, generations only grow, so an id names one thing for ever. It is below 2^53 and never 0.
 *
 * A look-up is wait-free, O(1), three loads. What it gives was registered under the id at that moment. It may go away at
 * any time after that, unless the caller knows better, so: the memory of things is type-stable, and what is done to a
 * thing proves the id again (XHead does). */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/slots.h"

typedef struct Registry {
        RegistryTable table;
        pthread_mutex_t lock; /* for all below */
        size_t n_slots;       /* that exist */
        size_t n_used;
        uint32_t first_free, last_free; /* slot + 1; 0: none. Used first in, first out, so that generations last */
} Registry;

/* Zeros are an empty registry, too. */
void registry_init(Registry *r);
void registry_deinit(Registry *r); /* NULL-safe; no thread is in a call */

/* Reserves an id; a look-up of it finds nothing before registry_publish(). 0, -ENOMEM, or -ENOSPC: REGISTRY_SLOTS_MAX are in
 * use. Any thread; waits for a lock. */
int registry_reserve(Registry *r, uint64_t *ret_id);
/* Now it is found. Any thread, never blocks. thing is not NULL. */
void registry_publish(Registry *r, uint64_t id, void *thing);
/* It is not found any more, and its slot may be used again. Published or only reserved; once. Any thread; waits for a lock. */
void registry_remove(Registry *r, uint64_t id);

/* NULL: it is not there, not yet or not any more. Any thread, wait-free. */
static inline void *registry_find(Registry *r, uint64_t id) {
        return slots_find(&r->table, id);
}

/* Was this id ever given out? Any thread, wait-free. */
static inline bool registry_was_given(Registry *r, uint64_t id) {
        return slots_was_given(&r->table, id);
}
