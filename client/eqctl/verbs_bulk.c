/* SPDX-License-Identifier: MIT */
/* Verbs that do something to each of many tasks, and say what came of it: kill, cancel, hold, release, retry. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "eqctl/choice.h"
#include "eqctl/text.h"

/* ---- what a verb did to each id ---- */

/* The words for 0, 1 and -1 of an INTV reply. */
typedef struct Words {
        const char *done, *other;
        bool other_is_fine;
        bool canceled_is_fine; /* a task that was canceled meanwhile is what was wanted */
} Words;

typedef struct Bulk {
        EqMethodId method;
        const Words *words;
        void *rec;    /* of the method, with `ids` at ids_at */
        EqArray *ids; /* inside rec */
        uint64_t *present, ids_bit;
        bool counted; /* what was done to each is counted, not told */
        size_t n_done, n_other;
        int status; /* the worst so far */
} Bulk;

static void bulk_worse(Bulk *b, int status) {
        if (status == EXIT_NOT_FOUND || b->status == 0)
                b->status = status;
}

/* -1 says "too late or unknown": which of them? The state; of an unknown one eqd says more, and the exit status is
 * returned. */
static int look_up(Ctl *ctl, const char *text, eq_state *ret_state) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqShow rec = { 0 };
        EqTask t = { 0 };
        EqArray ids;
        EqBytes row;

        int status = ctl_ids(ctl, &text, 1, &raw, &ids);
        if (status)
                return status;
        EQ_SET(&rec, Show, ids, ids);
        status = ctl_call(ctl, EQ_METHOD_SHOW, &rec, &reply);
        if (status)
                return status;
        EqArray rows = reply_rows(reply);
        if (eq_next_raw(&rows, &row) != 1 || eq_decode_map(&eq_schema_Task, row, &t, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        *ret_state = eq_state_find(t.state);
        return 0;
}

static void report_late(Ctl *ctl, Bulk *b, const char *text) {
        eq_state s;
        int status = look_up(ctl, text, &s);

        if (status)
                bulk_worse(b, status);
        else if (s == EQ_STATE_CANCELED && b->words->canceled_is_fine)
                ctl_note(ctl, "%s: canceled with another that it came after", text);
        else {
                ctl_error(ctl, "%s: too late, it is %s", text, eq_state_name(s));
                bulk_worse(b, EXIT_FAILURE);
        }
}

static void report(Ctl *ctl, Bulk *b, const char *text, int64_t result) {
        if (result == 0) {
                b->n_done++;
                if (!b->counted)
                        ctl_note(ctl, "%s: %s", text, b->words->done);
        } else if (result > 0) {
                b->n_other++;
                if (!b->counted)
                        ctl_note(ctl, "%s: %s", text, b->words->other);
                if (!b->words->other_is_fine)
                        bulk_worse(b, EXIT_FAILURE);
        } else
                report_late(ctl, b, text);
}

static int bulk_some(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        Bulk *b = userdata;
        int64_t result;

        *b->ids = ids;
        *b->present |= b->ids_bit;
        int status = ctl_call(ctl, b->method, b->rec, &reply);
        if (status)
                return status;
        EqArray results = reply_rows(reply);
        for (uint32_t i = 0; i < ids.n && eq_next_i64(&results, &result) == 1; i++)
                report(ctl, b, texts[i], result);
        return 0;
}

#define BULK(id, rec_, Record, words_)                                                                                 \
        {                                                                                                              \
                .method = EQ_METHOD_##id, .words = (words_), .rec = (rec_), .ids = &(rec_)->ids,                       \
                .present = &(rec_)->present, .ids_bit = EQ_BIT(Record, ids)                                            \
        }

static int bulk_texts(Ctl *ctl, Bulk *b, const char *const *texts, size_t n) {
        int status = choice_ids_each(ctl, texts, n, bulk_some, b);
        return status ? status : b->status;
}

static int bulk(Ctl *ctl, Bulk *b) {
        return bulk_texts(ctl, b, ctl->options.operands, ctl->options.n_operands);
}

int verb_kill(Ctl *ctl) {
        static const Words words = { .done = "signal sent", .other = "not running" };
        uint64_t sig = 15;
        EqKill rec = { 0 };
        Bulk b = BULK(KILL, &rec, Kill, &words);

        int status = ctl_get_signal(ctl, FLAG_kill_signal, &sig);
        if (status)
                return status;
        EQ_SET(&rec, Kill, signal, sig);
        return bulk(ctl, &b);
}

/* ---- cancel, hold, release: ids, or what filters choose ---- */

enum { TOLD_ONE_BY_ONE = 20 }; /* more tasks that a filter has chosen are counted, unless -v wants to see them */

static int cancel_options(Ctl *ctl, EqCancel *rec) {
        uint64_t sig = 0, grace = 0;

        int status = ctl_get_signal(ctl, FLAG_signal, &sig);
        if (!status)
                status = ctl_get_duration(ctl, FLAG_grace, &grace);
        if (sig)
                EQ_SET(rec, Cancel, signal, sig);
        if (ctl_has(ctl, FLAG_grace))
                EQ_SET(rec, Cancel, grace_usec, grace);
        return status;
}

typedef struct Texts {
        char **list; /* owned, as is each */
        size_t n, cap;
        bool running;   /* take running ones, too */
        bool held_only; /* and none but those that are held */
} Texts;

static void texts_deinit(Texts *t) {
        for (size_t i = 0; i < t->n; i++)
                free(t->list[i]);
        free(t->list);
}

static int collect(Ctl *ctl, const EqTask *t, void *userdata) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        Texts *texts = userdata;
        eq_state s = eq_state_find(t->state);

        if (eq_state_finished(s) || (s == EQ_STATE_RUNNING && !texts->running) ||
            (texts->held_only && eq_reason_find(t->reason) != EQ_REASON_HELD))
                return 0;
        if (texts->n == texts->cap) {
                size_t cap = texts->cap ? 2 * texts->cap : 64;
                char **list = reallocarray(texts->list, cap, sizeof(*list));
                if (!list)
                        return ctl_no_memory(ctl);
                texts->list = list;
                texts->cap = cap;
        }
        ctl_id(&b, t->id, t->queue, ctl);
        char *id = strdup(text_end(&b));
        if (!id)
                return ctl_no_memory(ctl);
        texts->list[texts->n++] = id;
        return 0;
}

