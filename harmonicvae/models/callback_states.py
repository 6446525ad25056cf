"""What callbacks remember, in a form that a checkpoint without pickled code can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from harmonicvae.models.plain import is_plain, to_plain

#: Attributes of skorch's scoring callbacks that every epoch starts anew.
_CACHES = frozenset({"y_trues_", "y_preds_"})
#: Key of the state of a callback that has ``state_dict`` and ``load_state_dict`` itself.
_WHOLE = ""


class _Opaque:
    """Something that only code could rebuild; equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opaque) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def observe(callback: Any) -> dict[str, Any]:
    """Return a snapshot of a callback's attributes, to compare later ones with.

    Parameters
    ----------
    callback : object

    Returns
    -------
    dict
        Attribute ↦ encoded value; one entry for a callback with ``state_dict`` and
        ``load_state_dict``.
    """
    if _has_state_dict(callback):
        return {_WHOLE: _encode(callback)}
    return {key: _encode(value) for key, value in vars(callback).items() if key not in _CACHES}


def changes(callback: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed since a snapshot.

    Parameters
    ----------
    callback : object
    before : mapping
        From :func:`observe`.

    Returns
    -------
    dict
        ``kept``: attribute ↦ encoded new value; ``lost``: names of changed attributes
        that no checkpoint can hold.  skorch's own callbacks lose nothing that matters
        (progress bars, clients of loggers).
    """
    changed = {
        key: value
        for key, value in observe(callback).items()
        if key not in before or not _same(value, before[key])
    }
    lost = [key for key, value in changed.items() if not _is_storable(value)]
    kept = {key: value for key, value in changed.items() if key not in lost}
    if type(callback).__module__.startswith("skorch."):
        lost = [key for key in lost if not isinstance(changed[key], _Opaque)]
    return {"kept": kept, "lost": sorted(lost)}


def restore(callback: Any, kept: Mapping[str, Any]) -> None:
    """Give a callback the changed attributes of a checkpoint.

    Parameters
    ----------
    callback : object
        Of the same kind, after its ``on_train_begin``.
    kept : mapping
        From :func:`changes`.
    """
    for key, value in kept.items():
        if isinstance(value, tuple) and value[0] == "state_dict":
            target = callback if key == _WHOLE else getattr(callback, key)
            target.load_state_dict(_decode(value[1]))
        else:
            setattr(callback, key, _decode(value))


def steers_training(kept: Mapping[str, Any]) -> bool:
    """Tell whether a stored state is one of a learning-rate scheduler or the like.

    Examples
    --------
    >>> steers_training({"misses_": 2})
    False
    """
    return any(isinstance(value, tuple) and value[0] == "state_dict" for value in kept.values())


def _has_state_dict(value: Any) -> bool:
    has_both = hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
    return has_both and not isinstance(value, type)


def _encode(value: Any) -> Any:
    """Return plain values, tensors and lists; anything else as a tagged tuple."""
    plain = to_plain(value) if isinstance(value, np.generic) else value
    if is_plain(plain):
        return plain
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return "array", torch.from_numpy(value.copy())
    if type(value) is list:
        return [_encode(item) for item in value]
    if type(value) in (tuple, set, frozenset):
        return type(value).__name__, [_encode(item) for item in value]
    if isinstance(value, Mapping):
        kind = "Counter" if isinstance(value, Counter) else "dict"
        return kind, [[_encode(key), _encode(item)] for key, item in value.items()]
    if _has_state_dict(value):
        return "state_dict", _encode(value.state_dict())
    return _Opaque(value)


def _pairs(items: Any) -> dict[Any, Any]:
    return {_decode(key): _decode(value) for key, value in items}


_DECODERS: dict[str, Any] = {
    "array": lambda stored: stored.numpy().copy(),
    "tuple": lambda stored: tuple(map(_decode, stored)),
    "set": lambda stored: set(map(_decode, stored)),
    "frozenset": lambda stored: frozenset(map(_decode, stored)),
    "dict": _pairs,
    "Counter": lambda stored: Counter(_pairs(stored)),
}


def _decode(value: Any) -> Any:
    """Undo :func:`_encode`."""
    if isinstance(value, tuple):
        kind, stored = value
        return _DECODERS[kind](stored)
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value


def _same(first: Any, second: Any) -> bool:
    """Compare encoded values; a set's order counts, which at worst stores it again."""
    if isinstance(first, torch.Tensor) or isinstance(second, torch.Tensor):
        both = isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
        return both and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, (list, tuple)):
        return (
            type(first) is type(second)
            and len(first) == len(second)
            and all(map(_same, first, second))
        )
    return type(first) is type(second) and first == second


def _is_storable(value: Any, *, inside: bool = False) -> bool:
    """Tell whether a checkpoint can hold a value; state_dict needs its owner to exist."""
    if isinstance(value, tuple) and value[0] == "state_dict":
        return not inside and _is_storable(value[1], inside=True)
    if isinstance(value, (list, tuple)):
        return all(_is_storable(item, inside=True) for item in value)
    return not isinstance(value, _Opaque)
