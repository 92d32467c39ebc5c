/* SPDX-License-Identifier: MIT */
/* eqctl worker run: any command as a worker. Each task is a child that reads the payload from its standard input; what it
 * writes to standard output is the result, its exit status says how it went. Standard error is eqctl's.
 *
 * One loop over the connection, a descriptor for signals, and three descriptors per child: its input while there is some,
 * its output, and its pidfd, whose end is the end of the task, whoever else still holds the pipes.
 *
 * The credit is the number of children, so no task waits here while another worker is free. When the connection is lost, so
 * are the leases, and another worker may begin with the same tasks: the children are killed at once; libeq connects again. Should
 * eqctl itself be killed, the kernel kills them. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eqctl/ctl.h"
#include "eqctl/text.h"

enum { JOBS_MAX = 1024, READ_SIZE = 65536 };
#define TOUCH_USEC UINT64_C(1000000) /* between two signs of life of a task; thresholds of the stall watch are longer */

typedef struct Child {
        eq_run *run;
        pid_t pid;          /* 0: no child */
        int pidfd, in, out; /* -1: none */
        size_t n_sent;      /* of the payload */
        EqBuffer result;
        bool cut;
        bool lost;          /* its lease is; it was killed */
        uint64_t kill_usec; /* monotonic; 0: not to be killed */
} Child;

typedef struct WorkerRun {
        Ctl *ctl;
        const char **queues; /* NULL-terminated; owned */
        const char *const *command;
        Child *children; /* n_children of them; owned */
        size_t n_children, n_busy;
        int signals;
        unsigned n_signals;  /* that asked for the end */
        uint64_t touch_usec; /* when the next signs of life are due */
        bool away;           /* there is no connection for now */
        bool leaving, left;
        int status; /* at the end */
} WorkerRun;

/* ---- children ---- */

static int close_one(int fd) {
        if (fd >= 0)
                (void)close(fd); /* a pipe or a pidfd: nothing can be lost */
        return -1;
}

static void child_reset(Child *c) {
        c->pidfd = close_one(c->pidfd);
        c->in = close_one(c->in);
        c->out = close_one(c->out);
        eq_buffer_done(&c->result);
        *c = (Child) { .pidfd = -1, .in = -1, .out = -1 };
}

static void child_kill(const Child *c, int sig) {
        if (c->pid > 0)
                (void)kill(-c->pid, sig); /* it may have ended: then its pidfd tells */
}

static void set_variables(const eq_run *run) {
        char text[80];
        (void)setenv("EQD_QUEUE", eq_run_get_queue(run), 1);
        (void)snprintf(text, sizeof(text), "%s/%" PRIu64, eq_run_get_queue(run), eq_run_get_id(run).seq);
        (void)setenv("EQD_TASK", text, 1);
        (void)snprintf(text, sizeof(text), "%" PRIu32, eq_run_get_attempt(run));
        (void)setenv("EQD_ATTEMPT", text, 1);
}

/* In the child; does not return. */
static void exec_command(const WorkerRun *w, const eq_run *run, int in, int out, pid_t parent) {
        sigset_t none;
        (void)sigemptyset(&none);
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(EXIT_NOT_RUN); /* it died before that */
        if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
                _exit(EXIT_NOT_RUN);
        set_variables(run);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)execvp(w->command[0], (char *const *)w->command);
        int e = errno;
        dprintf(STDERR_FILENO, "eqctl: cannot run %s: %s\n", w->command[0], strerror(e));
        _exit(e == ENOENT ? 127 : 126);
}

