#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""eqd and its spawner are killed in the same moment: what commands have left is ended by the next eqd, before they run again; and
nobody else is."""

import contextlib
import os
import signal
import struct

from eqdtest import STOP_SECONDS, alive, contains, equal, eventually, is_gone, main, proc_stat, test
from ends import crash, spawners

HEADER, ROW = 128, 64
# Ignores TERM, and has forked three. The next attempt says which of those it finds alive.
TREE = r"""
if [ $EQD_ATTEMPT = 1 ]; then
    trap '' TERM
    sleep 1000 & echo $! >>work/tree
    sh -c 'trap "" TERM; sleep 1000 & echo $! >>work/tree; wait' & echo $! >>work/tree
    while [ $(wc -l <work/tree) != 3 ]; do :; done
    echo ready
    wait
fi
for p in $(cat work/tree); do
    grep -qs '^State:.[^ZX]' /proc/$p/status && echo $p >>work/found
done
echo ran >>work/again
"""
# Its leader does not die with the spawner.
STAYS = r"""
import ctypes, os, time
if os.environ["EQD_ATTEMPT"] == "1":
    ctypes.CDLL(None).prctl(1, 0) # PR_SET_PDEATHSIG
    child = os.fork() or time.sleep(1000)
    with open("work/tree", "w") as f:
        f.write(f"{os.getpid()}\n{child}\n")
    print("ready", flush=True)
    time.sleep(1000)
for p in open("work/tree").read().split():
    try:
        state = open(f"/proc/{p}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        continue
    if state not in "ZX":
        open("work/found", "a").write(f"{p}\n")
open("work/again", "a").write("ran\n")
"""


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def run(eqd, *command):
    """Runs it until it says ready, and is marked with its process. The task, and the processes that it has told of."""
    task = eqd.submit(*command)
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    eqd.until_state(task, "RUNNING")
    return task, [int(p) for p in (eqd.dir / "work/tree").read_text().split()]


def kill_all(eqd):
    """eqd and both processes of the spawner, none of which can do anything about the others' deaths."""
    eqd.close_connections()
    three = [eqd.pid, *spawners(eqd)]
    for p in three:
        os.kill(p, signal.SIGSTOP)
        eventually(lambda p=p: proc_stat(p)[0] == "T", "it is stopped")
    for p in three:
        os.kill(p, signal.SIGKILL)
    eqd.expect_end(STOP_SECONDS, -signal.SIGKILL)
    eventually(lambda: all(is_gone(p) for p in three), "they are gone")
    eqd.forget()


def nothing_was_found(eqd, task, tree):
    eqd.ends_as(task, "DONE", attempt=2, crashes=1)
    equal((eqd.dir / "work/again").read_text(), "ran\n")
    equal((eqd.dir / "work/found").exists(), False, "the second attempt found some of the first alive")
    equal(alive(tree), [])


@test()
def a_tree_that_was_left_is_gone_before_its_task_runs_again(eqd):
    task, tree = run(eqd, "-c", TREE)
    kill_all(eqd)
    equal(len(alive(tree)), 3, "all live on")
    eqd.start()
    nothing_was_found(eqd, task, tree)
    eqd.has_logged(f"task {task}: of attempt 1, which ran when eqd was killed, ", " processes were left and killed: ")


@test()
def a_leader_that_was_left_is_known_by_its_start(eqd):
    task, tree = run(eqd, "--", "python3", "-c", STAYS)
    kill_all(eqd)
    equal(len(alive(tree)), 2, "both live on")
    eqd.start()
    nothing_was_found(eqd, task, tree)
    eqd.has_logged(f"task {task}: of attempt 1, which ran when eqd was killed, processes were left and killed: 2")


@test(cgroup=True)
def with_cgroups_nothing_is_left_either(eqd):
    task, tree = run(eqd, "-c", TREE)
    kill_all(eqd)
    eqd.start()
    nothing_was_found(eqd, task, tree)


@contextlib.contextmanager
def rows(eqd):
    """The file of what ran, to be changed between two eqd."""
    path = eqd.dir / "state/store/running"
    data = bytearray(path.read_bytes())
    yield data
    path.write_bytes(data)


def the_row(data):
    [at] = [at for at in range(HEADER, len(data), ROW) if struct.unpack_from("=Q", data, at + 24)[0]]
    return at


def is_left_alone(eqd, change, *command, says):
    task, tree = run(eqd, *command)
    kill_all(eqd)
    with rows(eqd) as data:
        change(data)
    left = [p for p in tree if not is_gone(p)]
    equal(len(left) >= 2, True, f"{tree}")
    try:
        eqd.start()
        eqd.ends_as(task, "DONE", attempt=2, crashes=1)
        equal([int(p) for p in (eqd.dir / "work/found").read_text().split()], left)
        equal("were left; they were killed" in eqd.log_text(), False)
        if says:
            eqd.has_logged(says)
    finally:
        for p in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, signal.SIGKILL)


