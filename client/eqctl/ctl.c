/* SPDX-License-Identifier: MIT */
/* Everything that verbs have in common: global options, messages, the connection and calls over it.
 *
 * Data goes to standard output, talk to standard error. What eqd says is escaped before it is shown. */

#include "eqctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "eqctl/accounts.h"
#include "eqctl/duration.h"
#include "eqctl/text.h"

enum { TIMEOUT_USEC = 30000000 }; /* of calls, as of libeq */

static const char SYSTEM_SOCKET[] = "/run/eqd/eqd.sock";

/* ---- time ---- */

static uint64_t clock_usec(clockid_t clock) {
        struct timespec ts;
        (void)clock_gettime(clock, &ts); /* cannot fail for these clocks */
        return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t wall_usec(void) {
        return clock_usec(CLOCK_REALTIME);
}

uint64_t monotonic_usec(void) {
        return clock_usec(CLOCK_MONOTONIC);
}

/* ---- messages ---- */

static void say(const char *format, va_list ap) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        char text[1024];

        (void)vsnprintf(text, sizeof(text), format, ap); /* cut is fine */
        text_escaped(&b, eq_str(text));
        (void)fflush(stdout); /* keeps the two in order on a terminal */
        (void)fprintf(stderr, "eqctl: %s\n", text_end(&b));
}

void ctl_error(const Ctl *ctl, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        say(format, ap);
        va_end(ap);
}

void ctl_note(const Ctl *ctl, const char *format, ...) {
        va_list ap;

        if (ctl->quiet)
                return;
        va_start(ap, format);
        say(format, ap);
        va_end(ap);
}

void ctl_verbose(const Ctl *ctl, const char *format, ...) {
        va_list ap;

        if (!ctl->verbose || ctl->quiet)
                return;
        va_start(ap, format);
        say(format, ap);
        va_end(ap);
}

int ctl_no_memory(const Ctl *ctl) {
        ctl_error(ctl, "out of memory");
        return EXIT_FAILURE;
}

/* ---- options ---- */

bool ctl_has(const Ctl *ctl, FlagId flag) {
        return options_has(&ctl->options, flag);
}

const char *ctl_get(const Ctl *ctl, FlagId flag) {
        return options_get(&ctl->options, flag);
}

int ctl_get_duration(const Ctl *ctl, FlagId flag, uint64_t *ret_usec) {
        const char *text = ctl_get(ctl, flag);

        if (!text || duration_parse(text, ret_usec) == 0)
                return 0;
        ctl_error(ctl, "--%s: `%s` is no duration; write 10s, 5m, 1h30m, 2d or 500ms", flags[flag].name, text);
        return EXIT_USAGE;
}

int ctl_get_number(const Ctl *ctl, FlagId flag, int64_t min, int64_t max, int64_t *ret) {
        const char *text = ctl_get(ctl, flag);
        char *end;

        if (!text)
                return 0;
        errno = 0;
        long long n = strtoll(text, &end, 10);
        if (errno == 0 && end != text && !*end && n >= min && n <= max) {
                *ret = n;
                return 0;
        }
        ctl_error(ctl, "--%s: `%s` is no number from %lld to %lld", flags[flag].name, text, (long long)min,
                  (long long)max);
        return EXIT_USAGE;
}

int ctl_get_uid(const Ctl *ctl, FlagId flag, uint64_t *ret) {
        const char *text = ctl_get(ctl, flag);

        if (!text)
                return 0;
        if (*text && text[strspn(text, "0123456789")] == 0 && strlen(text) <= 10) {
                int64_t n = 0;
                int status = ctl_get_number(ctl, flag, 0, UINT32_MAX, &n);
                *ret = (uint64_t)n;
                return status;
        }
        uid_t uid;
        if (!account_uid(text, &uid)) {
                ctl_error(ctl, "--%s: no user `%s`", flags[flag].name, text);
                return EXIT_USAGE;
        }
        *ret = uid;
        return 0;
}

