/* SPDX-License-Identifier: MIT */
/* The executor between an engine and a spawner that are both played by the test. */

#include "executor/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/procfs.h"
#include "engine/pool.h"
#include "fake-spawner.h"

typedef struct Rig {
        FakeSpawner fake;
        Inbox *inbox;
        uv_loop_t loop;
        CommandExecutor *executor;
        Engine engine; /* its list of pools is all that is looked into */
        Pool pool;
        Slot slot;
        WatchSlot watch;
        WatchPart part;
        Task task;
        TaskSpec *spec;
        Identity *identity;
        OutputLog log;
        uint64_t timeout_usec, grace_usec;
        unsigned n_blocked, n_unblocked, n_output, n_running, n_unprepared;
        eq_reason blocked_for;
        pid_t pid;
        bool clog;
        unsigned n_ended;
        TaskResult result;
        CommandResult details;
} Rig;

static Rig rig; /* what the functions of the engine, which have no userdata, know of */

/* ---- the engine ---- */

WatchPart *watch_part_add(Watch *w, const char *name, eq_reason reason) {
        ck_assert_str_eq(name, "eqd-spawner");
        return &rig.part;
}

uint64_t engine_now(const Engine *e) {
        return 1000000;
}

void engine_task_ended(Engine *e, Task *t, const TaskResult *result) {
        ck_assert_ptr_eq(t, &rig.task);
        rig.n_ended++;
        rig.result = *result;
        if (result->details)
                rig.details = *(CommandResult *)result->details;
        rig.task.slot = NULL;
}

void pool_set_create_error(Pool *p, int error) {
        p->create_error = error;
}

void pool_block(Pool *p, eq_reason reason, uint64_t until_usec) {
        rig.n_blocked++;
        rig.blocked_for = reason;
}

void pool_unblock(Pool *p) {
        rig.n_unblocked++;
}

void pool_run(Pool *p) {
}

/* ---- the host ---- */

static int on_prepare(void *host, Task *t, CommandSetup *ret) {
        *ret = (CommandSetup) { .spec = rig.spec,
                                .queue = "q",
                                .run_as = rig.identity,
                                .log = &rig.log,
                                .timeout_usec = rig.timeout_usec,
                                .grace_usec = rig.grace_usec };
        return 0;
}

static void on_running(void *host, Task *t, pid_t pid, uint64_t start_ticks) {
        rig.n_running++;
        rig.pid = pid;
        ck_assert_uint_eq(start_ticks, procfs_start_ticks(pid));
}

static bool on_output(void *host, Task *t, uint8_t stream, const char *data, size_t n) {
        rig.n_output++;
        return rig.clog;
}

static void on_spawner_ready(void *host, const SpawnReady *m) {
}

static void on_spawner_lost(void *host) {
}

static void on_unprepare(void *host, Task *t) {
        rig.n_unprepared++;
}

static const CommandHooks hooks = { .prepare = on_prepare,
                                    .unprepare = on_unprepare,
                                    .running = on_running,
                                    .output = on_output,
                                    .spawner_ready = on_spawner_ready,
                                    .spawner_lost = on_spawner_lost };

/* ---- the rig ---- */

static void add_strings(msgpack_packer *pk, const char *key, const char *const *strings) {
        size_t n = 0;
        while (strings[n])
                n++;
        eq_pack_cstr(pk, key);
        msgpack_pack_array(pk, n);
        for (size_t i = 0; i < n; i++)
                eq_pack_cstr(pk, strings[i]);
}

