"""Spectra of pictures: 20·log10 |FFT2|, and the power over radial frequency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.harmonics.arguments import check_integer, check_positive, generator_from
from harmonicvae.harmonics.power import summarised
from harmonicvae.records import Spectrum


def grey_images(samples: Any, image_shape: Sequence[int]) -> np.ndarray:
    """Return grey-scale pictures of flattened samples.

    Parameters
    ----------
    samples : array of shape (k, h · w · c)
        Channels-last pictures, finite.
    image_shape : (h, w, c)
        Shape of one sample; grey is the mean over channels.

    Returns
    -------
    float64 ndarray of shape (k, h, w)

    Raises
    ------
    InputError
        If the samples do not have this shape, it is not that of a picture, or not finite.

    Examples
    --------
    >>> grey_images([[0.0, 1.0, 2.0]], (1, 1, 3))
    array([[[1.]]])
    """
    shape = tuple(image_shape)
    if len(shape) != 3:
        raise InputError(f"a 2-D spectrum needs pictures (h, w, c), got {shape}")
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 2 or not len(array) or array.shape[1] != int(np.prod(shape)):
        raise InputError(
            f"samples must have shape (k >= 1, {int(np.prod(shape))}) for image_shape {shape}, "
            f"got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError("samples must be finite, got NaN or infinity")
    return array.reshape(len(array), *shape).mean(axis=3)


def log_spectra(samples: Any, image_shape: Sequence[int]) -> np.ndarray:
    """Return 20·log10 |FFT2| of the grey-scale pictures, frequency 0 in the middle.

    Parameters
    ----------
    samples : array of shape (k, h · w · c)
        Channels-last pictures, finite.
    image_shape : (h, w, c)
        Shape of one sample; grey is the mean over channels.

    Returns
    -------
    ndarray of shape (k, h, w)
        Decibel; amplitudes below 1e-6 are shown as −120 dB.

    Raises
    ------
    InputError
        As :func:`grey_images`.

    Notes
    -----
    The sum of squared amplitudes is h · w times that of the pixels (Parseval).

    Examples
    --------
    >>> log_spectra(np.ones((1, 4)), (2, 2, 1))[0].round(2).tolist()
    [[-120.0, -120.0], [-120.0, 12.04]]
    """
    amplitudes = np.abs(
        np.fft.fftshift(np.fft.fft2(grey_images(samples, image_shape)), axes=(1, 2))
    )
    return 20 * np.log10(np.maximum(amplitudes, 1e-6))


def radial_spectrum(
    samples: Any,
    image_shape: Sequence[int],
    *,
    remove_mean: bool = True,
    cutoff: float = 0.25,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: Any = None,
) -> Spectrum:
    """Power of grey-scale pictures over radial frequency, averaged over pictures.

    Parameters
    ----------
    samples : array of shape (k, h · w · c)
        Channels-last pictures, k ≥ 2, independent.
    image_shape : (h, w, c)
        Shape of one sample; grey is the mean over channels.
    remove_mean : bool, default=True
        Whether the mean of each picture is subtracted: no power at frequency 0.
    cutoff : float, default=0.25
        Frequency above which the share is taken, in cycles per pixel (0.5 is the finest
        along a row).
    confidence, n_resamples, random_state
        As in :func:`harmonicvae.hermite_spectrum`.

    Returns
    -------
    Spectrum
        "radial_power": power in rings of width 1/max(h, w) around each frequency j/max(h, w), in
        cycles per pixel up to the corners' √½.  ``summaries``: "power", "centroid" and
        "high_frequency_share" (of these rings).

    Raises
    ------
    InputError
        As :func:`grey_images`; if there is one picture only or an option is out of range.

    Notes
    -----
    |FFT2|²/(h·w)² summed over each ring (not averaged: the sum over rings is the mean square of
    the pixels, Parseval).  No window: pictures are taken as periodic, so that steps between
    opposite edges count as high frequencies.  Intervals: bootstrap over pictures.

    Examples
    --------
    A wave of four cycles on eight pixels, the finest there is:

    >>> stripes = np.tile([1.0, -1.0], (2, 32))
    >>> radial_spectrum(stripes, (8, 8, 1)).values.round(12)
    array([0., 0., 0., 0., 1., 0., 0.])
    """
    started = time.perf_counter()
    grey = grey_images(samples, image_shape)
    if len(grey) < 2:
        raise InputError("samples must hold at least 2 pictures, got 1")
    limit = check_positive("cutoff", cutoff)
    level = check_positive("confidence", confidence, below=1.0)
    resamples = check_integer("n_resamples", n_resamples, 100)
    size = float((grey**2).mean())
    if remove_mean:
        grey = grey - grey.mean(axis=(1, 2), keepdims=True)
    height, width = grey.shape[1:]
    squares = np.abs(np.fft.fft2(grey) / (height * width)) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    rings = np.rint(radius * max(height, width)).astype(int).ravel()
    count = int(rings.max()) + 1
    members = (rings == np.arange(count)[:, None]).astype(np.float64)
    return summarised(
        squares.reshape(len(grey), -1) @ members.T,
        np.arange(count) / max(height, width),
        limit,
        size,
        name="radial_power",
        units="pictures",
        n_samples=len(grey),
        confidence=level,
        n_resamples=resamples,
        generator=generator_from(random_state),
        details={"image_shape": list(image_shape), "remove_mean": remove_mean, "cutoff": limit},
        started=started,
    )
