/* SPDX-License-Identifier: MIT */
/* The buffer comes from Server::spare_out when that is free, and goes back there when drained: while replies are sent
 * within the turn that made them, one buffer serves all sessions and nothing is allocated.
 *
 * The charge follows the unsent bytes in steps, so that a reply costs an addition and a comparison. A message that grows
 * over EQ_MESSAGE_MAX is cut off while it is packed: it costs no more memory than one that fits. */

#include "server/output.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/nowait.h"
#include "base/util.h"
#include "server/server.h"

enum { CHARGE_STEP = 16 * 1024, FIRST_SIZE = 4096 };

int output_reserve(Session *s, size_t n) {
        EqBuffer *b = &s->out.buffer, *spare = &s->server->spare_out;

        if (!b->data && spare->data) {
                *b = *spare;
                *spare = (EqBuffer)EQ_BUFFER_NULL;
        }
        if (b->cap - b->len >= n)
                return 0;
        return fault_hit(FAULT_ALLOC) ? -ENOMEM : eq_buffer_reserve(b, MAX(n, (size_t)FIRST_SIZE));
}

static int write_bounded(void *data, const char *p, size_t n) {
        Session *s = data;
        EqBuffer *b = &s->out.buffer;

        if (s->too_large || b->failed)
                return -1;
        if (n > EQ_MESSAGE_MAX || b->len - s->write_start + n > EQ_MESSAGE_MAX) {
                s->too_large = true;
                return -1;
        }
        if (output_reserve(s, n) < 0) {
                b->failed = true;
                return -1;
        }
        memcpy(b->data + b->len, p, n);
        b->len += n;
        return 0;
}

msgpack_packer output_begin(Session *s) {
        assert(!s->writing);
        s->writing = true;
        s->too_large = false;
        s->write_start = s->out.buffer.len;
        (void)output_reserve(s, 1); /* a failure shows with the first byte written */
        s->out.buffer.failed = false;
        return (msgpack_packer) { .data = s, .callback = write_bounded };
}

int output_end(Session *s) {
        int r = s->too_large ? -EMSGSIZE : s->out.buffer.failed ? -ENOMEM : 0;

        assert(s->writing);
        if (r < 0)
                output_roll_back(s, s->write_start);
        s->writing = false;
        return r;
}

void output_roll_back(Session *s, size_t start) {
        s->writing = false;
        s->out.buffer.failed = false;
        s->out.buffer.len = start;
        if (output_pending(s) == 0)
                output_discard(s);
}

bool output_charge(Session *s) {
        uint64_t want = ((uint64_t)output_pending(s) + CHARGE_STEP - 1) / CHARGE_STEP * CHARGE_STEP;

        if (want <= s->out_charged)
                return true;
        if (!user_charge(s->user, USER_OUTPUT_BYTES, want - s->out_charged))
                return false;
        s->out_charged = want;
        return true;
}

static void refund_down_to(Session *s, uint64_t n) {
        uint64_t keep = (n + CHARGE_STEP - 1) / CHARGE_STEP * CHARGE_STEP;

        if (s->out_charged <= keep)
                return;
        user_refund(s->user, USER_OUTPUT_BYTES, s->out_charged - keep);
        s->out_charged = keep;
}

void output_doom(Session *s, const char *why) {
        log_debug("session %llu: %s, closing", (unsigned long long)s->number, why);
        output_discard(s);
        s->gone = s->eof = s->closing = true;
        session_schedule_flush(s);
}

void output_keep(Session *s) {
        if (output_pending(s) > s->out_charged && !output_charge(s)) {
                if (!s->blocked)
                        (void)output_send(s); /* nobody there shows again at the flush */
                if (!output_charge(s)) {
                        output_doom(s, "too much unread output of its user");
                        return;
                }
        }
        if (output_pending(s) > EQ_OUTPUT_HIGH)
                s->throttled = true;
}

/* With all places taken the newest hold is made longer: what it holds waits for more than it must. */
void output_hold(Session *s, uint64_t from, uint64_t until) {
        if (until <= s->server->durable)
                return;
        if (s->server->not_durable) { /* nobody comes to let it go */
                output_doom(s, "what it is told will never be durable");
                return;
        }
        OutputHold *last = s->n_holds > 0 ? &s->holds[s->n_holds - 1] : NULL;
        if (last && (last->until >= until || s->n_holds == SESSION_HOLDS_MAX)) {
                last->until = MAX(last->until, until);
                return;
        }
        s->holds[s->n_holds++] = (OutputHold) { .from = from, .until = until };
        if (list_is_empty(&s->held_link))
                list_append(&s->server->held, &s->held_link);
}