/* As sigabbrev_np() of glibc, which is not everywhere. */
static const char *const signal_names[] = {
        [SIGHUP] = "HUP",       [SIGINT] = "INT",   [SIGQUIT] = "QUIT",   [SIGILL] = "ILL",   [SIGTRAP] = "TRAP",
        [SIGABRT] = "ABRT",     [SIGBUS] = "BUS",   [SIGFPE] = "FPE",     [SIGKILL] = "KILL", [SIGUSR1] = "USR1",
        [SIGSEGV] = "SEGV",     [SIGUSR2] = "USR2", [SIGPIPE] = "PIPE",   [SIGALRM] = "ALRM", [SIGTERM] = "TERM",
        [SIGSTKFLT] = "STKFLT", [SIGCHLD] = "CHLD", [SIGCONT] = "CONT",   [SIGSTOP] = "STOP", [SIGTSTP] = "TSTP",
        [SIGTTIN] = "TTIN",     [SIGTTOU] = "TTOU", [SIGURG] = "URG",     [SIGXCPU] = "XCPU", [SIGXFSZ] = "XFSZ",
        [SIGVTALRM] = "VTALRM", [SIGPROF] = "PROF", [SIGWINCH] = "WINCH", [SIGPOLL] = "POLL", [SIGPWR] = "PWR",
        [SIGSYS] = "SYS",
};

const char *signal_name(int sig) {
        return sig > 0 && (size_t)sig < sizeof(signal_names) / sizeof(signal_names[0]) ? signal_names[sig] : NULL;
}

int signal_parse(const char *text, uint64_t *ret) {
        char *end;
        long n = strtol(text, &end, 10);

        if (end != text && !*end && n >= 1 && n <= 64) {
                *ret = (uint64_t)n;
                return 0;
        }
        if (strncasecmp(text, "SIG", 3) == 0)
                text += 3;
        for (int sig = 1; sig <= 64; sig++)
                if (signal_name(sig) && strcasecmp(signal_name(sig), text) == 0) {
                        *ret = (uint64_t)sig;
                        return 0;
                }
        return -EINVAL;
}

int ctl_get_signal(const Ctl *ctl, FlagId flag, uint64_t *ret) {
        const char *text = ctl_get(ctl, flag);

        if (!text || signal_parse(text, ret) == 0)
                return 0;
        ctl_error(ctl, "--%s: no signal `%s`; write TERM, HUP, 15...", flags[flag].name, text);
        return EXIT_USAGE;
}

int ctl_get_descriptor(const Ctl *ctl, FlagId flag, int *ret) {
        int64_t fd = -1;
        int status = ctl_get_number(ctl, flag, 0, 1 << 20, &fd);

        if (status || fd < 0)
                return status;
        if (fcntl((int)fd, F_GETFD) < 0) {
                ctl_error(ctl, "--%s: descriptor %d is not open; a shell opens it so: %d>FILE", flags[flag].name,
                          (int)fd, (int)fd);
                return EXIT_USAGE;
        }
        *ret = (int)fd;
        return 0;
}

static int choose(const Ctl *ctl, const char *text, const char *flag, const char *const *words, int n, int *ret) {
        for (int i = 0; i < n; i++)
                if (strcmp(text, words[i]) == 0) {
                        *ret = i;
                        return 0;
                }
        char list[80];
        int len = 0;
        for (int i = 0; i < n && len < (int)sizeof(list); i++)
                len += snprintf(list + len, sizeof(list) - (size_t)len, "%s%s",
                                i == 0      ? ""
                                : i < n - 1 ? ", "
                                            : " or ",
                                words[i]);
        ctl_error(ctl, "--%s: `%s`; it is %s", flag, text, list);
        return EXIT_USAGE;
}

static int init_format(Ctl *ctl) {
        static const char *const names[] = { "table", "wide", "json", "jsonl", "tsv", "id" };
        const char *text = ctl_get(ctl, FLAG_output);
        int format = ctl_has(ctl, FLAG_json) ? FORMAT_JSONL : FORMAT_TABLE;

        int status = text ? choose(ctl, text, "output", names, _FORMAT_MAX, &format) : 0;
        ctl->format = (Format)format;
        if (status)
                return status;
        if (ctl_has(ctl, FLAG_json) && !ctl_wants_json(ctl)) {
                ctl_error(ctl, "--json is -o jsonl, which -o %s is not; give one of them", text);
                return EXIT_USAGE;
        }
        if (ctl_has(ctl, FLAG_columns) && (ctl_wants_json(ctl) || format == FORMAT_ID)) {
                ctl_error(ctl, "--columns chooses those of table, wide and tsv; -o %s has none: leave out one of them",
                          names[format]);
                return EXIT_USAGE;
        }
        return 0;
}

