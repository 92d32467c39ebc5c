/* SPDX-License-Identifier: MIT */
/* Verbs that tell of tasks: ls, show, why, wait. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "eqctl/choice.h"
#include "eqctl/duration.h"
#include "eqctl/follow.h"
#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/sorter.h"
#include "eqctl/text.h"

enum { LS_FINISHED = 10 };

/* ---- ls ---- */

typedef struct Counts {
        size_t n, by_state[_EQ_STATE_MAX];
        uint64_t oldest_usec;
        char oldest_queue[EQ_NAME_MAX + 1];
} Counts;

static void count_task(Counts *c, const EqTask *t) {
        eq_state s = eq_state_find(t->state);

        c->n++;
        if (s >= 0)
                c->by_state[s]++;
        if (s == EQ_STATE_QUEUED && (!c->oldest_usec || t->submitted_usec < c->oldest_usec)) {
                c->oldest_usec = t->submitted_usec;
                (void)snprintf(c->oldest_queue, sizeof(c->oldest_queue), "%.*s", (int)t->queue.len, t->queue.data);
        }
}

static void print_summary(const Ctl *ctl, const Counts *c) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        char buf[DURATION_SIZE];
        const char *separator = " (";

        if (ctl->quiet || !ctl->headers || (ctl->format != FORMAT_TABLE && ctl->format != FORMAT_WIDE))
                return;
        text_printf(&b, "%zu task%s", c->n, c->n == 1 ? "" : "s");
        for (int s = 0; s < _EQ_STATE_MAX; s++) {
                if (c->by_state[s] == 0)
                        continue;
                text_printf(&b, "%s%zu ", separator, c->by_state[s]);
                for (const char *name = eq_state_name((eq_state)s); *name; name++)
                        text_printf(&b, "%c", *name | 0x20);
                separator = ", ";
        }
        text_cstr(&b, c->n > 0 ? ")" : "");
        uint64_t now = wall_usec();
        if (c->oldest_usec && now > c->oldest_usec)
                text_printf(&b, "   %s: oldest wait %s", c->oldest_queue, duration_format(now - c->oldest_usec, buf));
        (void)fflush(stdout);
        (void)fprintf(stderr, "%s\n", text_end(&b));
}

typedef struct Listing {
        Rows rows;
        Counts counts;
        uint64_t skip;  /* rows to leave out before the last N */
        Sorter *sorter; /* NULL: they are printed as they come */
        bool payload;   /* with it */
} Listing;

static int ls_count(Ctl *ctl, const EqTask *t, void *userdata) {
        Listing *l = userdata;
        l->skip++;
        return 0;
}

static int ls_task(Ctl *ctl, const EqTask *t, void *userdata) {
        Listing *l = userdata;

        if (l->skip > 0) {
                l->skip--;
                return 0;
        }
        count_task(&l->counts, t);
        if (l->sorter)
                sorter_add(l->sorter, t);
        else
                rows_add(&l->rows, t);
        return 0;
}

static void ls_sorted(void *userdata, const void *rec) {
        Listing *l = userdata;
        rows_add(&l->rows, rec);
}

/* Shown by id, in the order given. */
static int show_rows(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqShow rec = { 0 };
        EqBytes row;

        EQ_SET(&rec, Show, ids, ids);
        if (((const Listing *)userdata)->payload)
                EQ_SET(&rec, Show, payload, true);
        int status = ctl_call(ctl, EQ_METHOD_SHOW, &rec, &reply);
        EqArray rows = status ? (EqArray) { 0 } : reply_rows(reply);
        while (!status && eq_next_raw(&rows, &row) == 1) {
                EqTask t = { 0 };
                if (eq_decode_map(&eq_schema_Task, row, &t, &error) < 0)
                        return ctl_fail(ctl, -EBADMSG);
                status = ls_task(ctl, &t, userdata);
        }
        return status;
}

