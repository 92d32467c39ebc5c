#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A store that has failed, or has no space: what is acknowledged then was made durable, and everybody is answered.

Every method that api_info lists is called. The next eqd, whose store is good, has what was acknowledged and nothing else.
tests/crash/eqdfaults.py fails each call of a store, diskfull.py fills a disk.
"""

from eqdtest import Closed, RpcError, contains, equal, eventually, main, test
from ends import crash
from workerkit import Worker

EQ_E_STORE, EQ_E_STATE = 24, 20
CONF = {"eqd.conf": "[Store]\nSegmentSize=1M\n"}

# What each method does to queue Q, whose tasks 1, 2 and 3 are held, FAILED and running.
CHANGES = {
    "submit": lambda c, q: c.call("submit", q, b"", argv=["true"], hold=True),
    "submit_many": lambda c, q: c.call("submit_many", q, [{"argv": ["true"], "hold": True}]),
    "cancel": lambda c, q: c.call("cancel", [f"{q}/1"]),
    "hold": lambda c, q: c.call("hold", [f"{q}/4"]),
    "release": lambda c, q: c.call("release", [f"{q}/1"]),
    "retry": lambda c, q: c.call("retry", [f"{q}/2"]),
    "queue_create": lambda c, q: c.call("queue_create", q, exist_ok=True, set=["description=changed"]),
    "queue_set": lambda c, q: c.call("queue_set", q, ["description=changed"]),
    "queue_pause": lambda c, q: c.call("queue_pause", q),
    "queue_resume": lambda c, q: c.call("queue_resume", q),
    "queue_drain": lambda c, q: c.call("queue_drain", q, timeout_usec=1),
    "queue_stop": lambda c, q: c.call("queue_stop", q),
    "queue_join": lambda c, q: c.call("queue_join", q, timeout_usec=1),
    "queue_flush": lambda c, q: c.call("queue_flush", q, timeout_usec=1),
    "queue_rm": lambda c, q: c.call("queue_rm", q, yes=True),
    "wait": lambda c, q: c.call("wait", [f"{q}/3"], timeout_usec=1),
}
MORE_CHANGES = [
    lambda c, q: c.call("cancel", [f"{q}/3"], running=True),
    lambda c, q: c.call("retry", [], failed=True, queue=q),
    lambda c, q: c.call("queue_set", q, ["durable=no"]),
    lambda c, q: c.call("submit", q, b"", argv=["true"], hold=True, unique="key"),
]
# Of all of them, or of one that is to be durable.
OF_ALL = {
    "reload": lambda c: c.call("reload"),
    "param_set": lambda c: c.call("param_set", "queue.durable", "no"),
    "retry": lambda c: c.call("retry", [], failed=True),
    "queue_create": lambda c: c.call("queue_create", "another"),
    "queue_set": lambda c: c.call("queue_set", "empty", ["durable=yes"]),
}
def refused(call, *says):
    try:
        got = call()
    except RpcError as e:
        equal(e.code, EQ_E_STORE, e.text)
        contains(e.text, *says)
        return
    raise AssertionError(f"answered with {got!r}")


def methods(c, *keeps):
    return {f["name"] for f in c.call("api_info")[1]["functions"] if f["keeps"] in keeps}


def make_queue(eqd, name, *attributes):
    eqd.ok("queue", "create", name, "retries=0", *attributes)
    eqd.submit("-q", name, "--hold", "--", "true")
    eqd.ends_as(eqd.submit("-q", name, "--", "false"), "FAILED")
    eqd.until_state(eqd.submit("-q", name, "--", "sleep", "1000"), "RUNNING")
    eqd.submit("-q", name, "--", "true")


def state_of(eqd, queue):
    """All that a crash may not change, but for what runs; its attempts count on."""
    shown = eqd.queue(queue)
    return ({f: shown.get(f) for f in ("state", "pauses", "set", "last_seq")},
            [(t["id"], "QUEUED" if t["state"] == "RUNNING" else t["state"]) for t in eqd.ls("-q", queue)])


def fail_store(eqd):
    """A sync fails, which is the end, with one connection that waits for it."""
    promised = 0
    with eqd.connect() as c:
        try:
            while True:
                c.call("submit", "ballast", b"", argv=["true"], hold=True)
                promised += 1
        except Closed:
            pass
    eqd.has_logged("the store has failed")
    return promised


def wait_everywhere(eqd):
    """Who waits for something of a durable queue, each with a connection of its own: (what, connection, request)."""
    eqd.ok("queue", "create", "full", "max_tasks=1", "on_full=block")
    eqd.ok("queue", "pause", "full")
    eqd.submit("-q", "full", "--", "true")
    for queue in ("drained", "removed"):
        eqd.ok("queue", "create", queue)
    eqd.submit("-q", "drained", "--hold", "--", "true")
    stubborn = eqd.sh("trap '' TERM; echo ready; while :; do sleep 1000; done", "-q", "removed", "--grace", "1h")
    equal(eqd.start_ctl("logs", "-f", stubborn).stdout.readline(), b"ready\n")
    waits = []
    for method, *params in (("queue_flush", "q"), ("queue_join", "q"), ("queue_drain", "drained"), ("wait", ["q/3"]),
                            ("submit", "full", b"")):
        c = eqd.connect()
        waits.append((method, c, c.send(method, *params, **({"argv": ["true"]} if method == "submit" else {}))))
        c.call("ping") # it is there
    c = eqd.connect()
    waits.append(("queue_rm", c, c.send("queue_rm", "removed", yes=True)))
    c.call("ping")
    return waits


@test(env={"EQD_FAULT": "sync:90+"}, seconds=300)
def when_the_store_has_failed_nothing_durable_is_changed_and_all_are_answered(eqd):
    make_queue(eqd, "q")
    make_queue(eqd, "memory", "durable=no")
    for queue in ("ballast", "worked"):
        eqd.ok("queue", "create", queue, *(["executor=worker"] if queue == "worked" else []))
    eqd.ok("queue", "create", "empty", "durable=no")
    with eqd.connect() as c:
        equal(methods(c, "changes", "waits"), set(CHANGES) | set(OF_ALL), "each of these is called")
        c.call("submit", "worked", b"x")
    worker = Worker(eqd, "worked", credit=1)
    run = worker.next()
    waits = wait_everywhere(eqd)
    others = eqd.connect()
    flush = others.send("queue_flush", "memory")
    others.call("ping")
    before = {q: state_of(eqd, q) for q in ("q", "full", "worked")}
    promised = fail_store(eqd)

    for what, c, msgid in waits:
        refused(lambda c=c, msgid=msgid: c.reply(msgid), "the store has failed", "restart eqd")
        c.call("ping") # and it goes on
        print(f"# {what} was told")
    worker.done(run) # nobody may rely on it; its connection goes on
    worker.rpc.call("ping")

    with eqd.connect() as c:
        for call in [*CHANGES.values(), *MORE_CHANGES]:
            refused(lambda call=call: call(c, "q"), "the store has failed", "restart eqd")
        for call in OF_ALL.values():
            refused(lambda call=call: call(c), "the store has failed", "restart eqd")
        for method in ("list", "stat", "store_stat", "queue_list", "pool_list"):
            c.call(method)
        equal(c.call("kill", ["q/3"], 9), [0])
        equal(c.call("cancel", ["memory/1"]), [0])
        c.call("queue_pause", "memory")
        c.call("cancel", ["memory/4"])
        c.call("cancel", ["memory/3"], running=True)
        equal(c.call("retry", [], failed=True, queue="memory"), [1])
        c.call("queue_resume", "memory")
        c.call("queue_flush", "memory")
        c.call("queue_rm", "memory", yes=True)
        c.call("queue_create", "memory", set=["durable=no"])
    others.reply(flush)

    crash(eqd, env={"EQD_FAULT": ""})
    for queue, was in before.items():
        equal(state_of(eqd, queue), was, f"{queue}, of which nothing was acknowledged")
    equal(len(eqd.ls("-q", "ballast")) >= promised, True, f"{promised} were promised")
    equal(eqd.queue("q")["state"], "open")
    eqd.until_state("removed/1", "RUNNING") # again, and would not end for a stop of eqd before its grace is over
    eqd.ok("kill", "-9", "removed/1")


@test(env={"EQD_FAULT": "sync:30+"})
def what_is_not_kept_is_not_confirmed_and_who_leaves_is_told(eqd):
    for queue, attributes in (("kept", []), ("memory", ["durable=no"]), ("ballast", [])):
        eqd.ok("queue", "create", queue, *([] if queue == "ballast" else ["executor=worker"]), *attributes)
    w, idle = Worker(eqd, "kept", "memory", credit=2, confirm=True), Worker(eqd, "memory")
    with eqd.connect() as c:
        c.call("submit", "kept", b"")
        run = w.next()
    fail_store(eqd)
    w.done(run)
    idle.rpc.call("worker_leave") # it has answered nothing that would be lost
    with eqd.connect() as c:
        c.call("submit", "memory", b"")
    light = w.next()
    w.done(light)
    equal(w.confirmed(), [(light.id, light.attempt)])
    refused(lambda: w.rpc.call("worker_leave"), "may come again")
    equal(list(w.rpc.notes), [])
    crash(eqd, env={"EQD_FAULT": ""})
    equal(Worker(eqd, "kept").next().id, run.id)


def acknowledged_while_full(c):
    """Each of it is answered, and so it is kept."""
    equal(c.call("cancel", ["q/1"]), [0])
    equal(c.call("retry", ["q/2"]), [0])
    equal(c.call("hold", ["q/4"]), [0])
    equal(c.call("release", ["held/1"]), [0])
    c.call("queue_pause", "q")
    c.call("queue_pause", "q")
    c.call("queue_resume", "q")
    c.call("queue_set", "q", ["description=while it is full"])
    c.call("queue_set", "emptied", ["durable=no"])
    c.call("queue_stop", "held")
    c.call("queue_rm", "removed", yes=True)


def fill_store(eqd):
    with eqd.connect() as c:
        refused(lambda: [c.call("submit", "ballast", b"x" * 20000, argv=["true"], hold=True) for _ in range(1000)],
                "no space", "queue ballast", "make room on its file system")


@test(env={"EQD_FAULT": "space:3+"}, config=CONF, seconds=300)
def what_is_acknowledged_without_space_is_kept_and_the_rest_says_what_to_do(eqd):
    make_queue(eqd, "q")
    for queue in ("ballast", "held", "removed", "emptied"):
        eqd.ok("queue", "create", queue)
    eqd.ok("queue", "create", "empty", "durable=no")
    eqd.ok("queue", "pause", "held")
    for queue in ("held", "removed"):
        eqd.submit("-q", queue, "--hold", "--", "true")
    fill_store(eqd)
    with eqd.connect() as c:
        for method in ("submit", "submit_many"):
            refused(lambda method=method: CHANGES[method](c, "q"), "no space", "make room on its file system")
        for method in ("queue_create", "queue_set"):
            refused(lambda method=method: OF_ALL[method](c), "no space", "make room on its file system")
        acknowledged_while_full(c)
        before = {q: state_of(eqd, q) for q in ("q", "held", "ballast")}
    contains(str(before["q"]), "while it is full")
    crash(eqd, env={"EQD_FAULT": ""})
    for queue, was in before.items():
        equal(state_of(eqd, queue), was, queue)
    for queue in ("removed", "emptied", "another"):
        eqd.fails(66, "queue", "show", queue)


@test(env={"EQD_FAULT": "space:3+"}, config=CONF, seconds=300)
def without_a_reserve_changes_are_refused_and_what_was_acknowledged_is_kept(eqd):
    for queue in ("ballast", "q"):
        eqd.ok("queue", "create", queue)
    task = eqd.submit("-q", "q", "--hold", "--", "true")
    fill_store(eqd)
    asks, counts = eqd.connect(), eqd.connect()
    sent = []
    says = ("not even for a change", "make room on its file system")

    def is_spent():
        try:
            asks.call("queue_resume", "ballast")
        except RpcError as e:
            if e.code == EQ_E_STATE:
                return False # it is not paused
            equal(e.code, EQ_E_STORE, e.text)
            contains(e.text, *says)
            return True
        raise AssertionError("resumed")

    def answered():
        while counts.receive(0.01):
            pass
        return sum(m in counts.replies for m in sent)

    while not is_spent():
        sent.extend(counts.send("queue_pause", "q") for _ in range(100))
        eventually(lambda: answered() == len(sent) or is_spent(), "they are answered, or there is no space for them")
    refused(lambda: asks.call("release", [task]), *says)
    refused(lambda: asks.call("queue_rm", "q", yes=True), *says)
    n = answered()
    print(f"# {n} of {len(sent)} changes were acknowledged")
    equal([m for m in sent if counts.replies.get(m, [None])[0]], [], "none was refused before one was not taken")
    crash(eqd, env={"EQD_FAULT": ""})
    shown = eqd.queue("q")
    equal(n <= shown["pauses"] <= len(sent), True, f"{n} <= {shown['pauses']} <= {len(sent)}")
    eqd.ok("queue", "set", "q", "description=goes on")


main()
