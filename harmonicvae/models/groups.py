"""Which models can be trained together, in stacks of which size, and where that pays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from harmonicvae.models import parameters as checks
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.net import EpochHook
from harmonicvae.reproduction import TRAINING_ERRORS, check_reproduction_errors

#: Bytes of one float32 buffer of a stack on the CPU, (models, batch, widest layer).
CPU_BUFFER_BYTES = 2**22
#: Share of a GPU's memory that a stack's parameters and buffers may take.
GPU_MEMORY_SHARE = 0.5
#: Buffers of a batch's size that a step needs at once: rows, noisy rows, output, gradients.
_BATCH_BUFFERS = 8
#: Parameter-sized tensors a model: weights, gradients, two moments.
_PARAMETER_COPIES = 4


def can_train_together(first: Any, second: Any) -> bool:
    """Tell whether two estimators can be trained as slices of one stack.

    Parameters
    ----------
    first, second : HarmonicVAE or mapping
        Estimators, or their parameters (those left out have their defaults).

    Returns
    -------
    bool
        True if they have the same shapes, activation, batch_size, lr, max_epochs and
        device, both a fixed or both a learned spread, validation_fraction 0, no
        checkpoint_path and no callbacks but :class:`~harmonicvae.models.EpochHook`.
        What else differs (σ_enc, σ_N, kl_weight, target, switches, seed) may differ.

    Raises
    ------
    InputError
        If a parameter is not valid.

    Examples
    --------
    >>> can_train_together(HarmonicVAE(encoder_std=0.1), HarmonicVAE(input_noise_std=1.0))
    True
    >>> can_train_together({"lr": 0.1}, {"lr": 0.2})
    False
    """
    keys = _stack_key(first), _stack_key(second)
    return keys[0] is not None and keys[0] == keys[1]


def together_groups(estimators: Sequence[Any]) -> list[list[int]]:
    """Partition estimators into groups that can each be trained together.

    Parameters
    ----------
    estimators : sequence of HarmonicVAE or of mappings
        As for :func:`can_train_together`.

    Returns
    -------
    list of list of int
        Positions, every one once, in the order of each group's first.  An estimator that
        cannot be stacked at all (a subclass, own callbacks, held-out rows, a
        checkpoint_path) is alone; so may be one that merely has no partner.

    Raises
    ------
    InputError
        If a parameter is not valid.

    Examples
    --------
    >>> together_groups([{"encoder_std": 0.1}, {"latent_dim": 3}, {"encoder_std": 1.0}])
    [[0, 2], [1]]
    """
    groups: dict[Hashable, list[int]] = {}
    for index, estimator in enumerate(estimators):
        key = _stack_key(estimator)
        groups.setdefault(("alone", index) if key is None else key, []).append(index)
    return list(groups.values())


def is_stackable(estimator: Any) -> bool:
    """Tell whether an estimator can be part of a stack at all.

    Examples
    --------
    >>> is_stackable(HarmonicVAE()), is_stackable(HarmonicVAE(validation_fraction=0.1))
    (True, False)
    """
    return _stack_key(estimator) is not None


def _stack_key(estimator: Any) -> tuple[Any, ...] | None:
    """Return what must be equal in a stack; None for what cannot be stacked."""
    if isinstance(estimator, Mapping):
        params = HarmonicVAE().get_params(deep=False) | dict(estimator)
    else:
        params = estimator.get_params(deep=False)
        if type(estimator) is not HarmonicVAE:  # a subclass may train in its own way
            return None
    checks.check_parameters(params)
    hooks = params["callbacks"] or []
    only_hooks = isinstance(hooks, (list, tuple)) and all(type(item) is EpochHook for item in hooks)
    if params["validation_fraction"] or params["checkpoint_path"] is not None or not only_hooks:
        return None
    switches = check_reproduction_errors(params["reproduction_errors"], TRAINING_ERRORS)
    learned = checks.check_encoder_std(params["encoder_std"]) is None
    return (
        int(params["latent_dim"]),
        tuple(checks.check_hidden_dims(params["hidden_dims"])),
        params["activation"],
        learned,
        switches & {"squared_std", "kl_form"} if learned else frozenset(),
        int(params["batch_size"]),
        float(params["lr"]),
        int(params["max_epochs"]),
        str(checks.check_device(params["device"])),
    )


def stack_size(
    n_models: int,
    n_features: int,
    *,
    latent_dim: int = 64,
    hidden_dims: Sequence[int] = (256, 256, 256),
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> int:
    """Return how many models of a group one stack should hold.

    Parameters
    ----------
    n_models : int ≥ 1
        Models of the group.
    n_features : int ≥ 1
        Features d.
    latent_dim, hidden_dims, batch_size
        As of the estimators.
    device : str or torch.device, default="cpu"
        "auto", "cpu", "cuda" or "cuda:N".

    Returns
    -------
    int
        From 1 to ``n_models``, so that the stacks of a group differ by at most one model.

    Notes
    -----
    On a GPU all models, as far as weights, moments and batches take at most half of its
    memory.  On the CPU as many as keep a buffer (models, batch, widest layer) within 4 MiB:
    beyond that activations leave the cache between two operations, and a stack is slower
    than one model after another (benchmarks/together.py measures it).

    Examples
    --------
    >>> stack_size(18, 344, latent_dim=1), stack_size(18, 3072)
    (9, 1)
    """
    widest = max([n_features, latent_dim, *hidden_dims])
    buffer = 4 * batch_size * widest
    place = checks.check_device(device)
    if place.type == "cpu":
        most = CPU_BUFFER_BYTES // buffer
    else:
        widths = [n_features, *hidden_dims, latent_dim]
        weights = 2 * sum(a * b for a, b in pairwise(widths))
        share = GPU_MEMORY_SHARE * torch.cuda.get_device_properties(place).total_memory
        most = int(share // (4 * _PARAMETER_COPIES * weights + _BATCH_BUFFERS * buffer))
    stacks = -(-n_models // min(n_models, max(1, most)))
    return -(-n_models // stacks)


def pays_together(
    n_models: int,
    n_features: int,
    *,
    latent_dim: int = 64,
    hidden_dims: Sequence[int] = (256, 256, 256),
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> bool:
    """Tell whether training a group together is faster than one model after another.

    Parameters
    ----------
    n_models, n_features, latent_dim, hidden_dims, batch_size, device
        As for :func:`stack_size`.

    Returns
    -------
    bool
        True on a GPU if a stack would hold at least two models; False on the CPU.

    Notes
    -----
    On the CPU by measurement (results/benchmarks/together.json): one model after another
    takes 0.99 to 1.01 times as long as stacks of small models, so that nothing is gained, and
    one model of CIFAR10's size fills the cache by itself. On a GPU single training should be
    bound by the start of kernels, not by arithmetic: there the answer is a prediction, not a
    measurement.

    Examples
    --------
    >>> pays_together(18, 344, latent_dim=1), pays_together(18, 3072, device="cpu")
    (False, False)
    """
    if checks.check_device(device).type == "cpu":
        return False
    size = stack_size(
        n_models,
        n_features,
        latent_dim=latent_dim,
        hidden_dims=hidden_dims,
        batch_size=batch_size,
        device=device,
    )
    return size > 1
