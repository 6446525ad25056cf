"""The "harmonics" evaluator: metrics, tables and figures of one model, and its verb."""

from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry

from harmonicvae import hermite_spectrum, names
from harmonicvae.cli import main
from harmonicvae.exceptions import InputError
from harmonicvae.models import HarmonicVAE
from harmonicvae.tracking.evaluators import HarmonicsEvaluator
from harmonicvae.tracking.registry import log_model

QUICK = {"n_samples": 128, "n_centres": 4, "n_slices": 8, "slice_points": 16, "n_pictures": 8}


def measured(estimator, X, **options):
    evaluator = HarmonicsEvaluator()
    return evaluator._measure(estimator, X, evaluator._options({**QUICK, **options}))


def trained(width=12, **options):
    X = np.random.default_rng(0).uniform(-1, 1, size=(40, width)).astype(np.float32)
    shared = {"latent_dim": 3, "hidden_dims": (8,), "max_epochs": 1, "random_state": 0}
    return HarmonicVAE(**shared, **options).fit(X), X


@pytest.fixture(scope="module")
def fixed():
    return trained(encoder_std=0.2)


@pytest.fixture(scope="module")
def result(fixed):
    return measured(*fixed, image_shape=(2, 2, 3))


def test_the_headline_is_the_prior_and_the_first_std(fixed, result):
    metrics, contents = result
    spectra, numbers = contents[names.ARTIFACT_SPECTRA], contents[names.ARTIFACT_HARMONICS]
    hermite = spectra[spectra[names.SPECTRUM] == "hermite"]
    found = hermite[[names.SIDE, names.CENTRE, names.STD]].drop_duplicates().to_numpy().tolist()
    assert found == [
        ["decoder", "prior", 1.0],
        ["decoder", "codes", 0.2],
        ["encoder", "data", 1.0],
        ["encoder", "data", 0.5],
    ]
    direct = hermite_spectrum(fixed[0].decoder_, np.zeros(3), 1.0, n_samples=128, random_state=0)
    key = names.harmonic_metric(names.MEAN_DEGREE, "decoder")
    assert metrics[key] == direct["mean_degree"].value
    mean = numbers[(numbers[names.SIDE] == "encoder") & (numbers["quantity"] == "mean_degree")]
    key = names.harmonic_metric(names.MEAN_DEGREE, "encoder")
    assert metrics[key] == mean["value"].iloc[0]
    assert (numbers["lower"] <= numbers["value"]).all()
    assert set(numbers["kind"]) <= {"unbiased", "ratio", "least_squares"}


def test_every_metric_and_figure_is_there(result):
    metrics, contents = result
    for side in names.SIDES:
        for metric in names.HARMONIC_METRICS:
            assert np.isfinite(metrics[names.harmonic_metric(metric, side)])
    for side in ("data", "reconstructions"):
        assert np.isfinite(metrics[names.harmonic_metric(names.SPECTRAL_CENTROID, side)])
    assert metrics[names.HARMONIC_SECONDS] > 0
    assert names.ARTIFACT_HARMONIC_FIGURE in contents
    assert len(contents[names.ARTIFACT_HARMONIC_FIGURE].axes) == 3


def test_results_are_repeatable(fixed, result):
    again = measured(*fixed, image_shape=(2, 2, 3), figures=False)
    assert names.ARTIFACT_HARMONIC_FIGURE not in again[1]
    for key, value in again[0].items():
        if key != names.HARMONIC_SECONDS:
            assert value == result[0][key], key


def test_a_learned_spread_and_one_side():
    estimator, X = trained(encoder_std="learned")
    metrics, contents = measured(estimator, X, sides=["decoder"])
    spectra = contents[names.ARTIFACT_SPECTRA]
    assert set(spectra[names.SIDE]) == {"decoder"}
    std = spectra.loc[spectra[names.CENTRE] == "codes", names.STD]
    assert 0 < std.iloc[0] < 10
    assert names.harmonic_metric(names.MEAN_DEGREE, "encoder") not in metrics


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sides": ["both"]}, "sides must be among"),
        ({"sides": []}, "sides must be among"),
        ({"encoder_stds": []}, "encoder_stds must be"),
        ({"encoder_stds": [0.0]}, "std must be > 0"),
        ({"n_centres": 1}, "n_centres must be an integer >= 2"),
        ({"n_samples": 3}, "n_samples must be an integer >= 32"),
        ({"speed": 3}, "evaluator_config may hold"),
    ],
)
def test_bad_options_are_named(fixed, options, text):
    with pytest.raises(InputError, match=text):
        measured(*fixed, **options)


def test_the_entry_point_leads_to_the_plugin():
    parser = ConfigParser()
    parser.read(Path(__file__).resolve().parents[2] / "setup.cfg", encoding="utf-8")
    lines = parser["options.entry_points"]["mlflow.model_evaluator"].strip().splitlines()
    points = dict(line.replace(" ", "").split("=") for line in lines)
    module, name = points[names.EVALUATOR_HARMONICS].split(":")
    assert getattr(import_module(module), name) is HarmonicsEvaluator


def test_the_plugin_is_installed():
    assert names.EVALUATOR_HARMONICS in mlflow.models.list_evaluators()


def test_the_verb_measures_a_stored_model(store, capsys):
    if names.EVALUATOR_HARMONICS not in mlflow.models.list_evaluators():
        _model_evaluation_registry.register(names.EVALUATOR_HARMONICS, HarmonicsEvaluator)
    estimator, _ = trained(344, encoder_std=0.2)
    with mlflow.start_run():
        uri = log_model(estimator, {}).model_uri
    command = ["harmonics", uri, "--dataset", "sinc", "--samples", "64", "--centres", "2"]
    command += ["--slices", "4", "--sides", "decoder", "--max-degree", "3", "--json"]
    assert main(command) == 0
    assert '"hermite_mean_degree_decoder"' in capsys.readouterr().out
    assert main(["harmonics", uri, "--samples", "3"]) == 2
    assert "samples must be an integer >= 32, got '3'" in capsys.readouterr().err
