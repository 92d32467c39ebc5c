/* SPDX-License-Identifier: MIT */
/* Reads files of /proc with plain system calls, into fixed buffers: also fit for a process that must stay small. */

#include "base/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

int procfs_open_children(void) {
        int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int procfs_read_children(int fd, pid_t *ret_pids, size_t max) {
        char buf[4096];
        size_t n = 0;

        ssize_t len = pread(fd, buf, sizeof(buf) - 1, 0);
        if (len < 0)
                return -errno;
        buf[len] = '\0';
        for (char *p = buf, *end; n < max; p = end) {
                long pid = strtol(p, &end, 10);
                if (end == p || *end != ' ') /* a number that the buffer cut off is for the next call */
                        break;
                ret_pids[n++] = (pid_t)pid;
        }
        return (int)n;
}

static int open_pid_file(pid_t pid, const char *name) {
        char path[64];
        (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* Does buf hold the variable as one of its strings? at_start: the first one starts with the buffer. */
static bool strings_have(const char *buf, size_t n, const char *variable, size_t len, bool at_start) {
        for (const char *p = buf; (p = memmem(p, n - (size_t)(p - buf), variable, len)); p++)
                if ((p == buf ? at_start : p[-1] == '\0') && (p + len == buf + n || p[len] == '\0'))
                        return true;
        return false;
}

int procfs_environ_has(pid_t pid, const char *variable) {
        enum { CHUNK = 8192, OVERLAP = 512, CHUNKS_MAX = 32 };
        char buf[OVERLAP + CHUNK];
        size_t len = strlen(variable), kept = 0;
        bool at_start = true;

        if (len + 2 > OVERLAP)
                return -EINVAL;
        _cleanup_close_ int fd = open_pid_file(pid, "environ");
        if (fd < 0)
                return fd;
        for (int i = 0; i < CHUNKS_MAX; i++) {
                ssize_t n = read(fd, buf + kept, CHUNK);
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return 0;
                size_t all = kept + (size_t)n;
                if (strings_have(buf, all, variable, len, at_start))
                        return 1;
                kept = MIN(all, len + 1); /* a string across two chunks, with the NUL before it */
                memmove(buf, buf + all - kept, kept);
                at_start = at_start && kept == all;
        }
        return 0;
}

/* A number of /proc/PID/stat, by its place in proc(5). */
static int read_stat(pid_t pid, int field, unsigned long long *ret) {
        enum { FIELD_STATE = 3 };
        char buf[1024];

        _cleanup_close_ int fd = open_pid_file(pid, "stat");
        if (fd < 0)
                return fd;
        ssize_t n = read(fd, buf, sizeof(buf) - 1);
        if (n <= 0)
                return n < 0 ? -errno : -ESRCH;
        buf[n] = '\0';
        char *p = strrchr(buf, ')'); /* the name in front may hold anything */
        if (!p || p[1] != ' ')
                return -EBADMSG;
        p += 2;
        for (int i = FIELD_STATE; i < field; i++) {
                p = strchr(p, ' ');
                if (!p)
                        return -EBADMSG;
                p++;
        }
        *ret = strtoull(p, NULL, 10);
        return 0;
}

unsigned long long procfs_start_ticks(pid_t pid) {
        enum { FIELD_START = 22 };
        unsigned long long ticks;
        return read_stat(pid, FIELD_START, &ticks) < 0 ? 0 : ticks;
}

int procfs_has_executed(pid_t pid) {
        enum { FIELD_FLAGS = 9, PF_FORKNOEXEC = 0x40 };
        unsigned long long flags;
        int r = read_stat(pid, FIELD_FLAGS, &flags);
        return r < 0 ? r : !(flags & PF_FORKNOEXEC);
}
