"""Comparison of stored models: what counts, the spread over seeds, and who is promoted."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from mlflow import MlflowClient

import harmonicvae
from harmonicvae import names
from harmonicvae.cli import main
from harmonicvae.exceptions import InputError, TrackingError
from harmonicvae.tracking import runs, steps, stores
from harmonicvae.tracking.comparison import compare
from harmonicvae.tracking.evaluators import LipschitzEvaluator, MaxDamageEvaluator
from harmonicvae.tracking.specs import DataSpec, ModelSpec
from tests.tracking.stored_models import METRICS, NAME, Store, attacked, bounds

UPPER = names.lipschitz_upper("decoder")


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty MLflow store: its tables take seconds to make, a copy of its file none."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    stores.open_store("empty", f"sqlite:///{path}")
    return path


@pytest.fixture
def store(empty, tmp_path, monkeypatch):
    """A fresh MLflow store for each test."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield Store()
    mlflow.set_tracking_uri(before)


def value(comparison, version, metric):
    row = comparison.models.set_index(names.MODEL).loc[version.label]
    return row.get(metric, math.nan)


# --------------------------------------------------------------------------------- URIs


def test_every_form_of_uri_names_the_same_model(store):
    first, other = store.model(1), store.model(2)
    store.client.set_registered_model_alias(NAME, "best", first.version)
    forms = [
        f"models:/{NAME}@best",
        first.uri,
        f"models:/{first.id}",
        f"runs:/{first.trained}",
        f"runs:/{first.trained}/model",
    ]
    for form in forms:
        found = compare([form], siblings=False)
        assert found.models[names.MODEL].tolist() == [first.label], form
        assert found.models["uri"].tolist() == [form]
    together = compare([*forms, f"models:/{NAME}/latest"], siblings=False)
    assert together.models[names.MODEL].tolist() == [first.label, other.label]


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("harmonicvae-sinc/1", InputError, "must look like"),
        ("models:/harmonicvae-sinc", InputError, "must look like"),
        ("models:/harmonicvae-sinc/one", InputError, "must look like"),
        ("models:/", InputError, "must look like"),
        (7, InputError, "must look like"),
        ("models:/harmonicvae-sinc/99", TrackingError, "harmonicvae-sinc/99"),
        ("models:/none@best", TrackingError, "none@best"),
        ("models:/none/latest", TrackingError, "none/latest"),
        ("models:/m-0123", TrackingError, "m-0123"),
        ("runs:/0123456789abcdef", TrackingError, "0123456789abcdef"),
    ],
)
def test_uris_that_name_nothing_are_refused(store, uri, error, message):
    store.model()
    with pytest.raises(error, match=message):
        compare([uri])


def test_a_run_that_trained_nothing_is_refused_and_no_uri_too(store):
    run_id = runs.create_run(store.spec, "study", "study")
    with pytest.raises(InputError, match="run of a study"):
        compare([f"runs:/{run_id}"])
    with pytest.raises(InputError, match="at least one"):
        compare([])


# ------------------------------------------------------------------- which numbers count


def test_the_newest_finished_evaluation_counts_and_its_run_is_told(store):
    model = store.model(metrics={**METRICS, **bounds(9.0)})
    assert value(compare([model.uri]), model, UPPER) == 9.0
    store.evaluation(model.uri, bounds(8.0), model_id=model.id)
    newest = store.evaluation(model.uri, bounds(7.0), model_id=model.id, link=True)
    store.evaluation(model.uri, bounds(6.0), model_id=model.id, status="FAILED")
    store.evaluation(model.uri, bounds(5.0), model_id=model.id, link=True, status=None)
    found = compare([model.uri])
    assert value(found, model, UPPER) == 7.0
    assert value(found, model, names.ELBO) == METRICS[names.ELBO]
    runs_of = found.sources.set_index("metric")["run_id"]
    assert runs_of[UPPER] == newest
    assert runs_of[names.ELBO] == model.trained
    assert any("FAILED" in note for note in found.notes)
    assert any("RUNNING" in note for note in found.notes)


