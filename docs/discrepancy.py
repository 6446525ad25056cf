"""Take the reproduction's reported constants apart: one error at a time, and all together.

    python docs/train_elsewhere.py export sinc FOLDER
    python docs/train_elsewhere.py train FOLDER --device cpu
    python docs/discrepancy.py FOLDER results/paper/sinc/discrepancy.csv

Every model in FOLDER/models, with the errors of its training, is bounded the right way
(LipSDP-Neuron, a sigmoid's slope range [0, ¼]) and with the reproduction's errors of
evaluation: the slope range [0, 1], the layer form of LipSDP, and single matrices (the
product of norms); of networks with one input the constant itself is found, too.  One row a
bound; begun again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.lipschitz import bound
from harmonicvae.models.persistence import load_estimator
from harmonicvae.network import LayeredNetwork

#: Evaluations of models trained the right way; the first is the right one.
EVALUATIONS = (
    ("lipsdp_neuron", "quarter"),
    ("lipsdp_neuron", "one"),
    ("lipsdp_layer", "quarter"),
    ("eclipse_fast", "quarter"),
    ("eclipse_fast", "one"),
    ("norm_product", "quarter"),
    ("norm_product", "one"),
)
#: Of models trained with errors.
OF_ERRORS = (
    ("lipsdp_neuron", "quarter"),
    ("norm_product", "one"),
    ("eclipse_fast", "one"),
)
KEYS = ["model", "training_errors", "side", "method", "slope"]


def sides(spec: dict[str, Any]) -> tuple[str, ...]:
    """Return the networks whose constant the study reports of a configuration."""
    if spec["input_noise_std"]:
        return ("encoder",)
    return ("encoder", "decoder") if spec["encoder_std"] == 0.5 else ("decoder",)


def network(folder: Path, side: str) -> LayeredNetwork:
    """Return one network of a kept model; factors stand for matrices of the same norms."""
    factors = folder / "factors.npz"
    if factors.exists():
        with np.load(factors) as stored:
            count = sum(key.startswith(side) for key in stored.files)
            matrices = [stored[f"{side}_{index}"].astype(float) for index in range(count)]
        return LayeredNetwork.from_arrays(matrices, activation="sigmoid")
    estimator = load_estimator(folder, device="cpu")
    return LayeredNetwork.from_module(getattr(estimator, f"{side}_"))


def rows(folder: Path, done: set[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return the bounds of one model that are not there yet."""
    told = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    spec = told["spec"]
    errors = "+".join(spec["reproduction_errors"]) or "none"
    model = folder.name.split(f"-{spec['reproduction_errors'][0]}")[0] if errors != "none" else ""
    found = []
    for side in sides(spec):
        settings = list(EVALUATIONS if errors == "none" else OF_ERRORS)
        if network(folder, side).input_dim == 1:
            settings.append(("interval", "quarter"))  # the constant itself, to 1e-4
        for method, slope in settings:
            key = (model or folder.name, errors, side, method, slope)
            if key in done:
                continue
            switch = ("slope_one",) if slope == "one" else ()
            result = bound(network(folder, side), method, switch)
            found.append(
                dict(zip(KEYS, key, strict=True))
                | {
                    name: spec[name]
                    for name in (names.DATASET, names.ENCODER_STD, names.INPUT_NOISE_STD)
                }
                | {
                    names.SEED: str(spec["seed"]),
                    names.EPOCHS: spec["epochs"],
                    "value": result.value,
                    "status": result.status,
                    "seconds": round(result.seconds, 3),
                    "device": told["machine"]["device"],
                    "data_digest": told["digest"],
                }
            )
    return found


def main() -> None:
    """Bound every model of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    former = pd.read_csv(options.output, dtype=str) if options.output.exists() else None
    done = set() if former is None else set(former[KEYS].itertuples(index=False, name=None))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for folder in sorted((options.folder / "models").iterdir()):
        if not (folder / "trained.json").exists():
            continue
        table = pd.DataFrame(rows(folder, done))
        if len(table):
            header = not options.output.exists()
            table.to_csv(options.output, mode="a", header=header, index=False)
        print(folder.name, len(table), flush=True)


if __name__ == "__main__":
    sys.exit(main())
