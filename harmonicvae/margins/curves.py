"""Margins of many images: a table, and the share of images that reach a radius."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae.exceptions import InputError
from harmonicvae.margins.arguments import check_positive_integer, check_stds
from harmonicvae.margins.base import Margin, margin
from harmonicvae.records import Bound


def margin_frame(
    encoder_bound: float | Bound,
    decoder_bound: float | Bound,
    std: Any,
    r: Any,
    *,
    latent_dim: int,
    std_bound: float | Bound = 0.0,
    method: str = "noncentral_chi2",
) -> pd.DataFrame:
    """Margins for every row of σ(x) and every r, as a table.

    Parameters
    ----------
    encoder_bound, decoder_bound, latent_dim, std_bound, method
        As in :func:`margin`.
    std : float, array of shape (latent_dim,) or array of shape (n, latent_dim)
        Encoder standard deviation; with n rows, σ(x) of n images.
    r : float or sequence of float
        Allowed distances, in output units, ≥ 0.

    Returns
    -------
    DataFrame
        Columns image, r, method, margin (R, input units) and status, one row for each
        image and r; image is 0 throughout where ``std`` has no rows.

    Raises
    ------
    InputError
        As :func:`margin`; and if ``r`` is empty.

    Examples
    --------
    >>> frame = margin_frame(2.0, 2.0, [[0.5, 0.5], [0.1, 0.1]], [8.0], latent_dim=2,
    ...                      method="sharpened_1")
    >>> frame[["image", "margin"]].round(3)
       image  margin
    0      0   1.323
    1      1   1.411
    """
    radii = np.asarray(r, dtype=object).ravel()
    if radii.size == 0:
        raise InputError("r must hold at least one number, got an empty list")
    size = check_positive_integer("latent_dim", latent_dim)
    stds = check_stds(std, size)
    rows = stds if stds.ndim == 2 else stds[None]
    options: dict[str, Any] = {"latent_dim": size, "std_bound": std_bound, "method": method}
    table = []
    for image, row in enumerate(rows):
        for allowed in radii:
            found = margin(encoder_bound, decoder_bound, row, allowed, **options)
            table.append((image, found.r, method, found.value, found.status))
    return pd.DataFrame(table, columns=["image", "r", "method", "margin", "status"])


def share_with_margin(margins: Any, radii: Any) -> pd.DataFrame:
    """Share of images whose margin is at least R: a certified-accuracy-style curve.

    Parameters
    ----------
    margins : sequence of Margin, or array of shape (n,)
        One margin for each image, in input units, ≥ 0; ``inf`` is allowed.
    radii : float or sequence of float
        R, in input units, ≥ 0.

    Returns
    -------
    DataFrame
        Columns radius, share (in [0, 1]) and n_images, one row for each R as given.

    Raises
    ------
    InputError
        If there is no margin or no radius, or one is negative or NaN.

    Notes
    -----
    The share has the status of the weakest margin.  Cost O((n + k) log n).

    Examples
    --------
    >>> share_with_margin([0.0, 0.2, 0.4], [0.1, 0.4])
       radius     share  n_images
    0     0.1  0.666667         3
    1     0.4  0.333333         3
    """
    if isinstance(margins, Iterable):
        margins = [item.value if isinstance(item, Margin) else item for item in margins]
    arrays = {}
    for name, given in (("margins", margins), ("radii", radii)):
        try:
            values = np.atleast_1d(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} must be numbers >= 0, got {given!r}") from error
        if values.ndim != 1 or values.size == 0:
            raise InputError(f"{name} must be a non-empty list of numbers, got {values.shape}")
        if not (values >= 0).all():
            raise InputError(f"{name} must be >= 0 and not NaN, got {float(values.min())!r}")
        arrays[name] = values
    ordered = np.sort(arrays["margins"])
    count = len(ordered)
    reached = count - np.searchsorted(ordered, arrays["radii"], side="left")
    return pd.DataFrame({"radius": arrays["radii"], "share": reached / count, "n_images": count})
