/* SPDX-License-Identifier: MIT */
#pragma once

/* The listening socket, the sessions, and the way of a request to its handler. Loop; nothing blocks. */

#include "base/clock.h"
#include "server/listener.h"
#include "server/session.h"

typedef void (*RequestHandler)(void *host, const Request *rq, const void *params);

/* What the server needs from the floor below and from the roof; all members set. */
typedef struct ServerHooks {
        bool (*is_admin)(void *host, const Identity *id);
        void (*session_closed)(void *host, Session *s); /* before it is freed; its pending requests are gone by then */
        void (*session_unclogged)(void *host, Session *s); /* output fell below EQ_OUTPUT_LOW */
        /* The client answered something: m->msgid, error, result; valid during the call. Whether anything was asked is the
         * host's to know. */
        void (*session_response)(void *host, Session *s, const EqMessage *m);
        void (*session_flushing)(void *host, Session *s); /* of one with a worker: what is written now goes along */
} ServerHooks;

typedef struct ServerConfig {
        const char *path; /* at most LISTENER_PATH_MAX bytes; NULL: `listen_fd` */
        int listen_fd;    /* from systemd, else -1. Taken over on success */
        mode_t mode;      /* of the socket file */
        gid_t group;      /* of the socket file; (gid_t)-1: left alone */
        const uint64_t
                *written; /* position of the newest record in the host's store; borrowed. NULL: there is no store */
        HeldClock *clock; /* the host's, held while a session is served; borrowed. NULL: none */
} ServerConfig;

enum {
        SERVER_READ_SIZE = EQ_QUANTUM_BYTES,
        SERVER_CLOCK_REQUESTS = 16, /* requests of one read that share a time */
        SERVER_ACCEPT_BATCH = 64,   /* connections accepted in one turn */
        SERVER_ACCEPT_PAUSE_MSEC = 50,
        SERVER_SPARE_MAX = 512 * 1024, /* a larger output buffer is not kept for the next session */
};
/* Input kept for all sessions: parts of messages, and whole ones that wait. A session that needs more when this is used up,
 * or when its user has a quarter of it, gets an error and is closed. */
#define SERVER_INPUT_MAX (UINT64_C(256) * 1024 * 1024)

struct Server {
        uv_loop_t *loop;
        Users *users; /* borrowed */
        const ServerHooks *hooks;
        const RequestHandler *handlers; /* [_EQ_METHOD_MAX]; hello, ping and api_info are the server's own */
        void *host;
        HeldClock *clock; /* borrowed; NULL: none */
        List sessions;
        List to_flush; /* sessions with something to send at the end of the turn */
        List prompt; /* those of to_flush that somebody waits for: sent before the replies of the turn that wrote it */
        List to_serve; /* sessions with input that waits for the next turn */
        List held;     /* sessions with output that waits for the store */
        List parked;   /* sessions with a request that waits for it: request_park() */
        const uint64_t *written;
        uint64_t durable; /* what server_durable() said last */
        bool not_durable; /* server_not_durable() was called */
        size_t n_sessions;
        size_t n_handles; /* that the loop has not let go of, sessions included; freed at 0 */
        uint64_t next_number;
        uint64_t n_requests, n_refused, n_notify_errors; /* counters, for stat */
        uint64_t input_bytes;                            /* of all sessions' `in` */
        char *read_buffer;                               /* SERVER_READ_SIZE; every session reads into it first */
        EqBuffer spare_out;      /* an empty output buffer that the next session to write takes */
        Identity *last_identity; /* of the last connection; the next one with the same shares it */
        Listener listener;
        uv_poll_t poll;     /* of the listener */
        uv_prepare_t flush; /* runs at the end of every turn of the loop while to_flush has members */
        uv_idle_t turn;     /* keeps the loop from sleeping while to_serve has members */
        uv_timer_t accept_retry;
        int reserve_fd; /* given up to refuse politely when descriptors are exhausted */
        bool freeing;
};

/* On failure *ret_error (of size error_size) says what to do: socket in use by a living eqd, path too long, directory
 * missing, no permission. A stale socket file is replaced. 0 or negative errno. */
int server_new(uv_loop_t *loop, Users *users, const ServerConfig *config, const ServerHooks *hooks,
               const RequestHandler *handlers, void *host, char *ret_error, size_t error_size, Server **ret);
/* All records up to this position are durable: what waited for them is sent. */
void server_durable(Server *s, uint64_t position);
/* Those above `durable` are lost, for good: who waits for them, now or later, is not answered, and loses the connection. */
void server_not_durable(Server *s);
void server_rights_changed(Server *s);        /* who administers is asked again for every session that there is */
void server_read(Server *s, uint64_t ticket); /* what was parked until then is served again */
void server_start(Server *s);                 /* accepts; until then connections wait in the backlog */
void server_stop_listening(Server *s);        /* connections go on */
/* Sends what the sockets take, closes all sessions. The memory goes when the loop has run and let go of the handles.
 * Returns NULL; NULL is fine. */
Server *server_free(Server *s);

/* ---- for sessions only ---- */

void server_schedule_turn(Session *s); /* session_turn() in the next turn of the loop, which will not sleep before */
void server_handle_closed(Server *s);  /* one of n_handles is gone */
void server_start_flush(Server *s);    /* to_flush gets its first member */
void server_flush_prompt(Server *s);
void server_keep_awake(Server *s); /* the loop does not sleep before the next turn */
