/* SPDX-License-Identifier: MIT */
#include "manager/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "test.h"

static char dir[64], error[PARAM_ERROR_MAX];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

static void dir_remove(char (*path)[64]) {
        (void)nftw(*path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void dir_make(void) {
        const char *tmp = getenv("TMPDIR");
        snprintf(dir, sizeof(dir), "%.40s/eqd-config-XXXXXX", tmp ? tmp : "/tmp");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        umask(022);
}

/* A directory that goes with the test, on failure of an assertion as well as it can. */
#define DIRECTORY()                                                                                                    \
        dir_make();                                                                                                    \
        __attribute__((unused)) _cleanup_(dir_remove) char dir_[64];                                                   \
        memcpy(dir_, dir, sizeof(dir_))

static const char *path_of(const char *name) {
        static char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s", dir, name);
        return path;
}

static void make_parent(const char *name) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s", path_of(name));
        for (char *slash = strchr(path + strlen(dir) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                ck_assert(mkdir(path, 0755) == 0 || errno == EEXIST);
                *slash = '/';
        }
}

static void put_bytes(const char *name, const char *text, size_t len) {
        make_parent(name);
        FILE *f = fopen(path_of(name), "we");
        ck_assert_ptr_nonnull(f);
        ck_assert_uint_eq(fwrite(text, 1, len, f), len);
        ck_assert_int_eq(fclose(f), 0);
}

static void put(const char *name, const char *text) {
        put_bytes(name, text, strlen(text));
}

static Config *load(void) {
        Config *c = NULL;
        int r = config_load(dir, false, &c, error, sizeof(error));
        ck_assert_msg(r == 0, "%d: %s", r, error);
        return c;
}

/* Loading fails, and the message is `DIR/` + text. */
static void refused(const char *text) {
        Config *c = (Config *)error;
        ck_assert_int_lt(config_load(dir, false, &c, error, sizeof(error)), 0);
        ck_assert_ptr_eq(c, (Config *)error);
        ck_assert_msg(strncmp(error, dir, strlen(dir)) == 0, "%s", error);
        ck_assert_msg(strncmp(error + strlen(dir) + 1, text, strlen(text)) == 0, "%s\nshould be: %s", error, text);
}

TEST(nothing_at_all_is_a_good_configuration) {
        DIRECTORY();
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(c->n_queues, 0);
        ck_assert_uint_eq(c->daemon.slots, 256);
        ck_assert_uint_eq(c->daemon.panic_on_stall, strtoul(EQD_PANIC_ON_STALL, NULL, 10)); /* an option of the build */
        strcat(dir, "/no-such");
        _cleanup_(config_freep) Config *d = load();
        ck_assert_uint_eq(d->queue_defaults.engine.max_active, 1);
        ck_assert_ptr_null(config_free(NULL));
}

TEST(settings_defaults_and_queues_are_read_and_dropins_have_the_last_word) {
        DIRECTORY();
        put("eqd.conf", "# eqd\n[Daemon]\nLogLevel=debug\n; more\n[Commands]\nslots = 3\n[Queue]\nMaxActive=2\n"
                        "[Limits]\nTasksPerUser=10\n");
        put("eqd.conf.d/20-b.conf", "[Commands]\nSlots=5\n");
        put("eqd.conf.d/10-a.conf", "[Commands]\nSlots=4\n[Queue]\nHistory=7\n");
        put("eqd.conf.d/not-read.txt", "rubbish\n");
        put("queues.d/mail.queue", "[Queue]\nMaxActive=8\nDescription=outgoing mail\n");
        put("queues.d/backup.queue", "[Queue]\n");
        put("queues.d/mail.queue.d/50.conf", "[Queue]\nMaxActive=9\n");
        put("queues.d/README", "rubbish\n");
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(c->daemon.log_level, 7);
        ck_assert_uint_eq(c->daemon.slots, 5);
        ck_assert_uint_eq(c->daemon.tasks_per_user, 10);
        ck_assert_uint_eq(c->n_queues, 2);
        ck_assert_str_eq(c->queues[0].name, "backup");
        ck_assert_uint_eq(c->queues[0].attributes.engine.max_active, 2);
        ck_assert_uint_eq(c->queues[0].attributes.history, 7);
        ck_assert_str_eq(c->queues[1].name, "mail");
        ck_assert_uint_eq(c->queues[1].attributes.engine.max_active, 9);
        ck_assert_str_eq(c->queues[1].attributes.description, "outgoing mail");
        ck_assert_str_eq(c->queues[1].file, path_of("queues.d/mail.queue"));
}

/* Rows: text of eqd.conf, and the message. */
static const char *const bad[][2] = {
        { "[Daemon]\nLogLevel=loud\n",
          "eqd.conf:2: LogLevel: \"loud\" is none of the words; emerg, alert, crit, error, "
          "warning, notice, info or debug" },
        { "[Commands]\n\nSlots=0\n", "eqd.conf:3: Slots: \"0\" is out of range; 1..65536 slots" },
        { "[Commands]\nSlot=1\n", "eqd.conf:2: \"Slot\" is not known here; did you mean slots?" },
        { "[Daemon]\nSlots=1\n", "eqd.conf:2: Slots: belongs to section [Commands]" },
        { "[Deamon]\nLogLevel=info\n", "eqd.conf:1: section \"Deamon\" is not known here; there are [Daemon], "
                                       "[Commands], [Plugins], [Watchdog], [Store], [Limits] and [Queue]" },
        { "[daemon]\nLogLevel=info\n", "eqd.conf:1: section \"daemon\" is spelled [Daemon]" },
        { "[Daemon]\n[QUEUE]\n", "eqd.conf:2: section \"QUEUE\" is spelled [Queue]" },
        { "[Daemo]\n", "eqd.conf:1: section \"Daemo\" is not known here" },
        { "\n[Nothing]\n", "eqd.conf:2: section \"Nothing\" is not known here" },
        { "Slots=1\n", "eqd.conf:1: there is no section above; put [Daemon] first" },
        { "[Commands]\nSlots\n", "eqd.conf:2: is neither [Section] nor Key=value" },
        { "[Commands\n", "eqd.conf:1: is neither [Section] nor Key=value" },
        { "[Commands]\nSlots=0\nrubbish\n", "eqd.conf:2: Slots: \"0\" is out of range" },
        { "[Commands]\nrubbish\nSlots=0\n", "eqd.conf:2: is neither" },
        { "[Queue]\nDescription=a\x1b[31m\n", "eqd.conf:2: the value is not UTF-8 without control characters" },
        { "[Queue]\nAllowSubmit=no-such-user-here\n",
          "eqd.conf:2: AllowSubmit: \"no-such-user-here\" is no known user; name or number of a user" },
        { "[Queue]\nGroup=0\n", "eqd.conf: group: is set without user; set both, or user alone" },
        { "[Queue]\nUser=4294967290\n", "eqd.conf: user: 4294967290 has no primary group" },
};

TEST(an_error_names_file_and_line_and_what_is_allowed) {
        DIRECTORY();
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                put("eqd.conf", bad[i][0]);
                refused(bad[i][1]);
        }
}

TEST(an_error_in_a_dropin_or_a_queue_names_that_file) {
        DIRECTORY();
        put("eqd.conf.d/x.conf", "[Queue]\nhistory=-1\n");
        refused("eqd.conf.d/x.conf:2: history: \"-1\" is no number; 1..10000000 tasks");
        put("eqd.conf.d/x.conf", "");
        put("queues.d/a.queue", "[Daemon]\nLogLevel=info\n");
        refused("queues.d/a.queue:1: section \"Daemon\" is not known here; there is [Queue]");
        put("queues.d/a.queue", "MaxActive=1\n");
        refused("queues.d/a.queue:1: there is no section above; put [Queue] first");
        put("queues.d/a.queue", "");
        put("queues.d/a.queue.d/y.conf", "[Queue]\n\n\nUsr=1\n");
        refused("queues.d/a.queue.d/y.conf:4: \"Usr\" is not known here; did you mean user?");
}

TEST(the_name_of_a_file_must_be_a_name_for_a_queue) {
        DIRECTORY();
        put("queues.d/my mail.queue", "");
        refused("queues.d/my mail.queue: \"my mail\" cannot be the name of a queue");
        ck_assert_int_eq(unlink(path_of("queues.d/my mail.queue")), 0);
        put("queues.d/-x.queue", "");
        refused("queues.d/-x.queue: \"-x\" cannot be");
        ck_assert_int_eq(unlink(path_of("queues.d/-x.queue")), 0);
        put("queues.d/.hidden.queue", "rubbish\n");
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(c->n_queues, 0);
}

TEST(a_long_line_is_refused_and_may_go_on_below) {
        char text[400];
        DIRECTORY();
        snprintf(text, sizeof(text), "[Queue]\nDescription=%0190d\n", 7);
        put("eqd.conf", text);
        refused("eqd.conf:2: the line has 202 bytes; at most 196, go on in an indented line below");
        snprintf(text, sizeof(text), "[Queue]\nDescription=%0184d\nHistory=1", 7);
        put("eqd.conf", text);
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(strlen(c->queue_defaults.description), 184);
        ck_assert_uint_eq(c->queue_defaults.history, 1);
        put("eqd.conf", "[Queue]\nAllowSubmit=1 2\n   @3\n\t4\nHistory=2\n");
        _cleanup_(config_freep) Config *d = load();
        ck_assert_str_eq(d->queue_defaults.allow_submit.text, "1 2 @3 4");
        ck_assert_uint_eq(d->queue_defaults.history, 2);
        put("eqd.conf", "[Queue]\nHistory=1\n  2\n");
        refused("eqd.conf:2: History: \"1 2\" is no number");
}

TEST(a_key_said_twice_is_not_a_value_that_goes_on) {
        DIRECTORY();
        put("eqd.conf", "[Queue]\nDescription=one\nDescription=two\n");
        _cleanup_(config_freep) Config *c = load();
        ck_assert_str_eq(c->queue_defaults.description, "two");
        put("eqd.conf", "[Queue]\nHistory=x\nHistory=5\n");
        refused("eqd.conf:2: History: \"x\"");
}

TEST(a_value_does_not_go_on_beyond_the_header_of_a_section) {
        DIRECTORY();
        put("eqd.conf", "[Queue]\nGrace=1s\n[Queue]\n  Grace=2s\n");
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(c->queue_defaults.grace_usec, 2000000);
        put("eqd.conf", "[Queue]\nHistory=x\n[Nonsense]\n");
        refused("eqd.conf:2: History: \"x\"");
}

TEST(what_is_no_file_of_text_is_refused) {
        DIRECTORY();
        ck_assert_int_eq(mkdir(path_of("eqd.conf"), 0755), 0);
        refused("eqd.conf: is no regular file");
        ck_assert_int_eq(rmdir(path_of("eqd.conf")), 0);
        ck_assert_int_eq(mkfifo(path_of("eqd.conf"), 0644), 0);
        refused("eqd.conf: is no regular file");
        ck_assert_int_eq(unlink(path_of("eqd.conf")), 0);
        put_bytes("eqd.conf", "[Queue]\n\0\n", 10);
        refused("eqd.conf: holds a NUL byte");
        put("eqd.conf", "");
        ck_assert_int_eq(truncate(path_of("eqd.conf"), CONFIG_FILE_MAX + 1), 0);
        refused("eqd.conf: has 1048577 bytes; at most 1048576");
        ck_assert_int_eq(unlink(path_of("eqd.conf")), 0);
        ck_assert_int_eq(symlink("eqd.conf", path_of("eqd.conf")), 0);
        refused("eqd.conf: cannot read it: Too many levels of symbolic links");
        ck_assert_int_eq(unlink(path_of("eqd.conf")), 0);
        put("queues.d", "a file");
        refused("queues.d: cannot read the directory: Not a directory");
}

TEST(who_tasks_run_as_is_taken_only_from_files_that_nobody_else_can_write) {
        static const char *const rows[] = { "[Queue]\nUser=0\nGroup=0\n", "[Queue]\nGroup=0\nUser=0\n" };
        DIRECTORY();
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                put("queues.d/a.queue", rows[i]);
                ck_assert_int_eq(chmod(path_of("queues.d/a.queue"), 0664), 0);
                refused(i == 0 ? "queues.d/a.queue:2: User: is taken only from a file that root or eqd owns"
                               : "queues.d/a.queue:2: Group: is taken only from a file that root or eqd owns");
                ck_assert_int_eq(chmod(path_of("queues.d/a.queue"), 0646), 0);
                refused("queues.d/a.queue:2: ");
                ck_assert_int_eq(chmod(path_of("queues.d/a.queue"), 0644), 0);
                _cleanup_(config_freep) Config *c = load();
                ck_assert_uint_eq(c->queues[0].attributes.user.id, 0);
                ck_assert_uint_eq(c->queues[0].attributes.group.id, 0);
                if (geteuid() == 0) {
                        ck_assert_int_eq(chown(path_of("queues.d/a.queue"), 65534, 0), 0);
                        refused("queues.d/a.queue:2: ");
                        ck_assert_int_eq(chown(path_of("queues.d/a.queue"), 0, 0), 0);
                }
                put("queues.d/a.queue", "[Queue]\nMaxActive=2\n");
                ck_assert_int_eq(chmod(path_of("queues.d/a.queue"), 0666), 0);
                _cleanup_(config_freep) Config *d = load(); /* harmless keys need no such care */
                ck_assert_uint_eq(d->queues[0].attributes.engine.max_active, 2);
                ck_assert_int_eq(unlink(path_of("queues.d/a.queue")), 0);
        }
}

