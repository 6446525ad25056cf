"""How near the default attack comes to the best that any method finds with ten times its budget.

    python benchmarks/attack_quality.py MODEL [MODEL …] --dataset cifar10 --data-dir DIR
        [--radii 10 20] [--images 12] [--factor 10] [--json FILE]

MODEL is a model URI or the folder of a stored estimator. The default attack runs once; every
method then gets ``factor`` times its gradient evaluations an image, in more restarts.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from lipschitz import print_table
from tightness import load

from harmonicvae.attacks import ATTACKS, attack
from harmonicvae.datasets import load_dataset

#: Methods that no budget improves, or hardly: noise in 3,072 dimensions stays the floor.
FREE = ("linear", "random")


def larger(method: str, gradients: int, factor: int) -> dict[str, int]:
    """Return options that spend about so many gradient evaluations an image."""
    chosen = ATTACKS[method]()
    if method == "best":
        names = ("n_restarts", "n_refined")
        return {name: factor * getattr(chosen, name) for name in names}
    return {"n_restarts": max(1, round(gradients / chosen.n_steps))}


def measure(model: str, x: np.ndarray, radius: float, factor: int) -> dict[str, float | str]:
    """Return one row: the default attack over the best found."""
    estimator = load(model)
    pair = (estimator.encoder_, estimator.decoder_)
    started = time.perf_counter()
    default = attack(*pair, x, radius, random_state=0)
    seconds = time.perf_counter() - started
    budget = factor * default.gradient_evaluations
    found = {"best": default.damage}
    for method in ATTACKS:
        options = {} if method in FREE else larger(method, budget, factor)
        result = attack(*pair, x, radius, method, random_state=1, **options)
        found[f"{method} x{factor}"] = result.damage
    top = np.max(list(found.values()), axis=0)
    ratio = default.damage / top
    best_rival = max(found, key=lambda name: float(np.mean(found[name] / top)))
    return {
        "model": Path(model).name,
        "encoder_std": estimator.encoder_std,
        "C": radius,
        "images": len(x),
        "gradients": default.gradient_evaluations,
        "ratio": float(ratio.mean()),
        "least": float(ratio.min()),
        "best_rival": best_rival,
        "seconds_per_image": seconds / len(x),
        "damage": float(default.damage.mean()),
    }


def main() -> None:
    """Measure all models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--radii", type=float, nargs="*", default=[10.0, 20.0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--json", default="", help="file for the figures; rows are added to it")
    parsed = parser.parse_args()
    options = {} if parsed.data_dir is None else {"data_dir": parsed.data_dir}
    split = "train" if parsed.dataset == "sinc" else "validation"
    data = load_dataset(parsed.dataset, split, **options).data
    chosen = np.linspace(0, data.shape[0] - 1, parsed.images).astype(int)
    x = np.asarray(data[chosen], dtype=np.float64)
    rows = []
    for model in parsed.models:
        for radius in parsed.radii:
            row = measure(model, x, radius, parsed.factor)
            rows.append({"dataset": parsed.dataset, **row})
            print_table(rows[-1:])
    if parsed.json:
        path = Path(parsed.json)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        path.write_text(json.dumps(before + rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
