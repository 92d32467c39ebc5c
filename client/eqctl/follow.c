/* SPDX-License-Identifier: MIT */
/* One loop over the connection and a signalfd.
 *
 *      waiting --all answered, all output seen--> done
 *         |  ^C: hint, 2 s --------------------> detached (130)       second ^C within them: cancel, waiting again
 *         |  connection lost: 30 s of trying --> waiting again, or 75
 *         |  --timeout ------------------------> 75
 *
 * After a reconnect the output goes on by `logs` with follow; what was printed before of the attempt that it tells of is
 * skipped by counting bytes. The end of the output is waited for as well as the end of the task, but not for ever: a process that outlived its task
 * could hold the stream open.
 *
 * A time is over if it was before the last look at the connection. eqctl may be stopped (^Z) at any point, and what has come meanwhile
 * counts, however late it is read. */

#include "eqctl/follow.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "eqctl/json.h"
#include "eqctl/text.h"

enum { DETACH_USEC = 2000000, OUTPUT_GRACE_USEC = 2000000 };

typedef struct Loop {
        Follow *f;
        int signal_fd;
        size_t n_calls;         /* wait calls that are outstanding */
        int error;              /* -errno of a wait call that failed */
        uint64_t look_usec;     /* monotonic; before the last look at the connection */
        uint64_t end_usec;      /* monotonic; when --timeout is over */
        uint64_t detach_usec;   /* when the time for a second ^C is over; 0: none came */
        bool canceled, is_back; /* the connection, and nothing was done about it */
} Loop;

/* ---- tasks ---- */

/* Only SEQ is compared: the name of the queue may not be known yet, and asking for it is not possible in a callback. */
static bool has_seq(const FollowTask *t, uint64_t seq) {
        const char *slash = strrchr(t->id, '/');
        return slash && strtoull(slash + 1, NULL, 10) == seq;
}

int follow_add(Follow *f, const char *id) {
        FollowTask *tasks = reallocarray(f->tasks, f->n_tasks + 1, sizeof(*tasks));
        if (!tasks)
                return -ENOMEM;
        f->tasks = tasks;
        FollowTask *t = &tasks[f->n_tasks++];
        *t = (FollowTask) { 0 };
        (void)snprintf(t->id, sizeof(t->id), "%s", id); /* a name has at most 31 bytes, a SEQ 16 digits */
        for (size_t i = 0; i < f->n_early_ends; i++)
                t->output_ended |= has_seq(t, f->early_ends[i]);
        return 0;
}

void follow_deinit(Follow *f) {
        free(f->tasks);
        free(f->early_ends);
        f->tasks = NULL;
        f->early_ends = NULL;
        f->n_tasks = 0;
        if (f->ctl->client)
                eq_client_set_notify(f->ctl->client, NULL, NULL);
}

int follow_options(Follow *f) {
        int fd = -1;
        int status = ctl_get_descriptor(f->ctl, FLAG_status_fd, &fd);

        f->json = ctl_wants_json(f->ctl) && !f->output;
        f->status_fd = fd < 0 && f->json ? STDOUT_FILENO : fd;
        f->kill_on_int = ctl_has(f->ctl, FLAG_kill_on_int);
        return status;
}

/* With retries it is DEAD after that. */
static bool timed_out(const EqTask *t) {
        eq_state s = eq_state_find(t->state);

        return s == EQ_STATE_TIMEOUT || (s == EQ_STATE_DEAD && eq_reason_find(t->reason) == EQ_REASON_TIMEOUT);
}