def test_evaluations_are_known_by_the_model_not_by_a_moving_alias(store):
    first, second = store.model(1), store.model(2)
    alias = f"models:/{NAME}@best"
    store.evaluation(alias, bounds(3.0), model_id=first.id)
    store.evaluation(alias, bounds(4.0))  # whom did the alias mean?
    store.client.set_registered_model_alias(NAME, "best", second.version)
    store.evaluation(second.uri, bounds(5.0))  # an earlier version noted the URI alone
    found = compare([first.uri, alias])
    assert value(found, first, UPPER) == 3.0
    assert value(found, second, UPPER) == 5.0


def test_a_deleted_evaluation_does_not_count(store):
    model = store.model()
    run_id = store.evaluation(model.uri, bounds(3.0), model_id=model.id, link=True)
    store.client.delete_run(run_id)
    found = compare([model.uri])
    assert math.isnan(value(found, model, UPPER))
    assert any("deleted" in note for note in found.notes)


def test_nan_is_missing_and_never_zero_and_infinity_stays(store):
    """MLflow's SQL store links a NaN to a model as 0.0, and infinity as the largest float."""
    model = store.model()
    store.link(model.trained, model.id, UPPER, math.nan)
    store.link(model.trained, model.id, names.lipschitz_upper("encoder"), math.inf)
    stored = {m.key: m.value for m in store.client.get_logged_model(model.id).metrics}
    assert stored[UPPER] == 0.0  # the trap
    found = compare([model.uri])
    assert math.isnan(value(found, model, UPPER))
    assert value(found, model, names.lipschitz_upper("encoder")) == math.inf
    judged = found.promote([f"{UPPER}<20", "lipschitz_upper_l2_encoder>0"], "best")
    assert judged.decisions["passed"].tolist() == [False, False]
    assert judged.decisions["reason"].str.contains("not measured").tolist() == [True, False]
    assert judged.promoted == ""


def test_a_zero_that_is_a_zero_stays(store):
    model = store.model(metrics={**METRICS, names.ACTIVE_UNITS: 0.0})
    assert value(compare([model.uri]), model, names.ACTIVE_UNITS) == 0.0


def test_bounds_with_the_errors_of_the_reproduction_do_not_count(store):
    model = store.model(metrics={**METRICS, **bounds(9.0)})
    wrong = store.evaluation(model.uri, {**bounds(900.0), **attacked(2.0)}, model_id=model.id)
    told = {side: {"reproduction_errors": ["slope_one"]} for side in names.SIDES}
    runs.log_json(store.spec, wrong, told, names.ARTIFACT_NETWORKS)
    found = compare([model.uri])
    assert value(found, model, UPPER) == 9.0
    assert value(found, model, "damage_l2_r1_mean") == 2.0
    assert any("slope_one" in note for note in found.notes)


def test_different_evaluations_are_told(store):
    first, second = store.model(1), store.model(2)
    for model, images in ((first, 2), (second, 3)):
        run_id = store.evaluation(model.uri, attacked(1.0), model_id=model.id)
        table = pd.DataFrame({names.IMAGE: range(images), "method": "best"})
        path = store.spec.tracking_uri.removeprefix("sqlite:///").replace(
            "mlflow.db", "attacks.csv"
        )
        table.to_csv(path, index=False)
        store.client.log_artifact(run_id, path, "max_damage")
    found = compare([first.uri, second.uri])
    assert any("numbers of images" in note for note in found.notes)
    assert not any("methods" in note for note in found.notes)


# ------------------------------------------------------------------------ earlier versions


def test_what_earlier_versions_lack_is_missing_and_somebody_fills_it(store):
    new = store.model(1, metrics={**METRICS, **bounds(2.0), **attacked(1.0)})
    without = ("kl_weight", names.SEED, names.DATASET)
    old = store.model(metrics={names.ELBO: -1.0}, tags=False, logged=False, without=without)
    bare = store.model(metrics={}, tags=False, linked=False, without=tuple(METRICS))
    store.client.delete_run(bare.trained)
    found = compare([new.uri, old.uri, bare.uri])
    row = found.models.set_index(names.MODEL).loc[old.label]
    assert row[names.SEED] == "not recorded"
    assert row[names.DATASET] == "sinc"  # by the name of the registered model
    assert math.isnan(row[UPPER])
    missing = found.missing.set_index([names.MODEL, "evaluator"])["metrics"]
    assert (new.label, "lipschitz") not in missing
    assert UPPER in missing[old.label, "lipschitz"]
    assert "damage_l2_r1_mean" in missing[old.label, "max_damage"]
    assert missing[old.label, "training"] == [names.SQUARED_ERROR, names.ACTIVE_UNITS]


