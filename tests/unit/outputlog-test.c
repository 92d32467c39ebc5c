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
        output_log_foreach(l, mask, collect, &got);
        return &got;
}

static void put(OutputLog *l, uint8_t stream, const char *text) {
        ck_assert_int_eq(output_log_append(l, stream, text, strlen(text)), 0);
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
        ck_assert_uint_eq(l.n_dropped, 0);
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
        ck_assert_uint_eq(l.n_total[EQ_STREAM_STDOUT], 500000);
        ck_assert_uint_eq(l.n_dropped, 500000 - EQ_LOG_TAIL);
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
        ck_assert_uint_eq(l.n_dropped, n_all - c->n);
        output_log_deinit(&l);
}

TEST(alternating_bytes_stay_within_four_tails_of_memory) {
        OutputLog l;
        output_log_init(&l);
        for (int i = 0; i < 4 * EQ_LOG_TAIL; i++)
                ck_assert_int_eq(
                        output_log_append(&l, i & 1 ? EQ_STREAM_STDERR : EQ_STREAM_STDOUT, i & 1 ? "e" : "o", 1), 0);
        size_t mem = 0;
        for (int i = 0; i < 3; i++)
                mem += l.rings[i].cap;
        ck_assert_uint_le(mem + l.order.cap, 4 * EQ_LOG_TAIL);
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
        ck_assert_uint_eq(l.n_dropped, 8);
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
        ck_assert_uint_eq(l.n_total[EQ_STREAM_STDOUT], 408);
        output_log_deinit(&l);
}

RUN_TESTS("outputlog", 20, test_streams_come_back_in_the_order_of_writing_and_each_alone,
          test_a_flood_keeps_its_own_tail_and_pushes_out_nobody_elses,
          test_one_piece_larger_than_the_tail_keeps_its_end, test_any_interleaving_gives_exactly_both_tails_in_order,
          test_alternating_bytes_stay_within_four_tails_of_memory, test_without_memory_it_says_so_counts_and_goes_on)
