"""Models fitted elsewhere: registered, taken over by a sweep that may reuse any, or refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from harmonicvae import HarmonicVAE, load_model, names, save_estimator
from harmonicvae.cli import main
from harmonicvae.datasets import load_sinc
from harmonicvae.exceptions import InputError
from harmonicvae.tracking import runs, sessions, stores, training
from harmonicvae.tracking.adoption import TRAINED_FILE, adopt
from harmonicvae.tracking.keys import setting_key
from harmonicvae.tracking.specs import DataSpec, ModelSpec

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")
SINC = DataSpec(name="sinc")
SWEEP = ["sweep", "--epochs", "1", "--n-jobs", "1", "--together", "false"]
SWEEP += ["--encoder-std", "0.5", "--input-noise-std", "0"]


def fitted(rows=None, **changes):
    """Return a model of the study's grid, or with changes almost one, fitted by hand."""
    options = {"latent_dim": 1, "hidden_dims": (256, 256, 256), "max_epochs": 1}
    options |= {"encoder_std": 0.5, "input_noise_std": 0.0, "random_state": 7}
    X = load_sinc().data if rows is None else rows
    return HarmonicVAE(**(options | changes)).fit(X)


@pytest.fixture(scope="module")
def estimator():
    return fitted()


@pytest.fixture
def folder(estimator, tmp_path):
    """A saved model, of the test's own."""
    return save_estimator(estimator, tmp_path / "saved")


@pytest.fixture
def experiment(store, request):
    """An experiment of the test's own in the module's store."""
    return request.node.name[:80]


@pytest.fixture
def trained(monkeypatch):
    """Names of the models that are trained while the test runs."""
    found, real = [], training._train
    monkeypatch.setattr(training, "_train", lambda job: found.append(job.spec.name) or real(job))
    return found


def runs_in(experiment):
    found = MlflowClient().get_experiment_by_name(experiment)
    return MlflowClient().search_runs([found.experiment_id]) if found else []


def models_in(experiment):
    found = MlflowClient().get_experiment_by_name(experiment)
    return MlflowClient().search_logged_models([found.experiment_id]) if found else []


def register(folder, experiment, *more):
    folders = folder if isinstance(folder, list) else [folder]
    options = ["--dataset", "sinc", "--experiment", experiment, *more]
    return main(["register", *map(str, folders), *options])


def sweep(experiment, output, reuse, *more, seed="7"):
    options = ["--seeds", seed, "--reuse", reuse, "--experiment", experiment]
    assert main([*SWEEP, *options, "--output", str(output), *more]) == 0
    return pd.read_csv(output / names.FILE_MODELS, dtype={names.SEED: str})


# -------------------------------------------------------------------------- taken over


