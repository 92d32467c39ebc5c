/* SPDX-License-Identifier: MIT */
#include "spawner/request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/ioprio.h"
#include "base/util.h"
#include "start-request.h"
#include "test.h"

static StartRequest good(void) {
        static const char *const argv[] = { "cmd", "", "arg", NULL };
        static const char *const env[] = { "A=1", "EQD_TASK=q/7", NULL };
        return start_request(argv, env, "/tmp");
}

static int check(const StartRequest *q, unsigned n_fds) {
        return request_check_start(&q->start, q->strings, q->start.n_strings, n_fds);
}

TEST(a_well_formed_request_passes) {
        StartRequest q = good();
        ck_assert_int_eq(check(&q, 0), 0);
        q.start.flags = SPAWN_HAS_STDIN | SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR | SPAWN_SET_IDENTITY | SPAWN_SET_NICE |
                        SPAWN_SET_IOPRIO;
        q.start.nice = -20;
        q.start.ioprio = ioprio_make(IOPRIO_REALTIME, 0);
        q.start.n_groups = SPAWN_GROUPS_MAX;
        q.start.n_rlimits = 1;
        q.start.rlimits[0] = (SpawnRlimit) { .resource = RLIMIT_CORE, .soft = 1, .hard = 1 };
        ck_assert_int_eq(check(&q, 3), 0);
}

#define REFUSED(change)                                                                                                \
        do {                                                                                                           \
                StartRequest q = good();                                                                               \
                SpawnStart *m = &q.start;                                                                              \
                change;                                                                                                \
                ck_assert_msg(check(&q, (unsigned)__builtin_popcount(m->flags & 0xf)) == -EINVAL, #change);            \
        } while (0)

TEST(what_is_out_of_range_is_refused) {
        REFUSED(m->flags = 1u << 8);
        REFUSED(m->header.slot = SPAWN_SLOTS_MAX);
        REFUSED(m->n_groups = SPAWN_GROUPS_MAX + 1);
        REFUSED(m->n_rlimits = SPAWN_RLIMITS_MAX + 1);
        REFUSED(m->n_argv = 0);
        REFUSED(m->n_argv = UINT32_MAX);
        REFUSED(m->n_env = UINT32_MAX);
        REFUSED(m->umask = 01000);
        REFUSED((m->flags = SPAWN_SET_NICE, m->nice = 20));
        REFUSED((m->flags = SPAWN_SET_NICE, m->nice = -21));
        REFUSED((m->flags = SPAWN_SET_IOPRIO, m->ioprio = 0));                                  /* no class */
        REFUSED((m->flags = SPAWN_SET_IOPRIO, m->ioprio = ioprio_make(IOPRIO_IDLE, 1)));        /* has no levels */
        REFUSED((m->flags = SPAWN_SET_IOPRIO, m->ioprio = ioprio_make(IOPRIO_BEST_EFFORT, 8))); /* no such level */
        REFUSED((m->flags = SPAWN_SET_IOPRIO, m->ioprio = ioprio_make(IOPRIO_IDLE + 1, 0)));    /* no such class */
        REFUSED((m->flags = SPAWN_SET_IDENTITY, m->uid = UINT32_MAX));
        REFUSED((m->flags = SPAWN_SET_IDENTITY, m->gid = UINT32_MAX));
        REFUSED((m->n_groups = 1, m->groups[0] = UINT32_MAX));
        REFUSED((m->n_rlimits = 1, m->rlimits[0].resource = RLIM_NLIMITS));
        REFUSED((m->n_rlimits = 1, m->rlimits[0].soft = 2, m->rlimits[0].hard = 1));
}

TEST(strings_must_be_as_many_as_announced_and_ended) {
        REFUSED(m->n_argv++);
        REFUSED(m->n_env--);
        REFUSED(q.strings[0] = '\0');                 /* no command */
        REFUSED(q.strings[m->n_strings - 1] = 'x');   /* not ended */
        REFUSED(m->n_strings = 0);                    /* none at all */
        REFUSED(m->n_strings = SPAWN_INLINE_MAX + 1); /* more than ride in a message */
        REFUSED((m->flags = SPAWN_HAS_STRINGS, m->n_strings = SPAWN_STRINGS_MAX + 1));
        StartRequest q = good();
        ck_assert_int_eq(request_check_start(&q.start, q.strings, q.start.n_strings - 1, 0), -EINVAL);
}

TEST(descriptors_must_be_as_many_as_the_flags_say) {
        StartRequest q = good();
        ck_assert_int_eq(check(&q, 1), -EINVAL);
        q.start.flags = SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR;
        ck_assert_int_eq(check(&q, 1), -EINVAL);
        ck_assert_int_eq(check(&q, 3), -EINVAL);
        ck_assert_int_eq(check(&q, 2), 0);
}

TEST(a_variable_is_found_in_the_environment_only) {
        static const char *const argv[] = { "EQD_TASK=argument", NULL }, *const env[] = { "B=EQD_TASK=x",
                                                                                          "EQD_TASK=q/7", NULL };
        StartRequest q = start_request(argv, env, "EQD_TASK=cwd");
        ck_assert_str_eq(request_find_env(&q.start, q.strings, "EQD_TASK="), "EQD_TASK=q/7");
        ck_assert_ptr_null(request_find_env(&q.start, q.strings, "C="));
}

/* n: strings in argv and env. */
static bool is_plain(uint32_t n, const char *cwd, const char *out, const char *err, char *copied) {
        static char strings[4096];
        SpawnStart start = { .n_argv = n };
        size_t size = 0;

        for (uint32_t i = 0; i < n; i++, size++) /* empty ones */
                strings[size] = '\0';
        const char *paths[] = { cwd, out, err };
        for (size_t i = 0; i < 3; i++) {
                strcpy(strings + size, paths[i]);
                size += strlen(paths[i]) + 1;
        }
        Request r = { .start = &start, .strings = strings, .n_strings = size, .copied = copied };
        return request_is_plain(&r);
}

TEST(plain_is_what_opens_no_file_and_needs_no_memory) {
        enum { MOST = REQUEST_POINTERS_PLAIN - 2 };
        char copied[] = "";
        ck_assert(is_plain(1, "/", "", "", NULL));
        ck_assert(is_plain(1, "", "", "", NULL));
        ck_assert(is_plain(MOST, "/", "", "", NULL));
        ck_assert(!is_plain(MOST + 1, "/", "", "", NULL));
        ck_assert(!is_plain(1, "/", "x", "", NULL));
        ck_assert(!is_plain(1, "/", "", "x", NULL));
        ck_assert(!is_plain(1, "", "x", "", NULL));
        ck_assert(!is_plain(1, "", "", "x", NULL));
        ck_assert(!is_plain(1, "/", "x", "x", NULL));
        ck_assert(!is_plain(1, "/", "", "", copied));
}

/* ---- over a line ---- */

typedef struct Line {
        int fds[2];
        Inbox *inbox;
} Line;

static void line_open(Line *l) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->fds), 0);
        l->inbox = inbox_new();
        ck_assert_ptr_nonnull(l->inbox);
}

