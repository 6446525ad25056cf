"""How far a positive definite matrix may move in a direction, by the Lanczos method."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: Operators of no more rows are formed and diagonalised.
_DENSE = 160
#: Products before convergence is believed, less one.
_FEWEST = 7


def longest_step(
    product: Callable[[Tensor], Tensor],
    size: int,
    device: torch.device,
    accuracy: float = 0.05,
    max_iterations: int = 40,
) -> float:
    """Estimate the longest step α with I + αD ⪰ 0 for a symmetric operator D.

    Parameters
    ----------
    product : callable
        Maps a Tensor of shape (size, k) to D times it.
    size : int
        Rows of D.
    device : torch.device
        Where the vectors live.
    accuracy : float, default=0.05
        Residual, relative to the eigenvalue or to ½, at which to stop; > 0.
    max_iterations : int, default=40
        Products at most.

    Returns
    -------
    float
        1 / max(0, −λ), λ a lower estimate of the smallest eigenvalue: Ritz value minus
        residual norm; ``inf`` if that is ≥ 0. An estimate: the caller checks feasibility.

    Notes
    -----
    Lanczos with full reorthogonalisation; small operators are diagonalised.

    Examples
    --------
    >>> scale = torch.tensor([[-2.0], [1.0], [3.0]], dtype=torch.float64)
    >>> round(longest_step(lambda v: scale * v, 3, torch.device("cpu")), 9)
    0.5
    """
    if size <= _DENSE:
        dense = product(torch.eye(size, dtype=torch.float64, device=device))
        lowest = float(torch.linalg.eigvalsh(0.5 * (dense + dense.T))[0])
        return math.inf if lowest >= 0 else -1.0 / lowest
    start = np.random.default_rng(size).standard_normal((size, 1))
    vector = torch.as_tensor(start / np.linalg.norm(start), device=device)
    basis = vector.new_empty(size, max_iterations)
    diagonal: list[float] = []
    beside: list[float] = []
    lowest = -math.inf
    for k in range(min(max_iterations, size)):
        basis[:, k : k + 1] = vector
        image = product(vector)
        diagonal.append(float(torch.sum(vector * image)))
        kept = basis[:, : k + 1]
        image = image - kept @ (kept.T @ image)
        image = image - kept @ (kept.T @ image)
        residual = float(torch.linalg.norm(image))
        values, vectors = np.linalg.eigh(
            np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        )
        error = abs(residual * vectors[-1, 0])
        lowest = values[0] - error
        if not math.isfinite(lowest) or residual <= 1e-12 * max(1.0, abs(values[0])):
            break
        if k >= (_FEWEST if accuracy < 0.1 else 3) and error <= accuracy * max(0.5, abs(values[0])):
            break
        beside.append(residual)
        vector = image / residual
    return math.inf if lowest >= 0 else 1.0 / -float(lowest) if lowest < 0 else 0.0
