/* SPDX-License-Identifier: MIT */
/* Commands, from a claimed task to its exit status.
 *
 *      start: request, pipes --> [STARTED: watch the pipes] --> ENDED: read what is left, answer the engine
 *
 * A command that has ended within a moment has no STARTED: its output waits in the pipes and is read once, so /bin/true costs
 * the loop no poll handle. After ENDED nobody of the tree lives, so what the pipes hold then is all; a pipe that leaked to a
 * stranger is not waited for.
 *
 * Stopping. A time-out or a cancel takes the steps SIGTERM (or the signal asked for) -> grace -> SIGKILL, each to the whole
 * tree; SIGKILL is repeated until ENDED comes. One timer per slot serves the time-out first and these steps then.
 *
 * There is one Run per index of a slot, for ever: it outlives the slot and serves the next one with that index, so that its
 * number `run` tells all tasks of that index apart. */

#include "executor/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/event.h"
#include "base/fault.h"
#include "base/util.h"
#include "executor/command_request.h"
#include "executor/orphans.h"

enum {
        READ_SIZE = 65536,
        DRAIN_MAX = 32, /* reads of READ_SIZE from one pipe after the end */
        FDS_MAX = 4,
        RESERVED_FDS = 4, /* two pipes, or a pipe and two files */
        AGAIN_MSEC = 10,  /* the line was full */
        KILL_AGAIN_MSEC = 1000,
        START_AGAIN_USEC = 20000, /* the line was full when starting */
        KILLED_MSEC = 5000,       /* who is still there so long after SIGKILL hangs in the kernel */
        RESTARTS_MAX = 5,
        PATH_SHOWN = 80, /* bytes of a path in an error text */
};

typedef struct Run Run;

/* A poll handle lives until the loop has let go of it, longer than the task. */
typedef struct PipeWatch {
        uv_poll_t poll;
        Run *run;
        uint8_t stream;
} PipeWatch;

typedef enum StopStep { STOP_NONE, STOP_SIGNAL, STOP_KILL } StopStep;

struct Run {
        CommandExecutor *executor;
        Slot *slot;
        uint64_t number; /* SpawnHeader::run */
        Task *task;      /* NULL: idle */
        CommandSetup setup;
        int pipes[3];          /* read ends by stream, -1: none */
        PipeWatch *watches[3]; /* by stream, NULL: not watched */
        uv_timer_t timer;
        StopStep step;
        int signal; /* of STOP_SIGNAL */
        uint64_t grace_usec;
        bool started, timed_out, canceled, signaled, clogged;
        bool reserved;                  /* its slot is a rescuer's */
        int reserved_fds[RESERVED_FDS]; /* while that does not run a command */
};

struct CommandExecutor {
        Executor executor; /* first: what the engine knows */
        uv_loop_t *loop;
        Engine *engine;
        const CommandHooks *hooks;
        void *host;
        SpawnerLink *link;
        Orphans *orphans;
        uv_poll_t *link_poll; /* owned by the loop once closed */
        WatchPart *part;      /* the spawner, for the watch; the watch's. NULL: there is none */
        SpawnReady ready;
        bool was_ready;
        unsigned n_restarts;
        uint64_t restarted_usec;
        Run **runs; /* by slot index */
        size_t n_runs;
        EqBuffer strings; /* of the request that is being built */
        char *read_buffer;
};

/* ---- runs ---- */

static Run *use_run(Slot *slot, Run *r) {
        r->slot = slot;
        slot->executor_data = r;
        return r;
}

