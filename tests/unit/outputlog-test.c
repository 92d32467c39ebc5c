/* SPDX-License-Identifier: MIT */
#include "executor/outputlog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "test.h"

typedef struct Collected {
        char text[4 * EQ_LOG_TAIL];
        uint8_t streams[4 * EQ_LOG_TAIL];
        size_t n;
} Collected;

static void collect(void *userdata, uint8_t stream, const char *data, size_t n) {
        Collected *c = userdata;
        ck_assert_uint_le(c->n + n, sizeof(c->text));
        memcpy(c->text + c->n, data, n);
        memset(c->streams + c->n, stream, n);
        c->n += n;
}

static const unsigned BOTH = 1u << EQ_STREAM_STDOUT | 1u << EQ_STREAM_STDERR;
static Collected got;

static const Collected *walk(const OutputLog *l, unsigned mask) {
        got.n = 0;
        output_log_foreach(l, l->attempt, mask, collect, &got);
        return &got;
}

static void put(OutputLog *l, uint8_t stream, const char *text) {
        ck_assert_int_eq(output_log_append(l, stream, text, strlen(text)), 0);
}

static size_t memory_of(const OutputLog *l) {
        return (size_t)l->rings[0].cap + l->rings[1].cap + l->order.cap;
}

TEST(streams_come_back_in_the_order_of_writing_and_each_alone) {
        OutputLog l;
        output_log_init(&l);
        put(&l, EQ_STREAM_STDOUT, "one ");
        put(&l, EQ_STREAM_STDERR, "two ");
        put(&l, EQ_STREAM_STDERR, "three ");
        put(&l, EQ_STREAM_STDOUT, "four");

        const Collected *c = walk(&l, BOTH);
        ck_assert_int_eq(strncmp(c->text, "one two three four", c->n), 0);
        ck_assert_uint_eq(c->n, 18);
        ck_assert_uint_eq(c->streams[4], EQ_STREAM_STDERR);
        ck_assert_uint_eq(c->streams[17], EQ_STREAM_STDOUT);
        c = walk(&l, 1u << EQ_STREAM_STDERR);
        ck_assert_uint_eq(c->n, 10);
        ck_assert_int_eq(strncmp(c->text, "two three ", 10), 0);
        ck_assert_uint_eq(output_log_dropped(&l, l.attempt), 0);
        output_log_deinit(&l);
        ck_assert_uint_eq(walk(&l, BOTH)->n, 0);
}

TEST(a_flood_keeps_its_own_tail_and_pushes_out_nobody_elses) {
        static char chunk[1000];
        OutputLog l;
        output_log_init(&l);
        put(&l, EQ_STREAM_STDERR, "warning");
        for (int i = 0; i < 500; i++) {
                memset(chunk, 'a' + i % 26, sizeof(chunk));
                ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, chunk, sizeof(chunk)), 0);
        }
        put(&l, EQ_STREAM_STDERR, "end");

        const Collected *c = walk(&l, BOTH);
        ck_assert_uint_eq(c->n, EQ_LOG_TAIL + 10);
        ck_assert_int_eq(strncmp(c->text, "warning", 7), 0);
        ck_assert_int_eq(strncmp(c->text + c->n - 3, "end", 3), 0);
        ck_assert_int_eq(c->text[c->n - 4], 'a' + 499 % 26);
        ck_assert_uint_eq(output_log_written(&l, EQ_STREAM_STDOUT), 500000);
        ck_assert_uint_eq(output_log_dropped(&l, l.attempt), 500000 - EQ_LOG_TAIL);
        ck_assert_uint_eq(output_log_kept(&l, EQ_STREAM_STDOUT), EQ_LOG_TAIL);
        output_log_deinit(&l);
}

