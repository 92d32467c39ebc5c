/* SPDX-License-Identifier: MIT */
/* submit and run. Many tasks go in batches: what they share is sent once per batch, as the common options. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eqctl/follow.h"
#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/submission.h"
#include "eqctl/text.h"

enum { BATCH_BYTES = 3 * 1024 * 1024 }; /* with common options still below EQ_MESSAGE_MAX */

/* Prints the id, unless output or a status is what is wanted, and remembers it for the wait. */
static int accepted(const Submission *s, Follow *f, uint64_t seq) {
        char id[64];

        (void)snprintf(id, sizeof(id), "%s/%" PRIu64, s->queue, seq);
        if (!s->wait) { /* names of queues need no quoting */
                if (printf(ctl_wants_json(s->ctl) ? "{\"id\":\"%s\"}\n" : "%s\n", id) >= 0)
                        return 0;
                ctl_error(s->ctl, "%s was submitted; cannot write to standard output: %m", id);
                return EXIT_FAILURE;
        }
        ctl_verbose(s->ctl, "task %s", id);
        return follow_add(f, id) < 0 ? ctl_no_memory(s->ctl) : 0;
}

/* ---- one ---- */

typedef struct Answer {
        bool done;
        int r;
        eq_task_id id;
} Answer;

static void on_submitted(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        Answer *a = userdata;
        EqIdRef ref;

        a->done = true;
        a->r = r == 0 ? eq_get_id(reply_result(reply), &ref) : r;
        if (a->r == 0)
                a->id = ref.id;
}

static int send_one(const Submission *s, const EqSubmit *rec, Answer *a) {
        _cleanup_buffer_ EqBuffer params = EQ_BUFFER_NULL;
        unsigned n_fds = s->stdin_fd >= 0 ? 1 : 0;

        int r = ctl_params(EQ_METHOD_SUBMIT, rec, &params);
        if (r == 0)
                r = eq_client_call_start(s->ctl->client, "submit", params.data, params.len, &s->stdin_fd, n_fds,
                                         on_submitted, a, NULL);
        while (r >= 0 && !a->done)
                r = eq_client_dispatch(s->ctl->client, EQ_TIMEOUT_NEVER); /* the queue may be full, and ^C ends us */
        return a->done ? a->r : r;
}

static EqSubmit whole_record(const Submission *s, const SubmissionItem *item) {
        EqSubmit rec = s->common;

        if (item->argv_array.n > 0)
                EQ_SET(&rec, Submit, argv, item->argv_array);
        if (EQ_HAS(&s->common, Submit, env))
                EQ_SET(&rec, Submit, env, item->env_array);
        if (s->payload_text)
                EQ_SET(&rec, Submit, payload, eq_bytes(item->payload.data, item->payload.len));
        if (item->unique.len > 0)
                EQ_SET(&rec, Submit, unique, eq_bytes(item->unique.data, item->unique.len));
        return rec;
}

static int submit_item(const Submission *s, Follow *f, const SubmissionItem *item) {
        EqSubmit rec = whole_record(s, item);
        Answer a = { 0 };

        int r = send_one(s, &rec, &a);
        if (r == 0)
                return accepted(s, f, a.id.seq);
        return ctl_fail(s->ctl, r);
}

/* 0 or the exit status. */
static int make_item(const Submission *s, const char *word, SubmissionItem *ret) {
        int r = submission_item(s, word, ret);
        return r < 0 ? ctl_no_memory(s->ctl) : r;
}

static int submit_one(const Submission *s, Follow *f) {
        SubmissionItem item = { 0 };

        int status = make_item(s, NULL, &item);
        if (!status)
                status = submit_item(s, f, &item);
        submission_item_deinit(&item);
        return status;
}

/* ---- many ---- */

typedef struct Batch {
        EqBuffer tasks;
        uint32_t n, max; /* max: of one message */
} Batch;

/* Where keys were known their ids do not follow each other. */
static int accepted_many(const Submission *s, Follow *f, const EqSubmitManyReply *m) {
        EqArray ids = m->ids;
        EqIdRef id;
        int status = 0;

        if (EQ_HAS(m, SubmitManyReply, ids))
                while (!status && eq_next_id(&ids, &id) > 0)
                        status = accepted(s, f, id.id.seq);
        else
                for (uint64_t i = 0; !status && i < m->n; i++)
                        status = accepted(s, f, m->first.id.seq + i);
        return status;
}

