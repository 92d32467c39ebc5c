#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tasks over several queues: each at its place in all of them, and alone in all while it runs."""

import os
import random

from eqdtest import RpcError, contains, equal, eventually, main, test
from ends import crash, restart
from workerkit import Worker, worker_queue


def queues(eqd, *names, attributes=()):
    for name in names:
        eqd.ok("queue", "create", name, *attributes)


def order(eqd):
    path = eqd.dir / "work/order"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def gate(eqd, queue):
    """A task that runs until it is opened."""
    fifo = eqd.dir / "work" / f"gate-{queue}"
    os.mkfifo(fifo)
    os.chmod(fifo, 0o666)
    task = eqd.sh(f"echo begun {queue} >>work/order; read line <{fifo}; echo done {queue} >>work/order", "-q", queue)
    eventually(lambda: f"begun {queue}" in order(eqd), f"{task} has begun") # RUNNING says only that it has a process
    return task, lambda: fifo.write_text("go\n")


@test()
def it_starts_when_all_before_it_has_ended_and_the_rest_comes_after_it(eqd):
    queues(eqd, "a", "b", "c")
    _, open_a = gate(eqd, "a")
    _, open_b = gate(eqd, "b")
    both = eqd.sh("echo barrier >>work/order", "-q", "a,b,c")
    equal(both, "a/2")
    behind = [eqd.sh(f"echo after {q} >>work/order", "-q", q) for q in "abc"]
    contains(eqd.ok("why", both), "serial")
    contains(eqd.ok("why", behind[2]), "a/2 comes first", "waits for queue a")
    equal(eqd.show(behind[2])["reason"], "barrier")
    equal(eqd.show(both)["also"], ["b", "c"])
    eqd.fails(66, "why", "c/1", says="its id is a/2")
    open_a()
    eqd.ends_as("a/1", "DONE")
    equal(eqd.show(both)["reason"], "barrier")
    contains(eqd.ok("why", both), "b/1 is before it in queue b")
    contains(eqd.ok("queue", "show", "c"), "barrier")
    open_b()
    eqd.wait(both, *behind)
    got = order(eqd)
    equal(got[:5], ["begun a", "begun b", "done a", "done b", "barrier"])
    equal(sorted(got[5:]), ["after a", "after b", "after c"])


@test()
def while_it_runs_its_queues_stand_still(eqd):
    queues(eqd, "a", "b", attributes=["max_active=4"])
    fifo = eqd.dir / "work/gate"
    os.mkfifo(fifo)
    held = eqd.sh(f"read line <{fifo}", "-q", "b,a")
    eqd.until_state(held, "RUNNING")
    behind, urgent = eqd.sh("true", "-q", "a"), eqd.sh("true", "-q", "b", "--urgent")
    equal([eqd.show(t)["reason"] for t in (behind, urgent)], ["barrier", "barrier"])
    contains(eqd.ok("why", behind), "b/1 comes first, and holds this queue until it has ended")
    fifo.write_text("go\n")
    for t in (held, behind, urgent):
        eqd.ends_as(t, "DONE")


@test()
def overlapping_ones_from_many_clients_all_end_and_never_overlap(eqd):
    names = ["a", "b", "c", "d"]
    queues(eqd, *names)
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    clients = [eqd.connect() for _ in range(4)]
    work = eqd.dir / "work"
    n, submitted = 120, {}
    for i in range(n):
        over = dice.sample(names, dice.choice([1, 1, 2, 3]))
        script = (f"for q in {' '.join(over)}; do mkdir {work}/lock-$q || echo overlap $q >>{work}/bad; done;"
                  f"for q in {' '.join(over)}; do echo {i} >>{work}/in-$q; rmdir {work}/lock-$q; done")
        options = {"argv": ["/bin/sh", "-c", script], "urgent": False}
        if len(over) > 1:
            options["also"] = over[1:]
        task = dice.choice(clients).call("submit", over[0], b"", **options)
        submitted[i] = over
    for name in names:
        eqd.ok("queue", "flush", name)
    if (work / "bad").exists():
        raise AssertionError(f"seed {seed}: {(work / 'bad').read_text()}")
    for name in names:
        want = [i for i in range(n) if name in submitted[i]]
        equal([int(line) for line in (work / f"in-{name}").read_text().split()], want, f"seed {seed}, queue {name}")


