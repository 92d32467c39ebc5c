# SPDX-License-Identifier: MIT
"""The command runners that are compared: each runs /bin/true many times."""
import shlex
import subprocess
import time
from pathlib import Path
from typing import Callable, NamedTuple

from place import PROGRAMS

CEILINGS = PROGRAMS / 'ceilings'
TIMEOUT = 120


class Runner(NamedTuple):
    name: str
    program: str            # skipped where it is not installed
    slots: tuple[int, ...]  # how many commands at once
    run: Callable           # (place, directory, n_jobs, slots) -> seconds in total, perhaps in parts


def shell(place, script, environ):
    """Runs a script without output: a job that keeps the output open must not keep us waiting. The first command of it
    that fails ends it: jobs that were refused must not look like fast ones."""
    exports = ''.join(f'export {name}={shlex.quote(value)}; ' for name, value in environ.items())
    process = place.popen(['bash', '-e', '-o', 'pipefail', '-c', exports + script], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError('time-out') from None
    if process.returncode:
        raise RuntimeError(f'exit status {process.returncode} of: {script}')


def timed(place, script, environ):
    began = time.monotonic()
    shell(place, script, environ)
    return time.monotonic() - began


def at_once(script, **environ):
    """A runner that gets all jobs in one command line."""
    def run(place, directory, n_jobs, slots):
        values = {name: value.format(dir=directory) for name, value in environ.items()}
        text = script.format(n=n_jobs, slots=slots, ceilings=shlex.quote(str(CEILINGS)))
        return dict(total=timed(place, text, values))
    return run


def queued(submit, wait, **environ):
    """A runner with a queue. Gate jobs hold its slots until all jobs are submitted; then it drains. `processes` is how many
    more there are with all of them queued than with none."""
    def run(place, directory, n_jobs, slots):
        values = {name: value.format(dir=directory, slots=slots) for name, value in environ.items()}
        here = f'cd {shlex.quote(str(directory))}; '
        for _ in range(slots):
            shell(place, here + submit + " sh -c 'while [ ! -e gate ]; do sleep 0.005; done'", values)
        before = len(list(place.started()))
        loop = f'for ((i = 0; i < {n_jobs}; i++)); do {submit} /bin/true; done'
        took = timed(place, here + loop, values)
        processes = len(list(place.started())) - before
        drain = timed(place, here + 'touch gate; ' + wait, values)
        return dict(total=took + drain, submit=took, drain=drain, processes=processes)
    return run


def with_eqd(run):
    """The same, with an eqd that runs `slots` commands of its queue q at once."""
    def run_in_eqd(place, directory, n_jobs, slots):
        words = ['eqd', '--socket', f'{directory}/sock', '--state', f'{directory}/state', '--config', f'{directory}/none']
        with place.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as eqd:
            try:
                wait_for(Path(directory, 'sock'), eqd)
                shell(place, f'eqctl queue create q --volatile max_active={slots}', {'EQD_SOCKET': f'{directory}/sock'})
                return run(place, directory, n_jobs, slots)
            finally:
                eqd.terminate()
    return run_in_eqd


def wait_for(path, process):
    until = time.monotonic() + TIMEOUT
    while not path.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError('eqd did not start')
        time.sleep(0.002)


RUNNERS = [
    Runner('spawnloop', 'sh', (1, 2), at_once('{ceilings} spawnloop {n} {slots}')),
    Runner('xargs', 'xargs', (1, 2), at_once('seq {n} | xargs -n1 -P{slots} /bin/true')),
    Runner('shell loop', 'bash', (1,), at_once('for ((i = 0; i < {n}; i++)); do /bin/true; done')),
    Runner('parallel', 'parallel', (1, 2),
           at_once('seq {n} | parallel --will-cite -j{slots} /bin/true', PARALLEL_HOME='{dir}')),
    Runner('tsp', 'tsp', (1, 2),
           queued('tsp -n', 'tsp -w; tsp -K', TS_SOCKET='{dir}/sock', TS_SLOTS='{slots}',
                  TS_MAXFINISHED='10000', TMPDIR='{dir}')),
    Runner('nq', 'nq', (1,), queued('nq -q', 'nq -w', NQDIR='{dir}')),
    Runner('eqctl submit', 'eqctl', (1, 2),
           with_eqd(queued('eqctl submit -q q --', 'eqctl queue flush q', EQD_SOCKET='{dir}/sock'))),
    Runner('eqctl submit --each', 'eqctl', (1, 2),
           with_eqd(at_once('seq {n} | eqctl submit -q q --each - -- /bin/true; eqctl queue flush q',
                            EQD_SOCKET='{dir}/sock'))),
]
