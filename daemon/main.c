/* SPDX-License-Identifier: MIT */
/* eqd: options, places, signals, and the order in which the floors are built and taken down.
 *
 *   places -> state lock -> configuration -> what a dead eqd has left is ended -> spawner (takes the capabilities along) -> drop capabilities -> manager
 *   -> spawner says READY -> socket -> READY=1 -> loop
 *   SIGTERM, SIGINT: STOPPING=1, no new connections, commands TERM -> grace -> KILL, out.   SIGHUP: reload */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "base/event.h"
#include "base/fault.h"
#include "base/log.h"
#include "notify.h"
#include "pressurewatch.h"
#include "privilege.h"
#include "proto/statelock.h"
#include "proto/stdfds.h"
#include "server/handlers.h"
#include "status.h"
#include "watchdog.h"

typedef struct Options {
        bool system, user, check;
        const char *socket, *state, *config, *cgroup;
        int log_level; /* -1: from the configuration */
} Options;

typedef struct Places {
        bool system;
        char socket[PATH_MAX], state[PATH_MAX], config[PATH_MAX], spawner[PATH_MAX], store_tool[PATH_MAX];
} Places;

typedef struct Daemon {
        uv_loop_t loop;
        HeldClock clock; /* of everything on the loop */
        uv_signal_t sigterm, sigint, sighup;
        uv_timer_t extend; /* while it stops */
        Options options;
        Places places;
        int lock_fd, listen_fd, kept_fd;
        Manager *manager;
        Server *server;
        Handlers handlers;
        Status status;
        Watchdog *watchdog;
        PressureWatch *pressure; /* NULL before the start, or where it could not be opened */
        int exit_status;
        bool stopping;
} Daemon;

/* Exit statuses beside 0; as in sysexits.h, which service managers and people know. */
enum { EXTEND_MSEC = 5000 };                  /* between two requests for more time to stop */
#define RESTORE_STEP_USEC (30 * USEC_PER_SEC) /* no step of the start takes longer */
static const char KEPT_NAME[] = "eqd-queues"; /* of the descriptor that the service manager holds over a restart */
enum { EXIT_USAGE = 2, EXIT_UNAVAILABLE = 69, EXIT_CONFIG_ERROR = 78 };

static void usage(FILE *f) {
        fprintf(f, "Usage: eqd [OPTIONS]\n"
                   "The execution-queue daemon: runs tasks of named queues. Talk to it with eqctl.\n\n"
                   "  --system         places of the system instance (default for root)\n"
                   "  --user           places of a user instance (default for others)\n"
                   "  --socket PATH    listen here (at most 107 bytes)\n"
                   "  --state DIR      keep state here\n"
                   "  --config DIR     read eqd.conf and queues.d/ from here\n"
                   "  --cgroup DIR     make a cgroup per slot below this cgroup directory; `off`: never\n"
                   "  --log-level L    emerg, alert, crit, error, warning, notice, info or debug\n"
                   "  --check          look for mistakes in the configuration, name all, and end\n"
                   "  --help, --version\n\n"
                   "See eqd(8).\n");
}

static int parse_level(const char *text, int *ret) {
        static const char *const names[] = { "emerg", "alert", "crit", "error", "warning", "notice", "info", "debug" };
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (strcmp(text, names[i]) == 0) {
                        *ret = (int)i;
                        return 0;
                }
        fprintf(stderr, "eqd: --log-level %s: one of emerg, alert, crit, error, warning, notice, info, debug\n", text);
        return -EINVAL;
}

/* That are right each, but not together. */
static int check_options(const Options *o, int argc, char **argv) {
        if (optind < argc) {
                fprintf(stderr, "eqd: unexpected argument \"%s\"; see eqd --help\n", argv[optind]);
                return -EINVAL;
        }
        if (o->system && o->user) {
                fprintf(stderr, "eqd: --system and --user exclude each other\n");
                return -EINVAL;
        }
        return 0;
}

