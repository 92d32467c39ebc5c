# SPDX-License-Identifier: MIT
"""The Node package: its own tests, by node's runner, without and with an eqd; and its examples."""

import re
import subprocess
from pathlib import Path

from eqdtest import BUILD, equal, main, test
from ends import crash
import nodekit

PACKAGE = BUILD / "client/bindings/node"
EXAMPLES = Path(__file__).resolve().parents[2] / "client/examples"


def run_tests(name, env):
    run = subprocess.run([nodekit.node(), "--test", "--test-reporter=tap", PACKAGE / "test" / name], env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100, check=False)
    passed = re.search(r"^# pass (\d+)$", run.stdout, re.M)
    if run.returncode or not passed or int(passed[1]) < 5:
        raise AssertionError(f"exit status {run.returncode}\n{run.stdout}")


@test(eqd=False)
def tests_of_the_core_pass(place):
    run_tests("core.test.js", place.environment())


@test()
def tests_with_an_eqd_pass(eqd):
    run_tests("system.test.js", eqd.environment(EQD_SOCKET=str(eqd.socket)))


@test()
def tests_of_workers_pass(eqd):
    run_tests("worker.test.js", eqd.environment(EQD_SOCKET=str(eqd.socket)))


@test()
def clients_and_workers_go_on_over_kill_9(eqd):
    with open(eqd.dir / "node.log", "w+", encoding="utf-8") as log, \
            subprocess.Popen([nodekit.node(), PACKAGE / "test/comeback.mjs"], env=eqd.environment(EQD_SOCKET=str(eqd.socket)), text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as p:
        lines = []
        for line in p.stdout:
            lines.append(line)
            if line == "CRASH\n":
                crash(eqd)
                if p.poll() is None:
                    p.stdin.write("BACK\n")
                    p.stdin.flush()
        log.seek(0)
        equal((lines, log.read(), p.wait(60)), (["CRASH\n"] * 3 + ["DONE\n"], "", 0))


@test()
def the_example_does_what_it_says(eqd):
    node = nodekit.node()
    modules = eqd.dir / "node_modules" # as npm or Debian would have installed it
    modules.mkdir()
    (modules / "eqd").symlink_to(PACKAGE)
    (eqd.dir / "submit.mjs").write_bytes((EXAMPLES / "submit.mjs").read_bytes())
    run = subprocess.run([node, eqd.dir / "submit.mjs", "e", "one", "two"], env=eqd.environment(EQD_SOCKET=str(eqd.socket)),
                         capture_output=True, text=True, timeout=60, check=False)
    equal((run.returncode, run.stdout, run.stderr), (0, "e/1 one\ne/2 two\n", ""))


main()
