"""The runs of a search: what its own run and those of its candidates hold."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from harmonicvae import names
from harmonicvae.models import HarmonicVAE
from harmonicvae.tracking import registry, runs, sweep_tables
from harmonicvae.tracking.fold_recorder import Fold, searched_parameters
from harmonicvae.tracking.fold_records import FoldRecord, curves_of
from harmonicvae.tracking.specs import StoreSpec
from harmonicvae.tracking.sweep_texts import legal_name, parameter_text, run_name

ROLE_SEARCH, ROLE_CANDIDATE = "search", "candidate"
#: What MLflow takes in one call.
_MAX_PARAMS, _MAX_ENTITIES = 100, 1000


def log_search(store: StoreSpec, run_id: str, search: Any, X: Any, y: Any) -> None:
    """Log what is known of a search before it starts: its parameters and its data."""
    _log_params(store, run_id, sweep_tables.fixed_parameters(search, searched_parameters(search)))
    shape = tuple(getattr(X, "shape", None) or (len(X), len(X[0])))
    tags = {"harmonicvae.rows": str(shape[0]), "harmonicvae.features": str(shape[-1])}
    tags["harmonicvae.md5"] = digest = str(joblib.hash(X))
    if y is not None:
        tags["harmonicvae.target_md5"] = str(joblib.hash(y))
    runs.log_data_input(store, run_id, "X", digest, tags, "training")


def log_candidates(store: StoreSpec, search: Any, folds: Sequence[Fold]) -> list[str]:
    """Create one finished or failed run for every row of ``cv_results_``; return their ids."""
    by_candidate: dict[int, list[Fold]] = {}
    for fold in folds:
        by_candidate.setdefault(fold.candidate, []).append(fold)
    results = search.cv_results_
    return [
        _log_candidate(store, results, index, by_candidate.get(index, []), search.n_splits_)
        for index in range(len(results["params"]))
    ]


def _log_candidate(
    store: StoreSpec, results: Mapping[str, Any], index: int, folds: list[Fold], n_splits: int
) -> str:
    tags, name = {names.TAG_CANDIDATE: str(index)}, run_name(results["params"][index])
    if "iter" in results:
        tags[names.TAG_ITERATION] = str(results["iter"][index])
        tags[names.TAG_RESOURCES] = str(results["n_resources"][index])
        name = f"{name} (iter {results['iter'][index]})"
    started, ended = _times(folds)
    run_id = runs.create_run(store, name, ROLE_CANDIDATE, tags, start_time=started)
    table = sweep_tables.curves_table(folds)
    metrics = sweep_tables.candidate_metrics(results, index, n_splits)
    figures = [(key, value, 0) for key, value in metrics.items()]
    _log_batch(
        store, run_id, results["params"][index], figures + sweep_tables.mean_curves(table), ended
    )
    if len(table):
        own = table.drop(columns=[key for key in table.columns if str(key).startswith("param_")])
        log_table(store, run_id, own.drop(columns=names.CANDIDATE), names.FILE_CURVES)
    failed = [f"fold {fold.fold}: {fold.error}" for fold in folds if fold.error]
    status = "FAILED" if failed else "FINISHED"
    runs.end_run(store, run_id, status, "\n".join(failed) or None, end_time=ended)
    return run_id


def end_candidates(store: StoreSpec, reason: str) -> None:
    """Leave no candidate of the search in state RUNNING."""
    client = MlflowClient(store.tracking_uri)
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{store.parent_run_id}'"
    found = client.search_runs([store.experiment_id], f"{query} and attributes.status = 'RUNNING'")
    own = [run for run in found if run.data.tags.get(names.TAG_ROLE) == ROLE_CANDIDATE]
    runs.kill_unfinished(store, [run.info.run_id for run in own], reason)


def _times(folds: Sequence[Fold]) -> tuple[int, int]:
    """Return when the first fold started and the last one ended, in milliseconds."""
    scored = [fold for fold in folds if fold.record]
    if not scored:
        now = int(time.time() * 1000)
        return now, now
    first = min(fold.record.finished - fold.seconds for fold in scored if fold.record)
    last = max(fold.record.finished for fold in scored if fold.record)
    return int(first * 1000), int(last * 1000)


def log_outcome(
    store: StoreSpec, run_id: str, search: Any, folds: Sequence[Fold], candidates: Sequence[str]
) -> None:
    """Log what came out of a search into its own run: tables, the best candidate."""
    results = search.cv_results_
    log_table(store, run_id, sweep_tables.results_table(results, candidates), names.FILE_CV_RESULTS)
    log_table(store, run_id, sweep_tables.curves_table(folds), names.FILE_CURVES)
    params: dict[str, Any] = {"n_candidates": len(candidates), "n_splits": search.n_splits_}
    metrics = {}
    if hasattr(search, "best_index_"):
        params |= {f"best_{name}": value for name, value in search.best_params_.items()}
        metrics["best_index"] = float(search.best_index_)
        best = sweep_tables.candidate_metrics(results, search.best_index_, search.n_splits_)
        metrics |= {f"best_{key}": best[key] for key in best if key.startswith("mean_test_")}
        tag = candidates[search.best_index_]
        MlflowClient(store.tracking_uri).set_tag(run_id, names.TAG_BEST_RUN, tag)
    for name in ("best_score_", "refit_time_"):
        if hasattr(search, name):
            metrics[name.rstrip("_")] = float(getattr(search, name))
    figures = [(key, value, 0) for key, value in metrics.items() if value == value]
    _log_params(store, run_id, params)
    _log_batch(store, run_id, {}, figures + _refit_curves(search), None)


def _refit_curves(search: Any) -> list[tuple[str, float, int]]:
    """Return the curves of the estimator fitted to all data at the end."""
    best = getattr(search, "best_estimator_", None)
    record = FoldRecord(key="refit", params=(), curves=curves_of(best))
    table = sweep_tables.curves_table([Fold(candidate=0, fold=0, params={}, record=record)])
    return sweep_tables.mean_curves(table)


def log_partial(store: StoreSpec, run_id: str, folds: Sequence[Fold]) -> None:
    """Log what was scored of a search that did not end: curves and scores by fold."""
    log_table(store, run_id, sweep_tables.curves_table(folds), names.FILE_CURVES)
    log_table(store, run_id, sweep_tables.scores_table(folds), names.FILE_FOLD_SCORES)


def log_best_model(store: StoreSpec, run_id: str, search: Any) -> None:
    """Store ``best_estimator_`` without pickle where that is possible, else say why not."""
    best = getattr(search, "best_estimator_", None)
    if best is None:
        reason = f"refit={search.refit!r} leaves no fitted estimator"
    elif not isinstance(best, HarmonicVAE):
        reason = f"a {type(best).__name__} could only be stored by pickle"
    else:
        registry.log_model(best, {k: parameter_text(v) for k, v in search.best_params_.items()})
        return
    MlflowClient(store.tracking_uri).set_tag(run_id, names.TAG_MODEL_NOT_STORED, reason)


def log_table(store: StoreSpec, run_id: str, table: pd.DataFrame, file: str) -> None:
    """Log a table as a CSV file at the top of a run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        table.to_csv(path, index=False)
        MlflowClient(store.tracking_uri).log_artifact(run_id, str(path))


