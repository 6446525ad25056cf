"""The samples in the report: reconstructions of every model, one attack a configuration."""

from collections.abc import Callable, Iterator
from typing import Any

from harmonicvae import names
from harmonicvae.report import figures, markup
from harmonicvae.report.configurations import (
    Configuration,
    all_configurations,
    configuration_label,
    select_models,
    study_columns,
)
from harmonicvae.report.pictures import is_curve
from harmonicvae.report.results import Results
from harmonicvae.report.summary import UNKNOWN
from harmonicvae.report.writer import Writer

CUT_NOTE = "Pictures show values cut to [−1, 1]."


def reconstruction_parts(writer: Writer) -> Iterator[str]:
    """Return the figures of all models, under their configuration if one has several."""
    results = writer.results
    if results.models.empty:
        yield markup.paragraph("No model was trained.", "note")
        return
    curve = is_curve(results.image_shape)
    yield markup.paragraph(
        f"{'Curves f over t' if curve else 'Validation samples'} and what the decoder makes of "
        "their mean codes (nothing is sampled). "
        + ("Both are drawn over the original t." if curve else CUT_NOTE)
    )
    groups = [
        (configuration_label(pair), select_models(results.models, pair).to_dict("records"))
        for pair in _grid(results)
    ]
    position, drawn = 0, []
    headings = any(len(rows) > 1 for _, rows in groups)
    for label, rows in groups:
        if headings:
            yield markup.heading(label)
        for row in rows:
            position += 1
            place = "" if headings else f"{label}; "
            drawn.append(_model_figures(writer, row, f"{position:02d}", place))
        if headings:
            yield from _galleries(drawn)
            drawn = []
    yield from _galleries(drawn)


def attack_parts(writer: Writer) -> Iterator[str]:
    """Return one attacked sample of the first model of every configuration."""
    results = writer.results
    panels = [
        _attack_figure(writer, configuration, f"attack-{number:02d}")
        for number, configuration in enumerate(_grid(results), start=1)
    ]
    if is_curve(results.image_shape):
        yield "".join(panels)
        return
    yield markup.paragraph(f"One attacked sample a configuration. {CUT_NOTE}")
    yield markup.gallery(panels)


def _galleries(drawn: list[list[str]]) -> Iterator[str]:
    """Return a gallery for each kind of figure."""
    for kind in zip(*drawn, strict=True):
        yield markup.gallery(kind)


def _model_figures(writer: Writer, row: dict[Any, Any], number: str, place: str) -> list[str]:
    results, model = writer.results, str(row[names.MODEL])
    seed = f"seed {row.get(names.SEED, UNKNOWN)}"
    label = f"{model}, {seed}"
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
            f"{place}{seed}",
            vector=vector,
        )
    ]
    if writer.spectra and not vector:
        alt = f"Spectra of originals and reconstructions of {label}"
        name = f"spectra-{number}"
        caption = f"{place}{seed}: spectra"
        parts.append(writer.figure(name, draw(figures.plot_spectra), alt, caption, vector=False))
    return parts


def _attack_figure(writer: Writer, configuration: Configuration, name: str) -> str:
    results = writer.results
    model = str(select_models(results.models, configuration)[names.MODEL].iloc[0])
    label = f"{configuration_label(configuration)}: {model}"

    def draw() -> Any:
        return figures.plot_attack(results.arrays(model), results.image_shape)

    alt = f"Original and attacked inputs, their decodings and differences, {label}"
    curve = is_curve(results.image_shape)
    return writer.figure(name, draw, alt, label, vector=curve, wide=curve)


def _grid(results: Results) -> list[Configuration]:
    if results.models.empty:
        return []
    return all_configurations(study_columns(results.models))
