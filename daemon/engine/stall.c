/* SPDX-License-Identifier: MIT */
/* One look is four passes: parts, slots (who shows life), queues (who waits, and for whom), then the verdicts on pools and on the
 * queues that wait. Times without progress are kept in the cells' `judge` members. */

#include "engine/stall.h"

#include <string.h>

#include "base/util.h"

static uint64_t add_usec(uint64_t a, uint64_t b) {
        return b > USEC_NEVER - a ? USEC_NEVER : a + b;
}

static uint64_t since_usec(uint64_t then, uint64_t now) {
        return now > then ? now - then : 0;
}

static void look_again(Stall *s, uint64_t usec) {
        s->next_usec = MIN(s->next_usec, MAX(usec, s->now_usec + USEC_PER_MSEC));
}

void stall_init(Stall *s, Watch *w, const StallConfig *config, const StallHooks *hooks, void *host) {
        *s = (Stall) { .watch = w, .hooks = hooks, .host = host };
        stall_set_config(s, config);
}

void stall_set_config(Stall *s, const StallConfig *config) {
        s->config = *config;
        s->hung_left = config->hung_warnings;
        s->hung_check_usec = 0;
}

void stall_touch(Stall *s) {
        atomic_store(&s->touch, true);
}

static StallReport report_new(const Stall *s, StallKind kind) {
        return (StallReport) { .kind = kind, .now_usec = s->now_usec, .n_stalls = s->n_stalls };
}

static void tell(Stall *s, const StallReport *r) {
        s->hooks->report(s->host, r);
}

/* ---- pauses ---- */

static void notice_pause(Stall *s, uint64_t boot_usec) {
        uint64_t bound = MAX(2 * USEC_PER_SEC, s->config.watchdog_usec / 2);
        uint64_t gap = since_usec(s->now_usec, boot_usec);
        bool first = s->tick == 1, late = s->now_usec > add_usec(s->next_usec, bound);
        uint64_t slept = since_usec(s->boot_gap_usec, gap);
        s->boot_gap_usec = gap;
        if (atomic_exchange(&s->touch, false))
                s->touched_usec = s->now_usec;
        if (first || (!late && slept <= 2 * USEC_PER_SEC))
                return;
        StallReport r = report_new(s, STALL_CLOCK_JUMP);
        r.stuck_usec = (late ? s->now_usec - s->next_usec : 0) + slept;
        s->touched_usec = s->now_usec;
        tell(s, &r);
}

/* ---- episodes ---- */

typedef struct Verdict {
        bool waits;          /* else it cannot be stalled */
        uint64_t since_usec; /* of the last progress or life */
        uint64_t stall_usec; /* threshold, not 0 */
} Verdict;

/* True: r is to be told, its phase, episode and time are filled in. */
static bool episode_step(Stall *s, WatchEpisode *e, const Verdict *v, StallReport *r) {
        uint64_t from = MAX(v->since_usec, s->touched_usec);
        bool over = !v->waits || v->since_usec > e->since_usec;
        if (e->number != 0 && over) {
                r->phase = STALL_END;
                r->episode = e->number;
                r->stuck_usec = since_usec(e->since_usec, s->now_usec);
                *e = (WatchEpisode) { 0 };
                return true;
        }
        if (!v->waits)
                return false;
        uint64_t due = MAX(add_usec(from, v->stall_usec), e->number ? add_usec(e->told_usec, v->stall_usec) : 0);
        if (s->now_usec < due) {
                look_again(s, due);
                s->any_episode |= e->number != 0;
                return false;
        }
        r->phase = e->number ? STALL_REPEAT : STALL_BEGIN;
        if (!e->number)
                *e = (WatchEpisode) { .number = ++s->n_episodes, .since_usec = v->since_usec };
        e->told_usec = s->now_usec;
        r->episode = e->number;
        r->stuck_usec = since_usec(v->since_usec, s->now_usec);
        s->any_episode = true;
        look_again(s, add_usec(s->now_usec, v->stall_usec));
        return true;
}

static void panic(Stall *s, const StallReport *why, PanicCause cause) {
        if (s->panicked)
                return;
        s->panicked = true;
        StallReport r = *why;
        r.kind = STALL_PANIC;
        r.phase = STALL_BEGIN;
        r.cause = cause;
        tell(s, &r);
}

