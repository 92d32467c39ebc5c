/* SPDX-License-Identifier: MIT */
/* One connection.
 *
 * Input. Every session reads into the server's one buffer and is served from there; only what is left over (a message that
 * has not arrived as a whole, or requests beyond the quantum of a turn) is copied into memory of its own, which grows with
 * the bytes that really came and goes when it is used up. While whole messages may be left (`backlog`) nothing is read:
 * they are served in the next turns of the loop, which does not sleep until then. A turn whose answers went out looks for what
 * came meanwhile, see read_ahead().
 *
 * States. A session is open until `eof` (it sends no more), `gone` (it reads no more) or `closing` (we read no more):
 *
 *   eof      answers go on; closed when the input is served, nothing is pending and everything is sent
 *   gone     output is dropped; reads to the end of what was sent, serves it, then closed
 *   closing  input is dropped; closed when everything is sent
 *   closed   out of every list, descriptor closed; freed by the loop's close callback
 *
 * Sessions are closed from callbacks of the loop only, never below a handler: that may hold a request of the session. */

#include "server/session.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fault.h"
#include "base/nowait.h"
#include "base/util.h"
#include "server/dispatch.h"
#include "server/output.h"
#include "server/request.h"
#include "server/server.h"

/* ---- received descriptors ---- */

static void drop_fds(Session *s) {
        for (unsigned i = 0; i < s->n_fds; i++)
                s->fds[i] = close_fd(s->fds[i]);
        s->n_fds = 0;
        s->fds_offered = false;
}

int session_take_fd(Session *s) {
        int fd;

        if (!s->fds_offered || s->n_fds == 0)
                return -1;
        fd = s->fds[0];
        s->n_fds--;
        memmove(s->fds, s->fds + 1, s->n_fds * sizeof(s->fds[0]));
        return fd;
}

/* The kernel closes what did not fit into the control buffer; what came beyond EQ_FDS_MAX all the same is closed here. */
static void keep_fds(Session *s, struct msghdr *m) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
                        if (s->n_fds < EQ_FDS_MAX)
                                s->fds[s->n_fds++] = fd;
                        else
                                (void)close_fd(fd);
                }
                s->fds_at = s->received;
        }
}

/* ---- memory for input that has to wait ---- */

/* 0, or -ENOBUFS (all sessions together), -EDQUOT (its user), -ENOMEM. */
static int input_resize(Session *s, size_t cap) {
        EqBuffer *b = &s->in.buffer;
        size_t old = b->cap;

        if (cap > old) {
                if (s->server->input_bytes + (cap - old) > SERVER_INPUT_MAX)
                        return -ENOBUFS;
                if (!user_charge(s->user, USER_INPUT_BYTES, cap - old))
                        return -EDQUOT;
        }
        char *p = fault_realloc(b->data, cap);
        if (!p) {
                if (cap > old)
                        user_refund(s->user, USER_INPUT_BYTES, cap - old);
                return -ENOMEM;
        }
        if (cap < old)
                user_refund(s->user, USER_INPUT_BYTES, old - cap);
        s->server->input_bytes += cap - old; /* wraps around to a subtraction */
        b->data = p;
        b->cap = cap;
        return 0;
}

static void input_drop(Session *s) {
        if (s->in.buffer.cap > 0) {
                user_refund(s->user, USER_INPUT_BYTES, s->in.buffer.cap);
                s->server->input_bytes -= s->in.buffer.cap;
        }
        eq_buffer_done(&s->in.buffer);
        s->in.used = 0;
        s->backlog = false;
}

/* Keeps what was not served out of the server's read buffer. */
static int input_keep(Session *s, const char *data, size_t n) {
        int r = input_resize(s, n);
        if (r < 0)
                return r;
        memcpy(s->in.buffer.data, data, n);
        s->in.buffer.len = n;
        return 0;
}

/* After a part was served: gives memory back, brings the rest to the front. */
static void input_trim(Session *s) {
        EqBuffer *b = &s->in.buffer;

        if (s->in.used == b->len) {
                input_drop(s);
                return;
        }
        if (s->backlog || s->in.used == 0)
                return;
        eq_buffer_consume(b, s->in.used);
        s->in.used = 0;
        if (b->cap > 2 * SERVER_READ_SIZE && b->len < SERVER_READ_SIZE)
                (void)input_resize(s, b->len); /* else it stays large */
}

