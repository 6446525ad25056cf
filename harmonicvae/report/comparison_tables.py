"""Tables of a comparison: models, configurations with their spread, differences, gaps.

Flat tables in, flat tables out.  A table of models has one row a model: ``model`` (how it is
called), ``seed``, ``compared`` (False for a seed sibling that only adds to the spread),
``order`` (newest last), the training's parameters as text, and metrics.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.report.aggregation import mean_and_sd
from harmonicvae.report.metric_groups import (
    TRAINING,
    compared_metrics,
    evaluator_of,
)
from harmonicvae.report.spread import welch_difference

CONFIGURATION = "configuration"
COMPARED = "compared"
ORDER = "order"
#: Value of a parameter that no run, version or file tells.
UNKNOWN = "not recorded"
#: Parameters that are part of every configuration's name.
_ALWAYS = (names.ENCODER_STD, names.INPUT_NOISE_STD)
#: Parameters without which two models cannot be said to be trained alike.
ESSENTIAL = (*_ALWAYS, names.EPOCHS)
#: Beginnings of metrics whose radius or relative r comes from the models.
_MEASURED = (names.DAMAGE, names.CERTIFIED_MARGIN)
_SYMBOLS = {names.ENCODER_STD: "σ_enc", names.INPUT_NOISE_STD: "σ_N"}


def with_configurations(models: pd.DataFrame, parameters: Sequence[str]) -> pd.DataFrame:
    """Return the table with the column ``configuration``: what tells its training from others.

    Parameters
    ----------
    models : DataFrame
        One row a model.
    parameters : sequence of str
        Columns that make a configuration (all but the seed).

    Returns
    -------
    DataFrame
        σ_enc and σ_N stand in every name, other parameters where they differ; the same name
        means the same value of every parameter.  A model whose σ or epochs are not recorded
        is a configuration of its own.

    Examples
    --------
    >>> table = pd.DataFrame({"encoder_std": ["1", "1"], "input_noise_std": ["0", "0"],
    ...                       "epochs": ["5", "9"]})
    >>> with_configurations(table, list(table))["configuration"].tolist()
    ['σ_enc = 1, σ_N = 0, epochs = 5', 'σ_enc = 1, σ_N = 0, epochs = 9']
    """
    told = [name for name in parameters if name in _ALWAYS or models[name].nunique() > 1]
    labels = [
        ", ".join(f"{_SYMBOLS.get(name, name)} = {row[name]}" for name in told)
        + (f" ({row[names.MODEL]})" if UNKNOWN in [row.get(n) for n in ESSENTIAL] else "")
        for row in models.to_dict("records")
    ]
    return models.assign(**{CONFIGURATION: labels})


def seed_siblings(models: pd.DataFrame) -> pd.DataFrame:
    """Return one model for each configuration and seed.

    Parameters
    ----------
    models : DataFrame
        With the columns configuration, seed, compared and order.

    Returns
    -------
    DataFrame
        Of several models of one seed: one that is compared before one that is not, then the
        newest.  A model without a recorded seed may repeat another's: it counts where its
        configuration has no other.
    """
    unknown = models[names.SEED] == UNKNOWN
    seeded = set(models.loc[~unknown, CONFIGURATION])
    ranked = models[~(unknown & models[CONFIGURATION].isin(seeded))]
    ranked = ranked.sort_values([COMPARED, ORDER], kind="stable")
    kept = ranked.drop_duplicates([CONFIGURATION, names.SEED], keep="last")
    return models.loc[sorted(kept.index)]


def measured_metrics(models: pd.DataFrame) -> list[str]:
    """Return harmonicvae's metrics among the columns: those shown first, then the rest."""
    found = [str(name) for name in models if evaluator_of(str(name))]
    shown = [name for name in compared_metrics(found) if name in found]
    return shown + sorted(set(found) - set(shown))