/* For what counts towards a panic: pools, and queues if they are in scope. */
static void maybe_panic(Stall *s, const WatchEpisode *e, const StallReport *r) {
        const StallConfig *c = &s->config;
        if (c->panic_on_stall > 0 && s->n_stalls >= c->panic_on_stall)
                panic(s, r, PANIC_BY_COUNT);
        if (c->panic_time_usec == 0 || e->number == 0)
                return;
        if (since_usec(e->since_usec, s->now_usec) >= c->panic_time_usec)
                panic(s, r, PANIC_BY_TIME);
        else
                look_again(s, add_usec(e->since_usec, c->panic_time_usec));
}

static void step(Stall *s, WatchEpisode *e, const Verdict *v, StallReport *r, bool counts) {
        if (v->stall_usec != 0)
                s->shortest_usec = MIN(s->shortest_usec, v->stall_usec);
        bool told = episode_step(s, e, v, r);
        if (told && r->phase != STALL_END)
                s->n_stalls += counts;
        r->n_stalls = s->n_stalls;
        if (told)
                tell(s, r);
        else
                r->stuck_usec = e->number ? since_usec(e->since_usec, s->now_usec) : 0;
        if (counts)
                maybe_panic(s, e, r);
}

/* ---- parts ---- */

uint64_t stall_part_owes_usec(const WatchPart *p, uint64_t now_usec) {
        return p->judge.waited ? since_usec(p->judge.progress_usec, now_usec) : 0;
}

static void judge_part(Stall *s, WatchPart *p) {
        const char *name = atomic_load_explicit(&p->name, memory_order_acquire);
        if (!name)
                return;
        uint64_t answered = WATCH_GET(p->n_answered);
        bool waits = WATCH_GET(p->n_asked) != answered;
        if (!waits || !p->judge.waited || answered != p->judge.n_answered)
                p->judge.progress_usec = s->now_usec;
        p->judge.waited = waits;
        p->judge.n_answered = answered;

        Verdict v = { .waits = waits && s->config.watchdog_usec != 0,
                      .since_usec = p->judge.progress_usec,
                      .stall_usec = s->config.watchdog_usec };
        StallReport r = report_new(s, STALL_PART);
        strncpy(r.part, name, sizeof(r.part) - 1);
        r.reason = p->reason;
        step(s, &p->judge.episode, &v, &r, false);
}

/* ---- slots ---- */

/* What a slot holds, read as one: what is loaded between two equal started_usec is of that task, since each load acquires and
 * so stays before the second. */
typedef struct Flight {
        WatchSlot *slot;
        WatchQueue *queue;
        WatchPool *pool;
        uint64_t started_usec, seq;
        uint64_t begun_usec, seen_usec; /* as of WatchLife */
        WatchLife *life;                /* these are of its executor; NULL: not */
} Flight;

/* Its memory may be that of the next task by now: what began before it was started is not its. */
static void flight_read_life(Flight *f) {
        WatchLife *life = atomic_load_explicit(&f->slot->life, memory_order_acquire);
        f->life = life;
        f->begun_usec = life ? atomic_load_explicit(&life->begun_usec, memory_order_acquire) : f->started_usec;
        f->seen_usec = life ? atomic_load_explicit(&life->seen_usec, memory_order_acquire) : 0;
        if (f->begun_usec != 0)
                f->begun_usec = MAX(f->begun_usec, f->started_usec);
}

static bool flight_read(WatchSlot *c, Flight *ret) {
        uint64_t started = atomic_load_explicit(&c->started_usec, memory_order_acquire);
        if (started == 0)
                return false;
        *ret = (Flight) { .slot = c,
                          .queue = atomic_load_explicit(&c->queue, memory_order_acquire),
                          .pool = atomic_load_explicit(&c->pool, memory_order_acquire),
                          .started_usec = started,
                          .seq = atomic_load_explicit(&c->seq, memory_order_acquire) };
        flight_read_life(ret);
        return WATCH_GET(c->started_usec) == started;
}

/* What it is at. n_taken: of its slots. Numbers that belong together may be of two moments. */
static void fill_pool(const Stall *s, const WatchPool *p, uint64_t n_taken, StallReport *r) {
        bool has_threads = WATCH_GET(p->n_threads_max) > 0;
        uint64_t n = WATCH_GET(p->n_slots);
        bool is_blocked = WATCH_GET(p->blocked_until_usec) > s->now_usec;
        watch_name_get(&p->name, r->pool);
        r->has_pool = true;
        r->n_workers = has_threads ? WATCH_GET(p->threads.n) : n;
        r->n_idle = has_threads ? MIN(WATCH_GET(p->threads.n_idle), r->n_workers) : n - MIN(n_taken, n);
        r->creates = WATCH_GET(p->short_of) == EQ_REASON_CREATE_FAILURE ||
                     (is_blocked && WATCH_GET(p->blocked_reason) == EQ_REASON_CREATE_FAILURE);
        r->calls = WATCH_GET(p->calls);
}

