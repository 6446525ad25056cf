"""Checks of the samples and codes given to the estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data

from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import InputError


def check_rows(
    estimator: Any, X: Any, *, reset: bool, dtype: Any = np.float32
) -> np.ndarray | ScaledImages:
    """Return samples as rows of floats; 8-bit images stay as they are.

    Parameters
    ----------
    estimator : HarmonicVAE
        Whose number and names of features are set (``reset``) or compared with.
    X : array-like of shape (n, d) or ScaledImages
    reset : bool
        Whether this is a fit.
    dtype : dtype or tuple of dtypes, default=float32
        What is kept as it is; the first one is made of anything else.

    Returns
    -------
    ndarray of shape (n, d) or ScaledImages

    Raises
    ------
    InputError
        If X is empty, not finite, not two-dimensional or of another width.
    """
    if isinstance(X, ScaledImages):
        return _check_images(estimator, X, reset=reset)
    try:
        X = _without_torch(X)
        return validate_data(estimator, X, reset=reset, dtype=dtype, order="C")
    except ValueError as error:
        raise InputError(str(error)) from error


def _without_torch(X: Any) -> Any:
    """Return a tensor as an array, of whose type scikit-learn knows."""
    return X.detach().cpu().numpy() if isinstance(X, torch.Tensor) else X


def _check_images(estimator: Any, X: ScaledImages, *, reset: bool) -> ScaledImages:
    """Do for images what scikit-learn's validate_data does, without copying them."""
    if X.shape[0] == 0:
        raise InputError("Found array with 0 sample(s) while a minimum of 1 is required.")
    if reset:
        estimator.n_features_in_ = X.shape[1]
        estimator.__dict__.pop("feature_names_in_", None)
    elif X.shape[1] != estimator.n_features_in_:
        raise InputError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return X


def check_codes(Z: Any, latent_dim: int) -> np.ndarray:
    """Return codes as rows of floats.

    Parameters
    ----------
    Z : array-like of shape (n, latent_dim)
    latent_dim : int
        Columns expected.

    Returns
    -------
    ndarray of shape (n, latent_dim), float32 or float64

    Raises
    ------
    InputError
        If Z is not finite, not two-dimensional or of another width.
    """
    try:
        codes = check_array(_without_torch(Z), dtype=(np.float64, np.float32), input_name="codes")
    except ValueError as error:
        raise InputError(str(error)) from error
    if codes.shape[1] != latent_dim:
        raise InputError(f"codes have {codes.shape[1]} columns, but latent_dim is {latent_dim}")
    return codes
