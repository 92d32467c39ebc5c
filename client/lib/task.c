/* SPDX-License-Identifier: MIT */
/* Tasks: eq_task becomes the record that eqd.def describes, the record becomes bytes. String lists are packed into the
 * client's scratch buffer first, since a record points to encoded elements; it is reserved in one piece, so that it does
 * not move while the record points into it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/client.h"
#include "proto/memfd.h"

enum { HEADER_MAX = 5, ID_MAX = 19 }; /* longest encoding of a string's header; of an id */

/* ---- eq_task -> EqSubmit ---- */

static size_t strv_size(const char *const *v) {
        size_t n = 0;
        for (; v && *v; v++)
                n += strlen(*v) + HEADER_MAX;
        return n;
}

static EqArray pack_strv(EqBuffer *scratch, const char *const *v) {
        msgpack_packer pk = eq_packer(scratch);
        size_t start = scratch->len;
        EqArray a = { 0 };

        for (; *v; v++, a.n++)
                eq_pack_cstr(&pk, *v);
        a.raw = eq_bytes(scratch->data + start, scratch->len - start);
        return a;
}

static EqArray pack_idv(EqBuffer *scratch, const eq_task_id *ids, size_t n) {
        msgpack_packer pk = eq_packer(scratch);
        size_t start = scratch->len;

        for (size_t i = 0; i < n; i++)
                eq_pack_id(&pk, ids[i]);
        return (EqArray) { .raw = eq_bytes(scratch->data + start, scratch->len - start), .n = (uint32_t)n };
}

static size_t lists_size(const eq_task *t) {
        return strv_size(t->argv) + strv_size(t->env) + strv_size(t->rlimits) + strv_size(t->also) +
               (t->n_after_ok + t->n_after_any + t->n_after_fail) * ID_MAX;
}

static void record_lists(const eq_task *t, EqBuffer *scratch, EqSubmit *s) {
        if (t->argv)
                EQ_SET(s, Submit, argv, pack_strv(scratch, t->argv));
        if (t->env)
                EQ_SET(s, Submit, env, pack_strv(scratch, t->env));
        if (t->rlimits)
                EQ_SET(s, Submit, rlimits, pack_strv(scratch, t->rlimits));
        if (t->also)
                EQ_SET(s, Submit, also, pack_strv(scratch, t->also));
        if (t->n_after_ok > 0)
                EQ_SET(s, Submit, after_ok, pack_idv(scratch, t->after_ok, t->n_after_ok));
        if (t->n_after_any > 0)
                EQ_SET(s, Submit, after_any, pack_idv(scratch, t->after_any, t->n_after_any));
        if (t->n_after_fail > 0)
                EQ_SET(s, Submit, after_fail, pack_idv(scratch, t->after_fail, t->n_after_fail));
}

#define COPY_STR(member)                                                                                               \
        if (t->member)                                                                                                 \
        EQ_SET(s, Submit, member, eq_str(t->member))
#define COPY_NUMBER(member)                                                                                            \
        if (t->member)                                                                                                 \
        EQ_SET(s, Submit, member, t->member)

static void record_values(const eq_task *t, EqSubmit *s) {
        COPY_STR(cwd);
        COPY_STR(label);
        COPY_STR(ionice);
        COPY_STR(mime);
        COPY_STR(stdout_path);
        COPY_STR(stderr_path);
        COPY_NUMBER(at_usec);
        COPY_NUMBER(delay_usec);
        COPY_NUMBER(expire_usec);
        COPY_NUMBER(timeout_usec);
        COPY_NUMBER(grace_usec);
        COPY_NUMBER(backoff_usec);
        COPY_NUMBER(backoff_max_usec);
        COPY_NUMBER(block_usec);
        COPY_NUMBER(urgent);
        COPY_NUMBER(hold);
        COPY_NUMBER(merge);
        COPY_NUMBER(attach);
        if (t->has_retries || t->retries > 0)
                EQ_SET(s, Submit, retries, t->retries);
        if (t->has_nice || t->nice != 0)
                EQ_SET(s, Submit, nice, t->nice);
        if (t->umask > 0)
                EQ_SET(s, Submit, umask, (uint64_t)t->umask);
        if (t->array_limit > 0) {
                EQ_SET(s, Submit, array, t->array);
                EQ_SET(s, Submit, array_limit, t->array_limit);
        }
        COPY_STR(unique);
        if (t->unique && t->on_dup != EQ_DUP_SKIP)
                EQ_SET(s, Submit, on_dup, eq_str(t->on_dup == EQ_DUP_REPLACE ? "replace" : "error"));
}