def test_a_store_without_any_attack_names_the_evaluator_too(store):
    model = store.model()
    missing = compare([model.uri]).missing.set_index("evaluator")["metrics"]
    assert missing["max_damage"] == [names.DAMAGE, names.CERTIFIED_MARGIN]


def test_parameters_come_from_wherever_they_are(store):
    everything = (names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED, names.EPOCHS)
    tagged = store.model(5, encoder_std=0.25)
    store.client.delete_run(tagged.trained)
    unknown = store.model(without=everything, tags=False)
    found = compare([tagged.uri, unknown.uri], siblings=False)
    rows = found.models.set_index(names.MODEL)
    assert rows.loc[tagged.label, list(everything)].tolist() == ["0.25", "0", "5", "3"]
    assert (rows.loc[unknown.label, list(everything)] == "not recorded").all()
    assert unknown.label in rows.loc[unknown.label, "configuration"]


# -------------------------------------------------------------------- spread over seeds


def elbo(number):
    return {**METRICS, names.ELBO: float(number)}


def test_siblings_differ_in_the_seed_alone(store):
    asked = store.model(1, metrics=elbo(-300))
    sibling = store.model(2, metrics=elbo(-301))
    others = [
        store.model(3, encoder_std=0.1),
        store.model(4, epochs=4),
        store.model(5, lr=0.01),
        store.model(6, reproduction_errors="squared_std"),
        store.model(7, name="harmonicvae-other"),
        store.model(without=(names.SEED,)),
    ]
    found = compare([asked.uri])
    assert found.models[names.MODEL].tolist() == [asked.label, sibling.label]
    assert found.models["compared"].tolist() == [True, False]
    row = found.configurations.iloc[0]
    assert (row["n"], row["elbo_mean"]) == (2, -300.5)
    assert row["elbo_sd"] == pytest.approx(math.sqrt(0.5))
    assert len(compare([asked.uri], siblings=False).models) == 1
    everyone = compare([asked.uri, *(other.uri for other in others)])
    assert len(everyone.configurations) >= 5
    # that of another name is asked for; that without a seed may have any of theirs
    assert everyone.configurations.iloc[0]["seeds"] == "1, 7, 2"


def test_values_written_differently_are_the_same_configuration(store):
    one = store.model(1, encoder_std="1.0", lr="0.0010")
    store.model(2, encoder_std="1", lr="0.001")
    assert compare([one.uri]).configurations["n"].tolist() == [2]


def test_of_two_versions_of_one_seed_the_newest_counts_or_the_one_asked_for(store):
    old = store.model(1, metrics=elbo(-300))
    new = store.model(1, metrics=elbo(-310))
    other = store.model(2, metrics=elbo(-320))
    mean = [compare(uris).configurations["elbo_mean"].iloc[0] for uris in
            ([other.uri], [old.uri, new.uri, other.uri], [old.uri, other.uri])]  # fmt: skip
    assert mean == [-315.0, -315.0, -310.0]


def test_differences_are_welch_intervals_with_words(store):
    narrow = [store.model(s, metrics=elbo(v)) for s, v in enumerate((-300, -301, -302.5))]
    wide = [store.model(s, encoder_std=0.1, metrics=elbo(v)) for s, v in enumerate((-310, -312))]
    alone = store.model(1, encoder_std=2, metrics=elbo(-299))
    found = compare([narrow[0].uri, wide[0].uri, alone.uri])
    rows = found.differences[found.differences["metric"] == names.ELBO].set_index("configuration")
    row = rows.loc["σ_enc = 0.1, σ_N = 0"]
    test = scipy.stats.ttest_ind([-310, -312], [-300, -301, -302.5], equal_var=False)
    interval = test.confidence_interval(0.95)
    assert row["difference"] == pytest.approx(-311 + 903.5 / 3)
    np.testing.assert_allclose([row["low"], row["high"]], [interval.low, interval.high], rtol=1e-9)
    assert row["degrees"] == pytest.approx(test.df)
    assert row["verdict"] == (
        "lower, beyond the seed-to-seed spread" if interval.high < 0
        else "within the seed-to-seed spread"
    )  # fmt: skip
    row = rows.loc["σ_enc = 2, σ_N = 0"]
    assert row["verdict"] == "no spread known (1 seed)"
    assert math.isnan(row["low"])
    turned = compare([narrow[0].uri, wide[0].uri], baseline=wide[1].uri)
    assert turned.baseline == wide[1].label
    assert turned.differences.iloc[0]["difference"] == pytest.approx(311 - 903.5 / 3)


