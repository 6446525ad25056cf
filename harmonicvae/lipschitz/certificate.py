"""Proofs of upper bounds, separate from the solvers that propose them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.leaves import Leaves
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.lipschitz.products import LayerNorms, Split
from harmonicvae.lipschitz.proofs import CERTIFICATE_VERSION, Proof, Proposal
from harmonicvae.lipschitz.slopes import SlopeRanges, slope_ranges
from harmonicvae.network import LayeredNetwork

__all__ = ["KINDS", "LayerNorms", "Multipliers", "Proof", "Proposal", "Split", "prove"]
__all__ += ["verify_certificate"]

#: What proves a certificate again, by its kind. A module with another kind of proof derives a
#: proposal from :class:`harmonicvae.lipschitz.proofs.Proposal` and is listed here.
KINDS: dict[str, Callable[[Mapping[str, Any], LayeredNetwork], bool]] = {
    item.kind: item.verify for item in (LayerNorms, Leaves, Multipliers, Split)
}


def prove(
    network: LayeredNetwork, proposal: Proposal, slopes: SlopeRanges | None = None
) -> Proof | None:
    """Turn a solver's proposal into a proved bound.

    Parameters
    ----------
    network : LayeredNetwork
        The network with its original weights.
    proposal : Proposal
        Nothing about it is trusted.
    slopes : SlopeRanges or None
        Slope ranges, as from :func:`harmonicvae.lipschitz.slopes.slope_ranges`; None takes
        those of the activations. The bound holds where they hold.

    Returns
    -------
    Proof or None
        None if the proof does not succeed.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> round(prove(network, LayerNorms((0.501, 0.751))).value, 3)
    6.02
    >>> prove(network, LayerNorms((0.501, 0.749))) is None
    True
    """
    return proposal.prove(network, slopes or slope_ranges(network, "activation"))


def verify_certificate(certificate: Mapping[str, Any], network: LayeredNetwork) -> bool:
    """Prove a certified bound again from the weights, without any solver.

    Parameters
    ----------
    certificate : mapping
        ``Bound.certificate``, or the same read from a JSON file.
    network : LayeredNetwork
        The network it was given for.

    Returns
    -------
    bool
        True if ``certificate["value"]`` is proved to be an upper bound: for all inputs if
        ``certificate["scope"]`` is "global", else for those in
        ``certificate["slopes"]["box"]``.

    Raises
    ------
    InputError
        If the certificate belongs to another network, is of another version, incomplete
        or damaged.

    Notes
    -----
    In float64 with all rounding errors bounded; slope ranges are computed anew and those
    of the certificate taken only where they are wider. Cost O(Σ n_i³). See
    :func:`harmonicvae.lipschitz.exact.verify_exactly` for exact arithmetic.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> proof = prove(network, LayerNorms((0.501, 0.751)))
    >>> verify_certificate(proof.certificate, network)
    True
    >>> verify_certificate({**proof.certificate, "value": 5.9}, network)
    False
    """
    kind = checked_kind(certificate, network)
    if kind not in KINDS:
        raise InputError(f"unknown kind of certificate: {kind!r}; known are {sorted(KINDS)}")
    try:
        return KINDS[kind](certificate, network)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the certificate is incomplete or damaged: {error!r}") from error


def checked_kind(certificate: Mapping[str, Any], network: LayeredNetwork) -> str:
    """Return a certificate's kind, once version and network are known to fit.

    Raises
    ------
    InputError
        If they do not, or are missing.
    """
    if not isinstance(certificate, Mapping):
        raise InputError(f"a certificate must be a mapping, got {type(certificate).__name__}")
    missing = [key for key in ("version", "network_hash", "kind") if key not in certificate]
    if missing:
        raise InputError(f"the certificate is incomplete: {', '.join(missing)} missing")
    if certificate["version"] != CERTIFICATE_VERSION:
        raise InputError(
            f"version of the certificate must be {CERTIFICATE_VERSION}, "
            f"got {certificate['version']!r}; make it again"
        )
    if certificate["network_hash"] != network.hash:
        raise InputError(
            f"the certificate belongs to network {certificate['network_hash']!r}, "
            f"got {network.hash!r}; weights or slope ranges differ"
        )
    return str(certificate["kind"])