/* The task as this libeq knows it. One that was built against an earlier, shorter struct is copied to *local: the rest is
 * default. NULL: it is none. */
static const eq_task *widen(const eq_task *task, eq_task *local) {
        if (task->size < offsetof(eq_task, argv) + sizeof(task->argv))
                return NULL;
        if (task->size >= sizeof(*local))
                return task;
        *local = (eq_task)EQ_TASK_INIT;
        memcpy(local, task, task->size);
        return local;
}

/* Sets everything but the queue. */
static int task_to_record(const eq_task *task, EqBuffer *scratch, EqSubmit *ret) {
        if (task->n_payload > EQ_PAYLOAD_MAX)
                return -EMSGSIZE;
        int r = eq_buffer_reserve(scratch, lists_size(task)); /* in one piece: see above */
        if (r < 0)
                return r;
        *ret = (EqSubmit) { 0 };
        EQ_SET(ret, Submit, payload, eq_bytes(task->payload, task->n_payload));
        record_lists(task, scratch, ret);
        record_values(task, ret);
        return 0;
}

/* ---- submit ---- */

/* The payload as a sealed memfd, where eqd takes it so and it is large; -1: in the message, which always works. */
static int payload_fd(eq_client *c, const eq_task *task) {
        int fd = -1;
        if (task && task->n_payload <= EQ_PAYLOAD_MAX && client_wants_payload_fd(c, task->n_payload))
                (void)eq_memfd_new(eq_bytes(task->payload, task->n_payload), &fd);
        return fd;
}

static void close_payload(const int *fd) {
        if (*fd >= 0)
                (void)close(*fd); /* eqd gets a duplicate */
}

/* So that it can be sent again, if the policy of the client says so. */
static void give_key(eq_client *c, EqSubmit *s, char buf[static LINK_KEY_SIZE]) {
        const char *key = EQ_HAS(s, Submit, unique) ? NULL : link_key(client_link(c), buf);
        if (key)
                EQ_SET(s, Submit, unique, eq_str(key));
}

static int pack_submit(eq_client *c, const char *queue, const eq_task *task, bool with_fd) {
        EqSubmit s;
        char key[LINK_KEY_SIZE];
        int r = task ? task_to_record(task, client_scratch(c), &s) : -EINVAL;
        if (r < 0)
                return r;
        give_key(c, &s, key);
        EQ_SET(&s, Submit, queue, eq_str(queue));
        if (with_fd) {
                s.payload = eq_bytes(NULL, 0);
                EQ_SET(&s, Submit, payload_fd, true);
        }
        msgpack_packer pk = client_packer(c);
        eq_pack_params(&pk, &eq_schema_Submit, &s);
        return 0;
}

/* Begins and ends it, for either kind of callback, or for none. */
static int submit(eq_client *c, const char *queue, const eq_task *task, eq_reply_fn fn, eq_submit_fn submit_fn,
                  void *userdata, eq_call **ret) {
        eq_task local;
        task = widen(task, &local);
        __attribute__((cleanup(close_payload))) int fd = payload_fd(c, task);
        int r = submit_fn ? client_begin_submit(c, &fd, fd >= 0, submit_fn, userdata, ret)
                          : client_begin(c, "submit", &fd, fd >= 0, fn, userdata, ret);
        return r < 0 ? r : client_end(c, *ret, pack_submit(c, queue, task, fd >= 0));
}

int eq_submit_start(eq_client *c, const char *queue, const eq_task *task, eq_submit_fn fn, void *userdata) {
        eq_call *call;
        return submit(c, queue, task, NULL, fn, userdata, &call);
}

int eq_submit_future(eq_client *c, const char *queue, const eq_task *task, eq_call **ret_call) {
        eq_call *call;
        int r = submit(c, queue, task, NULL, NULL, NULL, &call);
        if (r < 0)
                return r;
        client_make_future(c, call);
        *ret_call = call;
        return 0;
}

