/* SPDX-License-Identifier: MIT */
/* A client that survives eqd, for reconnect.py:   comeback STYLE QUEUE NAME N
 *
 *   blocking, pipelined, loop   submits N tasks labeled NAME-0 ... in that order; a line "ID LABEL" for each that is accepted
 *   next, callbacks             serves QUEUE; a line "GOT LABEL ATTEMPT" when it gets one, then "ENDED LABEL ATTEMPT R". R is
 *                               what eq_run_end() returned: 0, or negative if the lease is lost. Ends by SIGTERM
 *
 * The first line is "OPEN": from here on it comes back. The last one is "LINK lost repeated unanswered late". */

#include <eq.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { IN_FLIGHT = 64 };

typedef struct Work {
        eq_client *c;
        const char *queue, *name;
        unsigned n, n_started, n_answered;
        eq_run *held[IN_FLIGHT]; /* of `callbacks`: a few at a time, so that some are there when eqd goes */
        unsigned n_held;
        int failed;
} Work;

typedef struct Label {
        Work *work;
        char text[32];
} Label;

enum { LOOK_MSEC = 1000 }; /* a signal that comes just before a wait does not interrupt it */

static volatile sig_atomic_t stopping;

static void on_signal(int sig) {
        (void)sig;
        stopping = 1;
}

static int fail(const Work *w, const char *what, int r) {
        const char *text = strerror(-r);
        if (r == -EREMOTEIO)
                eq_client_get_error(w->c, &text);
        fprintf(stderr, "%s: %s\n", what, text);
        return r;
}

static eq_task labeled(const char *text) {
        eq_task t = EQ_TASK_INIT;
        t.label = text;
        t.payload = text;
        t.n_payload = strlen(text);
        return t;
}

/* ---- submitting ---- */

static int blocking(Work *w) {
        char text[32];
        eq_task_id id;
        for (; w->n_started < w->n; w->n_started++) {
                (void)snprintf(text, sizeof(text), "%s-%u", w->name, w->n_started);
                eq_task t = labeled(text);
                int r = eq_submit(w->c, w->queue, &t, &id);
                if (r < 0)
                        return fail(w, "submit", r);
                printf("%llu %s\n", (unsigned long long)id.seq, text);
        }
        return 0;
}

static void on_submitted(eq_client *c, int r, eq_task_id id, void *userdata) {
        Label *l = userdata;
        l->work->n_answered++;
        if (r < 0)
                l->work->failed = fail(l->work, l->text, r);
        else
                printf("%llu %s\n", (unsigned long long)id.seq, l->text);
        free(l);
}

static int start_more(Work *w) {
        while (w->n_started < w->n && w->n_started - w->n_answered < IN_FLIGHT) {
                Label *l = calloc(1, sizeof(*l));
                if (!l)
                        return -ENOMEM;
                l->work = w;
                (void)snprintf(l->text, sizeof(l->text), "%s-%u", w->name, w->n_started++);
                eq_task t = labeled(l->text);
                int r = eq_submit_start(w->c, w->queue, &t, on_submitted, l);
                if (r < 0)
                        return fail(w, "start", r);
        }
        return 0;
}

static int pipelined(Work *w) {
        int r = 0;
        while (r >= 0 && !w->failed && w->n_answered < w->n) {
                r = start_more(w);
                if (r >= 0)
                        r = eq_client_dispatch(w->c, EQ_TIMEOUT_NEVER);
        }
        return r < 0 ? fail(w, "dispatch", r) : w->failed;
}

/* The descriptor is added once, and never looked at again. */
static int loop(Work *w, int (*step)(Work *w), int (*is_over)(const Work *w)) {
        struct epoll_event e = { .events = (uint32_t)eq_client_get_events(w->c) };
        int epoll = epoll_create1(EPOLL_CLOEXEC);
        int r = epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, eq_client_get_fd(w->c), &e) < 0 ? -errno : 0;
        while (r >= 0 && !w->failed && !is_over(w)) {
                r = step(w);
                if (r >= 0 && eq_client_get_events(w->c) != (int)e.events)
                        r = -ENOTSUP; /* with a policy they are always the same */
                if (r >= 0 && epoll_wait(epoll, &e, 1, LOOK_MSEC) >= 0)
                        r = eq_client_dispatch(w->c, 0);
                e.events = EPOLLIN;
        }
        close(epoll);
        return r < 0 ? fail(w, "loop", r) : w->failed;
}

