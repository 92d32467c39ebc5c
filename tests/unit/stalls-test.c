/* SPDX-License-Identifier: MIT */

#include "manager/stalls.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/procfs.h"
#include "manager-host.h"

static StallReport report(StallKind kind, StallPhase phase, uint64_t episode, uint64_t stuck_usec) {
        StallReport r = { .kind = kind,
                          .phase = phase,
                          .episode = episode,
                          .now_usec = 1000 * USEC_PER_SEC,
                          .stuck_usec = stuck_usec,
                          .reason = EQ_REASON_SERIAL };
        strcpy(r.pool, "command");
        return r;
}

static void take(Host *h, StallReport r) {
        manager_take_stall(h->m, &r, false);
}

static StallReport of_queue(const QueueRecord *q, StallReport r) {
        strcpy(r.queue, q->queue->name);
        r.queue_id = q->queue->id;
        return r;
}

TEST(a_queue_shows_its_stall_until_it_ends) {
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "mail", NULL);
        QueueView v = QUEUE_VIEW_NULL;
        h.m->want_events = true;
        StallReport r = of_queue(q, report(STALL_QUEUE, STALL_BEGIN, 1, 0));
        r.now_usec = clock_monotonic(h.m->clock);
        r.stuck_usec = 31 * USEC_PER_SEC;
        take(&h, r);
        ck_assert_uint_eq(h.n_events, 1);
        host_advance(&h, 4 * USEC_PER_SEC);
        ck_assert_int_eq(view_queue(h.m, q, &v), 0);
        ck_assert(EQ_HAS(&v.row, Queue, stalled_usec));
        ck_assert_uint_eq(v.row.stalled_usec, 35 * USEC_PER_SEC);
        ck_assert_uint_eq(v.row.stalls, 1);
        queue_view_done(&v);
        r.phase = STALL_END;
        take(&h, r);
        ck_assert_uint_eq(h.n_events, 2);
        v = (QueueView)QUEUE_VIEW_NULL;
        ck_assert_int_eq(view_queue(h.m, q, &v), 0);
        ck_assert(!EQ_HAS(&v.row, Queue, stalled_usec));
        ck_assert_uint_eq(v.row.stalls, 1);
        queue_view_done(&v);
        EqStat stat;
        view_stat(h.m, 0, &stat);
        ck_assert_uint_eq(stat.stalls, 1);
        ck_assert_uint_eq(stat.stalled, 0);
        host_done(&h);
}

TEST(parts_are_worse_than_pools_and_those_than_queues_and_of_a_kind_the_longest) {
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "mail", NULL);
        ck_assert_ptr_null(stalls_worst(&h.m->stalls));
        take(&h, of_queue(q, report(STALL_QUEUE, STALL_BEGIN, 1, 500)));
        take(&h, of_queue(q, report(STALL_QUEUE, STALL_BEGIN, 2, 900)));
        ck_assert_uint_eq(stalls_worst(&h.m->stalls)->episode, 2);
        take(&h, report(STALL_POOL, STALL_BEGIN, 3, 100));
        ck_assert_uint_eq(stalls_worst(&h.m->stalls)->episode, 3);
        take(&h, report(STALL_PART, STALL_BEGIN, 4, 10));
        ck_assert_uint_eq(stalls_worst(&h.m->stalls)->episode, 4);
        take(&h, report(STALL_PART, STALL_END, 4, 20));
        take(&h, report(STALL_POOL, STALL_END, 3, 20));
        ck_assert_uint_eq(stalls_worst(&h.m->stalls)->episode, 2);
        take(&h, of_queue(q, report(STALL_QUEUE, STALL_REPEAT, 1, 5000)));
        ck_assert_uint_eq(stalls_worst(&h.m->stalls)->episode, 1);
        host_done(&h);
}

TEST(the_stall_of_a_removed_queue_ends_under_its_name) {
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "mail", NULL);
        take(&h, of_queue(q, report(STALL_QUEUE, STALL_BEGIN, 1, 500)));
        uint64_t id = q->queue->id;
        queue_record_free(h.m, q);
        StallReport end = report(STALL_QUEUE, STALL_END, 1, 900);
        end.queue_id = id;
        take(&h, end);
        ck_assert_uint_eq(h.m->stalls.n, 0);
        host_done(&h);
}

static char detail[128];

static void note_detail(void *host, const EqEvent *e, bool has_owner, uid_t owner) {
        snprintf(detail, sizeof(detail), "%.*s", (int)e->detail.len, e->detail.data);
}

