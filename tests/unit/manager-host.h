/* SPDX-License-Identifier: MIT */
#pragma once

/* A manager on a clock that the test moves, with a command executor that runs nothing: the test ends attempts as it likes.
 * The fake's functions take the place of executor/command.c when the program is linked. */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fault.h"
#include "manager/manager.h"
#include "manager/parts.h"
#include "manager/view.h"
#include "test.h"

/* ---- the executor ---- */

struct CommandExecutor {
        Executor executor;
        Engine *engine;
        const CommandHooks *hooks;
        void *host;
        SpawnReady ready;
        Task *running[1024];
        size_t n_running;
        bool no_spawner;
        bool refuse; /* start() fails as if no process could be made */
        int last_signal;
        unsigned stock;
        CommandSetup last_setup; /* of the last start */
};

static inline int fake_start(Executor *x, Slot *slot, Task *t) {
        CommandExecutor *c = (CommandExecutor *)x;
        if (c->refuse)
                return -EAGAIN;
        int r = c->hooks->prepare(c->host, t, &c->last_setup);
        if (r < 0)
                return r;
        ck_assert_uint_lt(c->n_running, 1024);
        c->running[c->n_running++] = t;
        return 0;
}

static inline void fake_cancel(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
        ((CommandExecutor *)x)->last_signal = signal;
}

static const ExecutorOps fake_ops = { .name = "fake", .start = fake_start, .cancel = fake_cancel };

int command_executor_new(uv_loop_t *loop, Engine *engine, const SpawnerConfig *config, const CommandHooks *hooks,
                         void *host, CommandExecutor **ret) {
        CommandExecutor *x = calloc(1, sizeof(*x));
        ck_assert_ptr_nonnull(x);
        x->executor.ops = &fake_ops;
        x->engine = engine;
        x->hooks = hooks;
        x->host = host;
        x->ready = (SpawnReady) { .any_identity = true, .root_allowed = true, .pid = 1 };
        x->no_spawner = !config;
        *ret = x;
        return 0;
}

static inline void fake_end(CommandExecutor *x, Task *t, TaskVerdict verdict, int exit, int signal) {
        size_t i = 0;
        while (i < x->n_running && x->running[i] != t)
                i++;
        ck_assert_msg(i < x->n_running, "task %llu does not run", (unsigned long long)t->seq);
        memmove(&x->running[i], &x->running[i + 1], (--x->n_running - i) * sizeof(x->running[0]));
        CommandResult result = { .exit = exit, .signal = signal };
        engine_task_ended(x->engine, t, &(TaskResult) { .verdict = verdict, .details = &result });
}

CommandExecutor *command_executor_free(CommandExecutor *x) {
        if (!x)
                return NULL;
        while (x->n_running > 0)
                fake_end(x, x->running[0], TASK_STOPPED, -1, 9);
        free(x);
        return NULL;
}

Executor *command_executor(CommandExecutor *x) {
        return &x->executor;
}

pid_t command_executor_keeper(const CommandExecutor *x) {
        return getpid(); /* a process that is there */
}

const SpawnReady *command_executor_spawner(const CommandExecutor *x) {
        return x->no_spawner ? NULL : &x->ready;
}

void command_executor_set_stock(CommandExecutor *x, unsigned n) {
        x->stock = n;
}

void command_executor_resume(CommandExecutor *x, Task *t) {
        (void)x;
        (void)t;
}

int command_executor_signal(CommandExecutor *x, Task *t, int signal) {
        x->last_signal = signal;
        return 0;
}

int command_rlimits_check(EqArray rlimits, char *ret_error, size_t size) {
        (void)rlimits;
        (void)ret_error;
        (void)size;
        return 0;
}

/* ---- the host ---- */

typedef struct Host {
        uv_loop_t loop;
        FakeClock clock;
        Manager *m;
        char dir[64];
        Identity *anna, *bob, *root;
        User *anna_user, *bob_user, *root_user;
        Refusal refusal;
        EqBuffer options; /* of the last submit */
        unsigned n_events;
        uint64_t ticket;  /* the last one that was told */
        uint64_t durable; /* likewise */
        bool not_durable;
        bool stopped;
} Host;

static inline void host_event(void *userdata, const EqEvent *e, bool has_owner, uid_t owner) {
        ((Host *)userdata)->n_events++;
}
static inline void host_ready(void *userdata) {
        (void)userdata;
}
static inline void host_stopped(void *userdata) {
        ((Host *)userdata)->stopped = true;
}
static inline void host_read(void *userdata, uint64_t ticket) {
        ((Host *)userdata)->ticket = ticket;
}
static inline void host_durable(void *userdata, uint64_t position) {
        ((Host *)userdata)->durable = position;
}
static inline void host_not_durable(void *userdata) {
        ((Host *)userdata)->not_durable = true;
}
static const ManagerHooks host_hooks = { .event = host_event,
                                         .ready = host_ready,
                                         .read = host_read,
                                         .durable = host_durable,
                                         .not_durable = host_not_durable };

/* change: what to do with the configuration before the manager gets it; NULL: leave it as it is by default. kept_fd: of a
 * manager before this one, -1: there was none. */
