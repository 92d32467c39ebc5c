#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Options of eqctl that every verb has, and those of a verb that are about eqctl itself."""

import json
import os
import re
import subprocess
from pathlib import Path

from eqdtest import contains, equal, main, test

ROOT = Path(__file__).resolve().parents[2]
VERBS = re.findall(r'^EQCTL_VERB\(\w+, "([^"]+)"', (ROOT / "client/verbs.def").read_text(), re.M)
ESCAPE = "\x1b["

# Verb: (operands and options, exit statuses); in an order in which they succeed. "+": has something to say.
JSON_RUNS = (
    ("version", ["-v"], "+"), ("ping", [], ""), ("queue create", ["q", "max_active=2"], ""), ("queue set", ["q", "history=9"], ""),
    ("queue ls", [], "+"), ("queue show", ["q"], "+"),
    ("submit", ["-q", "q", "--array", "1-3", "--", "true"], "+"), ("submit", ["-q", "q", "-w", "-c", "echo out; echo err >&2"], "+"),
    ("submit", ["--dry-run", "--", "true"], "+"), ("submit", ["--hold", "--", "true"], "+"),
    ("ls", ["-A"], "+"), ("show", ["q/1", "q/2"], "+"), ("why", ["default/1"], "+"), ("wait", ["q/1", "q/2"], "+"),
    ("wait", ["q/1"], "+"), ("hold", ["default/1"], ""), ("release", ["default/1"], ""), ("retry", ["q/1"], ""),
    ("cancel", ["default/1"], ""), ("logs", ["q/4"], "+"), ("kill", ["q/2"], ""), ("events", ["-n", "1"], "+"),
    ("queue flush", ["q"], ""), ("queue pause", ["q"], ""), ("queue resume", ["q"], ""), ("queue drain", ["q"], ""),
    ("queue stop", ["q"], ""), ("queue join", ["q"], ""), ("queue rm", ["q"], ""),
    ("pool ls", [], "+"), ("pool create", ["p", "slots=2"], ""), ("pool show", ["p"], "+"), ("pool set", ["p", "slots=3"], ""),
    ("pool rm", ["p"], ""), ("param ls", [], "+"), ("param get", ["commands.slots"], "+"), ("param set", ["commands.slots=9"], ""),
    ("worker ls", [], "+"), ("worker kick", ["77"], ""), ("store check", [], ""), ("store dump", [], "+"), ("store stat", [], "+"),
    ("stat", [], "+"), ("dump", [], "+"), ("monitor", ["-n", "1"], "+"), ("touch", [], ""), ("reload", [], "+"),
    ("worker run", ["-q", "w", "--", "true"], ""),
)
# Their standard output is not eqd's: a command's, and texts for people and shells.
NO_JSON = {"run", "help", "completion", "stdio"}


def run_json(eqd, verb, args):
    """Standard output of it; helped on where it waits for something to happen."""
    words = [*verb.split(), "--json", *args]
    if verb == "events":
        p = eqd.start_ctl(*words)
        while p.poll() is None: # until it hears one of them
            eqd.submit("--hold", "--", "true")
    elif verb == "worker run":
        p = eqd.start_ctl(*words)
        eqd.ok("run", "-q", "w", "--payload", "x", "-n")
        p.terminate()
    else:
        return eqd.ctl(*words).out
    return p.communicate(timeout=60)[0].decode()


@test()
def with_json_every_verb_prints_lines_of_json_or_nothing(eqd):
    equal(set(VERBS), {verb for verb, *_ in JSON_RUNS} | NO_JSON, "a verb of verbs.def without a run here")
    eqd.ok("queue", "create", "w", "executor=worker")
    worker = eqd.start_ctl("worker", "run", "-q", "w", "--", "true")
    eqd.ok("run", "-q", "w", "--payload", "x", "-n")
    for verb, args, says in JSON_RUNS:
        out = run_json(eqd, verb, args)
        equal(bool(out), says == "+", f"{verb} {args} printed {out!r}")
        for line in out.splitlines():
            try:
                equal(type(json.loads(line)), dict, f"{verb} {args}: {line!r}")
            except ValueError as e:
                raise AssertionError(f"{verb} {args} printed what is no JSON: {line!r}") from e
    worker.terminate()
    worker.communicate()