static void line_close(Line *l) {
        close_fd(l->fds[0]);
        close_fd(l->fds[1]);
        (void)munmap(l->inbox, sizeof(*l->inbox));
}

static void line_send(const Line *l, const void *data, size_t n, const int *fds, unsigned n_fds) {
        struct iovec iov = { .iov_base = (void *)data, .iov_len = n };
        ck_assert_int_eq(fdpass_send(l->fds[0], &iov, 1, fds, n_fds), 0);
}

static int make_memfd(const void *data, size_t n) {
        int fd = memfd_create("strings", MFD_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, data, n), (int)n);
        return fd;
}

/* The strings in a memfd instead of behind the struct. */
static Request take_with_memfd(Line *l, StartRequest *q, int fd) {
        Request r;
        q->start.flags = SPAWN_HAS_STRINGS;
        line_send(l, &q->start, sizeof(q->start), &fd, 1);
        close_fd(fd);
        ck_assert_int_eq(request_receive(l->fds[1], l->inbox, false, &r), 0);
        return r;
}

TEST(a_request_is_taken_from_the_line_and_handed_on_with_its_descriptors) {
        Line a, b;
        Request r, again;
        StartRequest q = good();

        line_open(&a);
        line_open(&b);
        ck_assert_int_eq(request_receive(a.fds[1], a.inbox, false, &r), -EAGAIN);
        q.start.flags = SPAWN_HAS_STDIN;
        line_send(&a, &q, start_request_size(&q), &a.fds[0], 1);
        ck_assert_int_eq(request_receive(a.fds[1], a.inbox, false, &r), 0);
        ck_assert_int_eq(request_open(&r), 0);
        ck_assert_int_eq(request_forward(b.fds[0], &r), 0);
        request_close(&r);
        ck_assert_int_eq(request_receive(b.fds[1], b.inbox, true, &again), 0);
        ck_assert_int_eq(request_open(&again), 0);
        ck_assert_uint_eq(again.message.n_fds, 1);
        ck_assert_int_eq(memcmp(again.strings, q.strings, q.start.n_strings), 0);
        request_close(&again);
        line_close(&a);
        line_close(&b);
}

