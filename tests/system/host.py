#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""eqctl --host: an eqd at the other end of ssh. In place of ssh there are scripts, which run the `eqctl stdio` of this machine."""

import hashlib
import os
import signal
import subprocess
import sys

import msgpack_mini
from eqdtest import Result, contains, equal, eventually, is_gone, main, status_fields, test

JOIN = 'echo $$ >>pids; EQD_SOCKET={socket} exec {eqctl} stdio\n'


def ssh(eqd, script=JOIN):
    """The environment with a program in place of ssh, which notes its arguments."""
    path = eqd.dir / "ssh"
    path.write_text('#!/bin/sh\necho "$*" >>args\n' + script.format(socket=eqd.socket, eqctl=eqd.eqctl))
    path.chmod(0o755)
    return eqd.environment(EQD_SSH=str(path))


def start(eqd, env, *args, url="ssh://there", **options):
    return subprocess.Popen([eqd.eqctl, "--host", url, *args], env=env, cwd=eqd.dir,
                            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def ctl(eqd, env, *args, data=None, **options):
    p = start(eqd, env, *args, stdin=subprocess.DEVNULL if data is None else subprocess.PIPE, **options)
    out, err = p.communicate(data, timeout=60)
    return Result(p.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def started(eqd):
    """Processes that were started in place of ssh."""
    path = eqd.dir / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@test()
def verbs_do_over_ssh_what_they_do_here(eqd):
    env = ssh(eqd)
    equal(ctl(eqd, env, "ping", "-v"), Result(0, "", "eqctl: eqd answers at ssh://there\n"))
    equal(ctl(eqd, env, "queue", "create", "q", "max_active=2").rc, 0)
    equal(ctl(eqd, env, "submit", "-q", "q", "--", "true").out, "q/1\n")
    equal(ctl(eqd, env, "wait", "q/1").rc, 0)
    equal(ctl(eqd, env, "run", "-q", "q", "-c", "echo out; echo err >&2; exit 7"), Result(7, "out\n", "err\n"))
    equal(ctl(eqd, env, "ls", "-A", "-o", "id").out, "q/1\nq/2\n")
    equal(ctl(eqd, env, "show", "q/9").rc, 66)
    equal(eqd.show("q/2")["exit"], 7) # it was this eqd
    big = ctl(eqd, env, "run", "--", "head", "-c", "3000000", "/dev/zero")
    equal((big.rc, len(big.out)), (0, 3000000))
    equal([is_gone(pid) for pid in started(eqd)], [True] * 8)


@test()
def standard_input_and_payloads_travel_as_bytes(eqd):
    env, data = ssh(eqd), os.urandom(900000)
    for args in (["run", "--", "md5sum"], ["run", "--stdin", "-", "--", "md5sum"], ["run", "-n", "--payload", "-", "--", "md5sum"]):
        equal(ctl(eqd, env, *args, data=data).out.split()[0], hashlib.md5(data).hexdigest(), str(args))
    r = ctl(eqd, env, "run", "--", "cat", data=bytes(1 << 20 | 1))
    equal((r.rc, r.out), (2, ""))
    contains(r.err, "standard input is larger than 1048576")
    eqd.ok("queue", "create", "w", "executor=worker")
    worker = start(eqd, env, "worker", "run", "-q", "w", "--", "md5sum")
    task = ctl(eqd, env, "submit", "-q", "w", "--payload", "-", data=data).out.strip()
    eqd.ends_as(task, "DONE")
    contains(ctl(eqd, env, "wait", "--json", task).out, task)
    worker.terminate()
    equal(worker.communicate(timeout=60)[0], b"")


@test()
def ssh_gets_the_parts_of_the_url_and_nothing_else(eqd):
    env = ssh(eqd)
    for url, words in (("ssh://there", "-- there"), ("ssh://anna@there.org/", "-l anna -- there.org"),
                       ("ssh://there:2222", "-p 2222 -- there"), ("ssh://a@b@[fe80::1%eth0]:22", "-p 22 -l a@b -- fe80::1%eth0")):
        equal(ctl(eqd, env, "ping", url=url).rc, 0, url)
        equal((eqd.dir / "args").read_text(), f"-T {words} eqctl stdio\n")
        (eqd.dir / "args").unlink()
    for url in ("ssh://-oProxyCommand=x", "ssh://anna@-x", "ssh://-x@there", "ssh://", "ssh://@there", "ssh://there:0", "ssh://there:65536",
                "ssh://there:22x", "ssh://there/path", "ssh://the re", "ssh://$(id)", "ssh://[::1", "ssh://[::1]x", "there", "http://there", ""):
        r = ctl(eqd, env, "ping", url=url)
        equal(r.rc, 2, url)
        contains(r.err, "write ssh://")
    for args in (["--system", "ls"], ["--user", "ls"], ["-S", str(eqd.socket), "ls"], ["store", "check"], ["stdio"]):
        r = ctl(eqd, env, *args)
        equal(r.rc, 2, str(args))
        contains(r.err, "--host: ")
    equal((eqd.dir / "args").exists(), False, "was started")


@test()
def what_fails_before_eqd_has_answered_is_69(eqd):
    for script, says in (("echo 'ssh: no such host' >&2; exit 255\n", ["ssh: no such host\n", "no eqd answers at ssh://there"]),
                         ("EQD_SOCKET=/nowhere exec {eqctl} stdio\n", ["no eqd answers at /nowhere", "no eqd answers at ssh://there"]),
                         ("echo Welcome.\n", ["does not speak eqd's protocol", "a shell there"])):
        env = ssh(eqd, script)
        r = ctl(eqd, env, "ls")
        equal((r.rc, r.out), (69, ""), script)
        contains(r.err, *says)
        equal(ctl(eqd, env, "run", "--", "true").rc, 125)
    r = ctl(eqd, {**env, "EQD_SSH": "/no/such/program"}, "ls")
    equal(r, Result(69, "", "eqctl: cannot run /no/such/program: No such file or directory\n"))


# Joins as `eqctl stdio` does, up to the request that is its argument, which is still passed on.
CUTTER = """#!{python}
import os, select, socket, sys
eqd = socket.socket(socket.AF_UNIX)
eqd.connect("{socket}")
while True:
    ready = select.select([0, eqd], [], [])[0]
    if eqd in ready:
        os.write(1, eqd.recv(65536))
    if 0 in ready:
        data = os.read(0, 65536)
        eqd.sendall(data)
        if sys.argv[1].encode() in data:
            os._exit(0)
"""


@test()
def a_line_that_is_cut_is_a_lost_eqd_and_is_not_made_again(eqd):
    cutter, task = eqd.dir / "cutter", eqd.submit("--hold", "--", "true")
    cutter.write_text(CUTTER.format(python=sys.executable, socket=eqd.socket))
    cutter.chmod(0o755)
    for rc, method, *verb in ((75, "wait", "wait", task), (75, "queue_flush", "queue", "flush", "default"), (69, "subscribe", "events"),
                              (69, "queue_list", "queue", "ls"), (125, "submit", "run", "--", "true")):
        (eqd.dir / "args").unlink(missing_ok=True)
        r = ctl(eqd, ssh(eqd, f"exec {cutter} {method}\n"), *verb)
        equal(r.rc, rc, f"{verb}: {r}")
        contains(r.err, "lost the connection to eqd at ssh://there")
        equal((eqd.dir / "args").read_text(), "-T -- there eqctl stdio\n", "once")
    equal(eqd.show(task)["state"], "WAITING")


@test()
def a_program_that_does_not_end_by_itself_is_ended_and_reaped(eqd):
    env = ssh(eqd, "echo $$ >>pids; EQD_SOCKET={socket} {eqctl} stdio; exec sleep 1000\n")
    equal(ctl(eqd, env, "ls").rc, 0)
    equal(is_gone(started(eqd)[0]), True)


def holds_back(pid, number):
    """Whether the process has blocked the signal, to take it from where it waits."""
    return int(status_fields(pid)["SigBlk"], 16) >> (number - 1) & 1


@test()
def an_interrupt_of_the_terminal_leaves_the_line_to_eqctl(eqd):
    p = start(eqd, ssh(eqd), "run", "--", "sleep", "1000", start_new_session=True)
    task = "default/1"
    eventually(lambda: eqd.ctl("show", task).rc == 0, "the task")
    eqd.until_state(task, "RUNNING")
    eventually(lambda: holds_back(p.pid, signal.SIGINT), "eqctl to wait for the task") # before that ^C ends it, as it should
    os.killpg(p.pid, signal.SIGINT)
    contains(p.stderr.readline().decode(), "eqctl cancel default/1")
    os.killpg(p.pid, signal.SIGINT)
    p.communicate(timeout=60)
    equal(p.returncode, 143) # as of the task
    eqd.ends_as(task, "CANCELED")


# ---- stdio ----

def stdio(eqd, **options):
    return subprocess.Popen([eqd.eqctl, "-S", eqd.socket, "stdio"], env=eqd.environment(), cwd=eqd.dir, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


def replies(data):
    found = []
    while data:
        message, used = msgpack_mini.decode(data)
        found.append(message)
        data = data[used:]
    return found


@test()
def the_end_of_standard_input_is_passed_on_and_answers_still_come(eqd):
    pings = [msgpack_mini.encode([0, n, "echo_nothing" if n % 2 else "ping", []]) for n in range(20000)]
    (eqd.dir / "work/requests").write_bytes(b"".join(pings))
    with open(eqd.dir / "work/requests", "rb") as f:
        out, err = stdio(eqd, stdin=f).communicate(timeout=60)
    equal(err, b"")
    got = replies(out)
    equal([m[1] for m in got], list(range(20000)))
    equal([m[2] is None for m in got[:2]], [True, False])


@test()
def it_ends_with_eqd_and_with_who_reads_it(eqd):
    held = eqd.submit("--hold", "--", "true")
    p = stdio(eqd, stdin=subprocess.PIPE)
    p.stdin.write(msgpack_mini.encode([0, 1, "wait", [[held]]])) # is not answered
    p.stdin.flush()
    p.stdout.close() # standard input stays open
    equal(p.wait(timeout=60), 0)
    equal(p.stderr.read(), b"")
    p.stdin.close()
    p = stdio(eqd, stdin=subprocess.PIPE)
    p.stdin.write(b"\xc1") # no message: eqd says so and closes
    p.stdin.flush()
    p.stdout.read() # up to its end
    equal(p.wait(timeout=60), 0)
    p.stdin.close()


main()