/* Where to read to. */
static int input_room(Session *s, struct iovec *ret) {
        EqBuffer *b = &s->in.buffer;

        if (b->len == 0) {
                *ret = (struct iovec) { s->server->read_buffer, SERVER_READ_SIZE };
                return 0;
        }
        if (b->cap - b->len < SERVER_READ_SIZE / 2) {
                size_t want = MAX(b->len + SERVER_READ_SIZE, MIN(2 * b->cap, (size_t)SESSION_INPUT_MAX));
                int r = input_resize(s, want);
                if (r < 0)
                        return r;
        }
        *ret = (struct iovec) { b->data + b->len, MIN(b->cap - b->len, (size_t)SERVER_READ_SIZE) };
        return 0;
}

/* ---- serving ---- */

static void peer_left(Session *s) {
        s->gone = true;
        output_discard(s);
}

static void unclog(Session *s) {
        s->throttled = false;
        s->server->hooks->session_unclogged(s->server->host, s);
}

static void flush_output(Session *s) {
        if (!s->blocked && output_sendable(s) > 0 && output_send(s) < 0)
                peer_left(s);
        if (s->gone || s->closing || output_pending(s) >= EQ_OUTPUT_LOW)
                return;
        if (s->n_lost > 0 && notify_write_lost(s))
                session_schedule_flush(s);
        if (s->throttled)
                unclog(s);
}

/* A worker that does not keep up with its tasks is heard all the same: it may be writing answers, and not read before it has
 * got rid of them. */
static bool is_full(const Session *s) {
        return s->worker ? output_pending(s) >= SESSION_WORKER_OUTPUT_MAX : s->throttled;
}

static bool may_serve(const Session *s) {
        if (s->parked_until > 0)
                return false;
        return s->gone || (!is_full(s) && s->n_pending < SESSION_PENDING_MAX);
}

static bool may_read(const Session *s) {
        return !s->closed && !s->closing && !s->eof && !s->backlog && may_serve(s);
}

static void serve_bad_frame(Session *s, EqBytes beginning, int error) {
        dispatch_bad_frame(s, beginning, error);
        s->closing = true;
}

/* False: it is parked, and stays at the front of the input with what came with it. */
static bool serve_message(Session *s, EqBytes raw) {
        s->consumed += raw.len;
        s->server->n_requests++;
        if (s->n_fds > 0)
                s->fds_offered = s->consumed >= s->fds_at;
        if (dispatch_message(s, raw) < 0)
                s->closing = true;
        if (s->parked_until > 0) {
                s->consumed -= raw.len;
                s->server->n_requests--;
                s->fds_offered = false;
                return false;
        }
        s->n_parks = 0;
        if (s->fds_offered)
                drop_fds(s);
        return true;
}

static void hold_clock(const Server *server) {
        if (server->clock)
                held_clock_hold(server->clock);
}

/* Serves whole messages at data, at most a quantum. Returns the bytes that are done with. */
static size_t serve_held(Session *s, const char *data, size_t len) {
        size_t done = 0;

        s->backlog = false;
        for (unsigned n = 0; done < len; n++) {
                if (s->closing)
                        return len;
                if (n % SERVER_CLOCK_REQUESTS == 0)
                        hold_clock(s->server);
                if (s->throttled)
                        flush_output(s); /* perhaps the client reads while we serve */
                if (n == EQ_QUANTUM_REQUESTS || !may_serve(s)) {
                        s->backlog = true;
                        break;
                }
                int r = eq_scan(&s->scan, data + done, len - done, EQ_MESSAGE_MAX);
                if (r == EQ_SCAN_MORE)
                        break;
                if (r < 0) {
                        serve_bad_frame(s, eq_bytes(data + done, len - done), r);
                        return len;
                }
                size_t size = s->scan.pos;
                s->scan = (EqScan)EQ_SCAN_NULL;
                if (!serve_message(s, eq_bytes(data + done, size))) {
                        s->backlog = true;
                        break;
                }
                done += size;
        }
        return done;
}

static size_t serve(Session *s, const char *data, size_t len) {
        size_t done = serve_held(s, data, len);
        if (s->server->clock)
                held_clock_release(s->server->clock);
        return done;
}

static void serve_kept(Session *s) {
        EqMessageBuffer *in = &s->in;
        size_t n = serve(s, in->buffer.data + in->used, in->buffer.len - in->used);

        in->used += n;
        input_trim(s);
}

