#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Idempotency keys: who submits again because the answer got lost has one task, also over kill -9 and a restart."""

import os
import random

from ends import crash, restart
from eqdtest import Closed, RpcError, contains, equal, eventually, main, test

DUPLICATE, INVALID = 28, 3
TRUE = ["/bin/true"]


def refused(code, says, c, method, *params, **options):
    try:
        c.call(method, *params, **options)
    except RpcError as e:
        equal(e.code, code, e.text)
        contains(e.text, says)
        return
    raise AssertionError(f"{method} was taken")


@test()
def eqctl_submits_once_per_key(eqd):
    first = eqd.submit("--unique", "film 7", "--hold", "--", "true")
    equal(eqd.submit("--unique", "film 7", "--", "true"), first)
    equal(eqd.show(first)["unique"], "film 7")
    equal(eqd.ls()[0]["unique"], "film 7")
    eqd.fails(1, "submit", "--unique", "film 7", "--on-dup", "error", "--", "true",
              says=f"{first} has that key (unique) and is WAITING")
    second = eqd.submit("--unique", "film 7", "--on-dup", "replace", "--hold", "--", "true")
    equal(second, "default/2")
    shown = eqd.show(first)
    equal(shown["state"], "CANCELED")
    contains(shown["detail"], "replaced by a newer task with the same key")
    many = eqd.ok("submit", "--array", "1-3", "--unique", "part-{}", "--hold", "--", "true").split()
    equal(many, ["default/3", "default/4", "default/5"])
    equal(eqd.ok("submit", "--array", "2-4", "--unique", "part-{}", "--hold", "--", "true").split(),
          ["default/4", "default/5", "default/6"])
    for task in eqd.ls("-s", "WAITING"):
        eqd.ok("cancel", task["id"])


@test()
def bad_keys_are_refused_with_what_to_do(eqd):
    for key, says in (("", "1 to 256 bytes"), ("x" * 257, "1 to 256 bytes"), ("a\tb", "control characters")):
        eqd.fails(2, "submit", "--unique", key, "--", "true", says=says)
    eqd.fails(2, "submit", "--on-dup", "skip", "--", "true", says="give --unique KEY, too")
    eqd.fails(2, "submit", "--unique", "k", "--on-dup", "often", "--", "true", says="skip, replace or error")
    eqd.fails(2, "submit", "--unique", "k", "--array", "1-2", "--", "true", says="put {} into it")
    eqd.fails(2, "submit", "--unique", "k", "-f", "--", "true", says="eqctl logs -f ID")
    with eqd.connect() as c:
        refused(INVALID, "at most 256 bytes", c, "submit", "default", b"", argv=TRUE, unique="x" * 257)
        refused(INVALID, "control characters", c, "submit", "default", b"", argv=TRUE, unique="a\nb")
        refused(INVALID, "skip, replace or error", c, "submit", "default", b"", argv=TRUE, unique="k", on_dup="x")
        refused(INVALID, "on_dup: only with unique", c, "submit", "default", b"", argv=TRUE, on_dup="skip")
        refused(INVALID, "give each task its own key", c, "submit_many", "default", [b"", b""],
                common={"argv": TRUE, "unique": "k"})
    equal(eqd.ls(), [])


@test()
def a_submit_that_is_sent_again_after_a_crash_before_its_answer_has_the_same_id(eqd):
    eqd.ok("queue", "create", "q", "history=1")
    for key in ("old", "older"): # their tasks leave the history
        eqd.wait(eqd.submit("-q", "q", "--unique", key, "--", "true"))
    eqd.wait(eqd.submit("-q", "q", "--", "true"))
    c = eqd.connect()
    c.send("submit", "q", b"", argv=TRUE, unique="single", hold=True)
    c.send("submit_many", "q", [{"unique": "a"}, {"unique": "b"}, {"unique": "a"}], common={"argv": TRUE, "hold": True})
    eventually(lambda: len(eqd.ls("-s", "WAITING")) == 3, "they are accepted") # the answers are not looked at
    eqd.ok("queue", "set", "q", "description=later") # when that is answered, what was before it is on disk
    for _ in range(2):
        crash(eqd)
        with eqd.connect() as c:
            equal(c.call("submit", "q", b"", argv=TRUE, unique="single", hold=True)[1], 4)
            reply = c.call("submit_many", "q", [{"unique": "b"}, {"unique": "a"}, {"unique": "old"}],
                           common={"argv": TRUE, "hold": True})
            equal([i[1] for i in reply["ids"]], [6, 5, 1])
            equal((reply["first"], reply["n"]), (reply["ids"][0], 3))
            refused(DUPLICATE, "q/2 has that key (unique) and is finished", c, "submit", "q", b"", argv=TRUE,
                    unique="older", on_dup="error")
    equal(len(eqd.ls("-s", "WAITING")), 3)
    for task in (4, 5, 6):
        eqd.ok("cancel", f"q/{task}")


