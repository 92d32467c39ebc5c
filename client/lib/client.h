/* SPDX-License-Identifier: MIT */
#pragma once

/* What the files of libeq share about a client; nothing of it is exported. */

#include "eq.h"
#include "lib/connection.h"
#include "lib/link.h"

/* Begins a call: its header is in the output, params are to be packed behind it by client_packer(). On -errno nothing is
 * left behind. fn may be NULL. */
int client_begin(eq_client *c, const char *method, const int *fds, unsigned n_fds, eq_reply_fn fn, void *userdata,
                 eq_call **ret);
int client_begin_submit(eq_client *c, const int *fds, unsigned n_fds, eq_submit_fn fn, void *userdata, eq_call **ret);
int client_begin_submitv(eq_client *c, size_t n, eq_submitv_fn fn, void *userdata, eq_call **ret);
/* The answer to such a one. */
void client_submitv_answered(eq_client *c, size_t n, int r, const eq_reply *reply, eq_submitv_fn fn, void *userdata);
msgpack_packer client_packer(eq_client *c);
/* Does eqd take payloads of n bytes as a descriptor, and is it worth one? The first large one makes it ask. */
bool client_wants_payload_fd(eq_client *c, size_t n);
bool client_passes_fds(const eq_client *c);
int client_take_fd(eq_client *c);       /* connection_take_fd() */
EqBuffer *client_scratch(eq_client *c); /* emptied; for use within one function */
/* Ends what client_begin() began. r < 0, a failed allocation and a message that is too large take it all back. */
int client_end(eq_client *c, eq_call *call, int r);
/* After that, of a call without a callback: its answer is kept for eq_call_wait(). */
void client_make_future(eq_client *c, eq_call *call);

/* A whole blocking call, waited for until timeout_usec have passed. Takes a packed record as params. ret may be NULL. */
int client_call_record(eq_client *c, const char *method, const EqSchema *schema, const void *rec, uint64_t timeout_usec,
                       eq_reply **ret);
/* Begin, then: waits for `call` as begun with client_sync_done and `sync`. */
typedef struct ClientSync {
        bool done;
        int r;
        eq_reply *reply;
} ClientSync;
void client_sync_done(eq_call *call, int r, const eq_reply *reply, void *userdata);
int client_wait(eq_client *c, eq_call *call, ClientSync *sync, uint64_t timeout_usec, eq_reply **ret);
uint64_t client_timeout(const eq_client *c);

/* One message that expects no answer: begin, pack it, end. 0 or -errno: nothing is left behind. */
int client_message_begin(eq_client *c, msgpack_packer *ret);
int client_message_end(eq_client *c);
/* A NULL-terminated list (NULL: empty) as encoded elements in `scratch`. 0 or -ENOMEM. */
int client_pack_strings(EqBuffer *scratch, const char *const *strings, EqArray *ret);
uint64_t client_now_usec(void); /* monotonic */
Link *client_link(eq_client *c);
/* A request of the client itself, right after a connection was made again; eqd's refusal breaks it for good. 0 or -errno. */
int client_link_call(eq_client *c, const char *method, const EqSchema *schema, const void *rec);
void client_count_late(eq_client *c);

/* serve.c: the worker that a client may be */
typedef struct ClientWorker ClientWorker;
ClientWorker **client_worker(eq_client *c);                   /* where it is kept; NULL before it is needed */
void client_worker_free(ClientWorker *w);                     /* with its runs */
void client_worker_lost(ClientWorker *w);                     /* the connection has broken. NULL is fine */
void client_worker_leases_lost(ClientWorker *w);              /* the same, where it comes back; calls callbacks */
int client_worker_serve_again(eq_client *c, ClientWorker *w); /* what it served, if anything. 0 or -errno */
int client_worker_request(eq_client *c, const EqMessage *m);  /* 0, -EBADMSG, -errno: the connection is broken */
bool client_worker_notify(eq_client *c, const EqMessage *m);  /* true: it was for the worker */

/* A part of a result as EqBytes. */
EqBytes client_result(const eq_reply *reply);
static inline void eq_reply_freep(eq_reply **r) {
        eq_reply_free(*r);
}
