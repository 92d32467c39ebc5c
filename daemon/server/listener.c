/* SPDX-License-Identifier: MIT */
/* How a socket file comes into being: bound under a temporary name in the same directory, given its group and mode, made
 * to listen, and only then renamed to its name. So whoever finds the file finds somebody behind it, and "connection
 * refused" can only mean that its maker is dead.
 *
 * A stale file is exchanged with ours in one step and looked at again under the temporary name: if another eqd put a
 * living socket there in between, they are exchanged back. File systems without RENAME_EXCHANGE get a plain rename. */

#include "server/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

enum { BACKLOG = 4096, ATTEMPTS = 16 };

/* Where the socket is to be: its directory, open, and the names in it. */
typedef struct Place {
        const char *path, *name; /* name: last component of path */
        char dir[LISTENER_PATH_MAX + 1];
        char temporary[32];
        int dir_fd;
        char *error;
        size_t error_size;
} Place;

_printf_(3, 4) static int fail(Place *p, int r, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(p->error, p->error_size, fmt, ap);
        va_end(ap);
        return r;
}

static int place_init(Place *p, const char *path) {
        size_t len = strlen(path);
        const char *slash = strrchr(path, '/');

        if (len > LISTENER_PATH_MAX)
                return fail(p, -ENAMETOOLONG,
                            "the path of the socket has %zu bytes, at most %d are possible; use a shorter one: %s", len,
                            LISTENER_PATH_MAX, path);
        p->path = path;
        p->name = slash ? slash + 1 : path;
        if (p->name[0] == '\0')
                return fail(p, -EINVAL, "the path of the socket, '%s', does not end in a file name", path);
        if (!slash)
                strcpy(p->dir, ".");
        else
                (void)snprintf(p->dir, sizeof(p->dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
        (void)snprintf(p->temporary, sizeof(p->temporary), ".eqd-%ld", (long)getpid());

        p->dir_fd = open(p->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (p->dir_fd >= 0)
                return 0;
        int e = errno;
        if (e == ENOENT)
                return fail(p, -e, "there is no directory %s for the socket; create it, or use --socket", p->dir);
        return fail(p, -e, "cannot open the directory %s of the socket: %s; use --socket for another place", p->dir,
                    strerror(e));
}

static void place_done(Place *p) {
        p->dir_fd = close_fd(p->dir_fd);
}

/* The address of the temporary name goes through /proc if it would be too long. */
static void place_address(const Place *p, const char *name, struct sockaddr_un *ret) {
        *ret = (struct sockaddr_un) { .sun_family = AF_UNIX };
        if (name == p->name) {
                strcpy(ret->sun_path, p->path);
                return;
        }
        int n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s", p->dir, name);
        if (n < 0 || (size_t)n >= sizeof(ret->sun_path))
                (void)snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", p->dir_fd, name);
}

/* Does somebody answer at this name? 1, 0 or negative errno. */
static int place_is_living(const Place *p, const char *name) {
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un address;

        if (fd < 0)
                return -errno;
        place_address(p, name, &address);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                return 1;
        switch (errno) {
        case ECONNREFUSED:
                return 0;
        case EAGAIN: /* its backlog is full */
        case EPROTOTYPE:
                return 1;
        default:
                return -errno;
        }
}

static int refuse_living(Place *p) {
        return fail(p, -EADDRINUSE, "another eqd answers on %s; stop it or use --socket", p->path);
}

/* Is what stands at our name in the way? 1: nothing is there, 0: a stale socket, negative errno: leave it alone. */
static int place_examine(Place *p) {
        struct stat st;

        if (fstatat(p->dir_fd, p->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                int e = errno;
                if (e == ENOENT)
                        return 1;
                return fail(p, -e, "cannot look at %s: %s", p->path, strerror(e));
        }
        if (!S_ISSOCK(st.st_mode))
                return fail(p, -EEXIST, "%s exists and is no socket; remove it or use --socket", p->path);
        int r = place_is_living(p, p->name);
        if (r > 0)
                return refuse_living(p);
        if (r == -ENOENT) /* gone since */
                return 1;
        if (r < 0)
                return fail(p, r, "cannot find out whether an eqd answers on %s: %s; remove it or use --socket",
                            p->path, strerror(-r));
        return 0;
}

static int place_rename(Place *p, unsigned flags) {
        return renameat2(p->dir_fd, p->temporary, p->dir_fd, p->name, flags) < 0 ? -errno : 0;
}

/* Puts the socket in place of a stale one. */
static int place_exchange(Place *p) {
        int r = place_rename(p, RENAME_EXCHANGE);
        if (r == -EINVAL)
                return place_rename(p, 0);
        if (r < 0)
                return r;
        if (place_is_living(p, p->temporary) > 0) {
                (void)place_rename(p,
                                   RENAME_EXCHANGE); /* fails only if somebody removed it, and then nothing is lost */
                return refuse_living(p);
        }
        (void)unlinkat(p->dir_fd, p->temporary, 0); /* what stays is a dead file with a name of ours */
        return 0;
}

/* Gives the listening socket its name. */
static int place_occupy(Place *p) {
        int r = -EBUSY;

        for (unsigned i = 0; i < ATTEMPTS; i++) {
                r = place_examine(p);
                if (r < 0)
                        return r;
                if (r == 0) {
                        r = place_exchange(p);
                        if (r == -EADDRINUSE)
                                return r; /* it has been explained */
                } else {
                        r = place_rename(p, RENAME_NOREPLACE);
                        if (r == -EINVAL)
                                r = place_rename(p, 0);
                }
                if (r != -EEXIST && r != -ENOENT)
                        break;
        }
        if (r < 0)
                return fail(p, r, "cannot create the socket %s: %s", p->path, strerror(-r));
        return 0;
}

static void place_remove_leftover(Place *p) {
        struct stat st;
        if (fstatat(p->dir_fd, p->temporary, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode))
                (void)unlinkat(p->dir_fd, p->temporary, 0);
}

static int bind_temporary(Place *p, int fd) {
        struct sockaddr_un address;

        place_remove_leftover(p); /* of an eqd that had our pid and was killed here */
        place_address(p, p->temporary, &address);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                return 0;
        int e = errno;
        if (e == EACCES || e == EPERM || e == EROFS)
                return fail(p, -e,
                            "no permission to create a socket in %s: %s; start eqd as the owner of that directory, or "
                            "use --user or --socket",
                            p->dir, strerror(e));
        return fail(p, -e, "cannot create a socket in %s: %s", p->dir, strerror(e));
}

/* Group, mode, listen, name: in this order. */
static int publish(Place *p, int fd, mode_t mode, gid_t group, struct stat *ret_stat) {
        if (group != (gid_t)-1 && fchownat(p->dir_fd, p->temporary, (uid_t)-1, group, AT_SYMLINK_NOFOLLOW) < 0) {
                int e = errno;
                return fail(p, -e, "cannot give the socket %s to group %lu: %s", p->path, (unsigned long)group,
                            strerror(e));
        }
        if (fchmodat(p->dir_fd, p->temporary, mode, 0) < 0 ||
            fstatat(p->dir_fd, p->temporary, ret_stat, AT_SYMLINK_NOFOLLOW) < 0 || listen(fd, BACKLOG) < 0) {
                int e = errno;
                return fail(p, -e, "cannot prepare the socket %s: %s", p->path, strerror(e));
        }
        return place_occupy(p);
}

int listener_open(const char *path, mode_t mode, gid_t group, char *ret_error, size_t error_size, Listener *ret) {
        _cleanup_(place_done) Place p = { .dir_fd = -1, .error = ret_error, .error_size = error_size };
        _cleanup_close_ int fd = -1;
        _cleanup_free_ char *copy = NULL;
        struct stat st;
        int r;

        r = place_init(&p, path);
        if (r < 0)
                return r;
        r = place_examine(&p); /* before anything is created */
        if (r < 0)
                return r;
        copy = strdup(path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (!copy || fd < 0)
                return fail(&p, copy ? -errno : -ENOMEM, "cannot make a socket: %s", strerror(copy ? errno : ENOMEM));
        r = bind_temporary(&p, fd);
        if (r < 0)
                return r;
        r = publish(&p, fd, mode, group, &st);
        if (r < 0) {
                place_remove_leftover(&p);
                return r;
        }
        *ret = (Listener) { .fd = TAKE_FD(fd), .path = TAKE_PTR(copy), .dev = st.st_dev, .ino = st.st_ino };
        return 0;
}

static int get_option(int fd, int option) {
        int value = 0;
        socklen_t len = sizeof(value);
        return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

int listener_adopt(int fd, char *ret_error, size_t error_size, Listener *ret) {
        Place p = { .dir_fd = -1, .error = ret_error, .error_size = error_size };

        if (get_option(fd, SO_DOMAIN) != AF_UNIX || get_option(fd, SO_TYPE) != SOCK_STREAM ||
            get_option(fd, SO_ACCEPTCONN) != 1)
                return fail(&p, -EINVAL,
                            "descriptor %d from systemd is no listening AF_UNIX stream socket; eqd.socket needs "
                            "ListenStream= with a path and Accept=no",
                            fd);
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
                int e = errno;
                return fail(&p, -e, "cannot prepare descriptor %d from systemd: %s", fd, strerror(e));
        }
        *ret = (Listener) { .fd = fd };
        return 0;
}

void listener_close(Listener *l) {
        struct stat st;

        if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
                (void)unlink(l->path); /* a file that stays is stale, and replaced by the next start */
        l->fd = close_fd(l->fd);
        free(TAKE_PTR(l->path));
}
