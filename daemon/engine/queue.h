/* SPDX-License-Identifier: MIT */
#pragma once

/* The execution queue: an ordering domain with attributes. It owns no workers.
 *
 * Place: eligible tasks of a lane start in SEQ order, urgent before normal. Tasks that are not eligible yet block nobody
 * and take their place by SEQ when they become eligible. Exception: a task in back-off on a serial queue (max_active = 1)
 * keeps its place and blocks those behind it in its lane; urgent tasks pass a normal one.
 *
 * Shelf: of a long backlog only the front has to be there as Tasks. What comes behind it the host may keep in a form of its own;
 * the queue counts those tasks as QUEUED ones, asks for them in time (EngineHooks::refill), and starts none that would pass one of
 * them.
 *
 * All calls: loop, unless stated. Nothing blocks. Calls may start tasks, and call hooks and waiters, before they return. */

#include "base/heap.h"
#include "base/list.h"
#include "base/params.h"
#include "base/util.h"
#include "engine/bucket.h"
#include "engine/task.h"
#include "engine/taskline.h"

typedef struct Engine Engine;
typedef struct Pool Pool;
typedef struct Queue Queue;
typedef struct Rescuer Rescuer;
typedef struct WatchQueue WatchQueue;

typedef enum QueueFull { QUEUE_FULL_REJECT, QUEUE_FULL_BLOCK, QUEUE_FULL_DROP_OLDEST } QueueFull;

/* Attributes that the engine looks at; rows of params.def. */
typedef struct QueueParams {
        uint64_t max_active;
        uint64_t max_tasks;
        uint64_t max_bytes;
        QueueFull on_full;
        uint64_t stall_thresh_usec, expected_runtime_usec; /* UINT64_MAX: infinity */
        unsigned hung_task;                                /* HungTask */
        unsigned rescuer, rescue_on;                       /* RescuerMode, RescueOn */
        ParamRate rate;                                    /* of starts; zero: as many as there are */
        uint64_t rate_burst;
} QueueParams;

/* Positive: a condition for the direct caller. */
enum {
        QUEUE_E_FULL = 1, /* capacity in tasks or bytes */
        QUEUE_E_STOPPED,
        QUEUE_E_DRAINING,
};

/* Answer of a wait for drain, join or flush; called once, from inside engine calls, when the queue is done with its hooks:
 * done() may free the waiter and the queue. Embed it in what waits; all of it zero but done. */
typedef struct QueueWaiter QueueWaiter;
struct QueueWaiter {
        List link;       /* Queue::drainers, joiners or flushers; NULL before the first use */
        Queue *flushing; /* set while in its list of flushers */
        uint64_t mark;   /* flush: waits for tasks accepted up to this count */
        uint64_t n_left; /* flush: of those, how many have not ended; without those that the flushers before count */
        bool given_up;   /* set before done() by queue_give_up_waits(): what it waited for will not come */
        void (*done)(QueueWaiter *w);
};

typedef enum QueueLine { QUEUE_READY, QUEUE_BACKOFF, QUEUE_DEFERRED, _QUEUE_LINE_MAX } QueueLine;

struct Queue {
        Engine *engine;
        Pool *pool;
        uint64_t id; /* slot 20 bits | generation 33 bits, below 2^53, never reused */
        char name[EQ_NAME_MAX + 1];
        QueueParams params;
        void *owner;         /* the manager's */
        void *executor_data; /* of the pool's executor */
        eq_reason unserved;  /* nobody can take a task of it now, and why; EQ_REASON_NONE: somebody can */

        TaskLine lines[_QUEUE_LINE_MAX][_TASK_LANE_MAX]; /* QUEUED; WAITING for back-off only; WAITING otherwise */
        List running; /* of Task::link, in order of start; no tokens, which n_running counts */
        List handed;  /* of Task::link, in order of the hand-over */
        size_t n_queued, n_waiting, n_running;
        size_t n_handed;                          /* of n_queued */
        size_t n_shelved;                         /* of n_queued; of the normal lane */
        uint64_t n_shelved_bytes;                 /* of n_bytes */
        uint64_t shelf_first;                     /* the lowest SEQ on the shelf, while there is one */
        size_t n_ahead;                           /* see queue_set_ahead() */
        uint64_t last_handed_seq[_TASK_LANE_MAX]; /* the highest one */
        uint64_t n_bytes;                         /* of WAITING and QUEUED tasks */
        uint64_t n_reserved, n_reserved_bytes;    /* charged, not pushed yet */
        uint64_t last_seq;

