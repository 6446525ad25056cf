"""Text from the shell or from MLflow into checked values: MLflow itself checks nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harmonicvae.exceptions import InputError

SEED_LIMIT = 2**64


def integer(name: str, text: str, minimum: int) -> int:
    """Return an integer ≥ ``minimum``.

    Examples
    --------
    >>> integer("epochs", "10", 1)
    10
    >>> integer("epochs", "abc", 1)
    Traceback (most recent call last):
    harmonicvae.exceptions.InputError: epochs must be an integer >= 1, got 'abc'
    """
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise InputError(f"{name} must be an integer >= {minimum}, got {text!r}")
    return value


def numbers(name: str, text: str, *, positive: bool = False) -> tuple[float, ...]:
    """Return the distinct finite numbers ≥ 0 (or > 0) of a comma-separated list, in order.

    Examples
    --------
    >>> numbers("encoder_std", "1.0, 0.5,0.1")
    (1.0, 0.5, 0.1)
    """
    try:
        values = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        values = ()
    low = min(values, default=-1.0)
    bad = not values or not all(map(math.isfinite, values)) or low < 0 or (positive and low == 0)
    if bad:
        sign = "> 0" if positive else ">= 0"
        raise InputError(f"{name} must be comma-separated numbers {sign}, got {text!r}")
    return tuple(dict.fromkeys(values))


def seeds(name: str, text: str) -> tuple[int, ...]:
    """Return the distinct seeds in [0, 2⁶⁴) of a comma-separated list, in order.

    Examples
    --------
    >>> seeds("seeds", "0,14609714069366804553")
    (0, 14609714069366804553)
    """
    try:
        values = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        values = ()
    if not values or not all(0 <= value < SEED_LIMIT for value in values):
        raise InputError(f"{name} must be comma-separated integers in [0, 2**64), got {text!r}")
    return tuple(dict.fromkeys(values))


def one(name: str, parse: Callable[[str, str], tuple[Any, ...]], text: str) -> Any:
    """Return the only value of a list.

    Examples
    --------
    >>> one("seed", seeds, "7")
    7
    """
    values = parse(name, text)
    if len(values) != 1:
        raise InputError(f"{name} must be a single value, got {text!r}")
    return values[0]


def choice(name: str, text: str, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words.

    Examples
    --------
    >>> choice("preset", "quick", ("quick", "paper"))
    'quick'
    """
    if text not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}, got {text!r}")
    return text


def words(text: str) -> tuple[str, ...]:
    """Return the words of a comma-separated list; "" and "none" are no words.

    Examples
    --------
    >>> words("squared_std, kl_form"), words("none")
    (('squared_std', 'kl_form'), ())
    """
    return tuple(part.strip() for part in text.split(",") if part.strip() not in ("", "none"))


def fraction(name: str, text: str) -> float:
    """Return a number in (0, 1).

    Examples
    --------
    >>> fraction("gap", "1e-6")
    1e-06
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise InputError(f"{name} must be a number in (0, 1), got {text!r}")
    return value


def interval(name: str, text: str) -> tuple[float, float]:
    """Return the ends of an interval LOW,HIGH; infinite ends are allowed.

    Examples
    --------
    >>> interval("box", "-1,1")
    (-1.0, 1.0)
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not low <= high or low == math.inf or high == -math.inf:
        raise InputError(f"{name} must be two numbers LOW,HIGH with LOW <= HIGH, got {text!r}")
    return low, high


def outputs(name: str, text: str, size: int) -> list[int] | list[list[float]]:
    """Return a selection of outputs: their numbers, or with differences the rows of a matrix.

    Parameters
    ----------
    name : str
        Of the option.
    text : str
        Numbers from 0 and differences of two, separated by commas: "3,5" or "3-5".
    size : int
        Number of outputs there are.

    Returns
    -------
    list of int or list of list of float
        As ``LayeredNetwork.select_outputs`` takes it.

    Examples
    --------
    >>> outputs("outputs", "0,2", 3), outputs("outputs", "0-2", 3)
    ([0, 2], [[1.0, 0.0, -1.0]])
    """
    try:
        terms = [[int(number) for number in part.split("-")] for part in text.split(",")]
    except ValueError:
        terms = [[]]
    if not all(len(term) in (1, 2) and len(set(term)) == len(term) for term in terms):
        raise InputError(
            f"{name} must be output numbers, or differences of two, separated by commas, "
            f"for instance 3,5 or 3-5; got {text!r}"
        )
    if max(map(max, terms)) >= size:
        raise InputError(f"{name} must lie in [0, {size - 1}], got {text!r}")
    if all(len(term) == 1 for term in terms):
        return [term[0] for term in terms]
    return [_row(term, size) for term in terms]


def _row(term: list[int], size: int) -> list[float]:
    """Return the matrix row of an output or of a difference."""
    row = [0.0] * size
    for number, sign in zip(term, (1.0, -1.0)):
        row[number] = sign
    return row


def folder(name: str, text: str, *, must_exist: bool = True) -> str | None:
    """Return the absolute path of a folder, None for "".

    Examples
    --------
    >>> folder("data_dir", "") is None
    True
    """
    if not text:
        return None
    path = Path(text).expanduser()
    if must_exist and not path.is_dir():
        raise InputError(f"{name} must be an existing folder, got {text!r}")
    return os.path.abspath(path)


def jobs(name: str, text: str, *, small_models: bool) -> int:
    """Return the number of processes: "auto" is one a core for small models, else one.

    A model of images keeps all cores busy alone; beside others it only shares their memory
    bandwidth.

    Examples
    --------
    >>> jobs("n_jobs", "2", small_models=False), jobs("n_jobs", "auto", small_models=False)
    (2, 1)
    """
    if text not in ("", "auto"):
        return integer(name, text, 1)
    if not small_models:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
