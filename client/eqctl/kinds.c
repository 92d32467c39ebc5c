/* SPDX-License-Identifier: MIT */
/* Which columns tasks, queues, events and reasons have, and how the made ones are made. */

#include <inttypes.h>
#include <string.h>

#include "eqctl/duration.h"
#include "eqctl/rows.h"
#include "eqctl/text.h"

static void put_duration(EqBuffer *b, uint64_t usec) {
        char buf[DURATION_SIZE];
        text_cstr(b, duration_format(usec, buf));
}

static void put_since(EqBuffer *b, uint64_t then_usec) {
        uint64_t now = wall_usec();
        put_duration(b, now > then_usec ? now - then_usec : 0);
}

static const char *state_color(EqBytes name) {
        static const char *const colors[_EQ_STATE_MAX] = {
                [EQ_STATE_RUNNING] = "32", [EQ_STATE_FAILED] = "31",   [EQ_STATE_TIMEOUT] = "31",
                [EQ_STATE_DEAD] = "1;31",  [EQ_STATE_CANCELED] = "33", [EQ_STATE_EXPIRED] = "33",
                [EQ_STATE_WAITING] = "2",
        };
        eq_state s = eq_state_find(name);
        return s >= 0 ? colors[s] : NULL;
}

/* ---- tasks ---- */

static const char *task_state(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        text_escaped(b, t->state);
        return state_color(t->state);
}

static const char *task_pri(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        text_cstr(b, t->urgent ? "U" : "0");
        return NULL;
}

