/* SPDX-License-Identifier: MIT */
#pragma once

/* What every verb of eqctl works with: the options, the connection, and how to say something. Verbs return the exit
 * status of the process; so do the functions here that are said to. */

#include <errno.h>
#include <stdio.h>

#include "eq.h"
#include "eqctl/host.h"
#include "eqctl/options.h"
#include "proto/codec.h"

enum {
        EXIT_USAGE = 2,
        EXIT_NOT_FOUND = 66,
        EXIT_NO_DAEMON = 69,
        EXIT_TEMPORARY = 75,
        EXIT_NO_PERMISSION = 77,
        EXIT_TIMED_OUT = 124, /* the task, not the wait */
        EXIT_NOT_RUN = 125,   /* the task never ran, or eqctl or eqd failed while waiting for it */
        EXIT_SIGNAL = 128,    /* + signal */
};

typedef enum Format {
        FORMAT_TABLE,
        FORMAT_WIDE,
        FORMAT_JSON,
        FORMAT_JSONL,
        FORMAT_TSV,
        FORMAT_ID,
        _FORMAT_MAX,
} Format;

typedef struct NameCache NameCache;

struct Ctl {
        Options options;
        Format format;
        bool headers, color, quiet, verbose;
        unsigned columns; /* of the terminal; 0: output is none */
        const char *socket_option;
        char socket[108];
        const char *where;     /* eqd is, for messages: the socket, or the URL of --host */
        Host host;             /* --host; without a URL: there is none, and the socket counts */
        eq_client *client;     /* NULL until ctl_connect() */
        const char *back;      /* what is said when the connection has come back; literal */
        bool broken;           /* it has not */
        uint64_t give_up_usec; /* so long it is tried */
        NameCache *names;      /* queue ids and uids seen so far; owned */
};
#define CTL_NULL                                                                                                       \
        { .headers = true, .give_up_usec = 30000000 }

/* Takes the options apart. 0, or the exit status; it has said why. */
int ctl_init(Ctl *ctl, int argc, char **argv);
void ctl_deinit(Ctl *ctl);

void ctl_error(const Ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));   /* always */
void ctl_note(const Ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));    /* unless --quiet */
void ctl_verbose(const Ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3))); /* with --verbose */
int ctl_no_memory(const Ctl *ctl); /* says so; exit status */

/* What is not a list of rows comes as a line of JSON each, for -o json as well. */
static inline bool ctl_wants_json(const Ctl *ctl) {
        return ctl->format == FORMAT_JSON || ctl->format == FORMAT_JSONL;
}
static inline bool ctl_has_host(const Ctl *ctl) {
        return ctl->host.url[0] != '\0';
}
bool ctl_has(const Ctl *ctl, FlagId flag);
const char *ctl_get(const Ctl *ctl, FlagId flag);
/* The value of a flag; ret is left alone where it was not given. 0, or the exit status. */
int ctl_get_duration(const Ctl *ctl, FlagId flag, uint64_t *ret_usec);
int ctl_get_number(const Ctl *ctl, FlagId flag, int64_t min, int64_t max, int64_t *ret);
int ctl_get_uid(const Ctl *ctl, FlagId flag, uint64_t *ret);
int ctl_get_signal(const Ctl *ctl, FlagId flag, uint64_t *ret);
/* One that is open when eqctl begins: to be called before anything of its own is, which would have its number. */
int ctl_get_descriptor(const Ctl *ctl, FlagId flag, int *ret);

/* Connects unless connected, silently. r as of eq_client_open(). With --host an eqd that has answered: -ECONNRESET otherwise. */
int ctl_open(Ctl *ctl);
/* Connects unless connected. 0, or the exit status. */
int ctl_connect(Ctl *ctl);
/* Connects, if there is no connection, for one that comes back by itself, if that takes no more than 30 s, and says so; `back`,
 * a literal, then. Subscriptions, waits and queues that are served go on. No call is outstanding. 0, or the exit status.
 * With --host it does not come back: asking for a password in the middle of the night helps nobody. */
