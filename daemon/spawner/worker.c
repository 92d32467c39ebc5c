/* SPDX-License-Identifier: MIT */
/* One loop around four kinds of events: the line, SIGCHLD, lines of children that take long to exec, cgroups that take long
 * to become empty. The last two are watched only when there is something to wait for: /bin/true in a row costs the loop two
 * sleeps per task and no epoll_ctl(). When no event is there, it forks what is missing in the stock. While commands follow each
 * other quickly it looks for the next START a moment before it sleeps, see spinner.h.
 *
 *                 from the stock            exec, and 2 ms old               leader ended
 *     FREE --START--------------> YOUNG ----------------------> RUNNING ----------------.
 *      ^      | refused: ENDED      | leader ended (or no exec)                         v
 *      |<-----'                     `---------------------------------------------> DRAINING
 *      `------------------------------- ENDED is sent, tree is gone ------------------'
 *
 * The leader's end. It is looked at with WNOWAIT first: while it is a zombie its pid, and with it the id of its process
 * group, cannot be given to a stranger, so the group can be killed. Then it is reaped. What else lived in the tree dies
 * with it: cgroup.kill, and the slot is free when cgroup.events says that nobody is left; or without cgroups the process
 * group, and strays: processes that left the group. Orphans of all tasks become children of the worker (it is a
 * subreaper), so those that are no leaders and do not wait in the stock are strays of some task. EQD_TASK in their
 * environment says of which; where it is missing or must not be read, the stray dies as soon as no command runs. A task
 * may wait DRAIN_USEC for its strays without cgroups; with cgroups the slot is not free before the kernel says so.
 *
 * Nothing here blocks: a child that hangs in chdir() or open() is one process that hangs. */

#include "spawner/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/fault.h"
#include "base/list.h"
#include "base/procfs.h"
#include "base/util.h"
#include "spawner/cgroup.h"
#include "spawner/child.h"
#include "spawner/private.h"
#include "spawner/request.h"
#include "spawner/spinner.h"
#include "spawner/stock.h"
#include "spawner/tree.h"
#include "spawner/wire.h"

#define YOUNG_USEC UINT64_C(2000)    /* a command that has ended by then is reported in one message */
#define DRAIN_USEC UINT64_C(1000000) /* without cgroups: the longest wait for strays to die */
#define TASK_PREFIX "EQD_TASK="

enum { PID_BUCKETS = 1024, EVENTS_MAX = 16, CHILDREN_MAX = 256, LATE_MAX = 16, TASK_NAME_MAX = 128 };

typedef enum RunState { RUN_FREE, RUN_YOUNG, RUN_RUNNING, RUN_DRAINING } RunState;

typedef struct Run {
        List link;        /* Worker::young or Worker::draining, by `since_usec` */
        List pid_link;    /* Worker::by_pid[] while the leader is not reaped */
        List unsent_link; /* Worker::unsent */
        RunState state;
        uint32_t slot;
        uint64_t run;
        uint64_t since_usec;
        pid_t pid;
        int line; /* to the leader until exec; -1: nothing more comes from it */
        bool line_watched, cgroup_watched;
        bool started_unsent, ended_unsent;
        bool signaled; /* by us */
        Group *group;  /* where the tree lives; NULL: process group, or free */
        SpawnStarted started;
        SpawnEnded ended;
        char task[TASK_NAME_MAX]; /* EQD_TASK=..., or empty */
} Run;

typedef struct Worker {
        const WorkerConfig *config;
        int epoll, signals, children, null_fd;
        Inbox *inbox;
        Stock stock;
        Spinner spinner;
        Run **runs; /* by slot */
        List by_pid[PID_BUCKETS];
        List young, draining, unsent;
        unsigned n_busy; /* YOUNG or RUNNING */
        unsigned n_late;
        int late[LATE_MAX]; /* to be closed before the loop waits again */
        SpawnReady ready;
        SpawnEnded refusal; /* of a request that no slot keeps */
        bool ready_unsent, refusal_unsent, pong_unsent;
        uint32_t line_events; /* watched for */
        bool ending;
} Worker;

typedef enum EventKind { EVENT_LINE, EVENT_SIGNAL, EVENT_EXEC, EVENT_CGROUP } EventKind;

