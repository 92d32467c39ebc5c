/* SPDX-License-Identifier: MIT */
/* The eqctl program, as people run it, against an eqd that does as it is told. The path of eqctl is in EQCTL. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>

#include "fake-eqd.h"
#include "test.h"

typedef struct Run {
        pid_t pid;
        int out, err, in; /* pipes; in is our end of its standard input, -1: /dev/null */
        char stdout_text[8192], stderr_text[8192];
        size_t n_out, n_err;
} Run;

static void child(const FakeEqd *e, char **argv, int in, int out, int err) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(err, 2);
        setenv("EQD_SOCKET", e->path, 1);
        setenv("NO_COLOR", "1", 1);
        setenv("TZ", "UTC", 1);
        execv(argv[0], argv);
        _exit(99);
}

/* Starts eqctl with these words, up to NULL. */
static void start(Run *r, const FakeEqd *e, int with_stdin, ...) {
        char *argv[32] = { getenv("EQCTL") };
        int in[2] = { -1, -1 }, out[2], err[2], argc = 1;
        va_list ap;

        ck_assert_ptr_nonnull(argv[0]);
        va_start(ap, with_stdin);
        while (argc < 31 && (argv[argc] = va_arg(ap, char *)))
                argc++;
        va_end(ap);
        *r = (Run) { .in = -1 };
        ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
        ck_assert_int_eq(pipe2(err, O_CLOEXEC), 0);
        if (with_stdin)
                ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
        else
                in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        r->pid = fork();
        ck_assert_int_ge(r->pid, 0);
        if (r->pid == 0)
                child(e, argv, in[0], out[1], err[1]);
        close(in[0]), close(out[1]), close(err[1]);
        r->in = in[1], r->out = out[0], r->err = err[0];
}
#define START(r, e, ...) start(r, e, false, __VA_ARGS__, NULL)

/* Reads one of the two; false at its end. */
static bool take(int fd, char *text, size_t *n) {
        ck_assert_uint_lt(*n, 8191);
        ssize_t got = read(fd, text + *n, 8191 - *n);
        if (got > 0)
                *n += (size_t)got;
        return got > 0;
}

static void await_stderr(Run *r, const char *text) {
        while (!strstr(r->stderr_text, text))
                ck_assert_msg(take(r->err, r->stderr_text, &r->n_err), "ended with `%s`", r->stderr_text);
}

/* Until somebody reads, it can write no more. */
static void fill_stderr(const Run *r) {
        char path[32], page[4096];
        memset(page, ' ', sizeof(page));
        ck_assert_int_eq(fcntl(r->err, F_SETPIPE_SZ, sizeof(page)), sizeof(page));
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", r->err);
        int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        ck_assert_int_eq(write(fd, page, sizeof(page)), sizeof(page));
        ck_assert_int_lt(write(fd, page, 1), 0);
        close(fd);
}

/* Signals of one kind are one until the first is taken. */
static void interrupt_and_wait_until_taken(const Run *r) {
        char path[32], text[8192];
        unsigned long long pending = 0;
        (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)r->pid);
        kill(r->pid, SIGINT);
        do {
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                ssize_t n = read(fd, text, sizeof(text) - 1);
                ck_assert_int_gt(n, 0);
                text[n] = '\0';
                close(fd);
                const char *line = strstr(text, "\nShdPnd:");
                ck_assert(line && sscanf(line, "\nShdPnd: %llx", &pending) == 1);
        } while (pending & 1ull << (SIGINT - 1));
}

/* Reads everything, reaps. The exit status; 1000 + signal for one that was killed. */
static int finish(Run *r) {
        struct pollfd p[2] = { { .fd = r->out, .events = POLLIN }, { .fd = r->err, .events = POLLIN } };
        int status;

        if (r->in >= 0)
                close(r->in);
        while (p[0].fd >= 0 || p[1].fd >= 0) {
                ck_assert_int_gt(poll(p, 2, -1), 0);
                if (p[0].revents && !take(r->out, r->stdout_text, &r->n_out))
                        p[0].fd = -1;
                if (p[1].revents && !take(r->err, r->stderr_text, &r->n_err))
                        p[1].fd = -1;
        }
        close(r->out), close(r->err);
        ck_assert_int_eq(waitpid(r->pid, &status, 0), r->pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void expect_text(const char *text, const char *part) {
        ck_assert_msg(strstr(text, part) != NULL, "`%s` lacks `%s`", text, part);
}

static EqTask task(uint64_t seq, const char *state) {
        EqTask t = { 0 };

        EQ_SET(&t, Task, id, (EqIdRef) { .id = { 5, seq } });
        EQ_SET(&t, Task, queue, eq_str("q"));
        EQ_SET(&t, Task, state, eq_str(state));
        EQ_SET(&t, Task, started_usec, UINT64_C(1795608000000000));
        return t;
}

static EqTask ended(uint64_t seq, const char *state, uint64_t exit) {
        EqTask t = task(seq, state);

        EQ_SET(&t, Task, exit, exit);
        return t;
}

static void decode(const EqMessage *m, EqMethodId method, void *ret) {
        EqDecodeError error;
        ck_assert_msg(eq_decode_params(eq_methods[method].params, m->params, ret, &error) == 0, "%s", error.text);
}

/* ---- submit ---- */

TEST(submit_prints_the_id_and_nothing_else) {
        FakeEqd e;
        EqSubmit s;
        EqMessage m;
        EqBytes arg;
        Run r;

        fake_init(&e);
        START(&r, &e, "submit", "-q", "encode", "-t", "5m", "-r", "3", "--backoff", "exp:1s:10m", "-J", "film", "-E",
              "X=1", "--env-none", "-C", "/tmp", "--stdout", "log", "ffmpeg", "-i", "a.mkv");
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "submit", &m);
        decode(&m, EQ_METHOD_SUBMIT, &s);
        ck_assert(eq_bytes_eq(s.queue, eq_str("encode")) && eq_bytes_eq(s.label, eq_str("film")));
        ck_assert(s.timeout_usec == 300000000 && s.retries == 3 && s.backoff_usec == 1000000);
        ck_assert(s.backoff_max_usec == 600000000 && eq_bytes_eq(s.cwd, eq_str("/tmp")));
        ck_assert(s.argv.n == 3 && s.env.n == 1 && !s.attach && EQ_HAS(&s, Submit, umask));
        ck_assert(eq_next_bytes(&s.env, &arg) == 1 && eq_bytes_eq(arg, eq_str("X=1")));
        ck_assert(s.stdout_path.len > 4 && s.stdout_path.data[0] == '/');
        fake_reply_id(&e, msgid, 5, 1042);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "encode/1042\n");
        ck_assert_str_eq(r.stderr_text, "");
        fake_done(&e);
}

