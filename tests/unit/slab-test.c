/* SPDX-License-Identifier: MIT */
#include "base/slab.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

enum { N = 200000, N_THREADS = 4 };

static void *objects[N];

static size_t in_use_bytes(Slab *s) {
        SlabStats stats;
        slab_get_stats(s, &stats);
        return stats.used_bytes;
}

/* ck_assert() tells Check each time, which is too slow for so many. */
static void check_is(const size_t *object, size_t i) {
        if (*object != i)
                ck_abort_msg("object %zu was overwritten", i);
}

TEST(objects_are_aligned_and_do_not_overlap) {
        static const size_t sizes[] = { 1, 16, 24, 40, 48, 64, 100, 112, 1000, 5000, 8192 };
        for (size_t k = 0; k < ELEMENTSOF(sizes); k++) {
                Slab *s;
                ck_assert_int_eq(slab_new(sizes[k], 16, false, &s), 0);
                for (size_t i = 0; i < 500; i++) {
                        objects[i] = slab_alloc(s);
                        ck_assert_uint_eq((uintptr_t)objects[i] % 16, 0);
                        memset(objects[i], (int)(i % 251), sizes[k]);
                }
                for (size_t i = 0; i < 500; i++) {
                        const unsigned char *p = objects[i];
                        ck_assert(p[0] == i % 251 && memcmp(p, p + 1, sizes[k] - 1) == 0);
                }
                for (size_t i = 0; i < 500; i++)
                        slab_free(s, objects[i]);
                slab_destroy(s);
        }
}

TEST(sizes_that_cannot_be_are_refused) {
        Slab *s;
        ck_assert_int_eq(slab_new(0, 8, false, &s), -EINVAL);
        ck_assert_int_eq(slab_new(SLAB_OBJECT_MAX + 1, 8, false, &s), -EINVAL);
        ck_assert_int_eq(slab_new(8, 0, false, &s), -EINVAL);
        ck_assert_int_eq(slab_new(8, 24, false, &s), -EINVAL);
        ck_assert_int_eq(slab_new(8, 128, false, &s), -EINVAL);
        ck_assert_ptr_null(slab_destroy(NULL));
}

TEST(there_are_so_many_slabs_and_no_more) {
        Slab *all[SLABS_MAX], *s;
        for (size_t i = 0; i < SLABS_MAX; i++)
                ck_assert_int_eq(slab_new(64, 8, false, &all[i]), 0);
        ck_assert_int_eq(slab_new(64, 8, false, &s), -ENOSPC);
        slab_destroy(all[3]);
        ck_assert_int_eq(slab_new(64, 8, false, &s), 0);
        all[3] = s;
        for (size_t i = 0; i < SLABS_MAX; i++)
                slab_destroy(all[i]);
}

TEST(a_slab_in_the_place_of_another_gives_its_own_objects) {
        Slab *s;
        for (size_t i = 0; i < 2 * SLABS_MAX; i++) { /* the cache of this thread has free objects of the one before */
                ck_assert_int_eq(slab_new(64, 8, false, &s), 0);
                char *p = slab_alloc(s);
                memset(p, 1, 64);
                slab_free(s, p);
                slab_destroy(s);
        }
}

TEST(after_a_burst_the_memory_goes_back) {
        Slab *s;
        ck_assert_int_eq(slab_new(64, 16, false, &s), 0);
        for (size_t i = 0; i < N; i++)
                objects[i] = slab_alloc(s);
        ck_assert_uint_ge(in_use_bytes(s), N * 64);
        for (size_t i = 0; i < N; i++)
                slab_free(s, objects[i]);
        ck_assert_uint_ge(slab_trim(s), N * 64 - 64 * 1024);
        SlabStats stats;
        slab_get_stats(s, &stats);
        ck_assert_uint_eq(stats.used_bytes, stats.mapped_bytes / SLAB_EXTENT_BYTES * 4096); /* the headers */
        for (size_t i = 0; i < N; i++) /* and the same addresses are used again: nothing grows */
                objects[i] = slab_alloc(s);
        SlabStats again;
        slab_get_stats(s, &again);
        ck_assert_uint_le(again.mapped_bytes, stats.mapped_bytes);
        for (size_t i = 0; i < N; i++)
                slab_free(s, objects[i]);
        slab_destroy(s);
}