static void serve_fresh(Session *s, size_t len) {
        const char *data = s->server->read_buffer;
        size_t n = serve(s, data, len);

        if (s->closing || n == len)
                return;
        int r = input_keep(s, data + n, len - n);
        if (r < 0)
                serve_bad_frame(s, eq_bytes(data + n, len - n), r);
}

/* ---- reading ---- */

/* Reads at most SERVER_READ_SIZE and serves it. Returns how many bytes came. */
static size_t read_once(Session *s) {
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * EQ_FDS_MAX)];
        } control;
        struct iovec iov;
        int r = input_room(s, &iov);
        if (r < 0) {
                serve_bad_frame(s, eq_bytes(s->in.buffer.data, s->in.buffer.len), r);
                return 0;
        }
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        ssize_t n = nowait_receive(s->fd, &m);
        if (n < 0) {
                int e = errno;
                if (e != EAGAIN && e != EINTR) {
                        s->eof = true;
                        peer_left(s);
                }
                return 0;
        }
        if (n == 0) {
                s->eof = true; /* half-closed, or gone: if anything is still owed to it, the loop will tell */
                return 0;
        }
        s->received += (uint64_t)n;
        if (m.msg_controllen > 0)
                keep_fds(s, &m);
        if (s->in.buffer.len == 0)
                serve_fresh(s, (size_t)n);
        else {
                s->in.buffer.len += (size_t)n;
                serve_kept(s);
        }
        return (size_t)n;
}

static void send_turn(Session *s) {
        server_flush_prompt(s->server);
        session_flush(s);
}

/* Who shares a CPU with eqd runs as soon as it has its answer, before send() has returned, and has asked again by then mostly:
 * to look costs less than a turn of the loop. Whoever does not is looked at after ever more turns. Not while others wait for
 * what the loop does next, and no more than a quantum. */
static bool may_read_ahead(const Session *s, uint64_t first_request) {
        return may_read(s) && s->in.buffer.len == 0 && output_pending(s) == 0 && list_is_empty(&s->server->to_flush) &&
               s->server->n_requests - first_request < EQ_QUANTUM_REQUESTS;
}

static void read_ahead(Session *s, size_t n_read, uint64_t first_request) {
        for (unsigned n = 0; n < SESSION_AHEAD_MAX && n_read > 0 && n_read <= SESSION_AHEAD_BYTES; n++) {
                if (!may_read_ahead(s, first_request))
                        return;
                if (s->ahead_skip > 0) {
                        s->ahead_skip--;
                        return;
                }
                n_read = read_once(s);
                if (n_read == 0 && may_read(s)) {
                        s->ahead_skip = s->ahead_misses;
                        s->ahead_misses = (uint8_t)MIN(2 * s->ahead_misses + 1, SESSION_AHEAD_SKIP_MAX);
                        return;
                }
                s->ahead_misses = 0;
                send_turn(s);
        }
}

void session_turn(Session *s) {
        if (s->closed)
                return;
        uint64_t first_request = s->server->n_requests;
        size_t n_read = 0;

        list_remove(&s->turn_link);
        if (s->backlog) {
                if (may_serve(s))
                        serve_kept(s);
        } else if (may_read(s))
                n_read = read_once(s);
        send_turn(s);
        read_ahead(s, n_read, first_request);
}

/* ---- what to wait for ---- */

static bool is_finished(const Session *s) {
        if (s->gone)
                return s->closing || (s->eof && !s->backlog) || s->n_pending >= SESSION_PENDING_MAX;
        if (s->worker) /* can answer no more: what it has must not wait for it to read */
                return s->closing || (s->eof && !s->backlog);
        if (s->closing)
                return output_pending(s) == 0;
        return s->eof && !s->backlog && s->n_pending == 0 && output_pending(s) == 0;
}

static void on_poll(uv_poll_t *handle, int status, int events);

/* Urgent data is nothing that a client sends; waiting for it means to be told of a hang-up only. */
static int wanted_events(const Session *s) {
        int events = 0;

        if (s->gone)
                return 0;
        if (may_read(s))
                events |= UV_READABLE;
        if (s->blocked)
                events |= UV_WRITABLE;
        return events ? events : UV_PRIORITIZED;
}

