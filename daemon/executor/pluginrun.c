/* SPDX-License-Identifier: MIT */
/* Plugins at work: what the execution queue calls on a worker, and the table of functions that a plugin calls.
 *
 * A plugin is trusted not to write where it should not, and not to much else: it may forget results, give two, complete what
 * is long gone, or take no task. Each of that is answered with an errno, a failed task, or a queue that runs nothing more. */

#include "executor/pluginrun.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"
#include "base/futex.h"

enum { EMPTY_CALLS_MAX = 100 };

/* On the stack of the worker that is in execute(). */
struct eq_plugin_batch {
        PluginQueue *queue;
        XBatch *x;
        PluginTask *taken; /* the last one first */
        unsigned n, n_passed;
        PluginTask *first;   /* of those that the plugin holds together, if they are more than one */
        unsigned n_held;     /* so many; of `taken` */
        uint64_t since_usec; /* when the first of them began */
        uint64_t begun_usec; /* when the first of the call did */
        bool over;
        PluginReserve *reserve; /* it is that one's thread, and takes one task; NULL: a worker */
};

static _Thread_local PluginReserve *self;

static PluginTask *of_view(const eq_plugin_task *t) {
        return (PluginTask *)((const char *)t - offsetof(PluginTask, view));
}

void plugin_task_unref(PluginTask *p) {
        if (fetch_sub_seq_cst(&p->n_refs, 1) == 1)
                slab_free(p->queue->executor->tasks, p);
}

/* ---- results ---- */

/* Printable, one line, cut. NULL: no memory. */
static char *copy_message(const char *message) {
        size_t n = strnlen(message ? message : "", EQ_PLUGIN_MESSAGE_MAX);
        char *copy = fault_malloc(n + 1);
        if (!copy)
                return NULL;
        memcpy(copy, message ? message : "", n);
        copy[n] = '\0';
        if (!eq_text_valid(eq_bytes(copy, n)))
                for (size_t i = 0; i < n; i++)
                        if (copy[i] < ' ' || copy[i] == 0x7f)
                                copy[i] = '?';
        return copy;
}

typedef struct Outcome {
        TaskVerdict verdict;
        bool final;
        char *text; /* taken over on success */
        size_t len;
} Outcome;

/* From phase `from` to RESULT, and up. `word` is what it is expected to be. */
static int settle(PluginTask *p, uint64_t word, const Outcome *o) {
        PluginQueue *q = p->queue;
        uint64_t token = word >> PLUGIN_PHASE_BITS;
        if (!cas_acq_rel(&p->word, &word, plugin_word(token, PLUGIN_RESULT)))
                return -EALREADY;
        WATCH_SET(p->life.tid, 0);
        p->verdict = o->verdict;
        p->final = o->final;
        p->text = o->text;
        p->len = o->len;
        if (o->verdict == TASK_BAD && load_relaxed(&p->canceled))
                p->verdict = TASK_STOPPED;
        bool keeps_order = p->ordered && !o->final && o->verdict != TASK_OK;
        /* A give_back always does on a serial queue. */
        if (keeps_order || (o->verdict == TASK_RETURNED && load_relaxed(&q->max_active) == 1))
                p->paused = xqueue_pause(&q->executor->xqueues, q->id) == 0;
        plugin_up(q->executor, &p->up, UP_TASK);
        return 0;
}

static int settle_ok(PluginTask *p, uint64_t word, const void *result, size_t len) {
        Outcome o = { .verdict = TASK_OK, .len = len };
        if (len > EQ_PLUGIN_RESULT_MAX)
                return -E2BIG;
        if (len > 0 && !(o.text = fault_malloc(len)))
                return -ENOMEM;
        if (len > 0)
                memcpy(o.text, result, len);
        int r = settle(p, word, &o);
        if (r < 0)
                free(o.text);
        return r;
}

/* Without memory it has failed all the same, and only the text is missing. */
static int settle_fail(PluginTask *p, uint64_t word, const char *message, bool final) {
        Outcome o = { .verdict = TASK_BAD, .final = final, .text = copy_message(message) };
        int r = settle(p, word, &o);
        if (r < 0)
                free(o.text);
        return r;
}