def model_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return the compared models: who they are, then every metric shown, "–" if missing.

    Returns
    -------
    DataFrame
        model, dataset, encoder_std, input_noise_std, seed, epochs, then
        :func:`harmonicvae.report.metric_groups.compared_metrics`.
    """
    who = (names.MODEL, *names.PARAMETER_COLUMNS[1:])
    chosen = models[models[COMPARED]]
    shown = compared_metrics(map(str, models.columns))
    return chosen.reindex(columns=[*who, *shown]).reset_index(drop=True)


def spread_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and count over seeds of every metric.

    Parameters
    ----------
    models : DataFrame
        As in :func:`seed_siblings`; several models of one seed count once.

    Returns
    -------
    DataFrame
        One row a configuration, in the order of the models: configuration, n (seeds), seeds,
        then <metric>_mean, <metric>_sd (ddof 1; NaN for one seed) and <metric>_n.
    """
    seeds = seed_siblings(models)
    metrics = measured_metrics(models)
    rows = []
    for label in dict.fromkeys(models[CONFIGURATION]):
        group = seeds[seeds[CONFIGURATION] == label]
        row = {CONFIGURATION: label, "n": len(group), "seeds": ", ".join(group[names.SEED])}
        for metric in metrics:
            row |= mean_and_sd(group[metric], metric)
        rows.append(row)
    return pd.DataFrame(rows)


def difference_table(models: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return how every configuration differs from the baseline's, metric by metric.

    Parameters
    ----------
    models : DataFrame
        As in :func:`spread_table`.
    baseline : str
        The configuration that the others are compared with.

    Returns
    -------
    DataFrame
        One row a configuration of the baseline's data set and metric: configuration, metric,
        n, baseline_n, mean, baseline_mean, difference, low and high (Welch's 95 % interval),
        degrees (of freedom) and verdict (in words).
    """
    seeds = seed_siblings(models)
    base = seeds[seeds[CONFIGURATION] == baseline]
    dataset = base[names.DATASET].iloc[0]
    rows = []
    for label in dict.fromkeys(models[CONFIGURATION]):
        group = seeds[seeds[CONFIGURATION] == label]
        if label == baseline or group[names.DATASET].iloc[0] != dataset:
            continue
        for metric in measured_metrics(models):
            values, others = (_numbers(side[metric]) for side in (group, base))
            found = welch_difference(values.tolist(), others.tolist())
            rows.append(
                {
                    CONFIGURATION: label,
                    "metric": metric,
                    "n": len(values),
                    "baseline_n": len(others),
                    "mean": values.mean() if len(values) else np.nan,
                    "baseline_mean": others.mean() if len(others) else np.nan,
                    "difference": found.value,
                    "low": found.low,
                    "high": found.high,
                    "degrees": found.degrees,
                    "verdict": found.verdict,
                }
            )
    columns = [CONFIGURATION, "metric", "n", "baseline_n", "mean", "baseline_mean"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "low", "high", "degrees", "verdict"])


def missing_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return what the compared models lack of the metrics shown, and who would fill it.

    Returns
    -------
    DataFrame
        One row a model and evaluator: model, evaluator ("training", "lipschitz",
        "max_damage"), metrics (their names).

    Notes
    -----
    Where no model was attacked, no radius and no r are known: damage and certified margin are
    listed all the same.
    """
    shown = compared_metrics(map(str, models.columns))
    unmeasured = [name for name in _MEASURED if not any(m.startswith(name) for m in shown)]
    rows = []
    for row in models[models[COMPARED]].to_dict("records"):
        lacking = [metric for metric in shown if pd.isna(row.get(metric))] + unmeasured
        for evaluator in (TRAINING, *names.EVALUATORS):
            part = [name for name in lacking if _filled_by(name) == evaluator]
            if part:
                rows.append(
                    {names.MODEL: row[names.MODEL], "evaluator": evaluator, "metrics": part}
                )
    return pd.DataFrame(rows, columns=[names.MODEL, "evaluator", "metrics"])


def _filled_by(metric: str) -> str:
    return names.EVALUATOR_MAX_DAMAGE if metric in _MEASURED else evaluator_of(metric)


def _numbers(values: pd.Series) -> np.ndarray:
    """Return the measured values."""
    found = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    return found[~np.isnan(found)]