@test()
def json_of_submit_and_wait_is_ids_and_ends(eqd):
    lines = eqd.ok("submit", "--json", "--array", "1-2", "-c", "exit $EQD_ARRAY_INDEX").splitlines()
    equal([json.loads(line) for line in lines], [{"id": "default/1"}, {"id": "default/2"}])
    r = eqd.ctl("wait", "--json", "default/1", "default/2")
    equal(r.rc, 2)
    ends = sorted((json.loads(line) for line in r.out.splitlines()), key=lambda end: end["id"])
    equal(ends, [{"id": f"default/{n}", "state": "FAILED", "exit": n, "signal": None, "reason": ""} for n in (1, 2)])
    equal(eqd.ctl("run", "--json", "--", "echo", "as it is").out, "as it is\n")


@test()
def the_variables_that_a_command_finds_are_those_of_the_page(eqd):
    page = (ROOT / "man/eqctl.1.in").read_text()
    section = page.partition('.SH "ENVIRONMENT OF COMMANDS"')[2].partition("\n.SH")[0]
    told = set(re.findall(r"^\.B (EQD_\w+)", section, re.M))
    task = eqd.submit("--array", "7-7", "--retries", "1", "--backoff", "1ms", "-E", "EQD_TASK=mine", "-E", "EQD_ATTEMPT=9",
                      "-E", "EQD_MIME=mine", "--payload", "x", "--mime", "text/plain", "-c", "env | grep ^EQD_ | sort; [ $EQD_ATTEMPT = 2 ]")
    eqd.ends_as(task, "DONE")
    found = dict(line.split("=", 1) for line in eqd.logs(task).splitlines())
    equal(found, {"EQD_TASK": task, "EQD_QUEUE": "default", "EQD_ATTEMPT": "2", "EQD_MIME": "text/plain", "EQD_ARRAY_INDEX": "7"})
    equal(set(found), told, "eqctl(1), ENVIRONMENT OF COMMANDS")


@test()
def env_all_passes_everything_and_env_none_nothing(eqd):
    env = {"EQT_A": "1", "EQT_C": "x y", "HOME": "/nowhere"}
    r = eqd.ctl("run", "--env-all", "-E", "EQT_A=2", "--", "env", env=env)
    contains(r.out, "EQT_A=2\n", "EQT_C=x y\n", "HOME=/nowhere\n", f"TMPDIR={eqd.dir}\n")
    r = eqd.ctl("run", "--env-none", "-E", "EQT_B=3", "--", "env", env=env)
    names = {line.partition("=")[0] for line in r.out.splitlines()}
    equal({n for n in names if not n.startswith("EQD_")}, {"EQT_B", "PATH"})


@test()
def stdin_may_be_a_file_or_that_of_eqctl(eqd):
    (eqd.dir / "work/in").write_text("from a file\n")
    for verb in (["run"], ["submit", "-w", "-f"]):
        equal(eqd.ok(*verb, "--stdin", "work/in", "--", "cat"), "from a file", str(verb))
        equal(eqd.ok(*verb, "--stdin", "-", "--", "cat", input="from eqctl\n"), "from eqctl", str(verb))
    eqd.fails(1, "submit", "--stdin", "work/none", "--", "cat", says=["work/none", "No such file"])
    eqd.fails(2, "submit", "--stdin", "work/in", "--payload", "x", "--", "cat", says="--payload")


@test()
def standard_input_that_is_too_large_is_called_by_its_name(eqd):
    r = eqd.fails(2, "submit", "--stdin", "-", "--", "cat", input=b"x" * (1 << 20 | 1), says="standard input is larger than 1048576")
    equal(r.out, "")


@test()
def an_attribute_given_twice_in_one_request_is_refused_however_it_is_spelt(eqd):
    eqd.fails(2, "queue", "create", "q", "max_active=2", "MaxActive=3", says="max_active: given twice")
    eqd.fails(66, "queue", "show", "q", says="q") # nothing was made
    eqd.fails(2, "queue", "create", "q", "--volatile", "durable=yes", says="durable: given twice")
    eqd.fails(2, "queue", "create", "q", "rescuer=yes", "mem_reclaim=no", says="rescuer: given twice")
    eqd.ok("queue", "create", "q", "max_active=2")
    eqd.fails(2, "queue", "set", "q", "max-active=4", "max_active=5", says="max_active: given twice")
    equal("max_active=2" in eqd.ok("queue", "show", "q").split(), True)


