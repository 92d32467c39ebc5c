/* SPDX-License-Identifier: MIT */
/* The socketpair to eqd-spawner and the process behind it.
 *
 *      CLOSED --start--> STARTING --READY--> UP --LOST--> STARTING ...      any --end of file--> CLOSED
 *
 * Requests carry the epoch of the worker that is up; what comes back with another one is dropped. */

#include "executor/spawner_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fault.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/program.h"
#include "base/util.h"

enum { LINE_BUFFER = 1 << 20, DISPATCH_MAX = 256, RESERVE_MSEC = 1000 };

struct SpawnerLink {
        char *program, *cgroup; /* owned; cgroup may be NULL */
        bool allow_root;
        unsigned stock;        /* as the program was told when it started */
        unsigned wanted_stock; /* as it is to be */
        const SpawnerEvents *events;
        void *userdata;
        int fd;    /* -1: closed */
        pid_t pid; /* keeper; 0: reaped */
        bool up;
        uint32_t epoch;
};

static int spawn(SpawnerLink *l, int line) {
        const char *argv[8];
        char stock[16];
        size_t n = 0;

        argv[n++] = l->program;
        if (l->allow_root)
                argv[n++] = "--allow-root";
        if (l->cgroup) {
                argv[n++] = "--cgroup";
                argv[n++] = l->cgroup;
        }
        l->stock = l->wanted_stock;
        (void)snprintf(stock, sizeof(stock), "%u", l->stock); /* fits */
        argv[n++] = "--stock";
        argv[n++] = stock;
        argv[n] = NULL;
        return program_start(argv, line, SPAWN_FD, &l->pid);
}

static void set_buffers(int fd) {
        int size = LINE_BUFFER;
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size,
                         sizeof(size)); /* the kernel's bound holds; then less is under way */
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

int spawner_link_restart(SpawnerLink *l) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return -errno;
        set_buffers(pair[0]);
        set_buffers(pair[1]);
        int r = spawn(l, pair[1]);
        close_fd(pair[1]);
        if (r < 0) {
                close_fd(pair[0]);
                l->pid = 0;
                return r;
        }
        l->fd = pair[0];
        l->up = false;
        return 0;
}

