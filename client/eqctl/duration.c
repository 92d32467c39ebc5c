/* SPDX-License-Identifier: MIT */
/* Durations are numbers with units, largest first by habit but in any order; a number alone is seconds. Times of day are
 * local time; mktime(3) decides what happens when clocks change. */

#include "eqctl/duration.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/timeunits.h"

#define SEC UINT64_C(1000000)
#define YEARS_100 (UINT64_C(36525) * 86400 * SEC)

static const struct {
        const char *name;
        uint64_t usec;
} units[] = {
#define UNIT(name_, usec_) { .name = name_, .usec = UINT64_C(usec_) },
        EQ_TIME_UNITS(UNIT)
#undef UNIT
};

static int unit_find(const char *name, size_t n, uint64_t *ret_usec) {
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
                if (strlen(units[i].name) == n && memcmp(units[i].name, name, n) == 0) {
                        *ret_usec = units[i].usec;
                        return 0;
                }
        return -EINVAL;
}

/* "1.5": 1 and 500000 millionths. */
static int number_parse(const char **p, uint64_t *ret_whole, uint64_t *ret_millionths) {
        uint64_t whole = 0, fraction = 0, scale = 100000;

        if (!isdigit((unsigned char)**p))
                return -EINVAL;
        for (; isdigit((unsigned char)**p); (*p)++) {
                whole = whole * 10 + (uint64_t)(**p - '0');
                if (whole > YEARS_100)
                        return -ERANGE;
        }
        if (**p == '.') {
                if (!isdigit((unsigned char)*++*p))
                        return -EINVAL;
                for (; isdigit((unsigned char)**p); (*p)++, scale /= 10)
                        fraction += (uint64_t)(**p - '0') * scale;
        }
        *ret_whole = whole;
        *ret_millionths = fraction;
        return 0;
}

int duration_parse(const char *text, uint64_t *ret_usec) {
        uint64_t total = 0;
        const char *p = text;

        if (!*p)
                return -EINVAL;
        while (*p) {
                uint64_t whole, fraction, unit, part;
                int r = number_parse(&p, &whole, &fraction);
                if (r < 0)
                        return r;
                p += strspn(p, " \t");
                size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz");
                r = unit_find(p, n, &unit);
                if (r < 0 || (n == 0 && (*p || strpbrk(text, "abcdefghijklmnopqrstuvwxyz"))))
                        return -EINVAL;
                p += n;
                p += strspn(p, " \t");
                if (__builtin_mul_overflow(whole, unit, &part) || part > YEARS_100)
                        return -ERANGE;
                total += part + fraction * unit / 1000000;
                if (total > YEARS_100)
                        return -ERANGE;
        }
        *ret_usec = total;
        return 0;
}

static bool all_read(const char *end) {
        return end && *end == 0;
}

static int epoch_parse(const char *text, uint64_t *ret_usec) {
        uint64_t whole, fraction;

        int r = number_parse(&text, &whole, &fraction);
        if (r < 0 || *text)
                return -EINVAL;
        if (whole > UINT64_MAX / SEC / 2)
                return -EINVAL;
        *ret_usec = whole * SEC + fraction;
        return 0;
}

static int tm_to_usec(struct tm *tm, uint64_t *ret_usec) {
        tm->tm_isdst = -1;
        time_t t = mktime(tm);
        if (t < 0)
                return -EINVAL;
        *ret_usec = (uint64_t)t * SEC;
        return 0;
}

/* mktime(3) would take the 31st of February; nobody means it. */
static int date_parse(const char *text, uint64_t *ret_usec) {
        static const char *const formats[] = { "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S",
                                               "%Y-%m-%dT%H:%M", "%Y-%m-%d" };

        for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
                struct tm tm = { 0 };
                if (!all_read(strptime(text, formats[i], &tm)))
                        continue;
                int day = tm.tm_mday;
                int r = tm_to_usec(&tm, ret_usec);
                return r == 0 && tm.tm_mday != day ? -EINVAL : r;
        }
        return -EINVAL;
}

static int hour_parse(const char *text, struct tm *ret) {
        static const char *const formats[] = { "%H:%M:%S", "%H:%M" };

        for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
                *ret = (struct tm) { 0 };
                if (all_read(strptime(text, formats[i], ret)))
                        return 0;
        }
        *ret = (struct tm) { .tm_hour = strcmp(text, "noon") == 0 ? 12 : 0 };
        return ret->tm_hour || strcmp(text, "midnight") == 0 ? 0 : -EINVAL;
}

