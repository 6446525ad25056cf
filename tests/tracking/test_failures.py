"""What goes wrong around a study: dead workers, races, interruptions, folders of others."""

import json
import os
import signal
import subprocess
import sys

import mlflow
import pytest
from mlflow import MlflowClient

from harmonicvae import names, study
from harmonicvae.cli import main
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.result_folder import building, check_output
from harmonicvae.tracking import parallel, registry, runs, stores
from harmonicvae.tracking.backends import Backend
from harmonicvae.tracking.jobs import Outcome
from harmonicvae.tracking.specs import DataSpec, ModelSpec


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A fresh MLflow store for each test."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield tmp_path
    mlflow.set_tracking_uri(before)


def spec(**changes):
    values = {"dataset": "sinc", "encoder_std": 0.5, "input_noise_std": 0.0, "seed": 0}
    return ModelSpec(**values | {"epochs": 1, "latent_dim": 1} | changes)


def train(specs, store, **execution):
    """Train models under keys of their names and return what became of them."""
    keys = [item.name for item in specs]
    execution = parallel.Execution(device="cpu", **execution)
    return parallel.train_all(specs, keys, DataSpec(name="sinc"), store, execution)[1]


# ------------------------------------------------------------------------- dead workers


class Task:
    """A job as run_jobs sees it: something that crosses to a worker and has a run."""

    def __init__(self, model, run_id, store):
        self.model, self.run_id, self.store = model, run_id, store

    def __eq__(self, other):
        return self.run_id == other.run_id

    __hash__ = None


def die_or_return(task):
    if "mortal" in task.model:
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(model=task.model, run_id=task.run_id, row={"pid": os.getpid()})


def test_a_dead_worker_loses_its_own_job_only(store):
    opened = stores.open_store("dead")
    labels = ["a", "b", "mortal", "c", "mortal too", "d"]
    tasks = [Task(label, runs.create_run(opened, label, "model"), opened) for label in labels]
    run = Backend(n_jobs=2).run(
        die_or_return, tasks, lambda task: parallel._lost_evaluation(opened, task)
    )
    outcomes = {item.model: item for item in run}
    assert set(outcomes) == set(labels)
    for label, outcome in outcomes.items():
        assert bool(outcome.failure) == ("mortal" in label), label
        if outcome.failure:
            run = MlflowClient().get_run(outcome.run_id)
            assert run.info.status == "FAILED"
            assert "worker process died" in run.data.tags[names.TAG_FAILURE]


def test_jobs_of_one_process_run_here(store):
    tasks = [Task(label, label, None) for label in "ab"]
    outcomes = list(Backend().run(die_or_return, tasks, lambda task: None))
    assert [item.row["pid"] for item in outcomes] == [os.getpid()] * 2


# --------------------------------------------------------------------------- interrupts


def test_an_interrupt_while_runs_are_created_leaves_none_open(store, monkeypatch):
    opened = stores.open_store("created")
    created, real = [], runs.create_run

    def create_two(*arguments, **options):
        if len(created) == 2:
            raise KeyboardInterrupt
        created.append(real(*arguments, **options))
        return created[-1]

    monkeypatch.setattr(runs, "create_run", create_two)
    with pytest.raises(KeyboardInterrupt):
        train([spec(seed=seed) for seed in range(4)], opened)
    assert {MlflowClient().get_run(run_id).info.status for run_id in created} == {"KILLED"}