static int pidfd_of(pid_t pid) {
        return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* 0, or -errno with everything closed. */
static int child_start(WorkerRun *w, Child *c, eq_run *run) {
        int in[2] = { -1, -1 }, out[2] = { -1, -1 };
        int r = pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ? -errno : 0;
        pid_t parent = getpid(), pid = r < 0 ? -1 : fork();
        if (pid == 0)
                exec_command(w, run, in[0], out[1], parent);
        if (pid < 0)
                r = r < 0 ? r : -errno;
        else
                (void)setpgid(pid, pid); /* the child does the same; who is first does not matter */
        (void)close_one(in[0]);
        (void)close_one(out[1]);
        if (r == 0 && (c->pidfd = pidfd_of(pid)) < 0) {
                r = -errno;
                (void)kill(-pid, SIGKILL);
                (void)waitpid(pid, NULL, 0);
        }
        if (r < 0) {
                (void)close_one(in[1]);
                (void)close_one(out[0]);
                return r;
        }
        (void)fcntl(in[1], F_SETFL, O_NONBLOCK);
        (void)fcntl(out[0], F_SETFL, O_NONBLOCK);
        c->run = run;
        c->pid = pid;
        c->in = in[1];
        c->out = out[0];
        w->n_busy++;
        return 0;
}

static void child_write(Child *c) {
        size_t n = 0;
        const char *payload = c->run ? eq_run_get_payload(c->run, &n) : NULL;
        while (c->n_sent < n) {
                ssize_t done = write(c->in, payload + c->n_sent, n - c->n_sent);
                if (done < 0 && errno == EINTR)
                        continue;
                if (done < 0 && errno == EAGAIN)
                        return;
                if (done < 0)
                        break; /* it does not want the rest */
                c->n_sent += (size_t)done;
        }
        c->in = close_one(c->in);
}

/* Keeps the beginning, reads on all the same: the command must not block. */
static void child_keep(Child *c, const char *data, size_t n) {
        size_t room = EQ_RESULT_MAX - c->result.len, keep = n < room ? n : room;
        c->cut |= keep < n;
        (void)eq_buffer_append(&c->result, data, keep); /* a failure is kept in the buffer */
}

/* All that is there now; ended: no more will come from the child itself. */
static void child_read(Child *c, bool ended) {
        static char data[READ_SIZE];
        while (c->out >= 0) {
                ssize_t n = read(c->out, data, sizeof(data));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n > 0)
                        child_keep(c, data, (size_t)n);
                else if (n == 0 || errno != EAGAIN)
                        c->out = close_one(c->out);
                if (n <= 0 || (!ended && n < (ssize_t)sizeof(data)))
                        return;
        }
}

/* ---- answers ---- */

static void explain(int status, eq_outcome *o, char *text, size_t size) {
        o->failed = true;
        o->text = text;
        if (WIFSIGNALED(status)) {
                const char *name = signal_name(WTERMSIG(status));
                o->exit_status = EXIT_SIGNAL + WTERMSIG(status);
                (void)snprintf(text, size, "ended by signal %d%s%s", WTERMSIG(status), name ? " " : "",
                               name ? name : "");
        } else {
                o->exit_status = WEXITSTATUS(status);
                (void)snprintf(text, size, "exit status %d", o->exit_status);
        }
}

static void child_answer(const WorkerRun *w, Child *c, int status) {
        eq_outcome o = EQ_OUTCOME_INIT;
        char text[64];
        o.result = c->result.data;
        o.n_result = c->result.len;
        o.exit_status = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                explain(status, &o, text, sizeof(text));
        if (c->result.failed) {
                o = (eq_outcome)EQ_OUTCOME_INIT;
                o.failed = true;
                o.text = "out of memory for the result";
        }
        if (c->cut)
                ctl_note(w->ctl, "%s/%" PRIu64 ": its output is larger than %d bytes; the result is cut",
                         eq_run_get_queue(c->run), eq_run_get_id(c->run).seq, EQ_RESULT_MAX);
        int r = eq_run_end(c->run, &o);
        if (r == -ENOMEM)
                ctl_note(w->ctl, "out of memory: a result is lost, and its task goes back when this worker ends");
        c->run = NULL;
}

static void child_ended(WorkerRun *w, Child *c) {
        int status = 0;
        child_read(c, true);
        while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
                ;
        child_answer(w, c, status); /* a lost lease takes no answer, but its run has to be ended */
        child_reset(c);
        w->n_busy--;
}

/* ---- what eqd says ---- */

/* NULL: all are busy. One that was killed with its lease is on its way out: that is waited for. */
static Child *free_child(WorkerRun *w) {
        Child *lost = NULL;
        for (size_t i = 0; i < w->n_children; i++) {
                if (w->children[i].pid == 0)
                        return &w->children[i];
                if (w->children[i].lost)
                        lost = &w->children[i];
        }
        if (lost)
                child_ended(w, lost);
        return lost;
}

static void on_run(eq_client *client, eq_run *run, void *userdata) {
        WorkerRun *w = userdata;
        Child *c = free_child(w);
        if (w->leaving || !c) {
                (void)eq_run_give_back(run); /* it goes to others when this worker ends at the latest */
                return;
        }
        int r = child_start(w, c, run);
        if (r == 0)
                return;
        ctl_error(w->ctl, "cannot start %s: %s", w->command[0], strerror(-r));
        (void)eq_run_fail(run, "the worker cannot start its command");
}

