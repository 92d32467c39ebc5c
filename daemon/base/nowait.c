/* SPDX-License-Identifier: MIT */
/* Sanitizers know what the library's functions write, and what of other threads they make known, but no system calls; they get
 * the library's. */

#include "base/nowait.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

ssize_t nowait_send(int fd, const void *data, size_t n) {
        if (IS_SANITIZED)
                return send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        return syscall(SYS_sendto, fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
}

ssize_t nowait_receive(int fd, struct msghdr *m) {
        if (IS_SANITIZED)
                return recvmsg(fd, m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        return syscall(SYS_recvmsg, fd, m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
}
