/* SPDX-License-Identifier: MIT */
/* What is opened is known by its type, as systemd's protocol has it: what a service manager passes is no promise, so a file that
 * is something else is refused with a text that says what was expected.
 *
 *      regular file (of proc or a cgroup): write the trigger, POLLPRI; never read       POLLERR: its cgroup is gone, the end
 *      FIFO, character device, socket: write the trigger if there is one, POLLIN, read and forget      its end: the end
 *
 * A trigger lives as long as its descriptor, which can have one only. */

#include "pressurewatch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"
#include "base/psi.h"
#include "base/util.h"

struct PressureWatch {
        uv_poll_t *poll; /* these two are the loop's once closed; NULL: none */
        uv_timer_t *timer;
        int fd; /* -1: none */
        PressureKind kind;
        uint64_t total_usec; /* COUNTER: when it was last looked at */
        uint64_t threshold_usec;
        void (*pressed)(void *host);
        void *host;
        bool unwanted;         /* somebody who may say so wants it OFF */
        char wanted[PATH_MAX]; /* as it was configured */
        char text[PATH_MAX + 128];
};

/* ---- opening what there is ---- */

typedef struct Ask {
        uint8_t bytes[PSI_TRIGGER_MAX];
        size_t n; /* 0: nothing is written */
        bool own; /* not what the service manager says: for files only, since a FIFO would bring it back */
} Ask;

static int open_socket(const char *path) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        if (strlen(path) >= sizeof(a.sun_path))
                return -ENAMETOOLONG;
        strcpy(a.sun_path, path);
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static bool asks(const Ask *ask, const struct stat *st) {
        return ask->n > 0 && (!ask->own || S_ISREG(st->st_mode));
}

/* A FIFO is opened for both, asked or not: so it has no end while nobody writes. */
static int open_path(const char *path, const struct stat *st, const Ask *ask) {
        if (S_ISSOCK(st->st_mode))
                return open_socket(path);
        if (!S_ISREG(st->st_mode) && !S_ISFIFO(st->st_mode) && !S_ISCHR(st->st_mode))
                return -EBADF;
        bool both = asks(ask, st) || S_ISFIFO(st->st_mode);
        int fd = open(path, (both ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        return fd < 0 ? -errno : fd;
}

static int watch_path(PressureWatch *w, const char *path, const Ask *ask) {
        struct stat st;
        if (stat(path, &st) < 0)
                return -errno;
        _cleanup_close_ int fd = open_path(path, &st, ask);
        if (fd < 0)
                return fd;
        ssize_t n = asks(ask, &st) ? write(fd, ask->bytes, ask->n) : (ssize_t)ask->n;
        if (n != (ssize_t)ask->n)
                return n < 0 ? -errno : -EIO;
        w->kind = S_ISREG(st.st_mode) ? PRESSURE_TRIGGER : PRESSURE_STREAM;
        w->fd = TAKE_FD(fd);
        return 0;
}

static int read_total(int fd, uint64_t *ret) {
        char text[PSI_TEXT_MAX];
        ssize_t n = pread(fd, text, sizeof(text), 0);
        return n < 0 ? -errno : psi_parse_total(text, (size_t)n, ret);
}

static int watch_counter(PressureWatch *w, const char *path) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        int r = fd < 0 ? -errno : read_total(fd, &w->total_usec);
        if (r < 0)
                return r;
        w->kind = PRESSURE_COUNTER;
        w->fd = TAKE_FD(fd);
        return 0;
}

/* ---- events ---- */

static void on_closed(uv_handle_t *handle) {
        free(handle);
}

static void drop(PressureWatch *w) {
        if (w->poll) {
                (void)uv_poll_stop(w->poll); /* before its descriptor is closed */
                uv_close((uv_handle_t *)TAKE_PTR(w->poll), on_closed);
        }
        if (w->timer)
                uv_close((uv_handle_t *)TAKE_PTR(w->timer), on_closed);
        w->fd = close_fd(w->fd);
        w->kind = PRESSURE_OFF;
}

static void lose(PressureWatch *w, int error) {
        log_event(PRESSURE_OFF, (.error = strerror(-error)), w->text, strerror(-error));
        drop(w);
}

/* However much is there: it is one event. 0, or negative errno at its end. */
static int forget_input(int fd) {
        char bytes[4096];
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n > 0)
                return 0;
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n < 0 ? -errno : -EPIPE;
}

/* Where a cgroup is gone its file has events for ever. What was told of is not told again. */
static int check_trigger(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLPRI };
        return poll(&p, 1, 0) > 0 && p.revents & POLLERR ? -ENODEV : 0;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
        PressureWatch *w = poll->data;
        int r = status < 0 ? -ENODEV : w->kind == PRESSURE_STREAM ? forget_input(w->fd) : check_trigger(w->fd);
        if (r < 0)
                lose(w, r);
        else
                w->pressed(w->host);
}

static void on_timer(uv_timer_t *timer) {
        PressureWatch *w = timer->data;
        uint64_t total;
        int r = read_total(w->fd, &total);
        if (r < 0) {
                lose(w, r);
                return;
        }
        bool much = total >= w->total_usec && total - w->total_usec >= w->threshold_usec;
        w->total_usec = total;
        if (much)
                w->pressed(w->host);
}

static int start_timer(uv_loop_t *loop, PressureWatch *w, uint64_t usec) {
        uint64_t msec = MAX(usec / USEC_PER_MSEC, UINT64_C(1));
        uv_timer_t *timer = fault_calloc(1, sizeof(*timer));
        if (!timer)
                return -ENOMEM;
        (void)uv_timer_init(loop, timer); /* cannot fail */
        timer->data = w;
        w->timer = timer;
        uv_unref((uv_handle_t *)timer);
        return uv_timer_start(timer, on_timer, msec, msec);
}

