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


@test()
def ten_lines_of_python_msgpack(eqd):
    """The very lines of eqd-protocol(7)."""
    page = (HERE.parents[1] / "man/eqd-protocol.7.in").read_text()
    section = page.split(".SH A CLIENT IN TEN LINES")[1].split("\n.SH ")[0]
    code = "\n".join(part.split("\n.EE")[0] for part in section.split(".EX\n")[1:])
    contains(code, "/run/eqd/eqd.sock", "submit")
    eqd.ok("queue", "create", "--if-not-exists", "default")
    script = eqd.dir / "client.py"
    script.write_text(code.replace("\\-", "-").replace("/run/eqd/eqd.sock", str(eqd.socket)))
    contains(run_script(eqd, sys.executable, script), "DONE", "20")


@test()
def a_session_of_pynvim(eqd):
    if not importlib.util.find_spec("pynvim"):
        raise Skip("pynvim is not there")
    equal(run_script(eqd, sys.executable, HERE / "pynvim_session.py").splitlines(),
          ["level 1", "DONE", "hello", "error no queue none; eqctl queue create none makes it",
           "notification event queue.changed"])


def node_script(eqd, name):
    node = nodekit.node()
    # Beside npm's packages, where it finds them.
    return run_script(eqd, node, BUILD / "tests/bindings" / name)


@test()
def ten_lines_of_msgpack_for_javascript(eqd):
    equal(node_script(eqd, "tenlines.mjs").splitlines(), ["DONE", "hello"])


@test()
def the_rpc_layer_of_npm_neovim(eqd):
    lines = node_script(eqd, "neovim.mjs").splitlines()
    equal(lines, ["eqd channel", "DONE hello", "event task.finished", "Error: queue_show: no queue none; eqctl queue create none makes it"])


main()
