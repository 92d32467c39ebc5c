/* SPDX-License-Identifier: MIT */
/* The watchdog thread with a real clock and small thresholds, on an engine that the test moves; the service manager is a socket
 * of the test. */

#include "watchdog.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "notify.h"
#include "rig.h"

enum { LIMIT_MSEC = 30000 }; /* for what comes sooner or later */

typedef struct Scene {
        Rig *rig;
        uv_loop_t loop;
        Watchdog *watchdog;
        int notify;
        size_t n_reports, n_asked, n_logged;
        StallReport first, last;
        bool first_logged;
        uint64_t first_usec; /* when it was taken */
        uv_timer_t limit;
        uv_poll_t signs;
        size_t n_signs, n_wanted; /* signs of life: that were told, and to be told */
        bool timed_out;
        StallKind until;
} Scene;

static atomic_int n_deaths;

static void on_report(void *host, const StallReport *r, bool logged) {
        Scene *s = host;
        if (s->n_reports++ == 0) {
                s->first = *r;
                s->first_logged = logged;
                s->first_usec = clock_monotonic(&clock_system);
        }
        s->n_logged += logged;
        s->last = *r;
        if (r->kind == s->until)
                uv_stop(&s->loop);
}
static void stop_when_enough(Scene *s) {
        if (s->n_signs >= s->n_wanted && s->n_asked >= s->n_wanted)
                uv_stop(&s->loop);
}
static void on_asked(void *host) {
        Scene *s = host;
        s->n_asked++;
        stop_when_enough(s);
}
static void on_die(void) {
        atomic_fetch_add(&n_deaths, 1);
}
/* Nobody has been told yet. */
static atomic_int n_syncs, sync_result;
static int on_sync(void *host, uint64_t usec) {
        struct pollfd p = { .fd = ((Scene *)host)->notify, .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, 0), 0);
        ck_assert_uint_gt(usec, 0);
        ck_assert_uint_le(usec, 5 * USEC_PER_SEC);
        atomic_fetch_add(&n_syncs, 1);
        return atomic_load(&sync_result);
}
static const WatchdogHooks hooks = { .report = on_report, .asked = on_asked, .sync = on_sync, .die = on_die };

static void on_limit(uv_timer_t *timer) {
        Scene *s = timer->data;
        s->timed_out = true;
        uv_stop(&s->loop);
}

/* Turns the loop until a report of that kind has come. */
static void turn_until(Scene *s, StallKind kind) {
        s->until = kind;
        s->n_wanted = SIZE_MAX;
        uv_timer_start(&s->limit, on_limit, LIMIT_MSEC, 0);
        uv_run(&s->loop, UV_RUN_DEFAULT);
        uv_timer_stop(&s->limit);
        ck_assert(!s->timed_out);
}

/* The next datagram; waits for it. */
static void told(Scene *s, char *ret, size_t size) {
        struct pollfd p = { .fd = s->notify, .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, LIMIT_MSEC), 1);
        ssize_t n = recv(s->notify, ret, size - 1, 0);
        ck_assert_int_ge(n, 0);
        ret[n] = '\0';
}

static void on_sign(uv_poll_t *poll, int status, int events) {
        Scene *s = poll->data;
        char text[256];
        told(s, text, sizeof(text));
        ck_assert_str_eq(text, "WATCHDOG=1");
        s->n_signs++;
        stop_when_enough(s);
}

/* Turns the loop until it was asked, and has given a sign of life, so many times more. */
static void turn_until_alive(Scene *s, size_t n) {
        s->n_signs = s->n_asked = 0;
        s->n_wanted = n;
        uv_timer_start(&s->limit, on_limit, LIMIT_MSEC, 0);
        uv_poll_start(&s->signs, UV_READABLE, on_sign);
        uv_run(&s->loop, UV_RUN_DEFAULT);
        uv_poll_stop(&s->signs);
        uv_timer_stop(&s->limit);
        ck_assert(!s->timed_out);
}

