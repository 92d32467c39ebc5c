/* SPDX-License-Identifier: MIT */
/* A killed process hands up its children, so one looks again until there are none, every few milliseconds first. What belongs to
 * other users eqd may not kill once it has given up its capabilities: it is named in the log once, and reaped when it ends. */

#include "executor/orphans.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/event.h"
#include "base/fault.h"
#include "base/procfs.h"
#include "base/util.h"

enum { CHILDREN_MAX = 256, SOON_MSEC = 5, LATER_MSEC = 1000, FIRST_ROUNDS = 20, SOON_ROUNDS = 400 };

struct Orphans {
        uv_timer_t timer;
        int children; /* the list of them in /proc */
        pid_t spare;
        unsigned n_rounds;
        bool told; /* of those that may not be killed */
};

static void on_closed(uv_handle_t *handle) {
        free(handle->data);
}

int orphans_new(uv_loop_t *loop, Orphans **ret) {
        Orphans *o = fault_calloc(1, sizeof(*o));
        if (!o)
                return -ENOMEM;
        (void)uv_timer_init(loop, &o->timer); /* cannot fail */
        uv_unref((uv_handle_t *)&o->timer);
        o->timer.data = o;
        o->children = procfs_open_children();
        int r = o->children < 0 ? o->children : 0;
        if (r == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
                r = -errno;
        if (r < 0) {
                orphans_free(o);
                return r;
        }
        *ret = o;
        return 0;
}

Orphans *orphans_free(Orphans *o) {
        if (!o)
                return NULL;
        o->children = close_fd(o->children);
        uv_close((uv_handle_t *)&o->timer, on_closed);
        return NULL;
}

/* Returns how many there still are. A zombie of another user says EPERM, too, but is reaped at once. *ret_reaped: some were, and what
 * they had is ours since the list was read. */
static unsigned kill_all(Orphans *o, unsigned *ret_not_permitted, bool *ret_reaped) {
        pid_t pids[CHILDREN_MAX];
        unsigned n_left = 0;

        *ret_not_permitted = 0;
        *ret_reaped = false;
        int n = procfs_read_children(o->children, pids, CHILDREN_MAX);
        for (int i = 0; i < n; i++) {
                if (pids[i] == o->spare)
                        continue;
                (void)kill(-pids[i], SIGKILL); /* fails unless it leads a group */
                bool permitted = kill(pids[i], SIGKILL) == 0 || errno != EPERM;
                if (waitpid(pids[i], NULL, WNOHANG) != 0) {
                        *ret_reaped = true;
                        continue;
                }
                n_left++;
                *ret_not_permitted += !permitted;
        }
        return n_left;
}

static void sweep(Orphans *o);

static void on_timer(uv_timer_t *timer) {
        sweep(timer->data);
}

static void tell(Orphans *o, unsigned n_not_permitted) {
        if (n_not_permitted == 0 || o->told)
                return;
        o->told = true;
        log_event(ORPHANS_LEFT, (0), n_not_permitted);
}

/* In the first rounds also when there is none: what a process hands up may come a moment after its line was closed. */
static void sweep(Orphans *o) {
        unsigned n_not_permitted;
        bool reaped;
        unsigned n_left = kill_all(o, &n_not_permitted, &reaped);
        bool first = o->n_rounds < FIRST_ROUNDS;
        bool soon = first || (o->n_rounds < SOON_ROUNDS && (reaped || n_left > n_not_permitted));

        o->n_rounds++;
        if (!soon)
                tell(o, n_not_permitted);
        if (soon || reaped || n_left > 0) /* fails for closing handles only */
                (void)uv_timer_start(&o->timer, on_timer, soon ? SOON_MSEC : LATER_MSEC, 0);
}

void orphans_sweep(Orphans *o, pid_t spare) {
        o->spare = spare;
        o->n_rounds = 0;
        o->told = false;
        sweep(o);
}