/* 0: go on; 1: done; negative: usage. */
static int parse_options(int argc, char **argv, Options *o) {
        enum { SYSTEM = 256, USER, SOCKET, STATE, CONFIG, CGROUP, LEVEL, CHECK, HELP, VERSION };
        static const struct option longs[] = {
                { "system", no_argument, NULL, SYSTEM },
                { "user", no_argument, NULL, USER },
                { "socket", required_argument, NULL, SOCKET },
                { "state", required_argument, NULL, STATE },
                { "config", required_argument, NULL, CONFIG },
                { "cgroup", required_argument, NULL, CGROUP },
                { "log-level", required_argument, NULL, LEVEL },
                { "help", no_argument, NULL, HELP },
                { "version", no_argument, NULL, VERSION },
                { "check", no_argument, NULL, CHECK },
                { 0 },
        };
        *o = (Options) { .log_level = -1 };
        for (int c; (c = getopt_long(argc, argv, "h", longs, NULL)) != -1;)
                switch (c) {
                case SYSTEM:
                        o->system = true;
                        break;
                case USER:
                        o->user = true;
                        break;
                case SOCKET:
                        o->socket = optarg;
                        break;
                case STATE:
                        o->state = optarg;
                        break;
                case CONFIG:
                        o->config = optarg;
                        break;
                case CGROUP:
                        o->cgroup = optarg;
                        break;
                case LEVEL:
                        if (parse_level(optarg, &o->log_level) < 0)
                                return -EINVAL;
                        break;
                case CHECK:
                        o->check = true;
                        break;
                case 'h':
                case HELP:
                        usage(stdout);
                        return 1;
                case VERSION:
                        printf("eqd %s\n", EQD_VERSION);
                        return 1;
                default:
                        fprintf(stderr, "eqd: see eqd --help\n");
                        return -EINVAL;
                }
        return check_options(o, argc, argv);
}

/* ---- places ---- */

