"""The steps of a fit: seeded generators, held-out rows, the net, the history."""

from __future__ import annotations

import contextlib
import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from harmonicvae import names
from harmonicvae.exceptions import CollapseWarning, InputError
from harmonicvae.models import parameters as checks
from harmonicvae.models.checkpoints import content_digest
from harmonicvae.models.loss import StudyLoss
from harmonicvae.models.modules import GaussianVAE
from harmonicvae.models.net import CheckpointWriter, VAENet, copy_callbacks, history_row
from harmonicvae.models.plain import to_plain
from harmonicvae.records import CollapseDiagnostic
from harmonicvae.reproduction import TRAINING_ERRORS, check_reproduction_errors

#: Parameters that may differ when training is resumed.
_FREE_PARAMETERS = frozenset(
    {
        "callbacks",
        "checkpoint_every",
        "checkpoint_path",
        "device",
        "elbo_samples",
        "max_epochs",
        "random_state",
        "verbose",
    }
)


@contextlib.contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of ``device``, and put them back after.

    Parameters
    ----------
    seed : int in [0, 2**64)
    device : torch.device
        Of all GPUs only this one's generator is seeded, and none for "cpu".
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def hold_out(X: Any, fraction: float, seed: int) -> tuple[Any, Any]:
    """Split rows at random into training and held-out ones.

    Parameters
    ----------
    X : ndarray of shape (n, d) or ScaledImages
    fraction : float in [0, 1)
        Share held out, rounded to rows but at least one; 0 holds nothing out.
    seed : int
        Seed of the estimator.

    Returns
    -------
    train, held_out : array-like
        In the order of X; ``held_out`` is None for fraction 0.

    Raises
    ------
    InputError
        If no training row is left.
    """
    if fraction == 0:
        return X, None
    held_out = max(1, round(fraction * X.shape[0]))
    if held_out >= X.shape[0]:
        raise InputError(
            f"validation_fraction={fraction!r} leaves no training sample of {X.shape[0]}; "
            "give more samples or a smaller fraction"
        )
    order = torch.randperm(X.shape[0], generator=checks.generator(seed, "split")).numpy()
    return X[np.sort(order[held_out:])], X[np.sort(order[:held_out])]


def resume_context(params: Mapping[str, Any], X: Any, seed: int) -> dict[str, Any]:
    """Return what must be equal for a resumed fit to mean the same.

    Parameters
    ----------
    params : mapping
        Parameters of the estimator.
    X : ndarray or ScaledImages
        Training rows.
    seed : int
        Seed in use.

    Returns
    -------
    dict
        Plain values only: ``parameters``, ``random_state`` (None unless an integer),
        ``seed`` and ``data``, a digest.
    """
    kept = {key: value for key, value in params.items() if key not in _FREE_PARAMETERS}
    kept["hidden_dims"] = checks.check_hidden_dims(kept["hidden_dims"])
    kept["reproduction_errors"] = sorted(kept["reproduction_errors"] or ())
    state = params["random_state"]
    return {
        "parameters": to_plain(kept),
        "random_state": int(state) if isinstance(state, numbers.Integral) else None,
        "seed": seed,
        "data": content_digest(X),
    }


def build_net(
    params: Mapping[str, Any],
    *,
    module: type[GaussianVAE],
    module_options: Mapping[str, Any],
    seed: int,
    device: torch.device,
    context: dict[str, Any] | None,
) -> VAENet:
    """Return an initialised net, drawn from torch's global generator.

    Parameters
    ----------
    params : mapping
        Checked parameters of the estimator.
    module : type
        Class of the network.
    module_options : mapping
        Its arguments but ``learned_std``.
    seed : int
        Seed of batch order and noise.
    device : torch.device
        Where the net lives.
    context : dict or None
        From :func:`resume_context`, for checkpoints; None writes none.

    Returns
    -------
    VAENet
    """
    switches = check_reproduction_errors(params["reproduction_errors"], TRAINING_ERRORS)
    std = checks.check_encoder_std(params["encoder_std"])
    net = VAENet(
        module,
        **{f"module__{key}": value for key, value in module_options.items()},
        module__learned_std=std is None,
        criterion=StudyLoss,
        criterion__encoder_std=std,
        criterion__input_noise_std=float(params["input_noise_std"]),
        criterion__noisy_target=params["reconstruction_target"] == "noisy"
        or "noisy_target" in switches,
        criterion__kl_weight=float(params["kl_weight"]),
        criterion__switches=switches,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=float(params["lr"]),
        batch_size=params["batch_size"],
        callbacks=_callbacks(params, context),
        device=str(device),
        verbose=params["verbose"],
        train_split=None,
    )
    net.order_generator_ = checks.generator(seed, "order")
    net.noise_generator_ = checks.generator(seed, "noise", device)
    net.validation_seed_ = checks.derived_seed(seed, "validation")
    return net.initialize()


def _callbacks(params: Mapping[str, Any], context: dict[str, Any] | None) -> list[Any]:
    """Return copies of the callbacks, the checkpoint's writer last."""
    copies = copy_callbacks(params["callbacks"])
    if params["checkpoint_path"] is not None and context is not None:
        path = checks.check_writable_file("checkpoint_path", params["checkpoint_path"])
        copies.append(CheckpointWriter(path, params["checkpoint_every"], context))
    return copies


def history_frame(epochs: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the figures of all epochs; a column that some epoch has is kept.

    Parameters
    ----------
    epochs : iterable of mappings
        Rows of a skorch history or of a stored ``history_``.

    Returns
    -------
    DataFrame
        Columns in the order of :data:`harmonicvae.names.HISTORY_COLUMNS`; all of them
        where there is no epoch.

    Examples
    --------
    >>> list(history_frame([{"epoch": 1, "valid_loss": 2.0}, {"epoch": 2}]))
    ['epoch', 'valid_loss']
    """
    rows = [history_row(epoch) for epoch in epochs]
    columns = [key for key in names.HISTORY_COLUMNS if not rows or any(key in row for row in rows)]
    return pd.DataFrame(rows, columns=columns)


def warn_of_collapse(collapse: CollapseDiagnostic) -> None:
    """Warn, at the caller's caller, if a decoder ignores its code.

    Parameters
    ----------
    collapse : CollapseDiagnostic
    """
    if not collapse.collapsed:
        return
    warnings.warn(
        f"the decoder ignores its code: {collapse.active_units} of "
        f"{collapse.latent_dim} latent units active, decodings show "
        f"{collapse.decoding_variance_ratio:.2%} of the "
        "data's variance; train longer, try another random_state, a smaller "
        "encoder_std or fewer hidden layers",
        CollapseWarning,
        stacklevel=3,
    )
