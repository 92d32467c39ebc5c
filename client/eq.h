/* SPDX-License-Identifier: MIT */
#pragma once

/* libeq: talk to eqd, the execution-queue daemon.
 *
 * Handles are opaque; functions return 0 or a negative errno; outputs come last and are written only on success. One
 * connection is used by one thread at a time. No hidden threads, no signals (SIGPIPE is avoided), no global state.
 *
 * Two styles on one connection. Blocking calls send a request and wait for its answer, at most until the connection's
 * time-out (-ETIMEDOUT; the request may still have been carried out). For event loops: start calls with a callback, watch
 * eq_client_get_fd() for eq_client_get_events() and call eq_client_dispatch(). Any number of calls may be outstanding.
 *
 * Callbacks run inside dispatch and inside blocking calls, never inside a start function. A callback may start calls and
 * forget them; it must not close the connection, and blocking calls and dispatch answer it with -EBUSY.
 *
 * A connection that has broken stays broken: every later call gives the same error. Open a new one; or give it a policy by
 * eq_client_set_reconnect(), with which it comes back by itself.
 *
 * An error that eqd itself reported is -EREMOTEIO for every code; eq_client_get_error() has the code and the text. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "eq-types.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct eq_client eq_client;
typedef struct eq_call eq_call;
typedef struct eq_reply eq_reply;

#define EQ_TIMEOUT_NEVER UINT64_MAX

/* ---- connection ---- */

/* Connects. path NULL: EQD_SOCKET, else root takes /run/eqd/eqd.sock; others $XDG_RUNTIME_DIR/eqd/eqd.sock if it exists,
 * else the system's. Blocks for the connect only. -ENOENT, -ECONNREFUSED: eqd is not there; -EACCES: not permitted;
 * -ENAMETOOLONG: over 107 bytes. */
int eq_client_open(eq_client **ret, const char *path);
/* The same over a stream socket that is connected already, as one end of a socketpair(2) whose other end a program passes on to an
 * eqd elsewhere. It is the client's on success, and the caller's still on failure. Descriptors are not sent over it: large payloads
 * go as bytes, calls that pass some get -EOPNOTSUPP. It does not come back by itself, and has no path. -ENOTSOCK, -EINVAL, -EBADF. */
int eq_client_open_fd(eq_client **ret, int fd);
eq_client *eq_client_close(eq_client *c); /* outstanding calls get -ECANCELED. Returns NULL; NULL is fine */
void eq_client_closep(eq_client **c);     /* for __attribute__((cleanup)) */
/* The path that eq_client_open(.., path) would use, into buf. 0 or -ENAMETOOLONG. Does not connect. */
int eq_client_default_path(const char *path, char *buf, size_t size);
const char *eq_client_get_path(const eq_client *c);      /* NULL after eq_client_open_fd() */
void eq_client_set_timeout(eq_client *c, uint64_t usec); /* of blocking calls; default 30 s, EQ_TIMEOUT_NEVER: none */

int eq_client_get_fd(const eq_client *c);
/* POLLIN, and POLLOUT while there is something to send. To be asked after each dispatch and after starting calls. */
int eq_client_get_events(const eq_client *c);
/* Sends, receives, calls callbacks; waits for at most timeout_usec if there is nothing to do. 1: something happened, 0:
 * nothing did (or a signal came), -ECONNRESET: eqd closed the connection, -EBADMSG: it sent what is no message (all
 * outstanding calls were answered with the same). With a policy an end of the connection is 1, something that happened. */
int eq_client_dispatch(eq_client *c, uint64_t timeout_usec);
int eq_client_flush(eq_client *c); /* sends as much as the socket takes. 1: more is left, 0: all sent */

/* What eqd said about the last call of this connection that returned -EREMOTEIO, or inside a callback about the call that
 * it is for. Valid until the next call. */
eq_error eq_client_get_error(const eq_client *c, const char **ret_text);

