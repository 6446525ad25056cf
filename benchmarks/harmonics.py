"""Seconds and peak memory of the harmonic analysis at the study's sizes.

    python benchmarks/harmonics.py [--samples 10000] [--json results/benchmarks/harmonics.json]

Each case runs in a process of its own, so that its peak memory is its own.  "GFLOP counted" is
what the matrix products of the evaluations, derivatives and Fourier sums cost; "matmul GFLOP/s"
is the rate of float64 matrix products measured in the same process just before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from lipschitz import matmul_rate, print_table

#: Layer sizes, number of centres, what is measured.
CASES = {
    "CIFAR10 decoder, prior": ([64, 256, 256, 256, 3072], 1, "hermite"),
    "CIFAR10 decoder, 64 codes": ([64, 256, 256, 256, 3072], 64, "hermite"),
    "CIFAR10 encoder, 16 images": ([3072, 256, 256, 256, 64], 16, "hermite"),
    "sinc decoder, prior": ([1, 256, 256, 256, 344], 1, "hermite"),
    "CIFAR10 decoder, 256 slices": ([64, 256, 256, 256, 3072], 256, "slices"),
}


def counted_gflop(dims: list[int], samples: int, angles: int = 24) -> float:
    """Return the GFLOP of a Hermite spectrum, a derivative counted as two evaluations.

    Wide ends count as they are computed: 3072 inputs or outputs beside 256 as 256 or 257.
    """
    dims = [min(dims[0], dims[1]), *dims[1:-1], min(dims[-1], dims[-2] + 1)]
    evaluation = 2 * sum(a * b for a, b in pairwise(dims))
    fourier = 2 * angles * dims[-1]
    first = 4 * dims[0] * dims[-1]
    return 1e-9 * samples * (angles * (evaluation + fourier) + 4 * 2 * evaluation + first)


def run_case(name: str, samples: int) -> dict[str, float | int | str]:
    """Time one case in this process."""
    import numpy as np
    import torch

    from harmonicvae import hermite_spectrum, slice_spectrum
    from harmonicvae.models.modules import multilayer_perceptron

    dims, centres, kind = CASES[name]
    torch.manual_seed(0)
    network = multilayer_perceptron(dims, "sigmoid")
    points = np.random.default_rng(0).standard_normal((centres, dims[0]))
    rate = matmul_rate()
    hermite_spectrum(lambda z: z, [0.0], 1.0, n_samples=32)  # torch's own first-call work
    clock = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if kind == "hermite":
        centre = np.zeros(dims[0]) if centres == 1 else points
        found = hermite_spectrum(network, centre, 1.0, n_samples=samples, random_state=0)
        drawn, gflop = found.n_samples, counted_gflop(dims, found.n_samples)
    else:
        found = slice_spectrum(network, points, 8.0, random_state=0)
        drawn = found.n_samples
        short = [*dims[:-1], dims[-2] + 1]
        gflop = 1e-9 * drawn * 128 * 2 * sum(a * b for a, b in pairwise(short))
    return {
        "case": name,
        "samples": drawn,
        "gflop_counted": gflop,
        "matmul_gflops": rate,
        "seconds": found.seconds,
        "cpu_seconds": time.process_time() - clock,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mib": before,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Run every case and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--json", default="", help="file for the figures")
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.case:
        print(json.dumps(run_case(parsed.case, parsed.samples)))
        return
    rows = []
    for name in CASES:
        command = [sys.executable, __file__, "--case", name, "--samples", str(parsed.samples)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print_table(rows)
    if parsed.json:
        figures = {"samples": parsed.samples, "cores": os.cpu_count(), "cases": rows}
        Path(parsed.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
