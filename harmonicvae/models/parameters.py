"""Checks of the estimator's parameters and the seeds derived from ``random_state``."""

from __future__ import annotations

import math
import numbers
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harmonicvae.exceptions import InputError
from harmonicvae.models.modules import ACTIVATIONS
from harmonicvae.reproduction import TRAINING_ERRORS, check_reproduction_errors

SEED_LIMIT = 2**64
#: Integer parameters and their least values.
_INTEGERS = {
    "latent_dim": 1,
    "max_epochs": 0,
    "batch_size": 1,
    "elbo_samples": 1,
}


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` as int, refusing anything but an integer ≥ ``minimum``.

    Examples
    --------
    >>> check_integer("latent_dim", 2, 1)
    2
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise InputError(f"{name} must be an integer >= {minimum}, got {value!r}")
    return int(value)


def check_real(name: str, value: Any, minimum: float, *, open_interval: bool = False) -> float:
    """Return ``value`` as float, refusing anything but a finite number ≥ (or >) ``minimum``.

    Examples
    --------
    >>> check_real("lr", 0.5, 0, open_interval=True)
    0.5
    """
    sign = ">" if open_interval else ">="
    valid = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not valid or not math.isfinite(value) or value < minimum:
        raise InputError(f"{name} must be a finite number {sign} {minimum:g}, got {value!r}")
    if open_interval and value == minimum:
        raise InputError(f"{name} must be a finite number {sign} {minimum:g}, got {value!r}")
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Examples
    --------
    >>> check_choice("reconstruction_target", "clean", ("clean", "noisy"))
    'clean'
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {list(choices)}, got {value!r}")
    return value


def check_encoder_std(value: Any) -> float | None:
    """Return σ_enc as a float, or None for "learned".

    Examples
    --------
    >>> check_encoder_std("learned") is None
    True
    """
    if isinstance(value, str):
        if value == "learned":
            return None
        raise InputError(f"encoder_std must be > 0 or 'learned', got {value!r}")
    try:
        return check_real("encoder_std", value, 0, open_interval=True)
    except InputError:
        raise InputError(f"encoder_std must be > 0 or 'learned', got {value!r}") from None


def check_hidden_dims(value: Any) -> list[int]:
    """Return the hidden widths as a list of integers ≥ 1; may be empty.

    Examples
    --------
    >>> check_hidden_dims((256, 256))
    [256, 256]
    """
    return check_widths("hidden_dims", value)


def check_widths(name: str, value: Any) -> list[int]:
    """Return a sequence of integers ≥ 1 as a list; may be empty.

    Examples
    --------
    >>> check_widths("channels", (8, 16))
    [8, 16]
    """
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise InputError(f"{name} must be a sequence of integers >= 1, got {value!r}")
    return [check_integer(name, width, 1) for width in value]


def check_activation(value: Any) -> str:
    """Return the name of a known activation.

    Examples
    --------
    >>> check_activation("sigmoid")
    'sigmoid'
    """
    return check_choice("activation", value, tuple(sorted(ACTIVATIONS)))


def check_writable_file(name: str, value: Any) -> str:
    """Return the path of a file that can be written; its folder is made.

    Checked before training starts: a write that fails after hours would lose them.

    Examples
    --------
    >>> check_writable_file("checkpoint_path", "run.pt")
    'run.pt'
    """
    try:
        path = Path(value)
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} must be a file that can be written, got {value!r}: {error}"
        ) from (error)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{name} must be a file that can be written, got {value!r}")
    return str(path)


def check_device(value: Any) -> torch.device:
    """Return the torch device; "auto" is a CUDA GPU where there is one, else the CPU.

    Examples
    --------
    >>> check_device("cpu")
    device(type='cpu')
    """
    if isinstance(value, str) and value == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    allowed = f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {value!r}"
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise InputError(allowed) from error
    if device.type not in ("cpu", "cuda"):  # results are computed in float64: mps has none
        raise InputError(allowed)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {value!r} asked for, but torch sees no CUDA GPU; try 'auto'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"device {value!r} asked for, but there are {count} GPUs; try 'auto'")
    return device


def check_fraction(value: Any) -> float:
    """Return ``validation_fraction`` as a float in [0, 1).

    Examples
    --------
    >>> check_fraction(0.5)
    0.5
    """
    if not 0 <= check_real("validation_fraction", value, 0) < 1:
        raise InputError(f"validation_fraction must be in [0, 1), got {value!r}")
    return float(value)


def check_parameters(params: Mapping[str, Any]) -> None:
    """Refuse parameters of the estimator out of range.

    Parameters
    ----------
    params : mapping
        ``get_params(deep=False)`` of the estimator.

    Raises
    ------
    InputError
        That names the first bad one.
    """
    for name, minimum in _INTEGERS.items():
        check_integer(name, params[name], minimum)
    if params["checkpoint_every"] != "auto":
        _check_checkpoint_every(params["checkpoint_every"])
    for name in ("lr", "kl_weight"):
        check_real(name, params[name], 0, open_interval=True)
    check_real("input_noise_std", params["input_noise_std"], 0)
    check_hidden_dims(params["hidden_dims"])
    check_activation(params["activation"])
    check_encoder_std(params["encoder_std"])
    check_choice("reconstruction_target", params["reconstruction_target"], ("clean", "noisy"))
    check_fraction(params["validation_fraction"])
    check_reproduction_errors(params["reproduction_errors"], TRAINING_ERRORS)


def _check_checkpoint_every(value: Any) -> None:
    try:
        check_integer("checkpoint_every", value, 1)
    except InputError as error:
        raise InputError(
            f"checkpoint_every must be an integer >= 1 or 'auto', got {value!r}"
        ) from error


def resolve_seed(random_state: Any) -> int:
    """Return a seed in [0, 2⁶⁴) for a scikit-learn style ``random_state``.

    Parameters
    ----------
    random_state : None, int in [0, 2**64), numpy RandomState or Generator
        None asks the operating system, so NumPy's global generator stays untouched.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If the value is of another type or out of range.

    Examples
    --------
    >>> resolve_seed(14609714069366804553)
    14609714069366804553
    """
    if random_state is None:
        return secrets.randbits(64)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, 2**63 - 1, dtype=np.int64))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(0, 2**63 - 1))
    is_integer = isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool)
    if not is_integer or not 0 <= random_state < SEED_LIMIT:
        raise InputError(
            "random_state must be None, an integer in [0, 2**64), a numpy RandomState or "
            f"Generator, got {random_state!r}"
        )
    return int(random_state)


def derived_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose, independent of those of other purposes.

    Parameters
    ----------
    seed : int in [0, 2**64)
        Seed of the whole estimator.
    purpose : str
        What the numbers are for; each purpose has its own stream.

    Returns
    -------
    int in [0, 2**63)
    """
    entropy = [seed, *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator of its own for one purpose."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose))
