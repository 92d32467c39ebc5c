# SPDX-License-Identifier: MIT
"""The protocol without any input or output: bytes in, messages out, and the other way round.

Both clients are this with a socket; tests are this with bytes. A Core belongs to one connection and dies with it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

import msgpack

from . import _api
from .errors import EqdError, ProtocolViolation

RECEIVE_BYTES = 65536


@dataclass(frozen=True)
class Request:
    """[0, msgid, method, params]"""

    msgid: int
    method: str
    params: List[Any]


@dataclass(frozen=True)
class Response:
    """[1, msgid, error, result]"""

    msgid: int
    error: Any
    result: Any


@dataclass(frozen=True)
class Notification:
    """[2, method, params]"""

    method: str
    params: List[Any]


Message = Union[Request, Response, Notification]


def default_path(path: Optional[str] = None) -> str:
    """Where eqd is: as given, else EQD_SOCKET, else for root the system's socket, for others their own if it is there."""
    path = path or os.environ.get("EQD_SOCKET")
    if path:
        return path
    system, runtime = "/run/eqd/eqd.sock", os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and runtime and os.path.exists(f"{runtime}/eqd/eqd.sock"):
        return f"{runtime}/eqd/eqd.sock"
    return system


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """An OSError of connecting names the socket, as those of files do; it does not say it itself."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or path
        raise


def error_from_wire(error: Any) -> EqdError:
    """The exception for the error of a response: [code, text, details]."""
    if not isinstance(error, list) or len(error) < 2 or not isinstance(error[0], int):
        return EqdError(str(error))
    details = error[2] if len(error) > 2 and isinstance(error[2], dict) else None
    return _api.ERRORS.get(error[0], EqdError)(str(error[1]), details, error[0])


class Core:
    """One connection's share of MessagePack-RPC."""

    def __init__(self) -> None:
        self._next_msgid = 0
        self._packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")
        self._unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", strict_map_key=False,
                                          max_buffer_size=_api.MESSAGE_MAX + RECEIVE_BYTES)

    def request(self, method: str, params: Sequence[Any]) -> Tuple[int, bytes]:
        """(msgid, bytes to send)"""
        msgid, self._next_msgid = self._next_msgid, (self._next_msgid + 1) & 0xFFFFFFFF
        return msgid, self._pack([0, msgid, method, list(params)])

    def notification(self, method: str, params: Sequence[Any]) -> bytes:
        """Bytes of a message that gets no answer."""
        return self._pack([2, method, list(params)])

    def response(self, msgid: int, error: Any, result: Any) -> bytes:
        """Bytes of the answer to a request of eqd."""
        return self._pack([1, msgid, error, result])

    def _pack(self, message: List[Any]) -> bytes:
        data: bytes = self._packer.pack(message)
        if len(data) > _api.MESSAGE_MAX:
            raise ValueError(f"a message of {len(data)} bytes; eqd takes {_api.MESSAGE_MAX}")
        return data

    def feed(self, data: bytes) -> Iterator[Message]:
        """Takes bytes in, at most RECEIVE_BYTES; yields the messages that are complete. ProtocolViolation: no such message."""
        try:
            self._unpacker.feed(data)
            for value in self._unpacker:
                yield self._message(value)
        except (ValueError, msgpack.exceptions.UnpackException, msgpack.exceptions.BufferFull) as e:
            raise ProtocolViolation(f"what eqd sent is no message: {e!r}") from e

    @staticmethod
    def _message(value: Any) -> Message:
        if isinstance(value, list) and value:
            if value[0] == 1 and len(value) == 4 and isinstance(value[1], int):
                return Response(value[1], value[2], value[3])
            if value[0] == 0 and len(value) == 4 and isinstance(value[2], str) and isinstance(value[3], list):
                return Request(value[1], value[2], value[3])
            if value[0] == 2 and len(value) == 3 and isinstance(value[1], str) and isinstance(value[2], list):
                return Notification(value[1], value[2])
        raise ValueError(f"unexpected {str(value)[:60]}")
