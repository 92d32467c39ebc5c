/* SPDX-License-Identifier: MIT */
/* The worker side of a connection: requests `run` come in, answers go out.
 *
 *      request -> waiting -> eq_worker_next() -> handed out -> ended: the answer is in the output, the run is freed
 *              \-> callback ------------------/
 *
 * A connection that comes back by itself serves again what it served. Runs of the one before are lost: they stay with whoever
 * has them until they are ended, which then sends nothing.
 *
 * Runs that wait here are on their way to nobody yet: on leaving, and when they are canceled, they are answered without
 * being handed out. A blocking loop sends each answer before it gets the next run, since that may take an hour; callbacks
 * that end their runs at once have all answers of a dispatch leave in one write. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/client.h"
#include "proto/memfd.h"

struct eq_run {
        eq_run *prev, *next; /* ClientWorker::waiting, out or lost */
        eq_client *client;
        eq_task_id id;
        uint32_t msgid, attempt;
        bool waiting, canceled, lost, has_uid; /* lost: its lease went with the connection */
        uid_t uid;
        uint64_t timeout_usec, grace_usec;
        void *userdata;
        const char *queue, *label, *mime; /* terminated, in data */
        EqBytes payload;                  /* in data, or mapped */
        bool mapped;
        char data[];
};

typedef struct RunList {
        eq_run *first, *last;
} RunList;

/* The runs at the front of `waiting` that are of that queue; they are taken by the caller one by one. */
struct eq_run_batch {
        ClientWorker *worker;
        uint64_t queue_id;
        char queue[EQ_NAME_MAX + 1];
};

struct ClientWorker {
        RunList waiting, out, lost;
        eq_run_batch batch;
        eq_run_fn run_fn;
        eq_run_cancel_fn cancel_fn;
        void *userdata;
        eq_run_confirmed_fn confirmed_fn; /* NULL: is not told */
        void *confirmed_userdata;
        bool leaving, rescue, handed_on;
        EqBuffer served; /* queues, encoded */
        uint32_t n_served, credit, parallel;
        char *name; /* NULL: none */
};

/* ---- lists ---- */

static void list_add(RunList *l, eq_run *run) {
        run->prev = l->last;
        run->next = NULL;
        *(l->last ? &l->last->next : &l->first) = run;
        l->last = run;
}

static void list_take(RunList *l, eq_run *run) {
        *(run->prev ? &run->prev->next : &l->first) = run->next;
        *(run->next ? &run->next->prev : &l->last) = run->prev;
}

static void run_free(eq_run *run) {
        ClientWorker *w = *client_worker(run->client);
        list_take(run->waiting ? &w->waiting : run->lost ? &w->lost : &w->out, run);
        if (run->mapped)
                (void)munmap((void *)run->payload.data, run->payload.len); /* as it was mapped */
        free(run);
}

static void hand_out(ClientWorker *w, eq_run *run) {
        list_take(&w->waiting, run);
        run->waiting = false;
        list_add(&w->out, run);
}

void client_worker_lost(ClientWorker *w) {
        while (w && w->waiting.first)
                run_free(w->waiting.first); /* somebody else's by now */
}

void client_worker_leases_lost(ClientWorker *w) {
        client_worker_lost(w);
        while (w && w->out.first) {
                eq_run *run = w->out.first;
                bool canceled = run->canceled;
                list_take(&w->out, run);
                run->lost = run->canceled = true;
                list_add(&w->lost, run);
                if (w->cancel_fn && !canceled)
                        w->cancel_fn(run->client, run, 0, w->userdata);
        }
}

void client_worker_free(ClientWorker *w) {
        if (!w)
                return;
        eq_buffer_done(&w->served);
        free(w->name);
        client_worker_lost(w);
        while (w->out.first)
                run_free(w->out.first);
        while (w->lost.first)
                run_free(w->lost.first);
        free(w);
}

static int get_worker(eq_client *c, ClientWorker **ret) {
        ClientWorker **w = client_worker(c);
        if (!*w && !(*w = calloc(1, sizeof(**w))))
                return -ENOMEM;
        *ret = *w;
        return 0;
}

