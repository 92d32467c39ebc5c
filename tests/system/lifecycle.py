#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The life of tasks and queues, seen from eqctl: submit, order, ends, retries, waits, queue verbs, capacity."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ends import crash
from eqdtest import RpcError, Skip, contains, descendants, equal, eventually, is_gone, main, test


class Gate:
    """A task that runs `gate.wait` stands still until the test opens the gate; opening waits for the task to be there."""

    def __init__(self, eqd, name="gate"):
        self.path = eqd.dir / "work" / name
        os.mkfifo(self.path)
        self.path.chmod(0o666)
        self.wait = f"read x <{self.path}"

    def open(self):
        self.path.write_text("\n")


def lines(eqd, name):
    path = eqd.dir / "work" / name
    return path.read_text().split() if path.exists() else []


def note(word, name="order"):
    return f"echo {word} >>work/{name}"


def block(eqd, queue="default"):
    """A running task that holds a serial queue; canceled with eqd.kill_task_now() or by the end of the test."""
    task = eqd.submit("-q", queue, "--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    return task


# ---- ends ----

@test()
def submit_prints_the_id_and_nothing_else(eqd):
    equal(eqd.ctl("submit", "--", "true").out, "default/1\n")
    equal(eqd.ctl("submit", "--", "true").out, "default/2\n")
    eqd.ends_as("default/2", "DONE", exit=0, attempt=1)


@test()
def exit_status_is_that_of_the_task(eqd):
    for status in (0, 1, 7, 99, 124, 125, 126, 127, 255):
        equal(eqd.ctl("run", "-c", f"exit {status}").rc, status, "run")
        equal(eqd.ctl("submit", "--wait", "-c", f"exit {status}").rc, status, "submit --wait")
    for status, state in ((0, "DONE"), (7, "FAILED")):
        task = eqd.sh(f"exit {status}")
        equal(eqd.ctl("wait", task).rc, status, "wait")
        eqd.ends_as(task, state, exit=status)
        equal(eqd.ctl("wait", task).rc, status, "wait for a finished one")


@test()
def death_by_signal_n_is_128_plus_n(eqd):
    for n in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        task = eqd.sh(f"kill -{int(n)} $$")
        equal(eqd.ctl("wait", task).rc, 128 + n)
        eqd.ends_as(task, "FAILED", signal=int(n))


@test()
def a_command_that_is_not_found_is_127_and_one_that_cannot_be_executed_126(eqd):
    r = eqd.ctl("run", "--", "/no/such/program")
    equal(r.rc, 127)
    contains(r.err, "No such file")
    r = eqd.ctl("run", "--", "no-such-program-in-path")
    equal(r.rc, 127)
    (eqd.dir / "work/plain").write_text("text")
    r = eqd.ctl("run", "--", eqd.dir / "work/plain")
    equal(r.rc, 126)
    contains(r.err, "ermission denied")
    equal(eqd.show("default/1")["state"], "FAILED")


@test()
def time_out_is_124_and_state_TIMEOUT(eqd):
    task = eqd.submit("-t", "100ms", "--", "sleep", "1000")
    equal(eqd.ctl("wait", task)[::2], (124, f"eqctl: {task} is TIMEOUT: ran longer than its timeout\n"))
    equal(eqd.ctl("wait", "--quiet", task)[::2], (124, ""))
    eqd.ends_as(task, "TIMEOUT", signal=15)


@test()
def time_out_of_the_last_attempt_is_124_as_well_however_the_command_took_it(eqd):
    again = ["-r", "1", "--backoff", "exp:1ms:1ms"]
    hangs = eqd.submit("-t", "300ms", *again, "--", "sleep", "1000")
    obeys = eqd.sh("trap 'exit 0' TERM; while :; do sleep 0.01; done", "-t", "300ms", *again)
    for _ in range(2):
        for task in (hangs, obeys):
            equal(eqd.ctl("wait", task)[::2], (124, f"eqctl: {task} is DEAD: ran longer than its timeout\n"))
            eqd.ends_as(task, "DEAD", attempt=2, reason="timeout")
        crash(eqd) # and the next eqd knows
    fails = eqd.sh("[ $EQD_ATTEMPT = 2 ] && exit 7; exec sleep 1000", "-t", "3s", *again) # the second one needs that on no machine
    equal(eqd.ctl("wait", fails).rc, 7) # an earlier one does not count
    eqd.ends_as(fails, "DEAD", attempt=2, reason=None)


@test()
def an_end_by_a_signal_is_said_and_one_by_KILL_hints_at_memory(eqd):
    r = eqd.ctl("run", "-c", "kill -TERM $$")
    equal((r.rc, r.err), (143, "eqctl: default/1 is FAILED: ended by signal 15 (Terminated)\n"))
    task = eqd.submit("--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    eqd.ok("kill", "-9", task)
    r = eqd.ctl("wait", task)
    equal((r.rc, r.err), (137, f"eqctl: {task} is FAILED: ended by signal 9 (Killed), which the kernel sends when memory is short\n"))
    task = eqd.submit("--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    eqd.kill_task_now(task)
    equal(eqd.show(task)["detail"], "canceled on request")


@test()
def on_a_terminal_a_wait_for_a_queue_says_for_what(eqd):
    gate = Gate(eqd)
    eqd.sh(gate.wait)
    eqd.until_state("default/1", "RUNNING")
    eqd.submit("--", "true")
    reader, terminal = os.openpty()
    try:
        p = subprocess.Popen([eqd.eqctl, "--socket", eqd.socket, "queue", "flush", "default"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=terminal, env=eqd.environment())
        equal(os.read(reader, 200).decode().strip(),
              "eqctl: waiting for 2 tasks of queue default (1 running); ^C ends the wait only")
        gate.open()
        equal((p.communicate(timeout=60)[0], p.returncode), (b"", 0))
    finally:
        os.close(reader)
        os.close(terminal)


@test(eqd=False)
def root_is_told_of_an_eqd_of_his_own(place):
    """eqctl of root asks the system's eqd, unless told otherwise."""
    if Path("/run/eqd/eqd.sock").exists():
        raise Skip("there is an eqd of the system")
    if os.geteuid() != 0:
        raise Skip("others are led to their own")
    (place.dir / "eqd").mkdir()
    env = {**place.environment(), "XDG_RUNTIME_DIR": str(place.dir)}

    def ping():
        p = subprocess.run([place.eqctl, "ping"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return p.returncode, p.stderr
    rc, said = ping()
    equal((rc, "--user" in said, "systemctl start eqd" in said), (69, True, True), said)
    (place.dir / "eqd/eqd.sock").touch()
    equal(ping(), (69, "eqctl: no eqd answers at /run/eqd/eqd.sock: No such file or directory; there is one of yours, "
                       f"at {place.dir}/eqd/eqd.sock: use --user\n"))


@test()
def a_time_out_of_0_is_none_whatever_the_queue_says(eqd):
    os.mkfifo(eqd.dir / "work/gate")
    eqd.ok("queue", "create", "q", "timeout=1s", "max_active=2")
    without = eqd.sh("read -r go <work/gate", "-q", "q", "-t", "0")
    eqd.until_state(without, "RUNNING")
    eqd.ends_as(eqd.submit("-q", "q", "--", "sleep", "1000"), "TIMEOUT") # which began later
    equal(eqd.show(without)["state"], "RUNNING")
    (eqd.dir / "work/gate").write_text("go\n")
    eqd.ends_as(without, "DONE")


@test()
def time_out_kills_the_whole_tree_after_grace(eqd):
    task = eqd.sh("trap '' TERM; sh -c \"trap '' TERM; echo \\$\\$ >work/child; sleep 1000\" & echo $$ >work/leader; "
                  "wait; wait", "-t", "3s", "--grace", "200ms") # until then both ignore the signal
    eqd.ends_as(task, "TIMEOUT", signal=9)
    for name in ("child", "leader"):
        pid = int(lines(eqd, name)[0])
        eventually(lambda: is_gone(pid), f"{name} {pid} of the task still runs")


@test()
def a_task_may_use_its_grace(eqd):
    task = eqd.sh("trap 'echo cleaned; exit 3' TERM; echo here; while :; do sleep 0.01; done", "-t", "3s",
                  "--grace", "50s") # until then it has its trap
    eqd.ends_as(task, "TIMEOUT", exit=3)
    contains(eqd.logs(task), "cleaned")


@test()
def a_task_that_never_ran_is_125_and_says_why(eqd):
    block(eqd)
    for args, reason in ((["--", "true"], "CANCELED"), (["-e", "50ms", "--", "true"], "EXPIRED")):
        task = eqd.submit(*args)
        waiting = eqd.start_ctl("wait", task)
        if reason == "CANCELED":
            eqd.ok("cancel", task)
        err = waiting.communicate(timeout=60)[1].decode()
        equal(waiting.returncode, 125)
        contains(err, task, reason)
        equal(eqd.show(task)["state"], reason)


@test()
def wait_for_several_gives_the_highest_status_and_any_the_first(eqd):
    eqd.ok("queue", "create", "p", "max_active=4")
    a, b, c = (eqd.sh(f"exit {n}", "-q", "p") for n in (3, 9, 0))
    equal(eqd.ctl("wait", a, b, c).rc, 9)
    slow = eqd.submit("-q", "p", "--", "sleep", "1000")
    equal(eqd.ctl("wait", "--any", slow, a).rc, 3)


@test()
def wait_gives_up_with_75_when_its_time_is_over(eqd):
    task = block(eqd)
    equal(eqd.ctl("wait", "--timeout", "50ms", task).rc, 75)
    equal(eqd.show(task)["state"], "RUNNING")


@test()
def wait_for_running_ends_with_the_start_of_all_or_of_any(eqd):
    first = block(eqd)
    equal(eqd.ctl("wait", "--for", "running", first).rc, 0)
    equal(eqd.show(first)["state"], "RUNNING", "it is not waited for its end")
    second, third = (eqd.submit("--", "sleep", "1000") for _ in range(2))
    equal(eqd.ctl("wait", "--for", "running", "--timeout", "50ms", first, second).rc, 75)
    equal(eqd.ctl("wait", "--for", "running", "--any", first, second).rc, 0)
    both, beside = eqd.connect(), eqd.connect()
    waiting = both.send("wait", [second, third], {"started": True})
    ends = beside.send("wait", [second])
    beside.call("ping") # both wait by now
    both.call("ping")
    for task in (second, first):
        eqd.ok("cancel", task)
    equal([(row["id"][1], row["state"]) for row in beside.reply(ends)], [(2, "CANCELED")])
    equal([(row["id"][1], row["state"]) for row in both.reply(waiting)], [(2, "CANCELED"), (3, "RUNNING")])
    equal(eqd.ctl("wait", "--for", "running", first, third).rc, 0, "one has run, one runs")
    row = json.loads(eqd.ok("wait", "--json", "--for", "running", third))
    equal((row["id"], row["state"]), (third, "RUNNING"))


@test()
def wait_for_running_is_125_for_what_will_not(eqd):
    block(eqd)
    task = eqd.submit("--", "true")
    waiting = eqd.start_ctl("wait", "--for", "running", task)
    eqd.ok("cancel", task)
    err = waiting.communicate(timeout=60)[1].decode()
    equal(waiting.returncode, 125)
    contains(err, f"{task} will not run: it is CANCELED")
    eqd.fails(2, "wait", "--for", "queued", task, says="`queued` is no state to wait for; running or ended")
    eqd.fails(2, "wait", "--for", "running", "-q", "default", says="give their ids")
    equal(eqd.ctl("wait", "--for", "ended", task).rc, 125)


# ---- input, output, environment ----

@test()
def output_of_both_streams_is_kept_apart(eqd):
    task = eqd.sh("echo out; echo err >&2; printf tail")
    eqd.wait(task)
    r = eqd.ctl("logs", task)
    equal((r.out, r.err), ("out\ntail", "err\n"))
    equal(eqd.ctl("logs", "--stdout", task)[1:], ("out\ntail", ""))
    equal(eqd.ctl("logs", "--stderr", task)[1:], ("", "err\n"))
    r = eqd.ctl("run", "-c", "echo out; echo err >&2")
    equal((r.rc, r.out, r.err), (0, "out\n", "err\n"))


@test()
def output_null_throws_output_away(eqd):
    eqd.ok("queue", "create", "quiet", "output=null")
    task = eqd.sh("echo out; echo err >&2; w=$(readlink /proc/$$/fd/1); echo $w >work/where", "-q", "quiet")
    equal(eqd.wait(task)["exit"], 0)
    equal(lines(eqd, "where"), ["/dev/null"])
    r = eqd.ctl("logs", task)
    equal((r.out, r.err), ("", ""))


@test()
def merged_output_keeps_the_exact_order(eqd):
    task = eqd.sh("for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done", "--merge")
    eqd.wait(task)
    equal(eqd.ctl("logs", task).out.split(), [f"{s}{i}" for i in range(1, 10) for s in "oe"])


@test()
def the_last_64_KiB_of_a_stream_are_kept(eqd):
    task = eqd.sh("i=0; while [ $i -lt 3000 ]; do printf '%063d\\n' $i; i=$((i+1)); done")
    shown = eqd.wait(task)
    equal(shown["stdout_bytes"], 3000 * 64)
    kept = eqd.ctl("logs", task).out
    if not 65536 - 64 <= len(kept) <= 2 * 65536 + 4096:
        raise AssertionError(f"{len(kept)} bytes kept")
    equal(kept[-64:], "%063d\n" % 2999)


def of_attempts(eqd, task, *ks):
    """(out, err) of logs --attempt, for each."""
    return [eqd.ctl("logs", "--attempt", k, task)[1:] for k in ks]


@test()
def each_attempt_of_a_retried_task_has_its_output(eqd):
    task = eqd.sh("echo out$EQD_ATTEMPT; echo err$EQD_ATTEMPT >&2; [ $EQD_ATTEMPT = 4 ]", "-r", "3", "--backoff", "exp:1ms")
    shown = eqd.ends_as(task, "DONE", attempt=4)
    equal((shown["stdout_bytes"], shown["stderr_bytes"]), (5, 5), "of the last attempt")
    equal(of_attempts(eqd, task, 1, 2, 3, 4), [(f"out{k}\n", f"err{k}\n") for k in (1, 2, 3, 4)])
    equal(eqd.ctl("logs", task)[1:], ("out4\n", "err4\n"))
    equal(eqd.ok("logs", "--attempt", "2", "--json", "--stderr", task), '{"stream":"stderr","text":"err2\\n"}')
    equal(eqd.ctl("logs", "--attempt", "3", "-f", "-n", "1", "--stdout", task)[1:], ("out3\n", ""))
    eqd.fails(1, "logs", "--attempt", "5", task, says=[f"{task} has had 4 attempts; there is no attempt 5"])
    eqd.fails(2, "logs", "--attempt", "0", task, says="--attempt")
    eqd.fails(2, "logs", "--attempt", "65536", task, says="--attempt")
    once, never = eqd.submit("--", "true"), eqd.submit("--hold", "--", "true")
    eqd.wait(once)
    eqd.fails(1, "logs", "--attempt", "2", once, says=[f"{once} has had 1 attempt; there is no attempt 2"])
    eqd.fails(1, "logs", "--attempt", "1", never, says=[f"{never} has had no attempt yet"])
    equal(eqd.ctl("logs", never)[1:], ("", ""))
    eqd.ok("retry", "--reset", task) # counts from 1 again: nothing of before
    eqd.ends_as(task, "DONE", attempt=4)
    equal(of_attempts(eqd, task, 1, 4), [("out1\n", "err1\n"), ("out4\n", "err4\n")])


@test()
def of_earlier_attempts_is_kept_what_the_last_one_leaves_free(eqd):
    fill = "head -c $1 /dev/zero | tr '\\0' $EQD_ATTEMPT"
    task = eqd.sh("case $EQD_ATTEMPT in 1) echo early; echo err >&2; exit 1;; 4) exit 0;; 5) set -- 65536;; *) set -- 40000;; esac;"
                  f"{fill}; [ $EQD_ATTEMPT = 5 ]", "-r", "2", "--backoff", "exp:1ms")
    eqd.ends_as(task, "DEAD", attempt=3, stdout_bytes=40000)
    (one, said), (two, lost), (three, nothing) = of_attempts(eqd, task, 1, 2, 3)
    equal((one, said.splitlines()[-1]), ("", "err"))
    contains(said, "6 bytes before this are gone")
    equal((two, three == "3" * 40000, nothing), ("2" * (65536 - 40000), True, ""))
    contains(lost, f"{80000 - 65536} bytes before this are gone")
    eqd.ok("retry", task)
    eqd.ends_as(task, "DONE", attempt=4)
    equal(of_attempts(eqd, task, 3, 4), [("3" * 40000, ""), ("", "")])
    eqd.ok("retry", task)
    eqd.ends_as(task, "DONE", attempt=5)
    equal(eqd.ctl("logs", task)[1:] == ("5" * 65536, ""), True)
    equal(of_attempts(eqd, task, 3)[0], ("", "eqctl: 40000 bytes before this are gone\n"))


@test()
def who_follows_an_attempt_is_done_when_it_has_ended(eqd):
    gate, second = Gate(eqd), Gate(eqd, "second")
    task = eqd.sh(f"echo first$EQD_ATTEMPT; if [ $EQD_ATTEMPT = 1 ]; then {gate.wait}; else {second.wait}; fi; echo second; "
                  "[ $EQD_ATTEMPT = 2 ]", "-r", "1", "--backoff", "exp:1ms")
    eqd.ok("wait", "--for", "running", task)
    one, all_of_it = eqd.start_ctl("logs", "-f", "--attempt", "1", task), eqd.start_ctl("logs", "-f", task)
    equal([p.stdout.readline() for p in (one, all_of_it)], [b"first1\n"] * 2)
    gate.open()
    equal(one.communicate(timeout=60)[0], b"second\n")
    equal(one.returncode, 0)
    equal([all_of_it.stdout.readline() for _ in range(2)], [b"second\n", b"first2\n"])
    equal(eqd.ok("logs", "-f", "--attempt", "1", task), "first1\nsecond", "one that has ended, while another runs")
    late = eqd.start_ctl("logs", "-f", task)
    equal(late.stdout.readline(), b"first2\n", "the last attempt only")
    second.open()
    equal([p.communicate(timeout=60)[0] for p in (all_of_it, late)], [b"second\n"] * 2)


@test()
def run_prints_what_each_attempt_writes_once(eqd):
    script = "echo o$EQD_ATTEMPT; [ $EQD_ATTEMPT = 3 ]"
    equal(eqd.ctl("run", "-r", "2", "--backoff", "exp:1ms", "-c", script)[1:], ("o1\no2\no3\n", ""))
    equal(eqd.ctl("submit", "-w", "-f", "-r", "2", "--backoff", "exp:1ms", "-c", script).out, "o1\no2\no3\n")
    c = eqd.connect()
    c.call("submit", "default", b"", argv=["sh", "-c", script], retries=2, backoff_usec=1000, attach=True)
    notes = [c.note(lambda method, params: method == "output") for _ in range(3)]
    equal([tuple(params[2:]) for params in notes], [(b"o1\n", 1), (b"o2\n", 2), (b"o3\n", 3)])


@test()
def run_passes_standard_input_and_binary_output(eqd):
    data = bytes(range(256)) * 2000
    r = eqd.ctl("run", "--", "cat", input=data, raw=True)
    equal((r.rc, r.out == data), (0, True))


@test()
def a_payload_is_standard_input(eqd):
    task = eqd.submit("--payload", "-", "--", "cat", input="hello payload")
    eqd.ends_as(task, "DONE", payload_bytes=13)
    equal(eqd.logs(task), "hello payload")


@test()
def output_of_a_running_task_is_followed_to_its_end(eqd):
    gate = Gate(eqd)
    task = eqd.sh(f"echo first; {gate.wait}; echo second")
    follow = eqd.start_ctl("logs", "-f", task)
    equal(follow.stdout.readline(), b"first\n")
    gate.open()
    equal(follow.communicate(timeout=60)[0], b"second\n")
    equal(follow.returncode, 0)


@test()
def output_goes_to_files_when_asked(eqd):
    task = eqd.sh("echo o; echo e >&2", "--stdout", "work/o", "--stderr", "work/e")
    eqd.ends_as(task, "DONE")
    equal((lines(eqd, "o"), lines(eqd, "e")), (["o"], ["e"]))


@test()
def the_environment_is_an_allow_list_plus_what_was_asked_for(eqd):
    env = {"EQT_SECRET": "s3cret", "HOME": "/nowhere", "EQT_WANTED": "yes"}
    r = eqd.ctl("run", "-E", "EQT_WANTED", "-E", "EQT_MORE=a b", "--", "env", env=env)
    contains(r.out, "HOME=/nowhere\n", "EQT_WANTED=yes\n", "EQT_MORE=a b\n", "EQD_TASK=default/1\n",
             "EQD_QUEUE=default\n")
    equal("s3cret" in r.out, False)
    equal("NOTIFY_SOCKET" in r.out, False)


@test()
def working_directory_and_umask_are_those_of_the_caller(eqd):
    equal(eqd.ctl("run", "--", "pwd").out.strip(), str(eqd.dir))
    equal(eqd.ctl("run", "-C", "/usr", "--", "pwd").out, "/usr\n")
    equal(eqd.ctl("run", "--umask", "027", "-c", "umask").out.strip()[-3:], "027")


@test()
def nice_and_resource_limits_are_set(eqd):
    nice = str(max(7, os.nice(0))) # who is nicer himself cannot give that up
    equal(eqd.ctl("run", "--nice", nice, "-c", "nice").out, f"{nice}\n")
    equal(eqd.ctl("run", "--rlimit", "nofile=77", "-c", "ulimit -n").out, "77\n")


IOPRIO_GET = {"x86_64": 252, "aarch64": 31, "riscv64": 31}  # system calls, which the C library has no name for


@test()
def the_class_of_disk_accesses_is_set_and_shown(eqd):
    number = IOPRIO_GET.get(os.uname().machine)
    ask = f"import ctypes; v = ctypes.CDLL(None).syscall({number}, 1, 0); print(v >> 13, v & 0x1fff)"
    for ionice, is_set in (("idle", "3 0"), ("best-effort", "2 4"), ("best-effort:7", "2 7")):
        if number:
            equal(eqd.ok("run", "--ionice", ionice, "--", sys.executable, "-c", ask), is_set)
        task = eqd.submit("-H", "--ionice", ionice, "--nice", "3", "--", "true")
        equal([eqd.show(task).get(k) for k in ("ionice", "nice")], [ionice, 3])
    for bad in ("idle:1", "best-effort:8", "best-effort:", "best-effort:10", "realtime:/", "lazy", ""):
        eqd.fails(2, "submit", "--ionice", bad, "--", "true", says=("ionice", "best-effort:N"))


@test()
def realtime_disk_accesses_are_for_root(eqd):
    if os.getuid() != 0:
        eqd.fails(77, "submit", "--ionice", "realtime:0", "--", "true", says=("root", "best-effort:0"))
        return
    equal(eqd.show(eqd.submit("-H", "--ionice", "realtime:0", "--", "true"))["ionice"], "realtime:0")
    os.chmod(eqd.dir, 0o755)
    eqd.fails(77, "submit", "--ionice", "realtime:0", "--", "true", uid=65534, says=("root", "best-effort:0"), cwd="/")


@test()
def the_type_of_a_payload_is_kept_and_shown(eqd):
    task = eqd.submit("-H", "--payload", "[1]", "--mime", "application/json", "--ionice", "idle", "--", "cat")
    crash(eqd)
    equal([eqd.show(task).get(k) for k in ("mime", "ionice")], ["application/json", "idle"])
    for bad in ("json", "/json", "text/", "a/\n"):
        eqd.fails(2, "submit", "--payload", "x", "--mime", bad, "--", "cat", says="mime")
    eqd.fails(2, "submit", "--mime", "text/plain", "--", "cat", says="--payload")


@test()
def no_pager_is_taken_by_every_verb(eqd):
    task = eqd.submit("--no-pager", "--", "true")
    equal(eqd.ok("--no-pager", "wait", task), "")
    equal(eqd.ok("show", "-o", "id", "--no-pager", task), task)


@test()
def a_task_has_no_descriptors_but_its_three(eqd):
    r = eqd.ctl("run", "--", "ls", "-l", "/proc/self/fd")
    numbers = [line.split()[-3] for line in r.out.splitlines() if "->" in line]
    equal([n for n in numbers if int(n) > 3], [], r.out) # 3 is ls's own look at the directory


# ---- order ----

@test()
def a_serial_queue_runs_strictly_in_order(eqd):
    eqd.ok("queue", "pause", "default")
    for i in range(30):
        eqd.sh(f"{note(f'+{i}')}; {note(f'-{i}')}")
    eqd.ok("queue", "resume", "default")
    eqd.ok("wait", "-q", "default")
    equal(lines(eqd, "order"), [f"{sign}{i}" for i in range(30) for sign in "+-"])


@test()
def max_active_tasks_run_at_once_and_no_more(eqd):
    eqd.ok("queue", "create", "p", "max_active=3")
    tasks = [eqd.submit("-q", "p", "--", "sleep", "1000") for _ in range(5)]
    for task in tasks[:3]:
        eqd.until_state(task, "RUNNING")
    q = eqd.queue("p")
    equal((q["running"], q["queued"]), (3, 2))
    equal([eqd.show(t)["state"] for t in tasks[3:]], ["QUEUED", "QUEUED"])
    eqd.kill_task_now(tasks[1])
    eqd.until_state(tasks[3], "RUNNING")
    equal(eqd.show(tasks[4])["state"], "QUEUED")


@test()
def urgent_tasks_pass_the_others_and_keep_their_own_order(eqd):
    blocker = block(eqd)
    for word in ("n1", "n2"):
        eqd.sh(note(word))
    for word in ("u1", "u2"):
        eqd.sh(note(word), "--urgent")
    eqd.kill_task_now(blocker)
    eqd.ok("wait", "-q", "default")
    equal(lines(eqd, "order"), ["u1", "u2", "n1", "n2"])


@test()
def queues_do_not_wait_for_each_other(eqd):
    block(eqd)
    eqd.ok("queue", "create", "other")
    eqd.ends_as(eqd.submit("-q", "other", "--", "true"), "DONE")


@test()
def a_held_task_waits_and_takes_its_own_place_when_released(eqd):
    blocker = block(eqd)
    held = eqd.sh(note("held"), "--hold")
    eqd.sh(note("later"))
    equal(eqd.show(held)["state"], "WAITING")
    equal(eqd.show(held)["reason"], "held")
    eqd.ok("release", held)
    eqd.kill_task_now(blocker)
    eqd.ok("wait", "-q", "default")
    equal(lines(eqd, "order"), ["held", "later"])


@test()
def hold_takes_a_queued_task_out_of_the_way(eqd):
    blocker = block(eqd)
    first, second = eqd.sh(note("first")), eqd.sh(note("second"))
    eqd.ok("hold", first)
    eqd.kill_task_now(blocker)
    eqd.ends_as(second, "DONE")
    equal(eqd.show(first)["state"], "WAITING")
    eqd.ok("release", first)
    eqd.ends_as(first, "DONE")
    equal(lines(eqd, "order"), ["second", "first"])


# ---- cancel, kill ----

@test()
def a_canceled_queued_task_never_runs(eqd):
    blocker = block(eqd)
    task = eqd.sh(note("ran"))
    eqd.ok("cancel", task)
    equal(eqd.show(task)["state"], "CANCELED")
    eqd.kill_task_now(blocker)
    eqd.ok("wait", "-q", "default")
    equal(lines(eqd, "order"), [])


@test()
def cancel_of_a_running_task_terminates_its_tree(eqd):
    task = eqd.sh("sleep 1000 & echo $! >work/child; wait")
    eqd.until_state(task, "RUNNING")
    eventually(lambda: lines(eqd, "child"), "the task has not started its child")
    eqd.ok("cancel", task)
    eqd.ends_as(task, "CANCELED", signal=15)
    child = int(lines(eqd, "child")[0])
    eventually(lambda: is_gone(child), f"child {child} still runs")


@test()
def that_a_task_was_canceled_is_said_also_when_its_command_ends_with_0(eqd):
    p = eqd.start_ctl("run", "-n", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    equal(p.stdout.readline(), b"ready\n")
    eqd.ok("cancel", "default/1")
    said = p.communicate(timeout=60)[1].decode()
    equal(p.returncode, 0)
    contains(said, "eqctl: default/1 is CANCELED: canceled on request\n") # the shell may say something, too


@test()
def cancel_kills_what_ignores_it_after_grace(eqd):
    task = eqd.sh("trap '' TERM; echo ready; while :; do sleep 0.01; done")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    eqd.ok("cancel", "--grace", "100ms", task)
    eqd.ends_as(task, "CANCELED", signal=9)


@test()
def cancel_of_a_finished_task_is_too_late_and_of_an_unknown_one_66(eqd):
    task = eqd.submit("--", "true")
    eqd.wait(task)
    eqd.fails(1, "cancel", task, says="too late")
    eqd.fails(66, "cancel", "default/4711", says="default/4711")


@test()
def cancel_by_filter_needs_yes_for_many(eqd):
    eqd.ok("queue", "pause", "default")
    tasks = [eqd.submit("-J", "nightly", "--", "true") for _ in range(3)]
    other = eqd.submit("-J", "other", "--", "true")
    eqd.fails(2, "cancel", "-l", "nightly", says="--yes")
    eqd.ok("cancel", "-l", "nightly", "--yes")
    equal([eqd.show(t)["state"] for t in tasks], ["CANCELED"] * 3)
    equal(eqd.show(other)["state"], "QUEUED")


@test()
def kill_sends_a_signal_and_the_task_goes_on(eqd):
    task = eqd.sh("trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.01; done")
    equal(eqd.start_ctl("logs", "-f", task).stdout.readline(), b"ready\n")
    eqd.ok("kill", "-s", "USR1", task)
    eqd.ends_as(task, "FAILED", exit=5)
    contains(eqd.logs(task), "usr1")
    eqd.fails(1, "kill", task)


# ---- retries ----

@test()
def retry_by_hand_runs_the_same_id_again(eqd):
    task = eqd.sh("[ -e work/good ] || exit 4; echo fine")
    eqd.ends_as(task, "FAILED", exit=4, attempt=1)
    (eqd.dir / "work/good").write_text("")
    eqd.ok("retry", task)
    eqd.ends_as(task, "DONE", exit=0, attempt=2)
    equal(eqd.logs(task), "fine")


@test()
def retry_failed_takes_failed_timed_out_and_dead_ones(eqd):
    flip = "[ -e work/good ]"
    failed, slow = eqd.sh(flip), eqd.submit("-t", "50ms", "--", "sleep", "1000")
    dead, done = eqd.sh(flip, "-r", "1", "--backoff", "exp:1ms"), eqd.submit("--", "true")
    eqd.wait(failed, slow, dead, done)
    equal([eqd.show(t)["state"] for t in (failed, slow, dead, done)], ["FAILED", "TIMEOUT", "DEAD", "DONE"])
    (eqd.dir / "work/good").write_text("")
    eqd.ok("retry", "--failed")
    eqd.wait(failed, slow, dead)
    equal([(eqd.show(t)["state"], eqd.show(t)["attempt"]) for t in (failed, slow, dead, done)],
          [("DONE", 2), ("TIMEOUT", 2), ("DONE", 3), ("DONE", 1)])


@test()
def back_off_on_a_serial_queue_keeps_the_place(eqd):
    events = eqd.events(queue="default", events=["task.retry"])
    flaky = eqd.sh(f"{note('try')}; [ $(wc -l <work/order) -ge 3 ]", "-r", "5", "--backoff", "exp:150ms:150ms")
    later = eqd.sh(note("later"))
    events.note(lambda method, params: method == "event")
    behind = eqd.show(later)
    if behind["state"] == "QUEUED":
        contains(("backoff", "serial"), behind["reason"])
    eqd.ends_as(flaky, "DONE", attempt=3)
    eqd.ends_as(later, "DONE")
    equal(lines(eqd, "order"), ["try", "try", "try", "later"])


@test()
def urgent_tasks_pass_one_that_backs_off(eqd):
    flaky = eqd.sh(f"{note('try')}; exit 1", "-r", "5", "--backoff", "exp:1h:1h")
    later = eqd.sh(note("later"))
    eqd.until_state(flaky, "WAITING")
    equal([eqd.show(task)["reason"] for task in (flaky, later)], ["backoff", "backoff"])
    eqd.ends_as(eqd.sh(note("urgent"), "--urgent"), "DONE")
    equal([eqd.show(task)["reason"] for task in (flaky, later)], ["backoff", "backoff"])
    eqd.ok("cancel", flaky)
    eqd.ends_as(later, "DONE")
    equal(lines(eqd, "order"), ["try", "urgent", "later"])


@test()
def a_task_whose_retries_are_used_up_is_DEAD(eqd):
    task = eqd.sh("exit 6", "-r", "2", "--backoff", "exp:1ms:1ms")
    eqd.ends_as(task, "DEAD", exit=6, attempt=3)
    equal(eqd.ok("why", task), f"{task} is DEAD: exit status 6")
    equal(eqd.ctl("wait", task).rc, 6)


@test()
def a_task_that_crashes_max_crashes_times_is_DEAD(eqd):
    eqd.ok("queue", "create", "c", "max_crashes=2")
    task = eqd.sh("kill -SEGV $$", "-q", "c", "-r", "20", "--backoff", "exp:1ms:1ms")
    eqd.ends_as(task, "DEAD", crashes=2, attempt=2, signal=11)
    contains(eqd.ok("why", task), "it has crashed 2 times (max_crashes)")


# ---- waiting ----

@test()
def after_waits_for_the_right_end(eqd):
    eqd.ok("queue", "create", "p", "max_active=10")
    gate = Gate(eqd)
    bad = eqd.sh(f"{gate.wait}; exit 1", "-q", "p")
    on_fail, on_any = (eqd.submit("-q", "p", "-a", f"{how}:{bad}", "--", "true") for how in ("fail", "any"))
    on_ok = eqd.submit("-q", "p", "-a", bad, "--", "true")
    for task in (on_fail, on_any, on_ok):
        equal((eqd.show(task)["state"], eqd.show(task)["reason"]), ("WAITING", "after"))
    gate.open()
    eqd.ends_as(bad, "FAILED")
    eqd.ends_as(on_fail, "DONE")
    eqd.ends_as(on_any, "DONE")
    eqd.ends_as(on_ok, "CANCELED", reason="deps-never")


@test()
def after_several_waits_for_all(eqd):
    eqd.ok("queue", "create", "p", "max_active=10")
    gates = [Gate(eqd, f"gate{i}") for i in range(2)]
    first, second = (eqd.sh(gate.wait, "-q", "p") for gate in gates)
    both = eqd.submit("-q", "p", "-a", f"ok:{first},ok:{second}", "--", "true")
    gates[0].open()
    eqd.ends_as(first, "DONE")
    equal(eqd.show(both)["state"], "WAITING")
    gates[1].open()
    eqd.ends_as(both, "DONE")


@test()
def a_chain_of_dependents_of_a_failed_task_is_canceled_at_once(eqd):
    eqd.ok("queue", "create", "p", "max_active=10")
    task = failed = eqd.sh("exit 1", "-q", "p")
    eqd.wait(failed)
    for _ in range(20):
        task = eqd.submit("-q", "p", "-a", f"ok:{task}", "--", "true")
    eqd.ends_as(task, "CANCELED", reason="deps-never")
    equal(eqd.ctl("wait", task).rc, 125)
    for _ in range(2):
        equal(eqd.ok("why", "p/2").strip(), f"p/2 is CANCELED: deps-never: {failed}, which it comes after (after_ok), ended as FAILED: it can never start")
        crash(eqd) # what its end was is on disk, and whose end it hung on is found again


@test()
def after_an_unknown_task_is_refused(eqd):
    eqd.fails(66, "submit", "-a", "ok:default/99", "--", "true", says="default/99")
    equal(eqd.ls("-A"), [])


@test()
def after_last_chains_to_the_own_last_task(eqd):
    eqd.ok("queue", "create", "p", "max_active=10")
    first = eqd.submit("-q", "p", "--", "sleep", "1000")
    second = eqd.submit("-q", "p", "--after-last", "--", "true")
    equal(eqd.show(second)["state"], "WAITING")
    eqd.kill_task_now(first)
    eqd.ends_as(second, "CANCELED", reason="deps-never")


@test()
def a_delayed_task_blocks_nobody_and_starts_in_time(eqd):
    delayed = eqd.sh(note("delayed"), "--in", "1h")
    eqd.ends_as(eqd.sh(note("now")), "DONE")
    shown = eqd.show(delayed)
    equal((shown["state"], shown["reason"]), ("WAITING", "at"))
    done = eqd.ends_as(eqd.sh(note("soon"), "--in", "300ms"), "DONE")
    equal(lines(eqd, "order"), ["now", "soon"])
    late = done["started_usec"] - done["submitted_usec"]
    if late < 300000:
        raise AssertionError(f"started after {late} us")


@test()
def a_time_of_day_in_the_past_is_now_and_one_ahead_is_waited_for(eqd):
    eqd.ends_as(eqd.submit("--at", "@1000000000", "--", "true"), "DONE")
    task = eqd.submit("--at", "now+5m", "--", "true")
    equal((eqd.show(task)["state"], eqd.show(task)["reason"]), ("WAITING", "at"))


@test()
def a_task_that_has_started_does_not_expire(eqd):
    """What waits behind it with the same time does: so that time is over."""
    gate = Gate(eqd)
    task = eqd.sh(gate.wait, "-e", "2s")
    eqd.until_state(task, "RUNNING")
    eqd.ends_as(eqd.submit("-e", "2s", "--", "true"), "EXPIRED")
    equal(eqd.show(task)["state"], "RUNNING")
    gate.open()
    eqd.ends_as(task, "DONE")


# ---- many ----

@test()
def array_makes_a_task_per_number(eqd):
    ids = eqd.submit("--array", "1-9:4", "-c", "echo $1 $EQD_ARRAY_INDEX >>work/order", "{}").split()
    equal(ids, ["default/1", "default/2", "default/3"])
    equal(eqd.ctl("wait", *ids).rc, 0)
    equal(lines(eqd, "order"), ["1", "1", "5", "5", "9", "9"])


# Each appends how many run, itself included, when it has begun; it ends when the test makes the file end-N.
COUNTED = ("mkfifo work/end-$1; mkdir work/runs-$1; ls -d work/runs-* | wc -l >>work/counts; echo $1 >>work/order; "
           "read line <work/end-$1; rmdir work/runs-$1; exit $((line))")


def let_end(eqd, number, status=0):
    (eqd.dir / f"work/end-{number}").write_text(f"{status}\n")


@test()
def an_array_with_a_limit_runs_so_many_at_once_and_in_order(eqd):
    eqd.ok("queue", "create", "wide", "max_active=20")
    ids = eqd.submit("-q", "wide", "--array", "1-8%2", "-c", COUNTED, "{}").split()
    other = eqd.submit("-q", "wide", "--", "true")
    eqd.ends_as(other, "DONE") # it passes those that wait
    eventually(lambda: len(lines(eqd, "order")) == 2, "two have begun")
    shown = eqd.show(ids[2])
    equal((shown["state"], shown["reason"], shown["array_limit"]), ("WAITING", "array", 2))
    contains(shown["detail"], "2 tasks of its array have their turn", "%2")
    contains(eqd.ok("why", ids[7]), "2 tasks of its array have their turn")
    equal([task.get("reason") for task in eqd.ls("-q", "wide", "-s", "WAITING")], ["array"] * 6)
    eqd.ok("cancel", ids[3])
    for n_ended, (number, status) in enumerate(((2, 1), (1, 0), (3, 0), (5, 3), (6, 0), (8, 0), (7, 0))):
        eventually(lambda: len(lines(eqd, "order")) == min(2 + n_ended, 7), "the next one has begun")
        let_end(eqd, number, status)
        eqd.wait(ids[number - 1])
    equal(lines(eqd, "order")[2:], ["3", "5", "6", "7", "8"])
    equal(max(map(int, lines(eqd, "counts"))), 2)
    equal([eqd.show(i)["state"] for i in ids],
          ["DONE", "FAILED", "DONE", "CANCELED", "FAILED", "DONE", "DONE", "DONE"])
    eqd.fails(2, "submit", "--array", "1-8%0", "--", "true", says="1-100%4")


@test()
def a_whole_array_with_a_limit_can_be_canceled(eqd):
    eqd.ok("queue", "create", "wide", "max_active=20")
    ids = eqd.submit("-q", "wide", "--array", "1-50%3", "--", "sleep", "1000").split()
    for task in ids[:3]:
        eqd.until_state(task, "RUNNING")
    eqd.ok("cancel", *ids)
    eqd.ctl("wait", *ids)
    equal({task["state"] for task in eqd.ls()}, {"CANCELED"})
    equal(sum("started_usec" in eqd.show(task) for task in ids[:6]), 3)


@test()
def an_array_of_thousands_is_one_over_all_of_its_messages(eqd):
    n = 2500
    eqd.ok("queue", "create", "wide", "max_active=20")
    ids = eqd.submit("-q", "wide", "--array", f"1-{n}%1", "--hold", "--", "sleep", "1000").split()
    equal(len(ids), n)
    equal(len({eqd.show(ids[i])["array"] for i in (0, 999, 1000, 2000, n - 1)}), 1)
    eqd.ok("release", ids[n - 1])
    eqd.until_state(ids[n - 1], "RUNNING")
    eqd.ok("release", ids[0], ids[1500])
    equal([eqd.show(ids[i])["reason"] for i in (0, 1500, 1501)], ["array", "array", "held"])
    eqd.ok("queue", "rm", "--yes", "wide")


@test()
def followed_tasks_of_an_array_keep_its_limit(eqd):
    eqd.ok("queue", "create", "wide", "max_active=20")
    r = eqd.ctl("run", "-n", "-q", "wide", "--array", "1-6%1", "-c",
                "mkdir work/alone && echo {} && rmdir work/alone")
    equal((r.rc, r.out.split()), (0, [f"{i}" for i in range(1, 7)]), r.err)


@test()
def each_makes_a_task_per_line_also_for_thousands(eqd):
    n = 2500
    eqd.ok("queue", "create", "many", "max_active=2")
    eqd.ok("queue", "pause", "many")
    text = "".join(f"word {i}\n" for i in range(n))
    ids = eqd.submit("-q", "many", "--each", "-", "--", "echo", "<{}>", input=text).split()
    equal(ids, [f"many/{i}" for i in range(1, n + 1)])
    equal(eqd.show("many/2500")["argv"], ["echo", "<word 2499>"])
    equal(eqd.queue("many")["queued"], n)
    eqd.ok("queue", "rm", "--yes", "many")


@test()
def each_appends_the_line_where_no_place_is_marked(eqd):
    ids = eqd.submit("--each", "-", "--", "echo", "a", input="x y\nz\n").split()
    eqd.wait(*ids)
    equal([eqd.logs(i) for i in ids], ["a x y", "a z"])


@test(notify=True)
def an_eqd_whose_service_manager_does_not_read_goes_on(eqd):
    with eqd.notify.changed, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others: # nobody takes in what comes
        try:
            while True:
                others.sendto(b"X=1", socket.MSG_DONTWAIT, str(eqd.dir / "notify"))
        except BlockingIOError:
            pass
        eqd.ends_as(eqd.submit("--in", "3s", "--", "true"), "DONE") # of which the line of status changes, at most a second later
        task = eqd.submit("--hold", "--", "true")
    eqd.until_notified(lambda m: m.get("STATUS") == "1 queues, 0 running, 1 pending")
    eqd.ok("cancel", task)


# ---- queues ----

@test()
def pauses_count(eqd):
    eqd.ok("queue", "pause", "default")
    eqd.ok("queue", "pause", "default")
    task = eqd.submit("--", "true")
    eqd.ok("queue", "resume", "default")
    shown = eqd.show(task)
    equal((shown["state"], shown["reason"]), ("QUEUED", "paused"))
    eqd.ok("queue", "resume", "default")
    eqd.ends_as(task, "DONE")


@test()
def drain_refuses_until_empty_then_opens_again(eqd):
    gate = Gate(eqd)
    task = eqd.sh(gate.wait)
    events = eqd.events(events=["queue."])
    drain = eqd.start_ctl("queue", "drain", "default")
    events.note(lambda method, params: method == "event" and params[0].get("state") == "draining")
    eqd.fails(75, "submit", "--", "true", says="drain")
    equal(drain.poll(), None)
    gate.open()
    equal(drain.wait(60), 0)
    drain.communicate()
    equal(eqd.show(task)["state"], "DONE")
    eqd.ends_as(eqd.submit("--", "true"), "DONE")


@test()
def a_stopped_queue_refuses_for_good_and_runs_what_it_has(eqd):
    eqd.ok("queue", "create", "s")
    gate = Gate(eqd)
    tasks = [eqd.sh(gate.wait, "-q", "s"), eqd.submit("-q", "s", "--", "true")]
    eqd.ok("queue", "stop", "s")
    eqd.ok("queue", "stop", "s")
    eqd.fails(75, "submit", "-q", "s", "--", "true", says="stop")
    equal(eqd.ctl("queue", "join", "--timeout", "50ms", "s").rc, 75)
    gate.open()
    eqd.ok("queue", "join", "s")
    eqd.ok("queue", "join", "s")
    equal([eqd.show(t)["state"] for t in tasks], ["DONE", "DONE"])
    eqd.fails(75, "submit", "-q", "s", "--", "true", says="stop")


@test()
def flush_waits_for_what_was_accepted_before_and_for_nothing_later(eqd):
    eqd.ok("queue", "create", "f")
    gate = Gate(eqd)
    first = eqd.sh(gate.wait, "-q", "f")
    eqd.until_state(first, "RUNNING")
    equal(eqd.ctl("queue", "flush", "--timeout", "50ms", "f").rc, 75)
    with eqd.connect() as c:
        flush = c.send("queue_flush", "f")
        c.call("ping") # it has been taken in
        later = eqd.submit("-q", "f", "--", "sleep", "1000")
        gate.open()
        c.reply(flush)
    equal(eqd.show(first)["state"], "DONE")
    contains(("QUEUED", "RUNNING"), eqd.show(later)["state"])


@test()
def removal_of_a_queue_with_tasks_needs_yes_and_stops_them(eqd):
    eqd.ok("queue", "create", "r")
    running = block(eqd, "r")
    pid = eqd.show(running)["pid"]
    eqd.submit("-q", "r", "--", "true")
    eqd.fails(1, "queue", "rm", "r", says="--yes")
    eqd.ok("queue", "rm", "--yes", "r")
    eventually(lambda: is_gone(pid), f"process {pid} of the removed queue still runs")
    eqd.fails(66, "show", running)
    eqd.fails(66, "queue", "show", "r", says="r")


@test()
def numbers_are_never_given_twice(eqd):
    eqd.ok("queue", "create", "n")
    first = eqd.queue("n")["id"]
    equal([eqd.submit("-q", "n", "--", "true") for _ in range(3)], ["n/1", "n/2", "n/3"])
    eqd.ok("wait", "-q", "n")
    eqd.ok("queue", "rm", "n")
    eqd.ok("queue", "create", "n")
    equal(eqd.submit("-q", "n", "--", "true"), "n/4")
    equal(eqd.queue("n")["id"] != first, True)


@test()
def a_queue_that_exists_is_an_error_unless_that_is_fine(eqd):
    eqd.ok("queue", "create", "e", "max_active=2")
    eqd.fails(1, "queue", "create", "e", says="e")
    eqd.ok("queue", "create", "--if-not-exists", "e", "max_active=5")
    contains(eqd.queue("e")["set"], "max_active=5")


@test()
def attributes_change_while_tasks_wait(eqd):
    eqd.ok("queue", "create", "p")
    tasks = [eqd.submit("-q", "p", "--", "sleep", "1000") for _ in range(3)]
    eqd.until_state(tasks[0], "RUNNING")
    eqd.ok("queue", "set", "p", "max_active=3")
    for task in tasks:
        eqd.until_state(task, "RUNNING")


# ---- capacity ----

def full_queue(eqd, *attributes):
    eqd.ok("queue", "create", "c", "max_tasks=2", *attributes)
    eqd.ok("queue", "pause", "c")
    return [eqd.submit("-q", "c", "--", "true") for _ in range(2)]


@test()
def a_full_queue_refuses_with_75_and_opens_again(eqd):
    tasks = full_queue(eqd)
    eqd.fails(75, "submit", "-q", "c", "--", "true", says="full")
    equal(eqd.queue("c")["refused"], 1)
    eqd.ok("cancel", tasks[0])
    equal(eqd.submit("-q", "c", "--", "true"), "c/3")


@test()
def capacity_in_bytes_counts_payloads(eqd):
    eqd.ok("queue", "create", "c", "max_bytes=100K")
    eqd.ok("queue", "pause", "c")
    eqd.submit("-q", "c", "--payload", "-", "--", "cat", input="x" * 60000)
    eqd.fails(75, "submit", "-q", "c", "--payload", "-", "--", "cat", input="x" * 60000, says="full")


@test()
def what_never_fits_is_refused_for_good_and_drops_nothing(eqd):
    for on_full in ("reject", "block", "drop-oldest"):
        eqd.ok("queue", "create", on_full, "max_bytes=20K", "max_tasks=4", f"on_full={on_full}", "block_timeout=50s")
        eqd.ok("queue", "pause", on_full)
        first = eqd.submit("-q", on_full, "--", "true")
        eqd.fails(2, "submit", "-q", on_full, "--payload", "-", "--", "cat", input="x" * 30000,
                  says=[f"queue {on_full} holds at most 4 tasks and 20480 bytes", "raise max_tasks or max_bytes"])
        eqd.fails(2, "submit", "-q", on_full, "--array", "1-5", "--", "true", says="submit fewer at once, or raise")
        with eqd.connect() as c:
            for n, payload, what, limit in ((1, b"x" * 30000, "bytes", 20480), (5, b"", "tasks", 4)):
                try:
                    c.call("submit_many", on_full, [{"argv": ["cat"], "payload": payload} for _ in range(n)])
                except RpcError as e:
                    equal(e.details, {"method": "submit_many", "queue": on_full, "what": what, "limit": limit})
                else:
                    raise AssertionError(f"{n} tasks of {len(payload)} bytes were taken")
        equal(eqd.show(first)["state"], "QUEUED")


@test()
def a_blocking_submit_gets_the_space_when_there_is_some(eqd):
    tasks = full_queue(eqd, "on_full=block", "block_timeout=50s")
    with eqd.connect() as c:
        waiting = c.send("submit", "c", b"", argv=["true"])
        c.call("ping") # requests are taken in their order: it has been, and has no answer
        equal(waiting in c.replies, False, str(c.replies))
        eqd.ok("cancel", tasks[0])
        equal(c.reply(waiting)[1], 3)
        equal(c.call("show", ["c/3"])[0]["argv"], ["true"], "what it was to do, of a message that is long gone")


@test()
def a_blocking_submit_gives_up_in_time(eqd):
    full_queue(eqd, "on_full=block", "block_timeout=100ms")
    eqd.fails(75, "submit", "-q", "c", "--", "true", says="queue c stayed full for the whole wait; try again later, or raise max_tasks")
    eqd.fails(75, "submit", "-q", "c", "--wait-space", "50ms", "--", "true", says="queue c stayed full")


@test()
def a_list_longer_than_the_queue_goes_through_it_for_who_waits_for_space(eqd):
    eqd.ok("queue", "create", "c", "max_tasks=4", "durable=no")
    submit = ("submit", "-q", "c", "--wait-space", "60s")
    equal(eqd.ok(*submit, "--each", "-", "--", "true", input="x\n" * 20).split(), [f"c/{n}" for n in range(1, 21)])
    equal(eqd.ok(*submit, "--array", "1-9", "--", "true").split(), [f"c/{n}" for n in range(21, 30)])
    eqd.ok("queue", "create", "bytes", "max_bytes=20K", "durable=no")
    ids = eqd.ok("submit", "-q", "bytes", "--wait-space", "60s", "--each", "-", "--payload", "x" * 3000, "--", "wc", "-c", input="x\n" * 9).split()
    equal(ids, [f"bytes/{n}" for n in range(1, 10)])
    eqd.ok("queue", "flush", "c", "bytes")
    eqd.ok("queue", "pause", "c")
    equal(eqd.fails(2, "submit", "-q", "c", "--array", "1-5", "--", "true", says="submit fewer at once").out, "") # all or none
    equal(eqd.submit("-q", "c", "--", "true"), "c/30")
    r = eqd.fails(75, "submit", "-q", "c", "--wait-space", "50ms", "--array", "1-9", "--", "true", says="stayed full")
    equal(r.out.split(), ["c/31", "c/32"]) # parts of two: there is room for one more


@test()
def drop_oldest_makes_room(eqd):
    tasks = full_queue(eqd, "on_full=drop-oldest")
    third = eqd.submit("-q", "c", "--", "true")
    dropped = eqd.show(tasks[0])
    equal(dropped["state"], "CANCELED")
    contains(dropped["detail"], "drop-oldest")
    equal([eqd.show(t)["state"] for t in (tasks[1], third)], ["QUEUED", "QUEUED"])


# ---- looking ----

@test()
def ls_shows_what_is_not_finished_and_ten_that_are(eqd):
    ids = eqd.sh("exit 0", "--array", "1-14").split()
    eqd.wait(*ids)
    blocker = block(eqd)
    rows = eqd.ls()
    equal([r["id"] for r in rows], [*ids[-10:], blocker])
    equal([r["id"] for r in eqd.ls("-A")], [*ids, blocker])
    equal([r["id"] for r in eqd.ls("-s", "RUNNING")], [blocker])
    equal(eqd.ok("ls", "-o", "id", "-s", "RUNNING"), blocker)
    contains(eqd.ok("ls"), "STATE", "RUNNING", "sleep 1000")


@test()
def why_names_the_reason_and_the_other_task(eqd):
    blocker = block(eqd)
    queued = eqd.submit("--", "true")
    contains(eqd.ok("why", queued), "serial", blocker)
    why = json.loads(eqd.ok("why", "--json", queued))
    equal((why["reason"], why["ahead"]), ("serial", 0))
    held = eqd.submit("--hold", "--", "true")
    contains(eqd.ok("why", held), "held", "eqctl release")
    failed = eqd.sh("exit 9", "--urgent")
    eqd.kill_task_now(blocker)
    eqd.wait(failed)
    contains(eqd.ok("why", failed), "FAILED", "9")


@test()
def a_line_for_the_shell_that_is_given_as_one_word_is_told_of_c(eqd):
    line, path, word = (eqd.submit("--", *args) for args in (["ls | wc"], ["ls |", "wc"], ["nosuchcommand"]))
    for task in (line, path, word):
        eqd.wait(task)
    contains(eqd.ok("why", line), 'cannot run "ls | wc"', "a line for the shell goes with -c")
    contains(eqd.ok("why", word), "give its path")
    contains(eqd.ok("why", path), "give its path")


@test()
def events_tell_the_life_of_a_task_in_order(eqd):
    c = eqd.events(queue="default")
    task = eqd.sh("exit 3", "-r", "1", "--backoff", "exp:1ms:1ms", "-J", "tale")
    kinds = []
    while "task.finished" not in kinds:
        kinds.append(c.note(lambda method, params: method == "event")[0]["event"])
    equal(kinds, ["task.accepted", "task.started", "task.retry", "task.started", "task.finished"])
    equal(eqd.show(task)["label"], "tale")


@test(config={"queues.d/failures.queue": "[Queue]\nLogEnds=failures\n", "queues.d/all.queue": "[Queue]\nLogEnds=all\n"})
def the_log_is_told_of_the_ends_that_a_queue_wants_told(eqd):
    told = lambda: [line for line in eqd.log_text().splitlines() if "> eqd: task " in line or ">eqd: task " in line]
    uid = os.getuid()
    for queue in ("default", "failures", "all"):
        for args in (("-J", "fine", "-c", "exit 0"), ("-J", "nightly", "-r", "1", "--backoff", "exp:1ms:1ms", "-c", "exit 3"),
                     ("-t", "10ms", "-c", "sleep 1000"), ("--hold", "-c", "true")):
            task = eqd.submit("-q", queue, *args)
            if "--hold" in args:
                eqd.ok("cancel", task)
            eqd.wait(task)
    expected = [f"<4>eqd: task failures/2 (nightly) of uid {uid} is DEAD: exit status 3",
                f"<4>eqd: task failures/3 of uid {uid} is TIMEOUT: ran longer than its timeout",
                f"<6>eqd: task all/1 (fine) of uid {uid} is DONE",
                f"<4>eqd: task all/2 (nightly) of uid {uid} is DEAD: exit status 3",
                f"<4>eqd: task all/3 of uid {uid} is TIMEOUT: ran longer than its timeout",
                f"<6>eqd: task all/4 of uid {uid} is CANCELED: canceled on request"]
    eqd.has_logged(expected[-1])
    equal(told(), expected)


@test(config={"queues.d/q.queue": "[Queue]\nLogEnds=failures\nAtMostOnce=yes\n"})
def the_log_is_told_of_a_task_that_a_crash_has_ended(eqd):
    task = eqd.submit("-q", "q", "--", "sleep", "1000")
    eqd.until_state(task, "RUNNING")
    crash(eqd)
    equal(eqd.wait(task)["state"], "FAILED")
    eqd.has_logged(f"task {task} of uid {os.getuid()} is FAILED: ")


@test()
def stat_counts(eqd):
    eqd.wait(eqd.submit("--", "true"))
    block(eqd)
    eqd.submit("--", "true")
    with eqd.connect() as c:
        stat = c.call("stat")
    equal((stat["running"], stat["pending"], stat["finished"], stat["pid"]), (1, 1, 1, eqd.pid))


@test()
def cpu_time_and_memory_are_accounted(eqd):
    shown = eqd.wait(eqd.sh("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"))
    equal(shown["utime_usec"] > 1000 and shown["maxrss_kib"] > 100, True, str(shown))


@test(config={"eqd.conf": "[Commands]\nCommands=no\n"})
def an_eqd_without_commands_starts_no_process_and_refuses_them(eqd):
    equal(descendants(eqd.pid), [])
    with eqd.connect() as c:
        stat = c.call("stat")
        equal((stat["identities"], stat.get("spawner_pid"), stat.get("trees")), ("none", None, None))
    eqd.fails(77, "submit", "--", "true", says="commands=no")
    eqd.fails(125, "run", "--", "true", says="commands=no") # nothing ran
    eqd.ok("queue", "create", "q")
    eqd.configure("eqd.conf", "[Commands]\nCommands=yes\n")
    eqd.ok("reload") # takes effect when eqd is restarted, as eqd.conf(5) says
    eqd.fails(77, "submit", "-q", "q", "--", "true", says="commands=no")
    equal(eqd.ls("-A"), [])


main()
