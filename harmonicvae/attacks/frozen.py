"""The attacked encoder and decoder, copied, in eval mode and without parameter gradients.

The caller's modules are never changed: not their mode, not ``requires_grad``, not their
dtype.  Two copies are made: one in the module's own dtype for the search, one in float64
for the verdict.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harmonicvae.exceptions import InputError

_REFUSALS = (RuntimeError, TypeError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Responder:
    """Encoder and decoder on flat inputs, in one dtype on one device.

    Parameters
    ----------
    encode, decode : callable
        p: (rows, d) → codes, and g: codes → (rows, …).
    dtype : torch.dtype
        Of inputs and outputs.
    device : torch.device
        Where both run.
    deviation : float, callable or None, default=None
        Encoder standard deviation σ: a number, or a callable (rows, d) → (rows, latent_dim).
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device
    deviation: float | Callable[[Tensor], Tensor] | None = None

    def __call__(self, points: Tensor) -> Tensor:
        """Return g(p(points)), flattened to one row per point."""
        return self.decoding(self.code(points))

    def code(self, points: Tensor) -> Tensor:
        """Return p(points)."""
        return _checked(self.encode(points), "encode", len(points))

    def decoding(self, code: Tensor) -> Tensor:
        """Return g(code), flattened to one row per code."""
        return _checked(self.decode(code), "decode", len(code)).reshape(len(code), -1)

    def spread(self, points: Tensor, code: Tensor) -> Tensor:
        """Return σ at the points: a number, or what has the shape of the code or one column."""
        if not callable(self.deviation):
            return torch.as_tensor(self.deviation, dtype=self.dtype, device=self.device)
        found = _checked(self.deviation(points), "encode_std", len(points))
        if found.shape == code.shape:
            return found
        if found.shape == (len(code), 1):
            return found.reshape(len(code), *[1] * (code.ndim - 1))
        raise InputError(
            f"encode_std must return one number a code unit, of shape {tuple(code.shape)}, "
            f"got {tuple(found.shape)}"
        )


def _checked(output: object, name: str, rows: int) -> Tensor:
    """Refuse anything but a tensor with one row per input."""
    if not isinstance(output, Tensor):
        raise InputError(
            f"{name} must return a tensor, got {type(output).__name__}; for a pair (mean, std) "
            f"pass e.g. lambda x: {name}(x)[0]"
        )
    if output.ndim == 0 or len(output) != rows:
        raise InputError(
            f"{name} must return one row per input, got shape {tuple(output.shape)} for {rows} rows"
        )
    return output


@dataclass(frozen=True)
class FrozenPair:
    """What the attacks run on and are judged by.

    Parameters
    ----------
    search : Responder
        In the modules' dtype (half precisions are raised to float32).
    exact : Responder
        In float64; equal to ``search`` where the callables refuse float64.
    fine : Responder
        Another copy as ``exact``, to search with where float32 is too coarse.
    notes : tuple of str
        What the caller should know, e.g. modules that were in train mode.
    """

    search: Responder
    exact: Responder
    fine: Responder
    notes: tuple[str, ...]


