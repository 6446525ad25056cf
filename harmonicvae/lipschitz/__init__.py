"""Bounds of the ℓ2 Lipschitz constant of feed-forward networks, from both sides."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, Progress, Task, as_network
from harmonicvae.lipschitz.certificate import verify_certificate
from harmonicvae.lipschitz.certificate_files import load_certificate, save_certificate
from harmonicvae.lipschitz.eclipse import Eclipse, EclipseFast
from harmonicvae.lipschitz.exact import verify_exactly
from harmonicvae.lipschitz.interval import IntervalBranchAndBound, exact_constant
from harmonicvae.lipschitz.lipsdp import LipSDPLayer, LipSDPNeuron
from harmonicvae.lipschitz.lower import sampled_jacobian_norm
from harmonicvae.lipschitz.sdp.conic import LipSDPConic
from harmonicvae.lipschitz.slopes import slope_ranges
from harmonicvae.lipschitz.spectral import NormProduct
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bound, Bracket
from harmonicvae.reproduction import LIPSCHITZ_ERRORS, check_reproduction_errors
from harmonicvae.rounding import product_up

__all__ = [
    "METHODS",
    "Candidate",
    "LipschitzMethod",
    "Task",
    "bound",
    "bracket",
    "exact_constant",
    "load_certificate",
    "lower_bound",
    "module_norm_product",
    "sampled_jacobian_norm",
    "save_certificate",
    "verify_certificate",
    "verify_exactly",
]

#: Upper bounds by name, cheapest first; the oracle last.
METHODS: MappingProxyType[str, type[LipschitzMethod]] = MappingProxyType(
    {
        method.name: method
        for method in (
            NormProduct,
            EclipseFast,
            Eclipse,
            LipSDPLayer,
            LipSDPNeuron,
            IntervalBranchAndBound,
            LipSDPConic,
        )
    }
)

#: What "best" runs, cheapest first.
BEST = ("norm_product", "eclipse_fast", "interval", "lipsdp_neuron")


def bound(
    network: Any,
    method: str = "best",
    reproduction_errors: Iterable[str] = (),
    *,
    slopes: str | None = None,
    box: Sequence[Any] | None = None,
    progress: Progress | None = None,
    known: Sequence[Bound] = (),
    **options: Any,
) -> Bound:
    """Compute a certified upper bound of a network's ℓ2 Lipschitz constant.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    method : str, default="best"
        Key in :data:`METHODS`; "best" runs those in :data:`BEST` that apply and returns the
        smallest certified bound.
    reproduction_errors : iterable of str, default=()
        "slope_one" gives every activation the slope range [0, 1]; the certificate then
        belongs to ``network.with_slopes(0, 1)``.
    slopes : {"activation", "propagated", "box"} or None, default=None
        How slope ranges are found. "activation": from the activation alone. "propagated":
        tightened by the ranges of activations with bounded outputs, still for all inputs.
        None: "box" if a box is given; else "propagated" for "best" without reproduction
        errors, and "activation" for a single method, as it is published.
    box : pair of float or array-like of shape (input_dim,), default=None
        Lower and upper ends of the inputs; the bound then holds inside only.
    progress : callable, default=None
        Called as ``progress(what, numbers)`` during long solves; True asks for an end with
        the best bound so far.
    known : sequence of Bound, default=()
        Bounds that were computed before with the same options and no box: "best" takes those
        of this network, these errors and the same slope ranges instead of computing them again.
    **options
        Parameters of the method, for instance ``split=2`` of "lipsdp_neuron".

    Returns
    -------
    Bound
        In output units per input unit; ``status="certified"`` if proved with all
        rounding errors. "best" adds ``details["compared"]``, the value of each method,
        and counts the time of all, known ones too.

    Raises
    ------
    InputError
        If a name or option is unknown, the network is neither, or the method does not
        apply to it.
    UnsupportedNetworkError
        If a layer has no exact form.

    Notes
    -----
    For all pairs of inputs, or in the box. Cost: see the methods.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> result = bound(network)
    >>> round(result.value, 9), result.status
    (1.5, 'certified')
    >>> round(bound(network, reproduction_errors=["slope_one"]).value, 9)
    6.0
    """
    network = as_network(network)
    errors = check_reproduction_errors(reproduction_errors, LIPSCHITZ_ERRORS)
    shared: dict[str, Any] = {"slopes": slopes, "box": box, "progress": progress}
    if isinstance(method, str) and method in METHODS:
        return _method(method, options).bound(network, errors, **shared)
    if method != "best":
        raise InputError(f"method must be 'best' or one of {sorted(METHODS)}, got {method!r}")
    if slopes is None and box is None and not errors:
        shared["slopes"] = "propagated"
    suited = {name: _known_options(name, options) for name in BEST}
    unused = set(options).difference(*suited.values())
    if unused:
        raise InputError(f"no method of 'best' has the option {', '.join(sorted(unused))}")
    if not isinstance(known, Sequence) or not all(isinstance(item, Bound) for item in known):
        raise InputError(f"known must be a sequence of Bound, got {known!r}")
    suitable = network.with_slopes(0.0, 1.0) if errors else network
    found = _applicable(known, suitable, errors, shared) if box is None else {}
    return _best(network, errors, suited, shared, found)


def _applicable(
    known: Sequence[Bound], network: LayeredNetwork, errors: Any, shared: dict[str, Any]
) -> dict[str, Bound]:
    """Return those of known bounds, by method, that would come out again."""
    rule = shared["slopes"] or "activation"
    rules = {rule}
    wanted = [
        item
        for item in known
        if (item.network_hash, item.status, item.scope) == (network.hash, "certified", "global")
        and item.details.get("reproduction_errors") == sorted(errors)
    ]
    if wanted and rule == "propagated" and _are_activations_own(network):
        rules.add("activation")
    return {
        item.method: replace(item, details={**item.details, "slopes": rule})
        for item in sorted(wanted, key=lambda item: -item.value)  # the smallest comes last
        if item.details.get("slopes") in rules
    }


def _are_activations_own(network: LayeredNetwork) -> bool:
    """Tell whether no neuron's slope range is narrower than that of its activation."""
    own, found = slope_ranges(network, "activation"), slope_ranges(network, "propagated")
    pairs = zip([*own.alphas, *own.betas], [*found.alphas, *found.betas])
    return all(np.array_equal(one, other) for one, other in pairs)


