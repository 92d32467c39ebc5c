/* SPDX-License-Identifier: MIT */
/*
 * ceilings.c - what this machine can do without any queue in between.
 *
 *   ceilings pingpong          100-byte request, 16-byte answer over AF_UNIX, by placement
 *   ceilings stream            one-way AF_UNIX throughput, by write size
 *   ceilings spawn             starting /bin/true in several ways
 *   ceilings spawnloop N P     runs /bin/true N times, P at once: the floor for command runners
 *   ceilings sync DIR          append + fdatasync in DIR
 *   ceilings clock             cost of reading clocks
 */
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

extern char **environ;

enum {
        REQUEST = 100,
        ANSWER = 16,
        MESSAGE = 100,
        SAMPLES_MAX = 2000000,
        MIB = 1 << 20,
        ANY_CPU = -1,
};

static char *const TRUE_ARGV[] = { "/bin/true", NULL };

/* ---- samples ---- */

struct Samples {
        uint64_t *ns;
        size_t n;
        uint64_t start, last;
};

static struct Samples samples_start(void) {
        struct Samples s = { .ns = allocate(SAMPLES_MAX, sizeof(uint64_t)) };

        s.start = s.last = now_ns();
        return s;
}

static void sample(struct Samples *s) {
        uint64_t now = now_ns();

        s->ns[s->n++] = now - s->last;
        s->last = now;
}

static bool running(const struct Samples *s, double seconds) {
        return s->n < SAMPLES_MAX && (double)(s->last - s->start) < seconds * NS_PER_SEC;
}

static int compare_u64(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

static void samples_print(struct Samples *s, const char *name) {
        if (s->n) {
                qsort(s->ns, s->n, sizeof(*s->ns), compare_u64);
                printf("%-42s %9.0f/s", name, (double)s->n / ((double)(s->last - s->start) / NS_PER_SEC));
                printf("  p50 %8.1f us", (double)s->ns[s->n / 2] / 1e3);
                printf("  p99 %8.1f us", (double)s->ns[s->n * 99 / 100] / 1e3);
                printf("  p99.9 %8.1f us", (double)s->ns[s->n * 999 / 1000] / 1e3);
                printf("  max %8.1f us  n %zu\n", (double)s->ns[s->n - 1] / 1e3, s->n);
        }
        free(s->ns);
}

/* ---- CPUs ---- */

/* The n-th CPU that this process may use, or ANY_CPU. */
static int usable_cpu(int n) {
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof(set), &set))
                die("sched_getaffinity");
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
                if (CPU_ISSET(cpu, &set) && n-- == 0)
                        return cpu;
        return ANY_CPU;
}

static void pin(int cpu) {
        cpu_set_t set;

        if (cpu == ANY_CPU)
                return;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set))
                die("sched_setaffinity");
}

/* ---- pingpong ---- */

static bool read_all(int fd, char *to, size_t n) {
        while (n) {
                ssize_t got = read(fd, to, n);

                if (got <= 0)
                        return false;
                to += got;
                n -= (size_t)got;
        }
        return true;
}

static void __attribute__((noreturn)) pong(int fd, bool with_epoll) {
        char data[REQUEST];
        struct epoll_event event = { .events = EPOLLIN };
        int epoll = epoll_create1(EPOLL_CLOEXEC);

        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        for (;;) {
                if (with_epoll && epoll_wait(epoll, &event, 1, -1) < 0)
                        _exit(1);
                if (!read_all(fd, data, REQUEST) || write(fd, data, ANSWER) != ANSWER)
                        _exit(0);
        }
}

static void pingpong(const char *name, int client_cpu, int server_cpu, bool with_epoll) {
        int pair[2];
        char data[REQUEST] = { 0 };

        fflush(stdout);
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
                die("socketpair");
        pid_t client = fork();
        if (client < 0)
                die("fork");
        if (client) {
                close(pair[0]);
                close(pair[1]);
                waitpid(client, NULL, 0);
                return;
        }

        pid_t server = fork();
        if (server == 0) {
                close(pair[0]);
                pin(server_cpu);
                pong(pair[1], with_epoll);
        }
        close(pair[1]);
        pin(client_cpu);
        struct Samples s = samples_start();
        while (running(&s, 1)) {
                if (write(pair[0], data, REQUEST) != REQUEST || !read_all(pair[0], data, ANSWER))
                        die("pingpong");
                sample(&s);
        }
        samples_print(&s, name);
        fflush(stdout);
        close(pair[0]);
        waitpid(server, NULL, 0);
        _exit(0);
}

