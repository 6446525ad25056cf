"""Draw the figures of README, study page and EXPERIMENTS.md from the files in results/ only.

    python docs/figures.py

The figures of one study alone are those of its report; here stand the ones that compare data
sets, and the report's own for the first seed of sinc and CIFAR10, whose few samples are kept in
results/.  CelebA's licence forbids to pass images on: its pictures are in your own report.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import discrepancy_table, figures, lipschitz_table
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_label,
    select_models,
    study_columns,
)
from harmonicvae.report.drawing import GREY, INK, SERIES, STYLE, power_label
from harmonicvae.report.results import Results, load_results

ROOT = Path(__file__).resolve().parents[1]
STUDIES, FOLDER = ROOT / "results" / "paper", ROOT / "docs" / "figures"
CONVOLUTIONS = ROOT / "results" / "conv"
TITLES = {names.SINC: "sinc", names.CIFAR10: "CIFAR10", names.CELEBA: "CelebA (subset)"}
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = SERIES


def studies() -> dict[str, Results]:
    """Return the studies of paper length on record, by data set."""
    return {
        name: load_results(STUDIES / name)
        for name in TITLES
        if (STUDIES / name / names.FILE_STUDY).exists()
    }


def cell_label(side: str, std: float, noise: float) -> str:
    """Return the label of a cell of the study's tables."""
    return f"decoder, σ_enc = {std:g}" if side == "decoder" else f"encoder, σ_N = {noise:g}"


def new_figure(width: float, height: float, columns: int) -> tuple[Figure, Any]:
    """Return a figure with one row of panels that share their rows."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    return figure, axes


def finish(axes: Any, title: str, labels: list[str], *, first: bool) -> None:
    """Set what all panels have in common."""
    axes.set_title(title)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: power_label(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(False, axis="y")
    if first:
        axes.set_yticks(range(len(labels)), labels)
    else:
        axes.tick_params(labelleft=False)


def study_rows(results: Results) -> pd.DataFrame:
    """Return the six cells of the study's table, decoder column first."""
    table = lipschitz_table(results.models)
    wanted = table["reproduction_mean"].notna()
    return table[wanted].reset_index(drop=True)


def constants() -> Figure:
    """Draw the interval from lower to certified upper bound beside the published values."""
    found = {TITLES[name]: results for name, results in studies().items()}
    for folder in sorted(CONVOLUTIONS.glob("*")):
        found[f"{TITLES[folder.name]}, convolutions"] = load_results(folder)
    figure, panels = new_figure(2.2 + 2.5 * len(found), 3.5, len(found))
    labels: list[str] = []
    for position, (axes, (title, results)) in enumerate(zip(panels, found.items(), strict=True)):
        rows = study_rows(results)
        upper = "upper_best" if "upper_best_mean" in rows else "upper_lipsdp_neuron"
        labels = [
            cell_label(row[names.SIDE], row[names.ENCODER_STD], row[names.INPUT_NOISE_STD])
            for _, row in rows.iterrows()
        ]
        for index, row in rows.iterrows():
            ends = [row["lower_mean"], row[f"{upper}_mean"]]
            axes.plot(ends, [index, index], "o-", color=BLUE, linewidth=4, markersize=5)
            axes.plot(row["paper_mean"], index, "x", color=INK, markersize=7, markeredgewidth=1.8)
            axes.plot(row["reproduction_mean"], index, "^", color=VERMILION, markersize=7)
        finish(axes, title, labels, first=position == 0)
        axes.set_xlabel("ℓ2 Lipschitz constant")
    handles = [
        panels[0].plot([], [], "o-", color=BLUE, linewidth=4, markersize=5)[0],
        panels[0].plot([], [], "x", color=INK, markersize=7, markeredgewidth=1.8)[0],
        panels[0].plot([], [], "^", color=VERMILION, markersize=7)[0],
    ]
    texts = ["here: from lower to certified upper bound", "paper", "2022 reproduction"]
    figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return figure


def factors() -> Figure:
    """Draw what the errors of evaluation and of training make of the right constant."""
    found = {name: results for name, results in studies().items() if len(results.discrepancy)}
    figure, panels = new_figure(9.6, 3.7, len(found))
    marks = (
        ("right", "o", BLUE, "done right (LipSDP-Neuron, slope ¼)"),
        ("evaluated", "s", ORANGE, "+ slope 1 and single matrices"),
        ("all_errors", "D", GREEN, "+ errors of training"),
        ("published", "^", VERMILION, "2022 reproduction, its seeds"),
        ("paper", "x", INK, "paper"),
    )
    for position, (axes, (name, results)) in enumerate(zip(panels, found.items(), strict=True)):
        table = discrepancy_table(results.discrepancy)
        table = table[table["published"].notna()].reset_index(drop=True)
        table = table.assign(evaluated=table["right"] * table["evaluation"])
        labels = [
            cell_label(row[names.SIDE], row[names.ENCODER_STD], row[names.INPUT_NOISE_STD])
            for _, row in table.iterrows()
        ]
        for index, row in table.iterrows():
            axes.plot(
                [row["published_low"], row["published_high"]],
                [index, index],
                "-",
                color=VERMILION,
                linewidth=1.2,
            )
            axes.plot(
                [row["right"], row["all_errors"]], [index, index], "-", color="#C9C9C9", zorder=0
            )
        for column, marker, color, _ in marks:
            axes.plot(table[column], table.index, marker, color=color, markersize=6)
        finish(axes, TITLES[name], labels, first=position == 0)
    panels[len(panels) // 2].set_xlabel("reported ℓ2 Lipschitz constant")
    handles = [
        panels[0].plot([], [], marker, color=color, markersize=6)[0]
        for _, marker, color, _ in marks
    ]
    figure.legend(handles, [mark[-1] for mark in marks], loc="outside lower center", ncols=3)
    return figure


def harmonics() -> Figure:
    """Draw mean degree and share of high frequencies over σ, every seed a point."""
    found = studies()
    figure = Figure(figsize=(9.6, 5.0))
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2, squeeze=False)
    quantities = (
        (names.MEAN_DEGREE, "mean Hermite degree"),
        (names.HIGH_FREQUENCY_SHARE, "share of power above 4 cycles"),
    )
    for row, (metric, label) in enumerate(quantities):
        for column, side in enumerate(("decoder", "encoder")):
            axes = grid[row][column]
            for index, (name, results) in enumerate(found.items()):
                _draw_over_std(axes, results, side, metric, SERIES[index], TITLES[name])
            if metric == names.HIGH_FREQUENCY_SHARE:
                axes.yaxis.set_major_formatter(lambda value, _: f"{value * 1e4:.3g}·10⁻⁴")
            axes.set_ylabel(label)
            axes.set_title(f"{side}")
            axes.set_xlabel("σ_enc" if side == "decoder" else "σ_N")
    grid[0][0].legend()
    return figure


