#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""eqctl store: what is in the files of durable queues, and what is wrong with them; offline and beside a running eqd."""

import contextlib
import json
import os
import shutil
import subprocess

from eqdtest import RpcError, contains, equal, eventually, main, test
from ends import crash

LOG = "log-0000000000000001"
OPERATORS = 1236


def store(eqd):
    return eqd.dir / "state/store"


def copy(eqd, name="copy"):
    """Its store as kill -9 would leave it now, as a state directory."""
    target = eqd.dir / name
    shutil.copytree(store(eqd), target / "store")
    return target


def rows(eqd, *args, rc=0, **options):
    r = eqd.ctl("store", *args, "--json", **options)
    equal(r.rc, rc, r.err)
    return [json.loads(line) for line in r.out.splitlines()]


def problems(eqd, state, rc):
    return {(row["problem"], row["file"]): row for row in rows(eqd, "check", "--state", state, rc=rc)}


def some_tasks(eqd):
    eqd.ok("queue", "create", "q", "description=kept")
    eqd.wait(eqd.submit("-q", "q", "-J", "first", "--", "true"))
    eqd.ends_as(eqd.sh("exit 3", "-q", "q"), "FAILED")
    eqd.submit("-q", "q", "--hold", "--payload", "secret\nline", "--unique", "key", "--", "cat", "a b")


def files(state):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (state / "store").iterdir()}


def flip(path, at):
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))


@test()
def a_store_is_clean_beside_the_running_eqd_and_after_an_orderly_stop(eqd):
    some_tasks(eqd)
    r = eqd.ctl("store", "check")
    equal((r.rc, r.out), (0, ""), r.err)
    contains(r.err, "which an eqd is using", "0 findings, 0 notes")
    r = eqd.ctl("store", "check", "--state", eqd.dir / "state")
    equal((r.rc, r.out), (0, ""), r.err)
    contains(r.err, "which an eqd is using")
    eqd.stop()
    before = files(eqd.dir / "state")
    r = eqd.ctl("store", "check", "--state", eqd.dir / "state")
    equal((r.rc, r.out), (0, ""), r.err)
    contains(r.err, "3 tasks; 0 findings, 0 notes")
    for verb in ("stat", "dump"):
        eqd.ctl("store", verb, "--state", eqd.dir / "state")
    equal(files(eqd.dir / "state"), before, "nothing is written")
    equal(eqd.ctl("store", "check", "--quiet", "--state", store(eqd)).err, "", "a copy of `store` will do")


@test()
def dump_shows_each_record_and_what_it_says(eqd):
    some_tasks(eqd)
    state = copy(eqd)
    dump = rows(eqd, "dump", "--state", state)
    tasks = {r["seq"]: r for r in dump if r["kind"] == "task" and r["queue"] == "q"}
    ends = {r["seq"]: r for r in dump if r["kind"] == "end" and r["queue"] == "q"}
    equal((tasks[1]["label"], tasks[1]["argv"], tasks[1]["live"]), ("first", ["true"], True))
    equal((tasks[3]["unique"], tasks[3]["argv"], tasks[3]["payload_bytes"]), ("key", ["cat", "a b"], 11))
    equal("payload" in tasks[3], False)
    equal((ends[1]["state"], ends[2]["state"], ends[2]["exit"], ends[2]["attempt"]), ("DONE", "FAILED", 3, 1))
    equal(all(r["uid"] == eqd.connect().call("stat")["uid"] for r in tasks.values()), True)
    contains(str([r["set"] for r in dump if r["kind"] == "queue" and r["queue"] == "q"][-1]), "description=kept")
    for a, b in zip(dump, dump[1:]):
        if a["segment"] == b["segment"]:
            equal(a["offset"] + a["size"], b["offset"], "nothing between them")
    with_payload = rows(eqd, "dump", "--state", state, "-q", "q", "--payload", "--segment", LOG)
    equal({r["queue"] for r in with_payload}, {"q"})
    equal([r["payload"] for r in with_payload if r["kind"] == "task" and r["seq"] == 3], ["secret\nline"])
    people = eqd.ok("store", "dump", "--state", state, "-q", "q", "--payload", "--segment", "1")
    contains(people, "task  q/3", "cat 'a b'", "payload secret\\nline", "live", "end  q/2", "FAILED", "exit 3")
    equal(len(people.splitlines()), len(with_payload), "control characters make no lines")
    tsv = eqd.ok("store", "dump", "--state", state, "-o", "tsv", "--columns", "kind,seq", "-q", "q").splitlines()
    equal((tsv[0], "task\t3" in tsv), ("kind\tseq", True), f"{tsv}")
    equal(len(json.loads(eqd.ok("store", "dump", "--state", state, "-o", "json"))), len(dump))
    equal([r["seq"] for r in rows(eqd, "dump", "-q", "q") if r["kind"] == "task"], [1, 2, 3], "beside the running eqd")
    eqd.fails(66, "store", "dump", "--state", state, "-q", "nope", says="has no queue nope")
    eqd.fails(66, "store", "dump", "--state", state, "--segment", "77", says="no segment 77")
    eqd.fails(66, "store", "dump", "--state", state, "--segment", "x", says="`x` is no segment")


