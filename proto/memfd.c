/* SPDX-License-Identifier: MIT */
/* Bytes are copied in and out by system calls here, not through a mapping: reading a hole of a sparse file by pread(2) takes no
 * memory, and an error is an error, never a signal. */

#include "memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW };

static int write_all(int fd, EqBytes data) {
        for (size_t done = 0; done < data.len;) {
                ssize_t n = write(fd, data.data + done, data.len - done);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }
        return 0;
}

int eq_memfd_new(EqBytes data, int *ret_fd) {
        int fd = memfd_create("eqd-payload", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        int r = write_all(fd, data);
        if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
                r = -errno;
        if (r < 0) {
                (void)close(fd); /* what it holds goes nowhere */
                return r;
        }
        *ret_fd = fd;
        return 0;
}

int eq_memfd_size(int fd, size_t *ret) {
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0)
                return -errno;
        if ((seals & SEALS) != SEALS)
                return -EPERM;
        if (fstat(fd, &st) < 0)
                return -errno;
        *ret = (size_t)st.st_size;
        return 0;
}

int eq_memfd_read(int fd, void *buf, size_t n) {
        for (size_t done = 0; done < n;) {
                ssize_t r = pread(fd, (char *)buf + done, n - done, (off_t)done);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0)
                        return r < 0 ? -errno : -EIO;
                done += (size_t)r;
        }
        return 0;
}
