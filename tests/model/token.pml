/* SPDX-License-Identifier: MIT */
/* The token of daemon/engine/xhead.h and xholder.c: a normal submitter, an urgent one, a stop, a pause with its resume, and two
 * workers that run the queue; every interleaving, sequentially consistent. Claims: one holder at a time; every accepted task is
 * executed once; the end comes once, after all of them; when nothing moves any more, nothing is left. spin.py checks it,
 * and with -DM_... mutants that it must catch. */

#define EMPTY 0
#define TAKEN 1
#define NEW 2

byte normal = EMPTY, n_normal = 0; /* head; tasks behind NEW */
byte n_urgent = 0;
byte charged = 0, back = 0;
bool closed = false, ended = false;
byte pauses = 0;
bool parked = false;
byte scheduled = 0; /* tokens in the run queue */
byte n_holders = 0, n_done = 0, n_accepted = 0;

inline kick() {
        atomic {
                if
                :: normal == EMPTY -> normal = TAKEN; scheduled++
                :: else
                fi
        }
}

/* ok: open when looked at, after the charge. */
inline enter(ok) {
#ifdef M_LOOK_FIRST
        ok = !closed;
        charged++;
#else
        charged++;
        ok = !closed;
#endif
        if
        :: !ok ->
                back++;
#ifndef M_REFUND_NO_KICK
                if
                :: closed && !ended -> kick()
                :: else
                fi
#endif
        :: else
        fi
}

proctype Submitter() {
        bool ok;
        enter(ok);
        if
        :: ok ->
                n_accepted++;
                atomic {
                        if
                        :: normal == EMPTY -> scheduled++
                        :: else
                        fi;
                        normal = NEW;
                        n_normal++
                }
        :: else
        fi
}

proctype Urgent() {
        bool ok;
        enter(ok);
        if
        :: ok -> n_accepted++; n_urgent++;
#ifndef M_URGENT_NO_KICK
                kick()
#endif
        :: else
        fi
}

proctype Stopper() {
        closed = true;
#ifndef M_STOP_NO_KICK
        kick()
#endif
}

proctype Pauser() {
        pauses++;
        atomic {
                pauses--;
#ifndef M_RESUME_LEAVES
                if
                :: pauses == 0 && parked -> parked = false; scheduled++
                :: else
                fi
#endif
        }
}

inline leave(gone) {
        gone = false;
        atomic {
                if
                :: normal == TAKEN -> normal = EMPTY; gone = true; n_holders--
                :: else
                fi
        };
#ifndef M_NO_SECOND_LOOK
        if
        :: gone && (n_urgent > 0 || (closed && charged == back && !ended)) ->
                atomic {
                        if
                        :: normal == EMPTY -> normal = TAKEN; gone = false; n_holders++
                        :: else
                        fi
                }
        :: else
        fi
#endif
}

proctype Worker() {
        bool gone;
        byte n;
        end_: do
        :: atomic { scheduled > 0 -> scheduled--; n_holders++; assert(n_holders == 1 && !ended) };
                gone = false;
                do
                :: gone -> break
                :: else ->
                        if
                        :: pauses > 0 ->
#ifdef M_PARK_BLINDLY
                                atomic { parked = true; n_holders--; gone = true }
#else
                                atomic {
                                        if
                                        :: pauses > 0 -> parked = true; n_holders--; gone = true
                                        :: else
                                        fi
                                }
#endif
                        :: pauses == 0 && n_urgent > 0 -> n_urgent--; n_done++; back++
                        :: pauses == 0 && n_urgent == 0 && normal == NEW ->
                                atomic { n = n_normal; n_normal = 0; normal = TAKEN };
                                do
                                :: n > 0 -> n--; n_done++; back++
                                :: else -> break
                                od
                        :: pauses == 0 && n_urgent == 0 && normal == TAKEN ->
                                if
                                :: closed && charged == back ->
                                        assert(!ended && n_done == n_accepted);
                                        atomic { ended = true; n_holders--; gone = true } /* the head stays TAKEN: DEAD */
                                :: else -> leave(gone)
                                fi
                        fi
                od
        od
}

init {
        atomic { run Worker(); run Worker(); run Submitter(); run Urgent(); run Stopper(); run Pauser() }
}

active proctype Watch() {
        end_watch: timeout -> assert(ended && n_done == n_accepted && n_urgent == 0 && n_normal == 0)
}