static int get_run(CommandExecutor *x, Slot *slot, Run **ret) {
        if (slot->executor_data) {
                *ret = slot->executor_data;
                return 0;
        }
        if (slot->index < x->n_runs && x->runs[slot->index]) { /* of a slot that is gone */
                *ret = use_run(slot, x->runs[slot->index]);
                return 0;
        }
        if (slot->index >= x->n_runs) {
                Run **runs = fault_realloc(x->runs, (slot->index + 1) * sizeof(Run *));
                if (!runs)
                        return -ENOMEM;
                memset(runs + x->n_runs, 0, (slot->index + 1 - x->n_runs) * sizeof(Run *));
                x->runs = runs;
                x->n_runs = slot->index + 1;
        }
        Run *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        r->executor = x;
        for (int i = 0; i < 3; i++)
                r->pipes[i] = -1;
        for (int i = 0; i < RESERVED_FDS; i++)
                r->reserved_fds[i] = -1;
        (void)uv_timer_init(x->loop, &r->timer); /* cannot fail */
        r->timer.data = r;
        x->runs[slot->index] = r;
        *ret = use_run(slot, r);
        return 0;
}

static void on_watch_closed(uv_handle_t *handle) {
        free(handle->data);
}

static void unwatch(Run *r, int stream) {
        PipeWatch *w = r->watches[stream];
        if (!w)
                return;
        r->watches[stream] = NULL;
        w->run = NULL;
        uv_close((uv_handle_t *)&w->poll, on_watch_closed); /* out of epoll at once, before the descriptor is closed */
}

static void close_pipe(Run *r, int stream) {
        unwatch(r, stream);
        r->pipes[stream] = close_fd(r->pipes[stream]);
}

/* ---- what rescuers need ---- */

static void free_fds(Run *r) {
        for (int i = 0; i < RESERVED_FDS; i++)
                r->reserved_fds[i] = close_fd(r->reserved_fds[i]);
}

static int take_fds(Run *r) {
        for (int i = 0; i < RESERVED_FDS; i++) {
                if (r->reserved_fds[i] >= 0)
                        continue;
                r->reserved_fds[i] = fault_hit(FAULT_PIPE) ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
                if (r->reserved_fds[i] < 0)
                        return -EMFILE;
        }
        return 0;
}

/* Before the first READY there is nobody to ask; then it is asked for at READY, before any command is started. */
static int command_reserve(Executor *executor, Slot *slot) {
        CommandExecutor *x = (CommandExecutor *)executor;
        Run *r = NULL;
        if (slot->index >= SPAWN_SLOTS_MAX || !x->link)
                return -ENOTSUP;
        int e = get_run(x, slot, &r);
        if (e >= 0)
                e = take_fds(r);
        if (e >= 0 && x->was_ready)
                e = spawner_link_reserve(x->link, (uint32_t)slot->index);
        if (e < 0 && r)
                free_fds(r);
        else if (e >= 0)
                r->reserved = true;
        return e;
}

static void command_unreserve(Executor *executor, Slot *slot) {
        CommandExecutor *x = (CommandExecutor *)executor;
        Run *r = slot->executor_data;
        r->reserved = false;
        free_fds(r);
        if (x->link)
                spawner_link_unreserve(x->link, (uint32_t)slot->index);
}

/* ---- output ---- */

/* One read. 1: there may be more, 0: not now, -1: end. */
static int read_pipe(Run *r, int stream) {
        CommandExecutor *x = r->executor;
        ssize_t n = read(r->pipes[stream], x->read_buffer, READ_SIZE);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -1;
        if (n == 0)
                return -1;
        (void)output_log_append(r->setup.log, (uint8_t)stream, x->read_buffer,
                                (size_t)n); /* counts what it could not keep */
        if (x->hooks->output(x->host, r->task, (uint8_t)stream, x->read_buffer, (size_t)n))
                r->clogged = true;
        return 1;
}

static void watch(Run *r, int stream);

static void on_pipe(uv_poll_t *handle, int status, int events) {
        PipeWatch *w = handle->data;
        Run *r = w->run;
        int stream = w->stream;
        if (!r)
                return;
        if (status < 0 || read_pipe(r, stream) < 0) {
                close_pipe(r, stream);
                return;
        }
        for (int s = EQ_STREAM_STDOUT; r->clogged && s <= EQ_STREAM_STDERR; s++)
                if (r->watches[s])
                        (void)uv_poll_stop(&r->watches[s]->poll);
}

