/* SPDX-License-Identifier: MIT */
/* eqctl worker run: any command as a worker. Each task is a child that reads the payload from its standard input; what it
 * writes to standard output is the result, its exit status says how it went. Standard error is eqctl's.
 *
 * One loop over the connection, a descriptor for signals, and three descriptors per child: its input while there is some,
 * its output, and its pidfd, whose end is the end of the task, whoever else still holds the pipes.
 *
 * With --lines a child stays: each task is a line on its standard input, each line of its standard output the answer to the oldest
 * that has none, so it may be given some ahead. When it ends, the oldest was what it was at, and fails; those behind it are lines of the
 * next child, in their order, under the same leases.
 *
 * The credit is the number of children, with --lines times what each may have ahead: no task waits here while another worker is free
 * unless that is asked for. When the connection is lost, so
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
#include "eqctl/lines.h"
#include "eqctl/text.h"

enum { JOBS_MAX = 1024, AHEAD_MAX = 1024, READ_SIZE = 65536 };
#define TOUCH_USEC UINT64_C(1000000) /* between two signs of life of a task; thresholds of the stall watch are longer */

typedef struct Child {
        eq_run **runs; /* what it has, oldest first; room for WorkerRun::ahead; the worker's */
        size_t n_runs;
        pid_t pid;          /* 0: no child */
        int pidfd, in, out; /* -1: none */
        size_t n_sent;      /* of the payload, or of `lines` */
        EqBuffer lines;     /* to be written */
        EqBuffer result;    /* or the line that has begun */
        bool cut;
        bool lost;          /* its lease is; it was killed */
        bool ending;        /* it was asked to, for the oldest */
        bool replaced;      /* it was killed, and none of its runs is to blame: they are for the next one */
        uint64_t kill_usec; /* monotonic; 0: not to be killed */
} Child;

typedef struct WorkerRun {
        Ctl *ctl;
        const char **queues; /* NULL-terminated; owned */
        const char *const *command;
        LineFormat lines; /* LINES_NONE: a child per task */
        size_t ahead;     /* runs of one child */
        const char *fail; /* begins lines that say that a task failed; NULL: none do */
        Child *children;  /* n_children of them; owned */
        eq_run **runs;    /* of all of them; owned */
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
        eq_buffer_done(&c->lines);
        eq_buffer_done(&c->result);
        *c = (Child) { .runs = c->runs, .n_runs = c->n_runs, .pidfd = -1, .in = -1, .out = -1 };
}

static void child_take_out(Child *c) {
        memmove(c->runs, c->runs + 1, --c->n_runs * sizeof(c->runs[0]));
}

static void child_kill(const Child *c, int sig) {
        if (c->pid > 0)
                (void)kill(-c->pid, sig); /* it may have ended: then its pidfd tells */
}

static void set_variables(const eq_run *run) {
        char text[80];
        (void)setenv("EQD_QUEUE", eq_run_get_queue(run), 1);
        if (eq_run_get_mime(run))
                (void)setenv("EQD_MIME", eq_run_get_mime(run), 1);
        else
                (void)unsetenv("EQD_MIME");
        (void)snprintf(text, sizeof(text), "%s/%" PRIu64, eq_run_get_queue(run), eq_run_get_id(run).seq);
        (void)setenv("EQD_TASK", text, 1);
        (void)snprintf(text, sizeof(text), "%" PRIu32, eq_run_get_attempt(run));
        (void)setenv("EQD_ATTEMPT", text, 1);
}

