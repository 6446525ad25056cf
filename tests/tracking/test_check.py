"""A recorded study done again by ``harmonicvae study --check``, and what it refuses."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from harmonicvae import names, study
from harmonicvae.cli import main
from harmonicvae.tracking import training

ROOT = Path(__file__).resolve().parents[2]
#: One model of one epoch, none of it the preset's.
STUDY = ["study", "--epochs", "1", "--seeds", "3", "--radii", "1", "--attack-images", "2"]
STUDY += ["--encoder-std", "0.5", "--input-noise-std", "0", "--n-jobs", "1", "--together", "false"]
CHECK = ["study", "--n-jobs", "1", "--together", "false"]
UPPER = names.lipschitz_upper("decoder", "norm_product")


@pytest.fixture(scope="module")
def few_points():
    """Bounds and attacks of the study with little search, for the tests' sake."""
    patch = pytest.MonkeyPatch()
    small = {"n_points": 4, "n_steps": 2, "methods": ["norm_product"]}

    def evaluators(plan):
        slope = tuple(error for error in plan.reproduction_errors if error == "slope_one")
        return {names.EVALUATOR_LIPSCHITZ: small | {"reproduction_errors": slope}}

    patch.setattr(study.StudyPlan, "evaluators", evaluators)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def record(store, few_points):
    """A study on record; the store keeps its finished model."""
    assert main([*STUDY, "--output", str(store / "records" / "quick" / "sinc")]) == 0
    return store / "records" / "quick" / "sinc"


@pytest.fixture
def copy(record, tmp_path):
    """The record in a folder of the test's own."""
    return Path(shutil.copytree(record, tmp_path / "record"))


@pytest.fixture
def trained(monkeypatch):
    """Names of the models that are trained while the test runs."""
    found, real = [], training._train
    monkeypatch.setattr(training, "_train", lambda job: found.append(job.spec.name) or real(job))
    return found


def change(folder, file=names.FILE_MODELS, **entries):
    """Change columns of models.csv or entries of study.json; None takes one away."""
    path = folder / file
    if file == names.FILE_STUDY:
        content = json.loads(path.read_text()) | entries
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        return
    pd.read_csv(path, dtype={names.SEED: str}).assign(**entries).to_csv(path, index=False)


def count_runs():
    experiments = [item.experiment_id for item in MlflowClient().search_experiments()]
    return len(MlflowClient().search_runs(experiments))


@pytest.mark.parametrize("where", ["folder", "parent"])
def test_the_same_study_agrees_and_is_trained_anew(record, tmp_path, trained, capsys, where):
    given = record if where == "folder" else record.parents[1]
    before = (record / names.FILE_MODELS).read_bytes()
    assert main([*CHECK, "--check", str(given), "--output", str(tmp_path / "new")]) == 0
    assert trained == ["sinc-e0.5-n0-s3"]
    assert "numbers agree" in capsys.readouterr().out
    assert (record / names.FILE_MODELS).read_bytes() == before
    told, again = (
        json.loads((folder / names.FILE_STUDY).read_text()) for folder in (record, tmp_path / "new")
    )
    plan = ["epochs", "seeds", "radii", "n_images", "encoder_std", "input_noise_std", "preset"]
    assert [again[key] for key in plan] == [told[key] for key in plan]
    assert again["study_run_id"] != told["study_run_id"]


def test_one_number_too_far_off_is_named_and_exits_1(copy, tmp_path, capsys):
    value = pd.read_csv(copy / names.FILE_MODELS)[UPPER][0]
    change(copy, **{UPPER: value * 1.03})
    assert main([*CHECK, "--check", str(copy), "--output", str(tmp_path / "new")]) == 1
    shown = capsys.readouterr()
    listed = shown.out.rpartition("\n\n")[2]
    assert UPPER[:25] in listed
    assert names.ELBO not in listed
    assert "harmonicvae: 1 of " in shown.err
    assert f"{UPPER} of sinc-e0.5-n0-s3" in shown.err


