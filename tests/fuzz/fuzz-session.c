/* SPDX-License-Identifier: MIT */
/* A whole session: what comes over the socket goes through receive, scan, parse, decode, dispatch and reply. First byte:
 * how the client behaves, second: how the rest is cut into chunks.
 *
 * A client that reads and half-closes must get a sequence of whole messages, then the end, and exactly the same bytes
 * however its own were cut, with descriptors along or without. One that vanishes, or meets an allocation that fails, must leave nothing behind. */

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fault.h"
#include "executor/runanswer.h"
#include "proto/memfd.h"
#include "server/server.h"
#include "target.h"

enum {
        VANISH = 1,
        DO_NOT_READ = 2,
        FAIL = 4,
        WITH_FDS = 0x80,
        N_FDS = EQ_FDS_MAX + 2,
        MAX_TURNS = 100000,
        N_PENDING = 64
};

static uv_loop_t loop;
static Users users;
static Server *server;
static uint64_t seq;
static PendingRequest *pending[N_PENDING];
static unsigned n_pending;
static int passed[N_FDS]; /* what goes along with each chunk of WITH_FDS: a payload, then what is none */

/* ---- a host that answers from nothing ---- */

static void handle_submit(void *host, const Request *rq, const void *params) {
        const EqSubmit *submit = params;

        FUZZ_CHECK(submit->payload.len <= EQ_PAYLOAD_MAX && submit->queue.len <= EQ_NAME_MAX);
        for (int fd; submit->payload_fd && (fd = session_take_fd(rq->session)) >= 0; close(fd)) {
                char byte;
                size_t n;
                if (eq_memfd_size(fd, &n) == 0)
                        FUZZ_CHECK(n == 1 && eq_memfd_read(fd, &byte, n) == 0 && byte == 'p');
        }
        request_reply_id(rq, (eq_task_id) { .queue = 1, .seq = ++seq });
}

static void forget(PendingRequest *p) {
        for (unsigned i = 0; i < n_pending; i++)
                if (pending[i] == p)
                        pending[i] = NULL;
}

static void handle_wait(void *host, const Request *rq, const void *params) {
        if (n_pending == N_PENDING) {
                request_error(rq, EQ_E_LIMIT, "enough");
                return;
        }
        PendingRequest *p = request_defer(rq, forget, NULL);
        if (p)
                pending[n_pending++] = p;
}

/* A large reply, larger than allowed for some. */
static void handle_list(void *host, const Request *rq, const void *params) {
        static const char zeros[65536];
        const EqList *list = params;
        ReplyWriter w;

        request_reply_begin(rq, &w);
        uint32_t n = list->limit % 100;
        msgpack_pack_array(&w.packer, n);
        for (uint32_t i = 0; i < n; i++)
                eq_pack_bin(&w.packer, eq_bytes(zeros, sizeof(zeros)));
        request_reply_end(rq, &w);
}

static void handle_record(void *host, const Request *rq, const void *params) {
        EqStat stat = { 0 };
        EQ_SET(&stat, Stat, version, eq_str("x"));
        request_reply_record(rq, &eq_schema_Stat, &stat);
}

static const RequestHandler handlers[_EQ_METHOD_MAX] = {
        [EQ_METHOD_SUBMIT] = handle_submit, [EQ_METHOD_SUBMIT_MANY] = handle_record, [EQ_METHOD_CANCEL] = handle_record,
        [EQ_METHOD_WAIT] = handle_wait,     [EQ_METHOD_LIST] = handle_list,          [EQ_METHOD_STAT] = handle_record,
};

static bool is_admin(void *host, const Identity *id) {
        return false;
}
static void ignore_session(void *host, Session *s) {
}
static void take_response(void *host, Session *s, const EqMessage *m) {
        RunAnswer a;
        run_answer_parse(m->error, m->result, 1, &a);
        FUZZ_CHECK(a.result.len <= EQ_RESULT_MAX && (a.refused == EQ_E_NONE) == (a.why[0] == 0));
}

