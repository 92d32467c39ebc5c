/* SPDX-License-Identifier: MIT */
/* The names are those of setrlimit(2), in lower case and without RLIMIT_. */

#include "executor/rlimits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/util.h"
#include "executor/command.h"

static const struct {
        const char *name;
        int resource;
} limits[] = {
        { "as", RLIMIT_AS },           { "core", RLIMIT_CORE },         { "cpu", RLIMIT_CPU },
        { "data", RLIMIT_DATA },       { "fsize", RLIMIT_FSIZE },       { "locks", RLIMIT_LOCKS },
        { "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
        { "nofile", RLIMIT_NOFILE },   { "nproc", RLIMIT_NPROC },       { "rss", RLIMIT_RSS },
        { "rtprio", RLIMIT_RTPRIO },   { "rttime", RLIMIT_RTTIME },     { "sigpending", RLIMIT_SIGPENDING },
        { "stack", RLIMIT_STACK },
};

static int find(EqBytes name) {
        for (size_t i = 0; i < ELEMENTSOF(limits); i++)
                if (eq_bytes_eq(eq_str(limits[i].name), name))
                        return limits[i].resource;
        return -1;
}

static int suffix_shift(char c) {
        switch (c) {
        case 'K':
                return 10;
        case 'M':
                return 20;
        case 'G':
                return 30;
        case 'T':
                return 40;
        default:
                return -1;
        }
}

static int parse_value(EqBytes t, uint64_t *ret) {
        uint64_t v = 0;
        if (eq_bytes_eq(t, eq_str("unlimited")) || eq_bytes_eq(t, eq_str("infinity"))) {
                *ret = RLIM_INFINITY;
                return 0;
        }
        uint32_t n = t.len;
        int shift = n > 1 ? suffix_shift(t.data[n - 1]) : -1;
        n -= shift > 0;
        for (uint32_t i = 0; i < n; i++) {
                unsigned digit = (unsigned)(t.data[i] - '0');
                if (digit > 9 || v > (UINT64_MAX - digit) / 10)
                        return -EINVAL;
                v = v * 10 + digit;
        }
        if (n == 0 || (shift > 0 && v > UINT64_MAX >> shift))
                return -EINVAL;
        *ret = shift > 0 ? v << shift : v;
        return 0;
}

int limit_parse(EqBytes text, SpawnRlimit *ret, char *error, size_t size) {
        const char *eq = text.len ? memchr(text.data, '=', text.len) : NULL;
        int resource = eq ? find(eq_bytes(text.data, (size_t)(eq - text.data))) : -1;
        if (resource < 0) {
                snprintf(error, size,
                         "\"%.*s\": expected NAME=SOFT[:HARD] with NAME one of as core cpu data fsize locks memlock "
                         "msgqueue "
                         "nice nofile nproc rss rtprio rttime sigpending stack",
                         (int)MIN(text.len, 32u), eq_text_valid(text) ? text.data : "");
                return -EINVAL;
        }
        EqBytes value = eq_bytes(eq + 1, text.len - (size_t)(eq + 1 - text.data));
        const char *colon = value.len ? memchr(value.data, ':', value.len) : NULL;
        EqBytes soft = colon ? eq_bytes(value.data, (size_t)(colon - value.data)) : value;
        EqBytes hard = colon ? eq_bytes(colon + 1, value.len - soft.len - 1) : value;
        *ret = (SpawnRlimit) { .resource = (uint32_t)resource };
        if (parse_value(soft, &ret->soft) == 0 && parse_value(hard, &ret->hard) == 0 && ret->soft <= ret->hard)
                return 0;
        snprintf(
                error, size,
                "\"%.*s\": a limit is a number with K, M, G or T, or unlimited; the soft one is not above the hard one",
                (int)MIN(text.len, 32u), eq_text_valid(text) ? text.data : "");
        return -EINVAL;
}

int command_rlimits_check(EqArray rlimits, char *ret_error, size_t size) {
        EqBytes text;
        SpawnRlimit limit;
        if (rlimits.n > SPAWN_RLIMITS_MAX) {
                snprintf(ret_error, size, "at most %d limits", SPAWN_RLIMITS_MAX);
                return -EINVAL;
        }
        while (eq_next_bytes(&rlimits, &text) > 0) {
                if (limit_parse(text, &limit, ret_error, size) < 0)
                        return -EINVAL;
                if (limit.resource == RLIMIT_NOFILE && limit.soft <= STDERR_FILENO) {
                        snprintf(ret_error, size, "nofile: at least %d, for standard input, output and error",
                                 STDERR_FILENO + 1);
                        return -EINVAL;
                }
        }
        return 0;
}