TEST(one_piece_larger_than_the_tail_keeps_its_end) {
        static char big[3 * EQ_LOG_TAIL];
        OutputLog l;
        output_log_init(&l);
        for (size_t i = 0; i < sizeof(big); i++)
                big[i] = (char)(i * 31 >> 3);
        put(&l, EQ_STREAM_STDOUT, "before");
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, big, sizeof(big)), 0);
        const Collected *c = walk(&l, BOTH);
        ck_assert_uint_eq(c->n, EQ_LOG_TAIL);
        ck_assert_int_eq(memcmp(c->text, big + sizeof(big) - EQ_LOG_TAIL, EQ_LOG_TAIL), 0);
        output_log_deinit(&l);
}

/* The reference: everything ever written, of which the last EQ_LOG_TAIL bytes per stream must come back. */
TEST(any_interleaving_gives_exactly_both_tails_in_order) {
        enum { STEPS = 3000, PIECE = 700 };
        static char all[STEPS * PIECE];
        static uint8_t streams[STEPS * PIECE];
        uint64_t seed = 7;
        OutputLog l;
        output_log_init(&l);
        size_t n_all = 0;
        for (int i = 0; i < STEPS; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                uint8_t stream = seed >> 40 & 3 ? EQ_STREAM_STDOUT : EQ_STREAM_STDERR;
                size_t n = seed >> 44 & 1 ? 1 : (seed >> 50) % PIECE;
                for (size_t j = 0; j < n; j++) {
                        all[n_all + j] = (char)(n_all + j);
                        streams[n_all + j] = stream;
                }
                ck_assert_int_eq(output_log_append(&l, stream, all + n_all, n), 0);
                n_all += n;
        }
        size_t left[3] = { 0, EQ_LOG_TAIL, EQ_LOG_TAIL };
        const Collected *c = walk(&l, BOTH);
        size_t at = c->n;
        for (size_t i = n_all; i-- > 0;) {
                if (left[streams[i]] == 0)
                        continue;
                left[streams[i]]--;
                ck_assert_uint_gt(at, 0);
                at--;
                ck_assert_int_eq(c->text[at], all[i]);
                ck_assert_uint_eq(c->streams[at], streams[i]);
        }
        ck_assert_uint_eq(at, 0);
        ck_assert_uint_eq(output_log_dropped(&l, l.attempt), n_all - c->n);
        output_log_deinit(&l);
}

TEST(alternating_bytes_stay_within_four_tails_of_memory) {
        OutputLog l;
        output_log_init(&l);
        for (int i = 0; i < 4 * EQ_LOG_TAIL; i++)
                ck_assert_int_eq(
                        output_log_append(&l, i & 1 ? EQ_STREAM_STDERR : EQ_STREAM_STDOUT, i & 1 ? "e" : "o", 1), 0);
        ck_assert_uint_le(memory_of(&l), 4 * EQ_LOG_TAIL);
        const Collected *c = walk(&l, BOTH);
        ck_assert_uint_ge(c->n, 2 * EQ_LOG_TAIL - 1);
        for (size_t i = 1; i < c->n; i++)
                ck_assert_int_ne(c->text[i], c->text[i - 1]);
        output_log_deinit(&l);
}

TEST(without_memory_it_says_so_counts_and_goes_on) {
        OutputLog l;
        output_log_init(&l);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, "lost", 4), -ENOMEM);
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDERR, "lost", 4), -ENOMEM);
        ck_assert_uint_eq(output_log_dropped(&l, l.attempt), 8);
        ck_assert_uint_eq(walk(&l, BOTH)->n, 0);
        fault_set(FAULT_ALLOC, 0, false);
        put(&l, EQ_STREAM_STDOUT, "kept");
        const Collected *c = walk(&l, BOTH);
        ck_assert_uint_eq(c->n, 4);
        ck_assert_int_eq(strncmp(c->text, "kept", 4), 0);

        /* A ring that cannot grow keeps the newest that fit. */
        fault_set(FAULT_ALLOC, 1, true);
        char piece[200];
        memset(piece, 'x', sizeof(piece));
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, piece, sizeof(piece)), 0);
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, piece, sizeof(piece)), -ENOMEM);
        ck_assert_uint_eq(output_log_kept(&l, EQ_STREAM_STDOUT), 256);
        ck_assert_uint_eq(walk(&l, BOTH)->n, 256);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_uint_eq(output_log_written(&l, EQ_STREAM_STDOUT), 408);
        output_log_deinit(&l);
}