TEST(submit_to_an_unknown_queue_is_66_and_says_what_eqd_said) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "submit", "-q", "nope", "true");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "submit", NULL), EQ_E_NO_QUEUE, "no queue nope");
        ck_assert_int_eq(finish(&r), 66);
        ck_assert_str_eq(r.stdout_text, "");
        ck_assert_str_eq(r.stderr_text, "eqctl: no queue nope\n");
        fake_done(&e);
}

TEST(a_full_queue_is_75) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "submit", "true");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "submit", NULL), EQ_E_FULL, "full");
        ck_assert_int_eq(finish(&r), 75);
        fake_done(&e);
}

TEST(submit_without_a_command_is_usage) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "submit", "-q", "encode");
        ck_assert_int_eq(finish(&r), 2);
        START(&r, &e, "run", "--timeout", "soon", "true");
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "`soon` is no duration");
        START(&r, &e, "submit", "-q", "bad name", "true");
        ck_assert_int_eq(finish(&r), 2);
        fake_done(&e);
}

TEST(a_payload_is_read_from_standard_input) {
        FakeEqd e;
        EqSubmit s;
        EqMessage m;
        Run r;

        fake_init(&e);
        start(&r, &e, true, "submit", "--payload", "-", "cat", NULL);
        ck_assert_int_eq(write(r.in, "hello", 5), 5);
        close(r.in);
        r.in = -1;
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "submit", &m);
        decode(&m, EQ_METHOD_SUBMIT, &s);
        ck_assert(eq_bytes_eq(s.payload, eq_str("hello")));
        ck_assert_uint_eq(e.n_passed, 0);
        fake_reply_id(&e, msgid, 5, 1);
        ck_assert_int_eq(finish(&r), 0);
        fake_done(&e);
}

TEST(an_array_goes_in_batches_of_a_thousand) {
        static const unsigned sizes[] = { 1000, 1000, 500 };
        EqSubmitManyReply reply = { 0 };
        EqDecodeError error;
        EqSubmit common = { 0 };
        EqSubmitMany many;
        FakeEqd e;
        EqMessage m;
        Run r;

        fake_init(&e);
        START(&r, &e, "submit", "-q", "q", "--quiet", "-J", "many", "--array", "1-2500", "-w", "echo", "{}");
        fake_accept(&e);
        for (unsigned i = 0; i < 3; i++) {
                uint32_t msgid = fake_expect(&e, "submit_many", &m);
                decode(&m, EQ_METHOD_SUBMIT_MANY, &many);
                ck_assert_uint_eq(many.tasks.n, sizes[i]);
                ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, many.common, &common, &error), 0);
                ck_assert(eq_bytes_eq(common.label, eq_str("many")));
                EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = { 5, 1 + i * 1000 } });
                EQ_SET(&reply, SubmitManyReply, n, sizes[i]);
                fake_reply_record(&e, msgid, &eq_schema_SubmitManyReply, &reply);
        }
        for (unsigned i = 0; i < 3; i++) {
                static EqTask tasks[1000];
                EqWait w;
                uint32_t msgid = fake_expect(&e, "wait", &m);
                decode(&m, EQ_METHOD_WAIT, &w);
                ck_assert_uint_eq(w.ids.n, sizes[i]);
                for (unsigned k = 0; k < sizes[i]; k++)
                        tasks[k] = ended(1 + i * 1000 + k, "DONE", 0);
                fake_reply_list(&e, msgid, &eq_schema_Task, tasks, sizes[i]);
        }
        ck_assert_int_eq(finish(&r), 0);
        fake_done(&e);
}

TEST(each_line_is_a_task_and_ids_are_printed_one_per_line) {
        EqSubmitManyReply reply = { 0 };
        EqDecodeError error;
        EqSubmitMany many;
        FakeEqd e;
        EqMessage m;
        EqBytes raw, arg;
        Run r;

        fake_init(&e);
        start(&r, &e, true, "submit", "-q", "q", "--each", "-", "gzip", NULL);
        ck_assert_int_eq(write(r.in, "a\nb c\n\nd", 8), 8);
        close(r.in);
        r.in = -1;
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "submit_many", &m);
        decode(&m, EQ_METHOD_SUBMIT_MANY, &many);
        ck_assert_uint_eq(many.tasks.n, 3);
        for (int i = 0; i < 2; i++) {
                EqSubmit s = { 0 };
                ck_assert_int_eq(eq_next_raw(&many.tasks, &raw), 1);
                ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, raw, &s, &error), 0);
                ck_assert(eq_next_bytes(&s.argv, &arg) == 1 && eq_bytes_eq(arg, eq_str("gzip")));
                ck_assert(eq_next_bytes(&s.argv, &arg) == 1 && eq_bytes_eq(arg, eq_str(i ? "b c" : "a")));
        }
        EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = { 5, 7 } });
        EQ_SET(&reply, SubmitManyReply, n, 3);
        fake_reply_record(&e, msgid, &eq_schema_SubmitManyReply, &reply);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "q/7\nq/8\nq/9\n");
        fake_done(&e);
}