/* Without memory the pipe is not watched: its output stays in it and is read at the end. */
static void watch(Run *r, int stream) {
        if (r->pipes[stream] < 0)
                return;
        if (!r->watches[stream]) {
                PipeWatch *w = fault_calloc(1, sizeof(*w));
                if (!w || uv_poll_init(r->executor->loop, &w->poll, r->pipes[stream]) < 0) {
                        free(w);
                        return;
                }
                w->poll.data = w;
                w->run = r;
                w->stream = (uint8_t)stream;
                r->watches[stream] = w;
        }
        (void)uv_poll_start(&r->watches[stream]->poll, UV_READABLE, on_pipe); /* fails for closing handles only */
}

static void drain(Run *r) {
        for (int s = EQ_STREAM_STDOUT; s <= EQ_STREAM_STDERR; s++) {
                for (int i = 0; i < DRAIN_MAX && r->pipes[s] >= 0 && read_pipe(r, s) > 0; i++)
                        ;
                close_pipe(r, s);
        }
}

void command_executor_resume(CommandExecutor *x, Task *t) {
        Run *r = t->slot ? t->slot->executor_data : NULL;
        if (!r || r->task != t || !r->clogged)
                return;
        r->clogged = false;
        if (r->started) {
                watch(r, EQ_STREAM_STDOUT);
                watch(r, EQ_STREAM_STDERR);
        }
}

/* ---- stopping ---- */

static void on_timer(uv_timer_t *timer);

static void set_timer(Run *r, uint64_t usec) {
        uint64_t ms = usec > UINT64_MAX - 999 ? UINT64_MAX / 2 : (usec + 999) / 1000;
        uv_update_time(r->executor->loop);
        (void)uv_timer_start(&r->timer, on_timer, ms, 0); /* fails for closing handles only */
}

static void take_step(Run *r) {
        bool kill = r->step == STOP_KILL;
        int e = spawner_link_signal(r->executor->link, (uint32_t)r->slot->index, r->number, kill ? SIGKILL : r->signal);
        if (e < 0)
                set_timer(r, AGAIN_MSEC * USEC_PER_MSEC);
        else if (kill || r->signal == SIGKILL) {
                if (WATCH_GET(r->slot->watch->deadline_usec) == USEC_NEVER)
                        WATCH_SET(r->slot->watch->deadline_usec,
                                  engine_now(r->executor->engine) + KILLED_MSEC * USEC_PER_MSEC);
                r->step = STOP_KILL;
                set_timer(r, KILL_AGAIN_MSEC * USEC_PER_MSEC);
        } else {
                r->step = STOP_KILL;
                if (r->grace_usec == USEC_NEVER)
                        uv_timer_stop(&r->timer);
                else
                        set_timer(r, r->grace_usec);
        }
}

static void on_timer(uv_timer_t *timer) {
        Run *r = timer->data;
        if (!r->task)
                return;
        if (r->step == STOP_NONE) {
                r->timed_out = true;
                r->step = STOP_SIGNAL;
                r->signal = SIGTERM;
                r->grace_usec = r->setup.grace_usec;
        }
        take_step(r);
}

static void command_cancel(Executor *executor, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
        Run *r = slot->executor_data;
        r->canceled = true;
        r->signal = signal ? signal : SIGTERM;
        r->grace_usec = grace_usec == USEC_NEVER ? r->setup.grace_usec : grace_usec;
        r->step = STOP_SIGNAL;
        take_step(r);
}

int command_executor_signal(CommandExecutor *x, Task *t, int signal) {
        Run *r = t->slot ? t->slot->executor_data : NULL;
        if (!r || r->task != t)
                return -ESRCH;
        int e = spawner_link_signal(x->link, (uint32_t)r->slot->index, r->number, signal);
        if (e >= 0)
                r->signaled = true;
        return e;
}

/* ---- end ---- */

/* The run is over: everything of it is let go before the engine hears of it, for that may start the next one. */
static void answer(Run *r, const TaskResult *result) {
        Task *t = r->task;
        (void)uv_timer_stop(&r->timer);
        drain(r);
        r->task = NULL;
        if (r->reserved)
                (void)take_fds(r); /* those that cannot be had are tried for again after the next one */
        engine_task_ended(r->executor->engine, t, result);
}

