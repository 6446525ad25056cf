"""What every fold of a search was trained to, brought from its worker by its score.

Only workers see the fitted estimators.  A scorer runs there too, so it returns the score as
a number that carries the curves; the number is unpickled where the search runs, whatever
joblib's backend, and no store or folder needs to be shared.  This module imports no MLflow:
workers need none.
"""

from __future__ import annotations

import numbers
import threading
import time
import traceback
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.metrics._scorer import _MultimetricScorer

from harmonicvae.models import HarmonicVAE
from harmonicvae.tracking.sweep_texts import parameter_text

#: Records that have arrived for the searches of this process, by token and key.
ARRIVED: dict[str, dict[str, FoldRecord]] = {}
#: The estimator scored last in each thread, to tell a fold's test score from its train score.
_LAST = threading.local()


@dataclass(frozen=True, kw_only=True)
class FoldRecord:
    """What a worker knows of one fold.

    Parameters
    ----------
    key : str
        Different for every fit.
    params : tuple of (str, str)
        Searched parameters as text.
    scores : dict of str to float
        Test scores by metric; "score" for a single one.
    curves : dict of str to dict of str to list
        ``history_`` of each HarmonicVAE inside, by its place, column by column.
    finished : float
        Seconds since the epoch, on the worker's clock.
    error : str
        Why the scorer failed.
    """

    key: str
    params: tuple[tuple[str, str], ...]
    scores: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    finished: float = 0.0
    error: str = ""


class RecordedScore(float):
    """A score with its :class:`FoldRecord`, delivered wherever it is unpickled."""

    record: FoldRecord
    token: str

    def __reduce__(self) -> Any:
        """Rebuild by :func:`deliver`."""
        return deliver, (float(self), self.record, self.token)


def deliver(value: float, record: FoldRecord, token: str) -> RecordedScore:
    """Return a score with its record, and hand the record to the search if it runs here."""
    score = RecordedScore(value)
    score.record, score.token = record, token
    if token in ARRIVED:
        ARRIVED[token][record.key] = record
    return score


def fitted_vaes(estimator: Any, place: str = "") -> Iterator[tuple[str, HarmonicVAE]]:
    """Yield every fitted HarmonicVAE inside an estimator with its place, at any depth.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> vae = HarmonicVAE(max_epochs=0, hidden_dims=()).fit(np.eye(3))
    >>> [place for place, _ in fitted_vaes(make_pipeline(make_pipeline(vae)))]
    ['pipeline__harmonicvae']
    """
    yield from _walk(estimator, place, set())


def curves_of(estimator: Any) -> dict[str, dict[str, list[float]]]:
    """Return ``history_`` of every HarmonicVAE inside an estimator, by place and column."""
    return {
        place: {str(column): values.tolist() for column, values in vae.history_.items()}
        for place, vae in fitted_vaes(estimator)
    }


def _walk(value: Any, place: str, seen: set[int]) -> Iterator[tuple[str, HarmonicVAE]]:
    if id(value) in seen:
        return
    if isinstance(value, HarmonicVAE):
        seen.add(id(value))
        if hasattr(value, "history_"):
            yield place, value
    elif isinstance(value, BaseEstimator):
        seen.add(id(value))
        for name, part in vars(value).items():
            listed = isinstance(part, (list, tuple))  # steps and the like name their parts
            yield from _walk(part, place if listed else _below(place, name), seen)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _walk(part, _below(place, str(name)), seen)
    elif isinstance(value, (list, tuple)):
        if value and isinstance(value[0], str):  # (name, estimator, ...)
            place, value = _below(place, value[0]), value[1:]
            parts = [(place, part) for part in value]
        elif all(isinstance(part, BaseEstimator) for part in value):
            parts = [(_below(place, str(index)), part) for index, part in enumerate(value)]
        else:
            parts = [(place, part) for part in value if isinstance(part, (list, tuple))]
        for below, part in parts:
            yield from _walk(part, below, seen)


def _below(place: str, name: str) -> str:
    return f"{place}__{name}" if place else name


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a recording scorer takes to the workers."""

    token: str
    searched: tuple[str, ...]
    error_score: Any

    def __call__(self, scores: Any, estimator: Any, error: str = "") -> Any:
        """Return scores of which one carries the record; the same again for train scores."""
        if not _scored_first(estimator):
            return scores
        named = scores if isinstance(scores, dict) else {"score": scores}
        plain = {name: _plain(value) for name, value in named.items()}
        numeric = {name: value for name, value in plain.items() if value is not None}
        if not numeric:
            return scores
        params = estimator.get_params(deep=True)
        failed = [f"{k}: {last_line(v)}" for k, v in named.items() if isinstance(v, str)]
        record = FoldRecord(
            key=uuid.uuid4().hex,
            params=tuple((name, parameter_text(params.get(name))) for name in self.searched),
            scores=numeric,
            curves=curves_of(estimator),
            finished=time.time(),
            error=error or "; ".join(failed),
        )
        first = next(iter(numeric))
        score = deliver(numeric[first], record, self.token)
        return {**scores, first: score} if isinstance(scores, dict) else score


def _plain(score: Any) -> float | None:
    """Return a score as scikit-learn will read it, None for what is no real number."""
    if hasattr(score, "item"):
        with suppress(ValueError):
            score = score.item()
    return float(score) if isinstance(score, numbers.Real) else None


def _scored_first(estimator: Any) -> bool:
    """Tell the first scoring of a fitted estimator, its test score, from later ones."""
    last = getattr(_LAST, "estimator", None)
    if last is not None and last() is estimator:
        return False
    _LAST.estimator = weakref.ref(estimator)
    return True


def last_line(text: str) -> str:
    """Return the last line of a traceback: type and message of the error."""
    return (text.strip().splitlines() or [""])[-1]


class RecordingScorer:
    """A scorer that gives the same scores and records; everything else is the scorer's own."""

    def __init__(self, scorer: Callable[..., Any], recording: Recording) -> None:
        self.__wrapped__ = scorer
        self._recording = recording

    def __call__(self, estimator: Any, *args: Any, **kwargs: Any) -> Any:
        """Score; an error that the search is to survive is warned of as it would warn."""
        error = ""
        try:
            scores = self.__wrapped__(estimator, *args, **kwargs)
        except Exception:
            if not isinstance(self._recording.error_score, numbers.Real):
                raise
            scores, error = self._recording.error_score, traceback.format_exc()
            warnings.warn(
                "Scoring failed. The score on this train-test partition for these parameters "
                f"will be set to {scores}. Details: \n{error}",
                UserWarning,
                stacklevel=2,
            )
        return self._recording(scores, estimator, last_line(error))

    def __getattr__(self, name: str) -> Any:
        """Metadata routing asks the scorer itself."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        """Show the scorer."""
        return repr(self.__wrapped__)


class RecordingMultimetric(_MultimetricScorer):
    """scikit-learn's scorer of several metrics, recording."""

    def __init__(self, scorer: Any, recording: Recording) -> None:
        super().__init__(scorers=scorer._scorers, raise_exc=scorer._raise_exc)
        self._recording = recording

    def __call__(self, estimator: Any, *args: Any, **kwargs: Any) -> Any:
        """Score by every metric."""
        return self._recording(super().__call__(estimator, *args, **kwargs), estimator)