TEST(dry_run_connects_to_nobody) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "-S", "/nonexistent", "submit", "--dry-run", "--env-none", "--umask", "22", "-C", "/", "echo",
              "a b");
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text,
                         "{\"queue\":\"default\",\"payload\":\"\",\"argv\":[\"echo\",\"a b\"],\"cwd\":\"/\","
                         "\"env\":[],\"umask\":18}\n");
        fake_done(&e);
}

/* ---- run ---- */

static void run_task(FakeEqd *e, const EqTask *end) {
        EqMessage m;
        EqSubmit s;

        fake_accept(e);
        uint32_t msgid = fake_expect(e, "submit", &m);
        decode(&m, EQ_METHOD_SUBMIT, &s);
        ck_assert(s.attach);
        fake_reply_id(e, msgid, 5, 42);
        msgid = fake_expect(e, "wait", NULL);
        fake_output(e, 5, 42, 1, "to stdout\n");
        fake_output(e, 5, 42, 2, "to stderr\n");
        fake_gather(e); /* eqctl gives the rest two seconds */
        fake_reply_list(e, msgid, &eq_schema_Task, end, 1);
        fake_output(e, 5, 42, 1, "the rest");
        fake_output_end(e, 5, 42);
        fake_say_gathered(e);
}

static void check_run(EqTask end, int status, const char *message) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "run", "-q", "q", "--", "cmd");
        run_task(&e, &end);
        ck_assert_int_eq(finish(&r), status);
        ck_assert_str_eq(r.stdout_text, "to stdout\nthe rest");
        expect_text(r.stderr_text, "to stderr\n");
        if (message)
                expect_text(r.stderr_text, message);
        fake_done(&e);
}

TEST(run_streams_both_outputs_and_exits_as_the_task_did) {
        EqTask t = task(42, "FAILED");

        check_run(ended(42, "DONE", 0), 0, NULL);
        check_run(ended(42, "FAILED", 3), 3, NULL);
        EQ_SET(&t, Task, signal, 9);
        check_run(t, 137, NULL);
        check_run(task(42, "TIMEOUT"), 124, NULL);
}

TEST(run_is_125_with_the_reason_when_the_task_never_ran) {
        EqTask t = task(42, "CANCELED");

        t.present &= ~EQ_BIT(Task, started_usec);
        t.started_usec = 0;
        EQ_SET(&t, Task, reason, eq_str("deps-never"));
        check_run(t, 125, "deps-never");
}

TEST(output_that_ended_before_the_id_was_known_is_not_waited_for) {
        EqTask end = ended(42, "DONE", 0);
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "run", "-q", "q", "true");
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "submit", NULL);
        /* One write: the answer and the end of the output arrive together. */
        eq_pack_response(&pk, msgid);
        eq_pack_id(&pk, (eq_task_id) { 5, 42 });
        eq_pack_notify(&pk, "output_end");
        msgpack_pack_array(&pk, 1);
        eq_pack_id(&pk, (eq_task_id) { 5, 42 });
        fake_send(&e, &b);
        fake_reply_list(&e, fake_expect(&e, "wait", NULL), &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 0);
        fake_done(&e);
}

TEST(run_passes_its_standard_input_as_a_descriptor) {
        EqTask end = ended(42, "DONE", 0);
        char text[8] = "";
        EqSubmit s;
        EqMessage m;
        FakeEqd e;
        Run r;

        fake_init(&e);
        start(&r, &e, true, "run", "-q", "q", "cat", NULL);
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "submit", &m);
        decode(&m, EQ_METHOD_SUBMIT, &s);
        ck_assert(s.stdin_fd);
        ck_assert_uint_eq(e.n_passed, 1);
        ck_assert_int_eq(write(r.in, "hi", 2), 2);
        ck_assert_int_eq(read(e.passed[0], text, sizeof(text)), 2);
        ck_assert_str_eq(text, "hi");
        fake_reply_id(&e, msgid, 5, 42);
        msgid = fake_expect(&e, "wait", NULL);
        fake_output_end(&e, 5, 42);
        fake_reply_list(&e, msgid, &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 0);
        fake_done(&e);
}

TEST(run_with_retries_asks_what_to_do_about_standard_input) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        start(&r, &e, true, "run", "-r", "3", "cat", NULL);
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "-n");
        fake_done(&e);
}

TEST(run_is_125_when_eqd_is_not_there_or_refuses) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "-S", "/nonexistent", "run", "true");
        ck_assert_int_eq(finish(&r), 125);
        expect_text(r.stderr_text, "no eqd answers at /nonexistent");
        START(&r, &e, "run", "true");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "submit", NULL), EQ_E_DRAINING, "draining");
        ck_assert_int_eq(finish(&r), 125);
        fake_done(&e);
}

TEST(wait_that_is_not_permitted_is_77_and_a_refused_task_has_not_run) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "q/1");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "wait", NULL), EQ_E_DENIED, "not yours");
        ck_assert_int_eq(finish(&r), 77);
        expect_text(r.stderr_text, "not yours");
        fake_hangup(&e);
        START(&r, &e, "run", "true");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "submit", NULL), EQ_E_DENIED, "not for you");
        ck_assert_int_eq(finish(&r), 125);
        fake_done(&e);
}

/* As of --socket "$UNSET" in a script: it must not come to another eqd, here that of EQD_SOCKET. */
TEST(an_empty_path_of_a_socket_is_no_default) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "--socket", "", "ping");
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "--socket: the path is empty");
        fake_done(&e);
}

/* ---- ^C ---- */