/* ---- answers ---- */

static int send_answer(eq_client *c, uint32_t msgid, const EqRunAnswer *a, bool failed) {
        bool bare = !failed && !(a->present & ~EQ_BIT(RunAnswer, result));
        msgpack_packer pk;
        int r = client_message_begin(c, &pk);
        if (r < 0)
                return r;
        msgpack_pack_array(&pk, 4);
        msgpack_pack_int(&pk, EQ_MSG_RESPONSE);
        msgpack_pack_uint32(&pk, msgid);
        if (failed)
                eq_pack_record(&pk, &eq_schema_RunAnswer, a);
        else
                msgpack_pack_nil(&pk);
        if (failed || (bare && a->result.len == 0))
                msgpack_pack_nil(&pk);
        else if (bare)
                eq_pack_bin(&pk, a->result);
        else
                eq_pack_record(&pk, &eq_schema_RunAnswer, a);
        return client_message_end(c);
}

int eq_run_end(eq_run *run, const eq_outcome *outcome) {
        eq_outcome o = EQ_OUTCOME_INIT;
        EqRunAnswer a = { 0 };
        memcpy(&o, outcome, outcome->size < sizeof(o) ? outcome->size : sizeof(o)); /* the rest is default */
        size_t n_text = o.text ? strlen(o.text) : 0;
        if (o.n_result > EQ_RESULT_MAX || n_text > EQ_LABEL_MAX)
                return -EMSGSIZE;
        if (o.exit_status > 255)
                return -EINVAL;
        if (o.n_result > 0)
                EQ_SET(&a, RunAnswer, result, eq_bytes(o.result, o.n_result));
        if (o.exit_status >= 0)
                EQ_SET(&a, RunAnswer, exit, (uint64_t)o.exit_status);
        if (n_text > 0)
                EQ_SET(&a, RunAnswer, text, eq_bytes(o.text, n_text));
        if (o.final)
                EQ_SET(&a, RunAnswer, final, true);
        if (o.give_back)
                EQ_SET(&a, RunAnswer, give_back, true);
        if (o.retry_after_usec != EQ_TIMEOUT_NEVER)
                EQ_SET(&a, RunAnswer, retry_after_usec, o.retry_after_usec);
        else if (o.give_back)
                (*client_worker(run->client))->credit = 0;
        if (run->lost)
                client_count_late(run->client);
        int r = run->lost ? -ESTALE : send_answer(run->client, run->msgid, &a, o.failed || o.give_back);
        if (r != -ENOMEM)
                run_free(run);
        return r;
}

int eq_run_complete(eq_run *run, const void *result, size_t n) {
        eq_outcome o = EQ_OUTCOME_INIT;
        o.result = result;
        o.n_result = n;
        return eq_run_end(run, &o);
}

int eq_run_fail(eq_run *run, const char *text) {
        eq_outcome o = EQ_OUTCOME_INIT;
        o.failed = true;
        o.text = text;
        return eq_run_end(run, &o);
}

int eq_run_give_back(eq_run *run) {
        eq_outcome o = EQ_OUTCOME_INIT;
        o.give_back = true;
        return eq_run_end(run, &o);
}

int eq_run_touch(eq_run *run, int percent, const char *note) {
        EqWorkerTouch rec = { .id.id = run->id, .attempt = run->attempt };
        msgpack_packer pk;
        if (percent > 100 || (note && strlen(note) > EQ_LABEL_MAX))
                return -EINVAL;
        if (run->lost)
                return -ESTALE;
        if (percent >= 0)
                EQ_SET(&rec, WorkerTouch, progress, (uint64_t)percent);
        if (note)
                EQ_SET(&rec, WorkerTouch, note, eq_str(note));
        int r = client_message_begin(run->client, &pk);
        if (r < 0)
                return r;
        eq_pack_notify(&pk, "worker_touch");
        eq_pack_params(&pk, &eq_schema_WorkerTouch, &rec);
        r = client_message_end(run->client);
        return r < 0 ? r : eq_client_flush(run->client) < 0 ? -ECONNRESET : 0;
}

