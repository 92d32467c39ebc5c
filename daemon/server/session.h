/* SPDX-License-Identifier: MIT */
#pragma once

/* One client connection, and the requests that come over it. Loop; nothing blocks.
 *
 * Input goes scan -> parse -> method table -> decode -> handler. Replies are collected in `out` and sent once per readable
 * event. A client that does not read is not read from: above EQ_OUTPUT_HIGH of unsent output its requests wait until
 * EQ_OUTPUT_LOW. Neither do more than SESSION_PENDING_MAX unanswered requests pile up: the next ones wait in the socket.
 *
 * A worker is served above EQ_OUTPUT_HIGH, too, up to SESSION_WORKER_OUTPUT_MAX; one that shut down its side is closed.
 *
 * A client that shut down its side gets the answers to what it sent, then the end. A client that is gone altogether has
 * what it sent served to the last whole message; the answers are dropped. */

#include "base/list.h"
#include "base/util.h" /* before uv.h, which brings sys/param.h with the same macros */
#include "executor/taskspec.h"
#include "manager/user.h"
#include "proto/codec.h"
#include "proto/scan.h"

#include <uv.h>

typedef struct Server Server;
typedef struct Session Session;

typedef struct EqMessageBuffer {
        EqBuffer buffer;
        size_t used; /* of its front */
} EqMessageBuffer;

/* Output from byte `from` of the stream on is not sent before position `until` of the store is durable. */
typedef struct OutputHold {
        uint64_t from, until;
} OutputHold;

/* A descriptor that goes along with byte `at` of the output stream; owned until it is sent. */
typedef struct OutputFd {
        uint64_t at;
        int fd;
} OutputFd;

enum {
        SESSION_HOLDS_MAX = 4,
        SESSION_OUT_FDS_MAX = 8,                        /* waiting to be sent to one client */
        SESSION_WORKER_OUTPUT_MAX = EQ_MESSAGE_MAX / 2, /* unsent output above which not even a worker is served */
        SESSION_PARKS_MAX = 16,                         /* of one message */
        SESSION_PENDING_MAX = 1024,                     /* deferred requests of one connection */
        SESSION_INPUT_MAX = EQ_MESSAGE_MAX + 64 * 1024, /* input kept for one connection */
        SESSION_AHEAD_MAX = 16,                         /* reads of one turn for what came while it sent */
        SESSION_AHEAD_BYTES = 256,                      /* a read that brought more is followed by none */
        SESSION_AHEAD_SKIP_MAX = 63,                    /* turns without one, where nothing ever comes */
};

typedef struct OutputFds {
        OutputFd fds[SESSION_OUT_FDS_MAX]; /* in order of `at` */
        unsigned n;
} OutputFds;

struct Session {
        Server *server;        /* borrowed; outlives every session */
        List link;             /* Server::sessions */
        List flush_link;       /* Server::to_flush */
        List prompt_link;      /* Server::prompt */
        List turn_link;        /* Server::to_serve */
        List held_link;        /* Server::held */
        List park_link;        /* Server::parked */
        uint64_t parked_until; /* the ticket; 0: it is not parked */
        unsigned n_parks;      /* of the message at the front of the input */
        List pending;          /* of PendingRequest::link */
        unsigned n_pending;
        uint64_t number;
        Identity *identity;
        User *user; /* holds the charges for the connection, its input and output memory; NULL once closed */
        uv_poll_t poll;
        int fd;
        int events;                  /* what `poll` waits for */
        EqMessageBuffer in, out;     /* no memory while there is nothing in them */
        EqScan scan;                 /* of the message at the front of the input */
        uint64_t received, consumed; /* bytes of the input stream */
        uint8_t ahead_skip;          /* turns left in which it is not read ahead */
        uint8_t ahead_misses;        /* how many they are after the next read that finds nothing */
        uint64_t out_charged;
        uint64_t sent;                       /* bytes of the output stream */
        OutputHold holds[SESSION_HOLDS_MAX]; /* both members rise */
        unsigned n_holds;
        uint64_t answer_from; /* output from here on belongs to the request that is being served: not sent before it is
                               * known whether it has to wait. UINT64_MAX: none is */
        size_t write_start;   /* in out.buffer: of the message that is being packed */
        OutputFds *out_fds;   /* owned; NULL: this client is sent none */
        int fds[EQ_FDS_MAX];  /* received, not yet taken by a request; owned */
        unsigned n_fds;
        uint64_t fds_at;  /* position in the input stream: the message that holds the byte before it may take the fds */
        bool fds_offered; /* that message is being served */
        bool admin;
        bool writing;       /* a message is being packed */
        bool too_large;     /* ... and grew over EQ_MESSAGE_MAX */
        bool backlog;       /* the input may hold a whole message that was not served yet */
        bool blocked;       /* the socket took no more: wait until it is writable */
        bool throttled;     /* output went above EQ_OUTPUT_HIGH and is not below EQ_OUTPUT_LOW again: not read from */
        bool eof;           /* the client sends no more */
        bool gone;          /* nobody reads: output is dropped, what was sent is served, then it is closed */
        bool closing;       /* reads and answers nothing, sends what is left, then closes */
        bool closed;        /* freed when the loop has let go of `poll` */
        void *subscription; /* handlers': what events it wants; see session_hooks */
        void *worker;       /* handlers': what it serves */
        pid_t pid;          /* of the process that connected, as far as its credentials tell; 0: unknown */
        uint64_t accepted_usec; /* CLOCK_BOOTTIME */
        uint64_t n_lost;        /* notifications dropped since the last `lost` */
};