static int bulk_counted(Ctl *ctl, Bulk *b, const Texts *texts) {
        b->counted = texts->n > TOLD_ONE_BY_ONE && !ctl->verbose;
        int status = bulk_texts(ctl, b, (const char *const *)texts->list, texts->n);
        if (b->counted && b->n_done > 0)
                ctl_note(ctl, "%zu task%s %s", b->n_done, b->n_done == 1 ? "" : "s", b->words->done);
        if (b->counted && b->n_other > 0)
                ctl_note(ctl, "%zu task%s: %s", b->n_other, b->n_other == 1 ? "" : "s", b->words->other);
        return status;
}

static int bulk_filter(Ctl *ctl, Bulk *b, EqList *list, bool ask, bool held_only) {
        Texts texts = { .running = ctl_has(ctl, FLAG_running), .held_only = held_only };

        EQ_SET(list, List, finished, 0);
        int status = ctl_list_each(ctl, list, collect, &texts);
        if (!status && ask && texts.n > 1 && !ctl_has(ctl, FLAG_yes)) {
                ctl_error(ctl, "this would cancel %zu tasks; add --yes to do it", texts.n);
                status = EXIT_USAGE;
        } else if (!status && texts.n == 0)
                ctl_note(ctl, "no task matches");
        else if (!status)
                status = bulk_counted(ctl, b, &texts);
        texts_deinit(&texts);
        return status;
}