static void scene_open(Scene *s) {
        memset(s, 0, sizeof(*s));
        s->rig = rig_new(1);
        s->rig->engine.clock = &clock_system;
        uv_loop_init(&s->loop);
        uv_timer_init(&s->loop, &s->limit);
        s->limit.data = s;
        QueueParams p = s->rig->queue->params;
        p.stall_thresh_usec = 200000;
        queue_set_params(s->rig->queue, &p);
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        s->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(s->notify, (struct sockaddr *)&a, sizeof(sa_family_t)), 0); /* the kernel gives a name */
        socklen_t len = sizeof(a);
        char name[200] = "@";
        ck_assert_int_eq(getsockname(s->notify, (struct sockaddr *)&a, &len), 0);
        memcpy(name + 1, a.sun_path + 1, len - sizeof(sa_family_t) - 1);
        setenv("NOTIFY_SOCKET", name, 1);
        ck_assert_int_eq(uv_poll_init(&s->loop, &s->signs, s->notify), 0);
        s->signs.data = s;
}

static int start(Scene *s, const StallConfig *stall) {
        WatchdogConfig config = {
                .loop = &s->loop, .watch = &s->rig->engine.watch, .stall = *stall, .panic_timeout_usec = 100000
        };
        return watchdog_start(&config, &hooks, s, &s->watchdog);
}

static void scene_close(Scene *s) {
        s->watchdog = watchdog_stop(s->watchdog);
        uv_close((uv_handle_t *)&s->limit, NULL);
        uv_close((uv_handle_t *)&s->signs, NULL);
        uv_run(&s->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&s->loop), 0);
        uv_library_shutdown();
        close(s->notify);
        rig_free(s->rig);
}

static const StallConfig quiet = { .hung_warnings = 10 };

/* Of whom the datagrams come does not matter. */
static void fill(const Scene *s) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        socklen_t len = sizeof(a);
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(getsockname(s->notify, (struct sockaddr *)&a, &len), 0);
        while (sendto(fd, "X=1", 3, 0, (struct sockaddr *)&a, len) == 3)
                ;
        ck_assert_int_eq(errno, EAGAIN);
        close(fd);
}

TEST(a_service_manager_that_does_not_read_stops_nobody) {
        Scene s;
        char text[100];
        scene_open(&s);
        fill(&s);
        notify_alive();
        ck_assert(!notify_status("busy", false));
        told(&s, text, sizeof(text)); /* room for one */
        ck_assert_str_eq(text, "X=1");
        ck_assert(notify_status("idle", true));
        do
                told(&s, text, sizeof(text));
        while (strcmp(text, "X=1") == 0);
        ck_assert_str_eq(text, "STATUS=idle\nX_EQD_STALLED=1");
        scene_close(&s);
}

TEST(a_stall_comes_to_the_loop_which_has_to_log_it) {
        Scene s;
        scene_open(&s);
        ck_assert_int_eq(start(&s, &quiet), 0);
        rig_submit(s.rig);
        rig_submit(s.rig);
        turn_until(&s, STALL_QUEUE);
        ck_assert_int_eq(s.first.phase, STALL_BEGIN); /* a loop that is late finds repeated ones behind it */
        ck_assert(!s.first_logged || s.first_usec - s.first.now_usec >= USEC_PER_SEC);
        ck_assert_str_eq(s.first.queue, "q");
        ck_assert_uint_eq(s.first.seq, 1);
        scene_close(&s);
}

TEST(what_a_busy_loop_does_not_take_the_thread_logs) {
        Scene s;
        char path[] = "/tmp/watchdog-test-XXXXXX", text[4096];
        int fd = mkstemp(path), saved = dup(STDERR_FILENO);
        unlink(path);
        dup2(fd, STDERR_FILENO);
        scene_open(&s);
        ck_assert_int_eq(start(&s, &quiet), 0);
        rig_submit(s.rig);
        rig_submit(s.rig);
        ssize_t n = 0;
        for (int i = 0; i < LIMIT_MSEC / 10 && n == 0; i++) { /* the loop does not turn; lines come from the thread */
                struct pollfd p = { .fd = -1 };
                poll(&p, 1, 10);
                n = pread(fd, text, sizeof(text) - 1, 0);
        }
        text[MAX(n, 0)] = '\0';
        dup2(saved, STDERR_FILENO);
        close(saved);
        close(fd);
        ck_assert_msg(strstr(text, "workqueue q: no forward progress for") != NULL, "%s", text);
        turn_until(&s, STALL_QUEUE);
        ck_assert_uint_ge(s.n_logged, 1);
        ck_assert(s.last.has_pool);
        scene_close(&s);
}

