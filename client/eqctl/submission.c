/* SPDX-License-Identifier: MIT */
/* The environment of a task is an allow-list of eqctl's own; nothing else of the caller's shell leaks into a command that
 * may run tomorrow. Paths are made absolute here, since eqd has another working directory. */

#include "eqctl/submission.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "eqctl/duration.h"
#include "eqctl/text.h"

extern char **environ;

static const char *const allowed_env[] = { "PATH", "HOME", "USER",   "LOGNAME",         "SHELL", "LANG",
                                           "TZ",   "TERM", "TMPDIR", "XDG_RUNTIME_DIR", NULL };

/* ---- parsing ---- */

bool replace_braces(EqBuffer *b, const char *text, const char *word) {
        bool found = false;
        const char *p;

        for (; (p = strstr(text, "{}")); text = p + 2, found = true) {
                text_bytes(b, eq_bytes(text, (size_t)(p - text)));
                text_cstr(b, word);
        }
        text_cstr(b, text);
        return found;
}

static int number(const char **p, uint64_t *ret) {
        char *end;

        if (**p < '0' || **p > '9')
                return -EINVAL;
        errno = 0;
        *ret = strtoull(*p, &end, 10);
        *p = end;
        return errno ? -EINVAL : 0;
}

int array_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last, uint64_t *ret_step, uint64_t *ret_limit) {
        uint64_t first, last, step = 1, limit = 0;

        if (number(&text, &first) < 0)
                return -EINVAL;
        last = first;
        if (*text == '-' && (text++, number(&text, &last)) < 0)
                return -EINVAL;
        if (*text == ':' && (text++, number(&text, &step)) < 0)
                return -EINVAL;
        if (*text == '%' && ((text++, number(&text, &limit)) < 0 || limit == 0 || limit > UINT32_MAX))
                return -EINVAL;
        if (*text || last < first || step == 0 || last > EQ_SEQ_MAX)
                return -EINVAL;
        *ret_first = first;
        *ret_last = last;
        *ret_step = step;
        *ret_limit = limit;
        return 0;
}

int queues_parse(const char *text, EqBytes *ret_first, EqBuffer *others, uint32_t *ret_n, EqBytes *ret_bad) {
        msgpack_packer pk = eq_packer(others);
        size_t n = strcspn(text, ",");

        *ret_n = 0;
        for (*ret_first = *ret_bad = eq_bytes(text, n); eq_name_valid(*ret_bad); *ret_bad = eq_bytes(text, n)) {
                if (*ret_n > 0 || text != ret_first->data) {
                        eq_pack_str(&pk, *ret_bad);
                        ++*ret_n;
                }
                if (!text[n])
                        return 0;
                text += n + 1;
                n = strcspn(text, ",");
        }
        return -EINVAL;
}

static int after_one(EqBytes part, EqBuffer ids[3], uint32_t n_ids[3]) {
        static const char *const kinds[] = { "ok:", "any:", "fail:" };
        EqBytes queue;
        uint64_t seq;
        int kind = 0;

        for (int i = 0; i < 3; i++) {
                uint32_t n = (uint32_t)strlen(kinds[i]);
                if (part.len > n && memcmp(part.data, kinds[i], n) == 0) {
                        kind = i;
                        part = eq_bytes(part.data + n, part.len - n);
                        break;
                }
        }
        if (eq_id_parse(part, &queue, &seq) < 0)
                return -EINVAL;
        msgpack_packer pk = eq_packer(&ids[kind]);
        eq_pack_str(&pk, part);
        n_ids[kind]++;
        return 0;
}

int after_parse(const char *text, EqBuffer ids[3], uint32_t n_ids[3], EqBytes *ret_bad) {
        for (;;) {
                size_t n = strcspn(text, ",");
                *ret_bad = eq_bytes(text, n);
                if (after_one(*ret_bad, ids, n_ids) < 0)
                        return -EINVAL;
                if (!text[n])
                        return 0;
                text += n + 1;
        }
}

