/* SPDX-License-Identifier: MIT */
#include "eqctl/program.h"

#include <spawn.h>
#include <unistd.h>

int program_start(const char *const argv[], const int fds[static 3], pid_t *ret) {
        posix_spawn_file_actions_t actions;
        pid_t pid;
        int r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;
        for (int i = 0; r == 0 && i < 3; i++)
                if (fds[i] >= 0)
                        r = posix_spawn_file_actions_adddup2(&actions, fds[i], i);
        if (r == 0)
                r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail for what was made */
        if (r != 0)
                return -r;
        *ret = pid;
        return 0;
}
