"""Does a quantity fall as the noise grows: its order over σ in every seed, and how far it falls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from harmonicvae import names
from harmonicvae.report.configurations import Configuration, select_models, study_columns
from harmonicvae.report.spread import CONFIDENCE

#: Quantities looked at, by label; each is a function of the side to a column of models.csv.
QUANTITIES: dict[str, Callable[[str], str]] = {
    "lower bound": names.lipschitz_lower,
    "upper bound": names.lipschitz_upper,
    "norm product": partial(names.lipschitz_upper, method="norm_product"),
    "mean degree": partial(names.harmonic_metric, names.MEAN_DEGREE),
    "variance": partial(names.harmonic_metric, names.HERMITE_VARIANCE),
    "E‖J‖²": partial(names.harmonic_metric, names.JACOBIAN_ENERGY),
    "spectral centroid": partial(names.harmonic_metric, names.SPECTRAL_CENTROID),
    "share above 4 cycles": partial(names.harmonic_metric, names.HIGH_FREQUENCY_SHARE),
}
#: Side → σ that its column of the study varies, and its place in a configuration.
_VARIED = {"decoder": ("σ_enc", 0), "encoder": ("σ_N", 1)}


def trend_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return for each side and quantity whether it falls as σ grows.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        side; varied ("σ_enc" for the decoder, "σ_N" for the encoder);
        quantity; smallest, largest (σ); n (seeds measured at every σ); in_order (those
        in which the quantity falls at every step of σ); change, change_low, change_high (value
        at the largest σ over that at the smallest: geometric mean over the seeds measured at
        both and Student's 95 % interval of the logarithm, NaN for a single seed); verdict:
        "falls" or "rises" if the interval excludes 1, "unclear" otherwise.  Quantities that
        were not measured, or are not positive, are left out.

    Raises
    ------
    InputError
        If a column that names the configurations is missing.

    Notes
    -----
    The interval holds for log-normal values; seeds are paired, as each has a model at every σ.
    Configurations of a larger grid that are in neither column of a study are not looked at.

    Examples
    --------
    >>> models = pd.DataFrame({"encoder_std": [1.0, 0.1] * 2, "input_noise_std": 0.0,
    ...     "seed": ["1", "1", "2", "2"], "lipschitz_lower_l2_decoder": [1.0, 4.0, 1.1, 4.2]})
    >>> row = trend_table(models).iloc[0]
    >>> row.quantity, int(row.n), int(row.in_order), round(float(row.change), 3), row.verdict
    ('lower bound', 2, 2, 0.256, 'falls')
    """
    rows = []
    for side, members in study_columns(models).items():
        varied, place = _VARIED[side]
        own = [pair for pair in members if pair[1 - place] == members[0][1 - place]]
        pairs = sorted(_numeric(own), key=itemgetter(place))
        if len(pairs) < 2:
            continue
        for label, column_of in QUANTITIES.items():
            column = column_of(side)
            if column not in models:
                continue
            values = _by_seed(models, pairs, column)
            row = _trend(values)
            if row is not None:
                ends = {"smallest": pairs[0][place], "largest": pairs[-1][place]}
                rows.append({names.SIDE: side, "varied": varied, "quantity": label, **ends, **row})
    return pd.DataFrame(rows)


def _numeric(members: list[Configuration]) -> list[tuple[float, float]]:
    """Return the configurations whose σ are both numbers."""
    return [
        (std, noise)
        for std, noise in members
        if isinstance(std, float) and isinstance(noise, float)
    ]


def _by_seed(models: pd.DataFrame, pairs: list[tuple[float, float]], column: str) -> np.ndarray:
    """Return the positive values of shape (seeds, σ), NaN where there is none."""
    parts = []
    for pair in pairs:
        chosen = select_models(models, pair)
        seeds = chosen.get(names.SEED, chosen.index)
        values = pd.to_numeric(chosen[column], errors="coerce").to_numpy(dtype=np.float64)
        parts.append(pd.Series(values, index=seeds).groupby(level=0).mean())
    table = pd.concat(parts, axis=1).to_numpy(dtype=np.float64)
    return np.where(np.isfinite(table) & (table > 0), table, np.nan)


def _trend(values: np.ndarray) -> dict[str, object] | None:
    """Return what one quantity does from the smallest to the largest σ."""
    whole = values[~np.isnan(values).any(axis=1)]
    ends = values[:, [0, -1]]
    changes = np.log(ends[:, 1] / ends[:, 0])
    changes = changes[np.isfinite(changes)]
    if not len(changes):
        return None
    middle = float(changes.mean())
    reach = np.nan
    if len(changes) > 1:
        quantile = float(stdtrit(len(changes) - 1, 0.5 + CONFIDENCE / 2))
        reach = quantile * float(changes.std(ddof=1)) / np.sqrt(len(changes))
    verdict = "unclear"
    if abs(middle) > reach:
        verdict = "falls" if middle < 0 else "rises"
    return {
        "n": len(whole),
        "in_order": int((np.diff(whole, axis=1) < 0).all(axis=1).sum()),
        "change": float(np.exp(middle)),
        "change_low": float(np.exp(middle - reach)),
        "change_high": float(np.exp(middle + reach)),
        "verdict": verdict,
    }
