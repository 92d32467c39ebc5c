/* SPDX-License-Identifier: MIT */
/* Rounds: look at all processes; who belongs to a leftover is killed by a pidfd, which is held against the start once more, so that
 * nobody else is met; wait until these have ended; look again, until nobody is there. What is forked meanwhile is in a session that
 * is known by then, or below somebody who was. */

#include "executor/leftover.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/procfs.h"
#include "base/util.h"

enum { WAITING_MAX = 256, ENVIRON_MAX = 256 * 1024 };
#define NOBODY SIZE_MAX

typedef struct Process {
        ProcfsStat stat;
        size_t owner; /* Leftover that it belongs to, NOBODY */
} Process;

typedef struct Session {
        pid_t id;
        size_t owner;
} Session;

typedef struct Dying {
        int pidfd;
        const Process *process; /* of Search::processes, until the next look */
} Dying;

typedef struct Search {
        Leftover *leftovers;
        size_t n_leftovers;
        uint64_t until_usec;
        Process *processes; /* by pid */
        size_t n, cap;
        Session *sessions; /* that belong to leftovers */
        size_t n_sessions, cap_sessions;
        Dying waiting[WAITING_MAX]; /* those that are killed */
        unsigned n_waiting;
        char *environ; /* ENVIRON_MAX bytes */
} Search;

static uint64_t now_usec(void) {
        return clock_monotonic(&clock_system);
}

static int left_msec(uint64_t until_usec) {
        uint64_t now = now_usec();
        return now >= until_usec ? 0 : (int)MIN((until_usec - now + 999) / 1000, (uint64_t)INT32_MAX);
}

/* ---- processes ---- */

static int open_pidfd(pid_t pid) {
        if (fault_hit(FAULT_PIDFD))
                return -EMFILE;
        int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        return fd < 0 ? -errno : fd;
}

static int send_kill(int pidfd) {
        if (fault_hit(FAULT_SIGNAL))
                return -EPERM;
        return syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 ? -errno : 0;
}