def freeze(
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    x: Tensor,
    deviation: float | Callable[[Tensor], Tensor] | None = None,
) -> FrozenPair:
    """Copy encoder and decoder into the search and the float64 form.

    Parameters
    ----------
    encode, decode : callable
        Modules, bound methods of modules, or plain functions on tensors.
    x : Tensor of shape (n, d)
        Inputs; their dtype and device are used where the callables hold no parameters.
    deviation : float, callable or None, default=None
        Encoder standard deviation, where the attack needs it.

    Returns
    -------
    FrozenPair

    Raises
    ------
    InputError
        If one is not callable, cannot be copied, or fails on the first input.

    Notes
    -----
    Modules are found as the callable itself or as the object a bound method belongs to.
    A plain function that closes over a module in train mode is run as it is.

    Examples
    --------
    >>> pair = freeze(torch.nn.Linear(3, 2), lambda code: 2 * code, torch.zeros(1, 3))
    >>> pair.search.dtype, pair.exact.dtype
    (torch.float32, torch.float64)
    >>> pair.notes
    ('encode was in train mode; a copy in eval mode was attacked',)
    """
    named = [("encode", encode), ("decode", decode)]
    for name, function in named:
        if function is None:
            raise InputError(f"{name} is needed: a maximum-damage attack runs the whole model")
        if not callable(function):
            raise InputError(
                f"{name} must be callable on tensors of shape (n, d), got {type(function).__name__}"
            )
    if callable(deviation):
        named.append(("encode_std", deviation))
    notes = [
        f"{name} was in train mode; a copy in eval mode was attacked"
        for name, function in named
        if (owner := _owner(function)) is not None and any(m.training for m in owner.modules())
    ]
    functions = _Functions(encode, decode, deviation)
    search = _search(functions, x)
    exact, refusal = _attempt(functions, x, torch.float64, search.device)
    if exact is None:
        kind = str(search.dtype).removeprefix("torch.")
        notes.append(
            f"the callables refuse float64, damage was evaluated in {kind} ({refusal}); "
            "pass modules, or functions that follow the dtype of their input"
        )
    judging = exact or functions.responder(search.dtype, search.device)
    fine = functions.responder(judging.dtype, judging.device)
    return FrozenPair(search=search, exact=judging, fine=fine, notes=tuple(notes))


def _owner(function: object) -> nn.Module | None:
    """Return the module behind a callable, if it is one or a bound method of one."""
    if isinstance(function, nn.Module):
        return function
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _copy(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return an eval-mode copy in ``dtype``; plain functions are returned as they are."""
    owner = _owner(function)
    if owner is None:
        return function
    try:
        frozen = copy.deepcopy(owner)
    except Exception as error:
        raise InputError(
            f"{type(owner).__name__} must be copyable with copy.deepcopy, got: {error}; "
            "pass a function such as lambda x: module(x)"
        ) from error
    frozen = frozen.to(dtype).eval().requires_grad_(False)
    return frozen if owner is function else getattr(frozen, function.__name__)


@dataclass(frozen=True)
class _Functions:
    """What the caller gave."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    deviation: float | Callable[[Tensor], Tensor] | None

    def responder(self, dtype: torch.dtype, device: torch.device) -> Responder:
        """Return copies in one dtype."""
        spread = self.deviation
        if callable(spread):
            spread = _copy(spread, dtype)
        encode, decode = _copy(self.encode, dtype), _copy(self.decode, dtype)
        return Responder(encode, decode, dtype, device, spread)


def _attempt(
    functions: _Functions, x: Tensor, dtype: torch.dtype, device: torch.device
) -> tuple[Responder | None, str]:
    """Return the pair in ``dtype`` and "", or None and why it cannot run in it."""
    responder = functions.responder(dtype, device)
    try:
        with torch.no_grad():
            first = x[:1].to(device, dtype)
            output = responder(first)
            if callable(responder.deviation):
                responder.spread(first, responder.code(first))
    except InputError:
        raise
    except _REFUSALS as error:
        return None, str(error).splitlines()[0] if str(error) else type(error).__name__
    if output.dtype != dtype:
        return None, f"they return {str(output.dtype).removeprefix('torch.')}"
    return responder, ""


def _search(functions: _Functions, x: Tensor) -> Responder:
    """Return the pair in its own dtype: that of its parameters, else the first that runs."""
    both = (functions.encode, functions.decode)
    owners = [owner for owner in map(_owner, both) if owner is not None]
    held = [p for owner in owners for p in owner.parameters() if p.is_floating_point()]
    device = held[0].device if held else x.device
    first = held[0].dtype if held else x.dtype
    options = [torch.float32, torch.float64]
    options.sort(key=lambda dtype: dtype != first)
    refusal = ""
    for dtype in options:
        responder, why = _attempt(functions, x, dtype, device)
        if responder is not None:
            return responder
        refusal = refusal or why
    raise InputError(
        f"encode and decode must run on inputs of shape (n, {x.shape[1]}), got: {refusal}; "
        "check that decode takes what encode returns"
    )
