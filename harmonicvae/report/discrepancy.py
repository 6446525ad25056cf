"""The reproduction's constants taken apart: what each of its errors does to the reported number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.report.configurations import require_columns
from harmonicvae.report.reference import LIPSCHITZ, load_reference

#: The right way: LipSDP-Neuron with the sigmoid's own slope range.
RIGHT = ("none", "lipsdp_neuron", "quarter")
#: Column of the table → (errors of training, method, slope) that stand for it.
SWITCHES = {
    "slope_1": ("none", "lipsdp_neuron", "one"),
    "layer_form": ("none", "lipsdp_layer", "quarter"),
    "single_matrices": ("none", "norm_product", "quarter"),
    "squared_std": ("squared_std", "lipsdp_neuron", "quarter"),
    "noisy_target": ("noisy_target", "lipsdp_neuron", "quarter"),
    "shared_noise": ("shared_noise", "lipsdp_neuron", "quarter"),
    "kl_form": ("kl_form", "lipsdp_neuron", "quarter"),
    "evaluation": ("none", "norm_product", "one"),
}
#: All errors of training, then of evaluation.
ALL = ("squared_std+noisy_target+shared_noise+kl_form", "norm_product", "one")
#: The constant itself, of networks with one input: trained right, with σ², with all errors.
CONSTANTS = {
    "constant": ("none", "interval", "quarter"),
    "constant_squared_std": ("squared_std", "interval", "quarter"),
    "constant_all_errors": (ALL[0], "interval", "quarter"),
}
COLUMNS = (names.SIDE, names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED)


def discrepancy_table(bounds: pd.DataFrame, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the factor that every error has on the reported constant.

    Parameters
    ----------
    bounds : DataFrame
        One row a bound: dataset, side, encoder_std, input_noise_std, seed, training_errors
        ("none", or names joined by "+"), method, slope ("quarter" or "one"), value.
    reference : DataFrame or None, default=None
        Published values; None loads those of the package.

    Returns
    -------
    DataFrame
        One row a data set, side and configuration: right (LipSDP-Neuron, slopes of the
        sigmoid, models trained without errors; geometric mean over seeds); for each error
        its factor, the geometric mean over the seeds it was measured on of the value with
        it over the value without; evaluation (slope 1 and single matrices at once, on the
        right models); all_errors (value with all errors, of training too); published
        (the reproduction's mean), published_low, published_high (least and largest of
        its seeds), paper; left_over (published over all_errors), within (whether
        all_errors of some seed lies between the published seeds' least and largest). Where
        the constant itself is known (method "interval"): constant, constant_squared_std,
        constant_all_errors, geometric means over seeds of models trained right, with σ² for
        σ, and with all errors of training.
        NaN where it was not measured, not published or makes no difference by construction.

    Raises
    ------
    InputError
        If a column is missing.

    Notes
    -----
    Factors of single errors need not multiply to that of all: a model that is trained with
    all errors is another model.
    """
    needed = (names.DATASET, *COLUMNS, "training_errors", "method", "slope", "value")
    require_columns(bounds, needed, names.FILE_DISCREPANCY)
    reference = load_reference() if reference is None else reference
    rows = []
    keys = [names.DATASET, names.SIDE, names.ENCODER_STD, names.INPUT_NOISE_STD]
    for key, group in bounds.groupby(keys, sort=False):
        right = _values(group, RIGHT)
        if right.empty:
            continue
        row: dict[str, object] = dict(zip(keys, key, strict=True))
        row |= {"n": len(right), "right": _geometric_mean(right)}
        for switch, setting in SWITCHES.items():
            ratios = (_values(group, setting) / right).dropna()
            row[switch] = _geometric_mean(ratios)
        for column, setting in CONSTANTS.items():
            values = _values(group, setting)
            if len(values):
                row[column] = _geometric_mean(values)
        everything = _values(group, ALL)
        row |= _all_errors(everything, _published(reference, row))
        rows.append(row)
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    order = {"decoder": 0, "encoder": 1}
    table = table.assign(_side=table[names.SIDE].map(order)).sort_values(
        [names.DATASET, "_side", names.INPUT_NOISE_STD, names.ENCODER_STD],
        ascending=[True, True, False, False],
    )
    return table.drop(columns="_side").reset_index(drop=True)


def _values(group: pd.DataFrame, setting: tuple[str, str, str]) -> pd.Series:
    """Return the values of one setting that are numbers, by seed."""
    errors, method, slope = setting
    chosen = group[
        (group["training_errors"] == errors)
        & (group["method"] == method)
        & (group["slope"] == slope)
    ]
    numbers = pd.to_numeric(chosen["value"], errors="coerce").astype(np.float64)
    return numbers.set_axis(chosen[names.SEED].astype(str)).dropna()


def _geometric_mean(values: pd.Series) -> float:
    return float(np.exp(np.log(values).mean())) if len(values) else np.nan


def _published(reference: pd.DataFrame, row: dict[str, object]) -> dict[str, object]:
    """Return the reproduction's mean and range, and the paper's value."""
    same = reference[
        (reference["quantity"] == LIPSCHITZ)
        & (reference[names.DATASET] == row[names.DATASET])
        & (reference[names.SIDE] == row[names.SIDE])
        & (reference[names.ENCODER_STD] == row[names.ENCODER_STD])
        & (reference[names.INPUT_NOISE_STD] == row[names.INPUT_NOISE_STD])
    ]
    seeds = same[same["source"] == "reproduction"]["value"]
    paper = same[same["source"] == "paper"]["value"]
    return {
        "published": float(seeds.mean()) if len(seeds) else np.nan,
        "published_low": float(seeds.min()) if len(seeds) else np.nan,
        "published_high": float(seeds.max()) if len(seeds) else np.nan,
        "paper": float(paper.iloc[0]) if len(paper) else np.nan,
    }


def _all_errors(values: pd.Series, published: dict[str, object]) -> dict[str, object]:
    """Return what all errors together give, beside what was published."""
    mean = _geometric_mean(values)
    low, high = published["published_low"], published["published_high"]
    row: dict[str, object] = {"all_errors": mean, **published}
    row["left_over"] = published["published"] / mean if len(values) else np.nan  # type: ignore[operator]
    known = len(values) > 0 and not np.isnan(low)  # type: ignore[call-overload]
    row["within"] = bool(((values >= low) & (values <= high)).any()) if known else None
    return row
