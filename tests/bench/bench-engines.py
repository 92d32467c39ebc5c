#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench-engines.py FOLDER: eqd's execution queue beside other engines, in interleaved rounds.

Prints a line `bench NAME-PEER VALUE UNIT` for each peer and `bench NAME-to-PEER VALUE UNIT ratio R of PEER` with eqd's value:
medians, and the median of the ratios inside each round. Not pinned. Every run checks order, exactly once and serial execution,
and fails otherwise. Environment: ROUNDS (at one queue at least 8: wfcqueue is bimodal there), CELLS ("PxQ ..."), N. The engines
and the harness are in tests/bench/engines.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CELLS = os.environ.get("CELLS", " ".join(f"{p}x{q}" for q in (1, 64, 4096) for p in (1, 2, 4, 8))).split()
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


def compare(folder, peers, name, args, field, unit, rounds):
    """Runs all engines in rounds."""
    values = {e: [] for e in (EQD, *peers)}
    for _ in range(rounds):
        for engine, got in values.items():
            got.append(float(run(folder, engine, args)[field]))
    eqd = statistics.median(values[EQD])
    for peer in peers:
        ratio = statistics.median(a / b for a, b in zip(values[EQD], values[peer]))
        print(f"bench engines-{name}-{peer} {statistics.median(values[peer]):.2f} {unit}")
        print(f"bench engines-{name}-to-{peer} {eqd:.2f} {unit} ratio {ratio:.2f} of {peer}", flush=True)


def main():
    folder = Path(sys.argv[1])
    peers = [p for p in PEERS if (folder / f"engine-{p}").exists()]
    for missing in sorted(set(PEERS) - set(peers)):
        print(f"# {missing} was not built: its library is not here")
    for cell in CELLS:
        p, q = cell.split("x")
        rounds = max(ROUNDS, 8) if q == "1" else ROUNDS
        compare(folder, peers, f"P{p}-Q{q}", ["-p", p, "-q", q, "-n", N, "-r", "2"], "Mtasks/s", "M/s", rounds)
    for cell in CELLS:
        p, q = cell.split("x")
        args = ["-p", p, "-q", q, "-n", N, "-r", "2", "-i"]
        compare(folder, peers, f"submit-p99-P{p}-Q{q}", args, "p99", "ns", ROUNDS)
        compare(folder, peers, f"submit-p99.9-P{p}-Q{q}", args, "p99.9", "ns", ROUNDS)
    for gap, n in (("50", "3000"), ("1000", "1500")):
        compare(folder, peers, f"latency-p50-gap-{gap}us", ["-L", "-q", "1", "-n", n, "-g", gap], "lat_p50", "ns", ROUNDS)


if __name__ == "__main__":
    main()
