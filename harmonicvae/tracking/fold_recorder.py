"""Recording a search's folds while it runs, where it runs, and saying which is which."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sklearn.metrics._scorer import _MultimetricScorer

from harmonicvae.tracking.fold_records import (
    ARRIVED,
    FoldRecord,
    RecordedScore,
    Recording,
    RecordingMultimetric,
    RecordingScorer,
    last_line,
)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold of one candidate, as the search counts them.

    ``record`` is None where nothing was scored; ``seconds`` are those of fit and score.
    """

    candidate: int
    fold: int
    params: Mapping[str, Any]
    record: FoldRecord | None = None
    error: str = ""
    seconds: float = 0.0


class _Hook:
    """A method of one search object that stays behind when the object goes to a worker."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _Hook, (None,)


class FoldRecorder:
    """Gather the records of one search while it runs.

    Parameters
    ----------
    search : BaseSearchCV
    """

    def __init__(self, search: Any) -> None:
        self.search, self.token = search, uuid.uuid4().hex
        self._arrived: dict[str, FoldRecord] = {}
        self._placed: list[Fold] = []

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Take the records of scores that are unpickled in this process."""
        ARRIVED[self.token] = self._arrived
        try:
            yield
        finally:
            del ARRIVED[self.token]

    def get_scorers(self) -> tuple[Any, Any]:
        """Return the search's scorers, recording."""
        scorer, metric = type(self.search)._get_scorers(self.search)
        recording = Recording(
            token=self.token,
            searched=searched_parameters(self.search),
            error_score=self.search.error_score,
        )
        several = isinstance(scorer, _MultimetricScorer)
        return (RecordingMultimetric if several else RecordingScorer)(scorer, recording), metric

    def format_results(
        self, candidates: Sequence[Any], n_splits: int, out: Sequence[Any], *args: Any, **kw: Any
    ) -> Any:
        """Note which record belongs to which fold, then format as the search does."""
        self._placed = [
            _fold(index, n_splits, candidates, result) for index, result in enumerate(out)
        ]
        return type(self.search)._format_results(
            self.search, candidates, n_splits, out, *args, **kw
        )

    def folds(self) -> list[Fold]:
        """Return all folds: those of finished iterations, then what else has arrived.

        Of the latter the search has not told their place: candidates and folds are
        counted in the order of arrival.
        """
        known = {fold.record.key for fold in self._placed if fold.record}
        start = 1 + max((fold.candidate for fold in self._placed), default=-1)
        counts: dict[Any, int] = {}
        folds = list(self._placed)
        for record in [item for key, item in self._arrived.items() if key not in known]:
            count = counts[record.params] = counts.get(record.params, -1) + 1
            candidate = start + list(counts).index(record.params)
            folds.append(
                Fold(candidate=candidate, fold=count, params=dict(record.params), record=record)
            )
        return sorted(folds, key=lambda fold: (fold.candidate, fold.fold))


def _fold(index: int, n_splits: int, candidates: Sequence[Any], result: Mapping[str, Any]) -> Fold:
    """Return one entry of a search's raw results."""
    scores = result["test_scores"]
    values = list(scores.values()) if isinstance(scores, dict) else [scores]
    records = [value.record for value in values if isinstance(value, RecordedScore)]
    record = records[0] if records else None
    error = last_line(result.get("fit_error") or "")
    if not error:
        error = record.error if record else "no metric could be computed"
    return Fold(
        candidate=index // n_splits,
        fold=index % n_splits,
        params=candidates[index // n_splits],
        record=record,
        error=error,
        seconds=float(result.get("fit_time", 0.0)) + float(result.get("score_time", 0.0)),
    )


def searched_parameters(search: Any) -> tuple[str, ...]:
    """Return the names of all parameters that a search varies, sorted.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.model_selection import GridSearchCV
    >>> searched_parameters(GridSearchCV(PCA(), [{"whiten": [True]}, {"n_components": [1]}]))
    ('n_components', 'whiten')
    """
    own = [getattr(search, name, None) for name in ("param_grid", "param_distributions")]
    grids = [grid for part in own for grid in (part if isinstance(part, list) else [part])]
    names = {name for grid in grids if isinstance(grid, Mapping) for name in grid}
    if getattr(search, "resource", "n_samples") != "n_samples":
        names.add(search.resource)
    return tuple(sorted(names))


@contextmanager
def recording(search: Any) -> Iterator[FoldRecorder]:
    """Record the folds of a search that is fitted inside; afterwards it is as before.

    Parameters
    ----------
    search : BaseSearchCV

    Yields
    ------
    FoldRecorder
    """
    recorder = FoldRecorder(search)
    hooks = {
        "_get_scorers": _Hook(recorder.get_scorers),
        "_format_results": _Hook(recorder.format_results),
    }
    try:
        with recorder.receiving():
            vars(search).update(hooks)
            yield recorder
    finally:
        for name in hooks:
            vars(search).pop(name, None)
        if isinstance(vars(search).get("scorer_"), RecordingScorer):
            search.scorer_ = search.scorer_.__wrapped__
