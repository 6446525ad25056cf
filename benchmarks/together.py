"""Many models at once against one after another: time, memory and how equal the results are.

Both train the same estimators on the same rows with ``HarmonicVAE.fit`` and
``fit_together``; the differences compared are those of the final weights and losses, model
by model.  They take turns, fit by fit; the ratio is the median over rounds of sequential
over together, so > 1 means that together is faster.  Peak memory is that of a process of
its own for each (on a GPU: what torch allocated there).

Usage: python benchmarks/together.py [--dataset sinc] [--models 18] [--epochs 4]
       [--rounds 5] [--rows N] [--device cpu] [--threads N] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from harmonicvae import load_cifar10, load_sinc, names
from harmonicvae.exceptions import CollapseWarning
from harmonicvae.machine import machine
from harmonicvae.models import HarmonicVAE, fit_together, pays_together
from harmonicvae.models.groups import stack_size

RESULT = Path(__file__).parents[1] / "results" / "benchmarks" / "together.json"
#: The study's columns and one more, each with three seeds: 18 models.
SETTINGS = ((1.0, 0.0), (0.5, 0.0), (0.1, 0.0), (0.5, 1.0), (0.5, 0.5), (0.2, 0.0))
SEEDS = (14609714069366804553, 10209623728859046282, 13978253786968215756)
LATENT = {names.SINC: 1, names.CIFAR10: 64}


def data_of(options: argparse.Namespace) -> tuple[Any, str]:
    """Return the rows and where they come from."""
    if options.dataset == names.SINC:
        return load_sinc().data[: options.rows], "sinc"
    if options.data_dir:
        images = load_cifar10(data_dir=options.data_dir).data
        return images.rows(slice(0, options.rows)), "CIFAR10, 8-bit"
    rows = np.random.default_rng(0).random((options.rows or 50_000, 3072), dtype=np.float32)
    return rows * 2 - 1, "random numbers of CIFAR10's size, float32"


def grid(options: argparse.Namespace) -> list[HarmonicVAE]:
    pairs = [(std, noise, seed) for seed in SEEDS for std, noise in SETTINGS]
    return [
        HarmonicVAE(
            latent_dim=LATENT[options.dataset],
            encoder_std=std,
            input_noise_std=noise,
            max_epochs=options.epochs,
            random_state=seed,
            device=options.device,
        )
        for std, noise, seed in pairs[: options.models]
    ]


def sequential(estimators: list[HarmonicVAE], X: Any) -> None:
    for estimator in estimators:
        estimator.fit(X)


def seconds(function: Any, *arguments: Any) -> tuple[float, float]:
    """Return wall and processor seconds."""
    started = time.perf_counter(), time.process_time()
    function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def differences(first: HarmonicVAE, second: HarmonicVAE) -> dict[str, float]:
    """Return the largest relative differences of the final weights and of the losses."""
    pairs = zip(first.net_.module_.state_dict().values(), second.net_.module_.state_dict().values())
    weights = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    losses = [vae.history_[names.TRAIN_LOSS].to_numpy() for vae in (first, second)]
    return {"weights": weights, "losses": float(np.abs(losses[1] / losses[0] - 1).max())}


def peak_memory(mode: str, options: argparse.Namespace) -> float:
    """Return the peak memory, MiB, of one epoch in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", mode, "--epochs", "1"]
    for key in ("dataset", "models", "rows", "device", "threads", "data_dir"):
        value = getattr(options, key)
        command += [] if value is None else ["--" + key.replace("_", "-"), str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def memory_of(mode: str, options: argparse.Namespace) -> None:
    X, _ = data_of(options)
    (fit_together if mode == "together" else sequential)(grid(options), X)
    if options.device.startswith("cuda"):
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        status = Path("/proc/self/status").read_text()  # getrusage begins with the parent's peak
        print(int(status.partition("VmHWM:")[2].split()[0]) / 2**10)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    X, source = data_of(options)
    rounds, first, second = [], grid(options), grid(options)
    for index in range(options.rounds):  # who goes first takes turns, too
        if index % 2:
            together, alone = seconds(fit_together, second, X), seconds(sequential, first, X)
        else:
            alone, together = seconds(sequential, first, X), seconds(fit_together, second, X)
        rounds.append((alone, together))
        print(f"round {index + 1}: {alone[0]:.2f} s, {together[0]:.2f} s", flush=True)
    ratios = {
        key: [alone[clock] / together[clock] for alone, together in rounds]
        for clock, key in enumerate(("wall", "processor"))
    }
    found = [differences(*pair) for pair in zip(first, second)]
    latent = LATENT[options.dataset]
    described = {"latent_dim": latent, "device": first[0].net_.device}
    return {
        "dataset": options.dataset,
        "data": source,
        "rows": int(X.shape[0]),
        "models": options.models,
        "epochs": options.epochs,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "models_a_stack": stack_size(options.models, X.shape[1], **described),
        "pays_together": pays_together(options.models, X.shape[1], **described),
        "sequential_seconds": median(alone[0] for alone, _ in rounds),
        "together_seconds": median(together[0] for _, together in rounds),
        "ratio": median(ratios["wall"]),
        "processor_time_ratio": median(ratios["processor"]),
        "ratios": ratios,
        "largest_relative_difference": {
            key: [item[key] for item in found] for key in ("weights", "losses")
        },
        "peak_memory_mib": {
            mode: peak_memory(mode, options) for mode in ("sequential", "together")
        },
        "machine": machine(options.device),
    }


def store(figures: dict[str, Any], path: Path) -> None:
    """Replace the former run of the same kind and keep the others."""
    kind = ("dataset", "rows", "models", "epochs", "threads")

    def identity(run: dict[str, Any]) -> tuple[Any, ...]:
        return (*(run[key] for key in kind), run["machine"]["device"])

    former = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [run for run in former if identity(run) != identity(figures)] + [figures]
    path.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=sorted(LATENT), default=names.SINC)
    parser.add_argument("--models", type=int, default=18)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--data-dir", help="real CIFAR10; random numbers without")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--memory-of", choices=["sequential", "together"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore", CollapseWarning)  # a few epochs are too few
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        memory_of(options.memory_of, options)
        return
    figures = measure(options)
    memory, found = figures["peak_memory_mib"], figures["largest_relative_difference"]
    print(f"{'':<12}{'seconds':>10}{'peak MiB':>10}")
    for mode in ("sequential", "together"):
        print(f"{mode:<12}{figures[mode + '_seconds']:>10.2f}{memory[mode]:>10.0f}")
    print(
        f"sequential / together {figures['ratio']:.3f} (processor time "
        f"{figures['processor_time_ratio']:.3f}), {figures['models_a_stack']} models a stack"
    )
    print(
        f"largest relative difference: weights {max(found['weights']):.2g}, "
        f"losses {max(found['losses']):.2g}"
    )
    store(figures, options.json)


if __name__ == "__main__":
    main()
