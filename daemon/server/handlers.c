/* SPDX-License-Identifier: MIT */
/* The table of handlers, and what several of them do. hello, api_info and ping are the server's own (dispatch.c). */

#include "server/handlers.h"

#include <errno.h>

#include "base/fault.h"

const RequestHandler handlers_table[_EQ_METHOD_MAX] = {
        [EQ_METHOD_SUBMIT] = handle_submit,
        [EQ_METHOD_SUBMIT_MANY] = handle_submit_many,
        [EQ_METHOD_CANCEL] = handle_cancel,
        [EQ_METHOD_KILL] = handle_kill,
        [EQ_METHOD_HOLD] = handle_hold,
        [EQ_METHOD_RELEASE] = handle_release,
        [EQ_METHOD_RETRY] = handle_retry,
        [EQ_METHOD_WAIT] = handle_wait,
        [EQ_METHOD_LIST] = handle_list,
        [EQ_METHOD_SHOW] = handle_show,
        [EQ_METHOD_WHY] = handle_why,
        [EQ_METHOD_LOGS] = handle_logs,
        [EQ_METHOD_SUBSCRIBE] = handle_subscribe,
        [EQ_METHOD_QUEUE_CREATE] = handle_queue_create,
        [EQ_METHOD_QUEUE_SET] = handle_queue_set,
        [EQ_METHOD_QUEUE_LIST] = handle_queue_list,
        [EQ_METHOD_QUEUE_SHOW] = handle_queue_show,
        [EQ_METHOD_QUEUE_PAUSE] = handle_queue_pause,
        [EQ_METHOD_QUEUE_RESUME] = handle_queue_resume,
        [EQ_METHOD_QUEUE_DRAIN] = handle_queue_drain,
        [EQ_METHOD_QUEUE_STOP] = handle_queue_stop,
        [EQ_METHOD_QUEUE_JOIN] = handle_queue_join,
        [EQ_METHOD_QUEUE_FLUSH] = handle_queue_flush,
        [EQ_METHOD_QUEUE_RM] = handle_queue_rm,
        [EQ_METHOD_POOL_LIST] = handle_pool_list,
        [EQ_METHOD_POOL_SHOW] = handle_pool_show,
        [EQ_METHOD_POOL_CREATE] = handle_pool_create,
        [EQ_METHOD_POOL_SET] = handle_pool_set,
        [EQ_METHOD_POOL_RM] = handle_pool_rm,
        [EQ_METHOD_PARAM_LIST] = handle_param_list,
        [EQ_METHOD_PARAM_GET] = handle_param_get,
        [EQ_METHOD_PARAM_SET] = handle_param_set,
        [EQ_METHOD_IN_FLIGHT] = handle_in_flight,
        [EQ_METHOD_TOUCH] = handle_touch,
        [EQ_METHOD_RELOAD] = handle_reload,
        [EQ_METHOD_STAT] = handle_stat,
        [EQ_METHOD_STORE_STAT] = handle_store_stat,
        [EQ_METHOD_STORE_READ] = handle_store_read,
        [EQ_METHOD_WORKER_SERVE] = handle_worker_serve,
        [EQ_METHOD_WORKER_CREDIT] = handle_worker_credit,
        [EQ_METHOD_WORKER_LEAVE] = handle_worker_leave,
        [EQ_METHOD_WORKER_TOUCH] = handle_worker_touch,
        [EQ_METHOD_WORKER_LIST] = handle_worker_list,
        [EQ_METHOD_WORKER_KICK] = handle_worker_kick,
};

static bool is_admin(void *host, const Identity *id) {
        const Handlers *h = host;
        return manager_is_admin(h->manager, id);
}

static void session_closed(void *host, Session *s) {
        stream_session_closed(host, s);
        worker_session_closed(host, s);
}

static void session_unclogged(void *host, Session *s) {
        stream_session_unclogged(host, s);
        worker_session_unclogged(host, s);
}

static void session_response(void *host, Session *s, const EqMessage *m) {
        worker_session_response(host, s, m);
}

static void session_flushing(void *host, Session *s) {
        worker_session_flushing(host, s);
}

