/* SPDX-License-Identifier: MIT */
/* Who tells of memory pressure, played by FIFOs, sockets and files of the test. */

#include "pressurewatch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

typedef struct Scene {
        uv_loop_t loop;
        uv_timer_t limit;
        bool timed_out;
        PressureWatch *watch;
        PressureConfig config;
        unsigned n_pressed;
        char dir[64], path[4][96];
} Scene;

static void on_pressed(void *host) {
        Scene *s = host;
        s->n_pressed++;
        uv_stop(&s->loop);
}

static void on_limit(uv_timer_t *timer) {
        Scene *s = timer->data;
        s->timed_out = true;
        uv_stop(&s->loop);
}

static const char *place(Scene *s, unsigned i, const char *name) {
        snprintf(s->path[i], sizeof(s->path[i]), "%s/%s", s->dir, name);
        return s->path[i];
}

static const char *make_fifo(Scene *s, unsigned i, const char *name) {
        ck_assert_int_eq(mkfifo(place(s, i, name), 0600), 0);
        return s->path[i];
}

static void put(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
        close_fd(fd);
}

/* Of a disk: what is written to ask for a watch goes over the first line. */
static void put_counter(const char *path, unsigned total) {
        char text[128];
        snprintf(text, sizeof(text), "(room for what is written)\nsome avg10=0.00 total=%u\n", total);
        put(path, text);
}

static void scene_open(Scene *s) {
        memset(s, 0, sizeof(*s));
        uv_loop_init(&s->loop);
        uv_timer_init(&s->loop, &s->limit);
        s->limit.data = s;
        strcpy(s->dir, "/tmp/eqd-pressure.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(s->dir));
        s->config = (PressureConfig) {
                .wanted = "auto", .system = place(s, 3, "system"), .threshold_usec = 200000, .interval_usec = 5000
        };
}

static PressureKind scene_watch(Scene *s) {
        ck_assert_int_eq(pressure_watch_open(&s->loop, &s->config, on_pressed, s, &s->watch), 0);
        return pressure_watch_kind(s->watch);
}

static void scene_close(Scene *s) {
        s->watch = pressure_watch_close(s->watch);
        uv_close((uv_handle_t *)&s->limit, NULL);
        uv_run(&s->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&s->loop), 0);
        for (unsigned i = 0; i < 4; i++)
                if (*s->path[i])
                        (void)unlink(s->path[i]);
        ck_assert_int_eq(rmdir(s->dir), 0);
}

/* Turns the loop until it was pressed n times in all; the limit of time is what fails. */
static void until_pressed(Scene *s, unsigned n) {
        uv_timer_start(&s->limit, on_limit, 3600 * 1000, 0); /* keeps the loop going */
        while (s->n_pressed < n)
                uv_run(&s->loop, UV_RUN_DEFAULT);
        uv_timer_stop(&s->limit);
}

/* What is there by now is taken, and nothing else comes. */
static void settle(Scene *s) {
        uv_timer_start(&s->limit, on_limit, 10000, 0); /* keeps the loop going */
        for (int i = 0; i < 3; i++)
                uv_run(&s->loop, UV_RUN_NOWAIT);
        uv_timer_stop(&s->limit);
}

static void write_to(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
        close_fd(fd);
}

TEST(each_byte_in_a_fifo_is_an_event_and_many_at_once_are_one) {
        Scene s;
        scene_open(&s);
        s.config.watch = make_fifo(&s, 0, "fifo");
        ck_assert_int_eq(scene_watch(&s), PRESSURE_STREAM);
        ck_assert_str_eq(pressure_watch_text(s.watch), s.path[0]);
        settle(&s);
        ck_assert_uint_eq(s.n_pressed, 0);
        write_to(s.path[0], "x");
        until_pressed(&s, 1);
        write_to(s.path[0], "many bytes");
        until_pressed(&s, 2);
        settle(&s);
        ck_assert_uint_eq(s.n_pressed, 2);
        ck_assert_int_eq(pressure_watch_kind(s.watch), PRESSURE_STREAM); /* who wrote is gone: no end */
        scene_close(&s);
}