static int all_answered(const Work *w) {
        return w->n_answered >= w->n;
}

/* ---- serving ---- */

static void end_run(eq_run *run) {
        char text[32];
        size_t n;
        const char *payload = eq_run_get_payload(run, &n);
        unsigned attempt = eq_run_get_attempt(run);
        (void)snprintf(text, sizeof(text), "%.*s", (int)n, payload);
        int r = eq_run_complete(run, text, n);
        printf("ENDED %s %u %d\n", text, attempt, r);
}

static void got(const eq_run *run) {
        size_t n;
        const char *payload = eq_run_get_payload(run, &n);
        printf("GOT %.*s %u\n", (int)n, payload, eq_run_get_attempt(run));
}

static int next(Work *w) {
        const char *queues[] = { w->queue, NULL };
        eq_run *run;
        int r = eq_worker_serve(w->c, queues, 4, 1, w->name, NULL);
        if (r < 0)
                return fail(w, "serve", r);
        while (!stopping && (r = eq_worker_next(w->c, LOOK_MSEC * UINT64_C(1000), &run)) >= 0)
                if (r > 0) {
                        got(run);
                        end_run(run);
                }
        if (r >= 0)
                r = eq_worker_leave(w->c, EQ_TIMEOUT_NEVER);
        return r < 0 ? fail(w, "next", r) : 0;
}

static void on_run(eq_client *c, eq_run *run, void *userdata) {
        Work *w = userdata;
        got(run);
        w->held[w->n_held++] = run; /* the credit is less than there is room for */
}

/* Lost ones stay until it is their turn, so that late answers are really tried. */
static void on_cancel(eq_client *c, eq_run *run, uint64_t grace_usec, void *userdata) {
        size_t n;
        const char *payload = eq_run_get_payload(run, &n);
        printf("CANCELED %.*s %u\n", (int)n, payload, eq_run_get_attempt(run));
}

static int end_held(Work *w) {
        if (w->n_held < 3)
                return 0;
        end_run(w->held[0]);
        memmove(w->held, w->held + 1, --w->n_held * sizeof(w->held[0]));
        return 0;
}

static int is_stopping(const Work *w) {
        return stopping;
}

static int callbacks(Work *w) {
        const char *queues[] = { w->queue, NULL };
        int r = eq_worker_set_callbacks(w->c, on_run, on_cancel, w);
        if (r == 0)
                r = eq_worker_serve(w->c, queues, 8, 0, w->name, NULL);
        if (r < 0)
                return fail(w, "serve", r);
        r = loop(w, end_held, is_stopping);
        while (w->n_held > 0)
                end_run(w->held[--w->n_held]);
        if (r >= 0)
                r = eq_worker_leave(w->c, EQ_TIMEOUT_NEVER);
        return r < 0 ? fail(w, "callbacks", r) : 0;
}

/* ---- */

static int run(Work *w, const char *style) {
        if (strcmp(style, "blocking") == 0)
                return blocking(w);
        if (strcmp(style, "pipelined") == 0)
                return pipelined(w);
        if (strcmp(style, "loop") == 0)
                return loop(w, start_more, all_answered);
        return strcmp(style, "next") == 0 ? next(w) : callbacks(w);
}

int main(int argc, char **argv) {
        const struct sigaction sa = { .sa_handler = on_signal };
        eq_reconnect policy = EQ_RECONNECT_INIT;
        eq_link_counts counts = { .size = sizeof(counts) };
        if (argc < 5)
                return 2;
        Work w = { .queue = argv[2], .name = argv[3], .n = (unsigned)strtoul(argv[4], NULL, 10) };
        setlinebuf(stdout);
        (void)sigaction(SIGTERM, &sa, NULL);
        policy.give_up_usec = EQ_TIMEOUT_NEVER; /* the test knows what takes too long */
        int r = eq_client_open(&w.c, NULL);
        if (r == 0)
                eq_client_set_timeout(w.c, EQ_TIMEOUT_NEVER);
        if (r == 0)
                r = eq_client_set_reconnect(w.c, &policy);
        if (r < 0)
                return fail(&w, "open", r) < 0;
        puts("OPEN");
        r = run(&w, argv[1]);
        eq_client_get_link(w.c, &counts);
        printf("LINK %llu %llu %llu %llu\n", (unsigned long long)counts.lost, (unsigned long long)counts.repeated,
               (unsigned long long)counts.unanswered, (unsigned long long)counts.late);
        eq_client_close(w.c);
        return r < 0;
}
