# SPDX-License-Identifier: MIT
"""What can go wrong. All of it is an EqdException; what eqd itself answered is an EqdError."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Mapping, Optional


class EqdException(Exception):
    """Everything that this package raises beside TypeError and ValueError for wrong arguments."""


class EqdError(EqdException):
    """An error that eqd answered. There is a subclass for each code: NoQueueError, DeniedError, FullError...

    An answer with a code that this package does not know yet is an EqdError itself.
    """

    code: int = 0
    name: ClassVar[str] = ""

    def __init__(self, text: str, details: Optional[Mapping[str, Any]] = None, code: Optional[int] = None) -> None:
        super().__init__(text)
        self.text = text
        self.details: Dict[str, Any] = dict(details or {})
        if code is not None:
            self.code = code

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds until it is worth trying again; None: eqd does not know, or it is not."""
        usec = self.details.get("retry_after_usec")
        return usec / 1e6 if isinstance(usec, int) else None


class ConnectionLost(EqdException, ConnectionError):
    """The connection ended. Whether eqd carried the request out is not known."""


class ProtocolViolation(EqdException):
    """The other side sent what is no message."""


class RequestTimeout(EqdException, TimeoutError):
    """No answer came in time. Whether eqd will carry the request out is not known."""


class OutputLost(EqdException):
    """follow() was not asked for output in time: `n` pieces of it were dropped by eqd. What is kept is in output()."""

    def __init__(self, n: int) -> None:
        super().__init__(f"{n} pieces of output were lost: they came faster than they were taken")
        self.n = n


class TaskError(EqdException):
    """result() of a task that did not end as DONE. `record` is the task as shown at its end."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record: Dict[str, Any] = dict(record)
        super().__init__(describe(record))


class TaskFailed(TaskError):
    """FAILED, or DEAD after an attempt that failed."""


class TaskTimeout(TaskError):
    """It ran longer than it was allowed to: TIMEOUT, or with retries, in the last attempt, DEAD."""


class TaskCanceled(TaskError):
    """CANCELED."""


class TaskExpired(TaskError):
    """EXPIRED: it was not started in time."""


TASK_ERRORS = {"FAILED": TaskFailed, "DEAD": TaskFailed, "TIMEOUT": TaskTimeout, "CANCELED": TaskCanceled,
               "EXPIRED": TaskExpired}

def describe(record: Mapping[str, Any]) -> str:
    """One line about how a task ended."""
    seq = record["id"][1] if "id" in record else "?"
    parts = [f"{record.get('queue', '?')}/{seq}: {record.get('state', '?')}"]
    said = [record.get("detail"), record.get("error"), record.get("signal") and f"signal {record['signal']}",
            record.get("exit") and f"exit status {record['exit']}"]
    for text in filter(None, said):
        if not any(str(text) in part for part in parts):  # the sentence of eqd has most of it
            parts.append(str(text))
    return ", ".join(parts)
