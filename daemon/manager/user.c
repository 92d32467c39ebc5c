/* SPDX-License-Identifier: MIT */
/* Counters per uid. A User lives while somebody holds a reference: a session, a task. Whoever charges holds one, so the
 * last reference can go only when everything was refunded. A lowered limit takes nothing away; it refuses what is new. */

#include "manager/user.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static const char *const resource_names[_USER_RESOURCE_MAX] = {
        [USER_CONNECTIONS] = "connections",
        [USER_TASKS] = "pending tasks",
        [USER_TASK_BYTES] = "bytes of pending tasks",
        [USER_DESCRIPTORS] = "pending tasks with a descriptor as standard input",
        [USER_OUTPUT_BYTES] = "bytes of unread output",
        [USER_INPUT_BYTES] = "bytes of incomplete requests",
};

void users_deinit(Users *users) {
        assert(!users->by_uid);
        free(users->numbered);
}

int user_get(Users *users, uid_t uid, User **ret) {
        _cleanup_free_ User *u = NULL;
        User *found = users->latest;

        if (!found || found->uid != uid)
                HASH_FIND(hh, users->by_uid, &uid, sizeof(uid), found);
        if (found) {
                found->n_refs++;
                users->latest = found;
                *ret = found;
                return 0;
        }

        u = fault_malloc(sizeof(*u));
        if (!u)
                return -ENOMEM;
        *u = (User) { .users = users, .uid = uid, .n_refs = 1 };
        HASH_ADD(hh, users->by_uid, uid, sizeof(u->uid), u);
        if (!u->hh.tbl)
                return -ENOMEM;
        *ret = TAKE_PTR(u);
        return 0;
}

User *user_unref(User *u) {
        if (!u)
                return NULL;
        assert(u->n_refs > 0);
        if (--u->n_refs > 0)
                return NULL;
        for (unsigned r = 0; r < _USER_RESOURCE_MAX; r++)
                assert(u->used[r] == 0);
        if (u->number)
                u->users->numbered[u->number] = NULL;
        if (u->users->latest == u)
                u->users->latest = NULL;
        HASH_DELETE(hh, u->users->by_uid, u);
        free(u);
        return NULL;
}

uint16_t user_number(User *u) {
        enum { STEP = 16 };
        Users *users = u->users;
        if (u->number)
                return u->number;
        unsigned i = 1;
        while (i < users->n_numbered && users->numbered[i])
                i++;
        if (i > UINT16_MAX)
                return 0;
        if (i >= users->n_numbered) {
                unsigned n = users->n_numbered + STEP;
                User **more = fault_realloc(users->numbered, n * sizeof(User *));
                if (!more)
                        return 0;
                memset(more + users->n_numbered, 0, STEP * sizeof(User *));
                users->numbered = more;
                users->n_numbered = n;
        }
        users->numbered[i] = u;
        u->number = (uint16_t)i;
        return u->number;
}

bool user_is_unlimited(const User *u) {
        return u->uid == 0 || u->uid == u->users->unlimited_uid;
}

bool user_charge(User *u, UserResource r, uint64_t n) {
        uint64_t sum, limit = u->users->limits[r];

        if (__builtin_add_overflow(u->used[r], n, &sum))
                return false;
        if (limit > 0 && sum > limit && !user_is_unlimited(u))
                return false;
        u->used[r] = sum;
        return true;
}

void user_refund(User *u, UserResource r, uint64_t n) {
        assert(u->used[r] >= n);
        u->used[r] -= n;
}

const char *user_resource_name(UserResource r) {
        return resource_names[r];
}
