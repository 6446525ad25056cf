"""What the figures draw on given axes; matplotlib itself is imported in figures.py alone."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError

#: The Okabe-Ito colours, in order of use (blue, vermilion, green, purple, orange, sky).
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6B6B6B"
INK = "#222222"
#: Longer series are thinned to about this many points.
MOST_POINTS = 1500
#: Settings of every figure, on top of matplotlib's own defaults.
STYLE: dict[str, Any] = {
    "axes.edgecolor": "#B5B5B5",
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "path.simplify": True,
    "savefig.dpi": 130,
    "svg.hashsalt": "harmonicvae",
    "text.parse_math": False,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


def floats(column: pd.Series) -> np.ndarray:
    """Return a column as float64, NaN for what is not a finite number."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def dataset_of(models: pd.DataFrame) -> str:
    """Return the data set of the models, "" if they do not say."""
    return str(models[names.DATASET].iloc[0]) if names.DATASET in models and len(models) else ""


def show_image(axes: Any, image: np.ndarray, **options: Any) -> Any:
    """Show an array as a picture without axes; return what was drawn."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(image, **options)


def has_values(table: pd.DataFrame, name: str) -> bool:
    """Return whether the table has this column with at least one finite number in it."""
    return name in table and bool(np.isfinite(floats(table[name])).any())


def draw_losses(axes: Any, histories: Sequence[pd.DataFrame]) -> None:
    """Draw training and validation loss of several models, one colour each."""
    drawn = []
    for index, table in enumerate(histories):
        table = table.iloc[:: max(1, ceil(len(table) / MOST_POINTS))]
        color = SERIES[index % len(SERIES)]
        for name, line in ((names.TRAIN_LOSS, "-"), (names.VALID_LOSS, "--")):
            if name in table and len(table):
                loss = floats(table[name])
                marker = "." if len(table) == 1 else ""
                axes.plot(floats(table[names.EPOCH]), loss, line, color=color, marker=marker)
                drawn.append(loss[np.isfinite(loss)])
    values = np.concatenate(drawn) if drawn else np.empty(0)
    if not values.size:
        axes.text(0.5, 0.5, "no finite loss", transform=axes.transAxes, ha="center", color=GREY)
    elif values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        label_powers(axes.yaxis)


def label_powers(axis: Any) -> None:
    """Label a logarithmic axis at powers of ten, and at 2 and 5 where it has less than a decade.

    Parameters
    ----------
    axis : matplotlib axis
        ``axes.xaxis`` or ``axes.yaxis``.
    """

    def between(value: float, _: Any) -> str:
        low, high = sorted(axis.get_view_interval())
        return power_label(value) if high < 10 * low and f"{value:.0e}"[0] in "25" else ""

    axis.set_major_formatter(lambda value, _: power_label(value))
    axis.set_minor_formatter(between)


def power_label(value: float) -> str:
    """Return the label of a logarithmic axis.

    Examples
    --------
    >>> power_label(100.0), power_label(1e6), power_label(1e-4)
    ('100', '10⁶', '10⁻⁴')
    """
    if 1e-3 < value < 1e4:
        return f"{value:g}"
    exponent = f"{np.log10(value):.0f}"
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def best_bounds(models: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return the lower and the smallest upper bound of every model, NaN where absent."""
    upper = [name for name in models if str(name).startswith(names.lipschitz_upper(side))]
    bounds = pd.DataFrame(index=models.index)
    lower = names.lipschitz_lower(side)
    bounds["lower"] = pd.to_numeric(models[lower], errors="coerce") if lower in models else np.nan
    numbers = models[upper].apply(pd.to_numeric, errors="coerce") if upper else None
    bounds["upper"] = np.nan if numbers is None else numbers.min(axis=1)
    return bounds.astype(float)


def draw_intervals(axes: Any, row: int, bounds: np.ndarray, limits: tuple[float, float]) -> None:
    """Draw (lower, upper) of each model as a line; an unknown end is an arrow at the limit."""
    offsets = np.linspace(-0.2, 0.2, len(bounds)) if len(bounds) > 1 else [0.0]
    for offset, (lower, upper) in zip(offsets, bounds, strict=True):
        if np.isnan(lower) and np.isnan(upper):
            continue
        ends = []
        for value, edge, arrow in ((lower, limits[0], "<"), (upper, limits[1], ">")):
            known = bool(np.isfinite(value)) and value > 0
            ends.append(value if known else edge)
            marker = "|" if known else arrow
            axes.plot(ends[-1], row + offset, marker, color=SERIES[0], markersize=7, clip_on=False)
        axes.plot(ends, [row + offset] * 2, color=SERIES[0], linewidth=2, alpha=0.75)


def draw_marks(axes: Any, row: int, mark: Mapping[str, float]) -> None:
    """Draw the published means."""
    for source, marker, color in (("reproduction", "D", SERIES[1]), ("paper", "o", SERIES[2])):
        value = mark[f"{source}_mean"]
        if np.isfinite(value):
            axes.plot(value, row, marker, color=color, markersize=6, markeredgecolor="white")


def draw_brackets(
    axes: Any,
    labels: Sequence[str],
    bounds: Sequence[np.ndarray],
    marks: Sequence[Mapping[str, float]],
    limits: tuple[float, float],
) -> None:
    """Draw one row a configuration: an interval a model, and the published means."""
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    for row, (intervals, mark) in enumerate(zip(bounds, marks, strict=True)):
        draw_intervals(axes, row, intervals, limits)
        draw_marks(axes, row, mark)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(False, axis="y")
    label_powers(axes.xaxis)


def attack_parts(
    arrays: Mapping[str, np.ndarray], position: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return radii (r,), and inputs and decodings (1 + r, d) with the clean one first.

    Raises
    ------
    InputError
        If an array is missing or does not fit the others, or ``position`` is out of range.
    """
    needed = ("attack_radii", "attack_originals", "attack_inputs", "decodings", "attack_decodings")
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise InputError(f"the arrays of an attack lack {', '.join(missing)}")
    count = len(arrays["attack_originals"])
    if not 0 <= position < count:
        raise InputError(f"position must be in 0 … {count - 1}, got {position}")
    radii, clean, inputs, decodings, attacked = (np.asarray(arrays[name]) for name in needed)
    if not len(radii) == len(inputs) == len(attacked) or inputs.ndim != 3 or attacked.ndim != 3:
        raise InputError("attack_inputs and attack_decodings must have shape (radii, images, d)")
    return (
        radii,
        np.vstack([clean[position : position + 1], inputs[:, position]]),
        np.vstack([decodings[position : position + 1], attacked[:, position]]),
    )


def draw_phases(panels: Any, seconds: np.ndarray, column: pd.Series) -> dict[str, str]:
    """Shade every stretch of one phase; return the phases in order with their colours."""
    phases = column.tolist()
    colors = {phase: SERIES[k % len(SERIES)] for k, phase in enumerate(dict.fromkeys(phases))}
    start = 0
    for end in range(1, len(phases) + 1):
        if end < len(phases) and phases[end] == phases[start]:
            continue
        stop = seconds[min(end, len(phases) - 1)]
        for axes in panels:
            axes.axvspan(seconds[start], stop, color=colors[phases[start]], alpha=0.18, linewidth=0)
        start = end
    return colors
