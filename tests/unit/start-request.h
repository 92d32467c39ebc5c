/* SPDX-License-Identifier: MIT */
#pragma once

/* Requests to the spawner, as eqd would make them. */

#include <string.h>

#include "spawner/wire.h"

typedef struct StartRequest {
        SpawnStart start;
        char strings[1024];
} StartRequest;

static inline void start_request_add(StartRequest *q, const char *s) {
        size_t n = strlen(s) + 1;
        memcpy(q->strings + q->start.n_strings, s, n);
        q->start.n_strings += (uint32_t)n;
}

/* argv, env: end with NULL. out: standard output goes to that file, "": nowhere. */
static inline StartRequest start_request_to(const char *const *argv, const char *const *env, const char *cwd,
                                            const char *out) {
        StartRequest q = { .start = { .header = {
                                              .magic = SPAWN_MAGIC, .version = SPAWN_VERSION, .type = SPAWN_START } } };
        for (; *argv; argv++, q.start.n_argv++)
                start_request_add(&q, *argv);
        for (; *env; env++, q.start.n_env++)
                start_request_add(&q, *env);
        start_request_add(&q, cwd);
        start_request_add(&q, out);
        start_request_add(&q, "");
        q.start.umask = 022;
        return q;
}

static inline StartRequest start_request(const char *const *argv, const char *const *env, const char *cwd) {
        return start_request_to(argv, env, cwd, "");
}

/* sh -c script */
static inline StartRequest start_request_sh(const char *script) {
        return start_request((const char *const[]) { "/bin/sh", "-c", script, NULL },
                             (const char *const[]) { "PATH=/usr/bin:/bin", NULL }, "/");
}

static inline size_t start_request_size(const StartRequest *q) {
        return sizeof(q->start) + q->start.n_strings;
}
