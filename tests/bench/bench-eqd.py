#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench-eqd.py [--rounds N] [--seconds S] [NAME...]: the whole of eqd beside its peers and ceilings.

Prints `bench NAME VALUE UNIT ratio R of PEER (PEER-VALUE UNIT; placement)`. eqd and peer are measured in turn, each round
with a fresh eqd; medians of the rounds are printed. A peer that is not installed is left out, with a note.
"""

import argparse
import collections
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "system"), str(HERE / "peers")]
import eqdtest
import peers as kit
import pluginkit

LOADGEN = eqdtest.BUILD / "tests/bench/loadgen"
CPUS = sorted(os.sched_getaffinity(0))
BENCHES = {}


def bench(function):
    BENCHES[function.__name__.replace("_", "-")] = function
    return function


def loadgen(*args):
    """(count, seconds)"""
    p = subprocess.run([LOADGEN, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if p.returncode:
        raise SystemExit(f"loadgen {args[0]}: {p.stderr.strip()}")
    n, seconds = p.stdout.split()
    return int(n), float(seconds)


def rate(*args):
    n, seconds = loadgen(*args)
    return n / seconds


def pin(eqd, cpu):
    for pid in (eqd.pid, *eqdtest.descendants(eqd.pid)):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})


class Fresh:
    """An eqd for one measurement. Its queues live in memory unless they say durable=yes."""

    def __init__(self, *queues, cpu=None, **options):
        self.eqd = eqdtest.Eqd(**options)
        for queue, *attributes in queues:
            says = any(a.startswith("durable=") for a in attributes)
            self.eqd.ok("queue", "create", queue, *attributes, *([] if says else ["durable=no"]))
        if cpu is not None:
            pin(self.eqd, cpu)

    def __enter__(self):
        return self.eqd

    def __exit__(self, *_):
        self.eqd.kill()
        self.eqd.log.close()
        os.close(self.eqd.pidfd)
        self.eqd.remove()


def stat(eqd, key):
    with eqd.connect() as c:
        return c.call("stat")[key]


def report(name, values, unit, peer=None, peers=(), placement="free"):
    value = statistics.median(values)
    line = f"bench {name} {value:.4g} {unit}"
    if peers:
        other = statistics.median(peers)
        line += f" ratio {value / other:.2f} of {peer} ({other:.4g} {unit};"
    else:
        line += " ("
    print(f"{line} {placement})", flush=True)


# ---- commands ----

def on_cpu(cpu, work, *args):
    """What this process and all that it starts do meanwhile is done on that CPU. None: where the kernel likes."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if cpu is None else {cpu})
    try:
        return work(*args)
    finally:
        os.sched_setaffinity(0, before)


def trues_and_loop(n, options):
    with Fresh(["q"], **options) as eqd:
        mine = rate("run", eqd.socket, "q", n)
    return mine, rate("spawn", n)


@bench
def true_serial(o):
    """/bin/true one after the other, its tree held together by a process group, or by a cgroup; where the kernel likes, and all on
    one CPU, where nothing is in parallel and no idle CPU has to be woken up."""
    n = 300
    where = f"unpinned, {len(CPUS)} CPUs"
    rows = {
        "true-serial": (None, {}, where),
        "true-serial-cgroup": (None, {"cgroup": True}, f"a cgroup per command, {where}"),
        "true-serial-1cpu": (CPUS[-1], {}, "all on one CPU"),
        "true-serial-cgroup-1cpu": (CPUS[-1], {"cgroup": True}, "a cgroup per command, all on one CPU"),
    }
    pairs, skipped = collections.defaultdict(list), {}
    for _ in range(o.rounds):
        for name, (cpu, options, _) in rows.items():
            try:
                pairs[name].append(on_cpu(cpu, trues_and_loop, n, options))
            except eqdtest.Skip as e:
                skipped[name] = e
    for name, (_, _, placement) in rows.items():
        if pairs[name]:
            mine, loop = zip(*pairs[name])
            report(name, mine, "tasks/s", "posix_spawn loop", loop, placement)
        else:
            print(f"# {name} is left out: {skipped[name]}")