/* What could not be done, and what to do about it: when there is no such file, and else. */
typedef struct StageText {
        const char *what, *if_missing, *otherwise;
} StageText;

static const StageText stage_texts[] = {
        [SPAWN_STAGE_REQUEST] = { .what = "the request was refused" },
        [SPAWN_STAGE_FORK] = { .what = "no process could be created" },
        [SPAWN_STAGE_CGROUP] = { .what = "its cgroup could not be used",
                                 .otherwise = "let eqd make cgroups below its own, or start it with --cgroup off" },
        [SPAWN_STAGE_IDENTITY] = { .what = "its user and groups could not be taken on" },
        [SPAWN_STAGE_NICE] = { .what = "its nice level could not be set",
                               .otherwise = "ask for none below that of eqd, or let LimitNICE= of its unit allow it" },
        [SPAWN_STAGE_IOPRIO] = { .what = "its class of disk accesses (ionice) could not be set",
                                 .otherwise = "ask for another one; eqd has no right to this one" },
        [SPAWN_STAGE_LIMITS] = { .what = "a resource limit could not be set",
                                 .otherwise = "ask for no more than eqd has itself, or raise that" },
        [SPAWN_STAGE_CWD] = { .what = "its working directory could not be entered",
                              .if_missing = "make it, or submit from another",
                              .otherwise = "let the user of the task enter it, or submit from another" },
        [SPAWN_STAGE_STDOUT] = { .what = "the file for standard output could not be opened",
                                 .if_missing = "make its directory",
                                 .otherwise = "let the user of the task write it" },
        [SPAWN_STAGE_STDERR] = { .what = "the file for standard error could not be opened",
                                 .if_missing = "make its directory",
                                 .otherwise = "let the user of the task write it" },
};

static void explain_exec(const EqSubmit *s, int error, CommandResult *c) {
        EqArray argv = s->argv;
        EqBytes name = { 0 };
        (void)eq_next_bytes(&argv, &name);
        bool missing = error == ENOENT || error == ENOTDIR, is_path = name.len > 0 && memchr(name.data, '/', name.len);
        bool is_line = argv.n == 0 && name.len > 0 && memchr(name.data, ' ', name.len);
        c->exit = missing ? COMMAND_EXIT_NOT_FOUND : COMMAND_EXIT_NOT_EXECUTABLE;
        snprintf(c->error, sizeof(c->error), "cannot run \"%.*s\": %s; %s", (int)MIN(name.len, 64u), name.data,
                 strerror(error),
                 missing && is_line ? "that is one word, with blanks in it; a line for the shell goes with -c of eqctl"
                 : missing && is_path ? "there is no such file, or not what its first line (#!) names"
                 : missing            ? "give its path, or put its directory on PATH of the task"
                 : error == E2BIG     ? "shorten the arguments and the environment"
                 : error == ENOEXEC   ? "it is no program; scripts need a first line such as #!/bin/sh"
                                      : "make it executable for the user of the task");
}

static void explain_failure(const Run *r, const SpawnEnded *m, CommandResult *c) {
        EqSubmit s = { 0 };
        task_spec_decode(r->setup.spec, &s);
        if (m->stage == SPAWN_STAGE_EXEC) {
                explain_exec(&s, m->error, c);
                return;
        }
        c->exit = COMMAND_EXIT_SETUP;
        if (m->stage == SPAWN_STAGE_REQUEST && m->error == EPERM) {
                snprintf(c->error, sizeof(c->error),
                         "not started: eqd cannot run commands as uid %u any more; when it has been restarted it can",
                         (unsigned)r->setup.run_as->uid);
                return;
        }
        EqBytes what = m->stage == SPAWN_STAGE_CWD      ? s.cwd
                       : m->stage == SPAWN_STAGE_STDOUT ? s.stdout_path
                       : m->stage == SPAWN_STAGE_STDERR ? s.stderr_path
                                                        : (EqBytes) { 0 };
        StageText t = m->stage < ELEMENTSOF(stage_texts) ? stage_texts[m->stage] : (StageText) { 0 };
        bool missing = m->error == ENOENT || m->error == ENOTDIR;
        const char *advice = missing && t.if_missing ? t.if_missing : t.otherwise;
        snprintf(c->error, sizeof(c->error), "not started: %s%s%.*s%s: %s%s%s", t.what ? t.what : "?",
                 what.len ? ": " : "", (int)MIN(what.len, (uint32_t)PATH_SHOWN), what.len ? what.data : "",
                 what.len > (uint32_t)PATH_SHOWN ? "..." : "", strerror(m->error), advice ? "; " : "",
                 advice ? advice : "");
}

