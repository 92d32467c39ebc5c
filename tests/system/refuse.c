/* SPDX-License-Identifier: MIT */
/* For LD_PRELOAD: while the file named by EQD_REFUSE is there, no thread and no process can be created: what would do it fails with
 * the errno, a number, that is in the file. So a test says of a whole eqd when the system refuses, and with what, without the
 * seams that are built into eqd, and without a limit that concerns others as well.
 *
 * All ways that the C library exports. It creates threads and spawns by calls of its own, which nobody can get between; so
 * those functions are here, too. */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* 0, or the errno. Keeps errno. */
static int refusal(void) {
        char text[16] = "";
        int saved = errno;
        const char *path = getenv("EQD_REFUSE");
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
        if (fd >= 0)
                close(fd);
        errno = saved;
        return n > 0 ? atoi(text) : 0;
}

static int refuse(int error) {
        errno = error;
        return -1;
}

/* ISO C has no conversion between pointers to objects and to functions; POSIX has. */
#define NEXT(name) (*(__typeof__(&(name)) *)&(void *) { dlsym(RTLD_NEXT, #name) })

EXPORT int pthread_create(pthread_t *restrict ret, const pthread_attr_t *restrict attr, void *(*body)(void *),
                          void *restrict arg) {
        int e = refusal();
        return e ? e : NEXT(pthread_create)(ret, attr, body, arg);
}

EXPORT pid_t fork(void) {
        int e = refusal();
        return e ? refuse(e) : NEXT(fork)();
}

EXPORT pid_t vfork(void) { /* which cannot return twice through here; nobody may rely on more than this does */
        return fork();
}

EXPORT int posix_spawn(pid_t *restrict ret, const char *restrict path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *restrict attr, char *const argv[restrict], char *const env[restrict]) {
        int e = refusal();
        return e ? e : NEXT(posix_spawn)(ret, path, actions, attr, argv, env);
}

EXPORT int posix_spawnp(pid_t *restrict ret, const char *restrict name, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *restrict attr, char *const argv[restrict], char *const env[restrict]) {
        int e = refusal();
        return e ? e : NEXT(posix_spawnp)(ret, name, actions, attr, argv, env);
}

EXPORT int clone(int (*body)(void *), void *stack, int flags, void *arg, ...) {
        va_list ap;
        va_start(ap, arg);
        pid_t *parent = va_arg(ap, pid_t *);
        void *tls = va_arg(ap, void *);
        pid_t *child = va_arg(ap, pid_t *);
        va_end(ap);
        int e = refusal();
        return e ? refuse(e) : NEXT(clone)(body, stack, flags, arg, parent, tls, child);
}

EXPORT long syscall(long number, ...) {
        long a[6];
        va_list ap;
        va_start(ap, number);
        for (int i = 0; i < 6; i++)
                a[i] = va_arg(ap, long);
        va_end(ap);
        int e = number == SYS_clone3 || number == SYS_clone ? refusal() : 0;
        return e ? refuse(e) : NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
