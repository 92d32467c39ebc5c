/* SPDX-License-Identifier: MIT */
/* eqd-spawner alone: /bin/true started over the line as eqd does it, with two pipes each, beside a loop of posix_spawn() and
 * waitid(). Both in turn, medians of the rounds; the processes are where the kernel puts them. EQD_SPAWNER: the program. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"
#include "spawner/wire.h"

enum { N_STARTS = 300, N_ROUNDS = 9, IN_FLIGHT_MAX = 8, PIPES = 2 };

typedef struct Spawner {
        pid_t pid;
        int line;
        uint32_t epoch;
        int pipes[IN_FLIGHT_MAX][PIPES]; /* by slot: read ends */
} Spawner;

static _Noreturn void die(const char *what) {
        fprintf(stderr, "bench-spawn: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
}

static double now_sec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the spawner ---- */

static void spawner_open(Spawner *s, char *stock) {
        static char flag[] = "--stock", root[] = "--allow-root";
        char *argv[] = { getenv("EQD_SPAWNER"), flag, stock, root, NULL }, *env[] = { NULL };
        posix_spawn_file_actions_t actions;
        SpawnReady ready;
        int pair[2];

        if (!argv[0]) {
                fprintf(stderr, "bench-spawn: EQD_SPAWNER names the program; meson test --benchmark sets it\n");
                exit(EXIT_FAILURE);
        }
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                die("socketpair");
        int r = posix_spawn_file_actions_init(&actions);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, pair[1], SPAWN_FD);
        if (r == 0)
                r = posix_spawn(&s->pid, argv[0], &actions, NULL, argv, env);
        if (r != 0) {
                errno = r;
                die(argv[0]);
        }
        posix_spawn_file_actions_destroy(&actions);
        close_fd(pair[1]);
        s->line = pair[0];
        if (recv(s->line, &ready, sizeof(ready), 0) != sizeof(ready))
                die("READY");
        s->epoch = ready.header.epoch;
}

static void spawner_close(Spawner *s) {
        close_fd(s->line);
        (void)waitpid(s->pid, NULL, 0); /* it has killed what it had */
}

static void spawner_start(Spawner *s, uint32_t slot, uint64_t run) {
        static const char strings[] = "/bin/true\0PATH=/usr/bin:/bin\0/\0\0"; /* and the literal's own NUL */
        SpawnStart m = {
                .header = { .magic = SPAWN_MAGIC,
                            .version = SPAWN_VERSION,
                            .type = SPAWN_START,
                            .slot = slot,
                            .run = run,
                            .epoch = s->epoch },
                .flags = SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR | SPAWN_SET_IDENTITY,
                .uid = getuid(),
                .gid = getgid(),
                .n_argv = 1,
                .n_env = 1,
                .n_strings = sizeof(strings),
                .umask = 022,
        };
        struct iovec iov[] = { { .iov_base = &m, .iov_len = sizeof(m) },
                               { .iov_base = (char *)strings, .iov_len = sizeof(strings) } };
        int theirs[PIPES];

        for (int i = 0; i < PIPES; i++) {
                int fds[2];
                if (pipe2(fds, O_CLOEXEC) < 0)
                        die("pipe2");
                s->pipes[slot][i] = fds[0];
                theirs[i] = fds[1];
        }
        int r = fdpass_send(s->line, iov, ELEMENTSOF(iov), theirs, PIPES);
        if (r < 0) {
                errno = -r;
                die("START");
        }
        for (int i = 0; i < PIPES; i++)
                close_fd(theirs[i]);
}

/* Waits for one end; its slot. */
static uint32_t spawner_ended(Spawner *s) {
        SpawnEnded m;
        do {
                ssize_t n = recv(s->line, &m, sizeof(m), 0);
                if (n < (ssize_t)sizeof(m.header))
                        die("the line ended");
        } while (m.header.type != SPAWN_ENDED);
        if (m.error || m.exit != 0) {
                errno = m.error;
                die("/bin/true failed");
        }
        for (int i = 0; i < PIPES; i++)
                close_fd(s->pipes[m.header.slot][i]);
        return m.header.slot;
}

static double spawner_rate(char *stock, unsigned in_flight) {
        uint64_t run = 1;
        Spawner s;

        spawner_open(&s, stock);
        for (; run <= 20; run++) { /* warm */
                spawner_start(&s, 0, run);
                (void)spawner_ended(&s);
        }
        double began = now_sec();
        for (uint32_t slot = 0; slot < in_flight; slot++)
                spawner_start(&s, slot, run++);
        for (unsigned n = 0; n < N_STARTS; n++) {
                uint32_t slot = spawner_ended(&s);
                if (n + in_flight < N_STARTS)
                        spawner_start(&s, slot, run++);
        }
        double rate = N_STARTS / (now_sec() - began);
        spawner_close(&s);
        return rate;
}

/* ---- the peer ---- */

static void loop_start(void) {
        static char true_[] = "/bin/true", *argv[] = { true_, NULL }, *env[] = { NULL };
        pid_t pid;
        int r = posix_spawn(&pid, true_, NULL, NULL, argv, env);
        if (r != 0) {
                errno = r;
                die("posix_spawn");
        }
}

static double loop_rate(unsigned in_flight) {
        double began = now_sec();
        for (unsigned i = 0; i < in_flight; i++)
                loop_start();
        for (unsigned n = 0; n < N_STARTS; n++) {
                siginfo_t si;
                if (waitid(P_ALL, 0, &si, WEXITED) < 0)
                        die("waitid");
                if (n + in_flight < N_STARTS)
                        loop_start();
        }
        return N_STARTS / (now_sec() - began);
}

/* ---- */

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static double median(double *values) {
        qsort(values, N_ROUNDS, sizeof(double), compare);
        return values[N_ROUNDS / 2];
}

static void bench(const char *name, char *stock, unsigned in_flight) {
        double mine[N_ROUNDS], peer[N_ROUNDS];
        cpu_set_t cpus;

        for (int i = 0; i < N_ROUNDS; i++) {
                mine[i] = spawner_rate(stock, in_flight);
                peer[i] = loop_rate(in_flight);
        }
        CPU_ZERO(&cpus);
        (void)sched_getaffinity(0, sizeof(cpus), &cpus); /* for the text only */
        double m = median(mine), p = median(peer);
        printf("bench %s %.0f starts/s ratio %.2f of posix_spawn loop (%.0f starts/s; %s waiting, %u at once, "
               "unpinned, "
               "%d CPUs)\n",
               name, m, m / p, p, stock, in_flight, CPU_COUNT(&cpus));
        fflush(stdout);
}

int main(void) {
        static char none[] = "0", one[] = "1", two[] = "2", four[] = "4";
        bench("spawner-serial-stock-0", none, 1);
        bench("spawner-serial-stock-1", one, 1);
        bench("spawner-serial-stock-2", two, 1);
        bench("spawner-2-at-once", two, 2);
        bench("spawner-4-at-once", four, 4);
        return 0;
}