static void fill_where(const WatchSlot *c, StallReport *r) {
        bool rescued;
        r->pid = WATCH_GET(c->pid);
        r->tid = watch_life_tid(WATCH_GET(c->life), &rescued);
}

static void fill_flight(const Stall *s, const Flight *f, StallReport *r) {
        r->queue_id = WATCH_GET(f->queue->id);
        watch_name_get(&f->queue->name, r->queue);
        watch_name_get(&f->queue->name, r->task_queue);
        fill_pool(s, f->pool, f->pool->judge.n_taken_before, r); /* of this look they are being counted */
        r->seq = f->seq;
        r->task_usec = since_usec(f->begun_usec, s->now_usec);
        fill_where(f->slot, r);
}

/* Of those that a thread holds together each has its share. What it had used before the first look is not known here, but to its
 * thread, which looks again at the end. */
static void look_for_hog(Stall *s, const Flight *f) {
        WatchSlot *c = f->slot;
        const WatchLife *first = WATCH_GET(f->life->first);
        bool rescued;
        uint64_t tid = watch_life_tid(f->life, &rescued), n = first ? MAX(WATCH_GET(first->n_held), UINT64_C(1)) : 1;
        if (s->config.hog_usec == 0 || !s->hooks->thread_cpu_usec || tid == 0 || f->begun_usec == 0)
                return;
        uint64_t cpu = s->hooks->thread_cpu_usec(s->host, tid);
        if (c->judge.cpu_usec == USEC_NEVER || cpu < c->judge.cpu_usec)
                c->judge.cpu_usec = cpu;
        if ((cpu - c->judge.cpu_usec) / n <= s->config.hog_usec)
                return;
        bool is_same = WATCH_GET(c->started_usec) == f->started_usec && WATCH_GET(f->life->begun_usec) == f->begun_usec;
        if (!is_same || watch_hog_is_known(f->life, f->begun_usec))
                return;
        StallReport r = report_new(s, STALL_CPU_HOG);
        fill_flight(s, f, &r);
        tell(s, &r);
}

static void look_for_cpu(Stall *s, const Flight *f, uint64_t every_usec) {
        WatchSlot *c = f->slot;
        bool first = c->judge.cpu_usec == USEC_NEVER;
        if (!s->hooks->cpu_usec || (!first && since_usec(c->judge.looked_usec, s->now_usec) < every_usec))
                return;
        uint64_t cpu = s->hooks->cpu_usec(s->host, c);
        c->judge.looked_usec = s->now_usec;
        if (!first && cpu > c->judge.cpu_usec && cpu - c->judge.cpu_usec >= STALL_LIFE_CPU_USEC)
                c->judge.life_usec = s->now_usec;
        else if (!first && cpu >= c->judge.cpu_usec)
                return; /* small steps add up */
        c->judge.cpu_usec = cpu;
}

/* Its last sign of life is in judge.life_usec then. */
static void look_for_life(Stall *s, const Flight *f) {
        WatchSlot *c = f->slot;
        if (c->judge.started_usec != f->started_usec || c->judge.seq != f->seq || c->judge.queue != f->queue) {
                memset(&c->judge, 0, sizeof(c->judge));
                c->judge.started_usec = c->judge.life_usec = f->started_usec;
                c->judge.seq = f->seq;
                c->judge.queue = f->queue;
                c->judge.cpu_usec = USEC_NEVER;
        }
        uint64_t begun = f->begun_usec != 0 ? f->begun_usec : s->now_usec;
        uint64_t expected = add_usec(begun, WATCH_GET(f->queue->expected_usec));
        uint64_t until = MIN(expected, WATCH_GET(c->deadline_usec));
        uint64_t stall = WATCH_GET(f->queue->stall_usec);
        uint64_t every = MIN(MAX(stall / 4, STALL_TICK_MIN_USEC), USEC_PER_SEC);
        c->judge.begun_usec = begun;
        c->judge.life_usec = MAX(MAX(c->judge.life_usec, MIN(f->seen_usec, s->now_usec)), MIN(until, s->now_usec));
        if (f->life)
                look_for_hog(s, f);
        else if (add_usec(s->now_usec, every) >= until)
                look_for_cpu(s, f, every);
}

