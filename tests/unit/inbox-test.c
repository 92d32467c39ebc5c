/* SPDX-License-Identifier: MIT */
#include "engine/inbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#include "base/util.h"
#include "test.h"

typedef struct Item {
        InboxNode node; /* first */
        unsigned producer;
        uint64_t number;
} Item;

static Item items[100];

static void pop_is(Collected *c, size_t i) {
        ck_assert_ptr_eq(collected_pop(c), &items[i].node);
}

TEST(nodes_come_out_in_the_order_of_their_pushes) {
        Inbox in = {};
        Collected c = { 0 };
        for (size_t i = 0; i < 50; i++)
                inbox_push(&in, &items[i].node);
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_SOME);
        for (size_t i = 0; i < 20; i++)
                pop_is(&c, i);
        for (size_t i = 50; i < 100; i++)
                inbox_push(&in, &items[i].node);
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_SOME); /* behind what is there */
        for (size_t i = 20; i < 100; i++)
                pop_is(&c, i);
        ck_assert_ptr_null(collected_pop(&c));
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_NONE);
}

TEST(the_first_pusher_becomes_the_owner_and_no_other) {
        Inbox in = {};
        Collected c = { 0 };
        ck_assert(inbox_push(&in, &items[0].node));
        ck_assert(!inbox_push(&in, &items[1].node));
        ck_assert(!inbox_claim(&in));
        inbox_collect(&in, &c, INBOX_TAKEN);
        ck_assert(!inbox_push(&in, &items[2].node)); /* still owned, though empty before */
        ck_assert(!inbox_leave(&in));                /* there was a push */
        inbox_collect(&in, &c, INBOX_TAKEN);
        ck_assert(inbox_leave(&in));
        ck_assert(!inbox_leave(&in));
        ck_assert(inbox_claim(&in));
        ck_assert(!inbox_push(&in, &items[3].node));
        ck_assert(inbox_has_new(&in));
}

TEST(a_dead_inbox_has_no_owner_to_become) {
        Inbox in = { INBOX_DEAD };
        ck_assert(!inbox_claim(&in));
        ck_assert(!inbox_leave(&in));
        ck_assert(!inbox_has_new(&in));
}

TEST(without_an_owner_each_first_push_after_a_collect_says_so) {
        Inbox in = {};
        Collected c = { 0 };
        for (size_t i = 0; i < 6; i += 2) {
                ck_assert(inbox_push(&in, &items[i].node));
                ck_assert(!inbox_push(&in, &items[i + 1].node));
                ck_assert_int_eq(inbox_collect(&in, &c, INBOX_EMPTY), INBOX_SOME);
        }
        for (size_t i = 0; i < 6; i++)
                pop_is(&c, i);
}

/* Does the first half of a push, as a thread does that is stopped in the middle. Returns what it has to link to. */
static InboxNode *half_a_push(Inbox *in, Item *item) {
        store_relaxed(&item->node.next, INBOX_UNCONNECTED);
        return exchange_seq_cst(&in->head, &item->node);
}

TEST(E4_a_stopped_pusher_holds_up_its_own_node_and_older_ones_and_nobody_spins) {
        Inbox in = {};
        Collected c = { 0 };
        inbox_push(&in, &items[0].node);
        InboxNode *before = half_a_push(&in, &items[1]);
        inbox_push(&in, &items[2].node);
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_STUCK);
        ck_assert_ptr_null(collected_pop(&c)); /* 2 must not overtake 0 and 1 */
        inbox_push(&in, &items[3].node);
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_STUCK);
        store_release(&items[1].node.next, before);
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_SOME);
        for (size_t i = 0; i < 3; i++)
                pop_is(&c, i);
        ck_assert_ptr_null(collected_pop(&c));
        ck_assert_int_eq(inbox_collect(&in, &c, INBOX_TAKEN), INBOX_SOME);
        pop_is(&c, 3);
}

TEST(a_node_put_back_is_the_first_again) {
        Inbox in = {};
        Collected c = { 0 };
        inbox_push(&in, &items[0].node);
        inbox_push(&in, &items[1].node);
        inbox_collect(&in, &c, INBOX_TAKEN);
        collected_unpop(&c, collected_pop(&c));
        pop_is(&c, 0);
        InboxNode *n = collected_pop(&c);
        collected_unpop(&c, n); /* the only one: then it is the last one, too */
        inbox_push(&in, &items[2].node);
        inbox_collect(&in, &c, INBOX_TAKEN);
        pop_is(&c, 1);
        pop_is(&c, 2);
        ck_assert_ptr_null(collected_pop(&c));
}

/* ---- threads ---- */

enum { N_PRODUCERS = 4, N_EACH = 20000 };

typedef struct Race {
        Inbox in;
        Collected collected; /* the owner's */
        uint64_t next[N_PRODUCERS], n_done;
        Item *items;
} Race;

static void consume(Race *r) {
        for (;;) {
                InboxNode *n;
                while ((n = collected_pop(&r->collected))) {
                        Item *item = (Item *)n;
                        if (item->number != r->next[item->producer]++)
                                abort();
                        r->n_done++; /* not atomic: two owners at once would lose some, and TSan would see it */
                }
                if (inbox_collect(&r->in, &r->collected, INBOX_TAKEN) == INBOX_STUCK)
                        sched_yield();
                else if (!r->collected.first && inbox_leave(&r->in))
                        return;
        }
}

typedef struct Producer {
        Race *race;
        unsigned id;
} Producer;

static void *produce(void *arg) {
        const Producer *p = arg;
        for (uint64_t i = 0; i < N_EACH; i++) {
                Item *item = &p->race->items[p->id * N_EACH + i];
                *item = (Item) { .producer = p->id, .number = i };
                if (inbox_push(&p->race->in, &item->node))
                        consume(p->race);
        }
        return NULL;
}

TEST(ownership_passes_between_threads_and_each_node_comes_once_in_order) {
        static Race r;
        pthread_t threads[N_PRODUCERS];
        Producer producers[N_PRODUCERS];
        r.items = calloc((size_t)N_PRODUCERS * N_EACH, sizeof(Item));
        for (unsigned i = 0; i < N_PRODUCERS; i++) {
                producers[i] = (Producer) { &r, i };
                ck_assert_int_eq(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
        }
        for (unsigned i = 0; i < N_PRODUCERS; i++)
                pthread_join(threads[i], NULL);
        ck_assert_uint_eq(r.n_done, (uint64_t)N_PRODUCERS * N_EACH);
        free(r.items);
}

RUN_TESTS("inbox", 60, test_nodes_come_out_in_the_order_of_their_pushes,
          test_the_first_pusher_becomes_the_owner_and_no_other, test_a_dead_inbox_has_no_owner_to_become,
          test_without_an_owner_each_first_push_after_a_collect_says_so,
          test_E4_a_stopped_pusher_holds_up_its_own_node_and_older_ones_and_nobody_spins,
          test_a_node_put_back_is_the_first_again,
          test_ownership_passes_between_threads_and_each_node_comes_once_in_order)
