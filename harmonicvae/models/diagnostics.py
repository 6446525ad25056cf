"""Collapse: whether the decoder of a trained model still listens to its code."""

from __future__ import annotations

import numpy as np
import torch

from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.records import CollapseDiagnostic

#: Variance of a mean code over the data above which a unit counts as active.
ACTIVE_VARIANCE = 0.01
#: Rows looked at: evenly spaced ones of a larger data set.
MAX_ROWS = 4096


def diagnose_collapse(
    encoder: torch.nn.Module, decoder: torch.nn.Module, X: np.ndarray | ScaledImages
) -> CollapseDiagnostic:
    """Measure active latent units and the variance of decoded means over the data.

    Parameters
    ----------
    encoder, decoder : torch.nn.Module
        x ↦ mean code and code ↦ mean reconstruction, in eval mode.
    X : array-like of shape (n, d), float32
        Samples; of more than 4,096 rows evenly spaced ones are used.

    Returns
    -------
    CollapseDiagnostic

    Notes
    -----
    Cost O(min(n, 4096) · parameters).  Variances are over rows (divided by n),
    accumulated in float64.

    References
    ----------
    Burda, Grosse & Salakhutdinov, arXiv 1509.00519, section 5.2 (active units).
    """
    count = X.shape[0]
    rows = np.unique(np.linspace(0, count - 1, min(count, MAX_ROWS)).astype(np.int64))
    device = next(decoder.parameters()).device
    codes, decodings, inputs = _Moments(), _Moments(), _Moments()
    with torch.no_grad():
        for start in range(0, len(rows), 512):
            x = torch.as_tensor(np.asarray(X[rows[start : start + 512]])).to(device)
            code = encoder(x)
            codes.add(code)
            decodings.add(decoder(code))
            inputs.add(x)
    return CollapseDiagnostic(
        active_units=int((codes.variance() > ACTIVE_VARIANCE).sum()),
        latent_dim=len(codes.variance()),
        decoding_variance=float(decodings.variance().sum()),
        data_variance=float(inputs.variance().sum()),
    )


class _Moments:
    """Mean and variance per column over chunks of rows (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: torch.Tensor | float = 0.0
        self.squares: torch.Tensor | float = 0.0

    def add(self, rows: torch.Tensor) -> None:
        rows = rows.to(torch.float64)
        count, mean = rows.shape[0], rows.mean(0)
        delta, total = mean - self.mean, self.count + count
        self.squares = (
            self.squares + (rows - mean).square().sum(0) + delta**2 * (self.count * count / total)
        )
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def variance(self) -> np.ndarray:
        squares = self.squares
        assert isinstance(squares, torch.Tensor)
        return (squares / self.count).cpu().numpy()
