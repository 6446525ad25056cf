"""Fitting many estimators on the same data at once, as one batched program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harmonicvae.exceptions import InputError
from harmonicvae.models import parameters as checks
from harmonicvae.models.estimator import HarmonicVAE
from harmonicvae.models.fitting import warn_of_collapse
from harmonicvae.models.group_checkpoints import check_folder
from harmonicvae.models.group_training import GroupTraining, Member
from harmonicvae.models.groups import is_stackable, together_groups
from harmonicvae.models.inputs import check_rows
from harmonicvae.models.net import EpochHook

Hook = Callable[[Mapping[str, float]], Any]


def fit_together(
    estimators: Sequence[HarmonicVAE],
    X: Any,
    *,
    hooks: Sequence[Hook | None] | None = None,
    keys: Sequence[str] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 10.0,
    on_error: str = "raise",
) -> list[Exception | None]:
    """Fit estimators on the same data at once; each ends as after its own ``fit(X)``.

    Parameters
    ----------
    estimators : sequence of HarmonicVAE
        Different objects; fitted in place.  Those that
        :func:`harmonicvae.models.groups.can_train_together` are trained as stacks, any
        others one after another.
    X : array-like of shape (n, d)
        Samples of all; 8-bit images stay 8-bit.
    hooks : sequence of callable or None, default=None
        One an estimator, called as ``hook(row)`` with the figures of
        :data:`harmonicvae.names.HISTORY_COLUMNS` after every epoch.
    keys : sequence of str or None, default=None
        Different names of the estimators in checkpoints; None takes their positions.
    checkpoint_dir : path-like or None, default=None
        Folder of the checkpoint, for this call only; where it holds one, training goes on
        from there.  Several groups each get a folder ``group-N`` inside.  Estimators that
        cannot be stacked are not covered: they have ``checkpoint_path``.
    checkpoint_seconds : float ≥ 0, default=10.0
        Least time between two checkpoints; 0 writes one an epoch.  The last epoch is
        always written.
    on_error : {"raise", "return"}, default="raise"
        Whether the first estimator's failure is raised, after all others are fitted, or
        all are only returned.

    Returns
    -------
    list of Exception or None
        Why each estimator was not fitted, in their order.

    Raises
    ------
    InputError
        If X, an option or the checkpoint is not valid (the checkpoint is damaged, or of
        other parameters, seeds or data); by ``on_error="raise"`` also if an estimator's
        parameter is not.
    DivergenceError
        By ``on_error="raise"``, if a model's loss became NaN or infinite.

    Notes
    -----
    Initial weights, batch order and noise are those of single training, bit for bit.  On
    the CPU stacks of one model give the very weights of single training; larger ones
    agree to the rounding of batched matrix products, which Adam lets grow: relative to
    the largest value of each tensor 4e-5 after one epoch of sinc and 7e-5 after 100, the
    losses 4e-6 (results/benchmarks/together.json).  On a GPU this is not measured.
    ``epoch_seconds`` is a model's share of its stack's time.  A failed model, also
    by its own hook, changes no other.  Resumed after any interruption, the result is
    bit-identical to the uninterrupted one on the same machine with the same thread count;
    hooks hear again of epochs after the last checkpoint.  Each file of a checkpoint can
    also be continued singly, ``fit(X, resume_from=file)``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data / 8 - 1
    >>> grid = [HarmonicVAE(encoder_std=s, max_epochs=2, random_state=0) for s in (0.1, 0.5)]
    >>> fit_together(grid, X)
    [None, None]
    >>> grid[1].transform(X).shape
    (1797, 2)
    """
    estimators = _check_estimators(estimators)
    checks.check_choice("on_error", on_error, ("raise", "return"))
    seconds = checks.check_real("checkpoint_seconds", checkpoint_seconds, 0)
    told = _check_hooks(hooks, len(estimators))
    named = _check_keys(keys, len(estimators))
    folder = None if checkpoint_dir is None else check_folder(checkpoint_dir)
    failures = _invalid(estimators)
    valid = [index for index, failure in enumerate(failures) if failure is None]
    if on_error == "raise":
        _raise_first(failures)
    rows = _check_shared_rows([estimators[index] for index in valid], X)
    parts = together_groups([estimators[index] for index in valid])
    groups = [[valid[i] for i in part] for part in parts]
    stacked = [group for group in groups if is_stackable(estimators[group[0]])]
    for group in groups:
        if group in stacked:
            members = [Member(estimators[i], named[i], told[i]) for i in group]
            place = _group_folder(folder, stacked, group)
            GroupTraining(members, rows, place, seconds).run()
            for index, member in zip(group, members):
                failures[index] = member.failure
        else:
            failures[group[0]] = _fit_singly(estimators[group[0]], X, told[group[0]])
    for estimator, failure in zip(estimators, failures):
        if failure is None and is_stackable(estimator) and estimator.n_iter_:
            warn_of_collapse(estimator.collapse_)
    if on_error == "raise":
        _raise_first(failures)
    return failures


def _group_folder(folder: Path | None, stacked: list[list[int]], group: list[int]) -> Path | None:
    """Return where a group's checkpoint goes."""
    if folder is None or len(stacked) == 1:
        return folder
    return check_folder(folder / f"group-{stacked.index(group)}")


