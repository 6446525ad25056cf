"""Configurations (σ_enc, σ_N) of a study, and the columns they stand in."""

import math
from collections.abc import Iterable

import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError

#: σ_enc of the study's encoder column.
ENCODER_COLUMN_STD = 0.5

#: One pair (σ_enc, σ_N); a float each, or a text such as "learned".
Configuration = tuple[object, object]


def study_columns(models: pd.DataFrame) -> dict[str, list[Configuration]]:
    """Return the configurations (σ_enc, σ_N) of the decoder and of the encoder column.

    Parameters
    ----------
    models : DataFrame
        One row a model, with columns ``encoder_std`` and ``input_noise_std``.

    Returns
    -------
    dict
        "decoder": those with the smallest σ_N, σ_enc falling; "encoder": those
        with the σ_enc that comes with the most values of σ_N (the one nearest
        0.5 if several do), σ_N falling.  A configuration of a larger grid that
        is in neither stands at the end of both.

    Examples
    --------
    >>> grid = pd.DataFrame({"encoder_std": [1.0, 0.5, 0.5], "input_noise_std": [0.0, 0.0, 1.0]})
    >>> study_columns(grid)
    {'decoder': [(1.0, 0.0), (0.5, 0.0)], 'encoder': [(0.5, 1.0), (0.5, 0.0)]}
    """
    require_columns(models, (names.ENCODER_STD, names.INPUT_NOISE_STD), names.FILE_MODELS)
    pairs = zip(models[names.ENCODER_STD], models[names.INPUT_NOISE_STD], strict=True)
    grid = sorted({(_number(std), _number(noise)) for std, noise in pairs}, key=_order)
    if not grid:
        return {"decoder": [], "encoder": []}
    least_noise = min((noise for _, noise in grid), key=_rank)
    partners = {std: sum(other == std for other, _ in grid) for std, _ in grid}
    common = min(partners, key=lambda std: (-partners[std], _distance(std)))
    decoder = [pair for pair in grid if pair[1] == least_noise]
    encoder = [pair for pair in grid if pair[0] == common]
    rest = [pair for pair in grid if pair not in decoder and pair not in encoder]
    return {"decoder": decoder + rest, "encoder": encoder + rest}


def _number(value: object) -> object:
    """Return a σ as float; "learned" and the like stay text."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
    return "not recorded" if math.isnan(number) else number


def _rank(value: object) -> tuple[int, float, str]:
    return (0, value, "") if isinstance(value, float) else (1, 0.0, str(value))


def _order(pair: Configuration) -> tuple[tuple[int, float, str], ...]:
    """Order by falling σ_enc, then falling σ_N, text last."""
    return tuple((kind, -number, text) for kind, number, text in map(_rank, pair))


def _distance(std: object) -> float:
    return abs(std - ENCODER_COLUMN_STD) if isinstance(std, float) else math.inf


def all_configurations(columns: dict[str, list[Configuration]]) -> list[Configuration]:
    """Return every configuration of both columns once, decoder column first."""
    return list(dict.fromkeys(columns["decoder"] + columns["encoder"]))


def configuration_label(configuration: Configuration) -> str:
    """Return a configuration as text for titles.

    Examples
    --------
    >>> configuration_label((0.5, 0.0))
    'σ_enc = 0.5, σ_N = 0'
    """
    std, noise = (f"{v:g}" if isinstance(v, float) else str(v) for v in configuration)
    return f"σ_enc = {std}, σ_N = {noise}"


def configuration_cells(pair: Configuration) -> dict[str, object]:
    """Return σ_enc and σ_N under their column names."""
    return {names.ENCODER_STD: pair[0], names.INPUT_NOISE_STD: pair[1]}


def select_models(models: pd.DataFrame, pair: Configuration) -> pd.DataFrame:
    """Return the rows of the models with this configuration."""
    columns = (names.ENCODER_STD, names.INPUT_NOISE_STD)
    matches = [
        models[name].map(_number) == value for name, value in zip(columns, pair, strict=True)
    ]
    return models[matches[0] & matches[1]]


def require_columns(table: pd.DataFrame, columns: Iterable[str], source: str) -> None:
    """Raise InputError, naming ``source``, unless the table has all the columns."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(
            f"{source} must have the columns {', '.join(columns)}; {', '.join(missing)} is missing"
        )
