/* SPDX-License-Identifier: MIT */
/* The thread sleeps until the next look, a sign of life or WATCHDOG=1 is due.
 *
 * Lock: `lock` guards the ring and the new configuration; held for copies only, by both sides, so neither waits for the
 * other. The loop's part of the watch (WatchPart `loop`) is asked by the thread itself, which therefore writes n_asked; it is
 * the one cell that the loop only answers.
 *
 * WATCHDOG=1 is sent each half of WATCHDOG_USEC, and only if the loop owes no answer for longer than a quarter. */

#include "watchdog.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/event.h"
#include "base/fault.h"
#include "base/procfs.h"
#include "base/util.h"
#include "manager/stalls.h"
#include "notify.h"
#include "proto/schema.h"

enum { RING = 256, DUMP_MAX = 64 };
#define ASK_MAX_USEC (5 * USEC_PER_SEC)  /* longest time between two signs of life */
#define UNTAKEN_MAX_USEC USEC_PER_SEC    /* so long a report waits for the loop */
#define SYNC_MAX_USEC (2 * USEC_PER_SEC) /* for the disk, before a panic; a dead one must not put that off */
#define FLUSH_MAX_USEC USEC_PER_SEC      /* for the journal, likewise */

typedef struct Entry {
        StallReport report;
        bool logged;
} Entry;

struct Watchdog {
        const WatchdogHooks *hooks;
        void *host;
        char *cgroup;
        pthread_t thread;
        int doorbell;
        uv_poll_t *poll; /* owned by the loop once closed */
        WatchPart *loop;

        pthread_mutex_t lock;
        pthread_cond_t wake; /* CLOCK_MONOTONIC */
        bool stopping, has_news;
        StallConfig news;
        uint64_t panic_timeout_usec;
        Entry ring[RING];
        size_t head, n;

        /* the thread's own */
        Stall stall;
        uint64_t alive_usec; /* half of WATCHDOG_USEC; 0: nobody wants to know */
        uint64_t next_alive_usec, next_ask_usec, dumped_usec;
};

