/* SPDX-License-Identifier: MIT */
#include "eqctl/storetool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eqctl/program.h"
#include "proto/scan.h"

enum { STATUS_UNREAD = 2, ARGS_MAX = 16, READ_BYTES = 64 * 1024, ROW_MAX = 64 << 20 };

/* It lies in the tree of an uninstalled eqctl (build/client/ and build/daemon/storetool/), else in the libexec directory. */
static const char *find_tool(char buf[static PATH_MAX]) {
        static const char installed[] = EQD_LIBEXECDIR "/eqd-store";
        ssize_t n = readlink("/proc/self/exe", buf, PATH_MAX - 64);
        if (n <= 0)
                return installed;
        buf[n] = '\0';
        char *slash = strrchr(buf, '/');
        strcpy(slash, "/../daemon/storetool/eqd-store");
        return access(buf, X_OK) == 0 ? buf : installed;
}

/* *ret_fd: what it writes. */
static int start(Ctl *ctl, const char *const argv[], pid_t *ret_pid, int *ret_fd) {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0) {
                ctl_error(ctl, "cannot make a pipe: %m");
                return EXIT_FAILURE;
        }
        int r = program_start(argv, (int[]) { -1, fds[1], -1 }, ret_pid);
        (void)close(fds[1]); /* Linux frees the number whatever it returns; here and below */
        if (r == 0) {
                *ret_fd = fds[0];
                return 0;
        }
        (void)close(fds[0]);
        ctl_error(ctl, "cannot run %s: %s; it comes with eqd: install that", argv[0], strerror(-r));
        return EXIT_FAILURE;
}

static const EqSchema *find_schema(EqBytes name) {
        for (int i = 0; i < _EQ_SCHEMA_MAX; i++)
                if (eq_bytes_eq(eq_str(eq_schemas[i]->name), name))
                        return eq_schemas[i];
        return NULL;
}

static int take_row(Ctl *ctl, EqBytes raw, StoreRowFn fn, void *userdata) {
        EqArray it;
        EqBytes name, row, text;
        if (eq_get_array(raw, &it) < 0 || eq_next_bytes(&it, &name) != 1 || eq_next_raw(&it, &row) != 1)
                return ctl_fail(ctl, -EBADMSG);
        if (eq_bytes_eq(name, eq_str("failed"))) {
                if (eq_get_bytes(row, &text) >= 0)
                        ctl_error(ctl, "%.*s", (int)text.len, text.data);
                return 0; /* its exit status says so */
        }
        const EqSchema *schema = find_schema(name);
        return schema ? fn(ctl, schema, row, userdata) : 0; /* of another version */
}

/* The whole rows at the front of b; they go. */
static int take_rows(Ctl *ctl, EqBuffer *b, StoreRowFn fn, void *userdata) {
        size_t done = 0;
        int status = 0;
        while (!status && done < b->len) {
                EqScan scan = EQ_SCAN_NULL;
                int r = eq_scan(&scan, b->data + done, b->len - done, ROW_MAX);
                if (r == EQ_SCAN_MORE)
                        break;
                status = r < 0 ? ctl_fail(ctl, r) : take_row(ctl, eq_bytes(b->data + done, scan.pos), fn, userdata);
                done += r < 0 ? 0 : scan.pos;
        }
        eq_buffer_consume(b, done);
        return status;
}

/* To its end, or as far as it goes now if fd does not block. b: a row that is not whole yet. */
static int read_rows(Ctl *ctl, int fd, EqBuffer *b, StoreRowFn fn, void *userdata) {
        for (int status = 0;;) {
                if (eq_buffer_reserve(b, READ_BYTES) < 0)
                        return ctl_no_memory(ctl);
                ssize_t n = read(fd, b->data + b->len, READ_BYTES);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return 0;
                b->len += (size_t)n;
                status = take_rows(ctl, b, fn, userdata);
                if (status)
                        return status;
        }
}

