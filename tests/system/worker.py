#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Worker clients: leases, order, credit, answers good and bad, workers that vanish or lie, rights."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time


from ends import crash
from eqdtest import STOP_SECONDS, USER_A, USER_B, RpcError, contains, equal, eventually, main, stalls, test
import msgpack_mini
from workerkit import DENIED, INVALID, NO_LEASE, NO_WORKER, RESULT_MAX, STATE, TOO_LARGE
from workerkit import Worker, either, ended, state, submit, worker_queue

OTHER_GROUP = 61003


# ---- ordinary use ----

@test()
def a_worker_gets_the_payload_and_its_result_comes_back(eqd):
    c = worker_queue(eqd)
    task = submit(c, b"resize 7", label="cat.png", mime="text/plain")
    w = Worker(eqd, "w", name="resizer")
    run = w.next()
    equal((run.id, run.queue, run.attempt, run.payload, run.options), (task, "w", 1, b"resize 7", {"label": "cat.png", "mime": "text/plain"}))
    equal(state(c, task), "RUNNING")
    w.done(run, b"\x00\xff done")
    shown = ended(c, task)
    equal((shown["state"], shown["result"], shown["attempt"], shown["worker"]), ("DONE", b"\x00\xff done", 1, w.number))
    equal(c.call("show", [task])[0]["result"], b"\x00\xff done")
    equal("result" in c.call("list")[0], False, "list is without results")


