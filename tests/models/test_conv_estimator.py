"""ConvHarmonicVAE: common checks, the layout of images, resuming, files, exact reading."""

import copy
import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from harmonicvae import LayeredNetwork, hermite_spectrum
from harmonicvae.attacks import attack
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import bound
from harmonicvae.margins import margin
from harmonicvae.models import ConvHarmonicVAE, HarmonicVAE, load_estimator, save_estimator
from harmonicvae.models.conv_modules import ConvVAEModule
from tests.models.cases import weights

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")


def small(**parameters):
    defaults = {"channels": (4, 4), "max_epochs": 2, "random_state": 0, "batch_size": 64}
    return ConvHarmonicVAE(**defaults | parameters)


@parametrize_with_checks(
    [
        small(),
        ConvHarmonicVAE(max_epochs=1),
        small(encoder_std="learned", input_noise_std=0.1, hidden_dims=(5,), kernel_size=5),
    ]
)
def test_scikit_learn_common_checks(estimator, check):
    check(estimator)


# --------------------------------------------------------------------- the network


def usual_layers(module, image_shape, kernel_size, stride):
    """The same maps written with channels first, as anybody would."""
    depth, pad = image_shape[2], kernel_size // 2
    first, last = module.encoder[1], module.decoder[-2]
    conv = nn.Conv2d(depth, first.out_channels, kernel_size, stride, pad).double()
    kernels = first.weight.reshape(-1, kernel_size, kernel_size, depth)
    conv.weight.data = kernels.permute(0, 3, 1, 2).clone()
    conv.bias.data = first.bias.data
    rest = (last.output_padding[0], last.output_padding[1] // depth)
    transposed = nn.ConvTranspose2d(last.in_channels, depth, kernel_size, stride, pad, rest)
    transposed = transposed.double()
    kernels = last.weight.reshape(-1, kernel_size, kernel_size, depth)
    transposed.weight.data = kernels.permute(0, 3, 1, 2).clone()
    transposed.bias.data = last.bias.data.expand(depth).clone()
    return conv, transposed


@pytest.mark.parametrize("image_shape", [(8, 8, 3), (7, 5, 2), (1, 9, 1), (4, 6, 1), (1, 1, 3)])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (5, 3), (1, 1), (3, 4)])
def test_rows_with_channels_last_are_convolved_as_images(image_shape, kernel_size, stride):
    torch.manual_seed(0)
    module = ConvVAEModule(image_shape, 3, [4, 2], kernel_size, stride, [], "tanh").double()
    conv, transposed = usual_layers(module, image_shape, kernel_size, stride)
    rows = torch.randn(5, int(np.prod(image_shape)), dtype=torch.float64)
    images = rows.reshape(5, *image_shape).permute(0, 3, 1, 2)
    torch.testing.assert_close(module.encoder[:2](rows), conv(images))
    hidden = module.decoder[:-2](torch.randn(5, 3, dtype=torch.float64))
    usual = transposed(hidden).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(module.decoder[-2:](hidden), usual)
    assert module(rows).shape == rows.shape


def test_image_shapes(digits):
    assert small().fit(digits).image_shape_ == (8, 8, 1)
    assert small(image_shape=(4, 16)).fit(digits).image_shape_ == (4, 16, 1)
    assert small(image_shape=np.array([4, 4, 4])).fit(digits).image_shape_ == (4, 4, 4)
    assert small().fit(digits[:, :27]).image_shape_ == (3, 3, 3)
    assert small().fit(digits[:, :5]).image_shape_ == (1, 5, 1)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("image_shape", (8, 9)),
        ("image_shape", (8,)),
        ("image_shape", (8, 8, 1, 1)),
        ("image_shape", (8, -8)),
        ("image_shape", "8x8"),
        ("image_shape", 64),
        ("channels", ()),
        ("channels", (4, 0)),
        ("channels", 4),
        ("kernel_size", 4),
        ("kernel_size", 0),
        ("kernel_size", (3, 3)),
        ("stride", 0),
        ("stride", 1.5),
        ("hidden_dims", (0,)),
        ("activation", "cosine"),
        ("latent_dim", 0),
    ],
)
def test_bad_parameters_are_named(digits, parameter, value):
    with pytest.raises(InputError, match=parameter):
        small(**{parameter: value}).fit(digits)


def test_it_learns(digits):
    vae = ConvHarmonicVAE(
        latent_dim=8, encoder_std=0.1, batch_size=16, max_epochs=60, random_state=0
    ).fit(digits)
    assert not vae.collapse_.collapsed
    error = np.mean((vae.reconstruct(digits) - digits) ** 2)
    assert error < 0.4 * np.mean((digits - digits.mean(axis=0)) ** 2)


def test_global_generators_stay_untouched(digits):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    small(random_state=None).fit(digits).score(digits)
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------- resuming and files


@pytest.mark.parametrize("options", [{}, {"encoder_std": "learned", "input_noise_std": 0.3}])
def test_resumed_training_is_bit_identical(digits, tmp_path, options):
    path = tmp_path / "run.pt"
    small(**options, checkpoint_path=path).fit(digits)
    resumed = small(**options, max_epochs=5).fit(digits, resume_from=path)
    whole = small(**options, max_epochs=5).fit(digits)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.n_iter_ == 5


