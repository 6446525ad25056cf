"""Bounds of ConvHarmonicVAE's encoder and decoder: values, seconds and peak memory.

ConvHarmonicVAE with its default layers and a code of 64 numbers, trained two epochs on 2,000
images of CIFAR10 (64 × 64 pixels by doubling); nothing here depends on how good it is. Each
bound runs in a process of its own, one thread each, so that its peak memory is its own; the
seconds printed are the processor's.
LipSDP, with --lipsdp, takes minutes and only 32 × 32 pixels: its matrix has as many rows as
hidden neurons and the code, 3,648. Cases that the file already holds are not run again.

    OMP_NUM_THREADS=1 python benchmarks/conv_bounds.py [--data-dir DIR] [--lipsdp] \\
        [--json results/benchmarks/conv_bounds.json]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, EPOCHS, CODE = 2_000, 2, 64
SIDES = (32, 64)
FAST = ("norm_product", "eclipse_fast", "lower")
LIPSDP = ("lipsdp_neuron", "lipsdp_layer")


def fit(side: int, data_dir: str | None, folder: Path) -> None:
    """Train one model and store its networks and a few images and codes."""
    from harmonicvae import LayeredNetwork
    from harmonicvae.datasets import load_cifar10
    from harmonicvae.models import ConvHarmonicVAE

    X = load_cifar10(data_dir=data_dir).data[:ROWS].reshape(-1, 32, 32, 3)
    X = X.repeat(side // 32, axis=1).repeat(side // 32, axis=2).reshape(len(X), -1)
    vae = ConvHarmonicVAE(
        latent_dim=CODE, image_shape=(side, side, 3), max_epochs=EPOCHS, random_state=0
    ).fit(X)
    points = {"encoder": X[:64], "decoder": vae.transform(X[:64])}
    for part, module in (("encoder", vae.encoder_), ("decoder", vae.decoder_)):
        content = (LayeredNetwork.from_module(module), points[part])
        (folder / f"{part}{side}").write_bytes(pickle.dumps(content))


def measured(path: str, method: str) -> dict[str, object]:
    """Compute one bound in this process."""
    import torch

    from harmonicvae.lipschitz import bound, lower_bound, verify_certificate

    torch.set_num_threads(1)
    network, points = pickle.loads(Path(path).read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clock = time.process_time()
    result = lower_bound(network, points) if method == "lower" else bound(network, method)
    processor = time.process_time() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ends = min(min(network.weights[0].shape), min(network.weights[-1].shape))
    return {
        "hidden": sum(network.hidden_dims),
        "rows": sum(network.hidden_dims) + ends,
        "sparse": network.is_sparse,
        "value": result.value,
        "status": result.status,
        "message": result.message,
        "seconds": result.seconds,
        "processor_seconds": processor,
        "peak_mib": peak,
        "before_mib": before,
        "verified": bool(result.certificate and verify_certificate(result.certificate, network)),
        "gap": result.details.get("duality_gap"),
        "iterations": result.details.get("iterations"),
    }


def in_process(*arguments: str) -> str:
    """Run this file in a process of its own and return its last line.

    A process inherits the peak memory of the one that starts it: this one stays small.
    """
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return (done.stdout.splitlines() or [""])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", default=os.environ.get("HARMONICVAE_CIFAR10_DIR"))
    parser.add_argument("--lipsdp", action="store_true", help="LipSDP too, at 32 × 32 pixels")
    parser.add_argument("--json", type=Path, help="read and write the figures there")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(*options.one)))
        return
    if options.fit:
        fit(int(options.fit[0]), options.data_dir, Path(options.fit[1]))
        return
    cases: list[dict[str, object]] = []
    if options.json and options.json.exists():
        cases = json.loads(options.json.read_text(encoding="utf-8"))["cases"]
    data = ["--data-dir", options.data_dir] if options.data_dir else []
    known = {(case["side"], case["part"], case["method"]) for case in cases}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in SIDES:
            in_process("--fit", str(side), name, *data)
        wanted = [(s, p, m) for s in SIDES for p in ("encoder", "decoder") for m in FAST]
        if options.lipsdp:
            wanted += [(SIDES[0], p, m) for m in LIPSDP for p in ("decoder", "encoder")]
        for side, part, method in wanted:
            if (side, part, method) in known:
                continue
            case = {"side": side, "part": part, "method": method}
            case |= json.loads(in_process("--one", str(folder / f"{part}{side}"), method))
            cases.append(case)
            print(
                f"{side:>3} {part:<8}{method:<14}{case['value']:>10.5f} {case['status']:<10}"
                f"{case['processor_seconds']:8.1f} s {case['peak_mib']:6.0f} MiB  "
                f"{case['message']}",
                flush=True,
            )
            if options.json:
                figures = {
                    "rows": ROWS,
                    "epochs": EPOCHS,
                    "code": CODE,
                    "threads": 1,
                    "machine": platform.machine(),
                    "cases": cases,
                }
                options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