/* It was "queue mail: ", for an end has no reason. */
TEST(an_event_says_of_the_end_of_a_stall_that_it_is_over) {
        static const StallKind kinds[] = { STALL_QUEUE, STALL_POOL, STALL_PART };
        static const char *const texts[][2] = {
                { "queue mail: serial", "queue mail goes on" },
                { "pool command: serial", "pool command goes on" },
                { "store does not answer", "store answers again" },
        };
        Host h;
        ManagerHooks hooks = host_hooks;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "mail", NULL);
        hooks.event = note_detail;
        h.m->hooks = &hooks;
        h.m->want_events = true;
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
                for (int over = 0; over < 2; over++) {
                        StallReport r = of_queue(q, report(kinds[i], over ? STALL_END : STALL_BEGIN, i + 1, 500));
                        strcpy(r.part, "store");
                        r.reason = over ? EQ_REASON_NONE : EQ_REASON_SERIAL;
                        take(&h, r);
                        ck_assert_str_eq(detail, texts[i][over]);
                }
        host_done(&h);
}

TEST(more_stalls_than_are_kept_are_counted_and_their_ends_do_no_harm) {
        Host h;
        host_init(&h);
        for (uint64_t i = 1; i <= STALLS_KEPT + 10; i++)
                take(&h, report(STALL_QUEUE, STALL_BEGIN, i, 500));
        ck_assert_uint_eq(h.m->stalls.n, STALLS_KEPT);
        ck_assert_uint_eq(h.m->stalls.n_begun, STALLS_KEPT + 10);
        for (uint64_t i = STALLS_KEPT + 10; i > 0; i--)
                take(&h, report(STALL_QUEUE, STALL_END, i, 500));
        ck_assert_uint_eq(h.m->stalls.n, 0);
        host_done(&h);
}

TEST(a_hung_task_that_has_ended_meanwhile_is_no_event) {
        Host h;
        host_init(&h);
        h.m->want_events = true;
        QueueRecord *q = host_queue(&h, "mail", NULL);
        TaskRecord *t = host_task(&h, "mail", (EqSubmit) { 0 });
        unsigned before = h.n_events;
        StallReport r = of_queue(q, report(STALL_HUNG, STALL_BEGIN, 0, 500));
        r.seq = t->task.seq;
        take(&h, r);
        ck_assert_uint_eq(h.n_events, before + 1);
        r.seq = 99;
        take(&h, r);
        ck_assert_uint_eq(h.n_events, before + 1);
        ck_assert_uint_eq(h.m->stalls.n_hung, 2);
        host_end(&h, t, TASK_OK);
        host_done(&h);
}

TEST(the_loop_knows_what_waits_longest_and_why_no_worker_can_be_made) {
        Host h;
        StallDetail d;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "mail", (const char *const[]) { "max_active=2", NULL });
        for (int i = 0; i < 3; i++)
                (void)host_task(&h, "mail", (EqSubmit) { 0 });
        StallReport r = of_queue(q, report(STALL_QUEUE, STALL_BEGIN, 1, 500));
        strcpy(r.pool, q->queue->pool->name);
        r.n_ready = 1;
        manager_stall_detail(h.m, &r, &d);
        ck_assert_uint_eq(d.n_pending, 1);
        ck_assert_uint_eq(d.oldest_seq, 3);
        ck_assert_int_eq(d.create_error, 0);
        pool_cool_down(q->queue->pool, EQ_REASON_CREATE_FAILURE, -ENOMEM);
        manager_stall_detail(h.m, &r, &d);
        ck_assert_int_eq(d.create_error, -ENOMEM);
        strcpy(r.pool, "none");
        manager_stall_detail(h.m, &r, &d);
        ck_assert_int_eq(d.create_error, 0);
        host_done(&h);
}

static void set_watchdog(Config *c) {
        c->daemon.watchdog_thresh_usec = PARAM_INFINITY;
        c->daemon.hung_task_warnings = PARAM_INFINITY;
        c->daemon.panic_on_stall = 3;
        c->daemon.panic_scope = PANIC_SCOPE_QUEUE;
        ck_assert_int_eq(config_settle_pool_defaults(c), 0);
}

/* ---- the record of a hung task; the journal is played by the test ---- */

static char journal[65536];

int sd_journal_sendv(const struct iovec *iov, int n);
int sd_journal_sendv(const struct iovec *iov, int n) {
        for (int i = 0; i < n; i++) {
                size_t len = strlen(journal);
                snprintf(journal + len, sizeof(journal) - len, "%.*s|", (int)iov[i].iov_len,
                         (const char *)iov[i].iov_base);
        }
        return 0;
}

typedef struct Blocked {
        int fds[2];
        _Atomic pid_t tid;
} Blocked;