# ---- from the shell: eqctl beside tsp, of the package task-spooler ----

class Spooler:
    """A server of task-spooler, as it is by default: it keeps what jobs print, as eqd does."""

    def __init__(self, slots):
        self.place = eqdtest.Place()
        self.env = {**os.environ, "TS_SOCKET": str(self.place.dir / "ts"), "TMPDIR": str(self.place.dir)}
        self.call("-S", slots)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call("-K")
        eqdtest.eventually(lambda: not (self.place.dir / "ts").exists(), "tsp's server has ended")
        eqdtest.eventually(self.removed, "the processes of jobs that waited are gone")

    def removed(self):
        """Each job that waited has a process of its own, which may still make a file for its output."""
        try:
            self.place.remove()
        except OSError:
            return False
        return True

    def call(self, *args):
        subprocess.run(["tsp", *map(str, args)], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       check=True)

    def close_gate(self):
        """A job that holds the slot and needs no CPU, until something opens the FIFO for writing."""
        gate = self.place.dir / "gate"
        os.mkfifo(gate)
        self.call("-n", "sh", "-c", f": <{gate}")
        return gate

    def repeat(self, n, *args):
        """What the last of n calls printed."""
        return repeat(n, "tsp", *args, env=self.env)


def repeat(n, *command, env=None):
    """Runs it n times, one after the other, from one small C program: the same for everybody."""
    p = subprocess.run([LOADGEN, "procs", str(n), *map(str, command)], env=env, stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, check=False)
    if p.returncode:
        raise SystemExit(f"{command[0]}: {p.stderr.strip()}")
    return p.stdout.split("\n", 1)[1].strip()


def rate_of(n, work, *args):
    start = time.monotonic()
    work(*args)
    return n / (time.monotonic() - start)


def eqctl_run(eqd, n):
    repeat(n, eqd.eqctl, "--socket", eqd.socket, "run", "-q", "q", "--", "/bin/true")


def tsp_run(tsp, n):
    tsp.repeat(n, "-f", "/bin/true")


def eqctl_submit(eqd, n):
    submit_only(eqd, n)
    eqd.ok("queue", "flush", "q")


def tsp_submit(tsp, n):
    last = int(tsp.repeat(n, "/bin/true"))
    for job in (last - 1, last): # with two slots the last but one may end last
        tsp.call("-w", job)


def eqctl_each(eqd, n):
    each_only(eqd, n)
    eqd.ok("queue", "flush", "q")


# Held back until all is submitted, then drained: what a person waits for who types a loop and then waits.

def tsp_held(tsp, n):
    gate = tsp.close_gate()
    last = tsp.repeat(n, "/bin/true")
    gate.write_text("")
    tsp.call("-w", last)


def held(work):
    def run(eqd, n):
        eqd.ok("queue", "pause", "q")
        work(eqd, n)
        eqd.ok("queue", "resume", "q")
        eqd.ok("queue", "flush", "q")
    return run


def submit_only(eqd, n):
    repeat(n, eqd.eqctl, "--socket", eqd.socket, "submit", "-q", "q", "--", "/bin/true")


def each_only(eqd, n):
    eqd.ok("submit", "-q", "q", "--each", "-", "--", "/bin/true", input="".join(f"{i}\n" for i in range(n)))


def start_only(eqd, n):
    """One connection: what a program does."""
    loadgen("run", eqd.socket, "q", n)


@bench
def cli_start(o):
    """What a submit costs in the shell: a process of eqctl, beside one of tsp and one of /bin/true. All paused."""
    if not have_tsp():
        return
    n, mine, peers, nothing = 200, [], [], []
    for _ in range(o.rounds):
        with Fresh(["q"]) as eqd:
            eqd.ok("queue", "pause", "q")
            mine.append(rate_of(n, submit_only, eqd, n))
        with Spooler(1) as tsp:
            gate = tsp.close_gate()
            peers.append(rate_of(n, tsp.repeat, n, "/bin/true"))
            gate.write_text("")
        nothing.append(rate_of(n, repeat, n, "/bin/true"))
    where = f"a process per submit, nothing runs meanwhile; unpinned, {len(CPUS)} CPUs"
    report("cli-start", mine, "submits/s", "task-spooler", peers, where)
    report("cli-start-floor", mine, "submits/s", "/bin/true", nothing, where)


