/* SPDX-License-Identifier: MIT */
/*
 * qload.c - load generator for queue servers: options, the run, the crash run. README.md explains
 * options and output.
 *
 * One thread drives all connections with epoll. A thread that owns one connection with one request in
 * flight waits for that alone, without the books of many. -T gives the workers a second thread. In the array of connections workers come first.
 */
#include "qload.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "account.h"
#include "conn.h"
#include "util.h"

static const struct Protocol *const protocols[] = {
        &proto_beanstalkd,   &proto_redis_list, &proto_redis_list_many,
        &proto_redis_stream, &proto_gearman,    &proto_nats_jetstream,
        &proto_nats_core,    &proto_eqd,        &proto_eqd_many,
};

#define N_PROTOCOLS (sizeof(protocols) / sizeof(protocols[0]))

enum {
        POLL_MS = 20,
        EVENTS_MAX = 64,
        CLOCK_EVERY = 32, /* a blocking connection looks at the clock every so many answers */
        DRAIN_DEPTH_MIN = 64,
        CONTROL_ID = 999,         /* the connection that runs setup() and recover() */
        WORKER_LEAD_USEC = 20000, /* -T: workers wait at the server before the first submit */
        WORKER_LAG_USEC = 50000,  /* -T: the last tasks arrive */
};

struct Options opt = {
        .queue = "q",
        .n_producers = 1,
        .submit_depth = 1,
        .work_depth = 1,
        .payload = 100,
        .backlog_cap = 2000,
        .seconds = 2,
        .idle_seconds = 1.5,
};

static const struct Protocol *protocol;
static uint64_t next_seq; /* producers' thread only */
static uint64_t end_ns, kill_ns, last_delivery_ns;
static _Atomic bool stop_workers;

/* ---- one connection ---- */

static void put_hex(char *at, uint64_t value) {
        for (int i = 15; i >= 0; i--, value >>= 4)
                at[i] = "0123456789abcdef"[value & 15];
}

/* stamp_ns 0: now */
static void submit(struct Conn *c, uint64_t stamp_ns) {
        uint64_t first = next_seq;

        if (opt.latency && !stamp_ns)
                stamp_ns = now_ns();
        for (unsigned i = 0; i < protocol->per_put; i++) {
                char *payload = c->payloads + (size_t)i * opt.payload;

                put_hex(payload, next_seq++);
                if (opt.latency)
                        put_hex(payload + 16, stamp_ns);
        }
        protocol->put(c, flight_add(&c->flight, first, protocol->per_put, stamp_ns), c->payloads);
        count(&counters.n_submitted, protocol->per_put);
}

static bool may_submit(const struct Conn *c) {
        if (c->worker || c->lost || c->flight.n_open >= opt.submit_depth)
                return false;
        if (opt.count && next_seq >= opt.first_seq + opt.count)
                return false;
        return !opt.n_workers || (int64_t)(counters.n_submitted - counters.n_received) < (int64_t)opt.backlog_cap;
}

static void refill(struct Conn *c) {
        while (may_submit(c))
                submit(c, 0);
}

static void consume(struct Conn *c) {
        bool (*input)(struct Conn *) = c->worker ? protocol->work_input : protocol->put_input;

        while (in_left(c) && input(c))
                ;
}

/* ---- the run ---- */

/* Also the clock of the run: sends the SIGKILL of a crash run when it is time. */
static bool run_over(void) {
        static uint64_t n_seen;
        uint64_t now = now_ns();

        if (stop_workers)
                return true;
        if (is_draining()) {
                if (counters.n_received != n_seen) {
                        n_seen = counters.n_received;
                        last_delivery_ns = now;
                }
                return (double)(now - last_delivery_ns) > opt.idle_seconds * NS_PER_SEC;
        }
        if (kill_ns && now >= kill_ns) {
                kill(opt.kill_pid, SIGKILL);
                kill_ns = 0;
                return false;
        }
        if (opt.count && (opt.n_workers ? counters.n_done : counters.n_accepted) >= opt.count)
                return true;
        return now >= end_ns;
}