/* What eqd said beside that text, for programs. NULL, 0, and { 0, 0 } as id: nothing of it. Grows at the end: set size. */
typedef struct eq_error_details {
        size_t size;
        const char *method, *field;       /* of the request: the method, and the parameter that was wrong */
        const char *queue, *pool, *param; /* the one that there is none of, that is full, ... */
        eq_task_id id;                    /* task; with EQ_E_DUPLICATE the one that is there */
        uint64_t attempt, worker;
        const char *what;          /* `limit` and `pending` count, such as "tasks" or "bytes" */
        uint64_t limit, pending;   /* how many there may be, and are */
        uint64_t retry_after_usec; /* when to try again */
} eq_error_details;
/* Of the error of eq_client_get_error(); as long valid as its text. */
void eq_client_get_error_details(const eq_client *c, eq_error_details *ret);

/* ---- coming back by itself ----
 *
 * With a policy the end of the connection is no end of the client: it connects again, serves its queues and subscribes to
 * events again, and sends again what was not answered, where that cannot be done twice: what only reads and waits, what did
 * not leave this process as a whole or was refused because eqd was stopping, and submits with a key. Submits get one if they
 * have none. All else is answered with -ECONNRESET, and may have been carried out. Events and output of the time in between
 * are missed. What a worker had is somebody else's: its runs are canceled, and ending one gives -ESTALE. */

/* Grows at the end: start from EQ_RECONNECT_INIT. */
typedef struct eq_reconnect {
        size_t size;
        uint64_t first_usec;   /* pause after the first try, which is at once; doubles with each, less a random half */
        uint64_t max_usec;     /* longest pause */
        uint64_t give_up_usec; /* after so long without an answer it is broken for good; EQ_TIMEOUT_NEVER: never */
        bool no_keys;          /* submits without a key stay so, and are not sent again once they have left */
} eq_reconnect;
#define EQ_RECONNECT_INIT                                                                                              \
        { .size = sizeof(eq_reconnect), .first_usec = 20000, .max_usec = 2000000, .give_up_usec = 60000000 }

/* After opening, before anything else; later only the times change. From then on eq_client_get_fd() is the same over all
 * connections. 0, -EINVAL: a time is 0, or max_usec below first_usec; -EBUSY: calls are outstanding; -EOPNOTSUPP: it was made by
 * eq_client_open_fd(); -ENOMEM, -EMFILE. */
int eq_client_set_reconnect(eq_client *c, const eq_reconnect *policy);

typedef enum eq_link {
        EQ_LINK_LOST, /* the connection ended; r says how. Calls that are not repeated get their answers next */
        EQ_LINK_BACK, /* eqd answers again, and has taken queues and subscription; r is 0 */
        EQ_LINK_BROKEN, /* for good; r as all later calls: the time is over, or -EREMOTEIO: what it served is refused now */
} eq_link;
/* Inside dispatch and blocking calls: the rules of callbacks hold. */
typedef void (*eq_link_fn)(eq_client *c, eq_link event, int r, void *userdata);
void eq_client_set_link(eq_client *c, eq_link_fn fn, void *userdata);

/* Grows at the end: set size = sizeof(eq_link_counts). */
typedef struct eq_link_counts {
        size_t size;
        uint64_t lost;       /* connections that ended */
        uint64_t repeated;   /* requests sent again */
        uint64_t unanswered; /* calls that got -ECONNRESET instead */
        uint64_t late;       /* runs that were ended after their lease */
        bool connected;      /* between EQ_LINK_BACK, or the beginning, and EQ_LINK_LOST */
} eq_link_counts;
void eq_client_get_link(const eq_client *c, eq_link_counts *ret);

/* ---- any method, by its name in eqd-protocol(7) ---- */

/* params: one encoded MessagePack array; result and error: encoded values, NULL and 0 for none. */
typedef void (*eq_reply_fn)(eq_call *call, int r, const eq_reply *reply, void *userdata);

