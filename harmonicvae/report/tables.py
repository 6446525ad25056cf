"""The tables of a study: flat result tables in, one table a question out.

Every function takes and gives DataFrames with plain numbers; ``presentation``,
``to_terminal`` and ``to_html`` turn them into text.  A standard deviation is
that of the sample (ddof 1) over models, and NaN for a single one.
"""

import re
from typing import cast

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_cells,
    require_columns,
    select_models,
    study_columns,
)
from harmonicvae.report.formatting import format_mean_sd, format_number, presentation
from harmonicvae.report.reference import (
    degradation_reference,
    lipschitz_reference,
    load_reference,
)
from harmonicvae.report.rendering import to_html, to_terminal

__all__ = [
    "attack_table",
    "bounds_table",
    "collapse_table",
    "configuration_table",
    "format_mean_sd",
    "format_number",
    "lipschitz_methods",
    "lipschitz_table",
    "presentation",
    "study_columns",
    "to_html",
    "to_terminal",
    "training_table",
]

#: Methods that come first in the Lipschitz table, in this order.
METHOD_ORDER = ("norm_product", "eclipse_fast")


def configuration_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return which configurations were trained, how often and for how long.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        One row a configuration: encoder_std, input_noise_std, column (the
        columns of the study it stands in), n (models), epochs, seeds.

    Raises
    ------
    InputError
        If ``encoder_std`` or ``input_noise_std`` is not a column.
    """
    columns = study_columns(models)
    rows = []
    for configuration in all_configurations(columns):
        chosen = select_models(models, configuration)
        sides = [side for side, members in columns.items() if configuration in members]
        row = configuration_cells(configuration) | {"column": " + ".join(sides), "n": len(chosen)}
        for name in (names.EPOCHS, names.SEED):
            if name in models:
                row[name] = ", ".join(dict.fromkeys(map(format_number, chosen[name].tolist())))
        rows.append(row)
    return pd.DataFrame(rows).rename(columns={names.SEED: "seeds"})


def lipschitz_methods(models: pd.DataFrame, side: str) -> list[str]:
    """Return the methods with an upper bound of this side's network, in the table's order.

    Examples
    --------
    >>> lipschitz_methods(pd.DataFrame({"lipschitz_upper_l2_decoder_norm_product": [2.0]}),
    ...                   "decoder")
    ['norm_product']
    """
    pattern = re.compile(re.escape(names.lipschitz_upper(side)) + r"_(\w+)")
    found = [match[1] for match in map(pattern.fullmatch, map(str, models.columns)) if match]
    known = [method for method in METHOD_ORDER if method in found]
    return known + sorted(set(found) - set(known))


def lipschitz_table(models: pd.DataFrame, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the Lipschitz constants of both columns beside the published ones.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).
    reference : DataFrame or None, default=None
        Published values; None loads those of the package.

    Returns
    -------
    DataFrame
        One row a side and configuration: side, encoder_std, input_noise_std, n
        and, each with _mean, _sd and _n: lower, upper_<method> for every method
        (upper if there is only the best one), ratio, reproduction, paper.  The
        unit is output per input unit (ℓ2); the ratio has none.  No rows if
        ``models`` holds no Lipschitz column.

    Raises
    ------
    InputError
        If ``models`` mixes data sets or lacks the configuration columns.

    Notes
    -----
    The mean leaves out missing (NaN) entries, and ``_n`` counts the rest; an
    infinite upper bound makes the mean infinite.
    """
    reference = load_reference() if reference is None else reference
    dataset = _dataset(models)
    rows = []
    for side, members in study_columns(models).items():
        quantities = _lipschitz_quantities(models, side)
        for configuration in members if quantities else ():
            chosen = select_models(models, configuration)
            row = {"side": side} | configuration_cells(configuration) | {"n": len(chosen)}
            for label, column in quantities.items():
                row |= _statistics(chosen[column], label)
            rows.append(row | lipschitz_reference(reference, dataset, side, *configuration))
    table = pd.DataFrame(rows)
    published = [name for name in table.columns if name.startswith(("reproduction_", "paper_"))]
    ratio = [name for name in table.columns if name.startswith("ratio_")]
    last = ratio + published
    return table[[name for name in table.columns if name not in last] + last]