int spawner_link_new(const SpawnerConfig *config, const SpawnerEvents *events, void *userdata, SpawnerLink **ret) {
        SpawnerLink *l = fault_calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        l->fd = -1;
        l->allow_root = config->allow_root;
        l->wanted_stock = config->stock;
        l->events = events;
        l->userdata = userdata;
        l->program = strdup(config->program);
        l->cgroup = config->cgroup ? strdup(config->cgroup) : NULL;
        int r = !l->program || (config->cgroup && !l->cgroup) ? -ENOMEM : spawner_link_restart(l);
        if (r < 0) {
                spawner_link_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

/* The spawner ends when the line does, after it has killed what runs: that is bounded by the kernel's killing. */
static void reap(SpawnerLink *l) {
        l->fd = close_fd(l->fd);
        l->up = false;
        while (l->pid > 0 && waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        l->pid = 0;
}

SpawnerLink *spawner_link_free(SpawnerLink *l) {
        if (!l)
                return NULL;
        reap(l);
        free(l->program);
        free(l->cgroup);
        free(l);
        return NULL;
}

pid_t spawner_link_pid(const SpawnerLink *l) {
        return l->pid;
}

int spawner_link_fd(const SpawnerLink *l) {
        return l->fd;
}

/* ---- from the spawner ---- */

typedef union AnyMessage {
        SpawnHeader header;
        SpawnReady ready;
        SpawnStarted started;
        SpawnEnded ended;
} AnyMessage;

static void lost(SpawnerLink *l) {
        if (!l->up)
                return;
        l->up = false;
        l->events->lost(l->userdata);
}

static void take(SpawnerLink *l, const AnyMessage *m, size_t n) {
        if (n < sizeof(m->header) || m->header.magic != SPAWN_MAGIC || m->header.version != SPAWN_VERSION) {
                log_debug("spawner: message of another version dropped");
                return;
        }
        if (m->header.type == SPAWN_READY && n == sizeof(m->ready)) {
                lost(l); /* a LOST that did not come */
                l->epoch = m->header.epoch;
                l->up = true;
                if (l->wanted_stock != l->stock)
                        (void)spawner_link_set_stock(l, l->wanted_stock); /* a line that was just made is not full */
                l->events->ready(l->userdata, &m->ready);
        } else if (m->header.type == SPAWN_LOST && m->header.epoch == l->epoch)
                lost(l);
        else if (!l->up || m->header.epoch != l->epoch)
                log_debug("spawner: message of an earlier worker dropped");
        else if (m->header.type == SPAWN_STARTED && n == sizeof(m->started))
                l->events->started(l->userdata, &m->started);
        else if (m->header.type == SPAWN_ENDED && n == sizeof(m->ended))
                l->events->ended(l->userdata, &m->ended);
        else if (m->header.type == SPAWN_PONG)
                l->events->pong(l->userdata);
}

void spawner_link_dispatch(SpawnerLink *l) {
        AnyMessage m;
        for (int i = 0; i < DISPATCH_MAX && l->fd >= 0; i++) {
                ssize_t n = recv(l->fd, &m, sizeof(m), MSG_DONTWAIT);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n <= 0) {
                        int fd = l->fd;
                        l->fd = -1; /* the host still watches the number: it is told before it is closed */
                        lost(l);
                        while (l->pid > 0 && waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
                                ; /* both ends of the line were its own: it has ended, or is about to */
                        l->pid = 0;
                        l->events->closed(l->userdata);
                        close_fd(fd);
                        return;
                }
                take(l, &m, (size_t)n);
        }
}

/* ---- to the spawner ---- */

/* What the line cannot take now it can take later, or READY follows. */
static int send_parts(SpawnerLink *l, const struct iovec *iov, size_t n_iov, const int *fds, unsigned n_fds) {
        int r = fdpass_send(l->fd, iov, n_iov, fds, n_fds);
        return r == -ENOBUFS || r == -ENOMEM || r == -EINTR || r == -EPIPE || r == -ECONNRESET || r == -ETOOMANYREFS
                       ? -EAGAIN
                       : r;
}

int spawner_link_start(SpawnerLink *l, const SpawnStart *m, const char *strings, const int *fds, unsigned n_fds) {
        if (!l->up || l->fd < 0)
                return -EAGAIN;
        SpawnStart copy = *m;
        copy.header.magic = SPAWN_MAGIC;
        copy.header.version = SPAWN_VERSION;
        copy.header.type = SPAWN_START;
        copy.header.epoch = l->epoch;
        struct iovec iov[2] = { { .iov_base = &copy, .iov_len = sizeof(copy) },
                                { .iov_base = (char *)strings, .iov_len = m->n_strings } };
        bool is_inline = !(m->flags & SPAWN_HAS_STRINGS);
        return send_parts(l, iov, is_inline ? 2 : 1, fds, n_fds);
}

int spawner_link_ping(SpawnerLink *l) {
        if (!l->up || l->fd < 0)
                return -EAGAIN;
        SpawnHeader m = { .magic = SPAWN_MAGIC, .version = SPAWN_VERSION, .type = SPAWN_PING, .epoch = l->epoch };
        struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
        return send_parts(l, &iov, 1, NULL, 0);
}

int spawner_link_set_stock(SpawnerLink *l, unsigned n) {
        l->wanted_stock = n;
        if (!l->up || l->fd < 0)
                return -EAGAIN;
        SpawnStock m = {
                .header = { .magic = SPAWN_MAGIC, .version = SPAWN_VERSION, .type = SPAWN_STOCK, .epoch = l->epoch },
                .n = n,
        };
        struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
        return send_parts(l, &iov, 1, NULL, 0);
}

static int send_reserve(SpawnerLink *l, uint32_t slot, bool on, const int *answer) {
        if (!l->up || l->fd < 0)
                return -EAGAIN;
        SpawnReserve m = { .header = { .magic = SPAWN_MAGIC,
                                       .version = SPAWN_VERSION,
                                       .type = SPAWN_RESERVE,
                                       .slot = slot,
                                       .epoch = l->epoch },
                           .on = on };
        struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
        return send_parts(l, &iov, 1, answer, answer ? 1 : 0);
}

int spawner_link_reserve_later(SpawnerLink *l, uint32_t slot) {
        return send_reserve(l, slot, true, NULL);
}

void spawner_link_unreserve(SpawnerLink *l, uint32_t slot) {
        if (send_reserve(l, slot, false, NULL) < 0)
                log_debug("spawner: a process goes on waiting for a slot that is gone"); /* until its worker ends */
}

/* On a pipe of its own, so that nothing else that comes over the line has to be taken meanwhile. */
int spawner_link_reserve(SpawnerLink *l, uint32_t slot) {
        int fds[2];
        int32_t error;
        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        int r = send_reserve(l, slot, true, &fds[1]);
        close_fd(fds[1]);
        struct pollfd p = { .fd = fds[0], .events = POLLIN };
        if (r >= 0) {
                int n = poll(&p, 1, RESERVE_MSEC);
                r = n == 0 ? -ETIMEDOUT : n < 0 ? -errno : 0;
        }
        if (r >= 0)
                r = read(fds[0], &error, sizeof(error)) == sizeof(error) ? -error
                                                                         : -EAGAIN; /* end: the worker has died */
        close_fd(fds[0]);
        if (r == -ETIMEDOUT || r == -EINTR)
                spawner_link_unreserve(l, slot);
        return r;
}

int spawner_link_signal(SpawnerLink *l, uint32_t slot, uint64_t run, int signal) {
        if (!l->up || l->fd < 0)
                return -EAGAIN;
        SpawnSignal m = { .header = { .magic = SPAWN_MAGIC,
                                      .version = SPAWN_VERSION,
                                      .type = SPAWN_SIGNAL,
                                      .slot = slot,
                                      .epoch = l->epoch,
                                      .run = run },
                          .signal = signal };
        struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
        return send_parts(l, &iov, 1, NULL, 0);
}