int backoff_parse(const char *text, uint64_t *ret_first, uint64_t *ret_longest) {
        char buf[80];

        if (strncmp(text, "exp:", 4) == 0)
                text += 4;
        if (strlen(text) >= sizeof(buf))
                return -EINVAL;
        (void)snprintf(buf, sizeof(buf), "%s", text);
        char *colon = strchr(buf, ':');
        if (colon)
                *colon++ = 0;
        *ret_longest = 0;
        if (duration_parse(buf, ret_first) < 0 || (colon && duration_parse(colon, ret_longest) < 0))
                return -EINVAL;
        return 0;
}

/* ---- options, group by group; each 0 or the exit status ---- */

/* What is about the end of the task, which only those who wait for it see. */
static int check_wait(Submission *s) {
        static const FlagId of_waits[] = { FLAG_kill_on_int, FLAG_status_fd };
        int fd;

        for (size_t i = 0; i < sizeof(of_waits) / sizeof(of_waits[0]) && !s->wait; i++)
                if (ctl_has(s->ctl, of_waits[i])) {
                        ctl_error(s->ctl, "--%s is about the end of the task; give --wait or --follow, too",
                                  flags[of_waits[i]].name);
                        return EXIT_USAGE;
                }
        if (s->wait && ctl_has(s->ctl, FLAG_id_only)) {
                ctl_error(s->ctl, "--id-only: who waits for the task gets no id; leave out one of them");
                return EXIT_USAGE;
        }
        return ctl_get_descriptor(s->ctl, FLAG_status_fd, &fd);
}

/* The first is its own; it holds the others too. */
static int set_queues(Submission *s) {
        const char *text = ctl_get(s->ctl, FLAG_queue);
        EqBytes first, bad;
        uint32_t n = 0;

        s->queue = text ? text : "default";
        if (queues_parse(s->queue, &first, &s->also, &n, &bad) < 0) {
                ctl_error(s->ctl,
                          "`%.*s` is no name of a queue: 1 to 31 of A-Z a-z 0-9 . _ @ -, not starting with . or -",
                          (int)bad.len, bad.data);
                return EXIT_USAGE;
        }
        if (n == 0)
                return 0;
        if (submission_is_many(s)) {
                ctl_error(s->ctl, "-q %s: a task over several queues is submitted alone, without --array or --each",
                          text);
                return EXIT_USAGE;
        }
        s->home = strndup(first.data, first.len);
        s->queue = s->home;
        EQ_SET(&s->common, Submit, also, (EqArray) { .raw = eq_bytes(s->also.data, s->also.len), .n = n });
        if (s->home && !s->also.failed)
                return 0;
        return ctl_no_memory(s->ctl);
}

static int set_text(Submission *s) {
        const char *label = ctl_get(s->ctl, FLAG_label), *mime = ctl_get(s->ctl, FLAG_mime);

        if (label && (strlen(label) > EQ_LABEL_MAX || !eq_text_valid(eq_str(label)))) {
                ctl_error(s->ctl, "--label: UTF-8 without control characters, at most %d bytes", EQ_LABEL_MAX);
                return EXIT_USAGE;
        }
        if (label)
                EQ_SET(&s->common, Submit, label, eq_str(label));
        if (mime && !ctl_has(s->ctl, FLAG_payload) && !ctl_has(s->ctl, FLAG_stdin)) {
                ctl_error(s->ctl, "--mime says what a payload is; give --payload");
                return EXIT_USAGE;
        }
        if (mime)
                EQ_SET(&s->common, Submit, mime, eq_str(mime));
        return 0;
}

