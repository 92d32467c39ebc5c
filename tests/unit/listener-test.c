/* SPDX-License-Identifier: MIT */
#include "server/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"
#include "test.h"

static char dir[64], path[256], error[512];

static void make_dir(void) {
        strcpy(dir, "/tmp/eqd-test-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        (void)snprintf(path, sizeof(path), "%s/eqd.sock", dir);
        error[0] = '\0';
}

static void remove_dir(void) {
        ck_assert_int_eq(rmdir(dir), 0); /* and nothing is in it */
}

static int try_open(Listener *l) {
        return listener_open(path, 0660, (gid_t)-1, error, sizeof(error), l);
}

static int try_connect(const char *where) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        strcpy(address.sun_path, where);
        int r = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        close(fd);
        return r;
}

static void expect_error(const char *part) {
        ck_assert_msg(strstr(error, part), "'%s' does not say '%s'", error, part);
}

TEST(the_socket_has_its_mode_and_group_and_goes_away_at_the_end) {
        Listener l = LISTENER_NULL;
        struct stat st;

        make_dir();
        mode_t old = umask(0);
        gid_t group = getuid() == 0 ? 12345 : getgid();
        ck_assert_int_eq(listener_open(path, 0620, group, error, sizeof(error), &l), 0);
        umask(old);
        ck_assert_int_eq(lstat(path, &st), 0);
        ck_assert(S_ISSOCK(st.st_mode));
        ck_assert_uint_eq(st.st_mode & 07777, 0620);
        ck_assert_uint_eq(st.st_gid, group);
        ck_assert_int_eq(try_connect(path), 0);
        listener_close(&l);
        listener_close(&l); /* again: nothing happens */
        remove_dir();
}

TEST(a_stale_socket_is_replaced) {
        Listener dead = LISTENER_NULL, l = LISTENER_NULL;

        make_dir();
        ck_assert_int_eq(try_open(&dead), 0);
        dead.fd = close_fd(dead.fd); /* as after kill -9 */
        ck_assert_int_eq(try_connect(path), -ECONNREFUSED);
        ck_assert_int_eq(try_open(&l), 0);
        ck_assert_int_eq(try_connect(path), 0);
        listener_close(&dead); /* the file is not its own any more, and stays */
        ck_assert_int_eq(try_connect(path), 0);
        listener_close(&l);
        remove_dir();
}

TEST(a_living_socket_is_refused_and_left_alone) {
        Listener living = LISTENER_NULL, l = LISTENER_NULL;
        struct stat before, after;

        make_dir();
        ck_assert_int_eq(try_open(&living), 0);
        ck_assert_int_eq(stat(dir, &before), 0);
        ck_assert_int_eq(try_open(&l), -EADDRINUSE);
        ck_assert_int_eq(l.fd, -1);
        expect_error("another eqd answers on");
        expect_error(path);
        expect_error("--socket");
        ck_assert_int_eq(try_connect(path), 0);
        ck_assert_int_eq(stat(dir, &after), 0); /* nothing was made in the directory, nothing moved */
        ck_assert_int_eq(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)), 0);
        listener_close(&living);
        remove_dir();
}

TEST(what_is_no_socket_is_never_removed) {
        Listener l = LISTENER_NULL;
        struct stat st;

        make_dir();
        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        ck_assert_int_eq(try_open(&l), -EEXIST);
        expect_error("is no socket");
        ck_assert_int_eq(lstat(path, &st), 0);
        ck_assert(S_ISREG(st.st_mode));
        ck_assert_int_eq(unlink(path), 0);

        ck_assert_int_eq(symlink("/dev/null", path), 0);
        ck_assert_int_eq(try_open(&l), -EEXIST);
        ck_assert_int_eq(lstat(path, &st), 0);
        ck_assert(S_ISLNK(st.st_mode));
        ck_assert_int_eq(unlink(path), 0);

        ck_assert_int_eq(mkdir(path, 0700), 0);
        ck_assert_int_eq(try_open(&l), -EEXIST);
        ck_assert_int_eq(rmdir(path), 0);
        remove_dir();
}