static int ls_filter(Ctl *ctl, EqList *list) {
        const char *since = ctl_get(ctl, FLAG_since);
        uint64_t usec;

        if (since && time_parse(since, wall_usec(), TIME_PAST, &usec) < 0) {
                ctl_error(ctl, "--since: `%s` is no time; write 2h, 08:00, yesterday, \"2030-01-31 22:30\" or @EPOCH",
                          since);
                return EXIT_USAGE;
        }
        if (since)
                EQ_SET(list, List, since_usec, usec);
        if (!since && !ctl_has(ctl, FLAG_all) && !ctl_has(ctl, FLAG_state) && !ctl_has(ctl, FLAG_limit))
                EQ_SET(list, List, finished, LS_FINISHED);
        return 0;
}

/* With -n: a first pass counts, so that the second one can leave out all but the last. Tasks that come in between are shown
 * as well: nothing is lost. */
static int ls_limit(Ctl *ctl, const EqList *list, Listing *l) {
        EqList copy = *list;
        int64_t limit = 0;

        int status = ctl_get_number(ctl, FLAG_limit, 1, INT64_MAX, &limit);
        if (status || limit == 0)
                return status;
        status = ctl_list_each(ctl, &copy, ls_count, l);
        l->skip = l->skip > (uint64_t)limit ? l->skip - (uint64_t)limit : 0;
        return status;
}

/* As the table has them. */
static const char *const sort_aliases[] = { "age", "submitted_usec", "try", "attempt", "user", "uid", NULL };

int verb_ls(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer states = EQ_BUFFER_NULL;
        _cleanup_(sorter_deinit) Sorter sorter = { 0 };
        const char *sort = ctl_get(ctl, FLAG_sort);
        EqList list = { 0 };
        Listing l = { .sorter = sort ? &sorter : NULL };
        EqTask t;

        int status = choice_filters(ctl, &states, &list);
        if (!status && ctl->options.n_operands > 0 &&
            (list.present || ctl_has(ctl, FLAG_since) || ctl_has(ctl, FLAG_limit))) {
                ctl_error(ctl, "give ids or filters, not both");
                status = EXIT_USAGE;
        }
        if (!status)
                status = ls_filter(ctl, &list);
        if (!status && sort)
                status = sorter_init(&sorter, ctl, &eq_schema_Task, sort, sort_aliases);
        if (!status && ctl->options.n_operands == 0)
                status = ls_limit(ctl, &list, &l);
        if (!status)
                status = rows_begin(&l.rows, ctl, &rows_tasks);
        if (status)
                return status;
        if (ctl->options.n_operands > 0)
                status = choice_operands_each(ctl, show_rows, &l);
        else
                status = ctl_list_each(ctl, &list, ls_task, &l);
        if (!status && sort)
                status = sorter_each(&sorter, &t, sizeof(t), ls_sorted, &l);
        status = rows_end(&l.rows, status);
        if (!status)
                print_summary(ctl, &l.counts);
        return status;
}

/* ---- show, why ---- */

static int show_fields(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqShow rec = { 0 };
        EqBytes row;
        bool *later = userdata;

        EQ_SET(&rec, Show, ids, ids);
        int status = ctl_call(ctl, EQ_METHOD_SHOW, &rec, &reply);
        if (status)
                return status;
        for (EqArray rows = reply_rows(reply); eq_next_raw(&rows, &row) == 1; *later = true) {
                EqTask t = { 0 };
                if (eq_decode_map(&eq_schema_Task, row, &t, &error) < 0)
                        return ctl_fail(ctl, -EBADMSG);
                if (*later)
                        printf("\n");
                rows_print_fields(ctl, &eq_schema_Task, &t);
        }
        return 0;
}