/* How many to send at once, after n were more than the queue takes at all: of its places half, so that it has something to do while the
 * others fall free. 0: that was not it, or whoever submits has not said that he waits for space; then all of them or none. */
static uint32_t fewer(const Submission *s, uint32_t n) {
        eq_error_details d = { .size = sizeof(d) };

        if (n == 1 || !ctl_has(s->ctl, FLAG_wait_space) || eq_client_get_error(s->ctl->client, NULL) != EQ_E_TOO_LARGE)
                return 0;
        eq_client_get_error_details(s->ctl->client, &d);
        bool by_tasks = d.what && strcmp(d.what, "tasks") == 0;
        uint32_t half = (uint32_t)(by_tasks ? d.limit / 2 : n / 2);
        return half > 0 ? half : 1;
}

/* 0, -errno, or the exit status. */
static int send_part(const Submission *s, Follow *f, EqArray tasks) {
        _cleanup_reply_ eq_reply *reply = NULL;
        _cleanup_buffer_ EqBuffer common = EQ_BUFFER_NULL;
        EqSubmitManyReply m = { 0 };
        EqSubmitMany rec = { 0 };
        EqSubmit options = s->common;
        EqDecodeError error;
        msgpack_packer pk = eq_packer(&common);

        options.present &= ~(EQ_BIT(Submit, queue) | (s->is_array ? EQ_BIT(Submit, env) : 0));
        if (s->payload.len == 0)
                options.present &= ~EQ_BIT(Submit, payload);
        eq_pack_record(&pk, &eq_schema_Submit, &options);
        if (common.failed)
                return ctl_no_memory(s->ctl);
        EQ_SET(&rec, SubmitMany, queue, eq_str(s->queue));
        EQ_SET(&rec, SubmitMany, tasks, tasks);
        EQ_SET(&rec, SubmitMany, common, eq_bytes(common.data, common.len));
        eq_client_set_timeout(s->ctl->client, EQ_TIMEOUT_NEVER);
        int r = ctl_try(s->ctl, EQ_METHOD_SUBMIT_MANY, &rec, &reply);
        if (r == 0 && eq_decode_map(&eq_schema_SubmitManyReply, reply_result(reply), &m, &error) < 0)
                r = -EBADMSG;
        return r < 0 ? r : accepted_many(s, f, &m);
}

/* The first n of these, or all if there are no more. */
static EqArray first_of(EqArray tasks, uint32_t n) {
        EqBytes last;

        if (n >= tasks.n)
                return tasks;
        EqArray rest = tasks;
        while (tasks.n - rest.n < n && eq_next_raw(&rest, &last) == 1)
                ;
        return (EqArray) { .raw = eq_bytes(tasks.raw.data, tasks.raw.len - rest.raw.len), .n = n };
}

/* In their order, in parts where the queue takes no more. */
static int batch_send(const Submission *s, Follow *f, Batch *b) {
        EqArray left = { .raw = eq_bytes(b->tasks.data, b->tasks.len), .n = b->n };
        int status = b->tasks.failed ? ctl_no_memory(s->ctl) : 0;
        uint32_t n;

        while (!status && left.n > 0) {
                EqArray part = first_of(left, b->max);
                status = send_part(s, f, part);
                if (status == -EREMOTEIO && (n = fewer(s, part.n)) > 0) {
                        b->max = n;
                        status = 0;
                        continue;
                }
                if (status < 0)
                        status = ctl_fail(s->ctl, status);
                left.raw = eq_bytes(left.raw.data + part.raw.len, left.raw.len - part.raw.len);
                left.n -= part.n;
        }
        b->tasks.len = b->n = 0;
        return status;
}

static void print_dry(const Submission *s, const SubmissionItem *item) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqSubmit rec = whole_record(s, item);

        json_record(&b, &eq_schema_Submit, &rec, ctl_id, s->ctl);
        text_cstr(&b, "\n");
        (void)print_buffer(s->ctl, &b); /* has said so */
}

