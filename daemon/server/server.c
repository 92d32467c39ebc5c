/* SPDX-License-Identifier: MIT */
/* The listener, and what all sessions share: the turn of the loop.
 *
 * A turn is: timers; sessions with left-over input (`turn`, an idle handle, so that the loop does not sleep meanwhile);
 * replies written since the last turn outside a session's own reading (`flush`); then the sockets that are ready.
 *
 * Accepting never spins. A client too many is told so and sent away, also when there is no descriptor left for it: the
 * reserve descriptor is given up for that moment. After a shortage nothing is accepted for SERVER_ACCEPT_PAUSE_MSEC. */

#include "server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"
#include "base/util.h"
#include "server/output.h"

enum { GROUPS_GUESS = 32 };

DEFINE_CLEANUP(Identity, identity_unref)
DEFINE_CLEANUP(User, user_unref)

/* ---- sending away ---- */

/* An error with id 0, because the request was not read. The client finds it although the connection is closed. */
static void refuse(Server *s, int fd, const char *text) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);

        s->n_refused++;
        eq_pack_error(&pk, 0, EQ_E_LIMIT, text, NULL);
        if (!b.failed)
                (void)send(fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT); /* best effort: a courtesy */
        eq_buffer_done(&b);
}

static void log_refused(const Server *s, const char *text) {
        log_event(CONNECTIONS_REFUSED, (.error = text), text, s->n_refused);
}

static void refuse_over_limit(Server *s, int fd, const User *user) {
        char text[160];

        (void)snprintf(text, sizeof(text), "user %lu has %llu %s, the most allowed; close some and try again",
                       (unsigned long)user->uid, (unsigned long long)user->used[USER_CONNECTIONS],
                       user_resource_name(USER_CONNECTIONS));
        refuse(s, fd, text);
        log_refused(s, text);
}

/* ---- who is it? ---- */

static bool is_same(const Identity *id, const struct ucred *cred, const gid_t *groups, unsigned n_groups) {
        return id && id->uid == cred->uid && id->gid == cred->gid && id->n_groups == n_groups &&
               (n_groups == 0 || memcmp(id->groups, groups, n_groups * sizeof(groups[0])) == 0);
}

/* The last one is remembered: connections mostly come from the same users again and again. */
static int share_identity(Server *s, const struct ucred *cred, const gid_t *groups, unsigned n_groups, Identity **ret) {
        _cleanup_(identity_unrefp) Identity *id = NULL;
        int r;

        if (is_same(s->last_identity, cred, groups, n_groups)) {
                *ret = identity_ref(s->last_identity);
                return 0;
        }
        r = identity_new(cred->uid, cred->gid, groups, n_groups, &id);
        if (r < 0)
                return r;
        identity_unref(s->last_identity);
        s->last_identity = identity_ref(id);
        *ret = TAKE_PTR(id);
        return 0;
}

static int get_identity(Server *s, int fd, Identity **ret, pid_t *ret_pid) {
        gid_t guess[GROUPS_GUESS];
        _cleanup_free_ gid_t *many = NULL;
        gid_t *groups = guess;
        struct ucred cred;
        socklen_t len = sizeof(cred);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
                return -errno;
        len = sizeof(guess);
        int r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len);
        if (r < 0 && errno == ERANGE) { /* len says how much it takes */
                many = groups = fault_malloc(len);
                if (!many)
                        return -ENOMEM;
                r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len);
        }
        if (r < 0)
                return -errno;
        *ret_pid = cred.pid;
        return share_identity(s, &cred, groups, len / sizeof(gid_t), ret);
}

/* ---- accepting ---- */

static uint64_t boot_usec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_BOOTTIME, &t); /* cannot fail */
        return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

static void admit(Server *s, int accepted) {
        _cleanup_close_ int fd = accepted;
        _cleanup_(identity_unrefp) Identity *identity = NULL;
        _cleanup_(user_unrefp) User *user = NULL;
        Session *session;
        pid_t pid = 0;
        int r;

        r = get_identity(s, fd, &identity, &pid);
        if (r >= 0)
                r = user_get(s->users, identity->uid, &user);
        if (r < 0) {
                refuse(s, fd, "eqd is out of memory; try again later");
                log_refused(s, "cannot accept a connection: out of memory");
                return;
        }
        if (!user_charge(user, USER_CONNECTIONS, 1)) {
                refuse_over_limit(s, fd, user);
                return;
        }
        r = session_new(s, fd, identity, user, &session);
        if (r < 0) {
                user_refund(user, USER_CONNECTIONS, 1);
                refuse(s, fd, "eqd is out of memory; try again later");
                log_refused(s, "cannot accept a connection: out of memory");
                return;
        }
        session->pid = pid;
        session->accepted_usec = boot_usec();
        log_debug("session %llu: uid %lu connected", (unsigned long long)session->number, (unsigned long)identity->uid);
        fd = -1;
        identity = NULL;
        user = NULL;
}