TEST(the_first_interrupt_gives_a_hint_and_the_second_cancels) {
        EqTask end = task(42, "CANCELED");
        EqCancel c;
        EqMessage m;
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "run", "-q", "q", "sleep", "1h");
        fake_accept(&e);
        fake_reply_id(&e, fake_expect(&e, "submit", NULL), 5, 42);
        uint32_t msgid = fake_expect(&e, "wait", NULL);
        fill_stderr(&r); /* it goes two seconds after its hint, but not before it has given it */
        interrupt_and_wait_until_taken(&r);
        kill(r.pid, SIGINT);
        await_stderr(&r, "task q/42 continues; eqctl cancel q/42 stops it");
        uint32_t cancel = fake_expect(&e, "cancel", &m);
        decode(&m, EQ_METHOD_CANCEL, &c);
        ck_assert(c.running && c.ids.n == 1);
        fake_reply_ints(&e, cancel, &(int) { 1 }, 1);
        EQ_SET(&end, Task, signal, 15);
        fake_output_end(&e, 5, 42);
        fake_reply_list(&e, msgid, &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 143);
        fake_done(&e);
}

TEST(one_interrupt_detaches_and_leaves_the_task_alone) {
        EqMessage m;
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "q/42");
        fake_accept(&e);
        fake_expect(&e, "wait", NULL);
        kill(r.pid, SIGINT);
        ck_assert_int_eq(finish(&r), 130);
        ck_assert(!fake_read(&e, &m)); /* no cancel: the end */
        fake_done(&e);
}

TEST(with_kill_on_int_the_first_interrupt_cancels) {
        EqTask end = task(42, "CANCELED");
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "--kill-on-int", "q/42");
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "wait", NULL);
        kill(r.pid, SIGINT);
        fake_reply_ints(&e, fake_expect(&e, "cancel", NULL), &(int) { 1 }, 1);
        EQ_SET(&end, Task, signal, 15);
        fake_reply_list(&e, msgid, &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 143);
        fake_done(&e);
}

/* ---- wait ---- */

TEST(wait_for_several_is_the_highest_status) {
        EqTask ends[3] = { ended(1, "DONE", 0), ended(2, "FAILED", 7), ended(3, "FAILED", 2) };
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "q/1", "q/2", "q/3");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "wait", NULL), &eq_schema_Task, ends, 3);
        ck_assert_int_eq(finish(&r), 7);
        fake_done(&e);
}

TEST(wait_for_any_is_the_status_of_the_first) {
        EqTask end = ended(2, "FAILED", 5);
        EqMessage m;
        FakeEqd e;
        EqWait w;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "--any", "q/1", "q/2");
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "wait", &m);
        decode(&m, EQ_METHOD_WAIT, &w);
        ck_assert(w.any);
        fake_reply_list(&e, msgid, &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 5);
        fake_done(&e);
}

TEST(wait_that_takes_too_long_is_75_and_an_unknown_id_66) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "-t", "10ms", "q/1");
        ck_assert_int_eq(finish(&r), 75);
        START(&r, &e, "wait", "q/1");
        fake_accept(&e); /* the first one's connection */
        fake_hangup(&e);
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "wait", NULL), EQ_E_NO_TASK, "no task q/1");
        ck_assert_int_eq(finish(&r), 66);
        START(&r, &e, "wait", "42");
        ck_assert_int_eq(finish(&r), 2);
        fake_done(&e);
}

TEST(a_lost_connection_is_taken_up_again) {
        EqTask end = ended(1, "DONE", 0);
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "q/1");
        fake_accept(&e);
        fake_expect(&e, "wait", NULL);
        fake_hangup(&e);
        fake_accept(&e);
        fake_take_hello(&e);
        fake_reply_list(&e, fake_expect(&e, "wait", NULL), &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 0);
        expect_text(r.stderr_text, "connected again");
        fake_done(&e);
}

/* Output is printed, of the first attempts given; then the connection is lost, and logs answers with `text` of `attempt`. */
static void goes_on(const char *const *before, unsigned n_before, unsigned attempt, uint64_t dropped, const char *text,
                    const char *all) {
        EqTask end = ended(42, "DONE", 0);
        EqBuffer raw = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&raw);
        EqLogsReply logs = { 0 };
        EqMessage m;
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "run", "-q", "q", "count");
        fake_accept(&e);
        fake_reply_id(&e, fake_expect(&e, "submit", NULL), 5, 42);
        fake_expect(&e, "wait", NULL);
        for (unsigned i = 0; i < n_before; i++)
                fake_output_of(&e, 5, 42, i + 1, 1, before[i]);
        fake_hangup(&e);
        fake_accept(&e);
        fake_take_hello(&e);
        uint32_t wait = fake_expect(&e, "wait", NULL), msgid = fake_expect(&e, "logs", &m);
        msgpack_pack_array(&pk, 2);
        msgpack_pack_int(&pk, 1);
        eq_pack_bin(&pk, eq_str(text));
        EQ_SET(&logs, LogsReply, chunks, (EqArray) { .raw = eq_bytes(raw.data, raw.len), .n = 1 });
        EQ_SET(&logs, LogsReply, more, true);
        EQ_SET(&logs, LogsReply, attempt, attempt);
        EQ_SET(&logs, LogsReply, dropped, dropped);
        fake_reply_record(&e, msgid, &eq_schema_LogsReply, &logs);
        fake_output_of(&e, 5, 42, attempt, 1, "four");
        fake_output_end(&e, 5, 42);
        fake_reply_list(&e, wait, &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, all);
        eq_buffer_done(&raw);
        fake_done(&e);
}

TEST(output_goes_on_after_a_reconnect_without_repeating_itself) {
        static const char *const one[] = { "one two " };
        goes_on(one, 1, 1, 0, "one two three ", "one two three four");
        goes_on(one, 1, 1, 4, "two three ", "one two three four");
}

TEST(output_goes_on_after_a_reconnect_in_the_attempt_that_runs_then) {
        static const char *const two[] = { "a long first attempt ", "one two " };
        goes_on(two, 2, 2, 0, "one two three ", "a long first attempt one two three four");
        goes_on(two, 2, 3, 0, "all of the third ", "a long first attempt one two all of the third four");
}