/* A task with these options: argv, env, cwd. */
static void set_task(const char *const *argv, const char *const *env, const char *cwd, EqBytes payload) {
        EqBuffer b = { 0 };
        msgpack_packer pk = eq_packer(&b);
        msgpack_pack_map(&pk, 5);
        add_strings(&pk, "argv", argv);
        add_strings(&pk, "env", env);
        eq_pack_cstr(&pk, "cwd");
        eq_pack_cstr(&pk, cwd);
        eq_pack_cstr(&pk, "umask");
        msgpack_pack_int(&pk, 077);
        eq_pack_cstr(&pk, "nice");
        msgpack_pack_int(&pk, 5);
        ck_assert(!b.failed);
        if (rig.spec)
                task_spec_deinit(rig.spec);
        free(rig.spec);
        rig.spec = malloc(sizeof(TaskSpec) + payload.len + b.len);
        ck_assert_ptr_nonnull(rig.spec);
        task_spec_init(rig.spec, rig.identity, NULL, payload, eq_bytes(b.data, b.len), 0);
        rig.spec->stdin_fd = -1;
        eq_buffer_done(&b);
}

static void turn(void) {
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
}

static void rig_open(void) {
        static const gid_t groups[] = { 7, 8 };
        static const char *const argv[] = { "cmd", NULL }, *const env[] = { NULL };

        rig = (Rig) { .inbox = inbox_new(), .timeout_usec = USEC_NEVER, .grace_usec = USEC_NEVER };
        ck_assert_int_eq(identity_new(1000, 1001, groups, 2, &rig.identity), 0);
        output_log_init(&rig.log);
        ck_assert_int_eq(uv_loop_init(&rig.loop), 0);
        SpawnerConfig config = { .program = fake_open(&rig.fake) };
        ck_assert_int_eq(command_executor_new(&rig.loop, &rig.engine, &config, &hooks, NULL, &rig.executor), 0);
        fake_accept(&rig.fake);
        rig.slot.pool = &rig.pool;
        rig.slot.watch = &rig.watch;
        rig.pool.executor = command_executor(rig.executor);
        list_init(&rig.engine.pools);
        list_append(&rig.engine.pools, &rig.pool.link);
        rig.task = (Task) { .seq = 17, .attempt = 2 };
        set_task(argv, env, "/work", eq_str(""));
}

static void rig_close(void) {
        rig.fake.line = close_fd(rig.fake.line);
        rig.executor = command_executor_free(rig.executor);
        turn();
        ck_assert_int_eq(uv_loop_close(&rig.loop), 0);
        uv_library_shutdown();
        fake_close(&rig.fake);
        task_spec_deinit(rig.spec);
        free(rig.spec);
        rig.identity = identity_unref(rig.identity);
        output_log_deinit(&rig.log);
        (void)munmap(rig.inbox, sizeof(*rig.inbox));
}

static int start(void) {
        Executor *x = command_executor(rig.executor);
        rig.task.slot = &rig.slot;
        return x->ops->start(x, &rig.slot, &rig.task);
}

static void rig_ready(void) {
        fake_ready(&rig.fake, true);
        turn();
}

/* Ready, and the task is started: the request. */
static Request start_one(void) {
        rig_ready();
        ck_assert_int_eq(start(), 0);
        Request q = fake_take(&rig.fake, rig.inbox, SPAWN_START);
        ck_assert_int_eq(request_open(&q), 0);
        return q;
}

static void end_with(SpawnEnded ended) {
        fake_ended(&rig.fake, 0, rig.inbox->start.header.run, ended);
        turn();
        ck_assert_uint_eq(rig.n_ended, 1);
}

static int expect_signal(void) {
        (void)fake_take(&rig.fake, rig.inbox, SPAWN_SIGNAL);
        return rig.inbox->signal.signal;
}

static void append(void *userdata, uint8_t stream, const char *data, size_t n) {
        char *text = userdata;
        size_t at = strlen(text);
        text[at++] = stream == EQ_STREAM_STDOUT ? 'o' : 'e';
        memcpy(text + at, data, n);
        text[at + n] = '\0';
}

static const char *logged(void) {
        static char text[256];
        *text = '\0';
        output_log_foreach(&rig.log, rig.log.attempt, ~0u, append, text);
        return text;
}

