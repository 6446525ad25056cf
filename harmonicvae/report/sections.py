"""The sections of the report, each from the results alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import figures, markup, tables
from harmonicvae.report.configurations import all_configurations, configuration_label, select_models
from harmonicvae.report.pictures import is_curve
from harmonicvae.report.results import Results
from harmonicvae.report.summary import UNKNOWN, definition_parts, failed_models, summary_parts

SLOPE_NOTE = (
    "The reproduction's values were computed with an activation slope up to 1 (a sigmoid's is at "
    "most ¼: a factor of up to 64 over three hidden layers) and are, as the paper's, shown as "
    "published."
)


@dataclass(frozen=True)
class Writer:
    """Results, and where the tables and figures of their report are written.

    Parameters
    ----------
    results : Results
        What the report is about.
    tables, figures : Path
        Existing folders.
    spectra : bool
        Whether spectra are drawn beside reconstructions.
    """

    results: Results
    tables: Path
    figures: Path
    spectra: bool = False

    def table(self, name: str, table: pd.DataFrame, caption: str, *, row_headers: int = 1) -> str:
        """Write a table as CSV file and return it as HTML."""
        table.to_csv(self.tables / f"{name}.csv", index=False, lineterminator="\n")
        return markup.table_block(table, caption, row_headers=row_headers)

    def figure(
        self,
        name: str,
        draw: Callable[[], Any],
        alt: str,
        caption: str = "",
        *,
        vector: bool = True,
        wide: bool = False,
    ) -> str:
        """Write a figure as SVG and PNG and return it as HTML, or why it could not be drawn."""
        try:
            svg, png = figures.save(draw(), self.figures / name)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return markup.paragraph(f"{caption or alt}: not drawn; {error}", "note")
        return markup.picture(svg if vector else png, alt, caption, wide=wide)


def build_sections(writer: Writer) -> dict[str, str]:
    """Return title → HTML of every section, in the order of the page."""
    builders: dict[str, Callable[[Writer], Iterator[str]]] = {
        "Summary": lambda writer: summary_parts(writer.results),
        "Failures": _failures,
        "Configurations": _configurations,
        "Training": _training,
        "Reconstructions": _reconstructions,
        "Lipschitz constants": _lipschitz,
        "Attacks": _attacks,
        "Collapse": _collapse,
        "Machine load": _load,
        "Definitions": lambda writer: definition_parts(writer.results),
    }
    found = {title: list(build(writer)) for title, build in builders.items()}
    return {
        title: markup.section(markup.anchor(title), title, parts)
        for title, parts in found.items()
        if parts
    }


def _failures(writer: Writer) -> Iterator[str]:
    failed = failed_models(writer.results.study)
    if not failed:
        return
    yield markup.paragraph(f"Failed, and missing from every table below: {len(failed)}.", "warning")
    yield writer.table("failures", pd.DataFrame(failed), "Models that failed, and why")


def _configurations(writer: Writer) -> Iterator[str]:
    if writer.results.models.empty:
        yield markup.paragraph("No model was trained.", "note")
        return
    yield markup.paragraph(
        "The decoder column varies the encoder's standard deviation σ_enc, the encoder column "
        "the standard deviation σ_N of the noise added to the input during training."
    )
    table = tables.configuration_table(writer.results.models)
    yield writer.table("configurations", table, "Trained configurations", row_headers=2)


def _training(writer: Writer) -> Iterator[str]:
    results = writer.results
    if results.models.empty:
        yield markup.paragraph("No model was trained.", "note")
        return
    table = tables.training_table(results.models)
    yield writer.table("training", table, "Fit, mean ± sd over models", row_headers=2)
    if names.FILE_HISTORY in results.problems:
        yield markup.paragraph(f"No loss curves: {results.problems[names.FILE_HISTORY]}", "note")
        return
    yield writer.figure(
        "losses",
        lambda: figures.plot_losses(results.history, results.models),
        "Training and validation loss over epochs, one panel a configuration",
        "Loss over epochs; one colour a model (seed).",
        wide=True,
    )


def _reconstructions(writer: Writer) -> Iterator[str]:
    results = writer.results
    if results.models.empty:
        yield markup.paragraph("No model was trained.", "note")
        return
    kind = "Curves f over t" if is_curve(results.image_shape) else "Validation samples"
    yield markup.paragraph(
        f"{kind} and what the decoder makes of their mean codes (nothing is sampled). "
        + ("Both are drawn over the original t." if is_curve(results.image_shape) else "")
    )
    position = 0
    for configuration in _grid(results):
        yield markup.heading(configuration_label(configuration))
        drawn = []
        for row in select_models(results.models, configuration).to_dict("records"):
            position += 1
            drawn.append(_model_figures(writer, row, f"{position:02d}"))
        for kind_of_figure in zip(*drawn, strict=True):
            yield markup.gallery(kind_of_figure)


def _model_figures(writer: Writer, row: dict[Any, Any], number: str) -> list[str]:
    results, model = writer.results, str(row[names.MODEL])
    label = f"{model}, seed {row.get(names.SEED, UNKNOWN)}"
    shape, vector = results.image_shape, is_curve(results.image_shape)

    def draw(plot: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            arrays = results.arrays(model)
            return plot(arrays["originals"], arrays["reconstructions"], shape)

        return run

    parts = [
        writer.figure(
            f"reconstructions-{number}",
            draw(figures.plot_reconstructions),
            f"Originals and reconstructions of {label}",
            label,
            vector=vector,
        )
    ]
    if writer.spectra and not vector:
        alt = f"Spectra of originals and reconstructions of {label}"
        name = f"spectra-{number}"
        parts.append(writer.figure(name, draw(figures.plot_spectra), alt, alt, vector=False))
    return parts


def _lipschitz(writer: Writer) -> Iterator[str]:
    results = writer.results
    table = tables.lipschitz_table(results.models) if len(results.models) else pd.DataFrame()
    if table.empty:
        yield markup.paragraph("No Lipschitz bound was computed in this study.", "note")
    else:
        caption = "ℓ2 Lipschitz constants, mean ± sd over models, beside the published values"
        yield writer.table("lipschitz", table, caption, row_headers=3)
        yield from _unsound(table)
        if table["reproduction_mean"].notna().any():
            yield markup.paragraph(SLOPE_NOTE)
        yield writer.figure(
            "lipschitz",
            lambda: figures.plot_brackets(results.models),
            "Intervals from lower to upper Lipschitz bound for each configuration",
            "The true constant of a model lies on its line.",
            wide=True,
        )
    if names.FILE_BOUNDS in results.problems:
        yield markup.paragraph(f"No single bounds: {results.problems[names.FILE_BOUNDS]}", "note")
        return
    try:
        bounds = tables.bounds_table(results.bounds)
    except InputError as error:
        yield markup.paragraph(f"No single bounds: {error}", "note")
        return
    yield writer.table("bounds", bounds, "What each method guarantees, and its cost", row_headers=3)


def _unsound(table: pd.DataFrame) -> Iterator[str]:
    ratios = table["ratio_mean"] if "ratio_mean" in table else pd.Series(dtype=float)
    if (ratios < 1 - 1e-9).any():
        yield markup.paragraph(
            "A lower bound exceeds an upper bound: one of the two is wrong. Please report it.",
            "warning",
        )


def _attacks(writer: Writer) -> Iterator[str]:
    results = writer.results
    if names.FILE_ATTACKS in results.problems:
        yield markup.paragraph(f"No attack: {results.problems[names.FILE_ATTACKS]}", "note")
        return
    try:
        table = tables.attack_table(results.attacks, results.models)
    except InputError as error:
        yield markup.paragraph(f"No attack: {error}", "note")
        return
    yield markup.paragraph(
        "Largest damage ‖g(p(x+δ)) − g(p(x))‖₂ found over ‖δ‖₂ ≤ C; a stronger attack may find "
        "more, so each number is a lower bound on the maximum."
    )
    caption = "Maximum-damage attack, mean ± sd over models of the mean over images"
    yield writer.table("attacks", table, caption, row_headers=4)
    if "bound_ratio_max" in table and (table["bound_ratio_max"] > 1 + 1e-6).any():
        yield markup.paragraph(
            "A damage exceeds its upper bound a·b·C: one of the two is wrong. Please report it.",
            "warning",
        )
    if "paper_degradation" in table:
        yield markup.paragraph(
            "Table 4's values are of one image and a model with σ = 1.0; the reproduction's "
            "follows the formula mean(log|a−b| / log|a|), which is no likelihood."
        )
    panels = [
        _attack_figure(writer, configuration, f"attack-{number:02d}")
        for number, configuration in enumerate(_grid(results), start=1)
    ]
    yield "".join(panels) if is_curve(results.image_shape) else markup.gallery(panels)


def _attack_figure(writer: Writer, configuration: Any, name: str) -> str:
    results = writer.results
    model = str(select_models(results.models, configuration)[names.MODEL].iloc[0])
    label = f"{configuration_label(configuration)}: {model}"

    def draw() -> Any:
        return figures.plot_attack(results.arrays(model), results.image_shape)

    alt = f"Original and attacked inputs, their decodings and differences, {label}"
    curve = is_curve(results.image_shape)
    return writer.figure(name, draw, alt, label, vector=curve, wide=curve)


def _collapse(writer: Writer) -> Iterator[str]:
    models = writer.results.models
    table = tables.collapse_table(models) if len(models) else pd.DataFrame()
    if table.empty:
        yield markup.paragraph("No collapse diagnostic was computed in this study.", "note")
        return
    if names.COLLAPSED in table:
        count = int((table[names.COLLAPSED] == True).sum())  # noqa: E712 (None may be among them)
        kind = "warning" if count else "note"
        yield markup.paragraph(f"{count} of {len(table)} models collapsed.", kind)
    yield markup.paragraph(
        "A collapsed decoder ignores its code: no latent unit is active, or the decodings vary "
        "by less than 1 % of the data. Its Lipschitz constant says nothing about the noise."
    )
    yield writer.table("collapse", table, "Collapse diagnostic of each model")


def _load(writer: Writer) -> Iterator[str]:
    results = writer.results
    if names.FILE_LOAD in results.problems:
        yield markup.paragraph(f"No machine load: {results.problems[names.FILE_LOAD]}", "note")
        return
    yield writer.figure(
        "load",
        lambda: figures.plot_load(results.load),
        "CPU use and memory over the time of the study",
        "CPU use and memory over the study; colours are its phases.",
        wide=True,
    )


def _grid(results: Results) -> list[Any]:
    if results.models.empty:
        return []
    return all_configurations(tables.study_columns(results.models))
