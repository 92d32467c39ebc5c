/* SPDX-License-Identifier: MIT */

#include "spawner/spinner.h"

#include <sched.h>

#include "base/util.h"

#include "test.h"

#define START UINT64_C(1000000)

/* One command ends after another, so soon that it would spin. */
static bool occasion(Spinner *s, uint64_t *now) {
        *now += SPIN_GAP_USEC;
        spinner_ended(s, *now);
        return spinner_begin(s);
}

TEST(it_spins_once_and_only_when_commands_end_soon_after_each_other) {
        Spinner s = { 0 };
        ck_assert(!spinner_begin(&s));
        spinner_ended(&s, START);
        ck_assert(!spinner_begin(&s)); /* nothing was before it */
        spinner_ended(&s, START + SPIN_GAP_USEC);
        ck_assert(spinner_begin(&s));
        ck_assert(!spinner_begin(&s));
        spinner_ended(&s, START + 2 * SPIN_GAP_USEC + 1);
        ck_assert(!spinner_begin(&s));
        spinner_ended(&s, START + 2 * SPIN_GAP_USEC + 2);
        ck_assert(spinner_begin(&s));
}

TEST(what_was_in_vain_is_done_seldom_and_what_was_not_each_time) {
        Spinner s = { 0 };
        uint64_t now = START;
        unsigned expected[] = { 1, 3, 7, 15, 31, 63, 63 };
        spinner_ended(&s, now);
        for (size_t i = 0; i < ELEMENTSOF(expected); i++) {
                ck_assert(occasion(&s, &now));
                spinner_note(&s, false);
                for (unsigned n = 0; n < expected[i]; n++)
                        ck_assert(!occasion(&s, &now));
        }
        for (int i = 0; i < 3; i++) {
                ck_assert(occasion(&s, &now));
                spinner_note(&s, true);
        }
        ck_assert(occasion(&s, &now));
        spinner_note(&s, false);
        ck_assert(!occasion(&s, &now));
        ck_assert(occasion(&s, &now));
}

TEST(who_may_run_on_one_cpu_alone_has_not_several) {
        cpu_set_t all, one;
        int cpu = sched_getcpu();
        ck_assert_int_ge(cpu, 0);
        CPU_ZERO(&one);
        CPU_SET((size_t)cpu, &one);
        ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
        ck_assert(spinner_has_cpus() == (CPU_COUNT(&all) > 1));
        ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
        ck_assert(!spinner_has_cpus());
}

RUN_TESTS("spinner", 10, test_it_spins_once_and_only_when_commands_end_soon_after_each_other,
          test_what_was_in_vain_is_done_seldom_and_what_was_not_each_time,
          test_who_may_run_on_one_cpu_alone_has_not_several)