static void all_pingpong(void) {
        int first = usable_cpu(0), second = usable_cpu(1);

        pingpong("pingpong, unpinned", ANY_CPU, ANY_CPU, false);
        pingpong("pingpong, same CPU", first, first, false);
        pingpong("pingpong, same CPU, server with epoll", first, first, true);
        if (second == ANY_CPU)
                return;
        pingpong("pingpong, other CPU", first, second, false);
        pingpong("pingpong, other CPU, server with epoll", first, second, true);
}

/* ---- stream ---- */

static void __attribute__((noreturn)) stream_writer(int fd, size_t chunk, bool touch) {
        char *data = allocate(MIB, 1);
        uint64_t end = now_ns() + NS_PER_SEC, seq = 0;

        while (now_ns() < end) {
                for (size_t at = 0; touch && at + MESSAGE <= chunk; at += MESSAGE) {
                        memcpy(data + at, &seq, sizeof(seq));
                        data[at + MESSAGE - 1] = 1;
                        seq++;
                }
                if (write(fd, data, chunk) < 0)
                        break;
        }
        _exit(0);
}

/* touch: the writer fills in every message and the reader looks at every message. */
static void stream(size_t chunk, bool touch) {
        int pair[2], size = MIB;
        char *data = allocate(MIB, 1);
        uint64_t bytes = 0, start, sum = 0;
        ssize_t n;

        fflush(stdout);
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
                die("socketpair");
        setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        if (chunk > MESSAGE)
                chunk -= chunk % MESSAGE;
        pid_t writer = fork();
        if (writer == 0) {
                close(pair[1]);
                stream_writer(pair[0], chunk, touch);
        }
        close(pair[0]);
        start = now_ns();
        while ((n = read(pair[1], data, 65536)) > 0) {
                bytes += (uint64_t)n;
                for (ssize_t at = 0; touch && at + MESSAGE <= n; at += MESSAGE)
                        sum += (unsigned char)data[at + MESSAGE - 1];
        }
        double seconds = (double)(now_ns() - start) / NS_PER_SEC;
        printf("stream, %5zu bytes per write%-15s %8.0f MB/s  %6.2f M messages/s of %d bytes%s\n", chunk,
               touch ? ", touched" : "", (double)bytes / seconds / 1e6, (double)bytes / MESSAGE / seconds / 1e6,
               MESSAGE, touch && !sum ? " (no data)" : "");
        waitpid(writer, NULL, 0);
        close(pair[1]);
        free(data);
}

/* ---- spawn ---- */

enum How { POSIX_SPAWN, VFORK_EXEC, FORK_EXEC, FORK_EXIT };

static void start_child(enum How how) {
        pid_t child = -1;

        switch (how) {
        case POSIX_SPAWN:
                if (posix_spawn(&child, TRUE_ARGV[0], NULL, NULL, TRUE_ARGV, environ))
                        die("posix_spawn");
                return;
        case VFORK_EXEC:
                child = vfork();
                break;
        case FORK_EXEC:
        case FORK_EXIT:
                child = fork();
                break;
        }
        if (child < 0)
                die("fork");
        if (child == 0) {
                if (how != FORK_EXIT)
                        execve(TRUE_ARGV[0], TRUE_ARGV, environ);
                _exit(how == FORK_EXIT ? 0 : 127);
        }
}

static void spawn(const char *name, enum How how, int at_once, size_t touched_mib) {
        char label[96], *ballast = touched_mib ? allocate(touched_mib, MIB) : NULL;
        struct Samples s;
        int live = 0;

        if (ballast)
                memset(ballast, 1, touched_mib * MIB);
        for (s = samples_start(); running(&s, 1.5); sample(&s)) {
                for (; live < at_once; live++)
                        start_child(how);
                if (wait(NULL) > 0)
                        live--;
        }
        while (wait(NULL) > 0)
                ;
        snprintf(label, sizeof(label), "%s, %d at once, %zu MiB touched", name, at_once, touched_mib);
        samples_print(&s, label);
        free(ballast);
}

static void all_spawn(void) {
        for (int at_once = 1; at_once <= 2; at_once++) {
                spawn("posix_spawn", POSIX_SPAWN, at_once, 0);
                spawn("vfork+exec", VFORK_EXEC, at_once, 0);
                spawn("fork+exec", FORK_EXEC, at_once, 0);
        }
        spawn("fork+exit", FORK_EXIT, 1, 0);
        spawn("posix_spawn", POSIX_SPAWN, 1, 256);
        spawn("fork+exec", FORK_EXEC, 1, 256);
}