static void *read_one(void *arg) {
        Blocked *b = arg;
        char c;
        atomic_store(&b->tid, gettid());
        ck_assert_int_eq(read(b->fds[0], &c, 1), 1);
        return NULL;
}

static void start_journal(void) {
        char stream[64];
        struct stat st;
        ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
        snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
        setenv("JOURNAL_STREAM", stream, 1);
        ck_assert_int_eq(log_start(LOG_INFO), 0);
}

/* What the watch's thread writes when the loop does not take it. */
TEST(a_record_says_what_the_pool_is_at_also_without_the_loop) {
        start_journal();
        StallReport r = report(STALL_POOL, STALL_BEGIN, 1, 31 * USEC_PER_SEC);
        stall_log(&r, NULL);
        log_stop();
        ck_assert_ptr_null(strstr(journal, "EQD_WORKERS=")); /* not known is not none */
        ck_assert_ptr_null(strstr(journal, "EQD_MAYDAY="));
        start_journal();
        r.has_pool = true;
        r.n_workers = 7;
        r.n_idle = 0;
        r.creates = 1;
        stall_log(&r, NULL);
        log_stop();
        ck_assert_ptr_nonnull(strstr(journal, "|EQD_WORKERS=7|"));
        ck_assert_ptr_nonnull(strstr(journal, "|EQD_IDLE=0|"));
        ck_assert_ptr_nonnull(strstr(journal, "|EQD_MANAGER=1|"));
        ck_assert_ptr_nonnull(strstr(journal, "|EQD_MAYDAY=0|"));
}

TEST(the_record_of_a_hung_task_says_which_thread_is_at_it_and_where_that_waits) {
        char want[64];
        Blocked b = { .tid = 0 };
        pthread_t thread;
        ProcfsWhere w = { 0 };
        ck_assert_int_eq(pipe(b.fds), 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, read_one, &b), 0);
        while (w.state != 'S' || w.system_call != SYS_read) { /* the limit of time is what fails here */
                sched_yield();
                procfs_where(getpid(), atomic_load(&b.tid), &w);
        }
        start_journal();
        StallReport r = report(STALL_HUNG, STALL_BEGIN, 0, 120 * USEC_PER_SEC);
        strcpy(r.queue, "mail");
        strcpy(r.task_queue, "mail");
        r.seq = 77;
        r.tid = (uint64_t)b.tid;
        stall_log(&r, NULL);
        log_stop();
        snprintf(want, sizeof(want), "MESSAGE=INFO: task mail/#77:%d blocked for more than 120 seconds, state S",
                 b.tid);
        ck_assert_ptr_nonnull(strstr(journal, want));
        snprintf(want, sizeof(want), "|EQD_WORKER_TID=%d|", b.tid);
        ck_assert_ptr_nonnull(strstr(journal, want));
        ck_assert_ptr_null(strstr(journal, "EQD_PID="));
        ck_assert_int_eq(strstr(journal, "system call ") != NULL, true);
        ck_assert_int_eq(strstr(journal, "|EQD_KERNEL_STACK=[<0>] ") != NULL, *w.stack != '\0');
        ck_assert_int_eq(write(b.fds[1], "x", 1), 1);
        pthread_join(thread, NULL);
        close_fd(b.fds[0]);
        close_fd(b.fds[1]);
}

TEST(infinite_settings_switch_off_or_never_end) {
        Host h;
        host_init_with(&h, set_watchdog);
        StallConfig c = manager_stall_config(h.m);
        ck_assert_uint_eq(c.watchdog_usec, 0);
        ck_assert_int_eq(c.hung_warnings, -1);
        ck_assert_uint_eq(c.panic_on_stall, 3);
        ck_assert_int_eq(c.panic_scope, PANIC_SCOPE_QUEUE);
        ck_assert_uint_eq(WATCH_GET(h.m->pool->watch->stall_usec), 0);
        host_done(&h);
}

RUN_TESTS("stalls", 30, test_a_queue_shows_its_stall_until_it_ends,
          test_parts_are_worse_than_pools_and_those_than_queues_and_of_a_kind_the_longest,
          test_the_stall_of_a_removed_queue_ends_under_its_name,
          test_an_event_says_of_the_end_of_a_stall_that_it_is_over,
          test_more_stalls_than_are_kept_are_counted_and_their_ends_do_no_harm,
          test_the_loop_knows_what_waits_longest_and_why_no_worker_can_be_made,
          test_a_hung_task_that_has_ended_meanwhile_is_no_event, test_infinite_settings_switch_off_or_never_end,
          test_a_record_says_what_the_pool_is_at_also_without_the_loop,
          test_the_record_of_a_hung_task_says_which_thread_is_at_it_and_where_that_waits)