static void on_cancel(eq_client *client, eq_run *run, uint64_t grace_usec, void *userdata) {
        WorkerRun *w = userdata;
        for (size_t i = 0; i < w->n_children; i++) {
                Child *c = &w->children[i];
                if (c->run != run)
                        continue;
                child_kill(c, grace_usec > 0 ? SIGTERM : SIGKILL);
                uint64_t now = monotonic_usec(), wait = grace_usec - grace_usec / 4; /* time to say that it has ended */
                c->kill_usec = wait < UINT64_MAX - now ? now + wait : 0;
        }
}

static void on_left(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        ((WorkerRun *)userdata)->left = true;
}

/* Nobody has to be told, and nothing is left to be finished. */
static void leave_lost(WorkerRun *w) {
        w->left = true;
        w->status = EXIT_TEMPORARY;
}

/* With the connection go the leases, and with them the right to go on. */
static void on_link(eq_client *c, eq_link event, int r, void *userdata) {
        WorkerRun *w = userdata;
        ctl_on_link(c, event, r, w->ctl);
        w->away = event != EQ_LINK_BACK;
        if (w->away && w->leaving)
                leave_lost(w);
        for (size_t i = 0; i < w->n_children && w->away; i++) {
                w->children[i].lost = w->children[i].pid > 0;
                child_kill(&w->children[i], SIGKILL);
        }
}

/* ---- signals ---- */

static void on_signal(WorkerRun *w) {
        struct signalfd_siginfo info;
        if (read(w->signals, &info, sizeof(info)) != sizeof(info))
                return;
        if (++w->n_signals == 1) {
                w->leaving = true;
                if (w->n_busy > 0)
                        ctl_note(w->ctl, "finishing %zu tasks; once more stops them", w->n_busy);
                if (w->away)
                        leave_lost(w);
                else if (eq_client_call_start(w->ctl->client, "worker_leave", NULL, 0, NULL, 0, on_left, w, NULL) < 0)
                        w->left = true;
                return;
        }
        for (size_t i = 0; i < w->n_children; i++)
                child_kill(&w->children[i], w->n_signals == 2 ? SIGTERM : SIGKILL);
}

static int open_signals(WorkerRun *w) {
        sigset_t set;
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigprocmask(SIG_BLOCK, &set, NULL);
        (void)signal(SIGPIPE, SIG_IGN); /* of commands that do not read their input */
        w->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return w->signals < 0 ? -errno : 0;
}

/* ---- the loop ---- */

static int timeout_msec(const WorkerRun *w) {
        uint64_t now = monotonic_usec(), next = w->n_busy > 0 ? w->touch_usec : UINT64_MAX;
        for (size_t i = 0; i < w->n_children; i++)
                if (w->children[i].kill_usec && w->children[i].kill_usec < next)
                        next = w->children[i].kill_usec;
        if (next == UINT64_MAX)
                return -1;
        uint64_t msec = next > now ? (next - now + 999) / 1000 : 0;
        return msec < 60000 ? (int)msec : 60000;
}

static void kill_overdue(WorkerRun *w) {
        uint64_t now = monotonic_usec();
        for (size_t i = 0; i < w->n_children; i++) {
                Child *c = &w->children[i];
                if (!c->kill_usec || c->kill_usec > now)
                        continue;
                child_kill(c, SIGKILL);
                c->kill_usec = 0;
        }
}

/* A child is a command, which may take as long as it likes: that it is there is its life. */
static void touch_all(WorkerRun *w) {
        uint64_t now = monotonic_usec();
        if (now < w->touch_usec)
                return;
        w->touch_usec = now + TOUCH_USEC;
        for (size_t i = 0; i < w->n_children; i++)
                if (w->children[i].run && w->children[i].pid)
                        (void)eq_run_touch(w->children[i].run, -1, NULL); /* a lost connection shows by itself */
}

static size_t collect(const WorkerRun *w, struct pollfd *p) {
        p[0] = (struct pollfd) { .fd = w->signals, .events = POLLIN };
        p[1] = (struct pollfd) { .fd = eq_client_get_fd(w->ctl->client),
                                 .events = (short)eq_client_get_events(w->ctl->client) };
        for (size_t i = 0; i < w->n_children; i++) {
                const Child *c = &w->children[i];
                p[2 + 3 * i] = (struct pollfd) { .fd = c->in, .events = POLLOUT };
                p[3 + 3 * i] = (struct pollfd) { .fd = c->out, .events = POLLIN };
                p[4 + 3 * i] = (struct pollfd) { .fd = c->pidfd, .events = POLLIN };
        }
        return 2 + 3 * w->n_children;
}

