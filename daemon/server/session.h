/* SPDX-License-Identifier: MIT */
#pragma once

/* One client connection, and the requests that come over it. Loop; nothing blocks.
 *
 * Input goes scan -> parse -> method table -> decode -> handler. Replies are collected in `out` and sent once per readable
 * event. A client that does not read is not read from: above EQ_OUTPUT_HIGH of unsent output its requests wait until
 * EQ_OUTPUT_LOW. */

#include <uv.h>

#include "base/list.h"
#include "executor/taskspec.h"
#include "manager/user.h"
#include "proto/codec.h"

typedef struct Server Server;
typedef struct Session Session;

typedef struct EqMessageBuffer {
        EqBuffer buffer;
        size_t used; /* of its front */
} EqMessageBuffer;

struct Session {
        Server *server; /* borrowed; outlives every session */
        List link;      /* Server::sessions */
        List pending;   /* of PendingRequest::link */
        uint64_t number;
        Identity *identity;
        User *user; /* holds the charge for the connection and its output memory */
        bool admin;
        uv_poll_t poll;
        int fd;
        EqMessageBuffer in, out;
        EqScan scan;
        uint64_t out_charged;
        int fds[EQ_FDS_MAX]; /* received, not yet taken by a request; owned */
        unsigned n_fds;
        bool closing;       /* sends what is left, then closes */
        bool throttled;     /* output is above EQ_OUTPUT_HIGH: not read from */
        void *subscription; /* handlers': what events it wants; see session_hooks */
        uint64_t n_lost;    /* notifications dropped since the last `lost` */
};

/* A request while its handler runs. */
typedef struct Request {
        Session *session;
        const EqMethod *method;
        uint32_t msgid;
        bool notify; /* a notification: replies are counted and dropped */
} Request;

/* A request that is answered later. Freed by its answer. */
typedef struct PendingRequest PendingRequest;
struct PendingRequest {
        List link; /* Session::pending */
        Request request;
        /* The connection ended before the answer: forget whatever would have answered. The request is freed after it. */
        void (*gone)(PendingRequest *p);
        void *userdata;
};

/* Answers, exactly one per request. `text` says what is wrong and what to do. */
void request_reply_nil(const Request *rq);
void request_reply_id(const Request *rq, eq_task_id id);
void request_reply_record(const Request *rq, const EqSchema *schema, const void *rec);
void request_error(const Request *rq, eq_error code, const char *fmt, ...) _printf_(3, 4);
/* For anything else: the response up to the result is packed, the caller packs one value, then ends it. A reply that grew
 * over EQ_MESSAGE_MAX, or for which memory ran out, is replaced by an error. */
typedef struct ReplyWriter {
        msgpack_packer packer; /* pack the result with this */
        size_t start;          /* in the session's output */
} ReplyWriter;
void request_reply_begin(const Request *rq, ReplyWriter *ret);
void request_reply_end(const Request *rq, ReplyWriter *w);

/* Keeps the request for later; the handler returns without an answer. NULL when out of memory (then it was answered). */
PendingRequest *request_defer(const Request *rq, void (*gone)(PendingRequest *p), void *userdata);
/* Answer through &p->request, then: frees p and lets the session send. */
void pending_request_done(PendingRequest *p);

/* Takes the next received descriptor, -1 if there is none. The caller owns it. */
int session_take_fd(Session *s);

/* Notifications. They are dropped and counted while more than EQ_OUTPUT_HIGH is unsent, unless `must`: then they are
 * queued, and the caller stops producing while session_is_clogged(). */
typedef struct NotifyWriter {
        msgpack_packer packer; /* pack the params array with this */
        size_t start;
        bool dropped; /* nothing is to be packed */
} NotifyWriter;
void session_notify_begin(Session *s, const char *method, bool must, NotifyWriter *ret);
void session_notify_end(Session *s, NotifyWriter *w);
bool session_is_clogged(const Session *s); /* above EQ_OUTPUT_HIGH */

/* Ask for everything written so far to be sent when the current turn of the loop ends (one flush per session). */
void session_schedule_flush(Session *s);