/* ---- requests ---- */

static const char *copy_text(char **to, EqBytes s) {
        const char *start = *to;
        if (s.len > 0)
                memcpy(*to, s.data, s.len);
        (*to)[s.len] = 0;
        *to += s.len + 1;
        return start;
}

static eq_run *run_new(eq_client *c, uint32_t msgid, const EqRun *rec) {
        eq_run *run = malloc(sizeof(*run) + rec->queue.len + rec->label.len + rec->mime.len + rec->payload.len + 3);
        if (!run)
                return NULL;
        *run = (eq_run) {
                .client = c,
                .id = rec->id.id,
                .msgid = msgid,
                .attempt = (uint32_t)rec->attempt,
                .waiting = true,
                .has_uid = EQ_HAS(rec, Run, uid),
                .uid = (uid_t)rec->uid,
                .timeout_usec = EQ_HAS(rec, Run, timeout_usec) ? rec->timeout_usec : EQ_TIMEOUT_NEVER,
                .grace_usec = rec->grace_usec,
        };
        char *p = run->data;
        run->queue = copy_text(&p, rec->queue);
        run->label = copy_text(&p, rec->label);
        run->mime = copy_text(&p, rec->mime);
        run->payload = eq_bytes(p, rec->payload.len);
        if (rec->payload.len > 0)
                memcpy(p, rec->payload.data, rec->payload.len);
        return run;
}