/* In the child; does not return. run NULL: it is for many. */
static void exec_command(const WorkerRun *w, const eq_run *run, int in, int out, pid_t parent) {
        sigset_t none;
        (void)sigemptyset(&none);
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(EXIT_NOT_RUN); /* it died before that */
        if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
                _exit(EXIT_NOT_RUN);
        if (run)
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
static int child_start(WorkerRun *w, Child *c, const eq_run *run) {
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
        c->pid = pid;
        c->in = in[1];
        c->out = out[0];
        w->n_busy++;
        return 0;
}

/* As much as the pipe takes. 1: all, 0: some is left, negative: it does not want the rest. */
static int write_on(int fd, const char *data, size_t n, size_t *n_sent) {
        while (*n_sent < n) {
                ssize_t done = write(fd, data + *n_sent, n - *n_sent);
                if (done < 0 && errno == EINTR)
                        continue;
                if (done < 0)
                        return errno == EAGAIN ? 0 : -errno;
                *n_sent += (size_t)done;
        }
        return 1;
}

static void child_write(const WorkerRun *w, Child *c) {
        size_t n = 0;
        if (w->lines) {
                int r = write_on(c->in, c->lines.data, c->lines.len, &c->n_sent);
                if (r != 0)
                        c->lines.len = c->n_sent = 0;
                if (r < 0)
                        child_kill(c, SIGKILL); /* it has closed its input, and would never answer */
                return;
        }
        const char *payload = c->n_runs > 0 ? eq_run_get_payload(c->runs[0], &n) : NULL;
        if (write_on(c->in, payload, n, &c->n_sent) != 0)
                c->in = close_one(c->in);
}

/* Keeps the beginning, reads on all the same: the command must not block. */
static void child_keep(const WorkerRun *w, Child *c, const char *data, size_t n) {
        size_t room = (w->lines ? lines_max(w->lines) : EQ_RESULT_MAX) - c->result.len, keep = n < room ? n : room;
        c->cut |= keep < n;
        (void)eq_buffer_write(&c->result, data, keep); /* a failure is kept in the buffer */
}

static void line_answer(WorkerRun *w, Child *c);

static void take_lines(WorkerRun *w, Child *c, const char *data, size_t n) {
        const char *end = data + n, *newline;
        while ((newline = memchr(data, '\n', (size_t)(end - data)))) {
                child_keep(w, c, data, (size_t)(newline - data));
                line_answer(w, c);
                data = newline + 1;
        }
        child_keep(w, c, data, (size_t)(end - data));
}

/* All that is there now; ended: no more will come from the child itself. */
static void child_read(WorkerRun *w, Child *c, bool ended) {
        static char data[READ_SIZE];
        while (c->out >= 0) {
                ssize_t n = read(c->out, data, sizeof(data));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n > 0 && w->lines)
                        take_lines(w, c, data, (size_t)n);
                else if (n > 0)
                        child_keep(w, c, data, (size_t)n);
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

/* Answers the oldest that it has. */
static void end_run(const WorkerRun *w, Child *c, const eq_outcome *o) {
        eq_run *run = c->runs[0];
        if (c->cut)
                ctl_note(w->ctl, "%s/%" PRIu64 ": its output is larger than %d bytes; the result is cut",
                         eq_run_get_queue(run), eq_run_get_id(run).seq, EQ_RESULT_MAX);
        if (eq_run_end(run, o) == -ENOMEM)
                ctl_note(w->ctl, "out of memory: a result is lost, and its task goes back when this worker ends");
        child_take_out(c);
}

static void fail_run(const WorkerRun *w, Child *c, const char *text, bool final) {
        eq_outcome o = EQ_OUTCOME_INIT;
        o.failed = true;
        o.final = final;
        o.text = text;
        c->cut = false; /* nothing of it is the result */
        end_run(w, c, &o);
}

static void child_answer(const WorkerRun *w, Child *c, int status) {
        eq_outcome o = EQ_OUTCOME_INIT;
        char text[64];
        o.result = c->result.data;
        o.n_result = c->result.len;
        o.exit_status = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                explain(status, &o, text, sizeof(text));
        if (c->result.failed)
                fail_run(w, c, "out of memory for the result", false);
        else
                end_run(w, c, &o);
}

/* ---- answers in lines ---- */

/* What stands behind the prefix, as text of an error. */
static void line_failed(const WorkerRun *w, Child *c, EqBytes text) {
        char buf[EQ_LABEL_MAX + 1];
        text.len = text.len < EQ_LABEL_MAX ? text.len : EQ_LABEL_MAX;
        for (int i = 0; i < 3 && !eq_text_valid(text) && text.len > 0; i++)
                text.len--; /* it was cut within a character */
        bool good = text.len > 0 && eq_text_valid(text);
        (void)snprintf(buf, sizeof(buf), "%.*s", (int)text.len, text.data);
        fail_run(w, c, good ? buf : "the command says that it failed", false);
}

static void line_result(const WorkerRun *w, Child *c, EqBytes line) {
        _cleanup_buffer_ EqBuffer result = EQ_BUFFER_NULL;
        eq_outcome o = EQ_OUTCOME_INIT;
        int r = w->lines == LINES_BASE64 && c->cut ? -EMSGSIZE : lines_decode(w->lines, line, &result);
        if (r == 0 && result.len > EQ_RESULT_MAX)
                r = -EMSGSIZE;
        o.result = result.data;
        o.n_result = result.len;
        if (r == 0)
                end_run(w, c, &o);
        else
                fail_run(w, c,
                         r == -EINVAL     ? "the command answered with a line that is no base64"
                         : r == -EMSGSIZE ? "the command answered with more than a result may have"
                                          : "out of memory for the result",
                         false);
}

/* The line in `result` is whole. */
static void line_answer(WorkerRun *w, Child *c) {
        EqBytes line = eq_bytes(c->result.data, c->result.len);
        size_t n = w->fail ? strlen(w->fail) : 0;
        if (c->n_runs == 0 && !c->lost && !c->replaced) {
                ctl_note(w->ctl,
                         "%s wrote a line that no task asked for; it is ended, and started again for the next one",
                         w->command[0]);
                c->replaced = true;
                child_kill(c, SIGKILL);
        } else if (c->n_runs == 0 || c->lost || c->replaced)
                ; /* it is on its way out */
        else if (c->result.failed)
                fail_run(w, c, "out of memory for the result", false);
        else if (w->fail && line.len >= n && memcmp(line.data, w->fail, n) == 0)
                line_failed(w, c, eq_bytes(line.data + n, line.len - n));
        else
                line_result(w, c, line);
        c->result.len = 0;
        c->result.failed = c->cut = false;
        bool is_canceled = c->n_runs > 0 && eq_run_is_canceled(c->runs[0]); /* its turn has come after that */
        if (is_canceled || c->ending)
                child_kill(c, SIGKILL);
        c->replaced = c->replaced ||
                      (c->ending && !is_canceled); /* it has answered in spite of it, and may end at any time */
}

/* The last run of the child as a line. 0, or -errno: it was answered. */
static int line_send(WorkerRun *w, Child *c, eq_run *run) {
        size_t n, before = c->lines.len;
        const void *payload = eq_run_get_payload(run, &n);
        int r = lines_append(w->lines, eq_bytes(payload, n), &c->lines);
        if (r == 0) {
                c->runs[c->n_runs++] = run;
                return 0;
        }
        c->lines.len = before;
        c->lines.failed = false;
        eq_outcome o = EQ_OUTCOME_INIT;
        o.failed = true;
        o.final = r == -EINVAL;
        o.text = r == -EINVAL ? "its payload is more than one line; eqctl worker run --lines=base64 takes any bytes"
                              : "the worker is out of memory";
        (void)eq_run_end(run, &o);
        return r;
}

static void cannot_start(const WorkerRun *w, eq_run *run, int r) {
        ctl_error(w->ctl, "cannot start %s: %s", w->command[0], strerror(-r));
        (void)eq_run_fail(run, "the worker cannot start its command");
}

/* To a child of lines, which is started if it is not there. */
static void line_give(WorkerRun *w, Child *c, eq_run *run) {
        int r = c->pid > 0 ? 0 : child_start(w, c, NULL);
        if (r < 0)
                cannot_start(w, run, r);
        else if (line_send(w, c, run) == 0 && c->in >= 0)
                child_write(w, c);
}

/* A child of lines has ended. What it was at fails; what it had not come to yet is for the next one. */
static void lines_ended(WorkerRun *w, Child *c, int status, bool lost, bool replaced) {
        eq_outcome o = EQ_OUTCOME_INIT;
        char text[64];
        explain(status, &o, text, sizeof(text));
        if (o.exit_status == 0)
                o.text = "the command ended before it answered";
        if (c->n_runs > 0 && !replaced)
                end_run(w, c, &o);
        else if (c->n_runs == 0 && !replaced && !w->leaving && o.exit_status != 0)
                ctl_note(w->ctl, "%s ended (%s); it is started again for the next task", w->command[0], text);
        size_t n = c->n_runs;
        c->n_runs = 0;
        for (size_t i = 0; i < n; i++) { /* each is written to its own place or before it */
                eq_run *run = c->runs[i];
                if (lost)
                        (void)eq_run_fail(run, NULL); /* takes no answer, but has to be ended */
                else if (eq_run_is_canceled(run))
                        (void)eq_run_fail(run, "canceled before its line was taken");
                else if (w->n_signals > 1)
                        (void)eq_run_give_back(run);
                else
                        line_give(w, c, run);
        }
}

static void child_ended(WorkerRun *w, Child *c) {
        int status = 0;
        child_read(w, c, true);
        while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
                ;
        bool lost = c->lost, replaced = c->replaced;
        if (!w->lines)
                child_answer(w, c, status); /* a lost lease takes no answer, but its run has to be ended */
        child_reset(c);
        w->n_busy--;
        if (w->lines)
                lines_ended(w, c, status, lost, replaced);
}

/* ---- what eqd says ---- */

/* The one that has least to do, of these one that is there. NULL: all are busy. One that was killed with its lease is on its way out:
 * that is waited for. */
static Child *free_child(WorkerRun *w) {
        Child *lost = NULL, *best = NULL;
        for (size_t i = 0; i < w->n_children; i++) {
                Child *c = &w->children[i];
                bool is_first = !best || c->n_runs < best->n_runs || (c->n_runs == best->n_runs && c->pid > best->pid);
                if (c->lost)
                        lost = c;
                else if (c->n_runs < w->ahead && is_first)
                        best = c;
        }
        if (best || !lost)
                return best;
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
        if (w->lines) {
                line_give(w, c, run);
                return;
        }
        int r = child_start(w, c, run);
        if (r < 0)
                cannot_start(w, run, r);
        else
                c->runs[c->n_runs++] = run;
}

static void on_cancel(eq_client *client, eq_run *run, uint64_t grace_usec, void *userdata) {
        WorkerRun *w = userdata;
        for (size_t i = 0; i < w->n_children; i++) {
                Child *c = &w->children[i];
                if (c->n_runs == 0 || c->runs[0] != run)
                        continue; /* what a child has not come to waits for its turn */
                child_kill(c, grace_usec > 0 ? SIGTERM : SIGKILL);
                c->ending = true;
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

static size_t n_runs(const WorkerRun *w) {
        size_t n = 0;
        for (size_t i = 0; i < w->n_children; i++)
                n += w->children[i].n_runs;
        return n;
}

static void on_signal(WorkerRun *w) {
        struct signalfd_siginfo info;
        if (read(w->signals, &info, sizeof(info)) != sizeof(info))
                return;
        if (++w->n_signals == 1) {
                w->leaving = true;
                if (n_runs(w) > 0)
                        ctl_note(w->ctl, "finishing %zu tasks; once more stops them", n_runs(w));
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
                for (size_t k = 0; k < w->children[i].n_runs; k++)
                        (void)eq_run_touch(w->children[i].runs[k], -1, NULL); /* a lost connection shows by itself */
}

/* Commands that take lines end with their input. */
static void close_inputs(WorkerRun *w) {
        for (size_t i = 0; i < w->n_children; i++)
                if (w->children[i].n_runs == 0)
                        w->children[i].in = close_one(w->children[i].in);
}

static size_t collect(const WorkerRun *w, struct pollfd *p) {
        p[0] = (struct pollfd) { .fd = w->signals, .events = POLLIN };
        p[1] = (struct pollfd) { .fd = eq_client_get_fd(w->ctl->client),
                                 .events = (short)eq_client_get_events(w->ctl->client) };
        for (size_t i = 0; i < w->n_children; i++) {
                const Child *c = &w->children[i];
                bool writes = !w->lines || c->lines.len > 0;
                p[2 + 3 * i] = (struct pollfd) { .fd = c->in, .events = writes ? POLLOUT : 0 }; /* and POLLERR */
                p[3 + 3 * i] = (struct pollfd) { .fd = c->out, .events = POLLIN };
                p[4 + 3 * i] = (struct pollfd) { .fd = c->pidfd, .events = POLLIN };
        }
        return 2 + 3 * w->n_children;
}

static void look_after_children(WorkerRun *w, const struct pollfd *p) {
        for (size_t i = 0; i < w->n_children; i++) {
                Child *c = &w->children[i];
                if (w->lines && (p[2 + 3 * i].revents & POLLERR))
                        child_kill(c, SIGKILL); /* it has closed its input, or is about to end: it answers no more */
                else if (p[2 + 3 * i].revents)
                        child_write(w, c);
                if (p[3 + 3 * i].revents)
                        child_read(w, c, false);
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
        touch_all(w);
        int r = eq_client_dispatch(w->ctl->client, 0);
        if (p[0].revents)
                on_signal(w); /* what eqd had sent before it counts as begun */
        if (w->lines && w->left)
                close_inputs(w);
        return r < 0 ? r : eq_client_flush(w->ctl->client);
}

static int start_serving(WorkerRun *w) {
        const char *name = ctl_get(w->ctl, FLAG_worker_name);
        int r = eq_worker_set_callbacks(w->ctl->client, on_run, on_cancel, w);
        if (r == 0)
                r = eq_worker_set_rescue(w->ctl->client, ctl_has(w->ctl, FLAG_rescue));
        if (r == 0)
                r = eq_worker_serve(w->ctl->client, w->queues, (uint32_t)(w->n_children * w->ahead),
                                    (uint32_t)w->n_children, name ? name : w->command[0], NULL);
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

static int take_lines_options(WorkerRun *w, int64_t jobs) {
        const char *format = ctl_get(w->ctl, FLAG_lines);
        int64_t ahead = 1;
        int status = ctl_get_number(w->ctl, FLAG_ahead, 1, AHEAD_MAX, &ahead);
        if (status)
                return status;
        w->ahead = (size_t)ahead;
        w->fail = ctl_get(w->ctl, FLAG_fail);
        if (!format && (w->fail || ctl_has(w->ctl, FLAG_ahead))) {
                ctl_error(w->ctl, "--%s: with --lines only, for commands that stay", w->fail ? "fail" : "ahead");
                return EXIT_USAGE;
        }
        if (w->fail && (!*w->fail || strchr(w->fail, '\n'))) {
                ctl_error(w->ctl, "--fail: some text that lines can begin with, such as `error: `");
                return EXIT_USAGE;
        }
        if (format && ahead * jobs > EQ_CREDIT_MAX) {
                ctl_error(w->ctl, "--jobs times --ahead: a worker has at most %d tasks at once", EQ_CREDIT_MAX);
                return EXIT_USAGE;
        }
        if (!format || lines_format(format, &w->lines) == 0)
                return 0;
        ctl_error(w->ctl, "--lines: `%s` is neither plain nor base64", format);
        return EXIT_USAGE;
}

static int worker_run(WorkerRun *w) {
        int64_t jobs = 1;
        int status = ctl_get_number(w->ctl, FLAG_jobs, 1, JOBS_MAX, &jobs);
        if (!status)
                status = take_lines_options(w, jobs);
        if (!status)
                status = take_queues(w);
        if (!status)
                status = check_command(w);
        if (status)
                return status;
        w->n_children = (size_t)jobs;
        w->children = calloc(w->n_children, sizeof(*w->children));
        w->runs = calloc(w->n_children * w->ahead, sizeof(w->runs[0]));
        if (!w->children || !w->runs)
                return ctl_no_memory(w->ctl);
        for (size_t i = 0; i < w->n_children; i++)
                w->children[i] = (Child) { .runs = w->runs + i * w->ahead, .pidfd = -1, .in = -1, .out = -1 };
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
        free(w.runs);
        free(w.queues);
        return status;
}
