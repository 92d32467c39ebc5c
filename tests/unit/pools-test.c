/* SPDX-License-Identifier: MIT */
#include <sys/mman.h>

#include "manager-host.h"

/* k=v... ended by NULL. 0, or what it was refused with. */
static int pool_set(Host *h, const char *name, bool create, const char *const *set) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        uint32_t n = 0;
        PoolRecord *p;
        for (; set && set[n]; n++)
                eq_pack_cstr(&pk, set[n]);
        EqArray array = { .raw = eq_bytes(b.data, b.len), .n = n };
        int r = create ? manager_pool_create(h->m, eq_str(name), &array, false, &p, &h->refusal)
                       : manager_find_pool(h->m, eq_str(name), &p, &h->refusal);
        if (r == 0 && !create)
                r = manager_pool_set(h->m, p, &array, &h->refusal);
        eq_buffer_done(&b);
        return r;
}
#define SET(...) ((const char *const[]) { __VA_ARGS__, NULL })

static PoolRecord *pool_made(Host *h, const char *name, const char *const *set) {
        int r = pool_set(h, name, true, set);
        ck_assert_msg(r == 0, "%s", h->refusal.text);
        return manager_pool(h->m, eq_str(name));
}

static int queue_move(Host *h, const char *queue, const char *set) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        Caller c = root(h);
        eq_pack_cstr(&pk, set);
        EqArray array = { .raw = eq_bytes(b.data, b.len), .n = 1 };
        int r = manager_queue_set(h->m, &c, manager_queue(h->m, eq_str(queue)), &array, &h->refusal);
        eq_buffer_done(&b);
        return r;
}

static const Pool *pool_of(Host *h, const char *queue) {
        return manager_queue(h->m, eq_str(queue))->queue->pool;
}

TEST(default_is_always_there_and_has_the_slots_of_the_daemon) {
        Host h;
        host_init(&h);
        PoolRecord *p = manager_pool(h.m, eq_str("default"));
        ck_assert_ptr_eq(p->pool, h.m->pool);
        ck_assert_uint_eq(p->pool->n_slots_max, 256);
        ck_assert_str_eq(pool_record_origin(p), "built-in");
        ck_assert_ptr_eq(pool_of(&h, "default"), p->pool);
        ck_assert_int_eq(manager_pool_rm(h.m, p, &h.refusal), -EBUSY);
        ck_assert_int_eq(pool_set(&h, "default", true, NULL), -EEXIST);
        ck_assert_int_eq(pool_set(&h, "default", false, SET("slots=3")), 0);
        ck_assert_uint_eq(p->pool->n_slots_max, 3);
        ck_assert_int_eq(pool_set(&h, "default", false, SET("slots=")), 0);
        ck_assert_uint_eq(p->pool->n_slots_max, 256);
        host_done(&h);
}

TEST(a_pool_bounds_what_runs_over_its_queues) {
        Host h;
        host_init(&h);
        pool_made(&h, "two", SET("slots=2", "nice=7"));
        host_queue(&h, "a", SET("max_active=9", "pool=two"));
        host_queue(&h, "b", SET("max_active=9", "pool=two"));
        TaskRecord *a1 = host_task(&h, "a", (EqSubmit) { 0 }), *a2 = host_task(&h, "a", (EqSubmit) { 0 });
        ck_assert_int_eq(h.m->commands->last_setup.nice, 7);
        const TaskRecord *b1 = host_task(&h, "b", (EqSubmit) { 0 });
        ck_assert_state(a2, RUNNING);
        ck_assert_state(b1, QUEUED);
        WhyView why;
        view_why(h.m, b1, &why);
        ck_assert(eq_bytes_eq(why.row.reason, eq_str("slots")));
        ck_assert_ptr_nonnull(strstr(why.detail, "all slots of pool two are taken, 2 in all"));
        const TaskRecord *d = host_task(&h, "default", (EqSubmit) { 0 });
        ck_assert_state(d, RUNNING);
        ck_assert_int_eq(h.m->commands->last_setup.nice, 0);
        ck_assert_uint_eq(manager_n_running(h.m), 3);
        host_end(&h, a1, TASK_OK);
        ck_assert_state(b1, RUNNING);
        PoolView v = POOL_VIEW_NULL;
        ck_assert_int_eq(view_pool(h.m, manager_pool(h.m, eq_str("two"))->pool, &v), 0);
        ck_assert_uint_eq(v.row.busy, 2);
        ck_assert_uint_eq(v.row.started, 3);
        ck_assert_uint_eq(v.row.queues, 2);
        ck_assert(eq_bytes_eq(v.row.kind, eq_str("command")));
        ck_assert(eq_bytes_eq(v.row.origin, eq_str("runtime")));
        pool_view_done(&v);
        host_done(&h);
}