/* A pidfd of that very process. -ESRCH: it is gone. */
static int open_process(pid_t pid, uint64_t start_ticks, int *ret_fd) {
        _cleanup_close_ int fd = open_pidfd(pid);
        if (fd < 0)
                return fd;
        if (procfs_start_ticks(pid) != start_ticks)
                return -ESRCH;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static int compare_processes(const void *a, const void *b) {
        pid_t x = ((const Process *)a)->stat.pid, y = ((const Process *)b)->stat.pid;
        return (x > y) - (x < y);
}

static Process *find(const Search *s, pid_t pid) {
        Process key = { .stat.pid = pid };
        return s->n > 0 ? bsearch(&key, s->processes, s->n, sizeof(key), compare_processes) : NULL;
}

static int grow(void **array, size_t *cap, size_t n, size_t size) {
        if (n < *cap)
                return 0;
        size_t more = MAX(*cap * 2, (size_t)256);
        void *p = fault_realloc(*array, more * size);
        if (!p)
                return -ENOMEM;
        *array = p;
        *cap = more;
        return 0;
}

/* All but those that have ended, and wait for somebody to ask how. */
static int look(Search *s) {
        DIR *d = opendir("/proc");
        int r = d ? 0 : -errno;
        s->n = 0;
        for (struct dirent *e; r >= 0 && (e = readdir(d));) {
                Process p = { .owner = NOBODY };
                pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
                if (pid <= 0 || procfs_stat(pid, &p.stat) < 0 || p.stat.state == 'Z' || p.stat.state == 'X')
                        continue;
                r = grow((void **)&s->processes, &s->cap, s->n, sizeof(p));
                if (r >= 0)
                        s->processes[s->n++] = p;
        }
        if (d)
                closedir(d);
        if (s->n > 0)
                qsort(s->processes, s->n, sizeof(*s->processes), compare_processes);
        return r;
}

/* ---- whose they are ---- */

static size_t owner_of_session(const Search *s, pid_t id) {
        for (size_t i = 0; i < s->n_sessions; i++)
                if (s->sessions[i].id == id)
                        return s->sessions[i].owner;
        return NOBODY;
}

static int own_session(Search *s, pid_t id, size_t owner) {
        if (id <= 1 || id == getsid(0) || owner_of_session(s, id) != NOBODY)
                return 0;
        int r = grow((void **)&s->sessions, &s->cap_sessions, s->n_sessions, sizeof(Session));
        if (r >= 0)
                s->sessions[s->n_sessions++] = (Session) { .id = id, .owner = owner };
        return r;
}

/* As the command executor sets them for each task. */
static bool has_task(Search *s, pid_t pid, const Leftover *l) {
        char attempt[32], seq[32];
        bool has_seq = false, has_attempt = false;
        int n = procfs_read_environ(pid, s->environ, ENVIRON_MAX);
        (void)snprintf(attempt, sizeof(attempt), "EQD_ATTEMPT=%u", l->attempt);
        (void)snprintf(seq, sizeof(seq), "/%llu", (unsigned long long)l->seq);
        for (const char *p = s->environ; n > 0 && p < s->environ + n; p += strlen(p) + 1) {
                const char *slash = strncmp(p, "EQD_TASK=", 9) == 0 ? strrchr(p, '/') : NULL;
                has_seq = has_seq || (slash && strcmp(slash, seq) == 0);
                has_attempt = has_attempt || strcmp(p, attempt) == 0;
        }
        return has_seq && has_attempt;
}

/* The leader is gone: is what lives in its session the task's? */
static void judge_session(Search *s, Leftover *l) {
        for (size_t i = 0; i < s->n; i++) {
                const ProcfsStat *p = &s->processes[i].stat;
                if (p->session != l->pid || p->start_ticks < l->start_ticks)
                        continue;
                l->fate = LEFTOVER_KILLED;
                if (has_task(s, p->pid, l))
                        return;
                l->fate = LEFTOVER_UNPROVEN;
        }
}

/* Before anything is killed: KILLED for those that will be. A leader that has ended and was not waited for holds its pid. */
static int judge(Search *s) {
        int r = 0;
        for (size_t i = 0; i < s->n_leftovers && r >= 0; i++) {
                Leftover *l = &s->leftovers[i];
                unsigned long long start = procfs_start_ticks(l->pid);
                l->fate = start == 0 ? LEFTOVER_NONE : start == l->start_ticks ? LEFTOVER_KILLED : LEFTOVER_ANOTHER;
                if (start == 0)
                        judge_session(s, l);
                if (l->fate == LEFTOVER_KILLED)
                        r = own_session(s, l->pid, i);
        }
        return r;
}

static int take(Search *s, Process *p, size_t owner) {
        if (p->stat.pid <= 1)
                return 0;
        if (p->stat.pid == getpid()) /* the task has started this eqd, of all things */
                s->leftovers[owner].error = -EDEADLK;
        p->owner = owner;
        return own_session(s, p->stat.session, owner);
}

/* The leader, its session, what is below them, the sessions of those. */
static int find_owners(Search *s) {
        int r = 0;
        for (size_t i = 0; i < s->n_leftovers && r >= 0; i++) {
                const Leftover *l = &s->leftovers[i];
                Process *p = l->fate == LEFTOVER_KILLED ? find(s, l->pid) : NULL;
                if (p && p->stat.start_ticks == l->start_ticks)
                        r = take(s, p, i);
        }
        for (bool again = true; again && r >= 0;) {
                again = false;
                for (size_t i = 0; i < s->n && r >= 0; i++) {
                        Process *p = &s->processes[i];
                        if (p->owner != NOBODY)
                                continue;
                        const Process *parent = find(s, p->stat.parent);
                        size_t owner = owner_of_session(s, p->stat.session);
                        if (owner == NOBODY && parent)
                                owner = parent->owner;
                        if (owner != NOBODY)
                                r = take(s, p, owner);
                        again = again || p->owner != NOBODY;
                }
        }
        return r;
}

/* ---- killing ---- */

/* True: it is gone. All are opened before the first is killed: a group dies as a whole, and who has died of it is no longer found when
 * whoever inherited it has waited for it. */
static bool open_one(Search *s, const Process *p) {
        int fd, r = open_process(p->stat.pid, p->stat.start_ticks, &fd);
        if (r >= 0)
                s->waiting[s->n_waiting++] = (Dying) { .pidfd = fd, .process = p };
        else if (r != -ESRCH)
                s->leftovers[p->owner].error = r;
        return r == -ESRCH;
}

/* True: it is about to end, or has. */
static bool kill_one(Search *s, const Dying *d) {
        const ProcfsStat *stat = &d->process->stat;
        Leftover *l = &s->leftovers[d->process->owner];
        int r = send_kill(d->pidfd);
        if (r < 0 && r != -ESRCH) {
                l->error = r;
                return false;
        }
        /* Its group is one of its session, and gone when all of these are: nobody else's. Quicker than who forks. */
        if (r >= 0 && owner_of_session(s, stat->session) == d->process->owner && stat->pgrp > 1)
                (void)kill(-stat->pgrp, SIGKILL);
        l->n_killed++;
        return true;
}

static size_t kill_opened(Search *s) {
        unsigned n = 0;
        for (unsigned i = 0; i < s->n_waiting; i++)
                if (kill_one(s, &s->waiting[i]))
                        s->waiting[n++] = s->waiting[i];
                else
                        close_fd(s->waiting[i].pidfd);
        s->n_waiting = n;
        return n;
}

static void wait_for_ends(Search *s) {
        while (s->n_waiting > 0) {
                struct pollfd p = { .fd = s->waiting[--s->n_waiting].pidfd, .events = POLLIN };
                while (poll(&p, 1, left_msec(s->until_usec)) < 0 && errno == EINTR)
                        ;
                close_fd(p.fd);
        }
}

static bool is_to_die(const Search *s, const Process *p) {
        return p->owner != NOBODY && s->leftovers[p->owner].error != -EDEADLK;
}

/* How many were killed, or had gone. What error says after the last round is why the others live. */
static size_t kill_round(Search *s) {
        size_t n = 0;
        for (size_t i = 0; i < s->n_leftovers; i++)
                if (s->leftovers[i].error != -EDEADLK)
                        s->leftovers[i].error = 0;
        for (size_t i = 0; i < s->n && s->n_waiting < WAITING_MAX; i++)
                if (is_to_die(s, &s->processes[i]))
                        n += open_one(s, &s->processes[i]);
        n += kill_opened(s);
        wait_for_ends(s);
        return n;
}

static int kill_all(Search *s) {
        int r = look(s);
        if (r >= 0)
                r = judge(s);
        while (r >= 0) {
                r = find_owners(s);
                if (r < 0 || kill_round(s) == 0)
                        break;
                r = look(s);
                if (left_msec(s->until_usec) > 0)
                        continue;
                if (r >= 0 && (r = find_owners(s)) >= 0)
                        for (size_t i = 0; i < s->n; i++)
                                if (is_to_die(s, &s->processes[i]))
                                        s->leftovers[s->processes[i].owner].error = -ETIMEDOUT;
                break;
        }
        return r;
}

int leftovers_kill(Leftover *l, size_t n, uint64_t bound_usec) {
        Search s = { .leftovers = l, .n_leftovers = n, .until_usec = now_usec() + bound_usec };
        s.environ = fault_malloc(ENVIRON_MAX);
        for (size_t i = 0; i < n; i++) {
                l[i].n_killed = 0;
                l[i].error = 0;
        }
        int r = s.environ ? kill_all(&s) : -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (l[i].error < 0)
                        l[i].fate = LEFTOVER_ALIVE;
                else if (l[i].fate == LEFTOVER_KILLED && l[i].n_killed == 0)
                        l[i].fate = LEFTOVER_NONE; /* a zombie, which is nobody's to fear */
        free(s.environ);
        free(s.processes);
        free(s.sessions);
        return r;
}

int leftover_wait(pid_t pid, uint64_t start_ticks, uint64_t patience_usec, uint64_t bound_usec) {
        uint64_t now = now_usec(), until[] = { now + patience_usec, now + bound_usec };
        _cleanup_close_ int fd = -1;
        int r = open_process(pid, start_ticks, &fd);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(until); i++) {
                struct pollfd p = { .fd = fd, .events = POLLIN };
                int n;
                while ((n = poll(&p, 1, left_msec(until[i]))) < 0 && errno == EINTR)
                        ;
                if (n > 0)
                        return 0;
                r = i == 0 ? send_kill(fd) : -ETIMEDOUT;
        }
        return r == -ESRCH ? 0 : r;
}