static int batch_add(const Submission *s, Follow *f, Batch *b, const SubmissionItem *item) {
        size_t before = b->tasks.len;
        msgpack_packer pk = eq_packer(&b->tasks);
        EqSubmit rec = { 0 };

        if (item->argv_array.n > 0)
                EQ_SET(&rec, Submit, argv, item->argv_array);
        if (s->is_array && EQ_HAS(&s->common, Submit, env))
                EQ_SET(&rec, Submit, env, item->env_array);
        if (s->payload_text)
                EQ_SET(&rec, Submit, payload, eq_bytes(item->payload.data, item->payload.len));
        if (item->unique.len > 0)
                EQ_SET(&rec, Submit, unique, eq_bytes(item->unique.data, item->unique.len));
        eq_pack_record(&pk, &eq_schema_Submit, &rec);
        b->n++;
        /* The largest task so far must fit once more. */
        bool full = b->n >= b->max || b->tasks.len + (b->tasks.len - before) + s->payload.len > BATCH_BYTES;
        return full ? batch_send(s, f, b) : 0;
}

/* Output is sent to whom submits a single task: those that are to be followed are no batch. */
static int add_item(const Submission *s, Follow *f, Batch *b, const char *word) {
        SubmissionItem item = { 0 };
        int status = make_item(s, word, &item);

        if (!status && ctl_has(s->ctl, FLAG_dry_run))
                print_dry(s, &item);
        else if (!status)
                status = s->follow ? submit_item(s, f, &item) : batch_add(s, f, b, &item);
        submission_item_deinit(&item);
        return status;
}

static int add_numbers(const Submission *s, Follow *f, Batch *b) {
        char word[24];
        int status = 0;

        for (uint64_t i = s->first; !status && i <= s->last; i += s->step) {
                (void)snprintf(word, sizeof(word), "%" PRIu64, i);
                status = add_item(s, f, b, word);
        }
        return status;
}

static int add_lines(const Submission *s, Follow *f, Batch *b) {
        char *line = NULL;
        size_t size = 0;
        int status = 0;
        ssize_t n;

        while (!status && (n = getline(&line, &size, s->lines)) >= 0) {
                if (n > 0 && line[n - 1] == '\n')
                        line[n - 1] = 0;
                if (line[0])
                        status = add_item(s, f, b, line);
        }
        if (!status && ferror(s->lines)) {
                ctl_error(s->ctl, "cannot read %s: %m", ctl_get(s->ctl, FLAG_each));
                status = EXIT_FAILURE;
        }
        free(line);
        return status;
}

static int submit_many(const Submission *s, Follow *f) {
        Batch b = { .max = EQ_BATCH_MAX };

        int status = s->is_array ? add_numbers(s, f, &b) : add_lines(s, f, &b);
        if (!status)
                status = batch_send(s, f, &b);
        eq_buffer_done(&b.tasks);
        return status;
}

/* ---- verbs ---- */

static int dry_run(const Submission *s, Follow *f) {
        SubmissionItem item = { 0 };

        if (submission_is_many(s))
                return submit_many(s, f);
        int status = make_item(s, NULL, &item);
        if (!status)
                print_dry(s, &item);
        submission_item_deinit(&item);
        return status;
}

static int submit_and_wait(Submission *s, Follow *f) {
        f->output = s->follow;
        int status = follow_options(f);
        if (!status)
                status = ctl_connect(s->ctl);
        if (status)
                return status;
        if (s->follow)
                follow_begin(f);
        status = submission_is_many(s) ? submit_many(s, f) : submit_one(s, f);
        if (s->stdin_fd >= 0)
                (void)close(s->stdin_fd); /* a duplicate, now eqd's: a pipe must end when its reader does */
        s->stdin_fd = -1;
        return status;
}

static int submit(Ctl *ctl, bool is_run) {
        Submission s = { .stdin_fd = -1 };
        Follow f = FOLLOW_NULL(ctl);

        int status = submission_init(&s, ctl, is_run);
        bool dry = ctl_has(ctl, FLAG_dry_run), wait = s.wait;
        if (!status)
                status = dry ? dry_run(&s, &f) : submit_and_wait(&s, &f);
        submission_deinit(&s);
        if (wait && !dry)
                status = status ? follow_failure(status) : f.n_tasks > 0 ? follow_run(&f) : 0;
        follow_deinit(&f);
        return status;
}

int verb_submit(Ctl *ctl) {
        return submit(ctl, false);
}

int verb_run(Ctl *ctl) {
        return submit(ctl, true);
}