@test(seconds=300)
def many_submits_in_flight_at_many_crashes_make_one_task_per_key(eqd):
    rng = random.Random(int(os.environ.get("EQD_SEED", "1")))
    eqd.ok("queue", "create", "q")
    eqd.ok("queue", "pause", "q")
    waiting, told = [f"key-{i}" for i in range(3000)], {}
    for _ in range(20):
        c = eqd.connect()
        sent = {c.send("submit", "q", b"", argv=TRUE, unique=key): key for key in waiting[:200]}
        for msgid in list(sent)[:rng.randrange(len(sent))]:
            told[sent[msgid]] = c.reply(msgid)[1]
        crash(eqd)
        waiting = [key for key in waiting if key not in told]
        rng.shuffle(waiting)
    with eqd.connect() as c:
        for key in waiting:
            told[key] = c.call("submit", "q", b"", argv=TRUE, unique=key)[1]
        rows, at = [], {}
        while page := c.call("list", queue="q", **at):
            rows += page
            at = {"from": page[-1]["id"]}
    equal(len(rows), 3000, "tasks")
    equal({row["unique"]: row["id"][1] for row in rows}, told)


@test(env={"EQD_FAULT": "sync:40+"})
def an_answer_for_a_known_key_waits_for_the_disk_like_the_first(eqd):
    try:
        with eqd.connect() as c:
            for i in range(1000):
                ids = [c.send("submit", "default", b"", argv=TRUE, hold=True, unique=f"{i}") for _ in range(2)]
                first, second = c.reply(ids[0]), c.reply(ids[1])
                equal(first, second)
        raise AssertionError("the disk did not fail")
    except Closed:
        pass
    equal(c.replies, {}, "an answer without the one before it")
    eventually(lambda: "the store has failed" in eqd.log_text(), "it is in the log")
    crash(eqd, env={"EQD_FAULT": ""})
    keys = [task["unique"] for task in eqd.ls()]
    equal(len(set(keys)), len(keys))
    equal(len(keys) >= i, True, f"{i} were promised, {len(keys)} are there")


@test(config={"eqd.conf": "[Queue]\nDurable=no\n"})
def keys_of_tasks_in_memory_survive_an_orderly_restart(eqd):
    eqd.ok("queue", "create", "q", "history=1")
    for key in ("gone", "ended"):
        eqd.wait(eqd.submit("-q", "q", "--unique", key, "--", "true"))
    eqd.submit("-q", "q", "--unique", "waits", "--hold", "--", "true")
    for _ in range(2):
        restart(eqd)
        for i, key in enumerate(("gone", "ended", "waits")):
            equal(eqd.submit("-q", "q", "--unique", key, "--", "true"), f"q/{i + 1}")
    eqd.fails(66, "show", "q/1", says="history is gone")
    eqd.ok("cancel", "q/3")


@test()
def a_window_of_none_forgets_a_key_with_the_end_of_its_task(eqd):
    eqd.ok("queue", "create", "q", "unique_window=0")
    for i in range(3):
        task = eqd.submit("-q", "q", "--unique", "reindex", "--hold", "--", "true")
        equal(task, f"q/{i + 1}")
        equal(eqd.submit("-q", "q", "--unique", "reindex", "--", "true"), task)
        eqd.ok("release", task)
        eqd.ends_as(task, "DONE")


main()