static TaskVerdict judge(const Run *r, const SpawnEnded *m) {
        if (r->canceled)
                return TASK_STOPPED;
        if (r->timed_out)
                return TASK_TIMED_OUT;
        if (m->error)
                return TASK_BAD;
        if (m->signal)
                return r->signaled ? TASK_BAD : TASK_CRASHED;
        return m->exit == 0 ? TASK_OK : TASK_BAD;
}

/* It got its process. That of a reserve was made when they could be had. */
static void note_process(const Run *r) {
        if (!r->slot->reserve)
                pool_set_create_error(r->slot->pool, 0);
}

static void on_ended(void *userdata, const SpawnEnded *m) {
        CommandExecutor *x = userdata;
        Run *r = m->header.slot < x->n_runs ? x->runs[m->header.slot] : NULL;
        if (!r || !r->task || r->number != m->header.run)
                return;
        bool no_memory = r->slot->reserve && m->stage == SPAWN_STAGE_EXEC && m->error == ENOMEM;
        if ((m->stage == SPAWN_STAGE_FORK || no_memory) && !r->canceled) {
                answer(r, &(TaskResult) { .verdict = TASK_NOT_STARTED,
                                          .reason = EQ_REASON_CREATE_FAILURE,
                                          .error = -(int)m->error });
                return;
        }
        if (!m->error) /* of a quick one nothing else may have been told */
                note_process(r);
        CommandResult c = { .exit = m->exit,
                            .signal = m->signal,
                            .core = m->core != 0,
                            .utime_usec = m->utime_usec,
                            .stime_usec = m->stime_usec,
                            .maxrss_kib = m->maxrss_kib };
        eq_reason reason = EQ_REASON_NONE;
        if (m->error) {
                explain_failure(r, m, &c);
                if (m->stage == SPAWN_STAGE_IDENTITY || (m->stage == SPAWN_STAGE_REQUEST && m->error == EPERM))
                        reason = EQ_REASON_IDENTITY;
        }
        answer(r, &(TaskResult) { .verdict = judge(r, m), .reason = reason, .details = &c });
}

static void on_started(void *userdata, const SpawnStarted *m) {
        CommandExecutor *x = userdata;
        Run *r = m->header.slot < x->n_runs ? x->runs[m->header.slot] : NULL;
        if (!r || !r->task || r->number != m->header.run)
                return;
        r->started = true;
        note_process(r);
        WATCH_SET(r->slot->watch->pid, (uint64_t)m->pid);
        x->hooks->running(x->host, r->task, m->pid, m->start_ticks);
        watch(r, EQ_STREAM_STDOUT);
        watch(r, EQ_STREAM_STDERR);
}

/* ---- the spawner comes and goes ---- */

static bool is_ours(const CommandExecutor *x, const List *pool) {
        return LIST_ENTRY(pool, Pool, link)->executor == &x->executor;
}

static void block_pools(CommandExecutor *x, eq_reason reason) {
        LIST_FOREACH (l, &x->engine->pools)
                if (is_ours(x, l))
                        pool_block(LIST_ENTRY(l, Pool, link), reason, USEC_NEVER);
}