TEST(a_socket_gets_the_decoded_trigger_and_its_end_is_the_end) {
        Scene s;
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        char got[64] = "";
        scene_open(&s);
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        strcpy(a.sun_path, place(&s, 0, "socket"));
        ck_assert(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 1) == 0);
        s.config.watch = s.path[0];
        s.config.write = "c29tZSAyMDAwMDAgMjAwMDAwMAA=";
        ck_assert_int_eq(scene_watch(&s), PRESSURE_STREAM);
        int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_int_eq(read(peer, got, sizeof(got)), 20);
        ck_assert_str_eq(got, "some 200000 2000000");
        ck_assert_int_eq(write(peer, "!", 1), 1);
        until_pressed(&s, 1);
        close_fd(peer);
        close_fd(listener);
        settle(&s);
        ck_assert_int_eq(pressure_watch_kind(s.watch), PRESSURE_OFF);
        ck_assert_uint_eq(s.n_pressed, 1);
        scene_close(&s);
}

TEST(dev_null_and_an_empty_name_and_off_mean_nobody) {
        Scene s;
        scene_open(&s);
        put(place(&s, 3, "system"), "some total=1\n"); /* would be taken else */
        s.config.watch = "/dev/null";
        ck_assert_int_eq(scene_watch(&s), PRESSURE_OFF);
        s.watch = pressure_watch_close(s.watch);
        s.config.watch = "";
        ck_assert_int_eq(scene_watch(&s), PRESSURE_OFF);
        s.watch = pressure_watch_close(s.watch);
        s.config.wanted = "off";
        s.config.watch = make_fifo(&s, 0, "fifo");
        ck_assert_int_eq(scene_watch(&s), PRESSURE_OFF);
        scene_close(&s);
}

static void ck_refuses(Scene *s, const char *why) {
        ck_assert_int_eq(scene_watch(s), PRESSURE_OFF);
        ck_assert_msg(strstr(pressure_watch_text(s->watch), why), "%s", pressure_watch_text(s->watch));
        s->watch = pressure_watch_close(s->watch);
}

TEST(what_the_service_manager_names_and_is_no_good_is_said_and_nothing_else_taken) {
        Scene s;
        scene_open(&s);
        put(place(&s, 3, "system"), "some total=1\n");
        s.config.watch = "relative";
        ck_refuses(&s, "is no absolute path");
        s.config.watch = "/does/not/exist";
        ck_refuses(&s, "No such file");
        s.config.watch = s.dir;
        ck_refuses(&s, "no pressure file of the kernel");
        put(place(&s, 0, "file"), "");
        s.config.watch = s.path[0]; /* on a disk */
        ck_refuses(&s, "no pressure file of the kernel");
        s.config.watch = make_fifo(&s, 1, "fifo");
        s.config.write = "?";
        ck_refuses(&s, "no base64");
        scene_close(&s);
}

TEST(what_is_written_to_a_file_is_the_decoded_trigger) {
        Scene s;
        char got[64] = "";
        scene_open(&s);
        put(place(&s, 0, "file"), "");
        s.config.watch = s.path[0];
        s.config.write = "c29tZSAyMDAwMDAgMjAwMDAwMAA=";
        ck_refuses(&s, "no pressure file of the kernel"); /* but by then it has been written */
        int fd = open(s.path[0], O_RDONLY | O_CLOEXEC);
        ck_assert_int_eq(read(fd, got, sizeof(got)), 20);
        ck_assert_str_eq(got, "some 200000 2000000");
        close_fd(fd);
        scene_close(&s);
}

TEST(a_path_of_the_configuration_goes_before_the_environment) {
        Scene s;
        scene_open(&s);
        s.config.wanted = make_fifo(&s, 0, "configured");
        s.config.watch = make_fifo(&s, 1, "environment");
        ck_assert_int_eq(scene_watch(&s), PRESSURE_STREAM);
        ck_assert_str_eq(pressure_watch_text(s.watch), s.path[0]);
        scene_close(&s);
}

