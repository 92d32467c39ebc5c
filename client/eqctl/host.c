/* SPDX-License-Identifier: MIT */
/* ssh does what it is good at: names, keys, passwords, encryption, and to say what is wrong with them, on the standard error that it
 * shares with us. eqd sees the `eqctl stdio` of the user there: rights are those of that user.
 *
 * What runs here is started for one connection. It ends with it: by the end of its standard input, or by SIGTERM where it is busy
 * with something else, as a host that does not answer. */

#include "eqctl/host.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eqctl/program.h"

static const char ALNUM[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/* ---- its name ---- */

/* Of letters, digits and `more` only, and no option. */
static bool is_plain(const char *s, const char *more) {
        size_t n = 0;
        while (s[n] && (strchr(ALNUM, s[n]) || strchr(more, s[n])))
                n++;
        return n > 0 && !s[n] && s[0] != '-';
}

static bool is_port(const char *s) {
        size_t n = strspn(s, "0123456789");
        return n > 0 && n <= 5 && !s[n] && atoi(s) >= 1 && atoi(s) <= 65535;
}

int host_parse(Host *h, const char *url) {
        static const char scheme[] = "ssh://";
        char *s = h->text, *at, *end;

        if (strncmp(url, scheme, sizeof(scheme) - 1) != 0 || strlen(url) > HOST_URL_MAX)
                return -EINVAL;
        strcpy(h->url, url);
        strcpy(s, url + sizeof(scheme) - 1);
        size_t n = strlen(s);
        if (n > 0 && s[n - 1] == '/') /* as a browser has it */
                s[n - 1] = '\0';
        at = strrchr(s, '@');
        h->user = at ? s : NULL;
        if (at)
                *at = '\0';
        h->name = s = at ? at + 1 : s;
        bool is_address = *s == '[';
        if (is_address) {
                h->name = s + 1;
                end = strchr(s, ']');
                if (!end)
                        return -EINVAL;
                *end++ = '\0';
        } else
                end = s + strcspn(s, ":");
        h->port = *end == ':' ? end + 1 : NULL;
        if (*end && *end != ':')
                return -EINVAL;
        *end = '\0';
        if ((h->user && !is_plain(h->user, "._+-@")) || (h->port && !is_port(h->port)))
                return -EINVAL;
        return is_plain(h->name, is_address ? "._-:%" : "._-") ? 0 : -EINVAL;
}

/* ---- this side ---- */

const char *host_program(void) {
        const char *program = getenv("EQD_SSH");
        return program && *program ? program : "ssh";
}

static int start(Host *h, int fd) {
        const char *argv[12];
        size_t n = 0;

        argv[n++] = host_program();
        argv[n++] = "-T";
        if (h->port) {
                argv[n++] = "-p";
                argv[n++] = h->port;
        }
        if (h->user) {
                argv[n++] = "-l";
                argv[n++] = h->user;
        }
        argv[n++] = "--";
        argv[n++] = h->name;
        argv[n++] = "eqctl";
        argv[n++] = "stdio";
        argv[n] = NULL;
        return program_start(argv, (int[]) { fd, fd, -1 }, &h->pid);
}

int host_start(Host *h, bool ignore_int, int *ret_fd) {
        struct sigaction old, ignore = { .sa_handler = SIG_IGN };
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        if (ignore_int)
                (void)sigaction(SIGINT, &ignore, &old); /* cannot fail; what is ignored stays so over exec */
        int r = start(h, fds[1]);
        if (ignore_int)
                (void)sigaction(SIGINT, &old, NULL);
        (void)close(fds[1]); /* the program has its own */
        if (r < 0)
                (void)close(fds[0]);
        else
                *ret_fd = fds[0];
        return r;
}

void host_end(Host *h) {
        if (h->pid <= 0)
                return;
        (void)kill(h->pid, SIGTERM); /* it is not reaped: it is still it, and that it has ended does no harm */
        while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        h->pid = 0;
}

/* ---- the other side ---- */

enum {
        JOIN_BYTES = 65536,
        PIPE_BYTES = 4096
}; /* a pipe that can be written to takes PIPE_BUF bytes without blocking */

typedef struct Way {
        int from, to;
        bool ended; /* there will be no more from `from`; once all is sent `to` is told */
        size_t pos, len;
        char data[JOIN_BYTES];
} Way;

/* Both may share descriptors with others: they stay blocking, and nothing is asked of them that they are not ready for. */
static void way_read(Way *w) {
        ssize_t n = read(w->from, w->data, sizeof(w->data));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        w->ended = n <= 0;
        w->pos = 0;
        w->len = n > 0 ? (size_t)n : 0;
}

static int way_write(Way *w) {
        size_t n_left = w->len - w->pos;
        ssize_t n = send(w->to, w->data + w->pos, n_left, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
                n = write(w->to, w->data + w->pos, n_left < PIPE_BYTES ? n_left : PIPE_BYTES);
        if (n >= 0)
                w->pos += (size_t)n;
        else if (errno != EINTR && errno != EAGAIN)
                return -errno;
        return 0;
}

static bool way_is_empty(const Way *w) {
        return w->pos == w->len;
}

static struct pollfd way_poll(const Way *w) {
        if (!way_is_empty(w))
                return (struct pollfd) { .fd = w->to, .events = POLLOUT };
        return (struct pollfd) { .fd = w->ended ? -1 : w->from, .events = POLLIN };
}

static int way_go(Way *w) {
        if (!way_is_empty(w))
                return way_write(w);
        way_read(w);
        return 0;
}

/* Standard input to eqd. One that reads no more may still answer. */
static void way_up(Way *up) {
        if (way_go(up) < 0)
                up->pos = up->len = 0, up->ended = true;
        if (up->ended && way_is_empty(up))
                (void)shutdown(up->to, SHUT_WR); /* not connected any more: then it knows */
}

int host_join(int fd) {
        Way *ways = calloc(2, sizeof(*ways)), *up = ways, *down = ways + 1;
        int r = 0;

        if (!ways)
                return -ENOMEM;
        up->from = STDIN_FILENO, up->to = fd;
        down->from = fd, down->to = STDOUT_FILENO;
        (void)signal(SIGPIPE, SIG_IGN);
        while (r == 0 && !(down->ended && way_is_empty(down))) {
                /* That nobody reads standard output any more shows by itself: nothing may come from eqd for hours. */
                struct pollfd p[3] = { way_poll(up), way_poll(down), { .fd = STDOUT_FILENO } };
                if (poll(p, 3, -1) < 0 && errno != EINTR)
                        r = -errno;
                if (p[0].revents)
                        way_up(up);
                if (p[1].revents)
                        r = way_go(down);
                else if (p[2].revents & (POLLERR | POLLHUP))
                        r = -EPIPE;
        }
        free(ways);
        return r;
}
