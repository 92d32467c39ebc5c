# SPDX-License-Identifier: MIT
"""Clients that know nothing of eqd, unmodified: eqd speaks plain MessagePack-RPC."""

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
    try:
        from pynvim.msgpack_rpc import socket_session
    except ImportError:
        raise Skip("pynvim is not there") from None
    # It begins with the notification nvim_set_client_info, which means nothing to eqd, and sends bytes as bin.
    session = socket_session(str(eqd.socket))
    try:
        session.error_wrapper = lambda error: LookupError(error[1])
        equal(session.request("nvim_get_api_info")[1]["version"]["api_level"], 1)
        session.request("queue_create", "q")
        task = session.request(b"submit", "q", b"", {"argv": ["sh", "-c", "echo hello"]})
        equal(session.request("wait", [task])[0]["state"], "DONE")
        equal(session.request("logs", task)["chunks"], [[1, b"hello\n"]])
        try:
            session.request("queue_show", "none")
            raise AssertionError("it found a queue that is not there")
        except LookupError as e:
            contains(str(e), "none")
        session.request("subscribe", {"queue": "q", "events": ["queue."]})
        session.request("queue_pause", "q")
        message = session.next_message()
        equal((message[0], message[1], message[2][0]["event"]), ("notification", "event", "queue.changed"))
    finally:
        session.close()


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
