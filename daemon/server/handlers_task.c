/* SPDX-License-Identifier: MIT */
/* Methods that bring tasks in and change them. A submit to a full queue that blocks is kept with its bytes and tried again
 * when room falls free. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "manager/space.h"
#include "proto/memfd.h"
#include "server/handlers.h"

/* ---- submit ---- */

/* A submit that waits for space: a copy of its parameters, since the message is gone when it is tried again. */
typedef struct BlockedSubmit {
        SpaceWaiter waiter;
        Handlers *handlers;
        PendingRequest *pending;
        User *user; /* counted; charged for what is kept here */
        int fd;     /* standard input or payload; owned; -1: none */
        bool many, has_fd;
        uint32_t len;
        char params[];
} BlockedSubmit;

static void blocked_free(BlockedSubmit *b) {
        if (b->user) {
                user_refund(b->user, USER_INPUT_BYTES, b->len);
                user_refund(b->user, USER_DESCRIPTORS, b->has_fd);
                user_unref(b->user);
        }
        close_fd(b->fd);
        free(b);
}

/* What waits costs its user as much as what has not arrived yet. */
static bool blocked_charge(BlockedSubmit *b, User *user) {
        if (!user_charge(user, USER_INPUT_BYTES, b->len))
                return false;
        if (!user_charge(user, USER_DESCRIPTORS, b->has_fd)) {
                user_refund(user, USER_INPUT_BYTES, b->len);
                return false;
        }
        b->user = user;
        user->n_refs++;
        return true;
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
        uint64_t before = *manager_written(b->handlers->manager);
        EqDecodeError error;
        union {
                EqSubmit one;
                EqSubmitMany many;
        } s;
        if (!ok) {
                Refusal refusal;
                (void)manager_still_full(w, &refusal);
                request_refused(&rq, &refusal);
        } else if (b->many && eq_decode_params(&eq_schema_SubmitMany, params, &s.many, &error) == 0)
                submit_many(b->handlers, &rq, &s.many, params, b);
        else if (!b->many && eq_decode_params_split(&eq_schema_Submit, params, &s.one, &rq.options, &error) == 0)
                submit_one(b->handlers, &rq, &s.one, params, b);
        if (!list_is_empty(&b->waiter.link))
                return; /* goes on waiting */
        if (*manager_written(b->handlers->manager) != before)
                request_hold(&rq);
        pending_request_done(b->pending);
        blocked_free(b);
}

/* Takes fd over. NULL: it was answered. */
static BlockedSubmit *blocked_new(Handlers *h, const Request *rq, EqBytes params, int fd, bool many) {
        BlockedSubmit *b = fault_calloc(1, sizeof(*b) + params.len);
        if (!b) {
                close_fd(fd);
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return NULL;
        }
        list_init(&b->waiter.link);
        b->waiter.retry = blocked_retry;
        b->handlers = h;
        b->fd = fd;
        b->has_fd = fd >= 0;
        b->many = many;
        b->len = params.len;
        memcpy(b->params, params.data, params.len);
        if (!blocked_charge(b, rq->session->user))
                request_error(rq, EQ_E_LIMIT,
                              "you have too many submits that wait for space; let some of them finish first");
        else if ((b->pending = request_defer(rq, blocked_gone, b)))
                return b;
        blocked_free(b);
        return NULL;
}

/* Lets the request wait for space, for the first time or again. */
static void block(Handlers *h, const Request *rq, QueueRecord *q, uint64_t block_usec, EqBytes params, int fd,
                  bool many, BlockedSubmit *b) {
        bool first = !b;
        if (first && !(b = blocked_new(h, rq, params, fd, many)))
                return;
        if (manager_wait_space(h->manager, q, &b->waiter, block_usec) == 0)
                return;
        Request answer = b->pending->request;
        request_error(&answer, EQ_E_NO_MEMORY, "out of memory");
        if (first) { /* else blocked_retry() ends it */
                pending_request_done(b->pending);
                blocked_free(b);
        }
}

/* The encoded options of [queue, payload, {options}], or nothing: also for a map that has those two only. */
static EqBytes options_of(const Request *rq, const EqSubmit *s) {
        bool any = s->present & ~(EQ_BIT(Submit, queue) | EQ_BIT(Submit, payload));
        return any ? rq->options : (EqBytes) { 0 };
}