static void start_conn(struct Conn *c) {
        if (c->worker)
                protocol->work(c);
        refill(c);
        conn_send(c);
}

static void run_blocking(struct Conn *c) {
        for (unsigned turn = 1; !conn_any_lost; turn++) {
                size_t before = in_left(c);

                if (!conn_receive(c))
                        return;
                bool timed_out = in_left(c) == before;
                if ((timed_out || turn % CLOCK_EVERY == 0) && run_over())
                        return;
                consume(c);
                refill(c);
                conn_send(c);
        }
}

static void watch(int epoll_fd, int operation, struct Conn *c) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };

        if (c->want_write)
                event.events |= EPOLLOUT;
        if (epoll_ctl(epoll_fd, operation, c->fd, &event))
                die("epoll_ctl");
}

static void turn_conn(struct Conn *c, uint32_t events) {
        if (c->lost)
                return;
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                if (!conn_receive(c))
                        return;
                consume(c);
        }
        refill(c);
        conn_send(c);
}

/* Producers that paused at the backlog cap go on; write interest follows what is left to send. */
static void after_turn(int epoll_fd, struct Conn *c) {
        if (c->lost)
                return;
        if (opt.n_workers && may_submit(c)) {
                refill(c);
                conn_send(c);
        }

        bool want_write = c->out.end > c->out.start;
        if (want_write != c->want_write) {
                c->want_write = want_write;
                watch(epoll_fd, EPOLL_CTL_MOD, c);
        }
}

static void run_epoll(struct Conn *conns, unsigned n) {
        struct epoll_event events[EVENTS_MAX];
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

        if (epoll_fd < 0)
                die("epoll_create1");
        for (unsigned i = 0; i < n; i++)
                watch(epoll_fd, EPOLL_CTL_ADD, &conns[i]);
        while (!conn_any_lost) {
                int n_ready = epoll_wait(epoll_fd, events, EVENTS_MAX, POLL_MS);

                for (int i = 0; i < n_ready; i++)
                        turn_conn(events[i].data.ptr, events[i].events);
                for (unsigned i = 0; i < n; i++)
                        after_turn(epoll_fd, &conns[i]);
                if (run_over())
                        break;
        }
        close(epoll_fd);
}

static void run_conns(struct Conn *conns, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                start_conn(&conns[i]);
        if (n == 1 && !(fcntl(conns[0].fd, F_GETFL) & O_NONBLOCK))
                run_blocking(&conns[0]);
        else
                run_epoll(conns, n);
}

/*
 * One connection, one request at a time, opt.rate per second. A late answer moves the schedule, so a
 * stall of the server counts once; with open_loop the schedule stands, and latency counts from the
 * planned time.
 */
static void run_paced(struct Conn *c) {
        uint64_t next = now_ns(), gap_ns = (uint64_t)(NS_PER_SEC / opt.rate);

        while (!conn_any_lost && !run_over()) {
                struct timespec until = { (time_t)(next / NS_PER_SEC), (long)(next % NS_PER_SEC) };

                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
                submit(c, opt.open_loop ? next : 0);
                conn_send(c);
                while (c->flight.n_open) {
                        if (!conn_receive(c))
                                return;
                        consume(c);
                        conn_send(c);
                        if (c->flight.n_open && run_over())
                                return;
                }
                next += gap_ns;
                if (!opt.open_loop && next < now_ns())
                        next = now_ns();
        }
}

static void run_producers(struct Conn *producers) {
        if (opt.rate > 0)
                run_paced(producers);
        else
                run_conns(producers, opt.n_producers);
}

static void *worker_thread(void *workers) {
        run_conns(workers, opt.n_workers);
        return NULL;
}

