"""Time and memory of the default attack on CIFAR-10 images, all radii in one call.

    python benchmarks/attack_speed.py MODEL --data-dir DIR [--images 256] [--json FILE]

MODEL is a model URI or the folder of a stored estimator. Run it alone: the peak memory is that
of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
from lipschitz import matmul_rate, print_table
from tightness import load

from harmonicvae import attack, load_cifar10


def main() -> None:
    """Attack and print one row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--radii", type=float, nargs="*", default=[10.0, 20.0])
    parser.add_argument("--method", default="best")
    parser.add_argument("--json", default="", help="file for the figures")
    parsed = parser.parse_args()
    estimator = load(parsed.model)
    data = load_cifar10("validation", data_dir=parsed.data_dir).data
    rows = np.linspace(0, data.shape[0] - 1, parsed.images).astype(int)
    x = np.asarray(data[rows], dtype=np.float64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = matmul_rate()
    started = time.perf_counter()
    results = attack(
        estimator.encoder_, estimator.decoder_, x, parsed.radii, parsed.method, random_state=0
    )
    seconds = time.perf_counter() - started
    figures = {
        "method": parsed.method,
        "encoder_std": estimator.encoder_std,
        "images": len(x),
        "radii": len(parsed.radii),
        "gradients": sum(result.gradient_evaluations for result in results),
        "seconds": seconds,
        "seconds_per_image": seconds / len(x),
        "matmul_gflops": rate,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mib": before,
        "cores": os.cpu_count(),
        "damage": float(np.mean(results[-1].damage)),
    }
    print_table([figures])
    if parsed.json:
        Path(parsed.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
