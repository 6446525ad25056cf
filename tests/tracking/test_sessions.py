"""One sweep after another: what is taken over, what is trained anew, and who may run when."""

import json
import os
import subprocess
import sys
import time

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from harmonicvae import names, processes
from harmonicvae.cli import main
from harmonicvae.study import StudyPlan
from harmonicvae.tracking import groups, keys, reaping, runs, sessions, stores, training
from harmonicvae.tracking.sessions import ModelRun
from harmonicvae.tracking.specs import DataSpec, ModelSpec

GRID = ["sweep", "--epochs", "2", "--seeds", "1", "--n-jobs", "1", "--input-noise-std", "0"]
SWEEP = [*GRID, "--together", "false"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield tmp_path
    mlflow.set_tracking_uri(before)


def found_runs(role=None, experiment="harmonicvae"):
    found = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name(experiment).experiment_id]
    )
    return [run for run in found if role in (None, run.data.tags.get(names.TAG_ROLE))]


def epochs_trained(monkeypatch):
    """Return a list that grows by a model's name whenever one is fitted."""
    fitted, real = [], training._train

    def watched(job):
        fitted.append(job.spec.name)
        return real(job)

    monkeypatch.setattr(training, "_train", watched)
    return fitted


def test_the_same_command_again_trains_nothing_and_gives_the_same_table(store, monkeypatch):
    fitted = epochs_trained(monkeypatch)
    assert main([*SWEEP, "--encoder-std", "1,0.5"]) == 0
    table = (store / "harmonicvae-results" / "sinc" / names.FILE_SWEEP).read_bytes()
    assert len(fitted) == 2
    assert main([*SWEEP, "--encoder-std", "1,0.5"]) == 0
    assert len(fitted) == 2
    assert (store / "harmonicvae-results" / "sinc" / names.FILE_SWEEP).read_bytes() == table
    (parent,) = found_runs("study")
    assert parent.data.tags[names.TAG_SESSIONS] == "2"
    assert len(found_runs("model")) == 2
    assert len(MlflowClient().search_model_versions()) == 2


def test_a_larger_grid_takes_finished_models_over_and_leaves_their_runs_where_they_are(
    store, monkeypatch
):
    fitted = epochs_trained(monkeypatch)
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 0
    (first,) = found_runs("study")
    assert main([*SWEEP, "--encoder-std", "1,0.5"]) == 0
    assert fitted == ["sinc-e0.5-n0-s1", "sinc-e1-n0-s1"]
    (second,) = [run for run in found_runs("study") if run.info.run_id != first.info.run_id]
    reused = json.loads(second.data.tags[names.TAG_REUSED])
    (old,) = [run for run in found_runs("model") if run.info.run_name == "sinc-e0.5-n0-s1"]
    assert reused == {"sinc-e0.5-n0-s1": old.info.run_id}
    assert old.data.tags[names.TAG_PARENT] == first.info.run_id
    table = pd.read_csv(store / "harmonicvae-results" / "sinc" / names.FILE_MODELS)
    assert len(table) == 2


def test_other_data_parameters_or_code_train_anew(store, monkeypatch):
    fitted = epochs_trained(monkeypatch)
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 0
    assert main([*SWEEP, "--encoder-std", "0.5", "--epochs", "3"]) == 0
    monkeypatch.setattr(keys, "code_version", lambda parts=None: "changed")
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 0
    assert len(fitted) == 3


def test_reuse_false_trains_anew_in_a_run_of_its_own(store, monkeypatch):
    fitted = epochs_trained(monkeypatch)
    for _ in range(2):
        assert main([*SWEEP, "--encoder-std", "0.5", "--reuse", "false"]) == 0
    assert len(fitted) == 2
    assert len(found_runs("study")) == 2
    assert len(MlflowClient().search_model_versions()) == 2


def test_a_failed_model_is_tried_again(store, monkeypatch, capsys):
    real, calls = training.stored_model, []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no luck")
        return real(*arguments)

    monkeypatch.setattr(training, "stored_model", fail_once)
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 1
    assert "repeat the command to try them again" in capsys.readouterr().err
    (run,) = found_runs("model")
    assert run.info.status == "FAILED"
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 0
    (run,) = found_runs("model")
    assert run.info.status == "FINISHED"
    assert names.TAG_FAILURE not in run.data.tags
    steps = MlflowClient().get_metric_history(run.info.run_id, names.TRAIN_LOSS)
    assert [item.step for item in steps] == [1, 2]
    assert {run.info.status for run in found_runs()} == {"FINISHED"}


