/* SPDX-License-Identifier: MIT */
/* Preloaded into a program: records every call that changes what is below EQD_TRACE_ROOT, in the file EQD_TRACE.
 *
 * Calls that change something are made and recorded under one lock, so their order in the trace is the order in which they
 * happened; of a sync the beginning and the end are recorded, since it may take as long as it likes. Lengths are those that
 * were returned. What cannot be recorded ends the program, lest a test believes it has seen all. Not the file "lock", and of
 * "running", which is mapped, only that it is there.
 *
 * With a plan calls fail: EQD_TRACE_FAIL="CALL FILE N HOW", where the N-th CALL (open, write, allocate, truncate, sync, rename,
 * unlink, mkdir) of a file whose name is FILE, or begins with it if it ends with a dash, fails with the errno HOW; or is a write
 * of half of it, with "short", and the next call fails with EIO as well, with "torn". "N+": and all calls that follow. What
 * cannot fail so, as a call that needs no space with ENOSPC, is made, and does not count. */

/* Both names of each call are wanted. */
#undef _FILE_OFFSET_BITS

#include "trace.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 4096, CUT_SHORT = -1 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace_fd = -1;
static char root[PATH_MAX];
static size_t root_len;
static bool tracked[FDS];

static struct {
        TraceType call; /* 0: there is no plan */
        char file[32];
        unsigned n; /* so many calls still until it fails */
        bool later; /* and all that follow */
        bool began;
        bool torn;
        int error; /* errno, or CUT_SHORT */
} plan;

#define REAL(name, ...)                                                                                                \
        ({                                                                                                             \
                static __typeof__(&name) real_;                                                                        \
                if (!real_)                                                                                            \
                        real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                            \
                real_(__VA_ARGS__);                                                                                    \
        })
#define EXPORT __attribute__((visibility("default")))

static _Noreturn void give_up(const char *what) {
        dprintf(2, "recorder: %s: this cannot be recorded\n", what);
        abort();
}

static void read_plan(const char *text) {
        static const char *const names[] = {
                [TRACE_OPEN] = "open",         [TRACE_WRITE] = "write",     [TRACE_ALLOCATE] = "allocate",
                [TRACE_TRUNCATE] = "truncate", [TRACE_SYNC_BEGIN] = "sync", [TRACE_RENAME] = "rename",
                [TRACE_UNLINK] = "unlink",     [TRACE_MKDIR] = "mkdir"
        };
        char call[16], number[16], how[16];
        if (!text)
                return;
        if (sscanf(text, "%15s %31s %15s %15s", call, plan.file, number, how) != 4)
                give_up("EQD_TRACE_FAIL");
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (names[i] && strcmp(names[i], call) == 0)
                        plan.call = (TraceType)i;
        plan.n = (unsigned)atoi(number);
        plan.later = strchr(number, '+');
        plan.torn = strcmp(how, "torn") == 0;
        plan.error = plan.torn || strcmp(how, "short") == 0 ? CUT_SHORT : atoi(how);
        if (!plan.call || plan.n == 0 || plan.error == 0)
                give_up("EQD_TRACE_FAIL");
}

