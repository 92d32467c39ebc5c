/* SPDX-License-Identifier: MIT */
#include "manager-host.h"

static int set(Host *h, const char *name, const char *value) {
        Tunable t;
        int r = manager_find_tunable(h->m, eq_str(name), &t, &h->refusal);
        return r < 0 ? r : manager_tunable_set(h->m, &t, eq_str(value), &h->refusal);
}

static const char *get(Host *h, const char *name, bool *ret_changed) {
        static ParamView v;
        Tunable t;
        ck_assert_int_eq(manager_find_tunable(h->m, eq_str(name), &t, &h->refusal), 0);
        view_param(&t, &v);
        *ret_changed = t.changed;
        return v.value;
}

#define ck_assert_param(h, name, text, was_changed)                                                                    \
        do {                                                                                                           \
                bool changed_;                                                                                         \
                ck_assert_str_eq(get(h, name, &changed_), text);                                                       \
                ck_assert_int_eq(changed_, was_changed);                                                               \
        } while (0)

TEST(each_row_of_the_tables_is_found_by_the_name_that_it_is_listed_with) {
        Host h;
        Tunable t, again;
        size_t n = 0;
        host_init(&h);
        for (; manager_tunable(h.m, n, &t); n++) {
                ParamView v;
                view_param(&t, &v);
                ck_assert_int_eq(manager_find_tunable(h.m, eq_str(v.name), &again, &h.refusal), 0);
                ck_assert_ptr_eq(again.row, t.row);
                ck_assert(!t.changed);
        }
        ck_assert_uint_eq(n, daemon_settings_table.n + queue_attributes_table.n);
        host_done(&h);
}

TEST(what_is_set_is_in_force_at_once_and_lost_at_a_reload) {
        Host h;
        uint64_t waits;
        host_init(&h);
        host_queue(&h, "own", (const char *const[]) { "history=5", NULL });
        ck_assert_int_eq(set(&h, "limits.tasks_per_user", "7"), 0);
        ck_assert_int_eq(set(&h, "TasksPerUser", "8"), 0);
        ck_assert_uint_eq(h.m->users.limits[USER_TASKS], 8);
        ck_assert_int_eq(set(&h, "queue.history", "9"), 0);
        ck_assert_uint_eq(manager_queue(h.m, eq_str("default"))->attributes.history, 9);
        ck_assert_uint_eq(manager_queue(h.m, eq_str("own"))->attributes.history, 5);
        ck_assert_int_eq(set(&h, "commands.slots", "3"), 0);
        ck_assert_uint_eq(h.m->pool->n_slots_max, 3);
        ck_assert_param(&h, "limits.tasks_per_user", "8", true);
        ck_assert_param(&h, "queue.history", "9", true);
        ck_assert_int_eq(manager_reload(h.m, &waits, &h.refusal), 0);
        ck_assert_param(&h, "limits.tasks_per_user", "10000000", false);
        ck_assert_param(&h, "queue.history", "1000", false);
        ck_assert_uint_eq(h.m->pool->n_slots_max, 256);
        ck_assert_uint_eq(manager_queue(h.m, eq_str("default"))->attributes.history, 1000);
        host_done(&h);
}

TEST(the_names_and_the_minus_one_of_the_kernel_are_taken) {
        Host h;
        host_init(&h);
        ck_assert_int_eq(set(&h, "workqueue.mayday_initial_timeout_ms", "20"), 0);
        ck_assert_param(&h, "watchdog.mayday_initial_timeout", "20ms", true);
        ck_assert_uint_eq(h.m->engine.rescue.mayday_initial_usec, 20000);
        ck_assert_int_eq(set(&h, "create_cooldown_ms", "1500"), 0);
        ck_assert_uint_eq(h.m->engine.rescue.create_cooldown_usec, 1500000);
        ck_assert_int_eq(set(&h, "pressure_hold_ms", "0"), -EINVAL);
        ck_assert_int_eq(set(&h, "hung_task_warnings", "-1"), 0);
        ck_assert_param(&h, "watchdog.hung_task_warnings", "infinity", true);
        ck_assert_int_eq(manager_stall_config(h.m).hung_warnings, -1);
        ck_assert_int_eq(set(&h, "hung_task_warnings", "-2"), -EINVAL);
        ck_assert_int_eq(set(&h, "hung_task_check_interval_secs", "7"), 0);
        ck_assert_int_eq(set(&h, "hung_task_check_count", "9"), 0);
        ck_assert_uint_eq(manager_stall_config(h.m).hung_check_usec, 7 * USEC_PER_SEC);
        ck_assert_uint_eq(manager_stall_config(h.m).hung_check_count, 9);
        host_done(&h);
}