/* ---- small things ---- */

static uint64_t now_usec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static SpawnHeader header(const Worker *w, SpawnType type, uint32_t slot, uint64_t run) {
        return (SpawnHeader) { .magic = SPAWN_MAGIC,
                               .version = SPAWN_VERSION,
                               .type = (uint16_t)type,
                               .slot = slot,
                               .epoch = w->config->epoch,
                               .run = run };
}

static int watch(Worker *w, int op, int fd, uint32_t events, EventKind kind, uint32_t slot) {
        struct epoll_event e = { .events = events, .data.u64 = (uint64_t)slot << 8 | kind };
        return epoll_ctl(w->epoll, op, fd, &e) < 0 ? -errno : 0;
}

static void set_list(Run *r, List *list) {
        list_remove(&r->link);
        if (list)
                list_append(list, &r->link);
}

static void set_state(Worker *w, Run *r, RunState state) {
        bool was_busy = r->state == RUN_YOUNG || r->state == RUN_RUNNING;
        bool is_busy = state == RUN_YOUNG || state == RUN_RUNNING;

        w->n_busy += is_busy - was_busy;
        r->state = state;
        set_list(r, state == RUN_YOUNG ? &w->young : state == RUN_DRAINING ? &w->draining : NULL);
        if (state == RUN_YOUNG || state == RUN_DRAINING)
                r->since_usec = now_usec();
}

static Run *find_pid(const Worker *w, pid_t pid) {
        LIST_FOREACH (link, &w->by_pid[(unsigned)pid % PID_BUCKETS]) {
                Run *r = LIST_ENTRY(link, Run, pid_link);
                if (r->pid == pid)
                        return r;
        }
        return NULL;
}

static int get_run(Worker *w, uint32_t slot, Run **ret) {
        if (!w->runs[slot]) {
                Run *r = private_alloc(sizeof(*r));
                if (!r)
                        return -ENOMEM;
                list_init(&r->link);
                list_init(&r->pid_link);
                list_init(&r->unsent_link);
                r->slot = slot;
                r->line = -1;
                w->runs[slot] = r;
        }
        *ret = w->runs[slot];
        return 0;
}

/* ---- to eqd ---- */

