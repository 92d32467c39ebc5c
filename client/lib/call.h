/* SPDX-License-Identifier: MIT */
#pragma once

/* A client as client.c (its connection) and call.c (its calls) see it; what the other files of libeq may do with it is in
 * client.h. One thread at a time, nothing blocks. */

#include "lib/client.h"

struct eq_client {
        Connection connection;
        int dead; /* -errno once the connection has broken */
        bool dispatching;
        uint32_t next_msgid;
        bool msgids_wrapped;
        size_t begun_at; /* where the call being packed starts in the output */
        bool asked_hello;
        uint64_t payload_fd_min; /* eqd takes larger payloads as a descriptor; 0: not known, or it does not */
        uint64_t timeout_usec;
        eq_call *calls, *free_calls, *answered; /* answered: futures that nobody has waited for yet */
        eq_notify_fn notify_fn;
        void *notify_userdata;
        eq_error error_code;
        EqBuffer error_text;    /* terminated */
        EqBuffer error_details; /* the map, encoded; empty: none */
        EqBuffer error_names;   /* the strings of it, terminated */
        EqBuffer scratch;
        ClientWorker *worker;
        char *path;  /* NULL: it was connected by somebody else */
        bool no_fds; /* what is at the other end may be no socket of eqd: descriptors would get lost, unseen */
        Link link;
        eq_link_fn link_fn;
        void *link_userdata;
        eq_link_counts counts;
        unsigned n_link_calls; /* unanswered ones of the client itself */
        int link_error;        /* an answer to one of them ends the connection, or the client */
        Held *subscription;    /* the request; NULL: none */
};

/* What eq_client_get_error() tells from now on. */
void client_set_error(eq_client *c, eq_error code, EqBytes text, EqBytes details);
const char *client_error_text(const eq_client *c);

void calls_fail(eq_client *c, int r);                      /* answers all that are not answered */
void calls_free(eq_client *c);                             /* futures, too. None is unanswered */
void call_answer(eq_client *c, const EqMessage *response); /* the one that it belongs to, if any */
/* A call of the client itself, which goes before all others: see client_begin(). */
int call_begin_link(eq_client *c, const char *method, eq_reply_fn fn, void *userdata, eq_call **ret);

/* ---- when the connection has ended ---- */

/* What cannot be repeated, out of the hash in order of start; for calls_lost(), which answers them with -ECONNRESET. */
eq_call *calls_take_unrepeatable(eq_client *c);
void calls_lost(eq_client *c, eq_call *first);
eq_call *calls_last(eq_client *c); /* NULL: there is none */
/* Those that were begun up to `last`. 0 or -errno. */
int calls_send_again(eq_client *c, eq_call *last);