static const char *nth(const Request *q, unsigned n) {
        const char *s = q->strings;
        while (n-- > 0)
                s += strlen(s) + 1;
        return s;
}

/* ---- tests ---- */

TEST(nothing_starts_before_the_spawner_is_ready_and_then_the_pool_goes_on) {
        rig_open();
        ck_assert_int_eq(start(), -EAGAIN);
        ck_assert_uint_eq(rig.n_blocked, 1);
        ck_assert_int_eq(rig.blocked_for, EQ_REASON_SPAWN_FAILED);
        ck_assert_ptr_null(command_executor_spawner(rig.executor));
        rig_ready();
        ck_assert_uint_eq(rig.n_unblocked, 1);
        ck_assert_int_eq(command_executor_spawner(rig.executor)->pid, 4711);
        rig_close();
}

TEST(a_request_says_what_the_task_says) {
        static const char *const argv[] = { "cmd", "arg", NULL };
        static const char *const env[] = { "A=1", "EQD_TASK=forged/1", "EQD_ATTEMPT=9", NULL };
        static const char *const want[] = { "cmd",
                                            "arg",
                                            "EQD_TASK=q/17",
                                            "EQD_QUEUE=q",
                                            "EQD_ATTEMPT=2",
                                            "A=1",
                                            "PATH=/usr/local/bin:/usr/bin:/bin",
                                            "/work",
                                            "",
                                            "" };
        rig_open();
        set_task(argv, env, "/work", eq_str(""));
        Request q = start_one();
        ck_assert_uint_eq(q.start->n_argv, 2);
        ck_assert_uint_eq(q.start->n_env, 5);
        for (unsigned i = 0; i < ELEMENTSOF(want); i++)
                ck_assert_str_eq(nth(&q, i), want[i]);
        ck_assert_uint_eq(q.start->flags, SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR | SPAWN_SET_IDENTITY | SPAWN_SET_NICE);
        ck_assert_uint_eq(q.start->uid, 1000);
        ck_assert_uint_eq(q.start->gid, 1001);
        ck_assert_uint_eq(q.start->n_groups, 2);
        ck_assert_uint_eq(q.start->groups[1], 8);
        ck_assert_uint_eq(q.start->umask, 077);
        ck_assert_int_eq(q.start->nice, 5);
        request_close(&q);
        rig_close();
}

TEST(a_path_of_the_task_is_kept) {
        static const char *const argv[] = { "cmd", NULL }, *const env[] = { "PATH=/opt/bin", NULL };
        rig_open();
        set_task(argv, env, "", eq_str(""));
        Request q = start_one();
        ck_assert_uint_eq(q.start->n_env, 4);
        ck_assert_str_eq(nth(&q, 4), "PATH=/opt/bin");
        request_close(&q);
        rig_close();
}

TEST(input_and_long_strings_ride_in_sealed_files) {
        static char text[SPAWN_INLINE_MAX];
        char input[16] = "";
        const char *const argv[] = { "cmd", text, NULL }, *const env[] = { NULL };

        rig_open();
        memset(text, 'x', sizeof(text) - 1);
        set_task(argv, env, "", eq_str("bytes"));
        Request q = start_one();
        ck_assert_uint_eq(q.start->flags & (SPAWN_HAS_STDIN | SPAWN_HAS_STRINGS), SPAWN_HAS_STDIN | SPAWN_HAS_STRINGS);
        ck_assert_uint_eq(q.message.n_fds, 4);
        ck_assert_uint_eq(strlen(nth(&q, 1)), sizeof(text) - 1);
        ck_assert_int_eq(read(q.message.fds[0], input, sizeof(input)), 5);
        ck_assert_str_eq(input, "bytes");
        ck_assert_int_lt(write(q.message.fds[0], "x", 1), 0);
        request_close(&q);
        rig_close();
}