static uint64_t word_of_taken(PluginTask *p) {
        return plugin_word(load_acquire(&p->word) >> PLUGIN_PHASE_BITS, PLUGIN_TAKEN);
}

static int api_ok(const eq_plugin_task *t, const void *result, size_t len) {
        PluginTask *p = of_view(t);
        return settle_ok(p, word_of_taken(p), result, len);
}

static int api_fail(const eq_plugin_task *t, const char *message, bool final) {
        PluginTask *p = of_view(t);
        return settle_fail(p, word_of_taken(p), message, final);
}

static int api_give_back(eq_plugin_batch *b, const eq_plugin_task *t) {
        PluginTask *p = of_view(t);
        b->over = true;
        return settle(p, word_of_taken(p), &(Outcome) { .verdict = TASK_RETURNED });
}

/* ---- deferred ---- */

static int api_defer(const eq_plugin_task *t, eq_plugin_completion *ret) {
        PluginTask *p = of_view(t);
        uint64_t word = word_of_taken(p), token = word >> PLUGIN_PHASE_BITS;
        if (!(p->queue->plugin->flags & EQ_PLUGIN_DEFERS))
                return -EPERM;
        if (!cas_acq_rel(&p->word, &word, plugin_word(token, PLUGIN_DEFERRED)))
                return -EALREADY;
        WATCH_SET(p->life.tid, 0);
        *ret = (eq_plugin_completion) { .task = p, .token = token };
        return 0;
}

/* The memory of tasks stays what it is as long as eqd runs, so a stale one may be looked at. */
static int check_completion(eq_plugin_completion c, uint64_t *ret_word) {
        *ret_word = plugin_word(c.token, PLUGIN_DEFERRED);
        return c.task && load_acquire(&((PluginTask *)c.task)->word) == *ret_word ? 0 : -ESTALE;
}

static int api_complete_ok(eq_plugin_completion c, const void *result, size_t len) {
        uint64_t word;
        int r = check_completion(c, &word);
        if (r >= 0)
                r = settle_ok(c.task, word, result, len);
        return r == -EALREADY ? -ESTALE : r;
}

static int api_complete_fail(eq_plugin_completion c, const char *message, bool final) {
        uint64_t word;
        int r = check_completion(c, &word);
        if (r >= 0)
                r = settle_fail(c.task, word, message, final);
        return r == -EALREADY ? -ESTALE : r;
}

bool plugin_task_abandon(PluginTask *p, const char *why) {
        uint64_t word = load_acquire(&p->word);
        return plugin_phase(word) == PLUGIN_DEFERRED && settle_fail(p, word, why, false) == 0;
}

/* ---- CPU time ----
 *
 * What a plugin holds together, which is one task unless it takes the next before it has a result for the last, has its CPU time
 * together. To read the CPU clock of a thread is a system call, so that short tasks do without: nobody uses more CPU time than he
 * lasts, and the begin of the next says how long that was. The clock is read
 *      - behind a hold that lasted longer than its tasks may use CPU time,
 *      - and once every PLUGIN_READ_USEC that a thread was in plugins, for the sum of the queue that it is at then: each gets its share
 *        on average.
 * What has passed between the last reading and such a hold is not its: of that the thread's idle time is known, and all else is
 * taken as used. So nobody is accused falsely; if it is not certain, the next ones of the queue are measured from their begin
 * on, so many that the readings cost about a hundredth of what this one lasted.
 * Those that do not end are the watchdog's: WatchLife says which thread to look at. */

enum { USEC_PER_MEASURED = 32 };

typedef struct ThreadTime {
        uint64_t tid; /* as of WatchLife */
        bool is_read;
        uint64_t cpu_usec, at_usec, idle_usec; /* the last reading: CPU time, when, and idle time until then */
        uint64_t busy_usec, rest_usec;         /* time in short holds, and CPU time, that no queue has got yet */
} ThreadTime;

static _Thread_local ThreadTime own;