static int id_from_reply(const eq_reply *reply, eq_task_id *ret_id) {
        EqIdRef ref;
        int r = eq_get_id(client_result(reply), &ref);
        if (r == 0 && ret_id)
                *ret_id = ref.id;
        return r;
}

int eq_submit_wait(eq_call *call, uint64_t timeout_usec, eq_task_id *ret_id) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        int r = eq_call_wait(call, timeout_usec, &reply);
        return r < 0 ? r : id_from_reply(reply, ret_id);
}

int eq_submit(eq_client *c, const char *queue, const eq_task *task, eq_task_id *ret_id) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        ClientSync sync = { 0 };
        eq_call *call;

        int r = submit(c, queue, task, client_sync_done, NULL, &sync, &call);
        if (r == 0)
                r = client_wait(c, call, &sync, client_timeout(c), &reply);
        return r < 0 ? r : id_from_reply(reply, ret_id);
}

/* Each task as a map, or as its bare payload where that is all. */
static int pack_tasks(eq_client *c, const eq_task *tasks, size_t n) {
        msgpack_packer pk = client_packer(c);

        const char *at = (const char *)tasks; /* of the caller's eq_task, which may be a shorter one */
        eq_task local;

        msgpack_pack_array(&pk, n);
        for (size_t i = 0; i < n; i++, at += tasks->size) {
                const eq_task *task = widen((const eq_task *)at, &local);
                EqSubmit s;
                char key[LINK_KEY_SIZE];
                int r = task ? task_to_record(task, client_scratch(c), &s) : -EINVAL;
                if (r < 0)
                        return r;
                give_key(c, &s, key);
                if (s.present == EQ_BIT(Submit, payload))
                        eq_pack_bin(&pk, s.payload);
                else
                        eq_pack_record(&pk, &eq_schema_Submit, &s);
        }
        return 0;
}

/* Begins and ends it, for either kind of callback, or for none. */
static int begin_submitv(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_reply_fn fn,
                         eq_submitv_fn submitv_fn, void *userdata, eq_call **ret) {
        if (n == 0 || n > EQ_BATCH_MAX)
                return -EINVAL;
        int r = submitv_fn ? client_begin_submitv(c, n, submitv_fn, userdata, ret)
                           : client_begin(c, "submit_many", NULL, 0, fn, userdata, ret);
        if (r < 0)
                return r;
        msgpack_packer pk = client_packer(c);
        msgpack_pack_array(&pk, 2);
        eq_pack_cstr(&pk, queue);
        return client_end(c, *ret, pack_tasks(c, tasks, n));
}

static int batch_from_reply(const eq_reply *reply, size_t n, EqSubmitManyReply *ret) {
        EqDecodeError error;
        *ret = (EqSubmitManyReply) { 0 };
        int r = eq_decode_map(&eq_schema_SubmitManyReply, client_result(reply), ret, &error);
        bool is_whole = r == 0 && EQ_HAS(ret, SubmitManyReply, first) && ret->n == n &&
                        (!EQ_HAS(ret, SubmitManyReply, ids) || ret->ids.n == n);
        return is_whole ? 0 : -EBADMSG;
}

static int ids_from_reply(const eq_reply *reply, size_t n, eq_task_id *ret_ids) {
        EqSubmitManyReply m;
        EqIdRef id;
        int r = batch_from_reply(reply, n, &m);
        for (size_t i = 0; r == 0 && ret_ids && i < n; i++) {
                ret_ids[i] = (eq_task_id) { .queue = m.first.id.queue, .seq = m.first.id.seq + i };
                if (EQ_HAS(&m, SubmitManyReply, ids) && eq_next_id(&m.ids, &id) == 1)
                        ret_ids[i] = id.id;
        }
        return r;
}

static int submitv(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_reply **ret_reply) {
        ClientSync sync = { 0 };
        eq_call *call;
        int r = begin_submitv(c, queue, tasks, n, client_sync_done, NULL, &sync, &call);
        return r < 0 ? r : client_wait(c, call, &sync, client_timeout(c), ret_reply);
}

int eq_submitv_start(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_submitv_fn fn,
                     void *userdata) {
        eq_call *call;
        return begin_submitv(c, queue, tasks, n, NULL, fn, userdata, &call);
}