/* A request while its handler runs. */
typedef struct Request {
        Session *session;
        const EqMethod *method;
        EqBytes params;  /* encoded; gone when the handler returns */
        EqBytes options; /* the map at the end of them; none: of length 0 */
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
EqErrorDetails error_details(const EqDecodeError *error); /* which field, and its bound if that is it */
#define ERROR_FIELD(name_) ((EqErrorDetails) { .present = EQ_BIT(ErrorDetails, field), .field = eq_str(name_) })
#define ERROR_LIMIT(n) ((EqErrorDetails) { .present = EQ_BIT(ErrorDetails, limit), .limit = (n) })
void request_error_with(const Request *rq, eq_error code, const EqErrorDetails *details, const char *fmt, ...)
        _printf_(4, 5);
/* For anything else: the response up to the result is packed, the caller packs one value, then ends it. A reply that grew
 * over EQ_MESSAGE_MAX, or for which memory ran out, is replaced by an error. Between begin and end nothing else may be
 * written to that session. */
typedef struct ReplyWriter {
        msgpack_packer packer; /* pack the result with this */
        size_t start;          /* in the session's output */
} ReplyWriter;
void request_reply_begin(const Request *rq, ReplyWriter *ret);
void request_reply_end(const Request *rq, ReplyWriter *w);

/* Keeps the request for later; the handler returns without an answer. NULL when out of memory or the session is closed
 * (then it was answered). */
PendingRequest *request_defer(const Request *rq, void (*gone)(PendingRequest *p), void *userdata);
/* Answer through &p->request, then: frees p and lets the session send. */
void pending_request_done(PendingRequest *p);

/* Takes the next descriptor that came with the message being served, -1 if there is none. The caller owns it; what no
 * handler takes is closed when the message has been served.
 *
 * A stream socket tells with which read descriptors came, not with which byte. A read ends where the data of the sendmsg
 * that brought descriptors ends, or before; so they belong to the message that holds the last byte of that read. For
 * clients: one sendmsg with descriptors holds (the beginning of) one message, or that message is the last in it. */
int session_take_fd(Session *s);

/* A deferred answer that was just written speaks of a change: it is not sent before that is durable. (Answers that a
 * handler gives at once wait by themselves if it changed anything.) */
void request_hold(const Request *rq);

/* Nothing was done for it yet, nor can be before server_read() tells that ticket, or a later one: the handler returns, and is called
 * again then. What the client sent behind it waits as long. Answered with an error if that came too often. */
void request_park(const Request *rq, uint64_t ticket);

/* Notifications. They are dropped and counted while the session is clogged, or when the user has no output memory left;
 * the client is told by `lost` as soon as there is room, or before the next that must arrive. Unless `must`: then they are
 * queued, the caller stops producing while session_is_clogged() or writes no more than one for each message of the client, and
 * a user over his limit, or for whom there is no memory, loses this connection. Sent at the end of the turn. */
typedef struct NotifyWriter {
        msgpack_packer packer; /* pack the params array with this */
        size_t start;
        int fd;       /* of a call, to go along with it: taken over once it has ended well; -1: none */
        bool dropped; /* nothing needs to be packed */
        bool must;
} NotifyWriter;
void session_notify_begin(Session *s, const char *method, bool must, NotifyWriter *ret);
void session_notify_end(Session *s, NotifyWriter *w);
/* A request of eqd to the client, never dropped for being slow: for callers who look at session_is_clogged(). They write all of
 * it, between begin and end. If it is `dropped`, the session is ending. The response comes by ServerHooks::session_response. */
void session_call_begin(Session *s, NotifyWriter *ret);
/* Room for n bytes, to be written at its end; NULL: there is no memory, which session_call_end() will say. */
EqBuffer *session_call_room(Session *s, size_t n);
int session_call_end(Session *s, NotifyWriter *w); /* 0, -ENOMEM or -EMSGSIZE: nothing was sent */
/* What was written to it does not wait for the end of the turn, nor behind the replies to who caused it: for a client that sleeps
 * until it comes. */
void session_send_promptly(Session *s);
/* From now on calls may bring descriptors. 0 or -ENOMEM. */
int session_allow_out_fds(Session *s);
/* Has a call room for one? */
static inline bool session_has_out_fd_room(const Session *s) {
        return s->out_fds && s->out_fds->n < SESSION_OUT_FDS_MAX;
}
/* From above EQ_OUTPUT_HIGH until below EQ_OUTPUT_LOW, when session_unclogged is called; also for a closed session. */
static inline bool session_is_clogged(const Session *s) {
        return s->throttled || s->closed;
}

/* Ask for everything written so far to be sent when the current turn of the loop ends (one flush per session). Not from
 * a prepare callback: its turn has ended. */
void session_schedule_flush(Session *s);

/* The process behind it has ended, and others may hold the other end open: what it had sent is served, then the session is closed, and
 * for them the connection has ended. From a callback of the loop only. */
void session_peer_ended(Session *s);

/* ---- for the server only ---- */

/* A session for a connected socket, non-blocking, in the server's list. fd, and the references to identity and user with
 * the charge for the connection, are taken over on success. 0 or negative errno. */
int session_new(Server *server, int fd, Identity *identity, User *user, Session **ret);
/* Serves what is in the input, or reads and serves that; sends; at most a quantum. */
void session_turn(Session *s);
void session_flush(Session *s); /* sends what the socket takes, and goes on with what had to wait for it */
/* Pending requests are told, charges given back, the descriptor is closed; memory stays until the loop has let go. */
void session_close(Session *s);
