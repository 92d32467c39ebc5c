/* SPDX-License-Identifier: MIT */
#include "base/program.h"

#include <signal.h>
#include <spawn.h>
#include <unistd.h>

int program_start(const char *const argv[], int fd, int as, pid_t *ret) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t defaults, none;
        pid_t pid;
        (void)sigemptyset(&none); /* these cannot fail */
        (void)sigemptyset(&defaults);
        (void)sigaddset(&defaults, SIGPIPE);
        int r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;
        (void)posix_spawnattr_init(&attributes); /* nor these */
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
        (void)posix_spawnattr_setsigdefault(&attributes, &defaults);
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        r = posix_spawn_file_actions_adddup2(&actions, fd, as); /* clears close-on-exec also where fd is that number */
        if (r == 0)
                r = posix_spawn(&pid, argv[0], &actions, &attributes, (char *const *)argv, environ);
        (void)posix_spawnattr_destroy(&attributes);
        (void)posix_spawn_file_actions_destroy(&actions);
        if (r != 0)
                return -r;
        *ret = pid;
        return 0;
}