/* The payload that came as a descriptor; what eqd sends is sealed, so a mapping stays what it is. NULL or what went wrong. */
static const char *map_payload(eq_client *c, eq_run *run) {
        size_t n;
        int fd = client_take_fd(c);
        if (fd < 0)
                return fd == -EMFILE ? "the worker has no descriptor free" : "no descriptor came with the task";
        const char *error = eq_memfd_size(fd, &n) < 0 || n > EQ_PAYLOAD_MAX ? "what came as payload is none" : NULL;
        void *p = error || n == 0 ? NULL : mmap(NULL, n, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
        (void)close(fd); /* the mapping stays */
        if (p == MAP_FAILED)
                return "out of memory";
        if (p) {
                run->payload = eq_bytes(p, n);
                run->mapped = true;
        }
        return error;
}

static int refuse(eq_client *c, uint32_t msgid, const char *text) {
        EqRunAnswer a = { 0 };
        EQ_SET(&a, RunAnswer, text, eq_str(text));
        EQ_SET(&a, RunAnswer, give_back, true);
        return send_answer(c, msgid, &a, true);
}

static int answer_unknown(eq_client *c, uint32_t msgid) {
        msgpack_packer pk;
        int r = client_message_begin(c, &pk);
        if (r < 0)
                return r;
        eq_pack_error(&pk, msgid, EQ_E_METHOD, "this client answers run only, and only as a worker", NULL);
        return client_message_end(c);
}

int client_worker_request(eq_client *c, const EqMessage *m) {
        ClientWorker *w = *client_worker(c);
        EqDecodeError error;
        EqRun rec;
        if (!w || !eq_bytes_eq(m->method, eq_str("run")))
                return answer_unknown(c, m->msgid);
        if (eq_decode_params(&eq_schema_Run, m->params, &rec, &error) < 0)
                return -EBADMSG;
        eq_run *run = run_new(c, m->msgid, &rec);
        if (!run) {
                int fd = rec.payload_fd ? client_take_fd(c) : -1;
                if (fd >= 0)
                        (void)close(fd);
                return refuse(c, m->msgid, "out of memory");
        }
        list_add(&w->waiting, run);
        const char *wrong = rec.payload_fd ? map_payload(c, run) : NULL;
        if (w->leaving)
                wrong = "leaving";
        if (wrong) {
                run_free(run);
                return refuse(c, m->msgid, wrong);
        }
        if (w->run_fn) {
                hand_out(w, run);
                w->run_fn(c, run, w->userdata);
        }
        return 0;
}

static eq_run *find_run(const RunList *l, eq_task_id id, uint64_t attempt) {
        for (eq_run *run = l->first; run; run = run->next)
                if (run->id.queue == id.queue && run->id.seq == id.seq && run->attempt == attempt)
                        return run;
        return NULL;
}

static bool next_lease(EqArray *it, eq_task_id *ret_id, uint64_t *ret_attempt) {
        EqIdRef id;
        EqBytes raw;
        if (eq_next_id(it, &id) != 1 || eq_next_raw(it, &raw) != 1 || eq_get_u64(raw, ret_attempt) < 0)
                return false;
        *ret_id = id.id;
        return true;
}

/* [[[id, attempt], ...]] */
static void on_confirmed(eq_client *c, const ClientWorker *w, EqBytes params) {
        EqArray it, answered, lease;
        EqBytes raw;
        eq_task_id id;
        uint64_t attempt;
        if (eq_get_array(params, &it) < 0 || eq_next_raw(&it, &raw) != 1 || eq_get_array(raw, &answered) < 0)
                return;
        while (eq_next_raw(&answered, &raw) == 1)
                if (w->confirmed_fn && eq_get_array(raw, &lease) == 0 && next_lease(&lease, &id, &attempt))
                        w->confirmed_fn(c, id, (uint32_t)attempt, w->confirmed_userdata);
}

/* [id, attempt, reason, grace_usec] */
static void on_cancel(eq_client *c, ClientWorker *w, EqBytes params) {
        EqArray it;
        EqBytes reason, raw;
        eq_task_id id;
        uint64_t attempt, grace;
        if (eq_get_array(params, &it) < 0 || !next_lease(&it, &id, &attempt) || eq_next_bytes(&it, &reason) != 1 ||
            eq_next_raw(&it, &raw) != 1 || eq_get_u64(raw, &grace) < 0)
                return;
        eq_run *run = find_run(&w->waiting, id, attempt);
        if (run) {
                (void)eq_run_fail(run, "canceled before it began"); /* else the lease ends without an answer */
                return;
        }
        run = find_run(&w->out, id, attempt);
        if (run) {
                run->canceled = true;
                if (w->cancel_fn)
                        w->cancel_fn(c, run, grace, w->userdata);
        }
}

bool client_worker_notify(eq_client *c, const EqMessage *m) {
        ClientWorker *w = *client_worker(c);
        if (w && eq_bytes_eq(m->method, eq_str("run_confirmed")))
                on_confirmed(c, w, m->params);
        else if (w && eq_bytes_eq(m->method, eq_str("run_cancel")))
                on_cancel(c, w, m->params);
        else
                return false;
        return true;
}

/* ---- the worker ---- */

int eq_worker_set_callbacks(eq_client *c, eq_run_fn run_fn, eq_run_cancel_fn cancel_fn, void *userdata) {
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r < 0)
                return r;
        w->run_fn = run_fn;
        w->cancel_fn = cancel_fn;
        w->userdata = userdata;
        return 0;
}

int eq_worker_set_rescue(eq_client *c, bool rescue) {
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r == 0)
                w->rescue = rescue;
        return r;
}

int eq_worker_set_handed_on(eq_client *c, bool handed_on) {
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r == 0)
                w->handed_on = handed_on;
        return r;
}

int eq_worker_set_confirmed(eq_client *c, eq_run_confirmed_fn fn, void *userdata) {
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r < 0)
                return r;
        w->confirmed_fn = fn;
        w->confirmed_userdata = userdata;
        return 0;
}

static bool is_served(const ClientWorker *w, EqBytes queue) {
        EqArray it = { .raw = eq_bytes(w->served.data, w->served.len), .n = w->n_served };
        EqBytes one;
        while (eq_next_raw(&it, &one) == 1)
                if (eq_bytes_eq(one, queue))
                        return true;
        return false;
}

