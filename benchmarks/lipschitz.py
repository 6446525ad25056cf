"""LipSDP-Neuron by the structured solver: seconds, memory, and ratios against CVXPY.

Prints one table of the study's networks and one of one-hidden-layer networks that CVXPY
can finish. Each case runs in a process of its own, so that its peak memory is its own; the
rate of float64 matrix products is measured in the same process just before and after, and
"GFLOP" is seconds times that rate: what the machine could have multiplied meanwhile.

    python benchmarks/lipschitz.py [--rounds 5] [--conic 32 64 128] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

CASES = {
    "decoder": ([64, 256, 256, 256, 3072], "sigmoid"),
    "encoder": ([3072, 256, 256, 256, 64], "sigmoid"),
    "classifier": ([784, 400, 400, 10], "relu"),
}
#: What each case may cost: seconds on two idle cores, and GFLOP.
GOALS = {"decoder": (3.0, 200.0), "encoder": (10.0, 660.0), "classifier": (10.0, 660.0)}


def random_network(dims: list[int], activation: str, seed: int = 0):
    """Return a network with torch's default scale of weights."""
    from harmonicvae.network import LayeredNetwork

    rng = np.random.default_rng(seed)
    weights = [rng.uniform(-1, 1, (b, a)) / math.sqrt(a) for a, b in pairwise(dims)]
    biases = [rng.uniform(-1, 1, b) / math.sqrt(a) for a, b in pairwise(dims)]
    return LayeredNetwork.from_arrays(weights, biases, activation)


def matmul_rate(size: int = 1024, rounds: int = 9) -> float:
    """Return the median rate of float64 matrix products, GFLOP/s."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, size, size))
    out = np.empty_like(left)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        np.matmul(left, right, out=out)
        seconds.append(time.perf_counter() - started)
    return 2e-9 * size**3 / statistics.median(seconds)


def run_case(name: str, rounds: int, device: str) -> dict[str, float | str]:
    """Time one case; the first round warms up and is not counted."""
    import resource

    from harmonicvae.lipschitz import METHODS

    network = random_network(*CASES[name])
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    method = METHODS["lipsdp_neuron"](device=device)
    rates, seconds = [matmul_rate()], []
    for i in range(rounds + 1):
        result = method.bound(network)
        if i > 0:
            seconds.append(result.seconds)
        rates.append(matmul_rate(rounds=3))
    rate = statistics.median(rates)
    median = statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "case": name,
        "bound": result.value,
        "status": result.status,
        "gap": result.details["duality_gap"],
        "iterations": result.details["iterations"],
        "seconds": median,
        "fastest": min(seconds),
        "matmul_gflops": rate,
        "gflop": median * rate,
        "peak_mib": peak,
        "imports_mib": baseline,
    }


def run_conic(width: int, solver: str) -> dict[str, float | str]:
    """Time CVXPY and the structured solver on one hidden layer, in one process."""
    from harmonicvae.lipschitz import METHODS
    from harmonicvae.lipschitz.sdp.conic import LipSDPConic

    network = random_network([width // 2, width, width // 4], "relu")
    method = METHODS["lipsdp_neuron"]()
    method.bound(network)
    ours = statistics.median(method.bound(network).seconds for _ in range(5))
    result = LipSDPConic(solver=solver, limit=10**6).bound(network)
    own = method.bound(network)
    return {
        "hidden": width,
        "solver": solver,
        "solver_seconds": result.seconds,
        "our_seconds": ours,
        "ratio": result.seconds / ours,
        "difference": result.details["float64_value"] / own.value - 1.0,
        "solver_status": str(result.details.get("solver_status", "")),
    }


def in_process(arguments: list[str], timeout: float) -> dict | None:
    """Run this file with one case in a process of its own; None if it does not finish."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(done.stderr.strip().splitlines()[-1:] or f"exit {done.returncode}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def print_table(rows: list[dict]) -> None:
    """Print rows as a small table."""
    if not rows:
        return
    keys = list(rows[0])
    cells = [[_text(row.get(key)) for key in keys] for row in rows]
    widths = [max(len(key), *(len(row[i]) for row in cells)) for i, key in enumerate(keys)]
    print("  ".join(key.rjust(width) for key, width in zip(keys, widths)))
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--conic", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--solvers", nargs="*", default=["CLARABEL", "SCS"])
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--json", default="", help="file for the figures")
    parser.add_argument("--one-case", default="", help=argparse.SUPPRESS)
    parser.add_argument("--one-conic", nargs=2, default=None, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.one_case:
        print(json.dumps(run_case(parsed.one_case, parsed.rounds, parsed.device)))
        return
    if parsed.one_conic:
        print(json.dumps(run_conic(int(parsed.one_conic[0]), parsed.one_conic[1])))
        return
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    rows = []
    for name in parsed.cases:
        arguments = ["--one-case", name, "--rounds", str(parsed.rounds), "--device", parsed.device]
        row = in_process(arguments, parsed.timeout)
        if row is not None:
            goal = GOALS[name]
            row["goal_s"], row["goal_gflop"] = goal
            rows.append(row)
    print_table(rows)
    print()
    conic, unfinished = [], []
    for width in parsed.conic:
        for solver in parsed.solvers:
            row = in_process(["--one-conic", str(width), solver], parsed.timeout)
            if row is None:
                print(f"{solver} at {width} hidden neurons: not finished in {parsed.timeout:g} s")
                unfinished.append(f"{solver} at {width} hidden neurons in {parsed.timeout:g} s")
            else:
                conic.append(row)
    print_table(conic)
    if parsed.json:
        figures = {"rounds": parsed.rounds, "cores": os.cpu_count(), "cases": rows, "conic": conic}
        figures["unfinished"] = unfinished
        Path(parsed.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
