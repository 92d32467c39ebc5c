/* SPDX-License-Identifier: MIT */
#include "engine/line.h"

#include "base/util.h"
#include "test.h"

enum { N = 8 };

static Runnable runnables[N];

/* The next n of them arrive, one linked to the other. */
static void arrive(Line *l, size_t first, size_t n) {
        for (size_t i = first; i < first + n; i++) {
                InboxNode *next = i + 1 < first + n ? &runnables[i + 1].node : NULL;
                store_relaxed(&runnables[i].node.next, next);
        }
        l->sched->enqueue(l, &runnables[first]);
}

/* All that wait, as they are picked: "013" */
static const char *picked(Line *l) {
        static char text[N + 1];
        size_t n = l->n, i = 0;
        for (Runnable *r; i < N && (r = l->sched->pick(l)); i++) {
                ck_assert(!r->in_line);
                text[i] = (char)('0' + (r - runnables));
        }
        text[i] = '\0';
        ck_assert_uint_eq(i, n);
        ck_assert_uint_eq(l->n, 0);
        ck_assert_ptr_null(l->sched->pick(l));
        return text;
}

TEST(fifo_picks_in_the_order_of_arrival) {
        Line l = { .sched = &line_fifo };
        ck_assert_str_eq(picked(&l), "");
        arrive(&l, 0, 1);
        ck_assert(runnables[0].in_line);
        ck_assert_str_eq(picked(&l), "0");
        arrive(&l, 0, 3);
        arrive(&l, 3, 2);
        ck_assert_uint_eq(l.n, 5);
        ck_assert_str_eq(picked(&l), "01234");
        arrive(&l, 4, 3);
        ck_assert_ptr_eq(l.sched->pick(&l), &runnables[4]);
        arrive(&l, 0, 2);
        ck_assert_str_eq(picked(&l), "5601");
}

/* The first, one from the middle, the last, and one alone. */
TEST(fifo_lets_anyone_leave_and_come_back_to_its_place) {
        static const char *const without[] = { "123", "023", "013", "012" };
        for (size_t gone = 0; gone < 4; gone++)
                for (int back = 0; back <= 1; back++) {
                        Line l = { .sched = &line_fifo };
                        arrive(&l, 0, 4);
                        l.sched->dequeue(&l, &runnables[gone]);
                        ck_assert(!runnables[gone].in_line);
                        ck_assert_uint_eq(l.n, 3);
                        if (back)
                                l.sched->restore(&l, &runnables[gone]);
                        ck_assert(runnables[gone].in_line == back);
                        arrive(&l, 4, 2);
                        char want[N + 1];
                        (void)snprintf(want, sizeof(want), "%s45", back ? "0123" : without[gone]);
                        ck_assert_str_eq(picked(&l), want);
                }
        Line l = { .sched = &line_fifo };
        arrive(&l, 0, 1);
        l.sched->dequeue(&l, &runnables[0]);
        ck_assert_uint_eq(l.n, 0);
        l.sched->restore(&l, &runnables[0]);
        ck_assert_str_eq(picked(&l), "0");
}

/* A pick leaves the new first one with what it had before it: that is not looked at. */
TEST(fifo_lets_the_first_one_leave_after_a_pick) {
        Line l = { .sched = &line_fifo };
        arrive(&l, 0, 4);
        ck_assert_ptr_eq(l.sched->pick(&l), &runnables[0]);
        l.sched->dequeue(&l, &runnables[1]);
        l.sched->restore(&l, &runnables[1]);
        l.sched->dequeue(&l, &runnables[2]);
        l.sched->dequeue(&l, &runnables[1]);
        ck_assert_str_eq(picked(&l), "3");
}

RUN_TESTS("line", 60, test_fifo_picks_in_the_order_of_arrival, test_fifo_lets_anyone_leave_and_come_back_to_its_place,
          test_fifo_lets_the_first_one_leave_after_a_pick)
