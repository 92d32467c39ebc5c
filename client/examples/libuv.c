/* SPDX-License-Identifier: MIT */
/* libeq inside a libuv loop: one uv_poll_t follows what eq_client_get_events() asks for, over all restarts of eqd. Prints its
 * events. */

#include <eq.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static void on_readable(uv_poll_t *poll, int status, int events);

static int watch(uv_poll_t *poll, const eq_client *c) {
        /* The constants of poll(2) and of libuv need not be the same numbers. */
        int events = UV_READABLE | (eq_client_get_events(c) & POLLOUT ? UV_WRITABLE : 0);
        return uv_poll_start(poll, events, on_readable);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
        eq_client *c = poll->data;

        (void)status, (void)events; /* dispatch finds out by itself */
        int r = eq_client_dispatch(c, 0);
        if (r >= 0)
                r = watch(poll, c);
        if (r < 0) {
                fprintf(stderr, "connection lost: %s\n", strerror(-r));
                uv_close((uv_handle_t *)poll, NULL);
        }
}

static void on_notify(eq_client *c, const char *method, const void *params, size_t n_params, void *userdata) {
        (void)c, (void)params, (void)userdata;
        printf("%s: %zu bytes of MessagePack\n", method, n_params);
        fflush(stdout); /* at once, also into a pipe */
}

static void on_link(eq_client *c, eq_link event, int r, void *userdata) {
        (void)c, (void)userdata;
        if (event == EQ_LINK_BROKEN)
                return; /* dispatch says so, too */
        printf("%s\n", event == EQ_LINK_BACK ? "eqd is back" : strerror(-r));
        fflush(stdout);
}

static void on_subscribed(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        const char *text = strerror(-r);

        (void)call, (void)userdata;
        if (r == -EREMOTEIO)
                eq_reply_get_error(reply, &text);
        if (r < 0)
                fprintf(stderr, "subscribe: %s\n", text);
}

int main(void) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL;
        uv_loop_t loop;
        uv_poll_t poll;
        eq_reconnect policy = EQ_RECONNECT_INIT;

        int r = eq_client_open(&c, NULL);
        if (r < 0) {
                fprintf(stderr, "connect: %s\n", strerror(-r));
                return 1;
        }
        eq_client_set_notify(c, on_notify, NULL);
        eq_client_set_link(c, on_link, NULL);
        if (eq_client_set_reconnect(c, &policy) < 0)
                return 1;
        r = eq_client_call_start(c, "subscribe", "\x90", 1, NULL, 0, on_subscribed, NULL, NULL);
        if (r < 0 || uv_loop_init(&loop) < 0)
                return 1;
        poll.data = c;
        if (uv_poll_init(&loop, &poll, eq_client_get_fd(c)) < 0 || watch(&poll, c) < 0)
                return 1;
        uv_run(&loop, UV_RUN_DEFAULT);
        return uv_loop_close(&loop) < 0;
}
