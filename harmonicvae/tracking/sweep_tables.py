"""Results of a search as tables and metrics: curves of all folds, ``cv_results_`` by candidate."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from harmonicvae import names
from harmonicvae.tracking.fold_recorder import Fold
from harmonicvae.tracking.sweep_texts import parameter_text

#: Column that tells several HarmonicVAEs inside one candidate apart.
PLACE = "estimator"
#: Columns of a history that become metrics.
CURVES = (names.TRAIN_LOSS, names.TRAIN_RECONSTRUCTION, names.TRAIN_KL, names.VALID_LOSS)


def curves_table(folds: Iterable[Fold]) -> pd.DataFrame:
    """Return the histories of all folds below each other.

    Parameters
    ----------
    folds : iterable of Fold

    Returns
    -------
    DataFrame
        One row an epoch of a fold: candidate, fold, param_<name> as text, estimator (its
        place, only if a candidate holds several), and the columns of ``history_``.
        Empty, with those columns, where nothing was recorded.
    """
    parts = [
        pd.DataFrame(
            {names.CANDIDATE: fold.candidate, names.FOLD: fold.fold, PLACE: place}
            | {f"param_{name}": parameter_text(value) for name, value in fold.params.items()}
            | curves
        )
        for fold in folds
        if fold.record is not None
        for place, curves in fold.record.curves.items()
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    params = sorted(key for key in map(str, table.columns) if key.startswith("param_"))
    history = [key for key in names.HISTORY_COLUMNS if key in table or not parts]
    several = bool(parts) and _places(table) > 1
    place = [PLACE] if several else []
    return table.reindex(columns=[names.CANDIDATE, names.FOLD, *params, *place, *history])


def scores_table(folds: Iterable[Fold]) -> pd.DataFrame:
    """Return the test scores of all folds: candidate, fold, param_<name>, a column a metric."""
    rows = [
        {names.CANDIDATE: fold.candidate, names.FOLD: fold.fold}
        | {f"param_{name}": parameter_text(value) for name, value in fold.params.items()}
        | (fold.record.scores if fold.record else {})
        for fold in folds
    ]
    return pd.DataFrame(rows, columns=None if rows else [names.CANDIDATE, names.FOLD])


def _places(table: pd.DataFrame) -> int:
    """Return how many estimators the fold with most of them holds."""
    return int(table.groupby([names.CANDIDATE, names.FOLD])[PLACE].nunique().max())


def mean_curves(table: pd.DataFrame) -> list[tuple[str, float, int]]:
    """Return the means over folds of the curves of one candidate.

    Parameters
    ----------
    table : DataFrame
        From :func:`curves_table`, of one candidate.

    Returns
    -------
    list of (str, float, int)
        Metric, value, epoch; the metric is ``train_loss`` and so on, with ``_<place>`` at
        its end where there are several estimators.  An epoch's mean is over the folds
        that reached it; values that are no finite number are left out.

    Examples
    --------
    >>> table = pd.DataFrame({"fold": [0, 1], "epoch": [1, 1], "train_loss": [2.0, 4.0]})
    >>> mean_curves(table)
    [('train_loss', 3.0, 1)]
    """
    several = PLACE in table
    means = []
    for place, part in table.groupby(PLACE) if several else [("", table)]:
        columns = [key for key in CURVES if key in part]
        by_epoch = part.groupby(names.EPOCH)[columns].mean()
        for column in columns:
            metric = f"{column}_{place}" if several else column
            means += [
                (metric, float(value), int(str(epoch)))
                for epoch, value in by_epoch[column].items()
                if math.isfinite(value)
            ]
    return means


def candidate_metrics(results: Mapping[str, Any], index: int, n_splits: int) -> dict[str, float]:
    """Return the figures of one candidate in ``cv_results_``.

    Parameters
    ----------
    results : mapping
        ``cv_results_``.
    index : int
        Row.
    n_splits : int
        Folds; from 11 on their numbers are padded, so that names sort as numbers do.

    Returns
    -------
    dict of str to float
        scikit-learn's names; what is no finite number is left out.

    Examples
    --------
    >>> candidate_metrics({"split9_test_score": [-1.5], "params": [{}]}, 0, 12)
    {'split09_test_score': -1.5}
    """
    width = len(str(n_splits - 1))
    metrics = {}
    for key, column in results.items():
        if key in ("params", "iter", "n_resources") or key.startswith("param_"):
            continue
        value = column[index]
        if isinstance(value, numbers.Real) and math.isfinite(value):
            name = re.sub(r"^split(\d+)_", lambda found: f"split{found[1].zfill(width)}_", key)
            metrics[name] = float(value)
    return metrics


def results_table(results: Mapping[str, Any], run_ids: Sequence[str]) -> pd.DataFrame:
    """Return ``cv_results_`` as a flat table with the run of every candidate.

    Parameters
    ----------
    results : mapping
        ``cv_results_``.
    run_ids : sequence of str
        In its order.

    Returns
    -------
    DataFrame
        candidate, run_id, param_<name> as text (empty where a candidate has no such
        parameter), then the figures.
    """
    columns: dict[str, Any] = {names.CANDIDATE: range(len(run_ids)), "run_id": list(run_ids)}
    params = results["params"]
    for key in sorted(key for key in results if key.startswith("param_")):
        name = key.removeprefix("param_")
        columns[key] = [parameter_text(row[name]) if name in row else "" for row in params]
    figures = {
        key: column
        for key, column in results.items()
        if key != "params" and not key.startswith("param_")
    }
    return pd.DataFrame(columns | figures)


def fixed_parameters(search: Any, searched: Iterable[str]) -> dict[str, str]:
    """Return the search's own parameters and those of the estimator that it does not vary.

    Parameters
    ----------
    search : BaseSearchCV
    searched : iterable of str
        Names of what it varies.

    Returns
    -------
    dict of str to str
        Under scikit-learn's names (``cv``, ``param_grid``, ``estimator__latent_dim``), with
        ``search`` for its class.
    """
    varied = {f"estimator__{name}" for name in searched}
    params = {"search": type(search).__name__}
    for name, value in search.get_params(deep=True).items():
        below = any(name.startswith(f"{other}__") for other in varied)
        listed = isinstance(value, list) and name.startswith("estimator__")  # of steps
        if name not in varied and not below and not (listed and _named_steps(value)):
            params[name] = parameter_text(value)
    return params


def _named_steps(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, tuple) and len(item) > 1 for item in value)
