/* SPDX-License-Identifier: MIT */
#include "eqctl/accounts.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

TEST(root_has_a_name_and_a_number) {
        char name[ACCOUNT_NAME_SIZE];
        uid_t uid = 42;

        ck_assert(account_user_name(0, name));
        ck_assert_str_eq(name, "root");
        ck_assert(account_uid("root", &uid));
        ck_assert_uint_eq(uid, 0);
        ck_assert(account_group_name(0, name));
        ck_assert_str_eq(name, "root");
}

TEST(nobody_of_that_name_is_said) {
        char name[ACCOUNT_NAME_SIZE];
        uid_t uid = 42;

        ck_assert(!account_uid("no-such-user.anywhere", &uid));
        ck_assert(!account_uid("", &uid));
        ck_assert(!account_uid("--help", &uid));
        ck_assert(!account_uid("root:x", &uid));
        ck_assert_uint_eq(uid, 42);
        ck_assert(!account_user_name(3999999999, name));
        ck_assert(!account_group_name(3999999999, name));
}

/* A getent of the test's own, found first. */
static void play_getent(char dir[static 32], const char *script) {
        char path[64];

        strcpy(dir, "/tmp/eqd-accounts-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/getent", dir);
        FILE *f = fopen(path, "we");
        ck_assert_ptr_nonnull(f);
        fputs(script, f);
        ck_assert_int_eq(fclose(f), 0);
        ck_assert_int_eq(chmod(path, 0755), 0);
        ck_assert_int_eq(setenv("PATH", dir, 1), 0);
}

static void remove_getent(const char *dir) {
        char path[64];

        snprintf(path, sizeof(path), "%s/getent", dir);
        unlink(path);
        rmdir(dir);
}

/* Users of LDAP and the like are in no file. */
TEST(who_is_in_no_file_is_asked_for_of_getent) {
        char dir[32], name[ACCOUNT_NAME_SIZE];
        uid_t uid;

        play_getent(dir,
                    "#!/bin/sh\n"
                    "case $1:$2 in\n"
                    "passwd:ldap-anna|passwd:3999999998) echo 'ldap-anna:*:3999999998:100:Anna:/home/anna:/bin/sh';;\n"
                    "group:3999999998) echo 'ldap-lab:*:3999999998:';;\n"
                    "*) exit 2;;\n"
                    "esac\n");
        ck_assert(account_uid("ldap-anna", &uid));
        ck_assert_uint_eq(uid, 3999999998);
        ck_assert(account_user_name(3999999998, name));
        ck_assert_str_eq(name, "ldap-anna");
        ck_assert(account_group_name(3999999998, name));
        ck_assert_str_eq(name, "ldap-lab");
        ck_assert(!account_uid("ldap-bob", &uid));
        remove_getent(dir);
}

TEST(a_getent_that_talks_nonsense_is_not_believed) {
        char dir[32], name[ACCOUNT_NAME_SIZE];

        play_getent(dir, "#!/bin/sh\n"
                         "echo; echo ':'; echo 'a:b'; echo ':x:3999999998:'; echo 'mallory:x:3999999998'\n"
                         "echo 'mallory:x:-1:'; echo 'other:x:7:'; printf 'cut:x'\n");
        ck_assert(!account_user_name(3999999998, name));
        remove_getent(dir);
}

TEST(without_getent_there_are_the_files) {
        char name[ACCOUNT_NAME_SIZE];

        ck_assert_int_eq(setenv("PATH", "/nonexistent", 1), 0);
        ck_assert(account_user_name(0, name));
        ck_assert(!account_user_name(3999999998, name));
}

RUN_TESTS("accounts", 10, test_root_has_a_name_and_a_number, test_nobody_of_that_name_is_said,
          test_who_is_in_no_file_is_asked_for_of_getent, test_a_getent_that_talks_nonsense_is_not_believed,
          test_without_getent_there_are_the_files)
