/* SPDX-License-Identifier: MIT */
/* Who joins an execution queue, of daemon/engine/xqueue.c and xholder.c: two that join, the holder that ends the queue, and a start that takes the
 * memory for the next queue, which may end as well; every interleaving, sequentially consistent. Claims: who joins returns, and not
 * before the last call has; a queue that is there later in the same memory keeps nobody. spin.py checks it, and with -DM_... mutants
 * that it must catch. A futex is a number: to wait is atomic with a look at it, and a wake lets go all that wait. */

byte life = 1;  /* id of the queue that is here; 0: none */
byte count = 0; /* XQueue::ended */
byte n_waiting = 0, n_let_go = 0;
bool last_call_returned = false;
byte n_joined = 0;

inline wake_all() { d_step { n_let_go = n_let_go + n_waiting; n_waiting = 0 } }

inline futex_wait(seen) {
        atomic {
                if
                :: count != seen
                :: else -> n_waiting++;
                        n_let_go > 0 -> n_let_go--
                fi
        }
}

proctype Joiner() {
        byte seen;
        do
        ::
#ifdef M_COUNT_AFTER_LOOK
                if
                :: life != 1 -> break
                :: else
                fi;
                seen = count;
#else
                seen = count;
                if
                :: life != 1 -> break
                :: else
                fi;
#endif
                futex_wait(seen)
        od;
        assert(last_call_returned);
        n_joined++
}

inline end_queue() {
#ifdef M_WAKE_BEFORE_END
        count++;
        wake_all();
        life = 0
#else
        life = 0;
        count++;
#ifndef M_NO_WAKE
        wake_all()
#endif
#endif
}

proctype Holder() {
#ifdef M_END_BEFORE_CALL
        life = 0;
#endif
        last_call_returned = true;
        end_queue();
        life = 2; /* the memory is the next one's */
        if
        :: end_queue()
        :: skip
        fi
}

init {
        atomic { run Joiner(); run Joiner(); run Holder() }
        end_: n_joined == 2
}
