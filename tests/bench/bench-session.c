/* SPDX-License-Identifier: MIT */
/* What a request costs on its way through the server: sessions, scanner, decoder, dispatch and reply, with a handler that
 * only answers an id.
 *
 *   session-8x200   8 connections with 200 `submit ["q0", 100 bytes]` in flight each, against the same client and a bare
 *                   epoll server that counts bytes and answers as many
 *   session-1x1     1 connection, 1 in flight, server and client on one CPU, against a blocking recv/send loop
 *
 * Server and client are two processes. Peer and eqd are measured in turn; medians are printed. Usage: bench-session
 * [rounds [milliseconds per measurement]] */

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "server/server.h"

enum { MAX_CONNECTIONS = 8, MAX_IN_FLIGHT = 200, PAYLOAD = 100, REPLY = EQ_ID_RESPONSE_MAX, BUFFER = 65536 };

static char requests[MAX_IN_FLIGHT * 256];
static size_t request_size;

static void die(const char *what) {
        fprintf(stderr, "bench-session: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void pin(int cpu) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0)
                die("sched_setaffinity");
}

static uint64_t now_nsec(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void make_requests(void) {
        static const char payload[PAYLOAD];
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);

        for (uint32_t i = 0; i < MAX_IN_FLIGHT; i++) {
                msgpack_pack_array(&pk, 4);
                msgpack_pack_int(&pk, EQ_MSG_REQUEST);
                msgpack_pack_fix_uint32(&pk, i); /* so that all have one size */
                eq_pack_cstr(&pk, "submit");
                msgpack_pack_array(&pk, 2);
                eq_pack_cstr(&pk, "q0");
                eq_pack_bin(&pk, eq_bytes(payload, sizeof(payload)));
        }
        request_size = b.len / MAX_IN_FLIGHT;
        memcpy(requests, b.data, b.len);
        eq_buffer_done(&b);
}

/* ---- servers; each runs until it is killed ---- */

typedef void (*ServerMain)(int listen_fd);

static uint64_t next_seq;

static void handle_submit(void *host, const Request *rq, const void *params) {
        request_reply_id(rq, (eq_task_id) { .queue = 1, .seq = ++next_seq });
}
static bool is_admin(void *host, const Identity *id) {
        return false;
}
static void ignore_session(void *host, Session *s) {
}
static void ignore_response(void *host, Session *s, const EqMessage *m) {
}

static void run_eqd(int listen_fd) {
        static const RequestHandler handlers[_EQ_METHOD_MAX] = { [EQ_METHOD_SUBMIT] = handle_submit };
        static const ServerHooks hooks = { .is_admin = is_admin,
                                           .session_closed = ignore_session,
                                           .session_unclogged = ignore_session,
                                           .session_response = ignore_response };
        ServerConfig config = { .listen_fd = listen_fd, .group = (gid_t)-1 };
        Users users = USERS_NULL;
        Server *server = NULL;
        char error[256];
        uv_loop_t loop;

        if (uv_loop_init(&loop) < 0 ||
            server_new(&loop, &users, &config, &hooks, handlers, NULL, error, sizeof(error), &server) < 0)
                die("cannot start the server");
        server_start(server);
        uv_run(&loop, UV_RUN_DEFAULT);
}

/* One read, one write for as many requests as came. */
static void echo_once(int fd, size_t *carry) {
        static char in[BUFFER], out[BUFFER];
        ssize_t n = recv(fd, in, sizeof(in), MSG_DONTWAIT);

        if (n <= 0) {
                if (n == 0 || errno != EAGAIN)
                        close(fd);
                return;
        }
        size_t have = *carry + (size_t)n, count = have / request_size;
        *carry = have % request_size;
        if (count > 0 && send(fd, out, count * REPLY, MSG_NOSIGNAL) < 0)
                close(fd);
}

static void run_epoll_echo(int listen_fd) {
        static size_t carry[1024];
        struct epoll_event events[64], ev = { .events = EPOLLIN, .data.fd = listen_fd };
        int ep = epoll_create1(EPOLL_CLOEXEC);

        epoll_ctl(ep, EPOLL_CTL_ADD, listen_fd, &ev);
        for (;;) {
                int n = epoll_wait(ep, events, 64, -1);
                for (int i = 0; i < n; i++) {
                        int fd = events[i].data.fd;
                        if (fd != listen_fd) {
                                echo_once(fd, &carry[fd]);
                                continue;
                        }
                        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
                        ev.data.fd = fd;
                        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
                }
        }
}

static void run_ping_pong(int listen_fd) {
        static char in[BUFFER], out[REPLY];

        for (;;) {
                int fd = accept(listen_fd, NULL, NULL);
                while (fd >= 0 && recv(fd, in, sizeof(in), 0) > 0)
                        if (send(fd, out, sizeof(out), MSG_NOSIGNAL) < 0)
                                break;
                close(fd);
        }
}

/* ---- client ---- */

typedef struct Case {
        const char *name;
        unsigned n_connections, n_in_flight;
        int server_cpu, client_cpu;
        const char *placement;
        ServerMain peer;
        const char *peer_name;
} Case;

static void send_batch(int fd, unsigned n) {
        size_t len = n * request_size;
        for (size_t done = 0; done < len;) {
                ssize_t r = send(fd, requests + done, len - done, MSG_NOSIGNAL);
                if (r < 0)
                        die("send");
                done += (size_t)r;
        }
}

static void receive_batch(int fd, unsigned n, char *reply) {
        size_t len = (size_t)n * REPLY;
        for (size_t done = 0; done < len;) {
                ssize_t r = recv(fd, reply + done, len - done, 0);
                if (r <= 0)
                        die("recv");
                done += (size_t)r;
        }
}

/* Every reply of the first batch must be a task id for the right request: what is measured is what it claims to be. */
static void check_replies(const char *reply, unsigned n) {
        for (uint32_t i = 0; i < n; i++) {
                EqMessage m;
                EqIdRef id;
                if (eq_message_parse(eq_bytes(reply + (size_t)i * REPLY, REPLY), &m) < 0 || m.msgid != i ||
                    eq_get_id(m.result, &id) < 0 || id.id.seq != i + 1) {
                        fprintf(stderr, "bench-session: wrong reply to request %u\n", i);
                        exit(1);
                }
        }
}

static double run_client(const Case *c, const struct sockaddr_un *address, socklen_t len, bool check, uint64_t nsec) {
        static char reply[MAX_IN_FLIGHT * REPLY];
        int fds[MAX_CONNECTIONS];
        uint64_t n = 0, start, end;

        for (unsigned i = 0; i < c->n_connections; i++) {
                fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (connect(fds[i], (const struct sockaddr *)address, len) < 0)
                        die("connect");
        }
        for (unsigned i = 0; i < c->n_connections; i++) {
                send_batch(fds[i], c->n_in_flight);
                if (i == 0) {
                        receive_batch(fds[0], c->n_in_flight, reply);
                        if (check)
                                check_replies(reply, c->n_in_flight);
                        send_batch(fds[0], c->n_in_flight);
                }
        }
        start = now_nsec();
        do {
                for (unsigned i = 0; i < c->n_connections; i++) {
                        receive_batch(fds[i], c->n_in_flight, reply);
                        send_batch(fds[i], c->n_in_flight);
                }
                n += c->n_connections * c->n_in_flight;
                end = now_nsec();
        } while (end - start < nsec);
        for (unsigned i = 0; i < c->n_connections; i++)
                close(fds[i]);
        return (double)n * 1e9 / (double)(end - start);
}

static double measure(const Case *c, ServerMain run, bool check, uint64_t nsec) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t len = sizeof(address);

        if (bind(listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)) <
                    0 || /* an abstract name of the kernel's */
            getsockname(listen_fd, (struct sockaddr *)&address, &len) < 0 ||
            listen(listen_fd, 64) < 0)
                die("listen");
        pid_t pid = fork();
        if (pid < 0)
                die("fork");
        if (pid == 0) {
                pin(c->server_cpu);
                run(listen_fd);
                _exit(1);
        }
        close(listen_fd);
        pin(c->client_cpu);
        double rate = run_client(c, &address, len, check, nsec);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return rate;
}

