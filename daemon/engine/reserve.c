/* SPDX-License-Identifier: MIT */
/* A mailbox of one letter, under a lock: who needs a reserve is in no hurry of a microsecond. */

#include "engine/reserve.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"

enum {
        STACK_SPARE = 16 * 1024, /* of the stack, beside its guard: frames of those who touch it */
        PAGE = 4096,
};

struct Reserve {
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool ready, over;       /* lock */
        void (*run)(void *arg); /* lock; NULL: nothing to do */
        void *arg;              /* lock */
        int nice;
        char name[16];
};

int thread_start(size_t stack_bytes, void *(*main)(void *arg), void *arg, pthread_t *ret) {
        sigset_t all, old;
        pthread_attr_t attr;
        if (fault_hit(FAULT_WORKER))
                return -EAGAIN;
        int r = pthread_attr_init(&attr);
        if (r != 0)
                return -r;
        r = pthread_attr_setstacksize(&attr, stack_bytes);
        if (r == 0) {
                sigfillset(&all);
                pthread_sigmask(SIG_SETMASK, &all, &old);
                r = pthread_create(ret, &attr, main, arg);
                pthread_sigmask(SIG_SETMASK, &old, NULL);
        }
        pthread_attr_destroy(&attr);
        return -r;
}

/* What of the stack is left below the caller. */
static size_t stack_left(void) {
        pthread_attr_t attr;
        void *lowest = NULL;
        size_t size = 0, guard = 0;
        if (pthread_getattr_np(pthread_self(), &attr) != 0)
                return 0;
        (void)pthread_attr_getstack(&attr, &lowest, &size);
        (void)pthread_attr_getguardsize(&attr, &guard);
        pthread_attr_destroy(&attr);
        size_t here = (size_t)((char *)__builtin_frame_address(0) - (char *)lowest), spare = guard + STACK_SPARE;
        return here > spare ? here - spare : 0;
}

/* So that no page of it has to be found when there may be none. */
static __attribute__((noinline)) void touch_stack(size_t n) {
        volatile char *stack = __builtin_alloca(n);
        for (size_t i = 0; i < n; i += PAGE)
                stack[i] = 0;
}

static void *reserve_main(void *arg) {
        Reserve *r = arg;
        (void)pthread_setname_np(pthread_self(), r->name);
        if (r->nice != 0)
                (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), r->nice);
        touch_stack(stack_left());
        pthread_mutex_lock(&r->lock);
        r->ready = true;
        pthread_cond_signal(&r->changed);
        for (;;) {
                while (!r->run && !r->over)
                        pthread_cond_wait(&r->changed, &r->lock);
                if (!r->run)
                        break;
                void (*run)(void *) = TAKE_PTR(r->run);
                void *what = r->arg;
                pthread_mutex_unlock(&r->lock);
                run(what);
                pthread_mutex_lock(&r->lock);
        }
        pthread_mutex_unlock(&r->lock);
        return NULL;
}

int reserve_new(const char *name, size_t stack_bytes, int nice, Reserve **ret) {
        _cleanup_free_ Reserve *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        r->nice = nice;
        snprintf(r->name, sizeof(r->name), "%s", name);
        pthread_mutex_init(&r->lock, NULL);
        pthread_cond_init(&r->changed, NULL);
        int e = thread_start(stack_bytes, reserve_main, r, &r->thread);
        if (e < 0)
                return e;
        pthread_mutex_lock(&r->lock);
        while (!r->ready)
                pthread_cond_wait(&r->changed, &r->lock);
        pthread_mutex_unlock(&r->lock);
        *ret = TAKE_PTR(r);
        return 0;
}

void reserve_run(Reserve *r, void (*run)(void *arg), void *arg) {
        pthread_mutex_lock(&r->lock);
        assert(!r->run && !r->over);
        r->run = run;
        r->arg = arg;
        pthread_cond_signal(&r->changed);
        pthread_mutex_unlock(&r->lock);
}

Reserve *reserve_free(Reserve *r) {
        if (!r)
                return NULL;
        pthread_mutex_lock(&r->lock);
        r->over = true;
        pthread_cond_signal(&r->changed);
        pthread_mutex_unlock(&r->lock);
        (void)pthread_join(r->thread, NULL);
        pthread_cond_destroy(&r->changed);
        pthread_mutex_destroy(&r->lock);
        free(r);
        return NULL;
}
