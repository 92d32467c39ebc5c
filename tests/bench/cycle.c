/* SPDX-License-Identifier: MIT */
/* Cycles through a queue server: submit, receive, complete; eqd or beanstalkd, the same loop for both. bench-eqd.py runs it.
 *
 *   cycle eqd|eqd-confirmed|beanstalkd SOCKET PRODUCERS WORKERS DEPTH SECONDS CPU
 *   cycle drain eqd|beanstalkd SOCKET WORKERS DEPTH TASKS
 *
 * DEPTH: requests that each producer has unanswered, tasks that each worker may have. Producers pause while more than BACKLOG
 * tasks wait, so that what is measured is cycles and not the filling of a queue. The queue of eqd is `w`. CPU pins; -1 does
 * not. Prints `N SECONDS MSEC`: completed tasks, the time that took, and the CPU time that this program used itself.
 *
 * drain: so many tasks that wait already are received and completed; prints as the first. */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/scan.h"

enum { MAX_CONNECTIONS = 64, BUFFER = 1 << 20, BACKLOG = 20000, PAYLOAD = 100 };

typedef struct Connection {
        int fd;
        char *in;
        size_t len;
        EqBuffer out;
        size_t in_flight; /* of a producer */
} Connection;

typedef struct Cycle Cycle;

/* A server's protocol. take() handles one whole message at the front of what came and returns its length, 0: more is missing. */
typedef struct Protocol {
        const char *name;
        void (*start_worker)(Cycle *y, Connection *c);
        void (*submit)(Cycle *y, Connection *c);
        size_t (*take)(Cycle *y, Connection *c, const char *p, size_t n, int is_worker);
} Protocol;

struct Cycle {
        const Protocol *protocol;
        Connection c[MAX_CONNECTIONS]; /* producers, then workers */
        size_t n_producers, n_connections, depth;
        uint64_t n_submitted, n_completed;
        EqBuffer request; /* of a submit */
};

/* ---- small things ---- */

_Noreturn static void die(const char *what) {
        fprintf(stderr, "cycle: %s: %s\n", what, strerror(errno));
        exit(1);
}

_Noreturn static void unexpected(const char *p, size_t n) {
        fprintf(stderr, "cycle: the server said: %.*s\n", (int)(n < 200 ? n : 200), p);
        exit(1);
}

