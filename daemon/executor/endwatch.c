/* SPDX-License-Identifier: MIT */
#include "executor/endwatch.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/spinner.h"

#define SPIN_USEC UINT64_C(100)
#define NSEC_PER_USEC 1000

struct EndWatch {
        uv_loop_t *loop;
        uv_idle_t *idle; /* active: the loop does not sleep; owned by the loop once closed */
        uv_poll_t *poll; /* NULL: nothing is watched; owned by the loop once closed */
        Spinner spinner;
        uint64_t until_usec; /* of the spinning */
};

/* Not the engine's clock, which tests move: this is about microseconds of CPU time. */
static uint64_t now_usec(void) {
        return uv_hrtime() / NSEC_PER_USEC;
}

static void on_closed(uv_handle_t *handle) {
        free(handle);
}

static void unwatch(EndWatch *w) {
        if (!w->poll)
                return;
        uv_close((uv_handle_t *)w->poll, on_closed); /* out of epoll at once */
        w->poll = NULL;
}

static void stop_spinning(EndWatch *w, bool hit) {
        if (!uv_is_active((uv_handle_t *)w->idle))
                return;
        (void)uv_idle_stop(w->idle); /* cannot fail */
        spinner_note(&w->spinner, hit);
}

static void on_idle(uv_idle_t *idle) {
        EndWatch *w = idle->data;
        if (now_usec() >= w->until_usec)
                stop_spinning(w, false);
}

static void on_closed_output(uv_poll_t *poll, int status, int events) {
        EndWatch *w = poll->data;
        if (w->poll != poll)
                return;
        unwatch(w);
        w->until_usec = now_usec() + SPIN_USEC;
        (void)uv_idle_start(w->idle, on_idle); /* cannot fail: there is a callback */
}

void end_watch_started(EndWatch *w, int fd) {
        end_watch_leave(w);
        if (!spinner_begin(&w->spinner))
                return;
        if (!spinner_has_cpus()) {
                spinner_note(&w->spinner, false);
                return;
        }
        uv_poll_t *poll = fault_calloc(1, sizeof(*poll));
        if (!poll || uv_poll_init(w->loop, poll, fd) < 0) {
                free(poll);
                return;
        }
        poll->data = w;
        w->poll = poll;
        (void)uv_poll_start(poll, UV_DISCONNECT, on_closed_output); /* fails for closing handles only */
}

void end_watch_leave(EndWatch *w) {
        unwatch(w);
        stop_spinning(w, false);
}

void end_watch_ended(EndWatch *w) {
        stop_spinning(w, true);
        unwatch(w);
        spinner_ended(&w->spinner, now_usec());
}

int end_watch_new(uv_loop_t *loop, EndWatch **ret) {
        EndWatch *w = fault_calloc(1, sizeof(*w));
        uv_idle_t *idle = fault_calloc(1, sizeof(*idle));
        if (!w || !idle) {
                free(w);
                free(idle);
                return -ENOMEM;
        }
        (void)uv_idle_init(loop, idle); /* cannot fail */
        idle->data = w;
        *w = (EndWatch) { .loop = loop, .idle = idle };
        *ret = w;
        return 0;
}

EndWatch *end_watch_free(EndWatch *w) {
        if (!w)
                return NULL;
        unwatch(w);
        uv_close((uv_handle_t *)w->idle, on_closed); /* stops it */
        free(w);
        return NULL;
}
