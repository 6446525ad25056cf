"""Published numbers to print beside ours: the 2022 reproduction and the paper.

The values live in ``reference.csv``; ``seed`` counts the reproduction's seeds
1, 2, 3 in the order of its tables.  ``source`` is "reproduction" (one seed),
"reproduction_mean" (its published mean and standard deviation) or "paper".
"""

from importlib.resources import files

import numpy as np
import pandas as pd

from harmonicvae import names

#: ``quantity`` of the rows that hold Lipschitz constants.
LIPSCHITZ = "lipschitz_l2"
#: Table 4 was measured on models with σ = 1.0 in one of the two columns.
TABLE_4_STD = 1.0


def load_reference() -> pd.DataFrame:
    """Return the published values, one row a number.

    Returns
    -------
    DataFrame
        Columns dataset, quantity, side, encoder_std, input_noise_std, radius,
        source, seed (str), value, sd; absent entries are NaN, or "" in text columns.

    Notes
    -----
    The reproduction's Lipschitz values were computed with the activation slope
    range [0, 1]; a sigmoid's is [0, ¼].  They are shown as published.

    References
    ----------
    Camuto & Willetts, "Variational Autoencoders: A Harmonic Perspective",
    arXiv 2105.14866.

    Examples
    --------
    >>> table = load_reference()
    >>> table[(table.dataset == "sinc") & (table.source == "paper")].value.tolist()
    [2.2, 5.2, 17.9, 13.9, 24.6, 29.8]
    """
    text = dict.fromkeys(("dataset", "quantity", "side", "source", "seed"), str)
    with files("harmonicvae.report").joinpath("reference.csv").open(encoding="utf-8") as stream:
        table = pd.read_csv(stream, dtype=text)
    return table.fillna(dict.fromkeys(text, ""))


def lipschitz_reference(
    reference: pd.DataFrame, dataset: str, side: str, encoder_std: object, input_noise_std: object
) -> dict[str, float]:
    """Return the published mean and standard deviation of one configuration.

    Parameters
    ----------
    reference : DataFrame
        As :func:`load_reference` returns it.
    dataset : str
        "sinc", "cifar10" or "celeba"; any other has no published value.
    side : {"encoder", "decoder"}
        Network whose Lipschitz constant is asked for.
    encoder_std, input_noise_std : float or str
        σ_enc and σ_N of the configuration.

    Returns
    -------
    dict
        reproduction_mean, reproduction_sd, paper_mean, paper_sd; NaN where none was published.

    Examples
    --------
    >>> lipschitz_reference(load_reference(), "sinc", "decoder", 1.0, 0.0)["paper_mean"]
    2.2
    """
    rows = reference[
        (reference["quantity"] == LIPSCHITZ)
        & (reference["dataset"] == dataset)
        & (reference["side"] == side)
        & _equals(reference[names.ENCODER_STD], encoder_std)
        & _equals(reference[names.INPUT_NOISE_STD], input_noise_std)
    ]
    found = {}
    for label, source in (("reproduction", "reproduction_mean"), ("paper", "paper")):
        chosen = rows[rows["source"] == source]
        for part, column in (("mean", "value"), ("sd", "sd")):
            value = chosen[column].iloc[0] if len(chosen) else np.nan
            found[f"{label}_{part}"] = float(value)
    return found


def degradation_reference(
    reference: pd.DataFrame,
    dataset: str,
    encoder_std: object,
    input_noise_std: object,
    radius: float,
) -> dict[str, float]:
    """Return table 4's log-likelihood degradation for one configuration and radius.

    Parameters
    ----------
    reference : DataFrame
        As :func:`load_reference` returns it.
    dataset : str
        Only "cifar10" has published values.
    encoder_std, input_noise_std : float or str
        σ_enc and σ_N; published for the models with σ = 1.0 in either column.
    radius : float
        ℓ2 radius C; published for 10 and 20.

    Returns
    -------
    dict
        paper, reproduction: without unit; NaN where none was published.

    Notes
    -----
    The two published values follow different formulas: see the definitions in the report.

    Examples
    --------
    >>> degradation_reference(load_reference(), "cifar10", 1.0, 0.0, 20)["paper"]
    -2.5882
    """
    rows = reference[
        (reference["quantity"] == names.DEGRADATION)
        & (reference["dataset"] == dataset)
        & _equals(reference[names.RADIUS], radius)
    ]
    if TABLE_4_STD not in (encoder_std, input_noise_std):
        rows = rows.iloc[:0]
    return {
        source: float(rows.loc[rows["source"] == source, "value"].sum(min_count=1))
        for source in ("paper", "reproduction")
    }


def _equals(column: pd.Series, value: object) -> pd.Series:
    if not isinstance(value, (int, float)):
        return pd.Series(False, index=column.index)
    return pd.Series(np.isclose(column.astype(float), value, rtol=1e-9, atol=0.0), column.index)
