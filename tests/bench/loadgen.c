/* SPDX-License-Identifier: MIT */
/* A load generator for eqd, light enough to be no part of what is measured, and the ceilings that eqd is compared with.
 * bench-eqd.py runs it. Counted commands print `N SECONDS`; a refused request ends the run with its text.
 *
 *   loadgen submit SOCKET QUEUE CONNECTIONS IN_FLIGHT BYTES TASKS SECONDS CPU   submits /bin/true with payloads of BYTES
 *                                                   until TASKS (0: no end) are accepted or SECONDS are over
 *   loadgen payloads SOCKET QUEUE CONNECTIONS IN_FLIGHT BYTES TASKS SECONDS CPU BATCH   the same of payloads for workers, BATCH
 *                                                   of them in one request
 *   loadgen run SOCKET QUEUE TASKS   TASKS times /bin/true: pauses, submits, and times from resume to the end of flush
 *   loadgen queues SOCKET N          makes queues q00000...
 *   loadgen idle SOCKET N            opens N connections, prints `ready`, waits for the end of standard input
 *   loadgen log FILE BYTES SECONDS   ceiling: appends so many bytes and syncs, again and again
 *   loadgen pingpong SECONDS CPU     ceiling: a request and an answer of that size over AF_UNIX, no work in between
 *   loadgen procs TIMES COMMAND ARG...  runs a command so often, one after the other, as a script does that keeps what it
 *                                    prints: a pipe each. What the last one printed is the second line
 *   loadgen spawn TASKS              ceiling: a loop of posix_spawn() and waitpid() of /bin/true
 *
 * CPU pins to that CPU; -1: not pinned. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/scan.h"

enum { MAX_CONNECTIONS = 64, BUFFER = 262144, PING = 133, PONG = EQ_ID_RESPONSE_MAX };

extern char **environ;

typedef struct Connection {
        int fd;
        char *buf;
        size_t len, in_flight;
} Connection;

typedef struct Load {
        Connection c[MAX_CONNECTIONS];
        size_t n_connections, depth;
        EqBuffer requests; /* depth copies of one request */
        size_t request_size;
        uint64_t n_sent, n_done, n_max;
} Load;

/* ---- small things ---- */

_Noreturn static void die(const char *what) {
        fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
        exit(1);
}

static uint64_t now_nsec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail */
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void print_count(uint64_t n, uint64_t since_nsec) {
        printf("%" PRIu64 " %.6f\n", n, (double)(now_nsec() - since_nsec) / 1e9);
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

static void write_all(int fd, const char *data, size_t n) {
        while (n > 0) {
                ssize_t k = send(fd, data, n, MSG_NOSIGNAL);
                if (k < 0)
                        die("send");
                data += k;
                n -= (size_t)k;
        }
}

static void read_all(int fd, char *data, size_t n) {
        while (n > 0) {
                ssize_t k = recv(fd, data, n, 0);
                if (k <= 0)
                        exit(0); /* the other end is through */
                data += k;
                n -= (size_t)k;
        }
}

/* ---- connections ---- */

static int connect_to(const char *path) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        if (strlen(path) >= sizeof(a.sun_path)) {
                errno = ENAMETOOLONG;
                die(path);
        }
        strcpy(a.sun_path, path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                die(path);
        return fd;
}

static void connection_open(Connection *c, const char *path) {
        *c = (Connection) { .fd = connect_to(path), .buf = malloc(BUFFER) };
        if (!c->buf)
                die("malloc");
}

static void check_answer(EqBytes raw) {
        EqMessage m;
        eq_error code;
        EqBytes text;
        if (eq_message_parse(raw, &m) < 0 || m.type != EQ_MSG_RESPONSE) {
                fprintf(stderr, "loadgen: that was no answer\n");
                exit(1);
        }
        if (eq_is_nil(m.error))
                return;
        if (eq_get_error(m.error, &code, &text, NULL) == 0)
                fprintf(stderr, "loadgen: eqd said: %.*s\n", (int)text.len, text.data);
        exit(1);
}

/* Takes in what is there; returns how many answers it held. */
static size_t connection_read(Connection *c) {
        ssize_t k = recv(c->fd, c->buf + c->len, BUFFER - c->len, 0);
        if (k <= 0)
                die("recv");
        c->len += (size_t)k;
        size_t at = 0, n = 0;
        for (;;) {
                EqScan scan = EQ_SCAN_NULL;
                if (at == c->len || eq_scan(&scan, c->buf + at, c->len - at, BUFFER) != EQ_SCAN_DONE)
                        break;
                check_answer(eq_bytes(c->buf + at, scan.pos));
                at += scan.pos;
                n++;
        }
        memmove(c->buf, c->buf + at, c->len - at);
        c->len -= at;
        return n;
}

static void call(Connection *c, EqMethodId method, const void *params) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_request(&pk, 1, eq_methods[method].name);
        eq_pack_params(&pk, eq_methods[method].params, params);
        write_all(c->fd, b.data, b.len);
        eq_buffer_done(&b);
        while (connection_read(c) == 0)
                ;
}

