"""What a comparison gathers: missing evaluations, seed siblings, and the run of every metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae.exceptions import TrackingError
from harmonicvae.report import comparison_tables as tables
from harmonicvae.report.metric_groups import attack_radii, evaluator_of
from harmonicvae.tracking import steps
from harmonicvae.tracking.evaluation_runs import Evaluations
from harmonicvae.tracking.model_parameters import CONFIGURATION_PARAMETERS, normal
from harmonicvae.tracking.model_records import ModelRecord, read_record
from harmonicvae.tracking.model_uris import ModelReference, versions_of
from harmonicvae.tracking.specs import StoreSpec

#: Parameters that a registered version carries as tags too.
_TAGGED = (names.ENCODER_STD, names.INPUT_NOISE_STD, names.EPOCHS)


def evaluate_missing(
    records: list[ModelRecord], evaluators: list[str], store: StoreSpec, data_dir: str | None
) -> bool:
    """Run the evaluators whose metrics a model lacks; tell whether there was one to run."""
    frame = pd.DataFrame([record.row() for record in records])
    missing = tables.missing_table(frame)
    radii = attack_radii(map(str, frame.columns))
    config: dict[str, dict[str, Any]] = {
        names.EVALUATOR_LIPSCHITZ: {},
        names.EVALUATOR_MAX_DAMAGE: {"radii": radii} if radii else {},
    }
    for record in records:
        lacking = set(missing.loc[missing[names.MODEL] == record.reference.label, "evaluator"])
        chosen = {name: config[name] for name in evaluators if name in lacking}
        if not chosen:
            continue
        uri = record.reference.stable_uri
        data = replace(steps.trained_on(uri), data_dir=data_dir) if data_dir else None
        outcome = steps.evaluate_one(uri, chosen, data=data, store=store)
        if outcome.failure:
            raise TrackingError(f"evaluation of {uri} failed: {outcome.failure}")
    return bool(len(missing[missing["evaluator"].isin(evaluators)]))


def seed_siblings(
    client: MlflowClient, compared: list[ModelRecord], evaluations: Evaluations
) -> list[ModelRecord]:
    """Return other versions of the same registered models that differ in the seed alone."""
    configurations = {_configuration(record.parameters) for record in compared}
    known = {record.reference.key for record in compared}
    found: dict[tuple[str, str], ModelRecord] = {}
    for name in dict.fromkeys(r.reference.name for r in compared if r.reference.name):
        quoted = name.replace("'", "''")
        for reference in versions_of(client, f"name='{quoted}'"):
            if reference.key in known or not _may_be_sibling(reference, compared):
                continue
            record = read_record(client, reference, evaluations, compared=False)
            seeded = record.parameters[names.SEED] != tables.UNKNOWN
            if seeded and _configuration(record.parameters) in configurations:
                found[reference.key] = record
    return list(found.values())


def _may_be_sibling(reference: ModelReference, compared: list[ModelRecord]) -> bool:
    """Tell by the version's tags, before its run is read."""
    return any(
        all(
            normal(reference.tags[key]) == record.parameters[key]
            for key in _TAGGED
            if reference.tags.get(key)
        )
        for record in compared
        if record.reference.name == reference.name
    )


def _configuration(parameters: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return what two models of different seeds share; None if too little is recorded."""
    if any(parameters[name] == tables.UNKNOWN for name in tables.ESSENTIAL):
        return None
    return tuple(parameters[name] for name in CONFIGURATION_PARAMETERS)


def metric_sources(records: list[ModelRecord], evaluations: Evaluations) -> pd.DataFrame:
    """Return the run of every metric of the compared models."""
    rows = []
    for record in records:
        for key, item in sorted(record.measurements.items()):
            evaluator = evaluator_of(key)
            if not evaluator:
                continue
            told = evaluations.settings(item.run_id) if evaluator in names.EVALUATORS else {}
            attacked = evaluator == names.EVALUATOR_MAX_DAMAGE
            methods = told.get("methods" if attacked else "bounds", ())
            rows.append(
                {
                    names.MODEL: record.reference.label,
                    tables.COMPARED: record.compared,
                    "evaluator": evaluator,
                    "metric": key,
                    "run_id": item.run_id,
                    "ended": pd.Timestamp(item.time, unit="ms").isoformat(timespec="seconds"),
                    "rows": told.get("rows", ""),
                    "images": str(told.get("images", "")) if attacked else "",
                    "methods": ", ".join(methods),
                }
            )
    columns = [names.MODEL, tables.COMPARED, "evaluator", "metric", "run_id", "ended"]
    return pd.DataFrame(rows, columns=[*columns, "rows", "images", "methods"])


def comparability_notes(records: list[ModelRecord], sources: pd.DataFrame) -> list[str]:
    """Return what was left out, and what may not be comparable."""
    notes = [f"{r.reference.label}: {text}" for r in records if r.compared for text in r.notes]
    datasets = {record.parameters[names.DATASET] for record in records}
    if len(datasets) > 1:
        listed = ", ".join(sorted(datasets))
        notes.append(f"Models of several data sets ({listed}): compare within each only")
    for evaluator, group in sources.groupby("evaluator"):
        for column, what in (
            ("rows", "on different rows"),
            ("images", "on different numbers of images"),
            ("methods", "by different methods"),
        ):
            if len(set(group[column]) - {""}) > 1:
                notes.append(
                    f"{evaluator}: models (or their seed siblings) were evaluated {what}, see "
                    f"{names.FILE_SOURCES}; their differences are partly those of the evaluations"
                )
    return notes