static int start_poll(uv_loop_t *loop, PressureWatch *w) {
        uv_poll_t *poll = fault_calloc(1, sizeof(*poll));
        int r = poll ? uv_poll_init(loop, poll, w->fd) : -ENOMEM; /* -EPERM: a file of a disk */
        if (r < 0) {
                free(poll);
                return r;
        }
        poll->data = w;
        w->poll = poll;
        uv_unref((uv_handle_t *)poll);
        return uv_poll_start(poll, w->kind == PRESSURE_TRIGGER ? UV_PRIORITIZED : UV_READABLE, on_poll);
}

/* ---- who it is ---- */

/* The newline is for /proc/pressure/memory, which drops the last byte. */
static Ask own_ask(const PressureConfig *c) {
        Ask ask = { .own = true };
        ask.n = (size_t)snprintf((char *)ask.bytes, sizeof(ask.bytes), "some %llu %llu\n",
                                 (unsigned long long)MIN(c->threshold_usec, PRESSURE_WINDOW_USEC),
                                 (unsigned long long)PRESSURE_WINDOW_USEC);
        return ask;
}

static int try(uv_loop_t *loop, PressureWatch *w, const PressureConfig *c, const char *path, const Ask *ask) {
        int r = ask ? watch_path(w, path, ask) : watch_counter(w, path);
        if (r >= 0)
                r = w->kind == PRESSURE_COUNTER ? start_timer(loop, w, c->interval_usec) : start_poll(loop, w);
        if (r < 0)
                drop(w);
        snprintf(w->text, sizeof(w->text), "%s", path);
        return r;
}

/* One that was named, and no other. */
static void watch_named(uv_loop_t *loop, PressureWatch *w, const PressureConfig *c, const char *path, const Ask *ask) {
        int r = try(loop, w, c, path, ask);
        if (r >= 0)
                return;
        const char *why = r == -EPERM || r == -EBADF ? "it is no pressure file of the kernel, no FIFO and no socket"
                                                     : strerror(-r);
        log_event(PRESSURE_OFF, (.error = why), path, why);
        snprintf(w->text, sizeof(w->text), "%s: %s", path, why);
}

static void watch_environment(uv_loop_t *loop, PressureWatch *w, const PressureConfig *c) {
        Ask ask = { .n = 0 };
        const char *variable = "$MEMORY_PRESSURE_WATCH", *why = NULL;
        if (*c->watch == '\0' || strcmp(c->watch, "/dev/null") == 0) {
                w->unwanted = true;
                snprintf(w->text, sizeof(w->text), "off by the service manager");
                return;
        }
        if (*c->watch != '/')
                why = "it is no absolute path";
        else if (c->write && psi_decode_trigger(c->write, ask.bytes, &ask.n) < 0) {
                variable = "$MEMORY_PRESSURE_WRITE";
                why = "it is no base64 of at most 256 bytes";
        }
        if (!why) {
                watch_named(loop, w, c, c->watch, &ask);
                return;
        }
        log_event(PRESSURE_OFF, (.error = why), variable, why);
        snprintf(w->text, sizeof(w->text), "%s: %s", variable, why);
}

static void watch_best(uv_loop_t *loop, PressureWatch *w, const PressureConfig *c) {
        char own[PATH_MAX + 32] = "";
        Ask ask = own_ask(c);
        if (c->cgroup)
                snprintf(own, sizeof(own), "%s/memory.pressure", c->cgroup);
        if ((*own && try(loop, w, c, own, &ask) >= 0) || try(loop, w, c, c->system, &ask) >= 0)
                return;
        if ((*own && try(loop, w, c, own, NULL) >= 0))
                return;
        int r = try(loop, w, c, c->system, NULL);
        if (r < 0) {
                log_event(PRESSURE_NONE, (0), c->system, strerror(-r));
                snprintf(w->text, sizeof(w->text), "no source: %s: %s", c->system, strerror(-r));
        }
}

int pressure_watch_open(uv_loop_t *loop, const PressureConfig *c, void (*pressed)(void *host), void *host,
                        PressureWatch **ret) {
        PressureWatch *w = fault_calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->fd = -1;
        w->threshold_usec = c->threshold_usec;
        w->pressed = pressed;
        w->host = host;
        w->unwanted = strcmp(c->wanted, "off") == 0;
        (void)snprintf(w->wanted, sizeof(w->wanted), "%s", c->wanted); /* fits */
        Ask ask = own_ask(c);
        if (w->unwanted)
                snprintf(w->text, sizeof(w->text), "off by the configuration");
        else if (strcmp(c->wanted, "auto") != 0)
                watch_named(loop, w, c, c->wanted, &ask);
        else if (c->watch)
                watch_environment(loop, w, c);
        else
                watch_best(loop, w, c);
        *ret = w;
        return 0;
}

bool pressure_watch_fits(const PressureWatch *w, const PressureConfig *c) {
        return (w->kind != PRESSURE_OFF || w->unwanted) && strcmp(w->wanted, c->wanted) == 0 &&
               w->threshold_usec == c->threshold_usec;
}

PressureWatch *pressure_watch_close(PressureWatch *w) {
        if (!w)
                return NULL;
        drop(w);
        free(w);
        return NULL;
}

PressureKind pressure_watch_kind(const PressureWatch *w) {
        return w->kind;
}

const char *pressure_watch_text(const PressureWatch *w) {
        return w->text;
}