bool plugin_hog_is_told(uint64_t first, uint64_t before, uint64_t now) {
        if (first == 0 || now < first)
                return false;
        uint64_t n = now - (first - 1), n_before = before < first ? 0 : before - (first - 1);
        uint64_t power = UINT64_C(1) << (63 - __builtin_clzll(n));
        return power > n_before;
}

void plugin_count_hogs(PluginQueue *q, uint64_t n) {
        const PluginExecutor *x = q->executor;
        uint64_t before = fetch_add_relaxed(&q->n_hogs, n), now = before + n;
        if (plugin_hog_is_told(load_relaxed(&x->hog_warning), before, now))
                log_event(CPU_INTENSIVE, (.queue = q->name), q->plugin->name, q->name, load_relaxed(&x->hog_usec), now);
}

/* Returns the CPU time since the last reading. */
static uint64_t read_cpu(uint64_t now) {
        uint64_t cpu = clock_thread_cpu_usec(0), used = own.is_read ? cpu - own.cpu_usec : 0;
        own.is_read = true;
        own.cpu_usec = cpu;
        own.at_usec = now;
        own.idle_usec = workers_idle_usec();
        return used;
}

/* Those that the watchdog has not told of. */
static uint64_t note_hogs(const eq_plugin_batch *b) {
        uint64_t n = 0;
        const unsigned n_held = b->n_held;
        PluginTask *p = b->taken;
        for (unsigned i = 0; i < n_held; i++, p = p->taken)
                n += !watch_hog_is_known(&p->life, load_relaxed(&p->life.begun_usec));
        return n;
}

static void measure(const eq_plugin_batch *b, uint64_t now, uint64_t lasted, uint64_t may_use) {
        PluginQueue *q = b->queue;
        uint64_t idle = workers_idle_usec() - own.idle_usec, before = b->since_usec - own.at_usec;
        uint64_t used = read_cpu(now), others = before > idle ? before - idle : 0;
        uint64_t at_most = MIN(used, lasted), at_least = MIN(at_most, used > others ? used - others : 0);
        (void)fetch_add_relaxed(&q->cpu_usec, at_least);
        own.rest_usec += used - at_least;
        own.busy_usec -= lasted; /* with all of the call, at its end, it is not negative */
        if (at_most <= may_use)
                return;
        if (at_least > may_use)
                plugin_count_hogs(q, note_hogs(b));
        store_relaxed(&q->n_measured, MAX(load_relaxed(&q->n_measured), lasted / USEC_PER_MEASURED));
}

static __attribute__((noinline, cold)) void end_long_hold(const eq_plugin_batch *b, uint64_t now, uint64_t hog_usec) {
        uint64_t lasted = now - b->since_usec;
        if (hog_usec != PLUGIN_HOGS_FREE && lasted > b->n_held * hog_usec)
                measure(b, now, lasted, b->n_held * hog_usec);
}

/* What the plugin holds is through. */
static inline void end_hold(const eq_plugin_batch *b, uint64_t now) {
        uint64_t hog_usec = load_relaxed(&b->queue->executor->hog_usec);
        if (now - b->since_usec > hog_usec)
                end_long_hold(b, now, hog_usec);
}

static __attribute__((noinline, cold)) void begin_measured(PluginQueue *q, uint64_t n, uint64_t now) {
        store_relaxed(&q->n_measured, n - 1); /* with others at the queue a few more or less */
        own.rest_usec += read_cpu(now);
}

static void hold_one_more(eq_plugin_batch *b, PluginTask *p) {
        if (b->n_held++ == 1)
                b->first = b->taken;
        WATCH_SET(b->first->life.n_held, b->n_held);
        WATCH_SET(b->first->life.first, &b->first->life);
        WATCH_SET(p->life.first, &b->first->life);
}

/* Before `taken` becomes p, which begins now. */
static inline void hold(eq_plugin_batch *b, PluginTask *p, uint64_t now) {
        WATCH_SET(p->life.tid, own.tid);
        if (b->n_held > 0 && plugin_phase(load_relaxed(&b->taken->word)) == PLUGIN_TAKEN) {
                hold_one_more(b, p);
                return;
        }
        if (b->n_held > 0)
                end_hold(b, now);
        else
                b->begun_usec = now;
        b->n_held = 1;
        b->since_usec = now;
        WATCH_SET(p->life.first, NULL);
        uint64_t n = load_relaxed(&b->queue->n_measured);
        if (n > 0)
                begin_measured(b->queue, n, now);
}

