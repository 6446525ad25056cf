"""Comparison of stored models: their metrics, the spread over seeds, and promotion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import comparison_tables as tables
from harmonicvae.tracking import promotion, stores
from harmonicvae.tracking.evaluation_runs import Evaluations
from harmonicvae.tracking.gathering import (
    comparability_notes,
    evaluate_missing,
    metric_sources,
    seed_siblings,
)
from harmonicvae.tracking.model_parameters import CONFIGURATION_PARAMETERS
from harmonicvae.tracking.model_records import ModelRecord, read_record
from harmonicvae.tracking.model_uris import ModelReference, resolve
from harmonicvae.tracking.specs import StoreSpec


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What the rules decided.

    Parameters
    ----------
    decisions : DataFrame
        One row a compared model and rule: model, rule, passed, reason.
    passed : tuple of str
        Models that meet every rule.
    promoted : str
        ``models:/name/version`` that the alias was set on; "" if none was.
    sentence : str
        In words.
    """

    decisions: pd.DataFrame
    passed: tuple[str, ...]
    promoted: str = ""
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compared models, and what differs beyond the spread over seeds.

    Parameters
    ----------
    records : tuple of ModelRecord
        Compared models in the order they were asked for, then their seed siblings.
    models : DataFrame
        One row a record: model, configuration, seed, compared, parameters and every metric.
    configurations : DataFrame
        Mean, sd and number of seeds of every metric.
    differences : DataFrame
        Every configuration against the baseline's, with Welch's 95 % interval and a verdict.
    sources : DataFrame
        Run of every metric of the compared models, and how it was evaluated.
    missing : DataFrame
        What the compared models lack, and which evaluator would fill it.
    notes : tuple of str
        What was left out, and what may not be comparable.
    baseline : str
        Model whose configuration the others are compared with.
    """

    records: tuple[ModelRecord, ...]
    models: pd.DataFrame
    configurations: pd.DataFrame
    differences: pd.DataFrame
    sources: pd.DataFrame
    missing: pd.DataFrame
    notes: tuple[str, ...]
    baseline: str
    tracking_uri: str

    def promote(
        self,
        require: str | Sequence[str] = (),
        alias: str | None = None,
        *,
        prefer: str = names.ELBO,
    ) -> Promotion:
        """Hold every compared model against rules and set an alias on the best that passes.

        Parameters
        ----------
        require : str or sequence of str
            Rules such as "lipschitz_upper_l2_decoder<20" or "elbo>baseline+0.5"; all must
            hold.  A missing or NaN metric fails.
        alias : str or None
            Set on the best registered version that passes; None only judges.
        prefer : str, default="elbo"
            Metric that decides between several, highest is best; "-metric" for lowest.

        Returns
        -------
        Promotion
            Nothing is changed in the registry where no registered version passes.

        Raises
        ------
        InputError
            If a rule, alias or metric is not valid.
        """
        rules = [promotion.parse_rule(text) for text in _listed(require)]
        alias = promotion.check_alias(alias) if alias else None
        known = sorted({key for record in self.records for key in record.measurements})
        for rule in rules:
            promotion.check_metric(rule.metric, known)
        promotion.check_metric(promotion.preferred(prefer)[0], known, "prefer")
        decisions = _decisions(self._compared(), rules, self._metrics(self.baseline))
        failed = set(decisions.loc[~decisions["passed"].astype(bool), names.MODEL])
        passing = [item for item in self._compared() if item.reference.label not in failed]
        passed = tuple(item.reference.label for item in passing)
        judged = Promotion(decisions=decisions, passed=passed)
        if alias is None:
            return replace(judged, sentence=_judgement(judged, len(self._compared())))
        return self._set_alias(judged, [r for r in passing if r.reference.version], alias, prefer)

    def write(
        self,
        folder: str | Path,
        judged: Promotion | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> Path:
        """Write comparison.html, its tables as CSV and its figure; return the page's path.

        Parameters
        ----------
        folder : str or Path
            Made if absent.
        judged : Promotion or None
            What :meth:`promote` returned, to be shown.
        facts : mapping of str to str or None
            Further lines of the summary.
        """
        from harmonicvae.report.comparison_page import ComparisonTables, write_comparison

        shown = ComparisonTables(
            models=self.models,
            configurations=self.configurations,
            differences=self.differences,
            missing=self.missing,
            sources=self.sources,
            baseline=self.baseline,
            notes=self.notes,
            facts={"Store": stores.public_uri(self.tracking_uri), **(facts or {})},
            decisions=judged.decisions if judged else pd.DataFrame(),
            sentence=judged.sentence if judged else "",
        )
        return write_comparison(shown, folder)

    def _set_alias(
        self, judged: Promotion, candidates: list[ModelRecord], alias: str, prefer: str
    ) -> Promotion:
        if not candidates:
            why = "no model passes" if not judged.passed else "no passing model is registered"
            return replace(judged, sentence=f"Alias {alias!r} is not changed: {why}.")
        best = promotion.best_of(
            [(r, self._metrics(r.reference.label)) for r in candidates], prefer
        )
        name, version = best.reference.name, best.reference.version
        former = promotion.set_alias(MlflowClient(self.tracking_uri), name, alias, version)
        moved = f" (before: version {former})" if former and former != version else ""
        sentence = f"Alias {alias!r} of {name} is set on version {version}{moved}."
        if len(candidates) > 1:
            sentence += f" {len(candidates)} registered models pass; {prefer} decides."
        return replace(judged, promoted=best.reference.stable_uri, sentence=sentence)

    def _compared(self) -> list[ModelRecord]:
        return [record for record in self.records if record.compared]

    def _metrics(self, model: str) -> dict[str, float]:
        record = next(r for r in self._compared() if r.reference.label == model)
        return {key: item.value for key, item in record.measurements.items()}


def compare(
    uris: Sequence[str],
    *,
    baseline: str | None = None,
    siblings: bool = True,
    evaluate: Sequence[str] = (),
    data_dir: str | None = None,
    tracking_uri: str | None = None,
    store: StoreSpec | None = None,
) -> Comparison:
    """Compare models of an MLflow store.

    Parameters
    ----------
    uris : sequence of str
        ``models:/name/1``, ``models:/name@alias``, ``models:/m-…``, ``runs:/id/model`` or
        ``runs:/id``; several for one model count once.
    baseline : str or None
        URI, one of these or another, whose configuration the others are compared with; None
        means the first.
    siblings : bool, default=True
        Take other versions of the same registered models in, where only the seed differs, to
        estimate the spread.
    evaluate : sequence of {"lipschitz", "max_damage"}
        Evaluators to run first on compared models that lack their metrics.
    data_dir : str or None
        Folder of the data for these; None means where the model's training found it.
    tracking_uri : str or None
        Store; None means MLflow's own choice.
    store : StoreSpec or None
        Store with the run below which evaluations are nested.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If a URI or an evaluator is not valid.
    TrackingError
        If there is no such model, or an evaluation failed.

    Notes
    -----
    Without ``evaluate`` nothing is computed or written: what is in the store is read, metrics
    that a version lacks are NaN.
    """
    listed = _listed(uris)
    if not listed:
        raise InputError("uris must name at least one model, got none")
    evaluators = _listed(evaluate)
    unknown = sorted(set(evaluators) - set(names.EVALUATORS))
    if unknown:
        raise InputError(f"evaluate must be among {list(names.EVALUATORS)}, got {unknown[0]!r}")
    store = store or stores.open_store(tracking_uri=tracking_uri)
    client = MlflowClient(store.tracking_uri)
    references = _distinct(resolve(client, uri) for uri in [*listed, *filter(None, [baseline])])
    chosen = resolve(client, baseline) if baseline else references[0]
    base = next(item for item in references if item.key == chosen.key)
    evaluations = Evaluations(client)
    records = [read_record(client, reference, evaluations) for reference in references]
    if evaluators and evaluate_missing(records, evaluators, store, data_dir):
        evaluations = Evaluations(client)
        records = [read_record(client, reference, evaluations) for reference in references]
    if siblings:
        records += seed_siblings(client, records, evaluations)
    return _tabulate(records, base.label, evaluations, store.tracking_uri)


def _listed(items: str | Sequence[str]) -> list[str]:
    return [items] if isinstance(items, str) else list(items)


def _distinct(references: Iterable[ModelReference]) -> list[ModelReference]:
    """Return every model once, by the first URI that named it."""
    found: dict[tuple[str, str], ModelReference] = {}
    for reference in references:
        found.setdefault(reference.key, reference)
    return list(found.values())


def _tabulate(
    records: list[ModelRecord], baseline: str, evaluations: Evaluations, tracking_uri: str
) -> Comparison:
    frame = pd.DataFrame([record.row() for record in records])
    models = tables.with_configurations(frame, CONFIGURATION_PARAMETERS)
    configuration = models.loc[models[names.MODEL] == baseline, tables.CONFIGURATION].iloc[0]
    sources = metric_sources(records, evaluations)
    return Comparison(
        records=tuple(records),
        models=models,
        configurations=tables.spread_table(models),
        differences=tables.difference_table(models, configuration),
        sources=sources,
        missing=tables.missing_table(models),
        notes=tuple(comparability_notes(records, sources)),
        baseline=baseline,
        tracking_uri=tracking_uri,
    )


def _decisions(
    compared: list[ModelRecord], rules: list[promotion.Rule], baseline: Mapping[str, float]
) -> pd.DataFrame:
    rows = []
    for record in compared:
        metrics = {key: item.value for key, item in record.measurements.items()}
        for rule in rules:
            reason = rule.judge(metrics, baseline)
            row = {names.MODEL: record.reference.label, "rule": str(rule)}
            rows.append(row | {"passed": not reason, "reason": reason})
    return pd.DataFrame(rows, columns=[names.MODEL, "rule", "passed", "reason"])


def _judgement(judged: Promotion, count: int) -> str:
    listed = f": {', '.join(judged.passed)}" if judged.passed else ""
    return f"{len(judged.passed)} of {count} models pass every rule{listed}."