static void on_ready(void *userdata, const SpawnReady *m) {
        CommandExecutor *x = userdata;
        x->ready = *m;
        x->was_ready = true;
        for (size_t i = 0; i < x->n_runs; i++)
                if (x->runs[i] && x->runs[i]->reserved)
                        (void)spawner_link_reserve_later(x->link,
                                                         (uint32_t)i); /* a line that was just made is not full */
        x->hooks->spawner_ready(x->host, m);
        LIST_FOREACH (l, &x->engine->pools)
                if (is_ours(x, l))
                        pool_unblock(LIST_ENTRY(l, Pool, link));
        LIST_FOREACH (l, &x->engine->pools)
                if (is_ours(x, l))
                        pool_run(LIST_ENTRY(l, Pool, link));
}

static void end_all(CommandExecutor *x, TaskVerdict verdict, eq_reason reason, const char *error) {
        for (size_t i = 0; i < x->n_runs; i++) {
                Run *r = x->runs[i];
                if (!r || !r->task)
                        continue;
                CommandResult c = { .exit = -1 };
                snprintf(c.error, sizeof(c.error), "%s", error);
                answer(r, &(TaskResult) {
                                  .verdict = r->canceled ? TASK_STOPPED : verdict, .reason = reason, .details = &c });
        }
}

static void on_pong(void *userdata) {
        CommandExecutor *x = userdata;
        WATCH_SET(x->part->n_answered, WATCH_GET(x->part->n_asked));
}

void command_executor_ask(CommandExecutor *x) {
        uint64_t n = x->part ? WATCH_GET(x->part->n_asked) : 0;
        if (x->part && WATCH_GET(x->part->n_answered) == n && spawner_link_ping(x->link) >= 0)
                WATCH_SET(x->part->n_asked, n + 1);
}

void command_executor_set_stock(CommandExecutor *x, unsigned n) {
        if (x->link && spawner_link_set_stock(x->link, n) < 0)
                log_debug("the spawner keeps its stock until it answers again"); /* at the next change, or READY */
}

static void on_lost(void *userdata) {
        CommandExecutor *x = userdata;
        on_pong(x); /* a dead one owes nothing; that the pool is blocked says what there is to say */
        block_pools(x, EQ_REASON_SPAWN_FAILED);
        x->hooks->spawner_lost(x->host);
        end_all(x, TASK_CRASHED, EQ_REASON_SPAWN_FAILED, "the spawner died while it ran; its processes were killed");
}

static void on_link_closed(uv_handle_t *handle) {
        free(handle);
}

static void unwatch_link(CommandExecutor *x) {
        if (!x->link_poll)
                return;
        uv_close((uv_handle_t *)x->link_poll, on_link_closed);
        x->link_poll = NULL;
}

static void on_link(uv_poll_t *handle, int status, int events) {
        CommandExecutor *x = handle->data;
        if (x->link_poll == handle)
                spawner_link_dispatch(x->link);
}

static int watch_link(CommandExecutor *x) {
        uv_poll_t *poll = fault_calloc(1, sizeof(*poll));
        if (!poll)
                return -ENOMEM;
        int r = uv_poll_init(x->loop, poll, spawner_link_fd(x->link));
        if (r < 0) {
                free(poll);
                return r;
        }
        poll->data = x;
        x->link_poll = poll;
        return uv_poll_start(poll, UV_READABLE, on_link);
}

/* Both processes are gone, and what commands had forked may be left to us. A new keeper has what eqd still has: in a system instance no capability, so then it can run eqd's
 * own user's commands only and says so in READY. */
static void on_closed(void *userdata) {
        CommandExecutor *x = userdata;
        uint64_t now = engine_now(x->engine);
        unwatch_link(x);
        if (now - x->restarted_usec > 60 * USEC_PER_SEC)
                x->n_restarts = 0;
        x->restarted_usec = now;
        int r = x->n_restarts++ < RESTARTS_MAX ? spawner_link_restart(x->link) : -ECANCELED;
        if (r >= 0)
                r = watch_link(x);
        orphans_sweep(x->orphans, spawner_link_pid(x->link));
        if (r < 0)
                log_event(SPAWNER_GONE, (.error = strerror(-r)), strerror(-r));
        else
                log_event(SPAWNER_REDUCED, (0));
}

