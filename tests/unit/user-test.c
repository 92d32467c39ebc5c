/* SPDX-License-Identifier: MIT */
#include "manager/user.h"

#include <errno.h>

#include "base/fault.h"
#include "test.h"

static Users limited(uint64_t connections) {
        Users u = USERS_NULL;
        u.limits[USER_CONNECTIONS] = connections;
        u.unlimited_uid = 990;
        return u;
}

TEST(one_uid_is_one_user_while_anybody_holds_it) {
        Users users = limited(1);
        User *a, *b, *c;

        ck_assert_int_eq(user_get(&users, 1000, &a), 0);
        ck_assert_int_eq(user_get(&users, 1000, &b), 0);
        ck_assert_int_eq(user_get(&users, 1001, &c), 0);
        ck_assert_ptr_eq(a, b);
        ck_assert_ptr_ne(a, c);
        user_unref(a);
        ck_assert_ptr_eq(users.by_uid, b);
        user_unref(b);
        user_unref(c);
        ck_assert_ptr_null(user_unref(NULL));
        users_deinit(&users);
}

TEST(a_charge_over_the_limit_changes_nothing_and_a_refund_makes_room) {
        Users users = limited(3);
        User *u;

        ck_assert_int_eq(user_get(&users, 1000, &u), 0);
        ck_assert(user_charge(u, USER_CONNECTIONS, 3));
        ck_assert(!user_charge(u, USER_CONNECTIONS, 1));
        ck_assert_uint_eq(u->used[USER_CONNECTIONS], 3);
        user_refund(u, USER_CONNECTIONS, 2);
        ck_assert(!user_charge(u, USER_CONNECTIONS, 3));
        ck_assert(user_charge(u, USER_CONNECTIONS, 2));
        user_refund(u, USER_CONNECTIONS, 3);
        user_unref(u);
        users_deinit(&users);
}

TEST(one_user_at_his_limit_takes_nothing_from_another) {
        Users users = limited(1);
        User *a, *b;

        ck_assert_int_eq(user_get(&users, 1000, &a), 0);
        ck_assert_int_eq(user_get(&users, 1001, &b), 0);
        ck_assert(user_charge(a, USER_CONNECTIONS, 1));
        ck_assert(!user_charge(a, USER_CONNECTIONS, 1));
        ck_assert(user_charge(b, USER_CONNECTIONS, 1));
        user_refund(a, USER_CONNECTIONS, 1);
        user_refund(b, USER_CONNECTIONS, 1);
        user_unref(a);
        user_unref(b);
}

TEST(root_and_eqds_own_user_have_no_limit_and_a_limit_of_0_is_none) {
        static const uid_t uids[] = { 0, 990 };
        Users users = limited(1);
        User *u;

        for (size_t i = 0; i < 2; i++) {
                ck_assert_int_eq(user_get(&users, uids[i], &u), 0);
                ck_assert(user_charge(u, USER_CONNECTIONS, 1000));
                ck_assert(!user_charge(u, USER_CONNECTIONS, UINT64_MAX)); /* would wrap */
                user_refund(u, USER_CONNECTIONS, 1000);
                user_unref(u);
        }
        ck_assert_int_eq(user_get(&users, 1000, &u), 0);
        ck_assert(user_charge(u, USER_TASKS, UINT64_MAX));
        user_refund(u, USER_TASKS, UINT64_MAX);
        user_unref(u);
}

TEST(a_lowered_limit_refuses_what_is_new_only) {
        Users users = limited(5);
        User *u;

        ck_assert_int_eq(user_get(&users, 1000, &u), 0);
        ck_assert(user_charge(u, USER_CONNECTIONS, 4));
        users.limits[USER_CONNECTIONS] = 2;
        ck_assert(!user_charge(u, USER_CONNECTIONS, 1));
        user_refund(u, USER_CONNECTIONS, 3);
        ck_assert(user_charge(u, USER_CONNECTIONS, 1));
        user_refund(u, USER_CONNECTIONS, 2);
        user_unref(u);
}

TEST(without_memory_there_is_no_user_and_no_crash) {
        Users users = limited(1);
        User *u = NULL;

        for (long nth = 1;; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                int r = user_get(&users, 1000, &u);
                fault_set(FAULT_ALLOC, 0, false);
                if (r == 0)
                        break;
                ck_assert_int_eq(r, -ENOMEM);
                ck_assert_ptr_null(u);
                ck_assert_ptr_null(users.by_uid);
                ck_assert_int_lt(nth, 10);
        }
        user_unref(u);
        users_deinit(&users);
}

TEST(every_resource_has_a_name_for_error_texts) {
        for (int r = 0; r < _USER_RESOURCE_MAX; r++)
                ck_assert_ptr_nonnull(user_resource_name(r));
        ck_assert_str_eq(user_resource_name(USER_CONNECTIONS), "connections");
}

RUN_TESTS("user", 30, test_one_uid_is_one_user_while_anybody_holds_it,
          test_a_charge_over_the_limit_changes_nothing_and_a_refund_makes_room,
          test_one_user_at_his_limit_takes_nothing_from_another,
          test_root_and_eqds_own_user_have_no_limit_and_a_limit_of_0_is_none,
          test_a_lowered_limit_refuses_what_is_new_only, test_without_memory_there_is_no_user_and_no_crash,
          test_every_resource_has_a_name_for_error_texts)
