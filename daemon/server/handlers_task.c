/* SPDX-License-Identifier: MIT */
/* Methods that bring tasks in and change them. A submit to a full queue that blocks is kept with its bytes and tried again
 * when room falls free. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "server/handlers.h"

/* ---- submit ---- */

/* A submit that waits for space: a copy of its parameters, since the message is gone when it is tried again. */
typedef struct BlockedSubmit {
        SpaceWaiter waiter;
        Handlers *handlers;
        PendingRequest *pending;
        int stdin_fd; /* owned */
        bool many;
        uint32_t len;
        char params[];
} BlockedSubmit;

static void blocked_free(BlockedSubmit *b) {
        close_fd(b->stdin_fd);
        free(b);
}

static void blocked_gone(PendingRequest *p) {
        BlockedSubmit *b = p->userdata;
        manager_wait_space_cancel(b->handlers->manager, &b->waiter);
        blocked_free(b);
}

static void submit_one(Handlers *h, const Request *rq, const EqSubmit *s, EqBytes params, BlockedSubmit *b);
static void submit_many(Handlers *h, const Request *rq, const EqSubmitMany *s, EqBytes params, BlockedSubmit *b);

static void blocked_retry(SpaceWaiter *w, bool ok) {
        BlockedSubmit *b = LIST_ENTRY(w, BlockedSubmit, waiter);
        Request rq = b->pending->request;
        EqBytes params = eq_bytes(b->params, b->len);
        EqDecodeError error;
        union {
                EqSubmit one;
                EqSubmitMany many;
        } s;
        if (!ok)
                request_error(&rq, EQ_E_FULL, "queue stayed full for the whole wait; try again later");
        else if (b->many && eq_decode_params(&eq_schema_SubmitMany, params, &s.many, &error) == 0)
                submit_many(b->handlers, &rq, &s.many, params, b);
        else if (!b->many && eq_decode_params(&eq_schema_Submit, params, &s.one, &error) == 0)
                submit_one(b->handlers, &rq, &s.one, params, b);
        if (!list_is_empty(&b->waiter.link))
                return; /* goes on waiting */
        request_hold(&rq);
        pending_request_done(b->pending);
        blocked_free(b);
}

/* Lets the request wait for space, for the first time or again. */
static void block(Handlers *h, const Request *rq, EqBytes queue, uint64_t block_usec, EqBytes params, int stdin_fd,
                  bool many, BlockedSubmit *b) {
        QueueRecord *q = manager_queue(h->manager, queue);
        bool first = !b;
        if (first) {
                b = fault_calloc(1, sizeof(*b) + params.len);
                if (b) {
                        list_init(&b->waiter.link);
                        b->waiter.retry = blocked_retry;
                        b->handlers = h;
                        b->stdin_fd = stdin_fd;
                        b->many = many;
                        b->len = params.len;
                        memcpy(b->params, params.data, params.len);
                        b->pending = request_defer(rq, blocked_gone, b);
                        if (!b->pending) { /* answered */
                                blocked_free(b);
                                return;
                        }
                }
        }
        if (b && manager_wait_space(h->manager, q, &b->waiter, block_usec) == 0)
                return;
        if (first && b) {
                Request answer = b->pending->request;
                request_error(&answer, EQ_E_NO_MEMORY, "out of memory");
                pending_request_done(b->pending);
                blocked_free(b);
        } else
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
}

/* The encoded options of [queue, payload, {options}], or nothing. */
static EqBytes options_of(EqBytes params) {
        EqArray it;
        EqBytes last = { 0 };
        if (eq_get_array(params, &it) < 0 || it.n == 0)
                return last;
        while (it.n > 1)
                (void)eq_next_raw(&it, &last); /* decoded before, so it can be skipped */
        return eq_is_map(it.raw) ? it.raw : (EqBytes) { 0 };
}

