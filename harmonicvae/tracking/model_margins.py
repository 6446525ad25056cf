"""Margins of one trained model: certified, estimated and simulated, image by image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import bound
from harmonicvae.margins import MARGINS, first_order_margin, margin, robustness_probability
from harmonicvae.models.modules import LOG_STD_RANGE
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import AttackResult, Bound

#: Level of the Clopper–Pearson intervals.
_CONFIDENCE = 0.999


class ModelMargins:
    """Radii within which a model's reconstructions stay within r, and simulations of it.

    Parameters
    ----------
    estimator : HarmonicVAE
        Trained.
    bounds : (Bound, Bound)
        Upper bounds of the Lipschitz constants of encoder mean and decoder.
    encoder : LayeredNetwork
        The encoder mean.
    options : dict
        ``relative_r``, ``n_samples`` and ``random_state`` of the evaluator.
    """

    def __init__(
        self,
        estimator: Any,
        bounds: tuple[Bound, Bound],
        encoder: LayeredNetwork,
        options: dict[str, Any],
    ) -> None:
        self._estimator = estimator
        self._bounds = bounds
        self._encoder = encoder
        self._shares = _checked_shares(options["relative_r"])
        self._samples = options["n_samples"]
        self._seed = options["random_state"]
        self._spread = estimator.encoder_spread_
        self._growth: Any = 0.0 if isinstance(self._spread, float) else _spread_bound(estimator)

    def frame(self, x: np.ndarray, images: np.ndarray, results: list[AttackResult]) -> pd.DataFrame:
        """Return one row an image and relative r.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Clean inputs.
        images : ndarray of shape (n,)
            Their numbers.
        results : list of AttackResult
            Strongest attack at each radius: where the robustness is simulated.

        Returns
        -------
        DataFrame
            image, relative_r, r, margin_{method} of every method that applies, status (of
            these), certified_margin (the largest of them if certified, else 0),
            first_order_margin (an estimate, from the lower confidence limit of the simulated
            probability at δ = 0), and robustness_probability_r{C}, _lower and _upper at the
            perturbations found for radius C; r and C in output and input units.
        """
        sizes = np.linalg.norm(results[0].decoding, axis=1)
        stds = self._stds(x)
        slopes = [float(np.linalg.norm(self._encoder.jacobian(row))) for row in x]
        rows: list[dict[str, Any]] = []
        for share in self._shares:
            r = share * sizes
            columns = self._simulated_columns(x, r, results)
            still = self._simulated(x, np.zeros_like(x), r).lower
            for i, image in enumerate(images):
                row = {names.IMAGE: int(image), names.RELATIVE_R: share, "r": float(r[i])}
                row |= self._margins(stds[i], float(r[i]))
                row[names.FIRST_ORDER_MARGIN] = first_order_margin(
                    stds[i],
                    slopes[i],
                    float(still[i]),
                    float(r[i]),
                    latent_dim=self._estimator.latent_dim,
                ).value
                rows.append(row | {name: float(values[i]) for name, values in columns.items()})
        return pd.DataFrame(rows, columns=None if rows else [names.IMAGE, names.RELATIVE_R, "r"])

    def _margins(self, std: Any, r: float) -> dict[str, Any]:
        """Return the margins of one image by every method that applies, and what they are."""
        found = {name: self._margin(name, std, r) for name in MARGINS}
        known = {name: item for name, item in found.items() if item is not None}
        statuses = {item.status for item in known.values()}
        certified = [item.value for item in known.values() if item.status == "certified"]
        row: dict[str, Any] = {f"margin_{name}": item.value for name, item in known.items()}
        row["status"] = statuses.pop() if len(statuses) == 1 else "mixed"
        row[names.CERTIFIED_MARGIN] = max(certified, default=0.0)
        return row

    def _simulated_columns(
        self, x: np.ndarray, r: np.ndarray, results: list[AttackResult]
    ) -> dict[str, np.ndarray]:
        """Return the simulated robustness at the perturbations of every radius."""
        columns = {}
        for result in results:
            moved = self._simulated(x, result.perturbation, r)
            name = names.robustness_column(result.radius)
            columns[name] = moved.probability
            columns[f"{name}_lower"], columns[f"{name}_upper"] = moved.lower, moved.upper
        return columns

    def _margin(self, method: str, std: Any, r: float) -> Any:
        """Return a margin, or None where the method needs a fixed spread and there is none."""
        encoder, decoder = self._bounds
        try:
            return margin(
                encoder,
                decoder,
                std,
                r,
                latent_dim=self._estimator.latent_dim,
                std_bound=self._growth,
                method=method,
            )
        except InputError:
            if isinstance(std, float):
                raise
            return None

    def _simulated(self, x: np.ndarray, delta: np.ndarray, r: np.ndarray) -> Any:
        """Return the simulated probability of staying within r."""
        return robustness_probability(
            self._estimator.encoder_,
            self._estimator.decoder_,
            self._spread,
            x,
            delta,
            r,
            self._samples,
            _CONFIDENCE,
            self._seed,
        )

    def _stds(self, x: np.ndarray) -> list[Any]:
        """Return σ at every input: a number where it is fixed, else one for each code unit."""
        if isinstance(self._spread, float):
            return [self._spread] * len(x)
        with torch.no_grad():
            first = next(self._spread.parameters())
            return list(self._spread(torch.as_tensor(x).to(first)).double().cpu().numpy())


def _checked_shares(values: Any) -> list[float]:
    """Return the relative r as floats."""
    try:
        shares = [float(value) for value in np.atleast_1d(np.asarray(values, dtype=np.float64))]
    except (TypeError, ValueError):
        raise InputError(f"relative_r must be numbers > 0, got {values!r}") from None
    for share in shares:
        if not 0 < share < math.inf:
            raise InputError(f"relative_r must be finite and > 0, got {share!r}")
    return shares


def _spread_bound(estimator: Any) -> Bound:
    """Return an upper bound of Lip(σ) of a learned spread: σ = exp(clipped log σ).

    exp has the slope of its largest value on the clipped range; the bound is rounded upwards.
    """
    module = estimator.net_.module_
    network = LayeredNetwork.from_module(torch.nn.Sequential(*module.encoder[:-1], module.log_std))
    inner = bound(network)
    largest = math.nextafter(math.exp(LOG_STD_RANGE[1]), math.inf)
    value = math.nextafter(inner.value * largest, math.inf)
    return Bound(kind=inner.kind, value=value, method=inner.method, status=inner.status)
