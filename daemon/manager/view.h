/* SPDX-License-Identifier: MIT */
#pragma once

/* Records as rows of the wire: what list, show, why and queue_show answer. A view borrows from its record. Loop. */

#include "manager/window.h"

typedef struct TaskView {
        EqTask row;
        char detail[256];
} TaskView;
void view_task(const Manager *m, const TaskRecord *t, TaskView *ret);
void view_task_result(const TaskRecord *t, TaskView *v);  /* adds the bytes of its result, which may be many */
void view_task_payload(const TaskRecord *t, TaskView *v); /* ... of its payload, where eqd has it */

typedef struct WhyView {
        EqWhy row;
        char detail[256];
} WhyView;
void view_why(const Manager *m, const TaskRecord *t, WhyView *ret);

typedef struct QueueView {
        EqQueue row;
        EqBuffer set; /* encoded key=value strings */
        char detail[256];
} QueueView;
#define QUEUE_VIEW_NULL                                                                                                \
        { .set = EQ_BUFFER_NULL }
int view_queue(const Manager *m, const QueueRecord *q, QueueView *ret); /* 0 or -ENOMEM; then queue_view_done() */
void queue_view_done(QueueView *v);

int queues_sorted(const Manager *m, QueueRecord ***ret, size_t *ret_n); /* by name; *ret is the caller's. 0, -ENOMEM */

typedef struct PoolView {
        EqPool row;
        EqBuffer set; /* encoded key=value strings */
} PoolView;
#define POOL_VIEW_NULL                                                                                                 \
        { .set = EQ_BUFFER_NULL }
/* What files and clients say of it is shown of pools of commands, which alone have that. */
int view_pool(const Manager *m, const Pool *p, PoolView *ret); /* 0 or -ENOMEM; then pool_view_done() */
void pool_view_done(PoolView *v);

/* Calls each for running tasks that the caller may see, of q or (NULL) all queues, by pool and slot, without the first `skip`.
 * limit is at most FLIGHTS_MAX, for each is looked up in /proc. */
enum { FLIGHTS_MAX = 256 };
void view_in_flight(const Manager *m, const Caller *caller, const QueueRecord *q, uint64_t skip, uint64_t limit,
                    void (*each)(void *userdata, const EqInFlight *row), void *userdata);

typedef struct ParamView {
        EqParam row;
        char name[64], range[512], value[PARAM_PRINT_MAX];
} ParamView;
void view_param(const Tunable *t, ParamView *ret);

typedef struct WorkerView {
        EqWorker row;
        EqBuffer queues; /* encoded names */
} WorkerView;
#define WORKER_VIEW_NULL                                                                                               \
        { .queues = EQ_BUFFER_NULL }
int view_worker(const Manager *m, const RemoteWorker *w, WorkerView *ret); /* 0 or -ENOMEM; then worker_view_done() */
void worker_view_done(WorkerView *v);

typedef struct StoreView {
        EqStoreStat row;
        char directory[4096];
} StoreView;
int view_store(const Manager *m, StoreView *ret);          /* 0, or -ENOENT: there is none. *ret must not be moved */
void view_queue_store(const QueueRecord *q, QueueView *v); /* adds what the store has of it, which takes a lock */

void view_stat(const Manager *m, size_t n_clients, EqStat *ret);

/* Walks the tasks that `list` asks for, in order of queue and SEQ, and calls each until it returns false. */
typedef struct ListFilter {
        const EqList *args;
        uint32_t states;                  /* 1 << eq_state; 0: any */
        QueueRecord *queue;               /* NULL: all */
        char from_queue[EQ_NAME_MAX + 1]; /* behind this task; none: from the first one on */
        uint64_t from_seq;
        const WindowPeek *peek; /* tasks that were read for it; NULL: none */
} ListFilter;
/* 0 or -ENOMEM. *ret_unread: NULL, or what has to be read to go on from *f: for window_peek(), and then again with it. */
int view_list(Manager *m, const Caller *caller, ListFilter *f, bool (*each)(void *userdata, const TaskRecord *t),
              void *userdata, WindowPeek **ret_unread);