/* "tomorrow", at this time as at(1) has it, or "tomorrow HOUR"; "today" and "yesterday" begin at midnight, as for journalctl(1). */
static int day_parse(const char *text, uint64_t now_usec, TimeSense sense, uint64_t *ret_usec) {
        const char *name = sense == TIME_FUTURE ? "tomorrow" : "yesterday";
        size_t n = strlen(name);
        time_t now = (time_t)(now_usec / SEC);
        struct tm day, hour = { 0 };

        if (!localtime_r(&now, &day))
                return -EINVAL;
        if (sense == TIME_FUTURE)
                hour = day;
        if (sense == TIME_PAST && strcmp(text, "today") == 0)
                text = "";
        else if (strncmp(text, name, n) != 0 || (text[n] && text[n] != ' '))
                return -EINVAL;
        else {
                day.tm_mday += sense == TIME_FUTURE ? 1 : -1;
                text += n + (text[n] == ' ');
        }
        if (*text && hour_parse(text, &hour) < 0)
                return -EINVAL;
        day.tm_hour = hour.tm_hour;
        day.tm_min = hour.tm_min;
        day.tm_sec = hour.tm_sec;
        return tm_to_usec(&day, ret_usec);
}

static int clock_parse(const char *text, uint64_t now_usec, TimeSense sense, uint64_t *ret_usec) {
        time_t now = (time_t)(now_usec / SEC);
        struct tm day, tm;

        if (hour_parse(text, &tm) < 0)
                return -EINVAL;
        if (!localtime_r(&now, &day))
                return -EINVAL;
        for (int shift = -1; shift <= 1; shift++) {
                struct tm t = day;
                t.tm_hour = tm.tm_hour;
                t.tm_min = tm.tm_min;
                t.tm_sec = tm.tm_sec;
                t.tm_mday += sense == TIME_FUTURE ? shift : -shift;
                int r = tm_to_usec(&t, ret_usec);
                if (r < 0)
                        return r;
                if (sense == TIME_FUTURE ? *ret_usec > now_usec : *ret_usec <= now_usec)
                        return 0;
        }
        return -EINVAL;
}

int time_parse(const char *text, uint64_t now_usec, TimeSense sense, uint64_t *ret_usec) {
        uint64_t d;

        if (text[0] == '@')
                return epoch_parse(text + 1, ret_usec);
        if (strncmp(text, "now", 3) == 0) {
                d = 0;
                if (text[3] && ((text[3] != '+' && text[3] != '-') || duration_parse(text + 4, &d) < 0))
                        return -EINVAL;
                if (text[3] == '-' && d > now_usec)
                        return -EINVAL;
                *ret_usec = text[3] == '-' ? now_usec - d : now_usec + d;
                return 0;
        }
        if (date_parse(text, ret_usec) == 0 || clock_parse(text, now_usec, sense, ret_usec) == 0 ||
            day_parse(text, now_usec, sense, ret_usec) == 0)
                return 0;
        /* a number alone is no time: is 12 twelve o'clock or twelve seconds? */
        if (!strpbrk(text, "abcdefghijklmnopqrstuvwxyz") || duration_parse(text, &d) < 0)
                return -EINVAL;
        if (sense == TIME_PAST && d > now_usec)
                return -EINVAL;
        *ret_usec = sense == TIME_PAST ? now_usec - d : now_usec + d;
        return 0;
}

static const char *two_parts(char *buf, uint64_t a, char unit_a, uint64_t b, char unit_b) {
        if (b > 0)
                (void)snprintf(buf, DURATION_SIZE, "%llu%c%02llu%c", (unsigned long long)a, unit_a,
                               (unsigned long long)b, unit_b);
        else
                (void)snprintf(buf, DURATION_SIZE, "%llu%c", (unsigned long long)a, unit_a);
        return buf;
}

const char *duration_format(uint64_t usec, char *buf) {
        uint64_t s = usec / SEC;

        if (s < 10 && usec % SEC >= SEC / 10)
                (void)snprintf(buf, DURATION_SIZE, "%u.%us", (unsigned)s, (unsigned)(usec % SEC / (SEC / 10)));
        else if (usec > 0 && usec < 1000)
                (void)snprintf(buf, DURATION_SIZE, "%uus", (unsigned)usec);
        else if (s < 1 && usec > 0)
                (void)snprintf(buf, DURATION_SIZE, "%ums", (unsigned)(usec / 1000));
        else if (s < 60)
                (void)snprintf(buf, DURATION_SIZE, "%us", (unsigned)s);
        else if (s < 3600)
                return two_parts(buf, s / 60, 'm', s % 60, 's');
        else if (s < 86400)
                return two_parts(buf, s / 3600, 'h', s % 3600 / 60, 'm');
        else
                return two_parts(buf, s / 86400, 'd', s % 86400 / 3600, 'h');
        return buf;
}