int store_tool(Ctl *ctl, const char *verb, const char *dir, const char *const *args, StoreRowFn fn, void *userdata) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        char path[PATH_MAX];
        const char *argv[ARGS_MAX + 5] = { find_tool(path) };
        size_t n = 1;
        pid_t pid;
        int fd, wstatus;
        for (; *args && n < ARGS_MAX; args++)
                argv[n++] = *args;
        argv[n++] = "--";
        argv[n++] = verb;
        argv[n++] = dir;
        int status = start(ctl, argv, &pid, &fd);
        if (status)
                return status;
        status = read_rows(ctl, fd, &b, fn, userdata);
        (void)close(fd); /* what it has not written goes nowhere: then it ends */
        while (waitpid(pid, &wstatus, 0) < 0 && errno == EINTR)
                ;
        if (status)
                return status;
        if (WIFEXITED(wstatus))
                return WEXITSTATUS(wstatus);
        ctl_error(ctl, "%s was ended by signal %d", argv[0], WTERMSIG(wstatus));
        return STATUS_UNREAD;
}

/* ---- by eqd ---- */

typedef struct Answer {
        bool done;
        int r;
        EqStoreReadReply reply;
} Answer;

static void on_answer(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        EqDecodeError error;
        Answer *a = userdata;
        a->done = true;
        a->r = r;
        if (r == 0 && eq_decode_map(&eq_schema_StoreReadReply, reply_result(reply), &a->reply, &error) < 0)
                a->r = -EBADMSG;
}

/* Its write end is eqd's alone once the request is sent, unless libeq keeps one: so the end is the answer, and not that of the pipe. */
static int ask_eqd(Ctl *ctl, const EqStoreRead *what, int out_fd, Answer *a) {
        _cleanup_buffer_ EqBuffer params = EQ_BUFFER_NULL;
        int r = ctl_params(EQ_METHOD_STORE_READ, what, &params);
        return r < 0 ? r
                     : eq_client_call_start(ctl->client, "store_read", params.data, params.len, &out_fd, 1, on_answer,
                                            a, NULL);
}

/* Until eqd or the rows have something to say. */
static int turn(Ctl *ctl, int fd) {
        struct pollfd p[] = {
                { .fd = fd, .events = POLLIN },
                { .fd = eq_client_get_fd(ctl->client), .events = (short)eq_client_get_events(ctl->client) },
        };
        (void)poll(p, 2, -1); /* both are looked at without waiting, anyway */
        return eq_client_dispatch(ctl->client, 0);
}

static int take_answer(Ctl *ctl, const Answer *a) {
        int status = a->r < 0 ? ctl_fail(ctl, a->r) : (int)a->reply.status;
        return a->r < 0 && status == EXIT_FAILURE ? STATUS_UNREAD : status;
}

/* fds[0] is read without waiting; who writes may wait. */
static int open_pipe(int fds[static 2]) {
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -1;
        if (fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0)
                return 0;
        int error = errno;
        (void)close(fds[0]);
        (void)close(fds[1]);
        errno = error;
        return -1;
}

int store_tool_by_eqd(Ctl *ctl, const EqStoreRead *what, StoreRowFn fn, void *userdata) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        Answer a = { 0 };
        int fds[2], status = 0;
        if (open_pipe(fds) < 0) {
                ctl_error(ctl, "cannot make a pipe: %m");
                return STATUS_UNREAD;
        }
        int r = ask_eqd(ctl, what, fds[1], &a);
        while (r >= 0 && !a.done && !status) {
                r = turn(ctl, fds[0]);
                status = read_rows(ctl, fds[0], &b, fn, userdata);
        }
        if (!status && a.done) /* what was written before the answer came */
                status = read_rows(ctl, fds[0], &b, fn, userdata);
        (void)close(fds[0]);
        (void)close(fds[1]);
        if (status)
                return status;
        return a.done ? take_answer(ctl, &a) : ctl_fail(ctl, r);
}