@test()
def an_unknown_attribute_is_answered_with_all_there_are(eqd):
    known = set(re.findall(r"^(\w+)=", eqd.ok("queue", "show", "default"), re.M)) | {"user", "group"} # which only a file sets
    told = set(eqd.fails(2, "queue", "create", "q", "qwxqwx=1", says="not known here").err.partition("there are ")[2].split())
    contains(told, "max_active", "description", "backoff_max", "allow_control", "rate", "group")
    equal(told - known, set())


@test()
def a_command_by_path_that_is_not_there_is_not_looked_for_elsewhere(eqd):
    r = eqd.fails(127, "run", "--", "/no/where/at-all", says="there is no such file")
    equal("PATH" in r.err, False, r.err)
    eqd.fails(127, "run", "--", "eqd-no-such-command", says="on PATH of the task")


@test()
def submit_leaves_standard_input_to_the_loop_around_it(eqd):
    (eqd.dir / "work/list").write_text("a\nb\nc\n")
    script = f"while read -r word; do {eqd.eqctl} submit -- echo \"$word\" || exit 1; done <work/list"
    p = subprocess.run(["sh", "-c", script], env=eqd.environment(EQD_SOCKET=str(eqd.socket)), cwd=eqd.dir, capture_output=True,
                       check=True, timeout=60)
    equal(p.stdout.decode().split(), ["default/1", "default/2", "default/3"])
    eqd.wait("default/1", "default/2", "default/3")
    equal([eqd.logs(f"default/{n}") for n in (1, 2, 3)], ["a", "b", "c"])


@test()
def each_line_of_a_file_is_a_task(eqd):
    (eqd.dir / "work/list").write_text("one\n\ntwo words\nthree") # an empty line is none, and the last one needs no end
    ids = eqd.ok("submit", "--each", "work/list", "--", "echo", "<{}>").split()
    eqd.wait(*ids)
    equal([eqd.logs(i) for i in ids], ["<one>", "<two words>", "<three>"])
    ids = eqd.ok("submit", "--each", "work/list", "--", "echo", "at the end:").split()
    eqd.wait(*ids)
    equal(eqd.logs(ids[1]), "at the end: two words")
    eqd.fails(1, "submit", "--each", "work/none", "--", "echo", says=["work/none", "No such file"])


@test()
def ls_since_leaves_out_what_is_older_and_limit_all_but_the_last(eqd):
    tasks = [eqd.submit("--hold", "--", "true") for _ in range(4)]
    at = [eqd.show(task)["submitted_usec"] for task in tasks]
    since = lambda usec: [t["id"] for t in eqd.ls("--since", f"@{usec // 1000000}")]
    equal(since(at[0]), tasks)
    equal(since(at[-1] + 2000000), []) # the next second
    equal([t["id"] for t in eqd.ls("--since", "1h")], tasks)
    equal([t["id"] for t in eqd.ls("-n", "2")], tasks[2:])
    equal([t["id"] for t in eqd.ls("-n", "9")], tasks)
    eqd.fails(2, "ls", "--since", "soon", says="--since")
    eqd.fails(2, "ls", "-n", "0", says="--limit")


@test()
def ls_sorts_by_any_field_either_way(eqd):
    tasks = [eqd.submit("--hold", "-J", label, *more, "--", "true") for label, *more in
             (("b", "-r", "10"), ("a", "-r", "9"), ("c",), ("a", "-r", "100"))]
    sort = lambda by, *args: [tasks.index(t["id"]) for t in eqd.ls("--sort", by, *args)]
    equal([sort("label"), sort("-label"), sort("retries"), sort("-retries"), sort("age"), sort("-age")],
          [[1, 3, 0, 2], [2, 0, 3, 1], [2, 1, 0, 3], [3, 0, 1, 2], [0, 1, 2, 3], [3, 2, 1, 0]])
    equal(sort("label", "-n", "2"), [3, 2]) # of the last two
    equal(sort("-age", tasks[2], tasks[0]), [2, 0])
    eqd.fails(2, "ls", "--sort", "beauty", says=["beauty", "age"])


@test()
def retry_counts_on_unless_it_is_reset(eqd):
    task = eqd.sh("echo $EQD_ATTEMPT; exit 1", "-r", "1", "--backoff", "1ms")
    equal(eqd.ends_as(task, "DEAD")["attempt"], 2)
    eqd.ok("retry", task)
    equal(eqd.ends_as(task, "DEAD")["attempt"], 3)
    eqd.ok("retry", "--reset", task)
    shown = eqd.ends_as(task, "DEAD", attempt=2)
    equal(eqd.logs(task), "2", str(shown))