/* FIFOs take a trigger as a file of the kernel would; files of a disk can only be looked at. */
TEST(the_own_cgroup_comes_first_then_the_system_then_their_counters) {
        Scene s;
        scene_open(&s);
        s.config.cgroup = s.dir;
        make_fifo(&s, 0, "memory.pressure");
        make_fifo(&s, 3, "system");
        ck_assert_int_eq(scene_watch(&s), PRESSURE_STREAM);
        ck_assert_str_eq(pressure_watch_text(s.watch), s.path[0]);
        s.watch = pressure_watch_close(s.watch);
        ck_assert_int_eq(unlink(s.path[0]), 0);
        put_counter(s.path[0], 5);
        ck_assert_int_eq(scene_watch(&s), PRESSURE_STREAM);
        ck_assert_str_eq(pressure_watch_text(s.watch), s.path[3]);
        s.watch = pressure_watch_close(s.watch);
        ck_assert_int_eq(unlink(s.path[3]), 0);
        put_counter(s.path[0], 5);
        ck_assert_int_eq(scene_watch(&s), PRESSURE_COUNTER);
        ck_assert_str_eq(pressure_watch_text(s.watch), s.path[0]);
        s.watch = pressure_watch_close(s.watch);
        s.config.cgroup = NULL;
        put_counter(s.path[3], 5);
        ck_assert_int_eq(scene_watch(&s), PRESSURE_COUNTER);
        ck_assert_str_eq(pressure_watch_text(s.watch), s.path[3]);
        s.watch = pressure_watch_close(s.watch);
        put(s.path[3], "nonsense");
        ck_refuses(&s, "no source");
        ck_assert_int_eq(unlink(s.path[3]), 0);
        ck_refuses(&s, "No such file");
        scene_close(&s);
}