static void call_queue(Connection *c, EqMethodId method, const char *queue) {
        EqQueueName rec = { 0 };
        EQ_SET(&rec, QueueName, name, eq_str(queue));
        call(c, method, &rec);
}

/* ---- submit ---- */

static void pack_submit(EqBuffer *b, const char *queue, size_t n_payload) {
        EqBuffer argv = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&argv);
        EqSubmit rec = { 0 };
        char *payload = calloc(1, n_payload + 1);

        eq_pack_cstr(&pk, "/bin/true");
        EQ_SET(&rec, Submit, queue, eq_str(queue));
        EQ_SET(&rec, Submit, payload, eq_bytes(payload, n_payload));
        EQ_SET(&rec, Submit, argv, (EqArray) { .raw = eq_bytes(argv.data, argv.len), .n = 1 });
        pk = eq_packer(b);
        eq_pack_request(&pk, 1, "submit");
        eq_pack_params(&pk, &eq_schema_Submit, &rec);
        if (b->failed || argv.failed || !payload)
                die("out of memory");
        eq_buffer_done(&argv);
        free(payload);
}

static void pack_batch(EqBuffer *b, const char *queue, size_t n_payload, size_t batch) {
        EqBuffer tasks = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&tasks);
        char *payload = calloc(1, n_payload + 1);

        for (size_t i = 0; payload && i < batch; i++)
                msgpack_pack_bin_with_body(&pk, payload, n_payload);
        EqSubmitMany many = { .queue = eq_str(queue), .tasks = { .raw = eq_bytes(tasks.data, tasks.len), .n = batch } };
        EqSubmit one = { .queue = eq_str(queue) };
        EQ_SET(&one, Submit, payload, eq_bytes(payload, n_payload));
        pk = eq_packer(b);
        eq_pack_request(&pk, 1, batch > 1 ? "submit_many" : "submit");
        if (batch > 1)
                eq_pack_params(&pk, &eq_schema_SubmitMany, &many);
        else
                eq_pack_params(&pk, &eq_schema_Submit, &one);
        if (b->failed || tasks.failed || !payload)
                die("out of memory");
        eq_buffer_done(&tasks);
        free(payload);
}

static void load_open(Load *l, const char *path, size_t n_connections, size_t depth, uint64_t n_max) {
        *l = (Load) { .n_connections = n_connections, .depth = depth, .n_max = n_max ? n_max : UINT64_MAX };
        if (n_connections == 0 || n_connections > MAX_CONNECTIONS || depth == 0 || depth > 4096) {
                fprintf(stderr, "loadgen: 1..%d connections, 1..4096 in flight\n", MAX_CONNECTIONS);
                exit(2);
        }
        for (size_t i = 0; i < n_connections; i++)
                connection_open(&l->c[i], path);
}

static void load_init(Load *l, const char *path, const char *queue, size_t n_connections, size_t depth,
                      size_t n_payload, uint64_t n_max) {
        load_open(l, path, n_connections, depth, n_max);
        for (size_t i = 0; i < depth; i++)
                pack_submit(&l->requests, queue, n_payload);
        l->request_size = l->requests.len / depth;
}

static void load_deinit(Load *l) {
        for (size_t i = 0; i < l->n_connections; i++) {
                (void)close(l->c[i].fd); /* all answers are in */
                free(l->c[i].buf);
        }
        eq_buffer_done(&l->requests);
}

/* Fills the connection up to its depth, with one write. */
static void load_fill(Load *l, Connection *c) {
        uint64_t room = l->n_max - l->n_sent;
        size_t n = l->depth - c->in_flight;
        if (n > room)
                n = (size_t)room;
        write_all(c->fd, l->requests.data, n * l->request_size);
        c->in_flight += n;
        l->n_sent += n;
}