size_t output_sendable(const Session *s) {
        uint64_t end = s->sent + output_pending(s);
        if (s->n_holds > 0)
                end = s->holds[0].from;
        return (size_t)(MIN(end, MAX(s->answer_from, s->sent)) - s->sent);
}

void output_release(Session *s) {
        unsigned n = 0;

        while (n < s->n_holds && s->holds[n].until <= s->server->durable)
                n++;
        s->n_holds -= n;
        memmove(s->holds, s->holds + n, s->n_holds * sizeof(s->holds[0]));
        if (s->n_holds == 0)
                list_remove(&s->held_link);
}

void output_attach_fd(Session *s, size_t start, int fd) {
        OutputFds *f = s->out_fds;

        assert(f->n < SESSION_OUT_FDS_MAX && start >= s->out.used);
        f->fds[f->n++] = (OutputFd) { .at = s->sent + (start - s->out.used), .fd = fd };
}

static void drop_first_fd(OutputFds *f) {
        (void)close_fd(f->fds[0].fd);
        f->n--;
        memmove(f->fds, f->fds + 1, f->n * sizeof(f->fds[0]));
}

/* One call of the system that brings one descriptor at most: so clients receive as many of them as messages, in order. */
static ssize_t send_with_fd(Session *s, const char *data, size_t n) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct iovec iov = { .iov_base = (void *)data, .iov_len = n };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &s->out_fds->fds[0].fd, sizeof(int));
        ssize_t sent = sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
                drop_first_fd(s->out_fds);
        return sent;
}

/* As much of n unsent bytes as one call may send. */
static size_t until_next_fd(const Session *s, bool *ret_with_fd, size_t n) {
        const OutputFds *f = s->out_fds;

        *ret_with_fd = f && f->n > 0 && f->fds[0].at == s->sent;
        unsigned next = *ret_with_fd ? 1 : 0;
        return f && f->n > next ? MIN(n, (size_t)(f->fds[next].at - s->sent)) : n;
}

static ssize_t send_some(Session *s, const char *data, size_t n, bool with_fd) {
        return with_fd ? send_with_fd(s, data, n) : nowait_send(s->fd, data, n);
}

int output_send(Session *s) {
        EqMessageBuffer *out = &s->out;

        for (size_t sendable; (sendable = output_sendable(s)) > 0;) {
                bool with_fd;
                sendable = until_next_fd(s, &with_fd, sendable);
                ssize_t n = send_some(s, out->buffer.data + out->used, sendable, with_fd);
                if (n < 0) {
                        int e = errno;
                        if (e == EINTR)
                                continue;
                        if (e != EAGAIN && e != ENOBUFS && e != ENOMEM)
                                return -e;
                        s->blocked = true;
                        return 0;
                }
                out->used += (size_t)n;
                s->sent += (uint64_t)n;
                s->blocked = (size_t)n < sendable; /* it took a part, so the next call would take nothing */
                if (s->blocked)
                        break;
        }
        if (output_pending(s) == 0) {
                output_discard(s);
                return 0;
        }
        if (out->used >= out->buffer.len / 2) {
                eq_buffer_consume(&out->buffer, out->used);
                out->used = 0;
        }
        refund_down_to(s, output_pending(s));
        return 0;
}

void output_discard(Session *s) {
        EqBuffer *b = &s->out.buffer, *spare = &s->server->spare_out;

        s->sent += output_pending(s); /* dropped bytes count, so that positions still rise */
        b->len = 0;
        s->out.used = 0;
        s->blocked = false;
        s->n_holds = 0;
        list_remove(&s->held_link);
        while (s->out_fds && s->out_fds->n > 0)
                drop_first_fd(s->out_fds);
        if (!spare->data && b->cap <= SERVER_SPARE_MAX) {
                *spare = *b;
                *b = (EqBuffer)EQ_BUFFER_NULL;
        } else
                eq_buffer_done(b);
        refund_down_to(s, 0);
}
