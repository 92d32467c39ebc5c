/* SPDX-License-Identifier: MIT */
/* Queues: each function is one blocking call. */

#include <errno.h>
#include <string.h>

#include "lib/client.h"

int client_pack_strings(EqBuffer *scratch, const char *const *strings, EqArray *ret) {
        msgpack_packer pk = eq_packer(scratch);

        *ret = (EqArray) { 0 };
        for (; strings && *strings; strings++, ret->n++)
                eq_pack_cstr(&pk, *strings);
        ret->raw = eq_bytes(scratch->data, scratch->len);
        return scratch->failed ? -ENOMEM : 0;
}

int eq_queue_create(eq_client *c, const char *name, const char *const *attributes, bool exist_ok) {
        EqQueueCreate rec = { 0 };
        EqArray set;

        int r = client_pack_strings(client_scratch(c), attributes, &set);
        if (r < 0)
                return r;
        EQ_SET(&rec, QueueCreate, name, eq_str(name));
        if (set.n > 0)
                EQ_SET(&rec, QueueCreate, set, set);
        if (exist_ok)
                EQ_SET(&rec, QueueCreate, exist_ok, true);
        return client_call_record(c, "queue_create", &eq_schema_QueueCreate, &rec, client_timeout(c), NULL);
}

int eq_queue_set(eq_client *c, const char *name, const char *const *attributes) {
        EqQueueSet rec = { 0 };
        EqArray set;

        int r = client_pack_strings(client_scratch(c), attributes, &set);
        if (r < 0)
                return r;
        EQ_SET(&rec, QueueSet, name, eq_str(name));
        EQ_SET(&rec, QueueSet, set, set);
        return client_call_record(c, "queue_set", &eq_schema_QueueSet, &rec, client_timeout(c), NULL);
}

static int call_by_name(eq_client *c, const char *method, const char *name) {
        EqQueueName rec = { 0 };

        EQ_SET(&rec, QueueName, name, eq_str(name));
        return client_call_record(c, method, &eq_schema_QueueName, &rec, client_timeout(c), NULL);
}

int eq_queue_pause(eq_client *c, const char *name) {
        return call_by_name(c, "queue_pause", name);
}

int eq_queue_resume(eq_client *c, const char *name) {
        return call_by_name(c, "queue_resume", name);
}

int eq_queue_stop(eq_client *c, const char *name) {
        return call_by_name(c, "queue_stop", name);
}

int eq_queue_remove(eq_client *c, const char *name, bool with_tasks) {
        EqQueueRm rec = { 0 };

        EQ_SET(&rec, QueueRm, name, eq_str(name));
        if (with_tasks)
                EQ_SET(&rec, QueueRm, yes, true);
        return client_call_record(c, "queue_rm", &eq_schema_QueueRm, &rec, client_timeout(c), NULL);
}

/* Calls that reply when something has happened: both ends watch the time. */
static int call_and_wait(eq_client *c, const char *method, const char *name, uint64_t timeout_usec) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        EqQueueName rec = { 0 };

        EQ_SET(&rec, QueueName, name, eq_str(name));
        if (timeout_usec != EQ_TIMEOUT_NEVER)
                EQ_SET(&rec, QueueName, timeout_usec, timeout_usec);
        int r = client_call_record(c, method, &eq_schema_QueueName, &rec, timeout_usec, &reply);
        return r == -EREMOTEIO && eq_reply_get_error(reply, NULL) == EQ_E_TIMED_OUT ? -ETIMEDOUT : r;
}

int eq_queue_drain(eq_client *c, const char *name, uint64_t timeout_usec) {
        return call_and_wait(c, "queue_drain", name, timeout_usec);
}

int eq_queue_join(eq_client *c, const char *name, uint64_t timeout_usec) {
        return call_and_wait(c, "queue_join", name, timeout_usec);
}

int eq_queue_flush(eq_client *c, const char *name, uint64_t timeout_usec) {
        return call_and_wait(c, "queue_flush", name, timeout_usec);
}