def test_reuse_any_takes_it_over_and_reuse_true_trains_anew(
    folder, experiment, tmp_path, trained, capsys
):
    assert register(folder, experiment, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = sweep(experiment, tmp_path / "any", "any").to_dict("records")
    assert trained == []
    assert (row["run_id"], row["model_uri"]) == (told["run_id"], told["model_uri"])
    assert row[names.CODE].endswith("trained elsewhere")
    assert row[names.DEVICE] == "unknown"
    assert row[names.ELBO] == pytest.approx(told[names.ELBO])
    (anew,) = sweep(experiment, tmp_path / "true", "true").to_dict("records")
    assert trained == ["sinc-e0.5-n0-s7"]
    assert anew["run_id"] != told["run_id"]
    assert "elsewhere" not in anew[names.CODE]
    (own,) = sweep(experiment, tmp_path / "own", "any").to_dict("records")
    assert own["run_id"] == anew["run_id"]  # ours goes first
    assert len(trained) == 1
    assert adopt(folder, SINC, experiment=experiment).run_id == told["run_id"]
    assert {run.info.status for run in runs_in(experiment)} == {"FINISHED"}


def test_reuse_any_takes_no_model_of_other_parameters(folder, experiment, tmp_path, trained):
    assert register(folder, experiment) == 0
    changes = [["--epochs", "2"], ["--seeds", "8"], ["--reproduction-errors", "kl_form"]]
    for count, change in enumerate(changes, start=1):
        sweep(experiment, tmp_path / "out", "any", *change)
        assert len(trained) == count


def spec(**changes):
    plain = {"dataset": "sinc", "encoder_std": 0.5, "input_noise_std": 0.0, "seed": 7}
    return ModelSpec(**(plain | {"epochs": 1, "latent_dim": 1} | changes))


def test_what_trained_json_tells_reaches_the_table(folder, experiment, tmp_path):
    told = {"seconds": 12.5, "digest": load_sinc().digest, "machine": {"device": "Some GPU"}}
    (folder / TRAINED_FILE).write_text(json.dumps(told))
    assert register(folder, experiment) == 0
    (row,) = sweep(experiment, tmp_path / "any", "any").to_dict("records")
    assert row[names.DEVICE] == "Some GPU"
    assert row[names.TRAIN_SECONDS] == 12.5


@pytest.mark.parametrize("told", [{}, {"machine": {}}, {"machine": {"device": "Some GPU"}}])
def test_every_entry_of_trained_json_may_be_left_out(folder, experiment, estimator, told):
    (folder / TRAINED_FILE).write_text(json.dumps(told))
    outcome = adopt(folder, SINC, experiment=experiment)
    seconds = estimator.history_[names.EPOCH_SECONDS].sum()
    assert outcome.row[names.TRAIN_SECONDS] == pytest.approx(seconds)
    assert outcome.row[names.DEVICE] == told.get("machine", {}).get("device", "unknown")


def test_its_run_is_that_of_a_trained_model(folder, experiment, estimator, tmp_path):
    outcome = adopt(folder, SINC, experiment=experiment)
    assert outcome.model_uri.startswith("models:/harmonicvae-sinc/")
    sweep(experiment, tmp_path / "out", "true")
    found = {run.data.tags[names.TAG_ROLE] + run.info.run_id: run for run in runs_in(experiment)}
    adopted = found.pop("model" + outcome.run_id)
    (same,) = [run for key, run in found.items() if key.startswith("model")]
    assert adopted.data.params == same.data.params
    theirs = {key for key in same.data.metrics if not key.startswith("system/")}
    assert set(adopted.data.metrics) == theirs
    assert adopted.data.metrics[names.ELBO] == pytest.approx(same.data.metrics[names.ELBO])
    assert adopted.data.tags[names.TAG_DATA] == same.data.tags[names.TAG_DATA]
    X = load_sinc("validation").data
    np.testing.assert_array_equal(
        load_model(outcome.model_uri).reconstruct(X), estimator.reconstruct(X)
    )


def test_other_spellings_of_the_same_numbers_are_taken_over(experiment, tmp_path, trained):
    whole = fitted(encoder_std=1, input_noise_std=0, kl_weight=1, hidden_dims=[256] * 3)
    assert register(save_estimator(whole, tmp_path / "saved"), experiment) == 0
    models = sweep(experiment, tmp_path / "out", "any", "--encoder-std", "1")
    assert trained == ["sinc-e0.5-n0-s7"]  # the encoder column's
    assert models[names.CODE].str.contains("elsewhere").tolist() == [True, False]


def test_errors_of_the_reproduction_match_in_any_order(experiment, tmp_path, trained):
    errors = ("squared_std", "kl_form")  # not sorted
    wrong = fitted(reproduction_errors=errors)
    assert register(save_estimator(wrong, tmp_path / "saved"), experiment) == 0
    sweep(experiment, tmp_path / "out", "any", "--reproduction-errors", ",".join(errors))
    assert trained == []


# ------------------------------------------------------------------------- only once


def test_registered_again_nothing_is_stored_twice(folder, experiment, tmp_path):
    first = adopt(folder, SINC, experiment=experiment)
    versions = len(MlflowClient().search_model_versions())
    shutil.copytree(folder, tmp_path / "copy")
    for again in (folder, tmp_path / "copy"):
        second = adopt(again, SINC, experiment=experiment)
        assert (second.run_id, second.model_uri) == (first.run_id, first.model_uri)
        assert second.row == first.row
    assert len(runs_in(experiment)) == len(models_in(experiment)) == 1
    assert len(MlflowClient().search_model_versions()) == versions


def test_another_fit_of_the_same_setting_is_another_model(folder, experiment, tmp_path):
    first = adopt(folder, SINC, experiment=experiment)
    other = fitted()
    next(other.net_.module_.parameters()).data.add_(1e-3)
    second = adopt(save_estimator(other, tmp_path / "other"), SINC, experiment=experiment)
    assert second.run_id != first.run_id
    tags = [run.data.tags for run in runs_in(experiment)]
    assert len({tag[names.TAG_SETTING] for tag in tags}) == 1
    assert len({tag[names.TAG_KEY] for tag in tags}) == 2


@pytest.mark.parametrize("moment", ["store_artifacts", "_log_model"])
def test_interrupted_it_is_gone_on_with(folder, experiment, monkeypatch, moment):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, moment, interrupt)
        assert register(folder, experiment) == 130
    assert [run.info.status for run in runs_in(experiment)] == ["KILLED"]
    assert register(folder, experiment) == 0
    assert [run.info.status for run in runs_in(experiment)] == ["FINISHED"]
    assert len(models_in(experiment)) == 1