TEST(a_counter_is_an_event_when_it_grows_by_the_threshold_within_a_look) {
        Scene s;
        scene_open(&s);
        put_counter(place(&s, 3, "system"), 1000);
        ck_assert_int_eq(scene_watch(&s), PRESSURE_COUNTER);
        put_counter(s.path[3], 300000);
        until_pressed(&s, 1);
        put_counter(s.path[3], 200); /* went back: whatever that is, it is none */
        uv_timer_start(&s.limit, on_limit, 50, 0);
        uv_run(&s.loop, UV_RUN_DEFAULT);
        ck_assert(s.timed_out);
        s.timed_out = false;
        ck_assert_uint_eq(s.n_pressed, 1);
        put_counter(s.path[3], 200200);
        until_pressed(&s, 2);
        put(s.path[3], "");
        uv_timer_start(&s.limit, on_limit, 50, 0);
        uv_run(&s.loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(pressure_watch_kind(s.watch), PRESSURE_OFF);
        scene_close(&s);
}

TEST(what_fits_is_of_the_same_wish_and_threshold_and_not_missing) {
        Scene s;
        scene_open(&s);
        s.config.watch = "/dev/null";
        (void)scene_watch(&s);
        ck_assert(pressure_watch_fits(s.watch, &s.config));
        s.watch = pressure_watch_close(s.watch);
        s.config.wanted = place(&s, 0, "fifo");
        ck_assert_int_eq(scene_watch(&s), PRESSURE_OFF);
        ck_assert(!pressure_watch_fits(s.watch, &s.config));
        s.watch = pressure_watch_close(s.watch);
        make_fifo(&s, 0, "fifo");
        ck_assert_int_eq(scene_watch(&s), PRESSURE_STREAM);
        ck_assert(pressure_watch_fits(s.watch, &s.config));
        s.config.threshold_usec++;
        ck_assert(!pressure_watch_fits(s.watch, &s.config));
        s.config.threshold_usec--;
        s.config.wanted = "off";
        ck_assert(!pressure_watch_fits(s.watch, &s.config));
        scene_close(&s);
}

TEST(without_memory_it_is_an_error_or_the_next_source) {
        Scene s;
        scene_open(&s);
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_int_eq(pressure_watch_open(&s.loop, &s.config, on_pressed, &s, &s.watch), -ENOMEM);
        s.config.watch = make_fifo(&s, 0, "fifo");
        fault_set(FAULT_ALLOC, 2, false);
        ck_assert_int_eq(scene_watch(&s), PRESSURE_OFF);
        ck_assert_ptr_nonnull(strstr(pressure_watch_text(s.watch), "Cannot allocate memory"));
        scene_close(&s);
}

/* A child that wants all of the CPU that others want, too. */
static pid_t contend(void) {
        pid_t pid = fork();
        if (pid != 0)
                return pid;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail */
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(0, &one);
        (void)sched_setaffinity(0, sizeof(one), &one);
        for (volatile bool for_ever = true; for_ever;)
                ;
        _exit(0);
}

/* The kernel itself: of its three files that of the CPUs is the one that a test can put under pressure. */
TEST(a_trigger_of_the_kernel_is_an_event_as_often_as_there_is_pressure) {
        static const char path[] = "/proc/pressure/cpu";
        Scene s;
        if (access(path, W_OK) < 0) {
                printf("# not tried: %s: %s\n", path, strerror(errno));
                return;
        }
        scene_open(&s);
        s.config.system = path;
        s.config.threshold_usec = 1000;
        ck_assert_msg(scene_watch(&s) == PRESSURE_TRIGGER, "%s", pressure_watch_text(s.watch));
        ck_assert_str_eq(pressure_watch_text(s.watch), path);
        pid_t children[] = { contend(), contend() };
        until_pressed(&s, 3); /* one within each window */
        for (size_t i = 0; i < ELEMENTSOF(children); i++) {
                ck_assert_int_eq(kill(children[i], SIGKILL), 0);
                ck_assert_int_eq(waitpid(children[i], NULL, 0), children[i]);
        }
        ck_assert_int_eq(pressure_watch_kind(s.watch), PRESSURE_TRIGGER);
        scene_close(&s);
}

/* A cgroup of its own, where that can be made; else false. */
static bool make_cgroup(Scene *s, unsigned i) {
        static const char *const roots[] = { "/sys/fs/cgroup/unified", "/sys/fs/cgroup" };
        for (size_t k = 0; k < ELEMENTSOF(roots); k++) {
                char pressure[128];
                snprintf(s->path[i], sizeof(s->path[i]), "%s/%s", roots[k], strrchr(s->dir, '/') + 1);
                snprintf(pressure, sizeof(pressure), "%s/memory.pressure", s->path[i]);
                if (mkdir(s->path[i], 0755) == 0 && access(pressure, W_OK) == 0)
                        return true;
                (void)rmdir(s->path[i]);
        }
        *s->path[i] = '\0';
        return false;
}

TEST(a_cgroup_that_goes_takes_its_trigger_along_and_that_is_the_end) {
        Scene s;
        scene_open(&s);
        if (!make_cgroup(&s, 0)) {
                printf("# not tried: no cgroup can be made\n");
                scene_close(&s);
                return;
        }
        s.config.cgroup = s.path[0];
        ck_assert_msg(scene_watch(&s) == PRESSURE_TRIGGER, "%s", pressure_watch_text(s.watch));
        ck_assert_ptr_nonnull(strstr(pressure_watch_text(s.watch), s.path[0]));
        ck_assert_int_eq(rmdir(s.path[0]), 0);
        *s.path[0] = '\0';
        uv_timer_start(&s.limit, on_limit, 3600 * 1000, 0); /* as in until_pressed() */
        while (pressure_watch_kind(s.watch) != PRESSURE_OFF)
                uv_run(&s.loop, UV_RUN_ONCE);
        ck_assert_uint_eq(s.n_pressed, 0);
        scene_close(&s);
}

/* libuv keeps two descriptors from the first loop on, which are no leak of a test. */
__attribute__((constructor)) static void before_tests(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

RUN_TESTS("pressurewatch", 30, test_each_byte_in_a_fifo_is_an_event_and_many_at_once_are_one,
          test_a_socket_gets_the_decoded_trigger_and_its_end_is_the_end,
          test_dev_null_and_an_empty_name_and_off_mean_nobody,
          test_what_the_service_manager_names_and_is_no_good_is_said_and_nothing_else_taken,
          test_what_is_written_to_a_file_is_the_decoded_trigger,
          test_a_path_of_the_configuration_goes_before_the_environment,
          test_the_own_cgroup_comes_first_then_the_system_then_their_counters,
          test_a_counter_is_an_event_when_it_grows_by_the_threshold_within_a_look,
          test_what_fits_is_of_the_same_wish_and_threshold_and_not_missing,
          test_a_trigger_of_the_kernel_is_an_event_as_often_as_there_is_pressure,
          test_a_cgroup_that_goes_takes_its_trigger_along_and_that_is_the_end,
          test_without_memory_it_is_an_error_or_the_next_source)
