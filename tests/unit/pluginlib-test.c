/* SPDX-License-Identifier: MIT */
#include "executor/pluginlib.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "test.h"

/* A directory of this user's below /tmp, with copies of the plugins in it. */
typedef struct Place {
        char dir[64], path[160];
} Place;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

static void place_done(Place *p) {
        ck_assert_int_eq(nftw(p->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}
#define PLACE _cleanup_(place_done) Place p = place_new()

static Place place_new(void) {
        Place p = { .dir = "/tmp/pluginlib-test-XXXXXX" };
        ck_assert_ptr_nonnull(mkdtemp(p.dir));
        return p;
}

static const char *add(Place *p, const char *name) {
        char from[512];
        snprintf(from, sizeof(from), TRIAL_DIR "/%s.so", name);
        snprintf(p->path, sizeof(p->path), "%s/%s.so", p->dir, name);
        _cleanup_close_ int in = open(from, O_RDONLY), out = open(p->path, O_WRONLY | O_CREAT | O_EXCL, 0755);
        struct stat st;
        ck_assert(in >= 0 && out >= 0 && fstat(in, &st) == 0);
        ck_assert_int_eq(sendfile(out, in, NULL, (size_t)st.st_size), st.st_size);
        ck_assert_int_eq(fchmod(out, 0755), 0);
        return p->path;
}

static void refused_with(const char *path, bool own, int r, const char *says) {
        char error[PLUGIN_ERROR_MAX] = "";
        PluginLibrary *l = NULL;
        int got = plugin_library_open(path, own, &l, error, sizeof(error));
        ck_assert_msg(got == r, "%d: %s", got, error);
        ck_assert_msg(strstr(error, says), "\"%s\" is not in \"%s\"", says, error);
        ck_assert_ptr_null(l);
}

TEST(a_plugin_of_ones_own_is_loaded) {
        PLACE;
        char error[PLUGIN_ERROR_MAX];
        PluginLibrary *l;
        ck_assert_msg(plugin_library_open(add(&p, "trial"), true, &l, error, sizeof(error)) == 0, "%s", error);
        ck_assert_str_eq(l->entry->name, "trial");
        ck_assert_str_eq(l->path, p.path);
        ck_assert_ptr_eq(plugin_library_ref(l), l);
        ck_assert_ptr_null(plugin_library_unref(l));
        ck_assert_uint_eq(l->entry->abi, EQ_PLUGIN_ABI);
        plugin_library_unref(l);
}

TEST(paths_that_are_not_plain_are_refused) {
        const char *const paths[] = {
                "", "trial.so", "./trial.so", "/tmp/../tmp/x.so", "/tmp//x.so", "/tmp/x.so/", "/."
        };
        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                refused_with(paths[i], true, -EINVAL, "no absolute path");
}

TEST(what_is_not_there_is_named) {
        PLACE;
        snprintf(p.path, sizeof(p.path), "%s/no/x.so", p.dir);
        refused_with(p.path, true, -ENOENT, "/no: No such file");
}

TEST(files_that_others_may_write_are_refused) {
        PLACE;
        add(&p, "trial");
        ck_assert_int_eq(chmod(p.path, 0775), 0);
        refused_with(p.path, true, -EPERM, "chmod go-w");
        ck_assert_int_eq(chmod(p.path, 0757), 0);
        refused_with(p.path, true, -EPERM, "chmod go-w");
}

TEST(directories_that_others_may_write_are_refused) {
        PLACE;
        add(&p, "trial");
        ck_assert_int_eq(chmod(p.dir, 0770), 0);
        refused_with(p.path, true, -EPERM, p.dir);
}

TEST(without_own_not_even_sticky_directories_will_do) {
        PLACE;
        refused_with(add(&p, "trial"), false, -EPERM, "/tmp can be written by others");
}

TEST(another_users_file_is_refused) {
        PLACE;
        add(&p, "trial");
        if (geteuid() != 0)
                return; /* cannot give files away */
        ck_assert_int_eq(chown(p.path, 61001, (gid_t)-1), 0);
        refused_with(p.path, true, -EPERM, "belongs to uid 61001");
}

TEST(links_are_refused) {
        PLACE;
        char link[160];
        add(&p, "trial");
        snprintf(link, sizeof(link), "%s/link.so", p.dir);
        ck_assert_int_eq(symlink(p.path, link), 0);
        refused_with(link, true, -EINVAL, "symbolic link");
}

TEST(a_directory_is_no_plugin_and_a_file_no_directory) {
        PLACE;
        refused_with(p.dir, true, -EINVAL, "is no regular file");
        add(&p, "trial");
        strcat(p.path, "/x.so");
        refused_with(p.path, true, -EINVAL, "is no directory");
}

TEST(a_file_that_cannot_be_loaded_says_why) {
        PLACE;
        snprintf(p.path, sizeof(p.path), "%s/x.so", p.dir);
        _cleanup_close_ int fd = open(p.path, O_WRONLY | O_CREAT, 0755);
        ck_assert_int_eq(write(fd, "no ELF file", 11), 11);
        refused_with(p.path, true, -EINVAL, "cannot load the plugin");
}

TEST(what_is_no_plugin_of_this_abi_says_why) {
        static const struct {
                const char *name, *says;
        } rows[] = { { "trial-no-symbol", "no symbol eq_plugin_entry" },
                     { "trial-old", "a plugin of ABI 77, this eqd takes ABI 1" },
                     { "trial-no-execute", "has no execute" },
                     { "trial-flags", "has flags 0x80" } };
        PLACE;
        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                refused_with(add(&p, rows[i].name), true, -EINVAL, rows[i].says);
}

TEST(without_memory_it_is_refused) {
        PLACE;
        add(&p, "trial");
        fault_set(FAULT_ALLOC, 1, false);
        refused_with(p.path, true, -ENOMEM, "out of memory");
}

RUN_TESTS("pluginlib", 30, test_a_plugin_of_ones_own_is_loaded, test_paths_that_are_not_plain_are_refused,
          test_what_is_not_there_is_named, test_files_that_others_may_write_are_refused,
          test_directories_that_others_may_write_are_refused, test_without_own_not_even_sticky_directories_will_do,
          test_another_users_file_is_refused, test_links_are_refused,
          test_a_directory_is_no_plugin_and_a_file_no_directory, test_a_file_that_cannot_be_loaded_says_why,
          test_what_is_no_plugin_of_this_abi_says_why, test_without_memory_it_is_refused)
