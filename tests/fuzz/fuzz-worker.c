/* SPDX-License-Identifier: MIT */
/* A worker that says anything: a whole eqd without commands, a queue with tasks, and a client whose bytes are the input:
 * requests, answers to `run`, answers to what was never sent, in any order. First byte: what fails, second: how the rest is
 * cut into chunks.
 *
 * Whatever it says, what it gets are whole messages, each `run` one that decodes, and no task of the queue is with two
 * leases at once. When it is gone, no lease is left, and every task is over or back at its place. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fault.h"
#include "server/handlers.h"
#include "target.h"

enum { N_TASKS = 8, MAX_TURNS = 2000, FAIL = 1 };

static uv_loop_t loop;
static Handlers handlers;
static char dir[] = "/tmp/eqd-fuzz-worker.XXXXXX";

/* ---- an eqd ---- */

static void remove_dir(void) {
        (void)rmdir(dir);
}

static void on_event(void *host, const EqEvent *event, bool has_owner, uid_t owner) {
        handlers_event(host, event, has_owner, owner);
}
static void on_ready(void *host) {
}
static const ManagerHooks manager_hooks = { .event = on_event, .ready = on_ready };

static void make_queue(Manager *m, const Caller *caller) {
        static const char *const set[] = { "executor=worker", "max_active=3", "retries=1", "backoff=0",
                                           "max_crashes=2" };
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        for (size_t i = 0; i < ELEMENTSOF(set); i++)
                eq_pack_cstr(&pk, set[i]);
        const EqArray array = { .raw = eq_bytes(b.data, b.len), .n = ELEMENTSOF(set) };
        QueueRecord *q;
        Refusal refusal;
        FUZZ_CHECK(manager_queue_create(m, caller, eq_str("w"), &array, false, &q, &refusal) == 0);
        eq_buffer_done(&b);
        for (int i = 0; i < N_TASKS; i++) {
                EqSubmit s = { 0 };
                TaskRecord *last;
                eq_task_id id;
                EQ_SET(&s, Submit, payload, eq_str("payload"));
                SubmitArgs args = { .submit = &s, .payload = s.payload, .stdin_fd = -1 };
                FUZZ_CHECK(manager_submit(m, caller, eq_str("w"), &args, 1, &last, &id, &refusal) == 0);
        }
}

static void start(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        ServerConfig server = { .listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), .group = (gid_t)-1 };
        char error[512];
        Config *config;
        FUZZ_CHECK(config_load(dir, false, &config, error, sizeof(error)) == 0);
        config->daemon.commands = false;
        config->daemon.log_level = 0;
        ManagerConfig mc = { .loop = &loop, .clock = &clock_system, .config_dir = dir, .config = config };
        handlers_init(&handlers);
        FUZZ_CHECK(manager_new(&mc, &manager_hooks, &handlers, &handlers.manager) == 0);
        FUZZ_CHECK(bind(server.listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0);
        FUZZ_CHECK(listen(server.listen_fd, 1) == 0);
        FUZZ_CHECK(server_new(&loop, &handlers.manager->users, &server, &handlers_server_hooks, handlers_table,
                              &handlers, error, sizeof(error), &handlers.server) == 0);
}

/* ---- the client ---- */

static int connect_session(void) {
        Identity *identity;
        User *user;
        Session *s;
        int pair[2];
        FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        FUZZ_CHECK(identity_new(geteuid(), getegid(), NULL, 0, &identity) == 0);
        FUZZ_CHECK(user_get(&handlers.manager->users, geteuid(), &user) == 0);
        Caller caller = { .identity = identity, .user = user, .admin = true };
        make_queue(handlers.manager, &caller);
        FUZZ_CHECK(user_charge(user, USER_CONNECTIONS, 1));
        FUZZ_CHECK(session_new(handlers.server, pair[0], identity, user, &s) == 0);
        return pair[1];
}

static void receive(int fd, EqBuffer *in) {
        static char chunk[65536];
        for (ssize_t n; (n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0;)
                FUZZ_CHECK(eq_buffer_append(in, chunk, (size_t)n) == 0);
}

/* ---- what must be true ---- */

static void check_leases(void) {
        const Manager *m = handlers.manager;
        const QueueRecord *q = manager_queue(m, eq_str("w"));
        size_t n = 0;
        LIST_FOREACH (l, &m->workers->workers)
                n += remote_worker_in_flight(LIST_ENTRY(l, RemoteWorker, link));
        FUZZ_CHECK(n == m->workers->n_leases && m->remote->n_busy <= n);
        if (!q || q->queue->pool != m->remote)
                return;
        LIST_FOREACH (l, &q->queue->running)
                FUZZ_CHECK(remote_worker_of(LIST_ENTRY(l, Task, link)));
}

static void check_messages(const EqBuffer *in) {
        for (size_t done = 0; done < in->len;) {
                EqScan scan = EQ_SCAN_NULL;
                EqMessage m;
                EqRun run;
                EqDecodeError error;
                if (eq_scan(&scan, in->data + done, in->len - done, EQ_MESSAGE_MAX + 64) != EQ_SCAN_DONE)
                        return; /* cut off by the end */
                FUZZ_CHECK(eq_message_parse(eq_bytes(in->data + done, scan.pos), &m) == 0);
                if (m.type == EQ_MSG_REQUEST) {
                        FUZZ_CHECK(eq_bytes_eq(m.method, eq_str("run")));
                        FUZZ_CHECK(eq_decode_params(&eq_schema_Run, m.params, &run, &error) == 0);
                }
                done += scan.pos;
        }
}

static void check_nothing_is_left(void) {
        const Manager *m = handlers.manager;
        for (unsigned i = 0; i < MAX_TURNS && handlers.server->n_sessions > 0; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
        FUZZ_CHECK(handlers.server->n_sessions == 0);
        FUZZ_CHECK(m->workers->n_workers == 0 && m->workers->n_leases == 0 && m->remote->n_busy == 0);
        const QueueRecord *q = manager_queue(m, eq_str("w"));
        if (q)
                FUZZ_CHECK(q->queue->n_running == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (!handlers.manager && !loop.data) {
                FUZZ_CHECK(uv_loop_init(&loop) == 0 && mkdtemp(dir) && atexit(remove_dir) == 0);
                loop.data = dir; /* done */
        }
        if (size < 3)
                return 0;
        uint8_t how = data[0];
        size_t step = 1 + data[1], n = size - 2;
        step = MAX(step, n / 64);
        data += 2;
        start();
        int fd = connect_session();
        EqBuffer in = EQ_BUFFER_NULL;
        if (how & FAIL)
                fault_set(FAULT_ALLOC, 1 + (how >> 1 & 0x1f), how & 0x40);
        for (size_t done = 0; done < n; done += step) {
                if (send(fd, data + done, MIN(step, n - done), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        break;
                uv_run(&loop, UV_RUN_NOWAIT);
                check_leases();
                receive(fd, &in);
        }
        fault_set(FAULT_ALLOC, 0, false);
        for (int i = 0; i < 3; i++)
                uv_run(&loop, UV_RUN_NOWAIT);
        receive(fd, &in);
        close(fd);
        check_messages(&in);
        eq_buffer_done(&in);
        check_nothing_is_left();
        handlers.server = server_free(handlers.server);
        uv_run(&loop, UV_RUN_NOWAIT);
        handlers.manager = manager_free(handlers.manager);
        return 0;
}
