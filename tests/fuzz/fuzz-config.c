/* SPDX-License-Identifier: MIT */
/* The files of the configuration. The bytes are eqd.conf if the first one is even, else the file of a queue, or of a pool if its
 * second bit is set too, where what eqd.conf says of the daemon is not known. A load fails with a message that can be printed and
 * names a line that there is; or everything that it gives can be set again from its own text and is then the same.
 *
 * The files are one memfd behind symbolic links, so that only a directory is made on disk, once. */

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "manager/config.h"
#include "target.h"

typedef enum Kind { CONF, QUEUE, POOL, _KIND_MAX } Kind;
static char dir[64], paths[_KIND_MAX][96], queues_dir[96], pools_dir[96];
static int memfd = -1;

static void clean_up(void) {
        for (Kind k = 0; k < _KIND_MAX; k++)
                (void)unlink(paths[k]);
        (void)rmdir(queues_dir);
        (void)rmdir(pools_dir);
        (void)rmdir(dir);
}

static void set_up(void) {
        snprintf(dir, sizeof(dir), "/tmp/eqd-fuzz-config.XXXXXX");
        FUZZ_CHECK(mkdtemp(dir));
        snprintf(paths[CONF], sizeof(paths[CONF]), "%s/eqd.conf", dir);
        snprintf(queues_dir, sizeof(queues_dir), "%s/queues.d", dir);
        snprintf(pools_dir, sizeof(pools_dir), "%s/pools.d", dir);
        snprintf(paths[QUEUE], sizeof(paths[QUEUE]), "%s/queues.d/fuzz.queue", dir);
        snprintf(paths[POOL], sizeof(paths[POOL]), "%s/pools.d/fuzz.pool", dir);
        FUZZ_CHECK(mkdir(queues_dir, 0700) == 0);
        FUZZ_CHECK(mkdir(pools_dir, 0700) == 0);
        FUZZ_CHECK(atexit(clean_up) == 0);
        memfd = memfd_create("fuzz-config", MFD_CLOEXEC);
        FUZZ_CHECK(memfd >= 0);
}

static void put(const uint8_t *data, size_t size, Kind kind) {
        char target[32];

        snprintf(target, sizeof(target), "/proc/self/fd/%d", memfd);
        for (Kind k = 0; k < _KIND_MAX; k++)
                (void)unlink(paths[k]);
        FUZZ_CHECK(symlink(target, paths[kind]) == 0);
        FUZZ_CHECK(ftruncate(memfd, 0) == 0);
        FUZZ_CHECK(pwrite(memfd, data, size, 0) == (ssize_t)size);
}

/* PATH:LINE: text or PATH: text, in ASCII that a terminal can take. */
static void check_error(const char *error, const char *path, const uint8_t *data, size_t size) {
        size_t n_lines = 1, n = strlen(path);

        for (size_t i = 0; i < size; i++)
                n_lines += data[i] == '\n';
        FUZZ_CHECK(strncmp(error, path, n) == 0 && error[n] == ':');
        if (error[n + 1] != ' ') {
                char *end;
                unsigned long line = strtoul(error + n + 1, &end, 10);
                FUZZ_CHECK(line >= 1 && line <= n_lines && end[0] == ':' && end[1] == ' ' && end[2] != '\0');
        }
        for (const char *c = error; *c; c++)
                FUZZ_CHECK(*c >= 0x20 && *c < 0x7f);
}

typedef struct Again {
        const ParamTable *table;
        void *object;
} Again;

static int set_again(void *userdata, const char *name, const char *value, bool set) {
        const Again *again = userdata;
        const Param *row = params_find(again->table, name, strlen(name));
        char error[PARAM_ERROR_MAX], printed[PARAM_PRINT_MAX];

        FUZZ_CHECK(row);
        if (row->type == PARAM_ACCESS)
                return 0; /* names are looked up for files only */
        FUZZ_CHECK(param_set(row, again->object, value, strlen(value), NULL, error, sizeof(error)) == 0);
        param_print(row, again->object, printed);
        FUZZ_CHECK(strcmp(printed, value) == 0);
        return 0;
}

static void check_attributes(const QueueAttributes *a) {
        QueueAttributes object;
        Again again = { &queue_attributes_table, &object };

        FUZZ_CHECK(queue_attributes_init(&object, NULL) == 0);
        FUZZ_CHECK(a->user.id == PARAM_NO_ID && !a->group.text); /* a memfd has a mode that anybody may write */
        FUZZ_CHECK(queue_attributes_each(a, set_again, &again) == 0);
        queue_attributes_deinit(&object);
}

static void check_pool(const PoolAttributes *a) {
        PoolAttributes object;
        Again again = { &pool_attributes_table, &object };

        FUZZ_CHECK(pool_attributes_init(&object, NULL) == 0);
        FUZZ_CHECK(attributes_each(&attributes_of_pools, a, set_again, &again) == 0);
        pool_attributes_deinit(&object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char error[PATH_MAX + PARAM_ERROR_MAX] = "";
        Config *c = NULL;

        if (size < 1)
                return 0;
        if (memfd < 0)
                set_up();
        Kind kind = data[0] % 2 == 0 ? CONF : data[0] % 4 == 1 ? QUEUE : POOL;
        data++, size--;
        put(data, size, kind);

        if (config_load(dir, true, &c, error, sizeof(error)) < 0) {
                FUZZ_CHECK(!c);
                check_error(error, paths[kind], data, size);
                return 0;
        }
        FUZZ_CHECK(c->n_queues == (kind == QUEUE) && c->n_pools == (kind == POOL));
        check_attributes(kind == QUEUE ? &c->queues[0].attributes : &c->queue_defaults);
        if (kind == POOL)
                check_pool(&c->pools[0].attributes);
        config_free(c);
        return 0;
}