static void spawnloop(int count, int at_once) {
        int live = 0;

        while (count || live) {
                for (; count && live < at_once; live++, count--)
                        start_child(POSIX_SPAWN);
                if (wait(NULL) > 0)
                        live--;
        }
}

/* ---- sync ---- */

static void sync_file(const char *directory, const char *name, size_t size, bool preallocated, bool with_fsync) {
        enum { FILE_MIB = 64 };
        char path[4096], *data = allocate(size, 1), *zeros = allocate(MIB, 1);

        snprintf(path, sizeof(path), "%s/ceilings.%d", directory, (int)getpid());
        int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                die(path);
        unlink(path);
        memset(data, 7, size);
        if (preallocated) {
                for (int i = 0; i < FILE_MIB; i++)
                        if (write(fd, zeros, MIB) != MIB)
                                die("write");
                fsync(fd);
                lseek(fd, 0, SEEK_SET);
        }
        struct Samples s = samples_start();
        while (running(&s, 2) && (!preallocated || (s.n + 1) * size < (size_t)FILE_MIB * MIB)) {
                if (write(fd, data, size) != (ssize_t)size)
                        die("write");
                if (with_fsync ? fsync(fd) : fdatasync(fd))
                        die("fdatasync");
                sample(&s);
        }
        samples_print(&s, name);
        close(fd);
        free(data);
        free(zeros);
}

static void all_sync(const char *directory) {
        sync_file(directory, "4 KiB + fdatasync, growing file", 4096, false, false);
        sync_file(directory, "4 KiB + fdatasync, written file", 4096, true, false);
        sync_file(directory, "64 KiB + fdatasync, growing file", 65536, false, false);
        sync_file(directory, "64 KiB + fdatasync, written file", 65536, true, false);
        sync_file(directory, "4 KiB + fsync, growing file", 4096, false, true);
        sync_file(directory, "100 B + fdatasync, growing file", 100, false, false);
}

/* ---- clock ---- */

enum { CLOCK_CALLS = 1000000 };

static void print_cost(const char *name, uint64_t start) {
        printf("%-42s %9.1f ns\n", name, (double)(now_ns() - start) / CLOCK_CALLS);
}

static void clock_cost(const char *name, clockid_t id) {
        struct timespec t;
        uint64_t start = now_ns();

        for (int i = 0; i < CLOCK_CALLS; i++)
                clock_gettime(id, &t);
        print_cost(name, start);
}

static void all_clock(void) {
        clock_cost("CLOCK_MONOTONIC", CLOCK_MONOTONIC);
        clock_cost("CLOCK_MONOTONIC_COARSE", CLOCK_MONOTONIC_COARSE);
        clock_cost("CLOCK_REALTIME", CLOCK_REALTIME);
        clock_cost("CLOCK_PROCESS_CPUTIME_ID", CLOCK_PROCESS_CPUTIME_ID);
        clock_cost("CLOCK_THREAD_CPUTIME_ID", CLOCK_THREAD_CPUTIME_ID);

        uint64_t start = now_ns();
        for (int i = 0; i < CLOCK_CALLS; i++)
                getppid();
        print_cost("system call (getppid)", start);
#ifdef __x86_64__
        start = now_ns();
        for (int i = 0; i < CLOCK_CALLS; i++)
                __builtin_ia32_rdtsc();
        print_cost("rdtsc", start);
#endif
}

int main(int argc, char **argv) {
        const char *what = argc > 1 ? argv[1] : "";

        if (strcmp(what, "pingpong") == 0)
                all_pingpong();
        else if (strcmp(what, "stream") == 0) {
                stream(65536, false);
                stream(65536, true);
                stream(4096, false);
                stream(MESSAGE, false);
        } else if (strcmp(what, "spawn") == 0)
                all_spawn();
        else if (strcmp(what, "spawnloop") == 0 && argc == 4)
                spawnloop(atoi(argv[2]), atoi(argv[3]));
        else if (strcmp(what, "sync") == 0 && argc == 3)
                all_sync(argv[2]);
        else if (strcmp(what, "clock") == 0)
                all_clock();
        else {
                fprintf(stderr, "usage: ceilings pingpong|stream|spawn|clock|sync DIR|spawnloop N P\n");
                return 2;
        }
        return 0;
}
