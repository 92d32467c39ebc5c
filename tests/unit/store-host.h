/* SPDX-License-Identifier: MIT */
#pragma once

/* A Host whose manager has a store in a directory of its own, with a durable queue q. */

#include <ftw.h>

#include "manager-host.h"
#include "manager/durable.h"

static char store_dir[64];

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

static inline void small_segments(Config *c) {
        c->daemon.segment_size = 32 * 1024;
}

static inline void durable_begin(Host *h, const char *const *attributes) {
        strcpy(store_dir, "/tmp/eqd-store-host.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(store_dir));
        host_init_from(h, small_segments, store_dir, -1);
        host_queue(h, "q", attributes);
}

/* Ends and begins anew with what is on disk: everything that was appended by then. */
static inline void durable_restart(Host *h) {
        host_done(h);
        host_init_from(h, NULL, store_dir, -1);
}

static inline void durable_done(Host *h) {
        host_done(h);
        ck_assert_int_eq(nftw(store_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static inline QueueRecord *durable_q(const Host *h) {
        return manager_queue(h->m, eq_str("q"));
}

static inline void nothing(uv_async_t *handle) {
}

static inline void handle_free(uv_handle_t *handle) {
        free(handle);
}

/* Turns the loop until is(h, number), and no further: in one more turn the store may have come further, too. The store alone is no
 * reason for the loop to go on. */
static inline void until(Host *h, bool (*is)(const Host *h, uint64_t number), uint64_t number) {
        uv_async_t *reason = malloc(sizeof(*reason));
        ck_assert(reason && uv_async_init(&h->loop, reason, nothing) == 0);
        while (!is(h, number))
                uv_run(&h->loop, UV_RUN_ONCE);
        uv_close((uv_handle_t *)reason, handle_free); /* gone with the next turn */
}

static inline TaskRecord *task_of_q(const Host *h, uint64_t seq) {
        return seq_index_get(&durable_q(h)->tasks, seq);
}

static inline bool has_arrived(const Host *h, uint64_t seq) {
        return task_of_q(h, seq)->task.where != TASK_NOWHERE;
}

/* No space is left from now on, and none of what there was. */
static inline void fill_store(Host *h) {
        EqSubmit held = { 0 };
        TaskRecord *t;
        int r = 0;
        EQ_SET(&held, Submit, hold, true);
        fault_set(FAULT_SPACE, 1, true);
        for (int i = 0; i < 20000 && r == 0; i++) {
                r = host_submit(h, anna(h), "q", held, &t);
                if (r == 0)
                        until(h, has_arrived, t->task.seq);
        }
        ck_assert_int_eq(r, -ENOSPC);
        ck_assert_int_eq(h->refusal.code, EQ_E_STORE);
}

static inline bool has_space(const Host *h, uint64_t unused) {
        Refusal refusal;
        return durable_may_grow(durable_q(h), &refusal) == 0;
}

static inline void free_store(Host *h) {
        fault_set(FAULT_SPACE, 0, false);
        until(h, has_space, 0);
}