/* ---- attempts ---- */

static void expect_attempt(const OutputLog *l, uint16_t attempt, const char *text, uint64_t n_dropped) {
        ck_assert(output_log_knows(l, attempt));
        got.n = 0;
        output_log_foreach(l, attempt, BOTH, collect, &got);
        ck_assert_uint_eq(got.n, strlen(text));
        ck_assert_int_eq(strncmp(got.text, text, got.n), 0);
        ck_assert_uint_eq(output_log_dropped(l, attempt), n_dropped);
}

TEST(each_attempt_has_what_it_wrote) {
        OutputLog l;
        output_log_init(&l);
        output_log_begin(&l, 1);
        put(&l, EQ_STREAM_STDOUT, "one");
        output_log_begin(&l, 2);
        put(&l, EQ_STREAM_STDOUT, "two ");
        put(&l, EQ_STREAM_STDERR, "oops");
        output_log_begin(&l, 3);
        output_log_begin(&l, 4);
        output_log_begin(&l, 4); /* it was not started the first time */
        put(&l, EQ_STREAM_STDERR, "four");
        expect_attempt(&l, 1, "one", 0);
        expect_attempt(&l, 2, "two oops", 0);
        expect_attempt(&l, 3, "", 0);
        expect_attempt(&l, 4, "four", 0);
        ck_assert(!output_log_knows(&l, 0));
        ck_assert(!output_log_knows(&l, 5));
        ck_assert_uint_eq(output_log_written(&l, EQ_STREAM_STDOUT), 0);
        ck_assert_uint_eq(output_log_written(&l, EQ_STREAM_STDERR), 4);

        output_log_begin(&l, 4); /* counted from zero again, and again */
        expect_attempt(&l, 4, "", 0);
        ck_assert(!output_log_knows(&l, 3));
        output_log_begin(&l, 1);
        put(&l, EQ_STREAM_STDOUT, "anew");
        expect_attempt(&l, 1, "anew", 0);
        ck_assert(!output_log_knows(&l, 2));
        output_log_deinit(&l);
}

TEST(a_flood_pushes_out_earlier_attempts_and_their_ends_last) {
        static char big[EQ_LOG_TAIL];
        OutputLog l;
        output_log_init(&l);
        output_log_begin(&l, 1);
        put(&l, EQ_STREAM_STDOUT, "first");
        output_log_begin(&l, 2);
        put(&l, EQ_STREAM_STDOUT, "second");
        put(&l, EQ_STREAM_STDERR, "and this");
        output_log_begin(&l, 3);
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, big, sizeof(big) - 3), 0);
        expect_attempt(&l, 1, "", 5);
        expect_attempt(&l, 2, "ondand this", 3);
        put(&l, EQ_STREAM_STDOUT, "end");
        expect_attempt(&l, 2, "and this", 6);
        ck_assert_uint_eq(output_log_dropped(&l, 3), 0);
        output_log_begin(&l, 4);
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDERR, big, sizeof(big)), 0);
        ck_assert(!output_log_knows(&l, 1));
        expect_attempt(&l, 2, "", 14);
        output_log_deinit(&l);
}

/* The reference: a plain list of all that was written, by attempt, and of each stream the last EQ_LOG_TAIL bytes kept. */
enum { MODEL_STEPS = 3000, MODEL_PIECE = 400 };
typedef struct Model {
        char text[MODEL_STEPS * MODEL_PIECE];
        uint8_t streams[MODEL_STEPS * MODEL_PIECE];
        uint16_t attempts[MODEL_STEPS * MODEL_PIECE];
        size_t n;
        uint16_t attempt;
} Model;
static Model model;