/* The bytes of a payload that came as a descriptor. -errno: answered. */
static int read_payload(const Request *rq, int fd, EqSubmit *s, char **ret_buffer) {
        size_t n;
        int r = fd < 0 ? -EBADF : eq_memfd_size(fd, &n);
        if (s->payload.len > 0 || s->stdin_fd)
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("payload_fd"),
                                   "payload_fd: not together with %s; send one of them",
                                   s->stdin_fd ? "stdin_fd" : "a payload in the message");
        else if (r == -EBADF)
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("payload_fd"),
                                   "payload_fd: no descriptor came with the message");
        else if (r == -EPERM)
                request_error_with(
                        rq, EQ_E_INVALID, &ERROR_FIELD("payload_fd"),
                        "payload_fd: the memfd is not sealed; add F_SEAL_WRITE, F_SEAL_SHRINK and F_SEAL_GROW");
        else if (r < 0)
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("payload_fd"),
                                   "payload_fd: the descriptor is no memfd that can be sealed");
        else if (n > EQ_PAYLOAD_MAX)
                request_error_with(rq, EQ_E_TOO_LARGE, &ERROR_LIMIT(EQ_PAYLOAD_MAX),
                                   "payload_fd: %zu bytes; a payload has at most %d", n, EQ_PAYLOAD_MAX);
        else if (!(*ret_buffer = fault_malloc(n + 1)))
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else if ((r = eq_memfd_read(fd, *ret_buffer, n)) < 0)
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("payload_fd"), "payload_fd: cannot be read: %s",
                                   strerror(-r));
        else {
                s->payload = eq_bytes(*ret_buffer, n);
                return 0;
        }
        return -EINVAL;
}

/* They may be on their way to the disk still. */
static void hold_for_known(const Handlers *h, const Request *rq, EqBytes queue) {
        const QueueRecord *q = manager_queue(h->manager, queue);
        if (q && manager_is_durable(q))
                request_hold(rq);
}

/* Takes what `fd` is worth: closed here, or handed over to the task, or kept by `b` while it waits. */
static void submit_with_fd(Handlers *h, const Request *rq, const EqSubmit *s, EqBytes params, BlockedSubmit *b,
                           int fd) {
        Session *session = rq->session;
        Caller caller = session_caller(session);
        SubmitArgs args = {
                .submit = s, .payload = s->payload, .options = options_of(rq, s), .stdin_fd = s->payload_fd ? -1 : fd
        };
        TaskRecord *t;
        eq_task_id id;
        Refusal refusal;
        int r = manager_submit(h->manager, &caller, s->queue, &args, 1, &t, &id, &refusal);
        if (r == MANAGER_E_WAIT) {
                if (b)
                        b->fd = fd;
                block(h, rq, refusal.full, s->block_usec, params, fd, false, b);
                return;
        }
        if (r < 0 || s->payload_fd)
                close_fd(fd);
        if (r < 0) {
                request_refused(rq, &refusal);
                return;
        }
        request_reply_id(rq, id);
        if (args.known)
                hold_for_known(h, rq, s->queue);
        if (s->attach)
                (void)stream_attach(h, session, t, STREAM_MUST); /* without memory: the output stays in the log */
}

static void submit_one(Handlers *h, const Request *rq, const EqSubmit *s, EqBytes params, BlockedSubmit *b) {
        int fd = b ? TAKE_FD(b->fd) : s->stdin_fd || s->payload_fd ? session_take_fd(rq->session) : -1;
        if (!s->payload_fd) {
                submit_with_fd(h, rq, s, params, b, fd);
                return;
        }
        _cleanup_free_ char *payload = NULL;
        EqSubmit filled = *s;
        if (read_payload(rq, fd, &filled, &payload) < 0)
                close_fd(fd);
        else
                submit_with_fd(h, rq, &filled, params, b, fd);
}

/* What it comes after may be in the store only. True: it is parked, and nothing was taken. */
static bool waits_for_named(Handlers *h, const Request *rq, const SubmitArgs *args, size_t n) {
        Caller caller = session_caller(rq->session);
        uint64_t ticket = 0;
        for (size_t i = 0; i < n; i++) {
                Refusal refusal;
                if (!submit_names_tasks(args[i].submit) || (i > 0 && args[i].submit == args[i - 1].submit))
                        continue; /* what they share names the same */
                if (manager_look_for_named(h->manager, &caller, args[i].submit, &refusal) == MANAGER_E_READ)
                        ticket = MAX(ticket, refusal.ticket);
        }
        if (ticket > 0)
                request_park(rq, ticket);
        return ticket > 0;
}

void handle_submit(void *host, const Request *rq, const void *params) {
        if (submit_names_tasks(params) && waits_for_named(host, rq, &(SubmitArgs) { .submit = params }, 1))
                return;
        submit_one(host, rq, params, rq->params, NULL);
}

typedef struct Batch {
        SubmitArgs *args;
        EqSubmit common;   /* of those that are a payload and no more */
        EqSubmit *submits; /* of those with options of their own; NULL: there are none */
        SharedOptions *shared;
} Batch;

static void batch_done(Batch *b) {
        free(b->args);
        free(b->submits);
        shared_options_unref(b->shared);
}

