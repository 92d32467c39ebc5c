#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Payloads that travel as sealed memfds: to eqd, to workers, and what is refused; no descriptor is left behind."""

import collections
import fcntl
import json
import os
import socket
import subprocess

from ends import crash
from eqdtest import BUILD, USER_A, USER_B, Rpc, RpcError, contains, equal, eventually, main, test
from workerkit import INVALID, TOO_LARGE, Run, Worker, ended, submit, worker_queue

PAYLOAD_MAX, FD_MIN, FDS_PER_WORKER = 1 << 20, 131072, 8
WRITE, SHRINK, GROW = fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW
FUTURE_WRITE = 0x10 # <linux/fcntl.h>: a mapping that was made before may still write
ALL = WRITE | SHRINK | GROW
BIG = os.urandom(300000)


def memfd(data, seals=ALL):
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    for start in range(0, len(data), 65536):
        os.write(fd, data[start:start + 65536])
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def submit_fd(rpc, fd, queue="w", **options):
    return rpc.call("submit", queue, None, fds=[fd], payload_fd=True, **options)


def submit_memfd(rpc, data, queue="w", **options):
    fd = memfd(data)
    try:
        return submit_fd(rpc, fd, queue, **options)
    finally:
        os.close(fd)


def has_descriptors(eqd, n):
    """Some are closed at the end of the turn in which eqd answers."""
    eventually(lambda: eqd.count_fds() == n, lambda: f"{eqd.count_fds()} descriptors, not {n}: {eqd.fd_list()}")


def has_at_most(eqd, n):
    eventually(lambda: eqd.count_fds() <= n, lambda: f"{eqd.count_fds()} descriptors, more than {n}: {eqd.fd_list()}")


class FdRpc(Rpc):
    """Keeps the descriptors that come, in their order."""

    def __init__(self, *args):
        self.fds = collections.deque()
        super().__init__(*args)

    def read(self):
        data, fds, flags, _ = socket.recv_fds(self.sock, self.chunk, 16)
        equal(flags & socket.MSG_CTRUNC, 0)
        equal(len(fds) <= 1, True, "one by one")
        self.fds.extend(fds)
        return data

    def close(self):
        while self.fds:
            os.close(self.fds.popleft())
        super().close()


class FdWorker(Worker):
    """A worker that takes payloads as descriptors. next() reads them; n_fds tells how many came."""

    def __init__(self, eqd, *queues, **options):
        self.eqd, self.rpc, self.n_fds = eqd, FdRpc(eqd.socket), 0
        eqd.connections.append(self.rpc)
        self.number = self.rpc.call("worker_serve", list(queues), payload_fd=True, **options)["worker"]

    def next(self):
        run = super().next()
        if not run.options.pop("payload_fd", False):
            return run
        equal(run.payload, b"", "the payload is in one place")
        fd = self.rpc.fds.popleft()
        self.n_fds += 1
        with os.fdopen(fd, "rb") as f:
            equal(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & ALL, ALL)
            size = os.fstat(fd).st_size
            return Run(*run[:4], os.pread(f.fileno(), size + 1, 0), run.options)


def refused(rpc, code, says, *params, fds=(), **options):
    try:
        rpc.call("submit", *params, fds=fds, payload_fd=True, **options)
    except RpcError as e:
        equal(e.code, code, e.text)
        contains(e.text, *([says] if isinstance(says, str) else says))
        equal(rpc.call("ping"), None)
        return
    raise AssertionError(f"{says}: it was taken")


# ---- back from eqd ----

def printed(eqd, *args):
    r = eqd.ctl("show", "--payload", *args, raw=True)
    equal((r.rc, r.err), (0, b""))
    return r.out


@test()
def of_a_dead_task_the_payload_can_be_had_back_and_moved(eqd):
    c = worker_queue(eqd)
    eqd.ok("queue", "create", "dead", "executor=worker")
    w = Worker(eqd, "w")
    data = os.urandom(PAYLOAD_MAX)
    task = submit(c, data, retries=1, backoff_usec=1)
    for _ in range(2):
        w.fail(w.next())
    equal([(t["state"], "payload" in t) for t in [ended(c, task)] + c.call("show", [task])], [("DEAD", False)] * 2, "nobody asked")
    w.vanish()
    for _ in range(2):
        equal([t["payload"] == data for t in c.call("show", [task], payload=True)], [True])
        equal(printed(eqd, "w/1") == data, True)
        crash(eqd)
        c = eqd.connect()
    eqd.ctl("submit", "-q", "dead", "--payload", "-", input=printed(eqd, "w/1"))
    dead = Worker(eqd, "dead")
    equal(dead.next().payload == data, True)


