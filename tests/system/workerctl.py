#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""eqctl worker: any command as a worker."""

import base64
import json
import os
import signal
import socket
import subprocess
import time

from eqdtest import BUILD, contains, equal, eventually, is_gone, main, stalls, test
from workerkit import RESULT_MAX, ended, state, submit, worker_queue


class Ctl:
    """An `eqctl worker run` that serves when it is made."""

    def __init__(self, eqd, *args, queue="w"):
        self.eqd = eqd
        before = eqd.queue(queue)["workers"]
        self.process = eqd.start_ctl("worker", "run", "-q", queue, *args)
        eventually(lambda: eqd.queue(queue)["workers"] > before, "it serves")

    def end(self, rc=0):
        out, err = self.process.communicate(timeout=60)
        equal(self.process.returncode, rc, err.decode())
        equal(out, b"")
        return err.decode()

    def terminate(self, rc=0):
        self.process.terminate()
        return self.end(rc)

    def begin_to_leave(self):
        self.process.terminate()
        eventually(lambda: self.row()["state"] == "leaving", "it leaves")

    def row(self):
        """As it is listed; the only worker that there is."""
        return json.loads(self.eqd.ok("worker", "ls", "--json"))

    def has(self, n):
        eventually(lambda: self.row()["in_flight"] == n, f"it has {n} tasks")


def begun(eqd, n):
    """Waits until n commands have written a line; that eqd has sent a task does not mean that it was begun."""
    path = eqd.dir / "work" / "begun"
    eventually(lambda: path.exists() and len(path.read_text()) == n, f"{n} commands have begun")


@test()
def a_command_becomes_a_worker(eqd):
    worker_queue(eqd, "w", "max_active=4")
    w = Ctl(eqd, "-j", "3", "--name", "upper", "--", "tr", "a-z", "A-Z")
    r = eqd.ctl("run", "-q", "w", "--payload", "hello")
    equal((r.rc, r.out, r.err), (0, "HELLO", ""))
    file = eqd.dir / "work" / "file"
    file.write_bytes(b"from a file\n")
    equal(eqd.ctl("run", "-q", "w", "--payload", f"@{file}").out, "FROM A FILE\n")
    equal(eqd.ctl("run", "-q", "w", "--payload", "-", input="from stdin").out, "FROM STDIN")
    ids = eqd.submit("-q", "w", "--payload", "line {}", "--each", "-", input="a\nb\nc\n").splitlines()
    equal([eqd.wait(i)["result"] for i in ids], ["LINE A", "LINE B", "LINE C"])
    ids = eqd.submit("-q", "w", "--payload", "n={}", "--array", "7-8").splitlines()
    equal([eqd.wait(i)["result"] for i in ids], ["N=7", "N=8"])
    row = w.row()
    equal((row["name"], row["credit"], row["queues"], row["done"], row["pid"]), ("upper", 3, ["w"], 8, w.process.pid))
    contains(eqd.ok("worker", "ls"), "HAS/CREDIT", "upper", "0/3", "idle")
    equal(w.terminate(), "")
    equal(eqd.ok("worker", "ls", "-o", "id"), "")


@test()
def the_exit_status_of_the_command_is_that_of_the_task(eqd):
    worker_queue(eqd)
    w = Ctl(eqd, "--", "sh")
    for script, rc, state in (("exit 0", 0, "DONE"), ("echo half; exit 3", 3, "FAILED"), ("kill -9 $$", 137, "FAILED"),
                              ("exit 255", 255, "FAILED")):
        r = eqd.ctl("run", "-q", "w", "--payload", script)
        equal(r.rc, rc, script)
        equal(eqd.ls()[-1]["state"], state)
    equal(eqd.show("w/2")["result"], "half\n")
    r = eqd.ctl("run", "-q", "w", "--payload", "echo $EQD_TASK $EQD_QUEUE $EQD_ATTEMPT")
    equal(r.out, "w/5 w 1\n")
    w.terminate()