int task_exit_status(const EqTask *t) {
        eq_state s = eq_state_find(t->state);

        if (timed_out(t))
                return EXIT_TIMED_OUT;
        if (s == EQ_STATE_EXPIRED || (s == EQ_STATE_CANCELED && !t->started_usec))
                return EXIT_NOT_RUN;
        if (t->signal)
                return EXIT_SIGNAL + (int)(t->signal & 127);
        if (EQ_HAS(t, Task, exit))
                return (int)(t->exit & 255);
        if (t->worker && (s == EQ_STATE_FAILED || s == EQ_STATE_DEAD))
                return EXIT_FAILURE; /* as its worker said, without a number */
        return s == EQ_STATE_DONE ? 0 : EXIT_NOT_RUN;
}

static void say_not_run(const Follow *f, const char *id, const EqTask *t) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqBytes why = t->error.len > 0 ? t->error : t->detail.len > 0 ? t->detail : t->reason;

        text_bytes(&b, t->state);
        text_cstr(&b, why.len > 0 ? ": " : "");
        text_bytes(&b, why);
        ctl_error(f->ctl, "%s did not run to its end: %s", id, text_end(&b));
}

/* As a shell says `Killed`: the exit status alone may be a program's own, and of one that cleans up on SIGTERM it is often 0. */
static void say_cut_short(const Follow *f, const char *id, const EqTask *t) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;

        text_bytes(&b, t->state);
        text_cstr(&b, ": ");
        text_bytes(&b, t->detail);
        ctl_note(f->ctl, "%s is %s", id, text_end(&b));
}

static void write_status(const Follow *f, const EqTask *t) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;

        if (f->status_fd < 0)
                return;
        text_cstr(&b, "{");
        if (f->n_tasks > 1 || f->json) {
                text_cstr(&b, "\"id\":\"");
                ctl_id(&b, t->id, t->queue, f->ctl);
                text_cstr(&b, "\",");
        }
        text_cstr(&b, "\"state\":");
        json_string(&b, t->state);
        if (EQ_HAS(t, Task, exit))
                text_printf(&b, ",\"exit\":%llu", (unsigned long long)t->exit);
        else
                text_cstr(&b, ",\"exit\":null");
        if (t->signal)
                text_printf(&b, ",\"signal\":%llu", (unsigned long long)t->signal);
        else
                text_cstr(&b, ",\"signal\":null");
        text_cstr(&b, ",\"reason\":");
        json_string(&b, t->reason);
        text_cstr(&b, "}\n");
        if (b.failed || write(f->status_fd, b.data, b.len) != (ssize_t)b.len)
                ctl_error(f->ctl, "cannot write to descriptor %d", f->status_fd);
}

static FollowTask *find_task(Follow *f, EqIdRef id, EqBytes queue) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;

        ctl_id(&b, id, queue, f->ctl);
        const char *text = text_end(&b);
        for (size_t i = 0; i < f->n_tasks; i++)
                if (strcmp(f->tasks[i].id, text) == 0)
                        return &f->tasks[i];
        return NULL;
}

static int print_chunk(int64_t stream, EqBytes bytes);

/* The task goes on and is waited for: it may not be ended halfway for want of a place for its output. */
static void output_failed(Follow *f, int r) {
        if (r >= 0 || r == -EBADMSG || f->output_failed)
                return;
        f->output_failed = true;
        f->reader_gone = r == -EPIPE;
        if (!f->reader_gone)
                ctl_error(f->ctl, "cannot write the output: %s", strerror(-r));
}

static void task_ended(Follow *f, const EqTask *t) {
        FollowTask *task = find_task(f, t->id, t->queue);

        if (!task || task->ended || !eq_state_finished(eq_state_find(t->state)))
                return;
        task->ended = true;
        task->status = task_exit_status(t);
        if (f->output && t->result.len > 0)
                output_failed(f, print_chunk(EQ_STREAM_STDOUT, t->result));
        if (t->error.len > 0 || (task->status == EXIT_NOT_RUN && !EQ_HAS(t, Task, exit)))
                say_not_run(f, task->id, t);
        else if (timed_out(t) || eq_state_find(t->state) == EQ_STATE_CANCELED || (t->signal && t->detail.len > 0))
                say_cut_short(f, task->id, t);
        write_status(f, t);
}