def _best(
    network: LayeredNetwork,
    errors: Any,
    options: dict[str, dict[str, Any]],
    shared: dict[str, Any],
    known: dict[str, Bound],
) -> Bound:
    """Run the methods of "best" and return the smallest certified bound."""
    stopped = False
    progress = shared["progress"]

    def watched(what: str, numbers: Any) -> bool:
        nonlocal stopped
        stopped = stopped or bool(progress and progress(what, numbers))
        return stopped

    results: list[Bound] = []
    for name in BEST:
        chosen = METHODS[name](**options[name])
        suitable = network.with_slopes(0.0, 1.0) if errors else network
        if chosen.unsuitable(suitable) or (results and watched(name, {})):
            continue
        results.append(
            known[name]
            if name in known
            else chosen.bound(network, errors, **{**shared, "progress": watched})
        )
        if "attained" in results[-1].details and not results[-1].message:
            break  # exact: nothing can be smaller by more than its tolerance
    proved = [result for result in results if result.status == "certified"]
    smallest = min(proved, key=lambda result: result.value)
    message = smallest.message
    if stopped and "stopped" not in message:
        message = f"{message}; stopped on request" if message else "stopped on request"
    return replace(
        smallest,
        message=message,
        seconds=sum(result.seconds for result in results),
        details={
            **smallest.details,
            "compared": {result.method: result.value for result in results},
        },
    )


def _method(name: str, options: dict[str, Any]) -> LipschitzMethod:
    """Return a method with its options."""
    known = _known_options(name, options)
    unknown = sorted(set(options) - set(known))
    if unknown:
        allowed = list(inspect.signature(METHODS[name]).parameters)
        raise InputError(f"{name} has the options {allowed}, got {', '.join(unknown)}")
    return METHODS[name](**known)


