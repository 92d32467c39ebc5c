/* SPDX-License-Identifier: MIT */
/* The table of each thread, and the list of all tables. A table outlives its thread and goes to the next one that needs one, so the
 * list only grows, and whoever calls in lots goes along it without a lock. */

#include "engine/submitter.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/util.h"

typedef struct Submitter {
        Pushed places[SUBMITTER_PLACES];
        ATOMIC(uint32_t) taken;
        struct Submitter *next;
        void *memory;
} Submitter;

static ATOMIC(Submitter *) all;
_Thread_local Pushed *submitter_places;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* its destructor makes the table of a thread another one's */
static bool has_key;

/* Its lots stay where they are: they can be called in, and go when the next owner needs the place. */
static void thread_end(void *arg) {
        Submitter *s = arg;
        submitter_places = NULL;
        store_release(&s->taken, 0);
}

static void set_up(void) {
        has_key = pthread_key_create(&key, thread_end) == 0;
}

static Submitter *take_old(void) {
        for (Submitter *s = load_acquire(&all); s; s = s->next) {
                uint32_t taken = 0;
                if (load_relaxed(&s->taken) == 0 && cas_acquire(&s->taken, &taken, 1))
                        return s;
        }
        return NULL;
}

static Submitter *make(void) {
        void *memory = fault_calloc(1, sizeof(Submitter) + alignof(Submitter));
        if (!memory)
                return NULL;
        Submitter *s =
                (Submitter *)(((uintptr_t)memory + alignof(Submitter) - 1) & ~(uintptr_t)(alignof(Submitter) - 1));
        s->memory = memory;
        store_relaxed(&s->taken, 1);
        s->next = load_relaxed(&all);
        while (!cas_acq_rel(&all, &s->next, s))
                ;
        return s;
}

Pushed *submitter_make_places(void) {
        pthread_once(&once, set_up);
        Submitter *s = take_old();
        if (!s)
                s = make();
        if (s && has_key)
                (void)pthread_setspecific(key, s); /* else no other thread ever gets this table */
        return submitter_places = s ? s->places : NULL;
}

/* A lot that this thread has asked for, and not another one, who may have had no fence yet. */
typedef struct Asked {
        XLot *lot;
        uint64_t state;
} Asked;

static void add(XLotRest *sum, XLotRest rest) {
        sum->left += rest.left;
        sum->back += rest.back;
}

XLotRest submitter_call_in(uint64_t id, XHead *h) {
        XLotRest sum = { 0 }, rest;
        for (Submitter *s = load_seq_cst(&all); s;) {
                Asked asked[32];
                size_t n = 0;
                for (; s && n < ELEMENTSOF(asked); s = s->next) {
                        asked[n].lot = &s->places[id % SUBMITTER_PLACES].lot;
                        n += xlot_ask(asked[n].lot, h, &asked[n].state);
                }
                if (n > 0)
                        heavy_fence();
                while (n-- > 0)
                        if (xlot_get_back(asked[n].lot, asked[n].state, &rest))
                                add(&sum, rest);
        }
        return sum;
}

XLotRest submitter_count(uint64_t id, XHead *h) {
        XLotRest sum = { 0 };
        for (Submitter *s = load_acquire(&all); s; s = s->next) {
                XLot *l = &s->places[id % SUBMITTER_PLACES].lot;
                XLotRest rest = xlot_rest(l);
                if (xlot_state(load_acquire(&l->state)) != XLOT_NONE && load_relaxed(&l->head) == h)
                        add(&sum, rest);
        }
        return sum;
}