static int init_terminal(Ctl *ctl) {
        static const char *const names[] = { "auto", "always", "never" };
        const char *text = ctl_get(ctl, FLAG_color), *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
        struct winsize ws;
        bool tty = isatty(STDOUT_FILENO);
        int when = 0;

        int status = text ? choose(ctl, text, "color", names, 3, &when) : 0;
        ctl->color =
                when == 1 || (when == 0 && tty && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0));
        if (tty)
                ctl->columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0 ? ws.ws_col : 80;
        return status;
}

static bool is_local(VerbId verb) {
        return verb == VERB_stdio || verb == VERB_store_check || verb == VERB_store_dump || verb == VERB_store_stat;
}

static int init_host(Ctl *ctl) {
        const char *url = ctl_get(ctl, FLAG_host);
        VerbId verb = ctl->options.verb;

        if (ctl_has(ctl, FLAG_socket) || ctl_has(ctl, FLAG_system) || ctl_has(ctl, FLAG_user_instance)) {
                ctl_error(ctl,
                          "--host: which eqd there is what eqctl there takes; --socket, --system and --user do not "
                          "go with it");
                return EXIT_USAGE;
        }
        if (is_local(verb)) {
                ctl_error(ctl, "--host: not with %s, which is about this machine; use `ssh HOST eqctl %s`",
                          verbs[verb].name, verbs[verb].name);
                return EXIT_USAGE;
        }
        ctl->where = ctl->host.url;
        if (host_parse(&ctl->host, url) == 0)
                return 0;
        ctl_error(ctl, "--host: `%s`; write ssh://[USER@]HOST[:PORT]", url);
        return EXIT_USAGE;
}

static int init_socket(Ctl *ctl) {
        const char *path = ctl_get(ctl, FLAG_socket);
        const char *dir = getenv("XDG_RUNTIME_DIR");
        char buf[108];

        if (ctl_has(ctl, FLAG_host))
                return init_host(ctl);
        if ((path != NULL) + ctl_has(ctl, FLAG_system) + ctl_has(ctl, FLAG_user_instance) > 1) {
                ctl_error(ctl, "--socket, --system and --user each name an eqd; give one of them");
                return EXIT_USAGE;
        }
        ctl->where = ctl->socket;
        if (path && !*path) { /* "$UNSET": it must not lead to an eqd that nobody named */
                ctl_error(ctl, "--socket: the path is empty");
                return EXIT_USAGE;
        }
        if (!path && ctl_has(ctl, FLAG_system))
                path = SYSTEM_SOCKET;
        else if (!path && ctl_has(ctl, FLAG_user_instance)) {
                if (!dir || !*dir) {
                        ctl_error(ctl, "--user: XDG_RUNTIME_DIR is not set, so there is no user instance; name its "
                                       "socket with -S");
                        return EXIT_NO_DAEMON;
                }
                (void)snprintf(buf, sizeof(buf), "%s/eqd/eqd.sock", dir); /* too long: refused below or by connect */
                path = buf;
        }
        if (eq_client_default_path(path, ctl->socket, sizeof(ctl->socket)) == 0)
                return 0;
        ctl_error(ctl,
                  "the path of the socket is longer than 107 bytes; use a shorter one: ./NAME in its directory, or a "
                  "symbolic link to that");
        return EXIT_USAGE;
}

int ctl_init(Ctl *ctl, int argc, char **argv) {
        int r = options_parse(argc, argv, &ctl->options);

        ctl->quiet = ctl_has(ctl, FLAG_quiet);
        ctl->verbose = ctl_has(ctl, FLAG_verbose);
        ctl->headers = !ctl_has(ctl, FLAG_no_headers);
        if (r == -ENOMEM)
                return ctl_no_memory(ctl);
        if (r < 0) {
                ctl_error(ctl, "%s", ctl->options.error);
                return EXIT_USAGE;
        }
        int status = init_format(ctl);
        if (status == 0)
                status = init_terminal(ctl);
        return status ? status : init_socket(ctl);
}

