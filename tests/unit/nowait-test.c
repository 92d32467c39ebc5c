/* SPDX-License-Identifier: MIT */
#include "base/nowait.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test.h"

static int ends[2];

static void open_pair(void) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0); /* blocking ones */
}

static void close_pair(void) {
        close_fd(ends[0]);
        close_fd(ends[1]);
}

static ssize_t receive(char *buf, size_t size) {
        struct iovec iov = { .iov_base = buf, .iov_len = size };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        return nowait_receive(ends[1], &m);
}

TEST(what_is_sent_is_received) {
        char got[8];
        open_pair();
        ck_assert_int_eq(nowait_send(ends[0], "three", 5), 5);
        ck_assert_int_eq(receive(got, sizeof(got)), 5);
        ck_assert_int_eq(memcmp(got, "three", 5), 0);
        close_pair();
}

TEST(a_full_or_empty_socket_is_not_waited_for) {
        static char some[4096];
        open_pair();
        ck_assert_int_eq(receive(some, sizeof(some)), -1);
        ck_assert_int_eq(errno, EAGAIN);
        while (nowait_send(ends[0], some, sizeof(some)) > 0)
                ;
        ck_assert_int_eq(errno, EAGAIN);
        close_pair();
}

TEST(a_peer_that_is_gone_is_an_error_and_no_signal) {
        open_pair();
        ends[1] = close_fd(ends[1]);
        ck_assert_int_eq(nowait_send(ends[0], "x", 1), -1);
        ck_assert_int_eq(errno, EPIPE);
        close_pair();
}

TEST(a_received_descriptor_is_closed_on_exec) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = { .header = {
                              .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) } };
        char byte = 'x';
        struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        int fd;
        open_pair();
        memcpy(CMSG_DATA(&control.header), &ends[0], sizeof(int));
        ck_assert_int_eq(sendmsg(ends[0], &m, 0), 1);
        memset(&control, 0, sizeof(control));
        ck_assert_int_eq(nowait_receive(ends[1], &m), 1);
        memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close_fd(fd);
        close_pair();
}

/* The library's functions end a thread that was canceled. */
static void *send_and_receive_canceled(void *got) {
        (void)pthread_cancel(pthread_self());
        (void)nowait_send(ends[0], "x", 1);
        (void)receive(got, 1);
        (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
        return got;
}

TEST(neither_is_a_cancellation_point) {
        pthread_t thread;
        char got = 0;
        void *returned;
        if (IS_SANITIZED) /* those have the library's */
                return;
        open_pair();
        ck_assert_int_eq(pthread_create(&thread, NULL, send_and_receive_canceled, &got), 0);
        ck_assert_int_eq(pthread_join(thread, &returned), 0);
        ck_assert_ptr_eq(returned, &got);
        ck_assert_int_eq(got, 'x');
        close_pair();
}

RUN_TESTS("nowait", 30, test_what_is_sent_is_received, test_a_full_or_empty_socket_is_not_waited_for,
          test_a_peer_that_is_gone_is_an_error_and_no_signal, test_a_received_descriptor_is_closed_on_exec,
          test_neither_is_a_cancellation_point)
