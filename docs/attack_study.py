"""Attack the study's models at many images, and repeat the reproduction's three slips once each.

    python docs/attack_study.py FOLDER results/paper/cifar10/table4.csv --data-dir DIR

FOLDER holds estimators (docs/train_elsewhere.py).  Every model of one seed without training
errors is attacked at the first validation images; then the model with σ_enc = 1 again as the
reproduction attacked its own: with the decoder of another seed ("mixed"), at images in [0, 1]
("unit_range"), and at images whose rows and columns a column-major reshape has exchanged
("transposed").  One row an image and radius; begun again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.attacks import (
    attack,
    log_likelihood_degradation,
    relative_damage,
    reproduction_log_ratio,
)
from harmonicvae.models.persistence import load_estimator
from harmonicvae.tracking.specs import DataSpec

VARIANTS = ("mixed", "unit_range", "transposed")


def models_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the models trained without errors, by name, with what they were trained as."""
    found = {}
    for path in sorted((folder / "models").iterdir()):
        told = path / "trained.json"
        if told.exists() and (path / "weights.pt").exists():
            spec = json.loads(told.read_text(encoding="utf-8"))["spec"]
            if not spec["reproduction_errors"]:
                found[path.name] = spec | {"path": path}
    return found


def attacked(
    encoder: Any, decoder: Any, images: np.ndarray, options: argparse.Namespace
) -> pd.DataFrame:
    """Return what the attack does at each image and radius."""
    started = time.perf_counter()
    results = attack(
        encoder,
        decoder,
        images,
        options.radii,
        options.method,
        random_state=0,
    )
    seconds = (time.perf_counter() - started) / len(images) / len(options.radii)
    parts = []
    for radius, result in zip(options.radii, results, strict=True):
        clean, hit = result.decoding, result.attacked_decoding
        parts.append(
            pd.DataFrame(
                {
                    names.IMAGE: range(len(images)),
                    names.RADIUS: radius,
                    "method": options.method,
                    names.DAMAGE: result.damage,
                    names.RELATIVE_DAMAGE: relative_damage(result.damage, clean),
                    names.DEGRADATION: log_likelihood_degradation(images, clean, hit),
                    names.REPRODUCTION_DEGRADATION: reproduction_log_ratio(clean, hit)[0],
                    "seconds": round(seconds, 4),
                }
            )
        )
    return pd.concat(parts)


def variant(
    name: str, encoder: Any, other: Any, images: np.ndarray, shape: tuple[int, ...]
) -> tuple[Any, np.ndarray]:
    """Return the decoder and the images of one of the reproduction's slips."""
    if name == "mixed":
        return other, images
    if name == "unit_range":
        return None, (images + 1) / 2
    pictures = images.reshape(-1, *shape)
    return None, np.ascontiguousarray(pictures.transpose(0, 2, 1, 3)).reshape(images.shape)


def main() -> None:
    """Attack every model of one seed, then the three variants."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dataset", default=names.CIFAR10)
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--variant-images", type=int, default=64)
    parser.add_argument("--radii", type=float, nargs="+", default=[10.0, 20.0])
    parser.add_argument("--method", default="apgd")
    options = parser.parse_args()
    bunch = DataSpec(name=options.dataset, data_dir=options.data_dir).load("validation")
    images = np.asarray(bunch.data[: options.images], dtype=np.float64)
    models = models_of(options.folder)
    seeds = list(dict.fromkeys(spec["seed"] for spec in models.values()))
    first = max(seeds, key=lambda seed: sum(m["seed"] == seed for m in models.values()))
    chosen = {name: spec for name, spec in models.items() if spec["seed"] == first}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.output.exists():
        former = pd.read_csv(options.output, usecols=["model", "variant"])
        done = set(former.itertuples(index=False, name=None))

    def keep(name: str, kind: str, spec: dict[str, Any], table: pd.DataFrame) -> None:
        cells = {names.MODEL: name, "variant": kind, names.SEED: str(spec["seed"])}
        cells |= {key: spec[key] for key in (names.ENCODER_STD, names.INPUT_NOISE_STD)}
        table = table.assign(**cells)[[*cells, *table.columns]]
        header = not options.output.exists()
        table.to_csv(options.output, mode="a", header=header, index=False)
        print(name, kind, f"{table['seconds'].iloc[0]:.3f} s an image and radius", flush=True)

    for name, spec in chosen.items():
        if (name, "right") not in done:
            vae = load_estimator(spec["path"], device="cpu")
            table = attacked(vae.encoder_, vae.decoder_, images, options)
            keep(name, "right", spec, table)
    (name, spec), *_ = [item for item in chosen.items() if item[1][names.ENCODER_STD] == 1.0]
    other = next(
        item["path"]
        for item in models.values()
        if item["seed"] != first and item[names.ENCODER_STD] == 1.0
    )
    for kind in VARIANTS:
        if (name, kind) in done:
            continue
        vae = load_estimator(spec["path"], device="cpu")
        foreign = load_estimator(other, device="cpu").decoder_
        few = images[: options.variant_images]
        decoder, changed = variant(kind, vae.encoder_, foreign, few, bunch.image_shape)
        table = attacked(vae.encoder_, decoder or vae.decoder_, changed, options)
        keep(name, kind, spec, table)


if __name__ == "__main__":
    sys.exit(main())
