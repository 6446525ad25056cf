"""What a study says, in sentences: claimed, measured, explained, and the limits of all that.

Every number in a sentence is computed from the result files; a sentence that has nothing to
stand on is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.aggregation import single_dataset
from harmonicvae.report.discrepancy import SWITCHES, discrepancy_table
from harmonicvae.report.formatting import format_number
from harmonicvae.report.lipschitz_tables import lipschitz_table
from harmonicvae.report.results import Results
from harmonicvae.report.trends import trend_table

#: Training steps of the original study: complete batches of 256 an epoch, and epochs.
ORIGINAL_STEPS = {names.SINC: 16 * 100, names.CIFAR10: 195 * 200, names.CELEBA: 200 * 200}
BATCH = 256
#: Quantities of the trend sentences; the others stand in the table.
_TOLD = ("lower bound", "upper bound", "E‖J‖²", "mean degree", "share above 4 cycles")
_VERBS = {"falls": "falls", "rises": "rises", "unclear": "neither clearly falls nor rises"}
_NOISE = {"decoder": "σ_enc", "encoder": "σ_N"}
_EFFECTS = {
    "slope_1": "the slope range [0, 1] in place of a sigmoid's [0, ¼]",
    "single_matrices": "single matrices in place of the whole network",
    "layer_form": "the layer form of LipSDP in place of the neuron form",
    "squared_std": "σ² for σ in training",
    "noisy_target": "noisy reconstruction targets",
    "shared_noise": "one input noise for a whole batch",
    "kl_form": "the other form of the KL divergence",
}


def findings(results: Results) -> dict[str, list[str]]:
    """Return what a study says, as sentences under four headings.

    Parameters
    ----------
    results : Results

    Returns
    -------
    dict of str to list of str
        "Claimed", "Measured", "Explained", "Limits"; without those that have no sentence.
        Empty for a study without models or with several data sets.
    """
    if results.models.empty:
        return {}
    try:
        dataset = single_dataset(results.models)
        table = lipschitz_table(results.models)
    except InputError:
        return {}
    told = {
        "Claimed": list(_claimed(table)),
        "Measured": [*_measured(table), *_trends(results.models)],
        "Explained": list(_explained(results.discrepancy)),
        "Limits": list(_limits(results, dataset, table)),
    }
    return {heading: sentences for heading, sentences in told.items() if sentences}


def _ends(rows: pd.DataFrame, column: str) -> str:
    """Return the first and the last value of a column."""
    values = rows[column]
    return f"{values.iloc[0]:g} to {values.iloc[-1]:g}"


def _by_noise(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return the published rows of one side, the largest noise first."""
    varied = names.ENCODER_STD if side == "decoder" else names.INPUT_NOISE_STD
    rows = table[(table[names.SIDE] == side) & table["paper_mean"].notna()]
    return rows.sort_values(varied, ascending=False)


def _claimed(table: pd.DataFrame) -> Iterator[str]:
    if "paper_mean" not in table:
        return
    for side in names.SIDES[::-1]:
        rows = _by_noise(table, side)
        if len(rows) < 2:
            continue
        varied = names.ENCODER_STD if side == "decoder" else names.INPUT_NOISE_STD
        yield (
            f"As {_NOISE[side]} falls from {_ends(rows, varied)}, the paper's constant of the "
            f"{side} goes from {_ends(rows, 'paper_mean')}, that of the 2022 reproduction from "
            f"{_ends(rows, 'reproduction_mean')}."
        )


def _upper(table: pd.DataFrame) -> str | None:
    """Return the column of the smallest certified bound."""
    candidates = ("upper_best_mean", "upper_lipsdp_neuron_mean", "upper_mean")
    found = [name for name in candidates if name in table]
    others = [name for name in map(str, table) if re.fullmatch(r"upper_\w+_mean", name)]
    return next(iter([*found, *others]), None)


