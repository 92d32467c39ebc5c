# SPDX-License-Identifier: MIT
"""What system tests with plugins need."""

import shutil

from eqdtest import BUILD, eventually, test

# A user instance takes plugins that its own user owns. As root it could run commands as others, and takes none before that is off.
CONF = "[Commands]\nIdentity=own\n"
FINAL = ("DONE", "FAILED", "CANCELED", "EXPIRED", "DEAD")


def place_plugins(eqd):
    """Copies, whose directories are nobody else's. And a first queue, with which eqd makes what it keeps for all of them."""
    plugins = eqd.dir / "plugins"
    plugins.mkdir(mode=0o755)
    for built in (*(BUILD / "tests/plugins").glob("*.so"), *(BUILD / "client/examples/plugins").glob("*.so")):
        shutil.copy(built, plugins / built.name)
        (plugins / built.name).chmod(0o755)
    queue_file(eqd, "z", "trial-plain")


def queue_file(eqd, name="p", plugin="trial", *more, path=None):
    lines = ["[Queue]", "Executor=plugin", f"Plugin={path or eqd.dir / 'plugins' / (plugin + '.so')}", *more, ""]
    eqd.configure(f"queues.d/{name}.queue", "\n".join(lines))


def plugin_test(**options):
    return test(user=True, config={"eqd.conf": CONF}, change=place_plugins, **options)


def plugin_queue(eqd, *more, plugin="trial", name="p"):
    queue_file(eqd, name, plugin, *more)
    eqd.ok("reload")
    return eqd.connect()


def submit(c, payload, queue="p", **options):
    return c.call("submit", queue, payload, **options)


def ended(c, task):
    return c.call("wait", [task])[0]


def state(c, task):
    return c.call("show", [task])[0]["state"]


def why(c, task):
    return c.call("why", [task])[0]


def until(c, task, wanted):
    eventually(lambda: state(c, task) == wanted, lambda: f"{task} is {state(c, task)}, not {wanted}")
