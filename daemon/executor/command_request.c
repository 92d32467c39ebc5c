/* SPDX-License-Identifier: MIT */
/* The text of a start: strings one after the other, each with its NUL, and numbers beside them. */

#include "executor/command_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "executor/ionice.h"
#include "executor/rlimits.h"

#define PATH_DEFAULT "PATH=/usr/local/bin:/usr/bin:/bin"

static void add_string(EqBuffer *b, EqBytes s) {
        if (eq_buffer_append(b, s.data, s.len) < 0 || eq_buffer_append(b, "", 1) < 0)
                b->failed = true;
}

static uint32_t add_strings(EqBuffer *b, EqArray array) {
        EqBytes s;
        uint32_t n = 0;
        for (; eq_next_bytes(&array, &s) > 0; n++)
                add_string(b, s);
        return n;
}

static bool has_prefix(EqBytes s, const char *prefix) {
        size_t n = strlen(prefix);
        return s.len >= n && memcmp(s.data, prefix, n) == 0;
}

/* Variables by which eqd tells a task what it is: whatever it brings of these names is left out. */
static bool is_told(EqBytes kv) {
        static const char *const ours[] = { "EQD_TASK=", "EQD_QUEUE=", "EQD_ATTEMPT=", "EQD_MIME=" };
        for (size_t i = 0; i < ELEMENTSOF(ours); i++)
                if (has_prefix(kv, ours[i]))
                        return true;
        return false;
}

/* The task's own, but for what eqd tells it. */
static uint32_t add_environment(EqBuffer *b, const CommandSetup *setup, const Task *t, const EqSubmit *s) {
        char text[300]; /* the longest: EQD_MIME= */
        EqArray env = s->env;
        EqBytes kv;
        bool has_path = false;
        uint32_t n = 3;

        snprintf(text, sizeof(text), "EQD_TASK=%s/%llu", setup->queue, (unsigned long long)t->seq);
        add_string(b, eq_str(text));
        snprintf(text, sizeof(text), "EQD_QUEUE=%s", setup->queue);
        add_string(b, eq_str(text));
        snprintf(text, sizeof(text), "EQD_ATTEMPT=%u", (unsigned)t->attempt);
        add_string(b, eq_str(text));
        if (EQ_HAS(s, Submit, mime)) {
                snprintf(text, sizeof(text), "EQD_MIME=%.*s", (int)s->mime.len, s->mime.data);
                add_string(b, eq_str(text));
                n++;
        }
        while (eq_next_bytes(&env, &kv) > 0) {
                if (is_told(kv))
                        continue;
                has_path = has_path || has_prefix(kv, "PATH=");
                add_string(b, kv);
                n++;
        }
        if (!has_path) {
                add_string(b, eq_str(PATH_DEFAULT));
                n++;
        }
        return n;
}

_Static_assert((int)IDENTITY_GROUPS_MAX == (int)SPAWN_GROUPS_MAX, "a user's groups fit a request");

/* Always asked for: a spawner that may become nobody else refuses what is not its own user's, which may have waited since
 * before it lost that right, and never runs it as its own. */
static void set_identity(const Identity *id, SpawnStart *m) {
        m->flags |= SPAWN_SET_IDENTITY;
        m->uid = id->uid;
        m->gid = id->gid;
        m->n_groups = MIN(id->n_groups, (unsigned)SPAWN_GROUPS_MAX);
        for (uint32_t i = 0; i < m->n_groups; i++)
                m->groups[i] = id->groups[i];
}

static void set_limits(const EqSubmit *s, SpawnStart *m) {
        EqArray it = s->rlimits;
        EqBytes text;
        char error[160];
        while (m->n_rlimits < SPAWN_RLIMITS_MAX && eq_next_bytes(&it, &text) > 0)
                if (limit_parse(text, &m->rlimits[m->n_rlimits], error, sizeof(error)) == 0) /* checked at admission */
                        m->n_rlimits++;
}

int command_request_fill(const CommandSetup *setup, const Task *t, const EqSubmit *s, EqBuffer *b, SpawnStart *m) {
        b->len = 0;
        m->n_argv = add_strings(b, s->argv);
        m->n_env = add_environment(b, setup, t, s);
        add_string(b, s->cwd);
        add_string(b, s->stdout_path);
        add_string(b, s->stderr_path);
        m->n_strings = (uint32_t)b->len;
        m->umask = EQ_HAS(s, Submit, umask) ? (uint32_t)s->umask : 0022;
        if (EQ_HAS(s, Submit, nice) || setup->nice > 0) {
                m->flags |= SPAWN_SET_NICE;
                m->nice = EQ_HAS(s, Submit, nice) ? (int32_t)s->nice : setup->nice;
        }
        if (EQ_HAS(s, Submit, ionice) && ionice_parse(s->ionice, &m->ioprio) == 0) /* checked at admission */
                m->flags |= SPAWN_SET_IOPRIO;
        if (s->merge)
                m->flags |= SPAWN_MERGE;
        set_identity(setup->run_as, m);
        set_limits(s, m);
        if (!b->failed)
                return 0;
        eq_buffer_done(b);
        return -ENOMEM;
}
