/* SPDX-License-Identifier: MIT */
/* The list up to the loop, with its eventfd (daemon/executor/plugin.c, daemon/engine/inbox.h): a submitter `me`, others, and the
 * loop, every interleaving, sequentially consistent (the orders are relacy's business). Others and the loop may be stopped for ever
 * between any two steps. Claims: whoever is stopped, `me` comes to the end of its push in so many steps of its own; and if nobody is,
 * everything is settled, and the loop is not asleep with something to do. spin.py checks it, and with -DM_... mutants that it must
 * catch. */

#ifndef OTHERS
#define OTHERS 2
#endif
#define N (OTHERS + 1)
#define STEPS 4 /* exchange, link, look, ring */

byte n_pushed = 0;        /* exchanges; the list is the numbers from n_taken on */
byte n_taken = 0;         /* by the loop, into its walk */
byte n_settled = 0;
byte n_done = 0;
bool linked[N];
bool rung = false;        /* the eventfd is readable */
bool has_stopped = false; /* somebody, for ever */
bool me_done = false;
bool lock = false;

inline may_stop(is_me) {
        if
        :: !is_me -> has_stopped = true; end_stopped: false
        :: skip
        fi
}

proctype Submitter(bool is_me) {
        byte at, steps = 0;
        bool was_empty;
        may_stop(is_me);
#ifdef M_LOCK
        atomic { !lock -> lock = true };
#endif
#ifdef M_RETRY
        byte seen;
again:
        seen = n_pushed;
        atomic {
                steps++;
                assert(!is_me || steps <= STEPS - 2);
                if
                :: n_pushed != seen -> goto again
                :: else
                fi;
                at = n_pushed; was_empty = n_pushed == n_taken; n_pushed++
        };
#else
        d_step { at = n_pushed; was_empty = n_pushed == n_taken; n_pushed++; steps++ };
#endif
        if
        :: !is_me -> has_stopped = true; end_in_push: false
        :: linked[at] = true; steps++
        fi;
        steps++;
        if
#ifndef M_NO_RING
        :: was_empty -> rung = true; steps++
#endif
        :: else
        fi;
#ifdef M_LOCK
        lock = false;
#endif
        assert(steps <= STEPS);
        n_done++;
        me_done = me_done || is_me
}

/* The walk runs from the newest that was taken to the oldest. One whose link is missing: set aside, and come again. */
proctype Loop() {
        byte i, first = 0;
        bool stuck;
end_asleep:
        do
        :: rung ->
                if
                :: has_stopped = true; end_stopped: false
                :: skip
                fi;
#ifndef M_READ_LATE
                rung = false;
#endif
                do
                :: first == n_taken ->
                        if
                        :: n_pushed == n_taken -> break
                        :: else -> n_taken = n_pushed
                        fi
                :: else ->
                        d_step {
                                stuck = false;
                                i = first;
                                do
                                :: i < n_taken -> stuck = stuck || !linked[i]; i++
                                :: else -> break
                                od;
                                i = 0
                        };
                        if
                        :: stuck ->
#ifndef M_NOT_AGAIN
                                rung = true;
#endif
                                break
                        :: else -> n_settled = n_taken; first = n_taken
                        fi
                od;
#ifdef M_READ_LATE
                rung = false
#endif
        od
}

init {
        byte i = 0;
        atomic {
                run Loop();
                run Submitter(true);
                do
                :: i < OTHERS -> run Submitter(false); i++
                :: else -> break
                od
        }
}

/* When nothing moves any more: `timeout` is that moment. (A loop that comes again and again for one who is stopped moves; but it may be
 * stopped itself.) */
active proctype Watch() {
        end_watch: timeout -> assert(me_done && (has_stopped || (n_done == N && n_settled == N)))
}