@test()
def payloads_and_results_are_opaque(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = Worker(eqd, "w", credit=100)
    for data in (b"", b"\0", bytes(range(256)), b"\xc1" * 33, b"{\"json\": 1}", b"x" * RESULT_MAX):
        task = submit(c, data)
        run = w.next()
        equal(run.payload, data)
        w.done(run, data)
        equal(ended(c, task).get("result", b""), data)
    big = os.urandom(1 << 20)
    task = submit(c, big)
    equal(w.next().payload, big)


@test()
def every_form_of_answer_is_understood(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = Worker(eqd, "w", credit=100)
    for error, result, want in (
            (None, None, ("DONE", None, None, None)),
            (None, "text", ("DONE", b"text", None, None)),
            (None, {"attempt": 1, "result": b"r", "exit": 0}, ("DONE", b"r", 0, None)),
            ("went wrong", None, ("FAILED", None, None, "went wrong")),
            ([5, "code and text"], None, ("FAILED", None, None, "code and text")),
            ({"text": "a record", "exit": 3, "result": b"half"}, None, ("FAILED", b"half", 3, "a record"))):
        task = submit(c, b"")
        w.respond(w.next().msgid, error, result)
        shown = ended(c, task)
        equal((shown["state"], shown.get("result"), shown.get("exit"), shown.get("error")), want)


@test()
def failures_are_retried_and_end_dead(eqd):
    c = worker_queue(eqd, "w", "backoff=0")
    w = Worker(eqd, "w")
    task = submit(c, b"", retries=2)
    for attempt in (1, 2, 3):
        run = w.next()
        equal(run.attempt, attempt)
        w.fail(run, f"no {attempt}")
    shown = ended(c, task)
    equal((shown["state"], shown["attempt"], shown["error"]), ("DEAD", 3, "no 3"))

    task = submit(c, b"", retries=2)
    w.fail(w.next(), {"text": "hopeless", "final": True})
    shown = ended(c, task)
    equal((shown["state"], shown["attempt"]), ("FAILED", 1), "final: no retry")


@test()
def a_worker_says_when_the_next_attempt_comes(eqd):
    c = worker_queue(eqd, "w", "backoff=1h", "retries=1")
    w = Worker(eqd, "w")
    task = submit(c, b"")
    w.fail(w.next(), {"text": "at once", "retry_after_usec": 0}) # and not in an hour
    w.done(w.next())
    equal((ended(c, task)["state"], c.call("show", [task])[0]["attempt"]), ("DONE", 2))

    task = submit(c, b"", backoff_usec=0)
    rest = submit(c, b"behind")
    w.fail(w.next(), {"text": "later", "retry_after_usec": 3600 * 10**6})
    eventually(lambda: state(c, task) == "WAITING", "the answer to be taken")
    [shown] = c.call("show", [task])
    equal((shown["reason"], c.call("why", [rest])[0]["reason"]), ("backoff", "backoff"), "a serial queue keeps its order")
    equal(shown["eligible_usec"] >= shown["started_usec"] + 3600 * 10**6, True)
    c.call("cancel", [task])
    w.done(w.next())

    task = submit(c, b"", retries=0)
    for attempt in (1, 2, 3):
        run = w.next()
        equal(run.attempt, attempt)
        w.fail(run, {"give_back": True, "retry_after_usec": 1000}) # its credit stays, or nothing would come
    run = w.next()
    w.fail(run, "now it failed")
    shown = ended(c, task)
    equal((shown["state"], shown["attempt"], shown.get("crashes", 0)), ("FAILED", 4, 0), "no retry was used up")

    task = submit(c, b"", retries=0)
    w.fail(w.next(), {"give_back": True, "retry_after_usec": 3600 * 10**6})
    eventually(lambda: state(c, task) == "WAITING", "the task to wait")
    w.nothing_comes()


@test()
def the_time_that_a_worker_said_holds_over_a_crash_of_eqd(eqd):
    c = worker_queue(eqd, "w", "durable=yes", "max_active=2", "retries=1", "backoff=0")
    tasks, w = [submit(c, b"") for _ in range(3)], Worker(eqd, "w", credit=3)
    for answer in ({"text": "no"}, {"give_back": True}):
        w.fail(w.next(), {**answer, "retry_after_usec": 3600 * 10**6})
    w.fail(w.next(), {"give_back": True, "retry_after_usec": 2**64 - 1})
    def rows():
        return [c.call("show", [task])[0] for task in tasks]
    eventually(lambda: all(row["state"] == "WAITING" for row in rows()), "the answers to be taken")
    before = rows()
    crash(eqd)
    c, w = eqd.connect(), Worker(eqd, "w")
    for was, row in zip(before, rows()):
        equal((row["state"], row["reason"], row["attempt"], row.get("crashes", 0)), ("WAITING", "backoff", 1, 0))
        equal(abs(row["eligible_usec"] - was["eligible_usec"]) < 60 * 10**6, True) # of an hour
    w.nothing_comes()


# ---- the process behind a connection ----

CHILD = """
import os, select, sys
sys.path.insert(0, {here!r})
from eqdtest import Rpc
import msgpack_mini
rpc = Rpc({socket!r})
rpc.call("worker_serve", ["w"], credit=9, **{options!r})
if os.fork() == 0: # holds the connection and reads nothing, until it has ended for it, too
    os.setsid()
    p = select.poll()
    p.register(rpc.sock, 0)
    p.poll()
    print("end", flush=True)
    os._exit(0)
print("ready", flush=True)
for answers in iter(sys.stdin.readline, ""): # how many answers of 40000 bytes
    got = [rpc.requests.popleft() for _ in range(int(answers)) if rpc.requests or rpc.receive()]
    rpc.sock.sendall(b"".join(msgpack_mini.encode([1, r[0], None, bytes(40000)]) for r in got))
    print("answered", flush=True)
"""


class Forked:
    """A worker in a process that has a child, which has inherited the connection."""

    def __init__(self, eqd, **options):
        code = CHILD.format(here=os.path.dirname(os.path.abspath(__file__)), socket=str(eqd.socket), options=options)
        self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.says("ready")

    def says(self, what):
        equal(self.process.stdout.readline(), f"{what}\n")

    def answer(self, n):
        print(n, file=self.process.stdin, flush=True)
        self.says("answered")

    def end(self):
        """Its process ends, its child does not."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


def leases_end_with_their_process(eqd):
    c = worker_queue(eqd, "w", "max_active=9")
    forked, task = Forked(eqd), submit(c, b"")
    eventually(lambda: state(c, task) == "RUNNING", "it is sent")
    forked.end()
    w = Worker(eqd, "w")
    run = w.next()
    equal((run.id, run.attempt), (task, 2))
    forked.says("end") # the child is told that it is over
    equal(c.call("show", [task])[0]["crashes"], 1)
    w.done(run)
    equal(ended(c, task)["state"], "DONE")


@test()
def a_child_that_inherited_the_connection_does_not_keep_the_leases(eqd):
    leases_end_with_their_process(eqd)


@test(env={"EQD_FAULT": "peer:1+"})
def the_same_where_the_kernel_has_no_pidfds_of_peers(eqd):
    leases_end_with_their_process(eqd)


@test()
def a_connection_that_is_handed_on_keeps_its_leases(eqd):
    c = worker_queue(eqd, "w", "max_active=9")
    handed, task = Forked(eqd, handed_on=True), submit(c, b"")
    eventually(lambda: state(c, task) == "RUNNING", "it is sent")
    other = Forked(eqd)
    eventually(lambda: eqd.queue("w")["workers"] == 2, "both serve")
    handed.end()
    other.end()
    eventually(lambda: eqd.queue("w")["workers"] == 1, "the end of the later one is known") # so that of the first would be
    equal((state(c, task), c.call("show", [task])[0]["attempt"]), ("RUNNING", 1))
    other.says("end")
    [row] = c.call("worker_list")
    c.call("worker_kick", row["worker"])
    handed.says("end")


@test()
def what_a_process_answered_before_its_end_counts(eqd):
    c = worker_queue(eqd, "w", "max_active=9")
    forked = Forked(eqd)
    tasks = [submit(c, b"") for _ in range(4)]
    eventually(lambda: [state(c, task) for task in tasks] == ["RUNNING"] * 4, "they are sent")
    os.kill(eqd.pid, signal.SIGSTOP) # so it finds all at once: answers that it reads in two turns, and the end
    forked.answer(2)
    forked.end()
    os.kill(eqd.pid, signal.SIGCONT)
    equal([ended(c, task)["state"] for task in tasks[:2]], ["DONE"] * 2)
    w = Worker(eqd, "w", credit=9)
    equal([w.next().attempt, w.next().attempt], [2, 2])
    forked.says("end")


@test()
def who_connected_and_ended_serves_no_more_without_saying_so(eqd):
    worker_queue(eqd, "w", f"allow_serve={USER_A}")
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(eqd.socket))
        socket.send_fds(theirs, [b"x"], [s.fileno()])
        os._exit(0)
    os.waitpid(pid, 0)
    rpc = eqd.connect()
    rpc.sock.close()
    rpc.sock = socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])
    ours.close(), theirs.close()
    try:
        rpc.call("worker_serve", ["w"])
        raise AssertionError("it serves")
    except RpcError as e:
        equal(e.code, STATE)
        contains(e.text, "handed_on")
    rpc.call("worker_serve", ["w"], handed_on=True)
    equal(eqd.queue("w")["workers"], 1)


# ---- confirmation ----

@test()
def answers_are_confirmed_to_who_asked_for_it_and_once(eqd):
    c = worker_queue(eqd, "kept", "max_active=100", "backoff=0")
    worker_queue(eqd, "light", "max_active=100", "durable=no")
    w = Worker(eqd, "kept", "light", credit=100, confirm=True)
    for queue in ("kept", "light"):
        for end in (w.done, w.fail, lambda run: w.fail(run, {"give_back": True})):
            submit(c, b"", queue)
            run = w.next()
            end(run)
            equal(w.confirmed(), [(run.id, run.attempt)])
            w.rpc.call("worker_credit", 100) # what gives back has none any more
        run = w.next() # what was given back
        w.done(run)
        equal(w.confirmed(), [(run.id, run.attempt)])
        w.done(run) # once more
        equal(w.refused()[0], run.msgid)
    equal([note for note in w.rpc.notes if note[0] == "run_confirmed"], [], "each once, and none of what was refused")

    quiet = Worker(eqd, "kept")
    w.rpc.call("worker_credit", 0)
    submit(c, b"", "kept")
    quiet.done(quiet.next())
    quiet.rpc.call("worker_leave")
    equal(list(quiet.rpc.notes), [], "nobody asked")


@test()
def confirmations_of_one_turn_are_one_message(eqd):
    c = worker_queue(eqd, "light", "max_active=100", "durable=no")
    w = Worker(eqd, "light", credit=100, confirm=True)
    for _ in range(20):
        submit(c, b"", "light")
    runs = [w.next() for _ in range(20)]
    w.rpc.sock.sendall(b"".join(msgpack_mini.encode([1, run.msgid, None, None]) for run in runs))
    got = w.confirmed()
    equal(got, [(run.id, run.attempt) for run in runs][:len(got)])
    equal(len(got), 20, "they came in one piece")


@test()
def the_answer_to_leave_comes_behind_the_confirmations(eqd):
    c = worker_queue(eqd, "kept", "max_active=100")
    for _ in range(20): # with an answer on its way to the disk, and without
        w = Worker(eqd, "kept", credit=2, confirm=True)
        submit(c, b"", "kept")
        run = w.next()
        leave = w.rpc.send("worker_leave")
        w.done(run)
        while leave not in w.rpc.replies:
            w.rpc.receive()
        equal([params for method, params in w.rpc.notes], [[[[run.id, run.attempt]]]])
        equal(w.rpc.reply(leave), None)


# ---- order and credit ----

@test()
def a_serial_queue_is_serial_however_many_workers_it_has(eqd):
    c = worker_queue(eqd)
    workers = [Worker(eqd, "w", credit=10) for _ in range(4)]
    tasks = [submit(c, b"%d" % i) for i in range(40)]
    got = []
    while len(got) < 40:
        w = either(*workers)
        run = w.next()
        for each in workers:
            each.nothing_comes()
        got.append(int(run.payload))
        w.done(run)
        ended(c, tasks[got[-1]])
    equal(got, list(range(40)))


@test()
def the_answer_to_serve_comes_before_the_first_task(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    submit(c, b"1"), submit(c, b"2")
    rpc = eqd.connect()
    for msgid in (rpc.send("worker_serve", ["w"]), rpc.send("worker_credit", 2)):
        rpc.receive()
        equal(list(rpc.replies), [msgid], "the first message is the answer")
        rpc.reply(msgid)
        rpc.receive()
        equal(len(rpc.requests), 1, "the second is a task")
        rpc.requests.clear()


@test()
def dump_shows_who_has_a_task_and_which_of_its_tasks_it_has_not_come_to(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    w = Worker(eqd, "w", credit=2, parallel=1)
    first, second = submit(c, b"1"), submit(c, b"2")
    w.next(), w.next()
    rows = {row["id"]: row for row in map(json.loads, eqd.ok("dump", "--json").splitlines()) if "id" in row}
    one, two = (rows[f"w/{task[1]}"] for task in (first, second))
    equal((one["pid"], one["process"] in "RS", "run_usec" in one, "tid" in one), (os.getpid(), True, True, False), str(one))
    equal(("claimed_usec" in two, "run_usec" in two, "pid" in two), (True, False, False), str(two))


@test()
def credit_bounds_what_a_worker_has(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = Worker(eqd, "w", credit=3)
    tasks = [submit(c, b"%d" % i) for i in range(10)]
    runs = [w.next() for _ in range(3)]
    w.nothing_comes()
    equal([r.payload for r in runs], [b"0", b"1", b"2"])
    equal((w.row()["state"], w.row()["in_flight"], w.row()["oldest"]), ("full", 3, tasks[0]))
    why = c.call("why", [tasks[3]])[0]
    equal(why["reason"], "pool-full")
    contains(why["detail"], "as they take, 1 in all", "worker ls")
    w.done(runs[1])
    equal(w.next().payload, b"3")
    w.nothing_comes()
    w.rpc.call("worker_credit", 0)
    w.done(runs[0])
    ended(c, tasks[0])
    w.nothing_comes()
    w.rpc.call("worker_credit", 5)
    equal([w.next().payload for _ in range(3)], [b"4", b"5", b"6"])


@test()
def a_rate_bounds_what_workers_are_sent_and_an_answer_that_they_lost_it_counts_too(eqd):
    c = worker_queue(eqd, "w", "max_active=100", "rate=1/1h", "rate_burst=2")
    tasks = [submit(c, b"x", retries=1) for _ in range(4)]
    w = Worker(eqd, "w", credit=100)
    w.fail(w.next())
    w.done(w.next())
    w.nothing_comes()
    equal([c.call("why", [t])[0]["reason"] for t in tasks[2:]], ["rate"] * 2)
    c.call("queue_set", "w", set=["rate=infinity"])
    for run in sorted((w.next() for _ in range(3)), key=lambda run: run.id):
        w.done(run)
    equal([(ended(c, t)["state"], ended(c, t)["attempt"]) for t in tasks], [("DONE", 2), ("DONE", 1), ("DONE", 1), ("DONE", 1)])


@test()
def tasks_go_to_idle_workers_before_they_wait_in_a_busy_one(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    a, b = Worker(eqd, "w", credit=10, parallel=1), Worker(eqd, "w", credit=10, parallel=1)
    submit(c, b"0")
    submit(c, b"1")
    first, second = a.next(), b.next()
    equal({first.payload, second.payload}, {b"0", b"1"})
    b.done(second)
    ended(c, second.id)
    submit(c, b"2")
    equal(b.next().payload, b"2", "b is idle, a is not")
    submit(c, b"3")
    equal(either(a, b).next().payload, b"3", "now it waits in one of them")


@test()
def a_queue_without_worker_says_so(eqd):
    c = worker_queue(eqd)
    task = submit(c, b"")
    equal(state(c, task), "QUEUED")
    why = c.call("why", [task])[0]
    equal(why["reason"], "no-worker")
    contains(why["detail"], "eqctl worker run -q w")
    equal(eqd.queue("w")["workers"], 0)
    equal(eqd.queue("w")["reason"], "no-worker")
    w = Worker(eqd, "w")
    equal(w.next().id, task)
    equal(eqd.queue("w")["workers"], 1)
    w.vanish()
    eventually(lambda: eqd.queue("w")["workers"] == 0, "the worker is gone")
    equal(c.call("why", [task])[0]["reason"], "no-worker")


@test()
def one_worker_serves_several_queues(eqd):
    c = worker_queue(eqd, "a")
    worker_queue(eqd, "b")
    w = Worker(eqd, "a", "b", credit=2)
    submit(c, b"1", "a"), submit(c, b"2", "a"), submit(c, b"3", "b")
    runs = {r.queue: r for r in (w.next(), w.next())}
    equal({q: r.payload for q, r in runs.items()}, {"a": b"1", "b": b"3"})
    w.done(runs["a"])
    equal(w.next().payload, b"2")
    eqd.ok("queue", "rm", "--yes", "b")
    w.nothing_comes()
    equal(w.row()["queues"], ["a"])


# ---- ends of connections ----

@test()
def tasks_of_a_vanished_worker_return_to_their_places_at_once(eqd):
    c = worker_queue(eqd, "w", "max_active=3")
    tasks = [submit(c, b"%d" % i) for i in range(6)]
    a = Worker(eqd, "w", credit=3)
    equal([a.next().payload for _ in range(3)], [b"0", b"1", b"2"])
    b = Worker(eqd, "w", credit=3)
    b.nothing_comes()
    a.vanish()
    runs = [b.next() for _ in range(3)]
    equal([(r.payload, r.attempt) for r in runs], [(b"0", 2), (b"1", 2), (b"2", 2)])
    for r in runs:
        b.done(r)
    runs = [b.next() for _ in range(3)]
    equal([(r.payload, r.attempt) for r in runs], [(b"3", 1), (b"4", 1), (b"5", 1)])
    shown = c.call("wait", tasks[:1])[0]
    equal((shown["state"], shown["crashes"]), ("DONE", 1))


@test()
def a_poison_task_ends_dead_and_its_neighbours_do_not(eqd):
    c = worker_queue(eqd, "w", "max_active=10", "max_crashes=2")
    poison, other = submit(c, b"poison"), submit(c, b"other")
    for attempt in (1, 2):
        w = Worker(eqd, "w", credit=5, parallel=1)
        equal([(r.payload, r.attempt) for r in (w.next(), w.next())], [(b"poison", attempt), (b"other", attempt)])
        w.vanish()
    shown = ended(c, poison)
    equal((shown["state"], shown["crashes"]), ("DEAD", 2))
    contains(shown["error"], "vanished")
    w = Worker(eqd, "w")
    run = w.next()
    equal((run.payload, run.attempt), (b"other", 3))
    w.fail(run)
    equal(ended(c, other)["state"], "FAILED", "no retries were configured, and none were used up")


@test()
def lost_attempts_use_up_no_retry(eqd):
    c = worker_queue(eqd, "w", "backoff=0", "max_crashes=10")
    task = submit(c, b"", retries=1)
    for _ in range(3):
        w = Worker(eqd, "w")
        w.next()
        w.vanish()
    w = Worker(eqd, "w")
    for attempt in (4, 5):
        run = w.next()
        equal(run.attempt, attempt)
        w.fail(run)
    shown = ended(c, task)
    equal((shown["state"], shown["attempt"], shown["crashes"]), ("DEAD", 5, 3))


@test()
def answers_sent_before_the_end_count(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    tasks = [submit(c, b"%d" % i) for i in range(5)]
    w = Worker(eqd, "w", credit=5)
    runs = [w.next() for _ in range(5)]
    for r in runs[:3]:
        w.done(r, b"ok")
    w.vanish()
    equal([ended(c, t)["state"] for t in tasks[:3]], ["DONE"] * 3)
    w = Worker(eqd, "w", credit=5)
    equal([w.next().payload for _ in range(2)], [b"3", b"4"])


@test()
def a_worker_leaves_when_it_has_answered(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    w = Worker(eqd, "w", credit=2)
    submit(c, b"1"), submit(c, b"2"), submit(c, b"3")
    runs = [w.next(), w.next()]
    leave = w.rpc.send("worker_leave")
    w.nothing_comes()
    equal(w.row()["state"], "leaving")
    w.done(runs[0])
    w.nothing_comes()
    equal(leave in w.rpc.replies, False)
    w.done(runs[1])
    equal(w.rpc.reply(leave), None)
    w.nothing_comes()
    equal(eqd.queue("w")["queued"], 1)
    try:
        w.rpc.call("worker_serve", ["w"])
    except RpcError as e:
        equal(e.code, STATE)


@test()
def a_kicked_worker_loses_its_connection_and_no_crash_is_counted(eqd):
    c = worker_queue(eqd)
    task = submit(c, b"")
    a = Worker(eqd, "w", name="stuck")
    a.next()
    b = Worker(eqd, "w")
    c.call("worker_kick", a.number)
    run = b.next()
    equal((run.id, run.attempt), (task, 2))
    b.done(run)
    equal(ended(c, task).get("crashes", 0), 0)
    eventually(lambda: a.rpc.sock.recv(4096) == b"", "the connection is closed")
    try:
        c.call("worker_kick", a.number)
        raise AssertionError("kicked twice")
    except RpcError as e:
        equal(e.code, NO_WORKER)


@test()
def what_is_given_back_returns_unharmed(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    task = submit(c, b"1")
    w = Worker(eqd, "w", credit=5)
    w.fail(w.next(), {"give_back": True})
    w.nothing_comes()
    equal(state(c, task), "QUEUED")
    equal(w.row()["credit"], 0)
    w.rpc.call("worker_credit", 1)
    run = w.next()
    equal((run.id, run.attempt), (task, 2))
    w.done(run)
    equal(ended(c, task).get("crashes", 0), 0)


# ---- cancel and timeout ----

@test()
def cancel_of_a_running_task_is_pushed_to_its_worker(eqd):
    c = worker_queue(eqd)
    w = Worker(eqd, "w")
    for answer, want in ((lambda r: w.fail(r, "stopped"), "CANCELED"), (lambda r: w.done(r, b"quicker"), "DONE")):
        task = submit(c, b"")
        run = w.next()
        equal(c.call("cancel", [task]), [1])
        equal(c.call("cancel", [task], running=True), [1])
        equal(w.canceled(), (task, 1, "canceled", 10000000))
        equal(state(c, task), "RUNNING")
        answer(run)
        equal(ended(c, task)["state"], want)


@test()
def a_canceled_task_is_taken_away_after_its_grace_and_the_late_answer_refused(eqd):
    c = worker_queue(eqd)
    w = Worker(eqd, "w", credit=1)
    for options in ({"grace_usec": 20000}, {"grace_usec": 0}, {"signal": 9}):
        task, following = submit(c, b""), submit(c, b"next")
        run = w.next()
        c.call("cancel", [task], running=True, **options)
        equal(w.canceled()[0], task)
        equal(ended(c, task)["state"], "CANCELED")
        w.nothing_comes() # it is still busy with what it lost
        equal(w.row()["in_flight"], 1)
        w.done(run, b"late")
        msgid, code, text, details = w.refused()
        equal((msgid, code, details), (run.msgid, NO_LEASE, {"id": task, "attempt": run.attempt}))
        contains(text, "too late")
        equal("result" in c.call("show", [task])[0], False)
        run = w.next()
        equal(run.id, following)
        w.done(run)
        ended(c, following)
    equal(w.row()["late"], 3)


@test()
def a_timeout_is_told_then_takes_the_task_away(eqd):
    c = worker_queue(eqd, "w", "grace=0")
    w = Worker(eqd, "w")
    task = submit(c, b"", timeout_usec=30000)
    run = w.next()
    equal(run.options, {"timeout_usec": 30000, "grace_usec": 0})
    equal(w.canceled(), (task, 1, "timeout", 0))
    equal(ended(c, task)["state"], "TIMEOUT")
    w.done(run)
    equal(w.refused()[1], NO_LEASE)

    task = submit(c, b"", timeout_usec=30000, grace_usec=60000000)
    run = w.next()
    equal(w.canceled()[2:], ("timeout", 60000000))
    w.done(run, b"in the grace")
    equal(ended(c, task)["state"], "TIMEOUT", "the time was over")

    task = submit(c, b"", timeout_usec=30000, retries=1, backoff_usec=0)
    w.next()
    equal(w.canceled()[:3], (task, 1, "timeout"))


@test()
def time_that_a_task_waits_in_its_worker_does_not_count(eqd):
    c = worker_queue(eqd, "w", "max_active=10", "grace=0")
    worker_queue(eqd, "v")
    w = Worker(eqd, "w", credit=2, parallel=1)
    slow, quick = submit(c, b"slow"), submit(c, b"quick", timeout_usec=1000)
    other = submit(c, b"other", timeout_usec=1000, queue="v") # ends after quick would have
    runs = [w.next(), w.next()]
    v = Worker(eqd, "v")
    v.next()
    equal(v.canceled()[0], other)
    equal(state(c, quick), "RUNNING")
    w.done(runs[0])
    equal(ended(c, slow)["state"], "DONE")
    equal(w.canceled()[:3], (quick, 1, "timeout"))
    equal(ended(c, quick)["state"], "TIMEOUT")


# ---- signs of life ----

VOLATILE = "[Queue]\nDurable=no\n" # a disk that others keep busy may not answer for so long, which is told as well


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=2s\nHungTaskTimeoutSecs=3s\n"})
def a_touch_is_the_sign_of_life_of_a_workers_task(eqd):
    """Without one a long task is told, if others wait for it; and what its worker has not come to waits, too."""
    c, events = worker_queue(eqd), eqd.events(events=["stall.", "task.hung"])
    w = Worker(eqd, "w", credit=2)
    task, behind = submit(c, b""), submit(c, b"")
    run, end = w.next(), time.monotonic() + 5
    while time.monotonic() < end:
        w.rpc.call("worker_touch", task, run.attempt)
        events.receive(0.2)
    equal(stalls(events), [])
    for kind in ("stall.begin", "task.hung"):
        event = stall_event(events, kind, "w")
        equal(event["id"], task)
        if kind == "stall.begin":
            equal(event["reason"], "serial")
    w.done(run)
    stall_event(events, "stall.end", "w")
    w.done(w.next())
    equal(ended(c, behind)["state"], "DONE")


def stall_event(events, kind, queue):
    return events.note(lambda method, p: method == "event" and p[0]["event"] == kind and p[0].get("queue") == queue)[0]


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=500ms\n"})
def workers_that_stop_answering_are_shown_and_their_queue_is_stalled_with_the_reason(eqd):
    c, events = worker_queue(eqd, "w", "max_active=4"), eqd.events(events=["stall."])
    first = Worker(eqd, "w", credit=2)
    tasks = [submit(c, b"") for _ in range(5)]
    runs = [first.next(), first.next()]
    event = stall_event(events, "stall.begin", "w") # there is no credit, and those who have it say nothing
    equal((event["reason"], event["id"]), ("pool-full", tasks[0]))
    shown = eqd.queue("w")
    equal((shown["reason"], shown["running"], shown["queued"], shown["stalled_usec"] >= 500000), ("pool-full", 2, 3, True))
    row = first.row()
    equal((row["state"], row["in_flight"], row["oldest"], row["oldest_usec"] >= 500000), ("full", 2, tasks[0], True))
    contains(eqd.ok("queue", "ls"), "STALLED", "pool-full", "eqctl worker ls")
    contains(eqd.ok("why", "w/3"), "eqctl worker ls")

    second = Worker(eqd, "w", credit=2) # takes two: that is progress, and then max_active is used up
    runs += [second.next(), second.next()]
    stall_event(events, "stall.end", "w")
    event = stall_event(events, "stall.begin", "w")
    equal((event["reason"], event["id"]), ("max-active", tasks[0]))
    equal([w.row()["state"] for w in (first, second)], ["full", "full"])
    equal(eqd.queue("w")["reason"], "max-active")
    for w, run in zip((first, first, second, second), runs):
        w.done(run)
    stall_event(events, "stall.end", "w")
    w = either(first, second)
    w.done(w.next())
    equal([t["state"] for t in c.call("wait", tasks)], ["DONE"] * 5)
    equal("stalled_usec" in eqd.queue("w"), False)


@test(config={"eqd.conf": VOLATILE + "[Watchdog]\nWatchdogThresh=500ms\n"})
def a_worker_that_stops_reading_is_blocked_and_its_queue_stalled_with_the_reason(eqd):
    c, events = worker_queue(eqd, "w", "max_active=1000"), eqd.events(events=["stall."])
    w = Worker(eqd, "w", credit=1000)
    tasks = [submit(c, b"x" * 100000) for _ in range(30)]
    event = stall_event(events, "stall.begin", "w")
    equal((event["reason"], event["id"]), ("pool-full", tasks[0]))
    equal(w.row()["state"], "blocked")
    equal(eqd.queue("w")["reason"], "pool-full")
    for _ in tasks:
        w.done(w.next())
    stall_event(events, "stall.end", "w")
    equal({t["state"] for t in c.call("wait", tasks)}, {"DONE"})


@test()
def touch_shows_progress_and_needs_the_lease(eqd):
    c = worker_queue(eqd)
    events = eqd.events(events=["task.progress"])
    w = Worker(eqd, "w")
    task = submit(c, b"")
    run = w.next()
    w.rpc.call("worker_touch", task, run.attempt, progress=40, note="page 4 of 10")
    shown = c.call("show", [task])[0]
    equal((shown["progress"], shown["note"]), (40, "page 4 of 10"))
    equal(events.note(lambda m, p: m == "event")[0]["id"], task)
    for bad, code in (((task, 2), NO_LEASE), (([task[0], 99], 1), NO_LEASE), (([5 << 20, 1], 1), NO_LEASE),
                      (("w/1", 0), NO_LEASE), ((task,), INVALID)):
        try:
            w.rpc.call("worker_touch", *bad)
            raise AssertionError(f"{bad} was taken")
        except RpcError as e:
            equal(e.code, code, str(bad))
            if code == NO_LEASE: # ids are sent as numbers, whatever was asked for
                equal(e.details, {"attempt": bad[1]} if isinstance(bad[0], str) else {"id": bad[0], "attempt": bad[1]})
    try:
        Worker(eqd, "w").rpc.call("worker_touch", task, 1)
        raise AssertionError("another worker's touch was taken")
    except RpcError as e:
        equal(e.code, NO_LEASE)
    contains(c.call("why", [task])[0]["detail"], f"worker {w.number}", "attempt 1", "ago")


@test()
def a_worker_that_does_not_read_is_shown_and_gets_no_more(eqd):
    c = worker_queue(eqd, "w", "max_active=1000")
    w = Worker(eqd, "w", credit=1000)
    other = Worker(eqd, "w", credit=1000)
    other.rpc.call("worker_credit", 0)
    tasks = [submit(c, b"x" * 100000) for _ in range(30)]
    row = next(r for r in c.call("worker_list") if r["worker"] == w.number)
    equal(row["state"], "blocked")
    if not 250000 < row["unread_bytes"] < 700000:
        raise AssertionError(row)
    left = 30 - row["in_flight"]
    equal(eqd.queue("w")["queued"], left)
    other.rpc.call("worker_credit", 100)
    got = [other.next() for _ in range(left)]
    equal([r.id for r in got], tasks[-left:])
    equal(len([w.next() for _ in range(row["in_flight"])]), row["in_flight"])
    submit(c, b"more")
    equal(either(w, other).next().payload, b"more")


@test()
def refusals_are_owed_to_who_does_not_read_and_what_waits_for_him_is_bounded(eqd):
    """A worker waits for what became of its answer: above the high mark it got no run_refused, only a count of what was lost."""
    c = worker_queue(eqd, "w", "max_active=1000")
    w = Worker(eqd, "w", credit=1000)
    for _ in range(30):
        submit(c, b"x" * 100000)
    full, unsent, sent = 2 << 20, b"", 0

    def unread():
        row = next(r for r in c.call("worker_list") if r["worker"] == w.number)
        return row["unread_bytes"]

    def push():
        nonlocal unsent
        try:
            unsent = unsent[w.rpc.sock.send(unsent, socket.MSG_DONTWAIT):]
            return True
        except BlockingIOError:
            return False
    while sent < 200000: # to requests never sent
        if not unsent:
            unsent, sent = b"".join(msgpack_mini.encode([1, 1 << 31 | sent + i, None, None]) for i in range(1000)), sent + 1000
        if not push() and unread() >= full:
            break
    waits = unread()
    if not full <= waits < full + 4096:
        raise AssertionError(f"{waits} bytes wait for it, {sent} answers were sent")
    for i in range(sent):
        while unsent and not w.rpc.notes and push():
            pass
        equal(w.refused()[:2], (1 << 31 | i, NO_LEASE))
    equal(list(w.rpc.notes), [], "nothing was lost")


@test()
def a_worker_that_writes_before_it_reads_comes_through(eqd):
    c = worker_queue(eqd, "w", "max_active=1000", "history=1000")
    n, result = 200, b"r" * RESULT_MAX
    tasks = [submit(c, b"p" * 10000) for _ in range(n)]
    w = Worker(eqd, "w", credit=1000)
    w.rpc.chunk = 16384
    w.rpc.sock.settimeout(30) # sendall() blocks, as in any simple client
    for _ in range(n):
        w.done(w.next(), result)
    equal([t["state"] for t in c.call("wait", tasks)], ["DONE"] * n)


@test()
def what_a_worker_has_does_not_wait_for_it_to_read(eqd):
    """Ended by a bad message, or by the end of what it sends, while much is unread."""
    c = worker_queue(eqd, "w", "max_active=1000")
    for end in (lambda s: s.sendall(b"\xc1"), lambda s: s.shutdown(socket.SHUT_WR)):
        tasks = [submit(c, b"x" * 100000) for _ in range(10)]
        w = Worker(eqd, "w", credit=1000)
        equal(state(c, tasks[0]), "RUNNING")
        end(w.rpc.sock)
        eventually(lambda: eqd.queue("w")["queued"] == 10, "the tasks are back")
        c.call("cancel", tasks)


@test(nofile=4096)
def a_thousand_workers_share_a_queue(eqd):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard)) # the test has as many connections as eqd
    c = worker_queue(eqd, "w", "max_active=2000", "history=10000")
    workers = [Worker(eqd, "w") for _ in range(1000)]
    tasks = c.call("submit_many", "w", [b"%d" % i for i in range(1000)])
    equal(c.call("stat")["workers"], 1000)
    runs = [w.next() for w in workers]
    equal(sorted(int(r.payload) for r in runs), list(range(1000)), "one for each")
    equal(len(c.call("worker_list", limit=700)), 700)
    equal(len(c.call("worker_list", limit=700, **{"from": c.call("worker_list", limit=700)[-1]["worker"]})), 300)
    for w, r in zip(workers, runs):
        w.done(r)
    first = tasks["first"]
    equal({t["state"] for t in c.call("wait", [[first[0], first[1] + i] for i in range(1000)])}, {"DONE"})


# ---- bad answers ----

@test()
def bad_answers_get_their_error_and_the_connection_survives(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = Worker(eqd, "w", credit=100)
    w.respond(77, None, b"to a request never sent")
    msgid, code, _, details = w.refused()
    equal((msgid, code, details), (77, NO_LEASE, {}), "nothing is known of what it answers")
    w.respond(0xffffffff, "never", None)
    equal(w.refused()[:2], (0xffffffff, NO_LEASE))
    large, limit = b"x" * (RESULT_MAX + 1), {"field": "result", "limit": RESULT_MAX}
    for error, result, code, details in (
            (None, 5, INVALID, {}), (None, [1, 2], INVALID, {}), (None, True, INVALID, {}), (None, {"nothing": "known"}, INVALID, {}),
            (None, {"exit": -1}, INVALID, {"field": "exit"}), (None, {"exit": 256}, INVALID, {"field": "exit", "limit": 255}),
            (None, {"result": large}, TOO_LARGE, limit), (None, large, TOO_LARGE, limit), (7, None, INVALID, {}),
            ([], None, INVALID, {}), ({"text": 5}, None, INVALID, {"field": "text"})):
        task = submit(c, b"")
        run = w.next()
        w.respond(run.msgid, error, result)
        msgid, *refused = w.refused()
        equal((msgid, refused[0], refused[2]), (run.msgid, code, {"method": "run", **details}), repr((error, result))[:80])
        shown = ended(c, task)
        equal(shown["state"], "FAILED", "its worker thinks that it has answered")
        contains(shown["error"], "worker's")

    task = submit(c, b"")
    run = w.next()
    w.done(run, b"first")
    w.done(run, b"second")
    equal(w.refused()[:2], (run.msgid, NO_LEASE), "a second answer")
    equal(ended(c, task)["result"], b"first")

    task = submit(c, b"")
    run = w.next()
    w.done(run, {"attempt": 9, "result": b"of another attempt"})
    msgid, code, text, details = w.refused()
    equal((msgid, code, details), (run.msgid, NO_LEASE, {"id": task, "attempt": 9}), "a wrong token")
    contains(text, "attempt 9", "attempt 1")
    again = w.next()
    equal((again.id, again.attempt), (task, 2))
    w.done(again, {"attempt": 2, "result": b"right"})
    equal(ended(c, task)["result"], b"right")

    plain = eqd.connect()
    plain.sock.sendall(msgpack_mini.encode([1, 1, None, None]))
    equal(plain.note(lambda m, p: m == "run_refused")[1][0], NO_LEASE, "an answer by a client that is no worker")
    plain.call("ping")


@test()
def bad_requests_of_workers_get_their_error(eqd):
    c = worker_queue(eqd)
    for method, args, options, code in (
            ("worker_serve", (), {}, INVALID), ("worker_serve", ([],), {}, INVALID), ("worker_serve", ("w",), {}, INVALID),
            ("worker_serve", (["w", 5],), {}, INVALID), ("worker_serve", (["nosuch"],), {}, 4),
            ("worker_serve", (["../x"],), {}, INVALID), ("worker_serve", (["default"],), {}, STATE),
            ("worker_serve", (["w"],), {"credit": 65536}, INVALID), ("worker_serve", (["w"],), {"credit": -1}, INVALID),
            ("worker_serve", (["w"],), {"parallel": 0}, INVALID), ("worker_serve", (["w"],), {"name": "a\nb"}, INVALID),
            ("worker_serve", (["w"] * 65,), {}, INVALID), ("worker_credit", (1,), {}, NO_WORKER),
            ("worker_leave", (), {}, NO_WORKER), ("worker_touch", ([1, 1], 1), {}, NO_WORKER),
            ("worker_kick", (12345,), {}, NO_WORKER)):
        try:
            c.call(method, *args, **options)
            raise AssertionError(f"{method}{args} {options} was taken")
        except RpcError as e:
            equal(e.code, code, f"{method}{args} {options}: {e.text}")
            equal(e.text != "", True)
    w = Worker(eqd, "w")
    try:
        w.rpc.call("worker_credit", 65536)
        raise AssertionError("credit without bound")
    except RpcError as e:
        equal(e.code, INVALID)
    equal(w.row()["credit"], 1)


@test()
def worker_queues_take_payloads_and_no_commands(eqd):
    c = worker_queue(eqd)
    for options in ({"argv": ["true"]}, {"cwd": "/"}, {"env": ["A=b"]}, {"umask": 0}, {"nice": 1}, {"ionice": "idle"},
                    {"stdout_path": "/x"}, {"merge": True}, {"rlimits": ["nofile=5"]}):
        try:
            submit(c, b"", **options)
            raise AssertionError(f"{options} was taken")
        except RpcError as e:
            equal(e.code, INVALID)
            contains(e.text, next(iter(options)), "payload")
    many = c.call("submit_many", "w", [b"a", {"payload": b"b", "label": "l"}])
    equal(many["n"], 2)


@test()
def the_executor_changes_only_while_the_queue_is_empty(eqd):
    c = worker_queue(eqd)
    task = submit(c, b"")
    eqd.fails(1, "queue", "set", "w", "executor=command", says="drain it first")
    w = Worker(eqd, "w")
    w.done(w.next())
    ended(c, task)
    eqd.ok("queue", "set", "w", "executor=command")
    eqd.ends_as(eqd.submit("-q", "w", "--", "true"), "DONE")
    equal(c.call("retry", [task]), [1], "a payload is no command")
    equal(w.row()["queues"], [])
    eqd.ok("queue", "set", "w", "executor=worker")
    w.rpc.call("worker_serve", ["w"])
    submit(c, b"again")
    equal(w.next().payload, b"again")


@test(config={"queues.d/jobs.queue": "[Queue]\nExecutor=worker\nMaxActive=5\n"})
def a_file_may_make_a_worker_queue(eqd):
    c = eqd.connect()
    w = Worker(eqd, "jobs")
    submit(c, b"1", "jobs")
    run = w.next()
    eqd.configure("queues.d/jobs.queue", "[Queue]\nExecutor=command\n")
    eqd.fails(1, "reload", says="drain it first")
    w.done(run)
    ended(c, run.id)
    eqd.ok("reload")
    eqd.ends_as(eqd.submit("-q", "jobs", "--", "true"), "DONE")


# ---- rights ----

@test(root=True, other_users=True)
def serving_is_for_administrators_and_those_who_are_named(eqd):
    c = worker_queue(eqd)
    worker_queue(eqd, "a", f"allow_serve={USER_A}")

    def serves(uid, queue):
        try:
            return Worker(eqd, queue, uid=uid)
        except RpcError as e:
            equal(e.code, DENIED)
            contains(e.text, "allow_serve")
            return None
    equal(serves(USER_A, "w"), None)
    equal(serves(USER_B, "a"), None)
    w = serves(USER_A, "a")
    task = submit(eqd.connect(USER_B), b"of b", "a")
    run = w.next()
    equal((run.payload, run.options["uid"]), (b"of b", USER_B))
    serves(None, "w")

    mine = [row["worker"] for row in w.rpc.call("worker_list")]
    equal(mine, [w.number], "others' workers are not shown")
    equal(len(c.call("worker_list")), 2)
    try:
        eqd.connect(USER_B).call("worker_kick", w.number)
        raise AssertionError("kicked another user's worker")
    except RpcError as e:
        equal(e.code, NO_WORKER)

    eqd.ok("queue", "set", "a", f"allow_serve={USER_B}")
    equal(w.row()["queues"], [], "the right was taken away")
    w.done(run, b"still its own")
    equal(ended(c, task)["state"], "DONE")
    submit(c, b"2", "a")
    w.nothing_comes()
    equal(serves(USER_B, "a").next().payload, b"2")


@test(root=True, other_users=True)
def serving_may_be_for_a_group(eqd):
    c = worker_queue(eqd, "w", f"allow_serve=@{USER_A},@{OTHER_GROUP}")
    for uid, groups, may in ((USER_A, (), True), (USER_B, (), False), (USER_B, (OTHER_GROUP,), True), (USER_B, (USER_B, 7), False)):
        try:
            w = Worker(eqd, "w", uid=uid, groups=groups)
            equal(may, True, (uid, groups))
            task = submit(c, b"")
            w.done(w.next())
            equal(ended(c, task)["state"], "DONE")
            w.vanish()
        except RpcError as e:
            equal((may, e.code), (False, DENIED), (uid, groups))


@test(root=True, other_users=True)
def anybody_may_make_a_worker_queue_of_his_own(eqd):
    eqd.ok("queue", "create", "mine", "executor=worker", f"allow_serve={USER_A}", f"allow_submit={USER_A}", uid=USER_A)
    w = Worker(eqd, "mine", uid=USER_A)
    submit(eqd.connect(USER_A), b"x", "mine")
    equal(w.next().payload, b"x")


@test(config={"eqd.conf": "[Commands]\ncommands=no\n"})
def workers_serve_where_commands_are_switched_off(eqd):
    c = worker_queue(eqd)
    w = Worker(eqd, "w")
    task = submit(c, b"x")
    w.done(w.next(), b"y")
    equal(ended(c, task)["result"], b"y")


@test()
def eqd_stops_in_time_whatever_its_workers_do(eqd):
    c = worker_queue(eqd, "w", "max_active=5")
    w = Worker(eqd, "w", credit=5)
    submit(c, b"1")
    run = w.next()
    eqd.process.terminate()
    equal(w.canceled()[0], run.id)
    w.fail(run, "stopping")
    eqd.expect_end(STOP_SECONDS, 0)


if __name__ == "__main__":
    main()
