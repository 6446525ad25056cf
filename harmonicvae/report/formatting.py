"""Numbers as text, with the digits that mean something.

A column triple ``x_mean``, ``x_sd``, ``x_n`` of a table is shown as one column
"mean ± sd"; the CSV files keep the three numbers apart.
"""

import math
from numbers import Real

import numpy as np
import pandas as pd

DASH = "–"
#: Headings of table columns; others are shown with spaces for underscores.
HEADINGS = {
    "encoder_std": "σ_enc",
    "input_noise_std": "σ_N",
    "column": "column of the study",
    "lower": "lower bound",
    "upper": "upper bound",
    "upper_norm_product": "upper: norm product",
    "upper_eclipse_fast": "upper: ECLipsE-Fast",
    "upper_eclipse": "upper: ECLipsE",
    "upper_lipsdp_layer": "upper: LipSDP-Layer",
    "upper_lipsdp_neuron": "upper: LipSDP-Neuron",
    "upper_interval": "upper: interval",
    "upper_lipsdp_cvxpy": "upper: CVXPY",
    "upper_best": "upper: smallest",
    "ratio": "upper / lower",
    "elbo": "ELBO (nats)",
    "squared_error": "squared error",
    "train_seconds": "training (s)",
    "damage_max": "damage max",
    "log_likelihood_degradation": "log-likelihood degradation",
    "bound_ratio_max": "max damage / abC",
    "paper_degradation": "paper, table 4",
    "reproduction_degradation": "reproduction, table 4",
    "hermite_mean_degree": "mean degree",
    "hermite_variance": "variance",
    "hermite_w1_share": "share of degree 1",
    "jacobian_energy": "E‖J‖²",
    "spectral_centroid": "spectral centroid",
    "high_frequency_share": "share above 4 cycles",
    "in_order": "seeds in order",
    "change": "largest σ / smallest",
    "change_low": "95 % from",
    "change_high": "95 % to",
    "right": "done right",
    "slope_1": "× slope 1",
    "layer_form": "× layer form",
    "single_matrices": "× single matrices",
    "squared_std": "× σ²",
    "noisy_target": "× noisy target",
    "shared_noise": "× shared noise",
    "kl_form": "× KL form",
    "evaluation": "× both of evaluation",
    "all_errors": "all errors",
    "constant": "exact",
    "constant_squared_std": "exact, σ²",
    "constant_all_errors": "exact, all errors of training",
    "published": "reproduction",
    "published_low": "its least",
    "published_high": "its largest",
    "left_over": "reproduction / all errors",
    "within": "within its seeds",
}
#: Columns of chosen, counted or published numbers, shown with the digits they were written with.
SETTINGS = (
    "encoder_std",
    "input_noise_std",
    "radius",
    "active_units",
    "paper_degradation",
    "reproduction_degradation",
)
#: Columns of published means: shown with the digits they were published with.
PUBLISHED = ("paper", "reproduction")