static void submit_one(Handlers *h, const Request *rq, const EqSubmit *s, EqBytes params, BlockedSubmit *b) {
        Session *session = rq->session;
        Caller caller = session_caller(session);
        int fd = b ? TAKE_FD(b->stdin_fd) : s->stdin_fd ? session_take_fd(session) : -1;
        SubmitArgs args = { .submit = s, .options = options_of(params), .stdin_fd = fd };
        TaskRecord *t;
        eq_task_id id;
        Refusal refusal;
        int r = manager_submit(h->manager, &caller, s->queue, &args, 1, &t, &id, &refusal);
        if (r == MANAGER_E_WAIT) {
                if (b)
                        b->stdin_fd = fd;
                block(h, rq, s->queue, s->block_usec, params, fd, false, b);
                return;
        }
        if (r < 0) {
                close_fd(fd);
                request_refused(rq, &refusal);
                return;
        }
        request_reply_id(rq, id);
        if (s->attach)
                (void)stream_attach(h, session, t, true); /* without memory: the output stays in the log */
}

void handle_submit(void *host, const Request *rq, const void *params) {
        submit_one(host, rq, params, rq->params, NULL);
}

/* One element: a payload, or a map of options and payload, over the common ones. */
static int decode_element(EqBytes raw, const EqSubmit *common, EqSubmit *ret, EqBytes *ret_options,
                          EqDecodeError *error) {
        *ret = *common;
        *ret_options = (EqBytes) { 0 };
        if (!eq_is_map(raw)) {
                if (eq_get_bytes(raw, &ret->payload) == 0 && ret->payload.len <= EQ_PAYLOAD_MAX)
                        return 0;
                strcpy(error->text, "tasks: every element is a payload (at most 1 MiB) or a map of options");
                return -EINVAL;
        }
        *ret_options = raw;
        return eq_decode_map(&eq_schema_Submit, raw, ret, error);
}

typedef struct Batch {
        SubmitArgs *args;
        EqSubmit *submits;
        SharedOptions *common;
} Batch;

static void batch_done(Batch *b) {
        free(b->args);
        free(b->submits);
        shared_options_unref(b->common);
}

static int batch_fill(const Request *rq, const EqSubmitMany *s, Batch *b) {
        EqDecodeError error;
        EqSubmit common = { 0 };
        b->args = fault_calloc(s->tasks.n + 1, sizeof(b->args[0]));
        b->submits = fault_calloc(s->tasks.n + 1, sizeof(b->submits[0]));
        if (!b->args || !b->submits ||
            (EQ_HAS(s, SubmitMany, common) && shared_options_new(s->common, &b->common) < 0)) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return -ENOMEM;
        }
        if (EQ_HAS(s, SubmitMany, common) && eq_decode_map(&eq_schema_Submit, s->common, &common, &error) < 0) {
                request_error(rq, EQ_E_INVALID, "common: %s", error.text);
                return -EINVAL;
        }
        EqArray it = s->tasks;
        EqBytes raw;
        for (uint32_t i = 0; eq_next_raw(&it, &raw) > 0; i++) {
                SubmitArgs *a = &b->args[i];
                a->submit = &b->submits[i];
                a->common = b->common;
                a->stdin_fd = -1;
                if (decode_element(raw, &common, &b->submits[i], &a->options, &error) < 0) {
                        request_error(rq, EQ_E_INVALID, "task %u: %s", i + 1, error.text);
                        return -EINVAL;
                }
                if (a->submit->attach) {
                        request_error(rq, EQ_E_INVALID,
                                      "task %u: attach: not here; submit it alone, or follow its logs", i + 1);
                        return -EINVAL;
                }
        }
        return 0;
}

static void submit_many(Handlers *h, const Request *rq, const EqSubmitMany *s, EqBytes params, BlockedSubmit *b) {
        Caller caller = session_caller(rq->session);
        _cleanup_(batch_done) Batch batch = { 0 };
        if (s->tasks.n == 0) {
                request_error(rq, EQ_E_INVALID, "tasks: send at least one");
                return;
        }
        if (batch_fill(rq, s, &batch) < 0)
                return;
        TaskRecord *t;
        eq_task_id first;
        Refusal refusal;
        int r = manager_submit(h->manager, &caller, s->queue, batch.args, s->tasks.n, &t, &first, &refusal);
        if (r == MANAGER_E_WAIT) {
                const EqSubmit *one = batch.args[0].submit;
                block(h, rq, s->queue, EQ_HAS(one, Submit, block_usec) ? one->block_usec : USEC_NEVER, params, -1, true,
                      b);
        } else if (r < 0)
                request_refused(rq, &refusal);
        else {
                EqSubmitManyReply reply = { 0 };
                EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = first });
                EQ_SET(&reply, SubmitManyReply, n, s->tasks.n);
                request_reply_record(rq, &eq_schema_SubmitManyReply, &reply);
        }
}

