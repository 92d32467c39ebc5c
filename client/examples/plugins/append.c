/* SPDX-License-Identifier: MIT */
/* A plugin that appends payloads to one file, each as a record of its own, in the order of the queue: what many producers write,
 * with one write and one sync for all that is there at the time.
 *
 *      [Queue]
 *      Executor=plugin
 *      Plugin=/usr/local/lib/eqd/plugins/append.so
 *      PluginConfig=/var/lib/records/all
 *
 * A record is four bytes of length, big endian, and the payload. The result of a task is the offset of its record, as a
 * number. A task that is DONE is on disk. What a failed write left of a record is cut off again. */

#include <eq-plugin.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BATCH_MAX = IOV_MAX / 2 }; /* records of one writev() */

typedef struct Append {
        const eq_plugin_api *api;
        int fd;
        off_t size; /* of what is whole */
        const eq_plugin_task *tasks[BATCH_MAX];
        uint32_t lengths[BATCH_MAX];
        struct iovec pieces[2 * BATCH_MAX];
} Append;

static int append_open(const eq_plugin_api *api, eq_plugin_host *host, const eq_plugin_config *config, void **ret) {
        struct stat st;
        if (config->text[0] != '/' || config->max_active != 1) {
                snprintf(config->error, config->error_size, "%s",
                         config->max_active != 1 ? "order needs a serial queue; leave MaxActive=1"
                                                 : "PluginConfig= must be the absolute path of the file to append to");
                return -EINVAL;
        }
        Append *a = calloc(1, sizeof(*a));
        if (!a)
                return -ENOMEM;
        a->api = api;
        a->fd = open(config->text, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (a->fd < 0 || fstat(a->fd, &st) < 0 || lseek(a->fd, 0, SEEK_END) < 0) {
                int e = errno;
                snprintf(config->error, config->error_size, "%.150s: %s", config->text, strerror(e));
                if (a->fd >= 0)
                        (void)close(a->fd);
                free(a);
                return -e;
        }
        a->size = st.st_size;
        *ret = a;
        return 0;
}

/* All of it, or a negative errno. */
static int write_all(int fd, struct iovec *v, int n) {
        while (n > 0) {
                ssize_t w = writev(fd, v, n);
                if (w < 0 && errno != EINTR)
                        return -errno;
                for (; w > 0 && n > 0 && (size_t)w >= v->iov_len; v++, n--)
                        w -= (ssize_t)v->iov_len;
                if (w > 0) {
                        v->iov_base = (char *)v->iov_base + w;
                        v->iov_len -= (size_t)w;
                }
                while (n > 0 && v->iov_len == 0) /* empty payloads */
                        v++, n--;
        }
        return 0;
}

static int write_batch(Append *a, size_t n) {
        for (size_t i = 0; i < n; i++) {
                const eq_plugin_task *t = a->tasks[i];
                a->lengths[i] = htonl((uint32_t)t->payload_len);
                a->pieces[2 * i] = (struct iovec) { &a->lengths[i], sizeof(a->lengths[i]) };
                a->pieces[2 * i + 1] = (struct iovec) { (void *)t->payload, t->payload_len };
        }
        int r = write_all(a->fd, a->pieces, (int)(2 * n));
        if (r >= 0 && fdatasync(a->fd) < 0)
                r = -errno;
        return r;
}

/* Without the half of a record the file is what it was. If even that fails there may be one at its end. */
static void undo(Append *a) {
        if (ftruncate(a->fd, a->size) < 0 || lseek(a->fd, a->size, SEEK_SET) < 0)
                return;
}

static void append_execute(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b) {
        Append *a = instance;
        char text[64];
        size_t n = 0;
        while (n < BATCH_MAX && (a->tasks[n] = a->api->next(b)))
                n++;
        if (n == 0)
                return;
        int r = write_batch(a, n);
        if (r < 0) {
                undo(a);
                a->api->log(meta->host, 3, strerror(-r));
                for (size_t i = 0; i < n; i++)
                        (void)a->api->fail(a->tasks[i], strerror(-r), false);
                return;
        }
        for (size_t i = 0; i < n; i++) {
                int len = snprintf(text, sizeof(text), "%lld", (long long)a->size);
                a->size += (off_t)(sizeof(a->lengths[i]) + a->tasks[i]->payload_len);
                if (a->api->ok(a->tasks[i], text, (size_t)len) < 0) /* out of memory: it is written all the same */
                        (void)a->api->ok(a->tasks[i], NULL, 0);
        }
}

static void append_close(void *instance) {
        Append *a = instance;
        (void)close(a->fd); /* everything was synced */
        free(a);
}

const eq_plugin eq_plugin_entry = {
        .abi = EQ_PLUGIN_ABI,
        .name = "append",
        .open = append_open,
        .execute = append_execute,
        .close = append_close,
};