/* Starts a call; nothing is waited for, and little may be sent before the next dispatch or flush. *ret_call (may be NULL)
 * is valid until the callback has returned. fds (n_fds <= 4) are duplicated and sent along; they stay the caller's. r of
 * the callback: 0, -EREMOTEIO with reply holding the error, -ECONNRESET, -EBADMSG (eqd sent what is no message),
 * -ECANCELED. -EMSGSIZE: larger than EQ_MESSAGE_MAX, not sent. */
int eq_client_call_start(eq_client *c, const char *method, const void *params, size_t n_params, const int *fds,
                         unsigned n_fds, eq_reply_fn fn, void *userdata, eq_call **ret_call);
void eq_call_forget(eq_call *call); /* the callback is not called any more */
/* Futures: a call that was started with ret_call and without fn keeps its answer until it is waited for, or forgotten; any number
 * of them, in any order. Waits at most timeout_usec: -ETIMEDOUT, and it can be waited for again. Else as eq_client_call(), and
 * the call is over. -EINVAL: it has a callback. Those that are left end with the client. */
int eq_call_wait(eq_call *call, uint64_t timeout_usec, eq_reply **ret);
/* The same, blocking. *ret is the caller's: eq_reply_free(). Also set when -EREMOTEIO is returned. */
int eq_client_call(eq_client *c, const char *method, const void *params, size_t n_params, eq_reply **ret);

const void *eq_reply_get_result(const eq_reply *reply, size_t *ret_n);     /* encoded; lives as long as reply */
eq_error eq_reply_get_error(const eq_reply *reply, const char **ret_text); /* EQ_E_NONE if there is none */
const void *eq_reply_get_details(const eq_reply *reply, size_t *ret_n); /* of the error: an encoded map; NULL: none */
eq_reply *eq_reply_free(eq_reply *reply);

/* Notifications from eqd (output, output_end, event, lost): params is the encoded array. One handler per connection. */
typedef void (*eq_notify_fn)(eq_client *c, const char *method, const void *params, size_t n_params, void *userdata);
void eq_client_set_notify(eq_client *c, eq_notify_fn fn, void *userdata);

/* ---- tasks ---- */

/* What a submit does that finds a task of the same user in the queue with its key: not finished, or not long ago. */
typedef enum eq_dup {
        EQ_DUP_SKIP,    /* nothing; its id is the answer. A submit may be sent again until there is one */
        EQ_DUP_REPLACE, /* cancels it if it has not begun, and takes its key */
        EQ_DUP_ERROR,   /* -EREMOTEIO, EQ_E_DUPLICATE */
} eq_dup;

/* What to run and how. Zero means default everywhere; strings are borrowed during the call. Grows at the end: set
 * size = sizeof(eq_task). */
typedef struct eq_task {
        size_t size;
        const char *const *argv; /* NULL-terminated; run without a shell */
        const char *const *env;  /* NULL-terminated KEY=VALUE, or NULL: empty environment */
        const char *cwd;
        const char *label;
        const void *payload; /* standard input of a command */
        size_t n_payload;
        const char *stdout_path, *stderr_path;
        const char *const *rlimits; /* NULL-terminated NAME=SOFT[:HARD] */
        uint64_t at_usec, delay_usec, expire_usec, timeout_usec, grace_usec, backoff_usec, backoff_max_usec, block_usec;
        uint32_t retries;
        int32_t nice;
        int32_t umask; /* -1 or 0: default 022 */
        bool urgent, hold, merge, attach, has_retries, has_nice;
        const eq_task_id *after_ok, *after_any, *after_fail;
        size_t n_after_ok, n_after_any, n_after_fail;
        const char *unique; /* idempotency key, at most EQ_KEY_MAX bytes; NULL: none */
        eq_dup on_dup;      /* with `unique` */
        const char *const
                *also; /* NULL-terminated names of queues that it holds too while it runs, or NULL; not in eq_submitv */
        const char *ionice; /* idle, best-effort[:0..7], or as root realtime[:0..7]; NULL: as eqd */
        const char *mime;   /* type of the payload, as text/plain, for workers and people; NULL: none */
        /* At most array_limit tasks of an array have their turn at once. Its number is drawn at random; both are the same for all of
         * them. Limit 0: it belongs to no array. */
        uint64_t array, array_limit;
} eq_task;
#define EQ_TASK_INIT                                                                                                   \
        { .size = sizeof(eq_task), .umask = -1 }

