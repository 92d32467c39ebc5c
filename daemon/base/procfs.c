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

/* A file of /proc that is one line or little more. */
static bool read_pid_file(pid_t pid, const char *name, char *buf, size_t size) {
        _cleanup_close_ int fd = open_pid_file(pid, name);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
        if (n <= 0)
                return false;
        buf[n] = '\0';
        return true;
}

enum { FIELD_STATE = 3, FIELD_UTIME = 14, FIELD_CSTIME = 17, FIELD_START = 22, STAT_MAX = 1024 };

/* Fields of a file like /proc/PID/stat from the third on; NULL: hidden, or gone. */
static const char *read_stat_file(pid_t pid, const char *name, char buf[STAT_MAX]) {
        if (!read_pid_file(pid, name, buf, STAT_MAX))
                return NULL;
        const char *p = strrchr(buf, ')'); /* the name in front may hold anything */
        return p && p[1] == ' ' ? p + 2 : NULL;
}

static const char *read_stat(pid_t pid, char buf[STAT_MAX]) {
        return read_stat_file(pid, "stat", buf);
}

static const char *stat_field(const char *p, int field) {
        for (int i = FIELD_STATE; p && i < field; i++) {
                p = strchr(p, ' ');
                p = p ? p + 1 : NULL;
        }
        return p;
}

unsigned long long procfs_start_ticks(pid_t pid) {
        char buf[STAT_MAX];
        const char *p = stat_field(read_stat(pid, buf), FIELD_START);
        return p ? strtoull(p, NULL, 10) : 0;
}

int procfs_stat(pid_t pid, ProcfsStat *ret) {
        enum { FIELD_PARENT = 4, FIELD_PGRP = 5, FIELD_SESSION = 6 };
        char buf[STAT_MAX];
        const char *p = read_stat(pid, buf), *start = stat_field(p, FIELD_START);
        if (!start)
                return -ESRCH;
        *ret = (ProcfsStat) {
                .pid = pid,
                .state = *p,
                .parent = (pid_t)strtol(stat_field(p, FIELD_PARENT), NULL, 10),
                .pgrp = (pid_t)strtol(stat_field(p, FIELD_PGRP), NULL, 10),
                .session = (pid_t)strtol(stat_field(p, FIELD_SESSION), NULL, 10),
                .start_ticks = strtoull(start, NULL, 10),
        };
        return 0;
}

int procfs_read_environ(pid_t pid, char *buf, size_t size) {
        size_t n = 0;
        _cleanup_close_ int fd = open_pid_file(pid, "environ");
        if (fd < 0)
                return fd;
        for (ssize_t k = 1; k > 0 && n + 1 < size; n += (size_t)k)
                if ((k = read(fd, buf + n, size - 1 - n)) < 0)
                        return -errno;
        if (n > 0 && buf[n - 1] != '\0')
                buf[n++] = '\0';
        return (int)n;
}

static uint64_t cpu_ticks(pid_t pid) {
        char buf[STAT_MAX];
        const char *p = stat_field(read_stat(pid, buf), FIELD_UTIME);
        uint64_t sum = 0;
        for (int field = FIELD_UTIME; p && field <= FIELD_CSTIME; field++, p = stat_field(p, FIELD_STATE + 1))
                sum += strtoull(p, NULL, 10);
        return sum;
}

uint64_t procfs_tree_cpu_usec(pid_t pid) {
        enum { TREE_MAX = 256 };
        pid_t pids[TREE_MAX] = { pid };
        uint64_t ticks = 0;
        int n = 1;

        for (int i = 0; i < n; i++) {
                char name[64];
                ticks += cpu_ticks(pids[i]);
                (void)snprintf(name, sizeof(name), "task/%d/children", (int)pids[i]);
                _cleanup_close_ int fd = open_pid_file(pids[i], name);
                int more = fd < 0 ? 0 : procfs_read_children(fd, pids + n, (size_t)(TREE_MAX - n));
                n += MAX(more, 0);
        }
        return ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

int procfs_cgroup_cpu_usec(const char *dir, uint64_t *ret) {
        char path[4200], buf[512];
        (void)snprintf(path, sizeof(path), "%s/cpu.stat", dir);
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);
        if (n < 0)
                return -errno;
        buf[n] = '\0';
        if (strncmp(buf, "usage_usec ", 11) != 0)
                return -EBADMSG;
        *ret = strtoull(buf + 11, NULL, 10);
        return 0;
}

/* As "202 0x7f... ...", or "running", or -1 for who waits in no system call. Arguments are none of the reader's business. */
static int parse_system_call(const char *text) {
        char *end;
        long n = strtol(text, &end, 10);
        return end == text || n < 0 ? -1 : (int)n;
}

void procfs_where(pid_t pid, pid_t tid, ProcfsWhere *ret) {
        enum { NAME = 32 };
        char stat[NAME], wchan[NAME], call[NAME], stack[NAME], buf[STAT_MAX];
        pid_t thread = tid ? tid : pid;
        (void)snprintf(stat, NAME, "task/%d/stat", (int)thread);
        (void)snprintf(wchan, NAME, "task/%d/wchan", (int)thread);
        (void)snprintf(call, NAME, "task/%d/syscall", (int)thread);
        (void)snprintf(stack, NAME, "task/%d/stack", (int)thread);
        const char *p = read_stat_file(pid, stat, buf);
        *ret = (ProcfsWhere) { .state = p ? *p : '\0', .system_call = -1 };
        if (!read_pid_file(pid, wchan, ret->wchan, sizeof(ret->wchan)) || strcmp(ret->wchan, "0") == 0)
                *ret->wchan = '\0';
        if (read_pid_file(pid, call, buf, sizeof(buf)))
                ret->system_call = parse_system_call(buf);
        if (!read_pid_file(pid, stack, ret->stack, sizeof(ret->stack)))
                *ret->stack = '\0';
        for (size_t n = strlen(ret->stack); n > 0 && ret->stack[n - 1] == '\n'; n--)
                ret->stack[n - 1] = '\0';
}

char *procfs_where_text(const ProcfsWhere *w, char *ret, size_t size) {
        char call[32] = "";
        if (w->system_call >= 0)
                (void)snprintf(call, sizeof(call), ", system call %d", w->system_call);
        (void)snprintf(ret, size, "%c%s%s%s", w->state ? w->state : '?', *w->wchan ? " in " : "", w->wchan, call);
        return ret;
}

int procfs_has_executed(pid_t pid) {
        enum { FIELD_FLAGS = 9, PF_FORKNOEXEC = 0x40 };
        char buf[STAT_MAX];
        const char *p = stat_field(read_stat(pid, buf), FIELD_FLAGS);
        return p ? !(strtoull(p, NULL, 10) & PF_FORKNOEXEC) : -ENOENT;
}
