"""Convolutional models in MLflow: the specification of a study's model and the round trip."""

import mlflow
import numpy as np
import pytest

from harmonicvae.exceptions import InputError
from harmonicvae.models import ConvHarmonicVAE, HarmonicVAE
from harmonicvae.tracking.registry import load_model, log_model
from harmonicvae.tracking.specs import ModelSpec

SHARED = {
    "dataset": "sinc",
    "encoder_std": 0.5,
    "input_noise_std": 0.0,
    "seed": 7,
    "epochs": 2,
    "latent_dim": 3,
}


@pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")
@pytest.mark.parametrize("encoder_std", [0.5, "learned"])
def test_logged_and_loaded(store, encoder_std):
    X = np.random.default_rng(0).uniform(-1, 1, (60, 48)).astype(np.float32)
    vae = ConvHarmonicVAE(
        image_shape=(4, 4, 3), max_epochs=1, encoder_std=encoder_std, random_state=0
    ).fit(X)
    with mlflow.start_run():
        uri = log_model(vae).model_uri
    loaded = load_model(uri)
    assert type(loaded) is ConvHarmonicVAE
    np.testing.assert_array_equal(loaded.reconstruct(X), vae.reconstruct(X))
    np.testing.assert_array_equal(loaded.score_samples(X), vae.score_samples(X))
    served = mlflow.pyfunc.load_model(uri).predict(X, params={"output": "transform"})
    np.testing.assert_array_equal(served, vae.transform(X))


def test_specs_of_both_models():
    mlp, conv = ModelSpec(**SHARED), ModelSpec(**SHARED, model="conv")
    assert (mlp.name, mlp.alias) == ("sinc-e0.5-n0-s7", "e0_5-n0-s7")
    assert (conv.name, conv.alias) == ("sinc-conv-e0.5-n0-s7", "conv-e0_5-n0-s7")
    assert conv.registered_name == mlp.registered_name
    assert type(mlp.estimator((172, 2))) is HarmonicVAE
    estimator = conv.estimator((172, 2), device="cpu")
    assert type(estimator) is ConvHarmonicVAE
    assert (estimator.image_shape, estimator.device) == ((172, 1, 2), "cpu")
    assert estimator.latent_dim == 3
    assert estimator.max_epochs == 2
    assert estimator.random_state == 7
    assert conv.estimator((32, 32, 3)).image_shape == (32, 32, 3)
    assert mlp.parameters()["hidden_dims"] == [256, 256, 256]
    assert "channels" not in mlp.parameters()
    assert conv.parameters()["channels"] == [8, 16, 32]
    assert conv.parameters()["activation"] == "elu"
    assert "hidden_dims" not in conv.parameters()


def test_another_model_is_refused():
    with pytest.raises(InputError, match="model must be one of"):
        ModelSpec(**SHARED, model="transformer")