static void tell_hung(Stall *s, const Flight *f, uint64_t lifeless_usec) {
        StallReport r = report_new(s, STALL_HUNG);
        r.stuck_usec = lifeless_usec;
        fill_flight(s, f, &r);
        s->hung = r;
        if (s->hung_left == 0)
                return;
        tell(s, &r);
        if (s->hung_left > 0 && --s->hung_left == 0) {
                r.kind = STALL_HUNG_SUPPRESSED;
                tell(s, &r);
        }
}

static void judge_hung(Stall *s, const Flight *f) {
        HungTask mode = (HungTask)WATCH_GET(f->queue->hung_task);
        uint64_t hung = s->config.hung_usec;
        if (mode == HUNG_TASK_NONE || hung == 0)
                return;
        if (s->config.hung_check_count != 0 && s->n_hung_checked++ >= s->config.hung_check_count)
                return;
        s->shortest_usec = MIN(s->shortest_usec, hung);
        uint64_t since = mode == HUNG_TASK_WALL ? f->begun_usec : f->slot->judge.life_usec;
        uint64_t from = MAX(MAX(since, s->touched_usec), f->slot->judge.hung_usec);
        s->n_hung += since_usec(MAX(since, s->touched_usec), s->now_usec) >= hung;
        if (since_usec(from, s->now_usec) < hung) {
                look_again(s, add_usec(from, hung));
                return;
        }
        f->slot->judge.hung_usec = s->now_usec;
        look_again(s, add_usec(s->now_usec, hung));
        tell_hung(s, f, since_usec(since, s->now_usec));
}

static void pool_refresh(const Stall *s, WatchPool *p) {
        if (p->judge.tick == s->tick)
                return;
        p->judge.n_taken_before = p->judge.tick == s->tick - 1 ? p->judge.n_taken : 0;
        p->judge.tick = s->tick;
        p->judge.n_busy = p->judge.n_startable = p->judge.n_taken = 0;
        p->judge.waiting = NULL;
        p->judge.stale = NULL;
}

/* Its name is another queue's by now: the host knows it by the episode. */
static void end_of_removed(Stall *s, const WatchQueue *q) {
        StallReport r = report_new(s, STALL_QUEUE);
        r.phase = STALL_END;
        r.episode = q->judge.episode.number;
        r.queue_id = q->judge.id;
        r.stuck_usec = since_usec(q->judge.episode.since_usec, s->now_usec);
        tell(s, &r);
}

static void queue_refresh(Stall *s, WatchQueue *q) {
        uint64_t id = atomic_load_explicit(&q->id, memory_order_acquire);
        if (q->judge.tick == s->tick)
                return;
        if (q->judge.id != id) {
                if (q->judge.episode.number != 0)
                        end_of_removed(s, q);
                memset(&q->judge, 0, sizeof(q->judge));
                q->judge.id = id;
        }
        q->judge.tick = s->tick;
        q->judge.started_usec = q->judge.n_running = q->judge.n_handed = 0;
        q->judge.stale = NULL;
}

/* Is it looked for hung tasks now? */
static bool checks_hung(Stall *s) {
        uint64_t every = MIN(s->config.hung_check_usec, s->config.hung_usec);
        if (every != 0 && s->now_usec < s->hung_check_usec) {
                look_again(s, s->hung_check_usec);
                return false;
        }
        s->hung_check_usec = add_usec(s->now_usec, every);
        s->n_hung = s->n_hung_checked = 0;
        return true;
}

static void look_at_slots(Stall *s) {
        size_t n = watch_table_n(&s->watch->slots);
        bool hung = checks_hung(s);
        for (size_t i = 0; i < n; i++) {
                WatchSlot *c = watch_table_at(&s->watch->slots, i);
                Flight f;
                if (!flight_read(c, &f))
                        continue;
                look_for_life(s, &f);
                pool_refresh(s, f.pool);
                queue_refresh(s, f.queue);
                f.pool->judge.n_taken += !WATCH_GET(c->reserve);
                if (f.begun_usec == 0) { /* claimed ahead: nobody may forget it behind a task that blocks */
                        f.queue->judge.n_handed++;
                        continue;
                }
                f.pool->judge.n_busy += !WATCH_GET(c->reserve);
                f.queue->judge.n_running++;
                f.pool->judge.progress_usec = MAX(f.pool->judge.progress_usec, f.begun_usec);
                f.queue->judge.started_usec = MAX(f.queue->judge.started_usec, f.begun_usec);
                if (!f.pool->judge.stale || c->judge.life_usec < f.pool->judge.stale->judge.life_usec)
                        f.pool->judge.stale = c;
                if (!f.queue->judge.stale || c->judge.life_usec < f.queue->judge.stale->judge.life_usec)
                        f.queue->judge.stale = c;
                if (hung)
                        judge_hung(s, &f);
        }
        if (hung && s->config.hung_panic > 0 && s->n_hung >= s->config.hung_panic)
                panic(s, &s->hung, PANIC_BY_HUNG);
}