int eq_submit(eq_client *c, const char *queue, const eq_task *task, eq_task_id *ret_id);
/* Up to EQ_BATCH_MAX tasks of one queue in one message, all or none: ids are *ret_first, and the n - 1 SEQs after it. -EINVAL:
 * one has a key, so that this may not hold. */
int eq_submitv(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_task_id *ret_first);
/* The same, also for tasks with keys: ret_ids has room for n. */
int eq_submitv_ids(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_task_id *ret_ids);
/* Pipelined: fn gets r and the id (valid if r == 0). */
typedef void (*eq_submit_fn)(eq_client *c, int r, eq_task_id id, void *userdata);
int eq_submit_start(eq_client *c, const char *queue, const eq_task *task, eq_submit_fn fn, void *userdata);
/* The same as a future, see eq_call_wait(); eq_submit_wait() is that with the id. */
int eq_submit_future(eq_client *c, const char *queue, const eq_task *task, eq_call **ret_call);
int eq_submit_wait(eq_call *call, uint64_t timeout_usec, eq_task_id *ret_id);
/* The same for batches, tasks with keys included: fn gets r and, if that is 0, the ids of all n, valid until it returns. */
typedef void (*eq_submitv_fn)(eq_client *c, int r, const eq_task_id *ids, size_t n, void *userdata);
int eq_submitv_start(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_submitv_fn fn, void *userdata);
int eq_submitv_future(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_call **ret_call);
/* ret_ids has room for n, as many as were submitted. */
int eq_submitv_wait(eq_call *call, uint64_t timeout_usec, eq_task_id *ret_ids, size_t n);

/* 0: canceled, 1: it runs, and was asked to stop if `running`; -1: too late or unknown; in *ret_result. */
int eq_cancel(eq_client *c, eq_task_id id, bool running, int *ret_result);

typedef struct eq_status {
        eq_task_id id;
        eq_state state;
        eq_reason reason;
        int exit_status; /* -1: none */
        int signal;      /* 0: none */
        uint32_t attempts;
} eq_status;
/* Waits until the task has ended, at most timeout_usec (then -ETIMEDOUT), whatever the connection's time-out is. */
int eq_wait(eq_client *c, eq_task_id id, uint64_t timeout_usec, eq_status *ret);
/* The same with the result of the worker that ran it: *ret_result is the caller's to free(3), with a zero byte behind its
 * *ret_n bytes. ret may be NULL. */
int eq_wait_result(eq_client *c, eq_task_id id, uint64_t timeout_usec, eq_status *ret, void **ret_result,
                   size_t *ret_n);
int eq_status_get(eq_client *c, eq_task_id id, eq_status *ret);
/* What it was submitted with, also when it has ended: *ret_payload is the caller's to free(3), with a zero byte behind its *ret_n
 * bytes. -ENODATA: it ended before eqd had read it from the store. */
int eq_payload_get(eq_client *c, eq_task_id id, void **ret_payload, size_t *ret_n);
int eq_ping(eq_client *c);

/* QUEUE/SEQ -> id, asking eqd for the queue's id. */
int eq_task_id_resolve(eq_client *c, const char *text, eq_task_id *ret);

/* ---- queues ---- */

/* attributes: NULL-terminated key=value as in eqd.queue(5), or NULL. exist_ok: an existing one is changed, not refused. */
int eq_queue_create(eq_client *c, const char *name, const char *const *attributes, bool exist_ok);
int eq_queue_set(eq_client *c, const char *name, const char *const *attributes);
int eq_queue_pause(eq_client *c, const char *name);
int eq_queue_resume(eq_client *c, const char *name);
int eq_queue_stop(eq_client *c, const char *name);
int eq_queue_remove(eq_client *c, const char *name, bool with_tasks);
int eq_queue_drain(eq_client *c, const char *name, uint64_t timeout_usec);
int eq_queue_join(eq_client *c, const char *name, uint64_t timeout_usec);
int eq_queue_flush(eq_client *c, const char *name, uint64_t timeout_usec);

