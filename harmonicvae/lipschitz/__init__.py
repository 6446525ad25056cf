"""Bounds of the ℓ2 Lipschitz constant of feed-forward networks, from both sides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, as_network
from harmonicvae.lipschitz.certificate import verify_certificate
from harmonicvae.lipschitz.eclipse import EclipseFast
from harmonicvae.lipschitz.lower import sampled_jacobian_norm
from harmonicvae.lipschitz.spectral import NormProduct
from harmonicvae.records import Bound, Bracket

__all__ = [
    "METHODS",
    "Candidate",
    "LipschitzMethod",
    "bound",
    "bracket",
    "lower_bound",
    "sampled_jacobian_norm",
    "verify_certificate",
]

#: Upper bounds by name, cheapest first.
METHODS: MappingProxyType[str, type[LipschitzMethod]] = MappingProxyType(
    {method.name: method for method in (NormProduct, EclipseFast)}
)


def bound(network: Any, method: str = "best", reproduction_errors: Iterable[str] = ()) -> Bound:
    """Compute a certified upper bound of a network's ℓ2 Lipschitz constant.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    method : str, default="best"
        Key in :data:`METHODS`; "best" runs all and returns the smallest certified bound.
    reproduction_errors : iterable of str, default=()
        "slope_one" gives every activation the slope range [0, 1].

    Returns
    -------
    Bound
        In output units per input unit; ``status="certified"`` if proved with all
        rounding errors. "best" adds ``details["compared"]``, the value of each method,
        and counts the time of all.

    Raises
    ------
    InputError
        If a name is unknown or the network is neither.
    UnsupportedNetworkError
        If a layer has no exact form.

    Notes
    -----
    Global: for all pairs of inputs. Cost: see the methods.

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
    errors = (
        tuple(reproduction_errors)
        if not isinstance(reproduction_errors, str)
        else (reproduction_errors)
    )
    if method in METHODS:
        return METHODS[method]().bound(network, errors)
    if method != "best":
        raise InputError(f"method must be 'best' or one of {sorted(METHODS)}, got {method!r}")
    network = as_network(network)
    results = [METHODS[name]().bound(network, errors) for name in METHODS]
    proved = [result for result in results if result.status == "certified"]
    smallest = min(proved, key=lambda result: result.value)
    compared = {result.method: result.value for result in results}
    return replace(
        smallest,
        seconds=sum(result.seconds for result in results),
        details={**smallest.details, "compared": compared},
    )


def lower_bound(network: Any, x: Any, **options: Any) -> Bound:
    """Compute a lower bound of a network's ℓ2 Lipschitz constant from sample inputs.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    x : array-like of shape (n, ...)
        Inputs, n ≥ 1.
    **options
        Passed to :func:`sampled_jacobian_norm` (n_steps, n_starts, tol, max_iter).

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
    return sampled_jacobian_norm(network, x, **options)


def bracket(
    network: Any,
    x: Any,
    method: str = "best",
    reproduction_errors: Iterable[str] = (),
    **options: Any,
) -> Bracket:
    """Compute an upper and a lower bound of a network's ℓ2 Lipschitz constant.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module
        Any network that can be represented exactly.
    x : array-like of shape (n, ...)
        Inputs for the lower bound, n ≥ 1.
    method, reproduction_errors
        Passed to :func:`bound`; the errors do not act on the lower bound.
    **options
        Passed to :func:`lower_bound`.

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

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> round(bracket(network, [[0.0]]).ratio, 9)
    1.0
    """
    network = as_network(network)
    upper = bound(network, method, reproduction_errors)
    return Bracket(lower=lower_bound(network, x, **options), upper=upper)
