"""Small multiples of a comparison: one panel a metric, points grouped by configuration."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.comparison_tables import COMPARED, CONFIGURATION, seed_siblings
from harmonicvae.report.drawing import GREY, SERIES, floats, has_values, label_powers
from harmonicvae.report.metric_groups import headline_metrics, metric_heading

COLUMNS = 3
#: One marker a configuration, so that colours are never needed to tell them apart.
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def panel_metrics(models: pd.DataFrame) -> list[str]:
    """Return the metrics that get a panel.

    Raises
    ------
    InputError
        If no model has any of them.
    """
    metrics = [name for name in headline_metrics(map(str, models)) if has_values(models, name)]
    if not metrics:
        raise InputError("no metric of the compared models can be drawn")
    return metrics


def letters(configurations: Sequence[str]) -> dict[str, str]:
    """Return a short name for each configuration.

    Examples
    --------
    >>> letters(["σ_enc = 1", "σ_enc = 0.5"])
    {'σ_enc = 1': 'A', 'σ_enc = 0.5': 'B'}
    """
    return {
        label: chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")
        for index, label in enumerate(dict.fromkeys(configurations))
    }


def grid_shape(count: int) -> tuple[int, int]:
    """Return rows and columns of the panels.

    Examples
    --------
    >>> grid_shape(2), grid_shape(7)
    ((1, 2), (3, 3))
    """
    columns = min(COLUMNS, count)
    return ceil(count / columns), columns


def draw_comparison(figure: Any, models: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Draw every model as a point, with mean and sd over the seeds of its configuration."""
    labels = letters(models[CONFIGURATION].tolist())
    rows, columns = grid_shape(len(metrics))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, metric in zip(grid, metrics):
        for place, label in enumerate(labels):
            group = models[models[CONFIGURATION] == label]
            _draw_group(axes, place, group, metric)
        axes.set_title(metric_heading(metric))
        axes.set_xticks(range(len(labels)), list(labels.values()))
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.grid(False, axis="x")
        _scale(axes, floats(models[metric]))
    for axes in grid[len(metrics) :]:
        axes.set_visible(False)


def _draw_group(axes: Any, place: int, group: pd.DataFrame, metric: str) -> None:
    """Draw one configuration: filled points are compared, hollow ones their siblings."""
    color, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
    values = floats(group[metric])
    offsets = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    for offset, value, compared in zip(offsets, values, group[COMPARED], strict=True):
        axes.plot(
            place + offset,
            value,
            marker,
            color=color,
            markerfacecolor=color if compared else "white",
            markersize=5.5,
        )
    seeds = floats(seed_siblings(group)[metric])
    seeds = seeds[np.isfinite(seeds)]
    if len(seeds) > 1:
        mean, sd = float(seeds.mean()), float(seeds.std(ddof=1))
        axes.errorbar(place + 0.34, mean, yerr=sd, fmt="_", color=GREY, capsize=3, markersize=9)


def _scale(axes: Any, values: np.ndarray) -> None:
    """Use a logarithmic axis for positive values over more than a factor of 20."""
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        label_powers(axes.yaxis)
    else:
        axes.ticklabel_format(axis="y", useOffset=False)


def seed_note(models: pd.DataFrame) -> str:
    """Return what the points and bars are."""
    siblings = int((~models[COMPARED].astype(bool)).sum())
    hollow = f" Hollow: {siblings} seed siblings that were not asked for." if siblings else ""
    seeded = models[names.SEED].nunique() > 1
    bars = " Grey bars: mean ± sd over seeds, down to the axis where sd exceeds the mean."
    bars = bars if seeded else ""
    return f"One point a model.{hollow}{bars}"