def have_tsp():
    if not shutil.which("tsp"):
        print("# task-spooler is not installed: what is beside it is left out (apt install task-spooler)")
    return shutil.which("tsp")


@bench
def cli(o):
    """From submit to done through the command lines."""
    if not have_tsp():
        return
    n = 200
    for name, slots, mine, peer, how in (
            ("cli-held", 1, held(submit_only), tsp_held,
             "a process per submit, all held back until the last is in, then drained; 1 slot"),
            ("cli-held-each", 1, held(each_only), tsp_held, "one eqctl submit --each, a tsp per task; held back as before"),
            ("cli-one-connection", 1, start_only, tsp_submit, "submitted over one connection, a tsp per task; 1 slot"),
            ("cli-run", 1, eqctl_run, tsp_run, "eqctl run, tsp -f: a process per task waits for its end"),
            ("cli-submit", 1, eqctl_submit, tsp_submit, "a process per submit, then one wait for all; 1 slot"),
            ("cli-submit-2", 2, eqctl_submit, tsp_submit, "the same with 2 slots"),
            ("cli-each", 1, eqctl_each, tsp_submit, "one eqctl submit --each, a tsp per task; 1 slot"),
            ("cli-each-2", 2, eqctl_each, tsp_submit, "the same with 2 slots")):
        values, peers = [], []
        for _ in range(o.rounds):
            with Fresh(["q", f"max_active={slots}"]) as eqd:
                values.append(rate_of(n, mine, eqd, n))
            with Spooler(slots) as tsp:
                peers.append(rate_of(n, peer, tsp, n))
        report(name, values, "tasks/s", "task-spooler", peers, f"{how}; unpinned, {len(CPUS)} CPUs")


@bench
def true_big_daemon(o):
    """Starting commands must not depend on how much eqd holds."""
    n = 300
    small, big, rss = [], [], []
    for _ in range(o.rounds):
        with Fresh(["q"]) as eqd:
            small.append(rate("run", eqd.socket, "q", n))
        with Fresh(["q"], ["big", "max_bytes=2G"]) as eqd:
            eqd.ok("queue", "pause", "big")
            loadgen("submit", eqd.socket, "big", 1, 4, 1000000, 512, 600, -1)
            rss.append(stat(eqd, "rss_kib") / 1024)
            big.append(rate("run", eqd.socket, "q", n))
    report("true-big-daemon", big, "tasks/s", "a small eqd", small,
           f"unpinned; {statistics.median(rss):.0f} MiB resident")


# ---- submit ----

@bench
def submit_round_trip(o):
    """One connection, one in flight, all on one CPU."""
    mine, peers = [], []
    for _ in range(o.rounds):
        with Fresh(["q", "max_bytes=100G", "max_tasks=100000000"], cpu=CPUS[0]) as eqd:
            eqd.ok("queue", "pause", "q")
            mine.append(rate("submit", eqd.socket, "q", 1, 1, 100, 0, o.seconds, CPUS[0]))
        peers.append(rate("pingpong", o.seconds, CPUS[0]))
    report("submit-round-trip", mine, "tasks/s", "AF_UNIX ping-pong", peers, "eqd and client on one CPU")


@bench
def submit_pipelined(o):
    """8 connections x 200 in flight onto a paused queue."""
    free, peers = [], []
    for _ in range(o.rounds):
        with Fresh(["q", "max_bytes=100G", "max_tasks=100000000"]) as eqd:
            eqd.ok("queue", "pause", "q")
            free.append(rate("submit", eqd.socket, "q", 8, 200, 100, 0, o.seconds, -1))
        peers.append(rate("pingpong", o.seconds, CPUS[0]))
    report("submit-8x200", free, "tasks/s", "AF_UNIX ping-pong", peers, f"unpinned, {len(CPUS)} CPUs; ping-pong on one")