static __attribute__((noinline, cold)) void share_cpu(PluginQueue *q, uint64_t now) {
        own.rest_usec += read_cpu(now);
        (void)fetch_add_relaxed(&q->cpu_usec, MIN(own.rest_usec, own.busy_usec));
        own.rest_usec = own.busy_usec = 0;
}

static __attribute__((noinline, cold)) void end_long_call(const eq_plugin_batch *b, uint64_t now) {
        end_hold(b, now);
        if (own.busy_usec >= PLUGIN_READ_USEC)
                share_cpu(b->queue, now);
}

/* Something was taken. What the thread is busy is at least what this call has lasted since the last look at the CPU clock, so one
 * comparison says that there is nothing to look at. */
static inline void end_call(const eq_plugin_batch *b, const PluginQueue *q) {
        uint64_t now = clock_system_usec();
        own.busy_usec += now - b->begun_usec;
        if (own.busy_usec > load_relaxed(&q->executor->look_usec))
                end_long_call(b, now);
}

/* The first call of a thread; a reserve's of each help, as what it waits for is not counted as a worker's idle time. */
static __attribute__((noinline, cold)) void begin_thread(void) {
        own.tid = (uint64_t)syscall(SYS_gettid) | (self ? WATCH_TID_RESCUED : 0);
        (void)read_cpu(clock_system_usec());
}

/* ---- the iterator ---- */

/* May the next one start, whatever becomes of the last? */
static bool order_allows_more(const eq_plugin_batch *b) {
        PluginTask *last = b->taken;
        if (!last || !last->ordered)
                return true;
        if (b->queue->plugin->flags & EQ_PLUGIN_DEFERS)
                return false; /* another thread may be writing its verdict */
        return plugin_phase(load_relaxed(&last->word)) == PLUGIN_RESULT && (last->verdict == TASK_OK || last->final);
}

/* The next one that was not taken back. */
static PluginTask *take(eq_plugin_batch *b) {
        for (XTask *t; (t = xbatch_next(b->x));) {
                PluginTask *p = (PluginTask *)t;
                uint64_t token = load_acquire(&p->word) >> PLUGIN_PHASE_BITS, word = plugin_word(token, PLUGIN_HANDED);
                if (cas_acq_rel(&p->word, &word, plugin_word(token, PLUGIN_TAKEN)))
                        return p;
                b->n_passed++;
        }
        return NULL;
}

/* While memory is short they are half as long. What a reserve has claimed and not begun nobody else could run. */
static unsigned batch_max(const eq_plugin_batch *b) {
        const PluginQueue *q = b->queue;
        if (b->reserve)
                return 1;
        return load_relaxed(&q->executor->pressed) ? MAX(q->calls.batch_max / 2, 1U) : q->calls.batch_max;
}

static __attribute__((noinline, cold)) void tell_begin(PluginExecutor *x) {
        store_relaxed(&x->begin_awaited, 0);
        futex_wake(&x->begin_awaited, 1);
}

static const eq_plugin_task *api_next(eq_plugin_batch *b) {
        if (b->over || b->n >= batch_max(b) || !order_allows_more(b)) {
                b->over = true;
                return NULL;
        }
        PluginTask *p = take(b);
        if (!p) {
                b->over = true;
                return NULL;
        }
        (void)fetch_add_relaxed(&p->n_refs, 1);
        preempt_here();
        uint64_t now = clock_system_usec();
        store_relaxed(&p->life.seen_usec, now);
        if (WATCH_IS_ON)
                hold(b, p, now);
        if (p->mark)
                store_relaxed(p->mark, p->mark_value); /* visible with begun_usec */
        store_release(&p->life.begun_usec,
                      load_relaxed(&p->life.seen_usec)); /* `now`, which so needs no register all the way */
        light_fence();
        if (load_relaxed(&b->queue->executor->begin_awaited))
                tell_begin(b->queue->executor);
        if (b->reserve)
                store_relaxed(&b->reserve->has_begun, true);
        p->taken = b->taken;
        b->taken = p;
        b->n++;
        return &p->view;
}