/* ---- connection ---- */

static int denied(const Ctl *ctl, int error) {
        char group[ACCOUNT_NAME_SIZE];
        struct stat st;

        if (stat(ctl->socket, &st) == 0 && st.st_mode & S_IWGRP && st.st_gid != 0 &&
            account_group_name(st.st_gid, group))
                ctl_error(ctl,
                          "not permitted to use %s: %s. It is for the members of group %s; root makes you one with "
                          "`usermod -aG %s USER`, which counts from your next login on",
                          ctl->socket, strerror(error), group, group);
        else
                ctl_error(ctl, "not permitted to use %s: %s. Name another socket with -S or EQD_SOCKET", ctl->socket,
                          strerror(error));
        return EXIT_NO_PERMISSION;
}

/* Root is led to the system's eqd, and may have started one as his own. */
static bool find_user_instance(const Ctl *ctl, char *ret, size_t size) {
        const char *dir = getenv("XDG_RUNTIME_DIR");

        if (!dir || !*dir || strcmp(ctl->socket, SYSTEM_SOCKET) != 0)
                return false;
        (void)snprintf(ret, size, "%s/eqd/eqd.sock", dir); /* a cut path is nowhere */
        return access(ret, F_OK) == 0;
}

/* The program is one thing that may fail, the way to the host another: it is there when eqd has answered. How long that takes, with
 * a password to be typed, is up to the program. */
static int open_host(Ctl *ctl) {
        bool ignore_int = flag_on(&flags[FLAG_kill_on_int], ctl->options.verb); /* those verbs do something about ^C */
        int fd;

        host_end(&ctl->host); /* of a connection before */
        int r = host_start(&ctl->host, ignore_int, &fd);
        if (r < 0)
                return r;
        r = eq_client_open_fd(&ctl->client, fd);
        if (r < 0) {
                (void)close(fd); /* ours again */
                return r;
        }
        eq_client_set_timeout(ctl->client, EQ_TIMEOUT_NEVER);
        r = eq_ping(ctl->client);
        eq_client_set_timeout(ctl->client, TIMEOUT_USEC);
        if (r < 0)
                ctl->client = eq_client_close(ctl->client);
        else
                ctl->broken = true; /* once it ends: nothing will bring it back */
        return r;
}

int ctl_open(Ctl *ctl) {
        if (ctl->client)
                return 0;
        return ctl_has_host(ctl) ? open_host(ctl) : eq_client_open(&ctl->client, ctl->socket);
}

static int host_failed(Ctl *ctl, int r) {
        bool started = ctl->host.pid > 0;

        host_end(&ctl->host); /* before we speak: it may have something to say as well */
        if (!started)
                ctl_error(ctl, "cannot run %s: %s", host_program(), strerror(-r));
        else if (r == -EBADMSG)
                ctl_error(ctl,
                          "what answers at %s does not speak eqd's protocol; does a shell there print something "
                          "before it runs a command?",
                          ctl->where);
        else
                ctl_error(ctl, "no eqd answers at %s: %s ended before it did. Does `ssh HOST eqctl ping` work?",
                          ctl->where, host_program());
        return EXIT_NO_DAEMON;
}

int ctl_connect(Ctl *ctl) {
        char own[108];
        int r = ctl_open(ctl);

        if (r == 0)
                return 0;
        if (ctl_has_host(ctl))
                return host_failed(ctl, r);
        if (r == -EACCES || r == -EPERM)
                return denied(ctl, -r);
        if (find_user_instance(ctl, own, sizeof(own))) {
                ctl_error(ctl, "no eqd answers at %s: %s; there is one of yours, at %s: use --user", ctl->socket,
                          strerror(-r), own);
                return EXIT_NO_DAEMON;
        }
        ctl_error(ctl,
                  "no eqd answers at %s: %s. Start it with `systemctl start eqd` (or `systemctl --user start eqd`), "
                  "or name another socket with -S or EQD_SOCKET",
                  ctl->socket, strerror(-r));
        return EXIT_NO_DAEMON;
}