@test()
def canceled_while_it_waits_it_lets_all_go(eqd):
    queues(eqd, "a", "b")
    _, open_a = gate(eqd, "a")
    both = eqd.sh("true", "-q", "a,b")
    behind = eqd.sh("true", "-q", "b")
    equal(eqd.show(behind)["state"], "QUEUED")
    eqd.ok("cancel", both)
    eqd.ends_as(behind, "DONE")
    open_a()
    eqd.ends_as("a/1", "DONE")
    fifo = eqd.dir / "work/gate"
    os.mkfifo(fifo)
    running = eqd.sh(f"read line <{fifo}", "-q", "a,b")
    eqd.until_state(running, "RUNNING")
    behind = eqd.sh("true", "-q", "b")
    eqd.ok("cancel", "--running", running)
    eqd.ends_as(running, "CANCELED")
    eqd.ends_as(behind, "DONE")


@test()
def a_failure_is_retried_at_its_places(eqd):
    queues(eqd, "a", "b")
    both = eqd.sh("echo try $EQD_ATTEMPT >>work/order; [ $EQD_ATTEMPT = 2 ]", "-q", "a,b", "--retries", "1", "--backoff",
                  "10ms")
    behind = eqd.sh("echo behind >>work/order", "-q", "b")
    eqd.ends_as(both, "DONE", attempt=2)
    eqd.ends_as(behind, "DONE")
    equal(order(eqd), ["try 1", "try 2", "behind"])
    failed = eqd.sh("[ -e work/flag ]", "-q", "a,b")
    eqd.ends_as(failed, "FAILED")
    (eqd.dir / "work/flag").touch()
    eqd.ok("retry", failed)
    eqd.ends_as(failed, "DONE")


@test()
def held_and_paused_it_waits(eqd):
    queues(eqd, "a", "b")
    held = eqd.sh("true", "-q", "a,b", "--hold")
    eqd.ends_as(eqd.sh("true", "-q", "b"), "DONE")
    eqd.ok("release", held)
    eqd.ends_as(held, "DONE")
    eqd.ok("queue", "pause", "b")
    both = eqd.sh("true", "-q", "a,b")
    contains(eqd.ok("why", both), "queue b is paused")
    eqd.ok("queue", "resume", "b")
    eqd.ends_as(both, "DONE")


@test()
def the_removal_of_any_of_its_queues_ends_it(eqd):
    queues(eqd, "a", "b")
    eqd.ok("queue", "pause", "a")
    both = eqd.sh("true", "-q", "a,b")
    eqd.fails(1, "queue", "rm", "b", says=["has 1 task "])
    eqd.ok("queue", "rm", "--yes", "b")
    shown = eqd.ends_as(both, "CANCELED")
    contains(shown["detail"], "removed")
    queues(eqd, "c")
    eqd.ok("queue", "resume", "a")
    fifo = eqd.dir / "work/gate"
    os.mkfifo(fifo)
    running = eqd.sh(f"read line <{fifo}", "-q", "a,c")
    eqd.until_state(running, "RUNNING")
    eqd.ok("queue", "rm", "--yes", "c")
    eqd.ends_as(running, "CANCELED")
    eqd.ends_as(eqd.sh("true", "-q", "a"), "DONE")


def survives(eqd, end):
    names = ["a", "b", "c"]
    queues(eqd, *names)
    for name in names:
        eqd.ok("queue", "pause", name)
    first = [eqd.sh(f"echo 1 {q} >>work/order-{q}", "-q", q) for q in names]
    both = eqd.sh("for q in a b c; do echo barrier >>work/order-$q; done", "-q", "b,c,a")
    equal(both, "b/2")
    last = [eqd.sh(f"echo 3 {q} >>work/order-{q}", "-q", q) for q in names]
    equal(last, ["a/3", "b/3", "c/3"])
    gone = eqd.sh("true", "-q", "c,a")
    eqd.ok("cancel", gone)
    end(eqd)
    end(eqd)
    equal(eqd.show(both)["also"], ["c", "a"])
    equal(eqd.sh("true", "-q", "a"), "a/5") # numbers of places are not given again
    for name in ("a", "c", "b"):
        eqd.ok("queue", "resume", name)
    for task in (*first, both, *last):
        eqd.ends_as(task, "DONE", attempt=1)
    for q in names:
        equal((eqd.dir / f"work/order-{q}").read_text().splitlines(), [f"1 {q}", "barrier", f"3 {q}"])
    end(eqd)
    eqd.ok("retry", gone) # it knows its places
    eqd.ends_as(gone, "DONE")


