"""The study's tables as Markdown, from the files in results/paper alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.report import (
    discrepancy_table,
    lipschitz_table,
    training_table,
    trend_table,
)
from harmonicvae.report.configurations import select_models
from harmonicvae.report.formatting import format_mean_sd, format_number, presentation
from harmonicvae.report.harmonic_tables import harmonic_table
from harmonicvae.report.reference import load_reference
from harmonicvae.report.results import Results, load_results

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "results" / "paper"
CONVOLUTIONS = ROOT / "results" / "conv"
TITLES = {names.SINC: "sinc", names.CIFAR10: "CIFAR10", names.CELEBA: "CelebA"}
TABLE_4 = STUDIES / names.CIFAR10 / "table4.csv"
#: Columns of the tables of constants, in this order.
_CONSTANTS = (
    names.SIDE,
    names.ENCODER_STD,
    names.INPUT_NOISE_STD,
    "n",
    "lower",
    "upper_lipsdp_neuron",
    "upper_best",
    "upper_eclipse_fast",
    "upper_norm_product",
    "paper",
    "reproduction",
)


def studies() -> dict[str, Results]:
    """Return the studies of paper length on record, by data set."""
    return {
        name: load_results(STUDIES / name)
        for name in TITLES
        if (STUDIES / name / names.FILE_STUDY).exists()
    }


def convolutions() -> dict[str, Results]:
    """Return the studies of convolutional networks on record, by title."""
    return {
        f"{TITLES[folder.name]} with convolutions": load_results(folder)
        for folder in sorted(CONVOLUTIONS.glob("*"))
    }


def titled(found: dict[str, Results]) -> dict[str, Results]:
    """Return the studies of paper length by title, those of convolutions last."""
    return {TITLES[name]: results for name, results in found.items()} | convolutions()


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts as Markdown."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def training(results: Results) -> str:
    """Return the fit of each configuration."""
    return markdown(presentation(training_table(results.models)))


def constants(results: Results) -> str:
    """Return lower and upper bounds of each cell beside the published values."""
    table = lipschitz_table(results.models)
    kept = [
        column
        for stem in _CONSTANTS
        for column in (stem, f"{stem}_mean", f"{stem}_sd", f"{stem}_n")
        if column in table
    ]
    shown = presentation(table[kept])
    return markdown(shown.rename(columns={"upper: smallest": "upper: best, with ranges"}))


def short_constants(results: Results) -> str:
    """Return what the study page shows: a network a row, no sd of what is a side issue."""
    table = lipschitz_table(results.models)
    wanted = {
        "lower": "lower bound",
        "upper_lipsdp_neuron": "upper: LipSDP-Neuron",
        "upper_best": "upper: best, with ranges",
        "upper_norm_product": "norm product",
        "paper": "paper",
        "reproduction": "reproduction",
    }
    stems = [stem for stem in wanted if f"{stem}_mean" in table]
    kept = [column for stem in stems for column in (f"{stem}_mean", f"{stem}_sd")]
    shown = presentation(table[kept])
    shown.columns = [wanted[stem] for stem in stems]
    shown.insert(0, "network", [_cell(row) for _, row in table.iterrows()])
    return markdown(shown)


def trends(results: Results, quantities: tuple[str, ...] = ()) -> str:
    """Return whether the quantities fall with σ."""
    table = trend_table(results.models)
    if quantities:
        table = table[table["quantity"].isin(quantities)]
    rows = [
        {
            "side": row[names.SIDE],
            "quantity": row["quantity"],
            "σ": f"{row['varied']}: {row['smallest']:g} → {row['largest']:g}",
            "seeds in order": f"{row['in_order']} of {row['n']}",
            "largest σ / smallest": f"{row['change']:.3g}",
            "95 % interval": f"{row['change_low']:.3g} to {row['change_high']:.3g}",
            "verdict": row["verdict"],
        }
        for _, row in table.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def harmonics(results: Results) -> str:
    """Return the harmonic analysis of each cell."""
    return markdown(presentation(harmonic_table(results.models)))


def discrepancy(results: Results) -> str:
    """Return the factor of every error of the reproduction."""
    table = discrepancy_table(results.discrepancy)
    table = table[table["published"].notna()]
    rows = []
    for _, row in table.iterrows():
        factor = {
            "slope 1": row["slope_1"],
            "single matrices": row["single_matrices"],
            "layer form": row["layer_form"],
            "σ² for σ": row["squared_std"],
            "noisy target": row["noisy_target"],
            "shared noise": row["shared_noise"],
            "KL form": row["kl_form"],
        }
        rows.append(
            {
                "network": _cell(row),
                "done right": format_number(row["right"]),
                **{f"× {key}": _factor(value) for key, value in factor.items()},
                "all errors": format_number(row["all_errors"]),
                "reproduction (its seeds)": f"{format_number(row['published'])} "
                f"({format_number(row['published_low'])}–{format_number(row['published_high'])})",
                "reproduction / all errors": f"{row['left_over']:.2f}",
            }
        )
    return markdown(pd.DataFrame(rows))


def _cell(row: Any) -> str:
    if row[names.SIDE] == "decoder":
        return f"decoder, σ_enc = {row[names.ENCODER_STD]:g}"
    return f"encoder, σ_N = {row[names.INPUT_NOISE_STD]:g}"


def _factor(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"


def table_4() -> pd.DataFrame:
    """Return the attack at many images: one row a configuration and radius, plain numbers."""
    attacks = pd.read_csv(TABLE_4)
    keys = ["variant", names.ENCODER_STD, names.INPUT_NOISE_STD, names.RADIUS]
    measured = [
        names.DAMAGE,
        names.RELATIVE_DAMAGE,
        names.DEGRADATION,
        names.REPRODUCTION_DEGRADATION,
    ]
    groups = attacks.groupby(keys, sort=False)
    table = groups[measured].agg(["mean", "std"])
    table.columns = [f"{name}_{'sd' if part == 'std' else 'mean'}" for name, part in table.columns]
    table.insert(0, "images", groups.size())
    return table.reset_index()


def degradations(source: str) -> np.ndarray:
    """Return the published degradations of table 4, the smaller radius first."""
    table = load_reference()
    same = (table["quantity"] == names.DEGRADATION) & (table["source"] == source)
    return table[same].sort_values(names.RADIUS)["value"].to_numpy(dtype=float)


def attacks(variants: bool = False) -> str:
    """Return table 4: every σ, or the reproduction's slips."""
    table = table_4()
    wanted = table["variant"] != "right" if variants else table["variant"] == "right"
    rows = []
    for _, row in table[wanted].iterrows():
        first = {"variant": row["variant"]} if variants else {}
        rows.append(
            first
            | {
                "σ_enc": f"{row[names.ENCODER_STD]:g}",
                "σ_N": f"{row[names.INPUT_NOISE_STD]:g}",
                "C": f"{row[names.RADIUS]:g}",
                "images": int(row["images"]),
                "damage": _mean_sd(row, names.DAMAGE),
                "damage / ‖g(p(x))‖": _mean_sd(row, names.RELATIVE_DAMAGE),
                "degradation (authors')": _mean_sd(row, names.DEGRADATION),
                "reproduction's formula": _mean_sd(row, names.REPRODUCTION_DEGRADATION),
            }
        )
    return markdown(pd.DataFrame(rows))