def attack_table(
    attacks: pd.DataFrame, models: pd.DataFrame, reference: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what the attacks achieved for each configuration and radius.

    Parameters
    ----------
    attacks : DataFrame
        One row a model, image and radius (attacks.csv).
    models : DataFrame
        One row a model, for the configurations.
    reference : DataFrame or None, default=None
        Published values; None loads those of the package.

    Returns
    -------
    DataFrame
        encoder_std, input_noise_std, method, radius, n (models), images
        (attacks behind the row), damage_mean/_sd/_n (mean over a model's
        images, then mean and sd over models; output units), damage_max,
        relative_damage and log_likelihood_degradation likewise,
        bound_ratio_max (largest damage over its upper bound a·b·C), and for
        CIFAR10 paper_degradation and reproduction_degradation (table 4).

    Raises
    ------
    InputError
        If a column that names the rows is missing, or ``models`` mixes data sets.
    """
    keys = (names.MODEL, names.RADIUS)
    require_columns(attacks, keys, names.FILE_ATTACKS)
    require_columns(models, (names.MODEL,), names.FILE_MODELS)
    reference = load_reference() if reference is None else reference
    dataset = _dataset(models)
    attacks = attacks.assign(method=attacks.get("method", ""))
    rows = []
    for configuration in all_configurations(study_columns(models)):
        members = set(select_models(models, configuration)[names.MODEL])
        chosen = attacks[attacks[names.MODEL].isin(members)]
        for key, group in chosen.groupby(["method", names.RADIUS], sort=True):
            method, radius = cast(tuple[str, float], key)
            row = configuration_cells(configuration) | {"method": method, names.RADIUS: radius}
            row |= _attack_row(group)
            published = degradation_reference(reference, dataset, *configuration, radius)
            rows.append(row | {f"{key}_degradation": value for key, value in published.items()})
    table = pd.DataFrame(rows)
    unused = [name for name in table.columns if name.startswith(("paper_", "reproduction_"))]
    return table.drop(columns=[name for name in unused if table[name].isna().all()])


def collapse_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return the collapse diagnostic of every model.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        model, encoder_std, input_noise_std, seed, active_units,
        decoding_variance_ratio (share of the data's variance in the decodings,
        ≥ 0), collapsed; those columns of them that ``models`` has.  No columns
        if it has none of the three results.

    Raises
    ------
    InputError
        If ``model`` is not a column.
    """
    require_columns(models, (names.MODEL,), names.FILE_MODELS)
    results = (names.ACTIVE_UNITS, names.DECODING_VARIANCE_RATIO, names.COLLAPSED)
    if not any(name in models for name in results):
        return pd.DataFrame()
    wanted = (names.MODEL, names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED, *results)
    return models[[name for name in wanted if name in models]].reset_index(drop=True)


def training_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return the fit of each configuration: ELBO, squared error and training time.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        encoder_std, input_noise_std, n and, with _mean, _sd and _n, those of
        elbo (nats per sample, larger is better), squared_error (‖x − g(p(x))‖²
        per sample) and train_seconds that ``models`` has.
    """
    measured = (names.ELBO, names.SQUARED_ERROR, names.TRAIN_SECONDS)
    rows = []
    for configuration in all_configurations(study_columns(models)):
        chosen = select_models(models, configuration)
        row = configuration_cells(configuration) | {"n": len(chosen)}
        for name in measured:
            row |= _statistics(chosen[name], name) if name in models else {}
        rows.append(row)
    return pd.DataFrame(rows)


def bounds_table(bounds: pd.DataFrame) -> pd.DataFrame:
    """Return what is guaranteed by each method, and its cost.

    Parameters
    ----------
    bounds : DataFrame
        One row a bound (bounds.csv).

    Returns
    -------
    DataFrame
        One row a side, kind, method, status and scope: n (bounds), smallest,
        largest, seconds_mean, seconds_sd.

    Raises
    ------
    InputError
        If ``side``, ``kind``, ``method``, ``status`` or ``value`` is not a column.
    """
    keys = [names.SIDE, "kind", "method", "status"]
    require_columns(bounds, (*keys, "value"), names.FILE_BOUNDS)
    keys += ["scope"] if "scope" in bounds else []
    rows = []
    for key, group in bounds.groupby(keys, sort=True, dropna=False):
        values = pd.to_numeric(group["value"], errors="coerce")
        row = dict(zip(keys, key, strict=True)) | {"n": len(group)}
        row |= {"smallest": values.min(), "largest": values.max()}
        rows.append(row | (_statistics(group["seconds"], "seconds") if "seconds" in group else {}))
    return pd.DataFrame(rows)


def _dataset(models: pd.DataFrame) -> str:
    found = models[names.DATASET].dropna().unique().tolist() if names.DATASET in models else []
    if len(found) > 1:
        raise InputError(
            f"a report is about one data set, got models of {', '.join(map(str, found))}; "
            "write one report for each"
        )
    return str(found[0]) if found else ""


def _lipschitz_quantities(models: pd.DataFrame, side: str) -> dict[str, str]:
    methods = lipschitz_methods(models, side)
    wanted = {"lower": names.lipschitz_lower(side)}
    wanted |= {f"upper_{method}": names.lipschitz_upper(side, method) for method in methods}
    if not methods:
        wanted["upper"] = names.lipschitz_upper(side)
    wanted["ratio"] = names.lipschitz_ratio(side)
    return {label: column for label, column in wanted.items() if column in models}


def _statistics(values: pd.Series, label: str) -> dict[str, float]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    count = len(numbers)
    finite = bool(np.isfinite(numbers).all())
    return {
        f"{label}_mean": float(numbers.mean()) if count else np.nan,
        f"{label}_sd": float(numbers.std(ddof=1)) if count > 1 and finite else np.nan,
        f"{label}_n": count,
    }


def _attack_row(group: pd.DataFrame) -> dict[str, float]:
    row: dict[str, float] = {"n": group[names.MODEL].nunique(), "images": len(group)}
    for name in (names.DAMAGE, names.RELATIVE_DAMAGE, names.DEGRADATION):
        if name not in group:
            continue
        values = pd.to_numeric(group[name], errors="coerce")
        row |= _statistics(values.groupby(group[names.MODEL]).mean(), name)
        if name == names.DAMAGE:
            row["damage_max"] = float(values.max())
    if names.BOUND_RATIO in group:
        row["bound_ratio_max"] = float(pd.to_numeric(group[names.BOUND_RATIO], "coerce").max())
    return row
