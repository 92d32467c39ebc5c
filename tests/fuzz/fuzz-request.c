/* SPDX-License-Identifier: MIT */
/* What the spawner checks before it starts a command. A request that passes has exactly the strings that it announces, each
 * ended within what came, and every count fits its array. The bytes: the counts and values of the struct, then the strings. */

#include <string.h>
#include <sys/resource.h>

#include "spawner/request.h"
#include "target.h"

typedef struct Head {
        uint32_t flags, slot, uid, gid, n_groups, n_rlimits, n_argv, n_env, n_strings, umask, group, resource;
        int32_t nice;
        uint32_t ioprio;
        uint64_t soft, hard;
        uint8_t n_fds;
} Head;

static SpawnStart make_start(const Head *h) {
        SpawnStart m = { .header.slot = h->slot,
                         .flags = h->flags,
                         .uid = h->uid,
                         .gid = h->gid,
                         .n_groups = h->n_groups,
                         .n_rlimits = h->n_rlimits,
                         .n_argv = h->n_argv,
                         .n_env = h->n_env,
                         .n_strings = h->n_strings,
                         .nice = h->nice,
                         .ioprio = h->ioprio,
                         .umask = h->umask };
        m.groups[0] = h->group;
        m.rlimits[0] = (SpawnRlimit) { .resource = h->resource, .soft = h->soft, .hard = h->hard };
        return m;
}

/* Every string starts within, and the last one ends with the last byte. */
static void walk(const SpawnStart *m, const char *strings, size_t n) {
        const char *p = strings, *end = strings + n;
        for (uint64_t i = 0; i < (uint64_t)m->n_argv + m->n_env + 3; i++) {
                FUZZ_CHECK(p < end);
                p += strlen(p) + 1;
        }
        FUZZ_CHECK(p == end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Head h;

        if (size < sizeof(h))
                return 0;
        memcpy(&h, data, sizeof(h));
        size_t n = size - sizeof(h);
        char *strings = malloc(n ? n : 1); /* its end is the end of what may be read */
        FUZZ_CHECK(strings);
        memcpy(strings, data + sizeof(h), n);
        SpawnStart m = make_start(&h);
        if (request_check_start(&m, strings, n, h.n_fds) == 0) {
                FUZZ_CHECK(m.header.slot < SPAWN_SLOTS_MAX && m.n_argv > 0);
                FUZZ_CHECK(m.n_groups <= SPAWN_GROUPS_MAX && m.n_rlimits <= SPAWN_RLIMITS_MAX && h.n_fds <= FDPASS_MAX);
                FUZZ_CHECK(m.n_rlimits == 0 || m.rlimits[0].resource < RLIM_NLIMITS);
                walk(&m, strings, n);
                const char *found = request_find_env(&m, strings, "EQD_TASK=");
                FUZZ_CHECK(!found || (found > strings && strncmp(found, "EQD_TASK=", 9) == 0));
        }
        free(strings);
        return 0;
}
