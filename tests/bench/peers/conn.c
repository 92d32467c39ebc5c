/* SPDX-License-Identifier: MIT */
/* conn.c - connections: dialling, buffers, and the blocking calls for greetings. */
#include "conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "util.h"

enum {
        ANSWER_SEC = 60, /* blocking calls wait no longer than this */
        RECEIVE_TIMEOUT_MS = 50,
        BUFFER_MIN = 1 << 18,
};

_Atomic bool conn_any_lost;

/* ---- buffers ---- */

static void buffer_reserve(struct Buffer *b, size_t n) {
        if (b->end + n <= b->size)
                return;
        b->size = (b->end + n) * 2 > BUFFER_MIN ? (b->end + n) * 2 : BUFFER_MIN;
        b->data = realloc(b->data, b->size);
        if (!b->data)
                die("realloc");
}

__attribute__((format(printf, 2, 0))) static void buffer_vformat(struct Buffer *b, const char *format, va_list args) {
        va_list again;

        va_copy(again, args);
        size_t n = (size_t)vsnprintf(NULL, 0, format, again);
        va_end(again);
        buffer_reserve(b, n + 1);
        (void)vsnprintf(b->data + b->end, n + 1, format, args);
        b->end += n;
}

void buffer_format(struct Buffer *b, const char *format, ...) {
        va_list args;

        va_start(args, format);
        buffer_vformat(b, format, args);
        va_end(args);
}

void out_format(struct Conn *c, const char *format, ...) {
        va_list args;

        va_start(args, format);
        buffer_vformat(&c->out, format, args);
        va_end(args);
}

char *out_room(struct Conn *c, size_t n) {
        buffer_reserve(&c->out, n);
        return c->out.data + c->out.end;
}

const char *in_line(const struct Conn *c, size_t *ret_length) {
        const char *newline = in_left(c) ? memchr(in_data(c), '\n', in_left(c)) : NULL;

        if (!newline)
                return NULL;
        *ret_length = (size_t)(newline - in_data(c)) + 1;
        return in_data(c);
}

/* ---- connecting ---- */

static int dial_unix(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                die("socket");
        if (strlen(path) >= sizeof(address.sun_path)) {
                errno = ENAMETOOLONG;
                die(path);
        }
        strcpy(address.sun_path, path);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
                die(path);
        return fd;
}

static int dial_tcp(const char *port) {
        struct sockaddr_in address = {
                .sin_family = AF_INET,
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                .sin_port = htons((uint16_t)atoi(port)),
        };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

        if (fd < 0)
                die("socket");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
                die(port);
        return fd;
}

void conn_open(struct Conn *c, const struct Protocol *protocol, unsigned id, bool worker, bool blocking) {
        struct timeval timeout = { .tv_usec = RECEIVE_TIMEOUT_MS * 1000 };

        *c = (struct Conn) { .id = id, .worker = worker, .blocking = blocking };
        c->fd = opt.address[0] == '/' ? dial_unix(opt.address) : dial_tcp(opt.address);
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        if (protocol->hello)
                protocol->hello(c);
        if (!worker) {
                c->payloads = allocate(protocol->per_put, opt.payload);
                memset(c->payloads, 'x', (size_t)protocol->per_put * opt.payload);
                if (protocol->prepare)
                        protocol->prepare(c);
        }
        if (!blocking)
                fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

void conn_close(struct Conn *c) {
        close(c->fd);
        free(c->in.data);
        free(c->out.data);
        free(c->head.data);
        free(c->flight.ring);
        free(c->payloads);
}

/* ---- bytes ---- */

static void lose(struct Conn *c) {
        c->lost = true;
        conn_any_lost = true;
}

void conn_send(struct Conn *c) {
        while (c->out.start < c->out.end) {
                ssize_t n = send(c->fd, c->out.data + c->out.start, c->out.end - c->out.start, MSG_NOSIGNAL);

                if (n > 0) {
                        c->out.start += (size_t)n;
                } else if (errno == EAGAIN) {
                        return;
                } else if (errno != EINTR) {
                        lose(c);
                        return;
                }
        }
        c->out.start = c->out.end = 0;
}

/* Waiting in recv() would cost a second wake-up per request: the kernel also wakes who waits there when the server takes the
 * request out of the socket. As client libraries do, this waits for input only. */
static bool wait_readable(const struct Conn *c) {
        struct pollfd p = { .fd = c->fd, .events = POLLIN };
        return poll(&p, 1, RECEIVE_TIMEOUT_MS) > 0;
}

bool conn_receive(struct Conn *c) {
        struct Buffer *b = &c->in;

        if (c->blocking && !wait_readable(c))
                return true;
        if (b->start == b->end)
                b->start = b->end = 0;
        if (b->end == b->size) {
                if (b->start) {
                        memmove(b->data, b->data + b->start, b->end - b->start);
                        b->end -= b->start;
                        b->start = 0;
                }
                buffer_reserve(b, BUFFER_MIN / 4);
        }

        ssize_t n = recv(c->fd, b->data + b->end, b->size - b->end, 0);
        if (n > 0) {
                b->end += (size_t)n;
                return true;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        lose(c);
        return false;
}

/* ---- blocking calls ---- */

static uint64_t answer_deadline(void) {
        return now_ns() + (uint64_t)ANSWER_SEC * NS_PER_SEC;
}

void send_all(struct Conn *c) {
        uint64_t deadline = answer_deadline();

        while (c->out.end) {
                conn_send(c);
                if (c->lost || now_ns() > deadline)
                        die("send");
        }
}

static void wait_more(struct Conn *c, uint64_t deadline) {
        if (!conn_receive(c) || now_ns() > deadline)
                die("no answer");
}

const char *wait_line(struct Conn *c, size_t *ret_length) {
        uint64_t deadline = answer_deadline();
        const char *line;

        while (!(line = in_line(c, ret_length)))
                wait_more(c, deadline);
        return line;
}

void wait_bytes(struct Conn *c, size_t n) {
        uint64_t deadline = answer_deadline();

        while (in_left(c) < n)
                wait_more(c, deadline);
}
