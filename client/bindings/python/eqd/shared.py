# SPDX-License-Identifier: MIT
"""What the blocking and the asyncio client have in common, beside the protocol itself."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from . import _api
from .core import Notification
from .errors import TASK_ERRORS, OutputLost, TaskError, TaskTimeout
from .values import TaskId, with_ids

DEFAULT_TIMEOUT = 30.0
STDOUT, STDERR = 1, 2


def allowed_time(method: str, params: List[Any], default: Optional[float]) -> Optional[float]:
    """Seconds that an answer may take, None for ever: requests that wait for something to happen have no limit here."""
    options = params[-1] if params and isinstance(params[-1], dict) else {}
    if method in _api.WAITING or "block_usec" in options:
        return None
    return default


def ids_of(reply: Mapping[str, Any]) -> List[TaskId]:
    """The ids in a reply of `submit_many`, in the order of its tasks."""
    first = reply["first"]
    return [TaskId(*i) for i in reply.get("ids") or ((first[0], first[1] + i) for i in range(reply["n"]))]


def exception_of(record: Mapping[str, Any]) -> Optional[TaskError]:
    """The TaskError for a task that ended, None for one that did as DONE."""
    state = str(record.get("state"))
    if state == "DEAD" and record.get("reason") == "timeout":
        return TaskTimeout(record)
    return None if state == "DONE" else TASK_ERRORS.get(state, TaskError)(record)


def outcome(record: Mapping[str, Any]) -> Any:
    """The record of a task that ended as DONE; raises a TaskError for another."""
    error = exception_of(record)
    if error:
        raise error
    return record


def output_of(reply: Mapping[str, Any], streams: int) -> bytes:
    """The bytes of these streams of a reply of `logs`, in the order in which eqd read them."""
    return b"".join(data for stream, data in reply.get("chunks", []) if stream & streams)


def follow_step(note: Notification, task: TaskId) -> Tuple[bool, Optional[Tuple[int, bytes]]]:
    """What a notification means for who follows the output of that task: (it has ended, (stream, bytes)). Or OutputLost."""
    if note.method == "lost":
        raise OutputLost(note.params[0])
    if note.method in ("output", "output_end") and list(note.params[0]) == list(task):
        if note.method == "output_end":
            return True, None
        return False, (note.params[1], note.params[2])
    return False, None


def of_streams(chunks: Iterator[Tuple[int, bytes]], streams: int) -> Iterator[Tuple[int, bytes]]:
    """Those of these streams only."""
    return ((stream, data) for stream, data in chunks if stream & streams)


def event_of(note: Notification) -> Optional[Dict[str, Any]]:
    """The event in a notification; {"event": "lost", "n": N} where N were dropped because we read too slowly."""
    if note.method == "event":
        event: Dict[str, Any] = with_ids(note.params[0])
        return event
    if note.method == "lost":
        return {"event": "lost", "n": note.params[0]}
    return None
