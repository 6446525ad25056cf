"""Sweeps on a Dask cluster: a scheduler and two workers on the loopback address."""

import os
import signal
import subprocess
import sys
import time

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.tracking.backends import Backend
from harmonicvae.tracking.jobs import Outcome

distributed = pytest.importorskip("distributed")

SWEEP = ["--epochs", "25", "--seeds", "1,2", "--encoder-std", "1,0.5", "--input-noise-std", "0"]

LOKY = ["--output", "loky"]


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def store(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield tmp_path
    mlflow.set_tracking_uri(before)


def start(folder, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "harmonicvae", "sweep", *SWEEP, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pids(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        return client.run(os.getpid)


def test_a_worker_killed_in_a_sweep_loses_no_model(cluster, store):
    process = start(store, "--backend", "dask", "--scheduler", cluster.scheduler_address)
    experiment = None
    while experiment is None or not any(
        MlflowClient().get_metric_history(run.info.run_id, names.TRAIN_LOSS)
        for run in MlflowClient().search_runs([experiment.experiment_id])
    ):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.3)
        experiment = MlflowClient().get_experiment_by_name("harmonicvae")
    os.kill(next(iter(pids(cluster).values())), signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    found = MlflowClient().search_runs([experiment.experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    assert len(found) == 5
    for run in found:
        steps = MlflowClient().get_metric_history(run.info.run_id, names.TRAIN_LOSS)
        if run.data.tags[names.TAG_ROLE] == "model":
            assert sorted(item.step for item in steps) == list(range(1, 26))
    assert len(MlflowClient().search_model_versions()) == 4
    dask = (store / "harmonicvae-results" / "sinc" / names.FILE_SWEEP).read_bytes()
    again = start(store, "--n-jobs", "2", "--together", "false", "--reuse", "false", *LOKY)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    assert (store / "loky" / names.FILE_SWEEP).read_bytes() == dask


class Task:
    def __init__(self, model):
        self.model = self.run_id = model


def die_or_return(task):
    import torch

    if task.model == "mortal":
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(model=task.model, run_id=task.run_id, row={"threads": torch.get_num_threads()})


def lost(task):
    return Outcome(model=task.model, run_id=task.run_id, failure="lost")


def test_a_job_that_kills_its_workers_is_lost_alone(cluster):
    backend = Backend(name="dask", n_jobs=2, scheduler=cluster.scheduler_address)
    tasks = [Task(name) for name in ("a", "mortal", "b")]
    outcomes = {item.model: item for item in backend.run(die_or_return, tasks, lost)}
    assert set(outcomes) == {"a", "b", "mortal"}
    assert [name for name, item in outcomes.items() if item.failure] == ["mortal"]
    assert outcomes["a"].row["threads"] == 1  # the nanny's setting: no oversubscription


def test_without_a_scheduler_workers_are_started_here():
    backend = Backend(name="dask", n_jobs=1)
    (outcome,) = backend.run(die_or_return, [Task("a")], lost)
    assert outcome.model == "a"


def test_a_scheduler_that_is_not_there_is_said_clearly():
    backend = Backend(name="dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"no Dask scheduler at 'tcp://127.0.0.1:9'"):
        list(backend.run(die_or_return, [Task("a")], lost))


def test_bad_backends_are_refused():
    with pytest.raises(InputError, match="backend must be one of loky, dask, got 'ray'"):
        Backend(name="ray")
    with pytest.raises(InputError, match="scheduler is for backend=dask only"):
        Backend(scheduler="tcp://127.0.0.1:8786")


def _fold(seed):
    import torch

    return torch.get_num_threads(), seed


def test_a_grid_search_on_dask_gives_the_scores_of_a_serial_one(cluster):
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV

    from harmonicvae import HarmonicVAE

    X = load_digits().data[:300] / 8 - 1
    vae = HarmonicVAE(hidden_dims=(8,), max_epochs=2, batch_size=64, random_state=0)
    grid = {"encoder_std": [1.0, 0.1], "input_noise_std": [0.0, 0.5]}
    serial = GridSearchCV(vae, grid, cv=2).fit(X)
    with (
        distributed.Client(cluster) as _,
        joblib.parallel_config(backend="dask"),
    ):
        spread = GridSearchCV(vae, grid, cv=2).fit(X)
    columns = ["param_encoder_std", "param_input_noise_std", "mean_test_score", "std_test_score"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(serial.cv_results_)[columns], pd.DataFrame(spread.cv_results_)[columns]
    )
