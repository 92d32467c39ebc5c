#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Durable queues that are longer than their window: what is on disk only is a task as any other, and costs little."""

import os
import signal

from eqdtest import LONG, contains, equal, eventually, main, status_fields, test
from ends import crash, orderly
from workerkit import Worker, submit, worker_queue

DEEP = 5000
SANITIZED = os.environ.get("SANITIZE", "none") not in ("", "none")


def fill(c, first, n, queue="w", size=0):
    for begin in range(first, first + n, 1000):
        tasks = [b"%d" % i + b"." * size for i in range(begin, min(begin + 1000, first + n))]
        c.call("submit_many", queue, tasks)


def deep_queue(eqd, *attributes):
    """w, paused, with the tasks 1 ... DEEP."""
    c = worker_queue(eqd, "w", "history=100000", *attributes)
    eqd.ok("queue", "pause", "w")
    fill(c, 1, DEEP)
    return c


def run_all(eqd, wanted):
    """A worker runs what is there; it must come in this order."""
    if eqd.queue("w")["state"] == "paused":
        eqd.ok("queue", "resume", "w")
    w = Worker(eqd, "w", credit=100)
    for seq in wanted:
        run = w.next()
        equal((run.id[1], run.payload.rstrip(b".")), (seq, b"%d" % seq))
        w.done(run)
    eqd.ends_as(f"w/{seq}", "DONE")
    w.vanish()


@test()
def after_kill_9_all_of_them_are_there_and_run_in_order(eqd):
    deep_queue(eqd)
    for end in (crash, orderly, crash):
        end(eqd)
        shown = eqd.queue("w")
        equal((shown["state"], shown["queued"], shown["last_seq"]), ("paused", DEEP, DEEP))
    fill(eqd.connect(), DEEP + 1, 10)
    run_all(eqd, range(1, DEEP + 11))
    shown = eqd.queue("w")
    equal((shown["queued"], shown["running"], shown["bytes"]), (0, 0, 0))


@test()
def single_ones_are_shown_canceled_held_retried_and_waited_for(eqd):
    c = deep_queue(eqd)
    for _ in range(2):
        shown = eqd.show("w/4000")
        equal((shown["state"], shown["uid"], shown["attempt"]), ("QUEUED", os.getuid(), 0))
        contains(eqd.ok("why", "w/4001"), "paused")
        equal(eqd.ok("logs", "w/4002"), "")
        crash(eqd)
        c = eqd.connect()
    eqd.ok("cancel", "w/4000")
    equal(eqd.wait("w/4000")["state"], "CANCELED")
    eqd.ok("hold", "w/4100")
    after = submit(c, b"%d" % (DEEP + 1), after_ok=["w/4200"])
    never = submit(c, b"", after_ok=["w/4000"])
    equal(eqd.wait(f"w/{never[1]}")["reason"], "deps-never")
    crash(eqd)
    equal(eqd.show("w/4000")["state"], "CANCELED")
    equal(eqd.show("w/4100")["reason"], "held")
    equal(eqd.show(f"w/{after[1]}")["reason"], "after")
    eqd.fails(66, "show", "w/9999")
    with eqd.connect() as waiter:
        waits = waiter.send("wait", ["w/3000"])
        waiter.call("show", ["w/3000"]) # it was read, and is waited for
        run_all(eqd, [i for i in range(1, DEEP + 2) if i not in (4000, 4100)])
        equal([t["state"] for t in waiter.reply(waits)], ["DONE"])
    eqd.ok("release", "w/4100")
    run_all(eqd, [4100])
    eqd.ok("retry", "w/4000")
    run_all(eqd, [4000])


@test()
def what_one_client_sends_is_done_in_its_order(eqd):
    deep_queue(eqd)
    crash(eqd)
    c = eqd.connect()
    # The first has to be read from the disk before the second may be given a number.
    ids = [c.send("submit", "w", b"first", after_any=["w/4500"]), c.send("submit", "w", b"second"),
           c.send("cancel", ["w/4400"]), c.send("show", ["w/4400", "w/4401"]),
           c.send("submit_many", "w", [{"payload": b"third", "after_any": ["w/4402"]}]), c.send("ping")]
    first, second, canceled, shown, third, _ = [c.reply(i) for i in ids]
    equal((first[1], second[1], third["first"][1]), (DEEP + 1, DEEP + 2, DEEP + 3))
    equal(canceled, [0])
    contains(["WAITING", "CANCELED"], shown[0]["state"]) # the former until its end is on disk
    equal(shown[1]["state"], "QUEUED")
    # One that goes away while its request waits for the disk is no trouble.
    for method in ("show", "cancel", "wait"):
        gone = eqd.connect()
        gone.send(method, [f"w/{i}" for i in range(2000, 2020)])
        gone.close()
    gone = eqd.connect()
    gone.send("list", queue="w")
    gone.close()
    equal(eqd.show("w/2100")["state"], "QUEUED")