/* For the next connection. Takes *name; room for all queues was reserved. */
static void keep_served(ClientWorker *w, const EqWorkerServe *rec, char **name) {
        EqArray it = rec->queues;
        EqBytes queue;
        if (*name) {
                free(w->name);
                w->name = *name;
                *name = NULL;
        }
        while (eq_next_raw(&it, &queue) == 1)
                if (!is_served(w, queue)) {
                        (void)eq_buffer_append(&w->served, queue.data, queue.len);
                        w->n_served++;
                }
        w->credit = (uint32_t)rec->credit;
        w->parallel = (uint32_t)rec->parallel;
}

static void say_what_it_is(const eq_client *c, const ClientWorker *w, EqWorkerServe *rec) {
        if (w->rescue)
                EQ_SET(rec, WorkerServe, rescue, true);
        if (w->handed_on)
                EQ_SET(rec, WorkerServe, handed_on, true);
        if (w->confirmed_fn)
                EQ_SET(rec, WorkerServe, confirm, true);
        if (client_passes_fds(c))
                EQ_SET(rec, WorkerServe, payload_fd, true);
}

int client_worker_serve_again(eq_client *c, ClientWorker *w) {
        EqWorkerServe rec = { 0 };
        if (!w || w->n_served == 0 || w->leaving)
                return 0;
        rec.queues = (EqArray) { .raw = eq_bytes(w->served.data, w->served.len), .n = w->n_served };
        EQ_SET(&rec, WorkerServe, credit, w->credit);
        EQ_SET(&rec, WorkerServe, parallel, w->parallel);
        if (w->name)
                EQ_SET(&rec, WorkerServe, name, eq_str(w->name));
        say_what_it_is(c, w, &rec);
        return client_link_call(c, "worker_serve", &eq_schema_WorkerServe, &rec);
}

static void free_string(char **p) {
        free(*p);
}

int eq_worker_serve(eq_client *c, const char *const *queues, uint32_t credit, uint32_t parallel, const char *name,
                    uint64_t *ret_number) {
        __attribute__((cleanup(eq_reply_freep))) eq_reply *reply = NULL;
        __attribute__((cleanup(eq_buffer_done))) EqBuffer packed =
                EQ_BUFFER_NULL; /* callbacks may use the scratch buffer */
        __attribute__((cleanup(free_string))) char *own_name = name ? strdup(name) : NULL;
        EqWorkerServeReply answer = { 0 };
        EqWorkerServe rec = { 0 };
        EqDecodeError error;
        ClientWorker *w;
        int r = name && !own_name ? -ENOMEM : get_worker(c, &w);
        if (r == 0)
                r = client_pack_strings(&packed, queues, &rec.queues);
        if (r == 0)
                r = eq_buffer_reserve(&w->served, packed.len);
        if (r < 0)
                return r;
        EQ_SET(&rec, WorkerServe, credit, credit);
        EQ_SET(&rec, WorkerServe, parallel, parallel > 0 ? parallel : w->run_fn && credit > 0 ? credit : 1);
        if (name)
                EQ_SET(&rec, WorkerServe, name, eq_str(name));
        say_what_it_is(c, w, &rec);
        r = client_call_record(c, "worker_serve", &eq_schema_WorkerServe, &rec, client_timeout(c), &reply);
        if (r == 0)
                r = eq_decode_map(&eq_schema_WorkerServeReply, client_result(reply), &answer, &error) < 0 ? -EBADMSG
                                                                                                          : 0;
        if (r == 0)
                keep_served(w, &rec, &own_name);
        if (r == 0 && ret_number)
                *ret_number = answer.worker;
        return r;
}

int eq_worker_set_credit(eq_client *c, uint32_t credit) {
        EqWorkerCredit rec = { .credit = credit };
        ClientWorker *w = *client_worker(c);
        int r = client_call_record(c, "worker_credit", &eq_schema_WorkerCredit, &rec, client_timeout(c), NULL);
        if (r == 0 && w)
                w->credit = credit;
        return r;
}

static eq_run *take_waiting(ClientWorker *w) {
        eq_run *run = w->waiting.first;
        if (run)
                hand_out(w, run);
        return run;
}