TEST(status_fd_tells_what_an_exit_status_cannot) {
        EqTask end = task(1, "FAILED");
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "wait", "--status-fd", "1", "q/1");
        fake_accept(&e);
        EQ_SET(&end, Task, signal, 9);
        fake_reply_list(&e, fake_expect(&e, "wait", NULL), &eq_schema_Task, &end, 1);
        ck_assert_int_eq(finish(&r), 137);
        ck_assert_str_eq(r.stdout_text, "{\"state\":\"FAILED\",\"exit\":null,\"signal\":9,\"reason\":\"\"}\n");
        fake_done(&e);
}

/* ---- cancel ---- */

TEST(cancel_says_what_became_of_each) {
        EqTask known = task(3, "DONE");
        EqCancel c;
        EqMessage m;
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "cancel", "q/1", "q/2", "q/3", "q/4");
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "cancel", &m);
        decode(&m, EQ_METHOD_CANCEL, &c);
        ck_assert(c.running);
        fake_reply_ints(&e, msgid, (int[]) { 0, 1, -1, -1 }, 4);
        fake_reply_list(&e, fake_expect(&e, "show", NULL), &eq_schema_Task, &known, 1);
        fake_reply_error(&e, fake_expect(&e, "show", NULL), EQ_E_NO_TASK, "no task q/4: its history is gone");
        ck_assert_int_eq(finish(&r), 66);
        ck_assert_str_eq(r.stdout_text, "");
        expect_text(r.stderr_text, "q/1: canceled");
        expect_text(r.stderr_text, "q/2: being stopped");
        expect_text(r.stderr_text, "q/3: too late");
        expect_text(r.stderr_text, "eqctl: no task q/4: its history is gone\n");
        fake_done(&e);
}

TEST(cancel_by_filter_wants_a_yes_for_more_than_one_and_spares_what_runs) {
        EqTask tasks[3] = { task(1, "QUEUED"), task(2, "RUNNING"), task(3, "WAITING") };
        EqCancel c;
        EqMessage m;
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "cancel", "-q", "q");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, 3);
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "would cancel 2 tasks; add --yes");
        fake_hangup(&e);
        START(&r, &e, "cancel", "-q", "q", "--yes");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, 3);
        uint32_t msgid = fake_expect(&e, "cancel", &m);
        decode(&m, EQ_METHOD_CANCEL, &c);
        ck_assert(!c.running && c.ids.n == 2);
        fake_reply_ints(&e, msgid, (int[]) { 0, 0 }, 2);
        ck_assert_int_eq(finish(&r), 0);
        START(&r, &e, "cancel");
        ck_assert_int_eq(finish(&r), 2);
        fake_done(&e);
}

TEST(many_tasks_that_a_filter_chose_are_counted) {
        enum { N = 25 };
        int results[N] = { 0 };
        EqTask tasks[N];
        FakeEqd e;
        Run r;

        for (int i = 0; i < N; i++)
                tasks[i] = task((unsigned)i + 1, "QUEUED");
        results[3] = 1;
        fake_init(&e);
        START(&r, &e, "cancel", "-q", "q", "--yes");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, N);
        fake_reply_ints(&e, fake_expect(&e, "cancel", NULL), results, N);
        ck_assert_int_eq(finish(&r), 0 + 1); /* one had begun to run */
        ck_assert_str_eq(r.stderr_text, "eqctl: 24 tasks canceled\n"
                                        "eqctl: 1 task: is running by now; add --running to stop it\n");
        fake_hangup(&e);
        START(&r, &e, "cancel", "-q", "q", "--yes", "-v");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, N);
        fake_reply_ints(&e, fake_expect(&e, "cancel", NULL), results, N);
        ck_assert_int_eq(finish(&r), 1);
        expect_text(r.stderr_text, "q/25: canceled\n");
        fake_done(&e);
}

TEST(hold_and_release_take_filters_and_release_what_is_held) {
        EqTask tasks[4] = { task(1, "WAITING"), task(2, "RUNNING"), task(3, "WAITING"), task(4, "QUEUED") };
        EqMessage m;
        EqTasks t;
        FakeEqd e;
        Run r;

        EQ_SET(&tasks[0], Task, reason, eq_str("held"));
        EQ_SET(&tasks[2], Task, reason, eq_str("after"));
        fake_init(&e);
        START(&r, &e, "hold", "-q", "q");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, 4);
        uint32_t msgid = fake_expect(&e, "hold", &m);
        decode(&m, EQ_METHOD_HOLD, &t);
        ck_assert_uint_eq(t.ids.n, 3);
        fake_reply_ints(&e, msgid, (int[]) { 0, 0, 0 }, 3);
        ck_assert_int_eq(finish(&r), 0);
        expect_text(r.stderr_text, "q/4: held");
        fake_hangup(&e);
        START(&r, &e, "release", "-l", "deploy");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, 4);
        msgid = fake_expect(&e, "release", &m);
        decode(&m, EQ_METHOD_RELEASE, &t);
        ck_assert_uint_eq(t.ids.n, 1);
        fake_reply_ints(&e, msgid, (int[]) { 0 }, 1);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stderr_text, "eqctl: q/1: released\n");
        START(&r, &e, "release");
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "which tasks? Give ids");
        START(&r, &e, "hold", "-q", "q", "q/1");
        ck_assert_int_eq(finish(&r), 2);
        fake_done(&e);
}

/* ---- lists ---- */

static void serve_list(FakeEqd *e, EqTask *t) {
        EqMessage m;
        EqList list;

        fake_accept(e);
        uint32_t msgid = fake_expect(e, "list", &m);
        decode(&m, EQ_METHOD_LIST, &list);
        ck_assert_uint_eq(list.finished, 10);
        fake_reply_list(e, msgid, &eq_schema_Task, t, 1);
}