/* One element: a payload, or a map of options and payload, over the common ones. */
static int batch_element(Batch *b, uint32_t i, uint32_t n, EqBytes raw, EqDecodeError *error) {
        SubmitArgs *a = &b->args[i];
        *a = (SubmitArgs) { .submit = &b->common, .common = b->shared, .stdin_fd = -1 };
        if (!eq_is_map(raw)) {
                if (eq_get_bytes(raw, &a->payload) == 0 && a->payload.len <= EQ_PAYLOAD_MAX)
                        return 0;
                *error = (EqDecodeError) {
                        .text = "tasks: every element is a payload (at most 1 MiB) or a map of options",
                        .field = &eq_schema_SubmitMany.fields[EQ_IDX_SubmitMany_tasks],
                };
                return -EINVAL;
        }
        if (!b->submits && !(b->submits = fault_malloc(n * sizeof(b->submits[0])))) {
                *error = (EqDecodeError) { .text = "out of memory" };
                return -ENOMEM;
        }
        EqSubmit *own = &b->submits[i];
        *own = b->common;
        int r = eq_decode_map(&eq_schema_Submit, raw, own, error);
        a->submit = own;
        a->payload = own->payload;
        a->options = raw;
        return r;
}

static int batch_fill(const Request *rq, const EqSubmitMany *s, Batch *b) {
        EqDecodeError error;
        b->args = fault_malloc(s->tasks.n * sizeof(b->args[0]));
        if (!b->args || (EQ_HAS(s, SubmitMany, common) && shared_options_new(s->common, &b->shared) < 0)) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return -ENOMEM;
        }
        if (EQ_HAS(s, SubmitMany, common) && eq_decode_map(&eq_schema_Submit, s->common, &b->common, &error) < 0) {
                EqErrorDetails details = error_details(&error);
                request_error_with(rq, EQ_E_INVALID, &details, "common: %s", error.text);
                return -EINVAL;
        }
        if (EQ_HAS(&b->common, Submit, unique)) {
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("unique"),
                                   "common: unique: not here; give each task its own key");
                return -EINVAL;
        }
        EqArray it = s->tasks;
        EqBytes raw;
        for (uint32_t i = 0; eq_next_raw(&it, &raw) > 0; i++) {
                int r = batch_element(b, i, s->tasks.n, raw, &error);
                if (r < 0) {
                        EqErrorDetails details = error_details(&error);
                        request_error_with(rq, r == -ENOMEM ? EQ_E_NO_MEMORY : EQ_E_INVALID, &details, "task %u: %s",
                                           i + 1, error.text);
                        return r;
                }
                const EqSubmit *one = b->args[i].submit;
                if (one->attach || one->payload_fd) {
                        request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD(one->attach ? "attach" : "payload_fd"),
                                           "task %u: %s", i + 1,
                                           one->attach ? "attach: not here; submit it alone, or follow its logs"
                                                       : "payload_fd: not here; submit it alone");
                        return -EINVAL;
                }
        }
        return 0;
}

/* Keys may have brought ids that do not follow each other. */
static EqArray ids_of(EqBuffer *b, uint64_t queue, const SubmitArgs *args, uint32_t n) {
        msgpack_packer pk = eq_packer(b);
        for (uint32_t i = 0; i < n; i++)
                eq_pack_id(&pk, (eq_task_id) { .queue = queue, .seq = args[i].seq });
        return (EqArray) { .raw = eq_bytes(b->data, b->len), .n = n };
}

static void reply_many(const Handlers *h, const Request *rq, EqBytes queue, eq_task_id first, const SubmitArgs *args,
                       uint32_t n) {
        EqSubmitManyReply reply = { 0 };
        EqBuffer ids = EQ_BUFFER_NULL;
        bool known = false;
        for (uint32_t i = 0; i < n; i++)
                known = known || args[i].known;
        EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = first });
        EQ_SET(&reply, SubmitManyReply, n, n);
        if (known)
                EQ_SET(&reply, SubmitManyReply, ids, ids_of(&ids, first.queue, args, n));
        if (ids.failed)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory; the tasks were accepted");
        else
                request_reply_record(rq, &eq_schema_SubmitManyReply, &reply);
        if (known)
                hold_for_known(h, rq, queue);
        eq_buffer_done(&ids);
}

static void submit_many(Handlers *h, const Request *rq, const EqSubmitMany *s, EqBytes params, BlockedSubmit *b) {
        Caller caller = session_caller(rq->session);
        _cleanup_(batch_done) Batch batch = { 0 };
        if (s->tasks.n == 0) {
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("tasks"), "tasks: send at least one");
                return;
        }
        if (batch_fill(rq, s, &batch) < 0)
                return;
        if (!b && waits_for_named(h, rq, batch.args, s->tasks.n))
                return;
        TaskRecord *t;
        eq_task_id first;
        Refusal refusal;
        int r = manager_submit(h->manager, &caller, s->queue, batch.args, s->tasks.n, &t, &first, &refusal);
        if (r == MANAGER_E_WAIT) {
                const EqSubmit *one = batch.args[0].submit;
                block(h, rq, refusal.full, EQ_HAS(one, Submit, block_usec) ? one->block_usec : USEC_NEVER, params, -1,
                      true, b);
        } else if (r < 0)
                request_refused(rq, &refusal);
        else
                reply_many(h, rq, s->queue, first, batch.args, s->tasks.n);
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
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("signal"), "signal: 1..64");
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
        size_t n;
        if (manager_retry_failed(h->manager, &caller, q, p->reset, &n, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_numbers(rq, &(int64_t) { (int64_t)n }, 1);
}
