/* SPDX-License-Identifier: MIT */
/* util.h - clock, fatal errors and memory, for qload and ceilings. */
#ifndef UTIL_H
#define UTIL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_SEC 1000000000

static inline uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* Ends the program with the text of errno. */
__attribute__((noreturn)) static inline void die(const char *what) {
        perror(what);
        exit(2);
}

static inline void *allocate(size_t n, size_t size) {
        void *p = calloc(n, size);

        if (!p)
                die("calloc");
        return p;
}

#endif