/* ---- workers ----
 *
 * A worker is a connection that eqd sends tasks of some queues to. Each is an eq_run, which is the caller's until one of
 * the functions that end it: eq_run_end(), complete, fail, give_back. These put the answer into the output, to be sent by
 * the next dispatch, flush, eq_worker_next() or blocking call. When the connection ends, so does what the worker has: eqd gives
 * it to somebody else. Runs that were not ended are freed by eq_client_close().
 *
 * Blocking style: eq_worker_serve(), then a loop of eq_worker_next() and an end; each answer is sent before the next run is
 * returned. For event loops: eq_worker_set_callbacks()
 * first; then tasks come inside dispatch, and may be ended there or at any time later, in any order. */

typedef struct eq_run eq_run;

/* run is the callee's to end. Inside dispatch: the rules of callbacks hold. */
typedef void (*eq_run_fn)(eq_client *c, eq_run *run, void *userdata);
/* The task was canceled, or its time is over: end the run within grace_usec, else eqd goes on without an answer. With a
 * policy also when the connection was lost, with 0. */
typedef void (*eq_run_cancel_fn)(eq_client *c, eq_run *run, uint64_t grace_usec, void *userdata);
/* Before eq_worker_serve(). run_fn NULL: tasks wait for eq_worker_next(). cancel_fn may be NULL: eq_run_is_canceled()
 * tells, after a dispatch. 0 or -ENOMEM. */
int eq_worker_set_callbacks(eq_client *c, eq_run_fn run_fn, eq_run_cancel_fn cancel_fn, void *userdata);

/* Before eq_worker_serve(): this connection is a reserve. Of queues with a rescuer it gets one task at a time while their other
 * workers are stuck, or none is there, and nothing else. 0 or -ENOMEM. */
int eq_worker_set_rescue(eq_client *c, bool rescue);

/* Before eq_worker_serve(). Leases end with the connection, and with the process that opened it: a child that has inherited the
 * connection does not keep the tasks of a worker that is gone. true: the connection is used by another process on purpose, and
 * leases end with the connection only. 0 or -ENOMEM. */
int eq_worker_set_handed_on(eq_client *c, bool handed_on);

/* What the answer ended is kept: eqd does not hand that task out again for having forgotten it, of a durable queue not even after
 * a crash. Inside dispatch: the rules of callbacks hold. */
typedef void (*eq_run_confirmed_fn)(eq_client *c, eq_task_id id, uint32_t attempt, void *userdata);
/* Before eq_worker_serve(): fn is called once for each answer that eqd has taken. Those that were not confirmed when the connection
 * ended may have been taken or not. NULL: nothing is confirmed, as without this call. 0 or -ENOMEM. */
int eq_worker_set_confirmed(eq_client *c, eq_run_confirmed_fn fn, void *userdata);

/* Serves queues (NULL-terminated), beside those that it serves already. credit: runs that the worker may have and not have
 * ended. parallel: how many of those it works on at once, oldest first, so that eqd knows which ones time out, and which
 * ones it was on if it dies; 0: one, or with callbacks as many as credit. name: for people, or NULL. *ret_number (may be
 * NULL): of this worker, as in eqctl worker ls. Blocks as other calls; tasks may come before it returns. -EREMOTEIO with
 * EQ_E_DENIED: the queue's allow_serve does not name the caller. */
int eq_worker_serve(eq_client *c, const char *const *queues, uint32_t credit, uint32_t parallel, const char *name,
                    uint64_t *ret_number);
