"""Two studies of the same plan side by side: whether every number comes out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.configurations import require_columns
from harmonicvae.report.results import load_results

#: Beginning of a column of models.csv → largest relative difference allowed.
#:
#: Another processor or number of threads rounds matrix products in another order, which a
#: training run lets grow to about 1e-4 of the weights (results/benchmarks/together.json);
#: a number that moves by more than this is another result.  The lower bound and the damage
#: are found by search, the spectra by sampling with a fixed seed.
TOLERANCES = {
    names.ELBO: 0.001,
    names.SQUARED_ERROR: 0.1,
    names.COLLAPSED: 0.0,
    names.ACTIVE_UNITS: 0.0,
    "lipschitz_lower": 0.05,
    "lipschitz_upper": 0.02,
    "damage_l2": 0.05,
    "relative_damage": 0.05,
    names.MEAN_DEGREE: 0.05,
    names.HERMITE_VARIANCE: 0.1,
    names.JACOBIAN_ENERGY: 0.1,
}


def compare_results(found: str | Path, recorded: str | Path) -> pd.DataFrame:
    """Compare the models of a study with those on record, number by number.

    Parameters
    ----------
    found, recorded : path-like
        Result folders of two studies.

    Returns
    -------
    DataFrame
        One row a model and quantity: model, quantity (a column of models.csv), recorded,
        found, difference (relative to the recorded value; ``inf`` where a recorded one was
        not found), tolerance, ok.  What was not recorded is left out.

    Raises
    ------
    InputError
        If a folder is no study's, if they are of different data, if they have no quantity
        in common, or if no number is recorded.
    """
    new, old = (load_results(folder) for folder in (found, recorded))
    digests = [results.study.get("data_digest") for results in (new, old)]
    if digests[0] != digests[1]:
        raise InputError(
            f"the two studies are of different data: digest {digests[0]}, recorded {digests[1]}"
        )
    for results in (new, old):
        require_columns(results.models, (names.MODEL,), names.FILE_MODELS)
    columns = [str(column) for column in old.models if _tolerance(str(column)) is not None]
    if not columns or not set(columns) & set(map(str, new.models)):
        raise InputError(
            f"{str(found)!r} and {str(recorded)!r} have no quantity in common that is compared"
        )
    values = new.models.set_index(names.MODEL).reindex(columns=columns)
    rows = []
    for model, record in old.models.set_index(names.MODEL)[columns].iterrows():
        for column in columns:
            before = _number(record[column])
            if np.isnan(before):
                continue  # was not measured then
            now = _number(values.at[model, column]) if model in values.index else np.nan
            difference = abs(now - before) / max(abs(before), 1e-12)
            tolerance = _tolerance(column)
            assert tolerance is not None
            rows.append(
                {
                    names.MODEL: model,
                    "quantity": column,
                    "recorded": before,
                    "found": now,
                    "difference": np.inf if np.isnan(difference) else difference,
                    "tolerance": tolerance,
                    "ok": bool(difference <= tolerance),
                }
            )
    if not rows:
        raise InputError(f"{str(recorded)!r} records no number that is compared")
    return pd.DataFrame(rows)


def worst_by_quantity(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the largest difference of every quantity, beside its tolerance.

    Parameters
    ----------
    compared : DataFrame
        From :func:`compare_results`.

    Returns
    -------
    DataFrame
        quantity, models, largest_difference, tolerance, ok (of all models).
    """
    groups = compared.groupby("quantity", sort=False)
    return groups.agg(
        models=("ok", "size"),
        largest_difference=("difference", "max"),
        tolerance=("tolerance", "first"),
        ok=("ok", "all"),
    ).reset_index()


def _number(value: object) -> float:
    return float(pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0])


def _tolerance(column: str) -> float | None:
    """Return the tolerance of a column; None for one that is not compared.

    Examples
    --------
    >>> _tolerance("lipschitz_upper_l2_decoder"), _tolerance("train_seconds")
    (0.02, None)
    """
    found = [limit for start, limit in TOLERANCES.items() if column.startswith(start)]
    return found[0] if found else None
