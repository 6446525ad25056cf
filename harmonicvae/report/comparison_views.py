"""The tables of a comparison as they are shown: headings in words, intervals as text."""

import math
from collections.abc import Sequence

import pandas as pd

from harmonicvae import names
from harmonicvae.report.comparison_tables import COMPARED, CONFIGURATION, UNKNOWN, model_table
from harmonicvae.report.formatting import DASH, format_number, presentation
from harmonicvae.report.metric_groups import (
    TRAINING,
    compared_metrics,
    headline_metrics,
    metric_heading,
)
from harmonicvae.report.rendering import to_terminal

#: Verdicts as the terminal has room for: the sign of the difference says the rest.
_SHORT = {
    "higher, beyond the seed-to-seed spread": "beyond the spread",
    "lower, beyond the seed-to-seed spread": "beyond the spread",
    "within the seed-to-seed spread": "within the spread",
    "no spread known (1 seed)": "no spread: 1 seed",
    "the same for every seed": "the same",
}
#: Beginnings of metrics that the page alone shows.
_PAGE_ONLY = (names.BOUND_RATIO, names.FIRST_ORDER_MARGIN)
#: Widest line, terminal columns.
WIDTH = 100
_WHO = (names.MODEL, names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED, names.EPOCHS)
_FILLED_BY = {
    TRAINING: "is recorded by training; no evaluator fills it",
    names.EVALUATOR_LIPSCHITZ: "`harmonicvae lipschitz {uri}` fills it, or --evaluate lipschitz",
    names.EVALUATOR_MAX_DAMAGE: "`harmonicvae attack {uri}` fills it, or --evaluate max_damage",
}


def parameters_view(models: pd.DataFrame) -> pd.DataFrame:
    """Return model, σ_enc, σ_N, seed, epochs and data set of the compared models.

    Notes
    -----
    With the URI that was asked for, and how many seed siblings were found.
    """
    compared = models[models[COMPARED]]
    table = compared.reindex(columns=[*_WHO, names.DATASET, "uri"])
    counts = models[~models[COMPARED].astype(bool)][CONFIGURATION].value_counts()
    siblings = compared[CONFIGURATION].map(counts).fillna(0).astype(int)
    return table.assign(seed_siblings=siblings).replace({UNKNOWN: DASH})


