/* SPDX-License-Identifier: MIT */
/* A worker that turns payloads into upper case, one after the other, over restarts of eqd.   cc worker.c $(pkg-config --cflags --libs libeq)
 *
 *   eqctl queue create shout executor=worker && ./worker shout &  eqctl submit -q shout --payload hello --wait */

#include <ctype.h>
#include <eq.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LOOK_USEC 1000000 /* a signal that comes just before a wait does not interrupt it */

static volatile sig_atomic_t stopping;

static void on_signal(int sig) {
        (void)sig;
        stopping = 1;
}

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

int main(int argc, char **argv) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL;
        const char *queues[] = { argc > 1 ? argv[1] : "shout", NULL };
        eq_reconnect policy = EQ_RECONNECT_INIT;
        const struct sigaction sa = { .sa_handler = on_signal }; /* interrupts the wait */
        eq_run *run;

        (void)sigaction(SIGTERM, &sa, NULL);
        (void)sigaction(SIGINT, &sa, NULL);
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
        while (!stopping && (r = eq_worker_next(c, LOOK_USEC, &run)) >= 0)
                if (r > 0)
                        (void)work(run); /* an error shows again at the next one */
        if (r >= 0)
                r = eq_worker_leave(c, EQ_TIMEOUT_NEVER);
        return r < 0 ? fail(c, "worker", r) : 0;
}
