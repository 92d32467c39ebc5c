#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""spin.py FOLDER: checks the Promela models of FOLDER in all interleavings, and mutants that they must catch. TAP; skipped
if spin (Debian: spin) or gcc is missing. EQD_LONG=1: larger ones."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = {
    "barrier": ["M_NOT_AT_ITS_PLACE", "M_ONE_AFTER_THE_OTHER", "M_CANCEL_STARTS_NOBODY", "M_PAUSED_AT_HOME_ONLY"],
    "bell": ["M_NO_SECOND_LOOK", "M_STAY_AT_BELL", "M_NO_RING"],
    "join": ["M_COUNT_AFTER_LOOK", "M_WAKE_BEFORE_END", "M_NO_WAKE", "M_END_BEFORE_CALL"],
    "token": ["M_LOOK_FIRST", "M_REFUND_NO_KICK", "M_URGENT_NO_KICK", "M_STOP_NO_KICK", "M_RESUME_LEAVES",
              "M_NO_SECOND_LOOK", "M_PARK_BLINDLY"],
    "uplist": ["M_LOCK", "M_RETRY", "M_NO_RING", "M_NOT_AGAIN", "M_READ_LATE"],
}
LARGER = {"barrier": ["TASKS=5"]}


def holds(model, defines):
    """All states are searched. False: an assertion fails, or something stands still where it must not."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["spin", *[f"-D{d}" for d in defines], "-a", str(model)], cwd=folder, check=True,
                       capture_output=True, timeout=60)
        subprocess.run(["gcc", "-O2", "-w", "-DSAFETY", "-DMEMLIM=2000", "-o", "pan", "pan.c"], cwd=folder, check=True,
                       timeout=60)
        out = subprocess.run(["./pan", "-m200000"], cwd=folder, capture_output=True, text=True, timeout=300).stdout
    if "max search depth too small" in out or "out of memory" in out or "errors:" not in out:
        raise RuntimeError(out)
    return "errors: 0" in out


def main():
    folder = Path(sys.argv[1])
    if not shutil.which("spin") or not shutil.which("gcc"):
        print("1..0 # SKIP needs spin and gcc")
        return 0
    results = []
    for name, mutants in MODELS.items():
        results.append((f"{name} holds", holds(folder / f"{name}.pml", LARGER.get(name, []) if os.environ.get("EQD_LONG") else [])))
        results += [(f"{name} catches {m}", not holds(folder / f"{name}.pml", [m])) for m in mutants]
    print(f"1..{len(results)}")
    for n, (claim, good) in enumerate(results, 1):
        print(f"{'ok' if good else 'not ok'} {n} - {claim}")
    return 0 if all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main())
