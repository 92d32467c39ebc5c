/* SPDX-License-Identifier: MIT */
#pragma once

/* The listening socket, the sessions, and the way of a request to its handler. Loop; nothing blocks. */

#include "server/session.h"

typedef void (*RequestHandler)(void *host, const Request *rq, const void *params);

/* What the server needs from the floor below and from the roof; all members set. */
typedef struct ServerHooks {
        bool (*is_admin)(void *host, const Identity *id);
        void (*session_closed)(void *host, Session *s); /* before it is freed; its pending requests are gone by then */
        void (*session_unclogged)(void *host, Session *s); /* output fell below EQ_OUTPUT_LOW */
} ServerHooks;

typedef struct ServerConfig {
        const char *path; /* at most 107 bytes; NULL: `listen_fd` */
        int listen_fd;    /* from systemd, else -1. Taken over */
        mode_t mode;      /* of the socket file */
        gid_t group;      /* of the socket file; (gid_t)-1: left alone */
} ServerConfig;

struct Server {
        uv_loop_t *loop;
        Users *users; /* borrowed */
        const ServerHooks *hooks;
        const RequestHandler *handlers; /* [_EQ_METHOD_MAX] */
        void *host;
        List sessions;
        List to_flush;
        size_t n_sessions;
        uint64_t next_number;
        int listen_fd;
        char path[108]; /* unlinked at the end if we bound it */
        bool bound;
        uv_poll_t poll;
        uv_prepare_t flush; /* runs at the end of every turn of the loop while to_flush has members */
        uv_timer_t accept_retry;
        int reserve_fd; /* given up to refuse politely when descriptors are exhausted */
};

/* On failure *ret_error (of size error_size) says what to do: socket in use by a living eqd, path too long, directory
 * missing, no permission. A stale socket file is replaced. 0 or negative errno. */
int server_new(uv_loop_t *loop, Users *users, const ServerConfig *config, const ServerHooks *hooks,
               const RequestHandler *handlers, void *host, char *ret_error, size_t error_size, Server **ret);
void server_stop_listening(Server *s); /* connections go on */
Server *server_free(Server *s);        /* closes all; run the loop until its handles are closed afterwards */

/* api_info's result: [channel, {version, types, functions, ...}] from the tables. */
void introspect_pack(msgpack_packer *pk, uint64_t channel);