static void load_turn(Load *l, bool fill) {
        struct pollfd p[MAX_CONNECTIONS];
        for (size_t i = 0; i < l->n_connections; i++)
                p[i] = (struct pollfd) { .fd = l->c[i].fd, .events = POLLIN };
        /* Also with one connection, as libeq does. Who waits in recv() is woken once more per request: when the server takes
         * the request out of the socket, the kernel says that there is room, to whoever sleeps there for whatever reason. */
        if (poll(p, l->n_connections, -1) < 0)
                die("poll");
        for (size_t i = 0; i < l->n_connections; i++) {
                Connection *c = &l->c[i];
                if (!p[i].revents)
                        continue;
                size_t n = connection_read(c);
                c->in_flight -= n;
                l->n_done += n;
                if (fill)
                        load_fill(l, c);
        }
}

static uint64_t load_run(Load *l, double seconds) {
        uint64_t start = now_nsec(), end = start + (uint64_t)(seconds * 1e9);
        for (size_t i = 0; i < l->n_connections; i++)
                load_fill(l, &l->c[i]);
        while (l->n_done < l->n_sent)
                load_turn(l, now_nsec() < end);
        return start;
}

static int submit(char **a) {
        Load l;
        pin(atoi(a[7]));
        load_init(&l, a[0], a[1], strtoul(a[2], NULL, 10), strtoul(a[3], NULL, 10), strtoul(a[4], NULL, 10),
                  strtoull(a[5], NULL, 10));
        uint64_t start = load_run(&l, atof(a[6]));
        print_count(l.n_done, start);
        load_deinit(&l);
        return 0;
}

static int payloads(char **a) {
        Load l;
        size_t batch = strtoul(a[8], NULL, 10);
        if (batch == 0)
                batch = 1;
        pin(atoi(a[7]));
        load_open(&l, a[0], strtoul(a[2], NULL, 10), strtoul(a[3], NULL, 10), strtoull(a[5], NULL, 10) / batch);
        for (size_t i = 0; i < l.depth; i++)
                pack_batch(&l.requests, a[1], strtoul(a[4], NULL, 10), batch);
        l.request_size = l.requests.len / l.depth;
        uint64_t start = load_run(&l, atof(a[6]));
        print_count(l.n_done * batch, start);
        load_deinit(&l);
        return 0;
}

static int run(char **a) {
        Connection c;
        Load l;
        uint64_t n = strtoull(a[2], NULL, 10);

        connection_open(&c, a[0]);
        call_queue(&c, EQ_METHOD_QUEUE_PAUSE, a[1]);
        load_init(&l, a[0], a[1], 1, 64, 0, n);
        (void)load_run(&l, 3600); /* its start is not what is timed */
        load_deinit(&l);
        uint64_t start = now_nsec();
        call_queue(&c, EQ_METHOD_QUEUE_RESUME, a[1]);
        call_queue(&c, EQ_METHOD_QUEUE_FLUSH, a[1]);
        print_count(n, start);
        (void)close(c.fd); /* nothing is outstanding */
        free(c.buf);
        return 0;
}

/* ---- many ---- */

static int queues(char **a) {
        Connection c;
        long n = atol(a[1]);
        uint64_t start = now_nsec();

        connection_open(&c, a[0]);
        for (long i = 0; i < n; i++) {
                EqQueueCreate rec = { 0 };
                char name[EQ_NAME_MAX + 1];
                (void)snprintf(name, sizeof(name), "q%05ld", i); /* fits */
                EQ_SET(&rec, QueueCreate, name, eq_str(name));
                call(&c, EQ_METHOD_QUEUE_CREATE, &rec);
        }
        print_count((uint64_t)n, start);
        (void)close(c.fd); /* nothing is outstanding */
        free(c.buf);
        return 0;
}

static int idle(char **a) {
        for (long n = atol(a[1]); n > 0; n--)
                (void)connect_to(a[0]); /* open until we end */
        printf("ready\n");
        (void)fflush(stdout);
        while (getchar() != EOF)
                ;
        return 0;
}

/* ---- ceilings ---- */

_Noreturn static void pong(int fd) {
        char data[PING];
        for (;;) {
                read_all(fd, data, PING);
                write_all(fd, data, PONG);
        }
}