@pytest.mark.parametrize(
    "moment", ["log_metrics", "store_artifacts", "_log_model", "describe", "stored_model"]
)
def test_an_interrupt_at_any_step_is_gone_on_from(store, monkeypatch, moment):
    place = training.runs if moment == "log_metrics" else training
    real = getattr(place, moment)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, moment, interrupt)
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 130
    assert {run.info.status for run in found_runs()} == {"KILLED"}
    monkeypatch.setattr(place, moment, real)
    assert main([*SWEEP, "--encoder-std", "0.5"]) == 0
    assert {run.info.status for run in found_runs()} == {"FINISHED"}
    assert len(found_runs()) == 2
    (run,) = found_runs("model")
    experiment = run.info.experiment_id
    assert len(MlflowClient().search_logged_models([experiment])) == 1
    assert len(MlflowClient().search_model_versions()) == 1
    assert not list(store.glob("harmonicvae-results/*.checkpoints"))


def test_ctrl_c_in_training_keeps_a_checkpoint_that_the_next_start_goes_on_from(
    store, monkeypatch, capsys
):
    real, seen = training.Hooks.__call__, []
    monkeypatch.setattr("harmonicvae.models.net.CHECKPOINT_SECONDS", 0.0)

    def stop_at_four(self, row):
        real(self, row)
        seen.append(row[names.EPOCH])
        if row[names.EPOCH] == 4 and seen.count(4) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Hooks, "__call__", stop_at_four)
    sweep = [*SWEEP, "--encoder-std", "0.5", "--epochs", "6"]
    assert main(sweep) == 130
    assert "repeat the command to continue" in capsys.readouterr().err
    assert len(list(store.glob("harmonicvae-results/sinc.checkpoints/*.pt"))) == 1
    assert main(sweep) == 0
    assert seen == [1, 2, 3, 4, *range(seen[4], 7)]
    assert seen[4] > 1  # not from the beginning
    (run,) = found_runs("model")
    steps = MlflowClient().get_metric_history(run.info.run_id, names.TRAIN_LOSS)
    assert sorted(item.step for item in steps) == [1, 2, 3, 4, 5, 6]


def test_an_interrupted_evaluation_does_not_repeat_the_finished_ones(store, monkeypatch):
    from harmonicvae.tracking import jobs

    light = {names.EVALUATOR_MAX_DAMAGE: {"radii": (1.0,), "n_images": 1, "methods": ("linear",)}}
    monkeypatch.setattr(StudyPlan, "evaluators", lambda plan: light)
    study = ["study", *SWEEP[1:], "--epochs", "1", "--encoder-std", "1,0.5"]
    real, done = jobs._evaluate, []

    def second_is_interrupted(job):
        if len(done) == 1:
            done.append("interrupted")
            raise KeyboardInterrupt
        real(job)
        done.append(job.model)

    monkeypatch.setattr(jobs, "_evaluate", second_is_interrupted)
    assert main(study) == 130
    assert main(study) == 0
    assert done == ["sinc-e1-n0-s1", "interrupted", "sinc-e0.5-n0-s1"]
    results = store / "harmonicvae-results" / "sinc"
    interrupted = {
        file: (results / file).read_bytes() for file in (names.FILE_SWEEP, names.FILE_ATTACKS)
    }
    assert len(found_runs()) == 3
    monkeypatch.setattr(jobs, "_evaluate", real)
    assert main([*study, "--reuse", "false", "--output", str(store / "anew")]) == 0
    for file, content in interrupted.items():
        assert (store / "anew" / file).read_bytes() == content, file


