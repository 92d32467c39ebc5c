/* SPDX-License-Identifier: MIT */
/* Tasks over two of three serial queues, as in daemon/engine/barrier.h, among tasks of one queue; each becomes eligible when it
 * likes, and is urgent or not; one may be canceled before it runs, and one queue may be paused and resumed. (A stop is nothing to
 * those that wait: they run.) Claims: what runs holds its queues alone; nothing with an earlier place in any of its queues is
 * eligible when a task starts, and none of them is paused; when nothing moves any more, all have ended. spin.py checks it, and
 * with -DM_... mutants that it must catch: M_ONE_AFTER_THE_OTHER is the plain idea of taking the queues one after the other in the
 * order of their numbers. */

#ifndef TASKS
#define TASKS 4
#endif
#define QUEUES 3

#define WAITING 0
#define ELIGIBLE 1
#define RUNNING 2
#define ENDED 3

byte state[TASKS];
bool urgent[TASKS];
bool in_queue[TASKS * QUEUES]; /* a number is a place: all are given in one go */
byte holder[QUEUES];           /* task + 1 */
byte n_begun, n_ended;
bool canceled, paused, resumed; /* the queue in the midst */

#define IN(t, q) in_queue[(t) * QUEUES + (q)]

/* good: nothing before t in q. */
inline is_next(t, q, good) {
        good = true;
        o = 0;
        do
        :: o < TASKS ->
                if
                :: o != t && IN(o, q) && state[o] == ELIGIBLE &&
                   ((urgent[o] && !urgent[t]) || (urgent[o] == urgent[t] && o < t)) -> good = false
                :: else
                fi;
                o++
        :: else -> break
        od
}

/* One turn of the loop for task t: it starts, if it may. */
inline try(t) {
#ifdef M_PAUSED_AT_HOME_ONLY
        all = !(paused && IN(t, 1) && !IN(t, 0));
#else
        all = !(paused && IN(t, 1));
#endif
        q = 0;
        do
        :: q < QUEUES ->
                if
                :: IN(t, q) && holder[q] != t + 1 ->
                        is_next(t, q, next);
#ifdef M_NOT_AT_ITS_PLACE
                        next = true;
#endif
                        if
                        :: next && holder[q] == 0 -> skip;
#ifdef M_ONE_AFTER_THE_OTHER
                                if
                                :: all -> holder[q] = t + 1 /* taken, and the next one is waited for */
                                :: else
                                fi
#endif
                        :: else -> all = false
                        fi
                :: else
                fi;
                q++
        :: else -> break
        od;
        if
        :: all ->
                assert(!(paused && IN(t, 1)));
                state[t] = RUNNING;
                n_begun++;
                q = 0;
                do
                :: q < QUEUES ->
                        if
                        :: IN(t, q) ->
                                is_next(t, q, next);
                                assert((holder[q] == 0 || holder[q] == t + 1) && (next || holder[q] == t + 1));
                                holder[q] = t + 1
                        :: else
                        fi;
                        q++
                :: else -> break
                od
        :: else
        fi
}

inline finish(t) {
        q = 0;
        do
        :: q < QUEUES ->
                if
                :: IN(t, q) -> assert(holder[q] == t + 1); holder[q] = 0
                :: else
                fi;
                q++
        :: else -> break
        od;
        state[t] = ENDED;
        n_ended++
}

inline start_all() {
        i = 0;
        do
        :: i < TASKS ->
                if
                :: state[i] == ELIGIBLE -> try(i)
                :: else
                fi;
                i++
        :: else -> break
        od
}

inline choose(t) {
        if
        :: urgent[t] = true
        :: urgent[t] = false
        fi;
        if
        :: t == 1 -> IN(t, 1) = true /* one of a single queue, in the midst */
        :: t != 1 -> IN(t, 0) = true; IN(t, 1) = true
        :: t != 1 -> IN(t, 1) = true; IN(t, 2) = true
        :: t != 1 -> IN(t, 0) = true; IN(t, 2) = true
        fi
}

inline cancel(t) {
        canceled = true;
        state[t] = ENDED;
        n_ended++;
#ifndef M_CANCEL_STARTS_NOBODY
        start_all();
#endif
        n = n_begun;
        start_all();
        assert(n == n_begun) /* nobody is left that might have started */
}

#define TURN(t)                                                                                                        \
        :: d_step { state[t] == WAITING -> state[t] = ELIGIBLE; start_all(); skip }                                    \
        :: d_step { state[t] == RUNNING -> finish(t); start_all(); skip }                                              \
        :: d_step { state[t] < RUNNING && !canceled -> cancel(t); skip }

init {
        byte q, o, i, n;
        bool all, next;
        atomic {
                n = 0;
                do
                :: n < TASKS -> choose(n); n++
                :: else -> break
                od
        };
        /* The loop: in any order something becomes eligible or ends, and after each everything that may start does. */
        end_: do
        TURN(0)
        TURN(1)
        TURN(2)
        TURN(3)
#if TASKS > 4
        TURN(4)
#endif
        :: d_step { !paused && !resumed -> paused = true; skip }
        :: d_step { paused -> paused = false; resumed = true; start_all(); skip }
        od
}

active proctype Watch() {
        end_watch: timeout -> assert(n_ended == TASKS)
}
