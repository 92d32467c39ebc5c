# SPDX-License-Identifier: MIT
"""The Node package: its own tests, by node's runner, without and with an eqd; and its examples."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from eqdtest import BUILD, SLOWER, TEST_SECONDS, Skip, equal, main, test
from ends import crash
import nodekit

PACKAGE = BUILD / "client/bindings/node"
EXAMPLES = Path(__file__).resolve().parents[2] / "client/examples"


def run_tests(name, env):
    run = subprocess.run([nodekit.node(), "--test", "--test-reporter=tap", PACKAGE / "test" / name], env=env, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SLOWER * TEST_SECONDS, check=False)
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


# What a class may have besides: its workings, which the types do not tell of.
SAYS_NAMES = """import * as eqd from 'eqd';
const of = (c) => Object.entries(Object.getOwnPropertyDescriptors(c.prototype)).filter(([, d]) => typeof d.value === 'function');
const classes = ['Client', 'Task', 'Run', 'Worker'].map((name) => [name, of(eqd[name]).map(([method]) => method)]);
console.log(JSON.stringify({ names: Object.keys(eqd), classes: Object.fromEntries(classes), errors: Object.keys(eqd.errors) }));
"""


def names_as_typescript(said):
    """Compiles if the module has exactly the names that its types have, and its classes have all of their methods."""
    lines = ["import type * as eqd from 'eqd';",
             "type Methods<T> = { [K in keyof T & string]: T[K] extends (...a: never) => unknown ? K : never }[keyof T & string];",
             "type None<T extends never> = T;"]
    def all_of(kind, n, names):
        union = " | ".join(map(json.dumps, names))
        return [f"export type Has{n} = None<Exclude<{kind}, {union}>>;", f"export const has{n}: readonly ({kind})[] = ["
                + ", ".join(map(json.dumps, names)) + "];"]
    lines += all_of("keyof typeof eqd", "Names", said["names"]) + all_of("eqd.ErrorName", "Errors", said["errors"])
    for name, methods in said["classes"].items():
        lines.append(all_of(f"Methods<eqd.{name}>", name, methods)[0])
    return "\n".join(lines) + "\n"


@test(eqd=False, seconds=600) # the compiler takes seconds of a machine that has nothing else to do
def types_are_as_the_package_is_and_refuse_what_is_wrong(place):
    node, tsc = nodekit.node(), shutil.which("tsc")
    if not tsc:
        raise Skip("tsc is not there")
    where = PACKAGE / "test"
    said = subprocess.run([node, "--input-type=module", "-e", SAYS_NAMES], cwd=where, capture_output=True, text=True, timeout=60,
                          check=True)
    (where / "names.ts").write_text(names_as_typescript(json.loads(said.stdout)), encoding="utf-8")
    run = subprocess.run([tsc, "-p", where], capture_output=True, text=True, timeout=500, check=False)
    equal((run.returncode, run.stdout), (0, ""))


main()
