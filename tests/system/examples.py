#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The examples of libeq(3), as somebody would run them who tries them first."""

import os
import select
import subprocess
from pathlib import Path

from eqdtest import BUILD, Skip, contains, equal, eventually, main, test
from ends import crash
from workerkit import ended, submit, worker_queue


def start(eqd, name, *args, **env):
    return subprocess.Popen([BUILD / "client" / f"example-{name}", *args], env=eqd.environment(EQD_SOCKET=str(eqd.socket), **env), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def run(eqd, name, *args):
    p = start(eqd, name, *args)
    out, err = p.communicate(timeout=60)
    equal((p.returncode, err), (0, ""), name)
    return out


@test()
def a_blocking_client_runs_a_command_and_waits(eqd):
    equal(run(eqd, "blocking"), "exit status 0, signal 0, 1 attempts\n")
    equal(run(eqd, "blocking", "/bin/sh", "-c", "exit 3"), "exit status 3, signal 0, 1 attempts\n")


@test()
def futures_are_waited_for_in_turn(eqd):
    equal(run(eqd, "futures", "one", "two", "three"), "".join(f"{word}: exit status 0\n" for word in ("one", "two", "three")))
    equal([eqd.ok("logs", f"default/{n}") for n in (1, 2, 3)], ["one", "two", "three"])


@test()
def a_client_compiles_against_the_installed_library_by_pkg_config(eqd):
    """As its user does who has the installed files only: headers, library and libeq.pc in one tree, the tree of eqd nowhere."""
    if os.environ.get("SANITIZE", "none") != "none":
        raise Skip("the library wants the run-time of a sanitizer")
    root, source = eqd.dir / "root", Path(__file__).resolve().parents[2] / "client/examples/blocking.c"
    call = lambda *args, **env: subprocess.run(args, env=eqd.environment(**env), cwd=eqd.dir, check=True, capture_output=True,
                                               text=True, timeout=100).stdout
    call("meson", "install", "-C", str(BUILD), "--no-rebuild", "--tags", "runtime,devel", "--destdir", str(root))
    [pc] = root.rglob("libeq.pc")
    found = {"PKG_CONFIG_LIBDIR": str(pc.parent), "PKG_CONFIG_SYSROOT_DIR": str(root)}
    flags = call("pkg-config", "--cflags", "--libs", "libeq", **found).split()
    equal(call("pkg-config", "--modversion", "libeq", **found).strip(), eqd.ok("version").split()[1])
    call("cc", "-std=c17", "-Wall", "-Wextra", "-Werror", str(source), "-o", "work/blocking", *flags)
    program = {"EQD_SOCKET": str(eqd.socket), "LD_LIBRARY_PATH": str(pc.parent.parent)}
    equal(call("work/blocking", "/bin/sh", "-c", "exit 3", **program), "exit status 3, signal 0, 1 attempts\n")
    for used in call("ldd", "work/blocking", **program).splitlines():
        if "libeq" in used:
            contains(used, str(root))


@test()
def a_loop_around_epoll_submits_a_thousand(eqd):
    eqd.ok("queue", "set", "default", "max_active=4")
    equal(run(eqd, "epoll"), "1000 answered, 0 refused\n")
    eqd.ok("queue", "flush", "default")
    equal(eqd.queue("default")["done"], 1000)


@test()
def a_loop_of_libuv_gets_events(eqd):
    p = start(eqd, "libuv")
    try:
        def told():
            eqd.wait(eqd.submit("--", "true"))
            return select.select([p.stdout], [], [], 0.1)[0]
        eventually(told, "an event of a task") # some time it has subscribed
        contains(p.stdout.readline(), "event: ", "bytes of MessagePack")
    finally:
        p.terminate()
        p.communicate(timeout=60)


@test()
def the_loop_around_epoll_goes_on_over_a_restart(eqd):
    eqd.ok("queue", "set", "default", "max_active=4")
    p = start(eqd, "epoll")
    eventually(lambda: eqd.queue("default")["last_seq"] > 0, "it has begun")
    crash(eqd)
    out, err = p.communicate(timeout=60)
    equal((p.returncode, out, err), (0, "1000 answered, 0 refused\n", ""))
    eqd.ok("queue", "flush", "default")
    equal(eqd.queue("default")["last_seq"], 1000)


@test()
def the_loop_of_libuv_hears_of_the_restart_and_of_what_comes_after_it(eqd):
    p = start(eqd, "libuv")
    try:
        with eqd.connect() as c:
            def told():
                eqd.wait(eqd.submit("--", "true"))
                return select.select([p.stdout], [], [], 0.1)[0]
            eventually(told, "it has subscribed")
        crash(eqd)
        until_line(p, "eqd is back")
        eqd.wait(eqd.submit("--", "true"))
        contains(p.stdout.readline(), "event: ", "bytes of MessagePack")
    finally:
        p.terminate()
        p.communicate(timeout=60)


def until_line(p, line):
    while (got := p.stdout.readline()) != line + "\n":
        equal(bool(got), True, f"it ended before it said: {line}")


@test()
def workers_serve_again_after_a_restart(eqd):
    for name, args, payload, want in (("worker", "shout", b"hello", b"HELLO"), ("worker-libuv", "naps", b"1", b"slept")):
        worker_queue(eqd, args)
        p = start(eqd, name, args)
        try:
            for end in (None, crash):
                if end:
                    end(eqd)
                c = eqd.connect()
                equal(ended(c, submit(c, payload, args))["result"], want)
        finally:
            p.terminate()
            p.communicate(timeout=60)


@test()
def a_worker_is_stopped_by_a_signal_that_comes_just_before_it_waits(eqd):
    """latesignal.so stands before libc: SIGTERM comes when the wait has been decided on, and has not begun. A worker that looks from time to
    time would not be sent one."""
    if os.environ.get("SANITIZE", "none") != "none":
        raise Skip("a sanitizer has to be the first library of a process")
    worker_queue(eqd, "shout")
    p = start(eqd, "worker", LD_PRELOAD=str(BUILD / "tests/system/latesignal.so"))
    try:
        out, err = p.communicate(timeout=60)
        equal((p.returncode, out, err), (0, "", "SIGTERM comes\n"))
    finally:
        p.kill()


main()