def on_a_terminal(eqd, *args):
    """What eqctl prints on one."""
    reader, terminal = os.openpty()
    with subprocess.Popen([eqd.eqctl, "--socket", eqd.socket, *args], stdin=subprocess.DEVNULL, stdout=terminal,
                          env=eqd.environment()) as p:
        os.close(terminal)
        out = b""
        try:
            while data := os.read(reader, 65536):
                out += data
        except OSError: # of a terminal that nobody has any more
            pass
        os.close(reader)
        equal(p.wait(60), 0)
    return out.decode().replace("\r\n", "\n")


@test()
def show_has_the_beginning_of_a_large_result_on_a_terminal_and_all_of_it_elsewhere(eqd):
    worker_queue(eqd)
    w = Ctl(eqd, "--", "cat")
    data = bytes(range(256)) * 256
    c = eqd.connect()
    tasks = [submit(c, payload) for payload in (data, "ü".encode() * 1200, "ü".encode() * 1000)]
    for task in tasks:
        ended(c, task)
    line = lambda text: next(line for line in text.splitlines() if line.startswith("result ")).split(None, 1)[1]
    shown = line(on_a_terminal(eqd, "show", "w/1"))
    whole = line(eqd.ok("show", "w/1"))
    head, told = shown.split("... ")
    equal((whole.startswith(head), len(head) // 100), (True, 20))
    n = int(told.split(" of 65536 bytes; --json has all)")[0].removeprefix("("))
    equal(head.encode().decode("unicode_escape").encode("latin-1"), data[:n])
    equal(whole.encode().decode("unicode_escape").encode("latin-1"), data)
    equal(eqd.show("w/1")["result"], {"bytes": base64.b64encode(data).decode()})
    equal(line(on_a_terminal(eqd, "show", "w/2")), "ü" * 1024 + "... (2048 of 2400 bytes; --json has all)")
    equal(line(on_a_terminal(eqd, "show", "w/3")), "ü" * 1000)
    w.terminate()


@test()
def a_large_payload_goes_in_and_a_large_result_is_cut(eqd):
    worker_queue(eqd)
    w = Ctl(eqd, "--", "sh", "-c", "wc -c")
    equal(eqd.ctl("run", "-q", "w", "--payload", "-", input=b"x" * (1 << 20)).out.strip(), str(1 << 20))
    w.terminate()
    w = Ctl(eqd, "--", "cat")
    equal(eqd.ctl("run", "-q", "w", "--payload", "-", input=b"x" * (1 << 20), raw=True).out, b"x" * RESULT_MAX)
    contains(w.terminate(), "the result is cut")
    w = Ctl(eqd, "--", "true") # reads nothing
    equal(eqd.ctl("run", "-q", "w", "--payload", "-", input=b"x" * (1 << 20)).rc, 0)
    w.terminate()


# ---- commands that stay, and answer in lines ----

ANSWERS = r"""
import os, sys
os.chdir(sys.argv[1])
print(os.getpid(), file=open("started", "a"))
for line in sys.stdin.buffer:
    line = line.rstrip(b"\n")
    with open("read", "ab") as f:
        f.write(line + b"\n")
    if line.startswith(b"exit "):
        sys.exit(int(line[5:]))
    if line == b"twice":
        os.write(1, b"twice\n")
    if line.startswith(b"gate "):
        open(line[5:]).read()
    os.write(1, line.upper() + b"\n")
"""


def lines_worker(eqd, *args, name="answers", program=ANSWERS):
    path = eqd.dir / "work" / name
    path.write_text(program)
    return Ctl(eqd, *args, "--", "python3", path, path.parent)


def words(eqd, name):
    path = eqd.dir / "work" / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


@test()
def one_command_answers_a_line_per_task_in_order(eqd):
    c = worker_queue(eqd, "w", "max_active=100")
    w = lines_worker(eqd, "--lines=plain", "--ahead", "8")
    tasks = [submit(c, f"word {i}".encode()) for i in range(100)]
    equal([ended(c, t)["result"] for t in tasks], [f"WORD {i}".encode() for i in range(100)])
    equal((words(eqd, "read"), len(words(eqd, "started"))), ([f"word {i}" for i in range(100)], 1))
    equal(eqd.ctl("run", "-q", "w", "--payload", "-", input="with a newline\n").out, "WITH A NEWLINE")
    equal(eqd.ctl("run", "-q", "w", "--payload", "").rc, 0) # an empty line is one too
    row = w.row()
    equal((row["credit"], row["parallel"], row["done"]), (8, 1, 102))
    equal(w.terminate(), "") # it ended with its input


@test()
def a_payload_of_two_lines_fails_for_good_and_base64_takes_it(eqd):
    c = worker_queue(eqd, "w", "retries=3")
    w = lines_worker(eqd, "--lines=plain")
    shown = ended(c, submit(c, b"a\nb"))
    equal((shown["state"], shown["attempt"]), ("FAILED", 1))
    contains(shown["error"], "--lines=base64")
    equal(words(eqd, "read"), [])
    w.terminate()
    rot = "import sys, base64, os\nfor l in sys.stdin:\n    d = base64.b64decode(l)\n    os.write(1, (base64.b64encode(d[::-1])" \
        ".decode() if d != b'bad' else 'no base64!').encode() + b'\\n')\n"
    w = lines_worker(eqd, "--lines=base64", program=rot)
    for payload in (b"", b"a", b"a\nb\n", bytes(range(256)), b"x" * 3000):
        equal(ended(c, submit(c, payload)).get("result", b""), payload[::-1])
    equal(ended(c, submit(c, b"y" * RESULT_MAX))["result"], b"y" * RESULT_MAX)
    shown = ended(c, submit(c, b"z" * (RESULT_MAX + 1), retries=0))
    contains(shown["error"], "more than a result may have")
    shown = ended(c, submit(c, b"bad", retries=0))
    contains(shown["error"], "no base64")
    equal(ended(c, submit(c, b"on"))["result"], b"no")
    w.terminate()


@test()
def a_line_with_the_prefix_is_a_failure_and_says_why(eqd):
    c = worker_queue(eqd)
    w = Ctl(eqd, "--lines=plain", "--fail", "error: ", "--", "sed", "-u", "s/^bad/error: bad/")
    for payload, state, said in ((b"good", "DONE", b"good"), (b"bad paper", "FAILED", "bad paper"), (b"worse", "DONE", b"worse")):
        shown = ended(c, submit(c, payload))
        equal((shown["state"], shown.get("result") or shown["error"]), (state, said))
    w.terminate()


@test()
def what_a_command_was_at_when_it_ended_fails_and_what_was_behind_goes_to_the_next(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    gate = eqd.dir / "work" / "gate"
    os.mkfifo(gate)
    w = lines_worker(eqd, "--lines=plain", "--ahead", "5")
    tasks = [submit(c, p) for p in (f"gate {gate}".encode(), b"exit 3", b"b", b"exit 0", b"d")]
    w.has(5)
    gate.write_text("")
    shown = [ended(c, t) for t in tasks]
    equal([s["state"] for s in shown], ["DONE", "FAILED", "DONE", "FAILED", "DONE"])
    equal([s["attempt"] for s in shown], [1] * 5) # the same leases
    equal((shown[1]["exit"], shown[2]["result"], shown[4]["result"]), (3, b"B", b"D"))
    contains(shown[3]["error"], "ended before it answered")
    equal(len(words(eqd, "started")), 3)
    w.terminate()


@test()
def a_line_that_nobody_asked_for_is_no_answer_to_the_next_task(eqd):
    c = worker_queue(eqd)
    w = lines_worker(eqd, "--lines=plain")
    equal(ended(c, submit(c, b"twice"))["result"], b"twice")
    eventually(lambda: all(is_gone(int(p)) for p in words(eqd, "started")), "the command was ended")
    equal(ended(c, submit(c, b"next"))["result"], b"NEXT")
    equal(len(words(eqd, "started")), 2)
    contains(w.terminate(), "no task asked for")


@test()
def a_canceled_line_ends_its_command_and_the_others_go_on(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    gate = eqd.dir / "work" / "gate"
    os.mkfifo(gate)
    w = lines_worker(eqd, "--lines=plain", "--ahead", "3")
    tasks = [submit(c, p) for p in (f"gate {gate}".encode(), b"canceled", b"last")]
    w.has(3)
    equal(c.call("cancel", [tasks[1], tasks[0]], running=True), [1, 1])
    shown = [ended(c, t) for t in tasks]
    equal([s["state"] for s in shown], ["CANCELED", "CANCELED", "DONE"])
    equal(shown[2]["result"], b"LAST")
    w.terminate()


@test()
def a_command_that_closes_its_input_or_is_killed_fails_one_task_each_time(eqd):
    c = worker_queue(eqd, "w", "retries=1", "backoff=1ms")
    w = Ctl(eqd, "--lines=plain", "--", "sh", "-c", "exec <&-; sleep 1000")
    shown = ended(c, submit(c, b"x"))
    equal((shown["state"], shown["attempt"]), ("DEAD", 2))
    w.terminate()
    w = lines_worker(eqd, "--lines=plain")
    equal(ended(c, submit(c, b"one"))["result"], b"ONE")
    pid = int(words(eqd, "started")[-1])
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_gone(pid), "it is gone")
    equal(ended(c, submit(c, b"two"))["result"], b"TWO") # at the first attempt, or at the second if it was given to the dead one
    w.terminate()


@test()
def options_of_lines_are_checked(eqd):
    worker_queue(eqd)
    for args, says in ((["--lines=xml"], "base64"), (["--ahead", "2"], "--lines"), (["--fail", "x"], "--lines"),
                       (["--lines=plain", "--ahead", "0"], "1 to"), (["--lines=plain", "--fail", ""], "--fail"),
                       (["--lines=plain", "-j", "1024", "--ahead", "1024"], "65535")):
        eqd.fails(2, "worker", "run", "-q", "w", *args, "--", "cat", says=says)


def make_gates(eqd, n):
    gates = [eqd.dir / "work" / f"gate{i}" for i in range(n)]
    for gate in gates:
        os.mkfifo(gate)
    return gates


def leaves_with_what_it_has(c, w, tasks, gates, results):
    """Two of three tasks are with it, and stand at the gates."""
    w.begin_to_leave()
    for gate in gates:
        gate.write_text("\n")
    contains(w.end(), "finishing 2 tasks")
    equal([ended(c, t)["result"] for t in tasks[:2]], results)
    equal(state(c, tasks[2]), "QUEUED")


@test()
def terminated_it_lets_its_command_finish_its_lines(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    [gate] = make_gates(eqd, 1)
    w = lines_worker(eqd, "--lines=plain", "--ahead", "2")
    tasks = [submit(c, p) for p in (f"gate {gate}".encode(), b"second", b"third")]
    w.has(2)
    leaves_with_what_it_has(c, w, tasks, [gate], [f"GATE {str(gate).upper()}".encode(), b"SECOND"])


@test()
def terminated_it_finishes_what_it_has_and_takes_no_more(eqd):
    c = worker_queue(eqd, "w", "max_active=10")
    gates = make_gates(eqd, 3)
    w = Ctl(eqd, "-j", "2", "--", "sh", "-c", f"read gate; echo >>{eqd.dir}/work/begun; read x <$gate; echo done")
    tasks = [submit(c, f"{gate}\n".encode()) for gate in gates]
    begun(eqd, 2)
    leaves_with_what_it_has(c, w, tasks, gates[:2], [b"done\n"] * 2)


@test()
def what_eqd_had_sent_before_the_signal_is_counted_and_finished(eqd):
    """It is stopped while that comes, so that it finds all at once."""
    c = worker_queue(eqd, "w", "max_active=10")
    w = Ctl(eqd, "-j", "2", "--", "cat")
    w.process.send_signal(signal.SIGSTOP)
    tasks = [submit(c, b"%d" % i) for i in range(2)]
    w.has(2)
    w.process.terminate()
    w.process.send_signal(signal.SIGCONT)
    contains(w.end(), "finishing 2 tasks")
    equal([ended(c, t)["result"] for t in tasks], [b"0", b"1"])


@test()
def twice_terminated_it_stops_its_commands(eqd):
    c = worker_queue(eqd)
    w = Ctl(eqd, "--", "sh", "-c", f"echo >>{eqd.dir}/work/begun; exec sleep 1000")
    task = submit(c, b"")
    begun(eqd, 1)
    w.begin_to_leave()
    w.process.terminate()
    w.end()
    shown = ended(c, task)
    equal((shown["state"], shown["exit"]), ("FAILED", 143))


@test()
def cancel_and_timeout_reach_the_command(eqd):
    worker_queue(eqd, "w", "grace=1m")
    w = Ctl(eqd, "--", "sleep", "1000")
    eqd.submit("-q", "w", "--payload", "")
    eqd.until_state("w/1", "RUNNING")
    eqd.ok("cancel", "w/1")
    eqd.ends_as("w/1", "CANCELED", exit=143)
    eqd.submit("-q", "w", "--payload", "", "--timeout", "20ms")
    eqd.ends_as("w/2", "TIMEOUT")
    eqd.submit("-q", "w", "--payload", "")
    eqd.until_state("w/3", "RUNNING")
    eqd.ok("cancel", "w/3", "--signal", "KILL")
    eqd.ends_as("w/3", "CANCELED")
    eventually(lambda: json.loads(eqd.ok("worker", "ls", "--json"))["state"] == "idle", "it was killed")
    w.terminate()


@test()
def a_killed_worker_takes_its_command_along(eqd):
    c = worker_queue(eqd, "w", "max_crashes=5")
    pid_file = eqd.dir / "work" / "pid"
    w = Ctl(eqd, "--", "sh", "-c", f"echo $$ >{pid_file}; exec sleep 1000")
    submit(c, b"")
    eventually(lambda: pid_file.exists() and pid_file.read_text().strip(), "the command runs")
    w.process.kill()
    w.process.communicate()
    eventually(lambda: is_gone(int(pid_file.read_text())), "the command is gone")
    equal(c.call("show", ["w/1"])[0]["crashes"], 1)


@test()
def it_connects_again_when_eqd_kicks_it(eqd):
    c = worker_queue(eqd)
    w = Ctl(eqd, "--", "sleep", "1000")
    submit(c, b"")
    eqd.until_state("w/1", "RUNNING")
    first = json.loads(eqd.ok("worker", "ls", "--json"))["worker"]
    eqd.ok("worker", "kick", first)
    again = eventually(lambda: [r for r in c.call("worker_list") if r["worker"] != first and r["in_flight"] == 1],
                       "it serves again")
    equal(c.call("show", ["w/1"])[0]["attempt"], 2)
    equal(again[0]["state"], "full")
    eqd.ok("cancel", "w/1")
    contains(w.terminate(), "connected again")


@test()
def without_a_connection_it_ends_at_once_when_told(eqd):
    worker_queue(eqd)
    p = eqd.start_ctl("worker", "run", "-q", "w", "--", "cat")
    eventually(lambda: eqd.ok("worker", "ls", "--json"), "it serves")
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(60, -signal.SIGKILL)
    contains(p.stderr.readline().decode(), "lost the connection")
    p.send_signal(signal.SIGTERM)
    p.communicate(timeout=60)
    equal(p.returncode, 75)


@test()
def a_connection_that_an_ending_eqd_still_took_is_tried_again(eqd):
    c = worker_queue(eqd)
    path = eqd.dir / "of-another"
    with socket.socket(socket.AF_UNIX) as ending:
        ending.bind(str(path))
        ending.listen()
        p = eqd.start_ctl("--socket", path, "worker", "run", "-q", "w", "--", "cat")
        taken, _ = ending.accept()
        with taken:
            taken.recv(1)
            path.unlink()
            path.symlink_to(eqd.socket)
    task = submit(c, b"payload")
    equal(ended(c, task)["result"], b"payload")
    p.send_signal(signal.SIGTERM)
    contains(p.communicate(timeout=60)[1].decode(), "lost the connection", "connected again")
    equal(p.returncode, 0)


def start_example(eqd, name, queue):
    process = subprocess.Popen([BUILD / "client" / name, queue], env=eqd.environment(EQD_SOCKET=str(eqd.socket)),
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    eventually(lambda: eqd.queue(queue)["workers"] == 1, f"{name} serves")
    return process


@test()
def the_examples_of_libeq_are_workers(eqd):
    worker_queue(eqd, "shout")
    worker_queue(eqd, "naps", "max_active=16")
    blocking, loop = start_example(eqd, "example-worker", "shout"), start_example(eqd, "example-worker-libuv", "naps")
    equal(eqd.ctl("run", "-q", "shout", "--payload", "hello").out, "HELLO")
    equal(eqd.ctl("run", "-q", "naps", "--payload", "1").out, "slept")
    eqd.submit("-q", "naps", "--payload", "1000000")
    eqd.until_state("naps/2", "RUNNING")
    eqd.ok("cancel", "naps/2")
    eqd.ends_as("naps/2", "CANCELED", error="woken up")
    blocking.terminate()
    equal((blocking.wait(60), blocking.communicate()[1]), (0, b""))
    eqd.ok("worker", "kick", json.loads(eqd.ok("worker", "ls", "--json"))["worker"]) # it comes back
    equal(eqd.ctl("run", "-q", "naps", "--payload", "1").out, "slept")
    loop.terminate()
    equal(loop.communicate(timeout=60)[1], b"")


@test()
def worker_verbs_say_what_is_wrong(eqd):
    worker_queue(eqd)
    eqd.fails(2, "worker", "run", "--", "cat", says="-q QUEUE")
    eqd.fails(2, "worker", "run", "-q", "w", says="usage")
    eqd.fails(127, "worker", "run", "-q", "w", "--", "no-such-command", says="not found")
    plain = eqd.dir / "work" / "plain"
    plain.write_text("no program")
    plain.chmod(0o644)
    eqd.fails(126, "worker", "run", "-q", "w", "--", plain, says="ermission denied")
    eqd.fails(66, "worker", "run", "-q", "nosuch", "--", "cat", says="no queue nosuch")
    eqd.fails(1, "worker", "run", "-q", "default", "--", "cat", says="executor=worker")
    eqd.fails(2, "worker", "run", "-q", "w", "-j", "0", "--", "cat", says="jobs")
    eqd.fails(66, "worker", "kick", "99", says="no worker 99; eqctl worker ls lists them")
    eqd.fails(2, "worker", "kick", "x", says="no number")
    eqd.fails(2, "submit", "-q", "w", "--payload", "x", "--", "cat", says="payload")
    eqd.fails(2, "submit", "-q", "w", "--payload", "x", "-C", "/", says="cwd")
    eqd.fails(1, "submit", "-q", "w", "--payload", "@/no/such/file", says="/no/such/file")


@test(config={"eqd.conf": "[Queue]\nDurable=no\n[Watchdog]\nWatchdogThresh=4s\nHungTaskTimeoutSecs=4s\n"})
def a_command_of_a_worker_may_be_silent_for_long(eqd):
    """That it is there is its life: eqctl says so every second."""
    c, events = worker_queue(eqd), eqd.events(events=["stall.", "task.hung"])
    w = Ctl(eqd, "--", "sleep", "1000")
    running, _ = submit(c, b""), submit(c, b"")
    signs, last = 0, 0
    while signs < 4 or time.time() * 1e6 - c.call("show", [running])[0]["started_usec"] < 6e6: # beyond what is allowed without any
        seen = c.call("worker_list")[0]["seen_usec"]
        signs, last = signs + (seen < last), seen
        events.receive(0.05)
    equal(stalls(events), [])
    os.kill(w.process.pid, signal.SIGSTOP) # then nobody tells of it
    event = events.note(lambda method, p: method == "event" and p[0]["event"] == "stall.begin" and p[0].get("queue") == "w")[0]
    equal(event["id"], running)
    w.process.kill()
    w.process.wait()


if __name__ == "__main__":
    main()
