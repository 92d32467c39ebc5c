/* SPDX-License-Identifier: MIT */
/*      up --lost--> try at once --failed--> pause, try, longer pause, try ... --time is over--> broken
 *                     |  ^                                |
 *                     |  `-- the connection ends before   |
 *                     |      anything was answered: as failed
 *                     `----------- connected ------------> answered: up
 *
 * That connect(2) goes well says little: a service manager may hold the socket of an eqd that does not start. So only an
 * answer ends the time that eqd was gone for, and pauses get longer until then.
 *
 * Pauses have a random half, for a thousand clients lose the same eqd at the same moment.
 *
 * The descriptor for event loops is an epoll with the socket of the day and a timer in it: programs watch one descriptor for
 * as long as the client lives, and need no timer of their own. */

#include "lib/link.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* ---- the descriptor ---- */

static int close_one(int fd) {
        if (fd >= 0)
                (void)close(fd); /* nothing to lose */
        return -1;
}

static int open_descriptors(Link *l) {
        struct epoll_event e = { .events = EPOLLIN };
        l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        int r = l->epoll_fd < 0 ? -errno : 0;
        if (r == 0 && (l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) < 0)
                r = -errno;
        if (r == 0 && epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->timer_fd, &e) < 0)
                r = -errno;
        return r;
}

int link_watch(Link *l, int fd, int events) {
        struct epoll_event e = { .events = (uint32_t)events }; /* POLLIN and POLLOUT are EPOLLIN and EPOLLOUT */
        if (!l->on || (fd == l->watched_fd && events == l->watched_events))
                return 0;
        if (l->watched_fd >= 0 && fd != l->watched_fd)
                (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->watched_fd, NULL); /* it is in there */
        int op = fd == l->watched_fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        int r = fd >= 0 && epoll_ctl(l->epoll_fd, op, fd, &e) < 0 ? -errno : 0;
        l->watched_fd = r == 0 ? fd : -1;
        l->watched_events = events;
        return r;
}

/* An old expiry is forgotten, so that the descriptor is quiet until then. usec 0: for ever. */
static void set_timer(const Link *l, uint64_t usec) {
        struct itimerspec at = { .it_value = { .tv_sec = (time_t)(usec / 1000000),
                                               .tv_nsec = (long)(usec % 1000000) * 1000 } };
        (void)timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &at, NULL); /* cannot fail for such times */
}

/* ---- policy ---- */

static int read_policy(const eq_reconnect *from, eq_reconnect *ret) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        if (from->size < offsetof(eq_reconnect, give_up_usec) + sizeof(p.give_up_usec))
                return -EINVAL;
        memcpy(&p, from, from->size < sizeof(p) ? from->size : sizeof(p)); /* the rest is default */
        if (p.first_usec == 0 || p.max_usec < p.first_usec || p.give_up_usec == 0)
                return -EINVAL;
        *ret = p;
        return 0;
}

static int draw_seeds(Link *l) {
        uint64_t random[2];
        if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
                return errno ? -errno : -EIO;
        l->dice = random[0] | 1;
        (void)snprintf(l->seed, sizeof(l->seed), "%016" PRIx64, random[1]);
        return 0;
}

int link_set_policy(Link *l, const eq_reconnect *policy) {
        eq_reconnect p;
        int r = read_policy(policy, &p);
        if (r < 0)
                return r;
        if (!l->on) {
                r = open_descriptors(l);
                if (r == 0)
                        r = draw_seeds(l);
                if (r < 0) {
                        link_deinit(l);
                        return r;
                }
                l->on = l->up = true;
        }
        l->policy = p;
        return 0;
}

void link_deinit(Link *l) {
        l->epoll_fd = close_one(l->epoll_fd);
        l->timer_fd = close_one(l->timer_fd);
        l->on = false;
}

/* ---- tries ---- */

static uint64_t roll(Link *l, uint64_t n) {
        l->dice ^= l->dice << 13;
        l->dice ^= l->dice >> 7;
        l->dice ^= l->dice << 17;
        return l->dice % n;
}

static void try_at(Link *l, uint64_t usec) {
        l->next_usec = usec;
        set_timer(l, usec);
}

static bool time_is_over(const Link *l, uint64_t now) {
        return l->policy.give_up_usec != EQ_TIMEOUT_NEVER && now - l->lost_usec >= l->policy.give_up_usec;
}

bool link_failed(Link *l, uint64_t now) {
        const eq_reconnect *p = &l->policy;
        if (time_is_over(l, now))
                return false;
        l->pause_usec = l->pause_usec == 0                ? p->first_usec
                        : l->pause_usec > p->max_usec / 2 ? p->max_usec
                                                          : 2 * l->pause_usec;
        uint64_t pause = l->pause_usec - roll(l, l->pause_usec / 2 + 1);
        uint64_t left = p->give_up_usec == EQ_TIMEOUT_NEVER ? pause : l->lost_usec + p->give_up_usec - now;
        try_at(l, now + (pause < left ? pause : left)); /* the last one when the time is over */
        return true;
}

