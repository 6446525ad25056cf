"""A study's results as text for the terminal."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harmonicvae.exceptions import InputError
from harmonicvae.report.attack_tables import attack_table
from harmonicvae.report.lipschitz_tables import lipschitz_table
from harmonicvae.report.rendering import cut_to_width, to_terminal
from harmonicvae.report.results import Results, load_results
from harmonicvae.report.summary import (
    attacked_rows,
    collapsed_models,
    evaluated_rows,
    failed_models,
    failure_lines,
)

#: Widest line, terminal columns.
WIDTH = 100
#: Columns the HTML page alone shows.
PAGE_ONLY = ("paper_degradation", "reproduction_degradation", "images")
#: Columns left out one by one while a table is too wide, the least needed first.
SPARE_LIPSCHITZ = (
    "upper_eclipse",
    "upper_lipsdp_layer",
    "reproduction",
    "paper",
    "upper_eclipse_fast",
    "ratio",
)
SPARE_ATTACKS = ("damage_max", "bound_ratio_max", "relative_damage", "log_likelihood_degradation")


def summarise(results_dir: str | Path) -> str:
    """Return the Lipschitz and attack tables of a study as text.

    Parameters
    ----------
    results_dir : str or Path
        Folder of a study's result files.

    Returns
    -------
    str
        Lines of at most 100 columns without trailing newline: the tables there
        are, on which rows they were computed, and how many models failed or
        collapsed.

    Raises
    ------
    InputError
        If results_dir, study.json or models.csv is missing or cannot be read,
        or the models are of several data sets.

    Notes
    -----
    Columns of a table that would be too wide are left out; the report has all.
    """
    results = load_results(results_dir)
    parts = [part for part in (_lipschitz(results), _attacks(results)) if part]
    if not parts:
        parts = ["No Lipschitz bounds and no attacks were computed in this study."]
    notes = failure_lines(failed_models(results))
    collapsed = collapsed_models(results.models)
    if collapsed:
        notes.append(f"{collapsed} of {len(results.models)} models collapsed")
    return "\n\n".join([*parts, *(["\n".join(_lines(notes))] if notes else [])])


def _lipschitz(results: Results) -> str:
    if results.models.empty:
        return ""
    table = lipschitz_table(results.models)
    if table.empty:
        return ""
    rows = evaluated_rows(results.study)
    heading = ["ℓ2 Lipschitz constants, mean ± sd over n models"]
    heading += [f"Points of the lower bounds from {rows}"] if rows else []
    return "\n".join([*_lines(heading), "", _fitting(table, SPARE_LIPSCHITZ)])


def _attacks(results: Results) -> str:
    try:
        table = attack_table(results.attacks, results.models)
    except InputError:  # no attacks, or not enough to name them: the page says why
        return ""
    if table.empty:
        return ""
    methods = table["method"].unique().tolist()
    title = f"Maximum-damage attack ({methods[0]})" if len(methods) == 1 else "Attacks"
    rows = attacked_rows(results)
    heading = [f"{title}, ‖δ‖₂ ≤ radius, mean ± sd over n models of the mean over images"]
    heading += [f"Attacked: {rows}"] if rows else []
    table = _without(table, (*PAGE_ONLY, *(["method"] if len(methods) == 1 else [])))
    return "\n".join([*_lines(heading), "", _fitting(table, SPARE_ATTACKS)])


def _lines(texts: Sequence[str]) -> list[str]:
    return [cut_to_width(text, WIDTH) for text in texts]


def _fitting(table: pd.DataFrame, spare: Sequence[str]) -> str:
    """Return the table as text, without as many spare columns as keep it in one block."""
    text = to_terminal(table, WIDTH)
    for count in range(1, len(spare) + 1):
        if "\n\n" not in text:
            break
        text = to_terminal(_without(table, spare[:count]), WIDTH)
    return text


def _without(table: pd.DataFrame, stems: Sequence[str]) -> pd.DataFrame:
    """Return the table without these columns or triples of mean, sd and n."""
    names_of = {stem + end for stem in stems for end in ("", "_mean", "_sd", "_n")}
    return table[[name for name in table.columns if name not in names_of]]