def format_number(value: object, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits, "–" for a missing one.

    Parameters
    ----------
    value : object
        A real number, or anything else, which is turned into text unchanged.
    digits : int, default=4
        Significant digits, ≥ 1; digits before the decimal point are never dropped.

    Returns
    -------
    str

    Examples
    --------
    >>> format_number(3.14159), format_number(98765.4), format_number(2)
    ('3.142', '98765', '2')
    >>> [format_number(value) for value in (float("inf"), float("nan"), 0.00001234, True)]
    ['∞', '–', '1.234e-05', 'yes']
    """
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or value is pd.NA or value is pd.NaT:
        return DASH
    if not isinstance(value, Real):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return DASH if math.isnan(number) else _sign(number) + "∞"
    if isinstance(value, (int, np.integer)) or number == 0:
        return _sign(number) + f"{abs(number):.0f}"
    magnitude = math.floor(math.log10(abs(number)))
    if not -4 <= magnitude < 9:
        return _sign(number) + f"{abs(number):.{digits - 1}e}"
    return _sign(number) + f"{abs(number):.{max(0, digits - 1 - magnitude)}f}"


def format_mean_sd(mean: float, sd: float, decimals: int | None = None) -> str:
    """Return "mean ± sd": two significant digits of sd, the same decimals of the mean.

    Parameters
    ----------
    mean : float
        Mean over seeds; NaN (nothing was measured) gives "–".
    sd : float
        Sample standard deviation (ddof 1); NaN (one seed only) is shown as "–", never as 0.
    decimals : int or None, default=None
        Digits after the decimal point of both, ≥ 0, instead of the rule above.

    Returns
    -------
    str

    Examples
    --------
    >>> format_mean_sd(571.8333, 432.3), format_mean_sd(17.912, 3.2)
    ('572 ± 432', '17.9 ± 3.2')
    >>> format_mean_sd(17.9, float("nan")), format_mean_sd(float("nan"), float("nan"))
    ('17.90 ± –', '–')
    """
    if math.isnan(mean):
        return DASH
    if not (math.isfinite(mean) and math.isfinite(sd)) or sd <= 0:
        return f"{format_number(float(mean))} ± {format_number(float(sd))}"
    if decimals is not None:
        return f"{_sign(mean)}{abs(mean):.{decimals}f} ± {sd:.{decimals}f}"
    if abs(mean) >= 1e9 or max(abs(mean), sd) < 1e-4:
        return f"{format_number(float(mean))} ± {sd:.1e}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(sd))))
    return f"{_sign(mean)}{abs(mean):.{decimals}f} ± {sd:.{decimals}f}"


def presentation(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of strings with headings, ready to be shown.

    Parameters
    ----------
    table : DataFrame
        Any table; triples ``x_mean``, ``x_sd`` and (optional) ``x_n`` become one column.

    Returns
    -------
    DataFrame
        Every cell a str.  A count is added to a cell where fewer models than
        the row's ``n`` were measured.

    Examples
    --------
    >>> presentation(pd.DataFrame({"n": [3], "lower_mean": [1.5], "lower_sd": [0.25],
    ...                            "lower_n": [2]})).iloc[0].tolist()
    ['3', '1.50 ± 0.25 (n=2)']
    """
    columns = [str(name) for name in table.columns]
    cells: dict[str, list[str]] = {}
    for name in columns:
        stem, _, part = name.rpartition("_")
        if part in ("sd", "n") and f"{stem}_mean" in columns:
            continue
        if part == "mean" and f"{stem}_sd" in columns:
            cells[_heading(stem)] = [_mean_cell(row, stem) for _, row in table.iterrows()]
        else:
            write = _setting if name in SETTINGS else format_number
            cells[_heading(name)] = [write(value) for value in table[name].tolist()]
    return pd.DataFrame(cells, index=table.index, dtype=object)


def _sign(number: float) -> str:
    return "−" if number < 0 else ""


def _heading(name: str) -> str:
    words = name.replace("_", " ") if name.isidentifier() else name  # others are names already
    return HEADINGS.get(name, words)


def _mean_cell(row: pd.Series, stem: str) -> str:
    mean, sd = float(row[f"{stem}_mean"]), float(row[f"{stem}_sd"])
    text = format_mean_sd(mean, sd, _decimals(mean, sd) if stem in PUBLISHED else None)
    count, expected = row.get(f"{stem}_n"), row.get("n")
    if text == DASH or count is None or expected is None or count == expected:
        return text
    return f"{text} (n={int(count)})"


def _setting(value: object) -> str:
    if not isinstance(value, float) or not math.isfinite(value):
        return format_number(value)
    return _sign(value) + f"{abs(value):g}"


def _decimals(*values: float) -> int:
    """Return the digits after the point with which published values were written."""
    return max(len(f"{value:.10g}".partition(".")[2]) for value in values)
