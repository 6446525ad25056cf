"""Table of the attacks: what they achieved for each configuration and radius."""

from typing import cast

import pandas as pd

from harmonicvae import names
from harmonicvae.report.aggregation import mean_and_sd, single_dataset
from harmonicvae.report.configurations import (
    all_configurations,
    configuration_cells,
    require_columns,
    select_models,
    study_columns,
)
from harmonicvae.report.reference import degradation_reference, load_reference


def attack_table(
    attacks: pd.DataFrame, models: pd.DataFrame, reference: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what the attacks achieved for each configuration and radius.

    Parameters
    ----------
    attacks : DataFrame
        One row a model, image and radius (attacks.csv).
    models : DataFrame
        One row a model, for the configurations.
    reference : DataFrame or None, default=None
        Published values; None loads those of the package.

    Returns
    -------
    DataFrame
        encoder_std, input_noise_std, method, radius, n (models), images
        (attacks behind the row), damage_mean/_sd/_n (mean over a model's
        images, then mean and sd over models; output units), damage_max,
        relative_damage and log_likelihood_degradation likewise,
        bound_ratio_max (largest damage over its upper bound a·b·C), and for
        CIFAR10 paper_degradation and reproduction_degradation (table 4).

    Raises
    ------
    InputError
        If a column that names the rows is missing, or ``models`` mixes data sets.
    """
    keys = (names.MODEL, names.RADIUS)
    require_columns(attacks, keys, names.FILE_ATTACKS)
    require_columns(models, (names.MODEL,), names.FILE_MODELS)
    reference = load_reference() if reference is None else reference
    dataset = single_dataset(models)
    attacks = attacks.assign(method=attacks.get("method", ""))
    rows = []
    for configuration in all_configurations(study_columns(models)):
        members = set(select_models(models, configuration)[names.MODEL])
        chosen = attacks[attacks[names.MODEL].isin(members)]
        for key, group in chosen.groupby(["method", names.RADIUS], sort=True):
            method, radius = cast(tuple[str, float], key)
            row = configuration_cells(configuration) | {"method": method, names.RADIUS: radius}
            row |= _attack_row(group)
            published = degradation_reference(reference, dataset, *configuration, radius)
            rows.append(row | {f"{key}_degradation": value for key, value in published.items()})
    table = pd.DataFrame(rows)
    unused = [name for name in table.columns if name.startswith(("paper_", "reproduction_"))]
    return table.drop(columns=[name for name in unused if table[name].isna().all()])


def _attack_row(group: pd.DataFrame) -> dict[str, float]:
    row: dict[str, float] = {"n": group[names.MODEL].nunique(), "images": len(group)}
    for name in (names.DAMAGE, names.RELATIVE_DAMAGE, names.DEGRADATION):
        if name not in group:
            continue
        values = pd.to_numeric(group[name], errors="coerce")
        row |= mean_and_sd(values.groupby(group[names.MODEL]).mean(), name)
        if name == names.DAMAGE:
            row["damage_max"] = float(values.max())
    if names.BOUND_RATIO in group:
        row["bound_ratio_max"] = float(pd.to_numeric(group[names.BOUND_RATIO], "coerce").max())
    return row