TEST(what_is_unknown_out_of_range_or_not_settable_is_refused_and_changes_nothing) {
        static const struct {
                const char *name, *value;
                int result;
                eq_error code;
                const char *says;
        } rows[] = {
                { "nosuch", "1", -ENOENT, EQ_E_NO_PARAM, "eqctl param ls" },
                { "limits.slots", "1", -ENOENT, EQ_E_NO_PARAM, "eqctl param ls" },
                { "", "1", -ENOENT, EQ_E_NO_PARAM, "eqctl param ls" },
                { "commands.slots", "0", -EINVAL, EQ_E_INVALID, "1..65536 slots" },
                { "commands.slots", "\n", -EINVAL, EQ_E_INVALID, "UTF-8 without control characters" },
                { "daemon.socket_mode", "0600", -EPERM, EQ_E_STATE, "restart eqd" },
                { "queue.user", "0", -EPERM, EQ_E_STATE, "[Queue] of eqd.conf and reload" },
                { "watchdog.memory_pressure", "often", -EINVAL, EQ_E_INVALID,
                  "neither auto nor off nor an absolute path" },
                { "queue.pool", "nosuch", -ENOENT, EQ_E_NO_POOL, "no pool nosuch" },
        };
        Host h;
        host_init(&h);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                ck_assert_int_eq(set(&h, rows[i].name, rows[i].value), rows[i].result);
                ck_assert_int_eq(h.refusal.code, rows[i].code);
                ck_assert_msg(strstr(h.refusal.text, rows[i].says) != NULL, "%s", h.refusal.text);
        }
        ck_assert_uint_eq(h.m->config->daemon_set | h.m->config->queue_defaults_set, 0);
        ck_assert_param(&h, "queue.pool", "default", false);
        host_done(&h);
}

TEST(the_watchdogs_threshold_is_that_of_pools_and_queues_that_have_none_of_their_own) {
        Host h;
        uint64_t waits;
        EqBuffer packed = { 0 };
        PoolRecord *p, *own;
        host_init(&h);
        EqArray none = { 0 };
        ck_assert_int_eq(manager_pool_create(h.m, eq_str("p"), &none, false, &p, &h.refusal), 0);
        ck_assert_int_eq(manager_pool_create(h.m, eq_str("own"), &none, false, &own, &h.refusal), 0);
        msgpack_packer packer = eq_packer(&packed);
        eq_pack_cstr(&packer, "stall_thresh=7s");
        EqArray mine = { .raw = eq_bytes(packed.data, packed.len), .n = 1 };
        ck_assert_int_eq(manager_pool_set(h.m, own, &mine, &h.refusal), 0);
        const QueueRecord *q = host_queue(&h, "q", NULL);
        const QueueRecord *q_own = host_queue(&h, "q_own", (const char *const[]) { "stall_thresh=3s", NULL });
        ck_assert_int_eq(set(&h, "watchdog.watchdog_thresh", "2s"), 0);
        ck_assert_uint_eq(WATCH_GET(p->pool->watch->stall_usec), 2 * USEC_PER_SEC);
        ck_assert_uint_eq(WATCH_GET(own->pool->watch->stall_usec), 7 * USEC_PER_SEC);
        ck_assert_uint_eq(WATCH_GET(h.m->threads->watch->stall_usec), 2 * USEC_PER_SEC);
        ck_assert_uint_eq(WATCH_GET(q->queue->watch->stall_usec), 2 * USEC_PER_SEC);
        ck_assert_uint_eq(WATCH_GET(q_own->queue->watch->stall_usec), 3 * USEC_PER_SEC);
        ck_assert_int_eq(set(&h, "watchdog_thresh", "infinity"), 0);
        ck_assert_uint_eq(WATCH_GET(p->pool->watch->stall_usec), 0);
        ck_assert_int_eq(manager_reload(h.m, &waits, &h.refusal), 0);
        ck_assert_uint_eq(WATCH_GET(q->queue->watch->stall_usec), 30 * USEC_PER_SEC);
        eq_buffer_done(&packed);
        host_done(&h);
}

TEST(more_slots_than_all_pools_may_have_are_refused_and_taken_back) {
        Host h;
        EqArray none = { 0 };
        PoolRecord *p;
        host_init(&h);
        ck_assert_int_eq(manager_pool_create(h.m, eq_str("p"), &none, false, &p, &h.refusal), 0);
        ck_assert_int_eq(set(&h, "commands.slots", "32769"), -EINVAL);
        ck_assert_param(&h, "commands.slots", "256", false);
        ck_assert_int_eq(set(&h, "commands.slots", "32768"), 0);
        ck_assert_uint_eq(p->pool->n_slots_max, 32768);
        host_done(&h);
}

RUN_TESTS("tunables", 30, test_each_row_of_the_tables_is_found_by_the_name_that_it_is_listed_with,
          test_what_is_set_is_in_force_at_once_and_lost_at_a_reload,
          test_the_names_and_the_minus_one_of_the_kernel_are_taken,
          test_what_is_unknown_out_of_range_or_not_settable_is_refused_and_changes_nothing,
          test_the_watchdogs_threshold_is_that_of_pools_and_queues_that_have_none_of_their_own,
          test_more_slots_than_all_pools_may_have_are_refused_and_taken_back)
