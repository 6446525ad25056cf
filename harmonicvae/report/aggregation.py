"""What the tables have in common: one data set, and mean and standard deviation over models."""

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError


def single_dataset(models: pd.DataFrame) -> str:
    """Return the data set of the models, "" if they do not say.

    Raises
    ------
    InputError
        If there are several.
    """
    found = models[names.DATASET].dropna().unique().tolist() if names.DATASET in models else []
    if len(found) > 1:
        raise InputError(
            f"a report is about one data set, got models of {', '.join(map(str, found))}; "
            "write one report for each"
        )
    return str(found[0]) if found else ""


def mean_and_sd(values: pd.Series, label: str) -> dict[str, float]:
    """Return mean, sample standard deviation and count of what was measured.

    Parameters
    ----------
    values : Series
        One value a model; what is no number counts as not measured.
    label : str
        Start of the three names.

    Returns
    -------
    dict
        <label>_mean, <label>_sd (ddof 1; NaN for fewer than two values or an
        infinite one) and <label>_n.

    Examples
    --------
    >>> mean_and_sd(pd.Series([1.0, 3.0, None]), "x")["x_sd"].__round__(6)
    1.414214
    """
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    count = len(numbers)
    finite = bool(np.isfinite(numbers).all())
    return {
        f"{label}_mean": float(numbers.mean()) if count else np.nan,
        f"{label}_sd": float(numbers.std(ddof=1)) if count > 1 and finite else np.nan,
        f"{label}_n": count,
    }
