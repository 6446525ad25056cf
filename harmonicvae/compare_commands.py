"""The verb "compare": stored models side by side, and the alias that the best one gets."""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace
from typing import Any

from harmonicvae import names
from harmonicvae import options as check
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.report.comparison_tables import ORDER
from harmonicvae.report.comparison_views import summarise_comparison
from harmonicvae.result_folder import check_report_output
from harmonicvae.tracking import comparison, comparison_runs, promotion, runs, stores


def compare(parsed: argparse.Namespace) -> int:
    """Compare stored models; with --alias, promote the best that meets every rule."""
    uris = [uri for text in parsed.uris for uri in _split(text)]
    if not uris:
        raise InputError("uris must name at least one model, got none")
    rules = [rule for text in parsed.require or () for rule in _split_rules(text)]
    for rule in rules:
        promotion.parse_rule(rule)
    alias = promotion.check_alias(parsed.alias) if parsed.alias else None
    evaluators = check.words(parsed.evaluate)
    for name in evaluators:
        check.choice("evaluate", name, names.EVALUATORS)
    siblings = check.choice("siblings", parsed.siblings, ("true", "false")) == "true"
    data_dir = check.folder("data_dir", parsed.data_dir)
    output = check_report_output(parsed.output)
    store = stores.open_store(parsed.experiment or None)
    run_id = runs.adopt_run(store, f"compare {len(uris)} models", "comparison")
    store = replace(store, parent_run_id=run_id)
    options = {"require": "; ".join(rules), "alias": alias or "", "prefer": parsed.prefer}
    options |= {"baseline": parsed.baseline, "siblings": parsed.siblings}
    with runs.finishing(store, run_id):
        comparison_runs.describe_run(
            store, uris, options | {"evaluate": ",".join(evaluators) or "none"}
        )
        found = comparison.compare(
            uris,
            baseline=parsed.baseline or None,
            siblings=siblings,
            evaluate=evaluators,
            data_dir=data_dir,
            store=store,
        )
        judged = found.promote(rules, alias, prefer=parsed.prefer) if rules or alias else None
        page = found.write(output, judged, {"Command": parsed.command_line, "MLflow run": run_id})
        comparison_runs.log_comparison(store, output, judged.promoted if judged else "")
        if parsed.json:
            print(json.dumps(_described(found, judged, run_id), indent=1, allow_nan=False))
        else:
            _print(found, judged)
            print(f"\ncomparison: {page}\nrun:        {run_id} (all runs: mlflow ui)")
        if judged and (not judged.passed or (alias and not judged.promoted)):
            raise TrackingError(f"{judged.sentence} {_failures(judged)}".strip())
    return 0


def _split(text: str) -> list[str]:
    """Return the URIs of one argument: MLflow hands several on as one text."""
    return [part for part in re.split(r"[\s,;]+", text) if part]


def _split_rules(text: str) -> list[str]:
    """Return the rules of one argument, separated by commas or semicolons."""
    return [part.strip() for part in re.split(r"[,;]", text) if part.strip()]


def _print(found: comparison.Comparison, judged: comparison.Promotion | None) -> None:
    """Print the tables, and what the rules decided."""
    print(
        summarise_comparison(
            found.models, found.configurations, found.differences, found.missing, found.notes
        )
    )
    if judged is not None:
        print()
        for row in judged.decisions.to_dict("records"):
            told = "passes" if row["passed"] else f"fails: {row['reason']}"
            print(f"{row[names.MODEL]}  {row['rule']}  {told}")
        print(judged.sentence)


def _failures(judged: comparison.Promotion) -> str:
    """Say which rule failed with which value, model by model."""
    failed = judged.decisions[~judged.decisions["passed"].astype(bool)]
    return "; ".join(f"{row[names.MODEL]}: {row['reason']}" for row in failed.to_dict("records"))


def _described(
    found: comparison.Comparison, judged: comparison.Promotion | None, run_id: str
) -> dict[str, Any]:
    """Return the comparison as plain values, null for what is missing."""
    tables = {
        "models": found.models.drop(columns=ORDER),
        "configurations": found.configurations,
        "differences": found.differences,
        "missing": found.missing,
    }
    described: dict[str, Any] = {
        name: [_plain(row) for row in table.to_dict("records")] for name, table in tables.items()
    }
    described |= {"notes": list(found.notes), "baseline": found.baseline, "run_id": run_id}
    if judged is not None:
        described["decisions"] = [_plain(row) for row in judged.decisions.to_dict("records")]
        described |= {"passed": list(judged.passed), "promoted": judged.promoted}
        described["sentence"] = judged.sentence
    return described


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """Return a row for JSON: no NaN, infinity as text."""
    plain: dict[str, Any] = {}
    for key, value in row.items():
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            value = None if math.isnan(value) else str(value)
        plain[str(key)] = value
    return plain