/* What one task at a time on disk costs without anything around it; into a file that has its blocks. */
static int sync_log(char **a) {
        enum { SIZE = 64 << 20 };
        static char data[65536];
        size_t bytes = (size_t)atoi(a[1]);
        uint64_t n = 0, start, end;
        off_t at = 0;
        int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || posix_fallocate(fd, 0, SIZE) != 0 || bytes == 0 || bytes > sizeof(data))
                die("log");
        memset(data, 'x', bytes);
        start = now_nsec();
        end = start + (uint64_t)(atof(a[2]) * 1e9);
        for (; now_nsec() < end && at + (off_t)bytes <= SIZE; n++, at += (off_t)bytes)
                if (pwrite(fd, data, bytes, at) != (ssize_t)bytes || fdatasync(fd) < 0)
                        die("log");
        print_count(n, start);
        (void)close(fd);
        return 0;
}

static int pingpong(char **a) {
        int pair[2];
        char data[PING] = { 0 };
        uint64_t n = 0, start, end;

        pin(atoi(a[1]));
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                die("socketpair");
        pid_t pid = fork();
        if (pid < 0)
                die("fork");
        if (pid == 0) {
                (void)close(pair[0]); /* the parent's, so that its end is seen */
                pong(pair[1]);
        }
        (void)close(pair[1]); /* the child's */
        start = now_nsec();
        end = start + (uint64_t)(atof(a[0]) * 1e9);
        for (; now_nsec() < end; n++) {
                write_all(pair[0], data, PING);
                read_all(pair[0], data, PONG);
        }
        print_count(n, start);
        (void)close(pair[0]); /* ends the child */
        return waitpid(pid, NULL, 0) == pid ? 0 : 1;
}

static int spawn(char **a) {
        static char *const argv[] = { (char *)"/bin/true", NULL };
        uint64_t n = strtoull(a[0], NULL, 10), start = now_nsec();
        for (uint64_t i = 0; i < n; i++) {
                pid_t pid;
                int r = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
                if (r != 0) {
                        errno = r;
                        die("posix_spawn");
                }
                if (waitpid(pid, NULL, 0) != pid)
                        die("waitpid");
        }
        print_count(n, start);
        return 0;
}

/* Its output, up to size - 1 bytes; those who it leaves behind may go on holding the pipe. */
static void run_command(char **argv, char *buf, size_t size) {
        posix_spawn_file_actions_t actions;
        size_t n = 0;
        pid_t pid;
        int out[2], status;

        if (pipe2(out, O_CLOEXEC) < 0)
                die("pipe2");
        int r = posix_spawn_file_actions_init(&actions);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
        if (r == 0)
                r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
        if (r != 0) {
                errno = r;
                die(argv[0]);
        }
        posix_spawn_file_actions_destroy(&actions);
        (void)close(out[1]); /* the command's */
        for (ssize_t got; n < size - 1 && (got = read(out[0], buf + n, size - 1 - n)) > 0;)
                n += (size_t)got;
        buf[n] = '\0';
        (void)close(out[0]);
        if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                fprintf(stderr, "loadgen: %s failed\n", argv[0]);
                exit(1);
        }
}

static int procs(int argc, char **argv) {
        char output[128];
        uint64_t n = strtoull(argv[0], NULL, 10), start = now_nsec();
        if (argc < 2 || n == 0)
                return 2;
        for (uint64_t i = 0; i < n; i++)
                run_command(argv + 1, output, sizeof(output));
        print_count(n, start);
        printf("%s", output);
        return 0;
}

int main(int argc, char **argv) {
        static const struct {
                const char *name;
                int n_args;
                int (*fn)(char **args);
        } commands[] = {
                { "submit", 8, submit }, { "payloads", 9, payloads }, { "run", 3, run },     { "queues", 2, queues },
                { "idle", 2, idle },     { "pingpong", 2, pingpong }, { "spawn", 1, spawn }, { "log", 3, sync_log },
        };
        for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
                if (strcmp(argv[1], commands[i].name) == 0 && argc == commands[i].n_args + 2)
                        return commands[i].fn(argv + 2);
        if (argc > 2 && strcmp(argv[1], "procs") == 0)
                return procs(argc - 2, argv + 2);
        fprintf(stderr, "usage: see the top of loadgen.c\n");
        return 2;
}
