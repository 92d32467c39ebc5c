/* SPDX-License-Identifier: MIT */
/* Reports become records, events, and a list of what lasts. */

#include "manager/stalls.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/event.h"
#include "base/procfs.h"
#include "manager/parts.h"

/* ---- the journal ---- */

/* 128 bits: which run of eqd, and which of its stalls. */
static const char *episode_id(const StallReport *r, char ret[33]) {
        static _Atomic uint64_t run;
        uint64_t id = atomic_load(&run);
        if (r->episode == 0)
                return NULL;
        if (id == 0) {
                uint64_t fresh = 1, none = 0;
                if (getrandom(&fresh, sizeof(fresh), GRND_NONBLOCK) < 0)
                        fresh = r->now_usec; /* early in the boot: unique enough */
                (void)atomic_compare_exchange_strong(&run, &none, fresh | 1);
                id = atomic_load(&run);
        }
        snprintf(ret, 33, "%016" PRIx64 "%016" PRIx64, id, r->episode);
        return ret;
}

static const char *task_name(const char *queue, uint64_t seq, char *ret, size_t size) {
        if (seq == 0 || !*queue)
                return NULL;
        snprintf(ret, size, "%s/%" PRIu64, queue, seq);
        return ret;
}

typedef struct StallTexts {
        char episode[33], task[64], oldest[64];
} StallTexts;

static EventFields fields_of(const StallReport *r, const StallDetail *d, StallTexts *t) {
        EventFields f = {
                .queue = *r->queue ? r->queue : NULL,
                .pool = *r->pool ? r->pool : NULL,
                .part = *r->part ? r->part : NULL,
                .task = task_name(r->task_queue, r->seq, t->task, sizeof(t->task)),
                .task_usec = r->task_usec,
                .pid = r->pid,
                .worker_tid = r->tid,
                .reason = r->reason != EQ_REASON_NONE ? eq_reason_name(r->reason) : NULL,
                .stall_usec = r->stuck_usec,
                .stall_count = r->n_stalls,
                .episode = episode_id(r, t->episode),
                .pending = d && *r->queue ? d->n_pending : r->n_ready,
                .inactive = *r->queue ? &r->n_inactive : NULL,
                .inflight = r->n_running,
                .max_workers = r->n_slots,
        };
        if (r->has_pool) {
                f.workers = &r->n_workers;
                f.idle = &r->n_idle;
                f.manager = &r->creates;
                f.mayday = &r->calls;
        }
        if (d && d->create_error < 0 && r->reason == EQ_REASON_CREATE_FAILURE)
                f.error = strerror(-d->create_error);
        if (d && d->oldest_seq > 0) {
                f.oldest = task_name(r->queue, d->oldest_seq, t->oldest, sizeof(t->oldest));
                f.oldest_usec = d->oldest_usec;
        }
        return f;
}

/* ", oldest in-flight #77 for 95s" or nothing. */
static const char *in_flight(const StallReport *r, char *ret, size_t size) {
        *ret = '\0';
        if (r->seq > 0)
                snprintf(ret, size, ", oldest in-flight #%" PRIu64 " for %" PRIu64 "s", r->seq,
                         r->task_usec / USEC_PER_SEC);
        return ret;
}

static void log_pool(const StallReport *r, const StallDetail *d, const EventFields *f) {
        char text[128] = "";
        if (r->phase == STALL_END) {
                log_event_fields(STALL_END, f, r->pool, r->stuck_usec / USEC_PER_SEC);
                return;
        }
        if (*r->queue)
                snprintf(text, sizeof(text), ", queue %s with %" PRIu64 " pending", r->queue,
                         d ? d->n_pending : r->n_ready);
        log_event_fields(STALL, f, r->pool, (int)r->nice, r->stuck_usec / USEC_PER_SEC, eq_reason_name(r->reason),
                         text);
}

static void log_queue(const StallReport *r, const EventFields *f) {
        char text[96];
        if (r->phase == STALL_END)
                log_event_fields(QUEUE_STALL_END, f, r->queue, r->stuck_usec / USEC_PER_SEC);
        else
                log_event_fields(QUEUE_STALL, f, r->queue, r->stuck_usec / USEC_PER_SEC, eq_reason_name(r->reason),
                                 in_flight(r, text, sizeof(text)));
}