TEST(output_of_a_short_command_is_read_at_its_end) {
        rig_open();
        Request q = start_one();
        ck_assert_int_eq(write(q.message.fds[0], "out", 3), 3);
        ck_assert_int_eq(write(q.message.fds[1], "err", 3), 3);
        request_close(&q);
        turn();
        ck_assert_uint_eq(rig.n_output, 0); /* nobody watches the pipes of what has not been told to run */
        end_with((SpawnEnded) { .utime_usec = 5, .maxrss_kib = 6 });
        ck_assert_int_eq(rig.result.verdict, TASK_OK);
        ck_assert_str_eq(logged(), "oouteerr");
        ck_assert_uint_eq(rig.details.utime_usec, 5);
        ck_assert_uint_eq(rig.details.maxrss_kib, 6);
        rig_close();
}

/* Somebody outside has the pipe and goes on writing: his words are not the task's, and nobody waits for them. */
TEST(a_pipe_that_stays_open_after_the_end_is_not_waited_for) {
        rig_open();
        Request q = start_one();
        end_with((SpawnEnded) { 0 });
        ck_assert_int_eq(rig.result.verdict, TASK_OK);
        (void)signal(SIGPIPE, SIG_IGN);
        ck_assert_int_lt(write(q.message.fds[0], "late", 4), 0);
        request_close(&q);
        rig_close();
}

TEST(output_of_a_long_command_is_followed_and_stops_while_it_is_clogged) {
        rig_open();
        Request q = start_one();
        fake_started(&rig.fake, 0, q.start->header.run, 123);
        turn();
        ck_assert_uint_eq(rig.n_running, 1);
        ck_assert_int_eq(rig.pid, 123);
        rig.clog = true;
        ck_assert_int_eq(write(q.message.fds[0], "a", 1), 1);
        turn();
        ck_assert_uint_eq(rig.n_output, 1);
        ck_assert_int_eq(write(q.message.fds[0], "b", 1), 1);
        ck_assert_int_eq(write(q.message.fds[1], "c", 1), 1);
        turn();
        ck_assert_uint_eq(rig.n_output, 1);
        rig.clog = false;
        command_executor_resume(rig.executor, &rig.task);
        turn();
        ck_assert_uint_eq(rig.n_output, 3);
        request_close(&q);
        end_with((SpawnEnded) { .exit = 3 });
        ck_assert_int_eq(rig.result.verdict, TASK_BAD);
        ck_assert_int_eq(rig.details.exit, 3);
        rig_close();
}

/* One end each, in a rig of its own. */
static void ends_as(SpawnEnded ended, TaskVerdict verdict, eq_reason reason, int status, const char *says) {
        rig_open();
        Request q = start_one();
        request_close(&q);
        end_with(ended);
        ck_assert_int_eq(rig.result.verdict, verdict);
        ck_assert_int_eq(rig.result.reason, reason);
        ck_assert_int_eq(rig.details.exit, status);
        ck_assert_msg(strstr(rig.details.error, says) != NULL, "\"%s\" does not say \"%s\"", rig.details.error, says);
        rig_close();
}

TEST(a_signal_that_nobody_sent_is_a_crash) {
        ends_as((SpawnEnded) { .exit = -1, .signal = SIGSEGV }, TASK_CRASHED, EQ_REASON_NONE, -1, "");
}

TEST(a_command_that_is_not_there_has_status_127_and_says_what_to_do) {
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_EXEC, .error = ENOENT }, TASK_BAD, EQ_REASON_NONE, 127,
                "cannot run \"cmd\": No such file or directory; give its path");
}

TEST(a_command_that_may_not_be_executed_has_status_126) {
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_EXEC, .error = EACCES }, TASK_BAD, EQ_REASON_NONE, 126,
                "make it executable");
}