        List run_link; /* Pool::runnable */
        bool runnable; /* in there */
        unsigned pauses;
        bool draining, stopping, stopped;
        uint64_t drain_mark; /* last_seq when the present pass of a drain began */
        unsigned
                n_drain_passes; /* of the present drain, or the last one: how often tasks of the pass before made new ones */
        List drainers, joiners; /* of QueueWaiter */
        List flushers;          /* of QueueWaiter, by mark */
        uint64_t n_pushed;      /* Task::accepted of the last one pushed */
        uint64_t n_flushing;    /* sum of QueueWaiter::n_left */

        Bucket bucket;      /* of starts; rate.c's */
        HeapItem rate_item; /* Engine::throttled, while it waits for a token */

        const Task *held; /* a task over several queues that runs, or its token here: nothing else starts */

        unsigned depth;    /* calls that are inside; effects on others wait for the outermost to leave */
        bool clears;       /* see queue_set_clears() */
        eq_reason blocked; /* see queue_set_blocked() */
        bool has_room;     /* room fell free since the `space` hook was called */

        WatchQueue *watch; /* the watch's */

        Rescuer *rescuer;           /* NULL: none, or its threads have it; borrowed */
        List rescue_link;           /* Pool::callers */
        List mayday_link;           /* Rescuer::maydays */
        uint64_t rescue_since_usec; /* it is being rescued; 0: it is not */
        uint64_t n_rescued_before;  /* n_rescued when that began */
        uint64_t last_start_usec;   /* in a slot of its pool */
        uint64_t rescue_call_usec;  /* since when it stands among the callers */
        bool no_reserve;            /* of a remote pool: its rescuer could not start anything */
        Task *rescue_mark;          /* the last one that its rescuer had to skip; NULL: none */

        /* Since the queue was made in this process. accepted: without retries by hand; failed: ended otherwise than DONE. */
        uint64_t n_accepted, n_done, n_failed, n_refused;
        uint64_t n_mayday, n_rescued, n_rescue_failed;
};

/* The name must be valid and unused, checked by the caller. last_seq: the SEQ before the first one to be given. 0, -ENOMEM,
 * or -ENOSPC: 2^20 - 1 queues exist. */
int queue_new(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t last_seq, Queue **ret);
/* The same with the id that it had before a restart: 0, -ENOMEM, -EINVAL: no such id can exist, -EBUSY: it was given since. */
int queue_restore(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t id, uint64_t last_seq,
                  Queue **ret);
/* No task may be in it. Ends its waiters' waits by calling them, when its id is stale already. Not from inside a hook for
 * this queue. NULL is fine. Returns NULL. */
Queue *queue_free(Queue *q);
DEFINE_CLEANUP(Queue, queue_free)
void queue_set_params(Queue *q, const QueueParams *params);
/* For executors whose workers serve some queues and not others. EQ_REASON_NONE may start tasks at once. */
void queue_set_unserved(Queue *q, eq_reason reason);
/* Its starts are to be cleared: EngineHooks::clear. Nothing of it is handed over then before it begins. */
void queue_set_clears(Queue *q, bool clears);
/* Until it is EQ_REASON_NONE again nothing of it starts, and that is why. May start tasks at once. */
void queue_set_blocked(Queue *q, eq_reason reason);
/* Of a pool of worker clients: is one of its reserved workers free? */
void queue_set_reserve(Queue *q, bool is_ready);
/* For executors that queue by themselves: up to n tasks, or max_active if that is more, are with the executor, running ones
 * included. Those that have not begun stay QUEUED, and can be canceled, held, and so on: they are taken back for that, also
 * when one with an earlier place turns up. The executor takes care of max_active. 0, as at first: tasks begin at once. */
void queue_set_ahead(Queue *q, size_t n);
/* Takes back what has not begun. It is handed over again when the queue may start tasks. */
void queue_recall(Queue *q);
/* Asks the executor what has begun: states are then of this moment. O(handed over) */
void queue_look(Queue *q);
/* Its tasks start in that pool from now on; what runs ends where it is, and counts as running here. A pool with another
 * executor is only for a queue of which nothing runs or can be started. */