/* Sends what there is to be sent, and waits until a run is there. 1, 0: none came, or a signal did; -errno. */
static int wait_for_run(eq_client *c, ClientWorker *w, uint64_t timeout_usec) {
        uint64_t start = 0;
        int r = w->waiting.first ? eq_client_flush(c) : 0; /* the next one may take long */
        if (r < 0)
                return r;
        for (uint64_t left = timeout_usec; !w->waiting.first;) {
                if (start == 0 && timeout_usec != EQ_TIMEOUT_NEVER)
                        start = client_now_usec();
                r = eq_client_dispatch(c, left);
                if (r < 0)
                        return r;
                if (w->waiting.first)
                        break;
                if (timeout_usec == EQ_TIMEOUT_NEVER) {
                        if (r == 0)
                                return 0; /* a signal came: the caller may want to know */
                        continue;
                }
                uint64_t spent = client_now_usec() - start;
                if (spent >= timeout_usec || r == 0)
                        return 0;
                left = timeout_usec - spent;
        }
        return 1;
}

int eq_worker_next(eq_client *c, uint64_t timeout_usec, eq_run **ret) {
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r == 0)
                r = wait_for_run(c, w, timeout_usec);
        if (r > 0)
                *ret = take_waiting(w);
        return r;
}

int eq_worker_next_batch(eq_client *c, uint64_t timeout_usec, eq_run_batch **ret) {
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r == 0)
                r = wait_for_run(c, w, timeout_usec);
        if (r <= 0)
                return r;
        const eq_run *first = w->waiting.first;
        w->batch = (eq_run_batch) { .worker = w, .queue_id = first->id.queue };
        strncpy(w->batch.queue, first->queue, EQ_NAME_MAX);
        *ret = &w->batch;
        return 1;
}

const char *eq_run_batch_get_queue(const eq_run_batch *b) {
        return b->queue;
}

bool eq_run_batch_more(const eq_run_batch *b) {
        const eq_run *first = b->worker->waiting.first;
        return first && first->id.queue == b->queue_id;
}

eq_run *eq_run_batch_next(eq_run_batch *b) {
        return eq_run_batch_more(b) ? take_waiting(b->worker) : NULL;
}

int eq_worker_leave(eq_client *c, uint64_t timeout_usec) {
        EqNothing rec = { 0 };
        ClientWorker *w;
        int r = get_worker(c, &w);
        if (r < 0)
                return r;
        w->leaving = true;
        while (w->waiting.first)
                if ((r = eq_run_give_back(w->waiting.first)) < 0)
                        return r;
        if (link_is_down(client_link(c)))
                return 0; /* it has left with the connection, and will not serve again */
        r = client_call_record(c, "worker_leave", &eq_schema_Nothing, &rec, timeout_usec, NULL);
        /* On a connection that was made again meanwhile it is none: what it had is somebody else's. */
        return r == -EREMOTEIO && eq_client_get_error(c, NULL) == EQ_E_NO_WORKER ? -ECONNRESET : r;
}

/* ---- what a run is ---- */

eq_task_id eq_run_get_id(const eq_run *run) {
        return run->id;
}
const char *eq_run_get_queue(const eq_run *run) {
        return run->queue;
}
const char *eq_run_get_label(const eq_run *run) {
        return run->label[0] ? run->label : NULL;
}
const char *eq_run_get_mime(const eq_run *run) {
        return run->mime[0] ? run->mime : NULL;
}
uint32_t eq_run_get_attempt(const eq_run *run) {
        return run->attempt;
}
const void *eq_run_get_payload(const eq_run *run, size_t *ret_n) {
        *ret_n = run->payload.len;
        return run->payload.data;
}
uint64_t eq_run_get_timeout(const eq_run *run) {
        return run->timeout_usec;
}
int eq_run_get_uid(const eq_run *run, uid_t *ret) {
        if (!run->has_uid)
                return 0;
        *ret = run->uid;
        return 1;
}
bool eq_run_is_canceled(const eq_run *run) {
        return run->canceled;
}
void eq_run_set_userdata(eq_run *run, void *userdata) {
        run->userdata = userdata;
}
void *eq_run_get_userdata(const eq_run *run) {
        return run->userdata;
}
