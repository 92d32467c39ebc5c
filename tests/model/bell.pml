/* SPDX-License-Identifier: MIT */
/* The bell of daemon/engine/workers.c: two workers and two who put, every interleaving, sequentially consistent (the orders
 * are relacy's business). Claim: what was put is run, whoever sleeps, even if each runs until all have begun. spin.py checks
 * it, and with -DM_... mutants that it must catch. `line` stands for inbox and line: a number of things to run. */

#define N_PUTS 2

#define NOBODY 255
#define RUNG 254

byte line = 0, n_begun = 0, n_run = 0;
byte bell = NOBODY;
bool lock = false;
bool woken[2], in_list[2];
byte first = NOBODY, second = NOBODY; /* the list of idle ones */

inline take_lock() { atomic { !lock -> lock = true } }
inline give_lock() { lock = false }

inline insert(w) { second = first; first = w; in_list[w] = true }
inline remove(w) {
        if
        :: first == w -> first = second; second = NOBODY
        :: second == w -> second = NOBODY
        :: else
        fi;
        in_list[w] = false
}

/* The first idle one goes to the bell; under the lock. */
inline post() {
        d_step {
                if
                :: bell == RUNG
                :: else -> bell = first
                fi
        }
}

inline ring(seen) {
        seen = bell;
        if
        :: seen == NOBODY || seen == RUNG
        :: else ->
                atomic {
                        if
                        :: bell == seen -> bell = RUNG
                        :: else -> seen = NOBODY
                        fi
                };
                if
                :: seen != NOBODY -> woken[seen] = true
                :: else
                fi
        fi
}

proctype Putter(byte n) {
        byte seen;
        do
        :: n > 0 -> line++; ring(seen); n--
        :: else -> break
        od
}

proctype Worker(byte me) {
        byte seen, stale;
        bool more;
        end_: do
        :: take_lock();
                if
                :: line > 0 ->
                        line--;
                        post();
                        more = line > 0;
                        give_lock();
#ifndef M_NO_RING
                        if
                        :: more -> ring(seen)
                        :: else
                        fi;
#endif
                        n_begun++;
                        end_runs: n_begun == N_PUTS;
                        n_run++
                :: line == 0 ->
                        insert(me);
                        woken[me] = false;
                        post();
#ifndef M_NO_SECOND_LOOK
                        if
                        :: line > 0 -> skip
                        :: line == 0 ->
#endif
                                give_lock();
                                end_asleep: woken[me];
                                take_lock();
#ifndef M_NO_SECOND_LOOK
                        fi;
#endif
                        remove(me);
#ifdef M_STAY_AT_BELL
                        if
                        :: bell == RUNG -> bell = NOBODY
                        :: else
                        fi;
#else
                        d_step {
                                if
                                :: bell == me || bell == RUNG -> bell = NOBODY
                                :: else
                                fi
                        };
#endif
                        give_lock()
                fi
        od
}

init {
        atomic { run Worker(0); run Worker(1); run Putter(1); run Putter(N_PUTS - 1) }
}

/* When nothing moves any more, everything was run: `timeout` is that moment. */
active proctype Watch() {
        end_watch: timeout -> assert(n_run == N_PUTS && line == 0)
}