void queue_set_pool(Queue *q, Pool *pool);

/* Admission: reserves room for n > 0 tasks of n_bytes altogether and gives them the SEQs *ret_first_seq ...+n-1. Then each
 * is pushed, in the order of the reservations, or given back by queue_unreserve(). 0, -ENOMEM, or QUEUE_E_*: FULL also for
 * what is larger than the whole queue, STOPPED also when no SEQ is left. */
int queue_reserve(Queue *q, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq);
/* The same for tasks that `by` has made, which runs in q: a drain waits for those, too, and takes them. */
int queue_reserve_chained(Queue *q, const Task *by, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq);
void queue_unreserve(Queue *q, uint64_t n, uint64_t n_bytes);

/* Hands t over; it was task_init()ed with its reserved SEQ, and due_usec, expire_usec, wait set. Never fails: what can
 * fail has been done before, and nothing that happens to t later needs memory. (Wait-free and for any thread once the
 * inbox of DESIGN section 5 is in.) */
void queue_push(Queue *q, Task *t);

/* ---- the shelf ---- */

/* So many eligible tasks of the normal lane are there as Tasks, before any is shelved; fewer, if all that are there have many bytes. */
enum { QUEUE_FRONT = 1024, QUEUE_FRONT_MIN = 16, QUEUE_FRONT_BYTES = 4 << 20 };

/* May what is reserved next be shelved? Its SEQ is the highest one. */
bool queue_may_shelve(const Queue *q);
/* The ordinal of what is pushed or shelved next; queue_unshelve() wants it back. */
static inline uint64_t queue_next_ordinal(const Queue *q) {
        return q->n_pushed + 1;
}
/* In the place of n calls of queue_push(), for normal tasks that are eligible at once: the host keeps them, in order, from
 * first_seq on. */
void queue_shelve(Queue *q, uint64_t first_seq, uint64_t n, uint64_t n_bytes);
/* The same of tasks that were accepted before a restart, and not reserved. 0 or -ENOMEM. */
int queue_restore_shelved(Queue *q, uint64_t first_seq, uint64_t n, uint64_t n_bytes);
/* Is it time for the one at shelf_first? */
bool queue_wants_shelved(const Queue *q);
/* Nothing can start before it is there. */
bool queue_needs_shelved(const Queue *q);
/* t, task_init()ed, is one of the shelf: in the order of SEQs, or out of it when somebody wants to see or change it. next_seq: of
 * the first one that is left there; any number if none is. Never fails. */
void queue_unshelve(Queue *q, Task *t, uint64_t ordinal, uint64_t next_seq);
/* t, which was one of the shelf, cannot be run: what it is to do is lost. FAILED; as queue_cancel(). */
int queue_lose(Queue *q, Task *t);
/* A task of the shelf that is given up together with its queue: it is forgotten, no hook is called. */
void queue_drop_shelved(Queue *q, uint64_t bytes, uint64_t ordinal);
/* The host could not follow the last EngineHooks::refill: it is asked again. */
void queue_refill(Queue *q);

/* A task that was accepted before a restart: reserved, even above the capacity of the queue, and pushed. Its SEQ is none
 * that is still to be given; attempt may be set. 0 or -ENOMEM. */
int queue_restore_task(Queue *q, Task *t);

void queue_seq_given(Queue *q, uint64_t seq); /* seq was, before a restart: it is not given again */

/* The oldest pending task of the normal lane, else of the urgent one, for drop-oldest; NULL if none is pending. One over several
 * queues may be at home in another one. */
Task *queue_oldest(Queue *q);

/* 0: canceled and out of the queue (state CANCELED, `finished` was called: t may be gone); 1: it runs; -1: it has ended, or
 * was not pushed. O(1), and O(log n) for one with a time or a late place. */
int queue_cancel(Queue *q, Task *t);

/* Sets or clears TASK_WAIT_* bits of a pending task: the last one cleared makes it eligible, the first set defers it. For
 * AT and BACKOFF the caller has set due_usec. 0; 1 if it runs; -1 as above. */
int queue_wait_set(Queue *q, Task *t, uint8_t bits);
int queue_wait_clear(Queue *q, Task *t, uint8_t bits);

