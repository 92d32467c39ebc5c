#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Calls of the store of a real eqd fail, under the load of several clients.

Whatever fails: clients are refused with the documented error or lose their connection without an answer, the journal says so, what
waits gives `persist` as its reason; and the next eqd, of which nothing fails, has all that was promised. EQD_LONG=1 fails many more
calls of each kind; tests/crash/faults does it to the store alone, with each call.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from eqdtest import BUILD, LONG, contains, equal, eventually, main, test
from history import QUEUES, History

FAILS, FULL, REFUSED, NOTHING, ANY = "the store has failed", "the store has no space", "cannot start", "", None
ONCE = "no space, once" # tried again at once where compaction frees a segment: then there is nobody to be told
# The call that fails, as the recorder's plan has it; what must come of it. At the start the tail is sealed where it is, by two
# syncs, and one segment is made to go on in.
PLANS = [
    ("sync log- 4 5", FAILS), ("sync log- 9 5", FAILS), ("sync log- 30 5", FAILS), ("sync log- 12 28", FAILS),
    ("sync log- 20+ 5", FAILS), ("write log- 4 5", FAILS), ("write log- 25 5", FAILS), ("write log- 17 torn", FAILS),
    ("write log- 8 short", NOTHING), ("sync new 2 5", FAILS), ("allocate new 2 5", FAILS), ("allocate new 2 28", ONCE),
    ("allocate new 2+ 28", FULL), ("open new 2 24", ONCE), ("rename log- 2 5", FAILS), ("rename log- 2 28", ONCE),
    ("write new-hint 1 28", NOTHING), ("unlink log- 2 5", ANY), ("sync log- 1 5", REFUSED), ("sync new 1 5", REFUSED),
    ("rename log- 1 5", REFUSED),
    ("open new 1 24", REFUSED), ("write new 1 5", REFUSED), ("sync store 1 5", REFUSED),
]
LONGER = [(f"{call} {n}{how}", ANY) for n in range(1, 60, 3) for call in ("sync log-", "write log-")
          for how in (" 5", "+ 5", " 28", " short", " torn")]
EQ_E_STORE = 24
BYTES = 20000 # of a task: a segment of a megabyte lasts for some dozens


def fails_as_documented(eqd, history, waits):
    for code, text in history.refused:
        equal(code, EQ_E_STORE, text)
        contains(text, "store")
    eqd.fails(75, "submit", "-q", "one", "--", "true", says=["the store has failed", "restart eqd"])
    equal(eqd.show(waits)["reason"], "persist")
    contains(eqd.ok("why", waits), "mend the disk and restart eqd")
    eqd.ok("queue", "create", "memory", "durable=no")
    eqd.ends_as(eqd.submit("-q", "memory", "--", "true"), "DONE")


def refused_for_space(history):
    for code, text in history.refused:
        equal(code, EQ_E_STORE, text)
        contains(text, "no space", "try again")


def submitted(eqd):
    """The id of a task, once there is space for it."""
    r = eqd.ctl("submit", "-q", "one", "--", "true")
    if r.rc == 0:
        return r.out.strip()
    equal(r.rc, 75, r.err)
    contains(r.err, "no space")
    return None


def is_full_as_documented(eqd, history, goes_on):
    refused_for_space(history)
    if goes_on:
        eventually(lambda: "the store has space again" in eqd.log_text(), "it has space again")
        eqd.ends_as(eqd.submit("-q", "one", "--", "true"), "DONE")
    else:
        eqd.fails(75, "submit", "-q", "one", "--", "true", says="no space")


def is_refused_as_documented(eqd, env):
    """What a start has to do depends on where compaction and hints were when the last eqd was killed: one that never comes to the
    call is killed in its turn, with something new at the end of the log."""
    for _ in range(9):
        with subprocess.Popen([eqd.eqd, "--socket", eqd.socket, "--state", eqd.dir / "state", "--config", eqd.dir / "config"],
                              env=eqd.environment(**env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as p:
            eventually(lambda p=p: p.poll() is not None or eqd.ctl("ping").rc == 0, "it has started, or not")
            if p.poll() is not None:
                equal(p.returncode, 1)
                contains(p.stderr.read(), "cannot start", "store")
                return
            eqd.ctl("submit", "-q", "aside", "--", "true")
            p.kill()
    raise AssertionError("no start has come to that call")


def start(eqd, history, env):
    """A start that has more to put in order comes to the call already, and is refused: then with another end of the log."""
    for _ in range(9):
        try:
            return eqd.start(env=env)
        except AssertionError:
            contains(eqd.log_text(), "cannot start", "store")
            eqd.forget()
            eqd.start()
            die(eqd, history, lambda: None)
    raise AssertionError("no start has come past that call")


def one_life(eqd, history, number, plan, outcome):
    trace = eqd.dir / "trace"
    trace.unlink(missing_ok=True)
    env = {"LD_PRELOAD": BUILD / "tests/crash/recorder.so", "EQD_TRACE": trace,
           "EQD_TRACE_ROOT": eqd.dir / "state", "EQD_TRACE_FAIL": plan}
    if outcome == REFUSED:
        is_refused_as_documented(eqd, env)
    start(eqd, history, env if outcome != REFUSED else {})
    history.refused = []
    waits = None
    if outcome == FAILS and eqd.ctl("submit", "-q", "aside", "--", "sleep", "1000").rc == 0: # or it has failed already
        waits = eqd.ctl("submit", "-q", "aside", "--", "true").out.strip()
    end = history.load(number, lambda rng, queue: BYTES)
    history.until_accepted(150, end, lambda: FAILS in eqd.log_text() or ("+" in plan and FULL in eqd.log_text()))
    if outcome in (FAILS, FULL): # it is written down by another thread
        eventually(lambda: outcome in eqd.log_text(), f"{plan}: it says that {outcome}")
    said = next((s for s in (FAILS, FULL) if s in eqd.log_text()), NOTHING)
    print(f"# {plan}: {said or 'goes on'}; {len(history.accepted)} accepted so far, {len(history.refused)} refused")
    if outcome == ONCE:
        equal(said in (FULL, NOTHING), True, f"{plan}: {said}")
    elif outcome not in (ANY, REFUSED):
        equal(said, outcome, plan)
    if said == FAILS and waits:
        fails_as_documented(eqd, history, waits)
    if said == FULL:
        is_full_as_documented(eqd, history, "+" not in plan)
    elif outcome == ONCE: # what the journal is to have may be on its way there, and the next try a second away
        refused_for_space(history)
        eqd.ends_as(eventually(lambda: submitted(eqd), "it has space again"), "DONE")
    return end


def die(eqd, history, end):
    """Clients that wait for what was not written go on waiting, until then."""
    os.kill(eqd.pid, signal.SIGKILL)
    end()
    eqd.close_connections()
    eqd.expect_end(120, -signal.SIGKILL)
    eqd.forget()
    history.note_marks()


@test(config={"eqd.conf": "[Store]\nSegmentSize=1M\n"}, seconds=9000 if LONG else 850)
def whatever_call_fails_nothing_that_was_told_is_lost(eqd):
    history = History(eqd)
    eqd.ok("queue", "create", "aside")
    for number, (plan, outcome) in enumerate(PLANS + (LONGER if LONG else [])):
        die(eqd, history, lambda: None)
        die(eqd, history, one_life(eqd, history, number, plan, outcome))
        eqd.start()
        for queue in QUEUES:
            eqd.ok("queue", "flush", queue)
        history.check()
        eqd.kill_task_now(*[task["id"] for task in eqd.ls("-q", "aside")])
    history.check_told(history.ended)
    print(f"# {history.summary()}")


main()