def _draw_over_std(
    axes: Any, results: Results, side: str, metric: str, color: str, label: str
) -> None:
    """Draw one quantity of one side over the σ that its column varies."""
    column = names.harmonic_metric(metric, side)
    if column not in results.models:
        return
    place = 0 if side == "decoder" else 1
    pairs = sorted(study_columns(results.models)[side], key=lambda pair: float(pair[place]))  # type: ignore[arg-type]
    stds, means = [], []
    for pair in pairs:
        values = select_models(results.models, pair)[column].to_numpy(dtype=float)
        stds.append(float(pair[place]))  # type: ignore[arg-type]
        means.append(np.nanmean(values))
        axes.plot([stds[-1]] * len(values), values, ".", color=GREY, markersize=4)
    axes.plot(stds, means, "o-", color=color, markersize=4, label=label)


def samples(name: str) -> dict[str, Figure]:
    """Return the report's figures of the samples kept of one data set."""
    results = load_results(STUDIES / name)
    drawn: dict[str, Figure] = {}
    for pair in all_configurations(study_columns(results.models)):
        model = str(select_models(results.models, pair)[names.MODEL].iloc[0])
        try:
            arrays = results.arrays(model)
        except InputError:
            continue
        stem = _stem(pair)
        shape = results.image_shape
        figure = figures.plot_reconstructions(arrays["originals"], arrays["reconstructions"], shape)
        drawn[f"{name}-reconstructions-{stem}"] = figure
        if len(shape) == 3:
            drawn[f"{name}-spectra-{stem}"] = figures.plot_spectra(
                arrays["originals"], arrays["reconstructions"], shape
            )
        if "attack_originals" in arrays:
            drawn[f"{name}-attack-{stem}"] = figures.plot_attack(arrays, shape)
    return drawn


def study_figures(name: str) -> dict[str, Figure]:
    """Return the report's figures over σ and over time of one data set."""
    results = load_results(STUDIES / name)
    drawn = {f"{name}-degrees": figures.plot_degrees(results.models)}
    if len(results.load):
        drawn[f"{name}-load"] = figures.plot_load(results.load)
    if len(results.spectra):
        drawn[f"{name}-spectra"] = figures.plot_harmonics(results.spectra, results.models)
    return drawn


def captions() -> dict[str, str]:
    """Return the caption of every figure of one data set that is drawn, by its stem."""
    told: dict[str, str] = {}
    for name, results in studies().items():
        title = TITLES[name]
        told[f"{name}-degrees"] = f"{title}: mean Hermite degree and Lipschitz bounds over σ"
        told[f"{name}-spectra"] = f"{title}: Hermite weights and power over frequency"
        told[f"{name}-load"] = f"{title}: load of the machine over the study (figure 8)"
        if name == names.CELEBA:
            continue
        for pair in all_configurations(study_columns(results.models)):
            where = f"{title}, {configuration_label(pair)}"
            stem = _stem(pair)
            told[f"{name}-reconstructions-{stem}"] = f"{where}: reconstructions (figures 2–7)"
            told[f"{name}-spectra-{stem}"] = f"{where}: 20·log10 of the spectra of the pictures"
            told[f"{name}-attack-{stem}"] = f"{where}: the attack (figure 9)"
    return {stem: text for stem, text in told.items() if (FOLDER / f"{stem}.png").exists()}


def _stem(pair: tuple[object, object]) -> str:
    """Return the part of a file's name that says σ_enc and σ_N."""
    return f"e{float(pair[0]):g}-n{float(pair[1]):g}".replace(".", "_")  # type: ignore[arg-type]


def main() -> None:
    """Write every figure as PNG."""
    FOLDER.mkdir(exist_ok=True)
    drawn: dict[str, Figure] = {}
    with style.context(STYLE, after_reset=True):
        drawn |= {"constants": constants(), "factors": factors(), "harmonics": harmonics()}
    for name in studies():
        drawn |= study_figures(name)
        if name != names.CELEBA:
            drawn |= samples(name)
    for stem, figure in drawn.items():
        with style.context(STYLE, after_reset=True):
            figure.savefig(FOLDER / f"{stem}.png", metadata={"Software": None})
        print(stem)


if __name__ == "__main__":
    sys.exit(main())
