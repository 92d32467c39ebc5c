/* SPDX-License-Identifier: MIT */
/* A change that comes within a second of the last line waits for the timer, which tells what is true by then; so does one that the
 * service manager had no room for. */

#include "status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "notify.h"

enum { INTERVAL_MSEC = 1000 };

static StatusNumbers numbers(const Manager *m) {
        const StallReport *stall = stalls_worst(&m->stalls);
        RescueState rescue = manager_rescue(m);
        return (StatusNumbers) {
                .n_queues = m->engine.n_queues,
                .n_running = manager_n_running(m),
                .n_pending = m->n_pending - manager_n_running(m),
                .lost_others = manager_lost_others(m),
                .pressed = manager_is_pressed(m),
                .store = manager_store_trouble(m),
                .stall_episode = stall ? stall->episode : 0,
                .stall_usec = stall ? stall->stuck_usec : 0,
                .rescue_queue = rescue.queue ? rescue.queue->id : 0,
                .rescue_reason = rescue.reason,
                .rescue_error = rescue.error,
        };
}

/* "STALLED pool default 42s (queue mail: slots, 340 pending, oldest #1234 44s); " */
static void stall_status(const Manager *m, const StallReport *r, char *buf, size_t size) {
        unsigned long long seconds = r->stuck_usec / USEC_PER_SEC, n = r->n_ready;
        char oldest[64] = "";
        StallDetail d;
        manager_stall_detail(m, r, &d);
        if (d.oldest_seq > 0)
                (void)snprintf(oldest, sizeof(oldest), ", oldest #%llu %llus", (unsigned long long)d.oldest_seq,
                               (unsigned long long)(d.oldest_usec / USEC_PER_SEC));
        if (r->kind == STALL_PART)
                (void)snprintf(buf, size, "STALLED %s %llus; ", r->part, seconds);
        else if (r->kind == STALL_POOL)
                (void)snprintf(buf, size, "STALLED pool %s %llus (queue %s: %s, %llu pending%s); ", r->pool, seconds,
                               r->queue, eq_reason_name(r->reason), n, oldest);
        else
                (void)snprintf(buf, size, "STALLED queue %s %llus (%s, %llu pending%s); ", r->queue, seconds,
                               eq_reason_name(r->reason), n, oldest);
}

/* "RESCUE queue mail (create-failure: EAGAIN); " */
static void rescue_status(const RescueState *s, char *buf, size_t size) {
        const char *error = s->error < 0 ? strerrorname_np(-s->error) : NULL;
        (void)snprintf(buf, size, "RESCUE queue %s (%s%s%s); ", s->queue->name, eq_reason_name(s->reason),
                       error ? ": " : "", error ? error : "");
}

void status_text(const Manager *m, char *buf, size_t size) {
        StatusNumbers n = numbers(m);
        const StallReport *stall = stalls_worst(&m->stalls);
        size_t used = 0;
        if (stall) {
                stall_status(m, stall, buf, size);
                used = strlen(buf);
        }
        RescueState rescue = manager_rescue(m);
        if (rescue.queue) {
                rescue_status(&rescue, buf + used, size - used);
                used += strlen(buf + used);
        }
        (void)snprintf(buf + used, size - used, "%zu queues, %zu running, %zu pending%s%s%s%s", n.n_queues, n.n_running,
                       n.n_pending, n.pressed ? "; memory pressure" : "", n.store ? "; " : "", n.store ? n.store : "",
                       n.lost_others ? "; only commands of its own user: the spawner died, restart eqd" : "");
}

static bool is_true(const Status *s) {
        StatusNumbers n = numbers(s->manager);
        return n.n_queues == s->told.n_queues && n.n_running == s->told.n_running && n.n_pending == s->told.n_pending &&
               n.lost_others == s->told.lost_others && n.pressed == s->told.pressed && n.store == s->told.store &&
               n.stall_episode == s->told.stall_episode && n.stall_usec == s->told.stall_usec &&
               n.rescue_queue == s->told.rescue_queue && n.rescue_reason == s->told.rescue_reason &&
               n.rescue_error == s->told.rescue_error;
}

static void on_timer(uv_timer_t *timer);

static void tell(Status *s) {
        char text[STATUS_MAX];
        if (is_true(s))
                return;
        status_text(s->manager, text, sizeof(text));
        StatusNumbers n = numbers(s->manager);
        s->told_msec = uv_now(s->timer.loop);
        if (notify_status(text, n.stall_episode != 0))
                s->told = n;
        else
                (void)uv_timer_start(&s->timer, on_timer, INTERVAL_MSEC, 0); /* fails for closing ones only */
}

static void on_timer(uv_timer_t *timer) {
        tell(timer->data);
}

static void on_check(uv_check_t *check) {
        Status *s = check->data;
        if (uv_is_active((const uv_handle_t *)&s->timer) || is_true(s))
                return;
        uint64_t passed = uv_now(check->loop) - s->told_msec;
        if (passed >= INTERVAL_MSEC)
                tell(s);
        else
                (void)uv_timer_start(&s->timer, on_timer, INTERVAL_MSEC - passed, 0); /* fails for closing ones only */
}

void status_start(Status *s, uv_loop_t *loop, const Manager *m) {
        if (s->running || !getenv("NOTIFY_SOCKET"))
                return;
        s->manager = m;
        s->told = numbers(m);
        s->told_msec = uv_now(loop);
        (void)uv_check_init(loop, &s->check); /* these cannot fail */
        (void)uv_timer_init(loop, &s->timer);
        s->check.data = s->timer.data = s;
        (void)uv_check_start(&s->check, on_check);
        uv_unref((uv_handle_t *)&s->check);
        uv_unref((uv_handle_t *)&s->timer);
        s->running = true;
}

void status_stop(Status *s) {
        if (!s->running)
                return;
        s->running = false;
        uv_close((uv_handle_t *)&s->check, NULL);
        uv_close((uv_handle_t *)&s->timer, NULL);
}