/* ---- answers and notifications ---- */

static void on_wait(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        Loop *l = userdata;
        EqDecodeError error;
        EqBytes row;

        l->n_calls--;
        if (r < 0) {
                l->error = r;
                return;
        }
        for (EqArray rows = reply_rows(reply); eq_next_raw(&rows, &row) == 1;) {
                EqTask t = { 0 };
                if (eq_decode_map(&eq_schema_Task, row, &t, &error) == 0)
                        task_ended(l->f, &t);
        }
}

static int write_all(int fd, const char *data, size_t n) {
        while (n > 0) {
                ssize_t done = write(fd, data, n);
                if (done < 0 && errno == EAGAIN) {
                        struct pollfd p = { .fd = fd, .events = POLLOUT };
                        (void)poll(&p, 1, -1); /* whatever it says, write() finds out */
                } else if (done < 0 && errno != EINTR)
                        return -errno;
                else if (done > 0) {
                        data += done;
                        n -= (size_t)done;
                }
        }
        return 0;
}

static int print_chunk(int64_t stream, EqBytes bytes) {
        return write_all(stream == EQ_STREAM_STDERR ? STDERR_FILENO : STDOUT_FILENO, bytes.data, bytes.len);
}

int output_print(const void *params, size_t n_params, EqIdRef *ret_id, uint64_t *ret_attempt, size_t *ret_n) {
        EqArray it;
        EqBytes bytes;
        int64_t stream, attempt;

        if (eq_get_array(eq_bytes(params, n_params), &it) < 0 || eq_next_id(&it, ret_id) != 1 ||
            eq_next_i64(&it, &stream) != 1 || eq_next_bytes(&it, &bytes) != 1)
                return -EBADMSG;
        *ret_attempt = eq_next_i64(&it, &attempt) == 1 && attempt > 0 ? (uint64_t)attempt : 0;
        *ret_n = bytes.len;
        return print_chunk(stream, bytes);
}

static void output_end(Follow *f, const void *params, size_t n_params) {
        bool known = false;
        EqArray it;
        EqIdRef id;

        if (eq_get_array(eq_bytes(params, n_params), &it) < 0 || eq_next_id(&it, &id) != 1)
                return;
        for (size_t i = 0; i < f->n_tasks; i++)
                if (has_seq(&f->tasks[i], id.id.seq))
                        known = f->tasks[i].output_ended = true;
        if (known)
                return;
        uint64_t *ends = reallocarray(f->early_ends, f->n_early_ends + 1, sizeof(*ends));
        if (!ends)
                return; /* costs the grace at the end, no more */
        f->early_ends = ends;
        f->early_ends[f->n_early_ends++] = id.id.seq;
}

/* Attempt 0 is that of an eqd that does not tell: it counts as one. */
static void count_printed(Follow *f, uint64_t attempt, size_t n) {
        if (attempt != f->attempt)
                f->printed = 0;
        f->attempt = attempt;
        f->printed += n;
}

static void on_notify(eq_client *c, const char *method, const void *params, size_t n, void *userdata) {
        Follow *f = userdata;
        uint64_t attempt = f->attempt;
        EqIdRef id;
        size_t n_bytes = 0;

        if (strcmp(method, "output") == 0) {
                if (!f->output_failed)
                        output_failed(f, output_print(params, n, &id, &attempt, &n_bytes));
                count_printed(f, attempt, n_bytes);
                if (f->output_usec)
                        f->output_usec = monotonic_usec() + OUTPUT_GRACE_USEC;
        } else if (strcmp(method, "output_end") == 0)
                output_end(f, params, n);
        else if (strcmp(method, "lost") == 0)
                ctl_error(f->ctl, "some output was lost: this terminal reads too slowly");
}