def test_the_same_sweep_twice_at_once_is_refused(store, capsys):
    opened = stores.open_store()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        started = processes.psutil.Process(child.pid).create_time()
        owner = processes.this_process().split(":")[0] + f":{child.pid}:{started:.2f}"
        run_id = runs.create_run(opened, "theirs", "study", {names.TAG_KEY: "k"})
        MlflowClient().set_tag(run_id, names.TAG_OWNER, owner)
        with (
            pytest.raises(sessions.TrackingError, match=f"running already .process {child.pid}"),
            sessions.sweep_session(opened, "k", "mine", "study"),
        ):
            pytest.fail("the second one ran")
        child.kill()
        child.wait()
        with sessions.sweep_session(opened, "k", "mine", "study") as inside:
            assert inside.parent_run_id == run_id  # the dead one's run goes on
    finally:
        child.kill()
        child.wait()


def test_models_of_a_living_sweep_stay_with_it(store):
    opened = stores.open_store()
    spec = ModelSpec(
        dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=0, epochs=1, latent_dim=1
    )
    theirs = runs.create_run(opened, "theirs", "study")
    inside = sessions.replace(opened, parent_run_id=theirs)
    tags = {names.TAG_KEY: "m", names.TAG_TRAINED: "models:/m-1"}
    trained = runs.create_run(inside, "model", "model", tags)
    MlflowClient().set_terminated(trained)
    busy = runs.create_run(inside, "model", "model", {names.TAG_KEY: "n"})
    ours = sessions.replace(opened, parent_run_id=runs.create_run(opened, "ours", "study"))
    first, second = sessions.model_runs(ours, [spec, spec], ["m", "n"])
    assert first == ModelRun(
        spec=spec, key="m", run_id=trained, model_uri="models:/m-1", foreign=True
    )
    assert second.run_id != busy
    assert MlflowClient().get_run(trained).data.tags[names.TAG_PARENT] == theirs
    MlflowClient().set_terminated(theirs, "KILLED")
    (taken,) = sessions.model_runs(ours, [spec], ["m"])
    assert not taken.foreign
    parent = MlflowClient().get_run(trained).data.tags[names.TAG_PARENT]
    assert parent == ours.parent_run_id


def test_a_run_that_a_dying_server_made_twice_is_deleted(store):
    opened = stores.open_store()
    ours = sessions.replace(opened, parent_run_id=runs.create_run(opened, "ours", "study"))
    spec = ModelSpec(
        dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=0, epochs=1, latent_dim=1
    )
    twins = [sessions._scheduled_run(ours, spec, "m") for _ in range(2)]
    (found,) = sessions.model_runs(ours, [spec], ["m"])
    stages = {run_id: MlflowClient().get_run(run_id).info.lifecycle_stage for run_id in twins}
    assert sorted(stages.values()) == ["active", "deleted"]
    assert stages[found.run_id] == "active"


def test_a_worker_of_an_earlier_start_stops_and_leaves_the_run_alone(store):
    opened = stores.open_store()
    spec = ModelSpec(
        dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=0, epochs=1, latent_dim=1
    )
    run_id = runs.create_run(opened, spec.name, "model")
    job = training.Job(
        spec=spec, data=DataSpec(name="sinc"), store=opened, run_id=run_id, owner="h:1:1.00"
    )
    outcome = training.train_job(job)
    assert "another start of this sweep" in outcome.failure
    run = MlflowClient().get_run(run_id)
    assert names.TAG_TRAINED not in run.data.tags
    assert not MlflowClient().search_logged_models([opened.experiment_id])


# ------------------------------------------------------------------------------- groups

TOGETHER = [*GRID, "--together", "true", "--encoder-std", "1,0.5,0.1", "--epochs", "4"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The table of a group that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(
        [sys.executable, "-m", "harmonicvae", *TOGETHER],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
        check=True,
        capture_output=True,
    )
    return (folder / "harmonicvae-results" / "sinc" / names.FILE_SWEEP).read_bytes()


def interrupt_at(monkeypatch, place, name, call):
    """Raise KeyboardInterrupt in the given call of a function, once."""
    real, calls = getattr(place, name), []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, counted)


