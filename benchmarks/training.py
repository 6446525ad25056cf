"""Seconds per training epoch at CIFAR10 size: HarmonicVAE against two hand-written loops.

Floor: 6 · 1.87 M parameters · 49,920 samples less the first layer's unneeded input
gradient = 521 GFLOP an epoch, and 0.6 GB of float32 rows read once.  "bare" is the
smallest loop that does the same arithmetic (one permutation, rows gathered into a
buffer, fused Adam); "loader" is the usual TensorDataset + DataLoader loop.

"products" are the matrix products of the same epoch alone, into
buffers: what no float32 loop can go below.

They take turns, epoch by epoch, in one process; ratios are medians over rounds.

Usage: python benchmarks/training.py [--rounds 5] [--data-dir DIR] [--input-noise-std 0]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from harmonicvae.datasets import load_cifar10
from harmonicvae.models import EpochHook, HarmonicVAE

BATCH, LATENT, HIDDEN, STD, LR = 256, 64, (256, 256, 256), 0.5, 1e-3


def networks(width: int) -> tuple[nn.Module, nn.Module]:
    def mlp(dims: list[int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for a, b in pairwise(dims):
            layers += [nn.Linear(a, b), nn.Sigmoid()]
        return nn.Sequential(*layers[:-1])

    return mlp([width, *HIDDEN, LATENT]), mlp([LATENT, *HIDDEN, width])


def loss_of(
    encoder: nn.Module, decoder: nn.Module, x: torch.Tensor, noise_std: float
) -> torch.Tensor:
    noisy = x + noise_std * torch.randn_like(x) if noise_std else x
    mean = encoder(noisy)
    z = mean + STD * torch.randn_like(mean)
    return (mse_loss(decoder(z), x, reduction="sum") + 0.5 * mean.square().sum()) / len(x)


def bare_epoch(X: torch.Tensor, noise_std: float) -> Callable[[], None]:
    """Return one epoch of the smallest loop doing the same arithmetic."""
    encoder, decoder = networks(X.shape[1])
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], LR, fused=True)
    buffer = torch.empty(BATCH, X.shape[1])

    def epoch() -> None:
        order = torch.randperm(len(X))
        for start in range(0, len(X) - BATCH + 1, BATCH):
            torch.index_select(X, 0, order[start : start + BATCH], out=buffer)
            loss = loss_of(encoder, decoder, buffer, noise_std)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def loader_epoch(X: torch.Tensor, noise_std: float) -> Callable[[], None]:
    """Return one epoch of the usual TensorDataset + DataLoader loop."""
    encoder, decoder = networks(X.shape[1])
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], LR)
    loader = DataLoader(TensorDataset(X), batch_size=BATCH, shuffle=True, drop_last=True)
    history: list[float] = []

    def epoch() -> None:
        for (x,) in loader:
            loss = loss_of(encoder, decoder, x, noise_std)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())

    return epoch


def products_epoch(X: torch.Tensor) -> Callable[[], None]:
    """Return the matrix products of one epoch alone: no loop in float32 can be faster."""
    widths = [X.shape[1], *HIDDEN, LATENT, *HIDDEN[::-1], X.shape[1]]
    layers = [
        (torch.rand(BATCH, a), torch.rand(b, a), torch.rand(BATCH, b)) for a, b in pairwise(widths)
    ]  # input, weight, gradient of the output
    forward = [torch.empty_like(gradient) for _, _, gradient in layers]
    backward = [(torch.empty_like(x), torch.empty_like(w)) for x, w, _ in layers]

    def epoch() -> None:
        for _ in range(len(X) // BATCH):
            for (x, weight, _), out in zip(layers, forward):
                torch.mm(x, weight.t(), out=out)
            for index in reversed(range(len(layers))):
                x, weight, gradient = layers[index]
                torch.mm(gradient.t(), x, out=backward[index][1])
                if index:  # the data need no gradient
                    torch.mm(gradient, weight, out=backward[index][0])

    return epoch


def seconds(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def harmonicvae_run(X: object, noise_std: float, turn: Callable[[float], None]) -> None:
    """Train for as many epochs as ``turn`` takes, handing each epoch's wall time over.

    The others take their turns inside the hook, so its own time is left out of ours.
    """
    clock = {"resumed": 0.0}

    def hook(_: object) -> None:
        turn(time.perf_counter() - clock["resumed"])
        clock["resumed"] = time.perf_counter()

    vae = HarmonicVAE(
        latent_dim=LATENT,
        hidden_dims=HIDDEN,
        encoder_std=STD,
        input_noise_std=noise_std,
        batch_size=BATCH,
        lr=LR,
        max_epochs=10**6,
        callbacks=[EpochHook(hook)],
        random_state=0,
        device="cpu",
    )
    clock["resumed"] = time.perf_counter()
    vae.fit(X)


class Enough(Exception):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", help="real CIFAR10; random images of its size without")
    parser.add_argument("--input-noise-std", type=float, default=0.0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.data_dir:
        X = load_cifar10(data_dir=options.data_dir, as_array=True).data
    else:
        X = np.random.default_rng(0).random((50_000, 3072), dtype=np.float32) * 2 - 1
    noise_std = options.input_noise_std
    tensor = torch.from_numpy(X)
    bare, loader = bare_epoch(tensor, noise_std), loader_epoch(tensor, noise_std)
    products = products_epoch(tensor)
    rounds: list[tuple[float, ...]] = []

    def turn(ours: float) -> None:
        rounds.append((ours, seconds(bare), seconds(loader), seconds(products)))
        if len(rounds) > options.rounds:
            raise Enough

    try:
        harmonicvae_run(X, noise_std, turn)
    except Enough:
        rounds = rounds[1:]  # the first round warms everything up
    ours, bares, loaders, floor = (median(column) for column in zip(*rounds))
    to_bare = median(row[0] / row[1] for row in rounds)
    to_loader = median(row[2] / row[0] for row in rounds)
    limit = median(row[2] / row[3] for row in rounds)
    print(f"threads {torch.get_num_threads()}, rounds {len(rounds)}, input noise {noise_std:g}")
    print(f"{'loop':<12}{'median s/epoch':>15}")
    for label, value in (
        ("HarmonicVAE", ours),
        ("bare", bares),
        ("loader", loaders),
        ("products", floor),
    ):
        print(f"{label:<12}{value:>15.2f}")
    print(f"HarmonicVAE / bare   {to_bare:.3f}  (goal <= 1.05)")
    print(f"loader / HarmonicVAE {to_loader:.3f}  (goal >= 1.5)")
    print(f"loader / products    {limit:.3f}  (no float32 loop can exceed it)")
    if options.json:
        figures = {
            "harmonicvae_seconds": ours,
            "bare_seconds": bares,
            "loader_seconds": loaders,
            "products_seconds": floor,
            "loader_over_products": limit,
            "harmonicvae_over_bare": to_bare,
            "loader_over_harmonicvae": to_loader,
            "rounds": len(rounds),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
