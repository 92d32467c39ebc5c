/* SPDX-License-Identifier: MIT */
#include "engine/taskline.h"

#include "base/fault.h"
#include "test.h"

enum { N = 1000 };

static uint64_t next_random(uint64_t *state) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return *state >> 33;
}

static void shuffle(size_t *order, size_t n, uint64_t seed) {
        for (size_t i = 0; i < n; i++)
                order[i] = i;
        for (size_t i = n; i > 1; i--) {
                size_t j = next_random(&seed) % i, swap = order[i - 1];
                order[i - 1] = order[j];
                order[j] = swap;
        }
}

static void check_any_order_comes_out_sorted(void) {
        static Task tasks[N];
        static size_t order[N];
        TaskLine l;
        task_line_init(&l);
        shuffle(order, N, 7);
        for (size_t i = 0; i < N; i++) {
                task_init(&tasks[order[i]], order[i], TASK_LANE_NORMAL, 0);
                task_line_insert(&l, &tasks[order[i]]);
        }
        for (size_t i = 0; i < N; i += 7)
                task_line_remove(&l, &tasks[i]);
        ck_assert_uint_eq(task_line_count_before(&l, 14), 12);
        for (size_t i = 0; i < N; i++) {
                if (i % 7 == 0)
                        continue;
                ck_assert_ptr_eq(task_line_first(&l), &tasks[i]);
                ck_assert_uint_eq(task_line_count_before(&l, i), 0);
                task_line_remove(&l, &tasks[i]);
        }
        ck_assert_ptr_null(task_line_first(&l));
        ck_assert_uint_eq(l.n, 0);
        task_line_deinit(&l);
}

TEST(tasks_come_out_by_seq_in_whatever_order_they_came) {
        check_any_order_comes_out_sorted();
}

TEST(tasks_come_out_by_seq_even_without_memory) {
        fault_set(FAULT_ALLOC, 1, true);
        check_any_order_comes_out_sorted();
}

TEST(tasks_in_order_need_no_memory) {
        static Task tasks[N];
        TaskLine l;
        task_line_init(&l);
        for (size_t i = 0; i < N; i++) { /* appended, and put back before the first one */
                task_init(&tasks[i], i + 1, TASK_LANE_NORMAL, 0);
                task_line_insert(&l, &tasks[i]);
                task_line_remove(&l, &tasks[0]);
                task_line_insert(&l, &tasks[0]);
        }
        ck_assert_uint_eq(l.early.cap, 0);
        for (size_t i = 0; i < N; i++)
                task_line_remove(&l, &tasks[i]);
        task_line_deinit(&l);
}

RUN_TESTS("taskline", 10, test_tasks_come_out_by_seq_in_whatever_order_they_came,
          test_tasks_come_out_by_seq_even_without_memory, test_tasks_in_order_need_no_memory)