void follow_begin(Follow *f) {
        if (f->output)
                (void)signal(SIGPIPE, SIG_IGN); /* who ends by it cannot say that the task goes on */
        if (f->ctl->client)
                eq_client_set_notify(f->ctl->client, on_notify, f);
}

/* ---- calls ---- */

static int start_wait(Loop *l, size_t first, size_t n) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL, params = EQ_BUFFER_NULL;
        Follow *f = l->f;
        EqWait rec = { 0 };
        EqArray ids = { 0 };
        msgpack_packer pk = eq_packer(&raw);

        for (size_t i = first; i < first + n; i++)
                if (!f->tasks[i].ended) {
                        eq_pack_cstr(&pk, f->tasks[i].id);
                        ids.n++;
                }
        if (ids.n == 0)
                return 0;
        ids.raw = eq_bytes(raw.data, raw.len);
        EQ_SET(&rec, Wait, ids, ids);
        if (f->any)
                EQ_SET(&rec, Wait, any, true);
        if (raw.failed || ctl_params(EQ_METHOD_WAIT, &rec, &params) < 0)
                return -ENOMEM;
        int r = eq_client_call_start(f->ctl->client, "wait", params.data, params.len, NULL, 0, on_wait, l, NULL);
        if (r == 0)
                l->n_calls++;
        return r;
}

static int start_waits(Loop *l) {
        int r = 0;

        follow_begin(l->f);
        for (size_t i = 0; r == 0 && i < l->f->n_tasks; i += EQ_BATCH_MAX) {
                size_t left = l->f->n_tasks - i;
                r = start_wait(l, i, left < EQ_BATCH_MAX ? left : EQ_BATCH_MAX);
        }
        return r;
}

static void on_logs(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        EqLogsReply logs = { 0 };
        EqDecodeError error;
        Loop *l = userdata;
        EqBytes chunk, bytes;

        if (r < 0 || eq_decode_map(&eq_schema_LogsReply, reply_result(reply), &logs, &error) < 0)
                return;
        count_printed(l->f, logs.attempt, 0); /* of another one nothing was printed */
        uint64_t skip = l->f->printed > logs.dropped ? l->f->printed - logs.dropped : 0;
        while (eq_next_raw(&logs.chunks, &chunk) == 1) {
                EqArray it;
                int64_t stream;
                if (eq_get_array(chunk, &it) < 0 || eq_next_i64(&it, &stream) != 1 || eq_next_bytes(&it, &bytes) != 1)
                        return;
                uint32_t gone = skip < bytes.len ? (uint32_t)skip : bytes.len;
                skip -= gone;
                if (!l->f->output_failed)
                        output_failed(l->f, print_chunk(stream, eq_bytes(bytes.data + gone, bytes.len - gone)));
                l->f->printed += bytes.len - gone;
        }
}

/* Takes the stream up again, for one task; of several the output since the loss stays in their logs. */
static int restart_output(Loop *l) {
        _cleanup_buffer_ EqBuffer params = EQ_BUFFER_NULL;
        Follow *f = l->f;
        EqLogs rec = { 0 };

        if (!f->output)
                return 0;
        if (f->n_tasks != 1) {
                ctl_note(f->ctl, "the rest of the output is in `eqctl logs`");
                f->output = false;
                return 0;
        }
        EQ_SET(&rec, Logs, id, (EqIdRef) { .text = eq_str(f->tasks[0].id) });
        EQ_SET(&rec, Logs, follow, true);
        if (ctl_params(EQ_METHOD_LOGS, &rec, &params) < 0)
                return -ENOMEM;
        return eq_client_call_start(f->ctl->client, "logs", params.data, params.len, NULL, 0, on_logs, l, NULL);
}

