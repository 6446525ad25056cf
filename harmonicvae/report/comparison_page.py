"""One self-contained HTML page of a comparison, its tables as CSV and its figure."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pandas as pd

from harmonicvae import names
from harmonicvae._version import __version__
from harmonicvae.report import figures, markup
from harmonicvae.report.comparison_panels import letters, seed_note
from harmonicvae.report.comparison_tables import COMPARED, CONFIGURATION, ORDER
from harmonicvae.report.comparison_views import (
    configurations_view,
    differences_view,
    missing_lines,
    models_view,
    parameters_view,
    side_by_side,
    sources_view,
)
from harmonicvae.report.metric_groups import compared_metrics


@dataclass(frozen=True, kw_only=True)
class ComparisonTables:
    """What a comparison page shows.

    Parameters
    ----------
    models, configurations, differences, missing : DataFrame
        As :mod:`harmonicvae.report.comparison_tables` makes them.
    sources : DataFrame
        model, evaluator, metric, run_id and how it was evaluated.
    baseline : str
        Model whose configuration the others are compared with.
    notes : tuple of str
        What was left out, and what may not be comparable.
    decisions : DataFrame
        model, rule, passed, reason; no rows without rules.
    sentence : str
        What became of the alias.
    facts : mapping of str to str
        Command, store and the like, for the summary.
    """

    models: pd.DataFrame
    configurations: pd.DataFrame
    differences: pd.DataFrame
    missing: pd.DataFrame
    sources: pd.DataFrame
    baseline: str
    notes: tuple[str, ...] = ()
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    sentence: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def write_comparison(comparison: ComparisonTables, folder: str | Path) -> Path:
    """Write comparison.html, the tables as CSV and the figure as SVG and PNG.

    Parameters
    ----------
    comparison : ComparisonTables
    folder : str or Path
        Made if absent; former files of the same names are replaced.

    Returns
    -------
    Path
        The page.  It needs no other file and no network.
    """
    output = Path(folder)
    (output / "figures").mkdir(parents=True, exist_ok=True)
    for name, table in (
        (names.FILE_COMPARED_MODELS, comparison.models.drop(columns=ORDER, errors="ignore")),
        (names.FILE_CONFIGURATIONS, comparison.configurations),
        (names.FILE_DIFFERENCES, comparison.differences),
        (names.FILE_SOURCES, comparison.sources),
        (names.FILE_DECISIONS, comparison.decisions),
    ):
        table.to_csv(output / name, index=False, lineterminator="\n")
    parts = {
        "Summary": _summary(comparison),
        "Models": _models(comparison),
        "Configurations": _configurations(comparison, output / "figures"),
        "Differences": _differences(comparison),
        "Sources": _sources(comparison),
        "Definitions": _definitions(),
    }
    compared = comparison.models[comparison.models[COMPARED]]
    text = markup.page(
        title="Comparison of models",
        lead=f"{len(compared)} models side by side, with the spread over seeds of their "
        "configurations.",
        css=files("harmonicvae.report").joinpath("style.css").read_text(encoding="utf-8"),
        sections={
            name: markup.section(markup.anchor(name), name, part) for name, part in parts.items()
        },
        footer=f"Written by harmonicvae {__version__}. The tables stand as CSV files and the "
        "figure as SVG and PNG beside this page.",
    )
    path = output / names.FILE_COMPARISON
    draft = path.with_suffix(".html.tmp")
    draft.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(draft, path)
    return path


def _summary(comparison: ComparisonTables) -> Iterator[str]:
    models = comparison.models
    compared = models[models[COMPARED]]
    base = compared.loc[compared[names.MODEL] == comparison.baseline, CONFIGURATION].iloc[0]
    siblings = len(models) - len(compared)
    yield markup.facts(
        {
            "Models": ", ".join(compared[names.MODEL]),
            "Seed siblings": f"{siblings} other versions that differ in the seed alone"
            if siblings
            else "none found or none asked for",
            "Baseline": f"{comparison.baseline}: {base}",
            **comparison.facts,
        }
    )
    if comparison.sentence:
        yield markup.heading("Promotion")
        yield markup.paragraph(comparison.sentence, "note")
    if len(comparison.decisions):
        yield markup.table_block(comparison.decisions, "Rules, all of which must hold")
    yield from (markup.paragraph(note, "warning") for note in comparison.notes)


def _models(comparison: ComparisonTables) -> Iterator[str]:
    yield markup.table_block(parameters_view(comparison.models), "Who is compared")
    metrics = compared_metrics(map(str, comparison.models.columns))
    table = side_by_side(models_view(comparison.models, metrics))
    caption = "Fit, ℓ2 Lipschitz bounds, maximum damage at each radius C, and margins"
    yield markup.table_block(table, caption)
    for line in missing_lines(comparison.missing, comparison.models):
        yield markup.paragraph(line, "note")


def _configurations(comparison: ComparisonTables, folder: Path) -> Iterator[str]:
    yield markup.paragraph(
        "Mean ± sd over n seeds; models that differ in the seed alone are one configuration. "
        "Of two versions of one seed the newest counts, a compared one before one that is not."
    )
    yield markup.table_block(
        side_by_side(configurations_view(comparison.configurations)), "Mean ± sd over seeds"
    )
    try:
        svg, _ = figures.save(figures.plot_comparison(comparison.models), folder / "comparison")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        yield markup.paragraph(f"No figure: {error}", "note")
        return
    named = letters(comparison.models[CONFIGURATION].tolist())
    alt = "Main metrics of every model, one panel a metric, grouped by configuration: " + "; ".join(
        f"{letter} {label}" for label, letter in named.items()
    )
    yield markup.picture(svg, alt, seed_note(comparison.models), wide=True)


def _differences(comparison: ComparisonTables) -> Iterator[str]:
    if comparison.differences.empty:
        yield markup.paragraph(
            "Only one configuration of the baseline's data set: nothing to compare.", "note"
        )
        return
    yield markup.paragraph(
        "Mean of a configuration minus that of the baseline's, with Welch's 95 % interval. A "
        "difference whose interval holds 0 is within what other seeds alone would do. Among "
        "twenty metrics without any difference, one interval leaves 0 out by chance."
    )
    for label, group in comparison.differences.groupby(CONFIGURATION, sort=False):
        yield markup.heading(str(label))
        table = differences_view(group)
        if table.empty:
            yield markup.paragraph("No metric was measured on both sides.", "note")
        else:
            yield markup.table_block(table, f"Minus the configuration of {comparison.baseline}")


def _sources(comparison: ComparisonTables) -> Iterator[str]:
    table = sources_view(comparison.sources)
    if table.empty:
        yield markup.paragraph("No metric was found.", "note")
        return
    yield markup.paragraph(
        "Where several runs measured the same metric, that which ended last counts. sources.csv "
        "lists every single metric."
    )
    yield markup.table_block(table, "Runs that the metrics come from")


def _definitions() -> Iterator[str]:
    yield markup.facts(
        {
            "Lower and upper bound": "The ℓ2 Lipschitz constant of encoder mean or decoder is at "
            "least the one, shown by an input, and at most the other, for every input. Their "
            "ratio is 1 where the constant is known.",
            "ELBO": "Evidence lower bound in nats per validation sample, unit-variance decoder, "
            "constant included; larger is better.",
            "Squared error": "‖x − g(p(x))‖² per validation sample; smaller is better.",
            "Damage": "‖g(p(x+δ)) − g(p(x))‖₂ of the strongest attack found with ‖δ‖₂ ≤ C, mean "
            "and maximum over images; a stronger attack may find more.",
            "Damage / abC": "Damage over its upper bound, the product of both certified upper "
            "bounds and C; at most 1.",
            "Certified margin": "Radius within which a reconstruction provably keeps within r "
            "with probability above ½, mean over images; r is a multiple of ‖g(p(x))‖₂.",
            "First-order margin": "An estimate of the same, no bound.",
            "Beyond the seed-to-seed spread": "Welch's 95 % interval of the difference of means "
            "leaves 0 out: more than other seeds alone would do. It is a statement about means of "
            "configurations, not about two single models.",
            "No spread known": "One of the two sides has one seed only; the difference may be "
            "that of the seeds.",
            "–": "Not measured, NaN, or left out for the reason given above.",
        },
        "terms",
    )