static void start_server(void) {
        static const ServerHooks hooks = { .is_admin = is_admin,
                                           .session_closed = ignore_session,
                                           .session_unclogged = ignore_session,
                                           .session_response = take_response,
                                           .session_flushing = ignore_session };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ServerConfig config = { .listen_fd = fd, .group = (gid_t)-1 };
        char error[256];

        FUZZ_CHECK(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0 && listen(fd, 1) == 0);
        FUZZ_CHECK(uv_loop_init(&loop) == 0);
        FUZZ_CHECK(server_new(&loop, &users, &config, &hooks, handlers, NULL, error, sizeof(error), &server) == 0);
        server_start(server);
        FUZZ_CHECK(eq_memfd_new(eq_str("p"), &passed[0]) == 0);
        for (unsigned i = 1; i < N_FDS; i++)
                FUZZ_CHECK((passed[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
}

/* Rises by what is left open. */
static int lowest_free_fd(void) {
        int fd = dup(passed[0]);
        close(fd);
        return fd;
}

/* ---- the client ---- */

static void turn(void) {
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* Returns false at the end of the stream. `in` may be NULL: drop it. */
static bool receive(int fd, EqBuffer *in) {
        static char chunk[65536];

        for (;;) {
                ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
                if (n < 0 && errno == EAGAIN)
                        return true;
                if (n <= 0)
                        return false;
                FUZZ_CHECK(eq_buffer_append(in, chunk, (size_t)n) == 0);
        }
}

static int connect_session(void) {
        Identity *identity;
        User *user;
        Session *s;
        int pair[2];

        server->next_number = 0; /* it is in some answers */
        seq = 0;
        n_pending = 0;
        FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        FUZZ_CHECK(identity_new(1000, 1000, NULL, 0, &identity) == 0 && user_get(&users, 1000, &user) == 0);
        FUZZ_CHECK(user_charge(user, USER_CONNECTIONS, 1));
        FUZZ_CHECK(session_new(server, pair[0], identity, user, &s) == 0);
        return pair[1];
}

static ssize_t send_chunk(int fd, const uint8_t *data, size_t n, bool with_fds) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(passed))];
        } control = {
                .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(passed)) }
        };
        struct iovec iov = { .iov_base = (void *)data, .iov_len = n };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        if (with_fds) {
                memcpy(CMSG_DATA(&control.header), passed, sizeof(passed));
                m.msg_control = &control;
                m.msg_controllen = sizeof(control);
        }
        return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_in_chunks(int fd, const uint8_t *data, size_t size, size_t step, uint8_t how, EqBuffer *in) {
        bool reads = !(how & DO_NOT_READ);
        for (unsigned i = 0; size > 0 && i < MAX_TURNS; i++) {
                ssize_t n = send_chunk(fd, data, MIN(step, size), how & WITH_FDS);
                if (n < 0 && errno != EAGAIN)
                        return;
                if (n > 0) {
                        data += n;
                        size -= (size_t)n;
                } else if (!reads)
                        return;
                turn();
                if (reads && !receive(fd, in))
                        return;
        }
}

static void answer_pending(void) {
        for (unsigned i = 0; i < n_pending; i++)
                if (pending[i]) {
                        PendingRequest *p = pending[i];
                        pending[i] = NULL;
                        request_reply_nil(&p->request);
                        pending_request_done(p);
                }
}

static void check_nothing_is_left(void) {
        for (unsigned i = 0; i < MAX_TURNS && server->n_sessions > 0; i++)
                turn();
        turn(); /* the close callbacks */
        FUZZ_CHECK(server->n_sessions == 0 && server->input_bytes == 0 && !users.by_uid);
        FUZZ_CHECK(list_is_empty(&server->to_flush) && list_is_empty(&server->to_serve));
        for (unsigned i = 0; i < n_pending; i++)
                FUZZ_CHECK(!pending[i]);
}

/* A read of eqd ends where a descriptor comes along, so not all is read in the first turn. */
static bool has_unread(int fd) {
        int n = 0;
        FUZZ_CHECK(ioctl(fd, SIOCOUTQ, &n) == 0);
        return n > 0;
}

/* The orderly client; all that it gets. */
static void run_reader(uint8_t how, const uint8_t *data, size_t size, size_t step, EqBuffer *in) {
        int free_fd = lowest_free_fd(), fd = connect_session();
        bool more = true;

        send_in_chunks(fd, data, size, step, how, in);
        (void)shutdown(fd, SHUT_WR);
        for (unsigned i = 0; i < MAX_TURNS && more; i++) {
                size_t had = in->len;
                turn();
                more = receive(fd, in);
                if (in->len == had && list_is_empty(&server->to_serve) && !has_unread(fd))
                        answer_pending(); /* everything else is done: so their place does not depend on the turns */
        }
        FUZZ_CHECK(!more);
        check_nothing_is_left();
        close(fd);
        FUZZ_CHECK(lowest_free_fd() == free_fd);
}

static void check_messages(const EqBuffer *in) {
        for (size_t done = 0; done < in->len;) {
                EqScan scan = EQ_SCAN_NULL;
                EqMessage m;
                FUZZ_CHECK(eq_scan(&scan, in->data + done, in->len - done, EQ_MESSAGE_MAX + 64) == EQ_SCAN_DONE);
                FUZZ_CHECK(eq_message_parse(eq_bytes(in->data + done, scan.pos), &m) == 0);
                FUZZ_CHECK(m.type == EQ_MSG_RESPONSE);
                done += scan.pos;
        }
}

static void run_rude(uint8_t how, const uint8_t *data, size_t size, size_t step) {
        EqBuffer in = EQ_BUFFER_NULL;
        int free_fd = lowest_free_fd(), fd = connect_session();

        if (how & FAIL)
                fault_set(FAULT_ALLOC, 1 + (how >> 3 & 7), how & 0x40);
        send_in_chunks(fd, data, size, step, how, &in);
        if (!(how & VANISH))
                answer_pending();
        close(fd);
        check_nothing_is_left();
        FUZZ_CHECK(lowest_free_fd() == free_fd);
        fault_set(FAULT_ALLOC, 0, false);
        eq_buffer_done(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (!server)
                start_server();
        if (size < 3)
                return 0;
        uint8_t how = data[0];
        size_t step = 1 + data[1];
        data += 2;
        size -= 2;
        step = MAX(step, size / 128);
        if (how & (VANISH | DO_NOT_READ | FAIL)) {
                run_rude(how, data, size, step);
                return 0;
        }

        EqBuffer once = EQ_BUFFER_NULL, chunks = EQ_BUFFER_NULL;
        run_reader(how, data, size, size, &once);
        run_reader(how, data, size, step, &chunks);
        check_messages(&once);

        FUZZ_CHECK(once.len == chunks.len && (once.len == 0 || memcmp(once.data, chunks.data, once.len) == 0));
        eq_buffer_done(&once);
        eq_buffer_done(&chunks);
        return 0;
}
