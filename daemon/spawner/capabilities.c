/* SPDX-License-Identifier: MIT */
/* The five sets of a task, and how each becomes empty:
 *
 *   ambient      survives set*id and exec: cleared by prctl(), always (also follows from the next two)
 *   inheritable  capset()
 *   permitted    capset(); set*id away from 0 clears it as well, but from an unprivileged uid with ambient ones it does not
 *   effective    capset()
 *   bounding     only with CAP_SETPCAP. Not empty, it matters where an exec can gain from it: set-uid programs, which is
 *                what they are for; and uid 0, where child.c sets no_new_privs instead, so that exec gains nothing
 *
 * The keeper empties the bounding set once, at its start; neither it nor the worker ever executes anything, so they do not
 * miss it, and no child has to spend 41 system calls on it. */

#include "spawner/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CAPS_MAX = 64 };

typedef struct CapSets {
        struct __user_cap_header_struct header;
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
} CapSets;

static int read_sets(CapSets *ret) {
        *ret = (CapSets) { .header.version = _LINUX_CAPABILITY_VERSION_3 };
        return syscall(SYS_capget, &ret->header, ret->data) < 0 ? -errno : 0;
}

int capabilities_get(uint64_t *ret_permitted) {
        CapSets s;
        int r = read_sets(&s);
        if (r < 0)
                return r;
        *ret_permitted = s.data[0].permitted | (uint64_t)s.data[1].permitted << 32;
        return 0;
}

bool capabilities_bounding_is_empty(void) {
        for (int cap = 0; cap < CAPS_MAX; cap++) {
                int r = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
                if (r < 0) /* past the last one that this kernel knows */
                        return true;
                if (r > 0)
                        return false;
        }
        return true;
}

int capabilities_empty_bounding(void) {
        for (int cap = 0; cap < CAPS_MAX; cap++) {
                int r = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
                if (r < 0)
                        return 0;
                if (r > 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
                        return -errno;
        }
        return 0;
}

int capabilities_keep_only(uint64_t mask) {
        CapSets s;
        int r = read_sets(&s);
        if (r < 0)
                return r;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) /* EINVAL: before 4.3 */
                return -errno;
        for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
                s.data[i].permitted &= (uint32_t)(mask >> 32 * i);
                s.data[i].effective = s.data[i].permitted;
                s.data[i].inheritable = 0;
        }
        return syscall(SYS_capset, &s.header, s.data) < 0 ? -errno : 0;
}
