"""Reading a study's folder of flat result files, with what is missing or broken in it."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.exceptions import InputError

#: Columns that are text even where they look like numbers (a seed has 64 bits).
TEXT_COLUMNS = (
    names.MODEL,
    names.SEED,
    names.DATASET,
    names.SIDE,
    "run_id",
    "model_uri",
    "kind",
    "method",
    "status",
    "norm",
    "scope",
    "phase",
    "split",
    names.CENTRE,
    names.SPECTRUM,
)


@dataclass(frozen=True)
class Results:
    """The result files of one study.

    Parameters
    ----------
    folder : Path
        Where they lie.
    study : dict
        study.json: what was run, where, and what failed.
    models : DataFrame
        models.csv: one row a model.
    history, bounds, attacks, margins, spectra, load : DataFrame
        The optional tables; without columns where the file is missing or unreadable.
    problems : dict
        File name to the reason why its table is empty.
    discrepancy : DataFrame
        discrepancy.csv, which docs/discrepancy.py adds; without columns where there is none.
    """

    folder: Path
    study: dict[str, Any]
    models: pd.DataFrame
    history: pd.DataFrame
    bounds: pd.DataFrame
    attacks: pd.DataFrame
    margins: pd.DataFrame
    spectra: pd.DataFrame
    load: pd.DataFrame
    problems: dict[str, str] = field(default_factory=dict)
    discrepancy: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one sample; () if study.json does not say."""
        shape = self.study.get("image_shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
            return ()
        return tuple(shape)

    def arrays(self, model: str) -> dict[str, np.ndarray]:
        """Return the arrays of one model (arrays/<model>.npz).

        Parameters
        ----------
        model : str
            Identifier in models.csv.

        Returns
        -------
        dict of str to ndarray

        Raises
        ------
        InputError
            If the file is missing, unreadable, holds pickled objects, or the
            name would lead out of the folder.
        """
        folder = self.folder / names.FOLDER_ARRAYS
        path = folder / f"{model}.npz"
        if path.parent != folder or "\0" in model:
            raise InputError(f"a model's name must be a file name, got {model!r}")
        if not path.is_file():
            raise InputError(f"{names.FOLDER_ARRAYS}/{path.name} is missing")
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            name = f"{names.FOLDER_ARRAYS}/{path.name}"
            raise InputError(f"{name} cannot be read as arrays: {error}") from error


def load_results(folder: str | Path) -> Results:
    """Read the result files of a study.

    Parameters
    ----------
    folder : str or Path
        Folder with study.json, models.csv and, optional, history.csv,
        bounds.csv, attacks.csv, margins.csv, spectra.csv, load.csv and arrays/<model>.npz.

    Returns
    -------
    Results

    Raises
    ------
    InputError
        If the folder, study.json or models.csv is missing or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"results_dir must be a folder of result files, got {str(folder)!r}")
    problems: dict[str, str] = {}
    return Results(
        folder=folder,
        study=_read_study(folder / names.FILE_STUDY),
        models=_read_models(folder / names.FILE_MODELS),
        history=_read_optional(folder / names.FILE_HISTORY, problems),
        bounds=_read_optional(folder / names.FILE_BOUNDS, problems),
        attacks=_read_optional(folder / names.FILE_ATTACKS, problems),
        margins=_read_optional(folder / names.FILE_MARGINS, problems),
        spectra=_read_optional(folder / names.FILE_SPECTRA, problems),
        load=_read_optional(folder / names.FILE_LOAD, problems),
        problems=problems,
        discrepancy=_read_optional(folder / names.FILE_DISCREPANCY, {}),
    )


def _need(path: Path) -> None:
    if not path.is_file():
        raise InputError(
            f"{path.name} is missing in {str(path.parent)!r}; "
            "give the folder that a study wrote its results to"
        )


def _read_study(path: Path) -> dict[str, Any]:
    _need(path)
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read as JSON: {error}") from error
    if not isinstance(study, dict):
        raise InputError(f"{path.name} must hold a JSON object, got {type(study).__name__}")
    return study


def _read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file; text columns stay text, "True"/"False" become bool."""
    converters = dict.fromkeys(TEXT_COLUMNS, str)
    table = pd.read_csv(path, converters=converters, encoding="utf-8")
    if names.COLLAPSED in table:
        answers = table[names.COLLAPSED].astype(str).str.strip().str.lower()
        known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
        table[names.COLLAPSED] = pd.Series([known.get(a) for a in answers], dtype=object)
    return table


def _read_models(path: Path) -> pd.DataFrame:
    _need(path)
    try:
        table = _read_table(path)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read as a table: {error}") from error
    required = (names.MODEL, names.ENCODER_STD, names.INPUT_NOISE_STD)
    missing = [name for name in required if name not in table]
    if missing and len(table.columns):
        raise InputError(f"{path.name} must have the columns {required}; missing: {missing}")
    return table.reindex(columns=[*table.columns, *missing])


def _read_optional(path: Path, problems: dict[str, str]) -> pd.DataFrame:
    if not path.is_file():
        problems[path.name] = f"{path.name} is not among the result files."
        return pd.DataFrame()
    try:
        table = _read_table(path)
    except pd.errors.EmptyDataError:
        problems[path.name] = f"{path.name} is empty."
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        problems[path.name] = f"{path.name} cannot be read as a table: {error}"
        return pd.DataFrame()
    if table.empty:
        problems[path.name] = f"{path.name} has no rows."
    return table