TEST(a_failed_set_up_has_status_125_and_names_what_failed) {
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_CWD, .error = ENOENT }, TASK_BAD, EQ_REASON_NONE, 125,
                "working directory could not be entered: /work: No such file or directory; make it, or submit from "
                "another");
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_CWD, .error = EACCES }, TASK_BAD, EQ_REASON_NONE, 125,
                "/work: Permission denied; let the user of the task enter it, or submit from another");
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_NICE, .error = EACCES }, TASK_BAD, EQ_REASON_NONE, 125,
                "its nice level could not be set: Permission denied; ask for none below that of eqd");
}

TEST(an_identity_that_cannot_be_taken_on_is_the_reason) {
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_REQUEST, .error = EPERM }, TASK_BAD, EQ_REASON_IDENTITY,
                125, "cannot run commands as uid 1000 any more");
}

TEST(a_refused_fork_puts_the_task_back) {
        ends_as((SpawnEnded) { .exit = -1, .stage = SPAWN_STAGE_FORK, .error = EAGAIN }, TASK_NOT_STARTED,
                EQ_REASON_CREATE_FAILURE, 0, "");
}

TEST(an_end_of_another_run_or_slot_is_nobody_s) {
        rig_open();
        Request q = start_one();
        fake_ended(&rig.fake, 0, q.start->header.run + 1, (SpawnEnded) { 0 });
        fake_ended(&rig.fake, 5, q.start->header.run, (SpawnEnded) { 0 });
        fake_started(&rig.fake, 70000, 1, 1);
        turn();
        ck_assert_uint_eq(rig.n_ended + rig.n_running, 0);
        request_close(&q);
        end_with((SpawnEnded) { 0 });
        rig_close();
}

TEST(a_time_out_is_term_then_grace_then_kill) {
        rig_open();
        rig.timeout_usec = rig.grace_usec = 1000;
        Request q = start_one();
        uint64_t run = q.start->header.run;
        request_close(&q);
        struct pollfd p = { .fd = rig.fake.line, .events = POLLIN };
        while (poll(&p, 1, 0) == 0)
                (void)uv_run(&rig.loop, UV_RUN_ONCE);
        ck_assert_int_eq(expect_signal(), SIGTERM);
        while (poll(&p, 1, 0) == 0)
                (void)uv_run(&rig.loop, UV_RUN_ONCE);
        ck_assert_int_eq(expect_signal(), SIGKILL);
        ck_assert_uint_eq(rig.inbox->start.header.run, run);
        end_with((SpawnEnded) { .exit = -1, .signal = SIGKILL });
        ck_assert_int_eq(rig.result.verdict, TASK_TIMED_OUT);
        rig_close();
}

TEST(a_cancel_sends_the_signal_asked_for_and_any_end_is_a_stop) {
        rig_open();
        Request q = start_one();
        request_close(&q);
        Executor *x = command_executor(rig.executor);
        x->ops->cancel(x, &rig.slot, &rig.task, SIGINT, USEC_NEVER);
        ck_assert_int_eq(expect_signal(), SIGINT);
        end_with((SpawnEnded) { .exit = 0 });
        ck_assert_int_eq(rig.result.verdict, TASK_STOPPED);
        rig_close();
}

TEST(a_signal_by_hand_makes_its_death_no_crash) {
        rig_open();
        Request q = start_one();
        request_close(&q);
        ck_assert_int_eq(command_executor_signal(rig.executor, &rig.task, SIGUSR1), 0);
        ck_assert_int_eq(expect_signal(), SIGUSR1);
        end_with((SpawnEnded) { .exit = -1, .signal = SIGUSR1 });
        ck_assert_int_eq(rig.result.verdict, TASK_BAD);
        ck_assert_int_eq(command_executor_signal(rig.executor, &rig.task, SIGUSR1), -ESRCH);
        rig_close();
}