TEST(signs_of_life_are_sent_while_the_loop_turns_and_not_when_it_does_not) {
        Scene s;
        char text[256];
        setenv("WATCHDOG_USEC", "400000", 1);
        scene_open(&s);
        ck_assert_int_eq(start(&s, &quiet), 0);
        turn_until_alive(&s, 5);
        struct pollfd p = { .fd = s.notify, .events = POLLIN };
        while (poll(&p, 1, 700) > 0) /* what was under way, then nothing for longer than the limit */
                told(&s, text, sizeof(text));
        turn_until_alive(&s, 1); /* it turns again */
        scene_close(&s);
}

TEST(a_panic_syncs_the_store_then_tells_status_and_trigger_at_once_and_then_dies) {
        Scene s;
        char text[512];
        StallConfig config = { .hung_warnings = 10, .panic_on_stall = 1, .panic_scope = PANIC_SCOPE_QUEUE };
        scene_open(&s);
        ck_assert_int_eq(start(&s, &config), 0);
        rig_submit(s.rig);
        rig_submit(s.rig);
        told(&s, text, sizeof(text));
        ck_assert_str_eq(text,
                         "STATUS=PANIC workqueue: 1 stall(s) exceeded threshold 1 (queue q: serial)\nWATCHDOG=trigger");
        for (int i = 0; i < LIMIT_MSEC / 10 && atomic_load(&n_deaths) == 0; i++) {
                struct pollfd p = { .fd = -1 };
                poll(&p, 1, 10);
        }
        ck_assert_int_eq(atomic_load(&n_deaths), 1);
        ck_assert_int_eq(atomic_load(&n_syncs), 1);
        scene_close(&s);
}

TEST(new_thresholds_hold_at_once) {
        Scene s;
        scene_open(&s);
        StallConfig config = { .hung_warnings = 10 };
        QueueParams p = s.rig->queue->params;
        p.hung_task = HUNG_TASK_WALL;
        queue_set_params(s.rig->queue, &p);
        ck_assert_int_eq(start(&s, &config), 0);
        rig_submit(s.rig);
        config.hung_usec = 100000;
        watchdog_set_config(s.watchdog, &config, 0);
        turn_until(&s, STALL_HUNG);
        scene_close(&s);
}

TEST(what_cannot_be_had_is_said_and_leaves_nothing) {
        static const struct {
                FaultSeam seam;
                long nth;
                int error;
        } rows[] = { { FAULT_ALLOC, 1, -ENOMEM },
                     { FAULT_ALLOC, 2, -ENOMEM },
                     { FAULT_EVENTFD, 1, -EMFILE },
                     { FAULT_THREAD, 1, -EAGAIN } };
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Scene s;
                scene_open(&s);
                fault_set(rows[i].seam, rows[i].nth, false);
                ck_assert_int_eq(start(&s, &quiet), rows[i].error);
                fault_set(rows[i].seam, 0, false);
                scene_close(&s);
        }
}

RUN_TESTS("watchdog", 60, test_a_service_manager_that_does_not_read_stops_nobody,
          test_a_stall_comes_to_the_loop_which_has_to_log_it, test_what_a_busy_loop_does_not_take_the_thread_logs,
          test_signs_of_life_are_sent_while_the_loop_turns_and_not_when_it_does_not,
          test_a_panic_syncs_the_store_then_tells_status_and_trigger_at_once_and_then_dies,
          test_new_thresholds_hold_at_once, test_what_cannot_be_had_is_said_and_leaves_nothing)