static void log_part(const StallReport *r, const EventFields *f) {
        ProcfsWhere w;
        bool is_loop = strcmp(r->part, "loop") == 0;
        if (is_loop && r->phase == STALL_END)
                log_event_fields(LOOP_STALL_END, f, r->stuck_usec / USEC_PER_SEC);
        else if (is_loop) {
                procfs_where(getpid(), 0, &w); /* the loop is the main thread */
                log_event_fields(LOOP_STALL, f, r->stuck_usec / USEC_PER_SEC, w.state ? w.state : '?',
                                 *w.wchan ? w.wchan : "not in the kernel");
        } else if (r->phase == STALL_END)
                log_event_fields(PART_STALL_END, f, r->part, r->stuck_usec / USEC_PER_SEC);
        else
                log_event_fields(PART_STALL, f, r->part, r->stuck_usec / USEC_PER_SEC, eq_reason_name(r->reason));
}

static void log_hung(const StallReport *r, EventFields *f) {
        ProcfsWhere w = { 0 };
        char task[64] = "?", where[128], text[160] = "";
        uint64_t id = r->tid ? r->tid : r->pid;
        if (id > 0)
                procfs_where(r->tid ? getpid() : (pid_t)r->pid, (pid_t)r->tid, &w);
        if (w.state == 'D')
                snprintf(text, sizeof(text), ", uninterruptible in %s", *w.wchan ? w.wchan : "the kernel");
        else if (w.state)
                snprintf(text, sizeof(text), ", state %s", procfs_where_text(&w, where, sizeof(where)));
        f->kernel_stack = *w.stack ? w.stack : NULL;
        snprintf(task, sizeof(task), "%s/#%" PRIu64, r->queue, r->seq);
        log_event_fields(HUNG_TASK, f, task, id, r->stuck_usec / USEC_PER_SEC, text);
}

void stall_log(const StallReport *r, const StallDetail *detail) {
        StallTexts texts;
        EventFields f = fields_of(r, detail, &texts);
        switch (r->kind) {
        case STALL_POOL:
                log_pool(r, detail, &f);
                break;
        case STALL_QUEUE:
                log_queue(r, &f);
                break;
        case STALL_PART:
                log_part(r, &f);
                break;
        case STALL_HUNG:
                log_hung(r, &f);
                break;
        case STALL_HUNG_SUPPRESSED:
                log_event_fields(HUNG_SUPPRESSED, &f);
                break;
        case STALL_CLOCK_JUMP:
                log_event_fields(CLOCK_JUMP, &f, r->stuck_usec / USEC_PER_SEC);
                break;
        case STALL_CPU_HOG: /* the executor's, which counts them */
        case STALL_PANIC:   /* daemon/watchdog.c */
                break;
        }
}

void stall_describe(const StallReport *r, char *ret, size_t size) {
        bool is_over = r->phase == STALL_END;
        const char *what = is_over ? " goes on" : ": ", *why = is_over ? "" : eq_reason_name(r->reason);
        if (r->kind == STALL_PART)
                snprintf(ret, size, "%s %s", r->part, is_over ? "answers again" : "does not answer");
        else if (r->kind == STALL_POOL)
                snprintf(ret, size, "pool %s%s%s", r->pool, what, why);
        else
                snprintf(ret, size, "queue %s%s%s", r->queue, what, why);
}

/* ---- what lasts ---- */

uint64_t stall_since_usec(const StallReport *r) {
        return r->now_usec - r->stuck_usec;
}

static bool is_worse(const StallReport *a, const StallReport *b) {
        static const int rank[] = { [STALL_PART] = 2, [STALL_POOL] = 1, [STALL_QUEUE] = 0 };
        if (rank[a->kind] != rank[b->kind])
                return rank[a->kind] > rank[b->kind];
        return stall_since_usec(a) < stall_since_usec(b);
}

const StallReport *stalls_worst(const StallList *l) {
        const StallReport *worst = NULL;
        for (size_t i = 0; i < l->n; i++)
                if (!worst || is_worse(&l->stalls[i], worst))
                        worst = &l->stalls[i];
        return worst;
}

static StallReport *find_episode(StallList *l, uint64_t episode) {
        for (size_t i = 0; i < l->n; i++)
                if (l->stalls[i].episode == episode)
                        return &l->stalls[i];
        return NULL;
}

/* Keeps it while it lasts. An end gets the names from the begin: its queue may be gone. */
static void keep(StallList *l, StallReport *r) {
        StallReport *known = find_episode(l, r->episode);
        l->n_begun += r->phase == STALL_BEGIN;
        if (r->phase == STALL_END && known) {
                if (!*r->queue)
                        memcpy(r->queue, known->queue, sizeof(r->queue));
                *known = l->stalls[--l->n];
        } else if (r->phase != STALL_END && known)
                *known = *r;
        else if (r->phase != STALL_END && l->n < STALLS_KEPT)
                l->stalls[l->n++] = *r;
}

/* ---- the loop's part ---- */

