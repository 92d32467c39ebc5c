/* SPDX-License-Identifier: MIT */
/* What an eqd before this one kept. Whatever the bytes are: a manager starts with them, or memory was out; what it took can be
 * kept again, and what that gives is taken whole. */

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "manager/snapshot.h"
#include "target.h"

enum { FAR = 20000 }; /* slots of queue ids beyond it cost megabytes each time */

static void on_event(void *host, const EqEvent *event, bool has_owner, uid_t owner) {
        (void)host;
        (void)event;
        (void)has_owner;
        (void)owner;
}

static void on_ready(void *host) {
        (void)host;
}

static const ManagerHooks hooks = { .event = on_event, .ready = on_ready };

static Manager *manager(uv_loop_t *loop) {
        Config *config;
        Manager *m;
        char error[PARAM_ERROR_MAX];
        FUZZ_CHECK(config_load("/nonexistent", false, &config, error, sizeof(error)) == 0);
        config->daemon.commands = false;
        ManagerConfig mc = { .loop = loop, .clock = &clock_system, .config_dir = "/nonexistent", .config = config };
        FUZZ_CHECK(manager_new(&mc, &hooks, NULL, &m) == 0);
        return m;
}

static int put(const void *data, size_t size) {
        int fd = memfd_create("fuzz-snapshot", MFD_CLOEXEC);
        FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
        return fd;
}

static bool has_far_slot(const uint8_t *data, size_t size) {
        uint32_t len;
        uint64_t id;
        for (size_t at = 8; at + sizeof(len) + 1 + sizeof(id) <= size; at += sizeof(len) + len) {
                memcpy(&len, data + at, sizeof(len));
                memcpy(&id, data + at + sizeof(len) + 1, sizeof(id));
                uint8_t kind = data[at + sizeof(len)];
                if ((kind == 'Q' || kind == 'G') && (id & ENGINE_QUEUES_MAX) > FAR)
                        return true;
        }
        return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        uv_loop_t loop;
        if (has_far_slot(data, size))
                return 0;
        FUZZ_CHECK(uv_loop_init(&loop) == 0);
        int first = put(data, size), second = put("", 0);
        Manager *m = manager(&loop);
        FUZZ_CHECK(manager_start(m, NULL, first) == 0);
        size_t n_pending = m->n_pending, n_finished = m->n_finished;
        unsigned n_queues = HASH_COUNT(m->queues);
        bool removing = false; /* those are not kept */
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                removing = removing || q->removing;
        FUZZ_CHECK(manager_keep(m, second) == 0);
        manager_free(m);

        m = manager(&loop);
        Restore r;
        restore_begin(&r, m);
        FUZZ_CHECK(snapshot_load(&r, second) == 0);
        FUZZ_CHECK(restore_done(&r) == 0);
        FUZZ_CHECK(r.n_skipped == 0 && r.n_queues <= n_queues);
        FUZZ_CHECK(removing || (m->n_pending == n_pending && m->n_finished == n_finished));
        manager_free(m);
        close(first);
        close(second);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        FUZZ_CHECK(uv_loop_close(&loop) == 0);
        return 0;
}
