"""Arrays of samples as pictures and curves, before anything is drawn."""

from collections.abc import Sequence

import numpy as np

from harmonicvae.exceptions import InputError


def is_curve(image_shape: Sequence[int]) -> bool:
    """Return True if a sample is a stack (f, t) of shape (n, 2), a curve f over t.

    Examples
    --------
    >>> is_curve((172, 2)), is_curve((32, 32, 3))
    (True, False)
    """
    return len(image_shape) == 2 and image_shape[1] == 2


def as_curves(samples: np.ndarray, image_shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return f and t of flattened (f, t) stacks.

    Parameters
    ----------
    samples : ndarray of shape (k, 2 n)
        Flattened stacks of shape (n, 2).
    image_shape : (n, 2)
        Shape of one sample.

    Returns
    -------
    f, t : ndarray of shape (k, n), float64

    Raises
    ------
    InputError
        If the samples do not have this shape.

    Examples
    --------
    >>> as_curves(np.array([[1.0, -1.0, 2.0, 0.5]]), (2, 2))[0]
    array([[1., 2.]])
    """
    stacks = _reshape(samples, image_shape)
    return stacks[:, :, 0], stacks[:, :, 1]


def as_images(samples: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Return pictures with values in [0, 1] of flattened samples in [−1, 1].

    Parameters
    ----------
    samples : ndarray of shape (k, h · w · c)
        Channels-last pictures; values outside [−1, 1] are clipped, NaN is shown grey.
    image_shape : (h, w, c)
        Shape of one sample, c = 1 or 3.

    Returns
    -------
    ndarray of shape (k, h, w, 3)

    Raises
    ------
    InputError
        If the samples do not have this shape or it is not that of a picture.

    Examples
    --------
    >>> as_images(np.array([[-1.0, 0.0, 3.0]]), (1, 1, 3)).tolist()
    [[[[0.0, 0.5, 1.0]]]]
    """
    if len(image_shape) != 3 or image_shape[2] not in (1, 3):
        raise InputError(
            f"image_shape must be (h, w, 1), (h, w, 3) or (n, 2), got {tuple(image_shape)}"
        )
    images = np.nan_to_num(_reshape(samples, image_shape), nan=0.0, posinf=1.0, neginf=-1.0)
    images = np.clip((images + 1) / 2, 0.0, 1.0)
    return np.repeat(images, 3, axis=3) if image_shape[2] == 1 else images


def tile(images: np.ndarray, columns: int, gap: int = 1, fill: float = 1.0) -> np.ndarray:
    """Return one picture with the given ones in rows of ``columns``.

    Parameters
    ----------
    images : ndarray of shape (k, h, w) or (k, h, w, c)
        Pictures of equal size, k ≥ 1.
    columns : int
        Pictures in a row, ≥ 1.
    gap : int, default=1
        Pixels between two pictures, ≥ 0.
    fill : float, default=1.0
        Value of the gaps and of empty places.

    Returns
    -------
    ndarray of shape (rows · (h + gap) − gap, columns · (w + gap) − gap[, c])

    Examples
    --------
    >>> tile(np.array([[[1.0]], [[2.0]], [[3.0]]]), columns=2, gap=0, fill=0.0).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *images.shape[3:])
    canvas = np.full(shape, fill, dtype=np.float64)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def _reshape(samples: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 2 or samples.shape[1] != int(np.prod(image_shape)) or not len(samples):
        raise InputError(
            f"samples must have shape (k >= 1, {int(np.prod(image_shape))}) for image_shape "
            f"{tuple(image_shape)}, got {samples.shape}"
        )
    return samples.reshape(len(samples), *image_shape)