@pytest.mark.parametrize(
    ("place", "name", "call"),
    [
        (training.Hooks, "__call__", 1),  # in the first epoch
        (training.Hooks, "__call__", 8),  # in the third, after a checkpoint
        (training, "stored_model", 1),  # trained, none stored
        (training, "_log_model", 2),  # one stored
        (training.registry, "register", 1),  # stored, none registered
    ],
    ids=["first-epoch", "third-epoch", "trained", "one-stored", "stored"],
)
def test_an_interrupted_group_ends_as_if_nothing_had_happened(
    store, monkeypatch, uninterrupted, place, name, call
):
    monkeypatch.setattr(groups, "CHECKPOINT_SECONDS", 0.0)
    interrupt_at(monkeypatch, place, name, call)
    assert main(TOGETHER) == 130
    assert {run.info.status for run in found_runs("study")} == {"KILLED"}
    assert main(TOGETHER) == 0
    table = store / "harmonicvae-results" / "sinc" / names.FILE_SWEEP
    assert table.read_bytes() == uninterrupted
    assert {run.info.status for run in found_runs()} == {"FINISHED"}
    assert len(found_runs("model")) == 3
    for run in found_runs("model"):
        steps = MlflowClient().get_metric_history(run.info.run_id, names.TRAIN_LOSS)
        assert sorted(item.step for item in steps) == [1, 2, 3, 4]
        assert run.data.metrics[names.TRAIN_SECONDS] > 0
    experiment = found_runs()[0].info.experiment_id
    assert len(MlflowClient().search_logged_models([experiment])) == 3
    assert len(MlflowClient().search_model_versions()) == 3
    assert not list(store.glob("harmonicvae-results/*.checkpoints"))


def test_a_model_that_diverges_fails_alone_in_its_group(store, monkeypatch):
    real = ModelSpec.estimator

    def noisy(self, *shape, **options):
        estimator = real(self, *shape, **options)
        return estimator.set_params(input_noise_std=1e38 if self.encoder_std == 0.5 else 0.0)

    monkeypatch.setattr(ModelSpec, "estimator", noisy)
    assert main(TOGETHER) == 1
    status = {run.info.run_name: run.info.status for run in found_runs("model")}
    assert status == {
        "sinc-e1-n0-s1": "FINISHED",
        "sinc-e0.5-n0-s1": "FAILED",
        "sinc-e0.1-n0-s1": "FINISHED",
    }
    (failed,) = [run for run in found_runs("model") if run.info.status == "FAILED"]
    assert "train_loss became" in failed.data.tags[names.TAG_FAILURE]


# ------------------------------------------------------------------------- many writers

WRITER = """
import sys, time, pathlib
from harmonicvae import names
from harmonicvae.tracking import runs, stores
gate, experiment, number = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(gate.parent / f"ready-{number}").touch()
while not gate.exists():
    time.sleep(0.01)
store = stores.open_store(experiment)
run_id = runs.create_run(store, f"writer-{number}", "model")
logger = runs.EpochLogger(store, run_id, seconds=0.0)
for epoch in range(1, 21):
    logger({names.EPOCH: epoch, names.TRAIN_LOSS: float(epoch)})
logger.flush()
runs.end_run(store, run_id, "FINISHED")
"""


def test_eight_writers_on_a_fresh_store_each_reach_their_experiment(store):
    gate = store / "gate"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(gate), f"experiment-{number % 3}", str(number)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(8)
    ]
    while len(list(store.glob("ready-*"))) < 8:
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.1)
    gate.touch()  # all at once
    assert [writer.wait(300) for writer in writers] == [0] * 8
    client = MlflowClient()
    assert client.search_runs(["0"]) == []
    seen = []
    for number in range(3):
        for run in found_runs(experiment=f"experiment-{number}"):
            assert int(run.info.run_name.split("-")[1]) % 3 == number
            steps = client.get_metric_history(run.info.run_id, names.TRAIN_LOSS)
            assert [(item.step, item.value) for item in steps] == [(n, n) for n in range(1, 21)]
            assert run.info.status == "FINISHED"
            seen.append(run.info.run_name)
    assert sorted(seen) == [f"writer-{number}" for number in range(8)]


def test_reaping_is_part_of_every_start(store):
    opened = stores.open_store()
    host = processes.this_process().split(":")[0]
    dead = runs.create_run(opened, "dead", "evaluation")
    MlflowClient().set_tag(dead, names.TAG_OWNER, f"{host}:1:1.00")
    assert main(["train", "--epochs", "1"]) == 0
    assert MlflowClient().get_run(dead).info.status == "KILLED"
    assert reaping.reap(opened) == []