@test()
def headers_and_colours_are_there_when_asked_for(eqd):
    task = eqd.submit("--hold", "--", "true")
    for form in ([], ["-o", "wide"], ["-o", "tsv"]):
        with_headers, without = (eqd.ctl("ls", *form, *more) for more in ([], ["--no-headers"]))
        first, *rest = with_headers.out.splitlines()
        equal([line.split()[0] for line in rest], [task], str(form))
        equal([line.split()[0] for line in without.out.splitlines()], [task], str(form))
        equal(first.split()[0].lower(), "id")
    equal(eqd.ctl("ls", "--no-headers").err, "") # nor a summary
    eqd.wait(eqd.submit("--", "false"))
    colour = lambda *args, **env: ESCAPE in eqd.ctl("ls", *args, env={"TERM": "xterm", **env}).out
    equal([colour(), colour("--color", "auto"), colour("--color", "never"), colour("--color", "always"),
           colour("--color", "always", NO_COLOR="1")], [False, False, False, True, True])
    eqd.fails(2, "ls", "--color", "sometimes", says=["auto", "always", "never"])


@test()
def what_a_verb_would_not_heed_is_refused(eqd):
    task = eqd.submit("--hold", "--", "true")
    for says, *words in (
        ("no option --columns", "submit", "--columns", "nonsense", "--", "true"), ("no option --columns", "--columns", "id", "cancel", task),
        ("no column `nonsense`", "queue", "show", "default", "--columns", "nonsense"),
        ("no column `nonsense`", "pool", "show", "default", "--columns", "nonsense"),
        ("-o jsonl has none", "ls", "--json", "--columns", "id"), ("-o id has none", "--columns", "label", "ls", "-o", "id"),
        ("-o wide is not", "ls", "-o", "wide", "--json"), ("--json is not -o raw", "-o", "raw", "logs", "--json", task),
        ("as raw or json, not `wide`", "-o", "wide", "logs", task), ("give one of them", "--system", "--user", "ls"),
        ("give one of them", "-S", str(eqd.socket), "--system", "ls"),
        ("--kill-on-int is about the end", "submit", "--kill-on-int", "--", "true"),
        ("--status-fd is about the end", "submit", "--status-fd", "1", "--", "true"), ("--id-only", "submit", "-iw", "--", "true"),
        ("descriptor 9 is not open", "run", "--status-fd", "9", "--", "true"), ("descriptor 9 is not open", "wait", "--status-fd", "9", task),
        ("--no-stdin and --stdin", "run", "-n", "--stdin", "/dev/null", "--", "cat"), ("--merge", "run", "--merge", "--stderr", "x", "--", "true"),
        ("--env-none", "run", "--env-all", "--env-none", "--", "true"), ("ids or filters", "ls", "-n", "1", task),
        ("ids or filters", "ls", "-q", "default", task), ("ids or filters", "ls", "--since", "1h", task),
        ("--any", "wait", "--any", "-q", "default"), ("--status-fd", "wait", "--status-fd", "1", "-q", "default"),
        ("not with --for running", "wait", "--for", "running", "--kill-on-int", task),
    ):
        r = eqd.fails(2, *words, says=says)
        equal(r.out, "", f"{words}")
    equal([t["id"] for t in eqd.ls()], [task])
    equal(eqd.ok("queue", "show", "default", "--columns", "name,waiting", "--no-headers").split(), ["default", "1"])
    equal(eqd.ok("pool", "show", "default", "--columns", "name", "--no-headers").split(), ["default"])


@test()
def verbose_says_more_on_standard_error_and_quiet_less(eqd):
    r = eqd.ctl("ping", "-v")
    equal((r.rc, r.out), (0, ""))
    contains(r.err, str(eqd.socket))
    equal(eqd.ctl("ping").err, "")
    contains(eqd.ctl("run", "-v", "--", "true").err, "default/1")
    task = eqd.submit("--hold", "--", "true")
    contains(eqd.ctl("cancel", task).err, task)
    equal(eqd.ctl("cancel", "--quiet", task).err.count("\n") <= 1, True)
    contains(eqd.ctl("submit", "--quiet", "-q", "none", "--", "true").err, "queue create none")


main()