TEST(ls_shows_a_table_json_tsv_or_ids) {
        EqTask t = ended(42, "DEAD", 1);
        FakeEqd e;
        Run r;

        EQ_SET(&t, Task, label, eq_str("a\x1b[31m"));
        EQ_SET(&t, Task, uid, 0);
        EQ_SET(&t, Task, attempt, 3);
        EQ_SET(&t, Task, retries, 2);
        EQ_SET(&t, Task, finished_usec, UINT64_C(1795608012000000));
        fake_init(&e);
        START(&r, &e, "ls");
        serve_list(&e, &t);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "ID    STATE  PRI  AGE  RUN  TRY  USER  REASON/EXIT  LABEL / COMMAND\n"
                                        "q/42  DEAD     0  -    12s  3/3  root  exit 1       a\\x1b[31m\n");
        ck_assert_str_eq(r.stderr_text, "1 task (1 dead)\n");
        fake_hangup(&e);

        START(&r, &e, "--json");
        serve_list(&e, &t);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text,
                         "{\"id\":\"q/42\",\"queue\":\"q\",\"state\":\"DEAD\",\"label\":\"a\\u001b[31m\",\"uid\":0,"
                         "\"attempt\":3,\"retries\":2,\"started_usec\":1795608000000000,"
                         "\"finished_usec\":1795608012000000,\"exit\":1}\n");
        fake_hangup(&e);

        START(&r, &e, "ls", "-o", "tsv", "--columns", "id,label,exit,signal");
        serve_list(&e, &t);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "id\tlabel\texit\tsignal\nq/42\ta\\x1b[31m\t1\t\n");
        fake_hangup(&e);

        START(&r, &e, "ls", "-o", "id");
        serve_list(&e, &t);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "q/42\n");
        fake_done(&e);
}

TEST(ls_pages_through_long_lists) {
        static EqTask tasks[EQ_LIST_MAX];
        EqMessage m;
        EqList list;
        FakeEqd e;
        Run r;

        for (unsigned i = 0; i < EQ_LIST_MAX; i++)
                tasks[i] = task(i + 1, "QUEUED");
        fake_init(&e);
        START(&r, &e, "ls", "-o", "id", "-n", "3", "-q", "q", "-s", "queued");
        fake_accept(&e);
        for (int pass = 0; pass < 2; pass++) {
                fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, tasks, EQ_LIST_MAX);
                EqTask last = task(EQ_LIST_MAX + 1, "QUEUED");
                uint32_t msgid = fake_expect(&e, "list", &m);
                decode(&m, EQ_METHOD_LIST, &list);
                ck_assert_uint_eq(list.from.id.seq, EQ_LIST_MAX);
                fake_reply_list(&e, msgid, &eq_schema_Task, &last, 1);
        }
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "q/999\nq/1000\nq/1001\n");
        fake_done(&e);
}

TEST(ls_goes_on_after_a_page_that_was_short_because_its_rows_are_long) {
        static char label[EQ_MESSAGE_MAX / 2];
        EqTask first = task(1, "QUEUED"), last = task(2, "QUEUED");
        EqMessage m;
        EqList list;
        FakeEqd e;
        Run r;

        memset(label, 'x', sizeof(label));
        EQ_SET(&first, Task, label, eq_bytes(label, sizeof(label)));
        fake_init(&e);
        START(&r, &e, "ls", "-o", "id");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "list", NULL), &eq_schema_Task, &first, 1);
        uint32_t msgid = fake_expect(&e, "list", &m);
        decode(&m, EQ_METHOD_LIST, &list);
        ck_assert_uint_eq(list.from.id.seq, 1);
        fake_reply_list(&e, msgid, &eq_schema_Task, &last, 1);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "q/1\nq/2\n");
        fake_done(&e);
}

TEST(queue_ls_pages_by_the_name_of_the_last_row) {
        static char names[EQ_LIST_MAX][8];
        static EqQueue queues[EQ_LIST_MAX];
        EqQueue last = { 0 };
        EqQueueList list;
        EqMessage m;
        FakeEqd e;
        Run r;

        for (unsigned i = 0; i < EQ_LIST_MAX; i++) {
                (void)snprintf(names[i], sizeof(names[i]), "q%04u", i);
                EQ_SET(&queues[i], Queue, name, eq_str(names[i]));
        }
        EQ_SET(&last, Queue, name, eq_str("zebra"));
        fake_init(&e);
        START(&r, &e, "queue", "ls", "-o", "id");
        fake_accept(&e);
        uint32_t msgid = fake_expect(&e, "queue_list", &m);
        decode(&m, EQ_METHOD_QUEUE_LIST, &list);
        ck_assert(!EQ_HAS(&list, QueueList, from));
        fake_reply_list(&e, msgid, &eq_schema_Queue, queues, EQ_LIST_MAX);
        msgid = fake_expect(&e, "queue_list", &m);
        decode(&m, EQ_METHOD_QUEUE_LIST, &list);
        ck_assert(eq_bytes_eq(list.from, eq_str("q0999")));
        fake_reply_list(&e, msgid, &eq_schema_Queue, &last, 1);
        ck_assert_int_eq(finish(&r), 0);
        expect_text(r.stdout_text, "q0000\n");
        expect_text(r.stdout_text, "q0999\nzebra\n");
        fake_done(&e);
}

TEST(queue_ls_ends_when_pages_do_not_lead_on) {
        static char detail[EQ_MESSAGE_MAX / 2];
        EqQueue q = { 0 };
        FakeEqd e;
        Run r;

        memset(detail, 'x', sizeof(detail));
        EQ_SET(&q, Queue, name, eq_str("q"));
        EQ_SET(&q, Queue, detail, eq_bytes(detail, sizeof(detail)));
        fake_init(&e);
        START(&r, &e, "queue", "ls", "-o", "id");
        fake_accept(&e);
        for (int i = 0; i < 2; i++)
                fake_reply_list(&e, fake_expect(&e, "queue_list", NULL), &eq_schema_Queue, &q, 1);
        ck_assert_int_eq(finish(&r), 69);
        expect_text(r.stderr_text, "does not speak eqd's protocol");
        fake_done(&e);
}