void client_submitv_answered(eq_client *c, size_t n, int r, const eq_reply *reply, eq_submitv_fn fn, void *userdata) {
        eq_task_id ids[EQ_BATCH_MAX];
        if (r == 0)
                r = ids_from_reply(reply, n, ids);
        fn(c, r, r == 0 ? ids : NULL, r == 0 ? n : 0, userdata);
}

int eq_submitv_future(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_call **ret_call) {
        eq_call *call;
        int r = begin_submitv(c, queue, tasks, n, NULL, NULL, NULL, &call);
        if (r < 0)
                return r;
        client_make_future(c, call);
        *ret_call = call;
        return 0;
}

int eq_submitv_wait(eq_call *call, uint64_t timeout_usec, eq_task_id *ret_ids, size_t n) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        int r = eq_call_wait(call, timeout_usec, &reply);
        return r < 0 ? r : ids_from_reply(reply, n, ret_ids);
}

/* Of the caller's eq_task, which may be a shorter one. */
static bool any_has_key(const eq_task *tasks, size_t n) {
        const char *at = (const char *)tasks;

        for (size_t i = 0; n <= EQ_BATCH_MAX && i < n; i++, at += tasks->size) {
                const eq_task *t = (const eq_task *)at;
                if (t->size >= offsetof(eq_task, unique) + sizeof(t->unique) && t->unique)
                        return true;
        }
        return false;
}

/* A batch that was sent again is there already, as a whole. */
static bool is_in_order(const EqSubmitManyReply *m) {
        EqArray ids = m->ids;
        EqIdRef id;
        for (uint64_t seq = m->first.id.seq; EQ_HAS(m, SubmitManyReply, ids) && eq_next_id(&ids, &id) == 1; seq++)
                if (id.id.seq != seq)
                        return false;
        return true;
}

int eq_submitv(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_task_id *ret_first) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        EqSubmitManyReply m;

        if (any_has_key(tasks, n))
                return -EINVAL;
        int r = submitv(c, queue, tasks, n, &reply);
        if (r == 0)
                r = batch_from_reply(reply, n, &m);
        if (r == 0 && !is_in_order(&m))
                r = -EBADMSG;
        if (r == 0 && ret_first)
                *ret_first = m.first.id;
        return r;
}

int eq_submitv_ids(eq_client *c, const char *queue, const eq_task *tasks, size_t n, eq_task_id *ret_ids) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        int r = submitv(c, queue, tasks, n, &reply);
        return r < 0 ? r : ids_from_reply(reply, n, ret_ids);
}

/* ---- the others ---- */

static EqArray one_id(EqBuffer *scratch, eq_task_id id) {
        return eq_buffer_reserve(scratch, ID_MAX) < 0 ? (EqArray) { 0 } : pack_idv(scratch, &id, 1);
}

int eq_cancel(eq_client *c, eq_task_id id, bool running, int *ret_result) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        EqCancel rec = { 0 };
        EqArray results;
        int64_t result;

        EQ_SET(&rec, Cancel, ids, one_id(client_scratch(c), id));
        if (rec.ids.n == 0)
                return -ENOMEM;
        if (running)
                EQ_SET(&rec, Cancel, running, true);
        int r = client_call_record(c, "cancel", &eq_schema_Cancel, &rec, client_timeout(c), &reply);
        if (r == 0)
                r = eq_get_array(client_result(reply), &results);
        if (r == 0 && eq_next_i64(&results, &result) != 1)
                r = -EBADMSG;
        if (r == 0 && ret_result)
                *ret_result = (int)result;
        return r;
}

static int task_from_reply(const eq_reply *reply, EqTask *ret) {
        EqDecodeError error;
        EqArray rows;
        EqBytes row;

        *ret = (EqTask) { 0 };
        int r = eq_get_array(client_result(reply), &rows);
        if (r < 0)
                return r;
        if (eq_next_raw(&rows, &row) != 1 || eq_decode_map(&eq_schema_Task, row, ret, &error) < 0)
                return -EBADMSG;
        return 0;
}

static void status_from_task(const EqTask *t, eq_status *ret) {
        *ret = (eq_status) {
                .id = t->id.id,
                .state = eq_state_find(t->state),
                .reason = EQ_HAS(t, Task, reason) ? eq_reason_find(t->reason) : EQ_REASON_NONE,
                .exit_status = EQ_HAS(t, Task, exit) ? (int)t->exit : -1,
                .signal = (int)t->signal,
                .attempts = (uint32_t)t->attempt,
        };
}