@test()
def a_durable_one_survives_kill_9_at_its_places(eqd):
    survives(eqd, crash)


@test(config={"eqd.conf": "[Queue]\nDurable=no\n"})
def one_in_memory_survives_a_restart_at_its_places(eqd):
    survives(eqd, restart)


@test()
def killed_while_it_ran_it_runs_again_before_what_is_behind_it(eqd):
    queues(eqd, "a", "b")
    both = eqd.sh("echo try $EQD_ATTEMPT >>work/order; [ $EQD_ATTEMPT = 2 ] || exec sleep 1000", "-q", "a,b")
    eqd.until_state(both, "RUNNING")
    behind = eqd.sh("echo behind >>work/order", "-q", "b")
    crash(eqd)
    eqd.ends_as(both, "DONE", attempt=2)
    eqd.ends_as(behind, "DONE")
    equal(order(eqd)[-2:], ["try 2", "behind"])


@test()
def a_full_queue_of_several_is_waited_for_or_refuses(eqd):
    queues(eqd, "a", "b")
    eqd.ok("queue", "set", "b", "max_tasks=1")
    _, open_b = gate(eqd, "b")
    waiting = eqd.sh("true", "-q", "b")
    eqd.fails(75, "submit", "-q", "a,b", "--", "true", says=["queue b is full"])
    equal(eqd.queue("a")["queued"], 0)
    with eqd.connect() as client:
        msgid = client.send("submit", "a", b"", argv=["/bin/true"], also=["b"], block_usec=60_000_000)
        client.call("ping")
        open_b()
        seq = client.reply(msgid)[1]
        eqd.ends_as(f"a/{seq}", "DONE")
    eqd.ends_as(waiting, "DONE")


@test()
def wrong_ones_are_refused_with_a_word(eqd):
    queues(eqd, "a", "b")
    queues(eqd, "m", attributes=["durable=no"])
    eqd.fails(2, "submit", "-q", "a,,b", "--", "true", says=["`` is no name of a queue"])
    eqd.fails(2, "submit", "-q", "a,b", "--array", "1-3", "--", "true", says=["submitted alone"])
    for bad, says in (("a,nosuch", "nosuch"), ("a,b,a", "named twice"), ("a,b,b", "named twice"), ("a,m", "all of one kind")):
        p = eqd.ctl("submit", "-q", bad, "--", "true")
        if p.rc == 0:
            raise AssertionError(f"{bad} was accepted")
        contains(p.err, says)
    with eqd.connect() as client:
        for method, params, options in (
                ("submit", ["a", b""], {"argv": ["/bin/true"], "also": ["b"] * 16}),
                ("submit_many", ["a", [{"argv": ["/bin/true"], "also": ["b"]}, b""]], {}),
                ("submit", ["a", b""], {"argv": ["/bin/true"], "also": "b"})):
            try:
                client.call(method, *params, **options)
            except RpcError as e:
                contains(str(e), "also")
            else:
                raise AssertionError("it was accepted")
    for name in "abm":
        shown = eqd.queue(name)
        equal((shown["queued"], shown["running"]), (0, 0))


@test(root=True, other_users=True)
def it_takes_the_right_to_submit_to_each(eqd):
    queues(eqd, "a")
    queues(eqd, "b", attributes=["allow_submit=0"])
    p = eqd.ctl("submit", "-q", "a,b", "--", "true", uid=1000)
    equal(p.rc, 77)
    contains(p.err, "may not submit to queue b")


@test()
def a_workers_task_may_hold_queues_of_commands(eqd):
    worker_queue(eqd, "w", "max_active=2")
    queues(eqd, "a")
    worker = Worker(eqd, "w", credit=8)
    task, open_a = gate(eqd, "a")
    with eqd.connect() as client:
        one = client.call("submit", "w", b"before")
        both = client.call("submit", "w", b"both", also=["a"])
        after = client.call("submit", "w", b"after")
        first = worker.next()
        equal(first.payload, b"before")
        worker.nothing_comes()
        worker.done(first)
        worker.nothing_comes()
        behind = eqd.sh("true", "-q", "a")
        open_a()
        eqd.ends_as(task, "DONE")
        run = worker.next()
        equal(run.payload, b"both")
        worker.nothing_comes()
        equal(eqd.show(behind)["reason"], "barrier")
        worker.done(run)
        last = worker.next()
        equal(last.payload, b"after")
        worker.done(last)
        eqd.ends_as(behind, "DONE")


main()
