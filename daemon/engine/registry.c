/* SPDX-License-Identifier: MIT */
/* Giving slots out and taking them back, under one lock: queues are made seldom. Looking up is in slots.h. */

#include "engine/registry.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/util.h"

void registry_init(Registry *r) {
        *r = (Registry) { .lock = PTHREAD_MUTEX_INITIALIZER };
}

void registry_deinit(Registry *r) {
        if (!r)
                return;
        for (size_t i = 0; i < REGISTRY_CHUNKS; i++)
                free(load_relaxed(&r->table.chunks[i]));
        registry_init(r);
}

/* The lock is held, for all below. */

static void append_free(Registry *r, uint32_t slot) {
        RegistrySlot *s = slots_at(&r->table, slot);
        s->next_free = 0;
        if (r->last_free)
                slots_at(&r->table, r->last_free - 1)->next_free = slot + 1;
        else
                r->first_free = slot + 1;
        r->last_free = slot + 1;
}

static int add_chunk(Registry *r) {
        if (r->n_slots == REGISTRY_SLOTS_MAX)
                return -ENOSPC;
        RegistryChunk *chunk = fault_calloc(1, sizeof(*chunk));
        if (!chunk)
                return -ENOMEM;
        store_release(&r->table.chunks[r->n_slots / REGISTRY_CHUNK_SLOTS], chunk);
        for (size_t i = 0; i < REGISTRY_CHUNK_SLOTS; i++)
                append_free(r, (uint32_t)r->n_slots++);
        return 0;
}

static int take_free(Registry *r, uint64_t *ret_id) {
        if (!r->first_free) {
                int e = add_chunk(r);
                if (e < 0)
                        return e;
        }
        uint32_t slot = r->first_free - 1;
        RegistrySlot *s = slots_at(&r->table, slot);
        r->first_free = s->next_free;
        if (!r->first_free)
                r->last_free = 0;
        uint64_t generation = (load_relaxed(&s->id) >> REGISTRY_SLOT_BITS) + 1;
        *ret_id = generation << REGISTRY_SLOT_BITS | slot;
        store_release(&s->id, *ret_id);
        r->n_used++;
        return 0;
}

int registry_reserve(Registry *r, uint64_t *ret_id) {
        pthread_mutex_lock(&r->lock);
        int e = take_free(r, ret_id);
        pthread_mutex_unlock(&r->lock);
        return e;
}

void registry_publish(Registry *r, uint64_t id, void *thing) {
        assert(thing);
        slots_publish(slots_at(&r->table, id), id, thing);
}

void registry_remove(Registry *r, uint64_t id) {
        RegistrySlot *s = slots_at(&r->table, id);
        pthread_mutex_lock(&r->lock);
        assert((load_relaxed(&s->id) & ~SLOT_PUBLISHED) == id);
        slots_unpublish(s, id);
        r->n_used--;
        if (id >> REGISTRY_SLOT_BITS < REGISTRY_GENERATION_MAX) /* else the slot stays empty for ever */
                append_free(r, (uint32_t)(id & (REGISTRY_SLOTS_MAX - 1)));
        pthread_mutex_unlock(&r->lock);
}
