/* SPDX-License-Identifier: MIT */
#pragma once

/* The part of a Registry that is read without its lock, and the law of it, for C and for the checker in tests/model.
 *
 * A slot is two words: the id that was given out last, with a flag while something is published under it, and what that
 * is. A reader looks at the id, takes the thing, and looks at the id again. Ids are never used again, so if it stood there
 * before and after, the thing was the right one in between. That the second look is not done early, the load of the thing
 * acquires: if it saw what a later owner of the slot wrote, it sees the later id as well. [mutant: without the second look]
 * The writer, under the lock of the registry: thing, then id with the flag (release); to remove: the id without the flag.
 *
 * Slots lie in chunks that are made on demand and stay. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/atomics.h"

#ifndef REGISTRY_SLOT_BITS
#define REGISTRY_SLOT_BITS 20
#define REGISTRY_CHUNK_BITS 10
#endif
enum {
        REGISTRY_GENERATION_BITS = 33,
        REGISTRY_CHUNKS = 1 << (REGISTRY_SLOT_BITS - REGISTRY_CHUNK_BITS),
        REGISTRY_CHUNK_SLOTS = 1 << REGISTRY_CHUNK_BITS,
        REGISTRY_SLOTS_MAX = 1 << REGISTRY_SLOT_BITS,
};
#define REGISTRY_GENERATION_MAX ((UINT64_C(1) << REGISTRY_GENERATION_BITS) - 1)
#define SLOT_PUBLISHED (UINT64_C(1) << 63)

typedef struct RegistrySlot {
        ATOMIC(uint64_t) id;     /* last given out, and SLOT_PUBLISHED; 0: none yet */
        ATOMIC(uintptr_t) thing; /* a pointer */
        uint32_t next_free;      /* Registry::first_free; slot + 1. Under the lock */
} RegistrySlot;

typedef struct RegistryChunk {
        RegistrySlot slots[REGISTRY_CHUNK_SLOTS];
} RegistryChunk;

typedef struct RegistryTable {
        ATOMIC(RegistryChunk *) chunks[REGISTRY_CHUNKS]; /* NULL: not made yet */
} RegistryTable;

/* NULL: there is no such chunk. */
static inline RegistrySlot *slots_at(RegistryTable *t, uint64_t id) {
        uint64_t slot = id & (REGISTRY_SLOTS_MAX - 1);
        RegistryChunk *chunk = load_acquire(&t->chunks[slot >> REGISTRY_CHUNK_BITS]);
        return chunk ? &chunk->slots[slot & (REGISTRY_CHUNK_SLOTS - 1)] : NULL;
}

static inline void *slots_find(RegistryTable *t, uint64_t id) {
        RegistrySlot *s = slots_at(t, id);
        if (!s || (id & SLOT_PUBLISHED) != 0 || load_acquire(&s->id) != (id | SLOT_PUBLISHED))
                return NULL;
        preempt_here();
        uintptr_t thing = load_acquire(&s->thing);
        return load_relaxed(&s->id) == (id | SLOT_PUBLISHED) ? (void *)thing : NULL;
}

static inline void slots_publish(RegistrySlot *s, uint64_t id, void *thing) {
        store_release(&s->thing, (uintptr_t)thing);
        preempt_here();
        store_release(&s->id, id | SLOT_PUBLISHED);
}

static inline void slots_unpublish(RegistrySlot *s, uint64_t id) {
        store_release(&s->id, id);
}

/* Ids of a slot only grow, so all up to the last one were given. */
static inline bool slots_was_given(RegistryTable *t, uint64_t id) {
        RegistrySlot *s = slots_at(t, id);
        return s && id >> REGISTRY_SLOT_BITS != 0 && (load_acquire(&s->id) & ~SLOT_PUBLISHED) >= id;
}
