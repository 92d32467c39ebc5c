/* SPDX-License-Identifier: MIT */
#include "eqctl/duration.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "test.h"

#define SEC UINT64_C(1000000)

static uint64_t parse(const char *text) {
        uint64_t usec = 0;
        ck_assert_msg(duration_parse(text, &usec) == 0, "%s", text);
        return usec;
}

TEST(durations_are_numbers_with_units) {
        ck_assert_uint_eq(parse("10s"), 10 * SEC);
        ck_assert_uint_eq(parse("90"), 90 * SEC);
        ck_assert_uint_eq(parse("0"), 0);
        ck_assert_uint_eq(parse("5m"), 300 * SEC);
        ck_assert_uint_eq(parse("1h30m"), 5400 * SEC);
        ck_assert_uint_eq(parse("2d"), 172800 * SEC);
        ck_assert_uint_eq(parse("500ms"), SEC / 2);
        ck_assert_uint_eq(parse("7us"), 7);
        ck_assert_uint_eq(parse("1.5h"), 5400 * SEC);
        ck_assert_uint_eq(parse("0.25s"), SEC / 4);
        ck_assert_uint_eq(parse("1w"), 604800 * SEC);
        ck_assert_uint_eq(parse("1min30sec"), 90 * SEC);
        ck_assert_uint_eq(parse("30 sec"), 30 * SEC);
        ck_assert_uint_eq(parse("1 h 30 minutes"), 5400 * SEC);
        ck_assert_uint_eq(parse("2 days"), 172800 * SEC);
        ck_assert_uint_eq(parse("1 hour 1second "), 3601 * SEC);
        ck_assert_uint_eq(parse("3 weeks"), 3 * 604800 * SEC);
        ck_assert_uint_eq(parse("20 msec"), 20000);
}

TEST(what_is_no_duration_is_refused) {
        static const char *const bad[] = { "",    "s",   "10x",  "-1s", "1h30",  "1 2 h", " 1s",   "1h 5",
                                           "1.s", ".5s", "1. s", "5M",  "1..5s", "1h5",   "1 mon", "2 dayss" };
        uint64_t usec = 42;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                ck_assert_msg(duration_parse(bad[i], &usec) == -EINVAL, "`%s`", bad[i]);
        ck_assert_int_eq(duration_parse("99999999999999999999d", &usec), -ERANGE);
        ck_assert_int_eq(duration_parse("5000000000d", &usec), -ERANGE);
        ck_assert_uint_eq(usec, 42);
}

static void check_format(uint64_t usec, const char *text) {
        char buf[DURATION_SIZE];
        ck_assert_str_eq(duration_format(usec, buf), text);
}

TEST(durations_are_shown_with_two_units_at_most) {
        check_format(0, "0s");
        check_format(639, "639us");
        check_format(5000, "5ms");
        check_format(800000, "0.8s");
        check_format(2 * SEC, "2s");
        check_format(2500000, "2.5s");
        check_format(59 * SEC, "59s");
        check_format(252 * SEC, "4m12s");
        check_format(31 * 60 * SEC, "31m");
        check_format(3780 * SEC, "1h03m");
        check_format((3 * 86400 + 4 * 3600) * SEC, "3d04h");
        check_format(UINT64_MAX, "213503982d08h");
}

/* 2026-11-25 12:00:00 UTC */
#define NOW (UINT64_C(1795608000) * SEC)

static uint64_t at(const char *text, TimeSense sense) {
        uint64_t usec = 0;

        setenv("TZ", "UTC", 1);
        tzset();
        ck_assert_msg(time_parse(text, NOW, sense, &usec) == 0, "%s", text);
        return usec;
}

