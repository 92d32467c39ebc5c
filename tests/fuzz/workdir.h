/* SPDX-License-Identifier: MIT */
#pragma once

/* A folder of its own for a target that needs files, gone when the process ends; in memory where there is such a place. One
 * thread only. */

#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "target.h"

static char work_dir[64]; /* "": not made yet */

static inline void work_dir_empty(void) {
        DIR *d = opendir(work_dir);
        FUZZ_CHECK(d);
        for (struct dirent *e; (e = readdir(d));)
                if (e->d_name[0] != '.')
                        (void)unlinkat(dirfd(d), e->d_name, 0);
        closedir(d);
}

static inline void work_dir_remove(void) {
        work_dir_empty();
        (void)rmdir(work_dir);
}

static inline void work_dir_make(void) {
        strcpy(work_dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/eqd-fuzz.XXXXXX" : "/tmp/eqd-fuzz.XXXXXX");
        FUZZ_CHECK(mkdtemp(work_dir));
        FUZZ_CHECK(atexit(work_dir_remove) == 0);
}
