"""Certified norms of ConvHarmonicVAE's layers, against dense SVD and power iteration.

For networks trained a few epochs on real images (32×32; 64×64 by doubling pixels), each
layer's certified norm, the seconds it takes from its sparse matrix, and its ratio to the
exact norm of the dense matrix where that has at most 4,096 rows or columns (by SVD of the
Gram matrix on that side), else to the value of 500 power iterations, which lies below.

Usage: python benchmarks/conv_norms.py --data-dir DIR [--epochs 3]
    [--json results/benchmarks/conv_norms.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array

from harmonicvae import LayeredNetwork, bound
from harmonicvae.datasets import load_cifar10
from harmonicvae.matrices import dense
from harmonicvae.models import ConvHarmonicVAE
from harmonicvae.norms import certified_spectral_norm

ROWS, LARGEST_EXACT = 5_120, 4_096


def reference(matrix: csr_array) -> tuple[str, float]:
    """Return how the norm was found and its value, exact or from below."""
    if min(matrix.shape) <= LARGEST_EXACT:
        full = dense(matrix)
        short = full if full.shape[0] <= full.shape[1] else full.T
        return "exact", float(np.sqrt(np.linalg.eigvalsh(short @ short.T)[-1]))
    vector = np.random.default_rng(0).standard_normal(matrix.shape[1])
    for _ in range(500):
        vector = matrix.T @ (matrix @ (vector / np.linalg.norm(vector)))
    return "power", float(np.sqrt(np.linalg.norm(vector)))


def measured(side: int, part: str, network: LayeredNetwork) -> list[dict[str, object]]:
    rows = []
    for i, weight in enumerate(network.weights):
        matrix = csr_array(weight)
        started = time.perf_counter()
        value = certified_spectral_norm(matrix)
        seconds = time.perf_counter() - started
        how, norm = reference(matrix)
        rows.append(
            {
                "side": side,
                "part": part,
                "layer": i,
                "outputs": matrix.shape[0],
                "inputs": matrix.shape[1],
                "entries": int(matrix.nnz),
                "certified": value,
                "reference": how,
                "over_reference": value / norm,
                "seconds": seconds,
            }
        )
        print(
            f"{side:>4} {part:<8}{i:>2}{matrix.shape[0]:>7} × {matrix.shape[1]:<7}"
            f"{value:>10.5f}  {how:<6} ratio − 1 = {value / norm - 1:9.2e}  {seconds:7.2f} s",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", required=True, help="real CIFAR10")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    images = load_cifar10(data_dir=options.data_dir).data[:ROWS]
    layers: list[dict[str, object]] = []
    products: list[dict[str, object]] = []
    for side in (32, 64):
        X = images.reshape(-1, 32, 32, 3)
        X = X.repeat(side // 32, axis=1).repeat(side // 32, axis=2).reshape(len(X), -1)
        vae = ConvHarmonicVAE(
            latent_dim=64, image_shape=(side, side, 3), max_epochs=options.epochs, random_state=0
        ).fit(X)
        for part, module in (("encoder", vae.encoder_), ("decoder", vae.decoder_)):
            network = LayeredNetwork.from_module(module)
            layers += measured(side, part, network)
            result = bound(network, "norm_product")
            products.append(
                {
                    "side": side,
                    "part": part,
                    "hidden": sum(network.hidden_dims),
                    "sparse": network.is_sparse,
                    "norm_product": result.value,
                    "status": result.status,
                    "seconds": result.seconds,
                }
            )
            print(f"     norm product {result.value:.4f}, {result.status}, {result.seconds:.2f} s")
    if options.json:
        figures = {
            "layers": layers,
            "norm_products": products,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