TEST(what_ran_when_the_worker_died_has_crashed_and_the_pool_waits_for_the_next) {
        rig_open();
        Request q = start_one();
        request_close(&q);
        unsigned n_blocked = rig.n_blocked, n_unblocked = rig.n_unblocked;
        fake_lost(&rig.fake);
        turn();
        ck_assert_uint_eq(rig.n_ended, 1);
        ck_assert_int_eq(rig.result.verdict, TASK_CRASHED);
        ck_assert_int_eq(rig.result.reason, EQ_REASON_SPAWN_FAILED);
        ck_assert_uint_eq(rig.n_blocked, n_blocked + 1);
        rig_ready();
        ck_assert_uint_eq(rig.n_unblocked, n_unblocked + 1);
        rig_close();
}

TEST(a_spawner_that_dies_is_started_again) {
        rig_open();
        Request q = start_one();
        request_close(&q);
        fake_die(&rig.fake);
        while (rig.n_ended == 0)
                (void)uv_run(&rig.loop, UV_RUN_ONCE);
        ck_assert_int_eq(rig.result.verdict, TASK_CRASHED);
        fake_accept(&rig.fake);
        rig.n_ended = 0;
        q = start_one();
        request_close(&q);
        end_with((SpawnEnded) { 0 });
        ck_assert_int_eq(rig.result.verdict, TASK_OK);
        rig_close();
}

/* Of the three pipes and files that a start makes. */
TEST(without_descriptors_nothing_is_sent_and_nothing_leaks) {
        static const char *const argv[] = { "cmd", NULL }, *const env[] = { NULL };
        rig_open();
        set_task(argv, env, "", eq_str("input"));
        rig_ready();
        int n_fds = test_count_fds();
        for (long i = 1; i <= 3; i++) {
                fault_set(FAULT_PIPE, i, false);
                ck_assert_int_eq(start(), -EMFILE);
                ck_assert_int_eq(test_count_fds(), n_fds);
                ck_assert_uint_eq(rig.n_unprepared, (unsigned)i);
        }
        ck_assert_int_eq(start(), 0);
        Request q = fake_take(&rig.fake, rig.inbox, SPAWN_START);
        request_close(&q);
        end_with((SpawnEnded) { 0 });
        rig_close();
}

TEST(what_runs_when_the_executor_goes_is_stopped) {
        rig_open();
        Request q = start_one();
        request_close(&q);
        rig_close();
        ck_assert_uint_eq(rig.n_ended, 1);
        ck_assert_int_eq(rig.result.verdict, TASK_STOPPED);
}

RUN_TESTS("command", 30, test_nothing_starts_before_the_spawner_is_ready_and_then_the_pool_goes_on,
          test_a_request_says_what_the_task_says, test_a_path_of_the_task_is_kept,
          test_input_and_long_strings_ride_in_sealed_files, test_output_of_a_short_command_is_read_at_its_end,
          test_a_pipe_that_stays_open_after_the_end_is_not_waited_for,
          test_output_of_a_long_command_is_followed_and_stops_while_it_is_clogged,
          test_a_signal_that_nobody_sent_is_a_crash,
          test_a_command_that_is_not_there_has_status_127_and_says_what_to_do,
          test_a_command_that_may_not_be_executed_has_status_126,
          test_a_failed_set_up_has_status_125_and_names_what_failed,
          test_an_identity_that_cannot_be_taken_on_is_the_reason, test_a_refused_fork_puts_the_task_back,
          test_an_end_of_another_run_or_slot_is_nobody_s, test_a_time_out_is_term_then_grace_then_kill,
          test_a_cancel_sends_the_signal_asked_for_and_any_end_is_a_stop,
          test_a_signal_by_hand_makes_its_death_no_crash,
          test_what_ran_when_the_worker_died_has_crashed_and_the_pool_waits_for_the_next,
          test_a_spawner_that_dies_is_started_again, test_without_descriptors_nothing_is_sent_and_nothing_leaks,
          test_what_runs_when_the_executor_goes_is_stopped)
