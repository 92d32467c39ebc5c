/* SPDX-License-Identifier: MIT */
#pragma once

/* A list that any number of threads push to, and that one thread at a time takes everything from.
 *
 *   head   EMPTY     nothing there, and nobody is the owner
 *          TAKEN     nothing new there; somebody is the owner
 *          DEAD      not in use
 *          a node    the newest one; `next` runs from new to old and ends in what the first pusher found: EMPTY or TAKEN
 *
 * A push is one exchange of the head, then the link to what was there before: a bounded number of own steps, whatever
 * other threads do or do not do. Between the two the node's link is UNCONNECTED.
 *
 * There are two ways to use it.
 *   With an owner (the normal lane of a queue): the pusher that found EMPTY has become the owner and sees to it that
 *   somebody collects. Who owns may collect, leaving TAKEN, and in the end leave: EMPTY again, unless there was a push.
 *   So the head says whether the queue has to be scheduled, without a flag beside it.
 *   Without (the urgent lane, the run queue): collecting leaves EMPTY; who collects is settled elsewhere.
 *
 * Collected nodes are in the order of their pushes. If a pusher was stopped between exchange and link, the nodes before
 * its own cannot be reached and must not be overtaken: the walk is set aside (Collected::walk) and goes on with the next
 * inbox_collect(). Nobody spins.
 *
 * Memory order, and why. (1) What a thread wrote into its node before the push is seen by who collects it: the push
 * releases, the collecting exchange acquires the newest node, and each earlier push is a read-modify-write of the same
 * head, so it heads or continues the release sequence that is acquired. (2) What an owner did before it left is seen by
 * the next owner: leave releases; a push that finds EMPTY acquires. (3) The urgent lane: its pusher writes the lane and
 * then reads who owns the queue; an owner gives up ownership and then reads the lane. Both are sequentially consistent
 * (the push here, leave here, claim here), so one of them sees the other and no urgent task is forgotten.
 * (4) Links are written once by their pusher and read by the collector only: release and acquire, though (1) would do. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/atomics.h"

typedef struct InboxNode InboxNode;
struct InboxNode {
        ATOMIC(InboxNode *) next;
        int32_t far; /* bytes from here to a node that comes some steps later, for inbox_prefetch(); 0: no idea */
        ATOMIC(uint32_t) value; /* its user's */
};

#define INBOX_EMPTY ((InboxNode *)0)
#define INBOX_TAKEN ((InboxNode *)1)
#define INBOX_UNCONNECTED ((InboxNode *)2)
#define INBOX_DEAD ((InboxNode *)3)

typedef struct Inbox {
        ATOMIC(InboxNode *) head;
} Inbox;

/* What was collected, oldest first. The collector's own; zeros: nothing. */
typedef struct Collected {
        InboxNode *first, *last;
        InboxNode *walk;                   /* the node whose link is missing; NULL: no walk is set aside */
        InboxNode *walk_first, *walk_last; /* what the walk has got so far */
} Collected;

typedef enum InboxState {
        INBOX_NONE,  /* nothing new */
        INBOX_SOME,  /* something was added to what is collected */
        INBOX_STUCK, /* there is something, but a pusher has to finish first */
} InboxState;

static inline bool inbox_is_node(const InboxNode *n) {
        return n > INBOX_DEAD;
}

/* Nodes are in lists, whose next node can be asked for only when this one has come, and a line that another CPU has written takes
 * as long to come as several tasks. So each has a guess where a node is that comes INBOX_FAR steps later. Who pushes knows what he
 * pushed before, for the walk from new to old; the walk knows the order that it leaves behind. A wrong guess does no harm. */
enum { INBOX_FAR = 8 };

static inline void inbox_prefetch(const InboxNode *n) {
        __builtin_prefetch((const char *)n + n->far, 1);
}

/* A node that is too far away is not guessed right. */
static inline void inbox_set_far(InboxNode *n, const InboxNode *later) {
        n->far = later ? (int32_t)((intptr_t)later - (intptr_t)n) : 0;
}

/* Any thread, wait-free. True: the inbox was EMPTY (with an owner: the caller is it now). After that nothing of n is
 * touched, and if it returns false nothing of in either. */
static inline bool inbox_push(Inbox *in, InboxNode *n) {
        store_relaxed(&n->next, INBOX_UNCONNECTED);
        InboxNode *before = exchange_seq_cst(&in->head, n);
        preempt_here();
        store_release(&n->next, before);
        return before == INBOX_EMPTY;
}

/* Is there anything to collect? seq_cst, for those who have just given something up. */
static inline bool inbox_has_new(Inbox *in) {
        return inbox_is_node(load_seq_cst(&in->head));
}

/* The owner gives the inbox up. False: somebody has pushed, the caller is the owner still. */
static inline bool inbox_leave(Inbox *in) {
        InboxNode *taken = INBOX_TAKEN;
        return cas_seq_cst(&in->head, &taken, INBOX_EMPTY);
}

/* Becomes the owner of an inbox that has none. Any thread, wait-free. */
static inline bool inbox_claim(Inbox *in) {
        InboxNode *empty = INBOX_EMPTY;
        return cas_seq_cst(&in->head, &empty, INBOX_TAKEN);
}

/* Moves what was pushed to c. `leave` is what stays in the head: TAKEN with an owner, EMPTY without. One thread at a
 * time; never blocks; time with the number of nodes. */
InboxState inbox_collect(Inbox *in, Collected *c, InboxNode *leave);

/* The oldest collected node, NULL: none. */
static inline InboxNode *collected_pop(Collected *c) {
        InboxNode *n = c->first;
        if (n)
                c->first = load_relaxed(&n->next);
        return n;
}

/* Puts a node back before all others. */
static inline void collected_unpop(Collected *c, InboxNode *n) {
        store_relaxed(&n->next, c->first);
        if (!c->first)
                c->last = n;
        c->first = n;
}
