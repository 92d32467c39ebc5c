/* SPDX-License-Identifier: MIT */
/* A child has left its place when the kernel says so: it clears the word that CLONE_CHILD_CLEARTID names at exec and at the
 * end of a process, when nothing of that runs in this memory any more. */

#include "spawner/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sanitizer/asan_interface.h> /* does nothing in other builds */
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER 1
#elif defined(__has_feature)
#define THREAD_SANITIZER __has_feature(thread_sanitizer)
#else
#define THREAD_SANITIZER 0
#endif

enum { STACK = 64 * 1024, THREAD_STACK = STACK + 64 * 1024, STACK_ALIGN = 16 };

struct Place {
        _Atomic int32_t taken; /* not 0: a child may run here. The kernel clears it */
        uintptr_t thread_pointer;
        void *stack; /* STACK bytes on that of the thread */
        sem_t ready; /* the two above are there */
        const ChildConfig *config;
        int line; /* of the child's table */
        Inbox *inbox;
};

static void run(void *arg) {
        Place *p = arg;
        child_run(p->config, p->inbox, p->line);
}

/* clone3() onto another stack: the child calls `enter`, which does not return. Its pid, or negative errno. The operands have registers
 * of their own, for the child's %rbp is cleared before they are used. */
#if defined(__x86_64__)
static long clone_onto(const struct clone_args *args, void (*enter)(void *), void *arg) {
        long r;
        __asm__ volatile("syscall\n\t"
                         "testq %%rax, %%rax\n\t"
                         "jnz 1f\n\t"
                         "xorl %%ebp, %%ebp\n\t" /* the outermost frame */
                         "movq %[arg], %%rdi\n\t"
                         "callq *%[enter]\n\t"
                         "ud2\n"
                         "1:"
                         : "=a"(r)
                         : "a"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), [enter] "b"(enter), [arg] "d"(arg)
                         : "rcx", "r11", "cc", "memory");
        return r;
}
#else
static long clone_onto(const struct clone_args *args, void (*enter)(void *), void *arg) {
        (void)args, (void)enter, (void)arg;
        return -EAGAIN;
}
#endif

/* ThreadSanitizer keeps a stack of calls for each thread, and children would call without returning. */
void places_init(Places *p, const char *suid_dumpable) {
#if defined(__x86_64__) && !THREAD_SANITIZER
        bool possible = true;
#else
        bool possible = false;
#endif
        *p = (Places) { .suid_dumpable = possible ? open(suid_dumpable, O_RDONLY | O_CLOEXEC) : -1 };
}

/* A change of identity makes the memory what the setting says: with 1 that user may look in, and with 2 there could be a core of it. */
bool places_may_share(const Places *p) {
        char mode;
        return p->suid_dumpable >= 0 && pread(p->suid_dumpable, &mode, 1, 0) == 1 && mode == '0';
}

/* The thread. Nothing ever wakes it up: also the signals of the C library are blocked, which its own functions leave open. */
static void *lend(void *arg) {
        Place *p = arg;
        _Alignas(STACK_ALIGN) char stack[STACK];
        uint64_t all = UINT64_MAX;

        (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
        p->thread_pointer = (uintptr_t)__builtin_thread_pointer();
        p->stack = stack;
        (void)sem_post(&p->ready);
        while (poll(NULL, 0, -1) <= 0)
                ;
        return NULL; /* never */
}

static int start_thread(Place *p) {
        pthread_attr_t attr;
        pthread_t thread;

        if (fault_hit(FAULT_THREAD))
                return -EAGAIN;
        int r = pthread_attr_init(&attr);
        if (r != 0)
                return -r;
        r = pthread_attr_setstacksize(&attr, THREAD_STACK);
        if (r == 0)
                r = pthread_create(&thread, &attr, lend, p);
        (void)pthread_attr_destroy(&attr);
        return -r;
}

static Place *make(Places *ps) {
        if (ps->n == PLACES_MAX)
                return NULL;
        Place *p = fault_calloc(1, sizeof(*p));
        if (!p)
                return NULL;
        p->inbox = inbox_new();
        (void)sem_init(&p->ready, 0, 0);
        if (!p->inbox || start_thread(p) < 0) {
                inbox_free(p->inbox);
                free(p);
                return NULL;
        }
        while (sem_wait(&p->ready) < 0)
                ;
        ps->all[ps->n++] = p;
        return p;
}

static Place *find_free(const Places *ps) {
        for (unsigned i = 0; i < ps->n; i++)
                if (atomic_load_explicit(&ps->all[i]->taken, memory_order_acquire) == 0)
                        return ps->all[i];
        return NULL;
}

pid_t places_clone(Places *ps, const ChildConfig *config, int cgroup, int line) {
        Place *p = find_free(ps);
        if (!p)
                p = make(ps);
        if (!p)
                return -EAGAIN;
        struct clone_args args = {
                .flags = CLONE_VM | CLONE_SETTLS | CLONE_CHILD_CLEARTID | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
                .child_tid = (uintptr_t)&p->taken,
                .exit_signal = SIGCHLD,
                .stack = (uintptr_t)p->stack,
                .stack_size = STACK,
                .tls = p->thread_pointer,
                .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
        };
        ASAN_UNPOISON_MEMORY_REGION(p->stack, STACK);
        p->config = config;
        p->line = line;
        atomic_store_explicit(&p->taken, 1, memory_order_relaxed);
        long r = clone_onto(&args, run, p);
        if (r < 0)
                atomic_store_explicit(&p->taken, 0, memory_order_relaxed);
        return (pid_t)r;
}
