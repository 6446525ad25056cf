import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harmonicvae.attacks import ssim
from harmonicvae.attacks.ssim import structural_similarity
from harmonicvae.exceptions import InputError

shapes = st.one_of(
    st.tuples(st.integers(11, 15), st.integers(11, 15)),
    st.tuples(st.integers(11, 14), st.integers(11, 14), st.integers(1, 3)),
)


@st.composite
def pairs(draw):
    shape = draw(shapes)
    size = int(np.prod(shape))
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    first = source.uniform(-1, 1, size=(draw(st.integers(1, 3)), size))
    mixed = draw(st.floats(-1, 1)) * first + draw(st.floats(0, 1)) * source.normal(size=first.shape)
    return shape, first, mixed + draw(st.floats(-2, 2))


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([1.0, 2.0, 255.0]))
def test_agrees_with_scikit_image(pair, span):
    metrics = pytest.importorskip("skimage.metrics")
    shape, first, second = pair
    ours = structural_similarity(first, second, shape, span)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for value, x, y in zip(ours, first.reshape(-1, *shape), second.reshape(-1, *shape)):
        axis = 2 if len(shape) == 3 else None
        theirs = metrics.structural_similarity(x, y, data_range=span, channel_axis=axis, **options)
        assert value == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_symmetric_bounded_and_one_for_identical_images(pair):
    shape, first, second = pair
    value = structural_similarity(first, second, shape, 2.0)
    np.testing.assert_allclose(
        value, structural_similarity(second, first, shape, 2.0), rtol=0, atol=1e-12
    )
    assert (np.abs(value) <= 1).all()
    np.testing.assert_array_equal(structural_similarity(first, first, shape, 2.0), 1.0)


def test_weighted_sums_over_one_window():
    """An 11×11 image has one window: its moments follow from the definition."""
    source = np.random.default_rng(0)
    x, y = source.uniform(0, 1, size=(2, 11, 11))
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(bell, bell) / bell.sum() ** 2
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    variances = (window * (x - mean_x) ** 2).sum() + (window * (y - mean_y) ** 2).sum()
    covariance = (window * (x - mean_x) * (y - mean_y)).sum()
    expected = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    expected /= (mean_x**2 + mean_y**2 + 1e-4) * (variances + 9e-4)
    ours = structural_similarity(x.reshape(1, -1), y.reshape(1, -1), (11, 11), 1.0)
    assert ours[0] == pytest.approx(expected, rel=1e-12)


@given(arrays(np.float64, (2, 121), elements=st.floats(-1, 1)))
def test_far_from_zero_nothing_cancels(images):
    """Far from zero the luminance term is 1, and variances are still those of the image."""
    far = structural_similarity(images[:1] + 2**20, images[1:] + 2**20, (11, 11), 2.0)
    near = structural_similarity(
        images[:1] - images.mean() + 1e3, images[1:] - images.mean() + 1e3, (11, 11), 2.0
    )
    assert far[0] == pytest.approx(near[0], abs=1e-4)


def test_blocks_do_not_change_the_result(monkeypatch):
    images = np.random.default_rng(1).normal(size=(2, 5, 144))
    whole = structural_similarity(*images, (12, 12), 2.0)
    monkeypatch.setattr(ssim, "_VALUES_AT_ONCE", 300)
    np.testing.assert_array_equal(structural_similarity(*images, (12, 12), 2.0), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (10, 12)}, r"height and width >= 11.*got \(10, 12\)"),
        ({"image_shape": (144,)}, "image_shape must be"),
        ({"image_shape": (12.0, 12)}, "image_shape must be"),
        ({"image_shape": 144}, "image_shape must be"),
        ({"image_shape": (12, 12, 3)}, r"first must have shape \(n, 432\)"),
        ({"data_range": 0.0}, "data_range must be a finite number > 0, got 0.0"),
        ({"data_range": np.nan}, "data_range must be"),
        ({"first": np.full((1, 144), np.nan)}, "first must be finite"),
        ({"second": np.zeros((2, 144))}, "equally many images, got 1 and 2"),
        ({"first": np.zeros((0, 144))}, "first must have shape"),
        ({"second": "image"}, "second must be numeric"),
    ],
)
def test_bad_input_is_named(change, message):
    image = np.zeros((1, 144))
    given = {"first": image, "second": image, "image_shape": (12, 12), "data_range": 2.0}
    with pytest.raises(InputError, match=message):
        structural_similarity(**{**given, **change})