const ServerHooks handlers_server_hooks = {
        .is_admin = is_admin,
        .session_closed = session_closed,
        .session_unclogged = session_unclogged,
        .session_response = session_response,
        .session_flushing = session_flushing,
};

void handlers_init(Handlers *h) {
        *h = (Handlers) { 0 };
        list_init(&h->subscriptions);
        list_init(&h->storing);
        store_reads_init(&h->store_reads);
}

void handlers_durable(Handlers *h, uint64_t position) {
        server_durable(h->server, position);
        workers_durable(h);
}

void handlers_not_durable(Handlers *h) {
        server_not_durable(h->server);
        workers_durable(h);
}

Caller session_caller(const Session *s) {
        return (Caller) { .identity = s->identity, .user = s->user, .admin = s->admin };
}

static bool has_field(const EqSchema *params, EqBytes name) {
        for (unsigned i = 0; i < params->n_fields; i++)
                if (eq_bytes_eq(name, eq_bytes(params->fields[i].name, params->fields[i].name_len)))
                        return true;
        return false;
}

/* The manager looks up queues whatever the parameter is called that names them. */
static EqBytes field_of_method(const Request *rq, EqBytes field) {
        static const char *const others[] = { "queues", "name" };
        if (!eq_bytes_eq(field, eq_str("queue")) || has_field(rq->method->params, field))
                return field;
        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                if (has_field(rq->method->params, eq_str(others[i])))
                        return eq_str(others[i]);
        return field;
}

void request_refused(const Request *rq, const Refusal *r) {
        EqErrorDetails details = r->details;
        if (EQ_HAS(&details, ErrorDetails, field) && rq->method)
                details.field = field_of_method(rq, details.field);
        request_error_with(rq, r->code, &details, "%s", r->text);
}

void request_reply_rows(const Request *rq, EqBuffer *rows, uint32_t n) {
        if (rows->failed)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else {
                ReplyWriter w;
                request_reply_begin(rq, &w);
                msgpack_pack_array(&w.packer, n);
                eq_pack_raw(&w.packer, eq_bytes(rows->data, rows->len));
                request_reply_end(rq, &w);
        }
        eq_buffer_done(rows);
}

/* Who waits for tasks is told the ends that are there: task_wait_is_lost() is asked of the others. */
static int may_change_all(const Request *rq, TaskRecord *const *tasks, uint32_t n) {
        Refusal refusal;
        for (uint32_t i = 0; i < n && rq->method->keeps == EQ_KEEPS_CHANGES; i++) {
                int r = tasks[i] ? manager_may(EQ_KEEPS_CHANGES, tasks[i]->queue, &refusal) : 0;
                if (r < 0) {
                        request_refused(rq, &refusal);
                        return r;
                }
        }
        return 0;
}

int request_find_tasks(Handlers *h, const Request *rq, EqArray ids, bool unknown_ok, TaskRecord ***ret) {
        Caller caller = session_caller(rq->session);
        _cleanup_free_ TaskRecord **tasks = fault_calloc(ids.n + 1, sizeof(TaskRecord *));
        if (!tasks) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return -ENOMEM;
        }
        EqIdRef id;
        uint64_t ticket = 0;
        uint32_t n = ids.n;
        for (uint32_t i = 0; eq_next_id(&ids, &id) > 0; i++) {
                Refusal refusal;
                refusal.code = EQ_E_NONE; /* the rest is large, and nobody reads it without a code */
                int r = manager_find_task(h->manager, &caller, &id, &tasks[i], &refusal);
                if (r == MANAGER_E_READ)
                        ticket = MAX(ticket, refusal.ticket);
                bool unknown =
                        refusal.code == EQ_E_NO_TASK || refusal.code == EQ_E_STALE || refusal.code == EQ_E_NO_QUEUE;
                if (r < 0 && !(unknown_ok && unknown)) {
                        request_refused(rq, &refusal);
                        return r;
                }
        }
        if (ticket > 0) {
                request_park(rq, ticket);
                return -EAGAIN;
        }
        int r = may_change_all(rq, tasks, n);
        if (r >= 0)
                *ret = TAKE_PTR(tasks);
        return r;
}