def models_view(models: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the compared models with σ_enc, σ_N, seed and these metrics in words."""
    table = model_table(models)[[*_WHO[:4], *metrics]].replace({UNKNOWN: DASH})
    return table.rename(columns={name: _heading(name) for name in metrics})


def _heading(metric: str) -> str:
    """Return the words, or the name where they are the same: by it counts are known as such."""
    words = metric_heading(metric)
    return metric if words == metric.replace("_", " ") else words


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table turned on its side: a column for each of its rows, cells as text.

    Examples
    --------
    >>> side_by_side(pd.DataFrame({"model": ["a/1", "a/2"], "elbo": [1.5, None]})).values.tolist()
    [['ELBO (nats)', '1.500', '–']]
    """
    shown = presentation(table)
    columns = {"": list(shown.columns[1:])}
    for place, name in enumerate(shown.iloc[:, 0]):
        columns[name] = shown.iloc[place, 1:].tolist()
    return pd.DataFrame(columns)


def configurations_view(configurations: pd.DataFrame) -> pd.DataFrame:
    """Return mean ± sd of the metrics shown, headings in words."""
    shown = [
        name
        for name in compared_metrics(_metrics(configurations))
        if f"{name}_mean" in configurations and configurations[f"{name}_n"].any()
    ]
    columns = {CONFIGURATION: CONFIGURATION, "n": "n"}
    for name in shown:
        columns |= {f"{name}_{part}": f"{metric_heading(name)}_{part}" for part in _PARTS}
    return configurations[list(columns)].rename(columns=columns)


_PARTS = ("mean", "sd", "n")


def _metrics(configurations: pd.DataFrame) -> list[str]:
    """Return the metrics of which the table has mean, sd and n."""
    return [str(name).removesuffix("_sd") for name in configurations if str(name).endswith("_sd")]


def differences_view(differences: pd.DataFrame, *, few: bool = False) -> pd.DataFrame:
    """Return what a configuration changes: means, difference, interval, in words.

    Parameters
    ----------
    differences : DataFrame
        Rows of differences.csv.
    few : bool, default=False
        Main metrics only, and verdicts in few words.

    Returns
    -------
    DataFrame
        metric, baseline, mean (these two not with ``few``), difference, 95 % interval and the
        verdict; what neither side has is left out.
    """
    known = differences["metric"].tolist()
    shown = headline_metrics(known) if few else compared_metrics(known)
    chosen = differences[
        differences["metric"].isin(shown)
        & differences[["mean", "baseline_mean"]].notna().any(axis=1)
    ]
    rows = [
        {
            "metric": metric_heading(row["metric"]),
            "baseline": _mean(row["baseline_mean"], row["baseline_n"]),
            "mean": _mean(row["mean"], row["n"]),
            "difference": row["difference"],
            "95 % interval": interval_text(row["low"], row["high"]),
            "in words": _SHORT.get(row["verdict"], row["verdict"]) if few else row["verdict"],
        }
        for row in chosen.to_dict("records")
    ]
    return pd.DataFrame(rows).drop(columns=["baseline", "mean"] if few and rows else [])


def _mean(value: float, count: int) -> str:
    return f"{format_number(float(value))} (n={count})" if count else DASH


def interval_text(low: float, high: float) -> str:
    """Return an interval as text, "–" where there is none.

    Examples
    --------
    >>> interval_text(-0.25, 3.0), interval_text(float("nan"), float("nan"))
    ('[−0.2500, 3.000]', '–')
    """
    if math.isnan(low):
        return DASH
    return f"[{format_number(low)}, {format_number(high)}]"


def sources_view(sources: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model, evaluator and run: how many metrics, when and how."""
    keys = [names.MODEL, "evaluator", "run_id", "ended", "rows", "images", "methods"]
    if sources.empty:
        return pd.DataFrame()
    chosen = sources[sources[COMPARED]] if COMPARED in sources else sources
    counted = chosen.groupby(keys, sort=False)["metric"].count().reset_index()
    counted = counted.rename(columns={"metric": "metrics"})
    counted["rows"] = counted["rows"].str[:12]
    return counted.replace({"": DASH})


def missing_lines(missing: pd.DataFrame, models: pd.DataFrame) -> list[str]:
    """Return what each model lacks and what would fill it, as sentences."""
    uris = dict(zip(models[names.MODEL], models["model_uri"], strict=True))
    lines = []
    for row in missing.to_dict("records"):
        metrics = [metric_heading(metric) for metric in row["metrics"]]
        filled = _FILLED_BY[row["evaluator"]].format(uri=uris[row[names.MODEL]])
        lines.append(f"{row[names.MODEL]} lacks {', '.join(metrics)}: {filled}.")
    return lines


def summarise_comparison(
    models: pd.DataFrame,
    configurations: pd.DataFrame,
    differences: pd.DataFrame,
    missing: pd.DataFrame,
    notes: Sequence[str] = (),
) -> str:
    """Return a comparison as text of at most 100 columns, tables first."""
    metrics = [
        name
        for name in compared_metrics(map(str, models.columns))
        if not name.startswith(_PAGE_ONLY)
    ]
    parts = [to_terminal(models_view(models, metrics), WIDTH)]
    if configurations["n"].max() > 1:
        view = configurations_view(configurations)
        few = [metric_heading(name) for name in headline_metrics(_metrics(configurations))]
        kept = [name for name in view if str(name).rpartition("_")[0] in few]
        lead = "Mean ± sd over n seeds of each configuration"
        parts.append(f"{lead}\n\n{to_terminal(view[[CONFIGURATION, 'n', *kept]], WIDTH)}")
    for label, group in differences.groupby(CONFIGURATION, sort=False):
        view = differences_view(group, few=True)
        if len(view):
            parts.append(f"{label}, minus the baseline's\n\n{to_terminal(view, WIDTH)}")
    lines = [*missing_lines(missing, models), *notes]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])