def _log_params(store: StoreSpec, run_id: str, params: Mapping[str, Any]) -> None:
    """Log parameters as text, as many at once as MLflow takes; what is there already stays."""
    texts = {legal_name(key): parameter_text(value) for key, value in params.items()}
    keys = list(texts)
    for start in range(0, len(keys), _MAX_PARAMS):
        part = keys[start : start + _MAX_PARAMS]
        runs.log_parameters(store, run_id, {key: texts[key] for key in part})


def _log_batch(
    store: StoreSpec,
    run_id: str,
    params: Mapping[str, Any],
    figures: Sequence[tuple[str, float, int]],
    time_ms: int | None,
) -> None:
    """Log parameters and (metric, value, step) in one call, more only where MLflow's limits ask."""
    client, now = MlflowClient(store.tracking_uri), time_ms or int(time.time() * 1000)
    texts = [Param(legal_name(key), parameter_text(value)) for key, value in params.items()]
    metrics = [Metric(legal_name(key), value, now, step) for key, value, step in figures]
    while texts or metrics:
        some = texts[:_MAX_PARAMS]
        room = _MAX_ENTITIES - len(some)
        client.log_batch(run_id, params=some, metrics=metrics[:room])
        texts, metrics = texts[_MAX_PARAMS:], metrics[room:]