TEST(why_of_a_queue_is_a_sentence) {
        EqQueue q = { 0 };
        FakeEqd e;
        Run r;

        fake_init(&e);
        EQ_SET(&q, Queue, name, eq_str("deploy"));
        EQ_SET(&q, Queue, state, eq_str("paused"));
        EQ_SET(&q, Queue, running, 1);
        EQ_SET(&q, Queue, waiting, 3);
        EQ_SET(&q, Queue, reason, eq_str("at"));
        EQ_SET(&q, Queue, detail, eq_str("starts in 11h"));
        START(&r, &e, "why", "deploy");
        fake_accept(&e);
        fake_reply_record(&e, fake_expect(&e, "queue_show", NULL), &eq_schema_Queue, &q);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "queue deploy is paused, 1 running, 0 queued, 3 waiting: at: starts in 11h\n");
        START(&r, &e, "why", "deploy", "deploy/1");
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "give ids or queues, not both");
        START(&r, &e, "ls", "-s", "pending");
        ck_assert_int_eq(finish(&r), 2);
        expect_text(r.stderr_text, "no state `pending`; there are ");
        expect_text(r.stderr_text, "QUEUED");
        fake_done(&e);
}

TEST(why_is_a_sentence) {
        EqWhy w = { 0 };
        FakeEqd e;
        Run r;

        fake_init(&e);
        EQ_SET(&w, Why, id, (EqIdRef) { .id = { 5, 42 } });
        EQ_SET(&w, Why, queue, eq_str("encode"));
        EQ_SET(&w, Why, state, eq_str("QUEUED"));
        EQ_SET(&w, Why, reason, eq_str("serial"));
        EQ_SET(&w, Why, detail, eq_str("encode/41 is running (since 1m03s)"));
        START(&r, &e, "why", "encode/42");
        fake_accept(&e);
        fake_reply_list(&e, fake_expect(&e, "why", NULL), &eq_schema_Why, &w, 1);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "encode/42 is QUEUED: serial: encode/41 is running (since 1m03s)\n");
        fake_done(&e);
}

/* ---- logs ---- */

static void serve_logs(FakeEqd *e, bool more) {
        EqBuffer raw = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&raw);
        EqLogsReply logs = { 0 };

        msgpack_pack_array(&pk, 2);
        msgpack_pack_int(&pk, 1);
        eq_pack_bin(&pk, eq_str("one\ntwo\nth"));
        msgpack_pack_array(&pk, 2);
        msgpack_pack_int(&pk, 2);
        eq_pack_bin(&pk, eq_str("oops\n"));
        msgpack_pack_array(&pk, 2);
        msgpack_pack_int(&pk, 1);
        eq_pack_bin(&pk, eq_str("ree\n"));
        EQ_SET(&logs, LogsReply, chunks, (EqArray) { .raw = eq_bytes(raw.data, raw.len), .n = 3 });
        EQ_SET(&logs, LogsReply, more, more);
        fake_accept(e);
        fake_reply_record(e, fake_expect(e, "logs", NULL), &eq_schema_LogsReply, &logs);
        eq_buffer_done(&raw);
}

TEST(logs_print_each_stream_where_it_belongs) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "logs", "q/1");
        serve_logs(&e, false);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "one\ntwo\nthree\n");
        ck_assert_str_eq(r.stderr_text, "oops\n");
        fake_hangup(&e);
        START(&r, &e, "logs", "-n", "2", "--stdout", "q/1");
        serve_logs(&e, false);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "two\nthree\n");
        ck_assert_str_eq(r.stderr_text, "");
        fake_done(&e);
}

TEST(logs_follow_until_the_output_ends) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "logs", "-f", "--json", "q/1");
        serve_logs(&e, true);
        fake_output(&e, 5, 1, 1, "more");
        fake_output_end(&e, 5, 1);
        ck_assert_int_eq(finish(&r), 0);
        expect_text(r.stdout_text, "{\"stream\":\"stderr\",\"text\":\"oops\\n\"}\n");
        expect_text(r.stdout_text, "{\"stream\":\"stdout\",\"text\":\"more\"}\n");
        fake_done(&e);
}

static void ask_for_attempt(FakeEqd *e, Run *r, uint64_t dropped, bool gone) {
        EqLogsReply logs = { 0 };
        EqDecodeError error;
        EqLogs asked = { 0 };
        EqMessage m;

        START(r, e, "logs", "--attempt", "2", "q/1");
        fake_accept(e);
        uint32_t msgid = fake_expect(e, "logs", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_Logs, m.params, &asked, &error), 0);
        ck_assert(EQ_HAS(&asked, Logs, attempt));
        ck_assert_uint_eq(asked.attempt, 2);
        EQ_SET(&logs, LogsReply, attempt, 2);
        EQ_SET(&logs, LogsReply, dropped, dropped);
        EQ_SET(&logs, LogsReply, gone, gone);
        fake_reply_record(e, msgid, &eq_schema_LogsReply, &logs);
        ck_assert_int_eq(finish(r), 0);
        ck_assert_str_eq(r->stdout_text, "");
        fake_hangup(e);
}

TEST(logs_of_an_attempt_say_what_is_gone_of_it) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        ask_for_attempt(&e, &r, 7, false);
        expect_text(r.stderr_text, "7 bytes before this are gone");
        ask_for_attempt(&e, &r, 0, true);
        expect_text(r.stderr_text, "what attempt 2 may have written is gone");
        ask_for_attempt(&e, &r, 0, false);
        ck_assert_str_eq(r.stderr_text, "");
        fake_done(&e);
}

TEST(logs_of_an_unknown_task_fail_at_once) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "logs", "-f", "q/1");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "logs", NULL), EQ_E_NO_TASK, "no task q/1");
        ck_assert_int_eq(finish(&r), 66);
        fake_done(&e);
}