static int print_payload(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqShow rec = { 0 };
        EqTask t = { 0 };
        EqBytes row;

        EQ_SET(&rec, Show, ids, ids);
        EQ_SET(&rec, Show, payload, true);
        int status = ctl_call(ctl, EQ_METHOD_SHOW, &rec, &reply);
        if (status)
                return status;
        EqArray rows = reply_rows(reply);
        if (eq_next_raw(&rows, &row) != 1 || eq_decode_map(&eq_schema_Task, row, &t, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (!EQ_HAS(&t, Task, payload)) {
                ctl_error(ctl, "%s: its payload is not there: it ended before eqd had read it from the store",
                          texts[0]);
                return EXIT_FAILURE;
        }
        if (fwrite(t.payload.data, 1, t.payload.len, stdout) != t.payload.len) {
                ctl_error(ctl, "cannot write: %m");
                return EXIT_FAILURE;
        }
        return 0;
}

int verb_show(Ctl *ctl) {
        Listing l = { .payload = ctl_has(ctl, FLAG_show_payload) };
        bool fields = ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns), later = false;

        if (fields)
                return l.payload ? choice_operands_one_by_one(ctl, print_payload, NULL)
                                 : choice_operands_each(ctl, show_fields, &later);
        int status = rows_begin(&l.rows, ctl, &rows_tasks);
        if (status)
                return status;
        status = l.payload ? choice_operands_one_by_one(ctl, show_rows, &l) : choice_operands_each(ctl, show_rows, &l);
        return rows_end(&l.rows, status);
}

/* A sentence often begins with the code itself: it is not said twice. */
static bool begins_with(EqBytes detail, EqBytes reason) {
        if (detail.len < reason.len || memcmp(detail.data, reason.data, reason.len) != 0)
                return false;
        return detail.len == reason.len || strchr(" ;:,", detail.data[reason.len]) != NULL;
}

static void print_why(Ctl *ctl, const EqWhy *w) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        char buf[DURATION_SIZE];
        uint64_t now = wall_usec();

        ctl_id(&b, w->id, w->queue, ctl);
        text_cstr(&b, " is ");
        text_escaped(&b, w->state);
        if (w->reason.len > 0 && !begins_with(w->detail, w->reason)) {
                text_cstr(&b, ": ");
                text_escaped(&b, w->reason);
        }
        if (w->detail.len > 0) {
                text_cstr(&b, ": ");
                text_escaped(&b, w->detail);
        } else if (EQ_HAS(w, Why, by)) {
                text_cstr(&b, ": ");
                ctl_id(&b, w->by, w->by.id.queue == w->id.id.queue ? w->queue : eq_str(""), ctl);
        }
        if (w->detail.len == 0 && w->until_usec > now)
                text_printf(&b, " (for another %s)", duration_format(w->until_usec - now, buf));
        if (w->ahead > 0)
                text_printf(&b, "; %" PRIu64 " task%s before it", w->ahead, w->ahead == 1 ? " comes" : "s come");
        text_cstr(&b, "\n");
        (void)print_buffer(ctl, &b); /* has said so */
}

static int why_some(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqTasks rec = { 0 };
        Rows *rows = userdata;
        EqBytes row;

        EQ_SET(&rec, Tasks, ids, ids);
        int status = ctl_call(ctl, EQ_METHOD_WHY, &rec, &reply);
        if (status)
                return status;
        for (EqArray all = reply_rows(reply); eq_next_raw(&all, &row) == 1;) {
                EqWhy w = { 0 };
                if (eq_decode_map(&eq_schema_Why, row, &w, &error) < 0)
                        return ctl_fail(ctl, -EBADMSG);
                if (rows)
                        rows_add(rows, &w);
                else
                        print_why(ctl, &w);
        }
        return 0;
}

