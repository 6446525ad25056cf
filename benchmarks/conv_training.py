"""Seconds per epoch of ConvHarmonicVAE against a bare PyTorch loop of the same network.

"bare" is the smallest loop that does the same arithmetic on the same layers (one
permutation, rows gathered into a buffer, fused Adam); "usual" the same loop over the usual
layers with channels first, which first permutes each batch of rows. They take turns, epoch
by epoch, in one process; ratios are medians over rounds.

Usage: python benchmarks/conv_training.py --data-dir DIR [--rounds 5] [--rows 10240]
    [--json results/benchmarks/conv_training.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn.functional import mse_loss

from harmonicvae.datasets import load_cifar10
from harmonicvae.models import ConvHarmonicVAE, EpochHook

SHAPE, CHANNELS, BATCH, LATENT, STD, LR = (32, 32, 3), (8, 16, 32), 256, 64, 0.5, 1e-3


def our_networks() -> tuple[nn.Module, nn.Module]:
    """The layers of ConvHarmonicVAE, written out."""
    a, b, c = CHANNELS
    encoder = nn.Sequential(
        nn.Unflatten(1, (1, 32, 96)),
        *(nn.Conv2d(1, a, (3, 9), (2, 6), (1, 3)), nn.ELU()),
        *(nn.Conv2d(a, b, 3, 2, 1), nn.ELU()),
        *(nn.Conv2d(b, c, 3, 2, 1), nn.ELU()),
        *(nn.Flatten(), nn.Linear(16 * c, LATENT)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(LATENT, 16 * c), nn.ELU(), nn.Unflatten(1, (c, 4, 4))),
        *(nn.ConvTranspose2d(c, b, 3, 2, 1, 1), nn.ELU()),
        *(nn.ConvTranspose2d(b, a, 3, 2, 1, 1), nn.ELU()),
        *(nn.ConvTranspose2d(a, 1, (3, 9), (2, 6), (1, 3), (1, 3)), nn.Flatten()),
    )
    return encoder, decoder


def usual_networks() -> tuple[nn.Module, nn.Module]:
    """The same maps with channels first."""
    encoder, decoder = our_networks()
    a = CHANNELS[0]
    return (
        nn.Sequential(nn.Conv2d(3, a, 3, 2, 1), *encoder[2:]),
        nn.Sequential(*decoder[:-2], nn.ConvTranspose2d(a, 3, 3, 2, 1, 1)),
    )


def epoch_of(
    networks: tuple[nn.Module, nn.Module], X: torch.Tensor, channels_first: bool
) -> Callable[[], None]:
    """Return one epoch of a bare loop."""
    encoder, decoder = networks
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], LR, fused=True)
    buffer = torch.empty(BATCH, X.shape[1])

    def epoch() -> None:
        order = torch.randperm(len(X))
        for start in range(0, len(X) - BATCH + 1, BATCH):
            torch.index_select(X, 0, order[start : start + BATCH], out=buffer)
            x = buffer
            if channels_first:
                x = buffer.view(-1, *SHAPE).permute(0, 3, 1, 2).contiguous()
            mean = encoder(x)
            z = mean + STD * torch.randn_like(mean)
            error = mse_loss(decoder(z), x, reduction="sum")
            loss = (error + 0.5 * mean.square().sum()) / BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def seconds(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


class Enough(Exception):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_240)
    parser.add_argument("--data-dir", required=True, help="real CIFAR10")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    X = load_cifar10(data_dir=options.data_dir).data[: options.rows]
    tensor = torch.from_numpy(X)
    bare = epoch_of(our_networks(), tensor, channels_first=False)
    usual = epoch_of(usual_networks(), tensor, channels_first=True)
    rounds: list[tuple[float, ...]] = []
    clock = {"resumed": 0.0}

    def hook(_: object) -> None:
        ours = time.perf_counter() - clock["resumed"]
        rounds.append((ours, seconds(bare), seconds(usual)))
        if len(rounds) > options.rounds:
            raise Enough
        clock["resumed"] = time.perf_counter()

    vae = ConvHarmonicVAE(
        latent_dim=LATENT,
        image_shape=SHAPE,
        channels=CHANNELS,
        encoder_std=STD,
        batch_size=BATCH,
        lr=LR,
        max_epochs=10**6,
        callbacks=[EpochHook(hook)],
        random_state=0,
        device="cpu",
    )
    clock["resumed"] = time.perf_counter()
    try:
        vae.fit(X)
    except Enough:
        rounds = rounds[1:]  # the first round warms everything up
    ours, bares, usuals = (median(column) for column in zip(*rounds))
    to_bare = median(row[0] / row[1] for row in rounds)
    to_usual = median(row[0] / row[2] for row in rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"threads {torch.get_num_threads()}, rounds {len(rounds)}, rows {len(X)}")
    print(f"{'loop':<18}{'median s/epoch':>15}")
    for label, value in (("ConvHarmonicVAE", ours), ("bare", bares), ("usual", usuals)):
        print(f"{label:<18}{value:>15.2f}")
    print(f"ConvHarmonicVAE / bare   {to_bare:.3f}  (goal <= 1.1)")
    print(f"ConvHarmonicVAE / usual  {to_usual:.3f}  (channels first, permuted each batch)")
    print(f"peak memory of the process {peak:.2f} GiB")
    if options.json:
        figures = {
            "conv_harmonicvae_seconds": ours,
            "bare_seconds": bares,
            "usual_seconds": usuals,
            "conv_harmonicvae_over_bare": to_bare,
            "conv_harmonicvae_over_usual": to_usual,
            "peak_memory_gib": peak,
            "rows": len(X),
            "rounds": len(rounds),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
