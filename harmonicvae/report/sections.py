"""The sections of the report, each from the results alone."""

from collections.abc import Callable, Iterator

import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import figures, markup, tables
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_label,
    select_models,
    study_columns,
)
from harmonicvae.report.discrepancy import discrepancy_table
from harmonicvae.report.drawing import has_values
from harmonicvae.report.harmonic_tables import harmonic_table
from harmonicvae.report.margin_tables import margin_table
from harmonicvae.report.samples import attack_parts, reconstruction_parts
from harmonicvae.report.sentences import findings
from harmonicvae.report.summary import (
    attacked_rows,
    collapsed_models,
    definition_parts,
    evaluated_rows,
    failed_models,
    failure_lines,
    summary_parts,
)
from harmonicvae.report.trends import trend_table
from harmonicvae.report.writer import Writer

SLOPE_NOTE = (
    "The reproduction's values were computed with an activation slope up to 1 (a sigmoid's is at "
    "most ¼: a factor of up to 64 over three hidden layers) and are, as the paper's, shown as "
    "published."
)


def build_sections(writer: Writer) -> dict[str, str]:
    """Return title → HTML of every section, in the order of the page."""
    builders: dict[str, Callable[[Writer], Iterator[str]]] = {
        "Summary": lambda writer: summary_parts(writer.results),
        "Findings": _findings,
        "Failures": _failures,
        "Configurations": _configurations,
        "Training": _training,
        "Reconstructions": reconstruction_parts,
        "Lipschitz constants": _lipschitz,
        "Discrepancy": _discrepancy,
        "Attacks": _attacks,
        "Margins": _margins,
        "Harmonics": _harmonics,
        "Trends": _trends,
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


def _findings(writer: Writer) -> Iterator[str]:
    for heading, sentences in findings(writer.results).items():
        yield markup.heading(heading)
        yield markup.bullets(sentences)


def _failures(writer: Writer) -> Iterator[str]:
    failed = failed_models(writer.results)
    if not failed:
        return
    for text in failure_lines(failed):
        yield markup.paragraph(f"{text}.", "warning")
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
    yield writer.table(
        "training", table, "Fit on the validation samples, mean ± sd over models", row_headers=2
    )
    if names.FILE_HISTORY in results.problems:
        yield markup.paragraph(f"No loss curves: {results.problems[names.FILE_HISTORY]}", "note")
        return
    validated = has_values(results.history, names.VALID_LOSS)
    drawn = "Training and validation loss" if validated else "Training loss"
    yield writer.figure(
        "losses",
        lambda: figures.plot_losses(results.history, results.models),
        f"{drawn} over epochs, one panel a configuration",
        f"{drawn} over epochs; one colour a model (seed).",
        wide=True,
    )


def _lipschitz(writer: Writer) -> Iterator[str]:
    results = writer.results
    table = tables.lipschitz_table(results.models) if len(results.models) else pd.DataFrame()
    if table.empty:
        yield markup.paragraph("No Lipschitz bound was computed in this study.", "note")
    else:
        caption = "ℓ2 Lipschitz constants, mean ± sd over models, beside the published values"
        yield writer.table("lipschitz", table, caption, row_headers=3)
        yield from _unsound(table)
        rows = evaluated_rows(results.study)
        if rows:
            yield markup.paragraph(
                f"The points of the lower bounds were taken from {rows}; an upper bound holds for "
                "every input."
            )
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


def _discrepancy(writer: Writer) -> Iterator[str]:
    results = writer.results
    if results.discrepancy.empty:
        return
    try:
        table = discrepancy_table(results.discrepancy)
    except InputError as error:
        yield markup.paragraph(f"No factors: {error}", "note")
        return
    yield markup.paragraph(
        "What each error of the reproduction does to the reported constant, one at a time: the "
        "value with it over the value without. Done right: LipSDP-Neuron with a sigmoid's own "
        "slope range [0, ¼]. Both of evaluation: slope 1 and single matrices on the right "
        "models. All errors: those of training too."
    )
    yield writer.table(
        "discrepancy", table, "The reproduction's constants taken apart", row_headers=4
    )


def _trends(writer: Writer) -> Iterator[str]:
    models = writer.results.models
    table = trend_table(models) if len(models) else pd.DataFrame()
    if table.empty:
        return
    yield markup.paragraph(
        "The study's claim: the decoder's quantities fall as σ_enc grows, the encoder's as σ_N "
        "grows. In order: seeds in which the quantity falls at every step of σ. Largest σ over "
        "smallest: geometric mean over seeds with Student's 95 % interval of its logarithm; "
        "below 1 it falls. Bounds are bounds of the constant, not the constant."
    )
    yield writer.table("trends", table, "Does a quantity fall as the noise grows?", row_headers=3)


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
    if table.empty:
        yield markup.paragraph("No attack on any of the models.", "note")
        return
    yield markup.paragraph(
        "Largest damage ‖g(p(x+δ)) − g(p(x))‖₂ found over ‖δ‖₂ ≤ C; a stronger attack may find "
        "more, so each number is a lower bound on the maximum."
    )
    rows = attacked_rows(results)
    if rows:
        yield markup.paragraph(f"Attacked: {rows}.")
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
    yield writer.figure(
        "damage",
        lambda: figures.plot_damage(_by_configuration(results.attacks, results.models)),
        "Damage over the radius of the attack, one line a configuration",
        "Mean over the images of all models of a configuration.",
        wide=True,
    )
    yield from attack_parts(writer)


def _by_configuration(attacks: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return the strongest attack on every image, with its configuration as the method."""
    keys = [names.MODEL, names.IMAGE, names.RADIUS]
    strongest = attacks.sort_values(names.DAMAGE).drop_duplicates(keys, keep="last")
    parts = [
        strongest[strongest[names.MODEL].isin(select_models(models, pair)[names.MODEL])].assign(
            method=configuration_label(pair)
        )
        for pair in all_configurations(study_columns(models))
    ]
    return pd.concat(parts)


def _margins(writer: Writer) -> Iterator[str]:
    results = writer.results
    if names.FILE_MARGINS in results.problems:
        return
    try:
        table = margin_table(results.margins, results.models)
    except InputError as error:
        yield markup.paragraph(f"No margins: {error}", "note")
        return
    yield markup.paragraph(
        "A reconstruction is r-robust within R if P(‖g(z′) − g(z)‖₂ ≤ r) > ½ for every ‖δ‖₂ < R, "
        "z and z′ the codes of x and x + δ; r is a multiple of ‖g(p(x))‖₂ of each image. Certified "
        "margins follow from certified Lipschitz bounds; the first-order margin is an estimate; "
        "the robustness is simulated at the perturbations that the attacks found."
    )
    yield writer.table("margins", table, "Margins, mean ± sd over models", row_headers=3)


def _harmonics(writer: Writer) -> Iterator[str]:
    results = writer.results
    table = harmonic_table(results.models) if len(results.models) else pd.DataFrame()
    if table.empty:
        return
    yield markup.paragraph(
        "Sampled estimates, no bounds. The decoder under the prior N(0, I), the encoder under "
        "N(x, σ²I) around data. Mean degree = σ²·E‖J‖² / variance: 1 for an affine map, larger the "
        "more the map oscillates. Centroid and share above four cycles: of the power along random "
        "lines."
    )
    yield writer.table(
        "harmonics", table, "Harmonic analysis, mean ± sd over models", row_headers=3
    )
    yield writer.figure(
        "degrees",
        lambda: figures.plot_degrees(results.models),
        "Mean Hermite degree and Lipschitz bounds over σ_enc and σ_N",
        "Mean over models with Student's 95 % interval, every model grey; bounds: geometric mean "
        "and range over models.",
        wide=True,
    )
    if names.FILE_SPECTRA in results.problems:
        yield markup.paragraph(f"No spectra: {results.problems[names.FILE_SPECTRA]}", "note")
        return
    yield writer.figure(
        "harmonics",
        lambda: figures.plot_harmonics(results.spectra, results.models),
        "Hermite weights over degrees and power over frequency, one line a configuration",
        "Mean over models. Weights fitted as 0 are left out.",
        wide=True,
    )


def _collapse(writer: Writer) -> Iterator[str]:
    models = writer.results.models
    table = tables.collapse_table(models) if len(models) else pd.DataFrame()
    if table.empty:
        yield markup.paragraph("No collapse diagnostic was computed in this study.", "note")
        return
    if names.COLLAPSED in table:
        count = collapsed_models(models)
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
