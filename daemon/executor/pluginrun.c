/* SPDX-License-Identifier: MIT */
/* Plugins at work: what the execution queue calls on a worker, and the table of functions that a plugin calls.
 *
 * A plugin is trusted not to write where it should not, and not to much else: it may forget results, give two, complete what
 * is long gone, or take no task. Each of that is answered with an errno, a failed task, or a queue that runs nothing more. */

#include "executor/pluginrun.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"

enum { EMPTY_CALLS_MAX = 100 };

/* On the stack of the worker that is in execute(). */
struct eq_plugin_batch {
        PluginQueue *queue;
        XBatch *x;
        PluginTask *taken; /* the last one first */
        unsigned n, n_passed;
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
        uint64_t now = clock_monotonic(&clock_system);
        if (p->mark)
                store_relaxed(p->mark, p->mark_value); /* visible with begun_usec */
        store_relaxed(&p->life.seen_usec, now);
        store_release(&p->life.begun_usec, now);
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
        store_relaxed(&of_view(t)->life.seen_usec, clock_monotonic(&clock_system));
}

static bool api_is_canceled(const eq_plugin_task *t) {
        return load_relaxed(&of_view(t)->canceled);
}

static int api_submit(const eq_plugin_task *t, const char *queue, const void *payload, size_t len) {
        PluginTask *by = of_view(t);
        uint64_t word = load_acquire(&by->word);
        if (!queue || !eq_name_valid(eq_str(queue)))
                return -EINVAL;
        if (len > EQ_PAYLOAD_MAX)
                return -E2BIG;
        if (plugin_phase(word) != PLUGIN_TAKEN && plugin_phase(word) != PLUGIN_DEFERRED)
                return -EALREADY;
        PluginSubmit *s = fault_malloc(sizeof(*s) + len);
        if (!s)
                return -ENOMEM;
        s->by = by;
        s->token = word >> PLUGIN_PHASE_BITS;
        strcpy(s->queue, queue);
        s->len = len;
        if (len > 0)
                memcpy(s->payload, payload, len);
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

/* ---- CPU time ---- */

static uint64_t cpu_usec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* cannot fail for the own thread */
        return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

bool plugin_hog_is_told(uint64_t first, uint64_t before, uint64_t now) {
        if (first == 0 || now < first)
                return false;
        uint64_t n = now - (first - 1), n_before = before < first ? 0 : before - (first - 1);
        uint64_t power = UINT64_C(1) << (63 - __builtin_clzll(n));
        return power > n_before;
}

/* Clocks are read per call, not per task: so it is the mean of a batch that counts. */
static void account(PluginQueue *q, const eq_plugin_batch *b, uint64_t used_usec) {
        const PluginExecutor *x = q->executor;
        uint64_t thresh = load_relaxed(&x->hog_usec);
        (void)fetch_add_relaxed(&q->cpu_usec, used_usec);
        if (thresh == 0 || b->n == 0 || used_usec / b->n <= thresh)
                return;
        uint64_t before = fetch_add_relaxed(&q->n_hogs, (uint64_t)b->n), now = before + b->n;
        if (plugin_hog_is_told(load_relaxed(&x->hog_warning), before, now))
                log_event(CPU_INTENSIVE, (.queue = q->name), q->plugin->name, q->name, thresh, now);
}

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
                uint64_t before = cpu_usec();
                q->plugin->execute(q->instance, &m, &b);
                account(q, &b, cpu_usec() - before);
        }
        if (b.n > 0)
                store_relaxed(&q->n_empty, 0);
        else if (b.n_passed == 0)
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
        (void)xqueue_rescue(&r->executor->xqueues, r->id); /* has_begun says it more exactly */
        self = NULL;
        plugin_up(r->executor, &r->up, UP_HELPED);
}

const XQueueOps plugin_xqueue_ops = { .execute = on_execute, .release = on_release };
