/* SPDX-License-Identifier: MIT */
/* Taking everything out of an inbox, in order. The law is in the header. */

#include "engine/inbox.h"

/* Turns the links around, from the newest node on. False: set aside. */
static bool walk_on(Collected *c) {
        InboxNode *n = c->walk, *ring[INBOX_FAR] = { NULL };
        unsigned i = 0;
        while (inbox_is_node(n)) {
                InboxNode *older = load_acquire(&n->next);
                if (older == INBOX_UNCONNECTED) {
                        c->walk = n;
                        return false;
                }
                inbox_prefetch(n);
                inbox_set_far(n, ring[i % INBOX_FAR]);
                ring[i++ % INBOX_FAR] = n;
                store_relaxed(&n->next, c->walk_first);
                if (!c->walk_first)
                        c->walk_last = n;
                c->walk_first = n;
                n = older;
        }
        c->walk = NULL;
        return true;
}

/* What the walk has got is newer than all that was collected before. */
static void append_walk(Collected *c) {
        if (c->first)
                store_relaxed(&c->last->next, c->walk_first);
        else
                c->first = c->walk_first;
        c->last = c->walk_last;
        c->walk_first = c->walk_last = NULL;
}

InboxState inbox_collect(Inbox *in, Collected *c, InboxNode *leave) {
        if (!c->walk) {
                if (!inbox_is_node(load_relaxed(&in->head)))
                        return INBOX_NONE;
                c->walk = exchange_acq_rel(&in->head, leave);
        }
        if (!walk_on(c))
                return INBOX_STUCK;
        append_walk(c);
        return INBOX_SOME;
}
