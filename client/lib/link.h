/* SPDX-License-Identifier: MIT */
#pragma once

/* When a client connects again, and what it keeps for that: the policy with its clock, the descriptor that stays the same over
 * all connections, keys for submits, copies of requests. Knows neither sockets nor calls. Nothing blocks. */

#include "eq.h"
#include "proto/codec.h"

typedef struct Link {
        bool on; /* there is a policy; else nothing below is used */
        bool up; /* as last told */
        eq_reconnect policy;
        int epoll_fd, timer_fd;
        int watched_fd; /* in the epoll; -1: none */
        int watched_events;
        uint64_t lost_usec;  /* since when eqd has not answered; 0: it does */
        uint64_t next_usec;  /* of the next try; 0: there is a connection */
        uint64_t pause_usec; /* before the last one, without its random part */
        uint64_t dice;
        char seed[17]; /* of keys: no other client has it */
        uint64_t n_keys;
} Link;
#define LINK_NULL                                                                                                      \
        { .epoll_fd = -1, .timer_fd = -1, .watched_fd = -1 }

enum { LINK_KEY_SIZE = 48 };

/* 0, -EINVAL, or -errno: as before. */
int link_set_policy(Link *l, const eq_reconnect *policy);
void link_deinit(Link *l);

/* What the descriptor stands for: fd -1: only the time of the next try. 0 or -errno. */
int link_watch(Link *l, int fd, int events);

/* Both set next_usec. False: the time of the policy is over. */
bool link_lost(Link *l, uint64_t now); /* the connection has ended; also one that nothing was answered on */
bool link_failed(Link *l, uint64_t now);
void link_connected(Link *l); /* a try went well; that somebody answers is not said */
void link_answered(Link *l);
static inline bool link_is_down(const Link *l) {
        return l->next_usec != 0;
}
/* usec until the next try, at most `timeout_usec`. */
uint64_t link_left(const Link *l, uint64_t timeout_usec);

/* A key that no submit has had. NULL: the policy wants none. */
const char *link_key(Link *l, char buf[static LINK_KEY_SIZE]);

/* ---- requests that may have to be sent again ---- */

typedef struct Held {
        size_t n;
        unsigned n_fds;
        int fds[EQ_FDS_MAX]; /* owned */
        char data[];         /* the whole message */
} Held;

int held_new(EqBytes message, const int *fds, unsigned n_fds, Held **ret); /* fds are duplicated. 0 or -errno */
Held *held_free(Held *h);
/* May it have been carried out, and be carried out again, to the same effect and with the same answer? */
bool held_is_repeatable(const Held *h);
/* Its encoded parameters. */
EqBytes held_params(const Held *h);