static void look_after_children(WorkerRun *w, const struct pollfd *p) {
        for (size_t i = 0; i < w->n_children; i++) {
                Child *c = &w->children[i];
                if (p[2 + 3 * i].revents)
                        child_write(c);
                if (p[3 + 3 * i].revents)
                        child_read(c, false);
                if (p[4 + 3 * i].revents)
                        child_ended(w, c);
        }
}

/* One turn. 0, or -errno: the connection is lost, and did not come back. */
static int turn(WorkerRun *w, struct pollfd *p) {
        size_t n = collect(w, p);
        if (poll(p, n, timeout_msec(w)) < 0)
                return 0; /* EINTR; else it shows again */
        kill_overdue(w);
        look_after_children(w, p);
        if (p[0].revents)
                on_signal(w);
        touch_all(w);
        int r = eq_client_dispatch(w->ctl->client, 0);
        return r < 0 ? r : eq_client_flush(w->ctl->client);
}

static int start_serving(WorkerRun *w) {
        const char *name = ctl_get(w->ctl, FLAG_worker_name);
        int r = eq_worker_set_callbacks(w->ctl->client, on_run, on_cancel, w);
        if (r == 0)
                r = eq_worker_set_rescue(w->ctl->client, ctl_has(w->ctl, FLAG_rescue));
        if (r == 0)
                r = eq_worker_serve(w->ctl->client, w->queues, (uint32_t)w->n_children, (uint32_t)w->n_children,
                                    name ? name : w->command[0], NULL);
        return r;
}

static int serve(WorkerRun *w) {
        int status = ctl_connect_lasting(w->ctl, "connected again");
        if (status)
                return status;
        eq_client_set_link(w->ctl->client, on_link, w);
        int r = start_serving(w);
        return r < 0 ? ctl_lasting_fail(w->ctl, r) : 0;
}

static int loop(WorkerRun *w) {
        struct pollfd *p = calloc(2 + 3 * w->n_children, sizeof(*p));
        int status = p ? serve(w) : ctl_no_memory(w->ctl), r;
        while (!status && !(w->left && w->n_busy == 0))
                if ((r = turn(w, p)) < 0)
                        status = ctl_lasting_fail(w->ctl, r);
        free(p);
        return status ? status : w->status;
}

/* ---- options ---- */

static int take_queues(WorkerRun *w) {
        const Options *o = &w->ctl->options;
        size_t n = 0;
        w->queues = calloc(o->n + 1, sizeof(*w->queues));
        if (!w->queues)
                return ctl_no_memory(w->ctl);
        for (size_t i = 0; i < o->n; i++)
                if (o->list[i].flag == FLAG_serve_queue)
                        w->queues[n++] = o->list[i].value;
        if (n > 0)
                return 0;
        ctl_error(w->ctl, "which queue? usage: eqctl worker run -q QUEUE [-j N] -- COMMAND [ARG...]");
        return EXIT_USAGE;
}

/* Better no worker than one that fails every task. */
static int check_command(const WorkerRun *w) {
        const char *name = w->command[0], *path = getenv("PATH");
        if (strchr(name, '/'))
                path = "";
        for (const char *p = path ? path : "/usr/bin:/bin"; p;) {
                _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
                size_t n = strcspn(p, ":");
                text_printf(&b, "%.*s%s%s", (int)n, p, n > 0 ? "/" : "", name);
                if (access(text_end(&b), X_OK) == 0)
                        return 0;
                p = p[n] ? p + n + 1 : NULL;
        }
        ctl_error(w->ctl, "cannot run %s: %s", name, errno == EACCES ? strerror(errno) : "not found");
        return errno == EACCES ? 126 : 127;
}

static int worker_run(WorkerRun *w) {
        int64_t jobs = 1;
        int status = ctl_get_number(w->ctl, FLAG_jobs, 1, JOBS_MAX, &jobs);
        if (!status)
                status = take_queues(w);
        if (!status)
                status = check_command(w);
        if (status)
                return status;
        w->n_children = (size_t)jobs;
        w->children = calloc(w->n_children, sizeof(*w->children));
        if (!w->children)
                return ctl_no_memory(w->ctl);
        for (size_t i = 0; i < w->n_children; i++)
                w->children[i] = (Child) { .pidfd = -1, .in = -1, .out = -1 };
        if (open_signals(w) < 0) {
                ctl_error(w->ctl, "cannot wait for signals: %m");
                return EXIT_FAILURE;
        }
        return loop(w);
}

int verb_worker_run(Ctl *ctl) {
        WorkerRun w = { .ctl = ctl, .signals = -1, .command = ctl->options.operands };
        int status = worker_run(&w);
        (void)close_one(w.signals);
        free(w.children);
        free(w.queues);
        return status;
}