static uint64_t read_usec(clockid_t id) {
        struct timespec t;
        (void)clock_gettime(id, &t);
        return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

/* ---- thread: reports ---- */

static void ring_doorbell(const Watchdog *w) {
        uint64_t one = 1;
        (void)!write(w->doorbell, &one, sizeof(one)); /* a counter that is full has rung already */
}

static bool post(Watchdog *w, const StallReport *r, bool logged) {
        pthread_mutex_lock(&w->lock);
        bool room = w->n < RING;
        if (room)
                w->ring[(w->head + w->n++) % RING] = (Entry) { .report = *r, .logged = logged };
        pthread_mutex_unlock(&w->lock);
        ring_doorbell(w);
        return room;
}

static bool find_untaken(Watchdog *w, uint64_t now, StallReport *ret) {
        bool found = false;
        pthread_mutex_lock(&w->lock);
        for (size_t i = 0; i < w->n && !found; i++) {
                Entry *e = &w->ring[(w->head + i) % RING];
                if (e->logged || now - e->report.now_usec < UNTAKEN_MAX_USEC)
                        continue;
                e->logged = found = true;
                *ret = e->report;
        }
        pthread_mutex_unlock(&w->lock);
        return found;
}

/* What has waited for the loop for too long. */
static void log_untaken(Watchdog *w, uint64_t now) {
        StallReport r;
        while (find_untaken(w, now, &r))
                stall_log(&r, NULL);
}

/* ---- thread: dump, panic ---- */

static void dump_pools(const Watch *watch) {
        char name[EQ_NAME_MAX + 1], workers[32], text[256];
        for (size_t i = 0; i < watch_table_n(&watch->pools); i++) {
                const WatchPool *p = watch_table_at(&watch->pools, i);
                uint64_t limit = watch_pool_limit(p);
                if (p->judge.n_busy + p->judge.n_startable == 0)
                        continue;
                watch_name_get(&p->name, name);
                snprintf(workers, sizeof(workers), limit == UINT64_MAX ? "unlimited" : "%" PRIu64, limit);
                snprintf(text, sizeof(text),
                         "pool %s: workers=%s busy=%" PRIu64 " queues that could start a task=%" PRIu64, name, workers,
                         p->judge.n_busy, p->judge.n_startable);
                log_event(STALL_DUMP, (.pool = name), text);
        }
}

static size_t dump_queues(const Stall *s, size_t left) {
        const Watch *watch = s->watch;
        char name[EQ_NAME_MAX + 1], text[256];
        for (size_t i = 0; i < watch_table_n(&watch->queues) && left > 0; i++) {
                const WatchQueue *q = watch_table_at(&watch->queues, i);
                uint64_t n_ready = WATCH_GET(q->n_ready);
                bool is_busy = q->judge.tick == s->tick;
                uint64_t n_running = is_busy ? q->judge.n_running : 0, n_claimed = is_busy ? q->judge.n_handed : 0;
                if (WATCH_GET(q->id) == 0 || n_ready + n_running + n_claimed == 0)
                        continue;
                watch_name_get(&q->name, name);
                snprintf(text, sizeof(text),
                         "queue %s: pending=%" PRIu64 " claimed=%" PRIu64 " in-flight=%" PRIu64 " max_active=%" PRIu64
                         "%s",
                         name, n_ready, n_claimed, n_running, WATCH_GET(q->max_active),
                         q->judge.episode.number ? ", stalled" : "");
                log_event(STALL_DUMP, (.queue = name, .pending = n_ready, .inflight = n_running), text);
                left--;
        }
        return left;
}

/* Where a task waits that began then. life: of its executor; NULL: it has none. */
static void dump_task(const WatchSlot *c, const WatchLife *life, uint64_t begun, uint64_t now) {
        bool rescued;
        uint64_t pid = WATCH_GET(c->pid), tid = watch_life_tid(life, &rescued);
        const WatchQueue *q = WATCH_GET(c->queue);
        char queue[EQ_NAME_MAX + 1], task[64], who[64], where[128], text[400];
        ProcfsWhere w = { 0 };
        watch_name_get(&q->name, queue);
        snprintf(task, sizeof(task), "%s/%" PRIu64, queue, WATCH_GET(c->seq));
        if (tid + pid > 0) {
                procfs_where(tid ? getpid() : (pid_t)pid, (pid_t)tid, &w);
                snprintf(who, sizeof(who), "%s %" PRIu64, tid ? "thread" : "pid", tid ? tid : pid);
        } else
                snprintf(who, sizeof(who), "with no thread or process"); /* deferred, or being started */
        snprintf(text, sizeof(text), "in-flight %s %s for %" PRIu64 "s%s%s%s", task, who, (now - begun) / USEC_PER_SEC,
                 tid + pid > 0 ? ", state " : "", tid + pid > 0 ? procfs_where_text(&w, where, sizeof(where)) : "",
                 rescued || WATCH_GET(c->reserve) ? ", rescued" : "");
        log_event(STALL_DUMP,
                  (.queue = queue, .task = task, .pid = pid, .worker_tid = tid, .task_usec = now - begun,
                   .kernel_stack = *w.stack ? w.stack : NULL),
                  text);
}

/* Those that were claimed and have not begun wait nowhere: their queues count them. */
static void dump_tasks(const Watch *watch, size_t left, uint64_t now) {
        for (size_t i = 0; i < watch_table_n(&watch->slots) && left > 0; i++) {
                const WatchSlot *c = watch_table_at(&watch->slots, i);
                const WatchLife *life = WATCH_GET(c->life);
                uint64_t begun = WATCH_GET(c->started_usec);
                if (begun != 0 && life)
                        begun = WATCH_GET(life->begun_usec);
                if (begun == 0)
                        continue;
                dump_task(c, life, begun, MAX(now, begun));
                left--;
        }
}

static void dump(Watchdog *w, uint64_t now) {
        w->dumped_usec = now;
        log_event(STALL_DUMP, (0), "Showing busy workqueues and worker pools:");
        dump_pools(w->stall.watch);
        dump_tasks(w->stall.watch, dump_queues(&w->stall, DUMP_MAX / 2) + DUMP_MAX / 2, now);
}

/* When a pool gets stuck, but not again and again. */
static void maybe_dump(Watchdog *w, const StallReport *r) {
        uint64_t pause = MAX(w->stall.config.watchdog_usec, USEC_PER_SEC);
        bool due = w->dumped_usec == 0 || r->now_usec - w->dumped_usec >= pause;
        if (r->kind == STALL_POOL && r->phase == STALL_BEGIN && due)
                dump(w, r->now_usec);
}

static void panic_text(const Watchdog *w, const StallReport *r, char *ret, size_t size) {
        const StallConfig *c = &w->stall.config;
        char what[96] = "";
        if (*r->queue)
                snprintf(what, sizeof(what), " (queue %s: %s)", r->queue, eq_reason_name(r->reason));
        if (r->cause == PANIC_BY_TIME)
                snprintf(ret, size, "stall lasted %" PRIu64 "s, exceeding threshold %" PRIu64 "s%s",
                         r->stuck_usec / USEC_PER_SEC, c->panic_time_usec / USEC_PER_SEC, what);
        else if (r->cause == PANIC_BY_HUNG)
                snprintf(ret, size, "%" PRIu64 " hung tasks, HungTaskPanic=%" PRIu64 " (the last: %s/%" PRIu64 ")",
                         w->stall.n_hung, c->hung_panic, r->queue, r->seq);
        else
                snprintf(ret, size, "%" PRIu64 " stall(s) exceeded threshold %" PRIu64 "%s", r->n_stalls,
                         c->panic_on_stall, what);
}

/* False: it is to end. */
static bool take_news(Watchdog *w) {
        pthread_mutex_lock(&w->lock);
        bool stopping = w->stopping;
        if (w->has_news)
                stall_set_config(&w->stall, &w->news);
        w->has_news = false;
        pthread_mutex_unlock(&w->lock);
        return !stopping;
}

static void wait_until(Watchdog *w, uint64_t usec) {
        struct timespec until = { .tv_sec = (time_t)(usec / USEC_PER_SEC),
                                  .tv_nsec = (long)(usec % USEC_PER_SEC) * 1000 };
        int r = 0;
        pthread_mutex_lock(&w->lock);
        while (!w->stopping && !w->has_news && r == 0)
                r = pthread_cond_timedwait(&w->wake, &w->lock, &until);
        pthread_mutex_unlock(&w->lock);
}

/* Does not return unless the service manager is ending eqd in order just now. */
static void panic(Watchdog *w, const StallReport *r) {
        char text[256], status[300];
        EventFields fields = { .queue = *r->queue ? r->queue : NULL,
                               .stall_usec = r->stuck_usec,
                               .stall_count = r->n_stalls };
        uint64_t now = read_usec(CLOCK_MONOTONIC);
        panic_text(w, r, text, sizeof(text));
        dump(w, now);
        log_event_fields(PANIC, &fields, text);
        int e = w->hooks->sync(w->host, SYNC_MAX_USEC);
        const char *error = e == -ETIMEDOUT ? "the disk does not answer" : strerror(-e);
        if (e < 0)
                log_event(PANIC_UNSYNCED, (.error = error), error);
        (void)log_flush(FLUSH_MAX_USEC);
        snprintf(status, sizeof(status), "PANIC workqueue: %s", text);
        pthread_mutex_lock(&w->lock);
        uint64_t timeout = w->panic_timeout_usec;
        pthread_mutex_unlock(&w->lock);
        bool told = notify_trigger(status), stopping = false;
        while (told && !stopping && read_usec(CLOCK_MONOTONIC) < now + timeout) {
                wait_until(w, now + timeout);
                stopping = !take_news(w);
        }
        if (!stopping)
                w->hooks->die();
}

static void on_report(void *host, const StallReport *r) {
        Watchdog *w = host;
        if (r->kind == STALL_PANIC) {
                panic(w, r);
                return;
        }
        bool own = r->kind == STALL_PART && strcmp(r->part, "loop") == 0; /* it cannot tell of itself */
        if (own)
                stall_log(r, NULL);
        if (!post(w, r, own) && !own)
                stall_log(r, NULL);
        maybe_dump(w, r);
}

/* ---- thread: life ---- */

static uint64_t on_cpu(void *host, const WatchSlot *slot) {
        const Watchdog *w = host;
        char dir[PATH_MAX];
        uint64_t usec;
        if (w->cgroup) {
                (void)snprintf(dir, sizeof(dir), "%s/slots/%" PRIu64, w->cgroup, WATCH_GET(slot->index));
                if (procfs_cgroup_cpu_usec(dir, &usec) == 0)
                        return usec;
        }
        uint64_t pid = WATCH_GET(slot->pid);
        return pid ? procfs_tree_cpu_usec((pid_t)pid) : 0;
}

static uint64_t on_thread_cpu(void *host, uint64_t tid) {
        return clock_thread_cpu_usec(tid);
}

static const StallHooks stall_hooks = {
        .report = on_report,
        .cpu_usec = on_cpu,
        .thread_cpu_usec = on_thread_cpu,
};

static uint64_t ask_interval(const Watchdog *w) {
        uint64_t usec = ASK_MAX_USEC, thresh = w->stall.config.watchdog_usec;
        if (thresh != 0)
                usec = MIN(usec, MAX(thresh / 4, STALL_TICK_MIN_USEC));
        return w->alive_usec ? MIN(usec, w->alive_usec / 2) : usec;
}

static void ask_loop(Watchdog *w, uint64_t now) {
        if (now < w->next_ask_usec)
                return;
        uint64_t n = WATCH_GET(w->loop->n_asked);
        w->next_ask_usec = now + ask_interval(w);
        if (WATCH_GET(w->loop->n_answered) != n)
                return;
        WATCH_SET(w->loop->n_asked, n + 1);
        ring_doorbell(w);
}

static void tell_alive(Watchdog *w, uint64_t now) {
        if (w->alive_usec == 0 || now < w->next_alive_usec)
                return;
        w->next_alive_usec = now + w->alive_usec;
        if (stall_part_owes_usec(w->loop, now) < w->alive_usec / 2)
                notify_alive();
        else
                w->next_alive_usec = now + w->alive_usec / 8; /* as soon as it moves again */
}

/* ---- thread ---- */

static void *watchdog_thread(void *arg) {
        Watchdog *w = arg;
        (void)pthread_setname_np(pthread_self(), "eqw/watchdog");
        while (take_news(w)) {
                uint64_t now = read_usec(CLOCK_MONOTONIC);
                uint64_t next = stall_look(&w->stall, now, read_usec(CLOCK_BOOTTIME));
                log_untaken(w, now);
                ask_loop(w, now);
                tell_alive(w, now);
                next = MIN(next, w->next_ask_usec);
                wait_until(w, w->alive_usec ? MIN(next, w->next_alive_usec) : next);
        }
        return NULL;
}

/* ---- loop ---- */

static bool take_entry(Watchdog *w, Entry *ret) {
        pthread_mutex_lock(&w->lock);
        bool any = w->n > 0;
        if (any) {
                *ret = w->ring[w->head];
                w->head = (w->head + 1) % RING;
                w->n--;
        }
        pthread_mutex_unlock(&w->lock);
        return any;
}

/* For tests of a loop that stands still. */
static void stand_still(void) {
        for (;;)
                (void)pause(); /* those that are caught only write into libuv's pipe */
}

static void on_doorbell(uv_poll_t *poll, int status, int events) {
        Watchdog *w = poll->data;
        uint64_t count;
        Entry e;
        if (fault_hit(FAULT_LOOP))
                stand_still();
        (void)!read(w->doorbell, &count, sizeof(count)); /* only to make it wait again */
        while (take_entry(w, &e))
                w->hooks->report(w->host, &e.report, e.logged);
        if (WATCH_GET(w->loop->n_answered) == WATCH_GET(w->loop->n_asked))
                return;
        WATCH_SET(w->loop->n_answered, WATCH_GET(w->loop->n_asked));
        w->hooks->asked(w->host);
}

static int open_doorbell(Watchdog *w, uv_loop_t *loop) {
        w->doorbell = fault_hit(FAULT_EVENTFD) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->doorbell < 0)
                return -EMFILE;
        w->poll = fault_calloc(1, sizeof(*w->poll));
        if (!w->poll)
                return -ENOMEM;
        int r = uv_poll_init(loop, w->poll, w->doorbell);
        if (r < 0) {
                free(w->poll);
                w->poll = NULL;
                return r;
        }
        w->poll->data = w;
        uv_unref((uv_handle_t *)w->poll);
        return uv_poll_start(w->poll, UV_READABLE, on_doorbell);
}

