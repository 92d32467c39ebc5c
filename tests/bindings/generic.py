# SPDX-License-Identifier: MIT
"""Clients that know nothing of eqd, unmodified: eqd speaks plain MessagePack-RPC."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from eqdtest import BUILD, Skip, contains, equal, main, test
import nodekit

HERE = Path(__file__).resolve().parent


def run_script(eqd, *argv):
    run = subprocess.run([*argv, eqd.socket], env=eqd.environment(), capture_output=True, text=True, timeout=60, check=False)
    equal((run.returncode, run.stderr), (0, ""), run.stdout)
    return run.stdout


def printed(section):
    """The examples in that section of eqd-protocol(7)."""
    page = (HERE.parents[1] / "man/eqd-protocol.7.in").read_text()
    parts = page.split(f".SH {section}\n")[1].split("\n.SH ")[0].split(".EX\n")[1:]
    return [part.split("\n.EE")[0].replace("\\-", "-") for part in parts]


def write_script(eqd, *parts):
    code = "\n".join(parts)
    contains(code, "/run/eqd/eqd.sock")
    script = eqd.dir / "client.py"
    script.write_text(code.replace("/run/eqd/eqd.sock", str(eqd.socket)))
    return script


@test()
def ten_lines_of_python_msgpack(eqd):
    """The very lines of eqd-protocol(7)."""
    code = printed("A CLIENT IN TEN LINES")
    contains("".join(code), "submit")
    eqd.ok("queue", "create", "--if-not-exists", "default")
    contains(run_script(eqd, sys.executable, write_script(eqd, *code)), "DONE", "20")


@test()
def the_worker_loop_of_python_msgpack(eqd):
    """The very lines of eqd-protocol(7), with some work to do; tasks are there before it serves, and come while it does."""
    call, loop = printed("A CLIENT IN TEN LINES")[0], printed("WORKERS")
    contains("".join(loop), "worker_serve", "work(")
    eqd.ok("queue", "create", "mail", "executor=worker", "max_active=4")
    before = [eqd.submit("-q", "mail", "--payload", f"letter {i}") for i in range(5)]
    script = write_script(eqd, call, "def work(payload):\n    return payload.upper()\n", *loop)
    worker = subprocess.Popen([sys.executable, script], env=eqd.environment(), stderr=subprocess.PIPE, text=True)
    try:
        equal([eqd.wait(t)["result"] for t in before], [f"LETTER {i}" for i in range(5)])
        equal(eqd.ctl("run", "-q", "mail", "--payload", "one more").out, "ONE MORE")
        equal([eqd.show(t)["attempt"] for t in before], [1] * 5)
        eqd.ok("worker", "kick", eqd.ok("worker", "ls", "-o", "id"))
        equal((worker.communicate(timeout=60)[1], worker.returncode), ("eqd is gone\n", 1))
    finally:
        worker.kill()
        worker.wait()


@test()
def a_session_of_pynvim(eqd):
    if not importlib.util.find_spec("pynvim"):
        raise Skip("pynvim is not there")
    equal(run_script(eqd, sys.executable, HERE / "pynvim_session.py").splitlines(),
          ["level 1", "DONE", "hello", "error no queue none; eqctl queue create none makes it",
           "notification event queue.changed", "request run work", "DONE b'PAYLOAD'"])


def node_script(eqd, name):
    node = nodekit.node()
    # Beside npm's packages, where it finds them.
    return run_script(eqd, node, BUILD / "tests/bindings" / name)


@test()
def ten_lines_of_msgpack_for_javascript(eqd):
    equal(node_script(eqd, "tenlines.mjs").splitlines(), ["DONE", "hello", "run work", "DONE PAYLOAD"])


@test()
def the_rpc_layer_of_npm_neovim(eqd):
    lines = node_script(eqd, "neovim.mjs").splitlines()
    equal(lines, ["eqd channel", "DONE hello", "event task.finished", "Error: queue_show: no queue none; eqctl queue create none makes it", "run work",
                  "DONE PAYLOAD"])


main()
