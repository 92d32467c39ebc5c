/* SPDX-License-Identifier: MIT */
/* eqd-spawner: started by eqd, with the line on descriptor 3. Not for people. */

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "spawner/keeper.h"
#include "spawner/wire.h"

enum { EXIT_USAGE = 2 };

static int check_line(void) {
        int type;
        socklen_t len = sizeof(type);
        if (getsockopt(SPAWN_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
                return -1;
        if (fcntl(SPAWN_FD, F_SETFD, FD_CLOEXEC) < 0 || fcntl(SPAWN_FD, F_SETFL, O_NONBLOCK) < 0)
                return -1;
        (void)syscall(SYS_close_range, SPAWN_FD + 1, ~0u,
                      0); /* eqd's are close-on-exec; this is for what it may forget */
        return 0;
}

int main(int argc, char **argv) {
        static const struct option longs[] = { { "allow-root", no_argument, NULL, 'r' },
                                               { "cgroup", required_argument, NULL, 'c' },
                                               { "stock", required_argument, NULL, 's' },
                                               { 0 } };
        KeeperConfig config = { .line = SPAWN_FD };
        for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
                if (c == 'r')
                        config.allow_root = true;
                else if (c == 'c')
                        config.cgroup = optarg;
                else if (c == 's')
                        config.stock = (unsigned)strtoul(optarg, NULL, 10); /* ours is eqd's number */
                else
                        return EXIT_USAGE;
        if (optind < argc || check_line() < 0) {
                fprintf(stderr, "eqd-spawner: eqd starts this program; it is of no use by itself\n");
                return EXIT_USAGE;
        }
#ifdef EQD_TESTS
        if (fault_parse(getenv("EQD_FAULT")) < 0)
                return EXIT_USAGE;
#endif
        return keeper_run(&config);
}
