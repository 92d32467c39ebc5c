#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures eqd beside job-queue servers and command runners from Debian packages.

Starts each server with a fresh data directory, runs interleaved cells of load (qload) against it,
prints medians as Markdown tables, and ends what it started by process id. README.md says how to read the
tables.
"""
import argparse
import collections
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from place import BUILD, PROGRAMS, Place, filesystem, note
from runners import CEILINGS, RUNNERS
from servers import SERVERS, Running, installed

QLOAD = PROGRAMS / 'qload'
CLIENT_BUSY = 0.80  # share of a CPU above which the generator may be what limits a figure


class Cell(NamedTuple):
    kind: str                    # word on the command line
    title: str                   # column of the table
    figure: str                  # result of qload that is the figure
    placements: tuple[str, ...]  # see Place.cpus()
    load: str                    # qload options
    many: bool = False           # only for servers with a protocol for many tasks per request


PINNED = ('same', 'cross')   # one request in flight: the scheduler's choice would decide the figure
FREE = ('free',)

CELLS = [
    Cell('submit', '1c', 'accepted_per_s', PINNED, '-p 1'),
    Cell('submit', '8c', 'accepted_per_s', FREE, '-p 8'),
    Cell('submit', '1c d=1000', 'accepted_per_s', FREE, '-p 1 -d 1000'),
    Cell('submit', '8c d=200', 'accepted_per_s', FREE, '-p 8 -d 200'),
    Cell('submit', '1c many d=10', 'accepted_per_s', FREE, '-p 1 -d 10', many=True),
    Cell('cycle', '1+1', 'done_per_s', PINNED, '-p 1 -w 1 -c 200'),
    Cell('cycle', '4+4', 'done_per_s', FREE, '-p 4 -w 4 -c 200'),
    Cell('cycle', '1+1 d=100', 'done_per_s', FREE, '-p 1 -w 1 -d 100 -D 100'),
    Cell('cycle', '4+4 d=100', 'done_per_s', FREE, '-p 4 -w 4 -d 100 -D 100'),
    Cell('latency', '1+1 at 1000/s', 'submit_p50_us', PINNED, '-p 1 -w 1 -T -r 1000 -L'),
]
SMOKE = [Cell('cycle', '1+1', 'done_per_s', FREE, '-p 1 -w 1 -c 200')]
LATENCY = [f'{what}_{p}_us' for what in ('submit', 'delivery') for p in ('p50', 'p99', 'p999')]


# ---- figures and tables ----

def figures(line):
    """The key=value words of a line of qload as numbers."""
    return {key: float(value) for key, value in re.findall(r'(\S+)=(\S+)', line)}


def short(value):
    """Three digits that matter."""
    if abs(value) >= 1000:
        return f'{value:,.0f}'
    return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'


def median(values):
    values = list(values)
    return short(statistics.median(values)) if values else '-'


def spread(values):
    """median (min..max)"""
    values = list(values)
    text = median(values)
    return text if len(values) < 2 else f'{text} ({short(min(values))}..{short(max(values))})'


def print_table(title, head, rows):
    print(title)
    print('| ' + ' | '.join(head) + ' |')
    print('|' + '---|' * len(head))
    for row in rows:
        print('| ' + ' | '.join(str(field) for field in row) + ' |')
    print(flush=True)


class Bench:
    """The options, the place and the records of one call of this program."""

    def __init__(self, options, place):
        self.options, self.place = options, place
        self.records = []
        self.loads = []

    def record(self, **fields):
        self.records.append(fields)
        if self.options.json:
            with open(self.options.json, 'a') as f:
                f.write(json.dumps(fields) + '\n')

    def of_kind(self, kind, **same):
        return [r for r in self.records if r['kind'] == kind and all(r[k] == v for k, v in same.items())]

    def servers(self):
        wanted = self.options.servers.split(',') if self.options.servers else [s.name for s in SERVERS]
        rows = [s for s in SERVERS if s.name in wanted]
        if len(rows) < len(set(wanted)):
            sys.exit('peers.py: no such server: ' + ', '.join(set(wanted) - {s.name for s in rows}))
        for program in dict.fromkeys(s.program for s in rows if not installed(s.program)):
            note(f'{program} is not installed: its rows are skipped')
        return [s for s in rows if installed(s.program)]

    def qload_words(self, server, protocol=None):
        row = server.row
        return [str(QLOAD), '-P', protocol or row.protocol, '-a', server.addr] + shlex.split(row.options)

    def qload(self, server, load, placement='free', protocol=None):
        """Runs one load to its end; RuntimeError if there is no result."""
        self.loads.append(os.getloadavg()[0])
        words = self.qload_words(server, protocol) + shlex.split(load)
        out = self.place.run(words, self.place.cpus(placement)[1])
        if not out:
            raise RuntimeError(f'{server.row.name}: no result of qload {load}')
        return figures(out)


# ---- submit, cycle, latency ----

def run_cells(bench, cells):
    servers = bench.servers()
    for rnd in range(bench.options.rounds):
        for cell in cells:
            for placement in bench.options.place.split(',') if bench.options.place else cell.placements:
                if placement == 'cross' and len(bench.place.usable) < 2:
                    continue
                with bench.place.locked():
                    for row in servers:
                        if not cell.many or row.many:
                            run_cell(bench, rnd, cell, placement, row)
    for kind in dict.fromkeys(cell.kind for cell in cells):
        if kind == 'latency':
            print_latency(bench)
        else:
            print_rates(bench, kind)
    print_checks(bench)


def run_cell(bench, rnd, cell, placement, row):
    load = f'{cell.load} -t {bench.options.seconds}'
    try:
        with Running(bench.place, row, placement) as server:
            found = bench.qload(server, load, placement, row.many if cell.many else None)
    except RuntimeError as error:
        note(str(error))
        return
    column = f'{cell.title} {placement}'
    bench.record(kind=cell.kind, column=column, placement=placement, server=row.name, round=rnd, **found,
                 figure=found.get(cell.figure, 0))
    note(f'round {rnd + 1} {row.name} {cell.kind} {column}: {short(found.get(cell.figure, 0))}')


def print_rates(bench, kind):
    base, records = bench.options.base, bench.of_kind(kind)
    cells = collections.defaultdict(dict)
    for r in records:
        cells[r['server'], r['column']][r['round']] = r['figure']

    def field(name, column):
        values, others = cells.get((name, column), {}), cells.get((base, column), {})
        ratios = [values[rnd] / others[rnd] for rnd in values if others.get(rnd)]
        text = spread(values.values())
        return f'{text} x{statistics.median(ratios):.2f}' if ratios and name != base else text

    names, columns = (list(dict.fromkeys(r[key] for r in records)) for key in ('server', 'column'))
    rows = [[name] + [field(name, column) for column in columns] for name in names]
    ratio = f'; x = ratio to {base}, median over the rounds' if base else ''
    print_table(f'{kind}, tasks/s: median (min..max){ratio}', ['server'] + columns, rows)


def print_latency(bench):
    rows = []
    for name, placement in dict.fromkeys((r['server'], r['placement']) for r in bench.of_kind('latency')):
        runs = bench.of_kind('latency', server=name, placement=placement)
        rows.append([name, placement] + [median(r[f] for r in runs if f in r) for f in LATENCY])
    print_table('latency, us, medians: submit = until its answer, delivery = until a waiting worker has it',
                ['server', 'placement'] + [f.replace('_us', '').replace('_', ' ') for f in LATENCY], rows)


def print_checks(bench):
    """What a reader needs to judge the figures: the generator's CPU, errors, other load on the machine."""
    groups = collections.defaultdict(list)
    for r in bench.records:
        if 'client_cpu' in r:
            groups[f"{r['server']} {r['kind']} {r['column']}"].append(r)
    if not groups:
        return
    busy = {name: statistics.median(r['client_cpu'] for r in runs) for name, runs in groups.items()}
    print(f'Generator CPU: {min(busy.values()):.2f}..{max(busy.values()):.2f} of one CPU.')
    for name, share in busy.items():
        if share > CLIENT_BUSY:
            print(f'- {name}: {share:.2f}; the generator may be the limit')
    for name, runs in groups.items():
        if any(r['errors'] for r in runs):
            print(f"- {name}: {sum(r['errors'] for r in runs):.0f} answers were errors")
    print(f'Load average before the cells: {min(bench.loads):.1f}..{max(bench.loads):.1f}.\n', flush=True)