static int why_queue(Ctl *ctl, const char *name) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqQueueName rec = { 0 };
        EqQueue q = { 0 };

        EQ_SET(&rec, QueueName, name, eq_str(name));
        int status = ctl_call(ctl, EQ_METHOD_QUEUE_SHOW, &rec, &reply);
        if (status)
                return status;
        if (eq_decode_map(&eq_schema_Queue, reply_result(reply), &q, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        text_printf(&b, "queue %s is ", name);
        text_escaped(&b, q.state);
        text_printf(&b, ", %" PRIu64 " running, %" PRIu64 " queued, %" PRIu64 " waiting", q.running, q.queued,
                    q.waiting);
        if (q.reason.len > 0 && !begins_with(q.detail, q.reason)) {
                text_cstr(&b, ": ");
                text_escaped(&b, q.reason);
        }
        if (q.detail.len > 0) {
                text_cstr(&b, ": ");
                text_escaped(&b, q.detail);
        }
        text_cstr(&b, "\n");
        (void)print_buffer(ctl, &b); /* has said so */
        return 0;
}

/* What has no / is the name of a queue. 0: all are tasks. */
static int why_queues(Ctl *ctl, size_t *ret_n) {
        Options *o = &ctl->options;

        *ret_n = 0;
        for (size_t i = 0; i < o->n_operands; i++)
                *ret_n += !strchr(o->operands[i], '/');
        if (*ret_n == 0)
                return 0;
        if (*ret_n < o->n_operands || ctl->format != FORMAT_TABLE || ctl_has(ctl, FLAG_columns)) {
                ctl_error(ctl, *ret_n < o->n_operands
                                       ? "give ids or queues, not both"
                                       : "of queues `eqctl queue ls` has that form, with reason and detail");
                return EXIT_USAGE;
        }
        int status = 0;
        for (size_t i = 0; i < o->n_operands && !status; i++)
                status = why_queue(ctl, o->operands[i]);
        return status;
}

int verb_why(Ctl *ctl) {
        Rows rows;
        size_t n_queues;

        int bad = why_queues(ctl, &n_queues);
        if (bad || n_queues > 0)
                return bad;

        if (ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns))
                return choice_operands_each(ctl, why_some, NULL);
        int status = rows_begin(&rows, ctl, &rows_whys);
        if (status)
                return status;
        status = choice_operands_each(ctl, why_some, &rows);
        return rows_end(&rows, status);
}

/* ---- wait ---- */

static int wait_queue(Ctl *ctl, const char *queue) {
        EqQueueName rec = { 0 };
        uint64_t timeout = 0;

        int status = ctl_get_duration(ctl, FLAG_wait_timeout, &timeout);
        if (status)
                return status;
        EQ_SET(&rec, QueueName, name, eq_str(queue));
        if (ctl_has(ctl, FLAG_wait_timeout))
                EQ_SET(&rec, QueueName, timeout_usec, timeout);
        return ctl_call_waiting(ctl, EQ_METHOD_QUEUE_FLUSH, &rec, NULL);
}

static int wait_check(Ctl *ctl, bool *ret_running) {
        static const FlagId of_ends[] = { FLAG_any, FLAG_kill_on_int, FLAG_status_fd }; /* the first: starts as well */
        const char *queue = ctl_get(ctl, FLAG_flush_queue), *until = ctl_get(ctl, FLAG_until);

        *ret_running = until && strcasecmp(until, "running") == 0;
        if (until && !*ret_running && strcasecmp(until, "ended") != 0) {
                ctl_error(ctl, "--for: `%s` is no state to wait for; running or ended", until);
                return EXIT_USAGE;
        }
        if (queue && *ret_running) {
                ctl_error(ctl, "--for running is about tasks: give their ids, not a queue");
                return EXIT_USAGE;
        }
        for (size_t i = *ret_running; i < sizeof(of_ends) / sizeof(of_ends[0]); i++)
                if (ctl_has(ctl, of_ends[i]) && (queue || *ret_running)) {
                        ctl_error(ctl, "--%s is about the ends of tasks that are named: not with %s",
                                  flags[of_ends[i]].name, queue ? "-q" : "--for running");
                        return EXIT_USAGE;
                }
        if (queue && ctl->options.n_operands > 0) {
                ctl_error(ctl, "give ids or -q QUEUE, not both");
                return EXIT_USAGE;
        }
        if (!queue && ctl->options.n_operands == 0) {
                ctl_error(ctl, "usage: eqctl wait ID... or eqctl wait -q QUEUE");
                return EXIT_USAGE;
        }
        return 0;
}