/* Whoever runs as eqd's own user could write such a file and become anybody. */
TEST(a_system_instance_takes_it_from_files_of_root_only) {
        DIRECTORY();
        put("queues.d/a.queue", "[Queue]\nUser=65534\nGroup=65534\n");
        if (geteuid() == 0) { /* then the test can be eqd's user; its own files are not root's any more */
                ck_assert_int_eq(chown(path_of("queues.d/a.queue"), 65534, 0), 0);
                ck_assert_int_eq(chmod(dir, 0755), 0);
                ck_assert_int_eq(seteuid(65534), 0);
        }
        _cleanup_(config_freep) Config *c = load(), *none = NULL;
        ck_assert_uint_eq(c->queues[0].attributes.user.id, 65534);
        ck_assert_int_eq(config_load(dir, true, &none, error, sizeof(error)), -EPERM);
        ck_assert(strstr(error, "a.queue:2: User: is taken only from a file that root owns and"));
        if (getuid() == 0) {
                ck_assert_int_eq(seteuid(0), 0);
                ck_assert_int_eq(chown(path_of("queues.d/a.queue"), 0, 0), 0);
                ck_assert_int_eq(config_load(dir, true, &none, error, sizeof(error)), 0);
                ck_assert(none->system);
        }
}

TEST(a_user_without_a_group_brings_his_own) {
        const struct passwd *nobody = getpwnam("nobody");
        ck_assert_ptr_nonnull(nobody);
        gid_t gid = nobody->pw_gid;
        DIRECTORY();
        put("eqd.conf", "[Queue]\nUser=root\n");
        put("queues.d/a.queue", "");
        put("queues.d/b.queue", "[Queue]\nUser=nobody\n");
        put("queues.d/c.queue", "[Queue]\nUser=nobody\nGroup=12345\n");
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(c->queues[0].attributes.user.id, 0);
        ck_assert_uint_eq(c->queues[0].attributes.group.id, 0);
        ck_assert_uint_eq(c->queues[1].attributes.group.id, gid);
        ck_assert_ptr_null(c->queues[1].attributes.group.text);
        ck_assert_uint_eq(c->queues[2].attributes.group.id, 12345);
        ck_assert_uint_eq(c->default_run_as->uid, 0);
        ck_assert_uint_eq(c->queues[2].run_as->uid, nobody->pw_uid);
        ck_assert_uint_eq(c->queues[2].run_as->gid, 12345);
}

