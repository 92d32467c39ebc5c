/* SPDX-License-Identifier: MIT */
/* An episode from its first event to the end of the hold after its last.
 *
 * The heap is trimmed here, on the loop, and seldom: another thread that did it would hold the lock that the loop's next
 * malloc() needs. */

#include "manager/pressure.h"

#include <malloc.h>
#include <stdio.h>

#include "base/event.h"
#include "manager/parts.h"

#define ACT_INTERVAL_USEC (100 * USEC_PER_MSEC) /* who tells more often is listened to so often */
#define TRIM_INTERVAL_USEC (10 * USEC_PER_SEC)

bool manager_is_pressed(const Manager *m) {
        return m->pressure.began_usec != 0;
}

unsigned pressure_stock(const Manager *m) {
        return manager_is_pressed(m) ? 0 : (unsigned)m->config->daemon.waiting_processes;
}

uint64_t pressure_left_usec(const Manager *m) {
        uint64_t now = clock_monotonic(m->clock), over = m->pressure.told_usec + m->config->daemon.pressure_hold_usec;
        return over > now ? over - now : 0;
}

static void begin(Manager *m, const char *source, uint64_t now) {
        m->pressure.began_usec = now;
        m->pressure.n_episodes++;
        command_executor_set_stock(m->commands, pressure_stock(m));
        log_event(MEMORY_PRESSURE, (0), source);
        manager_event_daemon(m, EQ_EVENT_PRESSURE_BEGIN, source);
}

static void end(Timer *timer) {
        Manager *m = HEAP_ENTRY(timer, Manager, pressure.timer);
        char detail[64];
        uint64_t lasted = clock_monotonic(m->clock) - m->pressure.began_usec;
        m->pressure.began_usec = 0;
        plugin_executor_set_pressed(m->plugins, false);
        command_executor_set_stock(m->commands, pressure_stock(m));
        snprintf(detail, sizeof(detail), "it lasted %llus", (unsigned long long)(lasted / USEC_PER_SEC));
        manager_event_daemon(m, EQ_EVENT_PRESSURE_END, detail);
}

static void give_back(Manager *m, uint64_t now) {
        plugin_executor_set_pressed(m->plugins, true);
        if (m->pressure.trimmed_usec != 0 && now - m->pressure.trimmed_usec < TRIM_INTERVAL_USEC)
                return;
        m->pressure.trimmed_usec = now;
        spares_clear(&m->spares);
        (void)malloc_trim(0); /* whether there was anything does not matter */
}

int pressure_init(Manager *m) {
        m->pressure.timer = (Timer)TIMER_NULL(end);
        return timer_stand(&m->timers, &m->pressure.timer);
}

void manager_take_pressure(Manager *m, const char *source) {
        uint64_t now = clock_monotonic(m->clock), hold = m->config->daemon.pressure_hold_usec;
        m->pressure.n_events++;
        m->pressure.told_usec = now;
        if (m->stopping)
                return;
        bool first = !manager_is_pressed(m);
        if (first)
                begin(m, source, now);
        (void)timer_set(&m->timers, &m->pressure.timer, now + hold); /* stands: cannot fail */
        if (!first && now - m->pressure.acted_usec < ACT_INTERVAL_USEC)
                return;
        m->pressure.acted_usec = now;
        give_back(m, now);
}
