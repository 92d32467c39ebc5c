/* SPDX-License-Identifier: MIT */
#pragma once

/* Cleanup attributes and the few macros that every module uses. */

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))

#define TAKE_PTR(p)                                                                                                    \
        __extension__({                                                                                                \
                __typeof__(p) *take_ = &(p);                                                                           \
                __typeof__(p) value_ = *take_;                                                                         \
                *take_ = NULL;                                                                                         \
                value_;                                                                                                \
        })
#define TAKE_FD(fd)                                                                                                    \
        __extension__({                                                                                                \
                int *take_ = &(fd);                                                                                    \
                int value_ = *take_;                                                                                   \
                *take_ = -1;                                                                                           \
                value_;                                                                                                \
        })

/* Does a sanitizer watch this build? */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

#define ELEMENTSOF(a) (sizeof(a) / sizeof((a)[0]))
#undef MIN /* sys/param.h, which comes with uv.h, has the same */
#undef MAX
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Closes fd unless it is negative; returns -1, so that fd = close_fd(fd). */
static inline int close_fd(int fd) {
        if (fd >= 0)
                (void)close(fd); /* Linux frees the number whatever it returns */
        return -1;
}
static inline void close_fdp(int *fd) {
        *fd = close_fd(*fd);
}
static inline void freep(void *p) {
        free(*(void **)p);
}
#define _cleanup_close_ _cleanup_(close_fdp)
#define _cleanup_free_ _cleanup_(freep)

#define DEFINE_CLEANUP(type, func)                                                                                     \
        static inline void func##p(type **p) {                                                                         \
                if (*p)                                                                                                \
                        func(*p);                                                                                      \
        }
