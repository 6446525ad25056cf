"""The figures of a study, drawn through matplotlib's object interface alone.

No pyplot, and matplotlib's settings are as before after every call.  Colours are
those of Okabe and Ito, told apart with any colour vision; every text is drawn as
it is (a "$" starts no formula).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from math import ceil
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from matplotlib import font_manager, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.harmonics.images import log_spectra
from harmonicvae.report.attack_curves import draw_damage, draw_margins
from harmonicvae.report.comparison_panels import (
    MARKERS,
    draw_comparison,
    grid_shape,
    letters,
    panel_metrics,
)
from harmonicvae.report.comparison_tables import CONFIGURATION
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_label,
    select_models,
    study_columns,
)
from harmonicvae.report.drawing import (
    GREY,
    INK,
    MOST_POINTS,
    SERIES,
    STYLE,
    attack_parts,
    best_bounds,
    dataset_of,
    draw_brackets,
    draw_losses,
    draw_phases,
    floats,
    has_values,
    show_image,
)
from harmonicvae.report.harmonic_curves import (
    draw_bounds,
    draw_degrees,
    draw_spectrum,
    headline_spectrum,
)
from harmonicvae.report.panels import (
    draw_curve_attack,
    draw_curve_reconstructions,
    draw_image_attack,
)
from harmonicvae.report.pictures import as_images, is_curve, tile
from harmonicvae.report.reference import lipschitz_reference, load_reference

_SPECTRUM_TITLES = {
    "hermite": "Hermite weights W_k",
    "slice_power": "power on slices",
    "radial_power": "power of pictures",
}
Drawing = TypeVar("Drawing", bound=Callable[..., Any])


def _styled(draw: Drawing) -> Drawing:
    """Run a function under STYLE on top of matplotlib's own defaults."""

    @wraps(draw)
    def run(*args: Any, **kwargs: Any) -> Any:
        with style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return cast(Drawing, run)


@_styled
def save(figure: Figure, path_without_suffix: str | Path) -> tuple[Path, Path]:
    """Write a figure as SVG and PNG, the same bytes for the same figure.

    Parameters
    ----------
    figure : Figure
        Any figure of this module.
    path_without_suffix : str or Path
        ".svg" and ".png" are appended; the folder must exist.

    Returns
    -------
    svg, png : Path
    """
    stem = Path(path_without_suffix)
    svg, png = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not again for each format
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", metadata={"Software": None})
    return svg, png


