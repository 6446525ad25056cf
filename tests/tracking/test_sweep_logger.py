"""Searches of scikit-learn in MLflow: same results as without, every run and curve in place."""

import os
import pickle
import shutil
import signal
import threading
import time
import warnings
from io import StringIO
from pathlib import Path

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from scipy.stats import loguniform
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from harmonicvae import HarmonicVAE, SweepLogger, load_model, names
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.tracking import fold_records, sweep_runs, sweep_tables
from harmonicvae.tracking.fold_records import fitted_vaes

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning"),
    pytest.mark.filterwarnings("ignore:Scoring failed:UserWarning"),
]

DIGITS = load_digits()
X = DIGITS.data[:90] / 8 - 1
CURVES = [names.TRAIN_LOSS, names.TRAIN_RECONSTRUCTION, names.TRAIN_KL]


def vae(**changes):
    values = {"hidden_dims": (8,), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    return HarmonicVAE(**values | changes)


def elbo(estimator, X, y=None):
    return np.float64(estimator.score(X))


def negative_error(estimator, X, y=None):
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    return -float(((last.reconstruct(X) - X) ** 2).mean())


def both(estimator, X, y=None):
    return {"elbo": elbo(estimator, X), "error": negative_error(estimator, X)}


def constant(estimator, X, y=None):
    return 1


def fails_for_one(estimator, X, y=None):
    if estimator.encoder_std == 1.0:
        raise ValueError("no score here")
    return estimator.score(X)


def last_candidate(results):
    return len(results["params"]) - 1


def last_loss(estimator, X, y=None):
    return estimator[-1].history_[names.TRAIN_LOSS].iloc[-1]


GRID = {"encoder_std": [0.5, 1.0], "input_noise_std": [0, 0.1]}
ONE = {"encoder_std": [0.5, 1.0]}
PIPELINE = make_pipeline(StandardScaler(), vae())
DEEP = make_pipeline(StandardScaler(), make_pipeline(FunctionTransformer(), vae()))
SEARCHES = {
    "grid": GridSearchCV(vae(), GRID, cv=2),
    "train scores": GridSearchCV(vae(), ONE, cv=2, return_train_score=True),
    "no refit": GridSearchCV(vae(), ONE, cv=2, refit=False),
    "function": GridSearchCV(vae(), ONE, cv=2, scoring=negative_error),
    "several metrics": GridSearchCV(
        vae(),
        ONE,
        cv=2,
        scoring={"elbo": elbo, "error": negative_error},
        refit="error",
        return_train_score=True,
    ),
    "several, no refit": GridSearchCV(vae(), ONE, cv=2, scoring={"elbo": elbo}, refit=False),
    "function of several": GridSearchCV(vae(), ONE, cv=2, scoring=both, refit="elbo"),
    "refit by function": GridSearchCV(vae(), ONE, cv=2, refit=last_candidate),
    "random": RandomizedSearchCV(
        vae(), {"encoder_std": loguniform(0.1, 1)}, n_iter=3, cv=2, random_state=3
    ),
    "list of grids": GridSearchCV(
        vae(), [ONE, {"input_noise_std": [0.2], "activation": ["tanh"]}], cv=2
    ),
    "estimators": GridSearchCV(
        make_pipeline(StandardScaler(), vae()),
        {"harmonicvae": [vae(latent_dim=1), PCA(2)], "standardscaler": ["passthrough", None]},
        cv=2,
    ),
    "pipeline": GridSearchCV(PIPELINE, {"harmonicvae__encoder_std": [0.5, 1.0]}, cv=2),
    "deep pipeline": GridSearchCV(DEEP, {"pipeline__harmonicvae__lr": [1e-3, 1e-2]}, cv=2),
    "shuffled folds": GridSearchCV(
        vae(), ONE, cv=KFold(3, shuffle=True, random_state=np.random.RandomState(5))
    ),
    "ties": GridSearchCV(vae(), {"encoder_std": [0.5, 0.5], "elbo_samples": [8]}, cv=2),
    "failing fits": GridSearchCV(vae(), {"encoder_std": [-1, 0.5]}, cv=2),
    "failing scores": GridSearchCV(vae(), ONE, cv=2, scoring=fails_for_one, error_score=-5),
    "one failing metric": GridSearchCV(
        vae(), ONE, cv=2, scoring={"elbo": elbo, "bad": fails_for_one}, refit="elbo"
    ),
    "halving": HalvingGridSearchCV(vae(), ONE, cv=2, factor=2, min_resources=40, random_state=0),
    "halving over epochs": HalvingGridSearchCV(
        vae(), ONE, cv=2, factor=2, resource="max_epochs", min_resources=2, max_resources=4
    ),
}


def logged(search, *data, **options):
    """Fit a search under a logger without models and return the logger."""
    logger = SweepLogger(**{"log_models": False} | options)
    assert logger.fit(search, *(data or (X,))) is search
    return logger


def run(run_id):
    return MlflowClient().get_run(run_id)


def children(run_id):
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return MlflowClient().search_runs([run(run_id).info.experiment_id], query)


def table(run_id, file):
    return pd.read_csv(StringIO(mlflow.artifacts.load_text(f"runs:/{run_id}/{file}")))


def files(run_id):
    return {item.path for item in MlflowClient().list_artifacts(run_id)}


def assert_same_results(results, expected):
    assert list(results) == list(expected)
    for key, values in expected.items():
        if key == "params" or key.startswith("param_"):
            assert repr(list(results[key])) == repr(list(values))
        elif not key.endswith("_time"):
            np.testing.assert_array_equal(results[key], values, err_msg=key)
            assert np.asarray(results[key]).dtype == np.asarray(values).dtype


# -------------------------------------------------------- nothing changes but the store


@pytest.mark.parametrize("case", SEARCHES)
def test_results_are_those_without_a_logger_and_every_candidate_has_a_run(case):
    search, plain = clone(SEARCHES[case]), clone(SEARCHES[case])
    if case == "shuffled folds":  # both draw alike from generators in the same state
        plain.cv = pickle.loads(pickle.dumps(search.cv))
    parameters = {key: repr(value) for key, value in search.get_params().items()}
    plain.fit(X)
    logger = logged(search)
    assert_same_results(search.cv_results_, plain.cv_results_)
    assert sorted(vars(search)) == sorted(vars(plain))
    assert {key: repr(value) for key, value in search.get_params().items()} == parameters
    assert type(search.scorer_) is type(plain.scorer_)
    assert repr(search.scorer_) == repr(plain.scorer_)
    if hasattr(plain, "best_index_"):
        assert search.best_index_ == plain.best_index_
    clone(search)
    again = pickle.loads(pickle.dumps(search))
    assert_same_results(again.cv_results_, search.cv_results_)
    assert_runs_of_candidates(logger, search.cv_results_, failing="fail" in case)


def assert_runs_of_candidates(logger, results, failing):
    found = {item.info.run_id: item for item in children(logger.run_id_)}
    assert sorted(found) == sorted(logger.candidate_run_ids_)
    assert len(found) == len(results["params"])
    for index, run_id in enumerate(logger.candidate_run_ids_):
        child = found[run_id]
        fails = failing and results["params"][index].get("encoder_std") in (-1, 1.0)
        assert child.info.status == ("FAILED" if fails else "FINISHED")
        assert (names.TAG_FAILURE in child.data.tags) == fails
        assert child.data.tags[names.TAG_ROLE] == "candidate"
        assert set(child.data.params) == set(results["params"][index])
        for key, column in results.items():
            if key.startswith("param_") or key in ("params", "iter", "n_resources"):
                continue
            if np.isnan(column[index]):
                assert key not in child.data.metrics
            else:
                assert child.data.metrics[key] == column[index], key
    assert run(logger.run_id_).info.status == "FINISHED"


# ------------------------------------------------------------------------------ curves


def expected_curves(search, params, fold):
    """Fit one candidate on one fold, as the search does, and return its history."""
    train, _ = list(KFold(search.n_splits_).split(X))[fold]
    estimator = clone(search.estimator).set_params(**clone(params, safe=False)).fit(X[train])
    ((_, fitted),) = fitted_vaes(estimator)
    return fitted.history_[[names.EPOCH, *CURVES]]


@pytest.mark.parametrize(
    "case",
    ["grid", "train scores", "several metrics", "deep pipeline", "ties", "halving over epochs"],
)
def test_curves_are_those_of_the_candidate_and_fold(case):
    search = clone(SEARCHES[case])
    logger = logged(search)
    curves = table(logger.run_id_, names.FILE_CURVES)
    for index, params in enumerate(search.cv_results_["params"]):
        run_id = logger.candidate_run_ids_[index]
        own, expected = table(run_id, names.FILE_CURVES), []
        for fold in range(search.n_splits_):
            expected.append(expected_curves(search, params, fold))
            rows = curves[(curves.candidate == index) & (curves.fold == fold)]
            np.testing.assert_allclose(rows[expected[-1].columns], expected[-1], rtol=1e-12)
            mine = own[own.fold == fold]
            np.testing.assert_allclose(mine[expected[-1].columns], expected[-1], rtol=1e-12)
        for metric in CURVES:
            history = MlflowClient().get_metric_history(run_id, metric)
            means = np.mean([frame[metric] for frame in expected], axis=0)
            assert [item.step for item in history] == list(expected[0][names.EPOCH])
            np.testing.assert_allclose([item.value for item in history], means, rtol=1e-12)


def test_the_searchs_run_holds_tidy_tables_only():
    search = clone(SEARCHES["list of grids"])
    logger = logged(search)
    assert files(logger.run_id_) == {names.FILE_CURVES, names.FILE_CV_RESULTS}
    results = table(logger.run_id_, names.FILE_CV_RESULTS)
    assert list(results["run_id"]) == logger.candidate_run_ids_
    np.testing.assert_array_equal(results["mean_test_score"], search.cv_results_["mean_test_score"])
    assert list(results["param_activation"].fillna("-")) == ["-", "-", "tanh"]


def test_a_candidate_without_an_autoencoder_has_scores_and_no_curves():
    search = clone(SEARCHES["estimators"])
    logger = logged(search)
    for params, run_id in zip(search.cv_results_["params"], logger.candidate_run_ids_):
        has_curves = isinstance(params["harmonicvae"], HarmonicVAE)
        assert (names.FILE_CURVES in files(run_id)) == has_curves
        assert (names.TRAIN_LOSS in run(run_id).data.metrics) == has_curves
    assert run(logger.candidate_run_ids_[0]).data.params["harmonicvae"].startswith("HarmonicVAE(")


def test_several_autoencoders_are_told_apart():
    union = FeatureUnion([(f"part{index}", vae(latent_dim=index + 1)) for index in range(6)])
    search = GridSearchCV(union, {"part1__encoder_std": [1.0]}, scoring=constant, cv=2)
    logger = logged(search)
    metrics = run(logger.candidate_run_ids_[0]).data.metrics
    assert {f"train_kl_part{index}" for index in range(6)} <= set(metrics)
    assert len({metrics[f"train_kl_part{index}"] for index in range(6)}) == 6
    assert len(run(logger.run_id_).data.params) > 100  # more than MLflow takes at once


def test_validation_data_are_passed_on_and_their_loss_is_a_curve():
    search = clone(SEARCHES["grid"])
    logger = SweepLogger(log_models=False)
    logger.fit(search, X, validation_data=X[:10])
    assert "valid_loss" in run(logger.candidate_run_ids_[0]).data.metrics


# --------------------------------------------------------------- names, limits, the data


def test_names_of_runs_are_readable():
    assert [
        run(run_id).info.run_name
        for run_id in logged(clone(SEARCHES["pipeline"])).candidate_run_ids_
    ] == ["encoder_std=0.5", "encoder_std=1"]
    logger = logged(clone(SEARCHES["grid"]))
    first = run(logger.candidate_run_ids_[1]).info.run_name
    assert first == "encoder_std=0.5, input_noise_std=0.1"


def test_halving_tells_iteration_and_resources():
    search = clone(SEARCHES["halving"])
    logger = logged(search)
    tags = [run(run_id).data.tags for run_id in logger.candidate_run_ids_]
    assert [item[names.TAG_ITERATION] for item in tags] == ["0", "0", "1"]
    assert [item[names.TAG_RESOURCES] for item in tags] == ["40", "40", "80"]
    assert len(table(logger.candidate_run_ids_[2], names.FILE_CURVES)) == 2 * 3


def test_limits_of_mlflow_are_kept(monkeypatch):
    calls, real = [], MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), params=(), tags=(), **options):
        calls.append(len(metrics) + len(params) + len(tags))
        return real(self, run_id, metrics=metrics, params=params, tags=tags, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    estimator = make_pipeline(FunctionTransformer(_identity), vae(hidden_dims=(), max_epochs=400))
    grid = {"functiontransformer__kw_args": [{"text": "x" * 7000}]}
    logger = logged(GridSearchCV(estimator, grid, cv=2, refit=False))
    (run_id,) = logger.candidate_run_ids_
    assert max(calls) == 1000
    text = run(run_id).data.params["functiontransformer__kw_args"]
    assert len(text) == 6000
    assert text.endswith("…")
    for metric in CURVES:
        history = MlflowClient().get_metric_history(run_id, metric)
        assert [item.step for item in history] == list(range(1, 401))


def _identity(X, text=None):
    return X


def test_values_that_are_no_finite_number_are_left_out():
    curves = {"fold": [0, 0, 0], "epoch": [1, 2, 3], "train_loss": [2.0, np.nan, np.inf]}
    assert sweep_tables.mean_curves(pd.DataFrame(curves)) == [("train_loss", 2.0, 1)]


def test_numbers_of_many_folds_sort_as_numbers():
    logger = logged(GridSearchCV(vae(max_epochs=1), {"lr": [1e-3]}, cv=11, refit=False))
    splits = [key for key in run(logger.candidate_run_ids_[0]).data.metrics if "split" in key]
    assert sorted(splits) == [f"split{fold:02d}_test_score" for fold in range(11)]


def test_odd_names_of_metrics_are_made_legal():
    search = GridSearchCV(vae(), ONE, cv=2, scoring={"elbo@test": elbo}, refit=False)
    assert "mean_test_elbo_test" in run(logged(search).candidate_run_ids_[0]).data.metrics


def test_search_data_and_best_candidate_are_logged():
    search = clone(SEARCHES["grid"])
    logger = logged(search)
    parent = run(logger.run_id_)
    assert parent.data.params["search"] == "GridSearchCV"
    assert (
        parent.data.params["param_grid"] == "{encoder_std: [0.5, 1.0], input_noise_std: [0, 0.1]}"
    )
    assert parent.data.params["estimator__batch_size"] == "16"
    assert "estimator__encoder_std" not in parent.data.params
    assert parent.data.params["best_encoder_std"] == str(search.best_params_["encoder_std"])
    assert parent.data.params["n_candidates"] == "4"
    assert parent.data.metrics["best_score"] == search.best_score_
    assert parent.data.tags[names.TAG_BEST_RUN] == logger.candidate_run_ids_[search.best_index_]
    history = MlflowClient().get_metric_history(logger.run_id_, names.TRAIN_LOSS)
    refit = search.best_estimator_.history_[names.TRAIN_LOSS]
    assert [item.value for item in history] == list(refit)
    (dataset,) = [item.dataset for item in parent.inputs.dataset_inputs]
    assert dataset.digest == joblib.hash(X)
    assert '"90"' in dataset.source
    assert '"64"' in dataset.source


def test_the_best_autoencoder_is_stored_and_a_pipeline_is_not():
    search = clone(SEARCHES["grid"])
    stored = logged(search, log_models=True)
    again = load_model(f"runs:/{stored.run_id_}/model")
    np.testing.assert_array_equal(again.reconstruct(X), search.best_estimator_.reconstruct(X))
    assert mlflow.active_run() is None
    pipeline = logged(clone(SEARCHES["pipeline"]), log_models=True)
    assert not run(pipeline.run_id_).outputs.model_outputs
    assert "pickle" in run(pipeline.run_id_).data.tags[names.TAG_MODEL_NOT_STORED]
    none = logged(clone(SEARCHES["no refit"]), log_models=True)
    assert "refit=False" in run(none.run_id_).data.tags[names.TAG_MODEL_NOT_STORED]


def test_any_estimator_and_routed_metadata_work():
    y = DIGITS.target[:90]
    weights = np.linspace(0.1, 1, len(y))
    with config_context(enable_metadata_routing=True):
        estimator = LogisticRegression(max_iter=20).set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=True)
        searches = [GridSearchCV(estimator, {"C": [0.1, 1.0]}, cv=2) for _ in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            searches[0].fit(X, y, sample_weight=weights)
            SweepLogger(log_models=False).fit(searches[1], X, y, sample_weight=weights)
    assert_same_results(searches[1].cv_results_, searches[0].cv_results_)


# ----------------------------------------------------------------- failures, interrupts


def test_reasons_of_failures_are_told():
    reason = {}
    for case in ("failing fits", "failing scores", "one failing metric"):
        search = clone(SEARCHES[case])
        logger = logged(search)
        (failed,) = [item for item in children(logger.run_id_) if item.info.status == "FAILED"]
        reason[case] = failed.data.tags[names.TAG_FAILURE]
    assert reason["failing fits"].startswith(
        "fold 0: harmonicvae.exceptions.InputError: encoder_std"
    )
    assert "fold 1: ValueError: no score here" in reason["failing scores"]
    assert "bad: ValueError: no score here" in reason["one failing metric"]


def last_search_run():
    found = MlflowClient().search_runs(
        [item.experiment_id for item in MlflowClient().search_experiments()],
        f"tags.`{names.TAG_ROLE}` = 'search'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return found[0]


def test_a_search_that_raises_is_a_failed_run_with_what_was_scored():
    options = {"cv": 2, "error_score": "raise", "return_train_score": True}
    search = GridSearchCV(vae(), {"encoder_std": [0.5, -1]}, **options)
    logger = SweepLogger()
    with pytest.raises(InputError, match="encoder_std"):
        logger.fit(search, X)
    parent = run(logger.run_id_)
    assert parent.info.status == "FAILED"
    assert "encoder_std must be > 0" in parent.data.tags[names.TAG_FAILURE]
    curves = table(logger.run_id_, names.FILE_CURVES)
    assert list(zip(curves.candidate, curves.fold)) == [(0, 0)] * 3 + [(0, 1)] * 3
    assert not children(logger.run_id_)
    assert set(vars(search)) <= set(vars(GridSearchCV(vae(), {}))) | {
        "_checked_cv_orig",
        "n_splits_",
    }


def interrupts_on_third(estimator, X, y=None):
    interrupts_on_third.calls += 1
    if interrupts_on_third.calls == 3:
        signal.raise_signal(signal.SIGINT)
    return estimator.score(X)


def test_ctrl_c_leaves_a_killed_run_with_what_was_scored(default_interrupts):
    interrupts_on_third.calls = 0
    search = GridSearchCV(vae(), ONE, cv=2, scoring=interrupts_on_third)
    logger = SweepLogger()
    with pytest.raises(KeyboardInterrupt):
        logger.fit(search, X)
    assert run(logger.run_id_).info.status == "KILLED"
    assert not children(logger.run_id_)
    curves = table(logger.run_id_, names.FILE_CURVES)
    assert sorted(set(zip(curves.candidate, curves.fold))) == [(0, 0), (0, 1)]
    scores = table(logger.run_id_, names.FILE_FOLD_SCORES)
    plain = GridSearchCV(vae(), {"encoder_std": [0.5]}, cv=2).fit(X).cv_results_
    assert list(scores["score"]) == [plain[f"split{fold}_test_score"][0] for fold in range(2)]
    assert search.scoring is interrupts_on_third
    clone(search)


def test_an_interrupted_halving_keeps_the_places_of_finished_iterations(default_interrupts):
    interrupts_on_third.calls = -2  # in the second iteration, at its first fold
    search = clone(SEARCHES["halving over epochs"]).set_params(scoring=interrupts_on_third)
    search.set_params(return_train_score=False)
    logger = SweepLogger()
    with pytest.raises(KeyboardInterrupt):
        logger.fit(search, X)
    scores = table(logger.run_id_, names.FILE_FOLD_SCORES)
    assert list(zip(scores.candidate, scores.fold)) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_interrupt_while_candidates_are_logged_leaves_none_running(monkeypatch):
    real = sweep_runs.log_table

    def interrupted(store, run_id, *rest):
        if run(run_id).data.tags[names.TAG_ROLE] == "candidate":
            raise KeyboardInterrupt
        real(store, run_id, *rest)

    monkeypatch.setattr(sweep_runs, "log_table", interrupted)
    logger = SweepLogger()
    with pytest.raises(KeyboardInterrupt):
        logger.fit(clone(SEARCHES["grid"]), X)
    assert [item.info.status for item in children(logger.run_id_)] == ["KILLED"]
    assert run(logger.run_id_).info.status == "KILLED"


@pytest.fixture
def default_interrupts():
    """SIGINT raises KeyboardInterrupt here, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="search must be a search"):
        SweepLogger().fit(vae(), X)
    with pytest.raises(InputError, match="experiment must be"):
        SweepLogger(experiment=3).fit(clone(SEARCHES["grid"]), X)
    with pytest.raises(InputError, match="log_models must be"):
        SweepLogger(log_models="yes").fit(clone(SEARCHES["grid"]), X)


# ------------------------------------------------------------- experiments, active runs


def test_an_active_run_becomes_the_searchs_once():
    with mlflow.start_run(run_name="mine") as mine:
        first = logged(clone(SEARCHES["no refit"]))
        assert first.run_id_ == mine.info.run_id
        assert run(first.run_id_).info.status == "RUNNING"  # it is the user's to end
        second = logged(clone(SEARCHES["no refit"]))
        third = logged(clone(SEARCHES["no refit"]), name="third")
        elsewhere = logged(clone(SEARCHES["no refit"]), experiment="elsewhere", log_models=True)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert run(mine.info.run_id).info.run_name == "mine"
    assert run(mine.info.run_id).info.status == "FINISHED"
    assert len(first.candidate_run_ids_) == 2
    for logger in (second, third):
        assert run(logger.run_id_).data.tags["mlflow.parentRunId"] == mine.info.run_id
        assert run(logger.run_id_).info.status == "FINISHED"
    assert run(third.run_id_).info.run_name == "third"
    assert "mlflow.parentRunId" not in run(elsewhere.run_id_).data.tags


def test_ctrl_c_in_an_active_run_kills_it(default_interrupts):
    interrupts_on_third.calls = 0
    with pytest.raises(KeyboardInterrupt), mlflow.start_run() as mine:
        SweepLogger().fit(GridSearchCV(vae(), ONE, cv=2, scoring=interrupts_on_third), X)
    assert run(mine.info.run_id).info.status == "KILLED"
    assert mlflow.active_run() is None


def test_experiment_is_the_one_set_or_named(monkeypatch):
    client = MlflowClient()
    mlflow.set_experiment("set")
    try:
        by_setting = logged(clone(SEARCHES["no refit"]))
        named = logged(clone(SEARCHES["grid"]), experiment="named", log_models=True)
        assert mlflow.set_experiment("set").name == "set"
    finally:
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    for logger, name in ((by_setting, "set"), (named, "named")):
        assert client.get_experiment(run(logger.run_id_).info.experiment_id).name == name
    default = logged(clone(SEARCHES["no refit"]))
    assert client.get_experiment(run(default.run_id_).info.experiment_id).name == "harmonicvae"


def test_a_store_of_its_own_leaves_mlflows_setting(tmp_path, store):
    before = mlflow.get_tracking_uri()
    shutil.copy(store / "mlflow.db", tmp_path / "own.db")  # its tables, made already
    uri = f"sqlite:///{tmp_path / 'own.db'}"
    logger = logged(clone(SEARCHES["no refit"]), tracking_uri=uri)
    assert mlflow.get_tracking_uri() == before
    assert MlflowClient(uri).get_run(logger.run_id_).info.status == "FINISHED"
    with pytest.raises(TrackingError, match="cannot open"):
        SweepLogger(tracking_uri="sqlite:////proc/none/x.db").fit(clone(SEARCHES["grid"]), X)
    assert mlflow.get_tracking_uri() == before


# ------------------------------------------------------------------------- never twice


@pytest.fixture
def autologging():
    """MLflow's autologging with the settings of the docstring, in an experiment of its own."""
    experiment = mlflow.set_experiment("autologging")
    mlflow.sklearn.autolog(log_models=False, max_tuning_runs=None, silent=True)
    yield experiment.experiment_id
    mlflow.sklearn.autolog(disable=True)
    mlflow.tracking.fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def new_runs(experiment_id, action):
    """Return runs that an action adds to an experiment: those on top, those below."""
    client = MlflowClient()
    before = {item.info.run_id for item in client.search_runs([experiment_id])}
    action()
    added = [i for i in client.search_runs([experiment_id]) if i.info.run_id not in before]
    below = [item for item in added if "mlflow.parentRunId" in item.data.tags]
    return [item for item in added if item not in below], below


@pytest.mark.parametrize("case", ["grid", "pipeline", "halving", "random"])
def test_autologging_and_the_logger_log_once(autologging, case):
    search = clone(SEARCHES[case])
    top, below = new_runs(autologging, lambda: logged(search))
    assert len(top) == 1
    assert len(below) == len(search.cv_results_["params"])
    assert {item.data.tags["mlflow.parentRunId"] for item in below} == {top[0].info.run_id}
    assert "best_cv_score" not in top[0].data.metrics  # autologging's name
    again = clone(SEARCHES["pipeline"])
    top, below = new_runs(autologging, lambda: again.fit(X))
    assert (len(top), len(below)) == (1, 2)  # it is on again


@pytest.mark.parametrize(("case", "expected"), [("grid", 4), ("pipeline", 2), ("halving", 0)])
def test_autologging_alone_logs_searches_once(autologging, case, expected):
    search = clone(SEARCHES[case])
    top, below = new_runs(autologging, lambda: search.fit(X))
    assert len(top) == 1
    assert len(below) == expected  # MLflow does not know halving searches
    scores = sorted(item.data.metrics["mean_test_score"] for item in below)
    if expected:
        assert scores == sorted(search.cv_results_["mean_test_score"])


# ---------------------------------------------------------------------------- backends


def parallel_search(**options):
    """Four candidates of which one fails, with the last loss as score, in two processes."""
    grid = {"harmonicvae__encoder_std": [0.5, -1, 1.0, 2.0]}
    options = {"cv": 2, "n_jobs": 2, "refit": False, "scoring": last_loss} | options
    return GridSearchCV(PIPELINE, grid, **options)


def assert_logged_in_parallel(search):
    """Fit under a logger and see that every fold's curve ends in its own score."""
    logger = logged(search)
    statuses = [run(run_id).info.status for run_id in logger.candidate_run_ids_]
    assert statuses == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]
    curves = table(logger.run_id_, names.FILE_CURVES)
    assert len(curves) == 3 * 2 * 3
    for (candidate, fold), rows in curves.groupby([names.CANDIDATE, names.FOLD]):
        loss = search.cv_results_[f"split{fold}_test_score"][candidate]
        assert rows[names.TRAIN_LOSS].iloc[-1] == pytest.approx(loss, rel=1e-12)


def threads_of_workers():
    """Return how many threads torch has in the workers of the present backend."""

    def threads(estimator, X, y=None):  # sent by value: workers need not import this module
        return torch.get_num_threads()

    search = GridSearchCV(vae(), ONE, cv=2, scoring=threads, n_jobs=2, refit=False)
    return set(search.fit(X).cv_results_["mean_test_score"])


def test_threads_of_one_process():
    with joblib.parallel_config(backend="threading"):
        assert_logged_in_parallel(parallel_search(return_train_score=True))


def interrupt_after(count):
    """Send this process a Ctrl-C as soon as that many folds have arrived; a started thread."""

    def watch():
        for _ in range(10_000):  # at most 100 seconds
            if sum(map(len, fold_records.ARRIVED.values())) >= count:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_loky_processes(default_interrupts):
    search = parallel_search(scoring=None, return_train_score=True)
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        assert_logged_in_parallel(parallel_search(return_train_score=True))
        plain = clone(search).fit(X)
        logged(search)
        assert_same_results(search.cv_results_, plain.cv_results_)
        assert threads_of_workers() == {1.0}
        logger, many = (
            SweepLogger(),
            clone(search).set_params(param_grid={"harmonicvae__lr": [1e-3] * 10}, pre_dispatch=2),
        )
        many.set_params(estimator__harmonicvae__max_epochs=400)
        watch = interrupt_after(2)
        with pytest.raises(KeyboardInterrupt):
            logger.fit(many, X)
        watch.join()
    assert run(logger.run_id_).info.status == "KILLED"
    scores = table(logger.run_id_, names.FILE_FOLD_SCORES)
    assert 2 <= len(scores) < 20
    expected = clone(many).set_params(n_jobs=None, param_grid={"harmonicvae__lr": [1e-3]}).fit(X)
    known = [expected.cv_results_[f"split{fold}_test_score"][0] for fold in range(2)]
    assert all(np.isclose(known, score, rtol=1e-6).any() for score in scores["score"])
    assert len(table(logger.run_id_, names.FILE_CURVES)) == 400 * len(scores)


def test_dask_workers_need_no_store(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster) as client:
        client.run(_forget_store)
        with joblib.parallel_config(backend="dask"):
            assert_logged_in_parallel(parallel_search(return_train_score=True))
            assert threads_of_workers() == {1.0}


def _forget_store():
    """Give a worker an MLflow store that cannot be opened."""
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:////proc/none/x.db"
