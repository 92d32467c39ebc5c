/* SPDX-License-Identifier: MIT */
#include "statelock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

int eq_state_lock_take(int fd) {
        struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return -errno;
        /* Somebody else's lock of that kind refuses nothing: it is no eqd's. There, and where a file system has none, those who
         * ask are told what they see. */
        (void)fcntl(fd, F_OFD_SETLK, &all);
        return 0;
}

bool eq_state_lock_is_held(int fd) {
        struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
        return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type == F_WRLCK;
}
