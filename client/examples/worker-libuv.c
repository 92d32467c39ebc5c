/* SPDX-License-Identifier: MIT */
/* A worker inside a libuv loop: each task takes as many milliseconds as its payload says, up to 16 at once, and stops when
 * it is canceled. A restart of eqd cancels all: they are handed out again.
 *
 *   eqctl queue create naps executor=worker max_active=16 && ./worker-libuv naps & eqctl run -q naps --payload 500 */

#include <eq.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

typedef struct Nap {
        uv_timer_t timer;
        eq_run *run;
} Nap;

static uv_loop_t loop;
static uv_poll_t poll_handle;
static eq_client *client;

static void on_event(uv_poll_t *handle, int status, int events);

/* After anything that may have put something into the output. */
static void watch(void) {
        int events = UV_READABLE | (eq_client_get_events(client) & POLLOUT ? UV_WRITABLE : 0);
        (void)uv_poll_start(&poll_handle, events, on_event);
}

static void on_event(uv_poll_t *handle, int status, int events) {
        (void)handle, (void)status, (void)events; /* dispatch finds out by itself */
        int r = eq_client_dispatch(client, 0);
        if (r >= 0) {
                watch();
                return;
        }
        fprintf(stderr, "connection lost: %s\n", strerror(-r));
        uv_stop(&loop); /* the naps are somebody else's now */
}

static void on_closed(uv_handle_t *handle) {
        free(handle->data);
}

static void end(Nap *nap, const char *error) {
        (void)(error ? eq_run_fail(nap->run, error) : eq_run_complete(nap->run, "slept", 5));
        uv_close((uv_handle_t *)&nap->timer, on_closed);
        watch();
}

static void on_awake(uv_timer_t *timer) {
        end(timer->data, NULL);
}

static void on_run(eq_client *c, eq_run *run, void *userdata) {
        (void)c, (void)userdata;
        char text[16] = "";
        size_t n;
        const char *payload = eq_run_get_payload(run, &n);
        Nap *nap = n < sizeof(text) ? calloc(1, sizeof(*nap)) : NULL;

        if (!nap) {
                (void)eq_run_fail(run, "not so long, please");
                return;
        }
        if (n > 0)
                memcpy(text, payload, n);
        nap->run = run;
        eq_run_set_userdata(run, nap);
        (void)uv_timer_init(&loop, &nap->timer); /* neither can fail here */
        nap->timer.data = nap;
        (void)uv_timer_start(&nap->timer, on_awake, strtoull(text, NULL, 10), 0);
}

static void on_cancel(eq_client *c, eq_run *run, uint64_t grace_usec, void *userdata) {
        (void)c, (void)grace_usec, (void)userdata;
        end(eq_run_get_userdata(run), "woken up");
}

static int serve(const char *queue) {
        const char *queues[] = { queue, NULL }, *text = "";
        eq_reconnect policy = EQ_RECONNECT_INIT;
        int r = eq_client_open(&client, NULL);
        if (r == 0)
                r = eq_client_set_reconnect(client, &policy);
        if (r == 0)
                r = eq_worker_set_callbacks(client, on_run, on_cancel, NULL);
        if (r == 0)
                r = eq_worker_serve(client, queues, 16, 0, "napper", NULL);
        if (r == -EREMOTEIO)
                eq_client_get_error(client, &text);
        if (r < 0)
                fprintf(stderr, "cannot serve: %s\n", *text ? text : strerror(-r));
        return r;
}

int main(int argc, char **argv) {
        if (uv_loop_init(&loop) < 0 || serve(argc > 1 ? argv[1] : "naps") < 0)
                return 1;
        if (uv_poll_init(&loop, &poll_handle, eq_client_get_fd(client)) < 0)
                return 1;
        watch();
        uv_run(&loop, UV_RUN_DEFAULT);
        eq_client_close(client);
        return 1; /* only an eqd that does not come back ends it */
}
