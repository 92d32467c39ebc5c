/* SPDX-License-Identifier: MIT */

#include "executor/endwatch.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "base/spinner.h"
#include "base/util.h"

#include "test.h"

typedef struct Rig {
        uv_loop_t loop;
        EndWatch *w;
        int in, out; /* of a pipe that a command would write into */
} Rig;

static void rig_init(Rig *rig) {
        ck_assert_int_eq(uv_loop_init(&rig->loop), 0);
        ck_assert_int_eq(end_watch_new(&rig->loop, &rig->w), 0);
        rig->in = rig->out = -1;
}

static void rig_done(Rig *rig) {
        rig->w = end_watch_free(rig->w);
        rig->in = close_fd(rig->in);
        rig->out = close_fd(rig->out);
        uv_run(&rig->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&rig->loop), 0);
        uv_library_shutdown(); /* its own descriptors */
}

static bool is_watching(const Rig *rig) {
        return uv_loop_alive(&rig->loop);
}

static bool is_spinning(const Rig *rig) {
        return is_watching(rig) && uv_backend_timeout(&rig->loop) == 0;
}

static void start(Rig *rig) {
        int fds[2];
        end_watch_leave(rig->w);
        uv_run(&rig->loop, UV_RUN_NOWAIT); /* what was closed is let go of */
        close_fd(rig->in);
        close_fd(rig->out);
        ck_assert_int_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        rig->in = fds[0];
        rig->out = fds[1];
        end_watch_started(rig->w, rig->in);
        uv_run(&rig->loop, UV_RUN_NOWAIT);
}

/* One soon after another; again if we were kept from being soon. False: we have one CPU only. */
static bool start_soon(Rig *rig) {
        if (!spinner_has_cpus())
                return false;
        do {
                end_watch_ended(rig->w);
                end_watch_ended(rig->w);
                start(rig);
        } while (!is_watching(rig));
        return true;
}

static void close_output(Rig *rig) {
        rig->out = close_fd(rig->out);
        uv_run(&rig->loop, UV_RUN_ONCE);
}

TEST(the_loop_is_awake_from_the_closing_of_the_output_to_the_end) {
        Rig rig;
        rig_init(&rig);
        while (start_soon(&rig)) {
                ck_assert(!is_spinning(&rig));
                close_output(&rig);
                bool was = is_spinning(&rig);
                end_watch_ended(rig.w);
                uv_run(&rig.loop, UV_RUN_NOWAIT);
                ck_assert(!is_watching(&rig));
                if (was) /* else we were kept from running for as long as it spins */
                        break;
        }
        rig_done(&rig);
}

TEST(it_sleeps_again_soon_if_the_end_does_not_come) {
        Rig rig;
        rig_init(&rig);
        if (start_soon(&rig)) {
                close_output(&rig);
                while (is_spinning(&rig))
                        uv_run(&rig.loop, UV_RUN_NOWAIT);
                ck_assert(!is_watching(&rig));
                end_watch_ended(rig.w);
                start(&rig);
                ck_assert(!is_watching(&rig)); /* it was in vain: the next occasion is passed over */
        }
        rig_done(&rig);
}

TEST(the_first_command_is_not_watched) {
        Rig rig;
        rig_init(&rig);
        start(&rig);
        ck_assert(!is_watching(&rig));
        rig_done(&rig);
}

TEST(output_that_is_written_wakes_nobody) {
        Rig rig;
        rig_init(&rig);
        if (start_soon(&rig)) {
                ck_assert_int_eq(write(rig.out, "x", 1), 1);
                uv_run(&rig.loop, UV_RUN_NOWAIT);
                ck_assert(!is_spinning(&rig));
                ck_assert(is_watching(&rig));
        }
        rig_done(&rig);
}

TEST(what_is_left_is_watched_no_more) {
        Rig rig;
        rig_init(&rig);
        if (start_soon(&rig)) {
                end_watch_leave(rig.w);
                rig.out = close_fd(rig.out);
                uv_run(&rig.loop, UV_RUN_NOWAIT);
                ck_assert(!is_watching(&rig));
        }
        if (start_soon(&rig)) {
                close_output(&rig);
                end_watch_leave(rig.w);
                ck_assert(!is_spinning(&rig));
        }
        rig_done(&rig);
}

TEST(on_one_cpu_nothing_is_watched) {
        cpu_set_t all, one;
        Rig rig;
        int cpu = sched_getcpu();
        ck_assert_int_ge(cpu, 0);
        CPU_ZERO(&one);
        CPU_SET((size_t)cpu, &one);
        ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
        ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
        rig_init(&rig);
        for (int i = 0; i < 100; i++) {
                end_watch_ended(rig.w);
                end_watch_ended(rig.w);
                start(&rig);
                ck_assert(!is_watching(&rig));
        }
        ck_assert_int_eq(sched_setaffinity(0, sizeof(all), &all), 0);
        rig_done(&rig);
}

RUN_TESTS("endwatch", 10, test_the_loop_is_awake_from_the_closing_of_the_output_to_the_end,
          test_it_sleeps_again_soon_if_the_end_does_not_come, test_the_first_command_is_not_watched,
          test_output_that_is_written_wakes_nobody, test_what_is_left_is_watched_no_more,
          test_on_one_cpu_nothing_is_watched)