# ---- crash ----

CRASH_LOADS = {'cycle': '-p 2 -w 2 -d 50 -D 20 -c 5000', 'submit': '-p 2 -d 200'}
CRASH = ['accepted', 'lost', 'lost_reserved', 'done_again', 'redelivered', 'unaccepted_present', 'in_doubt',
         'drained']


def run_crash(bench):
    """SIGKILL in the middle of a load, restart on the same data, drain, compare by sequence number."""
    servers = [s for s in bench.servers() if s.durable]
    for rnd in range(bench.options.rounds):
        for load in CRASH_LOADS:
            for row in servers:
                with bench.place.locked():
                    try:
                        crash_once(bench, rnd, load, row)
                    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                        note(f'{row.name} crash {load}: {error}')
    rows = []
    for name, load in dict.fromkeys((r['server'], r['load']) for r in bench.of_kind('crash')):
        runs = bench.of_kind('crash', server=name, load=load)
        sums = [short(sum(r[f] for r in runs)) for f in CRASH]
        rows.append([name, load, len(runs)] + sums + [spread(r['ready_seconds'] for r in runs)])
    print_table('crash, sums over the kills; lost, lost_reserved and done_again must be 0',
                ['server', 'load', 'kills'] + CRASH + ['seconds to first answer'], rows)