TEST(pages_with_objects_stay_as_they_are) {
        Slab *s;
        ck_assert_int_eq(slab_new(64, 16, false, &s), 0);
        for (size_t i = 0; i < N; i++) {
                objects[i] = slab_alloc(s);
                *(size_t *)objects[i] = i;
        }
        for (size_t i = 0; i < N; i++)
                if (i % 1000 != 0)
                        slab_free(s, objects[i]);
        ck_assert_uint_gt(slab_trim(s), 0);
        for (size_t i = 0; i < N; i += 1000)
                check_is(objects[i], i);
        for (size_t i = 1; i < N; i++) /* whatever comes now is none of those */
                if (i % 1000 != 0) {
                        objects[i] = slab_alloc(s);
                        *(size_t *)objects[i] = i;
                }
        for (size_t i = 0; i < N; i++)
                check_is(objects[i], i);
        for (size_t i = 0; i < N; i++)
                slab_free(s, objects[i]);
        slab_destroy(s);
}

TEST(a_free_object_can_be_read_and_keeps_its_third_word) {
        Slab *s;
        ck_assert_int_eq(slab_new(64, 16, false, &s), 0);
        for (size_t i = 0; i < 1000; i++) {
                objects[i] = slab_alloc(s);
                ((uint64_t *)objects[i])[2] = i + 1;
        }
        for (size_t i = 0; i < 1000; i++)
                slab_free(s, objects[i]);
        for (size_t i = 0; i < 1000; i++)
                ck_assert_uint_eq(((uint64_t *)objects[i])[2], i + 1);
        slab_trim(s);
        size_t n_zero = 0;
        for (size_t i = 0; i < 1000; i++) {
                uint64_t word = ((uint64_t *)objects[i])[2];
                ck_assert(word == 0 || word == i + 1);
                n_zero += word == 0;
        }
        ck_assert_uint_ge(n_zero, 900);
        slab_destroy(s);
}

TEST(a_slab_that_keeps_gives_nothing_back) {
        Slab *s;
        ck_assert_int_eq(slab_new(256, 64, true, &s), 0);
        for (size_t i = 0; i < 10000; i++) {
                objects[i] = slab_alloc(s);
                ((uint64_t *)objects[i])[2] = i + 1;
        }
        for (size_t i = 0; i < 10000; i++)
                slab_free(s, objects[i]);
        ck_assert_uint_eq(slab_trim(s), 0);
        ck_assert(!slab_trim_all());
        for (size_t i = 0; i < 10000; i++)
                ck_assert_uint_eq(((uint64_t *)objects[i])[2], i + 1);
        slab_destroy(s);
}

TEST(without_memory_alloc_says_so_and_goes_on_later) {
        Slab *s;
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_int_eq(slab_new(64, 16, false, &s), -ENOMEM);
        ck_assert_int_eq(slab_new(64, 16, false, &s), 0);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_ptr_null(slab_alloc(s));
        fault_set(FAULT_ALLOC, 0, false);
        void *p = slab_alloc(s);
        ck_assert_ptr_nonnull(p);
        fault_set(FAULT_ALLOC, 1, true);
        slab_free(s, p); /* needs none */
        ck_assert_ptr_eq(slab_alloc(s), p);
        slab_free(s, p);
        fault_set(FAULT_ALLOC, 0, false);
        slab_destroy(s);
}

/* ---- threads ---- */

typedef struct Crowd {
        Slab *slab;
        _Atomic(uint64_t *) boxes[1024]; /* objects on their way from the one who allocated to the one who frees */
        atomic_bool done;
} Crowd;

static void use(Crowd *c, uint64_t *p) {
        if (!p)
                return;
        if (p[3] != ((uint64_t)(uintptr_t)p ^ p[4])) /* somebody else has written here */
                abort();
        slab_free(c->slab, p);
}

static void *crowd_member(void *arg) {
        Crowd *c = arg;
        uint64_t random = (uint64_t)(uintptr_t)&random;
        for (size_t i = 0; i < N; i++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                uint64_t *p = slab_alloc(c->slab);
                p[4] = random;
                p[3] = (uint64_t)(uintptr_t)p ^ random;
                use(c, atomic_exchange(&c->boxes[random >> 54], p));
        }
        return NULL;
}

