#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""generate.py python|js|dts API_JSON: what the bindings know of the wire, printed from the tables of eqd.

Methods, their parameters and documentation, records, error classes, states, reasons, events and limits come from api.json,
which is made from proto/eqd.def; in the packages nothing of it is written by hand. Prints to standard output.
"""

import json
import re
import sys

WAITING = {"wait", "queue_drain", "queue_join", "queue_flush", "worker_leave"}  # answered when something has happened
# Doing it twice is the same as once: may be sent again on a new connection.
READING = {"hello", "api_info", "nvim_get_api_info", "ping", "wait", "list", "show", "why", "queue_list", "queue_show", "stat",
           "worker_list"}
PY_PARAM = {"bool": "bool", "u64": "int", "i64": "int", "str": "str", "bin": "Bytes", "strv": "Strings", "id": "AnyId",
            "idv": "Sequence[AnyId]", "listv": "Sequence[Any]", "map": "Mapping[str, Any]"}
PY_REPLY = {"bool": "bool", "u64": "int", "i64": "int", "str": "str", "bin": "bytes", "strv": "list[str]", "id": "TaskId",
            "idv": "list[TaskId]", "listv": "list[Any]", "map": "dict[str, Any]"}
TS_PARAM = {"bool": "boolean", "u64": "number", "i64": "number", "str": "string", "bin": "Bytes", "strv": "Strings",
            "id": "AnyId", "idv": "AnyId[]", "listv": "unknown[]", "map": "Record<string, unknown>"}
TS_REPLY = {"bool": "boolean", "u64": "number", "i64": "number", "str": "string", "bin": "Uint8Array", "strv": "string[]",
            "id": "[number, number]", "idv": "[number, number][]", "listv": "unknown[]", "map": "Record<string, unknown>"}
PY_RESERVED = {"from": "from_"}


def camel(name, first_upper=False):
    words = re.split("[-_.]", name)
    text = words[0] + "".join(w.capitalize() for w in words[1:])
    return text[:1].upper() + text[1:] if first_upper else text


def kind_of(field):
    """`time`: a time of day; `duration`: also in microseconds on the wire; else the type of the wire."""
    if field["type"] == "u64" and field["name"].endswith("_usec"):
        return "time" if "time of day" in field["doc"] else "duration"
    return field["type"]


def friendly(field):
    """Name of a parameter for people: durations and times lose their unit, for they come with one."""
    name = field["name"]
    return name[:-len("_usec")] if kind_of(field) in ("time", "duration") else name


def js_option(field):
    """`signal` is an AbortSignal in JavaScript."""
    return {"signal": "killSignal"}.get(field["name"]) or camel(friendly(field))


class Api:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.data = json.load(f)
        self.records = {r["name"]: r for r in self.data["records"]}
        params = {m["params"] for m in self.data["methods"]} | {c["params"] for c in self.data.get("calls", [])}
        names = {m["name"] for m in self.data["methods"]}
        self.waiting, self.reading = sorted(WAITING & names), sorted(READING & names)
        self.replies = [r for r in self.data["records"] if r["name"] not in params]

    def fields(self, method, required):
        return [f for f in self.records[method["params"]]["fields"] if f["required"] == required]


# ---- Python ----

PY_HEAD = '''# Made by client/bindings/generate.py from proto/eqd.def. Do not edit.
"""Methods, records, errors and limits of protocol {protocol}, as eqd-protocol(7) describes them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Dict, Final, Generic, List, Mapping, Optional, Sequence, Tuple, Type, TypedDict, TypeVar

from .errors import EqdError
from .values import AnyId, Bytes, Duration, Strings, TaskId, Time