static int start_thread(Watchdog *w) {
        sigset_t all, before;
        pthread_condattr_t attr;
        if (fault_hit(FAULT_THREAD))
                return -EAGAIN;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&w->wake, &attr);
        pthread_condattr_destroy(&attr);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
        int r = pthread_create(&w->thread, NULL, watchdog_thread, w);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

static void on_poll_closed(uv_handle_t *handle) {
        free(handle);
}

static void watchdog_free(Watchdog *w) {
        if (w->poll) {
                (void)uv_poll_stop(w->poll);
                uv_close((uv_handle_t *)w->poll, on_poll_closed);
        }
        close_fd(w->doorbell);
        free(w->cgroup);
        free(w);
}

int watchdog_start(const WatchdogConfig *config, const WatchdogHooks *hooks, void *host, Watchdog **ret) {
        uint64_t usec = 0;
        Watchdog *w = fault_calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->hooks = hooks;
        w->host = host;
        w->doorbell = -1;
        w->panic_timeout_usec = config->panic_timeout_usec;
        pthread_mutex_init(&w->lock, NULL);
        if (sd_watchdog_enabled(0, &usec) > 0)
                w->alive_usec = usec / 2;
        w->loop = watch_part_add(config->watch, "loop", EQ_REASON_NONE);
        stall_init(&w->stall, config->watch, &config->stall, &stall_hooks, w);
        w->cgroup = config->cgroup ? strdup(config->cgroup) : NULL;
        int r = config->cgroup && !w->cgroup ? -ENOMEM : open_doorbell(w, config->loop);
        if (r >= 0)
                r = start_thread(w);
        if (r < 0) {
                watchdog_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

void watchdog_set_config(Watchdog *w, const StallConfig *stall, uint64_t panic_timeout_usec) {
        pthread_mutex_lock(&w->lock);
        w->news = *stall;
        w->panic_timeout_usec = panic_timeout_usec;
        w->has_news = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
}

void watchdog_touch(Watchdog *w) {
        stall_touch(&w->stall);
}

Watchdog *watchdog_stop(Watchdog *w) {
        if (!w)
                return NULL;
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        watchdog_free(w);
        return NULL;
}