static const char *task_age(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        if (EQ_HAS(t, Task, submitted_usec))
                put_since(b, t->submitted_usec);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *task_run(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        if (!t->started_usec)
                text_cstr(b, "-");
        else if (eq_state_finished(eq_state_find(t->state)))
                put_duration(b, t->finished_usec > t->started_usec ? t->finished_usec - t->started_usec : 0);
        else if (eq_state_find(t->state) == EQ_STATE_RUNNING)
                put_since(b, t->started_usec);
        else
                text_cstr(b, "-");
        return NULL;
}

/* The attempt, and how many there may be: one that a crash of eqd or a lost worker ended is made up for, beyond `retries`. */
static const char *task_try(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        uint64_t of = t->retries + 1 > t->attempt ? t->retries + 1 : t->attempt;
        text_printf(b, "%" PRIu64 "/%" PRIu64, t->attempt, of);
        return NULL;
}

static const char *task_user(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        ctl_user(ctl, b, t->uid);
        return NULL;
}

/* How it ended, short; why it could not start is long, and for `wide` or where there is nothing else. */
static void put_end(const Ctl *ctl, EqBuffer *b, const EqTask *t) {
        const char *name = signal_name((int)t->signal);
        bool ran = t->signal || EQ_HAS(t, Task, exit);

        if (t->error.len > 0 && (!ran || ctl->format == FORMAT_WIDE))
                text_escaped(b, t->error);
        else if (t->signal && name)
                text_printf(b, "signal %s", name);
        else if (t->signal)
                text_printf(b, "signal %" PRIu64, t->signal);
        else if (EQ_HAS(t, Task, exit))
                text_printf(b, "exit %" PRIu64, t->exit);
        else if (t->reason.len > 0)
                text_escaped(b, t->reason);
        else
                text_cstr(b, "-");
}

static void put_worker(const EqTask *t, EqBuffer *b) {
        text_printf(b, "worker %" PRIu64, t->worker);
        if (EQ_HAS(t, Task, progress))
                text_printf(b, " %" PRIu64 "%%", t->progress);
}

static const char *task_reason(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        eq_state s = eq_state_find(t->state);

        if (eq_state_finished(s))
                put_end(ctl, b, t);
        else if (t->reason.len > 0) {
                text_escaped(b, t->reason);
                if (ctl->format == FORMAT_WIDE && t->detail.len > 0) {
                        text_cstr(b, ": ");
                        text_escaped(b, t->detail);
                }
        } else if (s == EQ_STATE_RUNNING && t->pid)
                text_printf(b, "pid %" PRIu64, t->pid);
        else if (s == EQ_STATE_RUNNING && t->worker)
                put_worker(t, b);
        else
                text_cstr(b, "-");
        return NULL;
}

static void put_command(const EqTask *t, EqBuffer *b) {
        EqArray it = t->argv;
        EqBytes s;

        if (it.n == 0)
                text_printf(b, "payload %" PRIu64 " B", t->payload_bytes);
        for (bool first = true; eq_next_bytes(&it, &s) == 1; first = false) {
                text_cstr(b, first ? "" : " ");
                text_quoted(b, s);
        }
}

static const char *task_command(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_command(rec, b);
        return NULL;
}

static const char *task_what(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqTask *t = rec;
        if (t->label.len > 0)
                text_escaped(b, t->label);
        else
                put_command(t, b);
        return NULL;
}

static const Column task_columns[] = {
        { .name = "state", .header = "STATE", .cell = task_state },
        { .name = "pri", .header = "PRI", .cell = task_pri, .right = true },
        { .name = "age", .header = "AGE", .cell = task_age },
        { .name = "run", .header = "RUN", .cell = task_run },
        { .name = "try", .header = "TRY", .cell = task_try },
        { .name = "user", .header = "USER", .cell = task_user },
        { .name = "why", .header = "REASON/EXIT", .cell = task_reason },
        { .name = "command", .header = "COMMAND", .cell = task_command },
        { .name = "what", .header = "LABEL / COMMAND", .cell = task_what },
        { .name = NULL },
};
const RowKind rows_tasks = {
        .schema = &eq_schema_Task,
        .columns = task_columns,
        .table = "id,state,pri,age,run,try,user,why,what",
        .wide = "id,state,pri,age,run,try,user,why,submitted_usec,cwd,label,command",
        .tsv = "id,state,urgent,uid,attempt,retries,submitted_usec,started_usec,finished_usec,exit,signal,reason,label,"
               "argv",
        .id = "id",
};

/* ---- queues ---- */

static const char *queue_state(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        text_escaped(b, q->state);
        return eq_bytes_eq(q->state, eq_str("open")) ? NULL : "33";
}

EqBytes rows_attribute(EqArray set, const char *key) {
        size_t n = strlen(key);
        EqBytes s;

        while (eq_next_bytes(&set, &s) == 1)
                if (s.len > n && memcmp(s.data, key, n) == 0 && s.data[n] == '=')
                        return eq_bytes(s.data + n + 1, s.len - n - 1);
        return eq_str("");
}

static const char *queue_run(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        EqBytes max = rows_attribute(q->set, "max_active");

        text_printf(b, "%" PRIu64, q->running);
        if (max.len > 0) {
                text_cstr(b, "/");
                text_escaped(b, max);
        }
        return NULL;
}

static const char *queue_oldest(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        if (q->queued + q->waiting > 0)
                put_duration(b, q->oldest_usec);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *queue_why(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        bool stalled = EQ_HAS(q, Queue, stalled_usec);

        if (stalled) {
                text_cstr(b, "STALLED ");
                put_duration(b, q->stalled_usec);
                text_cstr(b, q->reason.len > 0 ? ", " : "");
        } else if (q->reason.len == 0)
                text_cstr(b, "-");
        text_escaped(b, q->reason);
        if (q->reason.len > 0 && q->detail.len > 0) {
                text_cstr(b, ": ");
                text_escaped(b, q->detail);
        }
        return stalled ? "1;31" : NULL;
}

static const Column queue_columns[] = {
        { .name = "state", .header = "STATE", .cell = queue_state },
        { .name = "run", .header = "RUN/MAX", .cell = queue_run, .right = true },
        { .name = "oldest", .header = "OLDEST", .cell = queue_oldest },
        { .name = "why", .header = "REASON", .cell = queue_why },
        { .name = NULL },
};
const RowKind rows_queues = {
        .schema = &eq_schema_Queue,
        .columns = queue_columns,
        .table = "name,state,run,queued,waiting,finished,oldest,done,failed,why",
        .wide = "name,state,run,queued,waiting,finished,oldest,bytes,last_seq,accepted,done,failed,refused,workers,"
                "origin,why",
        .tsv = "name,state,running,queued,waiting,finished,oldest_usec,accepted,done,failed,refused,reason",
        .id = "name",
};

/* Of those that are busy, for who looks why they do not go on. */
const RowKind rows_busy_queues = {
        .schema = &eq_schema_Queue,
        .columns = queue_columns,
        .table = "name,state,run,queued,waiting,oldest,done,failed,mayday,rescued,why",
        .wide = "name,state,run,queued,waiting,finished,oldest,bytes,accepted,done,failed,refused,workers,mayday,"
                "rescued,"
                "rescue_failed,why",
        .tsv = "name,state,running,queued,waiting,finished,oldest_usec,accepted,done,failed,refused,reason,mayday,"
               "rescued",
        .id = "name",
};

static void put_count(EqBuffer *b, uint64_t n) {
        text_printf(b, "%" PRIu64, n);
}

static const char *monitor_total(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        put_count(b, q->done + q->failed);
        return NULL;
}

static const char *monitor_infl(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_count(b, ((const EqQueue *)rec)->running);
        return NULL;
}

static const char *monitor_pend(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_count(b, ((const EqQueue *)rec)->queued);
        return NULL;
}

static const char *monitor_inact(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_count(b, ((const EqQueue *)rec)->waiting);
        return NULL;
}

static const char *monitor_cpu(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        text_printf(b, "%.1f", (double)q->cpu_usec / 1e6);
        return NULL;
}

static const char *monitor_cpuitsv(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        if (EQ_HAS(q, Queue, cpu_intensive))
                put_count(b, q->cpu_intensive);
        else
                text_cstr(b, "-");
        return NULL;
}

static void put_rescue(const EqQueue *q, EqBuffer *b, uint64_t n) {
        if (EQ_HAS(q, Queue, mayday))
                put_count(b, n);
        else
                text_cstr(b, "-");
}

static const char *monitor_mayday(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_rescue(rec, b, ((const EqQueue *)rec)->mayday);
        return NULL;
}

static const char *monitor_rescued(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_rescue(rec, b, ((const EqQueue *)rec)->rescued);
        return NULL;
}

static const char *monitor_cmw(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        if (EQ_HAS(q, Queue, cm_wakeups))
                put_count(b, q->cm_wakeups);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *monitor_stall(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqQueue *q = rec;
        if (!EQ_HAS(q, Queue, stalled_usec)) {
                text_cstr(b, "-");
                return NULL;
        }
        put_duration(b, q->stalled_usec);
        return "1;31";
}

/* The columns of the kernel's wq_monitor, and four more. What eqd's queues do not have is -. */
static const Column monitor_columns[] = {
        { .name = "total", .header = "total", .cell = monitor_total, .right = true },
        { .name = "infl", .header = "infl", .cell = monitor_infl, .right = true },
        { .name = "cputime", .header = "CPUtime", .cell = monitor_cpu, .right = true },
        { .name = "cpuitsv", .header = "CPUitsv", .cell = monitor_cpuitsv, .right = true },
        { .name = "cmw", .header = "CMW/RPR", .cell = monitor_cmw, .right = true },
        { .name = "mayday", .header = "mayday", .cell = monitor_mayday, .right = true },
        { .name = "rescued", .header = "rescued", .cell = monitor_rescued, .right = true },
        { .name = "pend", .header = "pend", .cell = monitor_pend, .right = true },
        { .name = "inact", .header = "inact", .cell = monitor_inact, .right = true },
        { .name = "oldest", .header = "oldest", .cell = queue_oldest, .right = true },
        { .name = "stall", .header = "stall", .cell = monitor_stall, .right = true },
        { .name = NULL },
};
const RowKind rows_monitor = {
        .schema = &eq_schema_Queue,
        .columns = monitor_columns,
        .table = "name,total,infl,cputime,cpuitsv,cmw,mayday,rescued,pend,inact,oldest,stall",
        .wide = "name,total,infl,cputime,cpuitsv,cmw,mayday,rescued,pend,inact,oldest,stall",
        .tsv = "name,done,failed,running,cpu_usec,cpu_intensive,queued,waiting,oldest_usec,stalls,stalled_usec",
        .id = "name",
};

/* ---- pools, and what runs ---- */

static const char *pool_slots(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqPool *p = rec;
        text_printf(b, "%" PRIu64 "/", p->busy);
        if (EQ_HAS(p, Pool, slots))
                text_printf(b, "%" PRIu64, p->slots);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *pool_stall(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqPool *p = rec;
        if (!EQ_HAS(p, Pool, stalled_usec)) {
                text_cstr(b, "-");
                return NULL;
        }
        put_duration(b, p->stalled_usec);
        return "1;31";
}

static const Column pool_columns[] = {
        { .name = "run", .header = "BUSY/SLOTS", .cell = pool_slots, .right = true },
        { .name = "stall", .header = "STALL", .cell = pool_stall, .right = true },
        { .name = NULL },
};
const RowKind rows_pools = {
        .schema = &eq_schema_Pool,
        .columns = pool_columns,
        .table = "name,kind,run,queues,startable,started,create_failures,mayday,rescued,origin,reason,stall",
        .wide = "name,kind,run,made,queues,startable,started,create_failures,mayday,rescued,rescuing,origin,reason,"
                "blocked_usec,stall,removing,set",
        .tsv = "name,kind,slots,made,busy,queues,startable,started,create_failures,origin,reason,blocked_usec,stalled_"
               "usec,mayday,rescued,rescuing",
        .id = "name",
};

static const char *flight_run(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqInFlight *t = rec;
        if (EQ_HAS(t, InFlight, run_usec))
                put_duration(b, t->run_usec);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *flight_pid(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqInFlight *t = rec;
        if (EQ_HAS(t, InFlight, tid) || EQ_HAS(t, InFlight, pid))
                put_count(b, EQ_HAS(t, InFlight, tid) ? t->tid : t->pid);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *flight_user(Ctl *ctl, const void *rec, EqBuffer *b) {
        ctl_user(ctl, b, ((const EqInFlight *)rec)->uid);
        return NULL;
}

static const char *flight_where(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqInFlight *t = rec;
        if (EQ_HAS(t, InFlight, claimed_usec)) {
                text_cstr(b, "claimed ");
                put_duration(b, t->claimed_usec);
                return NULL;
        }
        if (t->rescued)
                text_cstr(b, "rescued ");
        if (t->process.len == 0)
                text_cstr(b, "-");
        text_escaped(b, t->process);
        if (t->wchan.len > 0) {
                text_cstr(b, " ");
                text_escaped(b, t->wchan);
        }
        return eq_bytes_eq(t->process, eq_str("D")) ? "31" : NULL;
}

static const char *flight_what(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqInFlight *t = rec;
        EqArray it = t->argv;
        EqBytes s;
        text_escaped(b, t->label);
        for (bool first = true; t->label.len == 0 && eq_next_bytes(&it, &s) == 1; first = false) {
                text_cstr(b, first ? "" : " ");
                text_quoted(b, s);
        }
        return NULL;
}

static const Column flight_columns[] = {
        { .name = "run", .header = "RUN", .cell = flight_run, .right = true },
        { .name = "pid", .header = "PID/TID", .cell = flight_pid, .right = true },
        { .name = "user", .header = "USER", .cell = flight_user },
        { .name = "where", .header = "WHERE", .cell = flight_where },
        { .name = "what", .header = "LABEL / COMMAND", .cell = flight_what },
        { .name = NULL },
};
const RowKind rows_flights = {
        .schema = &eq_schema_InFlight,
        .columns = flight_columns,
        .table = "id,pool,slot,run,cpu_usec,pid,where,user,what",
        .wide = "id,pool,slot,run,cpu_usec,attempt,pid,where,user,what",
        .tsv = "id,pool,slot,run_usec,cpu_usec,attempt,pid,process,wchan,uid,label,argv,claimed_usec,tid,system_call,"
               "rescued",
        .id = "id",
};

/* ---- parameters ---- */

static const char *param_set(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqParam *p = rec;
        text_cstr(b, p->changed ? "changed" : p->settable ? "yes" : "no");
        return p->changed ? "33" : NULL;
}

static const char *param_fallback(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqParam *p = rec;
        if (p->fallback.len > 0)
                text_escaped(b, p->fallback);
        else
                text_cstr(b, "-");
        return NULL;
}

static const Column param_columns[] = {
        { .name = "set", .header = "SETTABLE", .cell = param_set },
        { .name = "fallback", .header = "DEFAULT", .cell = param_fallback },
        { .name = NULL },
};
const RowKind rows_params = {
        .schema = &eq_schema_Param,
        .columns = param_columns,
        .table = "name,value,fallback,set,range",
        .wide = "name,value,fallback,set,type,range,doc",
        .tsv = "name,value,fallback,type,range,unit,settable,changed,doc",
        .id = "name",
};

/* ---- workers ---- */

static const char *worker_state(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqWorker *w = rec;
        text_escaped(b, w->state);
        text_cstr(b, w->rescue ? " (reserve)" : "");
        return eq_bytes_eq(w->state, eq_str("blocked")) ? "31" : NULL;
}

static const char *worker_user(Ctl *ctl, const void *rec, EqBuffer *b) {
        ctl_user(ctl, b, ((const EqWorker *)rec)->uid);
        return NULL;
}

static const char *worker_has(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqWorker *w = rec;
        text_printf(b, "%" PRIu64 "/%" PRIu64, w->in_flight, w->credit);
        return NULL;
}

static const char *worker_queues(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqWorker *w = rec;
        EqArray it = w->queues;
        EqBytes name;

        for (bool first = true; eq_next_bytes(&it, &name) == 1; first = false) {
                text_cstr(b, first ? "" : ",");
                text_escaped(b, name);
        }
        return NULL;
}

static const char *worker_held(Ctl *ctl, const void *rec, EqBuffer *b) {
        const EqWorker *w = rec;
        if (EQ_HAS(w, Worker, oldest_usec))
                put_duration(b, w->oldest_usec);
        else
                text_cstr(b, "-");
        return NULL;
}

static const char *worker_seen(Ctl *ctl, const void *rec, EqBuffer *b) {
        put_duration(b, ((const EqWorker *)rec)->seen_usec);
        return NULL;
}

static const Column worker_columns[] = {
        { .name = "state", .header = "STATE", .cell = worker_state },
        { .name = "user", .header = "USER", .cell = worker_user },
        { .name = "has", .header = "HAS/CREDIT", .cell = worker_has, .right = true },
        { .name = "serves", .header = "QUEUES", .cell = worker_queues },
        { .name = "held", .header = "HELD", .cell = worker_held },
        { .name = "seen", .header = "SEEN", .cell = worker_seen },
        { .name = NULL },
};
const RowKind rows_workers = {
        .schema = &eq_schema_Worker,
        .columns = worker_columns,
        .table = "worker,name,state,user,pid,has,oldest,held,seen,done,failed,serves",
        .wide = "worker,name,state,user,pid,has,parallel,oldest,held,seen,connected_usec,unread_bytes,done,failed,late,"
                "refused,"
                "serves",
        .tsv = "worker,name,state,uid,pid,credit,parallel,in_flight,oldest,oldest_usec,seen_usec,unread_bytes,done,"
               "failed,"
               "late,refused,queues,rescue",
        .id = "worker",
};

/* ---- reasons and events ---- */

const RowKind rows_whys = {
        .schema = &eq_schema_Why,
        .table = "id,state,reason,by,ahead,until_usec,detail",
        .wide = "id,state,reason,by,ahead,until_usec,detail",
        .tsv = "id,state,reason,by,ahead,until_usec,detail",
        .id = "id",
};

const RowKind rows_events = {
        .schema = &eq_schema_Event,
        .table = "time_usec,event,queue,id,state,reason,detail",
        .wide = "time_usec,event,queue,id,state,reason,detail",
        .tsv = "time_usec,event,queue,pool,part,id,state,reason,stall_usec,uid,attempt,exit,signal,label,detail",
        .id = "id",
};