@test()
def lists_show_all_of_them_with_what_they_are(eqd):
    eqd.ok("queue", "create", "q")
    eqd.ok("queue", "pause", "q")
    c = eqd.connect()
    for begin in range(0, 3000, 1000):
        c.call("submit_many", "q", [{"argv": ["true"], "label": f"label-{i}"} for i in range(begin, begin + 1000)])
    for _ in range(2):
        rows = eqd.ls("-q", "q")
        equal([(t["id"], t["label"]) for t in rows], [(f"q/{i + 1}", f"label-{i}") for i in range(3000)])
        equal([t["id"] for t in eqd.ls("-q", "q", "--label", "label-2345")], ["q/2346"])
        equal(eqd.ls("-q", "q", "-s", "RUNNING"), [])
        crash(eqd)
        c = eqd.connect()
    eqd.ok("cancel", "q/2")
    equal(len(eqd.ls("-q", "q", "-s", "QUEUED")), 2999)


@test()
def a_queue_that_is_removed_takes_them_with_it(eqd):
    deep_queue(eqd)
    crash(eqd)
    eqd.ok("queue", "rm", "w", "--yes")
    equal([q["name"] for q in eqd.connect().call("queue_list") if q["name"] == "w"], [])
    crash(eqd)
    worker_queue(eqd, "w")
    equal(submit(eqd.connect(), b"")[1], DEEP + 1)


@test()
def a_damaged_one_fails_when_its_turn_comes_and_the_rest_runs(eqd):
    deep_queue(eqd)
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(60, -signal.SIGKILL)
    eqd.forget()
    eqd.start() # seals the log, whose hint is not made from it again at the next
    log = sorted((eqd.dir / "state/store").glob("log-*"))[0]
    data = log.read_bytes()
    at = data.index(b"4321")
    equal(data.count(b"4321"), 1)
    with open(log, "r+b") as f:
        f.seek(at)
        f.write(b"4x21")
    run_all(eqd, [i for i in range(1, DEEP + 1) if i != 4321])
    shown = eqd.show("w/4321")
    equal((shown["state"], shown["reason"], shown["attempt"]), ("FAILED", "lost", 0))
    contains(eqd.ok("why", "w/4321"), "is damaged")
    eqd.fails(1, "show", "--payload", "w/4321", says="w/4321: its payload is not there")
    equal(eqd.ok("show", "--payload", "w/4320"), "4320")
    eqd.has_logged("are damaged and left out")
    equal(len(list((eqd.dir / "state/store").glob("damaged-*"))), 1)
    crash(eqd)
    equal(eqd.show("w/4321")["state"], "FAILED")
    eqd.fails(1, "retry", "w/4321")


@test(seconds=3600 if LONG else 300)
def one_costs_32_bytes_of_memory_at_most(eqd):
    """And ten million, with EQD_LONG=1, 250 megabytes in all, whether they were just taken or were there when eqd began."""
    os.environ.pop("MALLOC_PERTURB_", None) # meson's: it writes to what nobody has asked for yet
    few, many = 100_000, 110_000 if SANITIZED else 10_000_000 if LONG else 1_100_000 # what else varies is a few megabytes
    c = worker_queue(eqd, "w", "max_tasks=20000000", "max_bytes=10G")
    eqd.ok("queue", "pause", "w")

    def memory(field="RssAnon"):
        return int(status_fields(eqd.pid)[field].split()[0]) * 1024

    def memory_of_the_next():
        orderly(eqd) # after a crash a hint may be in the making, which takes memory for a moment
        return memory()
    fill(c, 1, few, size=100)
    before = memory_of_the_next()
    fill(eqd.connect(), few + 1, many - few, size=100)
    full = memory("VmRSS")
    each = (memory_of_the_next() - before) / (many - few)
    full = max(full, memory("VmRSS"))
    equal(eqd.queue("w")["queued"], many)
    print(f"# {each:.1f} bytes each, {full / 1e6:.0f} MB in all")
    if not SANITIZED:
        equal(each <= 32, True, f"{each} bytes each")
        equal(full <= 250e6, True, f"{full} bytes in all")


main()