@test()
def payloads_of_a_reply_are_as_many_as_it_has_room_for(eqd):
    c = worker_queue(eqd)
    tasks = [submit(c, b"%d" % i * PAYLOAD_MAX) for i in range(3)]
    equal(["payload" in t for t in c.call("show", tasks, payload=True)], [True, False, False])
    equal(printed(eqd, "w/1", "w/2", "w/3") == b"".join(b"%d" % i * PAYLOAD_MAX for i in range(3)), True)
    rows = eqd.ok("show", "--payload", "--json", "w/3", "w/1").splitlines()
    equal([json.loads(row)["payload"][:9] for row in rows], ["2" * 9, "0" * 9])
    small = [submit(c, p) for p in (b"", b"\xff\0")]
    equal([t["payload"] for t in c.call("show", small, payload=True)], [b"", b"\xff\0"])
    equal(json.loads(eqd.ok("show", "--payload", "--json", "w/5"))["payload"], {"bytes": "/wA="})


@test(root=True, other_users=True)
def a_payload_is_for_its_owner_and_administrators(eqd):
    worker_queue(eqd)
    secret = eqd.ok("submit", "-q", "w", "--payload", "secret", uid=USER_A)
    equal((eqd.ok("show", "--payload", secret), eqd.ok("show", "--payload", secret, uid=USER_A)), ("secret", "secret"))
    eqd.fails(77, "show", "--payload", secret, uid=USER_B)


# ---- to eqd ----