void ctl_on_link(eq_client *c, eq_link event, int r, void *userdata) {
        Ctl *ctl = userdata;
        ctl->broken = event == EQ_LINK_BROKEN;
        if (event == EQ_LINK_LOST)
                ctl_note(ctl, "lost the connection to eqd; trying again for %d s", (int)(ctl->give_up_usec / 1000000));
        else if (event == EQ_LINK_BACK)
                ctl_note(ctl, "%s", ctl->back);
}

int ctl_connect_lasting(Ctl *ctl, const char *back) {
        eq_reconnect policy = EQ_RECONNECT_INIT;
        int status = ctl_connect(ctl);
        if (status || ctl_has_host(ctl))
                return status;
        ctl->back = back;
        policy.give_up_usec = ctl->give_up_usec;
        eq_client_set_link(ctl->client, ctl_on_link, ctl);
        int r = eq_client_set_reconnect(ctl->client, &policy);
        return r < 0 ? ctl_fail(ctl, r) : 0;
}

int ctl_lasting_fail(Ctl *ctl, int r) {
        if (!ctl_is_lost(r))
                return ctl_fail(ctl, r);
        if (ctl_has_host(ctl))
                ctl_error(ctl, "lost the connection to eqd at %s", ctl->where);
        else
                ctl_error(ctl, "eqd did not come back at %s", ctl->where);
        return EXIT_TEMPORARY;
}

/* ---- calls ---- */

int ctl_fail(Ctl *ctl, int r) {
        const char *text;

        if (r == -EREMOTEIO) {
                eq_error code = eq_client_get_error(ctl->client, &text);
                ctl_error(ctl, "%s", *text ? text : eq_error_name(code));
                return eq_error_exit_status(code);
        }
        if (r == -ENOMEM)
                return ctl_no_memory(ctl);
        if (r == -EMSGSIZE) {
                ctl_error(ctl, "too large: a message holds at most %d bytes, a payload %d", EQ_MESSAGE_MAX,
                          EQ_PAYLOAD_MAX);
                return EXIT_USAGE;
        }
        if (r == -ETIMEDOUT)
                ctl_error(ctl, "eqd at %s did not answer in time", ctl->where);
        else if (r == -EBADMSG)
                ctl_error(ctl, "what answers at %s does not speak eqd's protocol", ctl->where);
        else
                ctl_error(ctl, "lost the connection to eqd at %s: %s", ctl->where, strerror(-r));
        return EXIT_NO_DAEMON;
}

int ctl_list_each(Ctl *ctl, EqList *list, CtlTaskFn fn, void *userdata) {
        EqDecodeError error;
        EqBytes row;
        bool end;

        do {
                _cleanup_reply_ eq_reply *reply = NULL;
                int status = ctl_call(ctl, EQ_METHOD_LIST, list, &reply);
                if (status)
                        return status;
                EqArray rows = reply_rows(reply);
                end = reply_is_last_page(reply);
                while (eq_next_raw(&rows, &row) == 1) {
                        EqTask t = { 0 };
                        if (eq_decode_map(&eq_schema_Task, row, &t, &error) < 0)
                                return ctl_fail(ctl, -EBADMSG);
                        EQ_SET(list, List, from, (EqIdRef) { .id = t.id.id });
                        status = fn(ctl, &t, userdata);
                        if (status)
                                return status;
                }
        } while (!end);
        return 0;
}

int ctl_params(EqMethodId method, const void *params, EqBuffer *ret) {
        static const EqNothing nothing;
        msgpack_packer pk = eq_packer(ret);

        eq_pack_params(&pk, eq_methods[method].params, params ? params : (const void *)&nothing);
        return ret->failed ? -ENOMEM : 0;
}

int ctl_try(Ctl *ctl, EqMethodId method, const void *params, eq_reply **ret) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        _cleanup_reply_ eq_reply *reply = NULL;

        int r = ctl_params(method, params, &b);
        if (r < 0)
                return r;
        r = eq_client_call(ctl->client, eq_methods[method].name, b.data, b.len, &reply);
        if (ret) {
                *ret = reply;
                reply = NULL;
        }
        return r;
}

int ctl_call(Ctl *ctl, EqMethodId method, const void *params, eq_reply **ret) {
        int status = ctl_connect(ctl);
        if (status)
                return status;
        int r = ctl_try(ctl, method, params, ret);
        return r < 0 ? ctl_fail(ctl, r) : 0;
}

