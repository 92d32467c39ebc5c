#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What ./quickstart shows to newcomers (tests/tools/tour.py), with less work: that it is true, says so if not, and leaves nothing."""

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from eqdtest import BUILD, WAIT_SECONDS, alive, contains, equal, eventually, main, marked, send_kill, test

TOP = Path(__file__).resolve().parents[2]
TOUR = [sys.executable, TOP / "tests/tools/tour.py", TOP, "--build", BUILD, "--few"]


def tour_test(body):
    """Whatever it finds, it leaves nothing itself."""
    @test(eqd=False)
    @functools.wraps(body)
    def run(place):
        try:
            body(place)
        finally:
            eventually(lambda: not send_kill(*marked(place.dir)), "all of it is gone")
    return run


def tour(place, *args, rc=0, **env):
    """(standard output, standard error) of a whole one."""
    p = subprocess.run([*TOUR, *args], env=place.environment(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=WAIT_SECONDS, check=False)
    equal(p.returncode, rc, f"{p.stdout}\n{p.stderr}")
    return p.stdout, p.stderr


def nothing_is_left(place):
    eventually(lambda: not marked(place.dir), lambda: f"processes that are left: {alive(marked(place.dir))}")
    equal([p.name for p in place.dir.iterdir() if p.name != "bin"], [])


@tour_test
def it_shows_tasks_their_ends_a_log_a_reason_and_what_to_type_next_and_leaves_nothing(place):
    out, err = tour(place)
    equal(err, "")
    contains(out, "$ eqctl ls", "REASON/EXIT", "exit 0", "exit 1", "signal TERM", "$ eqctl logs archive/", "no_such_variable",
             "is FAILED: exit status 1", "is TIMEOUT: ran longer", "==> Next\n./quickstart --keep")
    equal(re.search(r"archive: [1-9]\d* done, 0 running, 0 wait   compile: [1-9]\d* done, 0 running, 0 wait", out) is not None, True, out)
    nothing_is_left(place)


@tour_test
def a_task_that_ends_otherwise_than_it_should_is_no_success(place):
    """A compiler that makes nothing and says that all is well; and one that fails."""
    (place.dir / "bin").mkdir()
    for script, says in (("exit 0", "no object file of|No such file|expected FAILED"), ("exit 1", "ended as FAILED, exit status 1; expected DONE, 0")):
        (place.dir / "bin/gcc").write_text(f"#!/bin/sh\n{script}\n")
        (place.dir / "bin/gcc").chmod(0o755)
        err = tour(place, rc=1, PATH=f"{place.dir}/bin:{os.environ['PATH']}")[1]
        equal(re.search(f"quickstart: .*({says})", err) is not None, True, err)
        nothing_is_left(place)


@tour_test
def it_may_be_interrupted_and_leaves_nothing(place):
    for number, rc in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(TOUR, env=place.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as p:
            for line in p.stdout:
                if line.startswith("==> Submitting"):
                    p.send_signal(number)
            equal(p.wait(WAIT_SECONDS), rc)
        nothing_is_left(place)


@tour_test
def with_keep_eqd_goes_on_and_what_it_says_to_type_works(place):
    out = tour(place, "--keep")[0]
    told = out.partition("==> eqd goes on\n")[2]
    typed, stop = told.partition("\nStop it:  ")[::2]
    run = lambda text: subprocess.run(["bash", "-c", f"shopt -s expand_aliases\n{text}"], env=place.environment(), capture_output=True,
                                      stdin=subprocess.DEVNULL, text=True, timeout=WAIT_SECONDS, check=False)
    r = run(f"set -e\n{typed}")
    equal(r.returncode, 0, str(r))
    contains(r.stdout, "hello\n", "compile/", "Usage: eqctl")
    r = run(stop)
    equal((r.returncode, r.stderr), (0, ""), str(r))
    nothing_is_left(place)


main()