__attribute__((constructor)) static void begin(void) {
        const char *file = getenv("EQD_TRACE"), *dir = getenv("EQD_TRACE_ROOT");
        if (!file || !dir || !realpath(dir, root))
                return;
        root_len = strlen(root);
        read_plan(getenv("EQD_TRACE_FAIL"));
        trace_fd = REAL(open, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(TraceEvent *e, const char *name, const void *data) {
        int saved = errno;
        struct iovec v[] = { { e, sizeof(*e) }, { (void *)name, e->n_name }, { (void *)data, e->n_data } };
        e->pid = getpid();
        if (REAL(writev, trace_fd, v, 3) != (ssize_t)(sizeof(*e) + e->n_name + e->n_data))
                give_up("writing the trace");
        errno = saved;
}

static void enter(void) {
        (void)pthread_mutex_lock(&lock);
}

static void leave(void) {
        (void)pthread_mutex_unlock(&lock);
}

EXPORT void trace_note(TraceType type, const TraceItem *item) {
        TraceEvent e = { .type = type, .item = *item };
        if (trace_fd < 0)
                return;
        enter();
        put(&e, NULL, NULL);
        leave();
}

EXPORT void trace_freeze(void) {
        enter();
}

static atomic_bool ends_at_sync;

EXPORT void trace_end_at_sync(void) {
        atomic_store(&ends_at_sync, true);
}

/* ---- names ---- */

static bool is_excepted(const char *name) {
        const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
        return strcmp(base, "lock") == 0;
}

/* The name below the root, without a leading slash; false: elsewhere. */
static bool below_root(int dir_fd, const char *name, char ret[PATH_MAX]) {
        char link[64], full[PATH_MAX + 1], path[2 * PATH_MAX + 2];
        if (trace_fd < 0)
                return false;
        if (name[0] == '/')
                (void)snprintf(path, sizeof(path), "%s", name);
        else {
                (void)snprintf(link, sizeof(link), dir_fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir_fd);
                ssize_t n = readlink(link, full, PATH_MAX);
                if (n < 0)
                        return false;
                full[n] = '\0';
                (void)snprintf(path, sizeof(path), "%s/%s", full, name);
        }
        size_t len = strlen(path);
        while (len > 1 && (path[len - 1] == '/' || (path[len - 1] == '.' && path[len - 2] == '/')))
                path[--len] = '\0';
        if (strncmp(path, root, root_len) != 0 || (path[root_len] != '/' && path[root_len] != '\0'))
                return false;
        (void)snprintf(ret, PATH_MAX, "%s", path + root_len + (path[root_len] == '/'));
        return !is_excepted(ret);
}

static void path_of(int fd, char ret[PATH_MAX]) {
        char link[64], full[PATH_MAX + 1];
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, full, PATH_MAX);
        full[n > 0 ? n : 0] = '\0';
        if (!below_root(AT_FDCWD, full, ret))
                ret[0] = '\0';
}

/* ---- failing by plan ---- */

static bool is_meant(TraceType type, const char *path) {
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
        size_t n = strlen(plan.file);
        return type == plan.call &&
               (plan.file[n - 1] == '-' ? strncmp(name, plan.file, n) == 0 : strcmp(name, plan.file) == 0);
}

/* A disk that stays full lets what has its place be synced. */
static bool can_fail_so(TraceType type, bool grows) {
        if (plan.error == ENOSPC)
                return grows || (type == TRACE_SYNC_BEGIN && !plan.later);
        return plan.error != CUT_SHORT || type == TRACE_WRITE;
}

/* 0: the call is to be made; else its errno, or CUT_SHORT. Locked. */
static int next_fault(TraceType type, bool grows, int fd, const char *path) {
        char name[PATH_MAX];
        if (!plan.call)
                return 0;
        if (!path)
                path_of(fd, name);
        path = path ? path : name;
        if (!can_fail_so(type, grows))
                return 0;
        bool first = !plan.began && is_meant(type, path) && --plan.n == 0;
        if (!first && !(plan.began && plan.later))
                return 0;
        TraceEvent e = { .type = TRACE_FAULT,
                         .fd = fd,
                         .what = type,
                         .error = plan.error == CUT_SHORT ? 0 : plan.error,
                         .n_name = (uint32_t)strlen(path) };
        int error = plan.error;
        put(&e, path, NULL);
        plan.began = true;
        if (plan.torn) {
                plan.torn = false;
                plan.later = true;
                plan.error = EIO;
        }
        errno = error == CUT_SHORT ? 0 : error;
        return error;
}

/* ---- opening ---- */

static int opened(int dir_fd, const char *name, int flags, mode_t mode) {
        char path[PATH_MAX];
        if (!below_root(dir_fd, name, path))
                return REAL(openat64, dir_fd, name, flags, mode);
        enter();
        struct stat st;
        bool was = fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        int fault = next_fault(TRACE_OPEN, !was && (flags & O_CREAT), -1, path);
        int fd = fault ? -1 : REAL(openat64, dir_fd, name, flags, mode);
        if (fd >= FDS)
                give_up("so many descriptors");
        if (flags & (O_TMPFILE & ~O_DIRECTORY))
                give_up("O_TMPFILE");
        if (fd >= 0) {
                TraceEvent e = { .type = TRACE_OPEN,
                                 .fd = fd,
                                 .flags = (uint32_t)flags,
                                 .made = !was,
                                 .n_name = (uint32_t)strlen(path) };
                put(&e, path, NULL);
                tracked[fd] = true;
        }
        leave();
        return fd;
}

#define TAKE_MODE(flags, mode)                                                                                         \
        mode_t mode = 0;                                                                                               \
        if ((flags)&O_CREAT) {                                                                                         \
                va_list ap;                                                                                            \
                va_start(ap, flags);                                                                                   \
                mode = va_arg(ap, mode_t);                                                                             \
                va_end(ap);                                                                                            \
        }

EXPORT int open(const char *name, int flags, ...) {
        TAKE_MODE(flags, mode)
        return opened(AT_FDCWD, name, flags, mode);
}

EXPORT int open64(const char *name, int flags, ...) {
        TAKE_MODE(flags, mode)
        return opened(AT_FDCWD, name, flags, mode);
}

EXPORT int openat(int dir_fd, const char *name, int flags, ...) {
        TAKE_MODE(flags, mode)
        return opened(dir_fd, name, flags, mode);
}

EXPORT int openat64(int dir_fd, const char *name, int flags, ...) {
        TAKE_MODE(flags, mode)
        return opened(dir_fd, name, flags, mode);
}

static bool is_tracked(int fd) {
        return fd >= 0 && fd < FDS && tracked[fd];
}

EXPORT int close(int fd) {
        if (!is_tracked(fd))
                return REAL(close, fd);
        enter();
        TraceEvent e = { .type = TRACE_CLOSE, .fd = fd };
        tracked[fd] = false;
        put(&e, NULL, NULL);
        int r = REAL(close, fd);
        leave();
        return r;
}

EXPORT int creat(const char *name, mode_t mode) {
        return opened(AT_FDCWD, name, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

/* ---- content ---- */

static void wrote(int fd, const void *data, ssize_t n, off_t at) {
        TraceEvent e = { .type = TRACE_WRITE, .fd = fd, .at = (uint64_t)at, .n_data = n > 0 ? (uint32_t)n : 0 };
        if (n < 0)
                e.error = errno;
        put(&e, NULL, data);
}

/* How much of n bytes is to be written; negative: it fails. Locked. */
static ssize_t planned(int fd, size_t n) {
        int fault = next_fault(TRACE_WRITE, true, fd, NULL);
        return fault > 0 ? -1 : fault == CUT_SHORT && n > 1 ? (ssize_t)(n / 2) : (ssize_t)n;
}

static ssize_t pwrite_traced(int fd, const void *data, size_t n, off_t at) {
        enter();
        ssize_t k = planned(fd, n);
        if (k >= 0)
                k = REAL(pwrite64, fd, data, (size_t)k, at);
        wrote(fd, data, k, at);
        leave();
        return k;
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
        return is_tracked(fd) ? pwrite_traced(fd, data, n, at) : REAL(pwrite64, fd, data, n, at);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
        return is_tracked(fd) ? pwrite_traced(fd, data, n, at) : REAL(pwrite64, fd, data, n, at);
}

EXPORT ssize_t write(int fd, const void *data, size_t n) {
        if (!is_tracked(fd))
                return REAL(write, fd, data, n);
        enter();
        ssize_t k = planned(fd, n);
        if (k >= 0)
                k = REAL(write, fd, data, (size_t)k);
        wrote(fd, data, k, lseek(fd, 0, SEEK_CUR) - (k > 0 ? k : 0));
        leave();
        return k;
}

/* As many bytes of v as were written, in one. */
static void wrote_vector(int fd, const struct iovec *v, ssize_t n, off_t at) {
        char *data = malloc(n > 0 ? (size_t)n : 1);
        if (!data)
                give_up("out of memory");
        for (ssize_t done = 0; done < n; v++) {
                size_t k = v->iov_len < (size_t)(n - done) ? v->iov_len : (size_t)(n - done);
                memcpy(data + done, v->iov_base, k);
                done += (ssize_t)k;
        }
        wrote(fd, data, n, at);
        free(data);
}

EXPORT ssize_t writev(int fd, const struct iovec *v, int n_v) {
        if (!is_tracked(fd))
                return REAL(writev, fd, v, n_v);
        enter();
        ssize_t k = next_fault(TRACE_WRITE, true, fd, NULL) > 0 ? -1 : REAL(writev, fd, v, n_v);
        wrote_vector(fd, v, k, lseek(fd, 0, SEEK_CUR) - (k > 0 ? k : 0));
        leave();
        return k;
}

static ssize_t pwritev_traced(int fd, const struct iovec *v, int n_v, off_t at) {
        enter();
        ssize_t k = next_fault(TRACE_WRITE, true, fd, NULL) > 0 ? -1 : REAL(pwritev64, fd, v, n_v, at);
        wrote_vector(fd, v, k, at);
        leave();
        return k;
}

EXPORT ssize_t pwritev(int fd, const struct iovec *v, int n_v, off_t at) {
        return is_tracked(fd) ? pwritev_traced(fd, v, n_v, at) : REAL(pwritev64, fd, v, n_v, at);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *v, int n_v, off64_t at) {
        return is_tracked(fd) ? pwritev_traced(fd, v, n_v, at) : REAL(pwritev64, fd, v, n_v, at);
}

static void resized(TraceType type, int fd, int r, off_t at, off_t len) {
        TraceEvent e = { .type = type,
                         .fd = fd,
                         .at = (uint64_t)at,
                         .len = (uint64_t)len,
                         .error = r == 0  ? 0
                                  : r > 0 ? r
                                          : errno };
        put(&e, NULL, NULL);
}

static int allocated(int fd, int mode, off_t at, off_t len) {
        if (!is_tracked(fd))
                return REAL(fallocate64, fd, mode, at, len);
        if (mode != 0)
                give_up("fallocate with a mode");
        enter();
        int r = next_fault(TRACE_ALLOCATE, true, fd, NULL) ? -1 : REAL(fallocate64, fd, mode, at, len);
        resized(TRACE_ALLOCATE, fd, r, at, len);
        leave();
        return r;
}

EXPORT int fallocate(int fd, int mode, off_t at, off_t len) {
        return allocated(fd, mode, at, len);
}

EXPORT int fallocate64(int fd, int mode, off64_t at, off64_t len) {
        return allocated(fd, mode, at, len);
}

EXPORT int posix_fallocate(int fd, off_t at, off_t len) {
        return allocated(fd, 0, at, len) < 0 ? errno : 0;
}

EXPORT int posix_fallocate64(int fd, off64_t at, off64_t len) {
        return allocated(fd, 0, at, len) < 0 ? errno : 0;
}

static int truncated(int fd, off_t len) {
        if (!is_tracked(fd))
                return REAL(ftruncate64, fd, len);
        enter();
        int r = next_fault(TRACE_TRUNCATE, true, fd, NULL) ? -1 : REAL(ftruncate64, fd, len);
        resized(TRACE_TRUNCATE, fd, r, 0, len);
        leave();
        return r;
}

EXPORT int ftruncate(int fd, off_t len) {
        return truncated(fd, len);
}

EXPORT int ftruncate64(int fd, off64_t len) {
        return truncated(fd, len);
}

/* ---- syncs ---- */

/* 0: it is to be made. */
static int sync_begins(int fd) {
        enter();
        int fault = next_fault(TRACE_SYNC_BEGIN, false, fd, NULL);
        TraceEvent e = { .type = TRACE_SYNC_BEGIN, .fd = fd };
        put(&e, NULL, NULL);
        leave();
        return fault;
}

static void sync_ends(int fd, int r) {
        TraceEvent e = { .type = TRACE_SYNC_END, .fd = fd, .error = r < 0 ? errno : 0 };
        enter();
        put(&e, NULL, NULL);
        leave();
}

EXPORT int fsync(int fd) {
        if (!is_tracked(fd))
                return REAL(fsync, fd);
        int r = sync_begins(fd) ? -1 : REAL(fsync, fd);
        sync_ends(fd, r);
        return r;
}

EXPORT int fdatasync(int fd) {
        if (!is_tracked(fd))
                return REAL(fdatasync, fd);
        if (atomic_load(&ends_at_sync)) {
                enter(); /* for good: nobody else writes */
                _exit(0);
        }
        int r = sync_begins(fd) ? -1 : REAL(fdatasync, fd);
        sync_ends(fd, r);
        return r;
}

/* ---- directories ---- */

static void named(TraceType type, const char *one, const char *two, int r) {
        char names[2 * PATH_MAX];
        TraceEvent e = { .type = type, .error = r < 0 ? errno : 0 };
        int n = two ? snprintf(names, sizeof(names), "%s%c%s", one, 0, two) : snprintf(names, sizeof(names), "%s", one);
        e.n_name = (uint32_t)n;
        put(&e, names, NULL);
}

EXPORT int renameat(int old_fd, const char *from, int new_fd, const char *to) {
        char one[PATH_MAX], two[PATH_MAX];
        bool has_one = below_root(old_fd, from, one), has_two = below_root(new_fd, to, two);
        if (!has_one && !has_two)
                return REAL(renameat, old_fd, from, new_fd, to);
        if (!has_one || !has_two)
                give_up("a rename into or out of the directory");
        enter();
        int r = next_fault(TRACE_RENAME, true, -1, two) ? -1 : REAL(renameat, old_fd, from, new_fd, to);
        named(TRACE_RENAME, one, two, r);
        leave();
        return r;
}

EXPORT int rename(const char *from, const char *to) {
        return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

EXPORT int unlinkat(int dir_fd, const char *name, int flags) {
        char path[PATH_MAX];
        if (!below_root(dir_fd, name, path))
                return REAL(unlinkat, dir_fd, name, flags);
        enter();
        int r = next_fault(TRACE_UNLINK, false, -1, path) ? -1 : REAL(unlinkat, dir_fd, name, flags);
        named(TRACE_UNLINK, path, NULL, r);
        leave();
        return r;
}

EXPORT int unlink(const char *name) {
        return unlinkat(AT_FDCWD, name, 0);
}

EXPORT int mkdirat(int dir_fd, const char *name, mode_t mode) {
        char path[PATH_MAX];
        if (!below_root(dir_fd, name, path))
                return REAL(mkdirat, dir_fd, name, mode);
        enter();
        int r = next_fault(TRACE_MKDIR, true, -1, path) ? -1 : REAL(mkdirat, dir_fd, name, mode);
        named(TRACE_MKDIR, path, NULL, r);
        leave();
        return r;
}

EXPORT int mkdir(const char *name, mode_t mode) {
        return mkdirat(AT_FDCWD, name, mode);
}

/* ---- what is not recorded ---- */

EXPORT void *mmap64(void *addr, size_t n, int protection, int flags, int fd, off64_t at) {
        if (is_tracked(fd) && (protection & PROT_WRITE) && !(flags & MAP_PRIVATE)) {
                char link[64], path[PATH_MAX] = "";
                (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
                ssize_t k = readlink(link, path, sizeof(path) - 1);
                if (k < 8 || strcmp(path + k - 8, "/running") != 0)
                        give_up("writing to a mapped file");
        }
        return REAL(mmap64, addr, n, protection, flags, fd, at);
}

EXPORT void *mmap(void *addr, size_t n, int protection, int flags, int fd, off_t at) {
        return mmap64(addr, n, protection, flags, fd, at);
}

EXPORT int linkat(int old_fd, const char *from, int new_fd, const char *to, int flags) {
        char path[PATH_MAX];
        if (below_root(new_fd, to, path))
                give_up("linkat");
        return REAL(linkat, old_fd, from, new_fd, to, flags);
}

EXPORT int renameat2(int old_fd, const char *from, int new_fd, const char *to, unsigned flags) {
        char path[PATH_MAX];
        if (flags && (below_root(new_fd, to, path) || below_root(old_fd, from, path)))
                give_up("renameat2");
        return flags ? REAL(renameat2, old_fd, from, new_fd, to, flags) : renameat(old_fd, from, new_fd, to);
}

EXPORT FILE *fopen64(const char *name, const char *mode) {
        char path[PATH_MAX];
        if (strpbrk(mode, "wa+") && below_root(AT_FDCWD, name, path))
                give_up("fopen");
        return REAL(fopen64, name, mode);
}

EXPORT FILE *fopen(const char *name, const char *mode) {
        return fopen64(name, mode);
}
