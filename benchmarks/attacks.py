"""Our maximum-damage attacks against foolbox, ART and SciPy, in one run.

All maximise F(δ) = ‖g(p(x+δ)) − g(p(x))‖₂ over ‖δ‖₂ ≤ C without a pixel box, with the same
number of gradient evaluations an image, and are judged by the same float64 evaluation after
the same exact projection.  The models are a VAE trained here on scikit-learn's digits, and a
CIFAR-10 model where one is given:

    python benchmarks/attacks.py [--model URI_OR_FOLDER --data-dir DIR] [--json FILE]

Columns: "ratio" is the mean over images of the damage, divided by the best found by any
method of the run ("least" the smallest); "ahead" counts the images where a rival exceeds the
best of our methods within the budget by more than 10⁻⁶ of it, and "lead" is the largest such
excess, relative; "gradients" and "s_image" are for each image.  Methods marked "10x" have ten
times the restarts: they raise the best that all are divided by.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from attack_rivals import RIVALS, Budget, Target, missing
from lipschitz import matmul_rate, print_table

#: Rivals that go image by image, in Python.
SLOW = ("scipy slsqp", "scipy trust-constr")

#: Methods that are also given ten times the restarts, with ``--reference``.
REFERENCE = ("foolbox pgd 0.1", "foolbox pgd 0.5", "art pgd 0.333")

#: Relative lead that counts as better.
LEAD = 1e-6


@dataclass
class Row:
    """What one method reached on one case."""

    case: str
    radius: float
    method: str
    damage: np.ndarray
    gradients: float
    s_image: float
    ours: bool
    budgeted: bool = True
    note: str = ""


@dataclass
class Case:
    """A pair of modules with the images and radii to attack, and how many SciPy is given."""

    name: str
    encode: object
    decode: object
    x: np.ndarray
    radii: list[float]
    slow: int


def digits_case(images: int, slow: int, epochs: int, radii: list[float]) -> Case:
    """Train a VAE on the digits; the last ``images`` are held out and attacked."""
    from sklearn.datasets import load_digits

    from harmonicvae.models import HarmonicVAE

    x = (load_digits().data / 8 - 1).astype(np.float32)
    vae = HarmonicVAE(
        latent_dim=8,
        hidden_dims=(128, 128),  # three layers of 256 collapse with so few images
        encoder_std=0.5,
        lr=3e-3,
        max_epochs=epochs,
        random_state=0,
        device="cpu",
    ).fit(x[:-images])
    return Case("digits", vae.encoder_, vae.decoder_, x[-images:], radii, slow)


def cifar_case(model: str, data_dir: str, images: int, slow: int, radii: list[float]) -> Case:
    """Load a stored model and the first test images."""
    from tightness import load

    from harmonicvae.datasets import load_dataset

    estimator = load(model)
    data = load_dataset("cifar10", "test", data_dir=data_dir).data
    name = f"cifar10 {estimator.encoder_std:g}"
    x = np.asarray(data[:images])
    encode, decode = (getattr(estimator, part).cpu() for part in ("encoder_", "decoder_"))
    return Case(name, encode, decode, x, radii, slow)


# ------------------------------------------------------------------------------ our methods


def our_options(method: str, target: Target, budget: Budget) -> dict[str, int]:
    """Return options with which a method of ours stays within the gradient evaluations.

    Numbers of starts are the method's own, in proportion to the budget; ``n_steps`` is then
    fitted, with a count that is linear in it, measured on one image.
    """
    from harmonicvae.attacks import ATTACKS

    known = inspect.signature(ATTACKS[method].__init__).parameters
    starts = [name for name in ("n_restarts", "n_refined") if name in known]
    own = run_ours(method, target.first(1), {})[1]  # gradient evaluations by default
    share = budget.evaluations / max(1000, own)
    options = {name: max(1, round(share * known[name].default)) for name in starts}
    if "n_steps" not in known:
        return options
    few, many = (run_ours(method, target.first(1), options | {"n_steps": n})[1] for n in (10, 20))
    each = max(1.0, (many - few) / 10)
    return options | {"n_steps": max(1, int((budget.evaluations - few) / each + 10))}


def run_ours(method: str, target: Target, options: dict[str, int], seed: int = 0):
    """Return proposals and gradient evaluations an image of one of our methods."""
    import torch

    from harmonicvae.attacks import attack

    result = attack(
        target.encode,
        target.decode,
        target.x.numpy(),
        target.radius,
        method,
        random_state=seed,
        **options,
    )
    return torch.from_numpy(result.perturbation)[:, None], result.gradient_evaluations


def measure_ours(case: Case, radius: float, budget: Budget, methods: list[str]) -> list[Row]:
    """Run our methods on one case and radius."""
    target = Target(case.encode, case.decode, case.x, radius)
    rows = []
    for method in methods:
        options = our_options(method, target, budget)
        started = time.perf_counter()
        proposals, count = run_ours(method, target, options, budget.seed)
        seconds = (time.perf_counter() - started) / len(case.x)
        within = count <= budget.evaluations
        note = " ".join(f"{key}={value}" for key, value in options.items())
        note += "" if within else " OVER BUDGET"
        row = Row(case.name, radius, f"our {method}", target.judge(proposals), count, seconds, True)
        row.note, row.budgeted = note, within
        rows.append(row)
    return rows


# ----------------------------------------------------------------------------------- rivals


def measure_rival(case: Case, radius: float, budget: Budget, name: str) -> Row:
    """Run one rival on one case and radius."""
    count = min(len(case.x), case.slow) if name in SLOW else len(case.x)
    target = Target(case.encode, case.decode, case.x[:count], radius)
    started = time.perf_counter()
    proposals = RIVALS[name][1](target, budget)
    seconds = (time.perf_counter() - started) / count
    spent = target.gradients / count
    row = Row(case.name, radius, name, target.judge(proposals), spent, seconds, False)
    if name in SLOW and spent < 0.999 * budget.evaluations:
        row.note = f"stopped by the limit of {budget.seconds:g} s an image"
    return row


def measure(case: Case, radius: float, budget: Budget, parsed: argparse.Namespace) -> list[Row]:
    """Run all methods on one case and radius."""
    rows = measure_ours(case, radius, budget, parsed.methods)
    rivals = [name for name in parsed.rivals if name not in SLOW or case.slow]
    rows += [measure_rival(case, radius, budget, name) for name in rivals]
    if parsed.reference:
        more = replace(budget, n_restarts=10 * budget.n_restarts, seed=budget.seed + 1)
        large = measure_ours(
            case, radius, more, [m for m in ("best", "apgd") if m in parsed.methods]
        )
        large += [measure_rival(case, radius, more, n) for n in REFERENCE if n in parsed.rivals]
        for row in large:
            row.method, row.budgeted = f"{row.method} 10x", False
        rows += large
    return rows


def summary(rows: list[Row]) -> list[dict[str, object]]:
    """Return the printed table of one case and radius."""
    images = max(len(row.damage) for row in rows)
    best, ours = np.zeros(images), np.zeros(images)
    for row in rows:
        count = len(row.damage)
        best[:count] = np.maximum(best[:count], row.damage)
        if row.ours and row.budgeted:
            ours[:count] = np.maximum(ours[:count], row.damage)
    return [_line(row, best[: len(row.damage)], ours[: len(row.damage)]) for row in rows]


def _line(row: Row, best: np.ndarray, ours: np.ndarray) -> dict[str, object]:
    ratio = np.divide(row.damage, best, out=np.ones_like(best), where=best > 0)
    lead = np.divide(row.damage, ours, out=np.ones_like(ours), where=ours > 0) - 1
    return {
        "case": row.case,
        "C": row.radius,
        "method": row.method,
        "images": len(row.damage),
        "ratio": f"{ratio.mean():.5f}",
        "least": f"{ratio.min():.4f}",
        "damage": float(row.damage.mean()),
        "ahead": "" if row.ours else int((lead > LEAD).sum()),
        "lead": "" if row.ours else f"{lead.max():.1e}",
        "gradients": float(row.gradients),
        "s_image": float(row.s_image),
        "note": row.note,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    from harmonicvae.attacks import ATTACKS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=[], help="CIFAR-10 model URIs or folders")
    parser.add_argument("--data-dir", default="", help="folder of cifar-10-batches-py")
    parser.add_argument("--no-digits", action="store_true")
    parser.add_argument("--images", type=int, default=64, help="digits")
    parser.add_argument("--cifar-images", type=int, default=16)
    parser.add_argument("--radii", type=float, nargs="*", default=[1.0, 3.0, 6.0])
    parser.add_argument("--cifar-radii", type=float, nargs="*", default=[10.0, 20.0])
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=300, help="of the digits VAE")
    parser.add_argument("--scipy-images", type=int, nargs=2, default=[8, 1], help="digits, CIFAR")
    parser.add_argument("--scipy-seconds", type=float, default=120.0, help="limit for one image")
    parser.add_argument("--methods", nargs="*", default=list(ATTACKS) or ["apgd"])
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=list(RIVALS))
    parser.add_argument("--reference", action="store_true", help="add runs at 10x the restarts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="", help="file for the figures")
    parsed = parser.parse_args()
    if parsed.model and not parsed.data_dir:
        parser.error("--model needs --data-dir")
    for module in {RIVALS[name][0] for name in parsed.rivals}:
        if problem := missing(module):
            print(f"left out: {problem}")
            parsed.rivals = [name for name in parsed.rivals if RIVALS[name][0] != module]
    return parsed


def main() -> None:
    """Run all cases."""
    parsed = parse()
    budget = Budget(parsed.restarts, parsed.steps, parsed.scipy_seconds, parsed.seed)
    few, fewer = parsed.scipy_images
    cases = []
    if not parsed.no_digits:
        cases.append(digits_case(parsed.images, few, parsed.epochs, parsed.radii))
    for model in parsed.model:
        radii = parsed.cifar_radii
        cases.append(cifar_case(model, parsed.data_dir, parsed.cifar_images, fewer, radii))
    rate = matmul_rate()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
        f"float64 products: {rate:.3g} GFLOP/s; {budget.evaluations} gradients an image\n"
    )
    table, rows = [], []
    for case in cases:
        measure_ours(replace(case, x=case.x[:1]), 1.0, Budget(10, 10), ["apgd"])  # warm-up
        for radius in case.radii:
            found = measure(case, radius, budget, parsed)
            rows += found
            table += summary(found)
            print_table(summary(found))
            print(flush=True)
            if parsed.json:
                write(Path(parsed.json), budget, rate, table, rows)


def _number(value: object) -> object:
    """Return printed figures as numbers, and other values as they are."""
    try:
        return float(value)
    except ValueError:
        return value


def write(path: Path, budget: Budget, rate: float, table: list[dict], rows: list[Row]) -> None:
    """Write the table, and the damage of every image, as JSON."""
    figures = {"cores": os.cpu_count(), "matmul_gflops": rate, "budget": asdict(budget)}
    figures["cases"] = [
        {key: _number(value) for key, value in line.items()}
        | {"budgeted": row.budgeted, "image_damage": row.damage.tolist()}
        for line, row in zip(table, rows)
    ]
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