/* ---- queues and pools ---- */

static bool can_start(const WatchQueue *q) {
        return q->judge.n_running < WATCH_GET(q->max_active);
}

static void note_progress(Stall *s, WatchQueue *q, bool waits) {
        uint64_t n_ends = WATCH_GET(q->n_ends);
        if (q->judge.n_ends != n_ends || (waits && !q->judge.waited) || !q->judge.watched)
                q->judge.progress_usec = s->now_usec;
        q->judge.n_ends = n_ends;
        q->judge.progress_usec = MAX(q->judge.progress_usec, q->judge.started_usec);
        q->judge.waited = waits;
        q->judge.watched = WATCH_GET(q->stall_usec) != 0;
}

/* Eligible and not begun. */
static uint64_t n_waiting(const Stall *s, const WatchQueue *q) {
        return WATCH_GET(q->n_ready) + (q->judge.tick == s->tick ? q->judge.n_handed : 0);
}

static void look_at_queue(Stall *s, WatchQueue *q) {
        bool waits = WATCH_GET(q->id) != 0 && n_waiting(s, q) > 0 && !WATCH_GET(q->paused);
        if (!waits && !q->in_judgement)
                return;
        queue_refresh(s, q);
        note_progress(s, q, waits && q->judge.id != 0);
        q->judge.next_busy = s->busy;
        s->busy = q;
        if (!q->judge.waited || !can_start(q) || WATCH_GET(q->unserved) != EQ_REASON_NONE)
                return;
        WatchPool *p = WATCH_GET(q->pool);
        pool_refresh(s, p);
        p->judge.n_startable++;
        if (!p->judge.waiting || q->judge.progress_usec < p->judge.waiting->judge.progress_usec)
                p->judge.waiting = q;
}

static void look_at_queues(Stall *s) {
        size_t n = watch_table_n(&s->watch->queues);
        s->busy = NULL;
        for (size_t i = 0; i < n; i++)
                look_at_queue(s, watch_table_at(&s->watch->queues, i));
}

static bool pool_is_full(const WatchPool *p) {
        return p->judge.n_busy >= watch_pool_limit(p);
}

static eq_reason pool_stall_reason(const WatchPool *p) {
        if (pool_is_full(p))
                return watch_pool_limit(p) == 0          ? EQ_REASON_NO_WORKER
                       : WATCH_GET(p->n_threads_max) > 0 ? EQ_REASON_POOL_FULL
                                                         : EQ_REASON_SLOTS;
        eq_reason reason = (eq_reason)WATCH_GET(p->short_of);
        if (reason == EQ_REASON_NONE)
                reason = (eq_reason)WATCH_GET(p->blocked_reason);
        return reason != EQ_REASON_NONE ? reason : EQ_REASON_CREATE_FAILURE;
}

/* eqd is stopping: nothing is to start. */
static bool is_draining(const WatchPool *p) {
        return WATCH_GET(p->blocked_until_usec) == USEC_NEVER && WATCH_GET(p->blocked_reason) == EQ_REASON_DRAINING;
}

static void fill_task(const Stall *s, const WatchSlot *c, StallReport *r) {
        if (!c)
                return;
        watch_name_get(&c->judge.queue->name, r->task_queue);
        r->seq = c->judge.seq;
        r->task_usec = since_usec(c->judge.begun_usec, s->now_usec);
        fill_where(c, r);
}

static void fill_queue(const Stall *s, WatchQueue *q, StallReport *r) {
        r->queue_id = WATCH_GET(q->id);
        watch_name_get(&q->name, r->queue);
        r->n_ready = n_waiting(s, q);
        r->n_running = q->judge.n_running;
        uint64_t max = WATCH_GET(q->max_active), n_free = max > r->n_running ? max - r->n_running : 0;
        r->n_inactive = r->n_ready > n_free ? r->n_ready - n_free : 0;
}

