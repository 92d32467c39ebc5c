/* SPDX-License-Identifier: MIT */
#pragma once

/* Names of users and groups. Blocks as long as the machine's directory of users does. */

#include <stdbool.h>
#include <sys/types.h>

enum { ACCOUNT_NAME_SIZE = 256 };

/* The name, terminated, in buf; false: there is none (or it is longer than any that Debian takes). */
bool account_user_name(uid_t uid, char buf[static ACCOUNT_NAME_SIZE]);
bool account_group_name(gid_t gid, char buf[static ACCOUNT_NAME_SIZE]);

/* False: no such user. */
bool account_uid(const char *name, uid_t *ret);