def test_models_finished_before_an_interrupt_are_registered(store):
    opened = stores.open_store("partly")

    def stop(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([spec(seed=seed) for seed in range(2)], opened, finished=stop)
    (version,) = MlflowClient().search_model_versions("name='harmonicvae-sinc'")
    assert version.tags[names.SEED] == "0"


def test_an_unregistered_model_is_a_failure_with_its_reason(store, monkeypatch):
    opened = stores.open_store("unregistered")

    def refuse(*arguments, **options):
        raise mlflow.exceptions.MlflowException("registry is full")

    monkeypatch.setattr(registry, "register", refuse)
    (outcome,) = train([spec()], opened)
    assert "registry is full" in outcome.failure
    run = MlflowClient().get_run(outcome.run_id)
    assert run.info.status == "FAILED"
    assert "registry is full" in run.data.tags[names.TAG_FAILURE]


# -------------------------------------------------------------------------------- races


def test_two_first_users_of_a_store_do_not_meet(store):
    code = (
        "from harmonicvae.tracking import stores; print(stores.open_store('shared').experiment_id)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=store,
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1


def test_logging_one_data_set_at_once_is_tried_again(monkeypatch):
    monkeypatch.setattr(runs.time, "sleep", lambda seconds: None)
    message = "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id"
    calls = []

    def fail_twice():
        calls.append(1)
        if len(calls) < 3:
            raise mlflow.exceptions.MlflowException(message)
        return "logged"

    assert runs.with_dataset_retries(fail_twice) == "logged"
    assert len(calls) == 3

    def other():
        calls.append(1)
        raise mlflow.exceptions.MlflowException("store is full")

    with pytest.raises(mlflow.exceptions.MlflowException, match="full"):
        runs.with_dataset_retries(other)
    assert len(calls) == 4


def _log_sinc(store_spec, run_id):
    data = DataSpec(name="sinc").load("validation")
    runs.log_dataset(store_spec, run_id, data, "training")


def test_many_processes_log_the_same_data_set(store):
    from joblib import Parallel, delayed

    opened = stores.open_store("datasets")
    run_ids = [runs.create_run(opened, str(index), "model") for index in range(8)]
    Parallel(n_jobs=4)(delayed(_log_sinc)(opened, run_id) for run_id in run_ids)
    for run_id in run_ids:
        (logged,) = MlflowClient().get_run(run_id).inputs.dataset_inputs
        assert logged.dataset.name == "sinc-validation"


# ------------------------------------------------------------------------------ folders


def _fail_half_way(out):
    with building(check_output(out)) as aside:
        (aside / names.FILE_MODELS).write_text("model\nsecond\n")
        raise RuntimeError("boom")


def test_a_study_that_fails_leaves_former_results_alone(tmp_path):
    out = tmp_path / "out"
    with building(check_output(out)) as aside:
        (aside / names.FILE_STUDY).write_text(json.dumps({"written_by": "harmonicvae"}))
        (aside / names.FILE_MODELS).write_text("model\nfirst\n")
    with pytest.raises(RuntimeError, match="boom"):
        _fail_half_way(out)
    assert (out / names.FILE_MODELS).read_text() == "model\nfirst\n"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out"]


def test_a_study_replaces_its_own_files_and_no_others(tmp_path):
    out = tmp_path / "out"
    for text in ("first", "second"):
        with building(check_output(out)) as aside:
            (aside / names.FILE_STUDY).write_text(json.dumps({"written_by": "harmonicvae"}))
            (aside / names.FILE_MODELS).write_text(text)
            if text == "first":
                (aside / names.FILE_ATTACKS).write_text("stale")
        if text == "first":
            (out / "notes.csv").write_text("mine")
    assert (out / names.FILE_MODELS).read_text() == "second"
    assert not (out / names.FILE_ATTACKS).exists()
    assert (out / "notes.csv").read_text() == "mine"


@pytest.mark.parametrize("content", ["{}", "not json", '{"written_by": "somebody"}'])
def test_a_folder_with_somebody_elses_study_json_is_refused(tmp_path, content):
    (tmp_path / names.FILE_STUDY).write_text(content)
    with pytest.raises(InputError, match="holds something else"):
        check_output(tmp_path)


def test_a_file_as_output_is_one_clear_line(store, capsys):
    (store / "file").write_text("")
    assert main(["study", "--output", str(store / "file")]) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert not (store / "mlflow.db").exists()


# -------------------------------------------------------------------------------- names


def test_close_noise_levels_have_names_of_their_own():
    stds = (0.1234567, 0.1234568, 1.0, 1e-7)
    assert len({spec(encoder_std=std).name for std in stds}) == 4
    assert len({spec(encoder_std=std).alias for std in stds}) == 4
    plan = study.StudyPlan(
        data=DataSpec(name="sinc"),
        preset="quick",
        encoder_stds=stds,
        input_noise_stds=(0.0, 0.5),
        seeds=(1, 2),
        epochs=1,
    )
    labels = [item.name for item in plan.specs()]
    assert len(labels) == len(set(labels)) == 2 * 6  # 0.5 / 0 and 0.5 / 0.5 beside the four


# --------------------------------------------------------------------------- last resort


def test_a_broken_store_is_one_clear_line(store, monkeypatch, capsys):
    (store / "broken.db").write_bytes(b"this is no database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'broken.db'}")
    mlflow.set_tracking_uri(f"sqlite:///{store / 'broken.db'}")
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    assert main(["train", "--epochs", "abc"]) == 2
    assert main(["train", "--epochs", "1", "--experiment", "x"]) == 1
    errors = capsys.readouterr().err
    assert "cannot open the MLflow store" in errors
    assert "Traceback" not in errors


def test_an_unknown_outer_run_is_one_clear_line(store, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    assert main(["train", "--epochs", "1", "--experiment", "x"]) == 1
    assert "MLFLOW_RUN_ID names no run" in capsys.readouterr().err


def test_passwords_stay_out_of_messages_and_files(store):
    assert stores.public_uri("postgresql://me:secret@host:5432/db") == "postgresql://host:5432/db"
    assert stores.public_uri("sqlite:////folder/mlflow.db") == "sqlite:////folder/mlflow.db"
    with pytest.raises(TrackingError) as caught:
        stores.open_store(tracking_uri="nosuchscheme://me:secret@host/db")
    assert "secret" not in str(caught.value)