static void model_check(const OutputLog *l) {
        static bool kept[MODEL_STEPS * MODEL_PIECE];
        static Collected want;
        size_t left[3] = { 0, EQ_LOG_TAIL, EQ_LOG_TAIL }, of_last[3] = { 0 }, i = 0;
        for (size_t j = model.n; j-- > 0;) {
                kept[j] = left[model.streams[j]] > 0;
                left[model.streams[j]] -= kept[j];
                of_last[model.streams[j]] += model.attempts[j] == model.attempt;
        }
        ck_assert_uint_eq(output_log_written(l, EQ_STREAM_STDOUT), of_last[EQ_STREAM_STDOUT]);
        ck_assert_uint_eq(output_log_written(l, EQ_STREAM_STDERR), of_last[EQ_STREAM_STDERR]);
        for (uint16_t k = 1; k <= model.attempt; k++) {
                size_t first = i;
                for (want.n = 0; i < model.n && model.attempts[i] == k; i++)
                        if (kept[i]) {
                                want.text[want.n] = model.text[i];
                                want.streams[want.n++] = model.streams[i];
                        }
                got.n = 0;
                output_log_foreach(l, k, BOTH, collect, &got);
                ck_assert_uint_eq(got.n, want.n);
                ck_assert_int_eq(memcmp(got.text, want.text, want.n), 0);
                ck_assert_int_eq(memcmp(got.streams, want.streams, want.n), 0);
                if (output_log_knows(l, k))
                        ck_assert_uint_eq(output_log_dropped(l, k), i - first - want.n);
                else
                        ck_assert_uint_eq(want.n, 0);
        }
        ck_assert(!output_log_knows(l, model.attempt + 1));
}

static void model_run(uint64_t seed, unsigned retry_of, unsigned reset_of) {
        OutputLog l;
        output_log_init(&l);
        output_log_begin(&l, 1);
        model.n = 0;
        model.attempt = 1;
        for (int i = 0; i < MODEL_STEPS; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                if ((seed >> 33) % reset_of == 0) {
                        bool silent = model.n == 0 || model.attempts[model.n - 1] != model.attempt;
                        uint16_t to = 1 + (seed >> 20) % model.attempt;
                        model.n = to == model.attempt && silent ? model.n : 0;
                        model.attempt = to;
                        output_log_begin(&l, to);
                } else if ((seed >> 40) % retry_of == 0)
                        output_log_begin(&l, ++model.attempt);
                uint8_t stream = seed >> 50 & 7 ? EQ_STREAM_STDOUT : EQ_STREAM_STDERR;
                size_t n = seed >> 53 & 1 ? 0 : (seed >> 55) % MODEL_PIECE;
                for (size_t j = 0; j < n; j++) {
                        model.text[model.n + j] = (char)((model.n + j) * 7 + (size_t)i);
                        model.streams[model.n + j] = stream;
                        model.attempts[model.n + j] = model.attempt;
                }
                ck_assert_int_eq(output_log_append(&l, stream, model.text + model.n, n), 0);
                model.n += n;
                if (i % 500 == 499)
                        model_check(&l);
        }
        output_log_deinit(&l);
}

TEST(random_writes_and_retries_leave_what_a_plain_list_leaves) {
        model_run(1, 40, 100000);
        model_run(2, 3, 100000);
        model_run(3, 600, 100000);
        model_run(4, 10, 500);
}

TEST(a_retried_task_takes_no_more_memory_than_one_that_writes_as_much) {
        OutputLog one, many, silent;
        output_log_init(&one);
        output_log_init(&many);
        output_log_init(&silent);
        output_log_begin(&one, 1);
        for (uint16_t k = 1; k <= 2000; k++) {
                output_log_begin(&many, k);
                output_log_begin(&silent, k);
                int r = 0;
                for (uint8_t i = 0; i < 40; i++) {
                        r |= output_log_append(&one, 1 + i % 2, "line\n", 5);
                        r |= output_log_append(&many, 1 + i % 2, "line\n", 5);
                }
                ck_assert_int_eq(r, 0);
                ck_assert_uint_le(memory_of(&many), 4 * EQ_LOG_TAIL);
        }
        ck_assert_uint_eq(memory_of(&many), memory_of(&one));
        ck_assert_uint_eq(memory_of(&silent), 0);
        output_log_deinit(&one);
        output_log_deinit(&many);
}