# --------------------------------------------------------------------------- refused


def refused(folder, experiment, capsys, *words):
    before = [run.info.run_id for run in runs_in(experiment)]
    assert register(folder, experiment) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in words:
        assert word in line
    assert [run.info.run_id for run in runs_in(experiment)] == before
    assert not {run.info.status for run in runs_in(experiment)} & {"RUNNING", "SCHEDULED"}


def test_a_model_of_other_features_is_refused(experiment, tmp_path, capsys):
    narrow = fitted(load_sinc().data[:, :100])
    folder = save_estimator(narrow, tmp_path / "narrow")
    refused(folder, experiment, capsys, "narrow", "100", "344")


def test_a_model_of_other_data_of_the_same_shape_is_refused(folder, experiment, capsys):
    (folder / TRAINED_FILE).write_text(json.dumps({"seconds": 1.0, "digest": "f" * 64}))
    refused(folder, experiment, capsys, "other data", "f" * 64, load_sinc().digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"seconds": "soon"}',
        '{"seconds": null}',
        '{"seconds": [1]}',
        '{"seconds": NaN}',
        '{"seconds": -1}',
        '{"seconds": 1, "machine": "my laptop"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_trained_json_is_refused(folder, experiment, capsys, text):
    content = text if isinstance(text, bytes) else text.encode()
    (folder / TRAINED_FILE).write_bytes(content)
    refused(folder, experiment, capsys, TRAINED_FILE)


@pytest.mark.parametrize(
    "parameter",
    [{"validation_fraction": 0.1}, {"reconstruction_target": "noisy"}],
    ids=lambda parameter: next(iter(parameter)),
)
def test_a_model_that_no_study_has_is_refused_by_its_parameter(
    experiment, tmp_path, capsys, parameter
):
    folder = save_estimator(fitted(**parameter), tmp_path / "saved")
    refused(folder, experiment, capsys, *parameter)


@pytest.mark.parametrize("lost", ["weights.pt", "estimator.json", None])
def test_a_folder_that_holds_no_estimator_is_refused(folder, experiment, capsys, lost):
    if lost is None:
        shutil.rmtree(folder)
    else:
        (folder / lost).unlink()
    refused(folder, experiment, capsys, str(folder))


def test_the_good_folders_before_a_bad_one_are_stored(folder, experiment, tmp_path, capsys):
    assert register([folder, tmp_path / "nowhere"], experiment) == 2
    assert "nowhere" in capsys.readouterr().err
    assert [run.info.status for run in runs_in(experiment)] == ["FINISHED"]