static int put(char *to, const char *given, const char *fmt, const char *a, const char *b) {
        int n = given ? snprintf(to, PATH_MAX, "%s", given) : snprintf(to, PATH_MAX, fmt, a, b);
        return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int user_dir(const char *variable, const char *fallback, char *ret) {
        const char *value = getenv(variable), *home = getenv("HOME");
        if (value && *value == '/')
                return put(ret, value, NULL, NULL, NULL);
        if (home && *home == '/')
                return put(ret, NULL, "%s/%s", home, fallback);
        return -ENOENT;
}

/* It lies beside an uninstalled eqd (build/daemon/DIR/), else in the libexec directory. */
static int find_program(const char *dir, const char *name, char *ret) {
        char self[PATH_MAX], beside[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (n > 0) {
                self[n] = '\0';
                char *slash = strrchr(self, '/');
                *slash = '\0';
                if (snprintf(beside, sizeof(beside), "%s/%s", dir, name) < (int)sizeof(beside) &&
                    put(ret, NULL, "%s/%s", self, beside) == 0 && access(ret, X_OK) == 0)
                        return 0;
        }
        return put(ret, NULL, "%s/%s", EQD_LIBEXECDIR, name);
}

static int user_places(const Options *o, Places *p) {
        char runtime[PATH_MAX], state[PATH_MAX], config[PATH_MAX];
        const char *xdg = getenv("XDG_RUNTIME_DIR");
        if (!o->socket && (!xdg || *xdg != '/')) {
                fprintf(stderr, "eqd: XDG_RUNTIME_DIR is not set; use --socket PATH\n");
                return -ENOENT;
        }
        int r = put(runtime, xdg ? xdg : "/", NULL, NULL, NULL);
        if (r >= 0 && !o->state)
                r = user_dir("XDG_STATE_HOME", ".local/state", state);
        if (r < 0) {
                fprintf(stderr, "eqd: HOME is not set; use --state DIR\n");
                return r;
        }
        if (!o->config && user_dir("XDG_CONFIG_HOME", ".config", config) < 0)
                r = put(config, "/nonexistent", NULL, NULL, NULL); /* who has no home has no files there */
        r = put(p->socket, o->socket, "%s/%s", runtime, "eqd/eqd.sock");
        if (r >= 0)
                r = put(p->state, o->state, "%s/%s", state, "eqd");
        if (r >= 0)
                r = put(p->config, o->config, "%s/%s", config, "eqd");
        return r;
}

static int find_places(const Options *o, Places *p) {
        int r;
        p->system = o->system || (!o->user && geteuid() == 0);
        if (p->system) {
                r = put(p->socket, o->socket ? o->socket : "/run/eqd/eqd.sock", NULL, NULL, NULL);
                if (r >= 0)
                        r = put(p->state, o->state ? o->state : "/var/lib/eqd", NULL, NULL, NULL);
                if (r >= 0)
                        r = put(p->config, o->config ? o->config : "/etc/eqd", NULL, NULL, NULL);
        } else
                r = user_places(o, p);
        if (r == -ENAMETOOLONG)
                fprintf(stderr, "eqd: a path is too long\n");
        if (r >= 0)
                r = find_program("spawner", "eqd-spawner", p->spawner);
        return r < 0 ? r : find_program("storetool", "eqd-store", p->store_tool);
}

/* mkdir -p, 0700 for what is made. */
static int make_dirs(const char *path) {
        char buf[PATH_MAX];
        int r = put(buf, path, NULL, NULL, NULL);
        for (char *slash = buf + 1; r >= 0 && (slash = strchr(slash, '/')); *slash++ = '/') {
                *slash = '\0';
                if (mkdir(buf, 0700) < 0 && errno != EEXIST)
                        return -errno;
        }
        if (r >= 0 && mkdir(buf, 0700) < 0 && errno != EEXIST)
                return -errno;
        return r;
}

/* One eqd per state directory. */
static int lock_state(const char *dir, int *ret_fd) {
        char path[PATH_MAX + 8];
        int r = make_dirs(dir);
        if (r < 0) {
                fprintf(stderr, "eqd: cannot make state directory %s: %s; use --state DIR\n", dir, strerror(-r));
                return r;
        }
        snprintf(path, sizeof(path), "%s/lock", dir);
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
                r = -errno;
                fprintf(stderr, "eqd: cannot open %s: %s; use --state DIR\n", path, strerror(-r));
                return r;
        }
        r = eq_state_lock_take(fd);
        if (r < 0) {
                fprintf(stderr, "eqd: state directory %s is in use by another eqd; stop it or use --state DIR\n", dir);
                close_fd(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

/* ---- signals ---- */

static void close_handle(uv_handle_t *handle, void *arg) {
        const Daemon *d = arg;
        bool own = handle->type == UV_SIGNAL || handle == (const uv_handle_t *)&d->extend;
        if (!uv_is_closing(handle) && own)
                uv_close(handle, NULL);
}

static void on_stopped(void *host) {
        Daemon *d = host;
        uv_stop(&d->loop);
}

/* Commands may take longer to end than TimeoutStopSec= of the unit, if StopTimeout= lets them. */
static void on_extend(uv_timer_t *timer) {
        notify_extend(2 * EXTEND_MSEC * USEC_PER_MSEC, NULL);
}

static void stop(Daemon *d, int status) {
        if (d->stopping)
                return;
        d->stopping = true;
        d->exit_status = status;
        status_stop(&d->status);
        notify_stopping("Stopping: commands are being ended");
        (void)uv_timer_start(&d->extend, on_extend, 0, EXTEND_MSEC); /* fails for closing handles only */
        if (d->server)
                server_stop_listening(d->server);
        manager_stop(d->manager, getenv("NOTIFY_SOCKET") != NULL, on_stopped);
}

static void on_stop_signal(uv_signal_t *handle, int signum) {
        Daemon *d = handle->data;
        log_event(STOPPING, (0), signum);
        stop(d, EXIT_SUCCESS);
}

static void on_sighup(uv_signal_t *handle, int signum) {
        Daemon *d = handle->data;
        Refusal refusal;
        char status[STATUS_MAX];
        uint64_t waits;
        notify_reloading();
        (void)manager_reload(d->manager, &waits, &refusal); /* has logged what is wrong, and what waits */
        status_text(d->manager, status, sizeof(status));
        notify_ready(status);
}

static int watch_signals(Daemon *d) {
        const struct {
                uv_signal_t *handle;
                uv_signal_cb cb;
                int signum;
        } rows[] = { { &d->sigterm, on_stop_signal, SIGTERM },
                     { &d->sigint, on_stop_signal, SIGINT },
                     { &d->sighup, on_sighup, SIGHUP } };
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                int r = uv_signal_init(&d->loop, rows[i].handle);
                if (r >= 0)
                        r = uv_signal_start(rows[i].handle, rows[i].cb, rows[i].signum);
                if (r < 0)
                        return r;
                rows[i].handle->data = d;
                uv_unref((uv_handle_t *)rows[i].handle);
        }
        (void)uv_timer_init(&d->loop, &d->extend); /* cannot fail */
        uv_unref((uv_handle_t *)&d->extend);
        return 0;
}

/* ---- --check ---- */

static void print_mistake(void *userdata, const char *text) {
        unsigned *n = userdata;
        (*n)++;
        fprintf(stderr, "eqd: %s\n", text);
}

/* Also beside a running eqd, of which it touches nothing. */
static int check(const Places *p) {
        unsigned n = 0;
        const char *missing = access(p->config, F_OK) < 0 ? strerror(errno) : NULL;
        int r = config_check(p->config, p->system, print_mistake, &n);
        if (r == -ENOMEM)
                return EXIT_FAILURE;
        if (r < 0) {
                fprintf(stderr, "eqd: %s: mistakes: %u\n", p->config, n);
                return EXIT_CONFIG_ERROR;
        }
        if (missing)
                printf("%s: %s; all settings are the built-in ones\n", p->config, missing);
        else
                printf("%s: no mistakes\n", p->config);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- start ---- */

static void on_event(void *host, const EqEvent *event, bool has_owner, uid_t owner) {
        Daemon *d = host;
        handlers_event(&d->handlers, event, has_owner, owner);
}

#define NO_THREAD "no thread can be created; raise LimitNPROC= or TasksMax="

/* eqd ends then. The journal finds out whose a record is by a look at the process, which may be gone by that time, and then it is not
 * among those of the unit. Of standard error it has known that from the beginning. */
static void cannot_start(const char *error) {
        log_event(START_FAILED, (.error = error), error);
        if (log_is_journal())
                fprintf(stderr, "<%d>eqd: %s\n", LOG_ERR, error);
}

/* Made while eqd still has its capabilities: giving the socket to a group may need one. */
static int listen_on(Daemon *d) {
        const DaemonSettings *settings = &d->manager->config->daemon;
        ServerConfig config = {
                .path = d->listen_fd < 0 ? d->places.socket : NULL,
                .listen_fd = d->listen_fd,
                .mode = (mode_t)settings->socket_mode,
                .group = settings->socket_group.id,
                .written = manager_written(d->manager),
                .clock = &d->clock,
        };
        char error[256];
        int r = server_new(&d->loop, &d->manager->users, &config, &handlers_server_hooks, handlers_table, &d->handlers,
                           error, sizeof(error), &d->server);
        if (r < 0) {
                cannot_start(error);
                return -EADDRINUSE; /* whatever it was: there is nothing to listen on */
        }
        d->handlers.server = d->server;
        d->listen_fd = -1;
        return 0;
}

/* The spawner is up: now commands can run, so now clients are let in. */
static void on_ready(void *host) {
        Daemon *d = host;
        char status[STATUS_MAX];
        if (d->stopping)
                return;
        server_start(d->server);
        status_text(d->manager, status, sizeof(status));
        log_event(READY, (0),
                  d->server->listener.path ? d->server->listener.path : "the socket of the service manager");
        notify_ready(status);
        status_start(&d->status, &d->loop, d->manager);
}

static void on_pressed(void *host) {
        Daemon *d = host;
        manager_take_pressure(d->manager, pressure_watch_text(d->pressure));
}

/* Again after each change of the configuration: a trigger is made with its threshold. What need not change stays: another peer
 * of a socket would not be told to go on. */
static void watch_pressure(Daemon *d) {
        const DaemonSettings *settings = &d->manager->config->daemon;
        char cgroup[PATH_MAX];
        PressureConfig config = {
                .wanted = settings->memory_pressure,
                .watch = getenv("MEMORY_PRESSURE_WATCH"),
                .write = getenv("MEMORY_PRESSURE_WRITE"),
                .cgroup = privilege_own_cgroup(cgroup, sizeof(cgroup)) == 0 ? cgroup : NULL,
                .system = "/proc/pressure/memory",
                .threshold_usec = settings->memory_pressure_threshold_usec,
                .interval_usec = PRESSURE_WINDOW_USEC,
        };
        if (d->pressure && pressure_watch_fits(d->pressure, &config))
                return;
        d->pressure = pressure_watch_close(d->pressure);
        int r = pressure_watch_open(&d->loop, &config, on_pressed, d, &d->pressure);
        if (r < 0)
                log_event(PRESSURE_FAILED, (.error = strerror(-r)), strerror(-r));
}

static void on_configured(void *host) {
        Daemon *d = host;
        if (d->server)
                server_rights_changed(d->server);
        if (!d->watchdog) /* it is not started yet, and gets the configuration then */
                return;
        watch_pressure(d);
        StallConfig stall = manager_stall_config(d->manager);
        watchdog_set_config(d->watchdog, &stall, d->manager->config->daemon.panic_timeout_usec);
}

static void on_touch(void *host) {
        Daemon *d = host;
        if (d->watchdog)
                watchdog_touch(d->watchdog);
}

static void on_durable(void *host, uint64_t position) {
        Daemon *d = host;
        if (d->server)
                handlers_durable(&d->handlers, position);
}

static void on_not_durable(void *host) {
        Daemon *d = host;
        if (d->server)
                handlers_not_durable(&d->handlers);
}

static void on_read(void *host, uint64_t ticket) {
        Daemon *d = host;
        if (d->server)
                server_read(d->server, ticket);
}

static void on_restoring(void *host, unsigned percent, uint64_t n_tasks) {
        char status[64];
        if (n_tasks == 0)
                (void)snprintf(status, sizeof(status), "Reading the store: %u %%", percent);
        else
                (void)snprintf(status, sizeof(status), "Taking tasks from the store: %ju so far", (uintmax_t)n_tasks);
        notify_extend(RESTORE_STEP_USEC, status);
}

static const ManagerHooks manager_hooks = {
        .event = on_event,
        .ready = on_ready,
        .configured = on_configured,
        .touch = on_touch,
        .durable = on_durable,
        .not_durable = on_not_durable,
        .read = on_read,
        .restoring = on_restoring,
};

static void on_stall(void *host, const StallReport *r, bool logged) {
        Daemon *d = host;
        manager_take_stall(d->manager, r, logged);
}

static void on_asked(void *host) {
        Daemon *d = host;
        if (d->manager->n_pending > 0) /* else nobody misses it */
                command_executor_ask(d->manager->commands);
}

/* Watchdog thread, which ends before the manager does. */
static int on_sync(void *host, uint64_t usec) {
        const Daemon *d = host;
        return manager_wait_for_store(d->manager, usec);
}

static const WatchdogHooks watchdog_hooks = { .report = on_stall, .asked = on_asked, .sync = on_sync, .die = abort };

static int start_watchdog(Daemon *d, const char *cgroup) {
        WatchdogConfig config = {
                .loop = &d->loop,
                .watch = &d->manager->engine.watch,
                .cgroup = cgroup,
                .stall = manager_stall_config(d->manager),
                .panic_timeout_usec = d->manager->config->daemon.panic_timeout_usec,
        };
        int r = watchdog_start(&config, &watchdog_hooks, d, &d->watchdog);
        if (r < 0)
                cannot_start(r == -EAGAIN ? NO_THREAD : strerror(-r));
        return r;
}

static int drop_privileges(void) {
        char error[128];
        int r = privilege_drop();
        if (r < 0) {
                (void)snprintf(error, sizeof(error), "cannot give up capabilities: %s", strerror(-r));
                cannot_start(error);
        }
        return r;
}

/* Directory for the socket, where it is eqd's to make: the default of a user instance. */
static void make_socket_dir(const Daemon *d) {
        if (d->options.socket || d->listen_fd >= 0)
                return;
        char dir[PATH_MAX];
        memcpy(dir, d->places.socket, sizeof(dir));
        *strrchr(dir, '/') = '\0';
        (void)make_dirs(dir); /* if it cannot, binding will say so */
}

/* The service manager passes the socket, and what the eqd before this one gave it to hold. */
static int take_passed_fds(Daemon *d) {
        char **names = NULL;
        int n = sd_listen_fds_with_names(1, &names), n_sockets = 0;
        for (int i = 0; i < n; i++) {
                int *to = strcmp(names[i], KEPT_NAME) == 0 ? &d->kept_fd : &d->listen_fd;
                n_sockets += to == &d->listen_fd;
                close_fd(*to);
                *to = SD_LISTEN_FDS_START + i;
                free(names[i]);
        }
        free(names);
        if (n_sockets > 1) {
                fprintf(stderr, "eqd: the service manager passed %d sockets; eqd.socket must have one ListenStream=\n",
                        n_sockets);
                return -EINVAL;
        }
        return 0;
}

/* Many connections and pipes need many descriptors; the limit that children get is the spawner's own. */
static void raise_fd_limit(void) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* then there are fewer */
}

/* Takes over what *mc has, also if it fails. */
static int make_manager(Daemon *d, const ManagerConfig *mc) {
        char error[PATH_MAX + 128];
        int r = 0;
        if (!mc->config->daemon.setuid_programs)
                r = privilege_forbid_gains(); /* before the spawner is there: it inherits this, and so do commands */
        if (r < 0)
                (void)snprintf(error, sizeof(error), "no_new_privs (setuid_programs=no): %s", strerror(-r));
        else if ((r = manager_new(mc, &manager_hooks, d, &d->manager)) < 0)
                (void)snprintf(error, sizeof(error), "spawner %s: %s", mc->spawner_program, strerror(-r));
        if (r < 0) {
                cannot_start(error);
                config_free(mc->config);
                leftovers_free(mc->leftovers);
        }
        return r;
}

static int start(Daemon *d) {
        Config *config;
        char error[PARAM_ERROR_MAX + PATH_MAX]; /* of a file, whose path stands in front */
        if (d->options.config &&
            access(d->options.config, F_OK) < 0) { /* as any file that is missing; but it was named */
                const char *why = strerror(errno);
                log_event(CONFIG_MISSING, (.error = why), d->options.config, why);
        }
        int r = config_load(d->places.config, d->places.system, &config, error, sizeof(error));
        if (r < 0) {
                cannot_start(error);
                return -EUCLEAN;
        }
        log_set_level(d->options.log_level >= 0 ? d->options.log_level : (int)config->daemon.log_level);
        char cgroup[PATH_MAX];
        const char *wanted = d->options.cgroup ? d->options.cgroup : config->daemon.cgroup;
        bool cgroups = config->daemon.commands && privilege_find_cgroup(wanted, cgroup, sizeof(cgroup));
        held_clock_init(&d->clock, &clock_system);
        char store[PATH_MAX + 8];
        (void)snprintf(store, sizeof(store), "%s/store", d->places.state);
        ManagerConfig mc = {
                .loop = &d->loop,
                .clock = &d->clock.clock,
                .config_dir = d->places.config,
                .spawner_program = d->places.spawner,
                .cgroup = cgroups ? cgroup : NULL,
                .config = config,
                .leftovers = leftovers_end(store),
        };
        r = make_manager(d, &mc);
        if (r < 0)
                return r;
        d->handlers.manager = d->manager;
        d->handlers.store_program = d->places.store_tool;
        raise_fd_limit();
        r = listen_on(d);
        if (r >= 0)
                r = drop_privileges();
        if (r >= 0)
                r = manager_start(d->manager, store,
                                  d->kept_fd); /* looks at bytes that came from clients: not before */
        if (r >= 0 && d->kept_fd >= 0)
                notify_forget(KEPT_NAME); /* should this eqd crash, the tasks of then must not run again */
        if (r >= 0)
                r = start_watchdog(d, cgroups ? cgroup : NULL);
        if (r >= 0)
                watch_pressure(d);
        if (r >= 0 && d->manager->ready) /* without commands there is no spawner to wait for */
                on_ready(d);
        return r;
}

/* Until it is told to stop. If the loop ends before there was nobody to wait for: no spawner, so no socket. */
static int serve(Daemon *d) {
        (void)uv_run(&d->loop, UV_RUN_DEFAULT);
        if (d->stopping)
                return 0;
        const char *error = "eqd-spawner does not run, see the messages before";
        cannot_start(error);
        return -ECHILD;
}

/* For the next eqd, in memory that the service manager holds. If it does not, because this is a stop and no restart, or its
 * unit has no FileDescriptorStoreMax=, they are gone. */
static void keep_queues(const Manager *m) {
        _cleanup_close_ int fd = memfd_create(KEPT_NAME, MFD_CLOEXEC);
        int r = fd < 0 ? -errno : manager_keep(m, fd);
        if (r >= 0)
                r = notify_keep(fd, KEPT_NAME);
        size_t n = manager_n_unended(m, false); /* the store has the others */
        if (r < 0)
                log_event(NOT_KEPT, (.pending = n, .error = strerror(-r)), n, strerror(-r));
        else if (n > 0)
                log_event(KEPT, (.pending = n), n);
}

static void finish(Daemon *d) {
        status_stop(&d->status);
        d->watchdog = watchdog_stop(d->watchdog);
        d->pressure = pressure_watch_close(d->pressure);
        if (d->server)
                d->server = server_free(d->server);
        store_reads_close(&d->handlers.store_reads);
        if (d->manager && d->manager->keeping)
                keep_queues(d->manager);
        if (d->manager && d->manager->stuck) {
                log_stop();
                _exit(EXIT_FAILURE); /* its threads use what would be freed */
        }
        d->manager = manager_free(d->manager);
        uv_walk(&d->loop, close_handle, d);
        (void)uv_run(&d->loop, UV_RUN_DEFAULT);
        if (uv_loop_close(&d->loop) != 0)
                log_event(HANDLES_LEFT, (0));
        close_fd(d->lock_fd);
        close_fd(d->listen_fd);
        close_fd(d->kept_fd);
}

int main(int argc, char **argv) {
        static Daemon d = { .lock_fd = -1, .listen_fd = -1, .kept_fd = -1 };
        if (eq_std_fds_fill(O_RDWR) < 0)
                return EXIT_FAILURE;
        int r = parse_options(argc, argv, &d.options);
        if (r != 0)
                return r > 0 ? EXIT_SUCCESS : EXIT_USAGE;
#ifdef EQD_TESTS
        if (fault_parse(getenv("EQD_FAULT")) < 0) {
                fprintf(stderr, "eqd: EQD_FAULT: SEAM:NTH[+],...\n");
                return EXIT_USAGE;
        }
#endif
        (void)signal(SIGPIPE, SIG_IGN); /* cannot fail */
        if (find_places(&d.options, &d.places) < 0)
                return EXIT_USAGE;
        if (d.options.check)
                return check(&d.places);
        if (take_passed_fds(&d) < 0)
                return EXIT_USAGE;
        if (lock_state(d.places.state, &d.lock_fd) < 0)
                return EXIT_UNAVAILABLE;
        make_socket_dir(&d);
        if (uv_loop_init(&d.loop) < 0 || watch_signals(&d) < 0) {
                fprintf(stderr, "eqd: cannot set up the event loop\n");
                return EXIT_FAILURE;
        }
        handlers_init(&d.handlers);
        r = log_start(d.options.log_level >= 0 ? d.options.log_level : LOG_INFO);
        if (r < 0)
                cannot_start(NO_THREAD);
        else
                r = start(&d);
        if (r >= 0)
                r = serve(&d);
        finish(&d);
        log_stop();
        return r == -EUCLEAN      ? EXIT_CONFIG_ERROR
               : r == -EADDRINUSE ? EXIT_UNAVAILABLE
               : r < 0            ? EXIT_FAILURE
                                  : d.exit_status;
}