@test()
def stat_asks_the_eqd_that_runs_and_counts_the_files_of_one_that_does_not(eqd):
    some_tasks(eqd)
    # Who submits is told that a task is on the disk, then the index that it is there.
    told, *queues = eventually(lambda: (got := rows(eqd, "stat"))[0]["tasks"] == 3 and got, "three tasks are in the index")
    equal((told["health"], told["in_use"], told["directory"], told["segments"]), ("good", True, str(store(eqd).resolve()), 1))
    equal(0 < told["commit_p50_usec"] <= told["commit_p99_usec"] <= told["commit_max_usec"], True, f"{told}")
    equal({q["name"]: (q["pending"], q["finished"]) for q in queues}["q"], (1, 2))
    equal(rows(eqd, "stat", "--state", eqd.dir / "state")[0]["health"], "good", "the lock is held: it is asked")
    shown = eqd.queue("q")
    equal((shown["store_segments"], shown["store_bytes"] > 0), (1, True))
    equal(0 < shown["commit_p50_usec"] <= shown["commit_p99_usec"], True)
    equal("store_bytes" in eqd.connect().call("queue_list")[0], False, "only where one queue is asked for")
    eqd.ok("queue", "create", "--volatile", "memory")
    equal([k for k in eqd.queue("memory") if k.startswith(("store_", "commit_"))], [])
    people = eqd.ok("store", "stat")
    contains(people, "commit_p99_usec", "NAME", "live            ")

    counted = rows(eqd, "stat", "--state", copy(eqd))
    stat, = [r for r in counted if "directory" in r]
    by_name = {r["name"]: r for r in counted if "name" in r}
    equal((stat["in_use"], stat["pending"], stat["finished"], stat["tasks"], "commits" in stat), (False, 1, 2, 3, False))
    equal((by_name["q"]["pending"], by_name["q"]["finished"], by_name["q"]["last_seq"]), (1, 2, 3))
    equal(by_name["q"]["bytes"], shown["store_bytes"], "what the running eqd says")
    equal(stat["live_bytes"], sum(r["bytes"] for r in by_name.values()))
    equal(stat["live_bytes"], told["live_bytes"])
    equal(eqd.ok("store", "stat", "--state", eqd.dir / "copy", "-o", "id").split(), sorted(by_name, key=list(by_name).index))


