/* SPDX-License-Identifier: MIT */
#pragma once

/* An eqd that says what a test tells it to: a listening socket in a directory of its own, whole requests read from a
 * connection, answers written to it. Blocking, with a limit by the test's own time-out. */

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/scan.h"

typedef struct FakeEqd {
        char dir[64], path[100];
        int listen_fd, fd; /* fd: the connection, -1 before fake_accept() */
        EqBuffer in;
        size_t taken; /* bytes of `in` that belong to the last request */
        EqBuffer out; /* what is said while it gathers */
        bool gathers;
        int passed[4];
        unsigned n_passed;
} FakeEqd;

static inline void fake_init(FakeEqd *e) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };

        *e = (FakeEqd) { .fd = -1 };
        (void)snprintf(e->dir, sizeof(e->dir), "/tmp/eq-test-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(e->dir));
        (void)snprintf(e->path, sizeof(e->path), "%s/eqd.sock", e->dir);
        (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", e->path);
        e->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_ge(e->listen_fd, 0);
        ck_assert_int_eq(bind(e->listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
        ck_assert_int_eq(listen(e->listen_fd, 8), 0);
}

static inline void fake_hangup(FakeEqd *e) {
        if (e->fd >= 0)
                close(e->fd);
        for (unsigned i = 0; i < e->n_passed; i++)
                close(e->passed[i]);
        e->fd = -1;
        e->n_passed = 0;
        e->in.len = e->taken = 0;
}

static inline void fake_done(FakeEqd *e) {
        fake_hangup(e);
        close(e->listen_fd);
        unlink(e->path);
        rmdir(e->dir);
        eq_buffer_done(&e->in);
}

static inline void fake_accept(FakeEqd *e) {
        e->fd = accept4(e->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_int_ge(e->fd, 0);
}

static inline ssize_t fake_receive(FakeEqd *e) {
        char control[CMSG_SPACE(sizeof(int) * 4)];

        ck_assert_int_eq(eq_buffer_reserve(&e->in, 65536), 0);
        struct iovec iov = { .iov_base = e->in.data + e->in.len, .iov_len = 65536 };
        struct msghdr mh = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
        };
        ssize_t n = recvmsg(e->fd, &mh, MSG_CMSG_CLOEXEC);
        for (struct cmsghdr *cm = n > 0 ? CMSG_FIRSTHDR(&mh) : NULL; cm; cm = CMSG_NXTHDR(&mh, cm)) {
                unsigned n_fds = (unsigned)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                ck_assert_uint_le(e->n_passed + n_fds, 4);
                memcpy(e->passed + e->n_passed, CMSG_DATA(cm), n_fds * sizeof(int));
                e->n_passed += n_fds;
        }
        if (n > 0)
                e->in.len += (size_t)n;
        return n;
}

/* The next whole request, valid until the next call. False at the end of the connection. */
static inline bool fake_read(FakeEqd *e, EqMessage *ret) {
        EqScan scan = EQ_SCAN_NULL;

        eq_buffer_consume(&e->in, e->taken);
        e->taken = 0;
        for (;;) {
                if (e->in.len > 0 && eq_scan(&scan, e->in.data, e->in.len, 8 << 20) == EQ_SCAN_DONE)
                        break;
                if (fake_receive(e) <= 0)
                        return false;
        }
        e->taken = scan.pos;
        ck_assert_int_eq(eq_message_parse(eq_bytes(e->in.data, scan.pos), ret), 0);
        return true;
}

/* The next request, which must be for this method. Its msgid. */
static inline uint32_t fake_expect(FakeEqd *e, const char *method, EqMessage *ret) {
        EqMessage m;

        ck_assert(fake_read(e, &m));
        ck_assert_msg(eq_bytes_eq(m.method, eq_str(method)), "%.*s instead of %s", (int)m.method.len, m.method.data,
                      method);
        if (ret)
                *ret = m;
        return m.msgid;
}

static inline void fake_write(FakeEqd *e, const void *data, size_t n) {
        for (const char *p = data; n > 0;) {
                ssize_t done = send(e->fd, p, n, MSG_NOSIGNAL);
                ck_assert_int_gt(done, 0);
                p += done;
                n -= (size_t)done;
        }
}

static inline void fake_send(FakeEqd *e, EqBuffer *b) {
        ck_assert(!b->failed);
        if (e->gathers)
                ck_assert_int_eq(eq_buffer_append(&e->out, b->data, b->len), 0);
        else
                fake_write(e, b->data, b->len);
        eq_buffer_done(b);
}

/* What is said between these two arrives together: who waits a limited time for the rest of it has it. */
static inline void fake_gather(FakeEqd *e) {
        e->gathers = true;
}

static inline void fake_say_gathered(FakeEqd *e) {
        e->gathers = false;
        fake_send(e, &e->out);
}

static inline void fake_reply_nil(FakeEqd *e, uint32_t msgid) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_response(&pk, msgid);
        msgpack_pack_nil(&pk);
        fake_send(e, &b);
}

static inline void fake_reply_id(FakeEqd *e, uint32_t msgid, uint64_t queue, uint64_t seq) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_response(&pk, msgid);
        eq_pack_id(&pk, (eq_task_id) { queue, seq });
        fake_send(e, &b);
}

static inline void fake_reply_ints(FakeEqd *e, uint32_t msgid, const int *values, size_t n) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_response(&pk, msgid);
        msgpack_pack_array(&pk, n);
        for (size_t i = 0; i < n; i++)
                msgpack_pack_int(&pk, values[i]);
        fake_send(e, &b);
}

