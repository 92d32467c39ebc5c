/* SPDX-License-Identifier: MIT */
#pragma once

/* One cgroup per command below a directory that was delegated to us: DIR/slots/N, made when first needed and used again. A
 * process cannot leave it by forking, and the kernel kills all in it at once. Nothing here waits. */

#include <stdbool.h>

/* Descriptors that stay open as long as it is used. */
typedef struct SlotCgroup {
        int dir;     /* for CLONE_INTO_CGROUP */
        int events;  /* cgroup.events; EPOLLPRI when it changed since it was read */
        int kill;    /* cgroup.kill, -1 before Linux 5.14 */
        bool killed; /* cgroup.kill was written: it takes no more processes, see slot_cgroup_open() */
} SlotCgroup;
#define SLOT_CGROUP_NULL                                                                                               \
        { .dir = -1, .events = -1, .kill = -1 }

/* Makes DIR/slots and checks that slots can be made there. 0 or negative errno. */
int cgroup_open_slots(const char *dir, int *ret_fd);

/* Makes DIR/slots/N, a new one in place of one that is there and empty: Linux (seen on 6.18) kills what clone3() puts
 * into a cgroup that was once killed by cgroup.kill. So one that was killed is closed and opened again before its next use.
 * 0 or negative errno. */
int slot_cgroup_open(int slots_fd, unsigned number, SlotCgroup *ret);
void slot_cgroup_close(SlotCgroup *c);

int slot_cgroup_populated(const SlotCgroup *c);    /* 1: some process lives in it or below, 0, or negative errno */
int slot_cgroup_count(const SlotCgroup *c);        /* processes in it, or negative errno */
int slot_cgroup_signal(SlotCgroup *c, int signal); /* to each, also to those forked meanwhile. 0 or negative errno */
void slot_cgroup_clean(const SlotCgroup *c); /* takes the groups away that a task made in it; what is in use stays */

/* For the keeper: everything below DIR/slots at once. */
int cgroup_kill_slots(int slots_fd);
bool cgroup_slots_populated(int slots_fd);
void cgroup_remove_slots(const char *dir, int slots_fd); /* what is still in use stays */