TEST(a_user_brings_the_groups_that_a_login_gives_him) {
        gid_t groups[IDENTITY_GROUPS_MAX];
        int n = IDENTITY_GROUPS_MAX;
        ck_assert_int_ge(getgrouplist("nobody", 7, groups, &n), 1);
        DIRECTORY();
        put("queues.d/a.queue", "[Queue]\nUser=nobody\nGroup=7\n");
        put("queues.d/b.queue", "[Queue]\nUser=4294967290\nGroup=7\n");
        put("queues.d/c.queue", "");
        _cleanup_(config_freep) Config *c = load();
        const Identity *a = c->queues[0].run_as, *b = c->queues[1].run_as;
        ck_assert_uint_eq(a->n_groups, n);
        for (int i = 0; i < n; i++)
                ck_assert(identity_in_group(a, groups[i]));
        ck_assert_uint_eq(b->n_groups, 0);
        ck_assert_uint_eq(b->gid, 7);
        ck_assert_ptr_null(c->queues[2].run_as);
}

TEST(the_digest_changes_with_the_file_and_with_its_dropins_only) {
        uint64_t seen[4];
        DIRECTORY();
        put("queues.d/a.queue", "[Queue]\nHistory=1\n");
        for (int i = 0; i < 4; i++) {
                if (i == 1)
                        put("eqd.conf", "[Commands]\nSlots=9\n");
                if (i == 2)
                        put("queues.d/a.queue", "[Queue]\nHistory=2\n");
                if (i == 3)
                        put("queues.d/a.queue.d/a.conf", "[Queue]\nHistory=3\n");
                _cleanup_(config_freep) Config *c = load();
                seen[i] = c->queues[0].digest;
        }
        ck_assert_uint_eq(seen[0], seen[1]);
        ck_assert_uint_ne(seen[1], seen[2]);
        ck_assert_uint_ne(seen[2], seen[3]);
}

