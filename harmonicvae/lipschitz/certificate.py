"""Proofs of upper bounds, separate from the solvers that propose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz.chain import BlockChain, build_chain
from harmonicvae.lipschitz.lmi import LmiMatrix, Multipliers
from harmonicvae.network import LayeredNetwork

#: Largest factor by which ρ is raised above the solver's value, minus 1.
MAX_INFLATION = 1e-2


@dataclass(frozen=True)
class LayerNorms:
    """What the norm product proposes: a bound on the norm of each scaled block."""

    norms: tuple[float, ...]


@dataclass(frozen=True)
class Proof:
    """A proved upper bound.

    Parameters
    ----------
    value : float
        The bound, all rounding errors included.
    certificate : mapping
        Plain values from which :func:`verify_certificate` proves it again.
    inflation : float
        ρ proved over ρ proposed, minus 1.
    """

    value: float
    certificate: Mapping[str, Any]
    inflation: float = 0.0


def prove(network: LayeredNetwork, proposal: Multipliers | LayerNorms) -> Proof | None:
    """Turn a solver's proposal into a proved bound.

    Parameters
    ----------
    network : LayeredNetwork
        The network with its original weights.
    proposal : Multipliers or LayerNorms
        Nothing about it is trusted.

    Returns
    -------
    Proof or None
        None if the proof does not succeed.

    Notes
    -----
    ρ is raised by factors 1 + 1e-13 · 4ᵏ until the inequality is proved.

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> round(prove(network, LayerNorms((0.501, 0.751))).value, 3)
    6.02
    >>> prove(network, LayerNorms((0.501, 0.749))) is None
    True
    """
    chain = build_chain(network)
    header = {
        "network_hash": network.hash,
        "slopes": [[item.alpha, item.beta] for item in network.activations],
    }
    if isinstance(proposal, LayerNorms):
        if not chain.norms_hold(proposal.norms):
            return None
        value = chain.norm_product(proposal.norms)
        content = {"kind": "norm_product", "norms": list(proposal.norms)}
        return Proof(value, {**header, **content, "value": value})
    try:
        reduced = chain.with_square_input()
        matrix = LmiMatrix(reduced, proposal)
    except (InputError, SolverError):
        return None
    inflation = 1e-13
    while inflation < MAX_INFLATION:
        rho = proposal.rho * (1.0 + inflation)
        if matrix.proves(rho):
            value = proposal.bound(reduced, rho)
            content = _multiplier_content(proposal, rho)
            return Proof(value, {**header, **content, "value": value}, inflation)
        inflation *= 4.0
    return None


def _multiplier_content(proposal: Multipliers, rho: float) -> dict[str, Any]:
    """Return multipliers as plain values."""
    return {
        "kind": "lmi",
        "rho": rho,
        "shifts": [int(shift) for shift in proposal.shifts],
        "multipliers": [np.asarray(item).tolist() for item in proposal.values],
    }


def verify_certificate(certificate: Mapping[str, Any], network: LayeredNetwork) -> bool:
    """Prove a certified bound again from the weights, without any solver.

    Parameters
    ----------
    certificate : mapping
        ``Bound.certificate``, or the same read from a JSON file.
    network : LayeredNetwork
        The network it was given for, with the same slope ranges.

    Returns
    -------
    bool
        True if ``certificate["value"]`` is proved to be an upper bound.

    Raises
    ------
    InputError
        If the certificate belongs to another network or is incomplete.

    Notes
    -----
    Cost O(Σ n_i³) for kind "lmi".

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> proof = prove(network, LayerNorms((0.501, 0.751)))
    >>> verify_certificate(proof.certificate, network)
    True
    >>> verify_certificate({**proof.certificate, "value": 5.9}, network)
    False
    """
    try:
        if certificate["network_hash"] != network.hash:
            raise InputError(
                f"the certificate belongs to network {certificate['network_hash']!r}, "
                f"got {network.hash!r}; weights or slope ranges differ"
            )
        chain = build_chain(network)
        claimed = float(certificate["value"])
        if certificate["kind"] == "norm_product":
            norms = tuple(float(norm) for norm in certificate["norms"])
            return chain.norms_hold(norms) and chain.norm_product(norms) <= claimed
        if certificate["kind"] != "lmi":
            raise InputError(f"unknown kind of certificate: {certificate['kind']!r}")
        return _verify_multipliers(certificate, chain, claimed)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the certificate is incomplete or damaged: {error!r}") from error


def _verify_multipliers(certificate: Mapping[str, Any], chain: BlockChain, claimed: float) -> bool:
    """Prove the matrix inequality that a certificate describes."""
    proposal = Multipliers(
        tuple(np.asarray(item, dtype=np.float64) for item in certificate["multipliers"]),
        tuple(int(shift) for shift in certificate["shifts"]),
        float(certificate["rho"]),
    )
    reduced = chain.with_square_input()
    holds = LmiMatrix(reduced, proposal).proves(proposal.rho)
    return holds and proposal.bound(reduced, proposal.rho) <= claimed