static inline void fake_reply_error_with(FakeEqd *e, uint32_t msgid, eq_error code, const char *text,
                                         const EqErrorDetails *details) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_error(&pk, msgid, code, text, details);
        fake_send(e, &b);
}

static inline void fake_reply_error(FakeEqd *e, uint32_t msgid, eq_error code, const char *text) {
        fake_reply_error_with(e, msgid, code, text, NULL);
}

static inline void fake_reply_record(FakeEqd *e, uint32_t msgid, const EqSchema *schema, const void *rec) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_response(&pk, msgid);
        eq_pack_record(&pk, schema, rec);
        fake_send(e, &b);
}

/* The first call of a client that has come back. */
static inline void fake_take_hello(FakeEqd *e) {
        EqHelloReply reply = { 0 };
        fake_reply_record(e, fake_expect(e, "hello", NULL), &eq_schema_HelloReply, &reply);
}

/* A list of n records that lie one after the other. */
static inline void fake_reply_list(FakeEqd *e, uint32_t msgid, const EqSchema *schema, const void *recs, size_t n) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_response(&pk, msgid);
        msgpack_pack_array(&pk, n);
        for (size_t i = 0; i < n; i++)
                eq_pack_record(&pk, schema, (const char *)recs + i * schema->size);
        fake_send(e, &b);
}

static inline void fake_output_of(FakeEqd *e, uint64_t queue, uint64_t seq, unsigned attempt, int stream,
                                  const char *text) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_notify(&pk, "output");
        msgpack_pack_array(&pk, 4);
        eq_pack_id(&pk, (eq_task_id) { queue, seq });
        msgpack_pack_int(&pk, stream);
        eq_pack_bin(&pk, eq_str(text));
        msgpack_pack_unsigned_int(&pk, attempt);
        fake_send(e, &b);
}

static inline void fake_output(FakeEqd *e, uint64_t queue, uint64_t seq, int stream, const char *text) {
        fake_output_of(e, queue, seq, 1, stream, text);
}

static inline void fake_output_end(FakeEqd *e, uint64_t queue, uint64_t seq) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_notify(&pk, "output_end");
        msgpack_pack_array(&pk, 1);
        eq_pack_id(&pk, (eq_task_id) { queue, seq });
        fake_send(e, &b);
}