int verb_cancel(Ctl *ctl) {
        static const Words words = { .done = "canceled", .other = "being stopped", .other_is_fine = true };
        static const Words pending = { .done = "canceled",
                                       .other = "is running by now; add --running to stop it",
                                       .canceled_is_fine = true };
        static const Words all = {
                .done = "canceled", .other = "being stopped", .other_is_fine = true, .canceled_is_fine = true
        };
        _cleanup_buffer_ EqBuffer states = EQ_BUFFER_NULL;
        EqCancel rec = { 0 };
        EqList list = { 0 };
        Bulk b = BULK(CANCEL, &rec, Cancel, &words);

        int status = cancel_options(ctl, &rec);
        if (!status)
                status = choice_filters(ctl, &states, &list);
        if (status)
                return status;
        bool filter = list.present != 0, ids = ctl->options.n_operands > 0;
        if (filter == ids) {
                ctl_error(ctl, "%s",
                          ids ? "give ids or filters, not both"
                              : "cancel what? Give ids, or -q QUEUE, -s STATE, -u USER, -l LABEL");
                return EXIT_USAGE;
        }
        if (ids || ctl_has(ctl, FLAG_running))
                EQ_SET(&rec, Cancel, running, true);
        if (filter)
                b.words = ctl_has(ctl, FLAG_running) ? &all : &pending;
        return ids ? bulk(ctl, &b) : bulk_filter(ctl, &b, &list, true, false);
}

/* What both can take back needs no --yes. */
static int bulk_chosen(Ctl *ctl, Bulk *b, bool held_only) {
        EqBuffer states = EQ_BUFFER_NULL; /* stays empty: they have no --state */
        EqList list = { 0 };

        int status = choice_filters(ctl, &states, &list);
        bool filter = list.present != 0, ids = ctl->options.n_operands > 0;
        if (!status && filter == ids) {
                ctl_error(ctl, "%s",
                          ids ? "give ids or filters, not both"
                              : "which tasks? Give ids, or -q QUEUE, -u USER, -l LABEL");
                status = EXIT_USAGE;
        }
        if (status)
                return status;
        return ids ? bulk(ctl, b) : bulk_filter(ctl, b, &list, false, held_only);
}

int verb_hold(Ctl *ctl) {
        static const Words words = { .done = "held", .other = "not pending: it is running or has ended" };
        EqTasks rec = { 0 };
        Bulk b = BULK(HOLD, &rec, Tasks, &words);
        return bulk_chosen(ctl, &b, false);
}

int verb_release(Ctl *ctl) {
        static const Words words = { .done = "released", .other = "was not held", .other_is_fine = true };
        EqTasks rec = { 0 };
        Bulk b = BULK(RELEASE, &rec, Tasks, &words);
        return bulk_chosen(ctl, &b, true);
}

/* ---- retry ---- */

static int retry_failed(Ctl *ctl, EqRetry *rec) {
        _cleanup_reply_ eq_reply *reply = NULL;
        const char *queue = ctl_get(ctl, FLAG_filter_queue);
        int64_t n = 0;

        EQ_SET(rec, Retry, failed, true);
        if (queue)
                EQ_SET(rec, Retry, queue, eq_str(queue));
        int status = ctl_call(ctl, EQ_METHOD_RETRY, rec, &reply);
        if (status)
                return status;
        EqArray results = reply_rows(reply);
        if (eq_get_i64(reply_result(reply), &n) < 0)
                (void)eq_next_i64(&results, &n); /* stays 0 */
        ctl_note(ctl, "%" PRId64 " task%s queued again", n, n == 1 ? "" : "s");
        return 0;
}

int verb_retry(Ctl *ctl) {
        static const Words words = { .done = "queued again", .other = "has not ended" };
        bool failed = ctl_has(ctl, FLAG_failed), ids = ctl->options.n_operands > 0;
        EqRetry rec = { 0 };
        Bulk b = BULK(RETRY, &rec, Retry, &words);

        if (failed == ids || (ids && ctl_has(ctl, FLAG_filter_queue))) {
                ctl_error(ctl, "usage: eqctl retry ID... or eqctl retry --failed [-q QUEUE]");
                return EXIT_USAGE;
        }
        if (ctl_has(ctl, FLAG_reset))
                EQ_SET(&rec, Retry, reset, true);
        return failed ? retry_failed(ctl, &rec) : bulk(ctl, &b);
}
