/* SPDX-License-Identifier: MIT */
/* Killing a process hands its children up to the nearest subreaper: us. So killing all our children, reaping, and starting
 * over ends when there is nobody left, however deep the tree was and whatever sessions it had made. Process groups and
 * cgroup.kill make it quick, and stop a tree that forks faster than one can kill it process by process. */

#include "spawner/tree.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

#include "base/procfs.h"
#include "spawner/cgroup.h"

enum { CHILDREN_MAX = 256, SETTLE_MSEC = 10, SETTLE_ROUNDS = 500 };

static void kill_children(int children_fd) {
        pid_t pids[CHILDREN_MAX];
        int n = procfs_read_children(children_fd, pids, CHILDREN_MAX);
        for (int i = 0; i < n; i++) {
                (void)kill(-pids[i], SIGKILL); /* fails unless it leads a group */
                (void)kill(pids[i], SIGKILL);
        }
}

/* Processes that a spawner before us left in the cgroups are no children of ours: nothing tells when they are gone but
 * cgroup.events. One that hangs in the kernel may stay there; its slot then never falls free, which is the truth. */
static void wait_for_slots(int slots_fd) {
        for (int i = 0; i < SETTLE_ROUNDS && cgroup_slots_populated(slots_fd); i++) {
                (void)cgroup_kill_slots(slots_fd);
                (void)poll(NULL, 0, SETTLE_MSEC);
        }
}

uint32_t tree_kill_all(int children_fd, int slots_fd) {
        uint32_t n_killed = 0;

        for (;;) {
                if (slots_fd >= 0)
                        (void)cgroup_kill_slots(slots_fd);
                kill_children(children_fd);
                if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
                        break;
                n_killed++;
                while (waitpid(-1, NULL, WNOHANG) > 0)
                        n_killed++;
        }
        if (slots_fd >= 0)
                wait_for_slots(slots_fd);
        return n_killed;
}