/* ---- the daemon ---- */

TEST(without_eqd_it_is_69_and_says_how_to_start_it) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "-S", "/nonexistent", "ls");
        ck_assert_int_eq(finish(&r), 69);
        ck_assert_str_eq(r.stdout_text, "");
        expect_text(r.stderr_text, "/nonexistent");
        expect_text(r.stderr_text, "systemctl start eqd");
        fake_done(&e);
}

TEST(events_end_after_the_number_asked_for) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqEvent event = { 0 };
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "events", "--json", "-n", "2", "-u", "0");
        fake_accept(&e);
        fake_reply_nil(&e, fake_expect(&e, "subscribe", NULL));
        EQ_SET(&event, Event, event, eq_str("task.started"));
        EQ_SET(&event, Event, queue, eq_str("q"));
        EQ_SET(&event, Event, id, (EqIdRef) { .id = { 5, 1 } });
        for (unsigned uid = 0; uid < 2; uid++)
                for (int i = 0; i < 2; i++) {
                        EQ_SET(&event, Event, uid, uid == 0 ? 12345 : 0);
                        eq_pack_notify(&pk, "event");
                        msgpack_pack_array(&pk, 1);
                        eq_pack_record(&pk, &eq_schema_Event, &event);
                }
        fake_send(&e, &b);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "{\"event\":\"task.started\",\"queue\":\"q\",\"id\":\"q/1\",\"uid\":0}\n"
                                        "{\"event\":\"task.started\",\"queue\":\"q\",\"id\":\"q/1\",\"uid\":0}\n");
        fake_done(&e);
}

TEST(queue_show_is_key_value_lines) {
        EqBuffer raw = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&raw);
        EqQueue q = { 0 };
        FakeEqd e;
        Run r;

        eq_pack_cstr(&pk, "max_active=4");
        EQ_SET(&q, Queue, name, eq_str("q"));
        EQ_SET(&q, Queue, state, eq_str("open"));
        EQ_SET(&q, Queue, set, (EqArray) { .raw = eq_bytes(raw.data, raw.len), .n = 1 });
        fake_init(&e);
        START(&r, &e, "queue", "show", "q");
        fake_accept(&e);
        fake_reply_record(&e, fake_expect(&e, "queue_show", NULL), &eq_schema_Queue, &q);
        ck_assert_int_eq(finish(&r), 0);
        ck_assert_str_eq(r.stdout_text, "name=q\nstate=open\nmax_active=4\n");
        eq_buffer_done(&raw);
        fake_done(&e);
}

TEST(what_eqd_says_cannot_move_the_cursor) {
        FakeEqd e;
        Run r;

        fake_init(&e);
        START(&r, &e, "ping");
        fake_accept(&e);
        fake_reply_error(&e, fake_expect(&e, "ping", NULL), EQ_E_INTERNAL, "bad\x1b[2J");
        ck_assert_int_eq(finish(&r), 1);
        ck_assert_str_eq(r.stderr_text, "eqctl: bad\\x1b[2J\n");
        fake_done(&e);
}

RUN_TESTS("eqctl", 30, test_submit_prints_the_id_and_nothing_else,
          test_submit_to_an_unknown_queue_is_66_and_says_what_eqd_said, test_a_full_queue_is_75,
          test_submit_without_a_command_is_usage, test_a_payload_is_read_from_standard_input,
          test_an_array_goes_in_batches_of_a_thousand, test_each_line_is_a_task_and_ids_are_printed_one_per_line,
          test_dry_run_connects_to_nobody, test_run_streams_both_outputs_and_exits_as_the_task_did,
          test_run_is_125_with_the_reason_when_the_task_never_ran,
          test_output_that_ended_before_the_id_was_known_is_not_waited_for,
          test_run_passes_its_standard_input_as_a_descriptor,
          test_run_with_retries_asks_what_to_do_about_standard_input,
          test_wait_that_is_not_permitted_is_77_and_a_refused_task_has_not_run,
          test_an_empty_path_of_a_socket_is_no_default, test_run_is_125_when_eqd_is_not_there_or_refuses,
          test_the_first_interrupt_gives_a_hint_and_the_second_cancels,
          test_one_interrupt_detaches_and_leaves_the_task_alone, test_with_kill_on_int_the_first_interrupt_cancels,
          test_wait_for_several_is_the_highest_status, test_wait_for_any_is_the_status_of_the_first,
          test_wait_that_takes_too_long_is_75_and_an_unknown_id_66, test_a_lost_connection_is_taken_up_again,
          test_output_goes_on_after_a_reconnect_without_repeating_itself,
          test_status_fd_tells_what_an_exit_status_cannot, test_cancel_says_what_became_of_each,
          test_cancel_by_filter_wants_a_yes_for_more_than_one_and_spares_what_runs,
          test_ls_shows_a_table_json_tsv_or_ids, test_ls_pages_through_long_lists,
          test_ls_goes_on_after_a_page_that_was_short_because_its_rows_are_long,
          test_queue_ls_pages_by_the_name_of_the_last_row, test_queue_ls_ends_when_pages_do_not_lead_on,
          test_why_is_a_sentence, test_why_of_a_queue_is_a_sentence, test_many_tasks_that_a_filter_chose_are_counted,
          test_hold_and_release_take_filters_and_release_what_is_held, test_logs_print_each_stream_where_it_belongs,
          test_logs_follow_until_the_output_ends, test_logs_of_an_attempt_say_what_is_gone_of_it,
          test_output_goes_on_after_a_reconnect_in_the_attempt_that_runs_then,
          test_logs_of_an_unknown_task_fail_at_once, test_without_eqd_it_is_69_and_says_how_to_start_it,
          test_events_end_after_the_number_asked_for, test_queue_show_is_key_value_lines,
          test_what_eqd_says_cannot_move_the_cursor)