@test()
def a_sealed_memfd_is_the_payload_whatever_its_size(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = Worker(eqd, "w", credit=100)
    equal(c.call("hello")["payload_fd_min"], FD_MIN)
    for data in (b"", b"x", BIG, os.urandom(PAYLOAD_MAX)):
        task = submit_memfd(c, data, label="by descriptor")
        run = w.next()
        equal((run.payload, run.options), (data, {"label": "by descriptor"}))
        w.done(run)
        equal(ended(c, task)["payload_bytes"], len(data))
    has_at_most(eqd, eqd.descriptors + 3) # the two connections, and the process of the worker


@test()
def the_file_position_and_holes_do_not_matter(eqd):
    c = worker_queue(eqd)
    w = Worker(eqd, "w")
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.truncate(fd, PAYLOAD_MAX)
    os.pwrite(fd, b"end", PAYLOAD_MAX - 3)
    os.lseek(fd, 1000, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL)
    submit_fd(c, fd)
    os.close(fd)
    equal(w.next().payload, bytes(PAYLOAD_MAX - 3) + b"end")


@test()
def a_command_reads_it_as_standard_input(eqd):
    with eqd.connect() as c:
        task = submit_memfd(c, b"one\ntwo\n" * 20000, "default", argv=["wc", "-l"])
        ended(c, task)
        equal(c.call("logs", task)["chunks"][0][1].strip(), b"40000")


@test()
def what_is_no_sealed_memfd_is_refused_and_the_connection_goes_on(eqd):
    c = worker_queue(eqd)
    for seals in (0, WRITE, WRITE | SHRINK, WRITE | GROW, SHRINK | GROW, FUTURE_WRITE | SHRINK | GROW):
        fd = memfd(b"x", seals)
        refused(c, INVALID, ["payload_fd", "F_SEAL_WRITE"], "w", None, fds=[fd])
        os.close(fd)
    read_end, write_end = os.pipe()
    null, plain = os.open("/dev/null", os.O_RDONLY), os.open(eqd.dir / "work/plain", os.O_RDWR | os.O_CREAT)
    ours, theirs = socket.socketpair()
    for fd in (read_end, null, plain, ours.fileno()):
        refused(c, INVALID, ["payload_fd", "memfd"], "w", None, fds=[fd])
    for fd in (read_end, write_end, null, plain):
        os.close(fd)
    ours.close(), theirs.close()
    fd = memfd(bytes(PAYLOAD_MAX + 1))
    refused(c, TOO_LARGE, ["payload_fd", str(PAYLOAD_MAX + 1), str(PAYLOAD_MAX)], "w", None, fds=[fd])
    os.close(fd)
    refused(c, INVALID, "no descriptor", "w", None)
    fd = memfd(b"x")
    refused(c, INVALID, "payload in the message", "w", b"both", fds=[fd])
    refused(c, INVALID, "stdin_fd", "default", None, fds=[fd, fd], argv=["cat"], stdin_fd=True)
    try:
        c.call("submit_many", "w", [b"x", {"payload_fd": True}], fds=[fd])
        raise AssertionError("a batch took a descriptor")
    except RpcError as e:
        equal(e.code, INVALID)
        contains(e.text, "task 2", "payload_fd")
    os.close(fd)
    equal(c.call("list"), [])
    has_at_most(eqd, eqd.descriptors + 1)


@test()
def of_several_descriptors_the_first_is_taken_and_the_others_are_closed(eqd):
    c = worker_queue(eqd, "w", "max_active=1000")
    w = Worker(eqd, "w", credit=1000)
    fds = [memfd(b"%d" % i) for i in range(64)]
    for n in (1, 2, 4, 5, 64):
        c.call("submit", "w", None, fds=fds[:n], payload_fd=True)
        equal(w.next().payload, b"0")
    for fd in fds:
        os.close(fd)
    has_at_most(eqd, eqd.descriptors + 3)


@test()
def pipelined_submits_keep_their_own_descriptors(eqd):
    c = worker_queue(eqd, "w", "max_active=1000")
    w = Worker(eqd, "w", credit=1000)
    for i in range(300): # more than the kernel puts into one read
        if i % 3:
            c.send("submit", "w", b"%d" % i)
        else:
            fd = memfd(b"%d" % i)
            c.send("submit", "w", None, fds=[fd], payload_fd=True)
            os.close(fd)
    equal([w.next().payload for _ in range(300)], [b"%d" % i for i in range(300)])


@test()
def a_submit_that_waits_for_space_keeps_its_descriptor_and_no_longer(eqd):
    c = worker_queue(eqd, "w", "max_tasks=1")
    w, blocked, gone = Worker(eqd, "w"), eqd.connect(), eqd.connect()
    first = w_run(c, w)
    submit(c, b"fills it")
    before = eqd.count_fds()
    for rpc, data in ((blocked, BIG), (gone, b"never")):
        fd = memfd(data)
        msgid = rpc.send("submit", "w", None, fds=[fd], payload_fd=True, block_usec=60 * 10**6)
        os.close(fd)
        rpc.call("ping")
        if rpc is blocked:
            wanted = msgid
    has_descriptors(eqd, before + 2)
    gone.close()
    has_descriptors(eqd, before)
    w.done(first)
    w.done(w.next())
    equal(blocked.reply(wanted)[1], 3)
    equal(w.next().payload, BIG)
    has_descriptors(eqd, before - 1) # one connection and one descriptor less


def w_run(c, w):
    submit(c, b"at work")
    return w.next()


@test()
def clients_that_vanish_leave_no_descriptor(eqd):
    c = worker_queue(eqd)
    for cut in range(1, 40, 3):
        fd = memfd(b"x")
        with eqd.connect() as other:
            message = b"\x94\x00\x01\xa6submit\x93\xa1w\xc0\x81\xaapayload_fd\xc3"
            socket.send_fds(other.sock, [message[:cut]], [fd] * 4)
        os.close(fd)
    c.call("ping")
    has_at_most(eqd, eqd.descriptors + 1)


# ---- durable ----

@test()
def the_bytes_are_in_the_log_and_survive_kill_9(eqd):
    c = worker_queue(eqd, "w", "durable=yes")
    tasks = [submit_memfd(c, BIG + b"%d" % i) for i in range(3)]
    w = FdWorker(eqd, "w")
    equal(w.next().payload, BIG + b"0")
    crash(eqd)
    c = eqd.connect()
    for kind in (Worker, FdWorker, Worker):
        w = kind(eqd, "w")
        run = w.next()
        equal(run.id, tasks[0], "in order")
        equal(run.payload, BIG + b"%d" % (tasks.pop(0)[1] - 1))
        w.done(run)
        ended(c, run.id)
        w.vanish() # with the next one at hand


# ---- to workers ----

@test()
def workers_that_take_descriptors_get_large_payloads_so_and_others_do_not(eqd):
    c = worker_queue(eqd)
    by_fd, by_bytes = FdWorker(eqd, "w"), Worker(eqd, "w")
    for data in (b"", b"small", bytes(FD_MIN), os.urandom(FD_MIN + 1), BIG, os.urandom(PAYLOAD_MAX)):
        for w in (by_fd, by_bytes):
            n = by_fd.n_fds
            task = submit(c, data)
            w.rpc.receive()
            run = w.next()
            equal((run.id, run.payload), (task, data))
            equal(by_fd.n_fds - n, w is by_fd and len(data) > FD_MIN)
            w.done(run)
            ended(c, task)
    has_at_most(eqd, eqd.descriptors + 5) # nothing but the connections, and the processes of the workers


@test()
def at_most_eight_are_unanswered_and_what_is_more_comes_as_bytes(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = FdWorker(eqd, "w", credit=100)
    for i in range(20):
        submit(c, BIG + b"%d" % i)
    runs = [w.next() for _ in range(20)]
    equal([r.payload for r in runs], [BIG + b"%d" % i for i in range(20)])
    equal(w.n_fds, FDS_PER_WORKER)
    for run in runs[:3]:
        w.done(run)
        ended(c, run.id)
    for i in range(5):
        submit(c, BIG)
        equal(w.next().payload, BIG)
    equal(w.n_fds, FDS_PER_WORKER + 3)


@test()
def a_lease_that_is_lost_gives_the_same_bytes_to_the_next_worker(eqd):
    c = worker_queue(eqd, "w", "max_active=100", "max_crashes=1000")
    for i in range(12):
        submit(c, BIG + b"%d" % i)
    before = eqd.count_fds()
    for attempt in (1, 2, 3):
        w = FdWorker(eqd, "w", credit=12, parallel=1)
        runs = [w.next() for _ in range(attempt)] # the others are never read
        equal([(r.attempt, r.payload) for r in runs], [(attempt, BIG + b"%d" % i) for i in range(attempt)])
        w.vanish()
        eventually(lambda: c.call("worker_list") == [], "it is gone")
        has_descriptors(eqd, before)
    w = Worker(eqd, "w", credit=12)
    equal([w.next().payload for _ in range(12)], [BIG + b"%d" % i for i in range(12)])


@test()
def a_worker_that_does_not_read_costs_no_more_than_its_descriptors(eqd):
    c = worker_queue(eqd, "w", "max_active=1000", "durable=no")
    w = FdWorker(eqd, "w", credit=1000)
    before = eqd.count_fds()
    for i in range(50):
        submit(c, os.urandom(PAYLOAD_MAX))
    row = next(r for r in c.call("worker_list") if r["worker"] == w.number)
    equal(row["state"], "blocked")
    has_at_most(eqd, before + FDS_PER_WORKER)
    equal(row["unread_bytes"] < 3 * PAYLOAD_MAX, True, str(row))
    for _ in range(50):
        w.done(w.next())
    has_descriptors(eqd, before)
    equal(w.n_fds >= FDS_PER_WORKER, True)


@test(env={"ASAN_OPTIONS": "quarantine_size_mb=1:thread_local_quarantine_size_kb=64"}) # freed memory is used again
def a_thousand_of_them_leave_no_descriptor_and_no_memory(eqd):
    c = worker_queue(eqd, "w", "max_active=100", "history=10", "durable=no")
    w = FdWorker(eqd, "w", credit=4)
    before = rss = None
    for i in range(1000):
        data = BIG[i:i + 140000]
        task = submit_memfd(c, data)
        run = w.next()
        equal((run.id, run.payload == data), (task, True))
        w.done(run)
        if i == 200:
            ended(c, task)
            before, rss = eqd.count_fds(), c.call("stat")["rss_kib"]
    ended(c, task)
    equal(w.n_fds, 1000)
    has_at_most(eqd, before)
    equal(c.call("stat")["rss_kib"] - rss < 8192, True, f"{c.call('stat')['rss_kib'] - rss} KiB more")


# ---- libeq ----

@test()
def libeq_does_it_by_itself_in_both_directions(eqd):
    worker_queue(eqd)
    sizes = (10, FD_MIN, FD_MIN + 1, 300000, PAYLOAD_MAX, PAYLOAD_MAX)
    r = subprocess.run([BUILD / "tests/system/largepayload", "w", *map(str, sizes)], text=True, capture_output=True,
                       env=eqd.environment(EQD_SOCKET=str(eqd.socket)), timeout=100)
    equal((r.returncode, r.stderr), (0, ""))
    equal(r.stdout.splitlines(), [*(f"{n} {int(n > FD_MIN)}" for n in sizes), "END 0"], "which came as a mapping")


main()