@bench
def submit_durable(o):
    """Acknowledged submits to a durable, paused queue: 8 connections x 200 in flight, and one after the other."""
    many, one, log = [], [], []
    for _ in range(o.rounds):
        with Fresh(["q", "max_bytes=100G", "max_tasks=100000000", "durable=yes"]) as eqd:
            eqd.ok("queue", "pause", "q")
            many.append(rate("submit", eqd.socket, "q", 8, 200, 100, 0, o.seconds, -1))
            one.append(rate("submit", eqd.socket, "q", 1, 1, 100, 0, o.seconds, -1))
            log.append(rate("log", eqd.dir / "log-file", 200, o.seconds))
    placement = f"unpinned, {len(CPUS)} CPUs, one disk"
    report("submit-durable-8x200", many, "tasks/s", "append + fdatasync one by one", log, placement)
    report("submit-durable-1x1", one, "tasks/s", "append + fdatasync", log, placement)


@bench
def submit_backlog(o):
    """Does a submit cost more when 100,000 tasks wait?"""
    first, later = [], []
    for _ in range(o.rounds):
        with Fresh(["q", "max_bytes=100G"], cpu=CPUS[0]) as eqd:
            eqd.ok("queue", "pause", "q")
            loadgen("submit", eqd.socket, "q", 1, 32, 100, 1000, 60, CPUS[0]) # warm
            first.append(rate("submit", eqd.socket, "q", 1, 32, 100, 10000, 60, CPUS[0]))
            loadgen("submit", eqd.socket, "q", 1, 200, 100, 90000, 60, CPUS[0])
            later.append(rate("submit", eqd.socket, "q", 1, 32, 100, 10000, 60, CPUS[0]))
    report("submit-at-100k", later, "tasks/s", "submit at 1k", first, "eqd and client on one CPU, 32 in flight")


# ---- workers ----