void handle_submit_many(void *host, const Request *rq, const void *params) {
        submit_many(host, rq, params, rq->params, NULL);
}

/* ---- change; each answers an array with one number per id ---- */

typedef int (*TaskVerb)(Handlers *h, TaskRecord *t, const void *params);

static void reply_numbers(const Request *rq, const int64_t *numbers, uint32_t n) {
        ReplyWriter w;
        request_reply_begin(rq, &w);
        msgpack_pack_array(&w.packer, n);
        for (uint32_t i = 0; i < n; i++)
                msgpack_pack_int64(&w.packer, numbers[i]);
        request_reply_end(rq, &w);
}

/* The numbers are collected first: what a verb does may send events to this very session. */
static void for_each_task(Handlers *h, const Request *rq, EqArray ids, const void *params, TaskVerb verb) {
        _cleanup_free_ TaskRecord **tasks = NULL;
        if (request_find_tasks(h, rq, ids, true, &tasks) < 0)
                return;
        _cleanup_free_ int64_t *numbers = fault_calloc(ids.n + 1, sizeof(int64_t));
        if (!numbers) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        for (uint32_t i = 0; i < ids.n; i++)
                task_record_pin(tasks[i]); /* a task that ends here may push another one out of the history */
        for (uint32_t i = 0; i < ids.n; i++)
                numbers[i] = tasks[i] ? verb(h, tasks[i], params) : -1;
        for (uint32_t i = 0; i < ids.n; i++)
                task_record_unpin(tasks[i]);
        reply_numbers(rq, numbers, ids.n);
}

static int verb_cancel(Handlers *h, TaskRecord *t, const void *params) {
        const EqCancel *p = params;
        return manager_cancel(h->manager, t, p->running, (int)p->signal,
                              EQ_HAS(p, Cancel, grace_usec) ? p->grace_usec : USEC_NEVER);
}

void handle_cancel(void *host, const Request *rq, const void *params) {
        for_each_task(host, rq, ((const EqCancel *)params)->ids, params, verb_cancel);
}

static int verb_kill(Handlers *h, TaskRecord *t, const void *params) {
        return manager_kill(h->manager, t, (int)((const EqKill *)params)->signal);
}

void handle_kill(void *host, const Request *rq, const void *params) {
        const EqKill *p = params;
        if (p->signal == 0)
                request_error(rq, EQ_E_INVALID, "signal: 1..64");
        else
                for_each_task(host, rq, p->ids, params, verb_kill);
}

static int verb_hold(Handlers *h, TaskRecord *t, const void *params) {
        return manager_hold(h->manager, t);
}

void handle_hold(void *host, const Request *rq, const void *params) {
        for_each_task(host, rq, ((const EqTasks *)params)->ids, params, verb_hold);
}

static int verb_release(Handlers *h, TaskRecord *t, const void *params) {
        return manager_release(h->manager, t);
}

void handle_release(void *host, const Request *rq, const void *params) {
        for_each_task(host, rq, ((const EqTasks *)params)->ids, params, verb_release);
}

static int verb_retry(Handlers *h, TaskRecord *t, const void *params) {
        return manager_retry(h->manager, t, ((const EqRetry *)params)->reset);
}

void handle_retry(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqRetry *p = params;
        if (!p->failed) {
                for_each_task(h, rq, p->ids, params, verb_retry);
                return;
        }
        Caller caller = session_caller(rq->session);
        QueueRecord *q = NULL;
        Refusal refusal;
        if (EQ_HAS(p, Retry, queue) && manager_find_queue(h->manager, p->queue, &q, &refusal) < 0) {
                request_refused(rq, &refusal);
                return;
        }
        int64_t n = (int64_t)manager_retry_failed(h->manager, &caller, q, p->reset);
        reply_numbers(rq, &n, 1);
}