int ctl_call_waiting(Ctl *ctl, EqMethodId method, const void *params, eq_reply **ret) {
        int status = ctl_connect_lasting(ctl, "connected again"), r;
        if (status)
                return status;
        eq_client_set_timeout(ctl->client, EQ_TIMEOUT_NEVER);
        do
                r = ctl_try(ctl, method, params, ret);
        while (r == -ECONNRESET && !ctl->broken); /* it may have been carried out: that does no harm to what waits */
        return r < 0 ? ctl_lasting_fail(ctl, r) : 0;
}

EqBytes reply_result(const eq_reply *reply) {
        size_t n;
        const void *p = eq_reply_get_result(reply, &n);
        return eq_bytes(p, n);
}

EqArray reply_rows(const eq_reply *reply) {
        EqArray rows = { 0 };

        (void)eq_get_array(reply_result(reply), &rows); /* else it stays empty */
        return rows;
}

bool reply_is_last_page(const eq_reply *reply) {
        uint32_t n = reply_rows(reply).n;

        return n == 0 || (n < EQ_LIST_MAX && reply_result(reply).len < EQ_MESSAGE_MAX / 4);
}

/* One page; last[] becomes the name of its last row: the reply that the row lies in goes. */
static int queue_page(Ctl *ctl, char last[static EQ_NAME_MAX + 1], QueueFn fn, void *userdata) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqQueueList rec = { 0 };
        EqQueue q = { 0 };
        EqBytes row;

        if (last[0])
                EQ_SET(&rec, QueueList, from, eq_str(last));
        int r = ctl_try(ctl, EQ_METHOD_QUEUE_LIST, &rec, &reply);
        if (r < 0)
                return r;
        for (EqArray rows = reply_rows(reply); eq_next_raw(&rows, &row) == 1;) {
                q = (EqQueue) { 0 };
                if (eq_decode_map(&eq_schema_Queue, row, &q, &error) < 0)
                        return -EBADMSG;
                fn(&q, userdata);
        }
        if (reply_is_last_page(reply))
                return 0;
        /* The page must lead on, else this would never end. */
        if (q.name.len == 0 || q.name.len > EQ_NAME_MAX || eq_bytes_eq(q.name, eq_str(last)))
                return -EBADMSG;
        memcpy(last, q.name.data, q.name.len);
        last[q.name.len] = 0;
        return 1;
}

int ctl_each_queue(Ctl *ctl, QueueFn fn, void *userdata) {
        char last[EQ_NAME_MAX + 1] = "";
        int r;

        do
                r = queue_page(ctl, last, fn, userdata);
        while (r > 0);
        return r;
}

int ctl_ids(const Ctl *ctl, const char *const *texts, size_t n, EqBuffer *ret_raw, EqArray *ret) {
        msgpack_packer pk = eq_packer(ret_raw);

        for (size_t i = 0; i < n; i++) {
                EqBytes queue;
                uint64_t seq;
                if (eq_id_parse(eq_str(texts[i]), &queue, &seq) < 0) {
                        ctl_error(ctl, "`%s` is no task id; ids look like encode/42", texts[i]);
                        return EXIT_USAGE;
                }
                eq_pack_cstr(&pk, texts[i]);
        }
        if (ret_raw->failed)
                return ctl_no_memory(ctl);
        *ret = (EqArray) { .raw = eq_bytes(ret_raw->data, ret_raw->len), .n = (uint32_t)n };
        return 0;
}

int ctl_attributes(const Ctl *ctl, const char *page, EqBuffer *ret_raw, EqArray *ret) {
        msgpack_packer pk = eq_packer(ret_raw);

        for (size_t i = 1; i < ctl->options.n_operands; i++) {
                if (!strchr(ctl->options.operands[i], '=')) {
                        ctl_error(ctl, "`%s`: attributes are KEY=VALUE; see %s", ctl->options.operands[i], page);
                        return EXIT_USAGE;
                }
                eq_pack_cstr(&pk, ctl->options.operands[i]);
        }
        *ret = (EqArray) { .raw = eq_bytes(ret_raw->data, ret_raw->len), .n = (uint32_t)ctl->options.n_operands - 1 };
        return ret_raw->failed ? ctl_no_memory(ctl) : 0;
}