TEST(pools_are_read_before_what_names_them_and_take_their_default_from_the_daemon) {
        DIRECTORY();
        put("eqd.conf", "[Queue]\nPool=video\n[Commands]\nSlots=7\n");
        put("pools.d/video.pool", "[Pool]\nSlots=4\nNice=10\n");
        put("pools.d/video.pool.d/50.conf", "[Pool]\nSlots=5\n");
        put("pools.d/audio.pool", "");
        put("pools.d/README", "rubbish\n");
        put("queues.d/a.queue", "[Queue]\nPool=audio\n");
        put("queues.d/b.queue", "[Queue]\nPool=default\n");
        put("queues.d/c.queue", "");
        _cleanup_(config_freep) Config *c = load();
        ck_assert_uint_eq(c->n_pools, 2);
        ck_assert_str_eq(c->pools[0].name, "audio");
        ck_assert_uint_eq(c->pools[0].attributes.slots, 7);
        ck_assert_uint_eq(c->pools[0].attributes.present, 0);
        ck_assert_str_eq(c->pools[1].name, "video");
        ck_assert_uint_eq(c->pools[1].attributes.slots, 5);
        ck_assert_uint_eq(c->pools[1].attributes.nice, 10);
        ck_assert_str_eq(c->queues[0].attributes.pool, "audio");
        ck_assert_str_eq(c->queues[1].attributes.pool, "default");
        ck_assert_str_eq(c->queues[2].attributes.pool, "video");
        ck_assert(config_has_pool(c, "default") && config_has_pool(c, "audio") && !config_has_pool(c, "radio"));
}

