"""Fitted estimators: what they depend on, what types they keep, how they are stored."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.models import HarmonicVAE, load_estimator, save_estimator

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")


def small(**parameters):
    return HarmonicVAE(
        **{"hidden_dims": (8,), "max_epochs": 2, "random_state": 0, "batch_size": 64} | parameters
    )


@pytest.fixture(scope="module")
def digits():
    return (load_digits().data[:200] / 8 - 1).astype(np.float32)


# ------------------------------------------------------------------------------ types


def columns(X):
    return pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda X: columns(X).astype("Float64"), np.float64),
        (lambda X: columns(X).astype("Float32"), np.float64),  # scikit-learn's conversion
        (lambda X: columns(X).astype({"c0": np.float64}), np.float64),
        (columns, np.float32),
        (lambda X: X.tolist(), np.float64),
        (torch.from_numpy, np.float32),
        (lambda X: torch.from_numpy(X).double(), np.float64),
    ],
)
def test_result_types(digits, convert, dtype):
    X = convert(digits)
    vae = small().fit(X)
    expected = small().fit(digits).transform(digits)
    assert vae.transform(X).dtype == vae.reconstruct(X).dtype == dtype
    np.testing.assert_allclose(vae.transform(X), expected, rtol=1e-6, atol=1e-7)


# ------------------------------------------------------------------------- generators


def test_generators_of_gpus_are_left_alone_on_the_cpu(digits, monkeypatch):
    """torch.manual_seed would seed those of every GPU, which nothing puts back."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeded.append(seed))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append(seed))
    small(device="cpu", validation_fraction=0.1).fit(digits).score(digits)
    assert seeded == []
    torch.manual_seed(0)
    assert seeded == [0]  # the patch does see torch's own calls


@pytest.mark.gpu
def test_gpu_generators_are_put_back(digits):
    before = torch.cuda.get_rng_state_all()
    for device in ("cpu", "cuda"):
        small(device=device).fit(digits)
        assert all(map(torch.equal, before, torch.cuda.get_rng_state_all()))


# ------------------------------------------------------------------------- validation


@pytest.mark.parametrize(("rows", "fraction"), [(200, 0.001), (2, 0.01), (2, 0.5), (3, 0.4)])
def test_a_positive_fraction_holds_out_at_least_one_row(digits, rows, fraction):
    vae = small(validation_fraction=fraction).fit(digits[:rows])
    assert vae.history_[names.VALID_LOSS].notna().all()


@pytest.mark.parametrize(("rows", "fraction"), [(1, 0.01), (1, 0.9), (2, 0.9)])
def test_a_fraction_that_leaves_nothing_is_refused(digits, rows, fraction):
    with pytest.raises(InputError, match="no training sample"):
        small(validation_fraction=fraction).fit(digits[:rows])


# ------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "changed",
    [
        {"latent_dim": 5},
        {"encoder_std": 0.1},
        {"encoder_std": "learned"},
        {"hidden_dims": (3,), "activation": "relu"},
        {"random_state": 9},
        {"device": "abacus"},
    ],
)
@pytest.mark.parametrize("std", [0.5, "learned"])
def test_parameters_set_after_fit_change_no_result(digits, tmp_path, std, changed):
    vae = small(encoder_std=std).fit(digits)
    codes = vae.transform(digits)

    def results(fitted):
        return (
            fitted.transform(digits),
            fitted.inverse_transform(codes),
            fitted.reconstruct(digits),
            fitted.score_samples(digits),
            fitted.sample(3),
            fitted.get_feature_names_out().astype(str),
        )

    before = results(vae)
    vae.set_params(**changed)
    for first, second in zip(before, results(vae), strict=True):
        np.testing.assert_array_equal(first, second)
    loaded = load_estimator(save_estimator(vae, tmp_path / "vae"), device="cpu")
    for first, second in zip(before, results(loaded), strict=True):
        np.testing.assert_array_equal(first, second)


def test_elbo_samples_may_be_set_after_fit(digits):
    vae = small().fit(digits)
    before = vae.score_samples(digits)
    assert not np.array_equal(before, vae.set_params(elbo_samples=3).score_samples(digits))
    with pytest.raises(InputError, match="elbo_samples"):
        vae.set_params(elbo_samples=0).score(digits)


# ---------------------------------------------------------------------------- storage


def test_devices_and_numpy_parameters_are_stored(digits, tmp_path):
    vae = small(
        device=torch.device("cpu"), encoder_std=np.float64(0.5), hidden_dims=np.array([8])
    ).fit(digits)
    loaded = load_estimator(save_estimator(vae, tmp_path / "vae"))
    np.testing.assert_array_equal(loaded.transform(digits), vae.transform(digits))
    described = json.loads((tmp_path / "vae" / "estimator.json").read_text())
    assert described["parameters"]["device"] == "cpu"


def test_untrained_history_comes_back(digits, tmp_path):
    vae = small(max_epochs=0).fit(digits)
    loaded = load_estimator(save_estimator(vae, tmp_path / "vae"))
    assert list(loaded.history_) == list(vae.history_) == list(names.HISTORY_COLUMNS)


def without(key):
    return lambda described: described.pop(key)


@pytest.mark.parametrize(
    "damage",
    [
        *map(without, ("format", "parameters", "n_features", "seed", "history", "collapse")),
        lambda described: described.update(format="1"),
        lambda described: described.update(parameters=[]),
        lambda described: described["parameters"].update(latent_dim="2"),
        lambda described: described["parameters"].update(latent_dim=3),
        lambda described: described["parameters"].update(hidden_dims=(9,)),
        lambda described: described["parameters"].update(hidden_dims=None),
        lambda described: described["parameters"].update(unknown=1),
        lambda described: described["parameters"].pop("hidden_dims"),
        lambda described: described.update(n_features="64"),
        lambda described: described.update(n_features=63),
        lambda described: described.update(seed="x"),
        lambda described: described.update(history=["x"]),
        lambda described: described.update(history=3),
        lambda described: described["collapse"].update(active_units="x"),
        lambda described: described["collapse"].pop("active_units"),
        lambda described: described.update(collapse=None),
        lambda described: described.update(format=99),
    ],
)
def test_damaged_descriptions_are_refused(digits, tmp_path, damage):
    folder = save_estimator(small().fit(digits), tmp_path / "vae")
    file = folder / "estimator.json"
    described = json.loads(file.read_text())
    damage(described)
    file.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"no readable HarmonicVAE|newer format"):
        load_estimator(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", "\x00"])
def test_descriptions_of_another_kind_are_refused(digits, tmp_path, content):
    folder = save_estimator(small().fit(digits), tmp_path / "vae")
    (folder / "estimator.json").write_text(content)
    with pytest.raises(InputError, match="no readable HarmonicVAE"):
        load_estimator(folder)


@pytest.mark.parametrize("weights", [{}, [1], torch.zeros(3), {"encoder.0.weight": "x"}])
def test_weights_of_another_kind_are_refused(digits, tmp_path, weights):
    folder = save_estimator(small().fit(digits), tmp_path / "vae")
    torch.save(weights, folder / "weights.pt")
    with pytest.raises(InputError, match="no readable HarmonicVAE"):
        load_estimator(folder)
    with pytest.raises(InputError, match="device"):
        load_estimator(folder, device="abacus")