TEST(long_strings_come_in_a_memfd_and_are_copied) {
        Line l;
        StartRequest q = good();

        line_open(&l);
        int memfd = make_memfd(q.strings, q.start.n_strings), ours = dup(memfd);
        Request r = take_with_memfd(&l, &q, memfd);
        ck_assert_int_eq(request_open(&r), 0);
        ck_assert_int_eq(pwrite(ours, "xxxxxxxxxxxx", 12, 0), 12); /* changes nothing that was checked */
        ck_assert_str_eq(r.strings, "cmd");
        request_close(&r);
        close_fd(ours);
        line_close(&l);
}

TEST(a_memfd_that_is_too_short_or_beside_inline_strings_is_refused) {
        Line l;
        Request r;
        StartRequest q = good();

        line_open(&l);
        r = take_with_memfd(&l, &q, make_memfd(q.strings, q.start.n_strings - 1));
        ck_assert_int_eq(request_open(&r), -EINVAL);
        request_close(&r);
        int fd = make_memfd(q.strings, q.start.n_strings);
        line_send(&l, &q, start_request_size(&q), &fd, 1);
        close_fd(fd);
        ck_assert_int_eq(request_receive(l.fds[1], l.inbox, false, &r), 0);
        ck_assert_int_eq(request_open(&r), -EINVAL);
        request_close(&r);
        line_close(&l);
}

TEST(without_memory_for_long_strings_the_request_is_refused) {
        Line l;
        StartRequest q = good();

        line_open(&l);
        Request r = take_with_memfd(&l, &q, make_memfd(q.strings, q.start.n_strings));
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_int_eq(request_open(&r), -ENOMEM);
        request_close(&r);
        line_close(&l);
}

TEST(a_message_that_is_cut_or_too_short_is_refused) {
        static char big[sizeof(Inbox) + 1];
        Line l;
        Request r;
        StartRequest q = good();

        line_open(&l);
        line_send(&l, &q, sizeof(SpawnStart) - 1, NULL, 0);
        ck_assert_int_eq(request_receive(l.fds[1], l.inbox, false, &r), 0);
        ck_assert_int_eq(request_open(&r), -EINVAL);
        memcpy(big, &q, start_request_size(&q));
        line_send(&l, big, sizeof(big), NULL, 0);
        ck_assert_int_eq(request_receive(l.fds[1], l.inbox, false, &r), 0);
        ck_assert(r.message.cut);
        ck_assert_int_eq(request_open(&r), -EINVAL);
        line_close(&l);
}

TEST(more_descriptors_than_a_request_can_have_are_closed_and_refused) {
        Line l;
        Request r;
        StartRequest q = good();
        struct msghdr m = { 0 };
        union {
                struct cmsghdr align;
                char buf[CMSG_SPACE(6 * sizeof(int))];
        } control = { 0 };
        struct iovec iov = { .iov_base = &q, .iov_len = start_request_size(&q) };

        line_open(&l);
        m = (struct msghdr) {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr) { .cmsg_level = SOL_SOCKET,
                                .cmsg_type = SCM_RIGHTS,
                                .cmsg_len = CMSG_LEN(6 * sizeof(int)) };
        for (size_t i = 0; i < 6; i++)
                memcpy(CMSG_DATA(c) + i * sizeof(int), &l.fds[0], sizeof(int));
        ck_assert_int_gt(sendmsg(l.fds[0], &m, 0), 0);
        ck_assert_int_eq(request_receive(l.fds[1], l.inbox, false, &r), 0);
        ck_assert(r.message.cut);
        ck_assert_int_eq(request_open(&r), -EINVAL);
        request_close(&r);
        line_close(&l);
}

TEST(the_end_of_the_line_is_a_message_of_nothing) {
        Line l;
        Request r;
        line_open(&l);
        l.fds[0] = close_fd(l.fds[0]);
        ck_assert_int_eq(request_receive(l.fds[1], l.inbox, true, &r), 0);
        ck_assert_uint_eq(r.message.n, 0);
        line_close(&l);
}

RUN_TESTS("request", 30, test_a_well_formed_request_passes, test_what_is_out_of_range_is_refused,
          test_strings_must_be_as_many_as_announced_and_ended, test_descriptors_must_be_as_many_as_the_flags_say,
          test_a_variable_is_found_in_the_environment_only, test_plain_is_what_opens_no_file_and_needs_no_memory,
          test_a_request_is_taken_from_the_line_and_handed_on_with_its_descriptors,
          test_long_strings_come_in_a_memfd_and_are_copied,
          test_a_memfd_that_is_too_short_or_beside_inline_strings_is_refused,
          test_without_memory_for_long_strings_the_request_is_refused,
          test_a_message_that_is_cut_or_too_short_is_refused,
          test_more_descriptors_than_a_request_can_have_are_closed_and_refused,
          test_the_end_of_the_line_is_a_message_of_nothing)