def _measured(table: pd.DataFrame) -> Iterator[str]:
    upper = _upper(table) if len(table) else None
    if upper is None or "lower_mean" not in table:
        return
    for side in names.SIDES[::-1]:
        rows = table[table[names.SIDE] == side]
        if len(rows):
            low, high = rows["lower_mean"], rows[upper]
            yield (
                f"The constants of the {side}s lie between lower bounds of "
                f"{format_number(low.min())} to {format_number(low.max())} and certified upper "
                f"bounds of {format_number(high.min())} to {format_number(high.max())} (means "
                "over seeds)."
            )
    rows = table[table["paper_mean"].notna()]
    if len(rows):
        inside = (rows["paper_mean"] >= rows["lower_mean"]) & (rows["paper_mean"] <= rows[upper])
        below = int((rows["paper_mean"] < rows["lower_mean"]).sum())
        above = len(rows) - int(inside.sum()) - below
        yield (
            f"The paper's value lies between our lower and upper bound in {int(inside.sum())} of "
            f"{len(rows)} cells, below the lower bound in {below}, above the upper bound in "
            f"{above}; the reproduction's lies above the upper bound in "
            f"{int((rows['reproduction_mean'] > rows[upper]).sum())}."
        )


def _trends(models: pd.DataFrame) -> Iterator[str]:
    table = trend_table(models)
    for _, row in table.iterrows() if len(table) else ():
        if row["quantity"] not in _TOLD:
            continue
        verb, interval = "changes", ""
        if np.isfinite(row["change_low"]):
            verb = _VERBS[row["verdict"]]
            interval = f", 95 % interval {row['change_low']:.3g} to {row['change_high']:.3g}"
        yield (
            f"From {row['varied']} = {row['smallest']:g} to {row['largest']:g} the "
            f"{row[names.SIDE]}'s {row['quantity']} {verb}: by the factor "
            f"{row['change']:.3g}{interval}; at every step in {row['in_order']} of {row['n']} "
            "seeds."
        )


def _explained(bounds: pd.DataFrame) -> Iterator[str]:
    if bounds.empty:
        return
    try:
        table = discrepancy_table(bounds)
    except InputError:  # the section of the factors says why
        return
    if table.empty or table["published"].isna().all():
        return
    table = table[table["published"].notna()]
    for switch in SWITCHES:
        values = table[switch].dropna()
        if switch in _EFFECTS and len(values):
            effect = _EFFECTS[switch]
            yield f"With {effect}: × {_range(values)}."
    if "constant_all_errors" in table:
        yield from _exact(table.dropna(subset=["constant", "constant_all_errors", "paper"]))
    whole = table.dropna(subset=["all_errors"])
    if whole.empty:
        return
    yield (
        f"All errors together: × {_range(whole['all_errors'] / whole['right'])}. The "
        f"reproduction's mean is {_range(whole['left_over'])} times what all errors give here; in "
        f"{int(whole['within'].sum())} of {len(whole)} cells one of our seeds lies within the "
        "reproduction's three."
    )


def _exact(rows: pd.DataFrame) -> Iterator[str]:
    """Say how the paper's values compare with constants that are known exactly."""
    for _, row in rows.iterrows():
        yield (
            f"The {row[names.SIDE]}'s constant is known exactly where it has one input: at σ_enc = "
            f"{row[names.ENCODER_STD]:g} it is {row['constant']:.3g}, of models trained with the "
            f"reproduction's errors {row['constant_all_errors']:.3g}; the paper reports "
            f"{row['paper']:g}."
        )


def _range(values: pd.Series) -> str:
    low, high = float(values.min()), float(values.max())
    texts = [f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def _limits(results: Results, dataset: str, table: pd.DataFrame) -> Iterator[str]:
    study, models = results.study, results.models
    seeds = models[names.SEED].nunique() if names.SEED in models else len(models)
    yield f"{seeds} seed{'s' * (seeds != 1)}: intervals over seeds are wide, and rightly so."
    if isinstance(study.get("n_train"), int) and isinstance(study.get("epochs"), int):
        steps = study["n_train"] // BATCH * study["epochs"]
        original = ORIGINAL_STEPS.get(dataset)
        if original and steps != original:
            yield (
                f"Trained for {steps} steps ({study['epochs']} epochs of {study['n_train']} "
                f"samples); the original study took {original}."
            )
        elif original:
            yield f"Trained for the original study's {original} steps."
    missing = study.get("missing_images")
    if isinstance(missing, int) and missing > 0:
        yield f"{missing} images listed by the data set were not at hand."
    if "ratio_mean" in table and table["ratio_mean"].notna().any():
        ratios = table["ratio_mean"].dropna()
        yield (
            "An upper bound is not the constant: the certified bounds are "
            f"{_range(ratios)} times the lower bounds."
        )
