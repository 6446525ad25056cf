"""Damage over radius and margins over images as curves in a given figure."""

from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.drawing import INK, SERIES, floats, label_powers

_PANELS = (
    (names.DAMAGE, "damage ‖g(p(x+δ)) − g(p(x))‖₂"),
    (names.RELATIVE_DAMAGE, "damage over ‖g(p(x))‖₂"),
)
#: Column of a margin, line and what the margin is.
_MARGINS = (
    (names.CERTIFIED_MARGIN, "-", "certified"),
    (names.FIRST_ORDER_MARGIN, "--", "estimate"),
)


def draw_damage(figure: Any, attacks: pd.DataFrame, slope: float | None) -> None:
    """Draw damage and relative damage over the radius, with the bound slope·C."""
    missing = sorted({names.RADIUS, names.DAMAGE, "method"} - set(attacks.columns))
    if missing:
        raise InputError(f"{names.FILE_ATTACKS} must have the columns {', '.join(missing)}")
    panels = figure.subplots(1, 2)
    for axes, (column, label) in zip(panels, _PANELS, strict=True):
        for index, method in enumerate(sorted(attacks["method"].unique())):
            part = attacks[(attacks["method"] == method) & (attacks[names.RADIUS] > 0)]
            _draw_spread(axes, part, column, SERIES[index % len(SERIES)], str(method))
        axes.set_xlabel("radius C = ‖δ‖₂")
        axes.set_ylabel(label)
    radii = np.sort(floats(attacks.loc[attacks[names.RADIUS] > 0, names.RADIUS].drop_duplicates()))
    if slope is not None and np.isfinite(slope) and len(radii):
        panels[0].plot(radii, slope * radii, "s--", color=INK, label="certified bound a·b·C")
        if slope > 0 and (attacks[names.DAMAGE] > 0).any():
            panels[0].set_yscale("log")
            label_powers(panels[0].yaxis)
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))


def _draw_spread(axes: Any, part: pd.DataFrame, column: str, color: str, label: str) -> None:
    """Draw the mean over images and the range of 90 % of them."""
    if column not in part or part.empty:
        return
    grouped = part.assign(**{column: floats(part[column])}).groupby(names.RADIUS)[column]
    mean = grouped.mean()
    radii = mean.index.to_numpy(dtype=float)
    reach = [np.abs(grouped.quantile(share) - mean) for share in (0.05, 0.95)]
    text = f"{label}: mean and 90 % of images"
    axes.errorbar(radii, mean, yerr=reach, fmt="o-", capsize=4, color=color, label=text)


def draw_margins(figure: Any, margins: pd.DataFrame) -> None:
    """Draw the share of images with a margin of at least R, over R."""
    needed = (names.RELATIVE_R, *(column for column, _, _ in _MARGINS))
    missing = [name for name in needed if name not in margins]
    if missing:
        raise InputError(f"{names.FILE_MARGINS} must have the columns {', '.join(missing)}")
    axes = figure.subplots()
    drawn = margins[[column for column, _, _ in _MARGINS]].to_numpy(dtype=float)
    end = 1.05 * float(np.max(drawn[np.isfinite(drawn)], initial=0.0)) or 1.0
    for index, share in enumerate(sorted(map(float, margins[names.RELATIVE_R].unique()))):
        part = margins[margins[names.RELATIVE_R] == share]
        for column, line, kind in _MARGINS:
            values = np.sort(floats(part[column]))
            label = f"r = {share:g}·‖g(p(x))‖, {kind}" + (": all 0" if not values.any() else "")
            _draw_share(axes, np.minimum(values, end), line, SERIES[index % len(SERIES)], label)
    axes.set_xlim(0.0, end)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("margin R (input units)")
    axes.set_ylabel("share of images with margin ≥ R")
    figure.legend(loc="outside lower center", ncols=2)


def _draw_share(axes: Any, values: np.ndarray, line: str, color: str, label: str) -> None:
    """Draw the share of sorted values that are at least R as steps."""
    heights = 1.0 - np.arange(len(values) + 1) / len(values)
    ends = np.concatenate([[0.0], values])
    axes.plot(ends, [1.0, *heights[:-1]], line, color=color, label=label, drawstyle="steps-pre")