class Beanstalkd:
    """A beanstalkd for one measurement, on a socket of its own."""

    def __init__(self, cpu=None):
        self.place = eqdtest.Place()
        self.process = subprocess.Popen(["beanstalkd", "-l", f"unix:{self.place.socket}"], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        eqdtest.eventually(self.place.socket.exists, "beanstalkd listens")
        if cpu is not None:
            os.sched_setaffinity(self.process.pid, {cpu})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.place.remove()


def loop_seconds(pid):
    """CPU time of its first thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cycle(*args):
    """(count, seconds)"""
    p = subprocess.run([eqdtest.BUILD / "tests/bench/cycle", *map(str, args)], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, check=False)
    if p.returncode:
        raise SystemExit(f"cycle {args[0]}: {p.stderr.strip()}")
    n, seconds, _ = p.stdout.split()
    return int(n), float(seconds)


def cycle_rate(kind, socket, pid, *args):
    """(cycles/s, CPU time of the server per cycle in us)"""
    before = cpu_seconds(pid)
    n, seconds = cycle(kind, socket, *args)
    return n / seconds, (cpu_seconds(pid) - before) * 1e6 / n


def cycles(o, name, attributes, args, cpu, placement):
    mine, peers, costs, peer_costs = [], [], [], []
    for _ in range(o.rounds):
        with Fresh(["w", "executor=worker", "durable=no", *attributes], cpu=cpu) as eqd:
            value, cost = cycle_rate("eqd", eqd.socket, eqd.pid, *args)
            mine.append(value)
            costs.append(cost)
        if shutil.which("beanstalkd"):
            with Beanstalkd(cpu) as b:
                value, cost = cycle_rate("beanstalkd", b.place.socket, b.process.pid, *args)
                peers.append(value)
                peer_costs.append(cost)
    report(name, mine, "tasks/s", "beanstalkd", peers, placement)
    report(f"{name}-cpu", costs, "us/task", "beanstalkd", peer_costs, f"CPU time of the server; {placement}")
    if not peers:
        print("# beanstalkd is not installed: apt install beanstalkd")


@bench
def worker_pipelined(o):
    """submit -> worker -> answer: 4 producers and 4 workers, 100 in flight each, max_active=1000."""
    cycles(o, "worker-4+4x100", ["max_active=1000"], (4, 4, 100, o.seconds, -1), None,
           f"unpinned, {len(CPUS)} CPUs, generator included")


@bench
def worker_unpipelined(o):
    """One producer and one worker, one in flight each, all on one CPU."""
    cycles(o, "worker-1+1", ["max_active=1"], (1, 1, 1, o.seconds, CPUS[0]), CPUS[0], "server and generator on one CPU")


@bench
def worker_serial(o):
    """A serial queue: 4 producers, one worker, strictly one task after the other."""
    cycles(o, "worker-serial-4+1x100", ["max_active=1"], (4, 1, 100, o.seconds, CPUS[0]), CPUS[0],
           "server and generator on one CPU; beanstalkd hands out 100 at once")


@bench
def worker_confirmed(o):
    """What it costs to be told that answers are kept: the same with confirm and without, in memory and on the disk."""
    for kind in ("no", "yes"):
        rates, costs = ({"eqd-confirmed": [], "eqd": []} for _ in range(2))
        for _ in range(o.rounds):
            for way, values in rates.items():
                with Fresh(["w", "executor=worker", "max_active=1000", f"durable={kind}"]) as eqd:
                    value, cost = cycle_rate(way, eqd.socket, eqd.pid, 4, 4, 100, o.seconds, -1)
                values.append(value)
                costs[way].append(cost)
        name = f"worker-confirmed-{'durable' if kind == 'yes' else 'volatile'}"
        where = f"4+4 connections x 100; unpinned, {len(CPUS)} CPUs, generator included"
        report(name, rates["eqd-confirmed"], "tasks/s", "no confirmation", rates["eqd"], where)
        report(f"{name}-cpu", costs["eqd-confirmed"], "us/task", "no confirmation", costs["eqd"], f"CPU time of eqd; {where}")


# ---- servers of others, each with the same generator; see peers/README.md ----

WHERE = {"free": f"unpinned, {len(CPUS)} CPUs", "same": "all on one CPU", "cross": "server and generator on a CPU each"}


def beside(o, name, load, title, *peers, mine="eqd-vol", placement="free", figures=None, turns=1):
    """A cell of the kit: eqd and each of its peers in turn, to and fro, so often a round. A line per peer and figure, of which there are others
    than the cell's own by (what follows the name, the figure, its unit)."""
    cell = next(c for c in kit.CELLS if (c.kind, c.title) == (load, title))
    rows = {row.name: row for row in kit.SERVERS}
    found = {row: [] for row in (mine, *peers) if kit.installed(rows[row].program)}
    with kit.Place(tempfile.gettempdir(), nice=min(os.nice(0), 0)) as place:
        bench_of_kit = kit.Bench(o, place)
        for i in range(o.rounds * turns):
            for row, values in list(found.items())[::1 if i % 2 == 0 else -1]:
                with kit.Running(place, rows[row], placement) as server:
                    values.append(bench_of_kit.qload(server, f"{cell.load} -t {o.seconds}", placement,
                                                     rows[row].many if cell.many else None))
    for row in peers:
        if row not in found:
            print(f"# {rows[row].program} is not installed: {name} is not beside it")
            continue
        shares = ", ".join(f"{statistics.median(v['client_cpu'] for v in found[r]):.2f} with {rows[r].program}" for r in (mine, row))
        for suffix, figure, unit in figures or (("", cell.figure, "tasks/s"),):
            ours, theirs = ([v[figure] for v in found[r]] for r in (mine, row))
            ratios = [a / b for a, b in zip(ours, theirs)]
            report(f"{name}-{rows[row].program}{suffix}", ours, unit, rows[row].program, theirs,
                   f"{cell.load}; {WHERE[placement]}, CPU of the generator {shares}; "
                   f"by turn {min(ratios):.2f} to {max(ratios):.2f}")


@bench
def peer_submit(o):
    """8 connections x 200 in flight onto a volatile queue, beside LPUSH of a redis that writes nothing."""
    beside(o, "submit-8x200", "submit", "8c d=200", "rl-vol")


@bench
def peer_submit_durable(o):
    """The same onto a durable queue, beside a redis with appendfsync always."""
    beside(o, "submit-durable-8x200", "submit", "8c d=200", "rl-always", mine="eqd-dur")


@bench
def peer_submit_many(o):
    """submit_many of 100 tasks, ten in flight, beside LPUSH of 100 values."""
    beside(o, "submit-many-100", "submit", "1c many d=10", "rl-vol")


@bench
def peer_cycle(o):
    """submit -> worker -> answer, 4 producers and 4 workers, 100 in flight each: beside all peers, since which is the best of them
    depends on the machine. Streams of redis are behind its lists everywhere."""
    beside(o, "cycle-4+4x100", "cycle", "4+4 d=100", "gm-mem", "rl-vol", "nats-mem", "bs-vol")


@bench
def worker_latency(o):
    """From submit to a worker that waits in a thread of its own, at 1000 submits a second. Four turns a round: the p99 of a
    turn is its tenth worst of a thousand, which a tick of another program decides, the median of them is not."""
    for placement in WHERE if len(CPUS) > 1 else ("same",):
        beside(o, f"worker-latency-{placement}", "latency", "1+1 at 1000/s", "bs-vol", placement=placement, turns=4,
               figures=[(f"-{q}", f"delivery_{q}_us", "us") for q in ("p50", "p99")])


# ---- plugins ----

def chains(eqd, n, length):
    """Tasks per second of n chains, of which each task submits the next one to its own queue, up to 128."""
    pluginkit.queue_file(eqd, "p", "trial-plain", "Durable=no")
    eqd.ok("reload")
    with eqd.connect() as c, eqd.connect() as other:
        c.call("queue_pause", "p")
        for _ in range(n):
            pluginkit.submit(c, b"deep p\0" + bytes([length - 1]))
        drained = other.send("queue_drain", "p")
        eqdtest.eventually(lambda: eqd.queue("p")["state"] == "draining", "it drains")
        start = time.monotonic()
        c.call("queue_resume", "p")
        other.reply(drained, 600)
        return n * length / (time.monotonic() - start)


@bench
def plugin_chain(o):
    """Chained submits of a plugin: what each task waits for is the way of its submit to a thread, and of its end to the loop."""
    one, many, each = [], [], []
    for _ in range(o.rounds):
        with Fresh(user=True, config={"eqd.conf": pluginkit.CONF}, change=pluginkit.place_plugins) as eqd:
            one.append(chains(eqd, 1, 128))
            many.append(chains(eqd, 64, 128))
            each.append(chains(eqd, 8192, 1))
    report("plugin-chain-1", one, "tasks/s", "as many that a client has submitted", each, "unpinned; one chain of 128")
    report("plugin-chain-64", many, "tasks/s", "as many that a client has submitted", each, "unpinned; 64 chains of 128 at once")


# ---- memory ----

PAYLOAD = eqdtest.BUILD / "tests/bench/payload"


@bench
def payload(o):
    """Large payloads as sealed memfds, beside the same in messages: what decides above which size it is worth one."""
    for kind, what in (("submit", "accepted"), ("cycle", "submit, worker, answer")):
        for kib in (16, 64, 128, 256, 512, 1024):
            for depth in (1, 8):
                for cpu in (CPUS[0], None):
                    found = {"memfd": [], "message": []}
                    for _ in range(o.rounds):
                        for way, values in found.items():
                            values.append(payload_rate(o, kind, kib, way, depth, cpu))
                    report(f"payload-{kind}-{kib}k-{depth}", found["memfd"], "payloads/s", "in messages", found["message"],
                           f"{what}; {depth} in flight, {'unpinned' if cpu is None else 'all on one CPU'}")


def payload_rate(o, kind, kib, way, depth, cpu):
    attributes = ["max_active=100", "max_tasks=32", "history=10"] + (["on_full=drop-oldest"] if kind == "submit" else [])
    with Fresh(["q", "executor=worker", *attributes], cpu=cpu) as eqd:
        p = subprocess.run([PAYLOAD, eqd.socket, "q", kind, str(kib * 1024), way, str(depth), str(o.seconds),
                            str(-1 if cpu is None else cpu)], capture_output=True, text=True, check=False)
        if p.returncode:
            raise SystemExit(f"payload: {p.stderr.strip()}")
        n, seconds = p.stdout.split()
        return int(n) / float(seconds)


@bench
def memory_per_task(o):
    """Resident bytes per pending task with a payload of 100 bytes, and what stays when workers have emptied the queue."""
    n, values, after = 1000000, [], []
    for _ in range(o.rounds):
        with Fresh(["w", "executor=worker", "max_active=1000"]) as eqd:
            before = stat(eqd, "rss_kib")
            loadgen("payloads", eqd.socket, "w", 1, 200, 100, n, 600, -1, 1)
            values.append((stat(eqd, "rss_kib") - before) * 1024 / n)
            cycle("drain", "eqd", eqd.socket, 4, 100, n)
            eqd.ok("queue", "flush", "w")
            after.append((stat(eqd, "rss_kib") - before) / 1024)
    report("memory-per-task", values, "bytes", placement=f"{n} volatile tasks with 100 bytes each")
    report("memory-after-drain", after, "MiB", placement="more than before them, when workers have done them all")


def bytes_read(eqd):
    return int(Path(f"/proc/{eqd.pid}/io").read_text().split()[1])


def kill_and_start(eqd):
    """kill -9, and the next one; (seconds to READY=1, CPU seconds until then)."""
    eqd.close_connections()
    os.kill(eqd.pid, signal.SIGKILL)
    eqd.expect_end(20, -signal.SIGKILL)
    eqd.forget()
    for path in (eqd.dir / "state/store").iterdir():
        path.read_bytes() # warm
    begin = time.monotonic()
    eqd.start()
    seconds = time.monotonic() - begin
    return seconds, cpu_seconds(eqd.pid)


@bench
def durable_depth(o):
    """A durable queue of a million tasks, of ten with EQD_LONG=1: what a submit costs at its end, memory, and a start after kill -9."""
    n, part = 10_000_000 if eqdtest.LONG else 1_000_000, 200_000
    first, last, memory, starts, costs, after, resident = [], [], [], [], [], [], [] # first, last: (us of the loop, us of all threads, rate)
    for _ in range(o.rounds):
        with Fresh(["w", "executor=worker", "max_bytes=100G", "max_tasks=100000000", "durable=yes"]) as eqd:
            eqd.ok("queue", "pause", "w")
            before = stat(eqd, "rss_kib")
            for tasks, rates in ((part, first), (n - 2 * part, []), (part, last)):
                loop, cpu = loop_seconds(eqd.pid), cpu_seconds(eqd.pid)
                rate_ = rate("payloads", eqd.socket, "w", 4, 8, 100, tasks, 600, -1, 100)
                rates.append(((loop_seconds(eqd.pid) - loop) * 1e6 / tasks, (cpu_seconds(eqd.pid) - cpu) * 1e6 / tasks, rate_))
            resident.append(stat(eqd, "rss_kib") / 1e6 * 1024)
            memory.append((stat(eqd, "rss_kib") - before) * 1024 / n)
            seconds, cpu = kill_and_start(eqd)
            starts.append(seconds)
            costs.append(cpu)
            after.append((stat(eqd, "rss_kib") - before) * 1024 / n)
    for i, (name, unit, what) in enumerate((("-cpu", "us/task", "CPU time of the loop"), ("-cpu-all", "us/task", "CPU time of all threads"),
                                            ("", "tasks/s", "accepted"))):
        report(f"durable-submit-deep{name}", [v[i] for v in last], unit, "the first", [v[i] for v in first],
               f"{what}; the last {part} of {n}")
    report("durable-memory", resident, "MB", placement=f"resident in all, {n} tasks with 100 bytes each")
    report("durable-memory-per-task", memory, "bytes", placement=f"resident, {n} tasks with 100 bytes each")
    report("durable-memory-per-task-after-start", after, "bytes", placement="the same after kill -9 and a start")
    report("durable-start", starts, "s", placement=f"kill -9 to READY=1, page cache warm, {n} tasks")
    report("durable-start-cpu", costs, "s", placement="CPU time until then")


def settled_reads(eqd):
    """Bytes that it has read when all sealed files have their hints, and the front of its queues is in memory."""
    count = lambda pattern: len(list((eqd.dir / "state/store").glob(pattern)))
    eqdtest.eventually(lambda: count("log-*") - count("hint-*") <= 1, "each file but the one that is written to has its hint")
    read, before = bytes_read(eqd), -1
    while read != before:
        time.sleep(0.2)
        read, before = bytes_read(eqd), read
    return read


def large_start(n):
    """(bytes that a start reads of n tasks with 64 KiB, as kill -9 has left them; when the log is in order; seconds of the latter)"""
    with Fresh(["w", "executor=worker", "max_bytes=100G", "durable=yes"]) as eqd:
        eqd.ok("queue", "pause", "w")
        loadgen("payloads", eqd.socket, "w", 1, 16, 65536, n, 600, -1, 1)
        kill_and_start(eqd)
        first = settled_reads(eqd)
        seconds, _ = kill_and_start(eqd)
        return first, settled_reads(eqd), seconds


@bench
def durable_start_large(o):
    """What a start reads of 20,000 tasks with 64 KiB each: for each, beside what it reads of 1,000, and in all."""
    few, n = 1000, 20_000
    small = [large_start(few) for _ in range(o.rounds)]
    large = [large_start(n) for _ in range(o.rounds)]
    report("durable-start-large-reads", [(b[1] - a[1]) / (n - few) for a, b in zip(small, large)], "bytes/task",
           placement=f"what more is read of {n} than of {few}, all of it")
    report("durable-start-large-reads-in-all", [v[1] / 1e6 for v in large], "MB", placement="with what runs, and the front of the queue")
    report("durable-start-large-reads-after-kill", [v[0] / 1e6 for v in large], "MB",
           placement="the same where the last file, of 64 MiB, has no hint: kill -9 in the middle of submits")
    report("durable-start-large", [v[2] for v in large], "s", placement=f"kill -9 to READY=1, {n} tasks with 64 KiB")


@bench
def durable_drain(o):
    """Workers empty a durable queue of 300,000 tasks, which come from the store, beside one in memory."""
    n, durable, volatile = 300_000, [], []
    for _ in range(o.rounds):
        for kind, rates in (("yes", durable), ("no", volatile)):
            with Fresh(["w", "executor=worker", "max_active=1000", "max_bytes=1G", "max_tasks=1000000", f"durable={kind}"]) as eqd:
                loadgen("payloads", eqd.socket, "w", 4, 8, 100, n, 600, -1, 100)
                done, seconds = cycle("drain", "eqd", eqd.socket, 4, 100, n)
                rates.append(done / seconds)
    report("durable-drain", durable, "tasks/s", "the same in memory", volatile, "unpinned, 4 workers with 100 each")


@bench
def memory_per_command(o):
    """The same of commands: /bin/true with 100 bytes for its standard input."""
    n, values = 200000, []
    for _ in range(o.rounds):
        with Fresh(["q"]) as eqd:
            eqd.ok("queue", "pause", "q")
            before = stat(eqd, "rss_kib")
            loadgen("submit", eqd.socket, "q", 1, 200, 100, n, 600, -1)
            values.append((stat(eqd, "rss_kib") - before) * 1024 / n)
    report("memory-per-command", values, "bytes", placement=f"{n} tasks of /bin/true with 100 bytes each")


@bench
def memory_idle(o):
    """10,000 queues and 1,000 idle clients."""
    queues, clients = [], []
    for _ in range(o.rounds):
        with Fresh() as eqd:
            before = stat(eqd, "rss_kib")
            loadgen("queues", eqd.socket, 10000)
            between = stat(eqd, "rss_kib")
            with subprocess.Popen([LOADGEN, "idle", eqd.socket, "1000"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE) as p:
                p.stdout.readline()
                clients.append((stat(eqd, "rss_kib") - between) / 1000)
                p.stdin.close()
            queues.append((between - before) / 10000)
    report("memory-per-queue", queues, "KiB", placement="10,000 queues")
    report("memory-per-client", clients, "KiB", placement="1,000 idle connections")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    o = parser.parse_args()
    kit.find_servers()
    for name in o.names or BENCHES:
        if name not in BENCHES:
            parser.error(f"no bench {name}; there are {', '.join(BENCHES)}")
        BENCHES[name](o)


if __name__ == "__main__":
    main()