def test_several_data_sets_are_told_and_not_subtracted(store):
    sinc = store.model(1)
    other = store.model(1, name="harmonicvae-cifar10", dataset="cifar10")
    found = compare([sinc.uri, other.uri])
    assert any("several data sets" in note for note in found.notes)
    assert found.differences.empty
    assert len(found.configurations) == 2


# ---------------------------------------------------------------------------- promotion


def alias_of(store, alias="champion", name=NAME):
    return dict(store.client.get_registered_model(name).aliases).get(alias)


def test_the_best_passing_version_gets_the_alias(store):
    models = [
        store.model(s, metrics={**elbo(v), **bounds(b)})
        for s, (v, b) in enumerate(((-300, 30.0), (-301, 10.0), (-302, 5.0)))
    ]
    found = compare([model.uri for model in models])
    judged = found.promote(f"{UPPER}<20", "champion")
    assert judged.promoted == models[1].uri
    assert judged.passed == (models[1].label, models[2].label)
    assert alias_of(store) == models[1].version
    assert found.promote(f"{UPPER}<20", "champion", prefer=f"-{UPPER}").promoted == models[2].uri
    assert "before: version 3" in found.promote("elbo>-301.5", "champion").sentence
    assert alias_of(store) == models[0].version
    assert found.promote([f"{UPPER}<20", "elbo>-300.5"], "champion").promoted == ""
    assert alias_of(store) == models[0].version  # as before


def test_a_sibling_that_was_not_asked_for_is_never_promoted(store):
    asked = store.model(1, metrics=elbo(-305))
    store.model(2, metrics=elbo(-300))
    assert compare([asked.uri]).promote((), "champion").promoted == asked.uri


def test_only_a_registered_version_gets_an_alias(store):
    version = store.model(1, metrics=elbo(-310))
    run_id = runs.create_run(store.spec, "unregistered", "model")
    runs.log_metrics(store.spec, run_id, elbo(-300))
    store.client.set_terminated(run_id)
    found = compare([f"runs:/{run_id}", version.uri])
    assert found.promote("elbo>-320", "champion").promoted == version.uri
    judged = found.promote("elbo>-305", "rival")
    assert judged.promoted == ""
    assert "no passing model is registered" in judged.sentence


def test_rules_against_the_baseline(store):
    base = store.model(1, metrics={**elbo(-300), **bounds(10.0)})
    better = store.model(2, encoder_std=1, metrics={**elbo(-299.5), **bounds(9.0)})
    found = compare([base.uri, better.uri])

    def passes(*rules):
        return [label == better.label for label in found.promote(rules).passed]

    assert passes("elbo>=baseline+0.5") == [True]
    assert passes("elbo>baseline+0.5") == []
    assert passes("elbo>baseline") == [True]
    assert passes(f"{UPPER}<=baseline*0.9") == [True]
    assert passes(f"{UPPER}<baseline*0.9") == []
    assert passes(f"{UPPER}<baseline-0.5") == [True]
    with pytest.raises(InputError, match="negative"):
        found.promote("elbo>baseline*1.01")
    lacking = compare([store.model(3, metrics={}).uri, better.uri])
    assert (
        "baseline's elbo is not measured"
        in lacking.promote("elbo>baseline").decisions["reason"].iloc[1]
    )


def test_a_rule_names_a_metric_or_the_nearest_ones(store):
    found = compare([store.model(1, metrics={**METRICS, "accuracy": 0.5}).uri])
    with pytest.raises(InputError, match=r"eblo.*near: elbo"):
        found.promote("eblo>3")
    with pytest.raises(InputError, match="prefer names no metric"):
        found.promote("elbo>-400", prefer="lipschitz")
    assert found.promote("accuracy>0.4").passed
    reason = found.promote("damage_l2_r3_mean<1").decisions["reason"].iloc[0]
    assert reason == "damage_l2_r3_mean is not measured (harmonicvae attack fills it)"