static QueueRecord *queue_of(const Manager *m, const StallReport *r) {
        Queue *q = r->queue_id ? engine_queue(&m->engine, r->queue_id) : NULL;
        return q ? queue_record(q) : NULL;
}

static void look_at_queue(const Manager *m, const QueueRecord *q, const StallReport *r, StallDetail *ret) {
        const Task *oldest = queue_oldest(q->queue);
        uint64_t now = clock_realtime(m->clock);
        ret->n_pending = r->n_ready + q->queue->n_waiting; /* the watch knows what has begun */
        if (!oldest)
                return;
        uint64_t then = task_record(oldest)->spec.submitted_usec;
        ret->oldest_seq = oldest->seq;
        ret->oldest_usec = now > then ? now - then : 0;
}

void manager_stall_detail(const Manager *m, const StallReport *r, StallDetail *ret) {
        const QueueRecord *q = queue_of(m, r);
        *ret = (StallDetail) { .n_pending = r->n_ready };
        if (q)
                look_at_queue(m, q, r, ret);
        LIST_FOREACH (link, &m->engine.pools) {
                const Pool *p = LIST_ENTRY(link, Pool, link);
                if (strcmp(p->name, r->pool) == 0)
                        ret->create_error = p->create_error;
        }
}

static eq_event event_of(const StallReport *r) {
        static const eq_event by_phase[] = {
                [STALL_BEGIN] = EQ_EVENT_STALL_BEGIN,
                [STALL_REPEAT] = EQ_EVENT_STALL_REPEAT,
                [STALL_END] = EQ_EVENT_STALL_END,
        };
        return r->kind == STALL_HUNG ? EQ_EVENT_TASK_HUNG : by_phase[r->phase];
}

void manager_take_stall(Manager *m, const StallReport *report, bool logged) {
        StallReport r = *report;
        StallDetail detail;
        bool lasts = r.kind == STALL_POOL || r.kind == STALL_QUEUE || r.kind == STALL_PART;
        m->stalls.n_hung += r.kind == STALL_HUNG;
        if (lasts)
                keep(&m->stalls, &r);
        QueueRecord *q = queue_of(m, &r);
        if (r.kind == STALL_CPU_HOG) {
                if (q && queue_has_plugin(q))
                        plugin_executor_count_hog(q->queue);
                return;
        }
        manager_stall_detail(m, &r, &detail);
        if (q) {
                q->n_stalls += r.kind == STALL_QUEUE && r.phase == STALL_BEGIN;
                if (r.kind == STALL_QUEUE)
                        q->stalled_since_usec = r.phase == STALL_END ? 0 : stall_since_usec(&r);
        }
        if (!logged)
                stall_log(&r, &detail);
        if (lasts || r.kind == STALL_HUNG)
                manager_event_stall(m, event_of(&r), &r);
}

static void print_setting(const DaemonSettings *d, const char *name, char ret[PARAM_PRINT_MAX]) {
        param_print(params_find(&daemon_settings_table, name, strlen(name)), d, ret);
}

void stalls_check_settings(const Manager *m) {
        const DaemonSettings *d = &m->config->daemon;
        uint64_t panic = d->panic_on_stall_time_usec, thresh = d->watchdog_thresh_usec;
        char panic_text[PARAM_PRINT_MAX], thresh_text[PARAM_PRINT_MAX];
        if (panic == 0 || thresh == PARAM_INFINITY || panic >= thresh)
                return;
        print_setting(d, "panic_on_stall_time", panic_text);
        print_setting(d, "watchdog_thresh", thresh_text);
        log_event(PANIC_TIME_SHORT, (.setting = "panic_on_stall_time"), panic_text, thresh_text);
}

StallConfig manager_stall_config(const Manager *m) {
        const DaemonSettings *d = &m->config->daemon;
        uint64_t panic_time = d->panic_on_stall_time_usec;
        return (StallConfig) {
                .watchdog_usec = d->watchdog_thresh_usec == PARAM_INFINITY ? 0 : d->watchdog_thresh_usec,
                .hung_usec = d->hung_task_timeout_secs_usec == PARAM_INFINITY ? 0 : d->hung_task_timeout_secs_usec,
                .hung_check_usec = d->hung_task_check_interval_secs_usec,
                .hung_check_count = d->hung_task_check_count,
                .hung_warnings = d->hung_task_warnings > INT64_MAX ? -1 : (int64_t)d->hung_task_warnings,
                .hung_panic = d->hung_task_panic,
                .panic_on_stall = d->panic_on_stall,
                .panic_time_usec = panic_time == PARAM_INFINITY ? 0 : panic_time,
                .panic_scope = (PanicScope)d->panic_scope,
                .hog_usec = d->cpu_intensive_thresh_us,
        };
}