def crash_once(bench, rnd, load, row):
    kill_after = 0.8 + 0.137 * rnd  # not in step with anything a server does once per second
    with Running(bench.place, row) as server:
        words = bench.qload_words(server) + shlex.split(CRASH_LOADS[load])
        words += ['-t', '30', '-i', str(row.drain_idle), '-k', f'{kill_after:.3f}']
        words += ['-K', str(server.process.pid)]
        pipe = subprocess.PIPE
        with bench.place.popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as client:
            try:
                client.stdout.readline()  # the figures of the time before the crash
                if client.stdout.readline() != 'down\n':
                    raise RuntimeError('the load did not reach the crash')
                server.kill()  # qload has sent the SIGKILL; this takes the exit status
                server.start()
                out, err = client.communicate('up\n', timeout=150)
            finally:
                client.kill()
        if not out.startswith('crash '):
            raise RuntimeError(err.strip()[:200] or 'no result')
        found = figures(out)
        bench.record(kind='crash', server=row.name, load=load, round=rnd, ready_seconds=server.ready_seconds,
                     **found)
        note(f'round {rnd + 1} {row.name} {load}: ' + out.strip())


# ---- memory ----

MEMORY = {
    'pending': 'pending', 'fill_s': 'fill s', 'rss_before_mb': 'RSS before, MB', 'rss_mb': 'RSS, MB',
    'bytes_per_task': 'bytes/task', 'disk_mb': 'disk, MB', 'restart_s': 'restart s', 'drained': 'drained',
    'drain_s': 'drain s', 'disk_after_mb': 'disk after, MB',
}


def run_memory(bench):
    """Memory and disk with many tasks pending; a durable server is then killed, restarted and drained."""
    for row in bench.servers():
        with bench.place.locked():
            try:
                memory_once(bench, row)
            except RuntimeError as error:
                note(f'{row.name} memory: {error}')
    runs = bench.of_kind('memory')
    rows = [[r['server']] + [short(r[f]) if f in r else '-' for f in MEMORY] for r in runs]
    print_table(f'memory, up to {bench.options.tasks:,} tasks of 100 bytes, one run each',
                ['server'] + list(MEMORY.values()), rows)