def _fit_singly(estimator: HarmonicVAE, X: Any, hook: Hook | None) -> Exception | None:
    """Fit an estimator that cannot be stacked; return why it failed."""
    callbacks = estimator.callbacks
    try:
        if hook is not None:
            estimator.callbacks = [*(callbacks or []), EpochHook(hook)]
        estimator.fit(X)
    except Exception as error:
        return error
    finally:
        estimator.callbacks = callbacks
    return None


def _check_estimators(estimators: Any) -> list[HarmonicVAE]:
    listed = list(estimators)
    if not listed:
        raise InputError("estimators must hold at least one HarmonicVAE, got none")
    for estimator in listed:
        if not isinstance(estimator, HarmonicVAE):
            raise InputError(f"estimators must be of HarmonicVAE, got {estimator!r}")
    if len({id(estimator) for estimator in listed}) < len(listed):
        raise InputError("estimators must be different objects, got one of them twice; clone it")
    return listed


def _check_hooks(hooks: Any, count: int) -> list[Hook | None]:
    told = [None] * count if hooks is None else list(hooks)
    if len(told) != count or not all(hook is None or callable(hook) for hook in told):
        raise InputError(
            f"hooks must be {count} functions or None, one an estimator, got {hooks!r}"
        )
    return told


def _check_keys(keys: Any, count: int) -> list[str]:
    named = [str(index) for index in range(count)] if keys is None else list(keys)
    whole = len(named) == count and all(isinstance(key, str) for key in named)
    if not whole or len(set(named)) < count:
        raise InputError(f"keys must be {count} different strings, one an estimator, got {keys!r}")
    return named


def _invalid(estimators: Sequence[HarmonicVAE]) -> list[Exception | None]:
    """Return what is wrong with each estimator's parameters."""
    found: list[Exception | None] = []
    for estimator in estimators:
        try:
            checks.check_parameters(estimator.get_params(deep=False))
            checks.check_device(estimator.device)
            found.append(None)
        except InputError as error:
            found.append(error)
    return found


def _raise_first(failures: Sequence[Exception | None]) -> None:
    for failure in failures:
        if failure is not None:
            raise failure


def _check_shared_rows(estimators: Sequence[HarmonicVAE], X: Any) -> Any:
    """Check X once and give all estimators its number and names of features."""
    if not estimators:
        return None
    first, *others = estimators
    rows = check_rows(first, X, reset=True)
    for other in others:
        other.n_features_in_ = first.n_features_in_
        other.__dict__.pop("feature_names_in_", None)
        if hasattr(first, "feature_names_in_"):
            other.feature_names_in_ = first.feature_names_in_.copy()
    return rows