TEST(a_mistake_about_pools_names_file_and_line) {
        DIRECTORY();
        put("queues.d/a.queue", "[Queue]\nMaxActive=1\nPool=nosuch\n");
        refused("queues.d/a.queue:3: Pool: there is no pool \"nosuch\"; there are default plugin, and those");
        put("pools.d/video.pool", "");
        refused("queues.d/a.queue:3: Pool: there is no pool \"nosuch\"; there are default plugin video, and those");
        put("eqd.conf", "[Queue]\nPool=-x\n");
        refused("eqd.conf:2: Pool: there is no pool \"-x\"");
        put("eqd.conf", "");
        put("pools.d/video.pool", "[Pool]\n\nSlots=0\n");
        refused("pools.d/video.pool:3: Slots: \"0\" is out of range; 1..65536 slots");
        put("pools.d/video.pool", "[Pool]\nSlotz=1\n");
        refused("pools.d/video.pool:2: \"Slotz\" is not known here; did you mean slots?");
        put("pools.d/video.pool", "[Queue]\nMaxActive=1\n");
        refused("pools.d/video.pool:1: section \"Queue\" is not known here; there is [Pool]");
        put("pools.d/video.pool", "Slots=1\n");
        refused("pools.d/video.pool:1: there is no section above; put [Pool] first");
        put("pools.d/video.pool", "[Pool]\nKind=threads\n");
        refused("pools.d/video.pool:2: Kind: \"threads\" is none of the words; command or thread");
        put("pools.d/video.pool", "");
        put("pools.d/-video.pool", "");
        refused("pools.d/-video.pool: \"-video\" cannot be the name of a pool");
}

