"""Table of the harmonic analysis: mean degree, energy and frequencies of each configuration."""

import pandas as pd

from harmonicvae import names
from harmonicvae.report.aggregation import mean_and_sd
from harmonicvae.report.configurations import (
    configuration_cells,
    require_columns,
    select_models,
    study_columns,
)


def harmonic_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return the headline numbers of each side, for the configurations of its column.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        side, encoder_std, input_noise_std, n (models) and, with _mean, _sd and _n over models,
        those of ``names.HARMONIC_METRICS`` that were measured; no rows if none was.

    Raises
    ------
    InputError
        If a column that names the rows is missing.
    """
    require_columns(models, (names.MODEL,), names.FILE_MODELS)
    rows = []
    for side, members in study_columns(models).items():
        measured = [
            (metric, names.harmonic_metric(metric, side))
            for metric in names.HARMONIC_METRICS
            if names.harmonic_metric(metric, side) in models
        ]
        for pair in members if measured else ():
            chosen = select_models(models, pair)
            row = {names.SIDE: side} | configuration_cells(pair) | {"n": len(chosen)}
            for metric, column in measured:
                row |= mean_and_sd(chosen[column], metric)
            rows.append(row)
    return pd.DataFrame(rows)
