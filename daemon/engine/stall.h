/* SPDX-License-Identifier: MIT */
#pragma once

/* The stall watch: looks at the cells of engine/watch.h from time to time and says what does not go on. Pure: the caller brings
 * the clock and the thread, which must be one and the same for all calls but stall_touch().
 *
 *   pool stall   a queue could start a task, and the pool has started none for its threshold
 *   queue stall  eligible tasks, and none of the queue started or ended for its stall_thresh
 *   hung task    runs for hung_task_timeout_secs, by its queue's hung_task
 *   CPU hog      runs on a thread of eqd, and uses more CPU time than a task should; those that end are counted by their threads
 *   part stall   a part of the daemon was asked and has not answered for watchdog_thresh
 *
 * Nothing is stalled while each task that it waits for shows life. A queue at max_active waits for its own tasks, others wait
 * for those of a full pool, and for nobody if the pool is not full. A task shows life while it runs no longer than expected, and
 * then by what its executor knows of it (WatchLife), else by CPU time (Hooks::cpu_usec). One that was handed to its executor
 * and has not begun waits. Queues that are paused, empty, or behind a time do not wait.
 *
 *      going on ---- threshold since the last progress or life ----> stalled: `begin`, `repeat` each threshold
 *         ^                                                             |
 *         `---------- progress, life, or nothing waits: `end` ----------'
 *
 * What the loop writes without a time is seen at the next look: so an end comes at most STALL_TICK_USEC late, and a begin at
 * most threshold + STALL_TICK_USEC after the last progress, never before the threshold. */

#include "base/clock.h"
#include "engine/watch.h"

#define STALL_TICK_USEC (500 * USEC_PER_MSEC)         /* longest time between two looks */
#define STALL_TICK_MIN_USEC (100 * USEC_PER_MSEC)     /* ... and what small thresholds make of it, at least */
#define STALL_EPISODE_TICK_USEC (200 * USEC_PER_MSEC) /* while something is stalled, so that its end is told soon */
#define STALL_LIFE_CPU_USEC (10 * USEC_PER_MSEC)      /* so much CPU time is a sign of life */

typedef enum PanicScope { PANIC_SCOPE_POOL, PANIC_SCOPE_QUEUE } PanicScope;

typedef struct StallConfig {
        uint64_t watchdog_usec;    /* for parts, and what counts as a pause; 0: off. Pools and queues have theirs */
        uint64_t hung_usec;        /* 0: off */
        uint64_t hung_check_usec;  /* between two looks for them; 0: each when its time is over */
        uint64_t hung_check_count; /* tasks that a look is for, at most; 0: all */
        int64_t hung_warnings;     /* reports of hung tasks from now on; -1: no end */
        uint64_t hung_panic;       /* so many at once; 0: off */
        uint64_t panic_on_stall;   /* reports; 0: off */
        uint64_t panic_time_usec;  /* of a stall; 0: off */
        PanicScope panic_scope;
        uint64_t hog_usec; /* CPU time of a task that a thread of eqd runs; 0: off */
} StallConfig;

typedef enum StallKind {
        STALL_POOL,
        STALL_QUEUE,
        STALL_HUNG,
        STALL_HUNG_SUPPRESSED, /* the last report of hung tasks */
        STALL_PART,
        STALL_CPU_HOG,    /* a thread's task uses more CPU time than one may; once for each */
        STALL_CLOCK_JUMP, /* the machine or eqd stood still; stuck_usec: how long */
        STALL_PANIC,      /* queue, pool, ... of what brought it about */
} StallKind;

typedef enum StallPhase { STALL_BEGIN, STALL_REPEAT, STALL_END } StallPhase;

typedef enum PanicCause { PANIC_BY_COUNT, PANIC_BY_TIME, PANIC_BY_HUNG } PanicCause;

/* What is not known is 0, or an empty text. */
typedef struct StallReport {
        StallKind kind;
        StallPhase phase;
        PanicCause cause;
        uint64_t now_usec;
        uint64_t stuck_usec; /* since the last progress; hung: since the last sign of life; end: in all */
        uint64_t episode;  /* the same number from begin to end; that of a queue that was removed ends without names */
        uint64_t n_stalls; /* reports of pool stalls so far, with panic_scope=queue of queues, too */
        eq_reason reason;
        char pool[EQ_NAME_MAX + 1], queue[EQ_NAME_MAX + 1], part[EQ_NAME_MAX + 1];
        uint64_t queue_id;
        char task_queue[EQ_NAME_MAX + 1];
        uint64_t seq, task_usec;     /* the task that it waits for, or that hangs, and how long it has run */
        uint64_t pid, tid;           /* the process, or the thread of eqd, that is at it */
        uint64_t n_ready, n_running; /* of the queue; of a pool: of the one named, and in all */
        uint64_t n_inactive;         /* of n_ready: behind max_active */
        uint64_t n_slots;            /* of a pool */
        int64_t nice;                /* of a pool */
        bool has_pool;               /* what follows is known: of the pool that is named */
        uint64_t n_workers, n_idle;  /* threads, or slots that were made */
        uint64_t creates, calls;     /* 1: it tries to make one; 1: a rescuer is at work, or called. Else 0 */
} StallReport;

typedef struct StallHooks {
        void (*report)(void *host, const StallReport *r);
        /* CPU time that the task in that slot and its children have used so far; may go back between tasks. NULL: nobody
         * knows. May read /proc. */
        uint64_t (*cpu_usec)(void *host, const WatchSlot *slot);
        /* CPU time that a thread of this process has used so far; 0: it is gone. NULL: nobody knows. */
        uint64_t (*thread_cpu_usec)(void *host, uint64_t tid);
} StallHooks;

typedef struct Stall {
        Watch *watch; /* borrowed, as are hooks and host */
        const StallHooks *hooks;
        void *host;
        StallConfig config;
        uint64_t n_stalls, n_episodes; /* since the start */
        int64_t hung_left;
        bool panicked;

        uint64_t tick, now_usec, next_usec, boot_gap_usec, touched_usec;
        uint64_t shortest_usec;                   /* threshold met at this look */
        uint64_t n_hung;                          /* of this look, or of the last one for hung tasks */
        uint64_t n_hung_checked, hung_check_usec; /* tasks at this look; when the next one for them is due */
        StallReport hung;                         /* the last one */
        bool any_episode;
        WatchQueue *busy; /* with eligible tasks, of this look */
        _Atomic bool touch;
} Stall;

void stall_init(Stall *s, Watch *w, const StallConfig *config, const StallHooks *hooks, void *host);
void stall_set_config(Stall *s, const StallConfig *config); /* counts warnings anew */

/* One look. boot_usec: CLOCK_BOOTTIME. Returns when the next is due, at most STALL_TICK_USEC later. */
uint64_t stall_look(Stall *s, uint64_t now_usec, uint64_t boot_usec);

/* Whatever it was, it was not their fault: thresholds count from the next look on. Any thread. */
void stall_touch(Stall *s);

/* How long a part has owed an answer; 0: it does not. */
uint64_t stall_part_owes_usec(const WatchPart *p, uint64_t now_usec);