TEST(a_file_that_took_the_place_of_ours_survives_the_end) {
        Listener l = LISTENER_NULL;

        make_dir();
        ck_assert_int_eq(try_open(&l), 0);
        ck_assert_int_eq(unlink(path), 0);
        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        listener_close(&l);
        ck_assert_int_eq(unlink(path), 0);
        remove_dir();
}

TEST(a_path_may_have_107_bytes_and_no_more) {
        Listener l = LISTENER_NULL;

        make_dir();
        size_t len = strlen(dir);
        path[len] = '/';
        memset(path + len + 1, 'x', 108 - len - 1);
        path[107] = '\0';
        ck_assert_int_eq(try_open(&l), 0);
        ck_assert_int_eq(try_connect(path), 0);
        listener_close(&l);
        path[107] = 'x';
        path[108] = '\0';
        ck_assert_int_eq(try_open(&l), -ENAMETOOLONG);
        expect_error("108 bytes, at most 107");

        path[len + 44] = '\0'; /* the directory is long, the name short: the temporary name would not fit */
        ck_assert_int_eq(mkdir(path, 0700), 0);
        char *end = path + strlen(path);
        (void)snprintf(end, 20, "/%.*s", (int)(106 - strlen(path)), "ssssssssssssssss");
        ck_assert_int_eq(try_open(&l), 0);
        ck_assert_int_eq(try_connect(path), 0);
        listener_close(&l);
        *end = '\0';
        ck_assert_int_eq(rmdir(path), 0);
        remove_dir();
}

TEST(a_missing_directory_and_a_forbidden_one_are_named) {
        Listener l = LISTENER_NULL;

        make_dir();
        (void)snprintf(path, sizeof(path), "%s/none/eqd.sock", dir);
        ck_assert_int_eq(try_open(&l), -ENOENT);
        expect_error(dir);
        expect_error("create it");
        (void)snprintf(path, sizeof(path), "%s/", dir);
        ck_assert_int_eq(try_open(&l), -EINVAL);
        strcpy(path, "/proc/eqd.sock"); /* nobody may create there */
        ck_assert_int_lt(try_open(&l), 0);
        expect_error("/proc");
        if (getuid() != 0) {
                (void)snprintf(path, sizeof(path), "%s/eqd.sock", dir);
                ck_assert_int_eq(chmod(dir, 0500), 0);
                ck_assert_int_eq(try_open(&l), -EACCES);
                expect_error("no permission");
                expect_error(dir);
        }
        remove_dir();
}

TEST(a_group_that_may_not_be_given_leaves_nothing_behind) {
        Listener l = LISTENER_NULL;

        make_dir();
        if (getuid() != 0) {
                ck_assert_int_eq(listener_open(path, 0660, 0, error, sizeof(error), &l), -EPERM);
                expect_error("group 0");
        }
        remove_dir();
}

TEST(only_a_listening_unix_stream_socket_is_adopted) {
        Listener l = LISTENER_NULL, made = LISTENER_NULL;
        int pair[2];

        make_dir();
        int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
        int inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int wrong[] = { file, inet, pair[0], 9999 };
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                ck_assert_int_eq(listener_adopt(wrong[i], error, sizeof(error), &l), -EINVAL);
                expect_error("eqd.socket");
        }
        close(file);
        if (inet >= 0)
                close(inet);
        close(pair[0]);
        close(pair[1]);

        ck_assert_int_eq(try_open(&made), 0);
        int fd = dup(made.fd);
        ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
        ck_assert_int_eq(listener_adopt(fd, error, sizeof(error), &l), 0);
        ck_assert_int_ne(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
        listener_close(&l);
        ck_assert_int_eq(try_connect(path), 0); /* the file of somebody else stays */
        listener_close(&made);
        remove_dir();
}

RUN_TESTS("listener", 30, test_the_socket_has_its_mode_and_group_and_goes_away_at_the_end,
          test_a_stale_socket_is_replaced, test_a_living_socket_is_refused_and_left_alone,
          test_what_is_no_socket_is_never_removed, test_a_file_that_took_the_place_of_ours_survives_the_end,
          test_a_path_may_have_107_bytes_and_no_more, test_a_missing_directory_and_a_forbidden_one_are_named,
          test_a_group_that_may_not_be_given_leaves_nothing_behind, test_only_a_listening_unix_stream_socket_is_adopted)
