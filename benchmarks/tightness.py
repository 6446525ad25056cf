"""How tight the bounds of trained models are: norm product to LipSDP with propagated slopes.

Prints and writes one row a network: certified upper bounds by method and slope rule, the
bound inside the data's box, a sampled lower bound, gaps and seconds.

    python benchmarks/tightness.py MODEL [MODEL …] [--output results/tightness.csv]

MODEL is a model URI or the folder of a stored estimator.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from harmonicvae.lipschitz import bound, lower_bound
from harmonicvae.network import LayeredNetwork

#: Column, method and further arguments.
BOUNDS = (
    ("norm_product", "norm_product", {}),
    ("eclipse_fast", "eclipse_fast", {}),
    ("eclipse", "eclipse", {}),
    ("lipsdp_layer", "lipsdp_layer", {}),
    ("lipsdp_neuron", "lipsdp_neuron", {}),
    ("lipsdp_neuron_propagated", "lipsdp_neuron", {"slopes": "propagated"}),
)


def load(model: str):
    """Return the estimator of a model URI or folder."""
    if Path(model).is_dir():
        from harmonicvae.models.persistence import load_estimator

        return load_estimator(model)
    from harmonicvae.tracking.registry import load_model

    return load_model(model)


def measure(name: str, side: str, estimator) -> dict[str, float | str]:
    """Return one row."""
    network = LayeredNetwork.from_module(getattr(estimator, f"{side}_"))
    row: dict[str, float | str] = {
        "model": name,
        "side": side,
        "encoder_std": estimator.encoder_std,
        "input_noise_std": estimator.input_noise_std,
        "epochs": estimator.max_epochs,
        "dims": "-".join(map(str, (network.input_dim, *network.hidden_dims, network.output_dim))),
    }
    for column, method, options in BOUNDS:
        result = bound(network, method, **options)
        row[column] = result.value
        row[f"{column}_status"] = result.status
        row[f"{column}_seconds"] = result.seconds
        if "duality_gap" in result.details:
            row[f"{column}_gap"] = result.details["duality_gap"]
        if result.message:
            row[f"{column}_message"] = result.message
    if network.input_dim == 1:
        exact = bound(network, "interval")
        row["exact"], row["exact_seconds"] = exact.value, exact.seconds
    if side == "encoder":
        boxed = bound(network, "lipsdp_neuron", box=(-1.0, 1.0))
        row["lipsdp_neuron_box"], row["lipsdp_neuron_box_seconds"] = boxed.value, boxed.seconds
    lower = lower_bound(network)
    row["lower"], row["lower_seconds"] = lower.value, lower.seconds
    best = min([row[column] for column, _, _ in BOUNDS] + [row.get("exact", math.inf)])
    row["ratio"] = best / lower.value
    row["propagation_gain"] = row["lipsdp_neuron"] / row["lipsdp_neuron_propagated"]
    return row


def main() -> None:
    """Measure all models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sides", nargs="*", default=["decoder", "encoder"])
    parser.add_argument("--output", default="")
    parsed = parser.parse_args()
    rows = []
    for model in parsed.models:
        estimator = load(model)
        for side in parsed.sides:
            rows.append(measure(Path(model).name, side, estimator))
            print(pd.Series(rows[-1]).to_string(), "\n", flush=True)
            if parsed.output:
                pd.DataFrame(rows).to_csv(parsed.output, index=False)


if __name__ == "__main__":
    main()