static int set_times(Submission *s) {
        const Ctl *ctl = s->ctl;
        EqSubmit *c = &s->common;
        const char *at = ctl_get(ctl, FLAG_at);
        uint64_t v = 0;
        int status = 0;

        if (at && time_parse(at, wall_usec(), TIME_FUTURE, &v) < 0) {
                ctl_error(ctl,
                          "--at: `%s` is no time; write 22:30, \"tomorrow 22:30\", \"2030-01-31 22:30\", now+5m or "
                          "@EPOCH",
                          at);
                return EXIT_USAGE;
        }
        if (at)
                EQ_SET(c, Submit, at_usec, v);
#define TAKE_DURATION(flag, member)                                                                                    \
        if (!status && ctl_has(ctl, FLAG_##flag) && !(status = ctl_get_duration(ctl, FLAG_##flag, &v)))                \
        EQ_SET(c, Submit, member, v)
        TAKE_DURATION(in, delay_usec);
        TAKE_DURATION(expire, expire_usec);
        TAKE_DURATION(timeout, timeout_usec);
        TAKE_DURATION(grace, grace_usec);
        TAKE_DURATION(wait_space, block_usec);
        return status;
}

static int set_numbers(Submission *s) {
        const Ctl *ctl = s->ctl;
        EqSubmit *c = &s->common;
        const char *text = ctl_get(ctl, FLAG_umask), *backoff = ctl_get(ctl, FLAG_backoff);
        int64_t retries = 0, nice = 0;
        char *end;

        int status = ctl_get_number(ctl, FLAG_retries, 0, 1000, &retries);
        if (!status)
                status = ctl_get_number(ctl, FLAG_nice, -20, 19, &nice);
        if (status)
                return status;
        if (ctl_has(ctl, FLAG_retries))
                EQ_SET(c, Submit, retries, (uint64_t)retries);
        if (ctl_has(ctl, FLAG_nice))
                EQ_SET(c, Submit, nice, nice);
        if (ctl_has(ctl, FLAG_ionice))
                EQ_SET(c, Submit, ionice, eq_str(ctl_get(ctl, FLAG_ionice)));
        if (backoff && backoff_parse(backoff, &c->backoff_usec, &c->backoff_max_usec) < 0) {
                ctl_error(ctl, "--backoff: `%s`; write exp:FIRST:LONGEST, as exp:1s:10m", backoff);
                return EXIT_USAGE;
        }
        if (backoff)
                c->present |= EQ_BIT(Submit, backoff_usec);
        if (c->backoff_max_usec)
                c->present |= EQ_BIT(Submit, backoff_max_usec);

        mode_t mask = umask(0);
        (void)umask(mask); /* always succeeds */
        if (text) {
                unsigned long m = strtoul(text, &end, 8);
                if (end == text || *end || m > 0777) {
                        ctl_error(ctl, "--umask: `%s` is no octal mode up to 777", text);
                        return EXIT_USAGE;
                }
                mask = (mode_t)m;
        }
        EQ_SET(c, Submit, umask, mask & 0777);
        return 0;
}

static void set_flags(Submission *s) {
        EqSubmit *c = &s->common;

        if (ctl_has(s->ctl, FLAG_urgent))
                EQ_SET(c, Submit, urgent, true);
        if (ctl_has(s->ctl, FLAG_hold))
                EQ_SET(c, Submit, hold, true);
        if (ctl_has(s->ctl, FLAG_merge))
                EQ_SET(c, Submit, merge, true);
}

/* *ret is owned; NULL without memory. */
static char *absolute(const char *cwd, const char *path) {
        char *p = NULL;

        if (path[0] == '/')
                return strdup(path);
        return asprintf(&p, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path) < 0 ? NULL : p;
}

static int set_paths(Submission *s) {
        const char *dir = ctl_get(s->ctl, FLAG_chdir), *out = ctl_get(s->ctl, FLAG_stdout);
        const char *err = ctl_get(s->ctl, FLAG_stderr);

        if (err && ctl_has(s->ctl, FLAG_merge)) {
                ctl_error(s->ctl,
                          "--stderr: with --merge standard error goes where standard output does; leave out one "
                          "of them");
                return EXIT_USAGE;
        }
        char *here = getcwd(NULL, 0);
        if (!here) {
                ctl_error(s->ctl, "cannot tell the present directory: %m; name one with -C");
                if (!dir || dir[0] != '/')
                        return EXIT_FAILURE;
        }
        s->cwd = dir ? absolute(here, dir) : here;
        s->stdout_path = out ? absolute(here ? here : "/", out) : NULL;
        s->stderr_path = err ? absolute(here ? here : "/", err) : NULL;
        if (s->cwd != here)
                free(here);
        if (!s->cwd || (out && !s->stdout_path) || (err && !s->stderr_path))
                return ctl_no_memory(s->ctl);
        EQ_SET(&s->common, Submit, cwd, eq_str(s->cwd));
        if (out)
                EQ_SET(&s->common, Submit, stdout_path, eq_str(s->stdout_path));
        if (err)
                EQ_SET(&s->common, Submit, stderr_path, eq_str(s->stderr_path));
        return 0;
}

/* ---- environment ---- */

static size_t key_length(const char *s) {
        return strcspn(s, "=");
}

static bool is_allowed(const char *variable) {
        size_t n = key_length(variable);

        if (strncmp(variable, "LC_", 3) == 0)
                return true;
        for (const char *const *a = allowed_env; *a; a++)
                if (strlen(*a) == n && memcmp(*a, variable, n) == 0)
                        return true;
        return false;
}

/* A later --env of the same key wins over what was there. */
static bool is_overridden(const Ctl *ctl, const char *variable, size_t from) {
        size_t n = key_length(variable);

        for (size_t i = from; i < ctl->options.n; i++) {
                const Option *o = &ctl->options.list[i];
                if (o->flag == FLAG_env && key_length(o->value) == n && memcmp(o->value, variable, n) == 0)
                        return true;
        }
        return false;
}

static int add_option_env(Submission *s, const char *value, uint32_t *n) {
        msgpack_packer pk = eq_packer(&s->env);
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        const char *present;

        if (key_length(value) == 0) {
                ctl_error(s->ctl, "--env: `%s` has no name; write KEY=VALUE, or KEY for its present value", value);
                return EXIT_USAGE;
        }
        if (strchr(value, '=')) {
                eq_pack_cstr(&pk, value);
                (*n)++;
        } else if ((present = getenv(value))) {
                text_printf(&b, "%s=%s", value, present);
                eq_pack_cstr(&pk, text_end(&b));
                (*n)++;
        }
        return 0;
}

static int set_env(Submission *s) {
        const Ctl *ctl = s->ctl;
        msgpack_packer pk = eq_packer(&s->env);
        bool all = ctl_has(ctl, FLAG_env_all), none = ctl_has(ctl, FLAG_env_none);
        uint32_t n = 0;

        if (all && none) {
                ctl_error(ctl, "--env-all and --env-none do not go together");
                return EXIT_USAGE;
        }
        for (char **e = environ; !none && *e; e++)
                if ((all || is_allowed(*e)) && strchr(*e, '=') && !is_overridden(ctl, *e, 0)) {
                        eq_pack_cstr(&pk, *e);
                        n++;
                }
        for (size_t i = 0; i < ctl->options.n; i++) {
                const Option *o = &ctl->options.list[i];
                if (o->flag != FLAG_env || is_overridden(ctl, o->value, i + 1))
                        continue;
                int status = add_option_env(s, o->value, &n);
                if (status)
                        return status;
        }
        EQ_SET(&s->common, Submit, env, (EqArray) { .raw = eq_bytes(s->env.data, s->env.len), .n = n });
        return s->env.failed ? ctl_no_memory(ctl) : 0;
}

/* ---- lists ---- */

static int set_rlimits(Submission *s) {
        msgpack_packer pk = eq_packer(&s->rlimits);
        uint32_t n = 0;

        for (size_t i = 0; i < s->ctl->options.n; i++) {
                const Option *o = &s->ctl->options.list[i];
                if (o->flag != FLAG_rlimit)
                        continue;
                if (!strchr(o->value, '=')) {
                        ctl_error(s->ctl, "--rlimit: `%s`; write NAME=SOFT[:HARD], as nofile=1024", o->value);
                        return EXIT_USAGE;
                }
                eq_pack_cstr(&pk, o->value);
                n++;
        }
        if (n > 0)
                EQ_SET(&s->common, Submit, rlimits,
                       (EqArray) { .raw = eq_bytes(s->rlimits.data, s->rlimits.len), .n = n });
        return s->rlimits.failed ? ctl_no_memory(s->ctl) : 0;
}

static int keep_last(Ctl *ctl, const EqTask *t, void *userdata) {
        eq_task_id *last = userdata;
        if (t->id.id.seq > last->seq)
                *last = t->id.id;
        return 0;
}

/* The last id that this user submitted to the queue, as after_ok. */
static int add_last(Submission *s, uint32_t n_ids[3]) {
        EqList rec = { 0 };
        eq_task_id last = { 0, 0 };

        EQ_SET(&rec, List, queue, eq_str(s->queue));
        EQ_SET(&rec, List, uid, getuid());
        EQ_SET(&rec, List, finished, 1);
        int status = ctl_list_each(s->ctl, &rec, keep_last, &last);
        if (status)
                return status;
        if (last.seq == 0) {
                ctl_error(s->ctl, "--after-last: you have no task in %s", s->queue);
                return EXIT_NOT_FOUND;
        }
        msgpack_packer pk = eq_packer(&s->after[0]);
        eq_pack_id(&pk, last);
        n_ids[0]++;
        return 0;
}

static EqArray ids_array(const EqBuffer *b, uint32_t n) {
        return (EqArray) { .raw = eq_bytes(b->data, b->len), .n = n };
}

static int set_after(Submission *s) {
        uint32_t n_ids[3] = { 0 };
        EqBytes bad;

        for (size_t i = 0; i < s->ctl->options.n; i++) {
                const Option *o = &s->ctl->options.list[i];
                if (o->flag == FLAG_after && after_parse(o->value, s->after, n_ids, &bad) < 0) {
                        ctl_error(s->ctl, "--after: `%.*s`; write ok:ID, any:ID or fail:ID, as ok:encode/42",
                                  (int)bad.len, bad.data);
                        return EXIT_USAGE;
                }
        }
        int status = ctl_has(s->ctl, FLAG_after_last) ? add_last(s, n_ids) : 0;
        if (status)
                return status;
        if (n_ids[0])
                EQ_SET(&s->common, Submit, after_ok, ids_array(&s->after[0], n_ids[0]));
        if (n_ids[1])
                EQ_SET(&s->common, Submit, after_any, ids_array(&s->after[1], n_ids[1]));
        if (n_ids[2])
                EQ_SET(&s->common, Submit, after_fail, ids_array(&s->after[2], n_ids[2]));
        return s->after[0].failed || s->after[1].failed || s->after[2].failed ? ctl_no_memory(s->ctl) : 0;
}

/* ---- input ---- */

static const char *input_name(const char *path) {
        return strcmp(path, "-") == 0 ? "standard input" : path;
}

static int open_input(Submission *s, const char *path) {
        int fd = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                ctl_error(s->ctl, "cannot read %s: %m", input_name(path));
        return fd;
}

static int read_payload(Submission *s, const char *path) {
        int fd = open_input(s, path), r = 0;
        ssize_t n = fd < 0 ? 0 : 1;

        while (r == 0 && n > 0 && s->payload.len <= EQ_PAYLOAD_MAX) {
                r = eq_buffer_reserve(&s->payload, 65536);
                n = r < 0 ? 0 : read(fd, s->payload.data + s->payload.len, 65536);
                if (n < 0 && errno == EINTR)
                        n = 1, errno = 0;
                else if (n > 0)
                        s->payload.len += (size_t)n;
        }
        if (fd >= 0 && n < 0)
                ctl_error(s->ctl, "cannot read %s: %m", input_name(path));
        if (fd >= 0)
                (void)close(fd); /* was only read */
        if (r < 0)
                return ctl_no_memory(s->ctl);
        if (fd < 0 || n < 0)
                return EXIT_FAILURE;
        if (s->payload.len > EQ_PAYLOAD_MAX) {
                ctl_error(s->ctl, "%s is larger than %d bytes; let the command read it from a file", input_name(path),
                          EQ_PAYLOAD_MAX);
                return EXIT_USAGE;
        }
        return 0;
}

/* /dev/null is what a task has anyway; a terminal is passed only when asked for. */
static bool stdin_worth_passing(void) {
        struct stat st;

        if (fstat(STDIN_FILENO, &st) < 0 || isatty(STDIN_FILENO))
                return false;
        return !(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
}

static int set_payload(Submission *s, const char *text) {
        if (strcmp(text, "-") == 0 || text[0] == '@')
                return read_payload(s, text[0] == '@' ? text + 1 : text);
        if (submission_is_many(s) && s->n_argv == 0) {
                s->payload_text = text;
                return 0;
        }
        text_cstr(&s->payload, text);
        return s->payload.failed ? ctl_no_memory(s->ctl) : 0;
}

static int set_input(Submission *s, bool is_run) {
        const char *payload = ctl_get(s->ctl, FLAG_payload), *in = ctl_get(s->ctl, FLAG_stdin);

        if (payload && in) {
                ctl_error(s->ctl, "--stdin and --payload are two names for one thing; give one");
                return EXIT_USAGE;
        }
        if (in && ctl_has(s->ctl, FLAG_no_stdin)) {
                ctl_error(s->ctl, "--no-stdin and --stdin do not go together");
                return EXIT_USAGE;
        }
        if (payload)
                return set_payload(s, payload);
        if (in && (!is_run || submission_is_many(s)))
                return read_payload(s, in);
        if (!is_run || ctl_has(s->ctl, FLAG_no_stdin) || submission_is_many(s) || (!in && !stdin_worth_passing()))
                return 0;
        if (ctl_has_host(s->ctl)) /* no descriptor goes that far: what it reads does */
                return read_payload(s, in ? in : "-");
        if (s->common.retries > 0) {
                ctl_error(s->ctl, "a task that reads this standard input cannot be run twice; with -r give -n, or "
                                  "--payload @FILE");
                return EXIT_USAGE;
        }
        s->stdin_fd = open_input(s, in ? in : "-");
        if (s->stdin_fd < 0)
                return EXIT_FAILURE;
        EQ_SET(&s->common, Submit, stdin_fd, true);
        return 0;
}

/* ---- command ---- */

static int set_command(Submission *s) {
        const Options *o = &s->ctl->options;
        const char *shell = ctl_get(s->ctl, FLAG_shell);
        size_t n = 0;

        if (!shell && o->n_operands == 0 && !ctl_has(s->ctl, FLAG_payload)) {
                ctl_error(s->ctl, "no command; usage: eqctl %s %s", verbs[o->verb].name, verbs[o->verb].arguments);
                return EXIT_USAGE;
        }
        s->argv = calloc(o->n_operands + 5, sizeof(*s->argv));
        if (!s->argv)
                return ctl_no_memory(s->ctl);
        if (shell) {
                s->argv[n++] = "/bin/sh";
                s->argv[n++] = "-c";
                s->argv[n++] = shell;
                s->argv[n++] = "sh";
        }
        for (size_t i = 0; i < o->n_operands; i++)
                s->argv[n++] = o->operands[i];
        s->n_argv = n;
        return 0;
}

/* That of an array. Early after boot the kernel may have no random number yet: then one that another eqctl hardly has. */
static uint64_t draw_number(void) {
        uint64_t n;
        struct timespec now;

        if (getrandom(&n, sizeof(n), GRND_NONBLOCK) != sizeof(n)) {
                (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail */
                n = ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) * 4194304 + (uint64_t)getpid();
        }
        return n & EQ_SEQ_MAX;
}

static int set_many(Submission *s) {
        const char *array = ctl_get(s->ctl, FLAG_array), *each = ctl_get(s->ctl, FLAG_each);

        if (array && each) {
                ctl_error(s->ctl, "--array and --each do not go together");
                return EXIT_USAGE;
        }
        s->is_array = array != NULL;
        s->is_each = each != NULL;
        if (array && array_parse(array, &s->first, &s->last, &s->step, &s->limit) < 0) {
                ctl_error(s->ctl,
                          "--array: `%s`; write 1-100 or 1-100:5, and 1-100%%4 to have 4 of them run at once, at most",
                          array);
                return EXIT_USAGE;
        }
        if (s->limit > 0) {
                EQ_SET(&s->common, Submit, array, draw_number());
                EQ_SET(&s->common, Submit, array_limit, s->limit);
        }
        if (each)
                s->lines = strcmp(each, "-") == 0 ? stdin : fopen(each, "re");
        if (each && !s->lines) {
                ctl_error(s->ctl, "cannot read %s: %m", each);
                return EXIT_FAILURE;
        }
        return 0;
}

static int check_key(const Submission *s, EqBytes key) {
        if (key.len > 0 && key.len <= EQ_KEY_MAX && eq_text_valid(key))
                return 0;
        ctl_error(s->ctl, "--unique: a key is UTF-8 without control characters, 1 to %d bytes", EQ_KEY_MAX);
        return EXIT_USAGE;
}

static int set_unique(Submission *s) {
        const char *mode = ctl_get(s->ctl, FLAG_on_dup);
        s->unique = ctl_get(s->ctl, FLAG_unique);
        if (mode && !s->unique) {
                ctl_error(s->ctl, "--on-dup says what becomes of a second task with a key; give --unique KEY, too");
                return EXIT_USAGE;
        }
        if (mode && strcmp(mode, "skip") != 0 && strcmp(mode, "replace") != 0 && strcmp(mode, "error") != 0) {
                ctl_error(s->ctl, "--on-dup: `%s`; write skip, replace or error", mode);
                return EXIT_USAGE;
        }
        if (s->unique && submission_is_many(s) && !strstr(s->unique, "{}")) {
                ctl_error(s->ctl, "--unique: each task needs a key of its own; put {} into it, as %s-{}", s->unique);
                return EXIT_USAGE;
        }
        if (s->unique && s->follow) {
                ctl_error(s->ctl,
                          "--follow: not with --unique, for the task may have run already; use eqctl logs -f ID");
                return EXIT_USAGE;
        }
        if (mode)
                EQ_SET(&s->common, Submit, on_dup, eq_str(mode));
        if (!s->unique || submission_is_many(s))
                return 0;
        EQ_SET(&s->common, Submit, unique, eq_str(s->unique));
        return check_key(s, s->common.unique);
}

/* Without a command nothing is said about how to run one, unless somebody asked for that. */
static void forget_command(Submission *s) {
        const Ctl *ctl = s->ctl;
        uint64_t *present = &s->common.present;

        if (!ctl_has(ctl, FLAG_chdir))
                *present &= ~EQ_BIT(Submit, cwd);
        if (!ctl_has(ctl, FLAG_umask))
                *present &= ~EQ_BIT(Submit, umask);
        if (!ctl_has(ctl, FLAG_env) && !ctl_has(ctl, FLAG_env_all))
                *present &= ~EQ_BIT(Submit, env);
}

int submission_init(Submission *s, Ctl *ctl, bool is_run) {
        *s = (Submission) { .ctl = ctl, .stdin_fd = -1 };
        s->follow = is_run || ctl_has(ctl, FLAG_follow);
        s->wait = s->follow || ctl_has(ctl, FLAG_wait);

        set_flags(s);
        int (*const setters[])(Submission *) = { check_wait, set_text,    set_command, set_many,
                                                 set_queues, set_unique,  set_times,   set_numbers,
                                                 set_paths,  set_rlimits, set_env };
        for (size_t i = 0; i < sizeof(setters) / sizeof(setters[0]); i++) {
                int status = setters[i](s);
                if (status)
                        return status;
        }
        int status = set_input(s, is_run);
        if (status)
                return status;
        if (s->n_argv == 0)
                forget_command(s);
        EQ_SET(&s->common, Submit, queue, eq_str(s->queue));
        EQ_SET(&s->common, Submit, payload, eq_bytes(s->payload.data, s->payload.len));
        if (s->follow)
                EQ_SET(&s->common, Submit, attach, true);
        return set_after(s);
}

void submission_deinit(Submission *s) {
        eq_buffer_done(&s->env);
        eq_buffer_done(&s->also);
        free(s->home);
        eq_buffer_done(&s->rlimits);
        for (int i = 0; i < 3; i++)
                eq_buffer_done(&s->after[i]);
        eq_buffer_done(&s->payload);
        free(s->cwd);
        free(s->stdout_path);
        free(s->stderr_path);
        free(s->argv);
        if (s->stdin_fd >= 0)
                (void)close(s->stdin_fd); /* a duplicate, or only read */
        if (s->lines && s->lines != stdin)
                (void)fclose(s->lines); /* only read */
        *s = (Submission) { .stdin_fd = -1 };
}

/* ---- one of many ---- */

static void item_argv(const Submission *s, const char *word, SubmissionItem *item) {
        msgpack_packer pk = eq_packer(&item->argv);
        bool found = false;

        for (size_t i = 0; i < s->n_argv; i++) {
                _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
                if (word)
                        found |= replace_braces(&b, s->argv[i], word);
                item->argv.failed |= b.failed;
                eq_pack_cstr(&pk, word ? text_end(&b) : s->argv[i]);
        }
        bool append = s->is_each && word && !found && s->n_argv > 0;
        if (append)
                eq_pack_cstr(&pk, word);
        item->argv_array =
                (EqArray) { .raw = eq_bytes(item->argv.data, item->argv.len), .n = (uint32_t)s->n_argv + append };
}

int submission_item(const Submission *s, const char *word, SubmissionItem *ret) {
        ret->argv.len = ret->env.len = ret->payload.len = ret->unique.len = 0;
        item_argv(s, word, ret);
        if (s->payload_text)
                (void)replace_braces(&ret->payload, s->payload_text, word ? word : "{}");
        ret->env_array = s->common.env;
        if (s->is_array) {
                msgpack_packer pk = eq_packer(&ret->env);
                char index[48];
                (void)snprintf(index, sizeof(index), "EQD_ARRAY_INDEX=%s", word ? word : "");
                eq_pack_raw(&pk, s->common.env.raw);
                eq_pack_cstr(&pk, index);
                ret->env_array = (EqArray) { .raw = eq_bytes(ret->env.data, ret->env.len), .n = s->common.env.n + 1 };
        }
        if (s->unique && submission_is_many(s))
                (void)replace_braces(&ret->unique, s->unique, word ? word : "{}");
        if (ret->argv.failed || ret->env.failed || ret->payload.failed || ret->unique.failed)
                return -ENOMEM;
        return ret->unique.len > 0 ? check_key(s, eq_bytes(ret->unique.data, ret->unique.len)) : 0;
}

void submission_item_deinit(SubmissionItem *item) {
        eq_buffer_done(&item->argv);
        eq_buffer_done(&item->env);
        eq_buffer_done(&item->payload);
        eq_buffer_done(&item->unique);
}