@test()
def a_flipped_bit_is_named_with_what_it_was_and_what_becomes_of_it(eqd):
    some_tasks(eqd)
    state = copy(eqd)
    task, = [r for r in rows(eqd, "dump", "--state", state, "-q", "q") if r["kind"] == "task" and r["seq"] == 2]
    flip(state / "store" / LOG, task["offset"] + 40)
    found = problems(eqd, state, rc=1)["record", LOG]
    equal([found[k] for k in ("level", "offset", "kind", "queue", "seq")], ["damage", task["offset"], "task", "q", 2])
    people = eqd.fails(1, "store", "check", "--state", state).out
    contains(people, f"damage: {LOG} at byte {task['offset']}", "(task of q/2)", "at the next start: ", "to do: ")
    table = eqd.fails(1, "store", "check", "--state", state, "--columns", "level,offset").out
    contains(table, "LEVEL", str(task["offset"]))
    equal(eqd.fails(1, "store", "check", "--state", state, "-o", "id").out.split(), [LOG, LOG])
    contains(eqd.fails(1, "store", "dump", "--state", state).out, "damaged  q/2")
    contains(eqd.fails(1, "store", "stat", "--state", state).err, "1 finding")
    eqd.stop()
    shutil.rmtree(store(eqd))
    shutil.copytree(state / "store", store(eqd))
    eqd.start()
    kept = [p.name for p in store(eqd).glob("damaged-*")]
    equal(kept, [f"damaged-0000000000000001-{task['offset']:08x}"], "as was said")
    equal(rows(eqd, "stat")[0]["damaged"], 1)
    contains(eqd.ctl("store", "check").out, f"note: {kept[0]}: ")


@test()
def what_kill_9_leaves_is_no_finding(eqd):
    some_tasks(eqd)
    state = copy(eqd)
    size = [r for r in rows(eqd, "dump", "--state", state)][-1]
    log = state / "store" / LOG
    equal([k for k, _ in problems(eqd, state, rc=0)], ["unsealed"])
    data = bytearray(log.read_bytes())
    end = size["offset"] + size["size"]
    data[end - 16:end] = bytes(16)
    log.write_bytes(data)
    found = problems(eqd, state, rc=0)
    equal({k: row["level"] for (k, _), row in found.items()}, {"torn": "note", "unsealed": "note"})
    contains(found["torn", LOG]["what"], "never promised")
    contains(eqd.ok("store", "dump", "--state", state), "torn  ")


@test()
def foreign_and_future_files_are_named_and_left_alone(eqd):
    some_tasks(eqd)
    state = copy(eqd)
    good = (state / "store" / LOG).read_bytes()
    (state / "store/hello\nworld").write_text("x")
    (state / "store/log-0000000000000002").write_bytes(good[:8] + b"\x63" + good[9:])
    (state / "store/log-0000000000000003").write_text("no segment" * 10)
    (state / "store/running").write_text("short")
    before = files(state)
    found = problems(eqd, state, rc=1)
    equal({k: row["level"] for k, row in found.items()},
          {("foreign", "hello\nworld"): "note", ("version", "log-0000000000000002"): "refused",
           ("header", "log-0000000000000003"): "refused", ("running", "running"): "refused",
           ("no-seal", LOG): "damage"} if ("no-seal", LOG) in found else
          {("foreign", "hello\nworld"): "note", ("version", "log-0000000000000002"): "refused",
           ("header", "log-0000000000000003"): "refused", ("running", "running"): "refused",
           ("unsealed", LOG): "note"})
    contains(found["version", "log-0000000000000002"]["advice"], "that version")
    contains(eqd.fails(1, "store", "check", "--state", state).out, "hello\\nworld")
    equal(files(state), before)


@test()
def what_is_no_store_or_is_missing_is_said(eqd):
    empty = eqd.dir / "empty"
    empty.mkdir()
    eqd.fails(2, "store", "check", "--state", empty, says="holds no store")
    eqd.fails(2, "store", "check", "--state", eqd.dir / "nowhere", says="there is no ")
    eqd.fails(2, "store", "stat", "--state", eqd.eqctl, says="is no directory")
    (empty / "store").mkdir()
    r = eqd.ctl("store", "check", "--state", empty)
    equal((r.rc, r.out), (0, ""))
    contains(r.err, "0 segments")
    equal(rows(eqd, "stat", "--state", empty)[0]["tasks"], 0)
    eqd.stop()
    r = eqd.ctl("store", "stat")
    equal(r.rc, 69)
    contains(r.err, "--state DIR")
    tool = subprocess.run([eqd.eqctl.parent / "../daemon/storetool/eqd-store"], capture_output=True, check=False)
    equal(tool.returncode, 2)
    contains(tool.stderr.decode(), "eqctl store")


