/* SPDX-License-Identifier: MIT */
#pragma once

/* A spawner that the test plays. The executor starts a program: this test program again, which hands its end of the line to
 * the test and lives until the test or the line ends. To be included by the one source of the test program. */

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"
#include "spawner/request.h"
#include "spawner/wire.h"
#include "test.h"

typedef struct FakeSpawner {
        int listener, control, line;
        char args[256]; /* of its command line, each with a blank behind */
        uint32_t epoch;
} FakeSpawner;

static inline struct sockaddr_un fake_address(const char *name) { /* abstract */
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        (void)snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "%s", name);
        return a;
}

/* Before main(): are we the program that was started? */
__attribute__((constructor)) static void fake_main(int argc, char **argv) {
        const char *name = getenv("FAKE_SPAWNER");
        char args[256] = "";
        int line = SPAWN_FD;

        if (!name || argc < 2 || strncmp(argv[1], "--", 2) != 0)
                return;
        for (int i = 1; i < argc; i++)
                (void)snprintf(args + strlen(args), sizeof(args) - strlen(args), "%s ", argv[i]);
        struct sockaddr_un a = fake_address(name);
        int control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct iovec iov = { .iov_base = args, .iov_len = strlen(args) };
        if (connect(control, (struct sockaddr *)&a, sizeof(a)) < 0 || fdpass_send(control, &iov, 1, &line, 1) < 0)
                _exit(1);
        struct pollfd p[] = { { .fd = control, .events = POLLIN }, { .fd = line, .events = POLLRDHUP } };
        (void)poll(p, ELEMENTSOF(p), -1);
        _exit(0);
}

static inline const char *fake_open(FakeSpawner *f) { /* path of the program to start */
        char name[64];
        (void)snprintf(name, sizeof(name), "eqd-fake-spawner-%d", (int)getpid());
        struct sockaddr_un a = fake_address(name);
        *f = (FakeSpawner) { .listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), .control = -1, .line = -1 };
        ck_assert_int_eq(bind(f->listener, (struct sockaddr *)&a, sizeof(a)), 0);
        ck_assert_int_eq(listen(f->listener, 4), 0);
        ck_assert_int_eq(setenv("FAKE_SPAWNER", name, 1), 0);
        return "/proc/self/exe";
}

/* Waits for the program that was started. */
static inline void fake_accept(FakeSpawner *f) {
        FdpassMessage m;
        f->control = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_int_ge(f->control, 0);
        ck_assert_int_eq(fdpass_receive(f->control, f->args, sizeof(f->args) - 1, true, &m), 0);
        f->args[m.n] = '\0';
        ck_assert_uint_eq(m.n_fds, 1);
        f->line = m.fds[0];
}

static inline void fake_send(const FakeSpawner *f, const void *m, size_t n) {
        ck_assert_int_eq(send(f->line, m, n, MSG_NOSIGNAL), (int)n);
}

static inline SpawnHeader fake_header(const FakeSpawner *f, SpawnType type, uint32_t slot, uint64_t run) {
        return (SpawnHeader) { .magic = SPAWN_MAGIC,
                               .version = SPAWN_VERSION,
                               .type = (uint16_t)type,
                               .slot = slot,
                               .epoch = f->epoch,
                               .run = run };
}

static inline void fake_ready(FakeSpawner *f, bool any_identity) { /* a worker of the next epoch */
        f->epoch++;
        SpawnReady m = { .header = fake_header(f, SPAWN_READY, 0, 0), .pid = 4711, .any_identity = any_identity };
        fake_send(f, &m, sizeof(m));
}

static inline void fake_lost(const FakeSpawner *f) {
        SpawnHeader m = fake_header(f, SPAWN_LOST, 0, 0);
        fake_send(f, &m, sizeof(m));
}

static inline void fake_started(const FakeSpawner *f, uint32_t slot, uint64_t run, int pid) {
        SpawnStarted m = { .header = fake_header(f, SPAWN_STARTED, slot, run), .pid = pid };
        fake_send(f, &m, sizeof(m));
}

/* ended: all but its header. */
static inline void fake_ended(const FakeSpawner *f, uint32_t slot, uint64_t run, SpawnEnded ended) {
        ended.header = fake_header(f, SPAWN_ENDED, slot, run);
        fake_send(f, &ended, sizeof(ended));
}

/* The next message of eqd, which must be there. The request is the caller's: request_close(). */
static inline Request fake_take(const FakeSpawner *f, Inbox *inbox, SpawnType type) {
        Request q;
        ck_assert_int_eq(request_receive(f->line, inbox, false, &q), 0);
        ck_assert_uint_ge(q.message.n, sizeof(SpawnHeader));
        ck_assert_uint_eq(inbox->start.header.type, type);
        return q;
}

/* Both processes die: all of the line that is theirs is closed. */
static inline void fake_die(FakeSpawner *f) {
        f->line = close_fd(f->line);
        f->control = close_fd(f->control);
}

static inline void fake_close(FakeSpawner *f) {
        fake_die(f);
        f->listener = close_fd(f->listener);
}
