/* SPDX-License-Identifier: MIT */
/* Forks a worker, waits for it, and when it died buries what it left and forks the next one.
 *
 * Who cleans up: a worker that dies leaves its children to the keeper (the next subreaper), which kills them; a keeper that
 * dies makes the worker end (PDEATHSIG), which kills its children first; when eqd goes, both see the line close, and the
 * keeper ends a worker that is stopped or stuck. If keeper and worker are killed in the same moment, leaders die by their own
 * PDEATHSIG; what they had forked is removed by the next spawner where there are cgroups, and else becomes eqd's, which is a
 * subreaper, too, or, if that was killed as well, is ended by the next eqd (executor/leftover.c).
 * A worker that dies again and again is restarted more slowly. */

#include "spawner/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/procfs.h"
#include "base/util.h"
#include "spawner/capabilities.h"
#include "spawner/cgroup.h"
#include "spawner/tree.h"
#include "spawner/wire.h"
#include "spawner/worker.h"

enum { QUICK_DEATH_SEC = 1, PAUSE_MSEC = 500 };

#define CAP(name) (UINT64_C(1) << CAP_##name)
static const uint64_t kept = CAP(SETUID) | CAP(SETGID) | CAP(KILL) | CAP(SETPCAP);
static const uint64_t identity_needs = CAP(SETUID) | CAP(SETGID) | CAP(KILL);

/* Signals: default actions, all blocked; the worker takes what it wants from a signalfd, children unblock before exec. */
static int reset_signals(void) {
        sigset_t all, child;
        for (int s = 1; s < NSIG; s++)
                (void)signal(s, SIG_DFL); /* KILL, STOP and the C library's own cannot be set, and need not be */
        sigfillset(&all);
        (void)sigprocmask(SIG_SETMASK, &all, NULL);
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        return signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int reduce_capabilities(WorkerConfig *w) {
        uint64_t permitted;
        int r = capabilities_get(&permitted);
        if (r < 0)
                return r;
        (void)capabilities_empty_bounding(); /* without CAP_SETPCAP it stays, see child.c */
        w->bounding_is_empty = capabilities_bounding_is_empty();
        w->any_identity = (permitted & identity_needs) == identity_needs;
        return capabilities_keep_only(kept);
}

/* Room for pipes and control descriptors of many slots; commands get back what the spawner was started with. */
static void raise_fd_limit(struct rlimit *original, WorkerConfig *w) {
        if (getrlimit(RLIMIT_NOFILE, original) < 0)
                return;
        struct rlimit raised = { .rlim_cur = original->rlim_max, .rlim_max = original->rlim_max };
        if (raised.rlim_cur != original->rlim_cur && setrlimit(RLIMIT_NOFILE, &raised) == 0)
                w->nofile = original;
}

static void say(const char *what, int error) {
        dprintf(STDERR_FILENO, "eqd-spawner: %s: %s\n", what, strerror(error));
}

/* eqd is told at once; what is left is killed before the next worker says READY. Where the line is full, because eqd does
 * not read, READY says it as well: killing does not wait for a reader. */
static void tell_lost(int line, uint32_t epoch) {
        SpawnHeader m = { .magic = SPAWN_MAGIC, .version = SPAWN_VERSION, .type = SPAWN_LOST, .epoch = epoch };
        (void)!send(line, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool line_is_closed(int line) {
        struct pollfd p = { .fd = line, .events = POLLRDHUP };
        return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

static int start_worker(const WorkerConfig *w, pid_t *ret) {
        pid_t pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                worker_run(w);
        *ret = pid;
        return 0;
}

/* Until the worker is gone or eqd is: a worker that is stopped or stuck does not see the line close. Orphans that reach the
 * keeper are those of a worker that has just died. */
static void wait_for(pid_t worker, int line, int signals) {
        for (;;) {
                struct pollfd p[] = { { .fd = signals, .events = POLLIN }, { .fd = line, .events = POLLRDHUP } };
                struct signalfd_siginfo si;
                (void)poll(p, ELEMENTSOF(p), -1);
                if (p[1].revents)
                        return;
                (void)!read(signals, &si, sizeof(si)); /* only to make it wait again */
                for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) != 0;)
                        if (pid == worker || pid < 0)
                                return;
        }
}

static void serve(WorkerConfig *w, int children, int signals) {
        while (!line_is_closed(w->line)) {
                struct timespec began, now;
                pid_t pid = -1;
                (void)clock_gettime(CLOCK_MONOTONIC, &began);
                w->epoch++;
                int r = start_worker(w, &pid);
                if (r < 0)
                        say("cannot fork, trying again", -r);
                else {
                        wait_for(pid, w->line, signals);
                        if (line_is_closed(w->line))
                                break;
                        tell_lost(w->line, w->epoch);
                        w->killed = tree_kill_all(children, w->slots_fd);
                        w->restarts++;
                }
                (void)clock_gettime(CLOCK_MONOTONIC, &now);
                if (r < 0 || now.tv_sec - began.tv_sec < QUICK_DEATH_SEC) {
                        struct pollfd p = { .fd = w->line, .events = POLLRDHUP };
                        (void)poll(&p, 1, PAUSE_MSEC);
                }
        }
}

int keeper_run(const KeeperConfig *config) {
        WorkerConfig w = { .line = config->line,
                           .slots_fd = -1,
                           .cgroup = config->cgroup,
                           .allow_root = config->allow_root,
                           .stock = config->stock,
                           .keeper = getpid() };
        struct rlimit original;

        int signals = reset_signals();
        if (signals < 0 || chdir("/") < 0) {
                say("cannot start", errno);
                return EXIT_FAILURE;
        }
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* nobody of the same uid may look in or trace; exec resets it */
        if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) {
                say("cannot become a subreaper", errno);
                return EXIT_FAILURE;
        }
        if (config->cgroup) {
                int r = cgroup_open_slots(config->cgroup, &w.slots_fd);
                if (r < 0)
                        say("no cgroups for commands, process groups instead", -r);
        }
        int r = reduce_capabilities(&w);
        if (r < 0) {
                say("cannot give up capabilities", -r);
                return EXIT_FAILURE;
        }
        int children = procfs_open_children();
        if (children < 0) {
                say("/proc/self/task/N/children", -children);
                return EXIT_FAILURE;
        }
        raise_fd_limit(&original, &w);
        (void)tree_kill_all(children,
                            w.slots_fd); /* a spawner that was killed may have left something in the cgroups */
        serve(&w, children, signals);
        (void)tree_kill_all(children, w.slots_fd);
        if (w.slots_fd >= 0)
                cgroup_remove_slots(config->cgroup, w.slots_fd);
        return EXIT_SUCCESS;
}