/* false: the line is full. A line that is closed takes everything, the loop is told that it is. */
static bool send_message(Worker *w, const void *m, size_t n) {
        if (send(w->config->line, m, n, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
                return true;
        if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == EINTR)
                return false;
        w->ending = true;
        return true;
}

/* While a refusal waits for room nothing is read: there is one place for it, and no task's end is lost that way. */
static void watch_line(Worker *w) {
        bool in = !w->refusal_unsent,
             out = w->ready_unsent || w->refusal_unsent || w->pong_unsent || !list_is_empty(&w->unsent);
        uint32_t events = EPOLLRDHUP | (in ? EPOLLIN : 0) | (out ? EPOLLOUT : 0);

        if (w->line_events == events)
                return;
        w->line_events = events;
        (void)watch(w, EPOLL_CTL_MOD, w->config->line, events, EVENT_LINE, 0);
}

static bool send_run(Worker *w, Run *r) {
        if (r->started_unsent && !send_message(w, &r->started, sizeof(r->started)))
                return false;
        r->started_unsent = false;
        if (r->ended_unsent && !send_message(w, &r->ended, sizeof(r->ended)))
                return false;
        r->ended_unsent = false;
        list_remove(&r->unsent_link);
        return true;
}

static void send_pong(Worker *w) {
        SpawnHeader m = header(w, SPAWN_PONG, 0, 0);
        w->pong_unsent = !send_message(w, &m, sizeof(m));
}

static void send_unsent(Worker *w) {
        if (w->pong_unsent)
                send_pong(w);
        if (w->ready_unsent)
                w->ready_unsent = !send_message(w, &w->ready, sizeof(w->ready));
        if (!w->ready_unsent && w->refusal_unsent)
                w->refusal_unsent = !send_message(w, &w->refusal, sizeof(w->refusal));
        if (!w->ready_unsent && !w->refusal_unsent) {
                LIST_FOREACH_SAFE (link, &w->unsent)
                        if (!send_run(w, LIST_ENTRY(link, Run, unsent_link)))
                                break;
        }
        watch_line(w);
}

static void queue_unsent(Worker *w, Run *r) {
        if (list_is_empty(&r->unsent_link))
                list_append(&w->unsent, &r->unsent_link);
        send_unsent(w);
}

static void refuse(Worker *w, const SpawnHeader *h, SpawnStage stage, int error) {
        w->refusal = (SpawnEnded) {
                .header = header(w, SPAWN_ENDED, h->slot, h->run), .error = error, .stage = stage, .exit = -1
        };
        w->refusal_unsent = true;
        send_unsent(w);
}

/* ---- end of a run ---- */

static void finish(Worker *w, Run *r) {
        if (r->cgroup_watched) {
                (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, r->group->cgroup.events, NULL);
                r->cgroup_watched = false;
        }
        stock_put_group(&w->stock, r->group);
        r->group = NULL;
        stock_restore(&w->stock, r->slot);
        r->ended.header = header(w, SPAWN_ENDED, r->slot, r->run);
        spinner_ended(&w->spinner, r->since_usec);
        set_state(w, r, RUN_FREE);
        if (list_is_empty(&w->unsent) && send_message(w, &r->ended, sizeof(r->ended)))
                return;
        r->ended_unsent = true;
        queue_unsent(w, r);
}

/* Kills children that are nobody's leader and do not wait: those of `of`, or with NULL all. Returns how many there are. */
static int kill_strays(Worker *w, const Run *of) {
        pid_t pids[CHILDREN_MAX];
        int n_found = 0;

        int n = procfs_read_children(w->children, pids, CHILDREN_MAX);
        for (int i = 0; i < n; i++) {
                if (find_pid(w, pids[i]) || stock_has(&w->stock, pids[i]))
                        continue;
                if (of && (*of->task == '\0' || procfs_environ_has(pids[i], of->task) != 1))
                        continue;
                n_found++;
                (void)kill(-pids[i], SIGKILL);
                (void)kill(pids[i], SIGKILL);
        }
        return n_found;
}

static bool drained_group(Worker *w, Run *r) {
        bool group = kill(-r->pid, 0) == 0 || errno != ESRCH;
        int n_strays = kill_strays(w, w->n_busy == 0 ? NULL : r);
        return !group && n_strays == 0;
}

static bool drained_cgroup(Worker *w, Run *r) {
        int populated = slot_cgroup_populated(&r->group->cgroup);
        if (populated <= 0)
                return true;
        if (!r->cgroup_watched) {
                int n = slot_cgroup_count(&r->group->cgroup);
                r->ended.strays = n > 0 ? (uint32_t)n : 1;
                r->cgroup_watched =
                        watch(w, EPOLL_CTL_ADD, r->group->cgroup.events, EPOLLPRI, EVENT_CGROUP, r->slot) == 0;
                (void)slot_cgroup_signal(&r->group->cgroup, SIGKILL);
        }
        return false;
}

/* Is there a child that is no leader and does not wait? Else there is nobody whom a task could have left: what has lost its
 * parent is a child of ours, and stays in the list until we reap it. */
static bool others_left(const Worker *w) {
        pid_t pids[CHILDREN_MAX];

        int n = procfs_read_children(w->children, pids, CHILDREN_MAX);
        for (int i = 0; i < n; i++)
                if (!find_pid(w, pids[i]) && !stock_has(&w->stock, pids[i]))
                        return true;
        return n < 0 || n == CHILDREN_MAX;
}

static void check_draining(Worker *w) {
        bool others = others_left(w);
        LIST_FOREACH_SAFE (link, &w->draining) {
                Run *r = LIST_ENTRY(link, Run, link);
                if (!others || (r->group ? drained_cgroup(w, r) : drained_group(w, r)))
                        finish(w, r);
        }
        if (others && w->n_busy == 0)
                (void)kill_strays(w, NULL);
}

/* Closing a socket takes as long as sending ENDED, which somebody waits for. */
static void close_late(Worker *w, int fd) {
        if (w->n_late == ELEMENTSOF(w->late))
                close_fd(fd);
        else if (fd >= 0)
                w->late[w->n_late++] = fd;
}

static void close_all_late(Worker *w) {
        while (w->n_late > 0)
                close_fd(w->late[--w->n_late]);
}

/* Out of epoll first: a process that was just forked may have a copy of it for a moment, and an event that is watched for stays
 * with the copy. */
static void drop_line(Worker *w, Run *r) {
        if (r->line_watched)
                (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, r->line, NULL);
        r->line_watched = false;
        close_late(w, TAKE_FD(r->line));
}

/* What became of exec: 1: done, 0: not known yet, -1: failed, as r->ended says from now on. */
static int look_at_exec(Worker *w, Run *r) {
        ChildError error;

        if (r->line < 0)
                return r->ended.stage == SPAWN_STAGE_NONE ? 1 : -1;
        ssize_t n = recv(r->line, &error, sizeof(error), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        drop_line(w, r);
        if (n == 0)
                return 1;
        if (n != sizeof(error)) /* ECONNRESET: it was killed before it had read the request; its end says more */
                return 0;
        r->ended.stage = error.stage;
        r->ended.error = error.error;
        return -1;
}

static void note_exit(Run *r, int status, const struct rusage *u) {
        r->ended.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        r->ended.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        r->ended.core = WIFSIGNALED(status) && WCOREDUMP(status);
        r->ended.utime_usec = (uint64_t)u->ru_utime.tv_sec * 1000000 + (uint64_t)u->ru_utime.tv_usec;
        r->ended.stime_usec = (uint64_t)u->ru_stime.tv_sec * 1000000 + (uint64_t)u->ru_stime.tv_usec;
        r->ended.maxrss_kib = (uint64_t)u->ru_maxrss;
}

/* Somebody has killed the process before it became the command: as if it had not been made. Not if we did: then that is how
 * the command ended. */
static bool died_unused(const Run *r, const siginfo_t *si) {
        return si->si_code != CLD_EXITED && !r->signaled && procfs_has_executed(r->pid) == 0;
}

static void leader_ended(Worker *w, Run *r, const siginfo_t *si) {
        struct rusage usage;
        int status = 0;

        bool unused = died_unused(r, si);
        if (!r->group)
                (void)kill(-r->pid, SIGKILL); /* while the zombie holds the id */
        if (wait4(r->pid, &status, 0, &usage) != r->pid)
                return;
        list_remove(&r->pid_link);
        note_exit(r, status, &usage);
        bool by_itself = WIFEXITED(status) && WEXITSTATUS(status) != CHILD_EXIT; /* then exec has been done */
        if (!by_itself && look_at_exec(w, r) < 0)
                r->ended.exit = -1;
        if (unused) {
                r->ended.stage = SPAWN_STAGE_FORK;
                r->ended.error = EAGAIN;
        }
        drop_line(w, r);
        set_state(w, r, RUN_DRAINING);
}

/* A child that is no leader and ended by itself, or was killed while it waited, or as somebody's stray. */
static void other_ended(Worker *w, const siginfo_t *si) {
        if (waitpid(si->si_pid, NULL, WNOHANG) != si->si_pid)
                return;
        if (stock_has(&w->stock, si->si_pid)) {
                stock_forget(&w->stock, si->si_pid);
                return;
        }
        if (si->si_code != CLD_KILLED || si->si_status != SIGKILL || list_is_empty(&w->draining))
                return;
        Run *d = LIST_ENTRY(w->draining.next, Run, link);
        if (!d->group)
                d->ended.strays++;
}

static void reap(Worker *w) {
        siginfo_t si = { 0 };

        while (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid != 0) {
                Run *r = find_pid(w, si.si_pid);
                if (r)
                        leader_ended(w, r, &si);
                else
                        other_ended(w, &si);
                si.si_pid = 0;
        }
        check_draining(w);
}

/* ---- start of a run ---- */

static int check_identity(const Worker *w, const SpawnStart *m) {
        uid_t own = getuid();
        uid_t wanted = m->flags & SPAWN_SET_IDENTITY ? m->uid : own;

        if (wanted == 0 && !w->config->allow_root)
                return EPERM;
        return wanted == own || w->config->any_identity ? 0 : EPERM;
}

static void take_stub(Worker *w, Run *r, const Stub *stub) {
        r->pid = stub->pid;
        r->line = stub->line;
        r->group = stub->group;
        list_append(&w->by_pid[(unsigned)r->pid % PID_BUCKETS], &r->pid_link);
}

static void remember_task(Run *r, const Request *q) {
        const char *task = request_find_env(q->start, q->strings, TASK_PREFIX);
        *r->task = '\0';
        if (task && strlen(task) < sizeof(r->task))
                memcpy(r->task, task, strlen(task) + 1);
}

static int check_start(Worker *w, Request *q, Run **ret) {
        Run *r = NULL;

        int e = request_open(q);
        if (e >= 0)
                e = -check_identity(w, q->start);
        if (e >= 0)
                e = get_run(w, q->start->header.slot, &r);
        if (e >= 0 && (r->state != RUN_FREE || r->ended_unsent))
                e = -EBUSY;
        if (e >= 0)
                *ret = r;
        return e;
}

static void start(Worker *w, Request *q) {
        const SpawnHeader *h = &q->start->header;
        SpawnStage stage;
        Stub stub;
        Run *r;

        int e = check_start(w, q, &r);
        if (e < 0)
                return refuse(w, h, SPAWN_STAGE_REQUEST, -e);
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0,
                    0); /* a child that was killed amid its change of identity may have left it otherwise */
        e = stock_start(&w->stock, q, &stub, &stage);
        if (e < 0)
                return refuse(w, h, stage, -e);
        r->ended = (SpawnEnded) { 0 };
        r->signaled = false;
        r->run = h->run;
        take_stub(w, r, &stub);
        if (!r->group)
                remember_task(r, q);
        set_state(w, r, RUN_YOUNG);
}

static void running(Worker *w, Run *r) {
        r->started = (SpawnStarted) {
                .header = header(w, SPAWN_STARTED, r->slot, r->run),
                .pid = r->pid,
                .start_ticks = procfs_start_ticks(r->pid),
        };
        set_state(w, r, RUN_RUNNING);
        r->started_unsent = true;
        queue_unsent(w, r);
}

/* Young ones of age: those that got to exec are reported, for the others the loop watches. */
static void check_young(Worker *w, uint64_t now) {
        LIST_FOREACH_SAFE (link, &w->young) {
                Run *r = LIST_ENTRY(link, Run, link);
                if (now < r->since_usec + YOUNG_USEC)
                        return;
                list_remove(&r->link); /* from now on an event comes: of the line, or SIGCHLD */
                int e = look_at_exec(w, r);
                if (e > 0)
                        running(w, r);
                else if (e == 0 && r->line >= 0)
                        r->line_watched = watch(w, EPOLL_CTL_ADD, r->line, EPOLLIN, EVENT_EXEC, r->slot) == 0;
        }
}

static void exec_known(Worker *w, Run *r) {
        if (r->state == RUN_YOUNG && r->line >= 0 && look_at_exec(w, r) > 0)
                running(w, r);
}

/* ---- signals ---- */

static void signal_run(Worker *w, const SpawnSignal *m) {
        if (m->header.slot >= SPAWN_SLOTS_MAX)
                return;
        Run *r = w->runs[m->header.slot];
        if (!r || r->run != m->header.run || (r->state != RUN_YOUNG && r->state != RUN_RUNNING))
                return;
        r->signaled = true;
        int signals[] = { m->signal, m->signal == SIGTERM || m->signal == SIGHUP ? SIGCONT : 0 };
        for (size_t i = 0; i < ELEMENTSOF(signals) && signals[i]; i++) { /* what is stopped must hear it, too */
                if (r->group)
                        (void)slot_cgroup_signal(&r->group->cgroup, signals[i]);
                else if (kill(-r->pid, signals[i]) < 0) /* just forked, and not a group of its own yet */
                        (void)kill(r->pid, signals[i]);
        }
}

static void signal_readable(Worker *w) {
        struct signalfd_siginfo si[4];
        ssize_t n = read(w->signals, si, sizeof(si));
        for (ssize_t i = 0; i < n / (ssize_t)sizeof(si[0]); i++)
                if (si[i].ssi_signo == SIGTERM &&
                    getppid() != w->config->keeper) /* the keeper's death; else a stranger */
                        w->ending = true;
        reap(w);
}

/* ---- from eqd ---- */

static void reserve(Worker *w, const SpawnReserve *m, const FdpassMessage *message) {
        uint32_t slot = m->header.slot;
        if (slot >= SPAWN_SLOTS_MAX)
                return;
        if (!m->on)
                return stock_unreserve(&w->stock, slot);
        int32_t error = -stock_reserve(&w->stock, slot, message->n_fds == 0);
        if (message->n_fds > 0) /* a pipe, and empty; who does not listen any more takes it back */
                (void)!write(message->fds[0], &error, sizeof(error));
}

static void take_message(Worker *w, Request *q) {
        const SpawnHeader *h = &q->start->header;
        size_t n = q->message.n;

        if (n < sizeof(*h) || h->magic != SPAWN_MAGIC || h->version != SPAWN_VERSION)
                return (void)!write(STDERR_FILENO, "eqd-spawner: message of another version\n", 40);
        if (h->epoch != w->config->epoch) /* meant for the worker before; eqd has been told that it is gone */
                return;
        if (h->type == SPAWN_SIGNAL && n == sizeof(SpawnSignal))
                signal_run(w, &w->inbox->signal);
        else if (h->type == SPAWN_STOCK && n == sizeof(SpawnStock))
                stock_set_size(&w->stock, w->inbox->stock.n);
        else if (h->type == SPAWN_RESERVE && n == sizeof(SpawnReserve))
                reserve(w, &w->inbox->reserve, &q->message);
        else if (h->type == SPAWN_PING && n == sizeof(*h)) {
                w->pong_unsent = true;
                send_unsent(w);
        } else if (h->type == SPAWN_START)
                start(w, q);
}

static void line_readable(Worker *w) {
        Request q;

        int r = request_receive(w->config->line, w->inbox, false, &q);
        if (r == -EAGAIN || r == -EINTR || r == -ENOMEM)
                return;
        if (r < 0 || q.message.n == 0) {
                w->ending = true;
                return;
        }
        take_message(w, &q);
        request_close(&q);
}

/* ---- the loop ---- */

static int timeout_msec(const Worker *w) {
        uint64_t due = UINT64_MAX;

        if (!list_is_empty(&w->young))
                due = LIST_ENTRY(w->young.next, Run, link)->since_usec + YOUNG_USEC;
        if (w->config->slots_fd < 0 && !list_is_empty(&w->draining))
                due = MIN(due, LIST_ENTRY(w->draining.next, Run, link)->since_usec + DRAIN_USEC);
        if (due == UINT64_MAX && stock_due_usec(&w->stock, 0) == UINT64_MAX)
                return -1;
        uint64_t now = now_usec();
        uint64_t stock_due = stock_due_usec(&w->stock, now);
        if (stock_due != UINT64_MAX)
                due = MIN(due, now + stock_due);
        return now >= due ? 0 : (int)((due - now + 999) / 1000);
}

static void check_due(Worker *w) {
        if (list_is_empty(&w->young) && (list_is_empty(&w->draining) || w->config->slots_fd >= 0))
                return;
        uint64_t now = now_usec();
        check_young(w, now);
        if (w->config->slots_fd >= 0)
                return;
        LIST_FOREACH_SAFE (link, &w->draining) {
                Run *r = LIST_ENTRY(link, Run, link);
                if (now < r->since_usec + DRAIN_USEC)
                        return;
                finish(w, r);
        }
}

/* Only when nothing else is there to do. A refusal is tried again by the time-out. */
static void fill_stock(Worker *w) {
        if (stock_due_usec(&w->stock, 0) == UINT64_MAX)
                return;
        uint64_t now = now_usec();
        if (stock_due_usec(&w->stock, now) == 0)
                (void)stock_fill(&w->stock, now);
}

static void dispatch(Worker *w, const struct epoll_event *e) {
        Run *r = w->runs[e->data.u64 >> 8];

        switch ((EventKind)(e->data.u64 & 0xff)) {
        case EVENT_LINE:
                if (e->events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) { /* eqd is gone */
                        w->ending = true;
                        break;
                }
                if (e->events & EPOLLOUT)
                        send_unsent(w);
                if (e->events & EPOLLIN && !w->refusal_unsent)
                        line_readable(w);
                break;
        case EVENT_SIGNAL:
                signal_readable(w);
                break;
        case EVENT_EXEC:
                exec_known(w, r);
                break;
        case EVENT_CGROUP:
                if (r->state == RUN_DRAINING && drained_cgroup(w, r))
                        finish(w, r);
                break;
        }
}

/* Events that came before the spinning was over, else 0. What they are does not matter: there is something to do. */
static int spin(Worker *w, struct epoll_event *events) {
        int n = 0;

        if (!spinner_begin(&w->spinner))
                return 0;
        uint64_t until = spinner_has_cpus() ? now_usec() + SPIN_USEC : 0;
        while (n == 0 && now_usec() < until)
                n = epoll_wait(w->epoll, events, EVENTS_MAX, 0);
        spinner_note(&w->spinner, n > 0);
        return n;
}

/* child: filled in; the caller's, since the children have no `w`. */
static int worker_init(Worker *w, const WorkerConfig *config, ChildConfig *child) {
        sigset_t mask;

        *w = (Worker) { .config = config };
        for (size_t i = 0; i < PID_BUCKETS; i++)
                list_init(&w->by_pid[i]);
        list_init(&w->young);
        list_init(&w->draining);
        list_init(&w->unsent);
        w->runs = private_alloc(SPAWN_SLOTS_MAX * sizeof(Run *)); /* untouched pages cost nothing */
        w->inbox = inbox_new();
        if (!w->runs || !w->inbox)
                return -ENOMEM;
        if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
                return -errno;
        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigaddset(&mask, SIGTERM);
        w->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        w->epoll = epoll_create1(EPOLL_CLOEXEC);
        w->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        w->children = procfs_open_children();
        if (w->signals < 0 || w->epoll < 0 || w->null_fd < 0 || w->children < 0)
                return w->children < 0 ? w->children : -EMFILE;
        *child = (ChildConfig) { .null_fd = w->null_fd,
                                 .inbox = w->inbox,
                                 .parent = getpid(),
                                 .any_identity = config->any_identity,
                                 .bounding_is_empty = config->bounding_is_empty,
                                 .nofile = config->nofile };
        stock_init(&w->stock, child, config->slots_fd, config->stock);
        w->line_events = EPOLLIN | EPOLLRDHUP;
        int r = watch(w, EPOLL_CTL_ADD, config->line, w->line_events, EVENT_LINE, 0);
        return r < 0 ? r : watch(w, EPOLL_CTL_ADD, w->signals, EPOLLIN, EVENT_SIGNAL, 0);
}

static void announce(Worker *w) {
        w->ready = (SpawnReady) {
                .header = header(w, SPAWN_READY, 0, 0),
                .pid = getpid(),
                .restarts = w->config->restarts,
                .any_identity = w->config->any_identity,
                .root_allowed = w->config->allow_root,
                .cgroups = w->config->slots_fd >= 0,
                .killed = w->config->killed,
        };
        w->ready_unsent = true;
        send_unsent(w);
}

/* Dying of SIGTERM at the keeper's death is not enough: what runs must go first. */
static void follow_keeper(Worker *w) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
        if (getppid() != w->config->keeper)
                w->ending = true;
}

_Noreturn void worker_run(const WorkerConfig *config) {
        Worker *w = private_alloc(sizeof(*w));
        struct epoll_event events[EVENTS_MAX];
        ChildConfig child;

        int r = w ? worker_init(w, config, &child) : -ENOMEM;
        if (r < 0) {
                dprintf(STDERR_FILENO, "eqd-spawner: cannot start: %s\n", strerror(-r));
                _exit(EXIT_FAILURE);
        }
        follow_keeper(w);
        announce(w);
        while (!w->ending) {
                int n = spin(w, events);
                if (n == 0)
                        n = epoll_wait(w->epoll, events, EVENTS_MAX, timeout_msec(w));
                for (int i = 0; i < n; i++)
                        dispatch(w, &events[i]);
                close_all_late(w);
                check_due(w);
                if (n == 0)
                        fill_stock(w);
        }
        (void)tree_kill_all(w->children, config->slots_fd);
        if (config->slots_fd >= 0 && getppid() != config->keeper)
                cgroup_remove_slots(config->cgroup, config->slots_fd);
        _exit(EXIT_SUCCESS);
}
