"""Terms of the evidence lower bound as pure functions of tensors.

All take one batch, (n, m), or a stack of batches of several models, (k, n, m), each with
its own σ.  The decoder is Gaussian with unit variance, the prior N(0, I), the code
z = μ(x) + σ·ε.  Then

    ELBO(x) = −½‖x − g(z)‖² − (d/2)·log 2π − KL,
    KL = Σ ½(σ² + μ² − 1) − log σ        (nats).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import mse_loss

LOG_2PI = math.log(2 * math.pi)


def kl_divergence(
    mean: torch.Tensor,
    encoder_std: float | torch.Tensor | None,
    log_std: torch.Tensor | None = None,
) -> torch.Tensor:
    """Kullback–Leibler divergence of N(μ, σ²I) from N(0, I), per sample.

    Parameters
    ----------
    mean : Tensor of shape (n, m) or (k, n, m)
        Mean codes μ.
    encoder_std : float, Tensor of shape (k, 1) or None
        Fixed σ > 0; ignored where ``log_std`` is given.
    log_std : Tensor of the shape of ``mean`` or None
        Learned log σ(x).

    Returns
    -------
    Tensor of shape (n,) or (k, n)
        Nats, ≥ 0.

    References
    ----------
    Kingma & Welling, arXiv 1312.6114, appendix B.

    Examples
    --------
    >>> kl_divergence(torch.zeros(1, 3), 1.0).item()
    0.0
    >>> round(kl_divergence(torch.tensor([[2.0]]), 0.5).item(), 6)  # ½(¼+4−1) − log ½
    2.318147
    """
    if log_std is not None:
        per_unit = 0.5 * (torch.exp(2 * log_std) + mean * mean - 1) - log_std
        return per_unit.sum(-1)
    assert encoder_std is not None  # internal: one of the two is always given
    constant = 0.5 * (encoder_std * encoder_std - 1) - _log(encoder_std)
    return 0.5 * (mean * mean).sum(-1) + mean.shape[-1] * constant


def _log(std: float | torch.Tensor) -> Any:
    return std.log() if isinstance(std, torch.Tensor) else math.log(std)


def reproduction_kl(
    mean: torch.Tensor,
    encoder_std: float | torch.Tensor | None,
    log_std: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the reproduction's Σ σ² + μ² − log σ − ½, per sample (switch "kl_form").

    Examples
    --------
    >>> reproduction_kl(torch.zeros(1, 2), 1.0).item()
    1.0
    """
    if log_std is not None:
        return (torch.exp(2 * log_std) + mean * mean - log_std - 0.5).sum(-1)
    assert encoder_std is not None  # internal: one of the two is always given
    constant = encoder_std * encoder_std - _log(encoder_std) - 0.5
    return (mean * mean).sum(-1) + mean.shape[-1] * constant


def code_scale(encoder_std: Any, squared_std: bool) -> Any:
    """Return the factor of ε in the code: σ, or σ² by the reproduction's "squared_std".

    Examples
    --------
    >>> code_scale(0.5, False), code_scale(0.5, True)
    (0.5, 0.25)
    """
    return encoder_std**2 if squared_std else encoder_std


def draw_code(
    mean: torch.Tensor,
    encoder_std: float | torch.Tensor | None,
    log_std: torch.Tensor | None,
    noise: torch.Tensor,
    *,
    squared_std: bool = False,
) -> torch.Tensor:
    """Draw z = μ + σ·ε for given standard normal ε.

    Parameters
    ----------
    mean, noise : Tensor of shape (n, m) or (k, n, m)
        μ and ε.
    encoder_std : float, Tensor of shape (k, 1, 1) or None
        Fixed σ; ignored where ``log_std`` is given.
    log_std : Tensor of the shape of ``mean`` or None
        Learned log σ(x).
    squared_std : bool, default=False
        Reproduction's error of that name: μ + σ²·ε.

    Returns
    -------
    Tensor of the shape of ``mean``

    Examples
    --------
    >>> draw_code(torch.ones(1, 1), 0.5, None, torch.ones(1, 1)).item()
    1.5
    >>> draw_code(torch.ones(1, 1), 0.5, None, torch.ones(1, 1), squared_std=True).item()
    1.25
    """
    if log_std is not None:
        std = torch.exp(2 * log_std if squared_std else log_std)
        return mean + std * noise
    assert encoder_std is not None  # internal: one of the two is always given
    scale = code_scale(encoder_std, squared_std)
    if isinstance(scale, torch.Tensor):
        return torch.addcmul(mean, noise, scale)
    return torch.add(mean, noise, alpha=scale)


def squared_error_sum(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Σ (output − target)² over the whole batch: a scalar, or one a model of a stack.

    Examples
    --------
    >>> squared_error_sum(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item()
    4.0
    """
    if output.shape[:-2].numel() == 1:
        return mse_loss(output, target, reduction="sum").reshape(output.shape[:-2])
    return mse_loss(output, target, reduction="none").sum((-2, -1))


def gaussian_log_likelihood(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return log N(target; output, I) per sample, in nats.

    Examples
    --------
    >>> round(gaussian_log_likelihood(torch.zeros(1, 1), torch.zeros(1, 1)).item(), 6)
    -0.918939
    """
    squared_error = (output - target).square().sum(1)
    return -0.5 * squared_error - 0.5 * target.shape[1] * LOG_2PI
