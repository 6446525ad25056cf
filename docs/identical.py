"""Train the configuration that stands in both columns of the study again, and compare.

    python docs/identical.py STUDY_FOLDER results/paper/sinc/identical.json

STUDY_FOLDER is a study's result folder whose models are in the MLflow store at hand.  The two
columns share the configuration σ_enc = 0.5, σ_N = 0; the study trains it once.  Here it is trained
a second time for every seed: how far apart are two trainings of the same model?
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harmonicvae import load_model, names
from harmonicvae.machine import machine
from harmonicvae.report.configurations import select_models
from harmonicvae.report.results import load_results
from harmonicvae.study import ENCODER_COLUMN_STD, LATENT_DIMS
from harmonicvae.tracking.specs import DataSpec, ModelSpec


def difference(first: Any, second: Any) -> float:
    """Return the largest difference of two networks' weights, relative to the largest weight."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def main() -> None:
    """Train and compare every seed."""
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    results = load_results(source)
    name = results.study[names.DATASET]
    train = DataSpec(name=name).load("train")
    rows = []
    for row in select_models(results.models, (ENCODER_COLUMN_STD, 0.0)).to_dict("records"):
        spec = ModelSpec(
            dataset=name,
            encoder_std=ENCODER_COLUMN_STD,
            input_noise_std=0.0,
            seed=int(row[names.SEED]),
            epochs=int(row[names.EPOCHS]),
            latent_dim=LATENT_DIMS[name],
        )
        stored = load_model(row["model_uri"], device="cpu")
        again = spec.estimator(device="cpu").fit(train.data)
        rows.append(
            {
                names.SEED: str(spec.seed),
                "largest_relative_difference": difference(stored.net_.module_, again.net_.module_),
                "loss": float(stored.history_[names.TRAIN_LOSS].iloc[-1]),
                "loss_again": float(again.history_[names.TRAIN_LOSS].iloc[-1]),
            }
        )
        print(rows[-1], flush=True)
    worst = float(np.max([row["largest_relative_difference"] for row in rows]))
    found = {"dataset": name, "seeds": rows, "worst": worst, "machine": machine()}
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