TEST(times_are_clock_times_dates_epochs_and_offsets) {
        ck_assert_uint_eq(at("now", TIME_FUTURE), NOW);
        ck_assert_uint_eq(at("now+5m", TIME_FUTURE), NOW + 300 * SEC);
        ck_assert_uint_eq(at("now-5m", TIME_PAST), NOW - 300 * SEC);
        ck_assert_uint_eq(at("@1795608001", TIME_FUTURE), NOW + SEC);
        ck_assert_uint_eq(at("@1795608000.5", TIME_FUTURE), NOW + SEC / 2);
        ck_assert_uint_eq(at("2026-11-25 12:00:07", TIME_FUTURE), NOW + 7 * SEC);
        ck_assert_uint_eq(at("2026-11-25T12:01", TIME_FUTURE), NOW + 60 * SEC);
        ck_assert_uint_eq(at("2026-11-26", TIME_FUTURE), NOW + 12 * 3600 * SEC);
}

TEST(a_clock_time_is_the_next_one_ahead_or_the_last_one_behind) {
        ck_assert_uint_eq(at("13:30", TIME_FUTURE), NOW + 5400 * SEC);
        ck_assert_uint_eq(at("11:00", TIME_FUTURE), NOW + 23 * 3600 * SEC);
        ck_assert_uint_eq(at("12:00", TIME_FUTURE), NOW + 86400 * SEC);
        ck_assert_uint_eq(at("11:00:30", TIME_PAST), NOW - 3570 * SEC);
        ck_assert_uint_eq(at("13:00", TIME_PAST), NOW - 23 * 3600 * SEC);
        ck_assert_uint_eq(at("12:00", TIME_PAST), NOW);
}

TEST(noon_midnight_and_tomorrow_are_what_at_1_and_journalctl_1_take_them_for) {
        ck_assert_uint_eq(at("noon", TIME_FUTURE), NOW + 86400 * SEC);
        ck_assert_uint_eq(at("midnight", TIME_FUTURE), NOW + 43200 * SEC);
        ck_assert_uint_eq(at("midnight", TIME_PAST), NOW - 43200 * SEC);
        ck_assert_uint_eq(at("tomorrow", TIME_FUTURE), NOW + 86400 * SEC);
        ck_assert_uint_eq(at("tomorrow 02:30", TIME_FUTURE), NOW + (43200 + 9000) * SEC);
        ck_assert_uint_eq(at("tomorrow noon", TIME_FUTURE), NOW + 86400 * SEC);
        ck_assert_uint_eq(at("today", TIME_PAST), NOW - 43200 * SEC);
        ck_assert_uint_eq(at("yesterday", TIME_PAST), NOW - (43200 + 86400) * SEC);
        ck_assert_uint_eq(at("yesterday 22:00", TIME_PAST), NOW - 14 * 3600 * SEC);
}

TEST(a_bare_duration_counts_from_now_in_the_sense_that_is_meant) {
        ck_assert_uint_eq(at("2h", TIME_FUTURE), NOW + 7200 * SEC);
        ck_assert_uint_eq(at("2h", TIME_PAST), NOW - 7200 * SEC);
        ck_assert_uint_eq(at("2 hours", TIME_PAST), NOW - 7200 * SEC);
}

TEST(what_is_no_time_is_refused) {
        static const char *const bad[] = {
                "",      "yesterday",     "25:00",      "12",     "12:60", "2026-02-31 10:00", "now5m",
                "now+",  "2026-13-01",    "@",          "@12x",   "@-1",   "12:00 ",           "now*5m",
                "today", "tomorrow12:00", "tomorrow x", "noonish"
        };
        uint64_t usec;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                ck_assert_msg(time_parse(bad[i], NOW, TIME_FUTURE, &usec) == -EINVAL, "`%s`", bad[i]);
}

RUN_TESTS("duration", 10, test_durations_are_numbers_with_units, test_what_is_no_duration_is_refused,
          test_durations_are_shown_with_two_units_at_most, test_times_are_clock_times_dates_epochs_and_offsets,
          test_a_clock_time_is_the_next_one_ahead_or_the_last_one_behind,
          test_noon_midnight_and_tomorrow_are_what_at_1_and_journalctl_1_take_them_for,
          test_a_bare_duration_counts_from_now_in_the_sense_that_is_meant, test_what_is_no_time_is_refused)
