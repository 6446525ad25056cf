"""Structural similarity of two images, batched over flattened images."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from harmonicvae.exceptions import InputError

#: Standard deviation of the Gaussian window, in pixels, and the distance at which it is cut.
SIGMA, HALF_WIDTH = 1.5, 5
#: Pixels on a side of the window.
WINDOW = 2 * HALF_WIDTH + 1

_K1, _K2 = 0.01, 0.03
_VALUES_AT_ONCE = 1 << 20


def structural_similarity(
    first: Any, second: Any, image_shape: Sequence[int], data_range: float
) -> np.ndarray:
    """Mean structural similarity (SSIM) of each pair of images.

    Parameters
    ----------
    first, second : array of shape (n, d)
        Flattened images, finite, row-major with channels last.
    image_shape : (height, width, channels) or (height, width)
        Shape of one image, height and width ≥ 11; its product must be d.
    data_range : float
        Largest possible minus smallest possible pixel value, > 0, e.g. 2 for [−1, 1].

    Returns
    -------
    ndarray of shape (n,)
        No unit, in [−1, 1]; 1 for identical images.

    Raises
    ------
    InputError
        If shapes do not match, values are not finite, an image is smaller than the window,
        or ``data_range`` is not > 0.

    Notes
    -----
    Gaussian window of 11×11 pixels, σ = 1.5, normalised to sum 1; K1 = 0.01, K2 = 0.03.
    Variances and covariance are weighted by the window without a small-sample correction
    (no factor N/(N − 1)), as in the reference.  Only pixels whose window lies inside the
    image count (a border of 5 is left out), so nothing depends on padding.  Channels are
    treated apart and averaged.  Local moments are taken about the mean of both images,
    against cancellation.  Float64; cost O(n·d), memory O(10⁶ values) beside the images.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Transactions on Image Processing 13 (2004), 600–612.

    Examples
    --------
    >>> stripes = np.tile([[-1.0, 1.0]], 72)
    >>> structural_similarity(stripes, stripes, (12, 12), 2.0)
    array([1.])
    >>> structural_similarity(stripes, -stripes, (12, 12), 2.0).round(2)
    array([-1.])
    """
    shape = _checked_shape(image_shape)
    span = _checked_range(data_range)
    pair = [_images(name, given, shape) for name, given in (("first", first), ("second", second))]
    if len(pair[0]) != len(pair[1]):
        raise InputError(
            f"first and second must hold equally many images, got {len(pair[0])} and {len(pair[1])}"
        )
    block = max(1, _VALUES_AT_ONCE // int(np.prod(shape)))
    parts = [
        _similarity(pair[0][start : start + block], pair[1][start : start + block], span)
        for start in range(0, len(pair[0]), block)
    ]
    return np.concatenate(parts)


def _checked_shape(image_shape: Any) -> tuple[int, int, int]:
    """Return (height, width, channels)."""
    sizes = tuple(image_shape) if isinstance(image_shape, Sequence) else ()
    integers = all(isinstance(size, numbers.Integral) and int(size) >= 1 for size in sizes)
    if len(sizes) not in (2, 3) or not integers or any(isinstance(size, bool) for size in sizes):
        raise InputError(
            f"image_shape must be (height, width, channels) or (height, width), got {image_shape!r}"
        )
    height, width, channels = (*sizes, 1)[:3]
    if min(height, width) < WINDOW:
        raise InputError(
            f"image_shape must have height and width >= {WINDOW}, the window of SSIM, got "
            f"{(height, width)}; enlarge the images or use another metric, e.g. relative_damage"
        )
    return int(height), int(width), int(channels)


def _checked_range(data_range: Any) -> float:
    """Return the range of the pixel values."""
    number = isinstance(data_range, numbers.Real) and not isinstance(data_range, bool)
    if not number or not 0 < float(data_range) < np.inf:
        raise InputError(f"data_range must be a finite number > 0, got {data_range!r}")
    return float(data_range)


def _images(name: str, given: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Return flattened images as a float64 array of shape (n, channels, height, width)."""
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numeric, got {type(given).__name__}: {error}") from error
    width = int(np.prod(shape))
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        raise InputError(
            f"{name} must have shape (n, {width}) for image_shape {shape}, got {values.shape}; "
            "flatten the images"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return np.moveaxis(values.reshape(-1, *shape), -1, 1)


def _local_mean(values: np.ndarray) -> np.ndarray:
    """Return the window's weighted mean at every pixel whose window lies inside the image."""
    options: dict[str, Any] = {"sigma": SIGMA, "radius": HALF_WIDTH, "axes": (-2, -1)}
    inner = slice(HALF_WIDTH, -HALF_WIDTH)
    return ndimage.gaussian_filter(values, **options)[..., inner, inner]


def _similarity(first: np.ndarray, second: np.ndarray, span: float) -> np.ndarray:
    """Return mean SSIM of images of shape (n, channels, height, width)."""
    luminance, contrast = (_K1 * span) ** 2, (_K2 * span) ** 2
    means = [values.mean(axis=(-2, -1), keepdims=True) for values in (first, second)]
    centre = (means[0] + means[1]) / 2
    x, y = first - centre, second - centre
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variance_x = _local_mean(x * x) - mean_x * mean_x
    variance_y = _local_mean(y * y) - mean_y * mean_y
    covariance = _local_mean(x * y) - mean_x * mean_y
    level_x, level_y = mean_x + centre, mean_y + centre
    levels = level_x * level_x + level_y * level_y + luminance
    numerator = (2 * level_x * level_y + luminance) * (2 * covariance + contrast)
    ratio = numerator / (levels * (variance_x + variance_y + contrast))
    return np.clip(ratio, -1.0, 1.0).mean(axis=(1, 2, 3))
