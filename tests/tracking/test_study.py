"""A whole small study through the shell, and everything it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import harmonicvae
from harmonicvae import names
from harmonicvae.cli import main
from harmonicvae.datasets import load_sinc
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.lipschitz import bound
from harmonicvae.tracking import runs, stores, training
from harmonicvae.tracking.registry import load_model
from harmonicvae.tracking.specs import DataSpec, ModelSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study(store):
    """Five models of three epochs, in two processes."""
    code = main(
        ["study", "--epochs", "3", "--seeds", "14609714069366804553", "--radii", "1,5"]
        + ["--n-jobs", "2", "--output", str(store / "results")]
    )
    assert code == 0
    return store / "results"


@pytest.fixture(scope="module")
def models(study):
    return pd.read_csv(study / names.FILE_MODELS, dtype={names.SEED: str})


def study_runs(study):
    run_id = json.loads((study / names.FILE_STUDY).read_text())["study_run_id"]
    parent = MlflowClient().get_run(run_id)
    children = MlflowClient().search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    return parent, children


def test_the_grid_is_both_columns_with_the_shared_model_once(models):
    pairs = list(zip(models[names.ENCODER_STD], models[names.INPUT_NOISE_STD]))
    assert pairs == [(1.0, 0), (0.5, 0), (0.1, 0), (0.5, 1.0), (0.5, 0.5)]
    assert set(models[names.SEED]) == {"14609714069366804553"}


def test_result_files_are_complete(study, models):
    for file in (names.FILE_HISTORY, names.FILE_BOUNDS, names.FILE_ATTACKS, names.FILE_LOAD):
        assert len(pd.read_csv(study / file)) > 0, file
    history = pd.read_csv(study / names.FILE_HISTORY)
    assert history.groupby(names.MODEL).size().tolist() == [3] * 5
    attacks = pd.read_csv(study / names.FILE_ATTACKS)
    assert set(attacks[names.RADIUS]) == {1.0, 5.0}
    assert (attacks[names.BOUND_RATIO] <= 1).all()
    for model in models[names.MODEL]:
        with np.load(study / names.FOLDER_ARRAYS / f"{model}.npz") as arrays:
            assert {"originals", "reconstructions", "attack_inputs"} <= set(arrays)
    assert "harmonicvae" in (study / names.FILE_REPORT).read_text(encoding="utf-8")
    assert not (study / "progress").exists()


def test_bounds_bracket_every_model(models):
    for side in names.SIDES:
        lower = models[names.lipschitz_lower(side)]
        upper = models[names.lipschitz_upper(side)]
        assert (lower > 0).all()
        assert (lower <= upper).all()
        assert (upper <= models[names.lipschitz_upper(side, "norm_product")]).all()


def test_runs_are_nested_finished_and_complete(study):
    parent, children = study_runs(study)
    assert len(children) == 5
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.data.metrics["models"] == 5
    for run in children:
        assert run.data.params[names.ENCODER_STD]
        assert run.data.tags[names.TAG_MODEL] == run.info.run_name
        steps = MlflowClient().get_metric_history(run.info.run_id, names.TRAIN_LOSS)
        assert [metric.step for metric in steps] == [1, 2, 3]
        (dataset,) = [
            item.dataset for item in run.inputs.dataset_inputs if "train" in item.dataset.name
        ]
        assert dataset.digest == load_sinc().digest[:32]
        assert names.lipschitz_upper("decoder") in run.data.metrics
    artifacts = {item.path for item in MlflowClient().list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.html", "report/models.csv"} <= artifacts
    environment = MlflowClient().list_artifacts(parent.info.run_id)
    assert "environment.json" in {item.path for item in environment}


def test_models_are_registered_with_alias_and_tags(models):
    client = MlflowClient()
    for _, row in models.iterrows():
        version = client.get_model_version("harmonicvae-sinc", row["model_uri"].split("/")[-1])
        assert version.tags[names.ENCODER_STD] == str(row[names.ENCODER_STD])
        assert version.run_id == row["run_id"]
        assert len(version.aliases) == 1
        by_alias = client.get_model_version_by_alias("harmonicvae-sinc", version.aliases[0])
        assert by_alias.version == version.version


def test_stored_models_hold_no_pickle_and_come_back(models):
    uri = models["model_uri"].iloc[1]
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    files = {item.name for item in folder.rglob("*") if item.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".cloudpickle"))]
    assert {"weights.pt", "estimator.json", "model_code.py"} <= files
    X = load_sinc("validation").data
    vae = harmonicvae.load_model(uri)
    pyfunc = mlflow.pyfunc.load_model(uri)
    np.testing.assert_array_equal(pyfunc.predict(X), vae.reconstruct(X))
    codes = pyfunc.predict(X, params={"output": "transform"})
    np.testing.assert_array_equal(codes, vae.transform(X))
    scores = pyfunc.predict(X, params={"output": "score_samples"})
    assert scores.mean() == pytest.approx(models[names.ELBO].iloc[1], rel=1e-12)
    expected = models[names.lipschitz_upper("decoder")].iloc[1]
    assert bound(vae.decoder_).value == pytest.approx(expected, rel=1e-9)
    assert vae.seed_ == 14609714069366804553


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("models:/no-such-model/1", TrackingError),
        ("models:/harmonicvae-sinc/99", TrackingError),
        ("nonsense", InputError),
    ],
)
def test_loading_what_is_not_there(study, uri, error):
    with pytest.raises(error, match=uri.split("/")[-1]):
        load_model(uri)


def test_verbs_work_on_a_registered_model(models, store, capsys):
    uri = models["model_uri"].iloc[0]
    assert main(["lipschitz", uri, "--points", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = models[names.lipschitz_upper("encoder")].iloc[0]
    assert found[names.lipschitz_upper("encoder")] == pytest.approx(expected, rel=1e-9)
    run = MlflowClient().get_run(found["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.TAG_ROLE] == "evaluation"
    assert main(["attack", uri, "--radii", "2", "--steps", "5", "--restarts", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[names.attack_metric(names.DAMAGE, 2.0)] >= 0
    slope_one = ["--reproduction-errors", "slope_one", "--methods", "norm_product", "--json"]
    assert main(["lipschitz", uri, *slope_one]) == 0
    wrong = json.loads(capsys.readouterr().out)
    key = names.lipschitz_upper("decoder", "norm_product")
    assert wrong[key] == pytest.approx(64 * models[key].iloc[0], rel=1e-9)


def test_a_report_can_be_made_again_from_its_run(study, store, capsys):
    parent, _ = study_runs(study)
    assert main(["report", parent.info.run_id, "--output", str(store / "again")]) == 0
    assert "Lipschitz" in capsys.readouterr().out
    again = (store / "again" / names.FILE_REPORT).read_bytes()
    assert again == (study / names.FILE_REPORT).read_bytes()
    assert main(["report", "no-such-run", "--output", str(store / "x")]) == 1


def test_train_registers_one_model(store, capsys):
    assert main(["train", "--epochs", "1", "--encoder-std", "learned", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert load_model(found["model_uri"]).encoder_std == "learned"


# ------------------------------------------------------------------- evaluator plugins


def test_plugins_are_found_and_refuse_foreign_models(study, models):
    listed = mlflow.models.list_evaluators()
    assert {"lipschitz", "max_damage"} <= set(listed)
    from harmonicvae.tracking.evaluators import LipschitzEvaluator

    assert not LipschitzEvaluator.can_evaluate(model_type="classifier", evaluator_config={})
    X = load_sinc("validation").data
    with pytest.raises(InputError, match="rounds"):
        mlflow.models.evaluate(
            models["model_uri"].iloc[0],
            X,
            model_type="vae",
            evaluators="lipschitz",
            evaluator_config={"rounds": 3},
        )


def test_evaluate_with_both_plugins_logs_metrics_and_artifacts(models):
    X = load_sinc("train").data[:6]
    uri = models["model_uri"].iloc[0]
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(
            uri,
            X,
            model_type="vae",
            evaluators=["lipschitz", "max_damage"],
            evaluator_config={
                "lipschitz": {"n_points": 6},
                "max_damage": {"radii": [0.5], "n_images": 3, "n_steps": 5, "n_restarts": 2},
            },
        )
    logged = MlflowClient().get_run(run.info.run_id).data.metrics
    assert (
        logged[names.lipschitz_upper("decoder")] == result.metrics[names.lipschitz_upper("decoder")]
    )
    table = result.artifacts[names.ARTIFACT_ATTACKS].content
    assert len(table) == 3
    stored = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path=names.ARTIFACT_ATTACKS
    )
    pd.testing.assert_frame_equal(pd.read_csv(stored), table, check_dtype=False)
    damage = names.attack_metric(names.DAMAGE, 0.5, "max")
    assert logged[damage] == pytest.approx(table[names.DAMAGE].max())


# --------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "--epochs", "abc"], "epochs must be an integer >= 1, got 'abc'"),
        (["study", "--epochs", "0"], "epochs must be"),
        (["study", "--encoder-std", "0"], "encoder_std must be"),
        (["study", "--input-noise-std", "1,-1"], "input_noise_std must be"),
        (["study", "--seeds", "1.5"], "seeds must be"),
        (["study", "--dataset", "mnist"], "dataset must be one of"),
        (["study", "--dataset", "cifar10"], "data_dir must name the folder"),
        (["study", "--data-dir", "/no/such/folder"], "existing folder"),
        (["study", "--preset", "slow"], "preset must be one of"),
        (["study", "--device", "abacus"], "device must be"),
        (["study", "--n-jobs", "-1"], "n_jobs must be"),
        (["study", "--radii", "nan"], "radii must be"),
        (["study", "--reproduction-errors", "typo"], "reproduction_errors"),
        (["train", "--encoder-std", "1,2"], "encoder_std must be a single value"),
        (["lipschitz", "models:/x/1", "--methods", "magic"], "methods must be one of"),
        (["attack", "models:/x/1", "--methods", "magic"], "methods must be one of"),
        (["report", "x", "--output", "y", "--experiment"], ""),
    ],
)
def test_bad_values_are_one_clear_line_and_no_run(store, capsys, arguments, message):
    before = _count_runs()
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    if message:
        assert len(error.splitlines()) == 1
    assert _count_runs() == before


def _count_runs():
    client = MlflowClient()
    experiments = [item.experiment_id for item in client.search_experiments()]
    return len(client.search_runs(experiments, max_results=5000))


def test_bad_values_mark_the_run_of_mlflow_run_as_failed(store, monkeypatch):
    client = MlflowClient()
    run = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    assert main(["study", "--epochs", "abc"]) == 2
    run = client.get_run(run.info.run_id)
    assert run.info.status == "FAILED"
    assert "epochs must be an integer" in run.data.tags[names.TAG_FAILURE]


def test_foreign_files_in_the_output_folder_are_left_alone(store, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["study", "--epochs", "1", "--output", str(tmp_path)]) == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_diverging_model_fails_alone_with_its_reason(store):
    spec = ModelSpec(
        dataset="sinc",
        encoder_std=0.5,
        input_noise_std=0.0,
        seed=0,
        epochs=3,
        latent_dim=1,
        lr=1e30,
        activation="relu",
    )
    opened = stores.open_store("failures")
    run_id = runs.create_run(opened, spec.name, "model")
    job = training.Job(spec=spec, data=DataSpec(name="sinc"), store=opened, run_id=run_id)
    outcome = training.train_job(job)
    assert "smaller lr" in outcome.failure
    run = MlflowClient().get_run(run_id)
    assert run.info.status == "FAILED"
    assert "smaller lr" in run.data.tags[names.TAG_FAILURE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_leaves_no_run_open(store, tmp_path, number):
    command = [sys.executable, "-m", "harmonicvae", "study", "--epochs", "5000", "--seeds", "1"]
    command += [
        "--n-jobs",
        "2",
        "--experiment",
        f"stopped{number}",
        "--output",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for _ in range(240):
        if any(tmp_path.glob(".out.*.partial/progress/*")):
            break
        time.sleep(0.5)
    else:
        process.kill()
        pytest.fail("training never started")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in errors
    experiment = MlflowClient().get_experiment_by_name(f"stopped{number}")
    found = MlflowClient().search_runs([experiment.experiment_id])
    assert len(found) == 6
    assert {run.info.status for run in found} == {"KILLED"}
    assert "repeat the command to continue" in errors
    assert not list(tmp_path.glob("out")) + list(tmp_path.glob(".out*"))  # no half-made results


# ----------------------------------------------------------------------- mlflow run


def mlflow_run(*arguments, cwd):
    mlflow_program = shutil.which(
        "mlflow", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    }
    return subprocess.run(
        [mlflow_program, "run", *arguments, "--env-manager", "local"],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_mlflow_run_of_the_project_and_of_a_step(store, models, tmp_path):
    done = mlflow_run(
        str(ROOT),
        "-P",
        "epochs=1",
        "-P",
        "seeds=3",
        "-P",
        "encoder_std=0.5",
        "-P",
        "input_noise_std=0",
        "-P",
        f"output={tmp_path / 'out'}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Lipschitz constants" in done.stdout
    assert (tmp_path / "out" / names.FILE_REPORT).exists()
    described = json.loads((tmp_path / "out" / names.FILE_STUDY).read_text())
    parent = MlflowClient().get_run(described["study_run_id"])
    assert parent.info.status == "FINISHED"
    assert "mlflow.project.entryPoint" in parent.data.tags
    uri = models["model_uri"].iloc[0]
    step = mlflow_run(f"{ROOT}#mlflow_projects/lipschitz", "-P", f"model_uri={uri}", cwd=tmp_path)
    assert step.returncode == 0, step.stderr
    assert names.lipschitz_upper("decoder") in step.stdout


def test_mlflow_run_with_a_bad_value_fails_clearly(store, tmp_path):
    done = mlflow_run(str(ROOT), "-P", "epochs=abc", cwd=tmp_path)
    assert done.returncode != 0
    assert "harmonicvae: epochs must be an integer >= 1, got 'abc'" in done.stderr
    assert "Traceback" not in done.stderr
    newest = MlflowClient().search_runs(["0"], order_by=["attributes.start_time DESC"])[0]
    assert newest.info.status == "FAILED"
    assert "epochs must be" in newest.data.tags[names.TAG_FAILURE]
