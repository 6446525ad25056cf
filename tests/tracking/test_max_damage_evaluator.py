"""The "max_damage" evaluator: attacks, margins, tables and figures of one model."""

import numpy as np
import pytest
import torch

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.models import HarmonicVAE
from harmonicvae.tracking.evaluators import MaxDamageEvaluator

QUICK = {
    "radii": (0.5, 2.0),
    "n_images": 4,
    "n_restarts": 3,
    "relative_r": (0.5, 4.0),
    "n_samples": 50,
    "figures": False,
}


def trained(**options):
    X = np.random.default_rng(0).uniform(-1, 1, size=(40, 12))
    shared = {"latent_dim": 3, "hidden_dims": (8,), "max_epochs": 1, "random_state": 0}
    return HarmonicVAE(**shared, **options).fit(X), X


def measured(estimator, X, **options):
    evaluator = MaxDamageEvaluator()
    return evaluator._measure(estimator, X, evaluator._options({**QUICK, **options}))


@pytest.fixture(scope="module")
def fixed():
    return trained(encoder_std=0.2)


@pytest.fixture(scope="module")
def several(fixed):
    return measured(*fixed, methods=["pgd", "random"])


def test_metrics_are_of_the_strongest_method_for_each_image(several):
    metrics, contents = several
    table = contents[names.ARTIFACT_ATTACKS]
    assert set(table["method"]) == {"pgd", "random"}
    for radius in QUICK["radii"]:
        part = table[table[names.RADIUS] == radius]
        strongest = part.groupby(names.IMAGE)[names.DAMAGE].max()
        key = names.attack_metric(names.DAMAGE, radius)
        assert metrics[key] == pytest.approx(strongest.mean())
        assert metrics[names.attack_metric(names.DAMAGE, radius, "max")] == strongest.max()
    arrays = contents[names.ARTIFACT_ATTACK_ARRAYS]
    change = np.linalg.norm(arrays["attack_decodings"] - arrays["decodings"], axis=2)
    expected = [
        table[(table[names.RADIUS] == r)].groupby(names.IMAGE)[names.DAMAGE].max()
        for r in QUICK["radii"]
    ]
    np.testing.assert_allclose(change, np.array(expected), rtol=1e-4)


def test_success_falls_from_one_to_zero(several):
    success = several[1][names.ARTIFACT_SUCCESS]
    for _, part in success.groupby(names.RADIUS):
        rate = part.sort_values("r")["success_rate"].to_numpy()
        assert rate[0] == 1.0
        assert (np.diff(rate) <= 0).all()
    largest = success[success[names.RADIUS] == 2.0].sort_values("r")["success_rate"].iloc[-1]
    assert largest == 0.0


def test_margins_of_a_contraction_hold_where_they_are_attacked(fixed):
    """Small weights, so that the certified margin exceeds the smaller radius."""
    estimator, X = trained(encoder_std=0.01)
    with torch.no_grad():
        for side in (estimator.encoder_, estimator.decoder_):
            for parameter in side.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(0.2)
            side[-1].bias.fill_(1.0)
    metrics, contents = measured(estimator, X, radii=(1e-3, 5.0))
    margins = contents[names.ARTIFACT_MARGINS]
    assert (margins["status"] == "certified").all()
    assert (margins[names.CERTIFIED_MARGIN] > 1e-3).all()
    assert (margins[names.robustness_column(1e-3)] > 0.5).all()
    assert (margins["margin_barrett_1"] <= margins["margin_sharpened_1"]).all()
    assert (margins["margin_triangle_chi2"] <= margins["margin_noncentral_chi2"]).all()
    key = names.margin_metric(names.CERTIFIED_MARGIN, 0.5)
    part = margins[margins[names.RELATIVE_R] == 0.5]
    assert metrics[key] == pytest.approx(part[names.CERTIFIED_MARGIN].mean())
    assert not any(name.endswith(("_lower_rel0.5_mean", "_upper_rel0.5_mean")) for name in metrics)


@pytest.mark.parametrize("objective", ["damage", "stochastic_damage", "latent"])
def test_a_learned_spread_is_attacked_and_never_certified(objective):
    estimator, X = trained(encoder_std="learned")
    _, contents = measured(estimator, X, methods="pgd", objective=objective)
    table, margins = contents[names.ARTIFACT_ATTACKS], contents[names.ARTIFACT_MARGINS]
    assert (table["objective"] == objective).all()
    assert (table["value"] > 0).all()
    assert (margins[names.CERTIFIED_MARGIN] == 0).all()
    assert not (margins["status"] == "certified").any()
    assert "margin_noncentral_chi2" not in margins


def test_figures_and_similarity_of_pictures():
    X = np.random.default_rng(0).uniform(-1, 1, size=(20, 12 * 12))
    estimator = HarmonicVAE(latent_dim=2, hidden_dims=(4,), max_epochs=1, random_state=0).fit(X)
    shown = {"figures": True, "image_shape": (12, 12, 1), "n_panels": 2, "methods": "random"}
    metrics, contents = measured(estimator, X, **shown)
    drawn = {path for path in contents if path.endswith(".png")}
    images = contents[names.ARTIFACT_ATTACK_ARRAYS]["attack_images"]
    expected = {"damage", "margins", *(f"attack_{image}" for image in images)}
    assert drawn == {names.figure_artifact(name) for name in expected}
    assert -1 <= metrics[names.attack_metric(names.SSIM, 2.0)] <= 1
    without = measured(estimator, X, methods="random", image_shape=(72, 2))[0]
    assert names.attack_metric(names.SSIM, 2.0) not in without


def test_no_relative_r_means_no_margins(fixed):
    metrics, contents = measured(*fixed, methods="random", relative_r=(), figures=True)
    assert contents[names.ARTIFACT_MARGINS].empty
    assert not any(name.startswith(names.MARGIN_COLUMNS) for name in metrics)
    assert names.figure_artifact("margins") not in contents


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"methods": ["magic"]}, "methods must be among"),
        ({"methods": []}, "methods must be among"),
        ({"objective": "targeted"}, "objective must be one of"),
        ({"radii": ["ten"]}, "radii must be numbers"),
        ({"radii": [-1.0]}, "radius must be finite and >= 0"),
        ({"relative_r": [0.0]}, "relative_r must be finite and > 0"),
        ({"relative_r": "half"}, "relative_r must be numbers"),
        ({"speed": 3}, "evaluator_config may hold"),
        ({"box": (0.5, 1.0)}, "box must hold every clean input"),
    ],
)
def test_bad_options_are_named(fixed, options, text):
    with pytest.raises(InputError, match=text):
        measured(*fixed, **options)