static inline void host_init_from(Host *h, void (*change)(Config *c), const char *store_dir, int kept_fd) {
        Config *config;
        char error[PARAM_ERROR_MAX];
        *h = (Host) { 0 };
        strcpy(h->dir, "/tmp/eqd-manager-test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(h->dir));
        ck_assert_int_eq(uv_loop_init(&h->loop), 0);
        fake_clock_init(&h->clock, 1000 * USEC_PER_SEC, UINT64_C(1700000000) * USEC_PER_SEC);
        ck_assert_int_eq(config_load(h->dir, false, &config, error, sizeof(error)), 0);
        if (change)
                change(config);
        ManagerConfig mc = { .loop = &h->loop, .clock = &h->clock.clock, .config_dir = h->dir, .config = config };
        ck_assert_int_eq(manager_new(&mc, &host_hooks, h, &h->m), 0);
        ck_assert_int_eq(manager_start(h->m, store_dir, kept_fd), 0);
        ck_assert_int_eq(identity_new(1001, 1001, NULL, 0, &h->anna), 0);
        ck_assert_int_eq(identity_new(1002, 1002, NULL, 0, &h->bob), 0);
        ck_assert_int_eq(identity_new(0, 0, NULL, 0, &h->root), 0);
        ck_assert_int_eq(user_get(&h->m->users, 1001, &h->anna_user), 0);
        ck_assert_int_eq(user_get(&h->m->users, 1002, &h->bob_user), 0);
        ck_assert_int_eq(user_get(&h->m->users, 0, &h->root_user), 0);
}

static inline void host_init_with(Host *h, void (*change)(Config *c)) {
        host_init_from(h, change, NULL, -1);
}

static inline void host_init(Host *h) {
        host_init_with(h, NULL);
}

static inline void host_done(Host *h) {
        User *users[] = { h->anna_user, h->bob_user, h->root_user };
        for (size_t i = 0; i < 3; i++)
                user_unref(users[i]);
        manager_free(h->m);
        identity_unref(h->anna);
        identity_unref(h->bob);
        identity_unref(h->root);
        eq_buffer_done(&h->options);
        ck_assert_int_eq(uv_run(&h->loop, UV_RUN_DEFAULT), 0);
        ck_assert_int_eq(uv_loop_close(&h->loop), 0);
        uv_library_shutdown();
        ck_assert_int_eq(rmdir(h->dir), 0);
}

static inline Caller anna(Host *h) {
        return (Caller) { .identity = h->anna, .user = h->anna_user };
}
static inline Caller bob(Host *h) {
        return (Caller) { .identity = h->bob, .user = h->bob_user };
}
static inline Caller root(Host *h) {
        return (Caller) { .identity = h->root, .user = h->root_user, .admin = true };
}

/* Moves the clock and lets every timer fire that is due by then. */
static inline void host_advance(Host *h, uint64_t usec) {
        fake_clock_advance(&h->clock, usec);
        timers_run(&h->m->timers);
}

/* k=v... ended by NULL. */
static inline QueueRecord *host_queue(Host *h, const char *name, const char *const *set) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        uint32_t n = 0;
        QueueRecord *q;
        Caller c = root(h);
        for (; set && set[n]; n++)
                eq_pack_cstr(&pk, set[n]);
        EqArray array = { .raw = eq_bytes(b.data, b.len), .n = n };
        int r = manager_queue_create(h->m, &c, eq_str(name), &array, false, &q, &h->refusal);
        ck_assert_msg(r == 0, "queue %s: %s", name, h->refusal.text);
        eq_buffer_done(&b);
        return q;
}

/* Submits *s with /bin/true as its command; 0 or what manager_submit() says. */
static inline int host_submit(Host *h, Caller c, const char *queue, EqSubmit s, TaskRecord **ret) {
        static char argv[] = "\xa9/bin/true";
        eq_task_id id;
        s.queue = eq_str(queue);
        EQ_SET(&s, Submit, argv, (EqArray) { .raw = eq_bytes(argv, 10), .n = 1 });
        s.present &= ~(EQ_BIT(Submit, queue) | EQ_BIT(Submit, payload));
        h->options.len = 0;
        msgpack_packer pk = eq_packer(&h->options);
        eq_pack_record(&pk, &eq_schema_Submit, &s);
        SubmitArgs args = {
                .submit = &s, .payload = s.payload, .options = eq_bytes(h->options.data, h->options.len), .stdin_fd = -1
        };
        return manager_submit(h->m, &c, s.queue, &args, 1, ret, &id, &h->refusal);
}

static inline TaskRecord *host_task(Host *h, const char *queue, EqSubmit s) {
        TaskRecord *t;
        int r = host_submit(h, anna(h), queue, s, &t);
        ck_assert_msg(r == 0, "submit: %s", h->refusal.text);
        return t;
}

static inline void host_end(Host *h, TaskRecord *t, TaskVerdict verdict) {
        fake_end(h->m->commands, &t->task, verdict,
                 verdict == TASK_OK    ? 0
                 : verdict == TASK_BAD ? 1
                                       : -1,
                 verdict == TASK_CRASHED ? 11 : 0);
}

#define ck_assert_state(t, STATE) ck_assert_str_eq(eq_state_name((t)->task.state), #STATE)

/* The manager ends as at a stop, running tasks are stopped: what it keeps for the next one, a descriptor of the caller's. */
static inline int host_keep(Host *h) {
        int fd = memfd_create("manager-test", MFD_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        manager_stop(h->m, true, host_stopped);
        while (h->m->commands->n_running > 0)
                fake_end(h->m->commands, h->m->commands->running[0], TASK_STOPPED, -1, 15);
        host_advance(h, 0);
        ck_assert(h->stopped);
        ck_assert_int_eq(manager_keep(h->m, fd), 0);
        host_done(h);
        return fd;
}
