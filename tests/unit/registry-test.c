/* SPDX-License-Identifier: MIT */
#include "engine/registry.h"

#include <errno.h>

#include "base/fault.h"
#include "test.h"

static int things[REGISTRY_SLOTS_MAX + 1];
static uint64_t ids[REGISTRY_SLOTS_MAX];

static uint64_t put(Registry *r, void *thing) {
        uint64_t id;
        if (registry_reserve(r, &id) < 0)
                ck_abort_msg("no id");
        registry_publish(r, id, thing);
        return id;
}

TEST(an_id_finds_what_was_published_under_it) {
        Registry r;
        registry_init(&r);
        for (size_t i = 0; i < 5000; i++)
                ids[i] = put(&r, &things[i]);
        for (size_t i = 0; i < 5000; i++) {
                if (registry_find(&r, ids[i]) != &things[i] || !registry_was_given(&r, ids[i]))
                        ck_abort_msg("%zu is not found", i);
                if (ids[i] == 0 || ids[i] >> 53 != 0)
                        ck_abort_msg("id %ju is out of range", (uintmax_t)ids[i]);
        }
        ck_assert_uint_eq(r.n_used, 5000);
        registry_deinit(&r);
}

TEST(a_reserved_id_finds_nothing_yet) {
        Registry r;
        uint64_t id;
        registry_init(&r);
        ck_assert_int_eq(registry_reserve(&r, &id), 0);
        ck_assert_ptr_null(registry_find(&r, id));
        ck_assert(registry_was_given(&r, id));
        registry_remove(&r, id); /* and need not be published */
        registry_deinit(&r);
}

TEST(a_stale_id_finds_nothing_however_often_its_slot_is_used_again) {
        Registry r;
        registry_init(&r);
        for (size_t i = 0; i < 100 * REGISTRY_CHUNK_SLOTS; i++) {
                uint64_t id = put(&r, &things[0]);
                if (i < REGISTRY_CHUNK_SLOTS)
                        ids[i] = id;
                registry_remove(&r, id);
                if (registry_find(&r, id) || registry_find(&r, ids[i % REGISTRY_CHUNK_SLOTS]))
                        ck_abort_msg("a stale id finds something");
        }
        for (size_t i = 0; i < REGISTRY_CHUNK_SLOTS; i++)
                ids[i] = put(&r, &things[i]);
        for (size_t i = 0; i < REGISTRY_CHUNK_SLOTS; i++) {
                ck_assert_ptr_eq(registry_find(&r, ids[i]), &things[i]);
                ck_assert_ptr_null(registry_find(&r, ids[i] - (UINT64_C(1) << REGISTRY_SLOT_BITS)));
        }
        registry_deinit(&r);
}

TEST(any_number_can_be_asked_for) {
        Registry r;
        registry_init(&r);
        const uint64_t id = put(&r, &things[0]);
        const uint64_t strange[] = { 0,
                                     1,
                                     id + 1,
                                     id + (UINT64_C(1) << REGISTRY_SLOT_BITS),
                                     UINT64_MAX,
                                     UINT64_C(1) << 63,
                                     id | UINT64_C(1) << 63,
                                     (UINT64_C(1) << 53) - 1 };
        for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
                ck_assert_ptr_null(registry_find(&r, strange[i]));
                ck_assert(!registry_was_given(&r, strange[i]));
        }
        registry_deinit(&r);
}

TEST(a_slot_without_generations_left_stays_empty) {
        Registry r;
        registry_init(&r);
        uint64_t id = put(&r, &things[0]), slot = id & (REGISTRY_SLOTS_MAX - 1);
        const uint64_t last = REGISTRY_GENERATION_MAX << REGISTRY_SLOT_BITS | slot;
        ck_assert_uint_lt(last, UINT64_C(1) << 53);
        slots_publish(slots_at(&r.table, id), last, &things[1]); /* as if used so often */
        ck_assert_ptr_null(registry_find(&r, id));
        ck_assert_ptr_eq(registry_find(&r, last), &things[1]);
        registry_remove(&r, last);
        for (size_t i = 0; i < 3 * REGISTRY_CHUNK_SLOTS; i++) {
                id = put(&r, &things[0]);
                if ((id & (REGISTRY_SLOTS_MAX - 1)) == slot)
                        ck_abort_msg("the slot is used again");
                registry_remove(&r, id);
        }
        ck_assert(registry_was_given(&r, last));
        registry_deinit(&r);
}

