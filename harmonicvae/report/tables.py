"""The tables of a study: flat result tables in, one table a question out.

Every function takes and gives DataFrames with plain numbers; ``presentation``,
``to_terminal`` and ``to_html`` turn them into text.  A standard deviation is
that of the sample (ddof 1) over models, and NaN for a single one.
"""

import pandas as pd

from harmonicvae import names
from harmonicvae.report.aggregation import mean_and_sd
from harmonicvae.report.attack_tables import attack_table
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_cells,
    require_columns,
    select_models,
    study_columns,
)
from harmonicvae.report.formatting import format_mean_sd, format_number, presentation
from harmonicvae.report.lipschitz_tables import bounds_table, lipschitz_methods, lipschitz_table
from harmonicvae.report.rendering import to_html, to_terminal

__all__ = [
    "attack_table",
    "bounds_table",
    "collapse_table",
    "configuration_table",
    "format_mean_sd",
    "format_number",
    "lipschitz_methods",
    "lipschitz_table",
    "presentation",
    "study_columns",
    "to_html",
    "to_terminal",
    "training_table",
]


def configuration_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return which configurations were trained, how often and for how long.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        One row a configuration: encoder_std, input_noise_std, column (the
        columns of the study it stands in), n (models), epochs, seeds.

    Raises
    ------
    InputError
        If ``encoder_std`` or ``input_noise_std`` is not a column.
    """
    columns = study_columns(models)
    rows = []
    for configuration in all_configurations(columns):
        chosen = select_models(models, configuration)
        sides = [side for side, members in columns.items() if configuration in members]
        row = configuration_cells(configuration) | {"column": " + ".join(sides), "n": len(chosen)}
        for name in (names.EPOCHS, names.SEED):
            if name in models:
                row[name] = ", ".join(dict.fromkeys(map(format_number, chosen[name].tolist())))
        rows.append(row)
    return pd.DataFrame(rows).rename(columns={names.SEED: "seeds"})


def collapse_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return the collapse diagnostic of every model.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        model, encoder_std, input_noise_std, seed, active_units,
        decoding_variance_ratio (share of the data's variance in the decodings,
        ≥ 0), collapsed; those columns of them that ``models`` has.  No columns
        if it has none of the three results.

    Raises
    ------
    InputError
        If ``model`` is not a column.
    """
    require_columns(models, (names.MODEL,), names.FILE_MODELS)
    results = (names.ACTIVE_UNITS, names.DECODING_VARIANCE_RATIO, names.COLLAPSED)
    if not any(name in models for name in results):
        return pd.DataFrame()
    wanted = (names.MODEL, names.ENCODER_STD, names.INPUT_NOISE_STD, names.SEED, *results)
    return models[[name for name in wanted if name in models]].reset_index(drop=True)


def training_table(models: pd.DataFrame) -> pd.DataFrame:
    """Return the fit of each configuration: ELBO, squared error and training time.

    Parameters
    ----------
    models : DataFrame
        One row a model (models.csv).

    Returns
    -------
    DataFrame
        encoder_std, input_noise_std, n and, with _mean, _sd and _n, those of
        elbo (nats per sample, larger is better), squared_error (‖x − g(p(x))‖²
        per sample) and train_seconds that ``models`` has.
    """
    measured = (names.ELBO, names.SQUARED_ERROR, names.TRAIN_SECONDS)
    rows = []
    for configuration in all_configurations(study_columns(models)):
        chosen = select_models(models, configuration)
        row = configuration_cells(configuration) | {"n": len(chosen)}
        for name in measured:
            row |= mean_and_sd(chosen[name], name) if name in models else {}
        rows.append(row)
    return pd.DataFrame(rows)