def memory_once(bench, row):
    with Running(bench.place, row) as server:
        before = server.rss()
        fill = bench.qload(server, f'-p 4 -d 200 -n {bench.options.tasks} -t 60')
        full = server.rss()
        found = dict(pending=fill['accepted'], fill_s=fill['seconds'], rss_before_mb=before / 1e6,
                     rss_mb=full / 1e6, bytes_per_task=(full - before) / max(fill['accepted'], 1),
                     disk_mb=server.disk() / 1e6)
        if row.durable:
            time.sleep(1.2)  # past a once-per-second fsync
            server.kill()
            server.start()
            drain = bench.qload(server, '-g -w 1 -D 100 -i 1')
            found.update(restart_s=server.ready_seconds, drained=drain['received'], drain_s=drain['seconds'],
                         disk_after_mb=server.disk() / 1e6)
    bench.record(kind='memory', server=row.name, **found)
    note(f"{row.name} memory: {short(found['pending'])} pending, {short(found['rss_mb'])} MB")


# ---- backlog ----

BACKLOG = [20_000, 100_000, 300_000, 600_000, 1_000_000, 10_000_000]
STEP = 20_000


def run_backlog(bench):
    """Submit rate against the number of pending tasks; on one CPU, so that only the backlog changes."""
    steps = [n for n in BACKLOG if n <= bench.options.tasks]
    for row in bench.servers():
        with bench.place.locked():
            try:
                backlog_once(bench, row, steps)
            except RuntimeError as error:
                note(f'{row.name} backlog: {error}')
    rows = []
    for name in dict.fromkeys(r['server'] for r in bench.of_kind('backlog')):
        runs = bench.of_kind('backlog', server=name)
        rows.append([name] + [f"{short(r['deep'])} / {short(r['single'])}" for r in runs])
    print_table('backlog, submits/s by pending tasks, 1 connection: 200 in flight / 1 in flight',
                ['server'] + [f'{n:,}' for n in steps], rows)


def backlog_once(bench, row, steps):
    pending = 0
    with Running(bench.place, row, 'same') as server:
        for n in steps:
            if n - STEP > pending:
                bench.qload(server, f'-p 4 -d 200 -S {pending} -n {n - STEP - pending} -t 60', 'same')
            deep = bench.qload(server, f'-p 1 -d 200 -S {n - STEP} -n {STEP} -t 20', 'same')
            single = bench.qload(server, f'-p 1 -S {1 << 40 | n} -t 0.3', 'same')
            pending = n
            bench.record(kind='backlog', server=row.name, pending=n, deep=deep['accepted_per_s'],
                         single=single['accepted_per_s'])
            note(f"{row.name} with {n:,} pending: {short(deep['accepted_per_s'])} submits/s")


# ---- command runners ----

def run_commands(bench):
    n_jobs = bench.options.jobs
    for runner in RUNNERS:
        if not installed(runner.program):
            note(f'{runner.program} is not installed: skipped')
    for rnd in range(bench.options.rounds):
        with bench.place.locked():
            for runner in RUNNERS:
                for slots in runner.slots if installed(runner.program) else ():
                    run_commands_once(bench, rnd, runner, n_jobs, slots)
    rows = []
    for name, slots in dict.fromkeys((r['runner'], r['slots']) for r in bench.of_kind('commands')):
        runs = bench.of_kind('commands', runner=name, slots=slots)
        rows.append([name, slots, spread(n_jobs / r['total'] for r in runs),
                     median(r['total'] / n_jobs * 1e6 for r in runs),
                     median(r['submit'] / n_jobs * 1e6 for r in runs if 'submit' in r),
                     spread(n_jobs / r['drain'] for r in runs if 'drain' in r),
                     median(r['processes'] for r in runs if 'processes' in r)])
    print_table(f'commands, {n_jobs} x /bin/true; spawnloop (posix_spawn and wait) is the floor',
                ['runner', 'slots', 'jobs/s', 'us/job', 'submit us/job', 'drain jobs/s', 'processes'], rows)


def run_commands_once(bench, rnd, runner, n_jobs, slots):
    home = bench.place.home
    with tempfile.TemporaryDirectory(prefix='run-', dir=home, ignore_cleanup_errors=True) as directory:
        try:
            found = runner.run(bench.place, directory, n_jobs, slots)
        except RuntimeError as error:
            note(f'{runner.name} {slots}: {error}')
            return
    bench.record(kind='commands', runner=runner.name, slots=slots, round=rnd, **found)
    note(f"round {rnd + 1} {runner.name} {slots}: {n_jobs / found['total']:.0f} jobs/s")