TEST(slots_grow_at_once_and_shrink_without_stopping_anything) {
        Host h;
        host_init(&h);
        pool_made(&h, "p", SET("slots=1"));
        host_queue(&h, "q", SET("max_active=9", "pool=p"));
        TaskRecord *t[4];
        for (int i = 0; i < 4; i++)
                t[i] = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(pool_set(&h, "p", false, SET("slots=3")), 0);
        ck_assert_state(t[2], RUNNING);
        ck_assert_state(t[3], QUEUED);
        ck_assert_int_eq(pool_set(&h, "p", false, SET("slots=1")), 0);
        ck_assert_uint_eq(manager_n_running(h.m), 3);
        host_end(&h, t[0], TASK_OK);
        host_end(&h, t[1], TASK_OK);
        ck_assert_state(t[3], QUEUED);
        host_end(&h, t[2], TASK_OK);
        ck_assert_state(t[3], RUNNING);
        host_done(&h);
}

TEST(what_is_no_attribute_no_pool_or_no_name_is_refused_and_changes_nothing) {
        Host h;
        host_init(&h);
        pool_made(&h, "p", NULL);
        const char *const bad[] = { "slots=0",  "slots=65537", "slots=many", "nice=-1",
                                    "nosuch=1", "slots",       "kind=nosuch" };
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                ck_assert_int_eq(pool_set(&h, "p", false, SET(bad[i])), -EINVAL);
                ck_assert_int_eq(pool_set(&h, "new", true, SET(bad[i])), -EINVAL);
                ck_assert_int_eq(h.refusal.code, EQ_E_INVALID);
        }
        ck_assert_ptr_null(manager_pool(h.m, eq_str("new")));
        ck_assert_uint_eq(manager_pool(h.m, eq_str("p"))->pool->n_slots_max, 256);
        ck_assert_int_eq(pool_set(&h, "-p", true, NULL), -EINVAL);
        ck_assert_int_eq(pool_set(&h, "nosuch", false, NULL), -ENOENT);
        ck_assert_int_eq(h.refusal.code, EQ_E_NO_POOL);
        ck_assert_int_eq(queue_move(&h, "default", "pool=nosuch"), -ENOENT);
        ck_assert_str_eq(manager_queue(h.m, eq_str("default"))->attributes.pool, "default");
        ck_assert_ptr_eq(pool_of(&h, "default"), h.m->pool);
        host_done(&h);
}

TEST(all_pools_together_have_no_more_slots_than_the_spawner) {
        Host h;
        host_init(&h);
        ck_assert_int_eq(pool_set(&h, "p", true, SET("slots=65281")), -EINVAL);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "65537; at most 65536"));
        pool_made(&h, "p", SET("slots=65280"));
        ck_assert_int_eq(pool_set(&h, "default", false, SET("slots=257")), -EINVAL);
        ck_assert_int_eq(pool_set(&h, "p", false, SET("slots=65279")), 0);
        ck_assert_int_eq(pool_set(&h, "default", false, SET("slots=257")), 0);
        host_done(&h);
}

