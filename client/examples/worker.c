/* SPDX-License-Identifier: MIT */
/* A worker that turns payloads into upper case, one after the other, over restarts of eqd.   cc worker.c $(pkg-config --cflags --libs libeq)
 *
 *   eqctl queue create shout executor=worker && ./worker shout &  eqctl submit -q shout --payload hello --wait */

#include <ctype.h>
#include <eq.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int fail(const eq_client *c, const char *what, int r) {
        const char *text = strerror(-r);

        if (c && r == -EREMOTEIO)
                eq_client_get_error(c, &text);
        fprintf(stderr, "%s: %s\n", what, text);
        return 1;
}

static int work(eq_run *run) {
        static char result[EQ_RESULT_MAX];
        size_t n;
        const char *payload = eq_run_get_payload(run, &n);

        if (n > sizeof(result))
                return eq_run_fail(run, "too long to shout");
        for (size_t i = 0; i < n; i++)
                result[i] = (char)toupper((unsigned char)payload[i]);
        return eq_run_complete(run, result, n);
}

/* Signals that end it are blocked and come as input: one that came just before a wait ends that, too. Or -errno. */
static int open_signals(void) {
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        int fd = sigprocmask(SIG_BLOCK, &set, NULL) < 0 ? -1 : signalfd(-1, &set, SFD_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* 1: one of those signals has come; 0: something of eqd has, or may have. */
static int wait_for(const eq_client *c, int signals, int timeout_msec) {
        struct pollfd p[] = {
                { .fd = eq_client_get_fd(c), .events = (short)eq_client_get_events(c) },
                { .fd = signals, .events = POLLIN },
        };

        return poll(p, 2, timeout_msec) < 0 ? (errno == EINTR ? 0 : -errno) : p[1].revents != 0;
}

/* Until a signal comes: 0, or -errno. */
static int serve(eq_client *c, int signals) {
        eq_run *run;
        int r = 0, stop = 0;

        while (stop == 0 && (r = eq_worker_next(c, 0, &run)) >= 0) {
                if (r > 0)
                        (void)work(run);                     /* an error shows again at the next one */
                stop = wait_for(c, signals, r > 0 ? 0 : -1); /* behind one more may be there already */
        }
        return r < 0 ? r : stop < 0 ? stop : 0;
}

int main(int argc, char **argv) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL;
        const char *queues[] = { argc > 1 ? argv[1] : "shout", NULL };
        eq_reconnect policy = EQ_RECONNECT_INIT;
        int signals = open_signals();

        if (signals < 0)
                return fail(NULL, "signals", signals);
        int r = eq_client_open(&c, NULL);
        if (r < 0)
                return fail(NULL, "connect", r);
        policy.give_up_usec = EQ_TIMEOUT_NEVER;
        r = eq_client_set_reconnect(c, &policy);
        if (r < 0)
                return fail(NULL, "policy", r);
        r = eq_worker_serve(c, queues, 16, 1, "shouter", NULL);
        if (r < 0)
                return fail(c, "serve", r);
        r = serve(c, signals);
        if (r == 0)
                r = eq_worker_leave(c, EQ_TIMEOUT_NEVER);
        (void)close(signals);
        return r < 0 ? fail(c, "worker", r) : 0;
}