# ---------------------------------------------------------------------------- the shell


def newest_comparison(store):
    (run, *_) = store.client.search_runs(
        [store.client.get_experiment_by_name("harmonicvae").experiment_id],
        "tags.`harmonicvae.role` = 'comparison'",
        order_by=["attributes.start_time DESC"],
    )
    return run


def test_the_verb_prints_writes_and_logs(store, tmp_path, capsys):
    models = [store.model(s, metrics={**elbo(-300 - s), **bounds(3.0)}) for s in range(2)]
    odd = store.model(1, encoder_std=0.1, metrics={**METRICS, **attacked(2.0)})
    rules = ["--require", f"{UPPER} < 20", "--require", "elbo>=-300", "--alias", "champion"]
    uris = [models[0].uri, odd.uri]
    assert main(["compare", *uris, *rules, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.split("champion")[0].splitlines()[:4])) <= 100
    assert f"{odd.label} lacks decoder: lower bound" in out
    assert "`harmonicvae lipschitz" in out
    assert "no spread: 1 seed" in out
    table = pd.read_csv(tmp_path / "out" / names.FILE_COMPARED_MODELS)
    assert len(table) == 3
    run = newest_comparison(store)
    assert run.info.status == "FINISHED"
    assert json.loads(run.data.tags[names.TAG_COMPARED]) == uris
    assert run.data.tags[names.TAG_PROMOTED] == models[0].uri
    held = {item.path for item in store.client.list_artifacts(run.info.run_id, "comparison")}
    assert {f"comparison/{name}" for name in (names.FILE_COMPARISON, names.FILE_DIFFERENCES)} < held
    assert alias_of(store) == models[0].version


def test_the_verb_fails_when_no_model_passes(store, tmp_path, capsys):
    model = store.model(1, metrics={**METRICS, **bounds(30.0)})
    command = ["compare", model.uri, "--output", str(tmp_path / "out")]
    rules = ["--require", f"{UPPER}<20;elbo>-400", "--alias", "champion"]
    assert main([*command, *rules]) == 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert f"{UPPER} = 30, not <20" in error
    assert "elbo" not in error
    assert alias_of(store) is None
    run = newest_comparison(store)
    assert run.info.status == "FAILED"
    assert "not <20" in run.data.tags[names.TAG_FAILURE]
    assert (tmp_path / "out" / names.FILE_COMPARISON).exists()
    assert main([*command, "--require", "elbo>0"]) == 1
    assert "0 of 1 models pass" in capsys.readouterr().err