static const SpawnerEvents link_events = { .ready = on_ready,
                                           .started = on_started,
                                           .ended = on_ended,
                                           .lost = on_lost,
                                           .closed = on_closed,
                                           .pong = on_pong };

/* ---- start ---- */

/* A file without a name that holds the bytes, at its beginning, sealed. */
static int make_memfd(const char *name, const char *data, size_t n, int *ret) {
        if (fault_hit(FAULT_PIPE))
                return -EMFILE;
        _cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        for (size_t done = 0; done < n;) {
                ssize_t w = write(fd, data + done, n - done);
                if (w < 0)
                        return -errno;
                done += (size_t)w;
        }
        if (lseek(fd, 0, SEEK_SET) < 0 ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
                return -errno;
        *ret = TAKE_FD(fd);
        return 0;
}

/* Descriptors to send along, in the order of their flags. `mine`: to be closed after sending. */
typedef struct Fds {
        int all[FDS_MAX], mine[FDS_MAX];
        unsigned n, n_mine;
} Fds;

static void fds_done(Fds *f) {
        for (unsigned i = 0; i < f->n_mine; i++)
                close_fd(f->mine[i]);
}

static void fds_add(Fds *f, int fd, bool mine) {
        f->all[f->n++] = fd;
        if (mine)
                f->mine[f->n_mine++] = fd;
}

static int add_input(const Run *r, const EqSubmit *s, SpawnStart *m, Fds *f) {
        int fd = r->setup.spec->stdin_fd;
        if (fd < 0 && s->payload.len > 0) {
                int e = make_memfd("eqd-stdin", s->payload.data, s->payload.len, &fd);
                if (e < 0)
                        return e;
        }
        if (fd < 0)
                return 0;
        m->flags |= SPAWN_HAS_STDIN;
        fds_add(f, fd, fd != r->setup.spec->stdin_fd);
        return 0;
}

static int add_output(Run *r, int stream, SpawnStart *m, Fds *f) {
        int fds[2];
        if (fault_hit(FAULT_PIPE))
                return -EMFILE;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        r->pipes[stream] = fds[0];
        fds_add(f, fds[1], true);
        if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
                return -errno;
        m->flags |= stream == EQ_STREAM_STDOUT ? SPAWN_HAS_STDOUT : SPAWN_HAS_STDERR;
        return 0;
}

static int add_fds(Run *r, const EqSubmit *s, SpawnStart *m, Fds *f) {
        const EqBuffer *b = &r->executor->strings;
        int e = add_input(r, s, m, f);
        if (e >= 0 && r->setup.log && s->stdout_path.len == 0)
                e = add_output(r, EQ_STREAM_STDOUT, m, f);
        if (e >= 0 && r->setup.log && s->stderr_path.len == 0 && !s->merge)
                e = add_output(r, EQ_STREAM_STDERR, m, f);
        if (e >= 0 && b->len > SPAWN_INLINE_MAX) {
                int fd;
                e = make_memfd("eqd-strings", b->data, b->len, &fd);
                if (e >= 0) {
                        m->flags |= SPAWN_HAS_STRINGS;
                        fds_add(f, fd, true);
                }
        }
        return e;
}

static int send_request(CommandExecutor *x, Run *r) {
        EqSubmit s = { 0 };
        SpawnStart m = { .header = { .slot = (uint32_t)r->slot->index, .run = r->number } };
        _cleanup_(fds_done) Fds fds = { 0 };
        task_spec_decode(r->setup.spec, &s);
        int e = command_request_fill(&r->setup, r->task, &s, &x->strings, &m);
        if (e >= 0)
                e = add_fds(r, &s, &m, &fds);
        if (e >= 0)
                e = spawner_link_start(x->link, &m, x->strings.data, fds.all, fds.n);
        if (e < 0)
                for (int stream = EQ_STREAM_STDOUT; stream <= EQ_STREAM_STDERR; stream++)
                        close_pipe(r, stream);
        if (x->strings.cap > 2 * SPAWN_INLINE_MAX)
                eq_buffer_done(&x->strings);
        return e;
}

static int command_start(Executor *executor, Slot *slot, Task *t) {
        CommandExecutor *x = (CommandExecutor *)executor;
        Run *r = NULL;
        if (!x->was_ready) {
                if (!slot->reserve)
                        pool_block(slot->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER); /* until READY */
                return -EAGAIN;
        }
        if (slot->index >= SPAWN_SLOTS_MAX) /* while pools shrink and others grow */
                return -EAGAIN;
        int e = get_run(x, slot, &r);
        if (e >= 0) {
                r->task = t;
                free_fds(r);
                e = x->hooks->prepare(x->host, t, &r->setup);
        }
        if (e >= 0) {
                r->number++;
                r->step = STOP_NONE;
                WATCH_SET(slot->watch->pid, 0);
                WATCH_SET(slot->watch->deadline_usec, USEC_NEVER);
                r->started = r->timed_out = r->canceled = r->signaled = r->clogged = false;
                e = send_request(x, r);
                if (e < 0)
                        x->hooks->unprepare(x->host, t);
                if (e == -EAGAIN && !slot->reserve)
                        pool_block(slot->pool, EQ_REASON_CREATE_FAILURE, engine_now(x->engine) + START_AGAIN_USEC);
        }
        if (e < 0) {
                if (r)
                        r->task = NULL;
                if (r && r->reserved)
                        (void)take_fds(r);
                return e;
        }
        if (r->setup.timeout_usec != USEC_NEVER && r->setup.timeout_usec != 0)
                set_timer(r, r->setup.timeout_usec);
        return 0;
}

static const ExecutorOps command_ops = { .name = "command",
                                         .start = command_start,
                                         .cancel = command_cancel,
                                         .reserve = command_reserve,
                                         .unreserve = command_unreserve };

/* ---- life ---- */

int command_executor_new(uv_loop_t *loop, Engine *engine, const SpawnerConfig *config, const CommandHooks *hooks,
                         void *host, CommandExecutor **ret) {
        CommandExecutor *x = fault_calloc(1, sizeof(*x));
        if (!x)
                return -ENOMEM;
        x->executor.ops = &command_ops;
        x->loop = loop;
        x->engine = engine;
        x->hooks = hooks;
        x->host = host;
        x->read_buffer = fault_malloc(READ_SIZE);
        int r = x->read_buffer ? 0 : -ENOMEM;
        if (config)
                x->part = watch_part_add(&engine->watch, "eqd-spawner", EQ_REASON_SPAWN_FAILED);
        if (r >= 0 && config)
                r = orphans_new(loop, &x->orphans);
        if (r >= 0 && config)
                r = spawner_link_new(config, &link_events, x, &x->link);
        if (r >= 0 && config)
                r = watch_link(x);
        if (r < 0) {
                command_executor_free(x);
                return r;
        }
        *ret = x;
        return 0;
}

static void on_timer_closed(uv_handle_t *handle) {
        free(handle->data);
}

CommandExecutor *command_executor_free(CommandExecutor *x) {
        if (!x)
                return NULL;
        unwatch_link(x);
        x->link = spawner_link_free(x->link); /* kills what still runs */
        x->orphans = orphans_free(x->orphans);
        block_pools(x, EQ_REASON_DRAINING);
        end_all(x, TASK_STOPPED, EQ_REASON_DRAINING, "");
        for (size_t i = 0; i < x->n_runs; i++)
                if (x->runs[i])
                        uv_close((uv_handle_t *)&x->runs[i]->timer, on_timer_closed);
        free(x->runs);
        eq_buffer_done(&x->strings);
        free(x->read_buffer);
        free(x);
        return NULL;
}

Executor *command_executor(CommandExecutor *x) {
        return &x->executor;
}

const SpawnReady *command_executor_spawner(const CommandExecutor *x) {
        return x->was_ready ? &x->ready : NULL;
}

pid_t command_executor_keeper(const CommandExecutor *x) {
        return x->link ? spawner_link_pid(x->link) : 0;
}
