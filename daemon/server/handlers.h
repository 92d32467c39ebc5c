/* SPDX-License-Identifier: MIT */
#pragma once

/* One function per method: decoded parameters in, calls to the manager, one answer out. Loop; nothing blocks. */

#include "manager/manager.h"
#include "server/server.h"
#include "server/storeread.h"

/* What handlers work on; `host` of every RequestHandler. */
typedef struct Handlers {
        Manager *manager;
        Server *server;
        List subscriptions; /* of Subscription::link */
        List storing;       /* of SessionWorker::storing_link */
        unsigned n_run_fds; /* payloads sent to workers as descriptors, not answered yet */
        StoreReads store_reads;
        const char *store_program; /* path of eqd-store; set before the server is there */
} Handlers;

extern const RequestHandler handlers_table[_EQ_METHOD_MAX];
extern const ServerHooks handlers_server_hooks;

void handlers_init(Handlers *h);                       /* then set manager, server and store_program */
void handlers_durable(Handlers *h, uint64_t position); /* server_durable(), and what follows from it here */
void handlers_not_durable(Handlers *h);                /* likewise */
/* ManagerHooks::event */
void handlers_event(Handlers *h, const EqEvent *event, bool has_owner, uid_t owner);

/* ---- for the modules of this folder ---- */

Caller session_caller(const Session *s);
void request_refused(const Request *rq, const Refusal *r);
/* An array of n encoded rows; frees them. */
void request_reply_rows(const Request *rq, EqBuffer *rows, uint32_t n);
/* Records of all ids, allocated; unknown ones are NULL if `unknown_ok`, else an error was sent. None of them if
 * the method changes what is kept and that cannot be done. 0 or negative (answered, or parked: return). */
int request_find_tasks(Handlers *h, const Request *rq, EqArray ids, bool unknown_ok, TaskRecord ***ret);

/* handlers_task.c */
void handle_submit(void *host, const Request *rq, const void *params);
void handle_submit_many(void *host, const Request *rq, const void *params);
void handle_cancel(void *host, const Request *rq, const void *params);
void handle_kill(void *host, const Request *rq, const void *params);
void handle_hold(void *host, const Request *rq, const void *params);
void handle_release(void *host, const Request *rq, const void *params);
void handle_retry(void *host, const Request *rq, const void *params);
/* handlers_look.c */
void handle_wait(void *host, const Request *rq, const void *params);
void handle_list(void *host, const Request *rq, const void *params);
void handle_show(void *host, const Request *rq, const void *params);
void handle_why(void *host, const Request *rq, const void *params);
void handle_stat(void *host, const Request *rq, const void *params);
void handle_in_flight(void *host, const Request *rq, const void *params);
/* handlers_store.c */
void handle_store_stat(void *host, const Request *rq, const void *params);
void handle_store_read(void *host, const Request *rq, const void *params);
/* handlers_stream.c */
void handle_logs(void *host, const Request *rq, const void *params);
void handle_subscribe(void *host, const Request *rq, const void *params);
/* Of what is to come: all, and the task's pipes wait for this client; all that he keeps up with; likewise until the attempt
 * that runs has ended. */
typedef enum StreamMode { STREAM_MUST, STREAM_TASK, STREAM_ATTEMPT } StreamMode;
int stream_attach(Handlers *h, Session *s, TaskRecord *t, StreamMode mode); /* 0 or -ENOMEM */
void stream_session_closed(Handlers *h, Session *s);
void stream_session_unclogged(Handlers *h, Session *s);
/* handlers_worker.c */
void handle_worker_serve(void *host, const Request *rq, const void *params);
void handle_worker_credit(void *host, const Request *rq, const void *params);
void handle_worker_leave(void *host, const Request *rq, const void *params);
void handle_worker_touch(void *host, const Request *rq, const void *params);
void handle_worker_list(void *host, const Request *rq, const void *params);
void handle_worker_kick(void *host, const Request *rq, const void *params);
void worker_session_response(Handlers *h, Session *s, const EqMessage *m);
void worker_session_flushing(Handlers *h, Session *s);
void worker_session_closed(Handlers *h, Session *s);
void worker_session_unclogged(Handlers *h, Session *s);
void workers_durable(Handlers *h); /* more is on the disk, or never will be */
/* handlers_queue.c */
void handle_queue_create(void *host, const Request *rq, const void *params);
void handle_queue_set(void *host, const Request *rq, const void *params);
void handle_queue_list(void *host, const Request *rq, const void *params);
void handle_queue_show(void *host, const Request *rq, const void *params);
void handle_queue_pause(void *host, const Request *rq, const void *params);
void handle_queue_resume(void *host, const Request *rq, const void *params);
void handle_queue_drain(void *host, const Request *rq, const void *params);
void handle_queue_stop(void *host, const Request *rq, const void *params);
void handle_queue_join(void *host, const Request *rq, const void *params);
void handle_queue_flush(void *host, const Request *rq, const void *params);
void handle_queue_rm(void *host, const Request *rq, const void *params);
void handle_touch(void *host, const Request *rq, const void *params);
void handle_reload(void *host, const Request *rq, const void *params);
/* handlers_pool.c */
void handle_pool_list(void *host, const Request *rq, const void *params);
void handle_pool_show(void *host, const Request *rq, const void *params);
void handle_pool_create(void *host, const Request *rq, const void *params);
void handle_pool_set(void *host, const Request *rq, const void *params);
void handle_pool_rm(void *host, const Request *rq, const void *params);
/* handlers_param.c */
void handle_param_list(void *host, const Request *rq, const void *params);
void handle_param_get(void *host, const Request *rq, const void *params);
void handle_param_set(void *host, const Request *rq, const void *params);