static int cancel_all(Loop *l) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL, params = EQ_BUFFER_NULL;
        Follow *f = l->f;
        EqCancel rec = { 0 };
        int r = 0;

        l->canceled = true;
        l->detach_usec = 0;
        for (size_t i = 0, n = 0; r == 0 && i < f->n_tasks; i++) {
                msgpack_packer pk = eq_packer(&raw);
                eq_pack_cstr(&pk, f->tasks[i].id);
                if (++n < EQ_BATCH_MAX && i + 1 < f->n_tasks)
                        continue;
                EQ_SET(&rec, Cancel, ids, (EqArray) { .raw = eq_bytes(raw.data, raw.len), .n = (uint32_t)n });
                EQ_SET(&rec, Cancel, running, true);
                if (raw.failed || ctl_params(EQ_METHOD_CANCEL, &rec, &params) < 0)
                        return -ENOMEM;
                r = eq_client_call_start(f->ctl->client, "cancel", params.data, params.len, NULL, 0, NULL, NULL, NULL);
                raw.len = params.len = n = 0;
        }
        ctl_note(f->ctl, "stopping %s%s", f->tasks[0].id, f->n_tasks > 1 ? " and the others" : "");
        return r;
}

/* ---- the loop ---- */

static bool all_ended(const Follow *f) {
        for (size_t i = 0; i < f->n_tasks; i++)
                if (!f->tasks[i].ended)
                        return false;
        return true;
}

static bool any_ended(const Follow *f) {
        for (size_t i = 0; i < f->n_tasks; i++)
                if (f->tasks[i].ended)
                        return true;
        return false;
}

static bool all_output_ended(const Follow *f) {
        for (size_t i = 0; i < f->n_tasks; i++)
                if (!f->tasks[i].output_ended)
                        return false;
        return true;
}

static bool is_done(Loop *l) {
        Follow *f = l->f;

        if (f->any && any_ended(f))
                return true;
        if (!all_ended(f))
                return false;
        if (!f->output || all_output_ended(f))
                return true;
        if (!f->output_usec)
                f->output_usec = monotonic_usec() + OUTPUT_GRACE_USEC;
        return l->look_usec >= f->output_usec;
}

static int result(const Follow *f) {
        int status = 0;

        for (size_t i = 0; i < f->n_tasks; i++) {
                if (!f->tasks[i].ended)
                        continue;
                status = f->tasks[i].status > status ? f->tasks[i].status : status;
                if (f->any)
                        break;
        }
        return f->output_failed && status < EXIT_NOT_RUN ? EXIT_NOT_RUN : status;
}

/* Of a wait that cannot go on. The task does, when eqd was not there for too long: 75 says so, as of --timeout. */
static int failure(const Follow *f, int r) {
        int status = ctl_lasting_fail(f->ctl, r);
        return ctl_is_lost(r) ? status : follow_wait_failure(status);
}

/* Of those that have not ended; nothing if all have. */
static void say_that_they_go_on(const Follow *f) {
        const char *first = NULL;
        size_t n = 0;

        for (size_t i = 0; i < f->n_tasks; i++)
                if (!f->tasks[i].ended && n++ == 0)
                        first = f->tasks[i].id;
        if (n == 1)
                ctl_note(f->ctl, "task %s continues; eqctl cancel %s stops it", first, first);
        else if (n > 1)
                ctl_note(f->ctl, "%zu tasks continue; eqctl cancel %s ... stops them", n, first);
}

/* -1: go on; else the exit status. */
static int handle_signal(Loop *l) {
        struct signalfd_siginfo si;
        Follow *f = l->f;

        if (read(l->signal_fd, &si, sizeof(si)) != sizeof(si))
                return -1;
        if (l->canceled)
                return EXIT_SIGNAL + SIGINT;
        if (f->kill_on_int || l->detach_usec) {
                int r = cancel_all(l);
                return r < 0 ? follow_failure(ctl_fail(f->ctl, r)) : -1;
        }
        say_that_they_go_on(f);
        l->detach_usec = monotonic_usec() + DETACH_USEC; /* from when that can be read */
        return -1;
}