def test_json_is_valid_and_holds_null_for_what_is_missing(store, tmp_path, capsys):
    models = [store.model(1, metrics=elbo(-300)), store.model(2, metrics=bounds(3.0))]
    arguments = ["--json", "--output", str(tmp_path / "out"), "--siblings", "false"]
    assert main(["compare", ", ".join(m.uri for m in models), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"][1][names.ELBO] is None
    assert found["models"][0][names.ELBO] == -300.0
    assert found["differences"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--require", "elbo"], "require must be METRIC<VALUE"),
        (["--require", "elbo>ten"], "require must be METRIC<VALUE"),
        (["--require", "elbo>nan"], "require must be METRIC<VALUE"),
        (["--alias", "v3"], "alias must be"),
        (["--alias", "a b"], "alias must be"),
        (["--siblings", "no"], "siblings must be one of"),
        (["--evaluate", "magic"], "evaluate must be one of"),
        (["--data-dir", "/no/such/folder"], "existing folder"),
        (["--baseline", "nonsense"], "must look like"),
        (["--require", "eblo>1"], "near: elbo"),
    ],
)
def test_bad_options_are_one_clear_line(store, tmp_path, capsys, arguments, message):
    model = store.model()
    code = main(["compare", model.uri, "--output", str(tmp_path / "out"), *arguments])
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert alias_of(store) is None


def test_the_package_exports_it(store):
    model = store.model()
    found = harmonicvae.compare(model.uri)
    assert isinstance(found, harmonicvae.Comparison)
    before = MlflowClient().search_runs([store.spec.experiment_id])
    page = found.write("page")
    assert page.name == names.FILE_COMPARISON
    assert len(MlflowClient().search_runs([store.spec.experiment_id])) == len(before)


# ------------------------------------------------------------------- real models, evaluated


@pytest.fixture(scope="module")
def trained(empty, tmp_path_factory):
    """Two tiny trained models of two seeds, whose runs hold nothing but their training."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty, folder / "mlflow.db")
    patch = pytest.MonkeyPatch()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    for seed in (1, 2):
        spec = ModelSpec(
            dataset="sinc",
            encoder_std=0.5,
            input_noise_std=0.0,
            seed=seed,
            epochs=1,
            latent_dim=1,
            hidden_dims=(4,),
        )
        steps.train_one(spec, DataSpec(name="sinc"))
    yield folder
    mlflow.set_tracking_uri(before)
    patch.undo()


def test_the_estimators_own_file_tells_what_no_run_does(trained):
    client = MlflowClient()
    source = client.get_model_version(NAME, "2").source
    bare = client.create_model_version(NAME, source)
    files = mlflow.artifacts.download_artifacts(source)
    older = client.create_run("0").info.run_id  # a run that stored a model as MLflow 2 did
    client.log_artifacts(older, files, "model")
    client.set_terminated(older)
    found = compare([f"models:/{NAME}/{bare.version}", f"runs:/{older}/model"], siblings=False)
    columns = [names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED, names.EPOCHS, "hidden_dims"]
    told = found.models[columns].to_numpy().tolist()
    assert told == [["0.5", "0", "2", "1", "[4]"]] * 2
    assert found.models[names.ELBO].isna().tolist() == [False, True]


def test_evaluators_fill_what_is_missing_and_nothing_twice(trained, monkeypatch, capsys):
    for evaluator, changes in (
        (LipschitzEvaluator, {"methods": ("norm_product",), "n_points": 3, "n_steps": 1}),
        (MaxDamageEvaluator, {"n_images": 2, "methods": ("random",), "relative_r": (0.5,),
                              "n_samples": 50, "figures": False}),
    ):  # fmt: skip
        monkeypatch.setattr(evaluator, "OPTIONS", {**evaluator.OPTIONS, **changes})
    uris = [f"models:/{NAME}/1", f"models:/{NAME}/2"]
    before = compare(uris)
    assert set(before.missing["evaluator"]) == {"lipschitz", "max_damage"}
    command = ["compare", *uris, "--evaluate", "lipschitz,max_damage", "--json"]
    assert main([*command, "--output", str(trained / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == []
    for model in found["models"]:
        vae = harmonicvae.load_model(model["model_uri"])
        product = harmonicvae.bound(vae.decoder_, "norm_product").value
        assert model[UPPER] == pytest.approx(product, rel=1e-9)
        assert model["damage_l2_r10_mean"] > 0
        linked = MlflowClient().get_logged_model(model["model_id"]).metrics
        assert UPPER in {metric.key for metric in linked}
    client = MlflowClient()
    experiment = client.get_experiment_by_name("harmonicvae").experiment_id
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{found['run_id']}'")
    assert len(nested) == 2
    assert {run.info.status for run in nested} == {"FINISHED"}
    assert main([*command, "--output", str(trained / "out")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert not client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{again['run_id']}'")


def test_mlflow_run_of_the_entry_point(trained, tmp_path):
    program = Path(sys.executable).with_name("mlflow")
    root = Path(__file__).resolve().parents[2]
    parameters = {
        "uris": f"models:/{NAME}/1 models:/{NAME}/2",
        "require": "elbo>-1e9",
        "alias": "champion",
        "output": str(tmp_path / "out"),
    }
    given = [part for key, value in parameters.items() for part in ("-P", f"{key}={value}")]
    done = subprocess.run(
        [program, "run", f"{root}#mlflow_projects/compare", "--env-manager", "local", *given],
        env=os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Alias 'champion'" in done.stdout
    assert (tmp_path / "out" / names.FILE_COMPARISON).exists()
    run = MlflowClient().search_runs(["0"], order_by=["attributes.start_time DESC"])[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.TAG_ROLE] == "comparison"
    assert "mlflow.project.entryPoint" in run.data.tags