TEST(an_order_that_has_no_room_lets_go_of_the_oldest_attempts) {
        OutputLog l;
        output_log_init(&l);
        uint16_t k = 0;
        int r = 0;
        while (k < 60000) {
                output_log_begin(&l, ++k);
                r |= output_log_append(&l, EQ_STREAM_STDOUT, "o", 1);
                r |= output_log_append(&l, EQ_STREAM_STDERR, "e", 1);
        }
        ck_assert_int_eq(r, 0);
        ck_assert_uint_le(memory_of(&l), 4 * EQ_LOG_TAIL);
        ck_assert(!output_log_knows(&l, 1));
        for (uint16_t known = l.first + 1; known < k; known++)
                if (known % 1000 == 0)
                        expect_attempt(&l, known, "oe", 0);
        expect_attempt(&l, k, "oe", 0);
        ck_assert_uint_gt(k - l.first, 40000); /* three bytes for each */
        output_log_deinit(&l);
}

TEST(without_memory_for_a_mark_only_what_comes_after_it_is_kept) {
        OutputLog l;
        output_log_init(&l);
        output_log_begin(&l, 1);
        put(&l, EQ_STREAM_STDOUT, "before");
        output_log_begin(&l, 2);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(output_log_append(&l, EQ_STREAM_STDOUT, "after", 5), -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert(!output_log_knows(&l, 1));
        expect_attempt(&l, 2, "after", 0);
        output_log_begin(&l, 3);
        put(&l, EQ_STREAM_STDERR, "later");
        expect_attempt(&l, 2, "after", 0);
        expect_attempt(&l, 3, "later", 0);
        output_log_deinit(&l);
}

/* What a restart of eqd does with the end of a task. */
TEST(what_was_kept_of_more_is_all_there_after_it_was_appended_again) {
        OutputLog l;
        output_log_init(&l);
        output_log_begin(&l, 3);
        put(&l, EQ_STREAM_STDOUT, "the ");
        put(&l, EQ_STREAM_STDERR, "tail ");
        put(&l, EQ_STREAM_STDOUT, "only");
        output_log_set_written(&l, EQ_STREAM_STDOUT, 1000);
        output_log_set_written(&l, EQ_STREAM_STDERR, 5);
        expect_attempt(&l, 3, "the tail only", 992);
        ck_assert(!output_log_knows(&l, 2));
        ck_assert_uint_eq(output_log_written(&l, EQ_STREAM_STDOUT), 1000);
        output_log_begin(&l, 4);
        put(&l, EQ_STREAM_STDOUT, "again");
        expect_attempt(&l, 3, "the tail only", 992);
        expect_attempt(&l, 4, "again", 0);
        output_log_deinit(&l);
}

RUN_TESTS("outputlog", 60, test_streams_come_back_in_the_order_of_writing_and_each_alone,
          test_a_flood_keeps_its_own_tail_and_pushes_out_nobody_elses,
          test_one_piece_larger_than_the_tail_keeps_its_end, test_any_interleaving_gives_exactly_both_tails_in_order,
          test_alternating_bytes_stay_within_four_tails_of_memory, test_without_memory_it_says_so_counts_and_goes_on,
          test_each_attempt_has_what_it_wrote, test_a_flood_pushes_out_earlier_attempts_and_their_ends_last,
          test_random_writes_and_retries_leave_what_a_plain_list_leaves,
          test_a_retried_task_takes_no_more_memory_than_one_that_writes_as_much,
          test_an_order_that_has_no_room_lets_go_of_the_oldest_attempts,
          test_without_memory_for_a_mark_only_what_comes_after_it_is_kept,
          test_what_was_kept_of_more_is_all_there_after_it_was_appended_again)