@test(root=True, other_users=True)
def only_administrators_may_look(eqd):
    some_tasks(eqd)
    for verb in ("stat", "check", "dump"):
        eqd.fails(77, "store", verb, uid=1234, says="for administrators")
    for verb in ("stat", "check", "dump"):
        eqd.fails(2, "store", verb, "--state", eqd.dir / "state", uid=1234, says="run this as root or as that user")
    eqd.ok("store", "check")


@test(root=True, other_users=True, config={"eqd.conf": f"[Daemon]\nAdminGroup={OPERATORS}\n"})
def members_of_admin_group_have_eqd_read_the_files(eqd):
    some_tasks(eqd)
    for args in (["check"], ["dump"], ["dump", "-q", "q", "--payload"], ["dump", "--segment", "1"]):
        equal(rows(eqd, *args, uid=OPERATORS), rows(eqd, *args))
    equal(len(rows(eqd, "dump", "-q", "q", uid=OPERATORS)) > 3, True)
    r = eqd.ctl("store", "check", uid=OPERATORS)
    equal((r.rc, r.out), (0, ""), r.err)
    contains(r.err, "which an eqd is using", "0 findings, 0 notes")
    eqd.fails(66, "store", "dump", "-q", "none", uid=OPERATORS, says="none")
    eqd.fails(66, "store", "dump", "--segment", "77", uid=OPERATORS, says="77")
    flip(store(eqd) / LOG, 30)
    found = rows(eqd, "check", rc=1, uid=OPERATORS)
    equal(found, rows(eqd, "check", rc=1))
    contains([row["file"] for row in found], LOG)


def pipe(files):
    """A pipe to have the store read into, whose reading end is kept."""
    read, write = os.pipe()
    files += [os.fdopen(read, "rb"), os.fdopen(write, "wb")]
    return write


@test()
def the_store_is_read_for_so_many_clients_and_until_they_go(eqd):
    some_tasks(eqd)
    c = eqd.connect()
    c.call("submit_many", "q", [{"argv": ["true"], "payload": "x" * 60000, "hold": True}] * 10) # more than a pipe holds
    with contextlib.ExitStack() as stack:
        files = []
        stack.callback(lambda: [f.close() for f in files])
        for args, text in ((("check",), "descriptor"), (("stat",), "verb"), (("dump",), "queue"), (("dump",), "segment")):
            bad = {"queue": {"queue": "a\0b"}, "segment": {"segment": "1\0"}}.get(text, {})
            refused(c, text, *args, fds=() if text == "descriptor" else [pipe(files)], **bad)
        readers = [eqd.connect() for _ in range(4)]
        for reader in readers:
            reader.send("store_read", "dump", payload=True, fds=[pipe(files)])
            reader.call("ping")
        refused(c, "4 clients", "check", fds=[pipe(files)])
        readers[0].close()
        eventually(lambda: not fails(c, "check", fds=[pipe(files)]), lambda: "the place of one who went is still taken")


def fails(c, *args, **options):
    try:
        equal(c.call("store_read", *args, **options), {"status": 0})
        return ""
    except RpcError as e:
        return e.text


def refused(c, text, *args, **options):
    contains(fails(c, *args, **options), text)


@test(config={"eqd.conf": "[Store]\nSegmentSize=1M\n"})
def beside_an_eqd_under_load_nothing_is_found_that_is_not_so(eqd):
    c = eqd.connect()
    eqd.ok("queue", "create", "q", "history=10", "max_active=4")
    for _ in range(6):
        c.call("submit_many", "q", [{"argv": ["true"], "label": "x" * 200, "hold": True}] * 500)
        ids = [r["id"] for r in c.call("list", queue="q", states=["WAITING"])[:400]]
        c.send("cancel", ids)
        equal(rows(eqd, "check"), [])
        rows(eqd, "dump", "-q", "q")
    equal(eqd.connect().call("ping"), None)
    crash(eqd)
    equal(rows(eqd, "check"), [])


main()