TEST(full_means_an_error_and_room_again_after_a_removal) {
        static Registry r;
        uint64_t id;
        registry_init(&r);
        for (size_t i = 0; i < REGISTRY_SLOTS_MAX; i++)
                ids[i] = put(&r, &things[i]);
        ck_assert_int_eq(registry_reserve(&r, &id), -ENOSPC);
        registry_remove(&r, ids[77]);
        ck_assert_int_eq(registry_reserve(&r, &id), 0);
        ck_assert_uint_eq(id, ids[77] + (UINT64_C(1) << REGISTRY_SLOT_BITS));
        for (size_t i = 0; i < REGISTRY_SLOTS_MAX; i++)
                if (registry_find(&r, ids[i]) != (i == 77 ? NULL : &things[i]))
                        ck_abort_msg("%zu is wrong", i);
        registry_deinit(&r);
}

TEST(without_memory_reserve_says_so_and_works_later) {
        Registry r;
        uint64_t id;
        registry_init(&r);
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_int_eq(registry_reserve(&r, &id), -ENOMEM);
        ck_assert_int_eq(registry_reserve(&r, &id), 0);
        registry_deinit(&r);
        registry_deinit(NULL);
}

/* ---- threads ---- */

enum { N_READERS = 3, N_ROUNDS = 20000 };

/* A thing says its id, or 0 while it has none. Type-stable: it is read whoever has it. */
typedef struct Thing {
        ATOMIC(uint64_t) id;
} Thing;

typedef struct Race {
        Registry registry;
        Thing things[4];
        ATOMIC(uint64_t) current;
        ATOMIC(bool) done;
} Race;

static void *read_all_the_time(void *arg) {
        Race *r = arg;
        while (!load_acquire(&r->done)) {
                uint64_t id = load_acquire(&r->current);
                Thing *t = registry_find(&r->registry, id);
                /* Not yet removed, or removed since: never one that has been given a later id before it was found. */
                if (t && load_acquire(&t->id) != id && registry_find(&r->registry, id) == t)
                        abort();
        }
        return NULL;
}

TEST(a_reader_never_gets_a_stranger) {
        static Race r;
        pthread_t readers[N_READERS];
        registry_init(&r.registry);
        for (size_t i = 0; i < N_READERS; i++)
                ck_assert_int_eq(pthread_create(&readers[i], NULL, read_all_the_time, &r), 0);
        for (size_t i = 0; i < N_ROUNDS; i++) {
                uint64_t id;
                Thing *t = &r.things[i % 4];
                if (registry_reserve(&r.registry, &id) < 0)
                        abort();
                store_release(&t->id, id);
                registry_publish(&r.registry, id, t);
                store_release(&r.current, id);
                registry_remove(&r.registry, id);
                store_release(&t->id, 0);
        }
        store_release(&r.done, true);
        for (size_t i = 0; i < N_READERS; i++)
                pthread_join(readers[i], NULL);
        registry_deinit(&r.registry);
}

RUN_TESTS("registry", 60, test_an_id_finds_what_was_published_under_it, test_a_reserved_id_finds_nothing_yet,
          test_a_stale_id_finds_nothing_however_often_its_slot_is_used_again, test_any_number_can_be_asked_for,
          test_a_slot_without_generations_left_stays_empty, test_full_means_an_error_and_room_again_after_a_removal,
          test_without_memory_reserve_says_so_and_works_later, test_a_reader_never_gets_a_stranger)
