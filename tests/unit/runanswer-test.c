/* SPDX-License-Identifier: MIT */
#include "executor/runanswer.h"

#include <string.h>

#include "test.h"

#define RAW(text) eq_bytes(text, sizeof(text) - 1)
#define NIL RAW("\xc0")

static RunAnswer parse(EqBytes error, EqBytes result) {
        RunAnswer a;
        run_answer_parse(error, result, 7, &a);
        return a;
}

TEST(nil_and_bytes_are_results) {
        RunAnswer a = parse(NIL, NIL);
        ck_assert_int_eq(a.verdict, TASK_OK);
        ck_assert_uint_eq(a.result.len, 0);
        ck_assert_int_eq(a.exit, -1);
        a = parse(NIL, RAW("\xc4\x02\x00\xff"));
        ck_assert_int_eq(a.verdict, TASK_OK);
        ck_assert_uint_eq(a.result.len, 2);
        a = parse(NIL, RAW("\xa2hi"));
        ck_assert(eq_bytes_eq(a.result, eq_str("hi")));
        ck_assert_int_eq(a.refused, EQ_E_NONE);
}

TEST(a_record_says_more) {
        RunAnswer a = parse(NIL, RAW("\x83\xa7"
                                     "attempt\x07\xa6result\xa1r\xa4"
                                     "exit\x03"));
        ck_assert_int_eq(a.verdict, TASK_OK);
        ck_assert(eq_bytes_eq(a.result, eq_str("r")));
        ck_assert_int_eq(a.exit, 3);
        a = parse(RAW("\x82\xa4text\xa2no\xa5"
                      "final\xc3"),
                  NIL);
        ck_assert_int_eq(a.verdict, TASK_BAD);
        ck_assert(a.final);
        ck_assert(eq_bytes_eq(a.text, eq_str("no")));
        a = parse(RAW("\x81\xa9give_back\xc3"), NIL);
        ck_assert_int_eq(a.verdict, TASK_RETURNED);
        ck_assert(!a.says_when);
        a = parse(RAW("\x82\xa4text\xa2no\xb0retry_after_usec\x00"), NIL);
        ck_assert(a.says_when);
        ck_assert_uint_eq(a.retry_after_usec, 0);
        a = parse(RAW("\x82\xa9give_back\xc3\xb0retry_after_usec\xcd\x03\xe8"), NIL);
        ck_assert_int_eq(a.verdict, TASK_RETURNED);
        ck_assert_uint_eq(a.retry_after_usec, 1000);
        a = parse(NIL, RAW("\x80"));
        ck_assert_int_eq(a.verdict, TASK_OK);
}

TEST(texts_and_pairs_are_errors) {
        RunAnswer a = parse(RAW("\xa3"
                                "bad"),
                            NIL);
        ck_assert_int_eq(a.verdict, TASK_BAD);
        ck_assert(eq_bytes_eq(a.text, eq_str("bad")));
        a = parse(RAW("\x92\x05\xa3"
                      "bad"),
                  NIL);
        ck_assert(eq_bytes_eq(a.text, eq_str("bad")));
        ck_assert_int_eq(a.refused, EQ_E_NONE);
        a = parse(RAW("\xa2\x1b["), NIL);
        ck_assert_int_eq(a.verdict, TASK_BAD);
        ck_assert(eq_text_valid(a.text));
}

TEST(another_attempts_answer_is_none_to_this) {
        RunAnswer a = parse(NIL, RAW("\x82\xa7"
                                     "attempt\x08\xa6result\xa1r"));
        ck_assert_int_eq(a.verdict, TASK_LOST);
        ck_assert_int_eq(a.refused, EQ_E_NO_LEASE);
        ck_assert(EQ_HAS(&a.details, ErrorDetails, attempt));
        ck_assert_uint_eq(a.details.attempt, 8);
        ck_assert_uint_eq(a.result.len, 0);
        a = parse(RAW("\x81\xa7"
                      "attempt\x06"),
                  NIL);
        ck_assert_int_eq(a.verdict, TASK_LOST);
}

TEST(anything_else_is_refused_and_ends_the_attempt_as_failed) {
        static char large[EQ_RESULT_MAX + 1 + 5] = "\xc6\x00\x01\x00\x01";
        struct {
                EqBytes error, result;
                eq_error code;
        } bad[] = {
                { NIL, RAW("\x05"), EQ_E_INVALID },
                { NIL, RAW("\xc3"), EQ_E_INVALID },
                { NIL, RAW("\x91\xc0"), EQ_E_INVALID },
                { NIL, RAW("\x81\xa1x\xa1y"), EQ_E_INVALID },
                { NIL,
                  RAW("\x81\xa4"
                      "exit\xcd\x01\x00"),
                  EQ_E_INVALID },
                { RAW("\x05"), NIL, EQ_E_INVALID },
                { RAW("\x90"), NIL, EQ_E_INVALID },
                { RAW("\x81\xa4text\x05"), NIL, EQ_E_INVALID },
                { NIL, eq_bytes(large, sizeof(large)), EQ_E_TOO_LARGE },
        };
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                RunAnswer a = parse(bad[i].error, bad[i].result);
                ck_assert_msg(a.refused == bad[i].code, "%zu: %d", i, a.refused);
                ck_assert_int_eq(a.verdict, TASK_BAD);
                ck_assert_uint_eq(a.result.len, 0);
                ck_assert_str_ne(a.why, "");
        }
}

RUN_TESTS("runanswer", 30, test_nil_and_bytes_are_results, test_a_record_says_more, test_texts_and_pairs_are_errors,
          test_another_attempts_answer_is_none_to_this, test_anything_else_is_refused_and_ends_the_attempt_as_failed)
