#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The examples of libeq(3), as somebody would run them who tries them first."""

import select
import subprocess

from eqdtest import BUILD, contains, equal, eventually, main, test
from ends import crash
from workerkit import ended, submit, worker_queue


def start(eqd, name, *args):
    return subprocess.Popen([BUILD / "client" / f"example-{name}", *args], env=eqd.environment(EQD_SOCKET=str(eqd.socket)), stdout=subprocess.PIPE,
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


main()
