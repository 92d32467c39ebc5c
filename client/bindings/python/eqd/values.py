# SPDX-License-Identifier: MIT
"""Values as people write them, and as the wire wants them."""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Protocol, Sequence, Tuple, Union


class TaskId(NamedTuple):
    """Queue id and SEQ: the name of a task, never given to another one."""

    queue: int
    seq: int


class HasId(Protocol):
    """Whatever has the id of a task, such as a handle."""

    @property
    def id(self) -> TaskId: ...


Bytes = Union[bytes, bytearray, memoryview, str]
AnyId = Union[TaskId, Tuple[int, int], str, HasId]
Strings = Union[Sequence[Union[str, bytes]], Mapping[str, Any]]
Duration = Union[int, float, str, datetime.timedelta]
Time = Union[int, float, datetime.datetime]

UNITS = {"us": 1, "ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)\s*")


def duration_usec(value: Duration) -> int:
    """Seconds as a number, a timedelta, or text such as "30s", "1h 30m", "250ms"."""
    if isinstance(value, datetime.timedelta):
        usec = value // datetime.timedelta(microseconds=1)
    elif isinstance(value, str):
        parts = PART.findall(value)
        if not parts or PART.sub("", value):
            raise ValueError(f"{value!r} is no duration; write it as 30s, 1h30m or 250ms")
        usec = round(sum(float(n) * UNITS[unit] for n, unit in parts))
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no duration; give seconds, a timedelta or text such as 30s")
    else:
        usec = round(value * 1_000_000)
    if usec < 0:
        raise ValueError(f"a duration of {value!r} is negative")
    return usec


def time_usec(value: Time) -> int:
    """Seconds since the epoch, or a datetime (without a zone: local time)."""
    seconds = value.timestamp() if isinstance(value, datetime.datetime) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{value!r} is no time of day; give a datetime or seconds since the epoch")
    return round(seconds * 1_000_000)


def wire_id(value: AnyId) -> Any:
    """[queue id, SEQ], or the text QUEUE/SEQ, which eqd takes as well."""
    if isinstance(value, str):
        return value
    pair = value if isinstance(value, tuple) else value.id
    return [pair[0], pair[1]]


def wire_strings(value: Strings) -> List[Union[str, bytes]]:
    """A sequence as it is; a mapping as KEY=VALUE, with yes and no for booleans."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{value!r} is one string where a list of strings is wanted")
    if isinstance(value, Mapping):
        return [f"{k}={('yes' if v else 'no') if isinstance(v, bool) else v}" for k, v in value.items()]
    return list(value)


def wire_bytes(value: Union[str, bytes, bytearray, memoryview]) -> bytes:
    """Text as UTF-8. Not all that bytes() takes: of a number it makes as many zeros."""
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"bytes or text are wanted, not {type(value).__name__}; msgpack.packb() and json.dumps() make them")
    return bytes(value)


WIRE: Dict[str, Callable[[Any], Any]] = {
    "duration": duration_usec,
    "time": time_usec,
    "id": wire_id,
    "idv": lambda ids: [wire_id(i) for i in ids],
    "strv": wire_strings,
    "listv": list,
    "map": dict,
    "bin": wire_bytes,
}


def wire(kind: str, value: Any) -> Any:
    """A value in the form that the wire has for this kind; other kinds go as they are."""
    convert = WIRE.get(kind)
    return value if value is None or convert is None else convert(value)


def wire_params(required: Iterable[Tuple[str, Any]], options: Mapping[str, Tuple[str, Any]]) -> List[Any]:
    """Parameters of a request: the required ones, then one map with the options that were given."""
    params = [wire(kind, value) for kind, value in required]
    given = {name: wire(kind, value) for name, (kind, value) in options.items() if value is not None}
    return params + [given] if given else params


def with_ids(reply: Any) -> Any:
    """A reply with each `id` of its records as a TaskId. Changes it in place."""
    for record in reply if isinstance(reply, list) else [reply]:
        if isinstance(record, dict):
            for key in ("id", "by", "first", "oldest"):
                if isinstance(record.get(key), list):
                    record[key] = TaskId(*record[key])
    return reply
