"""Spectra over degree and frequency, and mean degrees over σ, as curves on given axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.configurations import require_columns
from harmonicvae.report.drawing import GREY, SERIES, floats, label_powers

#: Spectrum → label of its abscissa.
_ABSCISSAE = {
    "hermite": "degree k",
    "slice_power": "frequency (cycles per input unit)",
    "radial_power": "frequency (cycles per pixel)",
}
_MARKERS = ("o", "s", "D", "^", "v", "P")
_LEVEL = 0.95


def headline_spectrum(spectra: pd.DataFrame, side: str, spectrum: str) -> pd.DataFrame:
    """Return the rows of one side's headline spectrum: the first centre and σ in the table.

    Parameters
    ----------
    spectra : DataFrame
        spectra.csv.
    side : str
    spectrum : str
        "hermite", "slice_power" or "radial_power".

    Returns
    -------
    DataFrame
        Without the degree or frequency 0.

    Raises
    ------
    InputError
        If a column is missing.
    """
    columns = (names.SIDE, names.CENTRE, names.STD, names.SPECTRUM, "abscissa", "value")
    require_columns(spectra, columns, names.FILE_SPECTRA)
    rows = spectra[(spectra[names.SIDE] == side) & (spectra[names.SPECTRUM] == spectrum)]
    if rows.empty:
        return rows
    first = rows.iloc[0]
    same = rows[names.CENTRE] == first[names.CENTRE]
    if pd.notna(first[names.STD]):
        same &= rows[names.STD] == first[names.STD]
    return rows[same & (rows["abscissa"] > 0)]


def draw_spectrum(
    axes: Any, groups: Mapping[str, pd.DataFrame], spectrum: str, *, bands: bool
) -> None:
    """Draw one line a group: the mean over models, logarithmic; zeros are left out.

    Parameters
    ----------
    axes : Axes
    groups : mapping of str to DataFrame
        Label to rows of spectra.csv.
    spectrum : str
    bands : bool
        Whether the intervals are shaded, where a group is one model.
    """
    drawn = False
    for index, (label, rows) in enumerate(groups.items()):
        if rows.empty:
            continue
        mean = rows.groupby("abscissa")[["value", "lower", "upper"]].mean()
        values = floats(mean["value"])
        color = SERIES[index % len(SERIES)]
        marker = _MARKERS[index % len(_MARKERS)] if spectrum == "hermite" else ""
        shown = np.where(values > 0, values, np.nan)
        axes.plot(mean.index, shown, color=color, marker=marker, markersize=4, label=label)
        drawn = drawn or bool(np.isfinite(shown).any())
        if bands and bool(np.isfinite(shown).any()):
            low = np.fmax(floats(mean["lower"]), np.nanmin(shown) / 10)
            axes.fill_between(
                mean.index, low, floats(mean["upper"]), color=color, alpha=0.18, linewidth=0
            )
    axes.set_xlabel(_ABSCISSAE[spectrum])
    if not drawn:
        axes.text(0.5, 0.5, "no power", transform=axes.transAxes, ha="center", color=GREY)
        return
    axes.set_yscale("log")
    label_powers(axes.yaxis)


def draw_degrees(axes: Any, stds: Sequence[float], values: Sequence[np.ndarray]) -> None:
    """Draw the mean over models and Student's 95 % interval over σ, and every model as a point.

    Parameters
    ----------
    axes : Axes
    stds : sequence of float
    values : sequence of ndarray
        For each σ one finite value a model; an interval needs two.
    """
    for std, found in zip(stds, values, strict=True):
        axes.plot([std] * len(found), found, ".", color=GREY, markersize=4)
    pairs = [(std, found) for std, found in zip(stds, values, strict=True) if len(found)]
    if not pairs:
        raise InputError("no mean degree to draw")
    places = [std for std, _ in pairs]
    means = np.array([found.mean() for _, found in pairs])
    reach = np.array([_half_width(found) for _, found in pairs])
    axes.plot(places, means, "-", color=SERIES[0])
    known = np.isfinite(reach)
    axes.errorbar(
        np.array(places)[known],
        means[known],
        yerr=reach[known],
        fmt="o",
        capsize=4,
        markersize=5,
        color=SERIES[0],
    )
    axes.plot(np.array(places)[~known], means[~known], "o", markersize=5, color=SERIES[0])


def _half_width(values: np.ndarray) -> float:
    """Return half of Student's interval of a mean, NaN for one value."""
    if len(values) < 2:
        return float("nan")
    quantile = stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1)
    return float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def draw_bounds(axes: Any, stds: Sequence[float], bounds: Sequence[np.ndarray]) -> None:
    """Draw lower and upper Lipschitz bound over σ, the range over models; logarithmic.

    Parameters
    ----------
    axes : Axes
    stds : sequence of float
    bounds : sequence of ndarray of shape (models, 2)
        Lower and upper bound; what is not finite and positive is left out.
    """
    for column, label, color in ((0, "lower bound", SERIES[2]), (1, "upper bound", SERIES[1])):
        parts = [part[:, column] for part in bounds]
        parts = [part[np.isfinite(part) & (part > 0)] for part in parts]
        known = [(std, part) for std, part in zip(stds, parts, strict=True) if len(part)]
        if not known:
            continue
        middle = np.array([np.exp(np.log(part).mean()) for _, part in known])
        ends = np.array([[part.min(), part.max()] for _, part in known]).T
        reach = np.abs(ends - middle)
        axes.errorbar(
            [std for std, _ in known], middle, yerr=reach, fmt="o-", color=color, capsize=3,
            markersize=4, label=label,
        )  # fmt: skip
    axes.set_yscale("log")
    label_powers(axes.yaxis)