static uint64_t next_deadline(const Loop *l) {
        uint64_t next = l->end_usec;

        if (l->detach_usec && l->detach_usec < next)
                next = l->detach_usec;
        if (l->f->output_usec && l->f->output_usec < next)
                next = l->f->output_usec;
        return next;
}

static void wait_for_something(Loop *l) {
        uint64_t deadline = next_deadline(l), now = monotonic_usec();
        struct pollfd p[] = {
                { .fd = l->signal_fd, .events = POLLIN },
                { .fd = eq_client_get_fd(l->f->ctl->client), .events = (short)eq_client_get_events(l->f->ctl->client) },
        };
        uint64_t left = deadline > now ? deadline - now : 0;
        struct timespec ts = { .tv_sec = (time_t)(left / 1000000), .tv_nsec = (long)(left % 1000000) * 1000 };

        (void)ppoll(p, 2, deadline == UINT64_MAX ? NULL : &ts, NULL); /* both are looked at without waiting, anyway */
}

static int over(const Loop *l) {
        if (l->detach_usec && l->look_usec >= l->detach_usec)
                return EXIT_SIGNAL + SIGINT;
        if (l->look_usec >= l->end_usec) {
                ctl_error(l->f->ctl, "not ended within the time-out");
                return EXIT_TEMPORARY;
        }
        return -1;
}

/* Waits go on by themselves; output does not. */
static void on_link(eq_client *c, eq_link event, int r, void *userdata) {
        Loop *l = userdata;
        ctl_on_link(c, event, r, l->f->ctl);
        l->is_back = l->is_back || event == EQ_LINK_BACK;
}

static int go_on(Loop *l) {
        l->is_back = false;
        int r = restart_output(l);
        return r < 0 ? failure(l->f, r) : -1;
}

/* One turn. -1: go on; else the exit status. */
static int turn(Loop *l) {
        l->look_usec = monotonic_usec();
        int r = eq_client_dispatch(l->f->ctl->client, 0);
        if (l->f->reader_gone) { /* `run ... | head`: as a command that writes into such a pipe */
                say_that_they_go_on(l->f);
                return EXIT_SIGNAL + SIGPIPE;
        }
        if (is_done(l))
                return result(l->f);
        if (r < 0 || l->error)
                return failure(l->f, r < 0 ? r : l->error);
        if (l->is_back)
                return go_on(l);
        if (l->n_calls == 0 && !all_ended(l->f)) {
                ctl_error(l->f->ctl, "eqd's answer does not name the tasks that were asked for");
                return EXIT_NOT_RUN;
        }
        int status = handle_signal(l);
        if (status < 0)
                status = over(l);
        if (status < 0 && r == 0)
                wait_for_something(l);
        return status;
}

int follow_run(Follow *f) {
        Loop l = { .f = f, .end_usec = UINT64_MAX };
        sigset_t set, old;
        int status;

        if (f->timeout_usec != EQ_TIMEOUT_NEVER)
                l.end_usec = monotonic_usec() + f->timeout_usec;
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGINT); /* neither can fail */
        if (sigprocmask(SIG_BLOCK, &set, &old) < 0)
                return follow_failure(ctl_fail(f->ctl, -errno));
        l.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (l.signal_fd < 0)
                status = follow_failure(ctl_fail(f->ctl, -errno));
        else if ((status = ctl_connect_lasting(f->ctl, "connected again")) == 0) {
                eq_client_set_link(f->ctl->client, on_link, &l);
                int r = start_waits(&l);
                status = r < 0 ? failure(f, r) : -1;
        }
        while (status < 0)
                status = turn(&l);
        if (l.signal_fd >= 0)
                (void)close(l.signal_fd); /* nothing to lose */
        (void)sigprocmask(SIG_SETMASK, &old, NULL);
        /* Calls may be outstanding that point to this frame: they are answered here, not when it is gone. */
        f->ctl->client = eq_client_close(f->ctl->client);
        return status;
}