TEST(there_are_not_too_many_pools) {
        DIRECTORY();
        for (int i = 0; i <= EQ_POOLS_MAX; i++) {
                char name[32];
                snprintf(name, sizeof(name), "pools.d/p%03d.pool", i);
                put(name, "");
        }
        refused("pools.d/p256.pool: there are too many pools; at most 256");
}

TEST(without_memory_loading_fails_whole) {
        long n = 1;
        DIRECTORY();
        put("eqd.conf", "[Queue]\nDescription=text\nUser=0\nAllowSubmit=1 @2\n");
        put("queues.d/a.queue", "[Queue]\nDescription=other\nPool=p\n");
        put("queues.d/b.queue", "");
        put("pools.d/p.pool", "[Pool]\nDescription=slots\n");
        for (;; n++) {
                Config *c = NULL;
                fault_set(FAULT_ALLOC, n, false);
                int r = config_load(dir, false, &c, error, sizeof(error));
                fault_set(FAULT_ALLOC, 0, false);
                if (r == 0) {
                        config_free(c);
                        break;
                }
                ck_assert_msg(r == -ENOMEM && !c, "%ld: %d %s", n, r, error);
                ck_assert_int_lt(n, 1000);
        }
        ck_assert_int_gt(n, 15);
}

typedef struct Mistakes {
        char text[8192];
        unsigned n;
} Mistakes;

static void take_mistake(void *userdata, const char *text) {
        Mistakes *m = userdata;
        size_t n = strlen(m->text);
        const char *rest = strncmp(text, dir, strlen(dir)) == 0 ? text + strlen(dir) + 1 : text;
        (void)snprintf(m->text + n, sizeof(m->text) - n, "%.*s\n", (int)strcspn(rest, ";\""), rest);
        m->n++;
}