def _known_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options that a method has."""
    parameters = inspect.signature(METHODS[name]).parameters
    return {key: value for key, value in options.items() if key in parameters}


def module_norm_product(module: Any, input_shape: Any = None) -> Bound:
    """Bound a module's ℓ2 Lipschitz constant by layer norms, without the layers' matrices.

    Parameters
    ----------
    module : torch.nn.Module
        What :meth:`harmonicvae.network.LayeredNetwork.from_module` reads, of any size.
    input_shape : int, tuple of int or None, default=None
        Shape of one input without the batch, for instance (3, 224, 224).

    Returns
    -------
    Bound
        In output units per input unit, ``status="certified"``; ``details["norms"]`` has the
        bound of every affine layer by name, ``details["slopes"]`` the largest slope of
        every activation. There is no certificate, and the network has no hash.

    Raises
    ------
    UnsupportedNetworkError
        If a layer has no exact form.
    InputError
        If sizes do not fit or a parameter is not finite.
    SolverError
        If a norm could not be proved.

    Notes
    -----
    For all pairs of inputs. Norms of convolutions, with a batch normalisation right behind them,
    are those of :func:`harmonicvae.symbol_norms.convolution_norm`, which hold for images of any
    size: cost and memory do not depend on it. Looser than ``bound(network, "norm_product")``, which
    takes the image's own size and multiplies consecutive affine layers: for networks
    that are small enough, use that one, or better a method with a smaller bound.

    Examples
    --------
    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Sigmoid(), nn.AvgPool2d(2))
    >>> _ = nn.init.constant_(module[0].weight, 2.0)
    >>> result = module_norm_product(module, (1, 512, 512))
    >>> round(result.value, 6), list(result.details["norms"])
    (0.25, ["Conv2d at '0'", "AvgPool2d at '2'"])
    """
    from harmonicvae.lipschitz.module_products import norms_and_slopes  # torch: slow import

    started = time.perf_counter()
    norms, slopes = norms_and_slopes(module, input_shape)
    return Bound(
        kind="upper",
        value=product_up([*(norm for _, norm in norms), *slopes]),
        method="norm_product",
        status="certified",
        seconds=time.perf_counter() - started,
        details={"norms": dict(norms), "slopes": slopes},
    )


def lower_bound(network: Any, x: Any = None, **options: Any) -> Bound:
    """Compute a lower bound of a network's ℓ2 Lipschitz constant by gradient ascent.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    x : array-like of shape (n, ...), default=None
        Inputs, n ≥ 1, from which to start beside random ones.
    **options
        Passed to :func:`sampled_jacobian_norm` (n_steps, n_starts, n_random, box …).

    Returns
    -------
    Bound
        ``kind="lower"``, ``status="float64"``.

    Raises
    ------
    InputError
        If ``x`` does not fit the network.
    UnsupportedNetworkError
        If a layer has no exact form.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> lower_bound(network, [[0.0]]).value
    1.5
    """
    allowed = list(inspect.signature(sampled_jacobian_norm).parameters)[2:]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise InputError(f"a lower bound has the options {allowed}, got {', '.join(unknown)}")
    return sampled_jacobian_norm(network, x, **options)


def bracket(
    network: Any,
    x: Any = None,
    method: str = "best",
    reproduction_errors: Iterable[str] = (),
    *,
    slopes: str | None = None,
    box: Sequence[Any] | None = None,
    progress: Progress | None = None,
    known: Sequence[Bound] = (),
    **options: Any,
) -> Bracket:
    """Compute an upper and a lower bound of a network's ℓ2 Lipschitz constant.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    x : array-like of shape (n, ...), default=None
        Inputs from which the lower bound starts beside random ones.
    method, reproduction_errors, slopes, box, progress, known
        Passed to :func:`bound`; the errors do not act on the lower bound.
    **options
        Passed to :func:`bound` if a method has it, else to :func:`lower_bound`.

    Returns
    -------
    Bracket
        ``lower``, ``upper`` and their ``ratio``.

    Raises
    ------
    InputError
        If an argument does not fit.
    UnsupportedNetworkError
        If a layer has no exact form.
    SoundnessError
        If the lower bound exceeds the upper one.

    Notes
    -----
    For a network with one input the two meet, up to 1e-4: see :func:`exact_constant`.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> bracket(network).ratio < 1.0001
    True
    """
    network = as_network(network)
    names = BEST if method == "best" else (method,)
    own = {
        key: value
        for name in names
        if name in METHODS
        for key, value in _known_options(name, options).items()
    }
    rest = {key: value for key, value in options.items() if key not in own}
    shared: dict[str, Any] = {"slopes": slopes, "box": box, "progress": progress, "known": known}
    upper = bound(network, method, reproduction_errors, **shared, **own)
    lower = lower_bound(network, x, **({"box": box} if box is not None else {}), **rest)
    return Bracket.joined(lower, upper)
