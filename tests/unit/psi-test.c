/* SPDX-License-Identifier: MIT */
#include "base/psi.h"

#include <errno.h>
#include <string.h>

#include "test.h"

static void ck_decodes(const char *base64, const char *want, size_t n) {
        uint8_t bytes[PSI_TRIGGER_MAX];
        size_t got;
        ck_assert_int_eq(psi_decode_trigger(base64, bytes, &got), 0);
        ck_assert_uint_eq(got, n);
        ck_assert_mem_eq(bytes, want, n);
}

TEST(a_trigger_is_decoded_whatever_its_length) {
        ck_decodes("", "", 0);
        ck_decodes("c29tZSAyMDAwMDAgMjAwMDAwMAA=", "some 200000 2000000", 20); /* as systemd has it, with a NUL */
        ck_decodes("YQ==", "a", 1);
        ck_decodes("YWI=", "ab", 2);
        ck_decodes("YWJj", "abc", 3);
        ck_decodes("/+//", "\xff\xef\xff", 3);
}

TEST(what_is_no_base64_is_refused_and_leaves_all_as_it_was) {
        static const char *const wrong[] = { "Y",        "YQ",   "YQ=",  "Y===",   "====",
                                             "YQ==YQ==", "YW=j", "Y Wj", "YWJj\n", "YWJjY" };
        uint8_t bytes[PSI_TRIGGER_MAX] = "old";
        size_t n = 77;
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                ck_assert_msg(psi_decode_trigger(wrong[i], bytes, &n) == -EINVAL, "%s", wrong[i]);
        ck_assert_uint_eq(n, 77);
        ck_assert_str_eq((const char *)bytes, "old");
}

TEST(a_trigger_has_a_bound) {
        char text[4 * PSI_TRIGGER_MAX];
        uint8_t bytes[PSI_TRIGGER_MAX];
        size_t n;
        memset(text, 'A', sizeof(text));
        text[340] = '\0'; /* 255 bytes */
        ck_assert_int_eq(psi_decode_trigger(text, bytes, &n), 0);
        ck_assert_uint_eq(n, 255);
        memset(text, 'A', sizeof(text));
        text[344] = '\0'; /* 258 */
        ck_assert_int_eq(psi_decode_trigger(text, bytes, &n), -E2BIG);
        memset(text, 'A', sizeof(text));
        text[sizeof(text) - 1] = '\0';
        ck_assert_int_lt(psi_decode_trigger(text, bytes, &n), 0);
}

static int total(const char *text, uint64_t *ret) {
        return psi_parse_total(text, strlen(text), ret);
}

TEST(the_total_of_some_is_found) {
        uint64_t usec;
        ck_assert_int_eq(total("some avg10=0.00 avg60=1.20 avg300=0.40 total=1124693\nfull avg10=0.00 avg60=0.00 "
                               "avg300=0.00 total=7\n",
                               &usec),
                         0);
        ck_assert_uint_eq(usec, 1124693);
        ck_assert_int_eq(total("full total=7\nsome total=8", &usec), 0);
        ck_assert_uint_eq(usec, 8);
        ck_assert_int_eq(total("some avg10=0.00 total=18446744073709551615\n", &usec), 0);
        ck_assert_uint_eq(usec, UINT64_MAX);
}

TEST(a_file_that_is_something_else_is_refused) {
        static const char *const wrong[] = { "",
                                             "\n",
                                             "some",
                                             "some \n",
                                             "some total",
                                             "some total=\n",
                                             "some total=x",
                                             "full total=1\n",
                                             "some avg10=1\ntotal=2\n",
                                             "some total=18446744073709551616\n",
                                             "some total=-1" };
        uint64_t usec = 9;
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                ck_assert_msg(total(wrong[i], &usec) == -EINVAL, "%s", wrong[i]);
        ck_assert_uint_eq(usec, 9);
}

RUN_TESTS("psi", 30, test_a_trigger_is_decoded_whatever_its_length,
          test_what_is_no_base64_is_refused_and_leaves_all_as_it_was, test_a_trigger_has_a_bound,
          test_the_total_of_some_is_found, test_a_file_that_is_something_else_is_refused)