# ---- ceilings, smoke, list ----

def run_ceilings(bench):
    for words in ['pingpong'], ['stream'], ['spawn'], ['sync', str(bench.place.home)], ['clock']:
        with bench.place.locked():
            print(bench.place.run([str(CEILINGS)] + words) or f'{words[0]}: no result', flush=True)


def run_smoke(bench):
    """Every server and every runner once, briefly: is the kit in order? The figures mean nothing."""
    bench.options.rounds, bench.options.seconds, bench.options.jobs = 1, 0.3, 20
    run_cells(bench, SMOKE)
    run_commands(bench)
    silent = {s.name for s in bench.servers()} - {r['server'] for r in bench.of_kind('cycle') if r['done']}
    if silent:
        sys.exit('peers.py: no task went through ' + ', '.join(sorted(silent)))
    idle = {r.name for r in RUNNERS if installed(r.program)} - {r['runner'] for r in bench.of_kind('commands')}
    if idle:
        sys.exit('peers.py: no job went through ' + ', '.join(sorted(idle)))


def run_list(bench):
    del bench
    print_table('Servers', ['server', 'installed', 'durable', 'protocol', 'command'],
                [[s.name, 'yes' if installed(s.program) else 'no', 'yes' if s.durable else 'no', s.protocol,
                  f'`{s.command}`'] for s in SERVERS])
    print_table('Cells', ['cell', 'placements', 'load'],
                [[f'{c.kind} {c.title}', ', '.join(c.placements), f'`{c.load}`'] for c in CELLS])


KINDS = {
    'crash': run_crash, 'memory': run_memory, 'backlog': run_backlog, 'commands': run_commands,
    'ceilings': run_ceilings, 'smoke': run_smoke, 'list': run_list,
}


# ---- command line ----

def parse_arguments():
    words = list(dict.fromkeys(c.kind for c in CELLS)) + list(KINDS)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', nargs='+', choices=words, metavar='WHAT', help='of ' + ' '.join(words))
    p.add_argument('--servers', help='names, separated by commas (default: all that are installed)')
    p.add_argument('--rounds', type=int, default=3, help='interleaved rounds (default 3)')
    p.add_argument('--seconds', type=float, default=1, help='length of a cell (default 1)')
    p.add_argument('--place', help='same,cross,free: instead of the placements that a cell names')
    p.add_argument('--base', help='server to which rates are given as a ratio, too')
    p.add_argument('--tasks', type=int, default=1_000_000, help='pending tasks (default 1000000)')
    p.add_argument('--jobs', type=int, default=300, help='commands per runner (default 300)')
    p.add_argument('--dir', default=tempfile.gettempdir(), help='where the data goes: a real disk')
    p.add_argument('--lock', help='file to lock while measuring, on a machine with other users')
    p.add_argument('--nice', type=int, default=0, help='of servers and generator; below 0 needs privileges')
    p.add_argument('--json', help='append every record to this file')
    options = p.parse_args()
    if options.place and set(options.place.split(',')) - {'same', 'cross', 'free'}:
        p.error('--place takes same, cross and free')
    return options


def find_servers():
    built = f'{BUILD}/daemon:{BUILD}/client' # before an eqd that is installed
    os.environ['PATH'] = f"{built}:{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"


def main():
    options = parse_arguments()
    find_servers()
    if options.what != ['list'] and not (QLOAD.exists() and CEILINGS.exists()):
        sys.exit(f'peers.py: no programs in {PROGRAMS}; build first, or set BUILD_DIR')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Place(options.dir, options.lock, options.nice) as place:
        kind = filesystem(place.home)
        note(f'{len(place.usable)} CPUs, kernel {os.uname().release}, data on {kind}')
        if kind in ('tmpfs', 'ramfs', 'overlay'):
            note(f'fsync is not what it is on a disk on {kind}: use --dir for the durable rows')
        bench = Bench(options, place)
        try:
            cells = [c for c in CELLS if c.kind in options.what]
            if cells:
                run_cells(bench, cells)
            for word in options.what:
                if word in KINDS:
                    KINDS[word](bench)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == '__main__':
    main()