TEST(a_pool_with_queues_is_not_removed_and_one_with_tasks_goes_when_they_have_ended) {
        Host h;
        host_init(&h);
        PoolRecord *p = pool_made(&h, "p", NULL);
        host_queue(&h, "q", SET("pool=p"));
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 }), *next = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(manager_pool_rm(h.m, p, &h.refusal), -EBUSY);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "pool p is used by 1 queue;"));
        ck_assert_int_eq(queue_move(&h, "q", "pool=default"), 0);
        ck_assert_int_eq(manager_pool_rm(h.m, p, &h.refusal), 0);
        timers_run(&h.m->timers);
        ck_assert_uint_eq(HASH_COUNT(h.m->pools), 3); /* t still runs in it */
        ck_assert_ptr_null(manager_pool(h.m, eq_str("p")));
        ck_assert_int_eq(queue_move(&h, "q", "pool=p"), -ENOENT);
        host_end(&h, t, TASK_OK);
        ck_assert_state(next, RUNNING);
        ck_assert_ptr_eq(next->task.slot->pool, h.m->pool);
        timers_run(&h.m->timers);
        ck_assert_uint_eq(HASH_COUNT(h.m->pools), 2);
        host_done(&h);
}

TEST(a_pool_that_is_going_can_be_made_again) {
        Host h;
        host_init(&h);
        PoolRecord *p = pool_made(&h, "p", SET("slots=1"));
        host_queue(&h, "q", SET("pool=p", "max_active=9"));
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(queue_move(&h, "q", "pool=default"), 0);
        ck_assert_int_eq(manager_pool_rm(h.m, p, &h.refusal), 0);
        ck_assert_ptr_eq(pool_made(&h, "p", SET("slots=2")), p);
        timers_run(&h.m->timers);
        ck_assert_ptr_eq(manager_pool(h.m, eq_str("p")), p);
        ck_assert_int_eq(queue_move(&h, "q", "pool=p"), 0);
        host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_uint_eq(p->pool->n_busy, 2); /* what still ran counts */
        ck_assert_state(host_task(&h, "q", (EqSubmit) { 0 }), QUEUED);
        host_end(&h, t, TASK_OK);
        host_done(&h);
}

TEST(a_kept_queue_whose_pool_is_gone_runs_in_default_until_the_pool_comes) {
        Host before, h;
        int fd = memfd_create("kept", MFD_CLOEXEC);
        host_init(&before);
        pool_made(&before, "p", NULL);
        host_queue(&before, "q", SET("pool=p"));
        queue_pause(manager_queue(before.m, eq_str("q"))->queue);
        host_task(&before, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(manager_keep(before.m, fd), 0);
        host_done(&before);

        host_init_from(&h, NULL, NULL, fd);
        close(fd);
        ck_assert_ptr_eq(pool_of(&h, "q"), h.m->pool);
        ck_assert_str_eq(manager_queue(h.m, eq_str("q"))->attributes.pool, "p");
        const PoolRecord *p = pool_made(&h, "p", NULL);
        ck_assert_ptr_eq(pool_of(&h, "q"), p->pool);
        ck_assert_int_eq(queue_resume(manager_queue(h.m, eq_str("q"))->queue), 0);
        ck_assert_uint_eq(p->pool->n_busy, 1);
        host_done(&h);
}

TEST(a_pool_is_made_or_not_when_memory_is_out) {
        Host h;
        host_init(&h);
        for (long n = 1;; n++) {
                fault_set(FAULT_ALLOC, n, false);
                int r = pool_set(&h, "p", true, SET("description=text"));
                fault_set(FAULT_ALLOC, 0, false);
                if (r == 0)
                        break;
                ck_assert_int_eq(r, -ENOMEM);
                ck_assert_ptr_null(manager_pool(h.m, eq_str("p")));
                ck_assert_uint_eq(HASH_COUNT(h.m->pools), 2);
                ck_assert_int_lt(n, 20);
        }
        ck_assert_str_eq(manager_pool(h.m, eq_str("p"))->attributes.description, "text");
        host_done(&h);
}

RUN_TESTS("pools", 60, test_default_is_always_there_and_has_the_slots_of_the_daemon,
          test_a_pool_bounds_what_runs_over_its_queues, test_slots_grow_at_once_and_shrink_without_stopping_anything,
          test_what_is_no_attribute_no_pool_or_no_name_is_refused_and_changes_nothing,
          test_all_pools_together_have_no_more_slots_than_the_spawner,
          test_a_pool_with_queues_is_not_removed_and_one_with_tasks_goes_when_they_have_ended,
          test_a_pool_that_is_going_can_be_made_again,
          test_a_kept_queue_whose_pool_is_gone_runs_in_default_until_the_pool_comes,
          test_a_pool_is_made_or_not_when_memory_is_out)