static void *crowd_trimmer(void *arg) {
        Crowd *c = arg;
        while (!atomic_load(&c->done))
                slab_trim(c->slab);
        return NULL;
}

TEST(threads_allocate_free_and_trim_at_once) {
        static Crowd c;
        pthread_t threads[N_THREADS], trimmer;
        ck_assert_int_eq(slab_new(64, 16, false, &c.slab), 0);
        for (size_t i = 0; i < N_THREADS; i++)
                ck_assert_int_eq(pthread_create(&threads[i], NULL, crowd_member, &c), 0);
        ck_assert_int_eq(pthread_create(&trimmer, NULL, crowd_trimmer, &c), 0);
        for (size_t i = 0; i < N_THREADS; i++)
                pthread_join(threads[i], NULL);
        atomic_store(&c.done, true);
        pthread_join(trimmer, NULL);
        for (size_t i = 0; i < ELEMENTSOF(c.boxes); i++)
                use(&c, atomic_load(&c.boxes[i]));
        slab_trim(c.slab);
        SlabStats stats; /* ended threads have left nothing behind, whatever they had made for themselves */
        slab_get_stats(c.slab, &stats);
        ck_assert_uint_eq(stats.used_bytes, stats.mapped_bytes / SLAB_EXTENT_BYTES * 4096);
        slab_destroy(c.slab);
}

static void *allocate_all(void *arg) {
        for (size_t i = 0; i < N; i++)
                objects[i] = slab_alloc(arg);
        return NULL;
}

TEST(what_one_thread_frees_serves_another) {
        Slab *s;
        ck_assert_int_eq(slab_new(64, 16, false, &s), 0);
        for (size_t round = 0; round < 5; round++) {
                pthread_t thread;
                ck_assert_int_eq(pthread_create(&thread, NULL, allocate_all, s), 0);
                pthread_join(thread, NULL);
                for (size_t i = 0; i < N; i++)
                        slab_free(s, objects[i]);
        }
        SlabStats stats;
        slab_get_stats(s, &stats);
        ck_assert_uint_le(stats.mapped_bytes, (N * 64 / SLAB_EXTENT_BYTES + 3) * SLAB_EXTENT_BYTES * 64 / 63);
        ck_assert(slab_trim_all());
        ck_assert(!slab_trim_all());
        slab_destroy(s);
}

/* A slab with few objects is small, and a burst does not fault for each page. */
TEST(memory_comes_page_by_page_at_first_and_in_runs_later) {
        enum { PAGES = 60, PAGE_OBJECTS = 4096 / 48 };
        for (unsigned round = 0; round < 2; round++) { /* new memory, and memory that was given back */
                static Slab *s;
                unsigned n_steps = 0;
                if (round == 0)
                        ck_assert_int_eq(slab_new(48, 16, false, &s), 0);
                size_t used, before = in_use_bytes(s);
                for (size_t i = 0; i < PAGES * PAGE_OBJECTS; i++, before = used) {
                        objects[i] = slab_alloc(s);
                        used = in_use_bytes(s);
                        n_steps += used != before;
                        if (i == 0)
                                ck_assert_uint_le(used, 2 * 4096); /* with the header */
                }
                ck_assert_uint_le(n_steps, 8);
                for (size_t i = 0; i < PAGES * PAGE_OBJECTS; i++)
                        slab_free(s, objects[i]);
                slab_trim(s);
                ck_assert_uint_eq(in_use_bytes(s), 4096);
                if (round == 1)
                        slab_destroy(s);
        }
}

RUN_TESTS("slab", 60, test_objects_are_aligned_and_do_not_overlap, test_sizes_that_cannot_be_are_refused,
          test_there_are_so_many_slabs_and_no_more, test_a_slab_in_the_place_of_another_gives_its_own_objects,
          test_after_a_burst_the_memory_goes_back, test_pages_with_objects_stay_as_they_are,
          test_a_free_object_can_be_read_and_keeps_its_third_word, test_a_slab_that_keeps_gives_nothing_back,
          test_without_memory_alloc_says_so_and_goes_on_later, test_threads_allocate_free_and_trim_at_once,
          test_what_one_thread_frees_serves_another, test_memory_comes_page_by_page_at_first_and_in_runs_later)