static int compare(const void *x, const void *y) {
        double a = *(const double *)x, b = *(const double *)y;
        return (a > b) - (a < b);
}

static double median(double *values, unsigned n) {
        qsort(values, n, sizeof(*values), compare);
        return values[n / 2];
}

static void run_case(const Case *c, unsigned rounds, uint64_t nsec) {
        double eqd[64], peer[64];

        for (unsigned i = 0; i < rounds; i++) {
                peer[i] = measure(c, c->peer, false, nsec);
                eqd[i] = measure(c, run_eqd, true, nsec);
        }
        double e = median(eqd, rounds), p = median(peer, rounds);
        printf("bench %s %.0f req/s ratio %.2f of %s\n", c->name, e, e / p, c->peer_name);
        printf("# %s: %s, %u rounds, peer %.0f req/s\n", c->name, c->placement, rounds, p);
        fflush(stdout);
}

int main(int argc, char **argv) {
        int last = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
        const Case cases[] = {
                { "session-8x200", 8, 200, 0, 0, "server and client on CPU 0", run_epoll_echo, "epoll-echo" },
                { "session-8x200-2cpu", 8, 200, 0, last, "server on CPU 0, client on the last", run_epoll_echo,
                  "epoll-echo" },
                { "session-1x1", 1, 1, 0, 0, "server and client on CPU 0", run_ping_pong, "unix-ping-pong" },
        };
        unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;
        uint64_t nsec = (argc > 2 ? (uint64_t)atoi(argv[2]) : 1000) * 1000000;

        if (rounds < 1 || rounds > 64) {
                fprintf(stderr, "bench-session: 1 to 64 rounds\n");
                return 2;
        }
        make_requests();
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                run_case(&cases[i], rounds, nsec);
        return 0;
}