TEST(a_check_names_each_mistake_once_in_the_order_of_the_files) {
        char line[350];
        Mistakes m = { 0 };
        DIRECTORY();
        memset(line, 'x', 299);
        (void)snprintf(line + 299, sizeof(line) - 299, "\n[Queue]\nGrace=late\n");
        put("pools.d/bad name.pool", "");
        put("pools.d/few.pool", "[Pool]\nMinWorkers=9\nMaxWorkers=2\n");
        put("pools.d/odd.pool", "[Pool]\nSlots=none\n");
        put("eqd.conf",
            "[daemon]\nLogLevel=info\nStopTimeout=1s\n[Commands]\nSlots=many\nSlotz=3\n[Queue]\nGrace=soon\n");
        put("eqd.conf.d/a.conf", line);
        put("eqd.conf.d/b.conf", "[Daemon]\nLogLevel\n[Limits]\nTasksPerUser=none\n");
        put("queues.d/.hidden.queue", "nonsense");
        put("queues.d/bad name.queue", "");
        put("queues.d/good.queue", "[Queue]\nMaxActive=2\n");
        put("queues.d/one.queue", "[Queue]\nPool=none\nMaxActive=0\n");
        put("queues.d/plugin.queue", "[Queue]\nExecutor=plugin\n");
        ck_assert_int_eq(config_check(dir, false, take_mistake, &m), -EINVAL);
        ck_assert_str_eq(m.text, "pools.d/bad name.pool: \n"
                                 "eqd.conf:1: section \n"
                                 "eqd.conf:5: Slots: \n"
                                 "eqd.conf:6: \n"
                                 "eqd.conf:8: Grace: \n"
                                 "eqd.conf.d/a.conf:1: the line has 299 bytes\n"
                                 "eqd.conf.d/a.conf:3: Grace: \n"
                                 "eqd.conf.d/b.conf:4: TasksPerUser: \n"
                                 "eqd.conf.d/b.conf:2: is neither [Section] nor Key=value nor a comment after # or \n"
                                 "pools.d/few.pool: min_workers: 9 are more than max_workers, which is 2\n"
                                 "pools.d/odd.pool:2: Slots: \n"
                                 "queues.d/bad name.queue: \n"
                                 "queues.d/one.queue:2: Pool: there is no pool \n"
                                 "queues.d/one.queue:3: MaxActive: \n"
                                 "queues.d/plugin.queue: executor: plugin needs Plugin=, the path of one\n");
        refused("pools.d/bad name.pool: "); /* as before: the first one */
}

TEST(a_check_of_what_is_good_says_nothing) {
        Mistakes m = { 0 };
        DIRECTORY();
        put("eqd.conf", "[Commands]\nSlots=3\n");
        put("queues.d/a.queue", "[Queue]\nMaxActive=2\n");
        ck_assert_int_eq(config_check(dir, false, take_mistake, &m), 0);
        strcat(dir, "/no-such");
        ck_assert_int_eq(config_check(dir, false, take_mistake, &m), 0);
        ck_assert_uint_eq(m.n, 0);
}

RUN_TESTS("config", 30, test_nothing_at_all_is_a_good_configuration,
          test_settings_defaults_and_queues_are_read_and_dropins_have_the_last_word,
          test_an_error_names_file_and_line_and_what_is_allowed, test_an_error_in_a_dropin_or_a_queue_names_that_file,
          test_the_name_of_a_file_must_be_a_name_for_a_queue, test_a_long_line_is_refused_and_may_go_on_below,
          test_a_key_said_twice_is_not_a_value_that_goes_on, test_a_value_does_not_go_on_beyond_the_header_of_a_section,
          test_what_is_no_file_of_text_is_refused,
          test_who_tasks_run_as_is_taken_only_from_files_that_nobody_else_can_write,
          test_a_system_instance_takes_it_from_files_of_root_only, test_a_user_without_a_group_brings_his_own,
          test_a_user_brings_the_groups_that_a_login_gives_him,
          test_the_digest_changes_with_the_file_and_with_its_dropins_only,
          test_pools_are_read_before_what_names_them_and_take_their_default_from_the_daemon,
          test_a_mistake_about_pools_names_file_and_line, test_there_are_not_too_many_pools,
          test_without_memory_loading_fails_whole, test_a_check_names_each_mistake_once_in_the_order_of_the_files,
          test_a_check_of_what_is_good_says_nothing)
