"""Samples as panels of a given figure: reconstructed curves, attacked curves and pictures."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from harmonicvae.report.drawing import INK, SERIES, show_image
from harmonicvae.report.pictures import as_curves, as_images, tile


def draw_curve_reconstructions(
    figure: Any, originals: np.ndarray, reconstructions: np.ndarray, image_shape: Sequence[int]
) -> None:
    """Draw curves f over t and their reconstructions, two a row; sets the figure's size."""
    f, t = as_curves(originals, image_shape)
    decoded, _ = as_curves(reconstructions, image_shape)
    columns = min(2, len(f))
    rows = ceil(len(f) / columns)
    figure.set_size_inches(2.0 * columns + 1.6, 1.5 * rows + 0.9)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(grid.ravel()):
        if index >= len(f):
            axes.set_visible(False)
            continue
        axes.locator_params(nbins=4)
        axes.plot(t[index], f[index], color=INK, label="original")
        axes.plot(t[index], decoded[index], "--", color=SERIES[1], label="reconstruction")
    figure.supxlabel("t", fontsize=9)
    figure.supylabel("f", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)


def draw_image_attack(
    figure: Any,
    labels: Sequence[str],
    inputs: np.ndarray,
    decodings: np.ndarray,
    image_shape: Sequence[int],
) -> None:
    """Draw rows of inputs, decodings and change of the decoding; sets the figure's size."""
    count = len(labels)
    pictures = [as_images(samples, image_shape) for samples in (inputs, decodings)]
    change = np.abs(decodings - decodings[0]).reshape(count, *image_shape).mean(axis=3)
    change = np.nan_to_num(change, nan=0.0, posinf=0.0)
    figure.set_size_inches(1.5 * count + 0.5, 5.3)
    panels = figure.subplots(3, 1)
    for axes, row in zip(panels, pictures, strict=False):
        show_image(axes, tile(row, columns=count, gap=2))
    tiles = tile(change, columns=count, gap=2, fill=np.nan)
    drawn = show_image(panels[2], tiles, cmap="cividis", vmin=0)
    label = "|change|, mean over channels"
    figure.colorbar(drawn, ax=list(panels), location="bottom", aspect=40, label=label)
    pitch = image_shape[1] + 2
    panels[0].set_xticks([pitch * k + image_shape[1] / 2 for k in range(count)], labels)
    panels[0].tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for axes, label in zip(panels, ("input", "decoding", "change of\ndecoding"), strict=True):
        axes.set_ylabel(label)


def draw_curve_attack(
    figure: Any,
    labels: Sequence[str],
    inputs: np.ndarray,
    decodings: np.ndarray,
    image_shape: Sequence[int],
) -> None:
    """Draw attacked curves f over the t of the original; sets the figure's size."""
    f, t = as_curves(inputs, image_shape)
    decoded, _ = as_curves(decodings, image_shape)
    figure.set_size_inches(9.4, 2.9)
    titles = ("input", "decoding", "change of decoding")
    panels = figure.subplots(1, 3, sharex=True)
    for axes, title, curves in zip(panels, titles, (f, decoded, decoded - decoded[0]), strict=True):
        axes.set_title(title)
        axes.locator_params(nbins=5)
        for index, curve in enumerate(curves):
            color = SERIES[(index - 1) % len(SERIES)] if index else INK
            line = ("-", "--", "-.", ":")[index % 4]
            axes.plot(t[0], curve, line, color=color, label=labels[index])
    figure.supxlabel("t", fontsize=9)
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper right", ncols=len(texts))
