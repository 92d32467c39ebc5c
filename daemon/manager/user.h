/* SPDX-License-Identifier: MIT */
#pragma once

/* What each user of the daemon has in use, and how much he may. A charge is taken where something is accepted and given
 * back where it is freed; one user can exhaust his own share only. Loop. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/hash.h"

typedef enum UserResource {
        USER_CONNECTIONS,
        USER_TASKS,        /* accepted and not finished */
        USER_TASK_BYTES,   /* payloads and options of those */
        USER_DESCRIPTORS,  /* passed as standard input of those */
        USER_OUTPUT_BYTES, /* replies and notifications that he has not read */
        USER_INPUT_BYTES,  /* requests that have not arrived as a whole */
        _USER_RESOURCE_MAX,
} UserResource;

typedef struct Users Users;

typedef struct User {
        UT_hash_handle hh; /* Users::by_uid */
        Users *users;
        uid_t uid;
        unsigned n_refs;
        uint16_t number; /* see user_number(); 0: none */
        uint64_t used[_USER_RESOURCE_MAX];
} User;

struct Users {
        User *by_uid;
        User *latest;                        /* borrowed from there; NULL: none. Mostly it is the same one again */
        uint64_t limits[_USER_RESOURCE_MAX]; /* for each user but the unlimited; 0: none. May be changed at any time */
        uid_t unlimited_uid;                 /* eqd's own; uid 0 is always unlimited */
        User **numbered;                     /* by number; owned, they are borrowed. NULL: free */
        unsigned n_numbered;
};
#define USERS_NULL                                                                                                     \
        { 0 }

void users_deinit(Users *u);                       /* every user must have been given back */
int user_get(Users *users, uid_t uid, User **ret); /* a reference; 0 or -ENOMEM */
User *user_unref(User *u);                         /* NULL is fine; nothing may be charged when the last one goes */

/* For those who keep very many: a number for it until its last reference goes, > 0. 0: out of memory, or of numbers. */
uint16_t user_number(User *u);
static inline User *user_numbered(const Users *users,
                                  uint16_t number) { /* that was given, and is kept a reference for */
        return users->numbered[number];
}

bool user_is_unlimited(const User *u);
bool user_charge(User *u, UserResource r, uint64_t n); /* false: over the limit, nothing charged */
void user_refund(User *u, UserResource r, uint64_t n);
const char *user_resource_name(UserResource r); /* "connections", "pending tasks", ... for error texts */