typedef struct StartedWait {
        uint64_t timeout_usec;
        Rows *rows; /* NULL: nothing is printed */
        int status;
} StartedWait;

static void add_started(Ctl *ctl, StartedWait *w, const EqTask *t) {
        _cleanup_buffer_ EqBuffer id = EQ_BUFFER_NULL;

        if (!t->started_usec) {
                ctl_id(&id, t->id, t->queue, ctl);
                ctl_error(ctl, "%s will not run: it is %.*s", text_end(&id), (int)t->state.len, t->state.data);
                w->status = EXIT_NOT_RUN;
        }
        if (w->rows)
                rows_add(w->rows, t);
}

static int wait_some(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        StartedWait *w = userdata;
        EqDecodeError error;
        EqWait rec = { 0 };
        EqBytes row;

        EQ_SET(&rec, Wait, ids, ids);
        EQ_SET(&rec, Wait, started, true);
        if (ctl_has(ctl, FLAG_any))
                EQ_SET(&rec, Wait, any, true);
        if (w->timeout_usec != EQ_TIMEOUT_NEVER)
                EQ_SET(&rec, Wait, timeout_usec, w->timeout_usec);
        int status = ctl_call_waiting(ctl, EQ_METHOD_WAIT, &rec, &reply);
        if (status)
                return status;
        for (EqArray rows = reply_rows(reply); eq_next_raw(&rows, &row) == 1;) {
                EqTask t = { 0 };
                if (eq_decode_map(&eq_schema_Task, row, &t, &error) < 0)
                        return ctl_fail(ctl, -EBADMSG);
                add_started(ctl, w, &t);
        }
        return 0;
}

/* Batch by batch: what has run once counts, whatever it does while the next are waited for. */
static int wait_running(Ctl *ctl) {
        StartedWait w = { .timeout_usec = EQ_TIMEOUT_NEVER };
        Rows rows;

        if (ctl_has(ctl, FLAG_any) && ctl->options.n_operands > EQ_BATCH_MAX) {
                ctl_error(ctl, "--any: %zu tasks are too many; at most %d with --for running", ctl->options.n_operands,
                          EQ_BATCH_MAX);
                return EXIT_USAGE;
        }
        int status = ctl_get_duration(ctl, FLAG_wait_timeout, &w.timeout_usec);
        if (!status && ctl_wants_json(ctl)) {
                w.rows = &rows;
                status = rows_begin(&rows, ctl, &rows_tasks);
        }
        if (status)
                return status;
        status = choice_operands_each(ctl, wait_some, &w);
        if (!status)
                status = w.status;
        return w.rows ? rows_end(w.rows, status) : status;
}

int verb_wait(Ctl *ctl) {
        Follow f = FOLLOW_NULL(ctl);
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        bool running;
        EqArray ids;

        int status = wait_check(ctl, &running);
        if (status)
                return status;
        if (running)
                return wait_running(ctl);
        if (ctl_has(ctl, FLAG_flush_queue))
                return wait_queue(ctl, ctl_get(ctl, FLAG_flush_queue));
        f.any = ctl_has(ctl, FLAG_any);
        status = ctl_ids(ctl, ctl->options.operands, ctl->options.n_operands, &raw, &ids);
        if (!status)
                status = ctl_get_duration(ctl, FLAG_wait_timeout, &f.timeout_usec);
        if (!status)
                status = follow_options(&f);
        for (size_t i = 0; !status && i < ctl->options.n_operands; i++)
                if (follow_add(&f, ctl->options.operands[i]) < 0)
                        status = ctl_no_memory(ctl);
        if (!status)
                status = follow_wait_failure(ctl_connect(ctl));
        if (!status)
                status = follow_run(&f);
        follow_deinit(&f);
        return status;
}