/* Returns the seconds that the producers took, or, in a drain, those until the last delivery. */
static double run(struct Conn *conns) {
        bool own_thread = opt.worker_thread && opt.n_workers;
        pthread_t thread;

        if (own_thread) {
                if (pthread_create(&thread, NULL, worker_thread, conns))
                        die("pthread_create");
                usleep(WORKER_LEAD_USEC);
        }

        uint64_t start = now_ns();
        if (own_thread)
                run_producers(conns + opt.n_workers);
        else if (opt.rate > 0)
                run_paced(conns);
        else
                run_conns(conns, opt.n_workers + opt.n_producers);
        uint64_t end = is_draining() ? last_delivery_ns : now_ns();

        if (own_thread) {
                usleep(WORKER_LAG_USEC);
                stop_workers = true;
                pthread_join(thread, NULL);
        }
        return (double)(end - start) / NS_PER_SEC;
}

static double cpu_seconds(void) {
        struct rusage u;

        getrusage(RUSAGE_SELF, &u);
        return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static struct Conn *open_conns(void) {
        struct Conn *conns = allocate(opt.n_workers + opt.n_producers + 1, sizeof(struct Conn));
        bool alone = opt.worker_thread || !opt.n_workers || !opt.n_producers;
        bool block_worker = alone && opt.n_workers == 1 && opt.work_depth == 1;
        bool block_producer = opt.rate > 0 || (alone && opt.n_producers == 1 && opt.submit_depth == 1);

        for (unsigned i = 0; i < opt.n_workers; i++)
                conn_open(&conns[i], protocol, i, true, block_worker);
        for (unsigned i = opt.n_workers; i < opt.n_workers + opt.n_producers; i++)
                conn_open(&conns[i], protocol, i, false, block_producer);
        return conns;
}

/* Runs the load and prints the result line. */
static void measure(void) {
        struct Conn control, *conns;

        conn_open(&control, protocol, CONTROL_ID, true, true);
        if (protocol->setup)
                protocol->setup(&control);
        conns = open_conns();

        double cpu = cpu_seconds();
        uint64_t start = now_ns();
        end_ns = start + (uint64_t)(opt.seconds * NS_PER_SEC);
        kill_ns = opt.kill_pid ? start + (uint64_t)(opt.kill_after * NS_PER_SEC) : 0;
        last_delivery_ns = start;
        double seconds = run(conns);
        account_print(seconds, cpu_seconds() - cpu);

        for (unsigned i = 0; i < opt.n_workers + opt.n_producers; i++)
                conn_close(&conns[i]);
        conn_close(&control);
        free(conns);
}

/* ---- crash run: the caller restarts the server, then the tasks that are left are drained ---- */

static void wait_for_restart(void) {
        char line[16];

        printf("down\n");
        fflush(stdout);
        if (!fgets(line, sizeof(line), stdin)) {
                fprintf(stderr, "qload: no line on standard input after the restart\n");
                exit(3);
        }
}

static void drain_after_crash(void) {
        struct Conn control, *workers;

        opt.n_producers = 0;
        if (!opt.n_workers)
                opt.n_workers = 1;
        if (opt.work_depth < DRAIN_DEPTH_MIN)
                opt.work_depth = DRAIN_DEPTH_MIN;
        conn_any_lost = false;
        account_begin_drain();

        conn_open(&control, protocol, CONTROL_ID, true, true);
        if (protocol->recover)
                protocol->recover(&control);
        if (protocol->setup)
                protocol->setup(&control);
        workers = open_conns();
        last_delivery_ns = now_ns();
        run_conns(workers, opt.n_workers);
        if (conn_any_lost) {
                fprintf(stderr, "qload: the server went away while it was drained\n");
                exit(1);
        }

        for (unsigned i = 0; i < opt.n_workers; i++)
                conn_close(&workers[i]);
        conn_close(&control);
        free(workers);
}

static int crash_verdict(void) {
        uint64_t n_errors = counters.n_errors;

        if (!conn_any_lost) {
                fprintf(stderr, "qload: the server did not die\n");
                return 1;
        }
        wait_for_restart();
        drain_after_crash();
        account_print_ledger(next_seq - opt.first_seq, n_errors);
        return 0;
}

/* ---- command line ---- */

__attribute__((noreturn)) static void usage(void) {
        fprintf(stderr, "usage: qload -P PROTOCOL -a ADDRESS [options]; README.md explains them\nprotocols:");
        for (size_t i = 0; i < N_PROTOCOLS; i++)
                fprintf(stderr, " %s", protocols[i]->name);
        fprintf(stderr, "\n");
        exit(2);
}

__attribute__((noreturn)) static void refuse(const char *why) {
        fprintf(stderr, "qload: %s\n", why);
        exit(2);
}

static unsigned number(const char *text) {
        char *end;
        unsigned long value = strtoul(text, &end, 10);

        if (*end || end == text || value > 1u << 30)
                usage();
        return (unsigned)value;
}

static void choose_protocol(const char *name) {
        for (size_t i = 0; i < N_PROTOCOLS; i++)
                if (strcmp(name, protocols[i]->name) == 0)
                        protocol = protocols[i];
        if (!protocol)
                usage();
}

static void parse_option(int letter, const char *value) {
        switch (letter) {
        case 'P':
                choose_protocol(value);
                break;
        case 'a':
                opt.address = value;
                break;
        case 'q':
                opt.queue = value;
                break;
        case 'p':
                opt.n_producers = number(value);
                break;
        case 'w':
                opt.n_workers = number(value);
                break;
        case 'd':
                opt.submit_depth = number(value);
                break;
        case 'D':
                opt.work_depth = number(value);
                break;
        case 's':
                opt.payload = number(value);
                break;
        case 't':
                opt.seconds = atof(value);
                break;
        case 'n':
                opt.count = strtoull(value, NULL, 10);
                break;
        case 'S':
                opt.first_seq = strtoull(value, NULL, 10);
                break;
        case 'c':
                opt.backlog_cap = number(value);
                break;
        case 'r':
                opt.rate = atof(value);
                break;
        case 'i':
                opt.idle_seconds = atof(value);
                break;
        case 'K':
                opt.kill_pid = (int)number(value);
                break;
        case 'k':
                opt.kill_after = atof(value);
                break;
        case 'M':
                opt.volatile_queue = true;
                break;
        case 'g':
                opt.drain = true;
                break;
        case 'T':
                opt.worker_thread = true;
                break;
        case 'L':
                opt.latency = true;
                break;
        case 'O':
                opt.open_loop = true;
                break;
        default:
                usage();
        }
}

static void check_options(void) {
        if (!protocol || !opt.address)
                usage();
        if (opt.payload < PAYLOAD_MIN)
                opt.payload = PAYLOAD_MIN;
        if (opt.drain)
                opt.n_producers = 0;
        if (!opt.n_producers && !opt.n_workers)
                refuse("neither producers nor workers");
        if (!opt.submit_depth || !opt.work_depth)
                refuse("a depth of 0 does nothing");
        if ((opt.n_workers || opt.kill_pid) && !protocol->work)
                refuse("this protocol only submits");
        if (opt.rate > 0 && (opt.n_producers != 1 || (opt.n_workers && !opt.worker_thread)))
                refuse("-r needs -p 1, and -T if there are workers");
        if (opt.kill_pid && opt.worker_thread)
                refuse("-K and -T do not go together");
}

int main(int argc, char **argv) {
        int letter;

        while ((letter = getopt(argc, argv, "P:a:q:p:w:d:D:s:t:n:S:c:r:i:K:k:MgTLO")) != -1)
                parse_option(letter, optarg);
        if (optind != argc)
                usage();
        check_options();

        signal(SIGPIPE, SIG_IGN);
        next_seq = opt.first_seq;
        account_init();
        measure();
        if (opt.kill_pid)
                return crash_verdict();
        if (conn_any_lost) {
                fprintf(stderr, "qload: a connection was lost\n");
                return 1;
        }
        return 0;
}