def test_kind_of_network_and_errors_are_those_of_the_record(store, few_points, tmp_path, trained):
    record = tmp_path / "record"
    errors = ["--reproduction-errors", "kl_form,slope_one", "--model", "conv"]
    assert main([*STUDY, *errors, "--output", str(record)]) == 0
    assert main([*CHECK, "--check", str(record), "--output", str(tmp_path / "new")]) == 0
    assert trained == ["sinc-conv-e0.5-n0-s3"] * 2


def test_the_record_is_not_overwritten_by_what_is_compared_with_it(copy, capsys, monkeypatch):
    before = (copy / names.FILE_STUDY).read_bytes(), count_runs()
    assert main([*CHECK, "--check", str(copy), "--output", str(copy)]) == 2
    assert "output" in capsys.readouterr().err
    monkeypatch.chdir(copy.parent)  # where the default output is the record itself
    (copy.parent / "harmonicvae-results").mkdir()
    shutil.copytree(copy, copy.parent / "harmonicvae-results" / "sinc")
    assert main([*CHECK, "--check", "harmonicvae-results/sinc"]) == 2
    assert "--output" in capsys.readouterr().err
    assert ((copy / names.FILE_STUDY).read_bytes(), count_runs()) == before


@pytest.mark.parametrize(
    "option",
    [
        ["--epochs", "2"],
        ["--seeds", "3,4"],
        ["--encoder-std", "1"],
        ["--input-noise-std", "1"],
        ["--attack-images", "3"],
        ["--radii", "2"],
        ["--model", "conv"],
        ["--reproduction-errors", "kl_form"],
    ],
    ids=lambda option: option[0],
)
def test_options_other_than_recorded_are_refused_at_once(copy, tmp_path, capsys, option):
    before = count_runs()
    target = ["--check", str(copy), "--output", str(tmp_path / "new")]
    assert main([*CHECK, *option, *target]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"leave out {option[0]}" in line
    assert count_runs() == before
    assert not (tmp_path / "new").exists()


def test_options_as_recorded_are_taken(copy, tmp_path, trained):
    target = ["--check", str(copy), "--output", str(tmp_path / "new")]
    assert main([*STUDY, *target]) == 0
    assert trained == ["sinc-e0.5-n0-s3"]


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"dataset": "celeba"}, "--dataset celeba"),
        ({"epochs": None}, "epochs"),
        ({"seeds": "all"}, names.FILE_STUDY),
        ({"radii": 3}, names.FILE_STUDY),
        ({"model": "transformer"}, "model must be"),
        ({"reproduction_errors": ["typo"]}, "typo"),
    ],
    ids=lambda item: next(iter(item)) if isinstance(item, dict) else "",
)
def test_a_record_that_cannot_be_done_again_is_refused_at_once(
    copy, tmp_path, capsys, entries, word
):
    change(copy, names.FILE_STUDY, **entries)
    before = count_runs()
    assert main([*CHECK, "--check", str(copy), "--output", str(tmp_path / "new")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert word in line
    assert count_runs() == before
    assert not (tmp_path / "new").exists()


def test_a_record_of_other_data_is_refused(copy, tmp_path, capsys, trained):
    change(copy, names.FILE_STUDY, data_digest="0" * 64)
    assert main([*CHECK, "--check", str(copy), "--output", str(tmp_path / "new")]) == 2
    assert "different data" in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize("given", ["nowhere", "models.csv", "."])
def test_what_is_no_folder_of_results_is_refused(copy, tmp_path, capsys, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.csv").write_text("model\n")
    assert main([*CHECK, "--check", given, "--output", "new"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "check must name a folder of results" in line
    assert repr(given) in line


@pytest.mark.slow
def test_the_recorded_quick_study_of_sinc_comes_out_again(store, capsys):
    record = ROOT / "results" / "quick"
    assert main(["study", "--check", str(record), "--output", str(store / "quick")]) == 0
    assert "numbers agree" in capsys.readouterr().out