@pytest.mark.parametrize(
    "other",
    [{"channels": (4, 5)}, {"kernel_size": 5}, {"stride": 1}, {"image_shape": (4, 16)}],
)
def test_a_checkpoint_of_another_network_is_refused(digits, tmp_path, other):
    path = tmp_path / "run.pt"
    small(checkpoint_path=path).fit(digits)
    with pytest.raises(InputError, match=next(iter(other))):
        small(**other).fit(digits, resume_from=path)
    with pytest.raises(InputError, match="cannot resume"):
        HarmonicVAE(max_epochs=2, batch_size=64, random_state=0).fit(digits, resume_from=path)


@pytest.mark.parametrize("encoder_std", [0.5, "learned"])
def test_saved_and_loaded(digits, tmp_path, encoder_std):
    vae = small(encoder_std=encoder_std, image_shape=[8, 8], hidden_dims=(6,)).fit(digits)
    loaded = load_estimator(save_estimator(vae, tmp_path))
    assert type(loaded) is ConvHarmonicVAE
    assert loaded.image_shape_ == vae.image_shape_
    np.testing.assert_array_equal(loaded.transform(digits), vae.transform(digits))
    np.testing.assert_array_equal(loaded.reconstruct(digits), vae.reconstruct(digits))
    assert loaded.score(digits) == vae.score(digits)
    again = clone(loaded).fit(digits)
    assert torch.equal(weights(again), weights(vae))
    if encoder_std == "learned":
        x = torch.from_numpy(digits)
        assert torch.equal(loaded.encoder_spread_(x), vae.encoder_spread_(x))


def test_files_of_another_class_are_refused(digits, tmp_path):
    path = save_estimator(small().fit(digits), tmp_path) / "estimator.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"estimator": "Unheard"}))
    with pytest.raises(InputError, match="no readable"):
        load_estimator(tmp_path)
    path.write_text(json.dumps(described | {"estimator": "HarmonicVAE"}))
    with pytest.raises(InputError, match="no readable"):
        load_estimator(tmp_path)

    class Own(HarmonicVAE):
        pass

    with pytest.raises(InputError, match="Own"):
        save_estimator(Own(max_epochs=0).fit(digits), tmp_path)


def test_estimators_saved_before_there_were_two(digits, tmp_path):
    vae = HarmonicVAE(max_epochs=1, hidden_dims=(8,), random_state=0).fit(digits)
    path = save_estimator(vae, tmp_path) / "estimator.json"
    described = json.loads(path.read_text())
    assert described["format"] == 1
    del described["estimator"]
    path.write_text(json.dumps(described))
    loaded = load_estimator(tmp_path)
    np.testing.assert_array_equal(loaded.transform(digits), vae.transform(digits))


# --------------------------------------------------------------------- bounds, attacks, margins


@pytest.fixture(scope="module")
def trained(digits):
    return ConvHarmonicVAE(
        latent_dim=4, channels=(4, 4, 4), max_epochs=10, batch_size=32, random_state=0
    ).fit(digits)


def test_the_modules_are_represented_exactly(trained, digits):
    x = digits[:50].astype(np.float64)
    codes = LayeredNetwork.from_module(trained.encoder_)(x)
    np.testing.assert_allclose(codes, trained.transform(x), rtol=1e-12, atol=1e-12)
    decoded = LayeredNetwork.from_module(trained.decoder_)(codes)
    np.testing.assert_allclose(decoded, trained.reconstruct(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("part", "std"), [("decoder_", 0.5), ("encoder_", 0.2)])
def test_hermite_spectra_and_the_degree_identity(trained, digits, part, std):
    mean = digits[0] if part == "encoder_" else trained.transform(digits[:1])[0]
    module = copy.deepcopy(getattr(trained, part)).double()
    found = hermite_spectrum(module, mean, std, n_samples=8192, random_state=0)
    degrees, energy = np.arange(len(found.values)), found["jacobian_energy"]
    assert found["tail"].value < 1e-3 * found["variance"].value
    share = (degrees * found.values).sum() / (std**2 * energy.value)
    variance = found["variance"]  # its error is the largest, below 1 % here
    assert abs(share - 1.0) <= min(0.02, 4.0 * variance.standard_error / variance.value)
    assert (degrees * found.lower).sum() <= std**2 * energy.upper
    assert (degrees * found.upper).sum() >= std**2 * energy.lower


def test_bound_attack_and_margin(trained, digits):
    bounds = {part: bound(getattr(trained, part)) for part in ("encoder_", "decoder_")}
    assert all(item.status == "certified" for item in bounds.values())
    result = attack(
        trained.encoder_, trained.decoder_, digits[:3], [1.0], box=(-1, 1), random_state=0
    )[0]
    largest = bounds["encoder_"].value * bounds["decoder_"].value * 1.0
    assert 0 < np.max(result.damage) <= largest
    found = margin(*bounds.values(), std=0.5, r=8.0, latent_dim=4)
    assert found
