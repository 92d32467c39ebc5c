# SPDX-License-Identifier: MIT
"""The stacks of a process on demand: SIGTTIN has them written to standard error, and changes nothing.

Of the thread that the signal interrupts, the first one as a rule, at once, wherever it is; of the others as soon as the
interpreter gets to it. faulthandler could show all of them at once, but reads stacks that go on changing meanwhile: a thread that
returns from a function in that moment makes it crash.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Optional

_STDERR = 2


def _show_others(_: int, __: Optional[FrameType]) -> None:
    """Runs between two steps of the first thread, so that no stack changes."""
    names = {t.ident: t.name for t in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.main_thread().ident:
            lines.append(f"\nThread {names.get(ident, ident)} (most recent call first):\n")
            lines += [f'  File "{f.filename}", line {f.lineno} in {f.name}\n' for f in reversed(traceback.extract_stack(frame))]
    data = "".join(lines).encode("utf-8", "replace")
    while data: # not by sys.stderr, which the first thread may be writing to
        data = data[os.write(_STDERR, data):]


def on_sigttin() -> None:
    """From now on. To be called by the first thread."""
    signal.signal(signal.SIGTTIN, _show_others)
    faulthandler.register(signal.SIGTTIN, all_threads=False, chain=True)