static bool api_more(const eq_plugin_batch *b) {
        XQueueStats stats;
        if (b->over || b->n >= batch_max(b) || !order_allows_more(b) ||
            xqueue_get_stats(&b->queue->executor->xqueues, b->queue->id, &stats) < 0)
                return false;
        return stats.pauses == 0 && stats.n_tasks > 1; /* the one that was taken last counts until the next is */
}

static bool api_is_stopped(const eq_plugin_batch *b) {
        return xbatch_is_stopped(b->x);
}

/* ---- the rest of the table ---- */

static void api_touch(const eq_plugin_task *t) {
        store_relaxed(&of_view(t)->life.seen_usec, clock_system_usec());
}

static bool api_is_canceled(const eq_plugin_task *t) {
        return load_relaxed(&of_view(t)->canceled);
}

static void *alloc_block(PluginExecutor *x) {
        return fault_hit(FAULT_ALLOC) ? NULL : slab_alloc(x->blocks);
}

void plugin_submit_free(PluginExecutor *x, PluginSubmit *s) {
        for (PluginBlock *b = s ? s->more : NULL, *next; b; b = next) {
                next = b->next;
                slab_free(x->blocks, b);
        }
        if (s)
                slab_free(x->blocks, s);
}

/* NULL: no memory. */
static PluginSubmit *copy_submit(PluginExecutor *x, const char *payload, size_t len) {
        PluginSubmit *s = alloc_block(x);
        if (!s)
                return NULL;
        size_t done = MIN(len, PLUGIN_SUBMIT_ROOM);
        s->more = NULL;
        s->len = len;
        if (done > 0)
                memcpy(s->payload, payload, done);
        for (PluginBlock **end = &s->more; done < len; end = &(*end)->next) {
                size_t n = MIN(len - done, sizeof((*end)->bytes));
                *end = alloc_block(x);
                if (!*end) {
                        plugin_submit_free(x, s);
                        return NULL;
                }
                (*end)->next = NULL;
                memcpy((*end)->bytes, payload + done, n);
                done += n;
        }
        return s;
}

/* Wait-free: a payload of EQ_PAYLOAD_MAX is so many blocks, each of them is had without waiting for anybody (slab.h), and the push is one
 * exchange (inbox.h). System calls: memory that the slab has not got, and the wake-up of the loop if nothing was there. */
static int api_submit(const eq_plugin_task *t, const char *queue, const void *payload, size_t len) {
        PluginTask *by = of_view(t);
        uint64_t word = load_acquire(&by->word);
        if (!queue || !eq_name_valid(eq_str(queue)))
                return -EINVAL;
        if (len > EQ_PAYLOAD_MAX)
                return -E2BIG;
        if (plugin_phase(word) != PLUGIN_TAKEN && plugin_phase(word) != PLUGIN_DEFERRED)
                return -EALREADY;
        PluginSubmit *s = copy_submit(by->queue->executor, payload, len);
        if (!s)
                return -ENOMEM;
        s->by = by;
        s->token = word >> PLUGIN_PHASE_BITS;
        strcpy(s->queue, queue);
        plugin_up(by->queue->executor, &s->up, UP_SUBMIT);
        return 0;
}

static void api_log(eq_plugin_host *host, int level, const char *message) {
        const PluginQueue *q = (const PluginQueue *)host;
        log_event_at(PLUGIN_SAYS, level < LOG_EMERG || level > LOG_DEBUG ? LOG_INFO : level, (.queue = q->name),
                     q->name, q->plugin->name, message ? message : "");
}

const eq_plugin_api plugin_api = {
        .abi = EQ_PLUGIN_ABI,
        .size = sizeof(eq_plugin_api),
        .next = api_next,
        .more = api_more,
        .is_stopped = api_is_stopped,
        .give_back = api_give_back,
        .ok = api_ok,
        .fail = api_fail,
        .defer = api_defer,
        .complete_ok = api_complete_ok,
        .complete_fail = api_complete_fail,
        .touch = api_touch,
        .is_canceled = api_is_canceled,
        .submit = api_submit,
        .log = api_log,
};