static int status_from_reply(const eq_reply *reply, eq_status *ret) {
        EqTask t;
        int r = task_from_reply(reply, &t);
        if (r == 0)
                status_from_task(&t, ret);
        return r;
}

static int call_wait(eq_client *c, eq_task_id id, uint64_t timeout_usec, eq_reply **ret) {
        EqWait rec = { 0 };

        EQ_SET(&rec, Wait, ids, one_id(client_scratch(c), id));
        if (rec.ids.n == 0)
                return -ENOMEM;
        if (timeout_usec != EQ_TIMEOUT_NEVER)
                EQ_SET(&rec, Wait, timeout_usec, timeout_usec);
        int r = client_call_record(c, "wait", &eq_schema_Wait, &rec, timeout_usec, ret);
        return r == -EREMOTEIO && eq_reply_get_error(*ret, NULL) == EQ_E_TIMED_OUT ? -ETIMEDOUT : r;
}

int eq_wait(eq_client *c, eq_task_id id, uint64_t timeout_usec, eq_status *ret) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        int r = call_wait(c, id, timeout_usec, &reply);
        return r < 0 || !ret ? r : status_from_reply(reply, ret);
}

/* For the caller, with a zero byte behind them. */
static int copy_bytes(EqBytes bytes, void **ret, size_t *ret_n) {
        char *copy = malloc(bytes.len + 1);
        if (!copy)
                return -ENOMEM;
        if (bytes.len > 0)
                memcpy(copy, bytes.data, bytes.len);
        copy[bytes.len] = 0;
        *ret = copy;
        *ret_n = bytes.len;
        return 0;
}

int eq_wait_result(eq_client *c, eq_task_id id, uint64_t timeout_usec, eq_status *ret, void **ret_result,
                   size_t *ret_n) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        EqTask t;
        int r = call_wait(c, id, timeout_usec, &reply);
        if (r == 0)
                r = task_from_reply(reply, &t);
        if (r == 0)
                r = copy_bytes(t.result, ret_result, ret_n);
        if (r == 0 && ret)
                status_from_task(&t, ret);
        return r;
}

static int call_show(eq_client *c, eq_task_id id, bool payload, eq_reply **ret) {
        EqShow rec = { 0 };

        EQ_SET(&rec, Show, ids, one_id(client_scratch(c), id));
        if (rec.ids.n == 0)
                return -ENOMEM;
        if (payload)
                EQ_SET(&rec, Show, payload, true);
        return client_call_record(c, "show", &eq_schema_Show, &rec, client_timeout(c), ret);
}

int eq_status_get(eq_client *c, eq_task_id id, eq_status *ret) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        int r = call_show(c, id, false, &reply);
        return r < 0 ? r : status_from_reply(reply, ret);
}

int eq_payload_get(eq_client *c, eq_task_id id, void **ret_payload, size_t *ret_n) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        EqTask t;
        int r = call_show(c, id, true, &reply);
        if (r == 0)
                r = task_from_reply(reply, &t);
        if (r == 0 && !EQ_HAS(&t, Task, payload))
                r = -ENODATA;
        return r < 0 ? r : copy_bytes(t.payload, ret_payload, ret_n);
}

int eq_ping(eq_client *c) {
        EqNothing rec = { 0 };
        return client_call_record(c, "ping", &eq_schema_Nothing, &rec, client_timeout(c), NULL);
}

int eq_task_id_resolve(eq_client *c, const char *text, eq_task_id *ret) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        EqQueueName rec = { 0 };
        EqQueue q = { 0 };
        EqDecodeError error;
        EqBytes queue;
        uint64_t seq;

        int r = eq_id_parse(eq_str(text), &queue, &seq);
        if (r < 0)
                return r;
        EQ_SET(&rec, QueueName, name, queue);
        r = client_call_record(c, "queue_show", &eq_schema_QueueName, &rec, client_timeout(c), &reply);
        if (r == 0)
                r = eq_decode_map(&eq_schema_Queue, client_result(reply), &q, &error);
        if (r == 0)
                *ret = (eq_task_id) { .queue = q.id, .seq = seq };
        return r;
}
