"""Parameters of searches as text: for MLflow's params, run names and tables."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from harmonicvae.tracking.specs import short

#: Longest text of a parameter (MLflow's limit) and of a run's name.
MAX_VALUE, MAX_NAME = 6000, 250


def parameter_text(value: Any, limit: int = MAX_VALUE) -> str:
    """Return a parameter as one line of text, the same in every process.

    Parameters
    ----------
    value : object
        Numbers, estimators, functions, distributions of scipy.stats, containers of them.
    limit : int, default=6000
        Longer text is cut and ends in "…".

    Returns
    -------
    str

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> [parameter_text(value) for value in (None, 0.5, "relu", PCA(2), np.float64(1), len)]
    ['None', '0.5', 'relu', 'PCA(n_components=2)', '1.0', 'len']
    >>> from scipy.stats import loguniform
    >>> parameter_text({"encoder_std": loguniform(0.1, 1)})
    '{encoder_std: loguniform(0.1, 1)}'
    """
    text = _text(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(_text, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, functools.partial):
        given = [*map(_text, value.args), *(f"{k}={_text(v)}" for k, v in value.keywords.items())]
        return f"{_text(value.func)}({', '.join(given)})"
    if inspect.isroutine(value) or inspect.isclass(value):
        return str(value.__qualname__)
    if hasattr(value, "dist") and hasattr(value, "kwds"):  # scipy.stats, frozen
        given = [*map(_text, value.args), *(f"{k}={_text(v)}" for k, v in value.kwds.items())]
        return f"{value.dist.name}({', '.join(given)})"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))


def legal_name(name: str) -> str:
    """Return the name of a param or metric in letters, and of a length, that MLflow takes.

    Examples
    --------
    >>> legal_name("mean_test_r2@valid")
    'mean_test_r2_valid'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)[:MAX_NAME]


def run_name(params: Mapping[str, Any]) -> str:
    """Return a readable name of a candidate; names of steps are left out where none is needed.

    Parameters
    ----------
    params : mapping
        Parameters of the candidate.

    Returns
    -------
    str

    Examples
    --------
    >>> run_name({"harmonicvae__encoder_std": 0.5, "harmonicvae__input_noise_std": 0.0})
    'encoder_std=0.5, input_noise_std=0'
    >>> run_name({"first__lr": 0.1, "second__lr": 1e-3})
    'first__lr=0.1, second__lr=0.001'
    """
    last = [name.rpartition("__")[2] for name in params]
    shown = dict(zip(params, last if len(set(last)) == len(last) else params))
    parts = [f"{shown[name]}={_short(value)}" for name, value in params.items()]
    return parameter_text(", ".join(parts) or "default parameters", MAX_NAME)


def _short(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return short(float(value))
    return parameter_text(value)