static void judge_pool(Stall *s, WatchPool *p) {
        pool_refresh(s, p);
        uint64_t stall = WATCH_GET(p->stall_usec);
        bool waits = WATCH_GET(p->used) && p->judge.n_startable > 0 && !is_draining(p);
        if (!waits || !p->judge.waited || !p->judge.watched)
                p->judge.progress_usec = s->now_usec; /* so a fresh backlog is not old, nor is a threshold */
        p->judge.waited = waits;
        p->judge.watched = stall != 0;
        bool full = pool_is_full(p);
        uint64_t life = full && p->judge.stale ? p->judge.stale->judge.life_usec : 0;
        Verdict v = { .waits = waits && stall != 0,
                      .since_usec = MAX(p->judge.progress_usec, life),
                      .stall_usec = stall };
        if (!v.waits && p->judge.episode.number == 0)
                return;
        StallReport r = report_new(s, STALL_POOL);
        fill_pool(s, p, p->judge.n_taken, &r);
        r.reason = pool_stall_reason(p);
        r.n_slots = watch_pool_limit(p);
        r.nice = WATCH_GET(p->nice);
        if (p->judge.waiting)
                fill_queue(s, p->judge.waiting, &r);
        r.n_running = p->judge.n_busy;
        if (full)
                fill_task(s, p->judge.stale, &r);
        step(s, &p->judge.episode, &v, &r, true);
}

/* What it waits for, and since when that has not moved. False: it is not to be judged now. */
static bool queue_waits_for(const WatchQueue *q, StallReport *r, const WatchSlot **ret_slot) {
        const WatchPool *p = WATCH_GET(q->pool);
        if (is_draining(p))
                return false;
        if (!can_start(q)) {
                r->reason = WATCH_GET(q->max_active) == 1 ? EQ_REASON_SERIAL : EQ_REASON_MAX_ACTIVE;
                *ret_slot = q->judge.stale;
                return q->judge.stale != NULL; /* else the numbers are of two moments */
        }
        eq_reason unserved = (eq_reason)WATCH_GET(q->unserved);
        if (unserved != EQ_REASON_NONE) { /* its workers are busy, or there is none */
                r->reason = unserved;
                *ret_slot = unserved == EQ_REASON_NO_WORKER ? NULL : q->judge.stale ? q->judge.stale : p->judge.stale;
                return true;
        }
        r->reason = pool_stall_reason(p);
        *ret_slot = pool_is_full(p) ? p->judge.stale : NULL;
        /* A stall of the pool says it for all its queues. */
        return p->judge.episode.number == 0 || q->judge.episode.number != 0;
}

static void judge_queue(Stall *s, WatchQueue *q) {
        uint64_t stall = WATCH_GET(q->stall_usec);
        const WatchSlot *slot = NULL;
        StallReport r = report_new(s, STALL_QUEUE);
        fill_queue(s, q, &r);
        const WatchPool *p = WATCH_GET(q->pool);
        fill_pool(s, p, p->judge.n_taken, &r);
        bool waits = q->judge.waited && stall != 0 && queue_waits_for(q, &r, &slot);
        Verdict v = { .waits = waits,
                      .since_usec = MAX(q->judge.progress_usec, slot ? slot->judge.life_usec : 0),
                      .stall_usec = stall };
        fill_task(s, slot, &r);
        step(s, &q->judge.episode, &v, &r, s->config.panic_scope == PANIC_SCOPE_QUEUE);
        q->in_judgement = q->judge.waited || q->judge.episode.number != 0;
}

uint64_t stall_look(Stall *s, uint64_t now_usec, uint64_t boot_usec) {
        s->tick++;
        s->now_usec = now_usec;
        notice_pause(s, boot_usec);
        s->next_usec = now_usec + STALL_TICK_USEC;
        s->shortest_usec = USEC_NEVER;
        s->any_episode = false;

        for (size_t i = 0; i < WATCH_PARTS_MAX; i++)
                judge_part(s, &s->watch->parts[i]);
        look_at_slots(s);
        look_at_queues(s);
        size_t n = watch_table_n(&s->watch->pools);
        for (size_t i = 0; i < n; i++)
                judge_pool(s, watch_table_at(&s->watch->pools, i));
        for (WatchQueue *q = s->busy; q; q = q->judge.next_busy)
                judge_queue(s, q);

        if (s->shortest_usec != USEC_NEVER)
                look_again(s, now_usec + MAX(s->shortest_usec / 4, STALL_TICK_MIN_USEC));
        if (s->any_episode)
                look_again(s, now_usec + STALL_EPISODE_TICK_USEC);
        return s->next_usec;
}