/* Closes a finished session; else waits for what can happen next. */
static void settle(Session *s) {
        if (s->closed)
                return;
        if (is_finished(s)) {
                session_close(s);
                return;
        }
        if (s->closing && s->in.buffer.data)
                input_drop(s);
        if ((s->gone && s->parked_until == 0) || (s->backlog && may_serve(s)))
                server_schedule_turn(s);

        int events = wanted_events(s);
        if (events == s->events)
                return;
        s->events = events;
        if (events == 0)
                (void)uv_poll_stop(&s->poll);
        else
                (void)uv_poll_start(&s->poll, events, on_poll); /* fails for a closing handle only */
}

void session_flush(Session *s) {
        if (s->closed)
                return;
        if (s->worker)
                s->server->hooks->session_flushing(s->server->host, s);
        list_remove(&s->flush_link);
        list_remove(&s->prompt_link);
        flush_output(s);
        settle(s);
}

void session_schedule_flush(Session *s) {
        Server *server = s->server;

        if (s->closed || !list_is_empty(&s->flush_link))
                return;
        if (list_is_empty(&server->to_flush))
                server_start_flush(server);
        list_append(&server->to_flush, &s->flush_link);
}

void session_send_promptly(Session *s) {
        if (!list_is_empty(&s->flush_link) && list_is_empty(&s->prompt_link))
                list_append(&s->server->prompt, &s->prompt_link);
}

void session_peer_ended(Session *s) {
        if (s->closed)
                return;
        (void)shutdown(s->fd, SHUT_RDWR); /* what it had sent can still be read, and ends */
        peer_left(s);
        settle(s);
}

static void on_poll(uv_poll_t *handle, int status, int events) {
        Session *s = LIST_ENTRY(handle, Session, poll);

        if (status < 0) { /* an error on the socket; the loop has stopped the handle */
                s->events = 0;
                peer_left(s);
                settle(s);
                return;
        }
        if (events & UV_PRIORITIZED)
                peer_left(s);
        if (events & UV_WRITABLE)
                s->blocked = false;
        if (events & UV_READABLE)
                session_turn(s);
        else
                session_flush(s);
}

/* ---- lifetime ---- */

int session_new(Server *server, int fd, Identity *identity, User *user, Session **ret) {
        _cleanup_free_ Session *s = fault_calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->server = server;
        s->fd = fd;
        s->number = ++server->next_number;
        s->answer_from = UINT64_MAX;
        list_init(&s->flush_link);
        list_init(&s->prompt_link);
        list_init(&s->turn_link);
        list_init(&s->held_link);
        list_init(&s->park_link);
        list_init(&s->pending);
        r = uv_poll_init(server->loop, &s->poll, fd);
        if (r < 0)
                return r;
        server->n_handles++;
        server->n_sessions++;
        list_append(&server->sessions, &s->link);
        s->identity = identity;
        s->user = user;
        s->admin = server->hooks->is_admin(server->host, identity);
        settle(s);
        *ret = TAKE_PTR(s);
        return 0;
}

static void on_closed(uv_handle_t *handle) {
        Session *s = LIST_ENTRY(handle, Session, poll);
        Server *server = s->server;

        identity_unref(s->identity);
        free(s->out_fds); /* empty: discarded with the output */
        eq_buffer_done(&s->in.buffer);
        eq_buffer_done(&s->out.buffer);
        free(s);
        server_handle_closed(server);
}

void session_close(Session *s) {
        Server *server = s->server;

        if (s->closed)
                return;
        assert(!s->writing);
        s->closed = true;
        list_remove(&s->link);
        list_remove(&s->flush_link);
        list_remove(&s->prompt_link);
        list_remove(&s->turn_link);
        list_remove(&s->held_link);
        list_remove(&s->park_link);
        request_forget_pending(s);
        server->hooks->session_closed(server->host, s);

        /* Out of the loop before the descriptor is closed: a child that has not exec'd yet may hold a copy of it, and
         * then closing alone would leave it in the epoll set. */
        (void)uv_poll_stop(&s->poll);
        uv_close((uv_handle_t *)&s->poll, on_closed);
        s->fd = close_fd(s->fd);
        drop_fds(s);
        output_discard(s);
        server->input_bytes -= s->in.buffer.cap; /* the bytes stay until on_closed(): callers may still look at them */
        user_refund(s->user, USER_INPUT_BYTES, s->in.buffer.cap);
        user_refund(s->user, USER_CONNECTIONS, 1);
        s->user = user_unref(s->user);
        server->n_sessions--;
}