static uint64_t now_nsec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail */
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t used_msec(void) {
        struct rusage u;
        (void)getrusage(RUSAGE_SELF, &u); /* cannot fail */
        return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
               (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

static void pin(int cpu) {
        cpu_set_t set;
        if (cpu < 0)
                return;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0)
                die("sched_setaffinity");
}

static void put(Connection *c, const void *data, size_t n) {
        if (eq_buffer_append(&c->out, data, n) < 0)
                die("out of memory");
}

/* ---- eqd ---- */

static void serve(Cycle *y, Connection *c, bool confirm) {
        EqWorkerServe rec = { 0 };
        if (confirm)
                EQ_SET(&rec, WorkerServe, confirm, true);
        rec.queues = (EqArray) { .raw = eq_bytes("\xa1w", 2), .n = 1 };
        EQ_SET(&rec, WorkerServe, credit, y->depth);
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_request(&pk, 1, "worker_serve");
        eq_pack_params(&pk, &eq_schema_WorkerServe, &rec);
}

static void eqd_start_worker(Cycle *y, Connection *c) {
        serve(y, c, false);
}

static void confirmed_start_worker(Cycle *y, Connection *c) {
        serve(y, c, true);
}

static void eqd_submit(Cycle *y, Connection *c) {
        static const char payload[PAYLOAD];
        if (y->request.len == 0) {
                EqSubmit rec = { .queue = eq_str("w"), .payload = eq_bytes(payload, sizeof(payload)) };
                msgpack_packer pk = eq_packer(&y->request);
                eq_pack_request(&pk, 1, "submit");
                eq_pack_params(&pk, &eq_schema_Submit, &rec);
        }
        put(c, y->request.data, y->request.len);
}

static size_t eqd_take(Cycle *y, Connection *c, const char *p, size_t n, int is_worker) {
        EqScan scan = EQ_SCAN_NULL;
        EqMessage m;
        if (eq_scan(&scan, p, n, BUFFER) != EQ_SCAN_DONE)
                return 0;
        if (eq_message_parse(eq_bytes(p, scan.pos), &m) < 0 ||
            (m.type == EQ_MSG_NOTIFY && !eq_bytes_eq(m.method, eq_str("run_confirmed"))) ||
            (m.type == EQ_MSG_RESPONSE && !eq_is_nil(m.error)))
                unexpected(p, scan.pos);
        if (m.type == EQ_MSG_REQUEST) {
                msgpack_packer pk = eq_packer(&c->out);
                eq_pack_response(&pk, m.msgid);
                msgpack_pack_nil(&pk);
                y->n_completed++;
        } else if (!is_worker)
                c->in_flight--;
        return scan.pos;
}

/* ---- beanstalkd ---- */

static void beanstalkd_start_worker(Cycle *y, Connection *c) {
        for (size_t i = 0; i < y->depth; i++)
                put(c, "reserve\r\n", 9);
}

static void beanstalkd_submit(Cycle *y, Connection *c) {
        char text[PAYLOAD + 64];
        int n = snprintf(text, sizeof(text), "put 0 0 120 %d\r\n%0*d\r\n", PAYLOAD, PAYLOAD, 0);
        put(c, text, (size_t)n);
}

static size_t beanstalkd_take(Cycle *y, Connection *c, const char *p, size_t n, int is_worker) {
        const char *end = memchr(p, '\n', n);
        unsigned long long id;
        size_t size, line = end ? (size_t)(end - p) + 1 : 0;
        if (!end)
                return 0;
        if (strncmp(p, "INSERTED", 8) == 0) {
                c->in_flight--;
                return line;
        }
        if (strncmp(p, "DELETED", 7) == 0) {
                y->n_completed++;
                return line;
        }
        if (sscanf(p, "RESERVED %llu %zu", &id, &size) != 2)
                unexpected(p, n);
        if (n < line + size + 2)
                return 0;
        char text[80];
        int k = snprintf(text, sizeof(text), "delete %llu\r\nreserve\r\n", id);
        put(c, text, (size_t)k);
        return line + size + 2;
}

static const Protocol protocols[] = {
        { "eqd", eqd_start_worker, eqd_submit, eqd_take },
        { "eqd-confirmed", confirmed_start_worker, eqd_submit, eqd_take },
        { "beanstalkd", beanstalkd_start_worker, beanstalkd_submit, beanstalkd_take },
};

/* ---- the loop ---- */

static void open_connection(Connection *c, const char *path) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        if (strlen(path) >= sizeof(a.sun_path)) {
                errno = ENAMETOOLONG;
                die(path);
        }
        strcpy(a.sun_path, path);
        c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        c->in = malloc(BUFFER + 1);
        if (c->fd < 0 || !c->in || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                die(path);
        c->in[BUFFER] = 0;
}

static void flush(Connection *c) {
        size_t done = 0;
        while (done < c->out.len) {
                ssize_t k = send(c->fd, c->out.data + done, c->out.len - done, MSG_NOSIGNAL);
                if (k < 0)
                        die("send");
                done += (size_t)k;
        }
        c->out.len = 0;
}

static void receive(Cycle *y, Connection *c, int is_worker) {
        ssize_t k = recv(c->fd, c->in + c->len, BUFFER - c->len, MSG_DONTWAIT);
        if (k < 0 && errno == EAGAIN)
                return;
        if (k <= 0)
                die("recv");
        c->len += (size_t)k;
        size_t at = 0;
        for (size_t n; at < c->len && (n = y->protocol->take(y, c, c->in + at, c->len - at, is_worker)) > 0;)
                at += n;
        memmove(c->in, c->in + at, c->len - at);
        c->len -= at;
}

static void fill(Cycle *y, Connection *c) {
        while (c->in_flight < y->depth && y->n_submitted - y->n_completed < BACKLOG) {
                y->protocol->submit(y, c);
                c->in_flight++;
                y->n_submitted++;
        }
}

static void turn(Cycle *y) {
        struct pollfd p[MAX_CONNECTIONS];
        for (size_t i = 0; i < y->n_connections; i++) {
                if (i < y->n_producers)
                        fill(y, &y->c[i]);
                flush(&y->c[i]);
                p[i] = (struct pollfd) { .fd = y->c[i].fd, .events = POLLIN };
        }
        if (poll(p, y->n_connections, 1000) < 0)
                die("poll");
        for (size_t i = 0; i < y->n_connections; i++)
                if (p[i].revents)
                        receive(y, &y->c[i], i >= y->n_producers);
}

static void start(Cycle *y, const char *protocol, const char *path, int cpu) {
        for (y->protocol = protocols; strcmp(y->protocol->name, protocol) != 0;)
                if (++y->protocol == protocols + sizeof(protocols) / sizeof(protocols[0])) {
                        errno = EPROTONOSUPPORT;
                        die(protocol);
                }
        pin(cpu);
        for (size_t i = 0; i < y->n_connections; i++)
                open_connection(&y->c[i], path);
        for (size_t i = y->n_producers; i < y->n_connections; i++)
                y->protocol->start_worker(y, &y->c[i]);
}

/* ---- the measurements ---- */

static void print_result(const Cycle *y, uint64_t begin) {
        printf("%" PRIu64 " %.6f %" PRIu64 "\n", y->n_completed, (double)(now_nsec() - begin) / 1e9, used_msec());
}

static int drain(char **a) {
        static Cycle y;
        y.n_connections = strtoul(a[2], NULL, 10);
        y.depth = strtoul(a[3], NULL, 10);
        uint64_t n = strtoull(a[4], NULL, 10);
        if (y.n_connections > MAX_CONNECTIONS || y.depth == 0)
                return 2;
        start(&y, a[0], a[1], -1);
        uint64_t begin = now_nsec();
        while (y.n_completed < n)
                turn(&y);
        for (size_t i = 0; i < y.n_connections; i++)
                flush(&y.c[i]);
        print_result(&y, begin);
        return 0;
}

int main(int argc, char **argv) {
        static Cycle y;
        if (argc == 7 && strcmp(argv[1], "drain") == 0)
                return drain(argv + 2);
        if (argc != 8) {
                fprintf(stderr, "usage: see the top of cycle.c\n");
                return 2;
        }
        y.n_producers = strtoul(argv[3], NULL, 10);
        y.n_connections = y.n_producers + strtoul(argv[4], NULL, 10);
        y.depth = strtoul(argv[5], NULL, 10);
        if (y.n_connections > MAX_CONNECTIONS || y.depth == 0) {
                fprintf(stderr, "cycle: at most %d connections, a depth of at least 1\n", MAX_CONNECTIONS);
                return 2;
        }
        start(&y, argv[1], argv[2], atoi(argv[7]));
        uint64_t begin = now_nsec(), end = begin + (uint64_t)(atof(argv[6]) * 1e9);
        while (now_nsec() < end)
                turn(&y); /* what is in flight at the end is not waited for: beanstalkd does not answer behind a reserve */
        print_result(&y, begin);
        return 0;
}
