/* SPDX-License-Identifier: MIT */
#pragma once

/* What a task does, and for whom: the immutable part of a task, kept as the wire form it came in and decoded when it is
 * needed. Made by the manager at admission, which embeds it beside the Task. Loop. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/codec.h"

enum { IDENTITY_GROUPS_MAX = 256 }; /* as many as the spawner takes; what a connection has beyond is left out */

/* User, group and supplementary groups of a connection at accept, or of a queue's fixed user. Immutable, counted: sessions, tasks share one. */
typedef struct Identity {
        unsigned n_refs;
        uid_t uid;
        gid_t gid;
        unsigned n_groups;
        gid_t groups[];
} Identity;

int identity_new(uid_t uid, gid_t gid, const gid_t *groups, unsigned n_groups, Identity **ret);
Identity *identity_ref(Identity *id);   /* NULL is fine */
Identity *identity_unref(Identity *id); /* returns NULL; NULL is fine */
bool identity_in_group(const Identity *id, gid_t gid);

/* Options that tasks of one submit_many share, encoded; counted. */
typedef struct SharedOptions {
        unsigned n_refs;
        uint32_t len;
        char data[];
} SharedOptions;

typedef struct TaskSpec {
        Identity *identity;      /* who submitted it */
        SharedOptions *common;   /* may be NULL; its own options win */
        uint64_t submitted_usec; /* wall clock */
        uint32_t payload_len, options_len;
        int stdin_fd; /* -1; else owned, and at most once */
        char data[];  /* payload, then the encoded map of options (may be 0 bytes) */
} TaskSpec;

/* Copies payload and options into s, which has room for payload.len + options.len bytes of data. `common` may be NULL, is
 * referenced; `identity` is referenced. The caller sets stdin_fd once it hands a descriptor over. */
void task_spec_init(TaskSpec *s, Identity *identity, SharedOptions *common, EqBytes payload, EqBytes options,
                    uint64_t submitted_usec);
void task_spec_deinit(TaskSpec *s); /* repeatable */

/* The options, common ones first, then its own. ret->queue is not set; ret->payload is. Slices live as long as s. */
void task_spec_decode(const TaskSpec *s, EqSubmit *ret);
EqBytes task_spec_payload(const TaskSpec *s);

int shared_options_new(EqBytes options, SharedOptions **ret);
SharedOptions *shared_options_unref(SharedOptions *o);
