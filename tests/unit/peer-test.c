/* SPDX-License-Identifier: MIT */
/* Processes that connect and end, leaving the connection to a child. */

#include "server/peer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "server-host.h"

typedef struct Scene {
        uv_loop_t loop;
        PeerWatch *watch;
        int listener, fd; /* fd: our end */
        int gate[2];      /* what is behind the other end waits for its end */
        pid_t pid;        /* that connected */
        uint64_t accepted_usec;
        unsigned n_ended;
} Scene;

static void on_ended(void *userdata) {
        ((Scene *)userdata)->n_ended++;
}

/* Without the kernel's word, that is. */
static const bool by_number[] = { false, true };

static uint64_t boot_usec(void) {
        struct timespec t;
        ck_assert_int_eq(clock_gettime(CLOCK_BOOTTIME, &t), 0);
        return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

/* A child of the peer has its end of the connection, until the gate is closed. */
_Noreturn static void hold(const Scene *s) {
        char c;
        (void)close(s->gate[1]);
        (void)!read(s->gate[0], &c, 1);
        _exit(0);
}

_Noreturn static void be_peer(const Scene *s, const struct sockaddr_un *address, socklen_t len) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)address, len) < 0)
                _exit(1);
        if (fork() == 0)
                hold(s);
        if (send(fd, "x", 1, 0) != 1)
                _exit(1);
        (void)pause(); /* it is killed */
        _exit(2);
}

static void open_scene(Scene *s) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        socklen_t len = sizeof(address);
        *s = (Scene) { .fd = -1 };
        ck_assert_int_eq(uv_loop_init(&s->loop), 0);
        s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(s->listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
        ck_assert_int_eq(listen(s->listener, 1), 0);
        ck_assert_int_eq(getsockname(s->listener, (struct sockaddr *)&address, &len), 0);
        ck_assert_int_eq(pipe(s->gate), 0);
        s->pid = fork();
        if (s->pid == 0)
                be_peer(s, &address, len);
        char c;
        s->fd = accept(s->listener, NULL, NULL);
        ck_assert_int_ge(s->fd, 0);
        ck_assert_int_eq(recv(s->fd, &c, 1, 0), 1); /* its child is there */
        s->accepted_usec = boot_usec();
}

static void end_peer(Scene *s) {
        ck_assert_int_eq(kill(s->pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(s->pid, NULL, 0), s->pid);
        s->pid = 0;
}

static void close_scene(Scene *s) {
        char c;
        fault_set(FAULT_PEER, 0, false);
        fault_set(FAULT_PIDFD, 0, false);
        if (s->pid)
                end_peer(s);
        s->watch = peer_watch_free(s->watch);
        ck_assert_int_eq(uv_run(&s->loop, UV_RUN_DEFAULT), 0);
        ck_assert_int_eq(uv_loop_close(&s->loop), 0);
        (void)close(s->gate[0]);
        (void)close(s->gate[1]);
        ck_assert_int_eq(recv(s->fd, &c, 1, 0), 0); /* the child has ended, too */
        (void)close(s->fd);
        (void)close(s->listener);
}

static int watch(Scene *s, pid_t pid, uint64_t accepted_usec) {
        return peer_watch_new(&s->loop, s->fd, pid, accepted_usec, on_ended, s, &s->watch);
}

TEST(the_end_of_a_process_is_told_though_its_child_holds_the_connection) {
        for (size_t i = 0; i < ELEMENTSOF(by_number); i++) {
                Scene s;
                char c;
                open_scene(&s);
                fault_set(FAULT_PEER, by_number[i] ? 1 : 0, true);
                int r = watch(&s, s.pid, s.accepted_usec);
                ck_assert_msg(r == 0, "%s: %d", by_number[i] ? "by its number" : "by the socket", r);
                uv_run(&s.loop, UV_RUN_NOWAIT);
                ck_assert_uint_eq(s.n_ended, 0);
                end_peer(&s);
                uv_ref((uv_handle_t *)s.watch); /* or nothing would be waited for; the poll is its first member */
                while (s.n_ended == 0)
                        uv_run(&s.loop, UV_RUN_ONCE);
                uv_run(&s.loop, UV_RUN_NOWAIT);
                ck_assert_uint_eq(s.n_ended, 1);
                ck_assert_int_eq(recv(s.fd, &c, 1, MSG_DONTWAIT), -1);
                ck_assert_int_eq(errno, EAGAIN);
                close_scene(&s);
        }
}

TEST(a_process_that_has_ended_is_not_watched) {
        for (size_t i = 0; i < ELEMENTSOF(by_number); i++) {
                Scene s;
                open_scene(&s);
                pid_t pid = s.pid;
                end_peer(&s);
                fault_set(FAULT_PEER, by_number[i] ? 1 : 0, true);
                ck_assert_int_eq(watch(&s, pid, s.accepted_usec), PEER_E_ENDED);
                close_scene(&s);
        }
}

/* Linux 6.5 says EINVAL of one that was waited for, later ones ESRCH, or give a pidfd all the same. The worker was taken, unwatched. */
TEST(a_kernel_that_has_no_pidfd_of_what_was_reaped_has_said_that_it_ended) {
        Scene s;
        open_scene(&s);
        fault_set(FAULT_REAPED, 1, true);
        ck_assert_int_eq(watch(&s, s.pid, s.accepted_usec), PEER_E_ENDED);
        fault_set(FAULT_REAPED, 0, false);
        close_scene(&s);
}

TEST(one_that_was_started_after_the_connection_was_made_is_another) {
        Scene s;
        open_scene(&s);
        fault_set(FAULT_PEER, 1, true);
        ck_assert_int_eq(watch(&s, s.pid, 1), PEER_E_ENDED);
        fault_set(FAULT_PEER, 0, false);
        ck_assert_int_eq(watch(&s, s.pid, 1), 0); /* the kernel knows better */
        close_scene(&s);
}

TEST(what_cannot_be_watched_says_so) {
        Scene s;
        open_scene(&s);
        fault_set(FAULT_PEER, 1, true);
        ck_assert_int_eq(watch(&s, 0, s.accepted_usec), -ESRCH);
        fault_set(FAULT_PIDFD, 1, true);
        ck_assert_int_eq(watch(&s, s.pid, s.accepted_usec), -EMFILE);
        close_scene(&s);
}

RUN_TESTS("peer", 60, test_the_end_of_a_process_is_told_though_its_child_holds_the_connection,
          test_a_process_that_has_ended_is_not_watched,
          test_a_kernel_that_has_no_pidfd_of_what_was_reaped_has_said_that_it_ended,
          test_one_that_was_started_after_the_connection_was_made_is_another, test_what_cannot_be_watched_says_so)