int ctl_connect_lasting(Ctl *ctl, const char *back);
void ctl_on_link(eq_client *c, eq_link event, int r,
                 void *ctl); /* which says so; who sets another one calls it first */
/* Of what dispatch of such a connection returned: it did not come back; else there was an answer that was none. */
static inline bool ctl_is_lost(int r) {
        return r != -EREMOTEIO && r != -EBADMSG && r != -ENOMEM;
}
int ctl_lasting_fail(Ctl *ctl, int r); /* what dispatch of such a connection returned: says so. The exit status */

/* A blocking call; params is the record of the method's schema. 0, or the exit status after having said what eqd said.
 * ret may be NULL, else it is the caller's to free. */
int ctl_call(Ctl *ctl, EqMethodId method, const void *params, eq_reply **ret);
/* The same for calls that are answered when something has happened: no time-out, and again after a reconnect. */
int ctl_call_waiting(Ctl *ctl, EqMethodId method, const void *params, eq_reply **ret);
/* The same as ctl_call(), silent: r as of eq_client_call(). */
int ctl_try(Ctl *ctl, EqMethodId method, const void *params, eq_reply **ret);
/* Says what went wrong with r of a call; the exit status. */
int ctl_fail(Ctl *ctl, int r);
/* Calls fn for every task that the filter takes, page by page, until it returns not 0, and returns that; or the exit status
 * of a call that failed. *t lives during the call of fn. Changes `from` of *list. */
typedef int (*CtlTaskFn)(Ctl *ctl, const EqTask *t, void *userdata);
int ctl_list_each(Ctl *ctl, EqList *list, CtlTaskFn fn, void *userdata);
int ctl_params(EqMethodId method, const void *params, EqBuffer *ret); /* packed params; 0 or -ENOMEM */

/* Result of a reply; and the same as rows of a list: an empty array if it is none. */
EqBytes reply_result(const eq_reply *reply);
EqArray reply_rows(const eq_reply *reply);
/* Does this reply of list or queue_list end the list? eqd cuts pages by rows, and by bytes well above what is taken as
 * small here: a short page alone says nothing. */
bool reply_is_last_page(const eq_reply *reply);

/* Every queue, page by page, by name. Records live during the call of fn only. r as of eq_client_call(); silent. */
typedef void (*QueueFn)(const EqQueue *q, void *userdata);
int ctl_each_queue(Ctl *ctl, QueueFn fn, void *userdata);

/* QUEUE/SEQ, as json.h wants it, userdata being Ctl. Asks eqd for names that it has not seen. */
void ctl_id(EqBuffer *b, EqIdRef id, EqBytes hint, void *ctl);
void ctl_user(Ctl *ctl, EqBuffer *b, uint64_t uid); /* name, or the number */

/* The operands after the first, which are KEY=VALUE, as encoded elements. page: where attributes are described. 0 or an
 * exit status, and has said why. */
int ctl_attributes(const Ctl *ctl, const char *page, EqBuffer *ret_raw, EqArray *ret);
/* Ids from the command line, as elements of an IDV parameter. 0, or the exit status if one does not look like an id. */
int ctl_ids(const Ctl *ctl, const char *const *texts, size_t n, EqBuffer *ret_raw, EqArray *ret);

uint64_t wall_usec(void);
uint64_t monotonic_usec(void);
/* "TERM", "SIGTERM" or "15". 0 or -EINVAL. The name without SIG, or NULL. */
int signal_parse(const char *text, uint64_t *ret);
const char *signal_name(int sig);

static inline void reply_freep(eq_reply **r) {
        eq_reply_free(*r);
}
#define _cleanup_(f) __attribute__((cleanup(f)))
#define _cleanup_reply_ _cleanup_(reply_freep)
#define _cleanup_buffer_ _cleanup_(eq_buffer_done)
