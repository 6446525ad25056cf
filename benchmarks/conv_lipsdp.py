"""LipSDP of the encoders and decoders of stored convolutional models on a GPU, or a processor.

FOLDER holds estimators as ``harmonicvae.save_estimator`` writes them, one a folder, for
instance those of docs/train_elsewhere.py. The seconds include the proof, which the processor
makes; the first network's include the start of the device.

    python benchmarks/conv_lipsdp.py FOLDER [--device cuda] [--models N] \\
        [--json results/benchmarks/conv_lipsdp.json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from harmonicvae.lipschitz import bound, verify_certificate
from harmonicvae.models import load_estimator
from harmonicvae.network import LayeredNetwork


def measured(network: LayeredNetwork, device: str) -> dict[str, object]:
    """Bound one network and prove its certificate again."""
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    result = bound(network, "lipsdp_neuron", device=device)
    seconds = time.perf_counter() - started
    return {
        "value": result.value,
        "status": result.status,
        "seconds": seconds,
        "gap": result.details.get("duality_gap"),
        "iterations": result.details.get("iterations"),
        "message": result.message,
        "verified": bool(result.certificate and verify_certificate(result.certificate, network)),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        "device": torch.cuda.get_device_name(0) if gpu else "cpu",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", type=int, help="the first only, by name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: list[dict[str, object]] = []
    for folder in sorted(options.folder.iterdir())[: options.models]:
        estimator = load_estimator(folder)
        for side in ("decoder", "encoder"):
            network = LayeredNetwork.from_module(getattr(estimator, f"{side}_").cpu())
            found.append({"model": folder.name, "side": side, **measured(network, options.device)})
            print(found[-1], flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
