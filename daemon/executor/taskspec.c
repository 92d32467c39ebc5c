/* SPDX-License-Identifier: MIT */
/* A million tasks may be pending, so a spec keeps the bytes that came in, behind the record that embeds it, and decodes them again each
 * time somebody needs them. The decoder has accepted them once at admission; a field that fails now is left out. */

#include "executor/taskspec.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"

int identity_new(uid_t uid, gid_t gid, const gid_t *groups, unsigned n_groups, Identity **ret) {
        Identity *id = fault_malloc(sizeof(*id) + n_groups * sizeof(gid_t));
        if (!id)
                return -ENOMEM;
        id->n_refs = 1;
        id->uid = uid;
        id->gid = gid;
        id->n_groups = n_groups;
        if (n_groups)
                memcpy(id->groups, groups, n_groups * sizeof(gid_t));
        *ret = id;
        return 0;
}

Identity *identity_ref(Identity *id) {
        if (id)
                id->n_refs++;
        return id;
}

Identity *identity_unref(Identity *id) {
        if (id && --id->n_refs == 0)
                free(id);
        return NULL;
}

bool identity_in_group(const Identity *id, gid_t gid) {
        if (id->gid == gid)
                return true;
        for (unsigned i = 0; i < id->n_groups; i++)
                if (id->groups[i] == gid)
                        return true;
        return false;
}

int shared_options_new(EqBytes options, SharedOptions **ret) {
        SharedOptions *o = fault_malloc(sizeof(*o) + options.len);
        if (!o)
                return -ENOMEM;
        o->n_refs = 1;
        o->len = options.len;
        if (options.len)
                memcpy(o->data, options.data, options.len);
        *ret = o;
        return 0;
}

SharedOptions *shared_options_unref(SharedOptions *o) {
        if (o && --o->n_refs == 0)
                free(o);
        return NULL;
}

void task_spec_init(TaskSpec *s, Identity *identity, SharedOptions *common, EqBytes payload, EqBytes options,
                    uint64_t submitted_usec) {
        s->identity = identity_ref(identity);
        s->common = common;
        if (common)
                common->n_refs++;
        s->submitted_usec = submitted_usec;
        s->payload_len = payload.len;
        s->options_len = options.len;
        s->stdin_fd = -1;
        if (payload.len)
                memcpy(s->data, payload.data, payload.len);
        if (options.len)
                memcpy(s->data + payload.len, options.data, options.len);
}

void task_spec_deinit(TaskSpec *s) {
        s->identity = identity_unref(s->identity);
        s->common = shared_options_unref(s->common);
        s->stdin_fd = close_fd(s->stdin_fd);
}

EqBytes task_spec_payload(const TaskSpec *s) {
        return eq_bytes(s->data, s->payload_len);
}

void task_spec_decode(const TaskSpec *s, EqSubmit *ret) {
        EqDecodeError error; /* accepted at admission, so there is nobody to tell */

        memset(ret, 0, sizeof(*ret));
        if (s->common && s->common->len)
                (void)eq_decode_map(&eq_schema_Submit, eq_bytes(s->common->data, s->common->len), ret, &error);
        if (s->options_len)
                (void)eq_decode_map(&eq_schema_Submit, eq_bytes(s->data + s->payload_len, s->options_len), ret, &error);
        ret->queue = eq_bytes(NULL, 0); /* the task knows it; a key of that name among the options means nothing */
        ret->present &= ~EQ_BIT(Submit, queue);
        EQ_SET(ret, Submit, payload, task_spec_payload(s));
}