def another_boot(data):
    data[32:48] = bytes(16 * [7])
    data[12:16] = bytes(4)
    data[12:16] = struct.pack("=I", crc32c(data[:64]))


def another_start(data):
    at = the_row(data)
    [start] = struct.unpack_from("=Q", data, at + 40)
    struct.pack_into("=Q", data, at + 40, start + 1)
    [check, old] = struct.unpack_from("=Q", data, at + 24) + struct.unpack_from("=Q", data, at + 48)
    sum_of = crc32c(data[at + 32:at + 48], check & 0xffffffff)
    equal(sum_of != old & 0xffffffff, True)
    struct.pack_into("=Q", data, at + 48, old >> 32 << 32 | sum_of)


@test()
def after_another_boot_nobody_is_killed(eqd):
    is_left_alone(eqd, another_boot, "--", "python3", "-c", STAYS, says=None)


@test()
def a_process_that_began_at_another_time_is_left_alone_and_named(eqd):
    is_left_alone(eqd, another_start, "--", "python3", "-c", STAYS, says="that number is another process by now")


@test()
def a_process_whose_mark_is_damaged_is_left_alone_and_named(eqd):
    def spoil(data):
        data[the_row(data) + 33] ^= 4
    is_left_alone(eqd, spoil, "--", "python3", "-c", STAYS, says="is damaged where its process is")


@test()
def a_damaged_header_is_named_and_nobody_is_killed(eqd):
    def spoil(data):
        data[40] ^= 3 # one bit would be mended
    is_left_alone(eqd, spoil, "--", "python3", "-c", STAYS, says="store: the header of the file running is damaged")


@test()
def a_spawner_that_does_not_end_is_ended(eqd):
    """It is stopped, so that it does not see that its eqd is gone, and what it runs goes on."""
    task, tree = run(eqd, "-c", TREE)
    both = spawners(eqd)
    for p in both:
        os.kill(p, signal.SIGSTOP)
    crash(eqd)
    equal(alive(both), [])
    nothing_was_found(eqd, task, tree)


def damage_mark(eqd, *bits):
    kill_all(eqd)
    with rows(eqd) as data:
        at = the_row(data)
        for bit in bits:
            data[at + bit // 8] ^= 1 << bit % 8
    eqd.start()


@test()
def a_damaged_mark_of_a_task_that_is_to_run_once_counts_if_it_may_be_its(eqd):
    eqd.ok("queue", "create", "q", "at_most_once=yes")
    task = eqd.sh("echo begun >>work/begun; echo ready; exec sleep 1000", "-q", "q")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    damage_mark(eqd, 8 * 16 + 1, 8 * 24 + 3) # its attempt, and the sum
    eqd.ends_as(task, "FAILED", reason="lost")
    equal((eqd.dir / "work/begun").read_text(), "begun\n")
    eqd.has_logged("of the file running is damaged: a run that was cut short may not be counted")


@test()
def a_damaged_mark_brings_no_other_task_nearer_to_its_end(eqd):
    eqd.ok("queue", "create", "q", "max_crashes=1")
    task = eqd.sh("[ -e work/over ] || { echo ready; exec sleep 1000; }", "-q", "q") # looks before it speaks
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    (eqd.dir / "work/over").touch()
    damage_mark(eqd, 8 * 16 + 1, 8 * 24 + 3) # its attempt, and the sum
    eqd.ends_as(task, "DONE", attempt=1)
    eqd.has_logged("of the file running is damaged: a run that was cut short may not be counted")


@test()
def one_wrong_bit_of_a_mark_costs_nothing(eqd):
    eqd.ok("queue", "create", "q", "at_most_once=yes")
    task = eqd.sh("echo ready; exec sleep 1000", "-q", "q")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    damage_mark(eqd, 8 * 8) # its SEQ
    eqd.ends_as(task, "FAILED", reason="lost", attempt=1)
    eqd.has_logged("of the file running had a wrong bit, and counts as it was written")


@test(eqd=False)
def a_file_of_another_version_is_refused_and_left_alone(place):
    (place.dir / "state2").mkdir()
    (place.dir / "state2/store").mkdir(mode=0o700)
    path = place.dir / "state2/store/running"
    header = bytearray(b"EQDMARKS" + struct.pack("=IIII", 2, 0, 65536, 64) + bytes(40))
    header[12:16] = struct.pack("=I", crc32c(header))
    for data, says in ((bytes(header) + bytes(64), "another version"), (b"not of eqd", "move it away"), (b"", "move it away")):
        path.write_bytes(data)
        r = place.run_eqd("--socket", place.socket)
        equal(r.rc, 1, r.err)
        contains(r.err, "store/running", says)
        equal(path.read_bytes(), data)


if __name__ == "__main__":
    main()
