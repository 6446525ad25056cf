"""The embedded data set: noise-free sinc curves sampled at random times."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch

from harmonicvae.datasets.bunches import TRAIN, VALIDATION, check_split, content_digest
from harmonicvae.exceptions import InputError
from harmonicvae.names import SINC

_SPLITS = {
    TRAIN: "realisations on random times",
    VALIDATION: "one realisation on uniformly spaced times",
}


def load_sinc(
    split: str = TRAIN,
    *,
    n_samples: int = 4096,
    n_points: int = 172,
    random_state: int | np.random.Generator | None = 0,
) -> Bunch:
    """Generate curves f(t) = sin(5πt) / (5πt), each as ``n_points`` pairs (f, t).

    Parameters
    ----------
    split : {"train", "validation"}, default="train"
        "train": ``n_samples`` realisations, each on its own sorted times drawn from
        U[−1, 1).  "validation": one realisation on uniformly spaced times in [−1, 1].
    n_samples : int, default=4096
        Number of training realisations, ≥ 1.
    n_points : int, default=172
        Number of times of a realisation, ≥ 2.
    random_state : int ≥ 0, Generator or None, default=0
        Seed of the times.  None gives other times, and so another scale, at every
        call; a Generator is advanced.  NumPy's global generator is not touched.

    Returns
    -------
    Bunch
        data : ndarray of float32, shape (n, 2·n_points), values in [−1, 1]
            Reshape to (n, n_points, 2): [..., 0] is f, [..., 1] is t.
        image_shape : tuple of int
            (n_points, 2).
        scaling : dict
            minimum and maximum of the unscaled f of the training split; only f is
            scaled, f_scaled = 2·(f − minimum)/(maximum − minimum) − 1.
        name, split, layout, digest, DESCR : str
            The digest is the SHA-256 of ``data``.

    Raises
    ------
    InputError
        If an argument is outside what is allowed.

    Notes
    -----
    The validation split is scaled with the training scale of the same ``n_samples``,
    ``n_points`` and ``random_state``, and is not clipped, so that the scale stays
    exactly invertible.  With the default sizes it lies within [−1, 1]; with a
    training set of a few points only, it may exceed them.  Computed in float64 and
    rounded once.  O(n_samples · n_points · log n_points), about 20 ms by default.

    References
    ----------
    Camuto & Willetts, "Variational Autoencoders: A Harmonic Perspective",
    arXiv 2105.14866.

    Examples
    --------
    >>> curves = load_sinc(n_samples=8)
    >>> curves.data.shape, curves.image_shape
    ((8, 344), (172, 2))
    >>> float(curves.data[:, ::2].min()), float(curves.data[:, ::2].max())
    (-1.0, 1.0)
    """
    check_split(split, _SPLITS)
    _check_count("n_samples", n_samples, 1)
    _check_count("n_points", n_points, 2)
    times = np.sort(_generator(random_state).uniform(-1.0, 1.0, (n_samples, n_points)), axis=1)
    values = np.sinc(5.0 * times)
    minimum, maximum = float(values.min()), float(values.max())
    if not minimum < maximum:
        raise InputError("the training curves are constant; use more points or another seed")
    if split == VALIDATION:
        times = np.linspace(-1.0, 1.0, n_points)[np.newaxis]
        values = np.sinc(5.0 * times)
    values = 2.0 * ((values - minimum) / (maximum - minimum)) - 1.0
    data = np.stack((values, times), axis=-1).reshape(len(times), -1).astype(np.float32)
    return Bunch(
        data=data,
        image_shape=(int(n_points), 2),
        layout="point, (f, t)",
        name=SINC,
        split=split,
        scaling={"minimum": minimum, "maximum": maximum},
        digest=content_digest(data),
        DESCR=f"sinc curves f(t) = sin(5πt)/(5πt), {_SPLITS[split]}; generated.",
    )


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} must be an integer >= {least}, got {value!r}")


def _generator(random_state: int | np.random.Generator | None) -> np.random.Generator:
    """Return a generator of its own for a seed, or the one that was given."""
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    is_integer = isinstance(random_state, Integral) and not isinstance(random_state, bool)
    if not is_integer or random_state < 0:
        raise InputError(
            "random_state must be an integer >= 0, a numpy.random.Generator or None, "
            f"got {random_state!r}"
        )
    return np.random.default_rng(int(random_state))