def _mean_sd(row: pd.Series, name: str) -> str:
    return format_mean_sd(float(row[f"{name}_mean"]), float(row[f"{name}_sd"]))


def identical(results: Results) -> dict[str, float] | None:
    """Return how far two trainings of the shared configuration are apart, where it is on record."""
    path = results.folder / "identical.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def cell(results: Results, pair: tuple[float, float], column: str) -> np.ndarray:
    """Return one quantity of the models of one configuration, a value a seed."""
    return select_models(results.models, pair)[column].to_numpy(dtype=float)


def degree_identity(results: Results) -> pd.DataFrame:
    """Return Σ k·W_k over σ²·E‖J‖², which is 1 where all degrees are summed.

    One row a model, side, centre and σ: share (of degrees up to the last one fitted), least
    (the same with the weight beyond counted at the next degree, a lower bound of the whole),
    tail (that weight's share of the variance), excess (Σ k times the lower ends of the
    intervals of W_k, over the upper end of σ²·E‖J‖²; above 1 the identity is refuted).
    """
    keys = [names.MODEL, names.SIDE, names.CENTRE, names.STD]
    weights = results.spectra[results.spectra[names.SPECTRUM] == "hermite"]
    degrees = weights.assign(
        total=weights["abscissa"] * weights["value"], low=weights["abscissa"] * weights["lower"]
    )
    sums = degrees.groupby(keys)[["total", "low"]].sum()
    table = pd.read_csv(results.folder / names.FILE_HARMONICS)
    table = table[table[names.SPECTRUM] == "hermite"]
    numbers = table.pivot_table(index=keys, columns="quantity", values=["value", "upper"])
    scale = np.square(sums.index.get_level_values(names.STD).astype(float))
    energy = numbers["value"]["jacobian_energy"].reindex(sums.index) * scale
    upper = numbers["upper"]["jacobian_energy"].reindex(sums.index) * scale
    beyond = numbers["value"]["tail"].reindex(sums.index)
    following = weights["abscissa"].max() + 1
    return pd.DataFrame(
        {
            "share": sums["total"] / energy,
            "least": (sums["total"] + following * beyond) / energy,
            "tail": beyond / numbers["value"]["variance"].reindex(sums.index),
            "excess": sums["low"] / upper,
        }
    ).reset_index()


def identity(found: dict[str, Results]) -> str:
    """Return the degree identity over all trained models on record."""
    rows = []
    for name, results in found.items():
        table = degree_identity(results)
        for (side, centre), group in table.groupby([names.SIDE, names.CENTRE]):
            small = group[group["tail"] < 1e-3]
            rows.append(
                {
                    "data": TITLES.get(name, name),
                    "network": f"{side}, around {centre}",
                    "spectra": len(group),
                    "share up to degree 8": f"{group['share'].min():.3f} to "
                    f"{group['share'].max():.3f}",
                    "tail below 0.1 %": len(small),
                    "their share": f"{small['share'].min():.3f} to {small['share'].max():.3f}"
                    if len(small)
                    else "–",
                    "largest excess": f"{group['excess'].max():.3f}",
                }
            )
    return markdown(pd.DataFrame(rows))