bool link_lost(Link *l, uint64_t now) {
        if (l->lost_usec != 0)
                return link_failed(l, now);
        l->lost_usec = now;
        l->pause_usec = 0;
        try_at(l, now);
        return true;
}

void link_connected(Link *l) {
        l->next_usec = 0;
        set_timer(l, 0);
}

void link_answered(Link *l) {
        l->lost_usec = 0;
}

uint64_t link_left(const Link *l, uint64_t timeout_usec) {
        if (!link_is_down(l))
                return timeout_usec;
        struct timespec ts;
        (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
        uint64_t now = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
        uint64_t left = l->next_usec > now ? l->next_usec - now : 0;
        return left < timeout_usec ? left : timeout_usec;
}

const char *link_key(Link *l, char buf[static LINK_KEY_SIZE]) {
        if (!l->on || l->policy.no_keys)
                return NULL;
        (void)snprintf(buf, LINK_KEY_SIZE, "libeq-%s-%" PRIu64, l->seed, ++l->n_keys); /* 43 at most */
        return buf;
}

/* ---- requests ---- */

Held *held_free(Held *h) {
        for (unsigned i = 0; h && i < h->n_fds; i++)
                (void)close(h->fds[i]); /* a duplicate */
        free(h);
        return NULL;
}

int held_new(EqBytes message, const int *fds, unsigned n_fds, Held **ret) {
        Held *h = malloc(sizeof(*h) + message.len);
        if (!h)
                return -ENOMEM;
        h->n = message.len;
        h->n_fds = 0;
        memcpy(h->data, message.data, message.len);
        while (h->n_fds < n_fds) {
                int fd = fcntl(fds[h->n_fds], F_DUPFD_CLOEXEC, 3);
                if (fd < 0) {
                        int r = -errno;
                        held_free(h);
                        return r;
                }
                h->fds[h->n_fds++] = fd;
        }
        *ret = h;
        return 0;
}

static EqMessage parse(const Held *h) {
        EqMessage m = { 0 };
        (void)eq_message_parse(eq_bytes(h->data, h->n), &m); /* we made it; a caller's bad params leave it empty */
        return m;
}

EqBytes held_params(const Held *h) {
        return parse(h).params;
}

/* With a key that is no second task. `replace` takes the place of the first one, which may have run. */
static bool has_key(const EqSubmit *s) {
        return EQ_HAS(s, Submit, unique) && (!EQ_HAS(s, Submit, on_dup) || eq_bytes_eq(s->on_dup, eq_str("skip")));
}

static bool submit_is_repeatable(EqBytes params) {
        EqDecodeError error;
        EqSubmit s;
        return eq_decode_params(&eq_schema_Submit, params, &s, &error) == 0 && has_key(&s);
}

static bool batch_is_repeatable(EqBytes params) {
        EqSubmit common = { 0 };
        EqDecodeError error;
        EqSubmitMany m;
        EqBytes task;
        if (eq_decode_params(&eq_schema_SubmitMany, params, &m, &error) < 0)
                return false;
        if (EQ_HAS(&m, SubmitMany, common) && eq_decode_map(&eq_schema_Submit, m.common, &common, &error) < 0)
                return false;
        while (eq_next_raw(&m.tasks, &task) == 1) {
                EqSubmit s = common;
                if (eq_is_map(task) && eq_decode_map(&eq_schema_Submit, task, &s, &error) < 0)
                        return false;
                if (!has_key(&s))
                        return false;
        }
        return true;
}

bool held_is_repeatable(const Held *h) {
        EqMessage m = parse(h);
        switch (eq_method_find(m.method)) {
        case EQ_METHOD_HELLO:
        case EQ_METHOD_API_INFO:
        case EQ_METHOD_NVIM_API_INFO:
        case EQ_METHOD_PING:
        case EQ_METHOD_WAIT:
        case EQ_METHOD_LIST:
        case EQ_METHOD_SHOW:
        case EQ_METHOD_WHY:
        case EQ_METHOD_LOGS:
        case EQ_METHOD_QUEUE_LIST:
        case EQ_METHOD_QUEUE_SHOW:
        case EQ_METHOD_QUEUE_JOIN:
        case EQ_METHOD_QUEUE_FLUSH:
        case EQ_METHOD_POOL_LIST:
        case EQ_METHOD_POOL_SHOW:
        case EQ_METHOD_PARAM_LIST:
        case EQ_METHOD_PARAM_GET:
        case EQ_METHOD_IN_FLIGHT:
        case EQ_METHOD_STAT:
        case EQ_METHOD_WORKER_LIST:
        case EQ_METHOD_SUBSCRIBE: /* of the connection, as are the next two */
        case EQ_METHOD_WORKER_SERVE:
        case EQ_METHOD_WORKER_CREDIT:
                return true;
        case EQ_METHOD_SUBMIT:
                return submit_is_repeatable(m.params);
        case EQ_METHOD_SUBMIT_MANY:
                return batch_is_repeatable(m.params);
        default:
                return false;
        }
}