Handle = TypeVar("Handle")
PROTOCOL: Final = {protocol}
'''


def py_doc(text, indent):
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    return f'{" " * indent}"""{text}."""\n'


def py_type(field):
    return {"time": "Time", "duration": "Duration"}.get(kind_of(field)) or PY_PARAM[field["type"]]


def py_argument(field):
    return PY_RESERVED.get(friendly(field), friendly(field))


def py_signature(api, method):
    parts = ["self"]
    for f in api.fields(method, True):
        # nil stands for no bytes
        parts.append(f"{py_argument(f)}: Optional[Bytes] = None" if f["type"] == "bin" else f"{py_argument(f)}: {py_type(f)}")
    options = api.fields(method, False)
    if options:
        parts.append("*")
        parts += [f"{py_argument(f)}: Optional[{py_type(f)}] = None" for f in options]
    return ", ".join(parts)


def py_reply(method):
    record = method.get("record")
    return {"nil": "None", "id": "Handle", "int": "int", "intv": "List[int]", "record": f"{record}Record",
            "list": f"List[{record}Record]" if record else "List[Any]"}[method["reply"]]


def py_method(api, method, asynchronous):
    required, options = api.fields(method, True), api.fields(method, False)
    doc = method["doc"]
    told = [f"{py_argument(f)}: {f['doc']}" for f in required + options]
    if told:
        doc += ".\n\n        " + "\n        ".join(told)
    out = f"    {'async ' if asynchronous else ''}def {method['name']}({py_signature(api, method)}) -> {py_reply(method)}:\n"
    out += py_doc(doc, 8)
    positional = "".join(f"({kind_of(f)!r}, {py_argument(f)}), " for f in required)
    named = ", ".join(f"{f['name']!r}: ({kind_of(f)!r}, {py_argument(f)})" for f in options)
    call = f"{'await ' if asynchronous else ''}self._call({method['name']!r}, ({positional}), {{{named}}})"
    if method["reply"] == "id":
        return out + f"        return self._handle({call}, {py_argument(required[0])})\n"
    if method["reply"] == "nil":
        return out + f"        {call}\n"
    return out + f"        result: {py_reply(method)} = {call}\n        return result\n"


def py_class(api, name, asynchronous):
    head = "async " if asynchronous else ""
    out = f"\n\nclass {name}(Generic[Handle]):\n" + py_doc("The methods of eqd, one for one", 4)
    out += f"\n    @abstractmethod\n    {head}def _call(self, method: str, required: Sequence[Tuple[str, Any]], " \
           "options: Mapping[str, Tuple[str, Any]]) -> Any:\n" + py_doc("One request and its answer", 8)
    out += "\n    @abstractmethod\n    def _handle(self, task: TaskId, queue: str) -> Handle:\n" + \
        py_doc("What a submitted task is given back as", 8)
    for method in api.data["methods"]:
        out += "\n" + py_method(api, method, asynchronous)
    return out


def print_python(api):
    data = api.data
    out = PY_HEAD.format(protocol=data["protocol"])
    for row in data["limits"]:
        if row["name"] != "PROTOCOL":
            out += f"{row['name']}: Final = {row['value']}  # {row['unit']}: {row['doc']}\n"
    out += f"\nMETHODS: Final = {tuple(m['name'] for m in data['methods'])!r}\n"
    out += f"WAITING: Final = frozenset({api.waiting!r})\nREADING: Final = frozenset({api.reading!r})\n"
    out += f"STATES: Final = {tuple(s['name'] for s in data['states'])!r}\n"
    out += f"FINISHED: Final = frozenset({sorted(s['name'] for s in data['states'] if s['finished'])!r})\n"
    out += f"REASONS: Final = {tuple(r['name'] for r in data['reasons'])!r}\n"
    out += f"EVENTS: Final = {tuple(e['name'] for e in data['events'])!r}\n"
    for record in api.replies:
        out += f"\n\nclass {record['name']}Record(TypedDict, total=False):\n" + py_doc(record["doc"], 4)
        for f in record["fields"]:
            out += f"    {f['name']}: {PY_REPLY[f['type']]}  # {f['doc']}\n"
    for e in data["errors"]:
        out += f"\n\nclass {camel(e['name'], True)}Error(EqdError):\n" + py_doc(e["doc"], 4)
        out += f"    code = {e['code']}\n    name = {e['name']!r}\n"
    public = [f"{camel(e['name'], True)}Error" for e in data["errors"]] + [r["name"] + "Record" for r in api.replies] + \
        ["EVENTS", "FINISHED", "METHODS", "PROTOCOL", "REASONS", "STATES"] + \
        [row["name"] for row in data["limits"] if row["name"] != "PROTOCOL"]
    out += "\n\n__all__ = [\n" + "".join(f"    {name!r},\n" for name in sorted(public)) + "]\n"
    out += "\n\nERRORS: Final[Dict[int, Type[EqdError]]] = {\n"
    out += "".join(f"    {e['code']}: {camel(e['name'], True)}Error,\n" for e in data["errors"]) + "}\n"
    out += py_class(api, "Api", False) + py_class(api, "AsyncApi", True)
    print(out, end="")


# ---- JavaScript ----

def js_tables(api):
    data = api.data
    methods = {}
    for m in data["methods"]:
        methods[camel(m["name"])] = {
            "name": m["name"], "reply": m["reply"],
            "required": [[camel(friendly(f)), kind_of(f)] for f in api.fields(m, True)],
            "options": {js_option(f): [f["name"], kind_of(f)] for f in api.fields(m, False)}}
    return {
        "PROTOCOL": data["protocol"],
        "LIMITS": {row["name"]: row["value"] for row in data["limits"]},
        "METHODS": methods,
        "WAITING": api.waiting,
        "READING": api.reading,
        "STATES": [s["name"] for s in data["states"]],
        "FINISHED": [s["name"] for s in data["states"] if s["finished"]],
        "REASONS": [r["name"] for r in data["reasons"]],
        "EVENTS": [e["name"] for e in data["events"]],
        "ERRORS": {e["code"]: [camel(e["name"], True) + "Error", e["name"]] for e in data["errors"]},
    }


def print_js(api):
    print("// Made by client/bindings/generate.py from proto/eqd.def. Do not edit.")
    for name, value in js_tables(api).items():
        print(f"export const {name} = {json.dumps(value, indent=2)};")


def ts_options(api, method):
    rows = ["signal?: AbortSignal"]
    for f in api.fields(method, False):
        kind = {"time": "Time", "duration": "Duration"}.get(kind_of(f)) or TS_PARAM[f["type"]]
        rows.append(f"/** {f['doc']} */ {js_option(f)}?: {kind}")
    return "{\n" + "".join(f"    {row};\n" for row in rows) + "  }"


def ts_method(api, method):
    record = method.get("record")
    reply = {"nil": "void", "id": "Task", "int": "number", "intv": "number[]", "record": f"{record}Record",
             "list": f"{record}Record[]" if record else "unknown[]"}[method["reply"]]
    args = []
    for f in api.fields(method, True):
        kind = {"time": "Time", "duration": "Duration"}.get(kind_of(f)) or TS_PARAM[f["type"]]
        args.append(f"{camel(friendly(f))}: {kind}{' | null' if f['type'] == 'bin' else ''}")
    args.append(f"options?: {camel(method['name'], True)}Options")
    return f"  /** {method['doc']} */\n  {camel(method['name'])}({', '.join(args)}): Promise<{reply}>;\n"


def print_dts(api):
    data = api.data
    out = "// Made by client/bindings/generate.py from proto/eqd.def. Do not edit.\n"
    out += "import type { AnyId, Bytes, Duration, Strings, Task, Time } from './index.js';\n"
    tables = js_tables(api)
    out += "export const PROTOCOL: number;\n"
    out += "export const LIMITS: {\n" + "".join(f"  /** {row['unit']}: {row['doc']} */\n  readonly {row['name']}: {row['value']};\n"
                                               for row in data["limits"]) + "};\n"
    for name, alias in (("STATES", "State"), ("REASONS", "Reason"), ("EVENTS", "EventKind")):
        out += f"export type {alias} = {' | '.join(json.dumps(v) for v in tables[name])};\n"
        out += f"export const {name}: readonly {alias}[];\n"
    out += "export const FINISHED: readonly State[];\n"
    out += f"export type ErrorName = {' | '.join(json.dumps(name) for name, _ in tables['ERRORS'].values())};\n"
    for record in api.replies:
        out += f"/** {record['doc']} */\nexport interface {record['name']}Record {{\n"
        named = any(f["name"] == "queue" for f in record["fields"])
        for f in record["fields"]:
            is_text = named and f["name"] == "id"
            out += f"  /** {f['doc']} */\n  {f['name']}?: {'string' if is_text else TS_REPLY[f['type']]};\n"
            if is_text:
                out += "  /** Its id as numbers */\n  pair?: [number, number];\n"
        out += "}\n"
    for m in data["methods"]:
        out += f"export type {camel(m['name'], True)}Options = {ts_options(api, m)};\n"
    out += "export interface Api {\n" + "".join(ts_method(api, m) for m in data["methods"]) + "}\n"
    print(out, end="")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("python", "js", "dts"):
        sys.exit(__doc__.strip())
    {"python": print_python, "js": print_js, "dts": print_dts}[sys.argv[1]](Api(sys.argv[2]))
