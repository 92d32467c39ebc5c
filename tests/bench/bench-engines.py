#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench-engines.py FOLDER: eqd's execution queue beside other engines, in interleaved rounds.

Prints `bench NAME VALUE UNIT ratio R of PEER`: medians, and the median of the ratios inside each round; the ratio is eqd's
value divided by that of the best peer. Every run checks order, exactly once and serial execution, and fails otherwise.
Environment: ROUNDS, CELLS ("PxQ ..."), N. The engines and the harness are in tests/bench/engines.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CELLS = os.environ.get("CELLS", "1x1 2x1 4x1 8x1 1x64 4x64 8x64 1x4096 2x4096 4x4096").split()
N = os.environ.get("N", "262144")
EQD, PEERS = "eqd", ["mutex", "wfcq", "uv"]


def run(folder, engine, args):
    """One run of one engine: its figures by name, or an end of the program."""
    program = folder / f"engine-{engine}"
    out = subprocess.run([program, *args, "-w", "4"], capture_output=True, text=True, timeout=120, check=False)
    fields = dict(f.split("=", 1) for f in out.stdout.split() if "=" in f)
    if out.returncode != 0 or fields.get("err") != "0":
        sys.exit(f"bench-engines: {engine} {' '.join(args)}: {out.stdout} {out.stderr}")
    return fields


def compare(folder, peers, name, args, field, unit, best):
    """Runs all engines in rounds; `best` is max or min."""
    values = {e: [] for e in (EQD, *peers)}
    for _ in range(ROUNDS):
        for engine, got in values.items():
            got.append(float(run(folder, engine, args)[field]))
    medians = {e: statistics.median(v) for e, v in values.items()}
    for peer in peers:
        print(f"bench engines-{name}-{peer} {medians[peer]:.2f} {unit}")
    peer = best(peers, key=medians.get)
    ratio = statistics.median(a / b for a, b in zip(values[EQD], values[peer]))
    print(f"bench engines-{name}-eqd {medians[EQD]:.2f} {unit} ratio {ratio:.2f} of {peer}", flush=True)


def main():
    folder = Path(sys.argv[1])
    peers = [p for p in PEERS if (folder / f"engine-{p}").exists()]
    for cell in CELLS:
        p, q = cell.split("x")
        compare(folder, peers, f"P{p}-Q{q}", ["-p", p, "-q", q, "-n", N, "-r", "2"], "Mtasks/s", "M/s", max)
    for cell in ("1x1", "4x1", "4x64"):
        p, q = cell.split("x")
        args = ["-p", p, "-q", q, "-n", N, "-r", "2", "-i"]
        compare(folder, peers, f"submit-p99-P{p}-Q{q}", args, "p99", "ns", min)
        compare(folder, peers, f"submit-p99.9-P{p}-Q{q}", args, "p99.9", "ns", min)
    for gap, n in (("50", "3000"), ("1000", "1500")):
        compare(folder, peers, f"latency-p50-gap-{gap}us", ["-L", "-q", "1", "-n", n, "-g", gap], "lat_p50", "ns", min)


if __name__ == "__main__":
    main()