int eq_worker_set_credit(eq_client *c, uint32_t credit); /* blocks. 0: no more tasks for now */
/* The next run, waited for at most timeout_usec. 1: *ret is set; 0: none came, or a signal did; -errno as of dispatch. */
int eq_worker_next(eq_client *c, uint64_t timeout_usec, eq_run **ret);
/* The same for as many as are there already, as an iterator like that of eq-plugin.h: of one queue, in the order in which they
 * came, up to the first of another queue. Taking them makes no system call, and their answers leave together when the next
 * batch is asked for; who works long on one sends them by eq_client_flush(). 1: *ret is set, and holds at least one run; it is
 * the client's, and ends with the next call of eq_worker_next() or this. What is not taken comes again. */
typedef struct eq_run_batch eq_run_batch;
int eq_worker_next_batch(eq_client *c, uint64_t timeout_usec, eq_run_batch **ret);
const char *eq_run_batch_get_queue(const eq_run_batch *b); /* its name; lives as long as the batch */
bool eq_run_batch_more(const eq_run_batch *b);             /* has eq_run_batch_next() another one? */
eq_run *eq_run_batch_next(eq_run_batch *b);                /* the caller's to end; NULL: no more at hand */
/* Takes no more tasks, gives back what was not handed out, and waits until eqd has all answers, and has kept them; to be called
 * when there is nothing left to end, or with callbacks that end it. 0, -ETIMEDOUT, -errno; -EREMOTEIO with EQ_E_STORE: the store of
 * durable queues has failed, and what was answered last may come again. */
int eq_worker_leave(eq_client *c, uint64_t timeout_usec);

eq_task_id eq_run_get_id(const eq_run *run);
const char *eq_run_get_queue(const eq_run *run);                  /* its name; strings live as long as the run */
const char *eq_run_get_label(const eq_run *run);                  /* NULL: none */
const char *eq_run_get_mime(const eq_run *run);                   /* type of the payload; NULL: not told */
uint32_t eq_run_get_attempt(const eq_run *run);                   /* no two leases of a task have the same */
const void *eq_run_get_payload(const eq_run *run, size_t *ret_n); /* not terminated */
uint64_t eq_run_get_timeout(const eq_run *run);                   /* usec; EQ_TIMEOUT_NEVER: none */
int eq_run_get_uid(const eq_run *run, uid_t *ret);                /* 1: *ret submitted it; 0: the worker's own user */
bool eq_run_is_canceled(const eq_run *run);
void eq_run_set_userdata(eq_run *run, void *userdata);
void *eq_run_get_userdata(const eq_run *run); /* NULL before it was set */

/* How a run ended. Grows at the end: start from EQ_OUTCOME_INIT. */
typedef struct eq_outcome {
        size_t size;
        bool failed;        /* else it went well */
        bool final;         /* with failed: no retry would help */
        bool give_back;     /* not begun: to its place again, nobody is to blame; sets this worker's credit to 0 */
        int exit_status;    /* 0..255; -1: none */
        const char *text;   /* with failed: why, for people; at most 256 bytes of UTF-8 */
        const void *result; /* what wait returns; at most EQ_RESULT_MAX bytes */
        size_t n_result;
        /* With failed: when the next attempt comes, if there is one, in place of the back-off; with give_back: when the task
         * comes back, and the credit stays as it is. EQ_TIMEOUT_NEVER: not said. */
        uint64_t retry_after_usec;
} eq_outcome;
#define EQ_OUTCOME_INIT                                                                                                \
        { .size = sizeof(eq_outcome), .exit_status = -1, .retry_after_usec = EQ_TIMEOUT_NEVER }

/* Each ends and frees run. Nothing is waited for. -EMSGSIZE, -EINVAL, -ENOMEM: not ended, run is still the caller's;
 * -ECONNRESET, -ESTALE (with a policy) and the like: freed, eqd has given the task to somebody else. */
int eq_run_end(eq_run *run, const eq_outcome *outcome);
int eq_run_complete(eq_run *run, const void *result, size_t n);
int eq_run_fail(eq_run *run, const char *text);
int eq_run_give_back(eq_run *run);
/* A sign of life, sent at once: percent 0..100, -1: unknown; note: what it is at, or NULL. Does not prolong a timeout. */
int eq_run_touch(eq_run *run, int percent, const char *note);

const char *eq_version(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