/* A finished task of this queue becomes pending again at its own place: retry by hand. Needs a reservation made with
 * queue_reserve_again(), which gives no SEQ. wait, due_usec and expire_usec are looked at as by queue_push(): an EXPIRED
 * task expires again unless expire_usec was changed; attempt goes on unless it was set to 0. */
int queue_reserve_again(Queue *q, uint64_t n_bytes);
void queue_push_again(Queue *q, Task *t);

void queue_pause(Queue *q); /* counts */
int queue_resume(Queue *q); /* 0, or 1 if it was not paused */
void queue_drain(Queue *q,
                 QueueWaiter *w); /* refuses tasks, but for chained ones, until empty, then reopens and calls w */
void queue_stop(Queue *q);        /* refuses for good; pending tasks run. Repeatable */
void queue_join(Queue *q, QueueWaiter *w);  /* calls w once stopped and empty; also at once */
void queue_flush(Queue *q, QueueWaiter *w); /* calls w when all accepted until now have ended */
void queue_waiter_cancel(QueueWaiter *w);   /* out of its list, not called. Fine for one that was called */
void queue_give_up_waits(Queue *q);         /* calls all of them */

bool queue_is_empty(const Queue *q); /* nothing reserved, waiting, queued, running */
bool queue_has_startable(const Queue *q);
bool queue_has_rescuable(const Queue *q);     /* a task that its rescuer could start */
bool queue_has_behind_mark(const Queue *q);   /* the same, behind rescue_mark if it is set */
const char *queue_state_name(const Queue *q); /* open paused draining stopping stopped */

/* Why t does not run: what holds the task itself, else the queue, the pool, what runs, what is ahead, the slots. *ret_by,
 * which may be NULL, is the task it waits for, where that is one task, mostly of this queue, else NULL; of those ahead, the one
 * that starts next. O(1): lists of many tasks ask for each. */
eq_reason queue_reason(const Queue *q, const Task *t, const Task **ret_by);
/* Why the next task does not start; EQ_REASON_NONE if none is pending or one is about to. *ret_next is that task, NULL if
 * none is pending. ret_next and ret_by may be NULL. */
eq_reason queue_head_reason(const Queue *q, const Task **ret_next, const Task **ret_by);
/* Tasks that start before t if it becomes eligible now; without those that run and those on the shelf. O(pending) */
uint64_t queue_n_ahead(const Queue *q, const Task *t);

/* For engine.c and pool.c. Calls that change a queue stand between enter and leave; the outermost leave tells the pool
 * and calls `space` and those waiters whose wait is over. q may be gone after it. */
void queue_enter(Queue *q);
void queue_leave(Queue *q);

/* Tokens of tasks over several queues, for barrier.c, in a queue that was entered; but for
 * hold, whose hooks are called when it is left for another reason, at the latest when the token ends: the task has no slot yet. */
void queue_push_token(Queue *q, Task *token);
void queue_shift_token(Task *token, uint8_t wait);
void queue_hold_token(Task *token);
void queue_return_token(Task *token, uint8_t wait); /* it was held */
void queue_end_token(Task *token);
/* Nothing but t starts next in q, and nothing runs in it. *ret_by: what is in the way, NULL: no task. */
bool queue_stands_at(const Queue *q, const Task *t, const Task **ret_by);

Task *queue_claim(Queue *q);               /* the next startable task, now RUNNING with its attempt counted; or NULL */
Task *queue_claim_marked(Queue *q);        /* the same, behind rescue_mark if it is set */
Task *queue_hand(Queue *q);                /* the same, handed over and QUEUED still */
void queue_began(Queue *q, Task *t);       /* handed over, and RUNNING now */
void queue_not_started(Queue *q, Task *t); /* one that is RUNNING was not: neither an attempt nor a start of its rate */
void queue_unclaim(Queue *q, Task *t);     /* claimed or handed over, not started: back to its place, uncounted */
void queue_task_due(Queue *q, Task *t);    /* its due_item's time has come */
/* An attempt ended: RUNNING and `ev` by the table. due_usec: of RETRY. t may be gone afterwards. */
void queue_task_ended(Queue *q, Task *t, TaskEvent ev, uint64_t due_usec);
