"""HarmonicVAE as a scikit-learn estimator: common checks, composition, generators, seeds."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from harmonicvae.exceptions import CollapseWarning, HarmonicVAEError, InputError
from harmonicvae.models import HarmonicVAE

STUDY_SEEDS = (14609714069366804553, 10209623728859046282, 13978253786968215756)

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")


def small(**parameters):
    return HarmonicVAE(
        **{"hidden_dims": (16,), "max_epochs": 2, "random_state": 0, "activation": "tanh"}
        | parameters
    )


@pytest.fixture(scope="module")
def digits():
    return load_digits().data[:300] / 8 - 1


@parametrize_with_checks(
    [small(), HarmonicVAE(max_epochs=1), small(encoder_std="learned", input_noise_std=0.1)]
)
def test_scikit_learn_common_checks(estimator, check):
    check(estimator)


def test_pandas_in_and_out(digits):
    frame = pd.DataFrame(digits, columns=[f"pixel{i}" for i in range(digits.shape[1])])
    vae = small(latent_dim=3).set_output(transform="pandas").fit(frame)
    codes = vae.transform(frame)
    assert list(codes.columns) == ["harmonicvae0", "harmonicvae1", "harmonicvae2"]
    assert list(vae.get_feature_names_out()) == list(codes.columns)
    assert list(vae.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(
        codes.to_numpy(), small(latent_dim=3).fit(digits).transform(digits)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_preserved(digits, dtype):
    X = digits.astype(dtype)
    vae = small().fit(X)
    assert vae.transform(X).dtype == dtype
    assert vae.reconstruct(X).dtype == dtype
    assert vae.inverse_transform(vae.transform(X)).dtype == dtype


def test_clone_and_pickle_give_the_same_codes(digits):
    vae = small().fit(digits)
    np.testing.assert_array_equal(clone(vae).fit(digits).transform(digits), vae.transform(digits))
    copy = pickle.loads(pickle.dumps(vae))
    np.testing.assert_array_equal(copy.transform(digits), vae.transform(digits))
    assert copy.score(digits) == vae.score(digits)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search(digits, n_jobs):
    search = GridSearchCV(
        small(), {"encoder_std": [0.1, 1.0], "input_noise_std": [0.0, 0.5]}, cv=2, n_jobs=n_jobs
    ).fit(digits)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) == 4


def test_pipeline(digits):
    pipeline = make_pipeline(StandardScaler(), small(latent_dim=3), PCA(2))
    assert pipeline.fit_transform(digits).shape == (300, 2)


@pytest.mark.parametrize(
    "seed", [None, 0, np.int64(5), np.random.RandomState(3), np.random.default_rng(3), *STUDY_SEEDS]
)
def test_random_states(digits, seed):
    vae = small(random_state=seed, max_epochs=1).fit(digits)
    assert 0 <= vae.seed_ < 2**64
    again = small(random_state=vae.seed_, max_epochs=1).fit(digits)
    np.testing.assert_array_equal(vae.transform(digits), again.transform(digits))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "0", True])
def test_bad_random_state(digits, seed):
    with pytest.raises(InputError, match="random_state"):
        small(random_state=seed).fit(digits)


def test_none_differs_every_time(digits):
    first, second = (small(random_state=None, max_epochs=0).fit(digits) for _ in range(2))
    assert first.seed_ != second.seed_


def test_same_seed_gives_bit_identical_weights(digits):
    first, second = (small(input_noise_std=0.2).fit(digits) for _ in range(2))
    for key, value in first.net_.module_.state_dict().items():
        assert torch.equal(value, second.net_.module_.state_dict()[key])


def test_global_generators_stay_untouched(digits):
    np.random.seed(1)  # noqa: NPY002 - the legacy generator is what must stay untouched
    torch.manual_seed(1)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    vae = small(random_state=None, validation_fraction=0.2).fit(digits)
    vae.transform(digits)
    vae.score(digits)
    vae.sample(2)
    vae.reconstruct(digits)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("latent_dim", 0),
        ("latent_dim", 2.0),
        ("hidden_dims", 16),
        ("hidden_dims", (16, 0)),
        ("hidden_dims", "256"),
        ("activation", "cosine"),
        ("encoder_std", 0),
        ("encoder_std", -0.5),
        ("encoder_std", "fixed"),
        ("encoder_std", float("nan")),
        ("input_noise_std", -1),
        ("input_noise_std", float("inf")),
        ("reconstruction_target", "both"),
        ("max_epochs", -1),
        ("batch_size", 0),
        ("lr", 0),
        ("kl_weight", 0),
        ("elbo_samples", 0),
        ("validation_fraction", 1.0),
        ("checkpoint_every", 0),
        ("reproduction_errors", "kl_form"),
        ("reproduction_errors", ("slope_one",)),
        ("device", "abacus"),
        ("device", "meta"),
        ("device", "mps"),
        ("device", "cuda:99"),
        ("activation", ["tanh"]),
        ("reproduction_errors", [["kl_form"]]),
        ("reproduction_errors", [1]),
        ("reproduction_errors", 5),
    ],
)
def test_bad_parameters_are_named(digits, parameter, value):
    with pytest.raises(InputError, match=parameter) as caught:
        small(**{parameter: value}).fit(digits)
    assert isinstance(caught.value, HarmonicVAEError)
    assert isinstance(caught.value, ValueError)


def test_bad_samples(digits):
    vae = small().fit(digits)
    with pytest.raises(InputError, match="64 features"):
        vae.transform(digits[:, :5])
    with pytest.raises(InputError, match="latent_dim is 2"):
        vae.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(InputError, match="NaN"):
        small().fit(np.full((4, 2), np.nan))
    with pytest.raises(InputError, match="n_samples"):
        vae.sample(0)


def test_collapse_warns_and_is_reported(digits):
    with pytest.warns(CollapseWarning, match="ignores its code"):
        vae = HarmonicVAE(max_epochs=1, random_state=0).fit(digits)
    assert vae.collapse_.collapsed
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        healthy = small(latent_dim=8, encoder_std=0.1, max_epochs=60, batch_size=16)
        healthy.fit(digits)
    assert healthy.collapse_.active_units > 0
    assert healthy.collapse_.decoding_variance_ratio > 0.1
