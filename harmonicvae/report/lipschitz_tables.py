"""Tables of Lipschitz constants: beside the published ones, and what each method guarantees."""

import re

import pandas as pd

from harmonicvae import names
from harmonicvae.report.aggregation import mean_and_sd, single_dataset
from harmonicvae.report.configurations import (
    configuration_cells,
    require_columns,
    select_models,
    study_columns,
)
from harmonicvae.report.reference import lipschitz_reference, load_reference

#: Methods that come first in the Lipschitz table, in this order.
METHOD_ORDER = (
    "norm_product",
    "eclipse_fast",
    "eclipse",
    "lipsdp_layer",
    "lipsdp_neuron",
    "interval",
    "lipsdp_cvxpy",
)


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
        and, each with _mean, _sd and _n: lower, upper_<method> for every method,
        upper_best (the smallest) if it is below all methods for some model, or
        upper if there is only that, ratio, reproduction, paper.  The
        unit is output per input unit (ℓ2); the ratio has none.  What no model
        has a value of is left out, down to a table without rows.

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
    dataset = single_dataset(models)
    rows = []
    for side, members in study_columns(models).items():
        quantities = _lipschitz_quantities(models, side)
        for configuration in members if quantities else ():
            chosen = select_models(models, configuration)
            row = {"side": side} | configuration_cells(configuration) | {"n": len(chosen)}
            for label, column in quantities.items():
                row |= mean_and_sd(chosen[column], label)
            rows.append(row | lipschitz_reference(reference, dataset, side, *configuration))
    table = pd.DataFrame(rows)
    published = [name for name in table.columns if name.startswith(("reproduction_", "paper_"))]
    ratio = [name for name in table.columns if name.startswith("ratio_")]
    last = ratio + published
    return table[[name for name in table.columns if name not in last] + last]


def bounds_table(bounds: pd.DataFrame) -> pd.DataFrame:
    """Return what is guaranteed by each method, and its cost.

    Parameters
    ----------
    bounds : DataFrame
        One row a bound (bounds.csv).

    Returns
    -------
    DataFrame
        One row a side, kind, method, status, scope and slopes: n (bounds), smallest,
        largest, seconds_mean, seconds_sd.

    Raises
    ------
    InputError
        If ``side``, ``kind``, ``method``, ``status`` or ``value`` is not a column.
    """
    keys = [names.SIDE, "kind", "method", "status"]
    require_columns(bounds, (*keys, "value"), names.FILE_BOUNDS)
    keys += [key for key in ("scope", "slopes") if key in bounds]
    rows = []
    for key, group in bounds.groupby(keys, sort=True, dropna=False):
        values = pd.to_numeric(group["value"], errors="coerce")
        row = dict(zip(keys, key, strict=True)) | {"n": len(group)}
        row |= {"smallest": values.min(), "largest": values.max()}
        rows.append(row | (mean_and_sd(group["seconds"], "seconds") if "seconds" in group else {}))
    return pd.DataFrame(rows)


def _lipschitz_quantities(models: pd.DataFrame, side: str) -> dict[str, str]:
    methods = lipschitz_methods(models, side)
    wanted = {"lower": names.lipschitz_lower(side)}
    wanted |= {f"upper_{method}": names.lipschitz_upper(side, method) for method in methods}
    if not methods:
        wanted["upper"] = names.lipschitz_upper(side)
    elif _is_below(models, side, methods):
        wanted["upper_best"] = names.lipschitz_upper(side)
    wanted["ratio"] = names.lipschitz_ratio(side)
    return {
        label: column
        for label, column in wanted.items()
        if column in models and pd.to_numeric(models[column], errors="coerce").notna().any()
    }


def _is_below(models: pd.DataFrame, side: str, methods: list[str]) -> bool:
    """Tell if some model's smallest bound is none of the methods' own."""
    if names.lipschitz_upper(side) not in models:
        return False
    columns = [names.lipschitz_upper(side, method) for method in methods]
    smallest = models[columns].apply(pd.to_numeric, errors="coerce").min(axis=1)
    best = pd.to_numeric(models[names.lipschitz_upper(side)], errors="coerce")
    return bool(((best < smallest) | (best.notna() & smallest.isna())).any())