/* A descriptor or negative errno. */
static int accept_one(Server *s) {
        if (fault_hit(FAULT_ACCEPT))
                return -EMFILE;
        int fd = accept4(s->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

static int open_reserve(void) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* No descriptor for the client: tell it, with the one that was kept for that. 0 or negative errno. */
static int refuse_one(Server *s) {
        if (s->reserve_fd < 0)
                return -EMFILE;
        s->reserve_fd = close_fd(s->reserve_fd);
        int fd = accept4(s->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int r = fd < 0 ? -errno : 0;
        if (fd >= 0) {
                refuse(s, fd, "eqd has no descriptor left for another connection; try again later");
                (void)close_fd(fd);
        }
        s->reserve_fd = open_reserve();
        return r;
}

static void on_listen(uv_poll_t *handle, int status, int events);

static void on_accept_retry(uv_timer_t *timer) {
        Server *s = LIST_ENTRY(timer, Server, accept_retry);

        if (s->reserve_fd < 0)
                s->reserve_fd = open_reserve();
        (void)uv_poll_start(&s->poll, UV_READABLE, on_listen);
}

static void pause_accepting(Server *s, int error) {
        char text[160];

        for (unsigned i = 0; i < SERVER_ACCEPT_BATCH && (error == -EMFILE || error == -ENFILE); i++)
                if (refuse_one(s) < 0)
                        break;
        (void)snprintf(text, sizeof(text), "cannot accept connections: %s%s", strerror(-error),
                       error == -EMFILE ? "; raise LimitNOFILE= of the unit" : "");
        log_refused(s, text);
        (void)uv_poll_stop(&s->poll);
        (void)uv_timer_start(&s->accept_retry, on_accept_retry, SERVER_ACCEPT_PAUSE_MSEC, 0);
}

static void on_listen(uv_poll_t *handle, int status, int events) {
        Server *s = LIST_ENTRY(handle, Server, poll);

        if (status < 0) {
                pause_accepting(s, status);
                return;
        }
        for (unsigned i = 0; i < SERVER_ACCEPT_BATCH; i++) {
                int r = accept_one(s);
                if (r == -EAGAIN)
                        return;
                if (r >= 0)
                        admit(s, r);
                else if (r != -EINTR && r != -ECONNABORTED && r != -EPERM) {
                        pause_accepting(s, r);
                        return;
                }
        }
}

/* ---- turns ---- */

static void on_flush(uv_prepare_t *handle) {
        Server *s = LIST_ENTRY(handle, Server, flush);
        List now;

        list_take_all(&s->to_flush, &now);
        for (List *l = list_first(&now); l; l = list_first(&now))
                session_flush(LIST_ENTRY(l, Session, flush_link));

        /* A session that was unclogged may have written more. The next turn sends it, and comes at once. */
        if (list_is_empty(&s->to_flush))
                (void)uv_prepare_stop(&s->flush);
        else
                server_keep_awake(s);
}

static void on_turn(uv_idle_t *handle) {
        Server *s = LIST_ENTRY(handle, Server, turn);
        List now;

        list_take_all(&s->to_serve, &now);
        for (List *l = list_first(&now); l; l = list_first(&now))
                session_turn(LIST_ENTRY(l, Session, turn_link));
        if (list_is_empty(&s->to_serve))
                (void)uv_idle_stop(&s->turn);
}

void server_keep_awake(Server *s) {
        if (!s->freeing)
                (void)uv_idle_start(&s->turn, on_turn); /* nothing happens if it runs */
}

void server_schedule_turn(Session *s) {
        if (!list_is_empty(&s->turn_link))
                return;
        list_append(&s->server->to_serve, &s->turn_link);
        server_keep_awake(s->server);
}

void server_flush_prompt(Server *s) {
        for (List *l; (l = list_first(&s->prompt));)
                session_flush(LIST_ENTRY(l, Session, prompt_link));
}

void server_start_flush(Server *s) {
        if (!s->freeing)
                (void)uv_prepare_start(&s->flush, on_flush);
}

/* ---- lifetime ---- */

static void server_destroy(Server *s) {
        identity_unref(s->last_identity);
        eq_buffer_done(&s->spare_out);
        listener_close(&s->listener);
        (void)close_fd(s->reserve_fd);
        free(s->read_buffer);
        free(s);
}

void server_handle_closed(Server *s) {
        if (--s->n_handles == 0 && s->freeing)
                server_destroy(s);
}

static void on_poll_closed(uv_handle_t *h) {
        server_handle_closed(LIST_ENTRY(h, Server, poll));
}
static void on_flush_closed(uv_handle_t *h) {
        server_handle_closed(LIST_ENTRY(h, Server, flush));
}
static void on_turn_closed(uv_handle_t *h) {
        server_handle_closed(LIST_ENTRY(h, Server, turn));
}
static void on_accept_retry_closed(uv_handle_t *h) {
        server_handle_closed(LIST_ENTRY(h, Server, accept_retry));
}

static void server_destroyp(Server **s) {
        if (*s)
                server_destroy(*s);
}

static int start_handles(Server *s) {
        int r = uv_poll_init(s->loop, &s->poll, s->listener.fd);
        if (r < 0)
                return r;
        (void)uv_prepare_init(s->loop, &s->flush); /* these three cannot fail */
        (void)uv_idle_init(s->loop, &s->turn);
        (void)uv_timer_init(s->loop, &s->accept_retry);
        s->n_handles = 4;
        return 0;
}

int server_new(uv_loop_t *loop, Users *users, const ServerConfig *config, const ServerHooks *hooks,
               const RequestHandler *handlers, void *host, char *ret_error, size_t error_size, Server **ret) {
        _cleanup_(server_destroyp) Server *s = fault_calloc(1, sizeof(*s));
        int r;

        if (!s) {
                (void)snprintf(ret_error, error_size, "out of memory");
                return -ENOMEM;
        }
        *s = (Server) { .loop = loop,
                        .users = users,
                        .hooks = hooks,
                        .handlers = handlers,
                        .host = host,
                        .written = config->written,
                        .clock = config->clock,
                        .listener = LISTENER_NULL };
        list_init(&s->sessions);
        list_init(&s->to_flush);
        list_init(&s->prompt);
        list_init(&s->to_serve);
        list_init(&s->held);
        list_init(&s->parked);
        if (users->limits[USER_INPUT_BYTES] == 0)
                users->limits[USER_INPUT_BYTES] = SERVER_INPUT_MAX / 4;
        s->reserve_fd = open_reserve();
        s->read_buffer = fault_malloc(SERVER_READ_SIZE);
        if (!s->read_buffer || s->reserve_fd < 0) {
                r = s->read_buffer ? s->reserve_fd : -ENOMEM;
                (void)snprintf(ret_error, error_size, "cannot start to listen: %s", strerror(-r));
                return r;
        }
        if (config->path)
                r = listener_open(config->path, config->mode, config->group, ret_error, error_size, &s->listener);
        else
                r = listener_adopt(config->listen_fd, ret_error, error_size, &s->listener);
        if (r < 0)
                return r;
        r = start_handles(s);
        if (r < 0) {
                if (!config->path)
                        s->listener.fd = -1; /* the caller's again */
                (void)snprintf(ret_error, error_size, "cannot watch the socket: %s", strerror(-r));
                return r;
        }
        *ret = TAKE_PTR(s);
        return 0;
}

void server_durable(Server *s, uint64_t position) {
        s->durable = position;
        LIST_FOREACH_SAFE (l, &s->held) {
                Session *session = LIST_ENTRY(l, Session, held_link);
                output_release(session);
                session_schedule_flush(session);
        }
}

void server_not_durable(Server *s) {
        s->not_durable = true;
        for (List *l; (l = list_first(&s->held));)
                output_doom(LIST_ENTRY(l, Session, held_link), "what it was to be told is not durable");
}

void server_rights_changed(Server *s) {
        LIST_FOREACH (l, &s->sessions) {
                Session *session = LIST_ENTRY(l, Session, link);
                session->admin = s->hooks->is_admin(s->host, session->identity);
        }
}

void server_read(Server *s, uint64_t ticket) {
        LIST_FOREACH_SAFE (l, &s->parked) {
                Session *session = LIST_ENTRY(l, Session, park_link);
                if (session->parked_until > ticket)
                        continue;
                list_remove(&session->park_link);
                session->parked_until = 0;
                server_schedule_turn(session);
        }
}

void server_start(Server *s) {
        (void)uv_poll_start(&s->poll, UV_READABLE, on_listen); /* fails for a closing handle only */
}

void server_stop_listening(Server *s) {
        if (s->listener.fd < 0)
                return;
        (void)uv_timer_stop(&s->accept_retry);
        (void)uv_poll_stop(&s->poll);
        uv_close((uv_handle_t *)&s->poll, on_poll_closed);
        listener_close(&s->listener);
}

Server *server_free(Server *s) {
        if (!s)
                return NULL;
        server_stop_listening(s);
        s->freeing = true;
        for (List *l = list_first(&s->sessions); l; l = list_first(&s->sessions)) {
                Session *session = LIST_ENTRY(l, Session, link);
                session_flush(session); /* may close it already */
                session_close(session);
        }
        uv_close((uv_handle_t *)&s->flush, on_flush_closed);
        uv_close((uv_handle_t *)&s->turn, on_turn_closed);
        uv_close((uv_handle_t *)&s->accept_retry, on_accept_retry_closed);
        return NULL;
}
