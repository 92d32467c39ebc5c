/* SPDX-License-Identifier: MIT */
/* The kernel does the work: clone3() puts the child into the group, cgroup.kill ends all of it, cgroup.events tells when it
 * is empty. Signals other than KILL have to be sent one by one: until a reading of cgroup.procs brings nobody new. */

#include "spawner/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/util.h"

enum { PROCS_MAX = 4096, ROUNDS_MAX = 16, DEPTH_MAX = 8 };

static void remove_below(int fd, int depth);

static int open_at(int dir, const char *name, int flags) {
        int fd = openat(dir, name, flags | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

static int write_at(int dir, const char *name, const char *text) {
        _cleanup_close_ int fd = open_at(dir, name, O_WRONLY);
        if (fd < 0)
                return fd;
        return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int make_dir(int at, const char *name, int *ret_fd) {
        if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
                return -errno;
        int fd = open_at(at, name, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
                return fd;
        *ret_fd = fd;
        return 0;
}

int cgroup_open_slots(const char *dir, int *ret_fd) {
        struct statfs fs;
        int slots = -1;

        _cleanup_close_ int at = open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY);
        if (at < 0)
                return at;
        if (fstatfs(at, &fs) < 0)
                return -errno;
        if (fs.f_type != CGROUP2_SUPER_MAGIC)
                return -EMEDIUMTYPE;
        int r = make_dir(at, "slots", &slots);
        if (r < 0)
                return r;
        SlotCgroup first = SLOT_CGROUP_NULL;
        r = slot_cgroup_open(slots, 0, &first);
        slot_cgroup_close(&first);
        if (r < 0) {
                close_fd(slots);
                return r;
        }
        *ret_fd = slots;
        return 0;
}

/* Takes a cgroup away with the groups that a task made below it. What is in use stays. */
static void remove_group(int at, const char *name) {
        if (unlinkat(at, name, AT_REMOVEDIR) == 0)
                return;
        _cleanup_close_ int fd = open_at(at, name, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
                return;
        remove_below(fd, DEPTH_MAX);
        (void)unlinkat(at, name, AT_REMOVEDIR);
}

int slot_cgroup_open(int slots_fd, unsigned number, SlotCgroup *ret) {
        SlotCgroup c = SLOT_CGROUP_NULL;
        char name[16];

        (void)snprintf(name, sizeof(name), "%u", number);
        remove_group(slots_fd, name);
        int r = make_dir(slots_fd, name, &c.dir);
        if (r < 0)
                return r;
        c.events = open_at(c.dir, "cgroup.events", O_RDONLY);
        if (c.events < 0) {
                r = c.events;
                slot_cgroup_close(&c);
                return r;
        }
        c.kill = open_at(c.dir, "cgroup.kill", O_WRONLY);
        if (c.kill == -ENOENT)
                c.kill = -1;
        if (c.kill < -1) {
                r = c.kill;
                slot_cgroup_close(&c);
                return r;
        }
        *ret = c;
        return 0;
}

void slot_cgroup_close(SlotCgroup *c) {
        close_fd(c->dir);
        close_fd(c->events);
        close_fd(c->kill);
        *c = (SlotCgroup)SLOT_CGROUP_NULL;
}

static int events_populated(int fd) {
        char buf[128];
        ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);
        if (n < 0)
                return -errno;
        buf[n] = '\0';
        const char *p = strstr(buf, "populated ");
        return p ? p[strlen("populated ")] == '1' : -EBADMSG;
}

int slot_cgroup_populated(const SlotCgroup *c) {
        return events_populated(c->events);
}

static int compare_pids(const void *a, const void *b) {
        pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
        return (x > y) - (x < y);
}

/* Sorted. Those past PROCS_MAX come in a later round, when the signal has had its effect. Number or negative errno. */
static int read_procs(int dir, pid_t *ret_pids) {
        char *line = NULL;
        size_t size = 0;
        int n = 0;

        int fd = open_at(dir, "cgroup.procs", O_RDONLY);
        if (fd < 0)
                return fd;
        FILE *f = fdopen(fd, "r");
        if (!f) {
                int r = -errno;
                close_fd(fd);
                return r;
        }
        while (n < PROCS_MAX && getline(&line, &size, f) > 0)
                ret_pids[n++] = (pid_t)strtol(line, NULL, 10);
        free(line);
        fclose(f);
        qsort(ret_pids, (size_t)n, sizeof(pid_t), compare_pids);
        return n;
}

int slot_cgroup_count(const SlotCgroup *c) {
        pid_t pids[PROCS_MAX];
        return read_procs(c->dir, pids);
}

int slot_cgroup_signal(SlotCgroup *c, int signal) {
        pid_t now[PROCS_MAX], before[PROCS_MAX];
        int n_before = 0;

        if (signal == SIGKILL && c->kill >= 0) {
                c->killed = true;
                return write(c->kill, "1", 1) < 0 ? -errno : 0;
        }
        for (int round = 0; round < ROUNDS_MAX; round++) {
                bool anybody_new = false;
                int n = read_procs(c->dir, now);
                if (n < 0)
                        return n;
                for (int i = 0; i < n; i++) {
                        if (now[i] <= 0) /* of a pid namespace that we do not see: kill(0) would be our own group */
                                continue;
                        if (bsearch(&now[i], before, (size_t)n_before, sizeof(pid_t), compare_pids))
                                continue;
                        anybody_new = true;
                        (void)kill(now[i], signal); /* gone meanwhile is fine */
                }
                if (!anybody_new)
                        break;
                memcpy(before, now, (size_t)n * sizeof(pid_t));
                n_before = n;
        }
        return 0;
}

int cgroup_kill_slots(int slots_fd) {
        return write_at(slots_fd, "cgroup.kill", "1");
}

bool cgroup_slots_populated(int slots_fd) {
        _cleanup_close_ int fd = open_at(slots_fd, "cgroup.events", O_RDONLY);
        return fd >= 0 && events_populated(fd) == 1;
}

/* A task may have made groups of its own below its slot's. */
static void remove_below(int fd, int depth) {
        int dup = open_at(fd, ".", O_RDONLY | O_DIRECTORY);
        if (dup < 0)
                return;
        DIR *d = fdopendir(dup);
        if (!d) {
                close_fd(dup);
                return;
        }
        for (struct dirent *e; (e = readdir(d));) {
                if (e->d_type != DT_DIR || e->d_name[0] == '.')
                        continue;
                if (unlinkat(fd, e->d_name, AT_REMOVEDIR) == 0 || depth == 0)
                        continue;
                _cleanup_close_ int sub = open_at(fd, e->d_name, O_RDONLY | O_DIRECTORY);
                if (sub < 0)
                        continue;
                remove_below(sub, depth - 1);
                (void)unlinkat(fd, e->d_name, AT_REMOVEDIR);
        }
        closedir(d);
}

/* A directory has a link from each that is in it: nothing is read where no task made any. */
void slot_cgroup_clean(const SlotCgroup *c) {
        struct stat st;
        if (c->dir >= 0 && fstat(c->dir, &st) == 0 && st.st_nlink > 2)
                remove_below(c->dir, DEPTH_MAX);
}

void cgroup_remove_slots(const char *dir, int slots_fd) {
        remove_below(slots_fd, DEPTH_MAX);
        _cleanup_close_ int at = open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY);
        if (at >= 0)
                (void)unlinkat(at, "slots", AT_REMOVEDIR);
}