@_styled
def plot_losses(history: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """Draw the loss over epochs, one panel a configuration.

    Parameters
    ----------
    history : DataFrame
        history.csv: model, epoch and train_loss, valid_loss or both; dashed lines and
        a legend tell them apart where there are both.
    models : DataFrame
        models.csv, for the configurations.

    Returns
    -------
    Figure
    """
    if not {names.MODEL, names.EPOCH} <= set(history.columns):
        raise InputError(f"{names.FILE_HISTORY} must have the columns model and epoch")
    configurations = all_configurations(study_columns(models))
    if not configurations:
        raise InputError("loss curves need at least one model, got none")
    columns = min(3, len(configurations))
    rows = ceil(len(configurations) / columns)
    figure = _figure(3.1 * columns + 0.4, 2.3 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, configuration in zip(grid, configurations, strict=False):
        members = select_models(models, configuration)[names.MODEL].tolist()
        draw_losses(axes, [history[history[names.MODEL] == model] for model in members])
        axes.set_title(_drawable(configuration_label(configuration)))
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[len(configurations) :]:
        axes.set_visible(False)
    for axes in grid[len(configurations) - columns : len(configurations)]:
        axes.tick_params(labelbottom=True)  # the lowest panel of each column
    figure.supxlabel("epoch", fontsize=9)
    if not has_values(history, names.VALID_LOSS):
        figure.supylabel("training loss per sample", fontsize=9)
        return figure
    figure.supylabel("loss per sample", fontsize=9)
    lines = [Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle="--")]
    figure.legend(lines, ["training", "validation"], loc="outside upper right", ncols=2)
    return figure


@_styled
def plot_reconstructions(
    originals: np.ndarray, reconstructions: np.ndarray, image_shape: Sequence[int]
) -> Figure:
    """Draw up to four samples and their reconstructions (figures 2–7 of the reproduction).

    Parameters
    ----------
    originals, reconstructions : ndarray of shape (k, d)
        Samples in [−1, 1] and their decoded mean codes; the first four are drawn.
    image_shape : (h, w, c) or (n, 2)
        Pictures in a 2×2 grid beside their originals, or curves f over t.

    Returns
    -------
    Figure
    """
    originals, reconstructions = originals[:4], reconstructions[:4]
    if is_curve(image_shape):
        figure = _figure()
        draw_curve_reconstructions(figure, originals, reconstructions, image_shape)
        return figure
    figure = _figure(4.4, 2.4)
    pair = (("original", originals), ("reconstruction", reconstructions))
    for axes, (title, samples) in zip(figure.subplots(1, 2), pair, strict=True):
        show_image(axes, tile(as_images(samples, image_shape), columns=2))
        axes.set_title(title)
    return figure


@_styled
def plot_spectra(
    originals: np.ndarray, reconstructions: np.ndarray, image_shape: Sequence[int]
) -> Figure:
    """Draw 20·log10 |FFT2| of the grey-scale pictures and of their reconstructions.

    Parameters
    ----------
    originals, reconstructions : ndarray of shape (k, d)
        Samples in [−1, 1] and their decoded mean codes; the first four are drawn.
    image_shape : (h, w, c)
        Shape of one picture.

    Returns
    -------
    Figure
        Frequency 0 in the middle of each spectrum, one colour scale for all.
    """
    pictures = (np.nan_to_num(samples[:4]) for samples in (originals, reconstructions))
    spectra = [log_spectra(samples, image_shape) for samples in pictures]
    high = max(float(spectrum.max()) for spectrum in spectra)
    figure = _figure(5.2, 2.4)
    panels = figure.subplots(1, 2)
    for axes, title, spectrum in zip(panels, ("original", "reconstruction"), spectra, strict=True):
        tiles = tile(spectrum, columns=2, fill=np.nan)
        drawn = show_image(axes, tiles, cmap="cividis", vmin=high - 80, vmax=high)
        axes.set_title(title)
    figure.colorbar(drawn, ax=list(panels), label="dB", shrink=0.9)
    return figure


@_styled
def plot_brackets(models: pd.DataFrame, reference: pd.DataFrame | None = None) -> Figure:
    """Draw the interval from lower to upper Lipschitz bound of every model.

    Parameters
    ----------
    models : DataFrame
        models.csv with lipschitz_lower_l2_* and lipschitz_upper_l2_* columns.
    reference : DataFrame or None, default=None
        Published values, drawn as marks; None loads those of the package.

    Returns
    -------
    Figure
        A panel each for decoder and encoder, logarithmic axis; an end that is
        missing, 0 or infinite is an arrow at the edge.
    """
    reference = load_reference() if reference is None else reference
    columns = study_columns(models)
    sides = {side: best_bounds(models, side) for side in columns}
    marks = {
        (side, pair): lipschitz_reference(reference, dataset_of(models), side, *pair)
        for side, members in columns.items()
        for pair in members
    }
    values = [bounds.to_numpy().ravel() for bounds in sides.values()]
    values += [np.array([mark["reproduction_mean"], mark["paper_mean"]]) for mark in marks.values()]
    flat = np.concatenate(values)
    flat = flat[np.isfinite(flat) & (flat > 0)]
    if not flat.size:
        raise InputError("no finite positive Lipschitz bound to draw")
    limits = (float(flat.min()) / 2, float(flat.max()) * 2)
    figure = _figure(9.4, 1.5 + 0.42 * max(map(len, columns.values())))
    for axes, (side, members) in zip(figure.subplots(1, 2), columns.items(), strict=True):
        labels = [_drawable(configuration_label(pair)) for pair in members]
        bounds = [sides[side].loc[select_models(models, pair).index].to_numpy() for pair in members]
        draw_brackets(axes, labels, bounds, [marks[side, pair] for pair in members], limits)
        axes.set_title(f"{side}: ℓ2 Lipschitz constant")
    handles = [
        Line2D([], [], color=SERIES[0], marker="|", markersize=7, linewidth=2),
        Line2D([], [], color=SERIES[1], marker="D", linestyle="", markersize=5),
        Line2D([], [], color=SERIES[2], marker="o", linestyle="", markersize=6),
    ]
    texts = ["ours: lower to upper bound, one line a model", "reproduction, mean", "paper, mean"]
    figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return figure


@_styled
def plot_attack(
    arrays: Mapping[str, np.ndarray], image_shape: Sequence[int], position: int = 0
) -> Figure:
    """Draw one attacked sample (figure 9 of the reproduction).

    Parameters
    ----------
    arrays : mapping of str to ndarray
        attack_radii (r,), attack_originals (m, d), attack_inputs (r, m, d),
        decodings (m, d) and attack_decodings (r, m, d).
    image_shape : (h, w, c) or (n, 2)
        Shape of one sample.
    position : int, default=0
        Which of the m attacked samples, 0 … m−1.

    Returns
    -------
    Figure
        Inputs x and x+δ, decodings g(p(x)) and g(p(x+δ)), and how far the
        attacked decodings are from the clean one.
    """
    radii, inputs, decodings = attack_parts(arrays, position)
    labels = ["original", *(f"C = {float(radius):g}" for radius in radii)]
    figure = _figure()
    draw = draw_curve_attack if is_curve(image_shape) else draw_image_attack
    draw(figure, labels, inputs, decodings, image_shape)
    return figure


@_styled
def plot_damage(attacks: pd.DataFrame, slope: float | None = None) -> Figure:
    """Draw the damage over the attack's radius, and the bound that no attack exceeds.

    Parameters
    ----------
    attacks : DataFrame
        attacks.csv: radius, method and damage, one row an image, radius and method.
    slope : float or None, default=None
        Product a·b of certified Lipschitz bounds; None draws no bound.

    Returns
    -------
    Figure
        Mean over images, and the range from 5 % to 95 % of them, for each method; beside it
        the same of the relative damage.
    """
    figure = _figure(9.4, 3.6)
    draw_damage(figure, attacks, slope)
    return figure


@_styled
def plot_margins(margins: pd.DataFrame) -> Figure:
    """Draw the share of images whose margin is at least R, a certified-accuracy-style curve.

    Parameters
    ----------
    margins : DataFrame
        margins.csv: relative_r, certified_margin and first_order_margin.

    Returns
    -------
    Figure
        Certified margins as full lines, first-order estimates dashed, one colour for each r.
    """
    figure = _figure(6.4, 3.8)
    draw_margins(figure, margins)
    return figure


@_styled
def plot_comparison(models: pd.DataFrame) -> Figure:
    """Draw compared models, one panel a main metric, grouped by configuration.

    Parameters
    ----------
    models : DataFrame
        As in :mod:`harmonicvae.report.comparison_tables`, with the column configuration.

    Returns
    -------
    Figure
        Filled points are compared models, hollow ones their seed siblings; mean and sd over
        seeds beside them; logarithmic axes where values span more than a factor of 20.
    """
    metrics = panel_metrics(models)
    named = letters(models[CONFIGURATION].tolist())
    rows, columns = grid_shape(len(metrics))
    figure = _figure(3.1 * columns + 0.4, 2.2 * rows + 0.5 + 0.2 * ceil(len(named) / 2))
    draw_comparison(figure, models, metrics)
    handles = [
        Line2D(
            [], [], linestyle="", marker=MARKERS[k % len(MARKERS)], color=SERIES[k % len(SERIES)]
        )
        for k in range(len(named))
    ]
    texts = [f"{letter}: {_drawable(label, 60)}" for label, letter in named.items()]
    figure.legend(handles, texts, loc="outside upper left", ncols=min(2, columns))
    return figure


@_styled
def plot_model_spectra(spectra: pd.DataFrame) -> Figure:
    """Draw the spectra of one model with their intervals.

    Parameters
    ----------
    spectra : DataFrame
        spectra.csv of one model.

    Returns
    -------
    Figure
        Hermite weights over degrees and power over frequency on slices; the power of pictures
        and reconstructions where there is one.
    """
    kinds = {"hermite": names.SIDES, "slice_power": names.SIDES}
    if (spectra[names.SPECTRUM] == "radial_power").any():
        kinds["radial_power"] = ("data", "reconstructions")
    figure = _figure(3.4 * len(kinds), 3.2)
    for axes, (kind, sides) in zip(figure.subplots(1, len(kinds)), kinds.items(), strict=True):
        groups = {side: headline_spectrum(spectra, side, kind) for side in sides}
        draw_spectrum(axes, groups, kind, bands=True)
        axes.set_title(_SPECTRUM_TITLES[kind])
        axes.legend(fontsize=8)
    return figure


@_styled
def plot_harmonics(spectra: pd.DataFrame, models: pd.DataFrame) -> Figure:
    """Draw the spectra of all configurations: decoders over σ_enc, encoders over σ_N.

    Parameters
    ----------
    spectra : DataFrame
        spectra.csv.
    models : DataFrame
        models.csv, for the configurations.

    Returns
    -------
    Figure
        Hermite weights (upper row) and power on slices (lower row), mean over models.
    """
    columns = study_columns(models)
    figure = _figure(9.4, 6.4)
    grid = figure.subplots(2, len(columns))
    for place, (side, members) in enumerate(columns.items()):
        for axes, kind in zip(grid[:, place], ("hermite", "slice_power"), strict=True):
            rows = headline_spectrum(spectra, side, kind)
            groups = {}
            for pair in members:
                chosen = select_models(models, pair)[names.MODEL]
                label = _drawable(configuration_label(pair))
                groups[label] = rows[rows[names.MODEL].isin(chosen)]
            draw_spectrum(axes, groups, kind, bands=False)
            axes.set_title(f"{side}: {_SPECTRUM_TITLES[kind]}")
        grid[0, place].legend(fontsize=8)
    return figure


@_styled
def plot_degrees(models: pd.DataFrame) -> Figure:
    """Draw the mean Hermite degree over σ, above the Lipschitz bounds.

    Parameters
    ----------
    models : DataFrame
        models.csv.

    Returns
    -------
    Figure
        Decoders over σ_enc and encoders over σ_N; mean over models with Student's 95 % interval,
        every model as a grey point.  Bounds: geometric mean and range over models.

    Raises
    ------
    InputError
        If no mean degree was measured.
    """
    columns, symbols = study_columns(models), {"decoder": "σ_enc", "encoder": "σ_N"}
    figure = _figure(9.4, 5.4)
    grid = figure.subplots(2, len(columns), sharex="col")
    for place, (side, members) in enumerate(columns.items()):
        kept = 0 if side == "decoder" else 1
        members = [pair for pair in members if isinstance(pair[kept], float)]
        own = sorted(pair for pair in members if pair[1 - kept] == members[0][1 - kept])
        column, bounds = names.harmonic_metric(names.MEAN_DEGREE, side), best_bounds(models, side)
        chosen = [select_models(models, pair) for pair in own]
        stds = [float(pair[kept]) for pair in own]  # type: ignore[arg-type]
        degrees = [floats(part[column]) if column in part else np.empty(0) for part in chosen]
        draw_degrees(grid[0, place], stds, [part[np.isfinite(part)] for part in degrees])
        draw_bounds(grid[1, place], stds, [bounds.loc[part.index].to_numpy() for part in chosen])
        grid[0, place].set_title(f"{side}: mean Hermite degree")
        grid[1, place].set_title(f"{side}: ℓ2 Lipschitz constant")
        grid[1, place].set_xlabel(symbols[side])
    handles, labels = grid[1, 0].get_legend_handles_labels()
    if labels:
        grid[1, 0].legend(handles, labels, fontsize=8)
    return figure


@_styled
def plot_load(load: pd.DataFrame) -> Figure:
    """Draw CPU use and memory over the study's time (figure 8 of the reproduction).

    Parameters
    ----------
    load : DataFrame
        load.csv: seconds and cpu_percent, memory_mib or both; phase if known.

    Returns
    -------
    Figure
    """
    wanted = {"cpu_percent": "CPU use (%)", "memory_mib": "memory (MiB)"}
    shown = {name: label for name, label in wanted.items() if name in load}
    if "seconds" not in load or not shown:
        raise InputError(f"{names.FILE_LOAD} must have the columns seconds and cpu_percent")
    load = load.iloc[:: ceil(len(load) / MOST_POINTS)]
    seconds = floats(load["seconds"])
    figure = _figure(9.4, 1.0 + 1.6 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        axes.plot(seconds, floats(load[name]), color=INK, linewidth=1.1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
    panels[-1].set_xlabel("seconds since the start")
    if "phase" in load:
        colors = list(draw_phases(panels, seconds, load["phase"].astype(str)).items())[:8]
        patches = [Patch(color=color, alpha=0.35) for _, color in colors]
        texts = [_drawable(phase) or "no phase" for phase, _ in colors]
        figure.legend(patches, texts, loc="outside upper right", ncols=4)
    return figure


def _drawable(text: str, limit: int = 48) -> str:
    """Return text cut to a length, with a box for what the font cannot draw."""
    glyphs = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() and glyphs.get_char_index(ord(c)) else "□" for c in text)


def _figure(width: float = 6.4, height: float = 4.8) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
