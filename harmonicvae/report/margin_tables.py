"""Table of the margins: what is certified, estimated and simulated for each configuration."""

import pandas as pd

from harmonicvae import names
from harmonicvae.report.aggregation import mean_and_sd
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_cells,
    require_columns,
    select_models,
    study_columns,
)


def margin_table(margins: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return the margins of each configuration, for each relative r.

    Parameters
    ----------
    margins : DataFrame
        One row a model, image and relative r (margins.csv).
    models : DataFrame
        One row a model, for the configurations.

    Returns
    -------
    DataFrame
        encoder_std, input_noise_std, relative_r, n (models), images (rows), then mean and
        sd over models of the mean over images of certified_margin_l2 (input units),
        first_order_margin_l2 (an estimate) and robustness_probability_l2_r{C}.

    Raises
    ------
    InputError
        If a column that names the rows is missing.
    """
    require_columns(margins, (names.MODEL, names.RELATIVE_R), names.FILE_MARGINS)
    require_columns(models, (names.MODEL,), names.FILE_MODELS)
    measured = [
        name
        for name in margins.columns
        if str(name).startswith(names.MARGIN_COLUMNS) and not str(name).endswith(names.LIMITS)
    ]
    rows = []
    for configuration in all_configurations(study_columns(models)):
        members = set(select_models(models, configuration)[names.MODEL])
        chosen = margins[margins[names.MODEL].isin(members)]
        for share in sorted(chosen[names.RELATIVE_R].unique()):
            group = chosen[chosen[names.RELATIVE_R] == share]
            row = configuration_cells(configuration) | {names.RELATIVE_R: share}
            row |= {"n": group[names.MODEL].nunique(), "images": len(group)}
            for name in measured:
                values = pd.to_numeric(group[name], errors="coerce")
                row |= mean_and_sd(values.groupby(group[names.MODEL]).mean(), str(name))
            rows.append(row)
    return pd.DataFrame(rows)