/* ---- what the execution queue calls ---- */

static void open_plugin(PluginQueue *q) {
        const eq_plugin_config config = {
                .queue = q->name,
                .text = q->text,
                .max_active = load_relaxed(&q->max_active),
                .error = q->error,
                .error_size = sizeof(q->error),
        };
        q->error[0] = '\0';
        q->open_result = q->plugin->open(&plugin_api, (eq_plugin_host *)q, &config, &q->instance);
        q->error[sizeof(q->error) - 1] = '\0';
        q->is_open = q->open_result >= 0;
        plugin_up(q->executor, &q->up_opened, UP_OPENED);
}

/* The last call. q may be gone when it returns. */
static void close_plugin(PluginQueue *q, XBatch *x) {
        eq_plugin_batch b = { .queue = q, .x = x, .over = true };
        const eq_plugin_meta meta = { .queue = q->name, .host = (eq_plugin_host *)q };
        XQueueStats stats = { 0 };
        (void)xqueue_get_stats(&q->executor->xqueues, q->id, &stats); /* this thread is in a call of it */
        (void)fetch_add_relaxed(&q->n_woken, stats.n_woken);
        if (q->is_open) {
                q->plugin->execute(q->instance, &meta, &b);
                q->plugin->close(q->instance);
        }
        q->is_open = false;
        plugin_up(q->executor, &q->up_closed, UP_CLOSED);
}

/* It has tasks and takes none. Not for ever. */
static void call_was_empty(PluginQueue *q) {
        if (fetch_add_relaxed(&q->n_empty, 1) < EMPTY_CALLS_MAX - 1 || exchange_seq_cst(&q->is_broken, true))
                return;
        (void)xqueue_pause(&q->executor->xqueues, q->id); /* for good: what is pending is taken back */
        plugin_up(q->executor, &q->up_broken, UP_BROKEN);
}

static void end_batch(eq_plugin_batch *b) {
        for (PluginTask *p = b->taken, *next; p; p = next) {
                next = p->taken;
                uint64_t word = load_relaxed(&p->word);
                if (plugin_phase(word) == PLUGIN_TAKEN)
                        (void)settle_fail(p, word, "the plugin returned without a result for it", false);
                plugin_task_unref(p);
        }
}

/* Instead of a plugin that takes nothing, when its queue is to end. */
static void give_all_back(eq_plugin_batch *b) {
        for (const eq_plugin_task *t; (t = api_next(b));)
                (void)api_give_back(b, t);
}

static void on_execute(void *meta, XBatch *x) {
        PluginQueue *q = meta;
        if (xbatch_is_stopped(x)) {
                close_plugin(q, x);
                return;
        }
        if (!q->is_open) { /* then nothing else was handed over */
                (void)xbatch_next(x);
                open_plugin(q);
                return;
        }
        eq_plugin_batch b = { .queue = q, .x = x, .reserve = self };
        const eq_plugin_meta m = { .queue = q->name, .host = (eq_plugin_host *)q };
        if (load_relaxed(&q->is_broken))
                give_all_back(&b);
        else {
                if (WATCH_IS_ON && !own.is_read)
                        begin_thread();
                q->plugin->execute(q->instance, &m, &b);
        }
        if (b.n > 0) {
                store_relaxed(&q->n_empty, 0);
                if (WATCH_IS_ON && b.n_held > 0)
                        end_call(&b, q);
        } else if (b.n_passed == 0)
                call_was_empty(q);
        end_batch(&b);
}

static void on_release(void *meta, XTask *t) {
        if (t != &((PluginQueue *)meta)->open_task)
                plugin_task_unref((PluginTask *)t);
}

void plugin_reserve_help(void *reserve) {
        PluginReserve *r = reserve;
        self = r;
        own.is_read = false;
        (void)xqueue_rescue(&r->executor->xqueues, r->id); /* has_begun says it more exactly */
        self = NULL;
        plugin_up(r->executor, &r->up, UP_HELPED);
}

const XQueueOps plugin_xqueue_ops = { .execute = on_execute, .release = on_release };