def test_adopt_raises_what_the_shell_prints(tmp_path, store):
    with pytest.raises(InputError, match="nowhere"):
        adopt(tmp_path / "nowhere", SINC, experiment="nothing")


# ------------------------------------------------------------------- keys and runs


@given(
    first=st.sampled_from(["0.5", "1.0"]),
    second=st.sampled_from(["0.5", "1.0"]),
    seeds=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    splits=st.permutations(["train", "validation"]),
)
@settings(max_examples=30)
def test_settings_are_equal_where_data_and_parameters_are(first, second, seeds, splits):
    digests = {"train": "a", "validation": "b"}
    keys = [
        setting_key(spec(encoder_std=float(std), seed=seed), digests)
        for std, seed in zip((first, second), seeds)
    ]
    assert (keys[0] == keys[1]) == (first == second and seeds[0] == seeds[1])
    turned = {split: digests[split] for split in splits}
    assert setting_key(spec(encoder_std=float(first), seed=seeds[0]), turned) == keys[0]
    assert setting_key(spec(seed=1), digests | {"validation": "c"}) != setting_key(
        spec(seed=1), digests
    )


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "other"},
        {"encoder_std": "learned"},
        {"input_noise_std": 0.5},
        {"epochs": 2},
        {"latent_dim": 2},
        {"batch_size": 2},
        {"lr": 0.1},
        {"kl_weight": 2.0},
        {"hidden_dims": (256, 256)},
        {"activation": "tanh"},
        {"reproduction_errors": ("kl_form",)},
        {"model": "conv"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_changes_the_setting(change):
    assert setting_key(spec(**change), {"train": "a"}) != setting_key(spec(), {"train": "a"})


def made_run(store_spec, key, setting, *, trained=True):
    """Return a finished run of a model as another sweep would have left it."""
    tags = {names.TAG_KEY: key, names.TAG_SETTING: setting}
    run_id = runs.create_run(store_spec, spec().name, "model", tags)
    if trained:
        MlflowClient().set_tag(run_id, names.TAG_TRAINED, f"models:/m-{key}")
    MlflowClient().set_terminated(run_id, "FINISHED" if trained else "FAILED")
    return run_id


def one_run(store_spec, key="ours", setting="setting", **options):
    (item,) = sessions.model_runs(store_spec, [spec()], [key], settings=[setting], **options)
    return item


def test_any_code_takes_a_trained_model_of_the_setting_and_only_then(experiment):
    opened = stores.open_store(experiment)
    theirs = made_run(opened, "theirs", "setting")
    made_run(opened, "unfinished", "setting", trained=False)
    made_run(opened, "stranger", "another setting")
    item = one_run(opened, any_code=True)
    assert (item.run_id, item.key, item.model_uri) == (theirs, "theirs", "models:/m-theirs")
    fresh = one_run(opened)
    assert fresh.run_id != theirs
    assert (fresh.key, fresh.model_uri) == ("ours", "")
    tags = MlflowClient().get_run(fresh.run_id).data.tags
    assert (tags[names.TAG_KEY], tags[names.TAG_SETTING]) == ("ours", "setting")


def test_any_code_prefers_our_own_model(experiment):
    opened = stores.open_store(experiment)
    ours = made_run(opened, "ours", "setting")
    made_run(opened, "theirs", "setting")
    assert one_run(opened, any_code=True).run_id == ours


def test_any_code_takes_a_finished_model_before_our_unfinished_one(experiment):
    opened = stores.open_store(experiment)
    theirs = made_run(opened, "theirs", "setting")
    made_run(opened, "ours", "setting", trained=False)
    assert one_run(opened, any_code=True).run_id == theirs


def test_any_code_never_takes_what_nobody_has_trained(experiment):
    opened = stores.open_store(experiment)
    theirs = made_run(opened, "theirs", "setting", trained=False)
    assert one_run(opened, any_code=True).run_id != theirs
