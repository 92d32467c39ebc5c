/* SPDX-License-Identifier: MIT */
#include "engine/reserve.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

/* MISSED: pages between the frame that touches and the lowest one that is promised */
enum { STACK = 1024 * 1024, LOOKED_AT = 256 * 1024, MISSED = 8 };

typedef struct Job {
        sem_t began, gate;
        atomic_uint n;
        char name[16];
        size_t n_resident, n_pages; /* of the stack, at the start */
} Job;

static void job_init(Job *j) {
        *j = (Job) { 0 };
        sem_init(&j->began, 0, 0);
        sem_init(&j->gate, 0, 0);
}

/* Which pages of the stack below this frame are there. */
static void look_at_stack(Job *j) {
        unsigned char there[LOOKED_AT / 4096];
        uintptr_t here = (uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)4095;
        size_t n = LOOKED_AT / 4096;
        j->n_pages = n;
        if (mincore((void *)(here - n * 4096), n * 4096, there) < 0)
                return;
        for (size_t i = 0; i < n; i++)
                j->n_resident += there[i] & 1;
}

static void run(void *arg) {
        Job *j = arg;
        atomic_fetch_add(&j->n, 1);
        pthread_getname_np(pthread_self(), j->name, sizeof(j->name));
        look_at_stack(j);
        sem_post(&j->began);
        test_wait_for(&j->gate);
}

TEST(it_does_one_thing_after_the_other_on_a_thread_of_its_own_whose_stack_is_there) {
        Reserve *r;
        Job j;
        job_init(&j);
        ck_assert_int_eq(reserve_new("eqw/R-with-a-long-name", STACK, 0, &r), 0);
        for (unsigned i = 1; i <= 3; i++) {
                reserve_run(r, run, &j);
                test_wait_for(&j.began);
                ck_assert_uint_eq(j.n, i);
                sem_post(&j.gate);
        }
        reserve_free(r);
        ck_assert_str_eq(j.name, "eqw/R-with-a-lo");
        ck_assert_uint_ge(j.n_resident, 3 * (j.n_pages - MISSED));
}

TEST(what_it_was_told_before_its_end_is_done) {
        Reserve *r;
        Job j;
        job_init(&j);
        sem_post(&j.gate);
        ck_assert_int_eq(reserve_new("r", STACK, 5, &r), 0);
        reserve_run(r, run, &j);
        ck_assert_ptr_null(reserve_free(r));
        ck_assert_uint_eq(j.n, 1);
        ck_assert_ptr_null(reserve_free(NULL));
}

TEST(a_thread_or_memory_that_is_refused_is_an_error) {
        static const struct {
                FaultSeam seam;
                int error;
        } rows[] = { { FAULT_WORKER, -EAGAIN }, { FAULT_ALLOC, -ENOMEM } };
        Reserve *r = NULL;
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                fault_set(rows[i].seam, 1, false);
                ck_assert_int_eq(reserve_new("r", STACK, 0, &r), rows[i].error);
                ck_assert_ptr_null(r);
        }
        ck_assert_int_eq(reserve_new("r", (size_t)1 << 50, 0, &r), -EAGAIN); /* by the system itself */
}

RUN_TESTS("reserve", 60, test_it_does_one_thing_after_the_other_on_a_thread_of_its_own_whose_stack_is_there,
          test_what_it_was_told_before_its_end_is_done, test_a_thread_or_memory_that_is_refused_is_an_error)
